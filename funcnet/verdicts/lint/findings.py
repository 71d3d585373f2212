"""What a lint has to say: findings, each with its line, what happens there, and what to write."""

import linecache
import os
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...jaxpr.places import Place
from ..report import Report


@dataclass(frozen=True)
class Finding:
    """A trap.

    Attributes:
        kind: What it is: "where-masks-singular", "singular", "log-of-softmax", "no-gradient", ...
        severity: "happens", with these arguments or whatever they are; or "possible".
        place: The line of the culprit, None where the program does not tell.
        what: What happens, in a sentence.
        rewrite: What to write there; "" if there is nothing better than the sentence.
        mask: The line of the `where` that masks it, if one does.
        hit: At how many elements it happens, of how many; None if that was not counted.
        scope: The layer it is in.
    """

    kind: str
    severity: str
    place: Place | None
    what: str
    rewrite: str = ""
    mask: Place | None = None
    hit: tuple[int, int] | None = None
    scope: str = ""

    @property
    def file(self) -> str:
        """The file of the culprit, "" where the program does not tell."""
        return self.place.file if self.place else ""

    @property
    def line(self) -> int:
        """The line of the culprit in its file, 0 where the program does not tell."""
        return self.place.line if self.place else 0

    def __str__(self) -> str:
        hit, total = self.hit or (0, 0)
        count = f" at {hit:,} of {total:,} element{'s' * (total != 1)}" if self.hit else ""
        layer = f", in {self.scope}" if self.scope else ""
        lines = [f"{self.kind}, {self.severity}{count}{layer}"]
        places = dict.fromkeys((p.file, p.line) for p in (self.place, self.mask) if p)
        names = [f"{os.path.basename(file)}:{line}" for file, line in places]
        width = max(map(len, names), default=0)
        for (file, line), name in zip(places, names, strict=True):
            lines.append(f"  {name.ljust(width)}  {linecache.getline(file, line).strip()}".rstrip())
        lines += textwrap.wrap(self.what, 98, initial_indent="  ", subsequent_indent="  ")
        return "\n".join([*lines, f"  Write: {self.rewrite}"] if self.rewrite else lines)


def shown(place: Place | None) -> str:
    """A place as a reader finds it: "model.py:14"."""
    return f"{os.path.basename(place.file)}:{place.line}" if place else "(no line)"


@dataclass(frozen=True)
class Lint(Report):
    """The traps in a function: true where there are any, and iterated over one by one.

    Attributes:
        name: What the function is called.
        findings: Those that happen first, then in the order of the program.
        counted: Whether the arguments had values, so that what happens was counted.
    """

    name: str
    findings: tuple[Finding, ...]
    counted: bool

    @property
    def heading(self) -> str:
        """What stands above its page."""
        return f"lint of {self.name}"

    @property
    def happening(self) -> tuple[Finding, ...]:
        """The findings that happen."""
        return tuple(f for f in self.findings if f.severity == "happens")

    def __len__(self) -> int:
        return len(self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __bool__(self) -> bool:
        return bool(self.findings)

    def parts(self) -> Sequence[str]:
        """How many there are, and each of them."""
        with_what = "these arguments" if self.counted else "arguments of these shapes"
        if not self.findings:
            return [f"{self.name}: no trap found with {with_what}."]
        happen = len(self.happening)
        count = f"{len(self)} {'trap' if len(self) == 1 else 'traps'}"
        rest = len(self) - happen
        kinds = " and ".join(
            f"{n} {word}" for n, word in ((happen, "that happen"), (rest, "possible")) if n
        )
        kinds = kinds.replace("1 that happen", "1 that happens")
        return [f"{self.name}: {count} with {with_what}, {kinds}.", *map(str, self.findings)]
