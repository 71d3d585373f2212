"""What pools and samples images, and puts them back."""
# pyright: reportArgumentType=false
# Wrong arguments are the matter here.

from functools import partial

import jax
import jax.numpy as jnp

import funcnet as fn

from .forms import LayerCase, image, rows

LINE, IMAGE = jnp.zeros((1, 4, 2)), jnp.zeros((1, 3, 4, 2))
PLACES = jnp.zeros((1, 4, 2), jnp.int32)

OPS = rows(
    ValueError,
    partial(fn.max_pool_with_indices, LINE[0], window=2),
    "max_pool_with_indices: expected x of rank 3 (batch, width, channel), got shape (4, 2). Batch "
    "comes first and channels last; a window has one length for each axis between.",
    partial(fn.max_unpool, LINE[0], PLACES[0], shape=8),
    "max_unpool: expected x of rank 3 or more (batch, *windows, channel) with something to put, "
    "got shape (4, 2). Batch comes first and channels last.",
    partial(fn.max_unpool, LINE, PLACES[..., :1], shape=8),
    "max_unpool: expected indices of shape (1, 4, 2), one for each number of x, got shape (1, 4, "
    "1). They are the second output of max_pool_with_indices.",
    partial(fn.max_unpool, LINE, PLACES, shape=(2, 4)),
    "max_unpool: expected a shape of 1 or more: one whole number, or one for each spatial axis, "
    "got (2, 4). Write shape=2, or shape=(2,).",
    partial(fn.max_unpool, LINE, PLACES + 8, shape=8),
    "max_unpool: expected indices from 0 to 7, the last pixel of shape=8, got indices from 8 to 8. "
    "The shape is that of the image that was pooled, without batch and channels.",
    partial(fn.max_unpool, LINE, PLACES - 1, shape=8),
    "max_unpool: expected indices from 0 to 7, the last pixel of shape=8, got indices from -1 to "
    "-1. The shape is that of the image that was pooled, without batch and channels.",
)

OPS += rows(
    TypeError,
    partial(fn.max_unpool, LINE, LINE, shape=8),
    "max_unpool: expected indices of an integer dtype, got float32. They are the second output of "
    "max_pool_with_indices.",
)

OTHERS = rows(
    ValueError,
    lambda: fn.MaxUnpool(4, factor=2),
    "max_unpool: expected either a shape or a factor, got shape=4 and factor=2. Write "
    "MaxUnpool(64) or MaxUnpool(factor=2).",
    lambda: fn.MaxUnpool(factor=(2, 2))({}, LINE, PLACES),
    "max_unpool: expected one factor, or one for each of 1 spatial axes, got (2, 2). Write "
    "factor=2.",
)

LAYERS = {
    "max pool with indices": LayerCase(fn.MaxPool(2, return_indices=True), (image(2, 4, 6, 3),)),
    "max unpool": LayerCase(
        fn.MaxUnpool(factor=2),
        (image(2, 2, 3, 2), jax.random.randint(jax.random.key(0), (2, 2, 3, 2), 0, 24)),
    ),
}
