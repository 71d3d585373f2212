"""The three maps of a convolution, each in the form that is fastest for its shape.

`slide` moves the kernel over the input; `slide_back` is its adjoint in the input, `slide_weights`
its adjoint in the kernel. A convolution goes forward by the first and backward by the other two, a
transposed one forward by the second and backward by the first and the third.
"""

import functools
import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ...types import Array
from ..shared import windows
from ..shared.precision import wide
from ..shared.varying import devices
from ..shared.windows import Axis
from . import depthwise

THIN = (3, 32)
"""On the CPU, shifted multiply-adds win up to so many input channels and channels x kernel taps."""

NARROW = (6, 75, 2**20)
"""The same for the input's gradient as one matrix product, whose columns are put back by taps; and
up to so many elements of that product, which is made in full."""


def promoted(x: Array, w: Array) -> tuple[Array, Array]:
    """Both in the dtype that they promote to."""
    dtype = jnp.result_type(x, w)
    return jnp.asarray(x, dtype), jnp.asarray(w, dtype)


def plus(y: Array, b: Array | None, x: Array) -> Array:
    """y + b, rounded to the dtype of x, or to that of x + b where that is wider."""
    return y.astype(x.dtype) if b is None else (y + b).astype(jnp.result_type(x, b))


def _pointwise(placed: Sequence[Axis], groups: int) -> bool:
    """Whether the convolution is a matrix product over the channels alone."""
    plain = all(a.window == a.stride == 1 and a.low == a.high == 0 for a in placed)
    return groups == 1 and plain


def _depthwise(channels: int, groups: int) -> bool:
    """Whether every channel has a kernel of its own."""
    return 1 < groups == channels


def _rows(x: Array) -> Array:
    """The channels of each place as a row."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _images(spatial: int) -> tuple[int, ...]:
    """Dimension numbers of (batch, *spatial, channels), as (batch, channels, *spatial)."""
    return (0, spatial + 1, *range(1, spatial + 1))


def _kernels(spatial: int) -> tuple[int, ...]:
    """Dimension numbers of (*kernel, channels, outputs), as (outputs, channels, *kernel)."""
    return (spatial + 1, spatial, *range(spatial))


def plain_slide(x: Array, w: Array, placed: Sequence[Axis], groups: int) -> Array:
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


def plain_slide_back(w: Array, dy: Array, placed: Sequence[Axis], groups: int) -> Array:
    """The convolution of the cotangent, spread out by the stride, with the kernel turned round."""
    spatial, (channels, outputs) = range(len(placed)), w.shape[-2:]
    parted = jnp.flip(w, spatial).reshape(*w.shape[:-1], groups, outputs // groups)
    back = jnp.swapaxes(parted, -3, -1)
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
        preferred_element_type=wide(dy),
    )


def plain_slide_weights(x: Array, dy: Array, placed: Sequence[Axis], groups: int) -> Array:
    """The input convolved with the cotangent, the batch in the place of the channels."""
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


def slide(x: Array, w: Array, placed: Sequence[Axis], groups: int) -> Array:
    """The convolution in the dtype it is summed in."""
    plain = functools.partial(plain_slide, placed=placed, groups=groups)
    if _pointwise(placed, groups):
        return _product(x, w.reshape(w.shape[-2:]))
    if _depthwise(x.shape[-1], groups):
        on_cpu = functools.partial(depthwise.slide, placed=placed)
    elif _is_thin(x, w, groups):
        on_cpu = functools.partial(_shifted, placed=placed)
    else:
        return plain(x, w)
    return jax.lax.platform_dependent(x, w, cpu=on_cpu, default=plain)


def slide_back(w: Array, dy: Array, placed: Sequence[Axis], groups: int) -> Array:
    """The adjoint of `slide` in its input, in the dtype it is summed in."""
    plain = functools.partial(plain_slide_back, placed=placed, groups=groups)
    if _pointwise(placed, groups):
        return _product(dy, w.reshape(w.shape[-2:]).T)
    if _depthwise(w.shape[-2] * groups, groups):
        on_cpu = functools.partial(depthwise.slide_back, placed=placed, channels=groups)
    elif _is_narrow(w, dy, groups):
        on_cpu = functools.partial(_put_back, placed=placed)
    else:
        return plain(w, dy)
    return jax.lax.platform_dependent(w, dy, cpu=on_cpu, default=plain)


def slide_weights(x: Array, dy: Array, placed: Sequence[Axis], groups: int) -> Array:
    """The adjoint of `slide` in its kernel."""
    plain = functools.partial(plain_slide_weights, placed=placed, groups=groups)
    if _pointwise(placed, groups):
        return _product_weights(x, dy, placed)
    if _depthwise(x.shape[-1], groups):
        if devices() > 1:  # image after image, each of which another device may hold
            return plain(x, dy)
        on_cpu = functools.partial(depthwise.slide_weights, placed=placed)
    elif groups > 1:
        on_cpu = functools.partial(_weights_by_group, placed=placed, groups=groups)
    elif all(a.window == 1 and a.low == a.high == 0 for a in placed):
        on_cpu = functools.partial(_product_weights, placed=placed)
    else:
        return plain(x, dy)
    return jax.lax.platform_dependent(x, dy, cpu=on_cpu, default=plain)


def _product(x: Array, matrix: Array) -> Array:
    """Each place's channels times a matrix."""
    y = jnp.matmul(_rows(x), matrix, preferred_element_type=wide(x))
    return y.reshape(*x.shape[:-1], matrix.shape[-1])


def _is_thin(x: Array, w: Array, groups: int) -> bool:
    """Whether shifted multiply-adds win."""
    channels, terms = THIN
    return groups == 1 and 0 < x.shape[-1] <= channels and w.size <= terms * w.shape[-1]


def _is_narrow(w: Array, dy: Array, groups: int) -> bool:
    """Whether one matrix product wins, whose columns are put back by taps."""
    channels, terms, most = NARROW
    taps = w.size // max(w.shape[-1], 1)
    few = taps <= terms and taps * math.prod(dy.shape[:-1]) <= most
    return groups == 1 and 0 < w.shape[-2] <= channels and few


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
    return sent


def _product_weights(x: Array, dy: Array, placed: Sequence[Axis]) -> Array:
    """The gradient of a 1x1 kernel, as one product over all places that it saw."""
    seen = jax.lax.slice(
        x,
        [0] * x.ndim,
        [x.shape[0], *(a.span for a in placed), x.shape[-1]],
        [1, *(a.stride for a in placed), 1],
    )
    dw = _rows(seen).T @ _rows(dy)
    return dw.reshape(*(a.window for a in placed), *dw.shape)


def _weights_by_group(x: Array, dy: Array, placed: Sequence[Axis], groups: int) -> Array:
    """One convolution for each group: XLA's own grouped one runs a scalar at a time on the CPU."""
    parts = zip(jnp.split(x, groups, -1), jnp.split(dy, groups, -1), strict=True)
    return jnp.concatenate([plain_slide_weights(*part, placed, 1) for part in parts], -1)
