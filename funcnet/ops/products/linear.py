"""Affine maps and table look-ups: the ops whose backward pass is a matrix product or a scatter."""

import math

import jax.numpy as jnp
import numpy as np
from numpy.random import Generator

from ...jaxpr.jaxprs import is_traced
from ...rules.rule import Case, normal_case, rule
from ...types import Array, require
from ..fast.rows import folded
from ..shared.precision import one_array, wide, widened


def _check_dense(x: Array, w: Array, b: Array | None) -> None:
    one_array("dense", x)
    require(
        jnp.ndim(w) == 2,
        "dense",
        "w of rank 2 (inputs, outputs)",
        f"shape {jnp.shape(w)}",
        "A PyTorch weight is the transpose: pass w.T.",
    )
    require(
        jnp.ndim(x) >= 1 and x.shape[-1] == w.shape[0],
        "dense",
        f"x whose last axis has length {w.shape[0]}, the number of rows of w",
        f"shape {jnp.shape(x)}",
        "Initialise the parameters with an input of this shape, or flatten x first.",
    )
    require(
        b is None or b.shape == (w.shape[1],),
        "dense",
        f"b of shape ({w.shape[1]},), one for each output",
        f"shape {b is not None and b.shape}",
        "Pass None for no bias.",
    )


def _dense_forward(x: Array, w: Array, b: Array | None) -> tuple[Array, tuple]:
    return _dense(x, w, b), (x, w, b)


def _dense_backward(res: tuple, dy: Array) -> tuple[Array, Array, Array | None]:
    """dx = dy wᵀ;  dw = xᵀ dy;  db = Σ dy, over all axes but the last"""
    x, w, b = res
    n = math.prod(x.shape[:-1])
    rows, drows = x.reshape(n, w.shape[0]), dy.reshape(n, w.shape[1])
    return dy @ w.T, rows.T @ drows, None if b is None else folded(widened(drows))


def _dense(x: Array, w: Array, b: Array | None) -> Array:
    _check_dense(x, w, b)
    dtype = jnp.result_type(x, w)
    y = jnp.matmul(x, w, preferred_element_type=wide(x, w))
    return y.astype(dtype) if b is None else (y + b).astype(jnp.result_type(dtype, b))


@rule(
    _dense_forward,
    _dense_backward,
    cases={
        "rows": normal_case((5, 3), (3, 4), (4,)),
        "one row": normal_case((3,), (3, 4), (4,)),
        "sequence": normal_case((2, 5, 3), (3, 4), (4,)),
        "no bias": normal_case((5, 3), (3, 4), None),
        "no rows": normal_case((0, 3), (3, 4), (4,)),
        "no features": normal_case((2, 0), (0, 4), (4,)),
    },
)
def dense(x: Array, w: Array, b: Array | None = None) -> Array:
    """x w + b, over the last axis.

    The weight gradient is one two-dimensional product whatever the rank of `x`; the contraction
    over several axes that `jax.grad` derives makes XLA transpose the whole cotangent on the CPU.

    Args:
        x: Inputs, `(..., inputs)`.
        w: Weights, `(inputs, outputs)`.
        b: Bias, `(outputs,)`, or None.

    Returns:
        `(..., outputs)`, in the dtype that JAX promotes the arguments to; bfloat16 and float16
        are summed in float32 and rounded once.

    Raises:
        TypeError: If x is no array.
        ValueError: If the shapes do not fit.

    >>> dense(jnp.ones((2, 3)), jnp.ones((3, 4)), jnp.zeros(4)).shape
    (2, 4)

    Reference: Goodfellow, Bengio & Courville, "Deep Learning", 2016, section 6.5.6.
    """
    return _dense(x, w, b)


def _check_embed(table: Array, ids: Array) -> None:
    one_array("embed", ids, "ids")
    require(
        jnp.ndim(table) == 2,
        "embed",
        "a table of rank 2 (entries, width)",
        f"shape {jnp.shape(table)}",
        "One row belongs to each id.",
    )
    require(
        jnp.issubdtype(jnp.result_type(ids), jnp.integer),
        "embed",
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
            "embed",
            f"ids from 0 to {table.shape[0] - 1}",
            f"ids from {low} to {high}",
            "Check the vocabulary's size.",
        )


def _embed_forward(table: Array, ids: Array) -> tuple[Array, tuple]:
    return _embed(table, ids), (table, ids)


def _embed_backward(res: tuple, dy: Array) -> tuple[Array, None]:
    """dtable[i] = Σ dy over the places where ids = i"""
    table, ids = res
    ids = jnp.clip(ids, 0, len(table) - 1)
    rows = widened(dy).reshape(ids.size, table.shape[1])
    return jnp.zeros(table.shape, rows.dtype).at[ids.reshape(-1)].add(rows), None


def _embed(table: Array, ids: Array) -> Array:
    _check_embed(table, ids)
    return jnp.take(table, ids, axis=0, mode="clip")


def _ids(*shape: int) -> Case:
    def make(random: Generator) -> tuple:
        return random.standard_normal((7, 3)), random.integers(0, 7, shape)

    return Case(make)


@rule(
    _embed_forward,
    _embed_backward,
    cases={"sequence": _ids(2, 9), "one": _ids(), "none": _ids(0)},
)
def embed(table: Array, ids: Array) -> Array:
    """The rows of `table` at `ids`.

    Only the ids are needed for the backward pass (the table stands for its shape alone); rows that
    were looked up twice get the sum.

    Args:
        table: `(entries, width)`.
        ids: Integers from 0 to entries - 1, of any shape. Traced ids out of range take the
            nearest row, since a compiled program cannot raise.

    Returns:
        `(*ids.shape, width)`, in the table's dtype.

    Raises:
        TypeError: If the ids are not integers.
        ValueError: If the table is not of rank 2, or concrete ids are out of range.

    >>> embed(jnp.eye(4), jnp.array([2, 0])).tolist()
    [[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]

    Reference: Mikolov et al., "Efficient Estimation of Word Representations", 2013, section 2.1.
    """
    return _embed(table, ids)
