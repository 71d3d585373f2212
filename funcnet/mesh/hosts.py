"""Several processes that train together: who speaks for all, and what is said if one is gone.

They find each other by `jax.distributed.initialize()`, before anything is computed. From then on
every process runs the same program on the devices of all.
"""

import atexit
import contextlib
import functools
import os
import sys
import threading
from collections.abc import Iterator

import jax

SIGNS = ("gloo", "nccl", "rccl", "connection", "peer", "heartbeat", "task", "unavailable")
"""What JAX's error says, among other words, if a process cannot be reached."""

_lost: list[str] = []


def is_first() -> bool:
    """Whether this process is the one that shows and writes what all have in common.

    >>> is_first()
    True
    """
    return jax.process_index() == 0


@contextlib.contextmanager
def together(where: str) -> Iterator[None]:
    """What runs inside needs all processes: if one is gone, the others are told in a sentence.

    Where the others wait for it without an error, JAX ends them after the timeout that
    `jax.distributed.initialize` was given.

    Args:
        where: The function that was called.

    Raises:
        ConnectionError: If another process cannot be reached.

    >>> with together("fit"):
    ...     pass
    """
    if jax.process_count() > 1:
        _end_at_once_if_lost()
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_lost(error):
            raise
        _lost.append(where)
        raise ConnectionError(
            f"{where}: expected all {jax.process_count()} processes of this run, got no answer "
            "from another one, which ended or lost its connection. Look at what it wrote last, "
            "and start all of them again."
        ) from error


def is_lost(error: BaseException | None) -> bool:
    """Whether an error says that another process of this run cannot be reached.

    >>> is_lost(None)
    False
    """
    known = isinstance(error, jax.errors.JaxRuntimeError) and jax.process_count() > 1
    return known and is_of_a_lost_process(str(error))


def is_of_a_lost_process(message: str) -> bool:
    """Whether JAX's error says that another process cannot be reached.

    >>> is_of_a_lost_process("UNKNOWN: Gloo all-reduce failed: Connection closed by peer")
    True
    >>> is_of_a_lost_process("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.")
    False
    """
    return any(sign in message.lower() for sign in SIGNS)


@functools.cache
def _end_at_once_if_lost() -> None:
    """Leave without JAX's farewell to all processes: it would wait for the one that is gone, and
    then end in a report of many lines. Nor wait for threads, which write what it had a part in.
    """

    def leave() -> None:
        if _lost:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)

    def watch() -> None:
        threading.main_thread().join()
        leave()

    atexit.register(leave)
    threading.Thread(target=watch, name="farewell", daemon=True).start()
