"""Parameters that two places of a network share."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .. import tree
from ..types import Key, Params, State, require, shown
from .layer import Layer


def tie(net: Layer, sources: Mapping[str, str | tuple[str, Callable]]) -> Layer:
    """`net` with some of its parameters taken from others of its own: one array, two uses.

    A tied parameter is no longer in the tree, and its gradient is added to its source's. (A child
    called twice shares its parameters already, and `net.params` reaches any of them.)

    Args:
        net: Any network.
        sources: For each path to tie, the path to take instead, alone or with a function of the
            source, as in `{"head/w": ("tok/table", jnp.transpose)}`.

    Returns:
        The network with fewer parameters and the same name.

    Raises:
        TypeError: If `net` is no layer, or `sources` does not give a path, or a path and a
            function, for each path.
        ValueError: At init, if a path names no parameter, a source is tied itself, or the shapes
            differ.

    >>> from funcnet.nn.combine import serial
    >>> from funcnet.layers.linear import Dense
    >>> net = tie(serial(Dense(3), Dense(3)), {"dense_1/w": ("dense/w", jnp.transpose)})
    >>> params, _ = net.init(jax.random.key(0), jnp.ones((2, 3)))
    >>> list(tree.flatten(params))
    ['dense/b', 'dense/w', 'dense_1/b']

    Reference: Press & Wolf, "Using the Output Embedding to Improve Language Models", 2017,
    section 3.
    """
    require(
        isinstance(net, Layer),
        "tie",
        "a Layer",
        shown(net),
        "A layer is made by a call, as in Dense(10).",
        TypeError,
    )
    pairs = _pairs(sources)

    def init(key: Key, *inputs: Any) -> tuple[Params, State]:
        params, state = net.init(key, *inputs)
        leaves = tree.flatten(params)
        for path, (source, change) in pairs.items():
            _check(path, source, change, leaves, pairs)
        own = {path: leaf for path, leaf in leaves.items() if path not in pairs}
        return tree.unflatten(own), state

    def apply(
        params: Params, state: State, *inputs: Any, train: bool = False, key: Key | None = None
    ) -> tuple[Any, State]:
        leaves = tree.flatten(params)
        for source in {source for source, _ in pairs.values()}:
            _known("tie", source, leaves)
        filled = {path: change(leaves[source]) for path, (source, change) in pairs.items()}
        return net.apply(tree.unflatten(leaves | filled), state, *inputs, train=train, key=key)

    return Layer(init, apply, net.name)


def _pairs(sources: Any) -> dict[str, tuple[str, Callable]]:
    """For each path, its source's and what to do to it."""
    fits, pairs = isinstance(sources, Mapping), {}
    for path, source in sources.items() if fits else ():
        pairs[path] = pair = source if isinstance(source, tuple) else (source, _same)
        fits &= isinstance(path, str)
        fits &= len(pair) == 2 and isinstance(pair[0], str) and callable(pair[1])
    require(
        fits,
        "tie",
        "for each path to tie another path, or a pair of one and a function",
        repr(sources),
        'Write {"head/w": "tok/table"}, or {"head/w": ("tok/table", jnp.transpose)}.',
        TypeError,
    )
    return pairs


def _same(x: Any) -> Any:
    return x


def _known(where: str, path: str, leaves: Mapping[str, Any]) -> None:
    require(
        path in leaves,
        where,
        f"a path among {', '.join(leaves)}",
        repr(path),
        "A path runs from the outermost layer to the array.",
    )


def _check(
    path: str, source: str, change: Callable, leaves: Mapping[str, Any], pairs: Mapping[str, Any]
) -> None:
    _known("tie", path, leaves)
    _known("tie", source, leaves)
    require(
        source not in pairs,
        "tie",
        "a source that is not tied itself",
        repr(source),
        "Tie both to the same third parameter.",
    )
    shape = jax.eval_shape(change, leaves[source]).shape
    require(
        shape == jnp.shape(leaves[path]),
        "tie",
        f"a source of shape {jnp.shape(leaves[path])} for {path}",
        f"{source} of shape {shape}",
        "Give a function with it, as in (source, jnp.transpose).",
    )
