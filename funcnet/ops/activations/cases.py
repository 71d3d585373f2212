"""What proves the activations and dropout."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from numpy.random import Generator

from ...rules.rule import Case, normal_case


def _at(*values: float) -> Case:
    return Case(lambda random: (np.array(values, np.float32),))


def _with_kinks(*values: float) -> dict[str, Case]:
    return {"rows": normal_case((4, 3)), "kinks": _at(*values), "none": normal_case((0, 3))}


RELU = _with_kinks(-1, 0, 1)
RELU6 = _with_kinks(-1, 0, 3, 6, 7)
LEAKY_RELU = RELU | {
    "slope": normal_case((4, 3), slope=0.3),
    "falling": normal_case((4, 3), slope=-0.5),
}
PRELU = {
    "channels": normal_case((2, 4, 3), (3,)),
    "one slope": normal_case((4, 3), ()),
    "one example": normal_case((3,), (3,)),
    "none": normal_case((0, 3), (3,)),
}
SELU = _with_kinks(-9, 0, 1)
ELU = {"alpha": normal_case((4, 3), alpha=0.5)} | SELU
HARD_TANH = _with_kinks(-2, -1, 0, 1, 2) | {"limits": normal_case((4, 3), low=-0.3, high=0.7)}
SHRINK = _with_kinks(-2, -0.5, 0, 0.5, 2) | {
    "narrow": normal_case((4, 3), threshold=0.1),
    "threshold 0": Case(lambda random: (np.array([-1.0, 0.0, 2.0]),), {"threshold": 0.0}),
}
THRESHOLD = {
    "rows": normal_case((4, 3), at=0.2, value=-3.0),
    "kink": Case(lambda random: (np.array([-1.0, 0.5, 2.0]),), {"at": 0.5}),
    "none": normal_case((0, 3), at=0.0),
}
HARD_SIGMOID = _with_kinks(-4, -3, 0, 3, 4)

RANGE = _at(-np.inf, -2e3, -6.0, -1.0, -0.5, 0.0, 0.5, 1.0, 6.0, 2e3, np.inf)
SMOOTH = {"rows": normal_case((4, 3)), "range": RANGE, "none": normal_case((0, 3))}
SOFTPLUS = SMOOTH | {"beta": normal_case((4, 3), beta=2.5)}
GLU = {
    "rows": normal_case((3, 4)),
    "first axis": normal_case((4, 3), axis=0),
    "one": normal_case((2,)),
    "none": normal_case((0, 4)),
}


def _masked(shape: Sequence[int], mask: Sequence[int]) -> Case:
    """A mask with an empty row, wherever it has rows, and an entry at −∞ that it leaves in."""

    def make(random: Generator) -> tuple:
        where = random.random(mask) < 0.6
        if where.ndim > 1 and where.size:
            where[0], where[-1] = False, True
        x = random.standard_normal(shape)
        if x.size:
            x[(-1,) * x.ndim] = -np.inf
        return x, where

    return Case(make)


def _all_out(random: Generator) -> tuple:
    x = random.standard_normal((3, 4))
    x[1] = -np.inf
    return x, None


SOFTMAX = {
    "rows": normal_case((3, 5), None),
    "one row": normal_case((5,), None),
    "first axis": normal_case((4, 2, 3), None, axis=0),
    "two axes": normal_case((3, 2, 4), None, axis=(-2, -1)),
    "mask": _masked((3, 4), (3, 4)),
    "mask of columns": _masked((3, 4), (4,)),
    "mask of rows": _masked((3, 2, 4), (3, 1, 1)),
    "row of -inf": Case(_all_out),
    "no rows": normal_case((0, 3), None),
    "large": Case(lambda random: (1e4 + 3 * random.standard_normal((3, 4)), None)),
}
LOGSUMEXP = SOFTMAX | {"kept": normal_case((2, 3, 4), None, axis=1, keepdims=True)}


def _with_key(shape: Sequence[int], *, raw: bool = False, **static: object) -> Case:
    def make(random: Generator) -> tuple:
        bits: Any = random.integers(0, 2**32, 2, np.uint32)
        return random.standard_normal(shape), bits if raw else jax.random.wrap_key_data(bits)

    return Case(make, static)


DROPOUT = {
    "rows": _with_key((5, 4), drop=0.3),
    "raw key": _with_key((5, 4), raw=True, drop=0.3),
    "one number": _with_key((), drop=0.5),
    "channels": _with_key((2, 3, 3, 4), drop=0.5, broadcast_dims=(1, -2)),
    "nothing dropped": _with_key((5, 4), drop=0.0),
    "none": _with_key((0, 4), drop=0.5),
}
