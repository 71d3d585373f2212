"""Two classes that no line separates: hidden units bend the boundary, each activation its way.

Two interleaved half moons, two inputs, one sigmoid output read as the probability of the second
class. The same network learns them with sigmoid hidden units, whose boundary is a smooth curve, and
with ReLU hidden units, whose boundary is made of straight pieces. One unit alone shows what is
gained. The picture is runs/03_two_classes.png.
"""

from pathlib import Path

import jax
import numpy as np
import optax
from matplotlib.figure import Figure
from sklearn.datasets import make_moons

import funcnet as fn

x, y = (np.asarray(part, np.float32) for part in make_moons(1000, noise=0.15, random_state=0))
y = y[:, None]
train, test = (x[:700], y[:700]), (x[700:], y[700:])

networks = {
    "one unit": fn.Dense(1),
    "sigmoid hidden units": fn.nets.MLP((12, 12, 1), activation=fn.sigmoid),
    "ReLU hidden units": fn.nets.MLP((12, 12, 1), activation=fn.relu),
}

params, right = {}, {}
for name, net in networks.items():
    fitted = fn.fit(
        net, fn.binary_cross_entropy, optax.adam(0.05), train,
        epochs=100, batch=50, validation=test, metrics={"accuracy": fn.accuracy}, progress=False,
    )  # fmt: skip
    params[name], last = fitted.state.params, fitted.history.rows[-1]
    right[name] = last["val_accuracy"]
    print(
        f"{name:20}  {sum(leaf.size for leaf in jax.tree.leaves(params[name])):3d} parameters, "
        f"loss {last['loss']:.3f}, held-out accuracy {right[name]:.1%}"
    )

# What each network says at every point of the plane.
side, up = np.meshgrid(np.linspace(-1.6, 2.6, 211), np.linspace(-1.15, 1.65, 141))
plane = np.stack([side.ravel(), up.ravel()], axis=1).astype("float32")

figure = Figure(figsize=(13, 4), layout="constrained")
panels = figure.subplots(1, 3, sharey=True)
for axes, (name, net) in zip(panels, networks.items(), strict=True):
    h = np.asarray(fn.sigmoid(net(params[name], plane))).reshape(side.shape)
    shades = axes.contourf(side, up, h, levels=np.linspace(0, 1, 21), cmap="RdBu_r", alpha=0.8)
    axes.contour(side, up, h, levels=[0.5], colors="black", linewidths=2)
    for value, colour in ((0, "navy"), (1, "darkred")):
        points = test[0][test[1][:, 0] == value]
        axes.scatter(*points.T, s=9, color=colour, edgecolor="white", linewidth=0.3,
                     label=f"y = {value}, held out")  # fmt: skip
    axes.set(title=f"{name}: {right[name]:.1%} held out", xlabel="x1", ylabel="x2")
    axes.label_outer()
panels[0].legend(loc="upper right", fontsize=8)
figure.colorbar(shades, ax=panels, label="h(x), black line: h(x) = 1/2", ticks=[0, 0.5, 1])
Path("runs").mkdir(exist_ok=True)
figure.savefig("runs/03_two_classes.png", dpi=120)
print("picture: runs/03_two_classes.png")

assert right["one unit"] < 0.92
assert right["sigmoid hidden units"] >= 0.97
assert right["ReLU hidden units"] >= 0.97
