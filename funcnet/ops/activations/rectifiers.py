"""Activations in pieces: straight lines, and lines that end in an exponential.

Most of them keep their output for the backward pass: the op that follows keeps it too, so it
costs nothing, and it tells the piece as well as the input does. At a kink the slope is the one
PyTorch takes: relu'(0) = 0, where `jnp.maximum` has a half, leaky_relu'(0) = slope, and 0 at every
end of a clipped range. NaN in gives NaN out. The pieces of relu, relu6, hard_tanh and leaky_relu
show in a 16-bit output as well, so these need no float32.
"""

import jax.numpy as jnp

from ...rules.passes import widened
from ...rules.rule import rule
from ...types import Array
from ..fast.rows import sum_over
from . import cases
from .checks import above_zero, floats, limited, slope_of_channels
from .keeping import keeps_input, keeps_output


def _relu_backward(y, dy):
    """dx = dy where y > 0, else 0"""
    return (jnp.where(y <= 0, 0, dy),)


@keeps_output(_relu_backward, cases=cases.RELU, wide=False)
def relu(x: Array) -> Array:
    """max(x, 0), elementwise.

    Raises:
        TypeError: If `x` is not floating.

    >>> relu(jnp.array([-1.0, 0.0, 2.0])).tolist()
    [0.0, 0.0, 2.0]

    Reference: Nair & Hinton, "Rectified Linear Units Improve Restricted Boltzmann Machines", 2010.
    """
    return jnp.where(x <= 0, 0, x)


def _relu6_backward(y, dy):
    """dx = dy where 0 < y < 6, else 0"""
    return (jnp.where((y <= 0) | (y >= 6), 0, dy),)


@keeps_output(_relu6_backward, cases=cases.RELU6, wide=False)
def relu6(x: Array) -> Array:
    """min(max(x, 0), 6), elementwise.

    Raises:
        TypeError: If `x` is not floating.

    >>> relu6(jnp.array([-1.0, 2.0, 9.0])).tolist()
    [0.0, 2.0, 6.0]

    Reference: Krizhevsky, "Convolutional Deep Belief Networks on CIFAR-10", 2010.
    """
    return jnp.where(x <= 0, 0, jnp.where(x >= 6, 6, x))


def _bent(x: Array, at: Array, slope: float) -> Array:
    """x where at > 0, else slope · x, rounded once."""
    z = widened(x)
    return jnp.where(at > 0, z, slope * z).astype(x.dtype)


def _leaky_relu_forward(x, *, slope):
    y = _bent(x, x, slope)
    return y, (y if slope >= 0 else x)


def _leaky_relu_backward(kept, dy, *, slope):
    """dx = dy where x > 0, else slope dy"""
    return (_bent(dy, kept, slope),)


@rule(_leaky_relu_forward, _leaky_relu_backward, cases=cases.LEAKY_RELU, check=floats)
def leaky_relu(x: Array, *, slope: float = 0.01) -> Array:
    """x where x > 0, else slope · x.

    Raises:
        TypeError: If `x` is not floating.

    >>> leaky_relu(jnp.array([-1.0, 2.0]), slope=0.5).tolist()
    [-0.5, 2.0]

    Reference: Maas, Hannun & Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic
    Models", 2013, equation 2.
    """
    return _bent(x, x, slope)


def _prelu_forward(x, slope):
    return jnp.where(x > 0, x, slope * x), (x, slope)


def _prelu_backward(res, dy):
    """dx = dy where x > 0, else slope dy;  dslope = Σ x dy where x ≤ 0"""
    x, slope = res
    dslope = sum_over(jnp.where(x > 0, 0, x * dy), range(x.ndim - slope.ndim))
    return jnp.where(x > 0, dy, slope * dy), dslope


@rule(_prelu_forward, _prelu_backward, cases=cases.PRELU, check=slope_of_channels, wide=True)
def prelu(x: Array, slope: Array) -> Array:
    """x where x > 0, else slope · x, with a slope that is learned.

    Args:
        x: `(..., channels)`.
        slope: `()` for one slope, or `(channels,)`.

    Returns:
        The shape and dtype of `x`; 16-bit dtypes are computed in float32 and rounded once.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If `slope` has another shape.

    >>> prelu(jnp.array([[-1.0, -1.0]]), jnp.array([0.5, 2.0])).tolist()
    [[-0.5, -2.0]]

    Reference: He et al., "Delving Deep into Rectifiers", 2015, equation 1.
    """
    return jnp.where(x > 0, x, slope * x)


def _below_zero(x: Array) -> Array:
    """x where x ≤ 0, else 0, where an exponential of it would overflow."""
    return jnp.where(x > 0, 0, x)


_alpha_above_zero = above_zero("alpha", "With alpha = 0 it is relu.")


def _elu_backward(y, dy, *, alpha):
    """dx = dy where x > 0, else α eˣ dy = (y + α) dy"""
    return (jnp.where(y > 0, 1, y + alpha) * dy,)


@keeps_output(_elu_backward, cases=cases.ELU, check=_alpha_above_zero)
def elu(x: Array, *, alpha: float = 1.0) -> Array:
    """x where x > 0, else α (eˣ − 1).

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If `alpha` is not above 0.

    >>> elu(jnp.array([-jnp.inf, 0.0, 2.0])).tolist()
    [-1.0, 0.0, 2.0]

    Reference: Clevert, Unterthiner & Hochreiter, "Fast and Accurate Deep Network Learning by
    Exponential Linear Units (ELUs)", 2016, section 3.
    """
    return jnp.where(x > 0, x, alpha * jnp.expm1(_below_zero(x)))


def _celu_backward(y, dy, *, alpha):
    """dx = dy where x > 0, else e^(x / α) dy = (y / α + 1) dy"""
    return (jnp.where(y > 0, 1, y / alpha + 1) * dy,)


@keeps_output(_celu_backward, cases=cases.ELU, check=_alpha_above_zero)
def celu(x: Array, *, alpha: float = 1.0) -> Array:
    """x where x > 0, else α (e^(x / α) − 1): an elu whose slope has no jump, whatever α.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If `alpha` is not above 0.

    >>> celu(jnp.array([-jnp.inf, 0.0, 2.0]), alpha=0.5).tolist()
    [-0.5, 0.0, 2.0]

    Reference: Barron, "Continuously Differentiable Exponential Linear Units", 2017, equation 2.
    """
    return jnp.where(x > 0, x, alpha * jnp.expm1(_below_zero(x) / alpha))


SELU_SCALE = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772


def _selu_backward(y, dy):
    """dx = λ dy where x > 0, else λ α eˣ dy = (y + λ α) dy"""
    return (jnp.where(y > 0, SELU_SCALE, y + SELU_SCALE * SELU_ALPHA) * dy,)


@keeps_output(_selu_backward, cases=cases.SELU)
def selu(x: Array) -> Array:
    """λ x where x > 0, else λ α (eˣ − 1), with λ = 1.0507 and α = 1.6733.

    Raises:
        TypeError: If `x` is not floating.

    >>> round(float(selu(-jnp.inf)), 4)
    -1.7581

    Reference: Klambauer et al., "Self-Normalizing Neural Networks", 2017, equation 2.
    """
    return SELU_SCALE * jnp.where(x > 0, x, SELU_ALPHA * jnp.expm1(_below_zero(x)))


def _hard_tanh_backward(y, dy, *, low, high):
    """dx = dy where low < y < high, else 0"""
    return (jnp.where((y <= low) | (y >= high), 0, dy),)


@keeps_output(_hard_tanh_backward, cases=cases.HARD_TANH, check=limited, wide=False)
def hard_tanh(x: Array, *, low: float = -1.0, high: float = 1.0) -> Array:
    """min(max(x, low), high), elementwise.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If `low` is not below `high`.

    >>> hard_tanh(jnp.array([-3.0, 0.5, 3.0])).tolist()
    [-1.0, 0.5, 1.0]

    Reference: Collobert, "Large Scale Machine Learning", 2004, section 5.
    """
    return jnp.where(x <= low, low, jnp.where(x >= high, high, x))


def _hard_sigmoid_backward(x, dy):
    """dx = dy / 6 where |x| < 3, else 0"""
    return (jnp.where(jnp.abs(x) >= 3, 0, dy / 6),)


@keeps_input(_hard_sigmoid_backward, cases=cases.HARD_SIGMOID)
def hard_sigmoid(x: Array) -> Array:
    """relu6(x + 3) / 6. (ONNX has another one by default: 0.2 x + 0.5, clipped.)

    Raises:
        TypeError: If `x` is not floating.

    >>> hard_sigmoid(jnp.array([-3.0, 0.0, 3.0])).tolist()
    [0.0, 0.5, 1.0]

    Reference: Howard et al., "Searching for MobileNetV3", 2019, section 5.2.
    """
    return jnp.where(x <= -3, 0, jnp.where(x >= 3, 1, (x + 3) / 6))


def _hard_swish_backward(x, dy):
    """dx = 0 where x ≤ −3, dy where x ≥ 3, else (2 x + 3) / 6 dy"""
    return (jnp.where(x <= -3, 0, jnp.where(x >= 3, 1, (2 * x + 3) / 6)) * dy,)


@keeps_input(_hard_swish_backward, cases=cases.HARD_SIGMOID)
def hard_swish(x: Array) -> Array:
    """x · relu6(x + 3) / 6, and 0 at −∞. Its slope at the kinks is 0 at −3 and 1 at 3.

    Raises:
        TypeError: If `x` is not floating.

    >>> hard_swish(jnp.array([-3.0, 1.5, 3.0])).tolist()
    [0.0, 1.125, 3.0]

    Reference: Howard et al., "Searching for MobileNetV3", 2019, section 5.2.
    """
    inner = jnp.where(jnp.abs(x) >= 3, 0, x)
    return jnp.where(x <= -3, 0, jnp.where(x >= 3, x, inner * (inner + 3) / 6))


def _relu_squared_forward(x):
    return jnp.square(jnp.maximum(x, 0)), x


def _relu_squared_backward(x, dy):
    """dx = 2 max(x, 0) dy"""
    return (jnp.where(x <= 0, 0, 2 * x * dy),)


@rule(_relu_squared_forward, _relu_squared_backward, cases=cases.RELU, check=floats)
def relu_squared(x: Array) -> Array:
    """max(x, 0)², elementwise.

    Raises:
        TypeError: If `x` is not floating.

    >>> relu_squared(jnp.array([-1.0, 0.0, 3.0])).tolist()
    [0.0, 0.0, 9.0]

    Reference: So et al., "Primer: Searching for Efficient Transformers", 2021, section 4.1.
    """
    return jnp.square(jnp.where(x <= 0, 0, x))
