"""Where a function has no finite slope, and which operations have such places."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ...types import Array
from .graph import Node, Reach, reached
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
    "mul": _PRODUCT,
}
"""By primitive. `integer_pow` and what overflows are made for each equation."""

_EXP = Singular(
    "exp", 0, "it overflows", lambda r: r.high > 80, _overflow, _overflow, "{} < {most}",
    "jnp.minimum({}, {most})", "0.0", "jnp.inf",
)  # fmt: skip
_OVERFLOWING = ("exp", "expm1", "exp2", "sinh", "cosh")


def singular_of(node: Node) -> Singular | None:
    """The places that an operation has where it is singular; None if it has none."""
    e = node.e
    if e is None or e.is_fused or e.kind != "plain":
        return None
    label = e.label
    if label == "integer_pow" and e.eqn.params["y"] < 0:
        name = f"the power {e.eqn.params['y']}"
        return _CBRT._replace(name=name, at="the base is 0", value=_zero, edge="jnp.inf")
    if label in _OVERFLOWING:
        return _overflowing(label, e.operands[0].aval)
    return SINGULAR.get(label) if all(is_real(atom.aval.dtype) for atom in e.operands) else None


def _overflowing(label: str, aval: Any) -> Singular | None:
    if not jnp.issubdtype(aval.dtype, np.floating):
        return None
    most = str(math.floor(math.log(float(jnp.finfo(aval.dtype).max))))
    safe, kept = (text.replace("{most}", most) for text in (_EXP.safe, _EXP.kept))
    return _EXP._replace(name=label, safe=safe, kept=kept)


class Suspect(NamedTuple):
    """An operation that may be singular where a gradient flows through it.

    Attributes:
        node: Its result.
        kind: What it is.
        mask: The `where`, maximum or minimum that leaves such elements out, if one does.
        related: Whether that looks at what the operation is computed from.
        back: Whether that looks at the result of the operation.
        undone: Whether what overflows is then divided by, or its logarithm taken.
    """

    node: Node
    kind: Singular
    mask: Node | None
    related: bool
    back: bool
    undone: bool

    @property
    def operand(self) -> Node:
        """The operand that decides."""
        return self.node.operands[self.kind.operand]

    @property
    def path(self) -> tuple[int, ...]:
        """Where it stands in the program."""
        assert self.node.at is not None
        return self.node.at.path

    @property
    def is_masked(self) -> bool:
        """Whether a `where` leaves elements of it out."""
        return self.mask is not None and self.mask.label == "select_n"

    @property
    def is_known(self) -> bool:
        """Whether it is one of those of which only values tell."""
        overflows = self.kind.at == _EXP.at
        return overflows or self.operand.range.guarded or self.node.label == "mul"

    @property
    def is_suspected(self) -> bool:
        """Whether it is worth a word where nothing was counted to happen.

        Of an operand that nothing is known of, only a mask says that it may lie there.
        """
        if self.undone or squashed_before_log(self.node) is not None:
            return True
        if self.operand.range.guarded and not self.operand.range.special:
            return False
        if self.is_masked and self.related:
            return True
        return self.operand.range.has_end and not self.is_known


def suspects(nodes: Sequence[Node], reach: Reach) -> list[Suspect]:
    """The operations that may be singular, in the order of the program."""
    found = []
    for node in nodes:
        kind = singular_of(node)
        squashed = squashed_before_log(node) is not None
        if kind is None or node.hidden or node.fixed:
            continue
        if not squashed and not kind.touches(*(operand.range for operand in node.operands)):
            continue
        product = _product_with(node, reach)
        if product is not None:  # the other factor's gradient is a multiple of this value
            kind = kind._replace(slope=_either(kind))
        if reach.matters(node):
            if node.label != "mul" or _moved_by_special(node, reach):
                found.append(_suspect(node, kind, mask_of(node, reach), reach))
        elif product is not None and node.flows:
            mask = mask_of(product, reach)
            if mask is not None and mask.label == "select_n":
                found.append(_suspect(node, kind, mask, reach))
    return found


def _either(kind: Singular) -> Callable[..., Array]:
    """Where slope or value are not finite."""
    return lambda *operands: kind.slope(*operands) | kind.value(*operands)


def _suspect(node: Node, kind: Singular, mask: Node | None, reach: Reach) -> Suspect:
    related = mask is not None and _looks_at(mask, node)
    back = mask is not None and _looks_back(mask, node)
    undone = kind.at == _EXP.at and _is_undone(node, reach)
    return Suspect(node, kind, mask, related, back, undone)


def _product_with(node: Node, reach: Reach) -> Node | None:
    """A product, or quotient, of what is made of a value with another that has a gradient."""
    seen, queue = {node}, [node]
    while queue:
        here = queue.pop(0)
        for reader in reach.readers.get(here, ()):
            others = [n for n in reader.operands if n not in seen and n in reach.moving]
            if reader.label in ("mul", "div") and others and reach.matters(reader):
                return reader
            if reader.label in _ELEMENTWISE and reader not in seen:
                seen.add(reader)
                queue.append(reader)
    return None


def _moved_by_special(node: Node, reach: Reach) -> bool:
    a, b = node.operands
    return (a.range.special and b in reach.moving) or (b.range.special and a in reach.moving)


_ELEMENTWISE = {
    "add", "sub", "mul", "div", "neg", "abs", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt",
    "square", "integer_pow", "pow", "tanh", "logistic", "sin", "cos", "broadcast_in_dim", "reshape",
    "squeeze", "expand_dims", "convert_element_type", "copy", "name", "add_any", "erf", "clamp",
    "atan", "acos", "asin", "atanh", "acosh", "asinh", "sinh", "cosh", "tan", "cbrt", "exp2", "atan2",
    "lgamma", "digamma", "transpose",
}  # fmt: skip


def mask_of(node: Node, reach: Reach) -> Node | None:
    """The nearest operation after a value that leaves elements of it out."""
    seen, queue = {node}, [node]
    while queue:
        here = queue.pop(0)
        for reader in reach.readers.get(here, ()):
            if reader in seen or not reach.matters(reader):
                continue
            seen.add(reader)
            if _leaves_out(reader, node):
                return reader
            if reader.label in _ELEMENTWISE:
                queue.append(reader)
    return None


def _leaves_out(mask: Node, node: Node) -> bool:
    """Whether an operation takes some of its elements from elsewhere than from `node`."""
    if mask.label == "select_n":
        branches = mask.operands[1:] if mask.operands[0].range.one is None else []
    else:
        branches = mask.operands if mask.label in ("max", "min") else []
    from_node = [node in reached([branch], lambda n: n.operands) for branch in branches]
    return any(from_node) and not all(from_node)


def _looks_at(mask: Node, node: Node) -> bool:
    """Whether the condition of a mask is made from what an operation is computed from."""
    if mask.label != "select_n":
        return False
    before = reached([mask.operands[0]], lambda n: [] if n is node else n.operands)
    own = reached(node.operands, lambda n: n.operands)
    return any(n in own and not n.fixed for n in before)


def _looks_back(mask: Node, node: Node) -> bool:
    """Whether the condition of a mask is made from the result of an operation."""
    return mask.label == "select_n" and node in reached([mask.operands[0]], lambda n: n.operands)


def _is_undone(node: Node, reach: Reach) -> bool:
    """Whether what overflows is then divided by, or its logarithm taken: 1 / (1 + exp(x))."""
    for reader in reach.readers.get(node, ()):
        if reader.label == "log1p":
            return True
        if reader.label != "add" or not any(operand.fixed for operand in reader.operands):
            continue
        for last in reach.readers.get(reader, ()):
            below = last.label == "div" and last.operands[1] is reader
            if reach.matters(last) and (below or last.label in ("log", "integer_pow")):
                return True
    return False


_PICKS = {"reshape", "squeeze", "gather", "slice", "dynamic_slice", "transpose", "copy", "name"}
_PICKS |= {"broadcast_in_dim", "convert_element_type"}


def squashed_before_log(node: Node) -> tuple[str, Node] | None:
    """For a logarithm of a softmax or a sigmoid: what computes both, and the squashed value."""
    if node.label != "log":
        return None
    below = node.operands[0]
    while below.label in _PICKS:
        below = below.operands[0]
    if _is_softmax(below):
        return "log_softmax", below
    if below.label in ("logistic", "sigmoid"):
        return "log_sigmoid", below
    if below.label == "sub" and below.operands[0].range.one == 1:
        squashed = below.operands[1].plain
        if squashed.label in ("logistic", "sigmoid"):
            return "log_sigmoid of the negative", squashed
    return None


def _is_softmax(node: Node) -> bool:
    if node.label in ("softmax", "_softmax"):
        return True
    if node.label != "div":
        return False
    above, below = (operand.plain for operand in node.operands)
    return above.label == "exp" and below.label == "reduce_sum" and below.operands[0].plain is above
