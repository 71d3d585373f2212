"""What training carries from one step to the next, and how it is kept and given away."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..types import Array, Key, Params, State, require


class TrainState(NamedTuple):
    """All that training carries from one step to the next.

    Attributes:
        step: How many steps have been taken, int32.
        params: The parameters.
        state: The network's own state, such as running averages.
        opt_state: The optimiser's state.
        key: The root of all draws in training; step `i` uses `jax.random.fold_in(key, i)`. A key
            of JAX's default kind is kept as its bits, uint32, which `jax.jit` takes faster.
    """

    step: Array
    params: Params
    state: State
    opt_state: Any
    key: Key


class Step(NamedTuple):
    """What `make_step` returns: three pure functions.

    Attributes:
        init: `(key, *inputs) -> TrainState`; the parameters are those of `net.init(key, *inputs)`.
        update: `(state, batch) -> (state, values)`, compiled; the state given is donated. `values`
            are the loss and the metrics of the batch before the update. It has `lower` and `trace`,
            as what `jax.jit` returns has them.
        evaluate: `(state, batch) -> values`, compiled, with `train=False`; the state stays valid.
    """

    init: Callable[..., TrainState]
    update: Any
    evaluate: Callable[[TrainState, tuple], dict[str, Array]]


def refuse_tied(where: str, tree: Any) -> None:
    """Raise, with the paths, if one array stands twice in the tree: it could not be donated.

    Raises:
        ValueError: If two leaves are one array.
    """
    seen: dict[int, str] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path)
        other = seen.setdefault(id(leaf), name)
        require(
            other == name,
            where,
            "each array once among the parameters and state, as donation needs",
            f"one array at {other} and at {name}",
            "Call one child of network() twice to share it, or jnp.copy one to train them apart.",
        )


def bits(key: Any) -> Key:
    """The bits of a key: as an argument a typed key costs 40 us a call, a plain array nothing."""
    default = jax.random.key(0).dtype
    return jax.random.key_data(key) if key.dtype == default else key


def typed(key: Key) -> Key:
    """The key of those bits."""
    return key if is_key(key) else jax.random.wrap_key_data(key)


def is_key(leaf: Array) -> bool:
    """Whether it is a typed key."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def own(leaf: Any) -> Array:
    """A copy with a fixed dtype: a weakly typed leaf would compile the second step again."""
    return jax.random.clone(leaf) if is_key(leaf) else jnp.array(leaf, dtype=leaf.dtype, copy=True)


def like(new: Array, old: Array) -> Array:
    """`new` in the dtype of `old`, so that a state has one type from the first step to the last."""
    return new if is_key(old) else new.astype(old.dtype)


@jax.jit
def finite(tree: Any) -> Array:
    """Whether all of a tree is."""
    parts = [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]
    return jnp.stack(parts).all() if parts else jnp.array(True)
