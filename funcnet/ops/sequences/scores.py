"""The scores of queries and keys, as they are defined; and which pairs a query may see."""

import math

import jax
import jax.numpy as jnp

from ...types import Array
from ..shared.precision import product

Window = tuple[int | None, int | None]
"""How many keys before and after its own position a query sees; None for all."""


def bounds(causal: bool, window: int | Window | None) -> Window:
    """The window as a pair, in which a causal query sees no key after its own position.

    >>> bounds(True, 3), bounds(False, (2, None)), bounds(True, None)
    ((3, 0), (2, None), (None, 0))
    """
    ends = window if isinstance(window, tuple) else (window, window)
    left, right = (None if n is None else min(n, 2**31 - 1) for n in ends)
    return left, 0 if causal else right


def in_window(queries: Array, keys: Array, window: Window) -> Array | None:
    """Whether a query at each of these positions sees keys at those; None where all see all."""
    left, right = window
    seen = None if left is None else queries - keys <= left
    if right is None:
        return seen
    ahead = keys - queries <= right
    return ahead if seen is None else seen & ahead


def position(offset: Array | None) -> Array | int:
    """That of the first query among the keys, in a dtype that has room for differences."""
    return 0 if offset is None else jnp.asarray(offset, jnp.int32)


def scale_of(q: Array, scale: float | None) -> float:
    """What the scores are multiplied by: 1 / √width unless it is given."""
    return 1 / math.sqrt(max(q.shape[-1], 1)) if scale is None else scale


def capped(z: Array, softcap: float | None) -> tuple[Array, Array | float]:
    """softcap tanh(z / softcap), and its slope."""
    if softcap is None:
        return z, 1.0
    height = jnp.tanh(z / softcap)
    return softcap * height, 1 - jnp.square(height)


def all_scores(
    q: Array,
    k: Array,
    mask: Array | None,
    bias: Array | None,
    offset: Array | None,
    *,
    causal: bool,
    scale: float | None,
    window: int | Window | None,
    softcap: float | None,
) -> tuple[Array, Array | float]:
    """`(batch, heads, queries, keys)`, −∞ where a query may not attend; the slope of the cap."""
    z = product(heads_first(q), heads_first(k, q.shape[2]).mT, jnp.result_type(q, k))
    s, slope = capped(z * scale_of(q, scale), softcap)
    if bias is not None:
        s = s + bias
    if mask is not None:
        s = jnp.where(mask, s, -jnp.inf)
    queries = jnp.arange(q.shape[1])[:, None] + position(offset)
    seen = in_window(queries, jnp.arange(k.shape[1]), bounds(causal, window))
    return (s if seen is None else jnp.where(seen, s, -jnp.inf)), slope


def heads_first(x: Array, heads: int | None = None) -> Array:
    """(batch, time, heads, width) to (batch, heads, time, width); each as often as it serves."""
    x = x.transpose(0, 2, 1, 3)
    return x if heads is None else jnp.repeat(x, heads // x.shape[1], axis=1)


def weights_of(scores: Array) -> Array:
    """Their softmax over the keys: 0 throughout for a query that may attend to nothing."""
    top = highest(scores)
    e = jnp.exp(scores - top)
    total = e.sum(-1, keepdims=True)
    return e / jnp.where(total == 0, 1, total)


def highest(scores: Array) -> Array:
    """What may be taken from all scores of a query without changing their weights."""
    top = jax.lax.stop_gradient(scores.max(-1, keepdims=True, initial=-jnp.inf))
    return jnp.where(jnp.isneginf(top), 0, top)
