"""Cosines of vectors, and the loss of those that are to point one way or not."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..fast.rows import sum_over
from . import margin_cases as cases
from .loss import loss
from .margin_checks import same_shape, signed_rows

TINY = 1e-12
"""The length up to which a vector is taken for 0, as in `l2_normalize`."""


def in_floats(x: Array) -> Array:
    """x, whole numbers as floating ones: int8 has no room for its squares."""
    return jnp.asarray(x, jnp.result_type(x, 1.0))


def unit(x: Array, axis: int | Sequence[int] = -1) -> tuple[Array, Array]:
    """x / ‖x‖ and 1 / ‖x‖, both 0 for a vector of length 0.

    >>> [v.tolist() for v in unit(jnp.array([0.0, 4.0]))]
    [[0.0, 1.0], [0.25]]
    """
    x = in_floats(x)
    squares = sum_over(jnp.square(x), axis, keepdims=True)
    is_zero = squares <= TINY**2
    inverse = jnp.where(is_zero, 0, jax.lax.rsqrt(jnp.where(is_zero, 1, squares)))
    return x * inverse, inverse


def _cosine_similarity_forward(first, second, *, axis):
    u, v = unit(first, axis)[0], unit(second, axis)[0]
    return sum_over(u * v, axis), (first, second)


def _cosine_similarity_backward(res, dy, *, axis):
    """With u = a / ‖a‖, v = b / ‖b‖, each 0 where its length is, and c = Σ u v:
    da = (v − c u) / ‖a‖ dy;  db = (u − c v) / ‖b‖ dy
    """
    (u, r), (v, s) = (unit(x, axis) for x in res)
    dy = jnp.expand_dims(dy, axis if isinstance(axis, int) else tuple(axis))
    c = sum_over(u * v, axis, keepdims=True)
    return r * (v - c * u) * dy, s * (u - c * v) * dy


@rule(
    _cosine_similarity_forward,
    _cosine_similarity_backward,
    cases=cases.COSINE_SIMILARITY,
    check=same_shape,
    wide=True,
    recomputes=True,
)
def cosine_similarity(first: Array, second: Array, *, axis: int | Sequence[int] = -1) -> Array:
    """Σ a b / (‖a‖ ‖b‖) along `axis`: the cosine of the angle between vectors.

    A vector no longer than 1e-12 is taken for 0: its cosines are 0, and so is their gradient. Keeps
    the two arrays alone.

    Args:
        first: a, any shape.
        second: b, the same shape: nothing is broadcast.
        axis: One axis, or several taken together.

    Returns:
        The shape without `axis`, in the dtype of the first.

    Raises:
        TypeError: If the first array is not floating.
        ValueError: If the shapes differ, or there is no such axis.

    >>> a, b = jnp.array([[3.0, 4.0], [0.0, 0.0]]), jnp.array([[2.0, 0.0], [2.0, 0.0]])
    >>> cosine_similarity(a, b)
    Array([0.6, 0. ], dtype=float32)

    Reference: Salton, Wong & Yang, "A Vector Space Model for Automatic Indexing", 1975.
    """
    return _cosine(first, second, axis)


def _cosine(first: Array, second: Array, axis: int | Sequence[int] = -1) -> Array:
    """The definition: the product of the vectors, over that of their lengths."""
    first, second = in_floats(first), in_floats(second)
    squares = [jnp.square(x).sum(axis) for x in (first, second)]
    is_zero = (squares[0] <= TINY**2) | (squares[1] <= TINY**2)
    lengths = [jnp.sqrt(jnp.where(is_zero, 1, s)) for s in squares]
    return jnp.where(is_zero, 0, (first * second).sum(axis) / (lengths[0] * lengths[1]))


def _cosine_embedding_backward(res, dy, *, margin):
    """With u = a / ‖a‖, v = b / ‖b‖, each 0 where its length is, c = Σ u v, and the slope
    s = −1 where t = 1, else 1 where c > m, else 0:  da = s (v − c u) / ‖a‖ dy;
    db = s (u − c v) / ‖b‖ dy;  the mean divides dy by the pairs that count
    """
    first, second, targets = res
    (u, r), (v, s) = unit(first), unit(second)
    c = sum_over(u * v, -1, keepdims=True)
    apart = jnp.where(c <= margin, 0, dy)
    dy = jnp.where(targets[..., None] > 0, -dy, apart)
    return r * (v - c * u) * dy, s * (u - c * v) * dy, None


@loss(
    _cosine_embedding_backward,
    cases=cases.COSINE_EMBEDDING,
    check=signed_rows,
    signs=("targets",),
    nodiff=("targets",),
    rows=True,
)
def cosine_embedding(
    first: Array,
    second: Array,
    targets: Array,
    where: Array | None = None,
    *,
    margin: float = 0.0,
    reduction: str = "mean",
) -> Array:
    """1 − cos(a, b) where t = 1, and max(0, cos(a, b) − m) where t = −1, of each pair of rows.

    At the kink, and of a vector of length 0, the gradient is 0.

    Args:
        first: a, embeddings `(..., features)`.
        second: b, of the same shape.
        targets: t, `(...)`, constants: 1 where the two are alike, −1 where they are not.
        where: Boolean `(...)`: which pairs count; None for all.
        margin: m, the cosine up to which two that are not alike cost nothing.
        reduction: "mean" over the pairs, "sum" or "none".

    Returns:
        A scalar, or `(...)` for "none", in the dtype of the first.

    Raises:
        TypeError: If the first embeddings are not floating or `where` is not boolean.
        ValueError: If the shapes do not fit, `reduction` is unknown, or a concrete target neither
            −1 nor 1.

    >>> a, b = jnp.array([[2.0, 0.0], [2.0, 0.0]]), jnp.array([[0.0, 1.0], [3.0, 0.0]])
    >>> cosine_embedding(a, b, jnp.array([1, -1]), reduction="none").tolist()
    [1.0, 1.0]

    Reference: Chopra, Hadsell & LeCun, "Learning a Similarity Metric Discriminatively, with
        Application to Face Verification", 2005, whose distance is here a cosine.
    """
    cosine = _cosine(first, second)
    apart = jnp.where(cosine <= margin, 0, cosine - margin)
    return jnp.where(targets > 0, 1 - cosine, apart)
