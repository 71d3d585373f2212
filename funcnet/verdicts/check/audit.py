"""`audit`: every custom rule met anywhere in a function, at its own operands and adjoints."""

import ast
import linecache
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from ...jaxpr import jaxprs
from ...jaxpr.equations import Equation
from ...jaxpr.walk import At, walk
from ...rules.compare import cotangents, is_floating
from ...rules.rule import RULES
from ...traces.program import Program, seeds_of
from ...traces.run.primal import Primal
from ...traces.run.reverse import reverse
from ...traces.run.tape import Cell, Tape
from ...traces.source import names
from ...types import require
from .programs import pulled
from .report import Audited, AuditReport
from .rule import Checked, require_known
from .sides import line_of
from .subject import Subject, in_float64, rules_in, rules_of, stripped

PLACES = 16
"""At how many of a rule's places it is compared; the others are counted."""


class Met:
    """A rule where it was met.

    Attributes:
        e: Its equation.
        at: Its place.
        operands: What it was called with.
        active: Which of them take a gradient.
        adjoints: Those of its outputs; None until the reverse pass has come by.
    """

    def __init__(self, e: Equation, at: At, operands: list, active: tuple[int, ...]) -> None:
        self.e, self.at, self.operands, self.active = e, at, operands, active
        self.adjoints: list | None = None

    @property
    def key(self) -> Any:
        """What two places share if one compiled program serves both."""
        types = tuple((t.shape, str(t.dtype)) for t in map(jax.typeof, self.operands))
        return (
            jaxprs.custom_key(self.e.eqn) or (self.e.label, str(self.e.primal)),
            types,
            self.active,
        )

    def run(self, *operands: Any) -> list:
        """The rule's outputs."""
        return self.e.run(operands)

    def adjoints_of_floats(self) -> tuple | None:
        """The adjoint of each floating output, zeros where none came; None if none came at all."""
        if self.adjoints is None:
            return None
        types: list[Any] = [v.aval for v in self.e.results]
        pairs = [(a, t) for a, t in zip(self.adjoints, types, strict=True) if jaxprs.is_inexact(t)]
        return tuple(np.zeros(t.shape, t.dtype) if a is None else np.asarray(a) for a, t in pairs)

    def subject(self, twin: Equation | None) -> Subject:
        """What is compared; `twin` is its equation in float64."""
        names = _names(self.e, len(self.operands))
        wide = None
        if twin is not None:
            fine = lambda *operands: twin.run(operands)  # noqa: E731
            wide = fine, stripped(fine)
        arrays = tuple(
            jaxprs.as_array(x) if hasattr(x, "dtype") else np.asarray(x) for x in self.operands
        )
        adjoints = self.adjoints_of_floats()
        primal = stripped(self.run)
        return Subject(self.e.label, names, arrays, self.active, self.run, primal, wide, adjoints)


class Auditor(Primal):
    """The forward pass of a trace that keeps what each custom rule is called with."""

    def __init__(self, tape: Tape) -> None:
        super().__init__(tape)
        self.met: list[Met] = []

    def rule(self, e: Equation, operands: list[Cell], at: At) -> Sequence[Cell]:
        """Keep it, with the adjoints that come to it."""
        if jaxprs.strippable_body(e.eqn) is None:
            return self.plain(e, operands, at)
        first = jaxprs.closed_over(e.eqn)
        active = tuple(i for i, c in enumerate(operands) if c.active and i >= first)
        found = Met(e, at, [cell.value for cell in operands], active)
        before = len(self.tape.entries)
        cells = list(self.plain(e, operands, at))
        if active and len(self.tape.entries) > before:
            self.met.append(found)
            entry = self.tape.entries[-1]
            places = {id(cell): i for i, cell in enumerate(cells)}

            def pull(adjoints: list[Any]) -> list:
                known = dict(zip((places[id(c)] for c in entry.results), adjoints, strict=True))
                found.adjoints = [known.get(i) for i in range(len(cells))]
                try:
                    return entry.pull(adjoints)
                except Exception:  # a rule that raises is judged by itself; the rest goes on
                    return _of_primal(found, operands)

            self.tape.entries[-1] = entry._replace(pull=pull)
        return cells


def _of_primal(met: Met, operands: list[Cell]) -> list[tuple[Cell, Any, str]]:
    """The contributions of the primal."""
    f = stripped(met.run)
    found = pulled(f, met.active, met.operands, met.adjoints_of_floats() or ())
    return [(operands[i], g, "") for i, g in zip(met.active, found.gradients, strict=True)]


def met_in(
    jaxpr: Any, arrays: Sequence[Any], active: Sequence[bool], seeds: Sequence[Any],
    at: At | None = None,
) -> list[Met]:  # fmt: skip
    """The rules that a program runs, and those that these have inside their primals."""
    tape = Tape(_Unnumbered(), max_iterations=1_000_000)
    pairs = zip(arrays, active, strict=True)
    cells = [tape.cell(x, "", "argument", active=is_active) for x, is_active in pairs]
    auditor = Auditor(tape)
    outputs = walk(jaxpr, cells, auditor, at)
    reverse(tape, outputs, seeds)
    found = []
    for met in auditor.met:
        found.append(met)
        if met.adjoints is not None and rules_in(met.e.primal):
            own = [i in met.active for i in range(len(met.operands))]
            found += met_in(met.e.primal, met.operands, own, met.adjoints, met.at.down(0))
    return found


class _Unnumbered(dict):
    """Numbers of equations that nobody reads."""

    def __missing__(self, path: tuple) -> int:
        return 0


def audit(
    f: Callable,
    *,
    wrt: int | Sequence[int] | None = None,
    seed: Any = None,
    has_aux: bool = False,
    points: Sequence[str] = ("as given", "no cotangent"),
    ways: Sequence[str] = ("vmap", "scan", "remat", "grad of grad", "adjoint identity"),
    random: int = 0,
) -> "Auditing":
    """Hold every custom rule met in `f` against its primal, at its real operands and adjoints.

    A rule is found wherever it stands: in jit, scan, cond, remat, a loop, or inside the primal of
    another. `f` is run as `trace` runs it; each rule is then compared as `check_rule` does it.
    What JAX itself defines, as `jax.nn.relu`, is taken for right.

    Args:
        f: Any function.
        wrt: The arguments to differentiate, counted as by `jax.grad`; None for all.
        seed: The adjoint of the output, a pytree like it. None for 1, or, where the output is more
            than one number, for one that is drawn.
        has_aux: Whether `f` returns `(loss, aux)`.
        points: At which arrays beside those that it meets; see `check_rule`.
        ways: In which ways; see `check_rule`.
        random: Decides what is drawn.

    Returns:
        A function of the arguments of `f` that gives an `AuditReport`: `ok`, `assert_ok()`,
        `rules`, `failures`.

    Raises:
        TypeError: When called, if `f` carries no rule.
        ValueError: If a point or a way has another name; when called, as `trace` raises.

    >>> @jax.custom_vjp
    ... def cube(x):
    ...     return x**3
    >>> cube.defvjp(lambda x: (x**3, x), lambda x, dy: (-3 * x**2 * dy,))
    >>> report = audit(lambda x: jax.numpy.sum(jax.jit(cube)(jax.numpy.sin(x))))(1.0)
    >>> [(rule.name, rule.report.ok) for rule in report.rules]
    [('cube', False)]
    """
    require_known("audit", points, ways)
    return Auditing(f, wrt, seed, has_aux, tuple(points), tuple(ways), random)


@dataclass(frozen=True)
class Auditing:
    """What `audit` returns; a call gives an `AuditReport`."""

    f: Callable
    wrt: int | Sequence[int] | None
    seed: Any
    has_aux: bool
    points: tuple[str, ...]
    ways: tuple[str, ...]
    random: int

    def __call__(self, *args: Any) -> AuditReport:
        """Compare the rules met with these arguments."""
        program = Program("audit", self.f, args, {})
        program.require_values()
        closed, tree = program.opened()
        require(
            bool(rules_in(closed)),
            "audit",
            "a function that runs a custom rule",
            getattr(self.f, "__name__", type(self.f).__name__),
            "JAX derives all of its gradient: there is no rule to check.",
            TypeError,
        )
        active = program.active(program.chosen(self.wrt))
        seeds = self._seeds(tree, jaxprs.output_shapes(closed))
        groups: dict[Any, list[Met]] = {}
        for met in met_in(closed, program.arrays, active, seeds):
            groups.setdefault(met.key, []).append(met)
        twins, notes = _in_float64(closed, program)
        rules = [self._audited(found, twins.get(id(found[0].e))) for found in groups.values()]
        if lost := sorted(set(rules_in(closed)) - {rule.name for rule in rules}):
            some = ", ".join(lost)
            notes.append(f"Not met on a way from an argument to the output: {some}.")
        name = getattr(self.f, "__name__", type(self.f).__name__)
        return AuditReport(name, tuple(rules), tuple(notes))

    def _audited(self, found: list[Met], twin: Equation | None) -> Audited:
        """One rule at its places, of which some are compared."""
        step = max(1, -(-len(found) // PLACES))
        chosen = found[::step]
        first = chosen[0].subject(twin)
        checked = Checked(first)
        whole = checked.report(first, self.points, self.ways, self.random)
        rows = list(whole.comparisons)
        for n, met in enumerate(chosen[1:], 1):
            more = checked.report(met.subject(twin), ("as given",), (), self.random)
            rows += [c._replace(point=f"place {n * step + 1}") for c in more.comparisons]
        notes = whole.notes
        if len(chosen) < len(found):
            notes = (*notes, f"Compared at {len(chosen)} of {len(found)} places.")
        source = names.source(found[0].at.places)
        shapes = ", ".join(_shape(x) for x in first.arrays)
        report = replace(whole, comparisons=tuple(rows), notes=notes)
        return Audited(first.name, shapes, str(source or ""), len(found), report)

    def _seeds(self, tree: Any, shapes: Sequence[Any]) -> list[Any]:
        single = (len(shapes) == 1 and shapes[0].shape == ()) or self.has_aux
        if self.seed is not None or single:
            return seeds_of("audit", tree, shapes, self.seed, self.has_aux)
        draw = np.random.default_rng((self.random, 7))
        return [
            jax.numpy.asarray(cotangents(draw, s, str(s.dtype))) if is_floating(s) else None
            for s in shapes
        ]


def _in_float64(closed: Any, program: Program) -> tuple[dict[int, Equation], list[str]]:
    """For each rule's equation, that of the same program in float64."""
    arrays = in_float64(program.arrays)
    try:
        with jax.enable_x64(True):
            wide, _ = jaxprs.trace(program.of_arrays, *arrays)
    except Exception as error:  # whatever a function raises that takes its own dtype alone
        return {}, [f"Not run in float64: {line_of(error)}"]
    own, twins = rules_of(closed), rules_of(wide)
    pairs = zip(own, twins, strict=True) if len(own) == len(twins) else ()
    found = {id(e): twin for e, twin in pairs if e.label == twin.label and _is_float64(twin)}
    lost = dict.fromkeys(e.label for e in own if id(e) not in found)
    return found, [f"Not judged in float64: {', '.join(lost)}."] if lost else []


def _is_float64(e: Equation) -> bool:
    types: list[Any] = [v.aval for v in (*e.operands, *e.results)]
    floating = [t.dtype for t in types if jaxprs.is_inexact(t)]
    return all(str(dtype) in ("float64", "complex128") for dtype in floating)


def _names(e: Equation, count: int) -> tuple[str, ...]:
    """The names of a rule's operands: the arguments of its function, if they are told."""
    closed_over = jaxprs.closed_over(e.eqn)
    held = [f"closed over {i}" for i in range(closed_over)]
    rest = count - closed_over
    op = RULES.get(e.label)
    told = op.arguments[:rest] if op is not None else _parameters(jaxprs.written_in(e.primal))
    return (*held, *(told if len(told) == rest else (f"operand {i}" for i in range(rest))))


def _parameters(place: str) -> tuple[str, ...]:
    """The parameters of a function that is written at "f at FILE:LINE"."""
    name, _, where = place.partition(" at ")
    file, _, line = where.rpartition(":")
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return ()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            if first <= int(line) <= node.lineno:
                return tuple(arg.arg for arg in (*node.args.posonlyargs, *node.args.args))
    return ()


def _shape(x: Any) -> str:
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"
