"""A residual network on Fashion-MNIST: twenty layers, each block an addition to what it was given.

ResNet-20 of He et al., 2016, section 4.2, for images of 28x28 pixels:

    conv 3x3 -> 16                                     28x28
    3 blocks of two 3x3 convolutions to 16 channels    28x28
    3 blocks to 32 channels, the first with stride 2   14x14
    3 blocks to 64 channels, the first with stride 2   7x7
    mean over all pixels, dense 10

A block computes relu(x + f(x)), so the gradient reaches the first layer by way of the additions
alone. Three thousand of the sixty thousand images are enough to see it work in a minute; where the
data set is not installed (Debian's package dataset-fashion-mnist), mnist5k takes its place.
"""

import time
from pathlib import Path

import jax
import numpy as np
import optax

import funcnet as fn

try:
    data = fn.data.load_data("fashion-mnist")
except ValueError as missing:
    print(f"{missing}\nUsing mnist5k instead.")
    data = fn.data.load_data("mnist5k")
SHOWN, HELD, BATCH, EPOCHS = 3072, 1000, 64, 3
x, y = data.train[0][:SHOWN], data.train[1][:SHOWN]
x_test, y_test = data.test[0][:HELD], data.test[1][:HELD]
print(f"{data.name}: {len(x)} images to learn from, {len(x_test)} held out")

net = fn.nets.ResNet(20, 10)
total = net.summary(x[:1]).total
print(f"{total.parameters:,} parameters in 20 layers")


def report(row, state):
    print(
        f"epoch {row['epoch']:2d}: loss {row['loss']:.3f}, held out: loss {row['val_loss']:.3f}, "
        f"accuracy {row['val_accuracy']:.1%}, {row['examples_per_second']:,.0f} images a second"
    )


start = time.monotonic()
steps = EPOCHS * (len(x) // BATCH)
fitted = fn.fit(
    net, fn.cross_entropy, optax.adam(optax.cosine_onecycle_schedule(steps, 4e-3)), (x, y),
    epochs=EPOCHS, batch=BATCH, validation=(x_test, y_test),
    metrics={"accuracy": fn.accuracy}, progress=False, on_epoch=report,
)  # fmt: skip
print(f"{time.monotonic() - start:.1f} s of training")

logits, _ = jax.jit(net.apply)(fitted.state.params, fitted.state.state, x_test)
read = np.asarray(logits.argmax(axis=1))
right = (read == y_test).mean()
Path("runs").mkdir(exist_ok=True)
classes = data.classes or 10
fn.plot.confusion(fn.confusion(y_test, read, classes), classes, "runs/11_resnet.png")
print("picture: runs/11_resnet.png")

assert fitted.history.rows[0]["loss"] < np.log(10)
assert right >= 0.7
