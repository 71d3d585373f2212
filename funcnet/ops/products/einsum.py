"""A product of two arrays over any of their axes, named by letters."""

import math
from collections.abc import Iterable, Sequence

import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array, require
from ..shared.precision import floating, wide
from . import cases


def terms_of(equation: str) -> tuple[str, str, str]:
    """The letters of both operands and of the output.

    Raises:
        TypeError: If the equation is no string.
        ValueError: If the equation is not one of two operands, each letter once in each.
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
        arrow and len(terms) == 3 and all(t.isalpha() or not t for t in terms),
        where,
        "an equation of two operands and an output, in letters",
        repr(equation),
        'Write "btd,dhk->bthk"; for more operands, call it twice.',
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
    return terms[0], terms[1], terms[2]


def _fits(op: str, *, x: Array, w: Array, equation: str) -> None:
    floating(op, x)
    terms = terms_of(equation)
    sizes: dict[str, int] = {}
    for name, array, term in (("x", x, terms[0]), ("w", w, terms[1])):
        shape = jnp.shape(array)
        fits = len(shape) == len(term)
        require(
            fits and all(sizes.setdefault(a, n) == n for a, n in zip(term, shape, strict=True)),
            op,
            f"{name} with axes {term or '()'}, each letter of one length",
            f"shape {shape}" + (f" beside {sizes}" if name == "w" and fits else ""),
            f"The equation is {equation!r}.",
        )


def _sizes(x: Array, w: Array, terms: Sequence[str]) -> dict[str, int]:
    """The length that each letter stands for."""
    pairs = ((x, terms[0]), (w, terms[1]))
    return {a: n for array, term in pairs for a, n in zip(term, array.shape, strict=True)}


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


def _einsum_forward(x, w, *, equation):
    terms = terms_of(equation)
    y = _product(x, w, terms, _sizes(x, w, terms))
    return y.astype(jnp.result_type(x, w)), (x, w)


def _einsum_backward(res, dy, *, equation):
    """dx = einsum(output, w -> x);  dw = einsum(x, output -> w)
    with a letter that stands in one operand alone summed there, and so spread again here
    """
    x, w = res
    first, second, output = terms = terms_of(equation)
    sizes = _sizes(x, w, terms)
    return (
        _spread(dy, w, (output, second, first), sizes),
        _spread(x, dy, (first, output, second), sizes),
    )


def _spread(a: Array, b: Array, terms: Sequence[str], sizes: dict[str, int]) -> Array:
    """The einsum where the output may have letters of its own."""
    first, second, output = terms
    shared = "".join(c for c in output if c in first + second)
    part = _product(a, b, (first, second, shared), sizes)
    alone = [axis for axis, c in enumerate(output) if c not in shared]
    return jnp.broadcast_to(jnp.expand_dims(part, alone), [sizes[c] for c in output])


@rule(_einsum_forward, _einsum_backward, cases=cases.EINSUM, check=_fits)
def einsum(x: Array, w: Array, *, equation: str) -> Array:
    """The sum over the letters that the output lacks, of the product of x and w.

    `"btd,dhk->bthk"` projects vectors of length d to h heads of length k. Axes that stand together
    in every term are taken as one, so a batch of sequences is as fast as rows.

    Args:
        x: One axis for each letter of the first operand.
        w: One axis for each letter of the second.
        equation: Letters of x, comma, letters of w, `->`, letters of the output.

    Returns:
        One axis for each letter of the output, in the dtype that JAX promotes the arguments to;
        bfloat16 and float16 are summed in float32 and rounded once.

    Raises:
        TypeError: If `x` is not floating, or the equation no string.
        ValueError: If the equation has not two operands, repeats a letter within one, or has an
            output letter that neither has; if the shapes do not fit it.

    >>> einsum(jnp.ones((2, 3, 4)), jnp.ones((4, 2, 5)), equation="btd,dhk->bthk").shape
    (2, 3, 2, 5)

    Reference: Vaswani et al., "Attention Is All You Need", 2017, section 3.2.2, whose projections
    these are.
    """
    y = jnp.einsum(equation, x, w, preferred_element_type=wide(x, w))
    return y.astype(jnp.result_type(x, w))
