"""What is known of the elements of an array without running anything: an interval, and not 0."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ...jaxpr.equations import Equation
from ...jaxpr.jaxprs import is_traced


class Range(NamedTuple):
    """Where the elements of an array lie.

    Attributes:
        low: None is less.
        high: None is greater.
        nonzero: None is 0, as it is of `exp` before it is rounded.
        special: Whether a NaN or an infinity was put there on purpose.
        guarded: Whether a `where` stands before it that puts a constant in some places.
    """

    low: float = -math.inf
    high: float = math.inf
    nonzero: bool = False
    special: bool = False
    guarded: bool = False

    @property
    def misses_zero(self) -> bool:
        """Whether no element is 0."""
        return self.nonzero or self.low > 0 or self.high < 0

    @property
    def holds_zero(self) -> bool:
        """Whether an element may be 0."""
        return not self.misses_zero

    @property
    def above_zero(self) -> bool:
        """Whether all elements are positive."""
        return self.low > 0 or (self.low == 0 and self.nonzero)

    @property
    def one(self) -> float | None:
        """The value of all elements, if it is known."""
        return self.low if self.low == self.high else None

    @property
    def has_end(self) -> bool:
        """Whether anything bounds it."""
        return math.isfinite(self.low) or math.isfinite(self.high)


ANY = Range()


def is_real(dtype: Any) -> bool:
    """Whether a dtype is of real numbers, whole ones or truth values."""
    return any(jnp.issubdtype(dtype, kind) for kind in (np.floating, np.integer, np.bool_))


def of_array(value: Any) -> Range:
    """The range of a constant.

    >>> of_array(np.array([0.5, 2.0]))[:3], of_array(True)[:2]
    ((0.5, 2.0, True), (1.0, 1.0))
    """
    if not is_real(jnp.result_type(value)) or is_traced(value):
        return ANY
    array = np.asarray(value).astype(np.float64)
    finite = array[np.isfinite(array)]
    special = finite.size < array.size
    if not finite.size:
        return Range(special=special)
    low, high, nonzero = float(finite.min()), float(finite.max()), bool((finite != 0).all())
    low = -math.inf if np.isneginf(array).any() else low
    high = math.inf if np.isposinf(array).any() else high
    return Range(low, high, nonzero, special)


def of_dtype(dtype: Any) -> Range:
    """What the dtype of an array tells."""
    if jnp.issubdtype(dtype, np.bool_):
        return Range(0, 1)
    return Range(low=0) if jnp.issubdtype(dtype, np.unsignedinteger) else ANY


def join(ranges: Sequence[Range]) -> Range:
    """The range of what comes from one of several.

    >>> join([Range(0, 1), Range(2, 3)])[:2]
    (0, 3)
    """
    return Range(
        min(r.low for r in ranges),
        max(r.high for r in ranges),
        all(r.misses_zero for r in ranges),
        any(r.special for r in ranges),
        any(r.guarded for r in ranges),
    )


def _ordered(values: Sequence[float]) -> tuple[float, float]:
    if any(map(math.isnan, values)):
        return -math.inf, math.inf
    return min(values), max(values)


def _add(a: Range, b: Range) -> Range:
    low, high = a.low + b.low, a.high + b.high
    one_sign = min(a.low, b.low) >= 0 or max(a.high, b.high) <= 0
    nonzero = one_sign and (a.misses_zero or b.misses_zero)
    low = -math.inf if math.isnan(low) else low
    return Range(low, math.inf if math.isnan(high) else high, nonzero)


def _neg(a: Range) -> Range:
    return Range(-a.high, -a.low, a.nonzero)


def _times(x: float, y: float) -> float:
    return 0.0 if x == 0 or y == 0 else x * y


def _mul(a: Range, b: Range) -> Range:
    ends = [_times(x, y) for x in a[:2] for y in b[:2]]
    return Range(*_ordered(ends), a.misses_zero and b.misses_zero)


def _inverse(a: Range) -> Range:
    if a.low >= 0 and a.misses_zero:
        return Range(1 / a.high, 1 / a.low if a.low else math.inf, True)
    if a.high <= 0 and a.misses_zero:
        return Range(1 / a.high if a.high else -math.inf, 1 / a.low, True)
    return Range(0 if a.low >= 0 else -math.inf, nonzero=True)


def _even(a: Range) -> Range:
    ends = [abs(a.low), abs(a.high)]
    return Range(0 if a.low <= 0 <= a.high else min(ends), max(ends), a.misses_zero)


def _through(f: Callable[[float], float], least: float, most: float) -> Callable[[Range], Range]:
    """The range of an increasing function that lies between two values."""

    def at(x: float, end: float) -> float:
        if math.isinf(x):
            return most if x > 0 else least
        try:
            return f(x)
        except (ValueError, OverflowError, ZeroDivisionError):
            return end

    keeps_zero = at(0.0, most) == 0
    return lambda a: Range(at(a.low, least), at(a.high, most), keeps_zero and a.nonzero)


def _exp(a: Range) -> Range:
    return _through(math.exp, 0, math.inf)(a)._replace(nonzero=True)


def _exp2(a: Range) -> Range:
    return _exp(Range(a.low * math.log(2), a.high * math.log(2)))


def _logistic(a: Range) -> Range:
    return _through(lambda x: 1 / (1 + math.exp(-x)), 0, 1)(a)._replace(nonzero=True)


def _powered(a: Range, n: int) -> Range:
    size = abs(n)
    if size % 2 == 0:
        ends = _even(a)
        found = Range(_times(ends.low, ends.low), _times(ends.high, ends.high), a.misses_zero)
        found = found if size == 2 else Range(0, nonzero=a.misses_zero)
    else:
        found = a if size == 1 else Range(0 if a.low >= 0 else -math.inf, nonzero=a.misses_zero)
    return _inverse(found) if n < 0 else found


def _pow(a: Range, b: Range) -> Range:
    low = 0 if a.low >= 0 else -math.inf
    within = a.low >= 0 and a.high <= 1 and b.low >= 0
    return Range(low, 1 if within else math.inf, a.above_zero)


def _between(low: float, high: float) -> Callable[..., Range]:
    return lambda *_: Range(low, high)


def _max(a: Range, b: Range) -> Range:
    low, high = max(a.low, b.low), max(a.high, b.high)
    return Range(low, high, a.misses_zero and b.misses_zero)


def _min(a: Range, b: Range) -> Range:
    return _neg(_max(_neg(a), _neg(b)))


def _rounded(a: Range) -> Range:
    down = _through(math.floor, -math.inf, math.inf)(a)
    return Range(down.low, _through(math.ceil, -math.inf, math.inf)(a).high)


def _compare(sure: bool, never: bool) -> Range:
    return Range(1, 1) if sure else Range(0, 0) if never else Range(0, 1)


def _lt(a: Range, b: Range) -> Range:
    below = a.high < b.low or (a.high <= b.low == 0 and (a.misses_zero or b.misses_zero))
    return _compare(below, a.low >= b.high)


def _le(a: Range, b: Range) -> Range:
    return _not(_lt(b, a))


def _eq(a: Range, b: Range) -> Range:
    apart = a.high < b.low or b.high < a.low
    zeros = (b.one == 0 and a.misses_zero) or (a.one == 0 and b.misses_zero)
    return _compare(a.one is not None and a.one == b.one, apart or zeros)


def _not(a: Range) -> Range:
    return Range(1 - a.high, 1 - a.low) if a.low >= 0 and a.high <= 1 else ANY


PLAIN: dict[str, Callable[..., Range]] = {
    "add": _add, "add_any": _add, "sub": lambda a, b: _add(a, _neg(b)), "neg": _neg, "mul": _mul,
    "div": lambda a, b: _mul(a, _inverse(b)), "abs": _even, "max": _max, "min": _min,
    "square": lambda a: _powered(a, 2), "exp": _exp, "exp2": _exp2,
    "logistic": _logistic,
    "log": _through(math.log, -math.inf, math.inf),
    "log2": _through(math.log2, -math.inf, math.inf),
    "log1p": _through(math.log1p, -math.inf, math.inf),
    "expm1": _through(math.expm1, -1, math.inf), "sqrt": _through(math.sqrt, 0, math.inf),
    "rsqrt": lambda a: _inverse(_through(math.sqrt, 0, math.inf)(a)),
    "cbrt": _through(math.cbrt, -math.inf, math.inf), "tanh": _through(math.tanh, -1, 1),
    "erf": _through(math.erf, -1, 1), "sin": _between(-1, 1), "cos": _between(-1, 1),
    "acos": _between(0, math.pi), "asin": _between(-math.pi / 2, math.pi / 2),
    "atan": _between(-math.pi / 2, math.pi / 2), "atan2": _between(-math.pi, math.pi),
    "cosh": _between(1, math.inf), "sign": _between(-1, 1), "pow": _pow, "lt": _lt, "le": _le,
    "gt": lambda a, b: _lt(b, a), "ge": lambda a, b: _le(b, a), "eq": _eq,
    "ne": lambda a, b: _not(_eq(a, b)), "is_finite": _between(0, 1), "reduce_or": _between(0, 1),
    "reduce_and": _between(0, 1), "not": _not,
    "floor": _through(math.floor, -math.inf, math.inf),
    "ceil": _through(math.ceil, -math.inf, math.inf),
    "round": _rounded,
    "clamp": lambda low, x, high: _min(_max(x, low), high),
}  # fmt: skip
"""From the ranges of the operands to that of the result, by primitive."""

SAME = {
    "broadcast_in_dim", "reshape", "transpose", "squeeze", "expand_dims", "slice", "dynamic_slice",
    "gather", "rev", "copy", "copy_p", "reduce_precision", "convert_element_type", "stop_gradient",
    "name", "reduce_max", "reduce_min", "cummax", "cummin", "real", "device_put", "split", "pvary",
    "sharding_constraint", "reduce_window_max", "top_k",
}  # fmt: skip
"""Primitives whose results have elements of their first operand."""

VIEWS = {
    "broadcast_in_dim", "reshape", "squeeze", "expand_dims", "copy", "copy_p", "name",
    "convert_element_type", "reduce_precision", "pvary", "optimization_barrier",
}  # fmt: skip
"""Primitives whose result is their operand, in another shape at most."""

EACH = {"optimization_barrier", "sort"}
"""Primitives each of whose results has elements of the operand at its place."""

JOINED = {"concatenate", "pad", "dynamic_update_slice"}
"""Primitives whose result has elements of all operands that are no index."""

STRUCTURE = SAME | EACH | {"concatenate"}


def result_range(e: Equation, ranges: list[Range], i: int, same: bool) -> Range:
    """The range of a result of an equation.

    Args:
        e: The equation.
        ranges: Those of its operands.
        i: Which of its results.
        same: Whether its first two operands are one value.
    """
    found = _found(e, ranges, i, same)
    passes = e.label in PLAIN or e.label in SAME or e.label == "reduce_sum"
    special = any(r.special for r in ranges) and (e.label in _SPECIAL or e.label in STRUCTURE)
    guarded = passes and any(r.guarded for r in ranges)
    return found._replace(special=found.special or special, guarded=found.guarded or guarded)


_SPECIAL = {"add", "sub", "mul", "div", "neg", "log1p", "log", "pow", "square", "integer_pow"}


def _found(e: Equation, ranges: list[Range], i: int, same: bool) -> Range:
    label = e.label
    aval: Any = e.results[i].aval
    params = {} if e.is_fused else e.eqn.params
    if label == "integer_pow":
        return _powered(ranges[0], params["y"])
    if label == "mul" and same:
        return _powered(ranges[0], 2)
    if label in PLAIN:
        return PLAIN[label](*ranges)
    if label in SAME:
        whole = label == "convert_element_type" and jnp.issubdtype(aval.dtype, np.bool_)
        return Range(0, 1) if whole else ranges[0]
    if label in EACH:
        return ranges[i]
    if label in JOINED:
        return join(ranges if label == "concatenate" else ranges[:2])
    if label in ("and", "or") and jnp.issubdtype(aval.dtype, np.bool_):
        ends = (_min if label == "and" else _max)(*ranges)
        return Range(ends.low, ends.high)
    if label == "iota":
        return Range(0, max(params["shape"][params["dimension"]] - 1, 0))
    if label in ("argmax", "argmin"):
        return Range(0, max(_size(e.operands[0], params["axes"]) - 1, 0))
    if label in ("reduce_sum", "cumsum"):
        axes = params["axes"] if label == "reduce_sum" else (params["axis"],)
        return _summed(ranges[0], _size(e.operands[0], axes), label == "cumsum")
    if label == "dot_general":
        signs = [min(r.low for r in ranges) >= 0]
        return Range(low=0) if all(signs) else ANY
    return of_dtype(aval.dtype)


def _size(atom: Any, axes: Sequence[int]) -> int:
    return math.prod(atom.aval.shape[axis] for axis in axes)


def _summed(a: Range, n: int, in_part: bool) -> Range:
    if n == 0:
        return Range(0, 0)
    nonzero = a.misses_zero and (a.low >= 0 or a.high <= 0)
    first = (1, n) if in_part else (n, n)
    low = _times(first[0] if a.low > 0 else first[1], a.low)
    return Range(low, _times(first[0] if a.high < 0 else first[1], a.high), nonzero)
