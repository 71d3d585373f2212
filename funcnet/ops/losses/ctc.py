"""Connectionist temporal classification: labels in order, but not at which frame each stands.

An alignment names a class for each frame. Read with repeated classes once and without blanks, it
gives the labels; the loss is −ln of the probability of all alignments that do. They are paths along
the places l' of the labels with a blank before, between and after them, S = 2 labels + 1 places.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..shared.varying import axes_of, varying
from . import cases
from .ctc_checks import alignments
from .labels import centre
from .reduction import count_of, each, reduce

IMPOSSIBLE = -1e30
"""The logarithm of probability 0: finite, so that differences of such are, and slopes with them."""


class _Paths(NamedTuple):
    """What an alignment may do.

    Attributes:
        places: The class at each place, l', `(batch, S)`.
        skips: Whether a place may follow the last but one before it, `(batch, S)`.
        inside: Whether a place is there, `(batch, S)`: labels differ in number.
        ends: At which places an alignment may end, `(batch, S)`.
        frames: Which frames count, `(time, batch, 1)`.
        weight: 1 for a sequence whose labels and lengths are in range, else NaN, since a compiled
            program cannot raise; `(batch,)`.
    """

    places: Array
    skips: Array
    inside: Array
    ends: Array
    frames: Array
    weight: Array


def _paths(
    logits: Array, logit_lengths: Array | None, labels: Array, label_lengths: Array | None,
    blank: int,
) -> _Paths:  # fmt: skip
    (batch, time, classes), count = logits.shape, labels.shape[1]
    frames = jnp.full(batch, time) if logit_lengths is None else logit_lengths
    ends = 2 * (jnp.full(batch, count) if label_lengths is None else label_lengths)[:, None]
    place = jnp.arange(2 * count + 1)
    within = (labels >= 0) & (labels < classes) & (labels != blank)
    there = place[1::2] < ends
    fits = (within | ~there).all(1) & (frames >= 0) & (frames <= time)
    fits &= (ends[:, 0] >= 0) & (ends[:, 0] <= 2 * count)
    places = jnp.full((batch, len(place)), blank, labels.dtype)
    places = places.at[:, 1::2].set(jnp.where(within & there, labels, blank))
    return _Paths(
        places,
        (places != blank) & (places != _moved(places, 2, blank)),
        place <= ends,
        (place == ends) | (place == ends - 1),
        (jnp.arange(time)[:, None] < frames)[..., None],
        jnp.where(fits, 1, jnp.asarray(jnp.nan, logits.dtype)),
    )


def _moved(x: Array, by: int, fill: float = IMPOSSIBLE) -> Array:
    """Each place has what stood so many places before it, and `fill` where none did."""
    if by > 0:
        return jnp.concatenate([jnp.full_like(x[:, :by], fill), x[:, :-by]], axis=1)
    return jnp.concatenate([x[:, -by:], jnp.full_like(x[:, by:], fill)], axis=1)


def _log_sum(*terms: Array) -> Array:
    """ln Σ exp of arrays, which takes half the time of `jnp.logaddexp` twice."""
    top = jax.lax.stop_gradient(functools.reduce(jnp.maximum, terms))
    return top + jnp.log(sum(jnp.exp(x - top) for x in terms))


def _log_y(logits: Array, paths: _Paths) -> Array:
    """The logarithm of the probability of each class, `(batch, time, classes)`."""
    centred, _, rest = centre(jnp.where(paths.frames.swapaxes(0, 1), logits, 0))
    return centred - rest


def _emissions(log_y: Array, paths: _Paths) -> Array:
    """That of the class at each place, `(time, batch, S)`."""
    own = jnp.take_along_axis(log_y, paths.places[:, None], axis=-1)
    return jnp.where(paths.inside[:, None], jnp.maximum(own, IMPOSSIBLE), IMPOSSIBLE).swapaxes(0, 1)


def _start(emissions: Array, paths: _Paths) -> Array:
    """ln α before the first frame: on the first blank, so that it and the first label are next."""
    place = jnp.arange(paths.places.shape[1])
    first = jnp.where(place == 0, jnp.zeros(paths.places.shape, emissions.dtype), IMPOSSIBLE)
    return varying(first, axes_of(emissions, paths))


def _forward_step(alpha: Array, log_y: Array, paths: _Paths) -> Array:
    """ln α of a frame from that of the frame before: equations 6 and 7."""
    skipped = jnp.where(paths.skips, _moved(alpha, 2), IMPOSSIBLE)
    return log_y + _log_sum(alpha, _moved(alpha, 1), skipped)


def _backward_step(beta: Array, log_y: Array, skipped: Array) -> Array:
    """ln β of a frame, without its own y, from that of the frame after: equations 10 and 11.

    `skipped` says which places the place but one after may follow.
    """
    after = beta + log_y
    return _log_sum(after, _moved(after, -1), jnp.where(skipped, _moved(after, -2), IMPOSSIBLE))


def _log_p(alpha: Array, paths: _Paths) -> Array:
    """ln p of the labels, from ln α of the last frame: equation 8."""
    return jax.nn.logsumexp(jnp.where(paths.ends, alpha, IMPOSSIBLE), axis=-1)


def _losses(log_p: Array, paths: _Paths, zero_infinity: bool) -> tuple[Array, Array]:
    """−ln p of each sequence; for which there is an alignment at all."""
    possible = ~(log_p < IMPOSSIBLE / 2)
    return jnp.where(possible, -log_p, 0 if zero_infinity else jnp.inf) * paths.weight, possible


def _centred(x: Array) -> tuple[Array, Array]:
    """x less the largest of each row, and that."""
    top = jax.lax.stop_gradient(x.max(-1, keepdims=True))
    return x - top, top


def _ctc_loss_forward(
    logits, logit_lengths, labels, label_lengths, *, blank, zero_infinity, reduction
):
    paths = _paths(logits, logit_lengths, labels, label_lengths, blank)
    log_y = _emissions(_log_y(logits, paths), paths)

    def step(carry: tuple, frame: tuple) -> tuple[tuple, Array]:
        (alpha, total), (log_y, here) = carry, frame
        alpha, top = _centred(alpha)
        alpha = jnp.where(here, _forward_step(alpha, log_y, paths), alpha)
        return (alpha, total + top), alpha

    start = _start(log_y, paths)
    (alpha, total), alphas = jax.lax.scan(step, (start, start[:, :1]), (log_y, paths.frames))
    losses, possible = _losses(_log_p(alpha, paths) + total[:, 0], paths, zero_infinity)
    kept = logits, logit_lengths, labels, label_lengths, alphas, possible
    return reduce(losses, count_of(None, losses.shape), reduction), kept


def _ctc_loss_backward(res, dy, *, blank, reduction):
    """dlogits = (y − γ) dy, and γ of a class is Σ α β / Σ α β over its places over that over all:
    equations 14 to 16;  0 beyond the lengths and where no alignment exists;  the mean divides dy by
    the number of sequences.

    At each frame γ is a softmax of ln α + ln β. So what is taken off a frame's α or β, to keep the
    numbers small and their digits, makes no difference.
    """
    logits, logit_lengths, labels, label_lengths, alphas, possible = res
    paths = _paths(logits, logit_lengths, labels, label_lengths, blank)
    every = _log_y(logits, paths)
    log_y = _emissions(every, paths)

    def step(beta: Array, frame: tuple) -> tuple[Array, Array]:
        alpha, log_y, here = frame
        beta, _ = _centred(beta)
        return jnp.where(here, _backward_step(beta, log_y, skipped), beta), alpha + beta

    skipped = _moved(paths.skips, -2, False)
    end = jnp.where(paths.ends, jnp.zeros((), log_y.dtype), IMPOSSIBLE)
    end = varying(end, axes_of(alphas, log_y, paths))
    _, products = jax.lax.scan(step, end, (alphas, log_y, paths.frames), reverse=True)
    gamma = jax.nn.softmax(products)
    classes = jax.nn.one_hot(paths.places, logits.shape[-1], dtype=gamma.dtype)
    slopes = jnp.exp(every) - jnp.einsum("tbs,bsk->btk", gamma, classes, precision="highest")
    counts = paths.frames.swapaxes(0, 1) & possible[:, None, None]
    dy = jnp.broadcast_to(each(dy, count_of(None, possible.shape), reduction), possible.shape)
    return jnp.where(counts, slopes, 0) * (dy * paths.weight)[:, None, None], None, None, None


@rule(
    _ctc_loss_forward,
    _ctc_loss_backward,
    cases=cases.CTC_LOSS,
    check=alignments,
    wide=True,
    recomputes=True,
)
def ctc_loss(
    logits: Array,
    logit_lengths: Array | None,
    labels: Array,
    label_lengths: Array | None = None,
    *,
    blank: int = 0,
    zero_infinity: bool = False,
    reduction: str = "mean",
) -> Array:
    """-ln p(labels | logits), summed over all alignments of the labels with the frames.

    Each frame emits a class or the blank; classes that repeat are read once, then blanks are left
    out. So two equal labels in a row need a blank between them, and labels that need more frames
    than there are have no alignment: their loss is infinite and their gradient 0.

    Args:
        logits: `(batch, time, classes)`, before any softmax, the blank among the classes.
        logit_lengths: How many frames of each sequence count, integers `(batch,)`; None for all.
            Those beyond may hold anything, NaN included.
        labels: Classes other than the blank, integers `(batch, most labels)`.
        label_lengths: How many labels each sequence has, integers `(batch,)`; None for all. Those
            beyond may be anything.
        blank: The class that stands for no label.
        zero_infinity: Whether an infinite loss becomes 0, as PyTorch has it.
        reduction: "mean" over the sequences, "sum" or "none". PyTorch's mean first divides each
            loss by its number of labels.

    Returns:
        A scalar, or `(batch,)` for "none", in the dtype of the logits. Traced labels and lengths
        out of range give NaN, since a compiled program cannot raise.

    Raises:
        TypeError: If the logits are not floating, or labels or lengths not integers.
        ValueError: If a shape does not fit, or `reduction`, the blank, or a concrete label or
            length is out of range.

    >>> logits = jnp.zeros((1, 2, 3))
    >>> loss = ctc_loss(logits, None, jnp.array([[1]]))  # 1 1, 1 _ and _ 1: three in nine
    >>> print(f"{loss:.4f}")
    1.0986

    Reference: Graves et al., "Connectionist Temporal Classification: Labelling Unsegmented Sequence
        Data with Recurrent Neural Networks", 2006, equations 5 to 16.
    """
    paths = _paths(logits, logit_lengths, labels, label_lengths, blank)
    log_y = _emissions(_log_y(logits, paths), paths)

    def step(alpha: Array, frame: tuple) -> tuple[Array, None]:
        log_y, here = frame
        return jnp.where(here, _forward_step(alpha, log_y, paths), alpha), None

    alpha, _ = jax.lax.scan(step, _start(log_y, paths), (log_y, paths.frames))
    losses, _ = _losses(_log_p(alpha, paths), paths, zero_infinity)
    return reduce(losses, count_of(None, losses.shape), reduction)
