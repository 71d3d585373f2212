"""What each device holds, as a table: by shapes alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from ..render.forms import Column, Table, size
from ..verdicts.report import Report
from .rules import axes_in, written


class Held(NamedTuple):
    """An array, and what each device holds of it.

    Attributes:
        path: Where it stands.
        shape: Of the whole.
        spec: How it is split.
        whole: Bytes of the whole.
        each: Bytes on each device.
    """

    path: str
    shape: tuple[int, ...]
    spec: PartitionSpec
    whole: int
    each: int


@dataclass(frozen=True)
class Layout(Report):
    """What is split how, and what each device holds: what `Mesh.table` returns.

    Attributes:
        mesh: The axes of the mesh and their lengths.
        parts_of: The arrays of each part: "parameters", "network's state", "optimiser's state".
    """

    mesh: Mapping[str, int]
    parts_of: Mapping[str, tuple[Held, ...]]

    @property
    def heading(self) -> str:
        """What stands above its page."""
        return "mesh " + " x ".join(f"{name} {n}" for name, n in self.mesh.items())

    @property
    def whole(self) -> int:
        """Bytes of all arrays together."""
        return sum(held.whole for part in self.parts_of.values() for held in part)

    @property
    def each(self) -> int:
        """Bytes of them on each device."""
        return sum(held.each for part in self.parts_of.values() for held in part)

    def parts(self) -> list[Table | str]:
        """The parameters one by one, then what each part comes to."""
        columns = (
            Column("parameter", gives="start"),
            Column("shape"),
            Column("split"),
            Column("bytes", right=True),
            Column("on each device", right=True),
        )
        rows: list[tuple[str, ...]] = [
            (held.path, _shape(held.shape), written(held.spec), size(held.whole), size(held.each))
            for held in self.parts_of.get("parameters", ())
        ]
        for name, part in self.parts_of.items():
            if part:
                rows.append(_sum(name, sum(h.whole for h in part), sum(h.each for h in part)))
        rows.append(_sum("all", self.whole, self.each))
        share = 100 * self.each / max(self.whole, 1)
        return [
            Table(columns, tuple(rows), self.heading),
            f"Each of the {prod(self.mesh.values())} devices holds {share:.1f}% of the whole.",
        ]


def _sum(name: str, whole: int, each: int) -> tuple[str, ...]:
    return f"= {name}", "", "", size(whole), size(each)


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "scalar"


def held(path: str, leaf: Any, spec: PartitionSpec, sizes: Mapping[str, int]) -> Held:
    """What each device holds of an array that is split so."""
    kind = (
        jax.eval_shape(jax.random.key_data, leaf)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else leaf
    )
    whole = prod(kind.shape) * np.dtype(kind.dtype).itemsize
    devices = prod(sizes[name] for axes in axes_in(spec) for name in axes)
    return Held(path, tuple(leaf.shape), spec, whole, whole // devices)
