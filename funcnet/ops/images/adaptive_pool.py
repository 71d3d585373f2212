"""Pools to a given size: the largest or the mean of each bin, channel by channel."""

import jax.numpy as jnp
import numpy as np

from ...rules.passes import widened
from ...rules.rule import rule
from ...types import Array
from ..shared.windows import Numbers, per_axis
from . import cases
from .pool_checks import bins, floats_in_bins
from .reads import Reads, matrix, readers, spread, times, weighted


def _bins(size: int, length: int) -> Reads:
    """What each bin holds; a shorter one its last again, of weight 0."""
    out = np.arange(length)
    first, end = out * size // length, -(-(out + 1) * size // length)
    places = first + np.arange((end - first).max())[:, None]
    return np.minimum(places, end - 1), (places < end) / (end - first)


def _adaptive_avg_pool_forward(x, *, shape):
    y = x
    for axis, length in enumerate(per_axis(shape, x.ndim - 2), 1):
        if length != x.shape[axis]:
            y = weighted(y, axis, _bins(x.shape[axis], length))
    return y, jnp.zeros((0, *x.shape[1:]), x.dtype)


def _adaptive_avg_pool_backward(empty, dy):
    """dx[i] = Σ dy[j] / size[j] over the bins j that hold i"""
    dx = dy
    for axis, size in enumerate(empty.shape[1:-1], 1):
        if dy.shape[axis] != size:
            dx = spread(dx, axis, _bins(size, dy.shape[axis]), size)
    return (dx,)


@rule(
    _adaptive_avg_pool_forward,
    _adaptive_avg_pool_backward,
    cases=cases.ADAPTIVE_AVG_POOL,
    check=floats_in_bins,
    wide=True,
    fast=True,
)
def adaptive_avg_pool(x: Array, *, shape: Numbers) -> Array:
    """The mean of each bin, of as many bins as asked for, channel by channel.

    With n pixels and m bins, bin i goes from floor(i n / m) to below ceil((i + 1) n / m), as in
    PyTorch: bins overlap where m does not divide n.

    Args:
        x: `(batch, *spatial, channels)`, floating, with one to three spatial axes.
        shape: The number of bins along each spatial axis, or one for all.

    Returns:
        `(batch, *shape, channels)`, in the dtype of x; 16-bit dtypes are computed in float32 and
        rounded once.

    Raises:
        TypeError: If x is not floating.
        ValueError: If the rank or the numbers do not fit.

    >>> x = jnp.array([1.0, 2.0, 6.0])[None, :, None]
    >>> adaptive_avg_pool(x, shape=2).ravel().tolist()
    [1.5, 4.0]

    Reference: He et al., "Spatial Pyramid Pooling in Deep Convolutional Networks for Visual
    Recognition", 2014, section 2.2.
    """
    y = x
    for axis, length in enumerate(per_axis(shape, x.ndim - 2), 1):
        y = times(y, axis, matrix(x.shape[axis], _bins(x.shape[axis], length)))
    return y


def _largest_along(x: Array, axis: int, length: int) -> tuple[Array, Array]:
    """The first largest of each bin along one axis, and its place."""
    places, _ = _bins(x.shape[axis], length)
    seen = jnp.take(x, places, axis)
    tap = jnp.argmax(seen, axis, keepdims=True)
    column = (*places.shape, *(1,) * (x.ndim - 1 - axis))
    place = jnp.take_along_axis(places.reshape((1,) * axis + column), tap, axis)
    return jnp.take_along_axis(seen, tap, axis).squeeze(axis), place.squeeze(axis)


def _adaptive_max_pool_forward(x, *, shape):
    y, chosen = x, []
    for axis, length in reversed(list(enumerate(per_axis(shape, x.ndim - 2), 1))):
        y, place = _largest_along(y, axis, length)
        chosen.append(place)
    return y, (jnp.zeros((0, *x.shape[1:]), x.dtype), chosen)


def _adaptive_max_pool_backward(res, dy):
    """dx[i] = Σ dy[j] over the bins j whose first largest element is x[i]

    One axis after the other, from the first, each the adjoint of the largest along that axis.
    """
    empty, chosen = res
    dx = widened(dy)
    for axis, place in enumerate(reversed(chosen), 1):
        size, column = empty.shape[axis], (-1,) + (1,) * (dy.ndim - 1 - axis)
        total = jnp.zeros((), dx.dtype)
        for outputs, shares in zip(*readers(size, _bins(size, dy.shape[axis])), strict=True):
            here = jnp.take(place, outputs, axis) == np.arange(size).reshape(column)
            read = here & (shares != 0).reshape(column)
            total = total + jnp.where(read, jnp.take(dx, outputs, axis), 0)
        dx = total
    return (dx,)


@rule(
    _adaptive_max_pool_forward,
    _adaptive_max_pool_backward,
    cases=cases.ADAPTIVE_MAX_POOL,
    check=bins,
)
def adaptive_max_pool(x: Array, *, shape: Numbers) -> Array:
    """The largest of each bin, of as many bins as asked for, channel by channel.

    The bins are those of `adaptive_avg_pool`. Where one holds its maximum more than once, the first
    in row-major order gets the whole gradient.

    Args:
        x: `(batch, *spatial, channels)`, with one to three spatial axes.
        shape: The number of bins along each spatial axis, or one for all.

    Returns:
        `(batch, *shape, channels)`, in the dtype of x.

    Raises:
        ValueError: If the rank or the numbers do not fit.

    >>> x = jnp.array([1.0, 2.0, 6.0])[None, :, None]
    >>> adaptive_max_pool(x, shape=2).ravel().tolist()
    [2.0, 6.0]

    Reference: He et al., "Spatial Pyramid Pooling in Deep Convolutional Networks for Visual
    Recognition", 2014, section 2.2.
    """
    y = x
    for axis, length in reversed(list(enumerate(per_axis(shape, x.ndim - 2), 1))):
        y, _ = _largest_along(y, axis, length)
    return y
