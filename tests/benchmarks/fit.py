"""`fit` against the bare compiled step that it takes: LeNet, batches of 128 images of 32x32.

    python -m tests.benchmarks fit

The bare step gets one batch that is on the device already; `fit` shuffles, gathers and sends its
own, shows progress, and keeps figures and history. The two take turns, epoch by epoch; an epoch has
50 steps, that of MNIST has 469.
"""

import itertools
import statistics
import time

import jax
import numpy as np
import optax

import funcnet as fn
from funcnet.train.step import outermost

BATCH, STEPS, EPOCHS = 128, 50, 16


def times(steps: int = STEPS, epochs: int = EPOCHS) -> tuple[float, float]:
    """Seconds a step, by `fit` and bare: medians over epochs."""
    random = np.random.default_rng(0)
    x = random.normal(size=(BATCH * steps, 32, 32, 1)).astype(np.float32)
    y = random.integers(0, 10, len(x)).astype(np.int32)
    net, optimizer, metrics = fn.nets.LeNet(10), optax.adam(1e-3), {"accuracy": fn.accuracy}
    step = fn.make_step(net, fn.cross_entropy, optimizer, metrics=metrics)
    update, batch = outermost(step.update), jax.device_put((x[:BATCH], y[:BATCH]))
    state = step.init(jax.random.key(0), x[:BATCH])
    ends, bare = [], []

    def look(row: dict, trained: fn.TrainState) -> None:
        nonlocal state
        jax.block_until_ready(trained)
        start = time.perf_counter()
        for _ in range(steps):
            state, _ = update(state, batch)
        jax.block_until_ready(state)
        bare.append(time.perf_counter() - start)
        ends.append((start, time.perf_counter()))

    fn.fit(
        net, fn.cross_entropy, optimizer, (x, y), epochs=epochs, batch=BATCH, metrics=metrics,
        on_epoch=look,
    )  # fmt: skip
    whole = [end[0] - before[1] for before, end in itertools.pairwise(ends)]
    # The first two compile: the step, and what looks at the state after an epoch.
    ratios = [a / b for a, b in zip(whole[2:], bare[3:], strict=True)]
    plain = statistics.median(bare[3:]) / steps
    return statistics.median(ratios) * plain, plain


def ratio() -> float:
    """Time of a step of `fit` over that of the bare one."""
    ours, plain = times()
    return ours / plain


def main() -> None:
    """Print both times."""
    ours, plain = times()
    print(f"LeNet: fit {ours * 1e3:.2f} ms a step, bare {plain * 1e3:.2f} ms: {ours / plain:.3f}")


if __name__ == "__main__":
    main()
