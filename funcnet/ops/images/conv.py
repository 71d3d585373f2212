"""Convolution: the op whose backward pass is two further convolutions.

The input's gradient slides the flipped kernel over the cotangent; the kernel's gradient slides the
cotangent over the input, with the batch in the place of the channels that are summed. Stride of
the forward pass turns into dilation of the cotangent in both.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from numpy.random import Generator

from ...rules.rule import Case, normal_case, rule
from ...types import Array, require
from ..fast.conv import plain_slide, plus, promoted, slide, slide_back, slide_weights
from ..fast.rows import sum_over
from ..shared import windows
from ..shared.precision import one_array, widened
from ..shared.windows import Axis, Padding


def _check_conv(x: Array, w: Array, b: Array | None, groups: int) -> None:
    one_array("conv", x)
    require(
        jnp.ndim(w) in (3, 4, 5),
        "conv",
        "w of rank 3, 4 or 5 (*kernel, channels / groups, outputs)",
        f"shape {jnp.shape(w)}",
        "A PyTorch weight is the other way round: for two axes pass w.transpose(2, 3, 1, 0).",
    )
    names = ("batch", *windows.SPATIAL[w.ndim - 2], "channel")
    require(
        jnp.ndim(x) == w.ndim,
        "conv",
        f"x of rank {w.ndim} ({', '.join(names)})",
        f"shape {jnp.shape(x)}",
        _missing_axes(jnp.shape(x), w.shape),
    )
    require(
        isinstance(groups, int) and groups >= 1 and x.shape[-1] % groups == 0,
        "conv",
        f"a number of groups that divides {x.shape[-1]}, the number of channels of x",
        f"groups={groups!r}",
        "Choose a divisor of the number of channels.",
    )
    require(
        w.shape[-1] > 0 and 0 not in w.shape[:-2],
        "conv",
        "w of one output or more, and one tap or more along each axis",
        f"shape {w.shape}",
        "Its axes are (*kernel, channels / groups, outputs).",
    )
    require(
        w.shape[-1] % groups == 0,
        "conv",
        f"a number of groups that divides {w.shape[-1]}, the number of outputs of w",
        f"groups={groups}",
        "Choose a divisor of the number of outputs.",
    )
    require(
        x.shape[-1] == w.shape[-2] * groups,
        "conv",
        f"x whose last axis has length {w.shape[-2] * groups}, the channels that w of shape "
        f"{w.shape} takes",
        f"shape {x.shape}",
        "Channels come last: x is (batch, *spatial, channels), w (*kernel, channels / groups, "
        "outputs).",
    )
    require(
        b is None or jnp.shape(b) == (w.shape[-1],),
        "conv",
        f"b of shape ({w.shape[-1]},), one for each output",
        f"shape {b is not None and jnp.shape(b)}",
        "Pass None for no bias.",
    )


def _missing_axes(shape: tuple[int, ...], kernel: tuple[int, ...]) -> str:
    if len(shape) == len(kernel) - 2:
        return f"Add the missing axes: x[None, {':, ' * len(shape)}None]."
    if len(shape) == len(kernel) - 1:
        index = "None" if shape[-1] == kernel[-2] else "..., None"
        return f"Add the missing axis: x[{index}]."
    return "The rank of x is that of w."


def _placed(
    x: Array, w: Array, stride: int | Sequence[int], padding: Padding, dilation: int | Sequence[int]
) -> tuple[Axis, ...]:
    return windows.axes(
        "conv", x.shape[1:-1], w.shape[:-2], stride=stride, padding=padding, dilation=dilation
    )


def _conv_forward(
    x: Array,
    w: Array,
    b: Array | None,
    *,
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
    groups: int,
) -> tuple[Array, tuple]:
    _check_conv(x, w, b, groups)
    placed = _placed(x, w, stride, padding, dilation)
    inputs, kernel = promoted(x, w)
    return plus(slide(inputs, kernel, placed, groups), b, inputs), (x, w, b)


def _conv_backward(
    res: tuple,
    dy: Array,
    *,
    stride: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int],
    groups: int,
) -> tuple[Array, Array, Array | None]:
    """dx[n, i, c] = Σ_{t, o} dy[n, (i + low - dilation t) / stride, o] w[t, c, o], where it divides
    dw[t, c, o] = Σ_{n, i} x[n, stride i + dilation t - low, c] dy[n, i, o]
    db[o] = Σ_{n, i} dy[n, i, o]
    """
    x, w, b = res
    placed = _placed(x, w, stride, padding, dilation)
    inputs, kernel = promoted(x, w)
    dz = dy.astype(inputs.dtype)
    db = None if b is None else sum_over(widened(dy), range(dy.ndim - 1))
    return slide_back(kernel, dz, placed, groups), slide_weights(inputs, dz, placed, groups), db


def _thin(random: Generator) -> tuple:
    return (
        random.standard_normal((2, 7, 6, 1)),
        random.standard_normal((3, 2, 1, 5)),
        random.standard_normal((5,)),
    )


@rule(
    _conv_forward,
    _conv_backward,
    fast=True,
    cases={
        "two axes": normal_case((2, 6, 5, 4), (3, 2, 4, 3), (3,)),
        "one axis": normal_case((2, 9, 4), (3, 4, 5), (5,)),
        "three axes": normal_case((2, 4, 3, 5, 4), (2, 2, 3, 4, 3), (3,)),
        "no bias": normal_case((2, 6, 5, 4), (3, 2, 4, 3), None),
        "stride": normal_case((2, 8, 7, 4), (3, 2, 4, 3), (3,), stride=(3, 2)),
        "stride over the kernel": normal_case((2, 9, 8, 4), (2, 1, 4, 3), (3,), stride=3),
        "dilation": normal_case((2, 9, 8, 4), (3, 2, 4, 3), None, dilation=(2, 3), stride=2),
        "same": normal_case((2, 7, 6, 4), (3, 4, 4, 3), None, padding="SAME", stride=2),
        "same lower": normal_case((2, 7, 6, 4), (2, 4, 4, 3), None, padding="SAME_LOWER"),
        "causal": normal_case((2, 7, 4), (3, 4, 3), (3,), padding="CAUSAL", dilation=2),
        "pairs": normal_case((2, 5, 4, 4), (3, 3, 4, 3), None, padding=((0, 4), (5, 1)), stride=2),
        "number": normal_case((2, 5, 4, 4), (2, 2, 4, 3), None, padding=3),
        "groups": normal_case((2, 6, 5, 6), (3, 2, 2, 9), (9,), groups=3, stride=2, padding="SAME"),
        "depthwise": normal_case((2, 6, 5, 4), (3, 3, 1, 8), None, groups=4),
        "pointwise": normal_case((2, 3, 4, 5), (1, 1, 5, 6), (6,)),
        "pointwise stride": normal_case((2, 5, 4, 5), (1, 1, 5, 6), (6,), stride=2),
        "pointwise groups": normal_case((2, 3, 4, 6), (1, 1, 3, 4), None, groups=2),
        "thin": Case(_thin),
        "thin stride": Case(_thin, {"stride": 2, "padding": "SAME", "dilation": 2}),
        "colour": normal_case((2, 5, 6, 3), (3, 3, 3, 4), None, padding=1),
        "no images": normal_case((0, 6, 5, 4), (3, 2, 4, 3), (3,)),
    },
)
def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Array:
    """y[n, i, o] = Σ_{t, c} x[n, stride i + dilation t - low, c] w[t, c, o] + b[o], over 1-3 axes.

    The kernel is not flipped, as everywhere in the field. A 1x1 convolution runs as one matrix
    product; on the CPU, one of an image with few channels as shifted multiply-adds.

    Args:
        x: Images, `(batch, *spatial, channels)`, with 1, 2 or 3 spatial axes.
        w: Kernel, `(*kernel, channels / groups, outputs)`.
        b: Bias, `(outputs,)`, or None.
        stride: Distance between windows, one for all axes or one for each.
        padding: "VALID" (none); "SAME" (as many windows as x / stride, rounded up; an odd zero goes
            to the end) or "SAME_LOWER" (to the start); "CAUSAL" (one axis: each output sees itself
            and what came before); an int for every side; or an int or a pair (low, high) for each
            axis.
        dilation: Distance between a window's taps, one for all axes or one for each.
        groups: Channels and outputs are cut into so many groups, each with its own kernel; as many
            as there are channels make it depthwise.

    Returns:
        `(batch, *windows, outputs)`, in the dtype that JAX promotes the arguments to.

    Raises:
        TypeError: If x is no array.
        ValueError: If the shapes do not fit each other, or an option does not fit the shapes.

    >>> conv(jnp.ones((1, 28, 28, 1)), jnp.ones((3, 3, 1, 6)), stride=2, padding="SAME").shape
    (1, 14, 14, 6)

    Reference: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016,
    sections 2 and 4.
    """
    _check_conv(x, w, b, groups)
    inputs, kernel = promoted(x, w)
    placed = _placed(x, w, stride, padding, dilation)
    return plus(plain_slide(inputs, kernel, placed, groups), b, inputs)
