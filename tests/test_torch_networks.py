"""Whole networks from PyTorch's weights: its outputs, gradients and running statistics.

tests/data/make_networks_torch.py wrote them; PyTorch itself is not needed here.
"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet.interop.torch import from_state_dict, to_state_dict

from .data.make_networks_torch import drawn, places, ripple

BLOCK = {
    "attention": "self_attn",
    "mlp/up": "linear1",
    "mlp/down": "linear2",
    "norm1": "norm1",
    "norm2": "norm2",
}
GPT_NAMES = {
    "tokens": "wte",
    "positions": "wpe",
    "norm": "ln_f",
    **{f"block_{i}/{ours}": f"h.{i}.{theirs}" for i in (0, 1) for ours, theirs in BLOCK.items()},
}


def recurrent(kind, **options):
    pair = fn.Bidirectional(kind(6, **options))
    net = fn.serial(first=pair, second=pair)
    turns = {"forward": "", "backward": "_reverse"}
    names = {
        f"{layer}/{turn}": f"l{i}{suffix}"
        for i, layer in enumerate(("first", "second"))
        for turn, suffix in turns.items()
    }
    return net, drawn("steps", (3, 7, 5)), names


def networks():
    block = {"heads": 4, "hidden": 32}
    sequence = drawn("sequence", (2, 7, 16))
    ids = np.array([[1, 22, 3, 0, 7], [5, 5, 6, 2, 19]])
    image = drawn("image", (4, 3, 48, 48)).transpose(0, 2, 3, 1)
    gpt = fn.nets.GPT(23, width=16, depth=2, heads=4, length=8, hidden=32)
    unbiased = fn.nets.ResNet(18, 10, norm=partial(fn.BatchNorm, unbiased_running_var=True))
    return {
        "resnet18": (unbiased, image, None),
        "block": (fn.TransformerBlock(**block), sequence, BLOCK),
        "block_norm_last": (fn.TransformerBlock(**block, norm_first=False), sequence, BLOCK),
        "gpt": (gpt, ids, GPT_NAMES),
        "lstm": recurrent(fn.LSTM),
        "lstm_projected": recurrent(fn.LSTM, proj=4),
        "gru": recurrent(fn.GRU),
        "rnn": recurrent(fn.RNN),
    }


@pytest.fixture(scope="module")
def torch():
    with np.load(Path(__file__).parent / "data" / "networks_torch.npz") as file:
        return dict(file)


def shapes_of(net, x, names):
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), (params, state))
    return {k: v.shape for k, v in to_state_dict(net, *zeros, x, names=names).items()}


def close(ours, theirs, note):
    error = np.abs(np.asarray(ours, np.float64) - theirs).max() / np.abs(theirs).max()
    assert error <= 1e-5, f"{note}: {error:.1e}"


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] * (name != "gru")) for name in networks()],
)
def test_outputs_gradients_and_statistics_are_pytorchs(torch, name):
    net, x, names = networks()[name]
    x = jnp.asarray(x, jnp.int32 if x.dtype == int else jnp.float32)
    theirs = {key: drawn(f"{name}/{key}", s) for key, s in shapes_of(net, x, names).items()}
    params, state = from_state_dict(net, theirs, x, names=names)

    def probe(params):
        output, after = net.apply(params, state, x, train=True, key=jax.random.key(0))
        weights = jnp.asarray(ripple(output.shape), output.dtype)
        return (output * weights).sum(), (output, after)

    evaluated, _ = jax.jit(net.apply)(params, state, x)
    close(evaluated, torch[f"{name}/evaluated"], "evaluated")
    gradients, (output, after) = jax.jit(jax.grad(probe, has_aux=True))(params)
    close(output, torch[f"{name}/output"], "output")
    for key, gradient in to_state_dict(net, gradients, after, x, names=names).items():
        if f"{name}/grad/{key}" in torch and "bias_hh" not in key:
            picked = np.asarray(gradient).ravel()[places(key, gradient.size)]
            close(picked, torch[f"{name}/grad/{key}"], key)
        elif "running" in key:
            close(gradient, torch[f"{name}/entry/{key}"], key)


@pytest.mark.long
def test_every_gradient_of_pytorch_is_compared(torch):
    """The two biases of a recurrent gate have one gradient, and it is compared as `bias_ih`."""
    for name, (net, x, names) in networks().items():
        ours = set(shapes_of(net, x, names))
        theirs = {key.split("/", 2)[2] for key in torch if key.startswith(f"{name}/grad/")}
        assert theirs <= ours
        assert len(theirs) > 8
