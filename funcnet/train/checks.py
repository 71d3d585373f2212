"""What `fit` looks at before the first step, so that bad data ends in a sentence and not in NaN."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..feed.arrays import Data, check_lengths, finite_in
from ..figures import Figure
from ..nn.layer import Layer
from ..types import Array, require, shown
from .history import COUNTERS, VALIDATION
from .state import TrainState


def arrays_of(name: str, data: Any, where: str = "fit") -> tuple[np.ndarray, ...]:
    """The parts on the host, in the dtypes that JAX computes in, looked through for NaN."""
    require(
        not isinstance(data, Data),
        where,
        f"{name} as a tuple of arrays",
        "a whole Data",
        "Call fit(net, criterion, optimizer, data.train, validation=data.test, ...).",
        TypeError,
    )
    in_batches = hasattr(data, "__iter__") and not isinstance(data, tuple | list)
    require(
        isinstance(data, tuple | list) and len(data) >= 2,
        where,
        f"{name} as a tuple of arrays, the inputs and then the target",
        f"{type(data).__name__} of {len(data)}" if hasattr(data, "__len__") else shown(data),
        "Give (x, y); batches that come one by one go to a loop over the step of make_step."
        if in_batches and not hasattr(data, "shape")
        else "Give (x, y).",
        TypeError,
    )
    last = len(data) - 1
    names = [
        f"the target of {name}" if i == last else f"input {i} of {name}" for i in range(last + 1)
    ]
    parts = [_numbers(where, *named) for named in zip(names, data, strict=True)]
    check_lengths(where, parts)
    for which, part in zip(names, parts, strict=True):
        expected = f"no axis of length 0 in {which}"
        require(part.size, where, expected, f"shape {part.shape}", "Give each example a number.")
    return tuple(parts)


def _numbers(where: str, which: str, given: Any) -> np.ndarray:
    """One part of the data on the host, in the dtype that JAX computes in."""
    require(
        not np.ma.is_masked(given),
        where,
        f"no hidden entries in {which}",
        "a masked array",
        "Fill them, x.filled(0), or leave those examples out.",
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
    return finite_in(jax.dtypes.canonicalize_dtype(part.dtype), where, which, part)


def check_settings(
    epochs: int,
    batch: int,
    patience: int | None,
    seed: int,
    data: tuple[np.ndarray, ...],
    held: tuple[np.ndarray, ...] | None,
) -> None:
    """Refuse numbers that make no training, and data that does not fill a batch."""
    n = len(data[0])
    ranges = {
        "epochs": (epochs, 1, None),
        "batch": (batch, 1, None),
        "patience": (patience, 1, None),
        "seed": (seed, 0, 2**32 - 1),
    }
    for name, (value, low, high) in ranges.items():
        whole = isinstance(value, int | np.integer)
        require(
            (value is None and name == "patience")
            or (whole and low <= value and (high is None or value <= high)),
            "fit",
            f"{name} to be a whole number, {low} {f'to {high}' if high else 'or above'}",
            repr(value),
            f"Leave {name} out, or choose another."
            if name in ("seed", "patience")
            else f"Write {name}=16.",
        )
    require(
        batch <= n,
        "fit",
        f"at least one batch of {batch} examples",
        f"{n}",
        f"Give batch={n} or less, or bring more data.",
    )
    require(
        patience is None or held is not None,
        "fit",
        "validation data beside patience",
        "none",
        "Give validation=(x, y): patience looks at the loss on it.",
    )
    require(
        held is None or len(held) == len(data),
        "fit",
        f"as many arrays in validation as in data, {len(data)}",
        len(held or ()),
        "Give the same inputs and the target.",
    )


def check_calls(metrics: Mapping[str, Any], on_epoch: Any) -> None:
    """Refuse metrics that would take the place of a column of the history, and no function."""
    require(
        on_epoch is None or callable(on_epoch),
        "fit",
        "on_epoch to be a function of the row and the state",
        repr(on_epoch),
        "Write on_epoch=lambda row, state: print(row).",
        TypeError,
    )
    for name in metrics:
        require(
            name not in COUNTERS and not name.startswith(VALIDATION),
            "fit",
            f"metrics of other names than {', '.join(COUNTERS)} and {VALIDATION}...",
            repr(name),
            "The history has columns of those names; choose another.",
        )


def check_labels(
    net: Layer, criterion: Callable[[Any, Any], Array], state: TrainState, data: tuple
) -> None:
    """Refuse integer labels for which the network has no output."""
    *inputs, target = data
    shapes = [jax.ShapeDtypeStruct((1, *part.shape[1:]), part.dtype) for part in inputs]
    output, _ = jax.eval_shape(net.apply, state.params, state.state, *shapes)
    rank = getattr(output, "ndim", None)
    if not np.issubdtype(target.dtype, np.integer) or rank != target.ndim + 1:
        return
    classes = output.shape[-1]
    least, most = int(target.min()), int(target.max())
    # One logit may stand for a yes or no, or for a count: its criterion knows.
    ok = classes == 1 or (most < classes and (least >= 0 or _ignored(criterion, output, target)))
    require(
        ok,
        "fit",
        f"labels from 0 to {classes - 1}, one for each output of the network",
        f"labels from {least} to {most}",
        "Number the classes from 0 and give the network an output for each; "
        "a target that is no class is float.",
    )


def dry_run(
    net: Layer,
    criterion: Callable[[Any, Any], Any],
    metrics: Mapping[str, Callable] | None,
    state: TrainState,
    data: tuple,
) -> None:
    """Call metrics and criterion on the least and the greatest target of a network of one output.

    Compiled they cannot look at values; here they refuse targets that they cannot judge.
    """
    *inputs, target = data
    shapes = [jax.ShapeDtypeStruct((2, *part.shape[1:]), part.dtype) for part in inputs]
    output, _ = jax.eval_shape(net.apply, state.params, state.state, *shapes)
    if not hasattr(output, "shape") or output.shape not in ((2,), (2, 1)) or target[:1].size != 1:
        return
    ends = np.stack([target[target.argmin()], target[target.argmax()]])
    if ends.min() >= 0 and ends.max() <= 1:
        return
    zeros = jnp.zeros(output.shape, output.dtype)
    for metric in (metrics or {}).values():
        metric(zeros, ends)
    if not np.issubdtype(target.dtype, np.floating):
        criterion(zeros, ends)


def _ignored(criterion: Callable, output: Any, target: np.ndarray) -> bool:
    """Whether the criterion leaves negative labels out: its gradient there is then 0."""
    row = np.argwhere(target < 0)[0][0]
    labels = target[row : row + 1]
    logits = jnp.zeros((1, *output.shape[1:]), output.dtype)
    grad = np.nan_to_num(jax.grad(lambda logits: _loss(criterion(logits, labels)))(logits))
    return not grad[labels < 0].any()


def _loss(given: Any) -> Array:
    """The loss alone of what a criterion gives."""
    first = given[0] if isinstance(given, tuple) and not isinstance(given, Figure) else given
    return first.value if isinstance(first, Figure) else first
