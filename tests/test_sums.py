"""Float32 sums keep float32's digits: of every loss, over any axes, and in backward passes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import funcnet as fn
from funcnet.ops.fast.rows import folded, sum_over

from .cases import RULES

LIMIT = 1e-6
CLASSES = 3
WEIGHTS = np.array([0.7, 1.1, 1.9], np.float32)
LINKS = jax.nn.softmax, jax.nn.log_softmax, jax.nn.sigmoid


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def losses(shape):
    """Of each loss, the arrays, the options, and what its mean divides by; `where` is one of them.

    The last is of equal terms, whose rounding all goes one way.
    """
    where = draw(*shape, seed=1) < 0.3
    a, b, c = (draw(*shape, seed=seed) for seed in (2, 3, 4))
    z, s = (draw(*shape, CLASSES, seed=seed) for seed in (5, 6))
    labels = np.random.default_rng(7).integers(0, CLASSES, shape)
    soft, log_p, chance = (np.asarray(f(x)) for f, x in zip(LINKS, (s, z, c), strict=True))
    sign = np.sign(c)
    count, by_weight = where.sum(), (WEIGHTS.astype(float)[labels] * where).sum()
    tenth, ignoring = np.full(shape, 0.1, np.float32), np.where(where, labels, -1)
    chunks = {"chunk": 4096, "ignore_index": -1}
    return {
        "hard": (fn.cross_entropy, (z, labels, WEIGHTS, where), {}, by_weight),
        "soft": (fn.cross_entropy, (z, soft, WEIGHTS, where), {}, count),
        "head": (fn.linear_cross_entropy, (s, np.diag(WEIGHTS), ignoring), chunks, count),
        "class": (fn.nll, (log_p, labels, WEIGHTS, where), {}, by_weight),
        "logits": (fn.binary_cross_entropy, (a, chance, where), {}, count),
        "coin": (fn.bernoulli_nll, (chance, chance, where), {}, count),
        "gaussian": (fn.gaussian_nll, (a, b, c, where), {}, count),
        "hinge": (fn.hinge, (a, sign, where), {}, count),
        "ranking": (fn.margin_ranking, (a, b, sign, where), {}, count),
        "triplet": (fn.triplet_margin, (z, s, z[..., ::-1], where), {}, count),
        "multi-class": (fn.multi_margin, (z, labels, WEIGHTS, where), {}, count),
        "cosine": (fn.cosine_embedding, (z, s, sign, where), {}, count),
        "dice": (fn.soft_dice, (soft, np.flip(soft, -1), where), {}, count),
        "counts": (fn.poisson_nll, (a, chance, where), {}, count),
        "focal": (fn.sigmoid_focal, (a, chance, where), {}, count),
        "divergence": (fn.kl_divergence, (log_p, soft, where), {}, count),
        "from the normal": (fn.gaussian_kl, (z, s, where), {}, count),
        "squared": (fn.squared_error, (a, b, where), {}, count),
        "absolute": (fn.absolute_error, (a, b, where), {}, count),
        "huber": (fn.huber, (a, b, where), {}, count),
        "smooth": (fn.smooth_l1, (a, b, where), {}, count),
        "equal": (fn.squared_error, (tenth, tenth * 0), {}, tenth.size),
    }


@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((3, 6, 6, 5, 3, 4), id="many short axes", marks=pytest.mark.long),
        pytest.param((1_000_003,), id="one long axis", marks=[pytest.mark.slow, pytest.mark.long]),
        pytest.param((10_000_000,), id="a longer one", marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_every_loss_keeps_its_digits(shape):
    table = losses(shape)
    every = {rule.op for rule in RULES if rule.count}
    of_all_pairs = {fn.info_nce, fn.nt_xent}  # as many numbers as the square of their terms
    assert every - of_all_pairs <= {op for op, *_ in table.values()}

    @partial(jax.jit, static_argnames="reductions")
    def values(arrays, reductions):
        return {
            name: [op(*arrays[name], **options, reduction=r) for r in reductions]
            for name, (op, _, options, _) in table.items()
        }

    arrays = {name: args for name, (_, args, _, _) in table.items()}
    terms, sums = values(arrays, ("none",)), values(arrays, ("sum", "mean"))
    errors = {}
    for name, (*_, divisor) in table.items():
        (exact,), (found, mean) = np.asarray(terms[name], float), sums[name]
        total, scale = exact.sum(), np.abs(exact).sum()
        errors[name] = max(abs(found - total), abs(float(mean) * divisor - total)) / scale
    assert max(errors.values()) < LIMIT, errors


SHAPES_AND_AXES = [
    ((), None),
    ((0, 5), None),
    ((0, 5), 0),
    ((5, 0), 0),
    ((33,), None),
    ((39, 1), 0),
    ((1, 1, 100, 1), (0, 1, 2)),
    ((3, 6, 6, 5, 3, 4), None),
    ((3, 6, 6, 5, 3, 4), (1, 3)),
    ((3, 6, 6, 5, 3, 4), (0, 1, -2, -1)),
    ((2, 4099), -1),
    ((4099, 2), 0),
]


@pytest.mark.parametrize(("shape", "axes"), SHAPES_AND_AXES, ids=str)
def test_a_sum_over_axes(shape, axes):
    x = 1 + np.abs(draw(*shape))
    pair = jnp.stack([x, x / 3])

    def check(found, x, keepdims, axis=axes):
        exact = x.astype(float).sum(axis, keepdims=keepdims)
        assert found.shape == exact.shape
        np.testing.assert_allclose(found, exact, rtol=5e-7)

    for keepdims in (False, True):
        sums = jax.jit(lambda x, k=keepdims: sum_over(x, axes, keepdims=k))
        check(sums(x), x, keepdims)
        for found, row in zip(jax.vmap(sums)(pair), np.asarray(pair), strict=True):
            check(found, row, keepdims)
    slopes = jax.grad(lambda x: 3 * sum_over(x, axes).sum())(x)
    np.testing.assert_array_equal(slopes, np.full(shape, 3, np.float32))


def test_a_maximum_is_folded_as_well():
    x = -1 - np.abs(draw(1003, 3))
    np.testing.assert_array_equal(folded(jnp.asarray(x), jnp.max, jnp.maximum), x.max(0))


SUMS = {
    "dense": (lambda x, b: fn.dense(x, jnp.ones((3, 4)), b), (8, 9, 7, 25, 3)),
    "conv": (lambda x, b: fn.conv(x, jnp.ones((1, 1, 3, 4)), b), (25, 20, 20, 3)),
    "conv_transpose": (
        lambda x, b: fn.conv_transpose(x, jnp.ones((1, 1, 4, 3)), b),
        (25, 20, 20, 3),
    ),
    "prelu": (lambda x, b: fn.prelu(-jnp.abs(x), b), (25, 20, 20, 4)),
    "layer_norm": (lambda x, b: fn.layer_norm(x, None, b), (865, 3, 5, 4)),
    "batch_norm": (lambda x, b: fn.batch_norm(x, None, b)[0], (865, 3, 5, 4)),
    "normalize": (lambda x, b: fn.normalize(x, *jnp.ones((2, 4)), b * 0, b), (865, 3, 5, 4)),
    "group_norm": (lambda x, b: fn.group_norm(x, None, b, groups=2), (25, 20, 20, 4)),
}


@pytest.mark.parametrize("name", SUMS)
def test_a_gradient_that_is_a_sum_over_many_rows_keeps_its_digits(name):
    op, shape = SUMS[name]
    x = -np.abs(draw(*shape)) if name == "prelu" else draw(*shape)
    dy = jnp.full((*shape[:-1], 4), 0.1, jnp.float32)
    slopes = jax.jit(lambda x, dy: jax.vjp(lambda b: op(x, b), jnp.ones(4))[1](dy)[0])(x, dy)
    terms = np.asarray(dy, float) * (x if name == "prelu" else 1)
    exact = terms.reshape(-1, 4).sum(0)
    assert np.abs(slopes - exact).max() / np.abs(exact).max() < LIMIT


LONG_ROWS = {
    "layer_norm": fn.layer_norm,
    "rms_norm": fn.rms_norm,
    "standardize": lambda x: fn.standardize(x.reshape(-1, 10, 10, 10), axis=(1, 2, 3)),
    "l2_normalize": lambda x: fn.l2_normalize(x.reshape(-1, 10, 10, 10), axis=(1, 2, 3)),
    "softmax": lambda x: fn.softmax(x.reshape(-1, 10, 10, 10), axis=(1, 2, 3)),
    "global_avg_pool": lambda x: fn.global_avg_pool(x.reshape(-1, 20, 20, 20, 5)),
}


@pytest.mark.parametrize("name", LONG_ROWS)
def test_long_rows_keep_their_digits(name):
    x = 0.1 + np.abs(draw(3, 1_000_000 if name.endswith("r_norm") else 200_000))
    x[1] = 0.1 + 1e-3 * x[1]
    found = jax.jit(LONG_ROWS[name])(x)
    with jax.enable_x64(True):
        exact = np.asarray(LONG_ROWS[name](jnp.asarray(x, float)))
    assert np.abs(found - exact).max() / np.abs(exact).max() < LIMIT


def test_sums_of_what_lies_on_two_devices():
    """Axes that a mesh divides are not cut; inside shard_map each device sums its own part."""
    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Explicit,))
    x = 1 + np.abs(draw(6, 400, 4))
    exact = x.astype(float).sum()
    with jax.set_mesh(mesh):
        placed = jax.device_put(x, NamedSharding(mesh, P("d")))
        mean, slope = jax.jit(jax.value_and_grad(fn.squared_error))(placed, placed * 0)
        scale = jax.jit(jax.grad(lambda b: fn.layer_norm(placed, None, b).sum()))(jnp.ones(4))
    np.testing.assert_allclose(mean, np.square(x, dtype=float).mean(), rtol=1e-6)
    np.testing.assert_allclose(slope, 2 * x / x.size, rtol=1e-6)
    np.testing.assert_allclose(scale, 2400)

    def loss(x):
        return jax.lax.psum(fn.absolute_error(x, x * 0, reduction="sum"), "d")

    mesh = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
    parted = jax.shard_map(loss, mesh=mesh, in_specs=P("d"), out_specs=P())
    np.testing.assert_allclose(jax.jit(parted)(x), exact, rtol=1e-6)
    np.testing.assert_array_equal(jax.jit(jax.grad(parted))(x), np.ones_like(x))
