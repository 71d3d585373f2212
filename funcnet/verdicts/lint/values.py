"""How often something happens with the values at hand: one compiled run that counts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp

from ...jaxpr import jaxprs
from ...jaxpr.equations import Equation
from ...jaxpr.walk import At, Handler, bodies, walk

Path = tuple[int, ...]
Test = Callable[..., Any]
Counts = dict[Path, Any]


def counted(closed: Any, tests: Mapping[Path, Test], arrays: Sequence[Any]) -> dict[Path, list]:
    """At how many elements each test holds, over all iterations of the loops around.

    Args:
        closed: The program.
        tests: By the path of an equation: from its operands to a few truth values of one shape.
        arrays: The arguments of the program.

    Returns:
        For each path how often each of its truth values holds, and how many elements there are;
        nothing for an equation in a loop of unknown length.
    """
    if not tests:
        return {}

    @jax.jit
    def run(arrays: Sequence[Any]) -> Counts:
        handler = _Counting(tests, {path[:n] for path in tests for n in range(len(path) + 1)})
        walk(closed, arrays, handler)
        return handler.seen

    return {path: [int(n) for n in found] for path, found in run(list(arrays)).items()}


@dataclass
class _Counting(Handler):
    """Runs a program and counts at some equations; opens what those are in, and no more."""

    tests: Mapping[Path, Test]
    under: set[Path]
    seen: Counts = field(default_factory=dict)

    def constant(self, value: Any) -> Any:
        return jaxprs.as_array(value)

    def equation(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        if at.path in self.tests:
            self.seen[at.path] = _count(self.tests[at.path](*operands))
        opened = at.path in self.under and e.kind != "plain"
        return super().equation(e, operands, at) if opened else e.run(operands)

    def plain(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        return e.run(operands)

    def body(self, jaxpr: Any, at: At) -> Callable[..., tuple[list[Any], Counts]]:
        """A jaxpr as a function from values to its outputs and what was counted."""

        def run(values: Sequence[Any]) -> tuple[list[Any], Counts]:
            inner = replace(self, seen={})
            return walk(jaxpr, values, inner, at), inner.seen

        return run

    def cond(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        runs = [self.body(b.jaxpr, b.at) for b in bodies(e, operands, at)]
        seen = [jax.eval_shape(run, operands[1:])[1] for run in runs]
        blank = {path: jnp.zeros(s.shape, s.dtype) for some in seen for path, s in some.items()}

        def whole(run: Callable) -> Callable:
            def branch(*values: Any) -> tuple[list[Any], Counts]:
                results, found = run(values)
                return [jnp.asarray(x) for x in results], blank | found

            return branch

        results, found = jax.lax.switch(operands[0], list(map(whole, runs)), *operands[1:])
        self.seen |= found
        return results

    def scan(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        (body,) = bodies(e, operands, at)
        loop = e.inside
        consts, carry, inputs = loop.groups(operands)
        run = self.body(body.jaxpr, body.at)

        def step(carry: list, slices: list) -> tuple[list, tuple[list, Counts]]:
            results, found = run([*consts, *carry, *slices])
            return results[: loop.carry], (results[loop.carry :], found)

        end, (stacked, found) = jax.lax.scan(
            step, carry, inputs, length=loop.length, reverse=loop.reverse
        )
        self.seen |= {path: jnp.sum(counts, axis=0) for path, counts in found.items()}
        return [*end, *stacked]


def _count(truths: Sequence[Any]) -> Any:
    size = max(jnp.size(truth) for truth in truths)
    return jnp.stack([*(jnp.sum(truth, dtype=int) for truth in truths), jnp.asarray(size)])
