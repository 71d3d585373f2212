"""What a network says, read off logits that `ctc_loss` trained."""

import jax.numpy as jnp

from ..ops.shared.precision import floating
from ..types import Array, is_whole, require


def ctc_decode(
    logits: Array, logit_lengths: Array | None = None, *, blank: int = 0
) -> tuple[Array, Array]:
    """The labels of the likeliest alignment: best path decoding.

    The likeliest class of each frame is taken, of equals the first; those that repeat are read
    once, and blanks are left out. The labels are not always the likeliest: others may have many
    alignments, each less likely than this one.

    Args:
        logits: `(batch, time, classes)`.
        logit_lengths: How many frames of each sequence count, integers `(batch,)`; None for all.
        blank: The class that stands for no label.

    Returns:
        The labels, `(batch, time)`, int32, filled up with the blank; and how many there are in each
        sequence, `(batch,)`, int32.

    Raises:
        TypeError: If the logits are not floating.
        ValueError: If they are not of rank 3, there are not as many lengths as sequences, or the
            blank is not one of the classes.

    >>> frames = jnp.array([[1, 1, 0, 1, 2]])
    >>> labels, lengths = ctc_decode(jnp.eye(3)[frames])
    >>> labels.tolist(), lengths.tolist()
    ([[1, 1, 2, 0, 0]], [3])

    Reference: Graves et al., "Connectionist Temporal Classification", 2006, section 3.2.
    """
    _check(logits, logit_lengths, blank)
    batch, time, _ = logits.shape
    best = logits.argmax(-1).astype(jnp.int32)
    before = jnp.pad(best, ((0, 0), (1, 0)), constant_values=blank)[:, :time]
    read = (best != blank) & (best != before)
    if logit_lengths is not None:
        read &= jnp.arange(time) < jnp.asarray(logit_lengths)[:, None]
    at = jnp.where(read, read.cumsum(1) - 1, time)
    labels = jnp.full((batch, time), blank, jnp.int32)
    labels = labels.at[jnp.arange(batch)[:, None], at].set(best, mode="drop")
    return labels, read.sum(1, dtype=jnp.int32)


def _check(logits: Array, logit_lengths: Array | None, blank: int) -> None:
    shape = jnp.shape(floating("ctc_decode", logits, "logits"))
    require(
        len(shape) == 3 and shape[-1],
        "ctc_decode",
        "logits of rank 3 (batch, time, classes)",
        f"shape {shape}",
        "One sequence is a batch of one: logits[None].",
    )
    require(
        logit_lengths is None or jnp.shape(logit_lengths) == shape[:1],
        "ctc_decode",
        f"logit_lengths of shape {shape[:1]}, one for each sequence",
        f"shape {logit_lengths is not None and jnp.shape(logit_lengths)}",
        "Pass None where all frames count; of a mask, pass mask.sum(1).",
    )
    require(
        is_whole(blank, 0) and blank < shape[-1],
        "ctc_decode",
        f"a blank from 0 to {shape[-1] - 1}, one of the classes",
        repr(blank),
        "It is the class that stands for no label, as in ctc_loss.",
    )
