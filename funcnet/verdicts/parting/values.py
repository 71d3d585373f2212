"""From outputs that differ back to the equation that makes the difference."""

from typing import Any, NamedTuple

import numpy as np

from ...jaxpr import jaxprs
from ...traces.record.rows import Row
from ...traces.run.steps import Step
from ...traces.run.tape import Cell
from .pairs import Pairs, apart


class Part(NamedTuple):
    """The place where two functions part.

    Attributes:
        kind: "equation" (they compute something else there), "operands" (they read something
            else), "only" (one of them has what the other has not), "rule" (backward: what is sent
            back differs), "rounding" (it grows to more than rounding there, though both do the
            same).
        why: The same in words.
        f: The row of the first, if it has one.
        g: That of the second.
        gap: How far what they make, or send back, is apart.
    """

    kind: str
    why: str
    f: Row | None
    g: Row | None
    gap: float = np.inf


def value_part(pairs: Pairs) -> Part | None:
    """The first place where values part on the way to outputs that differ; None if none does."""
    found: list[Part] = []
    for u, w in zip(pairs.f.run.outputs, pairs.g.run.outputs, strict=True):
        if not pairs.agree(u, w):
            found.append(_traced_back(pairs, u, w))
    order = {row.name: i for i, row in enumerate(pairs.f.rows)}
    late = len(order)
    real = [part for part in found if part.kind != "rounding"] or found
    return min(real, key=lambda part: late if part.f is None else order[part.f.name], default=None)


def _traced_back(pairs: Pairs, u: Cell, w: Cell) -> Part:
    """Back from two values that differ, along the operands that differ most."""
    seen: set[tuple[str, str]] = set()
    grown: Part | None = None
    later: Part | None = None
    while True:
        seen.add((u.name, w.name))
        part, below = _asked(pairs, u, w)
        below = [pair for pair in below if (pair[0].name, pair[1].name) not in seen]
        if part is not None and not below:
            real = part.kind == "equation" or not pairs.agree(u, w)
            first = part if grown is None or real else grown
            return later if later is not None and first.kind == "rounding" else first
        later = part or later
        if not below:
            return later or grown or _part(pairs, "rounding", "both do the same there", u, w)
        beyond = not pairs.agree(u, w)
        u_next, w_next = max(below, key=lambda pair: pairs.gap(*pair))
        if beyond and grown is None and pairs.agree(u_next, w_next):
            factor = pairs.gap(u, w) / pairs.gap(u_next, w_next)
            why = f"what was rounding before is {factor:.2g} times as large there"
            grown = _part(pairs, "rounding", why, u, w)
        u, w = u_next, w_next


def _asked(pairs: Pairs, u: Cell, w: Cell) -> tuple[Part | None, list[tuple[Cell, Cell]]]:
    """The place if it is here; the values below that differ, where an earlier one may be."""
    one, other = pairs.f.made.get(u.name), pairs.g.made.get(w.name)
    if one is None or other is None or not _alike(one, other):
        return _around(pairs, u, w)
    below = list(zip(one.operands, other.operands, strict=True))
    literal = next(((a, b) for a, b in below if _constants_differ(pairs, a, b)), None)
    if literal is not None:
        why = f"{_is(*literal)} in {pairs.g.name}"
        return _part(pairs, "equation", why, u, w), _before(pairs, below)
    apart_ = [(a, b) for a, b in below if pairs.gap(a, b) > 0]
    for a, b in apart_:
        other_f, other_g = pairs.of_f.get(a.name), pairs.of_g.get(b.name)
        if not pairs.agree(a, b) and other_f != b.name and other_f and other_g:
            why = f"{_called(pairs.f.by_name[a.name])} is {_called(pairs.g.by_name[b.name])} there"
            return _part(pairs, "operands", f"{why} in {pairs.g.name}", u, w), []
    number = next(i for i, cell in enumerate(one.results) if cell.name == u.name)
    fits = all(a.shape == b.shape for a, b in below)
    if fits and not _computes(pairs, one, other, number):
        why = "given the same, they compute something else"
        return _part(pairs, "equation", why, u, w), _before(pairs, below)
    return (None, apart_) if apart_ else (_part(pairs, "rounding", "", u, w), [])


def _before(pairs: Pairs, below: list[tuple[Cell, Cell]]) -> list[tuple[Cell, Cell]]:
    """The operands that differ already, of rows that are partners."""
    return [(a, b) for a, b in below if pairs.of_f.get(a.name) == b.name and not pairs.agree(a, b)]


def _alike(one: Step, other: Step) -> bool:
    same = one.e.label == other.e.label and len(one.operands) == len(other.operands)
    return same and len(one.results) == len(other.results)


def _constants_differ(pairs: Pairs, a: Cell, b: Cell) -> bool:
    """Whether two operands differ of which one stands in the program as a number."""
    fixed = [x.draft is None or x.draft.fields.get("kind") == "constant" for x in (a, b)]
    literal = a.draft is None or b.draft is None
    return (all(fixed) or literal) and apart(a.value, b.value) > pairs.rounding(a, b)


def unseen(pairs: Pairs) -> Part | None:
    """The first rows with other constants, of functions whose results are the same all the same."""
    for u, w in pairs.of_f.items():
        one, other = pairs.f.made.get(u), pairs.g.made.get(w)
        if one is not None and other is not None and _alike(one, other):
            for a, b in zip(one.operands, other.operands, strict=True):
                if _constants_differ(pairs, a, b):
                    why = f"{_is(a, b)} in {pairs.g.name}"
                    return _part(pairs, "equation", why, one.results[0], other.results[0])
    return None


def _computes(pairs: Pairs, one: Step, other: Step, number: int) -> bool:
    """Whether the equation of f, given what that of g was given, gives what that gave."""
    given: list[Any] = []
    for a, b in zip(one.operands, other.operands, strict=True):
        cast = jaxprs.is_inexact(a.value) and a.dtype != b.dtype
        given.append(np.asarray(b.value).astype(a.dtype) if cast else b.value)
    made, true = one.e.run(given)[number], other.results[number].value
    return apart(made, true) <= pairs.rounding(one.results[number], other.results[number])


def _around(pairs: Pairs, u: Cell, w: Cell) -> tuple[Part | None, list[tuple[Cell, Cell]]]:
    """Where one side has rows that the other lacks: what differs below them, or the first row."""
    own, above = _unmatched(pairs.f, u.name, pairs.of_f)
    other, beneath = _unmatched(pairs.g, w.name, pairs.of_g)
    ends = {(a, pairs.of_f[a]) for a in above} | {(pairs.of_g[b], b) for b in beneath}
    below = [(pairs.f.cells[a], pairs.g.cells[b]) for a, b in sorted(ends)]
    below = [(a, b) for a, b in below if not pairs.agree(a, b) and (a, b) != (u, w)]
    if below:
        return None, below
    if other:
        row = pairs.g.by_name[other[0]]
        against = pairs.f.by_name.get(own[0] if own else u.name)
        said = f"only {pairs.g.name} has {row.op}" if not own else "they compute something else"
        return Part("only", said, against, row, pairs.gap(u, w)), []
    if own:
        row, against = pairs.f.by_name[own[0]], pairs.g.by_name.get(w.name)
        said = f"only {pairs.f.name} has {row.op}"
        return Part("only", said, row, against, pairs.gap(u, w)), []
    return _part(pairs, "operands", "they read other values there", u, w), []


def _unmatched(side: Any, name: str, known: dict[str, str]) -> tuple[list[str], list[str]]:
    """The rows without a partner that lead to a row, in order; the rows with one that they read."""
    if name not in side.by_name:
        return [], []
    open_, own, ends = [name], set(), set()
    first = True
    while open_:
        one = open_.pop()
        if one in known and not first:
            ends.add(one)
            continue
        first = False
        if one not in known:
            own.add(one)
        for operand in side.by_name[one].operands if one not in known or one == name else ():
            if operand not in own and operand in side.by_name:
                open_.append(operand)
    order = [
        row.name for row in side.rows if row.name in own and row.kind not in ("slice", "stack")
    ]
    return order, [x for x in ends if x in side.cells]


def _part(pairs: Pairs, kind: str, why: str, u: Cell, w: Cell) -> Part:
    rows = pairs.f.by_name.get(u.name), pairs.g.by_name.get(w.name)
    return Part(kind, why, *rows, pairs.gap(u, w))


def _is(a: Cell, b: Cell) -> str:
    texts = [_text(cell) for cell in (a, b)]
    if texts[0] == texts[1] and not (a.shape or b.shape):
        texts = [str(np.asarray(cell.value)) for cell in (a, b)]
    return " is ".join(texts)


def _text(cell: Cell) -> str:
    if cell.draft is None:
        return cell.name
    value = cell.draft.fields["value"]
    return value.text


def _called(row: Row) -> str:
    return row.variable or row.expression or row.name
