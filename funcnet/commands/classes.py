"""Networks that tell classes apart, or numbers: their job, their judgement, their predictions."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from .. import plot
from ..feed.arrays import Data, Standard
from ..feed.named import load_data
from ..feed.order import class_weights
from ..nn.layer import Layer
from ..ops.losses.cross_entropy import cross_entropy
from ..ops.losses.distances import binary_cross_entropy, squared_error
from ..train.classes import classification_report
from ..train.history import confusion
from ..train.metrics import accuracy, r_squared
from ..train.state import TrainState
from ..types import require
from .files import columns_of, examples, of_table
from .jobs import Asked, Findings, Job, Kind, in_parts

Build = Callable[[int, Sequence[int]], Layer]
TOP = 3
"""How many classes of a prediction are told."""


def classify(build: Build, asked: Asked, *, smoothing: float = 0.0) -> Job:
    """Tell classes apart, or numbers where the targets are numbers; `build(outputs, widths)`."""
    run = asked.run
    if run is None:
        data = load_data(asked.data)
        _check_classes(data)
    elif run.get("table") and asked.other:
        data = _further(run, asked.data)
    else:
        data = _in_terms_of(run, load_data(asked.data), asked.other)
    for name, value in (("smoothing", asked.smoothing), ("class-weight", asked.class_weight)):
        require(
            not value or data.classes is not None,
            "train",
            f"no --{name} for {data.name}, whose targets are numbers",
            f"--{name} {value}",
            "Leave it out.",
        )
    loss, metric, outputs = _kind(data)
    net = build(outputs, asked.width)
    share = smoothing if asked.smoothing is None else asked.smoothing
    criterion = _smoothed(loss, share) if share and data.classes is not None else loss
    if asked.class_weight:
        criterion = _weighted(criterion, data)
    judge = partial(_judge, net, data, loss, metric)
    return Job(
        net, criterion, {metric.__name__: metric}, data.name, data.train, data.test, judge,
        _described(data, outputs), partial(_examine, net, data, loss),
    )  # fmt: skip


def _kind(data: Data) -> tuple[Callable, Callable, int]:
    """Loss, metric and number of outputs: two classes need one logit, more one each."""
    if data.classes is None:
        return squared_error, r_squared, data.train[1].shape[1]
    if len(data.classes) == 2:
        return _column(binary_cross_entropy), accuracy, 1
    return cross_entropy, accuracy, len(data.classes)


def _smoothed(loss: Callable, share: float) -> Callable:
    """The loss with this share of each label spread evenly over the classes."""
    require(
        0 <= share < 1,
        "train",
        "--smoothing from 0 to below 1",
        share,
        "It is the share of each label that is spread over all classes.",
    )
    if loss is cross_entropy:
        return partial(cross_entropy, label_smoothing=share)
    return lambda output, target, *weight: loss(output, (1 - share) * target + share / 2, *weight)


def _weighted(loss: Callable, data: Data) -> Callable:
    """The loss with each class as heavy as any other, however many examples it has."""
    classes, found = len(data.classes or ()), class_weights(data.train[1])
    weights = jnp.asarray(np.pad(found, (0, classes - len(found))))
    if classes == 2:  # a weight of each example, of which the mean over all examples is 1
        return lambda output, target: loss(output, target, weights[target.reshape(-1)])
    return lambda output, target: loss(output, target, weights)


def _check_classes(data: Data) -> None:
    targets = data.train[1]
    require(
        data.classes is None or targets.min() < targets.max(),
        "train",
        f"examples of two classes or more in {data.name}",
        f"only class {targets[0]}",
        "Bring examples of another class, or write y as float where it is no class.",
    )


def _column(f: Callable) -> Callable:
    """A loss of a column of outputs `(n, 1)`, of targets `(n,)` or `(n, 1)`, and of weights."""

    def on_column(output: Any, target: Any, weight: Any = None) -> Any:
        return f(output[:, 0], target.reshape(-1).astype(output.dtype), weight=weight)

    on_column.__name__ = f.__name__
    return on_column


def _judge(
    net: Layer, data: Data, loss: Callable, metric: Callable, out: Path, trained: TrainState
) -> Findings:
    x, y = data.test
    outputs = in_parts(net, trained, x)
    scores = {
        metric.__name__: float(metric(jnp.asarray(outputs), jnp.asarray(y))),
        "loss": float(loss(jnp.asarray(outputs), jnp.asarray(y))),
    }
    if data.classes is None:
        return Findings(scores, set())
    chosen = (outputs[:, 0] > 0).astype(int) if outputs.shape[1] == 1 else outputs.argmax(-1)
    counts = confusion(y, chosen, len(data.classes))
    plot.confusion(counts, data.classes, out / "confusion.png")
    return Findings(scores, {"confusion.png"})


def _examine(net: Layer, data: Data, loss: Callable, out: Path, trained: TrainState) -> Findings:
    """All there is to say of the held-out data."""
    x, y = data.test
    outputs = in_parts(net, trained, x)
    if data.classes is None:
        return _examine_numbers(data, loss, outputs, out)
    report = classification_report(y, outputs, data.classes)
    plot.confusion(report.counts, data.classes, out / "confusion.png")
    error = report.calibration_error
    plot.reliability(report.bins, out / "reliability.png", error=error)
    scores = {"accuracy": report.accuracy, "balanced_accuracy": report.balanced_accuracy}
    scores |= {"calibration_error": error, "loss": report.loss}
    files = {"confusion.png", "reliability.png"}
    return Findings(scores, files, str(report), report.json())


def _examine_numbers(data: Data, loss: Callable, outputs: np.ndarray, out: Path) -> Findings:
    """Errors in the units of the targets, where it is known how they were standardised."""
    y = data.test[1]
    scale = data.targets or of_table({"table": _table(data)})
    truth, found = ((scale.back(part) if scale else part) for part in (y, outputs))
    plot.residuals(truth, found, out / "residuals.png", title=f"{len(y)} examples of {data.name}")
    scores = {
        "r_squared": float(r_squared(jnp.asarray(outputs), jnp.asarray(y))),
        "mean_absolute_error": float(np.abs(found - truth).mean()),
        "root_mean_squared_error": float(np.sqrt(((found - truth) ** 2).mean())),
        "loss": float(loss(jnp.asarray(outputs), jnp.asarray(y))),
    }
    return Findings(scores, {"residuals.png"})


# What a run's folder says of its data, and other data in its terms


def _described(data: Data, outputs: int) -> dict[str, Any]:
    return {
        "size": outputs,
        "classes": data.classes,
        "features": data.features,
        "table": _table(data),
        "inputs": _listed(data.inputs),
        "targets": _listed(data.targets),
    }


def _table(data: Data) -> dict[str, Any] | None:
    """How the columns of a file became numbers, where the data says so."""
    columns = data.columns
    return columns and dataclasses.asdict(columns)


def _listed(scale: Standard | None) -> dict[str, list[float]] | None:
    return scale and {name: part.tolist() for name, part in scale._asdict().items()}


def _scale(run: Mapping[str, Any], name: str) -> Standard | None:
    found = run.get(name)
    return found and Standard(np.asarray(found["mean"]), np.asarray(found["deviation"]))


def _in_terms_of(run: Mapping[str, Any], data: Data, other: bool) -> Data:
    """The data with the classes and the scales of a run; of other data all examples are held out.

    Raises:
        ValueError: If it has another shape, or classes that the run does not know.
    """
    shape = tuple(run["input"]["shape"])
    require(
        data.train[0].shape[1:] == shape,
        "evaluate",
        f"examples of shape {shape}, as the run's own",
        f"{data.train[0].shape[1:]} in {data.name}",
        "Choose data of the same kind.",
    )
    classes = run["classes"] and tuple(run["classes"])
    require(
        (classes is None) == (data.classes is None)
        and set(data.classes or ()) <= set(classes or ()),
        "evaluate",
        f"classes among {', '.join(classes)}" if classes else "targets that are numbers",
        ", ".join(data.classes) if data.classes else "numbers",
        "Name them as in the data that was learned from.",
    )
    inputs, targets = _scale(run, "inputs"), _scale(run, "targets")
    places = np.array([classes.index(name) for name in data.classes or ()] if classes else (), int)

    def moved(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels = places[y].astype(np.int32) if classes else _rescaled(y, data.targets, targets)
        return _rescaled(x, data.inputs, inputs), labels

    train, (x, y) = moved(*data.train), moved(*data.test)
    if other:
        x, y = np.concatenate([train[0], x]), np.concatenate([train[1], y])
    return data._replace(train=train, test=(x, y), classes=classes, inputs=inputs, targets=targets)


def _further(run: Mapping[str, Any], path: str) -> Data:
    """Another file with the columns of the table that a run learned from, by the same measure."""
    columns = columns_of(run["table"])
    pair = columns.examples(path)
    return Data(pair, pair, run["classes"] and tuple(run["classes"]), Path(path).stem, columns)


def _rescaled(x: np.ndarray, old: Standard | None, new: Standard | None) -> np.ndarray:
    if repr(old) == repr(new):
        return x
    raw = old.back(x) if old else x
    return new.forth(raw) if new else raw.astype(np.float32)


# Predictions


def predict(build: Build, run: Any, path: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the network says of each example of a file.

    Returns:
        Of classes `class` and `probabilities`, of numbers `values`, in their own units.
    """
    about = run.description
    x = examples(path, about, _scale(about, "inputs"))
    outputs = in_parts(run.net, run, x).astype(np.float64)
    if not about["classes"]:
        scale = _scale(about, "targets") or of_table(about)
        return [{"values": row.tolist()} for row in (scale.back(outputs) if scale else outputs)]
    if outputs.shape[1] == 1:
        outputs = np.concatenate([0 * outputs, outputs], 1)
    shifted = np.exp(outputs - outputs.max(1, keepdims=True))
    records = []
    for p in shifted / shifted.sum(1, keepdims=True):
        first = np.argsort(-p, kind="stable")
        named = {about["classes"][i]: float(p[i]) for i in first}
        records.append({"class": about["classes"][first[0]], "probabilities": named})
    return records


def said(record: Mapping[str, Any]) -> str:
    """A prediction as a person reads it.

    >>> said({"class": "b", "probabilities": {"b": 0.75, "a": 0.25}}), said({"values": [1.5, 2.0]})
    ('b 0.750, a 0.250', '1.5, 2')
    """
    if "values" in record:
        return ", ".join(f"{value:.6g}" for value in record["values"])
    best = list(record["probabilities"].items())[:TOP]
    return ", ".join(f"{name} {p:.3f}" for name, p in best)


CLASSIFYING = Kind(classify, lambda build, size, widths: build(size, widths), predict, classes=True)
