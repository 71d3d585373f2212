"""Affine maps and table look-ups: the ops whose backward pass is a matrix product or a scatter."""

import math

import jax.numpy as jnp

from ...rules.passes import widened
from ...rules.rule import rule
from ...types import Array
from ..fast.rows import folded
from ..shared.precision import wide
from . import cases, checks


def _dense_forward(x, w, b):
    return _dense(x, w, b), (x, w)


def _dense_backward(res, dy):
    """dx = dy wᵀ;  dw = xᵀ dy;  db = Σ dy, over all axes but the last"""
    x, w = res
    n = math.prod(x.shape[:-1])
    rows, drows = x.reshape(n, w.shape[0]), dy.reshape(n, w.shape[1])
    return dy @ w.T, rows.T @ drows, folded(widened(drows))


def _dense(x: Array, w: Array, b: Array | None) -> Array:
    dtype = jnp.result_type(x, w)
    y = jnp.matmul(x, w, preferred_element_type=wide(x, w))
    return y.astype(dtype) if b is None else (y + b).astype(jnp.result_type(dtype, b))


@rule(_dense_forward, _dense_backward, cases=cases.DENSE, check=checks.dense)
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


def _embed_forward(table, ids):
    return _embed(table, ids), (table, ids)


def _embed_backward(res, dy):
    """dtable[i] = Σ dy over the places where ids = i"""
    table, ids = res
    ids = jnp.clip(ids, 0, len(table) - 1)
    rows = widened(dy).reshape(ids.size, table.shape[1])
    return jnp.zeros(table.shape, rows.dtype).at[ids.reshape(-1)].add(rows), None


def _embed(table: Array, ids: Array) -> Array:
    return jnp.take(table, ids, axis=0, mode="clip")


@rule(_embed_forward, _embed_backward, cases=cases.EMBED, check=checks.embed)
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
