"""`rule`: what an op may take, under which transformations, and what it says when misused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet.rules.rule import RULES, rule


def _scale_forward(x, w, mask, *, power):
    return _scale(x, w, mask, power), (x, w, mask)


def _scale_backward(res, dy, *, power):
    """dx = w^power mask dy;  dw = Σ power w^(power-1) x mask dy"""
    x, w, mask = res
    dw = None if w is None else (power * w ** (power - 1) * x * mask * dy).sum()
    return (1.0 if w is None else w**power) * mask * dy, dw, None


def _scale(x, w, mask, power):
    return x * mask if w is None else w**power * x * mask


@rule(_scale_forward, _scale_backward)
def scale(x, w=None, mask=1, *, power=1):
    """w^power x mask, with an optional w and an integer mask."""
    return _scale(x, w, mask, power)


@pytest.fixture(autouse=True, scope="module")
def _forget_the_test_ops():
    yield
    RULES.pop("scale", None)


X = jnp.array([1.0, -2.0, 3.0])
MASK = jnp.array([1, 0, 1])


def test_static_arguments_integers_and_none():
    gradient = jax.grad(lambda x, w: scale(x, w, MASK, power=3).sum(), argnums=(0, 1))
    dx, dw = gradient(X, jnp.float32(2.0))
    np.testing.assert_allclose(dx, [8.0, 0.0, 8.0])
    np.testing.assert_allclose(dw, 3 * 4.0 * (1 + 3))
    np.testing.assert_allclose(jax.grad(lambda x: scale(x, mask=MASK).sum())(X), [1.0, 0.0, 1.0])


def test_static_arguments_may_be_lists():
    @rule(lambda x, *, shape: (x.reshape(shape), None), lambda res, dy: (dy.reshape(-1),))
    def shaped(x, *, shape):
        return x.reshape(shape)

    np.testing.assert_allclose(jax.grad(lambda x: shaped(x, shape=[3, 1]).sum())(X), [1.0] * 3)


def test_static_arguments_may_be_numpys_numbers(x64):
    x, half = jnp.ones((1, 4, 2), jnp.float32), np.float64(0.5)
    w, labels = jnp.ones((2, 3), jnp.float32), jnp.zeros((1, 4), int)
    head = functools.partial(fn.linear_cross_entropy, chunk=np.int64(2), z_loss=half)
    assert jax.grad(head)(x, w, labels).dtype == jnp.float32
    assert fn.standardize(x, axis=np.int64(1)).shape == x.shape
    assert fn.conv(x, jnp.ones((2, 1, 2), jnp.float32), groups=np.int64(2)).shape == (1, 3, 2)
    assert fn.Attention(np.int64(2), cache=np.int64(4), causal=True).init(jax.random.key(0), x)


def test_registry_holds_module_level_ops_only():
    assert RULES["scale"] is scale.rule
    assert scale.rule.arguments == ("x", "w", "mask")
    assert scale.rule.derivation.startswith("dx = w^power")

    @rule(lambda x: (x, None), lambda res, dy: (dy,))
    def local(x):
        return x

    assert "local" not in RULES
    assert local.rule.op is local


def test_scopes_and_checkpoint_names():
    text = jax.make_jaxpr(jax.grad(lambda x: scale(x, 2.0).sum()))(X).pretty_print(name_stack=True)
    assert "transpose(jvp(scale))" in text
    assert "name[name=scale]" in text


def test_output_kept_as_residual_is_kept_once():
    @rule(lambda x: (jnp.exp(x),) * 2, lambda y, dy: (y * dy,))
    def exp(x):
        return jnp.exp(x)

    policy = jax.checkpoint_policies.save_only_these_names("exp")
    f = jax.checkpoint(lambda x: jnp.sin(exp(x)), policy=policy)
    _, pull = jax.vjp(f, X)
    computed = [leaf for leaf in jax.tree.leaves(pull) if not np.array_equal(leaf, X)]
    assert len(computed) == 1
    np.testing.assert_allclose(computed[0], jnp.exp(X))


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, jax.checkpoint])
def test_closure_over_a_differentiated_array(transform):
    def outer(w, u):
        def helper(x):
            return jnp.sin(u) * x

        @rule(lambda x: (w["k"] * helper(x), x), lambda x, dy: (w["k"] * jnp.sin(u) * dy,))
        def op(x):
            return w["k"] * helper(x)

        return transform(op)(2.0 * w["k"])

    w, u = {"k": jnp.float32(3.0)}, jnp.float32(0.5)
    dw, du = jax.jit(jax.grad(outer, argnums=(0, 1)))(w, u)
    np.testing.assert_allclose(dw["k"], 4 * 3.0 * np.sin(0.5), rtol=1e-6)
    np.testing.assert_allclose(du, 2 * 9.0 * np.cos(0.5), rtol=1e-6)


def test_closure_over_a_tracer_inside_scan_and_vmap():
    def body(carry, w):
        @rule(lambda x: (w * x, x), lambda x, dy: (w * dy,))
        def op(x):
            return w * x

        return op(carry), None

    def product(ws):
        return jax.lax.scan(body, jnp.float32(1.0), ws)[0]

    ws = jnp.array([[2.0, 3.0, 4.0], [1.0, 5.0, 6.0]])
    expected = [[12.0, 8.0, 6.0], [30.0, 6.0, 5.0]]
    np.testing.assert_allclose(jax.vmap(jax.grad(product))(ws), expected)


class Held:
    def __init__(self, w):
        self.w = w

    def times(self, x):
        return self.w * x


def recursive(w):
    def power(x, n=2):
        return x if n == 0 else w * power(x, n - 1)

    return power


CLOSURES = {
    "partial": lambda w: functools.partial(jnp.multiply, w),
    "functions in a list": lambda w: [lambda x: w * x][0],
    "method": lambda w: Held(w).times,
    "default argument": lambda w: lambda x, w=w: w * x,
    "jitted": lambda w: jax.jit(lambda x: w * x),
    "beside a string": lambda w: lambda x, held={"w": w, "name": "hi"}: held["w"] * x,
}


@pytest.mark.parametrize("name", CLOSURES)
def test_closures_of_every_kind(name):
    def outer(w, x):
        times = CLOSURES[name](w)

        @rule(lambda x: (times(x), None), lambda res, dy: (times(dy),))
        def op(x):
            return times(x)

        return op(x) * w

    assert [float(g) for g in jax.grad(outer, argnums=(0, 1))(2.0, 3.0)] == [12.0, 4.0]
    second = jax.grad(lambda w: jax.grad(outer, argnums=1)(w, 3.0))(2.0)
    assert float(second) == 4.0


def test_a_closure_that_calls_itself():
    def outer(w, x):
        power = recursive(w)

        @rule(lambda x: (power(x), None), lambda res, dy: (power(dy),))
        def op(x):
            return power(x)

        return op(x)

    assert [float(g) for g in jax.grad(outer, argnums=(0, 1))(2.0, 3.0)] == [12.0, 4.0]


def test_static_values_that_are_equal_but_differ():
    @rule(lambda x, *, k: (x * k, None), lambda res, dy, *, k: (dy * k,))
    def times(x, *, k):
        return x * k

    for k, dtype in ((2, "int32"), (2.0, "float32"), (True, "int32"), (2, "int32")):
        assert times(jnp.arange(3), k=k).dtype == dtype


def test_python_numbers_are_arguments():
    np.testing.assert_allclose(jax.grad(lambda x: fn.prelu(x, 0.25).sum())(X), [1.0, 0.25, 1.0])


def test_under_shard_map():
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    p = jax.sharding.PartitionSpec
    x, w = jnp.arange(12.0).reshape(4, 3), jnp.ones((3, 2))

    def loss(f):
        mapped = jax.shard_map(f, mesh=mesh, in_specs=(p("d"), p()), out_specs=p("d"))
        return jax.jit(jax.grad(lambda w: (mapped(x, w) ** 2).sum()))

    np.testing.assert_allclose(loss(fn.dense)(w), loss(fn.dense.rule.primal)(w))


def test_pytree_argument_with_integers():
    @rule(
        lambda p: (p["w"] * p["n"], p),
        lambda p, dy: ({"n": None, "w": p["n"] * dy},),
    )
    def op(p):
        return p["w"] * p["n"]

    gradient = jax.grad(lambda w: op({"w": w, "n": jnp.int32(3)}))(2.0)
    assert float(gradient) == 3.0


def test_nodiff():
    @rule(lambda x, c: (x * c, c), lambda c, dy: (c * dy, None), nodiff=("c",))
    def weighted(x, c):
        return x * jax.lax.stop_gradient(c)

    assert [float(g) for g in jax.grad(weighted, argnums=(0, 1))(2.0, 3.0)] == [3.0, 0.0]


def returning(backward, nodiff=()):
    @rule(lambda x, w: (x * w, None), backward, nodiff=nodiff)
    def op(x, w):
        return x * w

    return jax.grad(lambda x: op(x, X).sum())


def wrong_signature(primal, forward=lambda x: (x, None), backward=lambda r, dy: (dy,), **options):
    return lambda: rule(forward, backward, **options)(primal)


def op_taking_x(x):
    return x


MISUSES = {
    "unknown argument": (
        lambda: scale(X, weight=2),
        TypeError,
        r"^scale: expected the arguments \(x, w=None, mask=1, \*, power=1\), got a wrong call "
        r"\(got an unexpected keyword argument 'weight'\)\. Arrays may be positional, static "
        r"arguments go by keyword\.",
    ),
    "list for an array": (
        lambda: fn.dense([[1.0, 2.0]], jnp.ones((2, 1))),
        TypeError,
        r"dense: expected `x` to be an array, got a list of numbers\. Make it one: "
        r"jnp\.array\(x\)\.",
    ),
    "array as static argument": (
        lambda: scale(X, power=jnp.ones(2)),
        TypeError,
        r"scale: expected `power` to be a plain Python value, since it is static, got ArrayImpl\. "
        r"Pass a number, string, tuple or function\.",
    ),
    "tracer as static argument": (
        lambda: jax.jit(lambda n: scale(X, power=n))(2),
        TypeError,
        r"scale: expected `power` to be a plain Python value.*got DynamicJaxprTracer",
    ),
    "one cotangent of two": (
        lambda: returning(lambda res, dy: (dy,))(X),
        TypeError,
        r"op backward: expected a tuple of 2 cotangents, one for each of \('x', 'w'\), got 1\. "
        r"Return None for an argument without a gradient\.",
    ),
    "no tuple": (
        lambda: returning(lambda res, dy: dy)(X),
        TypeError,
        r"op backward: expected a tuple of 2 cotangents.*got \w*Tracer|got ArrayImpl",
    ),
    "None for a floating argument": (
        lambda: returning(lambda res, dy: (dy, None))(X),
        TypeError,
        r"op backward: expected a cotangent for `w` of structure .*, got None\. "
        r"Return it, or declare nodiff=\('w',\)\.",
    ),
    "wrong shape": (
        lambda: returning(lambda res, dy: (dy.sum(), dy))(X),
        ValueError,
        r"op backward: expected a cotangent for `x` of shape \(3,\), got shape \(\)\. "
        r"A gradient has its argument's shape: sum over the axes that were broadcast\.",
    ),
    "star arguments": (
        wrong_signature(lambda *xs: xs),
        TypeError,
        r"rule for <lambda>: expected a primal with named parameters only, got \(\*xs\)\. "
        r"Name every array positionally and every static argument after a bare `\*`\.",
    ),
    "unknown nodiff": (
        wrong_signature(op_taking_x, nodiff=("y",)),
        ValueError,
        r"rule for op_taking_x: expected nodiff names among the array arguments \['x'\], got 'y'\. "
        r"Keyword-only arguments are static and need no mention\.",
    ),
    "unknown static": (
        wrong_signature(op_taking_x, backward=lambda r, dy, *, axis: (dy,)),
        TypeError,
        r"rule for op_taking_x: expected a backward whose keyword-only arguments are the primal's "
        r"\[\], got \['axis'\] besides\. Take them from the residuals instead\.",
    ),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse_is_one_sentence(misuse):
    call, error, message = MISUSES[misuse]
    with pytest.raises(error, match=message):
        call()


def test_a_name_belongs_to_one_module():
    def dense(x):
        return x

    dense.__module__, dense.__qualname__ = "elsewhere", "dense"
    with pytest.raises(
        ValueError,
        match=r"rule: expected a name that no other module has given to an op, got 'dense', "
        r"which funcnet\.ops\.products\.linear has\. Choose another name\.",
    ):
        rule(lambda x: (x, None), lambda r, dy: (dy,))(dense)
    assert RULES["dense"].op is fn.dense


@jax.custom_jvp
def foreign_jvp(x):
    return jnp.sin(x)


foreign_jvp.defjvp(lambda primals, tangents: (foreign_jvp(*primals), 100.0 * tangents[0]))


@functools.partial(jax.custom_vjp)
def foreign_vjp(x):
    return jnp.sin(foreign_jvp(x))


foreign_vjp.defvjp(lambda x: (foreign_vjp(x), x), lambda x, dy: (50.0 * dy,))


WRAPS = {
    "plain": lambda f: f,
    "jit": jax.jit,
    "remat": jax.checkpoint,
    "scan": lambda f: lambda x: jax.lax.scan(lambda c, _: (f(c), None), x, None, length=2)[0],
    "while": lambda f: lambda x: jax.lax.fori_loop(0, 2, lambda i, c: f(c), x),
    "cond": lambda f: lambda x: jax.lax.cond(x.sum() < 100, f, lambda x: x, x),
    "vmap": jax.vmap,
    "jit in scan in jit": lambda f: jax.jit(
        lambda x: jax.lax.scan(lambda c, _: (jax.jit(f)(c), None), x, None, length=2)[0]
    ),
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_autodiff_strips_every_rule(wrap, x64):
    x = jnp.linspace(0.1, 1.0, 3)

    def plain(x):
        return jnp.sin(jnp.sin(x)) * x**3

    def ruled(x):
        return foreign_vjp(x) * scale(x, x, 1, power=2)

    stripped = fn.autodiff(WRAPS[wrap](ruled))
    expected = WRAPS[wrap](plain)
    np.testing.assert_allclose(stripped(x), expected(x), rtol=1e-12)
    np.testing.assert_allclose(jax.jacfwd(stripped)(x), jax.jacfwd(expected)(x), rtol=1e-10)
    _, tangent = jax.jvp(stripped, (x,), (x,))
    np.testing.assert_allclose(tangent, jax.jvp(expected, (x,), (x,))[1], rtol=1e-10)


def test_autodiff_takes_pytrees_and_static_leaves():
    def f(p, *, flag, name):
        return {"y": scale(p["x"], p["w"], 1, power=2) if flag else p["x"], "name": None}

    p = {"x": X, "w": jnp.float32(2.0)}
    out = fn.autodiff(f)(p, flag=True, name="a")
    np.testing.assert_allclose(out["y"], 4 * X)
    hessian = jax.hessian(lambda w: fn.autodiff(f)({**p, "w": w}, flag=True, name="a")["y"].sum())
    np.testing.assert_allclose(hessian(2.0), 2 * X.sum())


@pytest.mark.long
def test_hessian_of_a_network(x64, key):
    net = fn.serial(fn.Dense(2), fn.sigmoid)
    x = jax.random.normal(key, (6, 3))
    params, _ = net.init(key, x)

    def loss(params):
        return (net(params, x) ** 2).sum()

    with pytest.raises(TypeError, match="forward-mode"):
        jax.jacfwd(loss)(params)
    plain = fn.autodiff(loss)
    expected = jax.tree.leaves(jax.jit(jax.jacrev(jax.jacrev(loss)))(params))
    for hessian in (jax.hessian(loss), jax.hessian(plain), jax.jacfwd(jax.jacfwd(plain))):
        for a, b in zip(jax.tree.leaves(jax.jit(hessian)(params)), expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-10)


def _tripled_forward(x, n):
    return jnp.sinh(x) * n, (x, n)


def _tripled_backward(res, dy):
    x, n = res
    return jnp.cosh(x) * n * dy, None


@pytest.mark.parametrize("fast", [False, True])
def test_an_undifferentiated_call_runs_the_faster_way(fast, x64):
    @rule(_tripled_forward, _tripled_backward, fast=fast)
    def tripled(x, n):
        return (jnp.exp(x) - jnp.exp(-x)) / 2 * n

    x, n = jnp.linspace(0.1, 1.0, 3), jnp.arange(3)
    for wrap in (lambda f: f, jax.jit, jax.vmap, jax.checkpoint):
        call = wrap(tripled)
        text = str(jax.make_jaxpr(call)(x, n))
        assert ("sinh" in text, "exp" in text) == (fast, not fast)
        np.testing.assert_allclose(call(x, n), np.sinh(x) * n, rtol=1e-12)
        np.testing.assert_allclose(
            jax.grad(lambda x, call=call: call(x, n).sum())(x), np.cosh(x) * n, rtol=1e-12
        )
    plain = fn.autodiff(jax.jit(lambda x: tripled(x, n).sum()))
    np.testing.assert_allclose(jax.hessian(plain)(x), np.diag(np.sinh(x) * n), atol=1e-12)


@pytest.mark.long
def test_autodiff_of_an_ensemble_of_convolutions(key):
    net = fn.ensemble(fn.Conv(4, 3, bias=False), 2)
    x = jax.random.normal(key, (2, 6, 5, 1))
    params, state = net.init(key, x)

    def loss(params):
        return (net.apply(params, state, x)[0].sum((1, 2, 3, 4)) * jnp.arange(1.0, 3.0)).sum()

    ours, derived = jax.grad(loss)(params), jax.grad(fn.autodiff(loss))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), ours, derived)
    moved = jax.jvp(fn.autodiff(loss), (params,), (params,))[0]
    np.testing.assert_allclose(moved, loss(params), rtol=1e-4)


def test_autodiff_leaves_static_arguments_alone():
    slope = jax.jvp(lambda x: fn.autodiff(fn.leaky_relu)(x, slope=0.3), (X,), (jnp.ones(3),))[1]
    np.testing.assert_allclose(slope, [1.0, 0.3, 1.0])


def test_autodiff_keeps_scopes():
    def f(x):
        with jax.named_scope("outer"):
            return scale(x, 2.0)

    text = jax.make_jaxpr(fn.autodiff(f))(X).pretty_print(name_stack=True)
    assert "outer/scale" in text


@rule(lambda x, w: (x * w, (x, w)), lambda res, dy: (dy * res[1], dy * res[0]), wide=True)
def scaled(x, w):
    return x * w


@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("bfloat16", "float32")])
def test_a_wide_rule_rounds_its_output_alike_with_and_without_a_gradient(dtypes, x64):
    x, w = (jnp.ones(3, dtype) for dtype in dtypes)
    value, pull = jax.vjp(scaled, x, w)
    assert scaled(x, w).dtype == value.dtype == x.dtype
    assert [d.dtype for d in pull(value)] == [x.dtype, w.dtype]


@rule(lambda x: (y := jnp.tanh(x), y), lambda y, dy: ((1 - y) * (1 + y) * dy,), wide=True)
def squashed(x):
    return jnp.tanh(x)


def test_a_wide_rule_keeps_its_arguments_rather_than_a_rounded_output():
    x = jnp.array([-3.0, 0.5, 3.0], jnp.bfloat16)
    slopes = jax.vmap(jax.grad(squashed))(x)
    truth = 1 - np.tanh(np.asarray(x, np.float64)) ** 2
    np.testing.assert_allclose(np.asarray(slopes, np.float64), truth, rtol=2**-8)
    kept = jax.tree.leaves(jax.vjp(squashed, x)[1])
    assert {leaf.dtype for leaf in kept} == {jnp.dtype("bfloat16")}


def test_a_check_is_called_once_with_the_arguments_it_names():
    seen = []

    def look(op, *, x, times):
        seen.append((op, x.shape, times))

    @rule(lambda x, *, times: (x * times, ()), lambda _, dy, *, times: (dy * times,), check=look)
    def grown(x, *, times=2):
        return x * times

    jax.grad(lambda x: grown(x).sum())(jnp.ones(3))
    assert seen == [("grown", (3,), 2)]


@pytest.mark.parametrize(
    "f",
    [
        lambda x: fn.binary_cross_entropy(x, jnp.ones(3), reduction="sum"),
        lambda x: fn.softplus(x).sum(),
        lambda x: fn.log_sigmoid(x).sum(),
        lambda x: jax.nn.relu(x).sum(),
        lambda x: jnp.logaddexp(x, 0.0).sum(),
    ],
)
def test_forward_mode_at_zero_is_the_gradient_there(f):
    x, along = jnp.array([0.0, 1.0, -1.0]), jnp.array([1.0, 2.0, 3.0])
    _, tangent = jax.jvp(fn.autodiff(f), (x,), (along,))
    np.testing.assert_allclose(tangent, jnp.vdot(jax.grad(f)(x), along), rtol=1e-6)
