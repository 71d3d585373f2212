"""Normalisation of each example by its own statistics, over all places and a group of channels.

The channels are the last axis. Like `layer_norm`, both ops keep x and three numbers for each mean
that they take. Every sum is over the places of one channel first, which is the order in which they
lie in memory; the groups are put together afterwards.
"""

import math

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..fast.rows import folded, sum_over
from . import cases
from .checks import channels, in_groups
from .moments import affine, moments


def _by_place(x: Array) -> Array:
    """`(batch, places, channels)`."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


def _shared(sums: Array, groups: int, places: int) -> Array:
    """From sums over the places `(batch, channels)`, the group's mean at each channel of it."""
    batch, channels = sums.shape
    size = channels // max(groups, 1)
    means = sums.reshape(batch, 1, groups, size).sum(-1) / max(places * size, 1)
    return jnp.repeat(means, size, -1)


def _group_norm_forward(x, scale, shift, *, groups, eps):
    pivot, offset, centred, var = moments(
        _by_place(x), lambda x: _shared(sum_over(x, 1), groups, x.shape[1])
    )
    rstd = jax.lax.rsqrt(var + eps)
    y = affine(centred * rstd, scale, shift).reshape(x.shape)
    one_each = slice(None, None, max(x.shape[-1] // max(groups, 1), 1))
    return y, (x, *(v[..., one_each] for v in (pivot, offset, rstd)), scale)


def _group_norm_backward(res, dy):
    """With x̂ = (x − mean) r, r = 1 / √(var + eps), and means over the places and the group:
    dx = r (scale dy − mean(scale dy) − x̂ mean(scale dy x̂))
    dscale = Σ x̂ dy;  dshift = Σ dy, over examples and places
    """
    x, *kept, scale = res
    rows, drows = _by_place(x), _by_place(dy)
    (_, places, channels), groups = rows.shape, kept[0].shape[-1]
    pivot, offset, rstd = (jnp.repeat(v, channels // max(groups, 1), -1) for v in kept)
    unit = ((rows - pivot) - offset) * rstd
    dshift, dscale = sum_over(drows, 1), sum_over(unit * drows, 1)
    means = [_shared(affine(sums, scale, None), groups, places) for sums in (dshift, dscale)]
    dx = rstd * (affine(drows, scale, None) - means[0] - unit * means[1])
    return dx.reshape(x.shape), folded(dscale), folded(dshift)


@rule(
    _group_norm_forward,
    _group_norm_backward,
    cases=cases.GROUP_NORM,
    check=in_groups,
    wide=True,
    recomputes=True,
    fast=True,
)
def group_norm(
    x: Array,
    scale: Array | None = None,
    shift: Array | None = None,
    *,
    groups: int,
    eps: float = 1e-5,
) -> Array:
    """(x − mean) / √(var + eps) · scale + shift, each example and group of channels on its own.

    Mean and variance are taken over all axes between the first and the last, and over the
    channels of the group, which are neighbours.

    Args:
        x: `(batch, *spatial, channels)`.
        scale: `(channels,)`, or None for 1.
        shift: `(channels,)`, or None for 0.
        groups: Number of groups, a divisor of the number of channels.
        eps: Added to the variance, the mean square distance from the mean.

    Returns:
        The shape and dtype of `x`.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If the shapes do not fit, or `groups` does not divide the channels.

    >>> group_norm(jnp.array([[1.0, 3.0, 7.0, 7.0]]), groups=2).round(3).tolist()
    [[-1.0, 1.0, 0.0, 0.0]]

    Reference: Wu & He, "Group Normalization", 2018, equation 7.
    """
    batch, *places, channels = x.shape
    split = x.reshape(batch, math.prod(places), groups, channels // groups)
    centred = split - split.mean((1, 3), keepdims=True)
    var = jnp.square(centred).mean((1, 3), keepdims=True)
    return affine((centred / jnp.sqrt(var + eps)).reshape(x.shape), scale, shift)


def _instance_norm_forward(x, scale, shift, *, eps):
    return _group_norm_forward(x, scale, shift, groups=x.shape[-1], eps=eps)


def _instance_norm_backward(res, dy):
    """With x̂ = (x − mean) r, r = 1 / √(var + eps), and means over the places:
    dx = r scale (dy − mean(dy) − x̂ mean(dy x̂))
    dscale = Σ x̂ dy;  dshift = Σ dy, over examples and places
    """
    return _group_norm_backward(res, dy)


@rule(
    _instance_norm_forward,
    _instance_norm_backward,
    cases=cases.INSTANCE_NORM,
    check=channels(3, "scale", "shift"),
    wide=True,
    recomputes=True,
    fast=True,
)
def instance_norm(
    x: Array, scale: Array | None = None, shift: Array | None = None, *, eps: float = 1e-5
) -> Array:
    """(x − mean) / √(var + eps) · scale + shift, each example and channel on its own.

    Mean and variance are taken over all axes between the first and the last: group normalisation
    with one channel to a group.

    Args:
        x: `(batch, *spatial, channels)`, of rank 3 or more.
        scale: `(channels,)`, or None for 1.
        shift: `(channels,)`, or None for 0.
        eps: Added to the variance, the mean square distance from the mean.

    Returns:
        The shape and dtype of `x`.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If the shapes do not fit.

    >>> instance_norm(jnp.array([[[1.0, 5.0], [3.0, 9.0]]])).round(3).tolist()
    [[[-1.0, -1.0], [1.0, 1.0]]]

    Reference: Ulyanov, Vedaldi & Lempitsky, "Instance Normalization: The Missing Ingredient for
    Fast Stylization", 2016, equation 2.
    """
    places = range(1, x.ndim - 1)
    centred = x - x.mean(places, keepdims=True)
    var = jnp.square(centred).mean(places, keepdims=True)
    return affine(centred / jnp.sqrt(var + eps), scale, shift)
