"""Verdicts on a course of training: what its losses over the epochs say."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ...render.forms import Column, Table
from ..report import Report
from .diagnose import Verdict, diagnose, typical
from .limits import GAP, JUMP, RIGHT, RISE, STUCK
from .probe import Figures
from .table import NOTE, listed, table

Rows = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Course(Report):
    """How training went. It is true if something is wrong, false if all is well.

    Attributes:
        rows: The figures of each epoch.
        figures: Those of the network, layer by layer, as is typical of the latter half of the
            steps that were looked at; empty if there were none.
        verdicts: What is wrong: each has `kind`, `layer`, `sentence` and `figure`.
    """

    rows: Rows
    figures: Figures
    verdicts: tuple[Verdict, ...]

    def __bool__(self) -> bool:
        return bool(self.verdicts)

    @property
    def heading(self) -> str:
        """What stands above its page."""
        return "course of training"

    def parts(self) -> Sequence[Table | str]:
        """The figures, and what is wrong."""
        shown = [table(self.figures, self.verdicts), NOTE] if self.figures else []
        return [*_losses(self.rows), *shown, listed(self.verdicts)]


def course(rows: Rows, records: Sequence[Figures] = ()) -> Course:
    """The verdicts on a run: from the rows of its history, and figures of some of its steps.

    >>> rows = [{"loss": 1 / n, "val_loss": 0.5 + n / 10} for n in range(1, 9)]
    >>> [verdict.kind for verdict in course(rows).verdicts]
    ['over-fitting']
    """
    figures = typical(records) if records else {}
    found = [verdict for look in (_over_fitting, _loss_rises, _stuck) for verdict in look(rows)]
    return Course(rows, figures, (*diagnose(figures), *found))


def _losses(rows: Rows) -> list[Table | str]:
    """The figures of the first, the middle and the last epoch."""
    if not rows:
        return ["No epoch was finished."]
    names = [name for name in rows[-1] if name not in ("seconds", "examples_per_second", "step")]
    chosen = sorted({0, len(rows) // 2, len(rows) - 1})
    cells = tuple(tuple(f"{rows[i].get(name, math.nan):.4g}" for name in names) for i in chosen)
    return [Table(tuple(Column(name.replace("_", " "), right=True) for name in names), cells)]


def _column(rows: Rows, name: str) -> list[float]:
    return [row.get(name, math.nan) for row in rows]


def _learned(rows: Rows) -> bool:
    """Whether nothing is left to be learned from the training examples."""
    return bool(rows) and rows[-1].get("accuracy", 0.0) >= RIGHT.value


def _over_fitting(rows: Rows) -> Iterator[Verdict]:
    if not rows:
        return
    last = rows[-1]
    helps = "more data or augmentation, dropout or weight decay, a smaller network"
    right, held = last.get("accuracy", 0.0), last.get("val_accuracy", math.nan)
    if right >= RIGHT.value and right - held > GAP.value:
        yield Verdict(
            "over-fitting",
            "",
            f"{100 * right:.3g}% of the training examples are right and {100 * held:.3g}% of those "
            f"held out: it learned examples by heart. What helps: {helps}.",
            right - held,
        )
        return
    losses, trained = _column(rows, "val_loss"), _column(rows, "loss")
    known = [loss for loss in losses if math.isfinite(loss)]
    if len(known) < 4 or min(known) <= 0:
        return
    least = losses.index(min(known))
    falls = trained[-1] < trained[least]
    if falls and min(known[-3:]) > RISE.value * min(known):
        yield Verdict(
            "over-fitting",
            "",
            f"the held-out loss was least after epoch {least + 1} and is "
            f"{known[-1] / min(known):.3g} times that now, while that of training fell on: stop "
            f"there (patience), or {helps}.",
            known[-1] / min(known),
        )


def _loss_rises(rows: Rows) -> Iterator[Verdict]:
    losses = _column(rows, "loss")
    if not losses:
        return
    last = losses[-1]
    if not math.isfinite(last):
        yield Verdict(
            "diverged",
            "",
            f"the loss of epoch {len(losses)} is {last}: divide the learning rate by 10, warm it "
            "up, or clip the gradient.",
            last,
        )
        return
    if len(losses) < 2 or not math.isfinite(losses[0]) or _learned(rows):
        return
    first, pairs = abs(losses[0]), list(pairwise(losses))
    if last > losses[0] + JUMP.value * first:
        yield Verdict(
            "loss rises",
            "",
            f"from {losses[0]:.3g} in the first epoch to {last:.3g} in the last: the steps are too "
            "large; divide the learning rate by 10, or let it fall by a schedule.",
            last / losses[0] if losses[0] else math.inf,
        )
        return
    jumps = sum(after - before > JUMP.value * first for before, after in pairs)
    if len(pairs) >= 4 and jumps >= len(pairs) / 4:
        yield Verdict(
            "loss oscillates",
            "",
            f"it rose in {jumps} of {len(pairs)} epochs, each time by more than "
            f"{100 * JUMP.value:.0f}% of the first loss: the steps are too large for batches of "
            "this size; lower the learning rate or the momentum, or take larger batches.",
            jumps / len(pairs),
        )


def _stuck(rows: Rows) -> Iterator[Verdict]:
    losses = _column(rows, "loss")
    if len(losses) < 4 or not all(map(math.isfinite, losses)) or losses[0] <= 0:
        return
    fall = (losses[0] - min(losses)) / losses[0]
    if fall < STUCK.value and not _learned(rows) and losses[-1] <= losses[0] * (1 + JUMP.value):
        yield Verdict(
            "loss hardly moves",
            "",
            f"it fell by {100 * max(fall, 0):.2g}% in {len(losses)} epochs: the steps are too "
            "small, no gradient arrives (fit with health says so), or nothing is left to learn.",
            fall,
        )
