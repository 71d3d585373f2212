"""Rotary positions: pairs of numbers turned by an angle that grows with the time."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.random import Generator

from ...rules.rule import Case, normal_case, rule
from ...types import Array, require
from ..shared.precision import floating, widened


def _check_rotary(x: Array, positions: Array | None, base: float) -> None:
    floating("rotary", x)
    require(
        jnp.ndim(x) == 4 and x.shape[3] % 2 == 0,
        "rotary",
        "x of rank 4 (batch, time, heads, width) with an even width",
        f"shape {jnp.shape(x)}",
        "Its numbers are turned in pairs, head by head.",
    )
    batch, time = x.shape[:2]
    require(
        positions is None or jnp.shape(positions) in ((time,), (batch, time), (1, time)),
        "rotary",
        f"positions of shape ({time},) or ({batch}, {time})",
        f"shape {positions is not None and jnp.shape(positions)}",
        "Pass None for 0, 1, 2, and so on.",
    )
    require(base > 0, "rotary", "a base above 0", base, "The usual one is 10000.")


def _turned(x: Array, positions: Array | None, interleaved: bool, base: float, sign: int) -> Array:
    """x with each pair turned by its angle: `sign` 1 forwards, −1 back."""
    _check_rotary(x, positions, base)
    rows = widened(x)
    half = x.shape[3] // 2
    exponents = jnp.arange(half, dtype=rows.dtype) * (-1 / max(half, 1))
    at = jnp.arange(x.shape[1]) if positions is None else positions
    at = jax.lax.stop_gradient(jnp.asarray(at, rows.dtype))
    angles = (at[..., None] * jnp.asarray(base, rows.dtype) ** exponents)[..., None, :]
    cos, sin = jnp.cos(angles), sign * jnp.sin(angles)
    if interleaved:
        a, b = rows[..., 0::2], rows[..., 1::2]
    else:
        a, b = rows[..., :half], rows[..., half:]
    c, d = a * cos - b * sin, a * sin + b * cos
    if interleaved:
        y = jnp.stack([c, d], axis=-1).reshape(x.shape)
    else:
        y = jnp.concatenate([c, d], axis=-1)
    return y.astype(x.dtype)


def _rotary_forward(
    x: Array, positions: Array | None, *, interleaved: bool, base: float
) -> tuple[Array, Array | None]:
    return _turned(x, positions, interleaved, base, 1), positions


def _rotary_backward(
    positions: Array | None, dy: Array, *, interleaved: bool, base: float
) -> tuple[Array, None]:
    """dx = dy turned by −θ, the inverse and so the transpose of the turn by θ"""
    return _turned(dy, positions, interleaved, base, -1), None


def _later(random: Generator) -> tuple:
    return random.standard_normal((2, 3, 2, 4)), np.array([[0, 1, 2], [7, 8, 9]])


@rule(
    _rotary_forward,
    _rotary_backward,
    nodiff=("positions",),
    cases={
        "halves": normal_case((2, 3, 2, 4), None),
        "interleaved": normal_case((2, 3, 1, 6), None, interleaved=True),
        "positions, base": Case(_later, {"base": 500.0}),
        "none": normal_case((2, 0, 2, 4), None),
    },
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
