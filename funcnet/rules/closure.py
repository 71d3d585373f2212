"""Rules whose functions close over tracers: what they close over becomes one more argument.

`jax.custom_vjp` refuses to differentiate with respect to an array that its function closes over.
Traced once, a function gives up whatever it closes over, however deep, as constants of its jaxpr.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..jaxpr import jaxprs


class Opened(NamedTuple):
    """Three functions that take what they closed over as their first argument, and that argument.

    Attributes:
        closed: The constants of the primal, of the forward and of the backward pass.
        primal: `(closed, *operands) -> output`.
        forward: `(closed, *operands) -> (output, res)`.
        backward: `(res, dy) -> (dclosed, *cotangents)`. The gradient of what was closed over is
            JAX's own of the primal, for the hand-written rule does not name it.
    """

    closed: tuple[list, list, list]
    primal: Callable
    forward: Callable
    backward: Callable


def opened(
    primal: Callable, forward: Callable, backward: Callable, operands: tuple
) -> Opened | None:
    """The functions of a rule without their closures, or None if there is no tracer in them."""
    whole, output_tree = jaxprs.trace(primal, *operands)
    ahead, kept_tree = jaxprs.trace(forward, *operands)
    output, res = kept_tree.unflatten(jaxprs.output_shapes(ahead))
    back, cotangent_tree = jaxprs.trace(backward, res, output)
    closed = (whole.consts, ahead.consts, back.consts)
    if not any(jaxprs.is_traced(const) for const in jax.tree.leaves(closed)):
        return None

    def run(closed_jaxpr: Any, consts: list, tree: Any, args: Any) -> Any:
        return tree.unflatten(jaxprs.evaluate_with(closed_jaxpr, consts, *jax.tree.leaves(args)))

    def open_primal(closed: tuple, *operands: Any) -> Any:
        return run(whole, closed[0], output_tree, operands)

    def open_forward(closed: tuple, *operands: Any) -> tuple[Any, Any]:
        output, res = run(ahead, closed[1], kept_tree, operands)
        return output, (res, closed, operands)

    def open_backward(saved: Any, dy: Any) -> tuple:
        res, closed, operands = saved
        cotangents = run(back, closed[2], cotangent_tree, (res, dy))
        _, pull = jax.vjp(lambda first: open_primal((first, *closed[1:]), *operands), closed[0])
        rest = jax.tree.map(_zeros, closed[1:])
        return (*pull(dy), *rest), *cotangents

    return Opened(closed, open_primal, open_forward, open_backward)


def _zeros(x: Any) -> Any:
    return jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.inexact) else None
