"""Normalisation of each example by its own statistics, over all places and a group of channels.

The channels are the last axis. Like `layer_norm`, both ops keep x and three numbers for each mean
that they take. Every sum is over the places of one channel first, which is the order in which they
lie in memory; the groups are put together afterwards. What `where` leaves out counts for nothing.
"""

import math

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..fast.rows import folded, sum_over
from ..shared.masks import masked
from . import cases
from .checks import counted_channels, in_groups
from .moments import affine, defined, moments


def _by_place(x: Array) -> Array:
    """`(batch, places, channels)`."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


def _shared(sums: Array, groups: int) -> Array:
    """From sums over the places `(batch, channels)`, the group's sum at each channel of it."""
    batch, channels = sums.shape
    size = channels // max(groups, 1)
    return jnp.repeat(sums.reshape(batch, 1, groups, size).sum(-1), size, -1)


def _counts(x: Array, where: Array | None) -> Array | None:
    """The mask as `_by_place` has x, of all channels or of one that stands for all."""
    if where is None:
        return None
    return _by_place(jnp.broadcast_to(where, (*x.shape[:-1], *(jnp.shape(where)[-1:] or (1,)))))


def _number(rows: Array, counts: Array | None, groups: int) -> Array | int:
    """How many numbers of a group count, 1 where none does: of every group, or at each channel."""
    batch, places, channels = rows.shape
    if counts is None:
        return max(places * (channels // max(groups, 1)), 1)
    at_places = counts.sum(1, dtype=rows.dtype)
    return jnp.maximum(_shared(jnp.broadcast_to(at_places, (batch, channels)), groups), 1)


def _group_norm_forward(x, scale, shift, where, *, groups, eps):
    counts = _counts(x, where)
    rows = masked(_by_place(x), counts)
    n = _number(rows, counts, groups)
    pivot, offset, centred, var = moments(
        rows, lambda rows: _shared(sum_over(masked(rows, counts), 1), groups) / n
    )
    rstd = jax.lax.rsqrt(var + eps)
    y = masked(affine(centred * rstd, scale, shift), counts).reshape(x.shape)
    one_each = slice(None, None, max(x.shape[-1] // max(groups, 1), 1))
    return y, (x, *(v[..., one_each] for v in (pivot, offset, rstd)), scale, where)


def _group_norm_backward(res, dy):
    """With x̂ = (x − mean) r, r = 1 / √(var + eps), and means over the places and the group:
    dx = r (scale dy − mean(scale dy) − x̂ mean(scale dy x̂))
    dscale = Σ x̂ dy;  dshift = Σ dy, over examples and places
    """
    x, *kept, scale, where = res
    counts = _counts(x, where)
    rows, drows = (masked(_by_place(v), counts) for v in (x, dy))
    channels, groups = x.shape[-1], kept[0].shape[-1]
    pivot, offset, rstd = (jnp.repeat(v, channels // max(groups, 1), -1) for v in kept)
    unit, n = ((rows - pivot) - offset) * rstd, _number(rows, counts, groups)
    dshift, dscale = sum_over(drows, 1), sum_over(unit * drows, 1)
    means = [_shared(affine(sums, scale, None), groups) / n for sums in (dshift, dscale)]
    dx = rstd * (affine(drows, scale, None) - means[0] - unit * means[1])
    return masked(dx, counts).reshape(x.shape), folded(dscale), folded(dshift), None


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
    where: Array | None = None,
    *,
    groups: int,
    eps: float = 1e-5,
) -> Array:
    """(x − mean) / √(var + eps) · scale + shift, each example and group of channels on its own.

    Mean and variance are taken over all axes between the first and the last, and over the
    channels of the group, which are neighbours. What `where` leaves out has no effect, may be
    anything, and gives 0.

    Args:
        x: `(batch, *spatial, channels)`.
        scale: `(channels,)`, or None for 1.
        shift: `(channels,)`, or None for 0.
        where: Booleans that broadcast to x: what counts, such as `mask[..., None]` of a mask of
            padded sequences; None for all.
        groups: Number of groups, a divisor of the number of channels.
        eps: Added to the variance, the mean square distance from the mean.

    Returns:
        The shape and dtype of `x`.

    Raises:
        TypeError: If `x` is not floating, or `where` not boolean.
        ValueError: If the shapes do not fit, or `groups` does not divide the channels.

    >>> group_norm(jnp.array([[1.0, 3.0, 7.0, 7.0]]), groups=2).round(3).tolist()
    [[-1.0, 1.0, 0.0, 0.0]]

    Reference: Wu & He, "Group Normalization", 2018, equation 7.
    """
    batch, *places, channels = x.shape
    split = (batch, math.prod(places), groups, channels // groups)
    counts = None if where is None else jnp.broadcast_to(where, x.shape).reshape(split)
    _, centred, var = defined(x.reshape(split), counts, (1, 3))
    y = affine((centred / jnp.sqrt(var + eps)).reshape(x.shape), scale, shift)
    return masked(y, where)


def _instance_norm_forward(x, scale, shift, where, *, eps):
    return _group_norm_forward(x, scale, shift, where, groups=x.shape[-1], eps=eps)


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
    check=counted_channels(3),
    wide=True,
    recomputes=True,
    fast=True,
)
def instance_norm(
    x: Array,
    scale: Array | None = None,
    shift: Array | None = None,
    where: Array | None = None,
    *,
    eps: float = 1e-5,
) -> Array:
    """(x − mean) / √(var + eps) · scale + shift, each example and channel on its own.

    Mean and variance are taken over all axes between the first and the last: group normalisation
    with one channel to a group. What `where` leaves out has no effect, may be anything, and gives
    0.

    Args:
        x: `(batch, *spatial, channels)`, of rank 3 or more.
        scale: `(channels,)`, or None for 1.
        shift: `(channels,)`, or None for 0.
        where: Booleans that broadcast to x: what counts, such as `mask[..., None]` of a mask of
            padded sequences; None for all.
        eps: Added to the variance, the mean square distance from the mean.

    Returns:
        The shape and dtype of `x`.

    Raises:
        TypeError: If `x` is not floating, or `where` not boolean.
        ValueError: If the shapes do not fit.

    >>> instance_norm(jnp.array([[[1.0, 5.0], [3.0, 9.0]]])).round(3).tolist()
    [[[-1.0, -1.0], [1.0, 1.0]]]

    Reference: Ulyanov, Vedaldi & Lempitsky, "Instance Normalization: The Missing Ingredient for
    Fast Stylization", 2016, equation 2.
    """
    _, centred, var = defined(x, where, range(1, x.ndim - 1))
    return masked(affine(centred / jnp.sqrt(var + eps), scale, shift), where)
