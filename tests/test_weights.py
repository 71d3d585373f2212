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


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "float16", "int4", "bool"])
def test_every_dtype_comes_back(dtype, tmp_path):
    params = {"dense": {"w": jnp.arange(6).reshape(2, 3).astype(dtype)}, "b": jnp.ones(())}
    save_weights(tmp_path / "w.npz", params)
    back, _ = load_weights(tmp_path / "w.npz", params)
    assert back["dense"]["w"].dtype == dtype
    np.testing.assert_array_equal(back["dense"]["w"], params["dense"]["w"])


def test_another_dtype_is_a_fault(tmp_path):
    path = tmp_path / "w.npz"
    save_weights(path, {"w": jnp.ones(3)})
    message = (
        r"^load_weights: expected the arrays of this network in .*w\.npz, got params/w has dtype "
        r"float32, not bfloat16\. The file belongs to another network\.$"
    )
    with pytest.raises(ValueError, match=message):
        load_weights(path, {"w": jnp.ones(3, jnp.bfloat16)})


def test_a_random_key_is_no_weight(tmp_path, key):
    message = (
        r"^save_weights: expected arrays of numbers, got a random key at state/noise/key\. "
        r"Keep its bits in the state instead, jax\.random\.key_data\(key\)\.$"
    )
    with pytest.raises(TypeError, match=message):
        save_weights(tmp_path / "w.npz", {}, {"noise": {"key": key}})
    assert not list(tmp_path.iterdir())


def test_two_arrays_of_one_path(tmp_path):
    message = (
        r"^flatten: expected another path for each array, got two arrays at params/a/b\. "
        r"Leave the '/' out of the names in the tree\.$"
    )
    with pytest.raises(ValueError, match=message):
        save_weights(tmp_path / "w.npz", {"a": {"b": jnp.ones(2)}, "a/b": jnp.ones(2)})
