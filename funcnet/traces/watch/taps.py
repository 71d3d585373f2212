"""A program run with taps: at chosen places its values are looked at and its adjoints changed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import jax

from ...jaxpr import jaxprs
from ...jaxpr.equations import Equation
from ...jaxpr.walk import At, Handler, bodies, walk
from .sites import Site

Probes = dict[str, Any]


class Tap(Protocol):
    """What stands at a place: it passes the value on and says what there is to see."""

    def __call__(self, site: Site, value: Any, probe: Any) -> tuple[Any, Any]:
        """The value, and what was seen (None for nothing); the probe may be None."""
        ...


def tapped(
    closed: Any,
    sites: Sequence[Site],
    tap: Tap,
    blank: Callable[[Site, tuple[int, ...]], Any] | None = None,
) -> Callable[..., tuple[list[Any], Probes]]:
    """A jaxpr with taps at some sites.

    Args:
        closed: The program.
        sites: Where the taps are.
        tap: What stands there.
        blank: What is seen of a site in a branch that was not taken, for the loops in that branch;
            None if nothing is seen anywhere.

    Returns:
        From probes and arrays to the outputs, and what was seen at each site, stacked over the
        iterations of loops.
    """
    under: dict[tuple[int, ...], list[Site]] = {}
    for site in sites:
        for n in range(len(site.path) + 1):
            under.setdefault(site.path[:n], []).append(site)
    return _Taps(under, tap, blank).body(closed, At())


@dataclass
class _Taps(Handler):
    """Runs equations, opens those that sites are in, and passes the results at sites through taps.

    What is computed under `jax.checkpoint`, `jax.lax.switch` or `jax.lax.scan` has a handler of its
    own, given the probes of the sites in it: they go in and out there as values.
    """

    under: dict[tuple[int, ...], list[Site]]
    tap: Tap
    blank: Callable[[Site, tuple[int, ...]], Any] | None
    probes: Probes = field(default_factory=dict)
    seen: Probes = field(default_factory=dict)

    def body(self, jaxpr: Any, at: At) -> Callable[..., tuple[list[Any], Probes]]:
        """A jaxpr as a function from probes and values to its outputs and what was seen."""

        def run(probes: Probes, *values: Any) -> tuple[list[Any], Probes]:
            inner = replace(self, probes=probes, seen={})
            return walk(jaxpr, values, inner, at), inner.seen

        return run

    def _own(self, at: At) -> Probes:
        return {s.name: self.probes[s.name] for s in self.under[at.path] if s.name in self.probes}

    def constant(self, value: Any) -> Any:
        return jaxprs.as_array(value)

    def equation(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        return super().equation(e, operands, at) if at.path in self.under else e.run(operands)

    def call(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        call = e.inside
        if not call.remat:
            return super().call(e, operands, at)
        body = self.body(call.body, at.called(call))
        body = jax.checkpoint(body, policy=call.policy, prevent_cse=call.prevent_cse)
        results, seen = body(self._own(at), *operands)
        self.seen |= seen
        return results

    def cond(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        branches = [self._branch(jaxpr, at, under) for jaxpr, _, under in bodies(e, operands, at)]
        results, seen = jax.lax.switch(operands[0], branches, self._own(at), *operands[1:])
        self.seen |= seen
        return results

    def _branch(self, jaxpr: Any, at: At, under: At) -> Callable:
        """A branch, of which as much is seen as of the others."""
        body = self.body(jaxpr, under)

        def run(probes: Probes, *values: Any) -> tuple[list[Any], Probes]:
            results, seen = body(probes, *values)
            if self.blank is not None:
                absent = [site for site in self.under[at.path] if site.name not in seen]
                seen |= {s.name: self.blank(s, s.loops_inside(len(at.path))) for s in absent}
            return results, seen

        return run

    def scan(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        scan = e.inside
        consts, carry, inputs = scan.groups(operands)
        run = self.body(scan.body, at.turn(length=scan.length))

        def body(carry: list, inputs: tuple) -> tuple[list, tuple]:
            probes, slices = inputs
            results, seen = run(probes, *consts, *carry, *slices)
            return results[: scan.carry], (results[scan.carry :], seen)

        carry, (stacked, seen) = jax.lax.scan(
            body, carry, (self._own(at), inputs), scan.length, scan.reverse, scan.unroll
        )
        self.seen |= seen
        return [*carry, *stacked]

    def plain(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        results = e.run(operands)
        for site in self.under[at.path]:
            value, found = self.tap(site, results[site.result], self.probes.get(site.name))
            results[site.result] = value
            if found is not None:
                self.seen[site.name] = found
        return results
