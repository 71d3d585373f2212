"""Transposed and depthwise convolution, and the networks of convolutions."""

import functools
import itertools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn

from .rows_convs import TIMED, UNET
from .values import computed, draw, ripple, values_of


def shapes(tree):
    return jax.tree.map(jnp.shape, tree)


def count(net, *shape):
    """The number of parameters for images of this shape; nothing is allocated."""
    image = jax.ShapeDtypeStruct(shape, "float32")
    params, _ = jax.eval_shape(net.init, jax.random.key(0), image)
    return sum(leaf.size for leaf in jax.tree.leaves(params))


# Transposed convolution


def pairs(padding, axes):
    entries = padding if isinstance(padding, tuple) else (padding,) * axes
    return [entry if isinstance(entry, tuple) else (entry, entry) for entry in entries]


def each(number, axes):
    return number if isinstance(number, tuple) else (number,) * axes


def spread_by_loops(x, w, b, *, stride=1, padding=0, output_padding=0, dilation=1, groups=1):
    """y, and the cotangents of x, w and b where that of y is its `ripple`: each number of x is put
    down, times the kernel, into an image that knows no padding, which is then cut to size."""
    axes, kernel = x.ndim - 2, w.shape[:-2]
    steps, spreads, extra = each(stride, axes), each(dilation, axes), each(output_padding, axes)
    sizes = [
        (n - 1) * s + d * (k - 1) + 1 + more
        for n, s, d, k, more in zip(x.shape[1:-1], steps, spreads, kernel, extra, strict=True)
    ]
    window = (
        slice(None),
        *(slice(low, n - high) for n, (low, high) in zip(sizes, pairs(padding, axes), strict=True)),
    )
    outputs = w.shape[-2] * groups
    full = np.zeros((len(x), *sizes, outputs))
    y = full[window]
    dfull, dx, dw = np.zeros(full.shape), np.zeros_like(x), np.zeros_like(w)
    dy = dfull[window]
    dy[...] = ripple(dy.shape)
    of, to = x.shape[-1] // groups, w.shape[-2]
    places = itertools.product(np.ndindex(*x.shape[1:-1]), np.ndindex(*kernel), range(groups))
    for at, tap, g in places:
        out = tuple(s * i + d * t for s, i, d, t in zip(steps, at, spreads, tap, strict=True))
        here = (slice(None), *at, slice(g * of, (g + 1) * of))
        there = (slice(None), *out, slice(g * to, (g + 1) * to))
        part = (*tap, slice(None), here[-1])
        full[there] += x[here] @ w[part].T
        dx[here] += dfull[there] @ w[part]
        dw[part] += dfull[there].T @ x[here]
    if b is None:
        return y, (dx, dw)
    return y + b, (dx, dw, dy.sum(tuple(range(dy.ndim - 1))))


TRANSPOSED: list = [
    ((2, 4, 3, 3), (3, 2, 2, 3), {}),
    ((1, 3, 4, 8), (4, 4, 7, 8), {"stride": 2, "padding": 1}),
    ((1, 3, 4, 3), (3, 3, 2, 3), {"stride": 2, "padding": 1, "output_padding": 1}),
    ((1, 3, 2, 3), (2, 3, 2, 3), {"stride": (3, 2), "output_padding": (2, 0)}),
    ((1, 4, 3, 3), (3, 2, 2, 3), {"stride": 2, "dilation": (2, 3), "padding": ((3, 0), 1)}),
    ((1, 3, 4, 6), (3, 2, 2, 6), {"groups": 3, "stride": 2}),
    ((1, 3, 4, 4), (4, 4, 1, 4), {"groups": 4, "stride": 2, "padding": 1}),
    ((1, 2, 3, 5), (1, 1, 4, 5), {}),
    ((1, 2, 3, 5), (1, 1, 4, 5), {"stride": 2, "output_padding": 1}),
    ((2, 5, 3), (4, 2, 3), {"stride": 2, "padding": 1}),
    ((1, 2, 3, 2, 3), (2, 3, 2, 2, 3), {"stride": (1, 2, 2), "padding": (0, 1, 0)}),
]


@values_of(fn.conv_transpose)
@pytest.mark.usefixtures("x64")
def test_conv_transpose_puts_the_kernel_down_at_each_place():
    rows = []
    for i, (image, kernel, static) in enumerate(TRANSPOSED):
        outputs = kernel[-2] * static.get("groups", 1)
        bias = draw(outputs, seed=2) if i % 2 else None
        rows.append(((draw(*image), draw(*kernel, seed=1), bias), static))
    for (args, static), (y, gradients) in zip(rows, computed(fn.conv_transpose, rows), strict=True):
        expected, by_loops = spread_by_loops(*args, **static)
        np.testing.assert_allclose(y, expected, 1e-11, 1e-12, err_msg=f"{static}")
        for a, b in zip(gradients, by_loops, strict=True):
            np.testing.assert_allclose(a, b, 1e-11, 1e-12, err_msg=f"{static}")


@pytest.mark.usefixtures("x64")
def test_conv_transpose_is_the_adjoint_of_conv():
    """For all u and v, (conv u) · v = u · (conv_transpose v), whichever size of u it makes."""
    w = jnp.asarray(draw(3, 2, 4, 6))
    options = {"stride": (3, 2), "padding": ((1, 2), (0, 1)), "dilation": (1, 2)}
    for extra in ((0, 0), (2, 1)):
        v = jnp.asarray(draw(2, 3, 4, 6, seed=1))
        back = fn.conv_transpose(v, w, **options, output_padding=extra)
        u = jnp.asarray(draw(*back.shape, seed=2))
        there = fn.conv(u, w, **options)
        assert there.shape == v.shape
        np.testing.assert_allclose(jnp.vdot(there, v), jnp.vdot(u, back), 1e-12)


def test_conv_transpose_promotes_its_arguments():
    x, w = jnp.array([1.0, 2.0])[None, :, None], jnp.array([1.0, 10.0, 100.0])[:, None, None]
    assert fn.conv_transpose(x, w, stride=2)[0, :, 0].tolist() == [1, 10, 102, 20, 200]
    low = fn.conv_transpose(x.astype("bfloat16"), w.astype("bfloat16"), jnp.ones(1))
    assert low.dtype == jnp.float32
    assert fn.conv_transpose(x.astype("bfloat16"), w.astype("bfloat16")).dtype == jnp.bfloat16


def test_numbers_of_numpy_are_whole_too():
    two = np.int64(2)
    x, w = jnp.asarray(draw(2, 6, 6, 4)), jnp.asarray(draw(3, 3, 2, 4, seed=1))
    for op in (fn.conv, fn.conv_transpose):
        for options in ({"groups": two}, {"groups": two, "stride": two, "padding": ((two, 1), 1)}):
            plain = jax.tree.map(int, options)
            slopes = [
                jax.grad(lambda w, op=op, given=given: (op(x, w, **given) ** 2).sum())(w)
                for given in (options, plain)
            ]
            np.testing.assert_array_equal(*slopes)


# What runs on the CPU


GROUPED: list = [
    ((2, 7, 6, 4), (3, 2, 1, 4), {"groups": 4, "padding": ((3, 1), (0, 2)), "dilation": (2, 1)}),
    ((1, 6, 7, 3), (3, 3, 1, 6), {"groups": 3, "stride": (2, 3), "padding": 1}),
    ((3, 9, 2), (3, 1, 2), {"groups": 2, "padding": "CAUSAL", "dilation": 2}),
    ((2, 3, 4, 3, 2), (2, 2, 2, 1, 2), {"groups": 2, "stride": (1, 2, 1)}),
    ((2, 5, 5, 6), (3, 3, 3, 4), {"groups": 2, "stride": 2, "padding": 1}),
    ((2, 7, 6, 3), (1, 1, 3, 4), {"stride": (3, 2)}),
]


def by_groups(x, w, *, groups=1, **options):
    """One convolution for each group, as XLA has it."""
    parts = zip(jnp.split(x, groups, -1), jnp.split(w, groups, -1), strict=True)
    return jnp.concatenate([fn.conv.rule.primal(*part, **options) for part in parts], -1)


@values_of(fn.conv)
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("image", "kernel", "options"), GROUPED)
def test_groups_are_convolutions_side_by_side(image, kernel, options):
    x, w = jnp.asarray(draw(*image)), jnp.asarray(draw(*kernel, seed=1))

    @jax.jit
    def both(x, w):
        pulls = [jax.vjp(lambda x, w, f=f: f(x, w, **options), x, w) for f in (fn.conv, by_groups)]
        return [(y, *pull(jnp.asarray(ripple(y.shape)))) for y, pull in pulls]

    for ours, expected in zip(*both(x, w), strict=True):
        np.testing.assert_allclose(ours, expected, 1e-11, 1e-12)


def lowered(platform, image, kernel, **options):
    """The gradient of a convolution, as it is handed to the compiler of a platform."""

    def gradients(x, w):
        y, pull = jax.vjp(lambda x, w: fn.conv(x, w, **options), x, w)
        return pull(y)

    shapes = (jax.ShapeDtypeStruct(shape, "float32") for shape in (image, kernel))
    exported = jax.export.export(jax.jit(gradients), platforms=[platform])(*shapes)
    return exported.mlir_module().count("stablehlo.convolution")


@pytest.mark.parametrize(
    ("kernel", "options", "on_the_cpu"),
    [
        ((3, 3, 1, 8), {"groups": 8}, 0),  # multiply-adds
        ((3, 3, 4, 8), {"groups": 2}, 4),  # the kernel's gradient group by group
        ((1, 1, 8, 8), {"stride": 2}, 2),  # and of a 1x1 kernel as a product
    ],
)
def test_forms_for_the_cpu_stay_there(kernel, options, on_the_cpu):
    image = (2, 6, 6, 8)
    assert lowered("cpu", image, kernel, **options) == on_the_cpu
    for platform in ("cuda", "rocm", "tpu"):
        assert lowered(platform, image, kernel, **options) == 3


@pytest.mark.parametrize("op", [fn.conv, fn.conv_transpose])
def test_a_call_without_gradient_takes_the_form_for_the_cpu(op):
    shapes = (
        jax.ShapeDtypeStruct((2, 6, 6, 8), "float32"),
        jax.ShapeDtypeStruct((3, 3, 1, 8), "float32"),
    )
    depthwise = jax.jit(functools.partial(op, groups=8))
    for platform, convolutions in (("cpu", 0), ("cuda", 1)):
        exported = jax.export.export(depthwise, platforms=[platform])(*shapes)
        assert exported.mlir_module().count("stablehlo.convolution") == convolutions


# Layers


def test_conv_transpose_layer_passes_its_options_on(key):
    x = jnp.asarray(draw(2, 3, 4, 4), jnp.float32)
    net = fn.ConvTranspose(6, (3, 2), stride=2, padding=1, output_padding=1, groups=2)
    params, _ = net.init(key, x)
    assert shapes(params) == {"w": (3, 2, 3, 4), "b": (6,)}
    assert not params["b"].any()
    b = jnp.arange(6.0)
    expected, _ = spread_by_loops(
        *map(np.asarray, (x, params["w"], b)),
        stride=2, padding=1, output_padding=1, groups=2,
    )  # fmt: skip
    np.testing.assert_allclose(net(params | {"b": b}, x), expected, 1e-5, 1e-5)
    dilated = fn.ConvTranspose(3, 3, dilation=2, bias=False)
    params, _ = dilated.init(key, x)
    assert shapes(params) == {"w": (3, 3, 3, 4)}
    assert dilated(params, x).shape == (2, 7, 8, 3)
    assert fn.ConvTranspose(3, 2).init(key, x[:, 0])[0]["w"].shape == (2, 3, 4)


def test_the_kernel_of_a_conv_transpose_has_the_variance_one_over_fan_in(key):
    params, _ = fn.ConvTranspose(50, 4).init(key, jax.ShapeDtypeStruct((1, 8, 8, 25), "float32"))
    assert abs(np.var(params["w"]) * 4 * 4 * 25 - 1) < 0.05


# Networks


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [
        (18, 11_689_512),
        pytest.param(34, 21_797_672, marks=pytest.mark.long),
        pytest.param(50, 25_557_032, marks=pytest.mark.long),
        pytest.param(101, 44_549_160, marks=pytest.mark.long),
        pytest.param(152, 60_192_808, marks=pytest.mark.long),
    ],
)
def test_resnet_has_the_parameters_of_torchvisions(depth, parameters):
    assert count(fn.nets.ResNet(depth), 1, 224, 224, 3) == parameters


@pytest.mark.parametrize(
    ("depth", "parameters"), [(20, 269_722), pytest.param(32, 464_154, marks=pytest.mark.long)]
)
def test_resnet_for_small_images_has_the_parameters_of_the_paper(depth, parameters):
    """0.27 and 0.46 million; its shortcuts have none."""
    assert count(fn.nets.ResNet(depth, 10), 1, 32, 32, 3) == parameters


@pytest.mark.long
def test_resnet_has_torchvisions_names_and_sizes():
    image = jax.ShapeDtypeStruct((2, 224, 224, 3), "float32")
    net = fn.nets.ResNet(50)
    params, state = jax.eval_shape(net.init, jax.random.key(0), image)
    assert list(params) == ["bn1", "conv1", "fc", "layer1", "layer2", "layer3", "layer4"]
    assert [len(params[f"layer{n}"]) for n in (1, 2, 3, 4)] == [3, 4, 6, 3]
    block = params["layer2"]["0"]
    assert {name: block[name]["w"].shape for name in ("conv1", "conv2", "conv3")} == {
        "conv1": (1, 1, 256, 128),
        "conv2": (3, 3, 128, 128),
        "conv3": (1, 1, 128, 512),
    }
    assert block["downsample"]["0"]["w"].shape == (1, 1, 256, 512)
    assert "downsample" not in params["layer2"]["1"]
    rows = {row.path: row.output for row in net.summary(image).rows}
    assert rows["maxpool"] == rows["layer1/0/conv1"] == "float32[2,56,56,64]"
    assert [rows[f"layer{n}"] for n in (2, 3, 4)] == [
        "float32[2,28,28,512]",
        "float32[2,14,14,1024]",
        "float32[2,7,7,2048]",
    ]
    assert state["layer4"]["2"]["bn3"]["mean"].shape == (2048,)


def normed(x):
    return (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)


@pytest.mark.long
def test_a_block_of_resnet_by_hand(key):
    """With kernels that copy the middle pixel to each channel, only the norms and shortcuts act."""
    x = draw(2, 4, 4, 1).astype(np.float32)
    net = fn.nets.ResNet(8, 3, zero_init=True)
    params, state = net.init(key, x)
    started = [params[f"layer{n + 1}"]["0"]["bn2"]["scale"] for n in range(3)]
    assert [float(scale.sum()) for scale in started] == [0, 32, 64]  # these two add channels
    for n in (2, 3):
        params[f"layer{n}"]["0"]["bn2"]["scale"] = jnp.zeros_like(started[n - 1])
    middle = np.zeros((3, 3, 1, 16))
    middle[1, 1] = 1
    params["conv1"]["w"] = jnp.asarray(middle, jnp.float32)
    params["fc"] = {"w": jnp.eye(64, 3, -26), "b": jnp.zeros(3)}
    y, after = jax.jit(functools.partial(net.apply, train=True))(params, state, x)
    first = np.maximum(normed(x), 0)  # the same in all 16 channels; each block is the identity
    kept = first[:, ::4, ::4].mean((1, 2))
    expected = np.concatenate([kept, kept, kept], -1)  # channels 24 to 39 of 64 are not padding
    np.testing.assert_allclose(y, expected, 1e-4, 1e-4)
    np.testing.assert_allclose(after["bn1"]["mean"], np.full(16, 0.1 * x.mean()), 1e-4, 1e-5)


@pytest.mark.long
def test_unet_keeps_the_size_whatever_the_axes(key):
    for sides in ((8,), (8, 4), (4, 4, 8)):
        x = jax.ShapeDtypeStruct((2, *sides, 3), "float32")
        net = fn.nets.UNet(5, (4, 8, 4), groups=2, blocks=2)
        params, state = jax.eval_shape(net.init, key, x)
        assert state == {}
        assert jax.eval_shape(net, params, x).shape == (2, *sides, 5)
    inputs = params["up0_0"]["conv1"]["w"].shape[-2], params["up1_0"]["conv1"]["w"].shape[-2]
    assert inputs == (2 * 4, 2 * 8)
    assert "skip" in params["up1_0"]
    assert "skip" not in params["up1_1"]


@pytest.mark.long
def test_unet_sends_what_it_had_on_the_way_down(key):
    """Where nothing comes back up, the output still tells two images apart by way of the skip."""
    x, other = (draw(1, 4, 4, 1, seed=seed).astype(np.float32) for seed in (0, 1))
    params, _ = UNET.init(key, x)
    net, cut = jax.jit(UNET), params | {"grow0": jax.tree.map(jnp.zeros_like, params["grow0"])}
    assert abs(net(params, x) - net(cut, x)).max() > 1e-3
    assert abs(net(cut, x) - net(cut, other)).max() > 1e-1


@pytest.mark.long
def test_unet_adds_its_time_in_each_block(key):
    x, t = draw(3, 4, 4, 1).astype(np.float32), jnp.array([1, 1, 30])
    params, _ = TIMED.init(key, x, t)
    net = jax.jit(TIMED)
    for block, width in (("down0_0", 2), ("down1_0", 4), ("up0_0", 2)):
        assert params[block]["time"]["w"].shape == (8, width)
        second = params[block]["conv2"]
        assert not second["w"].any()
        live = params | {block: params[block] | {"conv2": second | {"w": 1 + second["w"]}}}
        early, late = net(live, x, t), net(live, x, jnp.full(3, 30))
        assert abs(early[:2] - late[:2]).max() > 1e-3, block
        np.testing.assert_allclose(early[2], late[2], 1e-5, 1e-5)


@pytest.mark.long
def test_unet_takes_the_dtype_of_its_images(key):
    x, t = jax.ShapeDtypeStruct((2, 4, 4, 1), "bfloat16"), jax.ShapeDtypeStruct((2,), "int32")
    params, _ = jax.eval_shape(TIMED.init, key, x, t)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    assert jax.eval_shape(TIMED, params, x, t).dtype == jnp.bfloat16


def test_a_large_depthwise_kernel_gradient_is_summed_in_parts():
    x, w = draw(2, 32, 32, 32), draw(3, 3, 1, 32, seed=1)

    def gradient(op):
        return jax.jit(jax.grad(lambda w: (op(x, w, None, groups=32) ** 2).sum()))(w)

    plain = functools.partial(fn.conv.rule.primal, stride=1, padding="VALID", dilation=1)
    np.testing.assert_allclose(gradient(fn.conv), gradient(plain), rtol=1e-5, atol=1e-3)


@pytest.mark.long
def test_a_depthwise_kernel_gradient_inside_shard_map():
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    x, w = draw(2, 6, 6, 4).astype(np.float32), draw(3, 3, 1, 4, seed=1).astype(np.float32)

    def gradient(x, w):
        return jax.grad(lambda w: (fn.conv(x, w, None, groups=4) ** 2).sum())(w)

    spec = jax.sharding.PartitionSpec
    parted = jax.shard_map(gradient, mesh=mesh, in_specs=(spec("d"), spec()), out_specs=spec())
    np.testing.assert_allclose(jax.jit(parted)(x, w), gradient(x, w), rtol=1e-4)


def test_convolutions_of_nothing():
    assert fn.conv(jnp.ones((2, 6, 0)), jnp.ones((1, 0, 4))).shape == (2, 6, 4)
    x, w = jnp.ones((0, 6, 4)), jnp.ones((3, 1, 8))
    slope = jax.grad(lambda w: fn.conv(x, w, None, groups=4).sum())(w)
    assert slope.shape == w.shape
    assert not slope.any()
