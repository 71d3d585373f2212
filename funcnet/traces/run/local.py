"""The local rule of one equation, as JAX derives it: what it keeps, and how its adjoint goes back.

A rule is two small jaxprs. `forward` takes the operands and gives the results and the residuals;
`backward` takes the residuals and the cotangents of the results and gives those of the operands.
They are what `jax.vjp` of the equation runs, whatever the primitive.
"""

import functools
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...jaxpr import jaxprs, steps
from ..formula import Expr, constant, expressions
from ..record.rows import Source
from ..source.names import source
from ..source.places import places_of


class Unit(NamedTuple):
    """What is differentiated as a whole: a closed jaxpr of operands, named after its equation.

    Attributes:
        closed: A function of the operands that are variables.
        slots: Which operands of the equation those are.
        literals: The operands as expressions, the variables as tokens.
        label: What to call it.
        key: What makes two units the same; None if they cannot be compared.
        private: Whether the key says so within one trace alone.
    """

    closed: Any
    slots: tuple[int, ...]
    literals: tuple[Expr, ...]
    label: str
    key: Hashable | None
    private: bool = False


class Rule(NamedTuple):
    """The local rule of a unit: two jaxprs, and what they say as formulas.

    Attributes:
        forward: operands -> (inexact results, residuals, other results).
        backward: (residuals, cotangents of the inexact results) -> cotangents of the operands.
        inexact: Which results have a cotangent.
        active: Which of the unit's arguments get one.
        residuals: How many there are.
        formulas: The cotangent of each active argument, as a template.
        kept: Each residual, as a template.
        counted: Whether each residual is worth showing: neither a literal nor a constant.
        sources: Where the equations of a custom rule are written, by their id.
    """

    forward: Any
    backward: Any
    inexact: tuple[int, ...]
    active: tuple[int, ...]
    residuals: int
    formulas: tuple[str, ...]
    kept: tuple[str, ...]
    counted: tuple[bool, ...]
    sources: dict[int, Source | None]

    def unpacked(self, flat: list) -> tuple[list, list]:
        """What `forward` gives, as the results in their own order, and the residuals."""
        first, last = len(self.inexact), len(self.inexact) + self.residuals
        known = dict(zip(self.inexact, flat, strict=False))
        rest = iter(flat[last:])
        count = len(flat) - self.residuals
        return [known[i] if i in known else next(rest) for i in range(count)], flat[first:last]


def unit_of(step: steps.Step) -> Unit:
    """A step as a unit."""
    slots, closed = steps.step_jaxpr(step)
    fused = len(step.eqns) > 1
    label = "refs" if fused else jaxprs.label(step.eqn)
    key = None if fused else _key(step.eqn)
    custom = None if fused else jaxprs.custom_key(step.eqn)
    private = key is None and custom is not None
    return Unit(closed, slots, tuple(tokens(step)), label, custom if private else key, private)


def holds_jaxprs(closed: Any) -> bool:
    """Whether some equation runs others that are no rule: a loop, a solver, a mapped function."""
    eqns = jaxprs.open_jaxpr(closed)[0].eqns
    return any(jaxprs.custom_body(e) is None and any(jaxprs.sub_jaxprs(e)) for e in eqns)


def tokens(step: steps.Step) -> list[Expr]:
    """The operands of a step: variables as tokens, literals as they are."""
    pairs: Any = enumerate(step.operands)
    return [Expr(f"<o{i}>") if jaxprs.is_var(atom) else constant(atom.val) for i, atom in pairs]


def placeholders(count: int) -> tuple[Expr, ...]:
    """Tokens for this many operands."""
    return tuple(Expr(f"<o{i}>") for i in range(count))


def expression(unit: Unit) -> str:
    """What a unit computes, as a template."""
    eqns = jaxprs.open_jaxpr(unit.closed)[0].eqns
    if len(eqns) > 1 or jaxprs.custom_body(eqns[0]) is not None:
        return f"{unit.label}({', '.join(x.text for x in unit.literals)})"
    outputs = expressions(unit.closed, [unit.literals[i] for i in unit.slots])
    return outputs[0].text.removesuffix("[0]" if len(outputs) > 1 else "") if outputs else ""


Rules = dict[Hashable, "Rule"]


def rule_of(unit: Unit, operands: Sequence[Any], active: tuple[int, ...], own: Rules) -> Rule:
    """The rule of a unit for operands like these, of which some arguments are active.

    Args:
        unit: The unit.
        operands: Its operands; their types count.
        active: Which of them take a gradient.
        own: The rules that this trace has derived, for those that no other trace may share.
    """
    if unit.key is None:
        return _derive(unit, operands, active)
    types = tuple(_type(x) for x in operands)
    key = (unit.key, types, active, jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]  # a flag made at run time
    known = own if unit.private else _SHARED
    if key not in known:
        if len(known) >= 2048:
            known.pop(next(iter(known)))
        known[key] = _derive(unit, operands, active)
    return known[key]


_SHARED: Rules = {}


def _derive(unit: Unit, operands: Sequence[Any], active: tuple[int, ...]) -> Rule:

    inexact = tuple(i for i, v in enumerate(unit.closed.out_avals) if jaxprs.is_inexact(v))
    others = tuple(i for i in range(len(unit.closed.out_avals)) if i not in inexact)

    def ahead(*xs: Any) -> tuple:
        def of_active(*some: Any) -> tuple:
            filled = list(xs)
            for i, x in zip(active, some, strict=True):
                filled[i] = x
            results = jaxprs.evaluate(unit.closed, *filled)
            return tuple(results[i] for i in inexact), tuple(results[i] for i in others)

        results, pull, rest = jax.vjp(of_active, *(xs[i] for i in active), has_aux=True)
        return results, pull, rest

    forward, shapes = jax.make_jaxpr(ahead, return_shape=True)(*operands)
    residuals, tree = jax.tree.flatten(shapes[1])

    def back(residuals: list, cotangents: tuple) -> tuple:
        return tree.unflatten(residuals)(cotangents)

    backward = jax.make_jaxpr(back)(residuals, shapes[0])
    texts = _formulas(unit, forward, backward, inexact, others, active)
    return Rule(
        forward,
        backward,
        inexact,
        active,
        len(residuals),
        *texts,
        _sources(unit, forward, backward),
    )


def _sources(unit: Unit, *passes: Any) -> dict[int, Source | None]:
    """The lines of a custom rule that the equations of its two passes come from."""
    eqns = jaxprs.open_jaxpr(unit.closed)[0].eqns
    if len(eqns) > 1 or jaxprs.custom_body(eqns[0]) is None:
        return {}
    found = {}
    for derived, own in zip(passes, jaxprs.own_passes(eqns[0]) or (), strict=False):
        written = iter(jaxprs.open_jaxpr(own)[0].eqns)
        for eqn in jaxprs.open_jaxpr(derived)[0].eqns:
            same = next((e for e in written if e.primitive is eqn.primitive), None)
            if same is None:
                break
            found[id(eqn)] = source(places_of(same))
    return found


def _formulas(
    unit: Unit, forward: Any, backward: Any, inexact: tuple, others: tuple, active: tuple
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[bool, ...]]:
    jaxpr = jaxprs.open_jaxpr(forward)[0]
    outvars = jaxpr.outvars
    named = [*inexact, *[None] * (len(outvars) - len(inexact) - len(others)), *others]
    inputs = [unit.literals[i] for i in unit.slots]
    arguments = set(jaxpr.invars)
    results = {
        var: Expr(f"<r{i}>")
        for var, i in zip(outvars, named, strict=True)
        if i is not None and jaxprs.is_var(var) and var not in arguments
    }
    ahead = expressions(forward, inputs, known=results)
    kept = ahead[len(inexact) : len(ahead) - len(others)]
    cotangents = [Expr(f"<c{i}>") for i in inexact]
    if holds_jaxprs(unit.closed):
        given = ", ".join(x.text for x in cotangents)
        back = [Expr(f"vjp({unit.label})({given})")] * len(active)
        kept = [Expr("")] * len(kept)
    else:
        back = expressions(backward, [*kept, *cotangents])
    counted = tuple("<" in x.text for x in kept)
    return tuple(x.text for x in back), tuple(x.text for x in kept), counted


def tangent(unit: Unit, operands: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    """The tangents of a unit's results, None for those without; `tangents` likewise."""
    moving = [i for i, t in enumerate(tangents) if t is not None]
    results = unit.closed.out_avals
    inexact = [i for i, v in enumerate(results) if jaxprs.is_inexact(v)]
    if not moving or not inexact or unit.label == "stop_gradient":
        return [None] * len(results)
    plain = steps.without_rules(unit.closed)

    def of_moving(*some: Any) -> list:
        filled = list(operands)
        for i, x in zip(moving, some, strict=True):
            filled[i] = x
        results = jaxprs.evaluate(plain, *filled)
        return [results[i] for i in inexact]

    points, ways = (tuple(values[i] for i in moving) for values in (operands, tangents))
    _, moved = jax.jvp(of_moving, points, ways)
    found = dict(zip(inexact, moved, strict=True))
    return [found.get(i) for i in range(len(results))]


def _key(eqn: Any) -> Hashable | None:
    """The equation's primitive, parameters and literals; None if they hold more than plain data."""
    parts: list[Hashable] = [eqn.primitive]
    for name, value in sorted(eqn.params.items()):
        if not _is_plain(value):
            return None
        parts.append((name, value))
    for atom in eqn.invars:
        if not jaxprs.is_var(atom):
            if getattr(atom.val, "shape", ()) != ():
                return None
            parts.append((str(atom.val), str(atom.aval)))
        else:
            parts.append(None)
    key = tuple(parts)
    try:
        hash(key)
    except TypeError:
        return None
    return key


_PLAIN_MODULES = ("numpy", "jax", "jaxlib", "ml_dtypes", "builtins", "enum")


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_plain, value))
    if (callable(value) and not isinstance(value, type)) or jaxprs.holds_jaxpr(value):
        return False
    return type(value).__module__.split(".")[0] in _PLAIN_MODULES


def _type(x: Any) -> Hashable:
    return jax.typeof(x), getattr(x, "weak_type", False)


@functools.lru_cache(maxsize=256)
def zeros(shape: tuple[int, ...], dtype: Any) -> Any:
    """An array of zeros, made once."""
    return jnp.zeros(shape, dtype)
