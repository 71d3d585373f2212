"""A trace as tables and as a graph, the neutral forms that `render` makes pictures of."""

from collections.abc import Sequence
from typing import Any

from ..render import forms, latex
from .record.rows import Row
from .record.values import Value
from .verdict import verdict

LONG = 48
"""Formulas in the tables of a terminal are cut after this many characters."""


def tables(trace: Any) -> list[forms.Table]:
    """The primal, tangent and adjoint traces as tables."""
    rows = [row for row in trace.rows if not _between(row.name, trace)]
    titles = [f"Forward primal trace of {trace.function}", "Forward tangent trace"]
    shown = [_primal(rows, titles[0])]
    moved = [row for row in rows if row.tangent is not None]
    if moved:
        shown.append(_tangent(moved, titles[1]))
    shown.append(_adjoint(trace, {row.name for row in rows}))
    return shown


def _primal(rows: Sequence[Row], title: str) -> forms.Table:
    headings = ["row", "variable", "=", "value", "type", "layer", "line"]
    cells = []
    for row in rows:
        line = str(row.source) if row.source else ""
        mark = f" ({row.memory})" if row.memory else ""
        said = row.expression if row.expression != row.variable else ""
        place = "/".join(row.within)
        cells.append(
            (row.name, row.variable, _cut(said) + mark, row.value.text, row.value.type, place, line)
        )
    return _table(headings, cells, title, right={"value"})


def _tangent(rows: Sequence[Row], title: str) -> forms.Table:
    cells = [(f"d{row.name}", row.variable, row.tangent.text) for row in rows if row.tangent]
    return _table(["tangent", "variable", "value"], cells, title, right={"value"})


def _adjoint(trace: Any, shown: set[str]) -> forms.Table:
    variables = {row.name: row.variable for row in trace.rows}
    cells = [
        (
            f"{c.target}'", variables.get(c.target, ""), _cut(c.formula), c.value.text,
            c.total.text, c.source,
        )
        for c in trace.contributions
        if c.target in shown
    ]  # fmt: skip
    hidden = len(trace.contributions) - len(cells)
    notes = [f"Of loops, the first and the last iteration; {hidden} contributions are not shown."]
    said = verdict(trace)
    headings = ["adjoint", "variable", "+=", "value", "total", "from"]
    all_notes = (notes if hidden else []) + ([said] if said else [])
    return _table(headings, cells, "Reverse adjoint trace", {"value", "total"}, all_notes)


def _table(
    headings: list[str], cells: list[tuple], title: str, right: set[str], notes: Sequence[str] = ()
) -> forms.Table:
    """A table without the columns that are empty throughout."""
    used = [i for i in range(len(headings)) if i == 0 or any(row[i] for row in cells)]
    columns = tuple(forms.Column(headings[i], headings[i] in right) for i in used)
    rows = tuple(tuple(row[i] for i in used) for row in cells)
    return forms.Table(columns, rows, title, tuple(notes))


def _cut(text: str) -> str:
    return text if len(text) <= LONG else text[: LONG - 3] + "..."


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
        said = "1" if c.formula == "seed" and c.value.text == "1" else latex.math(c.formula)
        name = latex.math(c.target + "'")
        adjoint.append((name, f"= {before}{said}", f"= {latex.value(c.total.text)}"))
    parts = [latex.table("Forward primal trace", primal)]
    if moved:
        parts.append(latex.table("Forward tangent trace", moved))
    parts.append(latex.table("Reverse adjoint trace", adjoint))
    return "\n\n".join(parts) + "\n"


def _brief(value: Value) -> str:
    return value.text.partition(" in [")[0]


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
