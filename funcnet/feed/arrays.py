"""What every data set here is made of: two parts, split and typed the same way each time."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..types import require

HELD_OUT = 0.2


class Standard(NamedTuple):
    """How columns of numbers were brought near 1: less their mean, over their deviation.

    Attributes:
        mean: `(columns,)`, float64.
        deviation: The same; 1 where a column does not vary.

    >>> Standard.of(np.array([[1.0], [3.0]])).forth(np.array([[5.0]])).tolist()
    [[3.0]]
    """

    mean: np.ndarray
    deviation: np.ndarray

    @staticmethod
    def of(x: np.ndarray) -> "Standard":
        """The mean and deviation of each column of `(n, columns)`."""
        deviation = x.std(0, dtype=np.float64)
        return Standard(x.mean(0, dtype=np.float64), np.where(deviation > 0, deviation, 1))

    def forth(self, x: np.ndarray) -> np.ndarray:
        """Standardised, in float32."""
        return ((x - self.mean) / self.deviation).astype(np.float32)

    def back(self, x: np.ndarray) -> np.ndarray:
        """In their own units again, in float64."""
        return x.astype(np.float64) * self.deviation + self.mean


class Data(NamedTuple):
    """A data set in two parts.

    Attributes:
        train: Inputs and targets to learn from.
        test: Inputs and targets held out.
        classes: The name of each class, or None where the target is a number.
        name: What was loaded.
        columns: How the columns of a table became numbers; None where there was no table.
        inputs: How the columns of a table were standardised, by the training part; None if not.
        targets: The same of targets that are numbers.
        features: The names of the columns of the inputs, where they have names.
    """

    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    classes: tuple[str, ...] | None
    name: str
    columns: Any = None
    inputs: Standard | None = None
    targets: Standard | None = None
    features: tuple[str, ...] = ()


def check_lengths(where: str, data: Sequence[Any]) -> int:
    """The common length of the arrays.

    Raises:
        ValueError: If they differ in length, are empty, or are no more than numbers.
    """
    require(
        all(map(np.ndim, data)),
        where,
        "arrays whose first axis counts the examples",
        " and ".join(f"shape {np.shape(part)}" for part in data),
        "A single number is an array of one: np.array([x]).",
    )
    lengths = [np.shape(part)[0] for part in data]
    require(
        len(set(lengths)) == 1,
        where,
        "inputs and targets of one length",
        " and ".join(map(str, lengths)),
        "Give one target for each input.",
    )
    require(lengths[0], where, "at least one example", "none", "Bring data to learn from.")
    return lengths[0]


def check_counts(where: str, counts: Mapping[str, Any]) -> None:
    """Refuse what is no whole number of 0 or above.

    Raises:
        ValueError: If there is one.
    """
    for name, value in counts.items():
        require(
            isinstance(value, int | np.integer) and value >= 0,
            where,
            f"{name} to be a whole number, 0 or above",
            repr(value),
            f"Leave {name} out for 0.",
        )


def finite_in(
    dtype: Any, where: str, name: str, part: np.ndarray, rows: Sequence[int] | None = None
) -> np.ndarray:
    """The array in `dtype`; `rows` are the numbers of its examples, where it is a batch.

    Raises:
        ValueError: If there is a NaN, an infinity or an integer beyond `dtype` in it, with the
            place of the first one.
    """
    with np.errstate(over="ignore"):
        cast = part.astype(dtype, copy=False)
    if part.dtype.kind in "biu":
        _check_whole(cast, where, name, part, rows)
        return cast
    if np.isfinite(cast).all():
        return cast
    place = tuple(map(int, np.argwhere(~np.isfinite(cast))[0]))
    beyond = f", beyond {cast.dtype}" if np.isfinite(part[place]) else ""
    require(
        False,
        where,
        f"finite numbers in {name}",
        f"{part[place]} at {_at(place, rows)}{beyond}",
        "Leave that example out, or fill the gap: np.nan_to_num(x).",
    )
    return cast


def _at(place: tuple[int, ...], rows: Sequence[int] | None) -> list[int]:
    return list(place) if rows is None else [int(rows[place[0]]), *place[1:]]


def _check_whole(
    cast: np.ndarray, where: str, name: str, part: np.ndarray, rows: Sequence[int] | None
) -> None:
    if cast.dtype == part.dtype or cast.dtype.kind not in "iu" or not part.size:
        return
    range_ = np.iinfo(cast.dtype)
    beyond = (part < range_.min) | (part > range_.max)
    if beyond.any():
        place = tuple(map(int, np.argwhere(beyond)[0]))
        require(
            False,
            where,
            f"integers from {range_.min} to {range_.max} in {name}",
            f"{part[place]} at {_at(place, rows)}",
            "Number what they name from 0, or make them floating: x.astype(np.float32).",
        )


def need(
    ok: object, expected: str, got: object, remedy: str, error: type[Exception] = ValueError
) -> None:
    """`require` in the name of `load_data`."""
    require(ok, "load_data", expected, got, remedy, error)


def numbered(n: int) -> tuple[str, ...]:
    """The numbers as the names of classes."""
    return tuple(map(str, range(n)))


def split(
    name: str, x: np.ndarray, y: np.ndarray, classes: tuple[str, ...] | None, seed: int
) -> Data:
    """Hold out a fifth: of each class its share, of a regression any fifth."""
    x, y = typed(x), target(y, classes)
    train, test = held_out(y, classes is not None, seed)
    need(
        len(test),
        "two examples of a class or more",
        f"{len(y)} in {name}",
        "Bring more, or give x_test and y_test.",
    )
    return Data((x[train], y[train]), (x[test], y[test]), classes, name)


def held_out(y: np.ndarray, classes: bool, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The places of the examples to learn from, and of those that are held out."""
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(y == c) for c in np.unique(y)] if classes else [np.arange(len(y))]
    kept, held = [], []
    for group in groups:
        cut = max(round(HELD_OUT * len(group)), 1) if len(group) > 1 else 0
        order = rng.permutation(group)
        held.append(order[:cut])
        kept.append(order[cut:])
    return rng.permutation(np.concatenate(kept)), rng.permutation(np.concatenate(held))


def typed(x: np.ndarray) -> np.ndarray:
    """Inputs as float32; bytes are pixels from 0 to 255, and an image gets a channel axis."""
    pixels = x.dtype == np.uint8
    scaled = x.astype(np.float32) / (255 if pixels else 1)
    return scaled[..., None] if pixels and x.ndim == 3 else scaled


def target(y: np.ndarray, classes: tuple[str, ...] | None) -> np.ndarray:
    """Labels as int32, numbers as columns of float32."""
    if classes is not None:
        return y.astype(np.int32)
    return y.astype(np.float32).reshape(len(y), -1)


def alike(data: Data, *names: str) -> Data:
    """The data, unless an example of the test part has another shape."""
    for name, part, held in zip(names, data.train, data.test, strict=True):
        need(
            part.shape[1:] == held.shape[1:],
            f"examples of shape {part.shape[1:]} in {name}, as in the training part",
            f"shape {held.shape[1:]}",
            "Bring both parts into one shape.",
        )
    return data
