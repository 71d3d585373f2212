"""Kullback-Leibler divergences: how far one distribution is from another, in nats."""

import math

import jax.numpy as jnp

from ...types import Array
from . import cases
from .checks import alike
from .loss import loss


def _kl_divergence_backward(res, dy):
    """dlog_q = −p dy;  dp = (ln p + 1 − log_q) dy, and 0 where p = 0;  the mean divides dy by the
    number of distributions
    """
    log_q, p = res
    slope = jnp.log(jnp.where(p > 0, p, 1)) + 1 - jnp.where(p > 0, log_q, 0)
    return -p * dy, jnp.where(p > 0, slope, 0) * dy


@loss(
    _kl_divergence_backward,
    cases=cases.KL_DIVERGENCE,
    check=alike("log_q", "p", rows=True),
    ranges={"p": (0, math.inf)},
    rows=True,
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
    # An outcome with p = 0 counts 0 whatever log_q is, -∞ included.
    gap = jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1)) - jnp.where(p > 0, log_q, 0), 0)
    return (p * gap).sum(-1)


def _gaussian_kl_backward(res, dy):
    """dmean = mean dy;  dlog_var = ½ (exp(log_var) − 1) dy;  the mean divides dy by the number of
    examples
    """
    mean, log_var = res
    return mean * dy, jnp.expm1(log_var) / 2 * dy


@loss(
    _gaussian_kl_backward,
    cases=cases.GAUSSIAN_KL,
    check=alike("mean", "log_var", rows=True),
    rows=True,
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
    return (jnp.square(mean) + (jnp.expm1(log_var) - log_var)).sum(-1) / 2
