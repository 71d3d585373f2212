"""Each op's values against a formula written another way: NumPy, SciPy, or loops one can follow.

The proofs compare a rule with its op's own definition; a definition that is wrong shows here.
"""

import functools
import importlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import funcnet as fn

from .cases import RULES
from .values import TABLE, assert_agrees, computed, draw, ripple, values_of

pytestmark = pytest.mark.usefixtures("x64")

ELSEWHERE = {
    "backprop_loss": "test_backprop.py",
    "cross_entropy": "test_loss.py",
    "binary_cross_entropy": "test_loss.py",
    "squared_error": "test_loss.py",
    "absolute_error": "test_loss.py",
    "huber": "test_loss.py",
}
"""Ops whose values are tested in another file."""

# Activations

INF = np.inf
ALPHA = 1 / np.sqrt(2 * np.pi) / (0.5 - np.exp(0.5) * special.ndtr(-1))
SPREAD = np.exp(2) * special.ndtr(-2) - 2 * np.exp(0.5) * special.ndtr(-1) + 0.5
LAMBDA = (0.5 + ALPHA**2 * SPREAD) ** -0.5
"""What makes selu of a standard normal number have mean 0 and variance 1."""


def below(x):
    return np.minimum(x, 0)


def above(x):
    return np.maximum(x, 0)


def mish(x):
    n = np.exp(np.minimum(x, 300)) * (np.exp(np.minimum(x, 300)) + 2)
    return x * n / (n + 2)


def gelu_tanh(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def exponential(alpha, width=1.0):
    return lambda x: above(x) + alpha * (np.exp(below(x) / width) - 1)


CURVES: list[tuple] = [
    (fn.relu, {}, lambda x: (x + abs(x)) / 2, (0, INF), (0, 1)),
    (fn.relu6, {}, lambda x: np.clip(x, 0, 6), (0, 6), (0, 0)),
    (fn.leaky_relu, {}, lambda x: np.maximum(x, x / 100), (-INF, INF), (0.01, 1)),
    (fn.leaky_relu, {"slope": 2.0}, lambda x: np.minimum(x, 2 * x), (-INF, INF), (2, 1)),
    (fn.elu, {}, exponential(1), (-1, INF), (0, 1)),
    (fn.elu, {"alpha": 0.3}, exponential(0.3), (-0.3, INF), (0, 1)),
    (fn.celu, {}, exponential(1), (-1, INF), (0, 1)),
    (fn.celu, {"alpha": 0.3}, exponential(0.3, 0.3), (-0.3, INF), (0, 1)),
    (fn.selu, {}, lambda x: LAMBDA * exponential(ALPHA)(x), (-LAMBDA * ALPHA, INF), (0, LAMBDA)),
    (fn.hard_tanh, {}, lambda x: np.sign(x) * np.minimum(abs(x), 1), (-1, 1), (0, 0)),
    (fn.hard_tanh, {"low": -0.3, "high": 2}, lambda x: np.clip(x, -0.3, 2), (-0.3, 2), (0, 0)),
    (fn.hard_shrink, {}, lambda x: x * (abs(x) > 0.5), (-INF, INF), (1, 1)),
    (fn.soft_shrink, {}, lambda x: x - np.clip(x, -0.5, 0.5), (-INF, INF), (1, 1)),
    (
        fn.threshold,
        {"at": 0.2, "value": -3.0},
        lambda x: x * (x > 0.2) - 3 * (x <= 0.2),
        (-3, INF),
        (0, 1),
    ),
    (fn.hard_sigmoid, {}, lambda x: np.clip(x / 6 + 0.5, 0, 1), (0, 1), (0, 0)),
    (fn.hard_swish, {}, lambda x: x * np.clip(x + 3, 0, 6) / 6, (0, INF), (0, 1)),
    (fn.relu_squared, {}, lambda x: above(x) * above(x), (0, INF), (0, INF)),
    (fn.sigmoid, {}, special.expit, (0, 1), (0, 0)),
    (fn.tanh, {}, np.tanh, (-1, 1), (0, 0)),
    (fn.gelu, {}, lambda x: x * special.ndtr(x), (0, INF), (0, 1)),
    (fn.gelu_tanh, {}, gelu_tanh, (0, INF), (0, 1)),
    (fn.silu, {}, lambda x: x / (1 + np.exp(np.minimum(-x, 700))), (0, INF), (0, 1)),
    (fn.mish, {}, mish, (0, INF), (0, 1)),
    (fn.softplus, {}, lambda x: -special.log_expit(-x), (0, INF), (0, 1)),
    (fn.softplus, {"beta": 3.0}, lambda x: -special.log_expit(-3 * x) / 3, (0, INF), (0, 1)),
    (fn.log_sigmoid, {}, special.log_expit, (-INF, 0), (1, 0)),
    (fn.softsign, {}, lambda x: np.sign(x) - np.sign(x) / (1 + abs(x)), (-1, 1), (0, 0)),
]
"""Op, static arguments, formula, values at -inf and inf, slopes there."""
GRID = np.linspace(-12, 12, 98)
"""It holds no kink: the differences would mix the slopes of both sides."""


@values_of(*(op for op, *_ in CURVES))
@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [("float32", 1e-5, 3e-7), (float, 1e-12, 3e-15)]
)
def test_activations_are_their_formulas(dtype, rtol, atol):
    finite = np.array([*GRID, -1e30, -1e4, 0, 1e4, 1e30]).astype(dtype)
    x = jnp.array([*finite, -INF, INF, np.nan], dtype)

    @jax.jit
    def everything(x):
        pulls = [jax.vjp(functools.partial(op, **static), x) for op, static, *_ in CURVES]
        return [(y, *pull(jnp.ones_like(x))) for y, pull in pulls]

    for (op, static, formula, ends, end_slopes), (y, slope) in zip(
        CURVES, everything(x), strict=True
    ):
        note = f"{op.rule.name} {static}"
        assert y.dtype == slope.dtype == x.dtype
        with np.errstate(over="ignore"):  # relu_squared in float32
            expected = formula(finite.astype(float)).astype(dtype)
        np.testing.assert_allclose(y[:-3], expected, rtol, atol, err_msg=note)
        np.testing.assert_allclose(y[-3:-1], ends, rtol, err_msg=note)
        np.testing.assert_allclose(slope[-3:-1], end_slopes, rtol, err_msg=note)
        assert np.isfinite(slope[:-3]).all(), note
        assert np.isnan(y[-1]), note
        by_differences = (formula(GRID + 1e-5) - formula(GRID - 1e-5)) / 2e-5
        close = max(rtol, 1e-7)
        np.testing.assert_allclose(slope[: len(GRID)], by_differences, close, close, err_msg=note)


KINKS = [
    (fn.relu, {0: 0}, {}),
    (fn.relu6, {0: 0, 6: 0}, {}),
    (fn.hard_tanh, {-1: 0, 1: 0}, {}),
    (fn.hard_tanh, {-0.5: 0, 2: 0}, {"low": -0.5, "high": 2.0}),
    (fn.hard_shrink, {-0.5: 0, 0.5: 0}, {}),
    (fn.soft_shrink, {-0.5: 0, 0.5: 0}, {}),
    (fn.threshold, {0.5: 0}, {"at": 0.5}),
    (fn.leaky_relu, {0: 0.01}, {}),
    (fn.leaky_relu, {0: 0.3}, {"slope": 0.3}),
    (fn.hard_sigmoid, {-3: 0, 3: 0}, {}),
    (fn.hard_swish, {-3: 0, 3: 1}, {}),
    (fn.relu_squared, {0: 0}, {}),
    (fn.elu, {0: 0.3}, {"alpha": 0.3}),
    (fn.celu, {0: 1}, {"alpha": 0.3}),
    (lambda x: fn.prelu(x, jnp.asarray(0.3, x.dtype)), {0: 0.3}, {}),
    (lambda x: fn.absolute_error(x, jnp.ones_like(x), reduction="none"), {1: 0}, {}),
]


def test_slopes_at_kinks_are_those_that_the_docs_promise():
    """The rule and JAX's differentiation of the definition take the same."""

    @jax.jit
    def everything():
        found = []
        for op, at, static in KINKS:
            x = jnp.array([*at], float)
            for f in (
                functools.partial(op, **static),
                fn.autodiff(functools.partial(op, **static)),
            ):
                found.append(jax.grad(lambda x, f=f: f(x).sum())(x))
        return found

    expected = [[*at.values()] for _, at, _ in KINKS for _ in range(2)]
    for found, wanted in zip(everything(), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@values_of(fn.prelu)
def test_prelu():
    x = draw(2, 4, 3)
    rows = [((x, draw(3, seed=1)), {}), ((x, draw(seed=1)[()] * np.ones(())), {})]
    assert_agrees(fn.prelu, lambda x, slope: above(x) + slope * below(x), rows)


@values_of(fn.glu)
def test_glu():
    def by_halves(x, axis=-1):
        value, gate = np.split(x, 2, axis)
        return value / (1 + np.exp(-gate))

    rows = [((draw(3, 6),), {}), ((draw(4, 3, 2),), {"axis": 0}), ((draw(2, 4, 3),), {"axis": -2})]
    assert_agrees(fn.glu, by_halves, rows)


# Softmax

MASK = np.array([[True, True, False, True], [False] * 4, [True] * 4])


def by_lines(f, empty):
    """The NumPy function that puts f(what takes part) in its place, line by line along `axis`."""

    def reference(x, where=None, axis=-1, keepdims=False):
        axes = tuple(np.atleast_1d(axis) % x.ndim)
        take = (x > -INF) & (True if where is None else where)
        y = np.full(x.shape, empty)
        for at in np.ndindex(*(1 if d in axes else n for d, n in enumerate(x.shape))):
            line = tuple(slice(None) if d in axes else i for d, i in enumerate(at))
            if take[line].any():
                y[line][take[line]] = f(x[line][take[line]])
        return y.max(axes, keepdims=keepdims) if f is special.logsumexp else y

    return reference


@values_of(fn.softmax, fn.log_softmax, fn.logsumexp)
@pytest.mark.parametrize(
    ("op", "reference"),
    [
        (fn.softmax, by_lines(special.softmax, 0.0)),
        (fn.log_softmax, by_lines(special.log_softmax, -INF)),
        (fn.logsumexp, by_lines(special.logsumexp, -INF)),
    ],
)
def test_softmax_and_its_logarithms(op, reference):
    x, out = draw(3, 4), draw(3, 4)
    out[0, 1], out[1] = -INF, -INF
    cube = draw(2, 3, 4)
    rows: list = [
        ((x, None), {}),
        ((x, None), {"axis": 0}),
        ((x, MASK), {}),
        ((x, MASK[0]), {}),
        ((x, MASK[:, :1]), {}),
        ((out, None), {}),
        ((out, MASK), {}),
        ((cube, MASK), {"axis": (0, -1)}),
        ((cube, None), {"axis": 1}),
        ((1e3 + x, None), {}),
        ((np.array([[1e4, -1e4], [-1e4, -1e4]]), None), {}),
    ]
    if op is fn.logsumexp:
        rows.append(((cube, None), {"axis": (1, 2), "keepdims": True}))
    assert_agrees(op, reference, rows)


# Linear


@values_of(fn.dense)
def test_dense():
    def by_loops(x, w, b=None):
        y = np.zeros((*x.shape[:-1], w.shape[1]))
        for (*row, o), _ in np.ndenumerate(y):
            y[(*row, o)] = sum(x[(*row, i)] * w[i, o] for i in range(len(w)))
            y[(*row, o)] += 0 if b is None else b[o]
        return y

    w, b = draw(3, 4, seed=1), draw(4, seed=2)
    rows = [((draw(5, 3), w, b), {}), ((draw(2, 2, 3), w, None), {}), ((draw(3), w, b), {})]
    assert_agrees(fn.dense, by_loops, rows)


@values_of(fn.embed)
def test_embed():
    def by_loops(table, ids):
        y = np.zeros((*ids.shape, table.shape[1]))
        for at, i in np.ndenumerate(ids):
            y[at] = table[i]
        return y

    rows = [((draw(5, 3), np.array(ids)), {}) for ids in ([[0, 4, 4], [1, 0, 0]], 3)]
    assert_agrees(fn.embed, by_loops, rows)


# Convolution and pooling


def sides(padding, sizes, window, stride, dilation):
    """The padding (low, high) of each axis; the words as JAX reads them."""
    reach = [(k - 1) * d + 1 for k, d in zip(window, dilation, strict=True)]
    if padding == "CAUSAL":
        return [(reach[0] - 1, 0)]
    if isinstance(padding, str):
        return jax.lax.padtype_to_pads(sizes, reach, stride, padding)
    entries = [padding] * len(sizes) if isinstance(padding, int) else padding
    return [(e, e) if isinstance(e, int) else e for e in entries]


def each(value, count):
    return [value] * count if isinstance(value, int) else list(value)


def walk(sizes, window, stride, padding, dilation=1):
    """The shape of the output, and for each place in it what it sees: [(tap, place in x)]."""
    stride, dilation = each(stride, len(sizes)), each(dilation, len(sizes))
    pads = sides(padding, sizes, window, stride, dilation)
    seen: dict[tuple, list] = {}
    starts = [
        range(-low, n + high - (k - 1) * d, s)
        for n, k, s, d, (low, high) in zip(sizes, window, stride, dilation, pads, strict=True)
    ]
    shape = tuple(map(len, starts))
    for out in np.ndindex(shape):
        seen[out] = []
        for tap in np.ndindex(*window):
            at = tuple(r[o] + t * d for r, o, t, d in zip(starts, out, tap, dilation, strict=True))
            if all(0 <= a < n for a, n in zip(at, sizes, strict=True)):
                seen[out].append((tap, at))
    return shape, seen


def conv_by_loops(x, w, b, *, stride=1, padding="VALID", dilation=1, groups=1):
    """y, and the cotangents of x, w and b where that of y is its `ripple`."""
    shape, seen = walk(x.shape[1:-1], w.shape[:-2], stride, padding, dilation)
    y = np.zeros((len(x), *shape, w.shape[-1])) + (0 if b is None else b)
    dy, dx, dw = ripple(y.shape), np.zeros_like(x), np.zeros_like(w)
    parts = [
        (slice(g * w.shape[-2], (g + 1) * w.shape[-2]), slice(g * n, (g + 1) * n))
        for n in [w.shape[-1] // groups]
        for g in range(groups)
    ]
    for out, taps in seen.items():
        for tap, at in taps:
            for n in range(len(x)):
                for of, to in parts:
                    y[(n, *out, to)] += x[(n, *at, of)] @ w[(*tap, slice(None), to)]
                    dx[(n, *at, of)] += w[(*tap, slice(None), to)] @ dy[(n, *out, to)]
                    dw[(*tap, slice(None), to)] += np.outer(x[(n, *at, of)], dy[(n, *out, to)])
    return y, (dx, dw) if b is None else (dx, dw, dy.sum(tuple(range(dy.ndim - 1))))


CONVOLUTIONS: list = [
    ((2, 5, 4, 3), (3, 2, 3, 2), {}),
    ((1, 8, 7, 2), (3, 2, 2, 3), {"stride": (3, 2)}),
    ((1, 8, 7, 4), (2, 3, 4, 2), {"dilation": (3, 2), "stride": 2, "padding": 1}),
    ((1, 7, 6, 3), (3, 4, 3, 2), {"padding": "SAME"}),
    ((1, 7, 6, 3), (3, 2, 3, 2), {"padding": "SAME", "stride": 2}),
    ((1, 7, 6, 3), (2, 4, 3, 2), {"padding": "SAME_LOWER", "stride": (2, 3)}),
    ((1, 7, 6, 7), (2, 3, 7, 2), {"padding": "SAME_LOWER", "dilation": 2}),
    ((1, 5, 4, 2), (3, 3, 2, 2), {"padding": ((0, 4), 1), "stride": 2}),
    ((1, 5, 4, 6), (2, 2, 2, 9), {"groups": 3, "padding": "SAME"}),
    ((1, 5, 4, 4), (3, 3, 1, 8), {"groups": 4, "stride": 2}),
    ((2, 3, 4, 5), (1, 1, 5, 2), {}),
    ((2, 9, 3), (3, 3, 4), {"padding": "CAUSAL", "dilation": 2}),
    ((2, 9, 1), (4, 1, 3), {"stride": 3, "padding": "SAME"}),
    ((1, 4, 3, 5, 2), (2, 2, 3, 2, 3), {"stride": (1, 2, 2), "padding": "SAME"}),
    ((1, 3, 3, 4, 4), (2, 2, 2, 2, 2), {"groups": 2, "padding": 1}),
]


@values_of(fn.conv)
def test_conv_is_its_sum_over_windows():
    rows = []
    for i, (image, kernel, static) in enumerate(CONVOLUTIONS):
        bias = draw(kernel[-1], seed=2) if i % 2 else None
        rows.append(((draw(*image), draw(*kernel, seed=1), bias), static))
    for (args, static), (y, gradients) in zip(rows, computed(fn.conv, rows), strict=True):
        expected, by_loops = conv_by_loops(*args, **static)
        np.testing.assert_allclose(y, expected, 1e-11, 1e-12, err_msg=f"{static}")
        for a, b in zip(gradients, by_loops, strict=True):
            np.testing.assert_allclose(a, b, 1e-11, 1e-12, err_msg=f"{static}")


@values_of(fn.conv)
def test_what_same_means_beside_pytorch():
    """Its "same" has the odd zero at the end too; its padding=1, stride=2 is not SAME."""
    x, even, odd = draw(1, 6, 8, 3), draw(4, 2, 3, 2, seed=1), draw(3, 3, 3, 2, seed=1)
    rows: list = [
        ((x, even, None), {"padding": "SAME"}),
        ((x, even, None), {"padding": ((1, 2), (0, 1))}),
        ((x, odd, None), {"padding": "SAME", "stride": 2}),
        ((x, odd, None), {"padding": ((0, 1), (0, 1)), "stride": 2}),
        ((x, odd, None), {"padding": 1, "stride": 2}),
    ]
    same, pairs, by_two, ends, pytorch = (y for y, _ in computed(fn.conv, rows))
    assert same.shape == (1, 6, 8, 2)
    np.testing.assert_array_equal(same, pairs)
    np.testing.assert_array_equal(by_two, ends)
    assert pytorch.shape == by_two.shape == (1, 3, 4, 2)
    assert abs(pytorch - by_two).max() > 1


POOLS: list = [
    ((2, 6, 4, 2), {"window": 2}),
    ((2, 7, 5, 2), {"window": (3, 2), "stride": (2, 1)}),
    ((1, 7, 6, 2), {"window": 3, "stride": 2, "padding": ((1, 2), (2, 0))}),
    ((1, 7, 6, 2), {"window": 3, "stride": 2, "padding": "SAME"}),
    ((1, 8, 5, 2), {"window": 2, "stride": 3, "padding": "SAME_LOWER"}),
    ((2, 8, 2), {"window": 3, "stride": 1, "padding": "CAUSAL"}),
    ((1, 4, 3, 5, 2), {"window": 2, "stride": (1, 1, 2)}),
]


def pool_by_loops(kind, x, *, window, stride=None, padding="VALID", dilation=1, **options):
    """y, and the cotangent of x where that of y is its `ripple`."""
    window = each(window, x.ndim - 2)
    count_include_pad = options.get("count_include_pad", False)
    shape, seen = walk(x.shape[1:-1], window, stride or window, padding, dilation)
    y = np.zeros((len(x), *shape, x.shape[-1]))
    dy, dx = ripple(y.shape), np.zeros_like(x)
    for n, *out, c in np.ndindex(y.shape):
        places = [(n, *at, c) for _, at in seen[tuple(out)]]
        if kind == "max":
            best = max(places, key=lambda at: x[at])  # the first of equals
            y[(n, *out, c)] = x[best]
            dx[best] += dy[(n, *out, c)]
        else:
            count = np.prod(window) if count_include_pad else len(places)
            y[(n, *out, c)] = sum(x[at] for at in places) / count
            for at in places:
                dx[at] += dy[(n, *out, c)] / count
    return y, dx


def assert_pools(op, kind, rows):
    for ((x,), static), (y, (dx,)) in zip(rows, computed(op, rows), strict=True):
        window = {} if static else {"window": x.shape[1:-1]}
        expected, by_loops = pool_by_loops(kind, x, **static, **window)
        np.testing.assert_allclose(y.reshape(expected.shape), expected, 1e-12, 1e-12)
        np.testing.assert_allclose(dx, by_loops, 1e-12, 1e-12, err_msg=f"{static}")


@values_of(fn.max_pool, fn.avg_pool)
def test_pools_of_windows():
    ties = [np.random.default_rng(1).integers(0, 3, shape) * 1.0 for shape, _ in POOLS]
    rows = [((x,), static) for x, (_, static) in zip(ties, POOLS, strict=True)]
    assert_pools(fn.max_pool, "max", rows + [((draw(*shape),), s) for shape, s in POOLS[:2]])
    counted = [((x,), s | {"count_include_pad": True}) for (x,), s in rows[2:5]]
    assert_pools(fn.avg_pool, "avg", rows + counted)


@values_of(fn.max_pool, fn.avg_pool)
def test_pools_of_windows_with_gaps_or_one_more():
    shape, gaps = (1, 7, 6, 2), {"window": 2, "stride": (2, 1), "padding": 1, "dilation": (3, 2)}
    ties = np.random.default_rng(2).integers(0, 3, shape) * 1.0
    assert_pools(fn.max_pool, "max", [((ties,), gaps)])
    assert_pools(fn.avg_pool, "avg", [((ties,), gaps)])
    up, same = {"window": 3, "stride": 2}, {"padding": ((0, 0), (0, 1))}
    for op, kind in ((fn.max_pool, "max"), (fn.avg_pool, "avg")):
        ((y, (dx,)),) = computed(op, [((ties,), up | {"ceil_mode": True})])
        expected, by_loops = pool_by_loops(kind, ties, **up, **same)
        np.testing.assert_allclose(y, expected, 1e-12)
        np.testing.assert_allclose(dx, by_loops, 1e-12, 1e-12)
    line = jnp.array([2.0, 4.0, 6.0, 9.0])[None, :, None]
    around = {"window": 3, "stride": 3, "padding": 1, "ceil_mode": True}
    counted = fn.avg_pool(line, **around, count_include_pad=True)
    assert counted.ravel().tolist() == [2, 5]  # of 0 2 4 and of 6 9 0
    one = fn.avg_pool(line, window=2, stride=3, ceil_mode=True, count_include_pad=True)
    assert one.ravel().tolist() == [3, 9]  # what is beyond the padding does not count


def masked_mean(x, where, *, window):
    y = np.zeros((len(x), x.shape[1] // window, x.shape[2]))
    where = np.broadcast_to(where, x.shape)
    for n, i, c in np.ndindex(y.shape):
        at = (n, slice(i * window, (i + 1) * window), c)
        y[n, i, c] = np.average(x[at], weights=where[at]) if where[at].any() else 0
    return y


@values_of(fn.avg_pool, fn.global_max_pool, fn.global_avg_pool)
def test_pools_of_what_counts():
    x, where = draw(2, 6, 3) - 3, np.random.default_rng(3).random((2, 6, 1)) < 0.5
    where[0, :2], where[1] = False, False
    assert_agrees(fn.avg_pool, masked_mean, [((x, where), {"window": 2})])

    def mean(x, where):
        return masked_mean(x, where, window=6)[:, 0]

    def largest(x, where):
        return np.where(where.any(1), np.where(where, x, -np.inf).max(1), 0)

    assert_agrees(fn.global_avg_pool, mean, [((x, where), {})])
    with np.errstate(invalid="ignore"):
        assert_agrees(fn.global_max_pool, largest, [((x, where), {})])
    spoilt = np.where(where, x, np.nan)
    np.testing.assert_array_equal(fn.GlobalPool()({}, spoilt, where), fn.global_avg_pool(x, where))
    pooled = fn.AvgPool(2)({}, x, where)
    np.testing.assert_allclose(pooled, masked_mean(x, where, window=2), 1e-12)


def binned(reduce):
    def pool(x, *, shape):
        y = np.zeros((len(x), *shape, x.shape[-1]))
        for out in np.ndindex(shape):
            ends = zip(out, x.shape[1:-1], shape, strict=True)
            bins = [
                slice(int(np.floor(i * n / m)), int(np.ceil((i + 1) * n / m))) for i, n, m in ends
            ]
            y[(slice(None), *out)] = reduce(x[(slice(None), *bins)], tuple(range(1, x.ndim - 1)))
        return y

    return pool


@values_of(fn.adaptive_avg_pool, fn.adaptive_max_pool)
def test_pools_to_a_size():
    rows = [((draw(2, 5, 4, 2),), {"shape": (3, 2)}), ((draw(1, 3, 1),), {"shape": (5,)})]
    assert_agrees(fn.adaptive_avg_pool, binned(np.mean), rows)
    assert_agrees(fn.adaptive_max_pool, binned(np.max), rows)
    same = jnp.ones((1, 3, 3, 1))
    dx = jax.grad(lambda x: fn.adaptive_max_pool(x, shape=2).sum())(same)
    assert dx[0, ..., 0].tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]  # the first of equals
    largest = fn.AdaptivePool(2, "max")({}, same)
    np.testing.assert_array_equal(largest, fn.adaptive_max_pool(same, shape=2))


@values_of(fn.global_max_pool, fn.global_avg_pool)
def test_global_pools():
    ties = np.random.default_rng(1).integers(0, 3, (2, 3, 4, 2)) * 1.0
    rows = [((x,), {}) for x in (ties, draw(2, 5, 3), draw(1, 2, 3, 2, 2))]
    assert_pools(fn.global_max_pool, "max", rows)
    assert_pools(fn.global_avg_pool, "avg", rows)


# Normalisation


def normalize(x, mean, var, scale=None, shift=None, eps=1e-5):
    y = (x - mean) * (var + eps) ** -0.5 * (1 if scale is None else scale)
    return y + (0 if shift is None else shift)


def batch_norm(x, scale=None, shift=None, eps=1e-5):
    axes = tuple(range(x.ndim - 1))
    mean, var = x.mean(axes), x.var(axes)
    return normalize(x, mean, var, scale, shift, eps), mean, var


@values_of(fn.batch_norm, fn.normalize)
def test_norms():
    """The cotangents of mean and variance are not 0 here, so the gradient holds theirs."""
    x, scale, shift = draw(6, 3), draw(3, seed=1), draw(3, seed=2)
    mean, var = draw(3, seed=3), draw(3, seed=4) ** 2 + 0.5
    rows = [((x, scale, shift), {}), ((draw(2, 2, 3, 3), None, shift), {"eps": 0.1})]
    assert_agrees(fn.batch_norm, batch_norm, [*rows, ((5 + x, None, None), {})])
    rows = [((x, mean, var, scale, shift), {"eps": 0.1}), ((x[0], mean, var, None, None), {})]
    assert_agrees(fn.normalize, normalize, rows)


@values_of(fn.batch_norm)
def test_batch_norm_far_from_zero_keeps_its_digits_in_float32():
    x = (1e4 + draw(4096, 2) / 20).astype(np.float32)
    dy = ripple(x.shape).astype(np.float32)

    @jax.jit
    def run(x):
        y, pull = jax.vjp(fn.batch_norm, x)
        return y, pull((jnp.asarray(dy), jnp.zeros(2, jnp.float32), jnp.zeros(2, jnp.float32)))[0]

    (y, mean, var), dx = run(x)
    expected = batch_norm(x.astype(float))
    unit = expected[0]
    dx_expected = (dy - dy.mean(0) - unit * (unit * dy).mean(0)) / np.sqrt(expected[2] + 1e-5)
    for a, b in zip((y, mean, var, dx), (*expected, dx_expected), strict=True):
        assert a.dtype == np.float32
        assert abs(a - b).max() / abs(b).max() < 1e-4


# Dropout


@values_of(fn.dropout)
def test_dropout_keeps_the_expectation(key):
    n, keys, ones = 100_000, jax.random.split(key, 2), jnp.ones(100_000)
    for drop in (0.1, 0.5, 0.9):
        run = jax.jit(lambda x, key, drop=drop: fn.dropout(x, key, drop=drop))
        y, other = np.asarray(run(ones, keys[0])), np.asarray(run(ones, keys[1]))
        np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - drop)], 1e-15)
        sigma = np.sqrt(drop * (1 - drop) / n)
        assert abs((y == 0).mean() - drop) < 5 * sigma
        assert abs(y.mean() - 1) < 5 * sigma / (1 - drop)
        for a, b in ((y, other), (y[1:], y[:-1]), (y[256:], y[:-256])):  # nothing goes together
            assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(n)


@values_of(fn.dropout)
def test_one_key_is_one_mask_forward_backward_and_under_transformations(key):
    x, keys = draw(7, 5) + 9, jax.random.split(key, 3)

    def run(x, key):
        y, pull = jax.vjp(lambda x: fn.dropout(x, key, drop=0.4), x)
        return y, pull(jnp.full_like(x, 2.0))[0]

    y, dx = run(x, keys[0])
    kept = np.asarray(y) != 0
    assert 0 < kept.sum() < kept.size
    np.testing.assert_allclose(y, np.where(kept, x / 0.6, 0), 1e-15)
    np.testing.assert_allclose(dx, np.where(kept, 2 / 0.6, 0), 1e-15)
    in_pairs = jax.jit(jax.vmap(run, (None, 0)))(x, keys)
    for i in range(3):
        for a, b in zip(in_pairs, jax.jit(run)(x, keys[i]), strict=True):
            np.testing.assert_array_equal(a[i], b)
    np.testing.assert_array_equal(in_pairs[0][0], y)
    assert not (in_pairs[0][0] == in_pairs[0][1]).all()
    np.testing.assert_array_equal(fn.dropout(x, keys[0], drop=0.0), x)


@values_of(fn.dropout)
def test_dropout_shares_a_mask_along_broadcast_dims(key):
    y = np.asarray(fn.dropout(jnp.ones((4, 3, 5, 8)), key, drop=0.5, broadcast_dims=(1, -2)))
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1, :1], y.shape))
    assert 0 < (y[:, 0, 0] == 0).sum() < 32


# Padding


@values_of(fn.pad)
def test_pad_is_numpys():
    def by_numpy(x, widths, mode="constant", value=0.0):
        fill = {"constant_values": value} if mode == "constant" else {}
        y = np.pad(x, np.maximum(widths, 0), mode, **fill)
        for axis, (low, high) in enumerate(widths):
            y = np.take(y, range(max(-low, 0), y.shape[axis] + min(high, 0)), axis)
        return y

    widths = (((2, 1), (0, 3), (1, 0)), ((-1, 2), (1, -2), (-1, -1)), ((0, 0), (-3, 0), (2, 2)))
    modes: list = [{"mode": mode} for mode in ("constant", "reflect", "edge", "wrap")]
    x = draw(3, 4, 3)
    rows = [((x,), {"widths": w, **mode}) for w in widths for mode in [*modes, {"value": 2.5}]]
    assert_agrees(fn.pad, by_numpy, rows)
    for mode in modes:
        whole = np.arange(6).reshape(2, 3)
        y = fn.pad(whole, widths=((1, 0), (-1, 1)), **mode)
        assert y.dtype == whole.dtype
        np.testing.assert_array_equal(y, by_numpy(whole, ((1, 0), (-1, 1)), **mode))


def test_every_op_has_its_values_tested():
    for path in Path(__file__).parent.glob("test_*.py"):
        if "@values_of" in path.read_text():
            importlib.import_module(f".{path.stem}", __package__)
    names = {rule.name for rule in RULES}
    assert TABLE.keys() | ELSEWHERE.keys() == names
    assert not TABLE.keys() & ELSEWHERE.keys()
    for name, file in ELSEWHERE.items():
        assert name in (Path(__file__).parent / file).read_text()


def test_traced_ids_out_of_range_take_the_nearest_row_forward_and_backward():
    ids = jnp.array([-1, 9, 2])
    gradient = jax.jit(jax.grad(lambda table, ids: fn.embed(table, ids).sum()))
    np.testing.assert_allclose(gradient(jnp.ones((4, 1)), ids).ravel(), [1, 0, 1, 1])
    rows = jax.jit(fn.embed)(jnp.arange(4.0)[:, None], ids)
    np.testing.assert_allclose(rows.ravel(), [0, 3, 2])


def test_integers_keep_their_digits():
    x = jnp.array([[16777217]])
    assert int(fn.dense(x, jnp.array([[1]]))[0, 0]) == 16777217
    assert int(fn.conv(x[:, :, None, None], jnp.ones((1, 1, 1, 1), int))[0, 0, 0, 0]) == 16777217


def test_binary_cross_entropy_of_infinite_logits_has_the_definitions_gradient():
    z, t = jnp.array([jnp.inf, -jnp.inf]), jnp.array([1.0, 0.0])
    for weight in (None, jnp.array(2.0)):
        slope = jax.grad(lambda t, w=weight: fn.binary_cross_entropy(z, t, None, w).sum())
        np.testing.assert_array_equal(slope(t), [-jnp.inf, jnp.inf])


@pytest.mark.parametrize("window", [(2,), (2, 3), (2, 1, 2)])
def test_of_equal_maxima_the_first_gets_all_also_in_wide_images(window):
    shape = (2, *(2 * n for n in window), 16)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, shape), jnp.float32)
    x = x.at[(0,) * (x.ndim - 1)].set(jnp.nan)
    dy = draw(2, *(2 for _ in window), 16)
    (dx,) = jax.vjp(lambda x: fn.max_pool(x, window=window), x)[1](dy.astype(x.dtype))
    for place in np.ndindex(dy.shape):
        corner = [p * w for p, w in zip(place[1:-1], window, strict=True)]
        box = tuple(slice(c, c + w) for c, w in zip(corner, window, strict=True))
        numbers, given = (np.asarray(a)[(place[0], *box, place[-1])].ravel() for a in (x, dx))
        expected = np.zeros(len(given), np.float32)
        expected[np.argmax(numbers)] = dy[place]  # NumPy's argmax takes a NaN for the largest
        np.testing.assert_array_equal(given, expected)
