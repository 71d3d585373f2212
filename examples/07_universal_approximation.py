"""Universal approximation: one hidden layer comes as close as you like, if it is wide enough.

A sum of sigmoids, h(x) = sum_j v_j g(w_j x + b_j) + c, can follow any continuous function on an
interval (Cybenko 1989, Hornik 1991). The theorem says that the weights exist, not that training
finds them; so each width trains six networks from different starts, side by side, and keeps the
best. The error falls as the hidden units grow: runs/07_universal_approximation.png.
"""

from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.figure import Figure

import funcnet as fn

WIDTHS = (1, 2, 4, 8, 16)
STARTS, STEPS = 6, 3000


def curve(x):
    """What is to be approximated."""
    return jnp.sin(3 * x) + 0.5 * jnp.cos(7 * x) * x


x = jnp.linspace(-2, 2, 128)[:, None]
y = curve(x)


def fit_width(width):
    """The best of the networks with so many hidden units: its error and its curve."""
    spread = fn.initializers.normal(3.0)
    one = fn.serial(fn.Dense(width, w_init=spread, b_init=spread), fn.sigmoid, fn.Dense(1))
    several = fn.ensemble(one, STARTS)

    def criterion(h, target):
        return STARTS * fn.squared_error(h, jnp.broadcast_to(target, h.shape))

    step = fn.make_step(several, criterion, optax.adam(optax.cosine_decay_schedule(0.03, STEPS)))

    @jax.jit
    def run(train):
        return jax.lax.scan(lambda s, _: (step.update(s, (x, y))[0], None), train, length=STEPS)[0]

    h = several(run(step.init(jax.random.key(0), x)).params, x)
    errors = jnp.sqrt(((h - y) ** 2).mean(axis=(1, 2)))
    best = int(errors.argmin())
    return float(errors[best]), np.asarray(h[best, :, 0])


errors, fits = {}, {}
for width in WIDTHS:
    errors[width], fits[width] = fit_width(width)
    print(f"{width:3d} hidden units: root mean square error {errors[width]:.5f}")

figure = Figure(figsize=(11, 4.2), layout="constrained")
left, right = figure.subplots(1, 2, width_ratios=(3, 2))
left.plot(x, y, color="black", linewidth=5, alpha=0.25, label="the function")
for i, width in enumerate(WIDTHS):
    left.plot(x, fits[width], color=f"C{i}", linewidth=1.5, label=f"{width} hidden")
left.set(xlabel="x", ylabel="h(x)", title="The best network of each width")
left.legend(ncols=2, fontsize=9)
right.loglog(WIDTHS, list(errors.values()), "o-", color="black")
right.set(xlabel="hidden units", ylabel="root mean square error", title="The error falls")
right.set_xticks(WIDTHS, [str(width) for width in WIDTHS])
right.set_yticks([1, 0.3, 0.1, 0.03, 0.01], ["1", "0.3", "0.1", "0.03", "0.01"])
right.minorticks_off()
right.grid(alpha=0.3)
Path("runs").mkdir(exist_ok=True)
figure.savefig("runs/07_universal_approximation.png", dpi=120)
print("picture: runs/07_universal_approximation.png")

found = list(errors.values())
assert all(wider < narrower for narrower, wider in pairwise(found))
assert found[-1] < found[0] / 15
