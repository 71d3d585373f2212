"""Rows for what normalises, resizes, places in time, and glues."""

# pyright: reportArgumentType=false
# Wrong arguments are the matter here.

from functools import partial

import jax
import jax.numpy as jnp

import funcnet as fn

from .forms import LayerCase, image, rows

KEY = jax.random.key(0)
SCALAR, ROW, ROWS = jnp.zeros(()), jnp.zeros(3), jnp.zeros((2, 3))
SIGNAL, IMAGE = jnp.zeros((1, 5, 2)), jnp.zeros((1, 5, 5, 2))
X, PIXELS, WORDS = image(5, 6), image(2, 3, 2, 4), image(2, 3, 4)
PLACES = jnp.arange(3)[:, None] < jnp.array([3, 2])[:, None, None]

OPS = rows(
    ValueError,
    partial(fn.layer_norm, SCALAR),
    "layer_norm: expected x of rank 1 or more (..., channels), got shape (). Add the missing "
    "axes: x[None].",
    partial(fn.rms_norm, ROWS, jnp.zeros(2)),
    "rms_norm: expected scale of shape (3,), one for each channel of x, got shape (2,). The "
    "channels are the last axis of x.",
    partial(fn.group_norm, ROW, groups=1),
    "group_norm: expected x of rank 2 or more (..., channels), got shape (3,). Add the missing "
    "axes: x[None].",
    partial(fn.group_norm, ROWS, groups=2),
    "group_norm: expected a number of groups that divides 3, the number of channels of x, got "
    "groups=2. Choose a divisor of the number of channels.",
    partial(fn.instance_norm, ROWS),
    "instance_norm: expected x of rank 3 or more (..., channels), got shape (2, 3). Add the "
    "missing axes: x[None].",
    partial(fn.instance_norm, SIGNAL, None, None, jnp.ones((1, 5), bool)),
    "instance_norm: expected where of a shape that broadcasts to (1, 5, 2), that of x, got shape "
    "(1, 5). Add the axis of channels: where[..., None].",
    partial(fn.batch_norm, ROWS, None, None, jnp.ones((2, 2), bool)),
    "batch_norm: expected where of a shape that broadcasts to (2, 3), that of x, got shape (2, 2). "
    "Add the axis of channels: where[..., None].",
    partial(fn.standardize, ROWS, axis=2),
    "standardize: expected an axis from -2 to 1, got axis 2 for shape (2, 3). The axis is the "
    "one whose entries are taken together.",
    partial(fn.l2_normalize, SCALAR),
    "l2_normalize: expected x of rank 1 or more, got axis -1 for shape (). The axis is the one "
    "whose entries are taken together.",
    partial(fn.local_response_norm, ROWS, size=0),
    "local_response_norm: expected a size of 1 or more, and k above 0, got size=0 and k=2.0. "
    "Krizhevsky et al. have size=5 and k=2.",
    partial(fn.resize, ROWS, shape=2),
    "resize: expected x of rank 3, 4 or 5 (batch, *spatial, channels), with one pixel at least, "
    "got shape (2, 3). Batch comes first and channels last: x[None] is a batch of one.",
    partial(fn.resize, SIGNAL, shape=2, method="linear"),
    "resize: expected a method among nearest, nearest-exact, bilinear, cubic, got 'linear'. "
    "PyTorch's linear and trilinear are bilinear too: the number of axes is that of x.",
    partial(fn.resize, SIGNAL, shape=2, antialias=True),
    "resize: expected antialias and align_corners with a method among bilinear, cubic, got "
    "'nearest'. The nearest pixel is read whole.",
    partial(fn.resize, IMAGE, shape=(2, 0)),
    "resize: expected a shape of 1 or more: one whole number, or one for each spatial axis, got "
    "(2, 0). Write shape=2, or shape=(2, 2).",
    partial(fn.pixel_shuffle, IMAGE, factor=2),
    "pixel_shuffle: expected a number of channels that 4 divides, the pixels of a block, got "
    "shape (1, 5, 5, 2). Each output channel takes one input channel for each pixel of its block.",
    partial(fn.pixel_unshuffle, IMAGE, factor=2),
    "pixel_unshuffle: expected spatial axes that (2, 2) divide, got shape (1, 5, 5, 2). Pad or "
    "crop first: the image is cut into whole blocks.",
    partial(fn.einsum, ROWS, ROWS, equation="ij,jk"),
    "einsum: expected an equation of operands and an output, in letters, got 'ij,jk'. Write "
    '"btd,dhk->bthk".',
    partial(fn.einsum, ROWS, ROWS, equation="ij->j"),
    "einsum: expected as many arrays as 'ij->j' has operands, 1, got 2. Give x, w, and after them "
    "one array more, or a tuple of arrays.",
    partial(fn.einsum, ROWS, None, (ROWS,), equation="ij,ij->j"),
    "einsum: expected as many arrays as 'ij,ij->j' has operands, 2, got w=None and others after "
    "it. Give x, w, and after them one array more, or a tuple of arrays.",
    partial(fn.einsum, ROWS, ROW, (ROW, ROWS), equation="ij,j,j,jk->ik"),
    "einsum: expected more[1] with axes jk, each letter of one length, got shape (2, 3) beside "
    "{'i': 2, 'j': 3}. The equation is 'ij,j,j,jk->ik'.",
    partial(fn.einsum, ROWS, ROWS, equation="ii,ij->j"),
    "einsum: expected no letter twice in one operand or in the output, got 'ii,ij->j'. Take a "
    "diagonal with jnp.diagonal first.",
    partial(fn.einsum, ROWS, ROWS, equation="ij,ij->k"),
    "einsum: expected an output whose letters stand in an operand, got 'ij,ij->k'. Add new axes "
    "by broadcasting afterwards.",
    partial(fn.einsum, ROWS, ROWS, equation="ij,jk->ik"),
    "einsum: expected w with axes jk, each letter of one length, got shape (2, 3) beside "
    "{'i': 2, 'j': 3}. The equation is 'ij,jk->ik'.",
    partial(fn.einsum, ROW, ROWS, equation="ij,jk->ik"),
    "einsum: expected x with axes ij, each letter of one length, got shape (3,). The equation is "
    "'ij,jk->ik'.",
)

OPS += rows(
    TypeError,
    partial(fn.group_norm, ROWS, None, None, jnp.ones((2, 1)), groups=3),
    "group_norm: expected where of dtype bool, got float32. Compare: where = mask != 0.",
    partial(fn.standardize, ROWS, jnp.ones((2, 1))),
    "standardize: expected where of dtype bool, got float32. Compare: where = mask != 0.",
    partial(fn.einsum, ROWS, ROWS, equation=None),
    'einsum: expected an equation, a string, got None. Write equation="btd,dhk->bthk".',
    partial(fn.einsum, ROWS, ROWS, equation=["ij", "jk"]),
    "einsum: expected an equation, a string, got ('ij', 'jk'). Write equation=\"btd,dhk->bthk\".",
)

OTHERS = rows(
    ValueError,
    lambda: fn.LearnedPositions(0),
    "learned_positions: expected a length that is a whole number of 1 or more, got 0. The table "
    "has one row for each position.",
    lambda: fn.LearnedPositions(2)({"table": jnp.zeros((2, 2))}, SIGNAL),
    "learned_positions: expected positions from 0 to 1, got 5 of them from 0. Make the table "
    "longer, or the sequence shorter.",
    lambda: fn.LearnedPositions(6)({"table": jnp.zeros((6, 2))}, SIGNAL, jnp.array([0, 2])),
    "learned_positions: expected positions from 0 to 5, got 5 of them from [0 2]. Make the table "
    "longer, or the sequence shorter.",
    lambda: fn.SinusoidalPositions()({}, jnp.zeros((2, 5, 2)), jnp.zeros(3, int)),
    "sinusoidal_positions: expected an integer offset, or integers of shape (2,), got int32 of "
    "shape (3,). It is the position of each sequence's first token.",
    lambda: fn.SinusoidalPositions()({}, ROW),
    "sinusoidal_positions: expected x of rank 2 or more (..., time, width), got shape (3,). Add "
    "the missing axes: x[None].",
    lambda: fn.TimeEmbedding(5),
    "time_embedding: expected a width that is an even number of 2 or more, got 5. One half are "
    "cosines, the other sines.",
    lambda: fn.DropPath(1.0),
    "drop_path: expected a probability from 0 to below 1, got drop=1.0. It is the probability of "
    "a zero: 0.1 keeps nine of ten.",
    lambda: fn.DropPath("0.1"),
    "drop_path: expected a probability from 0 to below 1, got drop='0.1'. It is the probability of "
    "a zero: 0.1 keeps nine of ten.",
    lambda: fn.DropPath(0.1).apply({}, {}, ROWS, train=True),
    "drop_path: expected a random key in training, got key=None. Call net.apply(params, state, "
    "x, train=True, key=jax.random.key(0)), with another key for each step.",
    lambda: fn.Resize(),
    "resize: expected either a shape or a factor, got shape=None and factor=None. Write "
    "Resize(64) or Resize(factor=2).",
    lambda: fn.Resize(factor=(2, 2))({}, SIGNAL),
    "resize: expected one factor, or one for each of 1 spatial axes, got (2, 2). Write factor=2.",
    lambda: fn.Pad((1, 1))({}, SIGNAL),
    "pad: expected one width, or one for each spatial axis of x (batch, *spatial, channels): 1, "
    "got (1, 1). Write Pad(1), or a pair (low, high) for each axis.",
    lambda: fn.Reshape(2, 2)({}, ROWS),
    "reshape: expected an example of as many elements as (2, 2) has, got shape (2, 3). The first "
    "axis is the batch and stays; one length may be -1.",
    lambda: fn.Einsum("nd,dh,hk->nk", (None, 2)),
    "einsum: expected an equation of two operands, x and w, got 'nd,dh,hk->nk'. Write "
    '"btd,dhk->bthk"; the op einsum takes any number of operands.',
    lambda: fn.Einsum("nd,dhk->nhk", (None, None, 2)),
    "einsum: expected a length for each of the axes dhk of w, None for those that x has, got "
    "(None, None, 2). The equation is 'nd,dhk->nhk'.",
    lambda: fn.Einsum("nd,dhk->nhk", (None, 2, 2), bias_axes="n"),
    "einsum: expected bias_axes among the axes hk of w in the output, got 'n'. The bias is "
    "shared along the others.",
    lambda: fn.Einsum("nd,dk->nk", (None, 2)).init(KEY, SIGNAL),
    "einsum: expected x with axes nd, got shape (1, 5, 2). The equation is 'nd,dk->nk'.",
)

AVERAGING = fn.InstanceNorm(track_running_stats=True)
STATE = {"mean": jnp.zeros(2), "var": jnp.ones(2)}
OTHERS += rows(
    ValueError,
    lambda: fn.InstanceNorm(track_running_stats=True, decay=-1),
    "instance_norm: expected a decay from 0 to 1, got -1. It is the weight of the old average: "
    "0.9 where PyTorch says momentum=0.1.",
    lambda: AVERAGING.apply(AVERAGING.init(KEY, SIGNAL)[0], STATE, SIGNAL[:, :1], train=True),
    "instance_norm: expected examples with more than one place in training, got shape (1, 1, 2). "
    "The variance of one value is 0: use larger inputs, or train=False.",
    lambda: AVERAGING.apply(AVERAGING.init(KEY, SIGNAL)[0], STATE, SIGNAL[:0], train=True),
    "instance_norm: expected examples with more than one place in training, got shape (0, 5, 2). "
    "The variance of one value is 0: use larger inputs, or train=False.",
    lambda: AVERAGING(AVERAGING.init(KEY, SIGNAL)[0], SIGNAL),
    "instance_norm: expected state mean, var, got none. Call `output, state = net.apply(params, "
    "state, x)` with the state from net.init(key, x).",
    lambda: fn.BatchNorm(scale=False, shift=False).apply({}, STATE, SIGNAL, jnp.ones(5, bool)),
    "batch_norm: expected where of a shape that broadcasts to (1, 5, 2), that of x, got shape "
    "(5,). Add the axis of channels: where[..., None].",
)

OTHERS += rows(
    TypeError,
    lambda: fn.SinusoidalPositions()({}, jnp.zeros((2, 3), int)),
    "sinusoidal_positions: expected x of a floating dtype, got int32. Convert it: "
    "x.astype(jnp.float32).",
    lambda: fn.LearnedPositions(3)({"table": ROWS}, jnp.zeros((2, 3), int)),
    "learned_positions: expected x of a floating dtype, got int32. Convert it: "
    "x.astype(jnp.float32).",
)

LAYERS: dict[str, LayerCase] = {
    "layer norm": LayerCase(fn.LayerNorm(), (X,)),
    "rms norm": LayerCase(fn.RMSNorm(), (X,)),
    "group norm": LayerCase(fn.GroupNorm(2), (PIXELS,)),
    "instance norm": LayerCase(fn.InstanceNorm(), (PIXELS,)),
    "batch norm, padded": LayerCase(fn.BatchNorm(), (WORDS, PLACES)),
    "instance norm with averages": LayerCase(fn.InstanceNorm(track_running_stats=True), (PIXELS,)),
    "group norm, padded": LayerCase(fn.GroupNorm(2), (WORDS, PLACES)),
    "local response norm": LayerCase(fn.LocalResponseNorm(3, alpha=0.5), (PIXELS,)),
    "resize": LayerCase(fn.Resize(factor=2, method="bilinear"), (PIXELS,)),
    "pixel shuffle": LayerCase(fn.PixelShuffle(2), (PIXELS,)),
    "pad": LayerCase(fn.Pad(1, mode="edge"), (PIXELS,)),
    "drop path": LayerCase(fn.DropPath(0.3), (X,), needs_key=True),
    "identity": LayerCase(fn.Identity(), (X,)),
    "scale": LayerCase(fn.Scale(), (X,)),
    "bias": LayerCase(fn.Bias(), (X,)),
    "reshape": LayerCase(fn.Reshape(2, -1), (X,)),
    "einsum": LayerCase(fn.Einsum("btd,dhk->bthk", (None, 2, 3), bias_axes="hk"), (WORDS,)),
    "prelu": LayerCase(fn.PReLU(), (X,)),
    "learned positions": LayerCase(fn.LearnedPositions(7), (WORDS,)),
    "sinusoidal positions": LayerCase(fn.SinusoidalPositions(), (WORDS, jnp.array(2))),
    "time embedding": LayerCase(fn.TimeEmbedding(6), (image(4),)),
}
