"""A sequence as one vector, of what a learned query looks for."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..nn.layer import Layer, stateless, take
from ..ops.shared.precision import spread
from ..types import Array, Key, Params, require
from . import initializers
from .attention import Attention
from .initializers import drawn


def AttentionPool(
    heads: int, *, bias: bool = True, init: Callable = initializers.normal(0.02)
) -> Layer:
    """The mean over time that a learned query takes by attention; see `fn.Attention`.

    Inputs are x `(batch, time, features)` and perhaps a boolean mask `(batch, time)`, True where
    there is a token: what it leaves out has no effect, NaN neither. Of a sequence of no tokens the
    output is the bias of `out`.

    Args:
        heads: Number of heads; it divides the features.
        bias: Whether the projections add one.
        init: Draws the query, `(features,)`.

    Returns:
        A layer named "attention_pool": to `(batch, features)`. Its parameters are the `query` and
        those of an `attention`.

    Raises:
        TypeError: At `init`, if `init` is no function or gives another shape.
        ValueError: If the heads do not divide the features, or the inputs do not fit.

    >>> x, mask = jnp.ones((2, 5, 8)), jnp.arange(5) < jnp.array([[5], [2]])
    >>> params, _ = AttentionPool(2).init(jax.random.key(0), x, mask)
    >>> params["query"].shape, AttentionPool(2)(params, x, mask).shape
    ((8,), (2, 8))

    Reference: Lee et al., "Set Transformer", 2019, equation 11, with one seed and attention alone.
    """
    attention = Attention(heads, bias=bias)

    def begin(key: Key, x: Array, mask: Array | None = None) -> Params:
        _check(x, mask)
        at_query, at_attention = jax.random.split(key)
        query = drawn(init, at_query, x.shape[-1:], initializers.float_dtype(x))
        return {"query": query, "attention": attention.init(at_attention, x)[0]}

    def apply(params: Params, x: Array, mask: Array | None = None) -> Array:
        _check(x, mask)
        query, of_attention = take("attention_pool", params, "query", "attention")
        shape = (len(x), 1, len(query))
        queries = jnp.broadcast_to(spread(query, shape), shape)
        if mask is None:
            return attention(of_attention, queries, x)[:, 0]
        tokens = jnp.where(mask[..., None], x, 0)  # attention multiplies by 0, and NaN stays NaN
        return attention(of_attention, queries, tokens, mask[:, None, None])[:, 0]

    return stateless(begin, apply, "attention_pool")


def _check(x: Array, mask: Array | None) -> None:
    require(
        jnp.ndim(x) == 3 and jnp.issubdtype(jnp.result_type(x), jnp.floating),
        "attention_pool",
        "x (batch, time, features) of a floating dtype",
        f"{jnp.result_type(x)} of shape {jnp.shape(x)}",
        "Of images write x.reshape(batch, -1, channels).",
    )
    require(
        mask is None or (mask.dtype == jnp.bool_ and mask.shape == x.shape[:2]),
        "attention_pool",
        f"a boolean mask of shape {x.shape[:2]}, one for each token",
        f"{mask.dtype} of shape {mask.shape}" if mask is not None else "none",
        "Compare: mask = ids != 0.",
    )
