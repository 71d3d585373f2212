"""What proves the losses of margins."""

from typing import Any

import numpy as np
from numpy.random import Generator

from ...rules.rule import Case, normal_case
from .cases import drawn_mask


def _signed(*shape: int, scores: int = 1, mask: bool = False, **static: Any) -> Case:
    def make(random: Generator) -> tuple:
        signs = 2.0 * (random.random(shape) < 0.5) - 1
        return (
            *(random.standard_normal(shape) for _ in range(scores)),
            signs,
            drawn_mask(random, shape, mask),
        )

    return Case(make, static)


HINGE = {
    "mean": _signed(6),
    "sum": _signed(4, 3, reduction="sum", margin=0.3),
    "where, none": _signed(9, mask=True, reduction="none"),
    "kinks": Case(lambda random: (np.array([1.0, -1.0, 0.0, 1.0]), np.array([1, -1, 1, -1]), None)),
    "no examples": _signed(0, 3),
}
MARGIN_RANKING = {
    "mean": _signed(6, scores=2),
    "sum": _signed(4, 3, scores=2, reduction="sum", margin=0.5),
    "where, none": _signed(9, scores=2, mask=True, reduction="none"),
    "ties": Case(lambda random: (np.zeros(2), np.zeros(2), np.array([1, -1]), None)),
    "no examples": _signed(0, 3, scores=2),
}


def _triples(*shape: int, mask: bool = False, **static: Any) -> Case:
    def make(random: Generator) -> tuple:
        rows = [random.standard_normal(shape) for _ in range(3)]
        return *rows, drawn_mask(random, shape[:-1], mask)

    return Case(make, static)


def _coincident(random: Generator) -> tuple:
    anchor, positive, negative, _ = _triples(3, 4).make(random)
    positive[0], negative[1] = anchor[0], anchor[1]
    return anchor, positive, negative, None


TRIPLET_MARGIN = {
    "mean": _triples(6, 4),
    "sum": _triples(2, 3, 4, reduction="sum", margin=0.2),
    "where, none": _triples(6, 4, mask=True, reduction="none"),
    "length 0": Case(_coincident),
    "no examples": _triples(0, 4),
}


def _scores(
    *examples: int, weighted: bool = False, mask: bool = False, tie: bool = False, **static: Any
) -> Case:
    def make(random: Generator) -> tuple:
        scores = np.zeros((*examples, 4)) if tie else random.standard_normal((*examples, 4))
        weights = random.uniform(0.5, 2.0, 4) if weighted else None
        labels = random.integers(0, 4, examples)
        return scores, labels, weights, drawn_mask(random, examples, mask)

    return Case(make, static)


MULTI_MARGIN = {
    "mean": _scores(6),
    "sum, squared": _scores(2, 3, p=2, reduction="sum"),
    "every option": _scores(9, weighted=True, mask=True, p=2, margin=0.4, reduction="none"),
    "weights": _scores(6, weighted=True),
    "one example": _scores(),
    "kinks": _scores(3, tie=True, margin=0.0),
    "no examples": _scores(0),
}


def _pairs(*shape: int, mask: bool = False, **static: Any) -> Case:
    def make(random: Generator) -> tuple:
        signs = 2.0 * (random.random(shape[:-1]) < 0.5) - 1
        rows = random.standard_normal(shape), random.standard_normal(shape)
        return *rows, signs, drawn_mask(random, shape[:-1], mask)

    return Case(make, static)


def _of_length_0(random: Generator) -> tuple:
    first, second, *_ = _pairs(4, 3).make(random)
    first[0], second[1], first[2], second[2] = 0, 0, 0, 0
    return first, second


COSINE_EMBEDDING = {
    "mean": _pairs(6, 4),
    "sum": _pairs(2, 3, 4, reduction="sum", margin=0.3),
    "where, none": _pairs(6, 4, mask=True, reduction="none", margin=-0.5),
    "length 0": Case(lambda random: (*_of_length_0(random), np.array([1, -1, -1, 1]), None)),
    "no examples": _pairs(0, 4),
}
COSINE_SIMILARITY = {
    "rows": normal_case((3, 5), (3, 5)),
    "columns": normal_case((5, 3), (5, 3), axis=0),
    "all": normal_case((2, 3, 4), (2, 3, 4), axis=(0, 1, 2)),
    "length 0": Case(_of_length_0),
    "no rows": normal_case((0, 5), (0, 5)),
}


def _views(n: int, mask: bool = False, **static: Any) -> Case:
    def make(random: Generator) -> tuple:
        first = random.standard_normal((n, 3))
        return first, first + random.standard_normal((n, 3)), drawn_mask(random, (n,), mask)

    return Case(make, static)


def _zero_view(random: Generator) -> tuple:
    first, second, _ = _views(4).make(random)
    first[1] = second[2] = 0
    return first, second, None


NT_XENT = {
    "mean": _views(5),
    "sum": _views(4, reduction="sum", temperature=1.0),
    "where, none": _views(6, mask=True, reduction="none", temperature=0.5),
    "length 0": Case(_zero_view, {"temperature": 0.5}),
    "nothing counts": Case(lambda random: (*_views(3).make(random)[:2], np.zeros(3, bool))),
    "one pair": _views(1),
    "no pairs": _views(0),
}
INFO_NCE = NT_XENT | {
    "both ways": _views(5, symmetric=True, temperature=0.3),
    "both ways, where": _views(6, mask=True, symmetric=True, reduction="sum", temperature=0.5),
}
