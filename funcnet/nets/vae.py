"""The variational auto-encoder: examples as a cloud of codes, and codes as examples."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..layers.conv import Flatten
from ..layers.linear import Dense
from ..nn.combine import network, serial
from ..nn.layer import Layer, need_key
from ..ops.activations.rectifiers import relu
from ..ops.losses.distances import binary_cross_entropy
from ..ops.losses.divergence import gaussian_kl
from ..types import Array, is_whole, require, shown
from .mlp import MLP


def VAE(
    latent: int,
    shape: Sequence[int],
    *,
    encoder: Layer | Callable | None = None,
    decoder: Layer | Callable | None = None,
    widths: Sequence[int] = (256,),
    activation: Callable = relu,
    decode: bool = False,
) -> Layer:
    """A variational auto-encoder with Gaussian codes and a coin for each number of an example.

    The code of an example is drawn from a Gaussian in training, as mean + deviation · noise, so
    that the gradient passes through the draw; in use it is the mean. Its criterion is
    `negative_elbo`.

    Args:
        latent: Length of a code.
        shape: Of one example, such as (28, 28, 1), with numbers from 0 to 1.
        encoder: From examples to features `(batch, features)`; dense layers of `widths` if None.
        decoder: From codes to logits, as many as an example has numbers; dense layers of `widths`
            in reverse if None.
        widths: Hidden units.
        activation: Between the dense layers.
        decode: Whether to be the half that takes codes `(batch, latent)` to logits
            `(batch, *shape)`, with the parameters of the whole: codes drawn from the standard
            normal give samples.

    Returns:
        A layer named "vae" from examples `(batch, *shape)` to `(logits, mean, log_var)`; in
        training it needs a key.

    Raises:
        TypeError: If `encoder`, `decoder` or the activation is neither a layer nor a function.
        ValueError: If `latent` is no whole number of 1 or more, when applied to examples of
            another shape, or in training without a key.

    >>> x = jnp.zeros((5, 8, 8, 1))
    >>> net, decoder = (VAE(2, (8, 8, 1), widths=(16,), decode=d) for d in (False, True))
    >>> params, _ = net.init(jax.random.key(0), x)
    >>> logits, mean, log_var = net(params, x)
    >>> logits.shape, mean.shape, decoder(params, jnp.zeros((3, 2))).shape
    ((5, 8, 8, 1), (5, 2), (3, 8, 8, 1))

    Reference: Kingma & Welling, "Auto-Encoding Variational Bayes", 2014, section 3 and appendix C.
    """
    require(
        is_whole(latent),
        "VAE",
        "a latent that is a whole number of 1 or more",
        shown(latent),
        "It is the length of a code.",
    )
    shape, widths = tuple(shape), tuple(widths)
    if encoder is None:
        encoder = serial(Flatten(), MLP(widths, activation=activation, output=activation))
    if decoder is None:
        decoder = MLP((*widths[::-1], math.prod(shape)), activation=activation)

    @network(encoder=encoder, code=Dense(2 * latent), decoder=decoder)
    def vae(net: Any, x: Array) -> Any:
        if decode:
            return net.decoder(x).reshape(len(x), *shape)
        require(
            x.shape[1:] == shape,
            "vae",
            f"examples of shape {shape}",
            f"shape {x.shape[1:]}",
            "Give that shape to VAE.",
        )
        mean, log_var = jnp.split(net.code(net.encoder(x)), 2, -1)
        code = mean
        if net.train:
            noise = jax.random.normal(need_key("vae", net.key), mean.shape, mean.dtype)
            code = mean + jnp.exp(log_var / 2) * noise
        return net.decoder(code).reshape(x.shape), mean, log_var

    return vae


def negative_elbo(output: tuple[Array, Array, Array], x: Array, *, beta: float = 1.0) -> Array:
    """-ln p(x | code) + beta · KL: a bound on -ln p(x) in nats, as a mean over the examples.

    Args:
        output: `(logits, mean, log_var)`, as `VAE` gives them.
        x: The examples, numbers from 0 to 1.
        beta: Weight of the divergence of the codes from the standard normal.

    Returns:
        A scalar: a criterion for `fit`, with x as the target.

    Raises:
        ValueError: If the shapes do not fit, or concrete numbers are out of range.

    >>> zeros = jnp.zeros((5, 2))
    >>> loss = negative_elbo((jnp.zeros((5, 3)), zeros, zeros), jnp.ones((5, 3)))
    >>> print(f"{loss:.4f}")  # three coins: 3 ln 2
    2.0794

    Reference: Kingma & Welling, "Auto-Encoding Variational Bayes", 2014, equation 10; Higgins et
        al., "beta-VAE", 2017 (beta).
    """
    logits, mean, log_var = output
    coins = binary_cross_entropy(logits, x, reduction="sum") / max(len(x), 1)
    return coins + beta * gaussian_kl(mean, log_var)
