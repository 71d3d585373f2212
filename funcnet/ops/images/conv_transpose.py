"""Transposed convolution: the adjoint of a convolution, to make images larger.

A convolution takes each window to one number; its adjoint spreads each number over a window. So
forward and backward change places: what is the input's gradient there is the output here, and the
input's gradient here is a plain convolution. Both share one kernel.
"""

from ...rules.passes import widened
from ...rules.rule import rule
from ...types import Array
from ..fast.conv import plain_slide_back, plus, promoted, slide, slide_back, slide_weights
from ..fast.rows import sum_over
from ..shared.windows import Axis, Numbers, Pairs, adjoint_axes
from . import cases
from .checks import kernel_under


def _placed(
    x: Array, w: Array, stride: Numbers, padding: Pairs, output_padding: Numbers, dilation: Numbers
) -> tuple[Axis, ...]:
    """The windows of the convolution that this is the adjoint of."""
    return adjoint_axes(
        x.shape[1:-1],
        w.shape[:-2],
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
    )


def _conv_transpose_forward(x, w, b, *, stride, padding, output_padding, dilation, groups):
    inputs, kernel = promoted(x, w)
    placed = _placed(x, w, stride, padding, output_padding, dilation)
    return plus(slide_back(kernel, inputs, placed, groups), b, inputs), (x, w)


def _conv_transpose_backward(res, dy, *, stride, padding, output_padding, dilation, groups):
    """dx[n, i, c] = Σ_{t, o} dy[n, stride i + dilation t - low, o] w[t, o, c]
    dw[t, o, c] = Σ_{n, i} dy[n, stride i + dilation t - low, o] x[n, i, c]
    db[o] = Σ_{n, j} dy[n, j, o]
    """
    inputs, kernel = promoted(*res)
    placed = _placed(inputs, kernel, stride, padding, output_padding, dilation)
    dz, db = dy.astype(inputs.dtype), sum_over(widened(dy), range(dy.ndim - 1))
    return slide(dz, kernel, placed, groups), slide_weights(dz, inputs, placed, groups), db


@rule(
    _conv_transpose_forward,
    _conv_transpose_backward,
    cases=cases.CONV_TRANSPOSE,
    check=kernel_under,
    fast=True,
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
        + output_padding, in the dtype that JAX promotes the arguments to; 16-bit products are
        summed in float32 and rounded once.

    Raises:
        ValueError: If the shapes do not fit each other, or an option does not fit the shapes.
        TypeError: If x is not floating.

    >>> import jax.numpy as jnp
    >>> conv_transpose(jnp.ones((1, 7, 7, 8)), jnp.ones((4, 4, 3, 8)), stride=2, padding=1).shape
    (1, 14, 14, 3)

    Reference: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016,
    section 4.
    """
    inputs, kernel = promoted(x, w)
    placed = _placed(x, w, stride, padding, output_padding, dilation)
    return plus(plain_slide_back(kernel, inputs, placed, groups), b, inputs)
