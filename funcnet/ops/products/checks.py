"""What the arguments of products have to be."""

import jax.numpy as jnp
import numpy as np

from ...jaxpr.jaxprs import is_traced
from ...types import Array, require
from ..shared.precision import floating, one_array


def dense(op: str, *, x: Array, w: Array, b: Array | None) -> None:
    """Raise unless the arguments of `dense` fit."""
    one_array(op, x)
    require(
        jnp.ndim(w) == 2,
        op,
        "w of rank 2 (inputs, outputs)",
        f"shape {jnp.shape(w)}",
        "A PyTorch weight is the transpose: pass w.T.",
    )
    require(
        jnp.ndim(x) >= 1 and x.shape[-1] == w.shape[0],
        op,
        f"x whose last axis has length {w.shape[0]}, the number of rows of w",
        f"shape {jnp.shape(x)}",
        "Initialise the parameters with an input of this shape, or flatten x first.",
    )
    require(
        b is None or b.shape == (w.shape[1],),
        op,
        f"b of shape ({w.shape[1]},), one for each output",
        f"shape {b is not None and b.shape}",
        "Pass None for no bias.",
    )


def embed(op: str, *, table: Array, ids: Array) -> None:
    """Raise unless the arguments of `embed` fit; traced ids cannot be looked at."""
    one_array(op, ids, "ids")
    require(
        jnp.ndim(table) == 2,
        op,
        "a table of rank 2 (entries, width)",
        f"shape {jnp.shape(table)}",
        "One row belongs to each id.",
    )
    require(
        jnp.issubdtype(jnp.result_type(ids), jnp.integer),
        op,
        "ids of an integer dtype",
        f"{jnp.result_type(ids)}",
        "Convert them: ids.astype(int).",
        TypeError,
    )
    if not is_traced(ids) and np.size(ids):
        known = np.asarray(ids)
        low, high = known.min(), known.max()
        require(
            low >= 0 and high < table.shape[0],
            op,
            f"ids from 0 to {table.shape[0] - 1}",
            f"ids from {low} to {high}",
            "Check the vocabulary's size.",
        )


def gated(op: str, *, x: Array, w_gate: Array, w_up: Array, w_down: Array) -> None:
    """Raise unless the arguments of a gated block fit."""
    floating(op, x)
    inputs = jnp.shape(x)[-1] if jnp.ndim(x) else "inputs"
    require(
        jnp.ndim(x) >= 1 and jnp.ndim(w_gate) == 2 and w_gate.shape[0] == x.shape[-1],
        op,
        f"w_gate of shape ({inputs}, hidden), as x has shape {jnp.shape(x)}",
        f"shape {jnp.shape(w_gate)}",
        "The inputs are the last axis of x and the first of a weight.",
    )
    require(
        jnp.shape(w_up) == w_gate.shape,
        op,
        f"w_up of shape {w_gate.shape}, that of w_gate",
        f"shape {jnp.shape(w_up)}",
        "Each hidden number has its own gate.",
    )
    require(
        jnp.ndim(w_down) == 2 and w_down.shape[0] == w_gate.shape[1],
        op,
        f"w_down of shape ({w_gate.shape[1]}, outputs)",
        f"shape {jnp.shape(w_down)}",
        "It takes the hidden numbers to the outputs.",
    )
