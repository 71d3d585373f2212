"""Rotary positions: pairs of numbers turned by an angle that grows with the time."""

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from . import cases, checks


def _turned(x: Array, positions: Array | None, interleaved: bool, base: float, sign: int) -> Array:
    """x with each pair turned by its angle: `sign` 1 forwards, −1 back."""
    half = x.shape[3] // 2
    exponents = jnp.arange(half, dtype=x.dtype) * (-1 / max(half, 1))
    at = jnp.arange(x.shape[1]) if positions is None else positions
    at = jax.lax.stop_gradient(jnp.asarray(at, x.dtype))
    angles = (at[..., None] * jnp.asarray(base, x.dtype) ** exponents)[..., None, :]
    cos, sin = jnp.cos(angles), sign * jnp.sin(angles)
    if interleaved:
        a, b = x[..., 0::2], x[..., 1::2]
    else:
        a, b = x[..., :half], x[..., half:]
    c, d = a * cos - b * sin, a * sin + b * cos
    if interleaved:
        return jnp.stack([c, d], axis=-1).reshape(x.shape)
    return jnp.concatenate([c, d], axis=-1)


def _rotary_forward(x, positions, *, interleaved, base):
    return _turned(x, positions, interleaved, base, 1), positions


def _rotary_backward(positions, dy, *, interleaved, base):
    """dx = dy turned by −θ, the inverse and so the transpose of the turn by θ"""
    return _turned(dy, positions, interleaved, base, -1), None


@rule(
    _rotary_forward,
    _rotary_backward,
    nodiff=("positions",),
    cases=cases.ROTARY,
    check=checks.rotary,
    wide=True,
)
def rotary(
    x: Array, positions: Array | None = None, *, interleaved: bool = False, base: float = 10000.0
) -> Array:
    """(a, b) turned by θ: (a cos θ − b sin θ, a sin θ + b cos θ), with θ = position · base^(−2i/d).

    The product of a query and a key that were both turned depends on the distance between their
    positions alone. Keeps the positions, and nothing of x.

    Args:
        x: Queries or keys, `(batch, time, heads, d)`, with d even.
        positions: `(time,)` or `(batch, time)`, constants; None for 0, 1, 2 and so on.
        interleaved: Whether pair i is numbers 2i and 2i + 1 of a head, and not i and i + d/2.
        base: The larger, the slower the last pairs turn.

    Returns:
        The shape and dtype of `x`.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If `x` is not of rank 4, its width odd, the positions do not fit, or
            `base` is not above 0.

    >>> x = jnp.array([1.0, 0.0]).reshape(1, 1, 1, 2)
    >>> rotary(x, jnp.array([jnp.pi / 2])).ravel().round(3).tolist()
    [-0.0, 1.0]

    Reference: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021,
    equations 15 and 34.
    """
    return _turned(x, positions, interleaved, base, 1)
