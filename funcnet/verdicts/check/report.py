"""What was found of a rule: every comparison, and the report of them."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ...render import forms
from ...rules.compare import LIMITS
from ..report import Report

SHOWN = 6
"""How many findings of one kind are said in full."""

_TITLES = {
    "wrong": "WRONG",
    "tie": "At a kink",
    "coarse": "Loses digits",
    "unjudged": "Not judged",
}


class Comparison(NamedTuple):
    """One quantity of a rule beside that of its primal.

    Attributes:
        way: How the rule was run: "jit", "vmap over x", "grad of grad".
        point: At which arrays: "as given", "zero", "ties".
        dtype: What it was computed in.
        quantity: "value", or the array whose gradient it is.
        verdict: "same", "wrong", "tie" (another slope of those there are at a kink), "coarse"
            (right in float64, but less exact than JAX's own in a coarser dtype, at arrays that
            were not given), or "unjudged".
        error: The worst error, in the unit of `LIMITS`.
        limit: What it may be.
        element: Where the worst error is.
        found: What the rule has there.
        truth: What `jax.vjp` of the primal has there.
        note: What else there is to say.
        hint: What the one gradient is of the other, if that is simple.
    """

    way: str
    point: str
    dtype: str
    quantity: str
    verdict: str = "same"
    error: float = 0.0
    limit: float = 0.0
    element: tuple[int, ...] | None = None
    found: str = ""
    truth: str = ""
    note: str = ""
    hint: str = ""

    def __str__(self) -> str:
        where = ", ".join(map(str, self.element)) if self.element else ""
        place = f"{self.quantity}[{where}]" if where else self.quantity
        plain = self.quantity.startswith(("value", "all"))
        what = place if plain else f"gradient of {place}"
        what = "every gradient" if self.quantity == "all" else what
        beside = f": rule {self.found}, {self.note or 'jax.vjp of the primal'} {self.truth}"
        said = beside if self.found else f": {self.note}" if self.note else ""
        off = f"error {self.error:.2g}, limit {self.limit:g}; " if 0 < self.error < 1e300 else ""
        hint = f"\n  {self.hint}" if self.hint else ""
        return f"{what}{said}{hint}\n  ({off}{self.way}, {self.point}, {self.dtype})"


@dataclass(frozen=True)
class RuleReport(Report):
    """How a rule compares with its primal.

    Attributes:
        name: The rule's name.
        comparisons: Every quantity that was compared.
        kept: The bytes that the rule and `jax.grad` of its primal keep; None if not known.
        against: What the truth is: "jax.vjp of the primal", or what took its place.
        notes: What could not be judged, and why.
    """

    name: str
    comparisons: tuple[Comparison, ...]
    kept: tuple[int, int] | None = None
    against: str = "jax.vjp of the primal"
    notes: tuple[str, ...] = ()
    rates: dict[str, float] = field(default_factory=dict)

    @property
    def heading(self) -> str:
        """What stands above its page."""
        return f"rule of {self.name}"

    @property
    def failures(self) -> tuple[Comparison, ...]:
        """The comparisons that show the rule to be wrong."""
        return self.of("wrong")

    @property
    def ties(self) -> tuple[Comparison, ...]:
        """Those at a kink, where the rule gives another slope of those there are."""
        return self.of("tie")

    def of(self, verdict: str) -> tuple[Comparison, ...]:
        """The comparisons of one verdict."""
        return tuple(c for c in self.comparisons if c.verdict == verdict)

    @property
    def ok(self) -> bool:
        """Whether something was compared and nothing is wrong."""
        return bool(self.of("same") or self.ties) and not self.failures

    def assert_ok(self) -> None:
        """Nothing if the rule is right.

        Raises:
            AssertionError: If it is not, with the report.
        """
        if not self.ok:
            raise AssertionError(f"the rule of {self.name} is not right.\n\n{self}")

    @property
    def verdict(self) -> str:
        """One sentence: whether it is right, and how well that was looked at."""
        count = len(self.comparisons)
        if self.failures:
            wrong = sorted({c.quantity for c in self.failures})
            wrong = ["every gradient" if name == "all" else name for name in wrong]
            return (
                f"The rule of {self.name} is WRONG: {', '.join(wrong)}; "
                f"{len(self.failures)} of {count} comparisons with {self.against} fail."
            )
        if not self.ok:
            return f"The rule of {self.name} was not judged."
        tied = f" {len(self.ties)} lie at a kink." if self.ties else ""
        return (
            f"The rule of {self.name} is right: {count} comparisons with {self.against}, "
            f"none beyond the limit.{tied}"
        )

    def parts(self) -> Sequence[forms.Table | str]:
        """The verdict, what is wrong, the table of ways, and what else there is to say."""
        found = [self.verdict]
        for verdict, title in _TITLES.items():
            own = _each_once(self.of(verdict))
            lines = [_folded(f"{title}: {c}") for c in own[:SHOWN]]
            more = [f"and {len(own) - SHOWN} more."] if len(own) > SHOWN else []
            found += ["\n".join(lines + more)] if own else []
        table = [self._table()] if self.comparisons else []
        rates = [
            f"Taylor rate along {name}: {rate:.2f} (2 is that of a right gradient)."
            for name, rate in self.rates.items()
        ]
        said = "\n".join([*self._kept(), *rates, *map(_folded, self.notes)])
        return [*found, *table, *([said] if said else [])]

    def _kept(self) -> list[str]:
        if self.kept is None:
            return []
        own, plain = map(forms.size, self.kept)
        return [
            f"Kept for the backward pass: {own} by the rule, {plain} by jax.grad of the primal."
        ]

    def _table(self) -> forms.Table:
        dtypes = list(dict.fromkeys(c.dtype for c in self.comparisons))
        columns = [forms.Column("way"), forms.Column("at")]
        columns += [forms.Column(f"worst in {d}", right=True) for d in dtypes]
        keys = dict.fromkeys((c.way, c.point) for c in self.comparisons)
        rows = []
        for way, point in keys:
            own = [c for c in self.comparisons if (c.way, c.point) == (way, point)]
            rows.append((way, point, *(_worst([c for c in own if c.dtype == d]) for d in dtypes)))
        limits = ", ".join(f"{LIMITS[d]:g}{_unit(d)} in {d}" for d in dtypes)
        note = f"Errors are relative to the largest element; allowed are {limits}."
        return forms.Table(tuple(columns), tuple(rows), notes=(note,))


def _folded(said: str) -> str:
    """Lines short enough for a terminal."""
    lines = (textwrap.wrap(line, 98, subsequent_indent="  ") for line in said.splitlines())
    return "\n".join("\n".join(part) for part in lines)


def _each_once(own: Sequence[Comparison]) -> list[Comparison]:
    """The first of each quantity and way; the table has the others."""
    first = {(c.way, c.quantity): c for c in reversed(own)}
    return [c for c in own if first[c.way, c.quantity] is c]


def _unit(dtype: str) -> str:
    return " units in the last place" if LIMITS[dtype] > 1 else ""


def _worst(own: list[Comparison]) -> str:
    if not own:
        return ""
    if any(c.verdict == "wrong" for c in own):
        return f"WRONG {max(c.error for c in own if c.verdict == 'wrong'):.1e}"
    same = [c.error for c in own if c.verdict == "same"]
    known = {"tie": "kink", "coarse": "digits", "unjudged": "?"}
    kinds = [said for kind, said in known.items() if any(c.verdict == kind for c in own)]
    return " ".join([*kinds, *([f"{max(same):.1e}"] if same else [])])


@dataclass(frozen=True)
class Audited:
    """One rule met in a function.

    Attributes:
        name: The rule's name.
        shapes: What it was called with.
        source: Where it was first met.
        places: At how many places, iterations of loops among them.
        report: How it compares with its primal there.
    """

    name: str
    shapes: str
    source: str
    places: int
    report: RuleReport


@dataclass(frozen=True)
class AuditReport(Report):
    """How every custom rule met in a function compares with its primal.

    Attributes:
        function: The function's name.
        rules: One for each rule and each kind of operands.
        notes: What could not be judged, and why.
    """

    function: str
    rules: tuple[Audited, ...]
    notes: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """What stands above its page."""
        return f"rules in {self.function}"

    @property
    def failures(self) -> tuple[Audited, ...]:
        """The rules that are wrong."""
        return tuple(rule for rule in self.rules if rule.report.failures)

    @property
    def ok(self) -> bool:
        """Whether a rule was met, every one was judged and none is wrong."""
        return bool(self.rules) and all(rule.report.ok for rule in self.rules)

    def assert_ok(self) -> None:
        """Nothing if all rules are right.

        Raises:
            AssertionError: If one is not, with the report.
        """
        if not self.ok:
            said = "not every rule in {} is right" if self.rules else "no rule was judged in {}"
            raise AssertionError(f"{said.format(self.function)}.\n\n{self}")

    def parts(self) -> Sequence[forms.Table | str]:
        """The verdict, a table of the rules, and what is wrong with which."""
        wrong = [rule for rule in self.rules if not rule.report.ok]
        names = ", ".join(dict.fromkeys(rule.name for rule in wrong))
        head = f"Rules met in {self.function}: {len(self.rules)}. "
        told = "All are right." if self.rules else "Nothing was judged."
        head += f"Not right: {names}." if wrong else told
        columns = tuple(
            forms.Column(name, right=name in ("places", "worst"))
            for name in ("rule", "operands", "first met", "places", "verdict", "worst")
        )
        rows = tuple(
            (r.name, r.shapes, r.source, str(r.places), _said(r.report), _largest(r.report))
            for r in self.rules
        )
        table = [forms.Table(columns, rows)] if rows else []
        details = [f"{r.name}, {r.shapes}:\n" + "\n\n".join(map(str, _short(r))) for r in wrong]
        return [head, *table, *details, *(["\n".join(self.notes)] if self.notes else [])]


def _said(report: RuleReport) -> str:
    if report.failures:
        return "WRONG"
    if not report.ok:
        return "not judged"
    return "right, ties" if report.ties else "right"


def _largest(report: RuleReport) -> str:
    """The worst error in units of its limit."""
    shares = [c.error / c.limit for c in report.comparisons if c.limit and c.verdict != "tie"]
    return f"{max(shares):.1e} of limit" if shares else ""


def _short(rule: Audited) -> list[str]:
    return [part for part in rule.report.parts() if isinstance(part, str)]
