"""What is made small: the loss of a batch as a function of the parameters, and its figures."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from ..nn.layer import Layer
from ..types import Array, Key, Params, State, require
from .measure import Figures, check_functions, measured
from .precision import Precision, precision_of, scaling
from .state import TrainState, typed


class Objective(NamedTuple):
    """A network and what is asked of it.

    Attributes:
        net: The network.
        criterion: `(output, target) -> scalar`.
        metrics: The same by name, beside it.
        precision: The dtypes, which the network keeps to already; None for those it comes with.
    """

    net: Layer
    criterion: Callable[[Any, Any], Any]
    metrics: Mapping[str, Callable[[Any, Any], Any]]
    precision: Precision | None = None

    @staticmethod
    def of(net: Layer, criterion: Any, metrics: Any) -> "Objective":
        """The objective.

        Raises:
            TypeError: If the network is no layer, the criterion no function, or the metrics are no
                functions by name.
            ValueError: If a metric is named "loss".
        """
        require(
            isinstance(net, Layer),
            "make_step",
            "a Layer",
            type(net).__name__,
            "A layer is made by a call, as in Dense(10); pure(f) makes one of a function.",
            TypeError,
        )
        return Objective(net, criterion, check_functions(criterion, metrics))

    def under(self, where: str, precision: str | Precision | None) -> "Objective":
        """The same, computed in the dtypes of a policy, or as it is for None.

        Raises:
            ValueError: If there is no policy of that name.
        """
        policy = precision_of(where, precision)
        return self._replace(net=policy.over(self.net), precision=policy) if policy else self

    @property
    def scales(self) -> bool:
        """Whether the loss is scaled, so that steps may overflow."""
        return self.precision is not None and self.precision.loss_scale is not None

    def measure(
        self, params: Params, state: State, batch: tuple, *, train: bool, key: Key | None = None
    ) -> tuple[Array, tuple[Figures, State]]:
        """The loss of a batch; and the figures of it by name, with the network's new state."""
        *inputs, target = _split(batch)
        output, state = self.net.apply(params, state, *inputs, train=train, key=key)
        loss, figures = measured(self.criterion, self.metrics, output, target)
        return loss, (figures, state)

    def in_training(self, carry: TrainState, batch: tuple) -> Callable[[Params], tuple]:
        """`measure` as the step of that state calls it, as a function of the parameters."""
        objective = self._replace(net=scaling(self.net, carry.opt_state))

        def loss(params: Params) -> tuple[Array, tuple[Figures, State]]:
            key = jax.random.fold_in(typed(carry.key), carry.step)
            return objective.measure(params, carry.state, batch, train=True, key=key)

        return loss

    def evaluation(self, read: Callable[[Figures], dict[str, Any]]) -> Callable:
        """`(state, batch) -> read(figures)`, compiled, with `train=False`."""

        def evaluate(carry: TrainState, batch: tuple) -> dict[str, Any]:
            return read(self.measure(carry.params, carry.state, batch, train=False)[1][0])

        return jax.jit(evaluate)


def _split(batch: Any) -> tuple:
    kind = "one array" if hasattr(batch, "shape") else f"a {type(batch).__name__} of {len(batch)}"
    require(
        isinstance(batch, tuple) and len(batch) >= 2,
        "make_step",
        "a batch that is a tuple (*inputs, target)",
        kind,
        "Call step.update(state, (x, y)).",
        TypeError,
    )
    return batch
