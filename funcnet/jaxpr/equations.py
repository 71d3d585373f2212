"""The equations of a jaxpr one by one, each as a function that can be run and differentiated."""

import functools
import inspect
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..types import Array
from . import jaxprs
from .jaxprs import (
    Atom,
    ClosedJaxpr,
    DebugInfo,
    Jaxpr,
    JaxprEqn,
    Literal,
    Var,
    custom_body,
    is_dropped,
    is_ref,
    is_var,
    look_up,
    rewrite,
)


@dataclass(frozen=True, eq=False)
class Equation:
    """An equation with what it runs inside; or those from a mutable reference to its last use.

    Attributes:
        eqns: The equations taken as one.
        operands: What they read.
        results: What they compute that is read later.
        name: What to call it, if not after its primitive.
        whole: What it computes from its operands, if that is not what its equations say.
    """

    eqns: tuple[JaxprEqn, ...]
    operands: tuple[Atom, ...]
    results: tuple[Var, ...]
    name: str = ""
    whole: ClosedJaxpr | None = None
    known: dict[Callable, Any] = field(default_factory=dict, repr=False)

    @property
    def eqn(self) -> JaxprEqn:
        """The equation that gives it its place."""
        return self.eqns[0]

    @property
    def is_fused(self) -> bool:
        """Whether it is all that touches mutable references."""
        return len(self.eqns) > 1

    @functools.cached_property
    def inside(self) -> Any:
        """What it runs inside: a `Call`, `Cond`, `Scan` or `Loop`, as its kind says, or None."""
        return None if self.is_fused else structure(self.eqn)

    @functools.cached_property
    def primal(self) -> ClosedJaxpr | None:
        """What it runs if it has a custom derivative, else None."""
        return None if self.is_fused else custom_body(self.eqn)

    @functools.cached_property
    def kind(self) -> str:
        """ "call", "cond", "scan", "loop" (until a condition fails), "rule" (it has a custom
        derivative) or "plain"."""
        if self.inside is not None:
            return _KINDS[type(self.inside)]
        return "plain" if self.primal is None else "rule"

    @functools.cached_property
    def is_whole(self) -> bool:
        """Whether it holds jaxprs, of which none is a rule's."""
        return self.primal is None and any(True for e in self.eqns for _ in jaxprs.sub_jaxprs(e))

    @property
    def is_alias(self) -> bool:
        """Whether it gives back its operand."""
        return not self.is_fused and jaxprs.is_alias(self.eqn)

    @functools.cached_property
    def label(self) -> str:
        """What to call it: its primitive, or the function that has a custom rule."""
        return self.name or ("refs" if self.is_fused else jaxprs.label(self.eqn))

    @functools.cached_property
    def slots(self) -> tuple[int, ...]:
        """Which of its operands are variables."""
        return tuple(i for i, atom in enumerate(self.operands) if is_var(atom))

    @functools.cached_property
    def alone(self) -> ClosedJaxpr:
        """It alone: a function of those of its operands that are variables.

        A variable that stands twice is two arguments, so that each place has its own gradient.
        """
        if self.whole is not None:
            return self.whole
        fresh = {i: Var(self.operands[i].aval) for i in self.slots}
        results = [Var(v.aval) if is_dropped(v) else v for v in self.results]
        if not self.is_fused:
            operands = [fresh.get(i, atom) for i, atom in enumerate(self.operands)]
            eqns = [self.eqn.replace(invars=operands, outvars=results)]
        else:
            known: dict[Any, Atom] = {self.operands[i]: var for i, var in fresh.items()}
            eqns = [e.replace(invars=[look_up(known, v) for v in e.invars]) for e in self.eqns]
        return jaxpr_of([*fresh.values()], results, eqns)

    def given(self, operands: Sequence[Any]) -> list[Any]:
        """Those of some operands that are variables."""
        return [operands[i] for i in self.slots]

    def run(self, operands: Sequence[Any]) -> list[Any]:
        """Its results for these operands."""
        return jaxprs.evaluate(self.alone, *self.given(operands))

    def once(self, f: Callable[["Equation"], Any]) -> Any:
        """`f` of it, found once."""
        if f not in self.known:
            self.known[f] = f(self)
        return self.known[f]


def as_equation(closed: ClosedJaxpr, name: str) -> Equation:
    """A jaxpr taken as one equation of this name."""
    jaxpr = closed.jaxpr
    results: Any = jaxpr.outvars
    return Equation(tuple(jaxpr.eqns), tuple(jaxpr.invars), tuple(results), name, closed)


def equations_of(jaxpr: Jaxpr) -> list[Equation]:
    """The equations of a jaxpr, those that touch mutable references as one."""
    eqns = list(jaxpr.eqns)
    alone = [Equation((eqn,), tuple(eqn.invars), tuple(eqn.outvars)) for eqn in eqns]
    refs = {v for eqn in eqns for v in eqn.outvars if is_ref(v.aval)}
    uses = [i for i, eqn in enumerate(eqns) if refs & {*filter(is_var, eqn.invars), *eqn.outvars}]
    if not uses:
        return alone
    first, last = uses[0], uses[-1] + 1
    together = eqns[first:last]
    made = dict.fromkeys(v for eqn in together for v in eqn.outvars)
    asked = dict.fromkeys(v for eqn in together for v in filter(is_var, eqn.invars))
    later = {v for eqn in eqns[last:] for v in filter(is_var, eqn.invars)}
    later.update(filter(is_var, jaxpr.outvars))
    operands = tuple(v for v in asked if v not in made)
    fused = Equation(tuple(together), operands, tuple(v for v in made if v in later))
    return [*alone[:first], fused, *alone[last:]]


def jaxpr_of(invars: list, outvars: list, eqns: list, consts: Sequence = ()) -> ClosedJaxpr:
    """A closed jaxpr out of its parts."""
    effects = frozenset().union(*(eqn.effects for eqn in eqns)) if eqns else frozenset()
    inner = frozenset(e for e in effects if type(e).__name__ in ("ReadEffect", "WriteEffect"))
    visible = effects - inner if len(eqns) > 1 else effects
    nameless = DebugInfo("funcnet", "equation", None, None)
    jaxpr = Jaxpr([], invars, outvars, eqns, visible, nameless)
    return ClosedJaxpr(jaxpr, list(consts))


def without_rules(closed: ClosedJaxpr) -> ClosedJaxpr:
    """A jaxpr with each `custom_vjp` replaced by its primal, so that forward mode can take it."""
    return rewrite(closed, lambda eqn: custom_body(eqn) if _is_vjp(eqn) else None)


def _is_vjp(eqn: JaxprEqn) -> bool:
    return eqn.primitive.name == "custom_vjp_call"


def with_own_lines(closed: ClosedJaxpr) -> ClosedJaxpr:
    """A jaxpr whose `custom_vjp` rules go backward as before, and say where they are written.

    What JAX makes of such a rule says of every equation that it was written where it was called.
    """
    made: set[int] = set()

    def opened(eqn: JaxprEqn) -> ClosedJaxpr | None:
        rule: Any = eqn.params.get("bwd")
        passes = None if not _is_vjp(eqn) or id(rule) in made else jaxprs.own_passes(eqn)
        if passes is None or eqn.params["symbolic_zeros"]:
            return None
        _, back, given = passes

        def run(*xs: Any) -> Any:
            return given.unflatten(jaxprs.evaluate(back, *xs))

        written = jaxprs.wrap_init(run, debug_info=rule.debug_info)
        made.add(id(written))
        operands: list = [Var(atom.aval) for atom in eqn.invars]
        results = [Var(v.aval) for v in eqn.outvars]
        info = eqn.source_info
        alone = eqn.replace(
            invars=operands,
            outvars=results,
            params=eqn.params | {"bwd": written},
            source_info=info.replace(name_stack=type(info.name_stack)()),
        )
        return jaxpr_of(operands, results, [alone])

    return rewrite(closed, opened)


def bound(eqn: JaxprEqn, operands: Sequence[Any]) -> list[Any] | None:
    """What an equation of one primitive gives, run as the same call outside of a jaxpr would be.

    So the two share what JAX compiles for it. None if it holds a jaxpr, or was written under other
    settings than those of now: `evaluate` sees to these.
    """
    settings = getattr(eqn, "ctx", None)
    plain = not any(map(callable, eqn.params.values())) and not any(
        True for _ in jaxprs.sub_jaxprs(eqn)
    )
    if not plain or settings is None or settings != type(settings)():
        return None
    found = eqn.primitive.bind(*operands, **eqn.params)
    return list(found) if eqn.primitive.multiple_results else [found]


def derivation(eqn: JaxprEqn) -> tuple[str, Sequence[str]]:
    """What the docstring of a rule's backward pass says, or ""; and the names of its operands.

    Names are known where the function has those of its arguments as its attribute `arguments`.
    """
    rule: Any = eqn.params.get("bwd")
    backward = getattr(rule, "f", None)
    text = inspect.getdoc(backward) if inspect.isroutine(backward) else ""
    names = getattr(backward, "arguments", ())
    trees = [x for step in getattr(rule, "transforms", ()) for x in step[1]]
    tree = next((x for x in trees if isinstance(x, jax.tree_util.PyTreeDef)), None)
    parts = () if tree is None else tree.children()
    if len(parts) != len(names):
        return text or "", ()
    pairs = zip(names, parts, strict=True)
    return text or "", [name for name, part in pairs for _ in range(part.num_leaves)]


_COMPILED: dict[str, Callable] = {}


def evaluate_again(closed: ClosedJaxpr, *leaves: Any) -> list[Any]:
    """`evaluate`, compiled once for all jaxprs that read alike.

    A loop that is run as a whole is compiled anyway; JAX would do it for each new jaxpr.
    """
    if any(map(jaxprs.is_traced, leaves)) or not _tells_all(closed):
        return jaxprs.evaluate(closed, *leaves)
    text = str(closed.jaxpr)
    if text not in _COMPILED:
        if len(_COMPILED) >= 1000:
            _COMPILED.clear()
        _COMPILED[text] = jax.jit(functools.partial(jaxprs.evaluate_with, closed.jaxpr))
    return _COMPILED[text](closed.consts, *leaves)


def _tells_all(jaxpr: Any) -> bool:
    """Whether the text of a jaxpr says all that it computes: no array inside, no callback.

    The derivative of a custom rule is not in the text, but nothing runs it unless under a trace.
    """
    for eqn in jaxprs.open_jaxpr(jaxpr)[0].eqns:
        if any(isinstance(atom, Literal) and np.ndim(atom.val) for atom in eqn.invars):
            return False
        rule = eqn.primitive.name in (*jaxprs.CUSTOM_RULES, *jaxprs.REMATS)
        if not rule and any(map(callable, eqn.params.values())):
            return False
        subs = jaxprs.sub_jaxprs(eqn)
        if not all(not jaxprs.open_jaxpr(sub)[1] and _tells_all(sub) for sub in subs):
            return False
    return True


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


_KINDS = {jaxprs.Call: "call", jaxprs.Cond: "cond", jaxprs.Scan: "scan", Loop: "loop"}

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
