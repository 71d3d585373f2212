"""The U-Net: from an image to one of the same size, by way of smaller ones."""

import functools
from collections.abc import Callable, Sequence

import jax.numpy as jnp

from ..layers import initializers
from ..layers.conv import Conv, ConvTranspose
from ..layers.linear import Dense
from ..layers.norm import GroupNorm
from ..layers.position import TimeEmbedding
from ..nn import refusals
from ..nn.combine import Bound, network, serial
from ..nn.layer import Layer
from ..ops.activations.smooth import silu
from ..ops.shared.precision import spread
from ..types import Array, is_whole, require, shown


def UNet(
    outputs: int,
    widths: Sequence[int] = (32, 64, 128),
    *,
    blocks: int = 1,
    groups: int = 8,
    time_width: int | None = None,
    activation: Callable = silu,
) -> Layer:
    """Residual blocks on the way down to ever smaller images and up again, to `outputs` channels.

    Each width is a level, half the size of the one before, entered by a 3x3 convolution with stride
    2 and left by a transposed 4x4 one; what it had on the way down joins on the way up as further
    channels. A block is twice group norm, activation and 3x3 convolution, around which its input
    goes; the second convolution starts from zero.

    Args:
        outputs: Channels of the result.
        widths: Channels of each level, from the full size down.
        blocks: Residual blocks of each level, in each direction.
        groups: Groups of each normalisation; divides every width.
        time_width: If given, the network takes a second input, times `(batch,)`: their embedding of
            this width goes through two dense layers and is added in each block.
        activation: Comes before each convolution of a block.

    Returns:
        A layer named "unet" on `(batch, *spatial, channels)` with 1, 2 or 3 spatial axes, each a
        multiple of 2 to the number of levels less 1: `net(params, x)` or `net(params, x, t)`.

    Raises:
        TypeError: If the activation is no function of arrays.
        ValueError: If the widths, blocks, groups or inputs do not fit.

    >>> import jax
    >>> net, x, t = UNet(1, (8, 16), time_width=8), jnp.ones((2, 8, 8, 1)), jnp.array([3, 500])
    >>> params, _ = net.init(jax.random.key(0), x, t)
    >>> net(params, x, t).shape
    (2, 8, 8, 1)

    Reference: Ronneberger, Fischer & Brox, "U-Net", 2015, figure 1, with the blocks and the time
    embedding of Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", 2020, appendix B.
    """
    _check_widths(widths, blocks, groups)
    require(
        refusals.is_function(activation, Layer),
        "UNet",
        "activation to be a function of an array",
        shown(activation),
        "Write UNet(1, activation=fn.silu).",
        TypeError,
    )
    timed, last = time_width is not None, len(widths) - 1
    block = functools.partial(_block, groups=groups, activation=activation, timed=timed)
    children: dict[str, Layer] = {"stem": Conv(widths[0], 3, padding=1)}
    if time_width is not None:
        children["waves"] = TimeEmbedding(time_width)
        children["time"] = serial(Dense(4 * time_width), activation, Dense(4 * time_width))
    for level, width in enumerate(widths):
        for n in range(blocks):
            children[f"down{level}_{n}"] = block(width)
            if level < last:
                children[f"up{level}_{n}"] = block(width, project=n == 0)
        if level < last:
            children[f"shrink{level}"] = Conv(widths[level + 1], 3, stride=2, padding=1)
            children[f"grow{level}"] = ConvTranspose(width, 4, stride=2, padding=1)
    children["head"] = serial(GroupNorm(groups), activation, Conv(outputs, 3, padding=1))

    @network(**children)
    def unet(net: Bound, x: Array, *times: Array) -> Array:
        _check_inputs(x, times, timed, last)
        embedded = [net.time(net.waves(t).astype(x.dtype)) for t in times]

        def through(way: str, level: int, x: Array) -> Array:
            names = [f"{way}{level}_{n}" for n in range(blocks)]
            return functools.reduce(lambda x, name: getattr(net, name)(x, *embedded), names, x)

        x, sent = net.stem(x), []
        for level in range(last):
            x = through("down", level, x)
            sent.append(x)
            x = getattr(net, f"shrink{level}")(x)
        x = through("down", last, x)
        for level in reversed(range(last)):
            x = jnp.concatenate([getattr(net, f"grow{level}")(x), sent[level]], -1)
            x = through("up", level, x)
        return net.head(x)

    return unet


def _block(
    width: int, project: bool = False, *, groups: int, activation: Callable, timed: bool
) -> Layer:
    children: dict[str, Layer] = {
        "norm1": GroupNorm(groups),
        "conv1": Conv(width, 3, padding=1),
        "norm2": GroupNorm(groups),
        "conv2": Conv(width, 3, padding=1, w_init=initializers.zeros),
    }
    children |= {"time": Dense(width)} if timed else {}
    children |= {"skip": Conv(width, 1)} if project else {}

    @network(**children)
    def block(net: Bound, x: Array, *embedded: Array) -> Array:
        y = net.conv1(activation(net.norm1(x)))
        for e in embedded:
            e = jnp.expand_dims(net.time(activation(e)), tuple(range(1, x.ndim - 1)))
            y = y + spread(e, y.shape)
        y = net.conv2(activation(net.norm2(y)))
        return y + (net.skip(x) if project else x)

    return block


def _check_widths(widths: Sequence[int], blocks: int, groups: int) -> None:
    fits = isinstance(widths, Sequence) and len(widths) > 0 and all(w % groups == 0 for w in widths)
    require(
        fits and is_whole(blocks),
        "UNet",
        f"widths that are multiples of the {groups} groups, and 1 or more blocks for each",
        f"widths={widths!r}, blocks={blocks!r}",
        "Write UNet(1, widths=(32, 64, 128), blocks=2, groups=8).",
    )


def _check_inputs(x: Array, times: tuple[Array, ...], timed: bool, halvings: int) -> None:
    given = [jnp.shape(t) for t in times]
    require(
        given == [x.shape[:1]] * timed,
        "unet",
        f"after x, times of shape {x.shape[:1]}" if timed else "x alone, without a time_width",
        f"inputs of shapes {[x.shape, *given]}",
        "Write net(params, x, t) with time_width=64, and net(params, x) without.",
    )
    require(
        all(side % 2**halvings == 0 for side in x.shape[1:-1]),
        "unet",
        f"images whose sides are multiples of {2**halvings}, to be halved {halvings} times",
        f"sides {x.shape[1:-1]}",
        "Pad them with fn.pad, or use fewer widths.",
    )
