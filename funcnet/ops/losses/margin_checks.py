"""What the arguments of multi-class margins, cosines and contrastive losses have to be."""

from collections.abc import Sequence
from numbers import Real

import jax.numpy as jnp

from ...types import Array, require
from ..shared.precision import floating, on_axes
from .checks import alike, check_reduction, check_weights


def scored(
    op: str,
    *,
    scores: Array,
    labels: Array,
    weights: Array | None,
    where: Array | None,
    p: int,
    reduction: str,
) -> None:
    """Raise unless there is an integer label for each row of scores, and p is 1 or 2."""
    shape = jnp.shape(floating(op, scores, "scores"))
    require(
        shape and shape[-1],
        op,
        "scores of shape (..., classes)",
        f"shape {shape}",
        "They come first; the labels come second.",
    )
    require(
        jnp.shape(labels) == shape[:-1] and jnp.issubdtype(jnp.result_type(labels), jnp.integer),
        op,
        f"integer labels of shape {shape[:-1]}, one class for each example",
        f"{jnp.result_type(labels)} of shape {jnp.shape(labels)}",
        "The classes lie on the last axis of the scores.",
    )
    require(p in (1, 2), op, "p of 1 or 2", repr(p), "It is the power of each class's part.")
    check_weights(op, weights, shape)
    check_reduction(op, where, shape[:-1], reduction)


def same_shape(op: str, *, first: Array, second: Array, axis: int | Sequence[int]) -> None:
    """Raise unless both arrays have one shape and these axes."""
    alike("first", "second")(op, first=first, second=second, where=None, reduction="none")
    on_axes(op, first, axis, "The axis is the one whose entries are the vectors.")


def signed_rows(
    op: str, *, first: Array, second: Array, targets: Array, where: Array | None, reduction: str
) -> None:
    """Raise unless there are rows of one shape, and a target for each."""
    rows = {"first": first, "second": second}
    alike("first", "second", rows=True)(op, **rows, where=where, reduction=reduction)
    shape = jnp.shape(first)[:-1]
    require(
        jnp.shape(targets) == shape,
        op,
        f"targets of shape {shape}, one for each pair of rows",
        f"shape {jnp.shape(targets)}",
        "The last axis of first and second is that of the vectors.",
    )


def _pairs(
    op: str, names: tuple[str, str], arrays: tuple[Array, Array], where: Array | None,
    temperature: float, reduction: str,
) -> None:  # fmt: skip
    given = dict(zip(names, arrays, strict=True))
    alike(*names)(op, **given, where=None, reduction=reduction)
    shape = jnp.shape(arrays[0])
    require(
        len(shape) == 2,
        op,
        f"{names[0]} of rank 2 (batch, features)",
        f"shape {shape}",
        "Of several batches take jax.vmap.",
    )
    require(
        isinstance(temperature, Real) and temperature > 0,
        op,
        "a temperature above 0",
        repr(temperature),
        "It divides the similarities: 0.1 is usual.",
    )
    check_reduction(op, where, shape[:1], reduction)


def pairs(
    op: str, *, queries: Array, keys: Array, where: Array | None, temperature: float,
    reduction: str,
) -> None:  # fmt: skip
    """Raise unless queries and keys are rows of one shape, and the temperature is above 0."""
    _pairs(op, ("queries", "keys"), (queries, keys), where, temperature, reduction)


def views(
    op: str, *, first: Array, second: Array, where: Array | None, temperature: float,
    reduction: str,
) -> None:  # fmt: skip
    """Raise unless both views are rows of one shape, and the temperature is above 0."""
    _pairs(op, ("first", "second"), (first, second), where, temperature, reduction)
