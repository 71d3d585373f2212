"""Gated feed-forward blocks as one op each: two products side by side, one closes a gate on the
other, and a third product.

The block keeps its input and the two products before the gate. What the gate lets through is the
widest array of a transformer; it is made again in the backward pass.
"""

import math

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..shared.precision import product
from . import cases, checks


def _silu(x: Array) -> tuple[Array, Array]:
    """x σ(x), and its slope."""
    s = jax.lax.logistic(x)
    return x * s, s * (1 + x * (1 - s))


def _gelu(x: Array) -> tuple[Array, Array]:
    """x Φ(x), and its slope."""
    below = jax.lax.erfc(-x * math.sqrt(0.5)) / 2
    return x * below, below + x * jnp.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _forward(gate, x, w_gate, w_up, w_down):
    dtype = jnp.result_type(x, w_gate, w_up, w_down)
    g, u = product(x, w_gate, dtype), product(x, w_up, dtype)
    y = product(gate(g)[0] * u, w_down, dtype)
    return y.astype(dtype), ((x, w_gate, w_up, w_down), g, u)


def _backward(gate, res, dy):
    (x, w_gate, w_up, w_down), g, u = res
    dtype, hidden = dy.dtype, w_gate.shape[1]
    rows, drows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, w_down.shape[1])
    g, u = g.reshape(-1, hidden), u.reshape(-1, hidden)
    opened, slope = gate(g)
    dh = product(drows, w_down.T, dtype)
    du, dg = dh * opened, dh * u * slope
    return (
        (product(dg, w_gate.T, dtype) + product(du, w_up.T, dtype)).reshape(x.shape),
        product(rows.T, dg, dtype),
        product(rows.T, du, dtype),
        product((opened * u).T, drows, dtype),
    )


def _swiglu_forward(x, w_gate, w_up, w_down):
    return _forward(_silu, x, w_gate, w_up, w_down)


def _swiglu_backward(res, dy):
    """With g = x w_gate, u = x w_up, h = silu(g) u:
    dw_down = hᵀ dy;  dh = dy w_downᵀ;  du = dh silu(g);  dg = dh u silu'(g)
    dw_gate = xᵀ dg;  dw_up = xᵀ du;  dx = dg w_gateᵀ + du w_upᵀ
    """
    return _backward(_silu, res, dy)


@rule(
    _swiglu_forward,
    _swiglu_backward,
    cases=cases.GATED,
    check=checks.gated,
    recomputes=True,
    rounds=True,
)
def swiglu(x: Array, w_gate: Array, w_up: Array, w_down: Array) -> Array:
    """(silu(x w_gate) · x w_up) w_down, over the last axis.

    Keeps x and the two products with it (in 16-bit dtypes as float32); the gradients of the
    weights are two-dimensional products whatever the rank of x.

    Args:
        x: `(..., inputs)`.
        w_gate: `(inputs, hidden)`.
        w_up: `(inputs, hidden)`.
        w_down: `(hidden, outputs)`.

    Returns:
        `(..., outputs)`, in the dtype that JAX promotes the arguments to.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If the shapes do not fit.

    >>> one = jnp.ones((1, 1))
    >>> round(float(swiglu(one, one, 3 * one, one)[0, 0]), 4)  # 3 silu(1)
    2.1932

    Reference: Shazeer, "GLU Variants Improve Transformer", 2020, equation 6.
    """
    return _forward(_silu, x, w_gate, w_up, w_down)[0]


def _geglu_forward(x, w_gate, w_up, w_down):
    return _forward(_gelu, x, w_gate, w_up, w_down)


def _geglu_backward(res, dy):
    """With g = x w_gate, u = x w_up, h = gelu(g) u:
    dw_down = hᵀ dy;  dh = dy w_downᵀ;  du = dh gelu(g);  dg = dh u gelu'(g)
    dw_gate = xᵀ dg;  dw_up = xᵀ du;  dx = dg w_gateᵀ + du w_upᵀ
    """
    return _backward(_gelu, res, dy)


@rule(
    _geglu_forward,
    _geglu_backward,
    cases=cases.GATED,
    check=checks.gated,
    recomputes=True,
    rounds=True,
)
def geglu(x: Array, w_gate: Array, w_up: Array, w_down: Array) -> Array:
    """(gelu(x w_gate) · x w_up) w_down, over the last axis, with the gelu that is x Φ(x).

    Args:
        x: `(..., inputs)`.
        w_gate: `(inputs, hidden)`.
        w_up: `(inputs, hidden)`.
        w_down: `(hidden, outputs)`.

    Returns:
        What `swiglu` returns, and it keeps the same.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If the shapes do not fit.

    >>> one = jnp.ones((1, 1))
    >>> round(float(geglu(one, one, 3 * one, one)[0, 0]), 4)  # 3 gelu(1)
    2.524

    Reference: Shazeer, "GLU Variants Improve Transformer", 2020, equation 6.
    """
    return _forward(_gelu, x, w_gate, w_up, w_down)[0]
