"""Rules of ops whose forward pass is the definition, and keeps x or y and nothing else."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ...rules.rule import Case, rule
from .checks import floats


def keeps_output(
    backward: Callable, *, cases: Mapping[str, Case], check: Callable = floats, wide: bool = True
) -> Callable[[Callable], Callable]:
    """Give an op `backward(y, dy)`: it keeps its output, which the op that follows keeps too.

    The options are those of `rule`.

    >>> @keeps_output(lambda y, dy: (y * dy,), cases={})
    ... def exponential(x):
    ...     return jax.numpy.exp(x)
    >>> import jax
    >>> float(jax.grad(exponential)(0.0))
    1.0
    """

    def decorate(primal: Callable) -> Callable:
        forward = _forward_of(primal, lambda x, y: y)
        return rule(forward, backward, cases=cases, check=check, wide=wide)(primal)

    return decorate


def keeps_input(
    backward: Callable,
    *,
    cases: Mapping[str, Case],
    check: Callable = floats,
    wide: bool = True,
    recomputes: bool = False,
) -> Callable[[Callable], Callable]:
    """Give an op `backward(x, dy)`: it keeps its first argument.

    The options are those of `rule`.

    >>> @keeps_input(lambda x, dy: (2 * x * dy,), cases={})
    ... def square(x):
    ...     return x * x
    >>> import jax
    >>> float(jax.grad(square)(3.0))
    6.0
    """

    def decorate(primal: Callable) -> Callable:
        forward = _forward_of(primal, lambda x, y: x)
        options = {"check": check, "wide": wide, "recomputes": recomputes}
        return rule(forward, backward, cases=cases, **options)(primal)

    return decorate


def _forward_of(primal: Callable, kept: Callable[[Any, Any], Any]) -> Callable:
    @functools.wraps(primal)
    def _forward(x: Any, *others: Any, **static: Any) -> tuple[Any, Any]:
        y = primal(x, *others, **static)
        return y, kept(x, y)

    return _forward
