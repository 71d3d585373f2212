"""Forms as plain text, for a terminal."""

from .forms import Table


def table(form: Table) -> str:
    """A table with its columns aligned, a rule under the headings and no line ending in a space.

    >>> from funcnet.render.forms import Column
    >>> print(table(Table((Column("op"), Column("bytes", right=True)), (("dense", "12"),))))
    op     bytes
    -----  -----
    dense     12
    """
    headings = tuple(column.heading for column in form.columns)
    grid = (headings, *form.rows)
    widths = [max(len(row[i]) for row in grid) for i in range(len(headings))]

    def line(cells: tuple[str, ...]) -> str:
        padded = (
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(cells, widths, form.columns, strict=True)
        )
        return "  ".join(padded).rstrip()

    rule = "  ".join("-" * width for width in widths)
    title = [form.title] if form.title else []
    return "\n".join([*title, line(headings), rule, *(line(row) for row in form.rows), *form.notes])
