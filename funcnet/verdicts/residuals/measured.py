"""A program measured: each value that its backward pass is given, and what checkpoints add."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ...jaxpr import jaxprs
from ...jaxpr.changes import marked, without_marks
from ...jaxpr.passes import Passes, passes_of
from ...traces.record.rows import Source
from ...traces.source.names import source
from ..flops import counted_passes, flops_of
from .again import again_of, bytes_of, reads_of
from .origins import Origin, Sites, origins_of


@dataclass(frozen=True)
class Kept:
    """A value that is kept for the backward pass.

    Attributes:
        bytes: How many bytes it takes, those of all iterations together.
        shape: The shape that it is made with; that of one iteration.
        dtype: Its dtype.
        times: The lengths of the loops around it that stack it, from the outermost in.
        kind: "made" by the function; an "argument" of it or a "constant" that it closes over,
            which are there anyway.
        op: What made it: a primitive, or a function with a rule of its own. Of an argument its
            name.
        source: The line where that was written, None if JAX does not say.
        layer: In which layer: "block_0/mlp".
        readers: The ops whose backward pass reads it.
    """

    bytes: int
    shape: tuple[int, ...]
    dtype: str
    times: tuple[int, ...]
    kind: str
    op: str
    source: Source | None
    layer: str
    readers: tuple[str, ...]

    @property
    def is_there(self) -> bool:
        """Whether it is there anyway."""
        return self.kind != "made"

    @property
    def type(self) -> str:
        """Its dtype and shape, and how often: "float32[4,8] x 12"."""
        shape = ",".join(map(str, self.shape))
        return " x ".join([f"{self.dtype}[{shape}]", *map(str, self.times)])


@dataclass(frozen=True, eq=False)
class Measured:
    """A program, and what its gradient holds.

    Attributes:
        closed: The program.
        names: What each argument is called.
        active: Which arguments take a gradient.
        results: Which outputs a gradient starts at.
    """

    closed: Any
    names: tuple[str, ...]
    active: tuple[int, ...]
    results: tuple[int, ...]

    def changed(self, closed: Any) -> "Measured":
        """The same of another program in its place."""
        return Measured(closed, self.names, self.active, self.results)

    @property
    def shapes(self) -> list[jax.ShapeDtypeStruct]:
        """The shapes and dtypes of its arguments."""
        return [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in self.closed.in_avals]

    @functools.cached_property
    def _marked(self) -> Any:
        return marked(self.closed)

    @functools.cached_property
    def passes(self) -> Passes:
        """Its two passes, forward and backward."""
        return passes_of(self._split(self._marked), self.shapes, self.active)

    @functools.cached_property
    def again(self) -> int:
        """The most bytes that are held at a time of what checkpoints make again."""
        return again_of(self.passes.backward, len(self.passes.residuals))

    @functools.cached_property
    def kept(self) -> tuple[Kept, ...]:
        """What is kept, the largest first, what is there anyway last."""
        passes = self.passes
        first, count = len(passes.results), len(passes.residuals)
        own = slice(first, first + count)
        sources = jaxprs.output_sources(passes.forward)[own]
        origins = origins_of(passes.forward, len(self.names))[own]
        reads = reads_of(passes.backward, count)
        sites = Sites(self._marked)
        found: dict[Any, tuple[Any, Origin, list]] = {}
        for name, x, origin, keys in zip(sources, passes.residuals, origins, reads, strict=True):
            # What a loop stacks is stacked anew under each shape.
            value = name if origin.times else origin
            found.setdefault(value, (x, origin, []))[2].extend(keys)
        read = [value for value in found.values() if value[2]]
        kept = [self._kept(x, origin, keys, sites) for x, origin, keys in read]
        return tuple(sorted(kept, key=lambda value: (value.is_there, -value.bytes)))

    @property
    def bytes(self) -> int:
        """What is held at most: all that is kept and not there anyway, and what is made again."""
        return sum(value.bytes for value in self.kept if not value.is_there) + self.again

    @functools.cached_property
    def flops(self) -> int:
        """The floating-point operations of both passes."""
        return flops_of(counted_passes(self.passes).counts)

    def compiled(self) -> int | None:
        """The bytes that the compiler sets aside for the whole gradient; None if it is silent."""

        def gradient(*arrays: Any) -> list[Any]:
            split = self._split(self.closed)
            active = [arrays[i] for i in self.active]

            def of_active(*some: Any) -> Any:
                given = list(arrays)
                for i, x in zip(self.active, some, strict=True):
                    given[i] = x
                return split(*given)[0]

            results, pull = jax.vjp(of_active, *active)
            return pull([jnp.ones_like(y) for y in results])

        program = jax.jit(gradient).lower(*self.shapes).compile()
        said = program.memory_analysis()
        return None if said is None else int(said.temp_size_in_bytes)

    def _split(self, closed: Any) -> Callable[..., tuple[list[Any], list[Any]]]:
        """The program as what a gradient starts at, and the other outputs."""

        def split(*arrays: Any) -> tuple[list[Any], list[Any]]:
            outputs = jaxprs.evaluate(closed, *arrays)
            rest = [y for i, y in enumerate(outputs) if i not in self.results]
            return [outputs[i] for i in self.results], rest

        return split

    def _kept(self, x: Any, origin: Origin, keys: Sequence, sites: Sites) -> Kept:
        readers = (site.label for key in keys if (site := sites.find(key)) is not None)
        times = origin.times if x.shape[: len(origin.times)] == origin.times else ()
        # What a loop stacks of an argument is a copy, which stands where it is read.
        copied = origin.kind == "argument" and bool(times)
        site = sites.find(keys[0] if copied else origin.marks)
        return Kept(
            bytes_of(x),
            x.shape[len(times) :],
            str(x.dtype),
            times,
            "made" if copied else origin.kind,
            "copy" if copied else self._name(origin, sites),
            None if site is None else source(site.at.places),
            "" if site is None else without_marks(site.at.scope),
            tuple(dict.fromkeys(filter(None, readers))),
        )

    def _name(self, origin: Origin, sites: Sites) -> str:
        """What made a value: an op, or one in each branch; or which argument it is."""
        if origin.kind == "argument":
            return self.names[origin.argument]
        made = [(sites.find(x.marks), x.op) for x in (origin, *origin.others)]
        named = [site.label if site and site.label else op for site, op in made]
        return " or ".join(dict.fromkeys(named)) or origin.kind
