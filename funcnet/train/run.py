"""A run of training under way: its state, its figures, and what it gives back at the end."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax

from ..feed.numbers import DataError, examples_in
from ..feed.reader import Reader
from .guard import Guard, Left
from .history import VALIDATION
from .measure import Means
from .optimizers import rate_of
from .progress import LIVE_EVERY, Show
from .state import Step, TrainState, finite, own

OnEpoch = Callable[[dict[str, float], TrainState], Any]


def figures_of(run: Callable, state: TrainState, batches: Iterable[Any]) -> Means:
    """The figures of all batches together."""
    means = Means()
    for batch in batches:
        means.add(run(state, batch), examples_in(batch))
    return means


class Best:
    """The state of the epoch with the least validation loss, and how long ago that was."""

    def __init__(self, patience: int | None) -> None:
        self.patience, self.state = patience, None
        self.loss, self.since = math.inf, 0

    def see(self, row: dict[str, float], state: TrainState) -> bool:
        """Whether patience has run out."""
        loss = row.get(f"{VALIDATION}loss")
        if self.patience is None or loss is None:
            return False
        self.since += 1
        if loss < self.loss:
            self.loss, self.since, self.state = loss, 0, jax.tree.map(own, state)
        return self.since >= self.patience


class Run:
    """A run under way: its state and what it has to show so far."""

    def __init__(
        self,
        step: Step,
        state: TrainState,
        best: Best,
        show: Show,
        interrupted: Callable[..., str | None],
        guard: Guard | None = None,
        keeper: Any = None,
    ) -> None:
        self.step: Any = step
        self.state, self.best = state, best
        self.show, self.interrupted, self.guard = show, interrupted, guard
        self.taken, self.rows, self.stopped = 0, [], None
        self.failed: DataError | None = None
        self.keeper, self.means = keeper, Means()
        self.compiled: set[int] = set()
        self.finished, self.left = 0, Left()
        self.started = 0.0
        self.last_finite = jax.tree.map(own, state)

    def result(self) -> TrainState:
        """The best state; without one the last, or the last finite one."""
        if self.best.state is not None:
            return self.best.state
        lost = any(leaf.is_deleted() for leaf in jax.tree.leaves(self.state))
        bad = lost or self.stopped == "not finite" or not finite(self.state.params)
        return self.last_finite if bad else self.state

    def learn(self, epoch: int, data: Reader) -> None:
        """Take the steps of one epoch that are left, and add its row unless there were none.

        Data that fails ends the run with the steps until then.
        """
        self.started = clock = shown = time.monotonic()
        before = int(self.rows[-1]["step"]) if self.rows else 0
        done, steps = self.taken - before, data.feed.steps
        self.means = means = self.means if done else Means()
        uncounted = means.examples
        for i, part in enumerate(self._readable(data.epoch(epoch, done)), done + 1):
            if self.interrupted(self.taken) or (self.guard is not None and self.guard.halted):
                break
            examples = examples_in(part)
            began = time.monotonic()
            self.state, figures = self.step.update(self.state, part)
            self.taken += 1
            means.add(figures, examples)
            if examples not in self.compiled:
                # The first step of a size compiles: it is no measure of the pace.
                jax.block_until_ready(figures)
                self.compiled.add(examples)
                clock, uncounted = clock + time.monotonic() - began, uncounted + examples
            if self.keeper is not None and (steps is None or i < steps):
                self.keeper.stepped(self)
            if time.monotonic() - shown > LIVE_EVERY:
                figures = means.known() | self._last_validation()
                shown = time.monotonic()
                pace = max(means.examples - uncounted, 0) / max(shown - clock, 1e-9)
                # How long a first pass is, nobody knows where batches come one by one.
                share = i / steps if steps else 0.5
                self.show(epoch + share, figures | {"examples_per_second": pace}, False)
        took = self.taken - before
        self.left = self._left_out()
        if took and self.left.untold == took:
            self.stopped = "not finite"
        elif figures := means.read_all("fit", "data"):
            examples = max(means.examples - uncounted, 0)
            pace = examples / max(time.monotonic() - clock, 1e-9)
            counters = {"epoch": epoch + 1, "step": self.taken}
            timing = {"examples_per_second": pace, "seconds": time.monotonic() - self.started}
            counted = {"skipped": self.left.skipped} if self.guard and self.guard.counts else {}
            rate = rate_of(self.state.opt_state)
            told = {} if rate is None else {"learning_rate": float(rate)}
            self.rows.append(counters | figures | told | counted | timing)

    def _readable(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches until one cannot be had; before the first step that is an error."""
        try:
            yield from batches
        except DataError as error:
            if self.taken == 0:
                raise
            self.failed, self.stopped = error, "data"

    def _left_out(self) -> Left:
        """How many steps of the epoch were left out; the run ends if one was and none may be."""
        left = Left() if self.guard is None else self.guard.read_all()
        if self.guard is not None and self.guard.halted:
            self.stopped, self.last_finite = "not finite", self.state
            self.taken -= self.guard.halted_steps
        return left

    def finish(self, held: Reader | None, done: int, on_epoch: OnEpoch | None) -> None:
        """Validate, report, and decide whether to go on."""
        if not self.interrupted():
            row = self.rows[-1]
            row |= self._validate(held, done - 1) if held else {}
            row |= {"seconds": time.monotonic() - self.started}
            self.show(done, row, True)
            if on_epoch is not None and on_epoch(dict(row), self.state) is True:
                self.stopped = "on_epoch"
            if self.best.see(row, self.state):
                self.stopped = "patience"
            if not (math.isfinite(row["loss"]) and finite(self.state.params)):
                self.stopped = "not finite"
            elif self.best.state is None:
                self.last_finite = jax.tree.map(own, self.state)
            self.finished = done
        self.stopped = self.interrupted() or self.stopped

    def _validate(self, held: Reader, epoch: int) -> dict[str, float]:
        batches = self._readable(held.epoch(epoch))
        found = figures_of(self.step.evaluate, self.state, batches)
        return {
            VALIDATION + name: value for name, value in found.read_all("fit", "validation").items()
        }

    def _last_validation(self) -> dict[str, float]:
        last = self.rows[-1] if self.rows else {}
        return {name: value for name, value in last.items() if name.startswith(VALIDATION)}
