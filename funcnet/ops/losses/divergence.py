"""Kullback-Leibler divergences: how far one distribution is from another, in nats."""

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from numpy.random import Generator

from ...rules.rule import Case, rule
from ...types import Array
from .likelihood import normals, of_each, reduced, wide_operands
from .reduction import check_range, mean_over


def _kl_divergence(
    log_q: Array, p: Array, where: Array | None = None, *, reduction: str = "mean"
) -> Array:
    z, t = wide_operands("kl_divergence", ("log_q", "p"), (log_q, p), where, reduction, True)
    check_range("kl_divergence", "p", t, None, 0, math.inf)
    # An outcome with p = 0 counts 0 whatever log_q is, -∞ included.
    gap = jnp.where(t > 0, jnp.log(jnp.where(t > 0, t, 1)) - jnp.where(t > 0, z, 0), 0)
    return reduced((t * gap).sum(-1), where, reduction, log_q)


def _kl_divergence_forward(
    log_q: Array, p: Array, where: Array | None, *, reduction: str
) -> tuple[Array, tuple]:
    return _kl_divergence(log_q, p, where, reduction=reduction), (log_q, p, where)


def _kl_divergence_backward(res: tuple, dy: Array, *, reduction: str) -> tuple[Array, Array, None]:
    """dlog_q = -p dy;  dp = (ln p + 1 - log_q) dy, and 0 where p = 0;  the mean divides dy by the
    number of distributions
    """
    log_q, p, where = res
    z, t = wide_operands("kl_divergence", ("log_q", "p"), (log_q, p), where, reduction, True)
    dy = of_each(dy, t.sum(-1), where, reduction)[..., None]
    slope = jnp.log(jnp.where(t > 0, t, 1)) + 1 - jnp.where(t > 0, z, 0)
    return -t * dy, jnp.where(t > 0, slope, 0) * dy, None


def _distributions(*shape: int, mask: bool = False) -> Callable[[Generator], tuple]:
    def make(random: Generator) -> tuple:
        classes = np.ones(shape[-1])
        log_q = np.log(random.dirichlet(classes, shape[:-1]))
        where = (random.random(shape[:-1]) < 0.6) if mask else None
        return log_q, random.dirichlet(classes, shape[:-1]), where

    return make


def _certain(random: Generator) -> tuple:
    log_q, p, _ = _distributions(3, 4)(random)
    log_q[0, 1], p[0, 1] = -np.inf, 0.0
    return log_q, p, None


@rule(
    _kl_divergence_forward,
    _kl_divergence_backward,
    count=mean_over,
    cases={
        "mean": Case(_distributions(6, 5)),
        "sum": Case(_distributions(2, 3, 4), {"reduction": "sum"}),
        "where, none": Case(_distributions(6, 5, mask=True), {"reduction": "none"}),
        "p = 0": Case(_certain),
        "no examples": Case(_distributions(0, 5)),
    },
)
def kl_divergence(
    log_q: Array, p: Array, where: Array | None = None, *, reduction: str = "mean"
) -> Array:
    """Σ p (ln p - log_q) over the last axis: the Kullback-Leibler divergence of q from p.

    The mean is over the distributions: what PyTorch calls "batchmean" and recommends, for its own
    "mean" also divides by the number of outcomes.

    Args:
        log_q: Log-probabilities of the model, `(..., K)`.
        p: Probabilities, the same shape. They get a gradient. Where one is 0, log_q does not count.
        where: Boolean `(...)`: which distributions count; None for all.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or `(...)` for "none", in the dtype of log_q.

    Raises:
        TypeError: If log_q is not floating or `where` is not boolean.
        ValueError: If the shapes differ or have no axis, `reduction` is unknown, or a concrete p is
            below 0.

    >>> float(kl_divergence(jnp.log(jnp.array([[0.25, 0.75]])), jnp.array([[0.25, 0.75]])))
    0.0

    Reference: Kullback & Leibler, "On Information and Sufficiency", 1951, equation 2.4.
    """
    return _kl_divergence(log_q, p, where, reduction=reduction)


_GAUSSIAN_KL = "gaussian_kl", ("mean", "log_var")


def _gaussian_kl_forward(
    mean: Array, log_var: Array, where: Array | None, *, reduction: str
) -> tuple[Array, tuple]:
    m, s = wide_operands(*_GAUSSIAN_KL, (mean, log_var), where, reduction, True)
    losses = (m * m + (jnp.expm1(s) - s)).sum(-1) / 2
    return reduced(losses, where, reduction, mean), (mean, log_var, where)


def _gaussian_kl_backward(res: tuple, dy: Array, *, reduction: str) -> tuple[Array, Array, None]:
    """dmean = mean dy;  dlog_var = ½ (exp(log_var) - 1) dy;  the mean divides dy by the number of
    examples
    """
    mean, log_var, where = res
    m, s = wide_operands(*_GAUSSIAN_KL, (mean, log_var), where, reduction, True)
    dy = of_each(dy, m.sum(-1), where, reduction)[..., None]
    return m * dy, jnp.expm1(s) / 2 * dy, None


@rule(
    _gaussian_kl_forward,
    _gaussian_kl_backward,
    count=mean_over,
    cases={
        "mean": Case(normals(6, 5)),
        "sum": Case(normals(2, 3, 4), {"reduction": "sum"}),
        "where, none": Case(normals(6, 5, mask=(6,)), {"reduction": "none"}),
        "no examples": Case(normals(0, 5)),
    },
)
def gaussian_kl(
    mean: Array, log_var: Array, where: Array | None = None, *, reduction: str = "mean"
) -> Array:
    """½ Σ (mean² + exp(log_var) - 1 - log_var): how far N(mean, exp(log_var)) is from N(0, 1).

    The Kullback-Leibler divergence from the standard normal, summed over the last axis.

    Args:
        mean: `(..., dimensions)`.
        log_var: The logarithm of the variance, the same shape.
        where: Boolean `(...)`: which examples count; None for all.
        reduction: "mean" over the examples, "sum" or "none".

    Returns:
        A scalar, or `(...)` for "none", in the dtype of the mean.

    Raises:
        TypeError: If the mean is not floating or `where` is not boolean.
        ValueError: If the shapes differ or have no axis, or `reduction` is unknown.

    >>> float(gaussian_kl(jnp.array([[1.0, 2.0]]), jnp.zeros((1, 2))))
    2.5

    Reference: Kingma & Welling, "Auto-Encoding Variational Bayes", 2014, appendix B.
    """
    m, s = wide_operands(*_GAUSSIAN_KL, (mean, log_var), where, reduction, True)
    return reduced((m * m + (jnp.expm1(s) - s)).sum(-1) / 2, where, reduction, mean)
