"""What proves the losses."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator

from ...rules.rule import Case


def drawn_mask(random: Generator, shape: tuple[int, ...], masked: bool) -> np.ndarray | None:
    """A mask of this shape, or None."""
    return (random.random(shape) < 0.6) if masked else None


def _normals(
    *shape: int, arrays: int = 2, mask: bool = False, rows: bool = False, **static: Any
) -> Case:
    """Standard normal arrays of this shape and a mask, which with `rows` is one for each row."""

    def make(random: Generator) -> tuple:
        where = drawn_mask(random, shape[:-1] if rows else shape, mask)
        return *(random.standard_normal(shape) for _ in range(arrays)), where

    return Case(make, static)


def _tie(random: Generator) -> tuple:
    predictions, targets, _ = _normals(4).make(random)
    targets[1] = predictions[1]
    return predictions, targets, None


DISTANCE = {
    "mean": _normals(6),
    "sum": _normals(4, 3, reduction="sum"),
    "none": _normals(4, 3, reduction="none"),
    "one number": _normals(),
    "where": _normals(4, 3, mask=True),
    "where, none": _normals(9, mask=True, reduction="none"),
    "equal": Case(_tie),
    "no examples": _normals(0, 3),
}
HUBER = DISTANCE | {
    "narrow": _normals(9, delta=0.1),
    "wide": _normals(9, delta=3.0),
    "infinite": Case(lambda random: (np.array([np.inf, -np.inf, 1.0]), np.zeros(3), None)),
}
SMOOTH_L1 = {
    "mean": _normals(9),
    "narrow, sum": _normals(4, 3, beta=0.1, reduction="sum"),
    "where, none": _normals(9, mask=True, beta=3.0, reduction="none"),
    "no examples": _normals(0, 3),
}


def _weights(random: Generator, shape: tuple | None) -> np.ndarray | None:
    return None if shape is None else random.uniform(0.5, 3.0, shape)


def _binary(
    *shape: int,
    positive: tuple | None = None,
    weight: tuple | None = None,
    mask: bool = False,
    **static: Any,
) -> Case:
    def make(random: Generator) -> tuple:
        pair = _weights(random, positive), _weights(random, weight)
        where = drawn_mask(random, shape, mask)
        return random.standard_normal(shape), random.random(shape), where, *pair

    return Case(make, static)


BINARY_CROSS_ENTROPY = {
    "mean": _binary(6),
    "sum": _binary(4, 3, reduction="sum"),
    "none": _binary(4, 3, reduction="none"),
    "one number": _binary(),
    "one positive weight": _binary(4, 3, positive=()),
    "positive weights, where": _binary(4, 3, positive=(3,), mask=True),
    "weights": _binary(4, 3, weight=(4, 1)),
    "every option": _binary(4, 3, positive=(3,), weight=(4, 3), mask=True, reduction="sum"),
    "no examples": _binary(0, 3),
}


def _coins(*shape: int, weight: tuple | None = None, mask: bool = False, **static: Any) -> Case:
    def make(random: Generator) -> tuple:
        where = drawn_mask(random, shape, mask)
        coins = random.uniform(0.1, 0.9, shape), random.random(shape)
        return *coins, where, _weights(random, weight)

    return Case(make, static)


def _weighted(*shape: int, weight: tuple | None = None, mask: bool = False, **static: Any) -> Case:
    def make(random: Generator) -> tuple:
        logits, targets, where, _, w = _binary(*shape, weight=weight, mask=mask).make(random)
        return logits, targets, where, w

    return Case(make, static)


def _counted(*shape: int, mask: bool = False, **static: Any) -> Case:
    def make(random: Generator) -> tuple:
        rates, counts = random.uniform(0.2, 4.0, shape), random.poisson(2.0, shape).astype(float)
        return rates, counts, drawn_mask(random, shape, mask)

    return Case(make, static)


POISSON_NLL = {
    "mean": _counted(6),
    "sum, full": _counted(4, 3, reduction="sum", full=True),
    "rates": _counted(4, 3, log_input=False),
    "where, none": _counted(9, mask=True, reduction="none", log_input=False, full=True),
    "no examples": _counted(0, 3),
}


def _sets(*shape: int, mask: bool = False, **static: Any) -> Case:
    def make(random: Generator) -> tuple:
        probs, targets, *_ = _coins(*shape).make(random)
        return probs, targets, drawn_mask(random, shape[:-1], mask)

    return Case(make, static)


SOFT_DICE = {
    "mean": _sets(4, 5),
    "sum": _sets(2, 3, 4, reduction="sum", smooth=0.1),
    "where, none": _sets(6, 5, mask=True, reduction="none"),
    "empty sets": Case(lambda random: (np.zeros((2, 3)), np.zeros((2, 3)), None)),
    "no examples": _sets(0, 5),
}


def _sure(random: Generator) -> tuple:
    return np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 0.5, 0.5, 1.0]), None, None


SIGMOID_FOCAL = {
    "mean": _weighted(6),
    "sum, alpha": _weighted(4, 3, alpha=0.25, reduction="sum"),
    "where, none": _weighted(9, mask=True, gamma=0.5, reduction="none"),
    "gamma 0": _weighted(4, gamma=0.0),
    "weights": _weighted(4, 3, weight=(3,), mask=True),
    "no examples": _weighted(0, 3),
}
BERNOULLI_NLL = {
    "mean": _coins(6),
    "sum": _coins(4, 3, reduction="sum"),
    "where, none": _coins(9, mask=True, reduction="none"),
    "0 and 1": Case(_sure),
    "weights": _coins(4, 3, weight=(4, 1), mask=True),
    "no examples": _coins(0, 3),
}
GAUSSIAN_NLL = {
    "mean": _normals(6, arrays=3),
    "sum, full": _normals(4, 3, arrays=3, reduction="sum", full=True),
    "where, none": _normals(9, arrays=3, mask=True, reduction="none"),
    "no examples": _normals(0, 3, arrays=3),
}


def _distributions(*shape: int, mask: bool = False, **static: Any) -> Case:
    def make(random: Generator) -> tuple:
        log_q, p = (random.dirichlet(np.ones(shape[-1]), shape[:-1]) for _ in range(2))
        return np.log(log_q), p, drawn_mask(random, shape[:-1], mask)

    return Case(make, static)


def _impossible(random: Generator) -> tuple:
    log_q, p, _ = _distributions(3, 4).make(random)
    log_q[0, 1], p[0, 1] = -np.inf, 0.0
    return log_q, p, None


KL_DIVERGENCE = {
    "mean": _distributions(6, 5),
    "sum": _distributions(2, 3, 4, reduction="sum"),
    "where, none": _distributions(6, 5, mask=True, reduction="none"),
    "p = 0": Case(_impossible),
    "no examples": _distributions(0, 5),
}
GAUSSIAN_KL = {
    "mean": _normals(6, 5, rows=True),
    "sum": _normals(2, 3, 4, rows=True, reduction="sum"),
    "where, none": _normals(6, 5, rows=True, mask=True, reduction="none"),
    "no examples": _normals(0, 5, rows=True),
}


def _logits(random: Generator, examples: tuple[int, ...]) -> np.ndarray:
    return random.standard_normal((*examples, 5))


def _log_probs(random: Generator, examples: tuple[int, ...]) -> np.ndarray:
    return np.log(random.dirichlet(np.ones(5), examples))


def _classes(
    *examples: int,
    outputs: Callable[[Generator, tuple[int, ...]], np.ndarray] = _logits,
    soft: bool = False,
    weighted: bool = False,
    mask: bool = False,
    **static: Any,
) -> Case:
    def make(random: Generator) -> tuple:
        hard = random.integers(0, 5, examples)
        labels = random.dirichlet(np.ones(5), examples) if soft else hard
        weights = random.uniform(0.5, 2.0, (5,)) if weighted else None
        return outputs(random, examples), labels, weights, drawn_mask(random, examples, mask)

    return Case(make, static)


def _ruled_out(random: Generator) -> tuple:
    logits, labels, _, _ = _classes(6).make(random)
    logits[::2, 1] = -np.inf
    return logits, labels, np.array([1.0, 0.0, 2.0, 1.0, 0.5]), None


def _none_counts(random: Generator) -> tuple:
    return *_classes(4).make(random)[:3], np.zeros(4, bool)


NLL = {
    "mean": _classes(6, outputs=_log_probs),
    "sum": _classes(2, 3, outputs=_log_probs, reduction="sum"),
    "every option": _classes(9, outputs=_log_probs, weighted=True, mask=True, ignore_index=2),
    "none": _classes(6, outputs=_log_probs, mask=True, reduction="none"),
    "no examples": _classes(0, outputs=_log_probs),
}
CROSS_ENTROPY = {
    "mean": _classes(6),
    "sum": _classes(6, reduction="sum"),
    "none": _classes(6, reduction="none"),
    "one example": _classes(),
    "sequence": _classes(2, 3),
    "ignored": _classes(9, ignore_index=2),
    "weights": _classes(6, weighted=True),
    "smoothing": _classes(6, label_smoothing=0.1),
    "every option": _classes(9, weighted=True, mask=True, ignore_index=0, label_smoothing=0.2),
    "where, none": _classes(9, mask=True, reduction="none"),
    "soft": _classes(6, soft=True),
    "soft, none": _classes(6, soft=True, reduction="none"),
    "soft, every option": _classes(2, 4, soft=True, weighted=True, mask=True, label_smoothing=0.2),
    "z loss": _classes(6, weighted=True, mask=True, z_loss=0.1),
    "z loss, soft": _classes(6, soft=True, z_loss=0.1),
    "ruled out": Case(_ruled_out, {"label_smoothing": 0.1}),
    "none counts": Case(_none_counts),
    "no examples": _classes(0),
}


def _sequences(
    frames: int,
    *labels: tuple[int, ...],
    classes: int = 3,
    lengths: tuple | None = None,
    **static: Any,
) -> Case:
    """Sequences of these labels, filled up with -1; `lengths` are those of the logits."""

    def make(random: Generator) -> tuple:
        longest = max(map(len, labels), default=0)
        rows = [(*row, *(-1,) * (longest - len(row))) for row in labels]
        return (
            random.standard_normal((len(labels), frames, classes)),
            None if lengths is None else np.array(lengths),
            np.array(rows, int).reshape(len(labels), longest),
            np.array([len(row) for row in labels], int),
        )

    return Case(make, static)


def _ctc_ruled_out(random: Generator) -> tuple:
    logits, *rest = _sequences(4, (1, 2), (1,), (2,)).make(random)
    logits[0, :2, 0] = logits[1, :, 1] = logits[2, 1:, 0] = -np.inf
    return logits, *rest


CTC_LOSS = {
    "mean": _sequences(5, (1, 2), (2, 2), (1,), lengths=(5, 4, 3)),
    "sum, another blank": _sequences(5, (0, 1, 0), (3, 3), classes=4, blank=2, reduction="sum"),
    "none": _sequences(4, (1,), (2, 1), lengths=(4, 2), reduction="none"),
    "no labels": _sequences(3, (), (), lengths=(3, 0)),
    "a label fewer": _sequences(3, (), (1, 2)),
    "impossible": _sequences(3, (1, 1, 2), (1, 1), lengths=(3, 2), reduction="none"),
    "impossible, as 0": _sequences(2, (1, 1), (1, 2), zero_infinity=True),
    "ruled out": Case(_ctc_ruled_out, {"reduction": "none"}),
    "no frames": _sequences(0, (), (1,), reduction="none"),
    "no sequences": _sequences(3),
}


def _tokens(*tokens: int, transposed: bool = False, **static: Any) -> Case:
    def make(random: Generator) -> tuple:
        w = random.standard_normal((5, 3) if transposed else (3, 5))
        return random.standard_normal((*tokens, 3)), w, random.integers(0, 5, tokens)

    return Case(make, {**static, **({"transposed": True} if transposed else {})})


LINEAR_CROSS_ENTROPY = {
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
}
