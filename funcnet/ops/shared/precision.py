"""Which dtype to compute in: 16-bit inputs are computed in float32 and rounded once, at the end."""

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


def widened(x: Any) -> Array:
    """`x` in float32 or wider."""
    return jnp.asarray(x, wide(x))


def is_coarse(x: Array) -> bool:
    """Whether `x` is 16-bit: rounded so, an output near its limit no longer tells the slope."""
    return jnp.finfo(x.dtype).bits < 32
