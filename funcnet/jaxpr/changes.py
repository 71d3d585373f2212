"""Programs changed: marked equations, equations under `jax.checkpoint`, equations left out."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax

from . import jaxprs, runs
from .jaxprs import Atom, ClosedJaxpr, Jaxpr, JaxprEqn, Var

_MARK = "mark:"


def needed(closed: ClosedJaxpr) -> ClosedJaxpr:
    """The program without what none of its outputs needs; what has an effect stays."""
    used = {atom for atom in closed.jaxpr.outvars if isinstance(atom, Var)}
    kept: list[JaxprEqn] = []
    for eqn in reversed(closed.jaxpr.eqns):
        if eqn.effects or not used.isdisjoint(eqn.outvars):
            kept.append(eqn)
            used.update(atom for atom in eqn.invars if isinstance(atom, Var))
    return closed.replace(jaxpr=closed.jaxpr.replace(eqns=kept[::-1]))


def marked(closed: ClosedJaxpr) -> ClosedJaxpr:
    """A program in which each equation, at any depth, has a number among its scopes.

    JAX hands scopes on to what it makes of an equation, so the two passes of a gradient say of each
    of their equations which one of the program it belongs to.
    """
    numbers = itertools.count()
    known: dict[int, Any] = {}

    def mark(eqn: JaxprEqn) -> JaxprEqn:
        stack = eqn.source_info.name_stack.extend(f"{_MARK}{next(numbers)}")
        info = eqn.source_info.replace(name_stack=stack)
        return jaxprs.with_sub_jaxprs(eqn, visit).replace(source_info=info)

    def visit(jaxpr: Any) -> Any:
        if not isinstance(jaxpr, Jaxpr):
            return jaxpr.replace(jaxpr=visit(jaxpr.jaxpr))
        if id(jaxpr) not in known:
            known[id(jaxpr)] = jaxpr.replace(eqns=[mark(eqn) for eqn in jaxpr.eqns])
        return known[id(jaxpr)]

    return visit(closed)


def marks(scope: str) -> tuple[str, ...]:
    """The marks in a scope, from the outermost in.

    >>> marks("block/mark:4/dense/mark:17/exp")
    ('mark:4', 'mark:17')
    """
    return tuple(dict.fromkeys(part for part in scope.split("/") if part.startswith(_MARK)))


def without_marks(scope: str) -> str:
    """A scope as it was before.

    >>> without_marks("block/mark:4/dense/mark:17")
    'block/dense'
    """
    return "/".join(part for part in scope.split("/") if not part.startswith(_MARK))


def checkpointed(
    closed: ClosedJaxpr, instance: Callable[[str], str | None], policy: Callable | None
) -> ClosedJaxpr:
    """A program with `jax.checkpoint` around some of its layers, at any depth.

    Args:
        closed: The program.
        instance: From the scope of an equation to the layer that is to be wrapped, or None.
            Equations that follow each other and are of the same layer are wrapped together; of a
            scan that repeats a layer, what it has inside.
        policy: What `jax.checkpoint` is given.
    """

    def visit(jaxpr: Any, around: str) -> Any:
        if not isinstance(jaxpr, Jaxpr):
            return jaxpr.replace(jaxpr=visit(jaxpr.jaxpr, around))

        def layer(eqn: JaxprEqn) -> str | None:
            scope = _joined(around, eqn)
            name = None if _has_refs(eqn) else instance(scope)
            return None if name == scope and eqn.primitive.name == "scan" else name

        def opened(eqn: JaxprEqn) -> JaxprEqn:
            scope = _joined(around, eqn)
            repeats = eqn.primitive.name == "scan" and instance(scope) == scope
            inside = whole if repeats else functools.partial(visit, around=scope)
            return jaxprs.with_sub_jaxprs(eqn, inside)

        return _grouped(jaxpr, layer, opened, policy)

    def whole(jaxpr: Any) -> Any:
        if not isinstance(jaxpr, Jaxpr):
            return jaxpr.replace(jaxpr=whole(jaxpr.jaxpr))
        return _grouped(jaxpr, lambda eqn: None if _has_refs(eqn) else "", lambda eqn: eqn, policy)

    return visit(closed, "")


def _grouped(
    jaxpr: Jaxpr,
    layer: Callable[[JaxprEqn], str | None],
    opened: Callable[[JaxprEqn], JaxprEqn],
    policy: Callable | None,
) -> Jaxpr:
    """A jaxpr whose equations are wrapped layer by layer, and opened where they have none."""
    eqns: list[JaxprEqn] = []
    known: dict[Var, Atom] = {}
    done = 0
    for name, run in itertools.groupby(jaxpr.eqns, layer):
        group = [_renamed(eqn, known) for eqn in run]
        done += len(group)
        if name is None:
            eqns += map(opened, group)
        else:
            used = _read(jaxpr.eqns[done:], jaxpr.outvars)
            eqns += _wrapped(group, used, policy, known)
    outvars = [jaxprs.look_up(known, atom) for atom in jaxpr.outvars]
    return jaxpr.replace(eqns=eqns, outvars=outvars)


def without_policies(closed: ClosedJaxpr) -> ClosedJaxpr:
    """A program whose checkpoints keep nothing but what they are given."""

    def visit(jaxpr: Any) -> Any:
        if not isinstance(jaxpr, Jaxpr):
            return jaxpr.replace(jaxpr=visit(jaxpr.jaxpr))
        return jaxpr.replace(eqns=[bare(eqn) for eqn in jaxpr.eqns])

    def bare(eqn: JaxprEqn) -> JaxprEqn:
        eqn = jaxprs.with_sub_jaxprs(eqn, visit)
        if eqn.primitive.name not in jaxprs.REMATS:
            return eqn
        return eqn.replace(params={**eqn.params, "policy": None})

    return visit(closed)


def _joined(around: str, eqn: JaxprEqn) -> str:
    return "/".join(filter(None, (around, runs.scope(eqn))))


def _has_refs(eqn: JaxprEqn) -> bool:
    variables = filter(jaxprs.is_var, (*eqn.invars, *eqn.outvars))
    return any(jaxprs.is_ref(v.aval) for v in variables)


def _renamed(eqn: JaxprEqn, known: dict[Var, Atom]) -> JaxprEqn:
    return eqn.replace(invars=[jaxprs.look_up(known, atom) for atom in eqn.invars])


def _read(eqns: list[JaxprEqn], outvars: list[Atom]) -> set[Atom]:
    return {v for atoms in (*(e.invars for e in eqns), outvars) for v in atoms if jaxprs.is_var(v)}


def _wrapped(
    group: list[JaxprEqn], used: set[Atom], policy: Callable | None, known: dict[Var, Atom]
) -> list[JaxprEqn]:
    """The equations that compute what a group does, under `jax.checkpoint`; `known` is told what
    its results are called now."""
    made = [v for eqn in group for v in eqn.outvars]
    own = set(made)
    invars: Any = [v for v in dict.fromkeys(_atoms(group)) if v not in own]
    outvars: Any = [v for v in made if v in used]
    effects = frozenset().union(*(eqn.effects for eqn in group))
    info = jaxprs.DebugInfo("checkpoint", "checkpointed", None, None)
    body = ClosedJaxpr(Jaxpr([], invars, outvars, group, effects, info), ())
    shapes = [_shape(v.aval) for v in invars]
    run = jax.checkpoint(functools.partial(jaxprs.evaluate_with, body, ()), policy=policy)
    wrapped, consts = jaxprs.open_jaxpr(jax.make_jaxpr(run)(*shapes))
    inner: dict[Var, Atom] = dict(zip(wrapped.invars, invars, strict=True))
    literals = map(jaxprs.Literal, consts, (v.aval for v in wrapped.constvars))
    inner.update(zip(wrapped.constvars, literals, strict=True))
    known.update(
        (v, jaxprs.look_up(inner, atom)) for v, atom in zip(outvars, wrapped.outvars, strict=True)
    )
    return [_renamed(eqn, inner) for eqn in wrapped.eqns]


def _shape(aval: Any) -> jax.ShapeDtypeStruct:
    weak = getattr(aval, "weak_type", False)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=weak)


def _atoms(eqns: list[JaxprEqn]) -> list[Atom]:
    return [atom for eqn in eqns for atom in eqn.invars if jaxprs.is_var(atom)]
