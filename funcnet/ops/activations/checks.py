"""What the arguments of activations and of dropout have to be."""

import math
from collections.abc import Callable, Sequence
from numbers import Real

import jax
import jax.numpy as jnp

from ...types import Array, Key, require
from ..shared.precision import floating, on_axes


def floats(op: str, *, x: Array) -> None:
    """Raise unless x is floating."""
    floating(op, x)


def above_zero(name: str, advice: str) -> Callable[..., None]:
    """A check: x is floating, and the static argument `name` above 0."""

    def _is_above_zero(op: str, *, x: Array, **static: float) -> None:
        floating(op, x)
        require(static[name] > 0, op, f"{name} > 0", static[name], advice)

    return _is_above_zero


def not_below_zero(name: str, advice: str) -> Callable[..., None]:
    """A check: x is floating, and the static argument `name` 0 or more."""

    def _is_not_below_zero(op: str, *, x: Array, **static: float) -> None:
        floating(op, x)
        require(static[name] >= 0, op, f"{name} of 0 or more", static[name], advice)

    return _is_not_below_zero


def limited(op: str, *, x: Array, low: float, high: float) -> None:
    """Raise unless x is floating and the limits are in order."""
    floating(op, x)
    require(
        low < high, op, "low below high", f"{low} and {high}", "They are the ends of the range."
    )


def slope_of_channels(op: str, *, x: Array, slope: Array) -> None:
    """Raise unless x is floating and has one slope, or one for each channel."""
    floating(op, x)
    channels = jnp.shape(x)[-1:]
    require(
        jnp.shape(slope) in ((), channels),
        op,
        f"slope of shape () or {channels}, one for each channel"
        if channels
        else "slope of shape ()",
        f"shape {jnp.shape(slope)}",
        "The channels are the last axis of x.",
    )


def halves(op: str, *, x: Array, axis: int) -> None:
    """Raise unless x is floating and the axis can be cut in two halves."""
    floating(op, x)
    require(
        -jnp.ndim(x) <= axis < jnp.ndim(x) and jnp.shape(x)[axis] % 2 == 0,
        op,
        f"x with an even number of entries along axis {axis}",
        f"shape {jnp.shape(x)}",
        "One half is the value, the other its gate.",
    )


def masked_rows(op: str, *, x: Array, where: Array | None, axis: int | Sequence[int]) -> None:
    """Raise unless x is floating, has these axes, and the mask broadcasts to it."""
    floating(op, x)
    on_axes(op, x, axis, "The axis is the one whose entries compete.")
    if where is None:
        return
    require(
        jnp.result_type(where) == jnp.bool_,
        op,
        "a boolean `where`",
        f"{jnp.result_type(where)}",
        "True means that an entry takes part: pass mask > 0, or mask.astype(bool).",
        TypeError,
    )
    pairs = zip(reversed(jnp.shape(where)), reversed(jnp.shape(x)), strict=False)
    require(
        jnp.ndim(where) <= jnp.ndim(x) and all(m in (1, n) for m, n in pairs),
        op,
        f"a `where` that broadcasts to the shape {jnp.shape(x)} of x",
        f"shape {jnp.shape(where)}",
        "Add axes of length 1: where[:, None].",
    )


def droppable(op: str, *, x: Array, key: Key, drop: float) -> None:
    """Raise unless x is floating, the key one random key, and `drop` a probability below 1."""
    floating(op, x)
    require(
        isinstance(drop, Real) and 0 <= drop < 1,
        op,
        "a probability to drop, from 0 to less than 1",
        repr(drop),
        "It is the part that is set to zero, not the part that is kept.",
    )
    typed = is_typed(key)
    require(
        typed or getattr(key, "dtype", None) == jnp.uint32,
        op,
        "a random key",
        f"{getattr(key, 'dtype', type(key).__name__)}",
        "Make one with jax.random.key(0).",
        TypeError,
    )
    require(
        jnp.ndim(key) == (0 if typed else 1),
        op,
        "one key",
        f"keys of shape {jnp.shape(key)}",
        "Use jax.vmap for one key to each example.",
    )


def droppable_along(
    op: str, *, x: Array, key: Key, drop: float, broadcast_dims: Sequence[int]
) -> None:
    """Raise unless x is `droppable`, has these axes, and its mask's numbers fit into 32 bits."""
    droppable(op, x=x, key=key, drop=drop)
    rank = jnp.ndim(x)
    require(
        all(-rank <= d < rank for d in broadcast_dims),
        op,
        f"broadcast_dims from {-rank} to {rank - 1}" if rank else "no broadcast_dims for a scalar",
        tuple(broadcast_dims),
        "They are the axes of x along which one mask is shared.",
    )
    sizes = mask_shape(jnp.shape(x), broadcast_dims)
    require(
        math.prod(sizes) <= 2**32,
        op,
        "a mask of at most 2^32 numbers",
        f"shape {sizes}",
        "Apply it to slices, each with its own key.",
    )


def is_typed(key: Key) -> bool:
    """Whether it is a key as `jax.random.key` makes it, and not the older array of words."""
    return hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def mask_shape(shape: Sequence[int], broadcast_dims: Sequence[int]) -> tuple[int, ...]:
    """The shape with length 1 along the axes that share a mask.

    >>> mask_shape((2, 3, 4), (-1,))
    (2, 3, 1)
    """
    shared = {d % len(shape) for d in broadcast_dims}
    return tuple(1 if d in shared else n for d, n in enumerate(shape))
