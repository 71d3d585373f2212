"""Where in a program something not finite may be born, and what flows from there to where."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from ...jaxpr import jaxprs, runs
from ...jaxpr.equations import Equation
from ...jaxpr.places import Place
from ...jaxpr.walk import At, Handler, walk
from .written import MOVES, QUIET, Written

_BOUNDED = frozenset(("exp", "exp2", "tanh", "logistic", "erf", "erfc", "sign", "atan"))


class Round(NamedTuple):
    """A loop around a site: how many iterations it has (None if it says when it ends), and whether
    it begins at the last."""

    length: int | None
    reverse: bool

    def iteration(self, order: int) -> int:
        """The number of the iteration that is run as number `order`."""
        return self.length - 1 - order if self.reverse and self.length else order


@dataclass(frozen=True)
class Made:
    """What is known of a value before the program runs.

    Attributes:
        text: The argument it is, the primitive that made it, or "a constant".
        places: Where that is written.
        backward: Whether the backward pass made it.
        sources: The sites it comes from, with nothing but quiet equations between.
        infinite: Whether a written Inf may stand in it, as of a mask.
        nan: Whether it is a constant that holds NaN.
        selected: Whether it is a cotangent that `where` lets through for some elements only.
    """

    text: str
    places: tuple[Place, ...] = ()
    backward: bool = False
    sources: frozenset[int] = frozenset()
    infinite: bool = False
    nan: bool = False
    selected: bool = False


@dataclass(frozen=True, eq=False)
class Site:
    """A result of an equation that may be the first that is not finite, or an argument.

    Attributes:
        number: Its number in the order of the program.
        path: The path of the equation; empty for an argument.
        result: Which of its results.
        primitive: The equation's primitive; empty for an argument.
        written: What the person wrote: the primitive, or one whose derivative this is.
        derived: Whether it is a derivative.
        backward: Whether the backward pass runs it.
        at: The place of the equation.
        places: Where it was written, the innermost first.
        rounds: The loops around it.
        aval: Shape and dtype.
        operands: What it reads.
        reads: The shapes and dtypes of that.
        inherits: Whether an Inf in it may be one that was written, as of a mask.
    """

    number: int
    path: tuple[int, ...]
    result: int
    primitive: str
    written: str
    derived: bool
    backward: bool
    at: At
    places: tuple[Place, ...]
    rounds: tuple[Round, ...]
    aval: Any
    operands: tuple[Made, ...] = ()
    reads: tuple[Any, ...] = ()
    inherits: bool = False

    def order(self, turns: Sequence[int]) -> tuple[int, ...]:
        """What sorts it among others by when it runs in some round of its loops."""
        depths = {turn.depth: n for n, turn in enumerate(self.at.turns)}
        key: list[int] = []
        for i, step in enumerate(self.path):
            if i in depths:
                key.append(int(turns[depths[i]]))
            key.append(step)
        return tuple(key)


class Graph(NamedTuple):
    """The sites of a program, and what feeds them.

    Attributes:
        sites: All sites in order; arguments first.
        feeds: For each site, and each carry of a loop, the sites whose values it reads.
        spans: For each body, by its path, the numbers of the sites in it: from, to.
        outputs: What is known of its outputs.
    """

    sites: list[Site]
    feeds: dict[int, set[int]]
    spans: dict[tuple[int, ...], tuple[int, int]]
    outputs: list[Made]

    @property
    def depth(self) -> int:
        """How many loops stand around the innermost site."""
        return max((len(site.rounds) for site in self.sites), default=0)


def graph_of(closed: Any, written: Written, names: Sequence[str]) -> Graph:
    """The graph of a program.

    Args:
        closed: The program.
        written: What was written before it was differentiated.
        names: What its arguments are called.
    """
    reader = _Reader(written)
    values = []
    for i, (name, aval) in enumerate(zip(names, closed.in_avals, strict=True)):
        sources: frozenset[int] = frozenset()
        if jaxprs.is_inexact(aval):
            sources = frozenset((len(reader.sites),))
            number = len(reader.sites)
            reader.sites.append(Site(number, (), i, "", name, False, False, At(), (), (), aval))
        values.append(Made(name, sources=sources))
    outputs = reader.body(closed, values, At())
    return Graph(reader.sites, reader.feeds, reader.spans, outputs)


@dataclass(eq=False)
class _Reader(Handler):
    written: Written
    sites: list[Site] = field(default_factory=list)
    feeds: dict[int, set[int]] = field(default_factory=dict)
    spans: dict[tuple[int, ...], tuple[int, int]] = field(default_factory=dict)
    rounds: tuple[Round, ...] = ()
    carries: int = 0

    def body(self, jaxpr: Any, values: Sequence[Made], at: At) -> list[Made]:
        first = len(self.sites)
        results = walk(jaxpr, values, self, at)
        self.spans[at.path] = first, len(self.sites)
        return results

    def constant(self, value: Any) -> Made:
        if not jaxprs.is_inexact(value) and not isinstance(value, float):
            return Made("a constant")
        array = np.asarray(value)
        with np.errstate(invalid="ignore"):
            return Made(
                "a constant", infinite=bool(np.isinf(array).any()), nan=bool(np.isnan(array).any())
            )

    def call(self, e: Equation, operands: list[Made], at: At) -> list[Made]:
        return self.body(e.inside.body, operands, at.called(e.inside))

    def rule(self, e: Equation, operands: list[Made], at: At) -> list[Made]:
        return self.body(e.primal, operands, at.down(0))

    def cond(self, e: Equation, operands: list[Made], at: At) -> list[Made]:
        branches = [
            self.body(branch, operands[1:], at.down(n))
            for n, branch in enumerate(e.inside.branches)
        ]
        return [_merged(same) for same in zip(*branches, strict=True)]

    def scan(self, e: Equation, operands: list[Made], at: At) -> list[Made]:
        scan = e.inside
        consts, carry, inputs = scan.groups(operands)
        around = Round(scan.length, scan.reverse)
        return self._looped(
            scan.body, (consts, carry, inputs), at.turn(length=scan.length), around
        )  # fmt: skip

    def loop(self, e: Equation, operands: list[Made], at: At) -> list[Made]:
        _, consts, carry = e.inside.groups(operands)
        return self._looped(e.inside.body, (consts, carry, ()), at.turn(), Round(None, False))

    def _looped(self, body: Any, groups: tuple, at: At, around: Round) -> list[Made]:
        consts, carry, inputs = groups
        infinite = any(made.infinite for made in (*consts, *carry, *inputs))
        inside = []
        for made in carry:
            self.carries -= 1
            self.feeds[self.carries] = set(made.sources)
            node = frozenset((self.carries,))
            inside.append(replace(made, sources=node, infinite=infinite, nan=False))
        outer, self.rounds = self.rounds, (*self.rounds, around)
        results = self.body(body, [*consts, *inside, *inputs], at)
        self.rounds = outer
        for made, result in zip(inside, results, strict=False):
            (node,) = made.sources
            self.feeds[node] |= result.sources
            # A loop may end before it begins.
        carried = [
            replace(result, sources=result.sources | made.sources)
            for made, result in zip(inside, results, strict=False)
        ]
        found = [*carried, *results[len(carry) :]]
        return [replace(made, infinite=made.infinite or infinite) for made in found]

    def plain(self, e: Equation, operands: list[Made], at: At) -> list[Made]:
        backward = _is_backward(at)
        again = at.path[:-1] if backward and at.policy is not None else ()
        written, derived = self.written.origin(e, backward, again)
        own = () if backward else self.written.rule_places(e)
        places = own or at.places or next((m.places for m in operands if m.places), ())
        sources = frozenset().union(*(made.sources for made in operands))
        infinite = any(made.infinite for made in operands) and e.label not in _BOUNDED
        nan = any(made.nan for made in operands)
        moves = e.label in MOVES or e.label == "convert_element_type"
        quiet = e.label in QUIET and not (nan and not moves)
        chosen = e.label == "select_n" or any(made.selected for made in operands)
        selected = backward and chosen
        results = []
        for i, var in enumerate(e.results):
            inexact = jaxprs.is_inexact(var.aval)
            made = Made(
                e.label, places, backward, sources, infinite and inexact, nan and moves, selected
            )
            if inexact and not quiet and not (nan and moves):
                n = len(self.sites)
                self.sites.append(
                    Site(n, at.path, i, e.label, written, derived, backward, at, places,
                         self.rounds, var.aval, tuple(operands),
                         tuple(atom.aval for atom in e.operands), infinite)
                )  # fmt: skip
                self.feeds[n] = set(sources)
                made = replace(made, sources=frozenset((n,)), nan=False)
            results.append(made)
        return results


def _is_backward(at: At) -> bool:
    around: At | None = at
    while around is not None:
        if around.eqn is not None and runs.is_transposed(around.eqn):
            return True
        around = around.outer
    return False


def _merged(same: Sequence[Made]) -> Made:
    sources = frozenset().union(*(made.sources for made in same))
    infinite = any(made.infinite for made in same)
    return replace(same[0], sources=sources, infinite=infinite, nan=False)


def way(graph: Graph, origin: int, ends: frozenset[int], infected: set[int]) -> list[int]:
    """The shortest way from a site to one of some others, over infected sites and carries.

    Args:
        graph: The program.
        origin: Where it begins.
        ends: Where it may end.
        infected: The sites that may stand on it.

    Returns:
        The numbers of the sites on it, the origin first; the origin alone if there is none.
    """
    later: dict[int, int] = {}
    front = [n for n in sorted(ends) if n < 0 or n in infected or n == origin]
    seen = set(front)
    while front:
        reached: list[int] = []
        for n in front:
            if n == origin:
                return _followed(later, origin)
            for before in sorted(graph.feeds.get(n, ())):
                if before not in seen and (before < 0 or before in infected or before == origin):
                    seen.add(before)
                    later[before] = n
                    reached.append(before)
        front = reached
    return [origin]


def _followed(later: dict[int, int], origin: int) -> list[int]:
    found, n = [origin], origin
    while n in later:
        n = later[n]
        if n >= 0:
            found.append(n)
    return found
