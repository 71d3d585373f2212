"""`diff`: where two functions part, forward or backward, and by how much."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ...jaxpr import jaxprs
from ...render.forms import Column, Table
from ...traces.program import Program, seeds_of
from ...traces.record.rows import Row, Source
from ...traces.run.backward import backward, signs
from ...traces.run.steps import Run, run_steps
from ...types import require
from ..report import Report
from .adjoints import Adjoints
from .pairs import Pairs, Side, apart
from .values import Part, unseen, value_part

MOST = 12
"""How many rows a report shows."""


@dataclass(frozen=True)
class Place:
    """A row of one of the two functions.

    Attributes:
        row: Its name, with the iteration: "v3[2]".
        expression: What it computes.
        source: Where it was written.
        scope: Its layer.
    """

    row: str
    expression: str
    source: Source | None
    scope: str

    def __str__(self) -> str:
        at = ", ".join(filter(None, ("" if self.source is None else str(self.source), self.scope)))
        return f"{self.row} = {self.expression}{f'  ({at})' if at else ''}"


@dataclass(frozen=True)
class Parting:
    """The first place where two functions part.

    Attributes:
        phase: "forward" or "backward"; then it is the first on the way back.
        kind: "equation" (they compute something else), "operands" (they read something else),
            "only" (one has what the other lacks), "rule" (a custom rule sends back something
            else), or "rounding" (both do the same, and rounding grows there).
        why: The same in words.
        f: The row of the first function, if it has one.
        g: That of the second.
        difference: How far the values, or the adjoints sent back, are apart there, relative to
            the largest element.
    """

    phase: str
    kind: str
    why: str
    f: Place | None
    g: Place | None
    difference: float


@dataclass(frozen=True)
class Step:
    """A row of both functions.

    Attributes:
        f: The row of the first.
        g: That of the second.
        value: How far their values are apart, relative to the largest element.
        adjoint: The same of their adjoints; None without.
    """

    f: Place
    g: Place
    value: float
    adjoint: float | None


@dataclass(frozen=True)
class Difference(Report):
    """How two functions differ. It is falsy if they do so by no more than rounding.

    Attributes:
        names: What the two are called.
        first: The place where they part; None if they differ by no more than rounding.
        output: How far their outputs are apart, relative to the largest element.
        gradient: The same of their gradients; None where there are none.
        rounding: What counts as rounding, of values.
        unseen: Rows with other constants, where the results are the same all the same.
        steps: The rows of both, in order.
        only: How many equations each has that the other lacks.
    """

    names: tuple[str, str]
    first: Parting | None
    output: float
    gradient: float | None
    rounding: float
    unseen: Parting | None
    steps: tuple[Step, ...]
    only: tuple[int, int]

    def __bool__(self) -> bool:
        return self.first is not None and self.first.kind != "rounding"

    @property
    def heading(self) -> str:
        """What stands above its page."""
        return f"difference of {self.names[0]} and {self.names[1]}"

    def parts(self) -> Sequence[Table | str]:
        """Where they part, and how the difference grows from there."""
        back = "" if self.gradient is None else f", gradients by {self.gradient:.2g}"
        apart_ = f"Outputs differ by {self.output:.2g}{back}, relative to the largest element."
        one, other = self.names
        if self.first is None:
            same = self.output == 0 and not self.gradient
            said = (
                f"{one} and {other} {'are equal' if same else 'differ by no more than rounding'}."
            )
            if self.unseen is not None:
                said = f"{said}\nYet {self.unseen.why}: {self.unseen.f}."
        else:
            said = self._where(self.first)
        lacks = [
            f"{n} equation{' of ' + name + ' has' if n == 1 else 's of ' + name + ' have'} no "
            "counterpart."
            for name, n in zip(self.names, self.only, strict=True)
            if n
        ]
        table = self._table()
        return [f"{said}\n{' '.join([apart_, *lacks])}", *([table] if table.rows else [])]

    def _where(self, first: Parting) -> str:
        one, other = self.names
        places = [first.f, first.g]
        if first.phase == "backward":
            says = f"{one} and {other} have the same values; their gradients part on the way back"
        else:
            says = f"{one} and {other} part"
        if first.kind == "rounding":
            says = f"{one} and {other} do the same, and rounding grows"
        lines = [
            f"{name}: {place}" for name, place in zip(self.names, places, strict=True) if place
        ]
        return "\n".join([f"{says} by {first.difference:.2g}: {first.why}.", *lines])

    def _table(self) -> Table:
        """The rows at which the difference grows."""
        columns = (
            Column(self.names[0]),
            Column(self.names[1]),
            Column("line"),
            Column("values", True),
        )
        back = self.gradient is not None
        columns = (*columns, *([Column("adjoints", True)] if back else []))
        rows = []
        for step in self._told():
            at = "" if step.f.source is None else str(step.f.source)
            cells = (_cut(step.f), _cut(step.g), at, f"{step.value:.2g}")
            last = () if not back else ("" if step.adjoint is None else f"{step.adjoint:.2g}",)
            rows.append((*cells, *last))
        return Table(columns, tuple(rows), "How far they are apart")

    def _told(self) -> list[Step]:
        """The rows from where they part on that differ by more than rounding; or where rounding
        grows."""
        if self.first is not None and self.first.phase == "backward":
            limit = 4 * self.rounding
            told = [
                s for s in reversed(self.steps) if (s.adjoint or 0.0) > limit or self._is_first(s)
            ]
        elif self.first is not None:
            told = [s for s in self.steps if s.value > self.rounding or self._is_first(s)]
        else:
            told, most = [], self.rounding / 1000
            for step in self.steps:
                if step.value > 1.5 * most:
                    told.append(step)
                    most = step.value
        return told if len(told) <= MOST else [*told[: MOST - 1], told[-1]]

    def _is_first(self, step: Step) -> bool:
        first = self.first
        return first is not None and first.f is not None and first.f.row == step.f.row


def _cut(place: Place) -> str:
    said = f"{place.row} = {place.expression}"
    return said if len(said) <= 30 else f"{said[:27]}..."


def diff(
    f: Callable,
    g: Callable,
    *,
    wrt: int | Sequence[int] | None = None,
    seed: Any = None,
    has_aux: bool = False,
    dtypes: tuple[Any, Any] | None = None,
    max_iterations: int = 1000,
) -> Callable[..., Difference]:
    """Where two functions of the same arguments part: the first equation, and by how much.

    Both are run equation by equation, forward and back, and their rows are matched: by operation,
    shape, order and value. From outputs that differ the question goes back along the operands,
    until both sides are given the same and make something else of it. What each equation of `f`
    would make of the values of `g` is computed, so that rounding which merely grows is told from
    another equation. If the values agree, gradients that differ are followed the other way.

    `diff(f, autodiff(f))` holds the hand-written rules of `f` against JAX's.

    Args:
        f: The first.
        g: The second, of the same arguments, with outputs of the same shapes.
        wrt: The arguments to differentiate, counted as by `jax.grad`; None for all.
        seed: The adjoint of the output; without it that of an output of more than one number has
            numbers of both signs.
        has_aux: Whether the functions return `(loss, aux)`.
        dtypes: To what the floating arguments of each are cast; then rounding is that of the
            coarser dtype.
        max_iterations: The longest loop that is run.

    Returns:
        A function of the arguments that gives a `Difference`, which is falsy if the two differ by
        no more than rounding.

    Raises:
        ValueError: When called, if the outputs are not alike.
        TypeError: If `dtypes` are not two floating dtypes, or, when called, an argument has no
            values or one of the two is no function.

    >>> report = diff(lambda x: jnp.sin(x) * 2, lambda x: jnp.sin(x) * 3)(1.0)
    >>> report.first.f.expression, report.first.g.expression
    ('v1 * 2', 'v1 * 3')
    >>> bool(diff(lambda x: x + (x + 1), lambda x: (x + x) + 1)(0.1))
    False
    """
    if dtypes is not None:
        floating = len(dtypes) == 2 and all(jnp.issubdtype(d, jnp.floating) for d in dtypes)
        require(
            floating, "diff", "dtypes of two floating dtypes", dtypes,
            'Write dtypes=("float32", "bfloat16").', TypeError,
        )  # fmt: skip
    return functools.partial(_diff, f, g, wrt, seed, has_aux, dtypes, max_iterations)


def _diff(
    f: Callable, g: Callable, wrt: Any, seed: Any, has_aux: bool, dtypes: Any, longest: int,
    *args: Any, **kwargs: Any,
) -> Difference:  # fmt: skip
    found = [
        _run(h, wrt, args if dtypes is None else _cast(args, dtypes[i]), kwargs, longest)
        for i, h in enumerate((f, g))
    ]
    (one, tree), (other, tree_g) = found
    shapes = [
        [(out.shape, jaxprs.is_inexact(out.value)) for out in run.outputs] for run, _ in found
    ]
    require(
        tree == tree_g and shapes[0] == shapes[1], "diff",
        f"outputs like those of {_name(f)}, {tree} of shapes {[shape for shape, _ in shapes[0]]}",
        f"{tree_g} of shapes {[shape for shape, _ in shapes[1]]}",
        "Let both functions return the same structure and shapes.",
    )  # fmt: skip
    titles = _name(f), _name(g)
    titles = titles if titles[0] != titles[1] else (f"{titles[0]} (1)", f"{titles[1]} (2)")
    pairs = Pairs(Side(titles[0], one), Side(titles[1], other), tuple(dtypes or ()))
    seeds = [_seeds(tree, run, seed, has_aux) for run, _ in found]
    backs = Adjoints(pairs, *(backward(run, ct) for (run, _), ct in zip(found, seeds, strict=True)))
    part, phase = value_part(pairs), "forward"
    active = [cell for cell in one.arguments if cell.active]
    if part is None and active and any(ct is not None for ct in seeds[0]):
        part, phase = backs.part(), "backward"
    return _report(pairs, backs, part, phase, bool(active))


def _run(h: Callable, wrt: Any, args: tuple, kwargs: dict, longest: int) -> tuple[Run, Any]:
    program = Program("diff", h, args, kwargs)
    program.require_values()
    closed, tree = program.opened()
    active = program.active(program.chosen(wrt))
    return run_steps(closed, program.arrays, active, program.names(), longest), tree


def _cast(args: tuple, dtype: Any) -> tuple:
    def one(x: Any) -> Any:
        floating = isinstance(x, float) or (
            hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)
        )
        return jnp.asarray(x, dtype) if floating else x

    return jax.tree.map(one, args)


def _name(h: Callable) -> str:
    return getattr(h, "__name__", type(h).__name__)


def _seeds(tree: Any, run: Run, seed: Any, has_aux: bool) -> list[Any]:
    shapes = [jax.ShapeDtypeStruct(out.shape, out.dtype) for out in run.outputs]
    single = len(shapes) == 1 and shapes[0].shape == () and jaxprs.is_inexact(shapes[0])
    if seed is not None or single or has_aux:
        return seeds_of("diff", tree, shapes, seed, has_aux)
    return [signs(s.shape, s.dtype) if jaxprs.is_inexact(s) else None for s in shapes]


def _report(
    pairs: Pairs, backs: Adjoints, part: Part | None, phase: str, active: bool
) -> Difference:
    f, g = pairs.f, pairs.g
    steps = []
    for row in f.rows:
        if row.name in pairs.of_f:
            u, w = f.cells[row.name], g.cells[pairs.of_f[row.name]]
            adjoint = backs.gap(u, w) if u.active and id(u) in backs.f.adjoints else None
            steps.append(Step(_place(row), _place(g.by_name[w.name]), pairs.gap(u, w), adjoint))
    outputs = zip(f.run.outputs, g.run.outputs, strict=True)
    output = max((apart(u.value, w.value) for u, w in outputs), default=0.0)
    pairs_ = [(u, w) for u, w in zip(f.run.arguments, g.run.arguments, strict=True) if u.active]
    gradient = max((backs.gap(u, w) for u, w in pairs_), default=None) if active else None
    only = tuple(
        sum(
            row.kind in ("equation", "rule", "whole") and row.name not in known for row in side.rows
        )
        for side, known in ((f, pairs.of_f), (g, pairs.of_g))
    )
    limit = max(
        (pairs.unit(u, w) for u, w in zip(f.run.outputs, g.run.outputs, strict=True)),
        default=0.0,
    )
    first = None if part is None else _parting(part, phase)
    other = unseen(pairs) if part is None else None
    hidden = None if other is None else _parting(other, "forward")
    return Difference(
        (f.name, g.name), first, output, gradient, limit, hidden, tuple(steps), (only[0], only[1])
    )


def _parting(part: Part, phase: str) -> Parting:
    places = [None if row is None else _place(row) for row in (part.f, part.g)]
    return Parting(phase, part.kind, part.why, places[0], places[1], part.gap)


def _place(row: Row) -> Place:
    return Place(row.name, row.expression, row.source, row.scope)
