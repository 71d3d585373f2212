"""Where examples come from: arrays in memory, single examples by number, or batches one by one."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ..types import require, shown
from .arrays import Data, check_lengths
from .numbers import DataError, collate, named_leaves, named_parts, numbers, plain

MANY = 2**31
"""More examples than this cannot be put into an order."""


class Arrays:
    """Arrays of one length in a tuple, a dict or any pytree of these."""

    def __init__(self, tree: Any) -> None:
        self.tree = tree

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.tree)[0])

    def take(self, places: Any) -> Any:
        """The examples at these places."""
        return jax.tree.map(lambda part: part[places], self.tree)


class Examples:
    """What has a length, and gives one example for each number below it."""

    def __init__(self, source: Any, name: str, where: str) -> None:
        self.source, self.name, self.where = source, name, where

    def __len__(self) -> int:
        return len(self.source)

    def take(self, places: Any) -> Any:
        """The examples at these places, as a batch.

        Raises:
            DataError: If one of them cannot be had, or does not fit to the others.
        """
        rows = [*map(int, np.arange(len(self))[places] if isinstance(places, slice) else places)]
        many = getattr(self.source, "__getitems__", None)
        if many is not None:
            try:
                return collate(self.where, self.name, many(rows), rows)
            except DataError:
                raise
            except Exception:
                many = None  # which one it is, the loop below finds
        return collate(self.where, self.name, [self._one(row) for row in rows], rows)

    def _one(self, row: int) -> Any:
        try:
            return self.source[row]
        except Exception as error:
            require(
                isinstance(error, DataError),
                self.where,
                f"example {row} of {self.name}, which has {len(self)}",
                f"{type(error).__name__}: {error}",
                "Mend that example, or leave it out.",
                DataError,
            )
            raise


class Passes:
    """Batches that come one by one: what can be gone through, again and again or once.

    Attributes:
        count: How many there are in a pass, once one is over; None before.
        once: Whether there is one pass and no other.
    """

    def __init__(self, source: Any, name: str, where: str) -> None:
        self.source, self.name, self.where = source, name, where
        self.once = isinstance(source, Iterator)
        self.count: int | None = len(source) if hasattr(source, "__len__") else None
        self._begun: tuple[Any, Iterator[Any]] | None = None

    def first(self) -> Any:
        """The first batch of all; the pass that follows begins with it nevertheless.

        Raises:
            DataError: If there is none.
        """
        if self._begun is not None:
            return self._begun[0]
        batches = self._opened()
        batch = next(batches, None)
        require(
            batch is not None,
            self.where,
            f"at least one batch in {self.name}",
            "none",
            "Bring data to learn from.",
            DataError,
        )
        self._begun = batch, batches
        return batch

    def one_pass(self, skip: int = 0) -> Iterator[Any]:
        """The batches of the next pass from the number `skip` on.

        Raises:
            DataError: If the pass is empty or shorter than its length says, a batch cannot be had,
                or it is none.
        """
        begun, self._begun = self._begun, None
        batches = self._opened() if begun is None else _joined(*begun)
        i = -1
        for i, batch in enumerate(batches):
            if i >= skip:
                yield batch
        promised = len(self.source) if hasattr(self.source, "__len__") else None
        require(
            i >= 0 and (promised is None or i + 1 >= promised),
            self.where,
            f"{promised or 'some'} batches in each pass through {self.name}",
            f"{i + 1 or 'none'}",
            "Data that is to be gone through again comes from a function or a list, "
            "not from a generator that is over.",
            DataError,
        )
        self.count = i + 1

    def _opened(self) -> Iterator[Any]:
        i = 0
        try:
            source: Any = self.source() if callable(self.source) else self.source
            for batch in source:
                yield self._checked(plain(batch), i)
                i += 1
        except DataError:
            raise
        except Exception as error:
            require(
                False,
                self.where,
                f"batch {i} of {self.name}",
                f"{type(error).__name__}: {error}",
                "Mend what gives the batches.",
                DataError,
            )

    def _checked(self, batch: Any, i: int) -> Any:
        names, leaves, structure = named_leaves(f"batch {i} of {self.name}", batch)
        try:
            parts = [
                given if isinstance(given, jax.Array) else numbers(self.where, which, given)
                for which, given in zip(names, leaves, strict=True)
            ]
            check_lengths(f"{self.where}, batch {i}", parts)
        except (ValueError, TypeError) as error:
            raise DataError(str(error)) from None
        return jax.tree.unflatten(structure, parts)


def _joined(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


Source = Arrays | Examples | Passes


def source_of(name: str, data: Any, where: str = "fit") -> Source:
    """Data of any kind as one of three.

    Args:
        name: What the data is called.
        data: Arrays of one length in a tuple, a dict or a pytree; what has a length and gives
            single examples by their number; or batches: a list of them, what can be iterated, or a
            function that gives such.
        where: The function the reader called.

    Raises:
        ValueError: If arrays cannot be learned from.
        TypeError: If it is nothing of these.
    """
    require(
        not isinstance(data, Data),
        where,
        f"{name} as a tuple of arrays",
        "a whole Data",
        "Call fit(net, criterion, optimizer, data.train, validation=data.test, ...).",
        TypeError,
    )
    if isinstance(data, list) and data and all(isinstance(x, tuple | Mapping) for x in data):
        return Passes(data, name, where) if _batch(data[0]) else _examples(data, name, where)
    if isinstance(data, tuple | Mapping | list) or hasattr(data, "__array__"):
        return Arrays(arrays_of(name, data, where))
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return _examples(data, name, where)
    require(
        hasattr(data, "__iter__") or (callable(data) and not isinstance(data, type)),
        where,
        f"{name} as a tuple of arrays, the inputs and then the target, a source of examples, or "
        "batches one by one",
        shown(data),
        "Give (x, y).",
        TypeError,
    )
    return Passes(data, name, where)


def arrays_of(name: str, data: Any, where: str = "fit") -> Any:
    """Arrays on the host, in the dtypes that JAX computes in, looked through for NaN.

    Raises:
        ValueError: If they are empty, not finite, masked, of several lengths, or beyond int32.
        TypeError: If they are no numbers.

    >>> arrays_of("data", {"x": [[1, 2], [3, 4]], "y": [0, 1]})["x"].dtype
    dtype('int32')
    """
    names, leaves, structure = named_leaves(name, data)
    expected = f"an array or more in {name}"
    require(names, where, expected, f"an empty {type(data).__name__}", "Give (x, y).")
    parts = [numbers(where, *named) for named in zip(names, leaves, strict=True)]
    check_lengths(where, parts)
    for which, part in zip(names, parts, strict=True):
        expected = f"no axis of length 0 in {which}"
        require(part.size, where, expected, f"shape {part.shape}", "Give each example a number.")
    return jax.tree.unflatten(structure, parts)


def _examples(data: Any, name: str, where: str) -> Examples:
    n = len(data)
    require(n, where, "at least one example", "none", "Bring data to learn from.")
    remedy = "Give the data once: fit goes through it again in each epoch."
    require(n < MANY, where, f"fewer than {MANY} examples in {name}", n, remedy)
    return Examples(data, name, where)


def _batch(item: Any) -> bool:
    """Whether an item of a list is a batch: arrays of one length, and no single example."""
    shapes = [np.shape(part) for _, part in named_parts(plain(item))[0]]
    return all(shapes) and len({shape[0] for shape in shapes}) == 1


def labels_of(source: Any, where: str) -> np.ndarray:
    """The class of each example: a target of integers, or the attribute `labels` of a source.

    Raises:
        ValueError: If there is nothing of the kind.
    """
    if isinstance(source, Arrays):
        tree = source.tree
        labels = tree[-1] if isinstance(tree, tuple) else None
    else:
        labels = getattr(getattr(source, "source", None), "labels", None)
    return checked_labels(where, labels)


def checked_labels(where: str, labels: Any) -> np.ndarray:
    """Labels of shape (n,), 0 or above.

    Raises:
        ValueError: If they are none.
    """
    array = None if labels is None or isinstance(labels, Mapping | tuple) else np.asarray(labels)
    if array is not None and array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    require(
        array is not None and array.ndim == 1 and array.dtype.kind in "iu" and array.size,
        where,
        "a class for each example, integers of shape (n,)",
        "none" if array is None else shown(array),
        "Give arrays (x, labels), or weigh the classes in the criterion itself."
        if where == "fit"
        else "Give the labels themselves.",
    )
    assert array is not None
    least = int(array.min())
    require(least >= 0, where, "labels of 0 or above", least, "Number the classes from 0.")
    return array
