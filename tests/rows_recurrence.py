"""Messages and layers of the recurrent part, and of the losses on distributions."""
# pyright: reportArgumentType=false
# Wrong arguments are the matter here.

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

import funcnet as fn

from .forms import LayerCase, image, rows

KEY = jax.random.key(0)
ROW, ROWS, IDS = jnp.zeros(3), jnp.zeros((2, 3)), jnp.array([0, 1])
X, W_IN, W_HIDDEN = jnp.zeros((2, 4, 3)), jnp.zeros((3, 8)), jnp.zeros((2, 8))
SOURCE = Path(__file__).read_text()
TOKENS = jnp.zeros((2, 3), jnp.int32)
FITTING = "Initialise the parameters with an input of this shape."
RNN = fn.nets.CharRNN(5, width=2, embed=2, return_final=True)
VAE = fn.nets.VAE(2, (3,), widths=(4,))
TEXT = fn.data.Text(jnp.arange(3), "abc", 2)


def plain(x):
    return x


OPS = rows(
    ValueError,
    partial(fn.lstm, ROWS, W_IN, W_HIDDEN),
    "lstm: expected x of rank 3 (batch, time, features), got shape (2, 3). One sequence is a batch "
    "of one: x[None].",
    partial(fn.lstm, X, W_IN, W_HIDDEN.T),
    "lstm: expected w_hidden of shape (units, 4 units), got shape (8, 2). A PyTorch weight is the "
    "transpose: pass weight_hh.T.",
    partial(fn.elman, X, W_IN, W_HIDDEN),
    "elman: expected w_hidden of shape (units, units), got shape (2, 8). A PyTorch weight is the "
    "transpose: pass weight_hh.T.",
    partial(fn.lstm, X, W_IN[:2], W_HIDDEN),
    "lstm: expected w_in of shape (3, 8), (features, 4 units), got shape (2, 8). " + FITTING,
    partial(fn.gru, X, W_IN, jnp.zeros((2, 6))),
    "gru: expected w_in of shape (3, 6), (features, 3 units), got shape (3, 8). " + FITTING,
    partial(fn.lstm, X, W_IN, W_HIDDEN, ROW),
    "lstm: expected b of shape (8,), got shape (3,). Pass None for no bias.",
    partial(fn.gru, X, jnp.zeros((3, 6)), jnp.zeros((2, 6)), None, ROW),
    "gru: expected b_hn of shape (2,), got shape (3,). Pass None for no bias.",
    partial(fn.lstm, X, W_IN, W_HIDDEN, None, None, ROWS),
    "lstm: expected c0 of shape (2, 2), (batch, units), got shape (2, 3). Pass None to start from "
    "0.",
    partial(fn.lstm, X, W_IN, W_HIDDEN, None, None, None, jnp.arange(3)),
    "lstm: expected lengths of shape (2,), one for each sequence, got shape (3,). Pass None where "
    "all sequences are as long as x.",
    partial(fn.lstm, X, W_IN, W_HIDDEN, None, None, None, jnp.array([2, 5])),
    "lstm: expected lengths from 0 to 4, the steps of x, got lengths from 2 to 5. Cut the longer "
    "sequences first.",
    partial(fn.gru, X, jnp.zeros((3, 6)), jnp.zeros((2, 6)), mask=jnp.ones(4, bool)),
    "gru: expected a mask of shape (2, 4), (batch, time), got shape (4,). It says of each step of "
    "each sequence whether it counts.",
    partial(fn.gru, X, jnp.zeros((3, 6)), jnp.zeros((2, 6)), None, ROW[:2], reset_after=False),
    "gru: expected no b_hn with reset_after=False, got one of shape (2,). Add it to the last third "
    "of b: there it is the same.",
    partial(fn.lstm, X, W_IN, W_HIDDEN, w_proj=ROW),
    "lstm: expected w_proj of shape (units, width), got shape (3,). A PyTorch weight is the "
    "transpose: pass weight_hr.T.",
    partial(fn.lstm, X, W_IN, W_HIDDEN, w_proj=jnp.zeros((2, 3))),
    "lstm: expected w_hidden of shape (3, 8), (width, 4 units) of w_proj, got shape (2, 8). A "
    "PyTorch weight is the transpose: pass weight_hh.T.",
    partial(fn.lstm, X, W_IN, jnp.zeros((3, 8)), None, jnp.zeros((2, 2)), w_proj=jnp.zeros((2, 3))),
    "lstm: expected h0 of shape (2, 3), (batch, width), got shape (2, 2). Pass None to start from "
    "0.",
    partial(fn.elman, X, jnp.zeros((3, 2)), jnp.zeros((2, 2)), activation="gelu"),
    "elman: expected the activation 'tanh' or 'relu', got 'gelu'. Choose one of the two.",
    partial(fn.cross_entropy, ROWS, IDS, z_loss=-1.0),
    "cross_entropy: expected z_loss of 0 or more, got -1.0. It is the weight of the square of "
    "logsumexp(logits), such as 1e-4.",
    partial(fn.nll, jnp.zeros(()), jnp.zeros((), jnp.int32)),
    "nll: expected log-probabilities of shape (..., classes), got shape (). They come first, as "
    "log_softmax gives them; the labels come second.",
    partial(fn.nll, ROWS, ROWS),
    "nll: expected integer labels of shape (2,), one class for each example, got float32 of shape "
    "(2, 3). For soft labels use kl_divergence.",
    partial(fn.nll, ROWS, IDS, ROWS),
    "nll: expected weights of shape (3,), one for each class, got shape (2, 3). To leave out "
    "examples, use where.",
    partial(fn.nll, ROWS, IDS + 2),
    "nll: expected labels from 0 to 2, got labels from 2 to 3. Leave out what must not count with "
    "where.",
    partial(fn.kl_divergence, ROWS, ROW),
    "kl_divergence: expected p of shape (2, 3), as log_q has, got shape (3,). Broadcast it first: "
    "jnp.broadcast_to(array, shape).",
    partial(fn.gaussian_kl, jnp.zeros(()), jnp.zeros(())),
    "gaussian_kl: expected mean of rank 1 or more (..., outcomes), got shape (). The last axis is "
    "summed over.",
    partial(fn.gaussian_nll, ROWS, ROWS, ROWS, reduction="batchmean"),
    "gaussian_nll: expected reduction to be 'mean', 'sum' or 'none', got 'batchmean'. Choose one "
    "of the three.",
    partial(fn.bernoulli_nll, ROWS + 2, ROWS),
    "bernoulli_nll: expected probs from 0 to 1, got probs from 2.0 to 2.0. Leave out what must not "
    "count with where.",
    partial(fn.smooth_l1, ROWS, ROWS, beta=0.0),
    "smooth_l1: expected beta above 0, got 0.0. It is the error at which the parabola becomes a "
    "line; absolute_error is the limit at 0.",
) + rows(
    TypeError,
    partial(fn.lstm, X, W_IN, W_HIDDEN, None, None, None, jnp.ones(2)),
    "lstm: expected lengths of an integer dtype, got float32. They count the steps of each "
    "sequence; a mask comes after them.",
    partial(fn.elman, X, jnp.zeros((3, 2)), jnp.zeros((2, 2)), mask=jnp.ones((2, 4))),
    "elman: expected a boolean mask, got float32. It is True at the steps that count.",
)

OTHERS = rows(
    ValueError,
    lambda: fn.LSTM(0),
    "lstm: expected a width that is a whole number of 1 or more, got 0. It is the number of units.",
    lambda: fn.LSTM(4, proj=0),
    "lstm: expected a proj that is a whole number of 1 or more, or None, got 0. It is the width of "
    "h, narrower than the number of units.",
    lambda: fn.GRU(4).init(KEY, ROWS),
    "gru: expected x of rank 3 (batch, time, features), got shape (2, 3). One sequence is a batch "
    "of one: x[None].",
    lambda: fn.nets.CharRNN(5, cell="tcn"),
    "CharRNN: expected a cell among lstm, gru, rnn, got 'tcn'. Choose one of the three.",
    lambda: fn.nets.CharRNN(5, depth=0),
    "CharRNN: expected a depth that is a whole number of 1 or more, got 0. It is the number of "
    "recurrent layers.",
    lambda: fn.nets.sample_recurrent(RNN, {}, IDS, 3, KEY),
    "sample_recurrent: expected a prompt of integers (batch, time), a token or more, got int32 of "
    "shape (2,). Write prompt[None] for a batch of one.",
    lambda: fn.nets.sample_recurrent(
        RNN, {"embed": {"table": jnp.ones((5, 2))}}, jnp.array([[0, 5]]), 3, KEY
    ),
    "sample_recurrent: expected a prompt of tokens from 0 to 4, got tokens from 0 to 5. The net "
    "knows no others: encode the prompt as its training text was.",
    lambda: fn.nets.sample_recurrent(RNN, {}, TOKENS, 0, KEY),
    "sample_recurrent: expected a length of 1 token or more, got 0. It is the number of tokens to "
    "draw after the prompt.",
    lambda: fn.nets.sample_recurrent(RNN, {}, TOKENS, 3, KEY, temperature=-1.0),
    "sample_recurrent: expected a temperature of 0 or more, got -1.0. Temperature 0 always takes "
    "the likeliest token.",
    lambda: fn.nets.VAE(0, (3,)),
    "VAE: expected a latent that is a whole number of 1 or more, got 0. It is the length of a "
    "code.",
    lambda: VAE.init(KEY, jnp.zeros((2, 4))),
    "vae: expected examples of shape (3,), got shape (4,). Give that shape to VAE.",
    lambda: VAE.apply(*VAE.init(KEY, ROWS), ROWS, train=True),
    "vae: expected a random key in training, got key=None. Call net.apply(params, state, x, "
    "train=True, key=jax.random.key(0)), with another key for each step.",
    lambda: fn.nets.DDPM(plain, [0.1]).apply({}, {}, ROWS, train=True),
    "ddpm: expected a random key in training, got key=None. Call net.apply(params, state, x, "
    "train=True, key=jax.random.key(0)), with another key for each step.",
    lambda: fn.nets.noise_schedule(0),
    "noise_schedule: expected a number of steps that is a whole number of 1 or more, got 0. "
    "Write noise_schedule(1000); a few hundred will do for small images.",
    lambda: fn.nets.noise_schedule(10, "sine"),
    "noise_schedule: expected the kind 'linear' or 'cosine', got 'sine'. Choose one of the two.",
    lambda: fn.nets.sample_ddpm(fn.pure(plain), {}, [0.1, 1.0], (2, 3), KEY),
    "sample_ddpm: expected betas of shape (steps,), above 0 and below 1, got shape (2,), from 0.1 "
    "to 1. Make them with noise_schedule(1000).",
    lambda: TEXT.encode("axb!"),
    "encode: expected characters of the alphabet 'abc', got '!x' besides. Leave them out.",
    lambda: TEXT.decode([0, 3]),
    "decode: expected tokens from 0 to 2, got 0 to 3. They are places in the alphabet.",
    lambda: fn.data.load_text("/nowhere/at/all"),
    "load_text: expected a file in UTF-8 at /nowhere/at/all, got No such file or directory. Check "
    "the path.",
    lambda: fn.data.load_text("/dev/null"),
    "load_text: expected a text of some characters, got an empty file, /dev/null. Bring another "
    "one.",
    lambda: fn.data.load_text(__file__, held_out=1e-9),
    f"load_text: expected some text on both sides of the cut, got {len(SOURCE)} "
    "characters and held_out=1e-09. Bring a longer text.",
    lambda: fn.data.load_text(held_out=1),
    "load_text: expected held_out between 0 and 1, got 1. It is the part at the end that is not "
    "learned from, such as 0.1.",
    lambda: fn.data.windows(IDS, 2, 3, seed=-1),
    "windows: expected a seed and a step of 0 or more, got seed=-1, step=0. They choose the places "
    "of the pieces.",
    lambda: fn.data.windows(ROWS, 2),
    "windows: expected tokens of shape (n,), got shape (2, 3). Write windows(text.train, 64, 32).",
    lambda: fn.data.windows(IDS, 2, 3),
    "windows: expected tokens of shape (n,) with n above the length 2, got shape (2,). Choose a "
    "shorter window: the last token needs one that follows it.",
    lambda: fn.data.windows(IDS, 1, 0),
    "windows: expected a length and a batch of 1 or more, got length=1, batch=0. Write "
    "windows(text.train, 64, 32).",
) + rows(
    TypeError,
    lambda: fn.Bidirectional(3),
    "bidirectional: expected a Layer or a function as child, got 3. A layer is made by a call, as "
    "in Dense(10).",
)

SEQUENCES = image(2, 3, 4)

LAYERS: dict[str, LayerCase] = {
    "lstm": LayerCase(fn.LSTM(3), (SEQUENCES,)),
    "lstm, projected": LayerCase(fn.LSTM(3, proj=2), (SEQUENCES,)),
    "gru": LayerCase(fn.GRU(3, return_final=True), (SEQUENCES,)),
    "gru, reset before": LayerCase(fn.GRU(3, reset_after=False), (SEQUENCES,)),
    "rnn": LayerCase(fn.RNN(3, reverse=True), (SEQUENCES,)),
    "bidirectional": LayerCase(fn.Bidirectional(fn.RNN(2)), (SEQUENCES,)),
    "vae": LayerCase(
        fn.nets.VAE(2, (6,), encoder=fn.serial(fn.Dropout(0.1), fn.Dense(3)), decoder=fn.Dense(6)),
        (image(5, 6),),
        needs_key=True,
    ),
    "ddpm": LayerCase(
        fn.nets.DDPM(fn.nets.UNet(1, (4,), groups=2, time_width=4), fn.nets.noise_schedule(5)),
        (image(2, 4, 4, 1),),
        needs_key=True,
    ),
    "char rnn": LayerCase(
        fn.nets.CharRNN(5, width=2, embed=2, drop=0.1), (TOKENS,), needs_key=True
    ),
}
