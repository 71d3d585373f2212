"""Gated recurrent units over whole sequences, with back-propagation through time by hand."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..fast.rows import folded
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
    product,
    projected,
    rows_of,
    scan_cell,
    step_by_step,
    steps_inside,
    widened_all,
)


def _check(
    x: Array,
    w_in: Array,
    w_hidden: Array,
    b: Array | None,
    b_hn: Array | None,
    h0: Array | None,
    lengths: Array | None,
) -> None:
    biases = {"b": (b, 3), "b_hn": (b_hn, 1)}
    check_recurrent("gru", 3, x, w_in, w_hidden, lengths, biases, {"h0": h0})


def _gates(a: Array, u: Array, b_hn: Array | None) -> tuple[Array, Array, Array, Array]:
    """r, z, n and the part of n that r scales, from the input's part and the state's."""
    (a_r, a_z, a_n), (u_r, u_z, u_n) = jnp.split(a, 3, -1), jnp.split(u, 3, -1)
    r, z = jax.nn.sigmoid(a_r + u_r), jax.nn.sigmoid(a_z + u_z)
    scaled = u_n if b_hn is None else u_n + b_hn
    return r, z, jnp.tanh(a_n + r * scaled), scaled


def _gru_forward(
    x: Array,
    w_in: Array,
    w_hidden: Array,
    b: Array | None,
    b_hn: Array | None,
    h0: Array | None,
    lengths: Array | None,
    *,
    reverse: bool,
) -> tuple[tuple[Array, Array], tuple]:
    _check(x, w_in, w_hidden, b, b_hn, h0, lengths)
    given = (x, w_in, w_hidden, b, b_hn, h0)
    outputs, kept = _forward(given, lengths, reverse=reverse)
    return outputs, (given, lengths, *kept)


@functools.partial(jax.jit, static_argnames=("reverse",))
def _forward(
    given: tuple, lengths: Array | None, *, reverse: bool
) -> tuple[tuple[Array, Array], tuple]:
    x, inside = given[0], steps_inside(given[0], lengths)
    x_wide, w_in, w_hidden, b, b_hn, h0 = widened_all(*given)
    steps = by_time(x_wide, inside, x_wide.dtype)

    def step(h: Array, inputs: tuple) -> tuple[Array, tuple]:
        a, here = inputs
        r, z, n, scaled = _gates(a, h @ w_hidden, b_hn)
        h = chosen(here, n + z * (h - n), h)
        return h, (h, jnp.concatenate([r, z, n, scaled], -1))

    def block(h: Array, part: tuple) -> tuple[Array, tuple]:
        xs, here = part
        return step_by_step(step, h, (projected(xs, w_in, b), here), reverse=reverse)

    (first,) = initial((h0,), x, w_hidden, w_in, b, b_hn, lengths)
    h, (hs, gates) = by_block(block, first, (steps, inside), reverse=reverse)
    outputs = by_batch(chosen(inside, hs, jnp.zeros_like(hs)), x.dtype)
    return (outputs, h.astype(x.dtype)), (hs, gates)


def _gru_backward(res: tuple, dy: tuple[Array, Array], *, reverse: bool) -> tuple:
    """From the last step to the first, with h' the state a step started from, m = h' w_n + b_hn:
    da_n = (1 − z)(1 − n²) dh;  dm = r da_n;  da_r = m r(1 − r) da_n;  da_z = (h' − n) z(1 − z) dh
    dh' = z dh + (da_r, da_z, dm) w_hiddenᵀ + dy'
    and for a block of steps at once:  dw_in += xᵀ da;  dw_hidden += h'ᵀ (da_r, da_z, dm);
    db += Σ da;  db_hn += Σ dm;  dx = da w_inᵀ
    """
    return _backward(res, dy, reverse=reverse)


@functools.partial(jax.jit, static_argnames=("reverse",))
def _backward(res: tuple, dy: tuple[Array, Array], *, reverse: bool) -> tuple:
    (x, *weights), lengths, hs, gates = res
    _, w_in, w_hidden, b, b_hn, h0 = widened_all(x, *weights)
    inside, dtype, units = steps_inside(x, lengths), hs.dtype, len(w_hidden)
    (first,) = initial((h0,), x, w_hidden, w_in, b, b_hn, lengths)
    doutputs, dh = by_time(dy[0], inside, dtype), dy[1].astype(dtype)
    back = w_hidden.T

    def step(dh: Array, inputs: tuple) -> tuple[Array, tuple]:
        dy, slopes, z, here = inputs
        at = dh + dy
        at = chosen(here, at, jnp.zeros_like(at))
        du = slopes * jnp.concatenate([at, at, at], -1)
        return chosen(here, at * z + du @ back, dh), (at, du)

    def block(carry: tuple, part: tuple) -> tuple[tuple, Array]:
        (dh, (dw_in, dw_hidden, db, db_hn)), (xs, h, gates, dy, here) = carry, part
        r, z, n, m = jnp.split(gates, 4, -1)
        into = (1 - z) * (1 - n * n)
        slopes = jnp.concatenate([into * m * r * (1 - r), (h - n) * z * (1 - z), into * r], -1)
        dh, (at, du) = step_by_step(step, dh, (dy, slopes, z, here), reverse=not reverse)
        da = jnp.concatenate([du[..., : 2 * units], at * into], -1)
        sums = (
            dw_in + product(xs, da),
            dw_hidden + product(h, du),
            None if db is None else db + folded(rows_of(da)),
            None if db_hn is None else db_hn + folded(rows_of(du[..., 2 * units :])),
        )
        return (dh, sums), projected(da, w_in.T, None)

    sums = zeros_of((w_in, w_hidden, b, b_hn), res, dy)
    parts = by_time(x, inside, dtype), previous(hs, first, reverse), gates
    parts = (*parts, doutputs, inside)
    (dh0, sums), dx = by_block(block, (dh, sums), parts, reverse=not reverse)
    return by_batch(dx, dtype), *sums, None if h0 is None else dh0, None


@rule(_gru_forward, _gru_backward, cases=cases_of(3, (3, 1)), fast=True)
def gru(
    x: Array,
    w_in: Array,
    w_hidden: Array,
    b: Array | None = None,
    b_hn: Array | None = None,
    h0: Array | None = None,
    lengths: Array | None = None,
    *,
    reverse: bool = False,
) -> tuple[Array, Array]:
    """h = (1 − z) n + z h', with n = tanh(x w_n + b_n + r (h' u_n + b_hn)) and r, z sigmoids.

    The reset gate r scales the product of the state, with its own bias, as in PyTorch and cuDNN.
    r = σ(x w_r + h' u_r + b_r) and z = σ(x w_z + h' u_z + b_z). As in `lstm`, what does not depend
    on the state is made for a block of steps at once.

    Args:
        x: `(batch, time, features)`.
        w_in: w, `(features, 3 units)`, the gates in the order r, z, n.
        w_hidden: u, `(units, 3 units)`.
        b: `(3 units,)`, or None; PyTorch's two biases of r and z are one here, their sum.
        b_hn: `(units,)`, or None.
        h0: The first state, `(batch, units)`, or None for 0.
        lengths: How many steps each sequence has, integers `(batch,)`; None for all. Steps beyond
            carry the state on and give 0. Traced lengths out of range count as the nearest one.
        reverse: Whether to run from each sequence's last step to its first.

    Returns:
        `(outputs, h)`: h at each step, `(batch, time, units)`, and the final one, in the dtype of
        x; bfloat16 and float16 are computed in float32 and rounded once.

    Raises:
        TypeError: If x is not floating or the lengths are not integers.
        ValueError: If the shapes do not fit, or concrete lengths are out of range.

    >>> outputs, h = gru(jnp.ones((2, 5, 3)), jnp.ones((3, 12)), jnp.ones((4, 12)))
    >>> outputs.shape, bool((outputs[:, -1] == h).all())
    ((2, 5, 4), True)

    Reference: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014,
        equations 5 to 8; the place of r is that of Appleyard et al., "Optimizing Performance of
        Recurrent Neural Networks on GPUs", 2016.
    """
    _check(x, w_in, w_hidden, b, b_hn, h0, lengths)
    dtype = x.dtype
    x, w_in, w_hidden, b, b_hn, h0 = widened_all(x, w_in, w_hidden, b, b_hn, h0)
    bias: Any = 0 if b is None else b

    def cell(x_t: Array, h: Array) -> tuple[Array]:
        _, z, n, _ = _gates(x_t @ w_in + bias, h @ w_hidden, b_hn)
        return ((1 - z) * n + z * h,)

    states = initial((h0,), x, w_hidden, w_in, b, b_hn, lengths)
    outputs, (h,) = scan_cell(cell, x, states, lengths, reverse)
    return outputs.astype(dtype), h.astype(dtype)
