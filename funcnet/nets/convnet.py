"""Convolutional networks for images."""

from collections.abc import Callable

from ..layers.conv import Conv, Flatten
from ..layers.linear import Dense
from ..layers.pool import MaxPool
from ..nn.combine import serial
from ..nn.layer import Layer
from ..ops.activations.rectifiers import relu


def LeNet(classes: int = 10, *, activation: Callable = relu) -> Layer:
    """Two convolutions with pooling, then three dense layers, to `classes` logits.

    3x3 convolutions to 6 and 16 channels, each followed by the activation and a 2x2 max-pool; dense
    layers of 120 and 84 units; images of any size and number of channels, `(batch, height, width,
    channel)`. On 32x32 images the first dense layer has 16 x 6 x 6 inputs.

    Args:
        classes: Number of logits.
        activation: Follows every layer but the last.

    Raises:
        TypeError: If the activation is neither a layer nor a function of arrays.
        ValueError: If `classes` is no whole number of 1 or more; at `init`, if the images are too
            small or not of rank 4.

    >>> import jax
    >>> LeNet().summary(jax.ShapeDtypeStruct((1, 32, 32, 1), "float32")).total.parameters
    81194

    Reference: LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998,
    figure 2, with the 3x3 kernels, max-pools and rectifiers of today.
    """
    return serial(
        Conv(6, (3, 3)),
        activation,
        MaxPool(2),
        Conv(16, (3, 3)),
        activation,
        MaxPool(2),
        Flatten(),
        Dense(120),
        activation,
        Dense(84),
        activation,
        Dense(classes),
    ).named("lenet")
