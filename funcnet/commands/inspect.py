"""`funcnet check` and `funcnet summary`: the rules proved, and a network's layers in a table."""

import argparse
import difflib
import sys
from collections.abc import Callable
from typing import Any

import jax

from .. import RULES
from ..rules.prove import LIMITS, prove_all
from ..types import require
from ..verdicts.check.audit import audit
from ..verdicts.check.report import AuditReport, RuleReport
from ..verdicts.check.rule import check_rule
from .options import add_net, asked
from .recipes import NETS
from .target import add_arguments
from .verdicts import Verdict, add_page, run


def _judge(f: Callable) -> Callable[..., RuleReport | AuditReport]:
    """A custom rule is checked; what is any other function, is audited."""
    is_rule = isinstance(f, jax.custom_vjp | jax.custom_jvp) or hasattr(f, "rule")
    return check_rule(f) if is_rule else audit(f)


RULES_OF = Verdict(
    "check", "prove the rules of a function", _judge, bad=lambda report: not report.ok
)


def add_check(check: Any) -> None:
    """The arguments of `funcnet check`."""
    check.add_argument(
        "ops", nargs="*", metavar="OP or FILE.py:FUNCTION",
        help="which ops (default: all); or a function, whose rules are checked",
    )  # fmt: skip
    check.add_argument("--dtype", choices=LIMITS, default="float64", help="the ops compute in it")
    add_arguments(check)
    add_page(check)
    check.set_defaults(run=run_check)


def run_check(options: argparse.Namespace) -> int:
    """Print the table of proofs, or how the rules of a function are; 1 if one failed."""
    functions = [name for name in options.ops if ":" in name or name.endswith(".py")]
    if functions:
        require(
            len(options.ops) == 1,
            "check",
            "one function, or ops",
            " ".join(options.ops),
            "Check one after the other.",
        )
        options.function = functions[0]
        return run(RULES_OF, options)
    require(
        not options.args and options.html is None,
        "check",
        "--args and --html with a function, FILE.py:FUNCTION",
        " ".join(options.ops) or "none",
        "Ops are proved in their own cases, and printed.",
    )
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
