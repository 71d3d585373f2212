"""What every loss shares: its mask, its mean, and the checks of both."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...jaxpr.jaxprs import is_traced
from ...types import Array, require
from ..fast.rows import sum_over


def check_reduction(op: str, where: Array | None, shape: tuple[int, ...], reduction: str) -> None:
    """Raise unless `reduction` is one of three words and `where` is a mask of this shape."""
    require(
        reduction in ("mean", "sum", "none"),
        op,
        "reduction to be 'mean', 'sum' or 'none'",
        repr(reduction),
        "Choose one of the three.",
    )
    require(
        where is None or jnp.result_type(where) == jnp.bool_,
        op,
        "where of dtype bool",
        f"{where is not None and jnp.result_type(where)}",
        "Write the mask as a comparison, such as positions < length.",
        TypeError,
    )
    require(
        where is None or jnp.shape(where) == shape,
        op,
        f"where of shape {shape}, one entry for each loss",
        f"shape {where is not None and jnp.shape(where)}",
        "Broadcast it first: jnp.broadcast_to(where, shape).",
    )


def check_range(op: str, name: str, values: Any, counts: Any, low: float, high: float) -> None:
    """Raise unless the values that count lie in [low, high]; traced values cannot be looked at."""
    if is_traced(values) or is_traced(counts):
        return
    known = np.asarray(values) if counts is None else np.asarray(values)[np.asarray(counts)]
    if known.size:
        least, greatest = known.min(), known.max()
        require(
            least >= low and greatest <= high,
            op,
            f"{name} from {low} to {high}",
            f"{name} from {least} to {greatest}",
            "Leave out what must not count with where.",
        )


def masked(x: Array, counts: Array | None) -> Array:
    """`x` with 0 at the places that do not count."""
    return x if counts is None else jnp.where(counts, x, 0)


def count_of(counts: Array | None, shape: tuple[int, ...], dtype: Any) -> Array:
    """How many places count; all of `shape` if `counts` is None."""
    if counts is None:
        return jnp.asarray(math.prod(shape), dtype)
    return counts.sum(dtype=jnp.int32).astype(dtype)


def mean_over(*, where: Array | None, reduction: str) -> Array | None:
    """What the mean of a loss with these arguments is over, for `rule`; None for all examples."""
    return None if where is None or reduction != "mean" else where.sum()


def reduce(losses: Array, count: Array, reduction: str) -> Array:
    """The losses, their sum, or their sum over `count`, which is 0 where the count is.

    >>> [reduce(jnp.array([1.0, 5.0]), jnp.array(n), "mean").item() for n in (2, 0)]
    [3.0, 0.0]
    """
    if reduction == "none":
        return losses
    return ratio(sum_over(losses), count) if reduction == "mean" else sum_over(losses)


def each(dy: Array, count: Array, reduction: str) -> Array:
    """The cotangent of each loss from the cotangent of what `reduce` made of them."""
    return ratio(dy, count) if reduction == "mean" else dy


def ratio(amount: Array, count: Array) -> Array:
    """amount / count, and 0 where the count is 0."""
    return jnp.where(count == 0, 0, amount / jnp.where(count == 0, 1, count))
