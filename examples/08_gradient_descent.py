"""Gradient descent: Theta <- Theta - eta dL/dTheta, with all examples or with a few at a time.

The gradient points uphill, so a small step against it lowers the loss. Taking it over all examples
is gradient descent; over a mini-batch it is stochastic gradient descent (SGD): a noisy direction,
but many more steps for the same work. A line w x + b with two parameters shows both paths on the
map of the loss (runs/08_gradient_descent.png). Then optax.sgd takes the very same steps.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import funcnet as fn

data = fn.data.load_data("diabetes")
x, y = data.train[0][:, 2:3], data.train[1]  # body-mass index; the disease a year later
line = fn.Dense(1)
start = {"w": jnp.array([[-0.8]]), "b": jnp.array([0.9])}
eta, epochs, batch = 0.05, 30, 32


def loss(params, x, y):
    return fn.squared_error(line(params, x), y)


@jax.jit
def descend(params, x, y):
    """Theta <- Theta - eta dL/dTheta, for every array in Theta."""
    gradient = jax.grad(loss)(params, x, y)
    return jax.tree.map(lambda theta, slope: theta - eta * slope, params, gradient)


def mini_batches(seed):
    """All examples once in each epoch, in a new order, `batch` at a time."""
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for i in range(0, len(x) - batch + 1, batch):
            yield x[order[i : i + batch]], y[order[i : i + batch]]


# 1. Gradient descent: one step an epoch, each over all examples.
paths = {"gradient descent": [start], "SGD": [start]}
for _ in range(epochs):
    paths["gradient descent"].append(descend(paths["gradient descent"][-1], x, y))

# 2. SGD: the same line of code, a mini-batch at a time.
for few_x, few_y in mini_batches(seed=0):
    paths["SGD"].append(descend(paths["SGD"][-1], few_x, few_y))

# 3. The same with optax.sgd, in funcnet's compiled step.
step = fn.make_step(line, fn.squared_error, optax.sgd(eta))
train = step.init(jax.random.key(0), x)._replace(params=jax.tree.map(jnp.array, start))
for few in mini_batches(seed=0):
    train, _ = step.update(train, few)

best, *_ = np.linalg.lstsq(np.hstack([x, np.ones_like(x)]), y, rcond=None)
least = float(loss({"w": best[:1], "b": best[1]}, x, y))
losses = {name: float(loss(path[-1], x, y)) for name, path in paths.items()}
for name, path in paths.items():
    print(f"{name}: {len(path) - 1} steps in {epochs} epochs, loss {losses[name]:.4f}")
print(f"the least loss there is: {least:.4f}")
differences = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), train.params, paths["SGD"][-1])
print(f"optax.sgd against the steps written out: {differences}")

# The map of the loss, and the two paths on it.
w, b = np.meshgrid(np.linspace(-1, 1.2, 90), np.linspace(-0.5, 1.1, 80))
height = jax.vmap(lambda w, b: loss({"w": w[None, None], "b": b[None]}, x, y))(w.ravel(), b.ravel())
figure = Figure(figsize=(7.5, 5.2), layout="constrained")
axes = figure.subplots()
levels = axes.contourf(w, b, height.reshape(w.shape), levels=24, cmap="Greys")
figure.colorbar(levels, ax=axes, label="loss over all examples", ticks=range(1, 5))
for (name, path), colour, marker in zip(paths.items(), ("C0", "C1"), ("o", "."), strict=True):
    route = np.array([[float(p["w"][0, 0]), float(p["b"][0])] for p in path])
    label = f"{name}, {len(path) - 1} steps"
    axes.plot(*route.T, marker=marker, markersize=4, linewidth=1, color=colour, label=label)
axes.plot(best[0], best[1], "*", color="C3", markersize=14, label="least loss")
axes.set(xlabel="weight w", ylabel="bias b", title=f"{epochs} epochs at eta = {eta}")
axes.legend()
Path("runs").mkdir(exist_ok=True)
figure.savefig("runs/08_gradient_descent.png", dpi=120)
print("picture: runs/08_gradient_descent.png")

assert max(jax.tree.leaves(differences)) < 1e-6
assert losses["SGD"] < losses["gradient descent"] < float(loss(start, x, y))
assert losses["SGD"] < least + 0.02
