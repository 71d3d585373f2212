"""What rows are called: numbers from the jaxpr, variables and lines from the Python source."""

import ast
import functools
import linecache
from collections.abc import Hashable, Sequence

from ...jaxpr import jaxprs
from ...jaxpr.equations import Equation
from ...jaxpr.places import Place
from ...jaxpr.walk import At, Handler, bodies, walk
from ..record.rows import Source


def numbered(closed: object) -> dict[tuple[int, ...], int]:
    """A number for each equation at any depth, by its path: of every branch, of a loop's body once.

    What only runs other equations has none; a loop has one, after its body, for what it stacks.
    """
    handler = _Numbers()
    walk(closed, [None] * len(jaxprs.open_jaxpr(closed)[0].invars), handler)
    return handler.found


class _Numbers(Handler):
    def __init__(self) -> None:
        self.found: dict[tuple[int, ...], int] = {}

    def equation(self, e: Equation, operands: list[None], at: At) -> list[None]:
        for body in bodies(e, operands, at):
            walk(body.jaxpr, body.values, self, body.at)
        if e.kind not in ("call", "cond") and not e.is_alias:
            self.found[at.path] = len(self.found) + 1
        return [None] * len(e.results)


def source(places: tuple[Place, ...]) -> Source | None:
    """The innermost place as a line of source code."""
    if not places:
        return None
    place = places[0]
    code = linecache.getline(place.file, place.line).strip()
    return Source(place.file, place.line, place.function, code)


def variables(chains: Sequence[tuple[Hashable, tuple[Place, ...]]]) -> list[str]:
    """The variable that each of some equations gives its value to, or "".

    A call that is assigned to a variable gives it what its last equation computes. Of several
    variables, an equation has that of the outermost call.

    Args:
        chains: For each equation in order, the iteration it is of, and the calls it stands in,
            the innermost first.
    """
    last: dict[Hashable, tuple[int, int, str]] = {}
    for n, (iteration, places) in enumerate(chains):
        for depth, place in enumerate(places):
            span = place.line, place.column, place.end_line, place.end_column
            name = _assignments(place.file).get(span)
            if name:
                last[iteration, places[depth:]] = len(places) - depth, n, name
    found = [""] * len(chains)
    for _, n, name in sorted(last.values(), key=lambda item: -item[0]):
        found[n] = name
    return found


@functools.lru_cache(maxsize=256)
def _assignments(file: str) -> dict[tuple[int, int, int, int], str]:
    """Where a whole expression is assigned to one name: the expression's span, and the name."""
    text = "".join(linecache.getlines(file))
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return {}
    found = {}
    for node in ast.walk(tree):
        pairs: list[tuple[ast.expr, ast.expr]] = []
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            pairs = _pairs(node.targets[0], node.value)
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            pairs = [(node.target, node.value)]
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            span = node.lineno, node.col_offset, node.end_lineno or 0, node.end_col_offset or 0
            found[span] = node.target.id
        for target, value in pairs:
            if isinstance(target, ast.Name):
                span = value.lineno, value.col_offset, value.end_lineno, value.end_col_offset
                found[span] = target.id
    return found


def _pairs(target: ast.expr, value: ast.expr) -> list[tuple[ast.expr, ast.expr]]:
    both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
    if both and len(target.elts) == len(value.elts):  # pyright: ignore[reportAttributeAccessIssue]  # both are tuples
        return list(zip(target.elts, value.elts, strict=True))  # pyright: ignore[reportAttributeAccessIssue]  # both are tuples
    return [(target, value)]
