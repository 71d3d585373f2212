"""The forward pass, equation by equation: it runs a jaxpr and fills the tape.

Calls, branches and loops are walked through: an equation inside a jitted function reads the very
rows of the caller, and each iteration of a loop is run for itself. So the tape is one flat list,
and the reverse pass needs no code for control flow at all.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ...jaxpr import jaxprs, steps
from ...types import require
from ..formula import constant
from ..source import names
from ..source.places import places_of
from . import local
from .leaf import run_leaf
from .tape import At, Cell, Entry, Tape


def run(tape: Tape, jaxpr: Any, cells: Sequence[Cell], at: At) -> list[Cell]:
    """Run a jaxpr on cells."""
    opened, consts = jaxprs.open_jaxpr(jaxpr)
    env: dict[Any, Cell] = {}
    env.update(zip(opened.constvars, map(tape.constant, consts), strict=True))
    env.update(zip(opened.invars, cells, strict=True))

    def read(atom: Any) -> Cell:
        return env[atom] if jaxprs.is_var(atom) else Cell(atom.val, constant(atom.val).text)

    listed = steps.steps_of(opened)
    dead = _last_uses(listed, opened.outvars)
    for i, step in enumerate(listed):
        operands = [read(atom) for atom in step.operands]
        results = _step(tape, step, operands, _inside(step.eqn, i, at))
        env.update(zip(step.results, results, strict=True))
        for var in dead.get(i, ()):
            env.pop(var, None)
    return [read(atom) for atom in opened.outvars]


def _inside(eqn: Any, index: int, at: At) -> At:
    """The place of an equation of the jaxpr that runs at `at`."""
    own = jaxprs.scope(eqn)
    places = () if at.library else places_of(eqn)
    return At(
        (*at.path, index),
        at.iterations,
        (*at.within, *filter(None, own.split("/"))),
        "/".join(filter(None, (at.scope, own))),
        places or at.places,
        at.remat,
        at.library,
    )


def _step(tape: Tape, step: steps.Step, operands: list[Cell], at: At) -> list[Cell]:
    inside = steps.structure(step.eqn) if len(step.eqns) == 1 else None
    if isinstance(inside, jaxprs.Call):
        remat = (inside.policy,) if inside.remat else at.remat
        library = at.library or jaxprs.is_library(inside.body)
        return run(tape, inside.body, operands, at.down(0, remat=remat, library=library))
    if isinstance(inside, jaxprs.Cond) and not jaxprs.is_traced(operands[0].value):
        last = len(inside.branches) - 1
        taken = min(max(int(operands[0].value), 0), last)
        label = f"branch {taken} of {last + 1}"
        return run(tape, inside.branches[taken], operands[1:], at.down(taken, label))
    if isinstance(inside, jaxprs.Scan):
        return _scan(tape, inside, operands, at, step.eqn)
    if isinstance(inside, steps.Loop):
        results = _while(tape, inside, operands, at, step.eqn)
        if results is not None:
            return results
    if jaxprs.is_alias(step.eqn):
        return operands
    return run_leaf(tape, local.unit_of(step), operands, at, step.eqn, tape.name(at))


def _scan(
    tape: Tape, scan: jaxprs.Scan, operands: list[Cell], at: At, eqn: Any, kind: str = "scan"
) -> list[Cell]:
    first, last = scan.consts, scan.consts + scan.carry
    consts, carry, inputs = operands[:first], operands[first:last], operands[last:]
    spans = _spans(tape, scan.length, kind, at)
    slices = [_slices(tape, cell, spans, at) for cell in inputs]
    stacked: list[list[Cell]] = [[] for _ in spans]
    order = range(len(spans))[::-1] if scan.reverse else range(len(spans))
    for i in order:
        start, stop = spans[i]
        given = [*consts, *carry, *(pieces[i] for pieces in slices)]
        if stop is None:
            under = _iteration(at, kind, start)
            results = run(tape, scan.body, given, under)
        else:
            results = _segment(tape, scan, given, start, stop, at, eqn)
        carry, stacked[i] = results[: scan.carry], results[scan.carry :]
    count = len(eqn.outvars) - scan.carry
    columns = [[piece[i] for piece in stacked] for i in range(count)]
    outer = eqn.outvars[scan.carry :]
    made = [
        _stack(tape, column, spans, var.aval, at, i if count > 1 else None)
        for i, (column, var) in enumerate(zip(columns, outer, strict=True))
    ]
    return [*carry, *made]


def _iteration(at: At, kind: str, i: int) -> At:
    return at.down(0, kind, f"iteration {i}", iterations=(*at.iterations, i))


def _spans(tape: Tape, length: int, kind: str, at: At) -> list[tuple[int, int | None]]:
    """The pieces a loop is run in: (i, None) is iteration i, opened; (i, j) are i to j - 1."""
    sample = tape.sample
    if sample is None or length <= sample:
        _hold(tape, length, kind, at)
        return [(i, None) for i in range(length)]
    count = max(sample, 1)
    opened = sorted({round(i * (length - 1) / max(count - 1, 1)) for i in range(count)})
    spans: list[tuple[int, int | None]] = []
    done = 0
    for i in opened:
        if i > done:
            spans.append((done, i))
        spans.append((i, None))
        done = i + 1
    return [*spans, (done, length)] if done < length else spans


def _hold(tape: Tape, length: int, kind: str, at: At) -> None:
    where = f" ({at.places[0].file.rpartition('/')[2]}:{at.places[0].line})" if at.places else ""
    require(
        length <= tape.max_iterations,
        "trace",
        f"loops of at most {tape.max_iterations} iterations",
        f"a {kind} of {'more' if kind == 'while' else length}{where}",
        "Pass sample=8 to open eight of them, or a larger max_iterations.",
    )


def _slices(tape: Tape, cell: Cell, spans: list[tuple[int, int | None]], at: At) -> list[Cell]:
    """An input of a scan in its pieces."""
    pieces = []
    for start, stop in spans:
        where = f"{start}" if stop is None else f"{start}:{stop}"
        piece = tape.cell(_part(cell.value, start, stop), f"{cell.name}[{where}]", "slice", "slice")
        piece.active = cell.active
        inner = _iteration(at, "scan", start).within if stop is None else at.within
        piece.note(
            expression=piece.name, operands=(cell.name,), active=cell.active, within=inner,
            scope=at.scope, source=names.source(at.places),
        )  # fmt: skip
        if cell.tangent is not None:
            piece.tangent = _part(cell.tangent, start, stop)
            piece.note(tangent=tape.record(piece.tangent))
        pieces.append(piece)

    def pull(adjoints: list[Any]) -> list[tuple[Cell, Any, str]]:
        parts = [
            local.zeros(piece.shape, piece.dtype) if ct is None else ct
            for piece, ct in zip(pieces, adjoints, strict=True)
        ]
        ends = [f"{pieces[0].name}'", "...", f"{pieces[-1].name}'"][: 3 if len(pieces) > 1 else 1]
        return [(cell, _joined(parts, spans), f"stack({', '.join(ends)})")]

    if cell.active and pieces:
        tape.entries.append(Entry(f"{cell.name}[...]", tuple(pieces), pull))
    return pieces


def _stack(
    tape: Tape, column: list[Cell], spans: list, aval: Any, at: At, index: int | None
) -> Cell:
    """An output of a scan out of its pieces."""
    name = tape.name(at) + ("" if index is None else f".{index}")
    values = [cell.value for cell in column]
    whole = _joined(values, spans) if values else jnp.zeros(aval.shape, aval.dtype)
    result = tape.cell(whole, name, "stack", "stack")
    result.active = any(cell.active for cell in column)
    listed = [column[0].name, "...", column[-1].name] if len(column) > 2 else [
        cell.name for cell in column]  # fmt: skip
    result.note(
        expression=f"stack({', '.join(listed)})", operands=tuple(cell.name for cell in column),
        active=result.active, within=at.within, scope=at.scope, source=names.source(at.places),
    )  # fmt: skip
    if any(cell.tangent is not None for cell in column):
        tangents = [
            jnp.zeros_like(cell.value) if cell.tangent is None else cell.tangent for cell in column
        ]
        result.tangent = _joined(tangents, spans)
        result.note(tangent=tape.record(result.tangent))

    def pull(adjoints: list[Any]) -> list[tuple[Cell, Any, str]]:
        return [
            (cell, _part(adjoints[0], start, stop), f"{name}'[{start}]")
            for cell, (start, stop) in zip(column, spans, strict=True)
            if cell.active
        ]

    if result.active:
        tape.entries.append(Entry(name, (result,), pull))
    return result


def _part(x: Any, start: int, stop: int | None) -> Any:
    if stop is None:
        return jax.lax.index_in_dim(x, start, keepdims=False)
    return jax.lax.slice_in_dim(x, start, stop)


def _joined(parts: Sequence[Any], spans: list) -> Any:
    parts = [jnp.asarray(part) for part in parts]
    if all(stop is None for _, stop in spans):
        return jnp.stack(parts)
    whole = [
        part[None] if stop is None else part for part, (_, stop) in zip(parts, spans, strict=True)
    ]
    return jnp.concatenate(whole)


def _segment(
    tape: Tape, scan: jaxprs.Scan, given: list[Cell], start: int, stop: int, at: At, eqn: Any
) -> list[Cell]:
    """Several iterations of a loop as one step, compiled."""
    types = tuple(str(jax.typeof(cell.value)) for cell in given)
    key = "segment", id(scan.body), stop - start, types
    if key not in tape.rules:  # segments of one length are compiled once
        tape.rules[key] = _compiled_scan(scan, stop - start, tuple(given))
    slots = tuple(range(len(given)))
    texts = local.placeholders(len(given))
    unit = local.Unit(tape.rules[key], slots, texts, "scan", key, private=True)
    where = ",".join([*map(str, at.iterations), f"{start}:{stop}"])
    name = f"v{tape.numbers[at.path]}[{where}]"
    return run_leaf(tape, unit, given, at, eqn, name)


def _compiled_scan(scan: jaxprs.Scan, length: int, given: tuple[Cell, ...]) -> Any:
    first, last = scan.consts, scan.consts + scan.carry

    def whole(*values: Any) -> list:
        def body(carry: list, inputs: list) -> tuple[list, list]:
            results = jaxprs.evaluate(jaxprs.close(scan.body), *values[:first], *carry, *inputs)
            return results[: scan.carry], results[scan.carry :]

        carry, stacked = jax.lax.scan(
            body, list(values[first:last]), list(values[last:]), length, scan.reverse
        )
        return [*carry, *stacked]

    return jax.make_jaxpr(jax.jit(whole))(*(cell.value for cell in given))


def _while(
    tape: Tape, loop: steps.Loop, operands: list[Cell], at: At, eqn: Any
) -> list[Cell] | None:
    """A loop until its condition fails; None if that cannot be known, under a transformation."""
    tests, consts, carry = map(list, loop.groups(operands))
    if any(jaxprs.is_traced(cell.value) for cell in operands):
        return None

    def goes_on(carry: Sequence[Any]) -> Any:
        values = (*(cell.value for cell in tests), *carry)
        return jaxprs.evaluate(loop.cond, *values)[0]

    if tape.sample is not None:
        return _sampled_while(tape, loop, consts, carry, goes_on, at, eqn)
    for i in itertools.count():
        if not bool(goes_on([cell.value for cell in carry])):
            return carry
        _hold(tape, i + 1, "while", at)
        under = _iteration(at, "while", i)
        carry = run(tape, loop.body, [*consts, *carry], under)


def _sampled_while(
    tape: Tape, loop: steps.Loop, consts: list[Cell], carry: list[Cell], goes_on: Any, at: At,
    eqn: Any,
) -> list[Cell]:  # fmt: skip
    fixed = [cell.value for cell in consts]
    count, _ = jax.lax.while_loop(
        lambda state: goes_on(state[1]),
        lambda state: (state[0] + 1, jaxprs.evaluate(loop.body, *fixed, *state[1])),
        (0, [cell.value for cell in carry]),
    )
    known = jaxprs.Scan(loop.body, len(consts), len(carry), int(count), False, 1)
    return _scan(tape, known, [*consts, *carry], at, eqn, "while")


def _last_uses(listed: list[steps.Step], outvars: Sequence[Any]) -> dict[int, list]:
    """The variables that no step after this one reads."""
    last = {}
    for i, step in enumerate(listed):
        for atom in itertools.chain(filter(jaxprs.is_var, step.operands), step.results):
            last[atom] = i
    for atom in filter(jaxprs.is_var, outvars):
        last.pop(atom, None)
    dead: dict[int, list] = {}
    for var, i in last.items():
        dead.setdefault(i, []).append(var)
    return dead
