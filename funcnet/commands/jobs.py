"""What a network of the command line learns, how it is judged, and what it leaves to look at.

A job fits a network to data: to tell classes or numbers, to write text, to take noise away, or to
draw images.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import plot
from ..disk import write_whole
from ..feed.arrays import Data
from ..feed.named import load_data
from ..feed.text import Text, load_text, windows
from ..nets.ddpm import DDPM, sample_ddpm
from ..nets.noise import noise_schedule
from ..nets.vae import VAE, negative_elbo
from ..nn.layer import Layer
from ..ops.activations.smooth import sigmoid
from ..ops.losses.cross_entropy import cross_entropy
from ..ops.losses.distances import binary_cross_entropy, squared_error
from ..train.evaluate import evaluate
from ..train.history import confusion
from ..train.metrics import accuracy, r_squared
from ..train.state import TrainState
from ..types import require

Arrays = tuple[Any, ...]


class Findings(NamedTuple):
    """What is known of a trained network.

    Attributes:
        scores: Figures of the held-out data, the loss last.
        files: The names of the files written for people to look at.
        printed: What to show besides.
    """

    scores: dict[str, float]
    files: set[str]
    printed: str = ""


class Job(NamedTuple):
    """A network and the data it is to learn.

    Attributes:
        net: The network, as it is trained.
        criterion: `(output, target) -> scalar`, what is made small.
        metrics: Figures beside it, for the line of progress.
        data: The data's name.
        train: Inputs and target to learn from.
        test: The same, held out.
        judge: From a folder and a state of training to what is found.
    """

    net: Layer
    criterion: Callable
    metrics: Mapping[str, Callable]
    data: str
    train: Arrays
    test: Arrays
    judge: Callable[[Path, TrainState], Findings]


class Asked(NamedTuple):
    """What the person asked for: data, widths, label smoothing (None: as the network's recipe)."""

    data: str
    width: tuple[int, ...]
    smoothing: float | None = None


# Classes and numbers


def classify(
    build: Callable[[int, Sequence[int]], Layer], asked: Asked, *, smoothing: float = 0.0
) -> Job:
    """Tell classes apart, or numbers where the targets are numbers; `build(outputs, widths)`."""
    data = load_data(asked.data)
    _check_classes(data)
    require(
        not asked.smoothing or data.classes is not None,
        "train",
        f"no --smoothing for {data.name}, whose targets are numbers",
        f"--smoothing {asked.smoothing}",
        "Leave it out.",
    )
    loss, metric, outputs = _kind(data)
    net = build(outputs, asked.width)
    share = smoothing if asked.smoothing is None else asked.smoothing
    criterion = _smoothed(loss, share) if share and data.classes is not None else loss
    judge = partial(_judge_classes, net, data, loss, metric)
    metrics = {metric.__name__: metric}
    return Job(net, criterion, metrics, data.name, data.train, data.test, judge)


def _kind(data: Data) -> tuple[Callable, Callable, int]:
    """Loss, metric and number of outputs: two classes need one logit, more one each."""
    if data.classes is None:
        return squared_error, r_squared, data.train[1].shape[1]
    if len(data.classes) == 2:
        return _column(binary_cross_entropy), accuracy, 1
    return cross_entropy, accuracy, len(data.classes)


def _smoothed(loss: Callable, share: float) -> Callable:
    """The loss with this share of each label spread evenly over the classes."""
    require(
        0 <= share < 1,
        "train",
        "--smoothing from 0 to below 1",
        share,
        "It is the share of each label that is spread over all classes.",
    )
    if loss is cross_entropy:
        return partial(cross_entropy, label_smoothing=share)
    return lambda output, target: loss(output, (1 - share) * target + share / 2)


def _check_classes(data: Data) -> None:
    targets = data.train[1]
    require(
        data.classes is None or targets.min() < targets.max(),
        "train",
        f"examples of two classes or more in {data.name}",
        f"only class {targets[0]}",
        "Bring examples of another class, or write y as float where it is no class.",
    )


def _column(f: Callable) -> Callable:
    """A loss of a column of outputs `(n, 1)` and targets `(n,)` or `(n, 1)`."""

    def on_column(output: Any, target: Any) -> Any:
        return f(output[:, 0], target.reshape(-1).astype(output.dtype))

    on_column.__name__ = f.__name__
    return on_column


def _judge_classes(
    net: Layer, data: Data, loss: Callable, metric: Callable, out: Path, trained: TrainState
) -> Findings:
    x, y = data.test
    outputs = _in_parts(net, trained, x)
    scores = {
        metric.__name__: float(metric(jnp.asarray(outputs), jnp.asarray(y))),
        "loss": float(loss(jnp.asarray(outputs), jnp.asarray(y))),
    }
    if data.classes is None:
        return Findings(scores, set())
    chosen = (outputs[:, 0] > 0).astype(int) if outputs.shape[1] == 1 else outputs.argmax(-1)
    counts = confusion(y, chosen, len(data.classes))
    plot.confusion(counts, data.classes, out / "confusion.png")
    return Findings(scores, {"confusion.png"})


# Text


class Writer(NamedTuple):
    """A language model of an alphabet's size, and how to write with it.

    Attributes:
        net: From tokens to what the criterion takes.
        criterion: `(output, next tokens) -> scalar`, in nats a token.
        write: `(params, prompt, count, key) -> tokens`.
    """

    net: Layer
    criterion: Callable
    write: Callable


def write_text(build: Callable[[int, Sequence[int]], Writer], length: int, asked: Asked) -> Job:
    """Guess each next character of a text, from pieces of `length`, and then write some.

    An epoch has pieces from so many random places that each character is seen two or three times.
    """
    text = load_text(None if asked.data == "python-help" else asked.data)
    require(
        min(len(text.train), len(text.test)) > length,
        "train",
        f"a text of {10 * (length + 1)} characters or more, of which a tenth is held out",
        f"{len(text.tokens)} in {asked.data}",
        "Bring a longer one.",
    )
    writer = build(len(text.alphabet), asked.width)
    train = windows(text.train, length, max(1, 5 * len(text.train) // (2 * length)))
    test = tuple(part[:512] for part in windows(text.test, length))
    judge = partial(_judge_writer, writer, text, test)
    return Job(writer.net, writer.criterion, {}, asked.data, train, test, judge)


def _judge_writer(
    writer: Writer, text: Text, test: Arrays, out: Path, trained: TrainState
) -> Findings:
    loss = evaluate(writer.net, writer.criterion, trained, test)["loss"]
    prompt = text.test[:32]
    drawn = writer.write(trained.params, jnp.asarray(prompt[None]), 400, jax.random.key(1))
    sample = text.decode(prompt) + text.decode(drawn[0])
    write_whole("train", out / "sample.txt", (sample + "\n").encode())
    scores = {"perplexity": float(np.exp(loss)), "loss": loss}
    return Findings(scores, {"sample.txt"}, sample)


# Images


def denoise(build: Callable[[int, Sequence[int]], Layer], asked: Asked) -> Job:
    """Take noise away from images; `build(channels, widths)`."""
    data = load_data(asked.data)
    clean = [_images(part[0], asked.data) for part in (data.train, data.test)]
    random = np.random.default_rng(0)
    noisy = [x + 0.5 * random.standard_normal(x.shape, np.float32) for x in clean]
    net = build(clean[0].shape[-1], asked.width)
    train, test = ((x, y) for x, y in zip(noisy, clean, strict=True))

    def judge(out: Path, trained: TrainState) -> Findings:
        outputs = _in_parts(net, trained, test[0])
        rows = np.concatenate([test[0][:12], outputs[:12], test[1][:12]])
        plot.images(rows.clip(0, 1), out / "samples.png", title="Noisy, cleaned, and clean")
        loss = float(((outputs - test[1]) ** 2).mean())
        return Findings({"psnr": float(-10 * np.log10(loss)), "loss": loss}, {"samples.png"})

    return Job(net, squared_error, {}, data.name, train, test, judge)


def encode(latent: int, asked: Asked) -> Job:
    """A variational auto-encoder of images, which then draws some."""
    data = load_data(asked.data)
    train, test = (_images(part[0], asked.data) for part in (data.train, data.test))
    shape = train.shape[1:]
    net, decoder = (VAE(latent, shape, widths=asked.width, decode=d) for d in (False, True))

    def judge(out: Path, trained: TrainState) -> Findings:
        codes = jax.random.normal(jax.random.key(1), (24, latent))
        logits, _, _ = net(trained.params, jnp.asarray(test[:12]))
        again, drawn = sigmoid(logits), sigmoid(decoder(trained.params, codes))
        rows = np.concatenate([test[:12], again, drawn])
        plot.images(rows, out / "samples.png", title="Held out, decoded, and two rows drawn")
        loss = evaluate(net, negative_elbo, trained, (test, test))["loss"]
        return Findings({"loss": loss}, {"samples.png"})

    return Job(net, negative_elbo, {}, data.name, (train, train), (test, test), judge)


def diffuse(build: Callable[[int, Sequence[int]], Layer], steps: int, asked: Asked) -> Job:
    """Diffusion: learn to tell the noise in an image, then draw images; `build(channels, widths)`.

    `build` gives the network that takes a noisy image and the time.
    """
    data = load_data(asked.data)
    train, test = (2 * _images(part[0], asked.data) - 1 for part in (data.train, data.test))
    betas = noise_schedule(steps, "cosine")
    inner = build(train.shape[-1], asked.width)
    net = DDPM(inner, betas)

    def judge(out: Path, trained: TrainState) -> Findings:
        shape, key = (48, *train.shape[1:]), jax.random.key(1)
        drawn = sample_ddpm(inner, trained.params["net"], betas, shape, key)
        plot.images(drawn, out / "samples.png", title="Images out of noise")
        return Findings(evaluate(net, _missed, trained, (test, test)), {"samples.png"})

    return Job(net, _missed, {}, data.name, (train, train), (test, test), judge)


def _missed(output: tuple, target: Any) -> Any:
    """The squared error of the noise that the network saw; the image itself is no target."""
    return squared_error(*output)


def _images(x: np.ndarray, name: str) -> np.ndarray:
    require(
        x.ndim == 4,
        "train",
        "images (n, height, width, channels) for this network",
        f"{name} of shape {x.shape}",
        "Choose digits, mnist5k, fashion-mnist or a folder of IDX files.",
    )
    return x


# Parts at a time, since a whole test set may not fit


def _in_parts(net: Layer, trained: TrainState, x: Any, size: int = 500) -> np.ndarray:
    parts = [jnp.asarray(x[i : i + size]) for i in range(0, len(x), size)]
    return np.concatenate([net.apply(trained.params, trained.state, part)[0] for part in parts])
