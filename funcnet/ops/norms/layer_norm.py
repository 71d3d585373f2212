"""Normalisation of each example by its own statistics, over its last axis.

Besides x the rules keep one to three numbers for each row: its mean, as a pivot and what is left of
it (see `moments`), and one over its length or spread.
"""

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..fast.rows import row_mean, sum_rows
from . import cases
from .checks import channels
from .moments import affine, moments


def _layer_norm_forward(x, scale, shift, *, eps):
    pivot, offset, centred, var = moments(x, row_mean)
    rstd = jax.lax.rsqrt(var + eps)
    return affine(centred * rstd, scale, shift), (x, pivot, offset, rstd, scale)


def _layer_norm_backward(res, dy):
    """With x̂ = (x − mean) r (`unit`), r = 1 / √(var + eps), and means along each row:
    dx = r (scale dy − mean(scale dy) − x̂ mean(scale dy x̂))
    dscale = Σ x̂ dy;  dshift = Σ dy, over all axes but the last
    """
    x, pivot, offset, rstd, scale = res
    unit = ((x - pivot) - offset) * rstd
    product = unit * dy
    slopes = affine(dy, scale, None) - row_mean(dy, scale) - unit * row_mean(product, scale)
    return rstd * slopes, sum_rows(product), sum_rows(dy)


@rule(
    _layer_norm_forward,
    _layer_norm_backward,
    cases=cases.LAYER_NORM,
    check=channels(1, "scale", "shift"),
    wide=True,
    recomputes=True,
    fast=True,
)
def layer_norm(
    x: Array, scale: Array | None = None, shift: Array | None = None, *, eps: float = 1e-5
) -> Array:
    """(x − mean) / √(var + eps) · scale + shift, with mean and variance along the last axis.

    The variance is the biased one, the mean square distance from the mean, and right also where
    the mean is large. Keeps x and three numbers for each row.

    Args:
        x: `(..., width)`.
        scale: `(width,)`, or None for 1.
        shift: `(width,)`, or None for 0.
        eps: Added to the variance.

    Returns:
        The shape and dtype of `x`; 16-bit dtypes are computed in float32 and rounded once.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If the shapes do not fit.

    >>> layer_norm(jnp.array([[1.0, 3.0], [10.0, 10.0]])).round(3).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]

    Reference: Ba, Kiros & Hinton, "Layer Normalization", 2016, equation 4.
    """
    centred = x - x.mean(-1, keepdims=True)
    var = jnp.square(centred).mean(-1, keepdims=True)
    return affine(centred / jnp.sqrt(var + eps), scale, shift)


def _rms_norm_forward(x, scale, *, eps):
    rrms = jax.lax.rsqrt(row_mean(jnp.square(x)) + eps)
    return affine(x * rrms, scale, None), (x, rrms, scale)


def _rms_norm_backward(res, dy):
    """With x̂ = x r, r = 1 / √(mean(x²) + eps), and means along each row:
    dx = r (scale dy − x̂ mean(scale dy x̂));  dscale = Σ x̂ dy, over all axes but the last
    """
    x, rrms, scale = res
    unit = x * rrms
    product = unit * dy
    return rrms * (affine(dy, scale, None) - unit * row_mean(product, scale)), sum_rows(product)


@rule(
    _rms_norm_forward,
    _rms_norm_backward,
    cases=cases.RMS_NORM,
    check=channels(1, "scale"),
    wide=True,
    recomputes=True,
    fast=True,
)
def rms_norm(x: Array, scale: Array | None = None, *, eps: float = 1e-6) -> Array:
    """x / √(mean(x²) + eps) · scale, with the mean along the last axis.

    Keeps x and one number for each row.

    Args:
        x: `(..., width)`.
        scale: `(width,)`, or None for 1.
        eps: Added to the mean square.

    Returns:
        The shape and dtype of `x`; 16-bit dtypes are computed in float32 and rounded once.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If the shapes do not fit.

    >>> rms_norm(jnp.array([3.0, 3.0, -3.0])).round(3).tolist()
    [1.0, 1.0, -1.0]

    Reference: Zhang & Sennrich, "Root Mean Square Layer Normalization", 2019, equation 4.
    """
    return affine(x / jnp.sqrt(jnp.square(x).mean(-1, keepdims=True) + eps), scale, None)
