"""Normalisation layers."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..layer import Layer, take, take_state
from ..ops import norm
from ..types import Array, Key, Params, State, require
from . import initializers


def BatchNorm(
    *,
    decay: float = 0.9,
    eps: float = 1e-5,
    scale: bool = True,
    shift: bool = True,
    unbiased_running_var: bool = False,
) -> Layer:
    """(x - mean) / √(var + eps) scale + shift, channel by channel, the channels last.

    In training the mean and the variance are those of the batch, and the running averages in the
    state move towards them; otherwise they are the running averages, which start from 0 and 1.

    Args:
        decay: Weight of the old running average: `new = decay * old + (1 - decay) * batch`. What
            PyTorch calls momentum is 1 - decay.
        eps: Added to the variance.
        scale: Whether to multiply by a learned `scale`.
        shift: Whether to add a learned `shift`.
        unbiased_running_var: Whether the running variance takes n / (n - 1) times the batch's, as
            PyTorch's does; the batch itself is always normalised by the biased one.

    Returns:
        A layer named "batch_norm", with parameters `scale` and `shift` and state `mean` and `var`,
        each `(channels,)`; the state is float32 at least.

    Raises:
        ValueError: If `decay` is outside 0 to 1, when applied without the state, or in training
            with one value for each channel.

    >>> x = jnp.array([[1.0], [3.0]])
    >>> net = BatchNorm()
    >>> params, state = net.init(jax.random.key(0), x)
    >>> y, state = net.apply(params, state, x, train=True)
    >>> for name, leaf in state.items():
    ...     print(name, leaf)
    mean [0.2]
    var [1.]

    Reference: Ioffe & Szegedy, "Batch Normalization: Accelerating Deep Network Training by
    Reducing Internal Covariate Shift", 2015, algorithms 1 and 2.
    """
    require(
        0 <= decay <= 1,
        "batch_norm",
        "a decay from 0 to 1",
        decay,
        "It is the weight of the old average: 0.9 where PyTorch says momentum=0.1.",
    )
    initial: dict[str, Callable] = {}
    initial.update({"scale": initializers.ones} if scale else {})
    initial.update({"shift": initializers.zeros} if shift else {})

    def init(key: Key, x: Array) -> tuple[Params, State]:
        dtype, channels = initializers.float_dtype(x), (x.shape[-1],)
        wide = jnp.promote_types(dtype, jnp.float32)
        params = {name: draw(key, channels, dtype) for name, draw in initial.items()}
        return params, {"mean": jnp.zeros(channels, wide), "var": jnp.ones(channels, wide)}

    def apply(
        params: Params, state: State, x: Array, *, train: bool = False, key: Key | None = None
    ) -> tuple[Array, State]:
        given = dict(zip(initial, take("batch_norm", params, *initial), strict=True))
        learned = given.get("scale"), given.get("shift")
        old = dict(
            zip(("mean", "var"), take_state("batch_norm", state, "mean", "var"), strict=True)
        )
        if not train:
            return norm.normalize(x, old["mean"], old["var"], *learned, eps=eps), state
        n = math.prod(jnp.shape(x)[:-1])
        require(
            n > 1,
            "batch_norm",
            "more than one value for each channel in training",
            f"shape {jnp.shape(x)}",
            "The variance of one value is 0: use a larger batch, or train=False.",
        )
        y, mean, var = norm.batch_norm(x, *learned, eps=eps)
        batch = {"mean": mean, "var": var * (n / (n - 1)) if unbiased_running_var else var}
        return y, {name: _moved(old[name], batch[name], decay) for name in old}

    return Layer(init, apply, "batch_norm")


def _moved(old: Array, batch: Array, decay: float) -> Array:
    new = decay * old + (1 - decay) * jax.lax.stop_gradient(batch)
    return new.astype(old.dtype)
