"""The line that says how training goes: live on a terminal, else one line an epoch."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .curves import COUNTERS, VALIDATION

LIVE_EVERY, LINE_EVERY = 0.1, 2.0
"""Seconds between two pictures of the live line, and between two plain lines."""

GONE = (OSError, ValueError)
"""What is raised where the terminal is gone, or the standard error is closed: training goes on."""

Show = Callable[[float, Mapping[str, float], bool], None]
"""`(epochs done, figures, whether an epoch has just ended)`."""


@contextlib.contextmanager
def progress_line(epochs: int, wanted: bool) -> Iterator[Show]:
    """A function that shows how far training is; what it shows goes to the standard error.

    Args:
        epochs: How many there will be.
        wanted: Whether to show anything.
    """
    first: tuple[float, float] | None = None

    def text(done: float, figures: Mapping[str, float]) -> str:
        nonlocal first
        now = time.monotonic()
        # Counted from the first sign of life: compiling comes once and tells nothing of the rest.
        first = first or (now, done)
        elapsed, covered = now - first[0], done - first[1]
        return describe(
            done, epochs, figures, elapsed * (epochs - done) / covered if covered else None
        )

    if not wanted or sys.stderr is None:  # as under 2>&-
        yield lambda done, figures, ended: None
    elif (bar := _rich_bar()) is None:
        yield _lines(epochs, text)
    else:
        task = bar.add_task("compiling", total=epochs)

        def show(done: float, figures: Mapping[str, float], ended: bool) -> None:
            with contextlib.suppress(*GONE):
                bar.update(task, completed=done, description=text(done, figures))

        with bar:
            yield show


def describe(
    done: float, epochs: int, figures: Mapping[str, float], left: float | None = None
) -> str:
    """One line of progress.

    >>> figures = {"loss": 0.25, "val_loss": 0.5, "accuracy": 0.9, "val_accuracy": 0.875}
    >>> describe(2, 15, figures | {"examples_per_second": 8123.4}, 75.0)
    'epoch 2/15, loss 0.250 (validation 0.500), accuracy 0.900 (0.875), 8,123 examples/s, 1:15 left'
    """
    parts, word = [f"epoch {min(math.ceil(done), epochs)}/{epochs}"], "validation "
    for name in figures:
        if name in COUNTERS or name.startswith(VALIDATION):
            continue
        parts.append(f"{name.replace('_', ' ')} {_short(figures[name])}")
        if (held := figures.get(VALIDATION + name)) is not None:
            parts[-1] += f" ({word}{_short(held)})"
            word = ""
    if pace := figures.get("examples_per_second"):
        parts.append(f"{pace:,.0f} examples/s")
    if left is not None and done < epochs:
        parts.append(f"{round(left) // 60}:{round(left) % 60:02d} left")
    return ", ".join(parts)


def _short(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")


def _lines(epochs: int, text: Callable[[float, Mapping[str, float]], str]) -> Show:
    last = -LINE_EVERY

    def show(done: float, figures: Mapping[str, float], ended: bool) -> None:
        nonlocal last
        now = time.monotonic()
        if ended and (now - last >= LINE_EVERY or done >= epochs):
            last = now
            with contextlib.suppress(*GONE):
                print(text(done, figures), file=sys.stderr, flush=True)

    return show


def _rich_bar() -> Any:
    """A bar of the package rich, or None where it is missing, or no terminal can move a line."""
    if not _is_terminal():
        return None
    try:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column
    except ImportError:
        return None
    console = Console(stderr=True)
    if console.is_dumb_terminal:
        return None
    # On a narrow terminal the figures take a second line rather than be cut off.
    figures = TextColumn("{task.description}", table_column=Column(no_wrap=False))
    columns = (BarColumn(bar_width=12), figures) if console.width >= 110 else (figures,)
    return Progress(*columns, console=console, refresh_per_second=1 / LIVE_EVERY)


def _is_terminal() -> bool:
    """Whether the standard error is a terminal; closed it is none."""
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False
