"""A trace as tables and as a graph, the neutral forms that `render` makes pictures of."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ..render import forms, latex, text
from .record.rows import Row
from .record.values import Value
from .verdict import verdict

MANY = 60
"""A trace of more rows prints its layers."""


def printed(trace: Any) -> str:
    """A trace as `print` shows it: its tables, or its layers if it has many rows."""
    count = sum(not _between(row.name, trace) for row in trace.rows)
    if count <= MANY:
        return whole(trace, text.terminal_width())
    rows = f"{len(trace.rows)} rows, {len(trace.contributions)} contributions"
    more = f"{rows}: print(t.table()) shows them, t[...] one, t.html() makes a page."
    layers = replace(trace.layers(), notes=(more, verdict(trace)))
    return text.table(layers.table(MANY), text.terminal_width())


def whole(trace: Any, width: int | None) -> str:
    """The tables of a trace as text; where a line is longer than `width`, figures are left out."""
    made = []
    for full, brief in zip(tables(trace), tables(trace, brief=True), strict=True):
        fits = width is None or max(map(len, text.table(full).splitlines()[1:3])) <= width
        made.append(text.table(full if fits else brief, width))
    return "\n\n".join(made)


def tables(trace: Any, brief: bool = False) -> list[forms.Table]:
    """The primal, tangent and adjoint traces as tables; brief, with fewer figures of an array."""
    said: Said = _brief if brief else _full
    rows = [row for row in trace.rows if not _between(row.name, trace)]
    titles = [f"Forward primal trace of {trace.function}", "Forward tangent trace"]
    shown = [_primal(rows, titles[0], said)]
    moved = [row for row in rows if row.tangent is not None]
    if moved:
        shown.append(_tangent(moved, titles[1], said))
    shown.append(_adjoint(trace, {row.name for row in rows}, said))
    return shown


Said = Callable[[Value], str]


def _full(value: Value) -> str:
    return value.text


def _primal(rows: Sequence[Row], title: str, shown: Said) -> forms.Table:
    headings = ["row", "variable", "=", "value", "type", "layer", "line"]
    cells = []
    for row in rows:
        line = str(row.source) if row.source else ""
        mark = f" ({row.memory})" if row.memory else ""
        said = row.expression if row.expression != row.variable else ""
        place = "/".join(row.within)
        cells.append(
            (row.name, row.variable, said + mark, shown(row.value), row.value.type, place, line)
        )
    return _table(headings, cells, title, right={"value"})


def _tangent(rows: Sequence[Row], title: str, shown: Said) -> forms.Table:
    cells = [(f"d{row.name}", row.variable, shown(row.tangent)) for row in rows if row.tangent]
    return _table(["tangent", "variable", "value"], cells, title, right={"value"})


def _adjoint(trace: Any, shown: set[str], said: Said) -> forms.Table:
    variables = {row.name: row.variable for row in trace.rows}
    places = places_of(trace)
    cells = [
        (
            f"{c.target}'", variables.get(c.target, ""), c.formula, said(c.value),
            said(c.total), c.source, places[c.source if c.source in places else c.target],
        )
        for c in trace.contributions
        if c.target in shown
    ]  # fmt: skip
    hidden = len(trace.contributions) - len(cells)
    notes = [f"Of loops, the first and the last iteration; {hidden} contributions are not shown."]
    end = verdict(trace)
    headings = ["adjoint", "variable", "+=", "value", "total", "from", "layer"]
    all_notes = (notes if hidden else []) + ([end] if end else [])
    return _table(headings, cells, "Reverse adjoint trace", {"value", "total"}, all_notes)


def _table(
    headings: list[str], cells: list[tuple], title: str, right: set[str], notes: Sequence[str] = ()
) -> forms.Table:
    """A table without the columns that are empty throughout."""
    used = [i for i in range(len(headings)) if i == 0 or any(row[i] for row in cells)]
    columns = tuple(
        forms.Column(headings[i], headings[i] in right, GIVES.get(headings[i], "")) for i in used
    )
    rows = tuple(tuple(row[i] for i in used) for row in cells)
    return forms.Table(columns, rows, title, tuple(notes))


GIVES = {"variable": "start", "=": "end", "+=": "end", "layer": "start",
         "value": "end", "total": "end"}  # fmt: skip


def places_of(trace: Any) -> dict[str, str]:
    """The layer of each row, also of one whose results are rows of their own."""
    found = {row.name: "/".join(row.within) for row in trace.rows}
    parts = {row.name.rpartition(".")[0]: "/".join(row.within) for row in trace.rows}
    return {**parts, **found}


def _between(name: str, trace: Any) -> bool:
    """Whether a row is of an iteration that is neither the first nor the last of its loop."""
    base, _, rest = name.partition("[")
    if not rest or ":" in rest:
        return False
    group = rest.partition("]")[0]
    last = trace.last_iterations.get(base, "")
    return group not in (last, ",".join("0" for _ in group.split(",")))


def latex_tables(trace: Any) -> str:
    """The lecture's tables in LaTeX (with the packages amsmath and booktabs)."""
    rows = [row for row in trace.rows if not _between(row.name, trace)]
    primal = []
    for row in rows:
        middle = row.variable if row.kind == "argument" else row.expression
        name = latex.text(row.variable) if row.kind == "argument" else latex.math(middle)
        primal.append((latex.math(row.name), f"= {name}", f"= {latex.value(row.value.text)}"))
    moved = [
        (latex.math(row.name).replace("v", "\\dot{v}", 1), f"= {latex.value(row.tangent.text)}")
        for row in rows
        if row.tangent is not None
    ]
    adjoint = []
    for c in trace.contributions:
        first = c.value is c.total
        before = "" if first else f"{latex.math(c.target + chr(39))} + "
        said = (
            "1"
            if c.formula == "seed" and c.value.text == "1"
            else latex.math(c.formula.partition(": ")[0])
        )
        name = latex.math(c.target + "'")
        adjoint.append((name, f"= {before}{said}", f"= {latex.value(c.total.text)}"))
    parts = [latex.table("Forward primal trace", primal)]
    if moved:
        parts.append(latex.table("Forward tangent trace", moved))
    parts.append(latex.table("Reverse adjoint trace", adjoint))
    return "\n\n".join(parts) + "\n"


def _brief(value: Value) -> str:
    before, ranged, _ = value.text.partition(" in [")
    lost = ranged and value.stats is not None and value.stats.nonfinite
    return f"{before}, not finite" if lost else before


def graph(trace: Any) -> forms.Graph:
    """The trace as a graph: a node for each row with its value and its adjoint, layers around."""
    rows = [row for row in trace.rows if not _between(row.name, trace)]
    known = {row.name for row in rows}
    nodes = tuple(
        forms.Node(
            row.name,
            f"{row.variable or row.name}" + ("" if row.kind == "argument" else f" = {row.op}"),
            _brief(row.value),
            "" if row.adjoint is None else _brief(row.adjoint),
            row.within,
            row.kind,
        )
        for row in rows
    )
    edges = dict.fromkeys(
        (operand, row.name) for row in rows for operand in row.operands if operand in known
    )
    return forms.Graph(nodes, tuple(edges), f"{trace.function}: data | gradient")
