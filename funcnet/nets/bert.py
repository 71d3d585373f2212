"""The transformer encoder: a text read in both directions at once."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp

from ..layers import initializers
from ..layers.dropout import Dropout
from ..layers.glue import Bias
from ..layers.linear import Dense, Embed
from ..layers.norm import LayerNorm, norm_of
from ..layers.position import LearnedPositions
from ..layers.transformer import PLAIN, TransformerBlock
from ..nn.combine import Bound, network, serial
from ..nn.layer import Layer
from ..ops.activations.smooth import tanh
from ..ops.products.linear import dense
from ..types import Array, require, shown

HEADS = ("features", "pooled", "classes", "tokens")


def BERT(
    vocabulary: int,
    *,
    width: int,
    depth: int,
    heads: int,
    length: int,
    types: int = 2,
    hidden: int | None = None,
    activation: str | Callable = "gelu",
    norm: Callable[[], Layer] = partial(LayerNorm, eps=1e-12),
    drop: float = 0.0,
    chunk: int | None = None,
    head: str = "features",
    outputs: int = 2,
) -> Layer:
    """Token, position and segment vectors, and `depth` transformer blocks whose norms come last.

    Inputs are ids, integers `(batch, time)`; perhaps a mask `(batch, time)`, boolean, True where a
    token may be looked at; and perhaps segments, integers `(batch, time)` below `types`, 0 if they
    are not given. None stands for a mask that is left out.

    Args:
        vocabulary: Number of different tokens.
        width: Features of a token.
        depth: Number of blocks.
        heads: Attention heads of a block.
        length: The most tokens that it is used with.
        types: Number of different segments.
        hidden: Hidden units of the feed-forward networks; None for four times the width.
        activation: Their activation, and that of the head for tokens.
        norm: Makes each norm.
        drop: Probability of dropping in training: what enters the first block, weights of
            attention, what each branch adds, and what the head for classes reads.
        chunk: How many queries to look at together.
        head: What is returned: "features" `(batch, time, width)`; "pooled" `(batch, width)`, tanh
            of a dense layer of the first token's; "classes" `(batch, outputs)`, logits of these;
            "tokens" `(batch, time, vocabulary)`, logits of what stands in each place.
        outputs: Number of classes.

    Returns:
        A layer named "bert".

    Raises:
        TypeError: If `norm` is a layer already, or wants arguments.
        ValueError: If an option is out of range; when applied, if the mask is not boolean or does
            not fit, or the text is too long.

    >>> import jax
    >>> ids = jnp.zeros((2, 5), jnp.int32)
    >>> net = BERT(11, width=8, depth=1, heads=2, length=16, head="classes", outputs=3)
    >>> params, _ = net.init(jax.random.key(0), ids)
    >>> net(params, ids, jnp.array([[True] * 5, [True] * 2 + [False] * 3])).shape
    (2, 3)

    Reference: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language
    Understanding", 2019, section 3.
    """
    require(
        head in HEADS,
        "BERT",
        f"a head among {', '.join(HEADS)}",
        shown(head),
        "The features of all tokens are the usual output.",
    )
    draw = initializers.normal(0.02)
    names = [f"block_{i}" for i in range(depth)]
    block = TransformerBlock(
        heads, hidden=hidden, norm_first=False, activation=activation, norm=norm, drop=drop,
        chunk=chunk, w_init=draw,
    )  # fmt: skip

    @network(
        tokens=Embed(vocabulary, width, init=draw),
        types=Embed(types, width, init=draw),
        positions=LearnedPositions(length, init=draw),
        norm=norm_of("bert", norm),
        drop=Dropout(drop),
        **dict.fromkeys(names, block),
        **_head(head, width, outputs, activation, norm),
    )
    def bert(net, ids, mask=None, segments=None):
        segments = jnp.zeros_like(ids) if segments is None else segments
        x = net.positions(net.tokens(ids) + net.types(segments))
        x = net.drop(net.norm(x))
        seen = None if mask is None else _keys(mask, ids)
        for name in names:
            x = getattr(net, name)(x, seen)
        return _read(net, head, x)

    return bert


def _head(
    head: str, width: int, outputs: int, activation: str | Callable, norm: Callable[[], Layer]
) -> dict[str, Layer]:
    """What stands behind the last block."""
    draw = initializers.normal(0.02)
    if head == "features":
        return {}
    if head == "tokens":
        act = PLAIN[activation] if isinstance(activation, str) else activation
        transform = serial(Dense(width, w_init=draw), act, norm=norm())
        return {"transform": transform, "bias": Bias()}
    pooler = {"pooler": serial(Dense(width, w_init=draw), tanh)}
    return {**pooler, "head": Dense(outputs, w_init=draw)} if head == "classes" else pooler


def _read(net: Bound, head: str, x: Array) -> Array:
    if head == "features":
        return x
    if head == "tokens":
        table = net.params["tokens"]["table"]
        return net.bias(dense(net.transform(x), table.T, None))
    pooled = net.pooler(x[:, 0])
    return net.head(net.drop(pooled)) if head == "classes" else pooled


def _keys(mask: Array, ids: Array) -> Array:
    """The mask with axes for heads and queries."""
    require(
        jnp.result_type(mask) == jnp.bool_ and jnp.shape(mask) == ids.shape,
        "bert",
        f"a boolean mask of shape {ids.shape}, as the ids have",
        shown(mask),
        "It is True where there is a token: write mask > 0 for one of numbers.",
    )
    return mask[:, None, None, :]
