"""The simple recurrent network over whole sequences, with back-propagation through time by hand."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array, require
from ..shared.varying import zeros_of
from .recurrence import (
    by_batch,
    by_block,
    by_time,
    cases_of,
    check_recurrent,
    chosen,
    drawn,
    initial,
    previous,
    projected,
    scan_cell,
    step_by_step,
    steps_inside,
    summed,
    widened_all,
)


def _check(
    x: Array,
    w_in: Array,
    w_hidden: Array,
    b: Array | None,
    h0: Array | None,
    lengths: Array | None,
    activation: str,
) -> None:
    check_recurrent("elman", 1, x, w_in, w_hidden, lengths, {"b": (b, 1)}, {"h0": h0})
    require(
        activation in ("tanh", "relu"),
        "elman",
        "the activation 'tanh' or 'relu'",
        repr(activation),
        "Choose one of the two.",
    )


def _activated(z: Array, activation: str) -> Array:
    return jnp.tanh(z) if activation == "tanh" else jnp.where(z > 0, z, 0)


def _elman_forward(
    x: Array,
    w_in: Array,
    w_hidden: Array,
    b: Array | None,
    h0: Array | None,
    lengths: Array | None,
    *,
    activation: str,
    reverse: bool,
) -> tuple[tuple[Array, Array], tuple]:
    _check(x, w_in, w_hidden, b, h0, lengths, activation)
    given = (x, w_in, w_hidden, b, h0)
    outputs, kept = _forward(given, lengths, activation=activation, reverse=reverse)
    return outputs, (given, lengths, *kept)


@functools.partial(jax.jit, static_argnames=("activation", "reverse"))
def _forward(
    given: tuple, lengths: Array | None, *, activation: str, reverse: bool
) -> tuple[tuple[Array, Array], tuple]:
    x, inside = given[0], steps_inside(given[0], lengths)
    x_wide, w_in, w_hidden, b, h0 = widened_all(*given)
    steps = by_time(x_wide, inside, x_wide.dtype)

    def step(h: Array, inputs: tuple) -> tuple[Array, Array]:
        z, here = inputs
        h = chosen(here, _activated(z + h @ w_hidden, activation), h)
        return h, h

    def block(h: Array, part: tuple) -> tuple[Array, Array]:
        xs, here = part
        return step_by_step(step, h, (projected(xs, w_in, b), here), reverse=reverse)

    (first,) = initial((h0,), x, w_hidden, w_in, b, lengths)
    h, hs = by_block(block, first, (steps, inside), reverse=reverse)
    outputs = by_batch(chosen(inside, hs, jnp.zeros_like(hs)), x.dtype)
    return (outputs, h.astype(x.dtype)), (hs,)


def _elman_backward(
    res: tuple, dy: tuple[Array, Array], *, activation: str, reverse: bool
) -> tuple:
    """From the last step to the first:  dz = φ'(z) dh, which is (1 − h²) dh for tanh and
    [h > 0] dh for relu;  dh' = dz w_hiddenᵀ + dy', with h' the state a step started from;
    and for a block of steps at once:  dw_in += xᵀ dz;  dw_hidden += h'ᵀ dz;  db += Σ dz;
    dx = dz w_inᵀ
    """
    return _backward(res, dy, activation=activation, reverse=reverse)


@functools.partial(jax.jit, static_argnames=("activation", "reverse"))
def _backward(res: tuple, dy: tuple[Array, Array], *, activation: str, reverse: bool) -> tuple:
    (x, *weights), lengths, hs = res
    _, w_in, w_hidden, b, h0 = widened_all(x, *weights)
    inside, dtype, back = steps_inside(x, lengths), hs.dtype, w_hidden.T

    def step(dh: Array, inputs: tuple) -> tuple[Array, Array]:
        dy, slope, here = inputs
        dz = (dh + dy) * slope
        dz = chosen(here, dz, jnp.zeros_like(dz))
        return chosen(here, dz @ back, dh), dz

    def block(carry: tuple, part: tuple) -> tuple[tuple, Array]:
        (dh, sums), (xs, started, h, dy, here) = carry, part
        slope = 1 - h * h if activation == "tanh" else (h > 0).astype(dtype)
        dh, dz = step_by_step(step, dh, (dy, slope, here), reverse=not reverse)
        return (dh, summed(sums, xs, started, dz)), projected(dz, w_in.T, None)

    (first,) = initial((h0,), x, w_hidden, w_in, b, lengths)
    doutputs, dh = by_time(dy[0], inside, dtype), dy[1].astype(dtype)
    sums = zeros_of((w_in, w_hidden, b), res, dy)
    parts = by_time(x, inside, dtype), previous(hs, first, reverse), hs, doutputs
    (dh0, sums), dx = by_block(block, (dh, sums), (*parts, inside), reverse=not reverse)
    return by_batch(dx, dtype), *sums, None if h0 is None else dh0, None


@rule(
    _elman_forward,
    _elman_backward,
    fast=True,
    cases=cases_of(1, (1,)) | {"relu": drawn(1, biases=(1,), activation="relu")},
)
def elman(
    x: Array,
    w_in: Array,
    w_hidden: Array,
    b: Array | None = None,
    h0: Array | None = None,
    lengths: Array | None = None,
    *,
    activation: str = "tanh",
    reverse: bool = False,
) -> tuple[Array, Array]:
    """h = tanh(x w_in + h' w_hidden + b), or relu of it.

    As in `lstm`, only what depends on the state is in the loop, forward and backward.

    Args:
        x: `(batch, time, features)`.
        w_in: `(features, units)`.
        w_hidden: `(units, units)`.
        b: `(units,)`, or None.
        h0: The first state, `(batch, units)`, or None for 0.
        lengths: How many steps each sequence has, integers `(batch,)`; None for all. Steps beyond
            carry the state on and give 0. Traced lengths out of range count as the nearest one.
        activation: "tanh" or "relu".
        reverse: Whether to run from each sequence's last step to its first.

    Returns:
        `(outputs, h)`: h at each step, `(batch, time, units)`, and the final one, in the dtype of
        x; bfloat16 and float16 are computed in float32 and rounded once.

    Raises:
        TypeError: If x is not floating or the lengths are not integers.
        ValueError: If the shapes do not fit, the activation is neither, or concrete lengths are
            out of range.

    >>> outputs, h = elman(jnp.ones((2, 5, 3)), jnp.ones((3, 4)), jnp.ones((4, 4)))
    >>> outputs.shape, bool((outputs[:, -1] == h).all())
    ((2, 5, 4), True)

    Reference: Elman, "Finding Structure in Time", 1990; Werbos, "Backpropagation Through Time",
        1990, for the gradient.
    """
    _check(x, w_in, w_hidden, b, h0, lengths, activation)
    dtype = x.dtype
    x, w_in, w_hidden, b, h0 = widened_all(x, w_in, w_hidden, b, h0)
    bias: Any = 0 if b is None else b

    def cell(x_t: Array, h: Array) -> tuple[Array]:
        return (_activated(x_t @ w_in + h @ w_hidden + bias, activation),)

    states = initial((h0,), x, w_hidden, w_in, b, lengths)
    outputs, (h,) = scan_cell(cell, x, states, lengths, reverse)
    return outputs.astype(dtype), h.astype(dtype)
