"""Images in another size, and channels to and from blocks of pixels.

Each output of a resized axis is a weighted sum of a few inputs, so the backward pass can be written
the same way: each input gathers from the outputs that read it. Nothing is scattered and nothing is
kept.
"""

import math
from typing import Literal, TypeAlias

import jax.numpy as jnp
import numpy as np

from ...rules.rule import rule
from ...types import Array
from ..shared.windows import Numbers, per_axis
from . import cases
from .checks import channels_for_blocks, other_size, pixels_for_blocks
from .reads import Reads, matrix, spread, times, weighted

Method: TypeAlias = Literal["nearest", "nearest-exact", "bilinear", "cubic"]


def _line(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1 - distance, 0)


def _cubic(distance: np.ndarray) -> np.ndarray:
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return np.where(distance < 1, near, np.where(distance < 2, far, 0))


KERNELS = {"bilinear": (_line, 1), "cubic": (_cubic, 2)}
"""By method, the weight at a distance in pixels, and the distance from which on it is 0."""


def _reads(size: int, length: int, method: Method, antialias: bool, align_corners: bool) -> Reads:
    """What each of `length` outputs reads of `size` inputs."""
    out = np.arange(length)
    if method not in KERNELS:
        halves = 2 * out + (method == "nearest-exact")
        return (halves * size // (2 * length))[None], np.ones((1, length))
    kernel, radius = KERNELS[method]
    step = (size - 1) / max(length - 1, 1) if align_corners else size / length
    centre = out * step if align_corners else (out + 0.5) * step - 0.5
    width = max(step, 1) if antialias else 1
    first = np.floor(centre - radius * width).astype(int) + 1
    places = first + np.arange(math.ceil(2 * radius * width))[:, None]
    within = (places >= 0) & (places < size)
    weights = np.where(within, kernel(abs(places - centre) / width), 0)
    read = weights.any(1)
    return places.clip(0, size - 1)[read], (weights / weights.sum(0))[read]


def _resize_forward(x, *, shape, method, antialias, align_corners):
    y = x
    for axis, length in enumerate(per_axis(shape, x.ndim - 2), 1):
        size = x.shape[axis]
        if length != size:
            y = weighted(y, axis, _reads(size, length, method, antialias, align_corners))
    return y, jnp.zeros((0, *x.shape[1:]), x.dtype)


def _resize_backward(empty, dy, *, method, antialias, align_corners):
    """Along each axis, where output i is Σ weight[i, j] x[j]:  dx[j] = Σ weight[i, j] dy[i]"""
    dx = dy
    for axis, size in enumerate(empty.shape[1:-1], 1):
        if dy.shape[axis] != size:
            reads = _reads(size, dy.shape[axis], method, antialias, align_corners)
            dx = spread(dx, axis, reads, size)
    return (dx,)


@rule(
    _resize_forward,
    _resize_backward,
    cases=cases.RESIZE,
    check=other_size,
    wide=True,
    fast=True,
)
def resize(
    x: Array,
    *,
    shape: Numbers,
    method: Method = "nearest",
    antialias: bool = False,
    align_corners: bool = False,
) -> Array:
    """x with spatial axes of other lengths, from the nearest pixels or by curves between them.

    With n pixels in and m out, output i stands for the input at

        nearest         floor(i n / m)
        nearest-exact   floor((i + ½) n / m)
        bilinear        (i + ½) n / m − ½, on the line between the two pixels beside it
        cubic           the same, on Keys's cubic, of a = −½, through the four pixels beside it

    as in `jax.image.resize`, which calls nearest-exact "nearest", and in PyTorch, but for cubic and
    for both options together, where PyTorch's corners are not aligned. Beyond the edge there is
    nothing: the weights of the pixels within are divided by their sum.

    Args:
        x: `(batch, *spatial, channels)`, with one to three spatial axes.
        shape: The new length of each spatial axis, or one for all.
        method: "nearest", "nearest-exact", "bilinear" or "cubic".
        antialias: Whether an axis that gets shorter is read by a kernel that is n / m as wide,
            so that every pixel counts. For bilinear and cubic.
        align_corners: Whether the first and last output are the first and last pixel: output
            i stands at i (n − 1) / (m − 1). For bilinear and cubic.

    Returns:
        `(batch, *shape, channels)`, in the dtype of `x`; 16-bit dtypes are computed in float32 and
        rounded once.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If the rank, the lengths, the method or its options do not fit.

    >>> x = jnp.array([1.0, 2.0, 4.0])[None, :, None]
    >>> resize(x, shape=6).ravel().tolist()
    [1.0, 1.0, 2.0, 2.0, 4.0, 4.0]
    >>> resize(x, shape=6, method="bilinear").ravel().tolist()
    [1.0, 1.25, 1.75, 2.5, 3.5, 4.0]
    >>> resize(x, shape=5, method="bilinear", align_corners=True).ravel().tolist()
    [1.0, 1.5, 2.0, 3.0, 4.0]

    Reference: Odena, Dumoulin & Olah, "Deconvolution and Checkerboard Artifacts", 2016; Keys,
    "Cubic Convolution Interpolation for Digital Image Processing", 1981, equation 15.
    """
    y = x
    for axis, length in enumerate(per_axis(shape, x.ndim - 2), 1):
        if length != x.shape[axis]:
            reads = _reads(x.shape[axis], length, method, antialias, align_corners)
            y = times(y, axis, matrix(x.shape[axis], reads))
    return y


def _to_pixels(x: Array, factor: Numbers) -> Array:
    batch, *sizes, channels = x.shape
    count = len(sizes)
    factors = per_axis(factor, count)
    x = x.reshape(batch, *sizes, channels // math.prod(factors), *factors)
    interleaved = [axis for d in range(1, count + 1) for axis in (d, d + count + 1)]
    x = x.transpose(0, *interleaved, count + 1)
    return x.reshape(batch, *(n * f for n, f in zip(sizes, factors, strict=True)), x.shape[-1])


def _to_channels(x: Array, factor: Numbers) -> Array:
    batch, *sizes, channels = x.shape
    count = len(sizes)
    factors = per_axis(factor, count)
    blocks = [n for size, f in zip(sizes, factors, strict=True) for n in (size // f, f)]
    x = x.reshape(batch, *blocks, channels)
    x = x.transpose(0, *range(1, 2 * count, 2), 2 * count + 1, *range(2, 2 * count + 1, 2))
    return x.reshape(*x.shape[: count + 1], channels * math.prod(factors))


def _pixel_shuffle_forward(x, *, factor):
    return _to_pixels(x, factor), ()


def _pixel_shuffle_backward(_, dy, *, factor):
    """dx = pixel_unshuffle(dy)"""
    return (_to_channels(dy, factor),)


@rule(
    _pixel_shuffle_forward,
    _pixel_shuffle_backward,
    cases=cases.PIXEL_SHUFFLE,
    check=channels_for_blocks,
)
def pixel_shuffle(x: Array, *, factor: Numbers) -> Array:
    """Each pixel's channels laid out as a block of pixels: larger images of fewer channels.

    Channel (c · f + i) · f + j of a pixel becomes channel c of the pixel in row i and column j of
    its block, as in PyTorch.

    Args:
        x: `(batch, *spatial, channels · block)`, with one to three spatial axes.
        factor: Pixels along each side of a block, one for all spatial axes or one for each.

    Returns:
        `(batch, *(n · f for each spatial axis), channels)`.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If the rank or the factor does not fit.

    >>> pixel_shuffle(jnp.arange(4.0).reshape(1, 1, 1, 4), factor=2)[0, ..., 0].tolist()
    [[0.0, 1.0], [2.0, 3.0]]

    Reference: Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient
    Sub-Pixel Convolutional Neural Network", 2016, equation 4.
    """
    return _to_pixels(x, factor)


def _pixel_unshuffle_forward(x, *, factor):
    return _to_channels(x, factor), ()


def _pixel_unshuffle_backward(_, dy, *, factor):
    """dx = pixel_shuffle(dy)"""
    return (_to_pixels(dy, factor),)


@rule(
    _pixel_unshuffle_forward,
    _pixel_unshuffle_backward,
    cases=cases.PIXEL_UNSHUFFLE,
    check=pixels_for_blocks,
)
def pixel_unshuffle(x: Array, *, factor: Numbers) -> Array:
    """Each block of pixels as the channels of one: the inverse of `pixel_shuffle`.

    Args:
        x: `(batch, *spatial, channels)`, with one to three spatial axes.
        factor: Pixels along each side of a block, one for all spatial axes or one for each.

    Returns:
        `(batch, *(n / f for each spatial axis), channels · block)`.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If the rank or the factor does not fit.

    >>> pixel_unshuffle(jnp.arange(4.0).reshape(1, 2, 2, 1), factor=2).ravel().tolist()
    [0.0, 1.0, 2.0, 3.0]

    Reference: Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient
    Sub-Pixel Convolutional Neural Network", 2016, equation 4.
    """
    return _to_channels(x, factor)
