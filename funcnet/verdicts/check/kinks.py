"""Kinks: where a function has one slope on one side and another on the other.

At the kink itself a rule may give any slope between, and so may JAX. A rule that differs there is
not wrong if it is right all around, and if the slope it gives lies between those on the two sides.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ...jaxpr.passes import replaced
from ...rules.compare import gap, wide
from .report import Comparison

STEP = 1e-7
"""How far from the point the slopes on its sides are taken, relative to its largest element."""

SAMPLES = 8
"""How many directions are looked along, both ways."""

CLOSE = 1e-4
"""How near two slopes are that count as one, relative to the largest."""


class Kink:
    """What lies around a point.

    Args:
        judge: What has the programs of the rule and of the primal.
        arrays: The point, as the truth takes it.
        adjoints: The adjoints of the outputs there.
        random: Decides the directions.
    """

    def __init__(self, judge: Any, arrays: tuple, adjoints: tuple, random: int) -> None:
        self.judge, self.arrays, self.adjoints, self.random = judge, arrays, adjoints, random
        self.active = judge.active

    def judged(self, row: Comparison, n: int, found: Any, truth: Any) -> Comparison:
        """A comparison that failed: a tie if the point is a kink that explains it.

        Args:
            row: The comparison.
            n: Which of the active arrays it is of.
            found: The gradient of the rule.
            truth: That of the primal.
        """
        a, b = wide(found), wide(truth)
        if not np.isfinite(a).all() or np.iscomplexobj(a):
            return row
        exact = row.dtype == self.judge.finest
        if not exact:
            unit = 4 * float(jax.numpy.finfo(row.dtype).eps)
            low, high = self._hull(n, unit)
        elif not self._right_around or self._slips(a, b, n):
            return row
        else:
            low, high = self._at(n, b, self._worst(a, b))
        size = max(float(np.abs(x).max(initial=0.0)) for x in (b, low, high))
        kinked = (high - low) > CLOSE * size
        spare = (CLOSE if exact else 1e-2) * size
        apart = np.abs(a - b) > spare
        if not exact and not (apart & kinked).any():
            return row
        inside = (a >= low - spare) & (a <= high + spare)
        looked = self._looked(a, b) if exact else apart
        if not (kinked & looked).any() or (looked & ~(kinked & inside)).any():
            return row
        at = tuple(int(i) for i in np.argwhere(looked & kinked)[0])
        note = f"slopes on both sides {low[at]:.6g} and {high[at]:.6g}, jax.vjp of the primal"
        return row._replace(
            verdict="tie", element=at, found=f"{a[at]:.6g}", truth=f"{b[at]:.6g}", note=note
        )

    def _worst(self, a: np.ndarray, b: np.ndarray) -> list[int]:
        """The elements that differ most."""
        off = np.abs(a - b).reshape(-1)
        order = np.argsort(off)[::-1][:4]
        return [int(i) for i in order if off[i] > CLOSE * off[order[0]]]

    def _looked(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        found = np.zeros(a.size, bool)
        found[self._worst(a, b)] = True
        return found.reshape(a.shape)

    def _at(self, n: int, b: np.ndarray, elements: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The least and the largest slope of these elements on their two sides."""
        low, high = b.copy(), b.copy()
        for i in elements:
            way = np.zeros(b.size)
            way[i] = 1.0
            at = np.unravel_index(i, b.shape)
            sides = [wide(self._slopes(n, sign * way.reshape(b.shape))[n])[at] for sign in (1, -1)]
            low[at], high[at] = min(sides), max(sides)
        return low, high

    def _slips(self, a: np.ndarray, b: np.ndarray, n: int) -> bool:
        """Whether the rule is off along a way on which there is no kink: all by one number, or by
        one factor. Elements that are tied stay so on it."""
        x = wide(self.arrays[self.active[n]])
        for way in (np.ones_like(x), x):
            sides = [wide(self._slopes(n, sign * way)[n]) for sign in (1, -1)]
            right, left = (float((side * way).sum()) for side in sides)
            size = float(np.abs(b * way).sum()) + max(abs(right), abs(left))
            smooth = abs(right - left) <= CLOSE * size
            if smooth and abs(float((a * way).sum()) - right) > 2 * CLOSE * size:
                return True
        return False

    def _slopes(self, n: int, way: np.ndarray, step: float = STEP) -> list:
        """The gradients of the primal a step away, of one array alone."""
        i = self.active[n]
        x = self.arrays[i]
        size = float(np.abs(x).max(initial=0.0)) or 1.0
        largest = float(np.abs(way).max(initial=0.0)) or 1.0
        there = (x + step * size / largest * way).astype(x.dtype)
        with self.judge.in_float64():
            return self.judge.truth.pull(
                replaced(self.arrays, [i], [there]), self.adjoints
            ).gradients

    def _points(self, step: float) -> list[tuple]:
        draw = np.random.default_rng((self.random, 5))
        found = []
        for _ in range(2 * SAMPLES):
            arrays = list(self.arrays)
            for i in self.active:
                x = arrays[i]
                size = float(np.abs(x).max(initial=0.0)) or 1.0
                way = draw.uniform(0.5, 1, x.shape) * draw.choice([-1, 1], x.shape)
                arrays[i] = (x + step * size * way).astype(x.dtype)
            found.append(tuple(arrays))
        return found

    def _hull(self, n: int, step: float) -> tuple[np.ndarray, np.ndarray]:
        with self.judge.in_float64():
            near = [self.judge.truth.pull(p, self.adjoints) for p in self._points(step)]
        slopes = np.stack([wide(p.gradients[n]) for p in near])
        return slopes.min(0), slopes.max(0)

    @functools.cached_property
    def _right_around(self) -> bool:
        """Whether the rule agrees with the primal at points nearby."""
        with self.judge.in_float64():
            for point in self._points(1e-3)[:SAMPLES]:
                pairs = [f.pull(point, self.adjoints) for f in (self.judge.rule, self.judge.truth)]
                for a, b in zip(pairs[0].gradients, pairs[1].gradients, strict=True):
                    if np.isfinite(b).all() and gap(a, b, row_dtype(b)).error > 1e-9:
                        return False
        return True


def row_dtype(x: Any) -> str:
    """The dtype that a gap between such arrays is measured in.

    >>> row_dtype(np.zeros(2)), row_dtype(np.zeros(2, np.float32))
    ('float64', 'float32')
    """
    return str(jax.numpy.finfo(x.dtype).dtype)
