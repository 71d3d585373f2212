"""What `health` and `history.verdicts()` say of planted diseases, of networks that are well, and
what `fit(..., health=50)` costs.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import funcnet as fn
from funcnet.train.health import Look
from funcnet.train.loss import Objective
from funcnet.train.step import outermost, step_of

ROOT = Path(__file__).parent.parent.parent
KEY = jax.random.key(0)
HE = fn.initializers.he_normal()


class Planted(NamedTuple):
    """A disease that is known: what makes it, and the kind and the layer that are to be named."""

    name: str
    make: Callable[[], fn.Health]
    kind: str
    layer: str


def tower(activation, depth, *, width=32, w_init=HE, norm=None):
    """`layer0`, `layer1` and so on, and a head; a loss of its parameters on some examples."""
    norms = [] if norm is None else [norm]
    layers = {
        f"layer{i}": fn.serial(fn.Dense(width, w_init=w_init), *norms, activation)
        for i in range(depth)
    }
    return setting(fn.serial(**layers, head=fn.Dense(10, w_init=w_init)))


def setting(net, examples=128):
    x = jax.random.normal(jax.random.key(1), (examples, 20))
    y = jnp.arange(examples) % 10
    params, state = net.init(KEY, x)

    def loss(params, x, y):
        return fn.cross_entropy(net.apply(params, state, x, train=bool(state))[0], y)

    return loss, params, x, y


def scaled(tree, by):
    return jax.tree.map(lambda p: p * by, tree)


def sigmoids():
    loss, params, x, y = tower(fn.sigmoid, 30, w_init=fn.initializers.lecun_normal())
    return fn.health(loss)(params, x, y)


def threefold():
    loss, params, x, y = tower(fn.relu, 10)
    return fn.health(loss)(scaled(params, 3.0), x, y)


def faint():
    loss, params, x, y = tower(fn.relu, 10)
    return fn.health(loss)(scaled(params, 0.3), x, y)


def chaotic():
    loss, params, x, y = tower(fn.tanh, 30, w_init=fn.initializers.lecun_normal())
    return fn.health(loss)(scaled(params, 3.0), x, y)


def killed():
    loss, params, x, y = tower(fn.relu, 4, width=40)
    bias = params["layer2"]["dense"]["b"].at[:16].set(-10.0)
    params["layer2"]["dense"]["b"] = bias
    return fn.health(loss, over=[(x[:64], y[:64]), (x[64:], y[64:])])(params)


def underflow():
    loss, params, x, y = tower(fn.sigmoid, 6)
    half = jax.tree.map(lambda a: a.astype(jnp.float16), (params, x))
    return fn.health(loss)(*half, y)


def too_fast(optimizer):
    loss, params, x, y = tower(fn.relu, 3)
    return fn.health(loss, optimizer=optimizer)(params, x, y)


def cut():
    @fn.network(
        left=fn.serial(fn.Dense(8), fn.relu),
        right=fn.serial(fn.Dense(8), fn.relu),
        head=fn.Dense(10),
    )
    def net(net, x):
        return net.head(net.left(x) + jax.lax.stop_gradient(net.right(x)))

    loss, params, x, y = setting(net)
    return fn.health(loss)(params, x, y)


def rounded():
    loss, params, x, y = tower(fn.relu, 3)
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), params)
    return fn.health(loss, optimizer=optax.adam(1e-5))(params, x, y)


def through_time():
    def loss(w, x):
        def step(h, x):
            with jax.named_scope("cell"):
                h = jnp.tanh(h @ w["h"] + x @ w["x"])
            return h, None

        return jnp.sum(jax.lax.scan(step, jnp.zeros((4, 8)), x)[0] ** 2)

    w = {"h": 0.5 * jnp.eye(8), "x": 0.1 * jnp.ones((3, 8))}
    return fn.health(loss)(w, jax.random.normal(KEY, (60, 4, 3)))


def nameless():
    def loss(weights, x):
        h = x
        for w in weights:
            h = jax.nn.sigmoid(h @ w)
        return jnp.mean(h**2)

    weights = [jax.random.normal(key, (16, 16)) / 4 for key in jax.random.split(KEY, 12)]
    return fn.health(loss)(weights, jax.random.normal(KEY, (8, 16)))


PLANTED = (
    Planted("30 sigmoid layers", sigmoids, "vanishing gradient", "layer0"),
    Planted("ten layers, initialisation x 3", threefold, "growing activations", "head"),
    Planted("ten layers, initialisation x 0.3", faint, "shrinking activations", "head"),
    Planted("30 tanh layers, initialisation x 3", chaotic, "exploding gradient", "layer0"),
    Planted("bias -10 in 40% of the units of layer2", killed, "dead units", "layer2/relu"),
    Planted("float16 behind six sigmoid layers", underflow, "underflow", "layer3/dense"),
    Planted(
        "Adam at 0.1 for 0.001", lambda: too_fast(optax.adam(0.1)), "step too large", "layer2/dense"
    ),
    Planted("SGD at 30 for 0.3", lambda: too_fast(optax.sgd(30.0)), "step too large", "head"),
    Planted("SGD at 1e-6", lambda: too_fast(optax.sgd(1e-6)), "step too small", ""),
    Planted("a branch behind stop_gradient", cut, "no gradient", "right"),
    Planted("bfloat16 weights, Adam at 1e-5", rounded, "update lost", "head"),
    Planted(
        "60 steps of a recurrence that forgets", through_time, "vanishing gradient", "cell[step 0]"
    ),
    Planted(
        "12 sigmoid layers in plain JAX without names",
        nameless,
        "vanishing gradient",
        "logistic (v2)",
    ),
)


class Well(NamedTuple):
    """A network that is well: how it is trained."""

    name: str
    make: Callable[[], fn.Layer]
    criterion: Callable
    data: Callable[[], tuple]
    optimizer: optax.GradientTransformation
    batch: int = 32


def digits():
    x, y = fn.data.load_data("digits").train
    return x.reshape(len(x), -1)[:640], y[:640]


def images(size=8):
    x, y = digits()
    x = x.reshape(-1, 8, 8, 1)
    return jax.image.resize(x, (len(x), size, size, 1), "linear"), y


LETTERS = 32


def text():
    """Letters of which each follows from the two before, but for one in ten."""
    random = np.random.default_rng(0)
    ids = random.integers(0, LETTERS, (160, 33))
    for i in range(2, 33):
        follows = random.random(160) < 0.9
        ids[:, i] = np.where(follows, (3 * ids[:, i - 1] + ids[:, i - 2]) % LETTERS, ids[:, i])
    return ids[:, :-1], ids[:, 1:]


def gpt():
    return fn.nets.GPT(LETTERS, width=32, depth=4, heads=2, length=32)


WELL = (
    Well(
        "MLP, Adam at 1e-3",
        lambda: fn.nets.MLP((64, 64, 10), w_init=HE),
        fn.cross_entropy,
        digits,
        optax.adam(1e-3),
    ),
    Well(
        "MLP, SGD at 0.05 with momentum",
        lambda: fn.nets.MLP((64, 64, 10)),
        fn.cross_entropy,
        digits,
        optax.sgd(0.05, 0.9),
    ),
    Well(
        "LeNet, SGD at 0.01",
        lambda: fn.nets.LeNet(10),
        fn.cross_entropy,
        lambda: images(32),
        optax.sgd(0.01),
    ),
    Well(
        "ResNet-8, Adam at 1e-3",
        lambda: fn.nets.ResNet(8, 10),
        fn.cross_entropy,
        lambda: images(16),
        optax.adam(1e-3),
    ),
    Well(
        "ViT, AdamW at 1e-3",
        lambda: fn.nets.ViT(10, patch=2, width=32, depth=4, heads=2),
        fn.cross_entropy,
        images,
        optax.adamw(1e-3),
    ),
    Well("GPT, AdamW at 1e-3", gpt, fn.cross_entropy, text, optax.adamw(1e-3), 16),
    Well(
        "LSTM, Adam at 6e-3",
        lambda: fn.nets.CharRNN(LETTERS, width=64, embed=32),
        fn.cross_entropy,
        text,
        optax.adam(6e-3),
        16,
    ),
    Well(
        "GRU, Adam at 1e-3",
        lambda: fn.nets.CharRNN(LETTERS, cell="gru", width=64, embed=32),
        fn.cross_entropy,
        text,
        optax.adam(1e-3),
        16,
    ),
)


def trained(well: Well, epochs=3, every=10) -> fn.History:
    return fn.fit(
        well.make(),
        well.criterion,
        well.optimizer,
        well.data(),
        epochs=epochs,
        batch=well.batch,
        progress=False,
        health=every,
    ).history


def cost(every=50, rounds=60) -> float:
    """What looking at every fiftieth step costs: the time of all steps over that without."""
    x, y = images(32)
    net = fn.nets.LeNet(10)
    made = Objective.of(net, fn.cross_entropy, None), optax.sgd(0.01), dict
    step = step_of(*made)
    plain, looks = outermost(step.update), outermost(step_of(*made, look=Look()).update)
    state = step.init(KEY, x[:64])
    batch = (x[:64], y[:64])
    times: dict[Callable, list[float]] = {plain: [], looks: []}
    for _ in range(rounds):
        for update, spent in times.items():
            start = time.perf_counter()
            state, seen = update(state, batch)
            jax.block_until_ready((state, seen))
            spent.append(time.perf_counter() - start)
    one, other = (float(np.median(spent[3:])) for spent in times.values())
    return (other - one) / one / every


def table() -> str:
    """What was said of each, as Markdown."""
    lines = ["| planted | said of it | at |", "|---|---|---|"]
    named = 0
    for planted in PLANTED:
        found = [(verdict.kind, verdict.layer) for verdict in planted.make().verdicts]
        named += (planted.kind, planted.layer) in found[:1]
        kind, layer = found[0] if found else ("nothing", "")
        lines.append(f"| {planted.name} | {kind} | {layer or 'the whole'} |")
    lines += ["", "| well | at its start | after 3 epochs |", "|---|---|---|"]
    alarms = 0
    for well in WELL:
        history = trained(well)
        starts, ends = fn.History(health=history.health[:1]).verdicts(), history.verdicts()
        alarms += bool(starts) + bool(ends)
        cells = (", ".join(v.kind for v in r.verdicts) or "nothing" for r in (starts, ends))
        lines.append(f"| {well.name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{named} of {len(PLANTED)} diseases named with their layer, {alarms} false alarms in "
        f"{2 * len(WELL)} looks. Looking at every fiftieth step of a LeNet takes "
        f"{100 * cost():.1f}% more time.",
    ]
    return "\n".join(lines)
