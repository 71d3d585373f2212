"""Which axis of which array is split over which axis of a mesh: by the path of a parameter."""

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from jax.sharding import PartitionSpec

from .. import tree
from ..types import require, shown

DATA, FSDP, MODEL = ALL = "data", "fsdp", "model"
"""Splits the batch; the batch and each parameter; parameters by rules."""

Rule = tuple[str, PartitionSpec]

LAYERS: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    ("*/[qkv]/w", (None, MODEL, None)),
    ("*/[qkv]/b", (MODEL, None)),
    ("*/out/w", (MODEL, None, None)),
    ("*/down/w", (MODEL, None)),
    ("*/out/b", ()),
    ("*/down/b", ()),
    ("*positions/table", ()),
    ("*/table", (MODEL, None)),
    ("*/w", (None, MODEL)),
    ("*/b", (MODEL,)),
)
"""How funcnet's own layers are split along "model"; the entries are those of the last axes.

Attention is split by heads and the hidden units of a feed-forward network among the devices, so
that a branch of a transformer ends in one sum over them; tables by their entries; all else that is
called `w` or `b` by outputs, which are the channels of a convolution.
"""


def specs_of(
    params: Mapping[str, Any], sizes: Mapping[str, int], rules: Sequence[Rule]
) -> dict[str, PartitionSpec]:
    """How each parameter is split, by path.

    Args:
        params: Arrays, or their shapes, by path.
        sizes: The length of each axis of the mesh.
        rules: Patterns of paths, and how what matches is split; the first match counts.

    Raises:
        ValueError: If a rule matches no path, or splits an axis that is not there or not a
            multiple of the number of devices.
    """
    for pattern, _ in rules:
        _check_matches(pattern, params)
    return {path: _spec(path, leaf.shape, sizes, rules) for path, leaf in params.items()}


def _spec(
    path: str, shape: tuple[int, ...], sizes: Mapping[str, int], rules: Sequence[Rule]
) -> PartitionSpec:
    for pattern, spec in rules:
        if fnmatch.fnmatchcase(path, pattern):
            _check_divides(pattern, spec, path, shape, sizes)
            return spec
    entries = _by_layer(path, shape, sizes.get(MODEL, 1))
    if len(shape) > 3 and entries[-1] == MODEL and all(sizes.get(axis, 1) > 1 for axis in ALL):
        # With inputs along one and outputs along the other, XLA slices gradients of channels wrong.
        joint = shape[-1] % (sizes[FSDP] * sizes[MODEL]) == 0
        return PartitionSpec(*entries[:-1], (FSDP, MODEL) if joint else MODEL)
    return _with_fsdp(entries, shape, sizes.get(FSDP, 1))


def _by_layer(path: str, shape: tuple[int, ...], devices: int) -> list[str | None]:
    """The entries of the first of `LAYERS` that fits; a stacked layer has one more axis before."""
    whole: list[str | None] = [None] * len(shape)
    for pattern, last in LAYERS:
        if len(last) <= len(shape) and fnmatch.fnmatchcase(f"/{path}", pattern):
            entries = [*whole[len(last) :], *last]
            split = [n for n, entry in zip(shape, entries, strict=True) if entry]
            fits = devices > 1 and all(n % devices == 0 for n in split)
            return entries if fits else whole
    return whole


def _with_fsdp(entries: list[str | None], shape: tuple[int, ...], devices: int) -> PartitionSpec:
    """The entries, and the longest axis that is free and divides split along "fsdp"."""
    free = [
        axis
        for axis, (n, entry) in enumerate(zip(shape, entries, strict=True))
        if entry is None and n and n % devices == 0
    ]
    if devices > 1 and free:
        longest = max(free, key=lambda axis: shape[axis])
        entries = [FSDP if axis == longest else entry for axis, entry in enumerate(entries)]
    while entries and entries[-1] is None:
        entries = entries[:-1]
    return PartitionSpec(*entries)


def state_specs(
    state: Mapping[str, Any], params: Mapping[str, Any], specs: Mapping[str, PartitionSpec]
) -> dict[str, PartitionSpec]:
    """How each array of a state of training is split, by path.

    What an optimiser keeps for a parameter ends in its path and has its shape, and is split as it
    is; all else is whole on each device.
    """
    found: dict[str, PartitionSpec] = {}
    for path, leaf in state.items():
        parts = path.split("/")
        ends = ("/".join(parts[i:]) for i in range(len(parts)))
        own = (end for end in ends if end in params and params[end].shape == leaf.shape)
        found[path] = specs.get(next(own, ""), PartitionSpec())
    return found


def axes_in(spec: PartitionSpec) -> list[tuple[str, ...]]:
    """The axes of the mesh along which each axis of an array is split."""
    return [(e,) if isinstance(e, str) else tuple(e or ()) for e in spec]


def written(spec: PartitionSpec) -> str:
    """A split as the table says it: the axis of the mesh, or . where it is not split.

    >>> written(PartitionSpec(None, "model")), written(PartitionSpec(("data", "fsdp")))
    ('. model', 'data+fsdp')
    >>> written(PartitionSpec())
    'whole'
    """
    return " ".join("+".join(axes) or "." for axes in axes_in(spec)) or "whole"


def check_rules(rules: Any, sizes: Mapping[str, int]) -> tuple[Rule, ...]:
    """The rules.

    Raises:
        TypeError: If they are no pairs of a pattern and a `PartitionSpec`.
        ValueError: If one names an axis that the mesh does not have, or one axis twice.
    """
    pairs = isinstance(rules, Sequence) and all(
        isinstance(r, tuple) and len(r) == 2 and isinstance(r[1], PartitionSpec) for r in rules
    )
    require(
        pairs and all(isinstance(pattern, str) for pattern, _ in rules),
        "Mesh",
        "rules as a list of pairs, a pattern and a PartitionSpec",
        shown(rules),
        'Write rules=[("*/mlp/up/w", PartitionSpec(None, "model"))].',
        TypeError,
    )
    for pattern, spec in rules:
        named = [axis for axes in axes_in(spec) for axis in axes]
        unknown = sorted({axis for axis in named if axis not in sizes})
        require(
            not unknown,
            "Mesh",
            f"in the rule for {pattern!r} axes of the mesh, {', '.join(sizes)}",
            ", ".join(map(repr, unknown)),
            "Name the axis in the mesh, or split along another.",
        )
        require(
            len(named) == len(set(named)),
            "Mesh",
            f"in the rule for {pattern!r} each axis of the mesh once",
            written(spec),
            "Split one axis of the array along it.",
        )
    return tuple(rules)


def _check_matches(pattern: str, params: Mapping[str, Any]) -> None:
    if any(fnmatch.fnmatchcase(path, pattern) for path in params):
        return
    last = pattern.rpartition("/")[2]
    alike = [path for path in params if path.rpartition("/")[2] == last] or list(params)
    close = difflib.get_close_matches(pattern.replace("*", "").strip("/"), alike, 3, 0)
    require(
        False,
        "Mesh",
        f"a rule that matches a parameter, such as {', '.join(close) or '(there is none)'}",
        repr(pattern),
        "A path runs from the outermost layer to the array; print(mesh.table(net, x)) lists them.",
    )


def _check_divides(
    pattern: str,
    spec: PartitionSpec,
    path: str,
    shape: tuple[int, ...],
    sizes: Mapping[str, int],
) -> None:
    axes = axes_in(spec)
    require(
        len(axes) <= len(shape),
        "Mesh",
        f"in the rule for {pattern!r} no more axes than {path} has, {len(shape)}",
        written(spec),
        "Give one entry for each axis of the array, None where it is not split.",
    )
    for n, names in zip(shape, axes, strict=False):
        devices = prod(sizes[name] for name in names)
        require(
            n % devices == 0,
            "Mesh",
            f"an axis that {devices} devices divide, by the rule for {pattern!r}",
            f"{n} in {path} of shape {shape}",
            "Split another axis, or choose another width or mesh.",
        )


def by_path(params: Any) -> dict[str, Any]:
    """The leaves of nested dicts by path."""
    return tree.flatten(params)
