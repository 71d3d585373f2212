"""The lines of a custom rule: a jaxpr run equation by equation, each of them kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from ...jaxpr import concrete
from ...jaxpr.equations import Equation, evaluate_again
from ...jaxpr.places import Place
from ...jaxpr.walk import At, Handler, walk
from ..formula import constant, equation, fill
from ..record.rows import Line
from ..record.values import value_of
from ..source.names import source
from .local import tokens

Said = tuple[Any, str]
"""A value, and what it is called."""


def run_lines(
    closed: Any,
    values: Sequence[Any],
    texts: Sequence[str],
    letter: str,
    places: Mapping[int, tuple[Place, ...]],
    keep_all: bool,
) -> tuple[tuple[Line, ...], list[Any]]:
    """Run a jaxpr and keep each equation as a line: "b1 = v3' @ wᵀ"."""
    handler = _Lines(letter, places, keep_all)
    results = walk(closed, list(zip(values, texts, strict=True)), handler)
    plain = [jnp.asarray(x) if isinstance(x, int | float | complex) else x for x, _ in results]
    return tuple(handler.lines), plain


class _Lines(Handler):
    """Opens calls, rules and the branch that is taken; what stands in them counts as written where
    the outermost of them is."""

    def __init__(
        self, letter: str, places: Mapping[int, tuple[Place, ...]], keep_all: bool
    ) -> None:
        self.letter, self.places, self.keep_all = letter, places, keep_all
        self.lines: list[Line] = []

    def constant(self, value: Any) -> Said:
        return value, constant(value).text

    def equation(self, e: Equation, operands: list[Said], at: At) -> Sequence[Said]:
        return super().equation(e, operands, at.written(self.places.get(id(e.eqn), ())))

    def call(self, e: Equation, operands: list[Said], at: At) -> Sequence[Said]:
        return self._opened(e.inside.body, operands, at)

    def cond(self, e: Equation, operands: list[Said], at: At) -> Sequence[Said]:
        taken = e.inside.taken(operands[0][0])
        if taken is None:
            return self.plain(e, operands, at)
        return self._opened(e.inside.branches[taken], operands[1:], at)

    def rule(self, e: Equation, operands: list[Said], at: At) -> Sequence[Said]:
        return self._opened(e.primal, operands, at)

    def _opened(self, body: Any, operands: list[Said], at: At) -> list[Said]:
        return walk(body, operands, self, at.down(0, library=bool(at.places)))

    def plain(self, e: Equation, operands: list[Said], at: At) -> Sequence[Said]:
        texts = [text for _, text in operands]
        if e.is_whole:
            results = evaluate_again(e.alone, *(x for x, _ in e.given(operands)))
        else:
            results = concrete.run(e, [x for x, _ in operands])
        if e.label == "platform_index":
            return [(x, "platform") for x in results]
        if e.label in ("name", "optimization_barrier"):
            return list(zip(results, texts, strict=False))
        made = []
        for x, template in zip(results, e.once(_templates), strict=False):
            name = f"{self.letter}{len(self.lines) + 1}"
            text = fill(template, texts, ())
            self.lines.append(Line(name, text, value_of(x, self.keep_all), source(at.places)))
            made.append((x, name))
        return made


def _templates(e: Equation) -> list[str]:
    """What the results of an equation are, as templates."""
    return [x.text for x in equation(e, tokens(e))]
