"""FLOPs by formula, as counted, and as XLA says."""

import jax
import jax.numpy as jnp
from jax import lax

import funcnet as fn

KEY = jax.random.key(0)


def shape(*lengths, dtype="float32"):
    return jax.ShapeDtypeStruct(lengths, dtype)


def dense():
    m, k, n = 64, 256, 128
    args = shape(m, k), shape(k, n), shape(n)
    return lambda x, w, b: x @ w + b, args, 2 * m * k * n + m * n, 4 * m * k * n + (m - 1) * n


def conv():
    """3 x 3 over h x w with the edges padded: (3h − 2)(3w − 2) taps lie on the input."""
    b, h, w, i, o = 8, 28, 28, 16, 32
    forward = 2 * b * (3 * h - 2) * (3 * w - 2) * i * o

    def f(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    return f, (shape(b, h, w, i), shape(3, 3, i, o)), forward, 2 * forward


def products(f, args, forward, backward):
    """A row of which only products are compared."""
    return f, args, forward, backward, True


def attention(f, backward):
    b, t, h, d = 4, 128, 4, 32
    product = 2 * b * h * t * t * d
    x = shape(b, t, h, d)
    return products(f, (x, x, x), 2 * product, backward * product)


def plain_attention(q, k, v):
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)


def lstm():
    b, t, d, h = 16, 64, 32, 64
    net = fn.LSTM(h)
    x = shape(b, t, d)
    params, state = jax.eval_shape(net.init, KEY, x)
    forward = 2 * b * t * 4 * h * (d + h)
    f = lambda params, x: net.apply(params, state, x)[0]  # noqa: E731
    return products(f, (params, x), forward, 2 * forward)


def unrolled(x, weights):
    for w in weights:
        x = x @ w
    return x


def scanned(x, weights):
    return lax.scan(lambda x, w: (x @ w, None), x, weights)[0]


def deep(f, weights):
    forward = 32 * 2 * 64 * 256 * 256
    return f, (shape(64, 256), weights), forward, 2 * forward


def gpt(stacked):
    """6 for each weight that multiplies and each token, and 12 times depth, tokens and width in
    attention for each token (PaLM, appendix B); 14 where scores are computed again."""
    depth, width, tokens, batch, vocabulary = 4, 128, 128, 4, 512
    size = {"width": width, "depth": depth, "heads": 4, "length": tokens}
    net = fn.nets.GPT(vocabulary, **size, stacked=stacked)
    ids = shape(batch, tokens, dtype="int32")
    params, state = jax.eval_shape(net.init, KEY, ids)
    weights = 12 * depth * width * width + vocabulary * width
    forward = batch * tokens * (2 * weights + 4 * depth * tokens * width)
    backward = batch * tokens * (4 * weights + 10 * depth * tokens * width)

    def loss(params, ids):
        return fn.cross_entropy(net.apply(params, state, ids)[0], ids)

    return products(loss, (params, ids), forward, backward)


PROGRAMS = {
    "dense with bias": dense,
    "3 x 3 convolution, edges padded": conv,
    "attention in jax.numpy": lambda: attention(plain_attention, 4),
    "`fn.attention`": lambda: attention(fn.attention, 5),
    "`fn.LSTM`": lstm,
    "32 layers, unrolled": lambda: deep(unrolled, [shape(256, 256)] * 32),
    "32 layers, `lax.scan`": lambda: deep(scanned, shape(32, 256, 256)),
    "GPT of 4 blocks": lambda: gpt(False),
    "the same, its blocks stacked": lambda: gpt(True),
}


def xla(f, args):
    """What XLA says of the function, and of its result and gradient together."""

    def both(*args):
        floating = [i for i, x in enumerate(args) if "int" not in str(getattr(x, "dtype", ""))]
        y, pull = jax.vjp(lambda *some: f(*some, *args[len(floating) :]), *args[: len(floating)])
        return y, pull(jnp.ones_like(y))

    found = [jax.jit(g).lower(*args).compile().cost_analysis() for g in (f, both)]
    return [int(said["flops"]) for said in found]


def counted(f, args, products_alone):
    c = fn.cost(f)(*args)
    if not products_alone:
        return c.forward.flops, c.backward.flops
    rows = [row for row in c.by("op") if row.name == "dot_general"]
    return sum(row.forward for row in rows), sum(row.backward for row in rows)


def table() -> str:
    """Each program in a row."""
    lines = [
        "| FLOPs of | forward, by formula | counted | backward, by formula | counted "
        "| XLA, forward | XLA, both |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, make in PROGRAMS.items():
        f, args, forward, backward, *alone = make()
        found = counted(f, args, bool(alone))
        cells = (forward, found[0], backward, found[1], *xla(f, args))
        lines.append(f"| {name} | {' | '.join(f'{n:,}' for n in cells)} |")
    return "\n".join(lines)
