"""The cross-entropy of a linear head, without its logits.

For each token a language model has as many logits as its vocabulary has words. Here they are made,
used and forgotten for `chunk` tokens at a time, and the gradient is made in the same go.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..shared.masks import masked
from ..shared.precision import product, wide
from ..shared.varying import devices
from . import cases
from .checks import check_range, linear_head
from .labels import counts_of, label_losses, label_slopes, mean_over_labels, within_classes
from .reduction import count_of, each, reduce


class _Options(NamedTuple):
    chunk: int
    ignore_index: int | None
    label_smoothing: float
    z_loss: float
    reduction: str
    transposed: bool


class _Head(NamedTuple):
    """The arguments as chunks of rows.

    Attributes:
        rows: (chunks, tokens, width), 0 where a token does not count.
        labels: (chunks, tokens).
        weight: (chunks, tokens), 1 for a token that counts, else 0; NaN for one whose label is out
            of range, since a compiled program cannot raise.
        w: As it was given.
        counts: Which tokens count; None for all.
    """

    rows: Array
    labels: Array
    weight: Array
    w: Array
    counts: Array | None


def _head(x: Array, w: Array, labels: Array, options: _Options) -> _Head:
    dtype, labels = jnp.result_type(x, w), labels.reshape(-1)
    w, vocabulary = w.astype(dtype), w.shape[0 if options.transposed else 1]
    counts = counts_of(labels, None, options.ignore_index)
    remedy = "Leave out tokens by a label of their own: ignore_index=-1."
    check_range("linear_cross_entropy", "labels", labels, counts, 0, vocabulary - 1, remedy)
    safe, within = within_classes(labels, vocabulary)
    weight = masked(jnp.where(within, 1, jnp.asarray(jnp.nan, wide(dtype))), counts)
    rows = x.reshape(-1, x.shape[-1]).astype(dtype)
    rows = masked(rows, None if counts is None else counts[:, None])
    rows, safe, weight = (_in_chunks(part, options) for part in (rows, safe, weight))
    return _Head(rows, safe, weight, w, counts)


def _logits(rows: Array, head: _Head, options: _Options) -> Array:
    w = head.w.T if options.transposed else head.w
    return product(rows, w, w.dtype)


def _in_chunks(x: Array, options: _Options) -> Array:
    """Rows as (chunks, tokens, ...), the last chunk filled up.

    On many devices, which hold the tokens in order, each device gives its part to each chunk.
    """
    n = max(1, min(options.chunk * devices(), len(x)))
    widths = ((0, -len(x) % n), *((0, 0) for _ in x.shape[1:]))
    rows = jnp.pad(x, widths)
    if devices() == 1:
        return rows.reshape(-1, n, *x.shape[1:])
    return rows.reshape(n, -1, *x.shape[1:]).swapaxes(0, 1)


def _in_order(parts: Array) -> Array:
    """Rows again, in the order of the tokens."""
    rows = parts if devices() == 1 else parts.swapaxes(0, 1)
    return rows.reshape(-1, *parts.shape[2:])


def _of_tokens(parts: Array, labels: Array, head: _Head) -> tuple[Array, Array]:
    """The losses in the shape of the labels; how many count."""
    losses = _in_order(parts)[: labels.size]
    count = jnp.asarray(count_of(head.counts, labels.shape), losses.dtype)
    return losses.reshape(labels.shape), count


def _losses(x: Array, w: Array, labels: Array, options: _Options) -> tuple[Array, Array]:
    """The loss of each token, and how many count."""
    head, eps, zeta = _head(x, w, labels, options), options.label_smoothing, options.z_loss

    def body(part: tuple[Array, Array, Array]) -> Array:
        rows, labels, weight = part
        return label_losses(_logits(rows, head, options), labels, weight, None, eps, zeta)[0]

    losses = jax.lax.map(body, (head.rows, head.labels, head.weight))
    return _of_tokens(losses, labels, head)


def _gradients(
    x: Array, w: Array, labels: Array, dlosses: Array | None, options: _Options
) -> tuple[Array, Array, Array, Array]:
    """The losses and how many count; dx and dw of their sum, or of that weighted by `dlosses`."""
    head, eps, zeta = _head(x, w, labels, options), options.label_smoothing, options.z_loss
    weight = head.weight
    if dlosses is not None:
        dlosses = masked(dlosses.astype(weight.dtype).reshape(-1), head.counts)
        weight = weight * _in_chunks(dlosses, options)
    dtype = head.w.dtype

    def body(dw: Array, part: tuple) -> tuple[Array, tuple[Array, Array]]:
        rows, labels, w_y, weight = part
        logits = _logits(rows, head, options)
        losses, top, rest = label_losses(logits, labels, w_y, None, eps, zeta)
        log_p = logits - top - rest
        dz = label_slopes(log_p, top + rest, labels, 1, None, eps, zeta) * weight[:, None]
        if options.transposed:
            here, dx = product(dz.T, rows, dtype), product(dz, head.w, dtype)
        else:
            here, dx = product(rows.T, dz, dtype), product(dz, head.w.T, dtype)
        return dw + here, (losses, dx)

    parts = (head.rows, head.labels, head.weight, weight)
    dw, (losses, dx) = jax.lax.scan(body, jnp.zeros_like(head.w, wide(dtype)), parts)
    dx = _in_order(dx)[: labels.size].reshape(x.shape)
    return *_of_tokens(losses, labels, head), dx, dw


def _linear_cross_entropy_forward(x, w, labels, **static):
    options, dtype = _Options(**static), jnp.result_type(x, w)
    if options.reduction == "none":
        return _losses(x, w, labels, options)[0].astype(dtype), (x, w, labels)
    losses, count, dx, dw = _gradients(x, w, labels, None, options)
    return reduce(losses, count, options.reduction).astype(dtype), (dx, dw, count)


def _linear_cross_entropy_backward(res, dy, **static):
    """With p = softmax(x w), lse = ln Σ exp(x w), q = (1 − ε) y + ε / V:
    dz = ((1 + 2 ζ lse) p − q) dy;  dx = dz wᵀ;  dw = xᵀ dz;  the mean divides dy by the count
    """
    options = _Options(**static)
    if options.reduction == "none":
        (x, w, labels), dy = jax.lax.optimization_barrier((res, dy))
        return *_gradients(x, w, labels, dy, options)[2:], None
    dx, dw, count = res
    dy = each(dy.astype(dx.dtype), count, options.reduction)
    return dx * dy, dw * dy, None


@rule(
    _linear_cross_entropy_forward,
    _linear_cross_entropy_backward,
    cases=cases.LINEAR_CROSS_ENTROPY,
    check=linear_head,
    rounds=True,
    count=mean_over_labels,
)
def linear_cross_entropy(
    x: Array,
    w: Array,
    labels: Array,
    *,
    chunk: int = 256,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    reduction: str = "mean",
    transposed: bool = False,
) -> Array:
    """−ln softmax(x w)[label]: `cross_entropy(x @ w, labels)` that never holds all the logits.

    The logits are made for `chunk` tokens at a time. Where a gradient is wanted, each chunk's is
    made in the same go, as p − y; what is kept is dx and dw, which backward scales. With reduction
    "none" each token has a cotangent of its own, so backward goes through the chunks once more.
    Leave it out of `remat`: that would make the gradient twice.

    Args:
        x: The input of the head, `(..., width)`.
        w: Its weights, `(width, vocabulary)`.
        labels: Integers, `(...)`.
        chunk: How many tokens to look at together.
        ignore_index: The label whose tokens do not count.
        label_smoothing: ε, the share of each label that is spread evenly over the vocabulary.
        z_loss: ζ: adds ζ (ln Σ exp)² to the loss of each token, which keeps the logits near 0.
        reduction: "mean" over the tokens that count, "sum" or "none".
        transposed: Whether w is `(vocabulary, width)`, as a table of embeddings is.

    Returns:
        A scalar, or `(...)` for "none", in the dtype that x and w promote to. Traced labels out of
        range give NaN, since a compiled program cannot raise.

    Raises:
        TypeError: If x or w is not floating, or the labels are not integers.
        ValueError: If a shape does not fit, or an option or a concrete label is out of range.

    >>> x, table = jnp.zeros((2, 3)), jnp.ones((4, 3))
    >>> loss = linear_cross_entropy(x, table, jnp.array([3, 0]), transposed=True)
    >>> print(f"{loss:.4f}")  # ln 4
    1.3863

    Reference: Hsu et al., "Liger Kernel: Efficient Triton Kernels for LLM Training", 2024, section
        3.2; Chowdhery et al., "PaLM", 2022, section 5 (z-loss).
    """
    options = _Options(chunk, ignore_index, label_smoothing, z_loss, reduction, transposed)
    losses, count = _losses(x, w, labels, options)
    return reduce(losses, count, reduction).astype(jnp.result_type(x, w))
