"""The folder that a run is written to: tried before, kept from other runs, and never mixed."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..disk import locked
from ..train.log import EVENTS, remove_events
from ..types import require

FILES = (
    "params.npz",
    "run.json",
    "history.jsonl",
    "curves.png",
    "confusion.png",
    "reliability.png",
    "residuals.png",
    "samples.png",
    "sample.txt",
    "evaluation.json",
    "result.json",
)
"""What the commands may leave in a run's folder."""
RUNNING = "running"
"""The folder inside, in which a run is under way where another one was saved before."""


@contextlib.contextmanager
def writable(folder: str) -> Iterator[Path]:
    """The output folder, made and tried before any time is spent on training, and locked.

    If nothing was written in it, a folder made here goes away with the error.

    Raises:
        OSError: If nothing can be written there.
        ValueError: If another run is under way in it, or a folder has the name of a file.
    """
    require(
        folder != "", "train", "a folder to write in for --out", "''", "Leave it out for runs/..."
    )
    out, made = Path(folder), []
    try:
        made = [place for place in (out, *out.parents) if not place.exists()]
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".writable.{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except (OSError, ValueError) as error:
        _remove_empty(made)
        raise OSError(
            f"train: expected a folder to write in for --out, got {out} "
            f"({getattr(error, 'strerror', None) or error}). Name another one."
        ) from None
    blocked = [name for name in FILES if (out / name).is_dir()]
    require(
        not blocked,
        "train",
        f"files or nothing at the names that it writes in {out}",
        f"a folder {', '.join(blocked)}",
        "Name another folder with --out.",
    )
    try:
        with locked("train", out, "Wait for its end, or name another folder with --out."):
            yield out
    except BaseException:
        _remove_empty(made)
        raise


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def live(out: Path) -> Iterator[Path]:
    """Where the history grows as the run goes: `out`, or a folder in it beside a saved run.

    So the files of a saved run belong together until they are replaced.
    """
    beside = out / RUNNING
    shutil.rmtree(beside, ignore_errors=True)
    try:
        yield beside if (out / "params.npz").exists() else out
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def holds_a_better_run(out: Path) -> bool:
    """Whether there are parameters of a run that is not known to have diverged."""
    try:
        earlier = json.loads((out / "result.json").read_text())
    except (OSError, ValueError):
        earlier = None
    diverged = isinstance(earlier, dict) and earlier.get("stopped") == "not finite"
    return (out / "params.npz").exists() and not diverged


def remove_stale(out: Path, growing: Path) -> None:
    """Remove what an earlier run left, but for the parameters; its evaluations and events too."""
    for name in FILES[1:]:
        (out / name).unlink(missing_ok=True)
    if growing != out:
        remove_events(out)
        if (growing / EVENTS).exists():
            (growing / EVENTS).rename(out / EVENTS)
    for place in out.glob("evaluation-*"):
        shutil.rmtree(place, ignore_errors=True)


def files_in(out: Path) -> list[str]:
    """The names of `FILES` that are there."""
    return [name for name in FILES if (out / name).is_file()]
