"""Losses element by element: distances from a target, and the cross-entropy of two classes."""

import jax
import jax.numpy as jnp

from ...types import Array
from . import cases
from .checks import bent, binary, focused
from .loss import distance, loss


def _squared_error_slope(d):
    """With d = predictions − targets: dpredictions = 2 d dy;  dtargets = −dpredictions;
    the mean divides dy by what counts
    """
    return 2 * d


@distance(_squared_error_slope, cases=cases.DISTANCE)
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
    return jnp.square(predictions - targets)


def _absolute_error_slope(d):
    """With d = predictions − targets: dpredictions = sign(d) dy, 0 at d = 0;
    dtargets = −dpredictions;  the mean divides dy by what counts
    """
    return jnp.sign(d)


@distance(_absolute_error_slope, forward=jnp.abs, cases=cases.DISTANCE)
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
    d = predictions - targets
    return jnp.where(d > 0, d, jnp.where(d < 0, -d, d * 0))


def _parabola_between_lines(d: Array, delta: float) -> Array:
    near = jnp.abs(d) < delta
    parabola = jnp.square(jnp.where(near, d, 0)) / 2
    return jnp.where(near, parabola, delta * (jnp.abs(d) - delta / 2))


def _clamped(d: Array, most: float) -> Array:
    """d between −most and most; at the ends its slope is 0, that of the line beyond."""
    return jax.lax.clamp(d.dtype.type(-most), d, d.dtype.type(most))


def _huber_forward(d, *, delta):
    size = jnp.abs(d)
    near = jnp.minimum(size, delta)
    return near * (size - near / 2)


def _huber_slope(d, *, delta):
    """With d = predictions − targets: dpredictions = clip(d, −δ, δ) dy;
    dtargets = −dpredictions;  the mean divides dy by what counts
    """
    return _clamped(d, delta)


@distance(
    _huber_slope,
    forward=_huber_forward,
    cases=cases.HUBER,
    check=bent("delta", "It is the error at which the parabola becomes a line."),
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
    return _parabola_between_lines(predictions - targets, delta)


def _smooth_l1_forward(d, *, beta):
    return _huber_forward(d, delta=beta) / beta


def _smooth_l1_slope(d, *, beta):
    """With d = predictions − targets: dpredictions = clip(d / β, −1, 1) dy;
    dtargets = −dpredictions;  the mean divides dy by what counts
    """
    return _clamped(d / beta, 1)


@distance(
    _smooth_l1_slope,
    forward=_smooth_l1_forward,
    cases=cases.SMOOTH_L1,
    check=bent(
        "beta",
        "It is the error at which the parabola becomes a line; absolute_error is the limit at 0.",
    ),
)
def smooth_l1(
    predictions: Array,
    targets: Array,
    where: Array | None = None,
    *,
    beta: float = 1.0,
    reduction: str = "mean",
) -> Array:
    """d² / (2 β) where |d| ≤ β, else |d| - β/2, elementwise, for d = predictions - targets.

    It is `huber` with δ = β, divided by β: of slope 1 far from 0, whatever β is.

    Args:
        predictions: Of any shape.
        targets: Of the same shape: nothing is broadcast. They get a gradient.
        where: Boolean, of the same shape: which elements count; None for all.
        beta: β, the error at which the parabola becomes a line.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or the predictions' shape for "none", in their dtype.

    Raises:
        TypeError: If the predictions are not floating or `where` is not boolean.
        ValueError: If the shapes differ, `beta` is not above 0, or `reduction` is unknown.

    >>> smooth_l1(jnp.array([1.0, 5.0]), jnp.zeros(2), beta=2.0, reduction="none").tolist()
    [0.25, 4.0]

    Reference: Girshick, "Fast R-CNN", 2015, equation 3.
    """
    return _parabola_between_lines(predictions - targets, beta) / beta


def _binary_cross_entropy_forward(logits, targets, pos_weight):
    tail = jnp.log1p(jnp.exp(-jnp.abs(logits)))
    positive, negative = jnp.maximum(-logits, 0) + tail, jnp.maximum(logits, 0) + tail
    weight = targets if pos_weight is None else pos_weight * targets
    return weight * positive + (1 - targets) * negative


def _binary_cross_entropy_backward(res, dy):
    """dz = ((1 − t) σ(z) − w t σ(−z)) dy, which is (a − t) dy for w = 1;
    dt = (w ln(1 + e⁻ᶻ) − ln(1 + eᶻ)) dy, which is −z dy for w = 1;  the mean divides dy
    """
    z, t, w = res
    # Two sigmoids: 1 less the first has no digits left where the first is near 1.
    weight = t if w is None else w * t
    dz = (1 - t) * jax.nn.sigmoid(z) - weight * jax.nn.sigmoid(-z)
    dt = -z if w is None else w * jax.nn.softplus(-z) - jax.nn.softplus(z)
    return dz * dy, dt * dy, None


@loss(
    _binary_cross_entropy_backward,
    forward=_binary_cross_entropy_forward,
    cases=cases.BINARY_CROSS_ENTROPY,
    check=binary,
    ranges={"targets": (0, 1)},
    nodiff=("pos_weight",),
)
def binary_cross_entropy(
    logits: Array,
    targets: Array,
    where: Array | None = None,
    pos_weight: Array | None = None,
    weight: Array | None = None,
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
        weight: Broadcastable to the logits: by how much each loss is multiplied, constants; None
            for 1. The mean divides by the number of what counts, as in PyTorch.
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
    z, t, w = logits, targets, 1 if pos_weight is None else pos_weight
    return -(w * t * jax.nn.log_sigmoid(z) + (1 - t) * jax.nn.log_sigmoid(-z))


def _sigmoid_focal_backward(res, dy, *, gamma, alpha):
    """With p = σ(z), q = σ(−z) and weights a, b of α and 1 − α, or 1:
    dz = (a t q^γ (γ p ln p − q) − b (1 − t) p^γ (γ q ln q − p)) dy;
    dt = (b p^γ ln q − a q^γ ln p) dy;  the mean divides dy by what counts
    """
    z, t = res
    p, q = jax.nn.sigmoid(z), jax.nn.sigmoid(-z)
    log_p, log_q = jax.nn.log_sigmoid(z), jax.nn.log_sigmoid(-z)
    a, b = _focal_weights(alpha)
    positive, negative = a * jnp.exp(gamma * log_q), b * jnp.exp(gamma * log_p)
    dz = t * positive * (gamma * p * log_p - q) - (1 - t) * negative * (gamma * q * log_q - p)
    return dz * dy, (negative * log_q - positive * log_p) * dy


def _focal_weights(alpha: float | None) -> tuple[float, float]:
    return (1.0, 1.0) if alpha is None else (alpha, 1.0 - alpha)


@loss(
    _sigmoid_focal_backward,
    cases=cases.SIGMOID_FOCAL,
    check=focused,
    ranges={"targets": (0, 1)},
)
def sigmoid_focal(
    logits: Array,
    targets: Array,
    where: Array | None = None,
    weight: Array | None = None,
    *,
    gamma: float = 2.0,
    alpha: float | None = None,
    reduction: str = "mean",
) -> Array:
    """-(α t q^γ ln p + (1 - α) (1 - t) p^γ ln q), elementwise, for p = σ(z) and q = 1 - p.

    What is right already counts for less. Of targets 0 and 1 it is the focal loss of the paper; a
    target between them mixes the two losses, where others raise a mixed probability to γ.

    Args:
        logits: z, of any shape, finite, before any sigmoid.
        targets: t from 0 to 1, of the same shape. They get a gradient.
        where: Boolean, of the same shape: which elements count; None for all.
        weight: Broadcastable to the logits: by how much each loss is multiplied, constants; None
            for 1. The mean divides by the number of what counts, as in PyTorch.
        gamma: γ, 0 or more; with 0 and no `alpha` it is `binary_cross_entropy`.
        alpha: α, the weight of the positive part; None weighs neither.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or the logits' shape for "none", in their dtype.

    Raises:
        TypeError: If the logits are not floating or `where` is not boolean.
        ValueError: If a shape does not fit, or an option or a concrete target is out of range.

    >>> print(f"{sigmoid_focal(jnp.zeros(2), jnp.array([0.0, 1.0])):.4f}")  # ln 2 / 4
    0.1733

    Reference: Lin et al., "Focal Loss for Dense Object Detection", 2017, equation 5.
    """
    log_p, log_q = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    a, b = _focal_weights(alpha)
    positive = a * targets * jnp.exp(gamma * log_q) * log_p
    return -(positive + b * (1 - targets) * jnp.exp(gamma * log_p) * log_q)
