"""Losses that are 0 as soon as scores or distances differ by a margin."""

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..fast.rows import sum_over
from ..shared.masks import masked
from . import margin_cases as cases
from .checks import alike
from .labels import check_labels, class_weights, label_weights
from .loss import loss
from .margin_checks import scored
from .reduction import count_of, each, mean_over, reduce


def _above_zero(gap: Array) -> Array:
    return jnp.where(gap <= 0, 0, gap)


def _hinge_backward(res, dy, *, margin):
    """dscores = −t dy where t s < m, else 0;  the mean divides dy by what counts"""
    scores, targets = res
    return jnp.where(margin - targets * scores <= 0, 0, -targets * dy), None


@loss(
    _hinge_backward,
    cases=cases.HINGE,
    check=alike("scores", "targets"),
    signs=("targets",),
    nodiff=("targets",),
)
def hinge(
    scores: Array,
    targets: Array,
    where: Array | None = None,
    *,
    margin: float = 1.0,
    reduction: str = "mean",
) -> Array:
    """max(0, m − t s), elementwise, for classes t of −1 and 1; at the kink the gradient is 0.

    Args:
        scores: s, of any shape; its sign is the class.
        targets: t, −1 or 1, of the same shape, constants. Of labels 0 and 1 it is `2 * labels - 1`.
        where: Boolean, of the same shape: which elements count; None for all.
        margin: m, the score from which a right answer costs nothing.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or the shape of the scores for "none", in their dtype.

    Raises:
        TypeError: If the scores are not floating or `where` is not boolean.
        ValueError: If the shapes differ, `reduction` is unknown, or a concrete target neither −1
            nor 1.

    >>> hinge(jnp.array([0.5, 3.0]), jnp.array([-1, 1]), reduction="none").tolist()
    [1.5, 0.0]

    Reference: Cortes & Vapnik, "Support-Vector Networks", 1995, section 3; Bishop, "Pattern
        Recognition and Machine Learning", 2006, equation 7.45.
    """
    return _above_zero(margin - targets * scores)


def _margin_ranking_backward(res, dy, *, margin):
    """dfirst = −t dy where t (first − second) < m, else 0;  dsecond = −dfirst;
    the mean divides dy by what counts
    """
    first, second, targets = res
    dfirst = jnp.where(margin - targets * (first - second) <= 0, 0, -targets * dy)
    return dfirst, -dfirst, None


@loss(
    _margin_ranking_backward,
    cases=cases.MARGIN_RANKING,
    check=alike("first", "second", "targets"),
    signs=("targets",),
    nodiff=("targets",),
)
def margin_ranking(
    first: Array,
    second: Array,
    targets: Array,
    where: Array | None = None,
    *,
    margin: float = 0.0,
    reduction: str = "mean",
) -> Array:
    """max(0, m − t (first − second)), elementwise; at the kink the gradient is 0.

    Args:
        first: Scores, of any shape.
        second: Scores, of the same shape.
        targets: t, of the same shape, constants: 1 where the first is to be the higher, else −1.
        where: Boolean, of the same shape: which elements count; None for all.
        margin: m, the difference from which a right order costs nothing.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or the shape of the scores for "none", in the dtype of the first.

    Raises:
        TypeError: If the first scores are not floating or `where` is not boolean.
        ValueError: If the shapes differ, `reduction` is unknown, or a concrete target neither −1
            nor 1.

    >>> low, high = jnp.array([1.0, 1.0]), jnp.array([3.0, 3.0])
    >>> margin_ranking(low, high, jnp.array([1, -1]), reduction="none").tolist()
    [2.0, 0.0]

    Reference: Joachims, "Optimizing Search Engines Using Clickthrough Data", 2002, section 4.
    """
    return _above_zero(margin - targets * (first - second))


def _length(d: Array) -> Array:
    squared = sum_over(jnp.square(d), -1)
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), squared * 0)


def _direction(d: Array) -> Array:
    length = _length(d)[..., None]
    return jnp.where(length > 0, d / jnp.where(length > 0, length, 1), 0)


def _triplet_margin_backward(res, dy, *, margin):
    """With u = (a − p) / ‖a − p‖ and v = (a − n) / ‖a − n‖, each 0 where its length is:
    da = (u − v) dy;  dp = −u dy;  dn = v dy  where the loss is above 0, else 0;
    the mean divides dy by the rows that count
    """
    anchor, positive, negative = res
    near, far = anchor - positive, anchor - negative
    gap = _length(near) - _length(far) + margin
    dy = jnp.where(gap[..., None] <= 0, 0, dy)
    u, v = _direction(near) * dy, _direction(far) * dy
    return u - v, -u, v


@loss(
    _triplet_margin_backward,
    cases=cases.TRIPLET_MARGIN,
    check=alike("anchor", "positive", "negative", rows=True),
    rows=True,
)
def triplet_margin(
    anchor: Array,
    positive: Array,
    negative: Array,
    where: Array | None = None,
    *,
    margin: float = 1.0,
    reduction: str = "mean",
) -> Array:
    """max(0, ‖a − p‖ − ‖a − n‖ + m) of each row: its like is to be nearer than another by m.

    The lengths are Euclidean, over the last axis, and not squared; at length 0 and at the kink the
    gradient is 0. PyTorch adds 1e-6 to every difference, which this does not.

    Args:
        anchor: a, embeddings `(..., features)`.
        positive: p, of the same shape: what is like the anchor.
        negative: n, of the same shape: what is not.
        where: Boolean `(...)`: which rows count; None for all.
        margin: m.
        reduction: "mean" over the rows, "sum" or "none".

    Returns:
        A scalar, or `(...)` for "none", in the dtype of the anchor.

    Raises:
        TypeError: If the anchor is not floating or `where` is not boolean.
        ValueError: If the shapes differ or have no axis, or `reduction` is unknown.

    >>> a, p, n = jnp.zeros((1, 2)), jnp.array([[3.0, 4.0]]), jnp.array([[0.0, 2.0]])
    >>> float(triplet_margin(a, p, n))
    4.0

    Reference: Balntas et al., "Learning Local Feature Descriptors with Triplets and Shallow
        Convolutional Neural Networks", 2016.
    """
    return _above_zero(_length(anchor - positive) - _length(anchor - negative) + margin)


def _gaps(scores: Array, labels: Array, weights: Array | None, margin: float) -> tuple:
    """m − s_y + s_c of each class, 0 for the label's own; and what each label weighs."""
    safe, w_y = label_weights(labels, class_weights(scores, weights), None)
    own = jnp.take_along_axis(scores, safe[..., None], -1)
    is_label = safe[..., None] == jnp.arange(scores.shape[-1])
    return jnp.where(is_label, 0, margin - own + scores), is_label, w_y


def _multi_margin(scores, labels, weights, where, *, p, margin, reduction):
    check_labels("multi_margin", scores, labels, where, None)
    scores = masked(scores, None if where is None else where[..., None])
    gaps, _, w_y = _gaps(scores, labels, weights, margin)
    losses = masked(w_y * (_above_zero(gaps) ** p).mean(-1), where)
    return reduce(losses, count_of(where, losses.shape), reduction)


def _multi_margin_forward(scores, labels, weights, where, *, p, margin, reduction):
    given = scores, labels, weights, where
    return _multi_margin(*given, p=p, margin=margin, reduction=reduction), given


def _multi_margin_backward(res, dy, *, p, margin, reduction):
    """With g_c = m − s_y + s_c and h_c = w_y / K · p g_c^(p − 1) where g_c > 0, else 0:
    ds_c = h_c dy of another class, ds_y = −Σ h_c dy;  the mean divides dy by what counts
    """
    scores, labels, weights, where = res
    gaps, is_label, w_y = _gaps(scores, labels, weights, margin)
    shape = scores.shape[:-1]
    dy = jnp.broadcast_to(each(dy, count_of(where, shape), reduction), shape)
    slopes = jnp.where(gaps <= 0, 0, 1 if p == 1 else 2 * gaps)
    slopes = jnp.where(is_label, -slopes.sum(-1, keepdims=True), slopes)
    slopes = slopes * (w_y * dy)[..., None] / max(scores.shape[-1], 1)
    return masked(slopes, None if where is None else where[..., None]), None, None, None


@rule(
    _multi_margin_forward,
    _multi_margin_backward,
    nodiff=("weights",),
    cases=cases.MULTI_MARGIN,
    check=scored,
    wide=True,
    count=mean_over,
)
def multi_margin(
    scores: Array,
    labels: Array,
    weights: Array | None = None,
    where: Array | None = None,
    *,
    p: int = 1,
    margin: float = 1.0,
    reduction: str = "mean",
) -> Array:
    """w_y / K Σ max(0, m − s_y + s_c)^p over the classes c other than y: the multi-class hinge.

    At the kink the gradient is 0. The mean divides by the number of examples whatever they weigh,
    as in PyTorch.

    Args:
        scores: s, `(..., K)`.
        labels: y, classes, integers `(...)`.
        weights: Class weights `(K,)`, constants; None for ones.
        where: Boolean `(...)`: which examples count; None for all.
        p: 1, or 2 for squares.
        margin: m, by how much the label's score is to be above every other.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or `(...)` for "none", in the dtype of the scores. Traced labels out of range
        give NaN, since a compiled program cannot raise.

    Raises:
        TypeError: If the scores are not floating or `where` is not boolean.
        ValueError: If a shape or dtype does not fit, or an option or a concrete label is out of
            range.

    >>> scores = jnp.array([[0.1, 0.2, 0.4, 0.8]])
    >>> print(f"{multi_margin(scores, jnp.array([3])):.4f}")  # (0.3 + 0.4 + 0.6) / 4
    0.3250

    Reference: Weston & Watkins, "Support Vector Machines for Multi-Class Pattern Recognition",
        1999. Crammer & Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector
        Machines", 2001, take the largest part in place of the sum.
    """
    weights = None if weights is None else jax.lax.stop_gradient(weights)
    return _multi_margin(scores, labels, weights, where, p=p, margin=margin, reduction=reduction)
