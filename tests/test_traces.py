"""The lecture's trace row for row, and what a trace says of any other function."""

import dataclasses
import json
import math
import os
import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet.traces.lecture import example
from funcnet.traces.trace import Trace

GOLDEN = Path(__file__).parent / "golden"
HERE = str(Path(fn.__file__).parent)


@pytest.fixture(scope="module")
def slide():
    return dataclasses.replace(example(), header={})


PRIMAL = [
    ("v-1", "x1", "2"), ("v0", "x2", "5"), ("v1", "log(v-1)", "0.69315"), ("v2", "v-1 * v0", "10"),
    ("v3", "sin(v0)", "-0.95892"), ("v4", "v1 + v2", "10.693"), ("v5", "v4 - v3", "11.652"),
]  # fmt: skip
ADJOINT = [
    ("v5", "seed", "1", "1"), ("v4", "v5'", "1", "1"), ("v3", "-v5'", "-1", "-1"),
    ("v1", "v4'", "1", "1"), ("v2", "v4'", "1", "1"),
    ("v0", "v3' * cos(v0)", "-0.28366", "-0.28366"), ("v-1", "v2' * v0", "5", "5"),
    ("v0", "v-1 * v2'", "2", "1.7163"), ("v-1", "v1'/v-1", "0.5", "5.5"),
]  # fmt: skip


def test_the_lecture_row_for_row(slide):
    assert [(r.name, r.expression, r.value.text) for r in slide.rows] == PRIMAL
    found = [(c.target, c.formula, c.value.text, c.total.text) for c in slide.contributions]
    assert found == ADJOINT
    tangents = [r.tangent.text for r in slide.rows]
    assert tangents == ["1", "0", "0.5", "5", "0", "5.5", "5.5"]
    assert [r.variable for r in slide.rows] == ["x1", "x2", "v1", "v2", "v3", "v4", "y"]
    assert [float(g) for g in slide.gradients] == pytest.approx([5.5, 5 * 0 + 2 - np.cos(5)])


def test_local_rules_are_derived(slide):
    rules = [slide.in_variables(rule) for row in slide.rows for rule in row.rule]
    assert rules == [
        "x1' += v1'/x1", "x1' += v2' * x2", "x2' += x1 * v2'", "x2' += v3' * cos(x2)",
        "v1' += v4'", "v2' += v4'", "v4' += y'", "v3' += -y'",
    ]  # fmt: skip
    assert slide["v3"].kept == ("cos(v0)",)


def test_golden_text_and_latex(slide):
    for name, made in (("lecture.txt", str(slide) + "\n"), ("lecture.tex", slide.latex())):
        path = GOLDEN / name
        if os.environ.get("WRITE_GOLDEN"):
            path.write_text(made)
        assert made == path.read_text(), name


def test_golden_json_and_html(slide):
    plain = slide.json().replace(HERE, "funcnet")
    path = GOLDEN / "lecture.json"
    if os.environ.get("WRITE_GOLDEN"):
        path.write_text(json.dumps(json.loads(plain), indent=1) + "\n")
    golden = json.loads(path.read_text())
    agrees(json.loads(plain), golden)
    page = slide.html().replace(HERE, "funcnet")
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)[1]
    agrees(json.loads(data), golden)
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|fetch\(|https?:", page)


def agrees(a, b):
    """Equal, numbers to what float32 can hold."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            if name != "line":
                agrees(a[name], b[name])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            agrees(x, y)
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-6, abs=1e-6)
    else:
        assert a == b


def test_it_loads_as_it_was_saved(slide, tmp_path):
    again = Trace.load(slide.json())
    assert str(again) == str(slide)
    assert again.json() == slide.json()
    assert again["x1"].adjoint.array == np.float32(5.5)
    path = tmp_path / "trace.json"
    path.write_text(slide.json())
    assert Trace.load(path).svg() == Trace.load(str(path)).svg() == slide.svg()


def test_values_that_json_has_no_number_for():
    def f(x, z):
        return jnp.sum(x / jnp.array([0.0, 1.0])) + jnp.abs(z)

    trace = fn.trace(f)(jnp.array([1.0, jnp.nan]), jnp.complex64(1 + 2j))
    text = trace.json()
    assert "Infinity" in text
    assert json.loads(text, parse_constant=pytest.fail)
    again = Trace.load(text)
    assert again.json() == text
    assert again["z"].value.array == 1 + 2j
    assert np.isinf(again["v1"].value.array[0])


def net_and_loss():
    @fn.network(up=fn.Dense(4), down=fn.Dense(2))
    def net(net, x):
        hidden = fn.relu(net.up(x))
        return net.down(hidden)

    x = jnp.arange(6.0).reshape(2, 3) / 6
    params, _ = net.init(jax.random.key(0), x)

    def loss(params, x):
        y = net(params, x)
        error = y - 1.0
        return jnp.sum(error**2)

    return loss, params, x


@pytest.fixture(scope="module")
def network():
    loss, params, x = net_and_loss()
    return fn.trace(loss, wrt=0)(params, x)


def test_rows_are_found_by_name_variable_layer_and_number(network):
    assert network["up"].op == "dense"
    assert network["up"].scope == "up"
    assert network["error"].expression == "v3 - 1"
    assert network["hidden"] is network["v2"]
    assert network["params['up']['w']"] is network["v-1"]
    assert network[-1].name == "v6"
    assert network[-1].value.shape == ()
    assert [row.name for row in network.select("down")] == ["v3"]
    assert network["error"].source.code == "error = y - 1.0"
    assert network["x"].active is False
    assert network["x"].adjoint is None
    with pytest.raises(KeyError, match="expected a row, a variable or a layer, got 'don'"):
        network["don"]
    with pytest.raises(KeyError, match="The nearest are down"):
        network["don"]


def test_a_rule_shows_its_own_lines(network):
    row = network["down"]
    assert row.kind == "rule"
    assert row.kept == ("v2", "v-3")
    assert row.inside[0].expression == "v2 @ v-3"
    (code,) = {line.source.code for line in row.backward}
    assert code == "return dy @ w.T, rows.T @ drows, folded(widened(drows))"
    assert any(line.expression == "v3' @ b1" for line in row.backward)
    assert [c.source for c in network["hidden"].contributions] == ["v3"]


def test_gradients_have_the_structure_asked_for():
    loss, params, x = net_and_loss()
    one = fn.trace(loss, wrt=0)(params, x)
    true = jax.grad(loss)(params, x)
    assert jax.tree.structure(one.gradients) == jax.tree.structure(true)
    both = fn.trace(loss)(params, x).gradients
    assert len(both) == 2
    assert both[1].shape == x.shape
    jax.tree.map(np.testing.assert_allclose, one.gradients, true)
    check = one.check()
    assert check.difference <= 1e-6 < check.scale
    assert check.against == "jax.vjp"


def test_loops_name_their_iterations():
    def f(h, xs):
        def body(h, x):
            h = jnp.sin(h) * x
            return h, h + 1

        h, ys = jax.lax.scan(body, h, xs)
        return h + jnp.sum(ys)

    trace = fn.trace(f)(0.5, jnp.arange(1.0, 6.0))
    assert trace["v2[3]"].expression == "v1[3] * v0[3]"
    assert trace["v2[3]"].variable == "h"
    assert trace["v2[3]"].within == ("scan", "iteration 3")
    assert [c.source for c in trace["v2[3]"].contributions] == ["v1[4]", "v3[3]"]
    assert trace["v4"].expression == "stack(v3[0], ..., v3[4])"
    assert trace["xs"].contributions[0].formula == "stack(v0[0]', ..., v0[4]')"
    shown = str(trace)
    assert "\nv2[4]" in shown
    assert "\nv2[3]" not in shown
    assert "contributions are not shown" in shown


@pytest.mark.long
def test_sampled_loops_are_as_right():
    def f(w, xs):
        h, ys = jax.lax.scan(lambda h, x: (jnp.tanh(w * h + x), h), 0.1, xs)
        return h + jnp.sum(ys**2)

    args = 0.7, jnp.linspace(-1, 1, 40)
    trace = fn.trace(f, sample=3)(*args)
    true = jax.grad(f, (0, 1))(*args)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), trace.gradients, true)
    opened = {r.name.partition("[")[2] for r in trace.rows if r.op == "tanh"}
    assert opened == {"0]", "20]", "39]"} or opened == {"0]", "19]", "39]"}
    assert any(r.op == "scan" and "[1:" in r.name for r in trace.rows)


def grown(x):
    def body(pair):
        x, y = pair
        return x * 1.5, y * x

    return jax.lax.while_loop(lambda pair: pair[0] < 10, body, (x, 1.0))[1]


@pytest.mark.long
@pytest.mark.parametrize("sample", [None, 2])
def test_reverse_through_a_dynamic_while_loop(sample):
    trace = fn.trace(grown, sample=sample)(2.0)
    assert trace.gradients[0] == pytest.approx(jax.jacfwd(grown)(2.0))
    assert trace.check().against == "jax.jvp"
    assert trace.check().difference < 1e-3
    with pytest.raises(ValueError, match="Reverse-mode"):
        jax.grad(grown)(2.0)


def test_branches_and_remat_are_named():
    def f(x):
        keep = jax.checkpoint_policies.save_only_these_names("dense")
        h = jax.lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x)
        return jax.checkpoint(lambda h: jnp.sum(jnp.tanh(fn.dense(h, h))), policy=keep)(h)

    trace = fn.trace(f)(jnp.ones((2, 2)))
    assert [r.within for r in trace.rows if r.op == "sin"] == [("branch 1 of 2",)]
    assert not [r for r in trace.rows if r.op == "cos"]
    memory = {r.op: r.memory for r in trace.rows}
    assert memory["tanh"] == "recomputed"
    assert memory["dense"] == "saved"
    assert memory["sin"] == ""


def test_seeds_choose_what_is_differentiated():
    def f(x):
        return jnp.sin(x), {"aux": x * 2, "count": 3}

    trace = fn.trace(f, seed=(jnp.ones(2), {"aux": None, "count": None}))(jnp.ones(2))
    np.testing.assert_allclose(trace.gradients[0], jnp.cos(jnp.ones(2)), rtol=1e-6)
    assert trace.output[1]["count"] == 3
    assert trace.check().difference == 0


def test_it_runs_inside_transformations():
    def f(x):
        return jnp.sum(jnp.where(x > 0, jnp.sin(x), x))

    inside = jax.jit(lambda x: fn.trace(f)(x).gradients[0])(jnp.ones(3))
    np.testing.assert_allclose(inside, jnp.cos(jnp.ones(3)), rtol=1e-6)
    mapped = jax.vmap(lambda x: fn.trace(f)(x).gradients[0])(jnp.ones((2, 3)))
    np.testing.assert_allclose(mapped, jnp.cos(jnp.ones((2, 3))), rtol=1e-6)
    shown = []
    jax.jit(lambda x: shown.append(str(fn.trace(f)(x))) or x)(jnp.ones(3))
    assert "float32[3]" in shown[0]


def test_a_new_primitive_and_one_without_a_derivative_fail_nothing():
    def f(x):
        y = jax.pure_callback(lambda y: np.asarray(y) * 2, jax.ShapeDtypeStruct((3,), x.dtype), x)
        return jnp.sum(x**2), y

    trace = fn.trace(f, seed=(1.0, None))(jnp.ones(3))
    row = next(r for r in trace.rows if r.op == "pure_callback")
    assert row.note.startswith("no derivative: ")
    assert not row.active
    np.testing.assert_allclose(trace.gradients[0], 2 * jnp.ones(3))


@pytest.mark.long
def test_low_precision_and_large_values():
    def f(x):
        return jnp.sum(jnp.tanh(x) * 2).astype(jnp.float32)

    x = jnp.linspace(-1, 1, 50, dtype=jnp.bfloat16)
    trace = fn.trace(f)(x)
    assert trace["x"].value.array is None
    assert trace["x"].value.stats.high == 1
    assert trace["x"].value.text.startswith("norm ")
    assert trace.gradients[0].dtype == x.dtype
    assert fn.trace(f, keep="all")(x)["v1"].value.array.shape == (50,)
    bad = fn.trace(lambda x: jnp.sum(jnp.sqrt(x)))(jnp.linspace(-1, 1, 50))
    assert bad["v1"].value.stats.nonfinite == pytest.approx(0.5)
    assert "not finite" in str(bad)


def test_symbolic_traces_pair_by_line():
    loss, params, x = net_and_loss()
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (params, x))
    symbolic = fn.trace(loss, wrt=0).abstract(*shapes)
    assert symbolic.attributed == 1.0
    pair = next(p for p in symbolic.pairs if p.source.code == "error = y - 1.0")
    assert [e.text for e in pair.forward] == ["v9 = v8 - 1"] or pair.forward
    squared = next(p for p in symbolic.pairs if "error**2" in p.source.code)
    assert squared.reverse
    assert squared.kept[0].type == "float32[2,2]"
    assert {p.scope.split("/")[0] for p in symbolic.pairs} >= {"up", "down"}
    assert "Kept between the passes" in str(symbolic)
    trace = fn.trace(loss, wrt=0)(params, x)
    assert len(trace.reverse_jaxpr.eqns) == len(symbolic.reverse_jaxpr.eqns)
    assert len(trace.forward_jaxpr.eqns) > 5
    assert Trace.load(trace.json()).forward_jaxpr is None


def test_pictures(network):
    dot = network.dot()
    assert dot.count("subgraph cluster_") >= 2
    assert '"v2" -> "v3";' in dot
    assert re.search(r'"v6" \[label="\{v6 = reduce_sum\|\{[\d.]+\|1\}\}"', dot)
    svg = network.svg()
    assert svg.count('<rect class="n"') == len(network.rows)
    assert ">up</text>" in svg
    assert network._repr_html_().startswith("<iframe srcdoc=")


@pytest.mark.long
def test_large_pages_are_packed():
    def deep(x):
        for _ in range(300):
            x = jnp.sin(x) * 2
        return jnp.sum(x)

    page = fn.trace(deep)(jnp.ones(8)).html()
    assert 'type="application/gzip"' in page
    assert len(page) < 100_000


def effect(x):
    jax.experimental.io_callback(lambda y: None, None, x)
    return x


def deleted():
    x = jnp.ones(2)
    x.delete()
    return x


LOOP = partial(jax.lax.while_loop, lambda x: x > 0, lambda x: x + 1.0)
LOOKS = "{}: expected a function of jax.numpy, got {}, which asks for the numbers in an array. "
LOOKS += "Write jnp for math and np."
NO_REVERSE = (
    "{}: expected a gradient that JAX can send back, got one through a while_loop, or a fori_loop "
    "of unknown length. Write jax.lax.scan, or fori_loop with fixed ends; or call "
    "trace(f)(...), which opens the loop."
)
MESSAGES = [
    (lambda: fn.trace(math.sin)(1.0), TypeError, LOOKS.format("trace", "the function sin")),
    (lambda: fn.trace(math.sin).abstract(1.0), TypeError,
     LOOKS.format("trace", "the function sin")),
    (lambda: fn.watch(np.sin)(1.0), TypeError, LOOKS.format("watch", "the function sin")),
    (lambda: fn.trace(grown).abstract(2.0), ValueError, NO_REVERSE.format("trace")),
    (lambda: fn.watch(grown)(2.0), ValueError, NO_REVERSE.format("watch")),
    (lambda: fn.capture(grown, "v3.1")(2.0), ValueError, NO_REVERSE.format("capture")),
    (lambda: fn.trace(effect)(1.0), ValueError,
     "trace: expected a function without side effects, got IOEffect. Take the callback out: what "
     "it would be given stands in the trace."),
    (lambda: fn.trace(jnp.sin)(jnp.ones(2)), ValueError,
     "trace: expected one real number as output, or a seed, got float32 of shape (2,). Pass seed=, "
     "the adjoint of the output: an array of its shape, or a pytree like it with None where "
     "nothing starts."),
    (lambda: fn.trace(lambda x: (x, x))(1.0), ValueError,
     "trace: expected one real number as output, or a seed, got 2 outputs. Pass seed=, the adjoint "
     "of the output: an array of its shape, or a pytree like it with None where nothing starts."),
    (lambda: fn.trace(lambda x: (x, x), seed=1.0)(1.0), ValueError,
     "trace: expected a seed like the output, PyTreeDef((*, *)), got PyTreeDef(*). Write None "
     "where nothing starts."),
    (lambda: fn.trace(jnp.sin, seed=jnp.ones(3))(jnp.ones(2)), ValueError,
     "trace: expected a seed of shape (2,) for an output of float32, got one of shape (3,). It is "
     "the adjoint of the output."),
    (lambda: fn.trace(lambda x, n: x * n, wrt=1)(1.0, 2), TypeError,
     "trace: expected wrt to name arguments of a floating dtype, got argument 1 of int32. An "
     "integer has no gradient."),
    (lambda: fn.trace(lambda x: x, wrt=(0, 2))(1.0), ValueError,
     "trace: expected wrt among the arguments 0 to 0, got 2. It counts positional arguments, as "
     "argnums of jax.grad does."),
    (lambda: fn.trace(LOOP, max_iterations=5)(1.0), ValueError,
     "trace: expected loops of at most 5 iterations, got a while of more. Pass sample=8 to open "
     "eight of them, or a larger max_iterations."),
    (lambda: fn.trace(lambda x: jnp.sum(jax.lax.map(jnp.sin, x)), max_iterations=5)(jnp.ones(9)),
     ValueError,
     "trace: expected loops of at most 5 iterations, got a scan of 9 (test_traces.py:"),
    (lambda: fn.trace(jnp.sum)(deleted()), ValueError,
     "trace: expected arrays that are still there, got a deleted one of float32[2]. It was donated "
     "to a jitted function: pass what that returned, or a copy made before."),
    (lambda: fn.trace(jnp.add, tangents=1.0)(2.0, 5.0), ValueError,
     "trace: expected tangents for 2 arguments, got float. Give one for each argument, None for "
     "one that does not move."),
    (lambda: Trace.load('{"schema": "other"}'), ValueError,
     "Trace.load: expected a document of the schema funcnet.trace/1, got 'other'. Write one with "
     "trace.json()."),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES, ids=[m[2][:48] for m in MESSAGES])
def test_bad_input_is_one_sentence(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(message)
    assert type(caught.value) is error
