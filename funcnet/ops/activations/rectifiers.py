"""Activations in pieces: straight lines, and lines that end in an exponential.

Most of them keep their output for the backward pass: the op that follows keeps it too, so it
costs nothing, and it tells the piece as well as the input does. At a kink the slope is the one
PyTorch takes: relu'(0) = 0, leaky_relu'(0) = slope, and 0 at every end of a clipped range. NaN in
gives NaN out.
"""

import jax.numpy as jnp
import numpy as np

from ...rules.rule import Case, normal_case, rule
from ...types import Array, require
from ..fast.rows import sum_over
from ..shared.precision import floating, is_coarse, widened


def _at(*values: float, **static: float) -> Case:
    return Case(lambda random: (np.array(values, np.float32),), static)


def _with_kinks(*values: float) -> dict[str, Case]:
    return {"rows": normal_case((4, 3)), "kinks": _at(*values), "none": normal_case((0, 3))}


def _relu_forward(x: Array) -> tuple[Array, Array]:
    # Not jnp.maximum, whose slope at 0 is a half: gradients of gradients would see it.
    x = floating("relu", x)
    y = jnp.where(x <= 0, 0, x)
    return y, y


def _relu_backward(y: Array, dy: Array) -> tuple[Array]:
    """dx = dy where y > 0, else 0"""
    return (jnp.where(y <= 0, 0, dy),)


@rule(_relu_forward, _relu_backward, cases=_with_kinks(-1, 0, 1))
def relu(x: Array) -> Array:
    """max(x, 0), elementwise.

    Raises:
        TypeError: If `x` is not floating.

    >>> relu(jnp.array([-1.0, 0.0, 2.0])).tolist()
    [0.0, 0.0, 2.0]

    Reference: Nair & Hinton, "Rectified Linear Units Improve Restricted Boltzmann Machines", 2010.
    """
    x = floating("relu", x)
    return jnp.where(x <= 0, 0, x)


def _relu6_forward(x: Array) -> tuple[Array, Array]:
    x = floating("relu6", x)
    y = jnp.where(x <= 0, 0, jnp.where(x >= 6, 6, x))
    return y, y


def _relu6_backward(y: Array, dy: Array) -> tuple[Array]:
    """dx = dy where 0 < y < 6, else 0"""
    return (jnp.where((y <= 0) | (y >= 6), 0, dy),)


@rule(_relu6_forward, _relu6_backward, cases=_with_kinks(-1, 0, 3, 6, 7))
def relu6(x: Array) -> Array:
    """min(max(x, 0), 6), elementwise.

    Raises:
        TypeError: If `x` is not floating.

    >>> relu6(jnp.array([-1.0, 2.0, 9.0])).tolist()
    [0.0, 2.0, 6.0]

    Reference: Krizhevsky, "Convolutional Deep Belief Networks on CIFAR-10", 2010.
    """
    x = floating("relu6", x)
    return jnp.where(x <= 0, 0, jnp.where(x >= 6, 6, x))


def _leaky_relu_forward(x: Array, *, slope: float) -> tuple[Array, Array]:
    y = _leaky("leaky_relu", x, slope)
    return y, (y if slope >= 0 else x)


def _leaky_relu_backward(kept: Array, dy: Array, *, slope: float) -> tuple[Array]:
    """dx = dy where x > 0, else slope dy"""
    return (jnp.where(kept > 0, widened(dy), slope * widened(dy)),)


def _leaky(where: str, x: Array, slope: float | Array) -> Array:
    x = floating(where, x)
    z = widened(x)
    return jnp.where(z > 0, z, slope * z).astype(x.dtype)


@rule(
    _leaky_relu_forward,
    _leaky_relu_backward,
    cases=_with_kinks(-1, 0, 1)
    | {name: normal_case((4, 3), slope=a) for name, a in (("slope", 0.3), ("falling", -0.5))},
)
def leaky_relu(x: Array, *, slope: float = 0.01) -> Array:
    """x where x > 0, else slope · x.

    Raises:
        TypeError: If `x` is not floating.

    >>> leaky_relu(jnp.array([-1.0, 2.0]), slope=0.5).tolist()
    [-0.5, 2.0]

    Reference: Maas, Hannun & Ng, "Rectifier Nonlinearities Improve Neural Network Acoustic
    Models", 2013, equation 2.
    """
    return _leaky("leaky_relu", x, slope)


def _prelu_forward(x: Array, slope: Array) -> tuple[Array, tuple]:
    return _prelu(x, slope), (x, slope)


def _prelu_backward(res: tuple, dy: Array) -> tuple[Array, Array]:
    """dx = dy where x > 0, else slope dy;  dslope = Σ x dy where x ≤ 0"""
    x, slope = res
    x, dy = widened(x), widened(dy)
    dslope = jnp.where(x > 0, 0, x * dy)
    dslope = sum_over(dslope, range(x.ndim - slope.ndim))
    return jnp.where(x > 0, dy, slope * dy), dslope


def _prelu(x: Array, slope: Array) -> Array:
    x, slope = floating("prelu", x), jnp.asarray(slope)
    require(
        slope.shape == () or (x.ndim >= 1 and slope.shape == x.shape[-1:]),
        "prelu",
        f"slope of shape () or {x.shape[-1:]}, one for each channel"
        if x.ndim
        else "slope of shape ()",
        f"shape {slope.shape}",
        "The channels are the last axis of x.",
    )
    return _leaky("prelu", x.astype(jnp.promote_types(x.dtype, slope.dtype)), widened(slope))


@rule(
    _prelu_forward,
    _prelu_backward,
    cases={
        "channels": normal_case((2, 4, 3), (3,)),
        "one slope": normal_case((4, 3), ()),
        "one example": normal_case((3,), (3,)),
        "none": normal_case((0, 3), (3,)),
    },
)
def prelu(x: Array, slope: Array) -> Array:
    """x where x > 0, else slope · x, with a slope that is learned.

    Args:
        x: `(..., channels)`.
        slope: `()` for one slope, or `(channels,)`.

    Returns:
        The shape of `x`, in the dtype that JAX promotes the arguments to.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If `slope` has another shape.

    >>> prelu(jnp.array([[-1.0, -1.0]]), jnp.array([0.5, 2.0])).tolist()
    [[-0.5, -2.0]]

    Reference: He et al., "Delving Deep into Rectifiers", 2015, equation 1.
    """
    return _prelu(x, slope)


def _exponential(where: str, x: Array, scale: float, alpha: float, width: float) -> Array:
    """scale x where x > 0, else scale α (e^(x / width) − 1): what elu, celu and selu are."""
    require(alpha > 0, where, "alpha > 0", alpha, "With alpha = 0 it is relu.")
    x = floating(where, x)
    z = widened(x)
    below = alpha * jnp.expm1(jnp.where(z > 0, 0, z) / width)
    return (scale * jnp.where(z > 0, z, below)).astype(x.dtype)


def _exponential_slope(kept: Array, scale: float, alpha: float, width: float) -> Array:
    """The slope of `_exponential`, from its output, or from its input if that is 16-bit."""
    if is_coarse(kept):
        below = scale * alpha * jnp.exp(jnp.where(kept > 0, 0, widened(kept)) / width)
    else:
        below = kept + scale * alpha
    return jnp.where(kept > 0, scale, below / width)


def _elu_forward(x: Array, *, alpha: float) -> tuple[Array, Array]:
    y = _exponential("elu", x, 1.0, alpha, 1.0)
    return y, (x if is_coarse(y) else y)


def _elu_backward(kept: Array, dy: Array, *, alpha: float) -> tuple[Array]:
    """dx = dy where x > 0, else α eˣ dy = (y + α) dy"""
    return (_exponential_slope(kept, 1.0, alpha, 1.0) * widened(dy),)


@rule(
    _elu_forward,
    _elu_backward,
    cases={"alpha": normal_case((4, 3), alpha=0.5), **_with_kinks(-9, 0, 1)},
)
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
    return _exponential("elu", x, 1.0, alpha, 1.0)


def _celu_forward(x: Array, *, alpha: float) -> tuple[Array, Array]:
    y = _exponential("celu", x, 1.0, alpha, alpha)
    return y, (x if is_coarse(y) else y)


def _celu_backward(kept: Array, dy: Array, *, alpha: float) -> tuple[Array]:
    """dx = dy where x > 0, else e^(x / α) dy = (y / α + 1) dy"""
    return (_exponential_slope(kept, 1.0, alpha, alpha) * widened(dy),)


@rule(
    _celu_forward,
    _celu_backward,
    cases={"alpha": normal_case((4, 3), alpha=0.5), **_with_kinks(-9, 0, 1)},
)
def celu(x: Array, *, alpha: float = 1.0) -> Array:
    """x where x > 0, else α (e^(x / α) − 1): an elu whose slope has no jump, whatever α.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If `alpha` is not above 0.

    >>> celu(jnp.array([-jnp.inf, 0.0, 2.0]), alpha=0.5).tolist()
    [-0.5, 0.0, 2.0]

    Reference: Barron, "Continuously Differentiable Exponential Linear Units", 2017, equation 2.
    """
    return _exponential("celu", x, 1.0, alpha, alpha)


SELU_SCALE = 1.0507009873554805
SELU_ALPHA = 1.6732632423543772


def _selu_forward(x: Array) -> tuple[Array, Array]:
    y = _exponential("selu", x, SELU_SCALE, SELU_ALPHA, 1.0)
    return y, (x if is_coarse(y) else y)


def _selu_backward(kept: Array, dy: Array) -> tuple[Array]:
    """dx = λ dy where x > 0, else λ α eˣ dy = (y + λ α) dy"""
    return (_exponential_slope(kept, SELU_SCALE, SELU_ALPHA, 1.0) * widened(dy),)


@rule(_selu_forward, _selu_backward, cases=_with_kinks(-9, 0, 1))
def selu(x: Array) -> Array:
    """λ x where x > 0, else λ α (eˣ − 1), with λ = 1.0507 and α = 1.6733.

    Raises:
        TypeError: If `x` is not floating.

    >>> round(float(selu(-jnp.inf)), 4)
    -1.7581

    Reference: Klambauer et al., "Self-Normalizing Neural Networks", 2017, equation 2.
    """
    return _exponential("selu", x, SELU_SCALE, SELU_ALPHA, 1.0)


def _hard_tanh_forward(x: Array) -> tuple[Array, Array]:
    x = floating("hard_tanh", x)
    y = jnp.where(x <= -1, -1, jnp.where(x >= 1, 1, x))
    return y, y


def _hard_tanh_backward(y: Array, dy: Array) -> tuple[Array]:
    """dx = dy where |y| < 1, else 0"""
    return (jnp.where(jnp.abs(y) >= 1, 0, dy),)


@rule(_hard_tanh_forward, _hard_tanh_backward, cases=_with_kinks(-2, -1, 0, 1, 2))
def hard_tanh(x: Array) -> Array:
    """min(max(x, −1), 1), elementwise.

    Raises:
        TypeError: If `x` is not floating.

    >>> hard_tanh(jnp.array([-3.0, 0.5, 3.0])).tolist()
    [-1.0, 0.5, 1.0]

    Reference: Collobert, "Large Scale Machine Learning", 2004, section 5.
    """
    x = floating("hard_tanh", x)
    return jnp.where(x <= -1, -1, jnp.where(x >= 1, 1, x))


def _hard_sigmoid_forward(x: Array) -> tuple[Array, Array]:
    return _hard_sigmoid(x), x


def _hard_sigmoid_backward(x: Array, dy: Array) -> tuple[Array]:
    """dx = dy / 6 where |x| < 3, else 0"""
    return (jnp.where(jnp.abs(x) >= 3, 0, widened(dy) / 6),)


def _hard_sigmoid(x: Array) -> Array:
    x = floating("hard_sigmoid", x)
    line = ((widened(x) + 3) / 6).astype(x.dtype)
    return jnp.where(x <= -3, 0, jnp.where(x >= 3, 1, line))


@rule(_hard_sigmoid_forward, _hard_sigmoid_backward, cases=_with_kinks(-4, -3, 0, 3, 4))
def hard_sigmoid(x: Array) -> Array:
    """relu6(x + 3) / 6. (ONNX has another one by default: 0.2 x + 0.5, clipped.)

    Raises:
        TypeError: If `x` is not floating.

    >>> hard_sigmoid(jnp.array([-3.0, 0.0, 3.0])).tolist()
    [0.0, 0.5, 1.0]

    Reference: Howard et al., "Searching for MobileNetV3", 2019, section 5.2.
    """
    return _hard_sigmoid(x)


def _hard_swish_forward(x: Array) -> tuple[Array, Array]:
    return _hard_swish(x), x


def _hard_swish_backward(x: Array, dy: Array) -> tuple[Array]:
    """dx = 0 where x ≤ −3, dy where x ≥ 3, else (2 x + 3) / 6 dy"""
    z, dy = widened(x), widened(dy)
    return (jnp.where(z <= -3, 0, jnp.where(z >= 3, 1, (2 * z + 3) / 6)) * dy,)


def _hard_swish(x: Array) -> Array:
    x = floating("hard_swish", x)
    inner = jnp.where(jnp.abs(x) >= 3, 0, widened(x))
    curve = (inner * (inner + 3) / 6).astype(x.dtype)
    return jnp.where(x <= -3, 0, jnp.where(x >= 3, x, curve))


@rule(_hard_swish_forward, _hard_swish_backward, cases=_with_kinks(-4, -3, 0, 3, 4))
def hard_swish(x: Array) -> Array:
    """x · relu6(x + 3) / 6, and 0 at −∞. Its slope at the kinks is 0 at −3 and 1 at 3.

    Raises:
        TypeError: If `x` is not floating.

    >>> hard_swish(jnp.array([-3.0, 1.5, 3.0])).tolist()
    [0.0, 1.125, 3.0]

    Reference: Howard et al., "Searching for MobileNetV3", 2019, section 5.2.
    """
    return _hard_swish(x)


def _relu_squared_forward(x: Array) -> tuple[Array, Array]:
    return jnp.square(jnp.maximum(floating("relu_squared", x), 0)), x


def _relu_squared_backward(x: Array, dy: Array) -> tuple[Array]:
    """dx = 2 max(x, 0) dy"""
    return (jnp.where(x <= 0, 0, 2 * x * dy),)


@rule(_relu_squared_forward, _relu_squared_backward, cases=_with_kinks(-1, 0, 1))
def relu_squared(x: Array) -> Array:
    """max(x, 0)², elementwise.

    Raises:
        TypeError: If `x` is not floating.

    >>> relu_squared(jnp.array([-1.0, 0.0, 3.0])).tolist()
    [0.0, 0.0, 9.0]

    Reference: So et al., "Primer: Searching for Efficient Transformers", 2021, section 4.1.
    """
    x = floating("relu_squared", x)
    return jnp.square(jnp.where(x <= 0, 0, x))
