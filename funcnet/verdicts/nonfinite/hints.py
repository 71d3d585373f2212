"""What to do about a NaN or an Inf, by what it was born of."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.numpy import finfo


class Case(NamedTuple):
    """What a hint is chosen by.

    Attributes:
        written: The primitive that was written there; empty for an argument.
        ran: The primitive that ran.
        derived: Whether that is a derivative of the former.
        value: What came out.
        operands: The operands at the element, those of which that is known.
        makers: What made each operand of the equation, and of the equation that it derives.
        dtype: The dtype of the result.
        masked: Whether a cotangent of 0 meets it, of what `where` did not choose.
        met: Whether a derivative is multiplied by 0, wherever that is from.
    """

    written: str
    ran: str
    derived: bool
    value: complex
    operands: Sequence[complex]
    makers: Sequence[str]
    dtype: str
    masked: bool
    met: bool = False


DOUBLE_WHERE = (
    "`where` does not protect a gradient: {what} is computed for the elements it leaves out as "
    "well, and 0 times Inf, or 0/0, is NaN. Make the operand safe first (the double where): "
    "jnp.where(ok, f(jnp.where(ok, x, 1.0)), 0.0)."
)

_MET = "{what} is multiplied by 0 there, and 0 times Inf is NaN."

_SINGULAR = "The matrix is singular: add a small multiple of the identity."
_VECTORS = (
    "Where singular values or eigenvalues are equal their vectors have no derivative: keep them "
    "apart, or use the values alone."
)
_EDGES = {
    "custom_linear_solve": _SINGULAR,
    "triangular_solve": _SINGULAR,
    "_slogdet_lu": _SINGULAR,
    "svd": _VECTORS,
    "eigh": _VECTORS,
    "eig": _VECTORS,
    "sqrt": "The slope of sqrt at 0 is infinite: add a small number under the root.",
    "rsqrt": "1/sqrt(x) has no value at 0 and below: add a small number under the root.",
    "cbrt": "The slope of cbrt at 0 is infinite: keep its operand away from 0.",
    "log": "log has no value at 0 and below, and an infinite slope at 0: add a small number, or "
    "compute it from logits, as jax.nn.log_softmax and jax.nn.log_sigmoid do.",
    "log1p": "log1p has no value at -1 and below: keep its operand above -1.",
    "acos": "acos has no value beyond -1 and 1, and an infinite slope there: clip its operand "
    "to a little within, or use arctan2.",
    "asin": "asin has no value beyond -1 and 1, and an infinite slope there: clip its operand "
    "to a little within, or use arctan2.",
    "atanh": "atanh has no value at -1 and 1: clip its operand to a little within.",
    "acosh": "acosh has no value below 1, and an infinite slope at 1: keep its operand above 1.",
    "pow": "x**p has no value where x is negative and p no whole number, or x is 0 and p negative; "
    "its slope at 0 is infinite for p below 1, and that in p needs log(x): keep x above 0.",
    "integer_pow": "A negative power of 0 is infinite: keep its operand away from 0.",
    "atan2": "The slope of arctan2 at (0, 0) is 0/0: keep one of its operands away from 0.",
    "cholesky": "The matrix is not positive definite: add a small multiple of the identity.",
    "gather": "An index lies outside, where jnp.take and x.at[i].get(mode='fill') give NaN: "
    "look at the index, and at integers that overflow on the way to it.",
    "erf_inv": "erf_inv is infinite at -1 and 1: clip its operand to a little within.",
    "lgamma": "lgamma is infinite at 0 and at negative whole numbers: keep its operand away.",
    "digamma": "digamma has no value at 0 and at negative whole numbers: keep its operand away.",
}  # fmt: skip

_NORM = (
    "The slope of a norm at 0 is 0/0: add a small number under the root, "
    "jnp.sqrt(jnp.sum(x**2) + 1e-12)."
)
_EXP = (
    "exp overflows {dtype} above {limit:.4g}: subtract the largest operand first, as "
    "jax.nn.logsumexp and jax.nn.softmax do, or clip it."
)
_OVERFLOW = "It is beyond the largest {dtype}, {limit:.4g}: scale it, or compute in {wider}."
_DIVISION = "A division by 0: keep the divisor away from 0, or make it safe with where first."
_DIFFERENCE = (
    "Inf minus Inf is NaN. In a softmax it is a row that is masked everywhere: leave one element "
    "unmasked, or mask with a large finite number."
)
_TIMES = "0 times Inf is NaN: an operand is already infinite."
_BEFORE = "An operand is not finite already: it is written so, as a constant or by where."
ARGUMENT = (
    "It is not finite before the function begins: look at the data, or at the step that made it."
)


def hint(case: Case) -> str:
    """One or two sentences.

    >>> hint(Case("log", "log", False, -math.inf, [0.0], ["x"], "float32", False))[:30]
    'log has no value at 0 and belo'
    """
    if not case.written:
        return ARGUMENT
    name = case.written
    found = _by_operands(case)
    norm = name == "sqrt" and "reduce_sum" in case.makers
    edge = _NORM if norm and case.derived else _EDGES.get(name, "")
    what = f"the derivative of {name}" if case.derived else name
    if case.met and not case.masked:
        return _MET.format(what=f"T{what[1:]}") + (f" {edge}" if edge else "")
    if case.masked:
        return DOUBLE_WHERE.format(what=what) + (f" {edge}" if edge else "")
    return edge or found


def _by_operands(case: Case) -> str:
    known = [x for x in case.operands if not isinstance(x, complex)]
    infinite = [x for x in known if math.isinf(x)]
    limit = float(finfo(case.dtype).max)
    if any(map(math.isnan, known)):
        return _BEFORE
    if case.ran in ("exp", "exp2", "expm1", "sinh", "cosh", "log_softmax"):
        return _EXP.format(dtype=case.dtype, limit=float(np.log(limit)))
    if case.ran in ("div", "rem") and len(known) > 1 and known[1] == 0:
        return _DIVISION
    if case.ran in ("add", "sub", "add_any") and len(infinite) > 1:
        return _DIFFERENCE
    if case.ran == "mul" and infinite and 0 in known:
        return _TIMES
    if infinite:
        return _BEFORE
    wider = "float32" if finfo(case.dtype).bits < 32 else "logarithms"
    return _OVERFLOW.format(dtype=case.dtype, limit=limit, wider=wider)
