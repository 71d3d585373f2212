"""Where a gradient does not arrive: arguments without one, and branches that are never taken."""

from collections.abc import Iterator, Sequence

from ...jaxpr.places import Place
from .findings import Finding, shown
from .graph import FLAT, Graph, Node, Reach

_CUTS = {
    "stop_gradient": "stop_gradient", "floor": "floor, whose slope is 0,",
    "ceil": "ceil, whose slope is 0,", "round": "a rounding, whose slope is 0,",
    "sign": "sign, whose slope is 0,", "argmax": "argmax", "argmin": "argmin",
    "convert_element_type": "a conversion to {dtype}", "is_finite": "a comparison",
}  # fmt: skip
_COMPARISONS = {"lt", "le", "gt", "ge", "eq", "ne"}


def without_gradient(inputs: Sequence[tuple[str, Node]], reach: Reach) -> Iterator[Finding]:
    """A finding for each argument that is to have a gradient and gets none, with the reason."""
    for name, node in inputs:
        if node in reach.needed:
            continue
        if node not in reach.used:
            yield Finding(
                "no-gradient", "happens", None,
                f"{name} gets no gradient: the output does not depend on it.",
            )  # fmt: skip
            continue
        cuts = _cuts(node, reach)
        said = " and ".join(dict.fromkeys(f"{_said(cut)} in {shown(cut.place)}" for cut in cuts))
        place: Place | None = next((cut.place for cut in cuts if cut.place), None)
        ends = "ends" if len(cuts) == 1 else "end"
        yield Finding(
            "no-gradient", "happens", place,
            f"{name} gets no gradient: {said or 'an integer'} {ends} its path.",
        )  # fmt: skip


def _said(cut: Node) -> str:
    if cut.label in _COMPARISONS:
        return "a comparison"
    return _CUTS.get(cut.label, cut.label).format(dtype=cut.dtype)


def _cuts(start: Node, reach: Reach) -> list[Node]:
    """Where the paths from an argument to the outputs end, at most three."""
    found: list[Node] = []
    seen, queue = {start}, [start]
    while queue:
        for reader in reach.readers.get(queue.pop(0), ()):
            if reader in seen or reader.hidden or reader not in reach.used:
                continue
            seen.add(reader)
            if reader.flows:
                queue.append(reader)
            else:
                found.append(reader)
    return found[:3]


def dead_branches(graph: Graph, reach: Reach) -> Iterator[Finding]:
    """A finding for each `where`, maximum or cond of which one side is surely never taken."""
    for node in graph.nodes:
        if not reach.matters(node) or node.fixed or node.label in FLAT:
            continue
        if node.label == "select_n":
            sure = node.operands[0].range.one
            if sure is None or node.operands[0].fixed or len(node.operands) != 3:
                continue
            dead = node.operands[1 if sure else 2]
            if dead in reach.moving:
                yield Finding(
                    "dead-branch", "happens", node.place,
                    f"The condition is {'true' if sure else 'false'} whatever the arguments are: "
                    f"the other branch gets no gradient.",
                )  # fmt: skip
        elif node.label in ("max", "min", "relu") and node.range.one is not None:
            yield Finding(
                "dead-branch", "happens", node.place,
                f"The result is {node.range.one:g} whatever the arguments are: nothing flows back.",
            )  # fmt: skip
