"""Which dtype to compute in: 16-bit inputs are computed in float32 and rounded once, at the end."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from ...types import Array, require, shown


def floating(where: str, x: Any, name: str = "x") -> Array:
    """The argument `name` of `where` as an array.

    Raises:
        TypeError: If it is None or not floating: an op with a gradient has none among the integers.
    """
    one_array(where, x, name)
    require(
        jnp.issubdtype(jnp.result_type(x), jnp.floating),
        where,
        f"{name} of a floating dtype",
        f"{jnp.result_type(x)}",
        f"Convert it: {name}.astype(jnp.float32).",
        TypeError,
    )
    return jnp.asarray(x)


def one_array(where: str, x: Any, name: str = "x") -> None:
    """Raise unless the argument `name` of `where` is one array.

    Raises:
        TypeError: If it is None, or several in a list or dict.
    """
    require(
        x is not None and not isinstance(x, dict | list | tuple),
        where,
        f"{name} to be an array",
        shown(x),
        "Take it apart in the body of a network(); a function that returns nothing gives None.",
        TypeError,
    )


def wide(*arrays: Any) -> Any:
    """The dtype to compute in: what the arrays promote to, and at least float32 if floating."""
    dtype = jnp.result_type(*arrays)
    floating = jnp.issubdtype(dtype, jnp.inexact)
    return jnp.promote_types(dtype, jnp.float32) if floating else dtype


def product(a: Array, b: Array, dtype: Any) -> Array:
    """a b, of operands in `dtype`, which is the model's, summed in float32 or wider.

    Every product of what was made on the way goes through here: a 16-bit model's operands are
    rounded to its dtype, since hardware multiplies those 8 to 16 times as fast as float32.

    >>> half = jnp.ones((2, 2), jnp.bfloat16)
    >>> product(half.astype(jnp.float32), half, half.dtype).dtype
    dtype('float32')
    """
    return jnp.matmul(a.astype(dtype), b.astype(dtype), preferred_element_type=wide(dtype))


def spread(p: Array, shape: Sequence[int]) -> Array:
    """p, which is to be broadcast to a shape that it fits: broadcast already if it has 16 bits.

    The gradient of a broadcast is a sum, over a batch, say; here it is taken in float32.

    >>> spread(jnp.ones(2, jnp.bfloat16), (3, 2)).shape, spread(jnp.ones(2), (3, 2)).shape
    ((3, 2), (2,))
    """
    dtype = wide(p)
    if dtype == p.dtype:
        return p
    full = jnp.broadcast_shapes(tuple(shape), p.shape)
    return jnp.broadcast_to(p.astype(dtype), full).astype(p.dtype)


def on_axes(op: str, x: Array, axis: int | Sequence[int], meaning: str) -> None:
    """Raise unless x has these axes.

    Raises:
        ValueError: If it has not; the message ends in what the axis means.
    """
    rank = jnp.ndim(x)
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    require(
        all(-rank <= a < rank for a in axes),
        op,
        f"an axis from {-rank} to {rank - 1}" if rank else "x of rank 1 or more",
        f"axis {axis} for shape {jnp.shape(x)}",
        meaning,
    )
