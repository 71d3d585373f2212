"""Custom rules as people write them: literals, None, NumPy and nests among residuals, outputs and
cotangents; each traced, compared with JAX, watched and shown."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.extend.core import Primitive
from jax.interpreters import ad

import funcnet as fn

from .test_traces_grid import proven

V = np.array([0.5, -1.2, 2.0])


def rule(primal, forward, backward, **options):
    f = jax.custom_vjp(primal)
    f.defvjp(forward, backward, **options)
    return f


def double(x):
    return x * 2


class Kept(NamedTuple):
    flag: bool
    rest: dict


def both(x):
    y = x * 2
    return y, (y, 1, y)


VJPS = {
    "bool": (double, lambda x: (x * 2, True), lambda kept, dy: (dy * 2,)),
    "integer and array": (double, lambda x: (x * 2, (3, x)), lambda kept, dy: (dy * kept[0],)),
    "float": (double, lambda x: (x * 2, 2.0), lambda kept, dy: (dy * kept,)),
    "complex": (double, lambda x: (x * 2, 2j), lambda kept, dy: (dy * kept.imag,)),
    "NumPy scalar": (double, lambda x: (x * 2, np.float64(2)), lambda kept, dy: (dy * kept,)),
    "NumPy truth": (double, lambda x: (x * 2, np.bool_(True)), lambda kept, dy: (dy * 2 * kept,)),
    "NumPy array": (double, lambda x: (x * 2, np.full(3, 2.0)), lambda kept, dy: (dy * kept,)),
    "None": (double, lambda x: (x * 2, None), lambda kept, dy: (dy * 2,)),
    "nothing": (double, lambda x: (x * 2, ()), lambda kept, dy: (dy * 2,)),
    "nest": (
        double, lambda x: (x * 2, Kept(True, {"a": [1, None, x], "b": 2.0})),
        lambda kept, dy: (jnp.where(kept.flag, dy * kept.rest["b"], kept.rest["a"][2]),),
    ),
    "output and residual": (double, both, lambda kept, dy: (dy * 2,)),
    "output is input": (lambda x: x, lambda x: (x, (x, True)), lambda kept, dy: (dy,)),
    "one output twice": (
        lambda x: (x, x), lambda x: ((x, x), (x, 0)), lambda kept, dys: (dys[0] + 3 * dys[1],),
    ),
    "literal output": (lambda x: 2.0, lambda x: (2.0, None), lambda kept, dy: (jnp.ones(3) * dy,)),
    "literal outputs": (
        lambda x: (x * 2, 3.0, 4), lambda x: ((x * 2, 3.0, 4), True),
        lambda kept, dys: (dys[0] * 2 + dys[1],),
    ),
    "None back": (double, lambda x: (x * 2, x), lambda kept, dy: (None,)),
    "zeros back": (double, lambda x: (x * 2, x), lambda kept, dy: (jnp.zeros_like(kept),)),
    "NumPy back": (double, lambda x: (x * 2, x), lambda kept, dy: (np.ones(3),)),
    "a condition forward": (
        double, lambda x: (lax.cond(x[0] > 0, lambda: x * 2, lambda: x), 7),
        lambda kept, dy: (dy * kept,),
    ),
    "a loop back": (
        double, lambda x: (x * 2, (x, 2)),
        lambda kept, dy: (lax.fori_loop(0, 3, lambda i, d: d * kept[0], dy),),
    ),
}  # fmt: skip


def total(f):
    def of(x):
        ys = jax.tree.leaves(f(x))
        return sum(jnp.sum(y) * 1.5 for y in ys) + jnp.sum(x**2)

    return of


@pytest.mark.parametrize("name", VJPS)
def test_a_vjp_rule(name, x64):
    proven(total(rule(*VJPS[name])), (V,))


def nested(x):
    inner = rule(*VJPS["nest"])
    outer = rule(
        lambda x: inner(x) * 2,
        lambda x: (inner(x) * 2, (1, True)),
        lambda kept, dy: (inner(dy) * 2,),
    )
    return jnp.sum(outer(x) ** 2)


def scanned(x):
    f = rule(*VJPS["nest"])
    return jnp.sum(lax.scan(lambda h, _: (jnp.sin(f(h)), None), x, None, length=3)[0])


def within_remat_and_jit(x):
    f = jax.jit(rule(*VJPS["integer and array"]))
    return jnp.sum(jax.checkpoint(lambda x: jnp.sin(f(x)))(x))


def mapped(x):
    return jnp.sum(jax.vmap(rule(*VJPS["bool"]))(x) ** 2)


def literal_argument(x):
    f = rule(lambda x, n: x * n, lambda x, n: (x * n, n), lambda n, dy: (dy * n, None))
    g = rule(
        lambda x, n: x * n,
        lambda x, n: (x * n, (x, n)),
        lambda r, dy: (dy * r[1], jnp.sum(dy * r[0])),
    )
    return jnp.sum(f(x, 3) + g(x, 2.0))


def zero_of_an_integer(x):
    f = rule(
        lambda x, n: x * n, lambda x, n: (x * n, n),
        lambda n, dy: (dy * n, np.zeros((), jax.dtypes.float0)),
    )  # fmt: skip
    return jnp.sum(f(x, jnp.asarray(3)))


def key_as_residual(x):
    def noisy(x, key):
        return x * jax.random.normal(key, x.shape, x.dtype)

    f = rule(noisy, lambda x, k: (noisy(x, k), (k, 1)), lambda kept, dy: (noisy(dy, kept[0]), None))
    return jnp.sum(f(x, jax.random.key(1)))


def static_argument(x):
    f = functools.partial(jax.custom_vjp, nondiff_argnums=(1,))(lambda x, n: x * n)
    f.defvjp(lambda x, n: (x * n, True), lambda n, kept, dy: (dy * n,))
    return jnp.sum(f(x, 3))


def no_output(x):
    rule(lambda x: (), lambda x: ((), True), lambda kept, dy: (None,))(x)
    return jnp.sum(x)


def symbolic_zeros(x):
    def backward(kept, dys):
        return tuple(
            jnp.zeros(3) if isinstance(dy, SymbolicZero) else dy * n
            for dy, n in zip(dys, (2, 3), strict=True)
        )

    f = rule(
        lambda x, y: (x * 2, y * 3),
        lambda x, y: ((x.value * 2, y.value * 3), (x.perturbed, y.perturbed)),
        backward, symbolic_zeros=True,
    )  # fmt: skip
    return jnp.sum(f(x, V)[0]) + jnp.sum(f(x, x)[1])


def jvp(primal, forward, **options):
    f = jax.custom_jvp(primal)
    f.defjvp(forward, **options)
    return f


def jvp_with_literals(x):
    square = jvp(lambda x: x**2, lambda p, t: (p[0] ** 2, t[0] * 2.0 * p[0]))
    flat = jvp(lambda x: x**2, lambda p, t: (p[0] ** 2, jnp.zeros(3)))
    three = jvp(lambda x: 3.0, lambda p, t: (3.0, 0.0))
    first = jvp(lambda x: x[0], lambda p, t: (p[0][0], 1.0))
    return jnp.sum(square(x) + flat(x)) * three(x) * first(x)


def jvp_with_none(x):
    f = jax.custom_jvp(lambda x, y: x * y)
    f.defjvps(lambda t, y, a, b: t * b, None)
    return jnp.sum(f(x, x))


def jvp_with_symbolic_zeros(x):
    def forward(points, ways):
        (x, y), parts = points, zip(ways, points[::-1], strict=True)
        return x * y, sum((t * p for t, p in parts if not isinstance(t, SymbolicZero)), 0.0)

    f = jvp(lambda x, y: x * y, forward, symbolic_zeros=True)
    return jnp.sum(f(x, lax.stop_gradient(x)) + f(x, V))


def custom_gradient(x):
    f = jax.custom_gradient(lambda x: (x**2, lambda dy: (dy * 2.0,)))
    return jnp.sum(f(x))


USES = (
    nested, scanned, within_remat_and_jit, mapped, literal_argument, zero_of_an_integer,
    key_as_residual, static_argument, no_output, symbolic_zeros, jvp_with_literals, jvp_with_none,
    jvp_with_symbolic_zeros, custom_gradient,
)  # fmt: skip


@pytest.mark.parametrize("f", USES, ids=lambda f: f.__name__)
def test_a_rule_in_use(f, x64):
    proven(f, (V,))


def test_literals_are_lines_and_outputs_as_arrays():
    def f(x):
        return rule(*VJPS["literal outputs"])(x), True, 2

    trace = fn.trace(f, seed=((1.0, None, None), None, None))(V.astype("float32"))
    assert jax.tree.map(lambda y: y.dtype.name, trace.output) == (
        ("float32", "float32", "int32"), "bool", "int32",
    )  # fmt: skip
    assert [float(y) for y in jax.tree.leaves(trace.output)[1:]] == [3, 4, 1, 2]
    row = next(row for row in trace.rows if row.kind == "rule")
    assert row.value.shape == (3,)
    assert [r.value.text for r in trace.rows if r.kind == "rule"][1:] == ["3", "4"]


sealed = Primitive("sealed")
"""As equinox's `nondifferentiable_backward`: an error where a cotangent comes to it."""

sealed.def_impl(lambda x: x)
sealed.def_abstract_eval(lambda x: x)
ad.primitive_jvps[sealed] = lambda xs, ts: (sealed.bind(*xs), sealed.bind(*ts))


def _sealed_transpose(dy, x):
    if type(dy) is not ad.Zero:
        raise RuntimeError("it was differentiated")
    return (dy,)


ad.primitive_transposes[sealed] = _sealed_transpose


def test_what_is_not_differentiated_may_have_no_derivative(x64):
    implicit = rule(
        lambda y, x: y**3, lambda y, x: (y**3, x), lambda x, dy: (None, 3 * x**2 * dy)
    )  # fmt: skip
    trace = fn.trace(lambda x: jnp.sum(implicit(sealed.bind(x), x)))(V)
    np.testing.assert_allclose(trace.gradients[0], 3 * V**2)
    assert trace.check().difference == 0
    row = next(row for row in trace.rows if row.note)
    assert row.note == "no derivative: it was differentiated"
    with pytest.raises(
        ValueError, match=r"got none of sealed at .* \(it was differentiated\)\. Give"
    ):
        fn.trace(lambda x: jnp.sum(sealed.bind(x)))(V)


# The structure of diffrax's BacksolveAdjoint, which keeps whether an argument is perturbed.


@jax.custom_vjp
def solved(y, rate):
    return lax.while_loop(
        lambda s: s[0] < 10, lambda s: (s[0] + 1, s[1] * (1 - rate / 10)), (0, y)
    )[1]


def _solved_forward(y, rate):
    end = solved(y.value, rate.value)
    return end, (end, rate.value, (y.perturbed, rate.perturbed), None)


def _solved_backward(kept, dy):
    end, rate, (of_y, of_rate), _ = kept
    back = lax.fori_loop(0, 10, lambda i, d: d * (1 - rate / 10), dy)
    slope = -jnp.sum(back * end) / (1 - rate / 10)
    return back if of_y else None, slope if of_rate else None


solved.defvjp(_solved_forward, _solved_backward, symbolic_zeros=True)


@pytest.mark.long
def test_a_solver_that_is_integrated_backwards(x64):
    proven(lambda y, rate: jnp.sum(solved(y, rate) ** 2), (V, 0.3))
    proven(lambda y: jnp.sum(solved(y, 0.3) ** 2), (V,))
