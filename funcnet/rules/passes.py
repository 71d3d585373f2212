"""What `rule` does to an op's three functions, so that they need not: widening, and the barrier."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Passes(NamedTuple):
    """What an op computes, what it computes and keeps, and how it goes back."""

    primal: Callable
    forward: Callable
    backward: Callable


def recomputing(passes: Passes) -> Passes:
    """Passes of which the backward one computes again what it could have kept.

    Without a barrier XLA finds that forward has computed it already, and keeps it.
    """

    @functools.wraps(passes.backward)
    def _backward(res: Any, dy: Any, **static: Any) -> tuple:
        return passes.backward(*jax.lax.optimization_barrier((res, dy)), **static)

    return passes._replace(backward=_backward)


def in_float32(passes: Passes) -> Passes:
    """Passes that compute in float32 or wider, whatever they are called with.

    The first output is rounded to the dtype of the first floating argument. An argument that is
    kept, is kept as it came. An output that is kept would be kept rounded, and no longer tell the
    slope where it is near its limit: then the arguments are kept, and it is computed again.
    """

    @functools.wraps(passes.primal)
    def _primal(*operands: Any, **static: Any) -> Any:
        return _rounded(passes.primal(*widened(operands), **static), operands)

    @functools.wraps(passes.forward)
    def _forward(*operands: Any, **static: Any) -> tuple[Any, Any]:
        wide = widened(operands)
        output, res = passes.forward(*wide, **static)
        rounded = _rounded(output, operands)
        if not any(map(is_narrow, jax.tree.leaves(operands))):
            return rounded, res
        outputs = {id(y) for y in jax.tree.leaves(output)}
        if any(id(leaf) in outputs for leaf in jax.tree.leaves(res)):
            return rounded, Again(operands, tuple(static.items()))
        return rounded, _narrowed(res, wide, operands)

    @functools.wraps(passes.backward)
    def _backward(res: Any, dy: Any, **static: Any) -> tuple:
        if isinstance(res, Again):
            operands = jax.lax.optimization_barrier(res.operands)
            res = passes.forward(*widened(operands), **dict(res.static))[1]
        elif isinstance(res, Kept):
            res = res.opened()
        return passes.backward(res, widened(dy), **static)

    return Passes(_primal, _forward, _backward)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["operands"], meta_fields=["static"]
)
@dataclass
class Again:
    """Residuals that are to be computed again, from the arguments."""

    operands: tuple
    static: tuple[tuple[str, Any], ...]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["leaves"], meta_fields=["dtypes", "tree"]
)
@dataclass
class Kept:
    """Residuals as they are kept, and the dtypes in which the backward pass takes them."""

    leaves: list
    dtypes: tuple
    tree: Any

    def opened(self) -> Any:
        """The residuals as forward gave them."""
        pairs = zip(self.leaves, self.dtypes, strict=True)
        return self.tree.unflatten(x if x.dtype == dtype else x.astype(dtype) for x, dtype in pairs)


def widened(tree: Any) -> Any:
    """A pytree with its 16-bit floating arrays in float32.

    >>> widened(jnp.zeros(2, jnp.bfloat16)).dtype, widened(1)
    (dtype('float32'), 1)
    """
    return jax.tree.map(lambda x: x.astype(jnp.float32) if is_narrow(x) else x, tree)


def is_narrow(x: Any) -> bool:
    """Whether it is a floating array of 16 bits or fewer."""
    dtype = jnp.result_type(x)
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32


def _rounded(output: Any, operands: Sequence[Any]) -> Any:
    """The output with its first array in the dtype of the first floating operand."""
    dtypes = map(jnp.result_type, jax.tree.leaves(operands))
    dtype = next((dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)), None)
    first, *others = jax.tree.leaves(output)
    if dtype is None or jnp.result_type(first) == dtype:
        return output
    return jax.tree.structure(output).unflatten([jnp.asarray(first, dtype), *others])


def _narrowed(res: Any, wide: Any, operands: Any) -> Kept:
    came = dict(zip(map(id, jax.tree.leaves(wide)), jax.tree.leaves(operands), strict=True))
    leaves, tree = jax.tree.flatten(res)
    return Kept([came.get(id(x), x) for x in leaves], tuple(x.dtype for x in leaves), tree)
