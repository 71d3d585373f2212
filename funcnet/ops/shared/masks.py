"""Masks: booleans that broadcast to an array and say which of its entries count."""

import math
from collections.abc import Sequence

import jax.numpy as jnp

from ...types import Array, require
from .precision import wide


def broadcasts(op: str, x: Array, where: Array | None) -> None:
    """Raise unless the mask is boolean and broadcasts to x; None stands for all.

    Raises:
        TypeError: If `where` is not boolean.
        ValueError: If it does not broadcast to x.
    """
    require(
        where is None or jnp.result_type(where) == jnp.bool_,
        op,
        "where of dtype bool",
        f"{where is not None and jnp.result_type(where)}",
        "Compare: where = mask != 0.",
        TypeError,
    )
    shape = () if where is None else jnp.shape(where)
    ends = zip(reversed(shape), reversed(jnp.shape(x)), strict=False)
    require(
        len(shape) <= jnp.ndim(x) and all(n in (1, size) for n, size in ends),
        op,
        f"where of a shape that broadcasts to {jnp.shape(x)}, that of x",
        f"shape {shape}",
        "Add the axis of channels: where[..., None].",
    )


def masked(x: Array, where: Array | None) -> Array:
    """`x` with 0 at the places that do not count.

    >>> masked(jnp.array([1.0, jnp.nan]), jnp.array([True, False])).tolist()
    [1.0, 0.0]
    """
    return x if where is None else jnp.where(where, x, 0)


def count_along(x: Array, where: Array | None, axes: Sequence[int]) -> Array | int:
    """How many entries of x count along the axes, which stay with length 1; 1 where none does.

    >>> x, where = jnp.ones((2, 3)), jnp.array([[True, False, True], [False] * 3])
    >>> count_along(x, None, (1,)), count_along(x, where, (1,)).tolist()
    (3, [[2.0], [1.0]])
    """
    if where is None:
        return max(math.prod(x.shape[axis] for axis in axes), 1)
    own = (1,) * (x.ndim - jnp.ndim(where)) + jnp.shape(where)
    along = {axis % x.ndim for axis in axes}
    shape = [n if axis in along else own[axis] for axis, n in enumerate(x.shape)]
    counted = jnp.broadcast_to(where, shape).sum(tuple(along), keepdims=True)
    return jnp.maximum(counted, 1).astype(wide(x))
