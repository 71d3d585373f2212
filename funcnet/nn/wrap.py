"""One layer made into another: with a shortcut, several times over, or with less to keep.

They add no level to the tree: the parameters are the inner layer's own, stacked where there are
several.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..types import Key, Params, State, is_whole, require, shown
from .layer import Layer, lift


def residual(layer: Layer | Callable) -> Layer:
    """`x + layer(x)`; its parameters are the layer's own. Further inputs go to the layer alone.

    Raises:
        TypeError: If `layer` is neither a layer nor a function of arrays.
        ValueError: When applied, if the layer changes the shape.

    >>> float(residual(jnp.sin)({}, 0.5) - jnp.sin(0.5))
    0.5

    Reference: He et al., "Deep Residual Learning for Image Recognition", 2016, equation 1.
    """
    inner = lift(layer, "residual")

    def apply(
        params: Params,
        state: State,
        x: Any,
        *rest: Any,
        train: bool = False,
        key: Key | None = None,
    ) -> tuple[Any, State]:
        output, state = inner.apply(params, state, x, *rest, train=train, key=key)
        _same_shape("residual", x, output, "Project the input with network() instead.")
        return x + output, state

    return Layer(inner.init, apply, inner.name)


def repeat(layer: Layer | Callable, n: int) -> Layer:
    """`layer` applied `n` times, each time with its own parameters, stacked along axis 0.

    One `jax.lax.scan` runs them, so the time to compile does not grow with the depth. State is
    stacked likewise. Inputs after the first go unchanged to every copy.

    Raises:
        TypeError: If `layer` is neither a layer nor a function of arrays.
        ValueError: If `n` is no whole number of 1 or more; when applied, if the layer changes the
            shape or dtype of its input, or the parameters are not stacked `n` deep.

    >>> from funcnet.layers.linear import Dense
    >>> params, state = repeat(Dense(4), 8).init(jax.random.key(0), jnp.ones((2, 4)))
    >>> params["w"].shape
    (8, 4, 4)
    """
    inner = _many("repeat", layer, n)

    def init(key: Key, x: Any, *rest: Any) -> tuple[Params, State]:
        return jax.vmap(lambda k: inner.init(k, x, *rest))(_keys(key, n))

    def apply(
        params: Params,
        state: State,
        x: Any,
        *rest: Any,
        train: bool = False,
        key: Key | None = None,
    ) -> tuple[Any, State]:
        _stacked("repeat", (params, state), n)
        keys = None if key is None else _keys(key, n)

        def body(x: Any, copy: tuple) -> tuple[Any, State]:
            own, carried, key = copy
            output, carried = inner.apply(own, carried, x, *rest, train=train, key=key)
            _same_kind("repeat", x, output)
            return output, carried

        return jax.lax.scan(body, x, (params, state, keys), length=n)

    return Layer(init, apply, inner.name)


def ensemble(layer: Layer | Callable, n: int) -> Layer:
    """`n` copies with their own parameters on the same inputs; outputs are stacked along axis 0.

    Raises:
        TypeError: If `layer` is neither a layer nor a function of arrays.
        ValueError: If `n` is no whole number of 1 or more; when applied, if the parameters are not
            stacked `n` deep.

    >>> from funcnet.layers.linear import Dense
    >>> five = ensemble(Dense(3), 5)
    >>> params, state = five.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> five(params, jnp.ones((2, 4))).shape
    (5, 2, 3)
    """
    inner = _many("ensemble", layer, n)

    def init(key: Key, *inputs: Any) -> tuple[Params, State]:
        return jax.vmap(lambda k: inner.init(k, *inputs))(_keys(key, n))

    def apply(
        params: Params, state: State, *inputs: Any, train: bool = False, key: Key | None = None
    ) -> tuple[Any, State]:
        _stacked("ensemble", (params, state), n)
        keys = None if key is None else _keys(key, n)

        def one(params: Params, state: State, key: Key | None) -> tuple[Any, State]:
            return inner.apply(params, state, *inputs, train=train, key=key)

        return jax.vmap(one, axis_size=n)(params, state, keys)

    return Layer(init, apply, inner.name)


def remat(layer: Layer | Callable, policy: Callable | None = None) -> Layer:
    """`layer` with its insides computed again in the backward pass instead of kept.

    Args:
        layer: What to wrap.
        policy: Which values to keep all the same; see `jax.checkpoint_policies`. Ops with
            hand-written rules are kept by name: `save_only_these_names("dense", "conv")`.

    Raises:
        TypeError: If `layer` is neither a layer nor a function of arrays, or `policy` no policy.

    >>> float(jax.grad(lambda x: remat(jnp.sin)({}, x))(0.0))
    1.0

    Reference: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
    """
    inner = lift(layer, "remat")
    require(
        policy is None or callable(policy),
        "remat",
        "a policy of jax.checkpoint_policies",
        shown(policy),
        'Pass one such as save_only_these_names("dense").',
        TypeError,
    )

    def apply(
        params: Params, state: State, *inputs: Any, train: bool = False, key: Key | None = None
    ) -> tuple[Any, State]:
        def run(params: Params, state: State, inputs: Any, key: Key | None) -> tuple[Any, State]:
            return inner.apply(params, state, *inputs, train=train, key=key)

        return jax.checkpoint(run, policy=policy)(params, state, inputs, key)

    return Layer(inner.init, apply, inner.name)


def _many(where: str, layer: Layer | Callable, n: int) -> Layer:
    require(
        is_whole(n),
        where,
        "a whole number of copies, 1 or more",
        shown(n),
        f"Write {where}(layer, 8) for eight.",
    )
    return lift(layer, where)


def _keys(key: Key, n: int) -> Key:
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(n))


def _stacked(where: str, tree: Any, n: int) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        require(
            jnp.ndim(leaf) >= 1 and leaf.shape[0] == n,
            where,
            f"parameters and state stacked {n} deep along axis 0",
            f"shape {jnp.shape(leaf)} at {jax.tree_util.keystr(path[1:])}",
            "Use what this network's own net.init(key, x) returned.",
        )


def _same_kind(where: str, x: Any, output: Any) -> None:
    given, made = (jax.tree.map(lambda leaf: str(jax.typeof(leaf)), tree) for tree in (x, output))
    require(
        given == made,
        where,
        f"a layer that keeps the shape and dtype of its input, {given}",
        f"an output of {made}",
        "A layer that is repeated is fed its own output; project or cast outside of it.",
    )


def _same_shape(where: str, x: Any, output: Any, remedy: str) -> None:
    require(
        jnp.shape(x) == jnp.shape(output),
        where,
        f"a layer that keeps the shape {jnp.shape(x)}",
        f"an output of shape {jnp.shape(output)}",
        remedy,
    )
