"""Sums over many numbers, in the form that is fast and exact on the CPU.

There XLA takes a sum whose terms are made on the way number by number, and one over several short
axes as well: each number is rounded to the digits of the sum of all before it. Here the terms are
first added up as a few long vectors, pair by pair, which it does many numbers at a time; then the
rest is summed in short windows, one upon the other.
"""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from ...types import Array
from ..shared.varying import devices

FEW, FOLDS, WINDOW = 32, 8, 16
"""More than a few terms are added up as so many vectors, and these in windows of so many."""

LONG = 2048
"""A row up to this long is summed by a product with a vector; a longer one would lose digits so."""


def folded(x: Array, reduce: Callable = jnp.sum, combine: Callable = jnp.add) -> Array:
    """The sum along the leading axis; or another `reduce`, of which `combine` is one step.

    >>> folded(jnp.ones((5, 2))).tolist()
    [5.0, 5.0]
    """
    plain = functools.partial(reduce, axis=0)
    if len(x) <= FEW or not x.size or is_placed(x):
        return plain(x)

    def fold(x: Array) -> Array:
        length, more = divmod(len(x), FOLDS)
        *parts, left = jax.lax.split(x, [length] * FOLDS + [more])
        while len(parts) > 1:
            parts = [combine(a, b) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        rest = jax.lax.optimization_barrier(parts[0])
        whole = _windowed(rest) if reduce is jnp.sum else plain(rest)
        return combine(whole, plain(left)) if more else whole

    return jax.lax.platform_dependent(x, cpu=fold, default=plain)


def sum_over(x: Array, axis: int | Sequence[int] | None = None, *, keepdims: bool = False) -> Array:
    """The sum along one axis, several, or all of them, which may be many short ones.

    >>> sum_over(jnp.ones((2, 3, 4)), (0, 2)).tolist()
    [8.0, 8.0, 8.0]
    """
    every = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    axes = sorted(a % x.ndim for a in every)
    if math.prod(x.shape[a] for a in axes) <= FEW or not x.size or is_placed(x):
        return x.sum(tuple(axes), keepdims=keepdims)
    y = x
    for first, last in _runs(axes):
        before, after = y.shape[:first], y.shape[last:]
        rows = y.reshape(math.prod(before), math.prod(y.shape[first:last]), *after)
        y = jax.vmap(folded)(rows).reshape(*before, *after)
    return jnp.expand_dims(y, axes) if keepdims else y


def sum_rows(x: Array) -> Array:
    """The sum over all axes but the last.

    >>> sum_rows(jnp.ones((2, 3, 4))).tolist()
    [6.0, 6.0, 6.0, 6.0]
    """
    return folded(x.reshape(math.prod(x.shape[:-1]), x.shape[-1]))


def row_mean(x: Array, weights: Array | None = None) -> Array:
    """The mean along the last axis, which stays with length 1; of x times weights, if given.

    On the CPU a sum writes out what it sums first, in full; a product with a vector does not.

    >>> row_mean(jnp.array([[1.0, 3.0]]), jnp.array([1.0, 2.0])).tolist()
    [[3.5]]
    """
    width = x.shape[-1]
    weights = jnp.ones(width, x.dtype) if weights is None else weights.astype(x.dtype)

    def plain(x: Array, weights: Array) -> Array:
        return sum_over(x * weights, -1, keepdims=True) / max(width, 1)

    def product(x: Array, weights: Array) -> Array:
        return (x @ weights)[..., None] / max(width, 1)

    if width > LONG:
        return plain(x, weights)
    return jax.lax.platform_dependent(x, weights, cpu=product, default=plain)


def _runs(axes: Sequence[int]) -> list[tuple[int, int]]:
    """Axes side by side taken together, as (first, last + 1), the last of them first."""
    runs: list[tuple[int, int]] = []
    for axis in reversed(axes):
        if runs and axis + 1 == runs[-1][0]:
            runs[-1] = axis, runs[-1][1]
        else:
            runs.append((axis, axis + 1))
    return runs


def _windowed(x: Array) -> Array:
    """The sum along the leading axis. A sum that comes last, XLA would join with the windows."""
    while len(x) > 1:
        size = (min(WINDOW, len(x)), *(1 for _ in x.shape[1:]))
        widths = ((0, -len(x) % size[0]), *((0, 0) for _ in x.shape[1:]))
        x = jax.lax.reduce_window(x, x.dtype.type(0), jax.lax.add, size, size, widths)
    return x[0]


def is_placed(x: Array) -> bool:
    """Whether several devices may hold parts of it: its axes are not to be cut then."""
    return any(jax.typeof(x).sharding.spec) or devices() > 1
