"""Kullback-Leibler divergences, in nats, and how little two soft sets overlap."""

import math

import jax.numpy as jnp

from ...types import Array
from ..fast.rows import sum_over
from . import cases
from .checks import alike, smoothed
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


def _overlap(probs: Array, targets: Array, smooth: float) -> tuple[Array, Array]:
    """Twice the common part of each row, and both parts together."""
    common = 2 * sum_over(probs * targets, -1) + smooth
    return common, sum_over(probs, -1) + sum_over(targets, -1) + smooth


def _soft_dice_backward(res, dy, *, smooth):
    """With N = 2 Σ p t + s and D = Σ p + Σ t + s: dp = (N / D − 2 t) / D dy;
    dt = (N / D − 2 p) / D dy;  the mean divides dy by the rows that count
    """
    p, t = res
    common, whole = (part[..., None] for part in _overlap(p, t, smooth))
    share, dy = common / whole, dy / whole
    return (share - 2 * t) * dy, (share - 2 * p) * dy


@loss(
    _soft_dice_backward,
    cases=cases.SOFT_DICE,
    check=smoothed,
    ranges={"probs": (0, 1), "targets": (0, 1)},
    rows=True,
)
def soft_dice(
    probs: Array,
    targets: Array,
    where: Array | None = None,
    *,
    smooth: float = 1.0,
    reduction: str = "mean",
) -> Array:
    """1 − (2 Σ p t + s) / (Σ p + Σ t + s) of each row: how little two soft sets overlap.

    Args:
        probs: p from 0 to 1, `(..., places)`: flatten the pixels of an image first.
        targets: t from 0 to 1, of the same shape. They get a gradient.
        where: Boolean `(...)`: which rows count; None for all.
        smooth: s, above 0: two empty sets agree.
        reduction: "mean" over the rows, "sum" or "none".

    Returns:
        A scalar, or `(...)` for "none", in the dtype of the probabilities.

    Raises:
        TypeError: If the probabilities are not floating or `where` is not boolean.
        ValueError: If the shapes differ or have no axis, or an option or a concrete number is out
            of range.

    >>> float(soft_dice(jnp.array([[1.0, 1.0, 0.0]]), jnp.array([[1.0, 0.0, 0.0]])))
    0.25

    Reference: Milletari, Navab & Ahmadi, "V-Net: Fully Convolutional Neural Networks for Volumetric
        Medical Image Segmentation", 2016, section 3, which squares p and t below.
    """
    common, whole = _overlap(probs, targets, smooth)
    return 1 - common / whole
