"""Where a value that is kept was made: inside the calls, loops and branches that handed it out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ...jaxpr import runs
from ...jaxpr.changes import marks
from ...jaxpr.equations import Equation
from ...jaxpr.walk import At, Handler, bodies, walk

_SAME = ("copy", "name", "optimization_barrier", "pvary")
_RESHAPES = ("broadcast_in_dim", "expand_dims", "reshape", "squeeze")


@dataclass(frozen=True, eq=False)
class Origin:
    """What made a value. A value that is only given another shape is the same.

    Attributes:
        kind: "made" by an equation, an "argument" of the function or a "constant" that it closes
            over.
        op: The primitive that made it.
        marks: The marks of that equation, from the outermost in.
        times: The lengths of the loops that stack it, from the outermost in.
        argument: Which argument it is.
        blank: Whether it holds a number that stands in the program, over and over.
        others: What else may have made it, in another branch.
    """

    kind: str
    op: str = ""
    marks: tuple[str, ...] = ()
    times: tuple[int, ...] = ()
    argument: int = -1
    blank: bool = False
    others: tuple["Origin", ...] = ()


@dataclass(frozen=True, eq=False)
class _Carry:
    """What a loop carries, while its body is walked; and what it began with."""

    before: Any


_BLANK = Origin("constant", blank=True)


class _Origins(Handler):
    """Walks the forward pass; values are origins."""

    def constant(self, value: Any) -> Origin:
        return Origin("constant")

    def literal(self, value: Any) -> Origin:
        return _BLANK

    def cond(self, e: Equation, operands: list[Any], at: At) -> list[Any]:
        """Branches share the room for what they keep; one that needs none fills in zeros."""
        found = [walk(b.jaxpr, b.values, self, b.at) for b in bodies(e, operands, at)]
        return [_either(some) for some in zip(*found, strict=True)]

    def scan(self, e: Equation, operands: list[Any], at: At) -> list[Any]:
        """What a loop carries out was made in its last turn; what it stacks, in each."""
        body = next(bodies(e, operands, at, carried=_Carry))
        count = e.inside.carry
        carries = body.values[e.inside.consts : e.inside.consts + count]
        found = walk(body.jaxpr, body.values, self, body.at)
        places = {id(carry): i for i, carry in enumerate(carries)}

        def settled(x: Any, left: int) -> Any:
            if id(x) not in places:
                return x
            after = found[places[id(x)]]
            return settled(after, left - 1) if left and after is not x else x.before

        plain = [settled(x, count) for x in found]
        return [*plain[:count], *(_stacked(x, e.inside.length) for x in plain[count:])]

    def plain(self, e: Equation, operands: list[Any], at: At) -> list[Any]:
        if e.label in _SAME or is_reshaped(e):
            return operands[: len(e.results)]
        blank = all(map(_is_blank, operands))
        return [Origin("made", e.label, marks(at.scope), blank=blank) for _ in e.results]


def is_reshaped(e: Equation) -> bool:
    """Whether an equation gives its operand another shape and moves no number."""
    if e.label not in _RESHAPES:
        return False
    before: Any = e.operands[0].aval
    after: Any = e.results[0].aval
    return math.prod(before.shape) == math.prod(after.shape) and before.dtype == after.dtype


def _is_blank(x: Any) -> bool:
    return isinstance(x, Origin) and x.blank


def _either(some: Sequence[Any]) -> Any:
    """What one of some branches made."""
    first, *rest = [x for x in some if not _is_blank(x)] or some[:1]
    others = tuple(x for x in rest if isinstance(x, Origin) and x is not first)
    return replace(first, others=others) if others and isinstance(first, Origin) else first


def _stacked(x: Any, length: int) -> Any:
    return replace(x, times=(length, *x.times)) if isinstance(x, Origin) else x


def origins_of(forward: Any, arguments: int) -> list[Any]:
    """The origin of each output of a forward pass."""
    values = [Origin("argument", argument=i) for i in range(arguments)]
    return walk(forward, values, _Origins())


class Site(NamedTuple):
    """What stands at a mark: what it is called ("" if it only holds other equations), and where."""

    label: str
    at: At


class Sites:
    """What stands at each mark of a program."""

    def __init__(self, closed: Any) -> None:
        walker = _Sites()
        walk(closed, [None] * len(closed.in_avals), walker)
        self.known = walker.known

    def find(self, key: tuple[str, ...]) -> Site | None:
        """The innermost equation that is marked so."""
        keys = (key[:n] for n in range(len(key), 0, -1))
        return next((self.known[key] for key in keys if key in self.known), None)


class _Sites(Handler):
    def __init__(self) -> None:
        self.known: dict[tuple[str, ...], Site] = {}

    def constant(self, value: Any) -> None:
        return None

    def equation(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        label = e.label if e.kind in ("plain", "rule") else ""
        for eqn in e.eqns:
            self.known[marks(_scope(at, eqn))] = Site(label, at)
        for body in bodies(e, operands, at):
            walk(body.jaxpr, body.values, self, body.at)
        return [None] * len(e.results)


def _scope(at: At, eqn: Any) -> str:
    around = "" if at.outer is None else at.outer.scope
    return f"{around}/{runs.scope(eqn)}"
