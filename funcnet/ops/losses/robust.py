"""Losses that grow like a square near 0 and like a line beyond."""

from collections.abc import Callable

import jax.numpy as jnp
from numpy.random import Generator

from ...rules.rule import Case, rule
from ...types import Array, require
from .likelihood import of_each, reduced, wide_operands
from .reduction import mean_over


def _difference(
    predictions: Array, targets: Array, where: Array | None, beta: float, reduction: str
) -> Array:
    require(
        beta > 0,
        "smooth_l1",
        "beta above 0",
        beta,
        "It is the error at which the parabola becomes a line; absolute_error is the limit at 0.",
    )
    names, both = ("predictions", "targets"), (predictions, targets)
    p, t = wide_operands("smooth_l1", names, both, where, reduction)
    return p - t


def _smooth_l1_forward(
    predictions: Array, targets: Array, where: Array | None, *, beta: float, reduction: str
) -> tuple[Array, tuple]:
    d = _difference(predictions, targets, where, beta, reduction)
    near = jnp.minimum(jnp.abs(d), beta)
    loss = reduced(near * (jnp.abs(d) - near / 2) / beta, where, reduction, predictions)
    return loss, (predictions, targets, where)


def _smooth_l1_backward(
    res: tuple, dy: Array, *, beta: float, reduction: str
) -> tuple[Array, Array, None]:
    """With d = predictions - targets: dpredictions = clip(d / β, -1, 1) dy;
    dtargets = -dpredictions;  the mean divides dy by what counts
    """
    predictions, targets, where = res
    d = _difference(predictions, targets, where, beta, reduction)
    dpredictions = jnp.clip(d / beta, -1, 1) * of_each(dy, d, where, reduction)
    return dpredictions, -dpredictions, None


def _pair(*shape: int, mask: bool = False) -> Callable[[Generator], tuple]:
    def make(random: Generator) -> tuple:
        where = (random.random(shape) < 0.6) if mask else None
        return random.standard_normal(shape), random.standard_normal(shape), where

    return make


@rule(
    _smooth_l1_forward,
    _smooth_l1_backward,
    count=mean_over,
    cases={
        "mean": Case(_pair(9)),
        "narrow, sum": Case(_pair(4, 3), {"beta": 0.1, "reduction": "sum"}),
        "where, none": Case(_pair(9, mask=True), {"beta": 3.0, "reduction": "none"}),
        "no examples": Case(_pair(0, 3)),
    },
)
def smooth_l1(
    predictions: Array,
    targets: Array,
    where: Array | None = None,
    *,
    beta: float = 1.0,
    reduction: str = "mean",
) -> Array:
    """d² / (2 β) where |d| ≤ β, else |d| - β/2, elementwise, for d = predictions - targets.

    It is `huber` with δ = β, divided by β: of slope 1 far from 0, whatever β is.

    Args:
        predictions: Of any shape.
        targets: Of the same shape: nothing is broadcast. They get a gradient.
        where: Boolean, of the same shape: which elements count; None for all.
        beta: β, the error at which the parabola becomes a line.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or the predictions' shape for "none", in their dtype.

    Raises:
        TypeError: If the predictions are not floating or `where` is not boolean.
        ValueError: If the shapes differ, `beta` is not above 0, or `reduction` is unknown.

    >>> smooth_l1(jnp.array([1.0, 5.0]), jnp.zeros(2), beta=2.0, reduction="none").tolist()
    [0.25, 4.0]

    Reference: Girshick, "Fast R-CNN", 2015, equation 3.
    """
    d = _difference(predictions, targets, where, beta, reduction)
    near = jnp.abs(d) <= beta
    parabola = jnp.square(jnp.where(near, d, 0)) / (2 * beta)
    return reduced(jnp.where(near, parabola, jnp.abs(d) - beta / 2), where, reduction, predictions)
