"""Convolutions of every kind, and the networks made of them."""
# pyright: reportArgumentType=false
# Wrong arguments are the matter here.

from functools import partial

import jax
import jax.numpy as jnp

import funcnet as fn

from .forms import LayerCase, image, rows

IMAGE, KERNEL = jnp.zeros((1, 3, 3, 4)), jnp.zeros((3, 3, 2, 4))
UP = partial(fn.conv_transpose, IMAGE, KERNEL)

OPS = rows(
    ValueError,
    partial(fn.conv_transpose, IMAGE, IMAGE[0, 0]),
    "conv_transpose: expected w of rank 3, 4 or 5 (*kernel, outputs / groups, channels), got shape "
    "(3, 4). A PyTorch weight is the other way round: for two axes pass w.transpose(2, 3, 1, 0).",
    partial(fn.conv_transpose, IMAGE[0], KERNEL),
    "conv_transpose: expected x of rank 4 (batch, height, width, channel), got shape (3, 3, 4). "
    "Add the missing axes: x[None] is a batch of one.",
    partial(fn.conv_transpose, IMAGE[..., :3], KERNEL),
    "conv_transpose: expected x of 4 channels, the last axis of w, and something to spread, got "
    "shape (1, 3, 3, 3). Channels come last: x is (batch, *spatial, channels), w (*kernel, outputs "
    "/ groups, channels).",
    partial(fn.conv_transpose, IMAGE[:, :0], KERNEL),
    "conv_transpose: expected x of 4 channels, the last axis of w, and something to spread, got "
    "shape (1, 0, 3, 4). Channels come last: x is (batch, *spatial, channels), w (*kernel, outputs "
    "/ groups, channels).",
    partial(UP, groups=3),
    "conv_transpose: expected a number of groups that divides 4, the number of channels of x, got "
    "groups=3. Choose a divisor of the number of channels.",
    partial(UP, jnp.zeros(2), groups=2),
    "conv_transpose: expected b of shape (4,), one for each output, got shape (2,). Pass None for "
    "no bias.",
    partial(UP, padding="SAME"),
    "conv_transpose: expected padding in numbers, got 'SAME'. Sizes that are multiplied by the "
    "stride s take a kernel of 2 s and padding=s // 2.",
    partial(UP, padding=(1, 2, 3)),
    "conv_transpose: expected padding of 0 or more: one whole number, or for each spatial axis a "
    "number or a pair (low, high), got (1, 2, 3). Write padding=1, or padding=((1, 1), (1, 1)).",
    partial(UP, padding=(1, (2, 3))),
    "conv_transpose: expected padding that leaves something of the full output [5, 5], got (1, (2, "
    "3)). Padding takes away from the output here: use less.",
    partial(UP, stride=0),
    "conv_transpose: expected a stride of 1 or more: one whole number, or one for each spatial "
    "axis, got 0. Write stride=2, or stride=(2, 2).",
    partial(UP, stride=2, output_padding=2),
    "conv_transpose: expected output_padding from 0 to below the stride (2, 2), got 2. It chooses "
    "among the sizes that the convolution takes to that of x.",
    partial(UP, stride=(3, 2), output_padding=(2, 2)),
    "conv_transpose: expected output_padding from 0 to below the stride (3, 2), got (2, 2). It "
    "chooses among the sizes that the convolution takes to that of x.",
    partial(UP, stride=2, output_padding=(1,)),
    "conv_transpose: expected output_padding from 0 to below the stride (2, 2), got (1,). It "
    "chooses among the sizes that the convolution takes to that of x.",
)

UNET = fn.nets.UNet(1, (2, 4), groups=2)
TIMED = fn.nets.UNet(1, (2, 4), groups=1, time_width=2)
KEY, PICTURES = jax.random.key(0), jnp.zeros((2, 4, 4, 1))

OTHERS = rows(
    ValueError,
    lambda: fn.ConvTranspose(0, 3),
    "conv_transpose: expected a width that is a whole number of 1 or more, got 0. It is the number "
    "of output channels.",
    lambda: fn.ConvTranspose(4, 3, groups=3),
    "conv_transpose: expected a number of groups that divides 4, the number of output channels, "
    "got groups=3. Choose a divisor of the number of output channels.",
    lambda: fn.ConvTranspose(4, (3,)).init(KEY, IMAGE),
    "conv_transpose: expected x of rank 3 (batch, *spatial, channel), got shape (1, 3, 3, 4). Give "
    "the kernel one length for each spatial axis, or x the axes it lacks: x[None] is a batch of "
    "one.",
    lambda: fn.nets.ResNet(19),
    "ResNet: expected a depth among 18, 34, 50, 101, 152 for large images, or 8, 20, 32, 44, 56, "
    "110 for 32x32, got 19. Write ResNet(18), or ResNet(20, 10) for ten classes of small images.",
    lambda: fn.nets.UNet(1, (32, 60)),
    "UNet: expected widths that are multiples of the 8 groups, and 1 or more blocks for each, got "
    "widths=(32, 60), blocks=1. Write UNet(1, widths=(32, 64, 128), blocks=2, groups=8).",
    lambda: fn.nets.UNet(1, 32),
    "UNet: expected widths that are multiples of the 8 groups, and 1 or more blocks for each, got "
    "widths=32, blocks=1. Write UNet(1, widths=(32, 64, 128), blocks=2, groups=8).",
    lambda: fn.nets.UNet(1, (8,), blocks=0),
    "UNet: expected widths that are multiples of the 8 groups, and 1 or more blocks for each, got "
    "widths=(8,), blocks=0. Write UNet(1, widths=(32, 64, 128), blocks=2, groups=8).",
    lambda: TIMED.init(KEY, PICTURES),
    "unet: expected after x, times of shape (2,), got inputs of shapes [(2, 4, 4, 1)]. Write "
    "net(params, x, t) with time_width=64, and net(params, x) without.",
    lambda: TIMED.init(KEY, PICTURES, jnp.zeros(3)),
    "unet: expected after x, times of shape (2,), got inputs of shapes [(2, 4, 4, 1), (3,)]. Write "
    "net(params, x, t) with time_width=64, and net(params, x) without.",
    lambda: UNET.init(KEY, PICTURES, jnp.zeros(2)),
    "unet: expected x alone, without a time_width, got inputs of shapes [(2, 4, 4, 1), (2,)]. "
    "Write net(params, x, t) with time_width=64, and net(params, x) without.",
    lambda: UNET.init(KEY, PICTURES[:, :3]),
    "unet: expected images whose sides are multiples of 2, to be halved 1 times, got sides (3, 4). "
    "Pad them with fn.pad, or use fewer widths.",
)

LAYERS = {
    "conv transpose": LayerCase(
        fn.ConvTranspose(4, 4, stride=2, padding=1, groups=2), (image(2, 3, 4, 2),)
    ),
    "resnet": LayerCase(fn.nets.ResNet(8, 3), (image(4, 8, 8, 1),)),
    "unet": LayerCase(UNET, (image(2, 4, 4, 1),)),
}
