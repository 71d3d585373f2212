"""Images read at points between their pixels, and the points of an affine map."""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from ...rules.rule import rule
from ...types import Array
from ..fast.rows import sum_over
from ..shared.windows import Numbers, per_axis
from . import cases
from .grid_checks import affine_maps, points_in_images

Mode: TypeAlias = Literal["nearest", "bilinear", "bicubic"]
Beyond: TypeAlias = Literal["zeros", "border", "reflection"]

A = -0.75
"""The slope of the cubic at distance 1, as PyTorch has it."""


class Tap(NamedTuple):
    """One of the pixels that each point reads along one axis.

    Attributes:
        place: Which; one beyond the image is -1 or the size.
        weight: What it counts.
        slope: The derivative of the weight with respect to the grid.
    """

    place: Array
    weight: Array
    slope: Array


def _line(d: Array) -> tuple[Array, Array]:
    return 1 - d, jnp.full_like(d, -1)


def _near(d: Array) -> tuple[Array, Array]:
    return ((A + 2) * d - (A + 3)) * d * d + 1, (3 * (A + 2) * d - 2 * (A + 3)) * d


def _far(d: Array) -> tuple[Array, Array]:
    return ((A * d - 5 * A) * d + 8 * A) * d - 4 * A, (3 * A * d - 10 * A) * d + 8 * A


KERNELS: dict[str, dict[int, Callable]] = {
    "bilinear": {0: _line, 1: _line},
    "bicubic": {-1: _far, 0: _near, 1: _near, 2: _far},
}
"""By mode, for each step from the pixel before a point: weight and slope at a distance."""


def _held(at: Array, low: float, high: float) -> tuple[Array, Array]:
    """A place held between two ends, and the slope of that, 0 at the ends and beyond."""
    within = (at > low) & (at < high)
    end = jax.lax.stop_gradient(at.clip(low, high))
    return jnp.where(within, at, end), within.astype(at.dtype)


def _into(at: Array, size: int, padding: Beyond, align_corners: bool) -> tuple[Array, Array]:
    """A place in pixels taken into the image, unless zeros are read beyond; and the slope of it."""
    if padding == "zeros":
        return at, jnp.ones_like(at)
    if padding == "border":
        return _held(at, 0, size - 1)
    low, span = (0.0, max(size - 1, 1)) if align_corners else (-0.5, size)
    turns = jnp.floor((at - low) / span)
    rest, forward = at - low - turns * span, turns % 2 == 0
    mirrored, slope = _held(low + jnp.where(forward, rest, span - rest), 0, size - 1)
    return mirrored, jnp.where(forward, slope, -slope)


def _pixel(place: Array, size: int) -> Array:
    """The pixel of a whole number; of NaN the first, whose weight is NaN but for "nearest"."""
    return jnp.nan_to_num(place).clip(-1, size).astype(jnp.int32)


def _taps(
    coordinate: Array, size: int, mode: Mode, padding: Beyond, align_corners: bool
) -> list[Tap]:
    """What each point reads along one axis."""
    scale, shift = ((size - 1) / 2, 0.0) if align_corners else (size / 2, 0.5)
    at = (coordinate + 1) * scale - shift
    if mode != "bicubic":
        at, steep = _into(at, size, padding, align_corners)
    elif padding == "border":
        at, steep = _held(at, -1, size)  # beyond, all four are the pixel at the border
    else:
        steep = jnp.ones_like(at)
    if mode == "nearest":
        return [Tap(_pixel(jnp.round(at), size), jnp.ones_like(at), jnp.zeros_like(at))]
    before = jnp.floor(at)
    fraction, taps = at - before, []
    for step, kernel in KERNELS[mode].items():
        sign = -1 if step > 0 else 1
        weight, slope = kernel(sign * (fraction - step))
        place = before + step
        if mode == "bicubic":
            place = jnp.round(_into(place, size, padding, align_corners)[0])
        taps.append(Tap(_pixel(place, size), weight, sign * scale * slope * steep))
    return taps


def _points(grid: Array) -> Array:
    """All points of an image in one row, (batch, points, axes)."""
    return grid.reshape(grid.shape[0], math.prod(grid.shape[1:-1]), grid.shape[-1])


def _along_axes(x: Array, grid: Array, mode: Mode, padding: Beyond, align_corners: bool) -> list:
    """The taps of each spatial axis of x; the grid has that of the last axis first."""
    coordinates = jnp.moveaxis(_points(grid), -1, 0)[::-1]
    return [
        _taps(coordinate, size, mode, padding, align_corners)
        for coordinate, size in zip(coordinates, x.shape[1:-1], strict=True)
    ]


def _pixel_of(corner: Sequence[Tap], sizes: Sequence[int]) -> tuple[Array, Array]:
    """Of one tap along each axis: the pixel in row-major order, and whether there is one."""
    place, inside = jnp.int32(0), jnp.bool_(True)
    for tap, size in zip(corner, sizes, strict=True):
        place = place * size + tap.place.clip(0, size - 1)
        inside &= (tap.place >= 0) & (tap.place < size)
    return place, inside[..., None]


def _weight(corner: Sequence[Tap], steep: int | None = None) -> Array:
    """The product of the weights, or with the slope in the place of that along one axis."""
    factors = (tap.slope if axis == steep else tap.weight for axis, tap in enumerate(corner))
    return functools.reduce(operator.mul, factors)[..., None]


def _seen(pixels: Array, place: Array, inside: Array) -> Array:
    return jnp.where(inside, jnp.take_along_axis(pixels, place[..., None], 1), 0)


def _grid_sample_forward(x, grid, *, mode, padding, align_corners):
    pixels, y = _points(x), jnp.zeros((), x.dtype)
    for corner in itertools.product(*_along_axes(x, grid, mode, padding, align_corners)):
        y += _weight(corner) * _seen(pixels, *_pixel_of(corner, x.shape[1:-1]))
    return y.reshape(*grid.shape[:-1], x.shape[-1]), (x, grid)


def _grid_sample_backward(res, dy, *, mode, padding, align_corners):
    """With y[p] = Σ w₁ w₂ ... x[i] over the pixels i that p reads, of weights wₐ along the axes:
    dx[i] = Σ w₁ w₂ ... dy[p] over the points p that read i;  dgridₐ[p] = Σ dy[p] Σ wₐ' w₂ ... x[i],
    with wₐ' in the place of wₐ, over channels and pixels
    """
    x, grid = res
    pixels, dy = _points(x), _points(dy)
    dx = jnp.zeros(pixels.shape, jnp.result_type(x, grid))
    images, slopes = np.arange(len(x))[:, None], [0.0] * (x.ndim - 2)
    for corner in itertools.product(*_along_axes(x, grid, mode, padding, align_corners)):
        place, inside = _pixel_of(corner, x.shape[1:-1])
        dx = dx.at[images, place].add(jnp.where(inside, _weight(corner) * dy, 0))
        if mode != "nearest":
            seen = _seen(pixels, place, inside)
            slopes = [slope + _weight(corner, axis) * seen for axis, slope in enumerate(slopes)]
    dgrid = jnp.stack([sum_over(dy * slope, -1) for slope in slopes[::-1]], -1)
    return dx.reshape(x.shape), dgrid.reshape(grid.shape)


@rule(
    _grid_sample_forward,
    _grid_sample_backward,
    cases=cases.GRID_SAMPLE,
    check=points_in_images,
    wide=True,
    recomputes=True,
    fast=True,
)
def grid_sample(
    x: Array,
    grid: Array,
    *,
    mode: Mode = "bilinear",
    padding: Beyond = "zeros",
    align_corners: bool = False,
) -> Array:
    """x read at the points of a grid, as PyTorch's function of this name does.

    A point is a place in the image from -1 to 1 along each axis. Its ends are the outer edges of
    the first and the last pixel, or with `align_corners` their centres.

    Args:
        x: `(batch, *spatial, channels)`, floating, with one to three spatial axes.
        grid: `(batch, *points, axes)`, floating, with any number of axes of points; the last has
            one number for each spatial axis of x, the last of these first: (x, y) or (x, y, z).
        mode: "nearest" takes the nearest pixel, of two the even one; "bilinear" goes on lines
            between the two pixels beside the point along each axis, "bicubic" on Keys's cubic, of
            a = −¾, through the four.
        padding: What is read beyond the image: "zeros"; "border", the nearest pixel; "reflection",
            the image in mirrors at its ends.
        align_corners: See above.

    Returns:
        `(batch, *points, channels)`, in the dtype of x; 16-bit dtypes are computed in float32 and
        rounded once. Of "nearest" the grid has gradient 0, as where it was taken into the image.

    Raises:
        TypeError: If x or the grid is not floating.
        ValueError: If the shapes, the mode or the padding do not fit.

    >>> x = jnp.array([1.0, 2.0, 4.0])[None, :, None]
    >>> grid = jnp.array([-1.0, -0.5, 0.0, 0.5, 1.0])[None, :, None]
    >>> grid_sample(x, grid, align_corners=True).ravel().tolist()
    [1.0, 1.5, 2.0, 3.0, 4.0]

    Reference: Jaderberg et al., "Spatial Transformer Networks", 2015, equations 3 to 7; Keys,
    "Cubic Convolution Interpolation for Digital Image Processing", 1981, equation 4.
    """
    matrices = [
        sum(jax.nn.one_hot(tap.place, size, dtype=x.dtype) * tap.weight[..., None] for tap in taps)
        for taps, size in zip(
            _along_axes(x, grid, mode, padding, align_corners), x.shape[1:-1], strict=True
        )
    ]
    axes = "ijk"[: len(matrices)]
    equation = f"{','.join(f'np{axis}' for axis in axes)},n{axes}c->npc"
    y = jnp.einsum(equation, *matrices, x, precision="highest")
    return y.reshape(*grid.shape[:-1], x.shape[-1])


def _lines(shape: Sequence[int], align_corners: bool) -> list[np.ndarray]:
    """The coordinates of the pixels along each axis, of the last first, to be broadcast."""
    lines = []
    for axis, size in reversed(list(enumerate(shape))):
        step = 2 / max(size - 1, 1) if align_corners else 2 / size
        line = (np.arange(size) - (size - 1) / 2) * step
        lines.append(line.reshape(-1, *(1 for _ in shape[axis:])))
    return lines


def _affine_grid_forward(theta, *, shape, align_corners):
    axes = theta.shape[1]
    factors = jnp.moveaxis(theta, -1, 0).reshape(axes + 1, len(theta), *(1,) * axes, axes)
    grid = jnp.broadcast_to(factors[-1], (len(theta), *per_axis(shape, axes), axes))
    for factor, line in zip(factors, _lines(per_axis(shape, axes), align_corners), strict=False):
        grid += factor * line.astype(theta.dtype)
    return grid, ()


def _affine_grid_backward(_, dy, *, align_corners):
    """With y[p] = Σ theta[:, c] p[c] + theta[:, axes]:  dtheta[:, c] = Σ dy[p] p[c], or Σ dy[p]"""
    spatial = range(1, dy.ndim - 1)
    lines = [line.astype(dy.dtype) for line in _lines(dy.shape[1:-1], align_corners)]
    return (jnp.stack([sum_over(dy * line, spatial) for line in [*lines, 1]], -1),)


@rule(
    _affine_grid_forward,
    _affine_grid_backward,
    cases=cases.AFFINE_GRID,
    check=affine_maps,
    wide=True,
    fast=True,
)
def affine_grid(theta: Array, *, shape: Numbers, align_corners: bool = False) -> Array:
    """For each pixel of an image, the point that an affine map takes it to: a `grid_sample` grid.

    Args:
        theta: Maps `(batch, axes, axes + 1)`, floating: row r is what coordinate r of a point is
            made of, the factors of the pixel's coordinates (x, y) or (x, y, z), then what is added.
        shape: The length of each spatial axis of the image, or one for all.
        align_corners: Whether -1 and 1 are the centres of the first and the last pixel, and not
            their outer edges; as in `grid_sample`.

    Returns:
        `(batch, *shape, axes)`, in the dtype of theta. 16-bit dtypes are computed in float32 and
        rounded once, but tell few pixels apart: keep theta in float32.

    Raises:
        TypeError: If theta is not floating.
        ValueError: If the shapes do not fit.

    >>> mirror = jnp.array([[[-1.0, 0.0]]])
    >>> affine_grid(mirror, shape=3, align_corners=True).ravel().tolist()
    [1.0, 0.0, -1.0]

    Reference: Jaderberg et al., "Spatial Transformer Networks", 2015, equation 1.
    """
    lengths = per_axis(shape, theta.shape[1])
    lines = [line.ravel() for line in _lines(lengths, align_corners)]
    places = np.stack(np.meshgrid(*lines[::-1], indexing="ij")[::-1], -1)
    places = np.concatenate([places, np.ones((*lengths, 1))], -1).astype(theta.dtype)
    return jnp.einsum("nrc,...c->n...r", theta, places, precision="highest")
