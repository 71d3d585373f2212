"""Pools that tell places or take norms, and images read at points; beside PyTorch's too.

tests/data/make_images_torch.py wrote PyTorch's numbers; PyTorch itself is not needed here.
"""

import itertools
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn

from .data.make_images_torch import ROWS, inputs
from .forms import some
from .values import assert_agrees, draw, ripple, values_of

LONG = [pytest.mark.slow, pytest.mark.long]

# Max-pooling with indices, and back


def first_maxima(x, *, window, stride=None, padding=0, dilation=1):
    """Values and places by loops over windows, with one number for all axes."""
    axes, step = x.ndim - 2, stride or window
    sizes, reach = x.shape[1:-1], (window - 1) * dilation + 1
    starts = [range(-padding, n + padding - reach + 1, step) for n in sizes]
    y = np.zeros((len(x), *map(len, starts), x.shape[-1]))
    indices = np.zeros(y.shape, int)
    for n, *out, c in np.ndindex(y.shape):
        corner = [start[o] for start, o in zip(starts, out, strict=True)]
        taps = np.array(list(np.ndindex(*(window,) * axes))) * dilation + corner
        seen = [tuple(at) for at in taps if all(0 <= a < s for a, s in zip(at, sizes, strict=True))]
        best = max(seen, key=lambda at: x[(n, *at, c)])  # the first of equals
        y[(n, *out, c)] = x[(n, *best, c)]
        indices[(n, *out, c)] = np.ravel_multi_index(best, sizes)
    return y, indices


INDEXED: list = [
    ((2, 6, 4, 2), {"window": 2}),
    ((1, 7, 6, 2), {"window": 3, "stride": 2, "padding": 1}),
    ((1, 7, 6, 2), {"window": 2, "stride": 1, "padding": 1, "dilation": 2}),
    ((1, 9, 8, 2), {"window": 5, "stride": 2, "padding": 2}),
    ((2, 8, 2), {"window": 3, "stride": 1}),
    ((1, 4, 3, 5, 2), {"window": 2, "stride": 1}),
    ((2, 5, 4, 3), {"window": 1, "stride": 2}),
]


@values_of(fn.max_pool_with_indices)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("shape", "options"),
    [pytest.param(*row, marks=LONG * (i not in (2, 6))) for i, row in enumerate(INDEXED)],
)
def test_indices_are_the_places_of_the_first_maxima(shape, options):
    x = np.random.default_rng(1).integers(0, 3, shape) * 1.0
    (y, indices), pull = jax.vjp(lambda x: fn.max_pool_with_indices(x, **options), jnp.asarray(x))
    expected, places = first_maxima(x, **options)
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(indices, places)
    assert indices.dtype == jnp.int32
    dx, dy = np.zeros((shape[0], np.prod(shape[1:-1]), shape[-1])), ripple(y.shape)
    for (n, *_, c), place in np.ndenumerate(places):
        dx[n, place, c] += dy.flat[0]
        dy = dy.ravel()[1:]
    (given,) = pull((jnp.asarray(ripple(y.shape)), np.zeros(y.shape, jax.dtypes.float0)))
    np.testing.assert_allclose(given, dx.reshape(shape), 1e-12, 1e-12)


def test_indices_where_nothing_is_larger_than_padding_and_of_nan():
    lowest = jnp.full((1, 2, 1), -jnp.inf)
    _, indices = fn.max_pool_with_indices(lowest, window=2, stride=1, padding=1)
    assert indices.ravel().tolist() == [0, 0, 1]
    _, indices = fn.max_pool_with_indices(jnp.array([[[1.0], [jnp.nan], [jnp.nan]]]), window=3)
    assert indices.ravel().tolist() == [1]
    whole = jnp.array([[[1], [3], [3]]])
    y, indices = fn.max_pool_with_indices(whole, window=2, stride=1)
    assert (y.dtype, y.ravel().tolist(), indices.ravel().tolist()) == (whole.dtype, [3, 3], [1, 1])


def put_by_loops(x, indices, *, shape):
    y = np.zeros((len(x), *np.atleast_1d(shape), x.shape[-1]))
    for (n, *at, c), place in np.ndenumerate(indices):
        y[(n, *np.unravel_index(place, y.shape[1:-1]), c)] = x[(n, *at, c)]
    return y


@values_of(fn.max_unpool)
@pytest.mark.usefixtures("x64")
def test_max_unpool_puts_each_number_at_its_index():
    """The last of those that have one index."""
    rows = []
    for numbers, shape in (((2, 3, 2, 2), (5, 4)), ((1, 6, 2), 4), ((1, 2, 1, 2, 1), (2, 3, 2))):
        indices = np.random.default_rng(1).integers(0, np.prod(shape), numbers)
        rows.append(((draw(*numbers), indices), {"shape": shape}))
    assert_agrees(fn.max_unpool, put_by_loops, rows)


@pytest.mark.long
def test_pooling_what_was_put_back_changes_nothing():
    x = jnp.asarray(abs(draw(2, 6, 4, 3)))
    for window, stride in ((2, 2), (3, 1)):
        y, indices = fn.max_pool_with_indices(x, window=window, stride=stride)
        back = fn.max_unpool(y, indices, shape=(6, 4))
        assert ((back == x) | (back == 0)).all()
        again, same = fn.max_pool_with_indices(back, window=window, stride=stride)
        np.testing.assert_array_equal(again, y)
        np.testing.assert_array_equal(same, indices)


def test_traced_indices_out_of_range_put_nothing():
    x, indices = jnp.array([[[1.0], [2.0], [3.0]]]), jnp.array([[[-1], [4], [1]]])

    @jax.jit
    def run(x, indices):
        y, pull = jax.vjp(lambda x: fn.max_unpool(x, indices, shape=4), x)
        return y, pull(jnp.ones_like(y))[0]

    y, dx = run(x, indices)
    assert (y.ravel().tolist(), dx.ravel().tolist()) == ([0, 3, 0, 0], [0, 0, 1])


def test_layers_pool_and_put_back():
    x = jnp.asarray(draw(2, 6, 4, 3))
    y, indices = fn.MaxPool(2, return_indices=True)({}, x)
    expected = fn.max_pool_with_indices(x, window=2)
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_array_equal(indices, expected[1])
    back = fn.max_unpool(y, indices, shape=(6, 4))
    np.testing.assert_array_equal(fn.MaxUnpool(factor=2)({}, y, indices), back)
    np.testing.assert_array_equal(fn.MaxUnpool((6, 4))({}, y, indices), back)


# Norms of windows


def norms_by_loops(x, *, window, p=2, stride=None):
    step = stride or window
    shape = [(n - window) // step + 1 for n in x.shape[1:-1]]
    y = np.zeros((len(x), *shape, x.shape[-1]))
    for out in np.ndindex(*shape):
        box = tuple(slice(o * step, o * step + window) for o in out)
        seen = x[(slice(None), *box)].reshape(len(x), -1, x.shape[-1])
        y[(slice(None), *out)] = np.linalg.norm(seen, p, axis=1)
    return y


@values_of(fn.lp_pool)
@pytest.mark.usefixtures("x64")
def test_lp_pool_is_numpys_norm_of_each_window():
    x, options = draw(2, 5, 6, 2), {"window": 2, "stride": 1}
    rows = [((x,), options | {"p": p}) for p in (1, 1.5, 2, 3, 8)]
    rows += [((draw(2, 7, 3),), {"window": 3}), ((draw(1, 4, 5, 4, 1),), {"window": 2, "p": 4})]
    assert_agrees(fn.lp_pool, norms_by_loops, rows)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("p", some([1, 1.5, 2, 3, 4], (2, 3, 4)))
def test_where_a_window_is_zero_so_is_its_gradient(p):
    x = jnp.array([0.0, 0.0, 3.0, 0.0])[None, :, None]
    for f in (fn.lp_pool, fn.autodiff(fn.lp_pool), fn.lp_pool.rule.primal):
        slope = jax.grad(lambda x, f=f: f(x, window=2, p=p).sum())(x)
        np.testing.assert_allclose(slope.ravel(), [0, 0, 1, 0], 1e-14)


@pytest.mark.long
@pytest.mark.usefixtures("x64")
def test_the_curvature_of_a_length_where_one_number_is_zero():
    """Of √(x² + 9) at 0 it is a third; of a window that is 0 it is taken for 0."""
    x = jnp.array([0.0, 3.0, 0.0, 0.0])[None, :, None]
    for f in (fn.lp_pool, fn.autodiff(fn.lp_pool), fn.lp_pool.rule.primal):
        slope = jax.grad(lambda x, f=f: f(x, window=2).sum())
        curvature = jax.grad(lambda x, s=slope: s(x)[0, ::2].sum())(x)
        np.testing.assert_allclose(curvature.ravel(), [1 / 3, 0, 0, 0], 1e-12)


@pytest.mark.long
def test_norms_of_numbers_whose_powers_are_out_of_range():
    for p, size in itertools.product((2, 8), (1e-30, 1e30)):
        x = jnp.full((1, 4, 1), size, jnp.float32)
        y, pull = jax.vjp(lambda x, p=p: fn.lp_pool(x, window=4, p=p), x)
        np.testing.assert_allclose(y.ravel(), 4 ** (1 / p) * size, 1e-6)
        np.testing.assert_allclose(pull(jnp.ones_like(y))[0].ravel(), 4 ** (1 / p - 1), 1e-6)
    for spoilt in (jnp.inf, jnp.nan):
        y = fn.lp_pool(jnp.array([3.0, 4.0, spoilt, 1.0])[None, :, None], window=2)
        np.testing.assert_array_equal(y.ravel(), [5, spoilt])


def test_lp_pool_layer_passes_its_options_on():
    x = jnp.asarray(draw(1, 7, 6, 2), jnp.float32)
    around = {"dilation": (2, 1), "ceil_mode": True, "p": 3}
    expected = fn.lp_pool(x, window=2, stride=(1, 2), padding=1, **around)
    np.testing.assert_array_equal(fn.LpPool(2, (1, 2), 1, **around)({}, x), expected)


# Images read at points


def cubic(d):
    """Keys's, of a = -3/4."""
    near = 1.25 * d**3 - 2.25 * d**2 + 1
    return np.where(d < 1, near, np.where(d < 2, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4), 0))


KERNELS = {
    "nearest": lambda d: d < 0.5,
    "bilinear": lambda d: np.maximum(1 - d, 0),
    "bicubic": cubic,
}


def extended(pixel, size, padding, align_corners):
    """The pixel that is read in the place of one beyond the image; None for a zero."""
    if 0 <= pixel < size or padding == "border":
        return min(max(pixel, 0), size - 1)
    if padding == "zeros":
        return None
    there = list(range(size))
    period = there + (there[-2:0:-1] if align_corners else there[::-1])
    return period[pixel % len(period)]


def sample_by_loops(x, grid, *, mode="bilinear", padding="zeros", align_corners=False):
    """The image is continued beyond its ends, without limit; then each point sums what it sees."""
    sizes, y = x.shape[1:-1], np.zeros((*grid.shape[:-1], x.shape[-1]))
    for n, *at in np.ndindex(grid.shape[:-1]):
        reads = []
        for number, size in zip(grid[(n, *at)][::-1], sizes, strict=True):
            whole = (number + 1) / 2
            place = whole * (size - 1) if align_corners else whole * size - 0.5
            near = range(int(np.floor(place)) - 1, int(np.floor(place)) + 3)
            weights = [float(KERNELS[mode](abs(place - pixel))) for pixel in near]
            pixels = [extended(pixel, size, padding, align_corners) for pixel in near]
            reads.append([(i, w) for i, w in zip(pixels, weights, strict=True) if i is not None])
        for taps in itertools.product(*reads):
            weight = np.prod([w for _, w in taps])
            y[(n, *at)] += weight * x[(n, *(i for i, _ in taps))]
    return y


@values_of(fn.grid_sample)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("mode", some(["nearest", "bilinear", "bicubic"]))
def test_grid_sample_reads_the_image_continued_beyond_its_ends(mode):
    """So does PyTorch, whose other form, points taken into the image, comes to the same."""
    random, rows = np.random.default_rng(2), []
    for padding, corners in itertools.product(("zeros", "border", "reflection"), (False, True)):
        options = {"mode": mode, "padding": padding, "align_corners": corners}
        for image, points in (((1, 3, 4, 2), (1, 3, 2)), ((1, 5, 1), (1, 4))):
            grid = random.uniform(-3, 3, (*points, len(image) - 2))
            rows.append(((draw(*image), grid), options))
    assert_agrees(fn.grid_sample, sample_by_loops, rows)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.usefixtures("x64")
def test_grid_sample_reads_volumes():
    grid = np.random.default_rng(3).uniform(-1.5, 1.5, (2, 5, 3))
    rows = [((draw(2, 3, 2, 4, 2), grid), {"mode": mode}) for mode in ("bilinear", "bicubic")]
    assert_agrees(fn.grid_sample, sample_by_loops, rows)


@pytest.mark.long
@pytest.mark.usefixtures("x64")
def test_slopes_at_pixels_and_ends():
    """At a pixel the slope is that of the line after it; where a point is held at an end, 0."""
    x = jnp.array([1.0, 2.0, 4.0])[None, :, None]
    grid = jnp.array([-1.0, 0.0, 1.0])[None, :, None]
    expected = {"zeros": [1, 2, -4], "border": [0, 2, 0], "reflection": [0, 2, 0]}
    for f, padding in itertools.product((fn.grid_sample, fn.grid_sample.rule.primal), expected):
        slope = jax.grad(
            lambda grid, f=f, padding=padding: f(
                x, grid, mode="bilinear", padding=padding, align_corners=True
            ).sum()
        )(grid)
        assert slope.ravel().tolist() == expected[padding]


def test_of_two_nearest_pixels_the_even_one_is_read():
    x = jnp.arange(4.0)[None, :, None]
    grid = jnp.array([-0.5, 0.0, 0.5])[None, :, None]  # between two pixels each
    assert fn.grid_sample(x, grid, mode="nearest").ravel().tolist() == [0, 2, 2]


def test_points_that_are_no_numbers_or_far_away():
    x = jnp.ones((1, 4, 1), jnp.float32)
    grid = jnp.array([jnp.nan, 1e30, -1e30])[None, :, None]
    for mode in ("bilinear", "bicubic"):
        y = fn.grid_sample(x, grid, mode=mode).ravel()
        np.testing.assert_array_equal(y, [jnp.nan, 0, 0])
        y = fn.grid_sample(x, grid, mode=mode, padding="border").ravel()
        np.testing.assert_allclose(y, [jnp.nan, 1, 1], 1e-6)


def test_what_lies_beside_the_points_has_no_effect():
    """Neither has a NaN at the border, where zeros are read beyond it."""
    x = jnp.array([jnp.nan, 1.0, 2.0, jnp.inf])[None, :, None]
    grid = jnp.array([-2.0, 0.0, 2.0])[None, :, None]
    assert fn.grid_sample(x, grid).ravel().tolist() == [0, 1.5, 0]


@pytest.mark.long
def test_grid_sample_in_16_bits_sums_in_float32():
    """A thousand points read one pixel: the sum of their cotangents is no longer than rounded."""
    x, grid = jnp.ones((1, 3, 1), jnp.bfloat16), jnp.zeros((1, 1000, 1), jnp.bfloat16)
    dx = jax.grad(lambda x: fn.grid_sample(x, grid).sum())(x)
    assert dx.dtype == jnp.bfloat16
    assert dx.ravel().tolist() == [0, 1000, 0]


@pytest.mark.long
@pytest.mark.usefixtures("x64")
def test_an_image_and_a_grid_of_two_dtypes():
    x, grid = jnp.ones((1, 3, 1)), jnp.zeros((1, 2, 1))
    for a, b in itertools.permutations((jnp.bfloat16, jnp.float32, jnp.float64), 2):
        y, pull = jax.vjp(fn.grid_sample, x.astype(a), grid.astype(b))
        dx, dgrid = pull(y)
        assert (y.dtype, dx.dtype, dgrid.dtype) == (a, a, b)
        assert dx.ravel().tolist() == [0, 2, 0]


@values_of(fn.affine_grid)
@pytest.mark.usefixtures("x64")
def test_affine_grid_maps_the_place_of_each_pixel():
    def by_loops(theta, *, shape, align_corners=False):
        y = np.zeros((len(theta), *shape, theta.shape[1]))
        for at in np.ndindex(*shape):
            ends = [(-1, 1) if align_corners else (1 / n - 1, 1 - 1 / n) for n in shape]
            lines = [np.linspace(*end, n)[i] for i, n, end in zip(at, shape, ends, strict=True)]
            y[(slice(None), *at)] = theta @ [*lines[::-1], 1]
        return y

    rows = [
        ((draw(2, len(shape), len(shape) + 1),), {"shape": shape, "align_corners": corners})
        for shape in ((3, 4), (5,), (2, 3, 4))
        for corners in (False, True)
    ]
    assert_agrees(fn.affine_grid, by_loops, rows)


@pytest.mark.long
def test_the_map_that_changes_nothing_reads_the_image_itself():
    for image in ((2, 5, 4, 3), (1, 3, 4, 5, 2), (2, 6, 1)):
        x, axes = jnp.asarray(draw(*image), jnp.float32), len(image) - 2
        same = jnp.broadcast_to(jnp.eye(axes, axes + 1), (len(x), axes, axes + 1))
        for corners in (False, True):
            grid = fn.affine_grid(same, shape=image[1:-1], align_corners=corners)
            for mode in ("nearest", "bilinear", "bicubic"):
                y = fn.grid_sample(x, grid, mode=mode, align_corners=corners)
                np.testing.assert_allclose(y, x, 1e-5, 1e-5)


# Beside PyTorch


@pytest.fixture(scope="module")
def torch():
    with np.load(Path(__file__).parent / "data" / "images_torch.npz") as file:
        return dict(file)


def pooled_and_put_back(x, **options):
    return fn.max_unpool(*fn.max_pool_with_indices(x, **options), shape=x.shape[1:-1])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "op",
    [
        pytest.param(op, marks=LONG * (op == "grid_sample"))
        for op in sorted({row.op for row in ROWS.values()})
    ],
)
def test_values_and_gradients_equal_those_of_pytorch(op, torch):
    rows = {name: row for name, row in ROWS.items() if row.op == op}

    @jax.jit
    def everything(given):
        found = {}
        for name, row in rows.items():
            run = pooled_and_put_back if op == "max_unpool" else getattr(fn, op)
            y, pull, *indices = jax.vjp(
                partial(run, **row.options), *given[name], has_aux=op == "max_pool_with_indices"
            )
            found[name] = y, pull(jnp.asarray(ripple(y.shape))), indices
        return found

    for name, (y, gradients, indices) in everything({name: inputs(name) for name in rows}).items():
        np.testing.assert_allclose(y, torch[f"{name}/y"], 1e-11, 1e-12, err_msg=name)
        for i, gradient in enumerate(gradients):
            expected = torch[f"{name}/{i}"]
            np.testing.assert_allclose(gradient, expected, 1e-10, 1e-11, err_msg=name)
        for places in indices:
            np.testing.assert_array_equal(places, torch[f"{name}/indices"], err_msg=name)
