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

from ...types import Array
from . import cases
from .checks import above_zero, halves
from .keeping import keeps_input, keeps_output


def _sigmoid_backward(y, dy):
    """dx = y (1 − y) dy"""
    return (y * (1 - y) * dy,)


@keeps_output(_sigmoid_backward, cases=cases.SMOOTH)
def sigmoid(x: Array) -> Array:
    """σ(x) = 1 / (1 + e⁻ˣ), elementwise.

    Raises:
        TypeError: If `x` is not floating.

    >>> sigmoid(jnp.array([-jnp.inf, 0.0, jnp.inf])).tolist()
    [0.0, 0.5, 1.0]

    Reference: Rumelhart, Hinton & Williams, "Learning Representations by Back-propagating
    Errors", 1986, equation 2.
    """
    return jax.lax.logistic(x)


def _tanh_backward(y, dy):
    """dx = (1 − y²) dy"""
    return ((1 - y) * (1 + y) * dy,)


@keeps_output(_tanh_backward, cases=cases.SMOOTH)
def tanh(x: Array) -> Array:
    """(eˣ − e⁻ˣ) / (eˣ + e⁻ˣ), elementwise.

    Raises:
        TypeError: If `x` is not floating.

    >>> tanh(jnp.array([-jnp.inf, 0.0, jnp.inf])).tolist()
    [-1.0, 0.0, 1.0]

    Reference: LeCun et al., "Efficient BackProp", 1998, section 4.4.
    """
    return jnp.tanh(x)


FAR = 1000.0
"""Beyond this a gate is 0 or 1 to the last bit of float64, while its own terms may overflow."""


def _near(x: Array) -> Array:
    return jnp.clip(x, -FAR, FAR)


def _gated(x: Array, gate: Callable[[Array], Array]) -> Array:
    """x · gate(x) for a gate that goes from 0 to 1; never 0 · ∞."""
    near = _near(x)
    return jnp.where(x < FAR, near * gate(near), x)


def _normal_cdf(x: Array) -> Array:
    return jax.lax.erfc(-x * math.sqrt(0.5)) / 2


def _gelu_backward(x, dy):
    """dx = (Φ(x) + x φ(x)) dy, with φ the normal density"""
    x = _near(x)
    density = jnp.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return ((_normal_cdf(x) + x * density) * dy,)


@keeps_input(_gelu_backward, cases=cases.SMOOTH, recomputes=True)
def gelu(x: Array) -> Array:
    """x Φ(x), with Φ the distribution function of the standard normal; not the tanh form.

    Raises:
        TypeError: If `x` is not floating.

    >>> round(float(gelu(1.0)), 4), float(gelu(-jnp.inf))
    (0.8413, -0.0)

    Reference: Hendrycks & Gimpel, "Gaussian Error Linear Units (GELUs)", 2016, section 2.
    """
    return _gated(x, _normal_cdf)


CUBIC = 0.044715
SLOPE = 2 * math.sqrt(2 / math.pi)


def _gelu_tanh_gate(x: Array) -> Array:
    return jax.lax.logistic(SLOPE * (x + CUBIC * x**3))


def _gelu_tanh_backward(x, dy):
    """dx = g (1 + x (1 − g) k (1 + 3c x²)) dy, with the gate g = σ(k (x + c x³))"""
    x = _near(x)
    g = _gelu_tanh_gate(x)
    return (g * (1 + x * (1 - g) * SLOPE * (1 + 3 * CUBIC * x * x)) * dy,)


@keeps_input(_gelu_tanh_backward, cases=cases.SMOOTH, recomputes=True)
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
    return _gated(x, _gelu_tanh_gate)


def _silu_backward(x, dy):
    """dx = σ(x) (1 + x (1 − σ(x))) dy"""
    x = _near(x)
    s = jax.lax.logistic(x)
    return (s * (1 + x * (1 - s)) * dy,)


@keeps_input(_silu_backward, cases=cases.SMOOTH, recomputes=True)
def silu(x: Array) -> Array:
    """x σ(x), also called swish.

    Raises:
        TypeError: If `x` is not floating.

    >>> round(float(silu(1.0)), 4), float(silu(-jnp.inf))
    (0.7311, -0.0)

    Reference: Elfwing, Uchibe & Doya, "Sigmoid-Weighted Linear Units for Neural Network Function
    Approximation in Reinforcement Learning", 2018, equation 5.
    """
    return _gated(x, jax.lax.logistic)


def _mish_gate(x: Array) -> Array:
    return jnp.tanh(jnp.logaddexp(x, 0))


def _mish_backward(x, dy):
    """dx = (t + x (1 − t²) σ(x)) dy, with t = tanh(log(1 + eˣ))"""
    x = _near(x)
    t = _mish_gate(x)
    return ((t + x * (1 - t) * (1 + t) * jax.lax.logistic(x)) * dy,)


@keeps_input(_mish_backward, cases=cases.SMOOTH, recomputes=True)
def mish(x: Array) -> Array:
    """x tanh(softplus(x)).

    Raises:
        TypeError: If `x` is not floating.

    >>> round(float(mish(1.0)), 4), float(mish(-jnp.inf))
    (0.8651, -0.0)

    Reference: Misra, "Mish: A Self Regularized Non-Monotonic Activation Function", 2020,
    equation 1.
    """
    return _gated(x, _mish_gate)


def _softplus_backward(x, dy, *, beta):
    """dx = σ(β x) dy"""
    return (jax.lax.logistic(beta * x) * dy,)


@keeps_input(
    _softplus_backward,
    cases=cases.SOFTPLUS,
    check=above_zero("beta", "The larger beta, the closer to relu."),
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
    return jnp.logaddexp(beta * x, 0) / beta


def _log_sigmoid_backward(x, dy):
    """dx = σ(−x) dy"""
    return (jax.lax.logistic(-x) * dy,)


@keeps_input(_log_sigmoid_backward, cases=cases.SMOOTH)
def log_sigmoid(x: Array) -> Array:
    """log σ(x) = −log(1 + e⁻ˣ): the logarithm of a probability, from its logit.

    Raises:
        TypeError: If `x` is not floating.

    >>> round(float(log_sigmoid(0.0)), 4), float(log_sigmoid(-1000.0))
    (-0.6931, -1000.0)

    Reference: Goodfellow, Bengio & Courville, "Deep Learning", 2016, section 3.10.
    """
    return -jnp.logaddexp(-x, 0)


def _softsign_backward(x, dy):
    """dx = dy / (1 + |x|)²"""
    return (jnp.square(1 / (1 + jnp.abs(x))) * dy,)


@keeps_input(_softsign_backward, cases=cases.SMOOTH)
def softsign(x: Array) -> Array:
    """x / (1 + |x|), and ±1 at ±∞.

    Raises:
        TypeError: If `x` is not floating.

    >>> softsign(jnp.array([-jnp.inf, 0.0, 1.0])).tolist()
    [-1.0, 0.0, 0.5]

    Reference: Glorot & Bengio, "Understanding the Difficulty of Training Deep Feedforward Neural
    Networks", 2010, section 3.
    """
    largest = jnp.finfo(x.dtype).max
    x = jnp.clip(x, -largest, largest)
    return x / (1 + jnp.abs(x))


def _glu_backward(x, dy, *, axis):
    """da = σ(b) dy;  db = a σ(b) σ(−b) dy;  dx = (da, db)"""
    a, b = jnp.split(x, 2, axis)
    s = jax.lax.logistic(b)
    return (jnp.concatenate([s * dy, a * s * jax.lax.logistic(-b) * dy], axis),)


@keeps_input(_glu_backward, cases=cases.GLU, check=halves, recomputes=True)
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
    a, b = jnp.split(x, 2, axis)
    return a * jax.lax.logistic(b)
