"""Normalisation of each example by its own statistics, over all places and a group of channels.

The channels are the last axis. Like `layer_norm`, both ops compute in float32 or wider and keep x
and three numbers for each mean that they take. Every sum is over the places of one channel first,
which is the order in which they lie in memory; the groups are put together afterwards.
"""

import math

import jax
import jax.numpy as jnp

from ...rules.rule import normal_case, rule
from ...types import Array, is_whole, require
from ..fast.rows import folded, sum_over
from ..shared.precision import widened
from .batch_norm import affine, check_channels, moments


def _check_groups(x: Array, scale: Array | None, shift: Array | None, groups: int) -> None:
    check_channels("group_norm", x, 2, scale=scale, shift=shift)
    channels = x.shape[-1]
    require(
        is_whole(groups) and channels % groups == 0,
        "group_norm",
        f"a number of groups that divides {channels}, the number of channels of x",
        f"groups={groups!r}",
        "Choose a divisor of the number of channels.",
    )


def _by_place(x: Array) -> Array:
    """`(batch, places, channels)`, in float32 or wider."""
    return widened(x).reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


def _shared(sums: Array, groups: int, places: int) -> Array:
    """From sums over the places `(batch, channels)`, the group's mean at each channel of it."""
    batch, channels = sums.shape
    size = channels // max(groups, 1)
    means = sums.reshape(batch, 1, groups, size).sum(-1) / max(places * size, 1)
    return jnp.repeat(means, size, -1)


def _forward(
    x: Array, scale: Array | None, shift: Array | None, groups: int, eps: float
) -> tuple[Array, tuple]:
    rows = _by_place(x)
    pivot, offset, centred, var = moments(
        rows, lambda x: _shared(sum_over(x, 1), groups, x.shape[1])
    )
    rstd = jax.lax.rsqrt(var + eps)
    y = affine(centred * rstd, scale, shift, x)
    one_each = slice(None, None, max(x.shape[-1] // max(groups, 1), 1))
    kept = tuple(v[..., one_each] for v in (pivot, offset, rstd))
    return y, (x, *kept, scale, shift)


def _backward(res: tuple, dy: Array) -> tuple[Array, Array | None, Array | None]:
    (x, *kept, scale, shift), dy = jax.lax.optimization_barrier((res, dy))
    rows, drows = _by_place(x), _by_place(dy)
    (_, places, channels), groups = rows.shape, kept[0].shape[-1]
    pivot, offset, rstd = (jnp.repeat(v, channels // max(groups, 1), -1) for v in kept)
    unit = ((rows - pivot) - offset) * rstd
    weights = jnp.ones(channels, rows.dtype) if scale is None else widened(scale)
    dshift, dscale = sum_over(drows, 1), sum_over(unit * drows, 1)
    means = [_shared(sums * weights, groups, places) for sums in (dshift, dscale)]
    dx = rstd * (drows * weights - means[0] - unit * means[1])
    return (
        dx.reshape(x.shape),
        None if scale is None else folded(dscale),
        None if shift is None else folded(dshift),
    )


def _plain(x: Array, scale: Array | None, shift: Array | None, groups: int, eps: float) -> Array:
    batch, *places, channels = x.shape
    split = widened(x).reshape(batch, math.prod(places), groups, channels // groups)
    _, _, centred, var = moments(split, lambda x: x.mean((1, 3), keepdims=True))
    return affine((centred / jnp.sqrt(var + eps)).reshape(x.shape), scale, shift, x)


def _group_norm_forward(
    x: Array, scale: Array | None, shift: Array | None, *, groups: int, eps: float
) -> tuple[Array, tuple]:
    _check_groups(x, scale, shift, groups)
    return _forward(x, scale, shift, groups, eps)


def _group_norm_backward(res: tuple, dy: Array) -> tuple[Array, Array | None, Array | None]:
    """With x̂ = (x − mean) r, r = 1 / √(var + eps), and means over the places and the group:
    dx = r (scale dy − mean(scale dy) − x̂ mean(scale dy x̂))
    dscale = Σ x̂ dy;  dshift = Σ dy, over examples and places
    """
    return _backward(res, dy)


@rule(
    _group_norm_forward,
    _group_norm_backward,
    fast=True,
    cases={
        "image": normal_case((2, 3, 2, 6), (6,), (6,), groups=2),
        "rows": normal_case((3, 8), (8,), (8,), groups=2),
        "plain": normal_case((2, 3, 4), None, None, groups=2, eps=0.1),
        "one group": normal_case((2, 3, 4), (4,), None, groups=1),
        "none": normal_case((0, 3, 4), None, (4,), groups=2),
    },
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
    _check_groups(x, scale, shift, groups)
    return _plain(x, scale, shift, groups, eps)


def _instance_norm_forward(
    x: Array, scale: Array | None, shift: Array | None, *, eps: float
) -> tuple[Array, tuple]:
    check_channels("instance_norm", x, 3, scale=scale, shift=shift)
    return _forward(x, scale, shift, x.shape[-1], eps)


def _instance_norm_backward(res: tuple, dy: Array) -> tuple[Array, Array | None, Array | None]:
    """With x̂ = (x − mean) r, r = 1 / √(var + eps), and means over the places:
    dx = r scale (dy − mean(dy) − x̂ mean(dy x̂))
    dscale = Σ x̂ dy;  dshift = Σ dy, over examples and places
    """
    return _backward(res, dy)


@rule(
    _instance_norm_forward,
    _instance_norm_backward,
    fast=True,
    cases={
        "image": normal_case((2, 3, 2, 4), (4,), (4,)),
        "line": normal_case((2, 5, 3), (3,), None),
        "plain": normal_case((2, 3, 4), None, None, eps=0.1),
        "none": normal_case((0, 3, 4), None, (4,)),
    },
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
    check_channels("instance_norm", x, 3, scale=scale, shift=shift)
    return _plain(x, scale, shift, x.shape[-1], eps)
