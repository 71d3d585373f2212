"""What a run of `fit` is on disk, and how it goes on from there.

The order of examples is a function of the seed and the number of steps taken, and so are the draws:
the position in the data is that number. The rest is the state, the figures of the epoch under way,
the epochs before, and what decides how training ends.
"""

import hashlib
import sys
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from ..feed.feed import Feed
from ..figures import Mean
from ..mesh.hosts import is_first
from ..types import require, shown
from .checkpoint import Checkpoints
from .guard import Guard, Left
from .health import Checkups, record_of
from .measure import Means
from .run import Run
from .state import TrainState, own
from .stored import differences, flat, shapes_of

PATIENCE = "patience"


def checkpoints_of(checkpoint: Any, resume: bool) -> Checkpoints | None:
    """The checkpoints that `fit` is given, as such or as their folder.

    Raises:
        TypeError: If it is neither.
        ValueError: If there are none to `resume` from.
    """
    require(
        checkpoint is not None or not resume,
        "fit",
        "a folder of checkpoints to go on from with resume",
        "none",
        "Name it: checkpoint=DIR, or --checkpoint DIR.",
    )
    require(
        checkpoint is None or isinstance(checkpoint, str | Path | Checkpoints),
        "fit",
        "checkpoint to be a folder or Checkpoints",
        shown(checkpoint),
        "Write checkpoint='runs/a' or checkpoint=fn.Checkpoints('runs/a', every=500).",
        TypeError,
    )
    return Checkpoints(checkpoint) if isinstance(checkpoint, str | Path) else checkpoint


def begun(state: TrainState, start: Any) -> TrainState:
    """The state that training starts from: `start`, if there is one, in the place of `state`.

    Raises:
        TypeError: If `start` is no state of training.
        ValueError: If it is one of another network or optimiser.
    """
    if start is None:
        return state
    require(
        isinstance(start, TrainState),
        "fit",
        "start to be a state of training",
        shown(start),
        "Pass fit(...).state, or what step.init and step.update return.",
        TypeError,
    )
    faults = differences(shapes_of(flat("start", start)), shapes_of(flat("start", state)))
    require(
        not faults,
        "fit",
        "start to be a state of this network and optimiser",
        "; ".join(faults),
        "Give the network and the optimiser that it was trained with.",
    )
    leaves = jax.tree.leaves(jax.tree.map(own, start))
    return jax.tree.unflatten(jax.tree.structure(state), leaves)


def settings_of(seed: int, feed: Feed) -> dict[str, Any]:
    """What must be the same for a run to go on: among it a print of the first examples."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(feed.first()):
        part = np.asarray(leaf)
        digest.update(f"{part.dtype} {part.shape}".encode() + part.tobytes())
    return {
        "seed": int(seed),
        "batch": int(feed.size),
        "number of examples": feed.examples,
        "first examples": digest.hexdigest()[:16],
        "number of processes": jax.process_count(),
        "order": _order(feed),
    }


def _order(feed: Feed) -> str:
    """How examples are drawn, beside seed and batch."""
    if feed.labels is not None:
        digest = hashlib.sha256(np.ascontiguousarray(feed.labels, np.int64).tobytes())
        return f"balanced {digest.hexdigest()[:16]}, {feed.remainder}"
    return f"{'shuffled' if feed.shuffle else 'as it is'}, {feed.remainder}"


class Stored(NamedTuple):
    """A figure of some batches as it was read: it takes its kind from the next batch's.

    Attributes:
        parts: Its arrays.
        value: The figure itself.
    """

    parts: list[np.ndarray]
    value: float

    def join(self, other: Any) -> Any:
        """The same figure of the examples of both."""
        return jax.tree.unflatten(jax.tree.structure(other), self.parts).join(other)


class Keeper:
    """What a run gives to its checkpoints, and takes back from them.

    Args:
        checkpoints: Where they are.
        settings: What must agree with those of the run that goes on.
        seen: What looks at the network's health, if anything does.
    """

    def __init__(
        self, checkpoints: Checkpoints, settings: dict[str, Any], seen: Checkups | None
    ) -> None:
        self.checkpoints, self.settings, self.seen = checkpoints, settings, seen
        self._saved: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        self.checkpoints.open()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.checkpoints.__exit__(*exc)

    def resume(self, run: Run, resume: bool) -> None:
        """Set the run to where the last checkpoint was written; where there is none it is new.

        Raises:
            ValueError: If there is one and the run is to be new, or it is one of another run.
        """
        folder, steps = self.checkpoints.folder, self.checkpoints.steps()
        require(
            resume or not steps,
            "fit",
            f"no other run in {folder}",
            f"one that has taken {max(steps, default=0)} steps",
            "Give resume=True to go on with it, or another folder.",
        )
        step = self.checkpoints.latest() if steps else None
        if step is None:
            return
        step, record = self.checkpoints.read(step)
        told: dict[str, Any] = record.get("run", {})
        remedy = "Restore it by Checkpoints.restore, and give it as start=state."
        require(told, "fit", f"a run of fit in {folder}", "one of another loop", remedy)
        self._check_settings(told["settings"])
        like = {"state": run.state} | ({"kept": run.state} if told["kept"] else {})
        found = self.checkpoints.arrays(step, record, like)
        kept = found["kept"] if told["kept"] else jax.tree.map(own, found["state"])
        run.state, run.taken, run.rows = found["state"], step, list(told["rows"])
        run.finished, run.means = len(run.rows), _means(told["means"])
        run.best.loss, run.best.since, is_best = told["best"]
        if not is_best:
            run.last_finite = kept
        elif run.best.patience is not None:
            run.best.state = kept
            if run.best.since >= run.best.patience:
                run.stopped = PATIENCE
        if run.guard is not None:
            run.guard.left = Left(*told["left"])
        if self.seen is not None:
            self.seen.taken, self.seen.known = step, list(told["health"])

    def _check_settings(self, told: Mapping[str, Any]) -> None:
        same_parts = told["number of processes"] == self.settings["number of processes"]
        ignored = (
            {"number of processes"} if same_parts else {"number of processes", "first examples"}
        )
        faults = [
            f"{name} {self.settings[name]}, not {told[name]}"
            for name in told
            if name not in ignored and told[name] != self.settings.get(name)
        ]
        require(
            not faults,
            "fit",
            f"the settings and the data of the run in {self.checkpoints.folder}",
            ", ".join(faults),
            "Give those that it began with, or another folder.",
        )

    def stepped(self, run: Run) -> None:
        """After each step but the last of an epoch."""
        every = self.checkpoints.every
        if every is not None and run.taken % every == 0:
            self.save(run)
        else:
            self.checkpoints.check()

    def finished(self, run: Run) -> None:
        """After each epoch and its validation."""
        every = self.checkpoints.every
        due = every is None or run.taken % every == 0
        if run.stopped in (None, "on_epoch", PATIENCE) and (
            due or self.checkpoints.improved(run.rows)
        ):
            self.save(run)

    def close(self, run: Run) -> None:
        """Write the last checkpoint, unless it is there, and wait for it."""
        if run.stopped != "not finite" and self._saved != (run.taken, run.finished):
            if run.guard is not None and run.finished < len(run.rows):
                run.guard.left = run.left  # of an epoch that was broken off
            self.save(run)
        self.checkpoints.wait()
        if run.stopped == "terminated" and is_first():
            print(
                f"fit: ended by SIGTERM after step {run.taken}, which is in "
                f"{self.checkpoints.folder}: resume=True goes on from there.",
                file=sys.stderr,
                flush=True,
            )

    def save(self, run: Run) -> None:
        """Write a checkpoint of the run in the background."""
        self._saved = run.taken, run.finished
        rows = [dict(row) for row in run.rows[: run.finished]]
        at_end = bool(rows) and rows[-1]["step"] == run.taken
        kept = run.last_finite if run.best.state is None else run.best.state
        same = at_end and (run.best.state is None or run.best.since == 0)
        best = (run.best.loss, run.best.since, run.best.state is not None)
        told = {"settings": self.settings, "rows": rows, "kept": not same, "best": best}
        means = _noted(Means() if at_end else run.means)
        left, health = _left(run.guard), self._health()

        def record() -> dict[str, Any] | None:
            left_out = left()
            if left_out is None:
                return None
            more = {"means": means(), "left": left_out, "health": health()}
            return {"row": rows[-1] if at_end else {}, "run": told | more}

        arrays = flat("state", jax.tree.map(own, run.state))
        arrays |= {} if same else flat("kept", kept)
        self.checkpoints.write(run.taken, arrays, record)

    def _health(self) -> Callable[[], list[dict[str, Any]]]:
        if self.seen is None:
            return lambda: []
        known, seen = tuple(self.seen.known), tuple(self.seen.seen)
        return lambda: [*known, *map(record_of, seen)]


def _left(guard: Guard | None) -> Callable[[], Left | None]:
    """What was left out of the epoch; None where the run is to end with one of its steps."""
    if guard is None:
        return Left
    before, pending = guard.left, [said for said, _ in guard.pending]

    def left() -> Left | None:
        fine, taken, told = np.reshape(pending, (-1, 3)).T.astype(bool)
        if guard.halts and not fine.all():
            return None
        return Left(before.skipped + int((~taken).sum()), before.untold + int((~told).sum()))

    return left


def _noted(means: Means) -> Callable[[], dict[str, Any]]:
    """The figures so far, to be read when those under way are known."""
    copy = Means()
    copy.examples, copy.figures = means.examples, dict(means.figures)
    copy.pending = deque(means.pending)

    def noted() -> dict[str, Any]:
        values = copy.read()
        figures = {
            name: {
                "mean": isinstance(figure, Mean),
                "parts": [np.asarray(part).tolist() for part in jax.tree.leaves(_parts(figure))],
                "value": values[name],
            }
            for name, figure in copy.figures.items()
        }
        return {"examples": copy.examples, "figures": figures}

    return noted


def _parts(figure: Any) -> Any:
    return figure.parts if isinstance(figure, Stored) else figure


def _means(told: Mapping[str, Any]) -> Means:
    means = Means()
    means.examples = told["examples"]
    for name, figure in told["figures"].items():
        parts = [np.asarray(part, np.float64) for part in figure["parts"]]
        means.figures[name] = Mean(*parts) if figure["mean"] else Stored(parts, figure["value"])
    return means
