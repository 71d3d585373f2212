"""Messages of the losses."""

# pyright: reportArgumentType=false
# Wrong arguments are the matter here.

from functools import partial

import jax.numpy as jnp

import funcnet as fn

from .forms import LayerCase, rows

Z, Y = jnp.zeros((2, 3)), jnp.array([0, 2])
N, COLUMN = jnp.zeros(4), jnp.zeros((4, 1))
FRAMES = jnp.zeros((2, 4, 3))
DISTANCES = (fn.squared_error, fn.absolute_error, fn.huber, fn.smooth_l1)

LAYERS: dict[str, LayerCase] = {}

OPS = rows(
    ValueError,
    partial(fn.cross_entropy, jnp.zeros((2, 0)), Y),
    "cross_entropy: expected logits of shape (..., classes), got shape (2, 0). They come first, "
    "before any softmax; the labels come second.",
    partial(fn.cross_entropy, Z, Z[:, :2]),
    "cross_entropy: expected soft labels of the logits' shape (2, 3), got shape (2, 2). Integer "
    "labels have that shape without its last axis.",
    partial(fn.cross_entropy, Z, Y[:1]),
    "cross_entropy: expected labels of shape (2,), or (2, 3) for soft ones, as logits have shape "
    "(2, 3), got shape (1,). The classes lie on the last axis of the logits.",
    partial(fn.cross_entropy, Z, Y, jnp.ones(2)),
    "cross_entropy: expected weights of shape (3,), one for each class, got shape (2,). To leave "
    "out examples, use where.",
    partial(fn.cross_entropy, Z, Y, label_smoothing=1.0),
    "cross_entropy: expected label_smoothing from 0 to below 1, got 1.0. It is the share of each "
    "label that is spread over all classes.",
    partial(fn.cross_entropy, Z, Y, label_smoothing="0.1"),
    "cross_entropy: expected label_smoothing from 0 to below 1, got '0.1'. It is the share of each "
    "label that is spread over all classes.",
    partial(fn.cross_entropy, Z, Y, z_loss="1e-4"),
    "cross_entropy: expected z_loss of 0 or more, got '1e-4'. It is the weight of the square of "
    "logsumexp(logits), such as 1e-4.",
    partial(fn.cross_entropy, Z, Z, ignore_index=0),
    "cross_entropy: expected integer labels, since ignore_index is given, got soft labels. Leave "
    "out examples with where.",
    partial(fn.cross_entropy, Z, Y + 1),
    "cross_entropy: expected labels from 0 to 2, got labels from 1 to 3. Leave out what must not "
    "count with where.",
    partial(fn.cross_entropy, Z, Y - 1, reduction="none"),
    "cross_entropy: expected labels from 0 to 2, got labels from -1 to 1. Leave out what must not "
    "count with where.",
    partial(fn.cross_entropy, Z, Y, reduction="average"),
    "cross_entropy: expected reduction to be 'mean', 'sum' or 'none', got 'average'. Choose one of "
    "the three.",
    partial(fn.cross_entropy, Z, Y, None, Z == 0),
    "cross_entropy: expected where of shape (2,), one entry for each loss, got shape (2, 3). "
    "Broadcast it first: jnp.broadcast_to(where, shape).",
    partial(fn.binary_cross_entropy, COLUMN, N),
    "binary_cross_entropy: expected targets of shape (4, 1), as logits has, got shape (4,). "
    "Reshape it first: targets.reshape(logits.shape).",
    partial(fn.binary_cross_entropy, Z, Z, None, jnp.ones(2)),
    "binary_cross_entropy: expected pos_weight that broadcasts to the logits' shape (2, 3), got "
    "shape (2,). Pass one number, or one for each output on the last axis.",
    partial(fn.binary_cross_entropy, N, N - 1),
    "binary_cross_entropy: expected targets from 0 to 1, got targets from -1.0 to -1.0. Leave out "
    "what must not count with where.",
    partial(fn.bernoulli_nll, N, N - 1),
    "bernoulli_nll: expected targets from 0 to 1, got targets from -1.0 to -1.0. Leave out what "
    "must not count with where.",
    partial(fn.multi_margin, jnp.zeros(()), Y),
    "multi_margin: expected scores of shape (..., classes), got shape (). They come first; the "
    "labels come second.",
    partial(fn.multi_margin, Z, Z),
    "multi_margin: expected integer labels of shape (2,), one class for each example, got float32 "
    "of shape (2, 3). The classes lie on the last axis of the scores.",
    partial(fn.multi_margin, Z, Y, p=3),
    "multi_margin: expected p of 1 or 2, got 3. It is the power of each class's part.",
    partial(fn.multi_margin, Z, Y, jnp.ones(2)),
    "multi_margin: expected weights of shape (3,), one for each class, got shape (2,). To leave "
    "out examples, use where.",
    partial(fn.multi_margin, Z, Y + 1),
    "multi_margin: expected labels from 0 to 2, got labels from 1 to 3. Leave out what must not "
    "count with where.",
    partial(fn.cosine_similarity, Z, Z[:1]),
    "cosine_similarity: expected second of shape (2, 3), as first has, got shape (1, 3). Broadcast "
    "it first: jnp.broadcast_to(array, shape).",
    partial(fn.cosine_similarity, Z, Z, axis=2),
    "cosine_similarity: expected an axis from -2 to 1, got axis 2 for shape (2, 3). The axis is "
    "the one whose entries are the vectors.",
    partial(fn.cosine_embedding, Z, Z, Z),
    "cosine_embedding: expected targets of shape (2,), one for each pair of rows, got shape (2, "
    "3). The last axis of first and second is that of the vectors.",
    partial(fn.cosine_embedding, Z, Z, Y),
    "cosine_embedding: expected targets of -1 and 1, got 0. Of labels 0 and 1 they are 2 * labels "
    "- 1. Leave out what must not count with where.",
    partial(fn.info_nce, N, N),
    "info_nce: expected queries of rank 2 (batch, features), got shape (4,). Of several batches "
    "take jax.vmap.",
    partial(fn.nt_xent, Z, Z, temperature=0),
    "nt_xent: expected a temperature above 0, got 0. It divides the similarities: 0.1 is usual.",
    partial(fn.nt_xent, Z, Z, Z == 0),
    "nt_xent: expected where of shape (2,), one entry for each loss, got shape (2, 3). Broadcast "
    "it first: jnp.broadcast_to(where, shape).",
    partial(fn.hinge, N, N + 2),
    "hinge: expected targets of -1 and 1, got 2.0. Of labels 0 and 1 they are 2 * labels - 1. "
    "Leave out what must not count with where.",
    partial(fn.margin_ranking, N, N, N),
    "margin_ranking: expected targets of -1 and 1, got 0.0. Of labels 0 and 1 they are 2 * labels "
    "- 1. Leave out what must not count with where.",
    partial(fn.bernoulli_nll, N, N, None, jnp.ones(3)),
    "bernoulli_nll: expected weight that broadcasts to the probs' shape (4,), got shape (3,). Pass "
    "one number, or one for each output on the last axis.",
    partial(fn.binary_cross_entropy, Z, Z, None, None, jnp.ones((2, 1, 1))),
    "binary_cross_entropy: expected weight that broadcasts to the logits' shape (2, 3), got shape "
    "(2, 1, 1). Pass one number, or one for each output on the last axis.",
    partial(fn.soft_dice, Z, Z, smooth=0.0),
    "soft_dice: expected smooth above 0, got 0.0. It keeps the ratio of empty rows finite.",
    partial(fn.sigmoid_focal, N, N, gamma=-1.0),
    "sigmoid_focal: expected gamma of 0 or more, got -1.0. With gamma = 0 no example counts for "
    "less.",
    partial(fn.sigmoid_focal, N, N, alpha=2.0),
    "sigmoid_focal: expected alpha from 0 to 1, or None, got 2.0. It weighs the positive part, and "
    "1 - alpha the negative.",
    partial(fn.kl_divergence, Z, Z - 1),
    "kl_divergence: expected p from 0 to inf, got p from -1.0 to -1.0. Leave out what must not "
    "count with where.",
    partial(fn.ctc_loss, Z, None, Y[:, None]),
    "ctc_loss: expected logits of rank 3 (batch, time, classes), got shape (2, 3). One sequence is "
    "a batch of one: logits[None].",
    partial(fn.ctc_loss, FRAMES, None, Y),
    "ctc_loss: expected labels of shape (2, most labels), as logits have shape (2, 4, 3), got "
    "shape (2,). Fill the shorter rows up and give label_lengths.",
    partial(fn.ctc_loss, FRAMES, jnp.ones(1, int), Y[:, None]),
    "ctc_loss: expected logit_lengths of shape (2,), one for each sequence, got shape (1,). Pass "
    "None where all count whole; of a mask, pass mask.sum(1).",
    partial(fn.ctc_loss, FRAMES, 5 - Y, Y[:, None] + 1),
    "ctc_loss: expected logit_lengths from 0 to 4, got logit_lengths from 3 to 5. Cut the longer "
    "sequences first.",
    partial(fn.ctc_loss, FRAMES, None, Y[:, None] + 1),
    "ctc_loss: expected labels from 0 to 2, got labels from 1 to 3. Leave out what must not count "
    "with label_lengths.",
    partial(fn.ctc_loss, FRAMES, None, Y[:, None]),
    "ctc_loss: expected labels other than the blank, 0, got the blank among them. Number the "
    "labels so that the blank has a class of its own.",
    partial(fn.ctc_loss, FRAMES, None, Y[:, None], blank=3),
    "ctc_loss: expected a blank from 0 to 2, one of the classes, got 3. It is the class that "
    "stands for no label.",
    partial(fn.ctc_loss, FRAMES, None, Y[:, None], blank=1, reduction="average"),
    "ctc_loss: expected reduction to be 'mean', 'sum' or 'none', got 'average'. Choose one of the "
    "three.",
    partial(fn.huber, N, N, delta=0.0),
    "huber: expected delta above 0, got 0.0. It is the error at which the parabola becomes a line.",
) + rows(
    TypeError,
    partial(fn.cross_entropy, Z, Y[:, None]),
    "cross_entropy: expected soft labels of a floating dtype, as these have the rank of the "
    "logits, got int32 of shape (2, 1). Pass one class for each example, without the last axis, or "
    "one_hot.astype(float).",
    partial(fn.cross_entropy, Z, Y.astype("float32")),
    "cross_entropy: expected labels of an integer dtype, one class for each example, got float32. "
    "Convert them: labels.astype(int).",
    partial(fn.ctc_loss, FRAMES, None, FRAMES[:, 0]),
    "ctc_loss: expected labels of an integer dtype, got float32. Convert them: labels.astype(int).",
    partial(fn.ctc_loss, FRAMES, None, Y[:, None], jnp.ones(2)),
    "ctc_loss: expected label_lengths of an integer dtype, got float32. They count what belongs to "
    "each sequence; the rest may be anything.",
    partial(fn.cross_entropy, Z, Y, None, jnp.ones(2)),
    "cross_entropy: expected where of dtype bool, got float32. Write the mask as a comparison, "
    "such as positions < length.",
)

for op in DISTANCES:
    OPS += rows(
        ValueError,
        partial(op, N, COLUMN),
        f"{op.__name__}: expected targets of shape (4,), as predictions has, got shape (4, 1). "
        "Reshape it first: targets.reshape(predictions.shape).",
        partial(op, N, N, reduction=None),
        f"{op.__name__}: expected reduction to be 'mean', 'sum' or 'none', got None. Choose one of "
        "the three.",
        partial(op, N, N, COLUMN == 0),
        f"{op.__name__}: expected where of shape (4,), one entry for each loss, got shape (4, 1). "
        "Broadcast it first: jnp.broadcast_to(where, shape).",
    )

OTHERS = rows(
    ValueError,
    partial(fn.nets.ctc_decode, Z),
    "ctc_decode: expected logits of rank 3 (batch, time, classes), got shape (2, 3). One sequence "
    "is a batch of one: logits[None].",
    partial(fn.nets.ctc_decode, FRAMES, Y[:1]),
    "ctc_decode: expected logit_lengths of shape (2,), one for each sequence, got shape (1,). Pass "
    "None where all frames count; of a mask, pass mask.sum(1).",
    partial(fn.nets.ctc_decode, FRAMES, blank=3),
    "ctc_decode: expected a blank from 0 to 2, one of the classes, got 3. It is the class that "
    "stands for no label, as in ctc_loss.",
    partial(fn.character_error_rate, ["a"], ["a", "b"]),
    "character_error_rate: expected as many sequences read as written, 2, got 1. Give what was "
    "read for each.",
) + rows(
    TypeError,
    partial(fn.character_error_rate, "ab", ["a", "b"]),
    "character_error_rate: expected read to be a sequence of strings or labels, got 'ab'. Put a "
    "single one into a list.",
)
