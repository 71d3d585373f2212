"""Traps that people reported, each with the line of the culprit, that of the mask, and arguments.

A comment marks the lines: `# culprit`, `# mask`, or both. What stands in the issue is written in
`jax.numpy`, with its own numbers where it gives them.
"""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Trap(NamedTuple):
    """A function with a trap: where it was reported, and what it is called with."""

    source: str
    f: Callable
    args: tuple

    def lines(self, mark: str) -> set[int]:
        """The lines of its file that bear a mark."""
        text, first = inspect.getsourcelines(self.f)
        return {first + i for i, line in enumerate(text) if mark in line.partition("#")[2]}


TRAPS: list[Trap] = []


def trap(source, *args):
    def add(f):
        TRAPS.append(Trap(source, f, tuple(map(jnp.asarray, args))))
        return f

    return add


@trap("jax #347", [[1.0, 2], [3, 4], [0, 0]])
def length_where(x):
    x = jnp.sqrt(jnp.sum(x**2, axis=1))  # culprit
    ones = jnp.ones_like(x)
    x = jnp.where(x > 0.5, x, ones)  # mask
    return jnp.sum(x)


@trap("jax #1052", [3.0, 0, -5])
def angle_where(a):
    b = jnp.arctan2(a, a)  # culprit
    temp = jnp.array([0.0, 1, 0])
    c = jnp.where(temp > 0.5, 0.0, b)  # mask
    return jnp.sum(c)


@trap("jax #12952", 0.5, [2.0, 0.5, 3])
def truncated_with_nan(b, x):
    kept = jnp.where(x > 1, x, jnp.nan)
    return jnp.nansum(jnp.log1p(b * kept))  # culprit mask


@trap("HIPS/autograd #802", 1.0)
def other_side(x):
    return jnp.where(x >= 0, x, jnp.sqrt(-x))  # culprit mask


@trap("tensorflow #38467", [-1.0, 2, 4])
def root_where(y):
    return jnp.sum(jnp.where(y > 0, jnp.sqrt(y), y))  # culprit mask


@trap("caustics #83", [0.5, 1.0, 2.0])
def profile(x):
    inner = jnp.arctanh(jnp.sqrt((1 - x) / (1 + x))) / jnp.sqrt(1 - x**2)  # culprit
    outer = jnp.arctan(jnp.sqrt((x - 1) / (1 + x))) / jnp.sqrt(x**2 - 1)  # culprit
    return jnp.sum(jnp.where(x < 1, inner, jnp.where(x > 1, outer, 0.5)))  # mask


@trap("jax #2630", [1.0, -1.0])
def root_or_nothing(x):
    return jnp.sum(jnp.where(x <= 0, 0.0, jnp.sqrt(x)))  # culprit mask


@trap("jax #3407", [[1.0, 2, 3], [0.2, 4, 6]])
def energy(x):
    ri = jnp.expand_dims(x, 0)
    rj = jnp.expand_dims(x, 1)
    dxdydz = jnp.power(ri - rj, 2)
    dij = jnp.sqrt(jnp.sum(dxdydz, axis=-1))  # culprit
    keep_mask = 1 - jnp.eye(x.shape[0])
    dij = jnp.where(keep_mask, dij, jnp.zeros_like(dij))  # mask
    eij = jnp.where(keep_mask, 1 / dij, jnp.zeros_like(dij))  # well: dij has no gradient there
    return jnp.sum(eij)


@trap("jax #1538", [100.0, -1.0])
def elu(x):
    return jnp.sum(jnp.where(x > 0, x, jnp.expm1(x)))  # culprit mask


@trap("jax #23649", [10.0, 0.3])
def clipped_angle(y):
    return jnp.sum(jnp.arccos(jnp.clip(y, -1, 1)))  # culprit


@trap("jax #4177", [0.0, 0.0])
def squared_norm(x):
    return jnp.linalg.norm(x) ** 2  # culprit


@trap("jax #26248", 1.3, [0.0, 0.0])
def scaled_norm(a, x):
    return jnp.linalg.norm(a * x)  # culprit


@trap("jax #777", [-200.0, -66.6, 0.0])
def by_hand(x):
    return jnp.sum(1 / (1 + jnp.exp(-x)))  # culprit


@trap("tensorflow #20355", 1.0)
def transfer(x):
    return jnp.where(x < 0, 1.0 / (1.0 - x), jnp.log(x + 1))  # culprit mask


@trap("tensorflow #27684", 1.0, [0.5, -0.7, 2.0])
def scaled_log(alpha, x):
    s = jnp.where(x >= 0, alpha * jnp.log(x), jnp.zeros_like(x))  # culprit mask
    return jnp.sum(s)


@trap("pytorch #16317", [0.0, 1.0], [0.0, 2.0])
def mean_of_each(x, n):
    y = x / n  # culprit
    y = jnp.where(n == 0, jnp.zeros_like(y), y)  # mask
    return jnp.sum(y)


@trap("pytorch #68425", 100.0)
def exp_or_line(a):
    return jnp.where(a <= 0, jnp.exp(a), 1 + a)  # culprit mask


@trap("pytorch #108618", [0.0, 2.0, 3.0])
def log2_where(x1):
    return jnp.sum(jnp.where(x1 > 2, jnp.log2(x1), 2 * x1))  # culprit mask


@trap("nanograv/discovery #91", [-4115.0, 10.0], 1.5)
def dip(dt, log10_tau):
    return jnp.sum(jnp.where(dt > 0, jnp.exp(-dt / 10**log10_tau), 0.0))  # culprit mask


@trap("bgflow #53", [0.0, 2.0])
def norm_at_least(x):
    x = x[:1]
    return jnp.sum(x / jnp.maximum(jnp.sqrt(jnp.sum(x**2)), 1e-6))  # culprit


@trap("Theano #3162", [[200.0, 0.0], [0.0, 0.0]])
def log_of_softmax(x):
    p = jax.nn.softmax(x)
    return -jnp.mean(jnp.log(p)[:, 1])  # culprit


@trap("log of a sigmoid", [0.5], [[200.0], [-1.0]])
def coin(w, x):
    p = jax.nn.sigmoid(x @ w)
    return -jnp.mean(jnp.log(1 - p))  # culprit
