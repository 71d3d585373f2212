"""The figures of an array: what each of them is, and on the CPU all of them in two readings of it.

There XLA makes each reduction a loop of its own, and computes in it again what led to the array.
So the figures that are whole numbers inside (counts, and magnitudes compared as bits) are one loop,
which runs many elements at a time, and the sums are another, both in a branch of their own. They
are traced once for each type of array, and XLA compiles once what is alike.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...ops.fast.rows import is_placed
from ...types import Array, require

Statistic = Callable[[Array], Array]

STATISTICS: dict[str, Statistic] = {
    "norm": lambda x: jnp.sqrt(jnp.sum(x * x)),
    "max": lambda x: jnp.max(jnp.abs(x)),
    "mean": lambda x: jnp.sum(x) / x.size,
    "zeros": lambda x: jnp.sum((x == 0).astype(x.dtype)) / x.size,
    "nonfinite": lambda x: jnp.sum((~jnp.isfinite(x)).astype(x.dtype)) / x.size,
}
"""What `watch` can say of a value: root of the sum of squares, largest magnitude, mean, fraction of
zeros, fraction that is NaN or infinite. Of complex values it takes the magnitudes. Norm and mean
are sums in float32 (float64 for such values); there the norm of a number above 1.8e19 is infinite,
unless it stands alone.
"""

CUTS, ROW, SHORT = 4, 64, 128
"""A long sum is of so many parts side by side, in rows of so many, until so few are left."""


def dtype_of(dtype: np.dtype) -> np.dtype:
    """The dtype of the figures of an array of this dtype."""
    return jnp.dtype(jnp.float64 if dtype in (jnp.float64, jnp.complex128) else jnp.float32)


def figures(chosen: Mapping[str, Statistic], x: Array) -> tuple[Array, ...]:
    """The chosen statistics of an array, each a number: float64 for double precision, else float32.

    Of complex numbers they are those of the magnitudes, and 0 where there is no element.

    Raises:
        ValueError: If a function that is none of `STATISTICS` gives another shape than ().

    >>> [float(y) for y in figures(STATISTICS, jnp.array([3.0, -4.0, 0.0, 0.0]))]
    [5.0, 4.0, -0.25, 0.5, 0.0]
    """
    x = jnp.asarray(x)
    if not x.size:
        return tuple(jnp.zeros((), dtype_of(x.dtype)) for _ in chosen)
    known = tuple(name for name, f in chosen.items() if f is STATISTICS.get(name))
    found = dict(zip(known, _known(known, x), strict=True)) if known else {}
    return tuple(found[name] if name in found else _own(chosen, name, x) for name in chosen)


def _own(chosen: Mapping[str, Statistic], name: str, x: Array) -> Array:
    figure = jnp.asarray(chosen[name](_real(x)))
    require(
        figure.shape == (),
        "watch",
        f"a statistic {name!r} that gives one number",
        f"shape {figure.shape}",
        "It takes an array; reduce all of its axes.",
    )
    return figure.astype(dtype_of(x.dtype))


def _real(x: Array) -> Array:
    return (jnp.abs(x) if jnp.iscomplexobj(x) else x).astype(dtype_of(x.dtype))


@functools.partial(jax.jit, static_argnums=0)
def _known(names: tuple[str, ...], x: Array) -> tuple[Array, ...]:
    """The statistics of these names."""

    def plain(x: Array) -> tuple[Array, ...]:
        return tuple(STATISTICS[name](x) for name in names)

    @jax.custom_jvp
    def fast(x: Array) -> tuple[Array, ...]:
        if x.size >= 2**31 or is_placed(x):
            return plain(x)
        return lax.platform_dependent(x, cpu=functools.partial(_apart, names), default=plain)

    fast.defjvp(lambda xs, dxs: (fast(*xs), jax.jvp(plain, xs, dxs)[1]))
    return fast(_real(x))


def _apart(names: tuple[str, ...], x: Array) -> tuple[Array, ...]:
    """The figures of an array that is there, not computed again for them.

    Only a branch does that, whose condition always holds: XLA takes barriers away on the CPU.
    """

    def first(x: Array) -> Array:
        return lax.index_in_dim(x.reshape(-1), 0, keepdims=False)

    def never(x: Array) -> tuple[Array, ...]:
        return tuple(first(x) for _ in names)

    return lax.cond(_bits(first(x)) > -2, functools.partial(_in_two_readings, names), never, x)


class _Reduction(NamedTuple):
    """A figure as a reduction from zero on.

    Attributes:
        of: What is taken of each element.
        join: How two of those are made one.
        end: The figure, of the last one and the array.
    """

    of: Callable[[Array], Array]
    join: Callable[[Array, Array], Array]
    end: Callable[[Array, Array], Array]


def _bits(x: Array) -> Array:
    """Magnitudes as whole numbers in the same order; NaN is above infinity."""
    whole = jnp.int64 if x.dtype == jnp.float64 else jnp.int32
    return lax.bitcast_convert_type(x, whole) & np.iinfo(whole).max


def _fraction(count: Array, x: Array) -> Array:
    return count.astype(x.dtype) / x.size


SUMS = {
    "norm": _Reduction(lambda x: x * x, lax.add, lambda total, x: jnp.sqrt(total)),
    "mean": _Reduction(lambda x: x, lax.add, lambda total, x: total / x.size),
}
WHOLE = {
    "max": _Reduction(_bits, lax.max, lambda bits, x: lax.bitcast_convert_type(bits, x.dtype)),
    "zeros": _Reduction(lambda x: (x == 0).astype(jnp.int32), lax.add, _fraction),
    "nonfinite": _Reduction(lambda x: (~jnp.isfinite(x)).astype(jnp.int32), lax.add, _fraction),
}

Terms = tuple[Array, ...]


def _in_two_readings(names: tuple[str, ...], x: Array) -> tuple[Array, ...]:
    flat = x.reshape(-1)
    found: dict[str, Array] = {}
    for forms, reduced in ((SUMS, _summed), (WHOLE, _counted)):
        own = {name: forms[name] for name in names if name in forms}
        if own:
            last = dict(zip(own, reduced(list(own.values()), flat), strict=True))
            found |= {name: form.end(last[name], x) for name, form in own.items()}
    return tuple(found[name] for name in names)


def _counted(forms: Sequence[_Reduction], x: Array) -> Terms:
    return _along(forms, _terms(forms, x), 0)


def _summed(forms: Sequence[_Reduction], x: Array) -> Terms:
    """The sums in an order that keeps their digits, and that leaves the loop few of them to wait
    for each other."""
    if len(x) <= SHORT:
        return _along(forms, _terms(forms, x), 0)
    length, left = divmod(len(x), CUTS)
    *parts, rest = (_terms(forms, y) for y in lax.split(x, [length] * CUTS + [left]))
    while len(parts) > 1:
        parts = [_joined(forms, *pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
    sums = _in_rows(forms, parts[0])
    return _joined(forms, sums, _along(forms, rest, 0)) if left else sums


def _in_rows(forms: Sequence[_Reduction], terms: Terms) -> Terms:
    length = len(terms[0])
    if length <= SHORT:
        return _along(forms, terms, 0)
    whole = length - length % ROW
    rows = tuple(term[:whole].reshape(-1, ROW) for term in terms)
    sums = _in_rows(forms, _along(forms, rows, 1))
    rest = tuple(term[whole:] for term in terms)
    return _joined(forms, sums, _along(forms, rest, 0)) if length > whole else sums


def _terms(forms: Sequence[_Reduction], x: Array) -> Terms:
    return tuple(form.of(x) for form in forms)


def _joined(forms: Sequence[_Reduction], xs: Terms, ys: Terms) -> Terms:
    return tuple(form.join(x, y) for form, x, y in zip(forms, xs, ys, strict=True))


def _along(forms: Sequence[_Reduction], terms: Terms, axis: int) -> Terms:
    """All the reductions along an axis, in one loop."""
    zeros = tuple(term.dtype.type(0) for term in terms)
    return tuple(lax.reduce(terms, zeros, functools.partial(_joined, forms), (axis,)))
