"""Weights from PyTorch and to it, and files of tensors.

`test_torch_reference.py` holds whole networks against PyTorch's own numbers.
"""

import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import funcnet as fn
from funcnet.interop.safetensors import load_safetensors, save_safetensors
from funcnet.interop.torch import from_state_dict, to_state_dict

from .cases import LAYERS
from .forms import some
from .values import draw

IMAGES = jax.ShapeDtypeStruct((1, 5, 4, 3), "float32")
NET = fn.serial(fn.Conv(6, 3, padding=1), fn.BatchNorm(), fn.relu, fn.Flatten(), fn.Dense(2))
SHAPES = {
    "conv.weight": (6, 3, 3, 3),
    "conv.bias": (6,),
    "batch_norm.weight": (6,),
    "batch_norm.bias": (6,),
    "batch_norm.running_mean": (6,),
    "batch_norm.running_var": (6,),
    "batch_norm.num_batches_tracked": (),
    "dense.weight": (2, 120),
    "dense.bias": (2,),
}


def drawn(shapes):
    random = np.random.default_rng(0)
    return {name: random.normal(size=s).astype(np.float32) for name, s in shapes.items()}


def test_each_array_finds_its_place_and_its_axes():
    theirs = drawn(SHAPES)
    params, state = from_state_dict(NET, theirs, IMAGES)
    w = theirs["conv.weight"]
    assert params["conv"]["w"][1, 2, 0, 5] == w[5, 0, 1, 2]
    for ours, name in (("scale", "weight"), ("shift", "bias")):
        np.testing.assert_array_equal(params["batch_norm"][ours], theirs[f"batch_norm.{name}"])
    for ours, name in (("mean", "running_mean"), ("var", "running_var")):
        np.testing.assert_array_equal(state["batch_norm"][ours], theirs[f"batch_norm.{name}"])
    rows = params["dense"]["w"].reshape(5, 4, 6, 2)
    for h, w, c in np.ndindex(5, 4, 6):
        np.testing.assert_array_equal(rows[h, w, c], theirs["dense.weight"][:, (c * 5 + h) * 4 + w])


def test_there_and_back_is_the_same():
    theirs = drawn(SHAPES)
    again = to_state_dict(NET, *from_state_dict(NET, theirs, IMAGES), IMAGES)
    assert list(again) == list(theirs)
    for name in theirs.keys() - {"batch_norm.num_batches_tracked"}:
        np.testing.assert_array_equal(again[name], theirs[name])
    assert again["batch_norm.num_batches_tracked"].dtype == np.int64


@pytest.mark.parametrize("learned", [True, False])
def test_running_statistics_go_there_and_back_with_or_without_parameters(learned):
    options = {"scale": learned, "shift": learned}
    own = fn.serial(
        fn.InstanceNorm(track_running_stats=True, **options), fn.relu, fn.BatchNorm(**options)
    )
    entries = {"running_mean": (3,), "running_var": (3,), "num_batches_tracked": ()}
    entries |= {"weight": (3,), "bias": (3,)} if learned else {}
    theirs = drawn({f"{i}.{name}": shape for i in (0, 2) for name, shape in entries.items()})
    params, state = from_state_dict(own, theirs, IMAGES)
    for module, layer in ((0, "instance_norm"), (2, "batch_norm")):
        for name, entry in (("mean", "running_mean"), ("var", "running_var")):
            np.testing.assert_array_equal(state[layer][name], theirs[f"{module}.{entry}"])
    names = {"instance_norm": "0", "batch_norm": "2"}
    again = to_state_dict(own, params, state, IMAGES, names=names)
    assert again.keys() == theirs.keys()
    for name in again:
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(again[name], theirs[name])


def filled(leaf):
    return np.arange(leaf.size, dtype=leaf.dtype).reshape(leaf.shape)


@pytest.mark.long
def test_every_network_goes_there_and_back(key):
    skipped = {"repeat", "ensemble", "repeat with dropout", "gru, reset before"}
    for name, (layer, inputs, _) in LAYERS.items():
        shapes = jax.eval_shape(layer.init, key, *inputs)
        if not shapes[0] or name in skipped:
            continue
        params, state = jax.tree.map(filled, shapes)
        theirs = to_state_dict(layer, params, state, *inputs)
        back, _ = from_state_dict(layer, theirs, *inputs)
        assert jax.tree.structure(back) == jax.tree.structure(params), name
        jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.long
def test_modules_of_other_names_are_paired_in_order_or_by_hand():
    theirs = drawn(SHAPES)
    other = {
        name.replace("conv", "stem.0").replace("batch_norm", "stem.1").replace("dense", "fc"): x
        for name, x in theirs.items()
    }
    expected = from_state_dict(NET, theirs, IMAGES)
    names = {"conv": "stem.0", "batch_norm": "stem.1", "dense": "fc"}
    for found in (
        from_state_dict(NET, other, IMAGES),
        from_state_dict(NET, dict(reversed(other.items())), IMAGES, names=names),
        from_state_dict(NET, other | {"fc2.weight": 0}, IMAGES, ignore=("fc2.weight",)),
    ):
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    outer, x = fn.serial(body=NET), IMAGES
    params, _ = from_state_dict(outer, other, x, names={f"body/{k}": v for k, v in names.items()})
    jax.tree.map(np.testing.assert_array_equal, params["body"], expected[0])
    written = to_state_dict(NET, *expected, IMAGES, names=names)
    assert sorted(written) == sorted(other)


class Tensor:
    """What is read of a PyTorch tensor, in one of its dtypes that NumPy lacks."""

    dtype = "torch.bfloat16"

    def __init__(self, array):
        self.array = array

    def detach(self):
        return self

    cpu = detach

    def float(self):
        return self.array


def test_pytorchs_bfloat16_is_read():
    theirs = {"weight": Tensor(np.ones((2, 3), np.float32)), "bias": np.zeros(2)}
    params, _ = from_state_dict(fn.Dense(2), theirs, jnp.ones((1, 3)))
    assert params["w"].dtype == jnp.float32
    assert params["w"].tolist() == np.ones((3, 2)).tolist()


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (
            {"conv.weight": (6, 3, 3, 3), "dense.weight": (2, 121), "dense.bias": (2,), "x.y": ()}
            | {name: shape for name, shape in SHAPES.items() if name.startswith("batch")},
            "from_state_dict: expected the arrays of this network, got conv.bias is missing; "
            "dense.weight has shape (2, 121), not (2, 120); x.y is extra. Pair layers by `names`, "
            "and leave arrays out by `ignore`.",
        ),
        (
            {"a.weight": (2, 2), "b.weight": (3,)},
            "from_state_dict: expected 3 modules with arrays, for conv, batch_norm, dense, got 2: "
            "a, b. Pair layers by `names`, and leave arrays out by `ignore`.",
        ),
    ],
)
def test_what_does_not_fit_is_listed(theirs, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        from_state_dict(NET, drawn(theirs), IMAGES)


@pytest.mark.long
def test_what_cannot_be_written_is_one_sentence(key):
    x, net = jnp.ones((1, 3)), fn.serial(fn.Dense(3), fn.Dense(3))
    params, state = net.init(key, x)
    with pytest.raises(
        ValueError, match=r"^to_state_dict: .*, got none at dense_1/b, dense_1/w\. "
    ):
        to_state_dict(net, {"dense": params["dense"]}, state, x)
    with pytest.raises(ValueError, match=r"^to_state_dict: .*, got two arrays named a\.weight\. "):
        to_state_dict(net, params, state, x, names={"dense": "a", "dense_1": "a"})
    stacked = fn.repeat(fn.Dense(3), 2)
    with pytest.raises(
        ValueError, match=r"^state_dict: .*, got several layers stacked at the top\. "
    ):
        to_state_dict(stacked, *stacked.init(key, x), x)


@pytest.mark.long
def test_a_gru_that_pytorch_lacks_is_refused(key):
    x, theirs = jnp.ones((1, 5, 3)), fn.serial(rnn=fn.GRU(4))
    net = fn.serial(rnn=fn.GRU(4, reset_after=False))
    arrays = to_state_dict(theirs, *theirs.init(key, x), x)
    message = (
        r"^state_dict: expected layers that PyTorch has, got GRU\(reset_after=False\) at rnn\. Its "
        r"own scales the product of the state: make this one with reset_after=True\.$"
    )
    with pytest.raises(ValueError, match=message):
        from_state_dict(net, arrays, x)
    with pytest.raises(ValueError, match=message):
        to_state_dict(net, *net.init(key, x), x)


@pytest.mark.parametrize("bias", some([True, False], 1))
def test_a_projection_is_pytorchs_weight_hr(bias, key):
    net, x = fn.serial(rnn=fn.LSTM(4, proj=2, bias=bias)), jnp.ones((1, 5, 3))
    params, state = net.init(key, x)
    arrays = to_state_dict(net, params, state, x)
    shapes = {"weight_ih": (16, 3), "weight_hh": (16, 2), "weight_hr": (2, 4)}
    shapes |= {"bias_ih": (16,), "bias_hh": (16,)} if bias else {}
    assert {name: a.shape for name, a in arrays.items()} == {
        f"rnn.{name}_l0": shape for name, shape in shapes.items()
    }
    np.testing.assert_array_equal(arrays["rnn.weight_hr_l0"], params["rnn"]["w_proj"].T)
    again, _ = from_state_dict(net, arrays, x)
    jax.tree.map(np.testing.assert_array_equal, again, params)


LINEAR = {"weight": (4, 4), "bias": (4,)}
KERNEL = {"weight": (4, 4, 3), "bias": (4,)}


@pytest.mark.parametrize(
    ("layer", "entries", "shape"),
    [
        (fn.Dense(4), LINEAR, (2, 4)),
        (fn.Dense(4, bias=False), {"weight": (4, 4)}, (2, 4)),
        (fn.Dense(4, bias=False), {"weight": (4, 4)}, (2, 6, 4)),
        (fn.Conv(4, 3, padding=1), KERNEL, (2, 6, 4)),
        (fn.Conv(4, 3, padding=1, bias=False), {"weight": (4, 4, 3)}, (2, 6, 4)),
    ],
    ids=["dense", "dense without bias", "dense over time", "conv", "conv without bias"],
)
def test_stacked_layers_go_there_and_back_one_by_one_alone(layer, entries, shape):
    x = jax.ShapeDtypeStruct(shape, "float32")
    theirs = drawn({f"{i}.{name}": size for i in range(3) for name, size in entries.items()})
    apart = fn.serial(*[layer] * 3)
    params, state = from_state_dict(apart, theirs, x)
    deep = fn.repeat(layer, 3)
    stacked = fn.tree.stack(list(params.values()))
    values = draw(*shape)
    np.testing.assert_allclose(deep(stacked, values), apart(params, values), rtol=1e-6)
    again = {f"{i}": part for i, part in enumerate(fn.tree.unstack(stacked))}
    named = fn.serial(**{f"{i}": layer for i in range(3)})
    for name, array in to_state_dict(named, again, state, x).items():
        np.testing.assert_array_equal(array, theirs[name])
    message = r"^state_dict: .*, got several layers stacked at the top\. "
    with pytest.raises(ValueError, match=message):
        to_state_dict(deep, stacked, {}, x)
    with pytest.raises(ValueError, match=message):
        from_state_dict(deep, {name: theirs[f"0.{name}"] for name in entries}, x)


WIDE = jax.ShapeDtypeStruct((2, 9, 4), "float32")
WORDS = jax.ShapeDtypeStruct((2, 3), "int32")
STACKED = {
    "inside": (fn.serial(fn.repeat(fn.serial(fn.Dense(4, bias=False), fn.relu), 3)), WIDE),
    "remat": (fn.remat(fn.repeat(fn.remat(fn.Dense(4, bias=False)), 3)), WIDE),
    "averages alone": (fn.repeat(fn.BatchNorm(scale=False, shift=False), 3), WIDE),
    "one slope": (fn.repeat(fn.PReLU(shared=True), 3), WIDE),
    "ensemble": (fn.ensemble(fn.Dense(4, bias=False), 3), WIDE),
    "ensemble of kernels": (fn.ensemble(fn.Conv(4, 3, bias=False), 3), WIDE),
    "ensemble of tables": (fn.ensemble(fn.Embed(4, 3), 3), WORDS),
    "blocks": (fn.nets.GPT(5, width=8, depth=2, heads=2, length=4, stacked=True), WORDS),
}


@pytest.mark.long
@pytest.mark.parametrize("name", STACKED)
def test_stacked_layers_are_known_by_what_is_done_to_them(name, key):
    net, x = STACKED[name]
    shapes = jax.eval_shape(net.init, key, x)
    with pytest.raises(ValueError, match=r"^state_dict: .*, got several layers stacked at "):
        to_state_dict(net, *jax.tree.map(filled, shapes), x)


def test_one_kernel_over_many_signals_is_not_stacked(key):
    @fn.network(conv=fn.Conv(4, 3, bias=False))
    def each(net, signals):
        return jax.vmap(net.conv)(signals)

    signals = jax.ShapeDtypeStruct((5, 2, 9, 4), "float32")
    params, state = each.init(key, signals)
    theirs = to_state_dict(each, params, state, signals)
    np.testing.assert_array_equal(theirs["conv.weight"], params["conv"]["w"].transpose(2, 1, 0))


def test_a_name_for_nothing_is_listed_with_the_nearest():
    theirs = {
        name.replace("conv", "stem").replace("dense", "fc1"): x for name, x in drawn(SHAPES).items()
    }
    names = {"convv": "stem", "conv": "stem", "dense": "fc", "relu": "act", "": "", "zzz": "stem"}
    message = (
        "from_state_dict: expected the arrays of this network, got 'convv' in `names` is no path "
        "of the net (nearest: conv); 'fc' in `names` is no module (nearest: fc1); 'zzz' in `names` "
        "is no path of the net; fc.weight is missing; fc.bias is missing; fc1.weight is extra; "
        "fc1.bias is extra. Pair layers by `names`, and leave arrays out by `ignore`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        from_state_dict(NET, theirs, IMAGES, names=names)
    params, state = from_state_dict(NET, drawn(SHAPES), IMAGES)
    message = (
        "to_state_dict: expected names for paths of this network, got 'convv' in `names` is no "
        "path of the net (nearest: conv); 'zzz' in `names` is no path of the net. A path runs from "
        "the outermost layer to the one that is meant."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        to_state_dict(NET, params, state, IMAGES, names=names)


TOKENS = fn.serial(token=fn.nets.ClassToken(), places=fn.LearnedPositions(4), at=fn.Attention(2))
SEQUENCE = jax.ShapeDtypeStruct((1, 3, 6), "float32")
APART = {"at/q": "qkv", "at/k": "qkv", "at/v": "qkv", "at/out": "proj"}
ALONE = {"token/token": "cls_token", "places/table": "net.pos_embed"}
JOINED = {
    "cls_token": (1, 1, 6),
    "net.pos_embed": (1, 4, 6),
    "qkv.weight": (6, 18),
    "qkv.bias": (18,),
    "proj.weight": (6, 6),
    "proj.bias": (6,),
}


@pytest.mark.long
def test_arrays_by_themselves_projections_one_by_one_and_transposed_weights():
    theirs, names = drawn(JOINED), {**APART, **ALONE}
    params, state = from_state_dict(TOKENS, theirs, SEQUENCE, names=names, transposed=["qkv"])
    np.testing.assert_array_equal(params["token"]["token"], theirs["cls_token"].ravel())
    np.testing.assert_array_equal(params["places"]["table"], theirs["net.pos_embed"][0])
    for i, part in enumerate("qkv"):
        own = params["at"][part]
        columns = slice(6 * i, 6 * i + 6)
        np.testing.assert_array_equal(own["w"].reshape(6, 6), theirs["qkv.weight"][:, columns])
        np.testing.assert_array_equal(own["b"].ravel(), theirs["qkv.bias"][columns])
    np.testing.assert_array_equal(params["at"]["out"]["w"].reshape(6, 6), theirs["proj.weight"].T)
    again = to_state_dict(TOKENS, params, state, SEQUENCE, names=names, transposed=["qkv"])
    assert sorted(again) == sorted(theirs)
    for name, array in again.items():
        np.testing.assert_array_equal(array, theirs[name])


def test_an_array_by_itself_is_missed_by_its_name():
    theirs = drawn({k: v for k, v in JOINED.items() if k != "cls_token"} | {"qkv.bias": (6,)})
    message = (
        "from_state_dict: expected the arrays of this network, got 'cls_token' in `names` is no "
        "module; cls_token is missing; qkv.weight has shape (6, 18), not (18, 6); qkv.bias has "
        "shape (6,), not (18,). Pair layers by `names`, and leave arrays out by `ignore`."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        from_state_dict(TOKENS, theirs, SEQUENCE, names={**APART, **ALONE})


def test_one_name_to_ignore_is_not_its_letters(key):
    theirs = to_state_dict(fn.Dense(2), *fn.Dense(2).init(key, jnp.ones((1, 3))), jnp.ones((1, 3)))
    extra = {**theirs, "a.weight": np.ones(1)}
    params, _ = from_state_dict(fn.Dense(2), extra, jnp.ones((1, 3)), ignore="a.weight")
    np.testing.assert_array_equal(params["w"], theirs["weight"].T)


def test_safetensors_keep_names_shapes_and_dtypes(tmp_path):
    path = tmp_path / "weights.safetensors"
    tensors = {
        "a": jnp.ones(3, jnp.bfloat16),
        "b": np.arange(6.0).reshape(2, 3).T,
        "c": np.array(7, np.int64),
        "d": np.zeros((0, 2), bool),
        "e": np.ones(2, ml_dtypes.float8_e4m3fn),
    }
    save_safetensors(path, tensors)
    found = load_safetensors(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].shape, found[name].dtype) == (tensor.shape, tensor.dtype)
        np.testing.assert_array_equal(found[name], np.asarray(tensor))
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]


def test_parameters_go_through_a_file_of_tensors(tmp_path, key):
    params, _ = NET.init(key, IMAGES)
    save_safetensors(tmp_path / "p.safetensors", fn.tree.flatten(params))
    back = fn.tree.unflatten(load_safetensors(tmp_path / "p.safetensors"))
    jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.parametrize("cut", [0, 5, 200, -3])
def test_a_file_cut_short_is_one_sentence(tmp_path, cut):
    path = tmp_path / "weights.safetensors"
    save_safetensors(path, {"w": np.ones((10, 10))})
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(
        ValueError,
        match=rf"^load_safetensors: expected a file of tensors in the safetensors format, got "
        rf"{re.escape(str(path))}, which does not read as one \(.+\)\. Save or download it "
        r"again\.$",
    ):
        load_safetensors(path)


def test_without_the_package_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "safetensors", None)
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    with pytest.raises(ModuleNotFoundError, match=r"Run pip install 'funcnet\[interop\]'\.$"):
        save_safetensors(tmp_path / "x", {})
