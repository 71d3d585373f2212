"""The arrays of a network, put together as PyTorch's modules hold them."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from .. import tree
from ..nn.layer import Call, Layer, calls_of
from ..types import Params, State
from .layouts import Shape, stacked_leaves


class Group(NamedTuple):
    """What one module holds.

    Attributes:
        path: Where the leaves are.
        leaves: The path of each from there, and its shape.
        named: The path that a name for the module is given to.
        flattened: The shape that the layer's input had before it was flattened, if it was.
        stacked: Whether it is several layers in one, their arrays stacked.
    """

    path: str
    leaves: dict[str, Shape]
    named: str
    flattened: Shape | None
    stacked: bool

    @property
    def alone(self) -> bool:
        """Whether it is one array with a name of its own, and no module."""
        return self.named in {joined(self.path, leaf, "/") for leaf in self.leaves}


def groups_of(
    net: Layer, inputs: tuple, names: Mapping[str, str]
) -> tuple[Params, State, list[Group], set[str]]:
    """The shapes of a network's parameters and state, its groups in the order in which their layers
    are called, and the paths that may be named.

    >>> from funcnet.layers.linear import Dense
    >>> import jax.numpy as jnp
    >>> [group.leaves for group in groups_of(Dense(2), (jnp.ones((1, 3)),), {})[2]]
    [{'b': (2,), 'w': (3, 2)}]
    """
    params, state, calls = calls_of(net, *inputs)
    stacked = stacked_leaves(net, params, state, calls[0].inputs)
    turn = {"/".join(call.path): i for i, call in reversed(list(enumerate(calls)))}
    held, reached = _held(params, names)
    for path, leaf in tree.flatten(state).items():
        parent, _, name = path.rpartition("/")
        if name in ("mean", "var"):
            held.setdefault(parent, (parent, {}))[1][name] = leaf.shape
    groups = []
    for named in sorted(held, key=lambda named: turn[_deepest(named, turn)]):
        path, leaves = held[named]
        flattened = _flattened(calls, turn[path]) if path in turn else None
        deep = any(
            joined(path, leaf, "/") in stacked or len(shape) > _RANKS.get(leaf, len(shape))
            for leaf, shape in leaves.items()
        )
        groups.append(Group(path, leaves, named, flattened, deep))
    return params, state, groups, {*turn, *held, *reached}


def _held(
    params: Params, names: Mapping[str, str]
) -> tuple[dict[str, tuple[str, dict[str, Shape]]], set[str]]:
    """By the path that is named, where a group's leaves are and their shapes; and which of `names`
    reach any."""
    held: dict[str, tuple[str, dict[str, Shape]]] = {}
    first: dict[tuple[str, str], str] = {}
    for path, leaf in tree.flatten(params).items():
        parent, _, name = path.rpartition("/")
        whole, _, part = parent.rpartition("/")
        base = named = parent
        if path in names:
            named = path
        elif _is_attention(_below(params, whole)):
            base, name = whole, f"{part}/{name}"
            named = first.setdefault((whole, names[parent]), parent) if parent in names else whole
        held.setdefault(named, (base, {}))[1][name] = leaf.shape
    paths = tree.flatten(params)
    return held, {path for path in names if any(f"{p}/".startswith(f"{path}/") for p in paths)}


_RANKS = {"scale": 1, "shift": 1, "mean": 1, "var": 1, "table": 2, "w_hidden": 2, "q/w": 3}
"""The ranks that some leaves have in any layer that is not stacked."""


def _below(node: Any, path: str) -> Any:
    for name in path.split("/") if path else []:
        node = node[name]
    return node


def _is_attention(node: Any) -> bool:
    return set(node) == {"q", "k", "v", "out"}


def _deepest(path: str, calls: Collection[str]) -> str:
    """The innermost layer that the path runs through."""
    while path not in calls:
        path = path.rpartition("/")[0]
    return path


def _flattened(calls: list[Call], i: int) -> Shape | None:
    """The shape, without the batch, that the input of call i had before it was flattened."""
    for call in reversed(calls[:i]):
        if call.path == calls[i].path[: len(call.path)] or not call.inputs:
            continue
        before, after = call.inputs[0], call.output
        if not hasattr(before, "shape") or not hasattr(after, "shape"):
            return None
        if before.shape == after.shape:
            continue
        whole = before.ndim > 2 and after.ndim == 2 and before.size == after.size
        return before.shape[1:] if whole else None
    return None


def joined(start: str, end: str, by: str = ".") -> str:
    """Two parts of a name.

    >>> joined("conv", "weight"), joined("", "weight")
    ('conv.weight', 'weight')
    """
    return f"{start}{by}{end}" if start else end
