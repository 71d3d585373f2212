"""Attention: each query takes a mean of the values, weighted by how well their keys fit it.

The weights, one for each pair of a query and a key, are what a long sequence has no room for. They
are never kept: backward makes them again from the scores and one number for each query, and of a
long sequence both passes hold them for a few queries at a time.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ...rules.passes import is_narrow
from ...rules.rule import rule
from ...types import Array, Key
from ..activations.dropout import keep_mask
from ..shared.precision import product
from . import cases, checks
from .chunks import added, by_head, by_time, in_chunks, padded
from .scores import Window, all_scores, heads_first, highest, weights_of


def _attention_forward(q, k, v, mask, bias, key, offset, **options):
    """Of each query: the output, and ln Σ eˢ, +∞ for one that may attend to nothing."""
    args = (q, k, v, mask, bias, key, offset)
    chunks = in_chunks(args, options)
    values = chunks.v.swapaxes(-1, -2)

    def body(carry: None, start: Any) -> tuple[None, tuple[Array, Array]]:
        s, _ = chunks.scores(start)
        top = highest(s)
        e = jnp.exp(s - top)
        total = e.sum(-1, keepdims=True)
        none = total == 0
        total = jnp.where(none, 1, total)
        o = chunks.times(chunks.dropped(e, start), chunks.keys(values, start, axis=2)) / total
        return carry, (o, jnp.where(none, jnp.inf, top + jnp.log(total)))

    _, (o, lse) = chunks.each(body, None)
    time = q.shape[1]
    o = by_time(o, time).astype(jnp.result_type(q, k, v))
    return o, (args, None if is_narrow(o) else o, lse[:, :, :, :time])


def _attention_backward(res, do, **options):
    """With Z = scale q kᵀ and S = softcap tanh(Z / softcap) + bias, or Z + bias without a cap,
    P = exp(S − lse), and M the dropout mask over 1 − drop:
    dv = (M P)ᵀ do;  dS = P (M (do vᵀ) − Σ o do);  dbias = dS
    dZ = dS (1 − tanh²(Z / softcap));  dq = scale dZ k;  dk = scale dZᵀ q
    """
    args, o, lse = res
    chunks = in_chunks(args, options)
    (time, groups), bias = (args[0].shape[1], args[1].shape[2]), chunks.bias
    keys = chunks.k.swapaxes(-1, -2)
    do = do.astype(lse.dtype)
    lse = padded(lse, chunks.chunk, jnp.inf)
    mean = None
    if o is not None:
        mean = padded(by_head((do * o).sum(-1, keepdims=True), groups), chunks.chunk)
    do = padded(by_head(do, groups), chunks.chunk)

    def body(carry: tuple, start: Any) -> tuple[tuple, Array]:
        dk, dv, dbias = carry
        first = chunks.first(start)
        s, slope = chunks.scores(start)
        p = jnp.exp(s - chunks.rows(lse, start))
        dy = chunks.rows(do, start)
        dp = chunks.dropped(chunks.times(dy, chunks.keys(chunks.v, start)), start)
        # A rounded o would spoil the difference, so 16-bit dtypes take the mean from p itself.
        ds = p * (
            dp - ((p * dp).sum(-1, keepdims=True) if mean is None else chunks.rows(mean, start))
        )
        if bias is not None:
            shared = tuple(axis for axis, n in enumerate(bias.shape) if n == 1)
            dbias = added(dbias, ds.sum(shared, keepdims=True), {3: start, 4: first})
        dz = ds * slope
        dv = added(dv, chunks.over(dy, chunks.dropped(p, start)), {3: first})
        dk = added(dk, chunks.over(chunks.rows(chunks.q, start), dz), {3: first})
        return (dk, dv, dbias), chunks.times(dz, chunks.keys(keys, start, axis=2)) * chunks.scale

    zeros = None if bias is None else jnp.zeros_like(bias)
    nothing = (jnp.zeros_like(chunks.k, lse.dtype), jnp.zeros_like(chunks.v, lse.dtype), zeros)
    (dk, dv, dbias), dq = chunks.each(body, nothing)
    if dbias is not None:
        dbias = dbias[:, :, :, :time].reshape(jnp.shape(args[4]))
    dk, dv = (dk * chunks.scale).transpose(0, 3, 1, 2), dv.transpose(0, 3, 1, 2)
    return by_time(dq, time), dk, dv, None, dbias, None, None


@rule(
    _attention_forward,
    _attention_backward,
    cases=cases.ATTENTION,
    check=checks.attention,
    recomputes=True,
    rounds=True,
    fast=True,
)
def attention(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None = None,
    bias: Array | None = None,
    key: Key | None = None,
    offset: Array | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    drop: float = 0.0,
    chunk: int | None = None,
    window: int | Window | None = None,
    softcap: float | None = None,
) -> Array:
    """softmax(scale q kᵀ + bias) v, head by head.

    Keeps its arguments, its output unless it has 16 bits, and ln Σ exp of each query's scores:
    nothing for each pair of a query and a key. No pass ever holds more of those than `chunk`
    queries have, so that memory grows as the sequence does.

    Args:
        q: Queries, `(batch, time, heads, width)`.
        k: Keys, `(batch, keys, key heads, width)`, where the number of key heads divides that of
            heads: each serves as many heads in a row (grouped-query attention; 1 is multi-query).
        v: Values, `(batch, keys, key heads, any width)`.
        mask: Boolean, True where a query may attend, of a shape that broadcasts to
            `(batch, heads, queries, keys)`. A query that may attend to nothing gives 0.
        bias: Added to the scores, of a shape that broadcasts likewise; it gets a gradient.
        key: One random key for dropout, which is drawn again in backward; the same for any chunk.
        offset: The position of the first query among the keys, one integer, for `causal` and
            `window`; None for 0. With a cache it is the number of tokens before; to end queries
            and keys together, it is keys − queries.
        causal: Whether a query attends to the keys up to its own position alone.
        scale: What the scores are multiplied by; None for 1 / √width.
        drop: Probability of dropping a pair, the rest growing by 1 / (1 − drop).
        chunk: How many queries to look at together, in a loop; None for 256 where there are 2^20
            pairs of a query and a key or more, and for all at once where there are fewer.
        window: How many keys before and after its own position a query attends to: a number, or
            `(before, after)`, each a number or None for all. Where both ends are known, a chunk
            looks at no other keys (dropout is drawn for all of them).
        softcap: Where given, scores z are softcap tanh(z / softcap), before the bias.

    Returns:
        `(batch, time, heads, any width)`, in the dtype that q, k and v promote to; 16-bit dtypes
        are multiplied as they are, summed in float32, and rounded once.

    Raises:
        TypeError: If q, k, v or a bias is not floating, a mask not boolean, the key no key, or an
            offset no integer.
        ValueError: If a shape does not fit, or an option is out of range.

    >>> q = k = jnp.zeros((1, 3, 1, 2))
    >>> v = jnp.array([3.0, 5.0, 7.0]).reshape(1, 3, 1, 1)
    >>> attention(q, k, v, causal=True).ravel().tolist()
    [3.0, 4.0, 5.0]
    >>> attention(q, k, v, causal=True, window=1).ravel().tolist()
    [3.0, 4.0, 6.0]

    Reference: Vaswani et al., "Attention Is All You Need", 2017, equation 1; Dao et al.,
        "FlashAttention", 2022, appendix B.2 (the backward pass); Rabe & Staats, "Self-attention
        Does Not Need O(n²) Memory", 2021, section 2 (chunks); Beltagy et al., "Longformer", 2020,
        section 3.1 (windows); Gemma Team, "Gemma 2", 2024, section 2 (the soft cap).
    """
    s, _ = all_scores(
        q, k, mask, bias, offset, causal=causal, scale=scale, window=window, softcap=softcap
    )
    p = weights_of(s)
    if drop:
        assert key is not None
        batch, time, heads = q.shape[:3]
        shape = batch, k.shape[2], heads // k.shape[2], k.shape[1]
        rows = jax.vmap(lambda row: keep_mask(jax.random.fold_in(key, row), shape, drop))
        kept = jnp.moveaxis(rows(jnp.arange(time)), 0, 3).reshape(p.shape)
        p = jnp.where(kept, p / (1 - drop), 0)
    dtype = jnp.result_type(q, k, v)
    return heads_first(product(p, heads_first(v, q.shape[2]), dtype)).astype(dtype)
