"""Pooling by the Lᵖ norm of each window, channel by channel."""

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..fast.pool import spread, window_sums
from ..shared import windows
from ..shared.windows import Numbers, Padding
from . import cases
from .pool import windows_for
from .pool_checks import norms_of_windows


def _exponent(p: float) -> float:
    """p, whole where it can be: powers are products then."""
    return int(p) if p == int(p) else p


def _magnitude(x: Array, p: float) -> Array:
    """What is raised to the power p: x itself if p is even, else |x|, of slope 0 at 0."""
    return x if p % 2 == 0 else x * jnp.sign(x)


def _root(total: Array, p: float) -> Array:
    """The p-th root, with slope 0 at 0."""
    some = jnp.where(total == 0, 1, total)
    return jnp.where(total == 0, 0, jnp.sqrt(some) if p == 2 else some ** (1 / p))


def _scaled(x: Array) -> tuple[Array, Array]:
    """x in units of the largest of each image and channel, so that powers are in range; and these.

    A norm grows as its unit does, so the unit has no gradient of its own.
    """
    largest = jax.lax.stop_gradient(jnp.abs(x).max(range(1, x.ndim - 1), keepdims=True))
    unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return x / unit, unit


def _lp_pool_forward(x, *, window, p, stride, padding, dilation, ceil_mode):
    placed, p = windows_for(x, (window, stride, padding, dilation, ceil_mode)), _exponent(p)
    number, unit = _scaled(x)
    return unit * _root(window_sums(_magnitude(number, p) ** p, placed), p), x


def _lp_pool_backward(x, dy, *, window, p, stride, padding, dilation, ceil_mode):
    """dx[i] = sign(x[i]) |x[i]|^(p − 1) Σ dy[j] y[j]^(1 − p)

    over the windows j that hold i and are not 0.
    """
    placed, p = windows_for(x, (window, stride, padding, dilation, ceil_mode)), _exponent(p)
    number, _ = _scaled(x)
    size = _magnitude(number, p)
    y = _root(window_sums(size**p, placed), p)
    shares = jnp.where(y > 0, dy * jnp.where(y > 0, y, 1) ** (1 - p), 0)
    dx = size ** (p - 1) * spread(shares, placed)
    return (dx if p % 2 == 0 else jnp.sign(x) * dx,)


@rule(
    _lp_pool_forward,
    _lp_pool_backward,
    cases=cases.LP_POOL,
    check=norms_of_windows,
    wide=True,
    recomputes=True,
    fast=True,
)
def lp_pool(
    x: Array,
    *,
    window: Numbers,
    p: float = 2,
    stride: Numbers | None = None,
    padding: Padding = "VALID",
    dilation: Numbers = 1,
    ceil_mode: bool = False,
) -> Array:
    """The norm (Σ |x|ᵖ)^(1/p) of each window, channel by channel: between a sum and a maximum.

    Where a window is 0 its gradient is 0. Powers are in range, since they are taken in units of the
    largest of each image and channel: in float32 what is below 10^(−38 / p) of that counts as 0.
    PyTorch takes xᵖ without the magnitude, the same for an even p or where no x is below 0.

    Args:
        x: `(batch, *spatial, channels)`, floating.
        window: Length of the window, one for all spatial axes or one for each.
        p: 1 for the sum of magnitudes, 2 for the length; the larger, the closer to the largest.
        stride: Distance between windows, likewise; None for the window itself.
        padding: As in `conv`; it adds nothing.
        dilation: Distance between the taps of a window, one for all spatial axes or one for each.
        ceil_mode: Whether what the last window would leave out gets one more, of what there is;
            PyTorch multiplies that by the share of its taps that are missing.

    Returns:
        `(batch, *windows, channels)`, in the dtype of x; 16-bit dtypes are computed in float32 and
        rounded once.

    Raises:
        TypeError: If x is not floating.
        ValueError: If p is below 1 or infinite, or the window, stride, padding or dilation does not
            fit x.

    >>> lp_pool(jnp.array([3.0, -4.0, 0.0, 2.0])[None, :, None], window=2).ravel().tolist()
    [5.0, 2.0]

    Reference: Sermanet, Chintala & LeCun, "Convolutional Neural Networks Applied to House Numbers
    Digit Classification", 2012, on Lp pooling.
    """
    placed, p = windows_for(x, (window, stride, padding, dilation, ceil_mode)), _exponent(p)
    return _root(windows.reduce(_magnitude(x, p) ** p, placed, 0.0, jax.lax.add), p)
