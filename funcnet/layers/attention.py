"""Multi-head attention, of a sequence to itself or to another, and its cache for decoding."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..jaxpr.jaxprs import is_traced
from ..nn.layer import Layer, need_key, take, take_state
from ..ops.products.linear import dense
from ..ops.sequences.attention import attention
from ..ops.sequences.attention_weights import attention_weights
from ..ops.sequences.one_query import one_query
from ..ops.sequences.rotary import rotary as turned
from ..ops.sequences.scores import Window
from ..types import Array, Key, Params, State, is_whole, require, shown
from . import initializers
from .dropout import check_probability
from .initializers import drawn


class Inputs(NamedTuple):
    """x, what it attends to, and a mask or None."""

    x: Array
    keys: Array
    values: Array
    mask: Array | None

    @property
    def alone(self) -> bool:
        """Whether x attends to itself."""
        return self.keys is self.x


def Attention(
    heads: int,
    *,
    kv_heads: int | None = None,
    width: int | None = None,
    causal: bool = False,
    rotary: bool = False,
    drop: float = 0.0,
    bias: bool = True,
    chunk: int | None = None,
    window: int | Window | None = None,
    softcap: float | None = None,
    cache: int | None = None,
    weights: bool = False,
    w_init: Callable = initializers.lecun_normal(),
    out_init: Callable | None = None,
    rotary_base: float = 10000.0,
    rotary_width: int | None = None,
    rotary_frequencies: Array | None = None,
) -> Layer:
    """Attention of `heads` heads between four projections: `q`, `k`, `v` and `out`.

    Inputs are `(x)`, `(x, context)` or `(x, keys, values)`, and after them perhaps a mask: x
    `(batch, time, features)` attends to itself or to `context` `(batch, keys, any features)`, or
    compares itself with `keys` and takes what belongs to them of `values`; `mask` is boolean, True
    where a query may attend, and broadcasts to `(batch, heads, queries, keys)`. None is left out.

    With `cache` the layer decodes: its state holds the keys and values of up to `cache` tokens and
    how many there are, and each call appends the tokens of x and attends to all so far; the keys
    of a mask are all `cache` of them. The parameters are those of the same layer without it. A call
    with no room left is an error; inside `jax.jit`, where the number of tokens cannot be looked at,
    its output is NaN.

    Args:
        heads: Number of heads; it divides the width.
        kv_heads: Number of heads of keys and values, which divides `heads`; None for as many.
        width: Of all heads together; None for the features of x.
        causal: Whether token i attends to the tokens up to i alone.
        rotary: Whether queries and keys are turned by their position; see the op `rotary`.
        drop: Probability of dropping a pair of query and key in training.
        bias: Whether the projections add one.
        chunk: How many queries to look at together; see the op `attention`, as for the two options
            that follow.
        window: How many keys before and after its own position a query sees.
        softcap: What scores tend to and never reach.
        cache: The number of tokens to keep for decoding; None for none.
        weights: Whether the output is the pair of what it is otherwise and the weights, `(batch,
            heads, queries, keys)`, without dropout.
        w_init: Draws the projections' weights, as matrices.
        out_init: Draws that of `out`; None for `w_init`.
        rotary_base: The `base` of the op `rotary`.
        rotary_width: How many numbers of a head it turns; None for all.
        rotary_frequencies: By how much it turns each pair from one position to the next, `(pairs,)`
            constants, in place of the base.

    Returns:
        A layer named "attention": `(batch, time, features)` to the same shape. The parameters of
        `q`, `k` and `v` are `w` `(features, heads, width of a head)` and `b` `(heads, width of a
        head)`; those of `out` are `w` `(heads, width of a head, features)` and `b` `(features,)`.

    Raises:
        TypeError: At `init`, if an initialiser is no function or gives another shape.
        ValueError: If a number of heads does not divide, an option is out of range, the inputs do
            not fit, or the cache is full.

    >>> x = jnp.ones((2, 5, 8))
    >>> params, _ = Attention(4, kv_heads=2, bias=False).init(jax.random.key(0), x)
    >>> jax.tree.map(jnp.shape, params["k"]), Attention(4)(params, x).shape
    ({'w': (8, 2, 2)}, (2, 5, 8))

    Reference: Vaswani et al., "Attention Is All You Need", 2017, section 3.2; Ainslie et al.,
        "GQA", 2023, section 2.2 (fewer heads of keys).
    """
    _check_options(heads, kv_heads, causal, drop, cache)
    groups = kv_heads or heads

    def init(key: Key, *inputs: Any) -> tuple[Params, State]:
        given = sorted_inputs("attention", inputs)
        x, each = given.x, head_width("attention", heads, width or given.x.shape[-1])
        params = projections(key, given, heads, groups, each, bias, w_init, out_init or w_init)
        if cache is None:
            return params, {}
        empty = jnp.zeros((x.shape[0] * groups, cache, each), initializers.float_dtype(x))
        return params, {"k": empty, "v": empty, "index": jnp.zeros((), jnp.int32)}

    def apply(
        params: Params, state: State, *inputs: Any, train: bool = False, key: Key | None = None
    ) -> tuple[Any, State]:
        given = sorted_inputs("attention", inputs)
        x, mask = given.x, given.mask
        take("attention", params, "q", "k", "v", "out")
        require(
            given.alone or not (causal or rotary or cache),
            "attention",
            "neither causal, rotary nor cache with a context",
            f"causal={causal}, rotary={rotary}, cache={cache}",
            "They speak of one sequence's order in time.",
        )
        q = project("attention", params["q"], x)
        k = project("attention", params["k"], given.keys)
        v = project("attention", params["v"], given.values)
        start = take_state("attention", state, "k", "v", "index")[2] if cache else None
        if rotary:
            at = jnp.arange(x.shape[1]) + (0 if start is None else start)
            options = {"base": rotary_base, "width": rotary_width}
            q, k = (turned(y, at, rotary_frequencies, **options) for y in (q, k))
        full = None
        if cache:
            full, state = _appended(state, k, v)
            k, v = (_from_cache(state[name], k) for name in ("k", "v"))
            _check_cache_mask(mask, cache)
        random = need_key("attention", key) if train and drop else None
        seen = {"causal": causal, "window": window, "softcap": softcap}
        if start is not None and x.shape[1] == 1 and random is None:
            y = one_query(q, state["k"], state["v"], mask, start, window=window, softcap=softcap)
        else:
            y = attention(
                q, k, v, mask, None, random, start, drop=drop if train else 0.0, chunk=chunk, **seen
            )
        y = merge("attention", params["out"], y)
        y = y if full is None else jnp.where(full, jnp.nan, y)
        return (y, attention_weights(q, k, mask, None, start, **seen)) if weights else y, state

    return Layer(init, apply, "attention")


def _check_options(
    heads: int, kv_heads: int | None, causal: bool, drop: float, cache: int | None
) -> None:
    check_heads("attention", heads, kv_heads)
    check_probability("attention", "drop", drop, "dropping a pair of query and key")
    require(
        cache is None or (is_whole(cache) and causal),
        "attention",
        "cache to be a number of tokens of 1 or more, and causal=True with it",
        f"cache={cache!r}, causal={causal}",
        "Only a token that sees none after it can be decoded before them.",
    )


def check_heads(where: str, heads: int, kv_heads: int | None) -> None:
    """Raise unless the layer `where` can have so many heads, and so many of keys and values."""
    require(
        is_whole(heads),
        where,
        "a number of heads of 1 or more",
        shown(heads),
        "It divides the width.",
    )
    require(
        kv_heads is None or (is_whole(kv_heads) and heads % kv_heads == 0),
        where,
        f"kv_heads that divide {heads}, the number of heads",
        shown(kv_heads),
        "Each serves a group of heads.",
    )


def sorted_inputs(where: str, inputs: tuple) -> Inputs:
    """The inputs of the layer `where` by what they are: x, keys, values, a mask."""
    inputs = tuple(given for given in inputs if given is not None)
    last = inputs[-1] if inputs and jnp.result_type(inputs[-1]) == jnp.bool_ else None
    rest = inputs if last is None else inputs[:-1]
    require(
        1 <= len(rest) <= 3
        and all(jnp.issubdtype(jnp.result_type(given), jnp.floating) for given in rest)
        and all(jnp.ndim(given) == 3 for given in rest),
        where,
        "x, perhaps a context or keys and values, perhaps a boolean mask; all but the mask "
        "(batch, time, features)",
        ", ".join(f"{jnp.result_type(given)} of shape {jnp.shape(given)}" for given in inputs),
        "Call net(params, x, mask) or net(params, x, context, mask).",
    )
    return Inputs(rest[0], rest[min(1, len(rest) - 1)], rest[-1], last)


def head_width(where: str, heads: int, width: int) -> int:
    """The width of one of the heads of the layer `where`."""
    require(
        width % heads == 0,
        where,
        f"a width that {heads} heads divide",
        width,
        "Give the width of all heads together: width=heads * 64.",
    )
    return width // heads


def projections(
    key: Key,
    given: Inputs,
    heads: int,
    groups: int,
    each: int,
    bias: bool,
    w_init: Callable,
    out_init: Callable,
) -> Params:
    """The parameters of q, k, v and out, drawn for these inputs."""
    x, dtype, draws = given.x, initializers.float_dtype(given.x), jax.random.split(key, 4)
    shapes = {"q": (x, heads), "k": (given.keys, groups), "v": (given.values, groups)}
    params: Params = {}
    for draw, (name, (of, n)) in zip(draws[:3], shapes.items(), strict=True):
        w = drawn(w_init, draw, (of.shape[-1], n * each), dtype)
        params[name] = {"w": w.reshape(-1, n, each)}
        params[name].update({"b": jnp.zeros((n, each), dtype)} if bias else {})
    w = drawn(out_init, draws[3], (heads * each, x.shape[-1]), dtype)
    params["out"] = {"w": w.reshape(heads, each, -1)}
    params["out"].update({"b": jnp.zeros(x.shape[-1:], dtype)} if bias else {})
    return params


def project(where: str, params: Params, x: Array) -> Array:
    """x w + b, as (batch, time, heads, width of a head)."""
    (w,) = take(where, params, "w")
    inputs, heads, each = w.shape
    b = params.get("b")
    y = dense(x, w.reshape(inputs, heads * each), None if b is None else b.reshape(-1))
    return y.reshape(*x.shape[:-1], heads, each)


def merge(where: str, params: Params, y: Array) -> Array:
    """All heads of y side by side, times w, + b."""
    (w,) = take(where, params, "w")
    heads, each, outputs = w.shape
    rows = y.reshape(*y.shape[:-2], heads * each)
    return dense(rows, w.reshape(heads * each, outputs), params.get("b"))


def _check_cache_mask(mask: Array | None, length: int) -> None:
    require(
        mask is None or jnp.ndim(mask) == 0 or mask.shape[-1] in (1, length),
        "attention",
        f"a mask over all {length} keys of the cache",
        f"shape {jnp.shape(mask)}" if mask is not None else "none",
        "Those after the last token are never seen: fill it up with True.",
    )


def _appended(state: State, k: Array, v: Array) -> tuple[Any, State]:
    """Whether there was no room for these keys and values, and the cache after them."""
    start, length, tokens = state["index"], state["k"].shape[1], k.shape[1]
    taken = 0 if is_traced(start) else int(start)
    require(
        taken + tokens <= length,
        "attention",
        f"room for {tokens} more in the cache of {length} tokens",
        f"{taken} taken",
        "Make the cache longer, or start anew from net.init(key, x)[1].",
    )
    new = {
        name: jax.lax.dynamic_update_slice_in_dim(
            state[name], _to_cache(x).astype(state[name].dtype), start, axis=1
        )
        for name, x in (("k", k), ("v", v))
    }
    full = start + tokens > length if is_traced(start) else None
    return full, {**new, "index": start + tokens}


def _to_cache(x: Array) -> Array:
    """(batch, time, heads, width) to (batch · heads, time, width)."""
    batch, time, heads, width = x.shape
    return x.swapaxes(1, 2).reshape(batch * heads, time, width)


def _from_cache(kept: Array, x: Array) -> Array:
    """All that is kept, in the order of axes of x, (batch, time, heads, width)."""
    (batch, _, heads, width), length = x.shape, kept.shape[1]
    return kept.reshape(batch, heads, length, width).swapaxes(1, 2)
