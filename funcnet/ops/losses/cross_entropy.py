"""The K-class cross-entropy from logits: one class, or a distribution over classes, per example."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..fast.rows import sum_over
from ..shared.masks import masked
from . import cases
from .checks import classes
from .labels import (
    centre,
    check_labels,
    class_weights,
    costs,
    counts_of,
    label_losses,
    label_slopes,
    label_weights,
    mean_over_labels,
)
from .reduction import count_of, each, reduce


class _Examples(NamedTuple):
    """What is given, ready to compute with.

    Attributes:
        logits: 0 where an example does not count.
        labels: Integers within the classes; or soft ones.
        q: The soft labels, smoothed and times the weights of the classes; None for integers.
        weights: The weight of each class.
        w_y: The weight of each integer label; 1 for soft ones.
        counts: Which examples count, without those whose label weighs nothing at all; None for all.
        divisor: What the mean divides by.
    """

    logits: Array
    labels: Array
    q: Array | None
    weights: Array
    w_y: Array
    counts: Array | None
    divisor: Array | float


def _examples(
    logits: Array, labels: Array, weights: Array | None, where: Array | None, ignored: int | None,
    eps: float,
) -> _Examples:  # fmt: skip
    counts, w = counts_of(labels, where, ignored), class_weights(logits, weights)
    if labels.ndim == logits.ndim:
        w_y = jnp.ones((), logits.dtype)
        q = w * ((1 - eps) * labels.astype(logits.dtype) + eps / w.size)
        divisor = count_of(counts, logits.shape[:-1])
    else:
        q, (labels, w_y) = None, label_weights(labels, w, counts)
        divisor = sum_over(w_y)
        counts = counts if weights is None or eps else w_y != 0
    z = masked(logits, None if counts is None else counts[..., None])
    return _Examples(z, labels, q, w, w_y, counts, divisor)


def _cross_entropy_forward(
    logits, labels, weights, where, *, ignore_index, label_smoothing, z_loss, reduction
):
    given = _examples(logits, labels, weights, where, ignore_index, label_smoothing)
    if given.q is not None:
        centred, top, rest = centre(given.logits)
        losses = (given.q * costs(rest - centred, given.q)).sum(-1)
        if z_loss:
            losses += z_loss * jnp.square(top + rest)[..., 0]
    else:
        check_labels("cross_entropy", logits, labels, where, ignore_index)
        w = None if weights is None else given.weights
        losses, top, rest = label_losses(
            given.logits, given.labels, given.w_y, w, label_smoothing, z_loss
        )
    loss = reduce(masked(losses, given.counts), given.divisor, reduction)
    return loss, (logits, top, rest, labels, weights, where)


def _cross_entropy_backward(res, dy, *, ignore_index, label_smoothing, z_loss, reduction):
    """With p = softmax(logits) and q = w ((1 - ε) y + ε / K), y the label as a row of K numbers:
    dlogits = (p Σ q - q) dy;  dlabels = -(1 - ε) w ln p dy;  the mean divides dy by its divisor;
    z_loss ζ adds 2 ζ w_y ln Σ exp(logits) to Σ q, with w_y = 1 for a soft label. Here ln Σ exp is
    top + rest, in two parts that keep their digits; for a label as a number, `label_slopes` is
    p Σ q - q
    """
    logits, top, rest, labels, weights, where = res
    eps = label_smoothing
    given = _examples(logits, labels, weights, where, ignore_index, eps)
    log_p = given.logits - top - rest
    dy = each(dy, given.divisor, reduction)
    dy = masked(jnp.broadcast_to(dy, logits.shape[:-1]), given.counts)[..., None]
    if given.q is not None:
        share = given.q.sum(-1, keepdims=True) + 2 * z_loss * (top + rest)
        dlogits = (jnp.exp(log_p) * share - given.q) * dy
        return dlogits, (1 - eps) * given.weights * costs(-log_p, given.q) * dy, None, None
    w = None if weights is None else given.weights
    slopes = label_slopes(log_p, top + rest, given.labels, given.w_y[..., None], w, eps, z_loss)
    return slopes * dy, None, None, None


@rule(
    _cross_entropy_forward,
    _cross_entropy_backward,
    nodiff=("weights",),
    cases=cases.CROSS_ENTROPY,
    check=classes,
    wide=True,
    count=mean_over_labels,
)
def cross_entropy(
    logits: Array,
    labels: Array,
    weights: Array | None = None,
    where: Array | None = None,
    *,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
) -> Array:
    """-ln softmax(logits)[label], the K-class cross-entropy; for a soft label y, -Σ y ln softmax.

    The probabilities are never stored: backward makes p - y from the logits and ln Σ exp of
    each example. As in PyTorch, the mean over integer labels divides by the sum of their class
    weights, the mean over soft labels by the number of examples, and smoothing with weights is
    (1 - ε) w_y (-ln p_y) + ε/K Σ_c w_c (-ln p_c).

    Args:
        logits: `(..., K)`, before any softmax.
        labels: Classes, integers `(...)`; or soft labels, floating `(..., K)`, which get a
            gradient.
        weights: Class weights `(K,)`, constants; None for ones. A label of weight 0 adds nothing
            to value and gradient, even where its logit is -∞.
        where: Boolean `(...)`: which examples count; None for all.
        ignore_index: The integer label whose examples do not count.
        label_smoothing: ε, the share of each label that is spread evenly over the classes.
        z_loss: ζ: each example's loss gets ζ (ln Σ exp(logits))² on top, times its class weight
            where the label is an integer, which keeps the logits from drifting; 1e-4 is usual.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or `(...)` for "none", in the dtype of the logits; see the module `loss`.
        Traced integer labels out of range give NaN, since a compiled program cannot raise.

    Raises:
        TypeError: If the logits are not floating, or the labels or `where` have a dtype that does
            not fit.
        ValueError: If a shape does not fit, or an option or a concrete label is out of range.

    >>> print(f"{cross_entropy(jnp.zeros((2, 4)), jnp.array([3, 0])):.4f}")  # ln 4
    1.3863

    Reference: Bishop, "Pattern Recognition and Machine Learning", 2006, equations 4.108 and 4.109;
        Szegedy et al., "Rethinking the Inception Architecture", 2016, section 7 (smoothing);
        Chowdhery et al., "PaLM", 2022, section 5 (z_loss).
    """
    given = _examples(logits, labels, weights, where, ignore_index, label_smoothing)
    log_p, w = jax.nn.log_softmax(given.logits), given.weights
    if given.q is not None:
        # No product with an infinite cost: its derivative would be NaN behind the other choice.
        ruled_out = (given.q == 0) & jnp.isneginf(log_p)
        losses = -jnp.sum(given.q * jnp.where(ruled_out, 0, log_p), axis=-1)
    else:
        check_labels("cross_entropy", logits, labels, where, ignore_index)
        log_p = jnp.where((w == 0) & jnp.isneginf(log_p), 0, log_p)
        of_label = jnp.take_along_axis(log_p, given.labels[..., None], axis=-1)[..., 0]
        losses = -(1 - label_smoothing) * given.w_y * of_label
        losses -= label_smoothing * jnp.mean(w * log_p, axis=-1)
    losses += z_loss * given.w_y * jax.nn.logsumexp(given.logits, axis=-1) ** 2
    return reduce(masked(losses, given.counts), given.divisor, reduction)
