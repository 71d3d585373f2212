"""The only door to jaxpr internals: everything funcnet assumes about them stands in this file.

A jaxpr is JAX's record of a function: variables, and equations that bind primitives. The
modules above read and rewrite jaxprs with the functions here and never touch `jax.core` or
`jax.extend` themselves, so a new JAX changes one file.
"""

import os
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, DropVar, Jaxpr, JaxprEqn, Literal, Var
from jax.extend.core import DebugInfo as DebugInfo
from jax.extend.linear_util import wrap_init as wrap_init

Atom: TypeAlias = Var | Literal

CUSTOM_RULES = ("custom_jvp_call", "custom_vjp_call")
"""The primitives that carry a custom derivative, beside the `call_jaxpr` of their primal."""


def is_traced(x: object) -> bool:
    """Whether `x` is a tracer: a stand-in inside a transformation, without a value to look at."""
    return isinstance(x, jax.core.Tracer)


def shape_struct(x: Any) -> jax.ShapeDtypeStruct:
    """The shape and dtype of an array, a `ShapeDtypeStruct` or a number, as JAX would take it."""
    if hasattr(x, "shape") and hasattr(x, "dtype") and not _is_numpys(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x))


def _is_numpys(x: Any) -> bool:
    """Whether x is an array of numbers of NumPy, whose 64 bits JAX halves unless told not to."""
    return isinstance(x, np.ndarray | np.generic) and x.dtype.kind in "fiuc"


def trace(f: Callable, *args: Any) -> tuple[ClosedJaxpr, Any]:
    """The jaxpr of `f(*args)` and the pytree structure of its output."""
    closed, shapes = jax.make_jaxpr(f, return_shape=True)(*args)
    return closed, jax.tree.structure(shapes)


def evaluate(closed: ClosedJaxpr, *leaves: Any) -> list[Any]:
    """The flat outputs of a jaxpr for flat inputs, Python's numbers among them as arrays."""
    found = evaluate_with(closed, closed.consts, *leaves)
    return [jnp.asarray(x) if isinstance(x, int | float | complex) else x for x in found]


def evaluate_with(jaxpr: Any, consts: Sequence[Any], *leaves: Any) -> list[Any]:
    """The same with other constants in the place of its own."""
    return jax.core.eval_jaxpr(open_jaxpr(jaxpr)[0], consts, *leaves)


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
        eqn = eqn.replace(invars=[look_up(known, atom) for atom in eqn.invars])
        body = inline(eqn)
        if body is None:
            eqns.append(with_sub_jaxprs(eqn, lambda sub: rewrite(sub, inline)))
        else:
            _splice(eqn, rewrite(body, inline), eqns, known)
    return jaxpr.replace(eqns=eqns, outvars=[look_up(known, atom) for atom in jaxpr.outvars])


def _is_jaxpr(value: object) -> bool:
    return isinstance(value, Jaxpr | ClosedJaxpr)


def look_up(known: dict[Var, Atom], atom: Atom) -> Atom:
    """What stands in the place of an operand: itself, unless a variable is known as another."""
    return atom if isinstance(atom, Literal) else known.get(atom, atom)


def with_sub_jaxprs(eqn: JaxprEqn, change: Callable[[Any], Any]) -> JaxprEqn:
    """An equation with each jaxpr in it changed."""
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
        operands = [look_up(inner, atom) for atom in step.invars]
        eqns.append(step.replace(invars=operands, outvars=fresh, source_info=where))
    for var, result in zip(eqn.outvars, body.jaxpr.outvars, strict=True):
        if not isinstance(var, DropVar):
            known[var] = look_up(inner, result)


# What the parameters of an equation mean.

_JAX = os.path.dirname(jax.__file__) + os.sep

CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "eval_jaxpr": "call_jaxpr",
    "remat2": "jaxpr",
    "remat": "jaxpr",
    "checkpoint": "jaxpr",
}
REMATS = ("remat2", "remat", "checkpoint")


class Call(NamedTuple):
    """An equation that runs one jaxpr on its operands; `policy` is None unless it is a remat."""

    body: Any
    name: str
    remat: bool
    prevent_cse: bool
    policy: Callable | None


class Cond(NamedTuple):
    """An equation that runs one of its branches: operand 0 says which, the others go to it."""

    branches: tuple[Any, ...]

    def taken(self, index: Any) -> int | None:
        """The branch that runs, or None if the index is a tracer."""
        return None if is_traced(index) else min(max(int(index), 0), len(self.branches) - 1)


class Scan(NamedTuple):
    """A loop of known length: operands and outputs are constants, carry, and what is stacked."""

    body: Any
    consts: int
    carry: int
    length: int
    reverse: bool
    unroll: Any

    def groups(self, operands: Sequence[Any]) -> tuple[list, list, list]:
        """The constants, the carry and what is taken apart."""
        first, last = self.consts, self.consts + self.carry
        return list(operands[:first]), list(operands[first:last]), list(operands[last:])


class While(NamedTuple):
    """A loop that runs until its condition fails; the operands are two groups of constants, then
    the carry."""

    cond: Any
    body: Any
    cond_consts: int
    body_consts: int


def structure(eqn: JaxprEqn) -> Call | Cond | Scan | While | None:
    """What an equation runs inside, or None if it is to be taken as a whole."""
    name, params = eqn.primitive.name, eqn.params
    if name in CALLS:
        body = params[CALLS[name]]
        label = params.get("name") or name
        cse = params.get("prevent_cse", True)
        return Call(body, label, name in REMATS, cse, params.get("policy"))
    if name == "cond":
        return Cond(tuple(params["branches"]))
    if name == "scan":
        consts, carry = _scan_groups(params)
        rest = (params[key] for key in ("length", "reverse", "unroll"))
        return Scan(params["jaxpr"], consts, carry, *rest)
    if name == "while":
        counts = params["cond_nconsts"], params["body_nconsts"]
        return While(params["cond_jaxpr"], params["body_jaxpr"], *counts)
    return None


def _scan_groups(params: dict[str, Any]) -> tuple[int, int]:
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


def custom_body(eqn: JaxprEqn) -> ClosedJaxpr | None:
    """The primal of an equation with a custom derivative rule; None for any other equation."""
    return eqn.params["call_jaxpr"] if eqn.primitive.name in CUSTOM_RULES else None


def strippable_body(eqn: JaxprEqn) -> ClosedJaxpr | None:
    """`custom_body`; None also for what is JAX's own and has a rule that forward mode can take.

    `jnp.logaddexp` and `jax.nn.relu`, for instance, have another slope at 0 without it.
    """
    body = custom_body(eqn)
    forward = eqn.primitive.name == "custom_jvp_call"
    return None if body is not None and forward and is_library(body) else body


def closed_over(eqn: JaxprEqn) -> int:
    """How many operands of an equation with a custom derivative, from the first on, are what its
    function closes over: no rule gives them a gradient."""
    return eqn.params["num_consts"]


def custom_key(eqn: JaxprEqn) -> Hashable | None:
    """What two equations with a `custom_vjp` rule have in common if it is the same rule.

    None for any other equation.
    """
    backward: Any = eqn.params.get("bwd")
    if eqn.primitive.name != "custom_vjp_call" or not hasattr(backward, "f"):
        return None
    body = eqn.params["call_jaxpr"]
    plain = str([parts[1][:2] for parts in backward.transforms])
    consts = tuple(map(id, open_jaxpr(body)[1]))
    return backward.f, plain, str(body), consts, eqn.params["symbolic_zeros"]


def own_passes(eqn: JaxprEqn) -> tuple[Any, Any, Any] | None:
    """Forward and backward of an equation with a `custom_vjp` rule, traced from the rule itself,
    and the structure of what the rule gives backward.

    What `jax.vjp` makes of it computes the same, but says of every equation that it was written
    where the rule was called. None if the equation has no such rule or does not tell.
    """
    try:
        thunk = eqn.params["fwd_jaxpr_thunk"]
        count = len(eqn.invars) - eqn.params["num_consts"]
        start = getattr(thunk, "call_wrapped", thunk)(*[False] * count)
        ahead, _ = open_jaxpr(start[0] if isinstance(start, tuple) else start)
        made = (v.aval for v in ahead.outvars)
        _, _, forwarded = eqn.params["out_trees"]()
        kept = [next(made) if i is None else eqn.invars[i].aval for i in forwarded]
        types = [*kept, *(v.aval for v in eqn.outvars)]
        shapes = [jax.ShapeDtypeStruct(t.shape, t.dtype) for t in types]
        back, given = trace(lambda *xs: eqn.params["bwd"].call_wrapped(*xs), *shapes)
        return ahead, back, given
    except Exception:  # a rule with another form than JAX's usual one
        return None


def label(eqn: JaxprEqn) -> str:
    """What to call an equation: its primitive, or the function that has a custom rule."""
    body = custom_body(eqn)
    if body is None:
        return eqn.primitive.name
    name = eqn.params.get("name") or open_jaxpr(body)[0].debug_info.func_name
    return name if name.isidentifier() else eqn.primitive.name


def open_jaxpr(jaxpr: Any) -> tuple[Jaxpr, Sequence[Any]]:
    """A jaxpr, closed or not, as an open one and its constants."""
    consts = getattr(jaxpr, "consts", ())
    return getattr(jaxpr, "jaxpr", jaxpr), consts


def close(jaxpr: Any) -> ClosedJaxpr:
    """A jaxpr, closed or not, as a closed one."""
    return jaxpr if hasattr(jaxpr, "consts") else ClosedJaxpr(jaxpr, ())


def is_library(jaxpr: Any) -> bool:
    """Whether a jaxpr is of a function that JAX itself defines."""
    return _JAX in written_in(jaxpr)


def written_in(jaxpr: Any) -> str:
    """The file, and the line of it, that the function of a jaxpr is written in: "f at ...:3"."""
    info = open_jaxpr(jaxpr)[0].debug_info
    return (info.func_src_info or "") if info is not None else ""


def holds_jaxpr(value: Any) -> bool:
    """Whether a parameter is, or holds, a jaxpr."""
    return any(map(_is_jaxpr, jax.tree.leaves(value, is_leaf=_is_jaxpr)))


def saves(policy: Callable, eqn: JaxprEqn) -> bool:
    """Whether a remat policy keeps the results of an equation."""
    verdict = policy(eqn.primitive, *(v.aval for v in eqn.invars), **eqn.params)
    return verdict if isinstance(verdict, bool) else "Recompute" not in repr(verdict)


def as_array(x: Any) -> Any:
    """A constant of a jaxpr as a JAX array, which a traced index can read."""
    plain = isinstance(x, jax.Array) or getattr(x, "ndim", 0) == 0
    return x if plain else jnp.asarray(x)


def is_alias(eqn: JaxprEqn) -> bool:
    """Whether an equation gives back its operand: a conversion to the dtype it has already."""
    if eqn.primitive.name != "convert_element_type":
        return False
    before: Any = eqn.invars[0].aval
    return before.dtype == eqn.params["new_dtype"]


def is_var(atom: Atom) -> bool:
    """Whether an operand is a variable; otherwise it is a literal."""
    return isinstance(atom, Var)


def is_dropped(var: Var) -> bool:
    """Whether an output is never used."""
    return isinstance(var, DropVar)


def is_inexact(x: Any) -> bool:
    """Whether an array, variable's type or `ShapeDtypeStruct` is floating or complex."""
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.inexact)


def is_ref(aval: Any) -> bool:
    """Whether a type is that of a mutable array reference."""
    return hasattr(aval, "inner_aval")


def argument_names(closed: ClosedJaxpr) -> tuple[str, ...]:
    """Each flat argument as Python writes it: "x", "params['dense']['w']"."""
    info = open_jaxpr(closed)[0].debug_info
    names = info.arg_names if info is not None else None
    count = len(open_jaxpr(closed)[0].invars)
    return tuple(names) if names is not None and len(names) == count else ("",) * count


def outside_effects(closed: ClosedJaxpr) -> list[str]:
    """The kinds of side effects that reach out of a function; neither a debug print in any order
    counts, nor a mutable reference that the function makes for itself."""
    kinds = (type(effect).__name__ for effect in open_jaxpr(closed)[0].effects)
    return sorted({kind for kind in kinds if not kind.startswith(("Debug", "InternalMutable"))})
