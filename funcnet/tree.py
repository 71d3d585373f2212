"""Surgery on parameter trees: read, change, freeze, stack and compare parts of them by path.

A path runs from the outermost layer to the array, as in "block/dense_1/w". A pattern is a shell
pattern over paths: `*` stands for any text, slashes included.
"""

import fnmatch
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .types import require


def flatten(tree: Any) -> dict[str, Any]:
    """The leaves of a nested dict by path.

    Raises:
        ValueError: If two of them have one path.

    >>> flatten({"dense": {"w": 1, "b": 2}})
    {'dense/b': 2, 'dense/w': 1}
    """
    found: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = "/".join(str(_entry(entry)) for entry in path)
        require(
            name not in found,
            "flatten",
            "another path for each array",
            f"two arrays at {name}",
            "Leave the '/' out of the names in the tree.",
        )
        found[name] = leaf
    return found


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dict whose leaves stand at these paths.

    Raises:
        ValueError: If one path runs through another's leaf.

    >>> unflatten({"dense/w": 1, "dense/b": 2})
    {'dense': {'w': 1, 'b': 2}}
    """
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
            _free("unflatten", isinstance(node, dict), path)
        _free("unflatten", last not in node, path)
        node[last] = leaf
    return tree


def select(tree: Any, pattern: str) -> dict[str, Any]:
    """The leaves whose path matches, by path.

    Raises:
        ValueError: If no path matches.

    >>> select({"dense": {"w": 1, "b": 2}, "head": {"w": 3}}, "*/w")
    {'dense/w': 1, 'head/w': 3}
    """
    return _matching("select", tree, pattern)


def update(tree: Any, pattern: str, change: Any) -> Any:
    """`tree` with the leaves whose path matches changed; the others are the same objects.

    Args:
        tree: A nested dict.
        pattern: Which leaves.
        change: A function of a leaf, or the value that takes the leaf's place: it is broadcast to
            the leaf's shape and takes its dtype.

    Raises:
        ValueError: If no path matches, or a value does not broadcast.

    >>> params = {"dense": {"w": jnp.ones(2), "b": jnp.ones(1)}}
    >>> update(params, "*/w", 0)["dense"]["w"].tolist()
    [0.0, 0.0]
    >>> update(params, "*/w", lambda w: 3 * w)["dense"]["w"].tolist()
    [3.0, 3.0]
    """
    chosen = _matching("update", tree, pattern)

    def changed(path: str, leaf: Any) -> Any:
        if path not in chosen:
            return leaf
        return change(leaf) if callable(change) else _filled(path, leaf, change)

    return _map_with_paths(changed, tree)


def mask(tree: Any, *patterns: str) -> Any:
    """The tree of booleans that are True where a path matches one of the patterns.

    optax takes it as it is: `optax.add_decayed_weights(1e-4, mask=lambda p: mask(p, "*/w"))`.

    Raises:
        ValueError: If a pattern matches no path.

    >>> mask({"dense": {"w": 1, "b": 2}}, "*/w")
    {'dense': {'b': False, 'w': True}}
    """
    chosen = {path for pattern in patterns for path in _matching("mask", tree, pattern)}
    return _map_with_paths(lambda path, leaf: path in chosen, tree)


def labels(tree: Any, groups: Mapping[str, str], default: str) -> Any:
    """The tree of labels by which `optax.multi_transform` gives each leaf its optimiser.

    Args:
        tree: A nested dict.
        groups: For each pattern, the label of the leaves that match; the first match counts.
        default: The label of the others.

    Raises:
        ValueError: If a pattern matches no path.

    >>> labels({"dense": {"w": 1, "b": 2}}, {"*/b": "frozen"}, "adam")
    {'dense': {'b': 'frozen', 'w': 'adam'}}
    """
    chosen: dict[str, str] = {}
    for pattern, label in groups.items():
        chosen = dict.fromkeys(_matching("labels", tree, pattern), label) | chosen
    return _map_with_paths(lambda path, leaf: chosen.get(path, default), tree)


def partition(tree: Any, *patterns: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The nested dict of the leaves that match one of the patterns, and that of the others.

    Differentiate with respect to the first alone, and the second is frozen; `combine` puts both
    together again.

    Raises:
        ValueError: If a pattern matches no path.

    >>> trained, frozen = partition({"body": {"w": 1}, "head": {"w": 2, "b": 3}}, "head/*")
    >>> trained, frozen
    ({'head': {'b': 3, 'w': 2}}, {'body': {'w': 1}})
    """
    chosen = {path for pattern in patterns for path in _matching("partition", tree, pattern)}
    leaves = flatten(tree)
    return (
        unflatten({path: leaf for path, leaf in leaves.items() if path in chosen}),
        unflatten({path: leaf for path, leaf in leaves.items() if path not in chosen}),
    )


def combine(*parts: Any) -> dict[str, Any]:
    """One nested dict of the leaves of several.

    Raises:
        ValueError: If two parts have a leaf at one path.

    >>> combine({"head": {"w": 2}}, {"head": {"b": 3}, "body": {"w": 1}})
    {'head': {'w': 2, 'b': 3}, 'body': {'w': 1}}
    """
    leaves: dict[str, Any] = {}
    for part in parts:
        for path, leaf in flatten(part).items():
            _free("combine", path not in leaves, path)
            leaves[path] = leaf
    return unflatten(leaves)


def stack(trees: Sequence[Any]) -> Any:
    """One tree with a leading axis, out of several of the same structure, as `repeat` holds them.

    Raises:
        ValueError: If there is none, or their structures differ.

    >>> stack([{"w": jnp.zeros(2)}, {"w": jnp.ones(2)}])["w"].tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    shapes = {str(jax.tree.map(jnp.shape, tree)) for tree in trees}
    require(
        len(shapes) == 1,
        "stack",
        "trees of one structure and one shape for each leaf",
        "; ".join(sorted(shapes)) or "no tree",
        "Initialise them as the same layer.",
    )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def unstack(tree: Any) -> list[Any]:
    """The trees that `stack` put together.

    Raises:
        ValueError: If the leaves have no leading axis in common.

    >>> [part["w"].tolist() for part in unstack({"w": jnp.eye(2)})]
    [[1.0, 0.0], [0.0, 1.0]]
    """
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(tree)}
    require(
        len(lengths) == 1 and lengths != {()},
        "unstack",
        "leaves with one length of their leading axis",
        ", ".join(str(shape) for shape in sorted(lengths)) or "no leaf",
        "Pass the parameters of a repeat or an ensemble.",
    )
    ((length,),) = lengths
    return [jax.tree.map(lambda leaf, i=i: leaf[i], tree) for i in range(length)]


def shared(tree: Any) -> list[tuple[str, ...]]:
    """The groups of paths at which one and the same array stands.

    A step that donates its input refuses such a tree; copy the array, or tie the layers.

    >>> w = jnp.ones(2)
    >>> shared({"head": w, "table": w, "other": jnp.ones(2)})
    [('head', 'table')]
    """
    places: dict[int, list[str]] = {}
    for path, leaf in flatten(tree).items():
        if isinstance(leaf, jax.Array):
            places.setdefault(id(leaf), []).append(path)
    return [tuple(paths) for paths in places.values() if len(paths) > 1]


def _entry(entry: Any) -> Any:
    for kind in ("key", "idx", "name"):
        if hasattr(entry, kind):
            return getattr(entry, kind)
    return entry


def _map_with_paths(f: Callable[[str, Any], Any], tree: Any) -> Any:
    leaves = [f(path, leaf) for path, leaf in flatten(tree).items()]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _filled(path: str, leaf: Any, value: Any) -> Any:
    shape = jnp.shape(leaf)
    try:
        return jnp.broadcast_to(jnp.asarray(value, jnp.result_type(leaf)), shape)
    except ValueError:
        raise ValueError(
            f"update: expected a value that broadcasts to {shape} at {path}, got shape "
            f"{jnp.shape(value)}. Pass a function of the leaf for anything else."
        ) from None


def _matching(where: str, tree: Any, pattern: str) -> dict[str, Any]:
    leaves = flatten(tree)
    chosen = {path: leaf for path, leaf in leaves.items() if fnmatch.fnmatchcase(path, pattern)}
    require(
        bool(chosen),
        where,
        f"a pattern that matches one of {', '.join(leaves) or '(no path at all)'}",
        repr(pattern),
        "A path runs from the outermost layer to the array.",
    )
    return chosen


def _free(where: str, free: bool, path: str) -> None:
    require(
        free,
        where,
        "one leaf for each path, and no path through another's leaf",
        f"two things at {path}",
        "Leave one of them out.",
    )
