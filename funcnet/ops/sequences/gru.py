"""Gated recurrent units over whole sequences, with back-propagation through time by hand."""

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from . import cases
from .checks import recurrent
from .recurrence import Cell, Given, back_through_time, scan_cell, through_time


def _gates(a: Array, u: Array, b_hn: Array | None) -> tuple[Array, Array, Array, Array]:
    """r, z, n and the part of n that r scales, from the input's part and the state's."""
    (a_r, a_z, a_n), (u_r, u_z, u_n) = jnp.split(a, 3, -1), jnp.split(u, 3, -1)
    r, z = jax.nn.sigmoid(a_r + u_r), jax.nn.sigmoid(a_z + u_z)
    scaled = u_n if b_hn is None else u_n + b_hn
    return r, z, jnp.tanh(a_n + r * scaled), scaled


def _step(states, a, u, b_hn):
    (h,) = states
    r, z, n, m = _gates(a, u, b_hn)
    return (n + z * (h - n),), jnp.concatenate([r, z, n, m], -1)


def _slopes(started, h, kept):
    r, z, n, m = jnp.split(kept, 4, -1)
    into = (1 - z) * (1 - n * n)
    slopes = [into * m * r * (1 - r), (started - n) * z * (1 - z), into * r]
    return jnp.concatenate(slopes, -1), z, into


def _back(dstates, slopes, inside):
    (by_gate, z, _), dh = slopes, inside(dstates[0])
    return by_gate * jnp.concatenate([dh, dh, dh], -1), (dh * z,), dh


def _into(du, dh, slopes):
    into = slopes[2]
    return jnp.concatenate([du[..., : -into.shape[-1]], dh * into], -1)


CELL = Cell(_step, _slopes, _back, _into)


def _gru_forward(x, w_in, w_hidden, b, b_hn, h0, lengths, *, reverse):
    return through_time(CELL, Given(x, w_in, w_hidden, b, (b_hn,), (h0,)), lengths, reverse=reverse)


def _gru_backward(res, dy, *, reverse):
    """From the last step to the first, with h' the state a step started from, m = h' w_n + b_hn:
    da_n = (1 − z)(1 − n²) dh;  dm = r da_n;  da_r = m r(1 − r) da_n;  da_z = (h' − n) z(1 − z) dh
    dh' = z dh + (da_r, da_z, dm) w_hiddenᵀ + dy'
    and for a block of steps at once:  dw_in += xᵀ da;  dw_hidden += h'ᵀ (da_r, da_z, dm);
    db += Σ da;  db_hn += Σ dm;  dx = da w_inᵀ
    """
    return back_through_time(CELL, res, dy, reverse=reverse)


@rule(
    _gru_forward,
    _gru_backward,
    cases=cases.GRU,
    check=recurrent(3, {"b": 3, "b_hn": 1}, ("h0",)),
    rounds=True,
    fast=True,
)
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

    def cell(x_t: Array, h: Array) -> tuple[Array]:
        a = x_t @ w_in
        _, z, n, _ = _gates(a if b is None else a + b, h @ w_hidden, b_hn)
        return ((1 - z) * n + z * h,)

    given = Given(x, w_in, w_hidden, b, (b_hn,), (h0,))
    outputs, h = scan_cell(cell, given, lengths, reverse)
    return outputs, h
