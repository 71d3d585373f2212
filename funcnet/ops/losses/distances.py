"""Losses: what a network's output is held against, one op each.

Every loss takes `reduction="mean"`, `"sum"` or `"none"` and a boolean mask `where`. The mean is
over what counts; a mean over nothing is 0, with gradient 0. Places that do not count may hold
anything, NaN included. The loss has the dtype of the network's output: bfloat16 and float16 are
computed in float32 and rounded once, at the end.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.random import Generator

from ...rules.rule import Case, rule
from ...types import Array, require
from ..shared.precision import wide
from .cross_entropy import cross_entropy as cross_entropy
from .reduction import check_range, check_reduction, count_of, each, masked, mean_over, reduce


def _check_binary(
    logits: Array, targets: Array, where: Array | None, pos_weight: Array | None, reduction: str
) -> None:
    op, shape = "binary_cross_entropy", jnp.shape(logits)
    require(
        jnp.issubdtype(jnp.result_type(logits), jnp.floating),
        op,
        "floating logits",
        f"{jnp.result_type(logits)}",
        "The logits come first, before any sigmoid; the targets come second.",
        TypeError,
    )
    require(
        jnp.shape(targets) == shape,
        op,
        f"targets of the logits' shape {shape}",
        f"shape {jnp.shape(targets)}",
        "Reshape one of them, for instance targets[:, None]; nothing is broadcast.",
    )
    sizes = () if pos_weight is None else jnp.shape(pos_weight)
    fits = zip(sizes[::-1], shape[::-1], strict=False)
    require(
        len(sizes) <= len(shape) and all(n in (1, m) for n, m in fits),
        op,
        f"pos_weight that broadcasts to the logits' shape {shape}",
        f"shape {sizes}",
        "Pass one number, or one for each output on the last axis.",
    )
    check_reduction(op, where, shape, reduction)
    check_range(op, "targets", targets, where, 0, 1)


def _binary_operands(
    logits: Array, targets: Array, where: Array | None, pos_weight: Array | None
) -> tuple[Array, Array, Array]:
    """z, t and the weight of t, wide; 0 where the mask says no."""
    dtype = wide(logits)
    z, t = (masked(jnp.asarray(x, dtype), where) for x in (logits, targets))
    w = jnp.ones((), dtype) if pos_weight is None else jnp.asarray(pos_weight, dtype)
    return z, t, jax.lax.stop_gradient(w)


def _binary_cross_entropy_forward(
    logits: Array,
    targets: Array,
    where: Array | None,
    pos_weight: Array | None,
    *,
    reduction: str,
) -> tuple[Array, tuple]:
    _check_binary(logits, targets, where, pos_weight, reduction)
    z, t, w = _binary_operands(logits, targets, where, pos_weight)
    tail = jnp.log1p(jnp.exp(-jnp.abs(z)))
    losses = w * t * (jnp.maximum(-z, 0) + tail) + (1 - t) * (jnp.maximum(z, 0) + tail)
    loss = reduce(masked(losses, where), count_of(where, z.shape, z.dtype), reduction)
    return loss.astype(logits.dtype), (logits, targets, where, pos_weight)


def _binary_cross_entropy_backward(
    res: tuple, dy: Array, *, reduction: str
) -> tuple[Array, Array, None, None]:
    """dz = ((1 - t) σ(z) - w t σ(-z)) dy, which is (a - t) dy for w = 1;
    dt = (w ln(1 + e⁻ᶻ) - ln(1 + eᶻ)) dy, which is -z dy for w = 1;  the mean divides dy
    """
    logits, targets, where, pos_weight = res
    z, t, w = _binary_operands(logits, targets, where, pos_weight)
    dy = each(dy.astype(z.dtype), count_of(where, z.shape, z.dtype), reduction)
    dy = masked(jnp.broadcast_to(dy, z.shape), where)
    # Two sigmoids: 1 less the first has no digits left where the first is near 1.
    dz = ((1 - t) * jax.nn.sigmoid(z) - w * t * jax.nn.sigmoid(-z)) * dy
    weighed = w * jax.nn.softplus(-z) - jax.nn.softplus(z)
    return dz, (-z if pos_weight is None else weighed) * dy, None, None


def _binary(
    *shape: int, weight: tuple | None = None, mask: bool = False
) -> Callable[[Generator], tuple]:
    def make(random: Generator) -> tuple:
        w = None if weight is None else random.uniform(0.5, 3.0, weight)
        where = (random.random(shape) < 0.6) if mask else None
        return random.standard_normal(shape), random.random(shape), where, w

    return make


@rule(
    _binary_cross_entropy_forward,
    _binary_cross_entropy_backward,
    nodiff=("pos_weight",),
    count=mean_over,
    cases={
        "mean": Case(_binary(6)),
        "sum": Case(_binary(4, 3), {"reduction": "sum"}),
        "none": Case(_binary(4, 3), {"reduction": "none"}),
        "one number": Case(_binary()),
        "one weight": Case(_binary(4, 3, weight=())),
        "weights, where": Case(_binary(4, 3, weight=(3,), mask=True)),
        "no examples": Case(_binary(0, 3)),
    },
)
def binary_cross_entropy(
    logits: Array,
    targets: Array,
    where: Array | None = None,
    pos_weight: Array | None = None,
    *,
    reduction: str = "mean",
) -> Array:
    """-(w t ln σ(z) + (1 - t) ln(1 - σ(z))), elementwise, from the logits z.

    Args:
        logits: z, of any shape, before any sigmoid.
        targets: t from 0 to 1, of the same shape.
        where: Boolean, of the same shape: which elements count; None for all.
        pos_weight: w, broadcastable to the logits: the weight of the positive part, a constant;
            None for 1.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or the logits' shape for "none", in their dtype; see the module `loss`.

    Raises:
        TypeError: If the logits are not floating or `where` is not boolean.
        ValueError: If a shape does not fit, or `reduction` or a concrete target is out of range.

    >>> print(f"{binary_cross_entropy(jnp.zeros(2), jnp.array([0.0, 1.0])):.4f}")  # ln 2
    0.6931

    Reference: Bishop, "Pattern Recognition and Machine Learning", 2006, equations 4.90 and 4.91.
    """
    _check_binary(logits, targets, where, pos_weight, reduction)
    z, t, w = _binary_operands(logits, targets, where, pos_weight)
    losses = -(w * t * jax.nn.log_sigmoid(z) + (1 - t) * jax.nn.log_sigmoid(-z))
    count = count_of(where, z.shape, z.dtype)
    return reduce(masked(losses, where), count, reduction).astype(logits.dtype)


def _difference(
    op: str, predictions: Array, targets: Array, where: Array | None, reduction: str
) -> Array:
    """predictions - targets, wide; 0 where the mask says no, and there these losses have slope 0.

    The shapes must be equal before the subtraction: (n,) less (n, 1) is a matrix.
    """
    shape = jnp.shape(predictions)
    require(
        jnp.issubdtype(jnp.result_type(predictions), jnp.floating),
        op,
        "floating predictions",
        f"{jnp.result_type(predictions)}",
        "The predictions come first, the targets second.",
        TypeError,
    )
    require(
        jnp.shape(targets) == shape,
        op,
        f"targets of the predictions' shape {shape}",
        f"shape {jnp.shape(targets)}",
        "Reshape one of them, for instance targets[:, None]; nothing is broadcast.",
    )
    check_reduction(op, where, shape, reduction)
    dtype = wide(predictions)
    return masked(jnp.asarray(predictions, dtype) - jnp.asarray(targets, dtype), where)


def _reduced(losses: Array, where: Array | None, reduction: str, dtype: Any) -> Array:
    count = count_of(where, losses.shape, losses.dtype)
    return reduce(losses, count, reduction).astype(dtype)


def _slope_operands(op: str, res: tuple, dy: Array, reduction: str) -> tuple[Array, Array]:
    """d = predictions - targets, and the cotangent of each element's loss."""
    predictions, targets, where = res
    d = _difference(op, predictions, targets, where, reduction)
    return d, each(dy.astype(d.dtype), count_of(where, d.shape, d.dtype), reduction)


def _pair(*shape: int, mask: bool = False) -> Callable[[Generator], tuple]:
    def make(random: Generator) -> tuple:
        where = (random.random(shape) < 0.6) if mask else None
        return random.standard_normal(shape), random.standard_normal(shape), where

    return make


def _tie(random: Generator) -> tuple:
    predictions, targets, _ = _pair(4)(random)
    targets[1] = predictions[1]
    return predictions, targets, None


_CASES = {
    "mean": Case(_pair(6)),
    "sum": Case(_pair(4, 3), {"reduction": "sum"}),
    "none": Case(_pair(4, 3), {"reduction": "none"}),
    "one number": Case(_pair()),
    "where": Case(_pair(4, 3, mask=True)),
    "where, none": Case(_pair(9, mask=True), {"reduction": "none"}),
    "equal": Case(_tie),
    "no examples": Case(_pair(0, 3)),
}


def _squared_error(
    predictions: Array, targets: Array, where: Array | None, *, reduction: str
) -> Array:
    d = _difference("squared_error", predictions, targets, where, reduction)
    return _reduced(d * d, where, reduction, predictions.dtype)


def _squared_error_forward(
    predictions: Array, targets: Array, where: Array | None, *, reduction: str
) -> tuple[Array, tuple]:
    loss = _squared_error(predictions, targets, where, reduction=reduction)
    return loss, (predictions, targets, where)


def _squared_error_backward(res: tuple, dy: Array, *, reduction: str) -> tuple[Array, Array, None]:
    """With d = predictions - targets: dpredictions = 2 d dy;  dtargets = -dpredictions;
    the mean divides dy by what counts
    """
    d, dy = _slope_operands("squared_error", res, dy, reduction)
    return 2 * d * dy, -2 * d * dy, None


@rule(_squared_error_forward, _squared_error_backward, cases=_CASES, count=mean_over)
def squared_error(
    predictions: Array, targets: Array, where: Array | None = None, *, reduction: str = "mean"
) -> Array:
    """(predictions - targets)², elementwise, without a factor 1/2.

    Args:
        predictions: Of any shape.
        targets: Of the same shape: nothing is broadcast. They get a gradient.
        where: Boolean, of the same shape: which elements count; None for all.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or the predictions' shape for "none", in their dtype.

    Raises:
        TypeError: If the predictions are not floating or `where` is not boolean.
        ValueError: If the shapes differ, or `reduction` is none of the three.

    >>> float(squared_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
    2.0

    Reference: Bishop, "Pattern Recognition and Machine Learning", 2006, equation 5.14, twice.
    """
    return _squared_error(predictions, targets, where, reduction=reduction)


def _absolute_error_forward(
    predictions: Array, targets: Array, where: Array | None, *, reduction: str
) -> tuple[Array, tuple]:
    d = _difference("absolute_error", predictions, targets, where, reduction)
    loss = _reduced(jnp.abs(d), where, reduction, predictions.dtype)
    return loss, (predictions, targets, where)


def _absolute_error_backward(res: tuple, dy: Array, *, reduction: str) -> tuple[Array, Array, None]:
    """With d = predictions - targets: dpredictions = sign(d) dy, 0 at d = 0;
    dtargets = -dpredictions;  the mean divides dy by what counts
    """
    d, dy = _slope_operands("absolute_error", res, dy, reduction)
    return jnp.sign(d) * dy, -jnp.sign(d) * dy, None


@rule(_absolute_error_forward, _absolute_error_backward, cases=_CASES, count=mean_over)
def absolute_error(
    predictions: Array, targets: Array, where: Array | None = None, *, reduction: str = "mean"
) -> Array:
    """|predictions - targets|, elementwise; where they are equal, the gradient is 0.

    Args:
        predictions: Of any shape.
        targets: Of the same shape: nothing is broadcast. They get a gradient.
        where: Boolean, of the same shape: which elements count; None for all.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or the predictions' shape for "none", in their dtype.

    Raises:
        TypeError: If the predictions are not floating or `where` is not boolean.
        ValueError: If the shapes differ, or `reduction` is none of the three.

    >>> float(absolute_error(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0])))
    1.0

    Reference: Bishop, "Pattern Recognition and Machine Learning", 2006, equation 1.91 with q = 1.
    """
    d = _difference("absolute_error", predictions, targets, where, reduction)
    absolute = jnp.where(d > 0, d, jnp.where(d < 0, -d, d * 0))
    return _reduced(absolute, where, reduction, predictions.dtype)


def _check_delta(delta: float) -> None:
    require(
        delta > 0,
        "huber",
        "delta above 0",
        delta,
        "It is the error at which the parabola becomes a line.",
    )


def _huber_forward(
    predictions: Array, targets: Array, where: Array | None, *, delta: float, reduction: str
) -> tuple[Array, tuple]:
    _check_delta(delta)
    d = _difference("huber", predictions, targets, where, reduction)
    near = jnp.minimum(jnp.abs(d), delta)
    loss = _reduced(near * (jnp.abs(d) - near / 2), where, reduction, predictions.dtype)
    return loss, (predictions, targets, where)


def _huber_backward(
    res: tuple, dy: Array, *, delta: float, reduction: str
) -> tuple[Array, Array, None]:
    """With d = predictions - targets: dpredictions = clip(d, -δ, δ) dy;
    dtargets = -dpredictions;  the mean divides dy by what counts
    """
    d, dy = _slope_operands("huber", res, dy, reduction)
    dpredictions = jnp.clip(d, -delta, delta) * dy
    return dpredictions, -dpredictions, None


@rule(
    _huber_forward,
    _huber_backward,
    count=mean_over,
    cases=_CASES
    | {
        "narrow": Case(_pair(9), {"delta": 0.1}),
        "wide": Case(_pair(9), {"delta": 3.0}),
        "infinite": Case(lambda random: (np.array([np.inf, -np.inf, 1.0]), np.zeros(3), None)),
    },
)
def huber(
    predictions: Array,
    targets: Array,
    where: Array | None = None,
    *,
    delta: float = 1.0,
    reduction: str = "mean",
) -> Array:
    """d²/2 where |d| ≤ δ, else δ (|d| - δ/2), elementwise, for d = predictions - targets.

    Args:
        predictions: Of any shape.
        targets: Of the same shape: nothing is broadcast. They get a gradient.
        where: Boolean, of the same shape: which elements count; None for all.
        delta: δ, the greatest slope.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or the predictions' shape for "none", in their dtype.

    Raises:
        TypeError: If the predictions are not floating or `where` is not boolean.
        ValueError: If the shapes differ, `delta` is not above 0, or `reduction` is unknown.

    >>> huber(jnp.array([0.5, 3.0]), jnp.zeros(2), reduction="none").tolist()
    [0.125, 2.5]

    Reference: Huber, "Robust Estimation of a Location Parameter", 1964, section 4.
    """
    _check_delta(delta)
    d = _difference("huber", predictions, targets, where, reduction)
    near = jnp.abs(d) <= delta
    parabola = jnp.square(jnp.where(near, d, 0)) / 2
    losses = jnp.where(near, parabola, delta * (jnp.abs(d) - delta / 2))
    return _reduced(losses, where, reduction, predictions.dtype)
