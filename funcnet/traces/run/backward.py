"""A reverse pass that sets to 0 what is nothing but rounding, and can be asked what each equation
would have sent back of something else."""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...jaxpr import jaxprs
from .steps import Run, Step
from .tape import Cell, Entry

MIXES = ("dot_general", "conv_general_dilated", "fft", "sort")
"""Primitives that add up many elements of an adjoint, though its shape may stay."""


@dataclass(eq=False)
class Stage:
    """An equation on the way back.

    Attributes:
        entry: The step of the tape.
        step: The equation; None for what takes apart or stacks the slices of a loop.
        adjoints: Those of its results as they arrive, None for one that has none.
        targets: The operands that it sends something to.
        raw: What it sends to each.
        sent: The same with 0 where terms of opposite sign leave nothing but rounding.
    """

    entry: Entry
    step: Step | None
    adjoints: list[Any]
    targets: list[Cell]
    raw: list[np.ndarray]
    sent: list[np.ndarray]
    _asked: dict[str, list[np.ndarray]] = field(default_factory=dict, repr=False)

    def some(self) -> list[np.ndarray]:
        """What it would send back if each element that arrives had another size and sign."""
        return self._ask("some", lambda ct: ct * signs(ct.shape, ct.dtype))

    def large(self) -> list[np.ndarray]:
        """What it would send back if all that arrives were larger by one and the same factor."""
        sizes = [np.abs(np.asarray(ct)).max(initial=0.0) for ct in self.adjoints if ct is not None]
        most = float(max(sizes, default=0.0)) or 1.0

        def grown(ct: Any) -> Any:
            top = float(jnp.finfo(ct.dtype).max)
            return ct * jnp.asarray(min(top**0.5 / most, top), ct.dtype)

        return self._ask("large", grown)

    def any(self) -> list[np.ndarray]:
        """What it would send back if something arrived at each element."""
        return self._ask("any", lambda ct: signs(ct.shape, ct.dtype))

    def _ask(self, question: str, change: Callable[[Any], Any]) -> list[np.ndarray]:
        if question not in self._asked:
            asked = [
                change(jnp.zeros(cell.shape, cell.dtype) if ct is None else ct)
                if jaxprs.is_inexact(cell)
                else ct
                for cell, ct in zip(self.entry.results, self.adjoints, strict=True)
            ]
            self._asked[question] = [np.asarray(ct) for _, ct, _ in _pulled(self.entry, asked)]
        return self._asked[question]


@dataclass(eq=False)
class Backward:
    """A reverse pass.

    Attributes:
        run: What was run forward.
        seeds: What its outputs started with.
        stages: The equations that an adjoint came to, in the order of the forward pass.
        adjoints: The adjoint of each value, by its id; without one no path leads from there to
            the outputs that have a seed.
        parts: What each adjoint is the sum of, by the same.
    """

    run: Run
    seeds: Sequence[Any]
    stages: list[Stage]
    adjoints: dict[int, np.ndarray]
    parts: dict[int, list[tuple[Stage | None, np.ndarray]]]

    def cancelled(self, cell: Cell) -> np.ndarray:
        """The elements of an adjoint that are sums of what is not 0 and leave nothing."""
        sizes = [np.abs(part) for _, part in self.parts[id(cell)]]
        return (np.sum(sizes, axis=0) > 0) & (self.adjoints[id(cell)] == 0)


def backward(run: Run, seeds: Sequence[Any]) -> Backward:
    """The reverse pass of what was run; the tape is used up.

    Args:
        run: What was run forward.
        seeds: The adjoint that each output starts with, or None.
    """
    found = Backward(run, seeds, [], {}, {})

    def add(cell: Cell, stage: Stage | None, part: np.ndarray) -> None:
        if cell.active and cell.draft is not None:
            found.parts.setdefault(id(cell), []).append((stage, part))

    def total(cell: Cell) -> Any:
        parts = [part for _, part in found.parts.get(id(cell), ())]
        if not parts:
            return None
        found.adjoints[id(cell)] = _joined(parts)
        return jnp.asarray(found.adjoints[id(cell)])

    for cell, ct in zip(run.outputs, seeds, strict=True):
        if ct is not None:
            add(cell, None, np.asarray(ct))
    while run.tape.entries:
        entry = run.tape.entries.pop()
        adjoints = [total(cell) for cell in entry.results]
        if all(ct is None for ct in adjoints):
            continue
        stage = _stage(entry, run.steps.get(entry.name), adjoints)
        found.stages.append(stage)
        for cell, part in zip(stage.targets, stage.sent, strict=True):
            add(cell, stage, part)
    for cell in run.arguments:
        total(cell)
    found.stages.reverse()
    return found


def _stage(entry: Entry, step: Step | None, adjoints: list[Any]) -> Stage:
    pulled = _pulled(entry, adjoints)
    targets = [cell for cell, _, _ in pulled]
    raw = [np.asarray(ct) for _, ct, _ in pulled]
    stage = Stage(entry, step, adjoints, targets, raw, raw)
    if step is not None and _sums(step, targets):
        stage.sent = [_significant(x, np.abs(y)) for x, y in zip(raw, stage.some(), strict=True)]
    return stage


def _pulled(entry: Entry, adjoints: list[Any]) -> list[tuple[Cell, Any, str]]:
    found = entry.pull(adjoints)
    return [part for part in found if part[0].active and part[1] is not None]


def _sums(step: Step, targets: list[Cell]) -> bool:
    """Whether an equation may send back sums of several elements of an adjoint."""
    name = step.e.label
    if step.e.kind == "rule" or name in MIXES or name.startswith("cum"):
        return True
    return any(cell.shape != made.shape for cell in targets for made in step.results)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    """A sum, with 0 where nothing is left but rounding."""
    if len(parts) == 1:
        return parts[0]
    whole = sum(parts[1:], parts[0])
    return _significant(whole, np.sum([np.abs(part) for part in parts], axis=0))


def _significant(sums: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """Sums, with 0 where they are only what rounding leaves of their terms.

    An element may be off by a few units in the last place of its terms. Where all elements
    together are small beside their terms, that is rounding too, of what led to the terms.
    """
    eps = float(jnp.finfo(sums.dtype).eps)
    one, all_ = (1, 2) if eps > 1e-5 else (16, 256)
    noise = (np.abs(sums) <= one * eps * terms) & np.isfinite(terms)
    if sums.size and np.isfinite(terms).all() and np.abs(sums).max() <= all_ * eps * terms.max():
        noise = np.ones_like(noise)
    return np.where(noise, np.zeros_like(sums), sums)


def signs(shape: tuple[int, ...], dtype: Any) -> Any:
    """Numbers of both signs, in magnitude from 0.5 to 1.5, always the same for one shape."""
    random = np.random.default_rng(zlib.crc32(str(shape).encode()))
    numbers = random.uniform(0.5, 1.5, shape) * random.choice([-1.0, 1.0], shape)
    return jnp.asarray(numbers, dtype)
