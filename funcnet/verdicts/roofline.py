"""How fast this device computes and moves, and how fast a program runs on it."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_ENOUGH = 0.2
"""How many seconds of runs are enough to find the fastest, if there are a few."""


class Peak(NamedTuple):
    """What a device has been seen to do.

    Attributes:
        flops: Floating-point operations a second, in the fastest of some square products.
        bytes: Bytes a second, in the fastest of some negations in place: each read and written.
        dtype: Of the matrices.
        side: Rows of the matrices of that product.
        device: What the device is called.
    """

    flops: float
    bytes: float
    dtype: str
    side: int
    device: str


def fastest(f: Callable[..., Any], *args: Any, least: int = 5) -> float:
    """The seconds of the fastest run of a function, after one that does not count."""
    jax.block_until_ready(f(*args))
    times: list[float] = []
    while len(times) < least or sum(times) < _ENOUGH:
        start = time.perf_counter()
        jax.block_until_ready(f(*args))
        times.append(time.perf_counter() - start)
    return min(times)


@functools.cache
def peak(dtype: str) -> Peak:
    """What JAX's default device does at its best, measured once for each dtype.

    Products of larger and larger square matrices are run until one takes 20 ms; then an array of
    128 MB is negated in place. Both are compiled, and the fastest of at least five runs counts.
    """
    side, best, largest = 256, 0.0, 256
    seconds = 0.0
    while seconds < 0.02 and side < 16384:
        side *= 2
        a = jnp.ones((side, side), dtype)
        seconds = fastest(jax.jit(jnp.matmul), a, a)
        if 2 * side**3 / seconds > best:
            best, largest = 2 * side**3 / seconds, side
    return Peak(best, _bandwidth(), dtype, largest, jax.devices()[0].device_kind)


def _bandwidth() -> float:
    x = jnp.ones(1 << 25, jnp.float32)
    negated = jax.jit(jnp.negative, donate_argnums=0)
    kept = [x]

    def step() -> Any:
        kept[0] = negated(kept[0])
        return kept[0]

    return 2 * 4 * (1 << 25) / fastest(step)
