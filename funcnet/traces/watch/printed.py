"""What was watched, as text: a line a place, and of a place in a loop a line an iteration."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...jaxpr import jaxprs
from ...render import forms, text
from ..record.values import number
from .sites import Site
from .stats import STATISTICS

ITERATIONS = 8
"""Of longer loops so many iterations are shown, half of them from each end."""

QUIET = ("zeros", "nonfinite")
"""Figures that are left out where they are 0 throughout."""

WHERE = (forms.Column("op", gives="end"), forms.Column("variable", gives="end"),
         forms.Column("line", gives="start"))  # fmt: skip


def printed(watched: Any) -> str:
    """What `print` shows of a `Watched`."""
    places, seen = watched.places, watched.seen
    if not all(isinstance(seen[place].value, dict) for place in places):
        return _whole(watched)
    sites = watched.sites or (None,) * len(places)
    known = seen[places[0]].value
    names = sorted(known, key=[*STATISTICS, *sorted(known)].index)
    said: list[tuple[str, ...]] = []
    cells: list[list[str]] = []
    for place, site in zip(places, sites, strict=True):
        figures = [part[name] for part in seen[place] for name in names]
        for title, own in _turns(place, site, figures):
            said.append((title, *_where(site, place)))
            cells.append([_cell(x) for x in own])
    headings = [f"{part} {name}" for part in ("value", "adjoint") for name in names]
    quiet = [
        heading.split()[1] in QUIET and all(row[i] in ("0", "") for row in cells)
        for i, heading in enumerate(headings)
    ]
    columns = [
        forms.Column("place", gives="start"), *WHERE,
        *(forms.Column(heading, right=True) for heading in headings),
    ]  # fmt: skip
    lines = [[*row, *own] for row, own in zip(said, cells, strict=True)]
    kept = [0, *(i for i in (1, 2, 3) if any(row[i] for row in said))]
    kept += [i + 4 for i, out in enumerate(quiet) if not out]
    left = [heading for heading, out in zip(headings, quiet, strict=True) if out]
    form = forms.Table(
        tuple(columns[i] for i in kept),
        tuple(tuple(row[i] for i in kept) for row in lines),
        notes=(f"0 throughout: {', '.join(left)}.",) if left else (),
    )
    return text.table(form, text.terminal_width())


def _whole(watched: Any) -> str:
    rows = []
    for place in watched.places:
        value = watched.seen[place].value
        rows.append((place, f"{value.dtype}[{','.join(map(str, jnp.shape(value)))}]"))
    columns = forms.Column("place"), forms.Column("value", right=True)
    return text.table(forms.Table(columns, tuple(rows)))


def _where(site: Site | None, place: str) -> tuple[str, str, str]:
    """What stands at a place that is an equation; of a layer, its name says enough."""
    if site is None or place.split(".")[0] != site.name.split(".")[0]:
        return "", "", ""
    return site.op, site.variable, site.line


def _turns(place: str, site: Site | None, figures: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """The figures of a place, those of each iteration apart."""
    loops = () if site is None else site.loops
    apart = all(np.shape(x) == loops and not jaxprs.is_traced(x) for x in figures)
    if not apart or not all(loops or (0,)):
        yield place, figures
        return
    arrays = [np.asarray(x) for x in figures]
    turns = list(np.ndindex(*loops))
    half = ITERATIONS // 2
    for n, turn in enumerate(turns):
        if len(turns) <= ITERATIONS or n < half or n >= len(turns) - half:
            yield f"{place}[{','.join(map(str, turn))}]", [x[turn] for x in arrays]
        elif n == half:
            yield f"... {len(turns) - ITERATIONS} more", [None] * len(arrays)


def _cell(x: Any) -> str:
    if x is None:
        return ""
    if jaxprs.is_traced(x):
        return "traced"
    if jnp.size(x) == 0:
        return "none"
    return number(x) if jnp.ndim(x) == 0 else f"{number(jnp.min(x))} to {number(jnp.max(x))}"
