import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnet as fn
from funcnet.train.weights import load_weights, save_weights

from .forms import some

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


OPTIMIZERS = {
    "adam": optax.adam(1e-2),
    "parted": optax.multi_transform(
        {"w": fn.averaged(optax.MultiSteps(optax.adamw(1e-2), 2)), "b": optax.set_to_zero()},
        lambda params: fn.tree.labels(params, {"*/w": "w"}, "b"),
    ),
}


@pytest.mark.parametrize("name", some(OPTIMIZERS, 1))
def test_training_goes_on_from_a_state_on_disk_as_if_it_had_not_stopped(name, tmp_path):
    net = fn.serial(fn.Dense(4), fn.Dropout(0.5), fn.BatchNorm())
    step = fn.make_step(net, fn.squared_error, OPTIMIZERS[name])
    batches = np.random.default_rng(0).normal(size=(6, 2, 8, 4)).astype(np.float32)

    def trained(state, batches):
        for x, y in batches:
            state, _ = step.update(state, (x, y))
        return state

    key = jax.random.key(0)
    whole = trained(step.init(key, batches[0, 0]), batches)
    save_weights(tmp_path / "half.npz", trained(step.init(key, batches[0, 0]), batches[:3]))
    like = jax.eval_shape(step.init, key, batches[0, 0])
    half, nothing = load_weights(tmp_path / "half.npz", like)
    assert nothing == {}
    assert int(half.step) == 3
    assert jax.tree.structure(half) == jax.tree.structure(whole)
    for a, b in zip(*map(jax.tree.leaves, (trained(half, batches[3:]), whole)), strict=True):
        np.testing.assert_array_equal(a, b)


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


DTYPES = (
    *("bool", "int2", "int4", "int8", "int16", "int32", "int64"),
    *("uint2", "uint4", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    *("float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz"),
    *("float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn"),
)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back_bit_for_bit(dtype, tmp_path):
    """The bytes are any, so there are NaN, infinities and -0 among them; int64 beyond int32."""
    kind = np.dtype(getattr(jnp, dtype))
    raw = np.random.default_rng(0).integers(0, 256, 256 * kind.itemsize, np.uint8)
    small = dtype == "bool" or kind.name in ("int2", "int4", "uint2", "uint4", "float4_e2m1fn")
    array = (raw % 2).astype(kind) if small else raw.view(kind)
    params = {"dense": {"w": array.reshape(2, -1)}, "scale": array[0].reshape(())}
    save_weights(tmp_path / "w.npz", params)
    back, state = load_weights(tmp_path / "w.npz", params)
    assert state == {}
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        assert (a.dtype, a.shape, np.asarray(a).tobytes()) == (kind, b.shape, b.tobytes())


def test_swapped_bytes_are_no_other_numbers(tmp_path):
    swapped = np.arange(3, dtype=np.dtype("float32").newbyteorder())
    save_weights(tmp_path / "w.npz", {"w": swapped})
    with np.load(tmp_path / "w.npz") as saved:
        assert saved["params/w"].tolist() == [0, 1, 2]


def test_names_that_end_like_files_stay_apart(tmp_path):
    params = {name: jnp.full(2, i) for i, name in enumerate(("a", "a.npy", "a.npy.npy", "file"))}
    save_weights(tmp_path / "w.npz", params)
    back, _ = load_weights(tmp_path / "w.npz", params)
    assert {name: x.tolist() for name, x in back.items()} == {
        "a": [0, 0], "a.npy": [1, 1], "a.npy.npy": [2, 2], "file": [3, 3],
    }  # fmt: skip


def test_python_numbers_come_back_as_they_were(tmp_path):
    save_weights(tmp_path / "w.npz", {"a": 0.1, "b": 2**40})
    back, _ = load_weights(tmp_path / "w.npz", {"a": 1.0, "b": 1})
    assert (float(back["a"]), int(back["b"])) == (0.1, 2**40)


@pytest.mark.parametrize("leaf", ["text", np.array([{}], object), np.zeros(1, "M8[s]")])
def test_what_is_no_array_of_numbers(tmp_path, leaf):
    message = r"^save_weights: expected arrays of numbers, got .* at params/a\. Keep what is no"
    with pytest.raises(TypeError, match=message):
        save_weights(tmp_path / "w.npz", {"a": leaf})
    assert not list(tmp_path.iterdir())


def test_no_file_is_one_sentence(tmp_path):
    for name, reason in (("none.npz", "No such file or directory"), ("", "Is a directory")):
        path = tmp_path / name
        with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole of it is looked at
            load_weights(path, {})
        assert str(caught.value) == (
            f"load_weights: expected a file at {path}, got {reason}. Check the path."
        )


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
