"""Dropout whose mask is never kept: the backward pass draws it again from the key.

The mask comes from a counter: each place is a number, hashed with the key. It costs a hundredth of
what `jax.random.bernoulli` does on a CPU, so that drawing it twice is cheaper than keeping it, and
each device of a mesh draws its own part. It is no generator for anything else.
"""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.random import Generator

from ...rules.rule import Case, rule
from ...types import Array, Key, require
from ..shared.precision import floating, widened


def _check_dropout(x: Array, key: Key, drop: float, broadcast_dims: Sequence[int]) -> None:
    floating("dropout", x)
    require(
        isinstance(drop, Real) and 0 <= drop < 1,
        "dropout",
        "a probability to drop, from 0 to less than 1",
        repr(drop),
        "It is the part that is set to zero, not the part that is kept.",
    )
    rank = jnp.ndim(x)
    require(
        all(-rank <= d < rank for d in broadcast_dims),
        "dropout",
        f"broadcast_dims from {-rank} to {rank - 1}" if rank else "no broadcast_dims for a scalar",
        tuple(broadcast_dims),
        "They are the axes of x along which one mask is shared.",
    )
    typed = _is_typed(key)
    words = getattr(key, "dtype", None) == jnp.uint32
    require(
        typed or words,
        "dropout",
        "a random key",
        f"{getattr(key, 'dtype', type(key).__name__)}",
        "Make one with jax.random.key(0).",
        TypeError,
    )
    require(
        jnp.ndim(key) == (0 if typed else 1),
        "dropout",
        "one key",
        f"keys of shape {jnp.shape(key)}",
        "Use jax.vmap for one key to each example.",
    )


def _is_typed(key: Key) -> bool:
    return hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def _mix(h: Array, middle: Array | int) -> Array:
    """Every bit of the result depends on every bit of both arguments."""
    h = (h ^ (h >> 16)) * jnp.uint32(0x7FEB352D)
    h = h ^ middle
    h = (h ^ (h >> 15)) * jnp.uint32(0x846CA68B)
    return h ^ (h >> 16)


def _kept(key: Key, shape: tuple[int, ...], drop: float, broadcast_dims: Sequence[int]) -> Array:
    """The mask, of length 1 along the axes that share it."""
    shared = {d % len(shape) for d in broadcast_dims}
    sizes = tuple(1 if d in shared else n for d, n in enumerate(shape))
    require(
        math.prod(sizes) <= 2**32,
        "dropout",
        "a mask of at most 2^32 numbers",
        f"shape {sizes}",
        "Apply it to slices, each with its own key.",
    )
    words = jax.random.key_data(key) if _is_typed(key) else key
    first = second = jnp.uint32(0x9E3779B9)
    for word in words:  # hashed, since keys that follow one another differ in a single bit
        first, second = _mix(second ^ word, first), _mix(first, word)
    place = jnp.zeros(sizes, jnp.uint32)
    for d, n in enumerate(sizes):
        place = place * jnp.uint32(n % 2**32) + jax.lax.broadcasted_iota(jnp.uint32, sizes, d)
    threshold = min(round(drop * 2**32), 2**32 - 1)
    return _mix(place ^ first, second) >= jnp.uint32(threshold)


def _dropped(x: Array, key: Key, drop: float, broadcast_dims: Sequence[int]) -> Array:
    if drop == 0:
        return jnp.asarray(x)
    numbers = widened(x)
    kept = _kept(key, numbers.shape, drop, broadcast_dims)
    return jnp.where(kept, numbers * (1 / (1 - drop)), 0).astype(jnp.result_type(x))


def _dropout_forward(
    x: Array, key: Key, *, drop: float, broadcast_dims: Sequence[int]
) -> tuple[Array, Key]:
    _check_dropout(x, key, drop, broadcast_dims)
    return _dropped(x, key, drop, broadcast_dims), key


def _dropout_backward(
    key: Key, dy: Array, *, drop: float, broadcast_dims: Sequence[int]
) -> tuple[Array, None]:
    """dx = dy / (1 − drop) where kept, else 0"""
    key, dy = jax.lax.optimization_barrier((key, dy))
    return _dropped(dy, key, drop, broadcast_dims), None


def _case(shape: Sequence[int], *, raw: bool = False, **static: object) -> Case:
    def make(random: Generator) -> tuple:
        bits: Any = random.integers(0, 2**32, 2, np.uint32)
        return random.standard_normal(shape), bits if raw else jax.random.wrap_key_data(bits)

    return Case(make, static)


@rule(
    _dropout_forward,
    _dropout_backward,
    cases={
        "rows": _case((5, 4), drop=0.3),
        "raw key": _case((5, 4), raw=True, drop=0.3),
        "one number": _case((), drop=0.5),
        "channels": _case((2, 3, 3, 4), drop=0.5, broadcast_dims=(1, -2)),
        "nothing dropped": _case((5, 4), drop=0.0),
        "none": _case((0, 4), drop=0.5),
    },
)
def dropout(x: Array, key: Key, *, drop: float, broadcast_dims: Sequence[int] = ()) -> Array:
    """x / (1 − drop) where a coin keeps it, else 0: the expectation is x.

    Keeps the key alone. The same key and shape give the same mask, on every device and in every
    dtype.

    Args:
        x: Any shape.
        key: One random key, `jax.random.key(0)` or the older `jax.random.PRNGKey(0)`.
        drop: The probability that a number is set to 0, from 0 to less than 1.
        broadcast_dims: Axes along which one mask is shared: `(1, 2)` drops whole channels of an
            image `(batch, height, width, channels)`.

    Returns:
        The shape and dtype of `x`.

    Raises:
        TypeError: If `x` is not floating or `key` no key.
        ValueError: If `drop` is out of range, an axis does not exist, there are several keys, or
            the mask would have more than 2^32 numbers.

    >>> y = dropout(jnp.ones(1000), jax.random.key(0), drop=0.2)
    >>> sorted(set(y.tolist())), 0.15 < float((y == 0).mean()) < 0.25
    ([0.0, 1.25], True)

    Reference: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from
    Overfitting", 2014, section 4 (here scaled in training, as section 10 has it).
    """
    _check_dropout(x, key, drop, broadcast_dims)
    return _dropped(x, key, drop, broadcast_dims)
