"""A run that is killed and started again: `python train.py RESULT [FOLDER]`."""

import json
import sys

import jax
import numpy as np
import optax

import funcnet as fn

TIMES = ("seconds", "examples_per_second")
EPOCHS, EVERY = 30, 4


def run(checkpoint=None):
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 6)).astype(np.float32)
    y = (x.sum(1) + random.normal(size=200) > 0).astype(np.int32)
    held = (x[:50], y[::-1][:50].copy())
    net = fn.serial(fn.Dense(16), fn.BatchNorm(), fn.relu, fn.Dropout(0.3), fn.Dense(2))
    optimizer = optax.adamw(optax.cosine_decay_schedule(1e-2, 360))
    return fn.fit(
        net,
        fn.cross_entropy,
        optimizer,
        (x, y),
        epochs=EPOCHS,
        batch=16,
        validation=held,
        metrics={"accuracy": fn.accuracy},
        patience=EPOCHS,
        progress=False,
        checkpoint=checkpoint,
        resume=checkpoint is not None,
    )


def main(result, folder=None):
    fitted = run(folder and fn.Checkpoints(folder, every=EVERY))
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in fitted.history.rows]
    leaves = {f"{i:03d}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(fitted.state))}
    np.savez(result, rows=json.dumps(rows), stopped=str(fitted.stopped), **leaves)


if __name__ == "__main__":
    main(*sys.argv[1:])
