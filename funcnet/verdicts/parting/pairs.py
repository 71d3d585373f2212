"""The rows of two functions side by side: which of one is which of the other."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...jaxpr import jaxprs
from ...traces.record.rows import Row
from ...traces.record.values import is_number
from ...traces.run.backward import signs
from ...traces.run.steps import Run, Step
from ...traces.run.tape import Cell


@dataclass(eq=False)
class Side:
    """One of two functions, run equation by equation.

    Attributes:
        name: What it is called.
        run: What was run.
    """

    name: str
    run: Run

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Its rows, in order."""
        return self.run.tape.rows()

    @cached_property
    def by_name(self) -> dict[str, Row]:
        """The same, by their names."""
        return {row.name: row for row in self.rows}

    @cached_property
    def cells(self) -> dict[str, Cell]:
        """The value of each row that an equation reads or makes, or that is an output."""
        steps = self.run.steps.values()
        among = [*self.run.arguments, *(x for s in steps for x in (*s.operands, *s.results))]
        return {cell.name: cell for cell in (*among, *self.run.outputs) if cell.draft is not None}

    @cached_property
    def made(self) -> dict[str, Step]:
        """The equation that made each row."""
        return {cell.name: step for step in self.run.steps.values() for cell in step.results}

    @cached_property
    def readers(self) -> dict[str, list[Row]]:
        """The rows that read each row."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            for name in dict.fromkeys(row.operands):
                found.setdefault(name, []).append(row)
        return found


@dataclass(eq=False)
class Pairs:
    """Two functions, and the rows of the one that are rows of the other.

    Attributes:
        f: The first.
        g: The second.
        dtypes: Those that the two were asked to run in, of which the coarser says what rounding
            is; without them it is the finer dtype of two values.
    """

    f: Side
    g: Side
    dtypes: tuple = ()

    @cached_property
    def of_f(self) -> dict[str, str]:
        """The row of g for each of f that has one."""
        left = [row for row in self.f.rows if row.name in self.f.cells]
        right = [row for row in self.g.rows if row.name in self.g.cells]
        found = _matched(left, right, self._first)
        found = _between(left, right, found, _key)
        return _between(left, right, found, None, self._agree)

    @cached_property
    def of_g(self) -> dict[str, str]:
        """The row of f for each of g that has one."""
        return {w: u for u, w in self.of_f.items()}

    def gap(self, u: Cell, w: Cell) -> float:
        """How far two values are apart, relative to the largest element of both."""
        return apart(u.value, w.value)

    def unit(self, u: Cell, w: Cell) -> float:
        """The gap that rounding may explain, in the dtypes of two values."""
        return max(rounding(u.dtype, w.dtype), *(rounding(d) for d in self.dtypes), 0.0)

    def rounding(self, u: Cell, w: Cell) -> float:
        """The gap of two values that rounding may explain, which of a sum is that of its terms."""
        made = self.f.made.get(u.name), self.g.made.get(w.name)
        return self.unit(u, w) * max(_cancels(step) for step in made)

    def agree(self, u: Cell, w: Cell) -> bool:
        """Whether two values are the same up to rounding."""
        return self.gap(u, w) <= self.rounding(u, w)

    def _agree(self, u: Row, w: Row) -> bool:
        a, b = self.f.cells[u.name], self.g.cells[w.name]
        inexact = jaxprs.is_inexact(a.value) and a.shape == b.shape
        return inexact and bool(np.any(np.asarray(a.value) != 0)) and self.agree(a, b)

    def _first(self, row: Row) -> Hashable:
        """What two rows have in common whose values are the same."""
        side = self.f if self.f.by_name.get(row.name) is row else self.g
        return *_key(row), _fingerprint(side.cells[row.name].value)


def _cancels(made: Step | None) -> float:
    """How many times larger a sum would be if its terms had one sign; 1 of what is no sum."""
    if made is None or made.e.label != "reduce_sum":
        return 1.0
    if not jaxprs.is_inexact(made.results[0].value):
        return 1.0
    whole = made.e.run([np.abs(np.asarray(made.operands[0].value))])[0]
    sizes = [np.asarray(np.abs(x), float) for x in (whole, made.results[0].value)]
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = float(sizes[0].max(initial=0.0) / sizes[1].max(initial=0.0))
    return max(factor, 1.0) if np.isfinite(factor) else 1.0


def apart(a: Any, b: Any) -> float:
    """The largest difference of two arrays, relative to their largest element; inf if one has
    NaN, infinity or a shape that the other has not."""
    if jnp.shape(a) != jnp.shape(b):
        return np.inf
    if not (is_number(jnp.result_type(a)) and is_number(jnp.result_type(b))):
        return 0.0 if str(a) == str(b) else np.inf
    wide = [np.asarray(x).astype(np.complex128 if jnp.iscomplexobj(x) else float) for x in (a, b)]
    with np.errstate(invalid="ignore"):
        same = (wide[0] == wide[1]) | (np.isnan(wide[0]) & np.isnan(wide[1]))
        gap = np.where(same, 0.0, np.abs(wide[0] - wide[1])).max(initial=0.0)
    if gap == 0:
        return 0.0
    size = max(float(np.abs(x[np.isfinite(x)]).max(initial=0.0)) for x in wide)
    return float(gap / size) if np.isfinite(gap) and size else np.inf


def rounding(*dtypes: Any) -> float:
    """The relative difference that rounding explains: 32 units in the last place, 4 of 16 bits."""
    finite = [float(jnp.finfo(d).eps) for d in dtypes if _is_inexact(d)]
    eps = min(finite, default=0.0)
    return eps * (4 if eps > 1e-5 else 32)


def _is_inexact(dtype: Any) -> bool:
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)


def _key(row: Row) -> tuple:
    """What two rows have in common that may be the same one."""
    number = row.name if row.kind == "argument" else ""
    return row.kind, row.op, row.value.shape, row.name.partition("[")[2], number


def _fingerprint(x: Any) -> str:
    """A value in three digits."""
    if not is_number(x.dtype):
        return str(x)
    wide = np.asarray(x).astype(np.complex128)
    with np.errstate(invalid="ignore", over="ignore"):
        some = np.sum(wide * np.asarray(signs(wide.shape, np.float32)))
    return f"{np.sum(np.abs(wide)):.2e} {some:.2e}"


def _matched(
    left: Sequence[Row], right: Sequence[Row], key: Callable[[Row], Hashable]
) -> dict[str, str]:
    """Rows that stand in the same order on both sides and have the same key."""
    keys = [list(map(key, side)) for side in (left, right)]
    blocks = SequenceMatcher(None, *keys, autojunk=False).get_matching_blocks()
    return {left[a + i].name: right[b + i].name for a, b, size in blocks for i in range(size)}


def _between(
    left: Sequence[Row],
    right: Sequence[Row],
    known: dict[str, str],
    key: Callable[[Row], Hashable] | None,
    agree: Callable[[Row, Row], bool] = lambda u, w: False,
) -> dict[str, str]:
    """What is matched already, and what lies between that has the same key, or agrees."""
    places = {row.name: i for i, row in enumerate(right)}
    ends = [(i, places[known[row.name]]) for i, row in enumerate(left) if row.name in known]
    found = dict(known)
    for (a, b), (c, d) in zip([(-1, -1), *ends], [*ends, (len(left), len(right))], strict=True):
        own, other = left[a + 1 : c], right[b + 1 : d]
        if key is not None:
            found |= _matched(own, other, key)
            continue
        free = list(reversed(other))
        for u in reversed(own):
            w = next((w for w in free if agree(u, w)), None)
            if w is not None:
                found[u.name] = w.name
                free = free[free.index(w) + 1 :]
    return found
