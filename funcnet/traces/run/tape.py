"""The tape: what a forward pass leaves for the reverse pass, and the rows while they are made."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax.numpy as jnp

from ..record.rows import Row
from ..record.values import Value, value_of
from ..source.names import variables
from ..source.places import Place


class Draft:
    """A row while it is being made: `changes` are the fields found so far."""

    def __init__(self, name: str, kind: str, op: str, value: Value) -> None:
        self.row = Row(name, kind, op, "", (), "", "", (), None, value)
        self.changes: dict[str, Any] = {}
        self.contributions: list = []

    def finished(self) -> Row:
        """The row."""
        contributions = tuple(self.contributions)
        adjoint = contributions[-1].total if contributions else None
        return replace(self.row, **self.changes, adjoint=adjoint, contributions=contributions)


class Cell:
    """A value on its way through a program; one without a draft is a literal."""

    __slots__ = ("active", "adjoint", "draft", "dtype", "name", "shape", "tangent", "value")

    def __init__(self, value: Any, name: str, draft: Draft | None = None) -> None:
        self.value, self.name, self.draft = value, name, draft
        self.shape, self.dtype = tuple(jnp.shape(value)), getattr(value, "dtype", None)
        self.active = False
        self.tangent: Any = None
        self.adjoint: Any = None

    def note(self, **changes: Any) -> None:
        """Say more about the row of this value."""
        if self.draft is not None:
            self.draft.changes.update(changes)


class Entry(NamedTuple):
    """A step of the tape.

    Attributes:
        name: The row that its contributions come from.
        results: Its results that take an adjoint.
        pull: From their adjoints to (operand, contribution, formula), in order. An adjoint that
            is None is zero.
    """

    name: str
    results: tuple[Cell, ...]
    pull: Callable[[list[Any]], list[tuple[Cell, Any, str]]]


@dataclass(frozen=True)
class At:
    """A place in a program.

    Attributes:
        path: Indices of the equations around it and of their branches.
        iterations: The iteration of each loop around it.
        within: Loops, branches and layers around it, for a reader.
        scope: Its layer.
        places: Where it was written.
        remat: The policy of the remat around it, in a tuple of one; None outside.
        library: Whether it is inside a function of JAX itself.
    """

    path: tuple[int, ...] = ()
    iterations: tuple[int, ...] = ()
    within: tuple[str, ...] = ()
    scope: str = ""
    places: tuple[Place, ...] = ()
    remat: tuple | None = None
    library: bool = False

    @property
    def calls(self) -> tuple[Place, ...]:
        """The calls it stands in. What a jitted function has inside may have been traced for
        another call, so that only its own line counts."""
        return self.places if len(self.path) == 1 else self.places[:1]

    def down(self, child: int, *within: str, **changes: Any) -> "At":
        """The place of a jaxpr inside this equation."""
        path = (*self.path, child)
        return replace(self, path=path, within=(*self.within, *within), **changes)


@dataclass
class Tape:
    """The steps so far, and the rows.

    Attributes:
        numbers: The number of each equation, by its path.
        keep_all: Whether rows keep every array whole.
        max_iterations: The longest loop that is run row by row.
        sample: How many iterations of a longer loop are opened; None for all.
    """

    numbers: dict[tuple[int, ...], int]
    keep_all: bool = False
    max_iterations: int = 1000
    sample: int | None = None
    entries: list[Entry] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    constants: dict[int, Cell] = field(default_factory=dict)
    written: list[tuple[Draft, tuple[int, ...], tuple[Place, ...]]] = field(default_factory=list)
    rules: dict[Hashable, Any] = field(default_factory=dict)
    lines: dict[int, Any] = field(default_factory=dict)

    def record(self, x: Any) -> Value:
        """The record of an array."""
        return value_of(x, self.keep_all)

    def cell(self, value: Any, name: str, kind: str, op: str) -> Cell:
        """A new row, and its value as a cell."""
        draft = Draft(name, kind, op, self.record(value))
        self.drafts.append(draft)
        return Cell(value, name, draft)

    def constant(self, value: Any) -> Cell:
        """The cell of an array that the program closes over."""
        cell = self.constants.get(id(value))
        if cell is None:
            array = value if hasattr(value, "dtype") else jnp.asarray(value)
            cell = self.cell(array, f"c{len(self.constants)}", "constant", "constant")
            cell.value = value
            self.constants[id(value)] = cell
        return cell

    def name(self, at: At) -> str:
        """The name of the row at a place."""
        where = f"[{','.join(map(str, at.iterations))}]" if at.iterations else ""
        return f"v{self.numbers[at.path]}{where}"

    def rows(self) -> tuple[Row, ...]:
        """All rows, finished."""
        named = variables([(iterations, calls) for _, iterations, calls in self.written])
        for (draft, _, _), variable in zip(self.written, named, strict=True):
            draft.changes["variable"] = variable
        return tuple(draft.finished() for draft in self.drafts)
