"""Haiku: functions transformed into `init` and `apply`."""

import haiku as hk
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


def mlp(x: jax.Array) -> jax.Array:
    x = jax.nn.relu(hk.Linear(512, name="dense")(x))
    x = jax.nn.relu(hk.Linear(512, name="dense_1")(x))
    return hk.Linear(10, name="dense_2")(x)


def lenet(x: jax.Array) -> jax.Array:
    for name, width in (("conv", 6), ("conv_1", 16)):
        x = jax.nn.relu(hk.Conv2D(width, 3, padding="VALID", name=name)(x))
        x = hk.max_pool(x, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = jax.nn.relu(hk.Linear(120, name="dense")(x.reshape(len(x), -1)))
    x = jax.nn.relu(hk.Linear(84, name="dense_1")(x))
    return hk.Linear(10, name="dense_2")(x)


def normed(x: jax.Array, name: str, width: int, stride: int = 1) -> jax.Array:
    conv = hk.Conv2D(width, 3, stride, padding=(1, 1), with_bias=False, name=name)
    norm = hk.BatchNorm(True, True, 0.9, eps=EPS, name=name.replace("conv", "bn"))
    return norm(conv(x), is_training=True)


def resnet20(x: jax.Array) -> jax.Array:
    x = jax.nn.relu(normed(x, "conv1", 16))
    for name, before, after in blocks():
        y = jax.nn.relu(normed(x, f"{name}/conv1".replace("/", "_"), after, after // before))
        y = normed(y, f"{name}/conv2".replace("/", "_"), after)
        if after > before:
            filled = before // 2
            x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (filled, filled)))
        x = jax.nn.relu(x + y)
    return hk.Linear(10, name="fc")(x.mean((1, 2)))


def lstm(tokens: jax.Array) -> jax.Array:
    x = hk.Embed(CHARACTERS, EMBED, name="embed")(tokens.T)
    core = hk.LSTM(UNITS, name="lstm0")
    start = jax.tree.map(lambda a: a.astype(x.dtype), core.initial_state(x.shape[1]))
    h, _ = hk.dynamic_unroll(core, x, start)
    return hk.Linear(CHARACTERS, name="head")(h).swapaxes(0, 1)


def norm(x: jax.Array, name: str) -> jax.Array:
    return hk.LayerNorm(-1, True, True, EPS, name=name)(x)


def attention(x: jax.Array, name: str) -> jax.Array:
    parts = jnp.split(hk.Linear(3 * WIDTH, name=f"{name}_qkv")(x), 3, -1)
    q, k, v = (a.reshape(*a.shape[:2], HEADS, -1) for a in parts)
    y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    return hk.Linear(WIDTH, name=f"{name}_out")(y.reshape(x.shape))


def gpt(ids: jax.Array) -> jax.Array:
    tokens = hk.Embed(VOCABULARY, WIDTH, name="tokens")
    x = tokens(ids) + hk.Embed(LENGTH, WIDTH, name="positions")(jnp.arange(ids.shape[1]))
    for i in range(DEPTH):
        x = x + attention(norm(x, f"block_{i}_norm1"), f"block_{i}_attention")
        y = hk.Linear(4 * WIDTH, name=f"block_{i}_mlp_up")(norm(x, f"block_{i}_norm2"))
        x = x + hk.Linear(WIDTH, name=f"block_{i}_mlp_down")(jax.nn.gelu(y, approximate=False))
    return norm(x, "norm") @ tokens.embeddings.T


NETWORKS = {"mlp": mlp, "lenet": lenet, "resnet20": resnet20, "lstm": lstm, "gpt": gpt}
KINDS = {"shift": "offset", "table": "embeddings"}


def tree(weights: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """The weights by module: the LSTM's in one matrix, its gates as i, g, f, o, of f less 1."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, value in weights.items():
        module, _, kind = name.rpartition("/")
        if module != "lstm0":
            found.setdefault(module.replace("/", "_"), {})[KINDS.get(kind, kind)] = value
    if "lstm0/b" in weights:
        w = np.concatenate([weights["lstm0/w_in"], weights["lstm0/w_hidden"]])
        b = weights["lstm0/b"] - np.repeat([0, 1, 0, 0], UNITS).astype(np.float32)
        found["lstm0/linear"] = {"w": swapped(w), "b": swapped(b)}
    return found


def swapped(value: np.ndarray) -> np.ndarray:
    """Gates in the order i, f, g, o as i, g, f, o, and the other way round."""
    i, f, g, o = np.split(value, 4, -1)
    return np.concatenate([i, g, f, o], -1)


def named(grads: dict, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The other way round."""
    found = {}
    for name in weights:
        module, _, kind = name.rpartition("/")
        if module == "lstm0":
            part = {key: swapped(value) for key, value in grads["lstm0/linear"].items()}
            both = {"w_in": part["w"][:EMBED], "w_hidden": part["w"][EMBED:], "b": part["b"]}
            found[name] = both[kind]
        else:
            value = grads[module.replace("/", "_")][KINDS.get(kind, kind)]
            found[name] = value.reshape(weights[name].shape)
    return found


def build(task: Task) -> Built:
    net = hk.without_apply_rng(hk.transform_with_state(NETWORKS[task.model]))
    like, state = jax.jit(net.init)(jax.random.key(0), task.batch[0])
    # A batch norm's scale is (1, 1, 1, channels).
    given = tree(task.weights)
    params = jax.tree.map(lambda old, new: jnp.array(new.reshape(old.shape)), like, given)

    def loss(params: dict, state: dict, x: jax.Array, labels: jax.Array) -> tuple:
        logits, state = net.apply(params, state, x)
        return cross_entropy(logits, labels), state

    return built(task, loss, params, state, lambda grads: named(grads, task.weights))
