"""What a user gives as data, taken apart into arrays of numbers on the host."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..types import require, shown
from .arrays import finite_in


class DataError(ValueError):
    """Data that fails while it is read: an example that cannot be had, a worker that is gone.

    `fit` ends with what was learned until then, where there was a step.
    """


def named_parts(data: Any) -> tuple[list[tuple[Any, Any]], Any]:
    """The arrays of data, each with its path, and the structure.

    Dicts and tuples hold several; a tuple inside, if all it has is numbers, is an array.
    """

    def is_leaf(x: Any) -> bool:
        if isinstance(x, tuple) and x is not data:
            return bool(x) and all(isinstance(part, int | float | np.generic) for part in x)
        return not isinstance(x, tuple | dict)

    return jax.tree_util.tree_flatten_with_path(data, is_leaf=is_leaf)


def plain(given: Any) -> Any:
    """What a source gives, as JAX knows it: a dict for any mapping, a tuple for a list."""
    if isinstance(given, Mapping):
        return dict(given)
    return tuple(given) if isinstance(given, list) else given


def named_leaves(name: str, data: Any) -> tuple[list[str], list[Any], Any]:
    """The names, the arrays and the structure of data; a tuple is inputs, then a target.

    >>> names, leaves, _ = named_leaves("data", ({"left": [1], "right": [2]}, [3]))
    >>> names, leaves
    (["input 0 of data['left']", "input 0 of data['right']", 'the target of data'], [[1], [2], [3]])
    """
    pairs, structure = named_parts(plain(data))
    parts = len(data) if isinstance(data, tuple) else 0
    names = [_name(name, path, parts) for path, _ in pairs]
    return names, [leaf for _, leaf in pairs], structure


def _name(name: str, path: Sequence[Any], parts: int) -> str:
    if parts > 1 and path:
        place = getattr(path[0], "idx", None)
        if place is not None:
            first = f"the target of {name}" if place == parts - 1 else f"input {place} of {name}"
            return first + jax.tree_util.keystr(tuple(path[1:]))
    return name + jax.tree_util.keystr(tuple(path))


def numbers(where: str, which: str, given: Any, rows: Any = None) -> np.ndarray:
    """One part of the data on the host, in the dtype that JAX computes in.

    Args:
        where: The function the reader called.
        which: What the part is called.
        given: What `np.asarray` makes an array of.
        rows: The numbers of the examples, where these are not all.

    Raises:
        ValueError: If examples have several shapes, are hidden, not finite, or beyond the dtype.
        TypeError: If they are no numbers.
    """
    require(
        not np.ma.is_masked(given),
        where,
        f"no hidden entries in {which}",
        "a masked array",
        "Fill them, x.filled(0), or leave those examples out.",
    )
    arrays = hasattr(given, "__array__") or isinstance(given, list | tuple | int | float | complex)
    require(
        arrays,
        where,
        f"an array in {which}",
        shown(given),
        "Give arrays of one length, or one source of examples: "
        "of several parts, such as data['train'], the one to learn from.",
        TypeError,
    )
    try:
        part = np.asarray(given)
    except ValueError:
        remedy = (
            "Give each example the same shape: cut the longer ones, or fill the shorter ones up."
        )
        require(False, where, f"examples of one shape in {which}", "lists of many lengths", remedy)
        raise
    require(
        jnp.issubdtype(part.dtype, jnp.number) or part.dtype == np.bool_,
        where,
        f"numbers in {which}",
        f"dtype {part.dtype}",
        "Number the classes from 0."
        if which.startswith("the target") or part.dtype.kind in "US"
        else "Convert them: x.astype(np.float32).",
        TypeError,
    )
    return finite_in(jax.dtypes.canonicalize_dtype(part.dtype), where, which, part, rows)


def examples_in(batch: Any) -> int:
    """How many examples there are in a batch."""
    return np.shape(jax.tree.leaves(batch)[0])[0]


def collate(where: str, name: str, examples: Sequence[Any], rows: Sequence[int]) -> Any:
    """Single examples as a batch: arrays with one more axis in front, in the dtypes of JAX.

    Args:
        where: The function the reader called.
        name: What the data is called.
        examples: Tuples, dicts or single arrays; a list stands for a tuple.
        rows: The number of each example.

    Raises:
        DataError: If two examples have other parts or other shapes, or one holds no numbers.

    >>> collate("fit", "data", [([1.0, 2.0], 0), ([3.0, 4.0], 1)], [7, 3])[1].tolist()
    [0, 1]
    """
    taken = [plain(x) for x in examples]
    names, first, structure = named_leaves(name, taken[0])
    columns, (_, shape) = [first], _flat(taken[0])
    for row, example in zip(rows[1:], taken[1:], strict=True):
        leaves, other = _flat(example)
        if other != shape:
            require(
                False,
                where,
                f"the same parts in each example of {name}, {_parts(taken[0])}",
                f"{_parts(example)} in example {row}",
                "Give each example the same keys or the same number of arrays.",
                DataError,
            )
        columns.append(leaves)
    parts = zip(*columns, strict=True)
    try:
        batch = [
            numbers(where, which, _stacked(where, which, part, rows), rows)
            for which, part in zip(names, parts, strict=True)
        ]
    except (ValueError, TypeError) as error:
        raise error if isinstance(error, DataError) else DataError(str(error)) from None
    return jax.tree.unflatten(structure, batch)


def _flat(example: Any) -> tuple[list[Any], Any]:
    """The arrays of an example, and what tells its structure from another."""
    kind = type(example)
    inner = example if kind is tuple else example.values() if kind is dict else (example,)
    if any(isinstance(part, tuple | dict) for part in inner):
        pairs, structure = named_parts(example)
        return [leaf for _, leaf in pairs], structure
    if kind is dict:
        keys = sorted(example)
        return [example[key] for key in keys], keys
    return [*inner], (kind is tuple, len(inner))


def _stacked(where: str, which: str, part: Sequence[Any], rows: Sequence[int]) -> np.ndarray:
    arrays = [_array(given) for given in part]
    shape, kinds = arrays[0].shape, {array.dtype for array in arrays}
    if all(jnp.issubdtype(kind, jnp.number) or kind == np.bool_ for kind in kinds):
        odd = next((i for i, array in enumerate(arrays) if array.shape != shape), None)
        if odd is None:
            return np.stack(arrays)
        require(
            False,
            where,
            f"examples of one shape in {which}",
            f"shape {shape} in example {rows[0]} and {arrays[odd].shape} in example {rows[odd]}",
            "Give each the same shape: cut the longer ones, or fill the shorter ones up.",
            DataError,
        )
    odd = next(i for i, array in enumerate(arrays) if array.dtype.kind in "OUSMmV")
    require(
        False,
        where,
        f"numbers of one shape in {which}",
        f"{_said(part[odd])} in example {rows[odd]}",
        "Convert it to numbers, or leave that part out.",
        DataError,
    )
    raise AssertionError


def _array(given: Any) -> np.ndarray:
    try:
        return np.asarray(given)
    except ValueError:
        return np.empty((), object)


def _said(given: Any) -> str:
    return "lists of many lengths" if isinstance(given, list) else shown(given)


def _parts(example: Any) -> str:
    if isinstance(example, Mapping):
        return ", ".join(map(str, sorted(example, key=str)))
    return f"{len(example)} arrays" if isinstance(example, tuple) else "one array"
