"""Recurrent ops against Keras's layers, with masks and from the end: outputs, states, gradients.

tests/data/make_recurrent_keras.py wrote them; Keras itself is not needed here.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn

from .data.make_networks_torch import drawn, ripple
from .data.make_recurrent_keras import GATES, MODES, weights
from .forms import some


def lstm(x, kernel, recurrent, bias, **options):
    return fn.lstm(x, kernel, recurrent, bias, **options)


def rnn(x, kernel, recurrent, bias, **options):
    return fn.elman(x, kernel, recurrent, bias, **options)


def ordered(w):
    """The gates of Keras's GRU, z, r, n, as r, z, n."""
    z, r, n = jnp.split(w, 3, -1)
    return jnp.concatenate([r, z, n], -1)


def gru_before(x, kernel, recurrent, bias, **options):
    parameters = (ordered(w) for w in (kernel, recurrent, bias))
    return fn.gru(x, *parameters, reset_after=False, **options)


def gru_after(x, kernel, recurrent, bias, **options):
    kernel, recurrent, (b, hidden) = (ordered(w) for w in (kernel, recurrent, bias))
    units = len(recurrent)
    b = b + hidden.at[2 * units :].set(0)
    return fn.gru(x, kernel, recurrent, b, hidden[2 * units :], **options)


OPS = {"lstm": lstm, "rnn": rnn, "gru, reset before": gru_before, "gru, reset after": gru_after}


@pytest.fixture(scope="module")
def keras():
    with np.load(Path(__file__).parent / "data" / "recurrent_keras.npz") as file:
        return dict(file)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", some(GATES, ("lstm", "gru, reset after")))
def test_outputs_states_and_gradients_are_kerass(keras, name, mode, x64):
    mask, reverse = MODES[mode]

    @jax.jit
    def everything(x, own):
        def whole(x, own):
            outputs = OPS[name](x, **own, mask=mask, reverse=reverse)
            return sum((y * ripple(y.shape)).sum() for y in outputs), outputs[:2]

        return jax.grad(whole, argnums=(0, 1), has_aux=True)(x, own)

    (dx, own), (output, final) = everything(drawn("steps", (3, 5, 2)), weights(name))
    found = {"output": output, "final": final, "grad/x": dx}
    found |= {f"grad/{key}": gradient for key, gradient in own.items()}
    prefix = f"{name}/{mode}/"
    assert {prefix + key for key in found} == {key for key in keras if key.startswith(prefix)}
    for key, y in found.items():
        np.testing.assert_allclose(y, keras[prefix + key], rtol=1e-5, atol=2e-6, err_msg=key)
