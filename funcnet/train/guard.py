"""What a run does about a step whose loss, gradient or new parameters are not finite."""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..jaxpr.jaxprs import is_inexact
from ..types import Array, Params, require
from ..verdicts.nonfinite.explain import explain_nonfinite
from ..verdicts.nonfinite.report import Nonfinite
from .loss import Objective
from .measure import IN_FLIGHT
from .precision import OVERFLOWED, SCALE
from .state import TrainState
from .step import SEEN

CHOICES = ("explain", "stop", "skip")
_FINITE = "whether it is finite"


class Left(NamedTuple):
    """How many steps of an epoch were left out, and how many of them told nothing of the loss."""

    skipped: int = 0
    untold: int = 0


def check_choice(on_nonfinite: Any) -> None:
    """Refuse what is no way to go on.

    Raises:
        ValueError: If it is none of `CHOICES`, nor None.
    """
    require(
        on_nonfinite is None or on_nonfinite in CHOICES,
        "fit",
        "on_nonfinite to be 'explain', 'stop', 'skip' or None",
        repr(on_nonfinite),
        "Write on_nonfinite='explain' to be told where a NaN is born.",
    )


def finiteness(values: dict[str, Any], grads: Any, params: Params) -> dict[str, Any]:
    """Whether the loss, the gradients and the new parameters of a step are finite."""
    leaves = [x for x in jax.tree.leaves((values["loss"], grads, params)) if is_inexact(x)]
    return {_FINITE: jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()}


def unlooked(values: dict[str, Any], grads: Any, params: Params) -> dict[str, Any]:
    """What `finiteness` says where nobody asks."""
    return {_FINITE: jnp.asarray(True)}


class Guard:
    """The update of a run, which leaves a step out if it is not finite.

    One that a loss scale has left out already is counted, and its figures too if they are finite.

    Whether it is, the device decides, and it is read a few steps later, when it is known anyway.
    Unless such steps are skipped, none is taken after the first of them: the state stays the one
    that this step was given, and what the step saw can be looked at again.

    Args:
        choice: One of `CHOICES`; None if steps are left out by a loss scale alone.
        scales: Whether the loss is scaled.

    Attributes:
        left: What was left out since the epoch began, as far as it has been read.
        counts: Whether steps may be left out and the run go on.
        halts: Whether the run is to end with the first step that is not finite.
        halted_steps: How many steps were left out because the run is to end.
        failed: The batch of the first step that was not finite; None if there is none.
        look: What joins the values of a step: whether it is finite.
    """

    def __init__(self, choice: str | None, scales: bool = False) -> None:
        self.choice, self.left, self.halted_steps, self.failed = choice, Left(), 0, None
        self.pending: deque[tuple[Array, tuple]] = deque()
        self.going = jnp.asarray(True)
        self.halts = choice in ("explain", "stop")
        self.counts = scales or not self.halts
        self.look = finiteness if choice else unlooked

    def guarded(self, update: Callable) -> Callable:
        """An update, to be compiled, which also carries whether the run goes on."""
        skips = not self.halts

        def guarded(carry: tuple[TrainState, Array], batch: tuple) -> tuple:
            old, going = carry
            new, values = update(old, batch)
            fine = values.pop(_FINITE) & going
            taken, told = fine, fine
            if OVERFLOWED in values:
                overflowed = values.pop(OVERFLOWED).value > 0
                taken = fine & ~overflowed
                excused = ~overflowed | (values[SCALE].value > 1)
                told = fine & excused & jnp.isfinite(values["loss"].value)
            seen = {name: values.pop(name) for name in (SEEN, SCALE) if name in values}

            def chosen(after: Array, before: Array) -> Array:
                return jnp.where(fine, after, before)

            state = jax.tree.map(chosen, new._replace(key=old.key), old)
            state = state._replace(key=old.key, step=new.step if skips else state.step)
            counted = jax.tree.map(lambda x: jnp.where(told, x, jnp.zeros_like(x)), values)
            said = {_FINITE: jnp.stack([fine, taken, told])}
            return (state, going if skips else fine), counted | seen | said

        return guarded

    def over(self, guarded: Callable) -> Callable:
        """The update of the run, out of what `guarded` gives, compiled."""

        def update(state: TrainState, batch: tuple) -> tuple[TrainState, dict[str, Any]]:
            (state, self.going), values = guarded((state, self.going), batch)
            self.pending.append((values.pop(_FINITE), batch))
            while len(self.pending) > IN_FLIGHT:
                self._read()
            return state, values

        return update

    def _read(self) -> None:
        said, batch = self.pending.popleft()
        fine, taken, told = np.asarray(said).tolist()
        self.left = Left(self.left.skipped + (not taken), self.left.untold + (not told))
        if not fine:
            self.halted_steps += self.halts
            self.failed = batch if self.failed is None else self.failed

    @property
    def halted(self) -> bool:
        """Whether the run is to end, as far as is known without waiting."""
        return self.failed is not None and self.halts

    def read_all(self) -> Left:
        """Wait for the steps that are under way; how many of this epoch were left out."""
        while self.pending:
            self._read()
        left, self.left = self.left, Left()
        return left

    def explained(
        self, objective: Objective, update: Callable, state: TrainState
    ) -> Nonfinite | None:
        """Where the step that failed went wrong: in the loss and its gradient, or in the update.

        Args:
            objective: What the step makes small.
            update: The whole step, of the state and the batch.
            state: The state that the step was given.
        """
        if self.choice != "explain" or self.failed is None:
            return None
        batch = jax.tree.map(jnp.asarray, self.failed)
        bare = state._replace(opt_state=())

        def loss(params: Params, state: TrainState, batch: tuple) -> Array:
            return objective.in_training(state, batch)(params)[0]

        report = explain_nonfinite(loss, wrt=0)(state.params, bare, batch)

        def new_parameters(state: TrainState, batch: tuple) -> Params:
            return update(state, batch)[0].params

        return report or explain_nonfinite(new_parameters)(state, batch)
