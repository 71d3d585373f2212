"""Writes recurrent_keras.npz: outputs and gradients of Keras's recurrent layers, in float32.

Run by hand, with Keras installed, where this file stands; the tests read what it wrote:

    pip install keras==3.15.1 jax==0.10.1 jaxlib==0.10.1
    KERAS_BACKEND=jax python tests/data/make_recurrent_keras.py

Parameters are not stored: `drawn` makes each from its name, here and in the tests. Each layer has,
for `MODES`, `NAME/MODE/output`, `NAME/MODE/final`, its last h, and `NAME/MODE/grad/KEY`, the
gradient of the outputs and last states weighted by `ripple`.
"""

from pathlib import Path

import numpy as np

if __package__:
    from .make_networks_torch import drawn, ripple
else:
    from make_networks_torch import drawn, ripple

MASK = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 1, 0], [1, 1, 1, 1, 1]], bool)
MODES = {"ahead": (None, False), "masked": (MASK, False), "masked, reverse": (MASK, True)}
"""The mask of each, and whether it goes from the last step to the first."""
GATES = {"lstm": 4, "gru, reset before": 3, "gru, reset after": 3, "rnn": 1}


def weights(name: str) -> dict[str, np.ndarray]:
    """Keras's arrays: the gates are i, f, g, o and z, r, n."""
    gates = GATES[name]
    shapes = {"kernel": (2, 4 * gates), "recurrent": (4, 4 * gates), "bias": (4 * gates,)}
    if name == "gru, reset after":
        shapes["bias"] = (2, 4 * gates)
    return {key: drawn(f"{name}/{key}", shape).astype(np.float32) for key, shape in shapes.items()}


def main() -> None:
    """Write everything beside this file."""
    import jax
    import keras

    options = {"return_sequences": True, "return_state": True, "zero_output_for_mask": True}
    layers = {
        "lstm": keras.layers.LSTM,
        "gru, reset before": lambda *a, **k: keras.layers.GRU(*a, reset_after=False, **k),
        "gru, reset after": keras.layers.GRU,
        "rnn": keras.layers.SimpleRNN,
    }
    steps, arrays = drawn("steps", (3, 5, 2)).astype(np.float32), {}
    for name, make in layers.items():
        for mode, (mask, reverse) in MODES.items():
            layer = make(4, go_backwards=reverse, **options)
            layer.build(steps.shape)

            def run(x, own, layer=layer, mask=mask, reverse=reverse):
                variables = [own[key] for key in ("kernel", "recurrent", "bias")]
                others = [v.value for v in layer.non_trainable_variables]
                (output, *states), _ = layer.stateless_call(variables, others, x, mask=mask)
                output = output[:, ::-1] if reverse else output
                whole = sum((y * ripple(y.shape)).sum() for y in (output, *states))
                return whole, (output, states[0])

            gradient = jax.grad(run, argnums=(0, 1), has_aux=True)
            (dx, own), (output, final) = gradient(steps, weights(name))
            found = {"output": output, "final": final, "grad/x": dx}
            found |= {f"grad/{key}": g for key, g in own.items()}
            arrays |= {f"{name}/{mode}/{key}": np.asarray(y) for key, y in found.items()}
    path = Path(__file__).with_name("recurrent_keras.npz")
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
