"""Attention, its relatives and the networks made of it, against formulas written another way."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import funcnet as fn
from funcnet.nets.gpt import lm_loss
from funcnet.nets.sampling import sample
from funcnet.ops.sequences.one_query import one_query

from .values import assert_agrees, draw, values_of

GPT = partial(fn.nets.GPT, 11, width=8, depth=2, heads=2, length=12)


def close(a, b, tolerance=2e-5):
    np.testing.assert_allclose(a, b, tolerance, tolerance)


def moved(net, *inputs):
    """Parameters of the shapes that `init` gives, none of them 0 or 1; nothing is compiled."""
    shapes, _ = jax.eval_shape(net.init, jax.random.key(0), *inputs)

    def filled(path, leaf):
        start = 1 if path[-1].key == "scale" else 0
        return (start + 0.3 * draw(*leaf.shape, seed=leaf.size)).astype("float32")

    return jax.tree_util.tree_map_with_path(filled, shapes)


def run(net, *args):
    """The output of a network, compiled: far quicker here than one operation after another."""
    return np.asarray(jax.jit(net)(*args))


def weights(scores):
    e = np.exp(scores - scores.max())
    return e / e.sum()


# Ops


def attention(
    q, k, v, mask=None, bias=None, key=None, offset=0,
    *, causal=False, scale=None, chunk=None, window=(None, None), softcap=None,
):  # fmt: skip
    left, right = (1e9 if n is None else n for n in window)
    right = 0 if causal else right
    batch, time, heads, width = q.shape
    scale = width**-0.5 if scale is None else scale
    full = (batch, heads, time, k.shape[1])
    mask = np.broadcast_to(True if mask is None else mask, full)
    bias = np.broadcast_to(0.0 if bias is None else bias, full)
    o = np.zeros((*q.shape[:3], v.shape[3]))
    for n, t, h in np.ndindex(o.shape[:3]):
        group = h // (heads // k.shape[2])
        seen = [
            s for s in range(k.shape[1])
            if mask[n, h, t, s] and t + offset - left <= s <= t + offset + right
        ]  # fmt: skip
        if seen:
            z = np.array([scale * q[n, t, h] @ k[n, s, group] for s in seen])
            z = z if softcap is None else softcap * np.tanh(z / softcap)
            p = weights(z + bias[n, h, t, seen])
            o[n, t, h] = sum(p[i] * v[n, s, group] for i, s in enumerate(seen))
    return o


@values_of(fn.attention)
@pytest.mark.usefixtures("x64")
def test_attention_is_a_mean_weighted_by_softmax():
    q, k, v = (draw(2, 3, 2, 2, seed=i) for i in range(3))
    padding = np.arange(3) < np.array([3, 2])[:, None, None, None]
    nothing = np.array([[True, True, False], [False] * 3, [True] * 3])
    rows = [
        ((q, k, v), {}),
        ((q, k[:, :, :1], v[:, :, :1]), {"causal": True}),
        ((q, k, v, padding), {"causal": True, "chunk": 2}),
        ((q, k, v, nothing, draw(2, 1, 3)), {"scale": 0.3}),
        ((q, k[:, :2], v[:, :2, :, :1], None, draw(1, 3, 1)), {"chunk": 2}),
    ]
    assert_agrees(fn.attention, attention, rows)
    q, k, v = (draw(1, n, 2, 2, seed=n) for n in (5, 9, 9))
    assert_agrees(fn.attention, attention, [
        ((q, k, v, None, None, None, np.int32(4)), {"causal": True, "softcap": 0.7}),
        ((q, k, v), {"window": (1, 2), "chunk": 2}),
        ((q, k, v, None, None, None, np.int32(3)), {"window": (2, 0), "chunk": 3}),
        ((q, k, v, None, draw(2, 5, 9), None, np.int32(-3)), {"window": (0, 1), "chunk": 2}),
        ((q, k, v), {"window": (None, 1)}),
        ((q, k, v), {"window": (1, None), "causal": True, "chunk": 1}),
    ])  # fmt: skip


@values_of(fn.attention_weights)
def test_the_weights_of_attention_times_the_values_are_attention(x64):
    q, k, v = (draw(2, n, 4, 3, seed=n) for n in (3, 5, 5))
    bias, mask = draw(4, 1, 5), np.arange(5) != 2
    for options in ({"causal": True, "softcap": 2.0}, {"window": 1, "scale": 0.1}):
        p = fn.attention_weights(q, k[:, :, :2], mask, bias, 1, **options)
        y = jnp.einsum("bhts,bshd->bthd", p, jnp.repeat(v[:, :, :2], 2, axis=2))
        expected = fn.attention(q, k[:, :, :2], v[:, :, :2], mask, bias, None, 1, **options)
        close(y, expected, 1e-12)


@pytest.mark.long
def test_a_huge_window_and_a_small_unsigned_offset_count_right():
    q, v = jnp.zeros((1, 1, 1, 2)), jnp.arange(64.0).reshape(1, 64, 1, 1)
    k = jnp.zeros((1, 64, 1, 2))
    y = fn.attention(q, k, v, offset=jnp.uint8(2), causal=True, window=5)
    assert y.item() == 1
    for window in (2**31 - 1, 2**40):
        assert fn.attention(k, k, v, window=window).ravel().tolist() == [31.5] * 64


@pytest.mark.long
def test_memory_of_attention_grows_as_the_sequence_does_and_time_as_the_window():
    def compiled(time, **options):
        x = jax.ShapeDtypeStruct((1, time, 2, 16), "float32")

        def f(q, k, v):
            return fn.attention(q, k, v, causal=True, **options).sum()

        return jax.jit(jax.grad(f, (0, 1, 2))).lower(x, x, x).compile()

    def bytes_of(time):
        return compiled(time).memory_analysis().temp_size_in_bytes

    assert bytes_of(4096) < 2.3 * bytes_of(2048)
    assert bytes_of(4096) < 4 * 4096**2
    flops = [compiled(4096, window=w).cost_analysis()["flops"] for w in (None, 128)]
    assert flops[1] < flops[0] / 8


def test_who_may_attend_to_nothing_gives_0_and_gets_no_gradient():
    q, k, v = (draw(1, 3, 1, 2, seed=i).astype("float32") for i in range(3))
    row = np.arange(3)[:, None] != 1
    for mask, bias in ((row, None), (None, np.where(row, 0, -np.inf).astype("float32"))):
        for chunk in (None, 2):
            f = partial(fn.attention, mask=mask, bias=bias, chunk=chunk)
            o, pull = jax.vjp(f, q, k, v)
            gradients = pull(jnp.ones_like(o))
            assert not o[0, 1].any()
            assert not gradients[0][0, 1].any()
            assert all(np.isfinite(x).all() for x in (o, *gradients))


def test_dropout_of_attention_is_the_same_forward_backward_and_in_any_chunk(key):
    time, drop = 24, 0.25
    q = k = jnp.zeros((2, time, 2, 1))
    v = jnp.broadcast_to(jnp.eye(time)[:, None], (2, time, 2, time))  # the output is P itself

    @partial(jax.jit, static_argnames="chunk")
    def both(v, key, chunk=None):
        p, pull = jax.vjp(lambda v: fn.attention(q, k, v, key=key, drop=drop, chunk=chunk), v)
        return p, pull(jnp.ones_like(p))[0]

    p, dv = both(v, key)
    kept = np.asarray(p) > 0
    close(p, np.where(kept, 1 / time / (1 - drop), 0))
    assert abs(kept.mean() - (1 - drop)) < 0.03
    rows = kept.transpose(0, 2, 1, 3).reshape(-1, time)
    assert len(np.unique(rows, axis=0)) == len(rows)  # no two queries share a draw
    close(dv[..., 0], p.sum(1).swapaxes(1, 2))
    jax.tree.map(close, both(v, key, chunk=7), (p, dv))
    other, _ = both(v, jax.random.key(5, impl="rbg"))
    assert (np.asarray(other > 0) != kept).any()


def test_large_scores_do_not_overflow():
    q = k = jnp.array([1.0, -1.0]).reshape(1, 2, 1, 1)
    v = jnp.array([3.0, 5.0]).reshape(1, 2, 1, 1)
    assert fn.attention(q, k, v, scale=1e30).ravel().tolist() == [3, 5]


def rotary(
    x, positions=None, frequencies=None, angles=None,
    *, interleaved=False, base=10000.0, width=None,
):  # fmt: skip
    at = np.arange(x.shape[1]) if positions is None else positions
    half, y = (x.shape[3] if width is None else width) // 2, x.copy()
    if frequencies is None:
        frequencies = base ** (-np.arange(half) / half)
    if angles is None:
        angles = at[..., None] * frequencies
    half, turns = angles.shape[-1], np.exp(1j * angles[..., None, :])
    first, second = (slice(0, 2 * half, 2), slice(1, 2 * half, 2)) if interleaved else (
        slice(None, half), slice(half, 2 * half))  # fmt: skip
    turned = (x[..., first] + 1j * x[..., second]) * turns
    y[..., first], y[..., second] = turned.real, turned.imag
    return y


@values_of(fn.rotary)
@pytest.mark.usefixtures("x64")
def test_rotary_turns_pairs_as_complex_numbers():
    x = draw(2, 3, 1, 4)
    rows = [
        ((x,), {}),
        ((x,), {"interleaved": True, "base": 100.0}),
        ((x, np.array([4, 7, 9])), {}),
        ((x, np.array([[4, 7, 9], [0, 1, 5]])), {}),
        ((x,), {"width": 2}),
        ((draw(2, 3, 2, 7),), {"width": 4, "interleaved": True}),
    ]
    assert_agrees(fn.rotary, rotary, rows)


@pytest.mark.usefixtures("x64")
def test_rotary_by_own_frequencies_and_angles_which_are_constants():
    x, at, own = draw(2, 3, 1, 5), np.array([1, 5, 6]), np.array([1.5, 0.2])
    for options in ({}, {"interleaved": True}, {"width": 4}):
        expected = rotary(x, at, own, **options)
        close(fn.rotary(x, at, own, **options), expected, 1e-12)
        angles = at[:, None] * own
        close(fn.rotary(x, None, None, angles, **options), expected, 1e-12)
        close(fn.rotary(x, None, None, np.stack([angles] * 2), **options), expected, 1e-12)
    slopes = jax.grad(lambda own: fn.rotary(x, at, own).sum())(jnp.asarray(own))
    assert not slopes.any()


def test_frequencies_of_llama_3(x64):
    """As its published configuration has them: a head of 128, base 500000, factor 8 and so on."""
    plain = fn.rotary_frequencies(128, base=500000.0)
    close(plain, 500000.0 ** (-np.arange(0, 128, 2) / 128), 1e-12)
    expected = []
    for f in np.asarray(plain):
        wavelength = 2 * np.pi / f
        if wavelength < 8192 / 4:
            expected.append(f)
        elif wavelength > 8192 / 1:
            expected.append(f / 8)
        else:
            share = (8192 / wavelength - 1) / (4 - 1)
            expected.append((1 - share) * f / 8 + share * f)
    close(fn.llama3_frequencies(plain), expected, 1e-12)


def test_the_product_of_turned_vectors_depends_on_their_distance_alone():
    q, k = (jnp.broadcast_to(draw(1, 1, 1, 6, seed=i), (1, 9, 1, 6)) for i in (0, 1))
    products = np.einsum("bthd,bshd->ts", fn.rotary(q), fn.rotary(k))
    for distance in range(-8, 9):
        line = np.diagonal(products, distance)
        close(line, line[0], 1e-4)


def gated(gate):
    return lambda x, a, b, c: (gate(x @ a) * (x @ b)) @ c


@values_of(fn.swiglu, fn.geglu)
@pytest.mark.usefixtures("x64")
def test_gated_blocks():
    args = (draw(2, 2, 3), draw(3, 4, seed=1), draw(3, 4, seed=2), draw(4, 2, seed=3))
    assert_agrees(fn.swiglu, gated(lambda g: g * special.expit(g)), [(args, {})])
    assert_agrees(fn.geglu, gated(lambda g: g * special.ndtr(g)), [(args, {})])


def linear_cross_entropy(
    x, w, labels, *, chunk=256, ignore_index=None, label_smoothing=0.0, z_loss=0.0,
    reduction="mean", transposed=False,
):  # fmt: skip
    losses, count = np.zeros(labels.shape), 0
    for at in np.ndindex(labels.shape):
        if labels[at] == ignore_index:
            continue
        z = x[at] @ (w.T if transposed else w)
        lse = special.logsumexp(z)
        target = (1 - label_smoothing) * np.eye(len(z))[labels[at]] + label_smoothing / len(z)
        losses[at] = target @ (lse - z) + z_loss * lse**2
        count += 1
    by_name = {"mean": losses.sum() / max(count, 1), "sum": losses.sum(), "none": losses}
    return by_name[reduction]


@values_of(fn.linear_cross_entropy)
@pytest.mark.usefixtures("x64")
def test_linear_cross_entropy():
    x, w, labels = draw(2, 3, 2), draw(2, 4, seed=1), np.array([[1, 0, 3], [2, -1, 0]])
    options = {"ignore_index": -1, "label_smoothing": 0.1, "z_loss": 0.2}
    rows = [
        ((x, w, abs(labels)), {}),
        ((x, w, labels), {"chunk": 4, **options}),
        ((x, w.T, labels), {"chunk": 2, "transposed": True, "reduction": "sum", **options}),
        ((x, w, labels), {"chunk": 4, "reduction": "none", **options}),
        ((x, w, np.full((2, 3), 9)), {"ignore_index": 9}),
    ]
    assert_agrees(fn.linear_cross_entropy, linear_cross_entropy, rows)


@pytest.mark.long
def test_linear_cross_entropy_is_that_of_the_logits():
    x, w = draw(7, 4).astype("float32"), 50 * draw(4, 9, seed=1).astype("float32")
    labels = jnp.array([0, 8, 3, 3, 1, 7, 2])
    options = {"ignore_index": 3, "label_smoothing": 0.1}

    def plain(x, w):
        return fn.cross_entropy(x @ w, labels, **options)

    def fused(x, w):
        return fn.linear_cross_entropy(x, w, labels, chunk=2, **options)

    expected, got = (jax.value_and_grad(f, argnums=(0, 1))(x, w) for f in (plain, fused))
    jax.tree.map(close, got, expected)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_traced_label_out_of_range_gives_nan(reduction):
    x, w = jnp.ones((2, 3)), jnp.ones((3, 4))
    f = jax.jit(lambda x, labels: fn.linear_cross_entropy(x, w, labels, reduction=reduction).sum())
    loss, gradient = jax.value_and_grad(f)(x, jnp.array([1, 4]))
    assert np.isnan(loss)
    assert np.isnan(gradient[1]).all()
    assert np.isfinite(jax.grad(f)(x, jnp.array([1, 3]))).all()


def test_what_is_ignored_may_hold_anything():
    x = jnp.array([[1.0, 2.0], [jnp.nan, jnp.inf]])
    f = partial(fn.linear_cross_entropy, labels=jnp.array([1, -1]), ignore_index=-1)
    loss, gradients = jax.value_and_grad(f, argnums=(0, 1))(x, jnp.ones((2, 3)))
    assert all(np.isfinite(leaf).all() for leaf in (loss, *gradients))


# Memory


def temporary_bytes(f, *args):
    return jax.jit(f).lower(*args).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_attention_in_chunks_takes_a_sixth_of_the_memory():
    shape = jax.ShapeDtypeStruct((1, 1024, 8, 32), "float32")

    def naive(x):
        p = jax.nn.softmax(jnp.einsum("bthd,bshd->bhts", x, x))
        return jnp.einsum("bhts,bshd->bthd", p, x)

    def layers(f):
        def loss(x):
            for _ in range(4):
                x = x + f(x)
            return x.sum()

        return jax.grad(loss)

    plain = temporary_bytes(layers(naive), shape)
    assert plain >= 6 * temporary_bytes(layers(lambda x: fn.attention(x, x, x, chunk=64)), shape)


@pytest.mark.slow
def test_a_loss_without_logits_takes_an_eighth_of_the_memory():
    x, w = (jax.ShapeDtypeStruct(shape, "float32") for shape in ((4096, 32), (32, 4000)))
    labels = jax.ShapeDtypeStruct((4096,), "int32")

    def naive(x, w, labels):
        log_p = jax.nn.log_softmax(x @ w)
        return -jnp.take_along_axis(log_p, labels[:, None], axis=1).mean()

    fused = partial(fn.linear_cross_entropy, chunk=128)
    plain, ours = (temporary_bytes(jax.grad(f, (0, 1)), x, w, labels) for f in (naive, fused))
    assert plain >= 8 * ours


# Layers


def project(params, x):
    return np.einsum("btf,fhd->bthd", x, params["w"]) + params.get("b", 0)


def by_hand(params, x, context=None, mask=None, turn=lambda x: x, **options):
    source = x if context is None else context
    q, k, v = (project(params[name], y) for name, y in (("q", x), ("k", source), ("v", source)))
    o = attention(turn(q), turn(k), v, mask, **options)
    return np.einsum("bthd,hdf->btf", o, params["out"]["w"]) + params["out"].get("b", 0)


def test_the_base_of_rotary_reaches_the_op():
    net, x = fn.Attention(2, rotary=True, rotary_base=50.0), draw(2, 4, 8).astype("float32")
    params = moved(net, x)
    close(run(net, params, x), by_hand(params, x, turn=partial(rotary, base=50.0)))


@pytest.mark.long
@pytest.mark.parametrize(
    ("layer", "op"),
    [
        ({"rotary_width": 2}, {"width": 2}),
        ({"rotary_frequencies": np.array([0.5])}, {"frequencies": np.array([0.5])}),
    ],
)
def test_the_options_of_rotary_reach_the_op_from_the_whole_network(ids, layer, op):
    x = draw(2, 4, 8).astype("float32")
    net = fn.Attention(2, causal=True, rotary=True, **layer)
    params = moved(net, x)
    close(run(net, params, x), by_hand(params, x, causal=True, turn=partial(rotary, **op)))
    whole, plain = GPT(rotary=True, **layer), GPT(rotary=True)
    params = moved(whole, ids)
    assert abs(run(whole, params, ids) - run(plain, params, ids)).max() > 1e-4


def test_self_attention():
    net, x = fn.Attention(2), draw(2, 4, 6).astype("float32")
    params = moved(net, x)
    shapes = jax.tree.map(jnp.shape, params)
    inner = {"w": (6, 2, 3), "b": (2, 3)}
    assert shapes == {"q": inner, "k": inner, "v": inner, "out": {"w": (2, 3, 6), "b": (6,)}}
    close(run(net, params, x), by_hand(params, x))
    mask = np.arange(4) < np.array([4, 2])[:, None, None, None]
    close(run(net, params, x, mask), by_hand(params, x, mask=mask))


def test_attention_with_fewer_key_heads_turned_and_causal():
    net = fn.Attention(4, kv_heads=2, width=16, causal=True, rotary=True, bias=False, chunk=2)
    x = draw(2, 5, 6).astype("float32")
    params = moved(net, x)
    assert params["k"] == {"w": params["k"]["w"]}
    assert [params[name]["w"].shape for name in ("q", "k", "out")] == [
        (6, 4, 4),
        (6, 2, 4),
        (4, 4, 6),
    ]
    close(run(net, params, x), by_hand(params, x, causal=True, turn=rotary))


def test_cross_attention():
    net, x, context = fn.Attention(2), draw(2, 4, 6), draw(2, 3, 5)
    x, context = x.astype("float32"), context.astype("float32")
    params = moved(net, x, context)
    assert params["v"]["w"].shape == (5, 2, 3)
    close(run(net, params, x, context), by_hand(params, x, context))
    mask = np.array([True, False, True])
    close(run(net, params, x, context, mask), by_hand(params, x, context, mask))


def test_attention_drops_in_training_alone(key):
    net, x = fn.Attention(2, drop=0.5), draw(1, 4, 6).astype("float32")
    params = moved(net, x)
    close(run(net, params, x), by_hand(params, x))
    y = run(lambda params: net.apply(params, {}, x, train=True, key=key)[0], params)
    assert abs(y - by_hand(params, x)).max() > 0.01
    with pytest.raises(ValueError, match=r"^attention: expected a random key in training, got"):
        net.apply(params, {}, x, train=True)


@pytest.mark.parametrize("turned", [False, True])
def test_decoding_with_a_cache_gives_what_the_whole_sequence_gives(turned):
    options = {"causal": True, "rotary": turned, "kv_heads": 1}
    x = draw(2, 6, 8).astype("float32")
    net, cached = fn.Attention(2, **options), fn.Attention(2, cache=7, **options)
    params = moved(net, x)
    fresh, state = cached.init(jax.random.key(0), x[:, :1])
    assert jax.tree.map(jnp.shape, fresh) == jax.tree.map(jnp.shape, params)
    assert state["k"].shape == (2, 7, 4)  # (batch · key heads, tokens, width of a head)
    assert state["index"] == 0
    parts, step = [], jax.jit(cached.apply)
    for start, stop in ((0, 2), (2, 3), (3, 4), (4, 6)):
        y, state = step(params, state, x[:, start:stop])
        parts.append(y)
    assert state["index"] == 6
    close(np.concatenate(parts, axis=1), run(net, params, x))


def test_one_query_of_a_cache_gives_what_the_op_gives():
    q, k, v = draw(2, 1, 4, 3), draw(2, 6, 2, 3, seed=1), draw(2, 6, 2, 5, seed=2)
    kept = [jnp.asarray(x).swapaxes(1, 2).reshape(4, 6, -1) for x in (k, v)]
    mask = np.arange(6) != np.array([1, 2, 3, 0]).reshape(1, 4, 1, 1)
    for seen, options in ((None, {}), (mask, {"window": 2, "softcap": 1.5})):
        expected = fn.attention(q, k, v, seen, None, None, jnp.array(3), causal=True, **options)
        close(one_query(jnp.asarray(q), *kept, seen, jnp.array(3), **options), expected)


def test_a_full_cache_gives_nan_where_nobody_can_look_at_it():
    net, x = fn.Attention(2, causal=True, cache=3), draw(1, 2, 4).astype("float32")
    params, state = net.init(jax.random.key(0), x)
    step = jax.jit(net.apply)
    y, state = step(params, state, x)
    assert np.isfinite(y).all()
    assert np.isnan(step(params, state, x)[0]).all()


def normalised(params, x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * params[
        "scale"
    ] + params["shift"]


def feed_forward(params, x):
    z = x @ params["up"]["w"] + params["up"]["b"]
    return z * special.ndtr(z) @ params["down"]["w"] + params["down"]["b"]


def test_transformer_blocks():
    x = draw(2, 4, 6).astype("float32")
    first, last = fn.TransformerBlock(2), fn.TransformerBlock(2, norm_first=False)
    p = jax.tree.map(np.asarray, moved(first, x))
    assert p["mlp"]["up"]["w"].shape == (6, 24)
    y = x + by_hand(p["attention"], normalised(p["norm1"], x))
    close(run(first, p, x), y + feed_forward(p["mlp"], normalised(p["norm2"], y)), 1e-4)
    y = normalised(p["norm1"], x + by_hand(p["attention"], x))
    close(run(last, p, x), normalised(p["norm2"], y + feed_forward(p["mlp"], y)), 1e-4)
    mask = np.array([True, True, False, False])
    assert abs(run(first, p, x, mask) - run(first, p, x)).max() > 0.01


@pytest.mark.parametrize(
    ("activation", "curve"),
    [("relu_squared", lambda z: np.maximum(z, 0) ** 2), (jnp.sin, np.sin)],
)
def test_feed_forward_with_other_activations(activation, curve):
    net, x = fn.FeedForward(5, activation=activation, bias=False), draw(3, 4).astype("float32")
    params = moved(net, x)
    close(run(net, params, x), curve(x @ params["up"]["w"]) @ params["down"]["w"])


def test_gated_feed_forward():
    net, x = fn.FeedForward(5, activation="geglu"), draw(3, 4).astype("float32")
    params = moved(net, x)
    w = [params[name]["w"] for name in ("gate", "up", "down")]
    close(run(net, params, x), gated(lambda g: g * special.ndtr(g))(x, *w))


# Networks


@pytest.fixture
def ids():
    return jnp.array([[1, 4, 0, 10, 3], [2, 2, 3, 9, 5]])


@pytest.mark.slow
@pytest.mark.long
def test_a_translation_sees_the_whole_source_and_no_target_ahead(key):
    build = partial(fn.nets.EncoderDecoder, 7, width=8, depth=1, heads=2, length=6)
    net, writer = build(source_vocabulary=5), build(source_vocabulary=5, cache=True)
    source, target = jnp.array([[1, 2, 3], [4, 0, 2]]), jnp.array([[0, 1, 2, 3], [0, 4, 5, 6]])
    params = moved(net, source, target)
    assert params["source_tokens"]["table"].shape == (5, 8)
    logits = run(net, params, source, target)
    changed = run(net, params, source.at[:, 2].set(0), target)
    assert (np.abs(logits - changed) > 1e-4).any(-1).all()
    changed = run(net, params, source, target.at[:, 2].set(0))
    close(changed[:, :2], logits[:, :2])
    assert (changed[:, 2] != logits[:, 2]).any()

    filled = jnp.pad(source, ((0, 0), (0, 2)), constant_values=3)
    mask = jnp.arange(5) < jnp.array([[3], [3]])
    close(run(net, params, filled, target, mask), logits)
    read = run(net, params, source)
    close(run(net, params, read, target), logits)

    written = sample(
        writer, params, target[:, :1], 5, key, temperature=0.0, source=filled, mask=mask
    )
    so_far = target[:, :1]
    for _ in range(5):
        following = run(net, params, source, so_far)[:, -1].argmax(-1)
        so_far = jnp.concatenate([so_far, following[:, None]], 1)
    assert (written == so_far[:, 1:]).all()


@pytest.mark.long
def test_a_decoder_block_is_three_branches():
    x, context = draw(2, 3, 4).astype("float32"), draw(2, 5, 6, seed=1).astype("float32")
    seen = np.arange(5)[None, None, None] < np.array([5, 2])[:, None, None, None]
    block = fn.TransformerBlock(2, causal=True, cross=True)
    params = moved(block, x, context)
    part = lambda layer, name, *inputs: layer(params[name], *inputs)  # noqa: E731
    norm = fn.LayerNorm()
    y = x + part(fn.Attention(2, causal=True), "attention", part(norm, "norm1", x))
    z = y + part(fn.Attention(2), "cross", part(norm, "norm_cross", y), context, seen)
    z = z + part(fn.FeedForward(), "mlp", part(norm, "norm2", z))
    close(run(block, params, x, context, seen), z)


@pytest.mark.long
def test_gpt_sees_no_token_ahead_and_ties_its_head(ids):
    net = GPT()
    params = moved(net, ids)
    assert sorted(params) == ["block_0", "block_1", "norm", "positions", "tokens"]
    logits, later = (run(net, params, x) for x in (ids, ids.at[:, 3].set(7)))
    close(later[:, :3], logits[:, :3])
    assert (abs(later[:, 3:] - logits[:, 3:]).max(-1) > 1e-4).all()
    features, table = jax.jit(GPT(logits=False))(params, ids)
    np.testing.assert_array_equal(table, params["tokens"]["table"])
    close(features @ table.T, logits)
    started = net.init(jax.random.key(0), ids)[0]["block_0"]
    spread = [np.std(started["mlp"][name]["w"]) for name in ("up", "down")]
    close(spread, [0.02, 0.02 / 2], 0.2)  # the branches of two blocks: four


@pytest.mark.long
def test_gpt_with_a_head_of_its_own(ids):
    net = GPT(tied=False)
    params = moved(net, ids)
    features, table = jax.jit(GPT(logits=False, tied=False))(params, ids)
    np.testing.assert_array_equal(table, params["head"]["table"])
    close(run(net, params, ids), features @ table.T)
    rest = {name: params[name] for name in params if name != "head"}
    close(features, jax.jit(GPT(logits=False))(rest, ids)[0])


@pytest.mark.long
def test_gpt_with_stacked_blocks_is_the_same(ids):
    net, stacked = GPT(), GPT(stacked=True)
    params = moved(net, ids)
    blocks = jax.tree.map(lambda *leaves: np.stack(leaves), params["block_0"], params["block_1"])
    same = {name: params[name] for name in ("tokens", "positions", "norm")} | {"blocks": blocks}
    close(run(stacked, same, ids), run(net, params, ids))


@pytest.mark.long
def test_the_loss_without_logits_is_that_of_the_logits(ids):
    labels = jnp.roll(ids, -1, axis=1)
    params = moved(GPT(), ids)

    def plain(params):
        return fn.cross_entropy(GPT()(params, ids), labels)

    def fused(params):
        return lm_loss(GPT(logits=False)(params, ids), labels, chunk=4)

    expected, got = (jax.jit(jax.value_and_grad(f))(params) for f in (plain, fused))
    jax.tree.map(close, got, expected)


@pytest.mark.long
@pytest.mark.parametrize("options", [{"rotary": True, "norm": fn.RMSNorm}, {"stacked": True}])
def test_sampling_with_a_cache_gives_the_tokens_of_the_whole_sequence(ids, key, options):
    net, cached = GPT(**options), GPT(cache=True, **options)
    params = moved(net, ids)
    choose = jax.jit(jax.random.categorical)
    for temperature in (0.0, 2.0):
        got = sample(cached, params, ids[:, :4], 8, key, temperature=temperature)
        sequence = np.zeros((2, 12), "int32")
        sequence[:, :4] = ids[:, :4]
        for at, draw_key in enumerate(jax.random.split(key, 8), 4):
            logits = run(net, params, sequence)[:, at - 1]
            drawn = choose(draw_key, logits / max(temperature, 1))
            sequence[:, at] = drawn if temperature else logits.argmax(-1)
        assert got.tolist() == sequence[:, 4:].tolist()
        assert len(set(got.ravel().tolist())) > 1


@pytest.mark.long
def test_sampling_from_the_likeliest(ids, key):
    net = fn.nets.GPT(11, width=8, depth=1, heads=2, length=5, cache=True, logits=False)
    params = moved(net, ids)
    prompts = jnp.tile(ids[:1], (200, 1))
    many = sample(net, params, prompts, 1, key, temperature=9.0, top_k=3)
    plain = fn.nets.GPT(11, width=8, depth=1, heads=2, length=5)
    order = np.argsort(-run(plain, params, ids)[0, -1])
    assert set(many.ravel().tolist()) == set(order[:3].tolist())


@pytest.mark.long
def test_more_than_the_vocabulary_to_draw_from_is_all_of_it(ids, key):
    net = fn.nets.GPT(11, width=8, depth=1, heads=2, length=8, cache=True)
    params = moved(net, ids)
    prompt = ids[:, :4]
    every = sample(net, params, prompt, 3, key)
    assert sample(net, params, prompt, 3, key, top_k=99).tolist() == every.tolist()
    assert set(every.ravel().tolist()) <= set(range(11))


@pytest.mark.long
def test_a_prompt_that_is_traced_or_empty_is_not_looked_at(ids, key):
    net = fn.nets.GPT(11, width=8, depth=1, heads=2, length=8, cache=True)
    params = moved(net, ids)
    draw_one = jax.jit(lambda prompt: sample(net, params, prompt, 1, key))
    assert draw_one(ids[:, :4] + 11).shape == (2, 1)
    assert sample(net, params, ids[:0, :4], 2, key).shape == (0, 2)


@pytest.mark.long
@pytest.mark.parametrize("pool", ["token", "mean"])
def test_vit_is_a_transformer_over_patches(pool):
    options = {"patch": 4, "width": 8, "depth": 2, "heads": 2}
    net, images = fn.nets.ViT(3, pool=pool, **options), draw(2, 8, 12, 2).astype("float32")
    p = moved(net, images)
    tokens = images.reshape(2, 2, 4, 3, 4, 2).transpose(0, 1, 3, 2, 4, 5).reshape(2, 6, 32)
    x = tokens @ p["patches"]["w"].reshape(32, 8) + p["patches"]["b"]
    if pool == "token":
        x = np.concatenate([np.tile(p["token"]["token"], (2, 1, 1)), x], axis=1)
    x, block = x + p["positions"]["table"], fn.TransformerBlock(2)
    for name in ("block_0", "block_1"):
        x = run(block, p[name], x)
    x = normalised(p["norm"], x)
    pooled = x[:, 0] if pool == "token" else x.mean(1)
    close(run(net, p, images), pooled @ p["head"]["w"] + p["head"]["b"], 1e-4)


@pytest.mark.long
def test_a_pool_looks_at_tokens_alone(x64):
    x, net = draw(2, 5, 6), fn.AttentionPool(2)
    mask = np.arange(5) < np.array([[5], [3]])
    params, _ = net.init(jax.random.key(0), x)
    x[1, 3:] = np.nan
    y, gradient = jax.value_and_grad(lambda x: jnp.square(net(params, x, mask)).sum())(x)
    alone = sum(jnp.square(net(params, part)).sum() for part in (x[:1], x[1:, :3]))
    close(y, alone, 1e-12)
    assert not gradient[1, 3:].any()
    assert gradient[1, :3].all()
    nothing = net(params, x[:1], np.zeros((1, 5), bool))
    close(nothing[0], params["attention"]["out"]["b"], 0)
