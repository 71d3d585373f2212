"""The K-class cross-entropy from logits: one class, or a distribution over classes, per example."""

from collections.abc import Callable
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.random import Generator

from ...rules.rule import Case, rule
from ...types import Array, require
from ..fast.rows import sum_over
from ..shared.precision import wide
from .reduction import check_range, check_reduction, count_of, each, masked, reduce


def _check_labels(logits: Array, labels: Array) -> None:
    op, shape, kind = "cross_entropy", jnp.shape(logits), jnp.result_type(labels)
    if jnp.ndim(labels) == len(shape):
        require(
            jnp.issubdtype(kind, jnp.floating),
            op,
            "soft labels of a floating dtype, as these have the rank of the logits",
            f"{kind} of shape {jnp.shape(labels)}",
            "Pass one class for each example, without the last axis, or one_hot.astype(float).",
            TypeError,
        )
        require(
            jnp.shape(labels) == shape,
            op,
            f"soft labels of the logits' shape {shape}",
            f"shape {jnp.shape(labels)}",
            "Integer labels have that shape without its last axis.",
        )
        return
    require(
        jnp.shape(labels) == shape[:-1],
        op,
        f"labels of shape {shape[:-1]}, or {shape} for soft ones, as logits have shape {shape}",
        f"shape {jnp.shape(labels)}",
        "The classes lie on the last axis of the logits.",
    )
    require(
        jnp.issubdtype(kind, jnp.integer),
        op,
        "labels of an integer dtype, one class for each example",
        f"{kind}",
        "Convert them: labels.astype(int).",
        TypeError,
    )


def _check_classes(
    logits: Array,
    labels: Array,
    weights: Array | None,
    ignore_index: int | None,
    label_smoothing: float,
    z_loss: float,
) -> None:
    op, shape = "cross_entropy", jnp.shape(logits)
    require(
        jnp.issubdtype(jnp.result_type(logits), jnp.floating) and shape and shape[-1],
        op,
        "floating logits of shape (..., classes)",
        f"{jnp.result_type(logits)} of shape {shape}",
        "They come first, before any softmax; the labels come second.",
    )
    _check_labels(logits, labels)
    require(
        weights is None or jnp.shape(weights) == shape[-1:],
        op,
        f"weights of shape {shape[-1:]}, one for each class",
        f"shape {weights is not None and jnp.shape(weights)}",
        "To leave out examples, use where.",
    )
    require(
        isinstance(label_smoothing, Real) and 0 <= label_smoothing < 1,
        op,
        "label_smoothing from 0 to below 1",
        repr(label_smoothing),
        "It is the share of each label that is spread over all classes.",
    )
    require(
        isinstance(z_loss, Real) and z_loss >= 0,
        op,
        "z_loss of 0 or more",
        repr(z_loss),
        "It is the weight of the square of logsumexp(logits), such as 1e-4.",
    )
    require(
        ignore_index is None or not _soft(logits, labels),
        op,
        "integer labels, since ignore_index is given",
        "soft labels",
        "Leave out examples with where.",
    )


def _soft(logits: Array, labels: Array) -> bool:
    return jnp.ndim(labels) == jnp.ndim(logits)


def counts_of(labels: Array, where: Array | None, ignore_index: int | None) -> Array | None:
    """Which examples count; None if all do."""
    if ignore_index is None:
        return where
    kept = jnp.asarray(labels) != ignore_index
    return kept if where is None else where & kept


def class_weights(logits: Array, weights: Array | None, dtype: Any) -> Array:
    """The weight of each class, a constant; ones if None are given."""
    if weights is None:
        return jnp.ones(logits.shape[-1], dtype)
    return jax.lax.stop_gradient(jnp.asarray(weights, dtype))


def label_weights(labels: Array, weights: Array, counts: Array | None) -> tuple[Array, Array]:
    """The labels with a safe index in place of one out of range, and each one's class weight.

    What does not count weighs 0. Any other label out of range weighs NaN: a compiled program cannot
    raise, but it need not be silent.
    """
    within = (labels >= 0) & (labels < weights.shape[0])
    safe = jnp.where(within, labels, 0)
    return safe, masked(jnp.where(within, weights[safe], jnp.nan), counts)


def _divisor(logits: Array, labels: Array, weights: Array, counts: Array | None) -> Array:
    """What the mean divides by: the weights of the integer labels, or the number of examples."""
    if _soft(logits, labels):
        return count_of(counts, logits.shape[:-1], weights.dtype)
    return sum_over(label_weights(labels, weights, counts)[1])


def mean_over_labels(
    *, labels: Array, weights: Array | None, where: Array | None, ignore_index: int | None,
    reduction: str,
) -> Array | None:  # fmt: skip
    """What the mean is over, for `rule`; None for all examples."""
    if reduction != "mean":
        return None
    counts = counts_of(labels, where, ignore_index)
    if weights is None or jnp.issubdtype(jnp.result_type(labels), jnp.floating):
        return None if counts is None else counts.sum()
    return label_weights(labels, jnp.asarray(weights), counts)[1].sum()


def _counts(
    logits: Array,
    labels: Array,
    weights: Array | None,
    where: Array | None,
    ignore_index: int | None,
    label_smoothing: float,
) -> Array | None:
    """Which examples count, as `counts_of`, but for those whose label weighs nothing at all."""
    counts = counts_of(labels, where, ignore_index)
    if weights is None or label_smoothing or _soft(logits, labels):
        return counts
    return label_weights(labels, class_weights(logits, weights, wide(logits)), counts)[1] != 0


def _costs(log_p: Array, q: Array) -> Array:
    """-ln p, and 0 for a class that is ruled out and has no share of the label: 0 · ∞ is 0."""
    return jnp.where((q == 0) & jnp.isneginf(log_p), 0, -log_p)


def _counted_logits(logits: Array, counts: Array | None, dtype: Any) -> Array:
    return masked(logits.astype(dtype), None if counts is None else counts[..., None])


def _cross_entropy_forward(
    logits: Array,
    labels: Array,
    weights: Array | None,
    where: Array | None,
    *,
    ignore_index: int | None,
    label_smoothing: float,
    z_loss: float,
    reduction: str,
) -> tuple[Array, tuple]:
    _check_classes(logits, labels, weights, ignore_index, label_smoothing, z_loss)
    check_reduction("cross_entropy", where, jnp.shape(logits)[:-1], reduction)
    dtype, eps = wide(logits), label_smoothing
    counts = _counts(logits, labels, weights, where, ignore_index, eps)
    z, w = _counted_logits(logits, counts, dtype), class_weights(logits, weights, dtype)
    # ln Σ exp in two parts: one number would lose the digits of ln where the logits are large.
    top = jax.lax.stop_gradient(z.max(-1, keepdims=True))
    z = z - top
    lse = jnp.log(jnp.exp(z).sum(-1, keepdims=True))
    if _soft(logits, labels):
        q = w * ((1 - eps) * labels.astype(dtype) + eps / w.size)
        losses, w_y = (q * _costs(z - lse, q)).sum(-1), 1
    else:
        counted = counts_of(labels, where, ignore_index)
        check_range("cross_entropy", "labels", labels, counted, 0, w.size - 1)
        safe, w_y = label_weights(labels, w, counts)
        z_y = jnp.take_along_axis(z, safe[..., None], axis=-1)
        losses = w_y * _costs(z_y - lse, w_y[..., None])[..., 0]
        if eps:
            losses = (1 - eps) * losses + eps * (w * _costs(z - lse, w)).mean(-1)
    if z_loss:
        losses += z_loss * w_y * jnp.square(top + lse)[..., 0]
    divisor = _divisor(logits, labels, w, counts)
    loss = reduce(masked(losses, counts), divisor, reduction).astype(logits.dtype)
    return loss, (logits, top, lse, labels, weights, where)


def _cross_entropy_backward(
    res: tuple,
    dy: Array,
    *,
    ignore_index: int | None,
    label_smoothing: float,
    z_loss: float,
    reduction: str,
) -> tuple[Array, Array | None, None, None]:
    """With p = softmax(logits) and q = w ((1 - ε) y + ε / K), y the label as a row of K numbers:
    dlogits = (p Σ q - q) dy;  dlabels = -(1 - ε) w ln p dy;  the mean divides dy by its divisor;
    z_loss ζ adds 2 ζ w_y ln Σ exp(logits) to Σ q, with w_y = 1 for a soft label
    """
    logits, top, lse, labels, weights, where = res
    dtype, eps = lse.dtype, label_smoothing
    counts = _counts(logits, labels, weights, where, ignore_index, eps)
    w, pull = class_weights(logits, weights, dtype), 2 * z_loss * (top + lse)
    log_p = _counted_logits(logits, counts, dtype) - top - lse
    dy = each(dy.astype(dtype), _divisor(logits, labels, w, counts), reduction)
    dy = masked(jnp.broadcast_to(dy, logits.shape[:-1]), counts)[..., None]
    if _soft(logits, labels):
        q = w * ((1 - eps) * labels.astype(dtype) + eps / w.size)
        dlogits = (jnp.exp(log_p) * (q.sum(-1, keepdims=True) + pull) - q) * dy
        return dlogits, (1 - eps) * w * _costs(log_p, q) * dy, None, None
    safe, w_y = label_weights(labels, w, counts)
    q_y = (1 - eps) * w_y[..., None]
    q = jnp.where(safe[..., None] == jnp.arange(w.size), q_y, 0)
    q = q + eps * w / w.size if eps else q
    share = q_y + eps * w.mean() + pull * w_y[..., None]
    return (jnp.exp(log_p) * share - q) * dy, None, None, None


def _classes(
    *examples: int, soft: bool = False, weighted: bool = False, mask: bool = False
) -> Callable[[Generator], tuple]:
    def make(random: Generator) -> tuple:
        logits = random.standard_normal((*examples, 5))
        hard = random.integers(0, 5, examples)
        labels = random.dirichlet(np.ones(5), examples) if soft else hard
        weights = random.uniform(0.5, 2.0, (5,)) if weighted else None
        return logits, labels, weights, (random.random(examples) < 0.6) if mask else None

    return make


def _ruled_out(random: Generator) -> tuple:
    logits, labels, _, _ = _classes(6)(random)
    logits[::2, 1] = -np.inf
    return logits, labels, np.array([1.0, 0.0, 2.0, 1.0, 0.5]), None


def _none_counts(random: Generator) -> tuple:
    return *_classes(4)(random)[:3], np.zeros(4, bool)


@rule(
    _cross_entropy_forward,
    _cross_entropy_backward,
    nodiff=("weights",),
    count=mean_over_labels,
    cases={
        "mean": Case(_classes(6)),
        "sum": Case(_classes(6), {"reduction": "sum"}),
        "none": Case(_classes(6), {"reduction": "none"}),
        "one example": Case(_classes()),
        "sequence": Case(_classes(2, 3)),
        "ignored": Case(_classes(9), {"ignore_index": 2}),
        "weights": Case(_classes(6, weighted=True)),
        "smoothing": Case(_classes(6), {"label_smoothing": 0.1}),
        "every option": Case(
            _classes(9, weighted=True, mask=True), {"ignore_index": 0, "label_smoothing": 0.2}
        ),
        "where, none": Case(_classes(9, mask=True), {"reduction": "none"}),
        "soft": Case(_classes(6, soft=True)),
        "soft, none": Case(_classes(6, soft=True), {"reduction": "none"}),
        "soft, every option": Case(
            _classes(2, 4, soft=True, weighted=True, mask=True), {"label_smoothing": 0.2}
        ),
        "z loss": Case(_classes(6, weighted=True, mask=True), {"z_loss": 0.1}),
        "z loss, soft": Case(_classes(6, soft=True), {"z_loss": 0.1}),
        "ruled out": Case(_ruled_out, {"label_smoothing": 0.1}),
        "none counts": Case(_none_counts),
        "no examples": Case(_classes(0)),
    },
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
        TypeError: If the labels or `where` have a dtype that does not fit.
        ValueError: If the logits are not floating, a shape does not fit, or an option or a concrete
            label is out of range.

    >>> print(f"{cross_entropy(jnp.zeros((2, 4)), jnp.array([3, 0])):.4f}")  # ln 4
    1.3863

    Reference: Bishop, "Pattern Recognition and Machine Learning", 2006, equations 4.108 and 4.109;
        Szegedy et al., "Rethinking the Inception Architecture", 2016, section 7 (smoothing);
        Chowdhery et al., "PaLM", 2022, section 5 (z_loss).
    """
    _check_classes(logits, labels, weights, ignore_index, label_smoothing, z_loss)
    check_reduction("cross_entropy", where, jnp.shape(logits)[:-1], reduction)
    dtype, eps = wide(logits), label_smoothing
    counts = _counts(logits, labels, weights, where, ignore_index, eps)
    w = class_weights(logits, weights, dtype)
    z = logits if counts is None else jnp.where(counts[..., None], logits, 0)
    log_p = jax.nn.log_softmax(z.astype(dtype))
    if _soft(logits, labels):
        q = w * ((1 - eps) * labels.astype(dtype) + eps / w.size)
        # No product with an infinite cost: its derivative would be NaN behind the other choice.
        ruled_out = (q == 0) & jnp.isneginf(log_p)
        losses = -jnp.sum(q * jnp.where(ruled_out, 0, log_p), axis=-1)
        w_y = jnp.ones_like(losses)
    else:
        counted = counts_of(labels, where, ignore_index)
        check_range("cross_entropy", "labels", labels, counted, 0, w.size - 1)
        safe, w_y = label_weights(labels, w, counts)
        log_p = jnp.where((w == 0) & jnp.isneginf(log_p), 0, log_p)
        of_label = jnp.take_along_axis(log_p, safe[..., None], axis=-1)[..., 0]
        losses = -(1 - eps) * w_y * of_label
        if eps:
            losses -= eps / w.size * jnp.sum(w * log_p, axis=-1)
    losses += z_loss * w_y * jax.nn.logsumexp(z.astype(dtype), axis=-1) ** 2
    divisor = _divisor(logits, labels, w, counts)
    return reduce(masked(losses, counts), divisor, reduction).astype(logits.dtype)
