"""Gradients that vanish or blow up in deep networks, and what cures them.

Thirty layers. With sigmoids the gradient shrinks on its way back until the first layers learn
nothing; with weights drawn three times too large, activations blow up on the way forward and the
gradient on its way back. `fn.health` names both. With residual connections the gradient arrives and
the loss falls; with batch norm too the scale of the weights no longer matters.
"""

import jax
import optax

import funcnet as fn

DEPTH, WIDTH = 30, 32
data = fn.data.load_data("digits")
x, y = data.train[0].reshape(len(data.train[0]), -1), data.train[1]


def large(*given, **options):
    return 3 * fn.initializers.he_normal()(*given, **options)


def tower(layer):
    """Thirty of these layers, each with its own parameters, between two others."""
    return fn.serial(fn.Dense(WIDTH), body=fn.repeat(layer, DEPTH), head=fn.Dense(10))


def block(activation, *norm, w_init=fn.initializers.lecun_normal()):
    return fn.serial(fn.Dense(WIDTH, w_init=w_init), *norm, activation)


NETS = {
    "sigmoids": tower(block(fn.sigmoid)),
    "sigmoids, residual": tower(fn.residual(block(fn.sigmoid))),
    "initialised x 3": tower(block(fn.relu, w_init=large)),
    "initialised x 3, batch norm, residual": tower(
        fn.residual(block(fn.relu, fn.BatchNorm(), w_init=large))
    ),
}


def examine(net):
    """The health of a network before its first step."""
    params, state = net.init(jax.random.key(0), x[:128])

    def loss(params, x, y):
        return fn.cross_entropy(net.apply(params, state, x, train=True)[0], y)

    return fn.health(loss)(params, x[:128], y[:128])


kinds, losses = {}, {}
for name, net in NETS.items():
    report = examine(net)
    kinds[name] = [verdict.kind for verdict in report.verdicts]
    fitted = fn.fit(net, fn.cross_entropy, optax.adam(1e-3), (x, y), epochs=12, progress=False)
    losses[name] = fitted.history.column("loss")[-1]
    print(f"{name}: loss {losses[name]:.2f} after 12 epochs")
    print("".join(f"    {verdict}\n" for verdict in report.verdicts) or "    it is well\n")

assert kinds["sigmoids"] == ["vanishing gradient"]
assert kinds["initialised x 3"][0] == "growing activations"
assert kinds["sigmoids, residual"] == kinds["initialised x 3, batch norm, residual"] == []
assert losses["sigmoids, residual"] < 1 < losses["sigmoids"]
assert losses["initialised x 3, batch norm, residual"] < 1 < losses["initialised x 3"]
