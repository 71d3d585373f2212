"""Planted losses of a gradient, each in six surroundings, and what `explain_zero` says of them."""

import inspect
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

import funcnet as fn

KEY = jax.random.key(0)
X = jnp.array([0.3, -0.7, 1.1, 0.2])
MASK = jnp.zeros(4)


def argmax(x):
    return jnp.argmax(x) * jnp.ones(4)  # lost: argmax


def compared(x):
    return (x > 0) * 1.0  # lost: compared


def cast(x):
    return x.astype(int) * 1.0  # lost: cast


def stopped(x):
    return jax.lax.stop_gradient(x)  # lost: stopped


def rounded(x):
    return jnp.round(x)  # lost: rounded


def floored(x):
    return jnp.floor(x) - 0.5  # lost: floored


def unused(x):
    return jnp.sin(MASK)


def sigmoid(x):
    return jax.nn.sigmoid(x + 200.0)  # lost: sigmoid


def faint(x):
    return 1.0 + jax.nn.sigmoid(x - 40.0)  # lost: faint


def tanh(x):
    return jnp.tanh(x * 1.0 - 50.0)  # lost: tanh


def clipped(x):
    return jnp.clip(x, 20.0, 30.0)  # lost: clipped


def dead_relu(x):
    return jax.nn.relu(x - 50.0)  # lost: dead_relu


def dead_op(x):
    return fn.relu(x - 50.0)  # lost: dead_op


def where(x):
    return jnp.where(jnp.abs(x) < 100, 1.0, x)  # lost: where


def times_zero(x):
    return x * MASK  # lost: times_zero


def through_zero(x):
    return x @ jnp.zeros((4, 4))  # lost: through_zero


def cancelled(x):
    return jnp.sin(x) - jnp.sin(x)  # lost: cancelled


def shifted(x):
    return jnp.sum(jax.nn.softmax(x)) * jnp.ones(4)  # lost: shifted


def underflow(x):
    half = x.astype(jnp.float16)
    return (half * 1e-5 * 1e-5).astype(jnp.float32)  # lost: underflow


@jax.custom_vjp
def foreign(x):
    return jnp.sin(x)


def foreign_forward(x):
    return jnp.sin(x), None


def foreign_backward(_, dy):
    return (jnp.zeros_like(dy),)  # lost: zero_rule


foreign.defvjp(foreign_forward, foreign_backward)


def zero_rule(x):
    return foreign(x)


CAUSES = {
    argmax: "cut", compared: "cut", cast: "cut", stopped: "cut", rounded: "cut", floored: "cut",
    unused: "unused", sigmoid: "saturated", faint: "saturated", tanh: "saturated",
    clipped: "saturated", dead_relu: "saturated", dead_op: "saturated", where: "masked",
    times_zero: "masked", through_zero: "masked", cancelled: "cancelled", shifted: "cancelled",
    underflow: "underflow", zero_rule: "rule",
}  # fmt: skip


def healthy(x):
    return jnp.sin(x) * 1.5 + 0.3


def plain(f):
    return lambda x: jnp.sum(healthy(f(healthy(x)))), X


def jitted(f):
    return lambda x: jnp.sum(healthy(jax.jit(f)(healthy(x)))), X


def scanned(f):
    def loss(x):
        last = jax.lax.scan(lambda h, s: (f(healthy(h + s)), None), x, jnp.arange(3.0))[0]
        return jnp.sum(healthy(last))

    return loss, X


def branched(f):
    return lambda x: jnp.sum(healthy(jax.lax.cond(x[0] > -9, f, healthy, healthy(x)))), X


def mapped(f):
    return lambda x: jnp.sum(healthy(jax.vmap(f)(healthy(x)))), jnp.stack([X, X + 0.1])


def layered(f):
    net = fn.serial(fn.Dense(4), planted=f)
    params, _ = net.init(KEY, X[None])
    return lambda params: jnp.mean((net(params, X[None])[0] - 0.3) ** 2), params


SURROUNDINGS = (plain, jitted, scanned, branched, mapped, layered)


class Plant(NamedTuple):
    """A planted loss: the function, its cause, and what is around it."""

    f: Callable
    around: Callable

    @property
    def name(self) -> str:
        return f"{self.f.__name__}-{self.around.__name__}"


def applies(f: Callable, around: Callable) -> bool:
    """Whether that is the cause there: three faint gradients underflow, a branch is chosen by x."""
    return (f, around) not in ((underflow, layered), (faint, scanned), (unused, branched))


PLANTS = [Plant(f, around) for f in CAUSES for around in SURROUNDINGS if applies(f, around)]


def line_of(f: Callable) -> int | None:
    """The line that is planted, by its comment."""
    source = inspect.getsource(sys.modules[f.__module__]).splitlines()
    lines = [i + 1 for i, text in enumerate(source) if text.endswith(f"# lost: {f.__name__}")]
    return lines[0] if lines else None


def wrong(plant: Plant) -> str:
    """What the report says that is not so; "" if all is right."""
    loss, argument = plant.around(plant.f)
    report = fn.explain_zero(loss)(argument)
    lost = [leaf for leaf in report.leaves if leaf.lost]
    if not report or not lost:
        return "nothing found"
    turn = "0" if plant.f in (argmax, compared, cast, stopped) else "2"
    for leaf in lost:
        place = leaf.places[0]
        if place.cause != CAUSES[plant.f]:
            return f"{leaf.path}: {place}"
        line = line_of(plant.f)
        if line is not None and (place.source is None or place.source.line != line):
            return f"{leaf.path}: line {line} is {place}"
        if plant.around is scanned and line is not None and place.iterations[:1] != (turn,):
            return f"{leaf.path}: iteration {turn} is {place}"
    return ""


def straight_through(x):
    return x + jax.lax.stop_gradient(jnp.round(x) - x)


def half_dead(x):
    return jax.nn.relu(x)


def half_masked(x):
    return x * jnp.array([1.0, 1.0, 0.0, 1.0])


def left_tail(x):
    return jnp.log(jax.nn.sigmoid(x - 60.0))


def guarded(x):
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1.0)), x)


def tiny(x):
    return (1e-20 * x) * 1e20


def large(x):
    return jnp.exp(x + 9.0)


def longest(x):
    return jnp.max(x) * jnp.ones(4)


def picked(x):
    return x[jnp.argmax(x)] * jnp.ones(4)


def centred(x):
    return (x - jnp.mean(x)) ** 3


def normalised(x):
    return fn.layer_norm(x, jnp.ones(4), jnp.zeros(4)) ** 2


def weighted(x):
    return jax.nn.softmax(x) * jnp.arange(4.0)


HEALTHY = (
    healthy, straight_through, half_dead, half_masked, left_tail, guarded, tiny, large, longest,
    picked, centred, normalised, weighted,
)  # fmt: skip


def network(net: fn.Layer, x: jax.Array, **options: bool) -> tuple[Callable, object]:
    """A network's loss, and its parameters."""
    params, state = net.init(KEY, x)

    def loss(params):
        out = net.apply(params, state, x, **options)[0]
        return jnp.mean((out - 1.0) ** 2)

    return loss, params


def networks() -> dict[str, tuple[Callable, object]]:
    """Networks of which every leaf has a gradient."""
    rows, image = jax.random.normal(KEY, (3, 5)), jax.random.normal(KEY, (2, 8, 8, 1))
    tokens = jax.random.randint(KEY, (2, 6), 0, 9)
    conv = fn.serial(fn.Conv(4, (3, 3)), fn.relu, fn.MaxPool((2, 2)), fn.Flatten(), fn.Dense(3))
    gpt = fn.nets.GPT(9, width=8, depth=2, heads=2, length=6, bias=False)
    return {
        "multilayer perceptron": network(fn.nets.MLP((8, 8, 2)), rows),
        "convolutions": network(conv, image),
        "residual network": network(fn.nets.ResNet(8, 3), jnp.tile(image, 3), train=True),
        "GPT of two blocks, without biases": network(gpt, tokens),
        "LSTM": network(fn.LSTM(4), rows[None]),
    }


def at_minimum() -> list[tuple[Callable, tuple]]:
    """Losses whose gradient is 0 because they are at their minimum."""
    return [
        (lambda x, y: jnp.mean((x - y) ** 2), (X, X)),
        (lambda x, y: fn.squared_error(x, y), (X, X)),
        (lambda x, y: jnp.sum(jnp.square(x - y)), (X, X)),
        (lambda x, y: fn.huber(x, y), (X, X)),
    ]


def table() -> str:
    """The scores as Markdown."""
    rows = []
    for around in SURROUNDINGS:
        own = [plant for plant in PLANTS if plant.around is around]
        right = sum(not wrong(plant) for plant in own)
        rows.append(f"| {around.__name__} | {right} of {len(own)} |")
    silent = [not fn.explain_zero(loss)(x) for f in HEALTHY for loss, x in (plain(f), scanned(f))]
    whole = [not fn.explain_zero(loss)(params) for loss, params in networks().values()]
    told = [fn.explain_zero(loss)(*args) for loss, args in at_minimum()]
    minima = [not r and r.leaves[0].places[0].cause == "minimum" for r in told]
    return "\n".join(
        [
            "| planted losses of a gradient | cause and line right |", "|---|---|", *rows,
            f"| functions whose gradient flows | {sum(silent)} of {len(silent)} silent |",
            f"| networks whose gradient flows | {sum(whole)} of {len(whole)} silent |",
            f"| losses at their minimum | {sum(minima)} of {len(minima)} silent, and told |",
            f"\nCauses: {', '.join(f.__name__.replace('_', ' ') for f in CAUSES)}.",
        ]
    )  # fmt: skip
