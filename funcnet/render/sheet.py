"""A page of plain tables and text, with everything in it: it asks for nothing else."""

from collections.abc import Sequence
from html import escape

from .forms import Table

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1d22; --paper: #fff; --line: #d5d8de; --soft: #f4f5f8 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e5e7ec; --paper: #15171c; --line: #363a44; --soft: #1d2027 }
}
body { margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: var(--ink);
       background: var(--paper); font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font: 13px/1.5 ui-monospace, monospace }
th { text-align: left; border-bottom: 2px solid var(--line); white-space: nowrap }
th, td { padding: .2rem .8rem .2rem 0; vertical-align: top; white-space: pre }
tbody tr:nth-child(even) { background: var(--soft) }
.right { text-align: right }
pre { font: 13px/1.5 ui-monospace, monospace; white-space: pre-wrap; margin: .5rem 0 }
"""


_RIGHT = ' class="right"'


def sheet(title: str, parts: Sequence[Table | str]) -> str:
    """A page with a heading, and below it tables and paragraphs in their order.

    >>> from funcnet.render.forms import Column
    >>> page = sheet("cost", ["In all 12.", Table((Column("op"),), (("a < b",),))])
    >>> "<h1>cost</h1>" in page, "<td>a &lt; b</td>" in page
    (True, True)
    """
    body = "\n".join(_table(part) if isinstance(part, Table) else _text(part) for part in parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def _text(part: str) -> str:
    return f"<pre>{escape(part)}</pre>"


def _table(form: Table) -> str:
    def row(cells: tuple[str, ...], tag: str) -> str:
        marked = [
            f"<{tag}{_RIGHT if column.right else ''}>{escape(cell)}</{tag}>"
            for cell, column in zip(cells, form.columns, strict=True)
        ]
        return f"<tr>{''.join(marked)}</tr>"

    head = row(tuple(column.heading for column in form.columns), "th")
    rows = "\n".join(row(cells, "td") for cells in form.rows)
    title = f"<h2>{escape(form.title)}</h2>\n" if form.title else ""
    notes = "".join(f"\n{_text(note)}" for note in form.notes)
    table = f"<table><thead>{head}</thead>\n<tbody>{rows}</tbody></table>"
    return f'{title}<div class="scroll">{table}</div>{notes}'
