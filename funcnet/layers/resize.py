"""Images in another size: resizing, pixels from channels, padding."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp

from ..nn.layer import Layer, pure
from ..ops.images.pad import pad
from ..ops.images.resize import Method, pixel_shuffle, resize
from ..types import Array, require


def Resize(
    shape: int | Sequence[int] | None = None,
    *,
    factor: float | Sequence[float] | None = None,
    method: Method = "nearest",
    antialias: bool = False,
    align_corners: bool = False,
) -> Layer:
    """Spatial axes of other lengths; see `fn.resize`.

    Args:
        shape: The new length of each spatial axis, or one for all.
        factor: Instead of `shape`, what to multiply the lengths by, rounded down; one for all
            spatial axes or one for each.
        method: "nearest", "nearest-exact", "bilinear" or "cubic".
        antialias: Whether an axis that gets shorter is read by a wider kernel.
        align_corners: Whether the first and the last output are the first and the last pixel.

    Returns:
        A layer named "resize" on `(batch, *spatial, channels)`.

    Raises:
        ValueError: If not one of `shape` and `factor` is given; when applied, if they or the
            method do not fit.

    >>> Resize(factor=2)({}, jnp.ones((1, 8, 6, 3))).shape
    (1, 16, 12, 3)
    """
    lengths = lengths_for("resize", "Resize", shape, factor)

    def apply(x: Array) -> Array:
        return resize(
            x, shape=lengths(x), method=method, antialias=antialias, align_corners=align_corners
        )

    return pure(apply, "resize")


def lengths_for(
    where: str,
    layer: str,
    shape: int | Sequence[int] | None,
    factor: float | Sequence[float] | None,
) -> Callable[[Array], int | Sequence[int]]:
    """From images to the lengths of the resized ones, by a shape or else by a factor.

    Raises:
        ValueError: If not one of the two is given; when called, if the factor does not fit.
    """
    require(
        (shape is None) != (factor is None),
        where,
        "either a shape or a factor",
        f"shape={shape!r} and factor={factor!r}",
        f"Write {layer}(64) or {layer}(factor=2).",
    )

    def lengths(x: Array) -> int | Sequence[int]:
        return shape if shape is not None else _scaled(where, jnp.shape(x)[1:-1], factor)

    return lengths


def _scaled(where: str, sizes: Sequence[int], factor: Any) -> tuple[int, ...]:
    factors = tuple(factor) if isinstance(factor, Sequence) else (factor,) * len(sizes)
    require(
        len(factors) == len(sizes),
        where,
        f"one factor, or one for each of {len(sizes)} spatial axes",
        repr(factor),
        "Write factor=2.",
    )
    return tuple(int(n * f) for n, f in zip(sizes, factors, strict=True))


def PixelShuffle(factor: int | Sequence[int]) -> Layer:
    """Each pixel's channels laid out as a block of pixels; see `fn.pixel_shuffle`.

    Args:
        factor: Pixels along each side of a block, one for all spatial axes or one for each.

    Returns:
        A layer named "pixel_shuffle" on `(batch, *spatial, channels)`.

    Raises:
        TypeError: When applied, if x is not floating.
        ValueError: When applied, if the rank or the factor does not fit.

    >>> PixelShuffle(2)({}, jnp.ones((1, 8, 6, 12))).shape
    (1, 16, 12, 3)
    """

    def apply(x: Array) -> Array:
        return pixel_shuffle(x, factor=factor)

    return pure(apply, "pixel_shuffle")


def Pad(
    widths: int | Sequence[int | Sequence[int]], *, mode: str = "constant", value: float = 0.0
) -> Layer:
    """Entries put on at the ends of the spatial axes, or, where negative, taken off.

    Args:
        widths: One for both ends of all spatial axes, or for each axis a number or a pair
            (low, high).
        mode: "constant", "reflect", "edge" or "wrap"; see `fn.pad`.
        value: What "constant" puts in.

    Returns:
        A layer named "pad" on `(batch, *spatial, channels)`.

    Raises:
        ValueError: When applied, if there is not one width for each spatial axis, or as
            `fn.pad` does.

    >>> x = jnp.ones((1, 8, 6, 3))
    >>> Pad(1)({}, x).shape, Pad([0, (2, -1)])({}, x).shape
    ((1, 10, 8, 3), (1, 8, 7, 3))
    """

    def apply(x: Array) -> Array:
        count = max(jnp.ndim(x) - 2, 0)
        entries = tuple(widths) if isinstance(widths, Sequence) else (widths,) * count
        require(
            len(entries) == count,
            "pad",
            f"one width, or one for each spatial axis of x (batch, *spatial, channels): {count}",
            repr(widths),
            "Write Pad(1), or a pair (low, high) for each axis.",
        )
        pairs = [tuple(e) if isinstance(e, Sequence) else (e, e) for e in entries]
        return pad(x, widths=((0, 0), *pairs, (0, 0)), mode=mode, value=value)

    return pure(apply, "pad")
