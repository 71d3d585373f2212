"""The traces of a program as equations alone: what runs forward, what it causes in reverse.

`jax.vjp` is split in two jaxprs, the forward pass with what it keeps, and the reverse pass. Each
equation of the reverse pass says where the forward line stands that it belongs to; by that line
the two are paired.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from ..jaxpr import jaxprs
from ..jaxpr.equations import Equation
from ..jaxpr.passes import passes_of
from ..jaxpr.walk import At, Handler, bodies, walk
from ..render import forms, text
from .formula import Expr, constant, expression
from .program import Program, pair_of, reversible
from .record.rows import Source
from .source.names import source


class Written(NamedTuple):
    """An equation of a pass.

    Attributes:
        text: "v2 = v-1 * v0".
        source: The line it belongs to: in reverse too, that of the forward pass.
        scope: Its layer.
        type: Dtype and shape of what it computes.
    """

    text: str
    source: Source | None
    scope: str
    type: str


class Kept(NamedTuple):
    """What the forward pass keeps for the reverse pass.

    Attributes:
        name: Its name in the forward pass.
        type: Dtype and shape.
        bytes: Its size; an argument that is kept takes no memory of its own.
        source: The line that makes it; None for an argument or a constant.
    """

    name: str
    type: str
    bytes: int
    source: Source | None


class Pair(NamedTuple):
    """What one line of source causes: forward equations, what they keep, reverse equations."""

    source: Source | None
    scope: str
    forward: tuple[Written, ...]
    kept: tuple[Kept, ...]
    reverse: tuple[Written, ...]


@dataclass(frozen=True)
class Symbolic:
    """The traces of a program as equations, without values.

    Attributes:
        forward_jaxpr: From the arguments to the outputs and what is kept.
        reverse_jaxpr: From what is kept and the adjoints of the outputs to those of the arguments.
        pairs: The equations by the line they belong to, in the order of the forward pass.
        kept: All that is kept.
    """

    forward_jaxpr: Any = field(repr=False)
    reverse_jaxpr: Any = field(repr=False)
    pairs: tuple[Pair, ...]
    kept: tuple[Kept, ...]

    @property
    def attributed(self) -> float:
        """The fraction of the reverse equations that belong to a line of the forward pass."""
        total = sum(len(pair.reverse) for pair in self.pairs)
        known = sum(len(pair.reverse) for pair in self.pairs if pair.source and pair.forward)
        return known / total if total else 1.0

    def __str__(self) -> str:
        rows = []
        for pair in self.pairs:
            where = str(pair.source or "")
            ahead = [e.text for e in pair.forward]
            kept = [f"{k.name}: {k.type}" for k in pair.kept]
            back = [e.text for e in pair.reverse]
            for i, cells in enumerate(itertools.zip_longest(ahead, kept, back, fillvalue="")):
                first = (where, pair.scope) if i == 0 else ("", "")
                rows.append(
                    (*first, *(cell if len(cell) <= 60 else f"{cell[:57]}..." for cell in cells))
                )
        columns = tuple(map(forms.Column, ("line", "layer", "forward", "keeps", "reverse")))
        total = forms.size(sum(k.bytes for k in self.kept if k.source))
        notes = (f"Kept between the passes, arguments aside: {total}.",)
        return text.table(forms.Table(columns, tuple(rows), "Forward and reverse trace", notes))


def symbolic(program: Program, wrt: int | Sequence[int] | None, has_aux: bool = False) -> Symbolic:
    """The traces of a program, of which only shapes and dtypes count."""
    some = [i for i, active in enumerate(program.active(program.chosen(wrt))) if active]

    def apart(*arrays: Any) -> tuple[list, Any]:
        output = program.of_arrays(*arrays)
        if has_aux:
            pair_of(program.where, jax.tree.structure(output))
        loss, aux = output if has_aux else (output, ())
        flat = jax.tree.leaves(loss)
        smooth = [y for y in flat if jaxprs.is_inexact(y)]
        return smooth, [[y for y in flat if not jaxprs.is_inexact(y)], aux]

    with reversible(program.where):
        forward, reverse, results, residuals = passes_of(apart, program.arrays, some)
    count = len(program.arrays)
    first, back = _Writer("v"), _Writer("b")
    ends = iter(walk(forward, [f"v{i + 1 - count}" for i in range(count)], first))
    outputs = [next(ends) for _ in results]
    kept_names = [next(ends) for _ in residuals]
    walk(reverse, [*kept_names, *(f"{name}'" for name in outputs)], back)
    made = {e.text.partition(" = ")[0]: e.source for e in first.written}
    kept = tuple(
        Kept(name, _type(x), _size(x), made.get(name))
        for name, x in dict(zip(kept_names, residuals, strict=True)).items()
        if name[0] == "v"
    )
    return Symbolic(forward, reverse, _paired(first.written, back.written, kept), kept)


class _Writer(Handler):
    """Writes equations down, those of calls, branches and loops at their place; values are names.

    `v1~` is a carry within its loop, `v1[i]` what is taken out of `v1` there.
    """

    def __init__(self, letter: str) -> None:
        self.letter = letter
        self.written: list[Written] = []
        self.count = 0

    def constant(self, value: Any) -> str:
        return constant(value).text

    def plain(self, e: Equation, operands: list[str], at: At) -> list[str]:
        if e.is_alias:
            return operands
        for body in bodies(e, operands, at, "{}~".format, "{}[i]".format):
            walk(body.jaxpr, body.values, self, body.at)
        self.count += 1
        base, count = f"{self.letter}{self.count}", len(e.results)
        text = expression(e, [Expr(name) for name in operands]) or e.label
        types = ", ".join(_type(v.aval) for v in e.results)
        self.written.append(Written(f"{base} = {text}", source(at.places), at.scope, types))
        return [f"{base}.{i}" if count > 1 else base for i in range(count)]


def _paired(
    forward: list[Written], reverse: list[Written], kept: tuple[Kept, ...]
) -> tuple[Pair, ...]:
    """One pair for each line in each layer."""
    ahead: dict[Any, list[Written]] = {}
    for e in forward:
        ahead.setdefault(_place(e), []).append(e)
    back: dict[Any, list[Written]] = {}
    for e in reverse:
        back.setdefault(_cause(_place(e), ahead), []).append(e)
    owner = {e.text.partition(" = ")[0]: place for place, own in ahead.items() for e in own}
    stored: dict[Any, list[Kept]] = {}
    for k in kept:
        stored.setdefault(owner.get(k.name.partition(".")[0]), []).append(k)
    pairs = []
    for place in dict.fromkeys([*ahead, *back]):
        first, last = tuple(ahead.get(place, ())), tuple(back.get(place, ()))
        lead = (first or last)[0]
        between = tuple(stored.get(place, ()))
        pairs.append(Pair(lead.source, lead.scope, first, between, last))
    return tuple(pairs)


def _place(e: Written) -> tuple[Any, str]:
    return e.source and e.source[:2], e.scope


def _cause(place: tuple[Any, str], ahead: dict) -> tuple[Any, str]:
    """The forward place of a reverse equation: of its line, in the layer nearest to its own."""
    if place in ahead:
        return place

    def near(other: tuple[Any, str]) -> int:
        pairs = zip(other[1].split("/"), place[1].split("/"), strict=False)
        return sum(a == b for a, b in pairs)

    same = [other for other in ahead if other[0] == place[0]]
    return max(same, key=near) if same else place


def _type(x: Any) -> str:
    return f"{x.dtype}[{','.join(map(str, x.shape))}]"


def _size(x: Any) -> int:
    return int(np.prod(x.shape)) * getattr(x.dtype, "itemsize", 4)
