"""One walk over a jaxpr, of which every trace, watch and printer is a handler.

`walk` gives each equation its operands and writes down its results. What the values are (arrays,
names, formulas, whether something depends on a parameter) and what is to be done with an equation,
the handler says.
"""

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from . import jaxprs, runs
from .equations import Equation, Loop, equations_of
from .places import Place, places_of


class Turn(NamedTuple):
    """A loop around a place.

    Attributes:
        depth: How far along the path the loop begins.
        length: How many iterations it has, if that is known before it runs.
        index: The iteration; None where it is any.
    """

    depth: int
    length: int | None
    index: int | None


@dataclass(frozen=True, eq=False)
class At:
    """A place in a program: that of an equation, or of a jaxpr inside one.

    Attributes:
        path: From the outermost jaxpr in: the number of an equation, then that of the jaxpr in it.
        turns: The loops around it, from the outermost in.
        library: Whether it is inside a function of JAX itself.
        policy: The policy of the remat around it, in a tuple of one; None outside.
        labels: What a reader is told of the loop or branch that begins here.
        eqn: The equation that stands here; None for a jaxpr.
        known: Where it was written, if the equation does not say.
        outer: What stands around it.
    """

    path: tuple[int, ...] = ()
    turns: tuple[Turn, ...] = ()
    library: bool = False
    policy: tuple | None = None
    labels: tuple[str, ...] = ()
    eqn: Any = None
    known: tuple[Place, ...] = ()
    outer: "At | None" = None

    def inside(self, eqn: Any, number: int) -> "At":
        """The place of an equation of the jaxpr that stands here."""
        path = (*self.path, number)
        return At(path, self.turns, self.library, self.policy, eqn=eqn, outer=self)

    def written(self, places: tuple[Place, ...]) -> "At":
        """This place, known to be written somewhere else if there is any."""
        return replace(self, known=places) if places else self

    def down(self, child: int, *labels: str, **changes: Any) -> "At":
        """The place of a jaxpr inside the equation that stands here."""
        body = At((*self.path, child), self.turns, self.library, self.policy, labels, outer=self)
        return replace(body, **changes) if changes else body

    def called(self, call: jaxprs.Call) -> "At":
        """The place of the body of a call."""
        library = self.library or jaxprs.is_library(call.body)
        return self.down(0, library=library, policy=(call.policy,) if call.remat else self.policy)

    def turn(self, *labels: str, length: int | None = None, index: int | None = None) -> "At":
        """The place of the body of a loop."""
        turn = Turn(len(self.path), length, index)
        return self.down(0, *labels, turns=(*self.turns, turn))

    @property
    def iterations(self) -> tuple[int | None, ...]:
        """The iteration of each loop around it."""
        return tuple(turn.index for turn in self.turns)

    @cached_property
    def _own(self) -> str:
        return "" if self.eqn is None else runs.scope(self.eqn)

    @cached_property
    def scope(self) -> str:
        """Its layer: "block/dense"."""
        around = "" if self.outer is None else self.outer.scope
        return "/".join(filter(None, (around, self._own)))

    @cached_property
    def within(self) -> tuple[str, ...]:
        """Loops, branches and layers around it, from the outermost in."""
        around = () if self.outer is None else self.outer.within
        return (*around, *filter(None, self._own.split("/")), *self.labels)

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Where it was written: the calls that led to it, the innermost first.

        What a function of JAX has inside counts as written where the function is called: it may
        have been traced for another call.
        """
        own = () if self.eqn is None or self.library else self.known or places_of(self.eqn)
        return own or (() if self.outer is None else self.outer.places)

    @property
    def calls(self) -> tuple[Place, ...]:
        """The calls it stands in. What a jitted function has inside may have been traced for
        another call, so that only its own line counts."""
        return self.places if len(self.path) == 1 else self.places[:1]


class Handler:
    """What is done with the equations on a walk.

    Each method is given an equation, the values of its operands and its place, and returns the
    values of its results. An equation goes to the method of its kind. A call is walked through, and
    all others are `plain`, unless a handler says something else.
    """

    def constant(self, value: Any) -> Any:
        """The value of an array that the program closes over."""
        return value

    def literal(self, value: Any) -> Any:
        """The value of a number that stands in the program."""
        return self.constant(value)

    def equation(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        """Any equation."""
        return getattr(self, e.kind)(e, operands, at)

    def call(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        """A jitted function, a remat."""
        return walk(e.inside.body, operands, self, at.called(e.inside))

    def cond(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        """Branches, of which operand 0 says which runs."""
        return self.plain(e, operands, at)

    def scan(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        """A loop of known length."""
        return self.plain(e, operands, at)

    def loop(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        """A loop until its condition fails."""
        return self.plain(e, operands, at)

    def rule(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        """A function with a custom derivative; `e.primal` is what it runs."""
        return self.plain(e, operands, at)

    def plain(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        """An equation taken as a whole; each handler has it, or sees to every `equation`."""
        raise NotImplementedError(f"{type(self).__name__} has no way to take a {e.kind} equation.")


def walk(jaxpr: Any, values: Sequence[Any], handler: Handler, at: At | None = None) -> list[Any]:
    """Hand the equations of a jaxpr to a handler, in order; the values of the outputs.

    A value is let go after its last use.

    Args:
        jaxpr: The jaxpr, closed or open.
        values: A value for each of its inputs.
        handler: What is done with each equation.
        at: Where the jaxpr stands in the program; None if it is the program.

    >>> class Depth(Handler):
    ...     def constant(self, value):
    ...         return 0
    ...     def plain(self, e, operands, at):
    ...         return [1 + max(operands, default=0)] * len(e.results)
    >>> import jax
    >>> closed, _ = jaxprs.trace(jax.jit(lambda x: jax.numpy.sin(x) * x + 1), 2.0)
    >>> walk(closed, [0], Depth())
    [3]
    """
    at = at or At()
    opened, consts = jaxprs.open_jaxpr(jaxpr)
    env: dict[Any, Any] = {}
    env.update(zip(opened.constvars, map(handler.constant, consts), strict=True))
    env.update(zip(opened.invars, values, strict=True))

    def read(atom: Any) -> Any:
        return env[atom] if jaxprs.is_var(atom) else handler.literal(atom.val)

    for number, (e, dead) in enumerate(_plan(opened)):
        operands = [read(atom) for atom in e.operands]
        results = handler.equation(e, operands, at.inside(e.eqn, number))
        env.update(zip(e.results, results, strict=True))
        for var in dead:
            env.pop(var, None)
    return [read(atom) for atom in opened.outvars]


_PLANS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _plan(jaxpr: jaxprs.Jaxpr) -> list[tuple[Equation, list[Any]]]:
    """The equations of a jaxpr, each with the variables that none after it reads."""
    if jaxpr not in _PLANS:
        listed = equations_of(jaxpr)
        last: dict[Any, int] = {}
        for i, e in enumerate(listed):
            last.update((v, i) for v in (*filter(jaxprs.is_var, e.operands), *e.results))
        dead: list[list[Any]] = [[] for _ in listed]
        for var in last.keys() - set(filter(jaxprs.is_var, jaxpr.outvars)):
            dead[last[var]].append(var)
        _PLANS[jaxpr] = list(zip(listed, dead, strict=True))
    return _PLANS[jaxpr]


class Body(NamedTuple):
    """A jaxpr inside an equation.

    Attributes:
        jaxpr: The jaxpr.
        values: Its inputs.
        at: Its place.
    """

    jaxpr: Any
    values: list[Any]
    at: At


def bodies(
    e: Equation,
    operands: Sequence[Any],
    at: At,
    carried: Callable[[Any], Any] = lambda x: x,
    sliced: Callable[[Any], Any] = lambda x: x,
) -> Iterator[Body]:
    """What an equation runs inside, each once: the body of a call or loop, all branches.

    Args:
        e: The equation.
        operands: The values of its operands.
        at: Its place.
        carried: From the value of a carry before the loop to that within it.
        sliced: From the value of what a loop takes apart to that of its slices.
    """
    inside = e.inside
    if isinstance(inside, jaxprs.Call):
        yield Body(inside.body, list(operands), at.called(inside))
    elif isinstance(inside, jaxprs.Cond):
        for n, branch in enumerate(inside.branches):
            yield Body(branch, list(operands[1:]), at.down(n))
    elif isinstance(inside, jaxprs.Scan):
        consts, carry, inputs = inside.groups(operands)
        values = [*consts, *map(carried, carry), *map(sliced, inputs)]
        yield Body(inside.body, values, at.turn(length=inside.length))
    elif isinstance(inside, Loop):
        _, consts, carry = inside.groups(operands)
        yield Body(inside.body, [*consts, *map(carried, carry)], at.turn())


def reached(starts: Iterable[Any], onward: Callable[[Any], Iterable[Any]]) -> set[Any]:
    """What can be reached in a graph, such as a walk makes whose values are nodes.

    >>> sorted(reached([8], lambda n: [n // 2] if n else []))
    [0, 1, 2, 4, 8]
    """
    found: set[Any] = set()
    open_ends = list(starts)
    while open_ends:
        node = open_ends.pop()
        if node not in found:
            found.add(node)
            open_ends.extend(onward(node))
    return found
