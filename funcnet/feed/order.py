"""Which examples stand in which batch: a function of the seed and the step, and of nothing else."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..types import require
from .arrays import check_counts, check_lengths
from .sources import checked_labels


def batches(
    data: Sequence[np.ndarray], size: int, *, seed: int = 0, epoch: int = 0
) -> Iterator[tuple[np.ndarray, ...]]:
    """The batches of one epoch, in an order that depends on `(seed, epoch)` and on nothing else.

    Each example comes once; the last batch holds those that are left over where `size` does not
    divide their number.

    Args:
        data: Arrays of one length: inputs, then targets.
        size: Examples in a batch.
        seed: 0 or above.
        epoch: 0 or above.

    Raises:
        ValueError: If there are fewer examples than one batch takes, or the lengths differ.

    >>> x = np.arange(7)
    >>> [part.tolist() for part, in batches((x,), 3, seed=1)]
    [[5, 0, 1], [4, 2, 6], [3]]
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
    order = shuffled(n, seed, epoch)
    return (tuple(part[order[i : i + size]] for part in data) for i in range(0, n, size))


def shuffled(n: int, seed: int, epoch: int) -> np.ndarray:
    """The numbers below `n`, in the order of an epoch."""
    return np.random.default_rng((seed, epoch)).permutation(n)


def balanced(labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Places of examples, each class as often as the largest one, in the order of an epoch.

    Those of a smaller class come again and again, each as often as the others to within one.

    >>> np.bincount(np.array([0, 0, 0, 1])[balanced(np.array([0, 0, 0, 1]), 0, 0)]).tolist()
    [3, 3]
    """
    random = np.random.default_rng((seed, epoch))
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    most = max(map(len, members))
    drawn = []
    for places in members:
        whole, rest = divmod(most, len(places))
        drawn += [np.tile(places, whole), random.permutation(places)[:rest]]
    return random.permutation(np.concatenate(drawn))


def class_weights(labels: Any) -> np.ndarray:
    """Weights that let each class count alike: n / (classes · count), as in scikit-learn.

    They go to `fit(class_weight=...)`, which computes these with "balanced", or to a loss that
    takes weights of classes, such as `cross_entropy`.

    Args:
        labels: The class of each example, integers `(n,)`.

    Returns:
        float32, `(classes,)`; a class that does not occur weighs 0.

    Raises:
        ValueError: If there are no labels, or they are no integers of 0 or above.

    Reference: King and Zeng, Logistic Regression in Rare Events Data, 2001.

    >>> class_weights([0, 0, 0, 1]).tolist()
    [0.6666666865348816, 2.0]
    """
    counts = np.bincount(checked_labels("class_weights", labels))
    present = np.maximum(counts, 1) * np.count_nonzero(counts)
    return np.where(counts, counts.sum() / present, 0).astype(np.float32)
