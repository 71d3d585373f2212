"""The rows of linear attention and of state space models: messages and layers."""
# pyright: reportArgumentType=false
# Wrong arguments are the matter here.

from functools import partial

import jax
import jax.numpy as jnp

import funcnet as fn

from .forms import LayerCase, image, rows

KEY = jax.random.key(0)
Q, K, MASK = jnp.zeros((2, 3, 4, 6)), jnp.zeros((2, 3, 2, 6)), jnp.ones((2, 3), bool)
X, A, B = jnp.zeros((2, 3, 4)), jnp.zeros((4, 5)), jnp.zeros((2, 3, 5))
SEQUENCE, CONTEXT = image(2, 5, 8), image(2, 3, 8)
PARAMS, _ = fn.LinearAttention(2).init(KEY, SEQUENCE)

SSM = fn.SelectiveSSM(cache=True)

OPS = rows(
    ValueError,
    partial(fn.linear_attention, Q, Q, Q[:, :2]),
    "linear_attention: expected v of the batch, keys and heads of k, whose shape is (2, 3, 4, 6), "
    "got shape (2, 2, 4, 6). One value belongs to each key.",
    partial(fn.linear_attention, Q, Q[:, :2], Q[:, :2], causal=True),
    "linear_attention: expected as many keys as the 3 queries if causal, got 2. Query i takes the "
    "keys up to i; what came before them is the state.",
    partial(fn.linear_attention, Q, Q, Q, feature="exp"),
    "linear_attention: expected a feature 'elu', 'relu' or 'identity', got 'exp'. Apply any other "
    "one to q and k, and pass 'identity'.",
    partial(fn.linear_attention, Q, Q, Q, chunk=0),
    "linear_attention: expected a chunk of 1 token or more, or None, got 0. It is how many tokens "
    "are looked at together.",
    partial(fn.linear_attention, Q, Q, Q, MASK[:, :2]),
    "linear_attention: expected a mask of shape (2, 3), (batch, keys), got shape (2, 2). A key "
    "counts for all queries that see it, or for none.",
    partial(fn.linear_attention, Q, K, K, None, jnp.ones(4), causal=True),
    "linear_attention: expected a decay of shape (2,), one for each key head, with causal=True, "
    "got shape (4,), causal=True. It is what is left of a key with each step of time.",
    partial(fn.linear_attention, Q, K, K, None, jnp.ones(2)),
    "linear_attention: expected a decay of shape (2,), one for each key head, with causal=True, "
    "got shape (2,), causal=False. It is what is left of a key with each step of time.",
    partial(fn.linear_attention, Q, K, K, None, None, jnp.zeros((2, 2, 6, 6))),
    "linear_attention: expected state of shape (2, 2, 6, 7), got shape (2, 2, 6, 6). Pass what a "
    "call before returned, or None to start from 0.",
    partial(fn.selective_scan, X[0], X, A, B, B),
    "selective_scan: expected x of rank 3 (batch, time, channels), got shape (3, 4). One sequence "
    "is a batch of one: x[None].",
    partial(fn.selective_scan, X, X, A.T, B, B),
    "selective_scan: expected a of shape (4, states), as x has 4 channels, got shape (5, 4). Each "
    "channel has states of its own.",
    partial(fn.selective_scan, X, X, A, B, X),
    "selective_scan: expected c of shape (2, 3, 5), got shape (2, 3, 4). The shape of delta is "
    "that of x; b and c are (batch, time, states).",
    partial(fn.selective_scan, X, X, A, B, B, jnp.zeros(5)),
    "selective_scan: expected d of shape (4,), one for each channel, got shape (5,). Pass None for "
    "0.",
    partial(fn.selective_scan, X, X, A, B, B, None, A),
    "selective_scan: expected state of shape (2, 4, 5), got shape (4, 5). Pass what a call before "
    "returned, or None to start from 0.",
    partial(fn.selective_scan, X, X, A, B, B, chunk=0.5),
    "selective_scan: expected a chunk of 1 token or more, or None, got 0.5. It is how many tokens "
    "are looked at together.",
) + rows(
    TypeError,
    partial(fn.linear_attention, Q, Q, Q, MASK.astype(int)),
    "linear_attention: expected a boolean mask, got int32. It is True for the keys that count.",
    partial(fn.linear_attention, Q, K, K, None, jnp.ones(2, int), causal=True),
    "linear_attention: expected decay of a floating dtype, got int32. Convert it: "
    "decay.astype(jnp.float32).",
    partial(fn.selective_scan, X, X, A, B.astype(int), B),
    "selective_scan: expected b of a floating dtype, got int32. Convert it: b.astype(jnp.float32).",
)

OTHERS = rows(
    ValueError,
    lambda: fn.linear_attention(Q, K, K, None, jnp.array([0.5, 1.5]), causal=True),
    "linear_attention: expected a decay from 0 to 1, got one from 0.5 to 1.5. With 1 nothing is "
    "forgotten.",
    lambda: fn.LinearAttention(4, kv_heads=3),
    "linear_attention: expected kv_heads that divide 4, the number of heads, got 3. Each serves a "
    "group of heads.",
    lambda: fn.LinearAttention(3).init(KEY, SEQUENCE),
    "linear_attention: expected a width that 3 heads divide, got 8. Give the width of all heads "
    "together: width=heads * 64.",
    lambda: fn.LinearAttention(4, kv_heads=2, causal=True, decay=(0.5,)),
    "linear_attention: expected a decay for each of 2 heads of keys, and causal=True with it, got "
    "decay=(0.5,), causal=True. It counts the steps of time since a key.",
    lambda: fn.LinearAttention(4, causal=True, decay=0.5),
    "linear_attention: expected a decay for each of 4 heads of keys, and causal=True with it, got "
    "decay=0.5, causal=True. It counts the steps of time since a key.",
    lambda: fn.LinearAttention(4, cache=True),
    "linear_attention: expected causal=True with a cache, got causal=False. Only a token that sees "
    "none after it can be decoded before them.",
    lambda: fn.LinearAttention(2, causal=True)(PARAMS, SEQUENCE, CONTEXT),
    "linear_attention: expected neither causal nor cache with a context, got causal=True, "
    "cache=False. They speak of one sequence's order in time.",
    lambda: fn.LinearAttention(2, causal=True, cache=True)(PARAMS, SEQUENCE),
    "linear_attention: expected state sum, index, got none. Call `output, state = net.apply("
    "params, state, x)` with the state from net.init(key, x).",
    lambda: fn.SelectiveSSM(kernel=0),
    "selective_ssm: expected states, expand, kernel and dt_rank that are whole numbers of 1 or "
    "more, got states=16, expand=2, kernel=0, dt_rank=None. Without dt_rank it is a sixteenth "
    "of the features.",
    lambda: fn.SelectiveSSM(dt_range=(0.1, 0.001)),
    "selective_ssm: expected dt_range to be two numbers above 0 in order, got (0.1, 0.001). The "
    "usual ones are (0.001, 0.1).",
    lambda: fn.SelectiveSSM(dt_range=None),
    "selective_ssm: expected dt_range to be two numbers above 0 in order, got None. The usual ones "
    "are (0.001, 0.1).",
    lambda: SSM.apply(*SSM.init(KEY, SEQUENCE), SEQUENCE[:1]),
    "selective_ssm: expected 2 sequences, of which the state holds what was read, got 1. Start "
    "anew from net.init(key, x)[1].",
    lambda: fn.SelectiveSSM().init(KEY, SEQUENCE[0]),
    "selective_ssm: expected x of rank 3 (batch, time, features), got shape (5, 8). One sequence "
    "is a batch of one: x[None].",
)

# A layer with a cache changes its state in use, and has tests of its own.
LAYERS: dict[str, LayerCase] = {
    "linear attention": LayerCase(
        fn.LinearAttention(2), (SEQUENCE, jnp.arange(10).reshape(2, 5) != 3)
    ),
    "linear attention, causal": LayerCase(
        fn.LinearAttention(4, kv_heads=2, causal=True, decay=(0.5, 0.9), bias=False, chunk=2),
        (SEQUENCE,),
    ),
    "selective ssm": LayerCase(fn.SelectiveSSM(states=3, chunk=2), (SEQUENCE,)),
}
