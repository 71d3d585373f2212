import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet.train.weights import load_weights, save_weights

NET = fn.serial(fn.Dense(3), fn.BatchNorm())
X = jnp.ones((4, 2))


@pytest.fixture
def saved(tmp_path, key):
    params, state = NET.init(key, X)
    save_weights(tmp_path / "w.npz", params, state)
    return tmp_path / "w.npz", params, state


def test_round_trip(saved):
    path, params, state = saved
    back = load_weights(path, *jax.eval_shape(NET.init, jax.random.key(1), X))
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves((params, state)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
    assert [file.name for file in path.parent.iterdir()] == ["w.npz"]


def test_another_network_lists_every_fault_at_once(saved):
    path, *_ = saved
    other = fn.serial(fn.Dense(5), head=fn.Dense(2))
    with pytest.raises(
        ValueError,
        match=r"^load_weights: expected the arrays of this network in .*w\.npz, got "
        r"params/head/b is missing; params/head/w is missing; params/batch_norm/scale is extra; .*"
        r"state/batch_norm/mean is extra; .*params/dense/w has shape \(2, 3\), not \(2, 5\)\. "
        r"The file belongs to another network\.$",
    ):
        load_weights(path, *other.init(jax.random.key(0), X))


def test_a_truncated_file_is_one_sentence(saved):
    path, params, state = saved
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        ValueError,
        match=r"^load_weights: expected a file that save_weights wrote, got .*w\.npz, which does "
        r"not read as one \(.*\)\. Save the parameters again\.$",
    ):
        load_weights(path, params, state)


def test_a_failed_write_leaves_nothing(tmp_path):
    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise RuntimeError("no array here")

    with pytest.raises(RuntimeError, match="no array here"):
        save_weights(tmp_path / "w.npz", {"w": Broken()})
    assert not list(tmp_path.iterdir())
