"""funcnet: `fn.make_step` of its own networks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import funcnet as fn

from ..models import (
    CHARACTERS,
    DEPTH,
    EMBED,
    HEADS,
    LENGTH,
    UNITS,
    VOCABULARY,
    WIDTH,
    Built,
    Task,
    optimizer,
)
from .stepping import stepping

OF_A_HEAD = fn.Precision(compute="bfloat16", output="bfloat16")
"""Where the head is part of the loss, and so is to be multiplied in 16 bits too."""


def precision(task: Task) -> fn.Precision | str | None:
    """In which dtypes the step computes."""
    if task.dtype == "float32":
        return None
    return OF_A_HEAD if task.model == "gpt" else "bf16"


def network(model: str) -> tuple:
    """The network, and its loss."""
    if model == "gpt":
        sizes = {"width": WIDTH, "depth": DEPTH, "heads": HEADS, "length": LENGTH}
        return fn.nets.GPT(VOCABULARY, **sizes, logits=False), fn.nets.lm_loss
    nets = {
        "mlp": lambda: fn.nets.MLP((512, 512, 10)),
        "lenet": fn.nets.LeNet,
        "resnet20": lambda: fn.nets.ResNet(20, 10),
        "lstm": lambda: fn.nets.CharRNN(CHARACTERS, width=UNITS, embed=EMBED),
    }
    return nets[model](), fn.cross_entropy


def tree(weights: dict[str, np.ndarray], like: Any) -> Any:
    """The weights as the network has them, of which `like` has the shapes."""

    def of(path: tuple, leaf: Any) -> jax.Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        *before, part, kind = name.split("/")
        if part in ("q", "k", "v"):
            whole = weights["/".join([*before, "qkv", kind])]
            return jnp.array(np.split(whole, 3, -1)["qkv".index(part)].reshape(leaf.shape))
        return jnp.array(weights[name].reshape(leaf.shape))

    return jax.tree_util.tree_map_with_path(of, like)


def named(grads: Any, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The other way round."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(grads))
    flat = {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in leaves}

    def of(name: str, shape: tuple) -> np.ndarray:
        if "qkv" not in name:
            return flat[name].reshape(shape)
        parts = [flat[name.replace("qkv", part)] for part in "qkv"]
        return np.concatenate([x.reshape(*shape[:-1], -1) for x in parts], -1)

    return {name: of(name, value.shape) for name, value in weights.items()}


def build(task: Task, steps_per_call: int = 1) -> Built:
    net, criterion = network(task.model)
    x, labels = task.batch
    step = fn.make_step(
        net,
        criterion,
        optimizer(task.model),
        precision=precision(task),
        steps_per_call=steps_per_call,
    )
    key = jax.random.key(0)
    carry = step.init(key, x)
    params = tree(task.weights, carry.params)
    carry = carry._replace(params=params)

    def loss(params: Any) -> jax.Array:
        inner = net if task.dtype == "float32" else fn.Precision(compute=task.dtype).over(net)
        output, _ = inner.apply(params, carry.state, x, train=True, key=key)
        return criterion(output, labels)

    def gradients() -> dict[str, np.ndarray]:
        return named(jax.jit(jax.grad(loss))(params), task.weights)

    batch = (x, labels)
    if steps_per_call > 1:
        batch = jax.tree.map(lambda a: np.stack([a] * steps_per_call), batch)
    return stepping(step.update, carry, batch, params, gradients, steps_per_call)
