"""What is seen of a step: the scales of values, adjoints, weights and updates, by layer."""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...traces.watch.sites import Site, layers_of
from ...traces.watch.stats import STATISTICS
from ...traces.watch.watch import watcher
from ...types import Array

Figures = dict[str, dict[str, float]]
"""Figures by what they are of, then by layer, in the order of the program.

Of a layer's output: "value" (root of the mean square), "silent" (fraction of units, along the last
axis, that are 0 for all examples), "looks" (how many numbers a unit has). Of the adjoint there:
"adjoint" (norm), "element" (root of the mean square), in 16 bits "tiny" (the least normal number of
the dtype). Of both: "nonfinite" (1 where something is NaN or infinite, else 0).

Of the parameters under a path: "weights", "gradient" (roots of the mean square), "update" (norm
over that of the weights), in 16 bits "lost" (fraction of updates that change no weight). "step" has
one figure, "all": the update of all parameters together.
"""

SHOWN = 12
"""Iterations of a loop that are looked at."""


def _silent(x: Array) -> Array:
    """The fraction of units, along the last axis, that are 0 throughout."""
    return jnp.mean(jnp.all(x.reshape(-1, x.shape[-1]) == 0, axis=0).astype(x.dtype))


SEEN = {
    "norm": STATISTICS["norm"],
    "max": STATISTICS["max"],
    "silent": lambda x: _silent(x) if jnp.ndim(x) else jnp.zeros((), x.dtype),
}


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=("columns",), meta_fields=("names",)
)
@dataclass(frozen=True)
class Seen:
    """Figures that are still on the device: a pytree, a vector for each kind of them.

    Attributes:
        columns: The vectors.
        names: For each of them what it is of, and the layers.
    """

    columns: tuple[Array, ...]
    names: tuple[tuple[str, tuple[str, ...]], ...]

    @staticmethod
    def of(figures: Mapping[str, Mapping[str, Any]]) -> "Seen":
        """Figures that are scalars of JAX."""
        kept = {kind: named for kind, named in figures.items() if named}
        columns = tuple(jnp.stack([*map(jnp.asarray, named.values())]) for named in kept.values())
        return Seen(columns, tuple((kind, tuple(named)) for kind, named in kept.items()))

    def read(self) -> Figures:
        """Them as Python's numbers; waits for the device."""
        columns = jax.device_get(self.columns)
        return {
            kind: dict(zip(layers, column.tolist(), strict=True))
            for (kind, layers), column in zip(self.names, columns, strict=True)
        }


@dataclass
class Places:
    """Which places are looked at; filled while the function is traced.

    Attributes:
        sites: By what each is called, in the order of the program.
        depth: The lengths of loops that run through layers; all other loops are steps in time.
    """

    depth: frozenset[int] = frozenset()
    sites: dict[str, Site] = field(default_factory=dict)

    def __call__(self, sites: Sequence[Site]) -> dict[str, list[Site]]:
        """The places among these sites, by what they are called."""
        found = layers_of(sites) if any(site.scope for site in sites) else _parts(sites)
        self.sites = {place: some[0] for place, some in found.items() if math.prod(some[0].shape)}
        return {place: [site] for place, site in self.sites.items()}

    def iterations(self, place: str) -> list[tuple[str, tuple[int, ...]]]:
        """The place in some iterations of the loops around it: what to call it, and where it is."""
        loops = self.sites[place].loops
        if 0 in loops:
            return []
        if not loops:
            return [(place, ())]
        *outer, last = loops
        word = "" if last in self.depth else "step "
        some = dict.fromkeys(int(i) for i in np.linspace(0, last - 1, min(last, SHOWN)).round())
        return [(f"{place}[{word}{i}]", (*(n - 1 for n in outer), i)) for i in some]


def _parts(sites: Sequence[Site]) -> dict[str, list[Site]]:
    """Where nobody named a layer: a part from each product to the next, by its last result."""
    products = ("dot_general", "conv_general_dilated")
    number = 0
    numbered: list[tuple[int, Site]] = []
    for site in sites:
        number += site.op in products
        numbered.append((number, site))
    found = {}
    for _, part in groupby(numbered, key=lambda pair: pair[0]):
        arrays = [site for _, site in part if site.shape]
        if arrays:
            last = arrays[-1]
            found[f"{last.variable or last.op} ({last.name})"] = [last]
    return found


def module_names(params: Any) -> list[str]:
    """For each leaf of a tree of parameters what it belongs to: "block/dense", or its own name."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    words = [[_word(part) for part in path] for path in paths]
    return ["/".join(path[:-1] or path) or "parameters" for path in words]


def _word(part: Any) -> str:
    return str(next(getattr(part, a) for a in ("key", "name", "idx") if hasattr(part, a)))


def depths(params: Any) -> frozenset[int]:
    """How deep parameters are stacked: the loops of those lengths run through layers.

    Stacked are those that share their first axis: a bias with its matrix, or a stack of matrices.
    """
    groups: dict[str, list[tuple[int, ...]]] = {}
    for name, leaf in zip(module_names(params), jax.tree.leaves(params), strict=True):
        groups.setdefault(name, []).append(jnp.shape(leaf))
    return frozenset(
        shapes[0][0]
        for shapes in groups.values()
        if len({shape[:1] for shape in shapes}) == 1
        and (len(shapes[0]) > 2 or (shapes[0] and len(shapes) > 1))
    )


Looked = tuple[Any, Any, dict[str, dict[str, Array]]]


def looking(
    where: str, f: Callable, wrt: int, seed: Any, has_aux: bool, places: Places
) -> Callable[..., Looked]:
    """A function of the arguments of `f`: its output, the gradients of `wrt`, and what was seen."""
    see = watcher(where, f, wrt, seed, has_aux, places, SEEN, keeps_values=False)

    def run(*args: Any, **kwargs: Any) -> Looked:
        places.depth = depths(args[wrt])
        watched = see(*args, **kwargs)
        found: dict[str, dict[str, Array]] = {
            kind: {} for kind in ("value", "adjoint", "element", "silent", "looks", "tiny")
        }
        found["nonfinite"] = {}
        for place, site in places.sites.items():
            size, value, adjoint = math.prod(site.shape), *watched.seen[place]
            looks = size // site.shape[-1] if len(site.shape) > 1 else 0
            for name, at in places.iterations(place):
                # The squares of small numbers are 0 before the numbers are.
                norm = jnp.maximum(adjoint["norm"], adjoint["max"])[at]
                found["value"][name] = value["norm"][at] / math.sqrt(size)
                found["adjoint"][name] = norm
                found["element"][name] = norm / math.sqrt(size)
                found["silent"][name] = value["silent"][at]
                found["looks"][name] = jnp.float32(looks)
                finite = jnp.isfinite(value["max"]) & jnp.isfinite(adjoint["max"])
                found["nonfinite"][name] = 1.0 - finite[at]
                if jnp.finfo(site.dtype).bits < 32:
                    found["tiny"][name] = jnp.float32(jnp.finfo(site.dtype).tiny)
        return watched.output, watched.gradients, found

    return run


def moves(params: Any, gradients: Any, updates: Any = None) -> dict[str, dict[str, Array]]:
    """The figures of the parameters, of their gradients and, where there are any, of updates."""
    names = module_names(params)
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(params)]
    grads = _like(params, gradients)
    found: dict[str, dict[str, Array]] = {"weights": {}, "gradient": {}}
    steps = None if updates is None else _like(params, updates)
    if steps is not None:
        moving = [i for i, step in enumerate(steps) if step is not None]
        weights = norm(leaves[i] for i in moving)
        ratio = norm(steps[i] for i in moving) / jnp.where(weights, weights, 1)
        found |= {"step": {"all": ratio}, "update": {}, "lost": {}}
    for name in dict.fromkeys(names):
        own = [i for i, other in enumerate(names) if other == name and grads[i] is not None]
        size = sum(leaves[i].size for i in own)
        if not size:
            continue
        weights = norm(leaves[i] for i in own)
        found["weights"][name] = weights / math.sqrt(size)
        found["gradient"][name] = norm(grads[i] for i in own) / math.sqrt(size)
        if steps is not None:
            found["update"][name] = norm(steps[i] for i in own) / jnp.where(weights, weights, 1)
            narrow = [(leaves[i], steps[i]) for i in own if leaves[i].dtype.itemsize < 4]
            found["lost"] |= {name: _lost(narrow)} if narrow else {}
    return found


def _like(params: Any, tree: Any) -> list[Any]:
    """The leaves of a tree like that of the parameters; None where it has none."""
    return jax.tree.structure(params).flatten_up_to(tree)


def norm(arrays: Iterable[Array]) -> Array:
    """The root of the sum of squares, also where the squares alone would be 0 or infinite."""
    wide = [jnp.abs(x).astype(jnp.promote_types(x.dtype, jnp.float32)).real for x in arrays]
    largest = functools.reduce(jnp.maximum, (x.max(initial=0) for x in wide), jnp.float32(0))
    scale = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    total = functools.reduce(jnp.add, (jnp.sum(jnp.square(x / scale)) for x in wide), 0.0)
    return scale * jnp.sqrt(total)


def _lost(pairs: list[tuple[Array, Array]]) -> Array:
    """The fraction of the updates that are not 0 which leave the weight as it is."""
    moving, still = jnp.float32(0), jnp.float32(0)
    for weight, update in pairs:
        dtype = jnp.promote_types(weight.dtype, jnp.float32)
        wide, kind = weight.astype(dtype), jnp.finfo(weight.dtype)
        # The sum as it is stored: XLA may leave out a conversion there and back.
        new = jax.lax.reduce_precision(wide + update.astype(dtype), kind.nexp, kind.nmant)
        moving += jnp.sum(update != 0)
        still += jnp.sum((update != 0) & (new == wide))
    return still / jnp.maximum(moving, 1)
