"""Padding and cropping.

Each way of padding copies entries of x beyond its ends; the backward pass folds the cotangents of
the copies back onto what they were copied from. Nothing is kept.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ...rules.passes import widened
from ...rules.rule import rule
from ...types import Array
from . import cases
from .checks import widths_for


def _slice(x: Array, axis: int, start: int, stop: int) -> Array:
    return jax.lax.slice_in_dim(x, start, stop, axis=axis)


def _ends(x: Array, axis: int, low: int, high: int, mode: str) -> tuple[Array, Array]:
    """The copies that go before and after x along one axis."""
    n = x.shape[axis]
    if mode == "reflect":
        before = _slice(x, axis, 1, low + 1) if low else _slice(x, axis, 0, 0)
        after = _slice(x, axis, n - 1 - high, n - 1) if high else _slice(x, axis, 0, 0)
        return jnp.flip(before, axis), jnp.flip(after, axis)
    if mode == "wrap":
        return _slice(x, axis, n - low, n), _slice(x, axis, 0, high)
    first, last = _slice(x, axis, 0, min(n, 1)), _slice(x, axis, max(n - 1, 0), n)
    return jnp.repeat(first, low, axis), jnp.repeat(last, high, axis)


def _fold(before: Array, after: Array, axis: int, n: int, mode: str) -> Array:
    """The sum of the cotangents of both ends, each at the place among n it was copied from."""
    low, high = before.shape[axis], after.shape[axis]
    if mode == "reflect":
        before, after = jnp.flip(before, axis), jnp.flip(after, axis)
        starts = (1, n - 1 - high)
    elif mode == "wrap":
        starts = (n - low, 0)
    else:
        before, after = (end.sum(axis, keepdims=True) for end in (before, after))
        starts = (0, n - 1)
    return _place(before, axis, starts[0], n) + _place(after, axis, starts[1], n)


def _place(part: Array, axis: int, start: int, n: int) -> Array:
    return _shift(part, axis, start, n - start - part.shape[axis])


def _shift(x: Array, axis: int, low: int, high: int) -> Array:
    """Zeros put on, or entries taken off, at both ends of one axis."""
    widths = [(low, high, 0) if d == axis else (0, 0, 0) for d in range(x.ndim)]
    return jax.lax.pad(x, jnp.zeros((), x.dtype), widths)


def _pad_forward(x, *, widths, mode, value):
    if mode == "constant":
        return jax.lax.pad(x, jnp.asarray(value, x.dtype), [(*pair, 0) for pair in widths]), ()
    y = x
    for axis, (low, high) in enumerate(widths):
        before, after = _ends(y, axis, max(low, 0), max(high, 0), mode)
        y = jnp.concatenate([before, y, after], axis) if max(low, high) > 0 else y
        y = _shift(y, axis, min(low, 0), min(high, 0))
    return y, ()


def _pad_backward(_, dy, *, widths, mode):
    """Each entry of dx sums dy over its copies, and is 0 where it was cropped.
    constant: none, dx = pad(dy, −widths);  reflect: the ends, turned round, beside the borders
    edge: the ends' sums, on the borders;  wrap: the ends, at the opposite borders
    """
    if mode == "constant":
        zero = jnp.zeros((), dy.dtype)
        return (jax.lax.pad(dy, zero, [(-low, -high, 0) for low, high in widths]),)
    dx = widened(dy)
    for axis, (low, high) in reversed(list(enumerate(widths))):
        dx = _shift(dx, axis, max(-low, 0), max(-high, 0))
        low, high = max(low, 0), max(high, 0)
        if low or high:
            end = dx.shape[axis] - high
            before, after = _slice(dx, axis, 0, low), _slice(dx, axis, end, end + high)
            middle = _slice(dx, axis, low, end)
            dx = middle + _fold(before, after, axis, end - low, mode)
    return (dx,)


@rule(_pad_forward, _pad_backward, cases=cases.PAD, check=widths_for)
def pad(
    x: Array,
    *,
    widths: Sequence[Sequence[int]],
    mode: str = "constant",
    value: float = 0.0,
) -> Array:
    """x with entries put on at its ends, or, where a width is negative, taken off.

    Args:
        x: Any shape and dtype.
        widths: `(low, high)` for each axis.
        mode: What the new entries are. "constant": `value`. "reflect": the neighbours of the
            border in mirror order, without the border itself. "edge": the border (PyTorch calls
            it replicate). "wrap": the entries from the opposite end (circular).
        value: What "constant" puts in.

    Returns:
        Along each axis `low + n + high` entries, in the dtype of `x`.

    Raises:
        ValueError: If the mode is unknown, there is not one pair for each axis, more is cropped
            than is there, or there is not enough to copy.

    >>> x = jnp.array([1, 2, 3])
    >>> pad(x, widths=[(2, 0)], mode="reflect").tolist(), pad(x, widths=[(1, -1)]).tolist()
    ([3, 2, 1, 2, 3], [0, 1, 2])

    Reference: Harris et al., "Array Programming with NumPy", 2020: `numpy.pad`, whose modes these
    are.
    """
    if not widths:
        return x
    fill = {"constant_values": value} if mode == "constant" else {}
    y = jnp.pad(x, [(max(low, 0), max(high, 0)) for low, high in widths], mode, **fill)
    crops = (
        slice(max(-low, 0), n - max(-high, 0))
        for n, (low, high) in zip(y.shape, widths, strict=True)
    )
    return y[tuple(crops)]
