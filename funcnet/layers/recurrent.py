"""Recurrent layers over sequences (batch, time, features).

    outputs = net(params, x)
    outputs = net(params, x, lengths)
    outputs = net(params, x, lengths, start)      # lengths may be None
    outputs = net(params, x, None, None, mask)

`lengths` says how many steps each sequence has, and `mask`, boolean (batch, time), which of them
count; lengths are the same as the mask `jnp.arange(time) < lengths[:, None]`. A step that does not
count carries the state on unchanged, its output is 0, and it has no gradient: all else is as if it
had been cut out. `start` is the state to begin from, 0 if left out. A layer made with
`return_final=True` returns `(outputs, final)`: give `final` as the next piece's `start` and a long
text can go through in pieces.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..nn.combine import network
from ..nn.layer import Layer, lift, stateless, take
from ..ops.sequences.elman import elman
from ..ops.sequences.gru import gru
from ..ops.sequences.lstm import lstm
from ..types import Array, Key, Params, is_whole, require, shown
from . import initializers
from .initializers import drawn


def LSTM(
    width: int,
    *,
    proj: int | None = None,
    bias: bool = True,
    reverse: bool = False,
    return_final: bool = False,
    forget_bias: float = 1.0,
    w_init: Callable = initializers.glorot_uniform(),
    hidden_init: Callable = initializers.orthogonal(),
    b_init: Callable = initializers.zeros,
) -> Layer:
    """Long short-term memory of `width` units; see `lstm`. Its state is the pair (h, c).

    Args:
        width: Number of units.
        proj: The width that h is projected to, which is that of the outputs; c keeps its own. None
            for no projection.
        bias: Whether to add `b`.
        reverse: Whether to run from each sequence's last step to its first.
        return_final: Whether to return the final (h, c) beside the outputs.
        forget_bias: Added to the forget gate's part of `b` when it is drawn: at 1 the memory lasts
            from the start.
        w_init: `(key, shape, dtype) -> array`, for each gate's `(features, width)` of `w_in`, and
            for the `(width, proj)` of `w_proj`.
        hidden_init: The same for each gate's `(width, width)` or `(proj, width)` of `w_hidden`.
        b_init: The same for each gate's `(width,)` of `b`. PyTorch draws all from
            `torch_linear(width)`, and two biases that add up, with `forget_bias=0`.

    Returns:
        A layer named "lstm": `(x, lengths=None, start=None, mask=None)` to `(batch, time, width)`
        or `(batch, time, proj)`. Its parameters are `w_in`, `w_hidden`, unless `bias` is false `b`,
        the gates side by side in the order i, f, g, o, and with a projection `w_proj`.

    Raises:
        TypeError: At `init`, if an initialiser is no function or gives another shape.
        ValueError: If `width` or `proj` is no whole number of 1 or more; at `init` or when applied,
            if the input, lengths, start or mask do not fit.

    >>> net, x = LSTM(4, return_final=True), jnp.ones((2, 5, 3))
    >>> params, _ = net.init(jax.random.key(0), x)
    >>> jax.tree.map(jnp.shape, params)
    {'b': (16,), 'w_hidden': (4, 16), 'w_in': (3, 16)}
    >>> outputs, (h, c) = net(params, x, jnp.array([5, 2]))
    >>> outputs.shape, h.shape
    ((2, 5, 4), (2, 4))

    Reference: Jozefowicz, Zaremba & Sutskever, "An Empirical Exploration of Recurrent Network
        Architectures", 2015, section 2.2 (the forget gate's bias); Sak, Senior & Beaufays, "Long
        Short-Term Memory Recurrent Neural Network Architectures for Large Scale Acoustic Modeling",
        2014 (the projection).
    """

    def init(key: Key, x: Array, *rest: Any) -> Params:
        inits = w_init, hidden_init, b_init
        params = _drawn("lstm", key, x, width, 4, bias, *inits, rows=proj or width)
        if proj is not None:
            key, dtype = jax.random.fold_in(key, 1), initializers.float_dtype(x)
            params["w_proj"] = drawn(w_init, key, (width, proj), dtype)
        if bias:
            gate = jnp.arange(4 * width) // width
            params["b"] = jnp.where(gate == 1, params["b"] + forget_bias, params["b"])
        return params

    def apply(
        params: Params, x: Array, lengths: Any = None, start: Any = None, mask: Any = None
    ) -> Any:
        names = ("w_in", "w_hidden") if proj is None else ("w_in", "w_hidden", "w_proj")
        w_in, w_hidden, *w_proj = take("lstm", params, *names)
        h0, c0 = (None, None) if start is None else start
        given = x, w_in, w_hidden, params.get("b"), h0, c0, lengths, mask, *w_proj
        outputs, h, c = lstm(*given, reverse=reverse)
        return (outputs, (h, c)) if return_final else outputs

    _check_width("lstm", width)
    require(
        proj is None or is_whole(proj),
        "lstm",
        "a proj that is a whole number of 1 or more, or None",
        shown(proj),
        "It is the width of h, narrower than the number of units.",
    )
    return stateless(init, apply, "lstm")


def GRU(
    width: int,
    *,
    reset_after: bool = True,
    bias: bool = True,
    reverse: bool = False,
    return_final: bool = False,
    w_init: Callable = initializers.glorot_uniform(),
    hidden_init: Callable = initializers.orthogonal(),
    b_init: Callable = initializers.zeros,
) -> Layer:
    """Gated recurrent units, `width` of them; see `gru`. Its state is h.

    Args:
        width: Number of units.
        reset_after: Whether the reset gate scales the product of the state, as in PyTorch, or else
            the state before the product, as first published.
        bias: Whether to add `b` and, with `reset_after`, `b_hn`.
        reverse: Whether to run from each sequence's last step to its first.
        return_final: Whether to return the final h beside the outputs.
        w_init: `(key, shape, dtype) -> array`, for each gate's `(features, width)` of `w_in`.
        hidden_init: The same for each gate's `(width, width)` of `w_hidden`.
        b_init: The same for each gate's `(width,)` of `b`, and for `b_hn`.

    Returns:
        A layer named "gru": `(x, lengths=None, start=None, mask=None)` to `(batch, time, width)`.
        Its parameters are `w_in`, `w_hidden` and, unless `bias` is false, `b` and perhaps `b_hn`,
        the gates side by side in the order r, z, n.

    Raises:
        TypeError: At `init`, if an initialiser is no function or gives another shape.
        ValueError: If `width` is no whole number of 1 or more; at `init` or when applied, if the
            input, lengths, start or mask do not fit.

    >>> net, x = GRU(4), jnp.ones((2, 5, 3))
    >>> params, _ = net.init(jax.random.key(0), x)
    >>> jax.tree.map(jnp.shape, params)
    {'b': (12,), 'b_hn': (4,), 'w_hidden': (4, 12), 'w_in': (3, 12)}
    >>> net(params, x).shape
    (2, 5, 4)
    """

    def init(key: Key, x: Array, *rest: Any) -> Params:
        params = _drawn("gru", key, x, width, 3, bias, w_init, hidden_init, b_init)
        if bias and reset_after:
            key = jax.random.fold_in(key, 1)
            params["b_hn"] = drawn(b_init, key, (width,), initializers.float_dtype(x))
        return params

    def apply(
        params: Params, x: Array, lengths: Any = None, start: Any = None, mask: Any = None
    ) -> Any:
        w_in, w_hidden = take("gru", params, "w_in", "w_hidden")
        outputs, h = gru(
            *(x, w_in, w_hidden, params.get("b"), params.get("b_hn"), start, lengths, mask),
            reset_after=reset_after,
            reverse=reverse,
        )
        return (outputs, h) if return_final else outputs

    _check_width("gru", width)
    return stateless(init, apply, "gru")


def RNN(
    width: int,
    *,
    activation: str = "tanh",
    bias: bool = True,
    reverse: bool = False,
    return_final: bool = False,
    w_init: Callable = initializers.glorot_uniform(),
    hidden_init: Callable = initializers.orthogonal(),
    b_init: Callable = initializers.zeros,
) -> Layer:
    """The simple recurrent network of `width` units; see `elman`. Its state is h.

    Args:
        width: Number of units.
        activation: "tanh" or "relu".
        bias: Whether to add `b`.
        reverse: Whether to run from each sequence's last step to its first.
        return_final: Whether to return the final h beside the outputs.
        w_init: `(key, shape, dtype) -> array` for `w_in`.
        hidden_init: The same for `w_hidden`; the identity suits relu.
        b_init: The same for `b`.

    Returns:
        A layer named "rnn": `(x, lengths=None, start=None, mask=None)` to `(batch, time, width)`.
        Its parameters are `w_in`, `w_hidden` and, unless `bias` is false, `b`.

    Raises:
        TypeError: At `init`, if an initialiser is no function or gives another shape.
        ValueError: If `width` is no whole number of 1 or more, or the activation is neither; at
            `init` or when applied, if the input, lengths, start or mask do not fit.

    >>> net, x = RNN(4, activation="relu"), jnp.ones((2, 5, 3))
    >>> params, _ = net.init(jax.random.key(0), x)
    >>> net(params, x).shape
    (2, 5, 4)

    Reference: Le, Jaitly & Hinton, "A Simple Way to Initialize Recurrent Networks of Rectified
        Linear Units", 2015 (relu).
    """

    def init(key: Key, x: Array, *rest: Any) -> Params:
        return _drawn("rnn", key, x, width, 1, bias, w_init, hidden_init, b_init)

    def apply(
        params: Params, x: Array, lengths: Any = None, start: Any = None, mask: Any = None
    ) -> Any:
        w_in, w_hidden = take("rnn", params, "w_in", "w_hidden")
        outputs, h = elman(
            *(x, w_in, w_hidden, params.get("b"), start, lengths, mask),
            activation=activation,
            reverse=reverse,
        )
        return (outputs, h) if return_final else outputs

    _check_width("rnn", width)
    require(
        activation in ("tanh", "relu"),
        "rnn",
        "the activation 'tanh' or 'relu'",
        shown(activation),
        "Its backward pass is written for these two.",
    )
    return stateless(init, apply, "rnn")


def Bidirectional(layer: Layer) -> Layer:
    """Two copies of a layer over sequences, one of which reads them from their end.

    Each has its own parameters, under "forward" and "backward"; their outputs at each step stand
    side by side.

    Args:
        layer: `LSTM(width)`, or any layer that takes and gives `(batch, time, features)`.

    Returns:
        A layer named "bidirectional": `(x, lengths=None, start=None, mask=None)` to
        `(batch, time, 2 width)`. If the layer returns its final state, both are returned as a pair,
        which is also the form of `start`.

    Raises:
        TypeError: If `layer` is no layer.

    >>> net, x = Bidirectional(GRU(4)), jnp.ones((2, 5, 3))
    >>> params, _ = net.init(jax.random.key(0), x)
    >>> sorted(params), net(params, x).shape
    (['backward', 'forward'], (2, 5, 8))

    Reference: Schuster & Paliwal, "Bidirectional Recurrent Neural Networks", 1997.
    """
    inner = lift(layer, "bidirectional")

    @network(forward=inner, backward=inner)
    def bidirectional(
        net: Any, x: Array, lengths: Any = None, start: Any = None, mask: Any = None
    ) -> Any:
        starts = (None, None) if start is None else start
        ahead = net.forward(*_given(x, lengths, starts[0], mask))
        turned = None if mask is None else _turned(mask, lengths)
        back = net.backward(*_given(_turned(x, lengths), lengths, starts[1], turned))
        if not isinstance(ahead, tuple):
            return jnp.concatenate([ahead, _turned(back, lengths)], -1)
        outputs = jnp.concatenate([ahead[0], _turned(back[0], lengths)], -1)
        return outputs, (ahead[1], back[1])

    return bidirectional


def _given(*inputs: Any) -> tuple:
    """The inputs without those at the end that are None: a layer need not take more than x."""
    last = max((i for i, x in enumerate(inputs) if x is not None), default=0)
    return inputs[: last + 1]


def _turned(x: Array, lengths: Array | None) -> Array:
    """Each sequence from its last step to its first; what lies beyond its length stays.

    x may be the mask as well: `(batch, time)`.
    """
    if lengths is None:
        return jnp.flip(x, 1)
    time = jnp.arange(x.shape[1])
    length = jnp.minimum(lengths, x.shape[1])[:, None]
    places = jnp.where(time < length, length - 1 - time, time)
    return jnp.take_along_axis(x, jnp.expand_dims(places, tuple(range(2, x.ndim))), axis=1)


def _check_width(where: str, width: int) -> None:
    require(
        is_whole(width),
        where,
        "a width that is a whole number of 1 or more",
        shown(width),
        "It is the number of units.",
    )


def _drawn(
    where: str,
    key: Key,
    x: Array,
    width: int,
    gates: int,
    bias: bool,
    w_init: Callable,
    hidden_init: Callable,
    b_init: Callable,
    rows: int | None = None,
) -> Params:
    """The parameters, each gate's block drawn by itself and the blocks side by side.

    `w_hidden` has as many rows as `width`, or `rows`.
    """
    require(
        len(x.shape) == 3,
        where,
        "x of rank 3 (batch, time, features)",
        f"shape {x.shape}",
        "One sequence is a batch of one: x[None].",
    )
    dtype = initializers.float_dtype(x)
    wide = jnp.promote_types(dtype, jnp.float32)  # the orthogonal one knows no 16-bit numbers

    def side_by_side(key: Key, init: Callable, *shape: int) -> Array:
        blocks = jax.vmap(lambda k: drawn(init, k, shape, wide))(jax.random.split(key, gates))
        return jnp.moveaxis(blocks, 0, -2).reshape(*shape[:-1], -1).astype(dtype)

    w_key, hidden_key, b_key = jax.random.split(key, 3)
    params = {
        "w_in": side_by_side(w_key, w_init, x.shape[-1], width),
        "w_hidden": side_by_side(hidden_key, hidden_init, rows or width, width),
    }
    return {**params, "b": side_by_side(b_key, b_init, width)} if bias else params
