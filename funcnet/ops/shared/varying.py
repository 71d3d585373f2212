"""Inside `jax.shard_map`, arrays that differ from device to device; a loop's carry is to say so."""

from typing import Any

import jax
import jax.numpy as jnp

from ...jaxpr.jaxprs import varying_axes
from ...types import Array


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
