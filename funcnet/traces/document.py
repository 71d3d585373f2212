"""A trace as a plain document, which every picture of it is drawn from, and back.

The document is what `Trace.json()` writes; docs/traces.md has its schema. Fields that are empty
are left out.
"""

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..jaxpr import jaxprs
from .record.rows import Contribution, Line, Row, Source
from .record.values import Stats, Value
from .verdict import Check, verdict

SCHEMA = "funcnet.trace/1"


def document(trace: Any) -> dict[str, Any]:
    """A trace as nested dicts, lists, strings and finite numbers."""
    check, said = trace.check(), verdict(trace)
    return {
        "schema": SCHEMA,
        "function": trace.function,
        "header": dict(trace.header),
        "check": None if check is None else _compared(check),
        **({"verdict": said} if said != str(check or "") or _trusts(check) else {}),
        "rows": [_row(row) for row in trace.rows],
        "contributions": [_contribution(c) for c in trace.contributions],
    }


def _trusts(check: Check | None) -> bool:
    return check is not None and bool(check.trusted)


_ALWAYS = ("difference", "scale", "against")


def _compared(check: Check) -> dict[str, Any]:
    found = check._asdict()
    found |= {name: _finite(found[name]) for name in ("difference", "scale")}
    return {name: x for name, x in found.items() if x or name in _ALWAYS}


_FIELDS = tuple(f.name for f in fields(Row) if f.name not in ("adjoint", "contributions"))


def _row(row: Row) -> dict[str, Any]:
    found = {name: _plain(getattr(row, name)) for name in _FIELDS}
    return {name: x for name, x in found.items() if x not in (None, "", [], False)}


def _plain(x: Any) -> Any:
    if isinstance(x, Value):
        return _value(x)
    if isinstance(x, Line):
        return [_plain(getattr(x, f.name)) for f in fields(Line)]
    return list(map(_plain, x)) if isinstance(x, tuple) else x


def _contribution(c: Contribution) -> dict[str, Any]:
    found = {"to": c.target, "from": c.source, "formula": c.formula, "value": _value(c.value)}
    return found if c.total is c.value else {**found, "total": _value(c.total)}


def _value(value: Value) -> dict[str, Any]:
    found: dict[str, Any] = {"shape": list(value.shape), "dtype": value.dtype}
    if isinstance(value.array, np.ndarray):
        found["array"] = _numbers(value.array)
    if value.stats is not None:
        found["stats"] = [_short(x) for x in value.stats]
    return found


def _numbers(array: Any) -> Any:
    if np.iscomplexobj(array):
        return {"real": _numbers(array.real), "imag": _numbers(array.imag)}
    if not jaxprs.is_inexact(array):
        return array.tolist()
    wide = array if array.dtype.itemsize >= 4 else array.astype(np.float32)
    if wide.dtype == np.float32:
        return _nested(np.vectorize(lambda x: float(str(x)), otypes=[float])(wide)
                       if wide.size else wide)  # fmt: skip
    return _nested(wide)


def _nested(array: np.ndarray) -> Any:
    if array.ndim == 0:
        return _finite(array.item())
    return [_nested(part) for part in array]


def _finite(x: float) -> float | str:
    if math.isnan(x):
        return "NaN"
    if math.isinf(x):
        return "Infinity" if x > 0 else "-Infinity"
    return x


def _short(x: float) -> float | str:
    """A figure that sums up an array, in the seven digits anyone would read."""
    return float(f"{x:.7g}") if math.isfinite(x) else _finite(x)


def rows_of(written: dict[str, Any]) -> tuple[tuple[Row, ...], tuple[Contribution, ...]]:
    """The rows and contributions of a document."""
    contributions = tuple(_read_contribution(c, i) for i, c in enumerate(written["contributions"]))
    by_target: dict[str, list[Contribution]] = {}
    for c in contributions:
        by_target.setdefault(c.target, []).append(c)
    rows = tuple(_read_row(row, by_target.get(row["name"], [])) for row in written["rows"])
    return rows, contributions


def _read_row(written: dict[str, Any], own: Sequence[Contribution]) -> Row:
    readers = {"value": _read_value, "tangent": _read_value, "source": _read_source,
               "inside": _read_lines, "backward": _read_lines}  # fmt: skip
    read = {name: readers.get(name, _tuple)(x) for name, x in written.items() if name in _FIELDS}
    return Row(**read, contributions=tuple(own), adjoint=own[-1].total if own else None)


def _tuple(x: Any) -> Any:
    return tuple(x) if isinstance(x, list) else x


def _read_source(parts: list[Any] | None) -> Source | None:
    return Source(*parts) if parts else None


def _read_lines(lines: list[list[Any]]) -> tuple[Line, ...]:
    return tuple(Line(name, said, _read_value(x), _read_source(at)) for name, said, x, at in lines)


def _read_contribution(written: dict[str, Any], order: int) -> Contribution:
    value = _read_value(written["value"])
    total = _read_value(written["total"]) if "total" in written else value
    return Contribution(written["to"], written["from"], written["formula"], value, total, order)


def _read_value(written: dict[str, Any]) -> Value:
    shape, dtype = tuple(written["shape"]), written["dtype"]
    array, stats = written.get("array"), written.get("stats")
    return Value(
        shape,
        dtype,
        None if array is None else _array(array, dtype, shape),
        None if stats is None else Stats(*map(float, stats)),
    )


def _array(numbers: Any, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    known = np.dtype(dtype if dtype in np.sctypeDict else "float32")
    if isinstance(numbers, dict):
        array = np.empty(shape, np.complex128)
        array.real = _array(numbers["real"], "float64", shape)
        array.imag = _array(numbers["imag"], "float64", shape)
    else:
        array = np.asarray(numbers, next(wide for k, wide in _WIDE if jnp.issubdtype(known, k)))
    return array.astype(known).reshape(shape)


_WIDE = (
    (jnp.inexact, np.float64), (jnp.unsignedinteger, np.uint64), (jnp.integer, np.int64),
    (np.bool_, np.bool_),
)  # fmt: skip
