"""What a training run leaves behind: its figures line by line, its curves and its confusions.

Files appear whole or not at all: each is written beside its place and then moved there.
"""

import glob
import io
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..types import require

COUNTERS = ("epoch", "step", "seconds", "examples_per_second")
VALIDATION = "val_"
PARTIAL = ".partial"
"""How the name of a file ends that is being written."""
TRAIN_COLOR, VALIDATION_COLOR = "#1f6fb4", "#d9601a"


@dataclass(frozen=True)
class History:
    """The figures of each epoch.

    Attributes:
        rows: One dict for each epoch: `epoch` from 1, `step`, `loss` and the metrics over the
            training examples, the same with `val_` in front over the validation examples,
            `seconds` and `examples_per_second`.

    >>> history = History(({"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "val_loss": 1.5}))
    >>> history.column("loss"), history.column("val_loss")
    ([2.0, 1.0], [nan, 1.5])
    """

    rows: tuple[dict[str, float], ...] = ()

    def column(self, name: str) -> list[float]:
        """One figure over the epochs, NaN where an epoch has none."""
        return [row.get(name, math.nan) for row in self.rows]

    def save(self, path: str | Path) -> None:
        """Write the rows as JSON lines; what is not finite becomes null.

        Raises:
            ValueError: If `path` cannot be written.
        """
        lines = (json.dumps(finite_or_none(row), allow_nan=False) + "\n" for row in self.rows)
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
        return History(tuple(_row(path, number, line) for number, line in enumerate(lines, 1)))

    def plot(self, path: str | Path) -> None:
        """Draw loss and metrics over the epochs, training and validation together, as a picture.

        Args:
            path: Where to write; the ending chooses the format, `.png` for one.

        Raises:
            ValueError: If there is no epoch to draw, or `path` cannot be written.
            ImportError: If matplotlib is missing.
        """
        names = _curves(self.rows)
        require(
            names,
            "History.plot",
            "at least one epoch",
            "none",
            "Train for an epoch before drawing it.",
        )
        figure = _figure("History.plot", 5.2 * len(names), 3.9)
        for panel, name in zip(
            figure.subplots(1, len(names), squeeze=False)[0], names, strict=True
        ):
            self._draw(panel, name)
        _save_figure("History.plot", figure, path)

    def _draw(self, panel: Any, name: str) -> None:
        epochs = self.column("epoch")
        marker = "o" if len(epochs) <= 30 else None
        curves = (("train", name, TRAIN_COLOR), ("validation", VALIDATION + name, VALIDATION_COLOR))
        drawn: list[float] = []
        for label, column, color in curves:
            values = self.column(column)
            if finite := [v for v in values if math.isfinite(v)]:
                text = f"{label}, last {finite[-1]:.3g}"
                panel.plot(epochs, values, color=color, label=text, marker=marker, markersize=3.5)
                drawn += finite
        if name == "loss" and drawn and min(drawn) > 0 and max(drawn) > 20 * min(drawn):
            panel.set_yscale("log")
            panel.yaxis.set_major_formatter("{x:g}")
        panel.set_title(name.replace("_", " "), fontsize=12)
        panel.set_xlabel("epoch")
        panel.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        if drawn:
            panel.legend(frameon=False)


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

    >>> confusion([0, 0, 1], [0, 1, 1], 2).tolist()
    [[1, 1], [0, 1]]
    """
    n = classes if isinstance(classes, int) else len(classes)
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    require(
        labels.ndim == 1 and labels.shape == predictions.shape,
        "confusion",
        "labels and predictions of one shape (n,)",
        f"{labels.shape} and {predictions.shape}",
        "Give the predicted class, logits.argmax(-1), not the logits.",
    )
    both = np.concatenate([labels, predictions]).astype(int)
    require(
        not both.size or (both.min() >= 0 and both.max() < n),
        "confusion",
        f"classes from 0 to {n - 1}",
        f"{both.min(initial=0)} to {both.max(initial=0)}",
        "Give the number of classes that the network tells apart.",
    )
    counts = np.bincount(n * labels.astype(int) + predictions.astype(int), minlength=n * n)
    return counts.reshape(n, n)


def plot_confusion(counts: np.ndarray, classes: int | Sequence[str], path: str | Path) -> None:
    """Draw a confusion matrix: the counts, coloured by their share of the true class.

    Args:
        counts: What `confusion` gave.
        classes: How many there are, or their names.
        path: Where to write.

    Raises:
        ValueError: If there are not as many classes as rows, or `path` cannot be written.
        ImportError: If matplotlib is missing.

    >>> plot_confusion(np.eye(2, dtype=int), ["cat", "dog"], tempfile.gettempdir() + "/pets.png")
    """
    names = [str(c) for c in (range(classes) if isinstance(classes, int) else classes)]
    require(
        np.shape(counts) == (len(names), len(names)),
        "plot_confusion",
        f"counts of shape ({len(names)}, {len(names)}), one row for each class",
        f"shape {np.shape(counts)}",
        "Make them with confusion(labels, predictions, classes).",
    )
    counts = np.asarray(counts)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 2.2 + 0.48 * len(names)
    figure = _figure("plot_confusion", side + 0.8, side)
    panel = figure.subplots()
    # Errors are rare in a good network: the square root of the share lets a few of them be seen.
    image = panel.imshow(np.sqrt(share), cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "white" if np.sqrt(share[row, column]) > 0.6 else "#333333"
        number = str(counts[row, column])
        panel.text(column, row, number, ha="center", va="center", color=color, fontsize=9)
    slant = 45 if max(map(len, names), default=0) > 3 else 0
    panel.set_xticks(range(len(names)), names, rotation=slant, ha="right" if slant else "center")
    panel.set_yticks(range(len(names)), names)
    panel.set_xlabel("predicted")
    panel.set_ylabel("true")
    right, total = int(np.trace(counts)), int(counts.sum())
    panel.set_title(f"{right} of {total} right ({right / max(total, 1):.1%})", fontsize=12)
    panel.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=panel, shrink=0.8, label="share of the true class")
    bar.set_ticks(
        np.sqrt([0, 0.02, 0.1, 0.3, 0.6, 1]), labels=["0", "2%", "10%", "30%", "60%", "100%"]
    )
    bar.outline.set_visible(False)
    _save_figure("plot_confusion", figure, path)


def plot_images(images: Any, path: str | Path, *, columns: int = 12, title: str = "") -> None:
    """Draw images side by side, row by row.

    Args:
        images: `(n, height, width, 1)`, the smallest number white and the largest black, or
            `(n, height, width, 3)`, red, green and blue from 0 to 1.
        path: Where to write.
        columns: How many in a row.
        title: What stands above them.

    Raises:
        ValueError: If the shape is another, or `path` cannot be written.
        ImportError: If matplotlib is missing.

    >>> plot_images(np.ones((3, 8, 8, 1)), tempfile.gettempdir() + "/ones.png")
    """
    images = np.asarray(images)
    require(
        images.ndim == 4 and len(images) > 0 and images.shape[-1] in (1, 3),
        "plot_images",
        "images of shape (n, height, width, 1 or 3)",
        f"shape {images.shape}",
        "Channels come last.",
    )
    columns = min(columns, len(images))
    missing = -len(images) % columns
    filled = np.concatenate([images, np.broadcast_to(images.min(), (missing, *images.shape[1:]))])
    rows = np.split(filled, len(filled) // columns)
    whole = np.concatenate([np.concatenate(list(row), 1) for row in rows])
    figure = _figure("plot_images", 0.7 * columns, 0.7 * len(rows) + 0.4)
    panel = figure.subplots()
    panel.imshow(whole if whole.shape[-1] == 3 else whole[..., 0], cmap="gray_r")
    panel.set_title(title, fontsize=12)
    panel.axis("off")
    _save_figure("plot_images", figure, path)


def write_whole(where: str, path: str | Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all.

    What a process that was killed left half written goes away with the next file of that name.

    Raises:
        ValueError: If `path` cannot be written.
    """
    path, partial = Path(path), None
    try:
        _remove_abandoned(path)
        own = f".{path.name}.{os.getpid()}."
        handle, partial = tempfile.mkstemp(PARTIAL, own, path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except OSError as error:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
        remedy = "Choose a folder that exists and that you may write to."
        require(False, where, f"a place to write, {path}", error.strerror, remedy)


def _remove_abandoned(path: Path) -> None:
    """Remove the partial files of `path` whose process is gone."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL}"):
        writer = partial.name.removeprefix(f".{path.name}.").partition(".")[0]
        if writer.isdigit() and not _runs(int(writer)):
            partial.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    if os.name != "posix":
        return True  # elsewhere there is no harmless way to ask
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def finite_or_none(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with None for each number that strict JSON has no word for.

    >>> finite_or_none({"epoch": 1, "loss": math.nan})
    {'epoch': 1, 'loss': None}
    """
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }


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
    return {name: math.nan if value is None else value for name, value in row.items()}


def _curves(rows: Sequence[dict[str, float]]) -> list[str]:
    names = (name.removeprefix(VALIDATION) for row in rows for name in row)
    return list(dict.fromkeys(name for name in names if name not in COUNTERS))


def _figure(where: str, width: float, height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        require(
            False,
            where,
            "the package matplotlib, which draws pictures",
            "none",
            "Run `pip install 'funcnet[train]'`.",
            ImportError,
        )
        raise
    return Figure(figsize=(width, height), layout="constrained")


def _save_figure(where: str, figure: Any, path: str | Path) -> None:
    content = io.BytesIO()
    kind = Path(path).suffix.lstrip(".") or "png"
    kinds = sorted(figure.canvas.get_supported_filetypes())
    require(
        kind in kinds, where, f"a picture of a kind among {', '.join(kinds)}", kind, "Use .png."
    )
    figure.savefig(content, format=kind, dpi=150)
    write_whole(where, path, content.getvalue())
