"""Amounts summed by layer, line or op, as a table with shares and bars."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from ..render.forms import Column, Table
from ..traces.record.rows import Source
from ..types import require

KEYS = ("layer", "op", "line")
"""What amounts can be summed by."""

_WIDTH = 12
_EIGHTHS = " ▏▎▍▌▋▊▉"


class Entry(NamedTuple):
    """Something that has a place in a program, and amounts.

    Attributes:
        layer: Its layer, "block/dense"; "" outside of all.
        source: Its line.
        op: Its primitive.
        amounts: How much of each kind; all entries of a report have the same kinds.
    """

    layer: str
    source: Source | None
    op: str
    amounts: tuple[int, ...]


class Group(NamedTuple):
    """All entries of one layer, line or op.

    Attributes:
        name: The layer's path, "file.py:3", or the primitive.
        amounts: Their sums.
        code: The line itself, of a line.
    """

    name: str
    amounts: tuple[int, ...]
    code: str = ""


def grouped(where: str, entries: Iterable[Entry], by: str, depth: int | None = None) -> list[Group]:
    """The sums by one of `KEYS`, the largest first amount first; none where all are 0.

    Args:
        where: The function that was asked, for an error.
        entries: What is summed.
        by: "layer", "op" or "line".
        depth: How many names of a layer's path count; None for all.

    Raises:
        ValueError: If `by` is none of these.

    >>> entries = [Entry("a/b", None, "add", (1,)), Entry("a/c", None, "mul", (2,))]
    >>> [(group.name, group.amounts) for group in grouped("cost", entries, "layer", depth=1)]
    [('a', (3,))]
    """
    require(by in KEYS, where, "one of 'layer', 'op' and 'line'", repr(by), "Sum by one of these.")
    found: dict[object, Group] = {}
    for entry in entries:
        key, name, code = _key(entry, by, depth)
        old = found.get(key)
        sums = entry.amounts
        if old is not None:
            sums = tuple(a + b for a, b in zip(old.amounts, sums, strict=True))
        found[key] = Group(name, sums, code)
    some = [group for group in found.values() if any(group.amounts)]
    return sorted(some, key=lambda group: group.amounts, reverse=True)


def _key(entry: Entry, by: str, depth: int | None) -> tuple[object, str, str]:
    if by == "line":
        source = entry.source
        return (source[:2], str(source), source.code) if source else (None, "(no line)", "")
    name = entry.op
    if by == "layer":
        name = "/".join(entry.layer.split("/")[:depth]) or "(no layer)"
    return name, name, ""


def table(
    groups: Sequence[Group],
    by: str,
    kinds: Sequence[tuple[str, Callable[[int], str]] | None],
    most: int = 20,
) -> Table:
    """Groups as a table: each amount, then the share of the first amount as a number and a bar.

    Args:
        groups: The groups in order.
        by: What they were summed by.
        kinds: For each amount, the heading of its column and how it is written; None for one
            that has no column.
        most: How many have a row of their own; what follows is summed in one.

    >>> form = table([Group("dot", (3,)), Group("add", (1,))], "op", [("count", str)])
    >>> form.rows
    (('dot', '3', '75%', '█████████'), ('add', '1', '25%', '███'))
    """
    if len(groups) > most + 1:
        sums = zip(*(group.amounts for group in groups[most:]), strict=True)
        rest = Group(f"{len(groups) - most} others", tuple(map(sum, sums)))
        groups = [*groups[:most], rest]
    whole = sum(group.amounts[0] for group in groups) or 1
    shares = [group.amounts[0] / whole for group in groups]
    bars = any(map(bar, shares))
    names = [_short(group.name, 30 if by == "line" else 44) for group in groups]
    room = 48 - max(map(len, names), default=0)
    rows = []
    for name, group, share in zip(names, groups, shares, strict=True):
        pairs = zip(group.amounts, kinds, strict=True)
        written = (kind[1](n) for n, kind in pairs if kind is not None)
        code = [_short(group.code, room)] * (by == "line")
        ends = [percent(share), *[bar(share)] * bars]
        rows.append((name, *code, *written, *ends))
    columns = [Column(by), *[Column("")] * (by == "line")]
    columns += [Column(kind[0], True) for kind in kinds if kind is not None]
    columns += [Column("share", True), *[Column("")] * bars]
    return Table(tuple(columns), tuple(rows), f"By {by}")


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."


def amount(n: float) -> str:
    """A large number as a person reads it.

    >>> [amount(n) for n in (0, 999, 1500, 268_435_456, 8.64e14, math.inf)]
    ['0', '999', '1.5 k', '268.4 M', '864.0 T', 'no limit']
    """
    if n == math.inf:
        return "no limit"
    for unit in ("", "k", "M", "G", "T"):
        if n < 999.95:
            return f"{n:.1f} {unit}" if unit else f"{n:.0f}"
        n /= 1000
    return f"{n:.1f} P"


def percent(share: float) -> str:
    """A share as a person writes it.

    >>> [percent(share) for share in (0.0, 0.0004, 0.034, 0.41, 1.0)]
    ['0%', '<0.1%', '3.4%', '41%', '100%']
    """
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{100 * share:.1f}%" if 0 < share < 0.0995 else f"{100 * share:.0f}%"


def bar(share: float) -> str:
    """A share as a bar of up to 12 blocks.

    >>> bar(0.5), bar(0.25), bar(0.0)
    ('██████', '███', '')
    """
    eighths = round(8 * _WIDTH * share)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()
