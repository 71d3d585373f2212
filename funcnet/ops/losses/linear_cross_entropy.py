"""The cross-entropy of a linear head, without its logits.

For each token a language model has as many logits as its vocabulary has words. Here they are made,
used and forgotten for `chunk` tokens at a time, and the gradient is made in the same go.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.random import Generator

from ...jaxpr.jaxprs import is_traced
from ...rules.rule import Case, rule
from ...types import Array, require
from ..shared.precision import floating, wide
from .reduction import check_reduction, count_of, each, masked, reduce

NAME = "linear_cross_entropy"


class _Options(NamedTuple):
    chunk: int
    ignore_index: int | None
    label_smoothing: float
    z_loss: float
    reduction: str
    transposed: bool


def _check(x: Array, w: Array, labels: Array, options: _Options) -> None:
    floating(NAME, x)
    axis, inputs = 1 if options.transposed else 0, jnp.shape(x)[-1] if jnp.ndim(x) else "width"
    require(
        jnp.ndim(w) == 2 and jnp.ndim(x) >= 1 and w.shape[axis] == inputs and w.shape[1 - axis] > 0,
        NAME,
        f"w of shape {f'(vocabulary, {inputs})' if axis else f'({inputs}, vocabulary)'}",
        f"shape {jnp.shape(w)}",
        "A table of embeddings is (vocabulary, width): it needs transposed=True.",
    )
    require(
        jnp.shape(labels) == x.shape[:-1],
        NAME,
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
            NAME,
            f"{name} of {word} dtype",
            f"{jnp.result_type(given)}",
            "The weights are numbers, the labels are classes.",
            TypeError,
        )
    require(
        isinstance(options.chunk, int) and options.chunk >= 1,
        NAME,
        "a chunk of 1 token or more",
        repr(options.chunk),
        "Try 256.",
    )
    require(
        0 <= options.label_smoothing < 1 and options.z_loss >= 0,
        NAME,
        "label_smoothing from 0 to below 1 and z_loss of 0 or more",
        f"label_smoothing={options.label_smoothing}, z_loss={options.z_loss}",
        "Smoothing is the share of each label that is spread over all classes.",
    )
    check_reduction(NAME, None, x.shape[:-1], options.reduction)
    _check_range(labels, w.shape[1 - axis], options.ignore_index)


def _check_range(labels: Array, vocabulary: int, ignore_index: int | None) -> None:
    if is_traced(labels):
        return
    known = np.asarray(labels)
    known = known[known != ignore_index] if ignore_index is not None else known
    least, most = (known.min(), known.max()) if known.size else (0, 0)
    require(
        least >= 0 and most < vocabulary,
        NAME,
        f"labels from 0 to {vocabulary - 1}",
        f"labels from {least} to {most}",
        "Leave out tokens by a label of their own: ignore_index=-1.",
    )


def _counts(labels: Array, options: _Options) -> Array | None:
    return None if options.ignore_index is None else labels != options.ignore_index


def _mean_over(*, labels: Array, ignore_index: int | None, reduction: str) -> Array | None:
    if ignore_index is None or reduction != "mean":
        return None
    return (jnp.asarray(labels) != ignore_index).sum()


class _Head(NamedTuple):
    """The arguments as chunks of rows.

    Attributes:
        rows: (chunks, tokens, width), 0 where a token does not count.
        labels: (chunks, tokens).
        weight: (chunks, tokens), 1 for a token that counts, else 0; NaN for one whose label is out
            of range, since a compiled program cannot raise.
        w: (width, vocabulary).
        count: How many tokens count.
    """

    rows: Array
    labels: Array
    weight: Array
    w: Array
    count: Array


def _head(x: Array, w: Array, labels: Array, options: _Options) -> _Head:
    _check(x, w, labels, options)
    dtype, labels = wide(x, w), jnp.asarray(labels).reshape(-1)
    w = (w.T if options.transposed else w).astype(dtype)
    counts = _counts(labels, options)
    within = (labels >= 0) & (labels < w.shape[1])
    weight = masked(jnp.where(within, 1, jnp.asarray(jnp.nan, dtype)), counts)
    rows = x.reshape(-1, x.shape[-1]).astype(dtype)
    rows = masked(rows, None if counts is None else counts[:, None])
    return _Head(
        _in_chunks(rows, options),
        _in_chunks(jnp.where(within, labels, 0), options),
        _in_chunks(weight, options),
        w,
        count_of(counts, labels.shape, dtype),
    )


def _in_chunks(x: Array, options: _Options) -> Array:
    """Rows as (chunks, tokens, ...), the last chunk filled up."""
    n = max(1, min(options.chunk, len(x)))
    widths = ((0, -len(x) % n), *((0, 0) for _ in x.shape[1:]))
    return jnp.pad(x, widths).reshape(-1, n, *x.shape[1:])


def _out_of_chunks(parts: Array, shape: tuple[int, ...]) -> Array:
    rows = parts.reshape(-1, *parts.shape[2:])
    return rows[: math.prod(shape[: len(shape) + 1 - rows.ndim])].reshape(shape)


def _token_losses(
    logits: Array, labels: Array, weight: Array, options: _Options
) -> tuple[Array, Array, Array]:
    """The loss of each token; and what its gradient is made of: ln p, and ln Σ exp."""
    eps = options.label_smoothing
    # ln Σ exp in two parts: one number would lose the digits of ln where the logits are large.
    top = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    z = logits - top
    small = jnp.log(jnp.exp(z).sum(-1, keepdims=True))
    loss = small - jnp.take_along_axis(z, labels[:, None], axis=-1)
    if eps:
        loss = (1 - eps) * loss + eps * (small - z.mean(-1, keepdims=True))
    lse = top + small
    return weight * (loss + options.z_loss * lse**2)[:, 0], z - small, lse


def _losses(x: Array, w: Array, labels: Array, options: _Options) -> tuple[Array, Array]:
    """The loss of each token, in the shape of the labels, and how many count."""
    head = _head(x, w, labels, options)

    def body(part: tuple[Array, Array, Array]) -> Array:
        rows, labels, weight = part
        return _token_losses(rows @ head.w, labels, weight, options)[0]

    losses = jax.lax.map(body, (head.rows, head.labels, head.weight))
    return _out_of_chunks(losses, jnp.shape(labels)), head.count


def _gradients(
    x: Array, w: Array, labels: Array, dlosses: Array | None, options: _Options
) -> tuple[Array, Array, Array, Array]:
    """The losses; dx and dw of their sum, or of that weighted by `dlosses`; how many count."""
    head, zeta, eps = _head(x, w, labels, options), options.z_loss, options.label_smoothing
    weight = head.weight
    if dlosses is not None:
        dlosses = masked(dlosses.astype(weight.dtype), _counts(labels, options))
        weight = weight * _in_chunks(dlosses.reshape(-1), options)
    vocabulary = head.w.shape[1]
    back = head.w.T

    def body(dw: Array, part: tuple) -> tuple[Array, tuple[Array, Array]]:
        rows, labels, counted, weight = part
        loss, log_p, lse = _token_losses(rows @ head.w, labels, counted, options)
        p = jnp.exp(log_p)
        q = jnp.where(labels[:, None] == jnp.arange(vocabulary), 1 - eps, 0) + eps / vocabulary
        dz = ((p * (1 + 2 * zeta * lse) if zeta else p) - q) * weight[:, None]
        return dw + rows.T @ dz, (loss, dz @ back)

    parts = (head.rows, head.labels, head.weight, weight)
    dw, (losses, dx) = jax.lax.scan(body, jnp.zeros_like(head.w), parts)
    dw = dw.T if options.transposed else dw
    losses = _out_of_chunks(losses, jnp.shape(labels))
    return losses, _out_of_chunks(dx, x.shape), dw, head.count


def _linear_cross_entropy_forward(
    x: Array,
    w: Array,
    labels: Array,
    *,
    chunk: int,
    ignore_index: int | None,
    label_smoothing: float,
    z_loss: float,
    reduction: str,
    transposed: bool,
) -> tuple[Array, tuple]:
    options = _Options(chunk, ignore_index, label_smoothing, z_loss, reduction, transposed)
    if reduction == "none":
        losses, _ = _losses(x, w, labels, options)
        return losses.astype(jnp.result_type(x, w)), (x, w, labels)
    losses, dx, dw, count = _gradients(x, w, labels, None, options)
    return reduce(losses, count, reduction).astype(jnp.result_type(x, w)), (dx, dw, count)


def _linear_cross_entropy_backward(
    res: tuple,
    dy: Array,
    *,
    chunk: int,
    ignore_index: int | None,
    label_smoothing: float,
    z_loss: float,
    reduction: str,
    transposed: bool,
) -> tuple[Array, Array, None]:
    """With p = softmax(x w), lse = ln Σ exp(x w), q = (1 − ε) y + ε / V:
    dz = ((1 + 2 ζ lse) p − q) dy;  dx = dz wᵀ;  dw = xᵀ dz;  the mean divides dy by the count
    """
    if reduction == "none":
        options = _Options(chunk, ignore_index, label_smoothing, z_loss, reduction, transposed)
        (x, w, labels), dy = jax.lax.optimization_barrier((res, dy))
        _, dx, dw, _ = _gradients(x, w, labels, dy, options)
        return dx, dw, None
    dx, dw, count = res
    dy = each(dy.astype(dx.dtype), count, reduction)
    return dx * dy, dw * dy, None


def _tokens(*tokens: int, transposed: bool = False, **static: Any) -> Case:
    def make(random: Generator) -> tuple:
        w = random.standard_normal((5, 3) if transposed else (3, 5))
        return random.standard_normal((*tokens, 3)), w, random.integers(0, 5, tokens)

    return Case(make, {**static, **({"transposed": True} if transposed else {})})


@rule(
    _linear_cross_entropy_forward,
    _linear_cross_entropy_backward,
    count=_mean_over,
    cases={
        "mean, chunks": _tokens(5, chunk=2),
        "sum, transposed": _tokens(4, transposed=True, reduction="sum"),
        "none, every option": _tokens(
            2, 3, chunk=4, ignore_index=2, label_smoothing=0.2, z_loss=0.1, reduction="none"
        ),
        "mean, every option": _tokens(
            9, transposed=True, chunk=3, ignore_index=0, label_smoothing=0.1, z_loss=0.1
        ),
        "one token": _tokens(),
        "no tokens": _tokens(0),
    },
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
