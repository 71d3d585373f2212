"""The blocks of a transformer: attention, then a feed-forward network, each added to its input."""

from collections.abc import Callable
from typing import Any

import jax

from ..nn import refusals
from ..nn.combine import network
from ..nn.layer import Layer, stateless, take
from ..ops.activations.rectifiers import relu, relu_squared
from ..ops.activations.smooth import gelu, gelu_tanh, silu
from ..ops.products.gated import geglu, swiglu
from ..ops.sequences.scores import Window
from ..types import Array, Key, Params, State, is_whole, require, shown
from . import initializers
from .attention import Attention
from .dropout import Dropout, DropPath
from .initializers import drawn
from .linear import Dense
from .norm import LayerNorm, norm_of

PLAIN = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "relu": relu,
    "relu_squared": relu_squared,
    "silu": silu,
}
GATED = {"swiglu": swiglu, "geglu": geglu}


def shaped(build: Callable[..., Layer], name: str) -> Layer:
    """A layer that is made once its inputs are known: `build(*inputs)`, of which shapes count.

    >>> import jax.numpy as jnp
    >>> same = shaped(lambda x: Dense(x.shape[-1]), "same")
    >>> params, _ = same.init(jax.random.key(0), jnp.ones((2, 3)))
    >>> params["w"].shape
    (3, 3)
    """

    def apply(
        params: Params, state: State, *inputs: Any, train: bool = False, key: Key | None = None
    ) -> tuple[Any, State]:
        return build(*inputs).apply(params, state, *inputs, train=train, key=key)

    return Layer(lambda key, *inputs: build(*inputs).init(key, *inputs), apply, name)


def FeedForward(
    hidden: int | None = None,
    *,
    activation: str | Callable = "gelu",
    bias: bool = True,
    w_init: Callable = initializers.lecun_normal(),
    out_init: Callable | None = None,
) -> Layer:
    """activation(x up) down, back to the features of x; or (gate(x gate) · x up) down.

    Args:
        hidden: Number of hidden units; None for four times the features.
        activation: "gelu", "gelu_tanh", "relu", "relu_squared", "silu", or any function; "swiglu"
            and "geglu" are gated, without biases.
        bias: Whether to add `b` in both.
        w_init: Draws the weights.
        out_init: Draws those of `down`; None for `w_init`.

    Returns:
        A layer named "feed_forward", with `up` and `down`, and `gate` if gated: each as `Dense`.

    Raises:
        TypeError: At `init`, if an initialiser is no function or gives another shape.
        ValueError: If the activation has an unknown name or is no function of arrays, or `hidden`
            is no number of units.

    >>> import jax.numpy as jnp
    >>> net = FeedForward(16, activation="swiglu")
    >>> params, _ = net.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> jax.tree.map(jnp.shape, params)
    {'down': {'w': (16, 4)}, 'gate': {'w': (4, 16)}, 'up': {'w': (4, 16)}}

    Reference: Vaswani et al., "Attention Is All You Need", 2017, equation 2; Shazeer, "GLU
        Variants Improve Transformer", 2020, equation 6.
    """
    require(
        refusals.is_function(activation, Layer)
        or (isinstance(activation, str) and activation in (*PLAIN, *GATED)),
        "feed_forward",
        f"an activation among {', '.join((*PLAIN, *GATED))}, or a function",
        shown(activation),
        "Pass any function of an array by itself: activation=jnp.tanh.",
    )
    require(
        hidden is None or is_whole(hidden),
        "feed_forward",
        "hidden to be a whole number of 1 or more, or None",
        shown(hidden),
        "None is four times the features.",
    )
    last = out_init or w_init
    if isinstance(activation, str) and activation in GATED:
        return _gated(GATED[activation], hidden, w_init, last)
    act = PLAIN[activation] if isinstance(activation, str) else activation

    def build(x: Array) -> Layer:
        width = initializers.features("feed_forward", x)

        @network(
            up=Dense(hidden or 4 * width, bias=bias, w_init=w_init),
            down=Dense(width, bias=bias, w_init=last),
        )
        def feed_forward(net, x):
            return net.down(act(net.up(x)))

        return feed_forward

    return shaped(build, "feed_forward")


def _gated(op: Callable, hidden: int | None, w_init: Callable, out_init: Callable) -> Layer:
    names = ("gate", "up", "down")

    def init(key: Key, x: Array) -> Params:
        width, dtype = initializers.features("feed_forward", x), initializers.float_dtype(x)
        inner = hidden or 4 * width
        shapes = ((width, inner), (width, inner), (inner, width))
        draws = zip(names, jax.random.split(key, 3), shapes, strict=True)
        inits = {"gate": w_init, "up": w_init, "down": out_init}
        return {name: {"w": drawn(inits[name], k, shape, dtype)} for name, k, shape in draws}

    def apply(params: Params, x: Array) -> Array:
        weights = (
            take("feed_forward", part, "w")[0] for part in take("feed_forward", params, *names)
        )
        return op(x, *weights)

    return stateless(init, apply, "feed_forward")


def TransformerBlock(
    heads: int,
    *,
    hidden: int | None = None,
    norm_first: bool = True,
    activation: str | Callable = "gelu",
    norm: Callable[[], Layer] = LayerNorm,
    drop: float = 0.0,
    drop_path: float = 0.0,
    kv_heads: int | None = None,
    causal: bool = False,
    rotary: bool = False,
    bias: bool = True,
    chunk: int | None = None,
    window: int | Window | None = None,
    softcap: float | None = None,
    cache: int | None = None,
    cross: bool = False,
    w_init: Callable = initializers.lecun_normal(),
    out_init: Callable | None = None,
    rotary_base: float = 10000.0,
    rotary_width: int | None = None,
    rotary_frequencies: Array | None = None,
) -> Layer:
    """x + attention(norm(x)), and then y + feed_forward(norm(y)); between them perhaps a context.

    Inputs are x `(batch, time, features)`, and perhaps a mask; see `Attention`. With `cross` they
    are x, a context `(batch, keys, any features)`, and perhaps a mask of the context and one of x,
    each None for all: between the two branches y + attention(norm(y), context) is a third.

    Args:
        heads: Number of attention heads.
        hidden: Hidden units of the feed-forward network; None for four times the features.
        norm_first: Whether the norms stand before attention and feed-forward network, as now is
            usual; otherwise after each sum, as in the first transformer.
        activation: Of the feed-forward network; see `FeedForward`.
        norm: Makes each norm: `LayerNorm` or `RMSNorm`.
        drop: Probability of dropping a weight of attention, and each number that a branch adds.
        drop_path: Probability of leaving out a branch for an example.
        kv_heads: See `Attention`, as for the options that follow.
        causal: Whether token i sees the tokens up to i alone.
        rotary: Whether queries and keys are turned by their position.
        bias: Whether all projections add one.
        chunk: How many queries to look at together.
        window: How many tokens before and after it a token sees.
        softcap: What scores tend to and never reach.
        cache: The number of tokens to keep for decoding.
        cross: Whether tokens attend to a context as well, as in a decoder.
        w_init: Draws the weights.
        out_init: Draws those that end a branch: `scaled(init, (2 * depth) ** -0.5)` keeps a deep
            stack's sum from growing, as in GPT-2; None for `w_init`.
        rotary_base: The `base` of the op `rotary`; its options that follow are in `Attention`.
        rotary_width: How many numbers of a head it turns.
        rotary_frequencies: By how much it turns each pair from one position to the next.

    Returns:
        A layer named "transformer_block", with `norm1`, `attention`, `norm2` and `mlp`, and with
        `norm_cross` and `cross` if there is a context.

    Raises:
        TypeError: If `norm` is a layer already, or wants arguments.
        ValueError: If an option is out of range, see `Attention` and `FeedForward`; or there are
            too many inputs or too few.

    >>> import jax.numpy as jnp
    >>> x = jnp.ones((2, 5, 8))
    >>> block = TransformerBlock(2, causal=True)
    >>> params, _ = block.init(jax.random.key(0), x)
    >>> sorted(params), block(params, x).shape
    (['attention', 'mlp', 'norm1', 'norm2'], (2, 5, 8))

    Reference: Vaswani et al., "Attention Is All You Need", 2017, section 3.1; Xiong et al., "On
        Layer Normalization in the Transformer Architecture", 2020, table 1 (norms first).
    """
    shared: dict[str, Any] = {
        "kv_heads": kv_heads, "drop": drop, "bias": bias, "chunk": chunk, "softcap": softcap,
        "w_init": w_init, "out_init": out_init,
    }  # fmt: skip
    attention = Attention(
        heads,
        causal=causal,
        rotary=rotary,
        rotary_base=rotary_base,
        rotary_width=rotary_width,
        rotary_frequencies=rotary_frequencies,
        window=window,
        cache=cache,
        **shared,
    )
    context = {
        "norm_cross": norm_of("transformer_block", norm),
        "cross": Attention(heads, **shared),
    }
    mlp = FeedForward(hidden, activation=activation, bias=bias, w_init=w_init, out_init=out_init)

    @network(
        norm1=norm_of("transformer_block", norm), attention=attention,
        **(context if cross else {}),
        norm2=norm_of("transformer_block", norm), mlp=mlp,
        drop=Dropout(drop), path=DropPath(drop_path),
    )  # fmt: skip
    def block(net, x, *rest):
        def branch(run: Callable, norm: Callable, x: Array, *rest: Array) -> Array:
            if norm_first:
                return x + net.path(net.drop(run(norm(x), *rest)))
            return norm(x + net.path(net.drop(run(x, *rest))))

        context, mask_of_context, mask = _sorted(rest, cross)
        y = branch(net.attention, net.norm1, x, mask)
        if cross:
            y = branch(net.cross, net.norm_cross, y, context, mask_of_context)
        return branch(net.mlp, net.norm2, y)

    return block.named("transformer_block")


def _sorted(rest: tuple, cross: bool) -> tuple[Any, Any, Any]:
    """The context, its mask, and the mask of x."""
    require(
        len(rest) <= (3 if cross else 1) and (not cross or (rest and rest[0] is not None)),
        "transformer_block",
        "x, a context, and perhaps a mask of each" if cross else "x, and perhaps a mask",
        f"x and {len(rest)} more",
        "Call net(params, x, context, mask of context, mask)."
        if cross
        else "A block that takes a context is TransformerBlock(heads, cross=True).",
    )
    given = (*rest, None, None)
    return (given[0], given[1], given[2]) if cross else (None, None, given[0])
