"""A variational auto-encoder: digits as clouds of codes, and new digits out of codes.

The encoder says where in the space of codes a digit lies, and how sure it is; the decoder makes
each pixel a coin. Training lowers a bound on -ln p(digit): how badly the coins explain the digit,
plus how far the cloud of its code is from a standard normal. So codes drawn from that normal are
codes of digits, and the decoder turns them into digits nobody wrote.
"""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import funcnet as fn

data = fn.data.load_data("mnist5k")
x, x_test = data.train[0], data.test[0]
shape = x.shape[1:]

net = fn.nets.VAE(16, shape, widths=(400, 200))
start = time.monotonic()
fitted = fn.fit(
    net, fn.nets.negative_elbo, optax.adam(1e-3), (x, x),
    epochs=30, batch=50, validation=(x_test, x_test), progress=False,
    on_epoch=lambda row, state: print(
        f"epoch {row['epoch']:2d}: {row['loss']:.1f} nats, held out {row['val_loss']:.1f}"
    ),
)  # fmt: skip
params = fitted.state.params
print(f"{time.monotonic() - start:.1f} s of training")

# What coins of one mean digit leave: the bound of a code that says nothing.
mean = np.clip(x.mean(0), 1e-3, 1 - 1e-3)
alone = -(x_test * np.log(mean) + (1 - x_test) * np.log(1 - mean)).sum() / len(x_test)
bound = fitted.history.rows[-1]["val_loss"]
_, codes, log_var = net(params, x_test)
kl = float(fn.gaussian_kl(codes, log_var))
print(f"held out: {bound:.1f} nats, {kl:.1f} of them for the code; without a code {alone:.1f}")

# A classifier that has seen only real digits reads those that were drawn.
reader = fn.fit(
    fn.nets.MLP((256, 10)), fn.cross_entropy, optax.adam(1e-3),
    (x.reshape(len(x), -1), data.train[1]), epochs=10, batch=50, progress=False,
)  # fmt: skip
decoder = fn.nets.VAE(16, shape, widths=(400, 200), decode=True)
drawn = fn.sigmoid(decoder(params, jax.random.normal(jax.random.key(1), (500, 16))))
chances = fn.softmax(fn.nets.MLP((256, 10))(reader.state.params, drawn.reshape(500, -1)))
sure, kinds = float(chances.max(1).mean()), np.bincount(chances.argmax(1), minlength=10)
print(f"drawn digits: the reader is {sure:.0%} sure, and sees {kinds.tolist()} of 0 to 9")

figure = Figure(figsize=(8, 3.4), layout="constrained")
figure.suptitle("Held-out digits, what is left of them after the code, and drawn ones")
rows = (x_test[:12], fn.sigmoid(net(params, x_test[:12])[0]), drawn[:12], drawn[12:24])
grid = jnp.concatenate([jnp.concatenate(list(row[..., 0]), 1) for row in rows])
axes = figure.subplots()
axes.imshow(grid, cmap="gray_r")
axes.axis("off")
Path("runs").mkdir(exist_ok=True)
figure.savefig("runs/15_vae.png", dpi=120)
print("picture: runs/15_vae.png")

assert bound < 0.65 * alone
assert 5 < kl < 60
assert sure > 0.65
assert kinds.min() > 5
