"""Gated feed-forward blocks as one op each: two products side by side, one closes a gate on the
other, and a third product.

The block keeps its input and the two products before the gate. What the gate lets through is the
widest array of a transformer; it is made again in the backward pass.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ...rules.rule import normal_case, rule
from ...types import Array, require
from ..shared.precision import floating, wide


def _silu(x: Array) -> tuple[Array, Array]:
    """x σ(x), and its slope."""
    s = jax.lax.logistic(x)
    return x * s, s * (1 + x * (1 - s))


def _gelu(x: Array) -> tuple[Array, Array]:
    """x Φ(x), and its slope."""
    below = jax.lax.erfc(-x * math.sqrt(0.5)) / 2
    return x * below, below + x * jnp.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _check_gated(where: str, x: Array, w_gate: Array, w_up: Array, w_down: Array) -> None:
    floating(where, x)
    inputs = jnp.shape(x)[-1] if jnp.ndim(x) else "inputs"
    require(
        jnp.ndim(x) >= 1 and jnp.ndim(w_gate) == 2 and w_gate.shape[0] == x.shape[-1],
        where,
        f"w_gate of shape ({inputs}, hidden), as x has shape {jnp.shape(x)}",
        f"shape {jnp.shape(w_gate)}",
        "The inputs are the last axis of x and the first of a weight.",
    )
    require(
        jnp.shape(w_up) == w_gate.shape,
        where,
        f"w_up of shape {w_gate.shape}, that of w_gate",
        f"shape {jnp.shape(w_up)}",
        "Each hidden number has its own gate.",
    )
    require(
        jnp.ndim(w_down) == 2 and w_down.shape[0] == w_gate.shape[1],
        where,
        f"w_down of shape ({w_gate.shape[1]}, outputs)",
        f"shape {jnp.shape(w_down)}",
        "It takes the hidden numbers to the outputs.",
    )


def _block(
    where: str, gate: Callable[[Array], tuple[Array, Array]], args: tuple
) -> tuple[Array, tuple]:
    x, w_gate, w_up, w_down = args
    _check_gated(where, *args)
    dtype = wide(*args)
    g = jnp.matmul(x, w_gate, preferred_element_type=dtype)
    u = jnp.matmul(x, w_up, preferred_element_type=dtype)
    y = (gate(g)[0] * u) @ w_down.astype(dtype)
    return y.astype(jnp.result_type(*args)), (args, g, u)


def _pull_back(
    gate: Callable[[Array], tuple[Array, Array]], res: tuple, dy: Array
) -> tuple[Array, Array, Array, Array]:
    ((x, w_gate, w_up, w_down), g, u), dy = jax.lax.optimization_barrier((res, dy))
    dtype, hidden = g.dtype, w_gate.shape[1]
    rows, drows = x.reshape(-1, x.shape[-1]), dy.astype(dtype).reshape(-1, w_down.shape[1])
    g, u = g.reshape(-1, hidden), u.reshape(-1, hidden)
    opened, slope = gate(g)
    dh = drows @ w_down.astype(dtype).T
    du, dg = dh * opened, dh * u * slope
    rows = rows.astype(dtype)
    dx = dg @ w_gate.astype(dtype).T + du @ w_up.astype(dtype).T
    return dx.reshape(x.shape), rows.T @ dg, rows.T @ du, (opened * u).T @ drows


def _swiglu_forward(x: Array, w_gate: Array, w_up: Array, w_down: Array) -> tuple[Array, tuple]:
    return _block("swiglu", _silu, (x, w_gate, w_up, w_down))


def _swiglu_backward(res: tuple, dy: Array) -> tuple[Array, Array, Array, Array]:
    """With g = x w_gate, u = x w_up, h = silu(g) u:
    dw_down = hᵀ dy;  dh = dy w_downᵀ;  du = dh silu(g);  dg = dh u silu'(g)
    dw_gate = xᵀ dg;  dw_up = xᵀ du;  dx = dg w_gateᵀ + du w_upᵀ
    """
    return _pull_back(_silu, res, dy)


CASES = {
    "rows": normal_case((5, 3), (3, 4), (3, 4), (4, 3)),
    "sequence": normal_case((2, 3, 2), (2, 4), (2, 4), (4, 3)),
    "one row": normal_case((3,), (3, 4), (3, 4), (4, 2)),
    "no rows": normal_case((0, 3), (3, 4), (3, 4), (4, 3)),
}


@rule(_swiglu_forward, _swiglu_backward, cases=CASES)
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
    return _block("swiglu", _silu, (x, w_gate, w_up, w_down))[0]


def _geglu_forward(x: Array, w_gate: Array, w_up: Array, w_down: Array) -> tuple[Array, tuple]:
    return _block("geglu", _gelu, (x, w_gate, w_up, w_down))


def _geglu_backward(res: tuple, dy: Array) -> tuple[Array, Array, Array, Array]:
    """With g = x w_gate, u = x w_up, h = gelu(g) u:
    dw_down = hᵀ dy;  dh = dy w_downᵀ;  du = dh gelu(g);  dg = dh u gelu'(g)
    dw_gate = xᵀ dg;  dw_up = xᵀ du;  dx = dg w_gateᵀ + du w_upᵀ
    """
    return _pull_back(_gelu, res, dy)


@rule(_geglu_forward, _geglu_backward, cases=CASES)
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
    return _block("geglu", _gelu, (x, w_gate, w_up, w_down))[0]
