"""Images in another size, and channels to and from blocks of pixels.

Each output of a resized axis is a weighted sum of one or two inputs, so the backward pass can be
written the same way: each input gathers from the outputs that read it. Nothing is scattered and
nothing is kept.
"""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import jax.numpy as jnp
import numpy as np

from ...rules.rule import normal_case, rule
from ...types import Array, require
from ..shared.precision import floating, widened
from ..shared.windows import SPATIAL, per_axis

Method: TypeAlias = Literal["nearest", "nearest-exact", "bilinear"]
METHODS = ("nearest", "nearest-exact", "bilinear")


def _check_image(where: str, x: Array) -> Array:
    rank = jnp.ndim(x)
    require(
        rank - 2 in SPATIAL and all(n >= 1 for n in jnp.shape(x)[1:-1]),
        where,
        "x of rank 3, 4 or 5 (batch, *spatial, channels), with one pixel at least",
        f"shape {jnp.shape(x)}",
        "Batch comes first and channels last: x[None] is a batch of one.",
    )
    return floating(where, x)


def _check_resize(x: Array, shape: int | Sequence[int], method: str) -> tuple[int, ...]:
    """The lengths of the spatial axes of the output."""
    _check_image("resize", x)
    require(
        method in METHODS,
        "resize",
        f"a method among {', '.join(METHODS)}",
        repr(method),
        "PyTorch's linear and trilinear are bilinear too: the number of axes is that of x.",
    )
    return per_axis("resize", "shape", shape, jnp.ndim(x) - 2)


def _reads(size: int, length: int, method: str) -> tuple[np.ndarray, np.ndarray]:
    """What each of `length` outputs reads of `size` inputs: places and weights, (taps, length)."""
    out = np.arange(length)
    if method == "nearest":
        place, weight = out * size // length, np.ones(length)
        return place[None], weight[None]
    if method == "nearest-exact":
        place, weight = (2 * out + 1) * size // (2 * length), np.ones(length)
        return place[None], weight[None]
    centre = np.maximum((out + 0.5) * size / length - 0.5, 0)
    low = np.floor(centre).astype(int)
    return np.stack([low, np.minimum(low + 1, size - 1)]), np.stack(
        [1 - centre + low, centre - low]
    )


def _readers(places: np.ndarray, weights: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The same seen from the inputs: which outputs read each, with what weight, (readers, size)."""
    matrix = np.zeros((places.shape[1], size))
    np.add.at(matrix, (np.arange(places.shape[1]), places), weights)
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


def _resize(x: Array, shape: int | Sequence[int], method: Method) -> Array:
    y = x
    for axis, length in enumerate(_check_resize(x, shape, method), 1):
        if length != x.shape[axis]:
            y = _gather(widened(y), axis, *_reads(x.shape[axis], length, method))
    return jnp.asarray(y, jnp.result_type(x))


def _resize_forward(x: Array, *, shape: int | Sequence[int], method: Method) -> tuple[Array, Array]:
    return _resize(x, shape, method), jnp.zeros((0, *x.shape[1:]), jnp.result_type(x))


def _resize_backward(empty: Array, dy: Array, *, method: Method) -> tuple[Array]:
    """Along each axis, where output i is Σ weight[i, j] x[j]:  dx[j] = Σ weight[i, j] dy[i]"""
    dx = widened(dy)
    for axis, size in enumerate(empty.shape[1:-1], 1):
        length = dy.shape[axis]
        if length != size:
            dx = _gather(dx, axis, *_readers(*_reads(size, length, method), size))
    return (dx,)


@rule(
    _resize_forward,
    _resize_backward,
    cases={
        "nearest, larger": normal_case((2, 3, 2, 2), shape=(7, 4), method="nearest"),
        "nearest, smaller": normal_case((1, 5, 4, 2), shape=(3, 2), method="nearest"),
        "nearest-exact, larger": normal_case((1, 3, 2, 2), shape=(7, 4), method="nearest-exact"),
        "nearest-exact, smaller": normal_case((1, 7, 2), shape=3, method="nearest-exact"),
        "bilinear, larger": normal_case((2, 3, 4, 2), shape=(6, 5), method="bilinear"),
        "bilinear, smaller": normal_case((1, 7, 6, 2), shape=(3, 6), method="bilinear"),
        "three axes": normal_case((1, 2, 3, 1, 2), shape=(3, 2, 4), method="bilinear"),
        "no images": normal_case((0, 3, 2), shape=4, method="bilinear"),
    },
)
def resize(x: Array, *, shape: int | Sequence[int], method: Method = "nearest") -> Array:
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
        `(batch, *shape, channels)`, in the dtype of `x`.

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
    return _resize(x, shape, method)


def _check_shuffle(where: str, x: Array, factor: int | Sequence[int]) -> tuple[int, ...]:
    """The factor of each spatial axis."""
    _check_image(where, x)
    factors = per_axis(where, "factor", factor, jnp.ndim(x) - 2)
    block = math.prod(factors)
    if where == "pixel_shuffle":
        require(
            x.shape[-1] % block == 0,
            where,
            f"a number of channels that {block} divides, the pixels of a block",
            f"shape {x.shape}",
            "Each output channel takes one input channel for each pixel of its block.",
        )
    else:
        require(
            all(n % f == 0 for n, f in zip(x.shape[1:-1], factors, strict=True)),
            where,
            f"spatial axes that {factors} divide",
            f"shape {x.shape}",
            "Pad or crop first: the image is cut into whole blocks.",
        )
    return factors


def _to_pixels(x: Array, factors: tuple[int, ...]) -> Array:
    batch, *sizes, channels = x.shape
    count = len(sizes)
    x = x.reshape(batch, *sizes, channels // math.prod(factors), *factors)
    interleaved = [axis for d in range(1, count + 1) for axis in (d, d + count + 1)]
    x = x.transpose(0, *interleaved, count + 1)
    return x.reshape(batch, *(n * f for n, f in zip(sizes, factors, strict=True)), x.shape[-1])


def _to_channels(x: Array, factors: tuple[int, ...]) -> Array:
    batch, *sizes, channels = x.shape
    count = len(sizes)
    blocks = [n for size, f in zip(sizes, factors, strict=True) for n in (size // f, f)]
    x = x.reshape(batch, *blocks, channels)
    x = x.transpose(0, *range(1, 2 * count, 2), 2 * count + 1, *range(2, 2 * count + 1, 2))
    return x.reshape(*x.shape[: count + 1], channels * math.prod(factors))


def _pixel_shuffle_forward(x: Array, *, factor: int | Sequence[int]) -> tuple[Array, tuple[()]]:
    return _to_pixels(jnp.asarray(x), _check_shuffle("pixel_shuffle", x, factor)), ()


def _pixel_shuffle_backward(
    _: tuple[()], dy: Array, *, factor: int | Sequence[int]
) -> tuple[Array]:
    """dx = pixel_unshuffle(dy)"""
    return (_to_channels(dy, _check_shuffle("pixel_unshuffle", dy, factor)),)


@rule(
    _pixel_shuffle_forward,
    _pixel_shuffle_backward,
    cases={
        "image": normal_case((2, 2, 3, 8), factor=2),
        "two factors": normal_case((1, 2, 3, 12), factor=(3, 2)),
        "line": normal_case((2, 3, 4), factor=2),
        "none": normal_case((0, 2, 2, 4), factor=2),
    },
)
def pixel_shuffle(x: Array, *, factor: int | Sequence[int]) -> Array:
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
    return _to_pixels(jnp.asarray(x), _check_shuffle("pixel_shuffle", x, factor))


def _pixel_unshuffle_forward(x: Array, *, factor: int | Sequence[int]) -> tuple[Array, tuple[()]]:
    return _to_channels(jnp.asarray(x), _check_shuffle("pixel_unshuffle", x, factor)), ()


def _pixel_unshuffle_backward(
    _: tuple[()], dy: Array, *, factor: int | Sequence[int]
) -> tuple[Array]:
    """dx = pixel_shuffle(dy)"""
    return (_to_pixels(dy, _check_shuffle("pixel_shuffle", dy, factor)),)


@rule(
    _pixel_unshuffle_forward,
    _pixel_unshuffle_backward,
    cases={
        "image": normal_case((2, 4, 6, 2), factor=2),
        "two factors": normal_case((1, 6, 4, 2), factor=(3, 2)),
        "line": normal_case((2, 6, 2), factor=2),
        "none": normal_case((0, 4, 4, 1), factor=2),
    },
)
def pixel_unshuffle(x: Array, *, factor: int | Sequence[int]) -> Array:
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
    return _to_channels(jnp.asarray(x), _check_shuffle("pixel_unshuffle", x, factor))
