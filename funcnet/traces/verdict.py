"""What a trace says at its end: its gradients beside JAX's, or why there are none."""

import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..jaxpr import jaxprs
from ..jaxpr.equations import Equation
from ..jaxpr.passes import quickly, replaced
from ..rules import rule
from ..rules.rule import RULES
from .cuts import cuts
from .program import NO_FLOAT, NO_PATH, Program
from .record.rows import Row
from .record.values import number

_MAKER = str(rule.__file__)
_OURS = os.path.dirname(os.path.dirname(_MAKER)) + os.sep


class Check(NamedTuple):
    """How a trace compares with JAX.

    Attributes:
        difference: The largest difference between a gradient of the trace and JAX's. Where both
            are NaN, or infinite with one sign, there is none; where one of them is, it is infinite.
        scale: The largest finite element of JAX's gradients.
        against: "jax.vjp"; or "jax.jvp" where JAX cannot differentiate in reverse.
        nonfinite: How many elements of JAX's gradients are NaN or infinite.
        refused: Why there is nothing to compare with, if JAX cannot differentiate the function.
        trusted: The custom rules that were run and are not proved: JAX runs the same, so that an
            error in one of them is no difference.
    """

    difference: float
    scale: float
    against: str
    nonfinite: int = 0
    refused: str = ""
    trusted: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.refused:
            return f"Not checked: {self.against} refuses this function: {self.refused}"
        beside = f", beside {self.nonfinite} not finite" if self.nonfinite else ""
        rules = f"rule{'s' * (len(self.trusted) > 1)} of {', '.join(self.trusted)}"
        trust = f" Taken on trust: the {rules}; fn.audit checks." if self.trusted else ""
        return (
            f"Checked against {self.against}: the largest difference is {number(self.difference)}, "
            f"the largest gradient {number(self.scale)}{beside}.{trust}"
        )


def verdict(trace: Any) -> str:
    """The last line of a trace: how it compares with JAX, or why nothing was differentiated."""
    check = trace.check()
    arguments = [row for row in trace.rows if row.kind == "argument"]
    if not any(row.active for row in arguments):
        return NO_FLOAT
    same = check is None or check.difference == 0
    if same and not any(row.contributions for row in arguments):
        return f"{NO_PATH}. {_ends(trace.rows, arguments)}"
    return "" if check is None else str(check)


def _ends(rows: Sequence[Row], arguments: Sequence[Row]) -> str:
    """What ends the paths of the arguments: "stop_gradient ends it (model.py:12)."."""
    found: dict[str, None] = {}
    for row in arguments:
        if row.active:
            found |= {str(cut): None for cut in cuts(rows, row.name)}
    said = list(found)
    more = f"; and {len(said) - 3} more" if len(said) > 3 else ""
    return f"{'; '.join(said[:3])}{more}."


def is_trusted(e: Equation) -> bool:
    """Whether a custom rule is neither JAX's own nor one that stands in `RULES` with its proof."""
    own = RULES.get(e.label)
    proved = own is not None and own.primal.__module__.startswith("funcnet.")
    place = jaxprs.written_in(e.primal)
    if _MAKER in place:
        return not proved
    return not (jaxprs.is_library(e.primal) or _OURS in place)


def compare(
    program: Program,
    active: list[bool],
    found: list,
    seeds: list,
    trusted: Sequence[str] = (),
    long: bool = False,
) -> Check:
    """The gradients of a trace against those of JAX, compiled if the function is long."""
    some = [i for i, is_active in enumerate(active) if is_active]

    def of_some(*arrays: Any) -> list:
        flat = jax.tree.leaves(program.of_arrays(*replaced(program.arrays, some, arrays)))
        return [y for y, ct in zip(flat, seeds, strict=True) if ct is not None]

    def pulled(points: list) -> Sequence[Any]:
        return jax.vjp(of_some, *points)[1](starts)

    points, gradients = ([values[i] for i in some] for values in (program.arrays, found))
    starts = [ct for ct in seeds if ct is not None]
    try:
        true, against = list(quickly(pulled, points) if long else pulled(points)), "jax.vjp"
    except ValueError as error:
        if "while_loop" not in str(error):
            return Check(np.nan, np.nan, "jax.vjp", refused=first_line(error))
        true, gradients = _along(of_some, points, starts, gradients)
        against = "jax.jvp"
    gaps = [_gap(a, b) for a, b in zip(gradients, true, strict=True)]
    sizes = [np.abs(_wide(x)) for x in true]
    finite = [x[np.isfinite(x)] for x in sizes]
    lost = sum(x.size for x in sizes) - sum(x.size for x in finite)
    return Check(_largest(gaps), _largest(finite), against, lost, trusted=tuple(trusted))


def first_line(error: Exception) -> str:
    """What an exception says, in a line."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _along(of_some: Callable, points: list, starts: list, gradients: list) -> tuple[list, list]:
    """The slope along one direction, from JAX's forward mode and from the gradients."""
    ways = [jnp.cos(jnp.arange(x.size)).reshape(x.shape).astype(x.dtype) for x in points]
    _, moved = jax.jvp(of_some, tuple(points), tuple(ways))
    true = sum(jnp.sum(t * ct) for t, ct in zip(moved, starts, strict=True))
    found = sum(jnp.sum(g * w) for g, w in zip(gradients, ways, strict=True))
    return [true], [found]


def _wide(x: Any) -> Any:
    array = np.asarray(x)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def _gap(found: Any, true: Any) -> np.ndarray:
    """How far the elements of two arrays are apart."""
    a, b = _wide(found), _wide(true)
    if np.iscomplexobj(a):
        return np.hypot(_gap(a.real, b.real), _gap(a.imag, b.imag))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(over="ignore", invalid="ignore"):
        gap = np.where(same, 0.0, np.abs(a - b))
    return np.where(np.isnan(gap), np.inf, gap)


def _largest(parts: Sequence[np.ndarray]) -> float:
    return float(max((part.max(initial=0.0) for part in parts), default=0.0))
