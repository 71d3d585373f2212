"""Regression: a linear output and the squared error predict a number instead of a class.

Hidden units are ReLU; the output has no activation, so that it can be any number, and its delta is
once more a - y, twice for a squared error without the factor 1/2. From ten measurements of 353
patients the network learns how far diabetes has gone a year later. So few examples are soon learned
by heart: weight decay and few epochs hold it back, and the mean of several networks is steadier
than each. The yardstick is ridge regression, the best a line can do here.
"""

import jax
import jax.numpy as jnp
import optax
from sklearn.linear_model import Ridge

import funcnet as fn

data = fn.data.load_data("diabetes")
(x, y), (x_test, y_test) = data.train, data.test
copies = 8
net = fn.nets.MLP((16, 1), activation=fn.relu)
several = fn.ensemble(net, copies)


def criterion(predictions, target):
    """The squared error of each network, summed: each one learns as if it were alone."""
    targets = jnp.broadcast_to(target, predictions.shape)
    return copies * fn.squared_error(predictions, targets)


fitted = fn.fit(
    several, criterion, optax.adamw(3e-3, weight_decay=0.1), (x, y),
    epochs=30, batch=32, progress=False,
)  # fmt: skip
for row in fitted.history.rows[::10]:
    print(f"  epoch {row['epoch']:2d}: squared error {row['loss'] / copies:.3f}")

predicted = several(fitted.state.params, x_test)
target = jnp.asarray(y_test)
alone = [float(fn.r_squared(one, target)) for one in predicted]
ours = float(fn.r_squared(predicted.mean(axis=0), target))
ridge = float(Ridge().fit(x, y).score(x_test, y_test))
print(f"R^2 (1 is perfect, 0 no better than the mean) on {len(x_test)} held-out patients:")
print(f"  ridge regression      {ridge:.3f}")
print(f"  each network          {min(alone):.3f} to {max(alone):.3f}")
print(f"  mean of {copies} networks    {ours:.3f}")

# delta at a linear output: d/da (a - y)^2 = 2 (a - y), over the number of examples.
a = jax.random.normal(jax.random.key(0), y_test.shape)
gap = jax.grad(fn.squared_error)(a, y_test) - 2 * (a - y_test) / len(y_test)
print(f"delta differs from 2 (a - y) / n by at most {jnp.abs(gap).max():.1e}")

assert jnp.abs(gap).max() < 1e-6
assert ours >= ridge - 0.02
