"""Pools that tell places, and what puts numbers back to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn

from .values import assert_agrees, draw, ripple, values_of

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
]


@values_of(fn.max_pool_with_indices)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("shape", "options"), INDEXED)
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
