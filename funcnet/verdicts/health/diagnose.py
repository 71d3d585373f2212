"""From figures to verdicts: what is wrong with a network, where, and what to do about it."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from .chains import Chain, Drift, base, chains, drift
from .limits import DRIFT, LARGE, LOOKS, LOST, SILENT, SMALL, STEPS
from .probe import Figures


class Verdict(NamedTuple):
    """What is wrong.

    Attributes:
        kind: The disease: "vanishing gradient", "dead units".
        layer: Where; "" where it is the whole.
        sentence: What is to be seen, and what helps.
        figure: The figure that is out of its limit.
    """

    kind: str
    layer: str
    sentence: str
    figure: float

    def __str__(self) -> str:
        return f"{self.kind}{f' at {self.layer}' if self.layer else ''}: {self.sentence}"


def diagnose(figures: Figures) -> tuple[Verdict, ...]:
    """All that is wrong according to the figures of a step.

    >>> diagnose({"weights": {"dense": 1.0}, "gradient": {"dense": 0.0}})[0].kind
    'no gradient'
    """
    found = [*_not_finite(figures)]
    if not found:
        found = [verdict for look in _LOOKS for verdict in look(figures)]
    return tuple(found)


def typical(records: Sequence[Figures]) -> Figures:
    """One record for many: what holds in the latter half of them, so that a start is forgotten.

    A unit is silent if it was so each time, a gradient is 0 if it was so each time; of the steps
    the largest of all counts.
    """
    late = len(records) // 2
    ways = {"silent": min, "gradient": max, "nonfinite": max, "looks": sum}
    ways |= {"step": max, "update": max}
    found: Figures = {}
    for kind in dict.fromkeys(kind for record in records for kind in record):
        columns: dict[str, list[float]] = {}
        for record in records[0 if kind in ("step", "update") else late :]:
            for layer, value in record.get(kind, {}).items():
                columns.setdefault(layer, []).append(value)
        way: Callable = ways.get(kind, np.median)
        found[kind] = {layer: float(way(values)) for layer, values in columns.items()}
    return found


def _not_finite(figures: Figures) -> Iterator[Verdict]:
    bad = {layer: part for layer, part in figures.get("nonfinite", {}).items() if part > 0}
    bad |= {m: 1.0 for m, size in figures.get("gradient", {}).items() if not math.isfinite(size)}
    if bad:
        layer = next(iter(bad))
        yield Verdict(
            "not finite",
            layer,
            "some of its numbers or of their adjoints are NaN or infinite"
            f"{_likewise(bad, layer)}: lower the learning rate if training had begun; "
            "fn.explain_nonfinite says where they arise.",
            bad[layer],
        )


def _drifts(figures: Figures) -> Iterator[Verdict]:
    values, adjoints = figures.get("value", {}), figures.get("adjoint", {})
    seen: set[str] = set()
    found = chains(adjoints, figures.get("gradient", {}))
    for chain in sorted(found, key=lambda chain: chain.layers[0].count("/")):
        limit = (STEPS if chain.unit == "step" else DRIFT).value
        group = base(chain.layers[0])
        loop = chain.unit == "step" or chain.layers[0] != group
        if loop and group.partition("/")[0] in seen:
            continue  # what lies in the same loop says the same
        for verdict in _of_chain(chain, values, adjoints, figures.get("element", {}), limit):
            seen.add(group.partition("/")[0])
            yield verdict


def _of_chain(
    chain: Chain,
    values: Mapping[str, float],
    adjoints: Mapping[str, float],
    elements: Mapping[str, float],
    limit: float,
) -> Iterator[Verdict]:
    def beyond(found: Drift | None) -> Drift | None:
        return found if found and max(found.total, 1 / found.total) > limit else None

    grows, shrinks = (beyond(drift(values, chain.layers, sign)) for sign in (1, -1))
    if grows:
        yield _activations("growing", grows, chain.unit, "large")
    if shrinks:
        yield _activations("shrinking", shrinks, chain.unit, "small")
    back = {layer: adjoints[layer] for layer in chain.layers}
    if (found := beyond(drift(back, chain.layers, 1))) and not shrinks:
        yield _vanishing(found, chain, elements)
    if (found := beyond(drift(back, chain.layers, -1))) and not grows:
        yield Verdict(
            "exploding gradient",
            found.start,
            f"the gradient grows {1 / found.rate:.3g}x a {chain.unit} on its way back from "
            f"{found.end} to {found.start}, {1 / found.total:.2g}x in all: draw smaller weights, "
            "add residual connections or normalisation; clipping keeps the steps short.",
            1 / found.rate,
        )


def _activations(word: str, found: Drift, unit: str, size: str) -> Verdict:
    rate = found.rate
    return Verdict(
        f"{word} activations",
        found.end,
        f"values are multiplied by {rate:.3g} a {unit} from {found.start} to {found.end}, by "
        f"{found.total:.2g} in all: the weights are drawn too {size}. Draw them with variance "
        "2/fan_in before a rectifier and 1/fan_in else, or normalise.",
        rate,
    )


def _vanishing(found: Drift, chain: Chain, elements: Mapping[str, float]) -> Verdict:
    back = chain.layers[: chain.layers.index(found.end)][::-1]
    least = float(np.finfo(np.float16).smallest_subnormal)
    gone = next((layer for layer in back if elements.get(layer, 1.0) < least / 2), None)
    lost = f" and is lost in float16 at {gone}" if gone else ""
    helps = (
        "use a gated cell (LSTM, GRU) or orthogonal weights, or shorten the loop"
        if chain.unit == "step"
        else "add residual connections or normalisation, or take rectifiers for sigmoids"
    )
    return Verdict(
        "vanishing gradient",
        found.start,
        f"the gradient shrinks {1 / _safe(found.rate):.2g}x a {chain.unit} on its way back from "
        f"{found.end} to {found.start}, to {1 / _safe(found.total):.1e} of what it was,{lost}: "
        f"{helps}.".replace(f",{lost}:", f"{lost}:" if lost else ":"),
        1 / _safe(found.rate),
    )


def _safe(x: float) -> float:
    return max(x, 1e-300)


def _silent(figures: Figures) -> Iterator[Verdict]:
    silent, looks = figures.get("silent", {}), figures.get("looks", {})
    before, last, dead = 0.0, "", {}
    for layer, part in silent.items():
        inside = layer.startswith(f"{last}/") and part == before
        if inside:
            dead.pop(last, None)
        # What follows a dead unit, such as a pool, shows it again.
        fresh = inside or part > before + 0.01
        if fresh and part > SILENT.value and looks.get(layer, 0) >= LOOKS.value:
            dead[layer] = part
        before, last = part, layer
    if dead:
        worst = max(dead, key=lambda layer: dead[layer])
        yield Verdict(
            "dead units",
            worst,
            f"{_percent(dead[worst])} of its units are 0 for all examples that were looked at, so "
            f"that the weights before them get no gradient{_likewise(dead, worst)}: raise their "
            "biases, lower the learning rate, draw the weights anew, or take leaky_relu or gelu.",
            dead[worst],
        )


def _likewise(layers: Iterable[str], named: str) -> str:
    """ ", likewise at a, b and 3 more", or nothing."""
    others = [layer for layer in layers if layer != named]
    rest = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return f", likewise at {', '.join(others[:3])}{rest}" if others else ""


def _underflow(figures: Figures) -> Iterator[Verdict]:
    tiny, elements = figures.get("tiny", {}), figures.get("element", {})
    back = list(tiny)[::-1]
    for i, layer in enumerate(back):
        size = elements[layer]
        if size < tiny[layer] and (size > 0 or (i and elements[back[i - 1]] > 0)):
            gone = next((other for other in back[i:] if elements[other] == 0), None)
            lost = f", and all are 0 from {gone} back" if gone else ""
            yield Verdict(
                "underflow",
                layer,
                f"the adjoints there are of size {size:.1e} and its dtype has normal numbers from "
                f"{tiny[layer]:.1e} on{lost}: multiply the loss, 1024-fold say, and divide the "
                "gradients by as much, or compute in bfloat16.",
                size,
            )
            return


def _no_gradient(figures: Figures) -> Iterator[Verdict]:
    gradient = figures.get("gradient", {})
    whole = dict.fromkeys(prefix for module in gradient for prefix in _ancestors(module))
    live = {p for module, size in gradient.items() if size > 0 for p in _ancestors(module)}
    dead = [path for path in whole if path not in live]
    outermost = [path for path in dead if not any(p in dead for p in _ancestors(path)[:-1])]
    if outermost:
        yield Verdict(
            "no gradient",
            outermost[0],
            "the gradient of all its parameters is exactly 0"
            f"{_likewise(outermost, outermost[0])}: it stands behind a stop_gradient, dead units "
            "or a product with 0, or the loss does not depend on it. fn.explain_zero "
            "says which.",
            0.0,
        )


def _ancestors(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def _steps(figures: Figures) -> Iterator[Verdict]:
    update, weights = figures.get("update", {}), figures.get("weights", {})
    ratio = figures.get("step", {}).get("all", 0.0)
    moving = {m: part for m, part in update.items() if part > 0 and weights.get(m, 0) > 0}
    if ratio > LARGE.value:
        worst = max(moving, key=lambda m: moving[m])
        over = 10 ** math.ceil(math.log10(ratio / 1e-2))
        yield Verdict(
            "step too large",
            worst,
            f"a step changes all weights by {_percent(ratio)} of their size and those here by "
            f"{_percent(moving[worst])}, where 0.1% is usual: divide the learning rate by {over} "
            "or so, or warm it up.",
            ratio,
        )
    if 0 < ratio < SMALL.value:
        yield Verdict(
            "step too small",
            "",
            f"a step changes the weights by {ratio:.1e} of their size, where 1e-3 is usual: raise "
            "the learning rate.",
            ratio,
        )
    lost = {m: part for m, part in figures.get("lost", {}).items() if part > LOST.value}
    if lost:
        worst = max(lost, key=lambda m: lost[m])
        yield Verdict(
            "update lost",
            worst,
            f"{_percent(lost[worst])} of its updates are below half of the weights' spacing and "
            f"rounded away{_likewise(lost, worst)}: keep the weights in float32.",
            lost[worst],
        )


def _percent(part: float) -> str:
    return f"{100 * part:.3g}%"


_LOOKS = (_drifts, _silent, _underflow, _no_gradient, _steps)
