"""What proves the norms."""

from numpy.random import Generator

from ...rules.rule import Case, normal_case


def _far(rows: int, channels: int) -> Case:
    """A mean that is large beside the spread."""

    def make(random: Generator) -> tuple:
        x = 100 + random.standard_normal((rows, channels))
        return x, random.standard_normal(channels), random.standard_normal(channels)

    return Case(make)


def _counted(case: Case, *counts: int) -> Case:
    """The case with a mask of this shape as one more argument; at the end of it nothing counts."""

    def make(random: Generator) -> tuple:
        where = random.random(counts) < 0.6
        where[-1] = False
        return *case.make(random), where

    return Case(make, case.static)


def _given(*shape: int, affine: bool = True, **static: float) -> Case:
    def make(random: Generator) -> tuple:
        c = shape[-1]
        return (
            random.standard_normal(shape),
            random.standard_normal((c,)),
            random.uniform(0.5, 2.0, (c,)),
            random.standard_normal((c,)) if affine else None,
            random.standard_normal((c,)) if affine else None,
        )

    return Case(make, static)


def _with_zeros(random: Generator) -> tuple:
    x = random.standard_normal((3, 4))
    x[1] = 0
    return (x,)


LAYER_NORM = {
    "rows": normal_case((5, 6), (6,), (6,)),
    "one row": normal_case((6,), (6,), (6,)),
    "sequence": normal_case((2, 3, 6), (6,), (6,)),
    "plain": normal_case((5, 6), None, None),
    "scale alone": normal_case((5, 6), (6,), None),
    "shift alone": normal_case((5, 6), None, (6,)),
    "eps": normal_case((5, 6), (6,), (6,), eps=0.1),
    "far from 0": _far(3, 8),
    "no rows": normal_case((0, 6), (6,), (6,)),
}
RMS_NORM = {
    "rows": normal_case((5, 6), (6,)),
    "one row": normal_case((6,), (6,)),
    "sequence": normal_case((2, 3, 6), (6,)),
    "plain": normal_case((5, 6), None),
    "eps": normal_case((5, 6), (6,), eps=0.1),
    "no rows": normal_case((0, 6), (6,)),
}
STANDARDIZE = {
    "rows": normal_case((3, 5), None),
    "columns": normal_case((5, 3), None, axis=0),
    "all": normal_case((2, 3, 4), None, axis=(0, 1, 2), eps=0.1),
    "what counts": _counted(normal_case((3, 5)), 3, 5),
    "places that count": _counted(normal_case((2, 3, 4), axis=(0, 1), eps=0.1), 2, 3, 1),
    "no rows": normal_case((0, 5), None),
}
L2_NORMALIZE = {
    "rows": normal_case((3, 5)),
    "columns": normal_case((5, 3), axis=0),
    "all": normal_case((2, 3, 4), axis=(0, 1, 2)),
    "row of zeros": Case(_with_zeros),
    "no rows": normal_case((0, 5)),
}
BATCH_NORM = {
    "rows": normal_case((6, 3), (3,), (3,), None),
    "image": normal_case((2, 3, 3, 4), (4,), (4,), None),
    "plain": normal_case((6, 3), None, None, None),
    "scale alone": normal_case((6, 3), (3,), None, None),
    "shift alone": normal_case((6, 3), None, (3,), None),
    "eps": normal_case((6, 3), (3,), (3,), None, eps=0.1),
    "far from 0": Case(lambda random: (*_far(8, 3).make(random), None)),
    "padded": _counted(normal_case((2, 4, 3), (3,), (3,)), 2, 4, 1),
    "padded far from 0": _counted(_far(8, 3), 8, 1),
    "channels apart": _counted(normal_case((6, 3), (3,), None), 6, 3),
    "nothing counts": _counted(normal_case((6, 3), (3,), (3,)), 1),
    "no rows": normal_case((0, 3), (3,), (3,), None),
}
NORMALIZE = {
    "rows": _given(6, 3),
    "image": _given(2, 3, 3, 4),
    "plain": _given(6, 3, affine=False),
    "eps": _given(6, 3, eps=0.1),
    "one example": _given(3),
    "no rows": _given(0, 3),
}
GROUP_NORM = {
    "image": normal_case((2, 3, 2, 6), (6,), (6,), None, groups=2),
    "rows": normal_case((3, 8), (8,), (8,), None, groups=2),
    "plain": normal_case((2, 3, 4), None, None, None, groups=2, eps=0.1),
    "one group": normal_case((2, 3, 4), (4,), None, None, groups=1),
    "padded": _counted(normal_case((2, 5, 4), (4,), (4,), groups=2), 2, 5, 1),
    "channels apart": _counted(normal_case((2, 3, 4), (4,), None, groups=2), 2, 3, 4),
    "nothing counts": _counted(normal_case((2, 3, 4), (4,), (4,), groups=2), 1),
    "none": normal_case((0, 3, 4), None, (4,), None, groups=2),
}
INSTANCE_NORM = {
    "image": normal_case((2, 3, 2, 4), (4,), (4,), None),
    "line": normal_case((2, 5, 3), (3,), None, None),
    "plain": normal_case((2, 3, 4), None, None, None, eps=0.1),
    "padded": _counted(normal_case((3, 5, 2), (2,), (2,)), 3, 5, 1),
    "places alike": _counted(normal_case((2, 5, 2), None, (2,)), 5, 1),
    "none": normal_case((0, 3, 4), None, (4,), None),
}

LOCAL_RESPONSE_NORM = {
    "image": normal_case((2, 3, 2, 7), alpha=0.3),
    "even size": normal_case((3, 6), size=4, k=1.0, alpha=0.5, beta=0.5),
    "more than all channels": normal_case((2, 3), size=9, alpha=0.5),
    "as published": normal_case((5,)),
    "zeros": Case(_with_zeros, {"alpha": 1.0}),
    "none": normal_case((0, 4)),
}
