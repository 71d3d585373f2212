"""Tables in CSV and Parquet files: numbers standardised, words as columns of 0 and 1."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..types import optional, require, shown
from .arrays import Data, check_counts, held_out

MANY = 100
"""Categories, or whole numbers as a target, beyond this are no classes."""
TARGETS = ("target", "label", "class", "y")
ENDINGS = (".csv", ".parquet")


@dataclass(frozen=True)
class Column:
    """How one column becomes numbers.

    Attributes:
        name: What it is called in the file.
        mean: The mean of a column of numbers over the training part.
        deviation: Its standard deviation there; 1 where it never changes.
        categories: The words of a column of words, sorted; each becomes a column of 0 and 1.
    """

    name: str
    mean: float = 0.0
    deviation: float = 1.0
    categories: tuple[str, ...] = ()

    def encode(self, values: np.ndarray) -> np.ndarray:
        """The values as columns, float32 of shape (n, 1), or (n, categories).

        Raises:
            ValueError: If there is a word that is none of the categories, or where numbers were.
        """
        if not self.categories:
            expected, remedy = f"numbers in column {self.name}", "It held numbers in training."
            require(values.dtype.kind != "U", "table", expected, "words", remedy)
            return ((values.astype(float) - self.mean) / self.deviation)[:, None].astype(np.float32)
        words = values.astype(str)
        strange = sorted(set(words.tolist()) - set(self.categories))
        require(
            not strange,
            "table",
            f"the words {', '.join(self.categories)} in column {self.name}",
            ", ".join(strange[:3]),
            "Bring the words that it was trained on.",
        )
        return (words[:, None] == np.array(self.categories)).astype(np.float32)


@dataclass(frozen=True)
class Columns:
    """How a table becomes inputs, and its target numbers: what `Data.columns` keeps of a file.

    Attributes:
        inputs: The columns that are learned from.
        target: The column that is learned, with mean and deviation where it is a number.
    """

    inputs: tuple[Column, ...]
    target: Column

    def read(self, path: str | Path) -> np.ndarray:
        """The inputs in another file with the same columns, float32 of shape (n, features).

        Raises:
            ValueError: If a column is missing, has gaps, or other words than those that are known.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "new.csv"
        ...     _ = path.write_text("age,plan\\n30,b\\n")
        ...     plan = Column("plan", categories=("a", "b"))
        ...     Columns((Column("age", 20.0, 5.0), plan), Column("y")).read(path).tolist()
        [[2.0, 0.0, 1.0]]
        """
        return self._inputs(_File(path))

    def examples(self, path: str | Path) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and target in another file: labels int32 (n,), or standardised float32 (n, 1).

        Raises:
            ValueError: As `read`, and if a class is none of those that are known.
        """
        file = _File(path)
        y = self.target.encode(file.column(self.target.name))
        return self._inputs(file), y.argmax(1).astype(np.int32) if self.target.categories else y

    def _inputs(self, file: "_File") -> np.ndarray:
        return np.concatenate([c.encode(file.column(c.name)) for c in self.inputs], axis=1)


def table(
    path: str | Path,
    *,
    target: str | None = None,
    columns: Sequence[str] | None = None,
    classes: bool | None = None,
    seed: int = 0,
) -> Data:
    """A data set out of a CSV file with a head line, or a Parquet file.

    A column of numbers is standardised by mean and deviation of the training part; a column of
    words becomes one column of 0 and 1 for each word. A fifth is held out, of each class its share.

    Args:
        path: The file; `.csv` or `.parquet`.
        target: The column to learn; None takes the one that is called target, label, class or y,
            and else the last.
        columns: Those to learn from; None for all others.
        classes: Whether the target is a class; None says so of words, of yes and no, and of whole
            numbers with no more than 100 values.
        seed: Chooses the examples that are held out.

    Returns:
        The two parts: inputs float32 `(n, features)`; labels int32 `(n,)`, numbered in the order
        of their names, or numbers float32 `(n, 1)`, which are standardised too. `columns` says how
        they came about, and reads further files.

    Raises:
        ValueError: If the file cannot be read, a column is missing, has gaps, more than 100 words,
            or is neither numbers nor words.
        ImportError: If the package pyarrow is missing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "pets.csv"
    ...     _ = path.write_text("weight,food,kind\\n" + "4.0,fish,cat\\n9.0,meat,dog\\n" * 5)
    ...     data = table(path)
    >>> data.classes, data.train[0].shape, data.train[1].shape, data.test[1].tolist()
    (('cat', 'dog'), (8, 3), (8,), [1, 0])
    """
    check_counts("table", {"seed": seed})
    file = _File(path)
    target = file.target(target)
    names = [name for name in file.names if name != target] if columns is None else [*columns]
    require(names, "table", f"columns beside {target} in {path}", "none", "Bring inputs.")
    remedy = "Leave it out of columns=[...]."
    require(target not in names, "table", f"inputs that are not the target {target}", names, remedy)
    raw, y = [file.column(name) for name in names], file.column(target)
    named = _is_class(y) if classes is None else classes
    labels: Any = None
    words: tuple[str, ...] | None = None
    if named:
        found, labels = np.unique(y, return_inverse=True)
        words, labels = tuple(map(str, found)), labels.astype(np.int32).reshape(-1)
    else:
        remedy = "Leave classes=False out, or choose another target."
        require(y.dtype.kind != "U", "table", f"numbers in {target} of {path}", "words", remedy)
    train, test = held_out(y if labels is None else labels, named, seed)
    remedy = "Bring more."
    require(len(test), "table", "two examples of a class or more", f"{len(y)} in {path}", remedy)
    inputs = tuple(
        _described(name, values, train, path) for name, values in zip(names, raw, strict=True)
    )
    about = Column(target, categories=words) if words else _described(target, y, train, path)
    x = np.concatenate([c.encode(v) for c, v in zip(inputs, raw, strict=True)], axis=1)
    y = about.encode(y) if labels is None else labels
    return Data(
        (x[train], y[train]), (x[test], y[test]), words, Path(path).stem, Columns(inputs, about)
    )


def _is_class(y: np.ndarray) -> bool:
    return y.dtype.kind in "Ub" or (y.dtype.kind in "iu" and len(np.unique(y)) <= MANY)


def _described(name: str, values: np.ndarray, train: np.ndarray, path: Any) -> Column:
    """The column by its training part; the categories by all of it."""
    if values.dtype.kind == "U":
        found = np.unique(values)
        require(
            len(found) <= MANY,
            "table",
            f"no more than {MANY} words in column {name} of {path}",
            f"{len(found)}, such as '{found[0]}'",
            "Leave it out: name the others in columns=[...].",
        )
        return Column(name, categories=tuple(map(str, found)))
    part = values[train].astype(float)
    return Column(name, float(part.mean()), float(part.std()) or 1.0)


class _File:
    """A table as pyarrow reads it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        end = self.path.suffix.lower()
        remedy = "Name a file that ends so."
        require(end in ENDINGS, "table", "a .csv or a .parquet file", shown(str(path)), remedy)
        require(self.path.is_file(), "table", f"a file at {path}", "none", "Check the path.")
        self.head = 2 if end == ".csv" else 1
        names = "pyarrow", "pyarrow.csv", "pyarrow.parquet"
        package = "pyarrow, which reads tables"
        arrow, csv, parquet = (optional("table", name, package, "data") for name in names)
        try:
            if end == ".csv":
                options = csv.ConvertOptions(strings_can_be_null=True)
                self.table = csv.read_csv(self.path, convert_options=options)
            else:
                self.table = parquet.read_table(self.path)
        except (arrow.ArrowException, OSError) as error:
            told = str(error).splitlines()[0].removesuffix(".")
            remedy = "Write it with a head line and one value a column in each line."
            if end == ".parquet":
                remedy = "Write it again."
            require(False, "table", f"a whole {end} file at {path}", told, remedy)
            raise
        self.types = arrow.types
        self.names: list[str] = self.table.column_names
        require(self.table.num_rows, "table", f"rows in {path}", "none", "Bring data.")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        remedy = "Rename one."
        require(not twice, "table", f"columns of different names in {path}", twice, remedy)

    def target(self, name: str | None) -> str:
        """The column that is learned."""
        if name is None:
            usual = [name for name in self.names if name.lower() in TARGETS]
            return usual[0] if len(usual) == 1 else self.names[-1]
        self._has(name)
        return name

    def _has(self, name: str) -> None:
        here = ", ".join(self.names)
        remedy = "Check the spelling."
        require(name in self.names, "table", f"a column {name} in {self.path}", here, remedy)

    def column(self, name: str) -> np.ndarray:
        """A column as float64, integers, booleans or text."""
        self._has(name)
        values = self.table.column(name).combine_chunks()
        kind, known = values.type, self.types
        if known.is_dictionary(kind):
            values = values.dictionary_decode()
            kind = values.type
        word = known.is_string(kind) or known.is_large_string(kind)
        number = any(
            is_(kind)
            for is_ in (known.is_integer, known.is_floating, known.is_boolean, known.is_decimal)
        )
        require(
            word or number,
            "table",
            f"numbers or words in column {name} of {self.path}",
            str(kind),
            "Leave it out: name the others in columns=[...].",
        )
        missing = values.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
        self._whole(name, missing, "no value")
        array = values.to_numpy(zero_copy_only=False)
        if word:
            return array.astype(str)
        if array.dtype.kind not in "iub":
            array = array.astype(np.float64)
            self._whole(name, ~np.isfinite(array), "an infinite one")
        return array

    def _whole(self, name: str, wrong: np.ndarray, got: str) -> None:
        if wrong.any():
            line = int(np.argmax(wrong)) + self.head
            which = "line" if self.head == 2 else "row"
            remedy = f"Fill it, or leave that {which} out."
            expected = f"a value in column {name}, {which} {line} of {self.path}"
            require(False, "table", expected, got, remedy)
