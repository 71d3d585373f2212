"""PyTorch's weights as a network's own, and back.

A state_dict holds each array under the path of its module. Modules and layers are paired by name,
or else in order, and each pair is converted by its `Layout`: a dense or convolution weight is
transposed, the gates' two biases become one, the dense layer after a flattening gets its inputs in
the order (height, width, channel). PyTorch itself is not needed.
"""

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import tree
from ..nn.layer import Call, Layer, calls_of
from ..types import Params, State, require
from .layouts import Arrays, Layout, Shape, layouts, stacked_leaves

COUNTER = "num_batches_tracked"
"""PyTorch's batch norm counts its batches; nothing here depends on it."""


def from_state_dict(
    net: Layer,
    state_dict: Mapping[str, Any],
    *inputs: Any,
    names: Mapping[str, str] | None = None,
    ignore: Collection[str] = (),
) -> tuple[Params, State]:
    """A network's parameters and state from PyTorch's, all or nothing.

    Args:
        net: The network.
        state_dict: PyTorch's `module.state_dict()`, or the same in NumPy or JAX arrays.
        *inputs: Example inputs of `net`, arrays or `jax.ShapeDtypeStruct`s.
        names: For a path of `net`, or the start of one, the name of PyTorch's module, as in
            `{"dense": "fc1", "blocks": "transformer.h"}`; what it does not mention has the same
            name on both sides. If None, layers are paired by name where every name agrees, and
            otherwise in the order in which they are called. Layer k of a recurrent module `rnn` is
            `rnn.l0`, `rnn.l0_reverse`, `rnn.l1`.
        ignore: Names of arrays to leave out, such as that of a tied head.

    Returns:
        `(params, state)`, in the dtypes that `net.init` gives; what has no place in PyTorch, such
        as a cache, is as `net.init` leaves it.

    Raises:
        ValueError: If an array is missing, extra or of another shape, or a name in `names` is not
            found; all of them are listed. If layers are stacked, as `repeat` and `ensemble` have
            them.

    >>> from funcnet.layers.linear import Dense
    >>> theirs = {"weight": np.array([[1.0, 2.0, 3.0]]), "bias": np.array([4.0])}
    >>> params, _ = from_state_dict(Dense(1), theirs, jnp.ones((1, 3)))
    >>> params["w"].tolist(), params["b"].tolist()
    ([[1.0], [2.0], [3.0]], [4.0])
    """
    params, state, groups, known = _groups(net, inputs)
    ignored = {ignore} if isinstance(ignore, str) else set(ignore)
    modules = _modules(name for name in state_dict if name not in ignored)
    pairs = _pairs("from_state_dict", groups, modules, names)
    found, faults, used = {}, _unknown(names, known, groups, modules), set()
    for group, module in pairs:
        entries = modules.get(module, {})
        layout = _layout_for(group, entries)
        arrays = {}
        for entry, shape in layout.entries.items():
            name = entries.get(entry)
            if name is None:
                faults.append(f"{_joined(module, entry)} is missing")
                continue
            used.add(name)
            arrays[entry] = _numpy(state_dict[name])
            if arrays[entry].shape != shape:
                faults.append(f"{name} has shape {arrays[entry].shape}, not {shape}")
        if not faults:
            found |= {_joined(group.path, leaf, "/"): x for leaf, x in layout.read(arrays).items()}
    faults += [
        f"{name} is extra"
        for entries in modules.values()
        for entry, name in entries.items()
        if name not in used and entry != COUNTER
    ]
    require(
        not faults,
        "from_state_dict",
        "the arrays of this network",
        "; ".join(faults),
        "Pair layers by `names`, and leave arrays out by `ignore`.",
    )
    return _filled(params, found, {}), _filled(state, found, _first_state(net, inputs))


def to_state_dict(
    net: Layer,
    params: Params,
    state: State,
    *inputs: Any,
    names: Mapping[str, str] | None = None,
) -> dict[str, np.ndarray]:
    """PyTorch's state_dict of a network, in NumPy arrays: the inverse of `from_state_dict`.

    Args:
        net: The network.
        params: Its parameters.
        state: Its state.
        *inputs: Example inputs of `net`, arrays or `jax.ShapeDtypeStruct`s.
        names: As for `from_state_dict`.

    Returns:
        Each array under its name, in the order in which layers are called. PyTorch takes it as
        `module.load_state_dict({k: torch.tensor(v) for k, v in arrays.items()})`.

    Raises:
        ValueError: If an array is missing, two would have one name, a path in `names` is not
            found, or layers are stacked.

    >>> from funcnet.layers.linear import Dense
    >>> params = {"w": jnp.ones((3, 1)), "b": jnp.zeros(1)}
    >>> {k: v.shape for k, v in to_state_dict(Dense(1), params, {}, jnp.ones((1, 3))).items()}
    {'weight': (1, 3), 'bias': (1,)}
    """
    _, _, groups, known = _groups(net, inputs)
    unknown = _unknown(names, known, groups, None)
    require(
        not unknown,
        "to_state_dict",
        "names for paths of this network",
        "; ".join(unknown),
        "A path runs from the outermost layer to the one that is meant.",
    )
    leaves = tree.flatten(params) | tree.flatten(state)
    missing = [
        path for group in groups for leaf in group.leaves
        if (path := _joined(group.path, leaf, "/")) not in leaves
    ]  # fmt: skip
    require(
        not missing,
        "to_state_dict",
        "the parameters and state of this network",
        f"none at {', '.join(missing)}",
        "Both come from net.init, or from training.",
    )
    written: dict[str, np.ndarray] = {}
    for group in groups:
        module = _renamed(group.path, names or {})
        own = {leaf: np.asarray(leaves[_joined(group.path, leaf, "/")]) for leaf in group.leaves}
        for entry, array in _layout_for(group, {}).write(own).items():
            name = _with_layer(module, entry)
            require(
                name not in written,
                "to_state_dict",
                "another module for each layer",
                f"two arrays named {name}",
                "Give each its own in `names`.",
            )
            written[name] = np.ascontiguousarray(array)
        if "var" in own:
            written[_joined(module, COUNTER)] = np.array(0, np.int64)
    return written


class _Group(NamedTuple):
    """A layer with parameters of its own: its path, its leaves' shapes, what it flattens, and
    whether it is several layers in one, their arrays stacked."""

    path: str
    leaves: dict[str, Shape]
    flattened: Shape | None
    stacked: bool


def _groups(net: Layer, inputs: tuple) -> tuple[Params, State, list[_Group], set[str]]:
    """The places of the tree that hold arrays, in the order in which their layers are called, and
    the paths of all layers."""
    params, state, calls = calls_of(net, *inputs)
    stacked = stacked_leaves(net, params, state, calls[0].inputs)
    turn = {"/".join(call.path): i for i, call in reversed(list(enumerate(calls)))}
    groups: dict[str, dict[str, Shape]] = {}
    for path, leaf in tree.flatten(params).items():
        parent, _, name = path.rpartition("/")
        whole, _, part = parent.rpartition("/")
        if _is_attention(_below(params, whole)):
            parent, name = whole, f"{part}/{name}"
        groups.setdefault(parent, {})[name] = leaf.shape
    for path, leaf in tree.flatten(state).items():
        parent, _, name = path.rpartition("/")
        if name in ("mean", "var") and parent in groups:
            groups[parent][name] = leaf.shape
    placed = sorted(groups, key=lambda path: turn[_deepest(path, turn)])
    flats = {path: _flattened(calls, turn[path]) if path in turn else None for path in placed}
    deep = {
        path: any(
            _joined(path, leaf, "/") in stacked or len(shape) > _RANKS.get(leaf, len(shape))
            for leaf, shape in leaves.items()
        )
        for path, leaves in groups.items()
    }
    found = [_Group(path, groups[path], flats[path], deep[path]) for path in placed]
    return params, state, found, {*turn, *groups}


_RANKS = {"scale": 1, "shift": 1, "table": 2, "w_hidden": 2, "q/w": 3}
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


_RECURRENT = re.compile(r"(?:(.*)\.)?((?:weight|bias)_(?:ih|hh))_(l\d+(?:_reverse)?)")
_PROJECTION = re.compile(r"(?:(.*)\.)?([qkvo]_proj\.\w+|out_proj\.\w+)")


def _modules(names: Iterator[str]) -> dict[str, dict[str, str]]:
    """For each of PyTorch's modules, its entries and their full names, in order."""
    listed = list(names)
    joint = {name.rpartition(".")[0] for name in listed if name.endswith("in_proj_weight")}
    modules: dict[str, dict[str, str]] = {}
    for name in listed:
        recurrent, projection = _RECURRENT.fullmatch(name), _PROJECTION.fullmatch(name)
        if recurrent:
            module, entry = _joined(recurrent[1] or "", recurrent[3]), recurrent[2]
        elif projection and (
            not projection[2].startswith("out_") or (projection[1] or "") in joint
        ):
            module, entry = projection[1] or "", projection[2]
        else:
            module, _, entry = name.rpartition(".")
        modules.setdefault(module, {})[entry] = name
    return modules


def _pairs(
    where: str,
    groups: list[_Group],
    modules: Mapping[str, Any],
    names: Mapping[str, str] | None,
) -> list[tuple[_Group, str]]:
    by_name = [(group, _renamed(group.path, names or {})) for group in groups]
    if names is not None or all(module in modules for _, module in by_name):
        return by_name
    require(
        len(groups) == len(modules),
        where,
        f"{len(groups)} modules with arrays, for {', '.join(group.path for group in groups)}",
        f"{len(modules)}: {', '.join(modules) or 'none'}",
        "Pair layers by `names`, and leave arrays out by `ignore`.",
    )
    return list(zip(groups, modules, strict=True))


def _renamed(path: str, names: Mapping[str, str]) -> str:
    """The module's name: the longest start of the path that is mentioned is replaced."""
    parts = path.split("/") if path else []
    for end in range(len(parts), -1, -1):
        start = "/".join(parts[:end])
        if start in names:
            return ".".join(part for part in (names[start], *parts[end:]) if part)
    return ".".join(parts)


def _unknown(
    names: Mapping[str, str] | None,
    paths: Collection[str],
    groups: list[_Group],
    modules: Collection[str] | None,
) -> list[str]:
    """A fault for each path in `names` that the net does not have, and each module unknown.

    A layer that holds no arrays may have any module; None stands for modules that are yet to be.
    """
    faults = []
    holding = [group.path for group in groups]
    for path, module in (names or {}).items():
        if not _is_start(path, paths, "/"):
            faults.append(f"{path!r} in `names` is no path of the net{_nearest(path, paths)}")
        elif modules is None or not _is_start(path, holding, "/"):
            continue
        elif not _is_start(module, modules, "."):
            faults.append(f"{module!r} in `names` is no module{_nearest(module, modules)}")
    return faults


def _is_start(name: str, whole: Collection[str], by: str) -> bool:
    return not name or any(f"{other}{by}".startswith(f"{name}{by}") for other in whole)


def _nearest(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f" (nearest: {', '.join(near)})" if near else ""


def _layout_for(group: _Group, entries: Mapping[str, str]) -> Layout:
    require(
        not group.stacked,
        "state_dict",
        "layers with parameters of their own",
        f"several layers stacked at {group.path or 'the top'}",
        "Convert the net with its layers one by one, and stack them with tree.stack.",
    )
    choices = layouts(group.leaves, group.flattened)
    return next((c for c in choices if c.entries.keys() <= entries.keys()), choices[0])


_LAYER = re.compile(r"(?:(.*)\.)?(l\d+(?:_reverse)?)")


def _with_layer(module: str, entry: str) -> str:
    """The full name of an entry; a recurrent layer's number stands behind it."""
    layer = _LAYER.fullmatch(module)
    if entry.endswith(("_ih", "_hh")):
        base, suffix = (layer[1] or "", layer[2]) if layer else (module, "l0")
        return _joined(base, f"{entry}_{suffix}")
    return _joined(module, entry)


def _joined(start: str, end: str, by: str = ".") -> str:
    return f"{start}{by}{end}" if start else end


def _numpy(array: Any) -> np.ndarray:
    """An array of any library; PyTorch's bfloat16, which NumPy lacks, goes by way of float32."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = array.float() if "bfloat16" in str(array.dtype) else array
    return np.asarray(array)


def _first_state(net: Layer, inputs: tuple) -> Arrays:
    return tree.flatten(jax.jit(lambda key: net.init(key, *inputs)[1])(jax.random.key(0)))


def _filled(shapes: Any, found: Mapping[str, Any], otherwise: Mapping[str, Any]) -> Any:
    leaves = [
        jnp.asarray(found.get(path, otherwise.get(path)), leaf.dtype)
        for path, leaf in tree.flatten(shapes).items()
    ]
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)
