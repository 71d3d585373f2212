"""A small GPT that learns to write the help of Python, one character after another.

The net reads up to 128 characters and gives, at each place, a distribution over the character that
comes next; no place sees the ones after it. The same table turns characters into vectors and
vectors back into scores. Its loss is made from the table and the last features without the scores
ever standing in memory together (`lm_loss`), and at the end a cache of keys and values lets it
write without reading its own text again for each character.
"""

import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import funcnet as fn
from funcnet.feed.text import load_text, windows
from funcnet.nets.gpt import lm_loss
from funcnet.nets.sampling import sample

LENGTH, BATCH, STEPS = 128, 16, 300

text = load_text()
letters = len(text.alphabet)
print(f"{len(text.tokens):,} characters, {letters} different ones")

sizes = {"width": 96, "depth": 3, "heads": 4, "length": 2 * LENGTH, "rotary": True}
net = fn.nets.GPT(letters, logits=False, **sizes)
schedule = optax.warmup_cosine_decay_schedule(0.0, 4e-3, STEPS // 10, STEPS)
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.1))
step = fn.make_step(net, lm_loss, optimizer)
state = step.init(jax.random.key(0), *windows(text.train, LENGTH, BATCH)[:1])

held_out = tuple(part[:64] for part in windows(text.test, LENGTH))
counts = np.bincount(text.train, minlength=letters) + 1
frequencies = -np.log(counts / counts.sum())[held_out[1]].mean()
print(
    f"nothing learned: {math.log(letters):.2f} nats a character; its frequency: {frequencies:.2f}"
)

start = time.monotonic()
for i in range(STEPS):
    state, values = step.update(state, windows(text.train, LENGTH, BATCH, seed=0, step=i))
    if (i + 1) % 50 == 0:
        seconds = time.monotonic() - start
        loss = float(step.evaluate(state, held_out)["loss"])
        print(
            f"step {i + 1:3d}: loss {values['loss']:.2f}, held out {loss:.2f}, {seconds:.0f} s, "
            f"{(i + 1) * BATCH * LENGTH / seconds:,.0f} characters a second"
        )

prompt = "The import statement "
writer = fn.nets.GPT(letters, cache=True, **sizes)
ids = jnp.asarray(text.encode(prompt))[None]
written = sample(writer, state.params, ids, 2 * LENGTH - len(prompt), jax.random.key(1),
                 temperature=0.7)  # fmt: skip
print(f"\n{prompt}{text.decode(np.asarray(written)[0])}\n")

print(f"{loss:.2f} nats a character on text it has not seen")
assert loss < frequencies - 1
