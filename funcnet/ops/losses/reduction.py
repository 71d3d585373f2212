"""What every loss shares: its mask and its mean."""

import math

import jax.numpy as jnp

from ...figures import EACH
from ...types import Array
from ..fast.rows import sum_over


def count_of(counts: Array | None, shape: tuple[int, ...]) -> Array | float:
    """How many places count; all of `shape` if `counts` is None."""
    return float(math.prod(shape)) if counts is None else counts.sum(dtype=jnp.int32)


def mean_over(*, where: Array | None, reduction: str) -> Array | str | None:
    """What the mean of a loss with these arguments is over, for `rule`."""
    if reduction != "mean":
        return None
    return EACH if where is None else where.sum()


def reduce(losses: Array, count: Array | float, reduction: str) -> Array:
    """The losses, their sum, or their sum over `count`, which is 0 where the count is.

    >>> [reduce(jnp.array([1.0, 5.0]), jnp.array(n), "mean").item() for n in (2, 0)]
    [3.0, 0.0]
    """
    if reduction == "none":
        return losses
    return ratio(sum_over(losses), count) if reduction == "mean" else sum_over(losses)


def each(dy: Array, count: Array | float, reduction: str) -> Array:
    """The cotangent of each loss from the cotangent of what `reduce` made of them."""
    return ratio(dy, count) if reduction == "mean" else dy


def ratio(amount: Array, count: Array | float) -> Array:
    """amount / count, and 0 where the count is 0."""
    if isinstance(count, int | float):
        return amount / count if count else jnp.zeros_like(amount)
    count = count.astype(amount.dtype)
    return jnp.where(count == 0, 0, amount / jnp.where(count == 0, 1, count))
