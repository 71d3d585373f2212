"""From gradients that differ forward to the equation that sends back something else."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ...jaxpr import jaxprs
from ...traces.record.rows import Row
from ...traces.run.backward import Backward, Stage
from ...traces.run.tape import Cell
from .pairs import Pairs, Side, apart
from .values import Part


@dataclass(eq=False)
class Adjoints:
    """The adjoints of two functions side by side.

    Attributes:
        pairs: Their rows.
        f: The reverse pass of the first.
        g: That of the second.
    """

    pairs: Pairs
    f: Backward
    g: Backward

    def gap(self, u: Cell, w: Cell) -> float:
        """How far two adjoints are apart, relative to the largest of what they are sums of."""
        a, b = _adjoint(self.f, u), _adjoint(self.g, w)
        if a.shape != b.shape:
            return np.inf
        gap = apart(a, b)
        if gap == 0 or not np.isfinite(gap):
            return gap
        size = max(np.abs(x.astype(np.complex128)).max(initial=0.0) for x in (a, b))
        terms = max(_terms(self.f, u), _terms(self.g, w), size)
        return gap * float(size / terms)

    def agree(self, u: Cell, w: Cell) -> bool:
        """Whether two adjoints are the same up to rounding, of which a reverse pass has more."""
        return self.gap(u, w) <= 4 * self.pairs.unit(u, w)

    @cached_property
    def differing(self) -> set[str]:
        """The rows of f whose adjoint is not that of their partner."""
        return {
            name
            for name, other in self.pairs.of_f.items()
            if self._both_active(name, other)
            and not self.agree(self.pairs.f.cells[name], self.pairs.g.cells[other])
        }

    def _both_active(self, name: str, other: str) -> bool:
        return self.pairs.f.cells[name].active and self.pairs.g.cells[other].active

    def part(self) -> Part | None:
        """The first place on the way back where adjoints part, on the way to gradients that do."""
        pairs = zip(self.f.run.arguments, self.g.run.arguments, strict=True)
        apart_ = [(u, w) for u, w in pairs if u.active and not self.agree(u, w)]
        if not apart_:
            return None
        found = [self._followed(u.name) for u, _ in apart_]
        order = {row.name: i for i, row in enumerate(self.pairs.f.rows)}
        return max(found, key=lambda part: -1 if part.f is None else order[part.f.name])

    def _followed(self, name: str) -> Part:
        """From a row whose adjoint differs to the last that does, and what reads it."""
        while True:
            own, above = _readers(self.pairs.f, name, self.pairs.of_f)
            other, beyond = _readers(self.pairs.g, self.pairs.of_f[name], self.pairs.of_g)
            results = above | {self.pairs.of_g[w] for w in beyond}
            worse = [u for u in results if u in self.differing]
            if not worse:
                cells = self.pairs.f.cells[name], self.pairs.g.cells[self.pairs.of_f[name]]
                return self._place(name, own, above, other)._replace(gap=self.gap(*cells))
            order = {row.name: i for i, row in enumerate(self.pairs.f.rows)}
            name = max(worse, key=order.__getitem__)

    def _place(self, name: str, own: list[Row], above: set[str], other: list[Row]) -> Part:
        """Which of the rows that read a value sends back something else."""
        f, g, of_f = self.pairs.f, self.pairs.g, self.pairs.of_f
        rules = [row for row in (*(f.by_name[u] for u in above), *own) if row.kind == "rule"]
        single = [row for row in other if row.name not in self.pairs.of_g]
        ends = [row for row in (*single, *own) if not row.active]
        if ends and not rules:
            row, mine = ends[0], ends[0] in own
            side = f if mine else g
            why = f"only {side.name} has {row.op}, which sends nothing back"
            return Part("only", why, row if mine else f.by_name[name], None if mine else row)
        for u in sorted(above, key=lambda u: f.by_name[u].kind != "rule"):
            if self._sends(name, u) > 4 * self.pairs.unit(f.cells[name], f.cells[u]):
                row, there = f.by_name[u], g.by_name[of_f[u]]
                kind = "rule" if "rule" in (row.kind, there.kind) else "equation"
                return Part(kind, self._ratio(name, row), row, there)
        rows = [*rules, *(f.by_name[u] for u in above), *own]
        row = rows[0] if rows else f.by_name[name]
        there = of_f.get(row.name) or (other[0].name if other else of_f[name])
        return Part("equation", self._ratio(name, row), row, g.by_name[there])

    def _sends(self, name: str, result: str) -> float:
        """How far apart is what two matched rows send back to a value."""
        u, w = self.pairs.f.cells[name], self.pairs.g.cells[self.pairs.of_f[name]]
        return apart(*self._both(u, w, result))

    def _both(self, u: Cell, w: Cell, result: str) -> tuple[np.ndarray, np.ndarray]:
        """What a row and its partner send back to two values; or their whole adjoints, where it
        comes by other rows."""
        if result in self.pairs.of_f:
            r, s = self.pairs.f.cells[result], self.pairs.g.cells[self.pairs.of_f[result]]
            a, b = _sent(self.f, u, r), _sent(self.g, w, s)
            if a is not None and b is not None:
                return a, b
        return _adjoint(self.f, u), _adjoint(self.g, w)

    def _ratio(self, name: str, row: Row) -> str:
        u, w = self.pairs.f.cells[name], self.pairs.g.cells[self.pairs.of_f[name]]
        a, b = self._both(u, w, row.name)
        to = row_name(self.pairs.f.by_name[name])
        size = float(np.sum(np.abs(b.astype(np.complex128)) ** 2))
        if not size or a.shape != b.shape:
            return f"what {row.op} sends back to {to} is 0 in one of them"
        factor = float(np.sum(a * b.conj()).real) / size
        rest = apart(a, factor * b)
        plain = f"what {row.op} sends back to {to}"
        if rest < 1e-4:
            return f"{plain} is {factor:.6g} times that of {self.pairs.g.name}"
        return f"{plain} differs"


def row_name(row: Row) -> str:
    """What a reader calls a row."""
    return row.variable or row.name


def _adjoint(back: Backward, cell: Cell) -> np.ndarray:
    found = back.adjoints.get(id(cell))
    if found is None:
        kind: Any = cell.dtype if jaxprs.is_inexact(cell.value) else np.float32
        return np.zeros(cell.shape, kind)
    return found


def _terms(back: Backward, cell: Cell) -> float:
    """The largest of what an adjoint is the sum of, before anything cancels."""
    found = 0.0
    for stage, part in back.parts.get(id(cell), ()):
        found = max(found, float(np.abs(part.astype(np.complex128)).max(initial=0.0)))
        if stage is not None and stage.step is not None:
            for target, some in zip(stage.targets, stage.some(), strict=True):
                if target is cell:
                    found = max(found, float(np.abs(some.astype(np.complex128)).max(initial=0.0)))
    return found


def _sent(back: Backward, cell: Cell, result: Cell) -> np.ndarray | None:
    """What an equation sends back to an operand."""
    found: list[np.ndarray] = [
        part
        for stage, part in back.parts.get(id(cell), ())
        if stage is not None and _makes(stage, result)
    ]
    return sum(found[1:], found[0]) if found else None


def _makes(stage: Stage, cell: Cell) -> bool:
    return any(made is cell for made in stage.entry.results)


def _readers(side: Side, name: str, known: dict[str, str]) -> tuple[list[Row], set[str]]:
    """The rows without a partner that a row goes into, in order; those with one that follow."""
    open_, own, ends = [name], {}, set()
    while open_:
        for row in side.readers.get(open_.pop(), ()):
            if row.name in known:
                ends.add(row.name)
            elif row.name not in own:
                own[row.name] = row
                open_.append(row.name)
    return list(own.values()), ends
