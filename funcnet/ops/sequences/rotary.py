"""Rotary positions: pairs of numbers turned by an angle that grows with the time."""

import math

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from . import cases, checks


def rotary_frequencies(
    width: int, *, base: float = 10000.0, dtype: jnp.dtype | None = None
) -> Array:
    """base^(−2i/width), by how much pair i of a head is turned from one position to the next.

    Args:
        width: How many numbers are turned.
        base: The larger, the slower the last pairs turn.
        dtype: Of the result; None for float32, or float64 where JAX has it.

    Returns:
        Radians for each position, `(width // 2,)`.

    Raises:
        ValueError: If the width is not even, or the base not above 0.

    >>> rotary_frequencies(4, base=16.0).tolist()
    [1.0, 0.25]

    Reference: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021,
    equation 15.
    """
    checks.rotary_frequencies(width, base)
    half = width // 2
    exponents = jnp.arange(half, dtype=dtype or float) * (-1 / max(half, 1))
    return jnp.asarray(base, exponents.dtype) ** exponents


def llama3_frequencies(
    frequencies: Array,
    *,
    factor: float = 8.0,
    low_freq_factor: float = 1.0,
    high_freq_factor: float = 4.0,
    length: int = 8192,
) -> Array:
    """Frequencies for longer texts than those of training, as Llama 3.1 has them.

    A pair that turns `high_freq_factor` times or more over `length` stays, one that turns
    `low_freq_factor` times or fewer is slowed down by `factor`, and between the two the share that
    stays grows with the number of turns.

    Args:
        frequencies: Radians for each position, `(pairs,)`, such as `rotary_frequencies` gives.
        factor: How many times as long texts are to be.
        low_freq_factor: See above.
        high_freq_factor: The same; above `low_freq_factor`.
        length: Tokens of the texts of training, `original_max_position_embeddings`.

    Returns:
        The shape and dtype of `frequencies`.

    Raises:
        ValueError: If a factor or the length is not above 0, or the two factors are not in order.

    >>> frequencies = 2 * jnp.pi / jnp.array([1000.0, 3276.8, 9000.0])
    >>> (llama3_frequencies(frequencies) / frequencies).round(4).tolist()
    [1.0, 0.5625, 0.125]

    Reference: Grattafiori et al., "The Llama 3 Herd of Models", 2024, and the `rope_scaling` of
    type "llama3" in the configuration of Llama 3.1.
    """
    checks.llama3_frequencies(factor, low_freq_factor, high_freq_factor, length)
    turns = length * frequencies / (2 * math.pi)
    stays = jnp.clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)
    return frequencies * (stays + (1 - stays) / factor)


def _angles(
    x: Array,
    positions: Array | None,
    frequencies: Array | None,
    angles: Array | None,
    *,
    base: float,
    width: int | None,
) -> Array:
    """What each pair is turned by, `(time, 1, pairs)` or `(batch, time, 1, pairs)`."""
    if angles is None:
        at = jnp.arange(x.shape[1]) if positions is None else positions
        if frequencies is None:
            pairs = x.shape[3] if width is None else width
            frequencies = rotary_frequencies(pairs, base=base, dtype=x.dtype)
        angles = jnp.asarray(at, x.dtype)[..., None] * jnp.asarray(frequencies, x.dtype)
    return jax.lax.stop_gradient(jnp.asarray(angles, x.dtype))[..., None, :]


def _turned(x: Array, angles: Array, interleaved: bool) -> Array:
    """x with the pairs that there are angles for turned by them."""
    half = angles.shape[-1]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    x, rest = x[..., : 2 * half], x[..., 2 * half :]
    if interleaved:
        a, b = x[..., 0::2], x[..., 1::2]
    else:
        a, b = x[..., :half], x[..., half:]
    c, d = a * cos - b * sin, a * sin + b * cos
    y = jnp.stack([c, d], -1).reshape(x.shape) if interleaved else jnp.concatenate([c, d], -1)
    return jnp.concatenate([y, rest], -1)


def _rotary_forward(x, positions, frequencies, angles, *, interleaved, base, width):
    constants = positions, frequencies, angles
    return _turned(x, _angles(x, *constants, base=base, width=width), interleaved), constants


def _rotary_backward(constants, dy, *, interleaved, base, width):
    """dx = dy turned by −θ, the inverse and so the transpose of the turn by θ"""
    angles = _angles(dy, *constants, base=base, width=width)
    return _turned(dy, -angles, interleaved), None, None, None


@rule(
    _rotary_forward,
    _rotary_backward,
    nodiff=("positions", "frequencies", "angles"),
    cases=cases.ROTARY,
    check=checks.rotary,
    wide=True,
)
def rotary(
    x: Array,
    positions: Array | None = None,
    frequencies: Array | None = None,
    angles: Array | None = None,
    *,
    interleaved: bool = False,
    base: float = 10000.0,
    width: int | None = None,
) -> Array:
    """(a, b) turned by θ: (a cos θ − b sin θ, a sin θ + b cos θ), with θ = position · base^(−2i/d).

    The product of a query and a key that were both turned depends on the distance between their
    positions alone. Keeps the constants that it was given, and nothing of x.

    Args:
        x: Queries or keys, `(batch, time, heads, width of a head)`.
        positions: `(time,)` or `(batch, time)`, constants; None for 0, 1, 2 and so on.
        frequencies: `(pairs,)`, constants: by how many radians a pair is turned from one position
            to the next; None for base^(−2i/d). See `rotary_frequencies`, `llama3_frequencies`.
        angles: θ itself in radians, `(time, pairs)` or `(batch, time, pairs)`, constants, in place
            of both; None to make them.
        interleaved: Whether pair i is numbers 2i and 2i + 1 of a head, as in GPT-J, and not i and
            i + d/2, as in GPT-NeoX and Llama.
        base: The larger, the slower the last pairs turn.
        width: d, how many numbers of a head are turned, the first ones, as in GPT-NeoX, GPT-J and
            Phi; None for all, or for two to each of the frequencies or angles.

    Returns:
        The shape and dtype of `x`.

    Raises:
        TypeError: If `x` is not floating.
        ValueError: If `x` is not of rank 4, d odd or longer than a head, the constants do not fit,
            or `base` is not above 0.

    >>> x = jnp.array([1.0, 0.0, 5.0]).reshape(1, 1, 1, 3)
    >>> rotary(x, jnp.array([jnp.pi / 2]), width=2).ravel().round(3).tolist()
    [-0.0, 1.0, 5.0]

    Reference: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021,
    equations 15 and 34; Black et al., "GPT-NeoX-20B", 2022, section 2.1.1 (a part of a head).
    """
    turned = _angles(x, positions, frequencies, angles, base=base, width=width)
    return _turned(x, turned, interleaved)
