"""Max-pooling that tells where the maxima were, and numbers put back to such places."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from ...rules.passes import widened
from ...rules.rule import rule
from ...types import Array
from ..shared import windows
from ..shared.windows import Axis, Numbers, Padding, per_axis
from . import cases
from .pool import tap_by_tap, windows_for
from .pool_checks import in_windows, numbers_at_places

MOST_TAPS = 16
"""With more, each dy is scattered to its place; with few, each tap's are shifted to theirs."""


def _places(sizes: Sequence[int]) -> Array:
    """The place of each pixel in row-major order, (1, *sizes, 1)."""
    return jnp.arange(math.prod(sizes), dtype=jnp.int32).reshape(1, *sizes, 1)


def _first_along(x: Array, places: Array, axis: Axis, dimension: int) -> tuple[Array, Array]:
    """The first largest of each window along one axis, and its place; padding has place −1."""
    values = list(windows.taps(x, axis, dimension, windows.lowest(x)))
    seen = list(windows.taps(places, axis, dimension, -1))
    y, place = values[0], seen[0]
    for value, there in zip(values[1:], seen[1:], strict=True):
        larger = (value > y) | (jnp.isnan(value) & ~jnp.isnan(y))
        better = (there >= 0) & (larger | (place < 0))
        y, place = jnp.where(better, value, y), jnp.where(better, there, place)
    return y, place


def _max_pool_with_indices_forward(x, *, window, stride, padding, dilation, ceil_mode):
    placed = windows_for(x, (window, stride, padding, dilation, ceil_mode))
    y, indices = x, _places(x.shape[1:-1])
    for dimension, axis in reversed(list(enumerate(placed, 1))):
        y, indices = _first_along(y, indices, axis, dimension)
    indices = jnp.broadcast_to(indices, y.shape)
    return (y, indices), (jnp.zeros((0, *x.shape[1:]), x.dtype), indices)


def _max_pool_with_indices_backward(res, dy, *, window, stride, padding, dilation, ceil_mode):
    """dx[i] = Σ dy[j] over the windows j whose index is i"""
    empty, indices = res
    placed = windows_for(empty, (window, stride, padding, dilation, ceil_mode))
    dy, sizes = widened(dy[0]), empty.shape[1:-1]
    if math.prod(a.window for a in placed) > MOST_TAPS:
        dx = jnp.zeros((len(dy), math.prod(sizes), dy.shape[-1]), dy.dtype)
        dx = dx.at[_at(_rows(indices))].add(_rows(dy))
        return (dx.reshape(len(dy), *sizes, dy.shape[-1]),)
    return (_shifted(dy, indices, _places(sizes), placed),)


def _shifted(dy: Array, indices: Array, places: Array, placed: Sequence[Axis]) -> Array:
    """Each dy at the tap whose place is its index, tap by tap, from the last axis to the first."""
    if not placed:
        return jnp.where(indices == places, dy, 0)
    *others, axis = placed
    seen = windows.taps(places, axis, len(placed), -1)
    parts = [_shifted(dy, indices, there, others) for there in seen]
    return windows.untap(parts, axis, len(placed))


def _rows(x: Array) -> Array:
    """Spatial axes as one."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])


def _at(indices: Array) -> tuple:
    """Indices of (batch, places, channels) as those of an array, image by image and channel."""
    batch, _, channels = indices.shape
    return np.arange(batch)[:, None, None], indices, np.arange(channels)


@rule(
    _max_pool_with_indices_forward,
    _max_pool_with_indices_backward,
    cases=cases.MAX_POOL_WITH_INDICES,
    check=in_windows,
    fast=True,
)
def max_pool_with_indices(
    x: Array,
    *,
    window: Numbers,
    stride: Numbers | None = None,
    padding: Padding = "VALID",
    dilation: Numbers = 1,
    ceil_mode: bool = False,
) -> tuple[Array, Array]:
    """The largest of each window, channel by channel, and where in the image it is.

    The values are those of `max_pool`. The indices alone are kept for the backward pass, not x.

    Args:
        x: `(batch, *spatial, channels)`.
        window: Length of the window, one for all spatial axes or one for each.
        stride: Distance between windows, likewise; None for the window itself.
        padding: As in `conv`; padding never wins.
        dilation: Distance between the taps of a window, one for all spatial axes or one for each.
        ceil_mode: Whether what the last window would leave out gets one more, as in PyTorch.

    Returns:
        `(y, indices)`, both `(batch, *windows, channels)`: y in the dtype of x, and int32 indices
        of the first maximum of each window, counted in row-major order over the spatial axes.

    Raises:
        ValueError: If the window, stride, padding or dilation does not fit x.

    >>> x = jnp.array([[1.0, 5.0, 2.0], [7.0, 0.0, 3.0]])[None, ..., None]
    >>> y, indices = max_pool_with_indices(x, window=2, stride=1)
    >>> y.ravel().tolist(), indices.ravel().tolist()
    ([7.0, 5.0], [3, 1])

    Reference: Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", 2014,
    section 2.1, where the indices are called switches.
    """
    placed = windows_for(x, (window, stride, padding, dilation, ceil_mode))
    seen = tap_by_tap(x, placed, windows.lowest(x))
    there = tap_by_tap(_places(x.shape[1:-1]), placed, -1)
    hit = ((seen == seen.max(0)) | jnp.isnan(seen)) & (there >= 0)
    first = jnp.argmax(hit, 0)[None]
    return jnp.take_along_axis(seen, first, 0)[0], jnp.take_along_axis(there, first, 0)[0]


def _max_unpool_forward(x, indices, *, shape):
    sizes = per_axis(shape, x.ndim - 2)
    numbers, places = _rows(x), _within(_rows(indices), math.prod(sizes))
    order = jnp.arange(numbers.shape[1], dtype=jnp.int32)[:, None]
    empty = jnp.full((len(x), math.prod(sizes), x.shape[-1]), -1, jnp.int32)
    last = empty.at[_at(places)].max(order, mode="drop")
    y = jnp.where(last >= 0, jnp.take_along_axis(numbers, last.clip(0), 1), 0)
    is_last = jnp.take_along_axis(last, places, 1, mode="fill", fill_value=-1) == order
    kept = jnp.where(is_last, places, -1).reshape(x.shape)
    return y.reshape(len(x), *sizes, x.shape[-1]), kept


def _within(indices: Array, count: int) -> Array:
    """Indices of which all out of range are `count`: JAX counts negative ones from the end."""
    outside = (indices < 0) | (indices >= count)
    return jnp.where(outside, count, indices).astype(jnp.int32)


def _max_unpool_backward(kept, dy):
    """dx[j] = dy[index of j], or 0 where a later number took the place"""
    places = _rows(kept)
    dx = jnp.where(places >= 0, jnp.take_along_axis(_rows(dy), places.clip(0), 1), 0)
    return dx.reshape(kept.shape), None


@rule(
    _max_unpool_forward,
    _max_unpool_backward,
    cases=cases.MAX_UNPOOL,
    check=numbers_at_places,
    fast=True,
)
def max_unpool(x: Array, indices: Array, *, shape: Numbers) -> Array:
    """Each number put at its index in an image of zeros, channel by channel.

    With the indices of `max_pool_with_indices` this undoes the pooling but for what was not the
    largest. Where several numbers have one index, as those of windows that overlap may, the last in
    row-major order is put there and gets the gradient: PyTorch leaves open which one, and gives its
    gradient to all.

    Args:
        x: `(batch, *windows, channels)`.
        indices: Integers of the same shape, from 0 to below the number of pixels, that count these
            in row-major order over the spatial axes. Nothing is put at traced ones out of range,
            since a compiled program cannot raise.
        shape: The length of each spatial axis of the image, or one for all.

    Returns:
        `(batch, *shape, channels)`, in the dtype of x.

    Raises:
        TypeError: If the indices are not integers.
        ValueError: If they have not the shape of x, concrete ones are out of range, or the rank or
            the shape does not fit.

    >>> x, indices = jnp.array([5.0, 7.0])[None, :, None], jnp.array([1, 3])[None, :, None]
    >>> max_unpool(x, indices, shape=5).ravel().tolist()
    [0.0, 5.0, 0.0, 7.0, 0.0]

    Reference: Zeiler & Fergus, "Visualizing and Understanding Convolutional Networks", 2014,
    section 2.1; Badrinarayanan, Kendall & Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder
    Architecture for Image Segmentation", 2017, section 3.
    """
    sizes = per_axis(shape, x.ndim - 2)
    numbers, places = _rows(x), np.arange(math.prod(sizes))[:, None, None]
    here = _rows(indices)[:, None] == places
    order = jnp.arange(numbers.shape[1])[:, None]
    last = jnp.where(here, order, -1).max(2)
    y = jnp.where(last >= 0, jnp.take_along_axis(numbers, last.clip(0), 1), 0)
    return y.reshape(len(x), *sizes, x.shape[-1])
