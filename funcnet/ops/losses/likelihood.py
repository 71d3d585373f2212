"""Negative log-likelihoods of a class, a coin and a Gaussian, in nats.

As in the module `loss`: `reduction` is "mean", "sum" or "none", a mean over nothing is 0, places
that `where` leaves out may hold anything, and 16-bit inputs are computed in float32.
"""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.random import Generator

from ...rules.rule import Case, rule
from ...types import Array, require
from ..fast.rows import sum_over
from ..shared.precision import floating, wide
from .cross_entropy import class_weights, counts_of, label_weights, mean_over_labels
from .reduction import check_range, check_reduction, count_of, each, masked, mean_over, reduce

LOG_CAP = 100.0
"""The most that -ln p of a probability counts for, as in PyTorch's BCELoss."""

LEAST = math.exp(-LOG_CAP)


def _check_nll(
    log_probs: Array, labels: Array, weights: Array | None, where: Array | None, reduction: str
) -> None:
    shape = jnp.shape(floating("nll", log_probs, "log_probs"))
    require(
        shape and shape[-1],
        "nll",
        "log-probabilities of shape (..., classes)",
        f"shape {shape}",
        "They come first, as log_softmax gives them; the labels come second.",
    )
    require(
        jnp.shape(labels) == shape[:-1] and jnp.issubdtype(jnp.result_type(labels), jnp.integer),
        "nll",
        f"integer labels of shape {shape[:-1]}, one class for each example",
        f"{jnp.result_type(labels)} of shape {jnp.shape(labels)}",
        "For soft labels use kl_divergence.",
    )
    require(
        weights is None or jnp.shape(weights) == shape[-1:],
        "nll",
        f"weights of shape {shape[-1:]}, one for each class",
        f"shape {weights is not None and jnp.shape(weights)}",
        "To leave out examples, use where.",
    )
    check_reduction("nll", where, shape[:-1], reduction)


def _nll(
    log_probs: Array,
    labels: Array,
    weights: Array | None,
    where: Array | None,
    *,
    ignore_index: int | None,
    reduction: str,
) -> Array:
    _check_nll(log_probs, labels, weights, where, reduction)
    dtype, counts = wide(log_probs), counts_of(labels, where, ignore_index)
    w = class_weights(log_probs, weights, dtype)
    check_range("nll", "labels", labels, counts, 0, w.size - 1)
    safe, w_y = label_weights(labels, w, counts)
    of_label = jnp.take_along_axis(log_probs.astype(dtype), safe[..., None], axis=-1)[..., 0]
    losses = -w_y * masked(of_label, w_y != 0)
    return reduce(losses, sum_over(w_y), reduction).astype(log_probs.dtype)


def _nll_forward(
    log_probs: Array,
    labels: Array,
    weights: Array | None,
    where: Array | None,
    *,
    ignore_index: int | None,
    reduction: str,
) -> tuple[Array, tuple]:
    options: Any = {"ignore_index": ignore_index, "reduction": reduction}
    loss = _nll(log_probs, labels, weights, where, **options)
    return loss, (log_probs, labels, weights, where)


def _nll_backward(
    res: tuple, dy: Array, *, ignore_index: int | None, reduction: str
) -> tuple[Array, None, None, None]:
    """dlog_probs = -w_y dy at the label, 0 elsewhere;  the mean divides dy by Σ w_y"""
    log_probs, labels, weights, where = res
    dtype, counts = wide(log_probs), counts_of(labels, where, ignore_index)
    w = class_weights(log_probs, weights, dtype)
    safe, w_y = label_weights(labels, w, counts)
    slope = -w_y * masked(each(dy.astype(dtype), sum_over(w_y), reduction), w_y != 0)
    at_label = safe[..., None] == jnp.arange(w.size)
    return jnp.where(at_label, slope[..., None], 0), None, None, None


def _classes(
    *examples: int, weighted: bool = False, mask: bool = False
) -> Callable[[Generator], tuple]:
    def make(random: Generator) -> tuple:
        log_probs = np.log(random.dirichlet(np.ones(5), examples))
        weights = random.uniform(0.5, 2.0, (5,)) if weighted else None
        where = (random.random(examples) < 0.6) if mask else None
        return log_probs, random.integers(0, 5, examples), weights, where

    return make


@rule(
    _nll_forward,
    _nll_backward,
    nodiff=("weights",),
    count=mean_over_labels,
    cases={
        "mean": Case(_classes(6)),
        "sum": Case(_classes(2, 3), {"reduction": "sum"}),
        "every option": Case(_classes(9, weighted=True, mask=True), {"ignore_index": 2}),
        "none": Case(_classes(6, mask=True), {"reduction": "none"}),
        "no examples": Case(_classes(0)),
    },
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


def wide_operands(
    op: str,
    names: tuple[str, ...],
    arrays: tuple[Array, ...],
    where: Array | None,
    reduction: str,
    by_row: bool = False,
) -> tuple[Array, ...]:
    """The arrays in float32 or wider, all of the first one's shape, 0 where they do not count."""
    shape = jnp.shape(floating(op, arrays[0], names[0]))
    for name, array in zip(names[1:], arrays[1:], strict=True):
        require(
            jnp.shape(array) == shape,
            op,
            f"{name} of shape {shape}, as {names[0]} has",
            f"shape {jnp.shape(array)}",
            "Broadcast it first: jnp.broadcast_to(array, shape).",
        )
    require(
        not by_row or shape,
        op,
        f"{names[0]} of rank 1 or more (..., outcomes)",
        f"shape {shape}",
        "The last axis is summed over.",
    )
    check_reduction(op, where, shape[:-1] if by_row else shape, reduction)
    counts = None if where is None else where[..., None] if by_row else where
    return tuple(masked(jnp.asarray(x, wide(arrays[0])), counts) for x in arrays)


def reduced(losses: Array, where: Array | None, reduction: str, like: Array) -> Array:
    """The losses that count, reduced, in the dtype of `like`."""
    losses = masked(losses, where)
    count = count_of(where, losses.shape, losses.dtype)
    return reduce(losses, count, reduction).astype(like.dtype)


def of_each(dy: Array, losses: Array, where: Array | None, reduction: str) -> Array:
    """The cotangent of each loss, which has the shape of `losses`; 0 where it does not count."""
    dy = each(dy.astype(losses.dtype), count_of(where, losses.shape, losses.dtype), reduction)
    return masked(jnp.broadcast_to(dy, losses.shape), where)


def normals(
    *shape: int, arrays: int = 2, mask: tuple[int, ...] | None = None
) -> Callable[[Generator], tuple]:
    """Draws this many normal arrays, and a mask of the shape `mask` or None."""

    def make(random: Generator) -> tuple:
        where = None if mask is None else (random.random(mask) < 0.6)
        return *(random.standard_normal(shape) for _ in range(arrays)), where

    return make


_GAUSSIAN_NLL = "gaussian_nll", ("mean", "log_var", "target")


def _gaussian_nll(
    mean: Array, log_var: Array, target: Array, where: Array | None, *, full: bool, reduction: str
) -> Array:
    m, s, t = wide_operands(*_GAUSSIAN_NLL, (mean, log_var, target), where, reduction)
    constant = math.log(2 * math.pi) if full else 0
    # The root of the precision: its square leaves float32 twice as soon.
    losses = (s + jnp.square((t - m) * jnp.exp(-s / 2)) + constant) / 2
    return reduced(losses, where, reduction, mean)


def _gaussian_nll_forward(
    mean: Array, log_var: Array, target: Array, where: Array | None, *, full: bool, reduction: str
) -> tuple[Array, tuple]:
    loss = _gaussian_nll(mean, log_var, target, where, full=full, reduction=reduction)
    return loss, (mean, log_var, target, where)


def _gaussian_nll_backward(
    res: tuple, dy: Array, *, reduction: str
) -> tuple[Array, Array, Array, None]:
    """With d = target - mean and v = exp(log_var): dmean = -d / v dy;  dtarget = d / v dy;
    dlog_var = ½ (1 - d² / v) dy;  the mean divides dy by what counts
    """
    mean, log_var, target, where = res
    m, s, t = wide_operands(*_GAUSSIAN_NLL, (mean, log_var, target), where, reduction)
    root, dy = jnp.exp(-s / 2), of_each(dy, m, where, reduction)
    error = (t - m) * root
    slope = error * root * dy
    return -slope, (1 - jnp.square(error)) / 2 * dy, slope, None


@rule(
    _gaussian_nll_forward,
    _gaussian_nll_backward,
    count=mean_over,
    cases={
        "mean": Case(normals(6, arrays=3)),
        "sum, full": Case(normals(4, 3, arrays=3), {"reduction": "sum", "full": True}),
        "where, none": Case(normals(9, arrays=3, mask=(9,)), {"reduction": "none"}),
        "no examples": Case(normals(0, 3, arrays=3)),
    },
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
    return _gaussian_nll(mean, log_var, target, where, full=full, reduction=reduction)


_BERNOULLI = "bernoulli_nll", ("probs", "targets")


def _bernoulli_operands(
    probs: Array, targets: Array, where: Array | None, reduction: str
) -> tuple[Array, Array]:
    p, t = wide_operands(*_BERNOULLI, (probs, targets), where, reduction)
    check_range("bernoulli_nll", "probs", p, None, 0, 1)
    check_range("bernoulli_nll", "targets", t, None, 0, 1)
    return p, t


def _capped_log(p: Array) -> Array:
    return jnp.where(p > LEAST, jnp.log(jnp.where(p > LEAST, p, 1)), -LOG_CAP)


def _bernoulli_nll(
    probs: Array, targets: Array, where: Array | None = None, *, reduction: str = "mean"
) -> Array:
    p, t = _bernoulli_operands(probs, targets, where, reduction)
    losses = -(t * _capped_log(p) + (1 - t) * _capped_log(1 - p))
    return reduced(losses, where, reduction, probs)


def _bernoulli_nll_forward(
    probs: Array, targets: Array, where: Array | None, *, reduction: str
) -> tuple[Array, tuple]:
    loss = _bernoulli_nll(probs, targets, where, reduction=reduction)
    return loss, (probs, targets, where)


def _bernoulli_nll_backward(res: tuple, dy: Array, *, reduction: str) -> tuple[Array, Array, None]:
    """dprobs = ((1 - t) / (1 - p) - t / p) dy, without the part whose logarithm is capped;
    dtargets = (ln(1 - p) - ln p) dy;  the mean divides dy by what counts
    """
    probs, targets, where = res
    p, t = _bernoulli_operands(probs, targets, where, reduction)
    dy = of_each(dy, p, where, reduction)
    up, down = (jnp.where(x > LEAST, 1 / jnp.where(x > LEAST, x, 1), 0) for x in (p, 1 - p))
    return ((1 - t) * down - t * up) * dy, (_capped_log(1 - p) - _capped_log(p)) * dy, None


def _coins(*shape: int, mask: bool = False) -> Callable[[Generator], tuple]:
    def make(random: Generator) -> tuple:
        where = (random.random(shape) < 0.6) if mask else None
        probs = random.uniform(0.1, 0.9, shape)
        return probs, random.random(shape), where

    return make


def _certain(random: Generator) -> tuple:
    return np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 0.5, 0.5, 1.0]), None


@rule(
    _bernoulli_nll_forward,
    _bernoulli_nll_backward,
    count=mean_over,
    cases={
        "mean": Case(_coins(6)),
        "sum": Case(_coins(4, 3), {"reduction": "sum"}),
        "where, none": Case(_coins(9, mask=True), {"reduction": "none"}),
        "0 and 1": Case(_certain),
        "no examples": Case(_coins(0, 3)),
    },
)
def bernoulli_nll(
    probs: Array, targets: Array, where: Array | None = None, *, reduction: str = "mean"
) -> Array:
    """-(t ln p + (1 - t) ln(1 - p)), elementwise: binary cross-entropy from probabilities.

    From logits `binary_cross_entropy` gives the same, and is right also where a probability rounds
    to 0 or 1; here a logarithm counts for 100 at most, as in PyTorch's BCELoss, and a capped one
    has gradient 0.

    Args:
        probs: p from 0 to 1, of any shape.
        targets: t from 0 to 1, of the same shape. They get a gradient.
        where: Boolean, of the same shape: which elements count; None for all.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or the shape of the probabilities for "none", in their dtype.

    Raises:
        TypeError: If the probabilities are not floating or `where` is not boolean.
        ValueError: If the shapes differ, or `reduction` or a concrete number is out of range.

    >>> print(f"{bernoulli_nll(jnp.array([0.5, 1.0]), jnp.array([1.0, 1.0])):.4f}")  # ½ ln 2
    0.3466

    Reference: Bishop, "Pattern Recognition and Machine Learning", 2006, equation 4.90.
    """
    return _bernoulli_nll(probs, targets, where, reduction=reduction)
