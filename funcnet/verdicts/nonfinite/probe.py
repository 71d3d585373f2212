"""One compiled run of a program that says where values stop being finite, and why.

Each value is computed twice. In the clean run, whatever is not finite is replaced by 1 as soon as
it is born, so that each place shows what it does to finite operands. In the other run some of those
places are left alone: all of them, which is what the program does, or one of them, and then what is
not finite comes from that one.
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


class Pair(NamedTuple):
    """A value in the clean run and in the other; one object where they cannot differ."""

    clean: Any
    real: Any


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

    If everything is left alone, those count that are born there; otherwise those that come from the
    site that is left alone.
    """

    element: Any
    turns: Any


class Seen(NamedTuple):
    """What a run shows.

    Attributes:
        found: What there is at each site.
        bad: The first element of each output that is not finite, or NONE.
        nan: Whether that is NaN.
    """

    found: Found
    bad: Any
    nan: Any


def probe_of(closed: Any, graph: Graph) -> Callable[..., Seen]:
    """A program as a function from what is kept, and its arguments, to what is seen."""
    sites = {(site.path, site.result): site for site in graph.sites}

    def run(keep: Keep, *arrays: Any) -> Seen:
        handler = _Probe(sites, graph.spans, graph.depth, keep)
        pairs = [handler.born((), i, Pair(x, x)) for i, x in enumerate(arrays)]
        results = walk(closed, pairs, handler, At())
        found = handler.all_found()
        firsts = [_first_bad(jnp.asarray(pair.real)) for pair in results]
        bad, nan = zip(*firsts, strict=True) if firsts else ((), ())
        return Seen(found, jnp.stack(bad), jnp.stack(nan))

    return run


def keep_all(graph: Graph) -> Keep:
    """Everything is left alone."""
    return Keep(np.True_, np.int32(-1), np.zeros(graph.depth, np.int32), np.int32(NONE))


def _first_bad(x: Any) -> tuple[Any, Any]:
    if not jaxprs.is_inexact(x) or not x.size:
        return jnp.int32(NONE), jnp.bool_(False)
    first = _first(~jnp.isfinite(x), _numbers(x.shape))
    return first, jnp.isnan(x.ravel()[jnp.minimum(first, x.size - 1)])


def _numbers(shape: tuple[int, ...]) -> Any:
    """The number of each element in row-major order."""
    size = int(np.prod(shape))
    return jax.lax.iota(jnp.int32, size).reshape(shape)


def _first(where: Any, numbers: Any) -> Any:
    return jnp.min(jnp.where(where, numbers, NONE), initial=NONE)


@dataclass
class _Probe(Handler):
    sites: Mapping[tuple, Site]
    spans: Mapping[tuple[int, ...], tuple[int, int]]
    depth: int
    keep: Keep
    clock: tuple[Any, ...] = ()
    pieces: list[Found] = field(default_factory=list)

    def all_found(self) -> Found:
        """What was found at the sites so far, in order."""
        pieces = self.pieces or [self._blank(0)]
        return Found(*(jnp.concatenate(parts) for parts in zip(*pieces, strict=True)))

    def _blank(self, count: int) -> Found:
        return Found(
            jnp.full((count,), NONE, jnp.int32), jnp.zeros((count, self.depth), jnp.int32)
        )  # fmt: skip

    def _body(
        self, jaxpr: Any, values: Sequence[Pair], at: At, clock: tuple
    ) -> tuple[list[Pair], Found]:
        inner = replace(self, clock=clock, pieces=[])
        results = walk(jaxpr, values, inner, at)
        return results, inner.all_found()

    def constant(self, value: Any) -> Pair:
        array = jaxprs.as_array(value)
        return Pair(array, array)

    def call(self, e: Equation, operands: list[Pair], at: At) -> Sequence[Pair]:
        return walk(e.inside.body, operands, self, at.called(e.inside))

    def rule(self, e: Equation, operands: list[Pair], at: At) -> Sequence[Pair]:
        return walk(e.primal, operands, self, at.down(0))

    def cond(self, e: Equation, operands: list[Pair], at: At) -> Sequence[Pair]:
        low, high = self.spans[at.down(0).path][0], 0
        for n in range(len(e.inside.branches)):
            high = self.spans[at.down(n).path][1]

        def branch(n: int, body: Any) -> Callable:
            first, last = self.spans[at.down(n).path]

            def run(pairs: list[Pair]) -> tuple:
                results, found = self._body(body, pairs, at.down(n), self.clock)
                parts = self._blank(first - low), found, self._blank(high - last)
                whole = Found(*(jnp.concatenate(part) for part in zip(*parts, strict=True)))
                return [Pair(*map(jnp.asarray, pair)) for pair in results], whole

            return run

        branches = [branch(n, body) for n, body in enumerate(e.inside.branches)]
        pairs = [Pair(*map(jnp.asarray, pair)) for pair in operands[1:]]
        results, found = jax.lax.switch(operands[0].real, branches, pairs)
        self.pieces.append(found)
        return results

    def scan(self, e: Equation, operands: list[Pair], at: At) -> Sequence[Pair]:
        scan = e.inside
        consts, carry, inputs = scan.groups(operands)
        under = at.turn(length=scan.length)

        def step(state: tuple, inputs: list[Pair]) -> tuple:
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

    def loop(self, e: Equation, operands: list[Pair], at: At) -> Sequence[Pair]:
        loop = e.inside
        tests, consts, carry = loop.groups(operands)
        under = at.turn()

        def goes_on(state: tuple) -> Any:
            real = [pair.real for pair in (*tests, *state[1])]
            return jaxprs.evaluate(loop.cond, *real)[0]

        def step(state: tuple) -> tuple:
            order, carry, found = state
            results, now = self._body(loop.body, [*consts, *carry], under, (*self.clock, order))
            results = [Pair(*map(jnp.asarray, pair)) for pair in results]
            return order + 1, results, self._earliest(found, now, order)

        pairs = [Pair(*map(jnp.asarray, pair)) for pair in carry]
        start = jnp.int32(0), pairs, self._blank(self._count(under))
        _, carry, found = jax.lax.while_loop(goes_on, step, start)
        self.pieces.append(found)
        return carry

    def _count(self, at: At) -> int:
        low, high = self.spans[at.path]
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

    def plain(self, e: Equation, operands: list[Pair], at: At) -> Sequence[Pair]:
        clean = e.run([pair.clean for pair in operands])
        same = all(pair.clean is pair.real for pair in operands)
        real = clean if same else e.run([pair.real for pair in operands])
        results = [Pair(*both) for both in zip(clean, real, strict=True)]
        return [
            self.born(at.path, i, pair, operands) if (at.path, i) in self.sites else pair
            for i, pair in enumerate(results)
        ]

    def born(self, path: tuple, result: int, pair: Pair, operands: Sequence[Pair] = ()) -> Pair:
        """A value at a site: what is born there is healed, unless it is left alone."""
        site = self.sites.get((path, result))
        if site is None:
            return pair
        clean, real = pair
        bad, lost = ~jnp.isfinite(clean), ~jnp.isfinite(real)
        moved = isfinite = ~bad
        if site.inherits:
            bad = jnp.isnan(clean) | (bad & ~_inherited(clean, operands))
            moved = isfinite | (jnp.isnan(real) & ~jnp.isnan(clean))
        numbers = _numbers(clean.shape)
        kept = self.keep.everything | ((self.keep.number == site.number) & self._is_before(numbers))
        seen = lost & jnp.where(self.keep.everything, bad, moved | (bad & kept))
        self.pieces.append(
            Found(_first(seen, numbers)[None], jnp.zeros((1, self.depth), jnp.int32))
        )
        one = jnp.ones_like(clean)
        return Pair(jax.lax.select(bad, one, clean), jax.lax.select(bad & ~kept, one, real))

    def _is_before(self, numbers: Any) -> Any:
        """Whether elements of this round come before the last that is kept, or are that."""
        less, equal = jnp.bool_(False), jnp.bool_(True)
        for now, last in zip(self.clock, self.keep.turns, strict=False):
            less |= equal & (now < last)
            equal &= now == last
        return less | (equal & (numbers <= self.keep.element))


def _inherited(clean: Any, operands: Sequence[Pair]) -> Any:
    """Where an Inf is one of an operand."""
    found = jnp.bool_(False)
    for operand in operands:
        x = operand.clean
        if jaxprs.is_inexact(x):
            infinite = jnp.isinf(x)
            found |= infinite if jnp.shape(x) == clean.shape else infinite.any()
    return found
