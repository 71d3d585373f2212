"""Which learning rate to train with: a few steps at rates that grow, and the loss of each."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..feed.feed import Feed
from ..nn.layer import Layer
from ..render import picture
from ..types import is_whole, require, shown
from .checks import check_batch
from .optimizers import OPTIMIZERS
from .step import make_step

SMOOTH, TOO_MUCH, FEWEST = 0.9, 4.0, 10
"""The share of the average before, how far above the best ends it, and the fewest steps."""


@dataclass(frozen=True, eq=False)
class LearningRates:
    """What `lr_find` returns.

    Attributes:
        rates: The learning rate of each step, `(n,)` float64.
        losses: The loss of its batch before the step, the same.
        smoothed: Their running average, the same.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray

    @property
    def least(self) -> float:
        """The rate at which the smoothed loss is least."""
        return float(self.rates[self.smoothed.argmin()])

    @property
    def steepest(self) -> float:
        """The rate at which the smoothed loss falls fastest, by factors of the rate."""
        end = max(int(self.smoothed.argmin()) + 1, 2)
        slopes = np.gradient(self.smoothed[:end], np.log(self.rates[:end]))
        return float(self.rates[slopes.argmin()])

    @property
    def suggestion(self) -> float | None:
        """A tenth of `least`, where steps still are safe; None if the loss never fell."""
        fell = self.smoothed.min() < self.smoothed[0] - 0.01 * abs(self.smoothed[0])
        return self.least / 10 if fell else None

    def plot(self, path: str | Path) -> None:
        """Draw the loss against the rate, with the suggestion.

        Args:
            path: Where to write; the ending chooses the format, `.png` for one.

        Raises:
            ValueError: If `path` cannot be written.
            ImportError: If matplotlib is missing.
        """
        figure = picture.figure("LearningRates.plot", 6.4, 4.2)
        panel = figure.subplots()
        panel.plot(self.rates, self.losses, ".", color="#9ab8d6", markersize=4, label="each batch")
        panel.plot(self.rates, self.smoothed, color="#1f6fb4", label="smoothed")
        marks = [(self.steepest, "#999999", ":", f"falls fastest, {self.steepest:.2g}")]
        if self.suggestion is not None:
            marks.append((self.suggestion, "#d9601a", "--", f"suggestion, {self.suggestion:.2g}"))
        for rate, color, style, label in marks:
            panel.axvline(rate, color=color, linestyle=style, linewidth=1.3, label=label)
        low, high = self.losses.min(), self.smoothed[0]
        room = max(high - low, 1e-9)
        panel.set_ylim(low - 0.1 * room, high + 0.6 * room)
        panel.set_xscale("log")
        panel.set_xlabel("learning rate")
        panel.set_ylabel("loss")
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(frameon=False)
        picture.save("LearningRates.plot", figure, path)


def lr_find(
    net: Layer,
    criterion: Callable[[Any, Any], Any],
    data: Any,
    optimizer: Callable[[Any], Any] = OPTIMIZERS["adam"],
    *,
    batch: int = 64,
    steps: int = 120,
    low: float = 1e-6,
    high: float = 10.0,
    seed: int = 0,
) -> LearningRates:
    """A learning rate range test: train for some steps at rates that grow from `low` to `high`.

    It ends when the smoothed loss is four times its best, or not finite. The parameters are drawn
    for it and thrown away, so training afterwards begins as it would have.

    Args:
        net: The network.
        criterion: `(output, target) -> scalar`, as for `fit`.
        data: As for `fit`.
        optimizer: From a rate to an optimiser of optax, as `optax.adam` is.
        batch: Examples in a step; of fewer examples, all.
        steps: How many steps there are at most.
        low: The first rate.
        high: The last one.
        seed: Decides the parameters, the order of the examples and every draw.

    Returns:
        Rates, losses, and what they suggest.

    Raises:
        ValueError: If the data cannot be learned from, the numbers make no range, or the loss is
            not finite for the first ten steps.
        TypeError: If `optimizer` is no function of a rate.

    >>> from funcnet.layers.linear import Dense
    >>> from funcnet.ops.losses.distances import squared_error
    >>> x = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    >>> import optax
    >>> found = lr_find(Dense(1), squared_error, (x, 2 * x + 1), optax.sgd, batch=16)
    >>> 1e-3 < found.suggestion < 1
    True

    Reference: Smith, "Cyclical Learning Rates for Training Neural Networks", 2017, section 3.3.
    """
    _check(optimizer, batch, steps, low, high)
    growth = math.log(high / low) / (steps - 1)
    step = make_step(net, criterion, optimizer(lambda count: low * jax.numpy.exp(growth * count)))
    feed = Feed.of("data", data, batch, seed, where="lr_find")
    *inputs, _ = check_batch(feed.first(), "lr_find")
    state = step.init(jax.random.key(seed), *inputs)
    losses, smoothed, average = [], [], 0.0
    for i in range(steps):
        state, values = step.update(state, feed.batch(i))
        loss = float(values["loss"])
        average = SMOOTH * average + (1 - SMOOTH) * loss
        steady = average / (1 - SMOOTH ** (i + 1))
        if not math.isfinite(loss) or (i >= FEWEST and steady > TOO_MUCH * min(smoothed)):
            break
        losses.append(loss)
        smoothed.append(steady)
    require(
        len(losses) >= FEWEST,
        "lr_find",
        f"a loss that is finite for {FEWEST} steps",
        f"{len(losses)}",
        "Give a smaller low, or look for the NaN: fn.explain_nonfinite.",
    )
    rates = low * np.exp(growth * np.arange(len(losses)))
    return LearningRates(rates, np.array(losses), np.array(smoothed))


def _check(optimizer: Any, batch: Any, steps: Any, low: Any, high: Any) -> None:
    require(
        callable(optimizer),
        "lr_find",
        "optimizer to be a function of the rate",
        shown(optimizer),
        "Give the function alone, such as adam, or lambda rate: sgd(rate, momentum=0.9).",
        TypeError,
    )
    require(
        is_whole(batch) and is_whole(steps, FEWEST),
        "lr_find",
        f"batch of 1 or more and steps of {FEWEST} or more",
        f"batch={batch!r}, steps={steps!r}",
        "Leave them out.",
    )
    require(
        0 < low < high < math.inf,
        "lr_find",
        "rates that grow, 0 < low < high",
        f"low={low!r}, high={high!r}",
        "Leave them out for 1e-6 and 10.",
    )
