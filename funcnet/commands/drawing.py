"""Networks of images: those that take noise away, encode and decode, and draw."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import plot
from ..feed.named import load_data
from ..nets.ddpm import DDPM, sample_ddpm
from ..nets.noise import noise_schedule
from ..nets.vae import VAE, negative_elbo
from ..nn.layer import Layer
from ..ops.activations.smooth import sigmoid
from ..ops.losses.distances import squared_error
from ..train.evaluate import evaluate
from ..train.state import TrainState
from ..types import require
from .jobs import Asked, Findings, Job, Kind, in_parts

Build = Callable[[int, Sequence[int]], Layer]
LATENT, STEPS = 16, 200
"""The numbers of a code, and the steps of diffusion."""


def denoise(build: Build, asked: Asked) -> Job:
    """Take noise away from images; `build(channels, widths)`."""
    name, *clean = _images(asked)
    random = np.random.default_rng(0)
    noisy = [x + 0.5 * random.standard_normal(x.shape, np.float32) for x in clean]
    channels = clean[0].shape[-1]
    net = build(channels, asked.width)
    train, test = ((x, y) for x, y in zip(noisy, clean, strict=True))

    def judge(out: Path, trained: TrainState) -> Findings:
        outputs = in_parts(net, trained, test[0])
        rows = np.concatenate([test[0][:12], outputs[:12], test[1][:12]])
        plot.images(rows.clip(0, 1), out / "samples.png", title="Noisy, cleaned, and clean")
        loss = float(((outputs - test[1]) ** 2).mean())
        return Findings({"psnr": float(-10 * np.log10(loss)), "loss": loss}, {"samples.png"})

    return Job(net, squared_error, {}, name, train, test, judge, {"size": channels})


def encode(build: None, asked: Asked) -> Job:
    """A variational auto-encoder of images, which then draws some."""
    name, train, test = _images(asked)
    shape = train.shape[1:]
    net, decoder = (VAE(LATENT, shape, widths=asked.width, decode=d) for d in (False, True))

    def judge(out: Path, trained: TrainState) -> Findings:
        codes = jax.random.normal(jax.random.key(1), (24, LATENT))
        logits, _, _ = net(trained.params, jnp.asarray(test[:12]))
        again, drawn = sigmoid(logits), sigmoid(decoder(trained.params, codes))
        rows = np.concatenate([test[:12], again, drawn])
        plot.images(rows, out / "samples.png", title="Held out, decoded, and two rows drawn")
        loss = evaluate(net, negative_elbo, trained, (test, test))["loss"]
        return Findings({"loss": loss}, {"samples.png"})

    data, held = (train, train), (test, test)
    return Job(net, negative_elbo, {}, name, data, held, judge, {"size": list(shape)})


def diffuse(build: Build, asked: Asked) -> Job:
    """Diffusion: learn to tell the noise in an image, then draw images; `build(channels, widths)`.

    `build` gives the network that takes a noisy image and the time.
    """
    name, *parts = _images(asked)
    train, test = (2 * part - 1 for part in parts)
    betas = noise_schedule(STEPS, "cosine")
    channels = train.shape[-1]
    inner = build(channels, asked.width)
    net = DDPM(inner, betas)

    def judge(out: Path, trained: TrainState) -> Findings:
        shape, key = (48, *train.shape[1:]), jax.random.key(1)
        drawn = sample_ddpm(inner, trained.params["net"], betas, shape, key)
        plot.images(drawn, out / "samples.png", title="Images out of noise")
        return Findings(evaluate(net, _missed, trained, (test, test)), {"samples.png"})

    data, held = (train, train), (test, test)
    return Job(net, _missed, {}, name, data, held, judge, {"size": channels})


def _missed(output: tuple, target: Any) -> Any:
    """The squared error of the noise that the network saw; the image itself is no target."""
    return squared_error(*output)


def _images(asked: Asked) -> tuple[str, np.ndarray, np.ndarray]:
    """The data's name, and its images to learn from and held out."""
    data = load_data(asked.data)
    train, test = data.train[0], data.test[0]
    require(
        train.ndim == 4,
        "train",
        "images (n, height, width, channels) for this network",
        f"{asked.data} of shape {train.shape}",
        "Choose digits, mnist5k, fashion-mnist or a folder of images.",
    )
    if asked.run is not None:
        shape = tuple(asked.run["input"]["shape"])
        require(
            train.shape[1:] == shape,
            "evaluate",
            f"images of shape {shape}, as the run's own",
            f"{train.shape[1:]} in {data.name}",
            "Choose data of the same kind.",
        )
    return data.name, train, np.concatenate([train, test]) if asked.other else test


DENOISING = Kind(denoise, lambda build, size, widths: build(size, widths))
ENCODING = Kind(encode, lambda build, size, widths: VAE(LATENT, tuple(size), widths=tuple(widths)))
DIFFUSION = Kind(
    diffuse,
    lambda build, size, widths: DDPM(build(size, widths), noise_schedule(STEPS, "cosine")),
)
