"""What a backward pass returns, held against the arguments it belongs to."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..jaxpr.jaxprs import shape_struct, varying_axes
from ..types import require


class Operand(NamedTuple):
    """One argument of an op: its pytree structure, its leaves' shapes and dtypes, and their axes.

    The axes are those of a `jax.shard_map` along which a leaf differs from device to device.
    """

    tree: Any
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    axes: tuple[frozenset[str], ...]


@jax.tree_util.register_static
class Shapes:
    """The operands' shapes, carried to the backward pass as part of the residuals' structure."""

    def __init__(self, of: tuple[Operand, ...]) -> None:
        self.of = of

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Shapes) and self.of == other.of

    def __hash__(self) -> int:
        return hash(self.of)


def operand_shapes(operands: tuple) -> tuple[Operand, ...]:
    """What of the arguments a backward pass is checked against."""

    def one(operand: Any) -> Operand:
        leaves, tree = jax.tree.flatten(operand)
        return Operand(tree, tuple(map(shape_struct, leaves)), tuple(map(varying_axes, leaves)))

    return tuple(one(operand) for operand in operands)


def conform(
    name: str,
    arguments: tuple[str, ...],
    cotangents: Any,
    operands: tuple[Operand, ...],
    takes_gradient: list[bool],
) -> tuple:
    """The cotangents in the operands' structure and dtypes, or one sentence on what is wrong.

    Args:
        name: The op's name, for the message.
        arguments: The names of its array arguments.
        cotangents: What its backward pass returned.
        operands: The arguments' structures, shapes and dtypes.
        takes_gradient: For each argument, whether it is differentiable at all.

    Raises:
        TypeError: If there is not one cotangent for each argument, or a structure does not fit.
        ValueError: If a cotangent has not its argument's shape.
    """
    where = f"{name} backward"
    require(
        isinstance(cotangents, tuple) and len(cotangents) == len(operands),
        where,
        f"a tuple of {len(operands)} cotangents, one for each of {arguments}",
        f"{len(cotangents)}" if isinstance(cotangents, tuple) else type(cotangents).__name__,
        "Return None for an argument without a gradient.",
        TypeError,
    )
    rows = zip(arguments, cotangents, operands, takes_gradient, strict=True)
    return tuple(_conform_one(where, *row) for row in rows)


def _conform_one(where: str, name: str, given: Any, operand: Operand, wanted: bool) -> Any:
    inexact = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in operand.leaves]
    if not (wanted and any(inexact)):
        return None
    given_leaves, given_tree = jax.tree.flatten(given, is_leaf=lambda leaf: leaf is None)
    require(
        given_tree.num_leaves == operand.tree.num_leaves and given is not None,
        where,
        f"a cotangent for `{name}` of structure {operand.tree}",
        "None" if given is None else given_tree,
        f"Return it, or declare nodiff=({name!r},).",
        TypeError,
    )
    for leaf, cotangent, floating in zip(operand.leaves, given_leaves, inexact, strict=True):
        shape = None if cotangent is None else jnp.shape(cotangent)
        require(
            not floating or shape == leaf.shape,
            where,
            f"a cotangent for `{name}` of shape {leaf.shape}",
            f"shape {shape}",
            "A gradient has its argument's shape: sum over the axes that were broadcast.",
        )
    rows = zip(operand.leaves, operand.axes, given_leaves, inexact, strict=True)
    return operand.tree.unflatten(
        _along(jnp.asarray(cotangent, leaf.dtype), axes) if floating else None
        for leaf, axes, cotangent, floating in rows
    )


def _along(cotangent: Any, axes: frozenset[str]) -> Any:
    """Summed over the devices that share the argument, or spread over those that do not."""
    own = varying_axes(cotangent)
    if extra := tuple(sorted(own - axes)):
        cotangent = jax.lax.psum(cotangent, extra)
    if missing := tuple(sorted(axes - own)):
        cotangent = jax.lax.pcast(cotangent, missing, to="varying")
    return cotangent
