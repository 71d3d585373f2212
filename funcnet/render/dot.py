"""Graphs in the language of Graphviz."""

from .forms import Graph, Node

COLORS = {"argument": "#dbeafe", "constant": "#e5e7eb", "rule": "#fef3c7"}


def graph(form: Graph) -> str:
    """A graph with its clusters; each node is a title over `data | gradient`.

    >>> print(graph(Graph((Node("v1", "x", "2", "5.5"),), ())))
    digraph trace {
      node [shape=record, style=filled, fontname="Helvetica", fontsize=11];
      "v1" [label="{x|{2|5.5}}", fillcolor="#ffffff"];
    }
    """
    lines = ["digraph trace {"]
    if form.title:
        lines.append(f'  label="{quoted(form.title)}"; labelloc=t;')
    lines.append('  node [shape=record, style=filled, fontname="Helvetica", fontsize=11];')
    lines += cluster(form.nodes, 0, "  ", [0])
    lines += [f'  "{quoted(a)}" -> "{quoted(b)}";' for a, b in form.edges]
    return "\n".join([*lines, "}"])


def cluster(nodes: tuple[Node, ...], depth: int, indent: str, count: list[int]) -> list[str]:
    """Nodes, those that share an outer scope in a box."""
    lines: list[str] = []
    groups: dict[str, list[Node]] = {}
    for node in nodes:
        if len(node.within) <= depth:
            shown = f"{{{escaped(node.title)}|{{{escaped(node.value)}|{escaped(node.gradient)}}}}}"
            color = COLORS.get(node.kind, "#ffffff")
            lines.append(f'{indent}"{quoted(node.name)}" [label="{shown}", fillcolor="{color}"];')
        else:
            groups.setdefault(node.within[depth], []).append(node)
    for name, inside in groups.items():
        count[0] += 1
        lines.append(f"{indent}subgraph cluster_{count[0]} {{")
        lines.append(f'{indent}  label="{quoted(name)}"; color="#94a3b8"; style=rounded;')
        lines += cluster(tuple(inside), depth + 1, indent + "  ", count)
        lines.append(f"{indent}}}")
    return lines


def quoted(text: str) -> str:
    """Text inside of quotation marks."""
    return text.replace("\\", "\\\\").replace('"', '\\"')


def escaped(text: str) -> str:
    """Text inside of a record's label."""
    return "".join(f"\\{c}" if c in '\\"{}|<>' else c for c in text)
