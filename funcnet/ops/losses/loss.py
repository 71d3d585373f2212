"""From what each place loses, and its slope, to a loss.

Every loss takes `reduction="mean"`, `"sum"` or `"none"` and a boolean mask `where`. The mean is
over what counts; a mean over nothing is 0, with gradient 0. Places that do not count may hold
anything, NaN included. The loss has the dtype of the network's output: bfloat16 and float16 are
computed in float32 and rounded once, at the end.
"""

import functools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ...rules.arguments import accepted, parameters
from ...rules.rule import Case, rule
from ...types import Array
from ..shared.masks import masked
from .checks import alike, check_range, check_signs
from .reduction import count_of, each, mean_over, reduce

ANY: Mapping[str, tuple[float, float]] = types.MappingProxyType({})

BY_PLACE = "where", "weight"
"""The arguments that are not what a place loses, but whether it counts and how much."""


def loss(
    backward: Callable,
    *,
    check: Callable,
    cases: Mapping[str, Case],
    forward: Callable | None = None,
    ranges: Mapping[str, tuple[float, float]] = ANY,
    signs: Sequence[str] = (),
    nodiff: Sequence[str] = (),
    rows: bool = False,
) -> Callable[[Callable], Callable]:
    """Make a function that gives the loss of each place one that masks, reduces and goes back.

    Args:
        backward: From the arrays but the mask and the weight, in the dtype of the first, and the
            cotangent of each place's loss: a tuple of each array's cotangent, None for one without.
        check: As of `rule`.
        cases: As of `rule`.
        forward: From the same arrays to the loss of each place, where there is a better way to
            compute it than its definition.
        ranges: For arrays by name, the least and greatest number among those that count.
        signs: Names of arrays that are −1 or 1 where they count.
        nodiff: As of `rule`; a `weight` is a constant anyhow.
        rows: Whether a loss belongs to each row, not to each number.

    Returns:
        A decorator of the definition: a function of the loss's arguments, `where`, `reduction` and
        perhaps `weight` among them, that does what the loss does without a mask or weight and with
        reduction "none".
    """

    def decorate(definition: Callable) -> Callable:
        names = [name for name, kind in parameters(definition) if kind == "array"]
        own = [name for name in names if name not in BY_PLACE]
        constants = (*nodiff, *(name for name in names if name == "weight"))

        def plain(*given: Array, **static: Any) -> Array:
            return definition(*_filled(names, given), **static)

        def total(losses: Array, operands: Sequence, reduction: str) -> Array:
            _, where, weight = _opened(names, operands)
            by_name = dict(zip(names, operands, strict=True))
            for name, (low, high) in ranges.items():
                check_range(definition.__name__, name, by_name[name], where, low, high)
            for name in signs:
                check_signs(definition.__name__, name, by_name[name], where)
            losses = masked(_weighted(losses, where, weight), where)
            return reduce(losses, count_of(where, losses.shape), reduction)

        @functools.wraps(definition)
        def _primal(*operands: Any, reduction: str = "mean", **static: Any) -> Array:
            given, where, _ = _opened(names, operands)
            given = [
                jax.lax.stop_gradient(x) if name in nodiff else _over(x, where, rows)
                for name, x in zip(own, given, strict=True)
            ]
            return total(plain(*given, **static), operands, reduction)

        def _forward(*operands: Any, reduction: str, **static: Any) -> tuple[Array, tuple]:
            losses = (forward or plain)(*_opened(names, operands)[0], **static)
            return total(losses, operands, reduction), operands

        def _backward(res: tuple, dy: Array, *, reduction: str, **static: Any) -> tuple:
            given, where, weight = _opened(names, res)
            shape = given[0].shape[:-1] if rows else given[0].shape
            dy = jnp.broadcast_to(each(dy, count_of(where, shape), reduction), shape)
            dy = _weighted(dy, where, weight)
            dy = dy[..., None] if rows else dy
            slopes = backward(given, dy, **accepted(backward, static))
            return tuple(
                _filled(names, [x if x is None else _over(x, where, rows) for x in slopes])
            )

        _backward.__doc__ = backward.__doc__
        made = rule(
            _forward,
            _backward,
            nodiff=constants,
            cases=cases,
            check=check,
            wide=True,
            count=mean_over,
        )
        return made(_primal)

    return decorate


def _filled(names: Sequence[str], given: Sequence) -> list:
    """Arrays at their places among all arguments, None for the mask and the weight."""
    rest = iter(given)
    return [None if name in BY_PLACE else next(rest) for name in names]


def _opened(names: Sequence[str], operands: Sequence) -> tuple[list, Array | None, Array | None]:
    """All arrays but the mask and the weight, in one dtype; the mask; the weight."""
    dtype = operands[0].dtype
    by_name = {
        name: x if x is None or name == "where" else jnp.asarray(x, dtype)
        for name, x in zip(names, operands, strict=True)
    }
    given = [x for name, x in by_name.items() if name not in BY_PLACE]
    return given, by_name["where"], by_name.get("weight")


def _over(x: Array, where: Array | None, rows: bool) -> Array:
    """0 where an array does not count, of which a row may have one loss."""
    if where is None:
        return x
    return masked(x, where[..., None] if rows and x.ndim > where.ndim else where)


def _weighted(losses: Array, where: Array | None, weight: Array | None) -> Array:
    if weight is None:
        return losses
    weight = jnp.broadcast_to(jax.lax.stop_gradient(weight), losses.shape)
    return losses * masked(weight, where)


def distance(
    slope: Callable,
    *,
    cases: Mapping[str, Case],
    check: Callable = alike("predictions", "targets"),
    forward: Callable | None = None,
) -> Callable[[Callable], Callable]:
    """`loss` for a function of predictions − targets: `slope` is its derivative.

    `forward`, if there is one, takes the difference too.
    """

    def _forward(predictions: Array, targets: Array, **static: Any) -> Array:
        assert forward is not None
        return forward(predictions - targets, **static)

    @functools.wraps(slope)
    def _backward(res: Sequence[Array], dy: Array, **static: Any) -> tuple[Array, Array]:
        predictions, targets = res
        dpredictions = slope(predictions - targets, **static) * dy
        return dpredictions, -dpredictions

    return loss(_backward, check=check, cases=cases, forward=forward and _forward)
