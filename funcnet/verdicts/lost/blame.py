"""From elements of a gradient that are 0 to the equations that made them so."""

from typing import Any, NamedTuple

import numpy as np

from ...traces.cuts import Cut, cuts
from ...traces.run.backward import Backward, Stage
from ...traces.run.tape import Cell


class Loss(NamedTuple):
    """A place that loses elements of an adjoint.

    Attributes:
        how: "flat": what the equation sends back has nothing of what arrives. "sums": it adds up
            to nothing there, "small": it is too small for the dtype. "meets": what several
            equations send cancels. "cut": no path goes on. "seed": nothing starts there.
        cell: The value that the adjoint is of.
        lost: Which elements of it.
        stage: The equation.
        number: Which of the stage's targets the value is.
        cut: What ends the path, of a cut.
    """

    how: str
    cell: Cell
    lost: np.ndarray
    stage: Stage | None = None
    number: int = 0
    cut: Cut | None = None


def blame(back: Backward, cell: Cell, lost: np.ndarray) -> list[Loss]:
    """The places that lose these elements of a gradient, those nearest to the value first.

    Each equation on the way to the output is asked whether it would send anything back to these
    elements. If it would, what it was sent is at fault, and the question goes on to its results.

    Args:
        back: The reverse pass.
        cell: An argument.
        lost: Which elements of its gradient are 0.
    """
    found: list[Loss] = []
    open_: dict[int, tuple[Cell, np.ndarray]] = {id(cell): (cell, lost)}
    read = {id(target) for stage in back.stages for target in stage.targets}
    met: set[int] = set()
    for stage in back.stages:
        for number, target in enumerate(stage.targets):
            if id(target) not in open_:
                continue
            mask = open_[id(target)][1]
            gone = mask & back.cancelled(target)
            if gone.any() and id(target) not in met:
                met.add(id(target))
                last = back.parts[id(target)][-1][0]
                found.append(Loss("meets", target, gone, last))
            _examine(stage, number, mask & ~gone, found, open_)
    for value, mask in open_.values():
        if id(value) not in read:
            found += _ends(back, value, mask)
    return found


def _examine(stage: Stage, number: int, mask: np.ndarray, found: list[Loss], open_: dict) -> None:
    """Whether an equation loses these elements, or what it was sent."""
    target = stage.targets[number]
    if not mask.any():
        return
    if any(ct is not None and np.any(np.asarray(ct) != 0) for ct in stage.adjoints):
        asked = ("sums", stage.some()), ("small", stage.large())
        for how, sent in asked:
            gone = mask & (sent[number] != 0)
            if gone.any():
                found.append(Loss(how, target, gone, stage, number))
                mask = mask & ~gone
        flat = mask & (stage.any()[number] == 0)
        if flat.any():
            found.append(Loss("flat", target, flat, stage, number))
            mask = mask & ~flat
    if mask.any():
        for cell, ct in zip(stage.entry.results, stage.adjoints, strict=True):
            zero = np.ones(cell.shape, bool) if ct is None else np.asarray(ct) == 0
            if zero.any():
                before = open_.get(id(cell), (cell, np.zeros(cell.shape, bool)))[1]
                open_[id(cell)] = cell, before | zero


def _ends(back: Backward, cell: Cell, mask: np.ndarray) -> list[Loss]:
    """Why nothing comes back to a value that no equation on the way back has read."""
    pairs: Any = zip(back.run.outputs, back.seeds, strict=True)
    seeded = [out for out, ct in pairs if ct is not None]
    if any(out is cell for out in seeded):
        return [Loss("seed", cell, mask)]
    rows = back.run.tape.rows()
    names = {out.name for out in seeded}
    return [Loss("cut", cell, mask, cut=cut) for cut in cuts(rows, cell.name, names)]


def weakest(back: Backward, cell: Cell, kinds: tuple[str, ...]) -> Loss | None:
    """The place on the way to a value that weakens its adjoint most.

    Args:
        back: The reverse pass.
        cell: An argument.
        kinds: The primitives to take in the first place, if one of them halves it at least.
    """
    reached, gains = {id(cell)}, []
    for stage in back.stages:
        arrived = np.sqrt(sum(_square(ct) for ct in stage.adjoints if ct is not None))
        for number, target in enumerate(stage.targets):
            if id(target) not in reached:
                continue
            reached.update(map(id, stage.entry.results))
            if stage.step is not None and arrived > 0:
                gain = np.sqrt(_square(stage.sent[number])) / arrived
                flat = stage.step.e.label in kinds and gain < 0.5
                everything = np.ones(target.shape, bool)
                gains.append((not flat, gain, Loss("weak", target, everything, stage, number)))
    return min(gains, key=lambda item: item[:2])[2] if gains else None


def _square(x: Any) -> float:
    return float(np.sum(np.abs(np.asarray(x).astype(np.complex128)) ** 2))
