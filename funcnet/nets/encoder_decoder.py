"""A sequence in, another out: the encoder reads the one, the decoder writes the other."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp

from ..layers import initializers
from ..layers.dropout import Dropout
from ..layers.linear import Embed
from ..layers.norm import LayerNorm, norm_of
from ..layers.position import LearnedPositions
from ..layers.transformer import TransformerBlock
from ..nn.combine import network
from ..nn.layer import Layer
from ..types import Array, is_whole, require, shown
from .gpt import scored, tokens_before


def EncoderDecoder(
    vocabulary: int,
    *,
    width: int,
    depth: int,
    heads: int,
    length: int,
    source_vocabulary: int | None = None,
    hidden: int | None = None,
    activation: str | Callable = "gelu",
    norm: Callable[[], Layer] = LayerNorm,
    bias: bool = True,
    drop: float = 0.0,
    chunk: int | None = None,
    cache: bool = False,
    logits: bool = True,
) -> Layer:
    """Blocks that read a source from both sides, and blocks that write a target, token by token.

    Inputs are `(source)`, `(source, target)` or `(source, target, mask)`: integers `(batch, source
    time)` and `(batch, target time)`, and a boolean mask of the source's shape, True where there
    is a token. Without a target the output is what the encoder makes of the source, `(batch,
    source time, width)`; in the place of the source it is taken as it is, so that writing many
    tokens reads the source once. The target at its place i is what stands before token i: a sign
    for the beginning, and then the tokens up to i − 1.

    Args:
        vocabulary: Number of different tokens of the target.
        width: Features of a token.
        depth: Number of blocks of the encoder, and of the decoder.
        heads: Attention heads of a block.
        length: The most tokens of a source or target.
        source_vocabulary: That of the source; None if both share one, and one table of tokens.
        hidden: Hidden units of the feed-forward networks; None for four times the width.
        activation: Their activation.
        norm: Makes each norm.
        bias: Whether projections add one.
        drop: Probability of dropping in training: tokens, attention's weights, branches' numbers.
        chunk: How many queries to look at together.
        cache: Whether to decode: the net has state and appends to the target it was given before.
        logits: Whether to return logits, and not the two factors that `lm_loss` makes a loss of.

    Returns:
        A layer named "encoder_decoder": to logits `(batch, target time, vocabulary)`, or to
        `(features, table)`. `cache` and `logits` do not change the parameters.

    Raises:
        TypeError: If `norm` is a layer already, or wants arguments.
        ValueError: If an option is out of range, a mask has not the shape of the source, or a
            sequence is too long.

    >>> import jax
    >>> source, target = jnp.zeros((1, 5), jnp.int32), jnp.zeros((1, 3), jnp.int32)
    >>> net = EncoderDecoder(11, width=8, depth=1, heads=2, length=16)
    >>> params, _ = net.init(jax.random.key(0), source, target)
    >>> net(params, source).shape, net(params, source, target).shape
    ((1, 5, 8), (1, 3, 11))

    Reference: Vaswani et al., "Attention Is All You Need", 2017, section 3 and figure 1, with the
        norms first and positions learned.
    """
    require(
        is_whole(depth),
        "EncoderDecoder",
        "a depth that is a whole number of 1 or more",
        shown(depth),
        "It is the number of blocks of each side.",
    )
    draw = initializers.normal(0.02)

    block = partial(
        TransformerBlock, heads, hidden=hidden, activation=activation, norm=norm, drop=drop,
        bias=bias, chunk=chunk, w_init=draw,
        out_init=initializers.scaled(draw, (2 * depth) ** -0.5),
    )  # fmt: skip
    decoder = block(causal=True, cross=True, cache=length if cache else None)
    shared = source_vocabulary is None
    sources = {} if shared else {"source_tokens": Embed(source_vocabulary, width, init=draw)}

    @network(
        tokens=Embed(vocabulary, width, init=draw),
        **sources,
        source_positions=LearnedPositions(length, init=draw),
        positions=LearnedPositions(length, init=draw),
        drop=Dropout(drop),
        **{f"encoder_{i}": block() for i in range(depth)},
        encoder_norm=norm_of("encoder_decoder", norm),
        **{f"decoder_{i}": decoder for i in range(depth)},
        norm=norm_of("encoder_decoder", norm),
    )
    def encoder_decoder(net, source, target=None, mask=None):
        seen = _mask_of_keys(source, mask)
        memory = source
        if jnp.issubdtype(source.dtype, jnp.integer):
            x = net.tokens(source) if shared else net.source_tokens(source)
            x = net.drop(net.source_positions(x))
            for i in range(depth):
                x = getattr(net, f"encoder_{i}")(x, seen)
            memory = net.encoder_norm(x)
        if target is None:
            return memory
        x = net.positions(net.tokens(target), tokens_before(net.state.get("decoder_0")))
        x = net.drop(x)
        for i in range(depth):
            x = getattr(net, f"decoder_{i}")(x, memory, seen)
        features, table = net.norm(x), net.params["tokens"]["table"]
        return scored(features, table, cache) if logits else (features, table)

    return encoder_decoder


def _mask_of_keys(source: Array, mask: Array | None) -> Array | None:
    """The mask as attention takes it: of all heads and queries the same."""
    if mask is None:
        return None
    require(
        mask.dtype == jnp.bool_ and mask.shape == source.shape[:2],
        "encoder_decoder",
        f"a boolean mask of shape {source.shape[:2]}, that of the source",
        f"{mask.dtype} of shape {mask.shape}",
        "It is True where the source has a token, and False where it is filled up.",
    )
    return mask[:, None, None, :]
