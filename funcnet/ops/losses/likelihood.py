"""Negative log-likelihoods of a class, a coin, a count and a Gaussian, in nats."""

import math

import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..fast.rows import sum_over
from ..shared.masks import masked
from . import cases
from .checks import alike, one_class, weighed
from .labels import check_labels, class_weights, counts_of, label_weights, mean_over_labels
from .loss import loss
from .reduction import each, reduce

LOG_CAP = 100.0
"""The most that -ln p of a probability counts for, as in PyTorch's BCELoss."""

LEAST = math.exp(-LOG_CAP)


def _weighed(
    log_probs: Array, labels: Array, weights: Array | None, where: Array | None, ignored: int | None
) -> tuple[Array, Array]:
    """The labels, all of them within the classes, and what each one weighs."""
    counts = counts_of(labels, where, ignored)
    return label_weights(labels, class_weights(log_probs, weights), counts)


def _nll(log_probs, labels, weights, where, *, ignore_index, reduction):
    check_labels("nll", log_probs, labels, where, ignore_index)
    safe, w_y = _weighed(log_probs, labels, weights, where, ignore_index)
    of_label = jnp.take_along_axis(log_probs, safe[..., None], axis=-1)[..., 0]
    return reduce(-w_y * masked(of_label, w_y != 0), sum_over(w_y), reduction)


def _nll_forward(log_probs, labels, weights, where, *, ignore_index, reduction):
    kept = log_probs, labels, weights, where
    return _nll(*kept, ignore_index=ignore_index, reduction=reduction), kept


def _nll_backward(res, dy, *, ignore_index, reduction):
    """dlog_probs = −w_y dy at the label, 0 elsewhere;  the mean divides dy by Σ w_y"""
    log_probs, labels, weights, where = res
    safe, w_y = _weighed(log_probs, labels, weights, where, ignore_index)
    slope = -w_y * masked(each(dy, sum_over(w_y), reduction), w_y != 0)
    at_label = safe[..., None] == jnp.arange(log_probs.shape[-1])
    return jnp.where(at_label, slope[..., None], 0), None, None, None


@rule(
    _nll_forward,
    _nll_backward,
    nodiff=("weights",),
    cases=cases.NLL,
    check=one_class,
    wide=True,
    count=mean_over_labels,
)
def nll(
    log_probs: Array,
    labels: Array,
    weights: Array | None = None,
    where: Array | None = None,
    *,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> Array:
    """-log_probs[label]: the negative log-likelihood of a class, from log-probabilities.

    From logits `cross_entropy` gives the same and keeps less.

    Args:
        log_probs: `(..., K)`, as `log_softmax` gives them.
        labels: Classes, integers `(...)`.
        weights: Class weights `(K,)`, constants, by whose sum the mean divides; None for ones.
        where: Boolean `(...)`: which examples count; None for all.
        ignore_index: The label whose examples do not count.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or `(...)` for "none", in the dtype of the log-probabilities. Traced labels out
        of range give NaN, since a compiled program cannot raise.

    Raises:
        TypeError: If the log-probabilities are not floating or `where` is not boolean.
        ValueError: If a shape or dtype does not fit, or an option or a concrete label is out of
            range.

    >>> print(f"{nll(jnp.log(jnp.array([[0.25, 0.75]])), jnp.array([0])):.4f}")  # ln 4
    1.3863

    Reference: Bishop, "Pattern Recognition and Machine Learning", 2006, equation 4.108.
    """
    return _nll(log_probs, labels, weights, where, ignore_index=ignore_index, reduction=reduction)


def _gaussian_nll_backward(res, dy):
    """With d = target − mean and v = exp(log_var): dmean = −d / v dy;  dtarget = d / v dy;
    dlog_var = ½ (1 − d² / v) dy;  the mean divides dy by what counts
    """
    mean, log_var, target = res
    root = jnp.exp(-log_var / 2)
    error = (target - mean) * root
    slope = error * root * dy
    return -slope, (1 - jnp.square(error)) / 2 * dy, slope


@loss(
    _gaussian_nll_backward,
    cases=cases.GAUSSIAN_NLL,
    check=alike("mean", "log_var", "target"),
)
def gaussian_nll(
    mean: Array,
    log_var: Array,
    target: Array,
    where: Array | None = None,
    *,
    full: bool = False,
    reduction: str = "mean",
) -> Array:
    """½ (log_var + (target - mean)² / exp(log_var)), elementwise: -ln N(target) up to ½ ln 2π.

    Args:
        mean: The predicted mean, of any shape.
        log_var: The logarithm of the predicted variance, the same shape; any number will do,
            where PyTorch takes the variance itself and has to keep it above 0.
        target: What was observed, the same shape.
        where: Boolean, the same shape: which elements count; None for all.
        full: Whether to add the constant ½ ln 2π.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or the shape of the mean for "none", in its dtype.

    Raises:
        TypeError: If the mean is not floating or `where` is not boolean.
        ValueError: If the shapes differ, or `reduction` is unknown.

    >>> float(gaussian_nll(jnp.zeros(2), jnp.zeros(2), jnp.array([1.0, 3.0])))
    2.5

    Reference: Nix & Weigend, "Estimating the Mean and Variance of the Target Probability
        Distribution", 1994.
    """
    constant = math.log(2 * math.pi) if full else 0
    # The root of the precision: its square leaves float32 twice as soon.
    return (log_var + jnp.square((target - mean) * jnp.exp(-log_var / 2)) + constant) / 2


def _capped_log(p: Array) -> Array:
    return jnp.where(p > LEAST, jnp.log(jnp.where(p > LEAST, p, 1)), -LOG_CAP)


def _bernoulli_nll_backward(res, dy):
    """dprobs = ((1 − t) / (1 − p) − t / p) dy, without the part whose logarithm is capped;
    dtargets = (ln(1 − p) − ln p) dy;  the mean divides dy by what counts
    """
    p, t = res
    up, down = (jnp.where(x > LEAST, 1 / jnp.where(x > LEAST, x, 1), 0) for x in (p, 1 - p))
    return ((1 - t) * down - t * up) * dy, (_capped_log(1 - p) - _capped_log(p)) * dy


@loss(
    _bernoulli_nll_backward,
    cases=cases.BERNOULLI_NLL,
    check=weighed("probs", "targets"),
    ranges={"probs": (0, 1), "targets": (0, 1)},
)
def bernoulli_nll(
    probs: Array,
    targets: Array,
    where: Array | None = None,
    weight: Array | None = None,
    *,
    reduction: str = "mean",
) -> Array:
    """-(t ln p + (1 - t) ln(1 - p)), elementwise: binary cross-entropy from probabilities.

    From logits `binary_cross_entropy` gives the same, and is right also where a probability rounds
    to 0 or 1; here a logarithm counts for 100 at most, as in PyTorch's BCELoss, and a capped one
    has gradient 0.

    Args:
        probs: p from 0 to 1, of any shape.
        targets: t from 0 to 1, of the same shape. They get a gradient.
        where: Boolean, of the same shape: which elements count; None for all.
        weight: Broadcastable to the probabilities: by how much each loss is multiplied, constants;
            None for 1. The mean divides by the number of what counts, as in PyTorch.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or the shape of the probabilities for "none", in their dtype.

    Raises:
        TypeError: If the probabilities are not floating or `where` is not boolean.
        ValueError: If a shape does not fit, or `reduction` or a concrete number is out of range.

    >>> print(f"{bernoulli_nll(jnp.array([0.5, 1.0]), jnp.array([1.0, 1.0])):.4f}")  # ½ ln 2
    0.3466

    Reference: Bishop, "Pattern Recognition and Machine Learning", 2006, equation 4.90.
    """
    return -(targets * _capped_log(probs) + (1 - targets) * _capped_log(1 - probs))


def _poisson_nll_backward(res, dy, *, log_input, full, eps):
    """Of z = ln λ: dz = (eᶻ − t) dy;  dt = −z dy.  Of λ: dλ = (1 − t / (λ + ε)) dy;
    dt = −ln(λ + ε) dy.  Stirling adds (ln t + 1 / 2t) dy to dt where t > 1;
    the mean divides dy by what counts
    """
    x, t = res
    slope, log_rate = (jnp.exp(x) - t, x) if log_input else (1 - t / (x + eps), jnp.log(x + eps))
    above = jnp.where(t > 1, t, 1)
    stirling = jnp.where(t > 1, jnp.log(above) + 1 / (2 * above), 0) if full else 0
    return slope * dy, (stirling - log_rate) * dy


@loss(
    _poisson_nll_backward,
    cases=cases.POISSON_NLL,
    check=alike("predictions", "targets"),
    ranges={"targets": (0, math.inf)},
)
def poisson_nll(
    predictions: Array,
    targets: Array,
    where: Array | None = None,
    *,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Array:
    """λ − t ln λ, elementwise: −ln of the chance of a count t at rate λ, up to ln t!.

    Args:
        predictions: ln λ, of any shape, or λ if `log_input` is False, which has to be 0 or more.
        targets: t, counts of 0 or more, of the same shape. They get a gradient.
        where: Boolean, of the same shape: which elements count; None for all.
        log_input: Whether the predictions are logarithms of rates.
        full: Whether to add Stirling's t ln t − t + ½ ln 2πt for ln t!, where t > 1.
        eps: ε, added to λ under the logarithm if `log_input` is False.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or the predictions' shape for "none", in their dtype.

    Raises:
        TypeError: If the predictions are not floating or `where` is not boolean.
        ValueError: If the shapes differ, or `reduction` or a concrete target is out of range.

    >>> float(poisson_nll(jnp.zeros(2), jnp.array([0.0, 3.0])))
    1.0

    Reference: McCullagh & Nelder, "Generalized Linear Models", 1989, section 6.2.
    """
    if log_input:
        losses = jnp.exp(predictions) - targets * predictions
    else:
        losses = predictions - targets * jnp.log(predictions + eps)
    if not full:
        return losses
    t = jnp.where(targets > 1, targets, 1)
    stirling = t * jnp.log(t) - t + jnp.log(2 * math.pi * t) / 2
    return losses + jnp.where(targets > 1, stirling, 0)
