"""What a person wants to read beside the loss."""

from typing import Any

import jax.numpy as jnp

from ..types import Array, require


def accuracy(output: Array, target: Any) -> Array:
    """The share of predictions that are right.

    Args:
        output: Logits `(..., classes)`; or one logit each for a yes or no, `(...)` or `(..., 1)`,
            where above 0 means yes.
        target: Integer labels `(...)`; soft labels `(..., classes)`, where the largest counts; or
            for one logit 0 and 1, in any dtype.

    Returns:
        A float32 scalar.

    Raises:
        ValueError: If the shapes do not fit.

    >>> float(accuracy(jnp.array([[2.0, 1.0], [0.0, 3.0]]), jnp.array([0, 0])))
    0.5
    >>> float(accuracy(jnp.array([[2.0], [-1.0]]), jnp.array([1, 0])))
    1.0
    """
    output, target = jnp.asarray(output), jnp.asarray(target)
    shape = output.shape
    if output.ndim == target.ndim + 1 and output.shape[-1] == 1:
        output = output[..., 0]
    whole = not jnp.issubdtype(target.dtype, jnp.floating)
    if output.shape == target.shape and (whole or output.ndim < 2 or output.shape[-1] == 1):
        right = (output > 0) == (target > 0.5)
    elif output.shape == target.shape:
        right = output.argmax(-1) == target.argmax(-1)
    else:
        require(
            whole and output.shape[:-1] == target.shape,
            "accuracy",
            f"integer labels of shape {shape[:-1]} or soft labels of shape {shape}",
            f"{target.dtype} of shape {target.shape}",
            "Give one integer label for each row of logits.",
        )
        right = output.argmax(-1) == target
    return right.mean(dtype=jnp.float32)


def r_squared(output: Array, target: Array) -> Array:
    """1 − Σ (target − output)² / Σ (target − mean)²: the share of the variance that is explained.

    The mean is over the first axis, so that each of several targets has its own. As a metric of
    training it is the mean of the batches' values, mostly less than the value on all examples,
    and the more so the smaller the batch.

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
    require(
        jnp.shape(output) == jnp.shape(target),
        "r_squared",
        f"a target of shape {jnp.shape(output)}, as the predictions have",
        f"shape {jnp.shape(target)}",
        "Take the column of a one-column output: output[:, 0].",
    )
    unexplained = jnp.square(target - output).sum(dtype=jnp.float32)
    mean = jnp.atleast_1d(target).mean(0)
    total = jnp.square(target - mean).sum(dtype=jnp.float32)
    return jnp.where(total == 0, 0, 1 - unexplained / jnp.where(total == 0, 1, total))
