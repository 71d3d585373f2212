"""What `fit` sees of the network's health: every so many steps, one that also looks at itself."""

from collections.abc import Callable
from typing import Any

import jax

from ..types import Params, is_whole, require, shown
from ..verdicts.health.probe import Places, Seen, looking, moves
from .state import own
from .step import SEEN

Update = Callable[[Any, tuple], tuple[Any, dict[str, Any]]]


class Checkups:
    """An update that every so many steps looks at itself: call it in the place of `update`.

    All other steps run at full speed. What was seen is read when it is asked for.

    Raises:
        ValueError: If `every` is no whole number of 1 or more.

    Attributes:
        taken: How many steps were taken.
        known: What was seen and is read.
        seen: What was seen since, by the number of the step.
    """

    def __init__(self, every: Any, update: Update, watched: Update) -> None:
        require(
            is_whole(every),
            "fit",
            "health to be a whole number of steps, 1 or above",
            shown(every),
            "Write health=50 to look at every fiftieth step, or leave it out.",
        )
        self.every, self.update, self.watched = every, update, watched
        self.taken, self.compiled = 0, False
        self.known: list[dict[str, Any]] = []
        self.seen: list[tuple[int, Seen]] = []

    def __call__(self, state: Any, batch: tuple) -> tuple[Any, dict[str, Any]]:
        """Take a step."""
        if not self.compiled:
            # Both are compiled in the first step, which is no measure of the pace.
            self.compiled = True
            self.update(jax.tree.map(own, state), batch)
        if self.taken % self.every:
            state, figures = self.update(state, batch)
        else:
            state, figures = self.watched(state, batch)
            self.seen.append((self.taken, figures.pop(SEEN)))
        self.taken += 1
        return state, figures

    def records(self) -> tuple[dict[str, Any], ...]:
        """What was seen: the number of the step, from 0, and the figures."""
        self.known += map(record_of, self.seen)
        self.seen = []
        return tuple(self.known)


def record_of(seen: tuple[int, Seen]) -> dict[str, Any]:
    """What was seen in one step."""
    return {"step": seen[0], "figures": seen[1].read()}


class Look:
    """How the step that looks at itself is differentiated."""

    def __init__(self) -> None:
        self.places = Places()

    def gradient(self, loss: Callable, params: Params) -> tuple[Any, Params, Any]:
        """The loss with what comes with it, the gradients, and what was seen."""
        run = looking("fit", loss, 0, None, True, self.places)
        return run(params)

    def figures(self, found: Any, params: Params, grads: Any, steps: Any) -> dict[str, Seen]:
        """What was seen in the step."""
        return {SEEN: Seen.of(found | moves(params, grads, steps))}
