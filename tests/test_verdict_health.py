"""The health of networks: what is planted is named with its layer, and what is well is silent."""

import html
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnet as fn
from funcnet.verdicts.health.chains import chains, drift
from funcnet.verdicts.health.course import course
from funcnet.verdicts.health.diagnose import diagnose, typical
from funcnet.verdicts.health.limits import LIMITS
from funcnet.verdicts.health.probe import depths, module_names

from .verdicts import health as scores


def kinds(verdicts):
    return [(verdict.kind, verdict.layer) for verdict in verdicts]


def chain(values, adjoints, **more):
    """The figures of layers l0, l1 and so on."""
    names = [f"l{i}" for i in range(len(values))]
    figures = {"value": values, "adjoint": adjoints, "element": adjoints}
    named = {kind: dict(zip(names, map(float, own), strict=True)) for kind, own in figures.items()}
    return named | {"gradient": dict.fromkeys(names, 1.0)} | more


LEVEL = np.ones(12)
FALLING = 0.3 ** np.arange(12)
FALLING_VERDICT = (
    "vanishing gradient at l0: the gradient shrinks 0.3x a layer on its way back from l11 to l0, "
    "to 1.8e-06 of what it was: add residual connections or normalisation, or take rectifiers for "
    "sigmoids."
)


def test_a_gradient_that_shrinks_or_grows_layer_by_layer():
    assert str(diagnose(chain(LEVEL, FALLING[::-1]))[0]) == FALLING_VERDICT
    assert kinds(diagnose(chain(LEVEL, FALLING))) == [("exploding gradient", "l0")]
    assert kinds(diagnose(chain(FALLING, LEVEL))) == [("shrinking activations", "l11")]
    # Both ways at once is one disease: of how the weights were drawn.
    assert kinds(diagnose(chain(1 / FALLING, FALLING))) == [("growing activations", "l11")]
    assert diagnose(chain(LEVEL, LEVEL)) == ()


def test_it_is_said_where_float16_loses_the_gradient():
    (found,) = diagnose(chain(LEVEL, 1e-3 * FALLING[::-1]))
    lost = next(10 - i for i in range(11) if 1e-3 * 0.3 ** (i + 1) < 2.0**-25)
    assert f"is lost in float16 at l{lost}:" in found.sentence


def test_one_layer_alone_is_no_drift():
    jump = np.where(np.arange(12) < 11, 1e-5, 1.0)
    assert diagnose(chain(LEVEL, jump)) == ()
    assert drift({"a": 1.0, "b": 0.1}, ["a", "b"], -1) is None


def test_a_drift_stands_within_a_longer_chain():
    parts = np.concatenate([np.full(5, FALLING[-1]), FALLING[::-1], LEVEL])
    (found,) = diagnose(chain(np.ones(len(parts)), parts))
    assert found.kind == "vanishing gradient"
    assert "back from l16 to l0" in found.sentence or "back from l16 to l4" in found.sentence


def test_chains_are_what_lies_in_one_layer_and_the_turns_of_a_loop():
    layers = ["a", "relu", "b/x", "b/y", "b", "loop/h[0]", "loop/h[1]", "t[step 0]", "t[step 1]"]
    found = chains(layers, ["a", "b/x", "b/y"])
    assert [(c.layers, c.unit) for c in found] == [
        (("a", "b"), "layer"),
        (("b/x", "b/y"), "layer"),
        (("loop/h[0]", "loop/h[1]"), "layer"),
        (("t[step 0]", "t[step 1]"), "step"),
    ]


def test_steps_of_a_loop_have_a_limit_of_their_own():
    def steps(rate):
        names = [f"cell[step {i}]" for i in range(12)]
        adjoint = {name: rate ** (11 - i) for i, name in enumerate(names)}
        return {"value": dict.fromkeys(names, 1.0), "adjoint": adjoint, "element": adjoint}

    assert diagnose(steps(0.3)) == ()  # 1.8e-6 still counts in a sum in float32
    (found,) = diagnose(steps(0.1))
    assert (found.kind, found.layer) == ("vanishing gradient", "cell[step 0]")
    assert "0.1x a step" in found.sentence
    assert "LSTM" in found.sentence


def test_dead_units_are_named_where_they_die():
    silent = {"a": 0.0, "a/relu": 0.0, "b": 0.4, "b/relu": 0.4, "pool": 0.4, "c": 0.1}
    looks = dict.fromkeys(silent, 500.0)
    (found,) = diagnose({"silent": silent, "looks": looks})
    assert (found.kind, found.layer, found.figure) == ("dead units", "b/relu", 0.4)
    assert "likewise" not in found.sentence
    assert diagnose({"silent": silent, "looks": dict.fromkeys(silent, 32.0)}) == ()


def test_a_branch_without_gradient():
    gradient = {"left/a": 1.0, "right/a": 0.0, "right/b": 0.0, "head": 1.0, "side": 0.0}
    (found,) = diagnose({"gradient": gradient})
    assert (found.kind, found.layer) == ("no gradient", "right")
    assert "likewise at side:" in found.sentence


def test_steps_too_large_too_small_and_lost():
    def step(ratio, **more):
        weights, update = {"a": 1.0, "b": 1.0}, {"a": ratio / 2, "b": ratio}
        return {"weights": weights, "update": update, "step": {"all": ratio}} | more

    (large,) = diagnose(step(0.5))
    assert (large.kind, large.layer) == ("step too large", "b")
    assert "divide the learning rate by 100 " in large.sentence
    assert kinds(diagnose(step(1e-8))) == [("step too small", "")]
    assert kinds(diagnose(step(0.01, lost={"a": 0.9, "b": 0.1}))) == [("update lost", "a")]
    assert diagnose(step(0.01)) == diagnose(step(0.0)) == ()


def test_underflow_is_named_at_the_first_layer_on_the_way_back():
    element = {"a": 0.0, "b": 1e-6, "c": 1e-3}
    (found,) = diagnose({"element": element, "tiny": dict.fromkeys(element, 6.1e-5)})
    assert (found.kind, found.layer) == ("underflow", "b")
    assert "all are 0 from a back" in found.sentence


def test_what_is_not_finite_is_said_alone():
    figures = chain(LEVEL, FALLING, nonfinite={"l0": 0.0, "l1": 1.0, "l2": 1.0})
    assert kinds(diagnose(figures)) == [("not finite", "l1")]
    assert kinds(diagnose({"gradient": {"a": math.nan}})) == [("not finite", "a")]


def test_many_steps_are_one_record():
    records = [
        {"silent": {"a": s}, "gradient": {"a": g}, "step": {"all": u}, "value": {"a": v}}
        for s, g, u, v in [(1, 0, 9, 1), (0.5, 0, 1, 2), (0.2, 0, 1, 3), (0.4, 1, 2, 8)]
    ]
    found = typical(records)
    assert found["silent"] == {"a": 0.2}
    assert found["gradient"] == {"a": 1}
    assert found["step"] == {"all": 9}
    assert found["value"] == {"a": 5.5}
    lost = {"value": {"a": math.nan}, "nonfinite": {"a": 1.0}, "step": {"all": math.inf}}
    assert kinds(diagnose(typical([*records, lost]))) == [("not finite", "a")]


def rows(losses, held=None, right=None, held_right=None):
    columns = {"loss": losses, "val_loss": held, "accuracy": right, "val_accuracy": held_right}
    given = {name: column for name, column in columns.items() if column is not None}
    return [dict(zip(given, row, strict=True)) for row in zip(*given.values(), strict=True)]


FALL = [2.0, 1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02]
COURSES = {
    "over-fitting": rows(FALL, None, [0.5] * 7 + [1.0], [0.5] * 7 + [0.8]),
    "over-fitting ": rows(FALL, [2.0, 1.0, 0.8, 0.9, 1.1, 1.2, 1.3, 1.4]),
    "diverged": rows([2.0, 3.0, math.nan]),
    "loss rises": rows([1.0, 2.0, 3.0]),
    "loss oscillates": rows([2.0, 1.0, 2.0, 1.2, 1.9, 1.0, 1.7, 1.0]),
    "loss hardly moves": rows([2.3, 2.299, 2.299, 2.298, 2.298]),
}


@pytest.mark.parametrize("kind", COURSES)
def test_a_course_that_goes_wrong(kind):
    found = fn.History(tuple(COURSES[kind])).verdicts()
    assert [verdict.kind for verdict in found.verdicts] == [kind.strip()]
    assert found
    for form in (str(found), html.unescape(found.html())):
        assert found.verdicts[0].sentence in " ".join(form.split())


@pytest.mark.parametrize(
    "run",
    [
        [],
        rows(FALL),
        rows([3e-9, 1e-9, 4e-9, 1e-9, 5e-9], None, [1.0] * 5),
        rows(FALL, [2.0, 1.0, 0.8, 0.7, 0.7, 0.65, 0.66, 0.7], [0.5] * 7 + [0.99], [0.93] * 8),
    ],
)
def test_a_course_that_goes_well(run):
    found = course(run)
    assert not found
    assert str(found).endswith("Nothing is wrong with it.")


def test_limits_have_reasons_and_sources():
    page = (scores.ROOT / "docs/verdicts.md").read_text()
    for limit in LIMITS:
        assert limit.reason
        assert limit.source
        assert f"| {limit.name} |" in page


def two(params, x, y):
    """A network in two named layers."""
    with jax.named_scope("hidden"):
        h = jax.nn.relu(x @ params["hidden"]["w"])
    with jax.named_scope("head"):
        z = h @ params["head"]["w"]
    return jnp.mean((z - y) ** 2)


@pytest.fixture(scope="module")
def example():
    keys = jax.random.split(jax.random.key(0), 3)
    params = {"hidden": {"w": jax.random.normal(keys[0], (3, 4))}}
    params["head"] = {"w": jax.random.normal(keys[1], (4, 2))}
    return params, jax.random.normal(keys[2], (8, 3)), jnp.ones((8, 2))


@pytest.fixture(scope="module")
def found(example):
    params, x, y = example
    return fn.health(two, over=[(x[:4], y[:4]), (x[4:], y[4:])], optimizer=optax.sgd(0.01))(params)


def test_the_figures_are_those_of_jax(example, found):
    params, x, y = example
    h = jax.nn.relu(x @ params["hidden"]["w"])
    halves = [jax.grad(two)(params, x[i : i + 4], y[i : i + 4]) for i in (0, 4)]
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *halves)
    figures = found.figures
    sizes = [float(jnp.sqrt(jnp.mean(half**2))) for half in (h[:4], h[4:])]
    np.testing.assert_allclose(figures["value"]["hidden"], np.mean(sizes), rtol=1e-5)
    w, g = params["head"]["w"], mean["head"]["w"]
    np.testing.assert_allclose(figures["gradient"]["head"], jnp.sqrt(jnp.mean(g**2)), rtol=1e-5)
    ratio = 0.01 * jnp.linalg.norm(g) / jnp.linalg.norm(w)
    np.testing.assert_allclose(figures["update"]["head"], ratio, rtol=1e-5)
    flat = [np.concatenate([a.ravel() for a in jax.tree.leaves(half)]) for half in halves]
    apart = np.sum((flat[0] - flat[1]) ** 2) / 2  # the variance of two, summed
    middle = np.sum(((flat[0] + flat[1]) / 2) ** 2) - apart / 2
    np.testing.assert_allclose(found.noise, apart / middle, rtol=1e-3)
    assert figures["silent"]["hidden"] == np.mean(~np.any(np.asarray(h) != 0, axis=0))


def test_it_reads_and_is_false_when_all_is_well(found):
    assert not found
    lines = str(found).splitlines()
    assert lines[0].split() == ["layer", "value", "adjoint", "gradient", "update"]
    assert [line.split()[0] for line in lines[2:4]] == ["hidden", "head"]
    assert max(map(len, lines)) <= 100
    assert lines[-1] == "Nothing is wrong with it."
    assert found.heading == "health of two"
    assert "<h1>health of two</h1>" in found.html()


def test_an_empty_array_has_no_figures():
    report = fn.health(lambda p: jnp.sum(p["w"]) + jnp.sum(p["none"]["w"]))(
        {"w": jnp.ones(3), "none": {"w": jnp.ones((0, 3))}}
    )
    assert not report
    assert "none" not in report.figures["gradient"]


def test_refusals(example):
    params, x, y = example
    with pytest.raises(TypeError, match=r"health: expected an optimiser with init and update, got"):
        fn.health(two, optimizer=optax.sgd)
    with pytest.raises(ValueError, match=r"health: expected one batch or more, got none\. Give"):
        fn.health(two, over=[])(params)
    with pytest.raises(TypeError, match=r"expected over to hold batches, each a tuple .* got Arr"):
        fn.health(two, over=x)(params)
    with pytest.raises(ValueError, match=r"expected batches that are alike, got .*Leave out a sm"):
        fn.health(two, over=[(x, y), (x[:2], y[:2])])(params)
    with pytest.raises(TypeError, match=r"health: expected an array as y, got a ShapeDtypeStruct"):
        fn.health(two)(params, x, jax.ShapeDtypeStruct(y.shape, y.dtype))
    with pytest.raises(ValueError, match=r"health: expected wrt among the arguments 0 to 2, got 3"):
        fn.health(two, wrt=3)(params, x, y)
    given = (fn.Dense(2), fn.squared_error, optax.sgd(0.1), (x, y))
    for wrong in (0, 2.5, "often"):
        with pytest.raises(ValueError, match=r"fit: expected health to be a whole number of steps"):
            fn.fit(*given, epochs=1, batch=4, health=wrong)


def test_parameters_by_module_and_how_deep_they_are_stacked():
    w, b = jnp.ones((5, 3)), jnp.ones(5)
    assert module_names({"a": {"w": w, "b": b}, "c": w}) == ["a", "a", "c"]
    assert module_names([(w, b), (w, b)]) == ["0", "0", "1", "1"]
    assert module_names(w) == ["parameters"]
    assert depths({"h": w, "x": w.T}) == depths(w) == frozenset()
    assert depths({"blocks": jnp.ones((7, 3, 3))}) == {7}
    assert depths({"blocks": {"w": w, "b": b}, "head": {"w": w.T, "b": b}}) == {5}


def test_fit_looks_at_itself_and_changes_nothing(example, tmp_path):
    _, x, y = example
    net = fn.serial(fn.Dense(4), fn.relu, head=fn.Dense(2))
    given = (net, fn.squared_error, optax.sgd(0.1), (x, y))
    options = {"epochs": 3, "batch": 4, "progress": False}
    plain, seen = (fn.fit(*given, **options, **more) for more in ({}, {"health": 4}))
    jax.tree.map(np.testing.assert_array_equal, plain.state.params, seen.state.params)
    assert plain.history.column("loss") == seen.history.column("loss")
    assert plain.history.health == ()
    assert [record["step"] for record in seen.history.health] == [0, 4]
    figures = seen.history.health[0]["figures"]
    assert list(figures["value"]) == ["dense", "relu", "head"]
    first = next(fn.data.batches((np.asarray(x), np.asarray(y)), 4, seed=0, epoch=0))
    params, _ = net.init(jax.random.key(0), x[:4])
    grads = jax.jit(jax.grad(lambda p: fn.squared_error(net(p, first[0]), first[1])))(params)
    size = jnp.sqrt(jnp.mean(jnp.square(jnp.append(grads["head"]["w"], grads["head"]["b"]))))
    np.testing.assert_allclose(figures["gradient"]["head"], size, rtol=1e-5)
    seen.history.save(tmp_path / "history.jsonl")
    assert fn.History.load(tmp_path / "history.jsonl") == seen.history
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 3 + 2
    seen.history.plot(tmp_path / "curves.png")
    with_layers, without = (picture(tmp_path, run.history) for run in (seen, plain))
    assert (with_layers, without) == (6, 2)  # of six, four are taken: loss, pace, adjoints, updates
    assert "head" in str(seen.history.verdicts())


def picture(folder, history):
    """How many panels the curves have room for, three at most side by side."""
    history.plot(folder / "curves.png")
    size = (folder / "curves.png").read_bytes()[16:24]
    width, height = (int.from_bytes(part, "big") for part in (size[:4], size[4:]))
    return round(width / 720) * round(height / 525)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("planted", scores.PLANTED, ids=lambda planted: planted.name)
def test_what_is_planted_is_named_with_its_layer(planted):
    found = planted.make()
    assert kinds(found.verdicts)[0] == (planted.kind, planted.layer)
    assert found


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("well", scores.WELL, ids=lambda well: well.name)
def test_what_is_well_is_silent(well):
    history = scores.trained(well)
    assert not fn.History(health=history.health[:1]).verdicts(), "at its start"
    assert not history.verdicts(), "while it is trained"


@pytest.mark.slow
@pytest.mark.long
def test_a_weight_that_starts_as_zero_is_no_disease():
    net = fn.nets.ResNet(8, 10, zero_init=True)
    x, y = scores.images(8)
    params, state = net.init(jax.random.key(0), x[:64])

    def loss(params, x, y):
        return fn.cross_entropy(net.apply(params, state, x, train=True)[0], y)

    found = fn.health(loss)(params, x[:64], y[:64])
    assert min(found.figures["gradient"].values()) == 0
    assert not found.verdicts
