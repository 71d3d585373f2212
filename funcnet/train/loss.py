"""What is made small: the loss of a batch as a function of the parameters, and its figures."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from ..nn.layer import Layer
from ..types import Array, Key, Params, State, require
from .batch import Read, reader
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
        read: How a batch is read, as inputs and target.
    """

    net: Layer
    criterion: Callable[[Any, Any], Any]
    metrics: Mapping[str, Callable[[Any, Any], Any]]
    precision: Precision | None = None
    read: Read = reader()

    @staticmethod
    def of(net: Layer, criterion: Any, metrics: Any, inputs: Any = None) -> "Objective":
        """The objective.

        Raises:
            TypeError: If the network is no layer, the criterion no function, the metrics are no
                functions by name, or `inputs` names nothing.
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
        chosen = check_functions(criterion, metrics)
        return Objective(net, criterion, chosen, read=reader(inputs))

    def output(
        self, params: Params, state: State, inputs: tuple, *, train: bool, key: Key | None = None
    ) -> tuple[Any, State]:
        """What the network makes of the inputs, and its new state."""
        return self.net.apply(params, state, *inputs, train=train, key=key)

    def figures(self, output: Any, target: Any) -> tuple[Array, Figures]:
        """The loss of an output, and its figures by name."""
        return measured(self.criterion, self.metrics, output, target)

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

    def scaled(self, carry: TrainState) -> "Objective":
        """The same, with the cotangents of the network scaled as the state of the step says."""
        return self._replace(net=scaling(self.net, carry.opt_state))

    def measure(
        self, params: Params, state: State, batch: Any, *, train: bool, key: Key | None = None
    ) -> tuple[Array, tuple[Figures, State]]:
        """The loss of a batch; and the figures of it by name, with the network's new state."""
        inputs, target = self.read(batch)
        output, state = self.output(params, state, inputs, train=train, key=key)
        loss, figures = self.figures(output, target)
        return loss, (figures, state)

    def in_training(self, carry: TrainState, batch: Any) -> Callable[[Params], tuple]:
        """`measure` as the step of that state calls it, as a function of the parameters."""
        objective = self.scaled(carry)

        def loss(params: Params) -> tuple[Array, tuple[Figures, State]]:
            key = key_of(carry)
            return objective.measure(params, carry.state, batch, train=True, key=key)

        return loss

    def evaluation(
        self,
        read: Callable[[Figures], dict[str, Any]],
        looked_at: Callable[[TrainState], Params] = lambda carry: carry.params,
    ) -> Callable:
        """`(state, batch) -> read(figures)` with `train=False`, of the parameters `looked_at`."""

        def evaluate(carry: TrainState, batch: Any) -> dict[str, Any]:
            params = looked_at(carry)
            return read(self.measure(params, carry.state, batch, train=False)[1][0])

        return evaluate


def key_of(carry: TrainState) -> Key:
    """The key of the draws of the step that is taken from this state."""
    return jax.random.fold_in(typed(carry.key), carry.step)
