"""Several classes: one output for each, as K yes-or-no questions or as one choice among K.

Pedestrian, car, motorcycle or truck; here the ten digits. The label becomes a vector with a 1 at
its class, and there are two ways to read K outputs z:

    one-vs-rest   a_k = g(z_k): K probabilities of their own; the loss sums K binary cross-entropies
    softmax       a_k = exp(z_k) / sum_j exp(z_j): one distribution over the classes, which sums
                  to 1; the loss is the K-class cross-entropy -sum_k y_k ln a_k

Both give delta = a - y at the output. So that no output need grow without end to reach 0 or 1, a
tenth of each label is spread evenly over the classes (label smoothing).
"""

import jax
import jax.numpy as jnp
import optax

import funcnet as fn

data = fn.data.load_data("digits")
(x, y), (x_test, y_test) = data.train, data.test
classes = len(data.classes or ())
net = fn.serial(fn.Flatten(), fn.nets.MLP((128, classes)))
epochs, batch, smoothing = 25, 64, 0.1


def vectors(labels):
    """A 1 at the class of each label, smoothed."""
    return (1 - smoothing) * jax.nn.one_hot(labels, classes) + smoothing / classes


def one_vs_rest(z, labels):
    """K binary cross-entropies, the mean over the examples of their sum."""
    return fn.binary_cross_entropy(z, vectors(labels), reduction="sum") / len(labels)


def k_class(z, labels):
    return fn.cross_entropy(z, labels, label_smoothing=smoothing)


# 1. Train the same network under both losses.
right, outputs = {}, {}
for name, criterion, read in (
    ("one-vs-rest", one_vs_rest, fn.sigmoid),
    ("softmax", k_class, fn.softmax),
):
    eta = optax.cosine_decay_schedule(0.01, epochs * (len(x) // batch))
    fitted = fn.fit(
        net, criterion, optax.adam(eta), (x, y),
        epochs=epochs, batch=batch, validation=(x_test, y_test),
        metrics={"accuracy": fn.accuracy}, progress=False,
    )  # fmt: skip
    right[name] = fitted.history.rows[-1]["val_accuracy"]
    outputs[name] = read(net(fitted.state.params, x_test))
    sums = outputs[name].sum(axis=1)
    print(
        f"{name:11}  held-out accuracy {right[name]:.1%}, "
        f"the {classes} outputs sum to {sums.min():.6f} ... {sums.max():.6f}"
    )

# 2. One example, read both ways.
unsure = int(outputs["softmax"].max(axis=1).argmin())
print(f"the digit softmax is least sure of, in truth a {y_test[unsure]}:")
print("  class        " + "".join(f"{k:6d}" for k in range(classes)))
for name, a in outputs.items():
    print(f"  {name:11}  " + "".join(f"{p:6.2f}" for p in a[unsure]))

# 3. delta = a - y at the output, for both.
z, labels = jax.random.normal(jax.random.key(0), (5, classes)), jnp.array([3, 1, 4, 1, 5])
gaps = {
    "one-vs-rest": jax.grad(one_vs_rest)(z, labels) * 5 - (fn.sigmoid(z) - vectors(labels)),
    "softmax": jax.grad(k_class)(z, labels) * 5 - (fn.softmax(z) - vectors(labels)),
}
for name, gap in gaps.items():
    print(f"{name}: delta differs from a - y by at most {jnp.abs(gap).max():.1e}")
    assert jnp.abs(gap).max() < 1e-6

assert jnp.allclose(outputs["softmax"].sum(axis=1), 1, atol=1e-5)
assert not jnp.allclose(outputs["one-vs-rest"].sum(axis=1), 1, atol=1e-2)
assert right["softmax"] >= 0.97
assert right["one-vs-rest"] >= 0.95
