"""What proves the ops along time."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpy.random import Generator

from ...rules.rule import Case, normal_case


def _drawn(
    gates: int,
    *,
    batch: int = 2,
    time: int = 3,
    states: int = 1,
    biases: tuple[int | None, ...],
    given: bool = True,
    lengths: tuple[int, ...] | None = None,
    mask: Callable[[], Any] | None = None,
    width: int | None = None,
    **static: Any,
) -> Case:
    """A case with 2 features and 3 units; without `given`, biases and states are None.

    Of an op with two states the first has this `width`, if it is given, by a projection.
    """

    def make(random: Generator) -> tuple:
        rows = width or 3
        shapes = [(batch, time, 2), (2, 3 * gates), (rows, 3 * gates)]
        rest = [n and (3 * n,) for n in biases] + [(batch, rows), (batch, 3)][:states]
        draws = [shape and random.standard_normal(shape) for shape in shapes + rest]
        others = draws[3:] if given else [None] * len(rest)
        steps = None if lengths is None else np.array(lengths, np.int32)
        where = None if mask is None else mask()
        projection = [width and random.standard_normal((3, width)) / 2] * (states == 2)
        return *draws[:3], *others, steps, where, *projection

    return Case(make, static)


def _holes() -> Any:
    """Of three sequences of three steps: one with a hole, one that begins late, one of nothing."""
    return np.array([[True, False, True], [False, True, True], [False, False, False]])


def _recurrent(gates: int, biases: tuple[int, ...], states: int = 1) -> dict[str, Case]:
    shared: Any = {"states": states, "biases": biases}
    return {
        "steps": _drawn(gates, **shared),
        "plain": _drawn(gates, given=False, **shared),
        "lengths": _drawn(gates, batch=3, lengths=(3, 0, 2), **shared),
        "reverse, lengths": _drawn(gates, batch=3, lengths=(3, 0, 2), reverse=True, **shared),
        "mask": _drawn(gates, batch=3, mask=_holes, **shared),
        "no steps": _drawn(gates, time=0, **shared),
        "no sequences": _drawn(gates, batch=0, **shared),
    }


def _option(word: str, gates: int, **shared: Any) -> dict[str, Case]:
    """The cases of another form of the op."""
    steps: Any = {"batch": 3, "lengths": (3, 2, 3), "mask": _holes}
    return {
        word: _drawn(gates, **shared),
        f"{word}, plain": _drawn(gates, given=False, **shared),
        f"{word}, lengths, mask": _drawn(gates, **steps, **shared),
        f"{word}, reverse, lengths, mask": _drawn(gates, reverse=True, **steps, **shared),
        f"{word}, no steps": _drawn(gates, time=0, **shared),
    }


ELMAN = _recurrent(1, (1,)) | {"relu": _drawn(1, biases=(1,), activation="relu")}
GRU = _recurrent(3, (3, 1)) | _option("reset before", 3, biases=(3, None), reset_after=False)
LSTM = _recurrent(4, (4,), 2) | _option("projected", 4, biases=(4,), states=2, width=2)


def _attended(
    q: tuple[int, ...] = (2, 4, 2, 3),
    k: tuple[int, ...] = (2, 4, 2, 3),
    v: int | None = None,
    bias: tuple[int, ...] | None = None,
    mask: Callable[[], Any] | None = None,
    offset: int | None = None,
    **static: Any,
) -> Case:
    def make(random: Generator) -> tuple:
        shapes = (q, k, (*k[:3], v or k[3]), bias)
        floats = [None if shape is None else random.standard_normal(shape) for shape in shapes]
        where = None if mask is None else mask()
        bits: Any = random.integers(0, 2**32, 2, np.uint32)
        key = jax.random.wrap_key_data(bits) if static.get("drop") else None
        return *floats[:3], where, floats[3], key, None if offset is None else np.int32(offset)

    return Case(make, static)


def _one_row_of_nothing() -> Any:
    return (np.arange(4)[:, None] != 1) & (np.arange(4) != 2)


ATTENTION = {
    "heads": _attended(),
    "causal, in groups": _attended(k=(2, 4, 1, 3), causal=True),
    "mask, a row of nothing": _attended(mask=_one_row_of_nothing),
    "bias": _attended(bias=(2, 1, 4), scale=0.5),
    "cross": _attended(k=(2, 3, 1, 3), v=2, mask=lambda: np.arange(3) < 2),
    "dropout": _attended(drop=0.3),
    "chunks": _attended(chunk=2, causal=True),
    "chunks, every option": _attended(
        (1, 5, 2, 2),
        (1, 3, 1, 2),
        bias=(1, 2, 5, 3),
        mask=lambda: np.arange(5)[:, None] != 1,
        drop=0.3,
        chunk=2,
    ),
    "window, in chunks": _attended((1, 5, 2, 2), (1, 6, 1, 2), window=(1, 1), chunk=2, offset=1),
    "window, all at once": _attended((1, 2, 1, 2), (1, 6, 1, 2), window=(1, 1), offset=2),
    "window, every option": _attended(
        (1, 5, 2, 2),
        (1, 7, 1, 2),
        bias=(1, 2, 5, 7),
        mask=lambda: np.arange(7) != 3,
        offset=2,
        causal=True,
        window=(2, None),
        softcap=1.5,
        drop=0.3,
        chunk=2,
    ),
    "window before, soft cap": _attended(window=(1, None), softcap=0.5, bias=(2, 1, 4)),
    "no queries": _attended(q=(2, 0, 2, 3)),
    "no keys": _attended(k=(2, 0, 2, 3)),
}


def _weighed(case: Case) -> Case:
    """The same without values and dropout."""

    def make(random: Generator) -> tuple:
        q, k, _, mask, bias, _, offset = case.make(random)
        return q, k, mask, bias, offset

    return Case(make, {n: x for n, x in case.static.items() if n not in ("drop", "chunk")})


ATTENTION_WEIGHTS = {
    name: _weighed(case)
    for name, case in ATTENTION.items()
    if name not in ("dropout", "chunks", "chunks, every option")
}


def _later(random: Generator) -> tuple:
    return random.standard_normal((2, 3, 2, 4)), np.array([[0, 1, 2], [7, 8, 9]]), None, None


def _own_frequencies(random: Generator) -> tuple:
    frequencies = np.array([1.0, 0.25, 0.125])
    return random.standard_normal((2, 3, 1, 7)), np.array([2, 5, 9]), frequencies, None


def _own_angles(random: Generator) -> tuple:
    angles = random.standard_normal((2, 3, 1))
    return random.standard_normal((2, 3, 2, 5)), None, None, angles


ROTARY = {
    "halves": normal_case((2, 3, 2, 4), None, None, None),
    "interleaved": normal_case((2, 3, 1, 6), None, None, None, interleaved=True),
    "positions, base": Case(_later, {"base": 500.0}),
    "part of a head": normal_case((2, 3, 1, 7), None, None, None, interleaved=True, width=4),
    "frequencies": Case(_own_frequencies),
    "angles": Case(_own_angles, {"width": 2}),
    "none": normal_case((2, 0, 2, 4), None, None, None),
}


def _remembered(
    q: tuple[int, ...] = (2, 5, 2, 3),
    k: tuple[int, ...] | None = None,
    v: int = 2,
    mask: Any = None,
    decay: Any = None,
    state: int | None = None,
    **static: Any,
) -> Case:
    """A case of linear attention; `state` is its number of columns."""

    def make(random: Generator) -> tuple:
        keys = k or q
        start = None if state is None else (keys[0], keys[2], keys[3], state)
        floats = [
            None if shape is None else random.standard_normal(shape)
            for shape in (q, keys, (*keys[:3], v), start)
        ]
        if floats[3] is not None and static.get("normalize", True):
            floats[3] = abs(floats[3])
        gamma = None if decay is None else np.array(decay)
        return *floats[:3], None if mask is None else np.array(mask), gamma, floats[3]

    return Case(make, static)


LINEAR_ATTENTION = {
    "causal, in chunks": _remembered(causal=True, chunk=2),
    "causal, every option": _remembered(
        (2, 7, 4, 3),
        (2, 7, 2, 3),
        mask=[[True, True, False, True, True, True, False], [False] * 3 + [True] * 4],
        decay=[0.5, 0.875],
        state=3,
        causal=True,
        chunk=3,
    ),
    "of all": _remembered(mask=[[True, False, True, True, True], [False] * 5]),
    "cross, state": _remembered((2, 2, 4, 3), (2, 5, 2, 3), state=3, feature="elu"),
    "identity, decay, state": _remembered(
        k=(2, 5, 1, 3), decay=[0.25], state=2, causal=True, feature="identity", normalize=False
    ),
    "relu": _remembered(feature="relu", normalize=False),
    "no tokens": _remembered((2, 0, 2, 3), state=3, causal=True),
    "no keys": _remembered((1, 2, 2, 3), (1, 0, 1, 3)),
}


def _scanned(
    batch: int = 2, time: int = 5, *, given: bool = True, chunk: int | None = None
) -> Case:
    """A case with 3 channels of 2 states; without `given`, D and the first state are None."""

    def make(random: Generator) -> tuple:
        x, delta = random.standard_normal((2, batch, time, 3))
        b, c = random.standard_normal((2, batch, time, 2))
        rest = (random.standard_normal(3), random.standard_normal((batch, 3, 2)))
        a = -np.exp(random.standard_normal((3, 2)))
        return x, np.exp(delta - 1), a, b, c, *(rest if given else (None, None))

    return Case(make, {} if chunk is None else {"chunk": chunk})


SELECTIVE_SCAN = {
    "chunks": _scanned(chunk=2),
    "plain": _scanned(given=False),
    "one chunk": _scanned(time=4, chunk=4),
    "steps one by one": _scanned(time=3, chunk=1),
    "no steps": _scanned(time=0),
    "no sequences": _scanned(batch=0),
}
