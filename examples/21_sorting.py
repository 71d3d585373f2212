"""A transformer that reads digits and writes them sorted: an encoder, a decoder, and a cache.

The encoder reads all digits at once; the decoder writes one token after another and, at each, looks
at what it has written so far and at what the encoder made of the digits. Sequences have 3 to 10
digits: shorter ones are filled up, and a mask keeps the net from reading what fills them. Nobody
tells it how many of each digit there are, nor where to stop.
"""

import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

import funcnet as fn

LONGEST, BATCH, STEPS, TESTED = 10, 64, 1200, 1000
BEGIN, END, FIRST, NOTHING = 0, 1, 2, -1
"""The tokens: a beginning, an end, ten digits; and the label of places that do not count."""


def draw(random, size):
    """Sources, what stands before each token of the targets, and the targets themselves."""
    lengths = random.integers(3, LONGEST + 1, (size, 1))
    mask = np.arange(LONGEST) < lengths
    source = np.where(mask, random.integers(FIRST, FIRST + 10, (size, LONGEST)), FIRST)
    in_order = np.sort(np.where(mask, source, 99))
    ends = np.pad(in_order, ((0, 0), (0, 1)), constant_values=99)
    places = np.arange(LONGEST + 1)
    labels = np.where(places < lengths, ends, np.where(places == lengths, END, NOTHING))
    before = np.pad(np.maximum(labels, END), ((0, 0), (1, 0)), constant_values=BEGIN)[:, :-1]
    inputs = {"source": source, "target": before, "mask": mask}
    return jax.tree.map(jnp.asarray, (inputs, labels))


build = partial(fn.nets.EncoderDecoder, FIRST + 10, width=64, depth=2, heads=4, length=LONGEST + 2)
translator = build(logits=False)


@fn.network(translator=translator)
def net(net, batch):
    return net.translator(batch["source"], batch["target"], batch["mask"])


def loss(output, labels):
    return fn.nets.lm_loss(output, labels, ignore_index=NOTHING)


random = np.random.default_rng(0)
schedule = optax.warmup_cosine_decay_schedule(0.0, 3e-3, STEPS // 10, STEPS)
step = fn.make_step(net, loss, optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule)))
state = step.init(jax.random.key(0), draw(random, BATCH)[0])

start = time.monotonic()
for i in range(STEPS):
    state, values = step.update(state, draw(random, BATCH))
    if (i + 1) % 200 == 0:
        print(f"step {i + 1:4d}: loss {values['loss']:.4f}, {time.monotonic() - start:.0f} s")

inputs, labels = draw(np.random.default_rng(1), TESTED)
writer = build(cache=True)
written = fn.nets.sample(
    writer, state.params["translator"], jnp.full((TESTED, 1), BEGIN), LONGEST + 1,
    jax.random.key(1), temperature=0.0, source=inputs["source"], mask=inputs["mask"],
)  # fmt: skip
right = np.asarray((written == labels) | (labels == NOTHING)).all(-1)

for i in range(3):
    digits = "".join(str(token - FIRST) for token in inputs["source"][i][inputs["mask"][i]])
    answer = "".join(str(token - FIRST) for token in written[i] if token >= FIRST)
    print(f"{digits} -> {answer}")
print(f"{right.mean():.1%} of {TESTED} new sequences sorted, every digit and the end right")
assert right.mean() > 0.99
