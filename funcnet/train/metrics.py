"""What a person wants to read beside the loss."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..figures import Mean, note
from ..jaxpr.jaxprs import is_traced
from ..types import Array, require


def accuracy(output: Array, target: Any, *, ignore_index: int | None = None) -> Array:
    """The share of predictions that are right; one from logits that are NaN is wrong.

    Args:
        output: Logits `(..., classes)`; or one logit each for a yes or no, `(...)` or `(..., 1)`,
            where above 0 means yes.
        target: Integer labels `(...)`; soft labels `(..., classes)`, where the largest counts; or
            for one logit 0 and 1, in any dtype, where above 0.5 means yes.
        ignore_index: The integer label whose examples do not count.

    Returns:
        A float32 scalar, 0 where nothing counts. Traced targets of one logit that lie outside
        0 to 1 give NaN, since a compiled program cannot raise.

    Raises:
        ValueError: If the shapes do not fit, a concrete target of one logit lies outside 0 to 1, or
            `ignore_index` is given with labels that are no integers.
        TypeError: If `ignore_index` is no integer.

    >>> float(accuracy(jnp.array([[2.0, 1.0], [0.0, 3.0]]), jnp.array([0, 0])))
    0.5
    >>> float(accuracy(jnp.array([[2.0], [-1.0]]), jnp.array([1, 0])))
    1.0
    >>> float(accuracy(jnp.eye(3), jnp.array([0, -1, 2]), ignore_index=-1))
    1.0
    """
    require(
        ignore_index is None or isinstance(ignore_index, int | np.integer),
        "accuracy",
        "an integer ignore_index, or None",
        repr(ignore_index),
        "It is the label whose examples do not count.",
        TypeError,
    )
    output, target = jnp.asarray(output), jnp.asarray(target)
    shape = output.shape
    if output.ndim == target.ndim + 1 and output.shape[-1] == 1:
        output = output[..., 0]
    whole = not jnp.issubdtype(target.dtype, jnp.floating)
    require(
        ignore_index is None or whole,
        "accuracy",
        "integer labels, since ignore_index is given",
        f"{target.dtype}",
        "Leave ignore_index out, or convert the labels.",
    )
    counts = jnp.ones(target.shape, bool) if ignore_index is None else target != ignore_index
    if output.shape == target.shape and (whole or output.ndim < 2 or output.shape[-1] == 1):
        right = ((output > 0) == (target > 0.5)) & ~jnp.isnan(output)
        right = jnp.where(_yes_or_no(target, counts), right, jnp.nan)
    elif output.shape == target.shape:
        right, counts = _largest(output) == target.argmax(-1), counts[..., 0]
    else:
        require(
            whole and output.shape[:-1] == target.shape,
            "accuracy",
            f"integer labels of shape {shape[:-1]} or soft labels of shape {shape}",
            f"{target.dtype} of shape {target.shape}",
            "Give one integer label for each row of logits.",
        )
        right = _largest(output) == target
    total = jnp.where(counts, right, 0).sum(dtype=jnp.float32)
    share = Mean(total, counts.sum(dtype=jnp.float32))
    value = share.value
    note(value, lambda: share)
    return value


def _largest(output: Array) -> Array:
    """The class of the largest logit; that of none, where one is NaN."""
    return jnp.where(jnp.isnan(output).any(-1), output.shape[-1], output.argmax(-1))


def _yes_or_no(target: Array, counts: Array) -> Array:
    """Which targets of one logit lie in 0 to 1, or do not count.

    Raises:
        ValueError: If one is known not to.
    """
    fine = (target >= 0) & (target <= 1) | ~counts
    if not is_traced(fine):
        known = np.asarray(target, np.float64)[~np.asarray(fine)]
        require(
            not known.size,
            "accuracy",
            "targets from 0 to 1 for one logit",
            f"{known.max(initial=0):g}" if known.size else "none",
            "Give the network an output for each class, or use r_squared for numbers.",
        )
    return fine


class Explained(NamedTuple):
    """What `r_squared` is made of, for some examples; see `funcnet.figures`.

    Attributes:
        count: How many examples.
        mean: The mean of each target.
        spread: The squares of the distances from it, summed.
        missed: The squares of the errors, summed.
    """

    count: Any
    mean: Any
    spread: Any
    missed: Any

    @property
    def value(self) -> Any:
        """1 - missed / spread, and 0 where the targets do not vary."""
        select = jnp.where if isinstance(self.spread, jax.Array) else np.where
        still = self.spread == 0
        explained = 1 - self.missed / select(still, 1, self.spread)
        return select(still & (self.missed == self.missed), 0, explained)

    def join(self, other: "Explained") -> "Explained":
        """The same of the examples of both.

        Reference: Chan, Golub & LeVeque, "Algorithms for Computing the Sample Variance", 1983,
        equation 2.1.
        """
        count = self.count + other.count
        gap = other.mean - self.mean
        between = (gap * gap).sum() * (self.count * other.count / count)
        mean = self.mean + gap * (other.count / count)
        spread = self.spread + other.spread + between
        return Explained(count, mean, spread, self.missed + other.missed)


def r_squared(output: Any, target: Any) -> Array:
    """1 − Σ (target − output)² / Σ (target − mean)²: the share of the variance that is explained.

    The mean is over the first axis, so that each of several targets has its own. As a metric of
    training it is that of all the epoch's examples, not a mean over batches.

    Args:
        output: Predictions, of any shape.
        target: The same shape.

    Returns:
        A float32 scalar: 1 is perfect, 0 no better than the mean, below 0 worse; 0 too where the
        target does not vary.

    Raises:
        ValueError: If the shapes differ.

    >>> float(r_squared(jnp.array([1.0, 2.0, 3.0]), jnp.array([1.0, 2.0, 3.0])))
    1.0
    """
    output, target = jnp.asarray(output), jnp.asarray(target)
    require(
        output.shape == target.shape,
        "r_squared",
        f"a target of shape {output.shape}, as the predictions have",
        f"shape {target.shape}",
        "Take the column of a one-column output: output[:, 0].",
    )
    wide = jnp.promote_types(jnp.result_type(output, target), jnp.float32)
    output, target = (jnp.atleast_1d(jnp.asarray(x, wide)) for x in (output, target))
    # Equal numbers are 0 away from their mean only where it is taken as seen from one of them.
    first = target[:1]
    mean = first[0] + (target - first).mean(0) if len(target) else target.sum(0)
    explained = Explained(
        jnp.asarray(len(target), wide),
        mean,
        jnp.square(target - mean).sum(),
        jnp.square(target - output).sum(),
    )
    value = explained.value.astype(jnp.float32)
    note(value, lambda: explained)
    return value
