"""Dropout whose mask is never kept: the backward pass draws it again from the key.

The mask comes from a counter: each place is a number, hashed with the key. It costs a hundredth of
what `jax.random.bernoulli` does on a CPU, so that drawing it twice is cheaper than keeping it, and
each device of a mesh draws its own part. It is no generator for anything else.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array, Key
from . import cases
from .checks import droppable_along, is_typed, mask_shape


def _mix(h: Array, middle: Array | int) -> Array:
    """Every bit of the result depends on every bit of both arguments."""
    h = (h ^ (h >> 16)) * jnp.uint32(0x7FEB352D)
    h = h ^ middle
    h = (h ^ (h >> 15)) * jnp.uint32(0x846CA68B)
    return h ^ (h >> 16)


def keep_mask(
    key: Key, shape: Sequence[int], drop: float, broadcast_dims: Sequence[int] = ()
) -> Array:
    """The booleans of one key, True with probability 1 − drop: of length 1 along shared axes.

    >>> keep_mask(jax.random.key(0), (2, 3), 0.5, (1,)).shape
    (2, 1)
    """
    sizes = mask_shape(shape, broadcast_dims)
    words = jax.random.key_data(key) if is_typed(key) else key
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
        return x
    return jnp.where(keep_mask(key, x.shape, drop, broadcast_dims), x * (1 / (1 - drop)), 0)


def _dropout_forward(x, key, *, drop, broadcast_dims):
    return _dropped(x, key, drop, broadcast_dims), key


def _dropout_backward(key, dy, *, drop, broadcast_dims):
    """dx = dy / (1 − drop) where kept, else 0"""
    return _dropped(dy, key, drop, broadcast_dims), None


@rule(
    _dropout_forward,
    _dropout_backward,
    cases=cases.DROPOUT,
    check=droppable_along,
    wide=True,
    recomputes=True,
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
    return _dropped(x, key, drop, broadcast_dims)
