"""Whole training steps lower for every platform, and no form made for the CPU reaches another."""

import jax
import jax.export
import jax.numpy as jnp
import optax
import pytest

import funcnet as fn

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def lowered(platform):
    step = fn.make_step(
        fn.nets.LeNet(), fn.cross_entropy, optax.adam(1e-3), metrics={"a": fn.accuracy}
    )
    x, y = jnp.zeros((8, 32, 32, 1)), jnp.zeros(8, jnp.int32)
    state = jax.eval_shape(step.init, jax.random.key(0), x)
    return jax.export.export(step.update, platforms=[platform])(state, (x, y)).mlir_module()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_lenet_step_lowers(platform):
    assert "stablehlo.convolution" in lowered(platform)


@pytest.mark.long
def test_forms_for_the_cpu_stay_there():
    """Elsewhere max-pooling goes backward by select_and_scatter, and both kernels convolve."""
    cpu, others = lowered("cpu"), [lowered(platform) for platform in PLATFORMS[1:]]
    assert "select_and_scatter" not in cpu
    for text in others:
        assert text.count("stablehlo.select_and_scatter") == 2
        assert text.count("stablehlo.convolution") > cpu.count("stablehlo.convolution")
