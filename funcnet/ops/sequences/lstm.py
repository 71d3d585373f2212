"""Long short-term memory over whole sequences, with back-propagation through time by hand."""

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from . import cases
from .checks import recurrent
from .recurrence import Cell, Given, back_through_time, scan_cell, through_time


def _gates(z: Array) -> tuple[Array, Array, Array, Array]:
    i, f, g, o = jnp.split(z, 4, -1)
    return jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)


def _step(states, a, u):
    """(h, c) from (h', c') and z = a + u, a = x w_in + b, u = h' w_hidden; keeps c' and z."""
    (_, before), z = states, a + u
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


def _back(dstates, slopes, inside):
    """dz, 0 beyond the lengths; dh' is dz w_hiddenᵀ alone, so None besides, and dc' = f dc."""
    (dh, dc), (by_gate, through, f) = dstates, slopes
    dc = dc + dh * through
    dz = inside(by_gate * jnp.concatenate([dc, dc, dc, dh], -1))
    return dz, (None, dc * f), None


CELL = Cell(_step, _slopes, _back)


def _lstm_forward(x, w_in, w_hidden, b, h0, c0, lengths, *, reverse):
    return through_time(CELL, Given(x, w_in, w_hidden, b, (), (h0, c0)), lengths, reverse=reverse)


def _lstm_backward(res, dy, *, reverse):
    """From the last step to the first, with c' the state a step started from and t = tanh(c):
    dc += o (1 − t²) dh;  dz = (g i(1−i) dc, c' f(1−f) dc, i (1−g²) dc, t o(1−o) dh)
    dc' = f dc;  dh' = dz w_hiddenᵀ + dy'
    and for a block of steps at once:  dw_in += xᵀ dz;  dw_hidden += h'ᵀ dz;  db += Σ dz;
    dx = dz w_inᵀ, as `back_through_time` has it for every cell
    """
    return back_through_time(CELL, res, dy, reverse=reverse)


@rule(
    _lstm_forward,
    _lstm_backward,
    cases=cases.LSTM,
    check=recurrent(4, {"b": 4}, ("h0", "c0")),
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
    *,
    reverse: bool = False,
) -> tuple[Array, Array, Array]:
    """c = σ(f) c' + σ(i) tanh(g), h = σ(o) tanh(c), from (i, f, g, o) = x w_in + h' w_hidden + b.

    What does not depend on the state is not in the loop over steps: for a block of steps at once,
    the inputs meet their weights before it, and what each weight gradient gains comes after it as
    one product. Kept of each step are h, z, and the c' that it started from.

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

    def cell(x_t: Array, h: Array, c: Array) -> tuple[Array, Array]:
        z = x_t @ w_in + h @ w_hidden
        i, f, g, o = _gates(z if b is None else z + b)
        c = f * c + i * g
        return o * jnp.tanh(c), c

    given = Given(x, w_in, w_hidden, b, (), (h0, c0))
    outputs, h, c = scan_cell(cell, given, lengths, reverse)
    return outputs, h, c
