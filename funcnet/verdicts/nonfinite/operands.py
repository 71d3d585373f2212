"""The operands and the result of one equation in one round of its loops, out of a compiled run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from ...jaxpr import jaxprs
from ...jaxpr.equations import Equation
from ...jaxpr.walk import At, Handler, walk
from ...traces.record.values import is_number
from .graph import Site

Caught = list[Any]


def operands_of(closed: Any, site: Site) -> Callable[..., Caught]:
    """A program as a function from a round and its arguments to what a site reads and gives.

    An operand that holds no number, such as a random key, is zero.
    """

    def run(turns: Any, *arrays: Any) -> Caught:
        handler = _Catch(site, turns)
        walk(closed, list(arrays), handler, At())
        return handler.caught or []

    return run


@dataclass
class _Catch(Handler):
    """Opens what the site is in, and runs all else as it is."""

    site: Site
    turns: Any
    clock: tuple[Any, ...] = ()
    caught: Caught | None = None

    def _blank(self) -> Caught:
        types = [*self.site.reads, self.site.aval]
        return [jnp.zeros(t.shape, t.dtype) if is_number(t.dtype) else jnp.zeros(()) for t in types]

    def _body(
        self, jaxpr: Any, values: Sequence[Any], at: At, clock: tuple
    ) -> tuple[list[Any], Caught]:
        inner = replace(self, clock=clock, caught=None)
        results = walk(jaxpr, values, inner, at)
        return list(map(jnp.asarray, results)), inner.caught or self._blank()

    def constant(self, value: Any) -> Any:
        return jaxprs.as_array(value)

    def equation(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        on_the_way = at.path == self.site.path[: len(at.path)]
        return super().equation(e, operands, at) if on_the_way else e.run(operands)

    def rule(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        return walk(e.primal, operands, self, at.down(0))

    def cond(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        def branch(n: int, body: Any) -> Callable:
            return lambda *xs: self._body(body, xs, at.down(n), self.clock)

        branches = [branch(n, body) for n, body in enumerate(e.inside.branches)]
        results, self.caught = jax.lax.switch(operands[0], branches, *operands[1:])
        return results

    def scan(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        scan = e.inside
        consts, carry, inputs = scan.groups(operands)
        under = at.turn(length=scan.length)

        def step(state: tuple, inputs: list[Any]) -> tuple:
            order, carry, caught = state
            clock = (*self.clock, order)
            results, now = self._body(scan.body, [*consts, *carry, *inputs], under, clock)
            caught = self._chosen(order, now, caught)
            return (order + 1, results[: scan.carry], caught), results[scan.carry :]

        start = jnp.int32(0), carry, self._blank()
        (_, carry, self.caught), stacked = jax.lax.scan(
            step, start, inputs, scan.length, scan.reverse
        )
        return [*carry, *stacked]

    def loop(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        loop = e.inside
        tests, consts, carry = loop.groups(operands)

        def goes_on(state: tuple) -> Any:
            return jaxprs.evaluate(loop.cond, *tests, *state[1])[0]

        def step(state: tuple) -> tuple:
            order, carry, caught = state
            clock = (*self.clock, order)
            results, now = self._body(loop.body, [*consts, *carry], at.turn(), clock)
            return order + 1, results, self._chosen(order, now, caught)

        start = jnp.int32(0), list(map(jnp.asarray, carry)), self._blank()
        _, carry, self.caught = jax.lax.while_loop(goes_on, step, start)
        return carry

    def _chosen(self, order: Any, now: Caught, before: Caught) -> Caught:
        here = order == self.turns[len(self.clock)]
        return [jnp.where(here, new, old) for new, old in zip(now, before, strict=True)]

    def plain(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        results = e.run(operands)
        if at.path == self.site.path:
            both = zip([*operands, results[self.site.result]], self._blank(), strict=True)
            self.caught = [x if is_number(x.dtype) else blank for x, blank in both]
        return results
