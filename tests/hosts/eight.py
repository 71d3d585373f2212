"""Twenty steps on eight devices against twenty on one: what they differ by, and what is compiled.

python eight.py mlp|gpt|resnet
"""

import json
import re
import sys
from math import prod

import jax
import jax.export
import numpy as np
import optax

import funcnet as fn

WHICH = sys.argv[1]
# A ReLU's slope jumps at 0, where float32's rounding decides between the sums of two devices and
# those of one; a deep network doubles that in each step. So what is computed is held in float64.
jax.config.update("jax_enable_x64", WHICH == "resnet")

MESHES = [{"data": 8}, {"fsdp": 8}, {"data": 2, "model": 4}, {"data": 2, "fsdp": 2, "model": 2}]
KIND = np.float64 if WHICH == "resnet" else np.float32


def problem():
    rng = np.random.default_rng(0)
    if WHICH == "mlp":
        net, x = fn.nets.MLP((64, 64, 16)), rng.normal(size=(32, 24))
        return net, fn.cross_entropy, (x.astype(KIND), rng.integers(0, 16, 32).astype(np.int32))
    if WHICH == "resnet":
        net, x = fn.nets.ResNet(20, 16), rng.normal(size=(16, 8, 8, 3))
        return net, fn.cross_entropy, (x.astype(KIND), rng.integers(0, 16, 16).astype(np.int32))
    ids = rng.integers(0, 64, (16, 17)).astype(np.int32)
    net = fn.nets.GPT(64, width=64, depth=2, heads=4, length=16, drop=0.1, logits=False)
    return net, fn.nets.lm_loss, (ids[:, :-1], ids[:, 1:])


def gathered(text):
    """The bytes of what each all-gather of a program makes."""
    for line in text.splitlines():
        if match := re.search(r"= (.*?) all-gather(?:-start)?\(", line):
            shapes = re.findall(r"[fsu](\d+)\[([\d,]*)\]", match[1])
            yield sum(
                int(bits) // 8 * prod(map(int, filter(None, sides.split(","))))
                for bits, sides in shapes
            )


def bytes_on_one(tree):
    return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


def run(mesh, steps=20):
    net, criterion, batch = problem()
    # Of a gradient that is 0 but for rounding, Adam with its own eps would make a full step.
    optimizer = optax.adamw(1e-3, eps=1e-4) if WHICH == "gpt" else optax.sgd(0.05, momentum=0.9)
    step = fn.make_step(net, criterion, optimizer, mesh=mesh)
    state = step.init(jax.random.key(0), batch[0])
    first = jax.tree.map(np.asarray, state)
    placed = batch if mesh is None else mesh.place(batch)
    for _ in range(steps):
        state, values = step.update(state, placed)
    return step, state, first, placed, {k: float(v) for k, v in values.items()}


def main():
    _, one, start, _, alone = run(None)
    report = {}
    for axes in MESHES:
        step, state, first, batch, values = run(fn.Mesh(axes))
        pairs = zip(jax.tree.leaves(one), jax.tree.leaves(state), strict=True)
        compiled = step.update.lower(state, batch).compile()
        memory, text = compiled.memory_analysis(), compiled.as_text()
        kept = (state.params, state.opt_state)
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), (state, batch)
        )
        exported = jax.export.export(step.update, platforms=["cuda", "rocm", "tpu"])(*shapes)
        report[json.dumps(axes)] = {
            "error": max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs),
            "start": max(
                float(np.abs(a - b).max())
                for a, b in zip(jax.tree.leaves(start), jax.tree.leaves(first), strict=True)
            ),
            "loss": abs(values["loss"] - alone["loss"]),
            "share": bytes_on_one(kept) / sum(leaf.nbytes for leaf in jax.tree.leaves(kept)),
            "largest": max(leaf.nbytes for leaf in jax.tree.leaves(state.params)),
            "parameters": sum(leaf.nbytes for leaf in jax.tree.leaves(state.params)),
            "gathered": max(gathered(text), default=0),
            "collectives": {
                name: len(re.findall(rf" {name}\(", text))
                for name in ("all-gather", "all-reduce", "all-to-all", "collective-permute")
            },
            "given": memory.argument_size_in_bytes - memory.alias_size_in_bytes,
            "batch": bytes_on_one(batch),
            "temporary": memory.temp_size_in_bytes,
            "programs": step.update._cache_size(),
            "exported": exported.nr_devices,
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
