"""A selective state space model, the block of Mamba; it decodes with a state of constant size."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..nn.layer import Layer, take, take_state
from ..ops.activations.smooth import silu, softplus
from ..ops.images.conv import conv
from ..ops.products.linear import dense
from ..ops.sequences.selective_scan import selective_scan
from ..ops.shared.precision import wide
from ..types import Array, Key, Params, State, is_whole, require, shown
from . import initializers
from .initializers import drawn

PARTS = ("in_proj", "conv", "x_proj", "dt_proj", "a_log", "d", "out_proj")


def SelectiveSSM(
    *,
    states: int = 16,
    expand: int = 2,
    kernel: int = 4,
    dt_rank: int | None = None,
    dt_range: tuple[float, float] = (1e-3, 0.1),
    chunk: int | None = None,
    cache: bool = False,
    w_init: Callable = initializers.torch_linear(),
) -> Layer:
    """The block of Mamba: out_proj(y · silu(z)), y the selective scan of silu(conv(x)).

    x and z are the halves of `in_proj` of the input, and the convolution is causal and depthwise.
    x_proj(x) is what δ is made of, B and C; δ = softplus(dt_proj(...)), and A = −exp(a_log).

    With `cache` the layer decodes: its state holds the last inputs of the convolution, that of the
    scan, and how many tokens there were; it has the same size after any number of tokens, and each
    call goes on from it. The parameters are those of the same layer without it.

    Args:
        states: Numbers of state of each channel.
        expand: How many times as many channels as features.
        kernel: Taps of the convolution.
        dt_rank: The numbers that δ is made of; None for a sixteenth of the features, rounded up.
        dt_range: Between which δ is drawn at the start, evenly in its logarithm.
        chunk: See the op `selective_scan`.
        cache: Whether to decode.
        w_init: Draws the weights of `in_proj`, `conv`, `x_proj` and `out_proj`.

    Returns:
        A layer named "selective_ssm": `(batch, time, features)` to the same shape. With E channels,
        N states and rank R its parameters are `in_proj/w` `(features, 2 E)`, `conv/w` `(kernel, 1,
        E)` and `conv/b` `(E,)`, `x_proj/w` `(E, R + 2 N)`, `dt_proj/w` `(R, E)` and `dt_proj/b`
        `(E,)`, `a_log` `(E, N)`, at the start ln 1, ln 2 and so on, `d` `(E,)`, at the start 1,
        and `out_proj/w` `(E, features)`.

    Raises:
        TypeError: At `init`, if the initialiser is no function or gives another shape.
        ValueError: If an option is out of range, or the input is not of rank 3.

    >>> x, net = jnp.ones((2, 5, 8)), SelectiveSSM(states=4, cache=True)
    >>> params, state = net.init(jax.random.key(0), x)
    >>> jax.tree.map(jnp.shape, state), SelectiveSSM(states=4)(params, x).shape
    ({'conv': (2, 3, 16), 'index': (), 'scan': (2, 16, 4)}, (2, 5, 8))

    Reference: Gu & Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023,
        section 3.4, and section 3.6 for A and δ at the start.
    """
    sizes = (states, expand, kernel, 1 if dt_rank is None else dt_rank)
    require(
        all(is_whole(n) for n in sizes),
        "selective_ssm",
        "states, expand, kernel and dt_rank that are whole numbers of 1 or more",
        f"states={states}, expand={expand}, kernel={kernel}, dt_rank={dt_rank}",
        "Without dt_rank it is a sixteenth of the features.",
    )
    require(
        np.shape(dt_range) == (2,) and 0 < dt_range[0] <= dt_range[1],
        "selective_ssm",
        "dt_range to be two numbers above 0 in order",
        shown(dt_range),
        "The usual ones are (0.001, 0.1).",
    )

    def init(key: Key, x: Array) -> tuple[Params, State]:
        _check_input(x)
        channels, rank = expand * x.shape[-1], dt_rank or math.ceil(x.shape[-1] / 16)
        params = _drawn(key, x, channels, states, kernel, rank, dt_range, w_init)
        if not cache:
            return params, {}
        dtype = initializers.float_dtype(x)
        return params, {
            "conv": jnp.zeros((x.shape[0], kernel - 1, channels), dtype),
            "scan": jnp.zeros((x.shape[0], channels, states), wide(dtype)),
            "index": jnp.zeros((), jnp.int32),
        }

    def apply(
        params: Params, state: State, x: Array, train: bool = False, key: Key | None = None
    ) -> tuple[Array, State]:
        _check_input(x)
        into, taps, read, steps, a_log, d, out = take("selective_ssm", params, *PARTS)
        inner, z = jnp.split(dense(x, *_affine(into)), 2, axis=-1)
        names = ("conv", "scan", "index") if cache else ()
        before, start, index = take_state("selective_ssm", state, *names) or (None, None, 0)
        if before is not None:
            _check_batch(before, x)
            inner = jnp.concatenate([before.astype(inner.dtype), inner], axis=1)
        padding = "VALID" if cache else "CAUSAL"
        mixed = silu(conv(inner, *_affine(taps), groups=inner.shape[-1], padding=padding))
        rank = _affine(steps)[0].shape[0]
        low, b, c = jnp.split(dense(mixed, *_affine(read)), [rank, rank + a_log.shape[1]], axis=-1)
        delta = softplus(dense(low, *_affine(steps)))
        a = -jnp.exp(a_log.astype(wide(a_log)))
        y, last = selective_scan(mixed, delta, a, b, c, d, start, chunk=chunk)
        y = dense(y * silu(z), *_affine(out))
        if before is None:
            return y, state
        kept = inner[:, inner.shape[1] - (kernel - 1) :].astype(before.dtype)
        return y, {"conv": kept, "scan": last, "index": index + x.shape[1]}

    return Layer(init, apply, "selective_ssm")


def _drawn(
    key: Key,
    x: Array,
    channels: int,
    states: int,
    kernel: int,
    rank: int,
    dt_range: tuple[float, float],
    w_init: Callable,
) -> Params:
    features, dtype = initializers.features("selective_ssm", x), initializers.float_dtype(x)
    into, taps, read, steps, lengths, out = jax.random.split(key, 6)
    a = jnp.broadcast_to(jnp.arange(1, states + 1, dtype=dtype), (channels, states))
    taps = {"w": drawn(w_init, taps, (kernel, 1, channels), dtype), "b": jnp.zeros(channels, dtype)}
    bound = rank**-0.5
    return {
        "in_proj": {"w": drawn(w_init, into, (features, 2 * channels), dtype)},
        "conv": taps,
        "x_proj": {"w": drawn(w_init, read, (channels, rank + 2 * states), dtype)},
        "dt_proj": {
            "w": jax.random.uniform(steps, (rank, channels), dtype, -bound, bound),
            "b": _step_bias(lengths, channels, dt_range).astype(dtype),
        },
        "a_log": jnp.log(a),
        "d": jnp.ones(channels, dtype),
        "out_proj": {"w": drawn(w_init, out, (channels, features), dtype)},
    }


def _affine(params: Params) -> tuple[Array, Array | None]:
    """A weight and its bias, None where there is none."""
    (w,) = take("selective_ssm", params, "w")
    return w, params.get("b")


def _step_bias(key: Key, channels: int, bounds: tuple[float, float]) -> Array:
    """What softplus makes lengths of that lie between the bounds, evenly in their logarithm."""
    low, high = (math.log(bound) for bound in bounds)
    delta = jnp.exp(jax.random.uniform(key, (channels,), minval=low, maxval=high))
    return delta + jnp.log(-jnp.expm1(-delta))


def _check_input(x: Any) -> None:
    require(
        len(x.shape) == 3,
        "selective_ssm",
        "x of rank 3 (batch, time, features)",
        f"shape {tuple(x.shape)}",
        "One sequence is a batch of one: x[None].",
    )


def _check_batch(before: Array, x: Array) -> None:
    require(
        len(before) == len(x),
        "selective_ssm",
        f"{len(before)} sequences, of which the state holds what was read",
        f"{len(x)}",
        "Start anew from net.init(key, x)[1].",
    )
