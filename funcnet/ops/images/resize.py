"""Images in another size, and channels to and from blocks of pixels.

Each output of a resized axis is a weighted sum of one or two inputs, so the backward pass can be
written the same way: each input gathers from the outputs that read it. Nothing is scattered and
nothing is kept.
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

Method: TypeAlias = Literal["nearest", "nearest-exact", "bilinear"]


def _reads(size: int, length: int, method: Method) -> tuple[np.ndarray, np.ndarray]:
    """What each of `length` outputs reads of `size` inputs: places and weights, (taps, length)."""
    out = np.arange(length)
    if method != "bilinear":
        halves = 2 * out + (method == "nearest-exact")
        return (halves * size // (2 * length))[None], np.ones((1, length))
    centre = np.maximum((out + 0.5) * size / length - 0.5, 0)
    low = np.floor(centre).astype(int)
    beyond = centre - low
    return np.stack([low, np.minimum(low + 1, size - 1)]), np.stack([1 - beyond, beyond])


def _matrix(size: int, length: int, method: Method) -> np.ndarray:
    """The same as a matrix, from inputs to outputs."""
    places, weights = _reads(size, length, method)
    matrix = np.zeros((length, size))
    np.add.at(matrix, (np.arange(length), places), weights)
    return matrix


def _readers(size: int, length: int, method: Method) -> tuple[np.ndarray, np.ndarray]:
    """The same seen from the inputs: which outputs read each, with what weight, (readers, size)."""
    matrix = _matrix(size, length, method)
    most = int((matrix != 0).sum(0).max())
    outputs = np.argsort(matrix == 0, axis=0, kind="stable")[:most]
    return outputs, np.take_along_axis(matrix, outputs, 0)


def _gather(x: Array, axis: int, places: np.ndarray, weights: np.ndarray) -> Array:
    """Along one axis, the weighted sum of what stands at each row of places."""
    column = (-1,) + (1,) * (x.ndim - 1 - axis)
    total = jnp.zeros((), x.dtype)
    for place, weight in zip(places, weights, strict=True):
        part = jnp.take(x, place, axis, mode="clip")
        if not (weight == 1).all():
            part = part * weight.reshape(column).astype(x.dtype)
        if not weight.all():  # 0 times infinity is NaN
            part = jnp.where((weight != 0).reshape(column), part, 0)
        total = total + part
    return total


def _resize_forward(x, *, shape, method):
    y = x
    for axis, length in enumerate(per_axis(shape, x.ndim - 2), 1):
        if length != x.shape[axis]:
            y = _gather(y, axis, *_reads(x.shape[axis], length, method))
    return y, jnp.zeros((0, *x.shape[1:]), x.dtype)


def _resize_backward(empty, dy, *, method):
    """Along each axis, where output i is Σ weight[i, j] x[j]:  dx[j] = Σ weight[i, j] dy[i]"""
    dx = dy
    for axis, size in enumerate(empty.shape[1:-1], 1):
        if dy.shape[axis] != size:
            dx = _gather(dx, axis, *_readers(size, dy.shape[axis], method))
    return (dx,)


@rule(
    _resize_forward,
    _resize_backward,
    cases=cases.RESIZE,
    check=other_size,
    wide=True,
    fast=True,
)
def resize(x: Array, *, shape: Numbers, method: Method = "nearest") -> Array:
    """x with spatial axes of other lengths, from the nearest pixels or by lines between them.

    With n pixels in and m out, output i stands for the input at

        nearest         floor(i n / m)
        nearest-exact   floor((i + ½) n / m)
        bilinear        (i + ½) n / m − ½, on the line between the two pixels beside it

    as in PyTorch, with `align_corners=False` and no antialiasing. `jax.image.resize` calls
    nearest-exact what is its "nearest".

    Args:
        x: `(batch, *spatial, channels)`, with one to three spatial axes.
        shape: The new length of each spatial axis, or one for all.
        method: "nearest", "nearest-exact" or "bilinear".

    Returns:
        `(batch, *shape, channels)`, in the dtype of `x`; 16-bit dtypes are computed in float32 and
        rounded once.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If the rank, the lengths or the method do not fit.

    >>> x = jnp.array([1.0, 2.0, 4.0])[None, :, None]
    >>> resize(x, shape=6).ravel().tolist()
    [1.0, 1.0, 2.0, 2.0, 4.0, 4.0]
    >>> resize(x, shape=6, method="bilinear").ravel().tolist()
    [1.0, 1.25, 1.75, 2.5, 3.5, 4.0]

    Reference: Odena, Dumoulin & Olah, "Deconvolution and Checkerboard Artifacts", 2016.
    """
    y = x
    for axis, length in enumerate(per_axis(shape, x.ndim - 2), 1):
        matrix = _matrix(x.shape[axis], length, method).astype(x.dtype)
        y = jnp.moveaxis(jnp.tensordot(y, matrix, (axis, 1), precision="highest"), -1, axis)
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
