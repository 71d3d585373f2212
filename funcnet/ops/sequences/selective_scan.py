"""The selective scan of a state space model: a linear recurrence that its inputs steer.

What the recurrence carries is N numbers for each channel, N times as much as its input. States are
made for a chunk of steps at a time, forward and again in backward; kept is the state before each.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..shared.varying import axes_of, varying
from . import cases, scan_checks

CHUNK, TOGETHER = 16, 8
"""The steps whose states are there at one time; and those that are written out in a row."""


def _in_chunks(x: Array, chunk: int | None) -> Array:
    """(batch, time, width) to (chunks, steps, batch, width), filled up with 0."""
    batch, time, width = x.shape
    steps = max(min(chunk or CHUNK, time), 1)
    count = -(-time // steps)
    x = jnp.pad(x.swapaxes(0, 1), ((0, count * steps - time), (0, 0), (0, 0)))
    return x.reshape(count, steps, batch, width)


def _in_time(x: Array, time: int) -> Array:
    """Back to (batch, time, width)."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])[:time].swapaxes(0, 1)


def _start(args: tuple) -> Array:
    x, delta, a, b, c, _, state = args
    zero = jnp.zeros((x.shape[0], *a.shape), jnp.result_type(x, delta, a, b, c))
    return varying(zero if state is None else state.astype(zero.dtype), axes_of(*args))


def _written_out(step: Callable, carry: Any, steps: Any, *, reverse: bool = False) -> Any:
    """A scan over a chunk, some steps at a time: they become one loop over what a step has."""
    return jax.lax.scan(step, carry, steps, reverse=reverse, unroll=TOGETHER)


def _step(a: Array, h: Array, part: tuple) -> tuple[Array, Array]:
    """The state after a step, and what is read of it."""
    x, delta, b, c = part
    h = jnp.exp(delta[..., None] * a) * h + (delta * x)[..., None] * b[:, None]
    return h, (h * c[:, None]).sum(-1)


def _selective_scan_forward(x, delta, a, b, c, d, state, *, chunk):
    args = (x, delta, a, b, c, d, state)

    def body(h: Array, part: tuple) -> tuple[Array, tuple[Array, Array]]:
        last, y = _written_out(partial(_step, a), h, part)
        return last, (h, y)

    parts = tuple(_in_chunks(part, chunk) for part in (x, delta, b, c))
    last, (before, y) = jax.lax.scan(body, _start(args), parts)
    y = _in_time(y, x.shape[1])
    return (y if d is None else y + d * x, last), (args, before)


def _selective_scan_backward(res, dys, *, chunk):
    """With r = exp(δ A) and g what the loss changes by with h, from the last step to the first:
    g = dy C + r' g', of the step after;  dC = Σ h dy;  dB = Σ g δ x
    dx = δ Σ g B + D dy;  dδ = x Σ g B + Σ g h₋₁ r A;  dA = Σ g h₋₁ r δ;  dD = Σ x dy
    h is made again for a chunk, from the state before it; h₋₁ is the state of the step before
    """
    (x, delta, a, b, c, d, state), before = res
    dy, dlast = dys

    def ahead(h: Array, part: tuple) -> tuple[Array, Array]:
        retained, added = part
        h = retained * h + added
        return h, h

    def back(dh: Array, part: tuple) -> tuple[Array, Array]:
        retained, read = part
        g = dh + read
        return retained * g, g

    def body(dh: Array, part: tuple) -> tuple[Array, tuple]:
        x, delta, b, c, dy, h = part
        retained = jnp.exp(delta[..., None] * a)
        added, read = (delta * x)[..., None] * b[:, :, None], dy[..., None] * c[:, :, None]
        _, hs = _written_out(ahead, h, (retained, added))
        dh, g = _written_out(back, dh, (retained, read), reverse=True)
        slope = g * jnp.concatenate([h[None], hs[:-1]]) * retained
        through = (g * b[:, :, None]).sum(-1)
        ddelta = x * through + (slope * a).sum(-1)
        da = (slope * delta[..., None]).sum((0, 1))
        db, dc = (g * (delta * x)[..., None]).sum(2), (hs * dy[..., None]).sum(2)
        return dh, (delta * through, ddelta, db, dc, da)

    parts = tuple(_in_chunks(part, chunk) for part in (x, delta, b, c, dy))
    dh, (*grown, da) = jax.lax.scan(
        body, varying(dlast, axes_of(res, dys)), (*parts, before), reverse=True
    )
    dx, ddelta, db, dc = (_in_time(part, x.shape[1]) for part in grown)
    dd = None if d is None else (x * dy).sum((0, 1))
    dx = dx if d is None else dx + d * dy
    return dx, ddelta, da.sum(0), db, dc, dd, None if state is None else dh


@rule(
    _selective_scan_forward,
    _selective_scan_backward,
    cases=cases.SELECTIVE_SCAN,
    check=scan_checks.selective_scan,
    wide=True,
    recomputes=True,
    fast=True,
)
def selective_scan(
    x: Array,
    delta: Array,
    a: Array,
    b: Array,
    c: Array,
    d: Array | None = None,
    state: Array | None = None,
    *,
    chunk: int | None = None,
) -> tuple[Array, Array]:
    """h = exp(δ A) h₋₁ + δ B x and y = C h + D x, channel by channel, step by step.

    Keeps its arguments and the state before each chunk of steps; no pass holds the states of more
    steps than a chunk has.

    Args:
        x: `(batch, time, channels)`.
        delta: δ, how long each step lasts, of the shape of x and above 0: `softplus` of something.
            A step of length 0 carries the state on.
        a: A, `(channels, states)`, below 0 where a state is to fade.
        b: B, what a step writes, `(batch, time, states)`.
        c: C, what is read of the states at it, the same.
        d: D, `(channels,)`, or None for 0.
        state: The h to begin from, `(batch, channels, states)`; None for 0.
        chunk: How many steps to take together; None for 16.

    Returns:
        `(outputs, state)`: y, `(batch, time, channels)`, in the dtype of x, and the last h,
        `(batch, channels, states)`; bfloat16 and float16 are computed in float32, and h stays so.

    Raises:
        TypeError: If an array is not floating.
        ValueError: If the shapes do not fit, or the chunk is out of range.

    >>> x, one = jnp.array([1.0, 0.0, 0.0]).reshape(1, 3, 1), jnp.ones((1, 3, 1))
    >>> outputs, state = selective_scan(x, one, jnp.log(jnp.array([[0.5]])), one, one)
    >>> outputs.ravel().tolist(), state.tolist()
    ([1.0, 0.5, 0.25], [[[0.25]]])

    Reference: Gu & Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023,
        equations 2a and 4, algorithm 2, and appendix D (states made again in backward); B is
        multiplied by δ alone, as in its code.
    """

    steps = tuple(part.swapaxes(0, 1) for part in (x, delta, b, c))
    last, y = jax.lax.scan(partial(_step, a), _start((x, delta, a, b, c, d, state)), steps)
    y = y.swapaxes(0, 1)
    return y if d is None else y + d * x, last
