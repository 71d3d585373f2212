"""Losses of classes: which labels count, what each weighs, and what it costs."""

import jax
import jax.numpy as jnp

from ...figures import EACH
from ...types import Array
from ..shared.masks import masked
from .checks import check_range


def counts_of(labels: Array, where: Array | None, ignore_index: int | None) -> Array | None:
    """Which examples count; None if all do."""
    if ignore_index is None:
        return where
    kept = jnp.asarray(labels) != ignore_index
    return kept if where is None else where & kept


def check_labels(
    op: str, outputs: Array, labels: Array, where: Array | None, ignore_index: int | None
) -> None:
    """Raise unless the labels that count are among the classes, if they can be looked at."""
    counts = counts_of(labels, where, ignore_index)
    check_range(op, "labels", labels, counts, 0, outputs.shape[-1] - 1)


def class_weights(outputs: Array, weights: Array | None) -> Array:
    """The weight of each class, a constant; ones if None are given."""
    if weights is None:
        return jnp.ones(outputs.shape[-1], outputs.dtype)
    return jax.lax.stop_gradient(jnp.asarray(weights, outputs.dtype))


def within_classes(labels: Array, classes: int) -> tuple[Array, Array]:
    """The labels with a safe index in place of one out of range; which are in range.

    Any that counts and is not should weigh NaN: a compiled program cannot raise, but it need not be
    silent.
    """
    within = (labels >= 0) & (labels < classes)
    return jnp.where(within, labels, 0), within


def label_weights(labels: Array, weights: Array, counts: Array | None) -> tuple[Array, Array]:
    """The labels within the classes, and the class weight of each: 0 for what does not count."""
    safe, within = within_classes(labels, weights.shape[0])
    return safe, masked(jnp.where(within, weights[safe], jnp.nan), counts)


def mean_over_labels(
    *, labels: Array, weights: Array | None = None, where: Array | None = None,
    ignore_index: int | None, reduction: str,
) -> Array | str | None:  # fmt: skip
    """What the mean is over, for `rule`."""
    if reduction != "mean":
        return None
    counts = counts_of(labels, where, ignore_index)
    if weights is None or jnp.issubdtype(jnp.result_type(labels), jnp.floating):
        return EACH if counts is None else counts.sum()
    return label_weights(labels, jnp.asarray(weights), counts)[1].sum()


def centre(logits: Array) -> tuple[Array, Array, Array]:
    """The logits less the largest of each row; that; and ln Σ exp of the former.

    ln Σ exp of the logits is the sum of the last two: added up, they would lose digits of the
    smaller where the logits are large.
    """
    top = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    centred = logits - top
    return centred, top, jnp.log(jnp.exp(centred).sum(-1, keepdims=True))


def costs(surprise: Array, q: Array) -> Array:
    """−ln p, and 0 for a class that is ruled out and has no share q of the label: 0 · ∞ is 0."""
    return jnp.where((q == 0) & jnp.isposinf(surprise), 0, surprise)


def label_losses(
    logits: Array, labels: Array, w_y: Array, weights: Array | None, eps: float, zeta: float
) -> tuple[Array, Array, Array]:
    """w_y ((1 − ε) (−ln p_y) + ζ (ln Σ exp)²) + ε/K Σ_c w_c (−ln p_c); and ln Σ exp, in two parts.

    Without class weights the second term too is times w_y, which is 1 for every label that counts.

    Args:
        logits: `(..., K)`.
        labels: `(...)`, each a class.
        w_y: The weight of each label.
        weights: The weight of each class, or None for 1.
        eps: ε, the share of the label that is spread over all classes.
        zeta: ζ, the weight of the square of ln Σ exp.
    """
    centred, top, rest = centre(logits)
    own = rest - jnp.take_along_axis(centred, labels[..., None], axis=-1)
    every = rest - centred
    if weights is not None:
        own, every = costs(own, w_y[..., None]), weights * costs(every, weights)
    own = (1 - eps) * own if eps else own
    own = own + zeta * jnp.square(top + rest) if zeta else own
    if not eps:
        return w_y * own[..., 0], top, rest
    own, even = own[..., 0], eps * every.mean(-1)
    return w_y * (own + even) if weights is None else w_y * own + even, top, rest


def label_slopes(
    log_p: Array, lse: Array, labels: Array, w_y: Array | float, weights: Array | None,
    eps: float, zeta: float,
) -> Array:  # fmt: skip
    """p Σ q − q with q = w ((1 − ε) y + ε / K), and 2 ζ w_y ln Σ exp on top of Σ q: of
    `label_losses` by the logits. Here w_y is 1 or `(..., 1)`.
    """
    classes = log_p.shape[-1]
    total = q_y = (1 - eps) * w_y
    q = jnp.where(labels[..., None] == jnp.arange(classes), q_y, 0)
    if eps:
        q = q + eps / classes * (1 if weights is None else weights)
        total = total + eps * (1 if weights is None else weights.mean())
    if zeta:
        total = total + 2 * zeta * w_y * lse
    return jnp.exp(log_p) * total - q
