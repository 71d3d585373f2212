"""Connectionist temporal classification: all alignments one by one, optax, and what is read."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnet as fn

from .forms import some
from .values import assert_agrees, draw, values_of

pytestmark = pytest.mark.usefixtures("x64", "ops_compile_whole")


def read(alignment, blank):
    """Repeated classes once, then no blanks."""
    once = [c for c, _ in itertools.groupby(alignment)]
    return [c for c in once if c != blank]


def by_enumeration(
    logits, logit_lengths, labels, label_lengths, blank=0, zero_infinity=False, reduction="mean"
):
    losses = []
    for z, frames, row, count in zip(logits, logit_lengths, labels, label_lengths, strict=True):
        p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        total = sum(
            np.prod([p[t, c] for t, c in enumerate(alignment)])
            for alignment in itertools.product(range(z.shape[-1]), repeat=frames)
            if read(alignment, blank) == list(row[:count])
        )
        losses.append(-np.log(total) if total else (0.0 if zero_infinity else np.inf))
    whole = {"mean": np.mean, "sum": np.sum, "none": np.array}
    return whole[reduction](losses)


@values_of(fn.ctc_loss)
def test_ctc_loss_sums_over_every_alignment():
    one = (
        np.array([5, 4, 2, 0]),
        np.array([[1, 2], [2, 2], [1, -1], [7, 7]]),
        np.array([2, 2, 1, 0]),
    )
    another = np.array([4, 5, 3]), np.array([[0, 2], [0, 0], [2, 0]]), np.array([2, 2, 0])
    assert_agrees(
        fn.ctc_loss,
        by_enumeration,
        [
            ((draw(4, 5, 3), *one), {}),
            ((draw(3, 5, 3, seed=1), *another), {"blank": 1, "reduction": "none"}),
            ((draw(3, 2, 3, seed=2), another[0] // 2, *another[1:]),
             {"blank": 1, "zero_infinity": True, "reduction": "sum"}),
        ],
    )  # fmt: skip


def test_ctc_loss_is_that_of_optax():
    logits, frames, counts = draw(3, 12, 6), np.array([12, 9, 7]), np.array([4, 3, 0])
    labels = np.array([[1, 1, 5, 2], [3, 4, 4, 0], [0, 0, 0, 0]])
    beyond = (np.arange(n) >= lengths[:, None] for n, lengths in ((12, frames), (4, counts)))
    paddings = [mask.astype(float) for mask in beyond]

    def theirs(logits):
        losses = optax.ctc_loss(logits, paddings[0], labels, paddings[1], log_epsilon=-1e9)
        return losses @ jnp.arange(1.0, 4), losses

    def ours(logits):
        losses = fn.ctc_loss(logits, frames, labels, counts, reduction="none")
        return losses @ jnp.arange(1.0, 4), losses

    (_, expected), slopes = jax.jit(jax.value_and_grad(theirs, has_aux=True))(logits)
    (_, losses), gradient = jax.jit(jax.value_and_grad(ours, has_aux=True))(logits)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("zero_infinity", some([False, True], (True,)))
def test_labels_without_an_alignment_have_no_gradient(zero_infinity):
    logits, labels = draw(3, 3, 4), np.array([[1, 1], [1, 2], [3, 3]])
    logits[1, :, 2] = -np.inf
    frames = np.array([2, 3, 3])

    @jax.jit
    @jax.value_and_grad
    def total(logits):
        return fn.ctc_loss(logits, frames, labels, zero_infinity=zero_infinity, reduction="sum")

    loss, gradient = total(logits)
    alone = fn.ctc_loss(logits[2:], None, labels[2:])
    np.testing.assert_allclose(loss, alone if zero_infinity else np.inf, rtol=1e-12)
    assert not gradient[:2].any()
    assert gradient[2].all()


@pytest.mark.long
def test_frames_beyond_the_lengths_may_hold_anything():
    logits, labels = draw(1, 5, 3), np.array([[1, 2]])
    short = jax.value_and_grad(fn.ctc_loss)(logits[:, :3], None, labels)
    logits[:, 3:] = np.nan
    loss, gradient = jax.value_and_grad(fn.ctc_loss)(logits, np.array([3]), labels)
    np.testing.assert_allclose(loss, short[0], rtol=1e-14)
    np.testing.assert_allclose(gradient[:, :3], short[1], rtol=1e-14)
    assert not gradient[:, 3:].any()


def test_what_only_a_compiled_program_sees_out_of_range_gives_nan():
    logits, frames = draw(6, 3, 4), np.array([3, 3, 4, -1, 3, 3])
    labels, counts = np.array([[4], [0], [1], [1], [1], [4]]), np.array([1, 1, 1, 1, 2, 0])

    @jax.jit
    def value_and_gradient(*lengths_and_labels):
        def losses(logits):
            return fn.ctc_loss(logits, *lengths_and_labels, reduction="none")

        return losses(logits), jax.grad(lambda logits: losses(logits).sum())(logits)

    losses, gradient = value_and_gradient(frames, labels, counts)
    assert np.isnan(losses).tolist() == [True] * 5 + [False]
    assert np.isnan(gradient[:2]).all()
    assert np.isfinite(gradient[5]).all()


@pytest.mark.long
def test_long_sequences_keep_float32s_digits():
    logits = draw(2, 600, 5).astype(np.float32)
    labels = np.random.default_rng(1).integers(1, 5, (2, 40))
    value_and_grad = jax.jit(jax.value_and_grad(lambda z: fn.ctc_loss(z, None, labels)))
    loss, gradient = value_and_grad(logits)
    exact, slopes = value_and_grad(logits.astype(float))
    assert loss.dtype == np.float32
    np.testing.assert_allclose(loss, exact, rtol=1e-6)
    assert np.abs(gradient - slopes).max() < 3e-5 * np.abs(slopes).max()


@pytest.mark.long
def test_the_likeliest_alignment_is_read():
    logits, frames = jnp.asarray(draw(4, 7, 3)), jnp.array([7, 5, 1, 0])
    for blank in (0, 2):
        decode = jax.jit(lambda z, n, blank=blank: fn.nets.ctc_decode(z, n, blank=blank))
        labels, counts = decode(logits, frames)
        for z, n, row, count in zip(logits, frames, labels, counts, strict=True):
            expected = read(z[:n].argmax(-1).tolist(), blank)
            assert row.tolist() == expected + [blank] * (7 - len(expected))
            assert count == len(expected)
    whole, again = fn.nets.ctc_decode(logits), fn.nets.ctc_decode(logits, jnp.full(4, 7))
    jax.tree.map(np.testing.assert_array_equal, whole, again)


def edits_by_recursion(a, b):
    if not a or not b:
        return len(a) + len(b)
    ways = edits_by_recursion(a[1:], b), edits_by_recursion(a, b[1:])
    return min(1 + min(ways), (a[0] != b[0]) + edits_by_recursion(a[1:], b[1:]))


def test_edits_are_the_fewest():
    random = np.random.default_rng(0)
    for _ in range(30):
        a, b = (random.integers(0, 3, random.integers(0, 6)) for _ in range(2))
        assert fn.edit_distance(a, b) == edits_by_recursion(a.tolist(), b.tolist())


def test_an_error_rate_is_over_all_that_was_written():
    assert fn.character_error_rate([[1, 2], []], [[1, 2, 3], [4]]) == 0.5
    assert fn.character_error_rate(["", ""], ["", ""]) == 0
    assert fn.character_error_rate(["a"], [""]) == np.inf
