"""The rows of attention and what is built on it: messages, layers and networks."""
# pyright: reportArgumentType=false
# Wrong arguments are the matter here.

from functools import partial

import jax
import jax.numpy as jnp

import funcnet as fn
from funcnet.nets.sampling import sample

from .forms import LayerCase, image, rows

KEY = jax.random.key(0)
ROWS, Q, IDS = jnp.zeros((2, 3)), jnp.zeros((2, 3, 4, 6)), jnp.zeros((1, 2), jnp.int32)
SEQUENCE, CONTEXT = image(2, 5, 8), image(2, 3, 6)
TOKENS = jnp.array([[1, 4, 0], [2, 2, 3]])
CAUSAL = fn.Attention(2, causal=True, cache=4)
CROSS, _ = jax.jit(fn.Attention(2).init)(KEY, SEQUENCE, CONTEXT)
SMALL = {"width": 8, "depth": 2, "heads": 2}


def full():
    """The cache of `CAUSAL` with 3 of its 4 places taken."""
    params, state = CAUSAL.init(KEY, SEQUENCE[:, :3])
    _, state = CAUSAL.apply(params, state, SEQUENCE[:, :3])
    return params, state, SEQUENCE[:, :2]


OPS = rows(
    ValueError,
    partial(fn.attention, None, Q, Q),
    "attention: expected q of rank 4 (batch, time, heads, width), got None. The heads come after "
    "the time: project to (batch, time, heads * width) and reshape.",
    partial(fn.attention, Q, Q, None),
    "attention: expected v of rank 4 (batch, time, heads, width), got None. The heads come after "
    "the time: project to (batch, time, heads * width) and reshape.",
    partial(fn.attention, Q[0], Q, Q),
    "attention: expected q of rank 4 (batch, time, heads, width), got shape (3, 4, 6). The "
    "heads come after the time: project to (batch, time, heads * width) and reshape.",
    partial(fn.attention, Q, Q, Q[0]),
    "attention: expected v of rank 4 (batch, time, heads, width), got shape (3, 4, 6). The "
    "heads come after the time: project to (batch, time, heads * width) and reshape.",
    partial(fn.attention, Q, Q, Q[:, :2]),
    "attention: expected v of the batch, keys and heads of k, whose shape is (2, 3, 4, 6), got "
    "shape (2, 2, 4, 6). One value belongs to each key.",
    partial(fn.attention, Q, Q[..., :5], Q),
    "attention: expected k of the batch and width of q, whose shape is (2, 3, 4, 6), got shape "
    "(2, 3, 4, 5). Queries and keys have the same batch and the same width.",
    partial(fn.attention, Q, Q[:, :, :3], Q[:, :, :3]),
    "attention: expected a number of key heads that divides the 4 heads of q, got 3. Each head "
    "of k and v serves a group of heads of q.",
    partial(fn.attention, Q, Q, Q, jnp.ones((2, 3), bool)),
    "attention: expected a mask that broadcasts to (batch, heads, queries, keys) = (2, 4, 3, "
    "3), got shape (2, 3). Add axes of length 1: for the keys of each example, x[:, None, None, "
    ":].",
    partial(fn.attention, Q, Q, Q, None, Q),
    "attention: expected a bias that broadcasts to (batch, heads, queries, keys) = (2, 4, 3, "
    "3), got shape (2, 3, 4, 6). Add axes of length 1: for the keys of each example, x[:, None, "
    "None, :].",
    partial(fn.attention, Q, Q, Q, drop=1.0),
    "attention: expected drop from 0 to less than 1, and a key with it, got drop=1.0, no key. "
    "Pass key=jax.random.key(0), another one for each step.",
    partial(fn.attention, Q, Q, Q, drop=0.1),
    "attention: expected drop from 0 to less than 1, and a key with it, got drop=0.1, no key. "
    "Pass key=jax.random.key(0), another one for each step.",
    partial(fn.attention, Q, Q, Q, chunk=0),
    "attention: expected a chunk of 1 query or more, or None for all at once, got 0. Try 256.",
    partial(fn.attention, Q, Q, Q, window=-1),
    "attention: expected a window of 0 keys or more, or two numbers, before and after, got -1. "
    "None is for all of them: window=(128, None).",
    partial(fn.attention_weights, Q, Q, window=(1, 2, 3)),
    "attention_weights: expected a window of 0 keys or more, or two numbers, before and after, "
    "got (1, 2, 3). None is for all of them: window=(128, None).",
    partial(fn.attention, Q, Q, Q, softcap=0.0),
    "attention: expected a softcap above 0, or None, got 0.0. Scores stay within it; 50 is usual.",
    partial(fn.rotary, Q[0]),
    "rotary: expected x of rank 4 (batch, time, heads, width) with an even width, got shape (3, "
    "4, 6). Its numbers are turned in pairs, head by head.",
    partial(fn.rotary, Q[..., :5]),
    "rotary: expected x of rank 4 (batch, time, heads, width) with an even width, got shape (2, "
    "3, 4, 5). Its numbers are turned in pairs, head by head.",
    partial(fn.rotary, Q, jnp.arange(4)),
    "rotary: expected positions of shape (3,) or (2, 3), got shape (4,). Pass None for 0, 1, 2, "
    "and so on.",
    partial(fn.rotary, Q, base=0),
    "rotary: expected a base above 0, got 0. The usual one is 10000.",
    partial(fn.rotary, Q, width=5),
    "rotary: expected an even width from 2 to 6, the numbers of a head, got 5. Pass None to turn "
    "all of them.",
    partial(fn.rotary, Q, None, jnp.ones(4)),
    "rotary: expected frequencies of shape (pairs up to 3,), got shape (4,). One belongs to each "
    "pair of numbers that is turned.",
    partial(fn.rotary, Q, None, jnp.ones(3), width=4),
    "rotary: expected frequencies of shape (2,), got shape (3,). One belongs to each pair of "
    "numbers that is turned.",
    partial(fn.rotary, Q, None, None, jnp.ones((4, 2))),
    "rotary: expected angles of shape (3, pairs up to 3) or (2, 3, pairs up to 3), got shape (4, "
    "2). One belongs to each pair of numbers at each position.",
    partial(fn.rotary, Q, jnp.arange(3), None, jnp.ones((3, 2))),
    "rotary: expected angles alone, got positions or frequencies beside them. The angles are the "
    "product of the two.",
    partial(fn.swiglu, ROWS, ROWS, ROWS, ROWS),
    "swiglu: expected w_gate of shape (3, hidden), as x has shape (2, 3), got shape (2, 3). The "
    "inputs are the last axis of x and the first of a weight.",
    partial(fn.geglu, ROWS, ROWS.T, ROWS, ROWS),
    "geglu: expected w_up of shape (3, 2), that of w_gate, got shape (2, 3). Each hidden number "
    "has its own gate.",
    partial(fn.geglu, ROWS, ROWS.T, ROWS.T, ROWS.T),
    "geglu: expected w_down of shape (2, outputs), got shape (3, 2). It takes the hidden "
    "numbers to the outputs.",
    partial(fn.linear_cross_entropy, ROWS, ROWS, IDS[0]),
    "linear_cross_entropy: expected w of shape (3, vocabulary), got shape (2, 3). A table of "
    "embeddings is (vocabulary, width): it needs transposed=True.",
    partial(fn.linear_cross_entropy, ROWS, ROWS.T, IDS[0], transposed=True),
    "linear_cross_entropy: expected w of shape (vocabulary, 3), got shape (3, 2). A table of "
    "embeddings is (vocabulary, width): it needs transposed=True.",
    partial(fn.linear_cross_entropy, ROWS, ROWS.T, IDS),
    "linear_cross_entropy: expected labels of shape (2,), as x has shape (2, 3), got shape (1, "
    "2). One class belongs to each row of x.",
    partial(fn.linear_cross_entropy, ROWS, ROWS.T, IDS[0], chunk=0),
    "linear_cross_entropy: expected a chunk of 1 token or more, got 0. Try 256.",
    partial(fn.linear_cross_entropy, ROWS, ROWS.T, IDS[0], label_smoothing=1.0),
    "linear_cross_entropy: expected label_smoothing from 0 to below 1 and z_loss of 0 or more, "
    "got label_smoothing=1.0, z_loss=0.0. Smoothing is the share of each label that is spread "
    "over all classes.",
    partial(fn.linear_cross_entropy, ROWS, ROWS.T, IDS[0], z_loss=-1.0),
    "linear_cross_entropy: expected label_smoothing from 0 to below 1 and z_loss of 0 or more, "
    "got label_smoothing=0.0, z_loss=-1.0. Smoothing is the share of each label that is spread "
    "over all classes.",
    partial(fn.linear_cross_entropy, ROWS, ROWS.T, IDS[0] + 2),
    "linear_cross_entropy: expected labels from 0 to 1, got labels from 2 to 2. Leave out "
    "tokens by a label of their own: ignore_index=-1.",
    partial(fn.linear_cross_entropy, ROWS, ROWS.T, IDS[0], reduction="max"),
    "linear_cross_entropy: expected reduction to be 'mean', 'sum' or 'none', got 'max'. Choose "
    "one of the three.",
)

OPS += rows(
    TypeError,
    partial(fn.attention, Q, Q.astype(int), Q),
    "attention: expected k of a floating dtype, got int32. Convert it: k.astype(jnp.float32).",
    partial(fn.linear_cross_entropy, ROWS, ROWS.T.astype(int), IDS[0]),
    "linear_cross_entropy: expected w of a floating dtype, got int32. The weights are numbers, "
    "the labels are classes.",
    partial(fn.linear_cross_entropy, ROWS, ROWS.T, ROWS[:, 0]),
    "linear_cross_entropy: expected labels of an integer dtype, got float32. The weights are "
    "numbers, the labels are classes.",
    partial(fn.attention, Q, Q, Q, jnp.ones((2, 1, 3, 3))),
    "attention: expected a boolean mask, got float32. A mask is boolean, True where a query may "
    "attend; a bias is added to the scores.",
    partial(fn.attention, Q, Q, Q, None, jnp.ones((3, 3), bool)),
    "attention: expected a floating bias, got bool. A mask is boolean, True where a query may "
    "attend; a bias is added to the scores.",
    partial(fn.attention, Q, Q, Q, offset=1.0),
    "attention: expected an offset that is one integer, or None for 0, got float32 of shape (). It "
    "is the position of the first query among the keys.",
    partial(fn.attention, Q, Q, Q, None, None, Q, drop=0.5),
    "dropout: expected a random key, got float32. Make one with jax.random.key(0).",
)

OTHERS = rows(
    ValueError,
    lambda: fn.AttentionPool(2).init(KEY, IDS),
    "attention_pool: expected x (batch, time, features) of a floating dtype, got int32 of shape "
    "(1, 2). Of images write x.reshape(batch, -1, channels).",
    lambda: fn.AttentionPool(2).init(KEY, SEQUENCE, SEQUENCE > 0),
    "attention_pool: expected a boolean mask of shape (2, 5), one for each token, got bool of "
    "shape (2, 5, 8). Compare: mask = ids != 0.",
    lambda: fn.rotary_frequencies(5),
    "rotary_frequencies: expected an even width and a base above 0, got width=5, base=10000.0. Two "
    "numbers make a pair that is turned.",
    lambda: fn.llama3_frequencies(ROWS, low_freq_factor=4.0),
    "llama3_frequencies: expected a factor and a length above 0, and low_freq_factor above 0 and "
    "below high_freq_factor, got factor=8.0, low_freq_factor=4.0, high_freq_factor=4.0, "
    "length=8192. Those of Llama 3.1 are 8, 1, 4 and 8192.",
    lambda: sample(fn.nets.EncoderDecoder(5, length=4, **SMALL), {}, IDS, 1, KEY, source=TOKENS),
    "sample: expected a source of integers (batch, time), one for each of 1 prompts, got int32 of "
    "shape (2, 3). Each prompt begins the translation of one source.",
    lambda: sample(fn.nets.EncoderDecoder(5, length=4, **SMALL), {}, IDS, 1, KEY, mask=IDS > 0),
    "sample: expected a source with the mask, got a mask alone. The mask says where the source has "
    "tokens.",
    lambda: sample(fn.nets.EncoderDecoder(5, length=4, **SMALL, cache=True), {}, IDS, 1, KEY),
    f"sample: expected a cache with room for {IDS.shape[1]} tokens: GPT(..., cache=True), got a "
    "net without a cache. An EncoderDecoder needs its source as well: sample(..., source=...).",
    lambda: fn.nets.EncoderDecoder(5, length=4, **SMALL | {"depth": 0}),
    "EncoderDecoder: expected a depth that is a whole number of 1 or more, got 0. It is the number "
    "of blocks of each side.",
    lambda: fn.nets.EncoderDecoder(5, length=4, **SMALL).init(KEY, TOKENS, TOKENS, TOKENS[:1] > 0),
    "encoder_decoder: expected a boolean mask of shape (2, 3), that of the source, got bool of "
    "shape (1, 3). It is True where the source has a token, and False where it is filled up.",
    lambda: fn.TransformerBlock(2, cross=True).init(KEY, SEQUENCE),
    "transformer_block: expected x, a context, and perhaps a mask of each, got x and 0 more. Call "
    "net(params, x, context, mask of context, mask).",
    lambda: fn.TransformerBlock(2).init(KEY, SEQUENCE, None, CONTEXT),
    "transformer_block: expected x, and perhaps a mask, got x and 2 more. A block that takes a "
    "context is TransformerBlock(heads, cross=True).",
    lambda: fn.Attention(0),
    "attention: expected a number of heads of 1 or more, got 0. It divides the width.",
    lambda: fn.Attention(4, kv_heads=3),
    "attention: expected kv_heads that divide 4, the number of heads, got 3. Each serves a "
    "group of heads.",
    lambda: fn.Attention(4, drop=1.0),
    "attention: expected a probability from 0 to below 1, got drop=1.0. It is the probability "
    "of dropping a pair of query and key.",
    lambda: fn.Attention(4, drop="0.1"),
    "attention: expected a probability from 0 to below 1, got drop='0.1'. It is the probability "
    "of dropping a pair of query and key.",
    lambda: fn.Attention(4, cache=8),
    "attention: expected cache to be a number of tokens of 1 or more, and causal=True with it, "
    "got cache=8, causal=False. Only a token that sees none after it can be decoded before "
    "them.",
    lambda: fn.Attention(4, causal=True, cache=0),
    "attention: expected cache to be a number of tokens of 1 or more, and causal=True with it, "
    "got cache=0, causal=True. Only a token that sees none after it can be decoded before them.",
    lambda: fn.Attention(3).init(KEY, SEQUENCE),
    "attention: expected a width that 3 heads divide, got 8. Give the width of all heads "
    "together: width=heads * 64.",
    lambda: fn.Attention(2).init(KEY, SEQUENCE[0]),
    "attention: expected x, perhaps a context or keys and values, perhaps a boolean mask; all but "
    "the mask (batch, time, features), got float32 of shape (5, 8). Call net(params, x, mask) or "
    "net(params, x, context, mask).",
    lambda: fn.Attention(2).init(KEY, SEQUENCE, jnp.ones(3, bool), SEQUENCE),
    "attention: expected x, perhaps a context or keys and values, perhaps a boolean mask; all but "
    "the mask (batch, time, features), got float32 of shape (2, 5, 8), bool of shape (3,), float32 "
    "of shape (2, 5, 8). Call net(params, x, mask) or net(params, x, context, mask).",
    lambda: fn.Attention(2, causal=True)(CROSS, SEQUENCE, CONTEXT),
    "attention: expected neither causal, rotary nor cache with a context, got causal=True, "
    "rotary=False, cache=None. They speak of one sequence's order in time.",
    lambda: CAUSAL.apply(*full()),
    "attention: expected room for 2 more in the cache of 4 tokens, got 3 taken. Make the cache "
    "longer, or start anew from net.init(key, x)[1].",
    lambda: CAUSAL.apply(*CAUSAL.init(KEY, SEQUENCE), SEQUENCE[:, :3], jnp.ones((3, 3), bool)),
    "attention: expected a mask over all 4 keys of the cache, got shape (3, 3). Those after the "
    "last token are never seen: fill it up with True.",
    lambda: CAUSAL(CAUSAL.init(KEY, SEQUENCE[:, :3])[0], SEQUENCE),
    "attention: expected state k, v, index, got none. Call `output, state = net.apply(params, "
    "state, x)` with the state from net.init(key, x).",
    lambda: fn.FeedForward(activation="gelo"),
    "feed_forward: expected an activation among gelu, gelu_tanh, relu, relu_squared, silu, "
    "swiglu, geglu, or a function, got 'gelo'. Pass any function of an array by itself: "
    "activation=jnp.tanh.",
    lambda: fn.FeedForward(-1, activation="swiglu"),
    "feed_forward: expected hidden to be a whole number of 1 or more, or None, got -1. None is "
    "four times the features.",
    lambda: fn.nets.GPT(5, width=8, depth=0, heads=2, length=8),
    "GPT: expected a depth that is a whole number of 1 or more, got 0. It is the number of blocks.",
    lambda: fn.nets.BERT(5, length=4, head="logits", **SMALL),
    "BERT: expected a head among features, pooled, classes, tokens, got 'logits'. The features of "
    "all tokens are the usual output.",
    lambda: fn.nets.BERT(5, length=4, **SMALL).init(KEY, IDS, jnp.ones((1, 2))),
    "bert: expected a boolean mask of shape (1, 2), as the ids have, got float32 of shape (1, 2). "
    "It is True where there is a token: write mask > 0 for one of numbers.",
    lambda: fn.nets.ViT(10, patch=4, pool="max", **SMALL),
    'ViT: expected pool to be "token" or "mean", got \'max\'. The class token is the first '
    "paper's choice.",
    lambda: fn.nets.ViT(10, patch=4, drop_path="0.1", **SMALL),
    "ViT: expected a probability from 0 to below 1, got drop_path='0.1'. It is the probability of "
    "leaving out a branch of the last block.",
    lambda: fn.nets.ViT(10, patch=3, **SMALL).init(KEY, image(1, 8, 8, 1)),
    "ViT: expected images (batch, height, width, channels) whose sides 3 divides, got shape (1, "
    "8, 8, 1). Crop or pad them, or choose another patch.",
    lambda: sample(fn.nets.GPT(5, length=8, **SMALL), {}, IDS[0], 4, KEY),
    "sample: expected a prompt of integers (batch, time), a token or more, got int32 of shape "
    "(2,). Write prompt[None] for a batch of one.",
    lambda: sample(fn.nets.GPT(5, length=8, **SMALL), {}, IDS, 0, KEY),
    "sample: expected a length of 1 token or more, got 0. It is the number of tokens to draw "
    "after the prompt.",
    lambda: sample(fn.nets.GPT(5, length=8, **SMALL), {}, IDS, 4, KEY, top_k=0),
    "sample: expected top_k of 1 or more, or None, got 0. It is among how many of the likeliest "
    "tokens to draw.",
    lambda: sample(fn.nets.GPT(5, length=8, **SMALL), {}, IDS, 4, KEY),
    "sample: expected a cache with room for 5 tokens: GPT(..., cache=True), got a net without a "
    "cache. An EncoderDecoder needs its source as well: sample(..., source=...).",
    lambda: sample(fn.nets.GPT(5, length=8, **SMALL), {}, IDS + 5, 4, KEY),
    "sample: expected a prompt of tokens from 0 to 4, got tokens from 5 to 5. The net knows no "
    "others: encode the prompt as its training text was.",
    lambda: sample(
        fn.nets.GPT(5, length=8, logits=False, **SMALL), {}, IDS - jnp.arange(2), 4, KEY
    ),
    "sample: expected a prompt of tokens from 0 to 4, got tokens from -1 to 0. The net knows no "
    "others: encode the prompt as its training text was.",
    lambda: sample(fn.nets.GPT(5, length=8, cache=True, **SMALL), {}, IDS, 8, KEY),
    "sample: expected a cache with room for 9 tokens: GPT(..., cache=True), got room for 8. Its "
    "`length` bounds the prompt and what is drawn together.",
)

OTHERS += rows(
    TypeError,
    lambda: fn.nets.lm_loss(jnp.zeros((2, 3, 5)), IDS),
    "lm_loss: expected the pair (features, table), got ArrayImpl. Make the net with GPT(..., "
    "logits=False); from logits, cross_entropy is the loss.",
)


# A layer with a cache changes its state in use, and has tests of its own.
LAYERS: dict[str, LayerCase] = {
    "attention": LayerCase(fn.Attention(2), (SEQUENCE,)),
    "attention, causal, rotary": LayerCase(
        fn.Attention(4, kv_heads=2, width=16, causal=True, rotary=True, bias=False, chunk=2),
        (SEQUENCE,),
    ),
    "attention, window, soft cap": LayerCase(
        fn.Attention(2, window=(2, 1), softcap=2.0), (SEQUENCE, CONTEXT, image(2, 3, 4))
    ),
    "attention pool": LayerCase(
        fn.AttentionPool(2), (SEQUENCE, jnp.arange(5) < jnp.array([[5], [2]]))
    ),
    "feed-forward": LayerCase(fn.FeedForward(6), (SEQUENCE,)),
    "feed-forward, gated": LayerCase(fn.FeedForward(6, activation="swiglu"), (SEQUENCE,)),
    "transformer block": LayerCase(fn.TransformerBlock(2, causal=True), (SEQUENCE,)),
    "decoder block": LayerCase(
        fn.TransformerBlock(2, causal=True, cross=True),
        (SEQUENCE, CONTEXT, jnp.ones((2, 1, 1, 3), bool)),
    ),
    "class token": LayerCase(fn.nets.ClassToken(), (SEQUENCE,)),
    "gpt": LayerCase(fn.nets.GPT(5, length=4, drop=0.1, **SMALL), (TOKENS,), needs_key=True),
    "encoder decoder": LayerCase(
        fn.nets.EncoderDecoder(5, length=4, drop=0.1, **SMALL), (TOKENS, TOKENS), needs_key=True
    ),
    "bert": LayerCase(
        fn.nets.BERT(5, width=8, depth=1, heads=2, length=4, drop=0.1, head="tokens"),
        (TOKENS,),
        needs_key=True,
    ),
    "vit": LayerCase(
        fn.nets.ViT(3, patch=4, drop=0.1, drop_path=0.1, **SMALL),
        (image(2, 8, 8, 1),),
        needs_key=True,
    ),
}
