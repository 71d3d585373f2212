"""What a function keeps for its backward pass, in bytes: by line, layer and op."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...jaxpr import jaxprs
from ...jaxpr.changes import without_policies
from ...render.forms import Column, Table, size
from ...traces.program import Program, pair_of, reversible
from ...types import require
from ..groups import Entry, Group, grouped, table
from ..report import Report
from .choices import choices_of, policies, policy_name
from .measured import Kept, Measured
from .options import WHERE, Option, Options, Search

FLOAT = "Write 1.0 in place of 1: an integer has no gradient."
_MOST = 12


@dataclass(frozen=True, eq=False)
class Residuals(Report):
    """What a function keeps for its backward pass.

    Attributes:
        name: What the function is called.
        kept: Each value, the largest first, those that are there anyway last.
        again: The most bytes that `jax.checkpoint` in it makes again at a time.
        compiled: What the compiler sets aside for the whole gradient, in bytes; None if it was not
            asked or does not say.
        search: What would be kept with another `jax.checkpoint`.
    """

    name: str
    kept: tuple[Kept, ...]
    again: int
    compiled: int | None
    search: Search

    @property
    def heading(self) -> str:
        """What stands above its page."""
        return f"residuals of {self.name}"

    @property
    def kept_bytes(self) -> int:
        """The bytes that are kept, beside what is there anyway."""
        return sum(value.bytes for value in self.kept if not value.is_there)

    @property
    def there_bytes(self) -> int:
        """The bytes of arguments and constants that are kept: they are there anyway."""
        return sum(value.bytes for value in self.kept if value.is_there)

    @property
    def bytes(self) -> int:
        """The bytes that are held at most: those that are kept, and those that are made again."""
        return self.kept_bytes + self.again

    def by(self, key: str, depth: int | None = None) -> dict[str, int]:
        """The bytes that are kept beside what is there anyway, summed; the most first.

        Args:
            key: "line", "layer" or "op".
            depth: How many names of a layer's path count; None for all.

        Raises:
            ValueError: If `key` is none of these.
        """
        found: dict[str, int] = {}
        for group in self._groups(key, depth):
            found[group.name] = found.get(group.name, 0) + group.amounts[0]
        return found

    def what_if(
        self,
        checkpoint: str | Sequence[str] | None = None,
        *,
        policy: str | Callable | None = None,
    ) -> Option:
        """What would be held with `jax.checkpoint` in the function, and what it would compute.

        Args:
            checkpoint: Around which layers: a pattern of their names ("block_*/mlp"), part by part,
                or several. None for one around the whole function.
            policy: Its policy: one of `jax.checkpoint_policies` or its name; None for the one that
                keeps nothing.

        Raises:
            TypeError: If a pattern is no string, or the policy neither a name nor a function.
            ValueError: If nothing is named, a pattern means no layer, or there is no such policy.
        """
        return self.search.option(*self.search.chosen(checkpoint, policy))

    def policies(self, checkpoint: str | Sequence[str] | None = None) -> Options:
        """What would be held under each of `jax.checkpoint_policies` that takes no arguments.

        Args:
            checkpoint: Around which layers, as for `what_if`; None for the whole function.
        """
        patterns, _ = self.search.chosen(checkpoint, "nothing_saveable")
        entries = dict.fromkeys(policies().values())
        return Options(tuple(self.search.option(patterns, p) for p in entries), self.bytes)

    def layers(self, policy: str | Callable | None = None) -> Options:
        """What would be held with `jax.checkpoint` around each kind of layer.

        Args:
            policy: Its policy, as for `what_if`.
        """
        _, chosen = self.search.chosen((), policy)
        found = [self.search.option((pattern,), chosen) for pattern in self.search.patterns]
        return Options(tuple(found), self.bytes)

    def fit_into(self, limit: int) -> Option:
        """The `jax.checkpoint` that holds no more than `limit` bytes and adds the fewest FLOPs.

        Sought among the patterns of layers, one and several, and the policies.

        Args:
            limit: How many bytes may be held.

        Raises:
            ValueError: If there is none.
        """
        require(
            isinstance(limit, int | float) and limit >= 0,
            f"{WHERE}.fit_into", "a number of bytes", repr(limit), "Write 4e9 for 4 GB.",
        )  # fmt: skip
        return self.search.fit(int(limit))

    def parts(self) -> Sequence[Table | str]:
        """What it has to say."""
        found: list[Table | str] = [self._said()]
        if not self.kept_bytes:
            return found
        kinds = [("bytes", size)]
        for key in ("layer", "op", "line"):
            found.append(table(self._groups(key), key, kinds, _MOST))
        return [*found, self._largest()]

    def _groups(self, key: str, depth: int | None = None) -> list[Group]:
        own = (value for value in self.kept if not value.is_there)
        entries = [Entry(v.layer, v.source, v.op, (v.bytes,)) for v in own]
        return grouped(f"{WHERE}.by", entries, key, depth)

    def _said(self) -> str:
        said = [f"{self.name} keeps {size(self.kept_bytes)} for its backward pass."]
        if self.there_bytes:
            there = size(self.there_bytes)
            said.append(f"It reads {there} of arguments and constants too: they are there anyway.")
        if self.again:
            said.append(f"What checkpoints make again adds up to {size(self.again)} at a time.")
        if self.compiled is not None:
            said.append(f"The compiler sets aside {size(self.compiled)} for the whole gradient.")
            if self.compiled < 0.85 * self.bytes:
                said.append("Outside of loops it is free to compute again what is kept here.")
        return "\n".join([*said, *self._policies()])

    def _policies(self) -> list[str]:
        """What the policies in the function keep for their own sake."""
        measured = self.search.measured
        found = choices_of(measured.closed).policies
        if not found:
            return []
        names = ", ".join(sorted({policy_name(policy) for policy in found}))
        bare = measured.changed(without_policies(measured.closed))
        chosen = sum(v.bytes for v in self.kept) - sum(v.bytes for v in bare.kept)
        if chosen <= 0:
            return [f"The policy {names} keeps 0 bytes: it is the same as nothing_saveable."]
        return [f"Of this {size(chosen)} are kept for the policy {names}."]

    def _largest(self) -> Table:
        columns = (
            Column("bytes", True), Column("type"), Column("made by"), Column("line"),
            Column("layer"), Column("read by"),
        )  # fmt: skip
        own = [value for value in self.kept if not value.is_there]
        rows = tuple(
            (
                size(value.bytes), value.type, _short(value.op, 12), str(value.source or ""),
                _end(value.layer, 16), _short(", ".join(value.readers), 12),
            )
            for value in own[:_MOST]
        )  # fmt: skip
        rest = own[_MOST:]
        notes = f"{len(rest)} others: {size(sum(v.bytes for v in rest))}."
        return Table(columns, rows, "The largest values", (notes,) if rest else ())


def residuals(
    f: Callable,
    *,
    wrt: int | Sequence[int] | None = None,
    has_aux: bool = False,
    compiled: bool = True,
) -> Callable[..., Residuals]:
    """What `f` keeps for its backward pass, and what it would keep under `jax.checkpoint`.

    Each value that the forward pass hands to the backward pass is followed to the equation that
    made it: into jitted functions, loops (whose values are counted as often as they run), branches,
    checkpoints and rules. Nothing is computed: arguments may be `jax.ShapeDtypeStruct`s.

    Args:
        f: Any JAX function.
        wrt: The arguments to differentiate, counted as by `jax.grad`; None for all.
        has_aux: Whether `f` returns `(loss, aux)`, of which the loss alone is differentiated.
        compiled: Whether the compiler is asked what it sets aside, which takes as long as compiling
            the gradient does.

    Returns:
        A function of the arguments of `f`, which gives a `Residuals`.

    Raises:
        TypeError: When called, if no argument has a floating dtype.
        ValueError: When called, if `f` has side effects, or a loop without a backward pass.

    Reference: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", section 4.

    >>> import jax, jax.numpy as jnp
    >>> def loss(w, x):
    ...     with jax.named_scope("hidden"):
    ...         h = jnp.sin(x @ w)
    ...     return jnp.sum(jnp.exp(h))
    >>> shape = jax.ShapeDtypeStruct
    >>> found = residuals(loss, wrt=0)(shape((8, 4), "float32"), shape((2, 8), "float32"))
    >>> found.by("layer"), found.by("op")
    ({'hidden': 32, '(no layer)': 32}, {'sin': 32, 'exp': 32})
    >>> found.what_if("hidden").saved
    0
    """
    where = WHERE

    def run(*args: Any, **kwargs: Any) -> Residuals:
        program = Program(where, f, args, kwargs)
        chosen = program.active(program.chosen(wrt))
        require(any(chosen), where, "an argument of a floating dtype", "none", FLOAT, TypeError)
        closed, tree = program.opened()
        wanted = [jaxprs.is_inexact(shape) for shape in jaxprs.output_shapes(closed)]
        if has_aux:
            loss, aux = pair_of(where, tree)
            wanted = [*wanted[: loss.num_leaves], *[False] * aux.num_leaves]
        measured = Measured(closed, tuple(program.names()), _true(chosen), _true(wanted))
        with reversible(where):
            kept = measured.kept
        said = measured.compiled() if compiled else None
        name = getattr(f, "__name__", type(f).__name__)
        return Residuals(name, kept, measured.again, said, Search(measured, program, tree))

    return functools.wraps(f)(run)


def _true(flags: Sequence[bool]) -> tuple[int, ...]:
    return tuple(i for i, flag in enumerate(flags) if flag)


def _end(text: str, width: int) -> str:
    return text if len(text) <= width else f"...{text[3 - width :]}"


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 3]}..."
