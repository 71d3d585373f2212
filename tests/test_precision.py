"""What a 16-bit model multiplies: 16-bit numbers, summed in float32."""

import collections
import re

import jax
import jax.numpy as jnp
import pytest

from funcnet.rules.prove import cast, drawn

from .cases import LAYERS, RULES
from .forms import some

PRODUCT = re.compile(r"stablehlo\.(?:dot_general|convolution).*: \(tensor<(.*?)>, tensor<(.*?)>\)")

FLOAT32 = {
    "backprop_loss": "the slides' numbers, to be read: nobody trains with it in 16 bits",
    "einsum": "a letter of one operand alone is summed first, and the sum is not rounded",
    "info_nce": "a temperature makes the rounding of similarities large",
    "nt_xent": "as in info_nce",
    "ctc_loss": "shares of alignments are taken from probabilities nearly as large",
}
"""The ops that multiply in float32 whatever they are given, and why."""


def products(f, *args) -> collections.Counter:
    """The dtypes of what is multiplied in `f`, as lowered for a GPU and a TPU."""
    lowered = jax.jit(f).trace(*args).lower(lowering_platforms=("cuda", "tpu"))
    pairs = PRODUCT.findall(lowered.as_text())
    return collections.Counter(side.split("x")[-1] for pair in pairs for side in pair)


def sixteen(tree):
    """The shapes of floating arrays in bfloat16."""
    return jax.eval_shape(lambda: cast(jax.tree.map(jnp.zeros_like, tree), jnp.bfloat16))


def squares(y):
    floats = [leaf for leaf in jax.tree.leaves(y) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return sum((leaf.astype(jnp.float32) ** 2).sum() for leaf in floats)


FAMILIES = [
    *("mlp", "lenet", "lstm", "gru", "rnn", "attention", "conv", "einsum"),
    *("linear attention", "linear attention, causal", "selective ssm"),
    *(
        pytest.param(name, marks=[pytest.mark.slow, pytest.mark.long])
        for name in ("gpt", "resnet", "vit", "char rnn", "unet", "vae")
    ),
]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_in_bfloat16_multiplies_bfloat16(name):
    row, key = LAYERS[name], jax.random.key(0)
    params, state = jax.eval_shape(row.layer.init, key, *row.inputs)

    def loss(params, state, inputs, key):
        key = key if row.needs_key else None
        return squares(row.layer.apply(params, state, *inputs, train=True, key=key)[0])

    found = products(jax.grad(loss), sixteen(params), state, sixteen(row.inputs), key)
    assert set(found) == {"bf16"}, found


def gradient_products(rule, case) -> collections.Counter:
    args = cast(drawn(case), jnp.bfloat16)
    leaves, tree = jax.tree.flatten(args)
    places = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def loss(floats):
        filled = list(leaves)
        for i, x in zip(places, floats, strict=True):
            filled[i] = x
        return squares(rule.op(*tree.unflatten(filled), **case.static))

    return products(jax.grad(loss), [leaves[i] for i in places])


LARGE = {"attention", "attention_weights", "backprop_loss", "conv_transpose", "ctc_loss", "elman"}
LARGE |= {"gru", "info_nce", "linear_attention", "lstm", "nt_xent", "selective_scan"}
"""Left to the long form: most of them are layers above."""


@pytest.mark.parametrize(
    "rule",
    some(RULES, [rule for rule in RULES if rule.name not in LARGE]),
    ids=lambda rule: rule.name,
)
def test_an_op_in_bfloat16_multiplies_bfloat16(rule):
    first, *others = rule.cases.values()
    found = gradient_products(rule, first)
    if found:  # the other cases of an op without products have none either
        found = sum((gradient_products(rule, case) for case in others), found)
    assert ("f32" in found) == (rule.name in FLOAT32), found
