"""The protocol and its combinators: every layer of the table, then what each of them promises."""

import copy
import functools
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnet as fn
from funcnet.jaxpr.jaxprs import shape_struct
from funcnet.rules.prove import cast

from .cases import LAYERS, ROWS
from .conftest import Compiled

KEY = jax.random.key(0, impl="rbg")
NETS = {"bert", "char rnn", "ddpm", "encoder decoder", "gpt", "resnet", "unet", "vae", "vit"}
"""Whole networks take long to compile: some properties are left to the layers they are made of."""
LARGE = {"bidirectional", "decoder block", "lenet", "mlp", "selective ssm", "transformer block"}
USUAL = [name for name in LAYERS if name not in NETS | LARGE and ", " not in name]
"""What the usual form looks at: a layer with other options is much like the layer."""
every_layer_and_net = pytest.mark.parametrize("name", LAYERS)
every_layer = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow, pytest.mark.long] * (name not in USUAL))
        for name in LAYERS
    ],
)


def built(name, key):
    layer, inputs, _ = LAYERS[name]
    return (layer, inputs, *initial(name))


@functools.cache
def initial(name):
    layer, inputs, _ = LAYERS[name]
    return jax.jit(layer.init)(KEY, *inputs)


class Computed(NamedTuple):
    """What a layer gives in one compiled program, with the same parameters, inputs and key.

    Attributes:
        trained: Output and state of training; `keyless` too, of a layer that needs no key.
        by_hand: The gradient of the sum of the output's squares; `derived` is JAX's own.
    """

    trained: Any
    keyless: Any
    by_hand: Any
    derived: Any


@functools.cache
def computed(name):
    layer, inputs, needs_key = LAYERS[name]

    @jax.jit
    def program(key, params, state, x, *rest):
        def train(params, x, key=key):
            return layer.apply(params, state, x, *rest, train=True, key=key)

        def loss(params):
            return sum((leaf**2).sum() for leaf in jax.tree.leaves(train(params, x)[0]))

        return Computed(
            trained=train(params, x),
            keyless=None if needs_key else train(params, x, None),
            by_hand=jax.grad(loss)(params),
            derived=jax.grad(fn.autodiff(loss))(params),
        )

    return jax.device_get(program(KEY, *initial(name), *inputs))


def assert_same(a, b, **tolerance):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **(tolerance or {"rtol": 1e-6, "atol": 1e-6}))


@every_layer
def test_parameters_are_nested_dicts_of_arrays(name, key):
    _, _, params, state = built(name, key)

    def check(tree):
        assert type(tree) is dict
        for value in tree.values():
            if isinstance(value, dict):
                assert value, "a child that has none has no entry"
                check(value)
            else:
                assert isinstance(value, jax.Array)

    check(params)
    check(state)


@every_layer
def test_init_under_eval_shape_and_jit(name, key):
    layer, inputs, params, state = built(name, key)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs]
    abstract = jax.eval_shape(layer.init, key, *shapes)
    assert jax.tree.map(lambda x: x.shape, abstract) == jax.tree.map(jnp.shape, (params, state))


@pytest.mark.slow
@pytest.mark.long
@every_layer
def test_init_without_jit_and_from_shapes_is_the_same(name, key):
    layer, inputs, params, state = built(name, key)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in inputs]
    for given in (inputs, shapes):
        assert_same(layer.init(key, *given), (params, state))


@pytest.mark.slow
@pytest.mark.long
@every_layer
def test_apply_is_pure_and_keeps_the_state_structure(name, key):
    layer, inputs, params, state = built(name, key)
    before = jax.tree.map(np.array, (params, state))
    first = layer.apply(params, state, *inputs, train=True, key=key)
    assert_same(first, computed(name).trained, rtol=1e-5, atol=1e-5)
    assert_same((params, state), before, rtol=0, atol=0)
    assert jax.tree.structure(first[1]) == jax.tree.structure(state)


@every_layer
def test_evaluation_needs_no_key_and_is_deterministic(name, key):
    layer, inputs, params, state = built(name, key)
    apply = jax.jit(layer.apply)
    output, after = apply(params, state, *inputs)
    assert_same(apply(params, state, *inputs), (output, after), rtol=0, atol=0)
    assert_same(after, state, rtol=0, atol=0)


@every_layer
def test_training_without_a_key_is_one_sentence(name, key):
    layer, inputs, needs_key = LAYERS[name]
    params, state = jax.eval_shape(layer.init, key, *inputs)
    train = partial(layer.apply, train=True)
    if needs_key:
        with pytest.raises(
            ValueError,
            match=r"^(dropout|drop_path|vae|ddpm): expected a random key in training, got "
            r"key=None\. Call net\.apply\(params, state, x, train=True, "
            r"key=jax\.random\.key\(0\)\), with another key for each step\.",
        ):
            jax.eval_shape(train, params, state, *inputs)
    else:
        jax.eval_shape(train, params, state, *inputs)


@every_layer
def test_a_key_changes_nothing_where_none_is_needed(name):
    if not LAYERS[name].needs_key:
        assert_same(computed(name).keyless, computed(name).trained)


@every_layer
def test_gradient_equals_that_of_the_primals(name):
    assert_same(computed(name).by_hand, computed(name).derived, rtol=2e-4, atol=2e-4)


@pytest.mark.slow
@pytest.mark.long
@every_layer
def test_under_vmap_scan_and_remat(name, key):
    layer, (x, *rest), params, state = built(name, key)

    @jax.jit
    def program(key, params, state, x, *rest):
        def run(x):
            return layer.apply(params, state, x, *rest, train=True, key=key)[0]

        twice = jnp.stack([x, x])
        scanned = jax.lax.scan(lambda c, x: (c, jax.checkpoint(run)(x)), None, twice)[1]
        return jax.vmap(run)(twice), scanned

    expected, _ = computed(name).trained
    for stacked in program(KEY, params, state, x, *rest):
        assert_same(jax.tree.map(lambda y: y[1], stacked), expected, rtol=1e-5, atol=1e-5)


def member(tree, i):
    return jax.tree.map(lambda leaf: leaf[i], tree)


@pytest.mark.slow
@pytest.mark.long
@every_layer
def test_each_member_of_an_ensemble_is_the_layer(name, key):
    layer, inputs, _, _ = built(name, key)
    many = fn.ensemble(layer, 2)
    params, state = many.init(key, *inputs)
    outputs, _ = jax.jit(many.apply)(params, state, *inputs)
    single = jax.jit(layer.apply)
    for i in range(2):
        expected, _ = single(member(params, i), member(state, i), *inputs)
        assert_same(member(outputs, i), expected, rtol=1e-5, atol=1e-5)


CHANGES_KIND = {
    "bert", "encoder decoder",
    "adaptive pool", "attention pool", "avg pool", "char rnn", "class token", "conv",
    "conv 1-d, causal",
    "conv in groups", "conv transpose", "ddpm", "dense", "dense without bias", "einsum", "embed",
    "ensemble",
    "flatten", "global average", "global maximum", "gpt", "gru", "gru, reset before", "lenet",
    "lp pool", "lstm", "lstm, projected", "max pool", "max pool with indices", "max unpool", "mlp",
    "pad", "parallel", "pixel shuffle", "reshape", "resize", "resnet", "rnn", "serial",
    "time embedding", "vae", "vit",
}  # fmt: skip
"""What cannot be repeated, since its output is of another shape or dtype than its input."""


@pytest.mark.slow
@pytest.mark.long
def test_what_cannot_be_repeated_changes_its_input(key):
    def changes(layer, inputs):
        output = jax.eval_shape(lambda *xs: layer.apply(*layer.init(key, *xs), *xs)[0], *inputs)
        return jax.tree.map(shape_struct, output) != shape_struct(inputs[0])

    changing = {name for name, (layer, inputs, _) in LAYERS.items() if changes(layer, inputs)}
    assert changing == CHANGES_KIND


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in LAYERS if name not in CHANGES_KIND])
def test_repeated_it_is_applied_again_and_again(name, key):
    layer, (x, *rest), _ = LAYERS[name]
    twice = fn.repeat(layer, 2)
    params, state = twice.init(key, x, *rest)
    output, _ = jax.jit(twice.apply)(params, state, x, *rest)
    once = jax.jit(layer.apply)
    for i in range(2):
        x, _ = once(member(params, i), member(state, i), x, *rest)
    assert_same(output, x, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.long
@every_layer_and_net
def test_gradient_of_the_gradient_equals_that_of_the_primals(name, key, x64):
    layer, *arrays = built(name, key)
    inputs, params, state = cast(arrays, "float64")
    whole = [i for i, x in enumerate(inputs) if not jnp.issubdtype(x.dtype, jnp.floating)]
    floats = [x for i, x in enumerate(inputs) if i not in whole]

    def squared_gradient(moved, wrap):
        def loss(params, floats):
            given = iter(floats)
            filled = [x if i in whole else next(given) for i, x in enumerate(inputs)]
            output, _ = layer.apply(params, state, *filled, train=True, key=key)
            return sum((leaf**2).sum() for leaf in jax.tree.leaves(output))

        gradients = jax.grad(wrap(loss), (0, 1))(*moved)
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(gradients))

    by_hand, derived = (
        jax.jit(jax.grad(partial(squared_gradient, wrap=wrap)))((params, floats))
        for wrap in (lambda loss: loss, fn.autodiff)
    )
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(derived))
    assert_same(by_hand, derived, rtol=0, atol=1e-9 * largest)


@every_layer
def test_summary_adds_up(name, key):
    layer, inputs, params, _ = built(name, key)
    summary = layer.summary(*inputs)
    assert summary.total.parameters == sum(leaf.size for leaf in jax.tree.leaves(params))
    assert summary.total.bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert "total" in str(summary)


@every_layer
def test_any_optax_optimizer_takes_the_parameters(name, key):
    _, _, params, _ = built(name, key)
    optimizer = optax.adamw(1e-3)
    state = jax.eval_shape(optimizer.init, params)
    updates, _ = jax.eval_shape(optimizer.update, params, state, params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)


def test_jax_takes_a_network_as_a_function(key):
    net = fn.serial(fn.Dense(4), fn.relu)
    params, _ = net.init(key, ROWS)
    expected = net(params, ROWS)
    assert_same(jax.jit(net)(params, ROWS), expected)
    assert_same(jax.vmap(net, in_axes=(None, 0))(params, ROWS), expected)
    assert_same(jax.checkpoint(net)(params, ROWS), expected)


def test_summary_text():
    net = fn.serial(fn.Dense(4), fn.relu, inner=fn.serial(fn.Dense(2)))
    assert str(net.summary(jax.ShapeDtypeStruct((5, 3), "float32"))).splitlines() == [
        "layer        output        parameters   size",
        "-----------  ------------  ----------  -----",
        "dense        float32[5,4]          16   64 B",
        "relu         float32[5,4]           0    0 B",
        "inner        float32[5,2]          10   40 B",
        "inner/dense  float32[5,2]          10   40 B",
        "total        float32[5,2]          26  104 B",
    ]


def test_summary_allocates_nothing():
    huge = fn.serial(fn.Dense(1_000_000), fn.Dense(1_000_000))
    assert huge.summary(jax.ShapeDtypeStruct((1, 1_000_000), "float32")).total.bytes > 8e12


def test_a_child_called_twice_shares_its_parameters_and_gradients_add(key):
    @fn.network(up=fn.Dense(6))
    def twice(net, x):
        return net.up(net.up(x))

    params, _ = twice.init(key, ROWS)
    w, b = params["up"]["w"], params["up"]["b"]
    np.testing.assert_allclose(twice(params, ROWS), (ROWS @ w + b) @ w + b, rtol=1e-5, atol=1e-5)

    def apart(first, second):
        return jnp.sum(((ROWS @ first + b) @ second + b) ** 2)

    first, second = jax.grad(apart, argnums=(0, 1))(w, w)
    shared = jax.grad(lambda p: (twice(p, ROWS) ** 2).sum())(params)["up"]["w"]
    np.testing.assert_allclose(shared, first + second, rtol=1e-4)


def test_a_tied_head_reads_the_parameters(key):
    @fn.network(tok=fn.Embed(5, 6), mix=fn.Dense(6))
    def tied(net, ids):
        return net.mix(net.tok(ids)) @ net.params["tok"]["table"].T

    ids = jnp.array([0, 3])
    params, _ = tied.init(key, ids)
    assert set(params) == {"tok", "mix"}
    assert tied(params, ids).shape == (2, 5)


def test_adding_a_child_does_not_change_the_others(key):
    def initial(net):
        return jax.jit(net.init)(key, ROWS)

    small, _ = initial(fn.serial(fn.Dense(4), fn.Dense(2)))
    for larger in (
        fn.serial(fn.Dense(4), fn.relu, fn.Dense(2)),
        fn.serial(fn.Dense(4), fn.BatchNorm(), fn.Dropout(0.5), fn.Dense(2), extra=fn.Dense(2)),
    ):
        params, _ = initial(larger)
        assert_same({name: params[name] for name in small}, small, rtol=0, atol=0)
    deeper, _ = initial(fn.repeat(fn.Dense(6), 5))
    shallow, _ = initial(fn.repeat(fn.Dense(6), 3))
    assert_same(jax.tree.map(lambda leaf: leaf[:3], deeper), shallow, rtol=0, atol=0)


def test_no_two_children_get_one_name(key):
    def train(x):
        return x + 1

    odd = fn.pure(lambda x: 2 * x, "dense_1")
    net = fn.serial(fn.Dense(3), fn.Dense(3), odd, fn.Dense(3), train)
    params, _ = net.init(key, ROWS)
    assert list(params) == ["dense", "dense_1", "dense_2"]
    assert net(params, ROWS).shape == (5, 3)


def test_a_child_called_in_training_alone_has_parameters(key):
    @fn.network(main=fn.Dense(2), aside=fn.Dense(2))
    def net(net, x):
        return net.main(x) + net.aside(x) if net.train else net.main(x)

    params, state = net.init(key, ROWS)
    assert set(params) == {"main", "aside"}
    trained, _ = net.apply(params, state, ROWS, train=True)
    assert_same(trained, net(params, ROWS) + ROWS @ params["aside"]["w"] + params["aside"]["b"])


def frozen(train=False):
    """A body with running averages and draws that keeps to a mode, and a head that does not."""

    @fn.network(body=fn.serial(fn.Dense(6), fn.BatchNorm(), fn.Dropout(0.5)), head=fn.BatchNorm())
    def net(net, x):
        return net.head(net.body(x, train=train))

    return net


def test_a_child_runs_in_a_mode_of_its_own(key):
    x, net = jax.random.normal(key, (8, 6)), frozen()
    params, state = net.init(key, x)
    state = fn.tree.update(state, "*/mean", 1.0)
    body = fn.serial(fn.Dense(6), fn.BatchNorm(), fn.Dropout(0.5))
    inner, _ = body.apply(params["body"], state["body"], x)
    outer, after = fn.BatchNorm().apply(params["head"], state["head"], inner, train=True)
    y, new = net.apply(params, state, x, train=True, key=key)
    np.testing.assert_allclose(y, outer, atol=1e-6)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, new["body"], state["body"]))
    assert jax.tree.all(jax.tree.map(jnp.allclose, new["head"], after))
    net.apply(params, state, x, train=True)  # nothing draws
    grads = jax.grad(lambda p: (net.apply(p, state, x, train=True)[0] ** 3).sum())(params)
    assert grads["body"]["dense"]["w"].any()


def test_a_child_in_training_draws_while_the_rest_is_evaluated(key):
    x, net = jax.random.normal(key, (8, 6)), frozen(train=True)
    params, state = net.init(key, x)
    draws = [net.apply(params, state, x, key=jax.random.fold_in(key, i))[0] for i in range(2)]
    assert not jnp.allclose(*draws)
    with pytest.raises(ValueError, match="a random key in training"):
        net.apply(params, state, x)
    same, _ = frozen(train=None).apply(params, state, x)
    assert jnp.array_equal(same, frozen(train=False).apply(params, state, x)[0])


WRAPPED = {
    "repeat": lambda net: fn.repeat(net, 2),
    "ensemble": lambda net: fn.ensemble(net, 2),
    "remat": fn.remat,
    "residual": fn.residual,
    "serial": lambda net: fn.serial(net, inner=net),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.long] * (n != "remat")) for n in WRAPPED]
)
def test_a_mode_of_its_own_inside_combinators(key, name):
    x, net = jax.random.normal(key, (8, 6)), WRAPPED[name](frozen())
    params, state = net.init(key, x)
    _, new = jax.jit(lambda p, s: net.apply(p, s, x, train=True, key=key))(params, state)
    before, after = fn.tree.flatten(state), fn.tree.flatten(new)
    kept = [jnp.array_equal(leaf, after[path]) for path, leaf in before.items() if "body" in path]
    moved = [jnp.array_equal(leaf, after[path]) for path, leaf in before.items() if "head" in path]
    assert len(kept) == len(moved) > 0
    assert all(kept)
    assert not any(moved)


def test_a_mode_is_a_plain_bool():
    x = jnp.ones((8, 6))
    for mode in (1, "no", jnp.array(True)):
        with pytest.raises(TypeError, match="serial: expected train to be True or False, got"):
            frozen(mode).apply({}, {}, x)


def test_a_deeper_network_draws_its_parameters_with_the_same_programs(key):
    def compiled(depth):
        before = Compiled.number
        net = fn.serial(*(fn.serial(fn.Dense(23), fn.LayerNorm(), fn.gelu) for _ in range(depth)))
        params, _ = net.init(key, jnp.ones((2, 6)))
        assert not np.array_equal(params["serial"]["dense"]["w"], params["serial_1"]["dense"]["w"])
        return Compiled.number - before

    assert compiled(2) > 0
    assert compiled(7) == 0


def test_siblings_and_repeated_calls_draw_differently(key):
    @fn.network(drop=fn.Dropout(0.5), other=fn.Dropout(0.5))
    def masks(net, x):
        return net.drop(x), net.drop(x), net.other(x)

    outputs, _ = masks.apply({}, {}, jnp.ones((8, 8)), train=True, key=key)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert not np.array_equal(outputs[i], outputs[j])


def test_repeat_equals_a_loop_with_state_and_keys(key):
    block = fn.serial(fn.BatchNorm(), fn.Dense(6), fn.Dropout(0.5))
    net = fn.repeat(block, 3)
    params, state = net.init(key, ROWS)
    output, after = net.apply(params, state, ROWS, train=True, key=key)
    x = ROWS
    for i in range(3):
        own = jax.tree.map(lambda leaf, i=i: leaf[i], (params, state))
        x, new = block.apply(*own, x, train=True, key=jax.random.fold_in(key, i))
        assert_same(new, jax.tree.map(lambda leaf, i=i: leaf[i], after))
    assert_same(output, x)


def test_repeat_passes_further_inputs_to_every_copy(key):
    @fn.network(up=fn.Dense(6))
    def block(net, x, shift):
        return net.up(x) + shift

    net = fn.repeat(block, 4)
    params, _ = net.init(key, ROWS, ROWS[0])
    assert net(params, ROWS, ROWS[0]).shape == ROWS.shape


def test_repeat_compiles_no_longer_when_deeper(key):
    def size(depth):
        net = fn.repeat(fn.serial(fn.Dense(6), fn.tanh), depth)
        params, _ = net.init(key, ROWS)
        step = jax.jit(jax.grad(lambda p: net(p, ROWS).sum()))
        return len(step.lower(params).as_text())

    assert size(64) < 1.05 * size(4)


def test_ensemble_equals_its_members(key):
    member = fn.serial(fn.Dense(3), fn.tanh)
    net = fn.ensemble(member, 4)
    params, _ = net.init(key, ROWS)
    for i, output in enumerate(net(params, ROWS)):
        assert_same(output, member(jax.tree.map(lambda leaf, i=i: leaf[i], params), ROWS))


def test_remat_with_a_policy_keeps_by_name(key):
    policy = jax.checkpoint_policies.save_only_these_names("dense")
    net = fn.serial(fn.Dense(8), fn.gelu, fn.Dense(8), fn.gelu)
    params, _ = net.init(key, ROWS)

    def stored(layer):
        _, pull = jax.vjp(lambda p: layer(p, ROWS), params)
        return sum(leaf.size for leaf in jax.tree.leaves(pull))

    assert stored(fn.remat(net)) < stored(fn.remat(net, policy)) < stored(net)


def test_an_error_inside_names_the_layer_path(key):
    net = fn.serial(block=fn.serial(fn.Dense(4), head=fn.Dense(2)))
    params, _ = net.init(key, ROWS)
    params["block"]["head"] = {}
    with pytest.raises(ValueError, match="dense: expected parameters w, got none") as caught:
        net(params, ROWS)
    assert caught.value.__notes__ == ["in layer block/head"]


def test_what_looks_odd_but_is_right(key):
    """Keys of the older kind and under vmap, NumPy's True, a static `train`, a partial body."""
    net = fn.serial(fn.Dense(3), fn.Dropout(0.5))
    params, state = net.init(key, ROWS)
    older, keys = jax.random.PRNGKey(0), jax.random.split(jax.random.key(0), 2)
    assert_same(net.init(older, ROWS)[0], net.init(jax.random.key(0), ROWS)[0])
    stacked, _ = jax.vmap(net.init, (0, None))(keys, ROWS)
    assert stacked["dense"]["w"].shape == (2, 6, 3)
    plain = net.apply(params, state, ROWS, train=True, key=key)[0]
    mode = {"train": np.bool_(True), "key": key}
    assert_same(net.apply(params, state, ROWS, **mode)[0], plain)
    compiled = jax.jit(net.apply, static_argnames="train")
    assert_same(compiled(params, state, ROWS, train=True, key=key)[0], plain)
    assert_same(copy.deepcopy(net)(params, ROWS), net(params, ROWS))

    def body(power, net, x):
        return net.up(x) ** power

    squared = fn.network(up=fn.Dense(3))(partial(body, 2))
    assert squared.name == "body"
    params, _ = squared.init(key, ROWS)
    assert_same(squared(params, ROWS), fn.Dense(3)(params["up"], ROWS) ** 2)


def test_the_error_of_a_childs_own_stays_as_it_is():
    def child(x):
        return x + "one"

    with pytest.raises(TypeError, match=r"ufunc|unsupported|add") as caught:
        fn.serial(child)({}, ROWS)
    assert "expected" not in str(caught.value)


def test_a_second_summary_is_the_same():
    net, x = fn.serial(fn.Dense(3), fn.relu), ROWS
    assert str(net.summary(x)) == str(net.summary(x))
    assert len(net.summary(x).rows) == 2
