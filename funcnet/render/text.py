"""Forms as plain text, for a terminal."""

import math
import shutil

from .forms import Column, Table

NARROW = 10
"""Columns are not cut below so many characters."""

EIGHTHS = " ▏▎▍▌▋▊▉"


def terminal_width() -> int:
    """The columns of the terminal; 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns


def table(form: Table, width: int | None = None) -> str:
    """A table with its columns aligned, a rule under the headings and no line ending in a space.

    Args:
        form: The table.
        width: The most characters of a line, kept as far as the columns give; None for any.

    >>> from funcnet.render.forms import Column
    >>> print(table(Table((Column("op"), Column("bytes", right=True)), (("dense", "12"),))))
    op     bytes
    -----  -----
    dense     12
    """
    headings = tuple(column.heading for column in form.columns)
    grid = (headings, *form.rows)
    widths = [max(len(row[i]) for row in grid) for i in range(len(headings))]
    if width is not None:
        widths = _fitted(widths, form.columns, width)

    def line(cells: tuple[str, ...]) -> str:
        padded = (
            cut(cell, wide, column.gives).rjust(wide)
            if column.right
            else cut(cell, wide, column.gives).ljust(wide)
            for cell, wide, column in zip(cells, widths, form.columns, strict=True)
        )
        return "  ".join(padded).rstrip()

    rule = "  ".join("-" * wide for wide in widths)
    title = [form.title] if form.title else []
    return "\n".join([*title, line(headings), rule, *(line(row) for row in form.rows), *form.notes])


def _fitted(widths: list[int], columns: tuple[Column, ...], most: int) -> list[int]:
    """Widths of columns that fit a line, taken from the widest of those that give."""
    widths = list(widths)
    giving = [i for i, column in enumerate(columns) if column.gives]
    over = sum(widths) + 2 * (len(widths) - 1) - most
    while over > 0 and giving:
        widest = max(giving, key=lambda i: widths[i])
        if widths[widest] <= NARROW:
            break
        widths[widest] -= 1
        over -= 1
    return widths


def cut(cell: str, most: int, gives: str = "end") -> str:
    """A cell that fits: the part that is left out is an ellipsis at its end or its start.

    >>> cut("['dense']['w']", 6, "start"), cut("sum(v1 * v2)", 6)
    ("…['w']", 'sum(v…')
    """
    if len(cell) <= most or not gives:
        return cell
    return f"…{cell[len(cell) - most + 1 :]}" if gives == "start" else f"{cell[: most - 1]}…"


def bar(x: float, low: float, high: float, most: int = 8) -> str:
    """A bar for a number between two others, on a logarithmic scale; "" for 0 and what is none.

    >>> bar(1.0, 1e-4, 1.0, 4), bar(1e-2, 1e-4, 1.0, 4), bar(0.0, 1e-4, 1.0, 4)
    ('████', '██', '')
    """
    if not 0 < x < math.inf:
        return ""
    share = (math.log(x) - math.log(low)) / (math.log(high) - math.log(low))
    eighths = max(1, round(8 * most * min(share, 1.0)))
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()
