"""What `fit` looks at before the first step, so that bad data ends in a sentence and not in NaN."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..feed.feed import Feed
from ..feed.sources import Passes
from ..figures import Figure
from ..nn.layer import Layer
from ..types import Array, require, shown
from .history import COUNTERS, VALIDATION
from .state import TrainState


def check_batch(batch: Any, where: str = "fit", name: str = "data") -> tuple:
    """A batch as the inputs and then the target.

    Raises:
        TypeError: If it is none.
    """
    kind = shown(batch) if hasattr(batch, "shape") else f"a {type(batch).__name__} of {len(batch)}"
    require(
        isinstance(batch, tuple) and len(batch) >= 2,
        where,
        f"{name} as a tuple of arrays, the inputs and then the target",
        kind,
        "Give (x, y), or examples that are such pairs.",
        TypeError,
    )
    return batch


def check_settings(epochs: int, batch: int, patience: int | None, seed: int) -> None:
    """Refuse numbers that make no training."""
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


def check_feeds(epochs: int, patience: int | None, feed: Feed, held: Feed | None) -> None:
    """Refuse data that does not fill a batch, or cannot be gone through as often as is asked."""
    n = feed.examples
    require(
        n is None or feed.size <= n,
        "fit",
        f"at least one batch of {feed.size} examples",
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
    for name, given in (("data", feed), ("validation", held)):
        source = None if given is None else given.source
        require(
            epochs == 1 or not (isinstance(source, Passes) and source.once),
            "fit",
            f"{name} that can be gone through {epochs} times",
            shown(getattr(source, "source", None)),
            "Give the function that makes it, or a list: a generator is over after one pass.",
        )


def check_alike(data: Any, held: Any) -> None:
    """Refuse validation that has other parts than the data."""
    parts = (
        (len(data), len(held)) if isinstance(data, tuple) and isinstance(held, tuple) else (0, 0)
    )
    require(
        parts[0] == parts[1],
        "fit",
        f"as many arrays in validation as in data, {parts[0]}",
        parts[1],
        "Give the same inputs and the target.",
    )
    same = jax.tree.structure(data) == jax.tree.structure(held)
    expected = "the same parts in validation as in data"
    require(same, "fit", expected, "others", "Give the same keys, inputs and target.")


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
    output, _ = jax.eval_shape(net.apply, state.params, state.state, *_shapes(inputs, 1))
    if not hasattr(target, "dtype"):
        return
    target = np.asarray(target)
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
    output, _ = jax.eval_shape(net.apply, state.params, state.state, *_shapes(inputs, 2))
    if not (hasattr(target, "dtype") and hasattr(output, "shape")):
        return
    target = np.asarray(target)
    if output.shape not in ((2,), (2, 1)) or target[:1].size != 1:
        return
    ends = np.stack([target[target.argmin()], target[target.argmax()]])
    if ends.min() >= 0 and ends.max() <= 1:
        return
    zeros = jnp.zeros(output.shape, output.dtype)
    for metric in (metrics or {}).values():
        metric(zeros, ends)
    if not np.issubdtype(target.dtype, np.floating):
        criterion(zeros, ends)


def _shapes(inputs: Any, n: int) -> Any:
    """The inputs as the shapes of `n` examples."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((n, *x.shape[1:]), x.dtype), inputs)


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
