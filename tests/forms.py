"""The forms of a row in the tables that drive the tests."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn


class LayerCase(NamedTuple):
    layer: fn.Layer
    inputs: tuple
    needs_key: bool = False


def image(*shape: int) -> jax.Array:
    return jax.device_put(np.random.default_rng(9).standard_normal(shape, np.float32))


@functools.cache
def compiled(f):
    """`f` with each call one program; floating arrays and keys are traced, all else is as given.

    JAX compiles every op of an eager call by itself, which takes many times as long. Under an
    eager `jax.grad` or `jax.vjp` it is two programs, one for each pass.
    """
    programs = {}

    @functools.wraps(f)
    def call(*args, **options):
        leaves, tree = jax.tree.flatten((args, options))
        if any(isinstance(x, jax.core.Tracer) and not _traced(x) for x in leaves):
            return f(*args, **options)
        moving = {i: x for i, x in enumerate(leaves) if _traced(x)}
        held = tuple(None if i in moving else x for i, x in enumerate(leaves))
        key = tree, *moving, *((type(x), np.shape(x), np.asarray(x).tobytes()) for x in held)

        @jax.jit
        def program(moving):
            args, options = tree.unflatten(moving.get(i, x) for i, x in enumerate(held))
            return f(*args, **options)

        return programs.setdefault(key, program)(moving)

    return call


def _traced(x):
    """Whether it is an array whose numbers no check of an argument reads."""
    if not isinstance(x, jax.Array | np.ndarray):
        return False
    return jnp.issubdtype(x.dtype, jnp.inexact) or jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def rows(error, *calls_and_messages):
    """A table of what raises this error: each call is followed by the message in full."""
    pairs = zip(calls_and_messages[::2], calls_and_messages[1::2], strict=True)
    return [
        pytest.param(call, error, message, id=message.partition(", got ")[0])
        for call, message in pairs
    ]


def some(values, usual=1):
    """Rows for `parametrize`: the first so many, or those in `usual`; the rest are long."""

    def row(i, value):
        if i < usual if isinstance(usual, int) else value in usual:
            return value
        old = isinstance(value, type(pytest.param()))
        given, marks, id = value if old else ((value,), (), None)
        return pytest.param(*given, marks=[*marks, pytest.mark.slow, pytest.mark.long], id=id)

    return [row(i, value) for i, value in enumerate(values)]


def printed(program: str) -> str:
    """What a Python program prints, run as a user's: with their XLA flags, and with bytecode."""
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent.parent,
        env={
            **os.environ,
            "XLA_FLAGS": os.environ["USERS_XLA_FLAGS"],
            "PYTHONDONTWRITEBYTECODE": "",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout
