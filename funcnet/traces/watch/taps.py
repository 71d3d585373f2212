"""A program run with taps: at chosen places its values are looked at and its adjoints changed."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax

from ...jaxpr import jaxprs, steps
from ..run.local import unit_of
from .sites import Site

Probes = dict[str, Any]


class Tap(Protocol):
    """What stands at a place: it passes the value on and says what there is to see."""

    def __call__(self, site: Site, value: Any, probe: Any) -> tuple[Any, Any]:
        """The value, and what was seen (None for nothing); the probe may be None."""
        ...


class Program:
    """A jaxpr with taps at some sites.

    Args:
        closed: The program.
        sites: Where the taps are.
        tap: What stands there.
        blank: What is seen of a site in a branch that was not taken, for the loops in that branch;
            None if nothing is seen anywhere.
    """

    def __init__(
        self,
        closed: Any,
        sites: Sequence[Site],
        tap: Tap,
        blank: Callable[[Site, tuple[int, ...]], Any] | None = None,
    ) -> None:
        self.closed, self.tap, self.blank = closed, tap, blank
        self.sites = {(site.path, site.result): site for site in sites}
        self.under: dict[tuple[int, ...], list[Site]] = {}
        for site in sites:
            for n in range(len(site.path) + 1):
                self.under.setdefault(site.path[:n], []).append(site)

    def __call__(self, probes: Probes, *arrays: Any) -> tuple[list[Any], Probes]:
        """The outputs, and what was seen at each site, stacked over the iterations of loops."""
        return self._run(self.closed, arrays, (), probes)

    def _run(
        self, jaxpr: Any, values: Sequence[Any], path: tuple[int, ...], probes: Probes
    ) -> tuple[list[Any], Probes]:
        opened, consts = jaxprs.open_jaxpr(jaxpr)
        env = dict(zip(opened.constvars, map(jaxprs.as_array, consts), strict=True))
        env.update(zip(opened.invars, values, strict=True))
        seen: Probes = {}

        def read(atom: Any) -> Any:
            return env[atom] if jaxprs.is_var(atom) else jaxprs.as_array(atom.val)

        for i, step in enumerate(steps.steps_of(opened)):
            here = (*path, i)
            operands = [read(atom) for atom in step.operands]
            if here in self.under:
                results, more = self._step(step, operands, here, probes)
                seen |= more
            else:
                unit = unit_of(step)
                results = jaxprs.evaluate(unit.closed, *(operands[n] for n in unit.slots))
            env.update(zip(step.results, results, strict=True))
        return [read(atom) for atom in opened.outvars], seen

    def _step(
        self, step: steps.Step, operands: list[Any], path: tuple[int, ...], probes: Probes
    ) -> tuple[list[Any], Probes]:
        inside = jaxprs.structure(step.eqn) if len(step.eqns) == 1 else None
        if isinstance(inside, jaxprs.Call):
            return self._call(inside, operands, (*path, 0), probes)
        if isinstance(inside, jaxprs.Cond):
            return self._cond(inside, operands, path, probes)
        if isinstance(inside, jaxprs.Scan):
            return self._scan(inside, operands, (*path, 0), probes)
        unit = unit_of(step)
        results = list(jaxprs.evaluate(unit.closed, *(operands[n] for n in unit.slots)))
        seen: Probes = {}
        for i, value in enumerate(results):
            site = self.sites.get((path, i))
            if site is not None:
                results[i], found = self.tap(site, value, probes.get(site.name))
                if found is not None:
                    seen[site.name] = found
        return results, seen

    def _call(
        self, call: jaxprs.Call, operands: list[Any], path: tuple[int, ...], probes: Probes
    ) -> tuple[list[Any], Probes]:
        def body(probes: Probes, *values: Any) -> tuple[list[Any], Probes]:
            return self._run(call.body, values, path, probes)

        if call.remat:
            body = jax.checkpoint(body, policy=call.policy, prevent_cse=call.prevent_cse)
            names = {site.name for site in self.under[path]}
            probes = {name: probe for name, probe in probes.items() if name in names}
        return body(probes, *operands)

    def _cond(
        self, cond: jaxprs.Cond, operands: list[Any], path: tuple[int, ...], probes: Probes
    ) -> tuple[list[Any], Probes]:
        every = self.under[path]

        def branch(n: int, body: Any) -> Callable:
            def run(probes: Probes, *values: Any) -> tuple[list[Any], Probes]:
                results, seen = self._run(body, values, (*path, n), probes)
                if self.blank is not None:
                    absent = [site for site in every if site.name not in seen]
                    blanks = {s.name: self.blank(s, s.loops_inside(len(path))) for s in absent}
                    seen = {name: (seen | blanks)[name] for name in sorted(seen | blanks)}
                return results, seen

            return run

        names = {site.name for site in every}
        own = {name: probe for name, probe in probes.items() if name in names}
        branches = [branch(n, body) for n, body in enumerate(cond.branches)]
        return jax.lax.switch(operands[0], branches, own, *operands[1:])

    def _scan(
        self, scan: jaxprs.Scan, operands: list[Any], path: tuple[int, ...], probes: Probes
    ) -> tuple[list[Any], Probes]:
        first, last = scan.consts, scan.consts + scan.carry
        names = {site.name for site in self.under[path]}
        own = {name: probe for name, probe in probes.items() if name in names}

        def body(carry: list, inputs: tuple) -> tuple[list, tuple]:
            own, slices = inputs
            values = [*operands[:first], *carry, *slices]
            results, seen = self._run(scan.body, values, path, own)
            return results[: scan.carry], (results[scan.carry :], seen)

        carry, (stacked, seen) = jax.lax.scan(
            body, operands[first:last], (own, operands[last:]), scan.length, scan.reverse,
            scan.unroll,
        )  # fmt: skip
        return [*carry, *stacked], seen
