"""A trace of some steps of a run, for xprof and TensorBoard's profiler."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from ..types import Hint, require

FIRST, STEPS = 3, 8
"""The step at which the trace begins, after what compiles, and how many it has."""


@contextlib.contextmanager
def profiled(folder: str | Path | None, update: Callable) -> Iterator[Callable]:
    """`update`, of which some calls are traced by `jax.profiler` into a folder; or as it is.

    Raises:
        TypeError: If `folder` is no path.
        OSError: If it cannot be made.
    """
    if folder is None:
        yield update
        return
    expected, remedy = "profile to be a folder", "Write profile='runs/profile'."
    require(isinstance(folder, str | Path), "fit", expected, repr(folder), remedy, TypeError)
    require(str(folder), "fit", expected, "''", remedy)
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        expected, remedy = f"a folder to write to, {folder}", "Choose another for profile."
        require(False, "fit", expected, error.strerror, remedy, OSError)
    trace = _Trace(str(folder), update)
    try:
        yield trace
    finally:
        trace.close()


class _Trace:
    """An update that counts its calls, and has the profiler on for some of them."""

    def __init__(self, folder: str, update: Callable) -> None:
        self.folder, self.update = folder, update
        self.taken, self.on = 0, False

    def __call__(self, state: Any, batch: Any) -> Any:
        self.taken += 1
        if self.taken == FIRST:
            jax.block_until_ready(state)
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0  # its calls would be most of the file
            jax.profiler.start_trace(self.folder, profiler_options=options)
            self.on = True
        if not self.on:
            return self.update(state, batch)
        with jax.profiler.StepTraceAnnotation("train", step_num=self.taken):
            result = jax.block_until_ready(self.update(state, batch))
        if self.taken == FIRST + STEPS - 1:
            self.close()
        return result

    def close(self) -> None:
        if self.on:
            self.on = False
            jax.profiler.stop_trace()
        elif self.taken < FIRST:
            said = f"no trace in {self.folder}: it begins at step {FIRST}, and the run has fewer."
            warnings.warn(said, Hint, stacklevel=2)
