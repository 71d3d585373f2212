"""Writes families.npz: outputs and gradients of published models, of toy size.

Run by hand, with PyTorch, transformers and torchvision installed; the tests read what it wrote:

    pip install torch==2.13.0 torchvision==0.28.0 transformers==5.24.0 safetensors numpy
    python -m tests.data.make_families

Parameters are not stored: `drawn` makes each from its name. Each model has `NAME/config`, its
config.json; `NAME/shapes`, the names and shapes in its file; `NAME/output`; and `NAME/grad/KEY`,
the gradient of the output weighted by `ripple`, at the places that `places` picks, of every array,
and of two in a residual network. `mixer` is the block of Mamba alone.
"""

import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .make_networks_torch import drawn, places, ripple

IDS = np.array([[1, 18, 3, 0, 7], [5, 5, 6, 2, 11]])
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
TYPES = np.array([[0, 0, 1, 1, 1], [0, 1, 1, 0, 0]])
IMAGES = drawn("images", (2, 3, 8, 12))
PHOTOS = drawn("photos", (1, 3, 40, 40))
STEPS = drawn("steps", (2, 9, 8))

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {"vocab_size": 19, "max_position_embeddings": 8, "intermediate_size": 24, **SMALL}
RESNETS = (18, 34, 50)


def models() -> dict[str, tuple]:
    """For each name: the class of the model, its configuration, and a function that runs it."""
    import torch
    import transformers as hf

    ids, mask, types, images = (torch.from_numpy(x) for x in (IDS, MASK, TYPES, IMAGES))
    vit = {**SMALL, "intermediate_size": 24, "image_size": (8, 12), "patch_size": 4}
    labels = {"num_labels": 3}
    gpt2 = hf.GPT2Config(vocab_size=19, n_embd=16, n_layer=2, n_head=4, n_positions=8)
    bert = {**TEXT, **labels}
    llama = {**TEXT, "num_key_value_heads": 2, "rope_theta": 100.0}
    rope = {
        "rope_type": "llama3", "rope_theta": 100.0, "original_max_position_embeddings": 16,
        "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    }  # fmt: skip
    longer = {**llama, "num_attention_heads": 2, "max_position_embeddings": 32}

    def of_ids(net: Callable):
        return net(ids).logits

    def of_pairs(net: Callable):
        return net(ids, attention_mask=mask, token_type_ids=types)

    return {
        "gpt2": (hf.GPT2LMHeadModel, gpt2, of_ids),
        "bert": (
            hf.BertModel,
            hf.BertConfig(**bert),
            lambda net: of_pairs(net).last_hidden_state,
        ),
        "bert_tokens": (
            hf.BertForMaskedLM,
            hf.BertConfig(**bert, hidden_act="gelu_new"),
            lambda net: of_pairs(net).logits,
        ),
        "bert_classes": (
            hf.BertForSequenceClassification,
            hf.BertConfig(**bert),
            lambda net: of_pairs(net).logits,
        ),
        "vit": (
            hf.ViTForImageClassification,
            hf.ViTConfig(**vit, **labels),
            lambda net: net(images).logits,
        ),
        "llama": (hf.LlamaForCausalLM, hf.LlamaConfig(**llama), of_ids),
        "llama_tied": (
            hf.LlamaForCausalLM,
            hf.LlamaConfig(**llama, tie_word_embeddings=True, attention_bias=True),
            of_ids,
        ),
        "llama_longer": (
            hf.LlamaForCausalLM,
            hf.LlamaConfig(**longer, rope_parameters=rope),
            of_ids,
        ),
    }


def record(name: str, kind: type, config, run: Callable) -> dict[str, np.ndarray]:
    """One model's arrays, computed in float64, under the names that its file has."""
    import torch
    from safetensors.numpy import load_file, save_file

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        kind(config).double().save_pretrained(folder)
        shapes = {key: value.shape for key, value in load_file(file).items()}
        save_file({k: drawn(f"{name}/{k}", s) for k, s in shapes.items()}, file)
        model = kind.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
        output = run(model.eval())
        (output * torch.from_numpy(ripple(tuple(output.shape)))).sum().backward()
        for parameter in model.parameters():
            unused = torch.zeros_like(parameter)
            parameter.data = unused if parameter.grad is None else parameter.grad
        model.save_pretrained(folder)
        gradients = load_file(file)
        written = json.loads((Path(folder) / "config.json").read_text())
    return described(name, written, shapes, output, gradients)


def record_resnet(depth: int) -> dict[str, np.ndarray]:
    """Those of a residual network, of which two gradients are kept."""
    import torch
    import torchvision

    name, model = f"resnet{depth}", getattr(torchvision.models, f"resnet{depth}")(num_classes=10)
    state = model.double().eval().state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    filled = {k: torch.from_numpy(np.asarray(drawn(f"{name}/{k}", s))) for k, s in shapes.items()}
    model.load_state_dict(filled)
    output = model(torch.from_numpy(PHOTOS))
    (output * torch.from_numpy(ripple(tuple(output.shape)))).sum().backward()
    kept = ("conv1.weight", "layer4.0.downsample.0.weight")
    gradients = {key: model.get_parameter(key).grad.numpy() for key in kept}
    return described(name, {"depth": depth, "outputs": 10}, shapes, output, gradients)


def record_mixer() -> dict[str, np.ndarray]:
    """The block of a state space model, with the gradient of its input and of every array."""
    import torch
    from transformers import MambaConfig
    from transformers.models.mamba.modeling_mamba import MambaMixer

    config = {"hidden_size": 8, "state_size": 4, "time_step_rank": 2}
    mixer = MambaMixer(MambaConfig(num_hidden_layers=1, **config), 0).double()
    shapes = {key: tuple(value.shape) for key, value in mixer.state_dict().items()}
    filled = {k: torch.from_numpy(drawn(f"mixer/{k}", s)) for k, s in shapes.items()}
    mixer.load_state_dict(filled)
    output = mixer(torch.from_numpy(STEPS))
    (output * torch.from_numpy(ripple(tuple(output.shape)))).sum().backward()
    gradients = {key: value.grad.numpy() for key, value in mixer.named_parameters()}
    return described("mixer", config, shapes, output, gradients)


def described(name: str, config: dict, shapes: dict, output, gradients: dict) -> dict:
    """The arrays of one model as they are stored."""
    arrays = {
        f"{name}/config": np.array(json.dumps(config)),
        f"{name}/shapes": np.array(json.dumps(shapes)),
        f"{name}/output": output.detach().numpy(),
    }
    for key, value in gradients.items():
        arrays[f"{name}/grad/{key}"] = value.ravel()[places(key, math.prod(value.shape))]
    return arrays


def main() -> None:
    """Write everything beside this file."""
    arrays: dict[str, np.ndarray] = {}
    for name, parts in models().items():
        arrays |= record(name, *parts)
    for depth in RESNETS:
        arrays |= record_resnet(depth)
    arrays |= record_mixer()
    path = Path(__file__).with_name("families.npz")
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
