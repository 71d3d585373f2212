"""Denoising diffusion: noise that a network learns to take away, from pure noise to an example."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..nn.combine import network
from ..nn.layer import Layer, lift, need_key
from ..types import Array, Key, Params, require


def DDPM(net: Layer, betas: Any) -> Layer:
    """A network as a denoiser in training: noise is added to x, and `net` says which.

    Each example gets one step t of the diffusion, drawn evenly, and
    x_t = √ᾱ x + √(1 - ᾱ) noise, with ᾱ the product of 1 - β up to t. The mean square of the
    difference between the two outputs is the loss: `squared_error(*output)`.

    Args:
        net: Takes `(x_t, t)`, with t integers `(batch,)` from 0, to the shape of x; such as
            `UNet(..., time_width=64)`.
        betas: β of each step, as `noise_schedule` gives it.

    Returns:
        A layer named "ddpm": x, with numbers about from -1 to 1, to `(predicted, noise)`. In
        training it needs a key; in use the draws are always the same, so that two evaluations
        compare. The parameters of `net` are under "net".

    Raises:
        TypeError: If `net` is no layer or function.
        ValueError: In training without a key.

    >>> from funcnet.nets.noise import noise_schedule
    >>> from funcnet.nets.unet import UNet
    >>> x = jnp.zeros((2, 8, 8, 1))
    >>> net = DDPM(UNet(1, (8,), time_width=8), noise_schedule(100))
    >>> params, _ = net.init(jax.random.key(0), x)
    >>> predicted, noise = net(params, x)
    >>> predicted.shape == noise.shape == x.shape
    True

    Reference: Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", 2020, equation 14.
    """
    left = np.cumprod(1 - np.asarray(betas, np.float64)).astype(np.float32)

    @network(net=lift(net, "ddpm"))
    def ddpm(bound: Any, x: Array) -> tuple[Array, Array]:
        key = need_key("ddpm", bound.key) if bound.train else jax.random.key(0)
        time_key, noise_key = jax.random.split(key)
        t = jax.random.randint(time_key, x.shape[:1], 0, len(left))
        noise = jax.random.normal(noise_key, x.shape, x.dtype)
        share = jnp.asarray(left, x.dtype)[t].reshape(-1, *[1] * (x.ndim - 1))
        noisy = jnp.sqrt(share) * x + jnp.sqrt(1 - share) * noise
        return bound.net(noisy, t), noise

    return ddpm


def sample_ddpm(
    net: Layer,
    params: Params,
    betas: Any,
    shape: tuple[int, ...],
    key: Key,
    *,
    clip: float | None = 1.0,
) -> Array:
    """Examples out of noise: the steps of the diffusion backwards, as one `jax.lax.scan`.

    Args:
        net: The denoiser itself, which takes `(x_t, t)`.
        params: Its parameters: of a trained `DDPM`, those under "net".
        betas: β of each step, as in training.
        shape: What to draw: `(n, *shape of an example)`.
        key: For the draws.
        clip: How far from 0 the numbers of an example lie at most, to which each step's guess of
            it is held; None for no limit, which is the algorithm to the letter.

    Returns:
        An array of this shape, float32.

    Raises:
        ValueError: If `betas` is no list of numbers above 0 and below 1.

    >>> from funcnet.nets.noise import noise_schedule
    >>> betas = noise_schedule(10)
    >>> nothing = lift(lambda x, t: jnp.zeros_like(x))
    >>> sample_ddpm(nothing, {}, betas, (2, 4), jax.random.key(0)).shape
    (2, 4)

    Reference: Ho, Jain & Abbeel, "Denoising Diffusion Probabilistic Models", 2020, algorithm 2,
        with the variance of equation 7.
    """
    known = np.asarray(betas, np.float64)
    require(
        known.ndim == 1 and known.size and known.min() > 0 and known.max() < 1,
        "sample_ddpm",
        "betas of shape (steps,), above 0 and below 1",
        f"shape {known.shape}, from {known.min(initial=1):g} to {known.max(initial=0):g}",
        "Make them with noise_schedule(1000).",
    )
    left = np.cumprod(1 - known)
    before = np.append(1, left[:-1])
    # Weights of the guessed example, of x_t and of the noise in x_{t-1}; and ᾱ for the guess.
    table = (
        np.sqrt(before) * known / (1 - left),
        np.sqrt(1 - known) * (1 - before) / (1 - left),
        np.sqrt(known * (1 - before) / (1 - left)),
        left,
    )
    table = jnp.asarray(np.stack(table, 1), jnp.float32)
    return _sample(net, tuple(shape), clip, params, table, key)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _sample(
    net: Layer, shape: tuple[int, ...], clip: float | None, params: Params, table: Array, key: Key
) -> Array:
    first, key = jax.random.split(key)

    def step(x: Array, inputs: tuple) -> tuple[Array, None]:
        t, (of_guess, of_x, of_noise, left) = inputs
        predicted = net(params, x, jnp.full(shape[:1], t))
        guess = (x - jnp.sqrt(1 - left) * predicted) / jnp.sqrt(left)
        guess = guess if clip is None else jnp.clip(guess, -clip, clip)
        noise = jax.random.normal(jax.random.fold_in(key, t), shape, x.dtype)
        return of_guess * guess + of_x * x + of_noise * noise, None

    steps = jnp.arange(len(table))
    start = jax.random.normal(first, shape, jnp.float32)
    x, _ = jax.lax.scan(step, start, (steps, tuple(table.T)), reverse=True)
    return x
