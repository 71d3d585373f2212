"""The networks of the command line, and the job each does when nothing else is said."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from ..layers.conv import Flatten
from ..layers.linear import Dense
from ..nets.convnet import LeNet
from ..nets.gpt import GPT, lm_loss
from ..nets.mlp import MLP
from ..nets.recurrent import CharRNN, sample_recurrent
from ..nets.resnet import ResNet
from ..nets.sampling import sample
from ..nets.unet import UNet
from ..nets.vit import ViT
from ..nn.combine import serial
from ..nn.layer import Layer
from ..ops.losses.cross_entropy import cross_entropy
from ..types import Array, Key, Params
from .classes import CLASSIFYING, classify
from .drawing import DENOISING, DIFFUSION, ENCODING
from .jobs import Asked, Job, Kind
from .writing import WRITING, Writer


class Recipe(NamedTuple):
    """A network of the command line.

    Attributes:
        kind: What networks like it do.
        build: From what the network takes of its data, and its widths, to the network.
        about: What it is, in a line of help.
        data: The data it learns by default.
        epochs: How often it goes through them.
        lr: The learning rate at its peak.
        width: Its widths, or () if it has none to choose.
        batch: Examples in a step.
        clip: The largest norm of a gradient, or None.
    """

    kind: Kind
    build: Any
    about: str
    data: str
    epochs: int
    lr: float
    width: tuple[int, ...] = ()
    batch: int = 64
    clip: float | None = None

    def job(self, asked: Asked) -> Job:
        """What the network is to do."""
        return self.kind.job(self.build, asked)

    def net(self, size: Any, widths: Sequence[int]) -> Layer:
        """The network of a run, as it was trained."""
        return self.kind.net(self.build, size, widths)


def _mlp(outputs: int, widths: Sequence[int]) -> Layer:
    return serial(Flatten(), MLP((*widths, outputs)))


def _vit(outputs: int, widths: Sequence[int]) -> Layer:
    return ViT(outputs, patch=4, width=widths[0], depth=4, heads=4)


def _gpt(size: int, widths: Sequence[int]) -> Writer:
    options: Any = {"width": widths[0], "depth": 4, "heads": 4, "length": 512}

    def write(params: Params, prompt: Array, count: int, key: Key) -> Array:
        writer = GPT(size, **options, cache=True)
        return sample(writer, params, prompt, count, key, temperature=0.7)

    return Writer(GPT(size, **options, logits=False), lm_loss, write)


def _char_rnn(cell: str, size: int, widths: Sequence[int]) -> Writer:
    options: Any = {"cell": cell, "width": widths[0], "embed": 48}

    def write(params: Params, prompt: Array, count: int, key: Key) -> Array:
        writer = CharRNN(size, **options, return_final=True)
        return sample_recurrent(writer, params, prompt, count, key, temperature=0.7)

    return Writer(CharRNN(size, **options), cross_entropy, write)


def _writing(build: Callable, about: str, lr: float, width: int) -> Recipe:
    return Recipe(WRITING, build, about, "python-help", 1, lr, (width,), batch=32, clip=1.0)


def _unet(channels: int, widths: Sequence[int]) -> Layer:
    return UNet(channels, tuple(widths))


def _timed_unet(channels: int, widths: Sequence[int]) -> Layer:
    return UNet(channels, tuple(widths), time_width=32)


NETS = {
    "lenet": Recipe(
        CLASSIFYING, lambda outputs, widths: LeNet(outputs),
        "two convolutions and three dense layers, for images", "mnist5k", 15, 2e-3),
    "mlp": Recipe(
        CLASSIFYING._replace(job=partial(classify, smoothing=0.1)), _mlp,
        "dense layers with rectifiers, of any width and depth", "digits", 40, 1e-2, (256,)),
    "linear": Recipe(
        CLASSIFYING, lambda outputs, widths: serial(Flatten(), Dense(outputs)),
        "one dense layer: logistic, softmax or linear regression", "breast_cancer", 40, 1e-2),
    "resnet": Recipe(
        CLASSIFYING, lambda outputs, widths: ResNet(20, outputs),
        "a residual network of 20 layers, for images", "mnist5k", 4, 4e-3),
    "vit": Recipe(
        CLASSIFYING, _vit,
        "a transformer over patches of 4x4 pixels", "mnist5k", 15, 2e-3, (64,), clip=1.0),
    "unet": Recipe(
        DENOISING, _unet,
        "a U-shaped network that takes noise away from images", "digits", 20, 2e-3, (16, 32)),
    "gpt": _writing(_gpt, "a transformer that writes text, character by character", 3e-3, 128),
    "lstm": _writing(partial(_char_rnn, "lstm"), "the same with long short-term memory", 6e-3, 256),
    "gru": _writing(partial(_char_rnn, "gru"), "the same with gated recurrent units", 6e-3, 256),
    "rnn": _writing(partial(_char_rnn, "rnn"), "the same with a simple recurrence", 2e-3, 256),
    "vae": Recipe(
        ENCODING, None,
        "a variational auto-encoder that draws images", "mnist5k", 30, 1e-3, (400, 200)),
    "ddpm": Recipe(
        DIFFUSION, _timed_unet,
        "diffusion: draws images out of noise", "digits", 60, 2e-3, (32, 64)),
}  # fmt: skip
"""Each network's recipe by name."""
