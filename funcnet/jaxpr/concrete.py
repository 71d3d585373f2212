"""Equations run one by one on arrays that are there, as `jax.numpy` would run them eagerly.

JAX compiles each primitive for each shape: some 40 ms, for what then takes microseconds. On the
CPU, what moves numbers about or rounds each of them once as IEEE 754 says comes out the same to the
bit in NumPy, which compiles nothing; there it is taken for arrays of a moderate size. XLA flushes
numbers below the smallest normal one to zero where it computes, so where there are such, it is
asked.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import jaxprs
from .equations import Equation, bound
from .walk import At, Handler, walk

MOST = 1 << 16
"""Arrays of more elements are left to XLA, which uses all cores."""


def evaluate(closed: Any, *leaves: Any) -> list[Any]:
    """The flat outputs of a jaxpr for flat inputs, an equation at a time.

    >>> closed, _ = jaxprs.trace(lambda x: x * 2 + 1, np.ones(3, np.float32))
    >>> evaluate(closed, np.ones(3, np.float32))[0].tolist()
    [3.0, 3.0, 3.0]
    """
    if any(map(jaxprs.is_traced, leaves)):
        return jaxprs.evaluate(closed, *leaves)
    found = walk(closed, leaves, _Concrete())
    return [np.asarray(x) if isinstance(x, int | float | complex) else x for x in found]


class _Concrete(Handler):
    """Values are arrays. Calls are opened; what holds other jaxprs is run as a whole."""

    def plain(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        return run(e, operands)


def run(e: Equation, operands: Sequence[Any]) -> list[Any]:
    """The results of one equation, which is not opened."""
    if e.is_fused or e.whole is not None or any(map(jaxprs.is_traced, operands)):
        return e.run(operands)
    if e.label in SAME:
        return list(operands)
    exact = EXACT.get(e.eqn.primitive.name)
    if exact is not None and len(e.results) == 1:
        result: Any = e.results[0].aval
        types = [atom.aval for atom in e.operands]
        arrays = _on_host(operands, types) if _is_plain(result) else None
        if arrays is not None:
            with np.errstate(all="ignore"):
                made = exact(e.eqn.params, *arrays)
            if made is not None and (made.dtype, made.shape) == (result.dtype, result.shape):
                return [_frozen(made)]
    return bound(e.eqn, operands) or e.run(operands)


def added(x: Any, y: Any) -> Any:
    """The sum of two arrays of one type."""
    arrays = _on_host((x, y), (x, y)) if x.shape == y.shape and x.dtype == y.dtype else None
    made = None if arrays is None else EXACT["add"]({}, *arrays)
    return x + y if made is None else _frozen(made)


def _frozen(x: np.ndarray) -> np.ndarray:
    """An array that no one writes to, as those of JAX are; a part of a larger one is a copy."""
    whole = getattr(x.base, "nbytes", x.nbytes)
    made = np.array(x, order="C") if whole > x.nbytes else np.asarray(x, order="C")
    made.setflags(write=False)
    return made


def on_host(*arrays: Any) -> list[np.ndarray] | None:
    """Arrays of a moderate size as NumPy's, without a copy; None if one is elsewhere, or large."""
    return _on_host(arrays, arrays)


def as_jax(x: Any) -> Any:
    """A value as an array of JAX; one of NumPy's is put there, which compiles nothing."""
    return jax.device_put(x) if isinstance(x, np.ndarray) else jnp.asarray(x)


def _on_host(values: Sequence[Any], types: Sequence[Any]) -> list[np.ndarray] | None:
    if not _is_cpu() or not all(map(_is_plain, types)) or not all(map(_is_here, values)):
        return None
    return [np.asarray(x, kind.dtype) for x, kind in zip(values, types, strict=True)]


@functools.cache
def _is_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _is_plain(kind: Any) -> bool:
    return getattr(kind, "dtype", None) in _PLAIN and getattr(kind, "size", MOST + 1) <= MOST


_PLAIN = {np.dtype(name) for name in ("bool", "int32", "int64", "uint32", "float32", "float64")}


def _is_here(x: Any) -> bool:
    return not isinstance(x, jax.Array) or (not jaxprs.is_traced(x) and len(x.devices()) == 1)


SAME = ("copy", "copy_p", "name", "optimization_barrier")
"""What gives back its operands."""


def _has_subnormal(*arrays: np.ndarray) -> bool:
    for x in arrays:
        if x.dtype.kind == "f":
            size = np.abs(x)
            if np.any((size < np.finfo(x.dtype).tiny) & (size > 0)):
                return True
    return False


def _rounded(f: Callable) -> Callable:
    """An operation that XLA does with numbers below the smallest normal one taken for 0."""

    def of(params: dict, *arrays: np.ndarray) -> np.ndarray | None:
        if _has_subnormal(*arrays):
            return None
        made = f(*arrays)
        return None if _has_subnormal(made) else made

    return of


def _divided(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.divide(x, y) if x.dtype.kind == "f" else np.empty(0)


def _where(params: dict, which: np.ndarray, *cases: np.ndarray) -> np.ndarray | None:
    return np.where(which, cases[1], cases[0]) if which.dtype == bool else None


def _broadcast(params: dict, x: np.ndarray) -> np.ndarray:
    kept = dict(zip(params["broadcast_dimensions"], x.shape, strict=True))
    thin = [kept.get(axis, 1) for axis in range(len(params["shape"]))]
    return np.broadcast_to(x.reshape(thin), params["shape"])


def _converted(params: dict, x: np.ndarray) -> np.ndarray | None:
    new = np.dtype(params["new_dtype"])
    loses = x.dtype.kind == "f" and (new.kind != "f" or _has_subnormal(x))
    made = None if loses else x.astype(new)
    return None if made is None or _has_subnormal(made) else made


def _counted(params: dict) -> np.ndarray:
    shape, axis = params["shape"], params["dimension"]
    thin = [-1 if i == axis else 1 for i in range(len(shape))]
    return np.broadcast_to(np.arange(shape[axis], dtype=params["dtype"]).reshape(thin), shape)


def _reduced(f: Callable) -> Callable:
    def of(params: dict, x: np.ndarray) -> np.ndarray | None:
        known = x.size and not _has_subnormal(x)
        return np.asarray(f(x, axis=tuple(params["axes"]))) if known else None

    return of


def _sliced(params: dict, x: np.ndarray) -> np.ndarray:
    parts = params["start_indices"], params["limit_indices"], params["strides"] or [1] * x.ndim
    return x[tuple(slice(*part) for part in zip(*parts, strict=True))]


def _power(params: dict, x: np.ndarray) -> np.ndarray | None:
    y = params["y"]
    return _rounded(lambda x: x * x if y == 2 else x * x * x)(params, x) if y in (2, 3) else None


def _plain(f: Callable) -> Callable:
    return lambda params, *arrays: f(*arrays)


EXACT: dict[str, Callable[..., np.ndarray | None]] = {
    **{name: _rounded(f) for name, f in {
        "add": np.add, "add_any": np.add, "sub": np.subtract, "mul": np.multiply, "div": _divided,
        "max": np.maximum, "min": np.minimum, "square": np.square, "eq": np.equal,
        "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
        "ge": np.greater_equal,
    }.items()},
    **{name: _plain(f) for name, f in {
        "neg": np.negative, "abs": np.abs, "and": np.bitwise_and, "or": np.bitwise_or,
        "not": np.invert, "is_finite": np.isfinite,
    }.items()},
    "integer_pow": _power,
    "select_n": _where,
    "broadcast_in_dim": _broadcast,
    "reshape": lambda params, x: x.reshape(params["new_sizes"]),
    "transpose": lambda params, x: x.transpose(params["permutation"]),
    "squeeze": lambda params, x: x.squeeze(tuple(params["dimensions"])),
    "convert_element_type": _converted,
    "iota": _counted,
    "reduce_max": _reduced(np.max),
    "reduce_min": _reduced(np.min),
    "slice": _sliced,
    "concatenate": lambda params, *xs: np.concatenate(xs, params["dimension"]),
    "rev": lambda params, x: np.flip(x, tuple(params["dimensions"])),
}  # fmt: skip
"""From the parameters of a primitive and arrays to its result, or None where XLA has to say."""
