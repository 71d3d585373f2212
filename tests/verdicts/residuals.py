"""How near `fn.residuals` comes to what the compiler sets aside, under some checkpoints."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

import funcnet as fn

GITHUB = "https://github.com"
POLICIES = jax.checkpoint_policies


class Model(NamedTuple):
    """A loss, the shapes that it takes, and the layers to wrap: the whole block, a part of it."""

    loss: Callable
    shapes: tuple
    layers: tuple[str, ...]


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, "float32")


def scanned(block, width, rows, depth, **weights):
    """A block repeated in a scan, its weights stacked."""

    def loss(params, x):
        with jax.named_scope("block"):
            h, _ = jax.lax.scan(lambda h, own: (block(own, h), None), x, params)
        return jnp.mean(h**2)

    stacked = {name: shape(depth, *sizes) for name, sizes in weights.items()}
    return Model(loss, (stacked, shape(*rows, width)), ("block", "block/mlp"))


def normed(h):
    with jax.named_scope("norm"):
        h = h - jnp.mean(h, -1, keepdims=True)
        return h * jax.lax.rsqrt(jnp.mean(h * h, -1, keepdims=True) + 1e-5)


def gelu_block(own, h):
    h = h @ own["w"]
    with jax.named_scope("mlp"):
        return jax.nn.gelu(h)


def residual_block(own, h):
    y = normed(h)
    with jax.named_scope("mlp"):
        return h + jax.nn.silu(y @ own["up"]) @ own["down"]


def attention_block(own, h):
    y = normed(h)
    with jax.named_scope("attention"):
        q, k, v = y @ own["q"], y @ own["k"], y @ own["v"]
        weights = jax.nn.softmax(q @ jnp.swapaxes(k, -1, -2) / 4.0)
        h = h + weights @ v
    with jax.named_scope("mlp"):
        return h + jnp.tanh(h @ own["up"]) @ own["down"]


@jax.custom_vjp
def swish(x):
    """A rule of nobody's library: it keeps its input."""
    return x * jax.nn.sigmoid(x)


def swish_back(x, dy):
    s = jax.nn.sigmoid(x)
    return (dy * (s + x * s * (1 - s)),)


swish.defvjp(lambda x: (swish(x), x), swish_back)


def foreign_block(own, h):
    with jax.named_scope("mlp"):
        return h + swish(h @ own["up"]) @ own["down"]


def our_block(own, h):
    with jax.named_scope("mlp"):
        return h + fn.dense(fn.gelu(fn.dense(fn.layer_norm(h), own["up"])), own["down"])


def experts_block(own, h):
    """Experts that all see all: products with a batch axis, under names that no policy has."""
    with jax.named_scope("mlp"):
        up = jax.nn.relu(jnp.einsum("bd,edf->ebf", h, own["up"]))
        up = checkpoint_name(up, "moe_up")
        return h + jnp.mean(jnp.einsum("ebf,efd->ebd", up, own["down"]), 0)


def recurrent():
    """A loop over time that carries its state."""

    def loss(params, xs):
        def step(h, x):
            with jax.named_scope("mlp"):
                return jnp.tanh(x @ params["w"] + h @ params["u"]), None

        with jax.named_scope("block"):
            h, _ = jax.lax.scan(step, jnp.zeros(xs.shape[1:]), xs)
        return jnp.sum(h**2)

    params = {"w": shape(64, 64), "u": shape(64, 64)}
    return Model(loss, (params, shape(128, 32, 64)), ("block", "block/mlp"))


def unrolled():
    """The residual block again and again, written out."""

    def loss(params, x):
        for i, own in enumerate(params):
            with jax.named_scope(f"block_{i}"):
                x = residual_block(own, x)
        return jnp.mean(x**2)

    own = {"up": shape(64, 256), "down": shape(256, 64)}
    return Model(loss, ([own] * 12, shape(64, 64)), ("block_*", "block_*/mlp"))


MODELS: dict[str, Callable[[], Model]] = {
    "gelu, 64 layers": lambda: scanned(gelu_block, 128, (64,), 64, w=(128, 128)),
    "norm and silu, 64 layers": lambda: scanned(
        residual_block, 64, (128,), 64, up=(64, 128), down=(128, 64)
    ),
    "attention and tanh, 64 layers": lambda: scanned(
        attention_block, 32, (8, 32), 64,
        q=(32, 32), k=(32, 32), v=(32, 32), up=(32, 64), down=(64, 32),
    ),
    "a foreign custom_vjp, 64 layers": lambda: scanned(
        foreign_block, 64, (128,), 64, up=(64, 128), down=(128, 64)
    ),
    "ops of funcnet, 64 layers": lambda: scanned(
        our_block, 64, (128,), 64, up=(64, 128), down=(128, 64)
    ),
    "experts, 192 layers": lambda: scanned(
        experts_block, 32, (64,), 192, up=(4, 32, 32), down=(4, 32, 32)
    ),
    "recurrent, 128 steps": recurrent,
}  # fmt: skip


class Score(NamedTuple):
    """One model under one checkpoint: the bytes predicted and those of the compiler."""

    way: str
    predicted: int
    compiled: int


def ways(model):
    """Where the checkpoint stands, and its policy."""
    whole, *parts = model.layers
    yield None, None
    for policy in ("nothing_saveable", "dots_saveable", "dots_with_no_batch_dims_saveable"):
        yield whole, policy
    yield from ((part, "nothing_saveable") for part in parts)
    yield None, "nothing_saveable"
    yield None, "dots_saveable"


def scores(model):
    """What is predicted of each way, and what the compiler says of the function that it makes."""
    first = fn.residuals(model.loss, wrt=0)(*model.shapes)
    found = []
    for layer, policy in ways(model):
        if layer is None and policy is None:
            found.append(Score("as it is", first.bytes, first.compiled))
            continue
        option = first.what_if(layer, policy=policy)
        program = jax.jit(jax.grad(option.function)).lower(*model.shapes).compile()
        said = program.memory_analysis().temp_size_in_bytes
        found.append(Score(f"{layer or 'whole'}: {policy}", option.bytes, said))
    return found


def misordered(found, apart=1.02):
    """The pairs of ways that are predicted to differ, and differ the other way round."""
    pairs = itertools.combinations(sorted(found, key=lambda s: s.predicted), 2)
    return [
        (a, b) for a, b in pairs if b.predicted > apart * a.predicted and b.compiled <= a.compiled
    ]


def ratios(found):
    return [score.predicted / score.compiled for score in found]


def whole_function():
    """A checkpoint around all that there is, as in jax-ml/jax#12792: all is made again at once."""
    model = MODELS["gelu, 64 layers"]()
    return fn.residuals(model.loss, wrt=0, compiled=False)(*model.shapes).what_if(
        policy="nothing_saveable"
    )


def experts_without_names():
    """Experts under a policy of names that only dense layers have, as in maxtext#2207."""
    model = MODELS["experts, 192 layers"]()
    names = POLICIES.save_only_these_names("mlp_up", "mlp_down", "query", "key", "value", "out")
    return fn.residuals(model.loss, wrt=0, compiled=False)(*model.shapes).what_if(
        "block", policy=names
    )


def table():
    """Per model, how many ways were ranked and how near the bytes are; then the two reports."""
    lines = [
        "| model | ways | pairs that the compiler orders otherwise | bytes predicted / compiled |",
        "|---|---|---|---|",
    ]
    for name, make in [*MODELS.items(), ("written out, 12 blocks", unrolled)]:
        found = scores(make())
        near = ratios(found)
        lines.append(
            f"| {name} | {len(found)} | {len(misordered(found))} | "
            f"{min(near):.2f} to {max(near):.2f} |"
        )
    both = (whole_function(), experts_without_names())
    whole, experts = (str(option).replace("\n", " ") for option in both)
    return "\n".join(
        [
            *lines,
            "",
            "| report | what the verdict says |",
            "|---|---|",
            f"| [jax#12792]({GITHUB}/jax-ml/jax/issues/12792) | {whole} |",
            f"| [maxtext#2207]({GITHUB}/AI-Hypercomputer/maxtext/issues/2207) | {experts} |",
        ]
    )
