"""How a run is asked to end from outside: Ctrl-C, and SIGTERM."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def interrupts(terminates: bool) -> Iterator[Callable[..., str | None]]:
    """How training was asked to end: "interrupted" by Ctrl-C, or "terminated" by SIGTERM.

    The first Ctrl-C only sets the answer: raised inside a step it would lose the state, whose old
    buffers are given away before the new ones have a name. The second one is raised. SIGTERM is
    taken so only where it `terminates`; else it ends the process as ever.

    Several processes must take the same steps: one that is asked to end tells the others, and all
    end at one step, on which JAX's own service agrees. There each asks before every step, with the
    number of those it has taken.
    """
    together = jax.process_count() > 1 and getattr(
        jax.config, "jax_enable_preemption_service", False
    )
    with _agreed() if together else _alone(terminates) as asked:
        yield asked


@contextlib.contextmanager
def _agreed() -> Iterator[Callable[..., str | None]]:
    ended: list[str] = []
    words = ["terminated"]

    def interrupt(signum: int, frame: Any) -> None:
        if words[-1] == "interrupted":
            raise KeyboardInterrupt
        words.append("interrupted")
        signal.raise_signal(signal.SIGTERM)  # which JAX tells all processes of

    def asked(taken: int | None = None) -> str | None:
        if taken is not None and not ended and multihost_utils.reached_preemption_sync_point(taken):
            ended.append(words[-1])
        return ended[0] if ended else None

    with _taken({signal.SIGINT: (signal.default_int_handler, interrupt)}):
        yield asked


@contextlib.contextmanager
def _alone(terminates: bool) -> Iterator[Callable[..., str | None]]:
    asked: list[str] = []

    def interrupt(signum: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append("interrupted")

    def terminate(signum: int, frame: Any) -> None:
        asked.append("terminated")

    ours: dict[int, tuple[Any, Callable]] = {
        signal.SIGINT: (signal.default_int_handler, interrupt),
        signal.SIGTERM: (signal.SIG_DFL, terminate),
    }
    if not terminates:
        del ours[signal.SIGTERM]
    with _taken(ours):
        yield lambda taken=None: asked[0] if asked else None


@contextlib.contextmanager
def _taken(ours: dict[int, tuple[Any, Callable]]) -> Iterator[None]:
    """Handlers of signals, each in the place of the one that is usually there, and no other."""
    here = threading.current_thread() is threading.main_thread()
    taken = [number for number, (before, _) in ours.items() if signal.getsignal(number) is before]
    for number in taken if here else ():
        signal.signal(number, ours[number][1])
    try:
        yield
    finally:
        for number in taken if here else ():
            signal.signal(number, ours[number][0])
