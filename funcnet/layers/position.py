"""Where a token stands in its sequence, and when a diffusion step happens, as vectors."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from ..jaxpr.jaxprs import is_traced
from ..nn.layer import Layer, pure, stateless, take
from ..ops.products.linear import embed
from ..ops.shared.precision import floating, spread
from ..types import Array, Key, Params, is_whole, require, shown
from . import initializers
from .initializers import drawn

PERIOD = 10000.0
"""The longest wave is 2π times this many steps."""


def LearnedPositions(length: int, *, init: Callable = initializers.normal(0.02)) -> Layer:
    """x + table[position]: a learned vector for each place in the sequence.

    A second input, `offset`, is the position of the first token of x, as decoding one token at a
    time needs: an integer for all sequences, or `(batch,)` integers.

    Args:
        length: Number of places; sequences may be shorter.
        init: `(key, shape, dtype) -> array` for the table, `(length, width)`.

    Returns:
        A layer named "learned_positions" on `(batch, time, width)`, with the parameter `table`.

    Raises:
        TypeError: At `init`, if an initialiser is no function or gives another shape.
        ValueError: If `length` is no whole number of 1 or more; when applied, if there is no axis
            of time, the offset is no integers that fit, or the sequence runs over the end of the
            table. A traced offset cannot be looked at: past the end the last row is taken.

    >>> import jax
    >>> x = jnp.zeros((2, 3, 8))
    >>> net = LearnedPositions(16)
    >>> params, _ = net.init(jax.random.key(0), x)
    >>> later = net(params, x[:, :1], 2)
    >>> params["table"].shape, bool((later == net(params, x)[:, 2:]).all())
    ((16, 8), True)

    Reference: Gehring et al., "Convolutional Sequence to Sequence Learning", 2017, section 3.1.
    """
    require(
        is_whole(length),
        "learned_positions",
        "a length that is a whole number of 1 or more",
        shown(length),
        "The table has one row for each position.",
    )

    def draw(key: Key, x: Array, offset: Array | int = 0) -> Params:
        _check_sequence("learned_positions", x)
        return {"table": drawn(init, key, (length, x.shape[-1]), initializers.float_dtype(x))}

    def apply(params: Params, x: Array, offset: Array | int = 0) -> Array:
        (table,) = take("learned_positions", params, "table")
        _check_sequence("learned_positions", x)
        x = floating("learned_positions", x)
        time, entries = x.shape[-2], len(table)
        start = 0 if is_traced(offset) else np.asarray(offset)
        require(
            np.size(start) == 0 or (np.min(start) >= 0 and np.max(start) + time <= entries),
            "learned_positions",
            f"positions from 0 to {entries - 1}",
            f"{time} of them from {offset}",
            "Make the table longer, or the sequence shorter.",
        )
        if isinstance(offset, int):
            return x + spread(table[offset : offset + time], x.shape)
        return x + embed(table, _positions("learned_positions", x, offset))

    return stateless(draw, apply, "learned_positions")


def SinusoidalPositions() -> Layer:
    """x + waves: at position p, sin(p / 10000^(2i / width)) in channel 2i, the cosine in 2i + 1.

    A second input, `offset`, is the position of the first token of x: an integer for all
    sequences, or `(batch,)` integers.

    Returns:
        A layer named "sinusoidal_positions" on `(batch, time, width)`, without parameters.

    Raises:
        TypeError: When applied, if x is not floating.
        ValueError: When applied, if there is no axis of time, or the offset is no integers that
            fit.

    >>> (100 * SinusoidalPositions()({}, jnp.zeros((1, 2, 4)))).astype(int).tolist()
    [[[0, 100, 0, 100], [84, 54, 0, 99]]]

    Reference: Vaswani et al., "Attention Is All You Need", 2017, section 3.5.
    """

    def apply(x: Array, offset: Array | int = 0) -> Array:
        _check_sequence("sinusoidal_positions", x)
        x = floating("sinusoidal_positions", x)
        width = x.shape[-1]
        at = _positions("sinusoidal_positions", x, offset)
        angles = _angles(at, (width + 1) // 2, 2 / max(width, 1))
        waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1)
        waves = waves.reshape(*angles.shape[:-1], 2 * angles.shape[-1])[..., :width]
        return x + waves.astype(x.dtype)

    return pure(apply, "sinusoidal_positions")


def TimeEmbedding(width: int) -> Layer:
    """[cos(t f), sin(t f)] with width / 2 frequencies f from 1 down to 1 / 10000, as powers.

    The frequencies are 10000^(−i / half) for i = 0 ... half − 1, where half = width / 2.

    Args:
        width: Length of the vector, an even number.

    Returns:
        A layer named "time_embedding": times of any shape, such as `(batch,)`, integers or not, to
        `(*shape, width)`, without parameters.

    Raises:
        ValueError: If `width` is no even number of 2 or more.

    >>> TimeEmbedding(4)({}, jnp.array([0, 1])).round(2).tolist()[0]
    [1.0, 1.0, 0.0, 0.0]

    Reference: Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", 2020, appendix B, with
    the order and frequencies of Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic
    Models", 2021.
    """
    require(
        is_whole(width, 2) and width % 2 == 0,
        "time_embedding",
        "a width that is an even number of 2 or more",
        shown(width),
        "One half are cosines, the other sines.",
    )

    def apply(t: Array) -> Array:
        t = jnp.asarray(t)
        angles = _angles(t, width // 2, 2 / width)
        waves = jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], -1)
        return waves.astype(initializers.float_dtype(t))

    return pure(apply, "time_embedding")


def _check_sequence(where: str, x: Array) -> None:
    require(
        len(jnp.shape(x)) >= 2,
        where,
        "x of rank 2 or more (..., time, width)",
        f"shape {jnp.shape(x)}",
        "Add the missing axes: x[None].",
    )


def _positions(where: str, x: Array, offset: Array | int) -> Array:
    """`(time,)`, or `(batch, time)` where there is an offset for each sequence."""
    offset = jnp.asarray(offset)
    require(
        jnp.issubdtype(offset.dtype, jnp.integer) and offset.shape in ((), x.shape[:-2]),
        where,
        f"an integer offset, or integers of shape {x.shape[:-2]}",
        f"{offset.dtype} of shape {offset.shape}",
        "It is the position of each sequence's first token.",
    )
    return jnp.asarray(offset, jnp.int32)[..., None] + jnp.arange(x.shape[-2], dtype=jnp.int32)


def _angles(t: Array, count: int, step: float) -> Array:
    """t times 10000^(−i step) for i below `count`, along a new last axis; float32 at least."""
    dtype = jnp.promote_types(initializers.float_dtype(t), jnp.float32)
    frequencies = PERIOD ** -(np.arange(count) * step)
    return t.astype(dtype)[..., None] * jnp.asarray(frequencies, dtype)
