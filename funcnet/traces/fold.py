"""A trace folded: one line a layer, where a gradient that shrinks or dies is seen at a glance."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..render import forms, text
from ..types import require
from .program import nearest
from .record.rows import Row
from .record.values import Value

OUTSIDE = "(no layer)"
"""What is in no layer."""

ORDERS = ("program", "value", "adjoint", "gradient")

PASSED_ON = ("convert_element_type", "reshape", "transpose", "broadcast_in_dim", "copy")
"""What a parameter may go through before the layer it belongs to reads it."""


FAINT = 1e-6
"""A parameter is named if its gradient is less than so much of its layer's."""


class Layer(NamedTuple):
    """A line of a folded trace.

    Attributes:
        name: The layer: "block_0/attention"; "rnn[3]" in iteration 3 of a loop.
        rows: How many rows it has.
        value: The norm of its output; None under a transformation.
        adjoint: The norm of its output's adjoint; None if nothing flows back to it.
        gradient: The norm of the gradients of the parameters that it is the first to read; None if
            there are none. So the squares of all layers add up to that of the whole gradient.
        says: What to look at: "adjoint 0", "value not finite", "params['k']['b'] 3e-11" for a
            parameter whose gradient is lost beside the others of the layer; else "".
    """

    name: str
    rows: int
    value: float | None
    adjoint: float | None
    gradient: float | None
    says: str


@dataclass(frozen=True)
class Layers:
    """The layers of a trace; it prints as a table, and is a sequence of `Layer`.

    Attributes:
        function: The name of the function.
        layers: The layers in their order.
        notes: What the table says below itself.
    """

    function: str
    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Layer]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, at: int | str) -> Layer:
        """A layer by number or by name."""
        if isinstance(at, int):
            return self.layers[at]
        named = {layer.name: layer for layer in self.layers}
        nearest("layers", at, named, "a layer of this table", KeyError)
        return named[at]

    def table(self, most: int | None = None) -> forms.Table:
        """The layers as a table; with `most`, of more layers those at the two ends."""
        shown, left = list(self.layers), 0
        if most is not None and len(shown) > most:
            left = len(shown) - most
            shown = [*shown[: most // 2], *shown[most // 2 + left :]]
        low, high = scale([x for layer in self.layers for x in (layer.adjoint, layer.gradient)])
        cells = [_cells(layer, low, high) for layer in shown]
        if left:
            cells.insert(most // 2 if most else 0, (f"... {left} more", *[""] * 7))
        headings = ["layer", "rows", "value", "adjoint", "", "gradient", "", ""]
        used = [i for i in range(8) if i < 4 or any(row[i] for row in cells)]
        columns = tuple(
            forms.Column(headings[i], i in (1, 2, 3, 5), "start" if i in (0, 7) else "")
            for i in used
        )
        rows = tuple(tuple(row[i] for i in used) for row in cells)
        bars = f"Bars are logarithmic, from {low:.0e} to {high:.0e}."
        return forms.Table(columns, rows, f"Layers of {self.function}", (bars, *self.notes))

    def __str__(self) -> str:
        return text.table(self.table(), text.terminal_width())


def _cells(layer: Layer, low: float, high: float) -> tuple[str, ...]:
    adjoint, gradient = (_figure(x) for x in (layer.adjoint, layer.gradient))
    bars = [text.bar(x or 0.0, low, high) for x in (layer.adjoint, layer.gradient)]
    return (
        layer.name, str(layer.rows), _figure(layer.value), adjoint, bars[0], gradient, bars[1],
        layer.says,
    )  # fmt: skip


def _figure(x: float | None) -> str:
    return "" if x is None else f"{x:.3g}"


def scale(figures: Sequence[float | None]) -> tuple[float, float]:
    """The ends of a logarithmic scale: powers of ten, four of them apart or more.

    >>> scale([0.5, 3e-7, 0.0, None])
    (1e-07, 1.0)
    """
    known = [x for x in figures if x is not None and 0 < x < math.inf]
    high = math.ceil(math.log10(max(known, default=1.0)) - 1e-9)
    low = math.floor(math.log10(min(known, default=1.0)) + 1e-9)
    return 10.0 ** max(min(low, high - 4), -320), 10.0**high


Path = tuple[str, ...]
"""A layer from the outermost in: ("scan[3]", "attention")."""


def folded(trace: Any, sort: str, reverse: bool, depth: int | None) -> Layers:
    """What `Trace.layers` returns."""
    require(
        sort in ORDERS,
        "layers",
        f"sort among {', '.join(ORDERS)}",
        repr(sort),
        "The largest come first; reverse=True turns that round.",
    )
    require(
        depth is None or (isinstance(depth, int) and depth >= 1),
        "layers",
        "a depth of at least 1, or None for all",
        repr(depth),
        "depth=1 shows the outermost layers alone.",
    )
    homes = {row.name: home(row)[:depth] for row in trace.rows if row.kind != "argument"}
    own: dict[Path, int] = {}
    last: dict[Path, Row] = {}
    for row in trace.rows:
        if row.kind in ("argument", "constant"):
            continue
        path = homes[row.name]
        own[path] = own.get(path, 0) + 1
        if row.kind == "slice":
            continue
        for some in (path[:n] for n in range(1, len(path) + 1)):
            if row.active or some not in last or not last[some].active:
                last[some] = row
    read: dict[Path, list[Row]] = {}
    for row, path in _parameters(trace.rows, homes):
        read.setdefault(path, []).append(row)
    order = {row.name: i for i, row in enumerate(trace.rows)}
    paths = sorted((path for path in own if path in last), key=lambda p: order[last[p].name])
    layers = [_layer(path, own[path], last[path], read.get(path, [])) for path in paths]
    if sort != "program":
        layers.sort(key=lambda layer: _weight(getattr(layer, sort)), reverse=True)
    return Layers(trace.function, tuple(layers[::-1] if reverse else layers))


def home(row: Row) -> Path:
    """The layer of a row, with the iterations around it; else the function it is written in."""
    path: list[str] = []
    for name in row.within:
        if name.startswith("iteration ") and path:
            path[-1] += f"[{name.removeprefix('iteration ')}]"
        elif not name.startswith("branch "):
            path.append(name)
    return tuple(path) or (f"{row.source.function}()" if row.source else OUTSIDE,)


def _parameters(rows: Sequence[Row], homes: dict[str, Path]) -> Iterator[tuple[Row, Path]]:
    """The arguments that take a gradient, or their slices in a loop, and the layer of each."""
    readers: dict[str, list[Row]] = {}
    for row in rows:
        for name in row.operands:
            readers.setdefault(name, []).append(row)
    pieces = [row for row in rows if row.kind == "argument" and row.active]
    for row in pieces:
        own = readers.get(row.name, [])
        if own and all(reader.kind == "slice" for reader in own):
            pieces += own
        elif own:
            yield row, _layer_of(own[0], readers, homes)


def _layer_of(reader: Row, readers: dict[str, list[Row]], homes: dict[str, Path]) -> Path:
    while not reader.within and reader.op in PASSED_ON and readers.get(reader.name):
        reader = readers[reader.name][0]
    return homes[reader.name]


def _layer(path: Path, rows: int, end: Row, parameters: list[Row]) -> Layer:
    adjoint = None if end.adjoint is None else norm(end.adjoint)
    parts = {row.label or row.name: norm(row.adjoint) for row in parameters if row.adjoint}
    known = {name: x for name, x in parts.items() if x is not None}
    gradient = math.hypot(*known.values()) if known else None
    says = []
    if end.active and end.adjoint is None:
        says.append("no adjoint")
    says += [f"{name} 0" for name, x in (("adjoint", adjoint), ("gradient", gradient)) if x == 0]
    lost = {"value": [end.value], "adjoint": [end.adjoint]}
    lost |= {"gradient": [row.adjoint for row in parameters]}
    says += [f"{name} not finite" for name, some in lost.items() if any(map(_is_lost, some))]
    cut_off = [row for row in parameters if row.adjoint is None]
    says += [f"no gradient of {row.label or row.name}" for row in cut_off[:1]]
    least = min(known, key=lambda name: known[name], default=None)
    if least is not None and gradient and known[least] < FAINT * gradient:
        says.append(f"{least} {_figure(known[least])}")
    name, said = "/".join(path), ", ".join(says)
    return Layer(name, rows, norm(end.value), adjoint, gradient, said)


def norm(value: Value) -> float | None:
    """The norm of a value, of its finite elements if it has several; None if it is not known."""
    if value.stats is not None:
        return value.stats.norm
    known = isinstance(value.array, np.ndarray) and value.array.size
    return float(np.linalg.norm(value.array.astype(np.complex128))) if known else None


def _is_lost(value: Value | None) -> bool:
    """Whether there is NaN or infinity in a value."""
    if value is None:
        return False
    if value.stats is not None:
        return value.stats.nonfinite > 0
    size = norm(value)
    return size is not None and not math.isfinite(size)


def _weight(x: float | None) -> float:
    return -1.0 if x is None else math.inf if math.isnan(x) else x
