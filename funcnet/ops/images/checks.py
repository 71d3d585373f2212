"""What the arguments of ops over windows and edges have to be."""

import math
import sys
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from ...types import Array, is_whole, require
from ..shared import windows
from ..shared.precision import floating, one_array
from ..shared.windows import SPATIAL, WORDS, Axis

MODES = ("constant", "reflect", "edge", "wrap")
METHODS = ("nearest", "nearest-exact", "bilinear", "cubic")


def number_per_axis(op: str, what: str, value: Any, count: int) -> None:
    """Raise unless a value is a whole number of 1 or more, or one for each of `count` axes."""
    numbers = value if isinstance(value, Sequence) else (value,) * count
    require(
        len(numbers) == count and all(map(is_whole, numbers)),
        op,
        f"a {what} of 1 or more: one whole number, or one for each spatial axis",
        repr(value),
        f"Write {what}=2, or {what}={(2,) * count}.",
    )


def _padding(op: str, padding: Any, count: int) -> None:
    if isinstance(padding, str):
        require(
            padding in WORDS,
            op,
            f"padding among {', '.join(WORDS)}, or numbers",
            repr(padding),
            "Words are in capitals; numbers are an int, or a pair (low, high) for each axis.",
        )
        require(
            padding != "CAUSAL" or count == 1,
            op,
            "one spatial axis for CAUSAL padding",
            f"{count} of them",
            "Pad by hand the axis that is time: padding=((k - 1, 0), (0, 0)).",
        )
        return
    entries = padding if isinstance(padding, Sequence) else (padding,) * count
    pairs = [entry if isinstance(entry, Sequence) else (entry, entry) for entry in entries]
    require(
        len(pairs) == count
        and all(len(pair) == 2 and all(is_whole(n, 0) for n in pair) for pair in pairs),
        op,
        "padding of 0 or more: one whole number, or for each spatial axis a number or a pair "
        "(low, high)",
        repr(padding),
        f"Write padding=1, or padding={((1, 1),) * count}.",
    )


def fitting_windows(
    op: str, sizes: Sequence[int], window: Sequence[int], stride: Any, padding: Any, dilation: Any
) -> tuple[Axis, ...]:
    """The windows, which are no larger than the padded input."""
    number_per_axis(op, "stride", stride, len(sizes))
    number_per_axis(op, "dilation", dilation, len(sizes))
    _padding(op, padding, len(sizes))
    placed = windows.axes(sizes, window, stride=stride, padding=padding, dilation=dilation)
    require(
        all(a.reach <= a.padded for a in placed),
        op,
        f"windows no larger than the padded input {[a.padded for a in placed]}",
        f"windows that reach over {[a.reach for a in placed]}",
        'Use a smaller window, a larger input, or padding="SAME".',
    )
    return placed


def _kernel(op: str, w: Array, layout: str) -> None:
    require(
        jnp.ndim(w) in (3, 4, 5),
        op,
        f"w of rank 3, 4 or 5 ({layout})",
        f"shape {jnp.shape(w)}",
        "A PyTorch weight is the other way round: for two axes pass w.transpose(2, 3, 1, 0).",
    )


def _images_for(op: str, x: Array, w: Array, hint: str) -> None:
    names = ("batch", *SPATIAL[w.ndim - 2], "channel")
    require(
        jnp.ndim(x) == w.ndim,
        op,
        f"x of rank {w.ndim} ({', '.join(names)})",
        f"shape {jnp.shape(x)}",
        hint,
    )


def _groups(op: str, x: Array, groups: int) -> None:
    require(
        is_whole(groups) and x.shape[-1] % groups == 0,
        op,
        f"a number of groups that divides {x.shape[-1]}, the number of channels of x",
        f"groups={groups!r}",
        "Choose a divisor of the number of channels.",
    )


def _bias(op: str, b: Array | None, outputs: int) -> None:
    require(
        b is None or jnp.shape(b) == (outputs,),
        op,
        f"b of shape ({outputs},), one for each output",
        f"shape {b is not None and jnp.shape(b)}",
        "Pass None for no bias.",
    )


def kernel_over(
    op: str,
    *,
    x: Array,
    w: Array,
    b: Array | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> None:
    """Raise unless a kernel fits the images that it moves over."""
    one_array(op, x)
    layout = "*kernel, channels / groups, outputs"
    _kernel(op, w, layout)
    _images_for(op, x, w, _missing_axes(jnp.shape(x), w.shape))
    _groups(op, x, groups)
    require(
        w.shape[-1] > 0 and 0 not in w.shape[:-2],
        op,
        "w of one output or more, and one tap or more along each axis",
        f"shape {w.shape}",
        f"Its axes are ({layout}).",
    )
    require(
        w.shape[-1] % groups == 0,
        op,
        f"a number of groups that divides {w.shape[-1]}, the number of outputs of w",
        f"groups={groups}",
        "Choose a divisor of the number of outputs.",
    )
    require(
        x.shape[-1] == w.shape[-2] * groups,
        op,
        f"x whose last axis has length {w.shape[-2] * groups}, the channels that w of shape "
        f"{w.shape} takes",
        f"shape {x.shape}",
        f"Channels come last: x is (batch, *spatial, channels), w ({layout}).",
    )
    _bias(op, b, w.shape[-1])
    fitting_windows(op, x.shape[1:-1], w.shape[:-2], stride, padding, dilation)


def _missing_axes(shape: tuple[int, ...], kernel: tuple[int, ...]) -> str:
    if len(shape) == len(kernel) - 2:
        return f"Add the missing axes: x[None, {':, ' * len(shape)}None]."
    if len(shape) == len(kernel) - 1:
        index = "None" if shape[-1] == kernel[-2] else "..., None"
        return f"Add the missing axis: x[{index}]."
    return "The rank of x is that of w."


def kernel_under(
    op: str,
    *,
    x: Array,
    w: Array,
    b: Array | None,
    stride: Any,
    padding: Any,
    output_padding: Any,
    dilation: Any,
    groups: int,
) -> None:
    """Raise unless a kernel fits the images whose numbers it spreads out."""
    floating(op, x)
    layout = "*kernel, outputs / groups, channels"
    _kernel(op, w, layout)
    _images_for(op, x, w, "Add the missing axes: x[None] is a batch of one.")
    require(
        x.shape[-1] == w.shape[-1] and 0 not in x.shape[1:-1],
        op,
        f"x of {w.shape[-1]} channels, the last axis of w, and something to spread",
        f"shape {x.shape}",
        f"Channels come last: x is (batch, *spatial, channels), w ({layout}).",
    )
    _groups(op, x, groups)
    _bias(op, b, w.shape[-2] * groups)
    require(
        not isinstance(padding, str),
        op,
        "padding in numbers",
        repr(padding),
        "Sizes that are multiplied by the stride s take a kernel of 2 s and padding=s // 2.",
    )
    spatial = w.ndim - 2
    number_per_axis(op, "stride", stride, spatial)
    number_per_axis(op, "dilation", dilation, spatial)
    _output_padding(op, output_padding, windows.per_axis(stride, spatial))
    _padding(op, padding, spatial)
    placed = windows.adjoint_axes(
        x.shape[1:-1],
        w.shape[:-2],
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
    )
    require(
        all(a.size >= 1 for a in placed),
        op,
        f"padding that leaves something of the full output {[a.padded for a in placed]}",
        repr(padding),
        "Padding takes away from the output here: use less.",
    )


def _output_padding(op: str, given: Any, strides: tuple[int, ...]) -> None:
    extra = given if isinstance(given, Sequence) else (given,) * len(strides)
    require(
        len(extra) == len(strides)
        and all(is_whole(n, 0) and n < s for n, s in zip(extra, strides, strict=True)),
        op,
        f"output_padding from 0 to below the stride {strides}",
        repr(given),
        "It chooses among the sizes that the convolution takes to that of x.",
    )


def images(op: str, x: Array) -> None:
    """Raise unless x is floating images of one to three spatial axes, of one pixel at least."""
    require(
        jnp.ndim(x) - 2 in SPATIAL and all(n >= 1 for n in jnp.shape(x)[1:-1]),
        op,
        "x of rank 3, 4 or 5 (batch, *spatial, channels), with one pixel at least",
        f"shape {jnp.shape(x)}",
        "Batch comes first and channels last: x[None] is a batch of one.",
    )
    floating(op, x)


def other_size(
    op: str, *, x: Array, shape: Any, method: str, antialias: bool, align_corners: bool
) -> None:
    """Raise unless x is images, and the size and the way to it are such."""
    images(op, x)
    require(
        method in METHODS,
        op,
        f"a method among {', '.join(METHODS)}",
        repr(method),
        "PyTorch's linear and trilinear are bilinear too: the number of axes is that of x.",
    )
    require(
        method in METHODS[2:] or not (antialias or align_corners),
        op,
        f"antialias and align_corners with a method among {', '.join(METHODS[2:])}",
        repr(method),
        "The nearest pixel is read whole.",
    )
    number_per_axis(op, "shape", shape, x.ndim - 2)


def _factors(op: str, x: Array, factor: Any) -> tuple[int, ...]:
    images(op, x)
    number_per_axis(op, "factor", factor, x.ndim - 2)
    return windows.per_axis(factor, x.ndim - 2)


def channels_for_blocks(op: str, *, x: Array, factor: Any) -> None:
    """Raise unless each block of pixels finds its channels."""
    block = math.prod(_factors(op, x, factor))
    require(
        x.shape[-1] % block == 0,
        op,
        f"a number of channels that {block} divides, the pixels of a block",
        f"shape {x.shape}",
        "Each output channel takes one input channel for each pixel of its block.",
    )


def pixels_for_blocks(op: str, *, x: Array, factor: Any) -> None:
    """Raise unless x is made of whole blocks."""
    factors = _factors(op, x, factor)
    require(
        all(n % f == 0 for n, f in zip(x.shape[1:-1], factors, strict=True)),
        op,
        f"spatial axes that {factors} divide",
        f"shape {x.shape}",
        "Pad or crop first: the image is cut into whole blocks.",
    )


def _is_pair(pair: Any) -> bool:
    whole = isinstance(pair, tuple) and all(is_whole(n, -sys.maxsize) for n in pair)
    return whole and len(pair) == 2


def widths_for(op: str, *, x: Array, widths: Any, mode: str, value: float) -> None:
    """Raise unless x has what is to be copied or cropped."""
    shape = jnp.shape(x)
    require(
        mode in MODES,
        op,
        f"a mode among {', '.join(MODES)}",
        repr(mode),
        "PyTorch's replicate is edge, and its circular is wrap.",
    )
    require(
        value == 0 or mode == "constant",
        op,
        f"no value in mode {mode}",
        value,
        "Only mode constant fills in a value.",
    )
    require(
        isinstance(widths, tuple) and len(widths) == len(shape) and all(map(_is_pair, widths)),
        op,
        "widths as pairs (low, high) of integers, one for each axis of x",
        f"{widths} for shape {shape}",
        "Write (0, 0) for an axis that stays as it is.",
    )
    for axis, (n, (low, high)) in enumerate(zip(shape, widths, strict=True)):
        require(
            n + min(low, 0) + min(high, 0) >= 0,
            op,
            f"to crop at most {n} from axis {axis}, its length",
            (low, high),
            "Negative widths crop.",
        )
        wanted = max(low, high)
        most = {"reflect": max(n - 1, 0), "wrap": n, "edge": wanted if n else 0}.get(mode, wanted)
        require(
            wanted <= most,
            op,
            f"widths of at most {most} along axis {axis} of length {n} in mode {mode}",
            (low, high),
            "There is nothing more to copy: pad twice, or use mode constant.",
        )
