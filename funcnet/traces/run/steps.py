"""A program run equation by equation, with all that was run: what verdicts ask again."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...jaxpr.equations import Equation
from ...jaxpr.walk import At, walk
from ..source.names import numbered
from .primal import Primal
from .tape import Cell, Tape


class Step(NamedTuple):
    """An equation that was run.

    Attributes:
        name: Its row; `v3` where its results are `v3.0` and `v3.1`.
        e: The equation.
        operands: The values it was given.
        results: Those it computed.
        at: Its place.
    """

    name: str
    e: Equation
    operands: list[Cell]
    results: list[Cell]
    at: At


@dataclass
class Steps(Primal):
    """The forward pass of a trace, which keeps what it ran: `taken`, by the names of rows."""

    taken: dict[str, Step] = field(default_factory=dict)

    def plain(self, e: Equation, operands: list[Cell], at: At) -> Sequence[Cell]:
        """Rows, a step of the tape, and the equation with its values."""
        results = list(super().plain(e, operands, at))
        if not e.is_alias:
            name = self.tape.name(at)
            self.taken[name] = Step(name, e, operands, results, at)
        return results


class Run(NamedTuple):
    """A program that was run.

    Attributes:
        tape: The rows, and the steps that a gradient flows through.
        arguments: What it was given.
        outputs: What it gave.
        steps: The equations that were run, by the names of their rows.
    """

    tape: Tape
    arguments: list[Cell]
    outputs: list[Cell]
    steps: dict[str, Step]


def run_steps(
    closed: Any,
    values: Sequence[Any],
    active: Sequence[bool],
    names: Sequence[str] = (),
    max_iterations: int = 1000,
) -> Run:
    """Run a jaxpr equation by equation.

    Args:
        closed: The jaxpr.
        values: Its inputs.
        active: Which of them take a gradient.
        names: What to call them.
        max_iterations: The longest loop that is run.
    """
    tape = Tape(numbered(closed), max_iterations=max_iterations)
    count = len(values)
    arguments = []
    for i, (x, is_active) in enumerate(zip(values, active, strict=True)):
        said = names[i] if names else f"operand {i}"
        fields = {"expression": said, "variable": said, "active": is_active}
        arguments.append(tape.cell(x, f"v{i + 1 - count}", "argument", **fields))
    steps = Steps(tape)
    outputs = list(walk(closed, arguments, steps))
    return Run(tape, arguments, outputs, steps.taken)
