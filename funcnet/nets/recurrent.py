"""A recurrent language model over characters, and how to draw text from it."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ..layers.dropout import Dropout
from ..layers.linear import Dense, Embed
from ..layers.recurrent import GRU, LSTM, RNN
from ..nn.combine import network
from ..nn.layer import Layer
from ..types import Array, Key, Params, is_whole, require, shown
from .sampling import check_draws, check_known, picked

CELLS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}


def CharRNN(
    alphabet: int,
    *,
    cell: str = "lstm",
    width: int = 256,
    depth: int = 1,
    embed: int = 64,
    drop: float = 0.0,
    return_final: bool = False,
) -> Layer:
    """Characters to vectors, `depth` recurrent layers, and logits of the character that follows.

    Args:
        alphabet: How many characters there are.
        cell: "lstm", "gru" or "rnn".
        width: Units of each recurrent layer.
        depth: Number of recurrent layers.
        embed: Length of a character's vector.
        drop: Probability of dropping each number that enters or leaves a recurrent layer.
        return_final: Whether to return `(logits, final)`, where `final` is the last state of all
            layers, to be given as `start` with the next piece of the text.

    Returns:
        A layer named "charrnn": `(tokens, start=None)`, integers `(batch, time)`, to logits
        `(batch, time, alphabet)`. With and without `return_final` the parameters are the same.

    Raises:
        ValueError: If there is no such cell, or `depth` is no whole number of 1 or more.

    >>> tokens = jnp.zeros((2, 7), jnp.int32)
    >>> net = CharRNN(50, width=16, embed=8)
    >>> params, _ = net.init(jax.random.key(0), tokens)
    >>> sorted(params), net(params, tokens).shape
    (['embed', 'head', 'lstm0'], (2, 7, 50))

    Reference: Graves, "Generating Sequences With Recurrent Neural Networks", 2013, section 2.
    """
    require(
        cell in CELLS,
        "CharRNN",
        f"a cell among {', '.join(CELLS)}",
        repr(cell),
        "Choose one of the three.",
    )
    require(
        is_whole(depth),
        "CharRNN",
        "a depth that is a whole number of 1 or more",
        shown(depth),
        "It is the number of recurrent layers.",
    )
    names = [f"{cell}{i}" for i in range(depth)]
    layers = {name: CELLS[cell](width, return_final=True) for name in names}

    @network(embed=Embed(alphabet, embed), drop=Dropout(drop), head=Dense(alphabet), **layers)
    def charrnn(net: Any, tokens: Array, start: tuple | None = None) -> Any:
        x, final = net.drop(net.embed(tokens)), []
        for i, name in enumerate(names):
            x, state = getattr(net, name)(x, None, None if start is None else start[i])
            x = net.drop(x)
            final.append(state)
        logits = net.head(x)
        return (logits, tuple(final)) if return_final else logits

    return charrnn


def sample_recurrent(
    net: Layer,
    params: Params,
    prompt: Array,
    length: int,
    key: Key,
    *,
    temperature: float = 1.0,
) -> Array:
    """`length` tokens after each prompt, one at a time, the state carried from each to the next.

    Args:
        net: `CharRNN(..., return_final=True)`; the parameters may be those of the same net
            without it.
        params: Its parameters.
        prompt: Integers `(batch, time)`, a token or more.
        length: How many tokens to draw for each prompt.
        key: For the draws.
        temperature: What the logits are divided by: below 1 for the likelier tokens, 0 for the
            likeliest always.

    Returns:
        The drawn tokens, `(batch, length)`.

    Raises:
        ValueError: If the prompt is no integers `(batch, time)`, or `length` is not 1
            or more, `temperature` is below 0, or the prompt has a token that the net does not know.

    >>> net, prompt = CharRNN(50, width=16, return_final=True), jnp.zeros((2, 3), jnp.int32)
    >>> params, _ = net.init(jax.random.key(0), prompt)
    >>> sample_recurrent(net, params, prompt, 5, jax.random.key(1)).shape
    (2, 5)
    """
    check_draws("sample_recurrent", prompt, length, temperature)
    check_known("sample_recurrent", prompt, len(params["embed"]["table"]))
    return _sample(net, length, params, prompt, key, jnp.float32(temperature))


@partial(jax.jit, static_argnums=(0, 1))
def _sample(
    net: Layer, length: int, params: Params, prompt: Array, key: Key, temperature: Array
) -> Array:
    def step(carry: tuple, key: Key) -> tuple[tuple, Array]:
        logits, state = carry
        token = picked(key, logits, temperature).astype(prompt.dtype)
        logits, state = net(params, token[:, None], state)
        return (logits[:, -1], state), token

    logits, state = net(params, prompt)
    _, tokens = jax.lax.scan(step, (logits[:, -1], state), jax.random.split(key, length))
    return tokens.T
