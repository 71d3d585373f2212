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
from .checks import alike, check_range
from .reduction import count_of, each, mean_over, reduce

ANY: Mapping[str, tuple[float, float]] = types.MappingProxyType({})


def loss(
    backward: Callable,
    *,
    check: Callable,
    cases: Mapping[str, Case],
    forward: Callable | None = None,
    ranges: Mapping[str, tuple[float, float]] = ANY,
    nodiff: Sequence[str] = (),
    rows: bool = False,
) -> Callable[[Callable], Callable]:
    """Make a function that gives the loss of each place one that masks, reduces and goes back.

    Args:
        backward: From the arrays but the mask, in the dtype of the first, and the cotangent of
            each place's loss: a tuple of each array's cotangent, None for one without.
        check: As of `rule`.
        cases: As of `rule`.
        forward: From the arrays but the mask to the loss of each place, where there is a better
            way to compute it than its definition.
        ranges: For arrays by name, the least and greatest number among those that count.
        nodiff: As of `rule`.
        rows: Whether a loss belongs to each row, not to each number.

    Returns:
        A decorator of the definition: a function of the loss's arguments, `where` and `reduction`
        among them, that does what the loss does without a mask and with reduction "none".
    """

    def decorate(definition: Callable) -> Callable:
        names = [name for name, kind in parameters(definition) if kind == "array"]
        at = names.index("where")

        def plain(*given: Array, **static: Any) -> Array:
            return definition(*given[:at], None, *given[at:], **static)

        def opened(operands: Sequence) -> tuple[list, Array | None, Array | None]:
            """All arrays but the mask, in one dtype; the mask; the mask as it lies over them."""
            others, where = [*operands[:at], *operands[at + 1 :]], operands[at]
            given = [x if x is None else jnp.asarray(x, operands[0].dtype) for x in others]
            return given, where, where[..., None] if rows and where is not None else where

        def total(losses: Array, operands: Sequence, reduction: str) -> Array:
            for name, (low, high) in ranges.items():
                values = operands[names.index(name)]
                check_range(definition.__name__, name, values, operands[at], low, high)
            losses = masked(losses, operands[at])
            return reduce(losses, count_of(operands[at], losses.shape), reduction)

        @functools.wraps(definition)
        def _primal(*operands: Any, reduction: str = "mean", **static: Any) -> Array:
            given, _, mask = opened(operands)
            held = [name in nodiff for name in names if name != "where"]
            given = [
                jax.lax.stop_gradient(x) if constant else masked(x, mask)
                for x, constant in zip(given, held, strict=True)
            ]
            return total(plain(*given, **static), operands, reduction)

        def _forward(*operands: Any, reduction: str, **static: Any) -> tuple[Array, tuple]:
            losses = (forward or plain)(*opened(operands)[0], **static)
            return total(losses, operands, reduction), operands

        def _backward(res: tuple, dy: Array, *, reduction: str, **static: Any) -> tuple:
            given, where, mask = opened(res)
            shape = given[0].shape[:-1] if rows else given[0].shape
            dy = jnp.broadcast_to(each(dy, count_of(where, shape), reduction), shape)
            dy = dy[..., None] if rows else dy
            slopes = backward(given, dy, **accepted(backward, static))
            found = [slope if slope is None else masked(slope, mask) for slope in slopes]
            return *found[:at], None, *found[at:]

        _backward.__doc__ = backward.__doc__
        made = rule(
            _forward, _backward, nodiff=nodiff, cases=cases, check=check, wide=True, count=mean_over
        )
        return made(_primal)

    return decorate


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
