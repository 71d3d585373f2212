"""What a whole program computes and moves: its equations, times how often each runs.

A scan counts its body as often as it runs it, a branch the larger one, a loop until a condition
fails as many iterations as are supposed. What no result needs is left out, as a compiler does.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..jaxpr import jaxprs, runs
from ..jaxpr.equations import Equation
from ..jaxpr.passes import Passes
from ..jaxpr.places import is_in_op
from ..jaxpr.walk import At, Handler, walk
from ..traces.record.rows import Source
from ..traces.source.names import source
from .arithmetic import flops, moved


class Count(NamedTuple):
    """An equation of a program, and what it costs in all its runs.

    Attributes:
        layer: Its layer, "block/dense"; "" outside of all.
        source: Its line; in reverse too, that of the forward pass. What an op of funcnet runs in
            either pass has the line that calls the op.
        op: Its primitive.
        flops: Its floating-point operations.
        bytes: What it reads and writes.
        backward: Whether it is of a backward pass.
        recomputed: Whether it computes again what the forward pass of a remat had computed.
        known: Whether what it computes is known; if not, `flops` is 0.
        dtype: Of its first operand; "" if it has none.
    """

    layer: str
    source: Source | None
    op: str
    flops: int
    bytes: int
    backward: bool
    recomputed: bool
    known: bool
    dtype: str


class Total(NamedTuple):
    """What a program costs.

    Attributes:
        counts: Its equations, each with what it costs in all its runs.
        least: The least FLOPs: the smaller branches, no iteration of a loop of unknown length.
        most: The most FLOPs: infinite, if a loop of unknown length computes something.
        loops: The line and the FLOPs of an iteration of each loop of unknown length.
        branches: How many branches there are of which one may cost more than another.
    """

    counts: tuple[Count, ...]
    least: float
    most: float
    loops: tuple[tuple[Source | None, int], ...]
    branches: int


@dataclass(eq=False)
class _Node:
    """A value of a program: what it is computed from, and the number it is if that is known."""

    reads: list["_Node"] = field(default_factory=list)
    number: int | None = None


@dataclass
class _One:
    node: _Node
    count: Count


@dataclass
class _Repeat:
    """Parts that run some times (None: not known), of which the test runs once more."""

    times: int | None
    parts: list[Any]
    test: list[Any]
    source: Source | None


@dataclass
class _Choice:
    branches: list[list[Any]]


class _Counter(Handler):
    """Writes down what the equations of a program cost. Values are nodes of a graph.

    Args:
        backward: Whether it is the backward pass; None of a program that may hold both.
        owner: A node that needs all that is computed, if there is one.
        moves: Whether what an equation reads and writes counts: not inside a kernel.
    """

    def __init__(
        self, backward: bool | None = None, owner: _Node | None = None, moves: bool = True
    ) -> None:
        self.backward, self.owner, self.moves = backward, owner, moves
        self.parts: list[Any] = []
        self.needed: list[_Node] = []

    def constant(self, value: Any) -> _Node:
        return _Node()

    def _inner(self, jaxpr: Any, values: Sequence[_Node], at: At) -> tuple[list, list[_Node]]:
        """The parts of a jaxpr inside an equation, and the nodes of its results."""
        inner = _Counter(self.backward, self.owner, self.moves)
        results = walk(jaxpr, values, inner, at)
        self.needed += inner.needed
        return inner.parts, results

    def cond(self, e: Equation, operands: list[_Node], at: At) -> list[_Node]:
        which, *rest = operands
        branches = list(enumerate(e.inside.branches))
        if which.number is not None:
            branches = [branches[e.inside.taken(which.number)]]
        found = [self._inner(branch, rest, at.down(n)) for n, branch in branches]
        self.parts.append(_Choice([parts for parts, _ in found]))
        return [_Node([which, *results]) for results in zip(*(r for _, r in found), strict=True)]

    def scan(self, e: Equation, operands: list[_Node], at: At) -> list[_Node]:
        consts, carry, inputs = e.inside.groups(operands)
        carried = [_Node([node]) for node in carry]
        body, length = e.inside.body, e.inside.length
        parts, results = self._inner(body, [*consts, *carried, *inputs], at.turn(length=length))
        for node, after in zip(carried, results, strict=False):
            node.reads.append(after)
        self.parts.append(_Repeat(length, parts, [], source(at.places)))
        return [*carried, *results[len(carried) :]]

    def loop(self, e: Equation, operands: list[_Node], at: At) -> list[_Node]:
        tests, consts, carry = e.inside.groups(operands)
        goes_on = _Node()
        carried = [_Node([node, goes_on]) for node in carry]
        test, (again,) = self._inner(e.inside.cond, [*tests, *carried], at.turn())
        goes_on.reads.append(again)
        parts, results = self._inner(e.inside.body, [*consts, *carried], at.turn())
        for node, after in zip(carried, results, strict=True):
            node.reads.append(after)
        self.parts.append(_Repeat(None, parts, test, source(at.places)))
        return carried

    def rule(self, e: Equation, operands: list[_Node], at: At) -> list[_Node]:
        return walk(e.primal, operands, self, at.down(0))

    def plain(self, e: Equation, operands: list[_Node], at: At) -> list[_Node]:
        if e.is_fused:
            return self._fused(e, operands, at)
        node = _Node(list(operands), runs.platform(e.eqn))
        if self.owner is not None:
            self.owner.reads.append(node)
        if e.eqn.effects:
            self.needed.append(node)
        held = runs.held(e.eqn)
        if held is not None:
            inputs = [node] * len(jaxprs.open_jaxpr(held.body)[0].invars)
            inner = _Counter(self.backward, node, self.moves and not held.kernel)
            walk(held.body, inputs, inner, at.down(0))
            self.needed += inner.needed
            self.parts.append(_Repeat(held.times, inner.parts, [], source(at.places)))
        if held is None or held.kernel:
            self._write(e, node, at, 0 if held else flops(e))
        if e.label == "optimization_barrier":
            return [_Node([node, operand]) for operand in operands]
        return [node] * len(e.results)

    def _write(self, e: Equation, node: _Node, at: At, found: int | None) -> None:
        around = list(_around(at))
        count = Count(
            at.scope,
            _line(at),
            e.label,
            found or 0,
            moved(e) if self.moves else 0,
            any(map(runs.is_transposed, around)) if self.backward is None else self.backward,
            any(map(runs.is_recomputed, around)),
            found is not None,
            str(getattr(e.operands[0].aval, "dtype", "")) if e.operands else "",
        )
        self.parts.append(_One(node, count))

    def _fused(self, e: Equation, operands: list[_Node], at: At) -> list[_Node]:
        """Equations that touch mutable references: all is needed if one result is."""
        node = _Node(list(operands))
        inner = _Counter(self.backward, node, self.moves)
        for number, eqn in enumerate(e.eqns):
            one = Equation((eqn,), tuple(eqn.invars), tuple(eqn.outvars))
            inner.equation(one, [node] * len(one.operands), at.inside(eqn, number))
        self.parts += inner.parts
        self.needed += inner.needed
        return [node] * len(e.results)


def _around(at: At) -> Iterator[Any]:
    """The equations around a place, its own first."""
    here: At | None = at
    while here is not None:
        if here.eqn is not None:
            yield here.eqn
        here = here.outer


def _line(at: At) -> Source | None:
    """The innermost line around a place that is not inside an op of funcnet, if there is one."""
    here: At | None = at
    while here is not None:
        outside = tuple(place for place in here.places if not is_in_op(place))
        if outside:
            return source(outside)
        here = here.outer
    return source(at.places)


def _alive(needed: Iterable[_Node]) -> set[int]:
    """The nodes that some nodes are computed from, by their id."""
    todo, found = list(needed), set()
    while todo:
        node = todo.pop()
        if id(node) not in found:
            found.add(id(node))
            todo += node.reads
    return found


def _sum(parts: Iterable[Any], alive: set[int], iterations: int) -> Total:
    totals = []
    for part in parts:
        if isinstance(part, _Choice):
            totals.append(_larger([_sum(own, alive, iterations) for own in part.branches]))
        elif isinstance(part, _Repeat):
            body, test = (_sum(own, alive, iterations) for own in (part.parts, part.test))
            if part.times is not None:
                totals.append(_times(body, part.times))
            elif body.counts or test.counts:
                totals.append(_loop(body, test, iterations, part.source))
        elif id(part.node) in alive:
            n = part.count.flops
            totals.append(Total((part.count,), n, n, (), 0))
    return _joined(totals)


def _joined(totals: Sequence[Total]) -> Total:
    return Total(
        tuple(count for t in totals for count in t.counts),
        sum(t.least for t in totals),
        sum(t.most for t in totals),
        tuple(loop for t in totals for loop in t.loops),
        sum(t.branches for t in totals),
    )


def _times(t: Total, n: int) -> Total:
    counts = tuple(c._replace(flops=n * c.flops, bytes=n * c.bytes) for c in t.counts)
    return t._replace(counts=counts, least=n * t.least, most=n * t.most if n else 0)


def _larger(branches: Sequence[Total]) -> Total:
    chosen = max(branches, key=lambda t: (flops_of(t.counts), sum(c.bytes for c in t.counts)))
    least, most = min(t.least for t in branches), max(t.most for t in branches)
    own = int(len({flops_of(t.counts) for t in branches}) > 1)
    return chosen._replace(least=least, most=most, branches=chosen.branches + own)


def _loop(body: Total, test: Total, iterations: int, where: Source | None) -> Total:
    both = _joined([_times(body, iterations), _times(test, iterations + 1)])
    once = flops_of((*body.counts, *test.counts))
    most = math.inf if body.most or test.most else 0
    return both._replace(least=test.least, most=most, loops=((where, once), *body.loops))


def flops_of(counts: Iterable[Count]) -> int:
    """The FLOPs of some equations together."""
    return sum(count.flops for count in counts)


def counted(jaxpr: Any, iterations: int = 1) -> Total:
    """What a jaxpr costs.

    Args:
        jaxpr: The jaxpr, closed or open.
        iterations: How often each loop of unknown length is supposed to run.

    >>> import jax
    >>> layers = jax.numpy.ones((32, 8, 8))
    >>> def deep(x):
    ...     return jax.lax.scan(lambda h, w: (h @ w, None), x, layers)[0]
    >>> flops_of(counted(jaxprs.trace(deep, jax.numpy.ones((2, 8)))[0]).counts)
    8192
    """
    counter = _Counter()
    nodes = walk(jaxpr, [_Node() for _ in jaxprs.open_jaxpr(jaxpr)[0].invars], counter)
    return _total([counter], nodes, iterations)


def counted_passes(passes: Passes, iterations: int = 1) -> Total:
    """What the two passes of a function cost together, without what neither result needs.

    Args:
        passes: The passes.
        iterations: How often each loop of unknown length is supposed to run.
    """
    ahead, back = _Counter(False), _Counter(True)
    inputs = [_Node() for _ in jaxprs.open_jaxpr(passes.forward)[0].invars]
    made = walk(passes.forward, inputs, ahead)
    first, last = len(passes.results), len(passes.results) + len(passes.residuals)
    cotangents = [_Node() for _ in passes.results]
    gradients = walk(passes.backward, [*made[first:last], *cotangents], back)
    return _total([ahead, back], [*made[:first], *made[last:], *gradients], iterations)


def _total(counters: Sequence[_Counter], needed: Sequence[_Node], iterations: int) -> Total:
    alive = _alive([*needed, *(node for c in counters for node in c.needed)])
    return _sum([part for c in counters for part in c.parts], alive, iterations)
