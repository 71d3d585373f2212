"""What a training run leaves behind: its figures line by line, its curves, and which class was
taken for which.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..disk import write_whole
from ..types import require
from ..verdicts.health.course import Course, course
from .curves import COUNTERS as COUNTERS
from .curves import VALIDATION as VALIDATION
from .curves import column, draw, figures_in


@dataclass(frozen=True)
class History:
    """The figures of each epoch.

    Attributes:
        rows: One dict for each epoch: `epoch` from 1, `step`, `loss` and the metrics over the
            training examples, the same with `val_` in front over the validation examples,
            `seconds`, `examples_per_second`, and `learning_rate`, that of the epoch's last step,
            where the optimiser tells it, as those of `optax.inject_hyperparams` do.
        health: What `fit` saw of the network with `health=n`, one dict for each time: `step`, from
            0, and `figures`, by what they are of and by layer, as `Health.figures` has them.

    >>> history = History(({"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "val_loss": 1.5}))
    >>> history.column("loss"), history.column("val_loss")
    ([2.0, 1.0], [nan, 1.5])
    """

    rows: tuple[dict[str, float], ...] = ()
    health: tuple[dict[str, Any], ...] = ()

    def verdicts(self) -> Course:
        """What is wrong with the run, if anything: over-fitting, steps too large or too small,
        and with `fit(..., health=n)` what `health` says of a network.

        >>> rows = tuple({"epoch": n, "loss": float(n)} for n in range(1, 6))
        >>> print(History(rows).verdicts().verdicts[0].kind)
        loss rises
        """
        return course(self.rows, [record["figures"] for record in self.health])

    def column(self, name: str) -> list[float]:
        """One figure over the epochs, NaN where an epoch has none."""
        return column(self.rows, name)

    def save(self, path: str | Path) -> None:
        """Write the rows as JSON lines; what is not finite becomes null.

        Raises:
            ValueError: If `path` cannot be written.
        """
        rows = map(finite_or_none, (*self.rows, *self.health))
        lines = (json.dumps(row, allow_nan=False) + "\n" for row in rows)
        write_whole("History.save", path, "".join(lines).encode())

    @staticmethod
    def load(path: str | Path) -> "History":
        """Read what `save` wrote.

        Raises:
            ValueError: If there is no such file, or a line is no JSON object.
        """
        try:
            lines = Path(path).read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no text"
            require(False, "History.load", f"a history at {path}", reason, "Check the path.")
            raise
        rows = [_row(path, number, line) for number, line in enumerate(lines, 1)]
        seen = tuple(row for row in rows if "figures" in row)
        return History(tuple(row for row in rows if "figures" not in row), seen)

    def plot(self, path: str | Path) -> None:
        """Draw loss and metrics over the epochs, training and validation together, as a picture.

        What lies between the two is shaded: the gap of over-fitting. Beside them stand the learning
        rate, if it is known, and the pace, and with `fit(..., health=n)` the adjoints and the
        updates of the layers over the steps.

        Args:
            path: Where to write; the ending chooses the format, `.png` for one.

        Raises:
            ValueError: If there is no epoch to draw, or `path` cannot be written.
            ImportError: If matplotlib is missing.
        """
        names = figures_in(self.rows)
        require(
            names,
            "History.plot",
            "at least one epoch",
            "none",
            "Train for an epoch before drawing it.",
        )
        require(
            all("epoch" in row for row in self.rows),
            "History.plot",
            "an epoch in each row",
            f"a row of {', '.join(next(row for row in self.rows if 'epoch' not in row))}"
            if not all("epoch" in row for row in self.rows)
            else "none",
            "Number the rows: {'epoch': 1, 'loss': 0.5}.",
        )
        draw(self.rows, self.health, path)


def confusion(labels: Any, predictions: Any, classes: int | Sequence[str]) -> np.ndarray:
    """How often each class was taken for each.

    Args:
        labels: The true classes, integers of shape (n,).
        predictions: The predicted classes, the same.
        classes: How many there are, or their names.

    Returns:
        Counts of shape (classes, classes): row true, column predicted.

    Raises:
        ValueError: If the lengths differ or a class is out of range.
        TypeError: If a class is no integer.

    >>> confusion([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    n = int(classes) if isinstance(classes, int | np.integer) else len(classes)
    require(n >= 1, "confusion", "one class or more", n, "Give their number or their names.")
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    require(
        labels.ndim == 1 and labels.shape == predictions.shape,
        "confusion",
        "labels and predictions of one shape (n,)",
        f"{labels.shape} and {predictions.shape}",
        "Give the predicted class, logits.argmax(-1), not the logits.",
    )
    for part in (labels, predictions):
        require(
            np.can_cast(part.dtype, np.int64) or part.dtype.kind in "iu" or not part.size,
            "confusion",
            "labels and predictions that are integers",
            f"dtype {part.dtype}",
            "Give the predicted class, logits.argmax(-1), not the logits.",
            TypeError,
        )
    ends = [int(end) for part in (labels, predictions) if part.size for end in _ends(part)]
    require(
        not ends or (min(ends) >= 0 and max(ends) < n),
        "confusion",
        f"classes from 0 to {n - 1}",
        f"{min(ends, default=0)} to {max(ends, default=0)}",
        "Give the number of classes that the network tells apart.",
    )
    counts = np.bincount(n * labels.astype(int) + predictions.astype(int), minlength=n * n)
    return counts.reshape(n, n)


def _ends(part: np.ndarray) -> tuple[Any, Any]:
    return part.min(), part.max()


def finite_or_none(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with None for each number that strict JSON has no word for.

    >>> finite_or_none({"epoch": 1, "loss": math.nan})
    {'epoch': 1, 'loss': None}
    """
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    """A number of NumPy or JAX as one of Python, and None for what is not finite."""
    if isinstance(value, dict):
        return finite_or_none(cast(dict[str, Any], value))
    plain = value.item() if getattr(value, "shape", None) == () else value
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain


def _row(path: str | Path, number: int, line: str) -> dict[str, float]:
    try:
        row: Any = json.loads(line)
    except ValueError:
        row = None
    require(
        isinstance(row, dict),
        "History.load",
        f"a JSON object in line {number} of {path}",
        repr(line[:40]),
        "Give a file that History.save wrote.",
    )
    return _with_nan(row)


def _with_nan(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _with_nan(cast(dict[str, Any], value))
        if isinstance(value, dict)
        else math.nan
        if value is None
        else value
        for name, value in row.items()
    }
