"""What the arguments of losses have to be."""

from collections.abc import Callable
from numbers import Real
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...jaxpr.jaxprs import is_traced
from ...types import Array, require
from ..shared.precision import floating

BY_WHERE = "Leave out what must not count with where."


def check_reduction(op: str, where: Array | None, shape: tuple[int, ...], reduction: str) -> None:
    """Raise unless `reduction` is one of three words and `where` is a mask of this shape."""
    require(
        reduction in ("mean", "sum", "none"),
        op,
        "reduction to be 'mean', 'sum' or 'none'",
        repr(reduction),
        "Choose one of the three.",
    )
    require(
        where is None or jnp.result_type(where) == jnp.bool_,
        op,
        "where of dtype bool",
        f"{where is not None and jnp.result_type(where)}",
        "Write the mask as a comparison, such as positions < length.",
        TypeError,
    )
    require(
        where is None or jnp.shape(where) == shape,
        op,
        f"where of shape {shape}, one entry for each loss",
        f"shape {where is not None and jnp.shape(where)}",
        "Broadcast it first: jnp.broadcast_to(where, shape).",
    )


def check_range(
    op: str, name: str, values: Any, counts: Any, low: float, high: float, remedy: str = BY_WHERE
) -> None:
    """Raise unless the values that count lie in [low, high]; traced values cannot be looked at."""
    if is_traced(values) or is_traced(counts):
        return
    known = np.asarray(values) if counts is None else np.asarray(values)[np.asarray(counts)]
    if known.size:
        least, greatest = known.min(), known.max()
        require(
            least >= low and greatest <= high,
            op,
            f"{name} from {low} to {high}",
            f"{name} from {least} to {greatest}",
            remedy,
        )


def check_signs(op: str, name: str, values: Any, counts: Any) -> None:
    """Raise unless the values that count are −1 or 1; traced values cannot be looked at."""
    if is_traced(values) or is_traced(counts):
        return
    known = np.asarray(values) if counts is None else np.asarray(values)[np.asarray(counts)]
    strange = known[~np.isin(known, (-1, 1))]
    require(
        not strange.size,
        op,
        f"{name} of -1 and 1",
        strange[0] if strange.size else "none",
        f"Of labels 0 and 1 they are 2 * labels - 1. {BY_WHERE}",
    )


def alike(*names: str, rows: bool = False) -> Callable[..., None]:
    """A check: the first is floating, the others have its shape, and a mask fits the losses.

    With `rows` there is one loss for each row, which then has an axis.
    """

    def _are_alike(op: str, *, where: Array | None, reduction: str, **given: Any) -> None:
        shape = jnp.shape(floating(op, given[names[0]], names[0]))
        for name in names[1:]:
            own = jnp.shape(given[name])
            reshaped = f"Reshape it first: {name}.reshape({names[0]}.shape)."
            require(
                own == shape,
                op,
                f"{name} of shape {shape}, as {names[0]} has",
                f"shape {own}",
                reshaped
                if np.prod(own) == np.prod(shape)
                else "Broadcast it first: jnp.broadcast_to(array, shape).",
            )
        require(
            not rows or shape,
            op,
            f"{names[0]} of rank 1 or more (..., outcomes)",
            f"shape {shape}",
            "The last axis is summed over.",
        )
        check_reduction(op, where, shape[:-1] if rows else shape, reduction)

    return _are_alike


def bent(name: str, remedy: str) -> Callable[..., None]:
    """A check of a distance that is a parabola up to an error of this name, and then a line."""

    def _is_bent(op: str, **given: Any) -> None:
        require(given[name] > 0, op, f"{name} above 0", given[name], remedy)
        alike("predictions", "targets")(op, **given)

    return _is_bent


def smoothed(op: str, *, smooth: float, **given: Any) -> None:
    """Raise unless the rows are alike, and what keeps their ratio finite is above 0."""
    require(smooth > 0, op, "smooth above 0", smooth, "It keeps the ratio of empty rows finite.")
    alike("probs", "targets", rows=True)(op, **given)


def weighed(*names: str) -> Callable[..., None]:
    """A check: the arrays are alike, and a weight broadcasts to the losses."""

    def _are_weighed(op: str, *, weight: Array | None, **given: Any) -> None:
        alike(*names)(op, **given)
        _check_broadcasts(op, "weight", weight, names[0], jnp.shape(given[names[0]]))

    return _are_weighed


def _check_broadcasts(
    op: str, name: str, weight: Array | None, whole: str, shape: tuple[int, ...]
) -> None:
    sizes = () if weight is None else jnp.shape(weight)
    fits = zip(sizes[::-1], shape[::-1], strict=False)
    require(
        len(sizes) <= len(shape) and all(n in (1, m) for n, m in fits),
        op,
        f"{name} that broadcasts to the {whole}' shape {shape}",
        f"shape {sizes}",
        "Pass one number, or one for each output on the last axis.",
    )


def focused(op: str, *, gamma: float, alpha: float | None, **given: Any) -> None:
    """Raise unless the targets have the shape of the logits, and the two numbers their ranges."""
    require(
        gamma >= 0, op, "gamma of 0 or more", gamma, "With gamma = 0 no example counts for less."
    )
    require(
        alpha is None or 0 <= alpha <= 1,
        op,
        "alpha from 0 to 1, or None",
        alpha,
        "It weighs the positive part, and 1 - alpha the negative.",
    )
    weighed("logits", "targets")(op, **given)


def binary(
    op: str,
    *,
    logits: Array,
    targets: Array,
    where: Array | None,
    pos_weight: Array | None,
    weight: Array | None,
    reduction: str,
) -> None:
    """Raise unless the targets have the shape of the logits, to which the weights broadcast."""
    given = {"logits": logits, "targets": targets, "where": where, "reduction": reduction}
    weighed("logits", "targets")(op, weight=weight, **given)
    _check_broadcasts(op, "pos_weight", pos_weight, "logits", jnp.shape(logits))


def check_weights(op: str, weights: Array | None, shape: tuple[int, ...]) -> None:
    """Raise unless there is one weight for each class, or none at all."""
    require(
        weights is None or jnp.shape(weights) == shape[-1:],
        op,
        f"weights of shape {shape[-1:]}, one for each class",
        f"shape {weights is not None and jnp.shape(weights)}",
        "To leave out examples, use where.",
    )


def one_class(
    op: str,
    *,
    log_probs: Array,
    labels: Array,
    weights: Array | None,
    where: Array | None,
    reduction: str,
) -> None:
    """Raise unless there is an integer label for each row of log-probabilities."""
    shape = jnp.shape(floating(op, log_probs, "log_probs"))
    require(
        shape and shape[-1],
        op,
        "log-probabilities of shape (..., classes)",
        f"shape {shape}",
        "They come first, as log_softmax gives them; the labels come second.",
    )
    require(
        jnp.shape(labels) == shape[:-1] and jnp.issubdtype(jnp.result_type(labels), jnp.integer),
        op,
        f"integer labels of shape {shape[:-1]}, one class for each example",
        f"{jnp.result_type(labels)} of shape {jnp.shape(labels)}",
        "For soft labels use kl_divergence.",
    )
    check_weights(op, weights, shape)
    check_reduction(op, where, shape[:-1], reduction)


def _check_soft(op: str, labels: Array, shape: tuple[int, ...], ignore_index: int | None) -> None:
    require(
        jnp.issubdtype(jnp.result_type(labels), jnp.floating),
        op,
        "soft labels of a floating dtype, as these have the rank of the logits",
        f"{jnp.result_type(labels)} of shape {jnp.shape(labels)}",
        "Pass one class for each example, without the last axis, or one_hot.astype(float).",
        TypeError,
    )
    require(
        jnp.shape(labels) == shape,
        op,
        f"soft labels of the logits' shape {shape}",
        f"shape {jnp.shape(labels)}",
        "Integer labels have that shape without its last axis.",
    )
    require(
        ignore_index is None,
        op,
        "integer labels, since ignore_index is given",
        "soft labels",
        "Leave out examples with where.",
    )


def _check_hard(op: str, labels: Array, shape: tuple[int, ...]) -> None:
    require(
        jnp.shape(labels) == shape[:-1],
        op,
        f"labels of shape {shape[:-1]}, or {shape} for soft ones, as logits have shape {shape}",
        f"shape {jnp.shape(labels)}",
        "The classes lie on the last axis of the logits.",
    )
    require(
        jnp.issubdtype(jnp.result_type(labels), jnp.integer),
        op,
        "labels of an integer dtype, one class for each example",
        f"{jnp.result_type(labels)}",
        "Convert them: labels.astype(int).",
        TypeError,
    )


def classes(
    op: str,
    *,
    logits: Array,
    labels: Array,
    weights: Array | None,
    where: Array | None,
    ignore_index: int | None,
    label_smoothing: float,
    z_loss: float,
    reduction: str,
) -> None:
    """Raise unless there is a class, or a distribution over the classes, for each row of logits."""
    shape = jnp.shape(floating(op, logits, "logits"))
    require(
        shape and shape[-1],
        op,
        "logits of shape (..., classes)",
        f"shape {shape}",
        "They come first, before any softmax; the labels come second.",
    )
    if jnp.ndim(labels) == len(shape):
        _check_soft(op, labels, shape, ignore_index)
    else:
        _check_hard(op, labels, shape)
    check_weights(op, weights, shape)
    require(
        isinstance(label_smoothing, Real) and 0 <= label_smoothing < 1,
        op,
        "label_smoothing from 0 to below 1",
        repr(label_smoothing),
        "It is the share of each label that is spread over all classes.",
    )
    require(
        isinstance(z_loss, Real) and z_loss >= 0,
        op,
        "z_loss of 0 or more",
        repr(z_loss),
        "It is the weight of the square of logsumexp(logits), such as 1e-4.",
    )
    check_reduction(op, where, shape[:-1], reduction)


def linear_head(
    op: str,
    *,
    x: Array,
    w: Array,
    labels: Array,
    chunk: int,
    label_smoothing: float,
    z_loss: float,
    reduction: str,
    transposed: bool,
) -> None:
    """Raise unless w is a linear layer on x, and there is a class for each row of x."""
    floating(op, x)
    axis, inputs = 1 if transposed else 0, jnp.shape(x)[-1] if jnp.ndim(x) else "width"
    require(
        jnp.ndim(w) == 2 and jnp.ndim(x) >= 1 and w.shape[axis] == inputs and w.shape[1 - axis] > 0,
        op,
        f"w of shape {f'(vocabulary, {inputs})' if axis else f'({inputs}, vocabulary)'}",
        f"shape {jnp.shape(w)}",
        "A table of embeddings is (vocabulary, width): it needs transposed=True.",
    )
    require(
        jnp.shape(labels) == x.shape[:-1],
        op,
        f"labels of shape {x.shape[:-1]}, as x has shape {x.shape}",
        f"shape {jnp.shape(labels)}",
        "One class belongs to each row of x.",
    )
    for name, given, kind, word in (
        ("w", w, jnp.floating, "a floating"),
        ("labels", labels, jnp.integer, "an integer"),
    ):
        require(
            jnp.issubdtype(jnp.result_type(given), kind),
            op,
            f"{name} of {word} dtype",
            f"{jnp.result_type(given)}",
            "The weights are numbers, the labels are classes.",
            TypeError,
        )
    require(
        isinstance(chunk, int) and chunk >= 1,
        op,
        "a chunk of 1 token or more",
        repr(chunk),
        "Try 256.",
    )
    require(
        0 <= label_smoothing < 1 and z_loss >= 0,
        op,
        "label_smoothing from 0 to below 1 and z_loss of 0 or more",
        f"label_smoothing={label_smoothing}, z_loss={z_loss}",
        "Smoothing is the share of each label that is spread over all classes.",
    )
    check_reduction(op, None, x.shape[:-1], reduction)
