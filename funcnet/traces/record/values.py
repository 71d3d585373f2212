"""Values as a trace keeps them: the numbers of small ones, and of large ones what sums them up."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ...jaxpr.jaxprs import is_traced

SMALL = 32
"""Arrays of at most this many elements are kept whole."""


class Stats(NamedTuple):
    """What sums up an array; of a complex one, its magnitudes.

    Attributes:
        norm: The square root of the sum of squares.
        mean: The mean.
        low: The smallest element.
        high: The largest element.
        zeros: The fraction of elements that are 0.
        nonfinite: The fraction that are NaN or infinite. The other figures leave these out.
    """

    norm: float
    mean: float
    low: float
    high: float
    zeros: float
    nonfinite: float


@dataclass(frozen=True)
class Value:
    """A value somewhere in a trace.

    Attributes:
        shape: Its shape.
        dtype: Its dtype by name.
        array: The numbers, if they are kept: those of small arrays, or all with `keep="all"`. A
            random key is kept as it is.
        stats: What sums them up; None where there is nothing to sum up, as for a random key.
    """

    shape: tuple[int, ...]
    dtype: str
    array: Any = None
    stats: Stats | None = None

    @property
    def text(self) -> str:
        """The value as a cell of a table shows it: numbers if they are few, else the figures."""
        if isinstance(self.array, np.ndarray) and self.array.size <= 4:
            return numbers(self.array)
        return self.type if self.stats is None else summary(self.stats)

    @property
    def type(self) -> str:
        """Dtype and shape: "float32[2,3]"."""
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def number(x: Any) -> str:
    """A number in five figures: "0.69315", "3", "True", "1+2j"."""
    x = np.asarray(x).item()
    if isinstance(x, complex):
        return f"{x.real:.5g}{x.imag:+.5g}j"
    return str(x) if isinstance(x, bool | int | str) else f"{x:.5g}"


def numbers(array: Any) -> str:
    """A small array in five figures each: "[0.5, nan, 0.25]"."""
    array = np.asarray(array)
    if array.ndim == 0:
        return number(array)
    return f"[{', '.join(numbers(part) for part in array)}]"


def summary(stats: Stats) -> str:
    """The figures of a large array in a few words."""
    text = f"norm {stats.norm:.4g} in [{stats.low:.3g}, {stats.high:.3g}]"
    if stats.nonfinite:
        text += f", {100 * stats.nonfinite:.3g}% not finite"
    return text


def value_of(x: Any, keep_all: bool = False) -> Value:
    """The record of an array."""
    dtype = x.dtype
    kept = keep_all or x.size <= SMALL
    if is_traced(x) or not is_number(dtype):
        none = isinstance(x, np.ndarray)  # the adjoint of an integer, which holds nothing
        return Value(tuple(x.shape), str(dtype), x if kept and not none else None)
    array = np.asarray(x)
    stats = _stats(array) if array.size > 1 else None
    return Value(tuple(x.shape), str(dtype), array if kept else None, stats)


def is_number(dtype: Any) -> bool:
    """Whether an array of this dtype holds numbers or truth values; a random key does not."""
    return jnp.issubdtype(dtype, np.number) or jnp.issubdtype(dtype, np.bool_)


def _stats(array: np.ndarray) -> Stats:
    if np.iscomplexobj(array):
        with np.errstate(over="ignore", invalid="ignore"):
            sizes = np.abs(array)
    elif array.dtype.itemsize < 4 or array.dtype.kind not in "f":
        sizes = array.astype(np.float32)
    else:
        sizes = array
    flat = sizes.ravel()
    with np.errstate(over="ignore", invalid="ignore"):
        norm = float(np.sqrt(np.dot(flat, flat)))
    zeros = 1 - int(np.count_nonzero(flat)) / flat.size
    if _LEAST[flat.dtype.name] < norm < np.inf:
        return Stats(norm, float(flat.mean()), float(flat.min()), float(flat.max()), zeros, 0.0)
    return _scaled(array.ravel(), zeros)


_LEAST = {x.name: float(np.sqrt(np.finfo(x).tiny / np.finfo(x).eps)) for x in
          (np.dtype("float32"), np.dtype("float64"))}  # fmt: skip
"""Norms below these have squares that are rounded to few digits, or to none."""


def _scaled(array: np.ndarray, zeros: float) -> Stats:
    """The figures of numbers whose squares or sum are too large or too small for their dtype."""
    finite = array[np.isfinite(array)]
    bad = 1 - finite.size / array.size
    wide = finite.astype(np.complex128 if np.iscomplexobj(array) else np.float64)
    wide = wide if wide.size else np.zeros(1)
    parts = np.stack([wide.real, wide.imag]) if np.iscomplexobj(wide) else wide
    scale = float(np.abs(parts).max()) or 1.0
    unit = np.abs(wide / scale) if np.iscomplexobj(wide) else wide / scale
    figures = np.linalg.norm(unit), unit.mean(), unit.min(), unit.max()
    norm, mean, low, high = (scale * float(x) for x in figures)
    return Stats(norm, mean, low, high, zeros, bad)
