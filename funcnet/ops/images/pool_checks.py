"""What the arguments of pools have to be."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...jaxpr.jaxprs import is_traced
from ...types import Array, require, shown
from ..shared import windows
from ..shared.masks import broadcasts
from ..shared.precision import floating, one_array
from ..shared.windows import SPATIAL
from .checks import fitting_windows, number_per_axis


def in_windows(
    op: str, *, x: Array, window: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> None:
    """Raise unless each window holds something of x."""
    spatial = len(window) if isinstance(window, Sequence) else max(jnp.ndim(x) - 2, 1)
    names = SPATIAL.get(spatial, ("*spatial",))
    require(
        jnp.ndim(x) == spatial + 2,
        op,
        f"x of rank {spatial + 2} ({', '.join(('batch', *names, 'channel'))})",
        f"shape {jnp.shape(x)}",
        "Batch comes first and channels last; a window has one length for each axis between.",
    )
    number_per_axis(op, "window", window, spatial)
    lengths = windows.per_axis(window, spatial)
    step = lengths if stride is None else stride
    placed = fitting_windows(op, x.shape[1:-1], lengths, step, padding, dilation)
    require(
        all(max(a.low, a.high) < a.reach for a in placed),
        op,
        f"padding smaller than the window {lengths}",
        repr(padding),
        "A window that holds nothing but padding has no value.",
    )
    require(
        all((windows.ceiled(a) if ceil_mode else a).filled.all() for a in placed),
        op,
        "something of x at a tap of each window",
        f"padding={padding!r} and dilation={dilation!r} for shape {jnp.shape(x)}",
        "Use less of one of them.",
    )


def floats_in_windows(
    op: str,
    *,
    x: Array,
    where: Array | None,
    window: Any,
    stride: Any,
    padding: Any,
    count_include_pad: bool,
    dilation: Any,
    ceil_mode: bool,
) -> None:
    """Raise unless x is floating, each window holds something of it, and the mask fits."""
    floating(op, x)
    in_windows(
        op,
        x=x,
        window=window,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
    )
    broadcasts(op, x, where)
    require(
        where is None or not count_include_pad,
        op,
        "either where or count_include_pad",
        "both",
        "What where leaves out does not count, and neither does padding then.",
    )


def norms_of_windows(
    op: str,
    *,
    x: Array,
    window: Any,
    p: float,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> None:
    """Raise unless x is floating, each window holds something of it, and p makes a norm."""
    floating(op, x)
    in_windows(
        op,
        x=x,
        window=window,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
    )
    require(
        isinstance(p, Real) and 1 <= p < math.inf,
        op,
        "a finite p of 1 or more",
        shown(p),
        "The limit of a large p is max_pool of the magnitudes.",
    )


def places(op: str, *, x: Array, where: Array | None) -> None:
    """Raise unless x has spatial axes, none of them empty, and the mask fits."""
    require(
        jnp.ndim(x) >= 3 and 0 not in x.shape[1:-1],
        op,
        "x of rank 3 or more (batch, *spatial, channel) with something to pool",
        f"shape {jnp.shape(x)}",
        "Batch comes first and channels last.",
    )
    broadcasts(op, x, where)


def floats_at_places(op: str, *, x: Array, where: Array | None) -> None:
    """Raise unless x is floating and has spatial axes, none of them empty, and the mask fits."""
    places(op, x=x, where=where)
    floating(op, x)


def bins(op: str, *, x: Array, shape: Any) -> None:
    """Raise unless x is images, with something to pool, and the number of bins fits."""
    require(
        jnp.ndim(x) - 2 in SPATIAL and 0 not in jnp.shape(x)[1:-1],
        op,
        "x of rank 3, 4 or 5 (batch, *spatial, channel) with something to pool",
        f"shape {jnp.shape(x)}",
        "Batch comes first and channels last.",
    )
    number_per_axis(op, "shape", shape, jnp.ndim(x) - 2)


def floats_in_bins(op: str, *, x: Array, shape: Any) -> None:
    """Raise unless x is floating images, with something to pool, and the number of bins fits."""
    bins(op, x=x, shape=shape)
    floating(op, x)


def numbers_at_places(op: str, *, x: Array, indices: Array, shape: Any) -> None:
    """Raise unless each number has an index in an image of this shape, as far as can be seen."""
    one_array(op, x)
    require(
        jnp.ndim(x) >= 3 and 0 not in jnp.shape(x)[1:-1],
        op,
        "x of rank 3 or more (batch, *windows, channel) with something to put",
        f"shape {jnp.shape(x)}",
        "Batch comes first and channels last.",
    )
    one_array(op, indices, "indices")
    require(
        jnp.issubdtype(jnp.result_type(indices), jnp.integer),
        op,
        "indices of an integer dtype",
        f"{jnp.result_type(indices)}",
        "They are the second output of max_pool_with_indices.",
        TypeError,
    )
    require(
        jnp.shape(indices) == jnp.shape(x),
        op,
        f"indices of shape {jnp.shape(x)}, one for each number of x",
        f"shape {jnp.shape(indices)}",
        "They are the second output of max_pool_with_indices.",
    )
    number_per_axis(op, "shape", shape, jnp.ndim(x) - 2)
    count = math.prod(windows.per_axis(shape, jnp.ndim(x) - 2))
    if not is_traced(indices) and np.size(indices):
        known = np.asarray(indices)
        low, high = known.min(), known.max()
        require(
            low >= 0 and high < count,
            op,
            f"indices from 0 to {count - 1}, the last pixel of shape={shape!r}",
            f"indices from {low} to {high}",
            "The shape is that of the image that was pooled, without batch and channels.",
        )
