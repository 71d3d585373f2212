"""What to write in the place of an expression, in the words of the one who wrote it."""

import ast
import copy
import linecache
import re

from ...jaxpr.places import Place
from .suspects import Suspect

_ROOTS = {"sqrt", "rsqrt", "cbrt", "log", "log2", "log10", "log1p", "arccos", "arcsin", "arccosh"}
_ROOTS |= {"acos", "asin", "acosh", "arctanh", "atanh", "exp", "expm1"}
_ROOTS |= {"lgamma", "gammaln", "digamma", "reciprocal", "erfinv"}
_DIVISIONS = {"divide", "true_divide", "div", "arctan2", "atan2"}
_POWERS = {"power", "pow", "float_power"}


def expression_at(place: Place | None) -> ast.expr | None:
    """The expression that stands at a place; None if its source cannot be read."""
    if place is None or place.end_column == 0:
        return None
    lines = [linecache.getline(place.file, n) for n in range(place.line, place.end_line + 1)]
    lines[-1] = lines[-1].encode()[: place.end_column].decode()
    lines[0] = lines[0].encode()[place.column :].decode()
    try:
        return ast.parse(f"({''.join(lines)})", mode="eval").body
    except (SyntaxError, ValueError):
        return None


def safely(suspect: Suspect) -> str:
    """An operation with an operand that keeps away from where it is singular.

    Where nothing masks the result, that is said as well.
    """
    node = expression_at(suspect.node.place)
    if node is None:
        return _general(suspect)
    name = called(node)
    if isinstance(node, ast.Call) and name in ("norm", "std", "nanstd"):
        made = _norm(node) if name == "norm" else _std(node)
        return made.format(_new_name(suspect.node.place, "squares"))
    part = _operand(node, suspect)
    if part is None:
        return _general(suspect)
    text, kind = ast.unparse(part), suspect.kind
    masked = suspect.is_masked
    if kind.kept and not masked:
        kept = ast.parse(kind.kept.format(text), mode="eval").body
        return ast.unparse(_replaced(node, part, kept))
    other = ast.unparse(node.args[0]) if isinstance(node, ast.Call) and node.args else ""
    safe = kind.safe.format(text if _is_short(part) else f"({text})", other=other)
    again = text
    if len(text) > 16 and text in safe and safe.count(text) == 1:
        again = _new_name(suspect.node.place, "operand")
        safe = kind.safe.format(f"({again} := {text})", other=other)
    guarded = ast.parse(f"jnp.where({safe}, {again}, {kind.fill})", mode="eval").body
    inner = ast.unparse(_replaced(node, part, guarded))
    if masked and not suspect.back:
        return inner
    edge = kind.edge if masked else "0.0"
    if again == text:
        return f"jnp.where({safe}, {inner}, {edge})"
    bare = f"jnp.where({kind.safe.format(again, other=other)}, {again}, {kind.fill})"
    inner = ast.unparse(_replaced(node, part, ast.parse(bare, mode="eval").body))
    return f"jnp.where({safe}, {inner}, {edge})"


def _new_name(place: Place | None, name: str) -> str:
    """A name that the file does not have."""
    text = "".join(linecache.getlines(place.file)) if place else ""
    while re.search(rf"\b{name}\b", text):
        name += "_"
    return name


def _general(suspect: Suspect) -> str:
    safe = suspect.kind.safe.format("x")
    return f"jnp.where({safe}, x, 1.0) in the place of what it is called with, x"


def called(node: ast.AST) -> str:
    """The name of the function that an expression calls, without its module; else ""."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def is_inside_call(suspect: Suspect) -> bool:
    """Whether an operation is inside a function of JAX, which sees to its edges itself.

    The root of a norm or a standard deviation is not: it is the caller's to guard.
    """
    node = expression_at(suspect.node.place)
    known = called(node) in _ROOTS | _DIVISIONS | _POWERS if node is not None else True
    return isinstance(node, ast.Call) and not known and suspect.node.label != "sqrt"


def _operand(node: ast.expr, suspect: Suspect) -> ast.expr | None:
    """The part of an expression that is the operand which decides."""
    name, args = called(node), node.args if isinstance(node, ast.Call) else []
    if name in _ROOTS and len(args) == 1:
        return args[0]
    if name in _DIVISIONS and len(args) == 2:
        return args[1]
    if name in _POWERS and len(args) == 2:
        return args[0]
    if isinstance(node, ast.BinOp):
        if isinstance(node.op, ast.Div) and suspect.kind.operand == 1:
            return node.right
        if isinstance(node.op, ast.Pow):
            return node.left
        special = suspect.node.label == "mul" and isinstance(node.op, ast.Mult)
        if special:
            return node.left if suspect.node.operands[0].range.special else node.right
    return None


def _replaced(node: ast.expr, part: ast.expr, other: ast.expr) -> ast.expr:
    """An expression with another in the place of a part that is its child."""
    fresh = copy.copy(node)
    for name, value in ast.iter_fields(node):
        if value is part:
            setattr(fresh, name, other)
        elif isinstance(value, list):
            setattr(fresh, name, [other if item is part else item for item in value])
    return fresh


def _is_short(node: ast.expr) -> bool:
    return isinstance(node, ast.Name | ast.Attribute | ast.Subscript | ast.Call | ast.Constant)


def _norm(node: ast.Call) -> str:
    """A norm by its squares, of which the root is taken where they are not 0."""
    if len(node.args) != 1 or {k.arg for k in node.keywords} - {"axis", "keepdims"}:
        return "jnp.where(s > 0, jnp.sqrt(jnp.where(s > 0, s, 1.0)), 0.0) for s the sum of squares"
    options = "".join(f", {ast.unparse(k)}" for k in node.keywords)
    return _root(f"jnp.sum(jnp.square({ast.unparse(node.args[0])}){options})")


def _std(node: ast.Call) -> str:
    """A standard deviation by the variance, of which the root is taken where it is not 0."""
    variance = copy.copy(node)
    if isinstance(node.func, ast.Attribute):
        variance.func = copy.copy(node.func)
        variance.func.attr = node.func.attr.replace("std", "var")
    elif isinstance(node.func, ast.Name):
        variance.func = ast.Name(node.func.id.replace("std", "var"))
    return _root(ast.unparse(variance))


def _root(squares: str) -> str:
    squares = squares.replace("{", "{{").replace("}", "}}")
    root = "jnp.sqrt(jnp.where({0} > 0, {0}, 1.0))"
    return "jnp.where(({0} := " + squares + ") > 0, " + root + ", 0.0)"
