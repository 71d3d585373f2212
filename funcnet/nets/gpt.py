"""A decoder-only language model, and its loss without the logits."""

from collections.abc import Callable

import jax.numpy as jnp

from ..layers import initializers
from ..layers.dropout import Dropout
from ..layers.linear import Embed
from ..layers.norm import LayerNorm, norm_of
from ..layers.position import LearnedPositions
from ..layers.transformer import TransformerBlock
from ..nn.combine import network
from ..nn.layer import Layer, stateless, take
from ..nn.wrap import repeat
from ..ops.fast.table import table_scores
from ..ops.losses.linear_cross_entropy import linear_cross_entropy
from ..ops.products.linear import dense
from ..types import Array, Key, Params, State, is_whole, require, shown


def GPT(
    vocabulary: int,
    *,
    width: int,
    depth: int,
    heads: int,
    length: int,
    kv_heads: int | None = None,
    hidden: int | None = None,
    activation: str | Callable = "gelu",
    norm: Callable[[], Layer] = LayerNorm,
    rotary: bool = False,
    bias: bool = True,
    drop: float = 0.0,
    chunk: int | None = None,
    stacked: bool = False,
    cache: bool = False,
    logits: bool = True,
    tied: bool = True,
    rotary_base: float = 10000.0,
    rotary_width: int | None = None,
    rotary_frequencies: Array | None = None,
) -> Layer:
    """Token and position vectors, `depth` causal transformer blocks, and a head tied to the tokens.

    With `norm=RMSNorm`, `activation="swiglu"`, `rotary=True`, `bias=False` and `tied=False` it is
    Llama's decoder.

    Args:
        vocabulary: Number of different tokens.
        width: Features of a token.
        depth: Number of blocks.
        heads: Attention heads of a block.
        length: The most tokens that it is used with.
        kv_heads: See `TransformerBlock`, as for the four options that follow.
        hidden: Hidden units of the feed-forward networks.
        activation: Their activation.
        norm: Makes each norm.
        rotary: Whether positions turn queries and keys; otherwise they are learned vectors.
        bias: Whether projections add one.
        drop: Probability of dropping in training: tokens, attention's weights, branches' numbers.
        chunk: How many queries to look at together.
        stacked: Whether the blocks' parameters are stacked, as `repeat` has them, so that the time
            to compile does not grow with the depth; they are `blocks`, not `block_0`, `block_1`.
        cache: Whether to decode: the net has state and appends to what it was given before.
        logits: Whether to return logits, and not the two factors that `lm_loss` makes a loss of.
        tied: Whether the head's weights are the tokens' vectors; otherwise it is `head`, a table of
            its own of the same shape.
        rotary_base: See `TransformerBlock`, as for the two options that follow.
        rotary_width: How many numbers of a head are turned.
        rotary_frequencies: By how much each pair is turned from one position to the next.

    Returns:
        A layer named "gpt": integers `(batch, time)` to logits `(batch, time, vocabulary)`, or to
        `(features, table)`, `(batch, time, width)` and `(vocabulary, width)`. `cache` and `logits`
        do not change the parameters.

    Raises:
        TypeError: If `norm` is a layer already, or wants arguments.
        ValueError: If an option is out of range, or a sequence too long for positions or cache.

    >>> import jax
    >>> ids = jnp.zeros((1, 5), jnp.int32)
    >>> net = GPT(11, width=8, depth=2, heads=2, length=16)
    >>> params, _ = net.init(jax.random.key(0), ids)
    >>> net(params, ids).shape
    (1, 5, 11)

    Reference: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019,
    section 2.3; Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", 2023,
    section 2.2.
    """
    require(
        is_whole(depth),
        "GPT",
        "a depth that is a whole number of 1 or more",
        shown(depth),
        "It is the number of blocks.",
    )
    draw = initializers.normal(0.02)
    block = TransformerBlock(
        heads, hidden=hidden, activation=activation, norm=norm, drop=drop, kv_heads=kv_heads,
        causal=True, rotary=rotary, bias=bias, chunk=chunk, cache=length if cache else None,
        w_init=draw, out_init=initializers.scaled(draw, (2 * depth) ** -0.5),
        rotary_base=rotary_base, rotary_width=rotary_width, rotary_frequencies=rotary_frequencies,
    )  # fmt: skip
    names = ["blocks"] if stacked else [f"block_{i}" for i in range(depth)]
    blocks = {name: repeat(block, depth) if stacked else block for name in names}
    positions = {} if rotary else {"positions": LearnedPositions(length, init=draw)}
    head = {} if tied else {"head": _head(vocabulary, draw)}

    @network(
        tokens=Embed(vocabulary, width, init=draw),
        **positions,
        drop=Dropout(drop),
        **blocks,
        norm=norm_of("gpt", norm),
        **head,
    )
    def gpt(net, ids):
        x = net.tokens(ids)
        if not rotary:
            x = net.positions(x, tokens_before(net.state.get(names[0])))
        x = net.drop(x)
        for name in names:
            x = getattr(net, name)(x)
        x = net.norm(x)
        features, table = (x, net.params["tokens"]["table"]) if tied else net.head(x)
        return scored(features, table, cache) if logits else (features, table)

    return gpt


def scored(features: Array, table: Array, cache: bool) -> Array:
    """Each token's logits; those of a decoder, which reads a few at a time, in the form for that.

    >>> scored(jnp.ones((1, 2)), jnp.ones((3, 2)), True).shape
    (1, 3)
    """
    return table_scores(features, table) if cache else dense(features, table.T, None)


def _head(vocabulary: int, init: Callable) -> Layer:
    """x with the table `(vocabulary, width)` that makes logits of it."""

    def draw(key: Key, x: Array) -> Params:
        table = initializers.drawn(init, key, (vocabulary, x.shape[-1]), x.dtype)
        return {"table": table}

    def apply(params: Params, x: Array) -> tuple[Array, Array]:
        (table,) = take("head", params, "table")
        return x, table

    return stateless(draw, apply, "head")


def tokens_before(state: State | None) -> Array | int:
    """How many tokens the cache of a block with this state holds.

    >>> tokens_before(None)
    0
    """
    return 0 if state is None else jnp.ravel(state["attention"]["index"])[0]


def lm_loss(
    output: tuple[Array, Array],
    labels: Array,
    *,
    chunk: int = 256,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> Array:
    """The mean cross-entropy of the next token, from what `GPT(..., logits=False)` returns.

    The logits of all tokens never exist at one time; see `linear_cross_entropy`, whose options
    these are.

    Raises:
        TypeError: If `output` is no pair, or has not floating numbers, or the labels no integers.
        ValueError: If a shape does not fit, or an option or a concrete label is out of range.

    >>> features, table = jnp.zeros((1, 3, 8)), jnp.ones((4, 8))
    >>> print(f"{lm_loss((features, table), jnp.array([[1, 2, 3]])):.4f}")  # ln 4
    1.3863
    """
    require(
        isinstance(output, tuple) and len(output) == 2,
        "lm_loss",
        "the pair (features, table)",
        type(output).__name__,
        "Make the net with GPT(..., logits=False); from logits, cross_entropy is the loss.",
        TypeError,
    )
    features, table = output
    return linear_cross_entropy(
        features, table, labels, transposed=True, chunk=chunk, ignore_index=ignore_index,
        label_smoothing=label_smoothing, z_loss=z_loss,
    )  # fmt: skip
