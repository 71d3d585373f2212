"""What of a batch the network gets, and what the criterion."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..types import require, shown

Read = Callable[[Any], tuple[tuple, Any]]
"""From a batch to the network's inputs, and what criterion and metrics get beside the output."""


def reader(inputs: Any = None) -> Read:
    """How a batch is read.

    Args:
        inputs: None for a batch `(*inputs, target)`; a key, or a sequence of keys, of what the
            network gets of a batch that is a dict; or a function from a batch to a tuple of it.
            Unless it is None, the criterion gets the whole batch.

    Raises:
        TypeError: If `inputs` is none of these; from the reader, if the batch is no such batch.
        ValueError: From the reader, if the batch has no such key.

    >>> reader()((1, 2, 3))
    ((1, 2), 3)
    >>> reader("image")({"image": 1, "label": 2})
    ((1,), {'image': 1, 'label': 2})
    """
    if inputs is None:
        return _pair
    if callable(inputs):
        return lambda batch: (_tuple(inputs(batch)), batch)
    names = (inputs,) if isinstance(inputs, str) else inputs
    named = isinstance(names, Sequence) and all(isinstance(name, str) for name in names)
    require(
        named and names,
        "make_step",
        "inputs to be a key of the batch, a tuple of keys, or a function of the batch",
        shown(inputs),
        "Write inputs='image', or inputs=('tokens', 'mask').",
        TypeError,
    )
    return lambda batch: (tuple(_entry(batch, name) for name in names), batch)


def _pair(batch: Any) -> tuple[tuple, Any]:
    kind = "one array" if hasattr(batch, "shape") else f"a {type(batch).__name__} of {len(batch)}"
    require(
        isinstance(batch, tuple) and len(batch) >= 2,
        "make_step",
        "a batch that is a tuple (*inputs, target)",
        kind,
        "Name what the network gets: make_step(..., inputs='image')."
        if isinstance(batch, Mapping)
        else "Call step.update(state, (x, y)).",
        TypeError,
    )
    whole: Any = batch
    return whole[:-1], whole[-1]


def _tuple(found: Any) -> tuple:
    require(
        isinstance(found, tuple | list),
        "make_step",
        "from the function inputs a tuple, what the network gets",
        shown(found),
        "Write inputs=lambda batch: (batch['image'],).",
        TypeError,
    )
    return tuple(found)


def _entry(batch: Any, name: str) -> Any:
    require(
        isinstance(batch, Mapping),
        "make_step",
        f"a batch that is a dict, since inputs names {name!r}",
        f"a {type(batch).__name__}",
        "Leave inputs out for batches (*inputs, target), or give a function.",
        TypeError,
    )
    require(
        name in batch,
        "make_step",
        f"inputs among the batch's keys, {', '.join(map(repr, sorted(batch)))}",
        repr(name),
        "Write one of them.",
    )
    return batch[name]
