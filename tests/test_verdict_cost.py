"""What a function costs: against formulas, against itself written otherwise, and what is said."""

import math
import re
from functools import partial

import jax
import jax.extend.core.primitives as primitives
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import Mesh, PartitionSpec

import funcnet as fn
from funcnet.__main__ import main
from funcnet.jaxpr import jaxprs, runs
from funcnet.verdicts import arithmetic, costs
from funcnet.verdicts.roofline import Peak, peak

from .cases import RULES
from .verdicts import cost as scores


def shape(*lengths, dtype="float32"):
    return jax.ShapeDtypeStruct(lengths, dtype)


def alone(f, *args):
    return fn.cost(f, gradient=False)(*args)


# Closed forms.

M, K, N = 5, 7, 3


def test_a_dense_layer():
    c = fn.cost(lambda x, w, b: x @ w + b)(shape(M, K), shape(K, N), shape(N))
    assert c.forward.flops == 2 * M * K * N + M * N
    assert c.backward.flops == 2 * 2 * M * K * N + (M - 1) * N
    assert c.products == 3 * 2 * M * K * N
    assert c.exact


def test_a_batched_product_and_a_vmapped_one():
    a, b = shape(4, M, K), shape(4, K, N)
    assert fn.cost(jnp.matmul)(a, b).flops == 3 * 4 * 2 * M * K * N
    one = fn.cost(jax.vmap(jnp.dot, (0, None)))(a, shape(K, N))
    assert one.forward.flops == 4 * 2 * M * K * N


CONVOLUTIONS = {
    "same": {"padding": "SAME"},
    "valid": {"padding": "VALID"},
    "strided": {"padding": "SAME", "window_strides": (2, 3)},
    "dilated": {"padding": ((2, 1), (0, 3)), "rhs_dilation": (2, 1)},
    "transposed": {"padding": ((1, 1), (1, 1)), "lhs_dilation": (2, 3)},
    "cropped": {"padding": ((-1, 2), (0, -2))},
    "grouped": {"padding": "SAME", "feature_group_count": 2},
    "batches": {"padding": "VALID", "batch_group_count": 2},
}


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_a_convolution_counts_the_taps_on_its_input(options):
    """A convolution of ones by ones is the number of its taps."""
    groups = options.get("feature_group_count", 1)
    x, k = np.ones((2, 7, 6, 4), np.float32), np.ones((3, 2, 4 // groups, 6), np.float32)

    def f(x, k):
        steps = options.get("window_strides", (1, 1))
        rest = {"window_strides": steps, "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        return lax.conv_general_dilated(x, k, **{**options, **rest})

    c = fn.cost(f)(x, k)
    assert c.forward.flops == 2 * int(f(x, k).sum())
    assert c.backward.flops == 2 * c.forward.flops


def plain_attention(q, k, v):
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), v)


def test_attention():
    """Two products forward; four backward, and one more where the scores are computed again."""
    b, t, h, d = 2, 6, 3, 4
    x = shape(b, t, h, d)
    product = 2 * b * h * t * t * d
    assert fn.cost(plain_attention)(x, x, x).products == (2 + 4) * product
    assert fn.cost(fn.attention)(x, x, x).products == (2 + 5) * product


def test_an_lstm():
    b, t, d, h = 3, 7, 5, 8
    net = fn.LSTM(h)
    x = shape(b, t, d)
    params, state = jax.eval_shape(net.init, jax.random.key(0), x)
    c = fn.cost(lambda *args: net.apply(*args)[0], wrt=(0, 2))(params, state, x)
    (products,) = (row for row in c.by("op") if row.name == "dot_general")
    assert products.forward == 2 * b * t * 4 * h * (d + h)
    assert products.backward == 2 * products.forward


PRIMITIVES = [
    (jnp.sin, [shape(4, 5)], 20),
    (lambda x: x > 0, [shape(4, 5)], 0),
    (lambda x: x + 1, [shape(4, dtype="int32")], 0),
    (lambda x: x.astype("bfloat16"), [shape(4)], 0),
    (lambda x: x * x, [shape(4, dtype="complex64")], 24),
    (lambda x: x + x, [shape(4, dtype="complex64")], 8),
    (lambda x: x @ x, [shape(3, 3, dtype="complex64")], 8 * 27),
    (lambda x: x.sum(), [shape(4, 5)], 19),
    (lambda x: x.max(0), [shape(4, 5)], 15),
    (lambda x: x.argmax(0), [shape(4, 5)], 15),
    (lambda x: x.sum(0), [shape(4, 5, dtype="int32")], 0),
    (lambda x: lax.cumsum(x, 1), [shape(4, 5)], 16),
    (lambda x: lax.reduce(x, 0.0, lambda a, b: a + 2 * b, (0,)), [shape(4, 5)], 30),
    (jnp.sort, [shape(9)], 0),
    (lambda x, i: x[i], [shape(9), shape(3, dtype="int32")], 0),
    (lambda x, i, u: x.at[i].add(u), [shape(9), shape(3, dtype="int32"), shape(3)], 3),
    (lambda x, i, u: x.at[i].set(u), [shape(9), shape(3, dtype="int32"), shape(3)], 0),
    (lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (2,), "VALID"), [shape(8)], 4),
    (lambda x: lax.reduce_window(x, 0.0, lax.add, (3,), (1,), "SAME"), [shape(8)], 22 - 8),
    (
        lambda x: lax.reduce_window(x, 0.0, lambda a, b: a + 2 * b, (3,), (1,), "SAME"),
        [shape(8)],
        2 * 14,
    ),
    (lax.ragged_dot, [shape(6, 4), shape(2, 4, 3), shape(2, dtype="int32")], 2 * 6 * 4 * 3),
    (jnp.fft.fft, [shape(2, 8, dtype="complex64")], 2 * 5 * 8 * 3),
    (jnp.fft.rfft, [shape(8)], 5 * 8 * 3 // 2),
    (lambda a: lax.linalg.cholesky(a, symmetrize_input=False), [shape(3, 3)], 14),
    (lambda a: lax.linalg.lu(a)[0], [shape(3, 3)], (2 + 8) + (1 + 2)),
    (lambda a: lax.linalg.qr(a, full_matrices=False)[1], [shape(6, 3)], 2 * 9 * 5),
    (lax.linalg.triangular_solve, [shape(4, 4), shape(2, 4)], 32),
]  # fmt: skip


@pytest.mark.parametrize(("f", "args", "expected"), PRIMITIVES)
def test_a_primitive(f, args, expected):
    assert alone(f, *args).flops == expected


def test_max_pooling_and_its_gradient():
    """The gradient finds the largest of each window again, and adds once for each."""

    def pool(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (3,), (3,), "VALID")

    c = fn.cost(pool)(shape(9))
    assert (c.forward.flops, c.backward.flops) == (6, 9)


def test_what_is_written_below_a_slice_moves_the_slice_alone():
    table, ids, row = shape(1000, 8), shape(3, dtype="int32"), shape(1, 8)
    read = sum(c.bytes for c in alone(lambda t, i: t[i], table, ids).counts if c.op == "gather")
    assert read == 2 * 3 * 8 * 4 + 3 * 4
    place = lambda t, r: lax.dynamic_update_slice(t, r, (2, 0))  # noqa: E731
    assert alone(place, table, row).bytes == 2 * 8 * 4
    assert alone(lambda x: x.reshape(-1), table).bytes == 0
    assert alone(lambda x: x + x, table).bytes == 2 * 4 * 8000


UNKNOWN = {"eig", "eigh", "schur", "svd", "hessenberg", "tridiagonal", "tridiagonal_solve"}
UNKNOWN |= {"random_gamma", "select_and_scatter"}


def test_every_primitive_of_jax_is_known_or_said_to_be_unknown():
    found = [getattr(primitives, name) for name in dir(primitives) if name.endswith("_p")]
    names = {p.name.replace("-", "_") for p in found if hasattr(p, "name")}
    inner = {*jaxprs.CALLS, *jaxprs.CUSTOM_RULES, "cond", "scan", "while"}
    inner |= {"custom_linear_solve", "call", "custom_lin"}
    known = arithmetic.FREE | arithmetic.ELEMENTWISE | arithmetic.REDUCTIONS | arithmetic.RUNNING
    known |= arithmetic.UPDATES | arithmetic.FORMULAS.keys()
    assert len(names) > 150
    assert names - known - inner == UNKNOWN & names


# Loops, branches, and what is computed again.


def unrolled(weights, x):
    for w in weights:
        x = jnp.tanh(x @ w)
    return x


def scanned(weights, x):
    return lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]


def test_a_scan_costs_what_its_steps_cost():
    x = shape(64, 256)
    c = fn.cost(scanned)(shape(32, 256, 256), x)
    plain = fn.cost(unrolled)([shape(256, 256)] * 32, x)
    assert c.products == 3 * 268_435_456
    assert (c.forward.flops, c.backward.flops) == (plain.forward.flops, plain.backward.flops)


def test_a_network_repeated_costs_what_it_costs_in_a_row():
    block = fn.serial(fn.Dense(8), fn.gelu)
    x = shape(3, 8)
    found = []
    for net in (fn.repeat(block, 5), fn.serial(*[block] * 5)):
        params, state = jax.eval_shape(net.init, jax.random.key(0), x)
        c = fn.cost(lambda *args, net=net: net.apply(*args)[0], wrt=(0, 2))(params, state, x)
        found.append((c.forward.flops, c.backward.flops, c.products))
    assert found[0] == found[1]


def test_loops_in_loops():
    def f(x):
        return lax.fori_loop(0, 3, lambda _, x: lax.fori_loop(0, 4, lambda _, x: x * x, x), x)

    assert alone(f, shape(5)).flops == 3 * 4 * 5
    assert alone(jax.vmap(f), shape(2, 5)).flops == 2 * 3 * 4 * 5


def block(w, x):
    return jnp.tanh(x @ w)


@pytest.mark.parametrize("policy", [None, jax.checkpoint_policies.dots_saveable])
def test_a_remat_adds_what_is_computed_again(policy):
    w, x = shape(8, 8), shape(4, 8)

    def loss(block):
        return lambda w, x: block(w, block(w, block(w, x))).sum()

    again = fn.cost(loss(jax.checkpoint(block, policy=policy)))(w, x)
    once = fn.cost(loss(block))(w, x)
    parts = 2 * 4 * 8 * 8 * (policy is None) + 4 * 8
    assert again.flops - once.flops == 3 * parts
    assert again.products == once.products
    assert again.recomputed.flops >= 3 * parts
    assert once.recomputed.flops == 0
    assert ("computed again" in str(again), "computed again" in str(once)) == (True, False)


def test_the_larger_branch_counts():
    def f(n, x):
        return lax.switch(n, [jnp.sin, lambda x: x, lambda x: jnp.sin(jnp.cos(x))], x)

    c = alone(f, 1, shape(4))
    assert (c.flops, c.least, c.most, c.branches, c.exact) == (8, 0, 8, 1, False)
    assert "Between 0 and 8 FLOPs" in str(c)
    same = alone(lambda n, x: lax.cond(n > 0, jnp.sin, jnp.cos, x), 1, shape(4))
    assert (same.flops, same.branches, same.exact) == (4, 0, True)


def test_the_branch_of_this_platform_counts():
    here = {jax.default_backend(): jnp.sin}
    f = lambda x: lax.platform_dependent(x, default=lambda x: x @ x, **here)  # noqa: E731
    c = alone(f, shape(4, 4))
    assert c.flops == 16
    assert c.exact


def until(x):
    return lax.while_loop(lambda x: x.sum() < 3, lambda x: 2 * x, x)


def test_a_loop_of_unknown_length():
    c = fn.cost(until, iterations=10)(shape(5))
    assert c.flops == 10 * 5 + 11 * 4
    assert (c.least, c.most, c.exact) == (4, math.inf, False)
    ((where, once),) = c.loops
    assert once == 9
    assert where.code.startswith("return lax.while_loop")
    assert "counted as 10 of its iterations, 9 FLOPs each" in str(c)
    assert "No backward pass: JAX sends none back through a loop" in str(c)
    assert alone(until, shape(5)).flops == 5 + 2 * 4
    assert fn.cost(until, iterations=0)(shape(5)).flops == 4


def test_what_no_result_needs_is_left_out():
    def f(x):
        def step(carry, _):
            kept, lost = carry
            return (kept * 2, jnp.sin(lost)), jnp.cos(lost)

        (kept, _), _ = lax.scan(step, (x, x), None, length=3)
        return kept, jnp.exp(x)

    assert alone(lambda x: f(x)[0], shape(5)).flops == 3 * 5
    assert alone(f, shape(5)).flops == (3 + 1) * 5


def test_a_value_that_only_the_next_step_needs_counts():
    def f(x):
        step = lambda c, _: ((c[1], jnp.sin(c[1])), None)  # noqa: E731
        return lax.scan(step, (x, x), None, length=3)[0][0]

    assert alone(f, shape(5)).flops == 3 * 5


# Passes, layers and lines.


def test_a_training_step_tells_its_passes_apart():
    w, x = shape(8, 8), shape(4, 8)
    loss = lambda w, x: (block(w, x) ** 2).mean()  # noqa: E731

    def step(w, x):
        return w - 0.1 * jax.grad(loss)(w, x)

    whole, parts = alone(step, w, x), fn.cost(loss, wrt=0)(w, x)
    assert whole.backward.flops == parts.backward.flops
    value, update = 32 + 31 + 1, 2 * 64
    assert whole.forward.flops == parts.forward.flops - value + update


@jax.custom_vjp
def sine(x):
    return jnp.sin(x)


sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, dy: (dy * jnp.cos(x),))


def test_a_rule_of_ones_own_counts_in_the_layer_that_calls_it():
    def f(x):
        with jax.named_scope("wave"):
            return sine(x)

    (row,) = fn.cost(f)(shape(6)).by("layer")
    assert (row.name, row.forward, row.backward) == ("wave", 6, 12)
    assert alone(f, shape(6)).flops == 6


@pytest.fixture(scope="module")
def network():
    net = fn.serial(stem=fn.Conv(4, 3), rest=fn.serial(fn.gelu, fn.Flatten(), head=fn.Dense(3)))
    x = jnp.ones((2, 5, 5, 3))
    params, state = net.init(jax.random.key(0), x)

    def loss(params, x):
        return jnp.mean(net.apply(params, state, x)[0] ** 2)

    return loss, params, x


@pytest.fixture(scope="module")
def costed(network):
    loss, params, x = network
    return fn.cost(loss)(params, x)


def test_every_way_to_sum_has_the_same_sum(costed):
    for key in ("layer", "op", "line"):
        rows = costed.by(key)
        assert sum(row.flops for row in rows) == costed.flops
        assert sum(row.bytes for row in rows) == costed.bytes
        assert all(row.flops == row.forward + row.backward for row in rows)
        assert [row.flops for row in rows] == sorted((r.flops for r in rows), reverse=True)


def test_layers_count_both_passes(costed):
    rows = {row.name: row for row in costed.by("layer", depth=1)}
    assert set(rows) == {"stem", "rest", "(no layer)"}
    assert rows["stem"].forward
    assert rows["stem"].backward
    assert rows["(no layer)"].flops < 0.02 * costed.flops


def test_the_two_passes_of_an_op_stand_in_one_line(costed):
    rows = [row for row in costed.by("line") if row.name.startswith("linear.py")]
    assert len(rows) == 1
    assert rows[0].forward
    assert rows[0].backward


def test_shapes_do_as_well_as_arrays(network, costed):
    loss, params, x = network
    found = fn.cost(loss)(jax.tree.map(lambda a: shape(*a.shape), params), shape(*x.shape))
    assert found == costed


def test_has_aux_and_wrt():
    f = lambda w, x: ((x @ w).sum(), jnp.sin(x))  # noqa: E731
    w, x = shape(8, 8), shape(4, 8)
    product = 2 * 4 * 8 * 8
    c = fn.cost(f, wrt=0, has_aux=True)(w, x)
    assert c.products == 2 * product
    assert not [row for row in c.by("op") if row.name == "cos"]
    assert fn.cost(f)(w, x).products == 3 * product


# What holds other programs.


def test_a_kernel_runs_once_for_each_point_of_its_grid():
    def kernel(x_ref, y_ref):
        y_ref[...] = jnp.tanh(x_ref[...]) * 2

    spec = pl.BlockSpec((4, 128), lambda i: (i, 0))
    like = shape(8, 128)
    call = pl.pallas_call(kernel, out_shape=like, grid=(2,), in_specs=[spec], out_specs=spec)
    c = alone(call, like)
    assert c.flops == 2 * 8 * 128
    assert c.bytes == 2 * 8 * 128 * 4
    assert c.exact


def test_a_program_on_devices():
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    specs = {"in_specs": (PartitionSpec("data"), PartitionSpec()), "out_specs": PartitionSpec()}
    f = jax.shard_map(lambda x, w: lax.psum((x @ w).sum(), "data"), mesh=mesh, **specs)
    c = alone(f, shape(4, 8), shape(8, 8))
    assert c.products == 2 * 4 * 8 * 8
    assert c.flops == c.products + 31 + 1


def test_a_solve_and_a_reference():
    n = 4
    c = alone(jnp.linalg.solve, shape(n, n), shape(n, n))
    lu = sum((n - k) * (1 + 2 * (n - k)) for k in range(1, n + 1))
    assert c.flops == lu + 2 * n**3

    def summed(x):
        total = jax.new_ref(jnp.zeros(()))
        jax.lax.fori_loop(0, 3, lambda i, _: total.__setitem__((), total[...] + x[i]), None)
        return total[...]

    assert alone(summed, shape(3)).flops == 3


def test_what_is_not_counted_is_said():
    def f(x):
        found = jax.pure_callback(np.sin, shape(3, 3), x)
        return jnp.linalg.svd(found, compute_uv=False)

    c = alone(f, shape(3, 3))
    assert c.uncounted == {"pure_callback": 1, "svd": 1}
    assert not c.exact
    assert "Not counted, since their operations are not known: pure_callback (1), svd (1)" in str(c)


def test_nothing_to_differentiate():
    assert "No backward pass: no argument has a floating dtype." in str(fn.cost(lambda i: i + 1)(3))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", scores.PROGRAMS)
def test_the_score(name):
    f, args, forward, backward, *alone = scores.PROGRAMS[name]()
    found = scores.counted(f, args, bool(alone))
    if "GPT" in name or "blocks" in name:
        assert found == pytest.approx((forward, backward), rel=0.005)
    else:
        assert found == (forward, backward)


def test_nothing_at_all_is_computed():
    c = fn.cost(lambda x: x)(shape(3))
    assert (c.flops, c.bytes, c.intensity, c.compulsory) == (0, 0, 0.0, 3 * 12)
    assert "By" not in str(c)


@pytest.mark.slow
@pytest.mark.long
def test_every_op_is_counted_whole_and_in_its_own_layer():
    for rule in RULES:
        case = next(iter(rule.cases.values()))
        drawn = jax.tree.map(jnp.asarray, case.make(np.random.default_rng(0)))
        c = fn.cost(partial(rule.op, **case.static))(*drawn)
        assert c.exact, rule.name
        assert c.bytes, rule.name
        assert all(count.layer for count in c.counts if count.flops), rule.name


# What is said.


def test_it_reads_in_a_terminal(costed):
    text = str(costed)
    assert max(map(len, text.splitlines())) <= 100
    assert all(line == line.rstrip() for line in text.splitlines())
    assert text.startswith("Cost of loss\n")
    titles = [line for line in text.splitlines() if line.startswith("By ")]
    assert titles == ["By layer", "By op", "By line"]
    assert "<h1>cost of loss</h1>" in costed.html()


WRONG = {
    "a key": (
        lambda: fn.cost(jnp.sin)(1.0).by("file"),
        "cost: expected one of 'layer', 'op' and 'line', got 'file'. Sum by one of these.",
    ),
    "iterations": (
        lambda: fn.cost(jnp.sin, iterations=-1),
        "cost: expected iterations to be a whole number from 0 on, got -1. Write 100 if such a "
        "loop runs so often.",
    ),
    "shapes": (
        lambda: fn.cost(jnp.sin)(shape(2)).timed(),
        "cost: expected arrays to run the function with, got a ShapeDtypeStruct, float32 of shape "
        "(2,). Call cost with arrays.",
    ),
    "wrt": (
        lambda: fn.cost(jnp.sin, wrt=3)(1.0),
        "cost: expected wrt among the arguments 0 to 0, got 3. It counts positional arguments, as "
        "argnums of jax.grad does.",
    ),
    "no pair": (
        lambda: fn.cost(jnp.sin, has_aux=True)(1.0),
        "cost: expected a function that returns (loss, aux), as has_aux says, got PyTreeDef(*). "
        "Return a pair, or leave has_aux out.",
    ),
}


@pytest.mark.parametrize(("call", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_call(call, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        call()


def test_an_error_of_the_function_is_its_own():
    def f(x):
        raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine"):
        fn.cost(f)(1.0)


def test_timing(network, costed, monkeypatch):
    best = Peak(1e9, 1e12, "float32", 512, "cpu")
    monkeypatch.setattr(costs, "peak", lambda dtype: best)
    loss, params, x = network
    c = fn.cost(loss)(params, x).timed()
    t = c.timing
    assert costed.timing is None
    assert t.seconds > 0
    assert t.rate == pytest.approx(costed.flops / t.seconds)
    assert t.ceiling == 1e9
    assert t.roofline == pytest.approx(t.rate / 1e9)
    assert t.mfu == pytest.approx(costed.products / t.seconds / 1e9)
    assert "XLA itself says" in str(c)
    slow = best._replace(bytes=1e6)
    monkeypatch.setattr(costs, "peak", lambda dtype: slow)
    t = fn.cost(jnp.sin, gradient=False)(jnp.ones(1000)).timed().timing
    assert t.ceiling == pytest.approx(1e6 * 1000 / 8000)


@pytest.mark.slow
@pytest.mark.long
def test_the_peak_is_above_what_products_reach():
    best = peak("float32")
    assert best.flops > 1e9
    assert best.bytes > 1e8
    a = jnp.ones((1024, 1024))
    t = fn.cost(jnp.matmul, gradient=False)(a, a).timed().timing
    assert 0.2 < t.mfu < 1.5


def test_a_command(tmp_path, capsys):
    (tmp_path / "model.py").write_text(
        "import jax.numpy as jnp\n\n\ndef loss(x, w):\n    return (x @ w).sum()\n"
    )
    place, page = f"{tmp_path}/model.py:loss", tmp_path / "cost.html"
    values = ["[[1, 2, 3]]", "[[1], [2], [3]]"]
    assert main(["cost", place, "--args", *values, "--html", str(page)]) == 0
    assert "Products and convolutions: 18 FLOPs." in capsys.readouterr().out
    assert "model.py:5" in page.read_text()


def test_what_runs_once_for_each_device_or_point_is_said_by_the_equation():
    closed = jax.make_jaxpr(lambda x: jnp.sin(x))(1.0)
    assert runs.held(closed.jaxpr.eqns[0]) is None
    assert runs.platform(closed.jaxpr.eqns[0]) is None
