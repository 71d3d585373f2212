"""Pools of windows, of bins and of whole images."""

from collections.abc import Sequence
from typing import Any, Literal

from ..nn.layer import Layer, pure
from ..ops.images.adaptive_pool import adaptive_avg_pool, adaptive_max_pool
from ..ops.images.lp_pool import lp_pool
from ..ops.images.pool import avg_pool, global_avg_pool, global_max_pool, max_pool
from ..ops.images.unpool import max_pool_with_indices, max_unpool
from ..ops.shared.windows import Padding
from ..types import Array, require
from .resize import lengths_for


def MaxPool(
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    *,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Layer:
    """The largest of each window, channel by channel; see `fn.max_pool`.

    Args:
        window: Length of the window, one for all spatial axes or one for each.
        stride: Distance between windows, likewise; None for the window itself.
        padding: As in `Conv`; padding never wins.
        dilation: Distance between the taps of a window, one for all spatial axes or one for each.
        ceil_mode: Whether what the last window would leave out gets one more.
        return_indices: Whether to return `(y, indices)`, as `fn.max_pool_with_indices` does, for
            `MaxUnpool`.

    Returns:
        A layer named "max_pool".

    Raises:
        ValueError: When applied, if the window, stride or padding does not fit the input.

    >>> import jax.numpy as jnp
    >>> MaxPool(2)({}, jnp.ones((1, 8, 6, 3))).shape
    (1, 4, 3, 3)
    """

    op = max_pool_with_indices if return_indices else max_pool

    def apply(x: Array) -> Any:
        return op(
            x,
            window=window,
            stride=stride,
            padding=padding,
            dilation=dilation,
            ceil_mode=ceil_mode,
        )

    return pure(apply, "max_pool")


def MaxUnpool(
    shape: int | Sequence[int] | None = None,
    *,
    factor: float | Sequence[float] | None = None,
) -> Layer:
    """Numbers put back to where `MaxPool(..., return_indices=True)` found them, among zeros.

    See `fn.max_unpool`; a network that knows the shape of each image calls that.

    Args:
        shape: The length of each spatial axis, or one for all.
        factor: Instead of `shape`, what to multiply the lengths by, rounded down; one for all
            spatial axes or one for each. It is the window of pools whose windows leave nothing out.

    Returns:
        A layer named "max_unpool" of x and its indices.

    Raises:
        TypeError: When applied, if the indices are not integers.
        ValueError: If not one of `shape` and `factor` is given; when applied, if they or the
            indices do not fit.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 3.0], [2.0, 0.0]])[None, ..., None]
    >>> y, indices = MaxPool(2, return_indices=True)({}, x)
    >>> MaxUnpool(factor=2)({}, y, indices)[0, ..., 0].tolist()
    [[0.0, 3.0], [0.0, 0.0]]
    """
    lengths = lengths_for("max_unpool", "MaxUnpool", shape, factor)

    def apply(x: Array, indices: Array) -> Array:
        return max_unpool(x, indices, shape=lengths(x))

    return pure(apply, "max_unpool")


def AvgPool(
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    *,
    count_include_pad: bool = False,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Layer:
    """The mean of each window, channel by channel; see `fn.avg_pool`.

    Args:
        window: Length of the window, one for all spatial axes or one for each.
        stride: Distance between windows, likewise; None for the window itself.
        padding: As in `Conv`.
        count_include_pad: Whether the zeros of the padding count as elements of the mean.
        dilation: Distance between the taps of a window, one for all spatial axes or one for each.
        ceil_mode: Whether what the last window would leave out gets one more.

    Returns:
        A layer named "avg_pool", of x, and of the mask `where` if one is given.

    Raises:
        TypeError: When applied, if the input is not floating.
        ValueError: When applied, if the window, stride or padding does not fit the input.

    >>> import jax.numpy as jnp
    >>> AvgPool(2)({}, jnp.ones((1, 8, 6, 3))).shape
    (1, 4, 3, 3)
    """

    def apply(x: Array, where: Array | None = None) -> Array:
        return avg_pool(
            x,
            where,
            window=window,
            stride=stride,
            padding=padding,
            count_include_pad=count_include_pad,
            dilation=dilation,
            ceil_mode=ceil_mode,
        )

    return pure(apply, "avg_pool")


def LpPool(
    window: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = "VALID",
    *,
    p: float = 2,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
) -> Layer:
    """The norm of each window, channel by channel; see `fn.lp_pool`.

    Args:
        window: Length of the window, one for all spatial axes or one for each.
        stride: Distance between windows, likewise; None for the window itself.
        padding: As in `Conv`; it adds nothing.
        p: 1 for the sum of magnitudes, 2 for the length; the larger, the closer to the largest.
        dilation: Distance between the taps of a window, one for all spatial axes or one for each.
        ceil_mode: Whether what the last window would leave out gets one more.

    Returns:
        A layer named "lp_pool".

    Raises:
        TypeError: When applied, if the input is not floating.
        ValueError: When applied, if p, the window, stride or padding does not fit.

    >>> import jax.numpy as jnp
    >>> LpPool(2)({}, jnp.ones((1, 8, 6, 3))).shape
    (1, 4, 3, 3)
    """

    def apply(x: Array) -> Array:
        return lp_pool(
            x,
            window=window,
            p=p,
            stride=stride,
            padding=padding,
            dilation=dilation,
            ceil_mode=ceil_mode,
        )

    return pure(apply, "lp_pool")


def AdaptivePool(shape: int | Sequence[int], kind: Literal["avg", "max"] = "avg") -> Layer:
    """The mean or the largest of each of so many bins; see `fn.adaptive_avg_pool`.

    Args:
        shape: The number of bins along each spatial axis, or one for all.
        kind: "avg" or "max".

    Returns:
        A layer named "adaptive_pool": `(batch, *spatial, channels)` to `(batch, *shape, channels)`.

    Raises:
        TypeError: When applied, if a mean is to be taken of what is not floating.
        ValueError: If `kind` is neither; when applied, if the numbers do not fit the input.

    >>> import jax.numpy as jnp
    >>> AdaptivePool((2, 3))({}, jnp.ones((2, 7, 6, 3))).shape
    (2, 2, 3, 3)
    """
    pools = {"avg": adaptive_avg_pool, "max": adaptive_max_pool}
    require(
        kind in pools,
        "adaptive_pool",
        'the kind "avg" or "max"',
        repr(kind),
        'Write AdaptivePool(7, "avg").',
    )

    def apply(x: Array) -> Array:
        return pools[kind](x, shape=shape)

    return pure(apply, "adaptive_pool")


def GlobalPool(kind: Literal["avg", "max"] = "avg") -> Layer:
    """The mean or the largest over all spatial axes, channel by channel.

    Args:
        kind: "avg" or "max".

    Returns:
        A layer named "global_pool": `(batch, *spatial, channels)` to `(batch, channels)`; it takes
        the mask `where` as well.

    Raises:
        TypeError: When applied, if a mean is to be taken of what is not floating.
        ValueError: If `kind` is neither; when applied, if there is nothing to pool.

    >>> import jax.numpy as jnp
    >>> GlobalPool("max")({}, jnp.ones((2, 8, 6, 3))).shape
    (2, 3)
    """
    kinds = {"avg": global_avg_pool, "max": global_max_pool}
    require(
        kind in kinds,
        "global_pool",
        'the kind "avg" or "max"',
        repr(kind),
        'Write GlobalPool("avg").',
    )
    return pure(kinds[kind], "global_pool")
