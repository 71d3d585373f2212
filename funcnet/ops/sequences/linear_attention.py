"""Linear attention: the softmax's exponential is replaced by a product, and so a state will do.

What the keys and values so far have in common for all queries is one matrix for each head. A
sequence goes through in chunks: within one, weights of pairs of its own queries and keys; from
chunk to chunk, the matrix alone. Nothing is quadratic in the time, forward or back.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..shared.precision import product, wide
from ..shared.varying import axes_of, varying
from . import cases, scan_checks
from .scores import heads_first

CHUNK = 64
"""How many tokens are looked at together."""


def _feature(x: Array, name: str) -> Array:
    """φ(x), number by number."""
    if name == "elu":
        return jnp.where(x > 0, x + 1, jnp.exp(jnp.where(x > 0, 0, x)))
    return jnp.where(x > 0, x, 0) if name == "relu" else x


def _slope(x: Array, name: str) -> Array | float:
    """φ'(x)."""
    if name == "elu":
        return jnp.exp(jnp.where(x > 0, 0, x))
    return (x > 0).astype(x.dtype) if name == "relu" else 1.0


def _with_ones(v: Array, normalize: bool) -> Array:
    """v, with a column that sums up the weights if they are to be divided by their sum."""
    return jnp.pad(v, ((0, 0),) * 3 + ((0, 1),), constant_values=1) if normalize else v


def _mean(o: Array, normalize: bool) -> Array:
    """Sums of values over the sum of the weights, which is the last column; 0 where that is 0."""
    if not normalize:
        return o
    total = o[..., -1:]
    return jnp.where(total == 0, 0, o[..., :-1] / jnp.where(total == 0, 1, total))


def _mean_back(o: Array, dy: Array, dtype: Any, normalize: bool) -> Array:
    """do = (dy, −dy·y) / total; the last column fits the others as they are multiplied, rounded."""
    if not normalize:
        return dy
    y, total = _mean(o, True), o[..., -1:]
    dy = jnp.where(total == 0, 0, dy / jnp.where(total == 0, 1, total))
    dy = dy.astype(dtype).astype(o.dtype)
    return jnp.concatenate([dy, -(dy * y).sum(-1, keepdims=True)], -1)


def _exactly(a: Array, b: Array, dtype: Any) -> Array:
    """a b with all digits of b, which is a sum: 16-bit numbers are multiplied in two parts of it.

    Products with a state nearly cancel: Σ φ(k) (dy·v − dy·y) is its columns' sum.
    """
    if b.dtype == dtype:
        return product(a, b, dtype)
    info = jnp.finfo(dtype)
    rounded = jax.lax.reduce_precision(b, info.nexp, info.nmant)
    return product(a, rounded, dtype) + product(a, b - rounded, dtype)


def _against(a: Array, b: Array, dtype: Any, normalize: bool) -> Array:
    """a bᵀ, the last column by itself, since it nearly cancels the others."""
    if not normalize:
        return _exactly(a, b.mT, dtype)
    return _exactly(a[..., :-1], b[..., :-1].mT, dtype) + a[..., -1:] * b[..., None, :, -1]


class _Laid(NamedTuple):
    """The arguments, laid out for products of matrices.

    Attributes:
        q: φ(q), `(chunks, batch, key heads, rows, width)`; the rows of a chunk are those of all
            heads that share a key, one head after the other.
        k: φ(k), `(chunks, batch, key heads, chunk, width)`, 0 where masked or filled up.
        v: The values of as many, and a column of ones.
        state: `(batch, key heads, width, columns of v)`.
        steps: How many steps of its chunk each token has behind it, its own too; `(chunks, chunk)`.
        decay: `(key heads, 1, 1)`, or None.
    """

    q: Array
    k: Array
    v: Array
    state: Array
    steps: Array
    decay: Array | None

    def weights(self, steps: Array) -> tuple[Any, Any, Any, Any]:
        """What decay leaves in a chunk: of each pair, 0 where the key is ahead; of the state before
        it, in each row; of each key, in the state after it; and of the state before in that."""
        group = self.q.shape[3] // max(len(steps), 1)
        time = jnp.arange(len(steps))
        behind = jnp.tile(time[:, None] >= time, (group, 1))
        if self.decay is None:
            return behind, 1, 1, 1
        ages = jnp.maximum(steps[:, None] - steps, 0)
        last = steps.max(initial=0)
        pairs = jnp.where(behind, jnp.tile(self.decay**ages, (group, 1)), 0)
        rows = jnp.tile(self.decay ** steps[:, None], (group, 1))
        return pairs, rows, self.decay ** (last - steps)[:, None], self.decay**last

    def read(self, s: Array, part: tuple) -> tuple[Array, Array]:
        """The state after a chunk, from s before it, and what its queries read."""
        (q, k, v, steps), dtype = part, self.q.dtype
        pairs, rows, left, whole = self.weights(steps)
        o = product(product(q, k.mT, dtype) * pairs, v, dtype) + rows * _exactly(q, s, dtype)
        return whole * s + product((left * k).mT, v, dtype), o

    @property
    def total(self) -> Array:
        """The state after all keys, of which there is one chunk."""
        return self.state + product(self.k[0].mT, self.v[0], self.q.dtype)


def _laid(args: tuple, options: dict[str, Any]) -> _Laid:
    q, k, v, mask, decay, state = args
    (time, _), (batch, keys, groups, width) = q.shape[1:3], k.shape
    dtype, whole = jnp.result_type(q, k, v), wide(q, k, v)
    chunk = min(options["chunk"] or CHUNK, time) if options["causal"] else None
    phi_q, phi_k = (_feature(x.astype(whole), options["feature"]) for x in (q, k))
    if mask is not None:
        phi_k = jnp.where(mask[..., None, None], phi_k, 0)
    v = _with_ones(v.astype(dtype), options["normalize"])
    rows = _rows(phi_q.astype(dtype), groups, time if chunk is None else chunk)
    columns = (_rows(x.astype(dtype), groups, keys if chunk is None else chunk) for x in (phi_k, v))
    if state is None:
        state = jnp.zeros((batch, groups, width, v.shape[3]), whole)
    size = chunk or 0
    ends = jnp.minimum(jnp.arange(len(rows))[:, None] * size + jnp.arange(size) + 1, time)
    return _Laid(
        rows,
        *columns,
        state=varying(state.astype(whole), axes_of(*args)),
        steps=ends - jnp.arange(len(rows))[:, None] * size,
        decay=None if decay is None else decay.astype(whole)[:, None, None],
    )


def _rows(x: Array, groups: int, chunk: int) -> Array:
    """(batch, time, heads, width) to (chunks, batch, groups, heads of a group · chunk, width)."""
    batch, time, heads, width = x.shape
    count, each = max(-(-time // max(chunk, 1)), 1), heads // groups
    x = jnp.pad(x, ((0, 0), (0, count * chunk - time), (0, 0), (0, 0)))
    x = x.reshape(batch, count, chunk, groups, each, width).transpose(1, 0, 3, 4, 2, 5)
    return x.reshape(count, batch, groups, each * chunk, width)


def _times(x: Array, like: Array) -> Array:
    """Back to (batch, time, heads, width), less what filled up the last chunk."""
    (count, batch, groups, rows, width), (time, heads) = x.shape, like.shape[1:3]
    each = heads // groups
    x = x.reshape(count, batch, groups, each, rows // each, width).transpose(1, 0, 4, 2, 3, 5)
    return x.reshape(batch, count * (rows // each), heads, width)[:, :time]


def _linear_attention_forward(q, k, v, mask, decay, state, **options):
    """In chunks, with S the state before one; without `causal` all keys come before any query."""
    args = (q, k, v, mask, decay, state)
    laid = _laid(args, options)
    if options["causal"]:
        last, o = jax.lax.scan(laid.read, laid.state, (laid.q, laid.k, laid.v, laid.steps))
    else:
        last = laid.total
        o = _exactly(laid.q, last, laid.q.dtype)
    y = _times(_mean(o, options["normalize"]), q)
    return (y.astype(laid.q.dtype), last), args


def _linear_attention_backward(args, dys, **options):
    """With o = φ(q) S and S = Σ φ(k)ᵀ v, v with a column of ones, and y = o / its last column n:
    do = (dy, −dy·y) / n;  dq = φ'(q) do Sᵀ;  dS = Σ φ(q)ᵀ do
    dk = φ'(k) v dSᵀ;  dv = φ(k) dS
    Causal, S is that of the keys up to the query, made again chunk by chunk from the first, and dS
    that of the queries from the key on, from the last; within a chunk, A = φ(q) φ(k)ᵀ γ^(time of q
    − time of k), 0 ahead:
    dA = do vᵀ;  dq += dA φ(k);  dk += dAᵀ φ(q);  dv += Aᵀ do
    """
    q, k, v, mask, _, state = args
    laid, normalize = _laid(args, options), options["normalize"]
    dtype = laid.q.dtype
    dy, dlast = (x.astype(laid.state.dtype) for x in dys)
    dy = _rows(dy, k.shape[2], laid.q.shape[3] * k.shape[2] // max(q.shape[2], 1))
    dlast = varying(dlast, axes_of(*args, *dys))

    def ahead(s: Array, part: tuple) -> tuple[Array, tuple[Array, Array]]:
        *chunk, dy = part
        after, o = laid.read(s, tuple(chunk))
        do, (_, k, v, steps) = _mean_back(o, dy, dtype, normalize), chunk
        pairs, rows, *_ = laid.weights(steps)
        dq = product(_against(do, v, dtype, normalize) * pairs, k, dtype)
        return after, (do, dq + rows * _against(do, s, dtype, normalize))

    def back(ds: Array, part: tuple) -> tuple[Array, tuple[Array, Array]]:
        q, k, v, steps, do = part
        pairs, rows, left, whole = laid.weights(steps)
        a, da = product(q, k.mT, dtype) * pairs, _against(do, v, dtype, normalize) * pairs
        dk = product(da.mT, q, dtype) + left * _against(v, ds, dtype, normalize)
        dv = product(a.mT, do, dtype) + left * _exactly(k, ds, dtype)
        return whole * ds + _exactly((rows * q).mT, do, dtype), (dk, dv)

    parts = laid.q, laid.k, laid.v, laid.steps
    if options["causal"]:
        _, (do, dq) = jax.lax.scan(ahead, laid.state, (*parts, dy))
        ds, (dk, dv) = jax.lax.scan(back, dlast, (*parts, do), reverse=True)
    else:
        last = laid.total
        do = _mean_back(_exactly(laid.q, last, dtype), dy, dtype, normalize)
        dq = _against(do, last, dtype, normalize)
        ds = dlast + _exactly(laid.q[0].mT, do[0], dtype)
        dk, dv = _against(laid.v, ds, dtype, normalize), _exactly(laid.k, ds, dtype)
    dq, dk, dv = _times(dq, q), _times(dk, k), _times(dv, v)[..., : v.shape[3]]
    slopes = (_slope(x.astype(dk.dtype), options["feature"]) for x in (q, k))
    dq, dk = (d * slope for d, slope in zip((dq, dk), slopes, strict=True))
    if mask is not None:
        dk = jnp.where(mask[..., None, None], dk, 0)
    return dq, dk, dv, None, None, None if state is None else ds


@rule(
    _linear_attention_forward,
    _linear_attention_backward,
    nodiff=("decay",),
    cases=cases.LINEAR_ATTENTION,
    check=scan_checks.linear_attention,
    recomputes=True,
    rounds=True,
    fast=True,
)
def linear_attention(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None = None,
    decay: Array | None = None,
    state: Array | None = None,
    *,
    causal: bool = False,
    feature: str = "elu",
    normalize: bool = True,
    chunk: int | None = None,
) -> tuple[Array, Array]:
    """φ(q) Σ φ(k)ᵀ v / φ(q) Σ φ(k)ᵀ, head by head, in time that grows as the sequence does.

    Keeps its arguments and nothing else; neither pass has a number for each pair of a query and a
    key, but within a chunk.

    Args:
        q: Queries, `(batch, time, heads, width)`.
        k: Keys, `(batch, keys, key heads, width)`, where the number of key heads divides that of
            heads: each serves as many heads in a row.
        v: Values, `(batch, keys, key heads, any width)`.
        mask: Boolean, `(batch, keys)`, True for the keys that count; None for all.
        decay: γ of each key head, `(key heads,)`, constants from 0 to 1, for `causal` alone: a key
            of n tokens ago counts γⁿ times. None for 1.
        state: What to begin from, as a call before returned it; None for 0.
        causal: Whether a query takes the keys up to its own position alone.
        feature: φ, number by number: "elu" for elu(x) + 1, "relu", or "identity", which leaves any
            other one to the caller.
        normalize: Whether to divide by the sum of the weights; a query whose weights sum up to 0
            gives 0.
        chunk: How many tokens to look at together if causal; None for 64.

    Returns:
        `(outputs, state)`: `(batch, time, heads, any width)`, in the dtype that q, k and v promote
        to, and Σ φ(k)ᵀ v with a last column Σ φ(k)ᵀ if normalised, `(batch, key heads, width,
        columns)`, in float32 or wider; 16-bit dtypes are multiplied as they are and summed in
        float32.

    Raises:
        TypeError: If q, k, v, the decay or the state is not floating, or the mask not boolean.
        ValueError: If a shape does not fit, an option is out of range, or there is a decay without
            `causal`.

    >>> q = k = jnp.zeros((1, 3, 1, 2))
    >>> v = jnp.array([3.0, 5.0, 7.0]).reshape(1, 3, 1, 1)
    >>> outputs, state = linear_attention(q, k, v, causal=True)
    >>> outputs.ravel().tolist(), state.shape
    ([3.0, 4.0, 5.0], (1, 1, 2, 2))
    >>> again, _ = linear_attention(q[:, :1], k[:, :1], v[:, :1], state=state, causal=True)
    >>> again.item()
    4.5

    Reference: Katharopoulos et al., "Transformers are RNNs", 2020, equations 5, 7 and 18 to 20;
        Yang et al., "Gated Linear Attention Transformers", 2024, section 2.2 (chunks); Sun et al.,
        "Retentive Network", 2023, equations 5 to 7 (decay).
    """
    each, whole = q.shape[2] // k.shape[2], wide(q, k, v)
    phi_q, phi_k = heads_first(_feature(q, feature)), heads_first(_feature(k, feature))
    if mask is not None:
        phi_k = jnp.where(mask[:, None, :, None], phi_k, 0)
    columns = heads_first(_with_ones(v, normalize))
    shape = (*phi_k.shape[:2], phi_k.shape[3], columns.shape[3])
    start = jnp.zeros(shape, whole) if state is None else state
    gamma = jnp.ones((k.shape[2], 1), whole) if decay is None else decay[:, None]
    gamma = jax.lax.stop_gradient(gamma)
    time, keys = jnp.arange(q.shape[1]), jnp.arange(k.shape[1])
    left = gamma ** (k.shape[1] - 1 - keys if causal else 0 * keys)
    last = jnp.einsum("hs,bhsd,bhse->bhde", left, phi_k, columns)
    last = last + gamma[..., None] ** (k.shape[1] if causal else 0) * start
    phi_k, columns, start, total = (
        jnp.repeat(x, each, axis=1) for x in (phi_k, columns, start, last)
    )
    gamma = jnp.repeat(gamma, each, axis=0)
    if causal:
        ages = time[:, None] - keys
        pairs = jnp.where(ages >= 0, gamma[..., None] ** jnp.maximum(ages, 0), 0)
        o = jnp.einsum("hts,bhtd,bhsd,bhse->bhte", pairs, phi_q, phi_k, columns)
        o = o + jnp.einsum("ht,bhtd,bhde->bhte", gamma ** (time + 1), phi_q, start)
    else:
        o = phi_q @ total
    y = heads_first(_mean(o, normalize))
    return y.astype(jnp.result_type(q, k, v)), last.astype(whole)
