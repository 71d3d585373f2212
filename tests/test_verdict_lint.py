"""`fn.lint`: traps on the right line, rewrites that work, and silence where all is well."""

# pyright: reportOptionalMemberAccess=false

import functools
import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet.__main__ import main
from funcnet.jaxpr import jaxprs
from funcnet.jaxpr.walk import walk
from funcnet.verdicts.lint.graph import Graph, Node
from funcnet.verdicts.lint.ranges import PLAIN, Range

from .verdicts.healthy import NETWORKS, losses
from .verdicts.lint import gradients, judge, repaired
from .verdicts.plain import LOSSES
from .verdicts.traps import TRAPS

LONG = [pytest.mark.slow, pytest.mark.long]
BY_NAME = {trap.f.__name__: trap for trap in TRAPS}
X, KEY = jnp.ones(3), jax.random.key(0)


def shapes(args):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), args)


def kinds(f, *args, **options):
    return [finding.kind for finding in fn.lint(f, **options)(*args)]


@pytest.mark.parametrize("name", BY_NAME)
def test_a_reported_trap_is_found_by_shapes_alone(name):
    trap = BY_NAME[name]
    report = fn.lint(trap.f)(*shapes(trap.args))
    assert {g.line for g in report} & trap.lines("culprit")
    assert not report.happening
    assert not report.counted


@pytest.mark.parametrize(
    "name",
    [
        name if name in ("length_where", "norm_at_least") else pytest.param(name, marks=LONG)
        for name in BY_NAME
    ],
)
def test_a_reported_trap_is_found_where_it_is_and_rewritten(name):
    marks = judge(BY_NAME[name])
    assert all(marks.values()), marks


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_guarded_is_not_told_of(name):
    loss, args = LOSSES[name]
    assert not fn.lint(loss, wrt=0)(*shapes(args))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", [*LOSSES, *NETWORKS])
def test_healthy_networks_have_no_finding(name):
    _, loss, args = next(losses((name,))) if name in NETWORKS else (name, *LOSSES[name])
    assert not fn.lint(loss, wrt=0)(*args)
    assert not fn.lint(loss, wrt=0)(*shapes(args))


def test_what_a_finding_says():
    trap = BY_NAME["length_where"]
    report = fn.lint(trap.f)(*trap.args)
    (found,) = report
    assert (found.kind, found.severity, found.hit) == ("where-masks-singular", "happens", (1, 3))
    assert {found.line} == trap.lines("culprit")
    assert {found.mask.line} == trap.lines("mask")
    assert found.file.endswith("verdicts/traps.py")
    assert found.mask.file == found.file
    assert "masks what line" in found.what
    assert "the argument is 0 or less" in found.what
    root = "jnp.sqrt(jnp.where(operand > 0, operand, 1.0))"
    squares = "(operand := jnp.sum(x ** 2, axis=1))"
    assert found.rewrite == f"jnp.where({squares} > 0, {root}, 0.0)"


def masked(total, n):
    return jnp.where(n > 0, total / n, 0.0)


def in_scan(total, n):
    return jax.lax.scan(lambda c, x: (c + masked(*x), None), 0.0, (total, n))[0]


def in_cond(total, n):
    run = lambda: jnp.sum(masked(total, n))  # noqa: E731  # a branch
    return jax.lax.cond(total[0] > -1, run, lambda: 0.0)


def in_other_branch(total, n):
    run = lambda: jnp.sum(masked(total, n))  # noqa: E731  # a branch
    return jax.lax.cond(total[0] > -1, lambda: 0.0, run)


PLACES = {
    "jit": jax.jit(lambda total, n: jnp.sum(masked(total, n))),
    "vmap": lambda total, n: jnp.sum(jax.vmap(masked)(total, n)),
    "remat": jax.checkpoint(lambda total, n: jnp.sum(masked(total, n))),
    "scan": in_scan,
    "cond": in_cond,
}


@pytest.mark.parametrize(
    "place", [name if name == "scan" else pytest.param(name, marks=LONG) for name in PLACES]
)
def test_it_counts_inside(place):
    args = jnp.ones(3), jnp.array([1.0, 0.0, 0.0])
    (found,) = fn.lint(PLACES[place])(*args)
    assert (found.kind, found.hit) == ("where-masks-singular", (2, 3))
    assert found.line == masked.__code__.co_firstlineno + 1
    assert not gradients(PLACES[place], args)[1]


@pytest.mark.slow
@pytest.mark.long
def test_a_branch_that_is_not_taken_is_possible():
    (found,) = fn.lint(in_other_branch)(jnp.ones(3), jnp.array([1.0, 0.0, 0.0]))
    assert (found.severity, found.hit) == ("possible", None)


def untouched(p, x):
    hidden = x @ jax.lax.stop_gradient(p["stopped"])
    whole = p["whole"].astype(int) + (p["compared"] > 0)
    return jnp.sum(hidden * whole) + jnp.sum(jnp.round(p["rounded"]) * p["fine"])


def test_arguments_without_a_gradient_and_why():
    p = {"stopped": jnp.ones((3, 2)), "unused": jnp.ones(2), "fine": jnp.ones(2)}
    p |= {name: jnp.ones(2) for name in ("whole", "compared", "rounded")}
    said = {g.what.split(" gets")[0]: g.what for g in fn.lint(untouched)(*shapes((p, X)))}
    assert "the output does not depend on it" in said.pop("p['unused']")
    assert "stop_gradient in test_verdict_lint.py:" in said.pop("p['stopped']")
    assert "conversion to int32" in said.pop("p['whole']")
    assert "comparison" in said.pop("p['compared']")
    assert "rounding, whose slope is 0" in said.pop("p['rounded']")
    assert not said


def test_only_what_wrt_names_has_to_have_a_gradient():
    f = lambda a, b: jnp.sum(b)  # noqa: E731  # two arguments
    assert kinds(f, *shapes((X, X))) == ["no-gradient"]
    assert kinds(f, *shapes((X, X)), wrt=1) == []


def both(x):
    return jnp.sum(jnp.where(x**2 >= 0, x, 3 * x))


def never(x):
    return jnp.sum(jax.nn.relu(-(x**2)))


def test_an_argument_without_floating_numbers_may_come_first():
    f = lambda key, mode, w: jnp.sum(jax.random.normal(key, (3,)) * jax.lax.stop_gradient(w))  # noqa: E731  # short
    (found,) = fn.lint(f)(KEY, "train", X)
    assert found.what.startswith("w gets no gradient")


def test_branches_that_are_never_taken():
    assert kinds(both, *shapes((X,))) == kinds(never, *shapes((X,))) == ["dead-branch"]


def twice(x, key):
    return jnp.sum(x * jax.random.normal(key, x.shape) + jax.random.uniform(key, x.shape))


def in_each(x, key):
    return jax.lax.fori_loop(0, 3, lambda i, x: x + jax.random.normal(key, x.shape), x).sum()


def split_and_drawn(x, key):
    own, _ = jax.random.split(key)
    return jnp.sum(x * jax.random.normal(own, x.shape)) + jax.random.normal(key, ())


def folded(x, key):
    def step(i, x):
        return x + jax.random.normal(jax.random.fold_in(key, i), x.shape)

    return jax.lax.fori_loop(0, 3, step, x).sum()


def parted(x, key):
    first, second = jax.random.split(key)
    y = x * jax.random.normal(first, x.shape) + jax.random.uniform(second, x.shape)
    return jnp.sum(jax.lax.cond(y[0] > 0, lambda: y, lambda: y * 2))


def one_of_two(x, key):
    draw = functools.partial(jax.random.normal, key, x.shape)
    return jnp.sum(x * jax.lax.cond(x[0] > 0, draw, lambda: 2 * draw()))


@pytest.mark.parametrize("key", [KEY, jax.random.PRNGKey(0)], ids=["new", "old"])
def test_a_random_key_is_for_one_draw(key):
    for f in (twice, in_each, split_and_drawn):
        assert kinds(f, X, key) == ["key-reused"], f
    for f in (folded, parted, one_of_two):
        assert kinds(f, X, key) == [], f
    (found,) = fn.lint(split_and_drawn)(X, key)
    assert found.what.endswith("drawn from here: what is drawn may depend on what is split off.")


def small_logs(x):
    return jnp.sum(jnp.log(1 + x**2) + (jnp.exp(x) - 1))


def running(xs):
    total, _ = jax.lax.scan(lambda c, x: (c + x, None), jnp.zeros((), xs.dtype), xs)
    return total.astype(jnp.float32)


def numbered(x):
    return jnp.sum(x * (jnp.arange(70_000) * 70_000 > 3))


TABLE = np.ones((2000, 2000), np.float32)


def closed_over(x):
    return jnp.sum(TABLE @ x)


def test_digits_that_are_lost():
    found = fn.lint(small_logs)(*shapes((X,)))
    assert {g.rewrite for g in found} == {"jnp.log1p(x ** 2)", "jnp.expm1(x)"}
    (found,) = fn.lint(running)(*shapes((jnp.ones(300, jnp.bfloat16),)))
    assert found.kind == "narrow-sum"
    assert "at 256 times a term" in found.what
    assert kinds(running, *shapes((jnp.ones(200, jnp.bfloat16),))) == []
    assert kinds(numbered, *shapes((jnp.ones(70_000),))) == ["integer-overflow"]
    (found,) = fn.lint(closed_over)(*shapes((jnp.ones(2000),)))
    assert (found.kind, found.severity) == ("captured-constant", "happens")
    assert "16.0 MB" in found.what


@jax.custom_vjp
def foreign(x):
    return jnp.where(x > 0, jnp.sqrt(x), 0.0)


foreign.defvjp(lambda x: (foreign(x), x), lambda x, dy: (dy * (x > 0),))


def test_a_custom_rule_decides_for_itself():
    assert kinds(lambda x: jnp.sum(foreign(x)), *shapes((X,))) == []


def test_the_report():
    trap = BY_NAME["root_where"]
    report = fn.lint(trap.f)(*trap.args)
    assert report
    assert len(report) == 1
    assert [*report] == [*report.findings]
    text = str(report)
    assert text.startswith("root_where: 1 trap with these arguments, 1 that happens.")
    assert max(map(len, text.splitlines())) <= 100
    assert "happens at 1 of 3 elements" in text
    assert "Write: jnp.sqrt(" in text
    assert "<h1>lint of root_where</h1>" in report.html()
    assert repaired(trap.f, trap.args) is not trap.f
    quiet = fn.lint(jnp.sin)(*shapes((X,)))
    assert not quiet
    assert str(quiet) == "sin: no trap found with arguments of these shapes."


def test_what_it_refuses():
    with pytest.raises(
        ValueError, match=r"^lint: expected wrt among the arguments 0 to 0, got 3\."
    ):
        fn.lint(jnp.sin, wrt=3)(1.0)
    with pytest.raises(TypeError, match=r"^lint: expected wrt to name arguments of a floating"):
        fn.lint(lambda n: n, wrt=0)(jnp.arange(3))
    with pytest.raises(ValueError, match=r"^lint: expected a function that returns \(loss, aux\)"):
        fn.lint(jnp.sin, has_aux=True)(1.0)
    with pytest.raises(TypeError, match=r"^lint: expected a function, got 3\."):
        fn.lint(3)(1.0)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_margins_are_not_rounded_away(dtype):
    for f, edge in (
        (lambda x: jnp.log(x), 0.0), (lambda x: jnp.log1p(x), -1.0), (lambda x: jnp.arccos(x), 1.0),
        (lambda x: jnp.arctanh(x), 1.0), (lambda x: jnp.arccosh(x), 1.0),
    ):  # fmt: skip
        x = jnp.asarray(edge, dtype)
        (found,) = fn.lint(f)(x)
        kept = re.fullmatch(r"jnp\.\w+\((.*)\)", found.rewrite).group(1)
        assert eval(kept, {"jnp": jnp, "x": x}) != edge, found.rewrite


def test_tracers_are_shapes():
    found = []
    jax.vmap(lambda x: found.extend(fn.lint(jnp.log)(x)))(X)
    jax.vmap(lambda c: found.extend(fn.lint(lambda x: jnp.sqrt(x * c))(0.0)))(X)
    assert [finding.severity for finding in found] == ["possible", "possible"]


def test_aux_needs_no_gradient():
    f = lambda x: (jnp.sum(x), jnp.sqrt(jnp.sum(x**2)))  # noqa: E731  # loss and a figure
    assert kinds(f, *shapes((X,)), has_aux=True) == []
    assert kinds(f, *shapes((X,))) == ["singular"]


def test_the_command_says_what_the_page_shows(tmp_path, capsys):
    page = (Path(__file__).parent.parent / "docs" / "verdicts.md").read_text()
    called, shown = re.search(r"\$ funcnet (lint model.py.*)\n((?s:.*?))```", page).groups()
    function = re.search(r"def mean_of_each\(.*\n(?:    .*\n)+", page).group()
    file, html = tmp_path / "model.py", tmp_path / "page.html"
    file.write_text(f"import jax.numpy as jnp\n\n\n{function}")
    words = shlex.split(called.replace("model.py", str(file)))
    assert main([*words, "--html", str(html)]) == 1
    assert capsys.readouterr().out.strip() == shown.strip()
    assert "where-masks-singular" in html.read_text()
    assert main([*words[:-1], "[2.0, 1.0, 1.0]"]) == 0
    assert "1 possible" in capsys.readouterr().out


SAMPLES = (-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", [*PLAIN, "integer_pow", "sum", "where"])
def test_ranges_hold_what_is_computed(name):
    """Of arrays out of known intervals, results lie where they are said to."""
    f, count = PRIMITIVES[name]
    random = np.random.default_rng(0)
    spans = [(a, b) for a in SAMPLES for b in SAMPLES if a <= b]
    for trial in range(12):
        ends = [spans[i] for i in random.integers(0, len(spans), count)]
        arrays = [jnp.asarray(random.uniform(end[0], end[1], 64), jnp.float32) for end in ends]
        closed, _ = jaxprs.trace(f, *arrays)
        graph = Graph()
        inputs = [Node([], Range(*end)) for end in ends]
        (found,) = walk(closed, inputs, graph)
        y = np.asarray(f(*arrays), np.float64)
        y = y[np.isfinite(y)]
        near = 1e-5 * np.abs(y) + 1e-6
        assert (y >= found.range.low - near).all(), trial
        assert (y <= found.range.high + near).all(), trial


BINARY = {"add", "sub", "mul", "div", "max", "min", "atan2", "pow"}
BINARY |= {"lt", "le", "gt", "ge", "eq", "ne"}
PRIMITIVES = {
    name: (getattr(jax.lax, name), 2 if name in BINARY else 1)
    for name in PLAIN
    if hasattr(jax.lax, name)
}
PRIMITIVES |= {
    "log2": (jnp.log2, 1),
    "integer_pow": (lambda x: x**3 + x**-2, 1),
    "sum": (lambda x: jnp.cumsum(x) + jnp.sum(x * x), 1),
    "where": (lambda x, y: jnp.where(x > y, x, jnp.abs(y)), 2),
    "add_any": (lambda x, y: x + y, 2),
    "clamp": (lambda x, y: jnp.clip(x, y, y + 1), 2),
    "not": (lambda x: ~(x > 0), 1),
    "reduce_or": (lambda x: (x > 0).any(), 1),
    "reduce_and": (lambda x: (x > 0).all(), 1),
}
