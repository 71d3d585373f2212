"""The equations of a jaxpr one by one, each as a function that can be run and differentiated."""

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..types import Array
from . import jaxprs
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
)


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


class Loop(NamedTuple):
    """A loop until its condition, one truth value, fails.

    Attributes:
        cond: From its constants and the carry to whether the loop goes on.
        body: From its constants and the carry to the next carry.
        tests: How many operands, from the first on, are constants of the condition.
        skipped: How many operands, from the first on, are none of the body.
        consts: How many operands are constants; the carry follows.
    """

    cond: ClosedJaxpr
    body: ClosedJaxpr
    tests: int
    skipped: int
    consts: int

    def groups(self, operands: Sequence[Any]) -> tuple[Sequence, Sequence, Sequence]:
        """The constants of the condition, those of the body, and the carry."""
        constants = operands[: self.consts]
        return constants[: self.tests], constants[self.skipped :], operands[self.consts :]


def structure(eqn: JaxprEqn) -> jaxprs.Call | jaxprs.Cond | jaxprs.Scan | Loop | None:
    """What an equation runs inside, with every loop's condition made one truth value.

    Under `jax.vmap` a condition may be an array: the loop goes on while one element does, and
    leaves those alone that do not. Here the body says so itself.
    """
    inside = jaxprs.structure(eqn)
    if not isinstance(inside, jaxprs.While):
        return inside
    cond, body = jaxprs.close(inside.cond), jaxprs.close(inside.body)
    if cond.out_avals[0].shape == ():
        consts = inside.cond_consts + inside.body_consts
        return Loop(cond, body, inside.cond_consts, inside.cond_consts, consts)
    known = _LOOPS.setdefault(inside.body, {})
    if id(inside.cond) not in known:
        known[id(inside.cond)] = inside.cond, _with_one_condition(cond, body, inside)
    return known[id(inside.cond)][1]


_LOOPS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _with_one_condition(cond: ClosedJaxpr, body: ClosedJaxpr, loop: jaxprs.While) -> Loop:
    tests, consts = loop.cond_consts, loop.cond_consts + loop.body_consts
    types = [*cond.in_avals[:tests], *body.in_avals]
    shapes = [jax.ShapeDtypeStruct(t.shape, t.dtype) for t in types]

    def goes_on(*operands: Any) -> Array:
        return jnp.any(jaxprs.evaluate(cond, *operands)[0])

    def step(*operands: Any) -> list[Array]:
        carry = operands[consts:]
        active = jaxprs.evaluate(cond, *operands[:tests], *carry)[0]
        made = jaxprs.evaluate(body, *operands[tests:consts], *going(active, *carry))
        pairs = zip(made, carry, strict=True)
        return [jax.lax.select(_over(active, old), new, old) for new, old in pairs]

    one = jax.make_jaxpr(goes_on)(*shapes[:tests], *shapes[consts:])
    return Loop(one, jax.make_jaxpr(step)(*shapes), tests, 0, consts)


def _over(active: Array, x: Array) -> Array:
    """A truth value for each element of `x`, whose first axes are those of `active`."""
    return jax.lax.broadcast_in_dim(active, x.shape, tuple(range(active.ndim)))


@jax.custom_vjp
def going(active: Array, *state: Array) -> tuple[Array, ...]:
    """The state of what goes on; all else is given that of the first that does.

    What is done may stand where the loop's body has no value or no slope. Nothing that is
    computed for it is used, but NaN times zero would be NaN.
    """
    first = jnp.argmax(active)

    def of(x: Array) -> Array:
        rows = x.reshape(active.size, *x.shape[active.ndim :])
        one = jax.lax.dynamic_index_in_dim(rows, first, keepdims=False)
        spare = jax.lax.broadcast(one, active.shape)
        return jax.lax.select(_over(active, x), x, spare)

    return tuple(map(of, state))


def _going_forward(active: Array, *state: Array) -> tuple[tuple[Array, ...], Array]:
    return going(active, *state), active


def _going_backward(active: Array, adjoints: tuple) -> tuple:
    return None, *(
        jax.lax.select(_over(active, dy), dy, jnp.zeros_like(dy)) if jaxprs.is_inexact(dy) else None
        for dy in adjoints
    )


going.defvjp(_going_forward, _going_backward)
