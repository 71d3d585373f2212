"""Axes whose outputs are weighted sums of inputs at fixed places, and their adjoints.

The adjoint is written the same way, seen from the inputs: nothing is scattered.
"""

from typing import TypeAlias

import jax.numpy as jnp
import numpy as np

from ...types import Array

Reads: TypeAlias = tuple[np.ndarray, np.ndarray]
"""What each output reads: places and weights, each (taps, outputs)."""

MOST_TAPS = 64
"""With more, a sum over taps is long to compile: one product with the matrix of weights is not."""


def matrix(size: int, reads: Reads) -> np.ndarray:
    """What each output reads as a matrix, from inputs to outputs."""
    places, weights = reads
    dense = np.zeros((places.shape[1], size))
    np.add.at(dense, (np.arange(len(dense)), places), weights)
    return dense


def readers(size: int, reads: Reads) -> Reads:
    """The same seen from the inputs: which outputs read each, with what weight, (readers, size)."""
    places, weights = reads
    taps, outputs = np.nonzero(weights)
    read = places[taps, outputs]
    order = np.argsort(read, kind="stable")
    read = read[order]
    rank = np.arange(len(read)) - np.searchsorted(read, read)
    outputs_of = np.zeros((rank.max() + 1, size), int)
    shares = np.zeros(outputs_of.shape)
    outputs_of[rank, read] = outputs[order]
    shares[rank, read] = weights[taps, outputs][order]
    return outputs_of, shares


def times(x: Array, axis: int, weights: np.ndarray) -> Array:
    """Along one axis, the product with a matrix of (outputs, inputs)."""
    y = jnp.tensordot(x, weights.astype(x.dtype), (axis, 1), precision="highest")
    return jnp.moveaxis(y, -1, axis)


def _gather(x: Array, axis: int, places: np.ndarray, weights: np.ndarray) -> Array:
    """Along one axis, the weighted sum of what stands at each row of places."""
    column = (-1,) + (1,) * (x.ndim - 1 - axis)
    total = jnp.zeros((), x.dtype)
    for place, weight in zip(places, weights, strict=True):
        part = jnp.take(x, place, axis, mode="clip")
        if not (weight == 1).all():
            part = part * weight.reshape(column).astype(x.dtype)
        if not weight.all():  # 0 times infinity is NaN
            part = jnp.where((weight != 0).reshape(column), part, 0)
        total = total + part
    return total


def weighted(x: Array, axis: int, reads: Reads) -> Array:
    """Along one axis, for each output the weighted sum of what it reads."""
    if len(reads[0]) > MOST_TAPS:
        return times(x, axis, matrix(x.shape[axis], reads))
    return _gather(x, axis, *reads)


def spread(dy: Array, axis: int, reads: Reads, size: int) -> Array:
    """The adjoint of `weighted`: for each input, the sum over the outputs that read it."""
    seen = readers(size, reads)
    if len(seen[0]) > MOST_TAPS:
        return times(dy, axis, matrix(size, reads).T)
    return _gather(dy, axis, *seen)
