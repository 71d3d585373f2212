"""A function with `jax.checkpoint` in it: what it would hold and compute."""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from ...jaxpr import jaxprs
from ...jaxpr.changes import checkpointed
from ...render.forms import Column, Table, size
from ...traces.program import Program, nearest
from ...types import require, shown
from ..groups import amount
from ..report import Report
from .choices import choices_of, matching, patterns_of, policies, policy_name
from .measured import Measured

WHERE = "residuals"
_PATTERNS = 16


@dataclass(frozen=True, eq=False)
class Option(Report):
    """A function with `jax.checkpoint` in it.

    Attributes:
        checkpoint: The patterns of the layers that it is around; empty if around the function.
        policy: The name of its policy; "" if there is no checkpoint at all.
        bytes: What would be held at most: what is kept and what is made again at a time.
        saved: How many bytes fewer that is.
        flops: How many floating-point operations more the gradient would take.
        share: What part of those that it takes now.
        chosen: The bytes that are kept for the policy's sake: more than under "nothing_saveable".
        function: The function with the checkpoint in it, for arguments of the same shapes.
    """

    checkpoint: tuple[str, ...]
    policy: str
    bytes: int
    saved: int
    flops: int
    share: float
    chosen: int
    function: Callable

    @property
    def heading(self) -> str:
        """What stands above its page."""
        return "what if"

    @property
    def code(self) -> str:
        """What is to be written."""
        if not self.policy:
            return "no jax.checkpoint"
        plain = self.policy == "nothing_saveable"
        policy = "" if plain else f" with policy={self.policy}"
        return f"jax.checkpoint around {self.around}{policy}"

    @property
    def around(self) -> str:
        """What it is around."""
        return ", ".join(self.checkpoint) or "the whole function"

    @property
    def chooses_nothing(self) -> bool:
        """Whether it has a policy that keeps no more than none would."""
        return self.policy not in ("", "nothing_saveable") and not self.chosen

    def parts(self) -> Sequence[str]:
        """What it has to say."""
        now = self.bytes + self.saved
        said = (
            f"{self.code}\nholds {size(self.bytes)} in place of {size(now)}, for "
            f"{_amount(self.flops)} more FLOPs ({100 * self.share:.0f}%)."
        )
        if not self.policy:
            return [f"No jax.checkpoint is needed: {size(now)} are held."]
        return [" ".join([said, *self.remarks()])]

    def remarks(self) -> list[str]:
        """What is to be said of it: that it saves nothing, or that its policy chooses nothing."""
        found = []
        if self.saved <= 0:
            found.append("This saves 0 bytes.")
        if self.chooses_nothing:
            found.append("This policy keeps 0 bytes: it is the same as nothing_saveable.")
        return found


@dataclass(frozen=True, eq=False)
class Options(Report):
    """Ways to put `jax.checkpoint` into a function, side by side.

    Attributes:
        options: The ways.
        now: The bytes that are held without.
    """

    options: tuple[Option, ...]
    now: int

    @property
    def heading(self) -> str:
        """What stands above its page."""
        return "what if"

    def parts(self) -> Sequence[Table | str]:
        """What it has to say."""
        columns = [
            Column("checkpoint around"), Column("policy"), Column("held", True),
            Column("saved", True), Column("FLOPs added", True), Column("to be said"),
        ]  # fmt: skip
        rows = [
            (
                o.around,
                o.policy,
                size(o.bytes),
                size(o.saved) if o.saved > 0 else "0 bytes",
                f"{_amount(o.flops)} ({100 * o.share:.0f}%)",
                "the policy keeps 0 bytes" if o.chooses_nothing else "",
            )
            for o in self.options
        ]
        if not any(row[-1] for row in rows):
            columns, rows = columns[:-1], [row[:-1] for row in rows]
        return [Table(tuple(columns), tuple(rows), f"Without it {size(self.now)} are held.")]


class Search:
    """What a function would hold with `jax.checkpoint` here or there. Each is found once."""

    def __init__(self, measured: Measured, program: Program, tree: Any) -> None:
        self.measured, self.program, self.tree = measured, program, tree
        self.layers = choices_of(measured.closed).layers
        self.found: dict[tuple, Option] = {}
        self.known: dict[tuple, Measured] = {}

    @functools.cached_property
    def patterns(self) -> tuple[str, ...]:
        """Patterns of layers, those that hold most first."""
        bytes_of: dict[str, int] = {}
        for value in self.measured.kept:
            if not value.is_there:
                parts = value.layer.split("/")
                for pattern in patterns_of("/".join(parts[:n]) for n in range(1, len(parts) + 1)):
                    bytes_of[pattern] = bytes_of.get(pattern, 0) + value.bytes
        known = [p for p in patterns_of(self.layers) if bytes_of.get(p)]
        return tuple(sorted(known, key=lambda p: -bytes_of[p]))

    def option(self, patterns: tuple[str, ...], policy: Callable | None) -> Option:
        """With `jax.checkpoint` around the layers of these patterns, or around all."""
        key = patterns, policy
        if key not in self.found:
            self.found[key] = self._option(patterns, policy)
        return self.found[key]

    def nothing(self) -> Option:
        """With nothing changed."""
        return Option((), "", self.measured.bytes, 0, 0, 0.0, 0, self.program.f)

    def chosen(
        self, checkpoint: str | Sequence[str] | None, policy: str | Callable | None
    ) -> tuple[tuple[str, ...], Callable | None]:
        """Patterns and a policy as a person names them.

        Raises:
            TypeError: If a pattern is no string, or the policy neither a name nor a function.
            ValueError: If nothing is named, a pattern means no layer, or there is no such policy.
        """
        require(
            checkpoint is not None or policy is not None,
            f"{WHERE}.what_if",
            "checkpoint= or policy=",
            "neither",
            "Name layers, checkpoint='block_*/mlp', or a policy for the whole function.",
        )
        patterns = self._patterns(checkpoint)
        return patterns, _policy(policy)

    def _patterns(self, checkpoint: str | Sequence[str] | None) -> tuple[str, ...]:
        if checkpoint is None:
            return ()
        several = isinstance(checkpoint, list | tuple)
        patterns: tuple[Any, ...] = tuple(checkpoint) if several else (checkpoint,)
        for pattern in patterns:
            require(
                isinstance(pattern, str), f"{WHERE}.what_if", "the pattern of a layer",
                repr(pattern), "Write checkpoint='block_*/mlp'.", TypeError,
            )  # fmt: skip
            if not any(map(matching([pattern]), self.layers)):
                names = patterns_of(self.layers)
                nearest(f"{WHERE}.what_if", pattern, names, "the pattern of a layer")
        return patterns

    def _option(self, patterns: tuple[str, ...], policy: Callable | None) -> Option:
        before, after = self.measured, self._measured(patterns, policy)
        bare = after if policy is None else self._measured(patterns, None)
        added = after.flops - before.flops
        return Option(
            patterns,
            policy_name(policy),
            after.bytes,
            before.bytes - after.bytes,
            added,
            added / before.flops if before.flops else 0.0,
            max(0, _sum(after) - _sum(bare)),
            self._function(after.closed),
        )

    def _measured(self, patterns: tuple[str, ...], policy: Callable | None) -> Measured:
        key = patterns, policy
        if key not in self.known:
            self.known[key] = self.measured.changed(self._changed(patterns, policy))
        return self.known[key]

    def _changed(self, patterns: tuple[str, ...], policy: Callable | None) -> Any:
        closed = self.measured.closed
        if patterns:
            return checkpointed(closed, matching(patterns), policy)
        whole_of = jax.checkpoint(functools.partial(jaxprs.evaluate, closed), policy=policy)
        return jaxprs.trace(whole_of, *self.measured.shapes)[0]

    def _function(self, closed: Any) -> Callable:
        @functools.wraps(self.program.f)
        def run(*args: Any) -> Any:
            given = Program(WHERE, self.program.f, args, self.program.kwargs)
            shapes = [(x.shape, x.dtype) for x in given.arrays]
            wanted = [(x.shape, x.dtype) for x in self.measured.shapes]
            require(
                shapes == wanted, f"{WHERE}.function", "arguments of the shapes it was made for",
                f"others of {shown(self.program.f)}", "Ask again with these arguments.",
            )  # fmt: skip
            return self.program.output(self.tree, jaxprs.evaluate(closed, *given.arrays))

        return run

    def fit(self, limit: int) -> Option:
        """The way to hold no more bytes than these that adds the fewest FLOPs.

        Raises:
            ValueError: If there is none.
        """
        if self.measured.bytes <= limit:
            return self.nothing()
        entries = [*dict.fromkeys(policies().values())]
        alone = [((pattern,), None) for pattern in self.patterns[:_PATTERNS]]
        tried = [*alone, *(((), policy) for policy in entries)]
        if all(self._bytes(way) > limit for way in tried):
            tried += self._together(alone, limit)
        layers = [patterns for patterns, _ in tried if patterns]
        kept = [patterns for patterns in layers if self._bytes((patterns, None)) <= limit]
        tried += itertools.product(kept, entries)
        fits = [self.option(*way) for way in tried if self._bytes(way) <= limit]
        best = self.option(*min(tried, key=self._bytes))
        require(
            bool(fits),
            f"{WHERE}.fit_into",
            f"a jax.checkpoint with which {size(limit)} are enough",
            f"{size(best.bytes)} at least, with {best.code}",
            f"Allow {best.bytes:,} bytes, or make the batch smaller.",
        )
        return min(fits, key=lambda o: (o.flops, o.bytes))

    def _bytes(self, way: tuple[tuple[str, ...], Callable | None]) -> int:
        return self._measured(*way).bytes

    def _together(self, alone: Sequence[tuple], limit: int) -> list[tuple]:
        """Layers added one by one to those that hold least, as long as that helps."""
        chain: list[tuple] = []
        best = min(alone, key=self._bytes, default=None)
        while best is not None and self._bytes(best) > limit:
            more = [((*best[0], *own), None) for own, _ in alone if own[0] not in best[0]]
            following = min(more, key=self._bytes, default=best)
            if self._bytes(following) >= self._bytes(best):
                break
            chain.append(following)
            best = following
        return chain


def _sum(measured: Measured) -> int:
    return sum(value.bytes for value in measured.kept)


def _policy(policy: str | Callable | None) -> Callable | None:
    if policy is None or not isinstance(policy, str):
        require(
            policy is None or callable(policy), f"{WHERE}.what_if",
            "a policy, or the name of one", repr(policy),
            "Write policy='dots_saveable'.", TypeError,
        )  # fmt: skip
        return policy
    makers = [name for name in dir(jax.checkpoint_policies) if name not in policies()]
    require(
        policy not in makers,
        f"{WHERE}.what_if",
        "the name of a policy",
        f"{policy!r}, which makes one",
        f"Pass jax.checkpoint_policies.{policy}(...).",
    )
    nearest(f"{WHERE}.what_if", policy, policies(), "the name of a policy")
    return policies()[policy]


def _amount(n: int) -> str:
    return f"{'-' * (n < 0)}{amount(abs(n))}"
