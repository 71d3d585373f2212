"""Mean and variance, and what a norm does with them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ...types import Array


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


def affine(x: Array, scale: Array | None, shift: Array | None) -> Array:
    """x · scale + shift, where None is 1 and 0."""
    if scale is not None:
        x = x * scale
    return x if shift is None else x + shift
