"""`diff`: where two functions part."""

import jax
import jax.numpy as jnp
import pytest

import funcnet as fn

from .verdicts import diff

X = jnp.array([0.3, -0.7, 1.1, 0.2])
LONG = [pytest.mark.slow, pytest.mark.long]
QUICK = {
    ("a constant", diff.plain), ("swapped operands", diff.jitted),
    ("a cast in the middle", diff.plain), ("a rule off by 0.1%", diff.plain),
    ("a stop_gradient", diff.plain), ("another epsilon", diff.scanned),
}  # fmt: skip


def marked(plant):
    marks = [] if (plant.what, plant.around) in QUICK else LONG
    return pytest.param(plant, id=plant.name, marks=marks)


@pytest.mark.parametrize("plant", [marked(plant) for plant in diff.PLANTS])
def test_the_first_place_is_found(plant):
    assert diff.wrong(plant) == ""


@pytest.mark.slow
@pytest.mark.long
def test_rounding_is_no_difference():
    for name, (f, g, x) in diff.controls().items():
        report = fn.diff(f, g)(x)
        assert not report, name
        assert report.first is None, name


def test_the_report_names_both_sides_and_the_rows_after_them():
    def loss(x):
        return jnp.mean(jnp.tanh(x * 2.0) ** 2)

    def other(x):
        return jnp.mean(jnp.tanh(x * 2.5) ** 2)

    report = fn.diff(loss, other)(X)
    assert report.first
    assert report.first.f
    assert report.first.g
    assert report.first.g.source
    assert report.first.f.expression == "v0 * 2"
    assert report.first.g.source.line == other.__code__.co_firstlineno + 1
    text = str(report)
    first, one, *_ = text.splitlines()
    assert first == "loss and other part by 0.2: 2 is 2.5 in other."
    assert one.startswith("loss: v1 = v0 * 2  (test_verdict_diff.py:")
    assert [step.f.row for step in report.steps] == ["v0", "v1", "v2", "v3", "v4", "v5"]
    assert "v2 = tanh(v1)" in text
    assert "<h1>difference of loss and other</h1>" in report.html()
    assert max(map(len, text.splitlines())) <= 110


def test_sums_in_another_order_and_constants_that_do_not_show():
    plain = fn.diff(lambda x: jnp.sum((x + 0.1) + X), lambda x: jnp.sum(x + (0.1 + X)))(X)
    assert not plain
    assert "no more than rounding" in str(plain) or "are equal" in str(plain)
    hidden = fn.diff(lambda x: jnp.sum(x + 1e-12), lambda x: jnp.sum(x + 1e-11))(X)
    assert not hidden
    assert "Yet 1e-12 is 1e-11" in str(hidden)


@pytest.mark.slow
@pytest.mark.long
def test_two_dtypes_part_where_rounding_grows():
    def loss(x):
        near = x - 0.999 * x
        return jnp.sum(near)

    def smooth(x):
        return jnp.sum(jnp.sin(x) * x)

    dtypes = ("float32", "bfloat16")
    assert not fn.diff(smooth, smooth, dtypes=dtypes)(X)
    report = fn.diff(loss, loss, dtypes=dtypes)(X)
    assert not report
    assert report.first
    assert report.first.f
    assert report.first.f.source
    assert report.first.kind == "rounding"
    assert report.first.f.source.line == loss.__code__.co_firstlineno + 1
    assert "rounding grows" in str(report)


def test_outputs_of_many_numbers_and_wrong_calls():
    assert not fn.diff(lambda x: jnp.sin(x), lambda x: jnp.sin(x))(X)
    with pytest.raises(ValueError, match=r"diff: expected outputs like .* of shapes"):
        fn.diff(lambda x: x, lambda x: jnp.sum(x))(X)
    with pytest.raises(TypeError, match=r"diff: expected dtypes of two floating dtypes"):
        fn.diff(jnp.sin, jnp.sin, dtypes=("int32", "float32"))
    with pytest.raises(TypeError, match=r"^diff: expected an array as \w+, got"):
        jax.jit(lambda x: bool(fn.diff(jnp.sin, jnp.cos)(x)))(X)
    with pytest.raises(TypeError, match=r"^diff: expected a function, got 3\."):
        fn.diff(jnp.sin, 3)(X)


def test_constants_that_five_figures_do_not_tell_apart():
    report = fn.diff(lambda x: x * 1.00001, lambda x: x * 1.00002)(X)
    assert report.first.why == "1.00001 is 1.00002 in <lambda> (2)"
    assert report.first.f.expression == "v0 * 1.00001"
    report = fn.diff(lambda x: x * 1.23451, lambda x: x * 1.23454)(X)
    assert report.first.why == "1.23451 is 1.23454 in <lambda> (2)"


def test_of_two_differences_the_first_is_told():
    report = fn.diff(lambda x: jnp.sin(2 * x) * 3, lambda x: jnp.sin(2.1 * x) * 3.1)(X)
    assert report.first.why == "2 is 2.1 in <lambda> (2)"
    loops = [
        lambda x, k=k: jax.lax.fori_loop(0, 3, lambda _, c: jnp.sin(c * k) * 2, x) for k in (2, 3)
    ]
    report = fn.diff(*loops)(X)
    assert (report.first.f.row, report.first.why) == ("v2[0]", "2 is 3 in <lambda> (2)")
    softmax = [lambda x, axis=axis: jax.nn.softmax(x, axis) for axis in (0, 1)]
    report = fn.diff(*softmax)(jnp.outer(X, jnp.sin(X)))
    assert "max" in report.first.f.expression


def test_a_sum_whose_terms_cancel_rounds_as_they_do():
    waves = jnp.sin(jnp.arange(1000.0))
    total = lambda x: jnp.sum(x)  # noqa: E731  # short
    assert not fn.diff(total, lambda x: jnp.sum(x[::-1]))(waves)
    assert not fn.diff(total, lambda x: jnp.sum(x[:500]) + jnp.sum(x[500:]))(waves)
    assert fn.diff(total, lambda x: jnp.sum(x) + 0.01)(waves)
