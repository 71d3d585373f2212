"""Flax NNX: modules split into their graph and their arrays, so that `jax.jit` calls them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ..models import (
    CHARACTERS,
    DEPTH,
    EMBED,
    EPS,
    HEADS,
    LENGTH,
    UNITS,
    VOCABULARY,
    WIDTH,
    Built,
    Task,
    blocks,
)
from .stepping import built, cross_entropy

RNGS = nnx.Rngs(0)


class MLP(nnx.Module):
    def __init__(self) -> None:
        self.dense = nnx.Linear(784, 512, rngs=RNGS)
        self.dense_1 = nnx.Linear(512, 512, rngs=RNGS)
        self.dense_2 = nnx.Linear(512, 10, rngs=RNGS)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dense_2(nnx.relu(self.dense_1(nnx.relu(self.dense(x)))))


class LeNet(nnx.Module):
    def __init__(self) -> None:
        self.conv = nnx.Conv(1, 6, (3, 3), padding="VALID", rngs=RNGS)
        self.conv_1 = nnx.Conv(6, 16, (3, 3), padding="VALID", rngs=RNGS)
        self.dense = nnx.Linear(576, 120, rngs=RNGS)
        self.dense_1 = nnx.Linear(120, 84, rngs=RNGS)
        self.dense_2 = nnx.Linear(84, 10, rngs=RNGS)

    def __call__(self, x: jax.Array) -> jax.Array:
        for conv in (self.conv, self.conv_1):
            x = nnx.max_pool(nnx.relu(conv(x)), (2, 2), (2, 2))
        x = nnx.relu(self.dense(x.reshape(len(x), -1)))
        return self.dense_2(nnx.relu(self.dense_1(x)))


def conv_of(before: int, after: int, stride: int = 1) -> nnx.Conv:
    around = [(1, 1), (1, 1)]
    return nnx.Conv(before, after, (3, 3), stride, padding=around, use_bias=False, rngs=RNGS)


def norm_of(width: int) -> nnx.BatchNorm:
    return nnx.BatchNorm(width, momentum=0.9, epsilon=EPS, rngs=RNGS)


class Block(nnx.Module):
    def __init__(self, before: int, after: int) -> None:
        self.stride = after // before
        self.conv1, self.bn1 = conv_of(before, after, self.stride), norm_of(after)
        self.conv2, self.bn2 = conv_of(after, after), norm_of(after)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            filled = x.shape[-1] // 2
            x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (filled, filled)))
        return nnx.relu(x + y)


class ResNet20(nnx.Module):
    def __init__(self) -> None:
        self.conv1, self.bn1 = conv_of(3, 16), norm_of(16)
        stages = [[Block(*widths) for _, *widths in stage] for stage in staged()]
        self.layer1, self.layer2, self.layer3 = (nnx.List(stage) for stage in stages)
        self.fc = nnx.Linear(64, 10, rngs=RNGS)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.bn1(self.conv1(x)))
        for block in itertools.chain(self.layer1, self.layer2, self.layer3):
            x = block(x)
        return self.fc(x.mean((1, 2)))


def staged() -> list:
    return [blocks()[start : start + 3] for start in (0, 3, 6)]


class LSTM(nnx.Module):
    def __init__(self) -> None:
        self.embed = nnx.Embed(CHARACTERS, EMBED, rngs=RNGS)
        self.lstm0 = nnx.RNN(nnx.OptimizedLSTMCell(EMBED, UNITS, rngs=RNGS))
        self.head = nnx.Linear(UNITS, CHARACTERS, rngs=RNGS)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.embed(tokens)
        start = jnp.zeros((len(x), UNITS), x.dtype)
        return self.head(self.lstm0(x, initial_carry=(start, start)))


class Attention(nnx.Module):
    def __init__(self) -> None:
        self.qkv = nnx.Linear(WIDTH, 3 * WIDTH, rngs=RNGS)
        self.out = nnx.Linear(WIDTH, WIDTH, rngs=RNGS)

    def __call__(self, x: jax.Array) -> jax.Array:
        parts = jnp.split(self.qkv(x), 3, -1)
        q, k, v = (a.reshape(*a.shape[:2], HEADS, -1) for a in parts)
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.reshape(x.shape))


class FeedForward(nnx.Module):
    def __init__(self) -> None:
        self.up = nnx.Linear(WIDTH, 4 * WIDTH, rngs=RNGS)
        self.down = nnx.Linear(4 * WIDTH, WIDTH, rngs=RNGS)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.down(nnx.gelu(self.up(x), approximate=False))


class Transformer(nnx.Module):
    def __init__(self) -> None:
        self.norm1, self.norm2 = (nnx.LayerNorm(WIDTH, epsilon=EPS, rngs=RNGS) for _ in range(2))
        self.attention, self.mlp = Attention(), FeedForward()

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nnx.Module):
    def __init__(self) -> None:
        self.tokens = nnx.Embed(VOCABULARY, WIDTH, rngs=RNGS)
        self.positions = nnx.Embed(LENGTH, WIDTH, rngs=RNGS)
        self.block = nnx.List([Transformer() for _ in range(DEPTH)])
        self.norm = nnx.LayerNorm(WIDTH, epsilon=EPS, rngs=RNGS)

    def __call__(self, ids: jax.Array) -> jax.Array:
        x = self.tokens(ids) + self.positions(jnp.arange(ids.shape[1]))
        for block in self.block:
            x = block(x)
        return self.tokens.attend(self.norm(x))


NETWORKS = {"mlp": MLP, "lenet": LeNet, "resnet20": ResNet20, "lstm": LSTM, "gpt": GPT}
KINDS = {"kernel": "w", "embedding": "table"}
CELL = {"dense_i/kernel": "w_in", "dense_h/kernel": "w_hidden", "dense_h/bias": "b"}


def name_of(path: tuple) -> str:
    """The task's name of a parameter."""
    name = "/".join(map(str, path)).replace("block/", "block_")
    if "/cell/" in name:
        before, _, part = name.partition("/cell/")
        return f"{before}/{CELL[part]}"
    *before, part, kind = name.split("/")
    if kind == "bias":
        kind = "shift" if "norm" in part or part.startswith("bn") else "b"
    return "/".join([*before, part, KINDS.get(kind, kind)])


def build(task: Task) -> Built:
    graph, params, state = nnx.split(NETWORKS[task.model](), nnx.Param, ...)
    params = nnx.map_state(
        lambda at, old: old.replace(jnp.array(task.weights[name_of(at)])), params
    )

    def loss(params: nnx.State, state: nnx.State, x: jax.Array, labels: jax.Array) -> tuple:
        net = nnx.merge(graph, params, state, copy=True)
        value = cross_entropy(net(x), labels)
        return value, nnx.state(net, nnx.Not(nnx.Param))

    def named(grads: nnx.State) -> dict[str, np.ndarray]:
        return {name_of(at): np.asarray(leaf[...]) for at, leaf in nnx.to_flat_state(grads)}

    return built(task, loss, params, state, named)
