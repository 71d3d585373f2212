"""Losses of margins, counts and rare classes, against NumPy and optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special, stats

import funcnet as fn

from .test_likelihood import modes, reduced
from .values import assert_agrees, draw, values_of

pytestmark = pytest.mark.usefixtures("x64")

SIGNS = np.array([1, -1, -1, 1])


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


WEIGHTS = jnp.array([0.5, 2.0, 0.0, 3.0])
"""As constants, which JAX's arrays are to `assert_agrees`."""


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
