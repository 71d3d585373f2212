"""The simple recurrent network over whole sequences, with back-propagation through time by hand."""

import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from . import cases
from . import recurrence_checks as checks
from .recurrence import Cell, Given, back_through_time, scan_cell, through_time


def _tanh_step(states, a, times):
    return (jnp.tanh(a + times(states[0])),), ()


def _relu_step(states, a, times):
    z = a + times(states[0])
    return (jnp.where(z > 0, z, 0),), ()


def _back(dstates, slopes, inside, times):
    dz = inside(dstates[0] * slopes)
    return (times(dz),), dz


CELLS = {
    "tanh": Cell(_tanh_step, lambda started, h, kept: 1 - h * h, _back),
    "relu": Cell(_relu_step, lambda started, h, kept: (h > 0).astype(h.dtype), _back),
}


def _elman_forward(x, w_in, w_hidden, b, h0, lengths, mask, *, activation, reverse):
    given = Given(x, w_in, (w_hidden,), b, (), (h0,), lengths, mask)
    return through_time(CELLS[activation], given, reverse=reverse)


def _elman_backward(res, dy, *, activation, reverse):
    """From the last step to the first:  dz = φ'(z) dh, which is (1 − h²) dh for tanh and
    [h > 0] dh for relu;  dh' = dz w_hiddenᵀ + dy', with h' the state a step started from;
    and for a block of steps at once:  dw_in += xᵀ dz;  dw_hidden += h'ᵀ dz;  db += Σ dz;
    dx = dz w_inᵀ. Where a step does not count, dz = 0 and dh' = dh
    """
    d = back_through_time(CELLS[activation], res, dy, reverse=reverse)
    return d.x, d.w_in, *d.weights, d.b, *d.states, None, None


@rule(
    _elman_forward,
    _elman_backward,
    cases=cases.ELMAN,
    check=checks.elman,
    rounds=True,
    fast=True,
)
def elman(
    x: Array,
    w_in: Array,
    w_hidden: Array,
    b: Array | None = None,
    h0: Array | None = None,
    lengths: Array | None = None,
    mask: Array | None = None,
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
        lengths: How many steps each sequence has, integers `(batch,)`; None for all. Traced lengths
            out of range count as the nearest one.
        mask: Boolean `(batch, time)`, False at the steps that do not count, wherever they are; None
            for none such. A step beyond the lengths or masked carries the state on, gives 0 and has
            no gradient, as if the sequence had been put together without it.
        activation: "tanh" or "relu".
        reverse: Whether to run from each sequence's last step to its first.

    Returns:
        `(outputs, h)`: h at each step, `(batch, time, units)`, and the final one, in the dtype of
        x; bfloat16 and float16 are computed in float32 and rounded once.

    Raises:
        TypeError: If x is not floating, the lengths are not integers or the mask is not boolean.
        ValueError: If the shapes do not fit, the activation is neither, or concrete lengths are
            out of range.

    >>> outputs, h = elman(jnp.ones((2, 5, 3)), jnp.ones((3, 4)), jnp.ones((4, 4)))
    >>> outputs.shape, bool((outputs[:, -1] == h).all())
    ((2, 5, 4), True)

    Reference: Elman, "Finding Structure in Time", 1990; Werbos, "Backpropagation Through Time",
        1990, for the gradient.
    """

    def cell(x_t: Array, h: Array) -> tuple[Array]:
        z = x_t @ w_in + h @ w_hidden
        z = z if b is None else z + b
        return (jnp.tanh(z) if activation == "tanh" else jnp.where(z > 0, z, 0),)

    given = Given(x, w_in, (w_hidden,), b, (), (h0,), lengths, mask)
    outputs, h = scan_cell(cell, given, reverse)
    return outputs, h
