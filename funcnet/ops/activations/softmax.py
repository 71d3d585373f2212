"""Softmax and its logarithms, over the entries that a mask leaves.

An entry that the mask takes out, or that is −∞, has probability 0 and no gradient. Where a whole
row is out, the probabilities are all 0 and the logarithms −∞, and nothing is NaN in value or in
gradient.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..fast.rows import sum_over
from . import cases
from .checks import masked_rows
from .keeping import keeps_output


def _masked(x: Array, where: Array | None) -> Array:
    return x if where is None else jnp.where(where, x, -jnp.inf)


def _exponentials(z: Array, axis: int | Sequence[int]) -> tuple[Array, Array, Array]:
    """e^(z − top), top and the sum, which is 1 for an empty row so that it may divide."""
    top = jax.lax.stop_gradient(jnp.max(z, axis, keepdims=True, initial=-jnp.inf))
    top = jnp.where(jnp.isfinite(top), top, 0)
    e = jnp.exp(z - top)
    total = sum_over(e, axis, keepdims=True)
    return e, top, jnp.where(total == 0, 1, total)


def _softmax_backward(y, dy, *, axis):
    """dx = y (dy − Σ y dy)"""
    return y * (dy - sum_over(y * dy, axis, keepdims=True)), None


@keeps_output(_softmax_backward, cases=cases.SOFTMAX, check=masked_rows)
def softmax(x: Array, where: Array | None = None, *, axis: int | Sequence[int] = -1) -> Array:
    """y = eˣ / Σ eˣ, the sum taken along `axis`.

    Keeps its output alone; in 16-bit dtypes x, since a rounded y would spoil the difference in the
    backward pass.

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
    e, _, total = _exponentials(_masked(x, where), axis)
    return e / total


def _probabilities(x: Array, where: Array | None, top: Array, total: Array) -> Array:
    return jnp.exp(_masked(x, where) - top) / total


def _log_softmax_forward(x, where, *, axis):
    z = _masked(x, where)
    _, top, total = _exponentials(z, axis)
    y = jnp.where(jnp.isneginf(z), -jnp.inf, z - top - jnp.log(total))
    return y, (x, where, top, total)


def _log_softmax_backward(res, dy, *, axis):
    """dx = dy − p Σ dy, with p = eʸ; dy counts as 0 where y = −∞"""
    x, where, _, _ = res
    dy = jnp.where(jnp.isneginf(_masked(x, where)), 0, dy)
    return dy - _probabilities(*res) * sum_over(dy, axis, keepdims=True), None


@rule(
    _log_softmax_forward,
    _log_softmax_backward,
    cases=cases.SOFTMAX,
    check=masked_rows,
    wide=True,
    recomputes=True,
)
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
    return _log_softmax_forward(x, where, axis=axis)[0]


def _logsumexp_forward(x, where, *, axis, keepdims):
    z = _masked(x, where)
    _, top, total = _exponentials(z, axis)
    out = jnp.isneginf(z).all(axis, keepdims=True)
    y = jnp.where(out, -jnp.inf, top + jnp.log(total))
    return y if keepdims else y.squeeze(axis), (x, where, top, total)


def _logsumexp_backward(res, dy):
    """dx = p dy, with p = softmax(x)"""
    p, top = _probabilities(*res), res[2]
    return p * dy.reshape(top.shape), None


@rule(
    _logsumexp_forward,
    _logsumexp_backward,
    cases=cases.LOGSUMEXP,
    check=masked_rows,
    wide=True,
    recomputes=True,
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
    return _logsumexp_forward(x, where, axis=axis, keepdims=keepdims)[0]
