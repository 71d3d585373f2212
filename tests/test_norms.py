"""Normalisation, resizing, positions and glue, each against a formula written another way."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import funcnet as fn
from funcnet.ops.products.cases import EINSUM_OF_TWO

from .values import assert_agrees, draw, ripple, values_of

pytestmark = pytest.mark.usefixtures("ops_compile_whole")
wide = pytest.mark.usefixtures("x64")


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, tolerance, tolerance)


def unit(v, eps):
    """One vector with its mean taken off, over its spread."""
    return (v - v.mean()) / (v.std() ** 2 + eps) ** 0.5


def by_rows(one):
    """`one` on every row of the last axis, then scale and shift."""

    def whole(x, scale=None, shift=None, **static):
        y = np.apply_along_axis(one, -1, x, **static) if x.size else x
        return y * (1 if scale is None else scale) + (0 if shift is None else shift)

    return whole


@wide
@values_of(fn.layer_norm)
def test_layer_norm_is_each_row_by_itself():
    rows = [
        ((3 + draw(2, 2, 4), draw(4, seed=1), draw(4, seed=2)), {}),
        ((draw(3, 4), None, draw(4, seed=2)), {"eps": 0.1}),
        ((draw(4), draw(4, seed=1), None), {}),
    ]
    assert_agrees(fn.layer_norm, by_rows(lambda v, eps=1e-5: unit(v, eps)), rows)


@wide
@values_of(fn.rms_norm)
def test_rms_norm_is_each_row_by_itself():
    def one(v, eps=1e-6):
        return v / (np.linalg.norm(v) ** 2 / len(v) + eps) ** 0.5

    rows = [((1 + draw(2, 2, 4), draw(4, seed=1)), {}), ((draw(3, 4), None), {"eps": 0.1})]
    assert_agrees(fn.rms_norm, by_rows(one), rows)


def by_groups(x, scale=None, shift=None, *, groups, eps=1e-5):
    y = np.empty_like(x)
    size = x.shape[-1] // groups
    for n, g in np.ndindex(len(x), groups):
        own = slice(g * size, (g + 1) * size)
        y[n, ..., own] = unit(x[n, ..., own], eps)
    return y * (1 if scale is None else scale) + (0 if shift is None else shift)


@wide
@values_of(fn.group_norm)
def test_group_norm_is_each_group_by_itself():
    rows = [
        ((2 + draw(2, 2, 2, 4), draw(4, seed=1), draw(4, seed=2)), {"groups": 2}),
        ((draw(2, 6), None, draw(6, seed=2)), {"groups": 2, "eps": 0.1}),
        ((draw(2, 3, 2), draw(2, seed=1), None), {"groups": 1}),
    ]
    assert_agrees(fn.group_norm, by_groups, rows)


@wide
@values_of(fn.instance_norm)
def test_instance_norm_is_each_channel_by_itself():
    def by_channels(x, scale=None, shift=None, **static):
        return by_groups(x, scale, shift, groups=x.shape[-1], **static)

    rows = [
        ((2 + draw(2, 2, 3, 2), draw(2, seed=1), draw(2, seed=2)), {}),
        ((draw(2, 5, 3), None, None), {"eps": 0.1}),
    ]
    assert_agrees(fn.instance_norm, by_channels, rows)


@wide
@values_of(fn.local_response_norm)
def test_local_response_norm_is_each_channel_over_its_neighbours():
    def by_channels(x, size=5, k=2.0, alpha=1e-4, beta=0.75):
        y = np.zeros_like(x)
        for i in range(x.shape[-1]):
            beside = x[..., max(i - size // 2, 0) : i + (size - 1) // 2 + 1]
            y[..., i] = x[..., i] / (k + alpha * (beside**2).sum(-1)) ** beta
        return y

    rows = [
        ((draw(2, 2, 7),), {}),
        ((draw(2, 6),), {"size": 4, "k": 1.0, "alpha": 0.5, "beta": 0.5}),
    ]
    assert_agrees(fn.local_response_norm, by_channels, rows)


@wide
@values_of(fn.standardize)
def test_standardize_is_the_z_score_along_axes():
    rows: list = [
        ((draw(3, 5),), {"eps": 0.0}),
        ((draw(3, 2, 2),), {"axis": (0, 2), "eps": 0.0}),
    ]

    def z_score(x, axis=-1, eps=0.0):
        if axis == -1:
            return stats.zscore(x, -1)
        columns = [np.reshape(stats.zscore(column.ravel()), (3, 2)) for column in x.swapaxes(0, 1)]
        return np.array(columns).swapaxes(0, 1)

    assert_agrees(fn.standardize, z_score, rows)
    assert not np.asarray(fn.standardize(jnp.full((2, 3), 7.0))).any()


@wide
@values_of(fn.l2_normalize)
def test_l2_normalize_has_length_one_and_leaves_zero_alone():
    def by_length(x, axis=-1):
        return x / np.linalg.norm(x, axis=axis, keepdims=True)

    assert_agrees(fn.l2_normalize, by_length, [((draw(3, 4),), {}), ((draw(3, 4),), {"axis": 0})])
    x = jnp.array([[0.0, 0.0], [3e-13, 4e-13], [3e-12, 4e-12]])
    y, pull = jax.vjp(fn.l2_normalize, x)
    close(y, [[0, 0], [0, 0], [0.6, 0.8]])
    (dx,) = pull(jnp.ones_like(x))
    assert not np.asarray(dx)[:2].any()
    slope = jax.grad(lambda x: fn.l2_normalize(x)[:, 0].sum())
    assert np.isfinite(jax.grad(lambda x: (slope(x) ** 2).sum())(x)).all()


# Masks

LENGTHS = np.arange(5) < np.array([[5], [3], [2]])
"""Three sequences of up to 5 places."""
SOME = np.random.default_rng(4).random((3, 5, 4)) < 0.6
SOME[1, :, 2:] = False
FEATURES = np.array([True, False, True, True])


def by_parts(x, where, parts, eps):
    """Each part of x, as an index, brought to mean 0 and variance 1 by what counts of it alone."""
    counts, y = np.broadcast_to(where, x.shape), np.zeros(x.shape)
    for part in parts:
        if counts[part].any():
            own, line = y[part], x[part]
            own[counts[part]] = unit(line[counts[part]], eps)
            y[part] = own
    return y, counts


def scaled(y, counts, scale, shift):
    return np.where(
        counts, y * (1 if scale is None else scale) + (0 if shift is None else shift), 0
    )


def masked_batch_norm(x, scale, shift, where, eps=1e-5):
    columns = [(..., slice(c, c + 1)) for c in range(x.shape[-1])]
    y, counts = by_parts(x, where, columns, eps)
    kept = [x[..., c][counts[..., c]] for c in range(x.shape[-1])]
    mean, var = (np.array([f(v) if v.size else 0.0 for v in kept]) for f in (np.mean, np.var))
    return scaled(y, counts, scale, shift), mean, var


def masked_group_norm(x, scale, shift, where, groups=4, eps=1e-5):
    size = x.shape[-1] // groups
    parts = [(n, ..., slice(g * size, (g + 1) * size)) for n, g in np.ndindex(x.shape[0], groups)]
    return scaled(*by_parts(x, where, parts, eps), scale, shift)


def masked_z_score(x, where, axis=-1, eps=1e-5):
    axes = tuple(np.atleast_1d(axis) % x.ndim)
    sizes = [1 if d in axes else n for d, n in enumerate(x.shape)]
    parts = [
        tuple(slice(None) if d in axes else slice(i, i + 1) for d, i in enumerate(at))
        for at in np.ndindex(*sizes)
    ]
    return scaled(*by_parts(x, where, parts, eps), None, None)


@wide
@values_of(fn.batch_norm, fn.group_norm, fn.instance_norm, fn.standardize)
def test_statistics_are_of_what_counts():
    x, scale, shift = 2 + draw(3, 5, 4), draw(4, seed=1), draw(4, seed=2)
    places = LENGTHS[..., None]
    norm = (x, scale, shift)
    rows = [((*norm, places), {}), ((*norm, SOME), {"eps": 0.1}), ((x, None, shift, SOME[0]), {})]
    assert_agrees(fn.batch_norm, masked_batch_norm, rows)
    assert_agrees(fn.instance_norm, masked_group_norm, rows)
    assert_agrees(fn.group_norm, masked_group_norm, [(a, s | {"groups": 2}) for a, s in rows])
    rows = [((x, SOME), {"eps": 0.1}), ((x, places), {"axis": (0, 1)}), ((x, FEATURES), {})]
    assert_agrees(fn.standardize, masked_z_score, rows)


def padded_and_alone():
    """Each norm of padded sequences beside the same of what counts of them alone."""
    x, scale, shift = 3 + draw(3, 5, 4), draw(4, seed=1), draw(4, seed=2)
    spoilt, learned = np.where(LENGTHS[..., None], x, np.nan), (scale, shift)

    def together(x, scale, shift):
        return fn.batch_norm(x[LENGTHS], scale, shift)[0]

    def one_by_one(norm):
        def apart(x, scale, shift):
            ends = zip(x, LENGTHS.sum(1), strict=True)
            return jnp.concatenate([norm(row[None, :n], scale, shift)[0] for row, n in ends])

        return apart

    def with_mask(norm):
        return lambda x, scale, shift: norm(x, scale, shift, LENGTHS[..., None])[LENGTHS]

    group = jax.tree_util.Partial(fn.group_norm, groups=2)
    batch = with_mask(lambda *args: fn.batch_norm(*args)[0])
    pairs = {
        "batch": (batch, together),
        "group": (with_mask(group), one_by_one(group)),
        "instance": (with_mask(fn.instance_norm), one_by_one(fn.instance_norm)),
    }
    return (x, *learned), (spoilt, *learned), pairs


@wide
@pytest.mark.parametrize("name", ["batch", "group", "instance"])
def test_padding_changes_nothing_even_where_it_is_nan(name):
    clean, spoilt, pairs = padded_and_alone()
    padded, alone = pairs[name]
    y, pull = jax.vjp(padded, *spoilt)
    expected, pull_alone = jax.vjp(alone, *clean)
    close(y, expected, 1e-12)
    dy = jnp.asarray(ripple(y.shape))
    for found, truth in zip(pull(dy), pull_alone(dy), strict=True):
        close(found, truth, 1e-11)
    again = jax.grad(lambda *args: (jax.vjp(padded, *args)[1](dy)[0] ** 2).sum())(*spoilt)
    assert np.isfinite(again).all()
    assert not again[~LENGTHS].any()


@pytest.mark.parametrize("where", [np.zeros((3, 5, 1), bool), np.zeros((), bool)])
def test_where_nothing_counts_all_is_0(where):
    x, ones = jnp.full((3, 5, 4), jnp.nan), jnp.ones(4)
    for norm in (
        fn.batch_norm,
        fn.instance_norm,
        lambda *args: fn.group_norm(*args, groups=2),
        lambda x, scale, shift, where: fn.standardize(x, where, axis=1),
    ):
        y, pull = jax.vjp(lambda *args, norm=norm: norm(*args, where), x, ones, ones)
        for leaf in jax.tree.leaves((y, pull(jax.tree.map(jnp.ones_like, y)))):
            assert not np.asarray(leaf).any()


NORMS = {
    "layer norm": lambda x: fn.layer_norm(x),
    "group norm": lambda x: fn.group_norm(x, groups=2),
    "instance norm": lambda x: fn.instance_norm(x),
    "standardize": lambda x: fn.standardize(x),
}


@pytest.mark.parametrize("name", NORMS)
def test_a_large_mean_costs_no_digits_in_float32(name):
    x = (1e4 + draw(2, 16, 8)).astype(np.float32)
    with jax.enable_x64(True):
        truth, pull = jax.vjp(NORMS[name], jnp.asarray(x, "float64"))
        (slope,) = pull(jnp.asarray(ripple(x.shape)))
    plain = NORMS[name](x)
    y, pull = jax.vjp(NORMS[name], x)
    close(y, truth)
    close(plain, truth)
    close(pull(jnp.asarray(ripple(x.shape), "float32"))[0], slope)


# Resizing


def by_pixel(x, *, shape, method):
    """Along one axis after the other, one output pixel at a time."""
    for axis, m in enumerate(shape, 1):
        n, columns = x.shape[axis], []
        for i in range(m):
            if method == "bilinear":
                place = min(max((i + 0.5) * n / m - 0.5, 0), n - 1)
                low, high = int(place), min(int(place) + 1, n - 1)
                part = place - low
                columns.append(x.take(low, axis) * (1 - part) + x.take(high, axis) * part)
            else:
                shift = 0.5 if method == "nearest-exact" else 0.0
                columns.append(x.take(int((i + shift) * n / m + 1e-9), axis))
        x = np.stack(columns, axis)
    return x


@wide
@values_of(fn.resize)
@pytest.mark.parametrize("method", ["nearest", "nearest-exact", "bilinear"])
def test_resize_is_pixel_by_pixel(method):
    image, shapes = draw(1, 3, 4, 2), ((6, 3), (2, 4), (1, 9))
    rows = [((image,), {"shape": shape, "method": method}) for shape in shapes]
    assert_agrees(fn.resize, by_pixel, rows)
    volume = draw(1, 2, 1, 3, 1)
    everywhere = fn.resize(volume, shape=4, method=method)
    close(everywhere, by_pixel(volume, shape=(4, 4, 4), method=method), 1e-12)


def test_resize_follows_jax_image():
    x = jnp.asarray(draw(2, 5, 4, 3), "float32")
    names = {"nearest-exact": "nearest", "bilinear": "bilinear"}
    for shape in ((10, 8), (3, 7)):
        for method, name in names.items():
            theirs = jax.image.resize(x, (2, *shape, 3), name, antialias=False)
            close(fn.resize(x, shape=shape, method=method), theirs)


@wide
def test_resize_by_curves_follows_jax_image_and_its_gradient():
    x = jnp.asarray(draw(1, 19, 5, 2))
    for shape, method, antialias in (
        ((3, 7), "cubic", False),
        ((7, 3), "cubic", True),
        ((1, 4), "bilinear", True),
    ):
        y, pull = jax.vjp(
            lambda x, s=shape, m=method, a=antialias: fn.resize(x, shape=s, method=m, antialias=a),
            x,
        )
        theirs, their_pull = jax.vjp(
            lambda x, s=shape, m=method, a=antialias: jax.image.resize(
                x, (1, *s, 2), m, antialias=a
            ),
            x,
        )
        close(y, theirs, 1e-5)  # jax.image has weights of float32
        dy = jnp.asarray(ripple(y.shape))
        close(pull(dy)[0], their_pull(dy)[0], 1e-5)


def between_corners(x, *, shape, method, align_corners):
    assert (method, align_corners) == ("bilinear", True)
    for axis, length in enumerate(shape, 1):
        at = np.linspace(0, x.shape[axis] - 1, length)
        x = np.apply_along_axis(
            lambda line, at=at: np.interp(at, np.arange(len(line)), line), axis, x
        )
    return x


@wide
@values_of(fn.resize)
def test_resize_from_corner_to_corner():
    options = {"method": "bilinear", "align_corners": True}
    rows = [((draw(1, 3, 4, 2),), options | {"shape": shape}) for shape in ((7, 2), (1, 5))]
    assert_agrees(fn.resize, between_corners, rows)
    line = jnp.arange(4.0).reshape(1, 4, 1)
    ends = fn.resize(line**2, shape=7, method="cubic", align_corners=True)[0, ::2, 0]
    close(ends, [0, 1, 4, 9])


def test_an_infinite_pixel_spoils_its_neighbours_alone():
    x = jnp.zeros((1, 6, 1)).at[0, 0].set(jnp.inf)
    y, pull = jax.vjp(lambda x: fn.resize(x, shape=12, method="bilinear"), x)
    assert np.isfinite(np.asarray(y[0, 3:])).all()
    (dx,) = pull(y)
    assert np.isfinite(np.asarray(dx[0, 2:])).all()


def shuffled(x, *, factor):
    a, b = factor
    batch, h, w, c = x.shape
    y = np.zeros((batch, h * a, w * b, c // (a * b)))
    for n, i, j, k in np.ndindex(y.shape):
        y[n, i, j, k] = x[n, i // a, j // b, (k * a + i % a) * b + j % b]
    return y


@wide
@values_of(fn.pixel_shuffle)
def test_pixel_shuffle_lays_channels_out_as_blocks():
    assert_agrees(fn.pixel_shuffle, shuffled, [((draw(1, 2, 2, 12),), {"factor": (2, 3)})])
    line = fn.pixel_shuffle(jnp.arange(6.0).reshape(1, 1, 6), factor=3)
    assert line.tolist() == [[[0, 3], [1, 4], [2, 5]]]


@wide
@values_of(fn.pixel_unshuffle)
def test_pixel_unshuffle_is_its_inverse():
    x = draw(2, 4, 6, 3)
    y = fn.pixel_unshuffle(x, factor=(2, 3))
    np.testing.assert_array_equal(shuffled(np.asarray(y), factor=(2, 3)), x)
    gradient = jax.grad(lambda x: (fn.pixel_unshuffle(x, factor=(2, 3)) * y).sum())(x)
    np.testing.assert_array_equal(gradient, x)


# Products


@wide
@values_of(fn.einsum)
def test_einsum_is_a_sum_over_all_letters():
    def by_letter(x, w=None, *more, equation):
        inputs, output = equation.split("->")
        terms, given = inputs.split(","), [a for a in (x, w, *more) if a is not None]
        pairs = list(zip(terms, given, strict=True))
        sizes = {c: n for term, a in pairs for c, n in zip(term, a.shape, strict=True)}
        y = np.zeros([sizes[c] for c in output])
        for index in np.ndindex(*sizes.values()):
            at = dict(zip(sizes, index, strict=True))
            product = np.prod([a[tuple(at[c] for c in term)] for term, a in pairs])
            y[tuple(at[c] for c in output)] += product
        return y

    rows = [
        (tuple(draw(*shape, seed=i) for i, shape in enumerate(shapes)), {"equation": equation})
        for equation, *shapes in (
            ("btd,dhk->bthk", (2, 2, 3), (3, 2, 2)),
            ("bthk,hkd->bdt", (1, 2, 2, 3), (2, 3, 2)),
            ("ngi,gio->ngo", (2, 2, 3), (2, 3, 2)),
            ("abc,cde->da", (2, 2, 3), (3, 2, 2)),
            ("ab,ba->", (2, 3), (3, 2)),
            ("ij,jk,ki->", (2, 3), (3, 2), (2, 2)),
            ("nr,ns,nt->tsr", (2, 2), (2, 3), (2, 2)),
            ("ab,c,d->db", (2, 2), (3,), (2,)),
            ("abc->ca", (2, 3, 2)),
            ("ab->", (2, 3)),
            ("abc->bca", (2, 3, 2)),
        )
    ]
    assert_agrees(fn.einsum, by_letter, rows)


EQUATIONS = [
    ("ij,jk,kl,lm->im", (2, 9), (9, 8), (8, 3), (3, 2)),
    ("i,jk,lj->il", (2,), (3, 2), (4, 3)),
    ("bqhd,bkhd,bkhe,h->bqe", (1, 2, 3, 4), (1, 5, 3, 4), (1, 5, 3, 2), (3,)),
]


@wide
@pytest.mark.parametrize(("equation", "shapes"), [(e, s) for e, *s in EQUATIONS])
def test_einsum_of_several_is_jaxs_with_its_gradients(equation, shapes):
    arrays = [jnp.asarray(draw(*shape, seed=i)) for i, shape in enumerate(shapes)]

    def ours(x, w, *more):
        return fn.einsum(x, w, more, equation=equation)

    y, pull = jax.vjp(ours, *arrays)
    theirs, their_pull = jax.vjp(lambda *arrays: jnp.einsum(equation, *arrays), *arrays)
    close(y, theirs, 1e-12)
    dy = jnp.asarray(ripple(y.shape))
    jax.tree.map(lambda a, b: close(a, b, 1e-12), pull(dy), their_pull(dy))


def test_einsum_of_one_array_of_numpy_has_a_gradient():
    x = draw(2, 3).astype("float32")
    dx = jax.grad(lambda x: fn.einsum(x, equation="ij->ji")[:, 0].sum())(x)
    np.testing.assert_array_equal(dx, [[1, 1, 1], [0, 0, 0]])


def test_einsum_takes_the_cheap_product_first():
    """Of a chain that ends in a vector, matrices meet the vector and never each other."""
    chain = [jnp.ones((50, 50))] * 3 + [jnp.ones(50)]
    equation = "ij,jk,kl,l->i"

    def flops(f):
        costs: Any = jax.jit(f).lower(*chain).compile().cost_analysis()
        return costs["flops"]

    whole = flops(lambda a, b, c, v: fn.einsum(a, b, (c, v), equation=equation))
    forward = flops(lambda a, b, c, v: fn.einsum.rule.forward(a, b, (c, v), equation=equation)[0])
    assert max(whole, forward) < 4 * 2 * 50**2


def test_einsum_of_two_rounds_each_element_once():
    """Only products on the way are rounded too, which those of two operands have none of."""
    rule = fn.einsum.rule._replace(rounds=False, cases=EINSUM_OF_TWO)
    assert all(proof.ok for proof in fn.prove(rule, "bfloat16"))


# Layers


def moved(net, key, *inputs):
    """Parameters from `init`, each moved so that none is 0 or 1."""
    params, _ = net.init(key, *inputs)
    return jax.tree.map(lambda p: p + 0.1 * draw(*p.shape, seed=p.size).astype("float32"), params)


def test_the_layers_pass_their_options_and_parameters_on(key):
    x = draw(2, 3, 4).astype("float32")
    pairs = [
        (fn.LayerNorm(eps=0.1), fn.layer_norm, {"eps": 0.1}),
        (fn.RMSNorm(eps=0.2), fn.rms_norm, {"eps": 0.2}),
        (fn.GroupNorm(2, eps=0.3), fn.group_norm, {"groups": 2, "eps": 0.3}),
        (fn.InstanceNorm(eps=0.4), fn.instance_norm, {"eps": 0.4}),
    ]
    for net, op, static in pairs:
        params = moved(net, key, x)
        names = ("scale",) if net.name == "rms_norm" else ("scale", "shift")
        assert tuple(params) == names
        close(net(params, x), op(x, *(params[name] for name in names), **static))
        assert all((leaf == (name == "scale")).all() for name, leaf in net.init(key, x)[0].items())
    for net, names in (
        (fn.LayerNorm(scale=False), ["shift"]),
        (fn.GroupNorm(2, shift=False), ["scale"]),
        (fn.RMSNorm(scale=False), []),
    ):
        assert list(net.init(key, x)[0]) == names
    shift = jnp.ones(4)
    close(fn.LayerNorm(scale=False)({"shift": shift}, x), fn.layer_norm(x, None, shift))


def test_layers_take_the_mask_after_x(key):
    x, where = draw(3, 5, 4).astype("float32"), LENGTHS[..., None]
    for net, op in (
        (fn.GroupNorm(2), lambda *args: fn.group_norm(*args, groups=2)),
        (fn.InstanceNorm(), fn.instance_norm),
    ):
        params = moved(net, key, x, where)
        close(net(params, x, where), op(x, params["scale"], params["shift"], where))
        close(net(params, x), op(x, params["scale"], params["shift"]))
    for net in (fn.LayerNorm(), fn.RMSNorm()):
        with pytest.raises(TypeError, match=r"_norm: expected the inputs \(x\), got 2 of them"):
            net(moved(net, key, x), x, where)


@pytest.mark.parametrize("unbiased", [False, True])
def test_the_averages_of_batch_norm_ignore_padding(key, unbiased):
    net = fn.BatchNorm(decay=0.7, unbiased_running_var=unbiased)
    x = draw(3, 5, 4).astype("float32")
    spoilt, where = np.where(LENGTHS[..., None], x, np.nan), LENGTHS[..., None]
    params, (_, state) = moved(net, key, x), net.init(key, x, where)
    y, after = net.apply(params, state, spoilt, where, train=True)
    alone, expected = net.apply(params, state, x[LENGTHS], train=True)
    close(y[LENGTHS], alone)
    assert not y[~LENGTHS].any()
    jax.tree.map(close, after, expected)
    evaluated, same = net.apply(params, after, spoilt, where)
    close(evaluated[LENGTHS], net.apply(params, after, x[LENGTHS])[0])
    assert not evaluated[~LENGTHS].any()
    jax.tree.map(np.testing.assert_array_equal, same, after)


def averages_by_hand(x, mean, var, decay, where=None, unbiased=False):
    """One step of PyTorch's InstanceNorm: the mean over examples of their statistics."""
    counts = np.broadcast_to(True if where is None else where, x.shape)
    for c in range(x.shape[-1]):
        own = [row[..., c][kept[..., c]] for row, kept in zip(x, counts, strict=True)]
        own = [row for row in own if row.size > 1]
        if own:
            mean[c] = decay * mean[c] + (1 - decay) * np.mean([row.mean() for row in own])
            spread = [row.var(ddof=int(unbiased)) for row in own]
            var[c] = decay * var[c] + (1 - decay) * np.mean(spread)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_instance_norm_trains_on_examples_and_evaluates_on_their_averages(key, unbiased, masked):
    options = {"decay": 0.7, "unbiased_running_var": unbiased, "eps": 0.01}
    net = fn.InstanceNorm(track_running_stats=True, **options)
    x = 3 + 2 * draw(3, 5, 4).astype("float32")
    where = (SOME,) if masked else ()
    params, (_, state) = moved(net, key, x), net.init(key, x, *where)
    mean, var = np.zeros(4), np.ones(4)
    assert {name: leaf.tolist() for name, leaf in state.items()} == {
        "mean": mean.tolist(),
        "var": var.tolist(),
    }
    plain = fn.InstanceNorm(eps=0.01)
    for step in range(3):
        y, state = jax.jit(lambda s, *given: net.apply(params, s, *given, train=True))(
            state, x + step, *where
        )
        close(y, plain(params, x + step, *where))
        averages_by_hand(x + step, mean, var, 0.7, *where, unbiased=unbiased)
        close(state["mean"], mean)
        close(state["var"], var)
    y, after = net.apply(params, state, x, *where)
    expected = (x - mean) / np.sqrt(var + 0.01) * params["scale"] + params["shift"]
    close(y, np.where(SOME, expected, 0) if masked else expected)
    jax.tree.map(np.testing.assert_array_equal, after, state)
    slopes = [
        jax.grad(lambda p, f=f: (f(p) * ripple(x.shape)).sum())(params)
        for f in (
            lambda p: net.apply(p, state, x, *where, train=True)[0],
            lambda p: plain(p, x, *where),
        )
    ]
    jax.tree.map(close, *slopes)


@pytest.mark.parametrize("counts", [0, 1])
def test_examples_of_fewer_than_two_places_leave_the_averages(key, counts):
    net, x = fn.InstanceNorm(track_running_stats=True), draw(3, 5, 4).astype("float32")
    params, state = net.init(key, x)
    y, after = net.apply(params, state, x, np.arange(5)[:, None] < counts, train=True)
    assert np.isfinite(y).all()
    jax.tree.map(np.testing.assert_array_equal, after, state)


def test_an_array_of_numpy_trains_a_compiled_instance_norm(key):
    net, x = fn.InstanceNorm(track_running_stats=True), draw(3, 5, 4).astype("float32")
    params, state = net.init(key, x)
    where = np.arange(5)[:, None] < 3
    train = jax.jit(lambda where: net.apply(params, state, x, where, train=True))
    jax.tree.map(close, train(where), net.apply(params, state, x, where, train=True))


@pytest.mark.parametrize("unbiased", [False, True])
def test_a_batch_of_fewer_than_two_values_leaves_the_averages(key, unbiased):
    net, x = fn.BatchNorm(unbiased_running_var=unbiased), draw(3, 5, 4).astype("float32")
    params, state = net.init(key, x)
    train = jax.jit(lambda x, where: net.apply(params, state, x, where, train=True))
    for counts in (0, 1):
        where = (np.arange(15) < counts).reshape(3, 5, 1)
        y, after = train(x, where)
        assert np.isfinite(y).all()
        jax.tree.map(np.testing.assert_array_equal, after, state)
    by_channel = np.ones((3, 5, 4), bool)
    by_channel[..., 0] = False
    _, after = train(x, by_channel)
    _, whole = train(x, by_channel | True)
    assert (after["mean"][0], after["var"][0]) == (0, 1)
    close(after["mean"][1:], whole["mean"][1:])


def test_the_averages_of_bfloat16_count_in_float32(key):
    net, x = fn.BatchNorm(decay=0.0, unbiased_running_var=True), jnp.ones((259, 1), jnp.bfloat16)
    x = x.at[::2].set(-1)
    params, state = net.init(key, x)
    _, plain = net.apply(params, state, x, train=True)
    _, counted = net.apply(params, state, x, jnp.ones((259, 1), bool), train=True)
    np.testing.assert_allclose(counted["var"], plain["var"], rtol=1e-6)
    np.testing.assert_allclose(plain["var"], (1 - 259.0**-2) * 259 / 258, rtol=1e-6)


def test_resize_takes_a_shape_or_a_factor():
    x = draw(1, 4, 5, 2)
    assert fn.Resize((3, 2))({}, x).shape == (1, 3, 2, 2)
    assert fn.Resize(factor=(0.5, 1.5))({}, x).shape == (1, 2, 7, 2)
    close(fn.Resize(8, method="bilinear")({}, x), fn.resize(x, shape=8, method="bilinear"))
    for options in ({"antialias": True}, {"align_corners": True}):
        given = {"shape": 3, "method": "cubic", **options}
        close(fn.Resize(**given)({}, x), fn.resize(x, **given))


def test_pad_leaves_batch_and_channels():
    x = draw(1, 4, 5, 2)
    close(fn.Pad(1, value=2.0)({}, x)[:, 1:-1, 1:-1], x)
    close(fn.Pad(1, value=2.0)({}, x)[:, 0], np.full((1, 7, 2), 2.0))
    y = fn.Pad([1, (2, -1)], mode="edge")({}, x)
    close(y, np.pad(x[:, :, :-1], ((0, 0), (1, 1), (2, 0), (0, 0)), "edge"))


def test_drop_path_drops_whole_examples(key):
    x, net = 1 + abs(draw(400, 2, 3)), fn.DropPath(0.25)
    assert net({}, x) is x
    y = np.asarray(net.apply({}, {}, x, train=True, key=key)[0])
    dropped = (y == 0).all((1, 2))
    assert 0.18 < dropped.mean() < 0.32
    close(y[~dropped], x[~dropped] / 0.75)


def test_einsum_draws_by_what_it_sums_over(key):
    x = jax.ShapeDtypeStruct((2, 8, 20), "float32")
    for equation, inputs in (("bhk,hkd->bd", 160), ("bgi,gio->bgo", 20)):
        params, _ = fn.Einsum(equation, (None, None, 90)).init(key, x)
        assert params["w"].shape == (8, 20, 90)
        assert abs(np.asarray(params["w"]).std() * inputs**0.5 - 1) < 0.03


def test_einsum_adds_its_bias_along_its_axes(key):
    x = draw(2, 3, 4).astype("float32")
    net = fn.Einsum("btd,dhk->bhtk", (None, 2, 3), bias_axes="kh")
    params = moved(net, key, x)
    y = np.einsum("btd,dhk->bhtk", x, params["w"]) + np.asarray(params["b"])[:, None]
    assert params["b"].shape == (2, 3)
    close(net(params, x), y)


def test_glue(key):
    x = draw(2, 6).astype("float32")
    assert fn.Identity()({}, x) is x
    assert fn.Reshape(-1, 2)({}, x).tolist() == x.reshape(2, 3, 2).tolist()
    assert fn.Reshape(2, -1)({}, jnp.zeros((0, 6))).shape == (0, 2, 3)
    scale, bias, slopes = fn.Scale(), fn.Bias(), fn.PReLU()
    close(scale(params := moved(scale, key, x), x), x * np.asarray(params["scale"]))
    close(bias(params := moved(bias, key, x), x), x + np.asarray(params["b"]))
    params = moved(slopes, key, x)
    close(slopes(params, x), np.where(x > 0, x, x * np.asarray(params["slope"])))
    one, _ = fn.PReLU(shared=True).init(key, x)
    assert float(one["slope"]) == 0.25


def test_learned_positions_start_at_the_offset(key):
    net, x = fn.LearnedPositions(7), draw(2, 3, 4).astype("float32")
    params = moved(net, key, x)
    table = np.asarray(params["table"])
    assert table.shape == (7, 4)
    close(net(params, x), x + table[:3])
    close(net(params, x, 4), x + table[4:7])
    close(jax.jit(net)(params, x, 2), x + table[2:5])
    close(net(params, x, jnp.array([0, 4])), x + np.stack([table[:3], table[4:7]]))
    gradient = jax.grad(lambda p: net(p, x, jnp.array(1)).sum())(params)["table"]
    close(gradient.sum(1), [0, 8, 8, 8, 0, 0, 0])


@pytest.mark.parametrize("width", [4, 5])
def test_sinusoidal_positions_are_waves(width):
    x, expected = draw(2, 3, width), np.zeros((6, width))
    for p, c in np.ndindex(6, width):
        angle = p / 10000 ** (2 * (c // 2) / width)
        expected[p, c] = np.cos(angle) if c % 2 else np.sin(angle)
    net = fn.SinusoidalPositions()
    close(net({}, x), x + expected[:3])
    close(net({}, x, 3), x + expected[3:])
    close(net({}, x, jnp.array([1, 2])), x + np.stack([expected[1:4], expected[2:5]]))


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0), (2, 0, 4)])
@pytest.mark.parametrize("net", [fn.LearnedPositions(7), fn.SinusoidalPositions()])
def test_positions_of_nothing_are_nothing(net, shape, key):
    x = jnp.zeros(shape)
    params, _ = net.init(key, x)
    for offset in (0, jnp.array(1), jnp.ones(shape[0], int)):
        assert net(params, x, offset).shape == shape
        gradients = jax.grad(lambda p, o=offset: net(p, x, o).sum())(params)
        assert not any(leaf.any() for leaf in jax.tree.leaves(gradients))


def test_time_embedding_is_cosines_then_sines():
    t, expected = np.array([0.0, 0.5, 700.0]), np.zeros((3, 6))
    for row, i in np.ndindex(3, 3):
        angle = t[row] / 10000 ** (i / 3)
        expected[row, i], expected[row, 3 + i] = np.cos(angle), np.sin(angle)
    close(fn.TimeEmbedding(6)({}, t), expected, 1e-4)
    whole = fn.TimeEmbedding(6)({}, jnp.array([0, 700]))
    assert whole.dtype == jnp.float32
    close(whole, expected[[0, 2]], 1e-4)


def test_group_and_instance_norm_of_no_channels():
    for norm in (lambda x: fn.group_norm(x, groups=1), fn.instance_norm):
        x = jnp.ones((2, 3, 0))
        assert jax.grad(lambda x, norm=norm: norm(x).sum())(x).shape == norm(x).shape == x.shape
