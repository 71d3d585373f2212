"""A place in a program, and the numbers found there, as what a report says."""

import os
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ...traces.record.rows import Source
from ...traces.record.values import number, value_of
from ...traces.source.names import source
from .graph import Graph, Made, Site
from .hints import Case, hint
from .report import Link, Operand, Origin, Poisoned
from .search import Blamed

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(__file__))) + os.sep


def origin_of(place: Blamed, caught: Sequence[Any], forward: bool = False) -> Origin:
    """The origin at a place.

    Args:
        place: The place.
        caught: The operands there and, last, the result; empty if they were not looked at.
        forward: Whether it reaches the output, so that it is no derivative.
    """
    site = place.site
    element = element_at(place.element, site.aval.shape)
    pairs = zip(site.operands, caught[:-1], strict=True) if caught else ()
    operands = tuple(_operand(made, np.asarray(x), site, element) for made, x in pairs)
    kind = _kind(np.asarray(caught[-1])[element]) if caught else "NaN or Inf"
    backward = site.backward or (site.derived and not forward)
    phase = "backward" if backward else "forward"
    derived = site.derived and backward
    return Origin(
        kind, phase if site.path else "argument", site.written if site.path else "",
        site.primitive, derived, "" if site.path else site.written, source(site.places),
        _called(site), site.at.scope,
        tuple(r.iteration(n) for r, n in zip(site.rounds, place.turns, strict=True)),
        tuple(r.length for r in site.rounds), element, _type(site.aval), operands,
        _residual(site, caught, operands, element) if backward else None,
    )  # fmt: skip


def element_at(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The index of an element that is numbered in row-major order."""
    return tuple(map(int, np.unravel_index(flat, shape))) if shape else ()


def poisoned(name: str, flat: int, nan: bool, shape: tuple[int, ...]) -> Poisoned:
    """An output whose first element that is not finite has this number."""
    return Poisoned(name, "NaN" if nan else "Inf", element_at(flat, shape))


def links_of(graph: Graph, numbers: Sequence[int]) -> tuple[Link, ...]:
    """Sites as the links of a way."""
    return tuple(_link(graph.sites[n]) for n in numbers)


def _link(site: Site) -> Link:
    back = site.backward or site.derived
    phase = "backward" if back else "forward" if site.path else "argument"
    name = site.written if not site.derived else f"derivative of {site.written}"
    return Link(name, phase, source(site.places), site.at.scope)


def hint_of(
    graph: Graph, place: Blamed, caught: Sequence[Any], origin: Origin, then: Site | None, nan: bool
) -> str:
    """What to do about it.

    Args:
        graph: The program.
        place: The place.
        caught: The operands there and the result.
        origin: What is said of it.
        then: The site that it comes to next.
        nan: Whether what it poisons in the end is NaN.
    """
    site = place.site
    operands = [_at(np.asarray(x), site, origin.element) for x in caught[:-1]]
    known = [x for x in operands if x is not None]
    zeros = [made for x, made in zip(operands, site.operands, strict=True) if x == 0]
    meets = then is not None and then.primitive == "mul" and origin.kind != "NaN" and nan
    stopped = (*zeros, *(then.operands if then is not None and meets else ()))
    masked = any(made.selected for made in stopped)
    value = np.asarray(caught[-1])[origin.element].item() if site.path else 0.0
    written = site.written if site.path else ""
    makers = [made.text for made in site.operands]
    same = [graph.sites[n] for made in site.operands for n in made.sources]
    makers += [made.text for one in same if one.primitive == written for made in one.operands]
    dtype = str(np.asarray(caught[-1]).dtype)
    met = meets and site.derived
    case = Case(written, site.primitive, site.derived, value, known, makers, dtype, masked, met)
    return hint(case)


def _operand(made: Made, x: np.ndarray, site: Site, element: tuple[int, ...]) -> Operand:
    own = _at(x, site, element)
    text = number(own) if own is not None else value_of(x).text
    phase = "backward" if made.backward else "forward"
    kind = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return Operand(text, _type(kind), made.text, source(made.places), phase)


def _at(x: np.ndarray, site: Site, element: tuple[int, ...]) -> Any:
    """What an element of the result was computed from, where that is one number."""
    if x.size == 1:
        return x.item()
    whole = site.aval.shape
    fits = x.ndim == len(whole) and all(n in (1, m) for n, m in zip(x.shape, whole, strict=True))
    if not (fits and site.path) or site.primitive in _ROWS:
        return None
    return x[tuple(min(i, n - 1) for i, n in zip(element, x.shape, strict=True))].item()


_ROWS = {
    "cholesky", "cumlogsumexp", "cumprod", "cumsum", "dot_general", "sort", "triangular_solve",
}  # fmt: skip
"""What may give a shape that it was given, and still reads more than one element for one."""


def _residual(
    site: Site, caught: Sequence[Any], operands: Sequence[Operand], element: tuple[int, ...]
) -> Operand | None:
    """The operand that the forward pass kept: the one at an edge if there are several."""
    kept = [
        (operand, _at(np.asarray(x), site, element))
        for operand, made, x in zip(operands, site.operands, caught, strict=False)
        if not made.backward and made.text != "a constant"
    ]
    at_edge = [operand for operand, x in kept if x is not None and (x == 0 or not np.isfinite(x))]
    return next(iter([*at_edge, *(operand for operand, _ in kept)]), None)


def _called(site: Site) -> Source | None:
    """The line of the person's own that led to one in a library."""
    places = site.places
    if not places or not _is_library(places[0].file):
        return None
    return source(tuple(p for p in places if not _is_library(p.file)))


def _is_library(file: str) -> bool:
    return file.startswith(_PACKAGE) or "site-packages" in file


def _kind(x: Any) -> str:
    if np.isnan(x):
        return "NaN"
    return "-Inf" if not np.iscomplexobj(x) and x < 0 else "Inf"


def _type(aval: Any) -> str:
    return f"{aval.dtype}[{','.join(map(str, aval.shape))}]"
