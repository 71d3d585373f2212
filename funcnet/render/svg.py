"""Graphs drawn: layers from the top down, without Graphviz."""

from html import escape
from typing import NamedTuple

from .forms import Graph, Node

WIDTH, HEIGHT, GAP, DROP = 190, 40, 22, 34
COLORS = {"argument": "#dbeafe", "constant": "#e5e7eb", "rule": "#fef3c7"}

STYLE = """text{font:11px system-ui,Helvetica,Arial,sans-serif;fill:#0f172a}
.t{font-weight:600}.g{fill:#b91c1c}.s{fill:#64748b;font-size:10px}
.e{fill:none;stroke:#94a3b8}.n{stroke:#475569}
.c{fill:#64748b0d;stroke:#94a3b8;stroke-dasharray:4 3}"""


class Spot(NamedTuple):
    """Where a node is: its left upper corner."""

    x: float
    y: float


def graph(form: Graph) -> str:
    """A graph as an SVG picture: operands above, results below, a box around each layer."""
    spots = placed(form)
    right = max((spot.x for spot in spots.values()), default=0) + WIDTH + GAP
    bottom = max((spot.y for spot in spots.values()), default=0) + HEIGHT + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {right:.0f} {bottom:.0f}" '
        f'width="{right:.0f}" height="{bottom:.0f}" role="img">',
        f"<title>{escape(form.title)}</title><style>{STYLE}</style>",
        f'<rect width="{right:.0f}" height="{bottom:.0f}" fill="#fff"/>',
    ]
    parts += boxes(form, spots)
    for a, b in form.edges:
        start, end = spots[a], spots[b]
        x, y = start.x + WIDTH / 2, start.y + HEIGHT
        u, v = end.x + WIDTH / 2, end.y
        bend = max(14.0, (v - y) / 2)
        parts.append(
            f'<path class="e" d="M{x:.0f} {y:.0f}C{x:.0f} {y + bend:.0f} {u:.0f} {v - bend:.0f} '
            f'{u:.0f} {v:.0f}"/>'
        )
    parts += [drawn(node, spots[node.name]) for node in form.nodes]
    return "\n".join([*parts, "</svg>"])


def placed(form: Graph) -> dict[str, Spot]:
    """A place for each node: below its operands, near the middle of them."""
    above: dict[str, list[str]] = {node.name: [] for node in form.nodes}
    below: dict[str, list[str]] = {node.name: [] for node in form.nodes}
    for a, b in form.edges:
        above[b].append(a)
        below[a].append(b)
    rank: dict[str, int] = {}
    for node in form.nodes:
        rank[node.name] = max((rank.get(a, 0) + 1 for a in above[node.name]), default=0)
    for node in reversed(form.nodes):
        if not above[node.name] and below[node.name]:
            rank[node.name] = max(0, min(rank[b] for b in below[node.name]) - 1)
    levels: dict[int, list[str]] = {}
    for node in form.nodes:
        levels.setdefault(rank[node.name], []).append(node.name)
    order = ordered(levels, above, below)
    widest = max((len(level) for level in order.values()), default=1)
    spots: dict[str, Spot] = {}
    for level, names in order.items():
        start = (widest - len(names)) / 2
        for i, name in enumerate(names):
            x = GAP + (start + i) * (WIDTH + GAP)
            spots[name] = Spot(x, 30 + level * (HEIGHT + DROP))
    return spots


def ordered(
    levels: dict[int, list[str]], above: dict[str, list[str]], below: dict[str, list[str]]
) -> dict[int, list[str]]:
    """The levels with neighbours close to each other, by a few sweeps of the barycentre rule."""
    place = {name: float(i) for names in levels.values() for i, name in enumerate(names)}
    for sweep in range(6):
        near = above if sweep % 2 == 0 else below
        for level in sorted(levels, reverse=sweep % 2 == 1):

            def middle(name: str, near: dict[str, list[str]] = near) -> float:
                around = near[name]
                return sum(place[n] for n in around) / len(around) if around else place[name]

            levels[level].sort(key=middle)
            place.update((name, float(i)) for i, name in enumerate(levels[level]))
    return levels


def boxes(form: Graph, spots: dict[str, Spot]) -> list[str]:
    """A dashed box around the nodes of each layer, branch or iteration."""
    groups: dict[tuple[str, ...], list[Spot]] = {}
    for node in form.nodes:
        for depth in range(1, len(node.within) + 1):
            groups.setdefault(node.within[:depth], []).append(spots[node.name])
    parts: list[str] = []
    for path in sorted(groups, key=len):
        inside = groups[path]
        left, top = min(s.x for s in inside) - 8, min(s.y for s in inside) - 16
        wide = max(s.x for s in inside) + WIDTH + 8 - left
        high = max(s.y for s in inside) + HEIGHT + 6 - top
        name = escape("/".join(path))
        parts.append(
            f'<g><rect class="c" x="{left:.0f}" y="{top:.0f}" width="{wide:.0f}" '
            f'height="{high:.0f}" rx="6"/><text class="s" x="{left + 6:.0f}" y="{top + 11:.0f}">'
            f"{name}</text></g>"
        )
    return parts


def drawn(node: Node, spot: Spot) -> str:
    """A node: its title over data | gradient."""
    color = COLORS.get(node.kind, "#ffffff")
    x, y = spot
    middle = y + HEIGHT / 2
    return (
        f"<g><title>{escape(f'{node.name}: {node.title} {node.value} | {node.gradient}')}</title>"
        f'<rect class="n" x="{x:.0f}" y="{y:.0f}" width="{WIDTH}" height="{HEIGHT}" rx="4" '
        f'fill="{color}"/><path class="e" d="M{x:.0f} {middle:.0f}h{WIDTH}m-{WIDTH / 2:.0f} 0v'
        f'{HEIGHT / 2:.0f}"/>'
        f'<text class="t" x="{x + 6:.0f}" y="{y + 14:.0f}">{escape(short(node.title, 28))}</text>'
        f'<text x="{x + 6:.0f}" y="{y + 34:.0f}">{escape(short(node.value, 14))}</text>'
        f'<text class="g" x="{x + WIDTH / 2 + 6:.0f}" y="{y + 34:.0f}">'
        f"{escape(short(node.gradient, 14))}</text></g>"
    )


def short(text: str, most: int) -> str:
    """Text that fits."""
    return text if len(text) <= most else text[: most - 1] + "…"
