"""Padding and cropping.

Each way of padding copies entries of x beyond its ends; the backward pass folds the cotangents of
the copies back onto what they were copied from. Nothing is kept.
"""

import operator
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ...rules.rule import Case, normal_case, rule
from ...types import Array, require
from ..shared.precision import widened

MODES = ("constant", "reflect", "edge", "wrap")


def _is_pair(pair: object) -> bool:
    return isinstance(pair, tuple) and len(pair) == 2 and all(hasattr(n, "__index__") for n in pair)


def _check_pad(x: Array, widths: Sequence, mode: str, value: float) -> list[tuple[int, int]]:
    """The widths as Python integers."""
    shape = jnp.shape(x)
    require(
        mode in MODES,
        "pad",
        f"a mode among {', '.join(MODES)}",
        repr(mode),
        "PyTorch's replicate is edge, and its circular is wrap.",
    )
    require(
        value == 0 or mode == "constant",
        "pad",
        f"no value in mode {mode}",
        value,
        "Only mode constant fills in a value.",
    )
    require(
        isinstance(widths, tuple) and len(widths) == len(shape) and all(map(_is_pair, widths)),
        "pad",
        "widths as pairs (low, high) of integers, one for each axis of x",
        f"{widths} for shape {shape}",
        "Write (0, 0) for an axis that stays as it is.",
    )
    pairs = [(operator.index(low), operator.index(high)) for low, high in widths]
    for axis, (n, (low, high)) in enumerate(zip(shape, pairs, strict=True)):
        require(
            n + min(low, 0) + min(high, 0) >= 0,
            "pad",
            f"to crop at most {n} from axis {axis}, its length",
            (low, high),
            "Negative widths crop.",
        )
        most = {"reflect": max(n - 1, 0), "wrap": n, "edge": 0 if n == 0 else max(low, high)}
        require(
            max(low, high) <= most.get(mode, max(low, high)),
            "pad",
            f"widths of at most {most.get(mode)} along axis {axis} of length {n} in mode {mode}",
            (low, high),
            "There is nothing more to copy: pad twice, or use mode constant.",
        )
    return pairs


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


def _pad_forward(x: Array, *, widths: Sequence, mode: str, value: float) -> tuple[Array, tuple[()]]:
    pairs = _check_pad(x, widths, mode, value)
    y = jnp.asarray(x)
    if mode == "constant":
        fill = jnp.asarray(value, y.dtype)
        return jax.lax.pad(y, fill, [(low, high, 0) for low, high in pairs]), ()
    for axis, (low, high) in enumerate(pairs):
        before, after = _ends(y, axis, max(low, 0), max(high, 0), mode)
        y = jnp.concatenate([before, y, after], axis) if max(low, high) > 0 else y
        y = _shift(y, axis, min(low, 0), min(high, 0))
    return y, ()


def _pad_backward(_: tuple[()], dy: Array, *, widths: Sequence, mode: str) -> tuple[Array]:
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


def _cases() -> dict[str, Case]:
    both = ((2, 1), (0, 0), (1, 3))
    cases = {mode: normal_case((3, 2, 4), widths=both, mode=mode) for mode in MODES}
    for mode in MODES:
        crop = ((-1, 2), (1, -2), (-1, -2))
        cases[f"{mode}, cropped"] = normal_case((3, 4, 4), widths=crop, mode=mode)
    cases["value"] = normal_case((3,), widths=((2, 1),), value=-1.5)
    cases["one number"] = normal_case((), widths=())
    cases["edge, wide"] = normal_case((2, 1), widths=((5, 0), (0, 4)), mode="edge")
    cases["wrap, whole"] = normal_case((2, 3), widths=((2, 2), (3, 0)), mode="wrap")
    cases["none"] = normal_case((0, 3), widths=((0, 0), (1, 1)), mode="reflect")
    return cases


@rule(_pad_forward, _pad_backward, cases=_cases())
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
    pairs = _check_pad(x, widths, mode, value)
    fill = {"constant_values": value} if mode == "constant" else {}
    if not pairs:
        return jnp.asarray(x)
    y = jnp.pad(x, [(max(low, 0), max(high, 0)) for low, high in pairs], mode, **fill)
    crops = [
        slice(max(-low, 0), n - max(-high, 0))
        for n, (low, high) in zip(y.shape, pairs, strict=True)
    ]
    return y[tuple(crops)]
