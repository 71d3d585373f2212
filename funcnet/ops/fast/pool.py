"""The adjoint of max-pooling: each window's cotangent goes to the first of its largest numbers."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from ...types import Array
from ..shared import windows
from ..shared.windows import Axis

MOST_PLACES, CHANNELS = 16, 16
"""Windows side by side, of up to so many numbers and so many channels or more, go in one step."""


def lowest(x: Array) -> float:
    """What never wins: the least value of the dtype."""
    return -np.inf if jnp.issubdtype(x.dtype, jnp.floating) else int(jnp.iinfo(x.dtype).min)


def _give_along(x: Array, y: Array, dy: Array, axis: Axis, dimension: int) -> Array:
    """The adjoint of the maximum along one axis: dy where x first equals y, window by window."""
    free, parts = jnp.ones(y.shape, bool), []
    for seen in windows.taps(x, axis, dimension, lowest(x)):
        # A NaN is the maximum of its window, and equals nothing.
        hit = ((seen == y) | jnp.isnan(seen)) & free
        free &= ~hit
        parts.append(jnp.where(hit, dy, jnp.zeros((), dy.dtype)))
    return windows.untap(parts, axis, dimension)


def _give_in_tiles(x: Array, dy: Array, placed: tuple[Axis, ...]) -> Array:
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


def give_to_first(x: Array, dy: Array, placed: tuple[Axis, ...]) -> Array:
    """The adjoint by whole images, for the CPU: in one step, or along one axis after the other."""
    whole = all(a.tiles and a.windows * a.window == a.size for a in placed)
    few = math.prod(a.window for a in placed) <= MOST_PLACES
    if whole and few and x.shape[-1] >= CHANNELS:
        return _give_in_tiles(x, dy, placed)
    stages = windows.along_each(x, placed, jnp.maximum, lowest(x))
    for dimension, axis in enumerate(placed, 1):
        y = stages.pop()
        dy = _give_along(stages[-1], y, dy, axis, dimension)
    return dy


def scatter(x: Array, dy: Array, placed: tuple[Axis, ...]) -> Array:
    """The adjoint as XLA has it."""
    return jax.lax.select_and_scatter_add_p.bind(
        dy,
        x.astype(dy.dtype),
        select_prim=jax.lax.ge_p,
        window_dimensions=(1, *(a.window for a in placed), 1),
        window_strides=(1, *(a.stride for a in placed), 1),
        padding=((0, 0), *((a.low, a.high) for a in placed), (0, 0)),
    )
