"""An LSTM that reads Python's own documentation, letter by letter, and then writes some.

It sees 64 characters at a time and guesses each next one. What it has to beat is a table of pairs:
the chances of each character after each other, counted in the same text. The table knows one
character of the past; the LSTM carries a state along and so knows words, markup and brackets.
"""

import time

import jax
import numpy as np
import optax

import funcnet as fn

STEPS, BATCH, LENGTH = 400, 32, 64

text = fn.data.load_text()
size = len(text.alphabet)
print(f"{len(text.tokens):,} characters, {size} of them different")

pairs = np.full((size, size), 0.01)
np.add.at(pairs, (text.train[:-1], text.train[1:]), 1)
chances = pairs / pairs.sum(1, keepdims=True)
table = -np.log(chances[text.test[:-1], text.test[1:]]).mean()
print(f"held out: a table of pairs leaves {table:.2f} nats a character")

net = fn.nets.CharRNN(size, cell="lstm", width=256, embed=48)
rate = optax.cosine_decay_schedule(6e-3, STEPS)
optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
step = fn.make_step(net, fn.cross_entropy, optimizer)
state = step.init(jax.random.key(0), *fn.data.windows(text.train, LENGTH, BATCH)[:1])
held_out = fn.data.windows(text.test, LENGTH)

start = time.monotonic()
for i in range(STEPS):
    state, values = step.update(state, fn.data.windows(text.train, LENGTH, BATCH, step=i))
    if (i + 1) % 100 == 0:
        print(f"step {i + 1}: {values['loss']:.2f} nats, {time.monotonic() - start:.0f} s")
loss = float(step.evaluate(state, held_out)["loss"])
print(f"held out: the LSTM leaves {loss:.2f} nats a character")

writer = fn.nets.CharRNN(size, cell="lstm", width=256, embed=48, return_final=True)
prompt = jax.numpy.asarray(text.encode("The statement ")[None])
drawn = fn.nets.sample_recurrent(
    writer, state.params, prompt, 400, jax.random.key(1), temperature=0.7
)
print("The statement " + text.decode(drawn[0]))

assert loss < 0.8 * table
