"""A function in a file, and what it is called with, as a command names them."""

import argparse
import ast
import contextlib
import difflib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..types import require


class Target(NamedTuple):
    """What a command is to look at.

    Attributes:
        f: The function.
        args: What it is called with.
        guarded: A context that says of an error inside the person's own file where it was.
    """

    f: Callable
    args: tuple
    guarded: Callable[[], contextlib.AbstractContextManager[None]]


def add_target(command: Any, default: str = "") -> None:
    """The arguments that name a function and its arguments; `default` is what stands for none."""
    said = f" (default: {default})" if default else ""
    command.add_argument(
        "function", nargs="?" if default else None, metavar="FILE.py:FUNCTION",
        help=f"what to open{said}",
    )  # fmt: skip
    add_arguments(command)


def add_arguments(command: Any) -> None:
    """The arguments of the function alone."""
    command.add_argument(
        "--args", nargs="+", default=[], metavar="VALUE",
        help="its arguments: 2, '[[1, 2]]' are floating, lists arrays; integers are 'int(2)', "
        "'int([0, 1])'",
    )  # fmt: skip


def target(options: argparse.Namespace) -> Target:
    """The function and the arguments that `add_target` asked for.

    Raises:
        ValueError: If there is no such file or function, it does not take so many arguments, or
            one is no value as Python writes it.
    """
    where = options.command
    args = tuple(_value(where, word) for word in options.args)
    path, f = _function(where, options.function)
    _check_count(where, f, options.function, args)
    return Target(f, args, lambda: _run_of(where, path, options.function))


@contextlib.contextmanager
def _run_of(where: str, path: Path, what: str) -> Iterator[None]:
    """Say of an error inside the person's own file where it was."""
    try:
        yield
    except (Exception, SystemExit) as error:
        own = os.path.realpath(path)
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if os.path.realpath(frame.filename) == own]
        unread = isinstance(error, SyntaxError) and not lines
        if not (lines or unread):
            raise
        line = error.lineno if isinstance(error, SyntaxError) and unread else lines[-1]
        said = error.msg if isinstance(error, SyntaxError) and unread else str(error)
        first = said.strip().partition("\n")[0].rstrip(".")
        raise ValueError(
            f"{where}: expected {what} to run, got {type(error).__name__} in line {line or 1} of "
            f"{path}{f': {first}' if first else ''}. Mend it; `funcnet --debug {where}` shows more."
        ) from error


def _function(where: str, place: str) -> tuple[Path, Callable]:
    file, _, name = place.rpartition(":")
    require(
        bool(file) and bool(name),
        where,
        "a file and a function in it, FILE.py:FUNCTION",
        repr(place),
        "Write model.py:loss.",
    )
    path = Path(file)
    require(path.is_file(), where, "a Python file", str(path), "Check the path.")
    # A name that no import asks for: the file may be called jax.py.
    name_of_module = f"{path.stem} of funcnet {where}"
    spec = importlib.util.spec_from_file_location(name_of_module, path)
    require(
        spec is not None and spec.loader is not None,
        where,
        "a Python file, which ends in .py",
        str(path),
        "Rename it.",
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name_of_module] = module
    # As `python FILE.py` does, for what the file imports from beside it.
    sys.path.insert(0, str(path.resolve().parent))
    with _run_of(where, path, str(path)):
        spec.loader.exec_module(module)
    known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
    near = difflib.get_close_matches(name, known) or known
    require(
        callable(getattr(module, name, None)),
        where,
        f"a function in {path}",
        repr(name),
        f"It has {', '.join(near) or 'none'}.",
    )
    return path, getattr(module, name)


def _value(where: str, word: str) -> Any:
    """One argument: a number, floating unless it says `int(...)`, or an array for a list.

    What stands in a tuple or a dict is taken the same way.
    """
    try:
        node = ast.parse(word.strip(), mode="eval").body
        whole = isinstance(node, ast.Call) and ast.unparse(node.func) == "int"
        if isinstance(node, ast.Call) and whole and len(node.args) == 1 and not node.keywords:
            node = node.args[0]
        value = ast.literal_eval(node)
        return _whole(value) if whole else _floating(value)
    except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError):
        raise ValueError(
            f"{where}: expected a value as Python writes it, got {word.strip()!r}. Write 2.0, "
            "'[1.0, 2.0]' for an array, or 'int(3)' for an integer."
        ) from None


def _floating(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _floating(x) for key, x in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_floating, value))
    if isinstance(value, list):
        array = np.asarray(value)
        if array.dtype.kind not in "biufc":
            raise TypeError
        return jnp.asarray(array.astype(float) if array.dtype.kind in "iu" else array)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole else value


def _whole(value: Any) -> Any:
    """Integers, if they are in reach of JAX's."""
    array = np.asarray(value)
    kind = np.iinfo(jnp.asarray(0).dtype)
    if array.dtype.kind not in "iu" or (array < kind.min).any() or (array > kind.max).any():
        raise TypeError
    return jnp.asarray(array) if isinstance(value, list) else int(array)


def _check_count(where: str, f: Callable, place: str, args: tuple) -> None:
    try:
        signature = inspect.signature(f)
    except (ValueError, TypeError):
        require(
            False, where, "a function that says what it takes", place,
            "Wrap it: def f(x, y): return jnp.maximum(x, y).",
        )  # fmt: skip
        raise
    try:
        signature.bind(*args)
    except TypeError as error:
        raise ValueError(
            f"{where}: expected --args for {place}{signature}, got {len(args)} of them ({error}). "
            "Give a value for each parameter."
        ) from None
