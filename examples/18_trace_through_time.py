"""Backpropagation through time, iteration by iteration: a gradient that vanishes, seen vanishing.

A recurrent unit h = tanh(w h + x) is run over a sequence; the loss looks at the last state alone.
The trace of the scan has one row for each state in each iteration. Its adjoint is the product of
all later derivatives, w (1 - h^2), and so shrinks on the way back; w is sent one contribution by
each iteration, the early ones of no weight. The same is then read off a compiled step.
"""

import jax
import jax.numpy as jnp
import numpy as np

import funcnet as fn

STEPS = 12


def last_state(w, xs):
    def body(h, x):
        with jax.named_scope("cell"):
            h = jnp.tanh(w * h + x)
        return h, None

    h, _ = jax.lax.scan(body, 0.0, xs)
    return h


w, xs = 0.8, jnp.linspace(-1.0, 1.0, STEPS)

# 1. The trace: adjoints of the states, and what w gets from each iteration.
trace = fn.trace(last_state)(w, xs)
states = [row for row in trace.rows if row.variable == "h"]
adjoints = [float(row.contributions[-1].total.array) for row in states]
print("iteration  state    adjoint")
for row, adjoint in zip(states, adjoints, strict=True):
    bar = "#" * round(40 * adjoint)
    print(f"{row.name:9}  {row.value.text:>8}  {adjoint:.5f} {bar}")

print("\nw is the sum of what the iterations send it, the last first:")
for c in trace["w"].contributions:
    print(f"  from {c.source:6} {c.formula:18} = {c.value.text:>12}, total {c.total.text}")

# 2. The chain rule by hand: each adjoint is the next one times w (1 - h^2).
values = [float(row.value.array) for row in states]
by_hand = [1.0]
for h in values[:0:-1]:
    by_hand.append(by_hand[-1] * w * (1 - h**2))
np.testing.assert_allclose(adjoints, by_hand[::-1], rtol=1e-5)
assert adjoints[0] < 0.05 * adjoints[-1]

# 3. Compiled, for a whole batch of sequences at once: one norm for each iteration and sequence.
batch = jnp.stack([xs, 3 * xs])
watched = jax.jit(jax.vmap(fn.watch(last_state), (None, 0)))(w, batch)
norms = watched["cell"].adjoint["norm"]
print("\nadjoint norms, compiled; the second sequence saturates the unit and loses more:")
print(np.array2string(np.asarray(norms), precision=5, suppress_small=True))
np.testing.assert_allclose(norms[0], np.abs(adjoints), rtol=1e-5)
assert norms.shape == (2, STEPS)
assert norms[1, 0] < norms[0, 0]
