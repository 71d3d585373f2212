"""The multi-layer perceptron."""

from collections.abc import Callable, Sequence

from ..layers import initializers
from ..layers.dropout import Dropout
from ..layers.linear import Dense
from ..nn.combine import serial
from ..nn.layer import Layer
from ..ops.activations.rectifiers import relu
from ..types import require


def MLP(
    widths: Sequence[int],
    *,
    activation: Callable = relu,
    output: Callable | None = None,
    drop: float = 0.0,
    w_init: Callable = initializers.lecun_normal(),
) -> Layer:
    """Dense layers with an activation between them: `dense`, `dense_1`, and so on.

    Args:
        widths: The outputs of each dense layer; the last is the network's own.
        activation: Follows each dense layer but the last.
        output: Follows the last, if given; a loss on logits wants none.
        drop: Probability of dropping each hidden unit in training.
        w_init: Draws the weights.

    Returns:
        A layer over the last axis of its input.

    Raises:
        TypeError: If an activation is neither a layer nor a function of arrays.
        ValueError: If there is no width, or one is no whole number of 1 or more.

    >>> import jax, jax.numpy as jnp
    >>> net = MLP((3, 1), activation=jax.nn.sigmoid, output=jax.nn.sigmoid)
    >>> params, _ = net.init(jax.random.key(0), jnp.ones((5, 3)))
    >>> jax.tree.map(jnp.shape, params)
    {'dense': {'b': (3,), 'w': (3, 3)}, 'dense_1': {'b': (1,), 'w': (3, 1)}}

    Reference: Rumelhart, Hinton & Williams, "Learning Representations by Back-propagating Errors",
    1986.
    """
    require(
        not isinstance(widths, int | str) and len(widths) > 0,
        "MLP",
        "the width of one layer or more",
        f"widths={widths!r}",
        "Write MLP((128, 10)) for one hidden layer of 128 and 10 outputs.",
    )
    layers: list[Layer | Callable] = []
    for width in widths[:-1]:
        layers += [Dense(width, w_init=w_init), activation, *([Dropout(drop)] if drop else [])]
    last = [output] if output else []
    return serial(*layers, Dense(widths[-1], w_init=w_init), *last).named("mlp")
