"""Softmax and its logarithms, over the entries that a mask leaves.

An entry that the mask takes out, or that is −∞, has probability 0 and no gradient. Where a whole
row is out, the probabilities are all 0 and the logarithms −∞, and nothing is NaN in value or in
gradient.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.random import Generator

from ...rules.rule import Case, normal_case, rule
from ...types import Array, require
from ..fast.rows import sum_over
from ..shared.precision import floating, widened


def _check(name: str, x: Array, where: Array | None, axis: int | Sequence[int]) -> None:
    floating(name, x)
    rank = jnp.ndim(x)
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    require(
        all(-rank <= a < rank for a in axes),
        name,
        f"an axis from {-rank} to {rank - 1}" if rank else "x of rank 1 or more",
        f"axis {axis} for shape {jnp.shape(x)}",
        "The axis is the one whose entries compete.",
    )
    if where is None:
        return
    require(
        jnp.result_type(where) == jnp.bool_,
        name,
        "a boolean `where`",
        f"{jnp.result_type(where)}",
        "True means that an entry takes part: pass mask > 0, or mask.astype(bool).",
        TypeError,
    )
    fits = jnp.ndim(where) <= rank and all(
        m in (1, n)
        for m, n in zip(reversed(jnp.shape(where)), reversed(jnp.shape(x)), strict=False)
    )
    require(
        fits,
        name,
        f"a `where` that broadcasts to the shape {jnp.shape(x)} of x",
        f"shape {jnp.shape(where)}",
        "Add axes of length 1: where[:, None].",
    )


def _masked(x: Array, where: Array | None) -> Array:
    x = widened(x)
    return x if where is None else jnp.where(where, x, -jnp.inf)


def _exponentials(z: Array, axis: int | Sequence[int]) -> tuple[Array, Array, Array]:
    """e^(z − top), top and the sum, which is 1 for an empty row so that it may divide."""
    top = jax.lax.stop_gradient(jnp.max(z, axis, keepdims=True, initial=-jnp.inf))
    top = jnp.where(jnp.isfinite(top), top, 0)
    e = jnp.exp(z - top)
    total = sum_over(e, axis, keepdims=True)
    return e, top, jnp.where(total == 0, 1, total)


def _probabilities(res: tuple) -> Array:
    x, where, top, total = res
    return jnp.exp(_masked(x, where) - top) / total


def _softmax_forward(
    x: Array, where: Array | None, *, axis: int | Sequence[int]
) -> tuple[Array, tuple]:
    _check("softmax", x, where, axis)
    e, top, total = _exponentials(_masked(x, where), axis)
    y = (e / total).astype(jnp.result_type(x))
    return y, ((x, where, top, total) if y.dtype != e.dtype else (y,))


def _softmax_backward(res: tuple, dy: Array, *, axis: int | Sequence[int]) -> tuple[Array, None]:
    """dx = y (dy − Σ y dy)"""
    if len(res) == 1:
        (y,) = res
    else:  # 16-bit: y as it was before it was rounded
        res, dy = jax.lax.optimization_barrier((res, dy))
        y = _probabilities(res)
    dy = dy.astype(y.dtype)
    return y * (dy - sum_over(y * dy, axis, keepdims=True)), None


def _case(shape: Sequence[int], mask: Sequence[int], **static: int | bool) -> Case:
    """A mask with an empty row, wherever it has rows, and an entry at −∞ that it leaves in."""

    def make(random: Generator) -> tuple:
        where = random.random(mask) < 0.6
        if where.ndim > 1 and where.size:
            where[0], where[-1] = False, True
        x = random.standard_normal(shape)
        if x.size:
            x[(-1,) * x.ndim] = -np.inf
        return x, where

    return Case(make, static)


def _all_out(random: Generator) -> tuple:
    x = random.standard_normal((3, 4))
    x[1] = -np.inf
    return x, None


CASES = {
    "rows": normal_case((3, 5), None),
    "one row": normal_case((5,), None),
    "first axis": normal_case((4, 2, 3), None, axis=0),
    "two axes": normal_case((3, 2, 4), None, axis=(-2, -1)),
    "mask": _case((3, 4), (3, 4)),
    "mask of columns": _case((3, 4), (4,)),
    "mask of rows": _case((3, 2, 4), (3, 1, 1)),
    "row of -inf": Case(_all_out),
    "no rows": normal_case((0, 3), None),
    "large": Case(lambda random: (1e4 + 3 * random.standard_normal((3, 4)), None)),
}


@rule(_softmax_forward, _softmax_backward, cases=CASES)
def softmax(x: Array, where: Array | None = None, *, axis: int | Sequence[int] = -1) -> Array:
    """y = eˣ / Σ eˣ, the sum taken along `axis`.

    Keeps its output alone; in 16-bit dtypes x and two numbers for each row, since a rounded y
    would spoil the difference in the backward pass.

    Args:
        x: Logits.
        where: Booleans that broadcast to the shape of `x`: True for an entry that takes part.
        axis: One axis, or several taken together.

    Returns:
        Probabilities, in the shape and dtype of `x`.

    Raises:
        TypeError: If `x` is not floating or `where` not boolean.
        ValueError: If there is no such axis, or `where` does not broadcast to `x`.

    >>> softmax(jnp.array([[1.0, 1.0], [2.0, -jnp.inf], [-jnp.inf, -jnp.inf]])).tolist()
    [[0.5, 0.5], [1.0, 0.0], [0.0, 0.0]]

    Reference: Bridle, "Probabilistic Interpretation of Feedforward Classification Network Outputs,
    with Relationships to Statistical Pattern Recognition", 1990.
    """
    _check("softmax", x, where, axis)
    e, _, total = _exponentials(_masked(x, where), axis)
    return (e / total).astype(jnp.result_type(x))


def _log_softmax_forward(
    x: Array, where: Array | None, *, axis: int | Sequence[int]
) -> tuple[Array, tuple]:
    y, top, total = _log_softmax(x, where, axis)
    return y, (x, where, top, total)


def _log_softmax_backward(
    res: tuple, dy: Array, *, axis: int | Sequence[int]
) -> tuple[Array, None]:
    """dx = dy − p Σ dy, with p = eʸ; dy counts as 0 where y = −∞"""
    res, dy = jax.lax.optimization_barrier((res, dy))
    p = _probabilities(res)
    dy = jnp.where(jnp.isneginf(_masked(res[0], res[1])), 0, dy.astype(p.dtype))
    return dy - p * sum_over(dy, axis, keepdims=True), None


def _log_softmax(
    x: Array, where: Array | None, axis: int | Sequence[int]
) -> tuple[Array, Array, Array]:
    _check("log_softmax", x, where, axis)
    z = _masked(x, where)
    _, top, total = _exponentials(z, axis)
    y = jnp.where(jnp.isneginf(z), -jnp.inf, z - top - jnp.log(total))
    return y.astype(jnp.result_type(x)), top, total


@rule(_log_softmax_forward, _log_softmax_backward, cases=CASES)
def log_softmax(x: Array, where: Array | None = None, *, axis: int | Sequence[int] = -1) -> Array:
    """y = x − log Σ eˣ, the sum taken along `axis`.

    Keeps x and two numbers for each row.

    Args:
        x: Logits.
        where: Booleans that broadcast to the shape of `x`: True for an entry that takes part.
        axis: One axis, or several taken together.

    Returns:
        Logarithms of probabilities, −∞ for an entry that is out, in the shape and dtype of `x`.

    Raises:
        TypeError: If `x` is not floating or `where` not boolean.
        ValueError: If there is no such axis, or `where` does not broadcast to `x`.

    >>> log_softmax(jnp.array([[5.0, -jnp.inf], [-jnp.inf, -jnp.inf]])).tolist()
    [[0.0, -inf], [-inf, -inf]]

    Reference: Goodfellow, Bengio & Courville, "Deep Learning", 2016, section 6.2.2.3.
    """
    return _log_softmax(x, where, axis)[0]


def _logsumexp_forward(
    x: Array, where: Array | None, *, axis: int | Sequence[int], keepdims: bool
) -> tuple[Array, tuple]:
    y, top, total = _logsumexp(x, where, axis, keepdims)
    return y, (x, where, top, total)


def _logsumexp_backward(res: tuple, dy: Array, *, axis: int | Sequence[int]) -> tuple[Array, None]:
    """dx = p dy, with p = softmax(x)"""
    res, dy = jax.lax.optimization_barrier((res, dy))
    top = res[2]
    return _probabilities(res) * dy.reshape(top.shape).astype(top.dtype), None


def _logsumexp(
    x: Array, where: Array | None, axis: int | Sequence[int], keepdims: bool
) -> tuple[Array, Array, Array]:
    _check("logsumexp", x, where, axis)
    z = _masked(x, where)
    _, top, total = _exponentials(z, axis)
    out = jnp.isneginf(z).all(axis, keepdims=True)
    y = jnp.where(out, -jnp.inf, top + jnp.log(total)).astype(jnp.result_type(x))
    return y if keepdims else y.squeeze(axis), top, total


@rule(
    _logsumexp_forward,
    _logsumexp_backward,
    cases={**CASES, "kept": normal_case((2, 3, 4), None, axis=1, keepdims=True)},
)
def logsumexp(
    x: Array,
    where: Array | None = None,
    *,
    axis: int | Sequence[int] = -1,
    keepdims: bool = False,
) -> Array:
    """log Σ eˣ along `axis`.

    Keeps x and two numbers for each row.

    Args:
        x: Logits.
        where: Booleans that broadcast to the shape of `x`: True for an entry that takes part.
        axis: One axis, or several taken together.
        keepdims: Whether the axis stays, with length 1.

    Returns:
        One number for each row, −∞ where nothing takes part, in the dtype of `x`.

    Raises:
        TypeError: If `x` is not floating or `where` not boolean.
        ValueError: If there is no such axis, or `where` does not broadcast to `x`.

    >>> logsumexp(jnp.array([[1000.0, -jnp.inf], [-jnp.inf, -jnp.inf]])).tolist()
    [1000.0, -inf]

    Reference: Blanchard, Higham & Higham, "Accurately Computing the Log-Sum-Exp and Softmax
    Functions", 2021, equation 3.3.
    """
    return _logsumexp(x, where, axis, keepdims)[0]
