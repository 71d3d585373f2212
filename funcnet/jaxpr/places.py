"""Where an equation was written: the lines of source code that led to it."""

import functools
import os
import sysconfig
from types import CodeType
from typing import Any, NamedTuple

import jax


class Place(NamedTuple):
    """A piece of source code: `line`, `column` to `end_line`, `end_column` of a file."""

    file: str
    function: str
    line: int
    column: int
    end_line: int
    end_column: int


_STDLIB = sysconfig.get_paths()["stdlib"]
_JAX = os.path.dirname(jax.__file__) + os.sep
_OURS = os.path.dirname(os.path.dirname(__file__))
_TRACES = os.path.join(_OURS, "traces")
_SHOWN = tuple(os.path.join(_OURS, name) for name in ("ops", "layers", "nets", "traces/lecture"))
_OPS = os.path.join(_OURS, "ops") + os.sep
_SUMS = os.path.join(_OURS, "ops/fast/rows")


def places_of(eqn: Any) -> tuple[Place, ...]:
    """Where an equation was written: the calls that led to it, the innermost first.

    Left out are the lines of JAX, of the standard library, and of what funcnet has beside ops,
    layers and networks; and how a sum is taken.
    """
    traceback = eqn.source_info.traceback
    if traceback is None:
        return ()
    codes, instructions = traceback.raw_frames()
    found = []
    for code, at in zip(codes, instructions, strict=True):
        if code.co_filename.startswith(_TRACES + os.sep) and code.co_name != "lecture":
            break  # what lies further out called the tracer, not the function
        if not is_plumbing(code.co_filename):
            found.append(_place(code, at))
    return tuple(found)


def is_in_op(place: Place) -> bool:
    """Whether a line is one of an op of funcnet."""
    return place.file.startswith(_OPS)


@functools.lru_cache(maxsize=4096)
def is_plumbing(file: str) -> bool:
    """Whether a file is one of those that are left out: it holds no function of a person's own."""
    if file.startswith((_JAX, "<frozen")):
        return True
    if file.startswith(_STDLIB) and "site-packages" not in file:
        return True
    if file.startswith(_OURS + os.sep):
        return file.startswith(_SUMS) or not file.startswith(_SHOWN)
    return False


@functools.lru_cache(maxsize=4096)
def _place(code: CodeType, instruction: int) -> Place:
    for i, (line, end_line, column, end_column) in enumerate(code.co_positions()):
        if 2 * i == instruction - instruction % 2:
            start = line or code.co_firstlineno
            return Place(
                code.co_filename, code.co_name, start, column or 0, end_line or start,
                end_column or 0,
            )  # fmt: skip
    first = code.co_firstlineno
    return Place(code.co_filename, code.co_name, first, 0, first, 0)
