"""What training draws its batches from: data of any kind, in an order of its own.

    feed = Feed((x, y), 64, seed=0)
    x_batch, y_batch = feed.batch(1000)

Which batch belongs to a step is a pure function of the seed and the number of the step, so a run
that goes on from step 1000 needs to know that number alone.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..types import is_whole, require, shown
from .arrays import check_counts
from .order import balanced, shuffled
from .sources import Arrays, Passes, Source, checked_labels, labels_of, source_of


class Feed:
    """The batches of a data set, by the number of the step.

    `fit` makes one of the data it is given; one made here, with options that `fit` does not have,
    goes to `fit` in the place of the data.

    Args:
        source: The data: arrays of one length in a tuple `(*inputs, target)`, a dict or any pytree;
            what has a length and gives one example for each number below it, as the data sets of
            PyTorch, Hugging Face and grain do; or what gives batches one by one: a list of them,
            anything that can be iterated, or a function that gives such.
        batch: Examples in a batch. Batches that come one by one are taken as they are.
        seed: Decides the order, 0 or above.
        shuffle: Whether the order is another one in each epoch, or that of the source.
        balance: True, or the class of each example, integers `(n,)`: each class is drawn as often
            as the largest one. True takes the target, or the attribute `labels` of the source.
        remainder: What becomes of the examples left over at the end of an epoch where `batch` does
            not divide their number: "use" makes a smaller batch of them, "drop" leaves them out.
        workers: How many processes read single examples. They are separate programs, so a script
            that has them needs `if __name__ == "__main__":`. Arrays in memory need none.

    Raises:
        ValueError: If data or settings make no batches.
        TypeError: If the source is nothing that gives examples or batches.

    Attributes:
        size: Examples in a batch.
        examples: How many an epoch has; None where batches come one by one.

    >>> feed = Feed((np.arange(7), np.arange(7)), 3, seed=1)
    >>> len(feed), [feed.batch(step)[0].tolist() for step in range(3)]
    (3, [[5, 0, 1], [4, 2, 6], [3]])
    """

    def __init__(
        self,
        source: Any,
        batch: int,
        seed: int = 0,
        *,
        shuffle: bool = True,
        balance: Any = None,
        remainder: str = "use",
        workers: int = 0,
    ) -> None:
        self._set(source_of("data", source, "Feed"), batch, seed, workers, "Feed")
        self.shuffle, self.remainder = shuffle, remainder
        require(
            remainder in ("use", "drop"),
            "Feed",
            "remainder to be 'use' or 'drop'",
            repr(remainder),
            "Leave it out, and each example is used.",
        )
        if balance is not None and balance is not False:
            self._balance(balance)
        require(
            self.examples is None or len(self) > 0,
            "Feed",
            f"at least one batch of {batch} examples",
            self.examples,
            f"Give batch={self.examples} or less, or bring more data.",
        )

    @classmethod
    def of(
        cls, name: str, data: Any, batch: int, seed: int = 0, *, shuffle: bool = True,
        workers: int = 0, where: str = "fit",
    ) -> "Feed":  # fmt: skip
        """The data as a feed, where it is none; messages are in the name of `where`."""
        if isinstance(data, Feed):
            return data
        feed = cls.__new__(cls)
        feed._set(source_of(name, data, where), batch, seed, workers, where)
        feed.shuffle = shuffle
        return feed

    def _set(self, source: Source, batch: int, seed: int, workers: int, where: str) -> None:
        require(
            is_whole(batch),
            where,
            "batch to be a whole number, 1 or above",
            shown(batch),
            "Write batch=16.",
        )
        check_counts(where, {"seed": seed, "workers": workers})
        self.source, self.size, self.seed, self.workers = source, batch, seed, workers
        self.labels: np.ndarray | None = None
        self.shuffle, self.remainder = True, "use"
        self.examples = None if isinstance(source, Passes) else len(source)
        self._known: tuple[int, np.ndarray] | None = None

    def _balance(self, balance: Any) -> None:
        labels = labels_of(self.source, "Feed") if balance is True else balance
        self.labels = checked_labels("Feed", labels)
        require(
            self.examples == len(self.labels) and self.shuffle,
            "Feed",
            f"a label for each of {self.examples or 'the'} examples, which are shuffled",
            f"{len(self.labels)} labels, shuffle={self.shuffle}",
            "Balance what is read by number, one label for each example.",
        )
        self.examples = int(np.bincount(self.labels).max()) * len(np.unique(self.labels))

    @property
    def steps(self) -> int | None:
        """How many batches there are in an epoch, or None where this is not known yet."""
        if isinstance(self.source, Passes):
            return self.source.count
        n = self.examples or 0
        return n // self.size if self.remainder == "drop" else -(-n // self.size)

    def __len__(self) -> int:
        steps = self.steps
        require(
            steps is not None,
            "Feed",
            "data whose batches are counted",
            "batches that come one by one",
            "Their number is known after the first pass through them.",
            TypeError,
        )
        return steps or 0

    def batch(self, step: int) -> Any:
        """The batch of a step, counted from the first one of the run: NumPy's arrays.

        The last batch of an epoch may be smaller than the others.

        Raises:
            DataError: If an example cannot be had, or does not fit to the others.
            TypeError: If the batches come one by one, so that none can be asked for.
        """
        source = self.source
        if isinstance(source, Passes):
            require(
                False,
                "Feed",
                "examples that are read by number",
                "batches that come one by one",
                "Go through them: for batch in data.",
                TypeError,
            )
            raise AssertionError
        return source.take(self.places(step))

    def places(self, step: int) -> Any:
        """Which examples stand in the batch of a step: integers, or a slice."""
        epoch, i = divmod(step, len(self))
        start = i * self.size
        if not self.shuffle:
            return slice(start, min(start + self.size, self.examples or 0))
        known = self._known
        if known is None or known[0] != epoch:
            known = self._known = epoch, self._order(epoch)
        return known[1][start : start + self.size]

    def _order(self, epoch: int) -> np.ndarray:
        if self.labels is not None:
            return balanced(self.labels, self.seed, epoch)
        return shuffled(self.examples or 0, self.seed, epoch)

    def first(self) -> Any:
        """Some examples for the shapes of a batch: the first ones, in the order of the source.

        Raises:
            DataError: If there are none, or they cannot be had.
        """
        if isinstance(self.source, Passes):
            return self.source.first()
        return self.source.take(slice(0, min(self.size, len(self.source))))

    def seen(self) -> Any:
        """All examples, where they are in memory; else the first ones."""
        return self.source.tree if isinstance(self.source, Arrays) else self.first()

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_known": None}


def in_order(name: str, data: Any, size: int, workers: int = 0, where: str = "fit") -> Feed:
    """A feed that goes through the data in its order, in batches of about `size`.

    They have one length where that can be had, so that what is compiled for it is compiled once.
    """
    feed = Feed.of(name, data, size, shuffle=False, workers=workers, where=where)
    if feed is not data and (n := feed.examples):
        least = -(-n // size)
        even = next((count for count in range(least, 2 * least + 1) if n % count == 0), None)
        feed.size = n // even if even else size
    return feed


def passes(feed: Feed, skip: int) -> Iterator[Any]:
    """The next pass of batches that come one by one, from the number `skip` on."""
    assert isinstance(feed.source, Passes)
    return feed.source.one_pass(skip)
