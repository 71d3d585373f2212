"""Normalisation by the statistics of a batch, and by given ones.

`batch_norm` takes mean and variance from its input and is differentiated through them;
`normalize` takes them as arguments, as an evaluation does. Both work over the last axis.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..fast.rows import sum_rows
from ..shared.masks import count_along, masked
from . import cases
from .checks import channels, counted_channels
from .moments import affine, defined, moments


def _count(x: Array, where: Array | None) -> Array | int:
    """How many rows count, 1 where none does: a number, or one for each channel."""
    n = count_along(x, where, range(x.ndim - 1))
    return n if isinstance(n, int) else n.reshape(-1)


def _mean(where: Array | None, n: Array | int) -> Callable[[Array], Array]:
    return lambda x: sum_rows(masked(x, where)) / n


def _batch_norm_forward(x, scale, shift, where, *, eps):
    rows = masked(x, where)
    pivot, offset, centred, var = moments(rows, _mean(where, _count(x, where)))
    rstd = jax.lax.rsqrt(var + eps)
    y = masked(affine(centred * rstd, scale, shift), where)
    return (y, pivot + offset, var), (x, pivot, offset, rstd, scale, where)


def _batch_norm_backward(res, dys):
    """With x̂ = (x − mean) r, r = 1 / √(var + eps), and sums over the n rows that count:
    dshift = Σ dy;  dscale = Σ x̂ dy
    dx = scale r (dy − dshift / n − x̂ dscale / n) + dmean / n + 2 (x − mean) dvar / n
    """
    (x, pivot, offset, rstd, scale, where), (dy, dmean, dvar) = res, dys
    rows, dy = masked(x, where), masked(dy, where)
    centred, n = (rows - pivot) - offset, _count(rows, where)
    dshift, dscale = sum_rows(dy), sum_rows(centred * dy) * rstd
    slope = affine(rstd, scale, None)
    by_row = (2 * dvar - slope * rstd * dscale) / n
    by_channel = (dmean - slope * dshift) / n
    dx = masked(slope * dy + centred * by_row + by_channel, where)
    return dx, dscale, dshift, None


@rule(
    _batch_norm_forward,
    _batch_norm_backward,
    cases=cases.BATCH_NORM,
    check=counted_channels(2),
    wide=True,
    recomputes=True,
    fast=True,
)
def batch_norm(
    x: Array,
    scale: Array | None = None,
    shift: Array | None = None,
    where: Array | None = None,
    *,
    eps: float = 1e-5,
) -> tuple[Array, Array, Array]:
    """(x − mean) / √(var + eps) · scale + shift, with the mean and variance of the batch.

    They are taken over all axes but the last; the variance is the biased one, the mean square
    distance from the mean, and right also where the mean is large. The gradient goes through both.
    Keeps x and a few numbers for each channel. What `where` leaves out has no effect, may be
    anything, and gives 0; where nothing counts, mean and variance are 0.

    Args:
        x: `(..., channels)`, of rank 2 or more.
        scale: `(channels,)`, or None for 1.
        shift: `(channels,)`, or None for 0.
        where: Booleans that broadcast to x: what counts, such as `mask[..., None]` of a mask of
            padded sequences; None for all.
        eps: Added to the variance.

    Returns:
        `(y, mean, var)`: y in the shape and dtype of `x`, the others `(channels,)` in float32 or
        wider, for running averages.

    Raises:
        TypeError: If `x` is not floating, or `where` not boolean.
        ValueError: If the shapes do not fit.

    >>> y, mean, var = batch_norm(jnp.array([[1.0], [3.0]]))
    >>> y.round(3).tolist(), mean.tolist(), var.tolist()
    ([[-1.0], [1.0]], [2.0], [1.0])
    >>> padded, counts = jnp.array([[1.0], [3.0], [9.0]]), jnp.array([[True], [True], [False]])
    >>> batch_norm(padded, None, None, counts)[0].round(3).tolist()
    [[-1.0], [1.0], [0.0]]

    Reference: Ioffe & Szegedy, "Batch Normalization: Accelerating Deep Network Training by
    Reducing Internal Covariate Shift", 2015, algorithm 1.
    """
    mean, centred, var = defined(x, where, range(x.ndim - 1))
    y = affine(centred / jnp.sqrt(var + eps), scale, shift)
    return masked(y, where), mean.reshape(-1), var.reshape(-1)


def _normalize_forward(x, mean, var, scale, shift, *, eps):
    y = affine((x - mean) / jnp.sqrt(var + eps), scale, shift)
    return y, (x, mean, var, scale)


def _normalize_backward(res, dy, *, eps):
    """With r = 1 / √(var + eps):  dx = scale r dy;  dmean = −scale r Σ dy
    dvar = −½ scale r³ Σ (x − mean) dy;  dscale = r Σ (x − mean) dy;  dshift = Σ dy
    """
    x, mean, var, scale = res
    rstd = jax.lax.rsqrt(var + eps)
    slope = affine(rstd, scale, None)
    dshift, moment = sum_rows(dy), sum_rows((x - mean) * dy)
    dvar = -slope * rstd * rstd * moment / 2
    return slope * dy, -slope * dshift, dvar, rstd * moment, dshift


@rule(
    _normalize_forward,
    _normalize_backward,
    cases=cases.NORMALIZE,
    check=channels(1, "mean", "var", "scale", "shift"),
    wide=True,
)
def normalize(
    x: Array,
    mean: Array,
    var: Array,
    scale: Array | None = None,
    shift: Array | None = None,
    *,
    eps: float = 1e-5,
) -> Array:
    """(x − mean) / √(var + eps) · scale + shift, with a mean and variance that are given.

    Args:
        x: `(..., channels)`.
        mean: `(channels,)`, as a running average has it.
        var: `(channels,)`.
        scale: `(channels,)`, or None for 1.
        shift: `(channels,)`, or None for 0.
        eps: Added to the variance.

    Returns:
        The shape and dtype of `x`.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If the shapes do not fit.

    >>> normalize(jnp.array([[5.0]]), jnp.array([1.0]), jnp.array([4.0]), eps=0.0).tolist()
    [[2.0]]

    Reference: Ioffe & Szegedy, "Batch Normalization: Accelerating Deep Network Training by
    Reducing Internal Covariate Shift", 2015, algorithm 2.
    """
    return affine((x - mean) / jnp.sqrt(var + eps), scale, shift)
