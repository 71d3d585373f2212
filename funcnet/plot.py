"""Pictures of what was learned: confusions and images, drawn by matplotlib."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .render import picture
from .types import require


def confusion(counts: np.ndarray, classes: int | Sequence[str], path: str | Path) -> None:
    """Draw a confusion matrix: the counts, coloured by their share of the true class.

    Args:
        counts: What `confusion` gave.
        classes: How many there are, or their names.
        path: Where to write.

    Raises:
        ValueError: If there are not as many classes as rows, the counts are none, or `path` cannot
            be written.
        ImportError: If matplotlib is missing.

    >>> import tempfile
    >>> confusion(np.eye(2, dtype=int), ["cat", "dog"], tempfile.gettempdir() + "/pets.png")
    """
    whole = isinstance(classes, int | np.integer)
    names = [str(c) for c in (range(int(classes)) if whole else classes)]
    require(
        np.shape(counts) == (len(names), len(names)),
        "plot.confusion",
        f"counts of shape ({len(names)}, {len(names)}), one row for each class",
        f"shape {np.shape(counts)}",
        "Make them with confusion(labels, predictions, classes).",
    )
    counts = np.asarray(counts)
    require(
        counts.size and counts.dtype.kind in "iu" and counts.min() >= 0,
        "plot.confusion",
        "counts that are integers, 0 or above",
        f"{counts.dtype} of shape {counts.shape}",
        "Make them with confusion(labels, predictions, classes).",
    )
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = 2.2 + 0.48 * len(names)
    figure = picture.figure("plot.confusion", side + 0.8, side)
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
    picture.save("plot.confusion", figure, path)


def images(pictures: Any, path: str | Path, *, columns: int = 12, title: str = "") -> None:
    """Draw images side by side, row by row.

    Args:
        pictures: `(n, height, width, 1)`, the smallest number white and the largest black, or
            `(n, height, width, 3)`, red, green and blue from 0 to 1.
        path: Where to write.
        columns: How many in a row.
        title: What stands above them.

    Raises:
        ValueError: If the shape or `columns` is another, or `path` cannot be written.
        TypeError: If the pictures hold no real numbers.
        ImportError: If matplotlib is missing.

    >>> import tempfile
    >>> images(np.ones((3, 8, 8, 1)), tempfile.gettempdir() + "/ones.png")
    """
    pictures = np.asarray(pictures)
    require(
        pictures.ndim == 4 and pictures.size > 0 and pictures.shape[-1] in (1, 3),
        "plot.images",
        "images of shape (n, height, width, 1 or 3)",
        f"shape {pictures.shape}",
        "Channels come last.",
    )
    pictures = _real(pictures)
    require(
        isinstance(columns, int | np.integer) and columns >= 1,
        "plot.images",
        "columns to be a whole number, 1 or above",
        repr(columns),
        "It is how many stand in a row.",
    )
    columns = min(columns, len(pictures))
    missing = -len(pictures) % columns
    filled = np.concatenate(
        [pictures, np.broadcast_to(pictures.min(), (missing, *pictures.shape[1:]))]
    )
    rows = np.split(filled, len(filled) // columns)
    whole = np.concatenate([np.concatenate(list(row), 1) for row in rows])
    figure = picture.figure("plot.images", 0.7 * columns, 0.7 * len(rows) + 0.4)
    panel = figure.subplots()
    panel.imshow(whole if whole.shape[-1] == 3 else whole[..., 0], cmap="gray_r")
    panel.set_title(title, fontsize=12)
    panel.axis("off")
    picture.save("plot.images", figure, path)


def _real(pictures: np.ndarray) -> np.ndarray:
    """The pictures, if they can be drawn; of a dtype that NumPy does not know, in float32."""
    foreign = pictures.dtype.isbuiltin == 2
    real = foreign or pictures.dtype.kind in "biuf"
    require(
        real,
        "plot.images",
        "real numbers",
        f"dtype {pictures.dtype}",
        "Take the real part, or the absolute value.",
        TypeError,
    )
    return pictures.astype(np.float32) if foreign else pictures


def reliability(bins: Sequence[Any], path: str | Path, *, error: float | None = None) -> None:
    """Draw how often a network is right against how sure it is.

    Args:
        bins: What `classification_report` has as `bins`: confidence, accuracy and count of each.
        path: Where to write.
        error: The expected calibration error, to be said above.

    Raises:
        ValueError: If there is no bin, or `path` cannot be written.
        ImportError: If matplotlib is missing.

    >>> import tempfile
    >>> reliability([(0.6, 0.5, 10), (0.9, 0.95, 40)], tempfile.gettempdir() + "/sure.png")
    """
    remedy = "Make them with classification_report(labels, logits)."
    require(len(bins), "plot.reliability", "one bin or more", "none", remedy)
    confidence, right, counts = (np.asarray(column, float) for column in zip(*bins, strict=True))
    figure = picture.figure("plot.reliability", 4.6, 5.4)
    panel, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    panel.plot([0, 1], [0, 1], color="#999999", linewidth=1, linestyle="--", label="calibrated")
    panel.vlines(confidence, right, confidence, color="#d9601a", alpha=0.5, linewidth=2)
    panel.plot(confidence, right, color="#1f6fb4", marker="o", markersize=4, label="this network")
    panel.set_ylabel("share that is right")
    panel.set_ylim(0, 1.02)
    panel.set_title(
        "Reliability" if error is None else f"Expected calibration error {error:.3f}", fontsize=12
    )
    panel.legend(frameon=False, loc="upper left")
    below.bar(confidence, counts, width=0.04, color="#1f6fb4", alpha=0.6)
    below.set_ylabel("examples")
    below.set_xlabel("confidence")
    below.set_xlim(0, 1.02)
    for part in (panel, below):
        part.grid(alpha=0.25)
        part.spines[["top", "right"]].set_visible(False)
    picture.save("plot.reliability", figure, path)


def residuals(targets: Any, outputs: Any, path: str | Path, *, title: str = "") -> None:
    """Draw what a network of numbers misses: predictions against targets, and the errors.

    Args:
        targets: The true numbers, of any shape.
        outputs: The predictions, of the same.
        path: Where to write.
        title: What stands above.

    Raises:
        ValueError: If the shapes differ or are empty, or `path` cannot be written.
        ImportError: If matplotlib is missing.

    >>> import tempfile
    >>> residuals([1.0, 2.0], [1.5, 2.0], tempfile.gettempdir() + "/missed.png")
    """
    targets, outputs = np.asarray(targets), np.asarray(outputs)
    require(
        targets.shape == outputs.shape and targets.size,
        "plot.residuals",
        "targets and predictions of one shape",
        f"{targets.shape} and {outputs.shape}",
        "Take the column of a one-column output: output[:, 0].",
    )
    x, y = (_real(part).reshape(-1) for part in (targets, outputs))
    figure = picture.figure("plot.residuals", 9.6, 4.2)
    panel, errors = figure.subplots(1, 2)
    ends = [min(x.min(), y.min()), max(x.max(), y.max())]
    panel.plot(ends, ends, color="#999999", linewidth=1, linestyle="--")
    panel.scatter(x, y, s=12, alpha=0.5, color="#1f6fb4", linewidths=0)
    panel.set_xlabel("true")
    panel.set_ylabel("predicted")
    panel.set_title(title, fontsize=12)
    errors.axvline(0, color="#999999", linewidth=1, linestyle="--")
    errors.hist(y - x, bins=min(30, max(5, len(x) // 5)), color="#1f6fb4", alpha=0.7)
    errors.set_xlabel("predicted less true")
    errors.set_ylabel("examples")
    for part in (panel, errors):
        part.grid(alpha=0.25)
        part.spines[["top", "right"]].set_visible(False)
    picture.save("plot.residuals", figure, path)
