"""Layers that follow one another, and how a figure drifts along them."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from .limits import LAYERS, SHARE


class Drift(NamedTuple):
    """How a figure changes along a chain, from `start` to `end` in the order of the program.

    Attributes:
        start: The layer where the stretch begins.
        end: The layer where it ends.
        total: The figure at `end` over that at `start`.
        rate: What it is multiplied by from a layer to the next.
    """

    start: str
    end: str
    total: float
    rate: float


class Chain(NamedTuple):
    """Layers inside one, or iterations of a loop, in the order of the program.

    Attributes:
        layers: Their names.
        unit: What one of them is called: "layer" or "step".
    """

    layers: tuple[str, ...]
    unit: str


_CALL = re.compile(r"#\d+$")
_TURN = re.compile(r"\[(step )?(\d+)\]$")


def base(layer: str) -> str:
    """A layer's path without the number of a call or an iteration.

    >>> base("block/dense#2"), base("blocks[3]")
    ('block/dense', 'blocks')
    """
    return _CALL.sub("", _TURN.sub("", layer))


def chains(layers: Iterable[str], modules: Iterable[str]) -> list[Chain]:
    """The chains among some layers: what lies inside one layer, and the turns of a loop.

    Where layers with parameters follow one another, those without (an activation, a pool) do not
    count.

    >>> chains(["a", "relu", "b", "b/x", "loop[0]", "loop[1]"], ["a", "b"])[0].layers
    ('a', 'b')
    """
    owners = {prefix for module in modules for prefix in _prefixes(module)}
    inside: dict[tuple[str, str], list[str]] = {}
    for layer in layers:
        turn = _TURN.search(layer)
        parent = layer.rpartition("/")[0] if turn is None else _TURN.sub("", layer)
        unit = "step" if turn and turn[1] else "layer"
        inside.setdefault((parent, unit), []).append(layer)
    found = []
    for (_, unit), own in inside.items():
        holding = [layer for layer in own if base(layer) in owners]
        found.append(Chain(tuple(holding if len(holding) > 1 else own), unit))
    return found


def _prefixes(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def position(layer: str) -> int | None:
    """The iteration of a layer that stands in a loop."""
    turn = _TURN.search(layer)
    return None if turn is None else int(turn[2])


def drift(figure: Mapping[str, float], layers: Sequence[str], sign: int) -> Drift | None:
    """The longest way that a figure goes up (`sign` 1) or down (-1) along some layers.

    None if there is none, if too few layers share it, or one has too large a share.

    >>> drift({f"l{i}": 0.5**i for i in range(6)}, [f"l{i}" for i in range(6)], -1).rate
    0.5
    """
    known = [layer for layer in layers if 0 < figure.get(layer, 0) < math.inf]
    logs = [math.log(figure[layer]) for layer in known]
    pairs = [(i, j) for j in range(len(logs)) for i in range(j + 1 - int(LAYERS.value))]
    if not pairs:
        return None
    i, j = max(pairs, key=lambda pair: sign * (logs[pair[1]] - logs[pair[0]]))
    total = logs[j] - logs[i]
    largest = max(sign * (b - a) for a, b in zip(logs[i:j], logs[i + 1 : j + 1], strict=True))
    if sign * total <= 0 or largest > SHARE.value * abs(total):
        return None
    turns = position(known[i]), position(known[j])
    length = j - i if turns[0] is None or turns[1] is None else turns[1] - turns[0]
    return Drift(known[i], known[j], math.exp(total), math.exp(total / length))
