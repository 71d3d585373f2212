"""Attention: each query takes a mean of the values, weighted by how well their keys fit it.

The weights, one for each pair of a query and a key, are what a long sequence has no room for. They
are never kept: backward makes them again from the scores and one number for each query, and with
`chunk` both passes hold them for a few queries at a time.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...rules.passes import is_narrow
from ...rules.rule import rule
from ...types import Array, Key
from ..activations.dropout import keep_mask
from ..shared.precision import product, wide
from . import cases, checks


class _Rows(NamedTuple):
    """The scores of any rows of queries, from arrays laid out for products of matrices.

    Attributes:
        q: (batch, key heads, queries' heads for each, time, width), the time a multiple of chunk.
        k: (batch, key heads, width, keys).
        v: (batch, key heads, width of values, keys).
        mask: None, or of rank 5 with each length that of the scores, or 1.
        bias: The same.
        key: For dropout.
        chunk: How many queries are looked at together.
        options: The op's static arguments.
    """

    q: Array
    k: Array
    v: Array
    mask: Array | None
    bias: Array | None
    key: Key | None
    chunk: int
    options: dict[str, Any]

    def scores(self, start: Any) -> Array:
        """(…, chunk, keys), −∞ where a query may not attend."""
        s = self.times(self.of(self.q, start), self.k) * self.scale
        if self.bias is not None:
            s = s + self.of(self.bias, start)
        if self.mask is not None:
            s = jnp.where(self.of(self.mask, start), s, -jnp.inf)
        if self.options["causal"]:
            row = start + jax.lax.broadcasted_iota(jnp.int32, s.shape, 3)
            s = jnp.where(row >= jax.lax.broadcasted_iota(jnp.int32, s.shape, 4), s, -jnp.inf)
        return s

    @property
    def scale(self) -> float:
        scale = self.options["scale"]
        return 1 / math.sqrt(max(self.q.shape[-1], 1)) if scale is None else scale

    def of(self, x: Array, start: Any) -> Array:
        """The rows of `x` that belong to the chunk."""
        alone = x.shape[3] in (1, self.chunk)
        return x if alone else jax.lax.dynamic_slice_in_dim(x, start, self.chunk, axis=3)

    def times(self, rows: Array, matrix: Array) -> Array:
        """rows · matrix, one product for all the heads that share the matrix."""
        batch, heads, group, n, width = rows.shape
        y = product(rows.reshape(batch, heads, group * n, width), matrix, self.q.dtype)
        return y.reshape(batch, heads, group, n, matrix.shape[-1])

    def over(self, left: Array, right: Array) -> Array:
        """leftᵀ · right, summed over queries and over the heads that share a key."""
        a, b = (x.reshape(*x.shape[:2], x.shape[2] * x.shape[3], x.shape[4]) for x in (left, right))
        return product(a.swapaxes(-1, -2), b, self.q.dtype)  # the left one is small: it is copied

    def dropped(self, p: Array, start: Any) -> Array:
        """`p` with the entries that dropout hits set to 0; drawn row by row, whatever the chunk."""
        drop = self.options["drop"]
        if not drop:
            return p
        shape, key = (*p.shape[:3], p.shape[4]), self.key
        assert key is not None
        rows = start + jnp.arange(self.chunk)
        kept = jax.vmap(lambda row: keep_mask(jax.random.fold_in(key, row), shape, drop))(rows)
        return jnp.where(jnp.moveaxis(kept, 0, 3), p * (1 / (1 - drop)), 0)


def _rows(args: tuple, options: dict[str, Any]) -> _Rows:
    q, k, v, mask, bias, key = args
    time, heads = q.shape[1:3]
    groups, dtype = k.shape[2], jnp.result_type(q, k, v)
    chunk = min(options["chunk"] or time, time)

    def pairs(x: Array | None) -> Array | None:
        if x is None:
            return None
        b, h, t, s = (1,) * (4 - jnp.ndim(x)) + jnp.shape(x)
        split = (groups, heads // groups) if h == heads else (1, 1)
        x = jnp.reshape(x, (b, *split, t, s))
        return x if t == 1 else _padded(x, chunk)

    return _Rows(
        _padded(_by_head(q.astype(dtype), groups), chunk),
        k.astype(dtype).transpose(0, 2, 3, 1),
        v.astype(dtype).transpose(0, 2, 3, 1),
        pairs(mask),
        None if bias is None else pairs(bias.astype(wide(dtype))),
        key,
        chunk,
        options,
    )


def _by_head(x: Array, groups: int) -> Array:
    """(batch, time, heads, width) to (batch, groups, heads of a group, time, width)."""
    batch, time, heads, width = x.shape
    return x.reshape(batch, time, groups, heads // groups, width).transpose(0, 2, 3, 1, 4)


def _by_time(x: Array, time: int) -> Array:
    """Back again, less the rows that filled up the last chunk."""
    batch, groups, each, _, width = x.shape
    x = x[:, :, :, :time].transpose(0, 3, 1, 2, 4)
    return x.reshape(batch, time, groups * each, width)


def _padded(x: Array, chunk: int, value: float = 0) -> Array:
    """Filled up along the queries to whole chunks."""
    short = -x.shape[3] % max(chunk, 1)
    widths = ((0, 0), (0, 0), (0, 0), (0, short), (0, 0))
    return jnp.pad(x, widths, constant_values=value) if short else x


def _chunked(body: Callable[[Any, Any], tuple], carry: Any, rows: _Rows) -> tuple[Any, Any]:
    """`body(carry, start)` for each chunk; what it gives for its rows, put together."""
    n = rows.q.shape[3] // max(rows.chunk, 1)
    if n <= 1:
        return body(carry, 0)
    carry, parts = jax.lax.scan(body, carry, jnp.arange(n) * rows.chunk)

    def joined(part: Array) -> Array:
        part = jnp.moveaxis(part, 0, 3)
        return part.reshape(*part.shape[:3], n * rows.chunk, part.shape[-1])

    return carry, jax.tree.map(joined, parts)


def _attend(args: tuple, options: dict[str, Any]) -> tuple[Array, Array]:
    """The output, and ln Σ eˢ of each query: +∞ for one that may attend to nothing."""
    rows = _rows(args, options)
    v = rows.v.swapaxes(-1, -2)

    def body(carry: None, start: Any) -> tuple[None, tuple[Array, Array]]:
        s = rows.scores(start)
        top = jax.lax.stop_gradient(s.max(-1, keepdims=True, initial=-jnp.inf))
        top = jnp.where(top == -jnp.inf, 0, top)
        e = jnp.exp(s - top)
        total = e.sum(-1, keepdims=True)
        none = total == 0
        total = jnp.where(none, 1, total)
        o = rows.times(rows.dropped(e, start), v) / total
        return carry, (o, jnp.where(none, jnp.inf, top + jnp.log(total)))

    _, (o, lse) = _chunked(body, None, rows)
    time = args[0].shape[1]
    return _by_time(o, time).astype(jnp.result_type(*args[:3])), lse[:, :, :, :time]


def _attention_forward(q, k, v, mask, bias, key, *, causal, scale, drop, chunk):
    args = (q, k, v, mask, bias, key)
    o, lse = _attend(args, {"causal": causal, "scale": scale, "drop": drop, "chunk": chunk})
    return o, (args, None if is_narrow(o) else o, lse)


def _attention_backward(res, do, *, causal, scale, drop, chunk):
    """With S = scale q kᵀ + bias, P = exp(S − lse), and M the dropout mask over 1 − drop:
    dv = (M P)ᵀ do;  dS = P (M (do vᵀ) − Σ o do);  dbias = dS
    dq = scale dS k;  dk = scale dSᵀ q
    """
    args, o, lse = res
    rows = _rows(args, {"causal": causal, "scale": scale, "drop": drop, "chunk": chunk})
    q, groups, bias = args[0], args[1].shape[2], rows.bias
    k = rows.k.swapaxes(-1, -2)
    do = do.astype(lse.dtype)
    lse = _padded(lse, rows.chunk, jnp.inf)
    mean = None
    if o is not None:
        mean = (do * o).sum(-1, keepdims=True)
        mean = _padded(_by_head(mean, groups), rows.chunk)
    do = _padded(_by_head(do, groups), rows.chunk)
    total = None if bias is None or bias.shape[3] > 1 else jnp.zeros_like(bias)

    def body(carry: tuple, start: Any) -> tuple[tuple, tuple]:
        dk, dv, dbias = carry
        p = jnp.exp(rows.scores(start) - rows.of(lse, start))
        dy = rows.of(do, start)
        dp = rows.dropped(rows.times(dy, rows.v), start)
        # A rounded o would spoil the difference, so 16-bit dtypes take the mean from p itself.
        ds = p * (dp - ((p * dp).sum(-1, keepdims=True) if mean is None else rows.of(mean, start)))
        dv = dv + rows.over(dy, rows.dropped(p, start))
        dk = dk + rows.over(rows.of(rows.q, start), ds)
        dq = rows.times(ds, k) * rows.scale
        if bias is None:
            return (dk, dv, None), (dq, None)
        part = ds.sum(tuple(d for d, n in enumerate(bias.shape) if n == 1), keepdims=True)
        if total is None:
            return (dk, dv, None), (dq, part)
        return (dk, dv, dbias + part), (dq, None)

    start = (jnp.zeros_like(rows.k, lse.dtype), jnp.zeros_like(rows.v, lse.dtype), total)
    (dk, dv, total), (dq, part) = _chunked(body, start, rows)
    dbias = total if part is None else part[:, :, :, : q.shape[1]]
    dbias = None if dbias is None else dbias.reshape(jnp.shape(args[4]))
    dq = _by_time(dq, q.shape[1])
    dk, dv = (dk * rows.scale).transpose(0, 3, 1, 2), dv.transpose(0, 3, 1, 2)
    return dq, dk, dv, None, dbias, None


@rule(
    _attention_forward,
    _attention_backward,
    cases=cases.ATTENTION,
    check=checks.attention,
    recomputes=True,
    rounds=True,
)
def attention(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None = None,
    bias: Array | None = None,
    key: Key | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    drop: float = 0.0,
    chunk: int | None = None,
) -> Array:
    """softmax(scale q kᵀ + bias) v, head by head.

    Keeps its arguments, its output unless it has 16 bits, and ln Σ exp of each query's scores:
    nothing for each pair of a query and a key. With `chunk` no pass ever holds more of those than
    `chunk` queries have.

    Args:
        q: Queries, `(batch, time, heads, width)`.
        k: Keys, `(batch, keys, key heads, width)`, where the number of key heads divides that of
            heads: each serves as many heads in a row (grouped-query attention; 1 is multi-query).
        v: Values, `(batch, keys, key heads, any width)`.
        mask: Boolean, True where a query may attend, of a shape that broadcasts to
            `(batch, heads, queries, keys)`. A query that may attend to nothing gives 0.
        bias: Added to the scores, of a shape that broadcasts likewise; it gets a gradient.
        key: One random key for dropout, which is drawn again in backward; the same for any chunk.
        causal: Whether query i attends to the keys 0 to i alone.
        scale: What the scores are multiplied by; None for 1 / √width.
        drop: Probability of dropping a pair, the rest growing by 1 / (1 − drop).
        chunk: How many queries to look at together, in a loop; None for all at once.

    Returns:
        `(batch, time, heads, any width)`, in the dtype that q, k and v promote to; 16-bit dtypes
        are multiplied as they are, summed in float32, and rounded once.

    Raises:
        TypeError: If q, k, v or a bias is not floating, a mask not boolean, or the key no key.
        ValueError: If a shape does not fit, or an option is out of range.

    >>> q = k = jnp.zeros((1, 3, 1, 2))
    >>> v = jnp.array([3.0, 5.0, 7.0]).reshape(1, 3, 1, 1)
    >>> attention(q, k, v, causal=True).ravel().tolist()
    [3.0, 4.0, 5.0]

    Reference: Vaswani et al., "Attention Is All You Need", 2017, equation 1; Dao et al.,
        "FlashAttention", 2022, appendix B.2 (the backward pass); Rabe & Staats, "Self-attention
        Does Not Need O(n²) Memory", 2021, section 2 (chunks).
    """
    options = {"causal": causal, "scale": scale, "drop": drop, "chunk": chunk}
    return _attend((q, k, v, mask, bias, key), options)[0]
