"""Data sets out of files: a folder of IDX files, the form of MNIST, or an .npz file."""

import gzip
import math
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np

from ..types import Hint
from .arrays import Data, alike, check_lengths, finite_in, need, numbered, split, target, typed

FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
MANY = 100
"""More whole numbers than this are not taken for classes."""
LARGE = 30
"""Inputs beyond this are said to be large."""
UNREADABLE = (OSError, EOFError, KeyError, ValueError, TypeError, zlib.error, zipfile.BadZipFile)
"""What NumPy raises of an .npz file that is cut short, damaged or another kind of file."""


def idx_folder(folder: Path) -> Data:
    """The data in a folder of four IDX files: train and t10k, images and labels."""
    parts = []
    for stem in ("train", "t10k"):
        x = _idx(_find(folder, f"{stem}-images", 3), 3)
        y = _idx(_find(folder, f"{stem}-labels", 1), 1)
        check_lengths("load_data", (x, y))
        parts.append((typed(x), y.astype(np.int32)))
    n = 1 + max(int(y.max()) for _, y in parts)
    fashion = folder.resolve().name == FASHION.name and n == len(FASHION_CLASSES)
    classes = FASHION_CLASSES if fashion else numbered(n)
    data = Data(parts[0], parts[1], classes, folder.resolve().name)
    return alike(data, f"t10k-images of {folder}", f"t10k-labels of {folder}")


def _find(folder: Path, stem: str, rank: int) -> Path:
    names = [f"{stem}{dot}idx{rank}-ubyte{end}" for dot in "-." for end in ("", ".gz")]
    found = [folder / name for name in names if (folder / name).is_file()]
    here = sorted(path.name for path in folder.iterdir())[:8]
    need(
        found,
        f"the file {names[0]} or {names[1]} in {folder}",
        ", ".join(here) or "an empty folder",
        "A folder holds four IDX files, train and t10k, images and labels; "
        "or images, in a folder for each class.",
    )
    return found[0]


def _idx(path: Path, rank: int) -> np.ndarray:
    """The array in an IDX file: two zero bytes, the type, the rank, the sizes, then the bytes."""
    remedy = f"Fetch {path.name} again."
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        need(False, f"a whole gzip file at {path}", f"one that ends in {error!r}", remedy)
        raise
    magic = bytes((0, 0, 8, rank))
    need(
        raw[:4] == magic,
        f"the magic number {magic.hex()} (IDX, bytes of rank {rank}) in {path}",
        raw[:4].hex() or "an empty file",
        remedy,
    )
    head = 4 + 4 * rank
    need(len(raw) >= head, f"{4 * rank} bytes of sizes in the head of {path}", len(raw) - 4, remedy)
    shape = struct.unpack(f">{rank}I", raw[4:head])
    need(
        len(raw) - head == math.prod(shape),
        f"{math.prod(shape)} bytes of shape {shape} after the head of {path}",
        len(raw) - head,
        remedy,
    )
    return np.frombuffer(raw, np.uint8, offset=head).reshape(shape)


def npz(path: Path, seed: int) -> Data:
    """The data in an .npz file with `x` and `y`, and `x_test` and `y_test` if it has them."""
    try:
        # Opened here, since np.load leaves a file that is no archive open.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except UNREADABLE as error:
        need(
            False,
            f"an .npz file of plain arrays at {path}",
            f"{type(error).__name__}: {error}",
            "Write it with np.savez(path, x=x, y=y).",
        )
        raise
    wanted = ("x", "y", "x_test", "y_test") if {"x_test", "y_test"} & set(arrays) else ("x", "y")
    need(
        set(wanted) <= set(arrays),
        f"the arrays {', '.join(wanted)} in {path}",
        ", ".join(sorted(arrays)) or "none",
        "Write it with np.savez(path, x=x, y=y).",
    )
    found = [arrays[name] for name in wanted]
    for name, part in zip(wanted, found, strict=True):
        _numeric(f"{name} of {path}", part)
    for x, y in zip(found[::2], found[1::2], strict=True):
        check_lengths("load_data", (x, y))
    for name, part in zip(wanted, found, strict=True):
        expected = f"no axis of length 0 in {name} of {path}"
        need(part.size, expected, f"shape {part.shape}", "Give each example a number or more.")
    classes = _classes(path, found[1::2])
    found[::2] = _as_pixels(f"x of {path}", found[::2])
    if len(found) == 2:
        return split(path.stem, found[0], found[1], classes, seed)
    x, y, x_test, y_test = found
    train, test = (typed(x), target(y, classes)), (typed(x_test), target(y_test, classes))
    return alike(Data(train, test, classes, path.stem), f"x_test of {path}", f"y_test of {path}")


def _numeric(name: str, part: np.ndarray) -> None:
    number, split = "Number the classes from 0.", "Give real and imaginary parts side by side."
    if name.startswith("x") and part.dtype.kind not in "US":
        number = "Convert them: x.astype(np.float32)."
    need(
        part.dtype.kind in "biuf",
        f"real numbers in {name}",
        f"dtype {part.dtype}",
        split if part.dtype.kind == "c" else number,
        TypeError,
    )
    finite_in(np.float32, "load_data", name, part)


def _as_pixels(name: str, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """Images of integers from 0 to 255 as bytes, of 0 and 1 as floats; a hint of what is large."""
    least, most = min(x.min() for x in inputs), max(x.max() for x in inputs)
    whole = all(x.dtype.kind in "iu" for x in inputs)
    if whole and inputs[0].ndim >= 3 and least >= 0 and 1 < most <= 255:
        return [x.astype(np.uint8) for x in inputs]
    if whole and least >= 0 and most <= 1:
        floats = [x.astype(np.float32) for x in inputs]
        return [x[..., None] if x.ndim == 3 else x for x in floats]
    bytes_only = all(x.dtype == np.uint8 for x in inputs)
    if not bytes_only and max(-float(least), float(most)) > LARGE:
        warnings.warn(
            f"{name} reaches from {least:g} to {most:g}, and networks learn best from numbers near "
            "1: divide pixels by 255, standardise a table, (x - x.mean(0)) / x.std(0).",
            Hint,
            stacklevel=4,
        )
    return inputs


def _classes(path: Path, targets: list[np.ndarray]) -> tuple[str, ...] | None:
    if any(np.issubdtype(y.dtype, np.floating) for y in targets):
        _hint_of_classes(path, targets)
        return None
    remedy = "Number the classes from 0, or write y as float where it is no class."
    column = all(y.shape[1:] == (1,) and y.min() >= 0 for y in targets)
    need(
        all(y.ndim == 1 and y.min() >= 0 for y in targets),
        f"integer labels of shape (n,), 0 or above, in {path}",
        " and ".join(f"shape {y.shape}, least {y.min()}" for y in targets),
        "Take the column: y[:, 0]." if column else remedy,
    )
    most, n = max(int(y.max()) for y in targets), sum(map(len, targets))
    below = f"labels below the number of examples, {n}, in {path}"
    need(most < n, below, f"a label of {most}", remedy)
    used = np.unique(np.concatenate(targets))
    if 1 < len(used) <= most:
        warnings.warn(
            f"y of {path} has {len(used)} labels in use but numbers them up to {most}, so that the "
            f"network gets {most + 1} outputs: number the classes from 0 to {len(used) - 1}, "
            "np.unique(y, return_inverse=True)[1].",
            Hint,
            stacklevel=4,
        )
    return numbered(1 + most)


def _hint_of_classes(path: Path, targets: list[np.ndarray]) -> None:
    """Say that whole numbers, few and often, look like classes where they are floats."""
    y = np.concatenate([np.ravel(y) for y in targets])
    used = np.unique(y)
    single = all(y.ndim == 1 or y.shape[1:] == (1,) for y in targets)
    if single and (used == np.rint(used)).all() and 2 <= len(used) <= min(MANY, len(y) // 5):
        warnings.warn(
            f"y of {path} is floating, so the network learns numbers, though it holds only "
            f"{len(used)} whole ones: if they are classes, write y.astype(int).",
            Hint,
            stacklevel=4,
        )
