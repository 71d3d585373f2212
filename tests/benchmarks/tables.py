"""Rows of `steps` as text, as tables of docs/performance.md and as its picture."""

import os
import platform
import re
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from .models import MODELS

MARKS = "<!-- measured -->", "<!-- end -->"
JAX = ("plain", "nnx", "equinox", "haiku", "funcnet")
NAMES = {
    "plain": "plain JAX",
    "nnx": "Flax NNX",
    "equinox": "Equinox",
    "haiku": "Haiku",
    "torch": "PyTorch",
    "torch.compile": "torch.compile",
    "funcnet": "funcnet",
    "funcnet x10": "funcnet, 10 a call",
}
COLORS = ("0.75", "0.6", "0.45", "0.3", "C1", "#ffc48c", "C0", "#8cc0e8")
Rows = list[dict]


def ratio(row: dict, base: dict) -> tuple[float, float, float]:
    """Of the minima; and the least and the greatest of the rounds."""
    each = [a / b for a, b in zip(row["rounds"], base["rounds"], strict=True)]
    return row["minimum"] / base["minimum"], min(each), max(each)


def text(rows: Rows) -> str:
    """For the terminal."""
    base = rows[0]
    lines = [f"{'':16}{'min ms':>10}{'median':>10}{'ratio':>8}  {'of rounds':14}{'MB':>8}  apart"]
    for row in rows:
        best, low, high = ratio(row, base)
        size = "" if row["temporary"] is None else f"{row['temporary'] / 1e6:.1f}"
        lines.append(
            f"{row['peer']:16}{1e3 * row['minimum']:10.2f}{1e3 * row['median']:10.2f}{best:8.2f}  "
            f"{f'{low:.2f} to {high:.2f}':14}{size:>8}  {row['apart']:.1e}"
        )
    return "\n".join(lines)


def grid(kept: dict[str, Rows], dtype: str, cell: Callable, peers: Sequence[str]) -> str:
    """A table of Markdown: a line for each network, a column for each library."""
    found = {model: kept.get(f"{model} {dtype}", []) for model in MODELS}
    here = {row["peer"] for rows in found.values() for row in rows}
    peers = [peer for peer in peers if peer in here]
    lines = ["| | " + " | ".join(NAMES[peer] for peer in peers) + " |"]
    lines.append("|---|" + "---|" * len(peers))
    for model, rows in found.items():
        if not rows:
            continue
        by_peer = {row["peer"]: row for row in rows}
        cells = [cell(by_peer[peer], rows) if peer in by_peer else "" for peer in peers]
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def milliseconds(row: dict, rows: Rows) -> str:
    fastest = row["minimum"] == min(other["minimum"] for other in rows)
    shown = f"{1e3 * row['minimum']:.3g}"
    return f"{f'**{shown}**' if fastest else shown} ({1e3 * row['median']:.3g})"


def shares(row: dict, rows: Rows) -> str:
    best, low, high = ratio(row, rows[0])
    return f"{best:.2f} ({low:.2f} to {high:.2f})"


def megabytes(row: dict, rows: Rows) -> str:
    return f"{row['temporary'] / 1e6:.1f}"


def first(row: dict, rows: Rows) -> str:
    return f"{row['first']:.1f}"


def apart(row: dict, rows: Rows) -> str:
    return f"{row['apart']:.0e}"


ALL = tuple(NAMES)
SECTIONS = (
    (
        "Milliseconds a step: the least of all rounds; in brackets the median of their medians.",
        milliseconds,
        ALL,
    ),
    (
        "Time over that of the first column: of the least of all rounds; in brackets the range of "
        "the rounds' own ratios.",
        shares,
        ALL,
    ),
    ("Megabytes that a step holds besides its arguments and results.", megabytes, JAX),
    ("Seconds until the first call returns: tracing, compiling and one step.", first, ALL),
    ("How far gradients are from those in float64, as a share of their norm.", apart, ALL),
)


def versions() -> str:
    """Of what was measured with, and how busy the machine was in the last quarter of an hour."""
    names = ("jax", "flax", "equinox", "dm-haiku", "torch")
    found = []
    for name in names:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    load = f"The load average was {os.getloadavg()[2]:.1f} on {os.cpu_count()} cores."
    return f"Python {platform.python_version()}, {', '.join(found)}. {load}"


def measured(kept: dict[str, Rows]) -> str:
    """The tables, of each dtype that there are rows of."""
    parts = [versions()]
    for dtype in ("float32", "bfloat16"):
        if not any(key.endswith(dtype) for key in kept):
            continue
        counts = {len(row["rounds"]) for key in kept if key.endswith(dtype) for row in kept[key]}
        parts.append(f"### {dtype}\n\n{' or '.join(map(str, sorted(counts)))} rounds.")
        parts += [f"{title}\n\n{grid(kept, dtype, *how)}" for title, *how in SECTIONS]
    return "\n\n".join(parts)


def write(kept: dict[str, Rows], docs: Path) -> None:
    """Put the tables between the marks of the page, and draw the picture."""
    page = docs / "performance.md"
    start, end = MARKS
    between = re.compile(f"{re.escape(start)}.*{re.escape(end)}", re.S)
    new = f"{start}\n{measured(kept)}\n{end}"
    page.write_text(between.sub(lambda _: new, page.read_text()))
    draw(kept, docs / "pictures" / "performance.png")


def draw(kept: dict[str, Rows], path: Path) -> None:
    """Bars: for each network, the time of each library over that of plain JAX."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    found = {model: kept[key] for model in MODELS if (key := f"{model} float32") in kept}
    here = {row["peer"] for rows in found.values() for row in rows}
    peers = [peer for peer in NAMES if peer in here]
    width = 0.8 / len(peers)
    colors = dict(
        zip(NAMES, ("0.75", "0.6", "0.45", "0.3", "C1", "#ffc48c", "C0", "#8cc0e8"), strict=True)
    )
    figure, axes = pyplot.subplots(figsize=(9, 3.6), layout="constrained")
    for place, peer in enumerate(peers):
        at, heights, spans = [], [], ([], [])
        for group, rows in enumerate(found.values()):
            for row in (row for row in rows if row["peer"] == peer):
                best, low, high = ratio(row, rows[0])
                at.append(group + (place - (len(peers) - 1) / 2) * width)
                heights.append(best)
                spans[0].append(max(0.0, best - low))
                spans[1].append(max(0.0, high - best))
        longer = [height - 1 for height in heights]
        axes.bar(at, longer, width * 0.95, 1, color=colors[peer], label=NAMES[peer])
        axes.errorbar(at, heights, spans, fmt="none", ecolor="0.2", elinewidth=0.6)
    axes.axhline(1, color="0.2", linewidth=0.8, linestyle=":")
    axes.set_xticks(range(len(found)), list(found))
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("time over plain JAX")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=4, frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
