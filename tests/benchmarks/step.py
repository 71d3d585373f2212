"""A training step of funcnet against the same step written by hand in plain JAX.

    python -m tests.benchmarks.step

The network is small, ten dense layers of width 16, so that what is measured is the overhead: the
cost of a call, not that of its arithmetic.
"""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

import funcnet as fn

WIDTHS = (16,) * 9 + (1,)
LAYERS = ["dense", *(f"dense_{i}" for i in range(1, len(WIDTHS)))]
BATCH = 32
OPTIMIZERS = {"sgd": lambda: optax.sgd(1e-3), "adam": lambda: optax.adam(1e-3)}
BLOCKS, STEPS = 300, 10


def plain_step(optimizer: optax.GradientTransformation) -> Callable:
    """The step as one writes it without a library."""

    def loss(params: dict, x: jax.Array, y: jax.Array) -> jax.Array:
        for name in LAYERS[:-1]:
            x = jax.nn.relu(x @ params[name]["w"] + params[name]["b"])
        x = x @ params[LAYERS[-1]]["w"] + params[LAYERS[-1]]["b"]
        return jnp.mean((x - y) ** 2)

    def step(params: dict, opt_state: tuple, x: jax.Array, y: jax.Array) -> tuple:
        value, grads = jax.value_and_grad(loss)(params, x, y)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    return jax.jit(step, donate_argnums=(0, 1))


def batch() -> tuple[jax.Array, jax.Array]:
    x = jax.random.normal(jax.random.key(1), (BATCH, 16))
    return x, jnp.sin(x.sum(axis=1, keepdims=True))


def runners(optimizer: optax.GradientTransformation) -> tuple[Callable, Callable]:
    """Two functions, ours and the plain one: each takes n steps and gives the last loss."""
    x, y = batch()
    step = fn.make_step(fn.nets.MLP(WIDTHS), fn.squared_error, optimizer)
    train = step.init(jax.random.key(0), x)
    params = jax.tree.map(jnp.copy, train.params)
    opt_state, plain = optimizer.init(params), plain_step(optimizer)

    def ours(n: int) -> jax.Array:
        nonlocal train
        values = {}
        for _ in range(n):
            train, values = step.update(train, (x, y))
        return jax.block_until_ready((train, values["loss"]))[1]

    def theirs(n: int) -> jax.Array:
        nonlocal params, opt_state
        value = None
        for _ in range(n):
            params, opt_state, value = plain(params, opt_state, x, y)
        return jax.block_until_ready((params, opt_state, value))[2]

    return ours, theirs


def seconds(run: Callable) -> float:
    start = time.perf_counter()
    run(STEPS)
    return (time.perf_counter() - start) / STEPS


def times(optimizer: optax.GradientTransformation) -> tuple[float, float]:
    """Seconds a step, ours and plain: medians of many short blocks, taken in turns.

    A slow moment of the machine falls on both alike, and the median leaves it out.
    """
    ours, theirs = runners(optimizer)
    ours(1)
    theirs(1)
    taken = {ours: [], theirs: []}
    for block in range(BLOCKS):
        for run in (ours, theirs) if block % 2 else (theirs, ours):
            taken[run].append(seconds(run))
    return statistics.median(taken[ours]), statistics.median(taken[theirs])


def ratio(optimizer: str = "sgd") -> float:
    """Time of our step over that of the plain one; the fewer arrays, the more overhead shows."""
    ours, theirs = times(OPTIMIZERS[optimizer]())
    return ours / theirs


def main() -> None:
    for name, make in OPTIMIZERS.items():
        ours, theirs = times(make())
        print(f"{name}: {ours * 1e6:.1f} us, plain {theirs * 1e6:.1f} us: {ours / theirs:.3f}")


if __name__ == "__main__":
    main()
