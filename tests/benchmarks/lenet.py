"""LeNet: a gradient with the hand-written rules against the one that `jax.grad` derives.

Run it with `python -m tests.benchmarks.lenet`.
"""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.ops.images.conv import conv
from funcnet.ops.images.pool import max_pool
from funcnet.ops.products.linear import dense
from funcnet.types import Array, Key, Params

SHAPES = {
    "conv": (3, 3, 1, 6),
    "conv_1": (3, 3, 6, 16),
    "dense": (576, 120),
    "dense_1": (120, 84),
    "dense_2": (84, 10),
}


def parameters(key: Key) -> Params:
    """Weights and zero biases by layer."""
    keys = jax.random.split(key, len(SHAPES))
    draw = jax.nn.initializers.lecun_normal()
    return {
        name: {"w": draw(k, shape, jnp.float32), "b": jnp.zeros(shape[-1], jnp.float32)}
        for k, (name, shape) in zip(keys, SHAPES.items(), strict=True)
    }


def plain_conv(x: Array, w: Array, b: Array) -> Array:
    """The convolution of `jax.lax`."""
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=dimensions) + b


def plain_pool(x: Array) -> Array:
    """The 2x2 max-pool of `jax.lax`."""
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -np.inf, jax.lax.max, window, window, "VALID")


def plain_dense(x: Array, w: Array, b: Array) -> Array:
    """x w + b."""
    return x @ w + b


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return jnp.where(x > 0, x, jnp.zeros((), x.dtype))


def loss(
    conv: Callable, pool: Callable, dense: Callable
) -> Callable[[Params, Array, Array], Array]:
    """The cross-entropy of LeNet, out of the given ops."""

    def mean_loss(params: Params, images: Array, labels: Array) -> Array:
        x = pool(relu(conv(images, **params["conv"])))
        x = pool(relu(conv(x, **params["conv_1"])))
        x = x.reshape(x.shape[0], -1)
        x = relu(dense(x, **params["dense"]))
        x = relu(dense(x, **params["dense_1"]))
        scores = jax.nn.log_softmax(dense(x, **params["dense_2"]))
        return -jnp.take_along_axis(scores, labels[:, None], 1).mean()

    return mean_loss


def times(runs: int = 40, batch: int = 64) -> tuple[float, float]:
    """Median seconds of a jitted gradient: with funcnet's ops, and plain.

    The two take turns in one process, so that whatever else the machine does hits both.
    """
    key = jax.random.key(0)
    params = parameters(key)
    images = jax.random.normal(key, (batch, 32, 32, 1), jnp.float32)
    labels = jax.random.randint(key, (batch,), 0, 10)
    by_hand = loss(conv, lambda x: max_pool(x, window=2), dense)
    steps = [jax.jit(jax.grad(f)) for f in (by_hand, loss(plain_conv, plain_pool, plain_dense))]
    ours, plain = (jax.block_until_ready(step(params, images, labels)) for step in steps)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), ours, plain)
    spent: tuple[list[float], list[float]] = ([], [])
    for _ in range(runs):
        for step, record in zip(steps, spent, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(step(params, images, labels))
            record.append(time.perf_counter() - start)
    return statistics.median(spent[0]), statistics.median(spent[1])


def ratio() -> float:
    """How many times as fast the gradient is with the hand-written rules."""
    ours, plain = times()
    return plain / ours


def main() -> None:
    """Print both times."""
    ours, plain = times()
    print(f"LeNet gradient, batch 64: funcnet {1e3 * ours:.2f} ms, plain JAX {1e3 * plain:.2f} ms")
    print(f"{plain / ours:.2f} times as fast")


if __name__ == "__main__":
    main()
