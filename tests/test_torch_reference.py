"""The slides' PyTorch Net, from PyTorch's own numbers: same outputs, loss, gradients and step.

tests/data/make_lenet_torch.py wrote them; PyTorch itself is not needed here.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnet as fn

LAYERS = {"conv": "conv1", "conv_1": "conv2", "dense": "fc1", "dense_1": "fc2", "dense_2": "fc3"}
"""LeNet's name of each layer that has parameters, and the Net's."""
NET = fn.nets.LeNet(10)


@pytest.fixture(scope="module")
def torch():
    with np.load(Path(__file__).parent / "data" / "lenet_torch.npz") as file:
        return dict(file)


def weight(layer: str, w: np.ndarray) -> np.ndarray:
    """A weight, or its gradient, from PyTorch's layout to funcnet's."""
    if w.ndim == 4:
        return w.transpose(2, 3, 1, 0)  # OIHW -> HWIO
    if (
        layer == "fc1"
    ):  # PyTorch flattens (channel, height, width), funcnet (height, width, channel)
        w = w.reshape(-1, 16, 6, 6).transpose(0, 2, 3, 1).reshape(len(w), -1)
    return w.T


def from_torch(torch, kind: str) -> dict:
    return {
        ours: {
            "w": jnp.asarray(weight(theirs, torch[f"{kind}.{theirs}.weight"])),
            "b": jnp.asarray(torch[f"{kind}.{theirs}.bias"]),
        }
        for ours, theirs in LAYERS.items()
    }


def batch(torch) -> tuple[jax.Array, jax.Array]:
    return jnp.asarray(torch["images"].transpose(0, 2, 3, 1)), jnp.asarray(torch["labels"])


def assert_close(ours, theirs):
    """Equal to 1e-5 of each array's largest entry."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
    ):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        assert a.dtype == b.dtype == np.float32
        error = np.abs(a - b).max() / np.abs(b).max()
        assert error <= 1e-5, f"{jax.tree_util.keystr(path)}: {error}"


def test_the_mapped_weights_are_those_that_lenet_wants(torch, key):
    params, state = jax.eval_shape(NET.init, key, batch(torch)[0])
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, from_torch(torch, "param"))
    assert state == {}


def test_outputs_equal_those_of_pytorch(torch):
    params, (x, _) = from_torch(torch, "param"), batch(torch)
    assert_close(NET(params, x), torch["output"])
    assert_close(jax.jit(NET.apply)(params, {}, x)[0], torch["output"])


def test_loss_and_gradients_equal_those_of_pytorch(torch):
    x, y = batch(torch)

    def loss(params):
        return fn.cross_entropy(NET(params, x), y)

    value, grads = jax.jit(jax.value_and_grad(loss))(from_torch(torch, "param"))
    assert_close(value, torch["loss"])
    assert_close(grads, from_torch(torch, "grad"))


@pytest.mark.long
def test_a_step_of_sgd_equals_that_of_pytorch(torch, key):
    x, y = batch(torch)
    step = fn.make_step(NET, fn.cross_entropy, optax.sgd(0.01))
    state = step.init(key, x)._replace(params=from_torch(torch, "param"))
    state, values = step.update(state, (x, y))
    assert_close(values["loss"], torch["loss"])
    before, grads = from_torch(torch, "param"), from_torch(torch, "grad")
    assert_close(state.params, jax.tree.map(lambda p, g: p - jnp.float32(0.01) * g, before, grads))
    for ours, theirs in LAYERS.items():
        assert_close(state.params[ours]["b"], torch[f"stepped.{theirs}.bias"])
    assert_close(state.params["dense_2"]["w"], weight("fc3", torch["stepped.fc3.weight"]))
    assert_close(NET(state.params, x), torch["stepped.output"])
    assert_close(step.evaluate(state, (x, y))["loss"], torch["stepped.loss"])


def test_the_layout_matters(torch):
    """Rows of the first dense layer left in PyTorch's order give other outputs."""
    params, (x, _) = from_torch(torch, "param"), batch(torch)
    params["dense"]["w"] = jnp.asarray(torch["param.fc1.weight"].T)
    assert np.abs(NET(params, x) - torch["output"]).max() > 1e-3
