"""Functions with a NaN or an Inf: each cause in each form, and some where it does no harm.

A cause is a function of three numbers of which the second, in the row that is `BAD`, is one that it
cannot take. The line to blame ends in `# born`. A form calls it for four rows, or for one.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

ROWS, BAD = 4, 2


class Cause(NamedTuple):
    """A function that goes wrong.

    Attributes:
        f: From three numbers to three numbers, or to one.
        bad: The number it cannot take, in the middle.
        good: One that it can.
        backward: Whether it is the gradient alone that goes wrong.
        element: Where, in what the line computes.
        whole: Whether all three numbers are bad.
    """

    f: Callable
    bad: float
    good: float = 0.5
    backward: bool = True
    element: tuple[int, ...] = (1,)
    whole: bool = False

    @property
    def line(self) -> int:
        """The line to blame."""
        lines, first = inspect.getsourcelines(getattr(self.f, "__wrapped__", self.f))
        (at,) = [n for n, line in enumerate(lines) if "# born" in line]
        return first + at

    def rows(self) -> jax.Array:
        """Four rows, of which one is bad."""
        x = np.full((ROWS, 3), self.good, np.float32) + np.arange(3, dtype=np.float32) / 64
        x[BAD, slice(None) if self.whole else 1] = self.bad
        return jnp.asarray(x)


def root_masked(x):
    y = jnp.sqrt(x)  # born
    return jnp.where(x > 0, y, 0.0)


def log_masked(x):
    safe = x > 0
    y = jnp.log(x)  # born
    return jnp.where(safe, y, 0.0)


def quotient_masked(x):
    y = jnp.sin(x) / x  # born
    return jnp.where(x == 0, 1.0, y)


def exp_masked(x):
    y = jnp.exp(x)  # born
    return jnp.where(x < 80, y, x)


def power_masked(x):
    y = x**0.3  # born
    return jnp.where(x > 0, y, 0.0)


def root(x):
    return jnp.sqrt(x)  # born


def norm(x):
    squares = jnp.square(x)
    return jnp.sqrt(jnp.sum(squares))  # born


def norm_of_jax(x):
    return jnp.linalg.norm(x)  # born


def arc(x):
    return jnp.arccos(x)  # born


def angle(x):
    y = x - x
    return jnp.arctan2(y * x, x)  # born


def log_of_zero(x):
    y = x * 2
    return jnp.log(y)  # born


def zero_by_zero(x):
    y = x - 0.0
    return jnp.sin(x) / y  # born


def naive_softmax(x):
    e = jnp.exp(x)  # born
    return e / e.sum()


def difference(x):
    y = 2 * x
    return (jnp.cosh(y) - jnp.sinh(y)) * x  # born


def log_of_one_less(x):
    return jnp.log1p(-x)  # born


def root_below_zero(x):
    y = jnp.sqrt(x)  # born
    return y * 2


def small_dtype(x):
    y = x.astype(jnp.float16)  # born
    return y.astype(jnp.float32) * 0.5


def product_in_half(x):
    y = x.astype(jnp.float16)
    z = y * y  # born
    return z.astype(jnp.float32)


def product_in_bfloat(x):
    y = x.astype(jnp.bfloat16)
    z = y * jnp.bfloat16(1e38)  # born
    return z.astype(jnp.float32) * 1e-30


def sum_in_half(x):
    y = x.astype(jnp.float16)
    total = jnp.sum(y)  # born
    return total.astype(jnp.float32)


def index_that_overflows(x):
    steps = jnp.asarray(x, jnp.int8) * jnp.int8(100)
    return x * jnp.take(jnp.arange(3.0), steps, mode="fill")  # born


@jax.custom_vjp
def _bad_rule(x):
    return x**2


def _bad_rule_forward(x):
    return x**2, x


def _bad_rule_backward(x, dy):
    slope = 2 * x * x / x  # born
    return (dy * slope,)


_bad_rule.defvjp(_bad_rule_forward, _bad_rule_backward)


def bad_rule(x):
    return _bad_rule(x)


bad_rule.__wrapped__ = _bad_rule_backward


CAUSES = {
    cause.f.__name__: cause
    for cause in (
        Cause(root_masked, 0.0),
        Cause(log_masked, 0.0),
        Cause(quotient_masked, 0.0),
        Cause(exp_masked, 200.0),
        Cause(power_masked, 0.0),
        Cause(root, 0.0),
        Cause(norm, 0.0, element=(), whole=True),
        Cause(norm_of_jax, 0.0, element=(), whole=True),
        Cause(arc, 1.0),
        Cause(angle, 0.0),
        Cause(bad_rule, 0.0),
        Cause(log_of_zero, 0.0, backward=False),
        Cause(zero_by_zero, 0.0, backward=False),
        Cause(naive_softmax, 100.0, backward=False),
        Cause(difference, 60.0, backward=False),
        Cause(log_of_one_less, 1.0, backward=False),
        Cause(root_below_zero, -1.0, backward=False),
        Cause(small_dtype, 1e5, backward=False),
        Cause(product_in_half, 300.0, backward=False),
        Cause(product_in_bfloat, 4.0, backward=False),
        Cause(sum_in_half, 4e4, backward=False, element=(), whole=True),
        Cause(index_that_overflows, 2.0, backward=False),
    )
}


class Bug(NamedTuple):
    """A function that goes wrong, and where.

    Attributes:
        f: A function of all rows.
        cause: What is wrong.
        iteration: The iteration of each loop around it.
        element: Where, in what the line computes.
        differentiable: Whether `jax.grad` takes it.
        form: How the cause is called: a key of `FORMS`.
    """

    f: Callable
    cause: Cause
    iteration: tuple[int, ...]
    element: tuple[int, ...]
    differentiable: bool = True
    form: str = ""


def unrolled(cause: Cause) -> Bug:
    def f(x):
        total = 0.0
        for i in range(ROWS):
            total = total + jnp.sum(cause.f(x[i]) * (i + 1))
        return total

    return Bug(f, cause, (), cause.element)


def jitted(cause: Cause) -> Bug:
    inner = jax.jit(cause.f)
    return Bug(jax.jit(lambda x: jnp.sum(inner(x[BAD]))), cause, (), cause.element)


def scanned(cause: Cause) -> Bug:
    def f(x):
        return jax.lax.scan(lambda c, row: (c + jnp.sum(cause.f(row)), None), 0.0, x)[0]

    return Bug(f, cause, (BAD,), cause.element)


def scanned_twice(cause: Cause) -> Bug:
    def f(x):
        def outer(c, rows):
            def inner(c, row):
                return c + jnp.sum(cause.f(row)), row

            return jax.lax.scan(inner, c, rows, reverse=True)

        return jax.lax.scan(outer, 0.0, x.reshape(2, ROWS // 2, 3))[0]

    return Bug(jax.jit(f), cause, divmod(BAD, ROWS // 2), cause.element)


def branched(cause: Cause) -> Bug:
    def f(x):
        return jnp.sum(jax.lax.cond(jnp.sum(x[0]) < 1e9, cause.f, lambda x: cause.f(x + 1), x[BAD]))

    return Bug(f, cause, (), cause.element)


def looped(cause: Cause) -> Bug:
    def f(x):
        def body(i, total):
            row = jax.lax.dynamic_index_in_dim(x, i, keepdims=False)
            return total + jnp.sum(cause.f(row))

        if cause.backward:
            return jax.lax.fori_loop(0, ROWS, body, 0.0)
        return jax.lax.while_loop(
            lambda state: state[0] < ROWS, lambda state: (state[0] + 1, body(*state)), (0, 0.0)
        )[1]

    return Bug(f, cause, (BAD,), cause.element, cause.backward)


def mapped(cause: Cause) -> Bug:
    return Bug(lambda x: jnp.sum(jax.vmap(cause.f)(x)), cause, (), (BAD, *cause.element))


def recomputed(cause: Cause) -> Bug:
    inner = jax.checkpoint(cause.f)
    return Bug(lambda x: jnp.sum(inner(x[BAD])), cause, (), cause.element)


def ruled(cause: Cause) -> Bug:
    """A custom rule whose two passes run the cause."""

    @jax.custom_vjp
    def op(x):
        return cause.f(x)

    def forward(x):
        return cause.f(x), x

    def backward(x, dy):
        return jax.vjp(cause.f, x)[1](dy)

    op.defvjp(forward, backward)
    return Bug(lambda x: jnp.sum(op(x[BAD])), cause, (), cause.element)


def ruled_and_scanned(cause: Cause) -> Bug:
    bug = ruled(cause)

    def f(x):
        def body(c, row):
            return c + bug.f(jnp.broadcast_to(row, x.shape)), None

        return jax.lax.scan(body, 0.0, x)[0]

    return Bug(f, cause, (BAD,), cause.element)


FORMS: dict[str, Callable[[Cause], Bug]] = {
    "unrolled": unrolled,
    "jit": jitted,
    "scan": scanned,
    "scan in scan": scanned_twice,
    "cond": branched,
    "while": looped,
    "vmap": mapped,
    "remat": recomputed,
    "custom rule": ruled,
    "custom rule in scan": ruled_and_scanned,
}


EVERYWHERE = ("root_masked", "exp_masked", "norm", "log_of_zero", "naive_softmax")
"""The causes that stand in every form; each other stands in two."""


def bugs() -> dict[str, Bug]:
    """The corpus: "root_masked in scan" and the like."""
    found = {}
    for n, (name, cause) in enumerate(CAUSES.items()):
        every = list(FORMS)
        two = [every[2 * n % len(every)], every[(2 * n + 3) % len(every)]]
        for form in every if name in EVERYWHERE else two:
            found[f"{name} in {form}"] = FORMS[form](cause)._replace(form=form)
    return found


class Harmless(NamedTuple):
    """A function whose value and gradient are finite, though something on the way is not."""

    f: Callable
    x: Any
    has_aux: bool = False


X = jnp.array([0.5, 0.0, 2.0])
ODD = jnp.array([1.0, math.nan, 2.0])


def _masked_softmax(x):
    scores = jnp.where(jnp.tri(3) > 0, jnp.outer(x, x), -jnp.inf)
    return jnp.sum(jax.nn.softmax(scores) ** 2)


def _hand_softmax(x):
    scores = jnp.where(jnp.tri(3) > 0, jnp.outer(x, x), -jnp.inf)
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    return jnp.sum((weights / weights.sum(-1, keepdims=True)) ** 2)


def _added_mask(x):
    scores = jnp.outer(x, x) + jnp.where(jnp.tri(3) > 0, 0.0, -jnp.inf)
    return jnp.sum(jax.nn.logsumexp(scores, -1))


def _least_so_far(x):
    return jax.lax.scan(lambda c, t: (jnp.minimum(c, t), None), jnp.array(jnp.inf), x)[0]


def _least_in_a_loop(x):
    def body(state):
        i, least = state
        return i + 1, jnp.minimum(least, jax.lax.stop_gradient(x)[i])

    return x.sum() + jax.lax.while_loop(lambda s: s[0] < 3, body, (0, jnp.inf))[1]


def _carry_that_is_reset(x):
    def body(c, t):
        c = jnp.where(t == 0, 1.0, c)
        return c * 1.0, jnp.where(t == 0, 0.0, t * c)

    return jnp.sum(jax.lax.scan(body, jnp.inf, jnp.concatenate([jnp.zeros(1), x]))[1])


def _double_where(x):
    y = jnp.log(jnp.where(x > 0, x, 1.0))
    return jnp.sum(jnp.where(x > 0, y, 0.0)) + 0 * jnp.sum(jnp.isinf(jnp.log(x)))


def _branch_not_taken(x):
    return jax.lax.cond(x[0] > 0, jnp.sum, lambda x: jnp.sum(jnp.log(x * 0)), x)


def _branches_of_a_batch(x):
    def one(t):
        return jax.lax.cond(t > 0, lambda t: t * 2, lambda t: t + 1 / jax.lax.stop_gradient(t), t)

    return jnp.sum(jnp.where(x > 0, jax.vmap(one)(x), 0.0))


def _remat_softmax(x):
    return jax.checkpoint(_hand_softmax)(x)


def _scanned_softmax(x):
    return jax.lax.scan(lambda c, t: (c + _hand_softmax(x * t), None), 0.0, x + 1.0)[0]


HARMLESS = {
    "mask of -inf before a softmax": Harmless(_masked_softmax, X),
    "the same by hand": Harmless(_hand_softmax, X),
    "the same under remat": Harmless(_remat_softmax, X),
    "the same in a scan": Harmless(_scanned_softmax, X),
    "mask of -inf that is added": Harmless(_added_mask, X),
    "logsumexp with -inf": Harmless(lambda x: jax.nn.logsumexp(jnp.append(x, -jnp.inf)), X),
    "minimum that begins at inf": Harmless(_least_so_far, X),
    "the same in a while loop": Harmless(_least_in_a_loop, X),
    "carry that is reset": Harmless(_carry_that_is_reset, X),
    "double where": Harmless(_double_where, X),
    "branch not taken": Harmless(_branch_not_taken, X),
    "branches of a batch": Harmless(_branches_of_a_batch, X),
    "logarithm behind stop_gradient": Harmless(
        lambda x: jnp.sum(jnp.where(x > 0, x, jax.lax.stop_gradient(jnp.log(x)))[jnp.array([0, 2])])
        + jnp.sum(x),
        X,
    ),
    "nan_to_num": Harmless(
        lambda x: jnp.sum(x * jnp.nan_to_num(jax.lax.stop_gradient(x / x))), X
    ),
    "exp(-exp(200))": Harmless(
        lambda x: jnp.sum(x) + jnp.exp(-jnp.exp(jax.lax.stop_gradient(x[0]) * 400)), X
    ),
    "1 / inf": Harmless(lambda x: jnp.sum(x) + 1 / jnp.exp(jax.lax.stop_gradient(x[2]) * 100), X),
    "missing values left out by where": Harmless(
        lambda x: jnp.sum(jnp.where(jnp.isnan(x), 0.0, x) ** 2), ODD
    ),
    "nanmean": Harmless(lambda x: jnp.nanmean(x) ** 2, ODD),
    "aux that is not finite": Harmless(lambda x: (jnp.sum(x), jnp.log(x * 0)), X, True),
    "what nothing reads": Harmless(lambda x: [jnp.log(x * 0), jnp.sum(x**2)][1], X),
    "isnan of a NaN": Harmless(
        lambda x: jnp.sum(x) + jnp.sum(jnp.isnan(jnp.sqrt(x - 1)).astype(jnp.float32)), X
    ),
    "argmax past an Inf": Harmless(lambda x: x[jnp.argmax(1 / x)] + jnp.sum(x), X),
}  # fmt: skip
