"""Normalisation of each example by its own statistics, over its last axis or any other.

All of them compute in float32 or wider, and give back the dtype of x. Besides x they keep two or
three numbers for each example: where it was centred, and one over its length or spread.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from numpy.random import Generator

from ...rules.rule import Case, normal_case, rule
from ...types import Array, require
from ..fast.rows import folded, sum_over
from ..shared.precision import floating, widened
from .batch_norm import affine, check_channels, moments, rows_of

LONG = 2048
"""A row up to this long is summed by a product with a vector; a longer one would lose digits so."""


def _mean(rows: Array) -> Array:
    return sum_over(rows, -1, keepdims=True) / max(rows.shape[-1], 1)


def _row_mean(rows: Array, weights: Array | None = None) -> Array:
    """The mean along each row, of the row times weights.

    On the CPU a sum writes out what it sums first, in full; a product with a vector does not.
    """
    width = rows.shape[-1]
    if weights is None:
        weights = jnp.ones(width, rows.dtype)
    if width > LONG:
        return _mean(rows * weights)
    return jax.lax.platform_dependent(
        rows,
        weights,
        cpu=lambda rows, weights: (rows @ weights)[:, None] / max(width, 1),
        default=lambda rows, weights: _mean(rows * weights),
    )


def _weights(scale: Array | None, rows: Array) -> Array:
    return jnp.ones(rows.shape[-1], rows.dtype) if scale is None else scale.astype(rows.dtype)


def _layer_norm_forward(
    x: Array, scale: Array | None, shift: Array | None, *, eps: float
) -> tuple[Array, tuple]:
    check_channels("layer_norm", x, 1, scale=scale, shift=shift)
    pivot, offset, centred, var = moments(rows_of(x), _row_mean)
    rstd = jax.lax.rsqrt(var + eps)
    return affine(centred * rstd, scale, shift, x), (x, pivot, offset, rstd, scale, shift)


def _layer_norm_backward(res: tuple, dy: Array) -> tuple[Array, Array | None, Array | None]:
    """With x̂ = (x − mean) r, r = 1 / √(var + eps), and means along each row:
    dx = r (scale dy − mean(scale dy) − x̂ mean(scale dy x̂))
    dscale = Σ x̂ dy;  dshift = Σ dy, over all axes but the last
    """
    (x, pivot, offset, rstd, scale, shift), dy = jax.lax.optimization_barrier((res, dy))
    unit, drows = ((rows_of(x) - pivot) - offset) * rstd, rows_of(dy)
    weights, product = _weights(scale, drows), unit * drows
    slopes = drows * weights - _row_mean(drows, weights) - unit * _row_mean(product, weights)
    return (
        (rstd * slopes).reshape(x.shape),
        None if scale is None else folded(product),
        None if shift is None else folded(drows),
    )


def _far(random: Generator) -> tuple:
    x = 100 + random.standard_normal((3, 8))
    return x, random.standard_normal((8,)), random.standard_normal((8,))


@rule(
    _layer_norm_forward,
    _layer_norm_backward,
    fast=True,
    cases={
        "rows": normal_case((5, 6), (6,), (6,)),
        "one row": normal_case((6,), (6,), (6,)),
        "sequence": normal_case((2, 3, 6), (6,), (6,)),
        "plain": normal_case((5, 6), None, None),
        "scale alone": normal_case((5, 6), (6,), None),
        "shift alone": normal_case((5, 6), None, (6,)),
        "eps": normal_case((5, 6), (6,), (6,), eps=0.1),
        "far from 0": Case(_far),
        "no rows": normal_case((0, 6), (6,), (6,)),
    },
)
def layer_norm(
    x: Array, scale: Array | None = None, shift: Array | None = None, *, eps: float = 1e-5
) -> Array:
    """(x − mean) / √(var + eps) · scale + shift, with mean and variance along the last axis.

    The variance is the biased one, the mean square distance from the mean, and right also where
    the mean is large. Keeps x and three numbers for each row.

    Args:
        x: `(..., width)`.
        scale: `(width,)`, or None for 1.
        shift: `(width,)`, or None for 0.
        eps: Added to the variance.

    Returns:
        The shape and dtype of `x`.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If the shapes do not fit.

    >>> layer_norm(jnp.array([[1.0, 3.0], [10.0, 10.0]])).round(3).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]

    Reference: Ba, Kiros & Hinton, "Layer Normalization", 2016, equation 4.
    """
    check_channels("layer_norm", x, 1, scale=scale, shift=shift)
    _, _, centred, var = moments(rows_of(x), _mean)
    return affine(centred / jnp.sqrt(var + eps), scale, shift, x)


def _rms_norm_forward(x: Array, scale: Array | None, *, eps: float) -> tuple[Array, tuple]:
    check_channels("rms_norm", x, 1, scale=scale)
    rows = rows_of(x)
    rrms = jax.lax.rsqrt(_row_mean(jnp.square(rows)) + eps)
    return affine(rows * rrms, scale, None, x), (x, rrms, scale)


def _rms_norm_backward(res: tuple, dy: Array) -> tuple[Array, Array | None]:
    """With x̂ = x r, r = 1 / √(mean(x²) + eps), and means along each row:
    dx = r (scale dy − x̂ mean(scale dy x̂));  dscale = Σ x̂ dy, over all axes but the last
    """
    (x, rrms, scale), dy = jax.lax.optimization_barrier((res, dy))
    unit, drows = rows_of(x) * rrms, rows_of(dy)
    weights, product = _weights(scale, drows), unit * drows
    dx = rrms * (drows * weights - unit * _row_mean(product, weights))
    return dx.reshape(x.shape), None if scale is None else folded(product)


@rule(
    _rms_norm_forward,
    _rms_norm_backward,
    fast=True,
    cases={
        "rows": normal_case((5, 6), (6,)),
        "one row": normal_case((6,), (6,)),
        "sequence": normal_case((2, 3, 6), (6,)),
        "plain": normal_case((5, 6), None),
        "eps": normal_case((5, 6), (6,), eps=0.1),
        "no rows": normal_case((0, 6), (6,)),
    },
)
def rms_norm(x: Array, scale: Array | None = None, *, eps: float = 1e-6) -> Array:
    """x / √(mean(x²) + eps) · scale, with the mean along the last axis.

    Keeps x and one number for each row.

    Args:
        x: `(..., width)`.
        scale: `(width,)`, or None for 1.
        eps: Added to the mean square.

    Returns:
        The shape and dtype of `x`.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If the shapes do not fit.

    >>> rms_norm(jnp.array([3.0, 3.0, -3.0])).round(3).tolist()
    [1.0, 1.0, -1.0]

    Reference: Zhang & Sennrich, "Root Mean Square Layer Normalization", 2019, equation 4.
    """
    check_channels("rms_norm", x, 1, scale=scale)
    rows = rows_of(x)
    return affine(rows / jnp.sqrt(_mean(jnp.square(rows)) + eps), scale, None, x)


def _check_axis(where: str, x: Array, axis: int | Sequence[int]) -> Array:
    rank = jnp.ndim(x)
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    require(
        all(-rank <= a < rank for a in axes),
        where,
        f"an axis from {-rank} to {rank - 1}" if rank else "x of rank 1 or more",
        f"axis {axis} for shape {jnp.shape(x)}",
        "The axis is the one whose entries are taken together.",
    )
    return widened(floating(where, x))


def _along(axis: int | Sequence[int]) -> Callable[[Array], Array]:
    def mean(x: Array) -> Array:
        whole = sum_over(x, axis, keepdims=True)
        return whole / max(x.size // max(whole.size, 1), 1)

    return mean


def _standardize_forward(
    x: Array, *, axis: int | Sequence[int], eps: float
) -> tuple[Array, tuple[Array, ...]]:
    wide = _check_axis("standardize", x, axis)
    pivot, offset, centred, var = moments(wide, _along(axis))
    rstd = jax.lax.rsqrt(var + eps)
    return (centred * rstd).astype(jnp.result_type(x)), (x, pivot, offset, rstd)


def _standardize_backward(
    res: tuple[Array, ...], dy: Array, *, axis: int | Sequence[int]
) -> tuple[Array]:
    """With y = (x − mean) r, r = 1 / √(var + eps):  dx = r (dy − mean(dy) − y mean(y dy))"""
    (x, pivot, offset, rstd), dy = jax.lax.optimization_barrier((res, dy))
    unit, dy, mean = ((widened(x) - pivot) - offset) * rstd, widened(dy), _along(axis)
    return (rstd * (dy - mean(dy) - unit * mean(unit * dy)),)


@rule(
    _standardize_forward,
    _standardize_backward,
    cases={
        "rows": normal_case((3, 5)),
        "columns": normal_case((5, 3), axis=0),
        "all": normal_case((2, 3, 4), axis=(0, 1, 2), eps=0.1),
        "no rows": normal_case((0, 5)),
    },
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
    _, _, centred, var = moments(_check_axis("standardize", x, axis), _along(axis))
    return (centred / jnp.sqrt(var + eps)).astype(jnp.result_type(x))


def _squares(x: Array, axis: int | Sequence[int]) -> Array:
    return sum_over(jnp.square(x), axis, keepdims=True)


def _l2_normalize_forward(
    x: Array, *, axis: int | Sequence[int], eps: float
) -> tuple[Array, tuple[Array, Array]]:
    wide = _check_axis("l2_normalize", x, axis)
    squares = _squares(wide, axis)
    is_zero = squares <= eps**2
    inverse = jnp.where(is_zero, 0, jax.lax.rsqrt(jnp.where(is_zero, 1, squares)))
    return (wide * inverse).astype(jnp.result_type(x)), (x, inverse)


def _l2_normalize_backward(
    res: tuple[Array, Array], dy: Array, *, axis: int | Sequence[int]
) -> tuple[Array]:
    """With y = x r, r = 1 / ‖x‖, or 0 where ‖x‖ ≤ eps:  dx = r (dy − y Σ y dy)"""
    (x, inverse), dy = jax.lax.optimization_barrier((res, dy))
    unit, dy = widened(x) * inverse, widened(dy)
    return (inverse * (dy - unit * sum_over(unit * dy, axis, keepdims=True)),)


def _with_zeros(random: Generator) -> tuple:
    x = random.standard_normal((3, 4))
    x[1] = 0
    return (x,)


@rule(
    _l2_normalize_forward,
    _l2_normalize_backward,
    cases={
        "rows": normal_case((3, 5)),
        "columns": normal_case((5, 3), axis=0),
        "all": normal_case((2, 3, 4), axis=(0, 1, 2)),
        "row of zeros": Case(_with_zeros),
        "no rows": normal_case((0, 5)),
    },
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
    wide = _check_axis("l2_normalize", x, axis)
    squares = _squares(wide, axis)
    is_zero = squares <= eps**2
    y = jnp.where(is_zero, 0, wide / jnp.sqrt(jnp.where(is_zero, 1, squares)))
    return y.astype(jnp.result_type(x))
