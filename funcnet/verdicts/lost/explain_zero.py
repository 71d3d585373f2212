"""`explain_zero`: which gradients are 0, where each was lost, and why."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...jaxpr import jaxprs
from ...render.forms import Column, Table
from ...traces.program import Program, seeds_of
from ...traces.record.rows import Source
from ...traces.run.backward import Backward, backward
from ...traces.run.steps import Step, run_steps
from ...traces.run.tape import Cell
from ...traces.source import names
from ..report import Report
from .blame import Loss, blame, weakest
from .causes import SATURATE, Cause, cause

HARMLESS = ("minimum",)
_SAID = {"rule": "lost by a custom rule", "minimum": "0 at a minimum", "seed": "0 from the start",
         "underflow": "lost by underflow", "flat": "0", "small": "too small"}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A place that loses a gradient, or elements of it.

    Attributes:
        cause: "cut" (no derivative, or none but 0), "saturated" (flat there), "masked" (multiplied
            by 0, overwritten, or the other branch of a `where`), "cancelled" (terms of opposite
            sign), "unused", "rule" (a custom rule sends 0 where its primal has a slope),
            "underflow", "minimum" (the loss has slope 0 there), "seed" (it starts with 0), "flat"
            (an even function at 0), or "small" (scaled until it does not change the output).
        why: The same in a few words.
        op: The equation: its primitive, or the function with a custom rule.
        source: Where it was written.
        scope: Its layer.
        iterations: Those of the loops around it that lose something: "0", "3,1".
        share: The share of the elements at stake there that it loses.
        arrives: The norm of the adjoint that arrives there.
        called: The line that calls the rule, where `source` is a line of its backward pass.
    """

    cause: str
    why: str
    op: str = ""
    source: Source | None = None
    scope: str = ""
    iterations: tuple[str, ...] = ()
    share: float = 1.0
    arrives: float = 0.0
    called: Source | None = None

    @property
    def where(self) -> str:
        """Line, layer and iterations: "net.py:12, block/mlp, iteration 3"."""
        turns = self.iterations
        many = f"{len(turns)} iterations from {turns[0]} on" if len(turns) > 1 else ""
        at = many or (f"iteration {turns[0]}" if turns else "")
        called = f"called in {self.called}" if self.called not in (None, self.source) else ""
        parts = ("" if self.source is None else str(self.source), self.scope, at, called)
        return ", ".join(filter(None, parts))

    @property
    def partly(self) -> str:
        """Of a place that loses some elements alone, how many."""
        return "" if self.share == 1.0 else f" for {_percent(self.share)} of the elements"

    @property
    def said(self) -> str:
        """Where and why in a line."""
        at = f" at {self.where}" if self.where else ""
        return f"It is {_SAID.get(self.cause, self.cause)}{at}: {self.why}{self.partly}."


@dataclass(frozen=True)
class Leaf:
    """An argument's leaf and what became of its gradient.

    Attributes:
        path: "params['dense']['w']".
        verdict: "flows", "partly" (some elements are 0), "zero", or "faint" (too small to change
            the last digit of the output, whatever is done to the leaf within its size).
        type: Its dtype and shape.
        zeros: The share of its elements whose gradient is 0.
        norm: The norm of the gradient.
        places: What loses it: the place to look at first, then others.
    """

    path: str
    verdict: str
    type: str
    zeros: float
    norm: float
    places: tuple[Place, ...] = ()

    @property
    def lost(self) -> bool:
        """Whether nothing of the gradient is left, and not because the loss is at a minimum."""
        harmless = all(place.cause in HARMLESS for place in self.places) and self.places
        return self.verdict in ("zero", "faint") and not harmless


@dataclass(frozen=True)
class Zeros(Report):
    """Which gradients are 0 and why. It is falsy if none is lost.

    Attributes:
        function: The name of the function.
        leaves: The leaves of the arguments that take a gradient.
    """

    function: str
    leaves: tuple[Leaf, ...]

    def __bool__(self) -> bool:
        return any(leaf.lost for leaf in self.leaves)

    @property
    def lost(self) -> tuple[Leaf, ...]:
        """The leaves without a gradient."""
        return tuple(leaf for leaf in self.leaves if leaf.lost)

    def __getitem__(self, path: str) -> Leaf:
        """The leaf of this path."""
        return {leaf.path: leaf for leaf in self.leaves}[path]

    @property
    def heading(self) -> str:
        """What stands above its page."""
        return f"lost gradients of {self.function}"

    def parts(self) -> Sequence[Table | str]:
        """A sentence, the leaves that are lost and where, and those that are so in part."""
        count = len(self.leaves)
        if not count:
            return [f"{self.function}: no argument has a floating dtype."]
        told = [leaf for leaf in self.leaves if leaf.verdict in ("zero", "faint")]
        said = [self._first(count, told)]
        said += [_table("Lost", told)] if told else []
        partly = [leaf for leaf in self.leaves if leaf.verdict == "partly"]
        said += [_table("Elements that are 0", partly)] if partly else []
        return said

    def _first(self, count: int, told: Sequence[Leaf]) -> str:
        name = self.function
        if not told:
            leaves = "its leaf" if count == 1 else f"all {count} leaves"
            return f"{name}: a gradient flows to {leaves}."
        lost = self.lost
        if not lost:
            return (
                f"{name}: no gradient is lost. The loss is at a minimum: {told[0].places[0].why}."
            )
        first, rest = lost[0], len(lost) - 1
        more = (
            f", nor to {rest} other {'leaf' if rest == 1 else 'leaves'} of {count}" if rest else ""
        )
        said = f"{name}: no gradient comes to {first.path}{more}."
        return f"{said}\n{first.places[0].said}" if first.places else said


def _table(title: str, leaves: Sequence[Leaf]) -> Table:
    columns = Column("leaf"), Column("is 0", True), Column("cause"), Column("where, and why")
    rows = []
    for leaf in leaves:
        for i, place in enumerate(leaf.places[:4]):
            head = (leaf.path, _percent(leaf.zeros)) if i == 0 else ("", "")
            rows.append((*head, place.cause, place.where or place.why))
            if place.where:
                rows.append(("", "", "", f"{place.why}{place.partly}"))
    return Table(columns, tuple(rows), title)


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def explain_zero(
    f: Callable,
    *,
    wrt: int | Sequence[int] | None = None,
    seed: Any = None,
    has_aux: bool = False,
    max_iterations: int = 1000,
) -> Callable[..., Zeros]:
    """Where a gradient of `f` is lost, and why.

    The function is run equation by equation, as `trace` does, and its reverse pass with 0 in the
    place of what is only rounding. Where a leaf gets 0, the equations on the way to the output are
    asked, one after the other, whether they would send back anything at all; the first that would
    not is the place.

    Args:
        f: A function whose output is one real number (else give `seed`).
        wrt: The arguments to look at, counted as by `jax.grad`; None for all.
        seed: The adjoint of the output: a pytree like it, None for what starts with nothing.
        has_aux: Whether `f` returns `(loss, aux)`.
        max_iterations: The longest loop that is run.

    Returns:
        A function of the arguments of `f` that gives a `Zeros`: for each leaf whether its gradient
        flows, and if not the place, its line and the cause. It is falsy if none is lost.

    Raises:
        ValueError: When called, if the output is not one number and there is no seed, or a loop is
            too long.
        TypeError: When called, if `wrt` names an argument without floating numbers, an argument has
            no values, or `f` is no function.

    >>> report = explain_zero(lambda x, w: jnp.sum(jnp.tanh(100.0 + w * x)))(2.0, 3.0)
    >>> report["w"].verdict, report["w"].places[0].cause
    ('zero', 'saturated')
    >>> bool(explain_zero(lambda x: jnp.sin(x))(1.0))
    False
    """
    return functools.partial(_explain, f, wrt, seed, has_aux, max_iterations)


def _explain(
    f: Callable, wrt: Any, seed: Any, has_aux: bool, longest: int, *args: Any, **kwargs: Any
) -> Zeros:
    program = Program("explain_zero", f, args, kwargs)
    program.require_values()
    active = program.active(program.chosen(wrt))
    closed, tree = program.opened()
    seeds = seeds_of("explain_zero", tree, jaxprs.output_shapes(closed), seed, has_aux)
    paths = program.names()
    run = run_steps(closed, program.arrays, active, paths, longest)
    back = backward(run, seeds)
    leaves = [
        _leaf(back, cell, path)
        for cell, path in zip(run.arguments, paths, strict=True)
        if cell.active and cell.value.size
    ]
    return Zeros(getattr(f, "__name__", type(f).__name__), tuple(leaves))


def _leaf(back: Backward, cell: Cell, path: str) -> Leaf:
    gradient = back.adjoints.get(id(cell), np.zeros(cell.shape, cell.dtype))
    lost = gradient == 0
    share, kind = float(np.mean(lost)), f"{cell.dtype}[{','.join(map(str, cell.shape))}]"
    norm = float(np.sqrt(np.sum(np.abs(gradient.astype(np.complex128)) ** 2)))
    if share:
        places = _places(back, blame(back, cell, lost))
        return Leaf(path, "zero" if share == 1.0 else "partly", kind, share, norm, places)
    weak = weakest(back, cell, SATURATE) if _is_faint(back, cell, gradient) else None
    places = () if weak is None else _places(back, [weak])
    return Leaf(path, "flows" if weak is None else "faint", kind, share, norm, places)


def _is_faint(back: Backward, cell: Cell, gradient: np.ndarray) -> bool:
    """Whether the output keeps all its digits however the leaf moves within its own size."""
    pairs = [
        (out, ct) for out, ct in zip(back.run.outputs, back.seeds, strict=True) if ct is not None
    ]
    scale = sum(float(np.sum(np.abs(np.asarray(out.value * ct)))) for out, ct in pairs)
    reach = np.maximum(np.abs(np.asarray(cell.value)), 1.0)
    moved = float(np.sum(np.abs(gradient) * reach))
    return moved < scale * min(float(jnp.finfo(cell.dtype).eps), 1e-6)


def _places(back: Backward, losses: Sequence[Loss]) -> tuple[Place, ...]:
    """The places of losses, those of one equation in several iterations together."""
    found: dict[Any, list[tuple[Loss, Cause]]] = {}
    for loss in losses:
        why = cause(back.run, loss)
        step = None if loss.stage is None else loss.stage.step
        key = (None if step is None else step.at.path, why.kind, str(loss.cut or ""))
        found.setdefault(key, []).append((loss, why))
    places = [_place(group) for group in found.values()]
    return tuple(sorted(places, key=lambda place: -place.share))


def _place(group: list[tuple[Loss, Cause]]) -> Place:
    loss, why = group[0]
    share = float(np.mean([np.mean(one.lost) for one, _ in group]))
    if loss.stage is None or loss.stage.step is None:
        row = None if loss.cut is None else loss.cut.row
        if row is None:
            return Place(why.kind, why.why, share=share)
        turns = tuple(filter(None, [row.name.partition("[")[2].rstrip("]")]))
        return Place(why.kind, why.why, row.op, row.source, row.scope, turns, share)
    steps = [_step(one, cause_) for one, cause_ in group]
    step = steps[0]
    turns = [",".join(map(str, one.at.iterations)) for one in steps if one.at.iterations]
    own = names.source(step.at.places)
    source, called = (own, None) if why.source is None else (why.source, own)
    return Place(
        why.kind, why.why, step.e.label, source, step.at.scope, tuple(dict.fromkeys(turns)), share,
        max(_norm(one) for one, _ in group), called,
    )  # fmt: skip


def _step(loss: Loss, why: Cause) -> Step:
    """The equation to look at."""
    assert loss.stage is not None
    assert loss.stage.step is not None
    return why.step or loss.stage.step


def _norm(loss: Loss) -> float:
    cts = [] if loss.stage is None else [ct for ct in loss.stage.adjoints if ct is not None]
    return float(
        np.sqrt(sum(np.sum(np.abs(np.asarray(ct).astype(np.complex128)) ** 2) for ct in cts))
    )
