"""Two gradients beside each other: how far they are apart, where, and how far they may be.

`prove` and `check_rule` both judge by these functions, so a rule that one of them passes has the
same limits in the other.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

LIMITS = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 2.0, "float16": 2.0}
"""The worst error a rule may have: relative to the largest element of the truth; for 16 bits in
units in the last place of each element, or of the largest one where a rule rounds on the way."""

_BITS = {"bfloat16": (8, -133), "float16": (11, -24)}
"""The significant bits of a 16-bit dtype, and the exponent of its smallest number."""

SPARE = 8.0
"""How many times as far off as JAX's own gradient a rule may be, where that is known."""


class Gap(NamedTuple):
    """How far two arrays are apart.

    Attributes:
        error: The worst error, in the unit of `LIMITS`; infinite where one is finite and the other
            is not.
        index: Where it is; None if there is no error.
    """

    error: float
    index: tuple[int, ...] | None = None


def gap(
    found: Any, truth: Any, dtype: str, *, each: bool = False, noise: float = 0.0, scale: float = 0
) -> Gap:
    """How far an array is from the truth, which is of float64.

    Args:
        found: The array.
        truth: What it should be.
        dtype: What it was computed in.
        each: Whether an error of 16 bits is relative to each element, not to the largest one.
        noise: How far off JAX's own gradient is in that dtype: `SPARE` times that is allowed
            beside the limit. Where terms cancel, it is what tells how large they were.
        scale: What errors are relative to, where that is more than the largest element.

    >>> found = gap(np.array([1.0, 2.002]), np.array([1.0, 2.0]), "float32")
    >>> found.index, round(found.error, 6)
    ((1,), 0.001)
    """
    got, right = wide(found), wide(truth)
    rounded = _rounded(right, dtype)
    finite = np.isfinite(rounded)
    astray = ~finite & ~((got == rounded) | (np.isnan(got) & np.isnan(rounded)))
    astray |= finite & ~np.isfinite(got)
    if astray.any():
        return Gap(float("inf"), first(astray))
    sixteen = dtype in _BITS
    with np.errstate(all="ignore"):
        distance = np.where(finite, np.abs(got - (rounded if sixteen else right)), 0.0)
        size = np.where(finite, np.abs(rounded if sixteen else right), 0.0)
        largest = max(float(size.max(initial=0.0)), scale)
        unit = ulp(size if each else np.asarray(largest), dtype) if sixteen else largest
        if each and dtype == "float16":  # its units are finer than what float32 may err on the way
            unit = np.maximum(unit, LIMITS["float32"] / LIMITS[dtype] * largest)
        unit = unit + SPARE * noise / LIMITS[dtype]
        error = np.where(distance > 0, distance / unit, 0.0)
    if not error.any():
        return Gap(0.0)
    at = np.unravel_index(np.argmax(error), error.shape)
    return Gap(float(error[at]), tuple(map(int, at)))


def _rounded(x: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        return x if x.dtype.kind == "c" else wide(x.astype(jnp.dtype(dtype)))


def ulp(x: Any, dtype: str) -> Any:
    """The distance between neighbouring numbers of a 16-bit dtype at each element.

    >>> float(ulp(np.array(1.0), "bfloat16")), float(ulp(np.array(1e-9), "float16")) == 2.0**-24
    (0.0078125, True)
    """
    bits, smallest = _BITS[dtype]
    _, exponent = np.frexp(x)
    return np.ldexp(1.0, np.maximum(exponent - bits, smallest))


def wide(x: Any) -> np.ndarray:
    """An array on the host, in float64 or complex128."""
    array = np.asarray(x)
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def first(where: np.ndarray) -> tuple[int, ...]:
    """The first place of an array of truth values that is true."""
    return tuple(int(i) for i in np.argwhere(where)[0])


def is_floating(x: Any) -> bool:
    """Whether an array or its shape is floating or complex: whether it has a gradient.

    >>> is_floating(np.ones(2)), is_floating(np.arange(2))
    (True, False)
    """
    return jnp.issubdtype(x.dtype, jnp.inexact)


def cast(tree: Any, dtype: Any) -> Any:
    """A pytree with its floating arrays in another dtype; integers, booleans and keys stay."""

    def one(x: Any) -> Any:
        wide = jnp.dtype(dtype).itemsize == 8
        kind = (np.complex128 if wide else np.complex64) if _is_complex(x) else dtype
        return x.astype(kind) if is_floating(x) else x

    return jax.tree.map(one, tree)


def cotangents(random: np.random.Generator, shapes: Any, dtype: str) -> Any:
    """Numbers of the dtype under test, as an output of these shapes and dtypes takes them."""

    def draw(leaf: Any) -> Any:
        if not is_floating(leaf):
            return np.zeros(leaf.shape, jax.dtypes.float0)
        drawn = random.standard_normal(leaf.shape).astype(dtype).astype(leaf.dtype)
        return drawn * (1 + 0.5j) if _is_complex(leaf) else drawn

    return jax.tree.map(draw, shapes)


def _is_complex(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.complexfloating)
