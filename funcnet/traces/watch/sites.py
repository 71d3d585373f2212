"""Where a program can be watched: its equations, their layers, and which of them matter."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, NamedTuple

from ...jaxpr import jaxprs
from ...jaxpr.equations import Equation
from ...jaxpr.walk import At, Handler, Turn, bodies, reached, walk
from ..source.names import numbered, source, variables


class Site(NamedTuple):
    """A result of an equation that a gradient flows through.

    Attributes:
        name: `v3`, as in a trace; `v3.1` is the second result. A loop's body has one site for all
            iterations.
        op: The primitive, or the function with a custom derivative.
        scope: The layer: "block/dense".
        variable: The Python variable, where the source says so.
        shape: Its shape, without the axes of the loops around.
        dtype: Its dtype.
        path: The place of the equation in the program.
        result: Which of its results it is.
        turns: The loops around it, from the outermost in.
        line: Where it is written: "model.py:12".
    """

    name: str
    op: str
    scope: str
    variable: str
    shape: tuple[int, ...]
    dtype: Any
    path: tuple[int, ...]
    result: int
    turns: tuple[Turn, ...]
    line: str = ""

    @property
    def loops(self) -> tuple[int, ...]:
        """The lengths of the loops around it."""
        return self.loops_inside(0)

    def loops_inside(self, depth: int) -> tuple[int, ...]:
        """The lengths of the loops around it that begin at this depth of the path or later."""
        return tuple(turn.length or 0 for turn in self.turns if turn.depth >= depth)


def sites_of(closed: Any, active: Sequence[bool], wanted: Sequence[bool]) -> list[Site]:
    """Every place of a program that depends on an active input and that a wanted output reads."""
    inputs = [Node() for _ in active]
    handler = _Dependence()
    outputs = walk(closed, inputs, handler)
    readers: dict[Node, list[Node]] = {}
    for node in handler.nodes:
        for operand in node.operands:
            readers.setdefault(operand, []).append(node)
    starts, ends = (compress(*pairs) for pairs in ((inputs, active), (outputs, wanted)))
    moving = reached(starts, lambda node: [n for n in readers.get(node, ()) if n.passes])
    needed = reached(ends, lambda node: node.operands)
    numbers = numbered(closed)
    found = [node for node in handler.nodes if node.at and node in moving and node in needed]
    named = variables([(node.at.path[1:-1], node.at.calls) for node in found if node.at])
    return [node.site(numbers, name) for node, name in zip(found, named, strict=True)]


@dataclass(eq=False)
class Node:
    """A value in the graph of a program.

    Attributes:
        operands: The values it is computed from.
        passes: Whether a gradient may flow through it.
        e: The equation that computes it; None for what enters, merges or goes round.
        result: Which of the results of that it is.
        at: The place of that.
    """

    operands: list["Node"] = field(default_factory=list)
    passes: bool = True
    e: Equation | None = None
    result: int = 0
    at: At | None = None

    def site(self, numbers: dict[tuple[int, ...], int], variable: str) -> Site:
        """The value as a site."""
        e, at = self.e, self.at
        assert e is not None
        assert at is not None
        name = f"v{numbers[at.path]}" + (f".{self.result}" if len(e.results) > 1 else "")
        aval: Any = e.results[self.result].aval
        at_result = at.path, self.result, at.turns, str(source(at.places) or "")
        return Site(name, e.label, at.scope, variable, tuple(aval.shape), aval.dtype, *at_result)


class _Dependence(Handler):
    """Makes the graph: what is computed from what. A loop until a condition fails is one value."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def constant(self, value: Any) -> Node:
        return Node()

    def node(self, operands: list[Node], *more: Any) -> Node:
        self.nodes.append(Node(operands, *more))
        return self.nodes[-1]

    def plain(self, e: Equation, operands: list[Node], at: At) -> list[Node]:
        if e.is_alias:
            return operands
        flows = e.label != "stop_gradient"
        return [
            self.node(operands, flows and jaxprs.is_inexact(var.aval), e, i, at)
            for i, var in enumerate(e.results)
        ]

    def cond(self, e: Equation, operands: list[Node], at: At) -> list[Node]:
        ends = [walk(b.jaxpr, b.values, self, b.at) for b in bodies(e, operands, at)]
        return [self.node([operands[0], *column]) for column in zip(*ends, strict=True)]

    def scan(self, e: Equation, operands: list[Node], at: At) -> list[Node]:
        (body,) = bodies(e, operands, at, carried=lambda node: self.node([node]))
        results = walk(body.jaxpr, body.values, self, body.at)
        _, carry, _ = e.inside.groups(body.values)
        for before, after in zip(carry, results, strict=False):
            before.operands.append(after)
        return [*carry, *results[e.inside.carry :]]


def layers_of(sites: Sequence[Site]) -> dict[str, list[Site]]:
    """The outputs of each layer, by its path: of a layer called again, one for each call.

    A layer's output is the last place in it that matters. "dense", "dense#2" are two calls.
    """
    calls: dict[str, list[list[Site]]] = {}
    for i, site in enumerate(sites):
        before = sites[i - 1].scope if i else ""
        for depth in range(1, site.scope.count("/") + 2 if site.scope else 1):
            layer = "/".join(site.scope.split("/")[:depth])
            runs = calls.setdefault(layer, [])
            if not runs or not f"{before}/".startswith(f"{layer}/"):
                runs.append([])
            runs[-1].append(site)
    found: dict[str, list[Site]] = {}
    for layer, runs in calls.items():
        for i, run in enumerate(runs):
            last = run[-1]
            name = layer if i == 0 else f"{layer}#{i + 1}"
            found[name] = [site for site in run if site.path == last.path]
    order = {site: i for i, site in enumerate(sites)}
    return dict(sorted(found.items(), key=lambda item: order[item[1][-1]]))
