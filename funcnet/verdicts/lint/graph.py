"""A program as a graph of values: what each is computed from, and where its elements lie."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...jaxpr import jaxprs
from ...jaxpr.equations import Equation
from ...jaxpr.places import Place
from ...jaxpr.walk import At, Handler, Turn, bodies, reached, walk
from .ranges import ANY, PLAIN, STRUCTURE, VIEWS, Range, join, of_array, of_dtype, result_range

FLAT = {"stop_gradient", "floor", "ceil", "round", "sign", "argmax", "argmin"}
"""Primitives through which no gradient flows, or nothing but 0."""


@dataclass(eq=False)
class Node:
    """A value in a program.

    Attributes:
        operands: The values it is computed from.
        range: Where its elements lie.
        flows: Whether a gradient may flow through it.
        e: The equation that computes it; None for what enters, merges or goes round.
        result: Which of the results of that it is.
        at: The place of that.
        fixed: Whether it depends on no argument.
        hidden: Whether it is inside a custom rule, whose derivative does not come from it.
        turns: The loops in which it is made.
        same: What two values have in common that are surely equal.
    """

    operands: list["Node"]
    range: Range = ANY
    flows: bool = True
    e: Equation | None = None
    result: int = 0
    at: At | None = None
    fixed: bool = False
    hidden: bool = False
    turns: tuple[Turn, ...] = ()
    same: Any = None

    @property
    def label(self) -> str:
        """Its primitive, or the function that has a custom rule; "" if no equation computes it."""
        return "" if self.e is None else self.e.label

    @property
    def dtype(self) -> Any:
        """The dtype of what an equation computes; None if no equation computes it."""
        aval: Any = None if self.e is None else self.e.results[self.result].aval
        return None if aval is None else aval.dtype

    @property
    def place(self) -> Place | None:
        """The line it was written in."""
        return next(iter(self.at.places), None) if self.at else None

    @property
    def plain(self) -> "Node":
        """The value itself, before it was given another shape."""
        return self.operands[0].plain if self.label in VIEWS and not self._rounds else self

    @property
    def _rounds(self) -> bool:
        """Whether it is a floating number made whole."""
        return not self.flows and any(node.flows for node in self.operands)


@dataclass
class Graph(Handler):
    """Makes the graph. A loop until a condition fails is one value, and so is a custom rule.

    Attributes:
        nodes: The values that equations compute, in order.
        constants: The arrays that the program closes over.
        equal: A number for each value that is surely equal to another: what computes it.
    """

    nodes: list[Node] = field(default_factory=list)
    constants: dict[int, tuple[Any, Node]] = field(default_factory=dict)
    equal: dict[tuple, int] = field(default_factory=dict)
    within: int = 0

    def constant(self, value: Any) -> Node:
        """A value of the program itself; one that is read twice is one value."""
        known = self.constants.get(id(value))
        if known is None:
            node = Node([], of_array(value), fixed=True)
            node.same = ("array", id(value)) if getattr(value, "ndim", 0) else _number(value)
            known = self.constants[id(value)] = value, node
        return known[1]

    def literal(self, value: Any) -> Node:
        """A number that stands in the program."""
        return Node([], of_array(value), fixed=True, same=_number(value))

    def node(self, operands: Sequence[Node], aval: Any, range: Range, *more: Any) -> Node:
        """One more value."""
        made = Node(list(operands), range, jaxprs.is_inexact(aval), *more)
        made.fixed = all(node.fixed for node in made.operands)
        made.hidden = self.within > 0
        made.turns = made.at.turns if made.at else ()
        made.same = made
        self.nodes.append(made)
        return made

    def plain(self, e: Equation, operands: list[Node], at: At) -> list[Node]:
        """An equation taken as a whole."""
        if e.is_alias:
            return operands
        return [self._result(e, operands, at, i) for i in range(len(e.results))]

    def _result(self, e: Equation, operands: list[Node], at: At, i: int) -> Node:
        same = len(operands) == 2 and operands[0].plain is operands[1].plain
        if e.label == "select_n":
            found = _selected(operands)
        else:
            found = result_range(e, [node.range for node in operands], i, same)
        node = self.node(operands, e.results[i].aval, found, e, i, at)
        node.flows = node.flows and e.label not in FLAT
        if e.label in STRUCTURE or e.label in PLAIN or e.label.startswith("random_"):
            parts = e.label, str(e.eqn.params), i, tuple(node.same for node in operands)
            node.same = self.equal.setdefault(parts, len(self.equal))
        return node

    def cond(self, e: Equation, operands: list[Node], at: At) -> list[Node]:
        """Branches, of which any may run."""
        ends = [walk(b.jaxpr, b.values, self, b.at) for b in bodies(e, operands, at)]
        columns = zip(e.results, zip(*ends, strict=True), strict=True)
        return [
            self.node([operands[0], *column], var.aval, join([node.range for node in column]))
            for var, column in columns
        ]

    def scan(self, e: Equation, operands: list[Node], at: At) -> list[Node]:
        """A loop, whose carry may be anything of its dtype within it."""
        (body,) = bodies(e, operands, at)
        consts, carry, inputs = e.inside.groups(body.values)
        types: list[Any] = [var.aval for var in jaxprs.open_jaxpr(body.jaxpr)[0].invars]
        pairs = zip(carry, types[len(consts) :], strict=False)
        rounds = [Node([n], of_dtype(t.dtype), jaxprs.is_inexact(t)) for n, t in pairs]
        slices = [Node([n], n.range, n.flows, fixed=n.fixed) for n in inputs]
        for made in (*rounds, *slices):
            made.turns, made.same, made.hidden = body.at.turns, made, self.within > 0
            self.nodes.append(made)
        results = walk(body.jaxpr, [*consts, *rounds, *slices], self, body.at)
        for before, after in zip(rounds, results, strict=False):
            before.operands.append(after)
        count = e.inside.carry
        ends = [
            self.node([before, after], var.aval, join([before.range, after.range]))
            for before, after, var in zip(rounds, results, e.results, strict=False)
        ]
        return [*ends, *results[count:]]

    def rule(self, e: Equation, operands: list[Node], at: At) -> list[Node]:
        """A function with a custom derivative: one value; its range is that of its primal."""
        self.within += 1
        inside = walk(e.primal, operands, self, at.down(0))
        self.within -= 1
        return [
            self.node(operands, var.aval, node.range._replace(guarded=False), e, i, at)
            for i, (var, node) in enumerate(zip(e.results, inside, strict=True))
        ]


def _number(value: Any) -> tuple[str, str]:
    return "number", str(value)


def _selected(operands: list[Node]) -> Range:
    """The range of a `where`: what its condition says of a branch counts there."""
    which, *branches = operands
    sure = which.range.one
    if sure is not None and 0 <= sure < len(branches):
        return branches[int(sure)].range
    ranges = [refined(b.range, b.plain, which, bool(i)) for i, b in enumerate(branches)]
    found = join(ranges)
    fixed = [branch.fixed and branch.range.misses_zero for branch in branches]
    return found._replace(guarded=found.guarded or (any(fixed) and not all(fixed)))


def refined(r: Range, node: Node, which: Node, holds: bool) -> Range:
    """The range of a value where a condition holds, or where it does not."""
    which = which.plain
    if which.label == "not":
        return refined(r, node, which.operands[0], not holds)
    if which.label == ("and" if holds else "or"):
        for part in which.operands:
            r = refined(r, node, part, holds)
        return r
    if which.label not in _OPPOSITE or len(which.operands) != 2:
        return r
    left, right = which.operands
    relation = which.label if holds else _OPPOSITE[which.label]
    if right.plain is node:
        left, right, relation = right, left, _TURNED[relation]
    if left.plain is node:
        return _narrowed(r, relation, right.range)
    if left.plain.label not in ("abs", "square") or left.plain.operands[0].plain is not node:
        return r
    end = right.range.high
    if relation in ("lt", "le") and left.plain.label == "abs" and end >= 0:
        return _narrowed(
            _narrowed(r, relation, Range(end, end)), _TURNED[relation], Range(-end, -end)
        )
    beyond = relation in ("gt", "ne") and right.range.one == 0
    away = relation in ("gt", "ge") and right.range.above_zero
    return r._replace(nonzero=True) if beyond or away else r


_OPPOSITE = {"lt": "ge", "ge": "lt", "gt": "le", "le": "gt", "eq": "ne", "ne": "eq"}
_TURNED = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le", "eq": "eq", "ne": "ne"}


def _narrowed(r: Range, relation: str, end: Range) -> Range:
    """A range, of which is known that it is less, greater, or other than an end."""
    if relation in ("gt", "ge"):
        low = _after(end.low, 1) if relation == "gt" else end.low
        nonzero = r.nonzero or (relation == "gt" and end.low >= 0)
        return r._replace(low=max(r.low, low), nonzero=nonzero)
    if relation in ("lt", "le"):
        high = _after(end.high, -1) if relation == "lt" else end.high
        nonzero = r.nonzero or (relation == "lt" and end.high <= 0)
        return r._replace(high=min(r.high, high), nonzero=nonzero)
    if relation == "eq":
        return r._replace(low=max(r.low, end.low), high=min(r.high, end.high))
    return r._replace(nonzero=True) if end.one == 0 else r


def _after(x: float, way: int) -> float:
    """The next number of 64 bits above or below one that is not 0."""
    return math.nextafter(x, way * math.inf) if x else x


class Reach:
    """Which values a gradient flows through, and who reads them.

    Attributes:
        readers: The values computed from each.
        moving: Those that depend on an active argument along a path a gradient may take.
        needed: Those from which such a path leads to an output.
        used: Those that an output depends on in any way.
    """

    def __init__(self, graph: Graph, active: Iterable[Node], outputs: Iterable[Node]) -> None:
        self.readers: dict[Node, list[Node]] = {}
        for node in graph.nodes:
            for operand in node.operands:
                self.readers.setdefault(operand, []).append(node)
        ends = list(outputs)
        self.moving = reached(active, lambda n: [m for m in self.readers.get(n, ()) if m.flows])
        self.needed = reached(ends, lambda n: n.operands if n.flows else [])
        self.used = reached(ends, lambda n: n.operands)

    def matters(self, node: Node) -> bool:
        """Whether a gradient flows through a value, and its slope is not a custom rule's."""
        return node in self.moving and node in self.needed and node.flows and not node.hidden
