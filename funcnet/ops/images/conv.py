"""Convolution: the op whose backward pass is two further convolutions.

The input's gradient slides the flipped kernel over the cotangent; the kernel's gradient slides the
cotangent over the input, with the batch in the place of the channels that are summed. Stride of
the forward pass turns into dilation of the cotangent in both.

    y[n, i, o] = Σ_{t, c} x[n, stride i + dilation t - low, c] w[t, c, o] + b[o]

for image n, window i, tap t, channel c and output o, with `low` the padding before the image, and
within each group of channels.
"""

from ...rules.passes import widened
from ...rules.rule import rule
from ...types import Array
from ..fast.conv import plain_slide, plus, promoted, slide, slide_back, slide_weights
from ..fast.rows import sum_over
from ..shared.windows import Axis, Numbers, Padding, axes
from . import cases
from .checks import kernel_over


def _placed(
    x: Array, w: Array, stride: Numbers, padding: Padding, dilation: Numbers
) -> tuple[Axis, ...]:
    return axes(x.shape[1:-1], w.shape[:-2], stride=stride, padding=padding, dilation=dilation)


def _conv_forward(x, w, b, *, stride, padding, dilation, groups):
    inputs, kernel = promoted(x, w)
    placed = _placed(x, w, stride, padding, dilation)
    return plus(slide(inputs, kernel, placed, groups), b, inputs), (x, w)


def _conv_backward(res, dy, *, stride, padding, dilation, groups):
    """dx[n, i, c] = Σ_{t, o} dy[n, (i + low - dilation t) / stride, o] w[t, c, o], where it divides
    dw[t, c, o] = Σ_{n, i} x[n, stride i + dilation t - low, c] dy[n, i, o]
    db[o] = Σ_{n, i} dy[n, i, o]
    """
    inputs, kernel = promoted(*res)
    placed = _placed(inputs, kernel, stride, padding, dilation)
    dz = dy.astype(inputs.dtype)
    db = sum_over(widened(dy), range(dy.ndim - 1))
    return slide_back(kernel, dz, placed, groups), slide_weights(inputs, dz, placed, groups), db


@rule(_conv_forward, _conv_backward, cases=cases.CONV, check=kernel_over, fast=True)
def conv(
    x: Array,
    w: Array,
    b: Array | None = None,
    *,
    stride: Numbers = 1,
    padding: Padding = "VALID",
    dilation: Numbers = 1,
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
        `(batch, *windows, outputs)`, in the dtype that JAX promotes the arguments to;
        16-bit products are summed in float32 and rounded once.

    Raises:
        TypeError: If x is no array.
        ValueError: If the shapes do not fit each other, or an option does not fit the shapes.

    >>> import jax.numpy as jnp
    >>> conv(jnp.ones((1, 28, 28, 1)), jnp.ones((3, 3, 1, 6)), stride=2, padding="SAME").shape
    (1, 14, 14, 6)

    Reference: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016,
    sections 2 and 4.
    """
    inputs, kernel = promoted(x, w)
    placed = _placed(x, w, stride, padding, dilation)
    return plus(plain_slide(inputs, kernel, placed, groups), b, inputs)
