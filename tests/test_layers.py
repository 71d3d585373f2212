"""The values of each layer, initialiser and network, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet import initializers

from .cases import LAYERS


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def close(a, b, tolerance=1e-5):
    np.testing.assert_allclose(a, b, tolerance, tolerance)


def drawn(net, key, *inputs):
    """Parameters from `init`, moved a little so that none is 0 or 1."""
    params, _ = net.init(key, *inputs)
    return jax.tree.map(lambda p: p + 0.1 * draw(*p.shape, seed=p.size), params)


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


# Layers


TWO = np.int64(2)
WHOLE_NUMBERS = {
    "dense": (fn.Dense, (TWO,), {}, (3, 4)),
    "conv": (
        fn.Conv,
        (np.int32(4), TWO),
        {"stride": TWO, "padding": np.int8(1), "dilation": TWO, "groups": TWO},
        (1, 5, 6, 2),
    ),
    "max pool": (fn.MaxPool, (TWO, np.int64(1), np.int64(1)), {}, (1, 5, 6, 2)),
    "attention": (
        fn.Attention,
        (np.int64(4),),
        {"kv_heads": TWO, "width": np.int64(8), "causal": True, "chunk": TWO, "cache": np.int64(6)},
        (2, 5, 3),
    ),
    "lstm": (fn.LSTM, (TWO,), {"return_final": True}, (2, 5, 3)),
}


@pytest.mark.parametrize("name", WHOLE_NUMBERS)
def test_a_whole_number_of_numpy_is_one(name, key):
    build, args, options, shape = WHOLE_NUMBERS[name]
    x = jax.ShapeDtypeStruct(shape, "float32")

    def plain(value):
        return value.item() if isinstance(value, np.integer) else value

    def results(net):
        whole = jax.eval_shape(lambda x: net.apply(*net.init(key, x), x), x)
        return jax.eval_shape(net.init, key, x), whole

    expected = build(*map(plain, args), **{name: plain(v) for name, v in options.items()})
    assert results(build(*args, **options)) == results(expected)


@pytest.mark.parametrize("bias", [True, False])
def test_dense(key, bias):
    net, x = fn.Dense(4, bias=bias), draw(2, 5, 3)
    params = drawn(net, key, x)
    assert shapes(params) == {"w": (3, 4)} | ({"b": (4,)} if bias else {})
    close(net(params, x), np.einsum("nti,io->nto", x, params["w"]) + params.get("b", 0))


def test_embed(key):
    net, ids = fn.Embed(5, 3), jnp.array([[1, 4, 0], [2, 2, 3]])
    params, _ = net.init(key, ids)
    assert params["table"].shape == (5, 3)
    assert params["table"].dtype == jnp.float32
    rows = np.eye(5)[np.asarray(ids)] @ np.asarray(params["table"])
    close(net(params, ids), rows)


def test_conv_sums_each_window_and_passes_its_options_on(key):
    x = draw(2, 6, 5, 4)
    net = fn.Conv(6, 3, stride=2, padding=1, groups=2)
    params = drawn(net, key, x)
    assert shapes(params) == {"w": (3, 3, 2, 6), "b": (6,)}
    padded, y = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), np.zeros((2, 3, 3, 6))
    for g, i, j in np.ndindex(2, 3, 3):
        seen = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3, 2 * g : 2 * g + 2]
        kernel = params["w"][..., 3 * g : 3 * g + 3]
        y[:, i, j, 3 * g : 3 * g + 3] = np.einsum("nijc,ijco->no", seen, kernel)
    close(net(params, x), y + params["b"])


def test_conv_over_one_axis_is_dilated_and_causal(key):
    net, x = fn.Conv(2, (2,), padding="CAUSAL", dilation=3, bias=False), draw(2, 7, 3)
    params = drawn(net, key, x)
    assert shapes(params) == {"w": (2, 3, 2)}
    before = np.pad(x, ((0, 0), (3, 0), (0, 0)))[:, :7]
    close(net(params, x), before @ params["w"][0] + x @ params["w"][1])


def test_pools():
    x = draw(2, 6, 4, 3)
    tiles = x.reshape(2, 3, 2, 2, 2, 3)
    close(fn.MaxPool(2)({}, x), tiles.max((2, 4)))
    close(fn.AvgPool(2)({}, x), tiles.mean((2, 4)))
    close(fn.GlobalPool()({}, x), x.mean((1, 2)))
    close(fn.GlobalPool("max")({}, x), x.max((1, 2)))
    line = jnp.array([1.0, 5.0, 3.0])[None, :, None]
    around = {"window": 3, "stride": 1, "padding": 1}
    assert fn.MaxPool(**around)({}, -line).ravel().tolist() == [-1, -1, -3]
    assert fn.AvgPool(**around)({}, line).ravel().tolist() == [3, 3, 4]
    counted = fn.AvgPool(**around, count_include_pad=True)({}, line)
    close(counted.ravel(), [2, 3, 8 / 3])


def test_flatten_runs_through_height_then_width_then_channel():
    x = np.arange(2 * 2 * 3 * 4).reshape(2, 2, 3, 4)
    y = np.asarray(fn.Flatten()({}, x))
    for n, h, w, c in np.ndindex(x.shape):
        assert y[n, (h * 3 + w) * 4 + c] == x[n, h, w, c]
    assert fn.Flatten()({}, jnp.ones(3)).shape == (3, 1)
    assert fn.Flatten()({}, jnp.ones((0, 2, 3))).shape == (0, 6)


@pytest.mark.parametrize("unbiased", [False, True])
def test_batch_norm_trains_on_the_batch_and_evaluates_on_the_running_averages(key, unbiased):
    net = fn.BatchNorm(decay=0.7, eps=0.01, unbiased_running_var=unbiased)
    x = 3 + 2 * draw(2, 3, 1, 4)
    params, (_, state) = drawn(net, key, x), net.init(key, x)
    mean, var = np.zeros(4), np.ones(4)
    assert sorted(params) == ["scale", "shift"]
    for name, expected in (("mean", mean), ("var", var)):
        assert (state[name] == expected).all()
    for step in range(3):
        batch = x + step
        y, state = net.apply(params, state, batch, train=True)
        batch_mean, batch_var = batch.mean((0, 1, 2)), batch.var((0, 1, 2))
        by_hand = (batch - batch_mean) / np.sqrt(batch_var + 0.01)
        close(y, by_hand * params["scale"] + params["shift"])
        mean = 0.7 * mean + 0.3 * batch_mean
        var = 0.7 * var + 0.3 * batch.var((0, 1, 2), ddof=int(unbiased))
        close(state["mean"], mean)
        close(state["var"], var)
    y, after = net.apply(params, state, x)
    close(y, (x - mean) / np.sqrt(var + 0.01) * params["scale"] + params["shift"])
    assert all((after[name] == state[name]).all() for name in state)


def test_batch_norm_without_scale_or_shift(key):
    x = draw(6, 2)
    unit = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    for options in ({"scale": False}, {"shift": False}, {"scale": False, "shift": False}):
        net = fn.BatchNorm(**options)
        params, state = net.init(key, x)
        assert params.keys() == {"scale", "shift"} - options.keys()
        params = {name: jnp.full(2, 3.0) for name in params}
        y, _ = net.apply(params, state, x, train=True)
        close(y, unit * (3 if "scale" in params else 1) + (3 if "shift" in params else 0))


def test_batch_norm_keeps_its_statistics_out_of_the_gradient(key):
    net, x = fn.BatchNorm(), draw(4, 2)
    params, state = net.init(key, x)

    def through(name):
        return jax.grad(lambda x: net.apply(params, state, x, train=True)[1][name].sum())(x)

    assert not through("mean").any()
    assert not through("var").any()


def test_batch_norm_refuses_one_value_for_each_channel(key):
    net = fn.BatchNorm()
    params, state = net.init(key, jnp.ones((1, 3)))
    for x in (jnp.ones((1, 3)), jnp.ones((1, 1, 1, 3))):
        with pytest.raises(ValueError, match=r"^batch_norm: expected more than one value for each"):
            net.apply(params, state, x, train=True)
        assert net.apply(params, state, x)[0].shape == x.shape
    with pytest.raises(ValueError, match=r"^batch_norm: expected a decay from 0 to 1, got 1\.5\."):
        fn.BatchNorm(decay=1.5)


def test_dropout_drops_in_training_alone(key):
    x = 1 + abs(draw(40, 30))
    net = fn.Dropout(0.25)
    assert net.init(key, x) == ({}, {})
    assert net({}, x) is x
    assert fn.Dropout(0.0).apply({}, {}, x, train=True)[0] is x
    y = np.asarray(net.apply({}, {}, x, train=True, key=key)[0])
    close(y[y != 0], x[y != 0] / 0.75)
    assert 0.2 < (y == 0).mean() < 0.3
    columns, _ = fn.Dropout(0.25, broadcast_dims=(0,)).apply({}, {}, x, train=True, key=key)
    assert set((np.asarray(columns) == 0).mean(0)) == {0.0, 1.0}


# Networks


def test_mlp_is_its_formula(key):
    x = draw(5, 3)
    net = fn.nets.MLP((4, 6, 2), activation=fn.tanh, output=fn.sigmoid)
    params = drawn(net, key, x)
    assert [params[name]["w"].shape for name in ("dense", "dense_1", "dense_2")] == [
        (3, 4),
        (4, 6),
        (6, 2),
    ]
    a = x
    for name in ("dense", "dense_1"):
        a = np.tanh(a @ params[name]["w"] + params[name]["b"])
    z = a @ params["dense_2"]["w"] + params["dense_2"]["b"]
    close(net(params, x), 1 / (1 + np.exp(-z)))
    close(fn.nets.MLP((4, 6, 2), activation=fn.tanh)(params, x), z)
    alone = fn.nets.MLP((2,))
    close(alone({"dense": params["dense_2"]}, a), z)


def test_mlp_drops_hidden_units_and_no_outputs(key):
    x, net = draw(20, 8), fn.nets.MLP((8, 8, 8), activation=lambda x: x, drop=0.5)
    one = {"w": jnp.eye(8), "b": jnp.zeros(8)}
    params = {"dense": one, "dense_1": one, "dense_2": one}
    close(net(params, x), x)
    y = np.asarray(net.apply(params, {}, x, train=True, key=key)[0])
    close(y[y != 0], 4 * x[y != 0])  # a unit passes through two layers of dropout
    assert 0.65 < (y == 0).mean() < 0.85
    shifted = params | {"dense_2": one | {"b": jnp.ones(8)}}
    close(net.apply(shifted, {}, x, train=True, key=key)[0], y + 1)


@pytest.mark.parametrize(("size", "rows"), [(28, 16 * 5 * 5), (32, 16 * 6 * 6)])
def test_lenet_has_the_shapes_of_the_slides(size, rows):
    image = jax.ShapeDtypeStruct((1, size, size, 1), "float32")
    params, state = jax.eval_shape(fn.nets.LeNet(10).init, jax.random.key(0), image)
    assert state == {}
    assert shapes(params) == {
        "conv": {"w": (3, 3, 1, 6), "b": (6,)},
        "conv_1": {"w": (3, 3, 6, 16), "b": (16,)},
        "dense": {"w": (rows, 120), "b": (120,)},
        "dense_1": {"w": (120, 84), "b": (84,)},
        "dense_2": {"w": (84, 10), "b": (10,)},
    }


# Initialisers


@pytest.mark.parametrize("shape", [(400, 300), (5, 5, 16, 300)])
def test_lecun_normal_has_the_variance_one_over_fan_in(key, shape):
    w = np.asarray(initializers.lecun_normal()(key, shape, jnp.float32))
    fan_in = np.prod(shape[:-1])
    assert abs(w.var() * fan_in - 1) < 0.02
    assert abs(w.mean()) < 5 / np.sqrt(fan_in * w.size)


@pytest.mark.parametrize("shape", [(400, 30), (5, 5, 16, 30)])
def test_torch_linear_is_uniform_up_to_one_over_the_root_of_fan_in(key, shape):
    bound = 1 / np.sqrt(400)
    init = initializers.torch_linear
    for x in (init()(key, shape, jnp.float32), init(400)(key, (10_000,), jnp.float32)):
        x = np.asarray(x) / bound
        assert 0.99 < abs(x).max() <= 1
        assert abs((x**2).mean() - 1 / 3) < 0.02
        assert abs(x.mean()) < 0.03
    layer = fn.Dense(3, w_init=init(), b_init=init(4))
    params, _ = layer.init(key, jnp.ones((1, 4)))
    assert abs(params["b"]).max() <= 0.5
    assert (params["b"] != params["w"][0]).all()  # each has its own key
    with pytest.raises(ValueError, match=r"^torch_linear: expected fan_in for a bias, got shape"):
        init()(key, (3,))


def test_scaled_and_orthogonal(key):
    plain, halved = initializers.he_normal(), initializers.scaled(initializers.he_normal(), 0.5)
    np.testing.assert_array_equal(halved(key, (4, 3)), 0.5 * plain(key, (4, 3)))
    assert halved(key, (4, 3), jnp.bfloat16).dtype == jnp.bfloat16
    assert not initializers.scaled(plain, 0)(key, (4, 3)).any()
    w = initializers.orthogonal()(key, (6, 4), jnp.float32)
    close(w.T @ w, np.eye(4))


def test_layers_draw_with_the_initialisers_they_are_given(key):
    def sevens(key, shape, dtype):
        return jnp.full(shape, 7, dtype)

    with_both = {"w_init": sevens, "b_init": sevens}
    x = jnp.ones((1, 4, 4, 2))
    nets = (fn.Dense(3, **with_both), fn.Conv(3, 2, **with_both), fn.nets.MLP((2,), w_init=sevens))
    for net in (*nets, fn.Embed(3, 2, init=sevens)):
        params, _ = net.init(key, x)
        last = params.get("dense", params)
        assert all(
            (leaf == (0 if net.name == "mlp" and name == "b" else 7)).all()
            for name, leaf in last.items()
        )


@pytest.mark.long
def test_reinit_touches_the_matching_paths_alone(key):
    net, x = fn.serial(fn.Dense(4), fn.nets.MLP((4, 4)), head=fn.Dense(4)), jnp.ones((1, 4))
    old_key, new_key = jax.random.split(key)
    (old, _), (fresh, _) = net.init(old_key, x), net.init(new_key, x)
    for pattern, chosen in (
        ("head/*", {("head", "w"), ("head", "b")}),
        ("*/w", {("dense", "w"), ("mlp", "dense", "w"), ("mlp", "dense_1", "w"), ("head", "w")}),
        ("mlp/dense/w", {("mlp", "dense", "w")}),
    ):
        new = initializers.reinit(net, old, pattern, new_key, x)
        assert jax.tree.structure(new) == jax.tree.structure(old)
        leaves = zip(
            jax.tree_util.tree_leaves_with_path(new),
            *map(jax.tree.leaves, (old, fresh)),
            strict=True,
        )
        for (path, leaf), before, drawn_anew in leaves:
            names = tuple(entry.key for entry in path)
            assert (leaf == (drawn_anew if names in chosen else before)).all()
    with pytest.raises(ValueError, match=r"^mask: expected a pattern that matches one of dense/b"):
        initializers.reinit(net, old, "tail/*", key, x)


# Dtypes


@pytest.mark.long
@pytest.mark.parametrize(
    "dtype",
    ["bfloat16", "float16", "float32"],
)
def test_parameters_take_the_dtype_of_the_input(dtype, key):
    for name, row in LAYERS.items():
        if not jnp.issubdtype(row.inputs[0].dtype, jnp.floating):
            continue
        inputs = [
            jax.ShapeDtypeStruct(
                x.shape, dtype if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype
            )
            for x in row.inputs
        ]
        params, state = jax.eval_shape(row.layer.init, key, *inputs)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} <= {jnp.dtype(dtype)}, name
        averages = [leaf.dtype for leaf in jax.tree.leaves(state) if leaf.dtype != jnp.int32]
        assert set(averages) <= {jnp.dtype("float32"), jnp.dtype(dtype)}, name
        y, after = jax.eval_shape(
            lambda *a, net=row.layer: net.apply(*a[:2], *a[3:], train=True, key=a[2]),
            params, state, key, *inputs,
        )  # fmt: skip
        numbers = [leaf.dtype for leaf in jax.tree.leaves(y) if leaf.dtype != jnp.int32]
        assert set(numbers) == {jnp.dtype(dtype)}, name
        assert jax.tree.map(lambda s: (s.shape, s.dtype), after) == jax.tree.map(
            lambda s: (s.shape, s.dtype), state
        ), name


def test_integer_inputs_give_float32_parameters(key):
    for net in (fn.Dense(3), fn.Conv(2, 1), fn.BatchNorm(), fn.Embed(3, 2)):
        x = jax.ShapeDtypeStruct((2, 4, 4, 2), "int32")
        params, _ = jax.eval_shape(net.init, key, x)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
