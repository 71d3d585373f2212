"""Mean and variance, and what a norm does with them."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from ...types import Array
from ..shared.masks import masked


def moments(x: Array, mean: Callable[[Array], Array]) -> tuple[Array, Array, Array, Array]:
    """A pivot near the mean, the mean less the pivot, what is left of x, its variance.

    The first mean is only a pivot: a float32 sum of many numbers far from 0 is off by more than
    their spread. Taken from the pivot they are small, and so is the rounding.
    """
    pivot = jax.lax.stop_gradient(mean(x))
    x = x - pivot
    offset = mean(x)
    centred = x - offset
    return pivot, offset, centred, mean(jnp.square(centred))


def defined(x: Array, where: Array | None, axes: Sequence[int]) -> tuple[Array, Array, Array]:
    """Mean, what is left of x, and variance along the axes, of what counts and as one defines them.

    What does not count, and a mean or variance of nothing, is 0.

    >>> x, where = jnp.array([1.0, 3.0, jnp.nan]), jnp.array([True, True, False])
    >>> [v.tolist() for v in defined(x, where, (0,))]
    [[2.0], [-1.0, 1.0, 0.0], [1.0]]
    """
    if where is None:
        n = max(math.prod(x.shape[axis] for axis in axes), 1)
    else:
        n = jnp.maximum(jnp.broadcast_to(where, x.shape).sum(tuple(axes), keepdims=True), 1)
    x = masked(x, where)
    mean = x.sum(tuple(axes), keepdims=True) / n
    centred = masked(x - mean, where)
    return mean, centred, jnp.square(centred).sum(tuple(axes), keepdims=True) / n


def affine(x: Array, scale: Array | None, shift: Array | None) -> Array:
    """x · scale + shift, where None is 1 and 0."""
    if scale is not None:
        x = x * scale
    return x if shift is None else x + shift
