"""Models of other libraries, where those are installed: traced as any function is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn

X = np.linspace(-1, 1, 12).reshape(4, 3)


def verdict(loss, params, layers):
    trace = fn.trace(loss, keep="all")(params)
    true = jax.grad(loss)(params)
    for a, b in zip(jax.tree.leaves(trace.gradients[0]), jax.tree.leaves(true), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    for row in trace.rows:
        if row.contributions:
            total = sum(c.value.array for c in row.contributions)
            np.testing.assert_allclose(total, row.adjoint.array, rtol=1e-10, atol=1e-12)
    scopes = {row.scope for row in trace.rows}
    assert all(any(layer in scope for scope in scopes) for layer in layers), scopes
    watched = fn.watch(loss, select="all", keep="values")(params)
    for place, seen in watched.seen.items():
        adjoint = trace[place].adjoint
        expected = np.zeros_like(seen.adjoint) if adjoint is None else adjoint.array
        np.testing.assert_allclose(seen.adjoint, expected, rtol=1e-10, atol=1e-12)
    symbolic = fn.trace(loss).abstract(params)
    assert symbolic.attributed >= 0.95
    assert trace.html()


def test_flax(x64):
    nn = pytest.importorskip("flax.linen")

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.LayerNorm(param_dtype="float64")(nn.relu(nn.Dense(5, param_dtype="float64")(x)))
            return nn.MultiHeadDotProductAttention(1, param_dtype="float64")(x[None])

    net = Net()
    params = net.init(jax.random.key(0), X)
    verdict(lambda p: jnp.sum(net.apply(p, X) ** 2), params, ["Dense_0", "LayerNorm_0"])


def test_equinox(x64):
    eqx = pytest.importorskip("equinox")
    key = jax.random.key(0)
    net = eqx.nn.Sequential([eqx.nn.MLP(3, 4, 5, 2, key=key), eqx.nn.LayerNorm(4)])
    params, static = eqx.partition(net, eqx.is_array)

    def loss(params):
        return jnp.sum(jax.vmap(eqx.combine(params, static))(X) ** 2)

    verdict(loss, params, [])


def test_haiku(x64):
    hk = pytest.importorskip("haiku")

    def forward(x):
        core = hk.GRU(4)
        out, _ = hk.dynamic_unroll(core, x[:, None], core.initial_state(1))
        return hk.nets.MLP([5, 2])(out)

    net = hk.without_apply_rng(hk.transform(forward))
    params = net.init(jax.random.key(0), X)
    trace = fn.trace(lambda p: jnp.sum(net.apply(p, X) ** 2))(params)
    assert trace.check().difference <= 1e-10 * trace.check().scale
    assert any("mlp" in row.scope for row in trace.rows)
    assert fn.trace(lambda p: jnp.sum(net.apply(p, X) ** 2)).abstract(params).attributed >= 0.95
