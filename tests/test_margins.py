"""Losses of margins, counts and rare classes, against NumPy and optax."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special, stats

import funcnet as fn

from .forms import some
from .test_likelihood import modes, reduced
from .values import assert_agrees, draw, values_of

pytestmark = pytest.mark.usefixtures("x64")

SIGNS = np.array([1, -1, -1, 1])


WEIGHTS = jnp.array([0.5, 2.0, 0.0, 3.0])
"""As constants, which JAX's arrays are to `assert_agrees`."""


def everywhere(losses, where):
    return np.ones(losses.shape, bool) if where is None else where


def hinge_by_hand(scores, targets, where=None, margin=1.0, reduction="mean"):
    losses = np.clip(margin - targets * scores, 0, np.inf)
    return reduced(losses, everywhere(losses, where), reduction)


@values_of(fn.hinge)
def test_hinge():
    scores = draw(4)
    rows = modes(scores, SIGNS) + modes(scores, SIGNS, margin=0.2)[:1]
    assert_agrees(fn.hinge, hinge_by_hand, rows)
    theirs = optax.hinge_loss(scores, SIGNS).mean()
    np.testing.assert_allclose(fn.hinge(scores, SIGNS), theirs, rtol=1e-12)


def test_targets_that_do_not_count_or_are_traced_are_not_looked_at():
    where = np.array([True, False, True, True])
    others = np.where(where, SIGNS, 0)
    found = fn.hinge(draw(4), others, where), fn.margin_ranking(draw(4), 0 * draw(4), others, where)
    expected = (
        fn.hinge(draw(4), SIGNS, where),
        fn.margin_ranking(draw(4), 0 * draw(4), SIGNS, where),
    )
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(jax.jit(fn.hinge)(np.zeros(2), np.array([0.5, 0.0])), 1)


def ranking_by_hand(first, second, targets, where=None, margin=0.0, reduction="mean"):
    high, low = np.where(targets > 0, first, second), np.where(targets > 0, second, first)
    losses = np.maximum(low + margin - high, 0)
    return reduced(losses, everywhere(losses, where), reduction)


@values_of(fn.margin_ranking)
def test_margin_ranking():
    pair = draw(4), draw(4, seed=1)
    rows = modes(*pair, SIGNS) + modes(*pair, SIGNS, margin=0.7)[:1]
    assert_agrees(fn.margin_ranking, ranking_by_hand, rows)


def triplet_by_hand(anchor, positive, negative, where=None, margin=1.0, reduction="mean"):
    near, far = (np.linalg.norm(anchor - other, axis=-1) for other in (positive, negative))
    losses = np.maximum(near - far + margin, 0)
    return reduced(losses, everywhere(losses, where), reduction)


@values_of(fn.triplet_margin)
def test_triplet_margin():
    arrays = [draw(4, 3, seed=i) for i in range(3)]
    rows = modes(*arrays) + modes(*arrays, margin=0.1)[:1]
    assert_agrees(fn.triplet_margin, triplet_by_hand, rows)


def multi_margin_by_hand(
    scores, labels, weights=None, where=None, p=1, margin=1.0, reduction="mean"
):
    losses = np.zeros(len(scores))
    for n, (row, y) in enumerate(zip(scores, labels, strict=True)):
        others = [max(0, margin - row[y] + s) ** p for c, s in enumerate(row) if c != y]
        losses[n] = (1 if weights is None else weights[y]) * sum(others) / len(row)
    return reduced(losses, everywhere(losses, where), reduction)


@values_of(fn.multi_margin)
def test_multi_margin():
    scores, labels = draw(4, 3), np.array([2, 0, 1, 1])
    rows = modes(scores, labels, None) + modes(scores, labels, None, p=2, margin=0.6)[:2]
    assert_agrees(fn.multi_margin, multi_margin_by_hand, rows)
    weighted = fn.multi_margin(scores, labels, WEIGHTS[1:], p=2)
    expected = multi_margin_by_hand(scores, labels, np.asarray(WEIGHTS[1:]), p=2)
    np.testing.assert_allclose(weighted, expected, rtol=1e-12)
    assert not jax.grad(lambda w: fn.multi_margin(scores, labels, w))(np.ones(3)).any()


def test_multi_margin_of_two_classes_is_half_of_hinge_and_of_crammer_and_singers():
    scores, labels = draw(6, 2), np.array([0, 1, 1, 0, 1, 0])
    gap, signs = scores[:, 1] - scores[:, 0], 2 * labels - 1
    found = fn.multi_margin(scores, labels, reduction="none")
    np.testing.assert_allclose(2 * found, fn.hinge(gap, signs, reduction="none"), rtol=1e-12)
    largest = optax.losses.multiclass_hinge_loss(jnp.asarray(scores), labels)
    np.testing.assert_allclose(2 * found, largest, rtol=1e-12, atol=1e-15)


def test_labels_of_multi_margin_that_a_program_sees_out_of_range_give_nan():
    losses = jax.jit(lambda s, y: fn.multi_margin(s, y, reduction="none"))
    found = losses(draw(3, 2), jnp.array([0, 2, -1]))
    assert np.isnan(found).tolist() == [False, True, True]


def test_what_multi_margin_leaves_out_may_be_anything():
    where, scores = np.array([True, False]), np.array([[1.0, 2.0], [np.nan, np.inf]])
    loss, slopes = jax.value_and_grad(fn.multi_margin)(scores, np.array([0, 7]), None, where)
    assert loss == 1
    assert slopes.tolist() == [[-0.5, 0.5], [0, 0]]
    nothing = jax.value_and_grad(fn.multi_margin)(scores, np.array([0, 7]), None, where & False)
    assert not any(np.asarray(leaf).any() for leaf in nothing)


def cosine_by_hand(first, second, axis=-1):
    lengths = (np.linalg.norm(x, axis=axis) for x in (first, second))
    return (first * second).sum(axis) / np.prod([*lengths], 0)


@values_of(fn.cosine_similarity)
def test_cosine_similarity():
    rows: list = [((draw(3, 4), draw(3, 4, seed=1)), {"axis": axis}) for axis in (-1, 0)]
    assert_agrees(fn.cosine_similarity, cosine_by_hand, rows)
    pair = draw(3, 4), draw(3, 4, seed=1)
    ours, theirs = (
        jax.value_and_grad(lambda a, b, f=f: (f(a, b) * WEIGHTS[:3]).sum(), (0, 1))(*pair)
        for f in (fn.cosine_similarity, optax.cosine_similarity)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), ours, theirs)
    whole = fn.cosine_similarity(*pair, axis=(0, 1))
    np.testing.assert_allclose(whole, cosine_by_hand(*(x.ravel() for x in pair)), rtol=1e-12)


def cosine_embedding_by_hand(first, second, targets, where=None, margin=0.0, reduction="mean"):
    cosine = cosine_by_hand(first, second)
    losses = np.where(targets > 0, 1 - cosine, np.maximum(0, cosine - margin))
    return reduced(losses, everywhere(losses, where), reduction)


@values_of(fn.cosine_embedding)
def test_cosine_embedding():
    pair = draw(4, 3), draw(4, 3, seed=1)
    rows = modes(*pair, SIGNS) + modes(*pair, SIGNS, margin=-0.5)[:2]
    assert_agrees(fn.cosine_embedding, cosine_embedding_by_hand, rows)


def info_nce_by_hand(queries, keys, where=None, temperature=0.1, symmetric=False, reduction="mean"):
    n = len(queries)
    counts = everywhere(np.zeros(n), where)
    powers = np.array([[np.exp(cosine_by_hand(q, k) / temperature) for k in keys] for q in queries])
    ways = [powers, powers.T] if symmetric else [powers]
    losses = np.zeros(n)
    for way, i in itertools.product(ways, range(n)):
        share = way[i, i] / sum(way[i, j] for j in range(n) if counts[j])
        losses[i] -= np.log(share) / len(ways) if counts[i] else 0
    return reduced(losses, counts, reduction)


@values_of(fn.info_nce)
def test_info_nce():
    pair = draw(4, 3), draw(4, 3, seed=1)
    for static in ({"temperature": 0.7}, {"temperature": 0.4, "symmetric": True}):
        assert_agrees(fn.info_nce, info_nce_by_hand, modes(*pair, **static))
    u, v = (fn.l2_normalize(jnp.asarray(x)) for x in pair)
    plain = fn.cross_entropy(u @ v.T / 0.1, jnp.arange(4), reduction="none")
    np.testing.assert_allclose(fn.info_nce(*pair, reduction="none"), plain, rtol=1e-12)


def nt_xent_by_hand(first, second, where=None, temperature=0.1, reduction="mean"):
    n = len(first)
    counts = everywhere(np.zeros(n), where)
    rows, whose = np.concatenate([first, second]), [*range(n), *range(n)]
    losses = np.zeros(n)
    for i in range(2 * n):
        powers = {
            k: np.exp(cosine_by_hand(rows[i], rows[k]) / temperature)
            for k in range(2 * n)
            if k != i and counts[whose[k]]
        }
        partner = (i + n) % (2 * n)
        losses[whose[i]] -= (
            np.log(powers[partner] / sum(powers.values())) / 2 if counts[whose[i]] else 0
        )
    return reduced(losses, counts, reduction)


@values_of(fn.nt_xent)
def test_nt_xent():
    pair = draw(4, 3), draw(4, 3, seed=1)
    assert_agrees(fn.nt_xent, nt_xent_by_hand, modes(*pair, temperature=0.6))

    def theirs(first, second):
        rows = jnp.concatenate([first, second])
        return optax.losses.ntxent(rows, jnp.tile(jnp.arange(4), 2), temperature=0.3)

    def ours(first, second):
        return fn.nt_xent(first, second, temperature=0.3)

    found, expected = (
        jax.value_and_grad(f, (0, 1))(*map(jnp.asarray, pair)) for f in (ours, theirs)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6, 1e-9), found, expected)


CONTRASTS = [
    fn.nt_xent,
    fn.info_nce,
    functools.wraps(fn.info_nce)(
        lambda *args, **static: fn.info_nce(*args, symmetric=True, **static)
    ),
]


@pytest.mark.long
@pytest.mark.parametrize("op", CONTRASTS)
@pytest.mark.parametrize("reduction", some(["mean", "sum", "none"], 1))
def test_a_pair_that_does_not_count_is_no_example_and_no_negative(op, reduction):
    first, second, where = draw(4, 3), draw(4, 3, seed=1), np.array([True, False, True, True])
    spoilt = [np.where(where[:, None], x, np.nan) for x in (first, second)]

    def total(*args):
        return op(*args, reduction=reduction).sum()

    loss, slopes = jax.value_and_grad(total, (0, 1))(*spoilt, where)
    alone, expected = jax.value_and_grad(total, (0, 1))(first[where], second[where])
    np.testing.assert_allclose(loss, alone, rtol=1e-12)
    for found, truth in zip(slopes, expected, strict=True):
        np.testing.assert_allclose(found[where], truth, rtol=1e-11, atol=1e-14)
        assert not found[1].any()
    nothing = jax.value_and_grad(total, (0, 1))(*spoilt, where & False)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(nothing))


@pytest.mark.long
def test_a_low_temperature_overflows_nowhere():
    pair = [jnp.asarray(draw(5, 3, seed=i), jnp.float32) for i in range(2)]
    for op in CONTRASTS:
        loss, slopes = jax.value_and_grad(lambda *args, op=op: op(*args, temperature=1e-3), (0, 1))(
            *pair
        )
        assert np.isfinite(loss)
        assert all(np.isfinite(slope).all() for slope in slopes)


def poisson_by_hand(
    predictions, targets, where=None, log_input=True, full=False, eps=1e-8, reduction="mean"
):
    log_rate = predictions if log_input else np.log(predictions + eps)
    losses = (np.exp(predictions) if log_input else predictions) - targets * log_rate
    large = np.maximum(targets, 1.0)
    stirling = 0.5 * np.log(2 * np.pi * large * (large / np.e) ** (2 * large))
    losses = losses + full * (targets > 1) * stirling
    return reduced(losses, everywhere(losses, where), reduction)


@values_of(fn.poisson_nll)
def test_poisson_nll():
    rates, counts = np.abs(draw(4)) + 0.1, np.array([0.0, 3.0, 0.5, 7.0])
    rows = modes(draw(4), counts) + modes(rates, counts, log_input=False, full=True)[:2]
    assert_agrees(fn.poisson_nll, poisson_by_hand, rows)
    whole = np.floor(counts)
    chance = -stats.poisson.logpmf(whole, rates) - special.gammaln(whole + 1)
    for predictions, log_input in ((np.log(rates), True), (rates, False)):
        ours = fn.poisson_nll(predictions, whole, log_input=log_input, eps=0.0, reduction="none")
        np.testing.assert_allclose(ours, chance, rtol=1e-12)


def dice_by_hand(probs, targets, where=None, smooth=1.0, reduction="mean"):
    pairs = zip(probs, targets, strict=True)
    shares = [(2 * p @ t + smooth) / ((p + t).sum() + smooth) for p, t in pairs]
    losses = 1 - np.array(shares)
    return reduced(losses, everywhere(losses, where), reduction)


@values_of(fn.soft_dice)
def test_soft_dice():
    pair = [np.abs(np.sin(draw(4, 3, seed=i))) for i in range(2)]
    rows = modes(*pair) + modes(*pair, smooth=0.1)[:1]
    assert_agrees(fn.soft_dice, dice_by_hand, rows)


def bce_by_hand(logits, targets, where=None, pos_weight=1, weight=1, reduction="mean"):
    p = 1 / (1 + np.exp(-logits))
    losses = -weight * (pos_weight * targets * np.log(p) + (1 - targets) * np.log(1 - p))
    return reduced(losses, everywhere(losses, where), reduction)


@values_of(fn.bernoulli_nll, fn.sigmoid_focal)
def test_weights_of_binary_losses():
    """As in PyTorch, the mean divides by the number of elements and not by their weights."""
    logits, targets = draw(4), np.array([0.0, 1.0, 0.3, 0.8])
    probs, w = 1 / (1 + np.exp(-logits)), np.asarray(WEIGHTS)

    def by_hand(logits, targets, where, weight, **static):
        return bce_by_hand(logits, targets, where, 1, np.asarray(weight), **static)

    def of_coins(probs, targets, where, weight, **static):
        return by_hand(np.log(probs / (1 - probs)), targets, where, weight, **static)

    def focal(logits, targets, where, weight, reduction="mean"):
        losses = w * focal_by_hand(logits, targets, reduction="none")
        return reduced(losses, everywhere(losses, where), reduction)

    def bce(logits, targets, where, weight, **static):
        return fn.binary_cross_entropy(logits, targets, where, None, weight, **static)

    bce.rule = fn.binary_cross_entropy.rule
    for op, reference, x in (
        (bce, by_hand, logits),
        (fn.bernoulli_nll, of_coins, probs),
        (fn.sigmoid_focal, focal, logits),
    ):
        rows = [((*args, WEIGHTS), static) for args, static in modes(x, targets)]
        assert_agrees(op, reference, rows)
        assert not jax.grad(lambda w, op=op, x=x: op(x, targets, None, w))(WEIGHTS).any()
    both = fn.binary_cross_entropy(logits, targets, None, 2.5, WEIGHTS)
    np.testing.assert_allclose(both, bce_by_hand(logits, targets, None, 2.5, w), rtol=1e-12)


def test_a_weight_of_what_does_not_count_may_be_anything():
    logits, targets, where = draw(4), np.array([0.0, 1.0, 0.3, 0.8]), np.array([True, False] * 2)
    weight = np.where(where, 2.0, np.nan)
    for op in (fn.binary_cross_entropy, fn.autodiff(fn.binary_cross_entropy)):
        loss, slopes = jax.value_and_grad(op)(logits, targets, where, None, weight)
        plain, expected = jax.value_and_grad(op)(logits, targets, where)
        np.testing.assert_allclose(loss, 2 * plain, rtol=1e-12)
        np.testing.assert_allclose(slopes, 2 * expected, rtol=1e-12)


def focal_by_hand(logits, targets, where=None, gamma=2.0, alpha=None, reduction="mean"):
    p = 1 / (1 + np.exp(-logits))
    a, b = (1, 1) if alpha is None else (alpha, 1 - alpha)
    positive, negative = (1 - p) ** gamma * np.log(p), p**gamma * np.log(1 - p)
    losses = -a * targets * positive - b * (1 - targets) * negative
    return reduced(losses, everywhere(losses, where), reduction)


@values_of(fn.sigmoid_focal)
def test_sigmoid_focal():
    logits, soft, hard = draw(4), np.array([0.0, 1.0, 0.3, 0.8]), (SIGNS + 1) / 2
    rows = modes(logits, soft) + modes(logits, soft, gamma=0.5, alpha=0.25)[:1]
    assert_agrees(fn.sigmoid_focal, focal_by_hand, rows)

    def theirs(z):
        return optax.sigmoid_focal_loss(z, hard, alpha=0.25, gamma=1.5).mean()

    def ours(z):
        return fn.sigmoid_focal(z, hard, gamma=1.5, alpha=0.25)

    pairs = zip(*(jax.value_and_grad(f)(logits) for f in (ours, theirs)), strict=True)
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=1e-10)
    plain = fn.binary_cross_entropy(logits, soft)
    np.testing.assert_allclose(fn.sigmoid_focal(logits, soft, gamma=0.0), plain, rtol=1e-12)


@pytest.mark.parametrize("op", [fn.cosine_similarity, fn.info_nce, fn.nt_xent])
def test_embeddings_of_whole_numbers_are_as_floating_ones(op):
    first, second = draw(3, 4), np.arange(12, dtype=np.int8).reshape(3, 4) * 10
    both = [jax.value_and_grad(lambda x, s=s: op(x, s).sum()) for s in (second, second * 1.0)]
    found, expected = (f(first) for f in both)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9), found, expected)
    np.testing.assert_allclose(op(first, second), op(first, second * 1.0), rtol=1e-9)
