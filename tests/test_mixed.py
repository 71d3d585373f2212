"""Training in 16 bits: what runs in which dtype, the loss scale, and that it learns the same."""

import ast

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnet as fn
from funcnet.train.precision import PRESETS, LossScale

from .benchmarks import precision as benchmark
from .cases import LAYERS
from .forms import printed
from .test_precision import sixteen, squares

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 3)).astype(np.float32)
Y = (X.sum(1) > 0).astype(np.int32)
TINY = fn.Dense(2)
NET = fn.serial(fn.Dense(8), fn.BatchNorm(), fn.relu, head=fn.Dense(2))
IMAGES, LABELS = jnp.ones((4, 16, 16, 3)), jnp.zeros(4, jnp.int32)
IDS = jnp.zeros((2, 12), jnp.int32)
WIDE = (X * 1e5, Y)  # beyond float16


def equations(jaxpr):
    """All that is computed, at any depth."""
    for eqn in jaxpr.eqns:
        bodies = [getattr(x, "jaxpr", x) for x in jax.tree.leaves(list(eqn.params.values()))]
        bodies = [body for body in bodies if hasattr(body, "eqns")]
        for body in bodies:
            yield from equations(body)
        if not bodies:
            yield eqn


SUMS = ("reduce_sum", "reduce_prod", "cumsum", "cumprod", "reduce_window_sum", "scatter-add")


def narrow_sums(jaxpr):
    """What adds up more than one 16-bit number in their own dtype."""
    for eqn in equations(jaxpr):
        if eqn.primitive.name in SUMS:
            x, y = eqn.invars[0].aval, eqn.outvars[0].aval
            narrow = jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize == 2
            if narrow and x.size != y.size:
                yield eqn


def products(jaxpr):
    """The dtypes of what is multiplied; on the CPU sums of rows are products with a vector of 1."""
    for eqn in equations(jaxpr):
        if eqn.primitive.name in ("conv_general_dilated", "dot_general"):
            a, b = (x.aval for x in eqn.invars)
            if b.ndim > 1:
                yield {str(a.dtype), str(b.dtype)}


GPT = fn.nets.GPT(11, width=16, depth=1, heads=2, length=16, drop=0.1)
STEPS = {
    "resnet": (fn.nets.ResNet(20, 10), fn.cross_entropy, (IMAGES, LABELS)),
    "gpt": (GPT, fn.cross_entropy, (IDS, IDS)),
    "gpt without logits": (
        fn.nets.GPT(11, width=16, depth=2, heads=2, length=16, logits=False),
        fn.nets.lm_loss,
        (IDS, IDS),
    ),
}
ALL_16 = fn.Precision(compute="bfloat16", output="bfloat16")
"""The output of the network stays in 16 bits too: here it is an operand of the loss's product."""


def traced(name, precision, what):
    net, criterion, batch = STEPS[name]
    step = fn.make_step(net, criterion, optax.adamw(1e-3), precision=precision)
    state = jax.eval_shape(step.init, jax.random.key(0), *batch[:-1])
    return jax.make_jaxpr(getattr(step, what))(state, batch).jaxpr, state


@pytest.mark.parametrize("what", ["update", pytest.param("evaluate", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("gpt", "bf16"),
        pytest.param("resnet", "bf16", marks=[pytest.mark.slow, pytest.mark.long]),
        pytest.param("resnet", "f16", marks=[pytest.mark.slow, pytest.mark.long]),
        pytest.param("gpt", "f16", marks=[pytest.mark.slow, pytest.mark.long]),
        pytest.param("gpt without logits", ALL_16, marks=[pytest.mark.slow, pytest.mark.long]),
    ],
)
def test_a_step_multiplies_16_bits_and_adds_up_32(name, precision, what):
    jaxpr, state = traced(name, precision, what)
    dtypes = list(products(jaxpr))
    assert len(dtypes) > 8
    assert all(d == {str(PRESETS.get(precision, precision).compute)} for d in dtypes)
    assert not list(narrow_sums(jaxpr))
    assert {leaf.dtype.name for leaf in jax.tree.leaves((state.params, state.state))} <= {"float32"}


def layer_row(name):
    marks = [] if name in ("learned positions", "bias") else [pytest.mark.slow, pytest.mark.long]
    return pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", [layer_row(name) for name in LAYERS])
def test_no_gradient_in_16_bits_is_summed_in_16_bits(name):
    row, key = LAYERS[name], jax.random.key(0)
    params, state = jax.eval_shape(row.layer.init, key, *row.inputs)

    def loss(params, state, inputs, key):
        key = key if row.needs_key else None
        return squares(row.layer.apply(params, state, *inputs, train=True, key=key)[0])

    jaxpr = jax.make_jaxpr(jax.grad(loss))(sixteen(params), state, sixteen(row.inputs), key)
    assert not list(narrow_sums(jaxpr.jaxpr))


def test_a_sum_in_16_bits_is_found():
    x = jnp.ones((3, 2), jnp.bfloat16)
    jaxpr = jax.make_jaxpr(jax.grad(lambda b: (x + b).astype(jnp.float32).sum()))(x[0])
    assert len(list(narrow_sums(jaxpr.jaxpr))) == 1


def dtypes_seen():
    """A network that notes the dtype of its input, and its step in each precision."""
    seen = []

    def apply(params, state, x, *, train=False, key=None):
        seen.append((x.dtype.name, params["w"].dtype.name))
        return x @ params["w"], state

    layer = fn.Layer(lambda key, x: ({"w": jnp.ones((3, 2))}, {}), apply)
    return layer, seen


@pytest.mark.parametrize(
    ("precision", "compute", "params"),
    [
        pytest.param(None, "float32", "float32", marks=pytest.mark.long),
        pytest.param("f32", "float32", "float32", marks=pytest.mark.long),
        ("bf16", "bfloat16", "float32"),
        ("f16", "float16", "float32"),
        (fn.Precision(params="bfloat16", compute="bfloat16"), "bfloat16", "bfloat16"),
    ],
)
def test_who_computes_in_what(precision, compute, params):
    layer, seen = dtypes_seen()
    outputs = []

    def criterion(output, target):
        outputs.append(output.dtype.name)
        return fn.cross_entropy(output, target)

    step = fn.make_step(layer, criterion, optax.adam(1e-3), precision=precision)
    state = step.init(jax.random.key(0), X)
    assert state.params["w"].dtype.name == params
    types = jax.tree.map(lambda leaf: leaf.aval, state)
    state, _ = step.update(state, (X, Y))
    step.evaluate(state, (X, Y))
    assert set(seen) == {(compute, compute)}
    assert set(outputs) == {"float32"}
    assert jax.tree.map(lambda leaf: leaf.aval, state) == types
    state, _ = step.update(state, (X, Y))
    assert step.update._cache_size() == 1


@pytest.mark.long
def test_gradients_come_out_in_the_dtype_of_reduction():
    found = []

    def update(grads, state, params):
        found.append(grads["w"].dtype.name)
        return jax.tree.map(jnp.zeros_like, params), state

    optimizer = optax.GradientTransformation(lambda params: (), update)
    for reduction in ("float32", "bfloat16"):
        half = fn.Precision(params="bfloat16", compute="bfloat16", reduction=reduction)
        step = fn.make_step(dtypes_seen()[0], fn.cross_entropy, optimizer, precision=half)
        step.update(step.init(jax.random.key(0), X), (X, Y))
    assert found == ["float32", "bfloat16"]


@pytest.mark.long
def test_running_averages_keep_their_dtype_and_inputs_that_are_integers_theirs():
    step = fn.make_step(NET, fn.cross_entropy, optax.sgd(0.1), precision="bf16")
    state = jax.eval_shape(step.init, jax.random.key(0), X)
    state, _ = jax.eval_shape(step.update, state, (X, Y))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(state.state)} == {"float32"}
    embedded = fn.make_step(fn.Embed(11, 2), fn.cross_entropy, optax.sgd(0.1), precision="bf16")
    jax.eval_shape(embedded.update, embedded.init(jax.random.key(0), IDS), (IDS, IDS % 2))


@pytest.mark.long
def test_32_bits_are_the_step_without_a_policy_bit_for_bit():
    ends = []
    for precision in (None, "f32"):
        step = fn.make_step(NET, fn.cross_entropy, optax.adam(1e-2), precision=precision)
        state = step.init(jax.random.key(0), X)
        for _ in range(3):
            state, _ = step.update(state, (X, Y))
        ends.append(state)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), *ends))


def scaled_step(net=TINY, criterion=fn.cross_entropy, optimizer=None, **options):
    half = fn.Precision(compute="float16", **{"loss_scale": 2.0**15, **options})
    return fn.make_step(net, criterion, optimizer or optax.adam(1e-2), precision=half)


def small(output, target):
    return fn.cross_entropy(output, target) * 1e-6


def test_the_scale_keeps_small_gradients_and_changes_no_others():
    def gradient(**options):
        step = scaled_step(criterion=small, optimizer=optax.sgd(1.0), **options)
        state = step.init(jax.random.key(0), X)
        before = jax.tree.map(np.asarray, state.params)
        after, _ = step.update(state, (X, Y))
        return jax.tree.map(lambda a, b: a - np.asarray(b), before, after.params)

    params, _ = TINY.init(jax.random.key(0), X)
    logits = X.astype(np.float64) @ np.asarray(params["w"], np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    exact = {"w": X.T @ (shares - np.eye(2)[Y]) / len(X) * 1e-6}
    size = np.abs(exact["w"]).max()
    scaled, lost = gradient()["w"], gradient(loss_scale=None)["w"]
    assert np.abs(scaled - exact["w"]).max() < 0.1 * size
    assert np.abs(lost - exact["w"]).max() > 0.3 * size


def test_an_overflow_skips_the_step_and_halves_the_scale():
    step = scaled_step(NET)
    state = step.init(jax.random.key(0), X)
    state, _ = step.update(state, (X, Y))
    before = jax.tree.map(np.asarray, state)
    state, values = step.update(state, WIDE)
    assert int(values["overflowed"]) == 1
    assert float(values["loss_scale"]) == 2.0**15
    kept = (state.params, state.state, state.opt_state.inner)
    then = (before.params, before.state, before.opt_state.inner)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), kept, then))
    assert int(state.step) == 2
    assert float(state.opt_state.scale) == 2.0**14
    state, values = step.update(state, (X, Y))
    assert int(values["overflowed"]) == 0
    assert float(values["loss_scale"]) == 2.0**14
    assert np.isfinite(values["loss"])
    assert int(state.opt_state.skipped) == 1
    assert (before.params["head"]["w"] != np.asarray(state.params["head"]["w"])).any()
    assert step.update._cache_size() == 1


def test_gradients_alone_may_overflow():
    step = scaled_step(criterion=lambda output, target: fn.cross_entropy(output, target) * 1e4)
    state = step.init(jax.random.key(0), X)
    scales, losses = [], []
    for _ in range(16):
        state, values = step.update(state, (X, Y))
        scales.append(float(values["loss_scale"]) if values["overflowed"] else None)
        losses.append(float(values["loss"]))
    skipped = int(state.opt_state.skipped)
    assert 2 < skipped < 16
    assert scales[:3] == [2.0**15, 2.0**14, 2.0**13]
    assert scales[skipped:] == [None] * (16 - skipped)
    assert losses[-1] < losses[0]
    assert np.isfinite(losses).all()


def test_the_scale_doubles_after_so_many_good_steps_and_stays_in_its_range():
    step = scaled_step(loss_scale=2.0, growth_interval=3)
    state = step.init(jax.random.key(0), X)
    scales = []
    for batch in [(X, Y)] * 7 + [WIDE] * 4:
        state, values = step.update(state, batch)
        scales.append(float(values["loss_scale"]))
    assert scales == [2, 2, 2, 4, 4, 4, 8, 8, 4, 2, 1]
    assert float(state.opt_state.scale) == 1
    top = scaled_step(loss_scale=2.0**24, growth_interval=1, criterion=small)
    state, values = top.update(top.init(jax.random.key(0), X), (X, Y))
    assert not values["overflowed"]
    assert float(state.opt_state.scale) == 2.0**24


OPTIMIZERS = {
    "averaged": fn.averaged(optax.adam(1e-2)),
    "clips": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2)),
    "accumulates": optax.MultiSteps(optax.adam(1e-2), 2),
    "some frozen": optax.masked(optax.sgd(0.1), lambda p: fn.tree.mask(p, "w")),
    "looks at the loss": optax.chain(optax.adam(1e-2), optax.contrib.reduce_on_plateau()),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.long] * (n != "averaged")) for n in OPTIMIZERS]
)
def test_any_optimiser_stays_as_it_was_at_an_overflow(name):
    step = scaled_step(optimizer=OPTIMIZERS[name])
    state = step.init(jax.random.key(0), X)
    types = jax.tree.map(lambda leaf: leaf.aval, state)
    state, _ = step.update(state, (X, Y))
    before = jax.tree.map(np.asarray, (state.params, state.opt_state.inner))
    state, values = step.update(state, WIDE)
    assert int(values["overflowed"]) == 1
    after = (state.params, state.opt_state.inner)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), before, after))
    state, values = step.update(state, (X, Y))
    assert int(values["overflowed"]) == 0
    assert np.isfinite(values["loss"])
    assert jax.tree.map(lambda leaf: leaf.aval, state) == types


PLANTED = (np.concatenate([X, X[:16] * 1e5, X]), np.concatenate([Y, Y[:16], Y]))
QUIET = {"batch": 16, "progress": False, "precision": "f16"}


@pytest.mark.parametrize("on_nonfinite", [None, pytest.param("skip", marks=pytest.mark.long)])
def test_fit_says_what_overflowed_and_leaves_it_out_of_the_figures(on_nonfinite):
    fitted = fn.fit(
        TINY, fn.cross_entropy, optax.adam(1e-2), PLANTED, epochs=3, on_nonfinite=on_nonfinite,
        metrics={"accuracy": fn.accuracy}, **QUIET,
    )  # fmt: skip
    rows = fitted.history.rows
    assert fitted.stopped is None
    assert rows[-1]["step"] == 27
    assert all(1 <= row["skipped"] < 9 for row in rows)
    assert all(np.isfinite(row["loss"]) and 0 < row["accuracy"] <= 1 for row in rows)
    if on_nonfinite is None:
        assert rows[-1]["loss_scale"] < 2.0**15
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.state.params))


@pytest.mark.long
def test_fit_stops_at_a_loss_that_is_not_finite_if_it_is_asked_to():
    fitted = fn.fit(
        TINY, fn.cross_entropy, optax.adam(1e-2), PLANTED, epochs=3, on_nonfinite="explain", **QUIET
    )
    assert fitted.stopped == "not finite"
    assert fitted.nonfinite is not None
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.state))


def steep(output, target):
    return fn.cross_entropy(output, target) * 1e4


def test_gradients_that_overflow_by_the_scale_alone_stop_nothing():
    fitted = fn.fit(
        TINY,
        steep,
        optax.adam(1e-3),
        (X, Y),
        epochs=6,
        on_nonfinite="stop",
        **{**QUIET, "batch": 8},
    )
    rows = fitted.history.rows
    assert fitted.stopped is None
    assert rows[0]["skipped"] > 0 == rows[-1]["skipped"]
    assert rows[-1]["loss"] < rows[0]["loss"]


@pytest.mark.long
@pytest.mark.slow
def test_the_norm_of_a_gradient_that_overflowed_is_left_out():
    """Some steps of the first epoch overflow; then, from a greater scale, all of them do."""
    for scale, steps in ((2.0**18, "some"), (2.0**24, "all")):
        chosen = fn.Precision(compute="float16", loss_scale=scale)
        given = {**QUIET, "precision": chosen, "clip": 1.0, "epochs": 1}
        (row,) = fn.fit(TINY, fn.cross_entropy, optax.adam(1e-3), (X, Y), **given).history.rows
        assert row["skipped"] == row["step"] if steps == "all" else 0 < row["skipped"] < row["step"]
        assert np.isnan(row["grad_norm"]) if steps == "all" else 0 < row["grad_norm"] < 10


def test_a_run_whose_every_step_overflows_ends():
    wide = (np.full_like(X, 1e5), Y)
    fitted = fn.fit(TINY, fn.cross_entropy, optax.adam(1e-2), wide, epochs=3, **QUIET)
    assert fitted.stopped == "not finite"
    assert not fitted.history.rows


@pytest.mark.long
@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_validation_and_evaluate_compute_in_the_same_dtypes(precision):
    options = {**QUIET, "precision": precision}
    fitted = fn.fit(
        TINY, fn.cross_entropy, optax.adam(1e-2), (X, Y), epochs=2, validation=(X, Y), **options
    )
    found = [
        fn.evaluate(TINY, fn.cross_entropy, fitted.state, (X, Y), precision=p)["loss"]
        for p in (precision, None)
    ]
    assert found[0] == fitted.history.rows[-1]["val_loss"] != found[1]
    assert found[0] == pytest.approx(found[1], rel=1e-2)


@pytest.mark.long
def test_health_looks_at_a_step_in_float16():
    fitted = fn.fit(TINY, fn.cross_entropy, optax.adam(1e-2), (X, Y), epochs=2, health=3, **QUIET)
    assert len(fitted.history.health) == 3
    assert fitted.stopped is None


MESSAGES = {
    "name": (
        lambda: fn.make_step(NET, fn.cross_entropy, optax.sgd(0.1), precision="half"),
        "make_step: expected precision to be 'f32', 'bf16', 'f16' or a Precision, got 'half'. "
        "Write precision='bf16', or precision=fn.Precision(compute='bfloat16').",
    ),
    "name in fit": (
        lambda: fn.fit(TINY, fn.cross_entropy, optax.sgd(0.1), (X, Y), epochs=1, precision=16),
        "fit: expected precision to be 'f32', 'bf16', 'f16' or a Precision, got 16. Write "
        "precision='bf16', or precision=fn.Precision(compute='bfloat16').",
    ),
    "dtype": (
        lambda: fn.Precision(compute="int8"),
        "Precision: expected compute to be float32, bfloat16, float16 or float64, got 'int8'. "
        'Write compute="bfloat16".',
    ),
    "no dtype": (
        lambda: fn.Precision(params="half float"),
        "Precision: expected params to be float32, bfloat16, float16 or float64, got 'half float'. "
        'Write params="bfloat16".',
    ),
    "64 bits": (
        lambda: fn.Precision(params="float64"),
        "Precision: expected params of 32 bits at most, got 'float64'. Call "
        'jax.config.update("jax_enable_x64", True) first.',
    ),
    "reduction": (
        lambda: fn.Precision(reduction="bfloat16"),
        "Precision: expected a reduction that is no narrower than compute, got bfloat16 for "
        "float32. Leave it out: it is float32.",
    ),
    "scale": (
        lambda: fn.Precision(compute="float16", loss_scale=0.5),
        "Precision: expected a loss scale from 1 to 2**24, or None, got 0.5. Write "
        'loss_scale=2.0**15, or precision="f16".',
    ),
    "scaled output": (
        lambda: fn.Precision(compute="float16", output="float16", loss_scale=2.0),
        "Precision: expected an output of float32 beside a loss scale, got float16. Leave output "
        "out: the loss is taken in float32, and scaled behind it.",
    ),
    "interval": (
        lambda: fn.Precision(growth_interval=0),
        "Precision: expected a growth_interval that is a whole number of 1 or more, got 0. Leave "
        "it out: after 2000 steps without an overflow the scale is doubled.",
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_bad_policies_are_one_sentence(name):
    call, message = MESSAGES[name]
    with pytest.raises(ValueError, match="expected") as caught:
        call()
    assert str(caught.value) == message


def test_a_figure_takes_no_name_of_the_scale():
    def criterion(output, target):
        return fn.cross_entropy(output, target), {"loss_scale": 1.0}

    step = scaled_step(criterion=criterion)
    with pytest.raises(ValueError, match="figures of other names than loss_scale and overflowed"):
        step.update(step.init(jax.random.key(0), X), (X, Y))


@pytest.mark.long
def test_the_scale_is_in_the_state_and_is_saved_with_it(tmp_path):
    step = scaled_step()
    state, _ = step.update(step.init(jax.random.key(0), X), WIDE)
    fn.io.save_weights(tmp_path / "state.npz", state)
    like = jax.eval_shape(step.init, jax.random.key(0), X)
    again, _ = fn.io.load_weights(tmp_path / "state.npz", like)
    assert isinstance(again.opt_state, LossScale)
    assert float(again.opt_state.scale) == 2.0**14


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", benchmark.NETWORKS)
def test_200_steps_in_16_bits_follow_those_in_32(name):
    program = f"from tests.benchmarks import precision; print(precision.apart({name!r}))"
    apart = ast.literal_eval(printed(program).replace("np.float64", ""))
    assert apart.keys() == {"bf16", "f16"}
    assert np.abs(list(apart.values())).max() < 0.02
