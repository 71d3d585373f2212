"""Convolution: the op whose backward pass is two further convolutions.

The input's gradient slides the flipped kernel over the cotangent; the kernel's gradient slides the
cotangent over the input, with the batch in the place of the channels that are summed. Stride of
the forward pass turns into dilation of the cotangent in both.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ..rules import Case, normal_case, rule
from ..types import Array, require
from . import windows
from .precision import wide
from .windows import Axis, Padding

THIN = (3, 32)
"""On the CPU, shifted multiply-adds win up to so many input channels and channels x kernel taps."""

NARROW = (6, 75)
"""The same for the input's gradient as one matrix product, whose columns are put back by taps."""


def _check_conv(x: Array, w: Array, b: Array | None, groups: int) -> None:
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


def _promoted(x: Array, w: Array) -> tuple[Array, Array]:
    dtype = jnp.result_type(x, w)
    return jnp.asarray(x, dtype), jnp.asarray(w, dtype)


def _placed(
    x: Array, w: Array, stride: int | Sequence[int], padding: Padding, dilation: int | Sequence[int]
) -> tuple[Axis, ...]:
    return windows.axes(
        "conv", x.shape[1:-1], w.shape[:-2], stride=stride, padding=padding, dilation=dilation
    )


def _pointwise(placed: Sequence[Axis], groups: int) -> bool:
    """Whether the convolution is a matrix product over the channels alone."""
    plain = all(a.window == a.stride == 1 and a.low == a.high == 0 for a in placed)
    return groups == 1 and plain


def _images(spatial: int) -> tuple[int, ...]:
    """Dimension numbers of (batch, *spatial, channels), as (batch, channels, *spatial)."""
    return (0, spatial + 1, *range(1, spatial + 1))


def _kernels(spatial: int) -> tuple[int, ...]:
    """Dimension numbers of (*kernel, channels, outputs), as (outputs, channels, *kernel)."""
    return (spatial + 1, spatial, *range(spatial))


def _slide(x: Array, w: Array, placed: Sequence[Axis], groups: int) -> Array:
    """The convolution as XLA has it."""
    images = _images(len(placed))
    return jax.lax.conv_general_dilated(
        x,
        w,
        window_strides=[a.stride for a in placed],
        padding=[(a.low, a.high) for a in placed],
        rhs_dilation=[a.dilation for a in placed],
        dimension_numbers=jax.lax.ConvDimensionNumbers(images, _kernels(len(placed)), images),
        feature_group_count=groups,
        preferred_element_type=wide(x),
    )


def _shifted(x: Array, w: Array, placed: Sequence[Axis]) -> Array:
    """The convolution as a sum over kernel taps and channels, each one multiply-add over images."""
    kernel = w.astype(wide(x))
    views = {(): x.astype(wide(x))}
    for dimension, axis in enumerate(placed, 1):
        views = {
            (*at, tap): seen
            for at, view in views.items()
            for tap, seen in enumerate(windows.taps(view, axis, dimension))
        }
    total = jnp.zeros((), wide(x))
    for (at, view), channel in itertools.product(views.items(), range(x.shape[-1])):
        total = total + view[..., channel : channel + 1] * kernel[(*at, channel)]
    return total


def _conv_of(x: Array, w: Array, placed: Sequence[Axis], groups: int) -> Array:
    """The convolution in the dtype it is summed in."""
    if _pointwise(placed, groups):
        rows, matrix = x.reshape(-1, x.shape[-1]), w.reshape(w.shape[-2:])
        y = jnp.matmul(rows, matrix, preferred_element_type=wide(x))
        return y.reshape(*x.shape[:-1], w.shape[-1])
    channels, terms = THIN
    if groups == 1 and 0 < x.shape[-1] <= channels and w.size <= terms * w.shape[-1]:
        return jax.lax.platform_dependent(
            x,
            w,
            cpu=lambda x, w: _shifted(x, w, placed),
            default=lambda x, w: _slide(x, w, placed, groups),
        )
    return _slide(x, w, placed, groups)


def _dx_of(w: Array, dy: Array, placed: Sequence[Axis], groups: int) -> Array:
    if _pointwise(placed, groups):
        rows = dy.reshape(-1, w.shape[-1]) @ w.reshape(w.shape[-2:]).T
        return rows.reshape(*dy.shape[:-1], w.shape[-2])
    channels, terms = NARROW
    if groups == 1 and 0 < w.shape[-2] <= channels and w.size <= terms * w.shape[-1]:
        return jax.lax.platform_dependent(
            w,
            dy,
            cpu=lambda w, dy: _put_back(w, dy, placed),
            default=lambda w, dy: _slide_back(w, dy, placed, groups),
        )
    return _slide_back(w, dy, placed, groups)


def _put_back(w: Array, dy: Array, placed: Sequence[Axis]) -> Array:
    """What each output sends to each tap, as one product; then the taps of one axis at a time."""
    rows = jnp.matmul(
        dy.reshape(-1, w.shape[-1]),
        w.reshape(-1, w.shape[-1]).T,
        preferred_element_type=wide(dy),
    )
    sent = rows.reshape(*dy.shape[:-1], *w.shape[:-1])
    for dimension in range(len(placed), 0, -1):
        taps = jnp.moveaxis(sent, dimension + len(placed), 0)
        sent = windows.untap(list(taps), placed[dimension - 1], dimension)
    return sent.astype(dy.dtype)


def _slide_back(w: Array, dy: Array, placed: Sequence[Axis], groups: int) -> Array:
    """The convolution of the cotangent, spread out by the stride, with the kernel turned round."""
    spatial, (channels, outputs) = range(len(placed)), w.shape[-2:]
    parted = jnp.flip(w, spatial).reshape(*w.shape[:-1], groups, outputs // groups)
    swapped = jnp.moveaxis(parted, -3, -1)
    back = jnp.moveaxis(swapped, -3, -2)
    kernel = back.reshape(*w.shape[:-2], outputs // groups, groups * channels)
    before = [a.reach - 1 - a.low for a in placed]
    images = _images(len(placed))
    return jax.lax.conv_general_dilated(
        dy,
        kernel,
        window_strides=[1] * len(placed),
        padding=[
            (low, a.size + a.reach - 1 - a.span - low)
            for low, a in zip(before, placed, strict=True)
        ],
        lhs_dilation=[a.stride for a in placed],
        rhs_dilation=[a.dilation for a in placed],
        dimension_numbers=jax.lax.ConvDimensionNumbers(images, _kernels(len(placed)), images),
        feature_group_count=groups,
    )


def _dw_of(x: Array, dy: Array, placed: Sequence[Axis], groups: int) -> Array:
    if _pointwise(placed, groups):
        dw = x.reshape(-1, x.shape[-1]).T @ dy.reshape(-1, dy.shape[-1])
        return dw.reshape(*(a.window for a in placed), *dw.shape)
    batch, channels, *spatial = _images(len(placed))
    outputs_of_w, channels_of_w, *kernel = _kernels(len(placed))
    return jax.lax.conv_general_dilated(
        x,
        dy,
        window_strides=[a.dilation for a in placed],
        padding=[(a.low, a.reach - 1 + a.span - a.size - a.low) for a in placed],
        rhs_dilation=[a.stride for a in placed],
        dimension_numbers=jax.lax.ConvDimensionNumbers(
            (channels, batch, *spatial),
            (channels, batch, *spatial),
            (channels_of_w, outputs_of_w, *kernel),
        ),
        batch_group_count=groups,
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
    inputs, kernel = _promoted(x, w)
    return _plus(_conv_of(inputs, kernel, placed, groups), b, inputs), (x, w, b)


def _plus(y: Array, b: Array | None, x: Array) -> Array:
    """y + b, rounded to the dtype of x, or to that of x + b where that is wider."""
    return y.astype(x.dtype) if b is None else (y + b).astype(jnp.result_type(x, b))


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
    inputs, kernel = _promoted(x, w)
    dz = dy.astype(inputs.dtype)
    db = None if b is None else dy.sum(tuple(range(dy.ndim - 1)))
    return _dx_of(kernel, dz, placed, groups), _dw_of(inputs, dz, placed, groups), db


def _thin(key: Array) -> tuple[Array, Array, Array]:
    image, kernel, bias = jax.random.split(key, 3)
    return (
        jax.random.normal(image, (2, 7, 6, 1)),
        jax.random.normal(kernel, (3, 2, 1, 5)),
        jax.random.normal(bias, (5,)),
    )


@rule(
    _conv_forward,
    _conv_backward,
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
        ValueError: If the shapes do not fit each other, or an option does not fit the shapes.

    >>> conv(jnp.ones((1, 28, 28, 1)), jnp.ones((3, 3, 1, 6)), stride=2, padding="SAME").shape
    (1, 14, 14, 6)

    Reference: Dumoulin & Visin, "A guide to convolution arithmetic for deep learning", 2016,
    sections 2 and 4.
    """
    _check_conv(x, w, b, groups)
    inputs, kernel = _promoted(x, w)
    placed = _placed(x, w, stride, padding, dilation)
    return _plus(_slide(inputs, kernel, placed, groups), b, inputs)
