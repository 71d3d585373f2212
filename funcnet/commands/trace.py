"""`funcnet trace`: a function out of a file, opened: its primal, tangent and adjoint traces."""

import argparse
import os
from typing import Any

from ..disk import write_whole
from ..traces.lecture import example
from ..traces.trace import trace
from ..types import require
from .target import add_target, target


def add_trace(command: Any) -> None:
    """The arguments of `funcnet trace`."""
    add_target(command, "ln x1 + x1 x2 - sin x2 at 2 and 5")
    command.add_argument("--html", metavar="OUT", help="write a page to open in a browser")
    command.add_argument("--svg", metavar="OUT", help="write a picture of the graph")
    command.add_argument("--json", metavar="OUT", help="write everything as JSON")
    command.add_argument("--latex", action="store_true", help="print the tables in LaTeX")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the trace, and write it where asked."""
    paths = [path for path in (options.html, options.svg, options.json) if path is not None]
    places = {os.path.realpath(path) for path in paths}
    require(
        len(places) == len(paths), "trace", "another file for each of --html, --svg and --json",
        " and ".join(paths), "Each would take the place of the one before.",
    )  # fmt: skip
    if options.function is None:
        require(
            not options.args, "trace", "--args after a FILE.py:FUNCTION",
            f"--args {' '.join(options.args)} alone", "Name the function first.",
        )  # fmt: skip
        found = example()
    else:
        chosen = target(options)
        with chosen.guarded():
            found = trace(chosen.f)(*chosen.args)
    for path, make in (
        (options.html, found.html),
        (options.svg, found.svg),
        (options.json, found.json),
    ):
        if path is not None:
            write_whole("trace", path, make().encode())
    print(found.latex() if options.latex else found)
    return 0
