"""Pooling: the largest or the mean of each window, channel by channel."""

import math
from collections.abc import Sequence

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
from .checks import floats_at_places, floats_in_windows, in_windows, places


def _placed(
    x: Array, window: Numbers, stride: Numbers | None, padding: Padding
) -> tuple[Axis, ...]:
    lengths = windows.per_axis(window, x.ndim - 2)
    step = lengths if stride is None else stride
    return windows.axes(x.shape[1:-1], lengths, stride=step, padding=padding)


def _largest(x: Array, placed: Sequence[Axis]) -> Array:
    """The largest of each window; `jnp.maximum` of slices would share the gradient among ties."""
    return windows.reduce(x, placed, windows.lowest(x), jax.lax.max)


def _max_pool_forward(x, *, window, stride, padding):
    return _largest(x, _placed(x, window, stride, padding)), x


def _max_pool_backward(res, dy, *, window, stride, padding):
    """dx[i] = Σ dy[j] over the windows j whose first largest element is x[i]"""
    return (max_unpool(res, widened(dy), _placed(res, window, stride, padding)),)


@rule(_max_pool_forward, _max_pool_backward, cases=cases.MAX_POOL, check=in_windows)
def max_pool(
    x: Array,
    *,
    window: Numbers,
    stride: Numbers | None = None,
    padding: Padding = "VALID",
) -> Array:
    """The largest of each window, channel by channel.

    Where a window holds its maximum more than once, the first in row-major order gets the whole
    gradient, as in XLA and in PyTorch. A NaN counts as larger than any number.

    Args:
        x: `(batch, *spatial, channels)`.
        window: Length of the window, one for all spatial axes or one for each.
        stride: Distance between windows, likewise; None for the window itself.
        padding: As in `conv`; padding never wins.

    Returns:
        `(batch, *windows, channels)`, in the dtype of x.

    Raises:
        ValueError: If the window, stride or padding does not fit x.

    >>> max_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), window=2).ravel().tolist()
    [5.0, 7.0, 13.0, 15.0]

    Reference: Goodfellow, Bengio & Courville, "Deep Learning", 2016, section 9.3.
    """
    return _largest(x, _placed(x, window, stride, padding))


def _counts(placed: Sequence[Axis], include_pad: bool, dtype: jnp.dtype) -> np.ndarray:
    """By how many numbers the sum of each window is divided, of shape (1, *windows, 1)."""
    counts = np.ones(())
    for a in placed:
        starts = np.arange(a.windows) * a.stride - a.low
        real = np.minimum(starts + a.window, a.size) - np.maximum(starts, 0)
        counts = np.multiply.outer(counts, np.full_like(real, a.window) if include_pad else real)
    return counts[None, ..., None].astype(dtype)


def _avg_pool_forward(x, *, window, stride, padding, count_include_pad):
    placed = _placed(x, window, stride, padding)
    return window_sums(x, placed) / _counts(placed, count_include_pad, x.dtype), x


def _avg_pool_backward(res, dy, *, window, stride, padding, count_include_pad):
    """dx[i] = Σ dy[j] / count[j] over the windows j that hold i"""
    placed = _placed(res, window, stride, padding)
    return (spread(dy / _counts(placed, count_include_pad, dy.dtype), placed),)


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
    *,
    window: Numbers,
    stride: Numbers | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = False,
) -> Array:
    """The mean of each window, channel by channel.

    Args:
        x: `(batch, *spatial, channels)`, floating.
        window: Length of the window, one for all spatial axes or one for each.
        stride: Distance between windows, likewise; None for the window itself.
        padding: As in `conv`.
        count_include_pad: Whether the zeros of the padding count as elements of the mean, as they
            do by default in PyTorch.

    Returns:
        `(batch, *windows, channels)`, in the dtype of x; 16-bit dtypes are computed in float32 and
        rounded once.

    Raises:
        ValueError: If the window, stride or padding does not fit x.
        TypeError: If x is not floating.

    >>> avg_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), window=2).ravel().tolist()
    [2.5, 4.5, 10.5, 12.5]

    Reference: LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998,
    section II.
    """
    placed = _placed(x, window, stride, padding)
    total = windows.reduce(x, placed, 0.0, jax.lax.add)
    if count_include_pad:
        return total / math.prod(a.window for a in placed)
    ones = jnp.ones((1, *x.shape[1:-1], 1), x.dtype)
    return total / windows.reduce(ones, placed, 0.0, jax.lax.add)


def _global_max_pool_forward(x):
    flat = x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
    first = jnp.argmax(flat, 1, keepdims=True)
    return jnp.take_along_axis(flat, first, 1)[:, 0], (x, first)


def _global_max_pool_backward(res, dy):
    """dx[n, i, c] = dy[n, c] where i is the first place of the maximum, else 0"""
    x, first = res
    place = np.arange(math.prod(x.shape[1:-1]))[None, :, None]
    dx = jnp.where(place == first, dy[:, None], jnp.zeros((), dy.dtype))
    return (dx.reshape(x.shape),)


@rule(
    _global_max_pool_forward, _global_max_pool_backward, cases=cases.GLOBAL_MAX_POOL, check=places
)
def global_max_pool(x: Array) -> Array:
    """The largest over all spatial axes, channel by channel; the first of equals gets the gradient.

    Args:
        x: `(batch, *spatial, channels)`.

    Returns:
        `(batch, channels)`, in the dtype of x.

    Raises:
        ValueError: If x has no spatial axis, or an empty one.

    >>> global_max_pool(jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
    [[6.0, 7.0]]

    Reference: Oquab et al., "Is Object Localization for Free?", 2015, section 3.2.
    """
    whole = [Axis(size, size, 1, 1, 0, 0) for size in x.shape[1:-1]]
    return _largest(x, whole).reshape(x.shape[0], x.shape[-1])


def _global_avg_pool_forward(x):
    return sum_over(x, range(1, x.ndim - 1)) / math.prod(x.shape[1:-1]), x


def _global_avg_pool_backward(res, dy):
    """dx[n, i, c] = dy[n, c] / number of places"""
    share = jnp.expand_dims(dy / math.prod(res.shape[1:-1]), range(1, res.ndim - 1))
    return (jnp.broadcast_to(share, res.shape),)


@rule(
    _global_avg_pool_forward,
    _global_avg_pool_backward,
    cases=cases.GLOBAL_AVG_POOL,
    check=floats_at_places,
    wide=True,
    fast=True,
)
def global_avg_pool(x: Array) -> Array:
    """The mean over all spatial axes, channel by channel.

    Args:
        x: `(batch, *spatial, channels)`, floating.

    Returns:
        `(batch, channels)`, in the dtype of x; 16-bit dtypes are computed in float32 and rounded
        once.

    Raises:
        ValueError: If x has no spatial axis, or an empty one.
        TypeError: If x is not floating.

    >>> global_avg_pool(jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
    [[3.0, 4.0]]

    Reference: Lin, Chen & Yan, "Network In Network", 2013, section 3.2.
    """
    return x.mean(range(1, x.ndim - 1))
