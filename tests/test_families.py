"""Published models from their files: the outputs and gradients of transformers and torchvision.

tests/data/make_families.py wrote them; neither library is needed here.
"""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn

from .data.make_families import IDS, IMAGES, MASK, PHOTOS, TYPES
from .data.make_networks_torch import drawn, places, ripple

PAIRS = (jnp.asarray(IDS), jnp.asarray(MASK > 0), jnp.asarray(TYPES))
MODELS = {
    "gpt2": (fn.io.gpt2, PAIRS[:1]),
    "bert": (fn.io.bert, PAIRS),
    "bert_tokens": (fn.io.bert, PAIRS),
    "bert_classes": (fn.io.bert, PAIRS),
    "vit": (fn.io.vit, (jnp.asarray(IMAGES.transpose(0, 2, 3, 1), jnp.float32),)),
    "llama": (fn.io.llama, PAIRS[:1]),
    "llama_tied": (fn.io.llama, PAIRS[:1]),
    "llama_longer": (fn.io.llama, PAIRS[:1]),
}
RESNETS = {
    f"resnet{depth}": (
        lambda config: fn.io.resnet(**config),
        (jnp.asarray(PHOTOS.transpose(0, 2, 3, 1), jnp.float32),),
    )
    for depth in (18, 34, 50)
}

USUAL = ("llama",)
"""What the usual form reads."""


def row(name):
    return pytest.param(name, marks=[pytest.mark.slow, pytest.mark.long] * (name not in USUAL))


@pytest.fixture(scope="module")
def stored():
    with np.load(Path(__file__).parent / "data" / "families.npz") as file:
        return dict(file)


def tensors_of(stored, name):
    shapes = json.loads(str(stored[f"{name}/shapes"]))
    return {key: drawn(f"{name}/{key}", tuple(shape)) for key, shape in shapes.items()}


def model_of(stored, name):
    config = json.loads(str(stored[f"{name}/config"]))
    return (MODELS | RESNETS)[name][0](config)


def close(ours, theirs, note):
    error = np.abs(np.asarray(ours, np.float64) - theirs).max() / np.abs(theirs).max()
    assert error <= 1e-5, f"{note}: {error:.1e}"


@pytest.mark.parametrize("name", [row(name) for name in MODELS | RESNETS])
def test_outputs_and_gradients_are_theirs(stored, name):
    model, inputs = model_of(stored, name), (MODELS | RESNETS)[name][1]
    params, state = model.read(tensors_of(stored, name))

    def probe(params):
        output, _ = model.net.apply(params, state, *inputs)
        return (output * jnp.asarray(ripple(output.shape), output.dtype)).sum(), output

    gradients, output = jax.jit(jax.grad(probe, has_aux=True))(params)
    close(output, stored[f"{name}/output"], "output")
    written = model.write(gradients, state)
    start = f"{name}/grad/"
    expected = {key.removeprefix(start): x for key, x in stored.items() if key.startswith(start)}
    largest = max(np.abs(x).max() for x in expected.values())
    bare = not any(key in written for key in expected)
    for key, theirs in expected.items():
        ours = written.get(model.prefix + key if bare else key)
        if ours is None:
            assert not theirs.any(), key
        elif np.abs(theirs).max() < 1e-6 * largest:
            assert np.abs(ours).max() < 1e-5 * largest
        else:
            at = places(key, ours.size)
            padding = "word_embeddings" in key  # BERT's token 0, which PyTorch gives no gradient
            counted = at >= ours.shape[-1] if padding else slice(None)
            close(np.ravel(ours)[at][counted], theirs[counted], key)


@pytest.mark.long
@pytest.mark.parametrize("name", [row(name) for name in ("gpt2", "bert_tokens", "vit", "llama")])
def test_a_file_goes_there_and_back(stored, name):
    model, theirs = model_of(stored, name), tensors_of(stored, name)
    written = model.write(*model.read(theirs))
    assert sorted(written) == sorted(theirs)
    for key, array in written.items():
        np.testing.assert_array_equal(array, np.float32(theirs[key]), key)
    bare = {key.removeprefix(model.prefix): x for key, x in theirs.items()}
    jax.tree.map(np.testing.assert_array_equal, model.read(bare), model.read(theirs))


@pytest.mark.long
def test_a_part_of_each_head_may_be_turned(stored):
    """Models of Llama's kind may say so in either place; the tokens' vectors are the inputs."""
    config = json.loads(str(stored["llama/config"]))
    rope = config.pop("rope_parameters")
    net = fn.nets.GPT(
        19, width=16, depth=2, heads=4, length=8, kv_heads=2, hidden=24, activation="swiglu",
        norm=fn.RMSNorm, rotary=True, bias=False, tied=False, rotary_base=100.0, rotary_width=2,
    )  # fmt: skip
    model = fn.io.llama(config | {"rope_theta": 100.0, "partial_rotary_factor": 0.5})
    params, _ = model.read(tensors_of(stored, "llama"))
    expected = jax.jit(net)(params, PAIRS[0])
    same = fn.io.llama(config | {"rope_parameters": rope | {"partial_rotary_factor": 0.5}})
    for family in (model, same):
        close(jax.jit(family.net)(params, PAIRS[0]), expected, "half of each head")
    whole = fn.io.llama(config | {"rope_parameters": rope}).net
    assert np.abs(jax.jit(whole)(params, PAIRS[0]) - expected).max() > 1e-3


def test_what_does_not_fit_is_named(stored):
    model, theirs = model_of(stored, "gpt2"), tensors_of(stored, "gpt2")
    del theirs["transformer.wpe.weight"]
    theirs["transformer.h.0.attn.c_attn.weight"] = np.zeros((48, 16))
    message = (
        "gpt2: expected the arrays of this model, got transformer.wpe.weight is missing; "
        "transformer.h.0.attn.c_attn.weight has shape (48, 16), not (16, 48); adapter.weight is "
        "extra. The configuration has to be the one that came with the file."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        model.read(theirs | {"adapter.weight": np.zeros(2)})


def test_a_configuration_that_does_not_fit_is_refused(stored, tmp_path):
    config = json.loads(str(stored["llama/config"]))
    with pytest.raises(ValueError, match=r"^llama: expected a configuration with vocab_size, got "):
        fn.io.llama({k: v for k, v in config.items() if k != "vocab_size"})
    with pytest.raises(
        ValueError, match=r"^llama: expected a rope_type 'default' or 'llama3', got"
    ):
        fn.io.llama(config | {"rope_parameters": {"rope_type": "yarn"}})
    with pytest.raises(ValueError, match=r"^llama: expected a configuration with original_max_pos"):
        fn.io.llama(config | {"rope_scaling": {"type": "llama3", "factor": 2.0}})
    with pytest.raises(ValueError, match=r"^bert: expected hidden_act among gelu, .*, got 'mish'"):
        fn.io.bert({"vocab_size": 3, "hidden_act": "mish", **dict.fromkeys(SIZES, 2)})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    with pytest.raises(ValueError, match=r"^load_pretrained: expected a model_type among gpt2, "):
        fn.io.load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"^load_pretrained: expected model\.safetensors, or its "):
        fn.io.load_pretrained(tmp_path)


SIZES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
    "intermediate_size",
)
