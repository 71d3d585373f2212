"""Pooling: the largest or the mean of each window, channel by channel.

A window is a box, so pooling over it is pooling along its axes, one after the other. That is how
the CPU does it here, forward and backward: with one slice of the input for each tap along an axis.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.random import Generator

from ...rules.rule import Case, normal_case, rule
from ...types import Array, require
from ..fast import pool as unpool
from ..fast.rows import sum_over
from ..shared import windows
from ..shared.precision import floating, wide, widened
from ..shared.windows import Axis, Padding


def _placed(
    where: str,
    x: Array,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
) -> tuple[Axis, ...]:
    spatial = len(window) if isinstance(window, Sequence) else max(jnp.ndim(x) - 2, 1)
    names = windows.SPATIAL.get(spatial, ("*spatial",))
    require(
        jnp.ndim(x) == spatial + 2,
        where,
        f"x of rank {spatial + 2} ({', '.join(('batch', *names, 'channel'))})",
        f"shape {jnp.shape(x)}",
        "Batch comes first and channels last; a window has one length for each axis between.",
    )
    lengths = windows.per_axis(where, "window", window, spatial)
    step = lengths if stride is None else stride
    placed = windows.axes(where, x.shape[1:-1], lengths, stride=step, padding=padding)
    require(
        all(max(a.low, a.high) < a.window for a in placed),
        where,
        f"padding smaller than the window {lengths}",
        repr(padding),
        "A window that holds nothing but padding has no value.",
    )
    return placed


def _check_images(where: str, x: Array) -> None:
    require(
        jnp.ndim(x) >= 3 and 0 not in x.shape[1:-1],
        where,
        "x of rank 3 or more (batch, *spatial, channel) with something to pool",
        f"shape {jnp.shape(x)}",
        "Batch comes first and channels last.",
    )


def _max_pool_forward(
    x: Array,
    *,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
) -> tuple[Array, Array]:
    placed = _placed("max_pool", x, window, stride, padding)
    # Not by slices: jnp.maximum shares the gradient among ties, which grad of grad would see.
    return windows.reduce(x, placed, unpool.lowest(x), jax.lax.max), x


def _max_pool_backward(
    res: Array,
    dy: Array,
    *,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
) -> tuple[Array]:
    """dx[i] = Σ dy[j] over the windows j whose first largest element is x[i]"""
    placed = _placed("max_pool", res, window, stride, padding)
    numbers = widened(dy)
    dx = jax.lax.platform_dependent(
        res,
        numbers,
        cpu=lambda x, dy: unpool.give_to_first(x, dy, placed),
        default=lambda x, dy: unpool.scatter(x, dy, placed),
    )
    return (dx,)


def _ties(*shape: int, **static: object) -> Case:
    """Small whole numbers, so that most windows hold their maximum more than once."""

    def make(random: Generator) -> tuple:
        return (random.integers(0, 3, shape).astype(float),)

    return Case(make, static)


@rule(
    _max_pool_forward,
    _max_pool_backward,
    cases={
        "two axes": normal_case((2, 6, 4, 3), window=2),
        "one axis": normal_case((2, 9, 3), window=3),
        "three axes": normal_case((2, 4, 4, 6, 3), window=(2, 2, 3)),
        "a rest": normal_case((2, 7, 5, 3), window=2),
        "overlapping": normal_case((2, 7, 9, 3), window=3, stride=2),
        "gaps": normal_case((2, 8, 9, 3), window=2, stride=3),
        "padding": normal_case((2, 7, 6, 3), window=3, stride=2, padding=((1, 2), (2, 0))),
        "same": normal_case((2, 7, 6, 3), window=(3, 2), stride=(2, 1), padding="SAME"),
        "causal": normal_case((2, 7, 3), window=3, stride=1, padding="CAUSAL"),
        "ties": _ties(2, 6, 4, 3, window=2),
        "overlapping ties": _ties(2, 7, 9, 3, window=3, stride=2, padding="SAME"),
        "no images": normal_case((0, 6, 4, 3), window=2),
    },
)
def max_pool(
    x: Array,
    *,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
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
    placed = _placed("max_pool", x, window, stride, padding)
    return windows.reduce(x, placed, unpool.lowest(x), jax.lax.max)


def _counts(placed: Sequence[Axis], include_pad: bool, dtype: jnp.dtype) -> np.ndarray:
    """By how many numbers the sum of each window is divided, of shape (1, *windows, 1)."""
    total = np.ones((1,) * (len(placed) + 2))
    for dimension, a in enumerate(placed, 1):
        starts = np.arange(a.windows) * a.stride - a.low
        real = np.minimum(starts + a.window, a.size) - np.maximum(starts, 0)
        along = np.full(a.windows, a.window) if include_pad else real
        others = [d for d in range(total.ndim) if d != dimension]
        total = total * np.expand_dims(along, others)
    return total.astype(dtype)


def _avg_pool_forward(
    x: Array,
    *,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
    count_include_pad: bool,
) -> tuple[Array, Array]:
    placed = _placed("avg_pool", x, window, stride, padding)
    floating("avg_pool", x)
    numbers = widened(x)
    total = jax.lax.platform_dependent(
        numbers,
        cpu=lambda x: windows.along_each(x, placed, jnp.add, 0.0)[-1],
        default=lambda x: windows.reduce(x, placed, 0.0, jax.lax.add),
    )
    return (total / _counts(placed, count_include_pad, numbers.dtype)).astype(x.dtype), jnp.asarray(
        x
    )


def _avg_pool_backward(
    res: Array,
    dy: Array,
    *,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
    count_include_pad: bool,
) -> tuple[Array]:
    """dx[i] = Σ dy[j] / count[j] over the windows j that hold i"""
    placed = _placed("avg_pool", res, window, stride, padding)
    dtype = wide(dy)
    shares = dy.astype(dtype) / _counts(placed, count_include_pad, dtype)
    dx = jax.lax.platform_dependent(
        shares,
        cpu=lambda dy: windows.spread(dy, placed),
        default=lambda dy: windows.spread_at_once(dy, placed),
    )
    return (dx,)


@rule(
    _avg_pool_forward,
    _avg_pool_backward,
    fast=True,
    cases={
        "two axes": normal_case((2, 6, 4, 3), window=2),
        "one axis": normal_case((2, 9, 3), window=3),
        "three axes": normal_case((2, 4, 4, 6, 3), window=(2, 2, 3)),
        "a rest": normal_case((2, 7, 5, 3), window=2),
        "overlapping": normal_case((2, 7, 9, 3), window=3, stride=2),
        "gaps": normal_case((2, 8, 9, 3), window=2, stride=3),
        "padding": normal_case((2, 7, 6, 3), window=3, stride=2, padding=((1, 2), (2, 0))),
        "padding counted": normal_case(
            (2, 7, 6, 3), window=3, stride=2, padding="SAME", count_include_pad=True
        ),
        "causal": normal_case((2, 7, 3), window=3, stride=1, padding="CAUSAL"),
        "no images": normal_case((0, 6, 4, 3), window=2),
    },
)
def avg_pool(
    x: Array,
    *,
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
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
        `(batch, *windows, channels)`, in the dtype of x.

    Raises:
        ValueError: If the window, stride or padding does not fit x.
        TypeError: If x is not floating.

    >>> avg_pool(jnp.arange(16.0).reshape(1, 4, 4, 1), window=2).ravel().tolist()
    [2.5, 4.5, 10.5, 12.5]

    Reference: LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998,
    section II.
    """
    placed = _placed("avg_pool", x, window, stride, padding)
    floating("avg_pool", x)
    numbers = widened(x)
    total = windows.reduce(numbers, placed, 0.0, jax.lax.add)
    if count_include_pad:
        return (total / np.prod([a.window for a in placed]).astype(numbers.dtype)).astype(x.dtype)
    held = windows.reduce(jnp.ones((1, *x.shape[1:-1], 1), numbers.dtype), placed, 0.0, jax.lax.add)
    return (total / held).astype(x.dtype)


def _global_max_pool_forward(x: Array) -> tuple[Array, tuple]:
    _check_images("global_max_pool", x)
    flat = x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
    first = jnp.argmax(flat, 1, keepdims=True)
    return jnp.take_along_axis(flat, first, 1)[:, 0], (x, first)


def _global_max_pool_backward(res: tuple, dy: Array) -> tuple[Array]:
    """dx[n, i, c] = dy[n, c] where i is the first place of the maximum, else 0"""
    x, first = res
    places = np.arange(math.prod(x.shape[1:-1]))[None, :, None]
    dx = jnp.where(places == first, dy[:, None], jnp.zeros((), dy.dtype))
    return (dx.reshape(x.shape),)


@rule(
    _global_max_pool_forward,
    _global_max_pool_backward,
    cases={
        "two axes": normal_case((2, 3, 4, 3)),
        "one axis": normal_case((2, 5, 3)),
        "three axes": normal_case((2, 2, 3, 2, 3)),
        "ties": _ties(2, 3, 4, 3),
        "no images": normal_case((0, 3, 4, 3)),
    },
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
    _check_images("global_max_pool", x)
    whole = [Axis(size, size, 1, 1, 0, 0) for size in x.shape[1:-1]]
    return windows.reduce(x, whole, unpool.lowest(x), jax.lax.max).reshape(x.shape[0], x.shape[-1])


def _place_mean(x: Array) -> Array:
    _check_images("global_avg_pool", x)
    floating("global_avg_pool", x)
    mean = sum_over(widened(x), range(1, x.ndim - 1)) / math.prod(x.shape[1:-1])
    return mean.astype(x.dtype)


def _global_avg_pool_forward(x: Array) -> tuple[Array, Array]:
    return _place_mean(x), x


def _global_avg_pool_backward(res: Array, dy: Array) -> tuple[Array]:
    """dx[n, i, c] = dy[n, c] / number of places"""
    spatial = tuple(range(1, res.ndim - 1))
    share = dy / np.asarray(math.prod(res.shape[1:-1]), dy.dtype)
    return (jnp.broadcast_to(jnp.expand_dims(share, spatial), res.shape),)


@rule(
    _global_avg_pool_forward,
    _global_avg_pool_backward,
    cases={
        "two axes": normal_case((2, 3, 4, 3)),
        "one axis": normal_case((2, 5, 3)),
        "three axes": normal_case((2, 2, 3, 2, 3)),
        "no images": normal_case((0, 3, 4, 3)),
    },
)
def global_avg_pool(x: Array) -> Array:
    """The mean over all spatial axes, channel by channel.

    Args:
        x: `(batch, *spatial, channels)`, floating.

    Returns:
        `(batch, channels)`, in the dtype of x.

    Raises:
        ValueError: If x has no spatial axis, or an empty one.
        TypeError: If x is not floating.

    >>> global_avg_pool(jnp.arange(8.0).reshape(1, 2, 2, 2)).tolist()
    [[3.0, 4.0]]

    Reference: Lin, Chen & Yan, "Network In Network", 2013, section 3.2.
    """
    return _place_mean(x)
