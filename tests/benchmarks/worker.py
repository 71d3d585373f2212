"""One training step of one library, in a process of its own.

    python -m tests.benchmarks.worker MODEL PEER DTYPE SECONDS [TRUTH]

It prints one line of JSON. With TRUTH, a file of gradients in float64, its own are compared to
them, and the memory of a compiled step is asked for.
"""

import functools
import importlib
import json
import statistics
import sys
import time

import numpy as np

from . import models

PEERS = {
    "plain": ("plain", {}),
    "nnx": ("nnx", {}),
    "equinox": ("equinox", {}),
    "haiku": ("haiku", {}),
    "torch": ("torch", {}),
    "torch.compile": ("torch", {"compiled": True}),
    "funcnet": ("funcnet", {}),
    "funcnet x10": ("funcnet", {"steps_per_call": 10}),
}
"""By name: the module in `peers`, and the options of its `build`."""


def build(peer: str, task: models.Task) -> models.Built:
    """The step of a peer."""
    module, options = PEERS[peer]
    found = importlib.import_module(f".peers.{module}", __package__)
    return functools.partial(found.build, **options)(task)


def truth(model: str, path: str) -> None:
    """Write the gradients of a network in float64."""
    from .peers import plain

    np.savez(path, **plain.reference(models.task(model)))


def times(built: models.Built, seconds: float) -> list[float]:
    """Seconds a step of many short blocks, which take so many seconds together."""

    def taken(count: int) -> float:
        start = time.perf_counter()
        built.run(count)
        return (time.perf_counter() - start) / count

    once = min(taken(built.calls) for _ in range(3)) * built.calls
    count = built.calls * max(1, round(0.02 * seconds / once))
    found, end = [], time.perf_counter() + seconds
    while len(found) < 5 or time.perf_counter() < end:
        found.append(taken(count))
    return found


def measure(model: str, peer: str, dtype: str, seconds: float, path: str | None) -> dict:
    """What is measured of a step.

    Returns:
        `parameters`; `minimum` and `median`, seconds a step; `first`, seconds until the first call
        returns; the `loss` of that; and with a path `apart`, how far the gradients are from those
        in float64, and `temporary`, bytes, or None outside JAX.
    """
    task = models.task(model, dtype)
    built = build(peer, task)
    row: dict = {"model": model, "peer": peer, "dtype": dtype, "parameters": built.parameters}
    start = time.perf_counter()
    row["loss"] = built.run(built.calls)
    row["first"] = time.perf_counter() - start
    built.run(built.calls)
    found = times(built, seconds)
    row |= {"minimum": min(found), "median": statistics.median(found)}
    if path:
        with np.load(path) as known:
            row["apart"] = models.apart(build(peer, task).gradients(), dict(known))
        lowered = built.lowered and built.lowered().compile().memory_analysis()
        row["temporary"] = lowered and lowered.temp_size_in_bytes
    return row


if __name__ == "__main__":
    name, which, *rest = sys.argv[1:]
    if which == "truth":
        truth(name, rest[0])
    else:
        kind, span, *known = rest
        print(json.dumps(measure(name, which, kind, float(span), known[0] if known else None)))
