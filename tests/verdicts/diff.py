"""Planted differences of two functions, and where `diff` says that they part."""

import inspect
import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

import funcnet as fn

X = jnp.array([0.3, -0.7, 1.1, 0.2])
W = jnp.sin(jnp.arange(16.0)).reshape(4, 4)
KEY = jax.random.key(0)


def ruled(factor: float) -> Callable:
    """tanh with a hand-written rule, which is off by a factor."""

    @jax.custom_vjp
    def act(x):
        return jnp.tanh(x)

    act.defvjp(lambda x: (jnp.tanh(x), x), lambda x, dy: (factor * dy * (1 - jnp.tanh(x) ** 2),))
    return act


def forgetful() -> Callable:
    """A product whose rule forgets a term for one of its operands."""

    @jax.custom_vjp
    def scaled(x):
        return x * jnp.mean(x)

    scaled.defvjp(lambda x: (x * jnp.mean(x), x), lambda x, dy: (dy * jnp.mean(x),))
    return scaled


WRONG, SLIGHTLY, FORGETFUL = ruled(1.001), ruled(1.0001), forgetful()


def plus(x):
    return x + 0.5


PLANTED: dict[str, tuple[Callable, Callable]] = {
    "a constant": (lambda x: x * 2.0, lambda x: x * 2.001),  # parts: a constant
    "a constant by 1e-5": (lambda x: x + 3.0, lambda x: x + 3.0001),  # parts: a constant by 1e-5
    "swapped operands": (lambda x: x - X[::-1], lambda x: X[::-1] - x),  # parts: swapped operands
    "another function": (
        lambda x: x * jnp.sin(x),  # parts: another function
        lambda x: x * jnp.cos(x),  # parts: another function
    ),
    "another epsilon": (
        lambda x: x / jnp.sqrt(jnp.mean(x**2) + 1e-5),  # parts: another epsilon
        lambda x: x / jnp.sqrt(jnp.mean(x**2) + 1e-2),  # parts: another epsilon
    ),
    "a cast in the middle": (
        lambda x: jnp.exp(x),
        lambda x: jnp.exp(x.astype(jnp.bfloat16).astype(x.dtype)),  # parts: a cast in the middle
    ),
    "another approximation": (
        lambda x: jax.nn.gelu(x, approximate=True),  # parts: another approximation
        lambda x: jax.nn.gelu(x, approximate=False),  # parts: another approximation
    ),
    "a missing term": (
        lambda x: jnp.sin(x) + 0.01 * x,  # parts: a missing term
        lambda x: jnp.sin(x),
    ),
    "another axis": (
        lambda x: jnp.sum(W * x, axis=0),  # parts: another axis
        lambda x: jnp.sum(W * x, axis=1),  # parts: another axis
    ),
    "a transpose": (lambda x: W @ x, lambda x: W.T @ x),  # parts: a transpose
    "another order": (
        lambda x: jnp.tanh(plus(x)),  # parts: another order
        lambda x: plus(jnp.tanh(x)),  # parts: another order
    ),
    "a rule off by 0.1%": (lambda x: WRONG(x), lambda x: jnp.tanh(x)),  # parts: a rule off by 0.1%
    "a rule off by 0.01%": (
        lambda x: SLIGHTLY(x),  # parts: a rule off by 0.01%
        lambda x: jnp.tanh(x),
    ),
    "a rule without a term": (
        lambda x: FORGETFUL(x),  # parts: a rule without a term
        lambda x: x * jnp.mean(x),
    ),
    "a stop_gradient": (
        lambda x: x * jnp.sin(x),
        lambda x: x * jnp.sin(jax.lax.stop_gradient(x)),  # parts: a stop_gradient
    ),
}
"""What the two functions do at one place; the comment marks the lines that may be named."""


def healthy(x):
    return jnp.sin(x) * 1.5 + 0.3


def plain(f):
    return lambda x: jnp.sum(healthy(f(healthy(x))))


def jitted(f):
    return lambda x: jnp.sum(healthy(jax.jit(f)(healthy(x))))


def branched(f):
    return lambda x: jnp.sum(healthy(jax.lax.cond(x[0] > -9, f, plus, healthy(x))))


def remade(f):
    return lambda x: jnp.sum(healthy(jax.checkpoint(f)(healthy(x))))


def scanned(f):
    """The difference in the third of five iterations alone."""

    def step(h, i):
        return healthy(jax.lax.cond(i == 2, f, plus, h)), None

    return lambda x: jnp.sum(jax.lax.scan(step, x, jnp.arange(5))[0])


SURROUNDINGS = (plain, jitted, branched, remade, scanned)


class Plant(NamedTuple):
    """A planted difference: what it is, and what is around it."""

    what: str
    around: Callable

    @property
    def name(self) -> str:
        return f"{self.what}-{self.around.__name__}"


PLANTS = [Plant(what, around) for what in PLANTED for around in SURROUNDINGS]


def lines_of(what: str) -> list[int]:
    """The lines that are planted, by their comment."""
    source = inspect.getsource(sys.modules[__name__]).splitlines()
    return [i + 1 for i, text in enumerate(source) if text.endswith(f"# parts: {what}")]


def wrong(plant: Plant) -> str:
    """What the report says that is not so; "" if all is right."""
    f, g = (plant.around(h) for h in PLANTED[plant.what])
    report = fn.diff(f, g)(X)
    first = report.first
    if not report or first is None:
        return "no difference"
    backward = "rule" in plant.what or "gradient" in plant.what
    if (first.phase == "backward") != backward:
        return f"{first.phase}: {first}"
    sides = [side for side in (first.f, first.g) if side is not None]
    lines = [side.source.line for side in sides if side.source is not None]
    if not set(lines) & set(lines_of(plant.what)):
        return f"lines {lines_of(plant.what)}: {first}"
    if plant.around is scanned and not any(side.row.endswith("[2]") for side in sides):
        return f"iteration 2: {first}"
    return ""


def looped(x):
    return jax.lax.fori_loop(0, 4, lambda i, h: healthy(h), x)


def unrolled(x):
    return healthy(healthy(healthy(healthy(x))))


def network(net: fn.Layer, x: jax.Array) -> tuple[Callable, object]:
    """A network's loss, and its parameters."""
    params, state = net.init(KEY, x)
    return lambda params: jnp.mean((net.apply(params, state, x)[0] - 1.0) ** 2), params


def controls() -> dict[str, tuple[Callable, Callable, object]]:
    """Functions that differ by no more than rounding."""
    rows, tokens = jax.random.normal(KEY, (3, 5)), jax.random.randint(KEY, (2, 6), 0, 9)
    net, params = network(fn.serial(fn.Dense(4), fn.LayerNorm(), fn.gelu, fn.Dense(2)), rows)
    gpt, weights = network(fn.nets.GPT(9, width=8, depth=2, heads=2, length=6), tokens)
    right = ruled(1.0)
    return {
        "the same": (plain(plus), plain(plus), X),
        "jitted": (plain(plus), jax.jit(plain(plus)), X),
        "sums in another order": (
            lambda x: jnp.sum((x + X * 0.1) + W[0]),
            lambda x: jnp.sum(x + (X * 0.1 + W[0])),
            X,
        ),
        "a factor taken out": (lambda x: jnp.sum(W @ (x / 3)), lambda x: jnp.sum(W @ x) / 3, X),
        "a product as a sum": (
            lambda x: jnp.sum(jnp.sin(W @ x)),
            lambda x: jnp.sum(jnp.sin(jnp.sum(W * x, axis=1))),
            X,
        ),
        "a logarithm of a sum": (
            lambda x: jax.nn.logsumexp(x),
            lambda x: jnp.log(jnp.sum(jnp.exp(x))),
            X,
        ),
        "a variance": (
            lambda x: jnp.var(x),
            lambda x: jnp.mean(x**2) - jnp.mean(x) ** 2,
            X,
        ),
        "a loop, unrolled": (lambda x: jnp.sum(looped(x)), lambda x: jnp.sum(unrolled(x)), X),
        "remat": (plain(healthy), remade(healthy), X),
        "a right rule": (plain(right), plain(jnp.tanh), X),
        "a right rule in a loop": (scanned(right), scanned(jnp.tanh), X),
        "a network and its autodiff": (net, fn.autodiff(net), params),
        "a GPT of two blocks and its autodiff": (gpt, fn.autodiff(gpt), weights),
    }


def table() -> str:
    """The scores as Markdown."""
    rows = []
    for what in PLANTED:
        own = [plant for plant in PLANTS if plant.what == what]
        rows.append(f"| {what} | {sum(not wrong(plant) for plant in own)} of {len(own)} |")
    silent = [not fn.diff(f, g)(x) for f, g, x in controls().values()]
    around = ", ".join(f.__name__ for f in SURROUNDINGS)
    return "\n".join(
        [
            "| planted difference | first place right |", "|---|---|", *rows,
            f"| no more than rounding | {sum(silent)} of {len(silent)} silent |",
            f"\nEach is {around}; scanned, it is in the third of five iterations alone. Silent: "
            f"{', '.join(controls())}.",
        ]
    )  # fmt: skip
