"""Formulas out of jaxprs: the local rule of an equation is read off what JAX itself derives.

An expression is built from the equations of a small jaxpr, with the operands, results and
cotangents of the equation it belongs to standing as tokens: `<o0>` its first operand, `<r0>` its
first result, `<c0>` the cotangent of that. `fill` puts names in their place.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..jaxpr import jaxprs
from ..jaxpr.equations import Equation
from ..jaxpr.walk import At, Handler, walk
from .record.values import is_number, number, numbers

LONGEST = 160
"""Formulas with more characters end in an ellipsis; the lines of a rule say the rest."""

TOKEN = re.compile(r"<([orc])(\d+)>")


class Expr(NamedTuple):
    """An expression: its text, how tightly that binds, and its parts where they are needed."""

    text: str
    binds: int = 9
    op: str = ""
    args: tuple["Expr", ...] = ()


SUM, PRODUCT, SIGN, POWER, ATOM = 1, 2, 3, 4, 9

INFIX = {
    "add": ("+", SUM), "add_any": ("+", SUM), "sub": ("-", SUM), "mul": ("*", PRODUCT),
    "div": ("/", PRODUCT), "rem": ("%", PRODUCT), "gt": (">", 0), "lt": ("<", 0), "ge": (">=", 0),
    "le": ("<=", 0), "eq": ("==", 0), "ne": ("!=", 0), "and": ("&", 0), "or": ("|", 0),
    "pow": ("^", POWER),
}  # fmt: skip

NAMES = {
    "reduce_sum": "sum", "reduce_max": "max", "reduce_min": "min", "reduce_prod": "prod",
    "custom_jvp_call": "call", "custom_vjp_call": "call", "logistic": "sigmoid",
    "broadcast_in_dim": "broadcast", "select_n": "where", "dynamic_slice": "slice",
    "dynamic_update_slice": "update",
    "select_and_scatter_add": "unpool", "scatter-add": "scatter_add",
}  # fmt: skip

SILENT = {"copy", "copy_p", "name", "optimization_barrier", "reduce_precision", "pvary", "pcast"}


def fill(template: str, operands: Sequence[str], results: Sequence[str]) -> str:
    """A template with the names of operands and results in it; `v1'` is the adjoint of `v1`."""

    def name(match: re.Match) -> str:
        kind, i = match[1], int(match[2])
        return operands[i] if kind == "o" else results[i] + ("'" if kind == "c" else "")

    return TOKEN.sub(name, template)


def expressions(closed: Any, inputs: Sequence[Expr], known: dict | None = None) -> list[Expr]:
    """The flat outputs of a jaxpr as expressions of its inputs.

    Args:
        closed: The jaxpr.
        inputs: An expression for each input.
        known: Expressions for further variables, which then stand for themselves.
    """
    return walk(closed, inputs, _Formulas(known or {}))


class _Formulas(Handler):
    def __init__(self, known: dict[Any, Expr]) -> None:
        self.known = known

    def constant(self, value: Any) -> Expr:
        return constant(value)

    def equation(self, e: Equation, operands: list[Expr], at: At) -> list[Expr]:
        found: Sequence[Expr] = super().equation(e, operands, at)
        return [self.known.get(var, expr) for var, expr in zip(e.results, found, strict=True)]

    def plain(self, e: Equation, operands: list[Expr], at: At) -> list[Expr]:
        return equation(e, operands)


def equation(e: Equation, args: list[Expr]) -> list[Expr]:
    """The results of one equation as expressions of its operands."""
    if len(e.results) == 1 and not e.is_fused:
        return [one(e.eqn, args)]
    text = call(e.label, args).text
    return [Expr(f"{text}[{i}]") for i in range(len(e.results))]


def expression(e: Equation, args: list[Expr]) -> str:
    """What an equation computes, in one text for all of its results."""
    if e.is_fused or e.whole is not None or e.kind == "rule":
        return f"{e.label}({', '.join(x.text for x in args)})"
    outputs = equation(e, args)
    return outputs[0].text.removesuffix("[0]" if len(outputs) > 1 else "") if outputs else ""


def one(eqn: Any, args: list[Expr]) -> Expr:
    """The only result of an equation as an expression."""
    name = eqn.primitive.name
    special = SPECIAL.get(name)
    if special is not None:
        return special(eqn, args)
    if name in SILENT:
        return args[0]
    if name in INFIX and len(args) == 2:
        return infix(name, *args)
    title = jaxprs.label(eqn)
    return call(NAMES.get(title, title), args)


def infix(name: str, left: Expr, right: Expr) -> Expr:
    """`left op right`, with factors of one and signs simplified."""
    sign, binds = INFIX[name]
    if name in ("mul", "div") and right.text in ("1", "1.0"):
        return left
    if name == "mul" and left.text in ("1", "1.0"):
        return right
    if name == "mul":
        negative = (left.op == "neg") != (right.op == "neg")
        bare = [e.args[0] if e.op == "neg" else e for e in (left, right)]
        if left.op == "neg" or right.op == "neg":
            product = infix("mul", *bare)
            return negated(product) if negative else product
    if name in ("add", "add_any") and right.op == "neg":
        return infix("sub", left, right.args[0])
    a = within(left, binds if name != "pow" else binds + 1)
    b = within(right, binds + 1 if name in ("sub", "div", "rem", "mul") else binds)
    gap = "" if name in ("div", "pow") else " "
    return shorter(Expr(f"{a}{gap}{sign}{gap}{b}", binds, name, (left, right)))


def negated(x: Expr) -> Expr:
    """`-x`."""
    if x.op == "neg":
        return x.args[0]
    return Expr(f"-{within(x, PRODUCT)}", SIGN, "neg", (x,))


def within(x: Expr, binds: int) -> str:
    """The text of a part, in brackets unless it binds at least so tightly."""
    return x.text if x.binds >= binds else f"({x.text})"


def call(name: str, args: Sequence[Expr]) -> Expr:
    """`name(a, b)`."""
    return shorter(Expr(f"{name}({', '.join(arg.text for arg in args)})", ATOM, name, tuple(args)))


def shorter(x: Expr) -> Expr:
    """An expression, or an ellipsis in place of one that nobody would read."""
    return x if len(x.text) <= LONGEST else Expr("...", ATOM)


def constant(value: Any) -> Expr:
    """A literal, in five figures, or in all if those make it a whole number, which it is not."""
    shape = getattr(value, "shape", ())
    if jaxprs.is_traced(value) or not hasattr(value, "dtype"):
        return Expr(str(value) if np.isscalar(value) else "c")
    if not is_number(value.dtype):
        return Expr("key" if "key" in str(value.dtype) else "c")
    if shape == ():
        text = number(value)
        if text.removeprefix("-").isdigit() and value != int(text):
            text = str(np.asarray(value))
        return Expr(text, SIGN if text.startswith("-") else ATOM, "number")
    return Expr(numbers(value) if value.size <= 3 else f"c[{','.join(map(str, shape))}]")


def _power(eqn: Any, args: list[Expr]) -> Expr:
    y = eqn.params["y"]
    return args[0] if y == 1 else Expr(f"{within(args[0], ATOM)}^{y}", POWER)


def _where(eqn: Any, args: list[Expr]) -> Expr:
    return call("where", [args[0], *args[:0:-1]]) if len(args) == 3 else call("select", args)


def _convert(eqn: Any, args: list[Expr]) -> Expr:
    before, after = eqn.invars[0].aval.dtype, eqn.params["new_dtype"]
    plain = before == after or args[0].op == "number"
    return args[0] if plain else call(np.dtype(after).name, args)


def _broadcast(eqn: Any, args: list[Expr]) -> Expr:
    same = eqn.invars[0].aval.shape == eqn.params["shape"]
    return args[0] if same or args[0].op == "number" else call("broadcast", args[:1])


def _sum(eqn: Any, args: list[Expr]) -> Expr:
    axes, rank = eqn.params["axes"], len(eqn.invars[0].aval.shape)
    if not axes:
        return args[0]
    if len(axes) == rank:
        return call("sum", args)
    return call("sum", [args[0], Expr(f"axis={axes[0] if len(axes) == 1 else tuple(axes)}")])


def _transpose(eqn: Any, args: list[Expr]) -> Expr:
    x, order = args[0], tuple(eqn.params["permutation"])
    if order == tuple(range(len(order))):
        return x
    if order != (1, 0):
        return call("transpose", [x, Expr(str(order))])
    if x.op == "matmul":
        return product(*(flipped(part) for part in x.args[::-1]))
    return flipped(x)


def flipped(x: Expr) -> Expr:
    """The transpose of a matrix."""
    if x.op == "flip":
        return x.args[0]
    return Expr(f"{within(x, ATOM)}ᵀ", ATOM, "flip", (x,))


def product(left: Expr, right: Expr) -> Expr:
    """The matrix product."""
    text = f"{within(left, PRODUCT)} @ {within(right, SIGN)}"
    return shorter(Expr(text, PRODUCT, "matmul", (left, right)))


def _dot(eqn: Any, args: list[Expr]) -> Expr:
    (left, right), (batch, other) = eqn.params["dimension_numbers"]
    ranks = [len(v.aval.shape) for v in eqn.invars]
    if not batch and len(left) == 1 and max(ranks) <= 2 and min(ranks) >= 1:
        a = flipped(args[0]) if ranks[0] == 2 and left[0] == 0 else args[0]
        b = flipped(args[1]) if ranks[1] == 2 and right[0] == 1 else args[1]
        return product(a, b)
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    first = [next(letters) for _ in range(ranks[0])]
    second = [""] * ranks[1]
    for i, j in [*zip(left, right, strict=True), *zip(batch, other, strict=True)]:
        second[j] = first[i]
    second = [name or next(letters) for name in second]
    shared = [first[i] for i in batch]
    gone = {first[i] for i in left}
    rest = [n for n in first + second if n not in gone and n not in shared]
    spec = f"{''.join(first)},{''.join(second)}->{''.join(shared + rest)}"
    return call("einsum", [Expr(f'"{spec}"'), *args])


SPECIAL: dict[str, Callable[[Any, list[Expr]], Expr]] = {
    "neg": lambda eqn, args: negated(args[0]),
    "integer_pow": _power,
    "square": lambda eqn, args: Expr(f"{within(args[0], ATOM)}^2", POWER),
    "select_n": _where,
    "convert_element_type": _convert,
    "broadcast_in_dim": _broadcast,
    "reduce_sum": _sum,
    "transpose": _transpose,
    "dot_general": _dot,
}
