"""A run of training in one of several processes; what it came to goes to a file.

python train.py OUT [ADDRESS PROCESSES ID]
"""

import json
import os
import sys
import time

import jax
import numpy as np
import optax

import funcnet as fn


def main(out, address=None, processes=1, process=0):
    if address:
        jax.distributed.initialize(
            address, int(processes), int(process), heartbeat_timeout_seconds=20
        )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 6)).astype(np.float32)
    y = (x @ rng.normal(size=(6, 3))).argmax(-1)
    axes = json.loads(os.environ.get("AXES", '{"data": -1}'))

    def told(row, state):
        print(f"epoch {row['epoch']}", flush=True)
        time.sleep(float(os.environ.get("PAUSE", "0")))

    folder = os.environ.get("CHECKPOINT")
    net = fn.serial(fn.Dense(16), fn.BatchNorm(), fn.tanh, fn.Dropout(0.1), fn.Dense(3))
    fitted = fn.fit(
        net,
        fn.cross_entropy,
        optax.sgd(0.1),
        (x, y),
        validation=(x[:50], y[:50]),
        epochs=int(os.environ.get("EPOCHS", "3")),
        batch=16,
        mesh=fn.Mesh(axes),
        on_epoch=told,
        patience=20,
        on_nonfinite=os.environ.get("NONFINITE"),
        checkpoint=folder and fn.Checkpoints(folder, every=3),
        resume=bool(folder),
    )
    whole = jax.jit(lambda x: x, out_shardings=jax.NamedSharding(fn.Mesh(axes).jax_mesh, jax.P()))
    params = {
        k: np.asarray(whole(v)).tolist() for k, v in fn.tree.flatten(fitted.state.params).items()
    }
    rows = [{k: v for k, v in row.items() if "second" not in k} for row in fitted.history.rows]
    with open(f"{out}.{process}", "w") as file:
        json.dump(
            {
                "params": params,
                "rows": rows,
                "devices": len(jax.devices()),
                "stopped": fitted.stopped,
            },
            file,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
