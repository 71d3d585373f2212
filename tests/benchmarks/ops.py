"""Each op with its hand-written rule against `jax.grad` of the plain form: time and memory.

    python -m tests.benchmarks ops             every row
    python -m tests.benchmarks ops attention   those whose name contains the word

Both sides run forward and backward in one compiled call on the same arrays, in turns, in one
process; rows named "value of" run nothing but the op. Memory is what XLA sets aside beside
arguments and results. `x12` is a stack of twelve layers, where it counts what each layer keeps
until its backward pass.
"""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import funcnet as fn
from funcnet.train.step import CPU_OPTIONS

Gradient = Callable[..., Any]


class Row(NamedTuple):
    """One comparison.

    Attributes:
        name: The op and its sizes.
        ours: The function with hand-written rules.
        plain: The same function of the same arguments, as JAX differentiates it.
        args: The arrays; floating ones are differentiated.
        faster: How many times as fast it is to be, or None.
        smaller: By how many times its memory is to be smaller, or None.
        value: Whether to compare the value alone, with nothing differentiated.
    """

    name: str
    ours: Callable
    plain: Callable
    args: tuple
    faster: float | None = None
    smaller: float | None = None
    value: bool = False


def normal(*shape: int, scale: float = 1.0, seed: int = 0) -> jax.Array:
    """Standard normal numbers times `scale`."""
    draws = np.random.default_rng((seed, *shape)).normal(size=shape)
    return jnp.asarray(scale * draws, jnp.float32)


def primal(op: Any, **static: Any) -> Callable:
    """The plain definition of an op."""
    return lambda *args, **rest: op.rule.primal(*args, **static, **rest)


def layer_norm(x: jax.Array, scale: jax.Array, shift: jax.Array) -> jax.Array:
    """As a model defines it who has only `jnp`."""
    mean = x.mean(-1, keepdims=True)
    var = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(var + 1e-5) * scale + shift


def dropout(x: jax.Array) -> jax.Array:
    """With a mask from `jax.random`, as Flax and Equinox do it."""
    keep = jax.random.bernoulli(jax.random.key(0), 0.9, x.shape)
    return jnp.where(keep, x / 0.9, 0)


def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Causal, as a model defines it."""
    scores = jnp.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
    causal = jnp.tril(jnp.ones((q.shape[1], k.shape[1]), bool))
    weights = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf), axis=-1)
    return jnp.einsum("bhts,bshd->bthd", weights, v)


def linear_cross_entropy(x: jax.Array, w: jax.Array, labels: jax.Array) -> jax.Array:
    """The logits of all tokens, and the loss that optax makes of them."""
    return optax.softmax_cross_entropy_with_integer_labels(x @ w, labels).mean()


def speech(op: Callable) -> Callable:
    """A loss of 16 sequences of up to 200 frames and 30 labels, both of several lengths."""
    random = np.random.default_rng(0)
    labels = jnp.asarray(random.integers(1, 64, (16, 30)))
    frames, counts = (jnp.asarray(random.integers(n // 2, n + 1, 16)) for n in (200, 30))
    return lambda logits: op(logits, frames, labels, counts)


def ctc_loss(logits: jax.Array, frames: jax.Array, labels: jax.Array, counts: jax.Array):
    """As optax defines it."""
    beyond = jnp.arange(logits.shape[1]) >= frames[:, None], jnp.arange(30) >= counts[:, None]
    paddings = [mask.astype(logits.dtype) for mask in beyond]
    return optax.ctc_loss(logits, paddings[0], labels, paddings[1]).mean()


def put_back(x: jax.Array) -> jax.Array:
    """The largest of each 2 x 2 window where it was, among zeros."""
    n, height, width, channels = x.shape
    tiles = x.reshape(n, height // 2, 2, width // 2, 2, channels).swapaxes(2, 3)
    seen = tiles.reshape(n, height // 2, width // 2, 4, channels)
    first = jnp.argmax(seen, 3, keepdims=True)
    places = jnp.ogrid[:n, : height // 2, : width // 2, :1, :channels]
    back = (
        jnp.zeros_like(seen)
        .at[*places[:3], first, places[4]]
        .set(jnp.take_along_axis(seen, first, 3))
    )
    return back.reshape(tiles.shape).swapaxes(2, 3).reshape(x.shape)


def map_coordinates(x: jax.Array, grid: jax.Array) -> jax.Array:
    """Lines between pixels as `jax.scipy` has them, with zeros beyond."""

    def one(pixels: jax.Array, points: jax.Array) -> jax.Array:
        places = [(points[..., 1 - i] + 1) / 2 * (n - 1) for i, n in enumerate(pixels.shape)]
        return jax.scipy.ndimage.map_coordinates(pixels, places, 1)

    return jax.vmap(jax.vmap(one, (-1, None), -1))(x, grid)


def recurrence(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Causal linear attention, token by token."""

    def step(carry: tuple, part: tuple) -> tuple[tuple, jax.Array]:
        (state, total), (q, k, v) = carry, part
        state, total = state + k[..., None] * v[..., None, :], total + k
        weighted = jnp.einsum("bhd,bhde->bhe", q, state)
        return (state, total), weighted / (q * total).sum(-1, keepdims=True)

    steps = tuple(x.swapaxes(0, 1) for x in (jax.nn.elu(q) + 1, jax.nn.elu(k) + 1, v))
    zero = jnp.zeros_like(steps[1][0])
    start = zero[..., None] * jnp.zeros_like(steps[2][0])[..., None, :], zero
    return jax.lax.scan(step, start, steps)[1].swapaxes(0, 1)


def stack(layer: Callable, depth: int = 12) -> Callable:
    """`layer` again and again, each after a dense layer of its own."""

    def stacked(x: jax.Array, weights: jax.Array, *rest: jax.Array) -> jax.Array:
        for w in weights[:depth]:
            x = layer(x @ w, *rest)
        return x

    return stacked


def attend(op: Callable, layers: int) -> Callable:
    """Layers of causal self-attention, each with its own projection."""

    def attended(x: jax.Array, weights: jax.Array) -> jax.Array:
        for w in weights[:layers]:
            q, k, v = jnp.split(x @ w, 3, axis=-1)
            heads = [part.reshape(*part.shape[:2], 4, -1) for part in (q, k, v)]
            x = x + op(*heads).reshape(x.shape)
        return x

    return attended


def rows() -> list[Row]:
    """The table."""
    x, images = normal(8192, 512), normal(32, 64, 64, 32)
    weights = normal(12, 256, 256, scale=0.06)
    unit = (jnp.ones(512), jnp.zeros(512))
    narrow = (normal(2048, 256), weights, jnp.ones(256), jnp.zeros(256))
    pool, window = fn.max_pool, {"window": 2}
    key = jax.random.key(0)

    def conv_row(
        name: str, images: jax.Array, kernel: tuple, goal: float | None, **static: Any
    ) -> Row:
        op = lambda x, w: fn.conv(x, w, None, **static)  # noqa: E731
        plain = lambda x, w: fn.conv.rule.primal(x, w, None, **static)  # noqa: E731
        return Row(name, op, plain, (images, normal(*kernel, scale=0.1)), goal)

    def transposed(op: Callable) -> Callable:
        return lambda x, w: op(x, w, None, stride=2, padding=1, output_padding=1)

    def head(op: Callable) -> Callable:
        return lambda x, w: op(x, w, labels)

    def recurrent(op: Callable) -> Callable:
        return lambda x, w_in, w_hidden, b: op(x, w_in, w_hidden, b, None, None)

    def projected(op: Callable) -> Callable:
        return lambda x, w_in, w_hidden, b, w_proj: op(x, w_in, w_hidden, b, w_proj=w_proj)

    def reset(op: Callable, *, after: bool) -> Callable:
        return lambda x, w_in, w_hidden, b: op(x, w_in, w_hidden, b, reset_after=after)

    labels = jnp.arange(4096) * 7 % 32000
    gates = (
        normal(32, 128, 128),
        normal(128, 1024, scale=0.09),
        normal(256, 1024, scale=0.06),
        jnp.zeros(1024),
    )
    three = (gates[0], gates[1][:, :768], gates[2][:, :768], gates[3][:768])
    narrow_gates = (*gates[:2], gates[2][:128], gates[3], normal(256, 128, scale=0.06))
    sequence = (normal(1, 1024, 128), normal(4, 128, 384, scale=0.09))
    return [
        Row("layer_norm 8192x512", fn.layer_norm, layer_norm, (x, *unit), 2.5),
        Row("layer_norm x12", stack(fn.layer_norm), stack(layer_norm), narrow),
        Row("gelu x12", stack(fn.gelu_tanh), stack(primal(fn.gelu_tanh)), narrow[:2]),
        Row("silu x12", stack(fn.silu), stack(primal(fn.silu)), narrow[:2]),
        Row("dense 16x256x256, 1024", fn.dense, primal(fn.dense),
            (normal(16, 256, 256), normal(256, 1024), jnp.zeros(1024))),
        Row("max_pool 2x2", lambda x: pool(x, **window), primal(pool, **window), (images,), 8),
        Row("max_pool 3x3 stride 2", lambda x: pool(x, window=3, stride=2),
            primal(pool, window=3, stride=2), (images,)),
        Row("avg_pool 2x2", lambda x: fn.avg_pool(x, window=2), primal(fn.avg_pool, window=2),
            (images,)),
        Row("max_unpool of max_pool_with_indices 2x2", lambda x: fn.max_unpool(
            *fn.max_pool_with_indices(x, window=2), shape=64), put_back, (images,)),
        Row("lp_pool 3x3 stride 2", lambda x: fn.lp_pool(x, window=3, stride=2),
            primal(fn.lp_pool, window=3, stride=2), (images,)),
        Row("lp_pool 3x3 stride 2 p=3", lambda x: fn.lp_pool(x, window=3, stride=2, p=3),
            primal(fn.lp_pool, window=3, stride=2, p=3), (images,)),
        Row("grid_sample bilinear", lambda x, grid: fn.grid_sample(x, grid, align_corners=True),
            map_coordinates, (images, normal(32, 64, 64, 2, scale=0.5))),
        conv_row("conv depthwise 3x3", images, (3, 3, 1, 32), 20, groups=32, padding="SAME"),
        conv_row("conv depthwise 3x3 stride 2", images, (3, 3, 1, 32), 20, groups=32,
            padding="SAME", stride=2),
        conv_row("conv depthwise 7x7", images, (7, 7, 1, 32), 20, groups=32, padding="SAME"),
        conv_row("conv 1x1", images, (1, 1, 32, 64), 3),
        conv_row("conv 3x3 of 3 channels", images[..., :3], (3, 3, 3, 32), 1, padding="SAME"),
        Row("conv_transpose 3x3 stride 2", transposed(fn.conv_transpose),
            transposed(fn.conv_transpose.rule.primal),
            (normal(16, 32, 32, 64), normal(3, 3, 32, 64, scale=0.05)), 3),
        Row("dropout 4M", lambda x: fn.dropout(x, key, drop=0.1), dropout, (x,), 10),
        Row("dropout x12", stack(lambda x: fn.dropout(x, key, drop=0.1)), stack(dropout),
            narrow[:2]),
        Row("linear_cross_entropy 4096x256x32000", head(fn.linear_cross_entropy),
            head(linear_cross_entropy),
            (normal(4096, 256), normal(256, 32000, scale=0.05)), 1, 8),
        Row("ctc_loss T=200 B=16 of 64 classes", speech(fn.ctc_loss), speech(ctc_loss),
            (normal(16, 200, 64),)),
        Row("attention T=1024, 4 layers", attend(lambda q, k, v: fn.attention(
            q, k, v, causal=True, chunk=64), 4), attend(attention, 4), sequence, 1, 6),
        Row("linear_attention T=4096",
            lambda q, k, v: fn.linear_attention(q, k, v, causal=True)[0], recurrence,
            tuple(normal(1, 4096, 4, 64, seed=i) for i in range(3))),
        Row("selective_scan T=2048", lambda *args: fn.selective_scan(*args)[0],
            lambda *args: fn.selective_scan.rule.primal(*args)[0],
            (normal(2, 2048, 256), jnp.exp(normal(2, 2048, 256, seed=1) - 3),
             -jnp.exp(normal(256, 16)), normal(2, 2048, 16), normal(2, 2048, 16, seed=1))),
        Row("lstm T=128 B=32 D=128 H=256", recurrent(fn.lstm), recurrent(fn.lstm.rule.primal),
            gates, 1.5),
        Row("lstm projected to 128", projected(fn.lstm),
            projected(primal(fn.lstm)), narrow_gates),
        Row("gru T=128 B=32 D=128 H=256", reset(fn.gru, after=True),
            reset(primal(fn.gru), after=True), three),
        Row("gru reset before", reset(fn.gru, after=False), reset(primal(fn.gru), after=False),
            three),
        Row("value of layer_norm", fn.layer_norm, layer_norm, (x, *unit), value=True),
        conv_row("value of conv depthwise 3x3", images, (3, 3, 1, 32), None, groups=32,
            padding="SAME")._replace(value=True),
        conv_row("value of conv 3x3 of 3 channels", images[..., :3], (3, 3, 3, 32), None,
            padding="SAME")._replace(value=True),
        Row("value of avg_pool 3x3 stride 2", lambda x: fn.avg_pool(x, window=3, stride=2),
            primal(fn.avg_pool, window=3, stride=2), (images,), value=True),
        Row("value of lstm", recurrent(fn.lstm), recurrent(fn.lstm.rule.primal), gates,
            value=True),
    ]  # fmt: skip


def gradient(f: Callable, args: tuple, value: bool = False) -> Gradient:
    """Value and cotangents of every argument, compiled; or the value alone."""

    def both(dy: Any, *args: Any) -> Any:
        if value:
            return f(*args)
        y, pull = jax.vjp(f, *args)
        return y, pull(dy)

    options = CPU_OPTIONS if jax.default_backend() == "cpu" else None
    return jax.jit(both, compiler_options=options).lower(*args).compile()


def seconds(f: Gradient, args: tuple) -> float:
    """Of one call."""
    started = time.perf_counter()
    jax.block_until_ready(f(*args))
    return time.perf_counter() - started


def compare(row: Row) -> tuple[float, float, float, float]:
    """Median milliseconds and megabytes: ours, plain. Quick rows run more often."""
    shapes = jax.eval_shape(row.ours, *row.args)
    args = (jax.tree.map(lambda y: normal(*y.shape, seed=1), shapes), *row.args)
    compiled = [gradient(f, args, row.value) for f in (row.ours, row.plain)]
    ours, plain = (f(*args) for f in compiled)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(plain), strict=True):
        if "dropout" not in row.name:  # the two draw different masks
            scale = float(jnp.abs(b).max())
            assert float(jnp.abs(a - b).max()) <= 1e-3 * scale, f"{row.name} differs"
    times = []
    while len(times) < 7 or (len(times) < 51 and sum(map(sum, times)) < 3):
        times.append([seconds(f, args) for f in compiled])
    mine, theirs = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    sizes = [f.memory_analysis().temp_size_in_bytes / 1e6 for f in compiled]
    return mine, theirs, sizes[0], sizes[1]


def main(words: Sequence[str]) -> None:
    """Print the table."""
    print(f"{'':36}{'ms: ours':>10}{'plain':>9}{'ratio':>8}{'goal':>6}"
          f"{'MB: ours':>11}{'plain':>9}{'ratio':>8}{'goal':>6}")  # fmt: skip
    for row in rows():
        if words and not any(word in row.name for word in words):
            continue
        mine, theirs, small, large = compare(row)
        goals = [f"{goal:g}" if goal else "" for goal in (row.faster, row.smaller)]
        print(f"{row.name:36}{mine:10.2f}{theirs:9.2f}{theirs / mine:8.2f}{goals[0]:>6}"
              f"{small:11.2f}{large:9.2f}{large / max(small, 1e-3):8.2f}{goals[1]:>6}",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
