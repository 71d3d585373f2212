"""Channels held down by the channels beside them."""

import jax
import jax.numpy as jnp
import numpy as np

from ...rules.rule import rule
from ...types import Array
from . import cases
from .checks import neighbours


def _sum_beside(x: Array, below: int, above: int) -> Array:
    """For each channel the sum over itself, so many before it and so many after it."""
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(below, above)])
    width = x.shape[-1]
    slices = [padded[..., i : i + width] for i in range(below + above + 1)]
    return sum(slices[1:], slices[0])


def _local_response_norm_forward(x, *, size, k, alpha, beta):
    base = k + alpha * _sum_beside(x * x, size // 2, (size - 1) // 2)
    return x * base**-beta, x


def _local_response_norm_backward(x, dy, *, size, k, alpha, beta):
    """With u[i] = k + α Σ x[j]² over the channels j beside i, which are those that i is beside:

    dx[j] = dy[j] u[j]^−β − 2 α β x[j] Σ dy[i] x[i] u[i]^(−β − 1)
    """
    below, above = size // 2, (size - 1) // 2
    base = k + alpha * _sum_beside(x * x, below, above)
    power = base**-beta
    beside = _sum_beside(dy * x * power / base, above, below)
    return (dy * power - 2 * alpha * beta * x * beside,)


@rule(
    _local_response_norm_forward,
    _local_response_norm_backward,
    cases=cases.LOCAL_RESPONSE_NORM,
    check=neighbours,
    wide=True,
    recomputes=True,
)
def local_response_norm(
    x: Array, *, size: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
) -> Array:
    """x / (k + alpha Σ x²)^beta, the sum being over `size` channels around each.

    PyTorch divides alpha by the size, and has k = 1: give `alpha / size` for the same.

    Args:
        x: `(..., channels)`, floating.
        size: The number of channels in a sum, itself among them; if it is even, one more is before
            it than after it. Beyond the first and the last channel there is nothing.
        k: Above 0, so that nothing is divided by 0.
        alpha: The weight of the sum.
        beta: The exponent.

    Returns:
        Shape and dtype of x; 16-bit dtypes are computed in float32 and rounded once.

    Raises:
        TypeError: If x is not floating.
        ValueError: If x is a scalar, the size no whole number of 1 or more, or k not above 0.

    >>> local_response_norm(jnp.array([3.0, 1.0]), size=1, k=1.0, alpha=1.0, beta=1.0)
    Array([0.3, 0.5], dtype=float32)

    Reference: Krizhevsky, Sutskever & Hinton, "ImageNet Classification with Deep Convolutional
    Neural Networks", 2012, section 3.3.
    """
    channel = np.arange(x.shape[-1])
    ahead = channel[:, None] - channel  # how far the channel of a row is after that of a column
    beside = ((-((size - 1) // 2) <= ahead) & (ahead <= size // 2)).astype(x.dtype)
    total = jnp.tensordot(x * x, beside, (-1, 1), precision=jax.lax.Precision.HIGHEST)
    return x * (k + alpha * total) ** -beta
