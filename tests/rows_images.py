"""What pools and samples images, and puts them back."""
# pyright: reportArgumentType=false
# Wrong arguments are the matter here.

from functools import partial

import jax
import jax.numpy as jnp

import funcnet as fn

from .forms import LayerCase, image, rows

LINE, IMAGE = jnp.zeros((1, 4, 2)), jnp.zeros((1, 3, 4, 2))
POINTS = jnp.zeros((1, 5, 2))
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
    partial(fn.lp_pool, IMAGE, window=4),
    "lp_pool: expected windows no larger than the padded input [3, 4], got windows that reach over "
    '[4, 4]. Use a smaller window, a larger input, or padding="SAME".',
    partial(fn.lp_pool, LINE, window=2, p=0.5),
    "lp_pool: expected a finite p of 1 or more, got 0.5. The limit of a large p is max_pool of the "
    "magnitudes.",
    partial(fn.lp_pool, LINE, window=2, p=float("inf")),
    "lp_pool: expected a finite p of 1 or more, got inf. The limit of a large p is max_pool of the "
    "magnitudes.",
    partial(fn.lp_pool, LINE, window=2, p="2"),
    "lp_pool: expected a finite p of 1 or more, got '2'. The limit of a large p is max_pool of the "
    "magnitudes.",
    partial(fn.grid_sample, LINE[0], POINTS),
    "grid_sample: expected x of rank 3, 4 or 5 (batch, *spatial, channels), with one pixel at "
    "least, got shape (4, 2). Batch comes first and channels last: x[None] is a batch of one.",
    partial(fn.grid_sample, IMAGE, POINTS[..., :1]),
    "grid_sample: expected a grid of shape (1, *points, 2), as x has shape (1, 3, 4, 2), got shape "
    "(1, 5, 1). Each point has one number for each spatial axis of x, that along its width first.",
    partial(fn.grid_sample, IMAGE, POINTS[0]),
    "grid_sample: expected a grid of shape (1, *points, 2), as x has shape (1, 3, 4, 2), got shape "
    "(5, 2). Each point has one number for each spatial axis of x, that along its width first.",
    partial(fn.grid_sample, IMAGE, POINTS, mode="cubic"),
    "grid_sample: expected a mode among nearest, bilinear, bicubic, got 'cubic'. PyTorch's "
    "trilinear is bilinear too: the number of axes is that of x.",
    partial(fn.grid_sample, IMAGE, POINTS, padding="edge"),
    "grid_sample: expected padding among zeros, border, reflection, got 'edge'. It says what is "
    "read beyond the pixels at the border.",
    partial(fn.affine_grid, IMAGE[0], shape=4),
    "affine_grid: expected theta of shape (batch, axes, axes + 1), with one to three axes, got "
    "shape (3, 4, 2). A row holds the factors of the coordinates, that of the width first, and "
    "what is added.",
    partial(fn.affine_grid, jnp.zeros((1, 2, 3)), shape=(4, 0)),
    "affine_grid: expected a shape of 1 or more: one whole number, or one for each spatial axis, "
    "got (4, 0). Write shape=2, or shape=(2, 2).",
)

OPS += rows(
    TypeError,
    partial(fn.lp_pool, PLACES, window=2),
    "lp_pool: expected x of a floating dtype, got int32. Convert it: x.astype(jnp.float32).",
    partial(fn.grid_sample, IMAGE, POINTS.astype(int)),
    "grid_sample: expected grid of a floating dtype, got int32. Convert it: "
    "grid.astype(jnp.float32).",
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
    "lp pool": LayerCase(fn.LpPool(3, 2, padding="SAME", p=3), (image(2, 4, 6, 3),)),
    "max unpool": LayerCase(
        fn.MaxUnpool(factor=2),
        (image(2, 2, 3, 2), jax.random.randint(jax.random.key(0), (2, 2, 3, 2), 0, 24)),
    ),
}
