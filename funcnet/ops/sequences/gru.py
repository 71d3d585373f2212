"""Gated recurrent units over whole sequences, with back-propagation through time by hand."""

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from . import cases
from . import recurrence_checks as checks
from .recurrence import Cell, Given, back_through_time, scan_cell, through_time


def _gates(a: Array, u: Array, b_hn: Array | None) -> tuple[Array, Array, Array, Array]:
    """r, z, n and the part of n that r scales, from the input's part and the state's."""
    (a_r, a_z, a_n), (u_r, u_z, u_n) = jnp.split(a, 3, -1), jnp.split(u, 3, -1)
    r, z = jax.nn.sigmoid(a_r + u_r), jax.nn.sigmoid(a_z + u_z)
    scaled = u_n if b_hn is None else u_n + b_hn
    return r, z, jnp.tanh(a_n + r * scaled), scaled


def _step(states, a, times, b_hn):
    (h,) = states
    r, z, n, m = _gates(a, times(h), b_hn)
    return (n + z * (h - n),), jnp.concatenate([r, z, n, m], -1)


def _slopes(started, h, kept):
    r, z, n, m = jnp.split(kept, 4, -1)
    into = (1 - z) * (1 - n * n)
    slopes = [into * m * r * (1 - r), (started - n) * z * (1 - z), into * r]
    return jnp.concatenate(slopes, -1), z, into


def _back(dstates, slopes, inside, times):
    (by_gate, z, _), dh = slopes, inside(dstates[0])
    du = by_gate * jnp.concatenate([dh, dh, dh], -1)
    return (dh * z + times(du),), (du, dh)


def _into(started, found, slopes):
    (du, dh), into = found, slopes[2]
    da = jnp.concatenate([du[..., : -into.shape[-1]], dh * into], -1)
    return da, ((started, du),)


AFTER = Cell(_step, _slopes, _back, _into)
"""The reset gate scales the product of the state."""


def _before_step(states, a, times):
    (h,), (a_r, a_z, a_n) = states, jnp.split(a, 3, -1)
    u_r, u_z = jnp.split(times(h), 2, -1)
    r, z = jax.nn.sigmoid(a_r + u_r), jax.nn.sigmoid(a_z + u_z)
    n = jnp.tanh(a_n + times(r * h, 1))
    return (n + z * (h - n),), jnp.concatenate([r, z, n], -1)


def _before_slopes(started, h, kept):
    r, z, n = jnp.split(kept, 3, -1)
    return started * r * (1 - r), (started - n) * z * (1 - z), (1 - z) * (1 - n * n), r, z


def _before_back(dstates, slopes, inside, times):
    (by_r, by_z, into, r, z), dh = slopes, inside(dstates[0])
    dn = into * dh
    dm = times(dn, 1)
    du = jnp.concatenate([by_r * dm, by_z * dh], -1)
    return (z * dh + r * dm + times(du),), (du, dn)


def _before_into(started, found, slopes):
    (du, dn), r = found, slopes[3]
    return jnp.concatenate([du, dn], -1), ((started, du), (r * started, dn))


BEFORE = Cell(_before_step, _before_slopes, _before_back, _before_into)
"""The reset gate scales the state, before the product."""


def _given(x, w_in, w_hidden, b, b_hn, h0, lengths, mask, *, reset_after):
    if reset_after:
        return Given(x, w_in, (w_hidden,), b, (b_hn,), (h0,), lengths, mask)
    parts = tuple(jnp.split(w_hidden, [2 * len(w_hidden)], 1))
    return Given(x, w_in, parts, b, (), (h0,), lengths, mask)


def _gru_forward(x, w_in, w_hidden, b, b_hn, h0, lengths, mask, *, reset_after, reverse):
    given = _given(x, w_in, w_hidden, b, b_hn, h0, lengths, mask, reset_after=reset_after)
    return through_time(AFTER if reset_after else BEFORE, given, reverse=reverse)


def _gru_backward(res, dy, *, reset_after, reverse):
    """From the last step to the first, with h' the state a step started from and
    da_n = (1 − z)(1 − n²) dh;  da_z = (h' − n) z(1 − z) dh,
    where r scales the product, m = h' u_n + b_hn:  dm = r da_n;  da_r = m r(1 − r) da_n;
    dh' = z dh + (da_r, da_z, dm) w_hiddenᵀ + dy'
    where r scales the state, m = r h':  dm = da_n u_nᵀ;  da_r = h' r(1 − r) dm;
    dh' = z dh + r dm + (da_r, da_z) (u_r, u_z)ᵀ + dy'
    and for a block of steps at once:  dw_in += xᵀ da;  db += Σ da;  dx = da w_inᵀ, and either
    dw_hidden += h'ᵀ (da_r, da_z, dm);  db_hn += Σ dm,  or  d(u_r, u_z) += h'ᵀ (da_r, da_z);
    du_n += mᵀ da_n. Where a step does not count, da = dm = 0 and dh' = dh
    """
    d = back_through_time(AFTER if reset_after else BEFORE, res, dy, reverse=reverse)
    (b_hn,) = d.biases or (None,)
    return d.x, d.w_in, jnp.concatenate(d.weights, 1), d.b, b_hn, *d.states, None, None


@rule(
    _gru_forward,
    _gru_backward,
    cases=cases.GRU,
    check=checks.gru,
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
    mask: Array | None = None,
    *,
    reset_after: bool = True,
    reverse: bool = False,
) -> tuple[Array, Array]:
    """h = (1 − z) n + z h', with n = tanh(x w_n + b_n + r (h' u_n + b_hn)) and r, z sigmoids.

    The reset gate r scales the product of the state, with its own bias, as in PyTorch and cuDNN.
    r = σ(x w_r + h' u_r + b_r) and z = σ(x w_z + h' u_z + b_z). With `reset_after=False` it scales
    the state, as first published: n = tanh(x w_n + b_n + (r h') u_n), two products one after the
    other. As in `lstm`, what does not depend on the state is made for a block of steps at once.

    Args:
        x: `(batch, time, features)`.
        w_in: w, `(features, 3 units)`, the gates in the order r, z, n.
        w_hidden: u, `(units, 3 units)`.
        b: `(3 units,)`, or None; PyTorch's two biases of r and z are one here, their sum.
        b_hn: `(units,)`, or None; with `reset_after=False` None, since b_n is the same.
        h0: The first state, `(batch, units)`, or None for 0.
        lengths: How many steps each sequence has, integers `(batch,)`; None for all. Traced lengths
            out of range count as the nearest one.
        mask: Boolean `(batch, time)`, False at the steps that do not count, wherever they are; None
            for none such. A step beyond the lengths or masked carries the state on, gives 0 and has
            no gradient, as if the sequence had been put together without it.
        reset_after: Whether r scales the product, after it is taken, or else the state, before.
        reverse: Whether to run from each sequence's last step to its first.

    Returns:
        `(outputs, h)`: h at each step, `(batch, time, units)`, and the final one, in the dtype of
        x; bfloat16 and float16 are computed in float32 and rounded once.

    Raises:
        TypeError: If x is not floating, the lengths are not integers or the mask is not boolean.
        ValueError: If the shapes do not fit, concrete lengths are out of range, or there is a
            `b_hn` with `reset_after=False`.

    >>> outputs, h = gru(jnp.ones((2, 5, 3)), jnp.ones((3, 12)), jnp.ones((4, 12)))
    >>> outputs.shape, bool((outputs[:, -1] == h).all())
    ((2, 5, 4), True)

    Reference: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014,
        equations 5 to 8, where r scales the state; the other place of r is that of Appleyard et
        al., "Optimizing Performance of Recurrent Neural Networks on GPUs", 2016.
    """

    def after(x_t: Array, h: Array) -> tuple[Array]:
        a = x_t @ w_in
        _, z, n, _ = _gates(a if b is None else a + b, h @ w_hidden, b_hn)
        return ((1 - z) * n + z * h,)

    def before(x_t: Array, h: Array) -> tuple[Array]:
        a = x_t @ w_in
        a_r, a_z, a_n = jnp.split(a if b is None else a + b, 3, -1)
        u_r, u_z, u_n = jnp.split(w_hidden, 3, 1)
        r, z = jax.nn.sigmoid(a_r + h @ u_r), jax.nn.sigmoid(a_z + h @ u_z)
        return ((1 - z) * jnp.tanh(a_n + (r * h) @ u_n) + z * h,)

    given = _given(x, w_in, w_hidden, b, b_hn, h0, lengths, mask, reset_after=reset_after)
    outputs, h = scan_cell(after if reset_after else before, given, reverse)
    return outputs, h
