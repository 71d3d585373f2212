"""Sums of windows, and the adjoints of pooling.

A window is a box, so pooling over it is pooling along its axes, one after the other. That is how
the CPU does it, forward and backward: with one slice of the input for each tap along an axis.
Other platforms have windowed sums of their own.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ...types import Array
from ..shared import windows
from ..shared.windows import Axis

Placed: TypeAlias = Sequence[Axis]

MOST_PLACES, CHANNELS = 16, 16
"""Windows side by side, of up to so many numbers and so many channels or more, go in one step."""


def window_sums(x: Array, placed: Placed) -> Array:
    """The sum of each window."""
    return jax.lax.platform_dependent(
        x,
        cpu=lambda x: _stages(x, placed, jnp.add, 0.0)[-1],
        default=lambda x: windows.reduce(x, placed, 0.0, jax.lax.add),
    )


def spread(dy: Array, placed: Placed) -> Array:
    """The adjoint of `window_sums`: for each input, the sum over the windows that it belongs to."""
    return jax.lax.platform_dependent(
        dy,
        cpu=lambda dy: _spread_along_each(dy, placed),
        default=lambda dy: _spread_at_once(dy, placed),
    )


def max_unpool(x: Array, dy: Array, placed: Placed) -> Array:
    """The adjoint of the maximum: each window's dy goes to the first of its largest numbers."""
    if any(a.dilation > 1 for a in placed):  # XLA's scatter takes no such windows
        return _give_to_first(x, dy, placed)
    return jax.lax.platform_dependent(
        x,
        dy,
        cpu=lambda x, dy: _give_to_first(x, dy, placed),
        default=lambda x, dy: _scatter(x, dy, placed),
    )


def _stages(
    x: Array, placed: Placed, combine: Callable[[Array, Array], Array], fill: float
) -> list[Array]:
    """`x`, then `x` pooled along its last spatial axis, along that and the last but one, ..."""
    stages = [x]
    for dimension in range(len(placed), 0, -1):
        seen = windows.taps(stages[-1], placed[dimension - 1], dimension, fill)
        stages.append(functools.reduce(combine, seen))
    return stages


def _spread_along_each(dy: Array, placed: Placed) -> Array:
    for dimension, axis in enumerate(placed, 1):
        dy = windows.untap([dy] * axis.window, axis, dimension)
    return dy


def _spread_at_once(dy: Array, placed: Placed) -> Array:
    """Windowed sums of dy, padded and with gaps for the stride."""
    config = [(a.reach - 1 - a.low, a.size + a.low - a.span, a.stride - 1) for a in placed]
    wide = jax.lax.pad(dy, np.asarray(0, dy.dtype), [(0, 0, 0), *config, (0, 0, 0)])
    sizes = zip(wide.shape[1:-1], placed, strict=True)
    steps = [Axis(n, a.window, 1, a.dilation, 0, 0) for n, a in sizes]
    return windows.reduce(wide, steps, 0.0, jax.lax.add)


def _give_along(x: Array, y: Array, dy: Array, axis: Axis, dimension: int) -> Array:
    """The adjoint of the maximum along one axis: dy where x first equals y, window by window."""
    free, parts = jnp.ones(y.shape, bool), []
    for seen in windows.taps(x, axis, dimension, windows.lowest(x)):
        # A NaN is the maximum of its window, and equals nothing.
        hit = ((seen == y) | jnp.isnan(seen)) & free
        free &= ~hit
        parts.append(jnp.where(hit, dy, jnp.zeros((), dy.dtype)))
    return windows.untap(parts, axis, dimension)


def _give_in_tiles(x: Array, dy: Array, placed: Placed) -> Array:
    """The same for windows side by side, each of which tells the place of its first maximum."""
    kernel = [a.window for a in placed]
    tiles = x.reshape(len(x), *(n for a in placed for n in (a.windows, a.window)), x.shape[-1])
    seen = [
        tiles[(slice(None), *(n for tap in taps for n in (slice(None), tap)))]
        for taps in np.ndindex(*kernel)
    ]
    largest = functools.reduce(jnp.maximum, seen)
    first = jnp.zeros(largest.shape, jnp.int8)
    for place in reversed(range(len(seen))):
        hit = (seen[place] == largest) | jnp.isnan(seen[place])
        first = jnp.where(hit, jnp.int8(place), first)
    within = range(2, 2 * len(placed) + 1, 2)
    places = np.arange(len(seen), dtype=np.int8).reshape(1, *(n for w in kernel for n in (1, w)), 1)
    here = jnp.expand_dims(jax.lax.optimization_barrier(first), within) == places
    return jnp.where(here, jnp.expand_dims(dy, within), 0).reshape(x.shape)


def _give_to_first(x: Array, dy: Array, placed: Placed) -> Array:
    """The adjoint by whole images, for the CPU: in one step, or along one axis after the other."""
    whole = all(a.tiles and a.windows * a.window == a.size for a in placed)
    few = math.prod(a.window for a in placed) <= MOST_PLACES
    if whole and few and x.shape[-1] >= CHANNELS:
        return _give_in_tiles(x, dy, placed)
    stages = _stages(x, placed, jnp.maximum, windows.lowest(x))
    for dimension, axis in enumerate(placed, 1):
        y = stages.pop()
        dy = _give_along(stages[-1], y, dy, axis, dimension)
    return dy


def _scatter(x: Array, dy: Array, placed: Placed) -> Array:
    """The adjoint as XLA has it."""
    return jax.lax.select_and_scatter_add_p.bind(
        dy,
        x.astype(dy.dtype),
        select_prim=jax.lax.ge_p,
        window_dimensions=(1, *(a.window for a in placed), 1),
        window_strides=(1, *(a.stride for a in placed), 1),
        padding=((0, 0), *((a.low, a.high) for a in placed), (0, 0)),
    )
