"""Where a function has no finite slope, and which operations have such places."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ...types import Array
from .graph import Node
from .ranges import Range, is_real


class Singular(NamedTuple):
    """A kind of operation with places where its slope, or its value, is not finite.

    Attributes:
        name: What it is called in a sentence.
        operand: Which of its operands decides.
        at: Where: "the argument is 0".
        touches: Whether operands with these ranges may lie there.
        slope: Of operands: where the slope is infinite or NaN.
        value: The same of the value.
        safe: The condition under which all is well; `{}` is the operand, `{other}` the first.
        kept: The operand kept away from there, where that says more than another value would.
        fill: A value of the operand at which all is well.
        edge: The value of the operation where it is singular.
    """

    name: str
    operand: int
    at: str
    touches: Callable[..., bool]
    slope: Callable[..., Array]
    value: Callable[..., Array]
    safe: str
    kept: str = ""
    fill: str = "1.0"
    edge: str = "jnp.nan"


def _below(end: float) -> Callable[..., bool]:
    return lambda r, *_: r.low < end or (r.low == end and not (end == 0 and r.nonzero))


def _beyond_one(r: Range) -> bool:
    return r.low <= -1 or r.high >= 1


def _never(*operands: Array) -> Array:
    return jnp.zeros(jnp.broadcast_shapes(*map(jnp.shape, operands)), bool)


def _overflow(x: Array) -> Array:
    return x > math.log(float(jnp.finfo(x.dtype).max))


def _bad_power(x: Array, y: Array) -> Array:
    y = jnp.asarray(y, x.dtype)
    return ((x == 0) & (y < 1) & (y != 0)) | ((x < 0) & (y != jnp.floor(y)))


def _bad_power_value(x: Array, y: Array) -> Array:
    y = jnp.asarray(y, x.dtype)
    return ((x == 0) & (y < 0)) | ((x < 0) & (y != jnp.floor(y)))


def _power_touches(x: Range, y: Range) -> bool:
    whole = y.one is not None and y.one == math.floor(y.one)
    if whole and y.low >= 0:
        return False
    if y.low >= 1:
        return x.low < 0
    return x.holds_zero if whole else _below(0)(x)


def _zero(x: Array, *_: Array) -> Array:
    return x == 0


def _pole(x: Array) -> Array:
    return (x <= 0) & (x == jnp.floor(x))


def _edge(x: Array) -> Array:
    return abs(x) >= 1


def _not_finite(x: Array, y: Array) -> Array:
    return ~(jnp.isfinite(x) & jnp.isfinite(y))


_ROOT = ("the argument is 0 or less", _below(0))
_SQRT = Singular("sqrt", 0, *_ROOT, lambda x: x <= 0, lambda x: x < 0, "{} > 0", edge="0.0")
_LOG = Singular(
    "log",
    0,
    *_ROOT,
    _zero,
    lambda x: x <= 0,
    "{} > 0",
    "jnp.maximum({}, 1e-12)",
    edge="-jnp.inf",
)
_LOG1P = Singular(
    "log1p", 0, "the argument is -1 or less", _below(-1), lambda x: x == -1, lambda x: x <= -1,
    "{} > -1", "jnp.maximum({}, -1 + 1e-6)", "0.0", "-jnp.inf",
)  # fmt: skip
_ACOS = Singular(
    "arccos", 0, "the argument is -1 or 1, or beyond", _beyond_one, _edge, lambda x: abs(x) > 1,
    "jnp.abs({}) < 1", "jnp.clip({}, -1 + 1e-6, 1 - 1e-6)", "0.0",
)  # fmt: skip
_ACOSH = Singular(
    "arccosh", 0, "the argument is 1 or less", _below(1), lambda x: x <= 1, lambda x: x < 1,
    "{} > 1", "jnp.maximum({}, 1 + 1e-6)", "2.0",
)  # fmt: skip
_DIVISION = Singular(
    "the division", 1, "the divisor is 0", lambda x, y: y.holds_zero,
    lambda x, y: y == 0, lambda x, y: y == 0, "{} != 0",
)  # fmt: skip
_POWER = Singular(
    "the power",
    0,
    "the base is 0 or less",
    _power_touches,
    _bad_power,
    _bad_power_value,
    "{} > 0",
    edge="0.0",
)
_ATAN2 = Singular(
    "arctan2", 1, "both arguments are 0", lambda x, y: x.holds_zero and y.holds_zero,
    lambda x, y: (x == 0) & (y == 0), _never, "({other} != 0) | ({} != 0)", edge="0.0",
)  # fmt: skip
_LGAMMA = Singular(
    "lgamma", 0, "the argument is 0 or a negative integer", _below(0), _pole, _pole, "{} > 0"
)
_PRODUCT = Singular(
    "the product", 1, "a factor is NaN or infinite", lambda x, y: x.special or y.special,
    _not_finite, _not_finite, "jnp.isfinite({})",
)  # fmt: skip
_CBRT = Singular(
    "cbrt", 0, "the argument is 0", lambda r: r.holds_zero, _zero, _never, "{} != 0", edge="0.0"
)

SINGULAR: dict[str, Singular] = {
    "sqrt": _SQRT,
    "rsqrt": _SQRT._replace(name="rsqrt", value=lambda x: x <= 0, edge="jnp.inf"),
    "cbrt": _CBRT,
    "log": _LOG,
    "log2": _LOG._replace(name="log2"),
    "log1p": _LOG1P,
    "div": _DIVISION,
    "pow": _POWER,
    "acos": _ACOS,
    "asin": _ACOS._replace(name="arcsin"),
    "atanh": _ACOS._replace(name="arctanh", value=_edge),
    "acosh": _ACOSH,
    "atan2": _ATAN2,
    "lgamma": _LGAMMA,
    "digamma": _LGAMMA._replace(name="digamma"),
    "erf_inv": _ACOS._replace(name="erfinv", value=_edge),
    "mul": _PRODUCT,
}
"""By primitive. `integer_pow` and what overflows are made for each equation."""

OVERFLOWS = "it overflows"
_EXP = Singular(
    "exp", 0, OVERFLOWS, lambda r: r.high > 80, _overflow, _overflow, "{} < {most}",
    "jnp.minimum({}, {most})", "0.0", "jnp.inf",
)  # fmt: skip
_OVERFLOWING = ("exp", "expm1")


def singular_of(node: Node) -> Singular | None:
    """The places that an operation has where it is singular; None if it has none."""
    e = node.e
    if e is None or e.is_fused or e.kind != "plain":
        return None
    label = e.label
    types: list[Any] = [atom.aval for atom in e.operands]
    if label == "integer_pow" and e.eqn.params["y"] < 0:
        name = f"the power {e.eqn.params['y']}"
        return _CBRT._replace(name=name, at="the base is 0", value=_zero, edge="jnp.inf")
    if label in _OVERFLOWING:
        return _overflowing(label, types[0])
    known = SINGULAR.get(label) if all(is_real(t.dtype) for t in types) else None
    return None if known is None else _kept_in(known, types[0].dtype)


def _kept_in(known: Singular, dtype: Any) -> Singular:
    """With margins that are not rounded away in 16 bits."""
    if not jnp.issubdtype(dtype, np.floating) or jnp.finfo(dtype).bits > 16:
        return known
    margin = "1e-3" if dtype == np.float16 else "1e-2"
    kept = known.kept.replace("1e-6", margin)
    return known._replace(kept=kept.replace("1e-12", "1e-4") if dtype == np.float16 else kept)


def _overflowing(label: str, aval: Any) -> Singular | None:
    if not jnp.issubdtype(aval.dtype, np.floating):
        return None
    most = str(math.floor(math.log(float(jnp.finfo(aval.dtype).max))))
    safe, kept = (text.replace("{most}", most) for text in (_EXP.safe, _EXP.kept))
    return _EXP._replace(name=label, safe=safe, kept=kept)
