"""Plain JAX: parameters are one flat dict of arrays."""

import jax
import jax.numpy as jnp
import numpy as np

from ..models import DEPTH, EPS, HEADS, Built, Task, blocks
from .stepping import built, cross_entropy

Weights = dict[str, jax.Array]


def dense(w: Weights, name: str, x: jax.Array) -> jax.Array:
    return x @ w[f"{name}/w"] + w[f"{name}/b"]


def mlp(w: Weights, state: Weights, x: jax.Array) -> tuple[jax.Array, Weights]:
    x = jax.nn.relu(dense(w, "dense", x))
    x = jax.nn.relu(dense(w, "dense_1", x))
    return dense(w, "dense_2", x), state


def conv(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: str = "SAME") -> jax.Array:
    around = [(1, 1), (1, 1)] if padding == "SAME" else padding
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), around, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def max_pool(x: jax.Array) -> jax.Array:
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")


def lenet(w: Weights, state: Weights, x: jax.Array) -> tuple[jax.Array, Weights]:
    for name in ("conv", "conv_1"):
        x = conv(x, w[f"{name}/w"], padding="VALID") + w[f"{name}/b"]
        x = max_pool(jax.nn.relu(x))
    x = x.reshape(len(x), -1)
    x = jax.nn.relu(dense(w, "dense", x))
    x = jax.nn.relu(dense(w, "dense_1", x))
    return dense(w, "dense_2", x), state


def batch_norm(w: Weights, state: Weights, name: str, x: jax.Array) -> tuple[jax.Array, Weights]:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = wide.mean((0, 1, 2))
    var = jnp.maximum(jnp.square(wide).mean((0, 1, 2)) - jnp.square(mean), 0)
    factor = jax.lax.rsqrt(var + EPS) * w[f"{name}/scale"]
    y = ((wide - mean) * factor + w[f"{name}/shift"]).astype(x.dtype)
    kinds = {"mean": mean, "var": var}
    new = {f"{name}/{k}": 0.9 * state[f"{name}/{k}"] + 0.1 * now for k, now in kinds.items()}
    return y, new


def resnet20(w: Weights, state: Weights, x: jax.Array) -> tuple[jax.Array, Weights]:
    averages: Weights = {}

    def normed(name: str, x: jax.Array, stride: int = 1) -> jax.Array:
        y = conv(x, w[f"{name}/w"], stride)
        y, new = batch_norm(w, state, name.replace("conv", "bn"), y)
        averages.update(new)
        return y

    x = jax.nn.relu(normed("conv1", x))
    for name, before, after in blocks():
        stride = after // before
        y = jax.nn.relu(normed(f"{name}/conv1", x, stride))
        y = normed(f"{name}/conv2", y)
        if stride > 1:
            filled = (after - before) // 2
            x = jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (filled, filled)))
        x = jax.nn.relu(x + y)
    return dense(w, "fc", x.mean((1, 2))), averages


def lstm(w: Weights, state: Weights, tokens: jax.Array) -> tuple[jax.Array, Weights]:
    x = w["embed/table"][tokens.T]

    def cell(carry: tuple, x: jax.Array) -> tuple:
        h, c = carry
        z = x @ w["lstm0/w_in"] + h @ w["lstm0/w_hidden"] + w["lstm0/b"]
        i, f, g, o = jnp.split(z, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    start = jnp.zeros((x.shape[1], w["lstm0/w_hidden"].shape[0]), x.dtype)
    _, h = jax.lax.scan(cell, (start, start), x)
    return dense(w, "head", h).swapaxes(0, 1), state


def layer_norm(w: Weights, name: str, x: jax.Array) -> jax.Array:
    return jax.nn.standardize(x, axis=-1, epsilon=EPS) * w[f"{name}/scale"] + w[f"{name}/shift"]


def attention(w: Weights, name: str, x: jax.Array) -> jax.Array:
    q, k, v = jnp.split(dense(w, f"{name}/qkv", x), 3, -1)
    q, k, v = (a.reshape(*a.shape[:2], HEADS, -1) for a in (q, k, v))
    y = jax.nn.dot_product_attention(q, k, v, is_causal=True)
    return dense(w, f"{name}/out", y.reshape(x.shape))


def gpt(w: Weights, state: Weights, tokens: jax.Array) -> tuple[jax.Array, Weights]:
    x = w["tokens/table"][tokens] + w["positions/table"][: tokens.shape[1]]
    for i in range(DEPTH):
        name = f"block_{i}"
        x = x + attention(w, f"{name}/attention", layer_norm(w, f"{name}/norm1", x))
        y = dense(w, f"{name}/mlp/up", layer_norm(w, f"{name}/norm2", x))
        x = x + dense(w, f"{name}/mlp/down", jax.nn.gelu(y, approximate=False))
    return layer_norm(w, "norm", x) @ w["tokens/table"].T, state


NETWORKS = {"mlp": mlp, "lenet": lenet, "resnet20": resnet20, "lstm": lstm, "gpt": gpt}


def averages(model: str, weights: Weights) -> Weights:
    """The first running averages of each batch norm."""
    if model != "resnet20":
        return {}
    starts = {"mean": jnp.zeros, "var": jnp.ones}
    norms = [name.removesuffix("/scale") for name in weights if name.endswith("/scale")]
    return {
        f"{norm}/{kind}": start(weights[f"{norm}/scale"].shape, jnp.float32)
        for norm in norms
        for kind, start in starts.items()
    }


def build(task: Task) -> Built:
    network = NETWORKS[task.model]

    def loss(w: Weights, state: Weights, x: jax.Array, labels: jax.Array) -> tuple:
        logits, state = network(w, state, x)
        return cross_entropy(logits, labels), state

    params = {name: jnp.array(value) for name, value in task.weights.items()}
    return built(task, loss, params, averages(task.model, params), dict)


def reference(task: Task) -> dict[str, np.ndarray]:
    """The gradients of the task in float64."""
    with jax.enable_x64(True):
        wide = {name: value.astype(np.float64) for name, value in task.weights.items()}
        x, labels = task.batch
        batch = x.astype(np.float64) if x.dtype == np.float32 else x, labels
        return build(task._replace(weights=wide, batch=batch, dtype="float32")).gradients()
