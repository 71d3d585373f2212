"""The reverse pass: along the tape from its end, each contribution with its running total."""

from collections.abc import Sequence
from typing import Any

from ...jaxpr.concrete import added
from ..record.rows import Contribution
from .tape import Cell, Tape


def reverse(tape: Tape, outputs: Sequence[Cell], seeds: Sequence[Any]) -> tuple[Contribution, ...]:
    """Send adjoints from the outputs back to the arguments.

    Args:
        tape: The steps of the forward pass.
        outputs: Where it ends.
        seeds: The adjoint that each output starts with, or None.

    Returns:
        All contributions in order. The adjoints of the arguments are left in their cells.
    """
    order: list[Contribution] = []

    def add(cell: Cell, ct: Any, source: str, formula: str) -> None:
        if ct is None or not cell.active or cell.draft is None:
            return
        value = total = tape.record(ct)
        if cell.adjoint is None:
            cell.adjoint = ct
        else:
            cell.adjoint = added(cell.adjoint, ct)
            total = tape.record(cell.adjoint)
        row = Contribution(cell.name, source, formula, value, total, len(order))
        cell.draft.contributions.append(row)
        order.append(row)

    for cell, ct in zip(outputs, seeds, strict=True):
        add(cell, ct, "seed", "seed")
    while tape.entries:
        entry = tape.entries.pop()
        adjoints = [cell.adjoint for cell in entry.results]
        if all(ct is None for ct in adjoints):
            continue
        for cell in entry.results:
            cell.adjoint = None
        for cell, ct, formula in entry.pull(adjoints):
            add(cell, ct, entry.name, formula)
    return tuple(order)
