"""What the arguments of `ctc_loss` have to be."""

import jax.numpy as jnp
import numpy as np

from ...jaxpr.jaxprs import is_traced
from ...types import Array, is_whole, require
from ..shared.precision import floating
from .checks import check_range, check_reduction


def _check_counts(op: str, name: str, lengths: Array | None, batch: int, most: int) -> None:
    if lengths is None:
        return
    require(
        jnp.issubdtype(jnp.result_type(lengths), jnp.integer),
        op,
        f"{name} of an integer dtype",
        f"{jnp.result_type(lengths)}",
        "They count what belongs to each sequence; the rest may be anything.",
        TypeError,
    )
    require(
        jnp.shape(lengths) == (batch,),
        op,
        f"{name} of shape {(batch,)}, one for each sequence",
        f"shape {jnp.shape(lengths)}",
        "Pass None where all count whole; of a mask, pass mask.sum(1).",
    )
    check_range(op, name, lengths, None, 0, most, "Cut the longer sequences first.")


def _check_sequences(
    op: str, labels: Array, lengths: Array | None, classes: int, blank: int
) -> None:
    if is_traced(labels) or is_traced(lengths):
        return
    known = np.asarray(labels)
    counts = None if lengths is None else np.arange(known.shape[1]) < np.asarray(lengths)[:, None]
    remedy = "Leave out what must not count with label_lengths."
    check_range(op, "labels", known, counts, 0, classes - 1, remedy)
    require(
        not (known[... if counts is None else counts] == blank).any(),
        op,
        f"labels other than the blank, {blank}",
        "the blank among them",
        "Number the labels so that the blank has a class of its own.",
    )


def alignments(
    op: str,
    *,
    logits: Array,
    logit_lengths: Array | None,
    labels: Array,
    label_lengths: Array | None,
    blank: int,
    reduction: str,
) -> None:
    """Raise unless there are labels for each sequence of logits, and lengths that fit both."""
    shape = jnp.shape(floating(op, logits, "logits"))
    require(
        len(shape) == 3 and shape[-1],
        op,
        "logits of rank 3 (batch, time, classes)",
        f"shape {shape}",
        "One sequence is a batch of one: logits[None].",
    )
    require(
        jnp.ndim(labels) == 2 and jnp.shape(labels)[0] == shape[0],
        op,
        f"labels of shape ({shape[0]}, most labels), as logits have shape {shape}",
        f"shape {jnp.shape(labels)}",
        "Fill the shorter rows up and give label_lengths.",
    )
    require(
        jnp.issubdtype(jnp.result_type(labels), jnp.integer),
        op,
        "labels of an integer dtype",
        f"{jnp.result_type(labels)}",
        "Convert them: labels.astype(int).",
        TypeError,
    )
    require(
        is_whole(blank, 0) and blank < shape[-1],
        op,
        f"a blank from 0 to {shape[-1] - 1}, one of the classes",
        repr(blank),
        "It is the class that stands for no label.",
    )
    _check_counts(op, "logit_lengths", logit_lengths, shape[0], shape[1])
    _check_counts(op, "label_lengths", label_lengths, shape[0], jnp.shape(labels)[1])
    _check_sequences(op, labels, label_lengths, shape[-1], blank)
    check_reduction(op, None, shape[:1], reduction)
