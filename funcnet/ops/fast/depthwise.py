"""Depthwise convolution on the CPU: every channel has a kernel of its own, so nothing is a product
of matrices, and all three maps are multiply-adds of whole images, one for each tap of the kernel.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ...rules.passes import widened
from ...types import Array
from ..shared import windows
from ..shared.varying import zeros_of
from ..shared.windows import Axis

FOLDS, LARGE = 16, 2**15
"""An image of so many numbers is summed up in so many parts."""


def _around(x: Array, config: Sequence[tuple[int, int, int]]) -> Array:
    """`x` padded along its spatial axes, once: else each tap asks again where the image ends."""
    padded = jax.lax.pad(x, np.asarray(0, x.dtype), [(0, 0, 0), *config, (0, 0, 0)])
    return jax.lax.optimization_barrier(padded)


def _padded(x: Array, placed: Sequence[Axis]) -> tuple[Array, list[Axis]]:
    """`x` with its padding put on, and the windows on that."""
    inside = [a._replace(size=a.low + a.size + a.high, low=0, high=0) for a in placed]
    return _around(x, [(a.low, a.high, 0) for a in placed]), inside


def _views(x: Array, placed: Sequence[Axis]) -> list[Array]:
    """What all windows see at each tap, the taps in the order of the kernel."""
    views = [x]
    for dimension, axis in enumerate(placed, x.ndim - 1 - len(placed)):
        views = [seen for view in views for seen in windows.taps(view, axis, dimension)]
    return views


def slide(x: Array, w: Array, placed: Sequence[Axis]) -> Array:
    """y[n, i, c] = Σ_t x[n, stride i + dilation t - low, c] w[t, c]"""
    around, inside = _padded(_spread_channels(widened(x), w), placed)
    return _sum(_views(around, inside), widened(w).reshape(-1, w.shape[-1]))


def slide_back(w: Array, dy: Array, placed: Sequence[Axis], channels: int) -> Array:
    """dx[n, i, c] = Σ_t dy[n, (i + low - dilation t) / stride, c] w[t, c], where it divides"""
    before = [a.reach - 1 - a.low for a in placed]
    after = [a.size - 1 + a.low - (a.span - 1) for a in placed]
    between = [a.stride - 1 for a in placed]
    around = _around(widened(dy), list(zip(before, after, between, strict=True)))
    sizes = around.shape[1:-1]
    inside = [Axis(n, a.window, 1, a.dilation, 0, 0) for n, a in zip(sizes, placed, strict=True)]
    turned = widened(w).reshape(-1, w.shape[-1])[::-1]
    return _join_channels(_sum(_views(around, inside), turned), channels)


def _sum(views: list[Array], taps: Array) -> Array:
    parts = (view * tap for view, tap in zip(views, taps, strict=True))
    return sum(parts, start=jnp.zeros((), taps.dtype))


def slide_weights(x: Array, dy: Array, placed: Sequence[Axis]) -> Array:
    """dw[t, c] = Σ_{n, i} x[n, stride i + dilation t - low, c] dy[n, i, c], image after image."""
    around, inside = _padded(_spread_channels(widened(x), dy), placed)
    kernel = [a.window for a in placed]
    rows = _rows_left(dy)
    blank = jax.ShapeDtypeStruct((math.prod(kernel), *rows, *dy.shape[2:]), around.dtype)
    start = zeros_of(blank, around, dy)

    def add(totals: list[Array], image: tuple[Array, Array]) -> tuple[list[Array], None]:
        seen, dz = image
        pairs = zip(totals, _views(seen, inside), strict=True)
        return [total + _added(view, dz, *rows) for total, view in pairs], None

    totals, _ = jax.lax.scan(add, list(start), (around, widened(dy)))
    along = tuple(range(start.ndim - 2))
    dw = jnp.stack([t.sum(along) for t in totals])
    return dw.reshape(*kernel, 1, dy.shape[-1]).astype(x.dtype)


def _rows_left(dy: Array) -> tuple[int, ...]:
    """Of a large image's rows, how many are left when as many parts of it as FOLDS are added up."""
    parts = math.gcd(dy.shape[1], FOLDS) if math.prod(dy.shape[1:]) >= LARGE else 1
    return (dy.shape[1] // parts,) if parts > 1 else ()


def _added(view: Array, dz: Array, left: int | None = None) -> Array:
    """Σ view dz over rows: all of them, or part upon part, which goes many numbers at a time."""
    if left is None:
        return (view * dz).sum(0)
    parts = (slice(first, first + left) for first in range(0, len(dz), left))
    return functools.reduce(jnp.add, (view[part] * dz[part] for part in parts))


def _spread_channels(x: Array, like: Array) -> Array:
    """Each channel as often as it has outputs."""
    times = like.shape[-1] // x.shape[-1]
    return x if times == 1 else jnp.repeat(x, times, -1)


def _join_channels(dx: Array, channels: int) -> Array:
    """The adjoint of `_spread_channels`."""
    if dx.shape[-1] == channels:
        return dx
    return dx.reshape(*dx.shape[:-1], channels, dx.shape[-1] // channels).sum(-1)
