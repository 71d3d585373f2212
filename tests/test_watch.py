"""Watching, capturing and editing: compiled, and equal to what a trace says."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn

close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)


def problem():
    net = fn.serial(fn.Dense(4), fn.relu, head=fn.Dense(2))
    x = jnp.linspace(-1, 1, 6).reshape(2, 3)
    params, _ = net.init(jax.random.key(0), x)

    def loss(params, x):
        return jnp.mean((net(params, x) - 1.0) ** 2)

    return loss, params, x


def figures(x):
    x = np.asarray(x, float)
    return {
        "norm": np.linalg.norm(x), "max": np.abs(x).max(), "mean": x.mean(),
        "zeros": (x == 0).mean(), "nonfinite": (~np.isfinite(x)).mean(),
    }  # fmt: skip


def test_layers_by_default_and_equal_to_the_trace():
    loss, params, x = problem()
    watched = jax.jit(fn.watch(loss))(params, x)
    trace = fn.trace(loss, keep="all")(params, x)
    assert watched.places == ("dense", "relu", "head")
    for place in watched.places:
        value, adjoint = watched[place]
        row = trace[place]
        jax.tree.map(close, value, figures(row.value.array))
        jax.tree.map(close, adjoint, figures(row.adjoint.array))
    close(watched.output, trace.output)
    jax.tree.map(close, watched.gradients, trace.gradients)


def test_selection_by_name_path_variable_and_function():
    def f(x):
        with jax.named_scope("block"):
            h = jnp.sin(x)
        return jnp.sum(h * 2)

    x = jnp.ones(3)
    every = fn.watch(f, select="all")(x)
    assert every.places == ("v1", "v2", "v3")
    named = fn.watch(f, select=["block", "h", "v1"])(x)
    for place in named.places:
        jax.tree.map(close, named[place], every["v1"])
    assert fn.watch(f, select=lambda site: site.op == "mul")(x).places == ("v2",)
    some = fn.watch(f, select="h", stats=("max",))(x)
    assert list(some["h"].value) == ["max"]
    own = fn.watch(f, select="h", stats={"rms": lambda v: jnp.sqrt(jnp.mean(v**2))})(x)
    close(own["h"].adjoint["rms"], 2.0)


def test_scan_gives_an_axis_and_vmap_another():
    def f(h, xs):
        def body(h, x):
            with jax.named_scope("cell"):
                h = jnp.tanh(h + x)
            return h, None

        return jax.lax.scan(body, h, xs)[0]

    xs = jnp.linspace(0, 1, 5)
    watched = jax.jit(fn.watch(f, keep="values"))(0.1, xs)
    trace = fn.trace(f)(0.1, xs)
    rows = [r for r in trace.rows if r.op == "tanh"]
    close(watched["cell"].value, [r.value.array for r in rows])
    close(watched["cell"].adjoint, [r.adjoint.array for r in rows])
    many = jax.jit(jax.vmap(fn.watch(f), (0, None)))(jnp.array([0.1, 0.2, 0.3]), xs)
    assert many["cell"].adjoint["norm"].shape == (3, 5)
    close(many["cell"].adjoint["norm"][0], np.abs(watched["cell"].adjoint))


def test_branches_remat_and_loops_inside_branches():
    def f(x, i):
        def many(x):
            return jax.lax.scan(lambda h, a: (jnp.sin(h + a), None), 0.0, x)[0]

        y = jax.lax.switch(i, [many, jnp.sum], x)
        return jax.checkpoint(lambda y: jnp.exp(jnp.cos(y)))(y) + jnp.sum(x)

    see = jax.jit(fn.watch(f, select=lambda site: site.op == "sin", keep="values"))
    x = jnp.linspace(0, 1, 3)
    for i in (0, 1):
        watched, trace = see(x, i), fn.trace(f)(x, i)
        jax.tree.map(close, watched.gradients, trace.gradients)
        sines = [r.adjoint.array for r in trace.rows if r.op == "sin"] or [0.0, 0.0, 0.0]
        (seen,) = watched.seen.values()
        close(seen.adjoint, sines)


def test_one_compilation_serves_many_calls():
    loss, params, x = problem()
    calls = []

    def counted(params, x):
        calls.append(1)
        return loss(params, x)

    see = jax.jit(fn.watch(counted))
    for scale in (1.0, 2.0):
        see(params, x * scale)
    assert len(calls) == 1


def test_it_works_on_a_mesh():
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    loss, params, x = problem()
    spread = jax.device_put(
        x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    )
    one, two = (jax.jit(fn.watch(loss))(params, a) for a in (x, spread))
    jax.tree.map(close, one.seen, two.seen)
    jax.tree.map(close, one.gradients, two.gradients)


def test_a_layer_called_again_has_a_number():
    @fn.network(same=fn.tanh, other=fn.Dense(2))
    def net(net, x):
        return net.same(net.other(net.same(x)))

    x = jnp.ones((1, 2))
    params, _ = net.init(jax.random.key(0), x)
    watched = fn.watch(lambda p, x: jnp.sum(net(p, x)))(params, x)
    assert watched.places == ("same", "other", "same#2")


def test_the_state_of_a_layer_is_not_its_output():
    net = fn.serial(fn.Dense(3), fn.BatchNorm())
    x = jax.random.normal(jax.random.key(1), (4, 2))
    params, state = net.init(jax.random.key(0), x)

    def loss(params):
        y, new = net.apply(params, state, x, train=True)
        return jnp.sum(y**3), new

    seed = (1.0, jax.tree.map(lambda _: None, state))
    watched = fn.watch(loss, seed=seed)(params)
    place = next(p for p in watched.places if p.startswith("batch_norm"))
    y = net.apply(params, state, x, train=True)[0]
    close(watched[place].value["norm"], jnp.linalg.norm(y))
    assert isinstance(watched.output[1], dict)


def test_capture_gives_value_and_adjoint():
    loss, params, x = problem()
    found = jax.jit(fn.capture(loss, "relu", wrt=0))(params, x)
    trace = fn.trace(loss, keep="all")(params, x)
    close(found.value, trace["relu"].value.array)
    close(found.adjoint, trace["relu"].adjoint.array)
    jax.tree.map(close, found.gradients, jax.grad(loss)(params, x))
    close(found.output, loss(params, x))


def test_edit_gradient_changes_what_lies_before():
    loss, params, x = problem()
    true = jax.grad(loss)(params, x)
    doubled = jax.jit(jax.grad(fn.edit_gradient(loss, "relu", lambda dy: 2 * dy)))(params, x)
    jax.tree.map(close, doubled["head"], true["head"])
    jax.tree.map(lambda a, b: close(a, 2 * b), doubled["dense"], true["dense"])
    stopped = jax.grad(fn.edit_gradient(loss, "dense", jnp.zeros_like))(params, x)
    assert not stopped["dense"]["w"].any()
    assert stopped["head"]["w"].any()
    close(fn.edit_gradient(loss, "relu", jnp.negative)(params, x), loss(params, x))


def test_edit_gradient_in_a_loop_clips_each_iteration():
    def f(w, xs):
        def body(h, x):
            with jax.named_scope("cell"):
                h = w * h + x
            return h, None

        return jax.lax.scan(body, 0.0, xs)[0]

    clipped = fn.edit_gradient(f, "cell", lambda dy: dy.clip(-1, 1))
    xs = jnp.ones(4)
    h, slope = 0.0, 0.0
    states = []
    for x in xs:
        states.append(h)
        h = 3.0 * h + x
    for state in states:
        slope += 1.0 * state
    close(jax.grad(clipped)(3.0, xs), slope)
    assert jax.grad(f)(3.0, xs) > slope


def f(x):
    with jax.named_scope("hidden"):
        h = jnp.sin(x)
    return h**2


MESSAGES = [
    (lambda: fn.watch(f, select="hiden")(1.0),
     "watch: expected the path of a layer, a variable or a row that the gradient flows through, "
     "got 'hiden'. The nearest are hidden, h."),
    (lambda: fn.watch(lambda x: x, select="layer")(1.0),
     "watch: expected the path of a layer, a variable or a row that the gradient flows through, "
     "got 'layer'. There is none."),
    (lambda: fn.watch(f, stats=("norm", "median"))(1.0),
     "watch: expected statistics among norm, max, mean, zeros, nonfinite, got 'median'. Or give "
     "functions by name: stats={'rms': f}."),
    (lambda: fn.watch(jnp.sin)(jnp.ones(2)),
     "watch: expected one real number as output, or a seed, got float32 of shape (2,). Pass seed=, "
     "the adjoint of the output: an array of its shape, or a pytree like it with None where "
     "nothing starts."),
    (lambda: fn.capture(f, "other")(1.0),
     "capture: expected the path of a layer, a variable or a row that the gradient flows through, "
     "got 'other'."),
    (lambda: fn.edit_gradient(f, "hidde", jnp.sin)(1.0),
     "edit_gradient: expected the path of a layer, a variable or a row that the gradient flows "
     "through, got 'hidde'. The nearest are hidden, h."),
    (lambda: jax.grad(fn.edit_gradient(f, "hidden", lambda dy: dy[None]))(1.0),
     "edit_gradient: expected a function that keeps the shape (), got shape (1,). It takes the "
     "adjoint and returns the one to go on with."),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), MESSAGES, ids=[m[1][:60] for m in MESSAGES])
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(ValueError, match=r"expected") as caught:
        call()
    assert str(caught.value).startswith(message)


def test_a_place_that_was_not_watched():
    watched = fn.watch(f)(1.0)
    with pytest.raises(KeyError, match="The nearest are hidden"):
        watched["hiden"]
    assert str(watched).splitlines()[2].startswith("hidden")
