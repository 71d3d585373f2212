"""What holds for every op, in each of its cases: one table, one test a property."""

import functools
import itertools

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet.rules.prove import LIMITS, cast, drawn, prove

from .cases import OPS, RULES, TRANSFORMED, OpCase

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
COARSER = tuple(dtype for dtype in LIMITS if dtype not in ("float64", "float16"))
every_op = pytest.mark.parametrize("row", OPS)
transformed = pytest.mark.parametrize("row", TRANSFORMED)


def floating(x) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def split(args):
    """The floating leaves of the arguments, and how to put others in their place."""
    leaves, tree = jax.tree.flatten(args)
    places = [i for i, leaf in enumerate(leaves) if floating(leaf)]

    def fill(floats):
        filled = list(leaves)
        for i, x in zip(places, floats, strict=True):
            filled[i] = x
        return tree.unflatten(filled)

    return [leaves[i] for i in places], fill


def probe(y):
    """A scalar of an op's output whose gradient differs at each element."""
    leaves = [leaf for leaf in jax.tree.leaves(y) if floating(leaf)]
    return sum((leaf * jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape)).sum() for leaf in leaves)


def value_and_gradients(f, case, args):
    floats, fill = split(args)

    def scalar(floats):
        y = f(*fill(floats), **case.static)
        return probe(y), y

    gradients, y = jax.grad(scalar, has_aux=True)(floats)
    return y, gradients


def squared_gradient(f, case, args):
    floats, fill = split(args)

    def scalar(floats):
        _, gradients = value_and_gradients(f, case, fill(floats))
        return sum((g * g).sum() for g in gradients)

    return jax.grad(scalar)(floats)


def stack(*trees):
    def one(*xs):
        return np.stack(xs) if isinstance(xs[0], np.ndarray | np.generic) else jnp.stack(xs)

    return jax.tree.map(one, *trees)


class Programs:
    """What is compiled of one case in float64, once for all of its tests.

    Attributes:
        draws: Three draws of the arguments.
        traced: How often `alone` was traced.
    """

    def __init__(self, row):
        self.row = row
        self.draws = [drawn(row.case, i) for i in range(3)]
        self.traced = 0

    @functools.cached_property
    def alone(self):
        """From arguments to the value and the gradients."""

        @jax.jit
        def program(args):
            self.traced += 1
            return value_and_gradients(self.row.rule.op, self.row.case, args)

        return lambda args: jax.device_get(program(args))

    @functools.cached_property
    def expected(self):
        return self.alone(self.draws[0])

    @functools.cached_property
    def plain(self):
        """Without rules: the value, the change along a direction by forward mode, the direction."""
        rule, case, args = self.row.rule, self.row.case, self.draws[0]
        floats, fill = split(args)
        held = [x for name, x in zip(rule.arguments, args, strict=True) if name in rule.nodiff]
        held_leaves = {id(leaf) for leaf in jax.tree.leaves(held)}
        directions = [
            np.sin(1.0 + np.arange(x.size)).reshape(x.shape).astype(x.dtype)
            * (id(x) not in held_leaves)
            for x in floats
        ]

        def scalar(floats):
            y = rule.op(*fill(floats), **case.static)
            return probe(y), y

        @jax.jit
        def program(floats, directions):
            return jax.jvp(fn.autodiff(scalar), (floats,), (directions,), has_aux=True)

        _, along, value = jax.device_get(program(floats, directions))
        return value, along, directions

    def drawn_anew(self, places):
        """Three times the arguments: those at `places` of each draw, all others of the first."""
        return [
            tuple((draw if i in places else self.draws[0])[i] for i in range(len(draw)))
            for draw in self.draws
        ]

    @functools.cached_property
    def mapped(self):
        """The places of what is mapped at a time: each argument in an op's first case, or all."""
        there = tuple(i for i, argument in enumerate(self.draws[0]) if argument is not None)
        first = self.row.name == next(iter(self.row.rule.cases))
        return [(i,) for i in there] if first else [there]

    @functools.cached_property
    def transformed(self):
        """Under vmap over `mapped`; and gradients of gradients, by hand and derived."""
        rule, case, first = self.row.rule, self.row.case, self.draws[0]

        def along(places, args):
            axes = tuple(0 if i in places else None for i in range(len(args)))
            each = functools.partial(value_and_gradients, rule.op, case)
            return jax.vmap(lambda *args: each(args), axes)(*args)

        @jax.jit
        def program(stacked, args):
            mapped = [along(places, x) for places, x in zip(self.mapped, stacked, strict=True)]
            return mapped, *(squared_gradient(f, case, args) for f in (rule.op, rule.primal))

        stacked = []
        for places in self.mapped:
            draws = zip(*self.drawn_anew(places), strict=True)
            stacked.append(
                tuple(stack(*xs) if i in places else xs[0] for i, xs in enumerate(draws))
            )
        return jax.device_get(program(stacked, first))


@functools.cache
def _programs(op, case):
    return Programs(OpCase(fn.RULES[op], case, fn.RULES[op].cases[case]))


def programs(row):
    return _programs(row.rule.name, row.name)


def assert_equal(a, b, tolerance=1e-10):
    chex.assert_trees_all_equal_shapes_and_dtypes(a, b)
    chex.assert_trees_all_close(a, b, rtol=tolerance, atol=tolerance)


def failures(row, *dtypes):
    alone = row.rule._replace(cases={row.name: row.case})
    return [proof for proof in prove(alone, *dtypes) if not proof.ok]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_first_cases_are_proved(rule):
    """In float64; `funcnet check` proves all of them."""
    cases = dict(itertools.islice(rule.cases.items(), 2))
    proofs = prove(rule._replace(cases=cases))
    assert not [proof for proof in proofs if not proof.ok]
    assert {proof.case for proof in proofs} == set(cases)


@pytest.mark.slow
@pytest.mark.long
@every_op
def test_rule_is_proved_in_coarser_dtypes(row):
    assert not failures(row, *COARSER)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_op_has_cases_and_derivation_and_meets_an_empty_array(rule):
    assert rule.cases
    assert rule.derivation
    sizes = [leaf.size for case in rule.cases.values() for leaf in jax.tree.leaves(drawn(case))]
    assert 0 in sizes


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_primal_is_plain(rule):
    """An oracle that ran other hand-written rules would not be independent."""
    case = next(iter(rule.cases.values()))
    args = drawn(case)
    jaxpr = jax.make_jaxpr(lambda *args: rule.primal(*args, **case.static))(*args)
    assert "custom_vjp_call" not in str(jaxpr)


@pytest.mark.slow
@pytest.mark.long
@every_op
def test_adjoint_identity(row, x64):
    """The inner products agree: with v any direction, dy of J v equals v of the gradient."""
    built = programs(row)
    _, gradients = built.expected
    _, along, directions = built.plain
    assert_equal(along, np.sum([np.vdot(g, v) for g, v in zip(gradients, directions, strict=True)]))


@transformed
def test_jit_compiles_once(row, x64):
    built = programs(row)
    for draw in built.draws[:2]:
        built.alone(draw)
    assert built.traced == 1


@transformed
def test_without_jit_the_value_is_the_same(row, x64):
    built = programs(row)
    value, _ = built.expected
    assert_equal(value, row.rule.op(*built.draws[0], **row.case.static))


@transformed
def test_vmap_over_each_argument_or_all(row, x64):
    built = programs(row)
    found, *_ = built.transformed
    for places, result in zip(built.mapped, found, strict=True):
        assert_equal(result, stack(*map(built.alone, built.drawn_anew(places))))


@pytest.mark.long
@every_op
def test_scan_cond_and_remat(row, x64):
    args, expected = programs(row).draws[0], programs(row).expected

    def op(*args, **static):
        return jax.checkpoint(lambda *args: row.rule.op(*args, **static))(*args)

    def body(carry, _):
        here = jax.lax.cond(
            carry,
            lambda args: value_and_gradients(op, row.case, args),
            lambda args: jax.tree.map(jnp.zeros_like, expected),
            args,
        )
        return carry, here

    _, stacked = jax.lax.scan(body, jnp.bool_(True), None, length=2)
    assert_equal(jax.tree.map(lambda leaf: leaf[1], jax.device_get(stacked)), expected)


@transformed
def test_gradient_of_gradient(row, x64):
    _, by_hand, derived = programs(row).transformed
    assert_equal(by_hand, derived, 1e-9)


@every_op
def test_gradient_lowers_for_every_platform(row):
    args = drawn(row.case)
    floats, _ = split(args)

    def gradients(floats, rest):
        return value_and_gradients(row.rule.op, row.case, fill_in(rest, floats))

    leaves, tree = jax.tree.flatten(args)

    def fill_in(rest, floats):
        floats, rest = list(floats), list(rest)
        return tree.unflatten([floats.pop(0) if floating(x) else rest.pop(0) for x in leaves])

    rest = [leaf for leaf in leaves if not floating(leaf)]
    exported = jax.export.export(jax.jit(gradients), platforms=PLATFORMS)(floats, rest)
    assert exported.platforms == PLATFORMS


@pytest.mark.slow
@pytest.mark.long
@every_op
def test_without_rules_the_value_is_the_same(row, x64):
    built = programs(row)
    value, *_ = built.plain
    assert_equal(value, built.expected[0])


def test_cast_leaves_integers_and_keys(key):
    tree = cast({"x": jnp.ones(2), "ids": jnp.arange(2), "key": key}, "bfloat16")
    assert [str(leaf.dtype) for leaf in jax.tree.leaves(tree)] == ["int32", "key<rbg>", "bfloat16"]
