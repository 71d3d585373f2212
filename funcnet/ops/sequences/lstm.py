"""Long short-term memory over whole sequences, with back-propagation through time by hand."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..shared.varying import zeros_of
from .recurrence import (
    by_batch,
    by_block,
    by_time,
    cases_of,
    check_recurrent,
    chosen,
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
    c0: Array | None,
    lengths: Array | None,
) -> None:
    states = {"h0": h0, "c0": c0}
    check_recurrent("lstm", 4, x, w_in, w_hidden, lengths, {"b": (b, 4)}, states)


def _gates(z: Array) -> tuple[Array, Array, Array, Array]:
    i, f, g, o = jnp.split(z, 4, -1)
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


def _lstm_forward(
    x: Array,
    w_in: Array,
    w_hidden: Array,
    b: Array | None,
    h0: Array | None,
    c0: Array | None,
    lengths: Array | None,
    *,
    reverse: bool,
) -> tuple[tuple[Array, Array, Array], tuple]:
    _check(x, w_in, w_hidden, b, h0, c0, lengths)
    given = (x, w_in, w_hidden, b, h0, c0)
    outputs, kept = _forward(given, lengths, reverse=reverse)
    return outputs, (given, lengths, *kept)


@functools.partial(jax.jit, static_argnames=("reverse",))
def _forward(
    given: tuple, lengths: Array | None, *, reverse: bool
) -> tuple[tuple[Array, Array, Array], tuple]:
    x, inside = given[0], steps_inside(given[0], lengths)
    x_wide, w_in, w_hidden, b, h0, c0 = widened_all(*given)
    steps = by_time(x_wide, inside, x_wide.dtype)
    first = initial((h0, c0), x, w_hidden, w_in, b, lengths)

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        (h, c), (z, here) = carry, inputs
        z = z + h @ w_hidden
        i, f, g, o = _gates(z)
        new = f * c + i * g
        carry = chosen(here, (o * jnp.tanh(new), new), (h, c))
        return carry, (carry[0], c, z)

    def block(carry: tuple, part: tuple) -> tuple[tuple, tuple]:
        xs, here = part
        return step_by_step(step, carry, (projected(xs, w_in, b), here), reverse=reverse)

    (h, c), (hs, starts, z) = by_block(block, first, (steps, inside), reverse=reverse)
    outputs = by_batch(chosen(inside, hs, jnp.zeros_like(hs)), x.dtype)
    return (outputs, h.astype(x.dtype), c.astype(x.dtype)), (hs, starts, z)


def _lstm_backward(res: tuple, dy: tuple[Array, Array, Array], *, reverse: bool) -> tuple:
    """From the last step to the first, with c' the state a step started from and t = tanh(c):
    dc += o (1 − t²) dh;  dz = (g i(1−i) dc, c' f(1−f) dc, i (1−g²) dc, t o(1−o) dh)
    dc' = f dc;  dh' = dz w_hiddenᵀ + dy'
    and for a block of steps at once:  dw_in += xᵀ dz;  dw_hidden += h'ᵀ dz;  db += Σ dz;
    dx = dz w_inᵀ
    """
    return _backward(res, dy, reverse=reverse)


@functools.partial(jax.jit, static_argnames=("reverse",))
def _backward(res: tuple, dy: tuple[Array, Array, Array], *, reverse: bool) -> tuple:
    (x, *weights), lengths, hs, starts, z = res
    _, w_in, w_hidden, b, h0, c0 = widened_all(x, *weights)
    inside, dtype = steps_inside(x, lengths), hs.dtype
    doutputs, (dh, dc) = by_time(dy[0], inside, dtype), (d.astype(dtype) for d in dy[1:])
    (first,) = initial((h0,), x, w_hidden, w_in, b, lengths)
    back = w_hidden.T  # laid out once: a product with a transposed matrix is slower in the loop

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, Array]:
        (dh, dc), (dy, slopes, through, f, here) = carry, inputs
        at = dh + dy
        into = dc + at * through
        dz = slopes * jnp.concatenate([into, into, into, at], -1)
        dz = chosen(here, dz, jnp.zeros_like(dz))
        return chosen(here, (dz @ back, into * f), (dh, dc)), dz

    def block(carry: tuple, part: tuple) -> tuple[tuple, Array]:
        (states, sums), (xs, started, c, z, dy, here) = carry, part
        i, f, g, o = _gates(z)
        t = jnp.tanh(f * c + i * g)
        slopes = [g * i * (1 - i), c * f * (1 - f), i * (1 - g * g), t * o * (1 - o)]
        inputs = (dy, jnp.concatenate(slopes, -1), o * (1 - t * t), f, here)
        states, dz = step_by_step(step, states, inputs, reverse=not reverse)
        return (states, summed(sums, xs, started, dz)), projected(dz, w_in.T, None)

    sums = zeros_of((w_in, w_hidden, b), res, dy)
    steps = by_time(x, inside, dtype), previous(hs, first, reverse), starts, z
    parts = (*steps, doutputs, inside)
    ((dh0, dc0), sums), dx = by_block(block, ((dh, dc), sums), parts, reverse=not reverse)
    states = (None if h0 is None else dh0, None if c0 is None else dc0)
    return by_batch(dx, dtype), *sums, *states, None


@rule(_lstm_forward, _lstm_backward, cases=cases_of(4, (4,), states=2), fast=True)
def lstm(
    x: Array,
    w_in: Array,
    w_hidden: Array,
    b: Array | None = None,
    h0: Array | None = None,
    c0: Array | None = None,
    lengths: Array | None = None,
    *,
    reverse: bool = False,
) -> tuple[Array, Array, Array]:
    """c = σ(f) c' + σ(i) tanh(g), h = σ(o) tanh(c), from (i, f, g, o) = x w_in + h' w_hidden + b.

    What does not depend on the state is not in the loop over steps: for a block of steps at once,
    the inputs meet their weights before it, and what each weight gradient gains comes after it as
    one product. The backward loop carries back dz alone. Kept are h, c and z of each step.

    Args:
        x: `(batch, time, features)`.
        w_in: `(features, 4 units)`, the gates in the order i, f, g, o.
        w_hidden: `(units, 4 units)`.
        b: `(4 units,)`, or None.
        h0: The first h, `(batch, units)`, or None for 0.
        c0: The first c, the same.
        lengths: How many steps each sequence has, integers `(batch,)`; None for all. Steps beyond
            carry the state on and give 0. Traced lengths out of range count as the nearest one.
        reverse: Whether to run from each sequence's last step to its first.

    Returns:
        `(outputs, h, c)`: h at each step, `(batch, time, units)`, and the final h and c, in the
        dtype of x; bfloat16 and float16 are computed in float32 and rounded once.

    Raises:
        TypeError: If x is not floating or the lengths are not integers.
        ValueError: If the shapes do not fit, or concrete lengths are out of range.

    >>> x, w_in, w_hidden = jnp.ones((2, 5, 3)), jnp.ones((3, 16)), jnp.ones((4, 16))
    >>> outputs, h, c = lstm(x, w_in, w_hidden)
    >>> outputs.shape, bool((outputs[:, -1] == h).all())
    ((2, 5, 4), True)

    Reference: Hochreiter & Schmidhuber, "Long Short-Term Memory", 1997; Gers, Schmidhuber &
        Cummins, "Learning to Forget", 2000 (the forget gate).
    """
    _check(x, w_in, w_hidden, b, h0, c0, lengths)
    dtype = x.dtype
    x, w_in, w_hidden, b, h0, c0 = widened_all(x, w_in, w_hidden, b, h0, c0)
    bias: Any = 0 if b is None else b

    def cell(x_t: Array, h: Array, c: Array) -> tuple[Array, Array]:
        i, f, g, o = _gates(x_t @ w_in + h @ w_hidden + bias)
        c = f * c + i * g
        return o * jnp.tanh(c), c

    states = initial((h0, c0), x, w_hidden, w_in, b, lengths)
    outputs, (h, c) = scan_cell(cell, x, states, lengths, reverse)
    return outputs.astype(dtype), h.astype(dtype), c.astype(dtype)
