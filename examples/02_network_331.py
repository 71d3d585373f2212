"""The 3-3-1 network: forward propagation and backpropagation, every number of one example.

Three inputs, three hidden units, one output. Theta_1 is 3 x 4 and Theta_2 is 1 x 4, since each
layer has a bias unit, a_0 = 1, whose weights stand in column 0. For an example (x, y):

    a1 = x           z2 = Theta_1 a1    a2 = g(z2)    z3 = Theta_2 a2    a3 = g(z3) = h(x)
    d3 = a3 - y      d2 = a2 (1 - a2) * Theta_2^T d3      dL/dTheta_l = d_{l+1} a_l^T

and over n examples D = Delta / n + lambda Theta, where Delta sums d a^T and the bias column is not
regularised. Here the algorithm is written out in NumPy, and two ways to say it in funcnet agree
with it: `MLP`, whose bias is apart, and `fn.backprop_loss`, whose bias is in column 0.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import funcnet as fn

x = np.array(list(itertools.product((0.0, 1.0), repeat=3)), np.float32)
y = (x.sum(axis=1, keepdims=True) % 2).astype(np.float32)  # 1 where an odd number of inputs is 1
decay = 0.1  # lambda
rng = np.random.default_rng(0)
thetas = tuple(rng.normal(size=shape).astype(np.float32) for shape in ((3, 4), (1, 4)))


def g(z):
    return 1 / (1 + np.exp(-z))


def with_bias_unit(a):
    return np.concatenate([[1.0], a])


# 1. The algorithm as it is taught: one example after the other.
sums = [np.zeros_like(theta) for theta in thetas]  # Delta
traces = []
for x_i, y_i in zip(x, y, strict=True):
    a1 = with_bias_unit(x_i)
    z2 = thetas[0] @ a1
    a2 = with_bias_unit(g(z2))
    z3 = thetas[1] @ a2
    a3 = g(z3)
    d3 = a3 - y_i
    d2 = (a2 * (1 - a2) * (thetas[1].T @ d3))[1:]  # the bias unit has no delta: nothing feeds it
    sums[0] += np.outer(d2, a1)
    sums[1] += np.outer(d3, a2)
    traces.append({"z": (z2, z3), "a": (a2[1:], a3), "delta": (d2, d3)})

penalised = [np.hstack([np.zeros_like(theta[:, :1]), theta[:, 1:]]) for theta in thetas]
loop = [s / len(x) + decay * theta for s, theta in zip(sums, penalised, strict=True)]  # D

example = 5
print(f"x = {x[example]}, y = {y[example]}")
for i, layer in enumerate(("layer 2", "layer 3")):
    for name, values in traces[example].items():
        print(f"  {layer}  {name:5} = " + "  ".join(f"{value:7.4f}" for value in values[i]))

# 2. The bias in column 0: every a and every delta, and D as the gradient of one loss.
arrays = jax.tree.map(jnp.asarray, (thetas, x, y))
a, delta = fn.activations(*arrays[:2]), fn.deltas(*arrays)
column = jax.grad(fn.backprop_loss)(*arrays, decay=decay)

# 3. The bias apart: a network of dense layers, the same loss, and jax.grad.
net = fn.nets.MLP((3, 1), activation=fn.sigmoid)
names = ("dense", "dense_1")
params = {
    name: {"w": theta[:, 1:].T, "b": theta[:, 0]} for name, theta in zip(names, thetas, strict=True)
}


def loss(params):
    penalty = sum(jnp.sum(layer["w"] ** 2) for layer in params.values())
    return fn.binary_cross_entropy(net(params, x), y) + decay / 2 * penalty


apart = [
    jnp.concatenate([layer["b"][:, None], layer["w"].T], axis=1)
    for layer in jax.grad(loss)(params).values()
]


def gap(ones, others):
    pairs = zip(ones, others, strict=True)
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs)


gaps = {
    "h(x), MLP against activations": gap([fn.sigmoid(net(params, x))], [a[-1]]),
    "a and delta against the loop": gap([*a[1:], *delta], [
        np.array([trace[name][i] for trace in traces]) for name in ("a", "delta") for i in (0, 1)
    ]),
    "D, backprop_loss against the loop": gap(column, loop),
    "D, MLP against the loop": gap(apart, loop),
}  # fmt: skip
print("\n".join(f"{name}: differs by at most {value:.1e}" for name, value in gaps.items()))
assert max(gaps.values()) < 1e-6
