"""The figures of a network as one table, a line a layer."""

import math
import textwrap
from collections.abc import Iterable, Sequence

from ...render.forms import Column, Table
from ...traces.record.values import number
from .chains import base
from .diagnose import Verdict
from .probe import Figures

NOTE = (
    "value, gradient: root of the mean square; adjoint: norm; silent: units that are 0 for all\n"
    "examples; update: its norm over that of the weights. Of a layer's parameters the largest."
)
FEW = 3
"""So many layers make a table; with fewer the layers inside are shown."""


def table(figures: Figures, verdicts: Sequence[Verdict]) -> Table:
    """A line for each of the outermost layers that are many, and for those that verdicts name."""
    values = figures.get("value", {})
    modules = figures.get("gradient", {})
    named = {verdict.layer for verdict in verdicts}
    outer = outermost(values)
    layers = [layer for layer in values if layer in outer or layer in named]
    known = {base(layer) for layer in values}
    rest = [m for m in modules if not any(base(m).startswith(k) for k in known) or m in named]
    rows = [
        _row(figures, layer, layer == base(layer))
        for layer in dict.fromkeys([*(m for m in rest if m not in layers), *layers])
    ]
    headings = ("value", "adjoint", "silent", "gradient", "update")
    columns = (Column("layer"), *(Column(heading, right=True) for heading in headings))
    kept = [i for i, _ in enumerate(columns) if i == 0 or any(row[i] for row in rows)]
    chosen = tuple(tuple(row[i] for i in kept) for row in rows)
    return Table(tuple(columns[i] for i in kept), chosen)


def outermost(layers: Iterable[str]) -> list[str]:
    """The layers down to the depth where there are a few of them.

    >>> outermost(["net/a", "net/b/x", "net/b", "net/c", "net"])
    ['net/a', 'net/b', 'net/c', 'net']
    """
    known = list(layers)
    depths = [layer.count("/") for layer in known]
    deepest = max(depths, default=0)
    depth = next((d for d in range(deepest + 1) if depths.count(d) >= FEW), deepest)
    return [layer for layer, own in zip(known, depths, strict=True) if own <= depth]


def listed(verdicts: Sequence[Verdict]) -> str:
    """Verdicts as a numbered list, for a terminal.

    >>> listed([])
    'Nothing is wrong with it.'
    """
    lines = [
        textwrap.fill(f"{i}. {verdict}", 96, subsequent_indent="   ", break_on_hyphens=False)
        for i, verdict in enumerate(verdicts, 1)
    ]
    return "\n".join(lines) or "Nothing is wrong with it."


def _row(figures: Figures, layer: str, first: bool) -> tuple[str, ...]:
    def own(kind: str) -> str:
        found = figures.get(kind, {})
        return _cell(found[layer]) if layer in found else ""

    def of_parameters(kind: str) -> str:
        inside = [
            value
            for module, value in figures.get(kind, {}).items()
            if first and (module == layer or module.startswith(f"{layer}/"))
        ]
        return _cell(max(inside)) if inside else ""

    silent = figures.get("silent", {}).get(layer)
    part = "" if not silent else f"{100 * silent:.3g}%"
    more = (of_parameters(kind) for kind in ("gradient", "update"))
    return (layer, own("value"), own("adjoint"), part, *more)


def _cell(value: float) -> str:
    return number(value) if math.isfinite(value) else str(value)
