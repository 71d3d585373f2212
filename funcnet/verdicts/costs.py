"""A cost: operations and bytes by layer, op and line, forward and backward, and how it reads."""

import collections
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..render.forms import Column, Table, size
from ..traces.record.rows import Source
from ..types import require, shown
from .flops import Count
from .groups import Entry, Group, amount, grouped, percent, table
from .report import Report
from .roofline import Peak, fastest, peak

_PRODUCTS = ("dot_general", "ragged_dot_general", "conv_general_dilated")


class Amount(NamedTuple):
    """What a part of a program costs.

    Attributes:
        flops: Its floating-point operations.
        bytes: What its equations read and write, as if nothing were fused.
    """

    flops: int
    bytes: int

    @property
    def intensity(self) -> float:
        """Operations for each byte."""
        return self.flops / self.bytes if self.bytes else 0.0


class Share(NamedTuple):
    """What one layer, op or line costs.

    Attributes:
        name: The layer's path, the primitive, or "file.py:3".
        flops: Its floating-point operations, forward and backward.
        forward: Those forward.
        backward: Those backward.
        bytes: What its equations read and write.
    """

    name: str
    flops: int
    forward: int
    backward: int
    bytes: int


class Timing(NamedTuple):
    """How fast a program ran, compiled.

    Attributes:
        seconds: Of its fastest run.
        rate: Floating-point operations a second.
        peak: What the device does at its best.
        ceiling: The operations a second that the roofline allows: the peak, or less if to move the
            arguments and results alone takes longer.
        roofline: The rate as a share of that.
        mfu: The operations of products and convolutions a second as a share of the peak.
        xla_flops: What XLA says it computes; it counts the body of a loop once.
        xla_bytes: What XLA says it reads and writes.
    """

    seconds: float
    rate: float
    peak: Peak
    ceiling: float
    roofline: float
    mfu: float
    xla_flops: float
    xla_bytes: float


@dataclass(frozen=True)
class Cost(Report):
    """What a function costs.

    Attributes:
        function: What it is called.
        counts: Its equations, each with what it costs in all its runs.
        least: The least operations: the smaller branches, no iteration of a loop of unknown length.
        most: The most operations: infinite, if such a loop computes something.
        loops: The line and the operations of an iteration of each such loop.
        branches: How many branches there are of which one costs more than another.
        iterations: How often such a loop is supposed to run.
        compulsory: The bytes of the arguments, constants, results and gradients, each moved once.
        refused: Why there is no backward pass, if one was asked for.
        timing: How fast it ran; None before `timed`.
        runner: What `timed` runs: a function, its arrays, and the shapes of the cotangents.
    """

    function: str
    counts: tuple[Count, ...] = field(repr=False)
    least: float
    most: float
    loops: tuple[tuple[Source | None, int], ...]
    branches: int
    iterations: int
    compulsory: int
    refused: str = ""
    timing: Timing | None = None
    runner: Any = field(repr=False, compare=False, default=None)

    @property
    def heading(self) -> str:
        """What stands above its page."""
        return f"cost of {self.function}"

    @property
    def flops(self) -> int:
        """The floating-point operations: with the larger branches, and the supposed iterations."""
        return _sum(self.counts).flops

    @property
    def bytes(self) -> int:
        """What all equations read and write, as if nothing were fused: an upper bound."""
        return _sum(self.counts).bytes

    @property
    def intensity(self) -> float:
        """Operations for each of those bytes."""
        return _sum(self.counts).intensity

    @property
    def forward(self) -> Amount:
        """What the forward pass costs, with what it prepares for the backward pass."""
        return _sum(c for c in self.counts if not c.backward)

    @property
    def backward(self) -> Amount:
        """What the backward pass costs, with what it computes again."""
        return _sum(c for c in self.counts if c.backward)

    @property
    def recomputed(self) -> Amount:
        """What `jax.checkpoint` makes the backward pass compute again."""
        return _sum(c for c in self.counts if c.recomputed)

    @property
    def products(self) -> int:
        """The operations of products and convolutions, without what is computed again.

        Formulas by hand, such as 6 times parameters times tokens, count these; MFU is of these.
        """
        own = (c for c in self.counts if c.op in _PRODUCTS and not c.recomputed)
        return _sum(own).flops

    @property
    def exact(self) -> bool:
        """Whether no loop and no branch leaves the operations open."""
        return self.least == self.most and not self.uncounted

    @property
    def uncounted(self) -> dict[str, int]:
        """The primitives whose operations are not known, and in how many equations."""
        return dict(collections.Counter(c.op for c in self.counts if not c.known))

    def _grouped(self, by: str, depth: int | None) -> list[Group]:
        entries = (
            Entry(
                c.layer, c.source, c.op,
                (c.flops, c.flops * (not c.backward), c.flops * c.backward, c.bytes),
            )
            for c in self.counts
        )  # fmt: skip
        return grouped("cost", entries, by, depth)

    def by(self, key: str, depth: int | None = None) -> tuple[Share, ...]:
        """What each layer, op or line costs, the largest first.

        Args:
            key: "layer", "op" or "line".
            depth: How many names of a layer's path count: 1 sums whole blocks. None for all.

        Raises:
            ValueError: If the key is none of these.

        >>> count = Count("a/b", None, "add", 6, 72, True, False, True, "float32")
        >>> Cost("f", (count,), 6, 6, (), 0, 1, 72).by("layer", depth=1)
        (Share(name='a', flops=6, forward=0, backward=6, bytes=72),)
        """
        return tuple(Share(group.name, *group.amounts) for group in self._grouped(key, depth))

    def timed(self) -> "Cost":
        """This cost with `timing`: the function is compiled and run, and the device is measured.

        The device's peak is that of the dtype in which the function has most of its products.

        Raises:
            ValueError: If the function was given shapes alone, which cannot be run.
        """
        run, arrays, cotangents = self.runner
        shapes = [x for x in arrays if isinstance(x, jax.ShapeDtypeStruct)]
        require(
            not shapes, "cost", "arrays to run the function with",
            f"a ShapeDtypeStruct, {shown(next(iter(shapes), None))}", "Call cost with arrays.",
        )  # fmt: skip
        starts = [jnp.ones(x.shape, x.dtype) for x in cotangents]
        compiled = jax.jit(run).lower(arrays, starts).compile()
        seconds = fastest(compiled, arrays, starts)
        best = peak(self._dtype())
        rate, moved = self.flops / seconds, min(self.bytes, self.compulsory)
        ceiling = min(best.flops, self.flops * best.bytes / max(1, moved))
        found = compiled.cost_analysis() or {}
        said: Any = found[0] if isinstance(found, list) else found
        timing = Timing(
            seconds, rate, best, ceiling, rate / ceiling if ceiling else 0.0,
            self.products / seconds / best.flops, said.get("flops", 0.0),
            said.get("bytes accessed", 0.0),
        )  # fmt: skip
        return replace(self, timing=timing)

    def _dtype(self) -> str:
        """Of most of the products; float32 if there is none."""
        found = collections.Counter({"float32": 0})
        for c in self.counts:
            if c.op in _PRODUCTS:
                found[c.dtype] += c.flops
        return found.most_common(1)[0][0]

    def parts(self) -> list[Table | str]:
        """The sums, the tables by layer, op and line, what is left open, and the timing."""
        kinds = (None, ("forward", amount), ("backward", amount), ("bytes", size))
        tables = [
            table(self._grouped(key, None), key, kinds, most)
            for key, most in (("layer", 12), ("op", 8), ("line", 12))
            if key != "layer" or any(c.layer for c in self.counts)
        ]
        said = [self._open(), "" if self.timing is None else _said(self.timing, self)]
        filled = [form for form in tables if form.rows]
        return [self._summary(), *filled, *filter(None, said)]

    def _summary(self) -> Table:
        parts = [("forward", self.forward), ("backward", self.backward)]
        if self.recomputed.flops:
            parts.append(("  of it computed again", self.recomputed))
        parts.append(("together", Amount(self.flops, self.bytes)))
        rows = tuple(
            (name, amount(a.flops), size(a.bytes), f"{a.intensity:.2f}") for name, a in parts
        )
        columns = (
            Column(""), Column("FLOPs", True), Column("bytes, nothing fused", True),
            Column("FLOPs per byte", True),
        )  # fmt: skip
        note = (
            f"Each argument, result and gradient moved once: {size(self.compulsory)}. "
            f"Products and convolutions: {amount(self.products)} FLOPs."
        )
        return Table(columns, rows, f"Cost of {self.function}", (note,))

    def _open(self) -> str:
        """What is not counted, or not known."""
        said = [f"No backward pass: {self.refused}"] if self.refused else []
        if self.least != self.most:
            said.append(f"Between {amount(self.least)} and {amount(self.most)} FLOPs:")
        for where, once in self.loops:
            said.append(
                f"  the loop in {where} runs until its condition fails; counted as "
                f"{self.iterations} of its iterations, {amount(once)} FLOPs each"
            )
        if self.branches:
            said.append(f"  the larger of unequal branches is counted, {self.branches} times")
        if self.uncounted:
            names = ", ".join(f"{name} ({n})" for name, n in self.uncounted.items())
            said.append(f"Not counted, since their operations are not known: {names}.")
        return "\n".join(said)


def _sum(counts: Iterable[Count]) -> Amount:
    listed = list(counts)
    return Amount(sum(c.flops for c in listed), sum(c.bytes for c in listed))


def _said(t: Timing, cost: Cost) -> str:
    """What a timing says, in lines."""
    best = t.peak
    return "\n".join(
        (
            f"Run in {1000 * t.seconds:.3g} ms: {amount(t.rate)}FLOP/s, {percent(t.mfu)} MFU.",
            f"This device, {best.device}, multiplied {best.dtype} matrices of {best.side} rows at "
            f"{amount(best.flops)}FLOP/s and moved {size(int(best.bytes))}/s.",
            f"The roofline is at {amount(t.ceiling)}FLOP/s; this is {percent(t.roofline)} of it.",
            f"XLA itself says {amount(t.xla_flops)} FLOPs and {size(int(t.xla_bytes))}; it counts "
            "the body of a loop once.",
        )
    )
