"""Networks of `fn.nets` at small sizes, each with its loss: there is nothing wrong with any."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp

import funcnet as fn

KEY = jax.random.key(0)
IDS = jnp.arange(10).reshape(2, 5) % 7
IMAGES = jnp.linspace(0, 1, 2 * 16 * 16).reshape(2, 16, 16, 1)
LABELS = jnp.array([1, 2])


def _squares(output, target):
    return fn.squared_error(output, target)


def _noise(output, _):
    return fn.squared_error(*output)


NETWORKS: dict[str, tuple[Callable, tuple, Callable, object]] = {
    "MLP": (lambda: fn.nets.MLP((8, 3)), (jnp.ones((2, 5)),), fn.cross_entropy, LABELS),
    "LeNet": (
        lambda: fn.nets.LeNet(3), (jnp.zeros((2, 32, 32, 1)) + 0.5,), fn.cross_entropy, LABELS,
    ),
    "ResNet": (
        lambda: fn.nets.ResNet(8, 3), (jnp.ones((2, 8, 8, 3)),), fn.cross_entropy, LABELS,
    ),
    "UNet": (
        lambda: fn.nets.UNet(1, (8, 16), time_width=8), (IMAGES, jnp.array([3, 5])), _squares,
        IMAGES,
    ),
    "ViT": (
        lambda: fn.nets.ViT(3, patch=4, width=16, depth=2, heads=2), (IMAGES,), fn.cross_entropy,
        LABELS,
    ),
    "GPT": (
        lambda: fn.nets.GPT(7, width=16, depth=2, heads=2, length=8, logits=False), (IDS,),
        fn.nets.lm_loss, IDS,
    ),
    "BERT": (
        lambda: fn.nets.BERT(7, width=8, depth=2, heads=2, length=8, head="classes", outputs=3),
        (IDS, IDS > 0), fn.cross_entropy, LABELS,
    ),
    "EncoderDecoder": (
        lambda: fn.nets.EncoderDecoder(7, width=8, depth=1, heads=2, length=8), (IDS, IDS),
        fn.cross_entropy, IDS,
    ),
    "CharRNN": (lambda: fn.nets.CharRNN(7, width=8), (IDS,), fn.cross_entropy, IDS),
    "VAE": (
        lambda: fn.nets.VAE(2, (16, 16, 1), widths=(8,)), (IMAGES,), fn.nets.negative_elbo, IMAGES,
    ),
    "DDPM": (
        lambda: fn.nets.DDPM(fn.nets.UNet(1, (8,), time_width=8), fn.nets.noise_schedule(10)),
        (IMAGES,), _noise, None,
    ),
}  # fmt: skip


def losses(names: tuple[str, ...] = tuple(NETWORKS)) -> Iterator[tuple[str, Callable, tuple]]:
    """Each network's loss in training, a function of its parameters and inputs, and those."""
    for name in names:
        make, inputs, criterion, target = NETWORKS[name]
        net = make()
        params, state = net.init(KEY, *inputs)

        def loss(params, state, *inputs, net=net, criterion=criterion, target=target):
            output, _ = net.apply(params, state, *inputs, train=True, key=KEY)
            return criterion(output, target)

        yield name, loss, (params, state, *inputs)
