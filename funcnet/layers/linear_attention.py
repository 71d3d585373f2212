"""Multi-head linear attention, which decodes with a state of constant size."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..nn.layer import Layer, take, take_state
from ..ops.sequences.linear_attention import linear_attention
from ..ops.shared.precision import wide
from ..types import Array, Key, Params, State, require, shown
from . import initializers
from .attention import check_heads, head_width, merge, project, projections, sorted_inputs


def LinearAttention(
    heads: int,
    *,
    kv_heads: int | None = None,
    width: int | None = None,
    causal: bool = False,
    feature: str = "elu",
    normalize: bool = True,
    decay: Sequence[float] | None = None,
    bias: bool = True,
    chunk: int | None = None,
    cache: bool = False,
    w_init: Callable = initializers.lecun_normal(),
    out_init: Callable | None = None,
) -> Layer:
    """Linear attention of `heads` heads between four projections: `q`, `k`, `v` and `out`.

    Inputs are those of `Attention`: `(x)`, `(x, context)` or `(x, keys, values)`, and after them
    perhaps a mask, here `(batch, keys)`, True for the keys that count.

    With `cache` the layer decodes: its state is that of the op, of the same size after any number
    of tokens, and how many there were; each call goes on from it. The parameters are those of the
    same layer without it, and of `Attention`.

    Args:
        heads: Number of heads; it divides the width.
        kv_heads: Number of heads of keys and values, which divides `heads`; None for as many.
        width: Of all heads together; None for the features of x.
        causal: Whether token i attends to the tokens up to i alone.
        feature: See the op `linear_attention`, as for the option that follows.
        normalize: Whether to divide by the sum of the weights.
        decay: What is left of a key after each step of time, for each of `kv_heads`; a retentive
            network has 1 − 2^(−5−i), and a norm in place of `normalize`. None for 1.
        bias: Whether the projections add one.
        chunk: How many tokens to look at together if causal.
        cache: Whether to decode.
        w_init: Draws the projections' weights, as matrices.
        out_init: Draws that of `out`; None for `w_init`.

    Returns:
        A layer named "linear_attention": `(batch, time, features)` to the same shape. Its
        parameters are those of `Attention`; its state, with `cache`, `sum` `(batch, kv_heads, width
        of a head, columns)` in float32 or wider, and `index`.

    Raises:
        TypeError: At `init`, if an initialiser is no function or gives another shape.
        ValueError: If a number of heads does not divide, an option is out of range, or the inputs
            do not fit.

    >>> import jax
    >>> x, net = jnp.ones((2, 5, 8)), LinearAttention(4, kv_heads=2, causal=True, cache=True)
    >>> params, state = net.init(jax.random.key(0), x)
    >>> jax.tree.map(jnp.shape, state), LinearAttention(4, kv_heads=2)(params, x).shape
    ({'index': (), 'sum': (2, 2, 2, 3)}, (2, 5, 8))

    Reference: Katharopoulos et al., "Transformers are RNNs", 2020, section 3; Sun et al.,
        "Retentive Network", 2023, equation 8 (decay).
    """
    check_heads("linear_attention", heads, kv_heads)
    groups = kv_heads or heads
    require(
        decay is None or (causal and np.shape(decay) == (groups,)),
        "linear_attention",
        f"a decay for each of {groups} heads of keys, and causal=True with it",
        f"decay={shown(decay)}, causal={causal}",
        "It counts the steps of time since a key.",
    )
    require(
        causal or not cache,
        "linear_attention",
        "causal=True with a cache",
        f"causal={causal}",
        "Only a token that sees none after it can be decoded before them.",
    )

    def init(key: Key, *inputs: Any) -> tuple[Params, State]:
        given = sorted_inputs("linear_attention", inputs)
        each = head_width("linear_attention", heads, width or given.x.shape[-1])
        params = projections(key, given, heads, groups, each, bias, w_init, out_init or w_init)
        if not cache:
            return params, {}
        shape = (given.x.shape[0], groups, each, each + normalize)
        zeros = jnp.zeros(shape, wide(initializers.float_dtype(given.x)))
        return params, {"sum": zeros, "index": jnp.zeros((), jnp.int32)}

    def apply(
        params: Params, state: State, *inputs: Any, train: bool = False, key: Key | None = None
    ) -> tuple[Array, State]:
        given = sorted_inputs("linear_attention", inputs)
        take("linear_attention", params, "q", "k", "v", "out")
        require(
            given.alone or not causal,
            "linear_attention",
            "neither causal nor cache with a context",
            f"causal={causal}, cache={cache}",
            "They speak of one sequence's order in time.",
        )
        sources = {"q": given.x, "k": given.keys, "v": given.values}
        q, k, v = (project("linear_attention", params[n], x) for n, x in sources.items())
        names = ("sum", "index") if cache else ()
        start, index = take_state("linear_attention", state, *names) or (None, 0)
        gamma = None if decay is None else jnp.asarray(decay, wide(q))
        y, last = linear_attention(
            q, k, v, given.mask, gamma, start,
            causal=causal, feature=feature, normalize=normalize, chunk=chunk,
        )  # fmt: skip
        after = {"sum": last, "index": index + given.x.shape[1]} if cache else state
        return merge("linear_attention", params["out"], y), after

    return Layer(init, apply, "linear_attention")
