"""Networks of the models that people have as files, from the configurations that come with them.

A configuration is what `config.json` holds, as the library transformers writes it, and names are
those of its files; residual networks have torchvision's.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax

from ..interop.safetensors import load_safetensors
from ..layers.norm import BatchNorm, LayerNorm, RMSNorm
from ..nn.layer import Layer
from ..ops.sequences.rotary import llama3_frequencies, rotary_frequencies
from ..types import Array, Params, State, require, shown
from .bert import BERT
from .family import Family, Settings
from .gpt import GPT
from .resnet import ResNet
from .vit import ViT

IDS = (jax.ShapeDtypeStruct((1, 2), "int32"),)


def resnet(depth: int, outputs: int = 1000) -> Family:
    """torchvision's residual network of so many layers: 18, 34, 50, 101 or 152.

    >>> sorted(resnet(18).net.init(jax.random.key(0), *resnet(18).inputs)[0])[-2:]
    ['layer3', 'layer4']
    """
    net = ResNet(depth, outputs, norm=partial(BatchNorm, unbiased_running_var=True))
    return Family("resnet", net, (jax.ShapeDtypeStruct((1, 64, 64, 3), "float32"),), {})


def gpt2(config: Mapping[str, Any], *, cache: bool = False, logits: bool = True) -> Family:
    """GPT-2 of a configuration, with its tied head.

    Args:
        config: What `config.json` holds.
        cache: See `GPT`.
        logits: See `GPT`.

    Raises:
        ValueError: If the configuration lacks something, or asks for what the network has not.

    >>> config = {"vocab_size": 11, "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 4}
    >>> gpt2(config).names["block_0/mlp/up"]
    'transformer.h.0.mlp.c_fc'

    Reference: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
    """
    get = Settings("gpt2", config)
    get.only({"scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False})
    get.only({"add_cross_attention": False, "tie_word_embeddings": True})
    net = GPT(
        get("vocab_size"), width=get("n_embd"), depth=get("n_layer"), heads=get("n_head"),
        length=get("n_positions"), hidden=get("n_inner", None),
        activation=get.activation("activation_function", "gelu_new"),
        norm=partial(LayerNorm, eps=get("layer_norm_epsilon", 1e-5)), cache=cache, logits=logits,
    )  # fmt: skip
    block = {
        "norm1": "ln_1",
        **_attention(q="attn.c_attn", k="attn.c_attn", v="attn.c_attn", out="attn.c_proj"),
        "norm2": "ln_2",
        "mlp/up": "mlp.c_fc",
        "mlp/down": "mlp.c_proj",
    }
    names = {"tokens": "wte", "positions": "wpe", **_blocks("h", get("n_layer"), block)}
    names = _prefixed("transformer.", {**names, "norm": "ln_f"})
    turned = tuple({name for name in names.values() if ".c_" in name})
    ignore = ("lm_head.weight", "*.attn.bias", "*.attn.masked_bias")
    return Family("gpt2", net, IDS, names, "transformer.", turned, ignore)


def llama(
    config: Mapping[str, Any],
    *,
    cache: bool = False,
    logits: bool = True,
    length: int | None = None,
) -> Family:
    """Llama of a configuration: RMS norms, rotary positions, grouped queries, gated feed-forward.

    Args:
        config: What `config.json` holds.
        cache: See `GPT`.
        logits: See `GPT`.
        length: The most tokens that it is used with, and so those of a cache; None for as many as
            the configuration says.

    Raises:
        ValueError: If the configuration lacks something, or asks for what the network has not, such
            as positions that are scaled in another way than those of Llama 3.1.

    >>> config = {
    ...     "vocab_size": 11, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
    ...     "num_attention_heads": 2, "max_position_embeddings": 16, "rms_norm_eps": 1e-5,
    ... }
    >>> llama(config).names["block_0/attention/q"]
    'model.layers.0.self_attn.q_proj'

    Reference: Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", 2023.
    """
    get = Settings("llama", config)
    width, heads = get("hidden_size"), get("num_attention_heads")
    get.only({"hidden_act": "silu", "mlp_bias": False, "head_dim": width // heads})
    tied = get("tie_word_embeddings", False)
    net = GPT(
        get("vocab_size"), width=width, depth=get("num_hidden_layers"), heads=heads,
        length=length or get("max_position_embeddings"),
        kv_heads=get("num_key_value_heads", heads), hidden=get("intermediate_size"),
        activation="swiglu", norm=partial(RMSNorm, eps=get("rms_norm_eps")), rotary=True,
        bias=get("attention_bias", False), cache=cache, logits=logits, tied=tied,
        rotary_frequencies=_frequencies(get, width // heads),
    )  # fmt: skip
    projections = {part: f"self_attn.{part[0]}_proj" for part in ("q", "k", "v", "out")}
    block = {
        "norm1": "input_layernorm",
        **_attention(**projections),
        "norm2": "post_attention_layernorm",
        **{f"mlp/{part}": f"mlp.{part}_proj" for part in ("gate", "up", "down")},
    }
    layers = _blocks("layers", get("num_hidden_layers"), block)
    names = _prefixed("model.", {"tokens": "embed_tokens", **layers, "norm": "norm"})
    head, ignore = ({}, ("lm_head.weight",)) if tied else ({"head": "lm_head"}, ())
    ignore = (*ignore, "*.rotary_emb.inv_freq")
    return Family("llama", net, IDS, {**names, **head}, "model.", ignore=ignore)


def _frequencies(get: Settings, head: int) -> Array:
    """By how much the pairs of a head of this width are turned from one position to the next."""
    own = get("rope_parameters", None) or {}
    scaling = Settings(get.name, get("rope_scaling", None) or own)
    part = own.get("partial_rotary_factor") or get("partial_rotary_factor", None) or 1
    base = own.get("rope_theta") or get("rope_theta", 10000.0)
    frequencies = rotary_frequencies(int(head * part), base=base)
    kind = scaling("rope_type", scaling("type", "default"))
    require(
        kind in ("default", "llama3"),
        get.name,
        "a rope_type 'default' or 'llama3'",
        shown(kind),
        "Give GPT the frequencies of other kinds: rotary_frequencies=array.",
    )
    if kind == "default":
        return frequencies
    factors = ("factor", "low_freq_factor", "high_freq_factor")
    return llama3_frequencies(
        frequencies,
        length=scaling("original_max_position_embeddings"),
        **{name: scaling(name) for name in factors},
    )


def bert(config: Mapping[str, Any], *, head: str | None = None) -> Family:
    """BERT of a configuration.

    Args:
        config: What `config.json` holds.
        head: See `BERT`; None for that of the first of the configuration's `architectures`.

    Raises:
        ValueError: If the configuration lacks something, or asks for what the network has not.

    >>> config = {
    ...     "vocab_size": 11, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
    ...     "num_attention_heads": 2, "max_position_embeddings": 16,
    ... }
    >>> bert(config).names["block_0/attention/q"]
    'bert.encoder.layer.0.attention.self.query'

    Reference: Devlin et al., "BERT: Pre-training of Deep Bidirectional Transformers for Language
    Understanding", 2019.
    """
    get = Settings("bert", config)
    get.only(
        {"position_embedding_type": "absolute", "is_decoder": False, "add_cross_attention": False}
    )
    kind = (get("architectures", None) or [""])[0]
    head = head or _BERT_HEADS.get(kind, "features")
    net = BERT(
        get("vocab_size"), width=get("hidden_size"), depth=get("num_hidden_layers"),
        heads=get("num_attention_heads"), length=get("max_position_embeddings"),
        types=get("type_vocab_size", 2), hidden=get("intermediate_size"),
        activation=get.activation("hidden_act", "gelu"),
        norm=partial(LayerNorm, eps=get("layer_norm_eps", 1e-12)), head=head,
        outputs=len(get("id2label", (0, 1))),
    )  # fmt: skip
    block = {
        **_encoder(query="attention.self", out="attention.output.dense"),
        "norm1": "attention.output.LayerNorm",
        "norm2": "output.LayerNorm",
    }
    parts = ("word", "token_type", "position")
    tables = dict(zip(("tokens", "types", "positions"), parts, strict=True))
    names = {path: f"embeddings.{part}_embeddings" for path, part in tables.items()}
    blocks = _blocks("encoder.layer", get("num_hidden_layers"), block)
    names = _prefixed("bert.", {**names, "norm": "embeddings.LayerNorm", **blocks})
    ignore = (*_BERT_IGNORED[head], "*.position_ids")
    return Family("bert", net, IDS, {**names, **_BERT_NAMES[head]}, "bert.", ignore=ignore)


_BERT_HEADS = {
    "BertForMaskedLM": "tokens",
    "BertForPreTraining": "tokens",
    "BertForSequenceClassification": "classes",
}
_BERT_NAMES = {
    "features": {},
    "pooled": {"pooler/dense": "bert.pooler.dense"},
    "classes": {"pooler/dense": "bert.pooler.dense", "head": "classifier"},
    "tokens": {
        "transform/dense": "cls.predictions.transform.dense",
        "transform/norm": "cls.predictions.transform.LayerNorm",
        "bias": "cls.predictions",
    },
}
_BERT_IGNORED = {
    "features": ("*pooler.*", "cls.*", "classifier.*"),
    "pooled": ("cls.*", "classifier.*"),
    "classes": ("cls.*",),
    "tokens": ("*pooler.*", "cls.seq_relationship.*", "cls.predictions.decoder.*", "classifier.*"),
}


def vit(config: Mapping[str, Any]) -> Family:
    """A vision transformer of a configuration, with a head for as many classes as that has labels.

    Args:
        config: What `config.json` holds.

    Raises:
        ValueError: If the configuration lacks something, or asks for what the network has not.

    >>> config = {
    ...     "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
    ...     "num_attention_heads": 2, "image_size": 8, "patch_size": 4,
    ... }
    >>> vit(config).names["token/token"]
    'vit.embeddings.cls_token'

    Reference: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021.
    """
    get = Settings("vit", config)
    get.only({"qkv_bias": True})
    size = get("image_size")
    sides = (size, size) if isinstance(size, int) else tuple(size)
    net = ViT(
        len(get("id2label", (0, 1))), patch=get("patch_size"), width=get("hidden_size"),
        depth=get("num_hidden_layers"), heads=get("num_attention_heads"),
        hidden=get("intermediate_size"), activation=get.activation("hidden_act", "gelu"),
        norm=partial(LayerNorm, eps=get("layer_norm_eps", 1e-12)),
    )  # fmt: skip
    block = {
        "norm1": "layernorm_before",
        **_encoder(query="attention.attention", out="attention.output.dense"),
        "norm2": "layernorm_after",
    }
    names = {
        "patches": "embeddings.patch_embeddings.projection",
        "token/token": "embeddings.cls_token",
        "positions/table": "embeddings.position_embeddings",
        **_blocks("encoder.layer", get("num_hidden_layers"), block),
        "norm": "layernorm",
    }
    image = jax.ShapeDtypeStruct((1, *sides, get("num_channels", 3)), "float32")
    names = {**_prefixed("vit.", names), "head": "classifier"}
    return Family("vit", net, (image,), names, "vit.", ignore=("*pooler.*", "*.mask_token"))


FAMILIES = {"gpt2": gpt2, "bert": bert, "vit": vit, "llama": llama}


def load_pretrained(folder: str | Path) -> tuple[Layer, Params, State]:
    """The network in a folder that holds `config.json` and `model*.safetensors`, with its weights.

    Args:
        folder: As `save_pretrained` of the library transformers leaves it: GPT-2, BERT, ViT, Llama.

    Returns:
        `(net, params, state)`.

    Raises:
        ValueError: If the kind of model is not known, or an array is missing, extra or of another
            shape.
        OSError: If a file cannot be read.
        ModuleNotFoundError: Without the package safetensors.

    >>> import tempfile
    >>> from funcnet.interop.safetensors import save_safetensors
    >>> folder, config = Path(tempfile.mkdtemp()), {
    ...     "model_type": "llama", "vocab_size": 11, "hidden_size": 8, "intermediate_size": 12,
    ...     "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16,
    ...     "rms_norm_eps": 1e-5,
    ... }
    >>> model = llama(config)
    >>> params, state = model.net.init(jax.random.key(0), *model.inputs)
    >>> save_safetensors(folder / "model.safetensors", model.write(params, state))
    >>> _ = (folder / "config.json").write_text(json.dumps(config))
    >>> net, loaded, _ = load_pretrained(folder)
    >>> net.name, bool((loaded["head"]["table"] == params["head"]["table"]).all())
    ('gpt', True)
    """
    config = json.loads((Path(folder) / "config.json").read_text())
    kind = config.get("model_type")
    require(
        kind in FAMILIES,
        "load_pretrained",
        f"a model_type among {', '.join(FAMILIES)}",
        shown(kind),
        "Others are read by from_state_dict, with names for a network of your own.",
    )
    files = sorted(Path(folder).glob("model*.safetensors"))
    require(
        files,
        "load_pretrained",
        "model.safetensors, or its parts, beside config.json",
        f"none in {folder}",
        "Weights of another format have to be saved as safetensors first.",
    )
    tensors = {name: x for file in files for name, x in load_safetensors(file).items()}
    family = FAMILIES[kind](config)
    return (family.net, *family.read(tensors))


def _attention(**parts: str) -> dict[str, str]:
    return {f"attention/{part}": name for part, name in parts.items()}


def _encoder(query: str, out: str) -> dict[str, str]:
    """The names that BERT and the vision transformer have in common."""
    return {
        **_attention(q=f"{query}.query", k=f"{query}.key", v=f"{query}.value", out=out),
        "mlp/up": "intermediate.dense",
        "mlp/down": "output.dense",
    }


def _blocks(start: str, depth: int, block: Mapping[str, str]) -> dict[str, str]:
    """A block's names, in every block."""
    return {
        f"block_{i}/{path}": f"{start}.{i}.{name}"
        for i in range(depth)
        for path, name in block.items()
    }


def _prefixed(prefix: str, names: Mapping[str, str]) -> dict[str, str]:
    return {path: f"{prefix}{name}" for path, name in names.items()}
