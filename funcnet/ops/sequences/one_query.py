"""Attention of one query, with the keys and values as a cache has them."""

import jax.numpy as jnp

from ...types import Array
from ..shared.precision import product
from .scores import Window, bounds, capped, in_window, scale_of, weights_of


def one_query(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    position: Array,
    *,
    window: int | Window | None = None,
    softcap: float | None = None,
) -> Array:
    """What the op `attention` gives, `causal`, for one query: two products and nothing transposed.

    Keys and values go into the products as they are: of a view of them XLA would make a copy at
    each step of a loop, since it joins the view to the update of the cache.

    Args:
        q: `(batch, 1, heads, width)`.
        k: `(batch · key heads, keys, width)`.
        v: `(batch · key heads, keys, any width)`.
        mask: Boolean, of a shape that broadcasts to `(batch, heads, 1, keys)`, or None.
        position: That of the query among the keys.
        window: How many keys before its own position the query sees.
        softcap: What scores tend to and never reach.

    Returns:
        `(batch, 1, heads, any width)`, in the dtype that q, k and v promote to.

    >>> q, k = jnp.zeros((1, 1, 1, 2)), jnp.zeros((1, 3, 2))
    >>> v = jnp.array([3.0, 5.0, 7.0]).reshape(1, 3, 1)
    >>> one_query(q, k, v, None, jnp.array(1)).ravel().tolist()
    [4.0]

    Reference: Shazeer, "Fast Transformer Decoding", 2019, section 2.4 (one query at a time).
    """
    (batch, _, heads, width), (rows, keys, _) = q.shape, k.shape
    group, dtype = heads * batch // max(rows, 1), jnp.result_type(q, k, v)
    z = product(q.reshape(rows, group, width), k.mT, dtype)
    s, _ = capped(z * scale_of(q, None), softcap)
    if mask is not None:
        seen = jnp.broadcast_to(mask, (batch, heads, 1, keys)).reshape(rows, group, keys)
        s = jnp.where(seen, s, -jnp.inf)
    seen = in_window(position, jnp.arange(keys), bounds(True, window))
    assert seen is not None
    s = jnp.where(seen, s, -jnp.inf)
    return product(weights_of(s), v, dtype).reshape(batch, 1, heads, v.shape[-1]).astype(dtype)
