"""`funcnet check` and `funcnet summary`: the rules proved, and a network's layers in a table."""

import argparse
import difflib
import sys
from typing import Any

import jax

from .. import RULES
from ..rules.prove import LIMITS, prove_all
from ..types import require
from .recipes import NETS
from .train import add_net, asked


def add_check(check: Any) -> None:
    """The arguments of `funcnet check`."""
    check.add_argument("ops", nargs="*", metavar="OP", help="which (default: all)")
    check.add_argument("--dtype", choices=LIMITS, default="float64", help="the rules compute in it")
    check.set_defaults(run=run_check)


def run_check(options: argparse.Namespace) -> int:
    """Print the table of proofs; 1 if one failed."""
    for name in options.ops:
        near = ", ".join(difflib.get_close_matches(name, RULES))
        remedy = f"Did you mean {near}?" if near else "`funcnet check` without a name proves all."
        require(name in RULES, "check", "the name of an op", repr(name), remedy)
    rules = [RULES[name] for name in options.ops] or None
    live = sys.stderr.isatty()

    def show(op: str) -> None:
        print(f"\r\033[Kproving {op}", end="", file=sys.stderr, flush=True)

    found = prove_all(rules, options.dtype, show) if live else prove_all(rules, options.dtype)
    if live:
        print("\r\033[K", end="", file=sys.stderr)
    print(found)
    return 1 if found.failures else 0


def add_summary(summary: Any) -> None:
    """The arguments of `funcnet summary`."""
    add_net(summary)
    summary.set_defaults(run=run_summary)


def run_summary(options: argparse.Namespace) -> int:
    """Print the table of layers."""
    job = NETS[options.net].job(asked(options))
    shapes = [jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for x in job.train[:-1]]
    print(job.net.summary(*shapes))
    return 0
