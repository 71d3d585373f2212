"""Residual networks for images."""

from collections.abc import Callable
from dataclasses import replace

import jax.numpy as jnp

from ..layers import initializers
from ..layers.conv import Conv
from ..layers.linear import Dense
from ..layers.norm import BatchNorm, norm_of
from ..layers.pool import GlobalPool, MaxPool
from ..nn.combine import Bound, network, serial
from ..nn.layer import Layer
from ..ops.activations.rectifiers import relu
from ..types import Array, Key, Params, State, require

STAGES = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
"""Blocks of each stage of the networks for large images; from 50 on they are bottlenecks."""

SMALL = (8, 20, 32, 44, 56, 110)
"""Depths of those for 32x32 images: three stages of (depth - 2) / 6 blocks."""

HE = initializers.variance_scaling(2.0, "fan_out", "normal")


def ResNet(
    depth: int,
    outputs: int = 1000,
    *,
    zero_init: bool = False,
    norm: Callable[[], Layer] = BatchNorm,
) -> Layer:
    """A residual network of so many layers, to `outputs` logits.

    18, 34, 50, 101 and 152 are those for large images, with a 7x7 convolution and a max-pool first,
    widths from 64 to 512 (times 4 in bottlenecks), and a 1x1 convolution where a shortcut changes
    shape; their parameters have torchvision's names. 8, 20, 32, 44, 56 and 110 are those for small
    images: a 3x3 convolution first, widths 16, 32 and 64, and shortcuts without parameters, which
    take every other pixel and fill up the channels with zeros.

    Args:
        depth: Number of layers with weights on the longest way.
        outputs: Number of logits.
        zero_init: Whether the last scale of each block starts from 0, so that each block starts as
            the identity; but not where a shortcut adds channels of zeros, since the rectifier
            behind it has slope 0 there, and those channels would never learn.
        norm: Makes each norm; `partial(BatchNorm, unbiased_running_var=True)` is PyTorch's.

    Returns:
        A layer named "resnet" on `(batch, height, width, channels)`.

    Raises:
        TypeError: If `norm` is a layer already, or wants arguments.
        ValueError: If there is no network of this depth; at `init` or when applied, if the input
            is no batch of images.

    >>> import jax
    >>> image = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    >>> params, _ = jax.eval_shape(ResNet(20, 10).init, jax.random.key(0), image)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    269722

    Reference: He et al., "Deep Residual Learning for Image Recognition", 2016, table 1 and section
    4.2, with the stride of a bottleneck in its 3x3 convolution, as torchvision has it; Goyal et
    al., "Accurate, Large Minibatch SGD", 2017, section 5.1, for `zero_init`.
    """
    require(
        depth in (*STAGES, *SMALL),
        "ResNet",
        f"a depth among {', '.join(map(str, STAGES))} for large images, or "
        f"{', '.join(map(str, SMALL))} for 32x32",
        repr(depth),
        "Write ResNet(18), or ResNet(20, 10) for ten classes of small images.",
    )
    first_norm, small = norm_of("resnet", norm), depth in SMALL
    counts = (depth // 6,) * 3 if small else STAGES[depth]
    grown = 4 if depth >= 50 and not small else 1
    first = 16 if small else 64
    last = (lambda: _from_zero(norm())) if zero_init else norm
    stages: dict[str, Layer] = {}
    inputs = first
    for stage, count in enumerate(counts):
        blocks = {}
        for n in range(count):
            width, stride = first * 2**stage, 2 if stage and n == 0 else 1
            blocks[str(n)] = _block(inputs, width, width * grown, stride, small, last, norm)
            inputs = width * grown
        stages[f"layer{stage + 1}"] = serial(**blocks)
    stem = _conv(first, 3) if small else _conv(first, 7, 2)
    pool = {} if small else {"maxpool": MaxPool(3, 2, padding=1)}
    return serial(
        conv1=stem, bn1=first_norm, relu=relu, **pool, **stages,
        avgpool=GlobalPool(), fc=Dense(outputs),
    ).named("resnet")  # fmt: skip


def _conv(width: int, kernel: int, stride: int = 1) -> Layer:
    square, around = (kernel, kernel), (kernel - 1) // 2
    return Conv(width, square, stride=stride, padding=around, bias=False, w_init=HE)


def _block(
    inputs: int, width: int, outputs: int, stride: int, small: bool,
    last: Callable[[], Layer], norm: Callable[[], Layer],
) -> Layer:  # fmt: skip
    """Convolutions with batch norm, around which the input goes."""
    if width == outputs:
        convs = [_conv(width, 3, stride), _conv(width, 3)]
    else:
        convs = [_conv(width, 1), _conv(width, 3, stride), _conv(outputs, 1)]
    same = inputs == outputs and stride == 1
    padded = small and not same
    children: dict[str, Layer] = {}
    for n, conv in enumerate(convs, 1):
        make = last if n == len(convs) and not padded else norm
        children.update({f"conv{n}": conv, f"bn{n}": make()})
    if not (same or small):
        children["downsample"] = serial(**{"0": _conv(outputs, 1, stride), "1": norm()})

    @network(**children)
    def block(net: Bound, x: Array) -> Array:
        y = x
        for n in range(1, len(convs) + 1):
            y = getattr(net, f"bn{n}")(getattr(net, f"conv{n}")(y))
            y = relu(y) if n < len(convs) else y
        if same:
            return relu(y + x)
        return relu(y + (_shrunk(x, outputs) if padded else net.downsample(x)))

    return block


def _shrunk(x: Array, outputs: int) -> Array:
    """Every other pixel, with as many zero channels on either side as make `outputs`."""
    low = (outputs - x.shape[-1]) // 2
    high = outputs - x.shape[-1] - low
    return jnp.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (low, high)))


def _from_zero(norm: Layer) -> Layer:
    def init(key: Key, x: Array) -> tuple[Params, State]:
        params, state = norm.init(key, x)
        return params | {"scale": jnp.zeros_like(params["scale"])}, state

    return replace(norm, init=init)
