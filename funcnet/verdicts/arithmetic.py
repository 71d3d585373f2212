"""What one equation computes and moves: floating-point operations, and bytes.

Counted is arithmetic on floating and complex numbers, as the equation says it, not as a compiler
may rewrite it:

- a product of (m, k) and (k, n): 2mkn. A convolution: 2 for each tap, channel and output, of the
  taps that lie on the input: neither on the padding nor between dilated elements;
- one for each element of the result of any other function, exp, tanh and a power among them;
- n − 1 for a reduction of n elements to one, or a running one over n;
- one for each update that a scatter adds or multiplies;
- factorizations and triangular solves by the formulas of Golub and Van Loan, Matrix Computations
  (4th ed.), an FFT of n numbers 5n log₂ n as FFTW counts, half of it for real ones.

A complex product has 4 real ones, a complex multiplication 6 operations, all else on complex
numbers 2. Comparing, choosing, sorting, converting and moving are none, nor is what is done to
integers.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..jaxpr import jaxprs
from ..jaxpr.equations import Equation, equations_of


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ELEMENTWISE = _words(
    """
    abs acos acosh add add_any asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil clamp cos
    cosh digamma div erf erf_inv erfc exp exp2 expm1 floor igamma igamma_grad_a igammac integer_pow
    lgamma log log1p log2 logistic max min mul neg nextafter one_minus_square polygamma pow
    random_gamma_grad reciprocal regularized_incomplete_beta rem round rsqrt sign sin sinh sqrt
    square sub tan tanh zeta
    """
)
"""The primitives that count once for each element of their result."""

REDUCTIONS = _words("reduce_sum reduce_prod reduce_max reduce_min argmax argmin")
RUNNING = _words("cumsum cumprod cummax cummin cumlogsumexp")
UPDATES = _words("scatter_add scatter_sub scatter_mul scatter_min scatter_max addupdate")

FREE = _words(
    """
    after_all all_gather all_gather_invariant all_to_all and approx_top_k axis_index
    bitcast_convert_type broadcast_in_dim broadcast_to clz complex concatenate conj
    convert_element_type copy create_token debug_callback debug_print device_put dynamic_slice
    dynamic_update_slice empty empty2 empty_ref eq eq_to free_ref freeze from_edtype gather ge get
    gt imag inspect_sharding iota is_finite layout_constraint le le_to lt lt_to
    lu_pivots_to_permutation masked_load masked_swap multiple_of name ne new_ref not num_programs
    optimization_barrier or pad pbroadcast pcast platform_index population_count ppermute program_id
    pvary ragged_all_to_all random_bits random_clone random_fold_in random_seed random_split
    random_unwrap random_wrap real reduce_and reduce_or reduce_precision reduce_xor
    reduced_vary_cast_p reshape rev rng_bit_generator rng_uniform scatter select_n semaphore_read
    semaphore_signal semaphore_wait sharding_constraint shift_left shift_right_arithmetic
    shift_right_logical slice sort split squeeze stack stop_gradient swap threefry2x32 tie tile
    to_edtype top_k transpose unstack xor
    """
)
"""The primitives that count nothing: they compare, choose, convert, move, or take integers."""

_STILL = _words(
    """
    after_all axis_index create_token device_put empty_ref free_ref freeze name new_ref
    optimization_barrier pcast platform_index pvary reshape sharding_constraint squeeze
    stop_gradient tie
    """
)
"""The primitives that move nothing: their result is their operand, or no array."""

_PARTS = _words("slice dynamic_slice gather split get")
_PLACED = UPDATES | {"scatter", "dynamic_update_slice", "swap"}


def size(x: Any) -> int:
    """How many elements an array, or its type, has."""
    return math.prod(getattr(x, "shape", ()))


def nbytes(x: Any) -> int:
    """How many bytes an array, or its type, takes; none if it is a token."""
    return size(x) * getattr(getattr(x, "dtype", None), "itemsize", 0)


def _weight(x: Any, floating: int, complex_: int) -> int:
    """What an operation on numbers of the type of `x` counts; none on integers."""
    if not jaxprs.is_inexact(x):
        return 0
    return complex_ if np.issubdtype(x.dtype, np.complexfloating) else floating


def flops(e: Equation) -> int | None:
    """The floating-point operations of an equation, without those of a jaxpr that it holds.

    Returns:
        Their number for one run; None if what the primitive costs is not known, or depends on the
        numbers, as that of an eigenvalue does.

    >>> import jax
    >>> from ..jaxpr.equations import equations_of
    >>> closed, _ = jaxprs.trace(lambda a, b: a @ b, jax.numpy.ones((2, 3)), jax.numpy.ones((3, 4)))
    >>> [flops(e) for e in equations_of(closed.jaxpr)]
    [48]
    """
    name = e.eqn.primitive.name.replace("-", "_")
    if name in FREE:
        return 0
    if name in FORMULAS:
        return FORMULAS[name](e)
    operand = e.operands[0].aval if e.operands else None
    result = e.eqn.outvars[0].aval if e.eqn.outvars else None
    if name in ELEMENTWISE:
        heavy = name in ("mul", "div", "integer_pow", "square")
        return size(result) * _weight(result, 1, 6 if heavy else 2)
    if name in REDUCTIONS:
        taken = size(operand) - size(result)
        return max(0, taken) * _weight(operand, 1, 6 if name == "reduce_prod" else 2)
    if name in RUNNING:
        length = operand.shape[e.eqn.params["axis"]]  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]  # an array's type
        return (size(operand) - size(operand) // max(1, length)) * _weight(operand, 1, 2)
    if name in UPDATES:
        updates = e.operands[1 if name == "addupdate" else 2].aval
        return size(updates) * _weight(updates, 1, 6 if name == "scatter_mul" else 2)
    return None


def moved(e: Equation) -> int:
    """The bytes that an equation reads and writes: its operands and its results, as if alone.

    Of what is sliced or gathered from, or written into, only the part counts; a reshape moves
    nothing.
    """
    name = e.eqn.primitive.name.replace("-", "_")
    if name in _STILL or e.is_alias:
        return 0
    types = [v.aval for v in dict.fromkeys(filter(jaxprs.is_var, e.operands))]
    results = sum(nbytes(v.aval) for v in e.eqn.outvars if not jaxprs.is_dropped(v))
    if name in _PARTS:
        return 2 * results + sum(map(nbytes, types[1:]))
    if name in _PLACED:
        second = name in ("dynamic_update_slice", "swap", "addupdate")
        update = nbytes(e.operands[1 if second else 2].aval)
        rest = sum(nbytes(v.aval) for v in e.operands[1:] if jaxprs.is_var(v)) - update
        return update * (3 if name in UPDATES else 2) + max(0, rest)
    return results + sum(map(nbytes, types))


def _product(e: Equation) -> int:
    a, b = (v.aval for v in e.operands[:2])
    (left, _), (batch, _) = e.eqn.params["dimension_numbers"]
    shared = math.prod(a.shape[i] for i in (*left, *batch))  # pyright: ignore[reportAttributeAccessIssue]  # an array's type
    return size(a) * (size(b) // max(1, shared)) * _weight(e.results[0].aval, 2, 8)


def _ragged_product(e: Equation) -> int:
    """Of which each row meets the matrix of its own group alone."""
    a, b = (v.aval for v in e.operands[:2])
    numbers = e.eqn.params["ragged_dot_dimension_numbers"]
    (_, right), (_, batch) = numbers.dot_dimension_numbers
    taken = {*right, *batch, *numbers.rhs_group_dimensions}
    free = math.prod(n for i, n in enumerate(b.shape) if i not in taken)  # pyright: ignore[reportAttributeAccessIssue]  # an array's type
    return size(a) * free * _weight(e.results[0].aval, 2, 8)


def _convolution(e: Equation) -> int:
    x, kernel, y = e.operands[0].aval, e.operands[1].aval, e.results[0].aval
    params = e.eqn.params
    numbers = params["dimension_numbers"]
    inputs, window, outputs = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    found = y.shape[outputs[0]] * y.shape[outputs[1]] * kernel.shape[window[1]]  # pyright: ignore[reportAttributeAccessIssue]  # an array's type
    axes = zip(inputs[2:], window[2:], outputs[2:], strict=True)
    for n, (i, k, o) in enumerate(axes):
        found *= _taps(
            x.shape[i], kernel.shape[k], y.shape[o], params["window_strides"][n],  # pyright: ignore[reportAttributeAccessIssue]  # an array's type
            params["padding"][n][0], params["lhs_dilation"][n], params["rhs_dilation"][n],
        )  # fmt: skip
    return found * _weight(y, 2, 8)


def _taps(
    size: int, window: int, outputs: int, stride: int, before: int, spread: int, dilation: int
) -> int:
    """How many taps of the windows along an axis lie on an element, over all windows."""
    at = np.arange(outputs)[:, None] * stride + np.arange(window) * dilation - before
    inside = (at >= 0) & (at < (size - 1) * spread + 1) & (at % spread == 0)
    return int(inside.sum())


def _windows(e: Equation) -> tuple[int, int]:
    """The taps of a pool that lie on its input, and how many windows it has."""
    params = e.eqn.params
    x: Any = e.operands[-1].aval if "select_prim" in params else e.operands[0].aval
    taps, windows = 1, 1
    for n, length in enumerate(x.shape):
        window, stride = params["window_dimensions"][n], params["window_strides"][n]
        before, after = params["padding"][n]
        spread = params.get("base_dilation", (1,) * len(x.shape))[n]
        dilation = params.get("window_dilation", (1,) * len(x.shape))[n]
        whole = max(0, (length - 1) * spread + 1) + before + after
        count = max(0, (whole - (window - 1) * dilation - 1) // stride + 1)
        taps *= _taps(length, window, count, stride, before, spread, dilation)
        windows *= count
    return taps, windows


def _pool(e: Equation) -> int:
    taps, windows = _windows(e)
    return max(0, taps - windows) * _weight(e.operands[0].aval, 1, 2)


def _unpool(e: Equation) -> int:
    """The gradient of max pooling: the largest of each window, to which one is added."""
    taps, windows = _windows(e)
    return taps * _weight(e.operands[0].aval, 1, 2) if windows else 0


def _matrix(e: Equation) -> tuple[int, int, int, int]:
    """How many matrices of how many rows and columns, and what a real operation counts."""
    a: Any = e.operands[0].aval
    *batch, m, n = a.shape
    return math.prod(batch), m, n, _weight(a, 1, 4)


def _cholesky(e: Equation) -> int:
    count, n, _, weight = _matrix(e)
    return count * weight * (n * (n + 1) * (2 * n + 1) // 6)


def _lu(e: Equation) -> int:
    count, m, n, weight = _matrix(e)
    steps = ((m - k) * (1 + 2 * (n - k)) for k in range(1, min(m, n) + 1))
    return count * weight * sum(steps)


def _qr(e: Equation) -> int:
    count, m, n, weight = _matrix(e)
    long, short = max(m, n), min(m, n)
    return count * weight * (2 * short * short * (3 * long - short) // 3)


def _householder(e: Equation) -> int:
    count, m, n, weight = _matrix(e)
    reflectors = e.operands[1].aval.shape[-1]  # pyright: ignore[reportAttributeAccessIssue]  # an array's type
    k = reflectors
    return count * weight * (4 * m * n * k - 2 * (m + n) * k * k + 4 * k**3 // 3)


def _triangular(e: Equation) -> int:
    count, n, _, weight = _matrix(e)
    b = e.operands[1].aval
    return count and weight * n * size(b)


def _fft(e: Equation) -> int:
    lengths = e.eqn.params["fft_lengths"]
    n = math.prod(lengths)
    operand, result = e.operands[0].aval, e.results[0].aval
    inner = len(lengths)
    batch = math.prod(operand.shape[: len(operand.shape) - inner])  # pyright: ignore[reportAttributeAccessIssue]  # an array's type
    real = not all(np.issubdtype(t.dtype, np.complexfloating) for t in (operand, result))  # pyright: ignore[reportAttributeAccessIssue]  # an array's type
    return batch * round(5 * n * math.log2(max(1, n)) / (2 if real else 1))


def _by_jaxpr(e: Equation) -> int:
    """A reduction, or a pool, by a function of two numbers."""
    once = sum(
        flops(inner) or 0 for inner in equations_of(jaxprs.open_jaxpr(e.eqn.params["jaxpr"])[0])
    )
    if "window_dimensions" in e.eqn.params:
        taps, windows = _windows(e)
        return once * max(0, taps - windows)
    return once * max(0, size(e.operands[0].aval) - size(e.results[0].aval))


def _polynomial(e: Equation) -> int:
    """By Horner's rule; the operands are the points and the coefficients."""
    return 2 * max(0, len(e.operands) - 2) * size(e.results[0].aval)


def _summed(e: Equation) -> int:
    return sum(size(v.aval) * _weight(v.aval, 1, 2) for v in e.operands)


FORMULAS: dict[str, Callable[[Equation], int]] = {
    "dot_general": _product,
    "ragged_dot_general": _ragged_product,
    "conv_general_dilated": _convolution,
    "reduce_window_sum": _pool,
    "reduce_window_max": _pool,
    "reduce_window_min": _pool,
    "reduce": _by_jaxpr,
    "reduce_window": _by_jaxpr,
    "select_and_scatter_add": _unpool,
    "select_and_gather_add": _pool,
    "cholesky": _cholesky,
    "lu": _lu,
    "qr": _qr,
    "geqrf": _qr,
    "householder_product": _householder,
    "triangular_solve": _triangular,
    "fft": _fft,
    "polynomial": _polynomial,
    "psum": _summed,
    "psum_invariant": _summed,
    "pmax": _summed,
    "pmin": _summed,
    "reduce_scatter": _summed,
}
"""What other primitives count. A sum over devices counts once for each device's element."""
