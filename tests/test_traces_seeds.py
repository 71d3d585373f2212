"""Where a reverse pass starts: seeds, parts of an output that start with nothing, loss and aux."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn

close = partial(np.testing.assert_allclose, rtol=1e-6)


class Aux(NamedTuple):
    seen: jax.Array
    rest: dict


AUX = {
    "dict": lambda x, h: {"h": h, "count": 3, "inner": {"x": x, "none": None}},
    "tuple": lambda x, h: (h, (x, [h * 2])),
    "named": lambda x, h: Aux(h, {"a": x}),
    "array": lambda x, h: h,
    "integer": lambda x, h: jnp.argmax(h),
    "key": lambda x, h: jax.random.key(0),
    "nothing": lambda x, h: (),
    "none": lambda x, h: None,
}


def with_aux(make):
    def f(x):
        with jax.named_scope("layer"):
            h = jnp.sin(x)
        return jnp.sum(h**2), make(x, h)

    return f


X = np.array([0.5, -1.0], np.float32)
TRUE = 2 * np.sin(X) * np.cos(X)


@pytest.mark.parametrize("kind", AUX)
def test_none_stands_for_a_whole_part(kind):
    f = with_aux(AUX[kind])
    close(fn.trace(f, seed=(1.0, None))(X).gradients[0], TRUE)
    close(fn.trace(f, seed=(2.0, None))(X).gradients[0], 2 * TRUE)
    close(fn.watch(f, seed=(1.0, None))(X).gradients[0], TRUE)
    assert jax.tree.structure(fn.trace(f, seed=(1.0, None))(X).output) == jax.tree.structure(f(X))


def test_none_stands_for_one_part_among_others():
    def f(x):
        return {"a": (jnp.sin(x), x * 3), "b": [x**2, {"c": x * 5}]}

    for seed, slope in (
        ({"a": None, "b": [1.0, None]}, 2 * X),
        ({"a": (1.0, None), "b": [None, {"c": 1.0}]}, np.cos(X) + 5),
        ({"a": (None, 2.0), "b": None}, 6 + 0 * X),
        ({"a": ([1.0, 0.0], None), "b": [None, {"c": None}]}, np.cos(X) * [1, 0]),
    ):
        close(fn.trace(f, seed=seed)(X).gradients[0], slope)
        close(fn.watch(f, seed=seed)(X).gradients[0], slope)
        assert fn.trace(f, seed=seed)(X).check().difference < 1e-6


def test_nothing_starts_anywhere():
    trace = fn.trace(lambda x: (x, x), seed=(None, None))(2.0)
    assert trace.gradients[0] == 0
    assert not trace.contributions


@pytest.mark.parametrize("kind", AUX)
def test_loss_and_aux(kind):
    f = with_aux(AUX[kind])
    (loss, aux), true = jax.value_and_grad(f, has_aux=True)(X)
    trace = fn.trace(f, wrt=0, has_aux=True)(X)
    watched = jax.jit(fn.watch(f, wrt=0, has_aux=True))(X)
    captured = jax.jit(fn.capture(f, "layer", wrt=0, has_aux=True))(X)
    for found in (trace, watched, captured):
        close(found.output[0], loss)
        close(found.gradients, true)
        assert jax.tree.structure(found.output[1]) == jax.tree.structure(aux)
    close(captured.adjoint, 2 * np.sin(X))
    assert trace.check().difference < 1e-6
    edited = fn.edit_gradient(f, "layer", lambda dy: 3 * dy, has_aux=True)
    slope, again = jax.grad(edited, has_aux=True)(X)
    close(slope, 3 * true)
    assert jax.tree.structure(again) == jax.tree.structure(aux)


def test_aux_may_hold_what_is_no_array():
    mark = object()

    def f(x):
        with jax.named_scope("layer"):
            h = jnp.sin(x)
        return jnp.sum(h), {"name": "s", "mark": mark, "count": 3, "on": True, "none": None}

    plain = f(X)[1]
    for found in (
        fn.trace(f, has_aux=True)(X),
        fn.trace(f, seed=(1.0, None))(X),
        fn.watch(f, has_aux=True)(X),
        fn.capture(f, "layer", has_aux=True)(X),
    ):
        assert found.output[1] == plain
        assert isinstance(found.output[1]["count"], jax.Array)
        close(found.gradients[0], np.cos(X))
    edited = fn.edit_gradient(f, "layer", lambda dy: 2 * dy, has_aux=True)
    slope, aux = jax.grad(edited, has_aux=True)(X)
    close(slope, 2 * np.cos(X))
    assert aux["mark"] is mark
    trace = fn.trace(f, has_aux=True)(X)
    assert trace.check().difference == 0
    assert "cos" in str(fn.trace(f, has_aux=True).abstract(X))


def test_the_seed_is_that_of_the_loss():
    def f(x):
        return {"loss": jnp.sum(x**2), "more": x * 3}, {"aux": x}

    close(fn.trace(f, seed={"loss": 2.0, "more": None}, has_aux=True)(X).gradients[0], 4 * X)
    close(fn.watch(f, seed={"loss": None, "more": 1.0}, has_aux=True)(X).gradients[0], [3, 3])


def test_aux_has_no_part_in_the_equations_alone():
    def f(x):
        return jnp.sum(x * x), jnp.exp(x)

    alone = fn.trace(f, has_aux=True).abstract(X)
    both = fn.trace(f).abstract(X)
    assert not any("exp" in e.text or "v5'" in e.text for p in alone.pairs for e in p.reverse)
    assert len(alone.reverse_jaxpr.out_avals) == len(both.reverse_jaxpr.out_avals) == 1
    assert len(alone.reverse_jaxpr.in_avals) < len(both.reverse_jaxpr.in_avals)
    trace = fn.trace(f, has_aux=True)(X)
    assert len(trace.reverse_jaxpr.eqns) == len(alone.reverse_jaxpr.eqns)


def test_an_edited_place_is_one_that_the_loss_depends_on():
    def f(x):
        h = jnp.sin(x)
        with jax.named_scope("side"):
            s = jnp.exp(x)
        return jnp.sum(h), s

    with pytest.raises(ValueError, match="edit_gradient: expected the path of a layer"):
        fn.edit_gradient(f, "side", jnp.negative, has_aux=True)(X)
    fn.edit_gradient(f, "side", jnp.negative)(X)


PAIR = (
    "expected a function that returns (loss, aux), as has_aux says, got PyTreeDef({}). Return a "
    "pair, or leave has_aux out."
)
MESSAGES = [
    (lambda: fn.trace(lambda x: x, has_aux=True)(1.0), "trace: " + PAIR.format("*")),
    (lambda: fn.trace(lambda x: [x, x], has_aux=True)(1.0), "trace: " + PAIR.format("[*, *]")),
    (lambda: fn.watch(lambda x: (x, x, x), has_aux=True)(1.0),
     "watch: " + PAIR.format("(*, *, *)")),
    (lambda: fn.capture(lambda x: x, "v1", has_aux=True)(1.0), "capture: " + PAIR.format("*")),
    (lambda: fn.edit_gradient(lambda x: x, "v1", jnp.negative, has_aux=True)(1.0),
     "edit_gradient: " + PAIR.format("*")),
    (lambda: fn.trace(lambda x: x, has_aux=True).abstract(1.0), "trace: " + PAIR.format("*")),
    (lambda: fn.trace(lambda x: ((x, x), x), has_aux=True)(1.0),
     "trace: expected one real number as output, or a seed, got 2 outputs. Pass seed="),
    (lambda: fn.trace(lambda n: n + 1)(3),
     "trace: expected one real number as output, or a seed, got int32 of shape (). It has no "
     "gradient: write 1.0 in place of 1 among the arguments, and keep the result floating."),
    (lambda: fn.trace(lambda x: (x, {"a": x, "b": x}), seed=(1.0, {"a": None}))(1.0),
     "trace: expected a seed like the output, PyTreeDef((*, {'a': *, 'b': *})), got"),
    (lambda: fn.trace(lambda x: (x, {"a": x}), seed=(1.0, 2.0))(1.0),
     "trace: expected a seed like the output, PyTreeDef((*, {'a': *})), got PyTreeDef((*, *))."),
    (lambda: fn.trace(lambda x: (x, 3), seed=(1.0, 1.0))(1.0),
     "trace: expected None as the seed of an output of int32, got one of shape (). It is the "
     "adjoint of the output."),
    (lambda: fn.trace(jnp.sin, seed=1j)(1.0),
     "trace: expected a real seed for an output of float32, got one of complex64. It is the "
     "adjoint of the output: pass its real part."),
    (lambda: fn.capture(lambda x: x, "v1")(jnp.ones(2)),
     "capture: expected one real number as output, or a seed, got float32 of shape (2,). Pass"),
    (lambda: fn.capture(jnp.sin, "hidden", wrt=3)(1.0),
     "capture: expected wrt among the arguments 0 to 0, got 3."),
    (lambda: fn.capture(lambda x: (x, x), "v1", seed=1.0)(1.0),
     "capture: expected a seed like the output"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), MESSAGES, ids=[m[1][:60] for m in MESSAGES])
def test_bad_input_is_one_sentence(call, message):
    with pytest.raises(ValueError, match=r"expected") as caught:
        call()
    assert str(caught.value).startswith(message)
    assert type(caught.value) is ValueError
