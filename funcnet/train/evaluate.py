"""The figures of a whole set: what `fit` computes of the validation data, by itself."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..feed.feed import in_order
from ..feed.reader import Reader
from ..mesh.hosts import together
from ..mesh.mesh import Mesh
from ..nn.layer import Layer
from ..types import require
from .checks import check_batch
from .loss import Objective
from .precision import Precision
from .run import figures_of
from .state import TrainState
from .step import evaluation_on


@together("evaluate")
def evaluate(
    net: Layer,
    criterion: Callable[[Any, Any], Any],
    trained: TrainState,
    data: Any,
    *,
    batch: int = 256,
    metrics: Mapping[str, Callable[[Any, Any], Any]] | None = None,
    inputs: Any = None,
    precision: str | Precision | None = None,
    mesh: Mesh | None = None,
) -> dict[str, float]:
    """The loss and metrics of a whole set, computed in parts: what `fit` does for validation.

    Args:
        net: The network.
        criterion: As for `fit`.
        trained: A state of training; `fit(...).state` is one. Its parameters are looked at: with
            `fit(ema=...)` put the average in their place, as in
            `state._replace(params=fn.average_of(state.opt_state))`.
        data: As for `fit`.
        batch: Examples that are computed at a time, about.
        metrics: As for `fit`.
        inputs: As for `fit`.
        precision: As for `fit`.
        mesh: As for `fit`.

    Returns:
        The figures by name, "loss" first.

    Raises:
        ValueError: If the data is empty, not finite, masked or beyond int32, nothing in it counts,
            or `batch` is below 1.
        TypeError: If `data` is nothing that `fit` takes, or `metrics` no dict of functions.

    >>> import jax, jax.numpy as jnp
    >>> from funcnet.nn.layer import pure
    >>> from funcnet.train.metrics import r_squared
    >>> state = TrainState(jnp.zeros((), int), {}, {}, (), jax.random.key(0))
    >>> x = np.arange(6.0)
    >>> evaluate(pure(lambda x: x + 1), r_squared, state, (x, x), batch=2)["loss"]
    0.6571428571428571
    """
    require(
        isinstance(trained, TrainState),
        "evaluate",
        "a state of training",
        type(trained).__name__,
        "Pass fit(...).state, or what step.init and step.update return.",
        TypeError,
    )
    require(
        isinstance(batch, int | np.integer) and batch >= 1,
        "evaluate",
        "batch to be a whole number, 1 or above",
        repr(batch),
        "Leave it out: it says how much is computed at a time.",
    )
    feed = in_order("data", data, batch, where="evaluate")
    if inputs is None:
        check_batch(feed.first(), "evaluate")
    run = (
        Objective.of(net, criterion, metrics, inputs).under("evaluate", precision).evaluation(dict)
    )
    run, place = evaluation_on(mesh, run), None if mesh is None else mesh.place
    with Reader(feed, 1, place) as reader:
        return figures_of(run, trained, reader.epoch(0)).read_all("evaluate", "data")
