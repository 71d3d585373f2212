"""How well classes are told apart: precision, recall and F1 of each, and calibration."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..render.forms import Column, Table, count
from ..types import Hint, require
from ..verdicts.report import Report
from .history import confusion, finite_or_none

BINS = 15
"""Bins of confidence, as in the paper."""


class Bin(NamedTuple):
    """Examples of about one confidence.

    Attributes:
        confidence: The mean probability of the class that was chosen.
        accuracy: The share of them that is right.
        count: How many.
    """

    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True, eq=False)
class ClassReport(Report):
    """How well classes are told apart. It prints as a table, and `json()` gives all figures.

    Attributes:
        classes: Their names.
        counts: How often each was taken for each, `(classes, classes)`: row true, column predicted.
        precision: Of what was taken for a class, the share that is of it, `(classes,)`, float64; 0
            where nothing was.
        recall: Of what is of a class, the share that was found; 0 where nothing is.
        f1: Their harmonic mean; 0 where both are.
        loss: The mean of -ln p over the examples, in nats.
        bins: The examples by confidence, in 15 bins of equal width, those that are empty left out.
    """

    classes: tuple[str, ...]
    counts: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    loss: float
    bins: tuple[Bin, ...]

    @property
    def heading(self) -> str:
        """What stands above its page."""
        return f"{len(self.classes)} classes"

    @property
    def support(self) -> np.ndarray:
        """How many examples each class has."""
        return self.counts.sum(1)

    @property
    def accuracy(self) -> float:
        """The share of all examples that is right."""
        return float(np.trace(self.counts) / self.counts.sum())

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that occur: each counts alike, however rare it is."""
        return float(self.recall[self.support > 0].mean())

    @property
    def macro(self) -> dict[str, float]:
        """The means of precision, recall and F1 over the classes that occur or were predicted."""
        met = (self.counts.sum(0) + self.support) > 0
        figures = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {name: float(values[met].mean()) for name, values in figures.items()}

    @property
    def calibration_error(self) -> float:
        """The expected calibration error: how far confidence and accuracy are apart, on average."""
        gaps = [part.count * abs(part.accuracy - part.confidence) for part in self.bins]
        return float(sum(gaps) / self.counts.sum())

    def json(self) -> dict[str, Any]:
        """All figures as plain Python, ready for `json.dumps`."""
        columns = zip(self.precision, self.recall, self.f1, self.support, strict=True)
        names = ("precision", "recall", "f1", "examples")
        rows = (dict(zip(names, map(float, row[:3]), strict=False)) | {names[3]: int(row[3])}
                for row in columns)  # fmt: skip
        figures = {
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "loss": self.loss,
            "expected_calibration_error": self.calibration_error,
            "macro": self.macro,
            "classes": dict(zip(self.classes, rows, strict=True)),
            "confusion": self.counts.tolist(),
            "calibration": [part._asdict() for part in self.bins],
        }
        return finite_or_none(figures)

    def parts(self) -> Sequence[Table | str]:
        """Precision, recall and F1 of each class, and what holds of all."""
        columns = (
            Column("class", gives="end"),
            *(Column(heading, right=True) for heading in ("precision", "recall", "F1", "examples")),
        )
        rows = [
            (name, *(f"{value:.3f}" for value in values), count(int(n)))
            for name, *values, n in zip(
                self.classes, self.precision, self.recall, self.f1, self.support, strict=True
            )
        ]
        macro = tuple(f"{value:.3f}" for value in self.macro.values())
        rows.append(("macro average", *macro, count(int(self.support.sum()))))
        said = (
            f"accuracy {self.accuracy:.3f}, balanced {self.balanced_accuracy:.3f}; "
            f"loss {self.loss:.3g}; expected calibration error {self.calibration_error:.3f}"
        )
        return (Table(columns, tuple(rows)), said)


def classification_report(
    labels: Any, scores: Any, classes: Sequence[str] | None = None, *, probabilities: bool = False
) -> ClassReport:
    """Precision, recall and F1 of each class, their means, and how well confidence can be trusted.

    Args:
        labels: The true classes, integers of shape (n,).
        scores: Logits (n, classes); or of two classes one logit each, (n,) or (n, 1), which is for
            class 1.
        classes: Their names; left out, their numbers.
        probabilities: Whether the scores are probabilities instead of logits.

    Returns:
        The figures, computed in float64.

    Warns:
        Hint: If scores that are taken for logits look like probabilities.

    Raises:
        ValueError: If the shapes do not fit, nothing is there, a label is out of range, a score is
            not finite, or probabilities are below 0 or do not sum to 1.
        TypeError: If labels are no integers.

    >>> report = classification_report([0, 0, 1], [[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]])
    >>> report.precision.tolist(), report.recall.tolist(), report.accuracy == 2 / 3
    ([1.0, 0.5], [0.5, 1.0], True)

    Reference: Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 3.
    """
    log_p = _log_probabilities(np.asarray(scores, np.float64), probabilities)
    n, k = log_p.shape
    names = tuple(map(str, range(k) if classes is None else classes))
    expected = f"{k} names of classes, one for each score of an example"
    remedy = "Leave them out to number the classes."
    require(len(names) == k, "classification_report", expected, len(names), remedy)
    chosen = log_p.argmax(1)
    counts = confusion(labels, chosen, k)
    right, labels = np.diag(counts), np.asarray(labels)
    precision, recall = _share(right, counts.sum(0)), _share(right, counts.sum(1))
    f1 = _share(2 * precision * recall, precision + recall)
    loss = float(-log_p[np.arange(n), labels].mean())
    bins = _bins(np.exp(log_p.max(1)), chosen == labels)
    return ClassReport(names, counts, precision, recall, f1, loss, bins)


def _log_probabilities(scores: np.ndarray, probabilities: bool) -> np.ndarray:
    """ln p of each class, `(n, classes)`, from logits or probabilities of any form."""
    where = "classification_report"
    single = scores.ndim == 1 or (scores.ndim == 2 and scores.shape[1] == 1)
    require(
        scores.size and scores.ndim in (1, 2),
        where,
        "scores of shape (n, classes), or (n,) for two classes",
        f"shape {scores.shape}",
        "Give one row of logits for each example.",
    )
    remedy = "Look for where it is born: fn.explain_nonfinite."
    require(np.isfinite(scores).all(), where, "finite scores", "a NaN or an infinity", remedy)
    if single:
        yes = scores.reshape(-1)
        scores = np.stack([1 - yes if probabilities else 0 * yes, yes], 1)
    sums = scores.sum(1)
    whole = scores.min() >= 0 and abs(sums - 1).max() < 1e-3
    if probabilities:
        got = f"least {scores.min():.3g}, sums from {sums.min():.3g} to {sums.max():.3g}"
        remedy = "Leave probabilities out for logits."
        require(whole, where, "probabilities of 0 or above that sum to 1", got, remedy)
        with np.errstate(divide="ignore"):
            return np.log(scores)
    if whole and not single:
        said = "the scores are taken for logits, though each row sums to 1: say probabilities=True"
        warnings.warn(said, Hint, stacklevel=3)
    shifted = scores - scores.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Part over whole, and 0 where both are."""
    return part / np.where(whole == 0, 1, whole)


def _bins(confidence: np.ndarray, right: np.ndarray) -> tuple[Bin, ...]:
    """The examples by confidence: bin i has those above i / 15, up to (i + 1) / 15."""
    edges = np.arange(1, BINS) / BINS
    place = np.searchsorted(edges, confidence, side="left")
    return tuple(
        Bin(float(confidence[here].mean()), float(right[here].mean()), int(here.sum()))
        for here in (place == i for i in range(BINS))
        if here.any()
    )
