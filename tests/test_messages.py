"""Every error message of the ops, layers, networks and metrics, in full.

Backpropagation's are in `test_backprop.py`.
"""
# pyright: reportArgumentType=false
# Wrong arguments are the matter here.

import ast
import inspect
import re
import traceback
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

import funcnet as fn
from funcnet.rules.prove import drawn
from funcnet.train.optimizers import averaged, named_optimizer

from .cases import RULES, TOPICS
from .forms import rows

KEY = jax.random.key(0)
SCALAR, ROW, ROWS, IDS = jnp.zeros(()), jnp.zeros(3), jnp.zeros((2, 3)), jnp.arange(3)
NONE, SIGNAL, IMAGE = jnp.zeros((1, 0, 5, 1)), jnp.zeros((1, 5, 2)), jnp.zeros((1, 5, 5, 2))
KERNEL = jnp.zeros((3, 3, 2, 4))
HUGE = jax.ShapeDtypeStruct((2**17, 2**16), "float32")
DENSE, NORM = fn.Dense(2), fn.BatchNorm()


OPS = rows(
    ValueError,
    partial(fn.dense, ROWS, ROW),
    "dense: expected w of rank 2 (inputs, outputs), got shape (3,). A PyTorch weight is the "
    "transpose: pass w.T.",
    partial(fn.dense, ROWS, jnp.zeros((4, 2))),
    "dense: expected x whose last axis has length 4, the number of rows of w, got shape (2, 3). "
    "Initialise the parameters with an input of this shape, or flatten x first.",
    partial(fn.dense, ROWS, jnp.zeros((3, 2)), ROW),
    "dense: expected b of shape (2,), one for each output, got shape (3,). Pass None for no bias.",
    partial(fn.embed, ROW, IDS),
    "embed: expected a table of rank 2 (entries, width), got shape (3,). One row belongs to each "
    "id.",
    partial(fn.embed, ROWS, IDS),
    "embed: expected ids from 0 to 1, got ids from 0 to 2. Check the vocabulary's size.",
    partial(fn.embed, ROWS, IDS - 1),
    "embed: expected ids from 0 to 1, got ids from -1 to 1. Check the vocabulary's size.",
    partial(fn.conv, IMAGE, ROWS),
    "conv: expected w of rank 3, 4 or 5 (*kernel, channels / groups, outputs), got shape (2, 3). "
    "A PyTorch weight is the other way round: for two axes pass w.transpose(2, 3, 1, 0).",
    partial(fn.conv, IMAGE[0, ..., 0], KERNEL),
    "conv: expected x of rank 4 (batch, height, width, channel), got shape (5, 5). Add the "
    "missing axes: x[None, :, :, None].",
    partial(fn.conv, IMAGE[0], KERNEL),
    "conv: expected x of rank 4 (batch, height, width, channel), got shape (5, 5, 2). Add the "
    "missing axis: x[None].",
    partial(fn.conv, IMAGE[..., 0], KERNEL[:, :, :1]),
    "conv: expected x of rank 4 (batch, height, width, channel), got shape (1, 5, 5). Add the "
    "missing axis: x[..., None].",
    partial(fn.conv, IMAGE[None], KERNEL),
    "conv: expected x of rank 4 (batch, height, width, channel), got shape (1, 1, 5, 5, 2). The "
    "rank of x is that of w.",
    partial(fn.conv, IMAGE, KERNEL[..., :0]),
    "conv: expected w of one output or more, and one tap or more along each axis, got shape (3, "
    "3, 2, 0). Its axes are (*kernel, channels / groups, outputs).",
    partial(fn.conv, IMAGE, KERNEL[:0]),
    "conv: expected w of one output or more, and one tap or more along each axis, got shape (0, "
    "3, 2, 4). Its axes are (*kernel, channels / groups, outputs).",
    partial(fn.conv, IMAGE, KERNEL, groups=3),
    "conv: expected a number of groups that divides 2, the number of channels of x, got "
    "groups=3. Choose a divisor of the number of channels.",
    partial(fn.conv, IMAGE, KERNEL[:, :, :1, :3], groups=2),
    "conv: expected a number of groups that divides 3, the number of outputs of w, got groups=2. "
    "Choose a divisor of the number of outputs.",
    partial(fn.conv, IMAGE[..., :1], KERNEL),
    "conv: expected x whose last axis has length 2, the channels that w of shape (3, 3, 2, 4) "
    "takes, got shape (1, 5, 5, 1). Channels come last: x is (batch, *spatial, channels), w "
    "(*kernel, channels / groups, outputs).",
    partial(fn.conv, IMAGE, KERNEL, ROW),
    "conv: expected b of shape (4,), one for each output, got shape (3,). Pass None for no bias.",
    partial(fn.conv, IMAGE, KERNEL, stride=(1, 0)),
    "conv: expected a stride of 1 or more: one whole number, or one for each spatial axis, got "
    "(1, 0). Write stride=2, or stride=(2, 2).",
    partial(fn.conv, SIGNAL, KERNEL[0], dilation=1.5),
    "conv: expected a dilation of 1 or more: one whole number, or one for each spatial axis, got "
    "1.5. Write dilation=2, or dilation=(2,).",
    partial(fn.conv, IMAGE, KERNEL, padding="same"),
    "conv: expected padding among VALID, SAME, SAME_LOWER, CAUSAL, or numbers, got 'same'. Words "
    "are in capitals; numbers are an int, or a pair (low, high) for each axis.",
    partial(fn.conv, IMAGE, KERNEL, padding="CAUSAL"),
    "conv: expected one spatial axis for CAUSAL padding, got 2 of them. Pad by hand the axis "
    "that is time: padding=((k - 1, 0), (0, 0)).",
    partial(fn.conv, IMAGE, KERNEL, padding=(1,)),
    "conv: expected padding of 0 or more: one whole number, or for each spatial axis a number or "
    "a pair (low, high), got (1,). Write padding=1, or padding=((1, 1), (1, 1)).",
    partial(fn.conv, SIGNAL, KERNEL[0], padding=-1),
    "conv: expected padding of 0 or more: one whole number, or for each spatial axis a number or "
    "a pair (low, high), got -1. Write padding=1, or padding=((1, 1),).",
    partial(fn.conv, IMAGE, KERNEL, dilation=3),
    "conv: expected windows no larger than the padded input [5, 5], got windows that reach over "
    '[7, 7]. Use a smaller window, a larger input, or padding="SAME".',
    partial(fn.max_pool, ROWS, window=2),
    "max_pool: expected x of rank 3 (batch, width, channel), got shape (2, 3). Batch comes first "
    "and channels last; a window has one length for each axis between.",
    partial(fn.avg_pool, IMAGE, window=(2,)),
    "avg_pool: expected x of rank 3 (batch, width, channel), got shape (1, 5, 5, 2). Batch comes "
    "first and channels last; a window has one length for each axis between.",
    partial(fn.max_pool, IMAGE, window=0),
    "max_pool: expected a window of 1 or more: one whole number, or one for each spatial axis, "
    "got 0. Write window=2, or window=(2, 2).",
    partial(fn.avg_pool, IMAGE, window=(2, 2, 2)),
    "avg_pool: expected x of rank 5 (batch, depth, height, width, channel), got shape (1, 5, 5, "
    "2). Batch comes first and channels last; a window has one length for each axis between.",
    partial(fn.max_pool, IMAGE, window=2, stride=(2, 0)),
    "max_pool: expected a stride of 1 or more: one whole number, or one for each spatial axis, "
    "got (2, 0). Write stride=2, or stride=(2, 2).",
    partial(fn.max_pool, IMAGE, window=2, padding=2),
    "max_pool: expected padding smaller than the window (2, 2), got 2. A window that holds "
    "nothing but padding has no value.",
    partial(fn.max_pool, IMAGE, window=2, padding=1, dilation=6),
    "max_pool: expected something of x at a tap of each window, got padding=1 and dilation=6 for "
    "shape (1, 5, 5, 2). Use less of one of them.",
    partial(fn.avg_pool, SIGNAL, jnp.ones((5, 1), bool), window=2, count_include_pad=True),
    "avg_pool: expected either where or count_include_pad, got both. What where leaves out does "
    "not count, and neither does padding then.",
    partial(fn.global_avg_pool, SIGNAL, jnp.ones((1, 5), bool)),
    "global_avg_pool: expected where of a shape that broadcasts to (1, 5, 2), that of x, got "
    "shape (1, 5). Add the axis of channels: where[..., None].",
    partial(fn.adaptive_avg_pool, ROWS, shape=2),
    "adaptive_avg_pool: expected x of rank 3, 4 or 5 (batch, *spatial, channel) with something to "
    "pool, got shape (2, 3). Batch comes first and channels last.",
    partial(fn.adaptive_max_pool, IMAGE, shape=(2, 0)),
    "adaptive_max_pool: expected a shape of 1 or more: one whole number, or one for each spatial "
    "axis, got (2, 0). Write shape=2, or shape=(2, 2).",
    partial(fn.global_max_pool, ROWS),
    "global_max_pool: expected x of rank 3 or more (batch, *spatial, channel) with something to "
    "pool, got shape (2, 3). Batch comes first and channels last.",
    partial(fn.global_avg_pool, NONE),
    "global_avg_pool: expected x of rank 3 or more (batch, *spatial, channel) with something to "
    "pool, got shape (1, 0, 5, 1). Batch comes first and channels last.",
    partial(fn.batch_norm, ROW, ROW, None),
    "batch_norm: expected x of rank 2 or more (..., channels), got shape (3,). Add the missing "
    "axes: x[None].",
    partial(fn.batch_norm, ROWS, None, jnp.zeros((2,))),
    "batch_norm: expected shift of shape (3,), one for each channel of x, got shape (2,). The "
    "channels are the last axis of x.",
    partial(fn.normalize, SCALAR, SCALAR, SCALAR, None, None),
    "normalize: expected x of rank 1 or more (..., channels), got shape (). Add the missing "
    "axes: x[None].",
    partial(fn.normalize, ROWS, ROW, ROW[:1], None, None),
    "normalize: expected var of shape (3,), one for each channel of x, got shape (1,). The "
    "channels are the last axis of x.",
    partial(fn.dropout, ROWS, KEY, drop=1.0),
    "dropout: expected a probability to drop, from 0 to less than 1, got 1.0. It is the part "
    "that is set to zero, not the part that is kept.",
    partial(fn.dropout, ROWS, KEY, drop=0.5, broadcast_dims=(2,)),
    "dropout: expected broadcast_dims from -2 to 1, got (2,). They are the axes of x along which "
    "one mask is shared.",
    partial(fn.dropout, SCALAR, KEY, drop=0.5, broadcast_dims=(0,)),
    "dropout: expected no broadcast_dims for a scalar, got (0,). They are the axes of x along "
    "which one mask is shared.",
    partial(fn.dropout, ROWS, jax.random.split(KEY), drop=0.5),
    "dropout: expected one key, got keys of shape (2,). Use jax.vmap for one key to each example.",
    partial(fn.pad, ROWS, widths=((1, 1), (0, 0)), mode="replicate"),
    "pad: expected a mode among constant, reflect, edge, wrap, got 'replicate'. PyTorch's "
    "replicate is edge, and its circular is wrap.",
    partial(fn.pad, ROWS, widths=((1, 1), (0, 0)), mode="edge", value=1.0),
    "pad: expected no value in mode edge, got 1.0. Only mode constant fills in a value.",
    partial(fn.pad, ROWS, widths=(1, 1)),
    "pad: expected widths as pairs (low, high) of integers, one for each axis of x, got (1, 1) "
    "for shape (2, 3). Write (0, 0) for an axis that stays as it is.",
    partial(fn.pad, ROWS, widths=((-2, -1), (0, 0))),
    "pad: expected to crop at most 2 from axis 0, its length, got (-2, -1). Negative widths crop.",
    partial(fn.pad, ROWS, widths=((0, 0), (3, 0)), mode="reflect"),
    "pad: expected widths of at most 2 along axis 1 of length 3 in mode reflect, got (3, 0). "
    "There is nothing more to copy: pad twice, or use mode constant.",
    partial(fn.prelu, ROWS, jnp.zeros(2)),
    "prelu: expected slope of shape () or (3,), one for each channel, got shape (2,). The "
    "channels are the last axis of x.",
    partial(fn.prelu, SCALAR, ROW),
    "prelu: expected slope of shape (), got shape (3,). The channels are the last axis of x.",
    partial(fn.elu, ROWS, alpha=0.0),
    "elu: expected alpha > 0, got 0.0. With alpha = 0 it is relu.",
    partial(fn.hard_tanh, ROWS, low=1.0),
    "hard_tanh: expected low below high, got 1.0 and 1.0. They are the ends of the range.",
    partial(fn.soft_shrink, ROWS, threshold=-1.0),
    "soft_shrink: expected threshold of 0 or more, got -1.0. It is the size up to which x becomes "
    "0.",
    partial(fn.softplus, ROWS, beta=0),
    "softplus: expected beta > 0, got 0. The larger beta, the closer to relu.",
    partial(fn.glu, ROWS),
    "glu: expected x with an even number of entries along axis -1, got shape (2, 3). One half is "
    "the value, the other its gate.",
    partial(fn.softmax, ROWS, axis=2),
    "softmax: expected an axis from -2 to 1, got axis 2 for shape (2, 3). The axis is the one "
    "whose entries compete.",
    partial(fn.softmax, SCALAR),
    "softmax: expected x of rank 1 or more, got axis -1 for shape (). The axis is the one whose "
    "entries compete.",
    partial(fn.log_softmax, ROWS, jnp.array([True, False])),
    "log_softmax: expected a `where` that broadcasts to the shape (2, 3) of x, got shape (2,). "
    "Add axes of length 1: where[:, None].",
)

OPS += rows(
    TypeError,
    partial(fn.global_avg_pool, SIGNAL, jnp.ones((5, 1))),
    "global_avg_pool: expected where of dtype bool, got float32. Compare: where = mask != 0.",
    partial(fn.embed, ROWS, ROW),
    "embed: expected ids of an integer dtype, got float32. Convert them: ids.astype(int).",
    partial(fn.relu, IDS),
    "relu: expected x of a floating dtype, got int32. Convert it: x.astype(jnp.float32).",
    partial(fn.dropout, ROWS, ROW, drop=0.5),
    "dropout: expected a random key, got float32. Make one with jax.random.key(0).",
    partial(fn.logsumexp, ROWS, ROWS),
    "logsumexp: expected a boolean `where`, got float32. True means that an entry takes part: "
    "pass mask > 0, or mask.astype(bool).",
)

OTHERS = rows(
    ValueError,
    lambda: jax.eval_shape(lambda x: fn.dropout(x, KEY, drop=0.5), HUGE),
    "dropout: expected a mask of at most 2^32 numbers, got shape (131072, 65536). Apply it to "
    "slices, each with its own key.",
    lambda: fn.Dense(0),
    "dense: expected a width that is a whole number of 1 or more, got 0. It is the number of "
    "outputs.",
    lambda: fn.Dense(-1),
    "dense: expected a width that is a whole number of 1 or more, got -1. It is the number of "
    "outputs.",
    lambda: fn.Dense(2.5),
    "dense: expected a width that is a whole number of 1 or more, got 2.5. It is the number of "
    "outputs.",
    lambda: fn.Embed(0, 3),
    "embed: expected entries and width that are whole numbers of 1 or more, got (0, 3). The "
    "table has one row of this width for each entry.",
    lambda: fn.Embed(3, "4"),
    "embed: expected entries and width that are whole numbers of 1 or more, got (3, '4'). The "
    "table has one row of this width for each entry.",
    lambda: fn.Conv(0, 3),
    "conv: expected a width that is a whole number of 1 or more, got 0. It is the number of "
    "output channels.",
    lambda: fn.Conv(4, 0).init(KEY, IMAGE),
    "conv: expected a kernel of 1 or more: one whole number, or one for each spatial axis, got "
    "0. Write kernel=2, or kernel=(2, 2).",
    lambda: fn.Conv(4, (3,)).init(KEY, IMAGE),
    "conv: expected x of rank 3 (batch, *spatial, channel), got shape (1, 5, 5, 2). Give the "
    "kernel one length for each spatial axis, or x the axes it lacks: x[None] is a batch of one.",
    lambda: fn.Conv(4, 3).init(KEY, ROWS),
    "conv: expected x of rank 3, 4 or 5 (batch, *spatial, channel), got shape (2, 3). Give the "
    "kernel one length for each spatial axis, or x the axes it lacks: x[None] is a batch of one.",
    lambda: fn.Conv(4, 3, groups=3).init(KEY, IMAGE),
    "conv: expected a number of groups that divides 2, the number of channels of x, got "
    "groups=3. Choose a divisor of the number of channels.",
    lambda: fn.MaxPool(0)({}, IMAGE),
    "max_pool: expected a window of 1 or more: one whole number, or one for each spatial axis, "
    "got 0. Write window=2, or window=(2, 2).",
    lambda: fn.AvgPool(2, 0)({}, IMAGE),
    "avg_pool: expected a stride of 1 or more: one whole number, or one for each spatial axis, "
    "got 0. Write stride=2, or stride=(2, 2).",
    lambda: fn.AdaptivePool(2, "mean"),
    'adaptive_pool: expected the kind "avg" or "max", got \'mean\'. Write AdaptivePool(7, "avg").',
    lambda: fn.GlobalPool("mean"),
    'global_pool: expected the kind "avg" or "max", got \'mean\'. Write GlobalPool("avg").',
    lambda: fn.Flatten()({}, SCALAR),
    "flatten: expected x of rank 1 or more (batch, ...), got shape (). The first axis is the "
    "batch and stays.",
    lambda: fn.Dropout(1.0),
    "dropout: expected a probability from 0 to below 1, got drop=1.0. It is the probability of a "
    "zero: 0.1 keeps nine of ten.",
    lambda: fn.Dropout("0.1"),
    "dropout: expected a probability from 0 to below 1, got drop='0.1'. It is the probability of "
    "a zero: 0.1 keeps nine of ten.",
    lambda: fn.BatchNorm(decay="0.9"),
    "batch_norm: expected a decay from 0 to 1, got '0.9'. It is the weight of the old average: "
    "0.9 where PyTorch says momentum=0.1.",
    lambda: fn.BatchNorm(decay=2),
    "batch_norm: expected a decay from 0 to 1, got 2. It is the weight of the old average: 0.9 "
    "where PyTorch says momentum=0.1.",
    lambda: NORM.apply(*NORM.init(KEY, ROWS), ROWS[:1], train=True),
    "batch_norm: expected more than one value for each channel in training, got shape (1, 3). "
    "The variance of one value is 0: use a larger batch, or train=False.",
    lambda: NORM.apply(*NORM.init(KEY, ROWS), ROWS[:0], train=True),
    "batch_norm: expected more than one value for each channel in training, got shape (0, 3). "
    "The variance of one value is 0: use a larger batch, or train=False.",
    lambda: fn.initializers.torch_linear()(KEY, (3,)),
    "torch_linear: expected fan_in for a bias, got shape (3,) alone. Write torch_linear(fan_in), "
    "the number of inputs.",
    lambda: fn.initializers.reinit(DENSE, DENSE.init(KEY, ROWS)[0], "dense/*", KEY, ROWS),
    "mask: expected a pattern that matches one of b, w, got 'dense/*'. A path runs from the "
    "outermost layer to the array.",
    lambda: fn.nets.MLP(10),
    "MLP: expected the width of one layer or more, got widths=10. Write MLP((128, 10)) for one "
    "hidden layer of 128 and 10 outputs.",
    lambda: fn.nets.MLP([]),
    "MLP: expected the width of one layer or more, got widths=[]. Write MLP((128, 10)) for one "
    "hidden layer of 128 and 10 outputs.",
    lambda: named_optimizer("adan", 1e-3, 100),
    "named_optimizer: expected one of adam, adamw, sgd, momentum, rmsprop, adagrad, lamb, lion, "
    "got 'adan'. Any other optax optimiser goes to make_step or fit directly.",
    lambda: averaged(optax.sgd(0.1), 1.0),
    "averaged: expected a decay from 0 to below 1, got 1.0. It is the share of the old average "
    "that each step keeps: 0.999.",
    lambda: fn.average_of(optax.adam(0.1).init({})),
    "average_of: expected an optimiser's state with one running average, got one with 0. Train "
    "with averaged(optimizer) and pass state.opt_state.",
    lambda: averaged(optax.sgd(0.1)).update({}, averaged(optax.sgd(0.1)).init({})),
    "averaged: expected the parameters as the third argument of update, got None. Write "
    "optimizer.update(updates, state, params): it is they that are averaged.",
    lambda: named_optimizer("adam", 0, 100),
    "named_optimizer: expected a finite learning rate above 0, got 0. Try 1e-3 with adam.",
    lambda: fn.accuracy(jnp.zeros((3, 4)), jnp.zeros(3), ignore_index=0),
    "accuracy: expected integer labels, since ignore_index is given, got float32. Leave "
    "ignore_index out, or convert the labels.",
    lambda: fn.accuracy(jnp.zeros(3), jnp.array([0, 2, 1])),
    "accuracy: expected targets from 0 to 1 for one logit, got 2. Give the network an output for "
    "each class, or use r_squared for numbers.",
    lambda: fn.accuracy(jnp.zeros((3, 4)), jnp.zeros(3)),
    "accuracy: expected integer labels of shape (3,) or soft labels of shape (3, 4), got float32 "
    "of shape (3,). Give one integer label for each row of logits.",
    lambda: fn.accuracy(jnp.zeros((3, 1)), jnp.zeros(4, "int32")),
    "accuracy: expected integer labels of shape (3,) or soft labels of shape (3, 1), got int32 "
    "of shape (4,). Give one integer label for each row of logits.",
    lambda: fn.r_squared(ROWS[:, :1], ROWS[:, 0]),
    "r_squared: expected a target of shape (2, 1), as the predictions have, got shape (2,). Take "
    "the column of a one-column output: output[:, 0].",
    lambda: fn.prove(fn.dense, "float8"),
    "prove: expected a dtype among float64, float32, bfloat16, float16, got 'float8'. Choose one "
    "of the four.",
)

OTHERS += rows(
    TypeError,
    lambda: averaged(optax.adam),
    "averaged: expected an optax optimiser, got adam. Make one by a call, as in optax.adam(1e-3); "
    "a schedule goes in place of the number.",
    lambda: fn.accuracy(ROWS, IDS[:2], ignore_index="0"),
    "accuracy: expected an integer ignore_index, or None, got '0'. It is the label whose examples "
    "do not count.",
    lambda: fn.prove(jnp.sin),
    "prove: expected an op made by rule(), got sin. Any other function is differentiated by JAX "
    "alone and has nothing to prove.",
    lambda: fn.dropout(ROWS, 0, drop=0.5),
    "dropout: expected a random key, got int32. Make one with jax.random.key(0).",
)

for topic in TOPICS:
    OPS += topic.OPS
    OTHERS += topic.OTHERS

FORM = re.compile(r"\w+: expected .+, got .+\. [A-Z].+\.")


def check(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert (type(caught.value), str(caught.value)) == (error, message)
    assert FORM.fullmatch(message)


@pytest.mark.parametrize(("call", "error", "message"), OPS + OTHERS)
def test_the_message_in_full(call, error, message):
    check(call, error, message)


@pytest.mark.parametrize(("call", "error", "message"), OPS)
def test_an_op_says_the_same_when_differentiated(call, error, message):
    check(lambda: jax.vjp(partial(call.func, **call.keywords), *call.args), error, message)


def raised(op):
    """What the docstring says under Raises."""
    _, _, section = inspect.getdoc(op).partition("Raises:\n")
    return section.partition("\n\n")[0]


@pytest.mark.parametrize(("call", "error", "message"), OPS)
def test_the_docstring_names_the_error(call, error, message):
    assert f"{error.__name__}: If" in raised(call.func) or " to be an array, got" in message


PACKAGE = Path(fn.__file__).parent
NN = ("nn/refusals", "nn/layer", "nn/combine", "nn/wrap")
ELSEWHERE = {"backprop.py", "families.py", "family.py"}
TAKES_INTEGERS = {
    "dense",
    "embed",
    "conv",
    "pad",
    "max_pool",
    "max_pool_with_indices",
    "max_unpool",
    "global_max_pool",
    "adaptive_max_pool",
}
OF_FLOATS = [
    rule
    for rule in RULES
    if rule.name not in TAKES_INTEGERS
    and f"{rule.primal.__module__.rpartition('.')[2]}.py" not in ELSEWHERE
]


@pytest.mark.parametrize("rule", OF_FLOATS, ids=lambda rule: rule.name)
def test_an_op_of_floats_refuses_integers(rule):
    case = next(iter(rule.cases.values()))
    x, *others = drawn(case)
    whole = jnp.zeros(x.shape, jnp.int32)
    name = rule.arguments[0]
    message = (
        f"{rule.name}: expected {name} of a floating dtype, got int32. Convert it: "
        f"{name}.astype(jnp.float32)."
    )
    check(lambda: rule.op(whole, *others, **case.static), TypeError, message)
    assert "TypeError: If" in raised(rule.op)


def sites():
    """Every call of `require` and every `raise` of an error: its file, its first and last line."""
    folders = (sorted((PACKAGE / name).rglob("*.py")) for name in ("ops", "layers", "nets"))
    others = ("train/optimizers", "train/metrics", "rules/prove", *NN)
    alone = [PACKAGE / f"{name}.py" for name in others]
    for path in (*(path for folder in folders for path in folder), *alone):
        if path.name in ELSEWHERE:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            asks = isinstance(node, ast.Call) and ast.unparse(node.func) == "require"
            if asks or (isinstance(node, ast.Raise) and node.exc):
                yield path, node.lineno, node.end_lineno or node.lineno


def places(call):
    """The files and lines that an error came through."""
    try:
        call()
    except (ValueError, TypeError, AttributeError) as error:
        return {(f.f_code.co_filename, line) for f, line in traceback.walk_tb(error.__traceback__)}
    return set()


@pytest.mark.long
def test_no_message_is_missing_here():
    reached = set().union(*(places(row.values[0]) for row in OPS + OTHERS))
    missing = [
        f"{path.relative_to(PACKAGE.parent)}:{first}"
        for path, first, last in sites()
        if not any((str(path), line) in reached for line in range(first, last + 1))
    ]
    assert not missing
