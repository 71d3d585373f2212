"""Convolution, and the step from images to rows."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from ..nn.layer import Layer, pure, stateless, take
from ..ops.images.checks import number_per_axis
from ..ops.images.conv import conv
from ..ops.images.conv_transpose import conv_transpose
from ..ops.shared.windows import Padding, per_axis
from ..types import Array, Key, Params, is_whole, require, shown
from . import initializers
from .initializers import drawn

TRANSPOSED = initializers.variance_scaling(1.0, "fan_in", "truncated_normal", -1, -2)
"""`lecun_normal` of a kernel whose inputs come last."""


def Conv(
    width: int,
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    bias: bool = True,
    w_init: Callable = initializers.lecun_normal(),
    b_init: Callable = initializers.zeros,
) -> Layer:
    """A convolution over 1, 2 or 3 spatial axes to `width` channels; see `fn.conv`.

    Args:
        width: Number of output channels.
        kernel: Length of the kernel, one for all spatial axes of the input or one for each.
        stride: Distance between windows, likewise.
        padding: "VALID", "SAME", "SAME_LOWER", "CAUSAL", or numbers.
        dilation: Distance between a window's taps.
        groups: Into how many groups to cut the channels, each with its own kernel.
        bias: Whether to add `b`.
        w_init: `(key, shape, dtype) -> array` for `w`, `(*kernel, channels / groups, width)`.
        b_init: The same for `b`, of shape `(width,)`.

    Returns:
        A layer named "conv" on `(batch, *spatial, channels)`, with parameters `w` and, unless
        `bias` is false, `b`.

    Raises:
        TypeError: At `init`, if an initialiser is no function or gives another shape.
        ValueError: If `width` is no whole number of 1 or more; at `init` or when applied, if
            another number or the input does not fit.

    >>> params, _ = Conv(6, 3).init(jax.random.key(0), jnp.ones((1, 28, 28, 1)))
    >>> jax.tree.map(jnp.shape, params)
    {'b': (6,), 'w': (3, 3, 1, 6)}
    """
    _check_width("conv", width)

    def init(key: Key, x: Array) -> Params:
        lengths = _kernel("conv", kernel, x)
        _check_groups("conv", groups, x.shape[-1], "channels of x")
        w_key, b_key = jax.random.split(key)
        dtype = initializers.float_dtype(x)
        params = {"w": drawn(w_init, w_key, (*lengths, x.shape[-1] // groups, width), dtype)}
        return {**params, "b": drawn(b_init, b_key, (width,), dtype)} if bias else params

    def apply(params: Params, x: Array) -> Array:
        (w,) = take("conv", params, "w")
        return conv(
            x,
            w,
            params.get("b"),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        )

    return stateless(init, apply, "conv")


def ConvTranspose(
    width: int,
    kernel: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int | Sequence[int]] = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    bias: bool = True,
    w_init: Callable = TRANSPOSED,
    b_init: Callable = initializers.zeros,
) -> Layer:
    """A transposed convolution to `width` channels, to make images larger; see `conv_transpose`.

    A kernel of 4 with stride 2 and padding 1 doubles each side, and every output sums as many
    taps: a kernel that the stride does not divide leaves a checkerboard.

    Args:
        width: Number of output channels.
        kernel: Length of the kernel, one for all spatial axes of the input or one for each.
        stride: How far apart the inputs are spread, likewise.
        padding: How much of the output to take away at its ends.
        output_padding: How much longer to make the output, below the stride.
        dilation: Distance between the taps that one input is spread over.
        groups: Into how many groups to cut the channels, each with its own kernel.
        bias: Whether to add `b`.
        w_init: `(key, shape, dtype) -> array` for `w`, `(*kernel, width / groups, channels)`.
        b_init: The same for `b`, of shape `(width,)`.

    Returns:
        A layer named "conv_transpose" on `(batch, *spatial, channels)`, with parameters `w` and,
        unless `bias` is false, `b`.

    Raises:
        TypeError: At `init`, if an initialiser is no function or gives another shape.
        ValueError: If `width` or `groups` does not fit; at `init` or when applied, if another
            number or the input does not fit.

    >>> net, x = ConvTranspose(3, 4, stride=2, padding=1), jnp.ones((1, 7, 7, 8))
    >>> params, _ = net.init(jax.random.key(0), x)
    >>> params["w"].shape, net(params, x).shape
    ((4, 4, 3, 8), (1, 14, 14, 3))

    Reference: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016,
    section 4; Odena, Dumoulin & Olah, "Deconvolution and Checkerboard Artifacts", 2016.
    """
    _check_width("conv_transpose", width)
    _check_groups("conv_transpose", groups, width, "output channels")

    def init(key: Key, x: Array) -> Params:
        lengths = _kernel("conv_transpose", kernel, x)
        w_key, b_key = jax.random.split(key)
        dtype = initializers.float_dtype(x)
        params = {"w": drawn(w_init, w_key, (*lengths, width // groups, x.shape[-1]), dtype)}
        return {**params, "b": drawn(b_init, b_key, (width,), dtype)} if bias else params

    def apply(params: Params, x: Array) -> Array:
        (w,) = take("conv_transpose", params, "w")
        return conv_transpose(
            x,
            w,
            params.get("b"),
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            dilation=dilation,
            groups=groups,
        )

    return stateless(init, apply, "conv_transpose")


def _check_width(where: str, width: int) -> None:
    require(
        is_whole(width),
        where,
        "a width that is a whole number of 1 or more",
        shown(width),
        "It is the number of output channels.",
    )


def _check_groups(where: str, groups: int, count: int, what: str) -> None:
    require(
        is_whole(groups) and count % groups == 0,
        where,
        f"a number of groups that divides {count}, the number of {what}",
        f"groups={groups!r}",
        f"Choose a divisor of the number of {what.partition(' of ')[0]}.",
    )


def _kernel(where: str, kernel: int | Sequence[int], x: Array) -> tuple[int, ...]:
    rank = len(x.shape)
    wanted = f"rank {len(kernel) + 2}" if isinstance(kernel, Sequence) else "rank 3, 4 or 5"
    fits = rank == len(kernel) + 2 if isinstance(kernel, Sequence) else rank in (3, 4, 5)
    require(
        fits,
        where,
        f"x of {wanted} (batch, *spatial, channel)",
        f"shape {tuple(x.shape)}",
        "Give the kernel one length for each spatial axis, or x the axes it lacks: x[None] is a "
        "batch of one.",
    )
    number_per_axis(where, "kernel", kernel, rank - 2)
    return per_axis(kernel, rank - 2)


def Flatten() -> Layer:
    """All axes but the first as one.

    An image `(batch, height, width, channels)` gives rows in the order height, width, channel.
    PyTorch's come in the order channel, height, width: the rows of the `w` that follows have to
    be permuted when weights are carried over.

    Returns:
        A layer named "flatten".

    Raises:
        ValueError: When applied to a scalar.

    >>> Flatten()({}, jnp.ones((2, 4, 4, 3))).shape
    (2, 48)
    """

    def apply(x: Array) -> Array:
        require(
            jnp.ndim(x) >= 1,
            "flatten",
            "x of rank 1 or more (batch, ...)",
            f"shape {jnp.shape(x)}",
            "The first axis is the batch and stays.",
        )
        return jnp.reshape(x, (x.shape[0], math.prod(x.shape[1:])))

    return pure(apply, "flatten")
