"""`check_rule` and `audit`: what they find in wrong rules, and what they leave alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet.__main__ import main
from funcnet.jaxpr import passes
from funcnet.rules.compare import LIMITS, gap
from funcnet.verdicts.check.audit import PLACES
from funcnet.verdicts.check.judge import POINTS, moved
from funcnet.verdicts.check.taylor import slope

from .verdicts.check import DTYPES, alarms, mutation_scores

X = jnp.asarray(np.random.default_rng(0).standard_normal(5), jnp.float32)
QUICK = {"points": ("as given",), "ways": ()}


def ruled(primal, backward, forward=None):
    """A function with a rule that keeps its argument."""
    f = jax.custom_vjp(primal)
    f.defvjp(forward or (lambda x: (primal(x), x)), backward)
    return f


def sine(x):
    return jnp.sin(x)


def biggest(x):
    return jnp.max(x)


def positive(x):
    return jnp.maximum(x, 0)


def repeated(x):
    return jax.lax.while_loop(lambda s: s[0] < 1, lambda s: (s[0] + 1, jnp.sin(s[1])), (0, x))[1]


def called(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def checked(f, *args, **options):
    return fn.check_rule(f, **{**QUICK, **options})(*args)


def test_a_wrong_factor_is_said_with_its_element_and_both_values():
    report = checked(ruled(sine, lambda x, dy: (1.00001 * dy * jnp.cos(x),)), X)
    assert not report.ok
    (wrong,) = report.failures
    assert (wrong.quantity, wrong.dtype, wrong.point) == ("x", "float64", "as given")
    assert wrong.hint == "it is 1.00001 times that everywhere"
    assert float(wrong.found) / float(wrong.truth) == pytest.approx(1.00001, rel=3e-6)
    assert f"gradient of x[{wrong.element[0]}]: rule {wrong.found}, jax.vjp of the primal" in str(
        report
    )
    with pytest.raises(AssertionError, match="the rule of sine is not right"):
        report.assert_ok()


def test_a_right_rule_passes_at_every_point_in_every_way():
    report = fn.check_rule(ruled(sine, lambda x, dy: (dy * jnp.cos(x),)))(X)
    report.assert_ok()
    assert {c.verdict for c in report.comparisons} == {"same"}
    assert {c.point for c in report.comparisons} == set(POINTS)
    ways = {"jit", "eager", "vmap over x", "scan", "remat", "grad of grad", "adjoint identity"}
    assert {c.way for c in report.comparisons} == ways
    assert {c.dtype for c in report.comparisons} == {"float32", "float64"}
    assert report.kept == (20, 20)
    assert "rule of sine" in report.html()
    assert max(map(len, str(report).splitlines())) <= 100


@pytest.mark.slow
@pytest.mark.long
def test_a_rule_that_is_wrong_in_one_way_alone():
    def backward(x, dy):
        return (dy * jax.lax.stop_gradient(jnp.cos(x)),)

    report = checked(ruled(sine, backward), X, ways=("grad of grad", "adjoint identity"))
    assert {c.way for c in report.failures} == {"grad of grad"}


@pytest.mark.slow
@pytest.mark.long
def test_the_forward_pass_is_held_against_the_primal():
    wrong = ruled(sine, lambda x, dy: (dy * jnp.cos(x),), lambda x: (1.01 * jnp.sin(x), x))
    assert {c.quantity for c in checked(wrong, X).failures} == {"value"}


@pytest.mark.slow
@pytest.mark.long
def test_a_gradient_of_another_dtype():
    report = checked(ruled(sine, lambda x, dy: ((dy * jnp.cos(x)).astype(jnp.bfloat16),)), X)
    assert "the rule gives bfloat16[5] for an array of float64[5]" in str(report.failures[0])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_rule_that_knows_one_dtype_alone_is_judged_in_it(dtype):
    def narrow(x):
        return jnp.sin(x).astype(dtype)

    ways = {"points": ("as given",), "ways": ("grad of grad", "adjoint identity")}
    by_output = ruled(narrow, lambda x, dy: ((dy * jnp.cos(x).astype(dtype)).astype(x.dtype),))
    by_gradient = ruled(sine, lambda x, dy: ((dy * jnp.cos(x)).astype(dtype),))
    for f in (by_output, by_gradient):
        report = checked(f, X.astype(dtype), **ways)
        report.assert_ok()
        assert {c.dtype for c in report.comparisons} == {dtype}
        assert "Not judged in float64: " in str(report)
        assert "Not differentiated" not in str(report)
    wrong = ruled(sine, lambda x, dy: ((1.1 * dy * jnp.cos(x)).astype(dtype),))
    assert not checked(wrong, X.astype(dtype), **QUICK).ok


def test_a_forward_pass_of_another_shape_is_told():
    f = ruled(sine, lambda x, dy: (dy,), lambda x: (jnp.sum(x), x))
    failures = checked(f, X, **QUICK).failures
    assert str(failures[-1]).startswith("value: shape () by the rule, (5,) by the primal\n")


def test_an_array_whose_gradient_has_the_wrong_shape_is_named():
    f = jax.custom_vjp(lambda x, p: x @ p["w"])
    f.defvjp(
        lambda x, p: (x @ p["w"], (x, p["w"])),
        lambda kept, dy: (dy @ kept[1].T, {"w": (kept[0].T @ dy).T}),
    )
    for g in (f, lambda y, p: f(y, p)):
        said = str(checked(g, jnp.ones((2, 3)), {"w": jnp.ones((3, 4))}, **QUICK).failures[0])
        assert said.startswith(
            "gradient of p['w']: the rule gives float32[4,3] for an array of float32[3,4]\n"
            "  that is the shape of its transpose\n"
        )
    swapped = checked(lambda p, x: f(x, p), {"w": jnp.ones((3, 4))}, jnp.ones((2, 3)), **QUICK)
    assert str(swapped.failures[0]).startswith("every gradient: raises ValueError: Custom VJP")


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("backward", [lambda x, dy: (dy, dy), lambda x, dy: (dy[:2],)])
def test_a_gradient_of_another_structure_or_shape_leaves_the_value_judged(backward):
    report = checked(ruled(sine, backward), X)
    said = str(report.failures[0])
    assert "Custom VJP bwd rule must produce" in said or "gives float32[2] for an array" in said
    assert [c.quantity for c in report.of("same")] == ["value"]


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("primal", "backward", "x", "ok"),
    [
        (positive, lambda x, dy: (dy * (x >= 0),), [-1.0, 0.0, 2.0], True),
        (positive, lambda x, dy: (2 * dy * (x >= 0),), [-1.0, 0.0], False),
        (positive, lambda x, dy: (dy * jnp.where(x == 0, 1.5, x > 0),), [-1.0, 0.0], False),
        (biggest, lambda x, dy: (dy * (jnp.arange(3) == jnp.argmax(x)),), [1.0, 2.0, 2.0], True),
        (biggest, lambda x, dy: (dy * (x == jnp.max(x)),), [1.0, 2.0, 2.0], False),
    ],
)  # fmt: skip
def test_a_kink_is_reported_and_is_an_error_only_outside_its_slopes(primal, backward, x, ok):
    report = checked(ruled(primal, backward), jnp.array(x))
    assert report.ok == ok
    assert bool(report.ties) == ok


@pytest.mark.slow
@pytest.mark.long
def test_a_primal_without_reverse_is_differentiated_forward():
    right, wrong = (ruled(repeated, lambda x, dy, f=f: (f * dy * jnp.cos(x),)) for f in (1, 1.001))
    assert checked(right, X).against == "jax.jvp of the primal"
    assert checked(right, X).ok
    assert not checked(wrong, X).ok


@pytest.mark.slow
@pytest.mark.long
def test_a_primal_without_any_derivative_is_compared_by_its_values():
    right, wrong = (ruled(called, lambda x, dy, f=f: (f * dy * jnp.cos(x),)) for f in (1, 1.001))
    with jax.enable_x64(True):
        report = checked(right, np.asarray(X, np.float64))
        assert report.ok
        assert report.rates["x"] == pytest.approx(2, abs=0.1)
        report = checked(wrong, np.asarray(X, np.float64))
    assert [c.quantity for c in report.failures] == ["x"]
    assert report.rates["x"] < 1.5


def test_the_slope_along_a_direction_tells_a_thousandth():
    found = slope(lambda h: float(np.sin(0.3 + h)), np.cos(0.3), 1e-2)
    assert abs(found.value - np.cos(0.3)) < 1e-11
    assert slope(lambda h: float(np.sin(0.3 + h)), 1.001 * np.cos(0.3), 1e-2).rate < 1.2


@pytest.mark.slow
@pytest.mark.long
def test_an_op_of_ours_is_held_against_its_definition():
    x = jnp.asarray(np.random.default_rng(1).standard_normal((3, 4)), jnp.bfloat16)
    report = checked(functools.partial(fn.layer_norm, eps=1e-3), x)
    report.assert_ok()
    assert {c.dtype for c in report.comparisons} == {"bfloat16", "float64"}
    assert report.kept[0] < report.kept[1]


@pytest.mark.slow
@pytest.mark.long
def test_static_arguments_of_a_rule_stay():
    @functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
    def power(x, n):
        return x**n

    power.defvjp(lambda x, n: (x**n, x), lambda n, x, dy: (n * x ** (n - 1) * dy,))
    report = checked(power, X, 3)
    report.assert_ok()
    assert {c.quantity for c in report.comparisons} == {"value", "x"}


@pytest.mark.slow
@pytest.mark.long
def test_what_has_no_gradient_is_left_as_given():
    @jax.custom_vjp
    def rows(table, ids):
        return table[ids]

    rows.defvjp(
        lambda table, ids: (table[ids], (table.shape, ids)),
        lambda kept, dy: (jnp.zeros(kept[0]).at[kept[1]].add(dy), None),
    )
    report = checked(rows, X, jnp.array([1, 1]), ways=("vmap",))
    report.assert_ok()
    assert "Without a gradient, and left as given: ids." in str(report)


@pytest.mark.slow
@pytest.mark.long
def test_a_seed_is_taken_as_given():
    wrong_first = ruled(sine, lambda x, dy: (dy * jnp.cos(x) * jnp.arange(5).clip(0, 1),))
    seed = jnp.array([0.0, 1, 1, 1, 1])
    assert checked(wrong_first, X, seed=seed).ok
    assert not checked(wrong_first, X, seed=jnp.ones(5)).ok


@pytest.mark.slow
@pytest.mark.long
def test_where_terms_cancel_their_size_counts():
    """Its gradient is zero but for rounding."""
    report = checked(fn.softmax, jnp.asarray(X)[None], seed=jnp.ones((1, 5)))
    report.assert_ok()


@pytest.mark.slow
@pytest.mark.long
def test_a_forward_rule_is_checked_as_well():
    @jax.custom_jvp
    def cube(x):
        return x**3

    cube.defjvp(lambda x, t: (x[0] ** 3, 3.003 * x[0] ** 2 * t[0]))
    assert not checked(cube, X).ok


MESSAGES = [
    (
        lambda: checked(jnp.sin, X),
        "check_rule: expected a function that runs a custom rule, got the function sin. JAX "
        "derives its gradient alone: there is no rule to check.",
    ),
    (
        lambda: checked(ruled(sine, lambda x, dy: (dy,)), jnp.arange(3)),
        "check_rule: expected an argument with a gradient, got none. Nothing to differentiate: no "
        "argument has a floating dtype; write 1.0 in place of 1.",
    ),
    (
        lambda: fn.check_rule(fn.tanh, points=("there",)),
        "check_rule: expected a point among as given, shuffled, zero, ties, large, tiny, no "
        "cotangent, got 'there'. Leave it out for all.",
    ),
    (
        lambda: fn.check_rule(fn.tanh, ways=("pmap",)),
        "check_rule: expected a way among eager, vmap, scan, remat, grad of grad, adjoint "
        "identity, got 'pmap'. Leave it out for all.",
    ),
    (
        lambda: fn.audit(fn.tanh, points="zero"),
        "audit: expected a point among as given, shuffled, zero, ties, large, tiny, no "
        "cotangent, got the string 'zero'. Write ('zero',).",
    ),
    (
        lambda: fn.audit(fn.tanh, ways=("vmpa",)),
        "audit: expected a way among eager, vmap, scan, remat, grad of grad, adjoint identity, "
        "got 'vmpa'. Leave it out for all.",
    ),
    (
        lambda: checked(fn.tanh, jax.ShapeDtypeStruct((2,), "float32")),
        "check_rule: expected an array as x, got a ShapeDtypeStruct. It has no numbers: pass an "
        "array of that shape.",
    ),
    (
        lambda: jax.jit(fn.audit(fn.tanh))(X),
        "audit: expected an array as x, got a traced one. Call it outside of jit, grad and vmap.",
    ),
    (
        lambda: fn.check_rule(3)(X),
        "check_rule: expected a function, got 3. Its arguments come in a second call.",
    ),
    (
        lambda: fn.audit(jnp.sin)(X),
        "audit: expected a function that runs a custom rule, got sin. JAX derives all of its "
        "gradient: there is no rule to check.",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), MESSAGES)
def test_messages(call, message):
    with pytest.raises((TypeError, ValueError)) as caught:
        call()
    assert str(caught.value) == message


@jax.custom_vjp
def cube(x):
    return x**3


cube.defvjp(lambda x: (x**3, x), lambda x, dy: (3.003 * x**2 * dy,))


@jax.custom_vjp
def outer(x):
    return jnp.sin(cube(x))


outer.defvjp(lambda x: (outer(x), x), lambda x, dy: (3 * x**2 * jnp.cos(x**3) * dy,))


def loss(w, x):
    def body(carry, _):
        return jax.checkpoint(lambda c: fn.tanh(c @ w))(carry), None

    carry, _ = jax.lax.scan(body, x, None, length=2)
    return jax.lax.cond(carry[0, 0] > 9, lambda c: c, outer, carry).sum()


def test_audit_finds_rules_in_scan_cond_remat_and_in_one_another():
    w = jnp.eye(2, dtype=jnp.float32)
    report = fn.audit(loss, points=("as given",), ways=())(w, jnp.ones((1, 2)))
    found = {rule.name: (rule.places, rule.report.ok) for rule in report.rules}
    assert found == {"tanh": (2, True), "outer": (1, True), "cube": (1, False)}
    assert [rule.name for rule in report.failures] == ["cube"]
    assert "gradient of x: rule" in str(report) or "gradient of x[0, 0]: rule" in str(report)
    assert {c.dtype for rule in report.rules for c in rule.report.comparisons} >= {"float64"}
    with pytest.raises(AssertionError, match="not every rule in loss is right"):
        report.assert_ok()


@pytest.mark.slow
@pytest.mark.long
def test_audit_says_how_many_places_it_looked_at():
    def long(x):
        return jax.lax.scan(lambda c, _: (cube(c), None), x, None, length=PLACES + 2)[0]

    report = fn.audit(long, points=("as given",), ways=())(1.0)
    (rule,) = report.rules
    assert rule.places == PLACES + 2
    assert f"Compared at 9 of {PLACES + 2} places." in rule.report.notes


def test_a_first_turn_of_a_loop_with_a_number_of_python_is_a_place_like_the_others():
    def turns(x):
        return jax.lax.scan(lambda c, _: (cube(c), None), x, None, length=2)[0]

    (rule,) = fn.audit(turns, **QUICK)(1.0).rules
    assert rule.places == 2


def test_an_audit_that_meets_no_rule_is_not_ok():
    report = fn.audit(lambda x: jax.lax.cond(x.sum() > 1e9, cube, jnp.sin, x).sum())(X)
    assert not report.rules
    assert not report.ok
    assert str(report).startswith("Rules met in <lambda>: 0. Nothing was judged.")
    with pytest.raises(AssertionError, match=r"no rule was judged in <lambda>\."):
        report.assert_ok()


@pytest.mark.slow
@pytest.mark.long
def test_audit_goes_on_behind_a_rule_that_raises():
    broken = ruled(sine, lambda x, dy: (dy[:2],))
    report = fn.audit(lambda x: broken(cube(x)).sum(), points=("as given",), ways=())(X)
    assert {rule.name: rule.report.ok for rule in report.rules} == {"sine": False, "cube": False}


def test_a_trace_says_what_it_takes_on_trust():
    said = fn.trace(lambda x: fn.tanh(jax.nn.relu(cube(x))))(1.0)
    assert said.check().trusted == ("cube",)
    assert "Taken on trust: the rule of cube" in str(said)
    assert fn.Trace.load(said.json()).check() == said.check()
    assert fn.trace(lambda x: fn.tanh(jax.nn.relu(x)))(1.0).check().trusted == ()


def test_float16_has_its_own_units():
    assert LIMITS["float16"] == 2.0
    half = np.array([1.0], np.float16)
    assert gap(np.nextafter(half, 2, dtype=np.float16), half, "float16", each=True).error == 1.0
    assert all(proof.ok for proof in fn.prove(fn.tanh, "float16"))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", ["dense", "gelu", "relu6"])
def test_every_mutant_of_a_rule_is_killed_or_the_same(name):
    scores = mutation_scores([fn.RULES[name]])
    assert sum(counts["killed"] for counts in scores.values()) > 5
    assert not any(counts["lives"] for counts in scores.values())


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_right_rule_raises_no_alarm(dtype):
    assert not alarms(fn.RULES["layer_norm"], dtype, range(100))


def test_an_option_that_this_xla_does_not_know_is_left_out(monkeypatch):
    known = {"xla_backend_optimization_level": 0}
    monkeypatch.setattr(passes, "QUICKLY", known | {"xla_of_another_day": True})
    assert passes.quick_options.__wrapped__() == known


def test_ties_are_made_of_neighbours():
    (x,) = moved("ties", (np.array([1.0, 2.0, 3.0, 4.0]),), (0,))
    assert x.tolist() == [1, 1, 3, 3]


MODEL = """
import jax

@jax.custom_vjp
def cube(x):
    return x**3

cube.defvjp(lambda x: (x**3, x), lambda x, dy: (3 * x**2 * dy,))

def loss(x):
    return -cube(x)
"""


def test_the_command_checks_a_rule_and_audits_any_other_function(tmp_path, capsys):
    file, page = tmp_path / "model.py", tmp_path / "page.html"
    file.write_text(MODEL)
    assert main(["check", f"{file}:loss", "--args", "2", "--html", str(page)]) == 0
    assert "Rules met in loss: 1. All are right." in capsys.readouterr().out
    assert "<html" in page.read_text()
    file.write_text(MODEL.replace("3 * x**2", "-3 * x**2"))
    assert main(["check", f"{file}:cube", "--args", "2"]) == 1
    assert "The rule of cube is WRONG: x;" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tanh", "model.py:loss"], "expected one function, or ops, got tanh model.py:loss."),
        (["tanh", "--args", "2"], "expected --args and --html with a function, FILE.py:FUNCTION,"),
    ],
)
def test_the_command_refuses(words, message, capsys):
    assert main(["check", *words]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.long
def test_outputs_of_two_dtypes_take_adjoints_of_theirs():
    assert not alarms(fn.RULES["linear_attention"], np.float16, range(11))
