"""Vectors along any axis brought to mean 0 and variance 1, or to length 1."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..fast.rows import sum_over
from ..shared.masks import count_along, masked
from . import cases
from .checks import along_axis, counted_along_axis
from .moments import defined, moments


def _axes(axis: int | Sequence[int]) -> Sequence[int]:
    return (axis,) if isinstance(axis, int) else axis


def _mean_along(x: Array, where: Array | None, axis: int | Sequence[int]) -> Callable:
    """From an array to its mean along the axis, over what counts of x."""
    n = count_along(x, where, _axes(axis))
    return lambda x: sum_over(masked(x, where), axis, keepdims=True) / n


def _standardize_forward(x, where, *, axis, eps):
    pivot, offset, centred, var = moments(masked(x, where), _mean_along(x, where, axis))
    rstd = jax.lax.rsqrt(var + eps)
    return masked(centred * rstd, where), (x, where, pivot, offset, rstd)


def _standardize_backward(res, dy, *, axis):
    """With y = (x − mean) r, r = 1 / √(var + eps), and means over what counts:
    dx = r (dy − mean(dy) − y mean(y dy)) there, else 0
    """
    x, where, pivot, offset, rstd = res
    x = masked(x, where)
    unit, mean = ((x - pivot) - offset) * rstd, _mean_along(x, where, axis)
    return masked(rstd * (dy - mean(dy) - unit * mean(unit * dy)), where), None


@rule(
    _standardize_forward,
    _standardize_backward,
    cases=cases.STANDARDIZE,
    check=counted_along_axis,
    wide=True,
    recomputes=True,
    fast=True,
)
def standardize(
    x: Array, where: Array | None = None, *, axis: int | Sequence[int] = -1, eps: float = 1e-5
) -> Array:
    """(x − mean) / √(var + eps), with mean and variance along `axis`: mean 0 and variance 1.

    Args:
        x: Any shape.
        where: Booleans that broadcast to x: what counts; the rest has no effect, may be anything,
            and gives 0. None for all.
        axis: One axis, or several taken together.
        eps: Added to the variance, the mean square distance from the mean.

    Returns:
        The shape and dtype of `x`.

    Raises:
        TypeError: If `x` is not floating, or `where` not boolean.
        ValueError: If there is no such axis, or `where` does not broadcast to x.

    >>> standardize(jnp.array([[1.0, 10.0], [3.0, 10.0]]), axis=0).round(3).tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    >>> standardize(jnp.array([1.0, 3.0, 9.0]), jnp.array([True, True, False])).round(3).tolist()
    [-1.0, 1.0, 0.0]

    Reference: LeCun et al., "Efficient BackProp", 1998, section 4.3.
    """
    _, centred, var = defined(x, where, _axes(axis))
    return centred / jnp.sqrt(var + eps)


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
