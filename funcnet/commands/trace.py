"""`funcnet trace`: a function out of a file, opened: its primal, tangent and adjoint traces."""

import argparse
import ast
import difflib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..disk import write_whole
from ..traces.lecture import example
from ..traces.trace import trace
from ..types import require


def add_trace(command: Any) -> None:
    """The arguments of `funcnet trace`."""
    command.add_argument(
        "function", nargs="?", metavar="FILE.py:FUNCTION",
        help="what to open (default: ln x1 + x1 x2 - sin x2 at 2 and 5)",
    )  # fmt: skip
    command.add_argument(
        "--args", nargs="+", default=[], metavar="VALUE",
        help="its arguments: 2, '[[1, 2]]' are floating, lists arrays; integers are 'int(2)', "
        "'int([0, 1])'",
    )  # fmt: skip
    command.add_argument("--html", metavar="OUT", help="write a page to open in a browser")
    command.add_argument("--svg", metavar="OUT", help="write a picture of the graph")
    command.add_argument("--json", metavar="OUT", help="write everything as JSON")
    command.add_argument("--latex", action="store_true", help="print the tables in LaTeX")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the trace, and write it where asked."""
    if options.function is None:
        require(
            not options.args, "trace", "--args after a FILE.py:FUNCTION",
            f"--args {' '.join(options.args)} alone", "Name the function first.",
        )  # fmt: skip
        found = example()
    else:
        f = _function(options.function)
        args = tuple(_value(word) for word in options.args)
        _check_count(f, options.function, args)
        found = trace(f)(*args)
    for path, make in (
        (options.html, found.html),
        (options.svg, found.svg),
        (options.json, found.json),
    ):
        if path:
            write_whole("trace", path, make().encode())
    print(found.latex() if options.latex else found)
    return 0


def _function(place: str) -> Callable:
    file, _, name = place.rpartition(":")
    require(
        bool(file) and bool(name),
        "trace",
        "a file and a function in it, FILE.py:FUNCTION",
        repr(place),
        "Write model.py:loss.",
    )
    path = Path(file)
    require(path.is_file(), "trace", "a Python file", str(path), "Check the path.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    require(
        spec is not None and spec.loader is not None,
        "trace",
        "a Python file, which ends in .py",
        str(path),
        "Rename it.",
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
    near = difflib.get_close_matches(name, known) or known
    require(
        callable(getattr(module, name, None)),
        "trace",
        f"a function in {path}",
        repr(name),
        f"It has {', '.join(near) or 'none'}.",
    )
    return getattr(module, name)


def _value(word: str) -> Any:
    """One argument: a number, floating unless it says `int(...)`, or an array for a list."""
    try:
        node = ast.parse(word.strip(), mode="eval").body
        whole = isinstance(node, ast.Call) and ast.unparse(node.func) == "int"
        if isinstance(node, ast.Call) and whole and len(node.args) == 1 and not node.keywords:
            node = node.args[0]
        value = ast.literal_eval(node)
        if isinstance(value, list):
            array = np.asarray(value)
            if array.dtype.kind not in "biufc":
                raise TypeError
            kind = int if whole else float if array.dtype.kind in "iu" else array.dtype
            return jnp.asarray(array.astype(kind))
        if isinstance(value, bool | str | None):
            return value
        if isinstance(value, int | float):
            return int(value) if whole else float(value)
        return value
    except (ValueError, SyntaxError, TypeError, OverflowError):
        raise ValueError(
            f"trace: expected a value as Python writes it, got {word!r}. Write 2.0, "
            "'[1.0, 2.0]' for an array, or 'int(3)' for an integer."
        ) from None


def _check_count(f: Callable, place: str, args: tuple) -> None:
    signature = inspect.signature(f)
    try:
        signature.bind(*args)
    except TypeError as error:
        raise ValueError(
            f"trace: expected --args for {place}{signature}, got {len(args)} of them ({error}). "
            "Give a value for each parameter."
        ) from None
