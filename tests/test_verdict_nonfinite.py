"""Where a NaN or an Inf is born, on the corpus and in the places that a corpus has not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnet as fn
from funcnet.__main__ import main
from tests.verdicts.corpus_nonfinite import HARMLESS, X, bugs, root_masked

BUGS = bugs()
LONG = [pytest.mark.slow, pytest.mark.long]
QUICK = ("root_masked in custom rule in scan", "log_of_zero in while")


def marked(names, quick):
    return [pytest.param(n, marks=[] if n in quick else LONG, id=n) for n in names]


@pytest.mark.parametrize("name", marked(BUGS, QUICK))
def test_line_iteration_and_element_of_every_bug(name):
    bug = BUGS[name]
    x = bug.cause.rows()
    report = fn.explain_nonfinite(bug.f)(x)
    origin = report.origin
    assert report
    assert f":{bug.cause.line}" in str(report)
    assert (origin.source.line, origin.iteration, origin.element) == (
        bug.cause.line, bug.iteration, bug.element
    )  # fmt: skip
    assert report.hint
    assert report.path
    if not bug.cause.backward:
        assert report.poisoned[0].name == "the output"
    assert ("was not looked at" in report.note) != bug.differentiable


@pytest.mark.parametrize("name", marked(HARMLESS, ("1 / inf",)))
def test_what_is_masked_is_no_alarm(name):
    harmless = HARMLESS[name]
    value, slopes = jax.value_and_grad(harmless.f, has_aux=harmless.has_aux)(harmless.x)
    value = value[0] if harmless.has_aux else value
    assert jnp.isfinite(value)
    assert jnp.isfinite(slopes).all()
    report = fn.explain_nonfinite(harmless.f, has_aux=harmless.has_aux)(harmless.x)
    assert not report
    assert report.origin is None
    assert "are finite" in str(report)


def test_a_root_that_is_masked():
    explain = fn.explain_nonfinite(lambda x: jnp.sum(root_masked(x) * 2))
    report = explain(jnp.array([1.0, 0.0, 4.0]))
    assert report.origin.residual.value == "0"
    assert report.origin.what == "the derivative of sqrt"
    assert report.origin.phase == "backward"
    assert report.origin.kind == "Inf"
    assert "double where" in report.hint
    assert "sqrt at 0" in report.hint
    assert report.poisoned[0].name == "the gradient of x"
    assert report.poisoned[0].element == (1,)
    assert not explain(jnp.array([1.0, 2.0, 4.0])), "the same compiled program"
    page = report.html()
    assert "corpus_nonfinite.py" in page
    assert "jnp.where(ok" in page
    assert max(map(len, str(report).splitlines())) <= 100


@pytest.mark.slow
@pytest.mark.long
def test_a_harmless_element_before_the_one_to_blame():
    def f(x):
        y = jnp.log(x)
        return jnp.sum(jnp.where(jnp.arange(4) == 0, 0.0, y))

    origin = fn.explain_nonfinite(lambda x: f(jax.lax.stop_gradient(x)))(jnp.zeros(4)).origin
    assert origin.element == (1,)
    assert origin.primitive == "log"


@pytest.mark.slow
@pytest.mark.long
def test_a_harmless_iteration_before_the_one_to_blame():
    def f(x):
        def body(c, row):
            y = jnp.log(jax.lax.stop_gradient(row))
            return c + jnp.where(row[0] > 5, y, row).sum(), None

        return jax.lax.scan(body, 0.0, x)[0]

    x = jnp.ones((5, 2)).at[1, 1].set(0.0).at[3].set(jnp.array([6.0, 0.0]))
    origin = fn.explain_nonfinite(f)(x).origin
    assert origin.iteration == (3,)
    assert origin.element == (1,)
    assert origin.lengths == (5,)


@pytest.mark.slow
@pytest.mark.long
def test_a_harmless_place_before_the_one_to_blame():
    def f(x):
        unused = 1 / jnp.exp(jax.lax.stop_gradient(x) * 1000)
        return jnp.sum(unused) + jnp.sum(jnp.log(x - 1))

    report = fn.explain_nonfinite(f)(jnp.array([2.0, 1.0]))
    assert report.origin.primitive == "log"
    assert report.origin.element == (1,)
    assert [origin.primitive for origin in report.harmless] == ["exp"]
    assert "Harmless: NaN or Inf of exp" in str(report)


@pytest.mark.slow
@pytest.mark.long
def test_an_argument_that_is_not_finite():
    report = fn.explain_nonfinite(lambda p, x: jnp.sum(p["w"] * x))(
        {"w": jnp.array([1.0, jnp.nan])}, jnp.ones(2)
    )
    assert report.origin.argument == "p['w']"
    assert report.origin.phase == "argument"
    assert report.origin.element == (1,)
    assert "before the function begins" in report.hint


@pytest.mark.slow
@pytest.mark.long
def test_what_is_written_so():
    where = fn.explain_nonfinite(lambda x: jnp.sum(jnp.where(x > 0, x, jnp.nan)))(X)
    assert where.origin.primitive == "select_n"
    assert where.origin.element == (1,)
    plain = fn.explain_nonfinite(lambda x: jnp.where(x > 0, x, jnp.inf))(X)
    assert plain
    assert plain.origin is None
    assert "It is written so" in str(plain)


def test_a_harmless_place_beside_what_is_written_so():
    def masked(x):
        y = jax.lax.stop_gradient(jnp.exp(-1 / x))
        return jnp.where(x > 5, y, -jnp.inf)

    report = fn.explain_nonfinite(masked)(0.0)
    assert report.origin is None
    assert "It is written so" in str(report)
    assert {place.primitive for place in report.harmless} == {"div"}


@pytest.mark.slow
@pytest.mark.long
def test_a_row_that_is_masked_everywhere():
    def f(x):
        scores = jnp.where(jnp.arange(3)[:, None] == 1, -jnp.inf, jnp.outer(x, x))
        weights = jnp.exp(scores - scores.max(-1, keepdims=True))
        return jnp.sum(weights / weights.sum(-1, keepdims=True))

    report = fn.explain_nonfinite(f)(X)
    assert report.origin.primitive == "sub"
    assert report.origin.element[0] == 1
    assert "Inf minus Inf" in report.hint


@pytest.mark.slow
@pytest.mark.long
def test_a_seed_and_wrt():
    def f(w, x):
        return jnp.sqrt(w) * x

    w, x = jnp.array([1.0, 0.0]), jnp.ones(2)
    assert "Pass seed=" in fn.explain_nonfinite(f)(w, x).note
    assert fn.explain_nonfinite(f, seed=jnp.ones(2))(w, x).poisoned[0].name == "the gradient of w"
    assert not fn.explain_nonfinite(f, wrt=1, seed=jnp.ones(2))(w, x)
    assert "no argument has a floating dtype" in fn.explain_nonfinite(lambda i: i * 1.0)(2).note


@pytest.mark.slow
@pytest.mark.long
def test_a_layer_is_named():
    net = fn.serial(fn.Dense(4), fn.relu, head=fn.serial(fn.Dense(2), fn.pure(jnp.log)))
    x = jnp.ones((2, 3))
    params, _ = net.init(jax.random.key(0), x)
    params["head"]["dense"]["w"] *= 0
    report = fn.explain_nonfinite(lambda params, x: jnp.sum(net(params, x)), wrt=0)(params, x)
    assert report.origin.layer.startswith("head/")
    assert report.origin.primitive == "log"


def test_refusals():
    with pytest.raises(TypeError, match=r"expected a function, got 3\. Write explain_nonfinite"):
        fn.explain_nonfinite(3)
    with pytest.raises(TypeError, match=r"expected an array as a, got a ShapeDtypeStruct"):
        fn.explain_nonfinite(jnp.sum)(jax.ShapeDtypeStruct((3,), jnp.float32))
    with pytest.raises(TypeError, match=r"Call it outside of jit, grad and vmap"):
        jax.jit(lambda x: jnp.float32(bool(fn.explain_nonfinite(jnp.sum)(x))))(X)


@pytest.mark.parametrize(
    ("f", "x", "said"),
    [
        (lambda x: 0.0 * jnp.sqrt(x), 0.0, "The derivative of sqrt is multiplied by 0 there"),
        (lambda x: jnp.sqrt(jnp.sum(x**2)), np.zeros(2), "The slope of a norm at 0 is 0/0"),
        (lambda x: jnp.where(x > 0, jnp.sin(jnp.sqrt(x)), 0.0), 0.0, "(the double where)"),
        (lambda x: jnp.linalg.eigh(x)[1].sum(), np.eye(2), "their vectors have no derivative"),
    ],
)
def test_a_hint_names_where_only_where_one_stands(f, x, said):
    hint = fn.explain_nonfinite(f)(x).hint
    assert said in hint
    assert ("`where`" in hint) == ("double where" in said)


def test_a_callback_has_no_gradient():
    def called(x):
        return jnp.log(jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), np.float32), x))

    report = fn.explain_nonfinite(called)(0.0)
    assert report.origin.primitive == "log"
    assert report.note.endswith("JAX has none here (Pure callbacks do not support JVP).")


def test_the_command_of_more_outputs_than_one_number(tmp_path, capsys):
    model = tmp_path / "model.py"
    model.write_text("def f(x):\n    return x * 2.0\n")
    assert main(["explain", f"{model}:f", "--args", "[1, 2]"]) == 0
    assert "The output of f is finite." in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.long
def test_the_command(tmp_path, capsys):
    model = tmp_path / "model.py"
    model.write_text("import jax.numpy as jnp\ndef f(x):\n    return jnp.log(x).sum()\n")
    page = tmp_path / "page.html"
    assert main(["explain", f"{model}:f", "--args", "[0, 1]", "--html", str(page)]) == 1
    assert "model.py:3, in log" in capsys.readouterr().out
    assert "model.py:3" in page.read_text()
    assert main(["explain", f"{model}:f", "--args", "[1, 2]"]) == 0
    assert "are finite" in capsys.readouterr().out


def root_loss(output, target):
    y = jnp.abs(output - target)
    return jnp.mean(jnp.where(target > 50, jnp.log(target - 60.0), y))


def fitted(on_nonfinite, bad=(17,), **options):
    x = np.linspace(-1, 1, 32, dtype=np.float32)[:, None]
    y = 2 * x + 1
    y[list(bad)] = 60.0
    return fn.fit(
        fn.Dense(1), root_loss, optax.adam(1e-2), (x, y), epochs=2, batch=4, progress=False,
        on_nonfinite=on_nonfinite, **options,
    )  # fmt: skip


def finite(tree):
    return all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def test_fit_explains_the_step_that_failed(capsys):
    run = fitted("explain")
    assert run.stopped == "not finite"
    assert finite(run.state)
    origin = run.nonfinite.origin
    assert origin.primitive == "log"
    assert origin.type == "float32[4,1]"
    taken = int(run.state.step)
    assert 0 <= taken < 8, "the state is that before the step"
    assert [row["step"] for row in run.history.rows] == [taken] * bool(taken)
    assert all(np.isfinite(row["loss"]) for row in run.history.rows)


@pytest.mark.slow
@pytest.mark.long
def test_fit_stops_where_it_explains():
    stopped, told = fitted("stop"), fitted("explain")
    assert stopped.nonfinite is None
    assert stopped.stopped == "not finite"
    jax.tree.map(np.testing.assert_array_equal, stopped.state, told.state)


@pytest.mark.slow
@pytest.mark.long
def test_fit_skips_a_step():
    run = fitted("skip")
    assert run.stopped is None
    assert finite(run.state)
    assert int(run.state.step) == 16
    assert [row["skipped"] for row in run.history.rows] == [1, 1]
    assert all(np.isfinite(row["loss"]) for row in run.history.rows)
    everything = fitted("skip", bad=range(32))
    assert everything.stopped == "not finite"
    assert everything.history.rows == ()


@pytest.mark.slow
@pytest.mark.long
def test_a_guard_changes_nothing_where_all_is_finite():
    plain, guarded = fitted(None, bad=()), fitted("stop", bad=())
    jax.tree.map(np.testing.assert_array_equal, plain.state, guarded.state)
    assert guarded.stopped is None
    assert len(guarded.history.rows) == 2


@pytest.mark.slow
@pytest.mark.long
def test_an_update_that_overflows_is_explained():
    x = np.ones((8, 1), np.float32)
    run = fn.fit(
        fn.Dense(1), lambda y, t: jnp.mean(1e20 * (y - t)), optax.sgd(1e30), (x, x), epochs=1,
        batch=4, progress=False, on_nonfinite="explain",
    )  # fmt: skip
    assert run.stopped == "not finite"
    assert run.nonfinite
    assert run.nonfinite.poisoned[0].name.startswith("the output")


def test_fit_refuses_another_word():
    with pytest.raises(ValueError, match=r"on_nonfinite to be 'explain', 'stop', 'skip' or None"):
        fitted("ignore")
