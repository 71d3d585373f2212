"""What a person wrote, before it was differentiated: the primitive of each line, and rules."""

from collections import Counter, defaultdict
from typing import Any

from ...jaxpr import jaxprs
from ...jaxpr.equations import Equation
from ...jaxpr.places import Place, places_of
from ...jaxpr.walk import At, Handler, bodies, walk

MOVES = {
    "broadcast_in_dim", "copy", "copy_p", "dynamic_slice", "expand_dims", "imag", "name",
    "optimization_barrier", "pcast", "pvary", "real", "reduce_precision", "reshape", "rev", "slice",
    "squeeze", "stop_gradient", "transpose",
}  # fmt: skip
"""What only moves or passes on elements of its first operand."""

QUIET = MOVES | {
    "abs", "argmax", "argmin", "atan", "ceil", "clamp", "complex", "concatenate", "conj", "cos",
    "cummax", "cummin", "dynamic_update_slice", "erf", "erfc", "floor", "iota", "logistic", "max",
    "min", "neg", "platform_index", "reduce_max", "reduce_min", "round", "select_n",
    "sharding_constraint", "sign", "sin", "sort", "split", "tanh",
}  # fmt: skip
"""What makes no NaN and no Inf of finite operands."""


class Written(Handler):
    """The primitives that a function runs, by the call that wrote them.

    A derivative of an equation has the traceback of that equation: so it is known what it is the
    derivative of.
    """

    def __init__(self, closed: Any) -> None:
        self.names: dict[Any, list[str]] = defaultdict(list)
        self.twins: dict[Any, list[Any]] = {}
        self.seen: Counter = Counter()
        self.at: dict[Any, int] = {}
        walk(closed, [None] * len(jaxprs.open_jaxpr(closed)[0].invars), self)

    def equation(self, e: Equation, operands: list[None], at: At) -> list[None]:
        """Note its name, and how its custom rule is written if it has one."""
        for body in bodies(e, operands, at):
            walk(body.jaxpr, body.values, self, body.at)
        call = e.eqn.source_info.traceback
        if e.kind == "rule":
            walk(e.primal, operands, self, at.down(0))
            passes = jaxprs.own_passes(e.eqn)
            if passes is not None:
                self.twins[call] = list(jaxprs.open_jaxpr(passes[0])[0].eqns)
        if e.kind in ("plain", "rule"):
            self.names[call].append(e.label)
        return [None] * len(e.results)

    def origin(self, e: Equation, backward: bool, again: tuple) -> tuple[str, bool]:
        """What was written where this equation comes from, and whether this is its derivative.

        Args:
            e: The equation.
            backward: Whether the backward pass runs it.
            again: The path of what it stands in, if that is computed again for that pass.
        """
        name, call = e.label, e.eqn.source_info.traceback
        names = self.names.get(call, [])
        if not names or (call in self.twins and not backward):
            return name, False
        if name in names and (again or not backward):
            self.seen[call, name, again] += 1
            if self.seen[call, name, again] <= names.count(name):
                return name, False
        loud = [n for n in names if n not in QUIET and n != "convert_element_type"]
        return (loud or names)[-1], True

    def rule_places(self, e: Equation) -> tuple[Place, ...]:
        """Where a custom rule's forward pass writes this equation, if it is of one."""
        call = e.eqn.source_info.traceback
        twins = self.twins.get(call, [])
        start = self.at.get(call, 0)
        for i in (*range(start, len(twins)), *range(start)):
            if twins[i].primitive is e.eqn.primitive:
                self.at[call] = i + 1
                return places_of(twins[i])
        return ()
