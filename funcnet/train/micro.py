"""A batch in micro-batches, and arrays of micro-batches as one of the whole batch again."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..types import Array, require, shown


def size_of(batch: Any) -> int:
    """How many examples a batch has: the length of the first axis of each of its arrays.

    Raises:
        ValueError: If the arrays differ in it, or one has no axis.
    """
    named = jax.tree_util.tree_leaves_with_path(batch)
    sizes = {jax.tree_util.keystr(path): jnp.shape(leaf)[:1] for path, leaf in named}
    first = next(iter(sizes.values()), ())
    odd = next((f"{name} of {n}" for name, n in sizes.items() if n != first or not n), None)
    require(
        odd is None and first,
        "make_step",
        "a batch whose arrays have the examples along the first axis, with accumulate",
        odd or "no array",
        "Give each example an entry in every array.",
    )
    return dict(enumerate(first))[0]


def parted(batch: Any, size: int) -> list[Any]:
    """The batch in micro-batches of `size` examples, stacked; and, if one is shorter, that alone.

    Where all are of one length, the i-th of k has the examples i, i + k, i + 2 k: of a batch that
    lies on many devices, each then parts what it has.

    >>> [part.tolist() for part in parted(jnp.arange(6), 3)]
    [[[0, 2, 4], [1, 3, 5]]]
    >>> [part.tolist() for part in parted(jnp.arange(5), 2)]
    [[[0, 1], [2, 3]], [[4]]]
    """
    n = size_of(batch)
    count = n // size
    if n % size == 0:
        apart = jax.tree.map(lambda x: x.reshape(size, count, *x.shape[1:]).swapaxes(0, 1), batch)
        return [apart]
    whole = jax.tree.map(lambda x: x[: count * size].reshape(count, size, *x.shape[1:]), batch)
    return [whole, jax.tree.map(lambda x: x[None, count * size :], batch)]


def joined(parts: Sequence[Array]) -> Array:
    """What `parted` took apart: arrays `(k, size, ...)` as one `(k size, ...)`.

    >>> joined(parted(jnp.arange(6), 3)).tolist(), joined(parted(jnp.arange(5), 2)).tolist()
    ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4])
    """
    if len(parts) == 1:
        (part,) = parts
        return part.swapaxes(0, 1).reshape(-1, *part.shape[2:])
    return jnp.concatenate([part.reshape(-1, *part.shape[2:]) for part in parts])


def check_count(name: str, n: Any) -> int:
    """`n`, if it is a number of things.

    Raises:
        ValueError: If it is no whole number of 1 or more.
    """
    require(
        isinstance(n, int) and not isinstance(n, bool) and n >= 1,
        "make_step",
        f"{name} to be a whole number, 1 or above",
        shown(n),
        f"Write {name}=4, or leave it out.",
    )
    return n
