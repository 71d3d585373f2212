"""Queries a chunk at a time, with the keys that they may attend to."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...types import Array, Key
from ..activations.dropout import keep_mask
from ..shared.precision import product, wide
from .scores import Window, bounds, capped, in_window, position, scale_of

LONG, CHUNK = 2**20, 256
"""From so many pairs of a query and a key on, queries are looked at in chunks of so many."""


class Chunks(NamedTuple):
    """The scores of any chunk of queries, from arrays laid out for products of matrices.

    Attributes:
        q: (batch, key heads, queries' heads for each, time, width), the time a multiple of chunk.
        k: (batch, key heads, width, keys).
        v: (batch, key heads, width of values, keys).
        mask: None, or of rank 5 with each length that of the scores, or 1.
        bias: The same.
        key: For dropout.
        offset: The position of the first query among the keys.
        chunk: How many queries are looked at together.
        span: How many keys a chunk may attend to.
        window: How many keys before and after its own position a query sees.
        scale: What the scores are multiplied by.
        softcap: What they tend to and never reach, or None.
        drop: The probability of dropping a pair.
    """

    q: Array
    k: Array
    v: Array
    mask: Array | None
    bias: Array | None
    key: Key | None
    offset: Array | int
    chunk: int
    span: int
    window: Window
    scale: float
    softcap: float | None
    drop: float

    def first(self, start: Any) -> Any:
        """The first of the keys that the chunk may attend to."""
        left, _ = self.window
        keys = self.k.shape[3]
        if left is None or self.span == keys:
            return 0
        return jnp.clip(start + self.offset - left, 0, keys - self.span)

    def rows(self, x: Array, start: Any) -> Array:
        """The rows of `x` that belong to the chunk."""
        return _slice(x, start, self.chunk, 3)

    def keys(self, x: Array, start: Any, axis: int = 3) -> Array:
        """What `x` holds, along its axis of keys, for those that the chunk may attend to."""
        return _slice(x, self.first(start), self.span, axis)

    def pairs(self, x: Array, start: Any) -> Array:
        """What `x` holds for the pairs of the chunk's queries and keys."""
        return self.keys(self.rows(x, start), start, axis=4)

    def scores(self, start: Any) -> tuple[Array, Array | float]:
        """(…, chunk, span), −∞ where a query may not attend; and the slope of the soft cap."""
        z = self.times(self.rows(self.q, start), self.keys(self.k, start)) * self.scale
        s, slope = capped(z, self.softcap)
        if self.bias is not None:
            s = s + self.pairs(self.bias, start)
        if self.mask is not None:
            s = jnp.where(self.pairs(self.mask, start), s, -jnp.inf)
        queries = start + self.offset + jax.lax.broadcasted_iota(jnp.int32, s.shape, 3)
        keys = self.first(start) + jax.lax.broadcasted_iota(jnp.int32, s.shape, 4)
        seen = in_window(queries, keys, self.window)
        return (s if seen is None else jnp.where(seen, s, -jnp.inf)), slope

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
        if not self.drop:
            return p
        shape, key = (*p.shape[:3], self.k.shape[3]), self.key
        assert key is not None

        def kept(row: Array) -> Array:
            return keep_mask(jax.random.fold_in(key, row), shape, self.drop)

        mask = jnp.moveaxis(jax.vmap(kept)(start + jnp.arange(self.chunk)), 0, 3)
        return jnp.where(self.keys(mask, start, axis=4), p * (1 / (1 - self.drop)), 0)

    def each(self, body: Callable[[Any, Any], tuple], carry: Any) -> tuple[Any, Any]:
        """`body(carry, start)` for each chunk; what it gives for its rows, put together."""
        n = self.q.shape[3] // max(self.chunk, 1)
        if n <= 1:
            return body(carry, 0)
        carry, parts = jax.lax.scan(body, carry, jnp.arange(n) * self.chunk)

        def joined(part: Array) -> Array:
            part = jnp.moveaxis(part, 0, 3)
            return part.reshape(*part.shape[:3], n * self.chunk, part.shape[-1])

        return carry, jax.tree.map(joined, parts)


def in_chunks(args: tuple, options: dict[str, Any]) -> Chunks:
    """The arguments of `attention`, laid out."""
    q, k, v, mask, bias, key, offset = args
    (time, heads), (keys, groups) = q.shape[1:3], k.shape[1:3]
    dtype = jnp.result_type(q, k, v)
    chunk = min(options["chunk"] or (CHUNK if time * keys >= LONG else time), time)
    left, right = window = bounds(options["causal"], options["window"])
    span = keys if left is None or right is None else min(left + chunk + right, keys)

    def pairs(x: Array | None) -> Array | None:
        if x is None:
            return None
        b, h, t, s = (1,) * (4 - jnp.ndim(x)) + jnp.shape(x)
        split = (groups, heads // groups) if h == heads else (1, 1)
        x = jnp.reshape(x, (b, *split, t, s))
        return x if t == 1 else padded(x, chunk)

    return Chunks(
        q=padded(by_head(q.astype(dtype), groups), chunk),
        k=k.astype(dtype).transpose(0, 2, 3, 1),
        v=v.astype(dtype).transpose(0, 2, 3, 1),
        mask=pairs(mask),
        bias=None if bias is None else pairs(bias.astype(wide(dtype))),
        key=key,
        offset=position(offset),
        chunk=chunk,
        span=span,
        window=window,
        scale=scale_of(q, options["scale"]),
        softcap=options["softcap"],
        drop=options["drop"],
    )


def by_head(x: Array, groups: int) -> Array:
    """(batch, time, heads, width) to (batch, groups, heads of a group, time, width)."""
    batch, time, heads, width = x.shape
    return x.reshape(batch, time, groups, heads // groups, width).transpose(0, 2, 3, 1, 4)


def by_time(x: Array, time: int) -> Array:
    """Back again, less the rows that filled up the last chunk."""
    batch, groups, each, _, width = x.shape
    x = x[:, :, :, :time].transpose(0, 3, 1, 2, 4)
    return x.reshape(batch, time, groups * each, width)


def padded(x: Array, chunk: int, value: float = 0) -> Array:
    """Filled up along the queries to whole chunks."""
    short = -x.shape[3] % max(chunk, 1)
    widths = ((0, 0), (0, 0), (0, 0), (0, short), (0, 0))
    return jnp.pad(x, widths, constant_values=value) if short else x


def added(total: Array, part: Array, places: dict[int, Any]) -> Array:
    """`total` with `part` added to it, which begins at these places of its longer axes."""
    if total.shape == part.shape:
        return total + part
    longer = [n > m for n, m in zip(total.shape, part.shape, strict=True)]
    places = {axis: jnp.asarray(place, jnp.int32) for axis, place in places.items()}
    nowhere = jnp.int32(0)
    begin = [places.get(axis, nowhere) if more else nowhere for axis, more in enumerate(longer)]
    held = jax.lax.dynamic_slice(total, begin, part.shape)
    return jax.lax.dynamic_update_slice(total, held + part, begin)


def _slice(x: Array, start: Any, size: int, axis: int) -> Array:
    if x.shape[axis] in (1, size):
        return x
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis=axis)
