"""The search for the place to blame: a few runs of one compiled program."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .graph import Graph, Site
from .probe import NONE, Keep, Seen, keep_all


class Blamed(NamedTuple):
    """A place where something not finite is born.

    Attributes:
        site: The site.
        turns: The round of each loop around it, counted as they run.
        element: The element, in row-major order.
        seen: What a run shows in which it is left alone.
    """

    site: Site
    turns: tuple[int, ...]
    element: int
    seen: Seen


class Verdict(NamedTuple):
    """What the search finds.

    Attributes:
        first: What the program as it is shows.
        origin: The first place, as they run, that reaches an output that counts; None if none does.
        harmless: Places that do not: those before the origin, or all.
    """

    first: Seen
    origin: Blamed | None
    harmless: tuple[Blamed, ...]


def search(
    graph: Graph,
    births: frozenset[int],
    run: Callable[[Keep], Seen],
    counted: Sequence[int],
) -> Verdict:
    """Find the first place that by itself makes one of some outputs not finite.

    Args:
        graph: The program.
        births: The sites where something not finite is born.
        run: The probe with its arguments.
        counted: The outputs that count.
    """
    outputs = np.asarray(counted, int)

    def poisons(keep: Keep) -> Seen | None:
        seen = run(keep)
        return seen if (seen.bad[outputs] < NONE).any() else None

    first = run(keep_all(graph))
    places = _places(graph, births, first)
    if not (first.bad[outputs] < NONE).any():
        return Verdict(first, None, tuple(places))
    harmless = []
    for place in places:
        one = poisons(_keep(place.site, place.turns, place.element, graph))
        if one is not None:
            return Verdict(first, place._replace(seen=one), tuple(harmless))
        if poisons(_keep(place.site, (), NONE, graph)) is not None:
            return Verdict(first, _earliest(place, graph, poisons), tuple(harmless))
        harmless.append(place)
    # Each alone is harmless: they poison together, and the first is where that begins.
    return Verdict(first, places[0] if places else None, ())


def _places(graph: Graph, births: frozenset[int], seen: Seen) -> list[Blamed]:
    """The first place at each site, in the order in which they run."""
    found = []
    for n in sorted(n for n in births if seen.found.element[n] < NONE):
        site = graph.sites[n]
        turns = tuple(map(int, seen.found.turns[n][: len(site.rounds)]))
        found.append(Blamed(site, turns, int(seen.found.element[n]), seen))
    return sorted(found, key=lambda place: place.site.order(place.turns))


def _keep(site: Site, turns: Sequence[int], element: int, graph: Graph) -> Keep:
    """What is left alone up to this element of this round; all later rounds of loops not given."""
    padded = np.full(graph.depth, NONE, np.int32)
    padded[: len(turns)] = turns
    return Keep(np.False_, np.int32(site.number), padded, np.int32(element))


def _earliest(place: Blamed, graph: Graph, poisons: Callable[[Keep], Seen | None]) -> Blamed:
    """The first round and element up to which a site has to be left alone to poison an output."""
    site = place.site
    known: tuple[int, ...] = ()

    def left(turns: Sequence[int], element: int) -> Seen | None:
        return poisons(_keep(site, turns, element, graph))

    for _ in site.rounds:
        known = (*known, _least(lambda n, k=known: left((*k, n), NONE) is not None))
    element = _least(lambda n: left(known, n) is not None)
    return Blamed(site, known, element, left(known, element) or place.seen)


def _least(holds: Callable[[int], bool]) -> int:
    """The least number from 0 on that something holds for, which then holds for all above.

    >>> _least(lambda n: n >= 1000)
    1000
    """
    low, high = -1, 0
    while not holds(high):
        low, high = high, min(2 * high + 1, NONE)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
