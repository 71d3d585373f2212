"""Why an equation loses a gradient, in a word and in a sentence."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ...jaxpr import jaxprs
from ...traces.record.rows import Line, Source
from ...traces.record.values import is_number
from ...traces.run.backward import Stage, backward
from ...traces.run.steps import Run, Step, run_steps
from ...traces.run.tape import Cell
from ...traces.source import names
from .blame import Loss, blame

SATURATE = ("tanh", "logistic", "erf", "erfc", "sigmoid", "softmax", "gelu", "silu", "softplus",
            "exp", "exp2", "expm1", "atan", "max", "min", "clamp")  # fmt: skip
"""Functions that are flat far out."""
EVEN = ("square", "integer_pow", "pow", "abs", "cos", "cosh", "hypot")
"""Functions that are flat at 0."""
TAKES = ("slice", "dynamic_slice", "gather", "reduce_max", "reduce_min", "sort", "top_k", "pad",
         "concatenate", "cummax", "cummin", "reduce_window_max")  # fmt: skip
"""What gives back some elements and leaves the others."""
WRITES = ("dynamic_update_slice", "scatter", "select_and_scatter_add")


class Cause(NamedTuple):
    """Why a gradient is lost.

    Attributes:
        kind: "cut", "saturated", "masked", "cancelled", "unused", "rule", "underflow", "minimum",
            "seed" or "small".
        why: The same in a sentence.
        source: The line to look at, where it is another than that of the equation.
        step: The equation to look at, likewise.
        own: Whether what masks the value was made of it.
    """

    kind: str
    why: str
    source: Source | None = None
    step: Step | None = None
    own: bool = False


def cause(run: Run, loss: Loss) -> Cause:
    """Why a place loses what it loses."""
    if loss.how == "cut":
        assert loss.cut is not None
        return Cause("unused" if loss.cut.unused else "cut", loss.cut.why)
    if loss.how == "seed":
        return Cause("seed", "the adjoint of the output starts with 0")
    if loss.how == "meets":
        return _meets(loss)
    assert loss.stage is not None
    step = loss.stage.step
    if step is None:
        return Cause("cancelled", "what the iterations send back cancels")
    if loss.how == "sums":
        return Cause("cancelled", f"the terms that {step.e.label} sends back add up to 0")
    if loss.how == "small":
        smallest = jnp.finfo(loss.cell.dtype).tiny
        return Cause("underflow", f"it is below {smallest:.1g}, the least {loss.cell.dtype}")
    if loss.how == "weak":
        return _weak(loss.stage, step)
    return _flat(run, loss, loss.stage, step)


def _meets(loss: Loss) -> Cause:
    return Cause("cancelled", "the contributions of several lines are of opposite sign")


def _weak(stage: Stage, step: Step) -> Cause:
    if step.e.label in SATURATE:
        return Cause("saturated", f"{step.e.label} is all but flat there")
    return Cause("small", f"{step.e.label} makes it too small to change the output's last digit")


def _flat(run: Run, loss: Loss, stage: Stage, step: Step) -> Cause:
    """Why an equation sends nothing back, whatever arrives."""
    name, value = step.e.label, np.asarray(loss.cell.value)[loss.lost]
    if step.e.kind == "rule":
        return _rule(loss, stage, step)
    others = [cell for i, cell in enumerate(step.operands) if i != _place(stage, loss.number)]
    if _says_zero(step, loss.number, stage):
        return Cause("cut", f"{name} is flat everywhere: it has slope 0")
    if name == "select_n":
        own = _depends(run, step.operands[0], loss.cell)
        return Cause("masked", "where takes the other branch", own=own)
    if name in TAKES:
        return Cause("unused", f"{name} takes other elements")
    if name in WRITES:
        return Cause("masked", f"{name} overwrites it")
    squared = name == "mul" and all(cell is loss.cell for cell in others)
    if (name in EVEN or squared) and not np.any(value != 0):
        return _stationary(run, loss, "mul" if squared else name)
    if name in ("mul", "dot_general", "conv_general_dilated"):
        return _multiplied(run, name, others)
    if name in ("max", "min"):
        return Cause("saturated", _beyond(name, others))
    if name == "clamp":
        return Cause("saturated", "clip holds it at a bound")
    return Cause("saturated", f"{name} is flat there, at {_range(value)}")


def _place(stage: Stage, number: int) -> int:
    """Which operand of an equation the target of a stage is."""
    assert stage.step is not None
    seen = -1
    for i, cell in enumerate(stage.step.operands):
        seen += cell.active
        if seen == number:
            return i
    return -1


def _says_zero(step: Step, number: int, stage: Stage) -> bool:
    """Whether the local rule of an equation is the number 0."""
    made = next(cell for cell in stage.entry.results if cell.draft is not None)
    rules = made.draft.fields.get("rule", ())  # pyright: ignore[reportOptionalMemberAccess]  # it has one
    return number < len(rules) and rules[number].endswith("+= 0")


def _multiplied(run: Run, name: str, others: list[Cell]) -> Cause:
    other = others[0]
    verb = {"mul": "it is multiplied by"}.get(name, f"{name} multiplies it by")
    if np.any(np.asarray(other.value) != 0):
        return Cause("masked", f"{verb} {_called(other)}, which is 0 there")
    return _because(run, "masked", f"{verb} 0", other)


def _stationary(run: Run, loss: Loss, name: str) -> Cause:
    said = {"abs": "abs has slope 0 at 0", "mul": "the square of 0 has slope 0"}
    why = said.get(name, f"{name} of 0 has slope 0")
    if not np.any(np.asarray(loss.cell.value) != 0):
        start = _origin(run, loss.cell)
        if isinstance(start, Step) and start.e.label in ("sub", "add", "add_any"):
            return Cause("minimum", f"{why}, and the value is 0")
        return _because(run, "flat", why, loss.cell)
    return Cause("minimum", f"{why}, and the value is 0 there")


def _because(run: Run, kind: str, why: str, zero: Cell) -> Cause:
    """A cause with the reason why a value is 0; if a function is flat there, that is the cause."""
    start = _origin(run, zero)
    if isinstance(start, Step):
        source = names.source(start.at.places)
        where = f" ({source})" if source else ""
        if start.e.label in SATURATE or start.e.label in ("relu", "relu6"):
            said = f"{start.e.label} gives 0 everywhere; {why}"
            return Cause("saturated", said, step=start)
        return Cause(kind, f"{why}: {start.e.label} gives 0{where}")
    if start is not None and start.draft is not None:
        return Cause(kind, f"{why}: {_called(start)} is 0")
    return Cause(kind, why)


def _origin(run: Run, cell: Cell) -> Step | Cell | None:
    """Where a value that is 0 became so: an equation whose operands are not, or an argument."""
    made = {id(x): step for step in run.steps.values() for x in step.results}
    seen: set[int] = set()
    while id(cell) in made and id(cell) not in seen:
        seen.add(id(cell))
        step = made[id(cell)]
        zeros = [x for x in step.operands if x.draft is not None and _is_zero(x)]
        if not zeros:
            return step
        cell = max(zeros, key=lambda x: x.active)
    return cell


def _depends(run: Run, cell: Cell, on: Cell) -> bool:
    """Whether a value was computed from another."""
    made = {id(x): step for step in run.steps.values() for x in step.results}
    open_, seen = [cell], set()
    while open_:
        one = open_.pop()
        if one is on:
            return True
        if id(one) in made and id(one) not in seen:
            seen.add(id(one))
            open_ += made[id(one)].operands
    return False


def _is_zero(cell: Cell) -> bool:
    return is_number(cell.dtype) and not np.any(np.asarray(cell.value) != 0)


def _rule(loss: Loss, stage: Stage, step: Step) -> Cause:
    """Why a custom rule sends nothing: its primal is flat as well, or the rule is at fault."""
    inner = _inside(loss, stage, step)
    if inner is not None and inner.own:
        value = np.asarray(loss.cell.value)[loss.lost]
        return Cause("saturated", f"{step.e.label} is flat there, at {_range(value)}")
    if inner is not None:
        return inner._replace(source=None, step=None, why=f"in {step.e.label}: {inner.why}")
    if jaxprs.is_library(step.e.primal):
        return Cause("saturated", f"{step.e.label} has slope 0 there")
    line = _written(stage)
    why = f"the backward pass of {step.e.label} sends 0 where its primal has a slope"
    return Cause("rule", why, line)


def _inside(loss: Loss, stage: Stage, step: Step) -> Cause | None:
    """The cause in the primal of a custom rule; None if a gradient would flow through it."""
    values = [cell.value for cell in step.operands]
    active = [cell.active for cell in step.operands]
    called = [_called(cell) for cell in step.operands]
    try:
        run = run_steps(step.e.primal, values, active, called)
        seeds = [
            jnp.asarray(np.linspace(0.5, 1.5, cell.value.size).reshape(cell.shape), cell.dtype)
            if jaxprs.is_inexact(cell.value)
            else None
            for cell in step.results
        ]
        back = backward(run, seeds)
    except ValueError:  # a primal that JAX cannot differentiate, which is why it has a rule
        return None
    operand = run.arguments[_place(stage, loss.number)]
    gradient = back.adjoints.get(id(operand))
    if gradient is not None and np.any(gradient[loss.lost] != 0):
        return None
    found = blame(back, operand, loss.lost)
    return cause(run, found[0]) if found else None


def _written(stage: Stage) -> Source | None:
    """The line of a rule's backward pass that makes the zeros."""
    drafts = (cell.draft for cell in stage.entry.results if cell.draft is not None)
    lines: tuple[Line, ...] = next(
        (d.fields["backward"] for d in drafts if "backward" in d.fields), ()
    )
    zero = [line for line in lines if _all_zero(line)]
    return next((line.source for line in zero[:1]), None)


def _all_zero(line: Line) -> bool:
    if line.value.stats is not None:
        return line.value.stats.zeros == 1.0
    return line.value.array is not None and not np.any(np.asarray(line.value.array) != 0)


def _called(cell: Cell) -> str:
    """What a reader calls a value: an argument's name, or its line."""
    if cell.draft is None:
        return cell.name
    fields = cell.draft.fields
    if fields.get("kind") == "argument":
        return fields["variable"]
    source = fields.get("source")
    return f"{fields.get('op', cell.name)}{f' ({source})' if source else ''}"


def _beyond(name: str, others: list[Cell]) -> str:
    """What is said of a value that max or min leaves aside."""
    side = "below" if name == "max" else "above"
    bound: Any = others[0].value if others else None
    single = (
        bound is not None and np.size(bound) and np.all(np.asarray(bound) == np.ravel(bound)[0])
    )
    if single:
        return f"all of it is {side} {np.ravel(np.asarray(bound))[0]:.4g}"
    return f"all of it is {side} what {name} takes"


def _range(value: np.ndarray) -> str:
    if value.size == 0 or np.iscomplexobj(value):
        return "these values"
    wide = value.astype(np.float64)
    low, high = wide.min(), wide.max()
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
