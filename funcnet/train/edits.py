"""How far what was read is from what was written, in edits."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..types import require, shown


def edit_distance(first: Sequence[Any] | np.ndarray, second: Sequence[Any] | np.ndarray) -> int:
    """The fewest symbols to insert, leave out or exchange that make one sequence of the other.

    Args:
        first: A string, or any sequence of what can be compared, such as labels.
        second: The same.

    >>> edit_distance("kitten", "sitting"), edit_distance([1, 2], [])
    (3, 2)

    Reference: Wagner & Fischer, "The String-to-String Correction Problem", 1974.
    """
    row = list(range(len(second) + 1))
    for i, a in enumerate(first):
        diagonal, row[0] = row[0], i + 1
        for j, b in enumerate(second):
            exchanged = diagonal + (a != b)
            diagonal = row[j + 1]
            row[j + 1] = min(exchanged, row[j] + 1, diagonal + 1)
    return row[-1]


def character_error_rate(read: Sequence[Any], written: Sequence[Any]) -> float:
    """The edits that what was read needs, for each symbol that was written.

    All edits are summed before they are divided, so long sequences count for more than short ones.

    Args:
        read: What was read: strings, or sequences of labels.
        written: What it should be, as many.

    Returns:
        0 where all is right, 1 where nothing was read, and more than that where too much was. If
        nothing was written, 0 where nothing was read either, else infinity.

    Raises:
        TypeError: If either is one string, not several.
        ValueError: If there are not as many of both.

    >>> character_error_rate(["125", "30"], ["1255", "3"])
    0.4

    Reference: Graves et al., "Connectionist Temporal Classification", 2006, equation 2.
    """
    for name, given in (("read", read), ("written", written)):
        require(
            not isinstance(given, str),
            "character_error_rate",
            f"{name} to be a sequence of strings or labels",
            shown(given),
            "Put a single one into a list.",
            TypeError,
        )
    require(
        len(read) == len(written),
        "character_error_rate",
        f"as many sequences read as written, {len(written)}",
        len(read),
        "Give what was read for each.",
    )
    edits = sum(map(edit_distance, read, written))
    symbols = sum(map(len, written))
    return edits / symbols if symbols else (np.inf if edits else 0.0)
