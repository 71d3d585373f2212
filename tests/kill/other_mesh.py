"""A state written from eight devices comes back on four, on one, and on eight split elsewhere."""

import sys

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

import funcnet as fn


def main(folder):
    step = fn.make_step(fn.serial(fn.Dense(16)), fn.cross_entropy, optax.adam(1e-2))
    state = step.init(jax.random.key(0), np.ones((4, 8), np.float32))
    wanted = jax.tree.map(np.array, state)

    def placed(count, axis):
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:count]), "d")

        def put(leaf):
            split = [None] * leaf.ndim
            if leaf.ndim == 2:
                split[axis] = "d"
            sharding = NamedSharding(mesh, PartitionSpec(*split))
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        return jax.tree.map(put, state)

    eight = placed(8, 0)
    spread = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), state, eight)
    with fn.Checkpoints(folder) as checkpoints:
        checkpoints.save(spread)
    for like in (eight, placed(8, 1), placed(4, 1), placed(1, 0), jax.eval_shape(lambda: state)):
        again = checkpoints.restore(like=like)
        for a, b, c in zip(*map(jax.tree.leaves, (again, wanted, like)), strict=True):
            assert c.sharding is None or a.sharding.is_equivalent_to(c.sharding, a.ndim)
            np.testing.assert_array_equal(np.asarray(a), b)
    print(len(again.params["dense"]["w"].sharding.device_set))


if __name__ == "__main__":
    main(sys.argv[1])
