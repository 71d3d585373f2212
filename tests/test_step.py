"""The training step: pure, compiled once, donating, for any optimiser."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import funcnet as fn
from funcnet.layers.linear import Dense
from funcnet.nn.combine import serial
from funcnet.nn.layer import Layer, need_key
from funcnet.train.metrics import accuracy, r_squared
from funcnet.train.state import refuse_tied
from funcnet.train.step import make_step, outermost

X = np.linspace(-1, 1, 96, dtype=np.float32).reshape(32, 3)
Y = (X.sum(1) > 0).astype(np.int32)


def nll(logits, labels):
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -picked.mean()


def net():
    return serial(Dense(8), jnp.tanh, Dense(2))


def states(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def test_a_step_is_the_step_written_by_hand(key):
    optimizer = optax.adam(1e-2)
    step = make_step(net(), nll, optimizer, metrics={"accuracy": accuracy})
    params, _ = net().init(key, X)
    opt_state = optimizer.init(params)
    state = step.init(key, X)
    for _ in range(3):
        loss, grads = jax.value_and_grad(lambda p: nll(net()(p, X), Y))(params)
        right = accuracy(net()(params, X), Y)
        steps, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, steps)
        state, values = step.update(state, (X, Y))
        np.testing.assert_allclose(values["loss"], loss, rtol=1e-5)
        assert float(values["accuracy"]) == float(right)
    for ours, theirs in zip(states(state.params), states(params), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert (int(state.step), state.step.dtype) == (3, jnp.int32)


def test_evaluate_leaves_the_state_alone(key):
    step = make_step(net(), nll, optax.sgd(0.1), metrics={"accuracy": accuracy})
    state = step.init(key, X)
    first, second = step.evaluate(state, (X, Y)), step.evaluate(state, (X, Y))
    assert float(first["loss"]) == float(second["loss"])
    assert list(first) == ["accuracy", "loss"]
    assert int(state.step) == 0


def test_update_donates_and_leaves_the_callers_key_and_arrays(key):
    table = jnp.ones(3)
    held = Layer(lambda key, x: ({"w": table}, {}), lambda p, s, x, **_: (x @ p["w"], s))
    step = make_step(held, lambda output, target: ((output - target) ** 2).mean(), optax.sgd(0.1))
    old = step.init(key, X)
    new, _ = step.update(old, (X, Y))
    assert old.params["w"].is_deleted()
    assert not new.params["w"].is_deleted()
    assert table.sum() == 3
    assert not key.is_deleted()


OPTIMIZERS = {
    "adam": optax.adam(1e-2),
    "schedule": optax.sgd(optax.cosine_decay_schedule(0.1, 100), momentum=0.9),
    "hyperparameters": optax.inject_hyperparams(optax.adamw)(1e-2),
    "keeps the parameters": optax.contrib.schedule_free_sgd(0.1),
    "keeps a key": optax.chain(optax.add_noise(0.1, 0.1, jax.random.key(1)), optax.sgd(0.1)),
    "looks at the loss": optax.chain(optax.adam(1e-2), optax.contrib.reduce_on_plateau()),
    "searches a line": optax.lbfgs(),
    "some frozen": optax.masked(optax.sgd(0.1), {"dense": {"w": True, "b": False}}),
    "accumulates": optax.MultiSteps(optax.adam(1e-2), 2),
    "clips": optax.chain(optax.clip_by_global_norm(1.0), optax.adafactor(1e-2)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_optimiser_compiles_once(key, name):
    step = make_step(serial(Dense(2)), nll, OPTIMIZERS[name])
    state = step.init(key, X)
    types = jax.tree.map(lambda leaf: leaf.aval, state)
    for _ in range(4):
        state, values = step.update(state, (X, Y))
    assert step.update._cache_size() == 1
    assert jax.tree.map(lambda leaf: leaf.aval, state) == types
    assert np.isfinite(values["loss"])


def noisy():
    def apply(params, state, x, *, train=False, key=None):
        noise = jax.random.normal(need_key("noisy", key), x.shape) if train else 0.0
        return x @ params["w"] + noise.sum() if train else x @ params["w"], state

    return Layer(lambda key, x: ({"w": jnp.zeros((x.shape[1], 2))}, {}), apply, "noisy")


def draws(key, steps):
    step = make_step(noisy(), lambda output, target: output.mean(), optax.sgd(0.0))
    state, losses = step.init(key, X), []
    for _ in range(steps):
        state, values = step.update(state, (X, Y))
        losses.append(float(values["loss"]))
    return losses


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_each_step_has_its_own_draws_and_a_key_decides_them(make):
    first = draws(make(3), 4)
    assert len(set(first)) == 4
    assert first == draws(make(3), 4) != draws(make(4), 4)


def test_the_key_of_a_step_is_folded_in_from_its_number(key):
    state = make_step(noisy(), lambda output, target: output.mean(), optax.sgd(0.0)).init(key, X)
    noise = jax.random.normal(jax.random.fold_in(state.key, 0), X.shape)
    np.testing.assert_allclose(draws(key, 1)[0], noise.sum(), rtol=1e-5)


def test_a_key_of_another_kind_keeps_its_kind():
    assert len(set(draws(jax.random.key(0, impl="rbg"), 3))) == 3


def test_state_is_threaded(key):
    def apply(params, state, x, *, train=False, key=None):
        return x @ params["w"], {"seen": state["seen"] + 1} if train else state

    counter = Layer(lambda key, x: ({"w": jnp.zeros((3, 2))}, {"seen": jnp.zeros(())}), apply)
    step = make_step(counter, nll, optax.sgd(0.1))
    state = step.init(key, X)
    for _ in range(3):
        state, _ = step.update(state, (X, Y))
    step.evaluate(state, (X, Y))
    assert float(state.state["seen"]) == 3


def tied_init(key, x):
    w = jnp.ones((3, 2))
    return {"encode": {"w": w}, "decode": {"w": w}}, {}


def test_a_tied_leaf_is_named(key):
    tied = Layer(tied_init, lambda p, s, x, **_: (x @ p["encode"]["w"] + p["decode"]["w"][0], s))
    step = make_step(tied, nll, optax.sgd(0.1))
    message = (
        r"make_step: expected each array once .*, got one array at "
        r"\['params'\]\['decode'\]\['w'\] and at \['params'\]\['encode'\]\['w'\]\. Call one child"
    )
    with pytest.raises(ValueError, match=message):
        step.init(key, X)
    refuse_tied("here", {"a": jnp.ones(2), "b": jnp.ones(2)})


def test_bad_arguments_are_one_sentence(key):
    with pytest.raises(TypeError, match=r"make_step: expected a Layer, got function\. A layer is"):
        make_step(nll, nll, optax.sgd(0.1))
    small = Dense(2)
    with pytest.raises(TypeError, match=r"expected an optax optimiser, got adam\. Make one by a"):
        make_step(small, nll, optax.adam)
    with pytest.raises(ValueError, match=r"expected metrics of other names, got 'loss'\. The crit"):
        make_step(small, nll, optax.sgd(0.1), metrics={"loss": accuracy})
    step = make_step(small, lambda output, target: output[:, 0], optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"a scalar from the criterion, got shape \(32,\)\. Take"):
        step.update(step.init(key, X), (X, Y))
    metrics = {"odd": lambda output, target: output}
    step = make_step(small, nll, optax.sgd(0.1), metrics=metrics)
    with pytest.raises(ValueError, match=r"a scalar from the metric 'odd', got shape \(32, 2\)"):
        step.evaluate(step.init(key, X), (X, Y))
    with pytest.raises(TypeError, match=r"expected a batch that is a tuple .* got a tuple of 1\."):
        step.update(step.init(key, X), (X,))
    with pytest.raises(TypeError, match=r"expected a batch that is a tuple .* got one array\."):
        step.update(step.init(key, X), X)


def test_accuracy_of_every_kind_of_target():
    logits = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 1.0, 2.0], [9.0, 1.0, 2.0]])
    assert float(accuracy(logits, jnp.array([0, 1, 2, 2]))) == 0.75
    assert float(accuracy(logits, jax.nn.one_hot(jnp.array([0, 1, 2, 2]), 3))) == 0.75
    assert float(accuracy(logits[:, None], jnp.array([[0], [1], [2], [2]]))) == 0.75
    for yes in (jnp.array([1, 0]), jnp.array([1.0, 0.0]), jnp.array([True, False])):
        assert float(accuracy(jnp.array([3.0, 1.0]), yes)) == 0.5
        assert float(accuracy(jnp.array([[3.0], [1.0]]), yes)) == 0.5
        assert float(accuracy(jnp.array([[3.0], [1.0]]), yes[:, None])) == 0.5
    many = jnp.array([[1, 0], [0, 0]])
    assert float(accuracy(jnp.array([[3.0, -1.0], [1.0, -1.0]]), many)) == 0.75
    message = r"accuracy: expected integer labels of shape \(4,\) or soft .*, got float32 of shape"
    with pytest.raises(ValueError, match=message):
        accuracy(logits, jnp.zeros(4))


def test_r_squared_of_several_targets_and_of_one_that_does_not_vary():
    target = jnp.array([[1.0, 100.0], [2.0, 200.0], [3.0, 300.0]])
    assert float(r_squared(jnp.broadcast_to(target.mean(0), (3, 2)), target)) == 0
    assert float(r_squared(jnp.array([1.0, 2.0]), jnp.array([3.0, 3.0]))) == 0
    assert np.isnan(r_squared(jnp.array([1.0, np.nan]), jnp.array([3.0, 4.0])))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "float16", "bfloat16", "bool"])
@pytest.mark.parametrize("both", [True, False])
def test_r_squared_of_any_dtype_is_that_of_its_numbers(dtype, both):
    high = {"bool": 1, "int32": 10**6, "float16": 900, "int8": 90}.get(dtype, 200)
    target = jnp.array([0, high, high, 0, high]).astype(dtype)
    output = (jnp.array([1, 0, 0, 1, 1]) * high).astype(dtype if both else "float32")
    y, z = np.asarray(target, np.float64), np.asarray(output, np.float64)
    truth = 1 - ((y - z) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert truth < -1
    assert float(r_squared(output, target)) == pytest.approx(truth, rel=1e-5)
    assert float(r_squared(z.tolist(), y.tolist())) == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize("constant", [0.1, 0.7, 1e-3, 12345.678])
def test_r_squared_is_0_where_nothing_varies_however_it_rounds(constant):
    target = jnp.full(7, constant)
    for output in (2 * target, jnp.full(7, 1e30), target):
        for value in (r_squared(output, target), jax.jit(r_squared)(output, target)):
            assert (float(value), bool(jnp.signbit(value))) == (0, False)
    assert np.isnan(r_squared(target * jnp.nan, target))


def test_ignore_index_is_an_integer():
    for wrong in ("a", 1.0, [0]):
        with pytest.raises(
            TypeError, match=r"^accuracy: expected an integer ignore_index, or None, got .*\. It is"
        ):
            accuracy(jnp.eye(3), jnp.array([0, 1, 2]), ignore_index=wrong)
    assert float(accuracy(jnp.eye(3), jnp.array([0, 0, 2]), ignore_index=np.int64(0))) == 1


def temporary_bytes(net, x):
    step = make_step(net, lambda y, target: ((y - target) ** 2).mean(), optax.sgd(0.1))
    state = jax.eval_shape(step.init, jax.random.key(0), x)
    return (
        outermost(step.update).lower(state, (x, x)).compile().memory_analysis().temp_size_in_bytes
    )


@pytest.mark.slow
def test_remat_of_48_layers_takes_a_seventh_of_the_memory():
    block = fn.residual(fn.serial(fn.Dense(512), fn.gelu, fn.Dense(64)))
    x = jnp.ones((4096, 64))
    plain = temporary_bytes(fn.repeat(block, 48), x)
    assert plain >= 7 * temporary_bytes(fn.repeat(fn.remat(block), 48), x)


@pytest.mark.slow
def test_remat_saves_memory_on_the_cpu_without_a_loop_too():
    block = fn.residual(fn.serial(fn.Dense(256), fn.gelu, fn.Dense(64)))
    x = jnp.ones((512, 64))

    def deep(wrap):
        return fn.serial(*[wrap(block).named(f"block_{i}") for i in range(8)])

    assert temporary_bytes(deep(lambda b: b), x) >= 3 * temporary_bytes(deep(fn.remat), x)


def test_an_update_runs_inside_other_transformations(key):
    net, x = fn.Dense(1), jnp.ones((4, 3))
    step = make_step(net, lambda y, target: ((y - target) ** 2).mean(), optax.sgd(0.1))
    batch = (x, jnp.ones((4, 1)))
    expected = step.init(key, x)
    for _ in range(3):
        expected, values = step.update(expected, batch)
    scanned, losses = jax.jit(
        lambda state: jax.lax.scan(lambda s, _: step.update(s, batch), state, length=3)
    )(step.init(key, x))
    np.testing.assert_allclose(losses["loss"][-1], values["loss"], rtol=1e-6)
    for a, b in zip(states(scanned.params), states(expected.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-4), (jnp.bfloat16, 1e-2)])
def test_a_running_average_travels_in_the_state_of_the_optimizer(key, dtype, tolerance):
    optimizer = fn.averaged(optax.chain(optax.clip(1.0), optax.adam(1e-2)), 0.6)
    step = make_step(net(), nll, optimizer)
    state = step.init(key, X)
    state = state._replace(params=jax.tree.map(lambda p: p.astype(dtype), state.params))
    state = state._replace(opt_state=optimizer.init(state.params))
    expected = states(state.params)
    for t in range(1, 20):
        state, _ = step.update(state, (X, Y))
        kept = min(0.6, t / (t + 9))
        pairs = zip(expected, states(state.params), strict=True)
        expected = [kept * a + (1 - kept) * p.astype(np.float32) for a, p in pairs]
    for a, b in zip(states(fn.average_of(state.opt_state)), expected, strict=True):
        assert a.dtype == np.float32
        # Compiled, bfloat16 parameters are averaged before they are rounded.
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance / 100)


def test_an_average_beside_an_optimizer_that_searches_along_a_line(key):
    plain, kept = (
        make_step(net(), nll, optimizer)
        for optimizer in (optax.lbfgs(), fn.averaged(optax.lbfgs()))
    )
    state, other = plain.init(key, X), kept.init(key, X)
    for _ in range(3):
        (state, values), (other, same) = (plain.update(state, (X, Y)), kept.update(other, (X, Y)))
    assert float(values["loss"]) == pytest.approx(float(same["loss"]), rel=1e-6)
    every = fn.averaged(optax.MultiSteps(optax.sgd(0.1), 2), 0.0)
    many = make_step(net(), nll, every)
    state = many.init(key, X)
    for _ in range(2):
        state, _ = many.update(state, (X, Y))
    for a, b in zip(states(fn.average_of(state.opt_state)), states(state.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_an_average_is_of_parameters_and_beside_an_optimizer():
    for wrong in (None, optax.adam, 0.1):
        with pytest.raises(
            TypeError, match=r"^averaged: expected an optax optimiser, got .*\. Make"
        ):
            fn.averaged(wrong)
    optimizer, params = fn.averaged(optax.sgd(0.1)), {"w": jnp.ones(1)}
    message = (
        r"^averaged: expected the parameters as the third argument of update, got None\. Write"
    )
    with pytest.raises(ValueError, match=message):
        optimizer.update(params, optimizer.init(params))


def stacked(batches):
    return jax.tree.map(lambda *parts: np.stack(parts), *batches)


def test_many_steps_in_one_call_are_those_steps(key):
    parts = [(X[i : i + 8], Y[i : i + 8]) for i in range(0, 24, 8)]
    single = make_step(net(), nll, optax.adam(1e-2), metrics={"accuracy": accuracy})
    many = make_step(net(), nll, optax.adam(1e-2), metrics={"accuracy": accuracy}, steps_per_call=3)
    state, losses = single.init(key, X), []
    for part in parts:
        state, values = single.update(state, part)
        losses.append(values["loss"])
    other, values = many.update(many.init(key, X), stacked(parts))
    assert values["loss"].shape == values["accuracy"].shape == (3,)
    np.testing.assert_allclose(values["loss"], losses, rtol=1e-6)
    assert int(other.step) == 3
    for a, b in zip(states(other[:4]), states(state[:4]), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)
    with pytest.raises(ValueError, match=r"^make_step: expected 3 batches in one, .* of 2\. Stack"):
        many.update(other, stacked(parts[:2]))


def test_a_trace_too_many_says_what_is_new(key):
    step = make_step(net(), nll, optax.sgd(0.1), max_traces=1)
    state = step.init(key, X)
    for _ in range(3):
        state, _ = step.update(state, (X, Y))
    message = (
        r"^step\.update: expected 1 trace at most, as max_traces says, got one more, for batch\[0\]"
        r" of float32\[7,3\] after float32\[32,3\], and 1 more\. Give all"
    )
    with pytest.raises(ValueError, match=message):
        step.update(state, (X[:7], Y[:7]))
    state, _ = step.update(state, (X, Y))
    again = make_step(net(), nll, optax.sgd(0.1), max_traces=1)
    state = again.init(key, X)
    again.update(state._replace(step=0), (X, Y))
    with pytest.raises(
        ValueError, match=r"for state\.step of int32\[\] after int32\[\] \(a number"
    ):
        again.update(again.init(key, X), (X, Y))


def test_a_state_that_was_given_away_is_named(key):
    step = make_step(net(), nll, optax.sgd(0.1))
    old = step.init(key, X)
    step.update(old, (X, Y))
    message = (
        r"^step\.update: expected a state that was not given to it before, got one whose \.params"
        r"\['dense'\]\['b'\] is gone\. Go on with the state that it returned; copy"
    )
    with pytest.raises(ValueError, match=message):
        step.update(old._replace(step=jnp.zeros((), jnp.int32)), (X, Y))


def test_donation_covers_the_whole_state(key):
    step = make_step(net(), nll, optax.adam(1e-2))
    state = step.init(key, X)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    memory = step.update.lower(state, (X, Y)).compile().memory_analysis()
    # The key goes through as it is, and the count of steps is kept by the optimiser too.
    assert size - 64 <= memory.alias_size_in_bytes <= size + 64
    assert memory.output_size_in_bytes < 2 * size


def test_a_gradient_is_clipped_and_its_norm_told(key):
    step = make_step(net(), nll, optax.sgd(1.0), clip=1e-3)
    state = step.init(key, X)
    before = states(state.params)
    grads = jax.grad(lambda p: nll(net()(p, X), Y))(state.params)
    state, values = step.update(state, (X, Y))
    np.testing.assert_allclose(values["grad_norm"], optax.tree.norm(grads), rtol=1e-5)
    moved = [a - b for a, b in zip(states(state.params), before, strict=True)]
    np.testing.assert_allclose(np.sqrt(sum((m**2).sum() for m in moved)), 1e-3, rtol=1e-3)
    for wrong in (0, -1.0, "1"):
        with pytest.raises(ValueError, match=r"^make_step: expected clip to be a number above 0"):
            make_step(net(), nll, optax.sgd(1.0), clip=wrong)


@pytest.mark.long
def test_an_average_is_what_evaluate_looks_at(key):
    step = make_step(net(), nll, optax.inject_hyperparams(optax.adam)(1e-1), ema=0.9)
    state = step.init(key, X)
    for _ in range(5):
        state, values = step.update(state, (X, Y))
    assert float(values["learning_rate"]) == pytest.approx(0.1)
    average = fn.average_of(state.opt_state)
    expected = float(nll(net()(average, X), Y))
    assert float(step.evaluate(state, (X, Y))["loss"]) == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(float(nll(net()(state.params, X), Y)), rel=1e-3)


@pytest.mark.long
def test_a_batch_is_any_tree(key):
    batch = {"image": X, "label": Y, "weight": np.linspace(0, 1, 32, dtype=np.float32)}

    def weighed(output, batch):
        losses = fn.cross_entropy(output, batch["label"], reduction="none")
        return fn.Mean((batch["weight"] * losses).sum(), batch["weight"].sum())

    plain = make_step(net(), weighed, optax.sgd(0.1), inputs="image")
    expected, values = plain.update(plain.init(key, X), batch)
    picks = (("image",), lambda batch: (batch["image"],))
    for inputs, accumulate in ((picks[0], 4), (picks[1], 1)):
        step = make_step(net(), weighed, optax.sgd(0.1), inputs=inputs, accumulate=accumulate)
        found, same = step.update(step.init(key, X), batch)
        np.testing.assert_allclose(same["loss"], values["loss"], rtol=1e-6)
        for a, b in zip(states(found.params), states(expected.params), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
    message = r"^make_step: expected inputs among the batch's keys, 'image', 'label', 'weight', got"
    step = make_step(net(), weighed, optax.sgd(0.1), inputs="imag")
    with pytest.raises(ValueError, match=message):
        step.update(step.init(key, X), batch)
    with pytest.raises(TypeError, match=r"^make_step: expected inputs to be a key of the batch, a"):
        make_step(net(), weighed, optax.sgd(0.1), inputs=3)


@pytest.mark.long
@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_an_accumulating_step_lowers_for_every_platform(platform):
    deep = serial(fn.Conv(4, 3), fn.BatchNorm(), fn.relu, fn.GlobalPool(), Dense(2))
    x = np.ones((8, 6, 6, 3), np.float32)
    step = make_step(deep, fn.cross_entropy, optax.adam(1e-2), accumulate=4, clip=1.0, ema=0.9)
    state = jax.eval_shape(step.init, jax.random.key(0), x)
    lowered = jax.export.export(step.update.compiled, platforms=[platform])(state, (x, Y[:8]))
    assert lowered.platforms == (platform,)
