"""One equation on the tape: its rows, what it keeps, its formulas, and the lines of its rule."""

import types
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from ...jaxpr import jaxprs, steps
from ...types import require
from ..formula import constant, equation, fill
from ..record.rows import Line, Source
from ..record.values import value_of
from ..source import names
from ..source.places import places_of
from . import local
from .tape import At, Cell, Entry, Tape

NOWHERE: Mapping[int, Source | None] = types.MappingProxyType({})


def run_leaf(
    tape: Tape, unit: local.Unit, operands: Sequence[Cell], at: At, eqn: Any, name: str
) -> list[Cell]:
    """Run a unit as a whole; its rows, of this name, and its step go on the tape."""
    inputs = [operands[i] for i in unit.slots]
    values = [cell.value for cell in inputs]
    rule, note = _rule(tape, unit, values, inputs)
    kind = _kind(eqn)
    lines: tuple[Line, ...] = ()
    residuals: list = []
    if rule is None:
        results = jaxprs.evaluate(unit.closed, *values)
    elif kind == "rule":
        lines, flat = run_lines(
            tape, rule.forward, values, [c.name for c in inputs], "p", rule.sources
        )
        results, residuals = rule.unpacked(flat)
    else:
        results, residuals = rule.unpacked(jaxprs.evaluate(rule.forward, *values))
    cells = _rows(tape, unit, results, kind, operands, at, eqn, name)
    for cell in cells:
        cell.note(note=note)
    _move(tape, unit, values, inputs, cells)
    if note:
        _forbid(tape, cells, name, f"{unit.label}{_line(at)}", note)
    if rule is not None:
        cells[rule.inexact[0]].note(inside=lines)
        _enter(tape, unit, rule, residuals, operands, cells, kind == "rule", name)
    return cells


def _rule(
    tape: Tape, unit: local.Unit, values: list, inputs: list[Cell]
) -> tuple[local.Rule | None, str]:
    """The rule of a unit; or None, and why there is none if there should be one."""
    active = tuple(i for i, cell in enumerate(inputs) if cell.active)
    if not active or unit.label == "stop_gradient":
        return None, ""
    if not any(jaxprs.is_inexact(v) for v in unit.closed.out_avals):
        return None, ""
    try:
        return local.rule_of(unit, values, active, tape.rules), ""
    except Exception as error:  # whatever a primitive without a derivative raises
        return None, f"no derivative: {(str(error) or type(error).__name__).splitlines()[0]}"


def _kind(eqn: Any) -> str:
    if jaxprs.custom_body(eqn) is not None:
        return "rule"
    return "whole" if any(True for _ in jaxprs.sub_jaxprs(eqn)) else "equation"


def _rows(
    tape: Tape, unit: local.Unit, results: list, kind: str, operands: Sequence[Cell], at: At,
    eqn: Any, name: str,
) -> list[Cell]:  # fmt: skip
    many = len(results) > 1
    titles = [f"{name}.{i}" if many else name for i in range(len(results))]
    kind = "whole" if unit.key is None and unit.label == "refs" else kind
    cells = [tape.cell(x, n, kind, unit.label) for x, n in zip(results, titles, strict=True)]
    said = fill(local.expression(unit), [cell.name for cell in operands], titles)
    for i, cell in enumerate(cells):
        cell.note(
            expression=f"{said}[{i}]" if many else said,
            operands=tuple(operands[slot].name for slot in unit.slots),
            scope=at.scope,
            within=at.within,
            source=names.source(at.places),
            memory=_memory(eqn, at.remat),
        )
    if cells:
        assert cells[-1].draft is not None
        tape.written.append((cells[-1].draft, at.iterations, at.calls))
    return cells


def _move(
    tape: Tape, unit: local.Unit, values: list, inputs: list[Cell], cells: list[Cell]
) -> None:
    """Carry tangents over from the operands to the results."""
    if all(cell.tangent is None for cell in inputs):
        return
    moved = local.tangent(unit, values, [cell.tangent for cell in inputs])
    for cell, t in zip(cells, moved, strict=True):
        cell.tangent = t
        if t is not None:
            cell.note(tangent=tape.record(t))


def _forbid(tape: Tape, cells: list[Cell], name: str, said: str, note: str) -> None:
    """Put a step without a derivative on the tape: an adjoint that comes to it is an error.

    Zeros are none: what JAX knows not to need a derivative may reach it as zeros here.
    """
    results = tuple(cell for cell in cells if jaxprs.is_inexact(cell.value))
    for cell in results:
        cell.active = True

    def pull(adjoints: list[Any]) -> list[tuple[Cell, Any, str]]:
        known = [ct for ct in adjoints if ct is not None]
        if not any(jaxprs.is_traced(ct) or jnp.any(ct != 0) for ct in known):
            return []
        remedy = (
            "Trace it outside of jit and vmap and without sample=, so that the loop is opened."
            if "while_loop" in note
            else "Give it a rule with jax.custom_vjp, or put jax.lax.stop_gradient before it."
        )
        reason = note.partition(": ")[2].partition(". ")[0].removesuffix(".")
        require(
            False, "trace", "a derivative of all that the gradient flows through",
            f"none of {said} ({reason})", remedy,
        )  # fmt: skip
        return []

    tape.entries.append(Entry(name, results, pull))


def _line(at: At) -> str:
    where = names.source(at.places)
    return f" at {where}" if where else ""


def _enter(
    tape: Tape, unit: local.Unit, rule: local.Rule, residuals: list, operands: Sequence[Cell],
    cells: list[Cell], has_lines: bool, name: str,
) -> None:  # fmt: skip
    """Put the reverse of a unit on the tape."""
    texts, titles = [cell.name for cell in operands], [cell.name for cell in cells]
    results = tuple(cells[i] for i in rule.inexact)
    targets = [operands[unit.slots[i]] for i in rule.active]
    formulas = [fill(text, texts, titles) for text in rule.formulas]
    kept = [fill(text, texts, titles) for text in rule.kept]
    shown = tuple(text for text, counts in zip(kept, rule.counted, strict=True) if counts)
    said = tuple(f"{c.name}' += {f}" for c, f in zip(targets, formulas, strict=True))
    for cell in results:
        cell.active = True
        cell.note(active=True, rule=said, kept=tuple(dict.fromkeys(shown)))
    lead = results[0]
    given = [*kept, *(f"{cell.name}'" for cell in results)]

    def pull(adjoints: list[Any]) -> list[tuple[Cell, Any, str]]:
        cotangents = [
            local.zeros(cell.shape, cell.dtype) if ct is None else ct
            for cell, ct in zip(results, adjoints, strict=True)
        ]
        if has_lines:
            values = [*residuals, *cotangents]
            lines, back = run_lines(tape, rule.backward, values, given, "b", rule.sources)
            lead.note(backward=lines)
        else:
            back = jaxprs.evaluate(rule.backward, *residuals, *cotangents)
        return list(zip(targets, back, formulas, strict=True))

    tape.entries.append(Entry(name, results, pull))


def run_lines(
    tape: Tape,
    closed: Any,
    values: Sequence[Any],
    texts: Sequence[str],
    letter: str,
    sources: Mapping[int, Source | None] = NOWHERE,
) -> tuple[tuple[Line, ...], list[Any]]:
    """Run a jaxpr and keep each equation as a line: "b1 = v3' @ wᵀ"."""
    lines: list[Line] = []

    def run(
        jaxpr: Any, values: Sequence[Any], texts: Sequence[str], here: Source | None
    ) -> tuple[list, list[str]]:
        opened, consts = jaxprs.open_jaxpr(jaxpr)
        env: dict[Any, tuple[Any, str]] = {}
        constants = [constant(c).text for c in consts]
        env.update(zip(opened.constvars, zip(consts, constants, strict=True), strict=True))
        env.update(zip(opened.invars, zip(values, texts, strict=True), strict=True))

        def read(atom: Any) -> tuple[Any, str]:
            return env[atom] if jaxprs.is_var(atom) else (atom.val, constant(atom.val).text)

        for step in steps.steps_of(opened):
            found = [read(atom) for atom in step.operands]
            env.update(zip(step.results, do(step, found, here), strict=True))
        ends = [read(atom) for atom in opened.outvars]
        results = [
            value if jaxprs.is_var(atom) else jnp.asarray(value)
            for atom, (value, _) in zip(opened.outvars, ends, strict=True)
        ]
        return results, [text for _, text in ends]

    def do(
        step: steps.Step, found: list[tuple[Any, str]], here: Source | None
    ) -> list[tuple[Any, str]]:
        inner, given = _opened(step, found)
        if inner is not None:
            values, texts = [v for v, _ in given], [t for _, t in given]
            own = sources.get(id(step.eqn), here) or names.source(places_of(step.eqn))
            results, ends = run(inner, values, texts, own)
            return list(zip(results, ends, strict=True))
        unit, said, where = _prepared(tape, step)
        whole = any(True for _ in jaxprs.sub_jaxprs(step.eqn))
        evaluate = jaxprs.evaluate_again if whole else jaxprs.evaluate
        results = evaluate(unit.closed, *(found[i][0] for i in unit.slots))
        if step.eqn.primitive.name == "platform_index":
            return [(x, "platform") for x in results]
        if step.eqn.primitive.name in ("name", "optimization_barrier"):
            return [(x, found[i][1]) for i, x in enumerate(results)]
        made = []
        for x, template in zip(results, said, strict=False):
            name = f"{letter}{len(lines) + 1}"
            text = fill(template, [t for _, t in found], ())
            line = sources.get(id(step.eqn), here or where)
            lines.append(Line(name, text, value_of(x, tape.keep_all), line))
            made.append((x, name))
        return made

    results, _ = run(closed, values, texts, None)
    return tuple(lines), results


def _prepared(tape: Tape, step: steps.Step) -> tuple[local.Unit, list[str], Source | None]:
    """A line's unit, formulas and source; rules that stand for many rows ask for it again."""
    found = tape.lines.get(id(step.eqn))
    if found is None:
        said = [expr.text for expr in equation(step.eqn, local.tokens(step))]
        found = step.eqn, local.unit_of(step), said, names.source(places_of(step.eqn))
        tape.lines[id(step.eqn)] = found
    return found[1:]


def _opened(step: steps.Step, found: list) -> tuple[Any, list]:
    """What a step only calls, and with what: a jitted function, the branch that is taken, or the
    primal of a custom rule."""
    inside = None if len(step.eqns) > 1 else jaxprs.structure(step.eqn)
    if isinstance(inside, jaxprs.Cond) and not jaxprs.is_traced(found[0][0]):
        last = len(inside.branches) - 1
        return inside.branches[min(max(int(found[0][0]), 0), last)], found[1:]
    if isinstance(inside, jaxprs.Call):
        return inside.body, found
    return (None if len(step.eqns) > 1 else jaxprs.custom_body(step.eqn)), found


def _memory(eqn: Any, remat: tuple | None) -> str:
    if remat is None:
        return ""
    body = jaxprs.custom_body(eqn)
    eqns = [] if body is None else jaxprs.open_jaxpr(body)[0].eqns
    named = [e for e in eqns if e.primitive.name == "name"]
    policy = remat[0]
    saved = policy is not None and any(jaxprs.saves(policy, e) for e in named or [eqn])
    return "saved" if saved else "recomputed"
