"""What is left where JAX has no derivative of the primal: its values at points nearby."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ...jaxpr.passes import replaced
from ...rules.compare import wide

HALVINGS = 10


class Slope(NamedTuple):
    """The slope of a number along a direction.

    Attributes:
        value: The slope.
        error: How far off it may be.
        rate: How the remainder of first order shrinks with the step, for the slope it was held
            against: as the step to the power 2 if that is right, 1 if it is wrong.
    """

    value: float
    error: float
    rate: float


def slope(number: Callable[[float], float], claimed: float, start: float) -> Slope:
    """The slope of `number` at 0, by central differences extrapolated to a step of 0.

    Args:
        number: What has a slope.
        claimed: The slope it is said to have.
        start: The largest step.

    >>> found = slope(lambda h: float(np.exp(h)), 1.0, 0.1)
    >>> abs(found.value - 1) < 1e-10, round(found.rate, 1)
    (True, 2.0)

    Reference: C. J. F. Ridders, Accurate computation of F'(x) and F'(x)F''(x), Advances in
    Engineering Software 4 (1982); the rate is Taylor's theorem.
    """
    steps = [start / 2**k for k in range(HALVINGS)]
    sides = [(number(h), number(-h)) for h in steps]
    here = number(0.0)
    table = [[(a - b) / (2 * h)] for h, (a, b) in zip(steps, sides, strict=True)]
    best, error = table[0][0], float("inf")
    for k in range(1, HALVINGS):
        for j in range(1, k + 1):
            before, above = table[k][j - 1], table[k - 1][j - 1]
            table[k].append(before + (before - above) / (4.0**j - 1))
            gap = max(abs(table[k][j] - before), abs(table[k][j] - above))
            if gap < error:
                best, error = table[k][j], gap
    rests = [abs(a - here - h * claimed) for h, (a, _) in zip(steps, sides, strict=True)]
    floor = 1e3 * np.finfo(np.float64).eps * max(abs(here), *(abs(a) for a, _ in sides))
    pairs = [(a, b) for a, b in itertools.pairwise(rests) if b > floor]
    rate = float(np.median([np.log2(a / b) for a, b in pairs])) if pairs else 2.0
    return Slope(best, error, rate)


def expansions(
    value: Callable[[Sequence], list], arrays: Sequence, active: Sequence[int],
    adjoints: Sequence, gradients: Sequence, random: int,
) -> list[tuple[float, Slope]]:  # fmt: skip
    """For each active array, along a direction: the slope its gradient claims, and the slope."""
    draw = np.random.default_rng((random, 6))
    found = []
    for i, gradient in zip(active, gradients, strict=True):
        x = np.asarray(arrays[i])
        way = draw.choice([-1.0, 1.0], x.shape)
        size = float(np.abs(x).max(initial=0.0)) or 1.0

        def number(h: float, i: int = i, x: Any = x, way: Any = way, size: float = size) -> float:
            there = (x + h * size * way).astype(x.dtype)
            outputs = value(replaced(arrays, [i], [there]))
            pairs = zip(outputs, adjoints, strict=True)
            return sum(float(np.real(wide(y) * wide(ct)).sum()) for y, ct in pairs)

        claimed = float(np.real(wide(gradient) * way).sum()) * size
        found.append((claimed, slope(number, claimed, 1e-2)))
    return found
