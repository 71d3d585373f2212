"""Transposed convolution: the adjoint of a convolution, to make images larger.

A convolution takes each window to one number; its adjoint spreads each number over a window. So
forward and backward change places: what is the input's gradient there is the output here, and the
input's gradient here is a plain convolution. Both share one kernel.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from ...rules.rule import normal_case, rule
from ...types import Array, require
from ..fast.conv import plain_slide_back, plus, promoted, slide, slide_back, slide_weights
from ..fast.rows import sum_over
from ..shared import windows
from ..shared.precision import floating, widened
from ..shared.windows import Axis

Numbers = int | Sequence[int]
Pairs = int | Sequence[int | Sequence[int]]


def _check_conv_transpose(x: Array, w: Array, b: Array | None, groups: int) -> None:
    floating("conv_transpose", x)
    require(
        jnp.ndim(w) in (3, 4, 5),
        "conv_transpose",
        "w of rank 3, 4 or 5 (*kernel, outputs / groups, channels)",
        f"shape {jnp.shape(w)}",
        "A PyTorch weight is the other way round: for two axes pass w.transpose(2, 3, 1, 0).",
    )
    names = ("batch", *windows.SPATIAL[w.ndim - 2], "channel")
    require(
        jnp.ndim(x) == w.ndim,
        "conv_transpose",
        f"x of rank {w.ndim} ({', '.join(names)})",
        f"shape {jnp.shape(x)}",
        "Add the missing axes: x[None] is a batch of one.",
    )
    require(
        x.shape[-1] == w.shape[-1] and 0 not in x.shape[1:-1],
        "conv_transpose",
        f"x of {w.shape[-1]} channels, the last axis of w, and something to spread",
        f"shape {x.shape}",
        "Channels come last: x is (batch, *spatial, channels), w (*kernel, outputs / groups, "
        "channels).",
    )
    require(
        isinstance(groups, int) and groups >= 1 and x.shape[-1] % groups == 0,
        "conv_transpose",
        f"a number of groups that divides {x.shape[-1]}, the number of channels of x",
        f"groups={groups!r}",
        "Choose a divisor of the number of channels.",
    )
    outputs = w.shape[-2] * groups
    require(
        b is None or jnp.shape(b) == (outputs,),
        "conv_transpose",
        f"b of shape ({outputs},), one for each output",
        f"shape {b is not None and jnp.shape(b)}",
        "Pass None for no bias.",
    )


def _placed(
    x: Array, w: Array, stride: Numbers, padding: Pairs, output_padding: Numbers, dilation: Numbers
) -> tuple[Axis, ...]:
    """The windows of the convolution that this is the adjoint of."""
    where, sizes, kernel = "conv_transpose", x.shape[1:-1], w.shape[:-2]
    require(
        not isinstance(padding, str),
        where,
        "padding in numbers",
        repr(padding),
        "Sizes that are multiplied by the stride s take a kernel of 2 s and padding=s // 2.",
    )
    strides = windows.per_axis(where, "stride", stride, len(sizes))
    dilations = windows.per_axis(where, "dilation", dilation, len(sizes))
    extra = _output_padding(output_padding, strides)
    reaches = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    full = [
        (n - 1) * s + reach + more
        for n, s, reach, more in zip(sizes, strides, reaches, extra, strict=True)
    ]
    padded = windows.axes(where, full, kernel, stride=strides, padding=padding, dilation=dilations)
    lengths = [a.size - a.low - a.high for a in padded]
    require(
        min(lengths) >= 1,
        where,
        f"padding that leaves something of the full output {full}",
        repr(padding),
        "Padding takes away from the output here: use less.",
    )
    return tuple(a._replace(size=n) for a, n in zip(padded, lengths, strict=True))


def _output_padding(given: Numbers, strides: Sequence[int]) -> Sequence[int]:
    extra = tuple(given) if isinstance(given, Sequence) else (given,) * len(strides)
    require(
        len(extra) == len(strides)
        and all(
            hasattr(n, "__index__") and 0 <= n < s for n, s in zip(extra, strides, strict=True)
        ),
        "conv_transpose",
        f"output_padding from 0 to below the stride {tuple(strides)}",
        repr(given),
        "It chooses among the sizes that the convolution takes to that of x.",
    )
    return extra


def _conv_transpose_forward(
    x: Array,
    w: Array,
    b: Array | None,
    *,
    stride: Numbers,
    padding: Pairs,
    output_padding: Numbers,
    dilation: Numbers,
    groups: int,
) -> tuple[Array, tuple]:
    _check_conv_transpose(x, w, b, groups)
    placed = _placed(x, w, stride, padding, output_padding, dilation)
    inputs, kernel = promoted(x, w)
    return plus(slide_back(kernel, inputs, placed, groups), b, inputs), (x, w, b)


def _conv_transpose_backward(
    res: tuple,
    dy: Array,
    *,
    stride: Numbers,
    padding: Pairs,
    output_padding: Numbers,
    dilation: Numbers,
    groups: int,
) -> tuple[Array, Array, Array | None]:
    """dx[n, i, c] = Σ_{t, o} dy[n, stride i + dilation t - low, o] w[t, o, c]
    dw[t, o, c] = Σ_{n, i} dy[n, stride i + dilation t - low, o] x[n, i, c]
    db[o] = Σ_{n, j} dy[n, j, o]
    """
    x, w, b = res
    placed = _placed(x, w, stride, padding, output_padding, dilation)
    inputs, kernel = promoted(x, w)
    dz = dy.astype(inputs.dtype)
    db = None if b is None else sum_over(widened(dy), range(dy.ndim - 1))
    return slide(dz, kernel, placed, groups), slide_weights(dz, inputs, placed, groups), db


@rule(
    _conv_transpose_forward,
    _conv_transpose_backward,
    cases={
        "two axes": normal_case((2, 4, 3, 4), (3, 2, 8, 4), (8,), stride=2),
        "one axis": normal_case((2, 5, 4), (4, 3, 4), (3,), stride=2, padding=1),
        "three axes": normal_case((2, 2, 3, 2, 4), (2, 2, 3, 3, 4), (3,), stride=(2, 1, 1)),
        "no bias": normal_case((2, 4, 3, 4), (3, 3, 3, 4), None, padding=1),
        "stride over the kernel": normal_case((2, 3, 2, 4), (2, 1, 3, 4), (3,), stride=3),
        "output padding": normal_case(
            (2, 3, 4, 4), (3, 3, 7, 4), (7,), stride=2, padding=1, output_padding=1
        ),
        "output padding by axis": normal_case(
            (2, 3, 2, 4), (3, 2, 3, 4), None, stride=(2, 3), output_padding=(0, 2)
        ),
        "dilation": normal_case((2, 4, 3, 4), (3, 2, 3, 4), None, dilation=(2, 3), stride=2),
        "pairs": normal_case((2, 4, 5, 4), (3, 3, 3, 4), (3,), padding=((2, 0), (3, 4)), stride=2),
        "groups": normal_case((2, 3, 4, 6), (3, 2, 2, 6), (6,), groups=3, stride=2, padding=1),
        "depthwise": normal_case((2, 3, 4, 4), (4, 4, 1, 4), None, groups=4, stride=2, padding=1),
        "pointwise": normal_case((2, 3, 4, 5), (1, 1, 6, 5), (6,)),
        "to few channels": normal_case((2, 3, 4, 5), (4, 4, 1, 5), (1,), stride=2, padding=1),
        "no images": normal_case((0, 3, 4, 4), (3, 3, 3, 4), (3,), stride=2),
    },
)
def conv_transpose(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Numbers = 1,
    padding: Pairs = 0,
    output_padding: Numbers = 0,
    dilation: Numbers = 1,
    groups: int = 1,
) -> Array:
    """y[n, j, o] = Σ_{t, c} x[n, i, c] w[t, o, c] + b[o] where j = stride i + dilation t - low.

    The adjoint of `conv` with the same `w`, stride, padding, dilation and groups: it takes what
    that makes back to the size of what that takes. The kernel is not flipped.

    Args:
        x: Images, `(batch, *spatial, channels)`, floating, with 1, 2 or 3 spatial axes.
        w: Kernel, `(*kernel, outputs / groups, channels)`: of the convolution from the outputs to
            the channels.
        b: Bias, `(outputs,)`, or None.
        stride: Distance between the windows that numbers are spread over, one for all axes or one
            for each.
        padding: How much of the output to take away: an int for every side, or an int or a pair
            (low, high) for each axis. It is the padding of the convolution.
        output_padding: How much longer to make the output at the end, below the stride: a
            convolution with a stride takes several sizes to one.
        dilation: Distance between a window's taps, one for all axes or one for each.
        groups: Channels and outputs are cut into so many groups, each with its own kernel.

    Returns:
        `(batch, *lengths, outputs)`, each length (n - 1) stride + dilation (k - 1) + 1 - low - high
        + output_padding, in the dtype that JAX promotes the arguments to.

    Raises:
        ValueError: If the shapes do not fit each other, or an option does not fit the shapes.
        TypeError: If x is not floating.

    >>> conv_transpose(jnp.ones((1, 7, 7, 8)), jnp.ones((4, 4, 3, 8)), stride=2, padding=1).shape
    (1, 14, 14, 3)

    Reference: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016,
    section 4.
    """
    _check_conv_transpose(x, w, b, groups)
    inputs, kernel = promoted(x, w)
    placed = _placed(x, w, stride, padding, output_padding, dilation)
    return plus(plain_slide_back(kernel, inputs, placed, groups), b, inputs)
