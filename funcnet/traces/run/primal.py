"""The forward pass, equation by equation: it runs a jaxpr and fills the tape.

Calls, branches and loops are walked through: an equation inside a jitted function reads the very
rows of the caller, and each iteration of a loop is run for itself. So the tape is one flat list,
and the reverse pass needs no code for control flow at all.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...jaxpr import concrete, jaxprs
from ...jaxpr.equations import Equation, as_equation
from ...jaxpr.walk import At, Handler, walk
from ...types import require
from ..formula import constant
from ..verdict import is_trusted
from .leaf import run_leaf
from .tape import Cell, Entry, Tape, filled


@dataclass
class Primal(Handler):
    """The handler of the forward pass, whose values are cells."""

    tape: Tape

    def constant(self, value: Any) -> Cell:
        """A row, once for each array."""
        return self.tape.constant(value)

    def literal(self, value: Any) -> Cell:
        """No row."""
        return Cell(value, constant(value).text)

    def plain(self, e: Equation, operands: list[Cell], at: At) -> Sequence[Cell]:
        """Rows, and a step of the tape."""
        return operands if e.is_alias else run_leaf(self.tape, e, operands, at, self.tape.name(at))

    def rule(self, e: Equation, operands: list[Cell], at: At) -> Sequence[Cell]:
        """The same, and a name if a gradient flows through a rule that is not proved."""
        cells = self.plain(e, operands, at)
        if any(cell.active for cell in cells) and is_trusted(e):
            self.tape.trusted[e.label] = None
        return cells

    def cond(self, e: Equation, operands: list[Cell], at: At) -> Sequence[Cell]:
        """The branch that is taken."""
        taken = e.inside.taken(operands[0].value)
        if taken is None:
            return self.plain(e, operands, at)
        label = f"branch {taken} of {len(e.inside.branches)}"
        return walk(e.inside.branches[taken], operands[1:], self, at.down(taken, label))

    def scan(self, e: Equation, operands: list[Cell], at: At) -> Sequence[Cell]:
        """Each iteration, or some of them and what lies between compiled."""
        return self._scan(e.inside, operands, at, e.results[e.inside.carry :])

    def loop(self, e: Equation, operands: list[Cell], at: At) -> Sequence[Cell]:
        """Each iteration until the condition fails, unless a transformation hides when that is."""
        loop = e.inside
        tests, consts, carry = map(list, loop.groups(operands))
        if any(jaxprs.is_traced(cell.value) for cell in operands):
            return self.plain(e, operands, at)

        def goes_on(carry: Sequence[Any]) -> Any:
            return jaxprs.evaluate(loop.cond, *(cell.value for cell in tests), *carry)[0]

        if self.tape.sample is not None:
            count = _count(loop.body, consts, carry, goes_on)
            known = jaxprs.Scan(loop.body, len(consts), len(carry), count, False, 1)
            return self._scan(known, [*consts, *carry], at, (), "while")
        for i in itertools.count():
            if not bool(goes_on([cell.value for cell in carry])):
                break
            _hold(self.tape, i + 1, "while", at)
            carry = walk(loop.body, [*consts, *carry], self, _iteration(at, "while", i))
        return carry

    def _scan(
        self, scan: jaxprs.Scan, operands: list[Cell], at: At, outer: Sequence, kind: str = "scan"
    ) -> list[Cell]:
        consts, carry, inputs = scan.groups(operands)
        spans = _spans(self.tape, scan.length, kind, at)
        slices = [_slices(self.tape, cell, spans, at) for cell in inputs]
        stacked: list[list[Cell]] = [[] for _ in spans]
        for i in reversed(range(len(spans))) if scan.reverse else range(len(spans)):
            start, stop = spans[i]
            given = [*consts, *carry, *(pieces[i] for pieces in slices)]
            if stop is None:
                results = walk(scan.body, given, self, _iteration(at, kind, start))
            else:
                e = _segment(self.tape, scan, stop - start, given)
                name = self.tape.name(at, f"{start}:{stop}")
                results = run_leaf(self.tape, e, given, at, name)
            carry, stacked[i] = results[: scan.carry], results[scan.carry :]
        made = []
        for i, var in enumerate(outer):
            name = self.tape.name(at) + (f".{i}" if len(outer) > 1 else "")
            column = [results[i] for results in stacked]
            made.append(_stack(self.tape, column, spans, name, var.aval, at))
        return [*carry, *made]


def _iteration(at: At, kind: str, i: int) -> At:
    return at.turn(kind, f"iteration {i}", index=i)


Span = tuple[int, int | None]
"""A piece that a loop is run in: (i, None) is iteration i, opened; (i, j) are i to j - 1."""


def _spans(tape: Tape, length: int, kind: str, at: At) -> list[Span]:
    sample = tape.sample
    if sample is None or length <= sample:
        _hold(tape, length, kind, at)
        return [(i, None) for i in range(length)]
    count = max(sample, 1)
    opened = sorted({round(i * (length - 1) / max(count - 1, 1)) for i in range(count)})
    spans: list[Span] = []
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


def _slices(tape: Tape, cell: Cell, spans: list[Span], at: At) -> list[Cell]:
    """An input of a scan in its pieces."""
    pieces = []
    for start, stop in spans:
        name = f"{cell.name}[{start}]" if stop is None else f"{cell.name}[{start}:{stop}]"
        within = _iteration(at, "scan", start).within if stop is None else at.within
        piece = tape.cell(
            _part(cell.value, start, stop), name, "slice", at=at, expression=name, within=within,
            operands=(cell.name,), active=cell.active,
        )  # fmt: skip
        tape.move(piece, None if cell.tangent is None else _part(cell.tangent, start, stop))
        pieces.append(piece)

    def pull(adjoints: list[Any]) -> list[tuple[Cell, Any, str]]:
        ends = [f"{pieces[0].name}'", "...", f"{pieces[-1].name}'"][: 3 if len(pieces) > 1 else 1]
        return [(cell, _joined(filled(pieces, adjoints), spans), f"stack({', '.join(ends)})")]

    if cell.active and pieces:
        tape.entries.append(Entry(f"{cell.name}[...]", pieces, pull))
    return pieces


def _stack(tape: Tape, column: list[Cell], spans: list[Span], name: str, aval: Any, at: At) -> Cell:
    """An output of a scan out of its pieces."""
    values = [cell.value for cell in column]
    whole = _joined(values, spans) if values else jnp.zeros(aval.shape, aval.dtype)
    operands = tuple(cell.name for cell in column)
    listed = operands if len(operands) <= 2 else (operands[0], "...", operands[-1])
    result = tape.cell(
        whole, name, "stack", at=at, expression=f"stack({', '.join(listed)})", operands=operands,
        active=any(cell.active for cell in column),
    )  # fmt: skip
    tangents = [cell.tangent for cell in column]
    moves = any(t is not None for t in tangents)
    tape.move(result, _joined(filled(column, tangents), spans) if moves else None)

    def pull(adjoints: list[Any]) -> list[tuple[Cell, Any, str]]:
        return [
            (cell, _part(adjoints[0], start, stop), f"{name}'[{start}]")
            for cell, (start, stop) in zip(column, spans, strict=True)
            if cell.active
        ]

    if result.active:
        tape.entries.append(Entry(name, [result], pull))
    return result


def _part(x: Any, start: int, stop: int | None) -> Any:
    here = concrete.on_host(x)
    if here is not None:
        return np.array(here[0][start if stop is None else slice(start, stop)])
    if stop is None:
        return jax.lax.index_in_dim(x, start, keepdims=False)
    return jax.lax.slice_in_dim(x, start, stop)


def _joined(parts: Sequence[Any], spans: list[Span]) -> Any:
    here = concrete.on_host(*parts)
    if here is not None:
        pairs = zip(here, spans, strict=True)
        return np.concatenate([x[None] if stop is None else x for x, (_, stop) in pairs])
    parts = [jnp.asarray(part) for part in parts]
    if all(stop is None for _, stop in spans):
        return jnp.stack(parts)
    pairs = zip(parts, spans, strict=True)
    return jnp.concatenate([part[None] if stop is None else part for part, (_, stop) in pairs])


def _segment(tape: Tape, scan: jaxprs.Scan, length: int, given: list[Cell]) -> Equation:
    """So many iterations of a loop as one equation; those of one length are compiled once."""
    key = "segment", id(scan.body), length, tuple(str(jax.typeof(cell.value)) for cell in given)
    if key not in tape.known:

        def whole(*values: Any) -> list:
            consts, carry, inputs = scan.groups(values)

            def body(carry: list, inputs: list) -> tuple[list, list]:
                results = jaxprs.evaluate(jaxprs.close(scan.body), *consts, *carry, *inputs)
                return results[: scan.carry], results[scan.carry :]

            carry, stacked = jax.lax.scan(body, carry, inputs, length, scan.reverse)
            return [*carry, *stacked]

        closed, _ = jaxprs.trace(jax.jit(whole), *(cell.value for cell in given))
        tape.known[key] = as_equation(closed, "scan")
    return tape.known[key]


def _count(body: Any, consts: list[Cell], carry: list[Cell], goes_on: Any) -> int:
    """How many iterations a loop runs."""
    fixed = [cell.value for cell in consts]
    count, _ = jax.lax.while_loop(
        lambda state: goes_on(state[1]),
        lambda state: (state[0] + 1, jaxprs.evaluate(body, *fixed, *state[1])),
        (0, [cell.value for cell in carry]),
    )
    return int(count)
