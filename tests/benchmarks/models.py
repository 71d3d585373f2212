"""The five networks of `steps`: their parameters, their batches and their optimisers.

Parameters have one set of names and shapes for all libraries, in the order in which the forward
pass meets them: weights are (inputs, outputs), kernels (height, width, inputs, outputs), an LSTM's
gates stand in the order i, f, g, o, and queries, keys and values are one product.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import optax

RATES = {"mlp": 1e-3, "lenet": 0.01, "resnet20": 0.01, "lstm": 1e-3, "gpt": 3e-4}
MOMENTUM, DECAY = 0.9, 0.01
MODELS = tuple(RATES)
EPS = 1e-5
"""What norms add to a variance."""

VOCABULARY, WIDTH, DEPTH, HEADS, LENGTH = 16384, 256, 4, 4, 256
"""Of the GPT."""

CHARACTERS, EMBED, UNITS, TIME = 128, 128, 256, 128
"""Of the LSTM."""


class Task(NamedTuple):
    """What a peer is to build.

    Attributes:
        model: The name of the network.
        batch: The input and the labels, integers.
        weights: The first parameters by name, float32.
        dtype: "float32", or "bfloat16" for products of 16 bits over parameters of 32.
    """

    model: str
    batch: tuple[np.ndarray, np.ndarray]
    weights: dict[str, np.ndarray]
    dtype: str = "float32"


class Built(NamedTuple):
    """A training step as a library has it.

    Attributes:
        parameters: How many numbers it trains.
        gradients: Those of the loss at the first parameters, by the task's names.
        run: Takes so many steps, and gives the last loss once all have been taken.
        calls: How many steps a call takes, of which those numbers are multiples.
        lowered: The step of JAX, lowered; None for others.
        traces: How often the step was compiled; None where nobody knows.
    """

    parameters: int
    gradients: Callable[[], dict[str, np.ndarray]]
    run: Callable[[int], float]
    calls: int = 1
    lowered: Callable | None = None
    traces: Callable[[], int] | None = None


def task(model: str, dtype: str = "float32") -> Task:
    """The task of that name."""
    return Task(model, batch(model), weights(model), dtype)


def batch(model: str) -> tuple[np.ndarray, np.ndarray]:
    """One batch, the same in all steps."""
    random = np.random.default_rng(1)
    if model in ("lstm", "gpt"):
        count, shape = (CHARACTERS, (32, TIME)) if model == "lstm" else (VOCABULARY, (4, LENGTH))
        tokens = random.integers(0, count, (shape[0], shape[1] + 1)).astype(np.int32)
        return tokens[:, :-1].copy(), tokens[:, 1:].copy()
    shape = {"mlp": (128, 784), "lenet": (128, 32, 32, 1), "resnet20": (32, 32, 32, 3)}[model]
    x = random.standard_normal(shape, np.float32)
    return x, random.integers(0, 10, shape[0]).astype(np.int32)


def weights(model: str) -> dict[str, np.ndarray]:
    """The first parameters; biases and shifts are no zeros, so that a check sees them."""
    random = np.random.default_rng(2)
    return {name: _drawn(random, model, name, shape) for name, shape in SHAPES[model]().items()}


def _drawn(random: np.random.Generator, model: str, name: str, shape: tuple) -> np.ndarray:
    draw = random.standard_normal(shape, np.float32)
    kind = name.rpartition("/")[-1]
    if kind == "scale":
        return 1 + 0.1 * draw
    if kind == "shift" and model == "resnet20":
        # Away from 0, or float32 and float64 take different sides of a rectifier here and there.
        side = 1 if "bn2" in name else (-1) ** np.arange(len(draw))
        return (0.1 * draw + 3 * side).astype(np.float32)
    if kind in ("b", "shift") or model == "gpt":
        return 0.02 * draw
    if kind == "table":
        return draw
    return draw * np.float32(np.sqrt((2 if len(shape) == 4 else 1) / np.prod(shape[:-1])))


def _dense(sizes: dict[str, tuple[int, int]]) -> dict[str, tuple]:
    return {
        f"{name}/{kind}": shape
        for name, (inputs, outputs) in sizes.items()
        for kind, shape in (("w", (inputs, outputs)), ("b", (outputs,)))
    }


def _mlp() -> dict[str, tuple]:
    return _dense({"dense": (784, 512), "dense_1": (512, 512), "dense_2": (512, 10)})


def _lenet() -> dict[str, tuple]:
    convs = {
        "conv/w": (3, 3, 1, 6),
        "conv/b": (6,),
        "conv_1/w": (3, 3, 6, 16),
        "conv_1/b": (16,),
    }
    return convs | _dense({"dense": (576, 120), "dense_1": (120, 84), "dense_2": (84, 10)})


def blocks() -> list[tuple[str, int, int]]:
    """The residual blocks of the ResNet: name, channels before, channels after."""
    widths = [(16, 16)] * 3 + [(16, 32), (32, 32), (32, 32)] + [(32, 64), (64, 64), (64, 64)]
    return [(f"layer{1 + i // 3}/{i % 3}", *width) for i, width in enumerate(widths)]


def _resnet20() -> dict[str, tuple]:
    convs = {"conv1": (3, 16)}
    for name, before, after in blocks():
        convs |= {f"{name}/conv1": (before, after), f"{name}/conv2": (after, after)}
    shapes = {}
    for name, (before, after) in convs.items():
        norm = name.replace("conv", "bn")
        shapes[f"{name}/w"] = (3, 3, before, after)
        shapes |= {f"{norm}/scale": (after,), f"{norm}/shift": (after,)}
    return shapes | _dense({"fc": (64, 10)})


def _lstm() -> dict[str, tuple]:
    return {
        "embed/table": (CHARACTERS, EMBED),
        "lstm0/w_in": (EMBED, 4 * UNITS),
        "lstm0/w_hidden": (UNITS, 4 * UNITS),
        "lstm0/b": (4 * UNITS,),
        **_dense({"head": (UNITS, CHARACTERS)}),
    }


def _gpt() -> dict[str, tuple]:
    shapes = {"tokens/table": (VOCABULARY, WIDTH), "positions/table": (LENGTH, WIDTH)}
    for i in range(DEPTH):
        attention = {"qkv": (WIDTH, 3 * WIDTH), "out": (WIDTH, WIDTH)}
        mlp = {"up": (WIDTH, 4 * WIDTH), "down": (4 * WIDTH, WIDTH)}
        for norm, part, sizes in (("norm1", "attention", attention), ("norm2", "mlp", mlp)):
            shapes |= {f"block_{i}/{norm}/{kind}": (WIDTH,) for kind in ("scale", "shift")}
            shapes |= _dense({f"block_{i}/{part}/{name}": size for name, size in sizes.items()})
    return shapes | {"norm/scale": (WIDTH,), "norm/shift": (WIDTH,)}


SHAPES = {"mlp": _mlp, "lenet": _lenet, "resnet20": _resnet20, "lstm": _lstm, "gpt": _gpt}


def optimizer(model: str) -> optax.GradientTransformation:
    """The optimiser of a network, of optax."""
    rate = RATES[model]
    if model == "lenet":
        return optax.sgd(rate)
    if model == "resnet20":
        return optax.sgd(rate, momentum=MOMENTUM)
    return optax.adamw(rate, weight_decay=DECAY) if model == "gpt" else optax.adam(rate)


LIMITS = {"float32": 1e-3, "bfloat16": 0.2}
"""How far gradients may be from those in float64, as a share of their norm."""


def apart(found: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> float:
    """The norm of what gradients differ by, as a share of the norm of the true ones.

    Raises:
        ValueError: If they have other names or shapes.
    """
    shapes = [{name: np.shape(value) for name, value in grads.items()} for grads in (found, truth)]
    if shapes[0] != shapes[1]:
        differ = dict(shapes[0].items() ^ shapes[1].items())
        raise ValueError(f"gradients differ in names or shapes: {differ}")
    square = lambda arrays: sum(float(np.sum(np.square(a, dtype=float))) for a in arrays)  # noqa: E731
    differences = [found[name].astype(float) - truth[name] for name in truth]
    return (square(differences) / square(truth.values())) ** 0.5
