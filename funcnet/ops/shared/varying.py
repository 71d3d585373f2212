"""On many devices: whether a program may split its arrays over them; and inside `jax.shard_map`,
arrays that differ from device to device, of which a loop's carry is to say so.
"""

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from ...jaxpr.jaxprs import varying_axes
from ...types import Array


def devices() -> int:
    """Over how many devices the compiler may split the arrays of the program that is traced.

    An axis that is split must not be cut into pieces that are added up one after the other: each
    device would wait for the others. The mesh of a training step says so, by
    `jax.sharding.use_abstract_mesh`.

    >>> devices()
    1
    """
    mesh = jax.sharding.get_abstract_mesh()
    kinds = zip(mesh.axis_sizes, mesh.axis_types, strict=True)
    return prod(size for size, kind in kinds if kind == AxisType.Auto)


def axes_of(*trees: Any) -> frozenset[str]:
    """The mesh axes along which any of the arrays varies."""
    return frozenset().union(*map(varying_axes, jax.tree.leaves(trees)))


def varying(x: Array, axes: frozenset[str]) -> Array:
    """`x`, marked as varying along these axes too."""
    missing = axes - varying_axes(x)
    return jax.lax.pcast(x, tuple(missing), to="varying") if missing else x


def zeros_of(shapes: Any, *others: Any) -> Any:
    """Zeros to sum up from, varying as what they meet does; None stays.

    >>> zeros_of(jnp.ones(2), None).tolist()
    [0.0, 0.0]
    """
    axes = axes_of(*others)
    return jax.tree.map(lambda x: varying(jnp.zeros(x.shape, x.dtype), axes), shapes)
