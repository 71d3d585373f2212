"""Linear attention and state space models against loops, in memory, and as they decode."""

import json
import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnet as fn
from funcnet.interop.torch import from_state_dict, to_state_dict

from .data.make_families import STEPS
from .data.make_networks_torch import drawn, places, ripple
from .forms import some
from .values import assert_agrees, draw, values_of

close = partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)
CONV = {"conv": "conv1d"}
FEATURES = {
    "elu": lambda x: np.where(x > 0, x + 1, np.exp(np.minimum(x, 0))),
    "relu": lambda x: np.maximum(x, 0),
    "identity": lambda x: x,
}


def linear_attention(
    q, k, v, mask=None, decay=None, state=None,
    *, causal=False, feature="elu", normalize=True, chunk=None,
):  # fmt: skip
    """The recurrence, head by head and token by token, as the paper's equations 18 to 20."""
    (batch, time, heads, width), (keys, groups) = q.shape, k.shape[1:3]
    phi, columns = FEATURES[feature], v.shape[3] + normalize
    decay = None if decay is None else np.asarray(decay)
    y = np.zeros((*q.shape[:3], v.shape[3]))
    last = np.zeros((batch, groups, width, columns)) if state is None else state.copy()

    def read(n, t, group):
        for head in range(group * heads // groups, (group + 1) * heads // groups):
            o = phi(q[n, t, head]) @ last[n, group]
            y[n, t, head] = o[:-1] / o[-1] if normalize else o

    for n, group in np.ndindex(batch, groups):
        for s in range(keys):
            if causal:
                last[n, group] *= 1 if decay is None else float(decay[group])
            if mask is None or mask[n, s]:
                value = [*v[n, s, group], *[1] * normalize]
                last[n, group] += np.outer(phi(k[n, s, group]), value)
            if causal:
                read(n, s, group)
        for t in range(0 if causal else time):
            read(n, t, group)
    return y, last


@values_of(fn.linear_attention)
@pytest.mark.usefixtures("x64")
def test_linear_attention_is_the_recurrence():
    q, k, v = (draw(2, 5, 4, 2, seed=i) for i in range(3))
    mask = np.array([[True, True, False, True, True], [True, False, False, True, False]])
    decay, state = jnp.array([0.9, 0.5]), abs(draw(2, 2, 2, 3, seed=4))
    few, values = k[:, :, :2], v[:, :, :2]
    one = q[:1, :, :2], k[:1, :, :2], v[:1, :, :2]
    rows = [
        (one, {}),
        (one, {"causal": True, "chunk": 2}),
        ((q, few, values, mask, decay, state), {"causal": True, "chunk": 3}),
        ((q[:, :2], few, values, mask, None, state), {}),
        ((q, few, values, None, decay), {
            "causal": True, "feature": "identity", "normalize": False}),
        (one, {"causal": True, "feature": "relu", "normalize": False, "chunk": 1}),
    ]  # fmt: skip
    assert_agrees(fn.linear_attention, linear_attention, rows)


@pytest.mark.parametrize("causal", some([False, True], (True,)))
def test_a_masked_key_may_be_anything(causal, x64):
    q, k, v = (draw(1, 4, 1, 2, seed=i) for i in range(3))
    k[0, 1] = np.nan
    mask = np.array([[True, False, True, True]])
    slopes = jax.grad(lambda k: fn.linear_attention(q, k, v, mask, causal=causal)[0].sum())(k)
    assert not slopes[0, 1].any()
    assert slopes[0, [0, 2]].all()


@pytest.mark.long
@pytest.mark.parametrize("causal", [False, True])
def test_values_of_no_numbers_still_have_weights(causal):
    q = jnp.ones((1, 4, 1, 2))
    y, state = fn.linear_attention(q, q, q[..., :0], causal=causal)
    assert (y.shape, state.shape) == ((1, 4, 1, 0), (1, 1, 2, 1))
    slopes = jax.grad(lambda v: fn.linear_attention(q, q, v, causal=causal)[0].sum())(q[..., :0])
    assert slopes.shape == (1, 4, 1, 0)


@pytest.mark.long
def test_linear_attention_without_keys_gives_0_and_gets_no_gradient():
    q, k, v = (draw(2, 3, 1, 2, seed=i).astype("float32") for i in range(3))
    mask = jnp.array([[False, True, True], [False] * 3])
    for causal in (False, True):
        f = partial(fn.linear_attention, mask=mask, causal=causal)
        (y, _), pull = jax.vjp(f, q, k, v)
        gradients = pull((jnp.ones_like(y), jnp.zeros((2, 1, 2, 3))))
        assert not y[1].any()
        assert not y[0, 0].any() or not causal
        assert not any(gradient[1].any() for gradient in gradients)
        assert all(np.isfinite(leaf).all() for leaf in (y, *gradients))


def selective_scan(x, delta, a, b, c, d=None, state=None, *, chunk=None):
    y, h = np.zeros_like(x), np.zeros((len(x), *a.shape)) if state is None else state.copy()
    for n, t, e in np.ndindex(x.shape):
        h[n, e] = np.exp(delta[n, t, e] * a[e]) * h[n, e] + delta[n, t, e] * b[n, t] * x[n, t, e]
        y[n, t, e] = c[n, t] @ h[n, e] + (0 if d is None else d[e] * x[n, t, e])
    return y, h


def scanned(batch=2, time=5, channels=3, states=2):
    x, delta = draw(2, batch, time, channels)
    b, c = draw(2, batch, time, states, seed=1)
    a = -np.exp(draw(channels, states, seed=2))
    return x, np.exp(delta - 1), a, b, c, draw(channels, seed=3), draw(batch, channels, states)


@values_of(fn.selective_scan)
@pytest.mark.usefixtures("x64")
def test_selective_scan_is_the_loop():
    args = scanned()
    rows = [(args, {"chunk": 2}), (args[:5], {}), (args[:6], {"chunk": 5}), (args, {"chunk": 1})]
    assert_agrees(fn.selective_scan, selective_scan, rows)


@pytest.mark.long
def test_a_chunk_longer_than_what_is_written_out(x64):
    args = scanned(time=45)
    for chunk in (16, 20, None):
        y, h = jax.jit(partial(fn.selective_scan, chunk=chunk))(*args)
        expected = selective_scan(*args)
        close(y, expected[0], rtol=1e-12, atol=1e-12)
        close(h, expected[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("wider", some(["delta", "a", "b", "c"], ("a",)))
def test_a_selective_scan_of_float32_with_one_array_of_float64(x64, wider):
    names = ("x", "delta", "a", "b", "c")
    given = dict(zip(names, scanned(), strict=False))
    args = [
        value.astype("float64" if name == wider else "float32") for name, value in given.items()
    ]
    y, pull = jax.vjp(lambda *args: fn.selective_scan(*args)[0], *args)
    close(y, selective_scan(*args)[0])
    assert [dx.dtype for dx in pull(y)] == [value.dtype for value in args]


@pytest.mark.long
def test_what_was_read_goes_on_from_its_state(x64):
    q, k, v = (draw(2, 9, 2, 3, seed=i) for i in range(3))
    x, delta, a, b, c, d, _ = scanned(time=9)

    def attended(part, state):
        inputs = (y[:, part] for y in (q, k, v))
        return fn.linear_attention(
            *inputs, None, jnp.array([0.5, 0.9]), state, causal=True, chunk=2
        )

    def run(part, state):
        return fn.selective_scan(
            *(y[:, part] for y in (x, delta)), a, b[:, part], c[:, part], d, state
        )

    for step in (attended, run):
        whole, last = step(slice(None), None)
        state, parts = None, []
        for part in (slice(0, 4), slice(4, 5), slice(5, 9)):
            y, state = step(part, state)
            parts.append(y)
        close(np.concatenate(parts, 1), whole, rtol=1e-12, atol=1e-12)
        close(state, last, rtol=1e-12, atol=1e-12)


@pytest.mark.long
def test_inside_shard_map(x64):
    """Where the sequences differ from device to device and the rest does not, the gradients too."""
    q, k, v = (draw(2, 5, 2, 3, seed=i) for i in range(3))
    x, delta, a, b, c, d, _ = scanned()
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec

    def attended(parts, shared):
        return fn.linear_attention(*parts, None, shared, causal=True, chunk=2)[0]

    def run(parts, shared):
        x, delta, b, c = parts
        return fn.selective_scan(x, delta, shared[0], b, c, shared[1])[0]

    rows = [(attended, (q, k, v), jnp.array([0.5, 0.9])), (run, (x, delta, b, c), (a, d))]
    for f, parts, shared in rows:

        def slopes(parts, shared, f=f):
            return jax.grad(lambda *args: (f(*args) ** 2).sum(), (0, 1))(parts, shared)

        over_devices = jax.shard_map(
            slopes, mesh=mesh, in_specs=(spec("d"), spec()), out_specs=(spec("d"), spec())
        )
        jax.tree.map(close, jax.jit(over_devices)(parts, shared), jax.jit(slopes)(parts, shared))


# Memory


def temporary_bytes(f, *shapes):
    shapes = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    gradient = jax.jit(jax.grad(lambda *args: f(*args)[0].sum(), tuple(range(len(shapes)))))
    return gradient.lower(*shapes).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.long
def test_memory_of_linear_attention_grows_as_the_sequence_does():
    f = partial(fn.linear_attention, causal=True)
    short, long = (temporary_bytes(f, *[(1, n, 2, 16)] * 3) for n in (1024, 4096))
    assert long < 4.2 * short
    assert long < 4096**2


@pytest.mark.long
def test_the_states_of_a_scan_are_never_all_there():
    def shapes(time):
        return [(1, time, 64)] * 2 + [(64, 16)] + [(1, time, 16)] * 2

    plain = temporary_bytes(fn.selective_scan.rule.primal, *shapes(1024))
    ours = temporary_bytes(fn.selective_scan, *shapes(1024))
    assert plain > 4 * 1024 * 64 * 16
    assert ours < plain / 6
    assert temporary_bytes(fn.selective_scan, *shapes(4096)) < 4.2 * ours


# Layers


def moved(net, *inputs):
    """Parameters of the shapes that `init` gives, none of them 0 or 1."""
    shapes, _ = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    filled = [
        jnp.asarray(0.3 * draw(*leaf.shape, seed=i), "float32")
        for i, leaf in enumerate(jax.tree.leaves(shapes))
    ]
    return jax.tree.structure(shapes).unflatten(filled)


def test_linear_attention_between_projections():
    net, x, context = fn.LinearAttention(4, kv_heads=2, width=8), draw(2, 5, 6), draw(2, 3, 7)
    x, context = x.astype("float32"), context.astype("float32")
    params, mask = moved(net, x, context), np.array([[True, False, True], [True] * 3])
    assert jax.tree.map(jnp.shape, params["k"]) == {"w": (7, 2, 2), "b": (2, 2)}

    def project(name, x):
        return np.einsum("btf,fhd->bthd", x, params[name]["w"]) + params[name]["b"]

    heads = project("q", x), project("k", context), project("v", context)
    y, _ = linear_attention(*heads, mask)
    expected = np.einsum("bthd,hdf->btf", y, params["out"]["w"]) + params["out"]["b"]
    close(jax.jit(net)(params, x, context, mask), expected)


LAYERS = {
    "linear attention": partial(fn.LinearAttention, 2, causal=True, chunk=2),
    "decay": partial(fn.LinearAttention, 2, causal=True, decay=(0.5, 0.9)),
    "state space": partial(fn.SelectiveSSM, states=3),
    "state space, one tap": partial(fn.SelectiveSSM, states=3, kernel=1),
}


@pytest.mark.parametrize("name", some(LAYERS, ("linear attention",)))
def test_decoding_gives_what_the_whole_sequence_gives_and_its_state_does_not_grow(name):
    net, cached = LAYERS[name](), LAYERS[name](cache=True)
    x = draw(2, 7, 8).astype("float32")
    params = moved(net, x)
    fresh, state = cached.init(jax.random.key(0), x[:, :1])
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, params)
    parts, sizes, step = [], jax.tree.map(jnp.shape, state), jax.jit(cached.apply)
    for start, stop in ((0, 2), (2, 3), (3, 4), (4, 7)):
        y, state = step(params, state, x[:, start:stop])
        assert jax.tree.map(jnp.shape, state) == sizes
        parts.append(y)
    assert state["index"] == 7
    close(np.concatenate(parts, axis=1), jax.jit(net)(params, x))


def test_a_state_space_model_is_the_block_of_the_paper():
    net, x = fn.SelectiveSSM(states=2, kernel=3, dt_rank=2), draw(2, 6, 3).astype("float32")
    params = moved(net, x)
    p = jax.tree.map(np.float64, params)

    def silu(x):
        return x / (1 + np.exp(-x))

    inner, z = np.split(x @ p["in_proj"]["w"], 2, axis=-1)
    padded = np.pad(inner, ((0, 0), (2, 0), (0, 0)))
    taps = p["conv"]["w"][:, 0]
    mixed = silu(sum(padded[:, i : i + 6] * taps[i] for i in range(3)) + p["conv"]["b"])
    low, b, c = np.split(mixed @ p["x_proj"]["w"], [2, 4], axis=-1)
    delta = np.log1p(np.exp(low @ p["dt_proj"]["w"] + p["dt_proj"]["b"]))
    y, _ = selective_scan(mixed, delta, -np.exp(p["a_log"]), b, c, p["d"])
    close(jax.jit(net)(params, x), (y * silu(z)) @ p["out_proj"]["w"])


@pytest.mark.long
def test_a_state_space_model_starts_as_the_paper_says(key):
    params, _ = fn.SelectiveSSM().init(key, jnp.zeros((1, 2, 64)))
    assert params["in_proj"]["w"].shape == (64, 256)
    assert params["dt_proj"]["w"].shape == (4, 128)
    close(-np.exp(params["a_log"]), -np.broadcast_to(np.arange(1, 17), (128, 16)))
    assert (params["d"] == 1).all()
    steps = np.log1p(np.exp(np.float64(params["dt_proj"]["b"])))
    assert steps.min() > 0.99e-3
    assert steps.max() < 0.101
    assert abs(np.log(steps).mean() - math.log(1e-2)) < 0.4


def test_weights_of_mamba_go_there_and_back():
    net, x = fn.SelectiveSSM(states=2), jnp.ones((1, 4, 3))
    params = moved(net, x)
    theirs = to_state_dict(net, params, {}, x, names=CONV)
    shapes = {name: array.shape for name, array in theirs.items()}
    assert shapes == {
        "A_log": (6, 2), "D": (6,), "conv1d.weight": (6, 1, 4), "conv1d.bias": (6,),
        "in_proj.weight": (12, 3), "x_proj.weight": (5, 6), "dt_proj.weight": (6, 1),
        "dt_proj.bias": (6,), "out_proj.weight": (3, 6),
    }  # fmt: skip
    again, _ = from_state_dict(net, theirs, x, names=CONV)
    jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.long
def test_a_state_space_model_is_the_mixer_of_the_library_transformers():
    """tests/data/make_families.py wrote its output and gradients; it computes in float32."""
    with np.load(Path(__file__).parent / "data" / "families.npz") as file:
        stored = {k.removeprefix("mixer/"): x for k, x in file.items() if k.startswith("mixer/")}
    shapes = json.loads(str(stored["shapes"]))
    theirs = {key: drawn(f"mixer/{key}", tuple(shape)) for key, shape in shapes.items()}
    net, x, names = fn.SelectiveSSM(states=4, dt_rank=2), jnp.asarray(STEPS, "float32"), CONV
    params, _ = from_state_dict(net, theirs, x, names=names)

    def probe(params):
        y = net(params, x)
        return (y * jnp.asarray(ripple(y.shape), y.dtype)).sum(), y

    gradients, y = jax.jit(jax.grad(probe, has_aux=True))(params)
    written = to_state_dict(net, gradients, {}, x, names=names)
    pairs = {"output": (y, stored["output"])}
    for key in theirs:
        at = places(key, written[key].size)
        pairs[key] = np.ravel(written[key])[at], stored[f"grad/{key}"]
    for key, (ours, expected) in pairs.items():
        error = np.abs(np.asarray(ours) - expected).max() / np.abs(expected).max()
        assert error <= 1e-5, f"{key}: {error:.1e}"


# Networks


def writer(mixer, cache=False):
    """A language model of one block whose mixer is this."""
    inner = fn.serial(fn.RMSNorm(), mixer(cache=cache))
    return fn.serial(fn.Embed(11, 8), block=fn.residual(inner), head=fn.Dense(11))


@pytest.mark.long
@pytest.mark.parametrize("name", ["linear attention", "state space"])
def test_sampling_gives_the_tokens_of_the_whole_sequence(name, key):
    net, cached = writer(LAYERS[name]), writer(LAYERS[name], cache=True)
    ids = jnp.array([[1, 4, 0], [2, 2, 3]])
    params = moved(net, ids)
    written = fn.nets.sample(cached, params, ids, 6, key, temperature=0.0)
    run = jax.jit(net)
    for _ in range(6):
        following = run(params, jnp.pad(ids, ((0, 0), (0, 9 - ids.shape[1]))))[:, ids.shape[1] - 1]
        ids = jnp.concatenate([ids, following.argmax(-1)[:, None]], 1)
    assert written.tolist() == ids[:, 3:].tolist()
    assert len(set(written.ravel().tolist())) > 1
    with pytest.raises(
        ValueError, match=r"^sample: expected a cache .*, got a net without a cache"
    ):
        fn.nets.sample(net, params, ids, 2, key)


def copying(random, batch=64, time=12, words=2):
    """Words among blanks (0), and as many marks (5); the targets are the words in their order."""
    x, y = np.zeros((batch, time + words), int), random.integers(1, 5, (batch, words))
    x[:, time:] = 5
    places = np.sort(random.permuted(np.tile(np.arange(time), (batch, 1)), axis=1)[:, :words])
    np.put_along_axis(x, places, y, axis=1)
    return jnp.asarray(x), jnp.asarray(y)


@pytest.mark.slow
@pytest.mark.long
def test_a_state_space_model_learns_selective_copying(key):
    """Gu & Dao, 2023, section 4.1.1: where the words stand differs from sequence to sequence."""
    random = np.random.default_rng(0)
    block = fn.residual(fn.serial(fn.RMSNorm(), fn.SelectiveSSM(states=8)))
    net = fn.serial(fn.Embed(6, 16), block=block, norm=fn.RMSNorm(), head=fn.Dense(5))
    last = fn.serial(net, lambda logits: logits[:, -2:])
    optimizer, metrics = optax.adam(1e-2), {"right": fn.accuracy}
    step = fn.make_step(last, fn.cross_entropy, optimizer, metrics=metrics)
    state = step.init(key, copying(random)[0])
    for _ in range(150):
        state, values = step.update(state, copying(random))
    assert values["right"] > 0.95
