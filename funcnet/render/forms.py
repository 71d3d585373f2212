"""Neutral forms of what is shown. A record turns itself into these; a renderer reads only them."""

from typing import NamedTuple


class Column(NamedTuple):
    """A column of a table.

    Attributes:
        heading: What stands above it.
        right: Whether its cells are flushed right, as numbers are.
        gives: Where its cells are cut if the table is too wide: "end" or "start"; "" if nowhere.
    """

    heading: str
    right: bool = False
    gives: str = ""


class Table(NamedTuple):
    """Rows of text under columns, with a title above and notes below (either may be empty)."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    notes: tuple[str, ...] = ()


def count(n: int) -> str:
    """A whole number with thousands apart: `1,234,567`."""
    return f"{n:,}"


def size(n: int) -> str:
    """A number of bytes in the unit a person would use: `512 B`, `1.5 kB`, `2.0 MB` (1 kB = 1000).

    >>> size(999), size(1536), size(44_700_000)
    ('999 B', '1.5 kB', '44.7 MB')
    """
    amount = float(n)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 999.5:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


class Node(NamedTuple):
    """A node of a graph: a title, a value, a gradient (or ""), and the clusters it stands in."""

    name: str
    title: str
    value: str
    gradient: str
    within: tuple[str, ...] = ()
    kind: str = ""


class Graph(NamedTuple):
    """Nodes, and edges from one node's name to another's."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]
    title: str = ""
