"""Losses on distributions, against the formula written with NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn

from .forms import some
from .values import assert_agrees, draw, values_of

pytestmark = pytest.mark.usefixtures("x64")

WHERE = np.array([True, False, True, True])


def reduced(losses, counts, reduction, weights=None):
    """Each loss that counts, their sum, or their mean weighted by `weights`."""
    losses = np.where(counts, losses, 0.0)
    if reduction == "mean":
        total = np.where(counts, 1.0 if weights is None else weights, 0.0).sum()
        return losses.sum() / total
    return losses if reduction == "none" else losses.sum()


def modes(*args, where=WHERE, **static):
    return [
        ((*args, None), static),
        ((*args, where), {**static, "reduction": "sum"}),
        ((*args, where), {**static, "reduction": "none"}),
        ((*args, where), static),
    ]


def nll_by_hand(log_probs, labels, weights=None, where=None, ignore_index=None, reduction="mean"):
    weights = np.ones(log_probs.shape[1]) if weights is None else weights
    counts = np.ones(len(labels), bool) if where is None else where & (labels != ignore_index)
    w = np.array([weights[label] for label in labels])
    losses = [-weights[label] * row[label] for row, label in zip(log_probs, labels, strict=True)]
    return reduced(np.array(losses), counts, reduction, w)


@values_of(fn.nll)
def test_nll_is_the_number_at_the_label():
    log_probs, labels = draw(4, 3), np.array([0, 2, 1, 2])
    weights = jnp.array([1.0, 3.0, 0.5])
    rows = [((log_probs, labels, *rest), options) for (rest, options) in modes()]
    rows = [((args[0], labels, None, args[2]), options) for args, options in rows]
    assert_agrees(fn.nll, nll_by_hand, rows)
    weighted = fn.nll(log_probs, labels, weights, WHERE, ignore_index=2)
    by_hand = nll_by_hand(log_probs, labels, np.asarray(weights), WHERE, 2)
    np.testing.assert_allclose(weighted, by_hand, rtol=1e-12)
    logits = draw(4, 3, seed=1)
    direct = fn.cross_entropy(logits, labels, weights)
    np.testing.assert_allclose(fn.nll(fn.log_softmax(logits), labels, weights), direct, rtol=1e-12)


@pytest.mark.long
def test_a_label_of_weight_0_adds_nothing():
    log_probs, weights = jnp.log(jnp.array([[0.0, 1.0], [0.5, 0.5]])), jnp.array([0.0, 2.0])
    loss, slope = jax.value_and_grad(fn.nll)(log_probs, jnp.array([0, 1]), weights)
    np.testing.assert_allclose(loss, math.log(2), rtol=1e-6)
    np.testing.assert_array_equal(slope, [[0, 0], [0, -1]])


def test_nll_says_nan_for_a_label_only_a_compiled_program_sees():
    loss = jax.jit(fn.nll)(draw(2, 3), jnp.array([0, 3]))
    assert np.isnan(loss)


def kl_by_hand(log_q, p, where=None, reduction="mean"):
    counts = np.ones(len(p), bool) if where is None else where
    losses = [
        sum(b * (math.log(b) - a) for a, b in zip(row, other, strict=True) if b)
        for row, other in zip(log_q, p, strict=True)
    ]
    return reduced(np.array(losses), counts, reduction)


@values_of(fn.kl_divergence)
def test_kl_divergence_is_the_sum_over_outcomes():
    p = np.exp(draw(4, 3, seed=1))
    assert_agrees(fn.kl_divergence, kl_by_hand, modes(draw(4, 3), p))
    nothing = np.array([[0.0, 0.5, 0.5]])
    log_q = np.array([[-np.inf, math.log(0.25), math.log(0.75)]])
    loss, (dlog_q, dp) = jax.value_and_grad(fn.kl_divergence, (0, 1))(log_q, nothing)
    np.testing.assert_allclose(loss, math.log(2) / 2 + math.log(2 / 3) / 2, rtol=1e-12)
    np.testing.assert_allclose(dlog_q, -nothing)
    assert dp[0, 0] == 0


def test_gaussian_kl_keeps_its_digits_near_the_standard_normal():
    loss = fn.gaussian_kl(jnp.zeros((1, 1), "float32"), jnp.full((1, 1), 1e-3, "float32"))
    np.testing.assert_allclose(loss, 0.25e-6, rtol=1e-2)


def gaussian_kl_by_hand(mean, log_var, where=None, reduction="mean"):
    """The integral of q ln(q / p), by the rectangle rule."""
    counts = np.ones(len(mean), bool) if where is None else where
    z = np.linspace(-12, 12, 4801)
    losses = np.zeros(len(mean))
    for n, k in np.ndindex(mean.shape):
        v = np.exp(log_var[n, k])
        log_q = -((z - mean[n, k]) ** 2 / v + log_var[n, k]) / 2
        density = np.exp(log_q) / np.sqrt(2 * np.pi)
        losses[n] += (density * (log_q + z**2 / 2)).sum() * (z[1] - z[0])
    return reduced(losses, counts, reduction)


@values_of(fn.gaussian_kl)
def test_gaussian_kl_is_the_integral():
    mean, log_var = draw(4, 2), draw(4, 2, seed=1) / 2
    assert_agrees(fn.gaussian_kl, gaussian_kl_by_hand, modes(mean, log_var))


def gaussian_nll_by_hand(mean, log_var, target, where=None, full=False, reduction="mean"):
    counts = np.ones(mean.shape, bool) if where is None else where
    deviation = np.exp(log_var / 2)
    density = np.exp(-(((target - mean) / deviation) ** 2) / 2) / deviation
    return reduced(-np.log(density / np.sqrt(2 * np.pi) ** full), counts, reduction)


@values_of(fn.gaussian_nll)
def test_gaussian_nll_is_the_logarithm_of_the_density():
    arrays = [draw(4, seed=i) for i in range(3)]
    rows = modes(*arrays) + modes(*arrays, full=True)[:1]
    assert_agrees(fn.gaussian_nll, gaussian_nll_by_hand, rows)


def bernoulli_by_hand(probs, targets, where=None, reduction="mean"):
    counts = np.ones(probs.shape, bool) if where is None else where
    losses = -np.log(probs**targets * (1 - probs) ** (1 - targets))
    return reduced(losses, counts, reduction)


@values_of(fn.bernoulli_nll)
def test_bernoulli_nll_is_the_logarithm_of_the_chance():
    probs, targets = (np.abs(np.sin(draw(4, seed=i))) for i in range(2))
    assert_agrees(fn.bernoulli_nll, bernoulli_by_hand, modes(probs, targets))
    logits = np.log(probs / (1 - probs))
    both = fn.bernoulli_nll(probs, targets), fn.binary_cross_entropy(logits, targets)
    np.testing.assert_allclose(*both, rtol=1e-12)


def test_bernoulli_nll_caps_a_logarithm_at_100():
    probs, targets = jnp.array([0.0, 0.0, 1.0, 1.0]), jnp.array([0.0, 1.0, 1.0, 0.25])
    losses = fn.bernoulli_nll(probs, targets, reduction="none")
    np.testing.assert_allclose(losses, [0, 100, 0, 75])
    slopes = jax.grad(lambda p: fn.bernoulli_nll(p, targets, reduction="sum"))(probs)
    np.testing.assert_allclose(slopes, [1, 0, -1, -0.25])


def smooth_l1_by_hand(predictions, targets, where=None, beta=1.0, reduction="mean"):
    counts = np.ones(predictions.shape, bool) if where is None else where
    d = np.abs(predictions - targets)
    losses = [e * e / (2 * beta) if e <= beta else e - beta / 2 for e in d]
    return reduced(np.array(losses), counts, reduction)


@values_of(fn.smooth_l1)
def test_smooth_l1_is_a_parabola_between_two_lines():
    pair = np.array([0.0, 0.3, 2.0, -3.0]), np.array([0.1, -0.4, -1.0, 0.5])
    rows = modes(*pair) + modes(*pair, beta=3.2)[:1]
    assert_agrees(fn.smooth_l1, smooth_l1_by_hand, rows)
    huber = fn.huber(*pair, delta=0.5) / 0.5
    np.testing.assert_allclose(fn.smooth_l1(*pair, beta=0.5), huber, rtol=1e-12)


def z_loss_by_hand(logits, labels, z_loss):
    total = np.exp(logits).sum(1)
    of_label = np.exp(logits)[np.arange(len(labels)), labels] / total
    return (-np.log(of_label) + z_loss * np.log(total) ** 2).mean()


@pytest.mark.long
def test_z_loss_adds_the_square_of_logsumexp():
    logits, labels = 3 * draw(4, 3), np.array([0, 2, 1, 2])
    assert_agrees(
        fn.cross_entropy,
        lambda logits, labels, z_loss: z_loss_by_hand(logits, labels, z_loss),
        [((logits, labels), {"z_loss": 0.3})],
    )
    soft = np.eye(3)[labels]
    hard, one_hot = (
        jax.value_and_grad(fn.cross_entropy)(logits, y, z_loss=0.3) for y in (labels, soft)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), hard, one_hot)
    where = np.array([True, False, True, True])
    masked = fn.cross_entropy(logits, labels, None, where, z_loss=0.3)
    expected = z_loss_by_hand(logits[where], labels[where], 0.3)
    np.testing.assert_allclose(masked, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "op", [fn.kl_divergence, fn.gaussian_kl, fn.gaussian_nll, fn.bernoulli_nll, fn.smooth_l1]
)
def test_what_does_not_count_may_be_anything(op):
    arguments = op.rule.arguments.index("where")
    by_row = op in (fn.kl_divergence, fn.gaussian_kl)
    shape = (4, 3) if by_row else (4,)
    clean = [np.abs(np.sin(draw(*shape, seed=i))) for i in range(arguments)]
    dirty = [np.where(WHERE[:, None] if by_row else WHERE, x, np.nan) for x in clean]
    pull = jax.jit(jax.value_and_grad(op, argnums=tuple(range(arguments))))
    loss, gradients = pull(*dirty, WHERE)
    jax.tree.map(np.testing.assert_array_equal, (loss, gradients), pull(*clean, WHERE))
    assert not any(gradient[1].any() for gradient in gradients)
    nothing, gradients = pull(*dirty, np.zeros(4, bool))
    assert nothing == 0
    assert not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize("op", some([fn.nll, fn.cross_entropy, fn.linear_cross_entropy], 1))
def test_a_cotangent_of_what_is_ignored_may_be_anything(op):
    labels, w = jnp.array([0, 1]), (jnp.eye(2),) if op is fn.linear_cross_entropy else ()
    options = {"ignore_index": 0, "reduction": "none"}
    _, pull = jax.vjp(lambda x: op(x, *w, labels, **options), -jnp.ones((2, 2)))
    (dx,) = pull(jnp.array([jnp.inf, 1.0]))
    assert dx[0].tolist() == [0, 0]
    assert np.isfinite(dx).all()


def test_gaussian_nll_of_a_hit_is_finite_at_a_tiny_variance():
    zero, log_var = jnp.zeros(1, jnp.float32), jnp.full(1, -150, jnp.float32)
    value, grads = jax.value_and_grad(fn.gaussian_nll, argnums=(0, 1, 2))(zero, log_var, zero)
    assert (value, [float(g[0]) for g in grads]) == (-75, [0, 0.5, 0])
