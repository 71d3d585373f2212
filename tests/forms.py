"""The forms of a row in the tables that drive the tests."""

import functools
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
    return jnp.asarray(np.random.default_rng(9).standard_normal(shape, np.float32))


def compiled(f):
    """`f` with each call one program; only floating arrays are traced, all else is as given.

    JAX compiles every op of an eager call by itself, which takes many times as long.
    """
    programs = {}

    @functools.wraps(f)
    def call(*args, **options):
        leaves, tree = jax.tree.flatten((args, options))
        if any(isinstance(x, jax.core.Tracer) and not _floating(x) for x in leaves):
            return f(*args, **options)
        floats = {i: x for i, x in enumerate(leaves) if _floating(x)}
        held = tuple(None if i in floats else x for i, x in enumerate(leaves))
        key = tree, *floats, *((type(x), np.shape(x), np.asarray(x).tobytes()) for x in held)

        @jax.jit
        def program(floats):
            args, options = tree.unflatten(floats.get(i, x) for i, x in enumerate(held))
            return f(*args, **options)

        return programs.setdefault(key, program)(floats)

    return call


def _floating(x):
    return isinstance(x, jax.Array | np.ndarray) and jnp.issubdtype(x.dtype, jnp.inexact)


def rows(error, *calls_and_messages):
    """A table of what raises this error: each call is followed by the message in full."""
    pairs = zip(calls_and_messages[::2], calls_and_messages[1::2], strict=True)
    return [
        pytest.param(call, error, message, id=message.partition(", got ")[0])
        for call, message in pairs
    ]
