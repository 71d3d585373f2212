"""Products of arrays over any of their axes, and sums along them, named by letters."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array, require
from ..shared.precision import floating, wide
from . import cases


def terms_of(equation: str) -> tuple[str, ...]:
    """The letters of each operand, and last those of the output.

    Raises:
        TypeError: If the equation is no string.
        ValueError: If the equation is not one of operands with each letter once, and an output.

    >>> terms_of("bij, jk -> bik")
    ('bij', 'jk', 'bik')
    """
    where = "einsum"
    require(
        isinstance(equation, str),
        where,
        "an equation, a string",
        repr(equation),
        'Write equation="btd,dhk->bthk".',
        TypeError,
    )
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = (*inputs.split(","), output)
    require(
        arrow and all(t.isalpha() or not t for t in terms),
        where,
        "an equation of operands and an output, in letters",
        repr(equation),
        'Write "btd,dhk->bthk".',
    )
    require(
        all(len(set(term)) == len(term) for term in terms),
        where,
        "no letter twice in one operand or in the output",
        repr(equation),
        "Take a diagonal with jnp.diagonal first.",
    )
    require(
        set(output) <= set(inputs),
        where,
        "an output whose letters stand in an operand",
        repr(equation),
        "Add new axes by broadcasting afterwards.",
    )
    return terms


def _operands(x: Array, w: Array | None, more: Any) -> list[Array]:
    """All operands in order; `more` is one array, or several in a tuple."""
    rest = more if isinstance(more, list | tuple) else (more,)
    return [array for array in (x, w, *rest) if array is not None]


def _fits(op: str, *, x: Array, w: Array | None, more: Any, equation: str) -> None:
    floating(op, x)
    *terms, _ = terms_of(equation)
    given = _operands(x, w, more)
    require(
        len(given) == len(terms) and (w is not None or len(given) == 1),
        op,
        f"as many arrays as {equation!r} has operands, {len(terms)}",
        f"{len(given)}" if w is not None or more is None else "w=None and others after it",
        "Give x, w, and after them one array more, or a tuple of arrays.",
    )
    sizes: dict[str, int] = {}
    several = isinstance(more, list | tuple)
    names = ("x", "w", *(f"more[{i}]" if several else "more" for i in range(len(given))))
    for name, array, term in zip(names, given, terms, strict=False):
        shape, before = jnp.shape(array), dict(sizes)
        fits = len(shape) == len(term)
        require(
            fits and all(sizes.setdefault(a, n) == n for a, n in zip(term, shape, strict=True)),
            op,
            f"{name} with axes {term or '()'}, each letter of one length",
            f"shape {shape}" + (f" beside {before}" if before and fits else ""),
            f"The equation is {equation!r}.",
        )


def _sizes(arrays: Sequence[Array], terms: Sequence[str]) -> dict[str, int]:
    """The length that each letter stands for."""
    pairs = zip(arrays, terms, strict=False)
    return {a: n for array, term in pairs for a, n in zip(term, array.shape, strict=True)}


class _Step(NamedTuple):
    """A product of two arrays, by their numbers in the order of making; and its letters."""

    first: int
    second: int
    term: str


def _steps(terms: Sequence[str], sizes: Mapping[str, int]) -> list[_Step]:
    """The products of two by which all are multiplied: of those left, the two that cost least.

    A product has the letters of its two that the output or an operand still to come has.

    >>> _steps(("ij", "jk", "kl", "il"), {"i": 9, "j": 9, "k": 9, "l": 1})
    [_Step(first=1, second=2, term='jl'), _Step(first=0, second=3, term='il')]
    """
    *made, output = terms
    left, steps = list(range(len(made))), []

    def cost(pair: tuple[int, int]) -> int:
        return math.prod(sizes[c] for c in set(made[pair[0]] + made[pair[1]]))

    while len(left) > 1:
        first, second = min(itertools.combinations(left, 2), key=cost)
        left = [n for n in left if n not in (first, second)]
        kept = set(output).union(*(made[n] for n in left))
        both = dict.fromkeys(made[first] + made[second])
        term = "".join(c for c in both if c in kept) if left else output
        steps.append(_Step(first, second, term))
        left.append(len(made))
        made.append(term)
    return steps


def _runs(terms: Iterable[str]) -> list[str]:
    """Letters that stand together, in one order, in every term that has one of them."""
    terms = list(terms)
    runs: list[str] = []
    for letter in dict.fromkeys("".join(terms)):
        last = runs[-1][-1] if runs else ""
        if last and all(last + letter in t or not {last, letter} & set(t) for t in terms):
            runs[-1] += letter
        else:
            runs.append(letter)
    return runs


def _product(a: Array, b: Array, terms: Sequence[str], sizes: dict[str, int]) -> Array:
    """The einsum with each run as one axis, so that two axes of a batch make no copy of it."""
    lengths = {run[0]: math.prod(sizes[c] for c in run) for run in _runs(terms)}
    first, second, output = ("".join(c for c in term if c in lengths) for term in terms)
    a = a.reshape([lengths[c] for c in first])
    b = b.reshape([lengths[c] for c in second])
    y = jnp.einsum(f"{first},{second}->{output}", a, b, preferred_element_type=wide(a, b))
    return y.reshape([sizes[c] for c in terms[2]])


def _einsum_forward(x, w, more, *, equation):
    given, terms = _operands(x, w, more), terms_of(equation)
    sizes, dtype = _sizes(given, terms), jnp.result_type(*given)
    if len(given) == 1:
        return _along(x, *terms).astype(dtype), (given, [], more)
    made, letters = list(given), list(terms[:-1])
    for first, second, term in _steps(terms, sizes):
        pair = (letters[first], letters[second], term)
        made.append(_product(made[first], made[second], pair, sizes).astype(dtype))
        letters.append(term)
    return made[-1], (given, made[len(given) : -1], more)


def _along(x: Array, term: str, output: str) -> Array:
    """The sum along the axes whose letters the output lacks, the others in its order."""
    y = x.sum(tuple(i for i, c in enumerate(term) if c not in output), dtype=wide(x))
    kept = [c for c in term if c in output]
    return y.transpose([kept.index(c) for c in output])


def _einsum_backward(res, dy, *, equation):
    """Of y = einsum(x, w): dx = einsum(dy, w -> x);  dw = einsum(x, dy -> w)
    with a letter that stands in one operand alone summed there, and so spread again here. Of one
    operand: dx = dy, spread along the letters that were summed. Of several: the same of each
    product of two, from the last to the first
    """
    given, between, more = res
    *terms, output = every = terms_of(equation)
    sizes = _sizes(given, terms)
    if len(given) == 1:
        kept = "".join(c for c in terms[0] if c in output)
        dx = _laid(dy.transpose([output.index(c) for c in kept]), kept, terms[0], sizes)
        return dx, None, None
    steps = _steps(every, sizes)
    made, letters = [*given, *between], [*terms, *(step.term for step in steps)]
    slopes: dict[int, Array] = {len(made): dy}
    for number, (first, second, term) in reversed(list(enumerate(steps, len(given)))):
        a, b, d = made[first], made[second], slopes.pop(number)
        slopes[first] = _spread(d, b, (term, letters[second], letters[first]), sizes)
        slopes[second] = _spread(a, d, (letters[first], term, letters[second]), sizes)
        slopes |= {n: slopes[n].astype(made[n].dtype) for n in (first, second)}
    dx, dw, *rest = (slopes[n] for n in range(len(given)))
    return dx, dw, _like(more, rest)


def _like(more: Any, found: Sequence[Array]) -> Any:
    """The cotangents of the further operands as these were given."""
    if more is None:
        return None
    return type(more)(found) if isinstance(more, list | tuple) else found[0]


def _spread(a: Array, b: Array, terms: Sequence[str], sizes: dict[str, int]) -> Array:
    """The einsum where the output may have letters of its own."""
    first, second, output = terms
    shared = "".join(c for c in output if c in first + second)
    return _laid(_product(a, b, (first, second, shared), sizes), shared, output, sizes)


def _laid(part: Array, shared: str, output: str, sizes: dict[str, int]) -> Array:
    """An array of some letters of the output, in its order, repeated along the others."""
    alone = [axis for axis, c in enumerate(output) if c not in shared]
    return jnp.broadcast_to(jnp.expand_dims(part, alone), [sizes[c] for c in output])


@rule(_einsum_forward, _einsum_backward, cases=cases.EINSUM, check=_fits, rounds=True)
def einsum(
    x: Array,
    w: Array | None = None,
    more: Array | tuple[Array, ...] | None = None,
    *,
    equation: str,
) -> Array:
    """The sum over the letters that the output lacks, of the product of all operands.

    `"btd,dhk->bthk"` projects vectors of length d to h heads of length k. Axes that stand together
    in every term are taken as one, so a batch of sequences is as fast as rows. Of one operand it is
    a sum along axes and a transposition. Several are multiplied two at a time, of those left the
    two that take the fewest multiplications; the products on the way are kept.

    Args:
        x: One axis for each letter of the first operand.
        w: One axis for each letter of the second; None if there is one operand.
        more: The third operand, or a tuple of the third and those after it.
        equation: Letters of x, comma, letters of w and so on, `->`, letters of the output.

    Returns:
        One axis for each letter of the output, in the dtype that JAX promotes the arguments to;
        bfloat16 and float16 are summed in float32 and rounded once, as is each product on the way.

    Raises:
        TypeError: If `x` is not floating, or the equation no string.
        ValueError: If the equation has not as many operands as are given, repeats a letter within
            one, or has an output letter that none has; if the shapes do not fit it.

    >>> einsum(jnp.ones((2, 3, 4)), jnp.ones((4, 2, 5)), equation="btd,dhk->bthk").shape
    (2, 3, 2, 5)
    >>> a, b, c = jnp.ones((2, 3)), jnp.ones((3, 4)), jnp.ones((4, 5))
    >>> einsum(a, b, c, equation="ij,jk,kl->il")[0, 0], einsum(a, equation="ij->")
    (Array(12., dtype=float32), Array(6., dtype=float32))

    Reference: Vaswani et al., "Attention Is All You Need", 2017, section 3.2.2, whose projections
    these are.
    """
    given = _operands(x, w, more)
    y = jnp.einsum(equation, *given, preferred_element_type=wide(*given))
    return y.astype(jnp.result_type(*given))
