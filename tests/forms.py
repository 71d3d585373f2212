"""The forms of a row in the tables that drive the tests."""

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


def rows(error, *calls_and_messages):
    """A table of what raises this error: each call is followed by the message in full."""
    pairs = zip(calls_and_messages[::2], calls_and_messages[1::2], strict=True)
    return [
        pytest.param(call, error, message, id=message.partition(", got ")[0])
        for call, message in pairs
    ]
