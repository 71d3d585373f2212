"""The figures of a run on disk while it goes: JSON lines, and TensorBoard's event files."""

import contextlib
import importlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from ..disk import write_whole
from ..types import Hint, require
from .curves import VALIDATION
from .history import finite_or_none

EVENTS = "tensorboard"
"""The folder of event files, in that of the log."""

Rows = Sequence[Mapping[str, Any]]


class RunLog:
    """The rows of a run in a folder, each there as soon as its epoch is over.

    `history.jsonl` is what `History.load` reads. Where the package tensorboardX is installed,
    `tensorboard/` has the same for TensorBoard, over the steps: `loss/train`, `loss/validation`.
    What another run left of the two goes away with the first row. A disk that fails ends the log
    and not the run.

    Args:
        folder: Where; it is made with the first row.
        tensorboard: Whether to write event files, if tensorboardX is there.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> log = RunLog(folder, tensorboard=False)
    >>> log.write([{"epoch": 1, "loss": 0.5}])
    >>> (folder / "history.jsonl").read_text()
    '{"epoch": 1, "loss": 0.5}\\n'
    """

    def __init__(self, folder: str | Path, tensorboard: bool = True) -> None:
        self.folder, self.tensorboard = Path(folder), tensorboard
        self.written, self.over = 0, False
        self.events: Any = None

    def write(self, rows: Rows) -> None:
        """Write those of all rows so far that are not there yet; on one process of many."""
        new = rows[self.written :]
        if not new or self.over or jax.process_index():
            return
        try:
            self._write(new)
        except (OSError, ValueError) as error:
            self.over = True
            reason = getattr(error, "strerror", None) or error
            said = f"the log in {self.folder} ends, {reason}; training goes on."
            warnings.warn(said, Hint, stacklevel=2)
        self.written = len(rows)

    def _write(self, new: Rows) -> None:
        lines = "".join(json.dumps(finite_or_none(row), allow_nan=False) + "\n" for row in new)
        path = self.folder / "history.jsonl"
        if self.written == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_events(self.folder)
            write_whole("fit", path, lines.encode())
            self.events = self._opened() if self.tensorboard else None
        else:
            with path.open("a") as file:
                file.write(lines)
        if self.events is not None:
            for row in new:
                self._add(row)
            self.events.flush()

    def _opened(self) -> Any:
        """TensorBoard's writer, or None without the package."""
        try:
            tensorboard = importlib.import_module("tensorboardX")
        except ImportError:
            return None
        return tensorboard.SummaryWriter(str(self.folder / EVENTS))

    def _add(self, row: Mapping[str, Any]) -> None:
        held = {name.removeprefix(VALIDATION) for name in row if name.startswith(VALIDATION)}
        for name, value in row.items():
            if name in ("epoch", "step"):
                continue
            figure = name.removeprefix(VALIDATION)
            part = "validation" if name.startswith(VALIDATION) else "train"
            tag = f"{figure}/{part}" if figure in held else name
            self.events.add_scalar(tag, value, row.get("step", row["epoch"]))

    def close(self) -> None:
        """Let go of the files."""
        if self.events is not None:
            self.events.close()


def remove_events(folder: Path) -> None:
    """Remove the event files of a run, and their folder if nothing else is in it."""
    for path in (folder / EVENTS).glob("events.out.tfevents.*"):
        path.unlink()
    with contextlib.suppress(OSError):
        (folder / EVENTS).rmdir()


@contextlib.contextmanager
def logged(log: str | Path | RunLog | None) -> Iterator[Callable[[Rows], None]]:
    """What is called with all rows so far after each epoch.

    Raises:
        TypeError: If `log` is no folder.
        ValueError: If a file has the folder's name.
    """
    if log is None:
        yield lambda rows: None
        return
    expected, remedy = "log to be a folder", "Write log='runs/first'."
    require(isinstance(log, str | Path | RunLog), "fit", expected, repr(log), remedy, TypeError)
    kept = log if isinstance(log, RunLog) else RunLog(log)
    free = str(kept.folder) not in ("", ".") or log == "."
    free = free and not kept.folder.is_file()
    require(free, "fit", expected, f"a file, {log}" if log else "''", remedy)
    try:
        yield kept.write
    finally:
        kept.close()
