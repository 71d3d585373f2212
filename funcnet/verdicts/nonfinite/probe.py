"""Compiled runs of a program that say where values stop being finite, and why.

In a clean run whatever is not finite is replaced by 1 as soon as it is born, so that each place
shows what it does to finite operands. Beside it goes a real run, in which some of those places are
left alone: all of them, which is what the program does, or one of them, and then what is not finite
comes from that one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...jaxpr import jaxprs
from ...jaxpr.equations import Equation
from ...jaxpr.walk import At, Handler, walk
from .graph import Graph, Site

NONE = int(np.iinfo(np.int32).max)
"""In the place of an element's number: there is none."""


Runs = tuple[Any, ...]
"""A value in the clean run, and in the real one if there is one; one object while they agree."""


class Keep(NamedTuple):
    """What is left alone: everything, or one site up to an element of a round of its loops.

    Attributes:
        everything: Whether it is everything.
        number: The site.
        turns: The round of each loop, counted as they run.
        element: The element, in row-major order.
    """

    everything: Any
    number: Any
    turns: Any
    element: Any


class Found(NamedTuple):
    """For each site, the first element that is not finite, and the round of each loop it is in.

    Of a place where something may be left alone, those count that are born there, if everything is;
    otherwise those that come from the site that is. Of another, the element is 0 if there is any.
    """

    element: Any
    turns: Any


class Seen(NamedTuple):
    """What a run shows.

    Attributes:
        found: What there is at each site.
        bad: The first element of each output that is not finite, or NONE. In a real run, of those
            that are in the clean one.
        nan: Whether that is NaN.
    """

    found: Found
    bad: Any
    nan: Any


def births_of(closed: Any, graph: Graph) -> Callable[..., Seen]:
    """A program as a function from its arguments to the sites where something is born.

    An output is bad there if that is written so, and born nowhere.
    """

    def run(*arrays: Any) -> Seen:
        handler = _Probe(graph, None, keep_all(graph))
        values = [handler.born((), i, (x,)) for i, x in enumerate(arrays)]
        return _seen(walk(closed, values, handler, At()), handler)

    return run


def probe_of(closed: Any, graph: Graph, births: frozenset[int]) -> Callable[..., Seen]:
    """A program as a function from what is kept, and its arguments, to what is seen.

    Args:
        closed: The program.
        graph: Its sites.
        births: Those where something is born.
    """

    def run(keep: Keep, *arrays: Any) -> Seen:
        handler = _Probe(graph, births, keep)
        values = [handler.born((), i, (x, x)) for i, x in enumerate(arrays)]
        return _seen(walk(closed, values, handler, At()), handler)

    return run


def _seen(results: Sequence[Runs], handler: "_Probe") -> Seen:
    bad = [jnp.empty(0, jnp.int32)]
    nan = [jnp.empty(0, bool)]
    for value in results:
        first, is_nan = _first_bad(*map(jnp.asarray, reversed(value)))
        bad, nan = [*bad, first[None]], [*nan, is_nan[None]]
    return Seen(handler.all_found(), jnp.concatenate(bad), jnp.concatenate(nan))


def keep_all(graph: Graph) -> Keep:
    """Everything is left alone."""
    return Keep(np.True_, np.int32(-1), np.zeros(graph.depth, np.int32), np.int32(NONE))


def _first_bad(x: Any, clean: Any = 0.0) -> tuple[Any, Any]:
    """The first element that is not finite, or NaN where it is infinite in the clean run."""
    if not jaxprs.is_inexact(x) or not x.size:
        return jnp.int32(NONE), jnp.bool_(False)
    lost = (jnp.isnan(x) & ~jnp.isnan(clean)) | (~jnp.isfinite(x) & jnp.isfinite(clean))
    first = _first(lost, _numbers(x.shape))
    return first, jnp.isnan(x.ravel()[jnp.minimum(first, x.size - 1)])


def _numbers(shape: tuple[int, ...]) -> Any:
    """The number of each element in row-major order."""
    size = int(np.prod(shape))
    return jax.lax.iota(jnp.int32, size).reshape(shape)


def _first(where: Any, numbers: Any) -> Any:
    return jnp.min(jnp.where(where, numbers, NONE), initial=NONE)


@dataclass
class _Probe(Handler):
    """Runs a program clean, if nothing is known of births, or clean and real."""

    graph: Graph
    births: frozenset[int] | None
    keep: Keep
    clock: tuple[Any, ...] = ()
    pieces: list[Found] = field(default_factory=list)
    sites: Mapping[tuple, Site] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.sites = self.sites or {(site.path, site.result): site for site in self.graph.sites}

    def all_found(self) -> Found:
        """What was found at the sites so far, in order."""
        pieces = self.pieces or [self._blank(0)]
        return Found(*(jnp.concatenate(parts) for parts in zip(*pieces, strict=True)))

    def _blank(self, count: int) -> Found:
        return Found(
            jnp.full((count,), NONE, jnp.int32), jnp.zeros((count, self.graph.depth), jnp.int32)
        )  # fmt: skip

    def _body(
        self, jaxpr: Any, values: Sequence[Runs], at: At, clock: tuple
    ) -> tuple[list[Runs], Found]:
        inner = replace(self, clock=clock, pieces=[])
        results = walk(jaxpr, values, inner, at)
        return results, inner.all_found()

    def constant(self, value: Any) -> Runs:
        array = jaxprs.as_array(value)
        return (array,) if self.births is None else (array, array)

    def call(self, e: Equation, operands: list[Runs], at: At) -> Sequence[Runs]:
        return walk(e.inside.body, operands, self, at.called(e.inside))

    def rule(self, e: Equation, operands: list[Runs], at: At) -> Sequence[Runs]:
        return walk(e.primal, operands, self, at.down(0))

    def cond(self, e: Equation, operands: list[Runs], at: At) -> Sequence[Runs]:
        low, high = self.graph.spans[at.down(0).path][0], 0
        for n in range(len(e.inside.branches)):
            high = self.graph.spans[at.down(n).path][1]

        def branch(n: int, body: Any) -> Callable:
            first, last = self.graph.spans[at.down(n).path]

            def run(pairs: list[Runs]) -> tuple:
                results, found = self._body(body, pairs, at.down(n), self.clock)
                parts = self._blank(first - low), found, self._blank(high - last)
                whole = Found(*(jnp.concatenate(part) for part in zip(*parts, strict=True)))
                return _arrays(results), whole

            return run

        branches = [branch(n, body) for n, body in enumerate(e.inside.branches)]
        pairs = _arrays(operands[1:])
        results, found = jax.lax.switch(operands[0][-1], branches, pairs)
        self.pieces.append(found)
        return results

    def scan(self, e: Equation, operands: list[Runs], at: At) -> Sequence[Runs]:
        scan = e.inside
        consts, carry, inputs = scan.groups(operands)
        under = at.turn(length=scan.length)

        def step(state: tuple, inputs: list[Runs]) -> tuple:
            order, carry, found = state
            results, now = self._body(
                scan.body, [*consts, *carry, *inputs], under, (*self.clock, order)
            )
            found = self._earliest(found, now, order)
            return (order + 1, results[: scan.carry], found), results[scan.carry :]

        start = jnp.int32(0), carry, self._blank(self._count(under))
        (_, carry, found), stacked = jax.lax.scan(step, start, inputs, scan.length, scan.reverse)
        self.pieces.append(found)
        return [*carry, *stacked]

    def loop(self, e: Equation, operands: list[Runs], at: At) -> Sequence[Runs]:
        loop = e.inside
        tests, consts, carry = loop.groups(operands)
        under = at.turn()

        def goes_on(state: tuple) -> Any:
            real = [pair[-1] for pair in (*tests, *state[1])]
            return jaxprs.evaluate(loop.cond, *real)[0]

        def step(state: tuple) -> tuple:
            order, carry, found = state
            results, now = self._body(loop.body, [*consts, *carry], under, (*self.clock, order))
            results = _arrays(results)
            return order + 1, results, self._earliest(found, now, order)

        pairs = _arrays(carry)
        start = jnp.int32(0), pairs, self._blank(self._count(under))
        _, carry, found = jax.lax.while_loop(goes_on, step, start)
        self.pieces.append(found)
        return carry

    def _count(self, at: At) -> int:
        low, high = self.graph.spans[at.path]
        return high - low

    def _earliest(self, before: Found, now: Found, order: Any) -> Found:
        """What was found before, and where there was nothing what is found now."""
        depth = len(self.clock)
        here = now.turns.at[:, depth].set(order)
        known = before.element < NONE
        return Found(
            jnp.where(known, before.element, now.element),
            jnp.where(known[:, None], before.turns, here),
        )

    def plain(self, e: Equation, operands: list[Runs], at: At) -> Sequence[Runs]:
        runs = [e.run([value[0] for value in operands])]
        if self.births is not None:
            same = all(value[0] is value[1] for value in operands)
            runs.append(runs[0] if same else e.run([value[1] for value in operands]))
        return [
            self.born(at.path, i, value, operands)
            for i, value in enumerate(zip(*runs, strict=True))
        ]

    def born(self, path: tuple, result: int, value: Runs, operands: Sequence[Runs] = ()) -> Runs:
        """A value, which is healed if it is born at a site, unless it is left alone."""
        site = self.sites.get((path, result))
        if site is None:
            return value
        if self.births is not None and site.number in self.births:
            return self._kept(site, value, operands)
        if self.births is not None:
            self._note(jnp.where(jnp.isfinite(value[1]).all(), NONE, 0))
            return value
        (clean,) = value
        bad = _born(site, clean, operands)
        self._note(jnp.where(bad.any(), 0, NONE))
        return (jnp.where(bad, jnp.ones_like(clean), clean),)

    def _kept(self, site: Site, value: Runs, operands: Sequence[Runs]) -> Runs:
        """A value at a place where something is born."""
        clean, real = value
        bad, lost, numbers = (
            _born(site, clean, operands),
            ~jnp.isfinite(real),
            _numbers(clean.shape),
        )
        alone = (self.keep.number == site.number) & self._is_before(numbers)
        kept = self.keep.everything | alone
        self._note(_first(lost & jnp.where(self.keep.everything, bad, ~bad | alone), numbers))
        one = jnp.ones_like(clean)
        return jnp.where(bad, one, clean), jnp.where(bad & ~kept, one, real)

    def _note(self, element: Any) -> None:
        element = element.astype(jnp.int32)[None]
        self.pieces.append(Found(element, jnp.zeros((1, self.graph.depth), jnp.int32)))

    def _is_before(self, numbers: Any) -> Any:
        """Whether elements of this round come before the last that is kept, or are that."""
        less, equal = jnp.bool_(False), jnp.bool_(True)
        for now, last in zip(self.clock, self.keep.turns, strict=False):
            less |= equal & (now < last)
            equal &= now == last
        return less | (equal & (numbers <= self.keep.element))


def _arrays(values: Sequence[Runs]) -> list[Runs]:
    return [tuple(map(jnp.asarray, value)) for value in values]


def _born(site: Site, clean: Any, operands: Sequence[Runs]) -> Any:
    """Where a value is not finite, but for an Inf that is one of an operand."""
    if not site.inherits:
        return ~jnp.isfinite(clean)
    inherited = jnp.bool_(False)
    for x, *_ in operands:
        if jaxprs.is_inexact(x):
            infinite = jnp.isinf(x)
            inherited |= infinite if jnp.shape(x) == clean.shape else infinite.any()
    return jnp.isnan(clean) | (jnp.isinf(clean) & ~inherited)
