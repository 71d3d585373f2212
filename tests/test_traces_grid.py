"""Traces of many functions: gradients, contributions and adjoints, each against JAX itself."""

import functools
import re
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import funcnet as fn

GRID: dict[str, tuple] = {}
"""By name: a function of one real number, and its arguments."""

V = np.array([0.5, -1.2, 2.0])
W = np.array([[0.3, -0.7, 1.1], [0.9, 0.2, -0.4], [-1.3, 0.6, 0.8]])
IDS = np.array([2, 0, 1, 2])


def row(*args):
    def enter(f):
        GRID[f.__name__] = (f, args)
        return f

    return enter


@row(2.0, 5.0)
def lecture(x1, x2):
    return jnp.log(x1) + x1 * x2 - jnp.sin(x2)


@row(W, V)
def matrix_products(w, x):
    return jnp.sum((w @ x) * (x @ w)) + jnp.sum(w @ w.T)


@row(V)
def reused(x):
    return jnp.sum(x * x + x / (x * x + 1))


@row(V, 3)
def integer_argument(x, n):
    return jnp.sum(x**2) * n


@row(V, np.array([True, False, True]))
def masked(x, mask):
    return jnp.sum(jnp.where(mask, jnp.exp(x), x**3))


@row({"a": V, "b": {"c": W}}, [V, IDS])
def nested_arguments(tree, pair):
    return jnp.sum(tree["b"]["c"] @ tree["a"]) + jnp.sum(pair[0][pair[1]])


@row(V)
def jitted(x):
    return jax.jit(lambda x: jnp.tanh(x) * x)(x).sum()


@row(V)
def jitted_twice(x):
    f = jax.jit(lambda x: jnp.sin(x) * x)
    return f(f(x)).sum()


@row(V, V)
def scanned(h, xs):
    h, ys = lax.scan(lambda h, x: (jnp.tanh(h * x), h + x), h, xs)
    return jnp.sum(h) + jnp.sum(ys**2)


@row(V)
def scanned_in_reverse(xs):
    return lax.scan(lambda h, x: (h * jnp.cos(x), h), 1.5, xs, reverse=True)[1].sum()


@row(2.0)
def scanned_without_inputs(x):
    return lax.scan(lambda h, _: (jnp.sin(h) * x, None), x, None, length=3)[0]


@row(V)
def scanned_for_nothing(x):
    h, ys = lax.scan(lambda h, y: (h * 2, h * y), x, jnp.zeros((0, 3)))
    return jnp.sum(h**2) + jnp.sum(ys)


@row(W, V)
def nested_scans(w, x):
    def outer(h, row):
        h, _ = lax.scan(lambda h, a: (jnp.sin(h + a), None), h, row)
        return h, h * row

    h, ys = lax.scan(outer, x, w)
    return jnp.sum(h) + jnp.sum(ys)


@row(V)
def for_loop(x):
    return jnp.sum(lax.fori_loop(0, 3, lambda i, h: h * x + i, x))


@row(W)
def mapped(w):
    return lax.map(lambda r: jnp.prod(jnp.cos(r)), w).sum()


@row(V)
def associative(x):
    return jnp.sum(lax.associative_scan(jnp.multiply, x) ** 2)


@row(V, 1)
def switched(x, i):
    return lax.switch(i, [jnp.sin, jnp.cos, jnp.exp], x).sum()


@row(V, 9)
def switched_beyond(x, i):
    return lax.switch(i, [jnp.sin, jnp.cos, jnp.exp], x).sum()


@row(V, V)
def cond_in_scan(h, xs):
    def body(h, x):
        return lax.cond(x > 0, lambda: jnp.sin(h) * x, lambda: h - x), h

    h, ys = lax.scan(body, h, xs)
    return jnp.sum(h * ys)


@row(V)
def scan_in_cond(x):
    def many(x):
        return lax.scan(lambda h, y: (h * y, h + y), 1.0, x)[1]

    return lax.cond(x[0] > 0, many, lambda x: x**2, x).sum()


@row(V)
def while_beside(x):
    n = lax.while_loop(lambda n: n < 10, lambda n: n * 2 + 1, 0)
    return jnp.sum(x**2) * n


@row(V)
def rematerialised(x):
    return jax.checkpoint(lambda x: jnp.sum(jnp.sin(jnp.sin(x))))(x)


@row(W, V)
def remat_with_policy(w, x):
    policy = jax.checkpoint_policies.dots_saveable
    return jax.checkpoint(lambda w, x: jnp.sum(jnp.tanh(w @ jnp.tanh(w @ x))), policy=policy)(w, x)


@row(W, V)
def remat_in_scan(w, x):
    body = jax.checkpoint(lambda h, r: (jnp.tanh(h * r), None))
    return lax.scan(body, x, w)[0].sum()


@jax.custom_vjp
def cube(x):
    return x**3


cube.defvjp(lambda x: (x**3, x), lambda x, dy: (3 * x**2 * dy,))


@row(V)
def custom_rule(x):
    return jnp.sum(cube(x) * x)


@row(V)
def custom_rule_in_scan_in_jit(x):
    @jax.jit
    def run(x):
        return lax.scan(lambda h, y: (cube(h) * 0.1 + y, cube(y)), x[0], x)

    h, ys = run(x)
    return h + jnp.sum(ys)


@row(W)
def custom_rule_mapped(w):
    return jax.vmap(cube)(w).sum()


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def scaled(f, x, n):
    return f(x) * n


scaled.defvjp(
    lambda f, x, n: (f(x) * n, (x, n)),
    lambda f, res, dy: (jax.vjp(f, res[0])[1](dy * res[1])[0], None),
)


@row(V, 3)
def nondiff_arguments(x, n):
    return jnp.sum(scaled(jnp.sin, x, n))


@jax.custom_vjp
def wasteful(x, y):
    return x * 2.0, y * 3.0


def _wasteful_backward(_, dys):
    return dys[0] * 2.0, dys[1] * 3.0


wasteful.defvjp(lambda x, y: (wasteful(x, y), None), _wasteful_backward)


@row(V, V)
def half_used_rule(x, y):
    return jnp.sum(wasteful(x, y)[0] ** 2)


def _symbolic_forward(x, y):
    return x.value * y.value, (x.value, y.value)


@jax.custom_vjp
def symbolic(x, y):
    return x * y


symbolic.defvjp(_symbolic_forward, lambda res, dy: (dy * res[1], dy * res[0]), symbolic_zeros=True)


@row(V, V)
def symbolic_zeros(x, y):
    return jnp.sum(symbolic(x, lax.stop_gradient(y)) * y)


@jax.custom_jvp
def softplus(x):
    return jnp.logaddexp(x, 0.0)


softplus.defjvps(lambda t, y, x: t * jax.nn.sigmoid(x))


@row(V)
def custom_jvp(x):
    return jnp.sum(softplus(x) * jax.nn.relu(x) + jax.nn.gelu(x))


@row(V)
def stopped(x):
    return jnp.sum(lax.stop_gradient(x) * x)


@row(V)
def closed_over(x):
    return jnp.sum(jnp.asarray(W) @ x * jnp.asarray(V))


@row(V, jax.random.key(3))
def random_numbers(x, key):
    a, b = jax.random.split(key)
    keep = jax.random.bernoulli(a, 0.5, x.shape)
    return jnp.sum(jnp.where(keep, x, 0.0) * jax.random.normal(b, x.shape))


@row(V.astype(complex) * (1 + 2j))
def complex_numbers(z):
    return jnp.sum(jnp.abs(jnp.exp(z) * z) ** 2)


@row(V)
def fourier(x):
    return jnp.sum(jnp.abs(jnp.fft.fft(x)) ** 2 * jnp.arange(3))


@row(W)
def solved(w):
    a = w @ w.T + 2 * jnp.eye(3)
    return jnp.sum(jnp.linalg.solve(a, jnp.ones(3))) + jnp.linalg.slogdet(a)[1]


@row(W)
def factored(w):
    low = jnp.linalg.cholesky(w @ w.T + jnp.eye(3))
    return jnp.sum(low**2) + jnp.sum(jnp.linalg.inv(low))


@row(V)
def conjugate_gradients(x):
    a = jnp.diag(x**2 + 1)
    return jnp.sum(jax.scipy.sparse.linalg.cg(lambda v: a @ v, x)[0] ** 2)


@row(0.3)
def root(x):
    def solve(f, y):
        return lax.fori_loop(0, 20, lambda i, y: y - f(y) / (3 * y**2), y)

    return lax.custom_root(lambda y: y**3 - x, 1.0, solve, lambda g, y: y / g(1.0))


@row(V)
def ode(x):
    from jax.experimental.ode import odeint

    ts = jnp.array([0.0, 0.1])
    return jnp.sum(odeint(lambda y, t: -y * jnp.sin(t + x[0]), x, ts)[-1])


@row(V)
def euler(x):
    def step(y, _):
        return y + 0.1 * jnp.stack([y[1], -y[0], y[2] * y[0]]), y

    return jnp.sum(lax.scan(step, x, None, length=3)[1] ** 2)


@row(W, W, W)
def attention(q, k, v):
    return jnp.sum(jax.nn.softmax(q @ k.T / 3**0.5) @ v)


@row(W[None, :, :, None], W[:2, :2, None, None])
def convolution(x, w):
    y = lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return jnp.sum(y**2)


@row(W[None, :, :, None])
def pooled(x):
    y = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID")
    return jnp.sum(y**2)


@row(V)
def ordered(x):
    return jnp.sum(jnp.sort(x) * jnp.arange(3)) + jnp.sum(x[jnp.argsort(x)] ** 2)


@row(V)
def largest(x):
    values, _ = lax.top_k(x, 2)
    return jnp.sum(values**2) + jnp.max(x) * jnp.min(x)


@row(W, IDS)
def gathered(w, ids):
    return jnp.sum(w[ids] ** 2) + w[1, 2]


@row(V, IDS)
def scattered(x, ids):
    y = jnp.zeros(4).at[ids].add(x[ids])
    return jnp.sum(y.at[1].set(x[0] * 2) ** 2 + y.at[ids].multiply(2.0))


@row(W)
def sliced(w):
    a = lax.dynamic_slice(w, (1, 0), (2, 2))
    return jnp.sum(a**2) + jnp.sum(lax.dynamic_update_slice(w, a, (0, 1)) ** 3)


@row(V)
def cumulative(x):
    return jnp.sum(jnp.cumsum(x) * jnp.cumprod(x)) + jnp.sum(jnp.flip(x)[::2])


@row(V)
def statistics(x):
    return jnp.std(x) + jax.nn.logsumexp(x) + jnp.linalg.norm(x)


@row(V)
def several_results(x):
    a, b, c = jnp.split(x * 2, 3)
    return jnp.sum(a * b) + jnp.sum(b * c)


@row(V)
def refs(x):
    total = jax.new_ref(jnp.zeros(3))
    total[...] += x * 2
    total[...] *= x
    return jnp.sum(total[...] ** 2)


@row(V)
def refs_in_scan(x):
    total = jax.new_ref(jnp.zeros(()))

    def body(c, a):
        total[...] += jnp.sin(a) * c
        return c * a, None

    c, _ = lax.scan(body, 1.0, x * 2)
    return total[...] * c


@row(V)
def callback(x):
    def host(y):
        return np.asarray(y) * 2

    y = jax.pure_callback(host, jax.ShapeDtypeStruct((3,), x.dtype), lax.stop_gradient(x))
    return jnp.sum(x * y)


@row(V)
def printed(x):
    jax.debug.callback(lambda y: None, x)
    return jnp.sum(x**2)


@row(V)
def of_a_gradient(x):
    return jnp.sum(jax.grad(lambda x: jnp.sum(jnp.sin(x) * x**2))(x) ** 2)


@row(W)
def mapped_gradient(w):
    return jnp.sum(jax.vmap(jax.grad(lambda r: jnp.prod(jnp.sin(r))))(w))


@row(V)
def gradient_of_scan(x):
    def loss(x):
        return lax.scan(lambda h, a: (jnp.tanh(h + a), None), 0.1, x)[0]

    return jnp.sum(jax.grad(loss)(x) ** 2)


@row(V)
def curvature(x):
    return jnp.trace(jax.hessian(lambda x: jnp.sum(jnp.sin(x)) * x[0])(x))


@row(V)
def linearised(x):
    y, push = jax.linearize(lambda x: jnp.sin(x) * x, x)
    return jnp.sum(push(x) * y)


@row(W)
def mapped_control_flow(w):
    def one(r):
        h = lax.scan(lambda h, a: (lax.cond(a > 0, jnp.sin, jnp.cos, h + a), None), 0.2, r)[0]
        return h**2

    return jnp.sum(jax.vmap(one)(w))


@row(V)
def sharded(x):
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("d")
    f = jax.shard_map(lambda x: jnp.sin(x) * x, mesh=mesh, in_specs=spec, out_specs=spec)
    return jnp.sum(f(x))


@row(V)
def unused_parts(x):
    jnp.exp(x)
    return jnp.sum(x[:1])


@row(V)
def constant_function(x):
    return jnp.sum(jnp.zeros_like(x)) + 1.0


@row(V)
def output_is_input(x):
    return x[0]


@row(W, V)
def own_ops(w, x):
    h = fn.dense(x[None], w, x)
    return fn.cross_entropy(fn.layer_norm(fn.gelu(h), x, x), jnp.array([1]))


@row(W, V)
def repeated_layers(w, x):
    params = {"w": jnp.stack([w, w / 2]), "b": jnp.stack([x, x])}
    return jnp.sum(fn.repeat(fn.remat(fn.serial(fn.Dense(3), fn.tanh)), 2)({"dense": params}, x))


KEY = jax.random.key(5)


@row(2.0)
def key_made_inside(x):
    return jnp.sum(jax.random.normal(jax.random.key(0), (3,), x.dtype) * x)


@row(V)
def key_closed_over(x):
    return jnp.sum(fn.dropout(x, KEY, drop=0.5) ** 2)


@row(V, jax.random.split(KEY, 3))
def keys_one_by_one(x, keys):
    def body(h, pair):
        a, k = pair
        return h * a + jax.random.uniform(k, (), x.dtype), k

    h, same = lax.scan(body, 1.0, (x, keys))
    return h * jnp.sum(jax.vmap(lambda k: jax.random.normal(k, (), x.dtype))(same) * x)


@row(V, jax.random.PRNGKey(4))
def raw_key(x, key):
    keys = jax.random.split(key)
    return jnp.sum(jnp.where(jax.random.bernoulli(keys[0], 0.5, x.shape), x**2, x))


@row(np.linspace(-1, 1, 3, dtype="float32"))
def narrow_numbers(x):
    y = x
    for dtype in ("bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn"):
        y = (y.astype(dtype) * jnp.asarray(2, dtype)).astype(x.dtype) / 2
    return jnp.sum(y * x)


@row(jnp.arange(3, dtype="bfloat16"), jnp.arange(3, dtype="float8_e5m2"))
def narrow_arguments(x, y):
    return jnp.sum(x.astype("float32") * y.astype("float32") ** 2)


@row(V, jnp.array([-8, 0, 7], "int4"), jnp.array([0, 1, 3], "uint2"), np.array([True, False, True]))
def whole_numbers_and_truths(x, n, k, mask):
    low = n.astype("int8") + jnp.array([1, 2, 3], "int4").astype("int8")
    return jnp.sum(x * low) + jnp.sum(x[k % 2]) * jnp.sum(mask) + jnp.sum(x * (n > 0))


@row(np.zeros((0, 3)), V)
def empty(x, y):
    return jnp.sum(jnp.sin(x) * y) + jnp.sum(y[:0] ** 2) + jnp.sum(y)


@row(2.0)
def loops_that_never_run(x):
    y = lax.fori_loop(0, 0, lambda i, h: h * jnp.sin(h), x)
    y, none = lax.scan(lambda h, _: (jnp.sin(h), h**2), y, None, length=0)
    return y + jnp.sum(none)


def leaves(tree):
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def close(a, b, note="", limit=1e-10):
    scale = max(1.0, float(np.abs(b).max())) if b.size else 1.0
    assert (a.shape, a.dtype) == (b.shape, b.dtype), note
    assert np.abs(a - b).max(initial=0) <= limit * scale, note


def reference(f, args):
    """Value and gradients by JAX, over the floating leaves."""
    flat, tree = jax.tree.flatten(args)
    places = [i for i, x in enumerate(flat) if jnp.issubdtype(jnp.result_type(x), jnp.inexact)]

    def of_some(*some):
        filled = list(flat)
        for i, x in zip(places, some, strict=True):
            filled[i] = x
        return f(*tree.unflatten(filled))

    y, pull = jax.vjp(of_some, *(jnp.asarray(flat[i]) for i in places))
    return y, pull(jnp.ones_like(y))


LONG = frozenset(
    {
        "associative", "attention", "complex_numbers", "conjugate_gradients", "cumulative",
        "curvature", "custom_jvp", "custom_rule_in_scan_in_jit", "euler", "factored", "fourier",
        "gathered", "gradient_of_scan", "key_closed_over", "key_made_inside", "keys_one_by_one",
        "largest", "loops_that_never_run", "mapped", "mapped_control_flow", "mapped_gradient",
        "narrow_arguments", "narrow_numbers", "nested_arguments", "nested_scans", "ode", "ordered",
        "own_ops", "pooled", "random_numbers", "refs_in_scan", "repeated_layers", "scan_in_cond",
        "scattered", "several_results", "sharded", "solved", "statistics",
    }
)  # fmt: skip
"""What takes longest: left to the long form, which CI runs on the newest JAX too."""


def marked(name):
    return pytest.param(name, marks=[pytest.mark.slow, pytest.mark.long] * (name in LONG))


@pytest.mark.parametrize("name", [marked(name) for name in GRID])
def test_gradients_contributions_and_adjoints(name, x64):
    proven(*GRID[name])


def proven(f, args):
    """A trace's gradients, contributions, adjoints and forms; the trace."""
    trace = fn.trace(f, keep="all")(*args)
    value, gradients = reference(f, args)
    close(np.asarray(trace.output), np.asarray(value))
    for found, true in zip(leaves(trace.gradients), leaves(gradients), strict=True):
        close(found, true)
    for r in trace.rows:
        if r.contributions:
            total = sum(np.asarray(c.value.array) for c in r.contributions)
            close(total, np.asarray(r.adjoint.array), r.name)
            assert r.adjoint.shape == r.value.shape
    against_added_zeros(f, args, trace)
    every_form(f, args, trace)
    return trace


def every_form(f, args, trace):
    """Each form is made, and what is read back says the same and has its dtypes."""
    said = trace.json()
    again = fn.Trace.load(said)
    assert again.json() == said
    for name in ("__str__", "html", "dot", "svg", "latex"):
        assert getattr(again, name)() == getattr(trace, name)() != "", name
    ElementTree.fromstring(trace.svg())
    balanced(trace.latex())
    for before, after in zip(trace.rows, again.rows, strict=True):
        assert before.value.type == after.value.type
        if isinstance(before.value.array, np.ndarray):
            assert before.value.array.dtype == after.value.array.dtype
            np.testing.assert_array_equal(before.value.array, after.value.array)
    assert str(fn.trace(f).abstract(*args)).startswith("Forward and reverse trace")
    shapes = jax.eval_shape(fn.watch(f, select="all"), *args)
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    assert all(place in str(zeros) for place in zeros.places)


def balanced(text):
    """Brackets close, and what stands outside of text has no character of LaTeX's own."""
    plain = re.sub(r"\\[_#$%&{}\\^~]", "", text)
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    assert not re.search(r"[%#]|\^[^{]|\\text\{[^}]*[_<>^]", plain)


def against_added_zeros(f, args, trace):
    """Each adjoint is the gradient with respect to a zero added there, by JAX itself."""
    watched = fn.watch(f, select="all", keep="values")(*args)
    close(np.asarray(watched.output), np.asarray(trace.output))
    rows = {r.name: r for r in trace.rows}
    compared = 0
    for place, seen in watched.seen.items():
        value, adjoint = np.asarray(seen.value), np.asarray(seen.adjoint)
        base, dot, part = place.partition(".")
        loops = {n for n in rows if n.partition("[")[0] == base and "[" in n}
        whole = [(place, ())] if place in rows else []
        inner = [
            (n, tuple(map(int, n.partition("[")[2].partition("]")[0].split(","))))
            for n in loops
            if n.endswith(dot + part if dot else "]") and ":" not in n
        ]
        for title, index in whole or inner:
            r = rows[title]
            if r.active and r.kind not in ("stack", "slice"):
                close(np.asarray(r.value.array), value[index], title)
                expected = adjoint[index]
                found = np.zeros_like(expected) if r.adjoint is None else r.adjoint.array
                close(np.asarray(found), expected, title)
                compared += 1
    assert compared or not any(r.active and r.kind == "equation" and r.adjoint for r in trace.rows)


def test_the_grid_is_large():
    assert len(GRID) >= 60
