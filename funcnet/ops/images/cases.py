"""What proves the ops over windows and edges."""

import numpy as np
from numpy.random import Generator

from ...rules.rule import Case, normal_case


def _thin(random: Generator) -> tuple:
    return (
        random.standard_normal((2, 7, 6, 1)),
        random.standard_normal((3, 2, 1, 5)),
        random.standard_normal((5,)),
    )


def _ties(*shape: int, **static: object) -> Case:
    """Small whole numbers, so that most windows hold their maximum more than once."""

    def make(random: Generator) -> tuple:
        return (random.integers(0, 3, shape).astype(float),)

    return Case(make, static)


CONV = {
    "two axes": normal_case((2, 6, 5, 4), (3, 2, 4, 3), (3,)),
    "one axis": normal_case((2, 9, 4), (3, 4, 5), (5,)),
    "three axes": normal_case((2, 4, 3, 5, 4), (2, 2, 3, 4, 3), (3,)),
    "no bias": normal_case((2, 6, 5, 4), (3, 2, 4, 3), None),
    "stride": normal_case((2, 8, 7, 4), (3, 2, 4, 3), (3,), stride=(3, 2)),
    "stride over the kernel": normal_case((2, 9, 8, 4), (2, 1, 4, 3), (3,), stride=3),
    "dilation": normal_case((2, 9, 8, 4), (3, 2, 4, 3), None, dilation=(2, 3), stride=2),
    "same": normal_case((2, 7, 6, 4), (3, 4, 4, 3), None, padding="SAME", stride=2),
    "same lower": normal_case((2, 7, 6, 4), (2, 4, 4, 3), None, padding="SAME_LOWER"),
    "causal": normal_case((2, 7, 4), (3, 4, 3), (3,), padding="CAUSAL", dilation=2),
    "pairs": normal_case((2, 5, 4, 4), (3, 3, 4, 3), None, padding=((0, 4), (5, 1)), stride=2),
    "number": normal_case((2, 5, 4, 4), (2, 2, 4, 3), None, padding=3),
    "groups": normal_case((2, 6, 5, 6), (3, 2, 2, 9), (9,), groups=3, stride=2, padding="SAME"),
    "depthwise": normal_case((2, 6, 5, 4), (3, 3, 1, 8), None, groups=4),
    "pointwise": normal_case((2, 3, 4, 5), (1, 1, 5, 6), (6,)),
    "pointwise stride": normal_case((2, 5, 4, 5), (1, 1, 5, 6), (6,), stride=2),
    "pointwise groups": normal_case((2, 3, 4, 6), (1, 1, 3, 4), None, groups=2),
    "thin": Case(_thin),
    "thin stride": Case(_thin, {"stride": 2, "padding": "SAME", "dilation": 2}),
    "colour": normal_case((2, 5, 6, 3), (3, 3, 3, 4), None, padding=1),
    "no images": normal_case((0, 6, 5, 4), (3, 2, 4, 3), (3,)),
}
CONV_TRANSPOSE = {
    "two axes": normal_case((2, 4, 3, 4), (3, 2, 8, 4), (8,), stride=2),
    "one axis": normal_case((2, 5, 4), (4, 3, 4), (3,), stride=2, padding=1),
    "three axes": normal_case((2, 2, 3, 2, 4), (2, 2, 3, 3, 4), (3,), stride=(2, 1, 1)),
    "no bias": normal_case((2, 4, 3, 4), (3, 3, 3, 4), None, padding=1),
    "stride over the kernel": normal_case((2, 3, 2, 4), (2, 1, 3, 4), (3,), stride=3),
    "output padding": normal_case(
        (2, 3, 4, 4), (3, 3, 7, 4), (7,), stride=2, padding=1, output_padding=1
    ),
    "output padding by axis": normal_case(
        (2, 3, 2, 4), (3, 2, 3, 4), None, stride=(2, 3), output_padding=(0, 2)
    ),
    "dilation": normal_case((2, 4, 3, 4), (3, 2, 3, 4), None, dilation=(2, 3), stride=2),
    "pairs": normal_case((2, 4, 5, 4), (3, 3, 3, 4), (3,), padding=((2, 0), (3, 4)), stride=2),
    "groups": normal_case((2, 3, 4, 6), (3, 2, 2, 6), (6,), groups=3, stride=2, padding=1),
    "depthwise": normal_case((2, 3, 4, 4), (4, 4, 1, 4), None, groups=4, stride=2, padding=1),
    "pointwise": normal_case((2, 3, 4, 5), (1, 1, 6, 5), (6,)),
    "to few channels": normal_case((2, 3, 4, 5), (4, 4, 1, 5), (1,), stride=2, padding=1),
    "no images": normal_case((0, 3, 4, 4), (3, 3, 3, 4), (3,), stride=2),
}

_POOL = {
    "two axes": normal_case((2, 6, 4, 3), window=2),
    "one axis": normal_case((2, 9, 3), window=3),
    "three axes": normal_case((2, 4, 4, 6, 3), window=(2, 2, 3)),
    "a rest": normal_case((2, 7, 5, 3), window=2),
    "overlapping": normal_case((2, 7, 9, 3), window=3, stride=2),
    "gaps": normal_case((2, 8, 9, 3), window=2, stride=3),
    "padding": normal_case((2, 7, 6, 3), window=3, stride=2, padding=((1, 2), (2, 0))),
    "causal": normal_case((2, 7, 3), window=3, stride=1, padding="CAUSAL"),
    "no images": normal_case((0, 6, 4, 3), window=2),
}


def _masked(shape: tuple, mask: tuple, **static: object) -> Case:
    """With booleans of the last shape; nothing counts at the start of the first image."""

    def make(random: Generator) -> tuple:
        where = random.random(mask) < 0.5
        where[:1, :3] = False
        return random.standard_normal(shape), where

    return Case(make, static)


MAX_POOL = _POOL | {
    "same": normal_case((2, 7, 6, 3), window=(3, 2), stride=(2, 1), padding="SAME"),
    "dilation": _ties(1, 7, 6, 2, window=2, stride=(2, 1), dilation=(3, 2), padding=1),
    "ceil mode": _ties(1, 6, 5, 2, window=3, stride=2, padding=((1, 0), (0, 1)), ceil_mode=True),
    "ties": _ties(2, 6, 4, 3, window=2),
    "overlapping ties": _ties(2, 7, 9, 3, window=3, stride=2, padding="SAME"),
}
MAX_POOL_WITH_INDICES = MAX_POOL | {
    "many taps": _ties(1, 9, 8, 2, window=(6, 3), stride=2, padding=1),
    "nothing above padding": Case(
        lambda random: (np.full((1, 3, 2, 1), -np.inf),),
        {"window": 2, "stride": 1, "padding": 1},
    ),
}


def _put(*numbers: int, shape: int | tuple) -> Case:
    """Numbers and their indices, of which some occur more than once."""

    def make(random: Generator) -> tuple:
        return random.standard_normal(numbers), random.integers(0, np.prod(shape), numbers)

    return Case(make, {"shape": shape})


MAX_UNPOOL = {
    "two axes": _put(2, 3, 2, 2, shape=(5, 4)),
    "one axis": _put(2, 4, 3, shape=9),
    "three axes": _put(1, 2, 1, 3, 2, shape=(2, 4, 3)),
    "fewer pixels than numbers": _put(1, 6, 2, shape=4),
    "no images": _put(0, 3, 2, shape=6),
}


def _unmasked(cases: dict[str, Case]) -> dict[str, Case]:
    return {
        name: Case(lambda random, make=case.make: (*make(random), None), case.static)
        for name, case in cases.items()
    }


_MORE_WINDOWS = {
    "dilation": normal_case((1, 7, 6, 2), window=2, stride=(2, 1), dilation=(3, 2), padding=1),
    "ceil mode": normal_case((1, 6, 5, 2), window=3, stride=2, padding=1, ceil_mode=True),
    "ceil mode, padding counted": normal_case(
        (1, 6, 2), window=3, stride=2, padding=1, ceil_mode=True, count_include_pad=True
    ),
    "padding counted": normal_case(
        (2, 7, 6, 3), window=3, stride=2, padding="SAME", count_include_pad=True
    ),
}
AVG_POOL = _unmasked(_POOL | _MORE_WINDOWS) | {
    "mask": _masked((2, 6, 4, 2), (2, 6, 4, 1), window=2),
    "mask, broadcast": _masked((2, 5, 2), (5, 2), window=3, stride=1, padding="SAME"),
}
LP_POOL = _POOL | {
    "sums, of nothing too": _ties(2, 6, 5, 2, window=(3, 2), p=1),
    "lengths of nothing": _ties(2, 6, 6, 2, window=2, stride=1, padding=1),
    "cubes": normal_case((1, 7, 6, 2), window=3, p=3, stride=2, padding="SAME"),
    "broken": normal_case((1, 7, 5, 2), window=2, p=1.5, ceil_mode=True),
    "high": normal_case((1, 7, 6, 2), window=2, p=8, stride=(2, 1), dilation=(3, 2), padding=1),
}
_PLACES = {
    "two axes": normal_case((2, 3, 4, 3), None),
    "one axis": normal_case((2, 5, 3), None),
    "three axes": normal_case((2, 2, 3, 2, 3), None),
    "no images": normal_case((0, 3, 4, 3), None),
}
GLOBAL_AVG_POOL = _PLACES | {
    "mask": _masked((2, 3, 2, 2), (2, 3, 2, 1)),
    "mask, channel by channel": _masked((2, 4, 3), (4, 3)),
}
GLOBAL_MAX_POOL = GLOBAL_AVG_POOL | _unmasked({"ties": _ties(2, 3, 4, 3)})

ADAPTIVE_AVG_POOL = {
    "overlapping bins": normal_case((2, 5, 4, 2), shape=(3, 2)),
    "more bins than pixels": normal_case((1, 3, 2), shape=5),
    "three axes": normal_case((1, 2, 3, 4, 1), shape=(1, 3, 2)),
    "wide bins": normal_case((1, 140, 1), shape=2),
    "no images": normal_case((0, 5, 2), shape=2),
}
ADAPTIVE_MAX_POOL = {
    "overlapping ties": _ties(2, 5, 4, 2, shape=(3, 2)),
    **ADAPTIVE_AVG_POOL,
}

RESIZE = {
    "nearest, larger": normal_case((2, 3, 2, 2), shape=(7, 4), method="nearest"),
    "nearest, smaller": normal_case((1, 5, 4, 2), shape=(3, 2), method="nearest"),
    "nearest-exact, larger": normal_case((1, 3, 2, 2), shape=(7, 4), method="nearest-exact"),
    "nearest-exact, smaller": normal_case((1, 7, 2), shape=3, method="nearest-exact"),
    "bilinear, larger": normal_case((2, 3, 4, 2), shape=(6, 5), method="bilinear"),
    "bilinear, smaller": normal_case((1, 7, 6, 2), shape=(3, 6), method="bilinear"),
    "three axes": normal_case((1, 2, 3, 1, 2), shape=(3, 2, 4), method="bilinear"),
    "cubic": normal_case((1, 5, 4, 2), shape=(3, 7), method="cubic"),
    "cubic, of one pixel": normal_case((1, 1, 2, 2), shape=(3, 1), method="cubic"),
    "antialias": normal_case((1, 7, 3, 2), shape=(3, 5), method="bilinear", antialias=True),
    "antialias, many taps": normal_case((1, 60, 2), shape=2, method="cubic", antialias=True),
    "many readers": normal_case((1, 2, 1), shape=150, method="bilinear"),
    "corners": normal_case((1, 3, 4, 2), shape=(7, 1), method="bilinear", align_corners=True),
    "corners, antialias": normal_case(
        (1, 9, 1), shape=4, method="cubic", align_corners=True, antialias=True
    ),
    "no images": normal_case((0, 3, 2), shape=4, method="bilinear"),
}
PIXEL_SHUFFLE = {
    "image": normal_case((2, 2, 3, 8), factor=2),
    "two factors": normal_case((1, 2, 3, 12), factor=(3, 2)),
    "line": normal_case((2, 3, 4), factor=2),
    "none": normal_case((0, 2, 2, 4), factor=2),
}
PIXEL_UNSHUFFLE = {
    "image": normal_case((2, 4, 6, 2), factor=2),
    "two factors": normal_case((1, 6, 4, 2), factor=(3, 2)),
    "line": normal_case((2, 6, 2), factor=2),
    "none": normal_case((0, 4, 4, 1), factor=2),
}


def _pads(widths: tuple, *shape: int, ending: str = "") -> dict[str, Case]:
    modes = ("constant", "reflect", "edge", "wrap")
    return {f"{mode}{ending}": normal_case(shape, widths=widths, mode=mode) for mode in modes}


PAD = {
    **_pads(((2, 1), (0, 0), (1, 3)), 3, 2, 4),
    **_pads(((-1, 2), (1, -2), (-1, -2)), 3, 4, 4, ending=", cropped"),
    "value": normal_case((3,), widths=((2, 1),), value=-1.5),
    "one number": normal_case((), widths=()),
    "edge, wide": normal_case((2, 1), widths=((5, 0), (0, 4)), mode="edge"),
    "wrap, whole": normal_case((2, 3), widths=((2, 2), (3, 0)), mode="wrap"),
    "none": normal_case((0, 3), widths=((0, 0), (1, 1)), mode="reflect"),
}


def _sampled(image: tuple, points: tuple, **static: object) -> Case:
    """Points of which some lie beyond the image."""

    def make(random: Generator) -> tuple:
        return random.standard_normal(image), random.uniform(-2.5, 2.5, (*points, len(image) - 2))

    return Case(make, static)


GRID_SAMPLE = {
    "bilinear": _sampled((2, 4, 5, 3), (2, 3, 4)),
    **{
        f"{mode}, {padding}{', corners' if corners else ''}": _sampled(
            (1, 3, 4, 2), (1, 3, 3), mode=mode, padding=padding, align_corners=corners
        )
        for mode in ("nearest", "bilinear", "bicubic")
        for padding in ("zeros", "border", "reflection")
        for corners in (False, True)
    },
    "one axis": _sampled((2, 5, 2), (2, 7), mode="bicubic"),
    "three axes": _sampled((1, 3, 2, 4, 2), (1, 2, 3, 2), padding="border"),
    "points in a row": _sampled((1, 4, 3, 2), (1, 5), padding="reflection"),
    "one pixel": _sampled((1, 1, 1, 2), (1, 4), padding="reflection", align_corners=True),
    "no images": _sampled((0, 3, 4, 2), (0, 2, 2)),
    "no points": _sampled((1, 3, 4, 2), (1, 0)),
}
AFFINE_GRID = {
    "two axes": normal_case((2, 2, 3), shape=(3, 4)),
    "one axis": normal_case((2, 1, 2), shape=5, align_corners=True),
    "three axes": normal_case((1, 3, 4), shape=(2, 3, 4)),
    "one pixel": normal_case((1, 2, 3), shape=(1, 3), align_corners=True),
    "no maps": normal_case((0, 2, 3), shape=2),
}
