"""Every assumption made about JAX: a test's name says which one a new JAX has broken."""

import gc
import inspect
import linecache
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import io_callback

from funcnet.jaxpr import equations, jaxprs, runs
from funcnet.jaxpr import walk as walks
from funcnet.jaxpr.passes import passes_of
from funcnet.jaxpr.places import places_of
from funcnet.jaxpr.walk import Handler, bodies, walk

POLICIES = jax.checkpoint_policies


def eqns_of(f, *args):
    """The equations of `f(*args)`."""
    closed, _ = jaxprs.trace(f, *args)
    return jaxprs.open_jaxpr(closed)[0].eqns


def names_of(jaxpr):
    """The primitives of a jaxpr at any depth."""
    for eqn in jaxprs.open_jaxpr(jaxpr)[0].eqns:
        yield eqn.primitive.name
        for sub in jaxprs.sub_jaxprs(eqn):
            yield from names_of(sub)


def find(name, f, *args):
    """The first equation of `f(*args)` with this primitive."""
    found = [eqn for eqn in eqns_of(f, *args) if eqn.primitive.name == name]
    assert found, f"no {name} in {[eqn.primitive.name for eqn in eqns_of(f, *args)]}"
    return found[0]


def inside(name, f, *args):
    return jaxprs.structure(find(name, f, *args))


def run(jaxpr, *args):
    return jaxprs.evaluate(jaxprs.close(jaxpr), *args)


# Whole jaxprs.


@pytest.mark.parametrize("transform", [jax.jit, jax.vmap, jax.make_jaxpr, jax.linearize])
def test_a_value_under_a_transformation_is_a_tracer(transform):
    seen = []

    def f(x):
        seen.append(jaxprs.is_traced(x))
        return x

    x = jnp.ones(2)
    jax.linearize(f, x) if transform is jax.linearize else transform(f)(x)
    f(x), f(2.0), f(np.ones(2)), f(jax.random.key(0))
    assert seen == [True, False, False, False, False]


def test_shape_and_dtype_of_arrays_numbers_and_shapes():
    like = jax.ShapeDtypeStruct((3,), jnp.bfloat16)
    assert jaxprs.shape_struct(like) == like
    assert jaxprs.shape_struct(np.ones((2, 1), np.int8)) == jax.ShapeDtypeStruct((2, 1), np.int8)
    assert jaxprs.shape_struct(2.0) == jax.ShapeDtypeStruct((), jnp.result_type(2.0))
    assert jaxprs.shape_struct(jax.random.key(0)).shape == ()


def test_make_jaxpr_returns_the_structure_of_the_output():
    closed, tree = jaxprs.trace(lambda x: {"b": x.sum(), "a": (x, None)}, jnp.ones(3))
    shapes = jaxprs.output_shapes(closed)
    assert [s.shape for s in shapes] == [(3,), ()]
    assert tree.unflatten(shapes) == {"a": (shapes[0], None), "b": shapes[1]}


def test_eval_jaxpr_takes_constants_apart_from_inputs():
    closed, _ = jaxprs.trace(lambda x: (x * np.arange(3.0, dtype=np.float32), x + 1), jnp.ones(3))
    assert len(closed.consts) == 1
    product, total = jaxprs.evaluate(closed, jnp.full(3, 2.0))
    assert product.tolist() == [0, 2, 4]
    assert total.tolist() == [3, 3, 3]
    other, _ = jaxprs.evaluate_with(closed, [jnp.full(3, 5.0)], jnp.full(3, 2.0))
    assert other.tolist() == [10, 10, 10]


def test_a_jaxpr_closed_or_open_opens_and_closes():
    closed, _ = jaxprs.trace(lambda x: x * np.ones(3, np.float32), jnp.ones(3))
    opened, consts = jaxprs.open_jaxpr(closed)
    assert [eqn.primitive.name for eqn in opened.eqns] == ["mul"]
    assert len(consts) == len(opened.constvars) == 1
    body = inside("remat2", jax.checkpoint(jnp.sin), 1.0).body
    assert jaxprs.open_jaxpr(body)[0].eqns[0].primitive.name == "sin"
    assert not jaxprs.open_jaxpr(body)[1]
    assert run(body, 0.0) == [0]
    assert jaxprs.close(closed) is closed


def test_a_constant_of_numpy_is_no_jax_array():
    closed, _ = jaxprs.trace(lambda x: x * np.arange(3.0, dtype=np.float32), jnp.ones(3))
    (const,) = closed.consts
    assert not isinstance(const, jax.Array)
    whole = jaxprs.as_array(const)
    assert jax.jit(lambda i: whole[i])(2) == 2
    literal = find("mul", lambda x: x * 2, 1.0).invars[1].val
    assert jaxprs.as_array(literal) is literal


def test_text_of_a_jaxpr_is_the_same_for_the_same_program():
    def loop(factor):
        def f(x):
            return jax.lax.scan(lambda c, _: (c * factor, None), x, None, length=2)[0]

        return jaxprs.trace(f, jnp.float32(1))[0]

    tenth = np.float32(0.1)
    near = np.nextafter(tenth, np.float32(1))
    texts = [str(jaxprs.open_jaxpr(loop(factor))[0]) for factor in (tenth, tenth, near)]
    assert texts[0] == texts[1] != texts[2]
    found = [equations.evaluate_again(loop(factor), jnp.float32(1))[0] for factor in (tenth, near)]
    assert [float(x) for x in found] == [tenth * tenth, near * near]


def test_variables_are_the_same_object_wherever_they_stand():
    def f(x, y):
        product = x * y
        return x, product, 2.0, product, y, x + y

    closed, _ = jaxprs.trace(f, 1.0, 2.0)
    kinds = jaxprs.output_sources(closed)
    assert kinds == [
        ("input", 0), ("computed", 0), ("computed", -3), ("computed", 0), ("input", 1),
        ("computed", 1),
    ]  # fmt: skip


def test_argument_names_as_python_writes_them():
    closed, _ = jaxprs.trace(lambda x, params: x, 1.0, {"dense": {"w": 1.0}, "b": [2.0]})
    assert jaxprs.argument_names(closed) == ("x", "params['b'][0]", "params['dense']['w']")
    alone = equations.Equation(*_parts(find("sin", jnp.sin, 1.0))).alone
    assert jaxprs.argument_names(alone) == ("",)


def _parts(eqn):
    return (eqn,), tuple(eqn.invars), tuple(eqn.outvars)


@pytest.mark.parametrize("f", [jax.nn.silu, jax.nn.softplus, jnp.linalg.norm, jnp.var])
def test_source_of_a_function_of_jax_is_in_its_folder(f):
    bodies = [inner.body for inner in map(jaxprs.structure, eqns_of(f, jnp.ones(3))) if inner]
    bodies += filter(None, map(jaxprs.custom_body, eqns_of(f, jnp.ones(3))))
    assert bodies
    assert jaxprs.is_library(bodies[0])


def test_source_of_a_users_function_is_not_in_its_folder():
    @jax.jit
    def users(x):
        return jax.nn.silu(x)

    body = inside("jit", users, 1.0).body
    info = jaxprs.open_jaxpr(body)[0].debug_info
    assert info.func_src_info.startswith("users at ")
    assert __file__ in info.func_src_info
    assert not jaxprs.is_library(body)
    assert jaxprs.is_library(jaxprs.structure(jaxprs.open_jaxpr(body)[0].eqns[0]).body)
    assert not jaxprs.is_library(equations.jaxpr_of([], [], []))


# Equations and what stands in them.


def test_literals_have_a_value_and_variables_a_type():
    variable, literal = find("mul", lambda x: x * 2, jnp.float32(1)).invars
    assert jaxprs.is_var(variable)
    assert not jaxprs.is_var(literal)
    assert (literal.val, literal.val.shape, literal.val.dtype) == (2, (), jnp.float32)
    assert (variable.aval.shape, variable.aval.dtype) == ((), jnp.float32)
    assert jaxprs.is_inexact(variable.aval)
    assert not jaxprs.is_inexact(find("add", lambda x: x + 1, 3).outvars[0].aval)


def test_a_result_that_is_never_used_may_be_dropped():
    def f(x):
        ref = jax.new_ref(x)

        def body(i, _):
            ref[...] = jnp.sin(ref[...])

        jax.lax.fori_loop(0, 2, body, None)
        return ref[...]

    body = inside("scan", jax.grad(f), 1.0).body
    swap = next(e for e in jaxprs.open_jaxpr(body)[0].eqns if e.primitive.name == "swap")
    assert jaxprs.is_dropped(swap.outvars[0])
    assert jaxprs.is_var(swap.outvars[0])
    assert not jaxprs.is_dropped(find("sin", jnp.sin, 1.0).outvars[0])
    alone = equations.Equation(*_parts(swap)).alone
    assert not any(map(jaxprs.is_dropped, jaxprs.open_jaxpr(alone)[0].outvars))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16])
def test_convert_element_type_says_the_new_dtype(dtype):
    f = partial(jax.lax.convert_element_type, new_dtype=dtype)
    eqn = find("convert_element_type", f, 1.0)
    assert eqn.params["new_dtype"] == dtype
    assert jaxprs.is_alias(eqn) == (dtype == jnp.float32)
    assert not jaxprs.is_alias(find("sin", jnp.sin, 1.0))


def test_stop_gradient_is_a_primitive():
    f = jax.lax.stop_gradient
    assert jaxprs.label(eqns_of(f, 1.0)[0]) == "stop_gradient"
    square = eqns_of(jax.grad(lambda x: x * f(x)), 2.0)
    assert "stop_gradient" in [eqn.primitive.name for eqn in square]


@pytest.mark.parametrize(
    "f", [partial(checkpoint_name, name="h"), jax.lax.optimization_barrier], ids=("name", "barrier")
)
def test_names_and_barriers_give_each_operand_back(f):
    (eqn,) = eqns_of(f, jnp.float32(3))
    assert eqn.primitive.name in ("name", "optimization_barrier")
    alone = equations.Equation(*_parts(eqn)).alone
    assert jaxprs.evaluate(alone, jnp.float32(3)) == [3]


def test_optimization_barrier_keeps_the_order_of_its_operands():
    (eqn,) = eqns_of(lambda x, y: jax.lax.optimization_barrier({"b": y, "a": x}), 1.0, 2.0)
    alone = equations.Equation(*_parts(eqn)).alone
    assert jaxprs.evaluate(alone, 1.0, 2.0) == [1, 2]


def test_platform_index_stands_in_front_of_the_cond_of_platform_dependent():
    def f(x):
        return jax.lax.platform_dependent(x, cpu=jnp.sin, default=jnp.cos)

    index, cond = eqns_of(f, 1.0)
    assert index.primitive.name == "platform_index"
    assert cond.invars[0] is index.outvars[0]
    branches = jaxprs.structure(cond).branches
    alone = equations.Equation(*_parts(index)).alone
    taken = branches[int(jaxprs.evaluate(alone)[0])]
    assert list(names_of(taken)) == [{"cpu": "sin"}.get(jax.default_backend(), "cos")]


@pytest.mark.parametrize(
    ("name", "f", "params"),
    [
        ("integer_pow", lambda x: x**3, {"y": 3}),
        ("reduce_sum", lambda x: x.sum(1), {"axes": (1,)}),
        ("transpose", lambda x: x.T, {"permutation": (1, 0)}),
        ("broadcast_in_dim", lambda x: jax.lax.broadcast(x, (4,)), {"shape": (4, 2, 3)}),
        ("dot_general", lambda x: x @ x.T, {"dimension_numbers": (((1,), (0,)), ((), ()))}),
    ],
)
def test_parameters_that_a_formula_reads(name, f, params):
    eqn = find(name, f, jnp.ones((2, 3)))
    assert {key: eqn.params[key] for key in params} == params


def test_select_n_takes_the_value_of_false_first():
    eqn = find("select_n", lambda c, x, y: jax.lax.select(c, x, y), True, 1.0, 2.0)
    alone = equations.Equation(*_parts(eqn)).alone
    assert jaxprs.evaluate(alone, True, 1.0, 2.0) == [2]


# Equations that run others.


def test_jit_is_a_call_of_its_jaxpr():
    @jax.jit
    def half(x):
        return x / 2

    call = inside("jit", half, 3.0)
    assert call[1:] == ("half", False, True, None)
    assert run(call.body, 3.0) == [1.5]


@pytest.mark.parametrize("prevent_cse", [True, False])
@pytest.mark.parametrize("policy", [None, POLICIES.dots_saveable])
def test_checkpoint_is_a_call_with_policy_and_prevent_cse(policy, prevent_cse):
    f = jax.checkpoint(jnp.sin, policy=policy, prevent_cse=prevent_cse)
    (eqn,) = eqns_of(f, 0.0)
    assert eqn.primitive.name in jaxprs.REMATS
    call = jaxprs.structure(eqn)
    assert (call.remat, call.prevent_cse, call.policy) == (True, prevent_cse, policy)
    assert run(call.body, 0.0) == [0]


def test_closed_call_has_its_jaxpr_under_call_jaxpr():
    def loop(x):
        return jax.lax.fori_loop(0, 3, lambda i, c: jnp.sin(c), x)

    whole = jax.checkpoint(loop, policy=POLICIES.everything_saveable)
    call = next(e for e in eqns_of(jax.grad(whole), 1.0) if "call_jaxpr" in e.params)
    assert call.primitive.name in ("closed_call", "eval_jaxpr")
    (body,) = jaxprs.sub_jaxprs(call)
    assert body is call.params["call_jaxpr"]
    assert "scan" in names_of(body)


def test_cond_has_its_index_first_and_the_branches_in_order():
    def f(i, x, y):
        return jax.lax.switch(i, [jnp.add, jnp.subtract, jnp.divide], x, y)

    cond = find("cond", f, 0, 1.0, 2.0)
    branches = jaxprs.structure(cond).branches
    assert [run(body, 3.0, 2.0)[0] for body in branches] == [5, 1, 1.5]
    assert len(cond.invars) == 3
    assert cond.invars[0].aval.dtype == jnp.int32
    for i in range(3):
        alone = equations.Equation(*_parts(cond)).alone
        assert jaxprs.evaluate(alone, jnp.int32(i), 3.0, 2.0) == run(branches[i], 3.0, 2.0)


def test_false_is_the_first_branch_of_a_cond():
    cond = inside("cond", lambda c, x: jax.lax.cond(c, jnp.sin, jnp.cos, x), True, 1.0)
    assert [list(names_of(body)) for body in cond.branches] == [["cos"], ["sin"]]


@pytest.mark.parametrize("index", [-1, 7])
def test_index_of_a_switch_is_clamped_before_the_cond(index):
    def f(i, x):
        return jax.lax.switch(i, [jnp.sin, jnp.cos], x)

    eqns = eqns_of(f, index, 1.0)
    clamp = next(e for e in eqns if e.primitive.name == "clamp")
    assert eqns[-1].invars[0] is clamp.outvars[0]
    low, _, high = clamp.invars
    assert (low.val, high.val) == (0, 1)
    assert f(index, 1.0) == (jnp.sin if index < 0 else jnp.cos)(1.0)


@pytest.mark.parametrize("reverse", [False, True])
def test_scan_has_constants_then_carry_then_inputs(reverse):
    def f(a, b, first, second, xs, ys):
        def body(carry, slices):
            (first, second), (x, y) = carry, slices
            return (a - second, first), (b - first, x / y)

        return jax.lax.scan(body, (first, second), (xs, ys), reverse=reverse, unroll=2)

    args = 2.0, 3.0, 0.5, -1.0, jnp.arange(3.0), jnp.array([4.0, 1.0, -2.0])
    scan = inside("scan", f, *args)
    assert scan[1:] == (2, 2, 3, reverse, 2)
    assert not jaxprs.open_jaxpr(scan.body)[1]
    operands = _in_order(find("scan", f, *args), f, args)

    @jax.jit
    def by_hand():
        consts, carry, inputs = operands[:2], operands[2:4], operands[4:]
        rows = {}
        for i in range(3)[::-1] if reverse else range(3):
            results = run(scan.body, *consts, *carry, *(x[i] for x in inputs))
            carry, rows[i] = results[:2], results[2:]
        return [*carry, *(jnp.stack([rows[i][n] for i in range(3)]) for n in range(2))]

    for found, expected in zip(by_hand(), jax.tree.leaves(f(*args)), strict=True):
        np.testing.assert_array_equal(found, expected)


def _in_order(eqn, f, args):
    """What the operands of an equation are, if they are arguments of the function."""
    closed, _ = jaxprs.trace(f, *args)
    places = jaxprs.open_jaxpr(closed)[0]
    twin = next(e for e in places.eqns if e.primitive is eqn.primitive)
    return [args[places.invars.index(v)] if jaxprs.is_var(v) else v.val for v in twin.invars]


def test_while_has_two_groups_of_constants_then_the_carry():
    def f(stop, by, x, y):
        return jax.lax.while_loop(lambda c: c[0] < stop, lambda c: (c[0] + by, c[1] * by), (x, y))

    args = 9.0, 2.0, 1.0, 3.0
    eqn = find("while", f, *args)
    loop = jaxprs.structure(eqn)
    assert loop[2:] == (1, 1)
    stop, by, *carry = _in_order(eqn, f, args)
    while run(loop.cond, stop, *carry)[0]:
        carry = run(loop.body, by, *carry)
    assert carry == list(f(*args)) == [9, 48]


def test_fori_loop_with_a_known_length_is_a_scan():
    scan = inside("scan", lambda x: jax.lax.fori_loop(0, 3, lambda i, c: c * x, x), 2.0)
    assert scan[1:] == (1, 2, 3, False, 1)


def test_an_equation_that_runs_nothing_has_no_structure():
    (eqn,) = eqns_of(jnp.sin, 1.0)
    assert jaxprs.structure(eqn) is None
    assert jaxprs.custom_body(eqn) is None
    assert not list(jaxprs.sub_jaxprs(eqn))
    assert not any(map(jaxprs.holds_jaxpr, eqn.params.values()))


def _solve(x):
    return jax.lax.custom_linear_solve(lambda y: 2 * y, x, lambda _, b: b / 2, symmetric=True)


@pytest.mark.parametrize(
    ("name", "f", "count"),
    [
        ("jit", jax.jit(jnp.sin), 1),
        ("remat2", jax.checkpoint(jnp.sin), 1),
        ("cond", lambda x: jax.lax.cond(x > 0, jnp.sin, jnp.cos, x), 2),
        ("scan", lambda x: jax.lax.fori_loop(0, 2, lambda i, c: c + x, x), 1),
        ("while", lambda x: jax.lax.while_loop(lambda c: c < 3, lambda c: c + x, x), 2),
        ("custom_jvp_call", jax.nn.relu, 1),
        ("custom_linear_solve", _solve, 4),
    ],
)
def test_jaxprs_inside_an_equation_are_leaves_of_its_parameters(name, f, count):
    eqn = find(name, f, 1.0)
    found = list(jaxprs.sub_jaxprs(eqn))
    assert len(found) == count
    assert all(jaxprs.open_jaxpr(sub)[0].eqns for sub in found)
    assert any(map(jaxprs.holds_jaxpr, eqn.params.values()))


# Custom derivatives.


@jax.custom_jvp
def doubled(x):
    return 2 * x


doubled.defjvp(lambda primals, tangents: (doubled(*primals), 2 * tangents[0]))


@jax.custom_vjp
def swirl(x, y):
    return x * jnp.sin(y), x


def swirl_forward(x, y):
    return swirl(x, y), (x, jnp.cos(y), jnp.sin(y))


def swirl_backward(res, cotangents):
    (x, cosine, sine), (dz, dx) = res, cotangents
    return dz * sine + dx, dz * x * cosine


swirl.defvjp(swirl_forward, swirl_backward)


@jax.custom_vjp
def negative(x):
    return -x


negative.defvjp(lambda x: (-x, None), lambda _, dy: (-dy,))


def test_custom_jvp_call_has_its_primal_under_call_jaxpr():
    (eqn,) = eqns_of(doubled, 3.0)
    assert eqn.primitive.name == "custom_jvp_call"
    assert run(jaxprs.custom_body(eqn), 3.0) == [6]
    assert jaxprs.structure(eqn) is None


def test_custom_vjp_call_has_its_primal_under_call_jaxpr():
    (eqn,) = eqns_of(swirl, 3.0, 0.0)
    assert eqn.primitive.name == "custom_vjp_call"
    assert run(jaxprs.custom_body(eqn), 3.0, 0.0) == [0, 3]
    assert jaxprs.argument_names(jaxprs.custom_body(eqn)) == ("", "")
    assert jaxprs.structure(eqn) is None


def test_a_custom_rule_is_named_by_the_debug_info_of_its_primal():
    assert jaxprs.label(eqns_of(jax.nn.relu, 1.0)[0]) == "relu"
    assert jaxprs.label(eqns_of(swirl, 1.0, 2.0)[0]) == "swirl"
    nameless = jax.custom_jvp(lambda x: 2 * x)
    nameless.defjvp(lambda primals, tangents: (primals[0], tangents[0]))
    assert jaxprs.label(eqns_of(nameless, 1.0)[0]) == "custom_jvp_call"
    assert jaxprs.label(eqns_of(jnp.sin, 1.0)[0]) == "sin"


def test_fwd_jaxpr_thunk_out_trees_and_bwd_give_the_two_passes_of_a_rule():
    (eqn,) = eqns_of(swirl, 3.0, 0.5)
    ahead, back, _ = jaxprs.own_passes(eqn)
    _, _, forwarded = eqn.params["out_trees"]()
    assert forwarded == [0, None, None]
    args, cotangents = (3.0, 0.5), (1.25, -2.0)
    made = iter(run(ahead, *args))
    kept = [next(made) if i is None else args[i] for i in forwarded]
    outputs, pull = jax.vjp(swirl, *args)
    assert list(made) == list(outputs)
    found = run(back, *kept, *cotangents)
    np.testing.assert_allclose(found, pull(cotangents), rtol=1e-6)


def test_equations_of_a_rules_own_passes_are_placed_in_the_rule():
    ahead, back, _ = jaxprs.own_passes(eqns_of(swirl, 3.0, 0.5)[0])
    for jaxpr, function in ((ahead, swirl_forward), (back, swirl_backward)):
        eqns = jaxprs.open_jaxpr(jaxpr)[0].eqns
        assert {places_of(eqn)[0].function for eqn in eqns} == {function.__name__}
    whole, _ = jaxprs.trace(lambda x, y: swirl(x, y), 3.0, 0.5)
    again = partial(jax.vjp, partial(run, whole))
    derived = eqns_of(lambda x, y: again(x, y)[1]([x, y]), 3.0, 0.5)
    assert {places_of(eqn)[0].function for eqn in derived} == {"<lambda>"}
    assert jaxprs.own_passes(find("sin", jnp.sin, 1.0)) is None


@pytest.mark.parametrize("symbolic", [False, True])
def test_symbolic_zeros_is_a_parameter_of_a_rule(symbolic):
    def forward(x):
        return -(x.value if symbolic else x), None

    op = jax.custom_vjp(lambda x: -x)
    op.defvjp(forward, lambda _, dy: (-dy,), symbolic_zeros=symbolic)
    (eqn,) = eqns_of(op, 2.0)
    assert eqn.params["symbolic_zeros"] is symbolic
    _, back, _ = jaxprs.own_passes(eqn)
    assert run(back, 3.0) == [-3]


def test_bwd_is_the_same_function_for_the_same_rule():
    keys = [jaxprs.custom_key(eqns_of(swirl, x, 2.0)[0]) for x in (1.0, 3.0)]
    assert keys[0] is not None
    assert keys[0] == keys[1]
    assert hash(keys[0]) == hash(keys[1])
    assert jaxprs.custom_key(eqns_of(doubled, 1.0)[0]) is None
    assert jaxprs.custom_key(eqns_of(negative, 1.0)[0]) is not None


def test_bwd_is_another_function_for_another_rule_of_the_same_primal():
    other = jax.custom_vjp(lambda x: -x)
    other.defvjp(lambda x: (-x, None), lambda _, dy: (dy,))
    keys = [jaxprs.custom_key(eqns_of(op, 1.0)[0]) for op in (negative, other)]
    assert keys[0] != keys[1]


def test_bwd_tells_the_static_arguments_of_a_rule():
    scaled = jax.custom_vjp(lambda factor, x: x * 1.0, nondiff_argnums=(0,))
    scaled.defvjp(lambda factor, x: (x, None), lambda factor, _, dy: (dy * factor,))
    eqns = [eqns_of(lambda x, k=k: scaled(k, x), 1.0)[0] for k in (2.0, 3.0)]
    first, second = map(jaxprs.custom_key, eqns)
    assert first is not None
    assert first != second


def test_a_primal_that_replaces_its_rule_can_take_forward_mode():
    closed, _ = jaxprs.trace(lambda x: negative(negative(x) * x), 3.0)
    plain = equations.without_rules(closed)
    assert "custom_vjp_call" not in set(names_of(plain))
    assert jax.jvp(lambda x: run(plain, x)[0], (3.0,), (1.0,)) == (9, 6)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda x: run(closed, x)[0], (3.0,), (1.0,))


def test_the_pullback_of_vjp_is_a_pytree_of_its_residuals():
    def ahead(x, y):
        return jax.vjp(lambda x: x * jnp.sin(y), x)

    closed, tree = jaxprs.trace(ahead, 3.0, 0.5)
    result, *residuals = run(closed, 3.0, 0.5)
    _, pull = tree.unflatten([result, *residuals])
    assert len(residuals) >= 1
    np.testing.assert_allclose(pull(2.0)[0], 2 * np.sin(0.5), rtol=1e-6)


# Jaxprs that are taken apart and made anew.


def test_an_equation_is_replaced_by_the_body_it_calls_at_any_depth():
    @jax.jit
    def shifted(x):
        return x + np.arange(2.0, dtype=np.float32), 7 * x

    def f(x):
        def body(c, _):
            with jax.named_scope("outer"):
                return shifted(c)[0], jax.lax.cond(c[0] > 1, lambda: shifted(c)[0], lambda: c)

        return jax.lax.scan(body, shifted(x)[0], None, length=2)

    def inline(eqn):
        return eqn.params["jaxpr"] if eqn.primitive.name == "jit" else None

    x = jnp.ones(2)
    closed, _ = jaxprs.trace(f, x)
    flat = jaxprs.rewrite(closed, inline)
    assert list(names_of(closed)).count("jit") == 3
    assert "jit" not in list(names_of(flat))
    for found, expected in zip(run(flat, x), jax.tree.leaves(f(x)), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert jaxprs.argument_names(flat) == ("x",)


def test_an_equation_with_many_results_can_be_replaced_where_some_are_outputs():
    @jax.jit
    def both(x):
        return x, x * x, 3.0

    closed, _ = jaxprs.trace(lambda x: both(x), 2.0)
    flat = jaxprs.rewrite(closed, lambda eqn: eqn.params.get("jaxpr"))
    assert list(names_of(flat)) == ["mul"]
    assert run(flat, 2.0) == [2, 4, 3]


def test_an_equation_alone_has_an_argument_for_each_place_of_a_variable():
    (e,) = equations.equations_of(jaxprs.open_jaxpr(jaxprs.trace(lambda x: x * x, 3.0)[0])[0])
    closed = e.alone
    assert e.slots == (0, 1)
    assert jax.grad(lambda x, y: run(closed, x, y)[0], argnums=(0, 1))(3.0, 4.0) == (4, 3)
    (e,) = equations.equations_of(jaxprs.open_jaxpr(jaxprs.trace(lambda x: 1 - x, 3.0)[0])[0])
    closed = e.alone
    assert e.slots == (1,)
    assert run(closed, 3.0) == [-2]


# Names and places.


def scoped(x):
    with jax.named_scope("block"), jax.named_scope("dense"):
        return jnp.sin(x)


@pytest.mark.parametrize("f", [scoped, jax.grad(scoped), jax.jvp], ids=("plain", "grad", "jvp"))
def test_scopes_are_the_parts_of_a_name_stack_of_kind_scope(f):
    f = partial(lambda x: jax.jvp(scoped, (x,), (x,))) if f is jax.jvp else f
    eqns = eqns_of(f, 1.0)
    assert eqns
    assert {runs.scope(eqn) for eqn in eqns} == {"block/dense"}


@pytest.mark.parametrize(("transform", "name"), [(jax.vmap, "vmap"), (jax.grad, "jvp")])
def test_transformations_are_parts_of_a_name_stack_of_another_kind(transform, name):
    (eqn, *_) = eqns_of(transform(scoped), jnp.ones(3) if transform is jax.vmap else 1.0)
    parts = eqn.source_info.name_stack.stack
    assert [part.name for part in parts] == [name, "block", "dense"]
    assert [type(part).__name__ == "Scope" for part in parts] == [False, True, True]


def test_scopes_around_a_jitted_function_are_not_those_of_its_equations():
    def f(x):
        with jax.named_scope("net"):
            return jax.jit(scoped)(x)

    (eqn,) = eqns_of(f, 1.0)
    assert runs.scope(eqn) == "net"
    (inner,) = jaxprs.open_jaxpr(jaxprs.structure(eqn).body)[0].eqns
    assert runs.scope(inner) == "block/dense"
    flat = jaxprs.rewrite(jaxprs.trace(f, 1.0)[0], lambda eqn: eqn.params.get("jaxpr"))
    (inner,) = jaxprs.open_jaxpr(flat)[0].eqns
    assert runs.scope(inner) == "net/block/dense"


def test_the_backward_pass_of_a_remat_says_each_scope_once():
    @jax.checkpoint
    def block(x):
        with jax.named_scope("dense"):
            return jnp.sin(jnp.sin(x))

    def f(x):
        with jax.named_scope("block"):
            return block(x)

    back = passes_of(lambda x: (f(x), None), [1.0], [0]).backward
    (eqn,) = (e for e in back.jaxpr.eqns if e.primitive.name in jaxprs.REMATS)
    inside = jaxprs.open_jaxpr(jaxprs.structure(eqn).body)[0].eqns
    assert runs.is_transposed(eqn)
    assert runs.scope(eqn) == "block"
    assert {runs.scope(e) for e in inside} <= {"dense", ""}
    assert runs.is_recomputed(inside[0])
    assert not runs.is_recomputed(inside[-1])


def written(x):
    return x + 2 * jnp.sin(x)


def test_the_traceback_of_an_equation_says_the_function_line_and_columns():
    eqn = find("sin", lambda x: written(x), 1.0)
    place, caller, *_ = places_of(eqn)
    _, first = inspect.getsourcelines(written)
    assert (place.file, place.function, place.line) == (__file__, "written", first + 1)
    text = linecache.getline(place.file, place.line)
    assert text[place.column : place.end_column] == "jnp.sin(x)"
    assert (caller.file, caller.function) == (__file__, "<lambda>")


def test_an_equation_may_have_no_traceback():
    (eqn,) = eqns_of(scoped, 1.0)
    info = type(eqn.source_info)(None, eqn.source_info.name_stack)
    assert places_of(eqn)
    assert places_of(eqn.replace(source_info=info)) == ()


# Remat policies.


def saved(policy, f, *args):
    return [jaxprs.saves(policy, eqn) for eqn in eqns_of(f, *args)]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("everything_saveable", [True, True]),
        ("nothing_saveable", [False, False]),
        ("dots_saveable", [True, False]),
        ("dots_with_no_batch_dims_saveable", [True, False]),
    ],
)
def test_a_remat_policy_is_called_with_a_primitive_types_and_parameters(policy, expected):
    x = jnp.ones((2, 2))
    assert saved(getattr(POLICIES, policy), lambda x: jnp.sin(x @ x), x) == expected


def test_a_remat_policy_of_names_looks_at_the_primitive_name():
    def f(x):
        return checkpoint_name(jnp.sin(checkpoint_name(x, "a")), "b")

    names = [(eqn.primitive.name, eqn.params.get("name")) for eqn in eqns_of(f, 1.0)]
    assert names == [("name", "a"), ("sin", None), ("name", "b")]
    assert saved(POLICIES.save_only_these_names("b"), f, 1.0) == [False, False, True]


def test_a_remat_policy_that_offloads_says_recompute_of_the_others():
    policy = POLICIES.save_and_offload_only_these_names(
        names_which_can_be_saved=["kept"],
        names_which_can_be_offloaded=["moved"],
        offload_src="device",
        offload_dst="pinned_host",
    )

    def f(x):
        return [checkpoint_name(x, name) for name in ("kept", "moved", "other")]

    assert saved(policy, f, 1.0) == [True, True, False]


# Mutable references and effects.


def accumulated(x):
    before = jnp.sin(x)
    ref = jax.new_ref(before)
    ref[...] += x
    middle = jnp.cos(x)
    return jnp.exp(ref[...] * middle)


def test_a_reference_has_an_inner_type():
    made, *_ = find("new_ref", accumulated, 1.0).outvars
    assert jaxprs.is_ref(made.aval)
    assert made.aval.inner_aval.shape == ()
    assert not jaxprs.is_ref(find("sin", accumulated, 1.0).outvars[0].aval)
    assert not jaxprs.is_ref(find("get", accumulated, 1.0).outvars[0].aval)


def test_a_reference_is_read_and_written_by_equations_that_name_it():
    opened, _ = jaxprs.open_jaxpr(jaxprs.trace(accumulated, 1.0)[0])
    made = next(e for e in opened.eqns if e.primitive.name == "new_ref").outvars[0]
    users = [eqn for eqn in opened.eqns if any(v is made for v in eqn.invars)]
    assert {eqn.primitive.name for eqn in users} <= {"get", "swap", "addupdate"}
    kinds = {type(effect).__name__ for eqn in users for effect in eqn.effects}
    assert kinds == {"ReadEffect", "WriteEffect"}


def test_equations_of_a_reference_are_a_function_without_effects():
    closed, _ = jaxprs.trace(accumulated, 1.0)
    listed = equations.equations_of(jaxprs.open_jaxpr(closed)[0])
    (fused,) = [step for step in listed if len(step.eqns) > 1]
    assert listed.index(fused) == 1
    alone = fused.alone
    assert not jaxprs.outside_effects(alone)
    before = np.sin(0.5)
    args = [before if v in listed[0].results else 0.5 for v in fused.operands]
    slope = {before: 0.0, 0.5: 1.0}
    tangents = [slope[a] for a in args]
    (middle, total), (_, moved) = jax.jvp(lambda *xs: run(alone, *xs), args, tangents)
    np.testing.assert_allclose([middle, total, moved], [np.cos(0.5), before + 0.5, 1], rtol=1e-6)


def _number(x):
    return np.float32(x)


SHAPE = jax.ShapeDtypeStruct((), jnp.float32)


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (jnp.sin, []),
        (accumulated, []),
        (lambda x: jax.debug.print("{}", x), []),
        (lambda x: jax.debug.callback(_number, x), []),
        (lambda x: jax.pure_callback(_number, SHAPE, x), []),
        (lambda x: io_callback(_number, SHAPE, x), ["IOEffect"]),
        (lambda x: io_callback(_number, SHAPE, x, ordered=True), ["OrderedIOEffect"]),
        (lambda x: jax.jit(lambda x: io_callback(_number, SHAPE, x))(x), ["IOEffect"]),
    ],
)
def test_effects_that_reach_out_of_a_function(f, expected):
    closed, _ = jaxprs.trace(f, jnp.float32(1))
    assert jaxprs.outside_effects(closed) == expected


def test_a_debug_print_is_an_effect_named_debug():
    closed, _ = jaxprs.trace(lambda x: jax.debug.print("{}", x), 1.0)
    kinds = [type(effect).__name__ for effect in jaxprs.open_jaxpr(closed)[0].effects]
    assert kinds == ["DebugEffect"]


def test_a_reference_that_is_made_and_used_up_is_an_internal_effect():
    closed, _ = jaxprs.trace(accumulated, 1.0)
    kinds = [type(effect).__name__ for effect in jaxprs.open_jaxpr(closed)[0].effects]
    assert kinds == ["InternalMutableArrayEffect"]


def test_a_reference_from_outside_is_an_effect_of_reading_or_writing():
    ref = jax.new_ref(jnp.float32(2))
    read, _ = jaxprs.trace(lambda x: ref[...] * x, 1.0)
    assert jaxprs.outside_effects(read) == ["ReadEffect"]

    def write(ref):
        ref[...] = ref[...] + 1

    passed, _ = jaxprs.trace(write, ref)
    assert jaxprs.outside_effects(passed) == ["ReadEffect", "WriteEffect"]


# Devices.


def test_the_type_of_a_value_under_shard_map_says_along_which_axes_it_varies():
    seen = []

    def f(x, y):
        seen.extend(map(jaxprs.varying_axes, (x, y, x + y)))
        kind = jax.typeof(x)
        assert hasattr(kind, "mat") or hasattr(kind, "vma")
        return x + y

    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    mapped = jax.shard_map(f, mesh=mesh, in_specs=(spec("d"), spec()), out_specs=spec("d"))
    closed, _ = jaxprs.trace(mapped, jnp.ones(2), jnp.ones(1))
    assert seen == [{"d"}, set(), {"d"}]
    assert jaxprs.varying_axes(jnp.ones(2)) == jaxprs.varying_axes(2.0) == set()
    assert "add" in list(names_of(closed))


def looped(f):
    """A jaxpr that runs `f` twice, in a loop."""

    def loop(x):
        return jax.lax.scan(lambda c, _: (f(c), None), x, None, length=2)[0]

    return jaxprs.trace(loop, jnp.float32(1))[0]


def test_text_of_a_jaxpr_does_not_say_the_constants_of_a_jitted_function():
    def scaled(k):
        factor = np.full(1, k, np.float32)
        return looped(jax.jit(lambda x: (x * factor).sum()))

    assert str(jaxprs.open_jaxpr(scaled(2))[0]) == str(jaxprs.open_jaxpr(scaled(3))[0])
    found = [equations.evaluate_again(scaled(k), jnp.float32(1))[0] for k in (2, 3)]
    assert found == [4, 9]


def test_text_of_a_jaxpr_does_not_say_the_function_of_a_callback():
    def called(k):
        return looped(lambda x: jax.pure_callback(lambda x: np.float32(k), SHAPE, x))

    assert str(jaxprs.open_jaxpr(called(2))[0]) == str(jaxprs.open_jaxpr(called(3))[0])
    found = [equations.evaluate_again(called(k), jnp.float32(1))[0] for k in (2, 3)]
    assert found == [2, 3]


def test_text_of_a_jaxpr_does_not_say_the_rule_of_a_custom_derivative():
    def ruled(k):
        def rule(primals, tangents):
            return 2 * primals[0], k * tangents[0]

        op = jax.custom_jvp(lambda x: 2 * x)
        op.defjvp(rule)
        return looped(op)

    assert str(jaxprs.open_jaxpr(ruled(2))[0]) == str(jaxprs.open_jaxpr(ruled(3))[0])
    again = equations.evaluate_again
    slopes = [jax.grad(lambda x, k=k: again(ruled(k), x)[0])(1.0) for k in (2, 3)]
    assert slopes == [4, 9]


def test_closed_call_is_a_call():
    def loop(x):
        return jax.lax.fori_loop(0, 3, lambda i, c: jnp.sin(c), x)

    whole = jax.checkpoint(loop, policy=POLICIES.everything_saveable)
    call = next(e for e in eqns_of(jax.grad(whole), 1.0) if "call_jaxpr" in e.params)
    assert isinstance(jaxprs.structure(call), jaxprs.Call)


def test_num_consts_of_a_rule_are_operands_that_its_forward_pass_does_not_take():
    factor = jnp.arange(3.0)
    op = jax.custom_vjp(lambda x: x * factor)
    op.defvjp(lambda x: (x * factor, x), lambda x, dy: (dy * factor + 0 * x,))
    (eqn,) = eqns_of(op, jnp.ones(3))
    assert eqn.params["num_consts"] == len(eqn.invars) - 1 == 1
    _, back, _ = jaxprs.own_passes(eqn)
    assert run(back, jnp.ones(3), jnp.ones(3))[0].tolist() == [0, 1, 2]


# One walk.


class Run(Handler):
    """As autodidax evaluates a jaxpr; it notes where it was."""

    def __init__(self):
        self.seen = []

    def plain(self, e, operands, at):
        self.seen.append((e.kind, e.label, at.path))
        return e.run(operands)


def program(x):
    @jax.jit
    def half(x):
        return x / 2

    with jax.named_scope("block"):
        x = jax.lax.cond(x > 0, half, jnp.cos, x)
    x, _ = jax.lax.scan(lambda c, y: (c * y, c), x, np.arange(1, 4, dtype=np.float32))
    x = jax.lax.while_loop(lambda x: x < 10, lambda x: x * 2, x)
    return doubled(half(x)) + 1


def test_a_walk_hands_each_equation_to_the_method_of_its_kind():
    closed, _ = jaxprs.trace(program, 3.0)
    handler = Run()
    assert walk(closed, [jnp.float32(3)], handler) == [program(3.0)]
    kinds = [kind for kind, *_ in handler.seen]
    assert [k for k in kinds if k != "plain"] == ["cond", "scan", "loop", "rule"]
    assert ("plain", "div") in [seen[:2] for seen in handler.seen]  # of the call, which is opened


class Everywhere(Handler):
    """Goes into every body once; values are what depends on the first argument."""

    def __init__(self):
        self.places = {}

    def constant(self, value):
        return False

    def plain(self, e, operands, at):
        for body in bodies(e, operands, at):
            walk(body.jaxpr, body.values, self, body.at)
        self.places[e.label] = at
        return [any(operands)] * len(e.results)


def test_bodies_are_visited_once_and_say_where_they_are():
    closed, _ = jaxprs.trace(program, 3.0)
    handler = Everywhere()
    assert walk(closed, [True], handler) == [True]
    assert walk(closed, [False], handler) == [False]
    cosine, scan, product = (handler.places[name] for name in ("cos", "scan", "mul"))
    assert cosine.scope == "block"
    assert cosine.path[-2:] == (0, 0)
    assert product.iterations == (None,)
    assert scan.turns == ()
    assert {"div", "mul", "cos", "gt", "cond", "while", "doubled"} <= {*handler.places}
    (first, *_) = handler.places["div"].places
    assert (first.function, first.file) == ("half", __file__)


def test_a_walk_lets_go_of_a_value_after_its_last_use():
    class Freed(Handler):
        alive = 0

        def plain(self, e, operands, at):
            Freed.most = max(getattr(Freed, "most", 0), Value.alive)
            return [Value() for _ in e.results]

    class Value:
        alive = 0

        def __init__(self):
            Value.alive += 1

        def __del__(self):
            Value.alive -= 1

    def chain(x):
        for _ in range(20):
            x = jnp.sin(x)
        return x

    closed, _ = jaxprs.trace(chain, 1.0)
    walk(closed, [Value()], Freed())
    assert Freed.most <= 3


def test_the_plan_of_a_jaxpr_goes_with_it():
    def planned():
        closed, _ = jaxprs.trace(lambda x: jnp.sin(x) * 2, 1.0)
        walk(closed, [1.0], Run())
        return len(walks._PLANS)

    before = planned()
    gc.collect()
    jax.clear_caches()
    gc.collect()
    assert planned() <= before


def test_the_index_of_a_branch_is_clamped():
    cond = inside("cond", lambda i: jax.lax.switch(i, [jnp.sin, jnp.cos], 1.0), 0)
    assert [cond.taken(i) for i in (-1, 0, 1, 7)] == [0, 0, 1, 1]
    jax.jit(lambda i: [cond.taken(i)] == [None] or 1 / 0)(0)


def test_two_passes_are_those_of_vjp():
    def f(x, n, y):
        return [jnp.sin(x) * y], n + 1

    forward, backward, results, residuals = passes_of(f, (2.0, 3, 5.0), [0, 2])
    assert [r.shape for r in results] == [()]
    out, *kept, more = run(forward, 2.0, 3, 5.0)
    assert (len(kept), more) == (len(residuals), 4)
    found = run(backward, *kept, jnp.float32(1))
    assert found == list(jax.grad(lambda x, y: f(x, 3, y)[0][0], (0, 1))(2.0, 5.0))
    assert out == f(2.0, 3, 5.0)[0][0]
