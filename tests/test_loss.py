import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnet as fn
from funcnet import autodiff

from .forms import compiled

absolute_error, binary_cross_entropy, cross_entropy, huber, squared_error = map(
    compiled,
    (fn.absolute_error, fn.binary_cross_entropy, fn.cross_entropy, fn.huber, fn.squared_error),
)
pytestmark = pytest.mark.usefixtures("x64")

DIFFERENCES = (squared_error, absolute_error, huber)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def labels_for(n, classes, seed=1):
    return np.random.default_rng(seed).integers(0, classes, n)


def cross_entropy_by_hand(logits, labels, weights, smoothing, counts):
    """PyTorch's definition, an example at a time: the losses, their mean, and its gradient."""
    classes = logits.shape[1]
    losses, gradient, divisor = np.zeros(len(labels)), np.zeros_like(logits), 0.0
    for i in np.flatnonzero(counts):
        p = np.exp(logits[i]) / np.exp(logits[i]).sum()
        divisor += weights[labels[i]]
        for c in range(classes):
            share = (1 - smoothing) * (c == labels[i]) + smoothing / classes
            losses[i] -= weights[c] * share * np.log(p[c])
            gradient[i] -= weights[c] * share * ((np.arange(classes) == c) - p)
    return losses, losses.sum() / divisor, gradient / divisor


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore", [None, 2, -100])
def test_cross_entropy_is_pytorchs(smoothing, weighted, ignore):
    logits, labels = draw(9, 4), labels_for(9, 4)
    if ignore == -100:
        labels[3] = -100
    weights = np.array([0.5, 2.0, 1.0, 3.0]) if weighted else np.ones(4)
    losses, mean, gradient = cross_entropy_by_hand(
        logits, labels, weights, smoothing, labels != ignore
    )

    def loss(logits, reduction="mean"):
        return fn.cross_entropy(
            logits,
            labels,
            weights if weighted else None,
            label_smoothing=smoothing,
            ignore_index=ignore,
            reduction=reduction,
        )

    @jax.jit
    def found(logits):
        return *(loss(logits, r) for r in ("mean", "sum", "none")), jax.grad(loss)(logits)

    *by_reduction, slopes = found(logits)
    for value, expected in zip(by_reduction, (mean, losses.sum(), losses), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-12)
    np.testing.assert_allclose(slopes, gradient, rtol=1e-10, atol=1e-14)


def test_where_and_ignore_index_leave_out_the_same_examples():
    logits, labels = draw(6, 3), np.array([0, 1, 2, 1, 0, 2])
    counts = np.array([True, False, True, True, False, True])
    left_out = np.where(counts, labels, -1)
    by_where = jax.value_and_grad(cross_entropy)(logits, labels, None, counts)
    by_index = jax.value_and_grad(cross_entropy)(logits, left_out, ignore_index=-1)
    short = cross_entropy(logits[counts], labels[counts])
    jax.tree.map(np.testing.assert_array_equal, by_where, by_index)
    np.testing.assert_allclose(by_where[0], short, rtol=1e-14)
    assert not by_where[1][~counts].any()


def test_a_one_hot_soft_label_is_the_integer_label():
    logits, labels = draw(2, 5, 4), labels_for((2, 5), 4)
    for smoothing in (0.0, 0.2):
        hard = jax.value_and_grad(cross_entropy)(logits, labels, label_smoothing=smoothing)
        soft = jax.value_and_grad(cross_entropy)(
            logits, jax.nn.one_hot(labels, 4), label_smoothing=smoothing
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), hard, soft)


def test_soft_labels_get_their_gradient():
    logits, labels, weights = draw(5, 3), np.abs(draw(5, 3, seed=1)), np.array([1.0, 2.0, 0.5])

    def loss(labels):
        return cross_entropy(logits, labels, weights, label_smoothing=0.25)

    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    value = -(weights * (0.75 * labels + 0.25 / 3) * log_p).sum() / 5
    np.testing.assert_allclose(loss(labels), value, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(loss)(labels), -0.75 * weights * log_p / 5, rtol=1e-12)


def test_class_weights_and_pos_weight_are_constants():
    logits, labels, ones = draw(4, 3), labels_for(4, 3), np.ones(3)
    assert not jax.grad(lambda w: cross_entropy(logits, labels, w))(ones).any()
    assert not jax.grad(lambda w: binary_cross_entropy(logits, logits > 0, None, w))(ones).any()


def test_labels_that_only_a_compiled_program_sees_out_of_range_give_nan():
    logits = draw(2, 3)
    for label in (-1, 3):
        loss, gradient = jax.jit(jax.value_and_grad(cross_entropy))(logits, jnp.array([0, label]))
        assert np.isnan(loss)
        assert np.isnan(gradient).all()
    ignored = jax.jit(lambda y: cross_entropy(logits, y, ignore_index=-1))(jnp.array([0, -1]))
    np.testing.assert_allclose(ignored, cross_entropy(logits[:1], np.array([0])))


def test_large_logits_lose_no_digits():
    logits = jnp.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], jnp.float32)
    for label in range(3):
        labels = jnp.array([label, label])
        losses = cross_entropy(logits, labels, reduction="none")
        np.testing.assert_allclose(losses, [1e4 - logits[0, label], np.log(3)], rtol=1e-6)
        gradient = jax.grad(cross_entropy)(logits, labels)
        np.testing.assert_allclose(gradient[0], (np.eye(3)[0] - np.eye(3)[label]) / 2)
        np.testing.assert_allclose(gradient[1], (1 / 3 - np.eye(3)[label]) / 2, rtol=1e-6)


def test_a_class_that_is_ruled_out_costs_nothing():
    logits = jnp.array([[0.0, -jnp.inf, 0.0]])
    loss, gradient = jax.value_and_grad(cross_entropy)(logits, jnp.array([0]))
    np.testing.assert_allclose(loss, np.log(2))
    np.testing.assert_allclose(gradient, [[-0.5, 0.0, 0.5]])


def test_a_soft_label_that_is_ruled_out_costs_nothing_either():
    logits, labels = jnp.array([[0.0, -jnp.inf, 0.0]]), jnp.array([[1.0, 0.0, 0.0]])
    for op in (cross_entropy, autodiff(cross_entropy)):
        loss, (dlogits, dlabels) = jax.value_and_grad(op, (0, 1))(logits, labels)
        np.testing.assert_allclose(loss, np.log(2))
        np.testing.assert_allclose(dlogits, [[-0.5, 0.0, 0.5]])
        np.testing.assert_allclose(dlabels, [[np.log(2), 0.0, np.log(2)]])


@pytest.mark.long
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_class_of_weight_0_may_be_ruled_out(smoothing):
    labels, weights = np.array([0, 1, 2, 3, 1, 0]), np.array([0.5, 0.0, 1.0, 3.0])
    far = draw(6, 4)
    far[[1, 2, 5], 1] = -200.0  # as good as ruled out, and finite
    losses, mean, gradient = cross_entropy_by_hand(far, labels, weights, smoothing, np.ones(6))
    logits, divisor = jnp.where(far == -200, -jnp.inf, far), weights[labels].sum()
    for op in (cross_entropy, autodiff(cross_entropy)):
        hard = jax.value_and_grad(op)(logits, labels, weights, label_smoothing=smoothing)
        soft = jax.value_and_grad(op)(
            logits, jax.nn.one_hot(labels, 4), weights, label_smoothing=smoothing
        )
        np.testing.assert_allclose(hard[0], mean, rtol=1e-12)
        np.testing.assert_allclose(hard[1], gradient, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(soft[0], losses.sum() / 6, rtol=1e-12)
        np.testing.assert_allclose(soft[1], gradient * divisor / 6, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("anything", "z_loss"),
    [
        (np.nan, 0.0),
        (-np.inf, 0.1),
        *(
            pytest.param(*pair, marks=pytest.mark.long)
            for pair in [(np.nan, 0.1), (np.inf, 0.0), (np.inf, 0.1), (-np.inf, 0.0)]
        ),
    ],
)
def test_an_example_whose_label_weighs_0_may_hold_anything(anything, z_loss):
    logits, labels, weights = draw(4, 3), np.array([0, 1, 2, 1]), np.array([1.0, 0.0, 2.0])
    short = cross_entropy(logits[::2], labels[::2], weights, z_loss=z_loss)
    logits[1::2] = anything
    for op in (cross_entropy, autodiff(cross_entropy)):
        loss, gradient = jax.value_and_grad(op)(logits, labels, weights, z_loss=z_loss)
        np.testing.assert_allclose(loss, short, rtol=1e-14)
        assert gradient[1::2].tolist() == [[0.0] * 3] * 2
        assert np.isfinite(gradient).all()


def test_binary_cross_entropy_by_its_definition():
    logits, targets, w = draw(4, 3), np.random.default_rng(1).uniform(size=(4, 3)), 2.5
    where = np.random.default_rng(2).uniform(size=(4, 3)) < 0.6
    a = 1 / (1 + np.exp(-logits))
    losses = -(w * targets * np.log(a) + (1 - targets) * np.log(1 - a))
    n = where.sum()

    def loss(logits, targets):
        return binary_cross_entropy(logits, targets, where, w)

    dz, dt = jax.grad(loss, argnums=(0, 1))(logits, targets)
    expected = where * (-w * targets * (1 - a) + (1 - targets) * a) / n
    np.testing.assert_allclose(loss(logits, targets), losses[where].sum() / n, rtol=1e-12)
    np.testing.assert_allclose(dz, expected, rtol=1e-12)
    np.testing.assert_allclose(dt, where * (np.log(1 - a) - w * np.log(a)) / n, rtol=1e-12)


def test_binary_cross_entropy_far_out():
    logits = jnp.array([1e4, -1e4, 1e4, -1e4, 0.0], jnp.float32)
    targets = jnp.array([1.0, 0.0, 0.0, 1.0, 1.0], jnp.float32)
    losses = binary_cross_entropy(logits, targets, reduction="none")
    gradient = jax.grad(lambda z: binary_cross_entropy(z, targets, reduction="sum"))(logits)
    np.testing.assert_allclose(losses, [0, 0, 1e4, 1e4, np.log(2)], rtol=1e-6)
    np.testing.assert_array_equal(gradient, [0, 0, 1, -1, -0.5])


def test_binary_cross_entropy_keeps_small_gradients():
    gradient = jax.grad(binary_cross_entropy)(jnp.float32(30), jnp.float32(1))
    np.testing.assert_allclose(gradient, -np.exp(-30.0), rtol=1e-6)


SLOPES = {
    squared_error: (lambda d: d**2, lambda d: 2 * d),
    absolute_error: (np.abs, np.sign),
    huber: (
        lambda d: [x * x / 2 if abs(x) < 1 else abs(x) - 0.5 for x in d],
        lambda d: [x if abs(x) < 1 else np.sign(x) for x in d],
    ),
}


@pytest.mark.parametrize("op", DIFFERENCES)
def test_errors_of_a_difference_by_their_definition(op):
    loss, slope = SLOPES[op]
    predictions, targets = 2 * draw(8), draw(8, seed=1)
    where = np.array([True, True, False, True, False, True, True, False])
    d = predictions - targets
    total = np.sum(np.where(where, loss(d), 0))
    np.testing.assert_allclose(op(predictions, targets, reduction="none"), loss(d), rtol=1e-14)
    np.testing.assert_allclose(op(predictions, targets, where, reduction="sum"), total, rtol=1e-14)
    np.testing.assert_allclose(op(predictions, targets, where), total / 5, rtol=1e-14)
    dp, dt = jax.grad(op, argnums=(0, 1))(predictions, targets, where)
    np.testing.assert_allclose(dp, np.where(where, slope(d), 0) / 5, rtol=1e-14)
    np.testing.assert_array_equal(dt, -dp)


def test_the_slope_of_equal_numbers_is_zero():
    for op in DIFFERENCES:
        gradients = jax.grad(op, argnums=(0, 1))(jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0]))
        assert [g[0].item() for g in gradients] == [0.0, 0.0]


def test_huber_joins_its_parabola_to_its_lines():
    errors, zeros = jnp.array([-2.0, 2.0, 5.0]), jnp.zeros(3)
    losses = huber(errors, zeros, delta=2.0, reduction="none")
    gradient = jax.grad(lambda e: huber(e, zeros, delta=2.0, reduction="sum"))(errors)
    assert losses.tolist() == [2.0, 2.0, 8.0]
    assert gradient.tolist() == [-2.0, 2.0, 2.0]


@pytest.mark.parametrize("op", [binary_cross_entropy, *DIFFERENCES])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_places_left_out_may_hold_anything(op, reduction):
    where = jnp.array([True, False, True])
    x, y = jnp.array([0.5, jnp.nan, -1.0]), jnp.array([1.0, jnp.inf, 0.0])

    def total(x, y):
        return op(x, y, where, reduction=reduction).sum()

    gradients = jax.grad(total, argnums=(0, 1))(x, y)
    clean = jax.grad(total, argnums=(0, 1))(x.at[1].set(0.0), y.at[1].set(0.0))
    jax.tree.map(np.testing.assert_array_equal, gradients, clean)
    assert [g[1].item() for g in gradients] == [0.0, 0.0]


def test_examples_left_out_may_hold_anything():
    where = jnp.array([True, False])
    logits = jnp.array([[1.0, 2.0], [jnp.nan, jnp.inf]])
    loss, gradient = jax.value_and_grad(cross_entropy)(logits, jnp.array([0, 9]), None, where)
    np.testing.assert_allclose(loss, np.log1p(np.e))
    assert gradient[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("op", [binary_cross_entropy, *DIFFERENCES])
@pytest.mark.parametrize("shape", [(3,), (0,)])
def test_a_mean_over_nothing_is_zero(op, shape):
    x, where = jnp.ones(shape), jnp.zeros(shape, bool)
    for mask in (where, None) if shape == (0,) else (where,):
        loss, gradient = jax.value_and_grad(op)(x, x, mask)
        assert loss == 0
        np.testing.assert_array_equal(gradient, 0 * x)


def test_a_mean_cross_entropy_over_nothing_is_zero():
    ignored = jnp.array([2, 2])
    for logits, labels, weights, where in (
        (draw(2, 3), ignored, None, None),
        (draw(2, 3), ignored, None, jnp.array([False, True])),
        (draw(2, 3), ignored - 1, np.array([1.0, 0.0, 1.0]), None),
        (draw(0, 3), ignored[:0], None, None),
    ):
        loss, gradient = jax.value_and_grad(cross_entropy)(
            logits, labels, weights, where, ignore_index=2
        )
        assert loss == 0
        np.testing.assert_array_equal(gradient, np.zeros(logits.shape))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_a_loss_has_the_dtype_of_the_network_and_is_rounded_once(dtype):
    x, y = jnp.asarray(draw(64), dtype), jnp.asarray(draw(64, seed=1), "float32")
    for op in DIFFERENCES:
        assert op(x, y).dtype == dtype
        exact = op(x.astype("float64"), y.astype("float64")).astype(dtype)
        np.testing.assert_allclose(op(x, y).astype("float64"), exact, rtol=1e-6)
    logits, labels = jnp.asarray(draw(64, 3), dtype), labels_for(64, 3)
    exact = cross_entropy(logits.astype("float64"), labels).astype(dtype)
    assert cross_entropy(logits, labels).dtype == dtype
    np.testing.assert_allclose(cross_entropy(logits, labels).astype("float64"), exact, rtol=1e-6)
    assert binary_cross_entropy(x, y > 0).dtype == dtype


def test_optax_agrees():
    logits, labels, soft = draw(6, 5), labels_for(6, 5), np.array(jax.nn.softmax(draw(6, 5)))
    binary = np.random.default_rng(3).uniform(size=(6, 5))
    smooth = optax.smooth_labels(jax.nn.one_hot(labels, 5), 0.1)

    def none(op, *args, **options):
        return op(*args, reduction="none", **options)

    for ours, theirs in (
        (
            none(cross_entropy, logits, labels),
            optax.softmax_cross_entropy_with_integer_labels(logits, labels),
        ),
        (none(cross_entropy, logits, soft), optax.softmax_cross_entropy(logits, soft)),
        (
            none(cross_entropy, logits, labels, label_smoothing=0.1),
            optax.softmax_cross_entropy(logits, smooth),
        ),
        (
            none(binary_cross_entropy, logits, binary),
            optax.sigmoid_binary_cross_entropy(logits, binary),
        ),
        (none(squared_error, logits, binary), optax.squared_error(logits, binary)),
        (
            none(huber, 2 * logits, binary, delta=0.7),
            optax.huber_loss(2 * logits, binary, delta=0.7),
        ),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
