"""Smooth activations: the sigmoid and its relatives, and those that gate their own input.

`sigmoid` and `tanh` keep their output, which the op that follows keeps too; the others keep their
input alone and compute the rest again in the backward pass, where `jax.grad` would keep two to
five arrays. All of them have their limits at ±∞, in value and in slope, and in 16-bit dtypes they
compute in float32 and round once.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ...rules.rule import Case, normal_case, rule
from ...types import Array, require
from ..shared.precision import floating, is_coarse, widened

FAR = 1000.0
"""Beyond this a gate is 0 or 1 to the last bit of float64, while its own terms may overflow."""


def _curve(where: str, x: Array, f: Callable[[Array], Array]) -> Array:
    x = floating(where, x)
    return f(widened(x)).astype(x.dtype)


def _gated(where: str, x: Array, gate: Callable[[Array], Array]) -> Array:
    """x · gate(x) for a gate that goes from 0 to 1; never 0 · ∞."""

    def product(x: Array) -> Array:
        near = jnp.clip(x, -FAR, FAR)
        return jnp.where(x < FAR, near * gate(near), x)

    return _curve(where, x, product)


def _gated_again(x: Array, dy: Array) -> tuple[Array, Array]:
    """What a backward pass computes with. The barrier keeps XLA from keeping the forward's gate."""
    x, dy = jax.lax.optimization_barrier((x, dy))
    return jnp.clip(widened(x), -FAR, FAR), widened(dy)


def _bell(x: Array) -> Array:
    """σ(x) σ(−x), the slope of the sigmoid, to full relative accuracy at both ends."""
    e = jnp.exp(-jnp.abs(x))
    return e / jnp.square(1 + e)


def _wide_range(**static: float) -> Case:
    values = (-jnp.inf, -2e3, -6.0, -1.0, -0.5, 0.0, 0.5, 1.0, 6.0, 2e3, jnp.inf)
    return Case(lambda random: (np.array(values, np.float32),), static)


PLAIN = {"rows": normal_case((4, 3)), "range": _wide_range(), "none": normal_case((0, 3))}


def _sigmoid_forward(x: Array) -> tuple[Array, Array]:
    y = _curve("sigmoid", x, jax.lax.logistic)
    return y, (x if is_coarse(y) else y)


def _sigmoid_backward(kept: Array, dy: Array) -> tuple[Array]:
    """dx = y (1 − y) dy = σ(x) σ(−x) dy"""
    slope = _bell(widened(kept)) if is_coarse(kept) else kept * (1 - kept)
    return (slope * widened(dy),)


@rule(
    _sigmoid_forward,
    _sigmoid_backward,
    cases=PLAIN,
)
def sigmoid(x: Array) -> Array:
    """σ(x) = 1 / (1 + e⁻ˣ), elementwise.

    Raises:
        TypeError: If `x` is not floating.

    >>> sigmoid(jnp.array([-jnp.inf, 0.0, jnp.inf])).tolist()
    [0.0, 0.5, 1.0]

    Reference: Rumelhart, Hinton & Williams, "Learning Representations by Back-propagating
    Errors", 1986, equation 2.
    """
    return _curve("sigmoid", x, jax.lax.logistic)


def _tanh_forward(x: Array) -> tuple[Array, Array]:
    y = _curve("tanh", x, jnp.tanh)
    return y, (x if is_coarse(y) else y)


def _tanh_backward(kept: Array, dy: Array) -> tuple[Array]:
    """dx = (1 − y²) dy = 4 σ(2x) σ(−2x) dy"""
    slope = 4 * _bell(2 * widened(kept)) if is_coarse(kept) else (1 - kept) * (1 + kept)
    return (slope * widened(dy),)


@rule(_tanh_forward, _tanh_backward, cases=PLAIN)
def tanh(x: Array) -> Array:
    """(eˣ − e⁻ˣ) / (eˣ + e⁻ˣ), elementwise.

    Raises:
        TypeError: If `x` is not floating.

    >>> tanh(jnp.array([-jnp.inf, 0.0, jnp.inf])).tolist()
    [-1.0, 0.0, 1.0]

    Reference: LeCun et al., "Efficient BackProp", 1998, section 4.4.
    """
    return _curve("tanh", x, jnp.tanh)


def _normal_cdf(x: Array) -> Array:
    return jax.lax.erfc(-x * math.sqrt(0.5)) / 2


def _gelu_forward(x: Array) -> tuple[Array, Array]:
    return _gated("gelu", x, _normal_cdf), x


def _gelu_backward(x: Array, dy: Array) -> tuple[Array]:
    """dx = (Φ(x) + x φ(x)) dy, with φ the normal density"""
    x, dy = _gated_again(x, dy)
    density = jnp.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return ((_normal_cdf(x) + x * density) * dy,)


@rule(_gelu_forward, _gelu_backward, cases=PLAIN)
def gelu(x: Array) -> Array:
    """x Φ(x), with Φ the distribution function of the standard normal; not the tanh form.

    Raises:
        TypeError: If `x` is not floating.

    >>> round(float(gelu(1.0)), 4), float(gelu(-jnp.inf))
    (0.8413, -0.0)

    Reference: Hendrycks & Gimpel, "Gaussian Error Linear Units (GELUs)", 2016, section 2.
    """
    return _gated("gelu", x, _normal_cdf)


CUBIC = 0.044715
SLOPE = 2 * math.sqrt(2 / math.pi)


def _gelu_tanh_gate(x: Array) -> Array:
    return jax.lax.logistic(SLOPE * (x + CUBIC * x**3))


def _gelu_tanh_forward(x: Array) -> tuple[Array, Array]:
    return _gated("gelu_tanh", x, _gelu_tanh_gate), x


def _gelu_tanh_backward(x: Array, dy: Array) -> tuple[Array]:
    """dx = g (1 + x (1 − g) k (1 + 3c x²)) dy, with the gate g = σ(k (x + c x³))"""
    x, dy = _gated_again(x, dy)
    g = _gelu_tanh_gate(x)
    return (g * (1 + x * (1 - g) * SLOPE * (1 + 3 * CUBIC * x * x)) * dy,)


@rule(
    _gelu_tanh_forward,
    _gelu_tanh_backward,
    cases=PLAIN,
)
def gelu_tanh(x: Array) -> Array:
    """½ x (1 + tanh(√(2/π) (x + 0.044715 x³))): gelu to three digits, as GPT-2 has it.

    It is computed as x σ(2u), with u what the tanh is taken of: the same number, and its small
    values for x < 0 do not drown in the 1.

    Raises:
        TypeError: If `x` is not floating.

    >>> round(float(gelu_tanh(1.0)), 4), float(gelu_tanh(-jnp.inf))
    (0.8412, -0.0)

    Reference: Hendrycks & Gimpel, "Gaussian Error Linear Units (GELUs)", 2016, section 2.
    """
    return _gated("gelu_tanh", x, _gelu_tanh_gate)


def _silu_forward(x: Array) -> tuple[Array, Array]:
    return _gated("silu", x, jax.lax.logistic), x


def _silu_backward(x: Array, dy: Array) -> tuple[Array]:
    """dx = σ(x) (1 + x (1 − σ(x))) dy"""
    x, dy = _gated_again(x, dy)
    s = jax.lax.logistic(x)
    return (s * (1 + x * (1 - s)) * dy,)


@rule(_silu_forward, _silu_backward, cases=PLAIN)
def silu(x: Array) -> Array:
    """x σ(x), also called swish.

    Raises:
        TypeError: If `x` is not floating.

    >>> round(float(silu(1.0)), 4), float(silu(-jnp.inf))
    (0.7311, -0.0)

    Reference: Elfwing, Uchibe & Doya, "Sigmoid-Weighted Linear Units for Neural Network Function
    Approximation in Reinforcement Learning", 2018, equation 5.
    """
    return _gated("silu", x, jax.lax.logistic)


def _mish_gate(x: Array) -> Array:
    return jnp.tanh(jnp.logaddexp(x, 0))


def _mish_forward(x: Array) -> tuple[Array, Array]:
    return _gated("mish", x, _mish_gate), x


def _mish_backward(x: Array, dy: Array) -> tuple[Array]:
    """dx = (t + x (1 − t²) σ(x)) dy, with t = tanh(log(1 + eˣ))"""
    x, dy = _gated_again(x, dy)
    t = _mish_gate(x)
    return ((t + x * (1 - t) * (1 + t) * jax.lax.logistic(x)) * dy,)


@rule(_mish_forward, _mish_backward, cases=PLAIN)
def mish(x: Array) -> Array:
    """x tanh(softplus(x)).

    Raises:
        TypeError: If `x` is not floating.

    >>> round(float(mish(1.0)), 4), float(mish(-jnp.inf))
    (0.8651, -0.0)

    Reference: Misra, "Mish: A Self Regularized Non-Monotonic Activation Function", 2020,
    equation 1.
    """
    return _gated("mish", x, _mish_gate)


def _softplus_forward(x: Array, *, beta: float) -> tuple[Array, Array]:
    return _softplus(x, beta), x


def _softplus_backward(x: Array, dy: Array, *, beta: float) -> tuple[Array]:
    """dx = σ(β x) dy"""
    return (jax.lax.logistic(beta * widened(x)) * widened(dy),)


def _softplus(x: Array, beta: float) -> Array:
    require(beta > 0, "softplus", "beta > 0", beta, "The larger beta, the closer to relu.")
    return _curve("softplus", x, lambda x: jnp.logaddexp(beta * x, 0) / beta)


@rule(
    _softplus_forward,
    _softplus_backward,
    cases={
        "rows": normal_case((4, 3)),
        "beta": normal_case((4, 3), beta=2.5),
        "none": normal_case((0, 3)),
        "range": _wide_range(),
    },
)
def softplus(x: Array, *, beta: float = 1.0) -> Array:
    """log(1 + e^(β x)) / β: a smooth relu.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If `beta` is not above 0.

    >>> round(float(softplus(0.0)), 4), float(softplus(1000.0))
    (0.6931, 1000.0)

    Reference: Dugas et al., "Incorporating Second-Order Functional Knowledge for Better Option
    Pricing", 2001, section 3.
    """
    return _softplus(x, beta)


def _log_sigmoid_forward(x: Array) -> tuple[Array, Array]:
    return _curve("log_sigmoid", x, lambda x: -jnp.logaddexp(-x, 0)), x


def _log_sigmoid_backward(x: Array, dy: Array) -> tuple[Array]:
    """dx = σ(−x) dy"""
    return (jax.lax.logistic(-widened(x)) * widened(dy),)


@rule(
    _log_sigmoid_forward,
    _log_sigmoid_backward,
    cases=PLAIN,
)
def log_sigmoid(x: Array) -> Array:
    """log σ(x) = −log(1 + e⁻ˣ): the logarithm of a probability, from its logit.

    Raises:
        TypeError: If `x` is not floating.

    >>> round(float(log_sigmoid(0.0)), 4), float(log_sigmoid(-1000.0))
    (-0.6931, -1000.0)

    Reference: Goodfellow, Bengio & Courville, "Deep Learning", 2016, section 3.10.
    """
    return _curve("log_sigmoid", x, lambda x: -jnp.logaddexp(-x, 0))


def _softsign_forward(x: Array) -> tuple[Array, Array]:
    return _softsign(x), x


def _softsign_backward(x: Array, dy: Array) -> tuple[Array]:
    """dx = dy / (1 + |x|)²"""
    return (widened(dy) / jnp.square(1 + jnp.abs(widened(x))),)


def _softsign(x: Array) -> Array:
    def quotient(x: Array) -> Array:
        largest = jnp.finfo(x.dtype).max
        x = jnp.clip(x, -largest, largest)
        return x / (1 + jnp.abs(x))

    return _curve("softsign", x, quotient)


@rule(_softsign_forward, _softsign_backward, cases=PLAIN)
def softsign(x: Array) -> Array:
    """x / (1 + |x|), and ±1 at ±∞.

    Raises:
        TypeError: If `x` is not floating.

    >>> softsign(jnp.array([-jnp.inf, 0.0, 1.0])).tolist()
    [-1.0, 0.0, 0.5]

    Reference: Glorot & Bengio, "Understanding the Difficulty of Training Deep Feedforward Neural
    Networks", 2010, section 3.
    """
    return _softsign(x)


def _glu_forward(x: Array, *, axis: int) -> tuple[Array, Array]:
    return _glu(x, axis), x


def _glu_backward(x: Array, dy: Array, *, axis: int) -> tuple[Array]:
    """da = σ(b) dy;  db = a σ(b) σ(−b) dy;  dx = (da, db)"""
    x, dy = jax.lax.optimization_barrier((x, dy))
    a, b = jnp.split(widened(x), 2, axis)
    s, dy = jax.lax.logistic(b), widened(dy)
    return (jnp.concatenate([s * dy, a * s * jax.lax.logistic(-b) * dy], axis),)


def _glu(x: Array, axis: int) -> Array:
    x = floating("glu", x)
    require(
        -x.ndim <= axis < x.ndim and x.shape[axis] % 2 == 0,
        "glu",
        f"x with an even number of entries along axis {axis}",
        f"shape {x.shape}",
        "One half is the value, the other its gate.",
    )
    a, b = jnp.split(widened(x), 2, axis)
    return (a * jax.lax.logistic(b)).astype(x.dtype)


@rule(
    _glu_forward,
    _glu_backward,
    cases={
        "rows": normal_case((3, 4)),
        "first axis": normal_case((4, 3), axis=0),
        "one": normal_case((2,)),
        "none": normal_case((0, 4)),
    },
)
def glu(x: Array, *, axis: int = -1) -> Array:
    """a σ(b), with x = (a, b) in halves along `axis`.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If there is no such axis, or its length is odd.

    >>> glu(jnp.array([3.0, 0.0])).tolist()
    [1.5]

    Reference: Dauphin et al., "Language Modeling with Gated Convolutional Networks", 2017,
    equation 1.
    """
    return _glu(x, axis)
