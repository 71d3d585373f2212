"""Pooling: the largest or the mean of each window, channel by channel."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ...rules.passes import widened
from ...rules.rule import rule
from ...types import Array
from ..fast.pool import max_unpool, spread, window_sums
from ..fast.rows import sum_over
from ..shared import windows
from ..shared.windows import Axis, Numbers, Padding
from . import cases
from .pool_checks import floats_at_places, floats_in_windows, in_windows, places

Options: TypeAlias = tuple[Numbers, Numbers | None, Padding, Numbers, bool]
"""Window, stride, padding, dilation, and whether the number of windows is rounded up."""


def windows_for(x: Array, options: Options) -> tuple[Axis, ...]:
    """The windows along each spatial axis of x."""
    window, stride, padding, dilation, ceil_mode = options
    lengths = windows.per_axis(window, x.ndim - 2)
    step = lengths if stride is None else stride
    placed = windows.axes(x.shape[1:-1], lengths, stride=step, padding=padding, dilation=dilation)
    return tuple(map(windows.ceiled, placed)) if ceil_mode else placed


def _largest(x: Array, placed: Sequence[Axis]) -> Array:
    """The largest of each window; `jnp.maximum` of slices would share the gradient among ties."""
    return windows.reduce(x, placed, windows.lowest(x), jax.lax.max)


def tap_by_tap(x: Array, placed: Sequence[Axis], fill: float) -> Array:
    """What all windows see at each tap, in row-major order, along a new leading axis."""
    seen = [x]
    for dimension, axis in enumerate(placed, 1):
        seen = [part for one in seen for part in windows.taps(one, axis, dimension, fill)]
    return jnp.stack(seen)


def _max_pool_forward(x, *, window, stride, padding, dilation, ceil_mode):
    return _largest(x, windows_for(x, (window, stride, padding, dilation, ceil_mode))), x


def _max_pool_backward(res, dy, *, window, stride, padding, dilation, ceil_mode):
    """dx[i] = Σ dy[j] over the windows j whose first largest element is x[i]"""
    placed = windows_for(res, (window, stride, padding, dilation, ceil_mode))
    return (max_unpool(res, widened(dy), placed),)


@rule(_max_pool_forward, _max_pool_backward, cases=cases.MAX_POOL, check=in_windows)
def max_pool(
    x: Array,
    *,
    window: Numbers,
    stride: Numbers | None = None,
    padding: Padding = "VALID",
    dilation: Numbers = 1,
    ceil_mode: bool = False,
) -> Array:
    """The largest of each window, channel by channel.

    Where a window holds its maximum more than once, the first in row-major order gets the whole
    gradient, as in XLA and in PyTorch. A NaN counts as larger than any number.

    Args:
        x: `(batch, *spatial, channels)`.
        window: Length of the window, one for all spatial axes or one for each.
        stride: Distance between windows, likewise; None for the window itself.
        padding: As in `conv`; padding never wins.
        dilation: Distance between the taps of a window, one for all spatial axes or one for each.
        ceil_mode: Whether what the last window would leave out gets one more, as in PyTorch.

    Returns:
        `(batch, *windows, channels)`, in the dtype of x.

    Raises:
        ValueError: If the window, stride, padding or dilation does not fit x.

    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), window=2).ravel().tolist()
    [5.0, 7.0, 13.0, 15.0]

    Reference: Goodfellow, Bengio & Courville, "Deep Learning", 2016, section 9.3.
    """
    placed = windows_for(x, (window, stride, padding, dilation, ceil_mode))
    if all(a.dilation == 1 for a in placed):
        return _largest(x, placed)
    seen = tap_by_tap(x, placed, windows.lowest(x))  # JAX has no gradient of dilated windows
    return jnp.take_along_axis(seen, jnp.argmax(seen, 0)[None], 0)[0]


def _counts(
    x: Array, where: Array | None, options: Options, include_pad: bool
) -> Array | np.ndarray:
    """By how many numbers the sum of each window is divided, of shape (1, *windows, 1) or more."""
    placed = windows_for(x, options)
    if where is not None:
        return window_sums(_mask(x, where).astype(x.dtype), placed)
    if include_pad:  # but not what ceil_mode adds
        before = windows_for(x, (*options[:-1], False))
        placed = [
            a._replace(size=b.padded, low=0, high=a.padded - b.padded)
            for a, b in zip(placed, before, strict=True)
        ]
    counts = np.ones(())
    for a in placed:
        counts = np.multiply.outer(counts, a.filled)
    return counts[None, ..., None].astype(x.dtype)


def _mask(x: Array, where: Array) -> Array:
    """where, broadcast to all axes of x but its channels."""
    return jnp.broadcast_to(where, (*x.shape[:-1], *(jnp.shape(where)[-1:] or (1,))))


def _avg_pool_forward(x, where, *, window, stride, padding, count_include_pad, dilation, ceil_mode):
    options = (window, stride, padding, dilation, ceil_mode)
    counts = _counts(x, where, options, count_include_pad)
    counted = x if where is None else jnp.where(where, x, 0)
    return window_sums(counted, windows_for(x, options)) / _divisor(counts), (x, where)


def _divisor(counts: Array | np.ndarray) -> Array | np.ndarray:
    """The counts, and 1 for 0, since the sum is 0 then."""
    return np.maximum(counts, 1) if isinstance(counts, np.ndarray) else jnp.maximum(counts, 1)


def _avg_pool_backward(res, dy, *, window, stride, padding, count_include_pad, dilation, ceil_mode):
    """dx[i] = Σ dy[j] / count[j] over the windows j that hold i, where i counts"""
    x, where = res
    options = (window, stride, padding, dilation, ceil_mode)
    counts = _counts(x.astype(dy.dtype), where, options, count_include_pad)
    dx = spread(dy / _divisor(counts), windows_for(x, options))
    return dx if where is None else jnp.where(where, dx, 0), None


@rule(
    _avg_pool_forward,
    _avg_pool_backward,
    cases=cases.AVG_POOL,
    check=floats_in_windows,
    wide=True,
    fast=True,
)
def avg_pool(
    x: Array,
    where: Array | None = None,
    *,
    window: Numbers,
    stride: Numbers | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = False,
    dilation: Numbers = 1,
    ceil_mode: bool = False,
) -> Array:
    """The mean of each window, channel by channel.

    Args:
        x: `(batch, *spatial, channels)`, floating.
        where: Booleans that broadcast to x: what counts; a window where nothing does gives 0. None
            for all.
        window: Length of the window, one for all spatial axes or one for each.
        stride: Distance between windows, likewise; None for the window itself.
        padding: As in `conv`.
        count_include_pad: Whether the zeros of the padding count as elements of the mean, as they
            do by default in PyTorch. Not with `where`.
        dilation: Distance between the taps of a window, one for all spatial axes or one for each.
        ceil_mode: Whether what the last window would leave out gets one more, as in PyTorch; what
            it reaches beyond the padding never counts.

    Returns:
        `(batch, *windows, channels)`, in the dtype of x; 16-bit dtypes are computed in float32 and
        rounded once.

    Raises:
        ValueError: If the mask, window, stride, padding or dilation does not fit x.
        TypeError: If x is not floating, or `where` not boolean.

    >>> avg_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), window=2).ravel().tolist()
    [2.5, 4.5, 10.5, 12.5]

    Reference: LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998,
    section II.
    """
    options = (window, stride, padding, dilation, ceil_mode)
    counted = jnp.ones((), bool) if where is None else where
    total = windows.reduce(jnp.where(counted, x, 0), windows_for(x, options), 0.0, jax.lax.add)
    if count_include_pad:
        return total / _counts(x, None, options, True)
    ones = _mask(x, counted).astype(x.dtype)
    return total / jnp.maximum(windows.reduce(ones, windows_for(x, options), 0.0, jax.lax.add), 1)


def _where_counted(x: Array, where: Array | None) -> Array:
    return x if where is None else jnp.where(where, x, windows.lowest(x))


def _some(x: Array, where: Array) -> Array:
    """Whether anything counts, for each image and channel."""
    return _mask(x, where).any(range(1, x.ndim - 1))


def _global_max_pool_forward(x, where):
    counted = _where_counted(x, where)
    flat = counted.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
    first = jnp.argmax(flat, 1, keepdims=True)
    y = jnp.take_along_axis(flat, first, 1)[:, 0]
    return y if where is None else jnp.where(_some(x, where), y, 0), (x, where, first)


def _global_max_pool_backward(res, dy):
    """dx[n, i, c] = dy[n, c] where i is the first place of the maximum of what counts, else 0"""
    x, where, first = res
    place = np.arange(math.prod(x.shape[1:-1]))[None, :, None]
    dx = jnp.where(place == first, dy[:, None], jnp.zeros((), dy.dtype)).reshape(x.shape)
    return dx if where is None else jnp.where(where, dx, 0), None


@rule(
    _global_max_pool_forward,
    _global_max_pool_backward,
    cases=cases.GLOBAL_MAX_POOL,
    check=places,
)
def global_max_pool(x: Array, where: Array | None = None) -> Array:
    """The largest over all spatial axes, channel by channel; the first of equals gets the gradient.

    Args:
        x: `(batch, *spatial, channels)`.
        where: Booleans that broadcast to x: what counts; 0 where nothing does. None for all.

    Returns:
        `(batch, channels)`, in the dtype of x.

    Raises:
        ValueError: If x has no spatial axis, or an empty one, or `where` does not broadcast to it.
        TypeError: If `where` is not boolean.

    >>> global_max_pool(jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
    [[6.0, 7.0]]

    Reference: Oquab et al., "Is Object Localization for Free?", 2015, section 3.2.
    """
    whole = [Axis(size, size, 1, 1, 0, 0) for size in x.shape[1:-1]]
    y = _largest(_where_counted(x, where), whole).reshape(x.shape[0], x.shape[-1])
    return y if where is None else jnp.where(_some(x, where), y, 0)


def _counted_places(x: Array, where: Array | None) -> Array | int:
    """How many places count, 1 if none does, of each image and channel if not of all alike."""
    if where is None:
        return math.prod(x.shape[1:-1])
    return jnp.maximum(sum_over(_mask(x, where).astype(x.dtype), range(1, x.ndim - 1)), 1)


def _global_avg_pool_forward(x, where):
    counted = x if where is None else jnp.where(where, x, 0)
    return sum_over(counted, range(1, x.ndim - 1)) / _counted_places(x, where), (x, where)


def _global_avg_pool_backward(res, dy):
    """dx[n, i, c] = dy[n, c] / number of places that count, at those"""
    x, where = res
    count = _counted_places(x.astype(dy.dtype), where)
    dx = jnp.broadcast_to(jnp.expand_dims(dy / count, range(1, x.ndim - 1)), x.shape)
    return dx if where is None else jnp.where(where, dx, 0), None


@rule(
    _global_avg_pool_forward,
    _global_avg_pool_backward,
    cases=cases.GLOBAL_AVG_POOL,
    check=floats_at_places,
    wide=True,
    fast=True,
)
def global_avg_pool(x: Array, where: Array | None = None) -> Array:
    """The mean over all spatial axes, channel by channel.

    Args:
        x: `(batch, *spatial, channels)`, floating.
        where: Booleans that broadcast to x: what counts; 0 where nothing does. None for all.

    Returns:
        `(batch, channels)`, in the dtype of x; 16-bit dtypes are computed in float32 and rounded
        once.

    Raises:
        ValueError: If x has no spatial axis, or an empty one, or `where` does not broadcast to it.
        TypeError: If x is not floating, or `where` not boolean.

    >>> global_avg_pool(jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
    [[3.0, 4.0]]
    >>> padded = jnp.array([[1.0, 3.0, 0.0]])[..., None]
    >>> global_avg_pool(padded, jnp.array([True, True, False])[:, None]).tolist()
    [[2.0]]

    Reference: Lin, Chen & Yan, "Network In Network", 2013, section 3.2.
    """
    places = range(1, x.ndim - 1)
    if where is None:
        return x.mean(places)
    count = jnp.broadcast_to(where, x.shape).sum(places)
    return jnp.where(where, x, 0).sum(places) / jnp.maximum(count, 1)
