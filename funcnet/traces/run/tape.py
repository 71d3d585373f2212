"""The tape: what a forward pass leaves for the reverse pass, and the rows while they are made."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ...jaxpr import jaxprs
from ...jaxpr.walk import At
from ..record.rows import Contribution, Row
from ..record.values import Value, value_of
from ..source import names


@dataclass(eq=False)
class Draft:
    """A row while it is being made; `at` is a place that may give it a variable of the source."""

    fields: dict[str, Any]
    at: At | None = None
    contributions: list[Contribution] = field(default_factory=list)

    def finished(self) -> Row:
        """The row."""
        own = tuple(self.contributions)
        return Row(**self.fields, adjoint=own[-1].total if own else None, contributions=own)


class Cell:
    """A value on its way through a program; one without a draft is a literal."""

    __slots__ = ("active", "adjoint", "draft", "dtype", "name", "shape", "tangent", "value")

    def __init__(self, value: Any, name: str, draft: Draft | None = None) -> None:
        self.value, self.name, self.draft = value, name, draft
        self.shape, self.dtype = tuple(jnp.shape(value)), getattr(value, "dtype", None)
        self.active = False
        self.tangent: Any = None
        self.adjoint: Any = None

    def note(self, **fields: Any) -> None:
        """Say more about the row of this value."""
        if self.draft is not None:
            self.draft.fields.update(fields)


class Entry(NamedTuple):
    """A step of the tape.

    Attributes:
        name: The row that its contributions come from.
        results: Its results that take an adjoint.
        pull: From their adjoints to (operand, contribution, formula), in order. An adjoint that
            is None is zero.
    """

    name: str
    results: Sequence[Cell]
    pull: Callable[[list[Any]], list[tuple[Cell, Any, str]]]


@dataclass
class Tape:
    """The steps so far, and the rows.

    Attributes:
        numbers: The number of each equation, by its path.
        keep_all: Whether rows keep every array whole.
        max_iterations: The longest loop that is run row by row.
        sample: How many iterations of a longer loop are opened; None for all.
        entries: The steps that a gradient flows through.
        known: What was derived or compiled for this trace alone.
        trusted: The names of custom rules that were run and are not proved.
    """

    numbers: dict[tuple[int, ...], int]
    keep_all: bool = False
    max_iterations: int = 1000
    sample: int | None = None
    entries: list[Entry] = field(default_factory=list)
    known: dict[Any, Any] = field(default_factory=dict)
    trusted: dict[str, None] = field(default_factory=dict)
    _drafts: list[Draft] = field(default_factory=list)
    _constants: dict[int, Cell] = field(default_factory=dict)

    def record(self, x: Any) -> Value:
        """The record of an array."""
        return value_of(x, self.keep_all)

    def cell(
        self, value: Any, name: str, kind: str, op: str = "", at: At | None = None, **fields: Any
    ) -> Cell:
        """A new row, where it stands and what else there is to say, and its value as a cell."""
        fields |= {"name": name, "kind": kind, "op": op or kind, "value": self.record(value)}
        if at is not None:
            fields |= {"scope": at.scope, "source": names.source(at.places)}
            fields.setdefault("within", at.within)
        cell = Cell(value, name, Draft(fields))
        assert cell.draft is not None
        self._drafts.append(cell.draft)
        cell.active = fields.get("active", False)
        return cell

    def move(self, cell: Cell, tangent: Any) -> None:
        """Give a value its tangent, if it has one."""
        cell.tangent = tangent
        if tangent is not None:
            cell.note(tangent=self.record(tangent))

    def constant(self, value: Any) -> Cell:
        """The cell of an array that the program closes over."""
        cell = self._constants.get(id(value))
        if cell is None:
            array = value if hasattr(value, "dtype") else jnp.asarray(value)
            cell = self.cell(array, f"c{len(self._constants)}", "constant")
            cell.value = value
            self._constants[id(value)] = cell
        return cell

    def name(self, at: At, *more: object) -> str:
        """The name of the row at a place: `v3`, in loops `v3[2,0]`."""
        where = ",".join(map(str, (*at.iterations, *more)))
        return f"v{self.numbers[at.path]}" + (f"[{where}]" if where else "")

    def rows(self) -> tuple[Row, ...]:
        """All rows, finished."""
        placed = [(draft, draft.at) for draft in self._drafts if draft.at is not None]
        named = names.variables([(at.iterations, at.calls) for _, at in placed])
        for (draft, _), variable in zip(placed, named, strict=True):
            draft.fields["variable"] = variable
        return tuple(draft.finished() for draft in self._drafts)


def filled(cells: Sequence[Cell], adjoints: Sequence[Any]) -> list[Any]:
    """Adjoints or tangents of cells, with zeros for those that have none."""
    pairs = zip(cells, adjoints, strict=True)
    return [_zeros(cell.shape, cell.dtype) if ct is None else ct for cell, ct in pairs]


@functools.lru_cache(maxsize=256)
def _zeros(shape: tuple[int, ...], dtype: Any) -> Any:
    plain = isinstance(dtype, np.dtype) and jaxprs.is_inexact(np.empty((), dtype))
    return np.zeros(shape, dtype) if plain else jnp.zeros(shape, dtype)
