"""Which examples stand in which batch: a function of the seed and the step, and of nothing else."""

from collections.abc import Iterator, Sequence

import numpy as np

from ..types import require
from .arrays import check_counts, check_lengths


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
    check_counts("batches", {"seed": seed, "epoch": epoch})
    require(
        isinstance(size, int | np.integer) and 1 <= size <= n,
        "batches",
        f"a batch of 1 to {n} examples, as many as the data has",
        size,
        "Choose a smaller batch, or bring more data."
        if isinstance(size, int | np.integer) and size > n
        else "Choose a size above 0.",
    )
    order = np.random.default_rng((seed, epoch)).permutation(n)
    starts = range(0, n - size + 1, size)
    return (tuple(part[order[i : i + size]] for part in data) for i in starts)
