"""What proves the losses of margins."""

from typing import Any

import numpy as np
from numpy.random import Generator

from ...rules.rule import Case
from .cases import drawn_mask, normals


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


def _coincident(random: Generator) -> tuple:
    anchor, positive, negative, _ = normals(3, 4, arrays=3, rows=True).make(random)
    positive[0], negative[1] = anchor[0], anchor[1]
    return anchor, positive, negative, None


TRIPLET_MARGIN = {
    "mean": normals(6, 4, arrays=3, rows=True),
    "sum": normals(2, 3, 4, arrays=3, rows=True, reduction="sum", margin=0.2),
    "where, none": normals(6, 4, arrays=3, rows=True, mask=True, reduction="none"),
    "length 0": Case(_coincident),
    "no examples": normals(0, 4, arrays=3, rows=True),
}
