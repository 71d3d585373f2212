"""What is said of a NaN or an Inf: where it was born, what was read there, and where it went."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from ...render.forms import Column, Table
from ...traces.record.rows import Source
from ..report import Report


@dataclass(frozen=True)
class Operand:
    """What an equation read.

    Attributes:
        value: Its number at the element, or what sums it up.
        type: Dtype and shape: "float32[2,3]".
        made: The argument it is, the primitive that made it, or "a constant".
        source: The line that made it, if one did.
        phase: "forward" or "backward": which pass made it.
    """

    value: str
    type: str
    made: str
    source: Source | None
    phase: str


@dataclass(frozen=True)
class Origin:
    """Where something that is not finite is born.

    Attributes:
        kind: "NaN", "Inf" or "-Inf".
        phase: "forward", "backward", or "argument".
        primitive: What was written there: "sqrt". Empty for an argument.
        equation: The primitive that ran: that one, or what its derivative is made of.
        derived: Whether it is a derivative of what was written.
        argument: The argument it stands in; empty otherwise.
        source: The line of code.
        called: The line further out that led there, where the first is in a library.
        layer: The path of the layer: "block/dense".
        iteration: The iteration of each loop around it, from the outermost in.
        lengths: How many iterations each of them has; None where it was not known before.
        element: Which element of the result.
        type: Dtype and shape of the result.
        operands: What was read.
        residual: Which of them the forward pass had kept for the backward pass, and is to blame.
    """

    kind: str
    phase: str
    primitive: str
    equation: str
    derived: bool
    argument: str
    source: Source | None
    called: Source | None
    layer: str
    iteration: tuple[int, ...]
    lengths: tuple[int | None, ...]
    element: tuple[int, ...]
    type: str
    operands: tuple[Operand, ...] = ()
    residual: Operand | None = None

    @property
    def line(self) -> str:
        """ "model.py:12"; the argument's name for an argument."""
        return self.argument or short(self.source)

    @property
    def what(self) -> str:
        """What is not finite: "the slope of sqrt", "log", "the argument x"."""
        if self.argument:
            return f"the argument {self.argument}"
        return f"the derivative of {self.primitive}" if self.derived else self.primitive


@dataclass(frozen=True)
class Link:
    """A place that what is not finite passed on its way.

    Attributes:
        primitive: What was written there.
        phase: Which pass it is in.
        source: The line.
        layer: The path of the layer.
    """

    primitive: str
    phase: str
    source: Source | None
    layer: str


@dataclass(frozen=True)
class Poisoned:
    """An output or a gradient that is not finite.

    Attributes:
        name: "the output", "the gradient of params['w']".
        kind: "NaN", "Inf" or "-Inf".
        element: The first element that is not finite.
    """

    name: str
    kind: str
    element: tuple[int, ...]


@dataclass(frozen=True)
class Nonfinite(Report):
    """Where a NaN or an Inf is born. It is false where output and gradient are finite.

    Attributes:
        function: The name of the function.
        poisoned: The outputs and gradients that are not finite.
        origin: Where that begins; None if nothing is wrong, or if it is written so.
        path: The places from there to the first of `poisoned` that it reaches.
        hint: What to do about it.
        harmless: Places where something not finite is born that reaches no output or gradient.
        note: What was not looked at.
    """

    function: str
    poisoned: tuple[Poisoned, ...]
    origin: Origin | None
    path: tuple[Link, ...]
    hint: str
    harmless: tuple[Origin, ...]
    note: str

    def __bool__(self) -> bool:
        return bool(self.poisoned)

    @property
    def heading(self) -> str:
        """What stands above its page."""
        return f"what is not finite in {self.function}"

    def parts(self) -> Sequence[Table | str]:
        """Where it begins, what was read there, where it goes, and what to do."""
        if not self.poisoned:
            both = "The output" if self.note else "Output and gradient"
            said = [f"{both} of {self.function} {'is' if self.note else 'are'} finite."]
        elif self.origin is None:
            said = [f"{self._lost()}.\nIt is written so: no equation makes it of finite numbers."]
        else:
            origin = self.origin
            hint = textwrap.fill(self.hint, 96)
            said = [self._first(origin), _facts(origin), _reads(origin), self._way(), hint]
        masked = [f"Harmless: {origin.kind} of {origin.what} at {origin.line}"
                  f"{_round(origin, ', iteration ')} reaches neither output nor gradient."
                  for origin in self.harmless[:5]]  # fmt: skip
        more = len(self.harmless) - 5
        rest = [f"And {more} more such places."] if more > 0 else []
        return [
            part
            for part in (*said, "\n".join([*masked, *rest]), textwrap.fill(self.note, 96))
            if part
        ]

    def _lost(self) -> str:
        names = [p.name for p in self.poisoned]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        kinds = " and ".join(dict.fromkeys(p.kind for p in self.poisoned))
        return f"{kinds} in {shown} of {self.function}"

    def _first(self, origin: Origin) -> str:
        code = f"\n    {origin.source.code}" if origin.source and origin.source.code else ""
        where = "in" if origin.argument else f"at {origin.line}, in"
        return f"{self._lost()}.\nIt begins as {origin.kind} {where} {origin.what}.{code}"

    def _way(self) -> Table | str:
        links = _shortened(self.path)
        if len(links) < 2:
            return ""
        rows = [
            (link.primitive, short(link.source) if link.source else "", link.phase, link.layer)
            for link in links
        ]
        shown = 4 if any(link.layer for link in links) else 3
        columns = tuple(map(Column, ("primitive", "line", "phase", "layer")))[:shown]
        title = f"The way to {self.poisoned[0].name}"
        return Table(columns, tuple(row[:shown] for row in rows), title)


def short(source: Source | None) -> str:
    """A line of code as "model.py:12", or "?"."""
    return str(source) if source else "?"


def _facts(origin: Origin) -> Table:
    place = "".join(f"[{', '.join(map(str, origin.element))}]" if origin.element else "")
    ran = f"{origin.equation}, the derivative of {origin.primitive}"
    facts = {
        "primitive": ran if origin.derived else origin.primitive,
        "phase": origin.phase,
        "called from": short(origin.called) if origin.called else "",
        "layer": origin.layer,
        "iteration": _round(origin),
        "element": f"{place} of {origin.type}" if place else "",
    }
    if origin.residual:
        kept = origin.residual
        line = f" at {short(kept.source)}" if kept.source else ""
        facts["residual to blame"] = f"{kept.value}, {kept.made}{line}"
    rows = tuple((name, text) for name, text in facts.items() if text)
    return Table((Column("what"), Column("found")), rows)


def _reads(origin: Origin) -> Table | str:
    rows = tuple(
        (operand.value, operand.type, operand.made, short(operand.source) if operand.source else "",
         operand.phase)
        for operand in origin.operands
    )  # fmt: skip
    columns = tuple(map(Column, ("value", "type", "made by", "line", "phase")))
    return Table(columns, rows, "What it read") if rows else ""


def _same(link: Link) -> tuple:
    return link.source, link.phase, link.primitive


def _round(origin: Origin, before: str = "") -> str:
    """ "3 of 8", "3 of 8, 0 of 2"."""
    both = zip(origin.iteration, origin.lengths, strict=True)
    said = [f"{i} of {length}" if length else str(i) for i, length in both]
    return before + ", ".join(said) if said else ""


def _shortened(path: Sequence[Link]) -> list[Link]:
    """A path with one link for those that follow each other on a line, and its middle left out."""
    links: list[Link] = []
    for link in path:
        if not links or _same(link) != _same(links[-1]):
            links.append(link)
    if len(links) <= 12:
        return links
    left_out = Link(f"... {len(links) - 10} more", "", None, "")
    return [*links[:5], left_out, *links[-5:]]
