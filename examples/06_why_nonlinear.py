"""Why there is a non-linearity: without one, any depth is a single linear map.

With the identity as activation the layers multiply out,

    Theta_3 (Theta_2 (Theta_1 x)) = (Theta_3 Theta_2 Theta_1) x,

so three layers can say no more than one matrix, and one matrix cannot say "one or the other, but
not both" (XOR). A ReLU between the layers breaks the collapse and solves XOR.
"""

from functools import reduce

import jax
import jax.numpy as jnp
import optax

import funcnet as fn


def identity(z):
    return z


def deep(activation):
    """Three layers of 8, 8 and 1 units."""
    return fn.nets.MLP((8, 8, 1), activation=activation)


def collapse(params):
    """The product of all layers as one matrix, each layer with its bias in row 0: x0 = 1."""

    def with_bias_unit(layer):
        inputs, outputs = layer["w"].shape
        matrix = jnp.zeros((inputs + 1, outputs + 1)).at[0, 0].set(1.0)
        return matrix.at[0, 1:].set(layer["b"]).at[1:, 1:].set(layer["w"])

    return reduce(jnp.matmul, [with_bias_unit(params[name]) for name in params])


# 1. Three linear layers and their collapsed matrix say the same on any input.
key = jax.random.key(0)
x = jax.random.normal(jax.random.fold_in(key, 1), (100, 2))
x0 = jnp.concatenate([jnp.ones((100, 1)), x], axis=1)
params, _ = deep(identity).init(key, x)
params = jax.tree.map(lambda leaf: leaf + 0.1, params)  # so that the biases are not zero
matrix = collapse(params)
output = {"identity": deep(identity)(params, x), "ReLU": deep(fn.relu)(params, x)}
gap = {name: float(jnp.abs(z[:, 0] - (x0 @ matrix)[:, 1]).max()) for name, z in output.items()}
shapes = " ".join(str(params[name]["w"].shape) for name in params)
print(f"layers {shapes} collapse to one matrix {matrix.shape}")
print(f"largest difference between network and matrix, identity: {gap['identity']:.1e}")
print(f"the same parameters with ReLU between the layers:        {gap['ReLU']:.1e}")

# 2. XOR. The best a linear map can do is to answer 1/2 everywhere: a loss of ln 2.
corners = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
either = jnp.array([[0.0], [1.0], [1.0], [0.0]])
loss, right = {}, {}
for name, activation in (("identity", identity), ("ReLU", fn.relu)):
    net = deep(activation)
    step = fn.make_step(net, fn.binary_cross_entropy, optax.adam(0.02))
    train = step.init(jax.random.key(3), corners)
    for _ in range(1000):
        train, values = step.update(train, (corners, either))
    z = net(train.params, corners)
    loss[name], right[name] = float(values["loss"]), float(fn.accuracy(z, either))
    answers = ", ".join(f"{a:.2f}" for a in fn.sigmoid(z[:, 0]))
    print(f"XOR with {name:8}: loss {loss[name]:.4f}, h(00), h(01), h(10), h(11) = {answers}")

assert gap["identity"] < 1e-5 < 1e-1 < gap["ReLU"]
assert abs(loss["identity"] - jnp.log(2)) < 1e-3
assert loss["ReLU"] < 0.01
assert right["ReLU"] == 1
