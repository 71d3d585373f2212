"""Vectors along any axis brought to mean 0 and variance 1, or to length 1."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..fast.rows import sum_over
from . import cases
from .checks import along_axis
from .moments import moments


def _mean_along(axis: int | Sequence[int]) -> Callable[[Array], Array]:
    def mean(x: Array) -> Array:
        whole = sum_over(x, axis, keepdims=True)
        return whole / max(x.size // max(whole.size, 1), 1)

    return mean


def _standardize_forward(x, *, axis, eps):
    pivot, offset, centred, var = moments(x, _mean_along(axis))
    rstd = jax.lax.rsqrt(var + eps)
    return centred * rstd, (x, pivot, offset, rstd)


def _standardize_backward(res, dy, *, axis):
    """With y = (x − mean) r, r = 1 / √(var + eps):  dx = r (dy − mean(dy) − y mean(y dy))"""
    x, pivot, offset, rstd = res
    unit, mean = ((x - pivot) - offset) * rstd, _mean_along(axis)
    return (rstd * (dy - mean(dy) - unit * mean(unit * dy)),)


@rule(
    _standardize_forward,
    _standardize_backward,
    cases=cases.STANDARDIZE,
    check=along_axis,
    wide=True,
    recomputes=True,
    fast=True,
)
def standardize(x: Array, *, axis: int | Sequence[int] = -1, eps: float = 1e-5) -> Array:
    """(x − mean) / √(var + eps), with mean and variance along `axis`: mean 0 and variance 1.

    Args:
        x: Any shape.
        axis: One axis, or several taken together.
        eps: Added to the variance, the mean square distance from the mean.

    Returns:
        The shape and dtype of `x`.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If there is no such axis.

    >>> standardize(jnp.array([[1.0, 10.0], [3.0, 10.0]]), axis=0).round(3).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]

    Reference: LeCun et al., "Efficient BackProp", 1998, section 4.3.
    """
    centred = x - x.mean(axis, keepdims=True)
    return centred / jnp.sqrt(jnp.square(centred).mean(axis, keepdims=True) + eps)


def _l2_normalize_forward(x, *, axis, eps):
    squares = sum_over(jnp.square(x), axis, keepdims=True)
    is_zero = squares <= eps**2
    inverse = jnp.where(is_zero, 0, jax.lax.rsqrt(jnp.where(is_zero, 1, squares)))
    return x * inverse, (x, inverse)


def _l2_normalize_backward(res, dy, *, axis):
    """With y = x r, r = 1 / ‖x‖, or 0 where ‖x‖ ≤ eps:  dx = r (dy − y Σ y dy)"""
    x, inverse = res
    unit = x * inverse
    return (inverse * (dy - unit * sum_over(unit * dy, axis, keepdims=True)),)


@rule(
    _l2_normalize_forward,
    _l2_normalize_backward,
    cases=cases.L2_NORMALIZE,
    check=along_axis,
    wide=True,
    recomputes=True,
    fast=True,
)
def l2_normalize(x: Array, *, axis: int | Sequence[int] = -1, eps: float = 1e-12) -> Array:
    """x / ‖x‖, with the length ‖x‖ = √Σ x² along `axis`.

    A vector no longer than `eps` is taken for 0: it gives 0, and its gradient is 0.

    Args:
        x: Any shape.
        axis: One axis, or several taken together.
        eps: The length up to which a vector is taken for 0.

    Returns:
        The shape and dtype of `x`.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If there is no such axis.

    >>> l2_normalize(jnp.array([[0.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.0, 1.0], [0.0, 0.0]]

    Reference: Schroff, Kalenichenko & Philbin, "FaceNet: A Unified Embedding for Face Recognition
    and Clustering", 2015, section 3.1.
    """
    squares = jnp.square(x).sum(axis, keepdims=True)
    is_zero = squares <= eps**2
    return jnp.where(is_zero, 0, x / jnp.sqrt(jnp.where(is_zero, 1, squares)))
