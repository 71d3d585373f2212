"""The derivative of one equation, as JAX derives it: what it keeps, how its adjoint goes back.

It is two small jaxprs. `forward` takes the operands and gives the results and the residuals;
`backward` takes the residuals and the cotangents of the results and gives those of the operands.
They are what `jax.vjp` of the equation runs, whatever the primitive.
"""

import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from ...jaxpr import jaxprs
from ...jaxpr.equations import Equation, derivation, without_rules
from ...jaxpr.passes import passes_of, replaced
from ...jaxpr.places import Place, places_of
from ..formula import Expr, constant, expressions


class Derivative(NamedTuple):
    """The derivative of an equation: two jaxprs, and what they say as formulas.

    Attributes:
        forward: operands -> (inexact results, residuals, other results).
        backward: (residuals, cotangents of the inexact results) -> cotangents of the operands.
        inexact: Which results have a cotangent.
        active: Which of the arguments get one.
        residuals: How many there are.
        places: Where the equations of a custom rule are written, by their id.
        formulas: The cotangent of each active argument, as a template.
        kept: Each residual, as a template.
    """

    forward: Any
    backward: Any
    inexact: tuple[int, ...]
    active: tuple[int, ...]
    residuals: int
    places: Mapping[int, tuple[Place, ...]]
    formulas: tuple[str, ...]
    kept: tuple[str, ...]

    def unpacked(self, flat: list) -> tuple[list, list]:
        """What `forward` gives, as the results in their own order, and the residuals."""
        first, last = len(self.inexact), len(self.inexact) + self.residuals
        known = dict(zip(self.inexact, flat, strict=False))
        rest = iter(flat[last:])
        count = len(flat) - self.residuals
        return [known[i] if i in known else next(rest) for i in range(count)], flat[first:last]


def tokens(e: Equation) -> list[Expr]:
    """The operands of an equation: variables as tokens, literals as they are."""
    pairs: Any = enumerate(e.operands)
    return [Expr(f"<o{i}>") if jaxprs.is_var(atom) else constant(atom.val) for i, atom in pairs]


_SHARED: dict[Hashable, Derivative] = {}


def derivative(
    e: Equation, operands: Sequence[Any], active: tuple[int, ...], own: dict[Hashable, Any]
) -> Derivative:
    """The derivative of an equation at operands like these, of which some are active.

    Args:
        e: The equation.
        operands: Those of its operands that are variables; their types count.
        active: Which of them take a gradient.
        own: What this trace has derived and no other may share.
    """
    plain = e.once(_key)
    same = plain or (None if e.is_fused else jaxprs.custom_key(e.eqn)) or e
    types = tuple((jax.typeof(x), getattr(x, "weak_type", False)) for x in operands)
    key = (same, types, active, jax.config.jax_enable_x64)  # pyright: ignore[reportAttributeAccessIssue]  # a flag made at run time
    known = own if plain is None else _SHARED
    if key not in known:
        if known is _SHARED and len(known) >= 2048:
            known.pop(next(iter(known)))
        known[key] = _derive(e, operands, active)
    return known[key]


def _derive(e: Equation, operands: Sequence[Any], active: tuple[int, ...]) -> Derivative:
    inexact = tuple(i for i, v in enumerate(e.results) if jaxprs.is_inexact(v.aval))
    others = tuple(i for i in range(len(e.results)) if i not in inexact)

    def apart(*xs: Any) -> tuple[tuple, tuple]:
        results = jaxprs.evaluate(e.alone, *xs)
        return tuple(results[i] for i in inexact), tuple(results[i] for i in others)

    forward, backward, _, residuals = passes_of(apart, operands, active)
    texts = _formulas(e, forward, backward, inexact, others, active)
    places = _places(e, forward, backward)
    return Derivative(forward, backward, inexact, active, len(residuals), places, *texts)


def _places(e: Equation, *passes: Any) -> dict[int, tuple[Place, ...]]:
    """Where a custom rule writes the equations of its two passes."""
    found = {}
    own = None if e.primal is None else jaxprs.own_passes(e.eqn)
    for derived, written in zip(passes, own or (), strict=False):
        twins = iter(jaxprs.open_jaxpr(written)[0].eqns)
        for eqn in jaxprs.open_jaxpr(derived)[0].eqns:
            same = next((twin for twin in twins if twin.primitive is eqn.primitive), None)
            if same is None:
                break
            found[id(eqn)] = places_of(same)
    return found


def _formulas(
    e: Equation, forward: Any, backward: Any, inexact: tuple, others: tuple, active: tuple
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    jaxpr = jaxprs.open_jaxpr(forward)[0]
    outvars = jaxpr.outvars
    named = [*inexact, *[None] * (len(outvars) - len(inexact) - len(others)), *others]
    arguments = set(jaxpr.invars)
    results = {
        var: Expr(f"<r{i}>")
        for var, i in zip(outvars, named, strict=True)
        if i is not None and jaxprs.is_var(var) and var not in arguments
    }
    ahead = expressions(forward, e.given(tokens(e)), known=results)
    kept = ahead[len(inexact) : len(ahead) - len(others)]
    cotangents = [Expr(f"<c{i}>") for i in inexact]
    if e.is_whole:
        given = ", ".join(x.text for x in cotangents)
        back = [Expr(f"vjp({e.label})({given})")] * len(active)
        kept = [Expr("")] * len(kept)
    else:
        back = expressions(backward, [*kept, *cotangents])
    texts = [x.text for x in back]
    if e.primal is not None:
        given = ", ".join(x.text for x in cotangents)
        pairs = zip(texts, active, strict=True)
        texts = [x if _is_read(x) else _in_words(e, given, e.slots[i]) for x, i in pairs]
    return tuple(texts), tuple(x.text for x in kept)


READ = 64
"""A formula of a custom rule that is longer, or has parts left out, gives way to its derivation."""


def _is_read(text: str) -> bool:
    return len(text) <= READ and "..." not in text


def _in_words(e: Equation, given: str, operand: int) -> str:
    """A custom rule as its author writes it: "layer_norm'(v4'): dx = r (dy - mean(dy))"."""
    text, names = derivation(e.eqn)
    first = len(e.operands) - len(names)
    said = clause(text, names[operand - first] if names and operand >= first else "")
    return f"{e.label}'({given})" + (f": {said}" if said else "")


def clause(said: str, argument: str) -> str:
    """What a derivation says of one argument; else its first line.

    >>> clause("With r = 1 / |x|: dx = r dy;  db = dy", "b")
    'db = dy'
    """
    lines = re.sub(r"\n\s*(?=d\S+ = )", "; ", said)
    parts = re.split(r"[;:]\s+(?=d\S)|;\s+|\.\s+(?=[A-Z])", " ".join(lines.split()))
    named = re.compile(rf"d{re.escape(argument)}(\[[^]]*\])? = ")
    first = said.strip().partition("\n")[0]
    return next((part for part in parts if argument and named.match(part)), first).rstrip(".;:, ")


def tangent(e: Equation, operands: Sequence[Any], tangents: Sequence[Any]) -> list[Any]:
    """The tangents of an equation's results, None for those without; `tangents` likewise."""
    moving = [i for i, t in enumerate(tangents) if t is not None]
    inexact = [i for i, v in enumerate(e.results) if jaxprs.is_inexact(v.aval)]
    if not moving or not inexact or e.label == "stop_gradient":
        return [None] * len(e.results)
    plain = without_rules(e.alone)

    def of_moving(*some: Any) -> list:
        results = jaxprs.evaluate(plain, *replaced(operands, moving, some))
        return [results[i] for i in inexact]

    points, ways = (tuple(values[i] for i in moving) for values in (operands, tangents))
    _, moved = jax.jvp(of_moving, points, ways)
    return replaced([None] * len(e.results), inexact, moved)


def _key(e: Equation) -> Hashable | None:
    """The primitive, parameters and literals; None if they hold more than plain data."""
    if e.is_fused or not all(map(_is_plain, e.eqn.params.values())):
        return None
    literals: Any = {i: x for i, x in enumerate(e.operands) if not jaxprs.is_var(x)}
    if any(getattr(x.val, "shape", ()) != () for x in literals.values()):
        return None
    said = tuple((i, str(x.val), str(x.aval)) for i, x in literals.items())
    key = (e.eqn.primitive, *sorted(e.eqn.params.items()), said)
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
