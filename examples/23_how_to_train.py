"""How large a step, how many examples in it, which optimiser, how large a network; over-fitting.

One network on digits, trained wrongly in every way that is usual. Each time `history.verdicts()`,
or `fn.health`, names what is wrong, and the run beside it has the cure.
"""

import jax
import numpy as np
import optax

import funcnet as fn

data = fn.data.load_data("digits")
(x, y), (x_test, y_test) = ((x.reshape(len(x), -1), y) for x, y in (data.train, data.test))


def mlp(width=32, drop=0.0):
    return fn.nets.MLP((width, width, 10), drop=drop, w_init=fn.initializers.he_normal())


def train(optimizer, examples=len(x), *, net=mlp(), epochs=4, health=None):
    """The last figures of a run, and what is wrong with it."""
    history = fn.fit(
        net, fn.cross_entropy, optimizer, (x[:examples], y[:examples]), epochs=epochs, batch=32,
        validation=(x_test, y_test), metrics={"accuracy": fn.accuracy}, progress=False,
        health=health,
    ).history  # fmt: skip
    return history.rows[-1], [verdict.kind for verdict in history.verdicts().verdicts]


def show(title, runs):
    print(f"\n{title}")
    for name, (row, kinds) in runs.items():
        print(
            f"  {name:22s} loss {row['loss']:6.3f}, right {row['accuracy']:6.1%}, held out "
            f"{row['val_accuracy']:6.1%}: {', '.join(kinds) or 'well'}"
        )


# 1. The size of the step: a hundred times too large, far too small, right.
steps = {f"SGD at {rate:g}": train(optax.sgd(rate), health=10) for rate in (10.0, 1e-7, 0.1)}
show("Step size", steps)
assert "step too large" in steps["SGD at 10"][1]
assert steps["SGD at 1e-07"][1] == ["step too small", "loss hardly moves"]
assert steps["SGD at 0.1"][1] == []

# 2. Momentum and the optimisers that measure each parameter's own scale: as many steps, more done.
optimizers = {
    "SGD": optax.sgd(0.01),
    "momentum": optax.sgd(0.01, momentum=0.9),
    "momentum, falling rate": optax.sgd(optax.cosine_decay_schedule(0.03, 4 * 44), momentum=0.9),
    "Adagrad": optax.adagrad(0.03),
    "Adam": optax.adam(3e-3),
    "LAMB": optax.lamb(2e-2),
}
runs = {name: train(optimizer) for name, optimizer in optimizers.items()}
show("Optimiser", runs)
assert all(runs[name][0]["loss"] < runs["SGD"][0]["loss"] for name in list(runs)[1:])
assert not any(kinds for _, kinds in runs.values())

# 3. The size of the batch: the noise in its gradient falls as it grows.
params, _ = mlp().init(jax.random.key(0), x[:1])


def loss(params, x, y):
    return fn.cross_entropy(mlp()(params, x), y)


def noise(batch):
    parts = [(x[i : i + batch], y[i : i + batch]) for i in range(0, 512, batch)]
    return float(fn.health(loss, over=parts)(params).noise or 0.0)


noises = {batch: noise(batch) for batch in (8, 64)}
print("\nBatch size")
for batch, found in noises.items():
    print(f"  batches of {batch:3d}: {found:.2f} times as much noise as gradient")
np.testing.assert_allclose(noises[8] / noises[64], 8, rtol=0.3)  # it falls as 1/batch

# 4. Over-fitting: a hundred examples learned by heart. The cure is more of them.
heart = {
    n: train(optax.adam(3e-3), n, net=mlp(64), epochs=epochs)
    for n, epochs in ((100, 40), (1437, 6))
}
show("Over-fitting", {f"{n} examples": run for n, run in heart.items()})
assert heart[100][0]["accuracy"] == 1.0
assert heart[100][1] == ["over-fitting"]
assert heart[1437][1] == []

# 5. Too slow and too few right: a larger network is further on after as many steps.
sizes = {f"width {width}": train(optax.adam(1e-3), net=mlp(width)) for width in (8, 256)}
show("Size of the network", sizes)
assert sizes["width 256"][0]["loss"] < sizes["width 8"][0]["loss"] / 3
assert sizes["width 256"][0]["val_accuracy"] > sizes["width 8"][0]["val_accuracy"] + 0.1
