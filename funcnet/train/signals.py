"""How a run is asked to end from outside: Ctrl-C, and SIGTERM."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def interrupts(terminates: bool) -> Iterator[Callable[[], str | None]]:
    """How training was asked to end: "interrupted" by Ctrl-C, or "terminated" by SIGTERM.

    The first Ctrl-C only sets the answer: raised inside a step it would lose the state, whose old
    buffers are given away before the new ones have a name. The second one is raised. SIGTERM is
    taken so only where it `terminates`; else it ends the process as ever.
    """
    asked: list[str] = []

    def interrupt(signum: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append("interrupted")

    def terminate(signum: int, frame: Any) -> None:
        asked.append("terminated")

    here = threading.current_thread() is threading.main_thread()
    ours: dict[int, tuple[Any, Callable]] = {
        signal.SIGINT: (signal.default_int_handler, interrupt),
        signal.SIGTERM: (signal.SIG_DFL, terminate),
    }
    if not terminates:
        del ours[signal.SIGTERM]
    taken = [number for number, (before, _) in ours.items() if signal.getsignal(number) is before]
    for number in taken if here else ():
        signal.signal(number, ours[number][1])
    try:
        yield lambda: asked[0] if asked else None
    finally:
        for number in taken if here else ():
            signal.signal(number, ours[number][0])
