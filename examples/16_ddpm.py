"""A diffusion model: from noise to digits, a little at a time.

Noise is added to a digit in 200 steps until nothing is left of it. A U-Net looks at a noisy digit
and at the step, and learns which noise was added. Then the steps go backwards: from pure noise,
what the network takes for noise is taken away bit by bit, and what remains is a digit that nobody
wrote.
"""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import funcnet as fn

EPOCHS, BATCH = 40, 64

data = fn.data.load_data("digits")
x, x_test = (2 * part[0] - 1 for part in (data.train, data.test))
betas = fn.nets.noise_schedule(200, "cosine")
unet = fn.nets.UNet(1, (32, 64), groups=8, time_width=32)
net = fn.nets.DDPM(unet, betas)

start = time.monotonic()
rate = optax.cosine_decay_schedule(2e-3, EPOCHS * (len(x) // BATCH))
fitted = fn.fit(
    net, lambda output, _: fn.squared_error(*output), optax.adam(rate), (x, x),
    epochs=EPOCHS, batch=BATCH, validation=(x_test, x_test), progress=False,
    on_epoch=lambda row, state: row["epoch"] % 10 or print(
        f"epoch {row['epoch']:2d}: error {row['loss']:.3f}, held out {row['val_loss']:.3f}"
    ),
)  # fmt: skip
print(f"{time.monotonic() - start:.1f} s of training")

start = time.monotonic()
shape = (200, *x.shape[1:])
drawn = fn.nets.sample_ddpm(unet, fitted.state.params["net"], betas, shape, jax.random.key(1))
drawn = np.asarray(drawn)
print(f"{time.monotonic() - start:.1f} s for {len(drawn)} digits out of noise")

# A classifier that has seen only real digits reads those that were drawn.
reader = fn.fit(
    fn.nets.MLP((128, 10)), fn.cross_entropy, optax.adam(1e-3),
    (x.reshape(len(x), -1), data.train[1]), epochs=30, batch=32, progress=False,
)  # fmt: skip


def read(images):
    logits = fn.nets.MLP((128, 10))(reader.state.params, jnp.reshape(images, (len(images), -1)))
    chances = fn.softmax(logits)
    return float(chances.max(1).mean()), np.bincount(chances.argmax(1), minlength=10)


def nearest(images):
    """The mean distance from each image to the training digit that is most like it."""
    rows, known = images.reshape(len(images), -1), x.reshape(len(x), -1)
    return np.sqrt(((rows[:, None] - known) ** 2).sum(-1).min(1)).mean()


sure, kinds = read(drawn)
print(f"the reader is {read(x_test)[0]:.0%} sure of real digits, {sure:.0%} of drawn ones,")
print(f"and sees {kinds.tolist()} of 0 to 9 among the drawn")
real, fake = nearest(x_test), nearest(drawn)
print(f"to the nearest training digit: {real:.2f} from held-out ones, {fake:.2f} from drawn ones")

figure = Figure(figsize=(8, 4.2), layout="constrained")
figure.suptitle("Digits out of noise")
axes = figure.subplots()
framed = np.pad(drawn[..., 0], ((0, 0), (1, 1), (1, 1)), constant_values=-1)
rows = [np.concatenate(list(framed[i : i + 16]), 1) for i in range(0, 128, 16)]
axes.imshow(np.concatenate(rows), cmap="gray_r")
axes.axis("off")
Path("runs").mkdir(exist_ok=True)
figure.savefig("runs/16_ddpm.png", dpi=120)
print("picture: runs/16_ddpm.png")

assert sure > 0.8
assert kinds.min() > 5
assert 0.5 * real < fake < 1.5 * real
