"""Where the windows of a convolution or a pool lie: stride, dilation and padding of each axis."""

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ...types import Array, require

Padding: TypeAlias = int | str | Sequence[int | Sequence[int]]
"""An int, a word, or for each spatial axis an int or a pair (low, high)."""

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
    def windows(self) -> int:
        """Number of windows: the length of the output."""
        return (self.low + self.size + self.high - self.reach) // self.stride + 1

    @property
    def span(self) -> int:
        """Length from the first window's start to the last one's."""
        return (self.windows - 1) * self.stride + 1

    @property
    def tiles(self) -> bool:
        """Whether each input belongs to at most one window, with neither gap nor padding."""
        return self.window == self.stride and not (self.low or self.high) and self.dilation == 1


def axes(
    where: str,
    sizes: Sequence[int],
    window: Sequence[int],
    *,
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int] = 1,
) -> tuple[Axis, ...]:
    """The windows along each spatial axis.

    Args:
        where: The op, for the messages.
        sizes: Lengths of the spatial axes.
        window: Length of the window on each.
        stride: One for all axes, or one for each.
        padding: See `Padding`; the words are `WORDS`.
        dilation: One for all axes, or one for each.

    Raises:
        ValueError: If a number does not fit, or a window is larger than the padded input.

    >>> [(a.low, a.high, a.windows) for a in axes("conv", (5,), (3,), stride=2, padding="SAME")]
    [(1, 1, 3)]
    """
    strides = per_axis(where, "stride", stride, len(sizes))
    dilations = per_axis(where, "dilation", dilation, len(sizes))
    geometry = list(zip(sizes, window, strides, dilations, strict=True))
    pads = _pads(where, padding, geometry)
    placed = tuple(Axis(*row, *pair) for row, pair in zip(geometry, pads, strict=True))
    for axis in placed:
        padded = axis.low + axis.size + axis.high
        require(
            axis.reach <= padded,
            where,
            f"windows no larger than the padded input {[a.low + a.size + a.high for a in placed]}",
            f"windows that reach over {[a.reach for a in placed]}",
            'Use a smaller window, a larger input, or padding="SAME".',
        )
    return placed


def per_axis(where: str, what: str, value: int | Sequence[int], count: int) -> tuple[int, ...]:
    """A number for each of `count` axes, from one for all or one for each.

    Raises:
        ValueError: If there is another number of them, or one is below 1.
    """
    numbers = _whole(value)
    if numbers is not None and not isinstance(value, Sequence):
        numbers *= count
    require(
        numbers is not None and len(numbers) == count and all(n >= 1 for n in numbers),
        where,
        f"a {what} of 1 or more: one whole number, or one for each spatial axis",
        repr(value),
        f"Write {what}=2, or {what}={(2,) * count}.",
    )
    assert numbers is not None
    return numbers


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
    )


def along_each(
    x: Array, placed: Sequence[Axis], combine: Callable[[Array, Array], Array], fill: float
) -> list[Array]:
    """`x`, then `x` pooled along its last spatial axis, along that and the last but one, ..."""
    stages = [x]
    for dimension in range(len(placed), 0, -1):
        seen = taps(stages[-1], placed[dimension - 1], dimension, fill)
        stages.append(functools.reduce(combine, seen))
    return stages


def spread(dy: Array, placed: Sequence[Axis]) -> Array:
    """The adjoint of the sum over each window, axis by axis."""
    for dimension, axis in enumerate(placed, 1):
        dy = untap([dy] * axis.window, axis, dimension)
    return dy


def spread_at_once(dy: Array, placed: Sequence[Axis]) -> Array:
    """The same as windowed sums: for each input, of the windows that it belongs to."""
    config = [(a.window - 1 - a.low, a.size + a.low - a.span, a.stride - 1) for a in placed]
    wide = jax.lax.pad(dy, np.asarray(0, dy.dtype), [(0, 0, 0), *config, (0, 0, 0)])
    steps = [Axis(n, a.window, 1, 1, 0, 0) for n, a in zip(wide.shape[1:-1], placed, strict=True)]
    return reduce(wide, steps, 0.0, jax.lax.add)


def _fit(
    x: Array, dimension: int, before: int, after: int, between: int = 0, fill: float = 0.0
) -> Array:
    """`x` padded along one dimension, or cut where a number is negative."""
    if not (before or after or between):
        return x
    config = [(0, 0, 0)] * x.ndim
    config[dimension] = (before, after, between)
    return jax.lax.pad(x, np.asarray(fill, x.dtype), config)


def _pads(where: str, padding: Padding, geometry: list[tuple]) -> list[tuple[int, int]]:
    if isinstance(padding, str):
        require(
            padding in WORDS,
            where,
            f"padding among {', '.join(WORDS)}, or numbers",
            repr(padding),
            "Words are in capitals; numbers are an int, or a pair (low, high) for each axis.",
        )
        require(
            padding != "CAUSAL" or len(geometry) == 1,
            where,
            "one spatial axis for CAUSAL padding",
            f"{len(geometry)} of them",
            "Pad by hand the axis that is time: padding=((k - 1, 0), (0, 0)).",
        )
        return [_word(padding, *row) for row in geometry]
    entries = padding if isinstance(padding, Sequence) else (padding,) * len(geometry)
    pairs = [_pair(entry) for entry in entries]
    require(
        len(pairs) == len(geometry) and all(pair and min(pair) >= 0 for pair in pairs),
        where,
        "padding of 0 or more: one whole number, or for each spatial axis a number or a pair "
        "(low, high)",
        repr(padding),
        f"Write padding=1, or padding={((1, 1),) * len(geometry)}.",
    )
    return [pair for pair in pairs if pair]


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


def _pair(entry: int | Sequence[int]) -> tuple[int, int] | None:
    numbers = _whole(entry)
    if numbers is None or len(numbers) > 2 or not numbers:
        return None
    if isinstance(entry, Sequence) and len(numbers) == 1:
        return None
    return numbers[0], numbers[-1]


def _whole(value: Any) -> tuple[int, ...] | None:
    """The whole numbers in `value`, a number or a sequence of them; None if it holds others."""
    try:
        return tuple(operator.index(n) for n in (value if isinstance(value, Sequence) else [value]))
    except TypeError:
        return None
