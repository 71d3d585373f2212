"""What the backward pass does with what is kept: which ops read it, and what is made once more."""

import math
from collections.abc import Sequence
from typing import Any

from ...jaxpr import runs
from ...jaxpr.changes import marks
from ...jaxpr.equations import Equation
from ...jaxpr.walk import At, Handler, bodies, walk

_VIEWS = (
    "broadcast_in_dim", "convert_element_type", "copy", "name", "optimization_barrier", "reshape",
    "squeeze", "transpose",
)  # fmt: skip


def bytes_of(aval: Any) -> int:
    """How many bytes an array takes; none if it has no numbers, as the gradient of an integer.

    >>> import jax
    >>> bytes_of(jax.ShapeDtypeStruct((2, 3), "bfloat16"))
    12
    """
    size = 0 if "float0" in str(aval.dtype) else math.prod(aval.shape)
    return size * int(getattr(aval.dtype, "itemsize", 1))


class _Reads(Handler):
    """Walks the backward pass; values are numbers of what is kept, or None.

    Attributes:
        found: The marks of the equations that read each; () if it is a gradient as it is.
    """

    def __init__(self, count: int) -> None:
        self.found: list[list[tuple[str, ...]]] = [[] for _ in range(count)]

    def constant(self, value: Any) -> None:
        return None

    def plain(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        if e.label in _VIEWS and len(operands) == len(e.results):
            return operands
        for body in bodies(e, operands, at, carried=lambda x: None):
            walk(body.jaxpr, body.values, self, body.at)
        for i in {x for x in _own(e, operands) if x is not None}:
            self.found[i].append(marks(at.scope))
        return [None] * len(e.results)


def _own(e: Equation, operands: list[Any]) -> Sequence[Any]:
    """The operands that an equation reads itself, not what it has inside."""
    if e.kind == "cond":
        return operands[:1]
    return e.inside.groups(operands)[1] if e.kind == "scan" else operands


_BACK = object()


class _Again(Handler):
    """Walks the backward pass, or what a checkpoint has in it: what is made once more.

    A value is what depends on a cotangent, a number for what was made again, or None.

    Attributes:
        held: The bytes of each value that was made again and is read on the way back.
        inner: The most bytes that are held in a checkpoint inside.
    """

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.held: dict[int, int] = {}
        self.inner = 0

    @property
    def most(self) -> int:
        """How many bytes there are at most."""
        return sum(self.held.values()) + self.inner

    def constant(self, value: Any) -> None:
        return None

    def call(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        if not e.inside.remat:
            return walk(e.inside.body, operands, self, at.called(e.inside))
        self._read(operands)
        found, region = self._inside(e.inside.body, operands, at)
        self.inner = max(self.inner, region.most)
        return [x if x is _BACK else self._made(v) for x, v in zip(found, e.results, strict=True)]

    def plain(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        back = any(x is _BACK for x in operands)
        if e.label in _VIEWS and not back and len(operands) == len(e.results):
            return operands
        self._read(operands)
        for body in bodies(e, operands, at):
            _, region = self._inside(body.jaxpr, body.values, at)
            self.inner = max(self.inner, region.inner)
        if back:
            return [_BACK] * len(e.results)
        return [self._made(v) if _is_again(at) else None for v in e.results]

    def _inside(self, jaxpr: Any, values: Sequence[Any], at: At) -> tuple[list[Any], "_Again"]:
        region = _Again()
        return walk(jaxpr, [x if x is _BACK else None for x in values], region, at), region

    def _made(self, var: Any) -> int:
        self.sizes.append(bytes_of(var.aval))
        return len(self.sizes) - 1

    def _read(self, operands: list[Any]) -> None:
        if any(x is _BACK for x in operands):
            made = {x for x in operands if isinstance(x, int)}
            self.held.update((x, self.sizes[x]) for x in made)


def _is_again(at: At | None) -> bool:
    """Whether a place is where a checkpoint makes something once more."""
    if at is None:
        return False
    return (at.eqn is not None and runs.is_recomputed(at.eqn)) or _is_again(at.outer)


def reads_of(backward: Any, residuals: int) -> list[list[tuple[str, ...]]]:
    """The marks of the equations that read each residual on the way back; none if none does."""
    reads = _Reads(residuals)
    rest = len(backward.in_avals) - residuals
    gradients = walk(backward, [*range(residuals), *[None] * rest], reads)
    for i in {x for x in gradients if x is not None}:
        reads.found[i].append(())
    return reads.found


def again_of(backward: Any, residuals: int) -> int:
    """The most bytes that checkpoints hold at a time of what they make again.

    What a checkpoint makes once more and reads on the way back is there as long as it runs, as a
    residual is as long as it is kept. What only leads to it is not counted.
    """
    again = _Again()
    rest = len(backward.in_avals) - residuals
    walk(backward, [*[None] * residuals, *[_BACK] * rest], again)
    return again.inner
