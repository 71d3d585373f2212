"""Activations that set what is small to one number. At a jump and at a kink the slope is 0."""

import jax.numpy as jnp

from ...types import Array
from . import cases
from .checks import not_below_zero
from .keeping import keeps_input, keeps_output

_size = not_below_zero("threshold", "It is the size up to which x becomes 0.")


def _hard_shrink_backward(x, dy, *, threshold):
    """dx = dy where |x| > θ, else 0"""
    return (jnp.where(jnp.abs(x) <= threshold, 0, dy),)


@keeps_input(_hard_shrink_backward, cases=cases.SHRINK, check=_size)
def hard_shrink(x: Array, *, threshold: float = 0.5) -> Array:
    """x where |x| > θ, else 0, for the threshold θ.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If `threshold` is below 0.

    >>> hard_shrink(jnp.array([-2.0, 0.5, 3.0])).tolist()
    [-2.0, 0.0, 3.0]

    Reference: Donoho & Johnstone, "Ideal Spatial Adaptation by Wavelet Shrinkage", 1994.
    """
    return jnp.where(jnp.abs(x) <= threshold, 0, x)


def _soft_shrink_backward(y, dy):
    """dx = dy where y ≠ 0, else 0"""
    return (jnp.where(y == 0, 0, dy),)


@keeps_output(_soft_shrink_backward, cases=cases.SHRINK, check=_size)
def soft_shrink(x: Array, *, threshold: float = 0.5) -> Array:
    """x less θ towards 0: sign(x) max(|x| − θ, 0), for the threshold θ.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If `threshold` is below 0.

    >>> soft_shrink(jnp.array([-2.0, 0.5, 3.0])).tolist()
    [-1.5, 0.0, 2.5]

    Reference: Donoho, "De-Noising by Soft-Thresholding", 1995.
    """
    return jnp.where(jnp.abs(x) <= threshold, 0, x - jnp.sign(x) * threshold)


def _threshold_backward(x, dy, *, at):
    """dx = dy where x > θ, else 0"""
    return (jnp.where(x <= at, 0, dy),)


@keeps_input(_threshold_backward, cases=cases.THRESHOLD)
def threshold(x: Array, *, at: float, value: float = 0.0) -> Array:
    """x where x > θ = `at`, else `value`. With at = 0 and value = 0 it is `relu`.

    Raises:
        TypeError: If `x` is not floating.

    >>> threshold(jnp.array([-2.0, 0.5, 3.0]), at=0.5, value=-1.0).tolist()
    [-1.0, -1.0, 3.0]

    Reference: Konda, Memisevic & Krueger, "Zero-Bias Autoencoders and the Benefits of Co-Adapting
    Features", 2015, the truncated rectifier.
    """
    return jnp.where(x <= at, value, x)
