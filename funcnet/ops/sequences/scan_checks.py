"""What the arguments of ops that carry a state along a whole sequence have to be."""

import jax.numpy as jnp
import numpy as np

from ...jaxpr.jaxprs import is_traced
from ...types import Array, is_whole, require, shown
from ..shared.precision import floating
from .checks import check_heads


def linear_attention(
    op: str,
    *,
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    decay: Array | None,
    state: Array | None,
    causal: bool,
    feature: str,
    normalize: bool,
    chunk: int | None,
) -> None:
    """Raise unless the arguments of `linear_attention` fit."""
    check_heads(op, {"q": q, "k": k, "v": v})
    (batch, time, _, width), (keys, groups) = q.shape, k.shape[1:3]
    require(
        k.shape[:3] == v.shape[:3],
        op,
        f"v of the batch, keys and heads of k, whose shape is {k.shape}",
        f"shape {v.shape}",
        "One value belongs to each key.",
    )
    require(
        not causal or time == keys,
        op,
        f"as many keys as the {time} queries if causal",
        keys,
        "Query i takes the keys up to i; what came before them is the state.",
    )
    require(
        feature in ("elu", "relu", "identity"),
        op,
        "a feature 'elu', 'relu' or 'identity'",
        repr(feature),
        "Apply any other one to q and k, and pass 'identity'.",
    )
    _check_chunk(op, chunk)
    if mask is not None:
        require(
            jnp.result_type(mask) == jnp.bool_,
            op,
            "a boolean mask",
            f"{jnp.result_type(mask)}",
            "It is True for the keys that count.",
            TypeError,
        )
        require(
            jnp.shape(mask) == (batch, keys),
            op,
            f"a mask of shape {(batch, keys)}, (batch, keys)",
            f"shape {jnp.shape(mask)}",
            "A key counts for all queries that see it, or for none.",
        )
    _check_decay(op, decay, groups, causal)
    check_state(op, "state", state, (batch, groups, width, v.shape[3] + normalize))


def _check_decay(op: str, decay: Array | None, groups: int, causal: bool) -> None:
    if decay is None:
        return
    floating(op, decay, "decay")
    require(
        causal and jnp.shape(decay) == (groups,),
        op,
        f"a decay of shape ({groups},), one for each key head, with causal=True",
        f"shape {jnp.shape(decay)}, causal={causal}",
        "It is what is left of a key with each step of time.",
    )
    if not is_traced(decay):
        known = np.asarray(decay)
        require(
            (known >= 0).all() and (known <= 1).all(),
            op,
            "a decay from 0 to 1",
            f"one from {known.min()} to {known.max()}",
            "With 1 nothing is forgotten.",
        )


def check_state(op: str, name: str, state: Array | None, shape: tuple[int, ...]) -> None:
    """Raise unless the state is floating and of this shape, or None."""
    if state is None:
        return
    floating(op, state, name)
    require(
        jnp.shape(state) == shape,
        op,
        f"{name} of shape {shape}",
        f"shape {jnp.shape(state)}",
        "Pass what a call before returned, or None to start from 0.",
    )


def _check_chunk(op: str, chunk: int | None) -> None:
    require(
        chunk is None or is_whole(chunk),
        op,
        "a chunk of 1 token or more, or None",
        shown(chunk),
        "It is how many tokens are looked at together.",
    )


def selective_scan(
    op: str,
    *,
    x: Array,
    delta: Array,
    a: Array,
    b: Array,
    c: Array,
    d: Array | None,
    state: Array | None,
    chunk: int | None,
) -> None:
    """Raise unless the arguments of `selective_scan` fit."""
    for name, given in {"x": x, "delta": delta, "a": a, "b": b, "c": c}.items():
        floating(op, given, name)
    require(
        jnp.ndim(x) == 3,
        op,
        "x of rank 3 (batch, time, channels)",
        f"shape {jnp.shape(x)}",
        "One sequence is a batch of one: x[None].",
    )
    batch, time, channels = x.shape
    require(
        jnp.ndim(a) == 2 and a.shape[0] == channels,
        op,
        f"a of shape ({channels}, states), as x has {channels} channels",
        f"shape {jnp.shape(a)}",
        "Each channel has states of its own.",
    )
    of_step = (batch, time, a.shape[1])
    shapes = {"delta": (delta, x.shape), "b": (b, of_step), "c": (c, of_step)}
    for name, (given, shape) in shapes.items():
        require(
            jnp.shape(given) == shape,
            op,
            f"{name} of shape {shape}",
            f"shape {jnp.shape(given)}",
            "The shape of delta is that of x; b and c are (batch, time, states).",
        )
    if d is not None:
        floating(op, d, "d")
        require(
            jnp.shape(d) == (channels,),
            op,
            f"d of shape ({channels},), one for each channel",
            f"shape {jnp.shape(d)}",
            "Pass None for 0.",
        )
    check_state(op, "state", state, (batch, channels, a.shape[1]))
    _check_chunk(op, chunk)
