"""Equinox: modules are pytrees, written for one example and mapped over the batch by `jax.vmap`."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

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

KEY = jax.random.key(0)


class MLP(eqx.Module):
    layers: list

    def __init__(self) -> None:
        widths = (784, 512, 512, 10)
        pairs = itertools.pairwise(widths)
        self.layers = [eqx.nn.Linear(*pair, key=KEY) for pair in pairs]

    def __call__(self, x: jax.Array, state: eqx.nn.State) -> tuple:
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        return self.layers[-1](x), state


class LeNet(eqx.Module):
    convs: list
    head: list

    def __init__(self) -> None:
        self.convs = [eqx.nn.Conv2d(*widths, 3, key=KEY) for widths in ((1, 6), (6, 16))]
        pairs = ((576, 120), (120, 84), (84, 10))
        self.head = [eqx.nn.Linear(*pair, key=KEY) for pair in pairs]

    def __call__(self, x: jax.Array, state: eqx.nn.State) -> tuple:
        pool = eqx.nn.MaxPool2d(2, 2)
        for conv in self.convs:
            x = pool(jax.nn.relu(conv(x)))
        x = x.reshape(-1)
        for layer in self.head[:-1]:
            x = jax.nn.relu(layer(x))
        return self.head[-1](x), state


def conv_of(before: int, after: int, stride: int = 1) -> eqx.nn.Conv2d:
    return eqx.nn.Conv2d(before, after, 3, stride, 1, use_bias=False, key=KEY)


def norm_of(width: int) -> eqx.nn.BatchNorm:
    return eqx.nn.BatchNorm(width, "batch", eps=EPS, momentum=0.9, mode="batch")


class Block(eqx.Module):
    conv1: eqx.nn.Conv2d
    bn1: eqx.nn.BatchNorm
    conv2: eqx.nn.Conv2d
    bn2: eqx.nn.BatchNorm
    stride: int = eqx.field(static=True)

    def __init__(self, before: int, after: int) -> None:
        self.stride = after // before
        self.conv1, self.bn1 = conv_of(before, after, self.stride), norm_of(after)
        self.conv2, self.bn2 = conv_of(after, after), norm_of(after)

    def __call__(self, x: jax.Array, state: eqx.nn.State) -> tuple:
        y, state = self.bn1(self.conv1(x), state)
        y, state = self.bn2(self.conv2(jax.nn.relu(y)), state)
        if self.stride > 1:
            filled = x.shape[0] // 2
            x = jnp.pad(x[:, ::2, ::2], ((filled, filled), (0, 0), (0, 0)))
        return jax.nn.relu(x + y), state


class ResNet20(eqx.Module):
    conv1: eqx.nn.Conv2d
    bn1: eqx.nn.BatchNorm
    blocks: list
    fc: eqx.nn.Linear

    def __init__(self) -> None:
        self.conv1, self.bn1 = conv_of(3, 16), norm_of(16)
        self.blocks = [Block(*widths) for _, *widths in blocks()]
        self.fc = eqx.nn.Linear(64, 10, key=KEY)

    def __call__(self, x: jax.Array, state: eqx.nn.State) -> tuple:
        x, state = self.bn1(self.conv1(x), state)
        x = jax.nn.relu(x)
        for block in self.blocks:
            x, state = block(x, state)
        return self.fc(x.mean((1, 2))), state


class LSTM(eqx.Module):
    embed: eqx.nn.Embedding
    cell: eqx.nn.LSTMCell
    head: eqx.nn.Linear

    def __init__(self) -> None:
        self.embed = eqx.nn.Embedding(CHARACTERS, EMBED, key=KEY)
        self.cell = eqx.nn.LSTMCell(EMBED, UNITS, key=KEY)
        self.head = eqx.nn.Linear(UNITS, CHARACTERS, key=KEY)

    def __call__(self, tokens: jax.Array, state: eqx.nn.State) -> tuple:
        def step(carry: tuple, x: jax.Array) -> tuple:
            carry = self.cell(x, carry)
            return carry, carry[0]

        x = jax.vmap(self.embed)(tokens)
        start = jnp.zeros(UNITS, x.dtype)
        _, h = jax.lax.scan(step, (start, start), x)
        return jax.vmap(self.head)(h), state


class Transformer(eqx.Module):
    norm1: eqx.nn.LayerNorm
    qkv: eqx.nn.Linear
    out: eqx.nn.Linear
    norm2: eqx.nn.LayerNorm
    up: eqx.nn.Linear
    down: eqx.nn.Linear

    def __init__(self) -> None:
        self.norm1, self.norm2 = (eqx.nn.LayerNorm(WIDTH, EPS) for _ in range(2))
        self.qkv = eqx.nn.Linear(WIDTH, 3 * WIDTH, key=KEY)
        self.out = eqx.nn.Linear(WIDTH, WIDTH, key=KEY)
        self.up = eqx.nn.Linear(WIDTH, 4 * WIDTH, key=KEY)
        self.down = eqx.nn.Linear(4 * WIDTH, WIDTH, key=KEY)

    def __call__(self, x: jax.Array) -> jax.Array:
        parts = jnp.split(jax.vmap(self.qkv)(jax.vmap(self.norm1)(x)), 3, -1)
        q, k, v = (a.reshape(len(a), HEADS, -1) for a in parts)
        y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + jax.vmap(self.out)(y.reshape(x.shape))
        y = jax.nn.gelu(jax.vmap(self.up)(jax.vmap(self.norm2)(x)), approximate=False)
        return x + jax.vmap(self.down)(y)


class GPT(eqx.Module):
    tokens: eqx.nn.Embedding
    positions: eqx.nn.Embedding
    blocks: list
    norm: eqx.nn.LayerNorm

    def __init__(self) -> None:
        self.tokens = eqx.nn.Embedding(VOCABULARY, WIDTH, key=KEY)
        self.positions = eqx.nn.Embedding(LENGTH, WIDTH, key=KEY)
        self.blocks = [Transformer() for _ in range(DEPTH)]
        self.norm = eqx.nn.LayerNorm(WIDTH, EPS)

    def __call__(self, ids: jax.Array, state: eqx.nn.State) -> tuple:
        x = jax.vmap(self.tokens)(ids) + self.positions.weight[: len(ids)]
        for block in self.blocks:
            x = block(x)
        return jax.vmap(self.norm)(x) @ self.tokens.weight.T, state


NETWORKS = {"mlp": MLP, "lenet": LeNet, "resnet20": ResNet20, "lstm": LSTM, "gpt": GPT}


def theirs(task: Task, name: str, value: np.ndarray) -> np.ndarray:
    """A weight as (outputs, inputs), a kernel as (outputs, inputs, height, width)."""
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    if name.startswith("conv") and name.endswith("/b"):
        return value[:, None, None]
    if (task.model, name) == ("lenet", "dense/w"):  # the pixels of a channel stand together
        value = value.reshape(6, 6, 16, -1).transpose(2, 0, 1, 3).reshape(value.shape)
    return value.T if value.ndim == 2 and not name.endswith("table") else value


def ours(task: Task, name: str, value: np.ndarray) -> np.ndarray:
    """The other way round."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if name.startswith("conv") and name.endswith("/b"):
        return value[:, 0, 0]
    value = value.T if value.ndim == 2 and not name.endswith("table") else value
    if (task.model, name) == ("lenet", "dense/w"):
        value = value.reshape(16, 6, 6, -1).transpose(1, 2, 0, 3).reshape(value.shape)
    return value


def build(task: Task) -> Built:
    net, state = eqx.nn.make_with_state(NETWORKS[task.model])()
    params, static = eqx.partition(net, eqx.is_inexact_array)
    old, tree = jax.tree.flatten(params)
    new = [jnp.array(theirs(task, name, value)) for name, value in task.weights.items()]
    assert [a.shape for a in old] == [a.shape for a in new]

    def loss(params: eqx.Module, state: eqx.nn.State, x: jax.Array, labels: jax.Array) -> tuple:
        x = x.transpose(0, 3, 1, 2) if x.ndim == 4 else x
        net = eqx.combine(params, static)
        call = jax.vmap(net, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        logits, state = call(x, state)
        return cross_entropy(logits, labels), state

    def named(grads: eqx.Module) -> dict[str, np.ndarray]:
        pairs = zip(task.weights, jax.tree.leaves(grads), strict=True)
        return {name: ours(task, name, np.asarray(value)) for name, value in pairs}

    return built(task, loss, tree.unflatten(new), state, named)
