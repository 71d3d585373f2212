"""A deep network whose gradient dies, watched inside its compiled step, and then kept alive.

Twelve sigmoid layers: the adjoint shrinks by a factor of four or more in each. `watch` shows it
from within the jitted step; `edit_gradient` rescales the adjoint at a layer, from there back,
without touching the model; and rectifiers are the cure that needs no surgery.
"""

import jax
import jax.numpy as jnp
import numpy as np

import funcnet as fn

DEPTH, WIDTH = 12, 32


def network(activation):
    layers = {f"layer{i}": fn.serial(fn.Dense(WIDTH), activation) for i in range(DEPTH)}
    return fn.serial(**layers, head=fn.Dense(1))


x = jax.random.normal(jax.random.key(1), (16, 8))
y = jnp.sin(x.sum(-1, keepdims=True))


def setting(activation):
    net = network(activation)
    params, _ = net.init(jax.random.key(0), x)
    return params, lambda params: fn.squared_error(net(params, x), y)


def adjoint_norms(loss, params):
    """The norm of the adjoint behind each layer, from one compiled call."""
    places = [f"layer{i}" for i in range(DEPTH)]
    watched = jax.jit(fn.watch(loss, select=places, stats=("norm", "zeros")))(params)
    return watched, np.array([float(watched[place].adjoint["norm"]) for place in places])


# 1. Sigmoids: from the head (right) to the input (left) almost nothing is left.
params, loss = setting(fn.sigmoid)
watched, dying = adjoint_norms(loss, params)
print(watched)
assert dying[0] < 1e-4 * dying[-1]

# 2. The same network, its adjoint scaled back to norm 1 in the middle: what lies before it learns.
middle = f"layer{DEPTH // 2}"
revived = fn.edit_gradient(loss, middle, lambda dy: dy / (jnp.linalg.norm(dy) + 1e-12))
before, after = (jax.jit(jax.grad(f))(params) for f in (loss, revived))
first = [float(jnp.linalg.norm(g["layer0"]["dense"]["w"])) for g in (before, after)]
head = [float(jnp.linalg.norm(g["head"]["w"])) for g in (before, after)]
print(f"\ngradient of layer0: {first[0]:.2e}, with the edit {first[1]:.2e}")
print(f"gradient of the head: {head[0]:.2e}, with the edit {head[1]:.2e}: behind it, as it was")
assert first[1] > 100 * first[0]
np.testing.assert_allclose(*head, rtol=1e-5)
np.testing.assert_allclose(loss(params), revived(params))

# 3. One place in full: value and adjoint, and who is dead there.
found = fn.capture(loss, middle)(params)
print(f"\n{middle}: value {found.value.shape}, adjoint at most {jnp.abs(found.adjoint).max():.1e}")

# 4. Rectifiers keep it alive.
params, loss = setting(fn.relu)
_, alive = adjoint_norms(loss, params)
print("\nadjoint norms from the first layer to the last")
print("  sigmoid", np.array2string(dying, precision=1))
print("  relu   ", np.array2string(alive, precision=1))
assert alive[0] / alive[-1] > 100 * dying[0] / dying[-1]
