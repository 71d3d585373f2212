"""One array beside another: judged, and what rounding and its neighbours say of the size."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from ...rules.compare import gap, wide
from ...traces.verdict import first_line
from .programs import Pulled
from .report import Comparison


def compared(
    row: Comparison, found: Any, truth: Any, noise: Callable[[], float], beside: str = "",
    scale: float = 0.0,
) -> Comparison:  # fmt: skip
    """A comparison, judged: what is not finite in the truth is left out.

    `noise` is asked for only if the limit does not do.
    """
    if np.shape(found) != np.shape(truth):
        said = f"shape {np.shape(found)} by the rule, {np.shape(truth)} by the primal"
        return row._replace(verdict="wrong", error=float("inf"), note=said)
    a, b = wide(found), wide(truth)
    lost = ~np.isfinite(b) | (np.abs(b) > _largest(row.dtype))
    note = f"{beside or 'jax.vjp of the primal'} is not finite"
    if lost.any():
        at = tuple(map(int, np.argwhere(lost)[0]))
        row = row._replace(element=at, found=_number(a[at]), truth=_number(b[at]))
        if lost.all():
            same = np.array_equal(a, b, equal_nan=True)
            return row._replace(verdict="same" if same else "unjudged", note="" if same else note)
        a, b = np.where(lost, 0, a), np.where(lost, 0, b)
    worst = gap(a, b, row.dtype, scale=scale)
    if worst.error > row.limit:
        level = noise()
        if np.isfinite(level):
            worst = gap(a, b, row.dtype, noise=level, scale=scale)
        elif not np.isfinite(worst.error):
            return row._replace(verdict="unjudged", note="JAX's own is not finite there either")
    if worst.error <= row.limit:
        return row._replace(error=worst.error, element=worst.index)
    at = worst.index or ()
    sides = {"found": _number(a[at]), "truth": _number(b[at]), "note": beside, "hint": _hint(a, b)}
    return row._replace(verdict="wrong", error=worst.error, element=at, **sides)


def lenient(row: Comparison) -> Comparison:
    """Right in float64, and off in a coarser dtype at arrays nobody gave: it loses digits there."""
    loses = row.verdict == "wrong" and np.isfinite(row.error)
    return row._replace(verdict="coarse") if loses else row


def misfit(found: Any, like: np.ndarray) -> str:
    """How a gradient differs from its array in shape and dtype, if it does."""
    got, want = (f"{x.dtype}[{','.join(map(str, x.shape))}]" for x in (np.asarray(found), like))
    return "" if got == want else f"the rule gives {got} for an array of {want}"


def _hint(a: np.ndarray, b: np.ndarray) -> str:
    """What the one is of the other, if that is simple."""
    size = float(np.abs(b).max(initial=0.0))
    if not np.isfinite(a).all() or size == 0:
        return ""
    if not a.any():
        return "it is 0 everywhere"
    if a.ndim == 2 and a.shape[0] == a.shape[1] > 1 and np.abs(a.T - b).max() <= 1e-6 * size:
        return "it is the transpose"
    factor = (a * b.conj()).sum().real / (np.abs(b) ** 2).sum()
    if a.size > 1 and np.abs(a - factor * b).max() <= 1e-6 * abs(factor - 1) * size:
        return f"it is {factor:.8g} times that everywhere"
    return ""


def _largest(dtype: str) -> float:
    return float(jax.numpy.finfo(dtype).max) * 0.99


def _number(x: Any) -> str:
    return f"{complex(x):.6g}" if np.iscomplexobj(x) else f"{float(x):.6g}"


def off(found: Any, truth: Any) -> float:
    """The largest distance, where the truth is finite."""
    a, b = wide(found), wide(truth)
    with np.errstate(all="ignore"):
        distance = np.abs(a - b)
    kept = distance[np.isfinite(b)]
    return float(np.where(np.isnan(kept), np.inf, kept).max(initial=0.0))


def flat(found: Pulled) -> list:
    """The outputs, then the gradients."""
    return [*found.outputs, *found.gradients]


def nudged(x: np.ndarray, unit: float, draw: np.random.Generator | None) -> np.ndarray:
    """An array up to two such units away; itself without a generator."""
    if draw is None:
        return x
    with np.errstate(over="ignore"):
        return (wide(x) * (1 + unit * draw.integers(-2, 3, x.shape))).astype(x.dtype)


def signed(x: np.ndarray, draw: np.random.Generator | None) -> np.ndarray:
    """With other signs: where terms of a gradient cancel, they do not with these."""
    return x if draw is None else x * draw.choice([-1, 1], x.shape).astype(x.dtype)


def rounding(run: Callable[[tuple], list], adjoints: tuple, dtype: str) -> list[float]:
    """The rounding of each result in `dtype`, of the size it has with adjoints of other signs."""
    draw = np.random.default_rng(8)
    found = [run(tuple(signed(np.asarray(a), draw) for a in adjoints)) for _ in range(3)]
    eps = float(jax.numpy.finfo(dtype).eps)
    return [
        eps * max(float(np.abs(wide(x)).max(initial=0.0)) for x in each)
        for each in zip(*found, strict=True)
    ]


def elsewhere(arrays: Sequence, active: Sequence[int], random: int) -> tuple:
    """Arrays nearby: the active ones moved by a thousandth of their largest element."""
    draw = np.random.default_rng((random, 4))

    def near(x: Any) -> Any:
        size = float(np.abs(x).max(initial=0.0)) or 1.0
        return (x + 1e-3 * size * draw.standard_normal(x.shape)).astype(x.dtype)

    return tuple(near(x) if i in active else x for i, x in enumerate(arrays))


def line_of(error: Exception) -> str:
    """An exception in one line.

    >>> line_of(ValueError("no"))
    'ValueError: no'
    """
    return f"{type(error).__name__}: {first_line(error)}"
