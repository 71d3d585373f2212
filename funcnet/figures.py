"""Figures of a batch that join to those of many: a mean that knows what it is over.

A loss that leaves out some of a batch's targets is a mean over the others, and the mean of such
means over many batches is not the mean over all. So what computes a figure also notes how it joins,
and whoever asks by `heard` finds it: `cross_entropy`, say, notes its value with what it divided by.
"""

import contextvars
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import jax.numpy as jnp

from .types import Array


@runtime_checkable
class Figure(Protocol):
    """A figure of some examples: a NamedTuple of arrays that joins with one of further examples."""

    @property
    def value(self) -> Any:
        """The figure itself, a scalar."""
        ...

    def join(self, other: Self) -> Self:
        """The same figure of the examples of both."""
        ...


class Mean(NamedTuple):
    """A mean over what counts: what a criterion or a metric returns where not every example does.

    Over many batches it is Σ total / Σ count.

    Attributes:
        total: The sum over what counts, a scalar.
        count: How many there are, or the sum of their weights, a scalar.

    >>> first, second = Mean(6.0, 2), Mean(1.0, 8)
    >>> first.value, first.join(second).value
    (3.0, 0.7)
    """

    total: Any
    count: Any

    @property
    def value(self) -> Any:
        """total / count, and 0 where nothing counts."""
        return self.total / (self.count + (self.count == 0))

    def join(self, other: "Mean") -> "Mean":
        """The mean over what counts in either."""
        return Mean(self.total + other.total, self.count + other.count)


class Sum(NamedTuple):
    """A number that is added up over many batches, such as how often something happened.

    >>> Sum(2).join(Sum(1)).value
    3
    """

    total: Any

    @property
    def value(self) -> Any:
        """The sum."""
        return self.total

    def join(self, other: "Sum") -> "Sum":
        """The sum of both."""
        return Sum(self.total + other.total)


class Last(NamedTuple):
    """A number of which the latest counts, such as a rate that changes from step to step.

    >>> Last(2).join(Last(1)).value
    1
    """

    latest: Any

    @property
    def value(self) -> Any:
        """The latest."""
        return self.latest

    def join(self, other: "Last") -> "Last":
        """That of the later one."""
        return other


class Finite(NamedTuple):
    """A number of each step, whose mean over many is that of the steps where it is finite.

    Attributes:
        total: The sum where it is finite, a scalar.
        count: How often it was, a scalar.

    >>> Finite.of(jnp.array(2.0)).join(Finite.of(jnp.array(jnp.inf))).value.item()
    2.0
    """

    total: Any
    count: Any

    @staticmethod
    def of(value: Array) -> "Finite":
        """That of one step."""
        fine = jnp.isfinite(value)
        return Finite(jnp.where(fine, value, 0), fine.astype(value.dtype))

    @property
    def value(self) -> Any:
        """total / count, and NaN where it never was."""
        return self.total / self.count

    def join(self, other: "Finite") -> "Finite":
        """The mean over the steps of both."""
        return Finite(self.total + other.total, self.count + other.count)


def mean_of(value: Array, count: Any) -> Mean:
    """A mean that is known already, with what it is over; in float32 or wider."""
    wide = jnp.promote_types(value.dtype, jnp.float32)
    count = jnp.asarray(count, wide)
    return Mean(value.astype(wide) * count, count)


EACH = "each example"
"""What is noted in the place of a figure for a value that is a plain mean over the examples."""

Notes = list[tuple[Any, Callable[[], Any]]]

_notes: contextvars.ContextVar[Notes | None] = contextvars.ContextVar("notes", default=None)


def note(value: Any, figure: Callable[[], Any]) -> None:
    """Say what joins to `value`, to whoever listens: a figure, or `EACH`, or None if there is
    nothing to say after all."""
    notes = _notes.get()
    if notes is not None:
        notes.append((value, figure))


def heard(f: Callable, *args: Any) -> tuple[Any, Callable[[Any], Any]]:
    """`f(*args)`, and a function that gives the figure that was noted for a value, or None.

    >>> def halves(x):
    ...     value = x / 2
    ...     note(value, lambda: Mean(x, 2))
    ...     return value
    >>> value, figure = heard(halves, 3.0)
    >>> figure(value), figure(1.0)
    (Mean(total=3.0, count=2), None)
    """
    notes: Notes = []
    reset = _notes.set(notes)
    try:
        value = f(*args)
    finally:
        _notes.reset(reset)

    def figure_of(value: Any) -> Any:
        return next((figure() for noted, figure in reversed(notes) if noted is value), None)

    return value, figure_of
