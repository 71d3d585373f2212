"""Digits that are lost: logarithms of small numbers, differences near 0, sums in 16 bits."""

import ast
import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...jaxpr import jaxprs
from ...render.forms import size
from .findings import Finding
from .graph import Graph, Node, Reach
from .rewrite import called, expression_at

LARGEST = 10_000_000
"""A constant of more bytes than these is worth a word."""


def with_logits(node: Node, name: str, squashed: Node) -> str:
    """The logarithm written for the logits, as far as the source tells."""
    outer, inner = expression_at(node.place), expression_at(squashed.place)
    logits = ast.unparse(inner.args[0]) if isinstance(inner, ast.Call) and inner.args else "logits"
    if name != "log_softmax":
        sign = "" if name == "log_sigmoid" else "-"
        short = not sign or logits.isidentifier()
        return f"jax.nn.log_sigmoid({sign}{logits if short else f'({logits})'})"
    known = inner.keywords if isinstance(inner, ast.Call) and "softmax" in called(inner) else []
    options = "".join(f", {ast.unparse(k)}" for k in known)
    text = f"jax.nn.log_softmax({logits}{options})"
    picked = outer.args[0] if isinstance(outer, ast.Call) and outer.args else None
    if isinstance(picked, ast.Subscript):
        return f"{text}[{ast.unparse(picked.slice)}]"
    direct = node.operands[0].plain is squashed
    return text if direct else f"{text} in the place of the softmax, and no logarithm after it"


def differences(graph: Graph, reach: Reach) -> Iterator[Finding]:
    """Findings for log(1 + x) and exp(x) - 1, which lose the digits of a small x."""
    for node in graph.nodes:
        if not reach.matters(node):
            continue
        if node.label == "log" and node.operands[0].plain.label == "add":
            parts = node.operands[0].plain.operands
            rest = [part for part in parts if part.range.one != 1]
            if len(rest) == 1 and rest[0].plain.label != "exp" and _near_zero(rest[0]):
                yield _lossy(node, "log(1 + x)", "jnp.log1p({})", _summand(node))
        if node.label == "sub" and node.operands[0].plain.label == "exp":
            inside = node.operands[0].plain.operands[0]
            if node.operands[1].range.one == 1 and _near_zero(inside):
                yield _lossy(node, "exp(x) - 1", "jnp.expm1({})", _exponent(node))


def _near_zero(node: Node) -> bool:
    return node.range.low <= 0 <= node.range.high and not node.fixed


def _lossy(node: Node, what: str, form: str, x: str) -> Finding:
    return Finding(
        "lost-digits", "possible", node.place,
        f"{what} loses the digits of an x near 0: of x below 1e-8 float32 keeps none.",
        form.format(x or "x"),
    )  # fmt: skip


def _summand(node: Node) -> str:
    """x in the source of log(1 + x)."""
    whole = expression_at(node.place)
    inside = whole.args[0] if isinstance(whole, ast.Call) and len(whole.args) == 1 else None
    if not (isinstance(inside, ast.BinOp) and isinstance(inside.op, ast.Add)):
        return ""
    parts = [inside.left, inside.right]
    rest = [part for part in parts if not (isinstance(part, ast.Constant) and part.value == 1)]
    return ast.unparse(rest[0]) if len(rest) == 1 else ""


def _exponent(node: Node) -> str:
    """x in the source of exp(x) - 1."""
    whole = expression_at(node.place)
    inside = whole.left if isinstance(whole, ast.BinOp) else None
    return ast.unparse(inside.args[0]) if isinstance(inside, ast.Call) and inside.args else ""


def narrow_sums(graph: Graph) -> Iterator[Finding]:
    """Findings for sums in 16 bits of so many terms that the last ones are rounded away."""
    for node in graph.nodes:
        if node.hidden or node.e is None or node.e.is_fused:
            continue
        if node.label in ("reduce_sum", "cumsum"):
            aval: Any = node.e.operands[0].aval
            params = node.e.eqn.params
            axes = params["axes"] if node.label == "reduce_sum" else (params["axis"],)
            terms = math.prod(aval.shape[axis] for axis in axes)
            if _is_narrow(aval.dtype) and terms >= _stalls_at(aval.dtype):
                yield _narrow(node, aval.dtype, f"A sum of {terms:,} terms")
        elif node.label in ("add", "add_any") and node.turns and node.turns[-1].length:
            dtype = node.dtype
            length = node.turns[-1].length
            if _is_narrow(dtype) and length >= _stalls_at(dtype) and _goes_round(node, graph):
                yield _narrow(node, dtype, f"A running sum over {length:,} iterations")


def _goes_round(node: Node, graph: Graph) -> bool:
    """Whether a sum is that of what a loop carries and becomes it again."""
    carries = [operand for operand in node.operands if operand.e is None and not operand.fixed]
    return any(node in carry.operands[1:] for carry in carries)


def _narrow(node: Node, dtype: Any, what: str) -> Finding:
    stall = _stalls_at(dtype)
    return Finding(
        "narrow-sum", "possible", node.place,
        f"{what} in {dtype}: at {stall:,} times a term, one more changes nothing.",
        "the sum in float32: x.astype(jnp.float32), and the result back",
    )  # fmt: skip


def _is_narrow(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits <= 16


def _stalls_at(dtype: Any) -> int:
    return round(2 / float(jnp.finfo(dtype).eps))


def overflows(graph: Graph) -> Iterator[Finding]:
    """Findings for whole numbers that are computed beyond the reach of their dtype."""
    for node in graph.nodes:
        if node.label not in ("add", "mul", "sub") or node.hidden or node.e is None:
            continue
        dtype = node.dtype
        if not jnp.issubdtype(dtype, np.signedinteger) or (node.at and node.at.library):
            continue
        most = int(jnp.iinfo(dtype).max)
        low, high = node.range.low, node.range.high
        if math.isfinite(low) and math.isfinite(high) and (high > most or low < -most - 1):
            beyond = high if high > most else low
            yield Finding(
                "integer-overflow", "possible", node.place,
                f"The result comes to {beyond:,.0f} and wraps: {dtype} ends at {most:,}.",
            )  # fmt: skip


def captured(graph: Graph) -> Iterator[Finding]:
    """Findings for large arrays that the program holds instead of being given them."""
    for value, node in graph.constants.values():
        if not jaxprs.is_traced(value) and getattr(value, "nbytes", 0) > LARGEST:
            reader = next((n for n in graph.nodes if node in n.operands and n.place), None)
            shape = ",".join(map(str, value.shape))
            yield Finding(
                "captured-constant", "happens", reader.place if reader else None,
                f"An array of {value.dtype}[{shape}], {size(value.nbytes)}, is closed over: it is "
                "part of the program, in each version that is compiled.",
                "pass it as an argument",
            )  # fmt: skip
