"""A trace as a plain document, which every picture of it is drawn from, and back.

The document is what `Trace.json()` writes; docs/traces.md has its schema. Fields that are empty
are left out.
"""

import dataclasses
import math
from collections.abc import Sequence
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
    check = trace.check()
    said = verdict(trace)
    return {
        "schema": SCHEMA,
        "function": trace.function,
        "header": dict(trace.header),
        "check": None if check is None else _check(check),
        **({"verdict": said} if said != str(check or "") else {}),
        "rows": [_row(row) for row in trace.rows],
        "contributions": [_contribution(c) for c in trace.contributions],
    }  # fmt: skip


def _check(check: Check) -> dict[str, Any]:
    fields = check._asdict()
    fields |= {name: _finite(fields[name]) for name in ("difference", "scale")}
    return {name: x for name, x in fields.items() if x or name not in ("nonfinite", "refused")}


def _row(row: Row) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": row.name, "kind": row.kind, "op": row.op, "expression": row.expression,
        "operands": list(row.operands), "variable": row.variable, "scope": row.scope,
        "within": list(row.within), "source": row.source and list(row.source),
        "value": _value(row.value), "active": row.active, "memory": row.memory,
        "rule": list(row.rule), "kept": list(row.kept),
        "tangent": row.tangent and _value(row.tangent),
        "inside": [_line(line) for line in row.inside],
        "backward": [_line(line) for line in row.backward],
        "note": row.note,
    }  # fmt: skip
    return {name: x for name, x in fields.items() if x not in (None, "", [], False)}


def _line(line: Line) -> list[Any]:
    return [line.name, line.expression, _value(line.value), line.source and list(line.source)]


def _contribution(c: Contribution) -> dict[str, Any]:
    fields = {"to": c.target, "from": c.source, "formula": c.formula, "value": _value(c.value)}
    return fields if c.total is c.value else {**fields, "total": _value(c.total)}


def _value(value: Value) -> dict[str, Any]:
    fields: dict[str, Any] = {"shape": list(value.shape), "dtype": value.dtype}
    if isinstance(value.array, np.ndarray):
        fields["array"] = _numbers(value.array)
    if value.stats is not None:
        fields["stats"] = [_short(x) for x in value.stats]
    return fields


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


def rows_of(fields: dict[str, Any]) -> tuple[tuple[Row, ...], tuple[Contribution, ...]]:
    """The rows and contributions of a document."""
    contributions = tuple(_read_contribution(c, i) for i, c in enumerate(fields["contributions"]))
    by_target: dict[str, list[Contribution]] = {}
    for c in contributions:
        by_target.setdefault(c.target, []).append(c)
    rows = tuple(_read_row(row, by_target.get(row["name"], [])) for row in fields["rows"])
    return rows, contributions


def _read_row(fields: dict[str, Any], own: Sequence[Contribution]) -> Row:
    plain = {f.name: fields[f.name] for f in dataclasses.fields(Row) if f.name in fields}
    defaults = {"operands": (), "variable": "", "scope": "", "within": (), "source": None}
    read = {**defaults, **plain, "value": _read_value(fields["value"])}
    for name in ("operands", "within", "rule", "kept"):
        read[name] = tuple(fields.get(name, ()))
    for name in ("inside", "backward"):
        read[name] = tuple(_read_line(line) for line in fields.get(name, ()))
    if "source" in fields:
        read["source"] = Source(*fields["source"])
    if "tangent" in fields:
        read["tangent"] = _read_value(fields["tangent"])
    read["expression"] = fields.get("expression", "")
    return Row(**read, contributions=tuple(own), adjoint=own[-1].total if own else None)


def _read_line(fields: list[Any]) -> Line:
    name, expression, value, source = fields
    return Line(name, expression, _read_value(value), source and Source(*source))


def _read_contribution(fields: dict[str, Any], order: int) -> Contribution:
    value = _read_value(fields["value"])
    total = _read_value(fields["total"]) if "total" in fields else value
    return Contribution(fields["to"], fields["from"], fields["formula"], value, total, order)


def _read_value(fields: dict[str, Any]) -> Value:
    shape, dtype = tuple(fields["shape"]), fields["dtype"]
    array = fields.get("array")
    if array is not None:
        array = _array(array, dtype, shape)
    stats = fields.get("stats")
    read = None if stats is None else Stats(*(float(x) for x in stats))
    return Value(shape, dtype, array, read)


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
