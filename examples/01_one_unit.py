"""One unit: logistic regression is the smallest neural network.

A unit takes the inputs x1 ... xn and one more that is always x0 = 1, the bias unit. It weighs them
and squashes the sum,

    z = theta . x,    a = h(x) = g(z),    g(z) = 1 / (1 + exp(-z)),

and reads a as the probability that y = 1. The loss of an example is the cross-entropy
-(y ln a + (1 - y) ln(1 - a)), and its gradient is the shortest in the whole field: (a - y) x.
Here one unit tells benign from malignant tumours.
"""

import jax
import jax.numpy as jnp
import optax

import funcnet as fn

data = fn.data.load_data("breast_cancer")
(x, labels), (x_test, labels_test) = data.train, data.test
y = labels.astype("float32")
print(f"{len(x)} tumours to learn from, {len(x_test)} held out, {x.shape[1]} measurements each")


# 1. The unit as the slides draw it: the bias is theta_0, the weight of x0 = 1.
def with_bias_unit(x):
    return jnp.concatenate([jnp.ones((len(x), 1)), x], axis=1)


def loss(theta, x, y):
    """The mean cross-entropy, taken from z: ln g(z) has no digits left where g(z) is near 0."""
    return fn.binary_cross_entropy(x @ theta, y)


def hand_gradient(theta, x, y):
    """(a - y) x, the mean over the examples."""
    a = fn.sigmoid(x @ theta)
    return (a - y) @ x / len(y)


x0 = with_bias_unit(x)
theta = jax.random.normal(jax.random.key(0), (x0.shape[1],))
by_funcnet, by_hand = jax.grad(loss)(theta, x0, y), hand_gradient(theta, x0, y)
difference = float(jnp.abs(by_funcnet - by_hand).max())
print(f"gradient: funcnet and (a - y) x differ by at most {difference:.1e}")

# 2. Learn with the hand gradient: theta <- theta - eta (a - y) x.
theta = jnp.zeros(x0.shape[1])
descend = jax.jit(lambda theta: theta - 0.5 * hand_gradient(theta, x0, y))
for step in range(301):
    if step % 100 == 0:
        print(f"  step {step:3d}: loss {loss(theta, x0, y):.4f}")
    theta = descend(theta)
right_by_hand = float(fn.accuracy(with_bias_unit(x_test) @ theta, labels_test))

# 3. The same unit as a layer, with its bias apart: z = x w + b. theta_0 is b, the others are w.
unit = fn.Dense(1)
params = {"b": theta[:1], "w": theta[1:, None]}
same = float(jnp.abs(unit(params, x_test)[:, 0] - with_bias_unit(x_test) @ theta).max())
print(f"the layer with b = theta_0, w = theta_1...: z differs by at most {same:.1e}")

fitted = fn.fit(
    unit, fn.binary_cross_entropy, optax.adam(0.05), (x, y[:, None]),
    epochs=30, batch=65, progress=False,
)  # fmt: skip
right = float(fn.accuracy(unit(fitted.state.params, x_test), labels_test))
print(f"held-out accuracy: {right_by_hand:.1%} by hand, {right:.1%} by fn.fit")

assert difference < 1e-6
assert same < 1e-5
assert min(right_by_hand, right) >= 0.95
