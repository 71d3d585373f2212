"""A criterion that lets some classes count more than others."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..feed.feed import Feed
from ..feed.order import class_weights
from ..feed.sources import labels_of
from ..figures import EACH, Figure, Mean, heard, mean_of
from ..types import is_whole, require, shown


def weighted(criterion: Callable, class_weight: Any, feed: Feed) -> Callable:
    """The criterion with each example's loss times the weight of its class.

    The loss of a batch is Σ w loss / Σ w over its examples, and so is that of an epoch.

    Args:
        criterion: `(output, target) -> loss`, a mean over the examples.
        class_weight: "balanced" for `class_weights` of the data, weights by class, or an array of
            them; None leaves the criterion as it is. A class that is not named weighs 1.
        feed: The data to learn from.

    Raises:
        ValueError: If they are no weights, or there are no labels to balance.
    """
    if class_weight is None:
        return criterion
    table = jnp.asarray(_table(class_weight, feed))

    def weigh(output: Any, target: Any) -> Any:
        labels = _labels(target)

        def one(output: Any, target: Any) -> Mean:
            output, target = jax.tree.map(lambda x: x[None], (output, target))
            given, noted = heard(criterion, output, target)
            loss: Any = given[0] if _is_pair(given) else given
            figure: Any = noted(loss)
            if isinstance(loss, Figure):
                figure = loss
            elif figure is None or figure is EACH:
                figure = mean_of(loss, 1)
            require(
                isinstance(figure, Mean),
                "fit",
                "a criterion that is a mean over the examples, beside class_weight",
                f"a {type(figure).__name__}",
                "Weigh the classes in the criterion itself.",
                TypeError,
            )
            return figure

        each = jax.vmap(one)(output, target)
        w = jnp.take(table, labels, mode="clip").astype(each.total.dtype)
        loss = Mean((w * each.total).sum(), (w * each.count).sum())
        given = criterion(output, target)
        return (loss, given[1]) if _is_pair(given) else loss

    return weigh


def _is_pair(given: Any) -> bool:
    return isinstance(given, tuple) and not isinstance(given, Mean) and len(given) == 2


def _table(class_weight: Any, feed: Feed) -> np.ndarray:
    if isinstance(class_weight, str):
        remedy = "Write class_weight='balanced', or a weight by class: {0: 1.0, 1: 5.0}."
        ok = class_weight == "balanced"
        require(ok, "fit", "class_weight to be 'balanced' or weights", repr(class_weight), remedy)
        return class_weights(labels_of(feed.source, "fit"))
    if isinstance(class_weight, Mapping):
        named = all(is_whole(label, 0) for label in class_weight) and len(class_weight) > 0
        expected = "classes as whole numbers, 0 or above, in class_weight"
        require(named, "fit", expected, shown(class_weight), "Write {0: 1.0, 1: 5.0}.")
        table = np.ones(1 + max(class_weight), np.float32)
        for label, weight in class_weight.items():
            table[label] = weight
    else:
        table = np.asarray(class_weight, np.float32)
    require(
        table.ndim == 1 and table.size and np.isfinite(table).all() and (table >= 0).all(),
        "fit",
        "class_weight to be finite weights, 0 or above, one for each class",
        shown(class_weight),
        "Write class_weight='balanced', or a weight by class: {0: 1.0, 1: 5.0}.",
    )
    # A class beyond the table is looked up at its end.
    return np.append(table, np.float32(1)) if isinstance(class_weight, Mapping) else table


def _labels(target: Any) -> Any:
    column = getattr(target, "ndim", 0) == 2 and target.shape[1] == 1
    require(
        hasattr(target, "dtype")
        and jnp.issubdtype(target.dtype, jnp.integer)
        and (target.ndim == 1 or column),
        "fit",
        "a class for each example beside class_weight, integers of shape (n,)",
        shown(target),
        "Weigh the classes in the criterion itself.",
    )
    return target[:, 0] if column else target
