"""`funcnet lint`, `cost` and the like: a function out of a file, and what is to be said of it."""

import argparse
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..disk import write_whole
from ..render.forms import Table
from ..verdicts.cost import cost
from ..verdicts.lint.lint import lint
from ..verdicts.lost.explain_zero import Zeros, explain_zero
from ..verdicts.nonfinite.explain import NO_SEED, explain_nonfinite
from ..verdicts.nonfinite.report import Nonfinite
from ..verdicts.report import Report
from ..verdicts.residuals.residuals import residuals
from .target import add_target, target


class Verdict(NamedTuple):
    """A command that judges a function.

    Attributes:
        name: What it is called.
        about: What it does, in a few words.
        judge: `judge(f)(*args)` gives the report.
        bad: Whether the report is a reason for the exit code 1.
    """

    name: str
    about: str
    judge: Callable[[Callable], Callable[..., Report]]
    bad: Callable[[Any], bool] = lambda report: False


@dataclass(frozen=True)
class Explained(Report):
    """Where a NaN or an Inf is born; where all is finite, where a gradient is lost.

    Attributes:
        nonfinite: The first question's report.
        zeros: The second one's; None where it was not asked, as of more outputs than one number.
    """

    nonfinite: Nonfinite
    zeros: Zeros | None

    def __bool__(self) -> bool:
        return bool(self.nonfinite or self.zeros)

    @property
    def heading(self) -> str:
        """That of the first report."""
        return self.nonfinite.heading

    def parts(self) -> Sequence[Table | str]:
        """Those of both."""
        return (*self.nonfinite.parts(), *(() if self.zeros is None else self.zeros.parts()))


def explain(f: Callable) -> Callable[..., Explained]:
    """`f`, to be explained at the arguments that follow."""

    def judge(*args: Any) -> Explained:
        nonfinite = explain_nonfinite(f)(*args)
        no_zeros = nonfinite or nonfinite.note == NO_SEED
        return Explained(nonfinite, None if no_zeros else explain_zero(f)(*args))

    return judge


VERDICTS: tuple[Verdict, ...] = (
    Verdict("cost", "FLOPs and bytes by layer, op and line, forward and backward", cost),
    Verdict("explain", "where a NaN is born, or where a gradient is lost", explain, bool),
    Verdict("lint", "find traps before they bite", lint, lambda report: bool(report.happening)),
    Verdict("residuals", "what is kept for the backward pass, in bytes", residuals),
)


def add_verdict(verdict: Verdict, command: Any) -> None:
    """The arguments of such a command."""
    add_target(command)
    add_page(command)
    command.set_defaults(run=functools.partial(run, verdict))


def add_page(command: Any) -> None:
    """The argument that asks for a page."""
    command.add_argument("--html", metavar="OUT", help="write a page to open in a browser")


def run(verdict: Verdict, options: argparse.Namespace) -> int:
    """Print the report, and write it where asked."""
    chosen = target(options)
    with chosen.guarded():
        report = verdict.judge(chosen.f)(*chosen.args)
    if options.html is not None:
        write_whole(verdict.name, options.html, report.html().encode())
    print(report)
    return 1 if verdict.bad(report) else 0
