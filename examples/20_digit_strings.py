"""A reader of digit strings: it is told what stands in an image, but not where.

Three to six real handwritten digits stand side by side, with gaps of any width or none. Three
convolutions turn the image into 36 frames from left to right, a recurrent layer reads these both
ways, and each frame says a digit or nothing. Connectionist temporal classification makes all the
ways likely in which the frames can spell the string; nobody says which frame is to say what.
"""

import time
from pathlib import Path

import jax
import numpy as np
import optax
from matplotlib.figure import Figure

import funcnet as fn

WIDTH, LEAST, MOST, STEPS, BATCH = 144, 3, 6, 500, 32


def strings(digits, count, random):
    """Images of strings, and the digits plus 1: what is left of a row is 0, the blank."""
    images, labels = digits
    x, y = np.zeros((count, 28, WIDTH, 1), np.float32), np.zeros((count, MOST), np.int32)
    for canvas, row in zip(x, y, strict=True):
        n = random.integers(LEAST, MOST + 1)
        chosen = random.integers(0, len(images), n)
        spare = WIDTH - 28 - 19 * (n - 1)
        gaps = spare * random.dirichlet(np.ones(n + 1))[:n]
        for k, start in zip(chosen, gaps.cumsum().astype(int) + 19 * np.arange(n), strict=True):
            part = canvas[:, start : start + 28]
            part[:] = np.maximum(part, images[k])
        row[:n] = labels[chosen] + 1
    return x, y


def criterion(logits, labels):
    return fn.ctc_loss(logits, None, labels, (labels > 0).sum(1))


def read(params, x):
    labels, lengths = fn.nets.ctc_decode(net(params, x))
    return [row[:n] for row, n in zip(np.asarray(labels), np.asarray(lengths), strict=True)]


def columns(x):
    """Each column of the image a frame."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


net = fn.serial(
    fn.Conv(16, (3, 3), padding="SAME"), fn.relu, fn.MaxPool(2),
    fn.Conv(32, (3, 3), padding="SAME"), fn.relu, fn.MaxPool(2),
    fn.Conv(48, (3, 3), padding="SAME"), fn.relu, fn.MaxPool((2, 1)),
    columns, fn.Dense(64), fn.relu, fn.Bidirectional(fn.GRU(64)), head=fn.Dense(11),
)  # fmt: skip
data = fn.data.load_data("mnist5k")
x_test, y_test = strings(data.test, 500, np.random.default_rng(1))
truth = [row[row > 0] for row in y_test]
print(net.summary(x_test[:1]))

optimizer = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adam(optax.cosine_decay_schedule(3e-3, STEPS))
)
step = fn.make_step(net, criterion, optimizer)
random = np.random.default_rng(0)
state = step.init(jax.random.key(0), strings(data.train, BATCH, random)[0])
start = time.monotonic()
for i in range(STEPS):
    state, values = step.update(state, strings(data.train, BATCH, random))
    if (i + 1) % 50 == 0:
        error = fn.character_error_rate(read(state.params, x_test), truth)
        print(
            f"step {i + 1}: loss {values['loss']:.2f}, held out: {error:.1%} of the digits wrong, "
            f"{time.monotonic() - start:.0f} s"
        )

said = read(state.params, x_test)
error = fn.character_error_rate(said, truth)
whole = np.mean([fn.edit_distance(*pair) == 0 for pair in zip(said, truth, strict=True)])
print(f"held out: {error:.1%} of the digits wrong, {whole:.1%} of the strings right")

figure = Figure(figsize=(9, 5), layout="constrained")
figure.suptitle("Strings of digits, and what is read")
for axes, image, row in zip(figure.subplots(4, 3).flat, x_test[..., 0], said, strict=False):
    axes.axis("off")
    axes.imshow(image, cmap="gray_r")
    axes.set_title(" ".join(str(label - 1) for label in row), fontsize=10)
Path("runs").mkdir(exist_ok=True)
figure.savefig("runs/20_digit_strings.png", dpi=120)
print("picture: runs/20_digit_strings.png")

assert error < 0.1
