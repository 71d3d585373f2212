"""The only door to jaxpr internals: everything funcnet assumes about them stands in this file.

A jaxpr is JAX's record of a function: variables, and equations that bind primitives. The
modules above read and rewrite jaxprs with the functions here and never touch `jax.core` or
`jax.extend` themselves, so a new JAX changes one file.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import jax
import jax.core
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, DropVar, Jaxpr, JaxprEqn, Literal, Var

Atom: TypeAlias = Var | Literal

CUSTOM_RULES = ("custom_jvp_call", "custom_vjp_call")
"""The primitives that carry a custom derivative, beside the `call_jaxpr` of their primal."""


def is_traced(x: object) -> bool:
    """Whether `x` is a tracer: a stand-in inside a transformation, without a value to look at."""
    return isinstance(x, jax.core.Tracer)


def shape_struct(x: Any) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an array, a `ShapeDtypeStruct` or a Python number."""
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x))


def trace(f: Callable, *args: Any) -> tuple[ClosedJaxpr, Any]:
    """The jaxpr of `f(*args)` and the pytree structure of its output."""
    closed, shapes = jax.make_jaxpr(f, return_shape=True)(*args)
    return closed, jax.tree.structure(shapes)


def evaluate(closed: ClosedJaxpr, *leaves: Any) -> list[Any]:
    """The flat outputs of a jaxpr for flat inputs."""
    return evaluate_with(closed, closed.consts, *leaves)


def evaluate_with(closed: ClosedJaxpr, consts: Sequence[Any], *leaves: Any) -> list[Any]:
    """The same with other constants in the place of its own."""
    return jax.core.eval_jaxpr(closed.jaxpr, consts, *leaves)


def output_shapes(closed: ClosedJaxpr) -> list[jax.ShapeDtypeStruct]:
    """The shapes and dtypes of the flat outputs."""
    return [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in closed.out_avals]


def varying_axes(x: Any) -> frozenset[str]:
    """The mesh axes of a `jax.shard_map` along which `x` differs from device to device."""
    kind = jax.typeof(x)
    manual = getattr(kind, "mat", None)
    return frozenset(getattr(kind, "vma", ()) if manual is None else manual.varying)


def output_sources(closed: ClosedJaxpr) -> list[tuple[str, int]]:
    """Each flat output's source: `("input", i)`, or `("computed", n)` with one n for one value."""
    inputs = {var: i for i, var in enumerate(closed.jaxpr.invars)}
    values: dict[Any, int] = {}
    sources = []
    for position, atom in enumerate(closed.jaxpr.outvars):
        if isinstance(atom, Literal):
            sources.append(("computed", -1 - position))
        elif atom in inputs:
            sources.append(("input", inputs[atom]))
        else:
            sources.append(("computed", values.setdefault(atom, len(values))))
    return sources


def sub_jaxprs(eqn: JaxprEqn) -> Iterator[Any]:
    """The jaxprs among an equation's parameters: a loop's body, a branch, a jitted function."""
    for value in eqn.params.values():
        for leaf in jax.tree.leaves(value, is_leaf=_is_jaxpr):
            if _is_jaxpr(leaf):
                yield leaf


def rewrite(jaxpr: Any, inline: Callable[[JaxprEqn], Any]) -> Any:
    """A jaxpr, closed or open, with chosen equations replaced by the body of a jaxpr, at any depth.

    Args:
        jaxpr: The jaxpr to rewrite.
        inline: Gives, for an equation, the closed jaxpr whose equations stand in for it, or None
            to leave it. Whatever comes back is rewritten in its turn.

    Returns:
        A jaxpr of the same kind, inputs and outputs.
    """
    if not isinstance(jaxpr, Jaxpr):
        return jaxpr.replace(jaxpr=rewrite(jaxpr.jaxpr, inline))
    known: dict[Var, Atom] = {}
    eqns: list[JaxprEqn] = []
    for eqn in jaxpr.eqns:
        eqn = eqn.replace(invars=[_look_up(known, atom) for atom in eqn.invars])
        body = inline(eqn)
        if body is None:
            eqns.append(_with_sub_jaxprs(eqn, lambda sub: rewrite(sub, inline)))
        else:
            _splice(eqn, rewrite(body, inline), eqns, known)
    return jaxpr.replace(eqns=eqns, outvars=[_look_up(known, atom) for atom in jaxpr.outvars])


def _is_jaxpr(value: object) -> bool:
    return isinstance(value, Jaxpr | ClosedJaxpr)


def _look_up(known: dict[Var, Atom], atom: Atom) -> Atom:
    return atom if isinstance(atom, Literal) else known.get(atom, atom)


def _with_sub_jaxprs(eqn: JaxprEqn, change: Callable[[Any], Any]) -> JaxprEqn:
    if not any(True for _ in sub_jaxprs(eqn)):
        return eqn

    def visit(value: Any) -> Any:
        leaves, tree = jax.tree.flatten(value, is_leaf=_is_jaxpr)
        if not any(_is_jaxpr(leaf) for leaf in leaves):
            return value
        return tree.unflatten([change(leaf) if _is_jaxpr(leaf) else leaf for leaf in leaves])

    return eqn.replace(params={name: visit(value) for name, value in eqn.params.items()})


def _splice(eqn: JaxprEqn, body: ClosedJaxpr, eqns: list[JaxprEqn], known: dict[Var, Atom]) -> None:
    """Append the equations of `body` in place of `eqn`, under fresh names and its name stack."""
    inner: dict[Var, Atom] = dict(zip(body.jaxpr.invars, eqn.invars, strict=True))
    for var, const in zip(body.jaxpr.constvars, body.consts, strict=True):
        inner[var] = Literal(const, var.aval)
    outer_stack = eqn.source_info.name_stack
    for step in body.jaxpr.eqns:
        fresh = [v if isinstance(v, DropVar) else Var(v.aval) for v in step.outvars]
        inner.update((v, new) for v, new in zip(step.outvars, fresh, strict=True) if v is not new)
        where = step.source_info.replace(name_stack=outer_stack + step.source_info.name_stack)
        operands = [_look_up(inner, atom) for atom in step.invars]
        eqns.append(step.replace(invars=operands, outvars=fresh, source_info=where))
    for var, result in zip(eqn.outvars, body.jaxpr.outvars, strict=True):
        if not isinstance(var, DropVar):
            known[var] = _look_up(inner, result)
