"""A mesh of devices: what is split along it, and how a step is run on it.

    mesh = Mesh({"data": 4, "model": 2})
    step = make_step(net, criterion, optimizer, mesh=mesh)
    state = step.init(jax.random.key(0), x)
    state, values = step.update(state, mesh.place((x, y)))

The engine is JAX's own: a step is one program over all devices, compiled once, whose arrays say
how they are split. So it computes what one device would, over the whole batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec, use_abstract_mesh

from ..types import is_whole, require, shown
from .rules import DATA, FSDP, MODEL, Rule, by_path, check_rules, specs_of, state_specs
from .table import Layout, held

NAMES = (DATA, FSDP, MODEL)


@dataclass(frozen=True)
class Mesh:
    """Devices in rows and columns, and what is split along them.

    - `data`: the batch is split; parameters are whole on each device (data parallel).
    - `fsdp`: the batch is split, and each parameter along its longest axis that divides, and what
      the optimiser keeps for it (fully sharded; ZeRO, stage 3).
    - `model`: parameters are split by rules (tensor parallel): those of funcnet's own layers,
      unless one of `rules` says otherwise.

    Nothing is computed and no device is asked for until it is used, so the table of a mesh may be
    looked at on any machine.

    Args:
        axes: The number of devices along each axis; one of them may be -1, for all that are left.
        rules: Pairs of a pattern over paths (as in `fn.tree`) and a `jax.sharding.PartitionSpec`;
            the first match counts, and is the whole of how such a parameter is split.

    Raises:
        ValueError: If an axis has another name or no length, -1 does not come out even, or a rule
            names another axis. From what uses it, if it is larger than there are devices, a rule
            matches no parameter, or splits an axis that does not divide.
        TypeError: If the axes are no dict, or the rules no pairs.

    >>> mesh = Mesh({"data": 4, "model": 2})
    >>> mesh
    Mesh({'data': 4, 'model': 2})
    >>> from funcnet.layers.linear import Dense
    >>> print(mesh.table(Dense(6), jax.ShapeDtypeStruct((8, 3), "float32")))
    mesh data 4 x model 2
    parameter     shape  split    bytes  on each device
    ------------  -----  -------  -----  --------------
    b             6      model     24 B            12 B
    w             3 x 6  . model   72 B            36 B
    = parameters                   96 B            48 B
    = all                          96 B            48 B
    <BLANKLINE>
    Each of the 8 devices holds 50.0% of the whole.

    Reference: Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter
    Models", 2020, section 5; Shoeybi et al., "Megatron-LM", 2019, section 3.
    """

    axes: Mapping[str, int]
    rules: Sequence[Rule] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", _sizes(self.axes))
        object.__setattr__(self, "rules", check_rules(self.rules, self.axes))

    def __repr__(self) -> str:
        return f"Mesh({dict(self.axes)}{', rules=...' if self.rules else ''})"

    def __hash__(self) -> int:
        return hash((tuple(self.axes.items()), self.rules))

    @staticmethod
    def parse(text: str) -> "Mesh":
        """The mesh that "data=4,model=2" means.

        Raises:
            ValueError: If it means none.

        >>> Mesh.parse("data=4,model=2")
        Mesh({'data': 4, 'model': 2})
        """
        axes: dict[str, int] = {}
        for part in text.split(","):
            name, equals, number = (word.strip() for word in part.partition("="))
            whole = number.removeprefix("-").isdecimal() and name not in axes
            require(
                bool(equals) and whole,
                "mesh",
                "axes and how many devices each has, as in data=4,model=2",
                repr(text),
                f"The axes are {', '.join(NAMES)}; -1 is all devices that are left.",
            )
            axes[name] = int(number)
        return Mesh(axes)

    @property
    def jax_mesh(self) -> jax.sharding.Mesh:
        """The devices, as JAX has them.

        Raises:
            ValueError: If there are not so many.
        """
        return _on_devices(tuple(self.axes.items()))

    @property
    def parts(self) -> int:
        """Into how many parts a batch is split."""
        return self.axes.get(DATA, 1) * self.axes.get(FSDP, 1)

    def specs(self, state: Any) -> Any:
        """How each array is split: the tree with a `PartitionSpec` at each leaf.

        Args:
            state: Parameters, or a state of training; arrays or their shapes.

        Raises:
            ValueError: If a rule matches no parameter, or splits an axis that does not divide.

        >>> specs = Mesh({"fsdp": 2}).specs({"w": jax.ShapeDtypeStruct((3, 4), "float32")})
        >>> specs == {"w": PartitionSpec(None, "fsdp")}
        True
        """
        params = by_path(getattr(state, "params", state))
        specs = specs_of(params, self.axes, self.rules)
        found = state_specs(by_path(state), params, specs)
        return jax.tree.unflatten(jax.tree.structure(state), found.values())

    def shardings(self, state: Any) -> Any:
        """The same as `jax.sharding.NamedSharding`s, which JAX's functions and checkpoints take.

        Raises:
            ValueError: As for `specs`, or if there are fewer devices.
        """
        mesh = self.jax_mesh
        leaf = _is_spec
        return jax.tree.map(lambda s: NamedSharding(mesh, s), self.specs(state), is_leaf=leaf)

    def of_batch(self, shape: tuple[int, ...], lead: int = 0) -> NamedSharding:
        """How an array of a batch is split: along its first axis, unless that does not divide."""
        axes = tuple(name for name in (DATA, FSDP) if name in self.axes)
        splits = len(shape) > lead and shape[lead] > 0 and shape[lead] % self.parts == 0
        spec = PartitionSpec(*[None] * lead, axes) if splits and axes else PartitionSpec()
        return NamedSharding(self.jax_mesh, spec)

    def rows(self, examples: int) -> np.ndarray:
        """Which examples of a batch the devices of this process compute, in order.

        >>> Mesh({"data": 1}).rows(4).tolist()
        [0, 1, 2, 3]
        """
        indices = self.of_batch((examples,)).addressable_devices_indices_map((examples,))
        parts = [np.arange(examples)[index] for index in indices.values()]
        return np.unique(np.concatenate(parts))

    def place(self, batch: Any, *, lead: int = 0, of: int | None = None) -> Any:
        """A batch on the devices: each gets the examples that it computes, and no other.

        One whose number of examples does not divide is whole on each device, and so computed
        exactly. With several processes each gives the whole batch, or with `of` its own rows.

        Args:
            batch: Any pytree of arrays, each with the examples along its first axis.
            lead: How many axes stand before that of the examples, as of batches that are stacked.
            of: The number of examples of the whole batch, where this is what `rows(of)` are of it.

        >>> Mesh({"data": 1}).place((np.ones((4, 2)),))[0].shape
        (4, 2)
        """

        def placed(leaf: Any) -> Any:
            if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
                return leaf
            if jax.process_count() == 1:
                return jax.device_put(leaf, self.of_batch(np.shape(leaf), lead))
            part = np.asarray(leaf)
            part = part.astype(jax.dtypes.canonicalize_dtype(part.dtype), copy=False)
            shape = part.shape if of is None else (*part.shape[:lead], of, *part.shape[lead + 1 :])
            split = self.of_batch(shape, lead)
            if of is not None:
                return jax.make_array_from_process_local_data(split, part, shape)
            return jax.make_array_from_callback(shape, split, lambda index: part[index])

        return jax.tree.map(placed, batch)

    def spread(self, batch: Any, *, lead: int = 0) -> Any:
        """The batch inside a compiled function, split as `place` splits it."""

        def split(leaf: Any) -> Any:
            return jax.lax.with_sharding_constraint(leaf, self.of_batch(np.shape(leaf), lead))

        return jax.tree.map(split, batch)

    def keep(self, state: Any) -> Any:
        """The state inside a compiled function, split as it is to be."""
        return jax.lax.with_sharding_constraint(state, self.shardings(state))

    def whole(self, values: Any) -> Any:
        """The values inside a compiled function, whole on each device."""
        everywhere = NamedSharding(self.jax_mesh, PartitionSpec())
        return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, everywhere), values)

    def table(self, what: Any, *inputs: Any) -> Layout:
        """What is split how, and what each device holds: found by shapes, and nothing is computed.

        Args:
            what: A network or a step, with inputs to initialise it by; or parameters, or a state of
                training. Of a step's, the optimiser's state is in it.
            *inputs: Arrays or `jax.ShapeDtypeStruct`s.

        Raises:
            ValueError: As for `specs`.
        """
        if hasattr(what, "init"):
            what = jax.eval_shape(what.init, jax.random.key(0), *inputs)
        net_only = isinstance(what, tuple) and not hasattr(what, "params")
        params, state = what if net_only else (getattr(what, "params", what), {})
        groups = {
            "parameters": params,
            "network's state": getattr(what, "state", state),
            "optimiser's state": getattr(what, "opt_state", {}),
        }
        named = by_path(params)
        specs = specs_of(named, self.axes, self.rules)
        parts: dict[str, tuple] = {}
        for name, group in groups.items():
            leaves = by_path(group)
            split = specs if name == "parameters" else state_specs(leaves, named, specs)
            parts[name] = tuple(held(p, x, split[p], self.axes) for p, x in leaves.items())
        return Layout(self.axes, parts)

    def check_batch(self, where: str, batch: int, accumulate: int = 1) -> None:
        """Refuse a size of batches that does not come out even.

        Raises:
            ValueError: If it is no multiple of the parts and of `accumulate`.
        """
        even = self.parts * accumulate
        accumulated = f" of {accumulate} accumulated" if accumulate > 1 else ""
        require(
            batch % even == 0,
            where,
            f"a batch that comes out even, {accumulate} x {self.parts} = {even} parts"
            if accumulated
            else f"a batch that comes out even on {self.parts} parts of the mesh",
            batch,
            f"Give batch={max(round(batch / even), 1) * even}.",
        )


def run_on(
    mesh: Mesh, init: Callable, update: Callable, evaluate: Callable
) -> tuple[Callable, Callable, Callable]:
    """The three functions of a step, with their arrays split along the mesh.

    The parameters are drawn by a program over all devices, each of which draws what it holds.

    Raises:
        TypeError: If `mesh` is none.
        ValueError: If it is larger than there are devices.
    """
    require(
        isinstance(mesh, Mesh),
        "make_step",
        "mesh to be a Mesh",
        shown(mesh),
        'Write mesh=Mesh({"data": 2}).',
        TypeError,
    )
    devices = mesh.jax_mesh.abstract_mesh

    def drawn(key: Any, *inputs: Any) -> Any:
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype), inputs)
        split = mesh.shardings(jax.eval_shape(init, key, *shapes))
        return jax.jit(lambda key: init(key, *shapes), out_shardings=split)(key)

    def updated(state: Any, batch: Any) -> tuple[Any, Any]:
        with use_abstract_mesh(devices):
            state, values = update(mesh.keep(state), mesh.spread(batch))
            return mesh.keep(state), mesh.whole(values)

    def evaluated(state: Any, batch: Any) -> Any:
        with use_abstract_mesh(devices):
            return mesh.whole(evaluate(mesh.keep(state), mesh.spread(batch)))

    return drawn, updated, evaluated


def _is_spec(x: Any) -> bool:
    return isinstance(x, PartitionSpec)


@lru_cache
def _on_devices(axes: tuple[tuple[str, int], ...]) -> jax.sharding.Mesh:
    names, sizes = zip(*axes, strict=True)
    devices, needed = jax.devices(), prod(sizes)
    several = jax.process_count() > 1
    require(
        needed == len(devices) if several else needed <= len(devices),
        "Mesh",
        f"{'the' if several else 'at most the'} {len(devices)} devices that there are",
        f"{' x '.join(f'{name} {n}' for name, n in axes)} = {needed}",
        "Give one axis the length -1, for all that are left.",
    )
    kinds = (AxisType.Auto,) * len(names)
    return jax.make_mesh(sizes, names, kinds, devices=devices[:needed])


def _sizes(axes: Any) -> dict[str, int]:
    require(
        isinstance(axes, Mapping) and len(axes) > 0,
        "Mesh",
        "a dict of axes and how many devices each has",
        shown(axes),
        'Write Mesh({"data": 4, "model": 2}).',
        TypeError,
    )
    for name, n in axes.items():
        require(
            name in NAMES,
            "Mesh",
            f"axes named {', '.join(NAMES)}",
            repr(name),
            "data splits the batch, fsdp the batch and parameters, model parameters by rules.",
        )
        require(
            is_whole(n) or n == -1,
            "Mesh",
            f"a number of devices of 1 or more along {name}, or -1",
            shown(n),
            "-1 is all devices that are left.",
        )
    open_, known = [name for name in axes if axes[name] == -1], prod(abs(n) for n in axes.values())
    if not open_:
        return dict(axes)
    devices = len(jax.devices())
    require(
        len(open_) == 1 and devices % known == 0,
        "Mesh",
        f"one axis of length -1, and lengths of the others that divide {devices} devices",
        str(dict(axes)),
        "Give other lengths, or fewer axes.",
    )
    return {name: devices // known if n == -1 else int(n) for name, n in axes.items()}
