"""A vision transformer on real digits: an image as a sequence of 49 patches of 4x4 pixels.

Each patch becomes a vector, to which the vector of its place is added; a class token stands before
them. In each of the blocks every token looks at every other (attention) and then thinks by itself
(a small network), and what it finds is added to it. The class token's last state gives the digit.

Nothing in it knows that neighbouring pixels belong together, which a convolution is built on: all
that has to be learned from 4,000 images, so LeNet (09_lenet.py) is ahead of it here.
"""

import time
from pathlib import Path

import numpy as np
import optax
from matplotlib.figure import Figure

import funcnet as fn

EPOCHS, BATCH = 12, 64

data = fn.data.load_data("mnist5k")
(x, y), (x_test, y_test) = data.train, data.test

net = fn.nets.ViT(10, patch=4, width=48, depth=3, heads=4, hidden=96, drop=0.05, pool="token")
print(net.summary(x[:1]))

steps = EPOCHS * (len(x) // BATCH)
optimizer = optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 3e-3, steps // 10, steps), 0.9)


def report(row, state):
    print(
        f"epoch {row['epoch']:2d}: loss {row['loss']:.3f}, held out: loss {row['val_loss']:.3f}, "
        f"accuracy {row['val_accuracy']:.1%}, {row['examples_per_second']:,.0f} images a second"
    )


start = time.monotonic()
fitted = fn.fit(
    net, fn.cross_entropy, optimizer, (x, y),
    epochs=EPOCHS, batch=BATCH, validation=(x_test, y_test),
    metrics={"accuracy": fn.accuracy}, progress=False, on_epoch=report,
)  # fmt: skip
print(f"{time.monotonic() - start:.1f} s of training")

params = fitted.state.params
places = np.asarray(params["positions"]["table"])[1:]  # the first is the class token's
unit = places / np.linalg.norm(places, axis=1, keepdims=True)

figure = Figure(figsize=(6, 6.4), layout="constrained")
figure.suptitle("How alike the learned places are: each panel is one patch against all 49")
for axes, row in zip(figure.subplots(7, 7).ravel(), unit @ unit.T, strict=True):
    axes.imshow(row.reshape(7, 7), cmap="RdBu_r", vmin=-1, vmax=1)
    axes.axis("off")
Path("runs").mkdir(exist_ok=True)
figure.savefig("runs/12_vit.png", dpi=120)
print("picture: runs/12_vit.png")

last = fitted.history.rows[-1]
right = last["val_accuracy"]
print(f"{right:.1%} of {len(y_test)} held-out digits read rightly")
assert last["val_loss"] < 0.5
assert right >= 0.86
