"""LeNet on real digits: two convolutions, three dense layers, plain SGD with a step of 0.01.

The network of the first PyTorch tutorial, on 32x32 images:

    conv 1 -> 6, 3x3    relu    2x2 max-pool
    conv 6 -> 16, 3x3   relu    2x2 max-pool    flatten to 16 * 6 * 6
    dense 120           relu    dense 84        relu    dense 10

A convolution is a dense layer that looks at 3x3 pixels and uses the same weights everywhere, so
it has few of them. MNIST's images are 28x28; two black pixels on each side make 32x32.
"""

import time
from pathlib import Path

import numpy as np
import optax
from matplotlib.figure import Figure

import funcnet as fn


def framed(images):
    return np.pad(images, ((0, 0), (2, 2), (2, 2), (0, 0)))


data = fn.data.load_data("mnist5k")
x, x_test = framed(data.train[0]), framed(data.test[0])
y, y_test = data.train[1], data.test[1]

net = fn.nets.LeNet()
print(net.summary(x[:1]))


def report(row, state):
    print(
        f"epoch {row['epoch']:2d}: loss {row['loss']:.3f}, held out: loss {row['val_loss']:.3f}, "
        f"accuracy {row['val_accuracy']:.1%}, {row['examples_per_second']:,.0f} images a second"
    )


start = time.monotonic()
fitted = fn.fit(
    net, fn.cross_entropy, optax.sgd(0.01), (x, y),
    epochs=6, batch=4, validation=(x_test, y_test),
    metrics={"accuracy": fn.accuracy}, progress=False, on_epoch=report,
)  # fmt: skip
seconds = time.monotonic() - start

read = np.asarray(net(fitted.state.params, x_test).argmax(axis=1))
wrong = np.flatnonzero(read != y_test)
right = 1 - len(wrong) / len(y_test)
print(f"{seconds:.1f} s of training; {len(wrong)} of {len(y_test)} held-out digits read wrongly")

figure = Figure(figsize=(9, 3.6), layout="constrained")
figure.suptitle("Digits that LeNet reads wrongly: what they are, and what it says")
for axes in (panels := figure.subplots(2, 8).ravel()):
    axes.axis("off")
for axes, i in zip(panels, wrong, strict=False):
    axes.imshow(x_test[i, :, :, 0], cmap="gray_r")
    axes.set_title(f"{y_test[i]}, not {read[i]}", fontsize=10)
Path("runs").mkdir(exist_ok=True)
figure.savefig("runs/09_lenet.png", dpi=120)
print("picture: runs/09_lenet.png")

assert fitted.history.rows[0]["loss"] < np.log(10)
assert right >= 0.94
