import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnet.ops.backprop import activations, backprop_loss, deltas

from .forms import some

pytestmark = pytest.mark.usefixtures("x64")


def network(*sizes, n=7, seed=0):
    """Weights with the bias in column 0, inputs, and one-hot labels."""
    rng = np.random.default_rng(seed)
    thetas = tuple(rng.normal(size=(to, of + 1)) for of, to in itertools.pairwise(sizes))
    return thetas, rng.normal(size=(n, sizes[0])), np.eye(sizes[-1])[rng.integers(0, sizes[-1], n)]


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_the_3_3_1_network_of_the_slides():
    (theta1, theta2), inputs, _ = network(3, 3, 1)
    labels, decay = np.array([0, 1, 1, 0, 1, 0, 0.0])[:, None], 0.3
    assert theta1.shape == (3, 4)
    assert theta2.shape == (1, 4)

    sum1, sum2, loss = np.zeros((3, 4)), np.zeros((1, 4)), 0.0
    seen = []
    for x, y in zip(inputs, labels, strict=True):
        a1 = np.array([1, *x])
        a2 = np.array([1, *sigmoid(theta1 @ a1)])
        a3 = sigmoid(theta2 @ a2)
        delta3 = a3 - y
        delta2 = (a2 * (1 - a2) * (theta2.T @ delta3))[1:]
        sum2 += np.outer(delta3, a2)
        sum1 += np.outer(delta2, a1)
        loss -= (y * np.log(a3) + (1 - y) * np.log(1 - a3)).item() / 7
        seen.append((a2[1:], a3, delta2, delta3))
    d1, d2 = sum1 / 7, sum2 / 7
    for d, theta in ((d1, theta1), (d2, theta2)):
        d[:, 1:] += decay * theta[:, 1:]
        loss += decay / 2 * (theta[:, 1:] ** 2).sum()

    value, found = jax.value_and_grad(backprop_loss)((theta1, theta2), inputs, labels, decay=decay)
    a = activations((theta1, theta2), inputs)
    delta = deltas((theta1, theta2), inputs, labels)
    np.testing.assert_allclose(value, loss, rtol=1e-12)
    np.testing.assert_allclose(found[0], d1, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found[1], d2, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(a[0], inputs)
    for i, expected in enumerate(map(np.array, zip(*seen, strict=True))):
        np.testing.assert_allclose((*a[1:], *delta)[i], expected, rtol=1e-12, atol=1e-14)


def loss_by_hand(thetas, x, y, hidden, output, decay):
    """The regularised loss, with the bias added apart: what `jax.grad` differentiates."""
    a = x
    for theta in thetas[:-1]:
        z = a @ theta[:, 1:].T + theta[:, 0]
        a = {"sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu, "linear": jnp.asarray}[hidden](z)
    z = a @ thetas[-1][:, 1:].T + thetas[-1][:, 0]
    if output == "sigmoid":
        h = jax.nn.sigmoid(z)
        losses = -(y * jnp.log(h) + (1 - y) * jnp.log(1 - h)).sum(1)
    elif output == "softmax":
        losses = -(y * jnp.log(jax.nn.softmax(z))).sum(1)
    else:
        losses = 0.5 * ((z - y) ** 2).sum(1)
    return losses.mean() + decay / 2 * sum((theta[:, 1:] ** 2).sum() for theta in thetas)


@pytest.mark.parametrize("hidden", ["sigmoid", "relu", "linear"])
@pytest.mark.parametrize("output", some(["sigmoid", "softmax", "linear"], ("linear",)))
def test_it_is_jax_grad_of_the_regularised_loss(hidden, output):
    args, options = network(3, 5, 4, 2), {"hidden": hidden, "output": output, "decay": 0.1}
    by_rule = jax.value_and_grad(lambda *a: backprop_loss(*a, **options), argnums=(0, 1))(*args)
    by_jax = jax.value_and_grad(lambda *a: loss_by_hand(*a, **options), argnums=(0, 1))(*args)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13), by_rule, by_jax
    )


def test_a_gradient_is_its_deltas_times_the_activations_below():
    thetas, x, y = network(4, 6, 5, 3)
    options = {"hidden": "relu", "output": "softmax"}
    a, delta = activations(thetas, x, **options), deltas(thetas, x, y, **options)
    gradients = jax.grad(backprop_loss)(thetas, x, y, **options)
    assert [d.shape for d in delta] == [(7, 6), (7, 5), (7, 3)]
    np.testing.assert_allclose(a[-1].sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(delta[-1], a[-1] - y, rtol=1e-12)
    assert not delta[0][a[1] == 0].any()
    for gradient, d, below in zip(gradients, delta, a, strict=False):
        outer = np.einsum("ni,nj->ij", d, np.insert(below, 0, 1.0, axis=1)) / 7
        np.testing.assert_allclose(gradient, outer, rtol=1e-11, atol=1e-14)


def test_one_against_the_rest_is_one_network_for_each_output():
    (theta,), x, _ = network(3, 4)
    y = (np.random.default_rng(1).uniform(size=(7, 4)) < 0.5).astype(float)
    whole = jax.grad(backprop_loss)((theta,), x, y)[0]
    for k in range(4):
        alone = jax.grad(backprop_loss)((theta[k : k + 1],), x, y[:, k : k + 1])[0]
        np.testing.assert_allclose(whole[k : k + 1], alone, rtol=1e-12)


def test_the_bias_column_is_not_decayed():
    thetas, x, y = network(3, 4, 2)
    free = jax.grad(backprop_loss)(thetas, x, y)
    decayed = jax.grad(backprop_loss)(thetas, x, y, decay=2.0)
    for theta, d, e in zip(thetas, free, decayed, strict=True):
        np.testing.assert_allclose(e[:, 0], d[:, 0], rtol=1e-12)
        np.testing.assert_allclose(e[:, 1:] - d[:, 1:], 2 * theta[:, 1:], rtol=1e-12)


def test_a_relu_at_zero_passes_nothing_back():
    thetas = (jnp.zeros((2, 3)), jnp.ones((1, 3)))
    x, y = jnp.ones((1, 2)), jnp.zeros((1, 1))
    d1, _ = jax.grad(backprop_loss)(thetas, x, y, hidden="relu", output="linear")
    assert not d1.any()
    assert not deltas(thetas, x, y, hidden="relu", output="linear")[0].any()


@pytest.mark.parametrize("output", some(["sigmoid", "softmax", "linear"], 1))
def test_huge_activations_stay_finite(output):
    thetas = (jnp.full((2, 3), 1e4), jnp.array([[0.0, 1e4, 0.0], [0.0, 0.0, -1e4]]))
    x, y = jnp.array([[1.0, 1.0], [-1.0, -1.0]]), jnp.eye(2)[::-1]
    for hidden in ("sigmoid", "relu"):
        found = jax.value_and_grad(backprop_loss)(thetas, x, y, hidden=hidden, output=output)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))


def test_no_examples_leave_the_penalty():
    thetas, x, y = network(3, 2, n=0)
    loss, (d,) = jax.value_and_grad(backprop_loss)(thetas, x, y, decay=0.5)
    np.testing.assert_allclose(loss, (thetas[0][:, 1:] ** 2).sum() / 4)
    np.testing.assert_allclose(d, 0.5 * np.insert(thetas[0][:, 1:], 0, 0.0, axis=1))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_dtypes_stay(dtype):
    thetas, x, y = jax.tree.map(lambda a: jnp.asarray(a, dtype), network(3, 4, 2))
    found = (
        jax.value_and_grad(backprop_loss, argnums=(0, 1))(thetas, x, y, decay=0.1),
        activations(thetas, x),
        deltas(thetas, x, y),
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype)}


def test_labels_are_constants():
    thetas, x, y = network(3, 4, 2)
    assert not jax.grad(backprop_loss, argnums=2)(thetas, x, y).any()


def test_gradient_descent_learns_exclusive_or():
    x = jnp.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    y = jnp.array([[0.0], [1], [1], [0]])
    thetas, _, _ = network(2, 4, 1, seed=3)

    def step(thetas, _):
        d = jax.grad(backprop_loss)(thetas, x, y)
        return jax.tree.map(lambda theta, d: theta - 2.0 * d, thetas, d), None

    thetas, _ = jax.lax.scan(step, jax.tree.map(jnp.asarray, thetas), length=2000)
    np.testing.assert_allclose(activations(thetas, x)[-1], y, atol=0.05)


X, Y = jnp.zeros((5, 3)), jnp.zeros((5, 1))
THETAS = (jnp.zeros((3, 4)), jnp.zeros((1, 4)))


@pytest.mark.parametrize(
    ("args", "options", "error", "message"),
    [
        (
            (THETAS, X, Y),
            {"hidden": "tanh"},
            ValueError,
            "hidden to be one of 'sigmoid', 'relu', 'linear', got 'tanh'. For another network "
            "write it with layers and use jax.grad.",
        ),
        (
            (THETAS, X, Y),
            {"output": "relu"},
            ValueError,
            "output to be one of 'sigmoid', 'softmax', 'linear', got 'relu'. For another network "
            "write it with layers and use jax.grad.",
        ),
        (
            (THETAS[0], X, Y),
            {},
            TypeError,
            "thetas to be a tuple of weight matrices, got ArrayImpl. A network with one layer of "
            "weights has the tuple (theta,).",
        ),
        (
            ((), X, Y),
            {},
            TypeError,
            "thetas to be a tuple of weight matrices, got an empty one. A network with one layer "
            "of weights has the tuple (theta,).",
        ),
        (
            (THETAS, X[0], Y),
            {},
            ValueError,
            "x of shape (examples, inputs), got shape (3,). One example is a batch of one: "
            "x[None].",
        ),
        (
            (tuple(t.astype(int) for t in THETAS), X.astype("int32"), Y),
            {},
            TypeError,
            "thetas and x of a floating dtype, got int32. Convert them: x.astype(float).",
        ),
        (
            ((THETAS[0][:, 1:], THETAS[1]), X, Y),
            {},
            ValueError,
            "theta 1 with 3 + 1 columns, the first for the bias, got shape (3, 3). Layer 1 has 3 "
            "units.",
        ),
        (
            ((THETAS[0], jnp.zeros((1, 6))), X, Y),
            {},
            ValueError,
            "theta 2 with 3 + 1 columns, the first for the bias, got shape (1, 6). Layer 2 has 3 "
            "units.",
        ),
        (
            (THETAS, X, Y[:, 0]),
            {},
            ValueError,
            "y of shape (5, 1), (examples, outputs), got shape (5,). Turn classes into rows with "
            "jax.nn.one_hot, and a column into one with y[:, None].",
        ),
        (
            (THETAS, X, Y - 1),
            {},
            ValueError,
            "y from 0 to 1, as the output is a sigmoid, got y from -1 to -1. Map labels -1 and 1 "
            "to 0 and 1, or choose output='linear'.",
        ),
        (
            (THETAS, X, Y + 2),
            {"output": "softmax"},
            ValueError,
            "rows of y that sum to 1, as the output is a softmax, got a row that sums to 2. For "
            "several classes at once choose output='sigmoid'.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(args, options, error, message):
    def refuses(op, *args):
        pattern = rf"^{re.escape(f'{op.__name__}: expected {message}')}(\n|$)"
        with jax.enable_x64(False), pytest.raises(error, match=pattern):
            op(*args, **options)

    refuses(backprop_loss, *args)
    refuses(deltas, *args)
    if "y " not in message:
        refuses(activations, *args[:2])


def test_a_negative_decay_is_refused():
    message = (
        "backprop_loss: expected decay to be 0 or a positive number, got -0.1. It is the factor λ "
        "of the penalty."
    )
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}(\n|$)"):
        backprop_loss(THETAS, X, Y, decay=-0.1)
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}(\n|$)"):
        jax.grad(backprop_loss)(THETAS, X, Y, decay=-0.1)
