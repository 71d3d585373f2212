"""Where a gradient is cut: what a value goes into that has no derivative at all."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from .record.rows import Row

INDICES = ("argmax", "argmin", "argsort", "sort", "top_k", "searchsorted")


class Cut(NamedTuple):
    """An end of a gradient's path.

    Attributes:
        row: The row that ends it, or the last that is made of the value; None if there is none.
        why: What is said of it: "stop_gradient ends it".
        unused: Whether the path ends because nothing goes on with it.
    """

    row: Row | None
    why: str
    unused: bool = False

    def __str__(self) -> str:
        where = "" if self.row is None or self.row.source is None else f" ({self.row.source})"
        return f"{self.why}{where}"


def cuts(rows: Sequence[Row], start: str, outputs: Collection[str] | None = None) -> list[Cut]:
    """Where all paths of a row end that no gradient comes back to.

    Args:
        rows: Those of a trace.
        start: The name of the row.
        outputs: The names of the rows that the function returns; None if they are not known.

    Returns:
        The equations without a derivative that the row goes into, in order: of those that the
        output depends on, if there are any, else of all. Without any, one that says that the row,
        or what is made of it, is not used.
    """
    reached, ends = {start}, []
    floating = {start}
    for row in rows:
        if not reached.isdisjoint(row.operands):
            reached.add(row.name)
            if row.active:
                floating.add(row.name)
            elif not floating.isdisjoint(row.operands):
                ends.append(row)
    needed = _needed(rows, outputs)
    used = [row for row in ends if row.name in needed]
    if used:
        return [Cut(row, _reason(row)) for row in used]
    last = [row for row in rows if row.name in reached and row.name != start]
    choosing = [row for row in ends if not _is_floating(row)]
    if choosing:
        return [Cut(row, f"{_reason(row)}, and only chooses what is run") for row in choosing]
    called = next((row.variable or row.name for row in rows if row.name == start), start)
    if last:
        return [Cut(last[-1], f"what is made of {called} is not used", True)]
    return [Cut(None, f"{called} is not used", True)]


def _needed(rows: Sequence[Row], outputs: Collection[str] | None) -> set[str]:
    """The rows that the outputs depend on."""
    if outputs is None:
        return {row.name for row in rows}
    needed = set(outputs)
    for row in reversed(rows):
        if row.name in needed:
            needed.update(row.operands)
    return needed


def _is_floating(row: Row) -> bool:
    return row.value.dtype.startswith(("float", "bfloat", "complex"))


def _reason(row: Row) -> str:
    """Why an equation ends a gradient."""
    if row.op == "stop_gradient":
        return "stop_gradient ends it"
    if row.op in INDICES:
        return f"{row.op} gives an index"
    if row.op == "convert_element_type":
        return f"a conversion to {row.value.dtype} ends it"
    if row.value.dtype == "bool":
        return f"{row.op} compares"
    if not _is_floating(row):
        return f"{row.op} gives {row.value.dtype}"
    return f"{row.op} has no derivative"
