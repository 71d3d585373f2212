"""Loops under `vmap`: while one element goes on the loop runs, and what is done stays as it is."""

import gc
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import funcnet as fn
from funcnet.jaxpr import equations, jaxprs

from .test_traces_grid import every_form

V = np.array([0.5, 1.2, 2.0])
W = np.array([[0.5, 1.2, 2.0], [3.0, 0.7, 0.9]])
N = np.array([0, 2, 3])


def grow(x):
    return lax.while_loop(lambda s: s[0] < 10, lambda s: (s[0] * (x + 1), s[1] + 1), (x, 0))[0]


def powers(n, x):
    return lax.fori_loop(0, n, lambda i, h: jnp.sin(h) * x + i, x)


def while_in_while(x):
    def body(h):
        return lax.while_loop(lambda g: g < h * 1.5 + 1, lambda g: g * 1.3 + x * 0.1, h)

    return lax.while_loop(lambda h: h < 20, body, x)


def branch_in_while(x):
    def body(h):
        return lax.cond(h > 2, lambda h: h * 2, lambda h: h + x, h)

    return lax.while_loop(lambda h: h < 10, body, x)


def scan_in_while(x):
    def body(h):
        return lax.scan(lambda g, _: (g * 1.1 + x * 0.1, g), h, None, length=2)[0]

    return lax.while_loop(lambda h: h < 10, body, x)


def while_in_scan(x):
    return lax.scan(lambda h, _: (grow(jnp.sin(h) ** 2 + 0.1), h), x, None, length=2)[1][1]


def newton(x):
    def body(h):
        return 0.5 * (h + x / h)

    return lax.while_loop(lambda h: jnp.abs(h * h - x) > 1e-6, body, x)


def until_negative(x):
    """Where it is done, the body has no value."""
    return lax.while_loop(lambda h: h > 0, lambda h: jnp.sqrt(h) - x / 8 - 0.5, x)


def until_negative_by_all(x, c):
    return lax.while_loop(lambda h: h > 0, lambda h: c * jnp.log(h) - 0.3, x)


def walk(x, key):
    def body(state):
        h, key = state
        own, key = jax.random.split(key)
        return h + x * jax.random.uniform(own, (), x.dtype), key

    return lax.while_loop(lambda state: state[0] < 3, body, (x, key))[0]


def flagged(x):
    return lax.while_loop(lambda s: s[1], lambda s: (s[0] * 1.5, s[0] < 3), (x, True))[0]


KEYS = jax.random.split(jax.random.key(0), 3)
RAW = jax.random.split(jax.random.PRNGKey(0), 3)
LOOPS = {
    "grow": (jax.vmap(grow), V),
    "jitted": (jax.jit(jax.vmap(grow)), V),
    "in remat": (jax.checkpoint(jax.vmap(grow)), V),
    "twice": (jax.vmap(jax.vmap(grow)), W),
    "no element": (jax.vmap(lambda x: lax.while_loop(lambda h: h < 0, lambda h: h * x, x)), V),
    "fori to each its own": (lambda x: jax.vmap(powers)(N, x), V),
    "fori, what is shared": (lambda x: jax.vmap(powers, (0, None))(N, x), 1.5),
    "fori twice": (lambda x: jax.vmap(jax.vmap(powers), (None, 0))(N, x), W),
    "while in while": (jax.vmap(while_in_while), V),
    "branch in while": (jax.vmap(branch_in_while), V),
    "scan in while": (jax.vmap(scan_in_while), V),
    "while in scan": (jax.vmap(while_in_scan), V),
    "newton": (jax.vmap(newton), V),
    "no value where done": (jax.vmap(until_negative), np.array([0.1, 4.0, 9.0, -1.0])),
    "no value for all": (lambda c: jax.vmap(until_negative_by_all, (0, None))(V, c), 1.1),
    "no value, both": (lambda c: jax.vmap(until_negative_by_all)(V, c), np.array([1.1, 0.2, 0.7])),
    "keys": (lambda x: jax.vmap(walk)(x, KEYS), V),
    "raw keys": (lambda x: jax.vmap(walk)(x, RAW), V),
    "flag": (jax.vmap(flagged), V),
    "vector": (
        jax.vmap(lambda r: lax.while_loop(lambda h: jnp.sum(h) < 20, lambda h: h + r, r)),
        W,
    ),
    "other axis": (jax.vmap(grow, 0, 0), V),
    "columns": (
        jax.vmap(
            lambda c: lax.while_loop(lambda h: jnp.sum(h) < 20, lambda h: h * 1.5 + c, c), 1, 1
        ),
        W,
    ),
    "in a branch": (lambda x: lax.cond(x[0] > 0, jax.vmap(grow), jnp.sin, x), V),
    "in a loop": (
        lambda x: lax.scan(lambda h, _: (jax.vmap(grow)(h) * 0.01, h), x, None, length=2)[0],
        V,
    ),
    "tangents": (lambda x: jax.jvp(jax.vmap(grow), (x,), (x * x,))[1], V),
    # Neighbours, of which JAX makes something else.
    "branches": (jax.vmap(lambda x: lax.cond(x > 1, jnp.sin, lambda x: x**3, x)), V),
    "switch": (lambda x: jax.vmap(lambda n, x: lax.switch(n, [jnp.sin, jnp.cos], x))(N, x), V),
    "scan": (jax.vmap(lambda r: lax.scan(lambda h, a: (jnp.sin(h * a), h), 0.5, r)[0]), W),
    "same for all": (jax.vmap(lambda x: lax.fori_loop(0, N[1], lambda i, h: h * x, x)), V),
}


def total(f):
    return lambda x: jnp.sum(f(x) * 1.5)


LONG = {"keys", "raw keys", "while in scan", "in a branch", "fori twice", "twice", "grow"}
LONG |= {"no value where done", "in a loop", "fori, what is shared", "other axis", "scan in while"}


def marked(name):
    return pytest.param(name, marks=[pytest.mark.slow, pytest.mark.long] * (name in LONG))


@pytest.mark.parametrize("name", [marked(name) for name in LOOPS])
def test_the_gradient_is_that_of_forward_mode(name, x64):
    f, x = LOOPS[name]
    trace = fn.trace(total(f), keep="all")(x)
    true = jax.jacfwd(total(f))(x)
    np.testing.assert_allclose(trace.output, total(f)(x), rtol=1e-12)
    np.testing.assert_allclose(trace.gradients[0], true, rtol=1e-9)
    assert trace.check().difference <= 1e-8 * max(1, trace.check().scale)
    for row in trace.rows:
        if row.contributions:
            parts = sum(np.asarray(c.value.array) for c in row.contributions)
            np.testing.assert_allclose(parts, row.adjoint.array, rtol=1e-9, atol=1e-12)


SAMPLED = ["grow", "twice", "fori to each its own", "scan in while", "no value where done",
           "no value for all", "keys", "no element", "in a loop"]  # fmt: skip


@pytest.mark.parametrize("name", SAMPLED)
def test_a_few_iterations_are_opened(name, x64):
    f, x = LOOPS[name]
    trace = fn.trace(total(f), sample=2)(x)
    np.testing.assert_allclose(trace.gradients[0], jax.jacfwd(total(f))(x), rtol=1e-9)
    iterations = {int(i) for r in trace.rows for i in re.findall(r"\[(\d+)\]", r.name)}
    assert len(iterations) <= 2 or name in ("scan in while", "in a loop")


def test_what_is_done_stays_as_it_is(x64):
    trace = fn.trace(total(jax.vmap(grow)), tangents=(np.ones(3),))(V)
    chosen = [row for row in trace.rows if row.expression.startswith("where(")]
    values = np.stack([r.value.array for r in chosen if r.value.dtype == "float64"])
    for i, x in enumerate(V):
        own = [x]
        while own[-1] < 10:
            own.append(own[-1] * (x + 1))
        np.testing.assert_allclose(values[: len(own) - 1, i], own[1:])
        assert (values[len(own) - 2 :, i] == values[-1, i]).all()
    steps = np.stack([r.value.array for r in chosen if r.value.dtype == "int64"])
    assert steps[-1].tolist() == [8, 3, 2]
    slope = jax.jvp(total(jax.vmap(grow)), (V,), (np.ones(3),))[1]
    np.testing.assert_allclose(trace.rows[-1].tangent.array, slope)
    lines = {row.source.code for row in trace.rows if row.op in ("mul", "lt") and row.within}
    assert lines == {next(r.source.code for r in trace.rows if r.op == "lt")}
    assert all("while" in row.within for row in chosen)


def test_its_forms_and_its_neighbours(x64):
    trace = fn.trace(total(jax.vmap(grow)))(V)
    said = trace.json()
    assert fn.Trace.load(said).json() == said
    assert str(fn.Trace.load(said)) == str(trace)
    assert trace.svg()
    assert trace.html()

    def beside(x):
        counts = jax.vmap(lambda n: lax.while_loop(lambda m: m < 5, lambda m: m + n, n))(N + 1)
        return jnp.sum(x**2 * counts)

    trace = fn.trace(beside)(V)
    np.testing.assert_allclose(trace.gradients[0], 2 * V * [5, 6, 8])
    every_form(beside, (V,), trace)
    watched = jax.jit(fn.watch(beside, select="all"))(V)
    np.testing.assert_allclose(watched.gradients[0], trace.gradients[0])
    texts = [e.text for pair in fn.trace(beside).abstract(V).pairs for e in pair.forward]
    assert any("going(" in text for text in texts)


def test_in_the_lines_of_a_rule(x64):
    @jax.custom_vjp
    def f(x):
        return jax.vmap(grow)(x)

    f.defvjp(lambda x: (f(x), x), lambda x, dy: (dy * jax.vmap(grow)(x),))
    trace = fn.trace(lambda x: jnp.sum(f(x)))(V)
    np.testing.assert_allclose(trace.gradients[0], jax.vmap(grow)(V))
    row = next(row for row in trace.rows if row.kind == "rule")
    assert any("while" in line.expression for line in row.backward)


def test_under_jit_where_nothing_flows_through_it(x64):
    def f(x, n):
        m = jax.vmap(lambda m: lax.while_loop(lambda h: h < n, lambda h: h + 1, m))(N)
        return jnp.sum(x * m)

    slope = jax.jit(lambda x, n: fn.trace(f)(x, n).gradients[0])(V, 5)
    assert slope.tolist() == [5, 5, 5]


REVERSE = (
    "(Reverse-mode differentiation does not work for lax.while_loop or lax.fori_loop with dynamic "
    "start/stop values). Trace it outside of jit and vmap and without sample=, so that the loop is "
    "opened."
)
FLOWS = "trace: expected a derivative of all that the gradient flows through, got none of "


def called_back(x):
    like = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(lambda x: np.asarray(x) * 2, like, x)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: jax.jit(lambda x: fn.trace(grow)(x).gradients[0])(1.0), f"while at .*{REVERSE}"),
    (lambda: jax.vmap(lambda x: fn.trace(grow)(x).gradients[0])(V), f"while at .*{REVERSE}"),
    (lambda: fn.trace(while_in_while, sample=2)(1.0), f"scan at .*{REVERSE}"),
    (lambda: fn.trace(lambda x: jnp.sum(called_back(x)) + jnp.sum(x))(V),
     "pure_callback at .*(Pure callbacks do not support JVP). Give it a rule with jax.custom_vjp, "
     "or put jax.lax.stop_gradient before it."),
    (lambda: fn.trace(lambda x: jnp.sum(jnp.ones(3).at[N % 2].multiply(x)))(V),
     "scatter-mul at .*(scatter_mul gradients are only implemented if `unique_indices=True`). Give "
     "it a rule with jax.custom_vjp, or put jax.lax.stop_gradient before it."),
])  # fmt: skip
def test_a_gradient_that_would_be_missing_is_refused(call, message):
    first, _, last = message.partition(".*")
    with pytest.raises(ValueError, match="expected a derivative") as caught:
        call()
    assert str(caught.value).startswith(FLOWS + first)
    assert str(caught.value).endswith(last)


def test_what_has_no_derivative_may_stand_aside():
    def f(x):
        return jnp.sum(x**2), called_back(x)

    trace = fn.trace(f, has_aux=True)(V.astype("float32"))
    np.testing.assert_allclose(trace.gradients[0], 2 * V, rtol=1e-6)
    assert str(trace.check()).startswith(
        "Not checked: jax.vjp refuses this function: Pure callbacks do not support JVP."
    )
    assert str(trace).endswith(str(trace.check()))
    assert str(fn.Trace.load(trace.json())) == str(trace)


# What this assumes of JAX.


def loop_of(f, *args):
    eqns = jax.make_jaxpr(f)(*args).jaxpr.eqns
    return next(eqn for eqn in eqns if eqn.primitive.name == "while")


def test_a_batched_condition_is_an_array_over_the_first_axes_of_the_carry():
    for f, x, shape in ((jax.vmap(grow), V, (3,)), (jax.vmap(jax.vmap(grow)), W, (2, 3))):
        eqn = loop_of(f, x)
        inside = jaxprs.structure(eqn)
        assert jaxprs.close(inside.cond).out_avals[0].shape == shape
        for v in eqn.outvars:
            assert v.aval.shape[: len(shape)] == shape
        loop = equations.structure(eqn)
        assert loop.cond.out_avals[0].shape == ()
        assert equations.structure(eqn) is loop
        plain = equations.structure(loop_of(grow, 1.0))
        assert plain.cond.out_avals[0].shape == ()
        assert [len(g) for g in loop.groups(eqn.invars)] == [0, 1, 2]


def test_what_is_known_of_a_loop_goes_with_it():
    before = len(equations._LOOPS)
    eqn = loop_of(jax.vmap(lambda x: lax.while_loop(lambda h: h < 3, lambda h: h + x, x)), V)
    equations.structure(eqn)
    assert len(equations._LOOPS) == before + 1
    del eqn
    gc.collect()
    assert len(equations._LOOPS) <= before
