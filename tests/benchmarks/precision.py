"""How closely training in 16 bits follows training in 32: 200 steps of a ResNet-20 and of a GPT.

    python -m tests.benchmarks precision

The ResNet learns the digits, 32 images of 8x8 a step. Of their labels 3 in 10 are drawn at random,
so that the loss has a floor near 1.2, and a share of it means something. The GPT (width 64, two
blocks) learns the characters of Python's own help, 16 windows of 32 a step. All begin with the same
parameters. The end is the mean of 50 steps: that of 20 moves by 1.3% in float32 itself, if the
first parameters are changed by a millionth.
"""

import time

import jax
import numpy as np
import optax

import funcnet as fn

STEPS, LAST = 200, 50
NAMES = ("f32", "bf16", "f16")


def resnet() -> tuple:
    """The network, its loss and its batches."""
    x, y = fn.data.load_data("digits").train
    random = np.random.default_rng(0)
    picks = random.integers(0, len(x), (STEPS, 32))
    drawn = random.integers(0, 10, picks.shape)
    labels = np.where(random.random(picks.shape) < 0.3, drawn, y[picks]).astype(np.int32)
    images = x[picks].reshape(*picks.shape, 8, 8, 1).astype(np.float32)
    batches = list(zip(images, labels, strict=True))
    return fn.nets.ResNet(20, 10), fn.cross_entropy, batches


def gpt() -> tuple:
    """The same."""
    text = fn.data.load_text()
    net = fn.nets.GPT(len(text.alphabet), width=64, depth=2, heads=4, length=32)
    parts = (fn.data.windows(text.train, 32, 16, seed=0, step=i) for i in range(STEPS))
    return net, fn.cross_entropy, list(parts)


NETWORKS = {"resnet": resnet, "gpt": gpt}


def losses(name: str, precision: str) -> np.ndarray:
    """The loss of each step."""
    net, criterion, batches = NETWORKS[name]()
    step = fn.make_step(net, criterion, optax.adam(1e-3), precision=precision)
    state = step.init(jax.random.key(0), *batches[0][:-1])
    found = []
    for batch in batches:
        state, values = step.update(state, batch)
        found.append(float(values["loss"]))
    return np.array(found)


def apart(name: str) -> dict[str, tuple[float, float]]:
    """By how much the loss in 16 bits differs from that of float32, as a share of it.

    Returns:
        For each precision the mean over the last steps, and over all of them.
    """
    wide, *narrow = (losses(name, precision) for precision in NAMES)
    shares = ((x[-LAST:].mean() / wide[-LAST:].mean(), x.mean() / wide.mean()) for x in narrow)
    return {n: (end - 1, whole - 1) for n, (end, whole) in zip(NAMES[1:], shares, strict=True)}


def main() -> None:
    """Print the losses after 200 steps."""
    for name in NETWORKS:
        wide = 0.0
        for precision in NAMES:
            start = time.perf_counter()
            found = losses(name, precision)
            took, last = time.perf_counter() - start, found[-LAST:].mean()
            wide = wide or last
            print(
                f"{name} {precision}: first {found[0]:.4f}, last {LAST}: {last:.4f}, "
                f"{last / wide - 1:+.2%}; all: {found.mean():.4f} ({took:.0f} s)",
                flush=True,
            )


if __name__ == "__main__":
    main()
