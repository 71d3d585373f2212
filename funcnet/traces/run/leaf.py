"""One equation on the tape: its rows, what it keeps, its formulas, and the lines of its rule."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from ...jaxpr import concrete, jaxprs
from ...jaxpr.equations import Equation
from ...jaxpr.walk import At
from ...types import require
from ..formula import expression, fill
from ..record.rows import Line
from ..source import names
from .lines import run_lines
from .local import Derivative, derivative, tangent, tokens
from .tape import Cell, Entry, Tape, filled


def run_leaf(tape: Tape, e: Equation, operands: Sequence[Cell], at: At, name: str) -> list[Cell]:
    """Run an equation as a whole; its rows, of this name, and its step go on the tape."""
    inputs = e.given(operands)
    values = [cell.value for cell in inputs]
    found, note = _derivative(tape, e, inputs)
    lines: tuple[Line, ...] = ()
    residuals: list = []
    if found is None:
        results = concrete.run(e, [cell.value for cell in operands])
    else:
        if e.kind == "rule":
            texts = [cell.name for cell in inputs]
            lines, flat = run_lines(found.forward, values, texts, "p", found.places, tape.keep_all)
        else:
            flat = concrete.evaluate(found.forward, *values)
        results, residuals = found.unpacked(flat)
    cells = _rows(tape, e, results, operands, at, name)
    if any(cell.tangent is not None for cell in inputs):
        for cell, t in zip(cells, tangent(e, values, [c.tangent for c in inputs]), strict=True):
            tape.move(cell, t)
    for cell in cells:
        cell.note(note=note)
    if note:
        where = names.source(at.places)
        _forbid(tape, cells, name, f"{e.label}{f' at {where}' if where else ''}", note)
    if found is not None:
        cells[found.inexact[0]].note(inside=lines)
        _enter(tape, e, found, residuals, operands, cells, name)
    return cells


def _derivative(tape: Tape, e: Equation, inputs: list[Cell]) -> tuple[Derivative | None, str]:
    """The derivative of an equation; or None, and why there is none if there should be one."""
    active = tuple(i for i, cell in enumerate(inputs) if cell.active)
    if not active or e.label == "stop_gradient":
        return None, ""
    if not any(jaxprs.is_inexact(v.aval) for v in e.results):
        return None, ""
    try:
        return derivative(e, [cell.value for cell in inputs], active, tape.known), ""
    except Exception as error:  # whatever a primitive without a derivative raises
        return None, f"no derivative: {(str(error) or type(error).__name__).splitlines()[0]}"


def _rows(
    tape: Tape, e: Equation, results: list, operands: Sequence[Cell], at: At, name: str
) -> list[Cell]:
    many = len(results) > 1
    titles = [f"{name}.{i}" if many else name for i in range(len(results))]
    kind = "rule" if e.kind == "rule" else "whole" if e.is_whole or e.is_fused else "equation"
    said = fill(e.once(_said), [cell.name for cell in operands], titles)
    cells = [
        tape.cell(
            x, title, kind, e.label, at,
            expression=f"{said}[{i}]" if many else said,
            operands=tuple(cell.name for cell in e.given(operands)),
            memory=_memory(e, at),
        )
        for i, (x, title) in enumerate(zip(results, titles, strict=True))
    ]  # fmt: skip
    for cell in cells[-1:]:
        cell.draft.at = at  # pyright: ignore[reportOptionalMemberAccess]  # of a cell just made
    return cells


def _said(e: Equation) -> str:
    return expression(e, tokens(e))


def _memory(e: Equation, at: At) -> str:
    """Of an equation inside a remat, what becomes of its results."""
    if at.policy is None:
        return ""
    policy = at.policy[0]
    inside = () if e.primal is None else jaxprs.open_jaxpr(e.primal)[0].eqns
    named = [eqn for eqn in inside if eqn.primitive.name == "name"]
    saved = policy is not None and any(jaxprs.saves(policy, eqn) for eqn in named or [e.eqn])
    return "saved" if saved else "recomputed"


def _forbid(tape: Tape, cells: list[Cell], name: str, said: str, note: str) -> None:
    """Put an equation without a derivative on the tape: an adjoint that comes to it is an error.

    Zeros are none: what JAX knows not to need a derivative may reach it as zeros here.
    """
    results = [cell for cell in cells if jaxprs.is_inexact(cell.value)]
    for cell in results:
        cell.active = True

    def pull(adjoints: list[Any]) -> list[tuple[Cell, Any, str]]:
        known = [ct for ct in adjoints if ct is not None]
        remedy = (
            "Trace it outside of jit and vmap and without sample=, so that the loop is opened."
            if "while_loop" in note
            else "Give it a rule with jax.custom_vjp, or put jax.lax.stop_gradient before it."
        )
        reason = note.partition(": ")[2].partition(". ")[0].removesuffix(".")
        require(
            not any(jaxprs.is_traced(ct) or jnp.any(ct != 0) for ct in known),
            "trace",
            "a derivative of all that the gradient flows through",
            f"none of {said} ({reason})",
            remedy,
        )
        return []

    tape.entries.append(Entry(name, results, pull))


def _enter(
    tape: Tape, e: Equation, found: Derivative, residuals: list, operands: Sequence[Cell],
    cells: list[Cell], name: str,
) -> None:  # fmt: skip
    """Put the reverse of an equation on the tape."""
    texts, titles = [cell.name for cell in operands], [cell.name for cell in cells]
    results = [cells[i] for i in found.inexact]
    targets = [e.given(operands)[i] for i in found.active]
    formulas = [fill(text, texts, titles) for text in found.formulas]
    kept = [fill(text, texts, titles) for text in found.kept]
    shown = [said for said, text in zip(kept, found.kept, strict=True) if "<" in text]
    said = tuple(f"{c.name}' += {f}" for c, f in zip(targets, formulas, strict=True))
    for cell in results:
        cell.active = True
        cell.note(active=True, rule=said, kept=tuple(dict.fromkeys(shown)))
    given = [*kept, *(f"{cell.name}'" for cell in results)]
    lead, is_rule, keep_all = results[0], e.kind == "rule", tape.keep_all

    def pull(adjoints: list[Any]) -> list[tuple[Cell, Any, str]]:
        values = [*residuals, *filled(results, adjoints)]
        if is_rule:
            lines, back = run_lines(found.backward, values, given, "b", found.places, keep_all)
            lead.note(backward=lines)
        else:
            back = concrete.evaluate(found.backward, *values)
        return list(zip(targets, back, formulas, strict=True))

    tape.entries.append(Entry(name, results, pull))
