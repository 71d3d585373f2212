"""Examples out of a file, for a network that was trained: an image, arrays, or a table."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..feed.arrays import Standard, finite_in, typed
from ..feed.files import UNREADABLE
from ..feed.tables import Column, Columns
from ..types import optional, require

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")


def examples(path: str, run: Mapping[str, Any], scale: Standard | None) -> np.ndarray:
    """The examples of a file as the network of a run takes them, `(n, *shape)` float32.

    A picture is brought to the size of the run's images. Arrays and tables hold what the data of
    the run held before it was standardised; images of integers are pixels from 0 to 255.

    Raises:
        ValueError: If there is no such file, it is damaged, or it holds examples of another shape.
    """
    shape = tuple(run["input"]["shape"])
    require(
        Path(path).is_file(),
        "predict",
        "a file of examples",
        f"{path}, which is {'a folder' if Path(path).is_dir() else 'not there'}",
        "Check the path.",
    )
    ending = Path(path).suffix.lower()
    if run.get("table") and ending in (".csv", ".parquet"):
        return columns_of(run["table"]).read(path)
    if ending in PICTURES:
        return _picture(path, shape)
    if ending in (".npy", ".npz"):
        x = _arrays(path)
    else:
        x = _table(path, run.get("features") or ())
    if shape[-1] == 1 and x.shape[-len(shape) + 1 :] == shape[:-1] and len(shape) == 3:
        x = x[..., None]
    many = x.shape[1:] == shape or (x.ndim == 2 and x.shape[1] == math.prod(shape))
    require(
        x.size and (many or x.shape == shape),
        "predict",
        f"examples of shape {shape} in {path}, as the run learned from",
        f"shape {x.shape}",
        "Give arrays of shape (n, *shape), or a table of a line each.",
    )
    x = x.reshape(-1, *shape)
    pixels = len(shape) == 3 and x.min() >= 0 and 1 < x.max() <= 255 and (x == np.rint(x)).all()
    x = typed(x.astype(np.uint8)) if pixels else finite_in(np.float32, "predict", path, x)
    return scale.forth(x) if scale else x


def opening(path: str) -> str:
    """The text of a file to go on with, without the end of its last line.

    Raises:
        ValueError: If there is none.
    """
    try:
        text = Path(path).read_text(encoding="utf-8").removesuffix("\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        require(False, "predict", f"a text in UTF-8 at {path}", reason, "Check the path.")
        raise
    remedy = "Write how it is to begin."
    require(text, "predict", f"a text to go on with in {path}", "an empty file", remedy)
    return text


def columns_of(table: Mapping[str, Any]) -> Columns:
    """How the columns of a run's table became numbers, out of its description."""
    columns = [
        Column(**(column | {"categories": tuple(column["categories"])}))
        for column in (*table["inputs"], table["target"])
    ]
    return Columns(tuple(columns[:-1]), columns[-1])


def of_table(run: Mapping[str, Any]) -> Standard | None:
    """How the target of a table was standardised, where it is a number."""
    target = (run.get("table") or {}).get("target")
    if not target or target["categories"]:
        return None
    return Standard(np.array([target["mean"]]), np.array([target["deviation"]]))


def _picture(path: str, shape: Sequence[int]) -> np.ndarray:
    """The picture in the size and the colours of the run's, `(1, height, width, channels)`."""
    require(
        len(shape) == 3 and shape[-1] in (1, 3),
        "predict",
        f"examples of shape {tuple(shape)}, as the run learned from",
        f"a picture, {path}",
        "Give a .npy file or a table.",
    )
    image = optional("predict", "PIL.Image", "pillow, which reads pictures", "data")
    try:
        with image.open(path) as opened:
            grey = opened.convert("L" if shape[-1] == 1 else "RGB")
            sized = grey.resize((shape[1], shape[0]), image.Resampling.BILINEAR)
    except (OSError, SyntaxError, ValueError) as error:
        remedy = "Save it again as .png."
        require(False, "predict", f"a picture at {path}", error, remedy)
        raise
    return np.asarray(sized, np.float32).reshape(1, *shape) / 255


def _arrays(path: str) -> np.ndarray:
    """The array of a .npy file, or `x` of an .npz file."""
    try:
        with Path(path).open("rb") as raw:
            found: Any = np.load(raw, allow_pickle=False)
            names = getattr(found, "files", None)
            x = found if names is None else found["x" if "x" in names else names[0]]
    except (*UNREADABLE, IndexError) as error:
        require(
            False,
            "predict",
            f"plain arrays at {path}",
            f"{type(error).__name__}: {error}",
            "Write it with np.save(path, x).",
        )
        raise
    expected, remedy = f"real numbers in {path}", "Write x.astype(np.float32)."
    require(x.dtype.kind in "biuf", "predict", expected, f"dtype {x.dtype}", remedy)
    return x


def _table(path: str, columns: Sequence[str]) -> np.ndarray:
    """The numbers of a CSV file, in the order of `columns` where its first line has those names."""
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            lines = [(number, row) for number, row in enumerate(csv.reader(file), 1) if row]
    except (OSError, ValueError, csv.Error) as error:
        remedy = "Give a picture, a .npy or .npz file, or a table of numbers with commas."
        require(False, "predict", f"a table in UTF-8 at {path}", error, remedy)
        raise
    remedy = "Give one example a line, its numbers apart by commas."
    require(lines, "predict", f"lines of numbers in {path}", "an empty file", remedy)
    names = [cell.strip() for cell in lines[0][1]]
    chosen = range(len(names))
    if any(_number(cell) is None for cell in names):
        lines = lines[1:]
        missing = [name for name in columns if name not in names]
        if columns and len(missing) < len(columns):
            expected = f"the columns of the run in {path}"
            got = f"none of the name {', '.join(missing)}"
            require(not missing, "predict", expected, got, "Name the columns in the first line.")
            chosen = [names.index(name) for name in columns]
        require(lines, "predict", f"lines of numbers in {path}", "a line of names alone", remedy)
    return np.array([_numbers(path, number, row, chosen) for number, row in lines])


def _numbers(path: str, number: int, row: Sequence[str], chosen: Sequence[int]) -> list[float]:
    last = max(chosen)
    expected = f"{last + 1} columns in line {number} of {path}"
    require(len(row) > last, "predict", expected, len(row), "Fill the line up.")
    values = [_number(row[i]) for i in chosen]
    strange = [row[i] for i, value in zip(chosen, values, strict=True) if value is None]
    expected, got = f"numbers in line {number} of {path}", repr("".join(strange[:1]))
    require(not strange, "predict", expected, got, "Fill the gap, or leave that line out.")
    return [value for value in values if value is not None]


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None
