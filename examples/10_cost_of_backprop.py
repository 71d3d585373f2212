"""What backpropagation saves: the chain rule costs L^2 done naively, L with dynamic programming.

With z = Theta a, a = g(z) the chain rule gives each layer a chain of factors, from the loss down:

    delta_l = g'(z_l) * Theta_l^T ( ... g'(z_L) * Theta_L^T (a - y)),    dL/dTheta_l = delta a^T

Each chain is the one above it with one factor more. The naive way starts each from scratch, 1 + 2 +
... + L factors; backpropagation keeps delta and goes on, L factors. The operations of both programs
are counted as written, before any compiler shares work.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import funcnet as fn

WIDTH, DEPTHS = 16, (8, 16, 32, 64)


def forward(thetas, x):
    """All activations: a_1 = x, then z = Theta a, a = g(z)."""
    activations = [x]
    for theta in thetas:
        activations.append(fn.sigmoid(theta @ activations[-1]))
    return activations


def one_factor(theta, a, delta):
    """delta_l = g'(z_l) * Theta_l^T delta_{l+1}, where g'(z) = a (1 - a)."""
    return a * (1 - a) * (theta.T @ delta)


def naive(thetas, x, y):
    """Each layer's gradient by a chain of its own, from the output down."""
    activations = forward(thetas, x)
    gradients = []
    for layer, a in enumerate(activations[:-1]):
        delta = activations[-1] - y
        for above in range(len(thetas) - 1, layer, -1):
            delta = one_factor(thetas[above], activations[above], delta)
        gradients.append(jnp.outer(delta, a))
    return gradients


def backprop(thetas, x, y):
    """The same gradients, each delta made from the one above it."""
    activations = forward(thetas, x)
    delta = activations[-1] - y
    gradients = []
    for theta, a in zip(thetas[::-1], activations[-2::-1], strict=True):
        gradients.append(jnp.outer(delta, a))
        delta = one_factor(theta, a, delta)
    return gradients[::-1]


def loss(thetas, x, y):
    *below, last = thetas
    return fn.binary_cross_entropy(last @ forward(below, x)[-1], y, reduction="sum")


def problem(depth):
    thetas = np.random.default_rng(0).normal(size=(depth, WIDTH, WIDTH)) / WIDTH**0.5
    return jax.tree.map(np.float32, (list(thetas), np.linspace(-1, 1, WIDTH), np.ones(WIDTH)))


# 1. The two ways, and jax.grad through funcnet's ops, give the same gradients.
args = problem(4)
expected = jnp.stack(jax.jit(jax.grad(loss))(*args))
for way in (naive, backprop):
    worst = float(jnp.abs(jnp.stack(jax.jit(way)(*args)) - expected).max())
    print(f"{way.__name__}: differs from jax.grad by at most {worst:.1e}")
    assert worst < 1e-6

# 2. Count, and fit FLOPs = c L^p: p is the slope on a log-log scale.
counts, power = {}, {}
for way in (naive, backprop):
    costs = [jax.jit(way).lower(*problem(depth)).cost_analysis() or {} for depth in DEPTHS]
    counts[way] = [cost["flops"] for cost in costs]
    power[way] = np.polyfit(np.log(DEPTHS), np.log(counts[way]), 1)[0]
print("\nlayers  naive FLOPs  backprop FLOPs  ratio")
for depth, a, b in zip(DEPTHS, counts[naive], counts[backprop], strict=True):
    print(f"{depth:6d}  {a:11,.0f}  {b:14,.0f}  {a / b:5.1f}")
print(f"naive grows as L^{power[naive]:.2f}, backpropagation as L^{power[backprop]:.2f}")

axes = (figure := Figure(figsize=(6, 4), layout="constrained")).subplots()
for way in counts:
    axes.loglog(DEPTHS, counts[way], "o-", label=f"{way.__name__}: L^{power[way]:.2f}")
axes.set(xlabel="layers L", ylabel="FLOPs of one gradient", xticks=DEPTHS, xticklabels=DEPTHS)
axes.minorticks_off()
axes.legend()
Path("runs").mkdir(exist_ok=True)
figure.savefig("runs/10_cost_of_backprop.png", dpi=120)
print("picture: runs/10_cost_of_backprop.png")

assert abs(power[naive] - 2) < 0.15
assert abs(power[backprop] - 1) < 0.05
