"""What a trace is made of: rows, contributions, the lines of a rule. All frozen."""

from dataclasses import dataclass
from typing import NamedTuple

from .values import Value


class Source(NamedTuple):
    """A line of source code.

    Attributes:
        file: The file's path.
        line: The number of the line.
        function: The function it stands in.
        code: The line itself, if the file could be read.
    """

    file: str
    line: int
    function: str
    code: str

    def __str__(self) -> str:
        return f"{self.file.rpartition('/')[2]}:{self.line}"


@dataclass(frozen=True)
class Contribution:
    """One summand of an adjoint.

    Attributes:
        target: The row whose adjoint it adds to.
        source: The row it comes from; "seed" for what the trace starts with.
        formula: What it is, in terms of rows and their adjoints: "v2' * v0".
        value: Its value.
        total: The adjoint after it was added.
        order: Its place among all contributions of the trace.
    """

    target: str
    source: str
    formula: str
    value: Value
    total: Value
    order: int


@dataclass(frozen=True)
class Line:
    """A line of a custom rule: of what it runs forward, or of its backward pass.

    Attributes:
        name: Its name there.
        expression: What it computes.
        value: Its value.
        source: Where the rule is written.
    """

    name: str
    expression: str
    value: Value
    source: Source | None


@dataclass(frozen=True)
class Row:
    """One value of a trace: an argument, a constant, or what an equation computed.

    Attributes:
        name: `v3`; arguments are `v0`, `v-1` and so on back; in a loop `v3[2]` is of iteration 2.
            An equation with several outputs has a row for each: `v3.0`, `v3.1`.
        kind: "argument", "constant", "equation", "rule" (one with a custom derivative), "whole"
            (taken as a whole, as a mutable reference is), "slice" or "stack" (what a scan takes
            apart and puts together).
        op: The primitive, or the function with a custom derivative.
        value: Its value.
        expression: What it computes, in terms of other rows: "v-1 * v0".
        operands: The names of the rows it reads.
        variable: The Python variable or argument it is, where the source says so.
        scope: The layer it belongs to: "block/dense".
        within: The loops, branches and layers around it, from the outermost in.
        source: Where it was written.
        active: Whether a gradient flows through it.
        memory: Of a row inside a remat, "recomputed" or "saved" (as the policy says); else "".
        rule: Its local rule: "v-1' += v1'/v-1", one for each operand that takes a gradient.
        kept: What it keeps for the backward pass.
        tangent: Its tangent, if the trace has tangents.
        adjoint: Its adjoint; None if nothing flows back to it.
        contributions: What the adjoint is the sum of, in order.
        inside: The lines of a rule's forward pass.
        backward: The lines of a rule's backward pass.
        note: A remark: why a row has no rule.
    """

    name: str
    kind: str
    op: str
    value: Value
    expression: str = ""
    operands: tuple[str, ...] = ()
    variable: str = ""
    scope: str = ""
    within: tuple[str, ...] = ()
    source: Source | None = None
    active: bool = False
    memory: str = ""
    rule: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    tangent: Value | None = None
    adjoint: Value | None = None
    contributions: tuple[Contribution, ...] = ()
    inside: tuple[Line, ...] = ()
    backward: tuple[Line, ...] = ()
    note: str = ""

    @property
    def label(self) -> str:
        """Variable or layer beside the name, if there is one."""
        return self.variable or self.scope
