"""Where the windows of a convolution or a pool lie: stride, dilation and padding of each axis."""

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ...types import Array

Numbers: TypeAlias = int | Sequence[int]
"""One for all spatial axes, or one for each."""

Pairs: TypeAlias = int | Sequence[int | Sequence[int]]
"""A number for every side, or for each spatial axis a number or a pair (low, high)."""

Padding: TypeAlias = str | Pairs
"""A word among `WORDS`, or numbers."""

SPATIAL = {
    1: ("width",),
    2: ("height", "width"),
    3: ("depth", "height", "width"),
}
"""Names of the spatial axes, by their number."""

WORDS = ("VALID", "SAME", "SAME_LOWER", "CAUSAL")


class Axis(NamedTuple):
    """The windows along one spatial axis.

    Attributes:
        size: Length of the input.
        window: Number of taps of one window.
        stride: Distance of one window from the next.
        dilation: Distance of one tap from the next.
        low: Padding before the input.
        high: Padding after it.
    """

    size: int
    window: int
    stride: int
    dilation: int
    low: int
    high: int

    @property
    def reach(self) -> int:
        """Length from a window's first tap to its last."""
        return _reach(self.window, self.dilation)

    @property
    def padded(self) -> int:
        """Length of the input and its padding."""
        return self.low + self.size + self.high

    @property
    def windows(self) -> int:
        """Number of windows: the length of the output."""
        return (self.padded - self.reach) // self.stride + 1

    @property
    def span(self) -> int:
        """Length from the first window's start to the last one's."""
        return (self.windows - 1) * self.stride + 1

    @property
    def filled(self) -> np.ndarray:
        """How many taps of each window lie in the input."""
        starts = np.arange(self.windows) * self.stride - self.low
        places = starts[:, None] + np.arange(self.window) * self.dilation
        return ((places >= 0) & (places < self.size)).sum(1)

    @property
    def tiles(self) -> bool:
        """Whether each input belongs to at most one window, with neither gap nor padding."""
        return self.window == self.stride and not (self.low or self.high) and self.dilation == 1


def axes(
    sizes: Sequence[int],
    window: Sequence[int],
    *,
    stride: Numbers,
    padding: Padding,
    dilation: Numbers = 1,
) -> tuple[Axis, ...]:
    """The windows along each spatial axis.

    Args:
        sizes: Lengths of the spatial axes.
        window: Length of the window on each.
        stride: One for all axes, or one for each.
        padding: See `Padding`.
        dilation: One for all axes, or one for each.

    >>> [(a.low, a.high, a.windows) for a in axes((5,), (3,), stride=2, padding="SAME")]
    [(1, 1, 3)]
    """
    strides, dilations = per_axis(stride, len(sizes)), per_axis(dilation, len(sizes))
    geometry = list(zip(sizes, window, strides, dilations, strict=True))
    if isinstance(padding, str):
        pairs = [_word(padding, *row) for row in geometry]
    else:
        pairs = _pairs(padding, len(sizes))
    return tuple(Axis(*row, *pair) for row, pair in zip(geometry, pairs, strict=True))


def ceiled(axis: Axis) -> Axis:
    """The same with padding for one more window, where the last would leave something out.

    It starts in the input or in the padding before it, as PyTorch has it.

    >>> a = Axis(6, 3, 2, 1, 0, 0)
    >>> a.windows, ceiled(a).windows, ceiled(a).high
    (2, 3, 1)
    """
    more = axis.span - 1 + axis.stride
    needed = more + axis.reach - axis.padded
    left_out = 0 < needed < axis.stride and more < axis.low + axis.size
    return axis._replace(high=axis.high + needed) if left_out else axis


def adjoint_axes(
    sizes: Sequence[int],
    window: Sequence[int],
    *,
    stride: Numbers,
    padding: Pairs,
    output_padding: Numbers,
    dilation: Numbers,
) -> tuple[Axis, ...]:
    """The windows of the convolution that gives `sizes`, and of what it takes.

    >>> (a,) = adjoint_axes((3,), (3,), stride=2, padding=1, output_padding=1, dilation=1)
    >>> a.size, a.windows
    (6, 3)
    """
    given = (per_axis(numbers, len(sizes)) for numbers in (stride, dilation, output_padding))
    rows = zip(sizes, window, *given, _pairs(padding, len(sizes)), strict=True)
    return tuple(
        Axis((n - 1) * s + _reach(w, d) + more - low - high, w, s, d, low, high)
        for n, w, s, d, more, (low, high) in rows
    )


def per_axis(value: Numbers, count: int) -> tuple[int, ...]:
    """A number for each of `count` axes, from one for all or one for each.

    >>> per_axis(2, 3), per_axis((1, 2), 2)
    ((2, 2, 2), (1, 2))
    """
    return tuple(map(operator.index, value if isinstance(value, Sequence) else (value,) * count))


def taps(x: Array, axis: Axis, dimension: int, fill: float = 0.0) -> Iterator[Array]:
    """For each tap of the windows along one dimension of `x`: what all windows see there."""
    padded = _fit(x, dimension, axis.low, axis.high, fill=fill)
    for tap in range(axis.window):
        start = tap * axis.dilation
        yield jax.lax.slice_in_dim(padded, start, start + axis.span, axis.stride, dimension)


def untap(parts: Sequence[Array], axis: Axis, dimension: int) -> Array:
    """The adjoint of `taps`: the sum of the parts, each put back to where it was seen."""
    if axis.tiles:
        tiled = jnp.stack(parts, dimension + 1)
        shape = list(parts[0].shape)
        shape[dimension] = axis.windows * axis.window
        return _fit(tiled.reshape(shape), dimension, 0, axis.size - shape[dimension])
    total = jnp.zeros((), parts[0].dtype)
    for tap, part in enumerate(parts):
        before = tap * axis.dilation - axis.low
        total += _fit(part, dimension, before, axis.size - before - axis.span, axis.stride - 1)
    return total


def reduce(x: Array, placed: Sequence[Axis], start: float, combine: Callable) -> Array:
    """Each window of `x`, `(batch, *spatial, channels)`, combined to one number from `start`."""
    return jax.lax.reduce_window(
        x,
        np.asarray(start, x.dtype),
        combine,
        (1, *(a.window for a in placed), 1),
        (1, *(a.stride for a in placed), 1),
        ((0, 0), *((a.low, a.high) for a in placed), (0, 0)),
        window_dilation=(1, *(a.dilation for a in placed), 1),
    )


def lowest(x: Array) -> float:
    """What never wins: the least value of the dtype."""
    return -np.inf if jnp.issubdtype(x.dtype, jnp.floating) else int(jnp.iinfo(x.dtype).min)


def _fit(
    x: Array, dimension: int, before: int, after: int, between: int = 0, fill: float = 0.0
) -> Array:
    """`x` padded along one dimension, or cut where a number is negative."""
    if not (before or after or between):
        return x
    config = [(0, 0, 0)] * x.ndim
    config[dimension] = (before, after, between)
    return jax.lax.pad(x, np.asarray(fill, x.dtype), config)


def _pairs(padding: Pairs, count: int) -> list[tuple[int, ...]]:
    entries = padding if isinstance(padding, Sequence) else (padding,) * count
    return [per_axis(entry, 2) for entry in entries]


def _word(word: str, size: int, window: int, stride: int, dilation: int) -> tuple[int, int]:
    reach = _reach(window, dilation)
    if word == "VALID":
        return 0, 0
    if word == "CAUSAL":
        return reach - 1, 0
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    small, large = total // 2, total - total // 2
    return (small, large) if word == "SAME" else (large, small)


def _reach(window: int, dilation: int) -> int:
    return (window - 1) * dilation + 1
