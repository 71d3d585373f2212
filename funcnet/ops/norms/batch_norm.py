"""Normalisation by the statistics of a batch, and by given ones.

`batch_norm` takes mean and variance from its input and is differentiated through them;
`normalize` takes them as arguments, as an evaluation does. Both work over the last axis, in
float32 or wider, and give back the dtype of x.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from numpy.random import Generator

from ...rules.rule import Case, normal_case, rule
from ...types import Array, require
from ..fast.rows import folded
from ..shared.precision import floating, widened


def check_channels(where: str, x: Array, least: int, **vectors: Array | None) -> None:
    """Raise unless x is floating, of rank `least` or more, and each vector has its channels."""
    floating(where, x)
    require(
        jnp.ndim(x) >= least,
        where,
        f"x of rank {least} or more (..., channels)",
        f"shape {jnp.shape(x)}",
        "Add the missing axes: x[None].",
    )
    channels = jnp.shape(x)[-1:]
    for name, vector in vectors.items():
        require(
            vector is None or jnp.shape(vector) == channels,
            where,
            f"{name} of shape {channels}, one for each channel of x",
            f"shape {vector is not None and jnp.shape(vector)}",
            "The channels are the last axis of x.",
        )


def rows_of(x: Array) -> Array:
    """`(rows, channels)`, in float32 or wider."""
    x = widened(x)
    return x.reshape(-1, x.shape[-1]) if x.size else x.reshape(0, x.shape[-1])


def affine(rows: Array, scale: Array | None, shift: Array | None, like: Array) -> Array:
    """rows · scale + shift, in the shape and dtype of `like`."""
    if scale is not None:
        rows = rows * scale
    if shift is not None:
        rows = rows + shift
    return rows.reshape(jnp.shape(like)).astype(jnp.result_type(like))


def moments(x: Array, mean: Callable[[Array], Array]) -> tuple[Array, Array, Array, Array]:
    """A pivot near the mean, the mean less the pivot, what is left of x, its variance.

    The first mean is only a pivot: a float32 sum of many numbers far from 0 is off by more than
    their spread. Taken from the pivot they are small, and so is the rounding.
    """
    pivot = jax.lax.stop_gradient(mean(x))
    x = x - pivot
    offset = mean(x)
    centred = x - offset
    return pivot, offset, centred, mean(jnp.square(centred))


def _mean(rows: Array) -> Array:
    return folded(rows) / max(len(rows), 1)


def _batch_norm_forward(
    x: Array, scale: Array | None, shift: Array | None, *, eps: float
) -> tuple[tuple[Array, Array, Array], tuple]:
    check_channels("batch_norm", x, 2, scale=scale, shift=shift)
    pivot, offset, centred, var = moments(rows_of(x), _mean)
    rstd = jax.lax.rsqrt(var + eps)
    y = affine(centred * rstd, scale, shift, x)
    return (y, pivot + offset, var), (x, pivot, offset, rstd, scale, shift)


def _batch_norm_backward(
    res: tuple, dys: tuple[Array, Array, Array]
) -> tuple[Array, Array | None, Array | None]:
    """With x̂ = (x − mean) r, r = 1 / √(var + eps), and n rows:
    dshift = Σ dy;  dscale = Σ x̂ dy
    dx = scale r (dy − dshift / n − x̂ dscale / n) + dmean / n + 2 (x − mean) dvar / n
    """
    (x, pivot, offset, rstd, scale, shift), (dy, dmean, dvar) = jax.lax.optimization_barrier(
        (res, dys)
    )
    rows, drows = (rows_of(x) - pivot) - offset, rows_of(dy)
    n = max(len(rows), 1)
    dshift, dscale = folded(drows), folded(rows * drows) * rstd
    slope = rstd if scale is None else rstd * scale
    by_row = (2 * dvar - slope * rstd * dscale) / n
    by_channel = (dmean - slope * dshift) / n
    dx = slope * drows + rows * by_row + by_channel
    return (
        dx.reshape(x.shape),
        None if scale is None else dscale,
        None if shift is None else dshift,
    )


def _far(random: Generator) -> tuple:
    x = 100 + random.standard_normal((8, 3))
    return x, random.standard_normal((3,)), random.standard_normal((3,))


@rule(
    _batch_norm_forward,
    _batch_norm_backward,
    cases={
        "rows": normal_case((6, 3), (3,), (3,)),
        "image": normal_case((2, 3, 3, 4), (4,), (4,)),
        "plain": normal_case((6, 3), None, None),
        "scale alone": normal_case((6, 3), (3,), None),
        "shift alone": normal_case((6, 3), None, (3,)),
        "eps": normal_case((6, 3), (3,), (3,), eps=0.1),
        "far from 0": Case(_far),
        "no rows": normal_case((0, 3), (3,), (3,)),
    },
)
def batch_norm(
    x: Array, scale: Array | None = None, shift: Array | None = None, *, eps: float = 1e-5
) -> tuple[Array, Array, Array]:
    """(x − mean) / √(var + eps) · scale + shift, with the mean and variance of the batch.

    They are taken over all axes but the last; the variance is the biased one, the mean square
    distance from the mean, and right also where the mean is large. The gradient goes through both.
    Keeps x and a few numbers for each channel.

    Args:
        x: `(..., channels)`, of rank 2 or more.
        scale: `(channels,)`, or None for 1.
        shift: `(channels,)`, or None for 0.
        eps: Added to the variance.

    Returns:
        `(y, mean, var)`: y in the shape and dtype of `x`, the others `(channels,)` in float32 or
        wider, for running averages.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If the shapes do not fit.

    >>> y, mean, var = batch_norm(jnp.array([[1.0], [3.0]]))
    >>> y.round(3).tolist(), mean.tolist(), var.tolist()
    ([[-1.0], [1.0]], [2.0], [1.0])

    Reference: Ioffe & Szegedy, "Batch Normalization: Accelerating Deep Network Training by
    Reducing Internal Covariate Shift", 2015, algorithm 1.
    """
    check_channels("batch_norm", x, 2, scale=scale, shift=shift)
    pivot, offset, centred, var = moments(rows_of(x), _mean)
    y = affine(centred / jnp.sqrt(var + eps), scale, shift, x)
    return y, pivot + offset, var


def _normalize_forward(
    x: Array, mean: Array, var: Array, scale: Array | None, shift: Array | None, *, eps: float
) -> tuple[Array, tuple]:
    return _normalize(x, mean, var, scale, shift, eps), (x, mean, var, scale, shift)


def _normalize_backward(
    res: tuple, dy: Array, *, eps: float
) -> tuple[Array, Array, Array, Array | None, Array | None]:
    """With r = 1 / √(var + eps):  dx = scale r dy;  dmean = −scale r Σ dy
    dvar = −½ scale r³ Σ (x − mean) dy;  dscale = r Σ (x − mean) dy;  dshift = Σ dy
    """
    x, mean, var, scale, shift = res
    rows, drows = rows_of(x) - mean, rows_of(dy)
    rstd = jax.lax.rsqrt(widened(var) + eps)
    slope = rstd if scale is None else rstd * scale
    dshift, moment = folded(drows), folded(rows * drows)
    return (
        (slope * drows).reshape(x.shape),
        -slope * dshift,
        -slope * rstd * rstd * moment / 2,
        None if scale is None else rstd * moment,
        None if shift is None else dshift,
    )


def _normalize(
    x: Array, mean: Array, var: Array, scale: Array | None, shift: Array | None, eps: float
) -> Array:
    check_channels("normalize", x, 1, mean=mean, var=var, scale=scale, shift=shift)
    return affine((rows_of(x) - mean) / jnp.sqrt(widened(var) + eps), scale, shift, x)


def _given(*shape: int, affine: bool = True, **static: float) -> Case:
    def make(random: Generator) -> tuple:
        c = shape[-1]
        return (
            random.standard_normal(shape),
            random.standard_normal((c,)),
            random.uniform(0.5, 2.0, (c,)),
            random.standard_normal((c,)) if affine else None,
            random.standard_normal((c,)) if affine else None,
        )

    return Case(make, static)


@rule(
    _normalize_forward,
    _normalize_backward,
    cases={
        "rows": _given(6, 3),
        "image": _given(2, 3, 3, 4),
        "plain": _given(6, 3, affine=False),
        "eps": _given(6, 3, eps=0.1),
        "one example": _given(3),
        "no rows": _given(0, 3),
    },
)
def normalize(
    x: Array,
    mean: Array,
    var: Array,
    scale: Array | None = None,
    shift: Array | None = None,
    *,
    eps: float = 1e-5,
) -> Array:
    """(x − mean) / √(var + eps) · scale + shift, with a mean and variance that are given.

    Args:
        x: `(..., channels)`.
        mean: `(channels,)`, as a running average has it.
        var: `(channels,)`.
        scale: `(channels,)`, or None for 1.
        shift: `(channels,)`, or None for 0.
        eps: Added to the variance.

    Returns:
        The shape and dtype of `x`.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If the shapes do not fit.

    >>> normalize(jnp.array([[5.0]]), jnp.array([1.0]), jnp.array([4.0]), eps=0.0).tolist()
    [[2.0]]

    Reference: Ioffe & Szegedy, "Batch Normalization: Accelerating Deep Network Training by
    Reducing Internal Covariate Shift", 2015, algorithm 2.
    """
    return _normalize(x, mean, var, scale, shift, eps)
