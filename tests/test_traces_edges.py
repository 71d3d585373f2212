"""Traces at the edges: what is no number, NaN and infinity, sizes near the ends of a dtype, and
functions in which there is nothing to differentiate."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet.render import latex
from funcnet.traces.record.values import value_of
from funcnet.traces.trace import Trace
from funcnet.traces.verdict import Check, compare

NAN, INF = np.nan, np.inf


# Keys and narrow dtypes.


def test_a_random_key_is_shown_by_its_type():
    key = jax.random.key(0)

    def f(x, k):
        return jnp.sum(jax.random.normal(k, (3,)) * x)

    trace = fn.trace(f)(2.0, key)
    row = trace["k"]
    assert row.value.text == row.value.type == "key<fry>[]"
    assert (jax.random.key_data(row.value.array) == jax.random.key_data(key)).all()
    assert fn.trace(f)(2.0, jax.random.PRNGKey(7))["k"].value.text == "[0, 7]"
    many = fn.trace(lambda x, k: jnp.sum(jax.vmap(jax.random.normal)(k) * x))
    assert many(2.0, jax.random.split(key, 3))["k"].value.text == "key<fry>[3]"
    closed = fn.trace(lambda x: jnp.sum(jax.random.normal(key) * x)).abstract(1.0)
    assert any("key" in e.text for pair in closed.pairs for e in pair.forward)


@pytest.mark.long
def test_keys_go_through_loops():
    keys = jax.random.split(jax.random.key(0), 20)

    def f(x, keys):
        def body(h, k):
            return h * 0.9 + x * jax.random.normal(k), (k, h)

        h, (same, _) = jax.lax.scan(body, x, keys)
        return h + x * jnp.sum(jax.vmap(jax.random.normal)(same))

    for count, sample in ((0, None), (3, None), (20, 3)):
        trace = fn.trace(f, sample=sample)(2.0, keys[:count])
        slope = jax.grad(f)(2.0, keys[:count])
        np.testing.assert_allclose(trace.gradients[0], slope, rtol=1e-5)
        assert str(Trace.load(trace.json())) == str(trace)


NARROW = ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "float8_e3m4", "float4_e2m1fn",
          "float8_e4m3b11fnuz", "float8_e8m0fnu"]  # fmt: skip


@pytest.mark.parametrize("dtype", [*NARROW, "float32", "complex64", "int4", "uint4", "int2",
                                   "uint2", "int8", "uint8", "uint32", "bool"])  # fmt: skip
def test_every_dtype_is_read_back(dtype):
    x = jnp.array([1, 0, 2, 1]).astype(dtype)
    trace = fn.trace(lambda y, x: y * 2, keep="all")(1.0, x)
    again = Trace.load(trace.json())["x"].value
    assert again.array.dtype == x.dtype
    assert (again.shape, again.dtype) == ((4,), dtype)
    assert again.stats == pytest.approx(trace["x"].value.stats)
    assert again.array.tobytes() == np.asarray(x).tobytes()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e5m2", "float32", "complex64"])
def test_what_is_not_finite_is_read_back(dtype):
    x = jnp.array([NAN, INF, -INF, -0.0]).astype(dtype)
    x = x * (1 - 1j) if dtype == "complex64" else x
    text = fn.trace(lambda y, x: y * 2)(1.0, x).json()
    again = Trace.load(text)["x"].value.array
    assert again.dtype == x.dtype
    np.testing.assert_array_equal(again.astype(complex), np.asarray(x).astype(complex))


def test_large_whole_numbers_are_read_back(x64):
    x = np.array([2**64 - 1, 0, 2**53 + 1], np.uint64)
    y = np.array([-(2**63), 2**53 + 1], np.int64)
    again = Trace.load(fn.trace(lambda a, x, y: a)(1.0, x, y).json())
    assert again["x"].value.array.tolist() == x.tolist()
    assert again["y"].value.array.tolist() == y.tolist()


@pytest.mark.parametrize("dtype", NARROW[2:5])
def test_narrow_floats_are_watched(dtype):
    def f(x):
        y = x.astype(dtype)
        return jnp.sum(y.astype(x.dtype) ** 2)

    x = jnp.array([1.0, -2.0, 0.0])
    seen = jax.jit(fn.watch(f, select="y"))(x)["y"]
    assert {name: float(v) for name, v in seen.value.items()} == {
        "norm": pytest.approx(5**0.5), "max": 2, "mean": pytest.approx(-1 / 3),
        "zeros": pytest.approx(1 / 3), "nonfinite": 0,
    }  # fmt: skip
    assert seen.adjoint["max"] == 4
    whole = fn.capture(f, "y")(x)
    assert whole.adjoint.tolist() == [2, -4, 0]
    assert whole.adjoint.dtype == dtype


def test_a_watched_norm_is_infinite_where_squares_are_too_large():
    x = jnp.array([1e18, 1e20, -3e37], jnp.float32)
    for i, norm in enumerate([1e18, INF, INF]):
        pair = jnp.stack([x[i], jnp.zeros(())])
        seen = fn.watch(lambda x: jnp.sum(x * 2), select="v1")(pair)["v1"].value
        assert seen["norm"] == pytest.approx(2 * norm)
        assert seen["max"] == pytest.approx(2 * abs(float(x[i])))
        assert seen["mean"] == pytest.approx(float(x[i]))
        assert seen["nonfinite"] == 0


def test_a_loop_that_never_runs_is_watched():
    def f(x):
        return jax.lax.scan(lambda h, _: (jnp.sin(h), None), x, None, length=0)[0] * 2

    shown = str(fn.watch(f, select="all")(1.0)).splitlines()
    place, op, _, *figures = shown[2].split()
    assert (place, op, figures) == ("v1", "sin", ["none"] * 10)
    assert shown[3].startswith("v3 ")


def test_latex_writes_out_what_it_has_other_uses_for():
    assert latex.value("key<fry>[2]") == r"\text{key\textless{}fry\textgreater{}[2]}"
    assert latex.value("float8_e4m3fn[5]") == r"\text{float8\_e4m3fn[5]}"
    assert latex.value("norm 3 in [1, 2], 5% not finite") == (
        r"\text{norm 3 in [1, 2], 5\% not finite}"
    )
    assert latex.math("v1^-10 * v2^v3 + v4^2") == "v_{1}^{-10}  v_{2}^{v_{3}} + v_{4}^{2}"
    assert latex.math("v1^(v2 - f(v3)) + 1") == "v_{1}^{(v_{2} - f(v_{3}))} + 1"
    assert latex.math("2^(x^(3 - v1)) / v2^(y)") == "2^{(x^{(3 - v_{1})})} / v_{2}^{(y)}"
    assert latex.text("params['a_b^c']") == r"\texttt{params['a\_b\^{}c']}"
    assert latex.text("x_12") == "x_{12}"
    assert latex.text("x") == "x"


def test_a_page_survives_any_name():
    def f(x):
        with jax.named_scope("<!--<script>&</script>"):
            y = jnp.sin(x["<b>"])
        return y * y

    trace = fn.trace(f)({"<b>": 2.0})
    page = trace.html()
    data = page.partition('type="application/json">')[2].partition("</script>")[0]
    assert "<!" not in data
    assert json.loads(data) == json.loads(trace.json())
    assert "&lt;!--&lt;script&gt;" in trace.svg()


# Sizes near the ends of a dtype.

SCALES = [
    ("float32", 1e30), ("float32", 4e37), ("float32", 1e-30), ("float32", 1e-44),
    ("float64", 1.0), ("float64", 1e200), ("float64", 1e307), ("float64", 1e-200),
    ("float64", 1e-320), ("complex64", 1e30), ("complex64", 4e37), ("complex64", 1e-30),
    ("complex128", 1e200), ("complex128", 2e307), ("complex128", 1e-200), ("float16", 1e4),
    ("float16", 1e-6), ("bfloat16", 4e37), ("bfloat16", 1e-30), ("int32", 2e8), ("int64", 2e18),
    ("uint64", 4e18),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "scale"), SCALES, ids=[f"{d}-{s}" for d, s in SCALES])
def test_the_figures_of_finite_values_are_finite(dtype, scale):
    signs = [3, 0, 4, 0] if dtype[0] == "u" else [3, 0, -4, 0]
    x = (np.array(signs * 2, object) * scale).astype(
        {"b": np.float64, "u": np.uint64, "i": np.int64}.get(dtype[0], dtype)
    )
    x = x.astype(jnp.dtype(dtype))
    if dtype.startswith("complex"):
        x = x * np.array(1j, dtype)
    true = np.abs(x).astype(object) if np.iscomplexobj(x) else x.astype(np.float64).astype(object)
    stats = value_of(x).stats
    assert all(type(figure) is float for figure in stats)
    unit = np.asarray(true / float(np.abs(true).max()), float)
    expected = [float(np.linalg.norm(unit)), unit.mean(), unit.min(), unit.max()]
    largest = float(np.abs(true).max())
    tolerance = 0.3 if scale in (1e-44, 1e-320) else 1e-6
    np.testing.assert_allclose([s / largest for s in stats[:4]], expected, rtol=tolerance)
    assert stats.zeros == 0.5
    assert stats.nonfinite == 0


def test_the_figures_leave_out_what_is_not_finite():
    for dtype in ("float32", "float64", "complex64", "complex128", "float16"):
        x = np.array([NAN, INF, 3, -INF, 4, 0], dtype)
        stats = value_of(x).stats
        assert stats.norm == 5
        assert stats.high == 4
        assert stats.mean == pytest.approx(7 / 3)
        assert stats.nonfinite == 0.5
        assert stats.zeros == pytest.approx(1 / 6)
    none = value_of(np.array([NAN, INF, INF])).stats
    assert none == (0, 0, 0, 0, 0, 1)
    assert value_of(np.zeros(3)).stats == (0, 0, 0, 0, 1, 0)


def test_a_norm_beyond_float64_is_infinite_without_a_warning():
    assert value_of(np.full(100, 1.7e308)).stats[:2] == (INF, pytest.approx(1.7e308))
    assert value_of(np.full(4, 1.5e308 * (1 + 1j))).stats.nonfinite == 0


@pytest.mark.parametrize("size", [1e-45, 1e-38, 1e30, 3e38, INF, NAN])
def test_traces_of_such_values_print(size):
    for count in (2, 40):
        x = np.full(count, size, np.float32)
        trace = fn.trace(lambda x: jnp.sum(x * x) * x[0] - x[1])(x)
        assert trace.check().difference == 0
        assert "Checked against jax.vjp: the largest difference is 0" in str(trace)
        assert str(Trace.load(trace.json())) == str(trace)
        assert json.loads(trace.json(), parse_constant=pytest.fail)


@pytest.mark.parametrize("size", [1e-320, 1e200, 1.7e308, INF, NAN])
def test_traces_of_such_wide_values_print(size, x64):
    x = np.full(40, size)
    trace = fn.trace(lambda x: jnp.sum(x * x) * x[0] - x[1])(x)
    assert trace.check().difference == 0
    assert str(Trace.load(trace.json())) == str(trace)


# The comparison with JAX.


def compared(found, true):
    """What is said of a trace whose gradient is `found`, where JAX's is `true`."""

    @jax.custom_vjp
    def f(x):
        return jnp.sum(x).real

    f.defvjp(lambda x: (f(x), None), lambda _, dy: (jnp.asarray(true),))
    call = fn.traces.program.Program("trace", f, (jnp.zeros_like(true),), {})
    return compare(call, [True], [jnp.asarray(found)], [jnp.ones(())])


@pytest.mark.parametrize(("found", "true", "difference", "scale", "nonfinite"), [
    ([NAN, 1.0], [NAN, 1.0], 0, 1, 1),
    ([INF, -INF], [INF, -INF], 0, 0, 2),
    ([NAN, 1.0], [NAN, 3.0], 2, 3, 1),
    ([NAN, 1.0], [2.0, 1.0], INF, 2, 0),
    ([2.0, 1.0], [NAN, 1.0], INF, 1, 1),
    ([INF, 1.0], [-INF, 1.0], INF, 1, 1),
    ([INF, 1.0], [NAN, 1.0], INF, 1, 1),
    ([3e38, 0.0], [-3e38, 0.0], 6e38, 3e38, 0),
    ([complex(NAN, 1), 1j], [complex(NAN, 1), 1j], 0, 1, 1),
    ([complex(NAN, 1), 1j], [complex(NAN, 3), 1j], 2, 1, 1),
    ([3 + 4j, 0], [0, 0], 5, 0, 0),
])  # fmt: skip
def test_equal_and_unequal_infinities(found, true, difference, scale, nonfinite):
    dtype = np.complex64 if any(isinstance(x, complex) for x in found) else np.float32
    check = compared(np.array(found, dtype), np.array(true, dtype))
    assert check.difference == pytest.approx(difference)
    assert check.scale == pytest.approx(scale)
    assert check.nonfinite == nonfinite


def test_a_check_says_how_many_are_not_finite():
    trace = fn.trace(lambda x: jnp.sum(jnp.sqrt(x) * x))(np.array([-1.0, 4.0, -2.0], np.float32))
    check = trace.check()
    assert check == (0, 3, "jax.vjp", 2, "", ())
    assert str(check) == (
        "Checked against jax.vjp: the largest difference is 0, the largest gradient 3, beside 2 "
        "not finite."
    )
    assert str(trace).endswith(str(check))
    assert Trace.load(trace.json()).check() == check


# Nothing to differentiate.

NO_FLOAT = "Nothing to differentiate: no argument has a floating dtype; write 1.0 in place of 1."
NO_PATH = "Nothing flows back: no floating path leads from an argument to the output."
NOTHING = {
    "integers": (lambda a, b: jnp.sin(a * 1.0) * b, (2, 5), NO_FLOAT),
    "key": (lambda k: jax.random.normal(k), (jax.random.key(0),), NO_FLOAT),
    "truths": (lambda m: jnp.sum(m * 1.0), (np.array([True]),), NO_FLOAT),
    "no argument": (lambda: jnp.sin(1.0), (), NO_FLOAT),
    "cast": (lambda x: jnp.sin(x.astype(int) * 1.0), (jnp.ones(()),), NO_PATH),
    "stopped": (lambda x: jnp.sin(jax.lax.stop_gradient(x)), (2.0,), NO_PATH),
    "compared": (lambda x: jnp.sum((x > 0) * 2.0), (2.0,), NO_PATH),
    "unused": (lambda x: jnp.sin(1.0), (2.0,), NO_PATH),
    "index": (lambda x: jnp.argmax(x) * 1.0, (np.ones(3, np.float32),), NO_PATH),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_nothing_to_differentiate_is_said(kind):
    f, args, sentence = NOTHING[kind]
    trace = fn.trace(f)(*args)
    last = str(trace).splitlines()[-1]
    assert last.startswith(sentence)
    assert "largest gradient" not in str(trace)
    assert str(Trace.load(trace.json())) == str(trace)
    assert json.loads(trace.json())["verdict"] == last
    watched = str(fn.watch(f, select="all")(*args))
    assert watched == NO_FLOAT if sentence is NO_FLOAT else watched.startswith("Nothing to show: ")


def test_something_to_differentiate_is_said():
    trace = fn.trace(lambda x, y: jnp.sin(x) + jax.lax.stop_gradient(y))(2.0, 3.0)
    assert "Checked against jax.vjp" in str(trace)
    assert "verdict" not in json.loads(trace.json())
    zero = fn.trace(lambda x: jnp.sum(x) * 0)(2.0)
    assert str(zero).endswith("the largest difference is 0, the largest gradient 0.")
    assert str(Trace.load(zero.json())) == str(zero)


def test_a_missing_path_is_no_excuse_for_a_difference():
    trace = fn.trace(lambda x: jax.lax.stop_gradient(x))(2.0)
    wrong = Trace(trace.function, trace.rows, trace.contributions,
                  _check=lambda: Check(1.0, 1.0, "jax.vjp"))  # fmt: skip
    assert str(wrong).endswith("the largest difference is 1, the largest gradient 1.")


def test_a_watch_without_a_place_says_so():
    assert str(fn.watch(jnp.sin)(2.0)) == (
        "Nothing to show: the gradient flows through no place that was selected. "
        'select="all" takes every equation.'
    )
    assert str(fn.watch(lambda n: jnp.sin(n * 1.0))(2)) == NO_FLOAT


def test_wrt_must_name_an_argument():
    with pytest.raises(ValueError, match=r"trace: expected wrt to name an argument, got \(\)\."):
        fn.trace(jnp.sin, wrt=())(2.0)
