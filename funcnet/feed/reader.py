"""The batches of a run, made while the step before them runs: by a thread, or by processes."""

import contextlib
import importlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from ..types import optional, require
from .feed import Feed, passes
from .numbers import DataError
from .sources import Arrays, Passes

AHEAD = 2
"""Batches that stand ready for the step."""

Place = Callable[[Any], Any]


class Reader:
    """The batches of the epochs of a run, in order.

    Arrays in memory are indexed when the batch is asked for, which takes microseconds; on an
    accelerator they lie in its memory, where they fit, and are indexed there. All else is read
    ahead, and put on the device, by a thread; single examples by processes, where a feed has
    workers.

    Args:
        feed: What the batches are drawn from.
        epochs: How many epochs there are.
        place: Puts a batch on the devices; None for JAX's own way.
    """

    def __init__(self, feed: Feed, epochs: int, place: Place | None = None) -> None:
        self.feed, self.epochs, self.place = feed, epochs, place
        self._next = -1
        self._batches: Iterator[Any] = iter(())
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: Any) -> None:
        self._open.close()

    def epoch(self, number: int, first: int = 0) -> Iterator[Any]:
        """The batches of an epoch, from 0, or those from the `first` on.

        Raises:
            DataError: If one cannot be had.
        """
        if isinstance(self.feed.source, Passes):
            with _ahead(passes(self.feed, first), self.place or jax.device_put) as batches:
                yield from batches
            return
        steps = len(self.feed)
        for step in range(number * steps + first, (number + 1) * steps):
            if step != self._next:
                self._start(step)
            self._next = step + 1
            yield next(self._batches)

    def _start(self, step: int) -> None:
        """Begin to read at a step."""
        self._open.close()
        feed, wanted = self.feed, range(step, self.epochs * len(self.feed))
        if isinstance(feed.source, Arrays):
            if self.place is None and fits(feed.source.tree):
                self._batches = map(resident(feed), wanted)
            else:
                made = map(feed.batch, wanted)
                self._batches = made if self.place is None else map(self.place, made)
            return
        made = map(feed.batch, wanted)
        if feed.workers:
            made = self._open.enter_context(_workers(feed, wanted))
        reading = _ahead(made, self.place or jax.device_put)
        self._batches = self._open.enter_context(reading)


def fits(tree: Any) -> bool:
    """Whether arrays are to lie in the memory of an accelerator: at most a quarter of what is free.

    The processor has the host's memory, and indexes no faster by a compiled program.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return False
    stats = device.memory_stats() or {}
    free = stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)
    return 4 * sum(leaf.nbytes for leaf in jax.tree.leaves(tree)) <= free


def resident(feed: Feed) -> Callable[[int], Any]:
    """`feed.batch`, from arrays that lie on the device: of a batch only the places travel."""
    assert isinstance(feed.source, Arrays)
    tree = jax.device_put(feed.source.tree)
    take = jax.jit(lambda tree, places: jax.tree.map(lambda part: part[places], tree))

    def batch(step: int) -> Any:
        places = feed.places(step)
        if isinstance(places, slice):
            return jax.tree.map(lambda part: part[places], tree)
        return take(tree, places)

    return batch


class _End:
    """What a thread says last, with the error that ended it."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


@contextlib.contextmanager
def _ahead(batches: Iterator[Any], place: Place) -> Iterator[Iterator[Any]]:
    """The batches, made by a thread `AHEAD` of whoever takes them."""
    ready: queue.Queue[Any] = queue.Queue(AHEAD)
    over = threading.Event()

    def put(item: Any) -> None:
        while not over.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def fill() -> None:
        try:
            for batch in batches:
                put(place(batch))
                if over.is_set():
                    return
            put(_End())
        except BaseException as error:
            put(_End(error))

    def taken() -> Iterator[Any]:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error

    thread = threading.Thread(target=fill, name="funcnet feed", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        over.set()
        thread.join(timeout=5)


class _Steps:
    """The batches of a feed as a source of grain's: worker i of n reads the i-th of each n."""

    def __init__(self, feed: Feed, steps: range) -> None:
        self.feed, self.steps = feed, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, i: int) -> Any:
        return self.feed.batch(self.steps[i])


@contextlib.contextmanager
def _workers(feed: Feed, steps: range) -> Iterator[Iterator[Any]]:
    """The batches of the steps, made by processes."""
    package = f"grain, which runs {feed.workers} workers"
    grain = optional("fit", "grain", package, "data", ", or write workers=0")
    flags = importlib.import_module("absl.flags").FLAGS
    if not flags.is_parsed():
        flags.mark_as_parsed()  # grain reads its options there, which a program may not have
    one = grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD)
    many = grain.MultiprocessingOptions(feed.workers, per_worker_buffer_size=AHEAD)
    source = grain.MapDataset.source(_Steps(feed, steps))
    batches = iter(source.to_iter_dataset(one).mp_prefetch(many))

    def taken() -> Iterator[Any]:
        try:
            for batch in batches:
                # Out of the memory that is shared, which is given back with the batch.
                yield jax.tree.map(np.array, batch)
        except DataError:
            raise
        except RuntimeError as error:
            require(
                "exit code" not in str(error),
                "fit",
                f"{feed.workers} workers that read the data",
                f"one that is gone, {str(error).partition(' with ')[2].partition('.')[0]}",
                "Look at the memory it needs and at what it wrote above; a script that has workers "
                'needs `if __name__ == "__main__":`.',
                DataError,
            )
            raise

    try:
        yield taken()
    finally:
        batches.close()  # pyright: ignore[reportAttributeAccessIssue]
