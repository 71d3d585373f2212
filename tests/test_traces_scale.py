"""Traces of many rows: folded by layer, fitted to a terminal, made without compiling much."""

import functools
import json
import math
import os
import re
import subprocess
import sys

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet.jaxpr import concrete, jaxprs
from funcnet.jaxpr.passes import quickly
from funcnet.render import forms, text
from funcnet.traces.fold import scale
from funcnet.traces.run.local import clause
from funcnet.traces.trace import Trace


def deep(params, x):
    """Layers, of which one has a parameter that no gradient comes to, and a scan over time."""
    with jax.named_scope("first"):
        h = jnp.tanh(x @ params["first"]["w"] + params["first"]["b"])
    with jax.named_scope("dead"):
        h = h + jax.nn.relu(params["dead"]["w"] - 10.0)

    def turn(h, w):
        with jax.named_scope("cell"):
            return jnp.tanh(w * h), None

    h, _ = jax.lax.scan(turn, h, params["scanned"])
    for _ in range(30):
        h = h * 0.5
        h = h + 1e-3
    return jnp.sum(h**2)


@functools.cache
def of_deep():
    params = {
        "first": {"w": jnp.full((3, 4), 0.1), "b": jnp.zeros(4)},
        "dead": {"w": jnp.ones(4)},
        "scanned": jnp.linspace(0.5, 1.0, 3),
    }
    return fn.trace(deep, wrt=0)(params, jnp.ones((2, 3)))


def test_a_long_trace_prints_its_layers_and_the_rest_when_asked(monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    trace = of_deep()
    shown = str(trace)
    assert len(trace.rows) > 60
    assert shown.startswith("Layers of deep\nlayer")
    assert len(shown.splitlines()) < 20
    assert max(map(len, shown.splitlines()[:-2])) <= 90
    assert "print(t.table())" in shown
    assert shown.splitlines()[-1].startswith("Checked against jax.vjp: the largest difference is ")
    whole = trace.table()
    assert whole.startswith("Forward primal trace of deep")
    assert all(f"\n{row.name} " in whole for row in trace.rows if "[1]" not in row.name)
    assert str(Trace.load(trace.json())) == shown


def test_a_short_trace_prints_its_rows(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    trace = fn.trace(lambda x: jnp.sum(jnp.sin(x)))(jnp.ones(3))
    assert str(trace).startswith("Forward primal trace")
    assert str(trace) == trace.table()


def test_the_layers_have_the_norms_of_the_gradient():
    trace = of_deep()
    layers = trace.layers()
    assert [x.name for x in layers][:2] == ["first", "dead"]
    assert [x.name for x in layers if "cell" in x.name] == [f"scan[{i}]/cell" for i in range(3)]
    squares = [x.gradient**2 for x in layers if x.gradient is not None]
    whole = math.hypot(*(float(jnp.linalg.norm(g)) for g in jax.tree.leaves(trace.gradients)))
    assert math.sqrt(sum(squares)) == pytest.approx(whole, rel=1e-5)
    for i in range(3):
        found = layers[f"scan[{i}]/cell"].gradient
        assert found == pytest.approx(abs(float(trace.gradients["scanned"][i])), rel=1e-5)
    first = layers["first"]
    assert first.adjoint == pytest.approx(trace["first"].adjoint.stats.norm)
    assert first.value == pytest.approx(trace["first"].value.stats.norm)
    assert layers["dead"].gradient == 0
    assert "gradient 0" in layers["dead"].says
    assert len(layers) == len(tuple(layers))
    assert layers[0] is layers["first"]


def test_layers_are_sorted_and_cut_at_a_depth():
    trace = of_deep()
    sizes = [x.adjoint for x in trace.layers(sort="adjoint")]
    assert sizes == sorted(sizes, reverse=True)
    assert [x.adjoint for x in trace.layers(sort="adjoint", reverse=True)] == sizes[::-1]
    names = [x.name for x in trace.layers(depth=1)]
    assert "scan[2]" in names
    assert not any("/" in name for name in names)
    assert sum(x.rows for x in trace.layers(depth=1)) == sum(x.rows for x in trace.layers())


def test_a_gradient_lost_beside_the_others_of_its_layer_is_named():
    def f(p):
        with jax.named_scope("pair"):
            return jnp.sum(p["large"] ** 2) + 1e-12 * jnp.sum(p["small"])

    (layer,) = fn.trace(f)({"large": jnp.ones(3), "small": jnp.ones(3)}).layers()
    assert layer.name == "pair"
    assert re.fullmatch(r"p\['small'\] 1\.7\de-12", layer.says)


def test_nan_is_said_and_stands_first():
    def f(x):
        with jax.named_scope("good"):
            y = x * 2.0
        with jax.named_scope("bad"):
            z = jnp.log(y - 10.0)
        return jnp.sum(z)

    layers = fn.trace(f)(jnp.ones(3)).layers(sort="value")
    assert "value not finite" in layers["bad"].says
    assert "adjoint not finite" not in layers["bad"].says


def test_parameters_that_are_cast_first_belong_to_the_layer_that_reads_them():
    def f(w, x):
        w = w.astype(jnp.bfloat16).T
        with jax.named_scope("dense"):
            return jnp.sum(x @ w.astype(jnp.float32))

    layers = fn.trace(f, wrt=0)(jnp.ones((2, 3)), jnp.ones((4, 3)))
    found = {x.name: x.gradient for x in layers.layers()}
    assert found["dense"] is not None
    assert [name for name, x in found.items() if x is not None] == ["dense"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sort": "size"}, "layers: expected sort among program, value, adjoint, gradient, got "
         "'size'. The largest come first; reverse=True turns that round."),
        ({"depth": 0}, "layers: expected a depth of at least 1, or None for all, got 0. "
         "depth=1 shows the outermost layers alone."),
    ],
)  # fmt: skip
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        of_deep().layers(**options)


def test_a_name_that_is_no_layer():
    with pytest.raises(KeyError, match="a layer of this table"):
        of_deep().layers()["fist"]


def test_scales_and_bars():
    assert scale([0.5, 3e-7, 0.0, None]) == (1e-7, 1.0)
    assert scale([]) == (1e-4, 1.0)
    assert scale([2.0, 3.0]) == (1e-3, 10.0)
    widths = [len(text.bar(10.0**-i, 1e-8, 1.0)) for i in range(9)]
    assert widths == [8, 7, 6, 5, 4, 3, 2, 1, 1]
    assert text.bar(math.nan, 1e-8, 1.0) == text.bar(0.0, 1e-8, 1.0) == ""


def test_a_table_gives_way_where_it_may():
    columns = forms.Column("name", gives="start"), forms.Column("what", gives="end")
    form = forms.Table((*columns, forms.Column("n", right=True)), (("a" * 30, "b" * 40, "123"),))
    assert len(text.table(form).splitlines()[2]) == 77
    row = text.table(form, 50).splitlines()[2]
    assert len(row) == 50
    assert row.startswith("…a")
    assert row.endswith("b…  123")


def test_the_reverse_side_names_the_layer():
    table = of_deep().table()
    reverse = table[table.index("Reverse adjoint trace") :].splitlines()
    assert reverse[1].split() == ["adjoint", "variable", "+=", "value", "total", "from", "layer"]
    assert any(line.endswith("first") for line in reverse)
    assert any("scan/iteration 2" in line for line in reverse)


def test_a_custom_rule_says_its_name_and_its_derivation():
    net = fn.serial(fn.Dense(4), fn.LayerNorm(), head=fn.Dense(2))
    x = jnp.ones((3, 4)) * jnp.arange(4.0)
    params, _ = net.init(jax.random.key(0), x)
    trace = fn.trace(lambda p: jnp.sum(net(p, x) ** 2))(params)
    row = trace["layer_norm"]
    formulas = {c.target: c.formula for c in trace.contributions if c.source == row.name}
    scale_, shift = (trace[f"p['layer_norm']['{name}']"].name for name in ("scale", "shift"))
    first = formulas[row.operands[0]]
    assert first.startswith(f"layer_norm'({row.name}'): dx = r (scale dy")
    assert first.endswith("x̂ mean(scale dy x̂))")
    assert formulas[scale_] == f"layer_norm'({row.name}'): dscale = Σ x̂ dy"
    assert formulas[shift].startswith(f"layer_norm'({row.name}'): dshift = Σ dy")
    assert row.backward
    assert "..." not in "".join(formulas.values())
    assert ": dx" not in trace.latex()


def test_a_derivation_clause_by_clause():
    said = "With r = 1 / |x|, and sums over rows:\ndx = r dy;  dw[i] = Σ x\nover all;  db = Σ dy.\n"
    assert clause(said, "x") == "dx = r dy"
    assert clause(said, "w") == "dw[i] = Σ x over all"
    assert clause(said, "b") == "db = Σ dy"
    assert clause(said, "") == clause(said, "y") == "With r = 1 / |x|, and sums over rows"
    assert clause("", "x") == ""


def test_a_rule_of_another_library_says_its_first_line():
    @jax.custom_vjp
    def f(x):
        return jnp.tanh(x)

    def backward(x, dy):
        """The slope of a tanh, written out at length."""
        y = jnp.tanh(x)
        return (dy * (1 - y * y) * jnp.exp(x) / jnp.exp(x) + 0 * jnp.sin(jnp.cos(jnp.exp(x))),)

    f.defvjp(lambda x: (f(x), x), backward)
    trace = fn.trace(f)(0.5)
    assert trace["x"].contributions[0].formula == (
        "f'(v1'): The slope of a tanh, written out at length"
    )


NUMBERS = [0.0, -0.0, 1.5, -2.25, np.nan, np.inf, -np.inf, 3e38, 1e-38, 1e-40, 7.0]


@pytest.mark.parametrize("dtype", [np.float32, np.int32, bool])
def test_what_numpy_computes_is_what_jax_computes(dtype):
    grid = [np.array(x, np.float32).ravel() for x in np.meshgrid(NUMBERS, NUMBERS)]
    with np.errstate(all="ignore"):
        x, y = (np.nan_to_num(z, posinf=9, neginf=-9).clip(-9, 9).astype(dtype) if
                dtype is not np.float32 else z for z in grid)  # fmt: skip
    lax = jax.lax
    pairs = {
        np.float32: [lax.add, lax.sub, lax.mul, lax.div, lax.max, lax.min, lax.eq, lax.ne, lax.lt,
                     lax.le, lax.gt, lax.ge],
        np.int32: [lax.add, lax.sub, lax.mul, lax.max, lax.min, lax.eq, lax.lt],
        bool: [lax.bitwise_and, lax.bitwise_or, lax.eq],
    }[dtype]  # fmt: skip
    singles = [
        lambda x: lax.select(x > 0, x, -x) if dtype is not bool else lax.bitwise_not(x),
        lambda x: lax.broadcast_in_dim(x.reshape(11, 11), (11, 2, 11), (0, 2)),
        lambda x: x.reshape(11, 11).T[::-1],
        lambda x: lax.slice(x, (3,), (90,), (4,)),
        lambda x: lax.concatenate([x, x], 0),
        lambda x: lax.convert_element_type(x, jnp.float32),
        lambda x: lax.broadcasted_iota(jnp.int32, (3, 4), 1) + x.size,
        lambda x: jnp.max(x.reshape(11, 11), axis=0) if dtype is not bool else x,
        lambda x: x**3 if dtype is np.float32 else x,
    ]
    for f, args in [*((f, (x, y)) for f in pairs), *((f, (x,)) for f in singles)]:
        closed, _ = jaxprs.trace(f, *args)
        (found,), (true,) = concrete.evaluate(closed, *args), jaxprs.evaluate(closed, *args)
        assert found.dtype == true.dtype
        ours, theirs = (np.asarray(z).view(np.uint8).ravel() for z in (found, true))
        np.testing.assert_array_equal(ours, theirs, str(closed))


def test_what_is_large_traced_or_of_few_bits_is_left_to_jax():
    closed, _ = jaxprs.trace(jax.lax.add, *[jnp.ones(1 << 17)] * 2)
    assert isinstance(concrete.evaluate(closed, *[jnp.ones(1 << 17)] * 2)[0], jax.Array)
    half, _ = jaxprs.trace(jax.lax.add, *[jnp.ones(3, jnp.bfloat16)] * 2)
    assert isinstance(concrete.evaluate(half, *[jnp.ones(3, jnp.bfloat16)] * 2)[0], jax.Array)
    small, _ = jaxprs.trace(jax.lax.add, *[jnp.ones(3)] * 2)
    assert isinstance(concrete.evaluate(small, *[jnp.ones(3)] * 2)[0], np.ndarray)
    assert jax.jit(lambda x: concrete.evaluate(small, x, x)[0])(jnp.ones(3)).tolist() == [2.0] * 3


def test_output_and_gradients_are_arrays_of_jax():
    trace = of_deep()
    assert isinstance(trace.output, jax.Array)
    assert all(isinstance(g, jax.Array) for g in jax.tree.leaves(trace.gradients))


def test_what_is_compiled_quickly_is_the_same():
    assert float(quickly(lambda x: jnp.sum(x * x), jnp.arange(4.0))) == 14


def test_few_primitives_are_compiled():
    compiled = []

    def count(name, *_, **__):
        if name.endswith("backend_compile_duration"):
            compiled.append(name)

    def f(x):
        for i in range(1, 6):
            x = jnp.where(x > 0.5, x * 0.9, x.T + 0.1 * i).reshape(13, 13)
        return jnp.max(x)

    jax.monitoring.register_event_duration_secs_listener(count)
    x = jnp.linspace(0.0, 1.0, 169).reshape(13, 13)
    before = len(compiled)
    trace = fn.trace(f)(x)
    assert len(compiled) - before <= 2
    np.testing.assert_allclose(trace.gradients[0], jax.grad(f)(x), rtol=1e-6)


def test_a_watched_equation_says_what_it_is_and_a_loop_each_iteration(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def f(w, xs):
        def step(h, x):
            h = jnp.tanh(w * h + x)
            return h, None

        return jnp.sum(jax.lax.scan(step, jnp.zeros(3), xs)[0])

    watched = jax.jit(fn.watch(f, select="all", stats=("norm",)))(0.5, jnp.ones((11, 3)))
    lines = str(watched).splitlines()
    assert lines[0].split() == ["place", "op", "variable", "line", "value", "norm", "adjoint",
                                "norm"]  # fmt: skip
    tanh = [line.split() for line in lines if " tanh " in line]
    assert [row[0] for row in tanh] == [*(f"v4[{i}]" for i in (0, 1, 2, 3)), "...",
                                        *(f"v4[{i}]" for i in (7, 8, 9, 10))]  # fmt: skip
    assert tanh[0][1:3] == ["tanh", "h"]
    assert tanh[0][3].startswith("test_traces_scale.py:")
    assert float(tanh[-1][4]) == pytest.approx(float(watched["v4"].value["norm"][10]), rel=1e-4)
    assert "... 3 more" in str(watched)


def test_quiet_figures_are_left_out_of_a_watch():
    watched = fn.watch(lambda x: jnp.sum(jnp.sin(x)), select="all")(jnp.ones(3))
    assert str(watched).splitlines()[-1] == (
        "0 throughout: value zeros, value nonfinite, adjoint zeros, adjoint nonfinite."
    )
    zeros = fn.watch(lambda x: jnp.sum(jnp.sin(x)), select="all")(jnp.zeros(3))
    assert "value zeros" in str(zeros).splitlines()[0]


def test_the_page_has_bars_tabs_and_a_graph():
    page = of_deep().html()
    for part in ('data-tab="graph"', 'id="coarse"', "logarithmic", 'aria-label="Views"'):
        assert part in page
    data = re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)[1]
    assert json.loads(data)["schema"] == "funcnet.trace/1"


COLD = """
import time, jax, jax.numpy as jnp, funcnet as fn
net = fn.nets.GPT(65, width=32, depth=2, heads=4, length=16)
ids = jax.random.randint(jax.random.key(1), (2, 16), 0, 65)
params, _ = net.init(jax.random.key(0), ids)
found = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, *_, **__: found.append(name) if "backend_compile" in name else None)
start = time.process_time()
trace = fn.trace(lambda p: fn.cross_entropy(net(p, ids), jnp.roll(ids, -1, 1)))(params)
print(len(found), time.process_time() - start, len(trace.rows))
assert trace.check().difference < 1e-6 and "Layers of" in str(trace)
"""


@pytest.mark.slow
@pytest.mark.long
def test_a_first_trace_of_a_network_compiles_little():
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
    run = subprocess.run(
        [sys.executable, "-c", COLD], env=environment, capture_output=True, text=True, check=True
    )
    compiled, _, rows = run.stdout.split()
    assert int(rows) > 85
    assert int(compiled) <= 45
