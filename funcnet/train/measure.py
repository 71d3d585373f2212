"""What a criterion and metrics say of a batch, held against what they may say, and of many."""

import inspect
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..figures import EACH, Figure, Mean, heard, mean_of
from ..types import Array, require
from .history import COUNTERS, VALIDATION

IN_FLIGHT = 8
"""Batches handed out ahead of the one whose figures are read."""

Figures = dict[str, Figure]


def measured(
    criterion: Callable, metrics: Mapping[str, Callable], output: Any, target: Any
) -> tuple[Array, Figures]:
    """The loss of a batch, to be made small, and the figures of it by name, the loss first.

    Raises:
        TypeError: If the criterion or a metric gives what is no figure.
        ValueError: If a figure is no scalar, or two have one name.
    """
    n = np.shape(jax.tree.leaves(target)[0])[:1]
    examples = n[0] if n else 1
    given, noted = heard(criterion, output, target)
    result, aux = _parts(given)
    loss, figure = _figure("criterion", result, noted, examples)
    require(
        jnp.issubdtype(loss.dtype, jnp.floating),
        "make_step",
        "a real floating scalar from the criterion",
        f"{loss.dtype}",
        "Only such a number has a gradient.",
        TypeError,
    )
    figures = {"loss": figure}
    for name, value in aux.items():
        _check_name(name, {"loss", *metrics})
        figures[name] = _figure(f"criterion's {name!r}", value, noted, examples)[1]
    for name, metric in metrics.items():
        value, noted = heard(metric, output, target)
        figures[name] = _figure(f"metric {name!r}", value, noted, examples)[1]
    return loss, figures


def is_mean(criterion: Callable, output: Any, target: Any) -> bool:
    """Whether the loss of a batch is known to be the joined mean of those of its parts.

    That is so where a criterion returns a `Mean`, or what a loss of funcnet came to; of any other
    number nobody knows how it joins.
    """
    given, noted = heard(criterion, output, target)
    value, _ = _parts(given)
    figure = value if isinstance(value, Figure) else noted(value)
    return isinstance(figure, Mean) or figure == EACH


def values_of(figures: Figures) -> dict[str, Any]:
    """The figures as plain numbers."""
    return {name: figure.value for name, figure in figures.items()}


class Means:
    """Figures over many batches, of which some are still being computed."""

    def __init__(self) -> None:
        self.examples, self.figures = 0, {}
        self.pending: deque[tuple[Figures, int]] = deque()

    def add(self, figures: Figures, examples: int) -> None:
        """Take the figures of one more batch in."""
        self.pending.append((figures, examples))
        if len(self.pending) > IN_FLIGHT:
            self._take()

    def _take(self) -> None:
        figures, examples = self.pending.popleft()
        self.examples += examples
        known = jax.tree.map(lambda x: np.asarray(x, np.float64), figures)
        with np.errstate(all="ignore"):  # a loss that is not finite is said in another place
            for name, figure in known.items():
                before = self.figures.get(name)
                self.figures[name] = figure if before is None else before.join(figure)

    def read(self) -> dict[str, float]:
        """The figures of all batches so far, the loss first."""
        while self.pending:
            self._take()
        return self.known()

    def known(self) -> dict[str, float]:
        """The same of those batches that need not be waited for."""
        names = sorted(self.figures, key=lambda name: name != "loss")
        with np.errstate(all="ignore"):
            return {name: float(self.figures[name].value) for name in names}

    def read_all(self, where: str, data: str) -> dict[str, float]:
        """The same of a whole set.

        Raises:
            ValueError: If nothing counted in all of it.
        """
        values = self.read()
        for name, figure in self.figures.items():
            require(
                not isinstance(figure, Mean) or figure.count != 0,
                where,
                f"something that counts for the {name} in {self.examples} examples of {data}",
                "nothing",
                "Look at what the mask or the labels leave out.",
            )
        return values


def check_functions(criterion: Any, metrics: Any) -> dict[str, Callable]:
    """The metrics as a dict.

    Raises:
        TypeError: If the criterion is no function or the metrics are no functions by name.
        ValueError: If a metric is named "loss".
    """
    require(
        callable(criterion),
        "make_step",
        "a criterion (output, target) -> scalar",
        _said(criterion),
        "Pass the function itself, as in fn.cross_entropy.",
        TypeError,
    )
    require(
        metrics is None or isinstance(metrics, Mapping),
        "make_step",
        "metrics as a dict, functions by name",
        _said(metrics),
        "Write metrics={'accuracy': fn.accuracy}.",
        TypeError,
    )
    chosen = dict(metrics or {})
    for name, metric in chosen.items():
        require(
            isinstance(name, str) and callable(metric),
            "make_step",
            "metrics as a dict, functions by name",
            f"{name!r}: {_said(metric)}",
            "Write metrics={'accuracy': fn.accuracy}.",
            TypeError,
        )
    require(
        "loss" not in chosen,
        "make_step",
        "metrics of other names",
        "'loss'",
        "The criterion is reported under that name; choose another.",
    )
    return chosen


def _said(x: Any) -> str:
    if inspect.isroutine(x):
        return f"the function {x.__name__}"
    return repr(x) if isinstance(x, str) else _described(x)


def _parts(given: Any) -> tuple[Any, Mapping[str, Any]]:
    """A criterion's loss, and the figures that come with it."""
    if isinstance(given, Figure) or not isinstance(given, tuple) or len(given) != 2:
        return given, {}
    require(
        isinstance(given[1], Mapping),
        "make_step",
        "from the criterion a scalar, a Mean(total, count), or (loss, {name: figure})",
        f"a pair whose second is {_described(given[1])}",
        "Name the figure, as in (loss, {'penalty': penalty}); a mean that is not over the "
        "examples is Mean(total, count).",
        TypeError,
    )
    return given


def _figure(
    what: str, value: Any, noted: Callable[[Any], Figure | None], examples: int
) -> tuple[Array, Figure]:
    """What a criterion or a metric returned, as a scalar and as a figure."""
    if isinstance(value, Mean):
        for part in value:
            _scalar(what, part)
    scalar = _scalar(what, value.value if isinstance(value, Figure) else value)
    require(
        what == "criterion" or not jnp.issubdtype(scalar.dtype, jnp.complexfloating),
        "make_step",
        f"a real number from the {what}",
        f"{scalar.dtype}",
        "Take its absolute value: jnp.abs(...).",
        TypeError,
    )
    if isinstance(value, Figure):
        return scalar, value
    figure = noted(value)
    return scalar, figure if isinstance(figure, Figure) else mean_of(scalar, examples)


def _scalar(what: str, value: Any) -> Array:
    plain = isinstance(value, bool | int | float | complex)
    kind = jnp.result_type(value) if plain or hasattr(value, "dtype") else np.dtype(object)
    require(
        jnp.issubdtype(kind, jnp.number) or kind == np.bool_,
        "make_step",
        f"a scalar from the {what}",
        _described(value),
        "Return one number, such as jnp.mean(...).",
        TypeError,
    )
    require(
        jnp.shape(value) == (),
        "make_step",
        f"a scalar from the {what}",
        f"shape {jnp.shape(value)}",
        "Take the mean over the batch: jnp.mean(...).",
    )
    return jnp.asarray(value)


def _described(value: Any) -> str:
    if value is None:
        return "None"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    size = f" of {len(value)}" if isinstance(value, tuple | list | dict) else ""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}{size}"


def _check_name(name: Any, taken: set[str]) -> None:
    free = isinstance(name, str) and name not in taken and name not in COUNTERS
    require(
        free and not name.startswith(VALIDATION),
        "make_step",
        f"figures of the criterion under other names than {', '.join(sorted(taken))}, "
        f"{', '.join(COUNTERS)} and {VALIDATION}...",
        repr(name),
        "Choose another name.",
    )
