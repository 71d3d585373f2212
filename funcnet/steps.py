"""The equations of a jaxpr one by one, each as a function that can be run and differentiated."""

from collections.abc import Sequence
from typing import NamedTuple

from .jaxprs import (
    Atom,
    ClosedJaxpr,
    DebugInfo,
    Jaxpr,
    JaxprEqn,
    Var,
    custom_body,
    is_dropped,
    is_ref,
    is_var,
    look_up,
    rewrite,
)  # fmt: skip


class Step(NamedTuple):
    """Equations taken as one: a single one, or those from a mutable reference to its last use."""

    eqns: tuple[JaxprEqn, ...]
    operands: tuple[Atom, ...]
    results: tuple[Var, ...]

    @property
    def eqn(self) -> JaxprEqn:
        """The equation that gives the step its name and place."""
        return self.eqns[0]


def steps_of(jaxpr: Jaxpr) -> list[Step]:
    """The equations of a jaxpr as steps."""
    eqns = list(jaxpr.eqns)
    refs = {v for eqn in eqns for v in eqn.outvars if is_ref(v.aval)}
    uses = [i for i, eqn in enumerate(eqns) if refs & {*filter(is_var, eqn.invars), *eqn.outvars}]
    if not uses:
        return [Step((eqn,), tuple(eqn.invars), tuple(eqn.outvars)) for eqn in eqns]
    first, last = uses[0], uses[-1] + 1
    together = eqns[first:last]
    made = dict.fromkeys(v for eqn in together for v in eqn.outvars)
    asked = dict.fromkeys(v for eqn in together for v in filter(is_var, eqn.invars))
    later = {v for eqn in eqns[last:] for v in filter(is_var, eqn.invars)}
    later.update(filter(is_var, jaxpr.outvars))
    operands = tuple(v for v in asked if v not in made)
    fused = Step(tuple(together), operands, tuple(v for v in made if v in later))
    alone = [Step((eqn,), tuple(eqn.invars), tuple(eqn.outvars)) for eqn in eqns]
    return [*alone[:first], fused, *alone[last:]]


def step_jaxpr(step: Step) -> tuple[tuple[int, ...], ClosedJaxpr]:
    """A step alone: which of its operands are variables, and the jaxpr of a function of those.

    A variable that stands twice is two arguments, so that each place has its own gradient.
    """
    slots = tuple(i for i, atom in enumerate(step.operands) if is_var(atom))
    fresh = {i: Var(step.operands[i].aval) for i in slots}
    eqns = list(step.eqns)
    if len(eqns) == 1:
        operands = [fresh.get(i, atom) for i, atom in enumerate(step.operands)]
        eqns = [eqns[0].replace(invars=operands)]
    else:
        known: dict[Var, Atom] = {step.operands[i]: fresh[i] for i in slots}  # pyright: ignore[reportAssignmentType]  # slots are variables
        eqns = [e.replace(invars=[look_up(known, atom) for atom in e.invars]) for e in eqns]
    results = [Var(v.aval) if is_dropped(v) else v for v in step.results]
    if len(eqns) == 1:
        eqns = [eqns[0].replace(outvars=results)]
    return slots, jaxpr_of([*fresh.values()], results, eqns)


def jaxpr_of(invars: list, outvars: list, eqns: list, consts: Sequence = ()) -> ClosedJaxpr:
    """A closed jaxpr out of its parts."""
    effects = frozenset().union(*(eqn.effects for eqn in eqns)) if eqns else frozenset()
    inner = frozenset(e for e in effects if type(e).__name__ in ("ReadEffect", "WriteEffect"))
    visible = effects - inner if len(eqns) > 1 else effects
    nameless = DebugInfo("funcnet", "step", None, None)
    jaxpr = Jaxpr([], invars, outvars, eqns, visible, nameless)
    return ClosedJaxpr(jaxpr, list(consts))


def without_rules(closed: ClosedJaxpr) -> ClosedJaxpr:
    """A jaxpr with each `custom_vjp` replaced by its primal, so that forward mode can take it."""
    return rewrite(closed, lambda eqn: custom_body(eqn) if _is_vjp(eqn) else None)


def _is_vjp(eqn: JaxprEqn) -> bool:
    return eqn.primitive.name == "custom_vjp_call"
