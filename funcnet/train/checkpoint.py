"""Checkpoints: states of training in a folder, of which the last ones and the best are kept."""

import contextlib
import math
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from .. import tree
from ..disk import locked
from ..mesh.hosts import is_lost
from ..types import Hint, is_whole, require, shown
from . import stored
from .state import TrainState, finite, own
from .stored import flat

Row = Mapping[str, float]


class CheckpointError(OSError):
    """A checkpoint could not be written; those before it are whole.

    Attributes:
        fitted: What `fit` would have returned, had training ended there; None outside of `fit`.
    """

    fitted: Any = None


class Checkpoints:
    """States of training in a folder: written in the background, whole or not at all.

    `fit(..., checkpoint=Checkpoints(folder), resume=True)` does all of it. In a loop of one's own:

        with Checkpoints("runs/a") as checkpoints:
            if checkpoints.latest() is not None:
                state = checkpoints.restore(like=state)
            for i in range(int(state.step), 10_000):
                state, values = step.update(state, batch(i))
                if (i + 1) % 500 == 0:
                    checkpoints.save(state)

    A checkpoint is the folder `step_N`: arrays as orbax writes them, and `record.json`, which has
    the checksum of every file and is written last. One that is not as it was written is named in a
    warning, and the one before it is read.

    Args:
        folder: Where; made if it is missing. One process (or one job of several) at a time writes
            to it.
        every: Steps between two that `fit` writes; without it, one after each epoch.
        keep: How many of the last ones are kept.
        best: The figure of an epoch whose least value makes the best one, or a function of the
            epoch's row of the history that gives what is to be least. The checkpoint of that epoch
            is kept beside the last ones, and `fit` writes one whenever an epoch is the best so far.
            None, or a figure that no epoch has, keeps none.

    Raises:
        ImportError: If orbax-checkpoint is missing.
        ValueError: If `every` or `keep` is no whole number of 1 or more.
        TypeError: If `best` is no name and no function.

    >>> import tempfile, jax.numpy as jnp
    >>> state = TrainState(jnp.array(3), {"w": jnp.ones(2)}, {}, (), jax.random.key(0))
    >>> with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as checkpoints:
    ...     checkpoints.save(state)
    ...     checkpoints.wait()
    ...     checkpoints.latest(), checkpoints.params()["w"].tolist()
    (3, [1.0, 1.0])
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every: int | None = None,
        keep: int = 3,
        best: str | Callable[[Row], float] | None = "val_loss",
    ) -> None:
        for name, value in (("every", every), ("keep", keep)):
            ok = (value is None and name == "every") or is_whole(value)
            expected = f"{name} to be a whole number, 1 or above"
            require(ok, "Checkpoints", expected, shown(value), f"Write {name}=5.")
        require(
            best is None or isinstance(best, str) or callable(best),
            "Checkpoints",
            "best to be the name of a figure or a function of a row",
            shown(best),
            "Write best='val_loss' or best=lambda row: -row['val_accuracy'].",
            TypeError,
        )
        stored.orbax()
        self.folder, self.every, self.keep = Path(folder).absolute(), every, keep
        self._best, self._scores = best, {}
        self._writer: Any = None
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._lock = contextlib.ExitStack()

    def open(self) -> Self:
        """Take the folder for this process, and remove what was left half written.

        `save` does so by itself.

        Raises:
            ValueError: If another process has it, or it cannot be written to.
        """
        if self._writer is not None:
            return self
        if jax.process_index() == 0:
            self._lock.enter_context(locked("Checkpoints", self.folder))
            for step in stored.steps_in(self.folder, half_written=True):
                self._sweep(step)
            self._scores = {step: self._score_on_disk(step) for step in self.steps()}
        library = stored.orbax()
        self._writer = library.AsyncCheckpointer(library.PyTreeCheckpointHandler())
        return self

    def steps(self) -> list[int]:
        """The steps of which there is a checkpoint, the last one first."""
        return stored.steps_in(self.folder)

    def latest(self) -> int | None:
        """The step of the last checkpoint that is as it was written; None if there is none.

        Warns:
            Hint: For each one after it, what is wrong with it.
        """
        found = self._newest()
        return None if found is None else found[0]

    def best(self) -> int | None:
        """The step of the checkpoint of the best epoch; None if no epoch has the figure."""
        scores = {step: self._score_on_disk(step) for step in self.steps()}
        return _least(scores)

    def save(self, state: TrainState, step: int | None = None, *, row: Row | None = None) -> None:
        """Write a checkpoint in the background: the state may be given away at once.

        One that is being written already is waited for. A state whose parameters are not finite is
        not written.

        Args:
            state: The state.
            step: What it is found by; without it `state.step`, which waits for the device.
            row: Figures of the epoch that has just ended, by which the best is known.

        Raises:
            ValueError: If another process writes to the folder, or it cannot be written to.
            CheckpointError: If the one before could not be written.
        """
        step = int(state.step) if step is None else step
        self.write(step, flat("state", jax.tree.map(own, state)), lambda: {"row": row or {}})

    def write(
        self,
        step: int,
        arrays: Mapping[str, Any],
        record: Callable[[], Mapping[str, Any] | None],
    ) -> None:
        """Write arrays by path, which nobody may give away, and a record made in the background.

        Where the record is None nothing is kept. Raises what `save` does.
        """
        self.open()
        self.wait()
        # What the devices do they are told here: steps and checkpoints in one order everywhere.
        fine = finite([leaf for name, leaf in arrays.items() if name.startswith("state/params/")])
        begun = None
        if jax.process_count() > 1:
            if not fine:
                return
            begun = stored.Writing(self._writer, self._place(step), arrays)

        def work() -> None:
            try:
                more = record()
                if begun is not None:
                    self._finish(step, begun, more)
                elif more is not None and fine:
                    begun_here = stored.Writing(self._writer, self._place(step), arrays)
                    self._finish(step, begun_here, more)
            except Exception as error:
                self._error = error
                self._sweep(step)

        self._thread = threading.Thread(target=work, name="checkpoint")
        self._thread.start()

    def _finish(self, step: int, begun: stored.Writing, more: Mapping[str, Any] | None) -> None:
        begun.finish(more)
        if jax.process_index() != 0:
            return
        if more is None:
            self._sweep(step)
        else:
            self._scores[step] = self._score(more)
            self._trim()

    def _sweep(self, step: int) -> None:
        """Remove what no record names of the checkpoint of a step."""
        try:
            stored.sweep(self._place(step), stored.read_record(self._place(step))["arrays"])
        except FileNotFoundError:
            stored.remove(self._place(step))
        except ValueError:
            return  # a record that is not as it was written: it is told when it is asked for

    def _place(self, step: int) -> Path:
        return stored.folder_of(self.folder, step)

    def wait(self) -> None:
        """Wait until what was saved is on disk.

        Raises:
            CheckpointError: If it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.check()

    def check(self) -> None:
        """Raise what went wrong in the background, without waiting.

        Raises:
            CheckpointError: If a checkpoint could not be written.
            JaxRuntimeError: If another process is gone.
        """
        if self._error is None:
            return
        error, self._error = self._error, None
        if is_lost(error):
            raise error
        last = next(iter(self.steps()), None)
        still = "There is none before it" if last is None else f"That of step {last} is whole"
        raise CheckpointError(
            f"Checkpoints: expected room to write a checkpoint in {self.folder}, got "
            f"{stored.reason(error)}. {still}: make room, and go on from there with resume=True."
        ) from error

    def restore(self, like: Any, step: int | None = None) -> Any:
        """A state as it was saved.

        Args:
            like: A state of the same network and optimiser, as `step.init` gives it, or its shapes:
                `ShapeDtypeStruct`s, whose shardings say where each array goes.
            step: Which one; without it the last that is as it was written.

        Raises:
            ValueError: If there is none, it is not as it was written, or it is of another network
                or optimiser: every array that differs is named, with both shapes.

        Warns:
            Hint: For each one that was passed over, what is wrong with it.
        """
        at, body = self.read(step)
        return self.arrays(at, body, {"state": like})["state"]

    def params(self, step: int | None = None, like: Any = None) -> Any:
        """The parameters alone, as a nested dict; without the optimiser that they were trained by.

        Args:
            step: Which one; without it the last that is as it was written.
            like: Parameters, or their shapes, that say where each array goes.

        Raises:
            ValueError: As `restore` does.
        """
        at, body = self.read(step)
        under = "state/params/"
        if like is None:
            wanted = {
                name: jax.ShapeDtypeStruct(shape, np.dtype(dtype))
                for name, (shape, dtype) in body["shapes"].items()
                if name.startswith(under)
            }
            found = stored.read_arrays(self._place(at), body, wanted)
            return tree.unflatten({name.removeprefix(under): x for name, x in found.items()})
        return self.arrays(at, body, {"state/params": like})["state/params"]

    def read(self, step: int | None = None) -> tuple[int, dict[str, Any]]:
        """The step and the record of a checkpoint, after a look at all of its files.

        Raises:
            ValueError: If there is none, or it is not as it was written.
        """
        if step is None:
            found = self._newest()
            expected = f"a checkpoint in {self.folder}"
            require(found, "Checkpoints", expected, "none that is whole", "Check the folder.")
            assert found is not None
            return found
        require(
            step in self.steps(),
            "Checkpoints",
            f"a checkpoint of step {step} in {self.folder}",
            f"those of {', '.join(map(str, self.steps())) or 'none'}",
            "Choose one of them.",
        )
        try:
            return step, stored.read_whole(self._place(step))
        except ValueError as error:
            expected = f"a whole checkpoint of step {step}"
            require(False, "Checkpoints", expected, error, "Choose another one.")
            raise

    def arrays(self, step: int, body: Mapping[str, Any], like: dict[str, Any]) -> dict[str, Any]:
        """Trees of arrays of a checkpoint by the path they stand under, in the structure of `like`.

        Raises:
            ValueError: If they have other arrays.
        """
        wanted = {name: leaf for under in like for name, leaf in flat(under, like[under]).items()}
        under = tuple(f"{name}/" for name in like)
        there = {name: kind for name, kind in body["shapes"].items() if name.startswith(under)}
        faults = stored.differences(there, stored.shapes_of(wanted))
        require(
            not faults,
            "Checkpoints",
            f"the arrays of this network and optimiser in step {step} of {self.folder}",
            "; ".join(faults),
            "The checkpoint belongs to another one.",
        )
        found = stored.read_arrays(self._place(step), body, wanted)
        return {
            under: jax.tree.unflatten(
                jax.tree.structure(part), [found[name] for name in flat(under, part)]
            )
            for under, part in like.items()
        }

    def improved(self, rows: Sequence[Row]) -> bool:
        """Whether the last epoch of these is better than all before it."""
        *before, last = (self._score({"row": row}) for row in rows)
        return last is not None and all(score is None or last < score for score in before)

    def close(self) -> None:
        """Wait for what is being written, and let the folder go.

        Raises:
            CheckpointError: If it could not be written.
        """
        try:
            self.wait()
        finally:
            if self._writer is not None:
                self._writer.close()
            self._writer = None
            self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not is_lost(error):  # what is being written would wait for the process that is gone
            self.close()

    def _newest(self) -> tuple[int, dict[str, Any]] | None:
        for step in self.steps() if jax.process_index() == 0 else ():
            try:
                found = step, stored.read_whole(self._place(step))
            except (OSError, ValueError) as error:
                said = f"{self._place(step)} is left out, as {error}. The one before it is read."
                warnings.warn(f"Checkpoints: {said}", Hint, stacklevel=3)
            else:
                return stored.agreed(self.folder, found)
        return stored.agreed(self.folder, None)

    def _score(self, record: Mapping[str, Any]) -> float | None:
        row = record.get("row")
        if not row or self._best is None:
            return None
        score = row.get(self._best) if isinstance(self._best, str) else self._best(row)
        return score if score is not None and math.isfinite(score) else None

    def _score_on_disk(self, step: int) -> float | None:
        try:
            return self._score(stored.read_record(self._place(step)))
        except (OSError, ValueError):
            return None

    def _trim(self) -> None:
        """Remove all but the last ones and the best."""
        kept = {*sorted(self._scores)[-self.keep :], _least(self._scores)}
        for step in self.steps():
            if step not in kept:
                stored.remove(stored.folder_of(self.folder, step))
                self._scores.pop(step, None)


def _least(scores: Mapping[int, float | None]) -> int | None:
    known = {step: score for step, score in scores.items() if score is not None}
    return min(sorted(known), key=lambda step: known[step], default=None)
