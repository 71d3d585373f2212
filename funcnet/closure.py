"""Tracers in a function's closure: find them, and rebuild the function with others in their place.

`jax.custom_vjp` refuses to differentiate with respect to an array that its function closes over.
With the closure's cells as one more argument it need not.
"""

import types
from collections.abc import Callable, Iterator
from typing import Any

import jax

from .jaxprs import is_traced


def traced_cells(*functions: Callable) -> Iterator[types.CellType]:
    """The closure cells, at any depth of nested functions, that hold a tracer."""
    seen: set[int] = set()
    todo = list(functions)
    while todo:
        for cell in getattr(todo.pop(), "__closure__", None) or ():
            if id(cell) in seen or not _is_filled(cell):
                continue
            seen.add(id(cell))
            content = cell.cell_contents
            if isinstance(content, types.FunctionType):
                todo.append(content)
            elif any(is_traced(leaf) for leaf in jax.tree.leaves(content)):
                yield cell


def rebound(f: Any, values: dict[int, Any]) -> Any:
    """`f` with the contents of its closure cells replaced, in nested functions too."""
    if not isinstance(f, types.FunctionType) or f.__closure__ is None:
        return f

    def fresh(cell: types.CellType) -> types.CellType:
        if id(cell) in values:
            return types.CellType(values[id(cell)])
        if _is_filled(cell) and isinstance(cell.cell_contents, types.FunctionType):
            inner = cell.cell_contents
            return cell if inner is f else types.CellType(rebound(inner, values))
        return cell

    closure = tuple(fresh(cell) for cell in f.__closure__)
    new = types.FunctionType(f.__code__, f.__globals__, f.__name__, f.__defaults__, closure)
    new.__kwdefaults__ = f.__kwdefaults__
    return new


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
