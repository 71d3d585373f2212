"""The lecture's example of automatic differentiation, row for row, and the same for a network.

    y = ln x1 + x1 x2 - sin x2    at (2, 5)

Forward, each row has a value and, with a direction to move in, a tangent. In reverse each row sends
contributions to its operands: adjoint times local derivative. Their running totals end as the
gradient, (5.5, 1.716).
"""

from pathlib import Path

import jax
import jax.numpy as jnp

import funcnet as fn


def lecture(x1, x2):
    v1 = jnp.log(x1)
    v2 = x1 * x2
    v3 = jnp.sin(x2)
    v4 = v1 + v2
    y = v4 - v3
    return y


# 1. The three traces.
trace = fn.trace(lecture, tangents=(1.0, 0.0))(2.0, 5.0)
print(trace)
assert [row.name for row in trace.rows] == ["v-1", "v0", "v1", "v2", "v3", "v4", "v5"]
assert [c.total.text for c in trace["x2"].contributions] == ["-0.28366", "1.7163"]
assert [c.total.text for c in trace["x1"].contributions] == ["5", "5.5"]

# 2. A network: rows carry their layer, the line they were written on and their local rule.
net = fn.serial(fn.Dense(8), fn.tanh, head=fn.Dense(3))
x = jax.random.normal(jax.random.key(1), (5, 4))
labels = jnp.array([0, 2, 1, 1, 0])
params, _ = net.init(jax.random.key(0), x)


def loss(params, x):
    logits = net(params, x)
    return fn.cross_entropy(logits, labels)


trace = fn.trace(loss, wrt=0)(params, x)
print(f"\n{trace}\n\nthe backward pass of the head, as it is written:")
for line in trace["head"].backward:
    print(f"  {line.name} = {line.expression:24} {line.value.text:32} {line.source}")

# 3. Dead ends are found by reading: who sends the first layer its gradient, and how much?
for c in trace["params['dense']['w']"].contributions:
    print(f"\ndense/w is sent {c.value.text} by {c.source}: {c.formula}")

pages = Path("runs")
pages.mkdir(exist_ok=True)
(pages / "17_trace.html").write_text(trace.html())
(pages / "17_trace.svg").write_text(trace.svg())
print("\npictures: runs/17_trace.html, runs/17_trace.svg")

true = jax.grad(loss)(params, x)
gap = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), trace.gradients, true)
assert max(jax.tree.leaves(gap)) < 1e-6
print(trace.check())
