"""Long short-term memory over whole sequences, with back-propagation through time by hand."""

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from . import cases
from . import recurrence_checks as checks
from .recurrence import Cell, Given, back_through_time, scan_cell, through_time


def _gates(z: Array) -> tuple[Array, Array, Array, Array]:
    i, f, g, o = jnp.split(z, 4, -1)
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


def _step(states, a, times):
    """(h, c) from (h', c') and z = a + u, a = x w_in + b, u = h' w_hidden; keeps c' and z."""
    h, before = states
    z = a + times(h)
    i, f, g, o = _gates(z)
    c = f * before + i * g
    return (o * jnp.tanh(c), c), (before, z)


def _slopes(_started, _h, kept):
    """Of each gate, dz without its dc or dh; of dh, what comes to dc; and f."""
    before, z = kept
    i, f, g, o = _gates(z)
    t = jnp.tanh(f * before + i * g)
    slopes = [g * i * (1 - i), before * f * (1 - f), i * (1 - g * g), t * o * (1 - o)]
    return jnp.concatenate(slopes, -1), o * (1 - t * t), f


def _back(dstates, slopes, inside, times):
    """dh' = dz w_hiddenᵀ and dc' = f dc; finds dz, 0 where a step does not count."""
    (dh, dc), (by_gate, through, f) = dstates, slopes
    dc = dc + dh * through
    dz = inside(by_gate * jnp.concatenate([dc, dc, dc, dh], -1))
    return (times(dz), dc * f), dz


CELL = Cell(_step, _slopes, _back)


def _projected_step(states, a, times):
    """The same, with h the product of m = o tanh(c) and w_proj."""
    (m, c), kept = _step(states, a, times)
    return (times(m, 1), c), kept


def _projected_slopes(started, h, kept):
    """The same, and m."""
    before, z = kept
    i, f, g, o = _gates(z)
    return _slopes(started, h, kept), o * jnp.tanh(f * before + i * g)


def _projected_back(dstates, slopes, inside, times):
    """dm = dh w_projᵀ goes on as dh did; finds dh too."""
    dh, dc = dstates
    before, dz = _back((times(dh, 1), dc), slopes[0], inside, times)
    return before, (dz, inside(dh))


def _projected_into(started, found, slopes):
    (dz, dh), (_, m) = found, slopes
    return dz, ((started, dz), (m, dh))


PROJECTED = Cell(_projected_step, _projected_slopes, _projected_back, _projected_into)


def _given(x, w_in, w_hidden, b, h0, c0, lengths, mask, w_proj):
    weights = (w_hidden,) if w_proj is None else (w_hidden, w_proj)
    return Given(x, w_in, weights, b, (), (h0, c0), lengths, mask)


def _cell(given: Given) -> Cell:
    return CELL if len(given.weights) == 1 else PROJECTED


def _lstm_forward(x, w_in, w_hidden, b, h0, c0, lengths, mask, w_proj, *, reverse):
    given = _given(x, w_in, w_hidden, b, h0, c0, lengths, mask, w_proj)
    return through_time(_cell(given), given, reverse=reverse)


def _lstm_backward(res, dy, *, reverse):
    """From the last step to the first, with c' the state a step started from, t = tanh(c), m = o t,
    and dm = dh, or with a projection dm = dh w_projᵀ:
    dc += o (1 − t²) dm;  dz = (g i(1−i) dc, c' f(1−f) dc, i (1−g²) dc, t o(1−o) dm)
    dc' = f dc;  dh' = dz w_hiddenᵀ + dy'
    and for a block of steps at once:  dw_in += xᵀ dz;  dw_hidden += h'ᵀ dz;  db += Σ dz;
    dw_proj += mᵀ dh;  dx = dz w_inᵀ, as `back_through_time` has it for every cell. Where a step
    does not count, dz = 0, dh' = dh and dc' = dc, and dh has no part in dw_proj
    """
    d = back_through_time(_cell(res[0]), res, dy, reverse=reverse)
    w_hidden, w_proj = (*d.weights, None)[:2]
    return d.x, d.w_in, w_hidden, d.b, *d.states, None, None, w_proj


@rule(
    _lstm_forward,
    _lstm_backward,
    cases=cases.LSTM,
    check=checks.lstm,
    rounds=True,
    fast=True,
)
def lstm(
    x: Array,
    w_in: Array,
    w_hidden: Array,
    b: Array | None = None,
    h0: Array | None = None,
    c0: Array | None = None,
    lengths: Array | None = None,
    mask: Array | None = None,
    w_proj: Array | None = None,
    *,
    reverse: bool = False,
) -> tuple[Array, Array, Array]:
    """c = σ(f) c' + σ(i) tanh(g), h = σ(o) tanh(c), from (i, f, g, o) = x w_in + h' w_hidden + b.

    With `w_proj`, h = (σ(o) tanh(c)) w_proj, as wide as that makes it, while c is as wide as ever.

    What does not depend on the state is not in the loop over steps: for a block of steps at once,
    the inputs meet their weights before it, and what each weight gradient gains comes after it as
    one product. Kept of each step are h, z, and the c' that it started from.

    Args:
        x: `(batch, time, features)`.
        w_in: `(features, 4 units)`, the gates in the order i, f, g, o.
        w_hidden: `(units, 4 units)`, or `(width, 4 units)` with a projection to `width`.
        b: `(4 units,)`, or None.
        h0: The first h, `(batch, units)`, or `(batch, width)`; None for 0.
        c0: The first c, `(batch, units)`, or None for 0.
        lengths: How many steps each sequence has, integers `(batch,)`; None for all. Traced lengths
            out of range count as the nearest one.
        mask: Boolean `(batch, time)`, False at the steps that do not count, wherever they are; None
            for none such. A step beyond the lengths or masked carries the state on, gives 0 and has
            no gradient, as if the sequence had been put together without it.
        w_proj: `(units, width)`, or None for no projection.
        reverse: Whether to run from each sequence's last step to its first.

    Returns:
        `(outputs, h, c)`: h at each step, `(batch, time, units)` or `(batch, time, width)`, and the
        final h and c, in the dtype of x; bfloat16 and float16 are computed in float32 and rounded
        once.

    Raises:
        TypeError: If x is not floating, the lengths are not integers or the mask is not boolean.
        ValueError: If the shapes do not fit, or concrete lengths are out of range.

    >>> x, w_in, w_hidden = jnp.ones((2, 5, 3)), jnp.ones((3, 16)), jnp.ones((4, 16))
    >>> outputs, h, c = lstm(x, w_in, w_hidden)
    >>> outputs.shape, bool((outputs[:, -1] == h).all())
    ((2, 5, 4), True)

    Reference: Hochreiter & Schmidhuber, "Long Short-Term Memory", 1997; Gers, Schmidhuber &
        Cummins, "Learning to Forget", 2000 (the forget gate); Sak, Senior & Beaufays, "Long
        Short-Term Memory Recurrent Neural Network Architectures for Large Scale Acoustic Modeling",
        2014, equations 7 to 12 (the projection).
    """

    def cell(x_t: Array, h: Array, c: Array) -> tuple[Array, Array]:
        z = x_t @ w_in + h @ w_hidden
        i, f, g, o = _gates(z if b is None else z + b)
        c = f * c + i * g
        m = o * jnp.tanh(c)
        return m if w_proj is None else m @ w_proj, c

    given = _given(x, w_in, w_hidden, b, h0, c0, lengths, mask, w_proj)
    outputs, h, c = scan_cell(cell, given, reverse)
    return outputs, h, c
