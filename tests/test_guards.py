"""Guards against jaxlib 0.10.2, whose CPU backend computes wrong numbers and can crash.

The two programs are those of jax issues 39103 (wrong without a word) and 40412 (a segmentation
fault). With jaxlib 0.10.2 each of them fails; a jaxlib that brings either fault back fails too.
"""

import os
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent

REDUCTION = """
import jax, jax.numpy as jnp, numpy as np
shape = (3, 1, 2, 2, 8, 8, 8)
a = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape) % 7
b = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape) % 5
got = jax.jit(lambda a, b: jnp.sum(a * b, axis=3))(a, b)
want = np.sum(np.asarray(a) * np.asarray(b), axis=3)
np.testing.assert_array_equal(np.asarray(got), want)
"""
"""Products of small whole numbers and sums of two: exact in float32."""


def test_vmapped_product_then_sum_is_right():
    x = np.zeros((32769, 3), np.float32)
    x[:, 0] = np.arange(32769)

    def f(x):
        return jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2))(x)

    got = np.asarray(jax.jit(f)(x))
    want = (x.astype(np.float64) ** 2).sum(axis=1)
    assert got[-1] == want[-1] == 1073741824
    np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.long
def test_reduction_of_rank_seven_does_not_crash():
    run = subprocess.run(
        [sys.executable, "-c", REDUCTION],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_the_faulty_jaxlib_is_not_installed():
    assert metadata.version("jaxlib") != "0.10.2"


@pytest.mark.parametrize("name", ["jax", "jaxlib"])
def test_the_faulty_jaxlib_is_excluded(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = {need.name: need.specifier for need in map(Requirement, project["dependencies"])}
    assert "0.10.2" not in needs[name]
    assert "0.10.1" in needs[name]
    assert "0.12.0" in needs[name], "no upper bound"
