"""Ordinary losses in plain JAX, with what guards people write: there is nothing wrong with any."""

import functools

import jax
import jax.numpy as jnp

KEY = jax.random.key(0)
IDS = jnp.arange(10).reshape(2, 5) % 7


def normed(x, scale):
    mean = x.mean(-1, keepdims=True)
    var = ((x - mean) ** 2).mean(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(var + 1e-5) * scale


def attend(x, p, mask):
    q, k, v = jnp.split(x @ p["qkv"], 3, -1)
    scores = q @ k.swapaxes(-1, -2) / jnp.sqrt(q.shape[-1])
    weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf))
    return (weights @ v) @ p["out"]


def drop(x, key):
    keep = jax.random.bernoulli(key, 0.9, x.shape)
    return jnp.where(keep, x / 0.9, 0)


def transformer(params, ids, key):
    x = params["embed"][ids] + params["positions"]
    mask = jnp.tril(jnp.ones((5, 5), bool))
    for i, p in enumerate(params["blocks"]):
        own = jax.random.fold_in(key, i)
        x = x + drop(attend(normed(x, p["scale"]), p, mask), own)
        x = x + jax.nn.gelu(x @ p["up"]) @ p["down"]
    logp = jax.nn.log_softmax(x @ params["embed"].T)
    weight = (ids > 0).astype(logp.dtype)
    picked = jnp.take_along_axis(logp, ids[..., None], -1)[..., 0]
    return -jnp.sum(picked * weight) / jnp.maximum(weight.sum(), 1)


def lstm(params, xs):
    def step(carry, x):
        h, c = carry
        i, f, g, o = jnp.split(jnp.concatenate([x, h], -1) @ params["w"] + params["b"], 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    start = jnp.zeros((2, 4)), jnp.zeros((2, 4))
    _, hs = jax.lax.scan(step, start, xs)
    return jnp.mean((hs - 1) ** 2)


def convnet(params, x, labels):
    x = jax.lax.conv_general_dilated(
        x, params["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    x = jax.nn.relu((x - mean) * jax.lax.rsqrt(var + 1e-5))
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    logits = x.reshape(len(x), -1) @ params["head"]
    shifted = logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    logp = shifted - jnp.log(jnp.sum(jnp.exp(shifted), -1, keepdims=True))
    return -jnp.mean(logp[jnp.arange(len(labels)), labels])


def vae(params, x, key):
    mean, log_var = jnp.split(jnp.tanh(x @ params["up"]) @ params["code"], 2, -1)
    code = mean + jnp.exp(log_var / 2) * jax.random.normal(key, mean.shape)
    logits = code @ params["down"]
    coins = jnp.sum(jnp.maximum(logits, 0) - logits * x + jnp.log1p(jnp.exp(-jnp.abs(logits))), -1)
    kl = 0.5 * jnp.sum(mean**2 + jnp.exp(log_var) - 1 - log_var, -1)
    return jnp.mean(coins + kl)


def cosine(params, x, y):
    a, b = x @ params["w"], y @ params["w"]
    sizes = jnp.sqrt(jnp.sum(a**2, -1) * jnp.sum(b**2, -1) + 1e-8)
    return -jnp.mean(jnp.sum(a * b, -1) / sizes)


def guarded(params, n, r2):
    total = params["w"] * n
    mean = jnp.where(n > 0, total / jnp.where(n > 0, n, 1.0), 0.0)
    length = jnp.where(r2 > 0, jnp.sqrt(jnp.where(r2 > 0, r2, 1.0)), 0.0)
    angle = jnp.arccos(jnp.clip(params["w"], -1 + 1e-6, 1 - 1e-6))
    log = jnp.log(jnp.maximum(r2, 1e-6)) + jnp.log(params["w"] ** 2 + 1e-6)
    share = total / (jnp.abs(total).sum() + 1e-6)
    elu = jnp.where(n > 0, n, jnp.expm1(jnp.minimum(n, 0.0)))
    return jnp.sum(mean + length + angle + log + share + elu)


def gated(params, mask):
    w = params["w"]
    root = jnp.where(w > 0, jnp.sqrt(jnp.where(w > 0, w, 0.0)), 0.0)
    same = jax.vmap(lambda x: jax.lax.cond(x > 0, jnp.sqrt, lambda x: x, x))(w)
    some = jax.scipy.special.logsumexp(w * 100, where=mask) + jax.nn.softmax(w, where=mask)[0]
    return jnp.sum(root + same + some) + jnp.nanmean(w)


def clipped_step(params, x):
    loss = lambda p: jnp.mean(jax.nn.silu(x @ p["w"]) ** 2)  # noqa: E731  # as people write it
    grads = jax.grad(loss)(params)
    size = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)) + 1e-12)
    grads = jax.tree.map(lambda g: g * jnp.minimum(1.0, 1.0 / size), grads)
    return loss(jax.tree.map(lambda p, g: p - 0.1 * g, params, grads))


@functools.partial(jax.jit, static_argnames="shape")
def drawn(shape, seed):
    return jax.random.normal(jax.random.key(seed), shape) * 0.3


def draw(*shape, seed=0):
    return drawn(shape, seed)


def block(seed):
    return {
        "qkv": draw(8, 24, seed=seed), "out": draw(8, 8, seed=seed), "scale": jnp.ones(8),
        "up": draw(8, 16, seed=seed), "down": draw(16, 8, seed=seed),
    }  # fmt: skip


GPT = {"embed": draw(7, 8), "positions": draw(5, 8), "blocks": [block(1), block(2)]}
VAE = {"up": draw(6, 8), "code": draw(8, 4), "down": draw(2, 6)}

LOSSES = {
    "transformer": (transformer, (GPT, IDS, KEY)),
    "LSTM": (lstm, ({"w": draw(7, 16), "b": jnp.zeros(16)}, draw(6, 2, 3))),
    "CNN": (
        convnet,
        ({"conv": draw(3, 3, 1, 4), "head": draw(64, 3)}, draw(2, 8, 8, 1), jnp.array([0, 2])),
    ),
    "VAE": (vae, (VAE, draw(3, 6) > 0, KEY)),
    "cosine": (cosine, ({"w": draw(5, 3)}, draw(2, 5), draw(2, 5, seed=1))),
    "guards": (guarded, ({"w": draw(3)}, jnp.array([0.0, 1, 2]), jnp.array([0.0, 1, 2]))),
    "gates": (gated, ({"w": jnp.array([1.0, -1, 3])}, jnp.array([True, True, False]))),
    "gradient clipping": (clipped_step, ({"w": draw(5, 3)}, draw(2, 5))),
}
