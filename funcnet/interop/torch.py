"""PyTorch's weights as a network's own, and back.

A state_dict holds each array under the path of its module. Modules and layers are paired by name,
or else in order, and each pair is converted by its `Layout`: a dense or convolution weight is
transposed, the gates' two biases become one, the dense layer after a flattening gets its inputs in
the order (height, width, channel). PyTorch itself is not needed.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import tree
from ..nn.layer import Layer
from ..types import Params, State, require
from .groups import Group, groups_of, joined
from .layouts import Arrays, Layout, alone, is_gru_of_its_own, layouts, turned

COUNTER = "num_batches_tracked"
"""PyTorch's batch norm counts its batches; nothing here depends on it."""


def from_state_dict(
    net: Layer,
    state_dict: Mapping[str, Any],
    *inputs: Any,
    names: Mapping[str, str] | None = None,
    ignore: Collection[str] = (),
    transposed: Collection[str] = (),
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
            `rnn.l0`, `rnn.l0_reverse`, `rnn.l1`. The `q`, `k`, `v` and `out` of an attention may be
            named one by one, and those of one name share its outputs. An array named by itself, as
            in `{"token/token": "cls_token"}`, is stored as `(1, time, width)`.
        ignore: Names of arrays to leave out, such as that of a tied head.
        transposed: Names of modules whose weight is `(inputs, outputs)`, as GPT-2's are.

    Returns:
        `(params, state)`, in the dtypes that `net.init` gives; what has no place in PyTorch, such
        as a cache, is as `net.init` leaves it.

    Raises:
        ValueError: If an array is missing, extra or of another shape, or a name in `names` is not
            found; all of them are listed. If layers are stacked, as `repeat` and `ensemble` have
            them, or there is a `GRU(reset_after=False)` with a bias; without one it cannot be told
            from PyTorch's.

    >>> from funcnet.layers.linear import Dense
    >>> theirs = {"weight": np.array([[1.0, 2.0, 3.0]]), "bias": np.array([4.0])}
    >>> params, _ = from_state_dict(Dense(1), theirs, jnp.ones((1, 3)))
    >>> params["w"].tolist(), params["b"].tolist()
    ([[1.0], [2.0], [3.0]], [4.0])
    """
    read = read_state_dict(net, state_dict, inputs, names, ignore, transposed)
    faults = [*read.unknown, *read.faults]
    require(
        not faults,
        "from_state_dict",
        "the arrays of this network",
        "; ".join(faults),
        "Pair layers by `names`, and leave arrays out by `ignore`.",
    )
    return read.params, read.state


class Read(NamedTuple):
    """What became of a state_dict: parameters and state, which hold nothing if there are faults,
    and faults of the arrays and of `names`."""

    params: Params
    state: State
    faults: list[str]
    unknown: list[str]


def read_state_dict(
    net: Layer,
    state_dict: Mapping[str, Any],
    inputs: tuple,
    names: Mapping[str, str] | None,
    ignore: Collection[str],
    transposed: Collection[str],
) -> Read:
    """What `from_state_dict` makes of its arguments, and what it would refuse."""
    params, state, groups, known = groups_of(net, inputs, names or {})
    ignored = {ignore} if isinstance(ignore, str) else set(ignore)
    modules = _modules((name for name in state_dict if name not in ignored), names or {})
    pairs = _pairs("from_state_dict", groups, modules, names)
    found, faults, used = {}, [], set()
    unknown = _unknown(names, known, groups, modules)
    for group, name in pairs:
        module, layout = _placed(group, name, modules, transposed)
        entries = modules.get(module, {})
        arrays = {}
        for entry, shape in layout.entries.items():
            name = entries.get(entry)
            if name is None:
                faults.append(f"{joined(module, entry)} is missing")
                continue
            used.add(name)
            arrays[entry] = _numpy(state_dict[name])
            if arrays[entry].shape != shape:
                faults.append(f"{name} has shape {arrays[entry].shape}, not {shape}")
        if not faults:
            found |= {joined(group.path, leaf, "/"): x for leaf, x in layout.read(arrays).items()}
    faults += [
        f"{name} is extra"
        for entries in modules.values()
        for entry, name in entries.items()
        if name not in used and entry != COUNTER
    ]
    if faults:
        return Read({}, {}, faults, unknown)
    filled = _filled(params, found, {}), _filled(state, found, _first_state(net, inputs))
    return Read(*filled, faults, unknown)


def to_state_dict(
    net: Layer,
    params: Params,
    state: State,
    *inputs: Any,
    names: Mapping[str, str] | None = None,
    transposed: Collection[str] = (),
) -> dict[str, np.ndarray]:
    """PyTorch's state_dict of a network, in NumPy arrays: the inverse of `from_state_dict`.

    Args:
        net: The network.
        params: Its parameters.
        state: Its state.
        *inputs: Example inputs of `net`, arrays or `jax.ShapeDtypeStruct`s.
        names: As for `from_state_dict`.
        transposed: As for `from_state_dict`.

    Returns:
        Each array under its name, in the order in which layers are called. PyTorch takes it as
        `module.load_state_dict({k: torch.tensor(v) for k, v in arrays.items()})`.

    Raises:
        ValueError: If an array is missing, two would have one name, a path in `names` is not
            found, layers are stacked, or there is a `GRU(reset_after=False)` with a bias.

    >>> from funcnet.layers.linear import Dense
    >>> params = {"w": jnp.ones((3, 1)), "b": jnp.zeros(1)}
    >>> {k: v.shape for k, v in to_state_dict(Dense(1), params, {}, jnp.ones((1, 3))).items()}
    {'weight': (1, 3), 'bias': (1,)}
    """
    _, _, groups, known = groups_of(net, inputs, names or {})
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
        if (path := joined(group.path, leaf, "/")) not in leaves
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
        name = _renamed(group.named, names or {})
        module, layout = _placed(group, name, {}, transposed)
        own = {leaf: np.asarray(leaves[joined(group.path, leaf, "/")]) for leaf in group.leaves}
        for entry, array in layout.write(own).items():
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
            written[joined(module, COUNTER)] = np.array(0, np.int64)
    return written


_RECURRENT = re.compile(r"(?:(.*)\.)?((?:weight|bias)_(?:ih|hh|hr))_(l\d+(?:_reverse)?)")
_PROJECTION = re.compile(r"(?:(.*)\.)?([qkvo]_proj\.\w+|out_proj\.\w+)")


def _modules(arrays: Iterable[str], names: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """For each of PyTorch's modules, its entries and their full names, in order."""
    listed, named = list(arrays), set(names.values())
    joint = {name.rpartition(".")[0] for name in listed if name.endswith("in_proj_weight")}
    modules: dict[str, dict[str, str]] = {}
    for name in listed:
        recurrent, projection = _RECURRENT.fullmatch(name), _PROJECTION.fullmatch(name)
        if name.rpartition(".")[0] in named:
            module, _, entry = name.rpartition(".")
        elif recurrent:
            module, entry = joined(recurrent[1] or "", recurrent[3]), recurrent[2]
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
    groups: list[Group],
    modules: Mapping[str, Any],
    names: Mapping[str, str] | None,
) -> list[tuple[Group, str]]:
    by_name = [(group, _renamed(group.named, names or {})) for group in groups]
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
    groups: list[Group],
    modules: Mapping[str, Mapping[str, str]] | None,
) -> list[str]:
    """A fault for each path in `names` that the net does not have, and each module unknown.

    A layer that holds no arrays may have any module; None stands for modules that are yet to be.
    """
    faults = []
    holding = [group.named for group in groups]
    arrays = [name for entries in (modules or {}).values() for name in entries.values()]
    for path, module in (names or {}).items():
        if not _is_start(path, paths, "/"):
            faults.append(f"{path!r} in `names` is no path of the net{_nearest(path, paths)}")
        elif modules is None or not _is_start(path, holding, "/"):
            continue
        elif not _is_start(module, [*modules, *arrays], "."):
            faults.append(f"{module!r} in `names` is no module{_nearest(module, modules)}")
    return faults


def _is_start(name: str, whole: Collection[str], by: str) -> bool:
    return not name or any(f"{other}{by}".startswith(f"{name}{by}") for other in whole)


def _nearest(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f" (nearest: {', '.join(near)})" if near else ""


def _placed(
    group: Group,
    name: str,
    modules: Mapping[str, Mapping[str, str]],
    transposed: Collection[str],
) -> tuple[str, Layout]:
    """The module that holds the group's arrays, and how."""
    require(
        not group.stacked,
        "state_dict",
        "layers with parameters of their own",
        f"several layers stacked at {group.path or 'the top'}",
        "Convert the net with its layers one by one, and stack them with tree.stack.",
    )
    require(
        not is_gru_of_its_own(group.leaves),
        "state_dict",
        "layers that PyTorch has",
        f"GRU(reset_after=False) at {group.path or 'the top'}",
        "Its own scales the product of the state: make this one with reset_after=True.",
    )
    if group.alone:
        module, _, entry = name.rpartition(".")
        return module, alone(group.leaves, entry)
    choices = layouts(group.leaves, group.flattened)
    entries = modules.get(name, {})
    layout = next((c for c in choices if c.entries.keys() <= entries.keys()), choices[0])
    return name, turned(layout) if name in transposed else layout


_LAYER = re.compile(r"(?:(.*)\.)?(l\d+(?:_reverse)?)")


def _with_layer(module: str, entry: str) -> str:
    """The full name of an entry; a recurrent layer's number stands behind it."""
    layer = _LAYER.fullmatch(module)
    if entry.endswith(("_ih", "_hh", "_hr")):
        base, suffix = (layer[1] or "", layer[2]) if layer else (module, "l0")
        return joined(base, f"{entry}_{suffix}")
    return joined(module, entry)


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
