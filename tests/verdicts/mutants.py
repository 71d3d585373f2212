"""Mutants of a backward pass, made by rewriting its jaxpr: one wrong thing in each.

A mutant changes one equation of the backward pass (at any depth), one of its results, or one of
the residuals it is given. None is written for an op: `mutants_of` finds all that a backward pass
has.
"""

import collections
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.jaxpr import jaxprs

FLIPPED = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}


class Mutant(NamedTuple):
    """A change: its kind, where it is, and what stands in the place of what was there."""

    kind: str
    place: str
    change: Callable


def _is_float(aval) -> bool:
    return jaxprs.is_inexact(aval)


def _of_equation(eqn) -> Iterator[tuple[str, Callable]]:
    """What may stand in the place of an equation: from its operands to its result."""
    name, (result, *_) = eqn.primitive.name, eqn.outvars
    shapes = [getattr(atom.aval, "shape", ()) for atom in eqn.invars]
    if name == "select_n" and len(eqn.invars) == 3:
        yield "wrong branch", lambda which, a, b: jnp.where(which, a, b)
    if name in FLIPPED and not shapes[0] == shapes[1] == ():
        yield "wrong branch", lambda a, b: jnp.less(a, b) if name in ("gt", "ge") else a > b
    if not _is_float(result.aval):
        return
    if name in ("add", "add_any", "sub") and shapes[0] == shapes[1]:
        yield "dropped term", lambda a, b: a
        yield "dropped term", lambda a, b: b if name != "sub" else -b
        yield "sign", lambda a, b: a - b if name != "sub" else a + b
    if name == "neg":
        yield "sign", lambda a: a
    if name == "mul" and shapes[0] == shapes[1]:
        yield "dropped factor", lambda a, b: a
    if name == "transpose" and shapes[0] == result.aval.shape:
        yield "missing transpose", lambda a: a
    if name == "reduce_sum":
        axes = eqn.params["axes"]
        if int(np.prod([shapes[0][i] for i in axes])) > 1:
            yield (
                "missing sum",
                lambda a: a[tuple(0 if i in axes else slice(None) for i in range(a.ndim))],
            )
    if name == "dot_general":
        (_, (contracted,)), _ = (
            eqn.params["dimension_numbers"]
            if len(eqn.params["dimension_numbers"][0][1]) == 1
            else ((0, (None,)), 0)
        )
        square = [
            i
            for i, n in enumerate(shapes[1])
            if contracted is not None and i != contracted and n == shapes[1][contracted]
        ]
        if square and len(shapes[1]) == 2:
            yield "missing transpose", lambda a, b: jax.lax.dot_general(a, b.T, **eqn.params)


def _of_result(aval) -> Iterator[tuple[str, Callable]]:
    yield "sign", lambda g: -g
    yield "scale 1e-5", lambda g: g * (1 + 1e-5)
    yield "wrong dtype", lambda g: g.astype(jnp.bfloat16).astype(g.dtype)
    if len(aval.shape) == 2 and aval.shape[0] == aval.shape[1] > 1:
        yield "missing transpose", lambda g: g.T


def _equations(jaxpr: Any) -> list:
    """All equations, at any depth, in the order in which `rewrite` comes by."""
    found: list = []
    jaxprs.rewrite(jaxpr, lambda eqn: found.append(eqn))
    return found


def _with_equation(closed: Any, name: str, at: int, f: Callable) -> Any:
    """A jaxpr with its equation of this primitive and number among those replaced.

    Other dtypes bring conversions with them, so that numbers among all would not be the same.
    """
    seen = -1

    def inline(eqn: Any) -> Any:
        nonlocal seen
        seen += eqn.primitive.name == name
        if eqn.primitive.name != name or seen != at:
            return None
        shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
        dtype = eqn.outvars[0].aval.dtype
        return jax.make_jaxpr(lambda *xs: f(*xs).astype(dtype))(*shapes)

    return jaxprs.rewrite(closed, inline)


def mutants_of(backward: Callable, res: Any, dy: Any, stale: Any) -> list[Mutant]:
    """The mutants of a backward pass, each as a backward pass.

    Args:
        backward: From residuals and cotangents to cotangents.
        res: Residuals, as the forward pass gives them.
        dy: Cotangents.
        stale: The residuals of another call.
    """
    closed, _ = jaxprs.trace(backward, res, dy)
    found = []
    numbers: collections.Counter = collections.Counter()
    for eqn in _equations(closed):
        name = eqn.primitive.name
        for kind, f in _of_equation(eqn):
            where = name, numbers[name], f

            def change(res: Any, dy: Any, where: tuple = where) -> Any:
                closed, tree = jaxprs.trace(backward, res, dy)
                changed = _with_equation(closed, *where)
                return tree.unflatten(jaxprs.evaluate(changed, *jax.tree.leaves((res, dy))))

            found.append(Mutant(kind, f"{name} {numbers[name]}", change))
        numbers[name] += 1
    for n, aval in enumerate(closed.out_avals):
        for kind, f in _of_result(aval) if _is_float(aval) else ():

            def change(res: Any, dy: Any, n: int = n, f: Callable = f) -> Any:
                leaves, tree = jax.tree.flatten(backward(res, dy))
                return tree.unflatten([f(g) if i == n else g for i, g in enumerate(leaves)])

            found.append(Mutant(kind, f"result {n}", change))
    for n, (old, new) in enumerate(zip(*map(jax.tree.leaves, (res, stale)), strict=True)):
        if not _is_float(old) or old.shape != new.shape or not old.size:
            continue

        def change(res: Any, dy: Any, n: int = n, new: Any = np.asarray(new)) -> Any:
            leaves, tree = jax.tree.flatten(res)
            given = [new.astype(x.dtype) if i == n else x for i, x in enumerate(leaves)]
            return backward(tree.unflatten(given), dy)

        found.append(Mutant("stale residual", f"residual {n}", change))
    return found
