"""`explain_zero`: where a gradient is lost, and what the last line of a trace says of it."""

import jax
import jax.numpy as jnp
import pytest

import funcnet as fn

from .verdicts import zero

X = jnp.array([0.3, -0.7, 1.1, 0.2])
LONG = [pytest.mark.slow, pytest.mark.long]
QUICK = {
    (zero.stopped, zero.plain), (zero.sigmoid, zero.plain), (zero.where, zero.jitted),
    (zero.dead_relu, zero.branched), (zero.cancelled, zero.plain), (zero.zero_rule, zero.jitted),
    (zero.argmax, zero.scanned),
}  # fmt: skip


def marked(plant):
    marks = [] if (plant.f, plant.around) in QUICK else LONG
    return pytest.param(plant, id=plant.name, marks=marks)


@pytest.mark.parametrize("plant", [marked(plant) for plant in zero.PLANTS])
def test_a_planted_loss_is_found_with_its_cause_and_line(plant):
    assert zero.wrong(plant) == ""


def silent(f, around):
    quick = around is zero.plain and f in (zero.half_masked, zero.straight_through)
    name = f"{f.__name__}-{around.__name__}"
    return pytest.param(f, around, id=name, marks=[] if quick else LONG)


@pytest.mark.parametrize(
    ("f", "around"), [silent(f, around) for f in zero.HEALTHY for around in zero.SURROUNDINGS]
)
def test_a_gradient_that_flows_is_no_alarm(f, around):
    loss, argument = around(f)
    report = fn.explain_zero(loss)(argument)
    assert not report
    assert not report.lost


@pytest.mark.slow
@pytest.mark.long
def test_networks_are_no_alarm():
    for name, (loss, params) in zero.networks().items():
        assert not fn.explain_zero(loss)(params), name


@pytest.mark.slow
@pytest.mark.long
def test_a_minimum_is_told_and_is_no_loss():
    for loss, args in zero.at_minimum():
        report = fn.explain_zero(loss)(*args)
        assert not report
        assert {place.cause for leaf in report.leaves for place in leaf.places} == {"minimum"}
        assert "no gradient is lost" in str(report)


def test_the_report_says_leaf_line_and_share():
    def loss(params, x):
        hidden = x * params["w"]
        return jnp.sum(jnp.where(hidden > 0, hidden, 0.0)) + 0.0 * params["b"]

    report = fn.explain_zero(loss, wrt=0)({"w": X, "b": 1.0}, jnp.ones(4))
    assert [leaf.path for leaf in report.lost] == ["params['b']"]
    w, b = report["params['w']"], report["params['b']"]
    assert (w.verdict, w.zeros, b.verdict) == ("partly", 0.25, "zero")
    assert (w.places[0].cause, w.places[0].share) == ("masked", 0.25)
    assert (b.places[0].cause, b.places[0].why) == ("masked", "it is multiplied by 0")
    line = loss.__code__.co_firstlineno + 2
    assert f"test_verdict_zero.py:{line}" in str(report)
    assert str(report).startswith("loss: no gradient comes to params['b'].\nIt is masked at ")
    assert "<h1>lost gradients of loss</h1>" in report.html()
    assert max(map(len, str(report).splitlines())) <= 100


def test_a_factor_that_is_0_is_followed_to_what_made_it_0():
    def loss(w1, w2):
        hidden = jax.nn.relu(X @ w1 - 9.0)
        return jnp.sum(hidden @ w2)

    report = fn.explain_zero(loss)(jnp.ones((4, 3)), jnp.ones(3))
    line = loss.__code__.co_firstlineno + 1
    for leaf in report.leaves:
        source = leaf.places[0].source
        assert source
        assert (leaf.places[0].cause, source.line) == ("saturated", line)
    assert "relu gives 0 everywhere" in report["w2"].places[0].why


@pytest.mark.slow
@pytest.mark.long
def test_what_rounding_leaves_is_no_gradient():
    """A bias before a batch norm, and that of keys, has no effect; its gradient is rounding."""
    x = jax.random.normal(jax.random.key(0), (8, 5))
    net = fn.serial(fn.Dense(8), fn.BatchNorm(), fn.relu, fn.Dense(3))
    params, state = net.init(jax.random.key(1), x)
    report = fn.explain_zero(lambda p: jnp.mean(net.apply(p, state, x, train=True)[0] ** 2))(params)
    assert [leaf.path for leaf in report.lost] == ["p['dense']['b']"]
    assert report.lost[0].places[0].cause == "cancelled"


def test_seeds_and_wrong_calls():
    report = fn.explain_zero(lambda x: (x * 2.0, x), seed=(jnp.zeros(4), None))(X)
    assert report["x"].places[0].cause == "seed"
    with pytest.raises(ValueError, match=r"explain_zero: expected one real number as output"):
        fn.explain_zero(lambda x: x * 2.0)(X)
    with pytest.raises(ValueError, match=r"explain_zero: expected wrt among .* 0 to 0, got 3"):
        fn.explain_zero(lambda x: jnp.sum(x), wrt=3)(X)
    with pytest.raises(TypeError, match=r"^explain_zero: expected an array as \w+, got"):
        fn.explain_zero(jnp.sum)(jax.ShapeDtypeStruct((3,), jnp.float32))
    with pytest.raises(TypeError, match=r"Call it outside of jit, grad and vmap"):
        jax.vmap(lambda x: bool(fn.explain_zero(jnp.sin)(x)))(X)
    with pytest.raises(TypeError, match=r"^explain_zero: expected a function, got 3\."):
        fn.explain_zero(3)(X)
    assert str(fn.explain_zero(lambda n: n * 1.0)(3)).endswith("no argument has a floating dtype.")


@pytest.mark.parametrize(
    ("f", "said"),
    [
        (lambda x: jnp.argmax(x) * 1.0, "argmax gives an index (FILE:{})."),
        (lambda x: jnp.sum(jax.lax.stop_gradient(x)), "stop_gradient ends it (FILE:{})."),
        (lambda x: jnp.sum((x > 0) * 2.0), "gt compares (FILE:{})."),
        (lambda x: jnp.sum(x.astype(int) * 1.0), "a conversion to int32 ends it (FILE:{})."),
        (lambda x: jnp.sin(2.0), "x is not used."),
    ],
)  # fmt: skip
def test_a_trace_says_what_cut_its_gradient(f, said):
    last = str(fn.trace(f)(X)).splitlines()[-1]
    assert last.startswith("Nothing flows back: no floating path leads")
    line = said.replace("FILE", "test_verdict_zero.py").format(f.__code__.co_firstlineno)
    assert last.endswith(line)
