"""Norms that evaluate by running averages of the statistics they had in training."""

from collections.abc import Callable, Sequence
from numbers import Real

import jax
import jax.numpy as jnp

from ..nn.layer import Layer, take, take_state
from ..ops.norms.batch_norm import normalize
from ..ops.shared.masks import broadcasts, masked
from ..types import Array, Key, Params, State, require
from . import initializers


def initial(scale: bool, shift: bool) -> dict[str, Callable]:
    """How those of scale and shift are drawn that are learned.

    >>> list(initial(True, False))
    ['scale']
    """
    both = {"scale": initializers.ones, "shift": initializers.zeros}
    return {name: draw for (name, draw), on in zip(both.items(), (scale, shift), strict=True) if on}


def averaging_layer(
    name: str, statistics: Callable, learned: dict[str, Callable], decay: float, eps: float
) -> Layer:
    """A norm that takes its statistics from the input in training, and else their running averages.

    `statistics(x, scale, shift, where)` is the output, mean and variance, and at which channels
    there was enough to have them, None for all.
    """
    require(
        isinstance(decay, Real | jax.Array) and 0 <= decay <= 1,
        name,
        "a decay from 0 to 1",
        repr(decay),
        "It is the weight of the old average: 0.9 where PyTorch says momentum=0.1.",
    )

    def init(key: Key, x: Array, where: Array | None = None) -> tuple[Params, State]:
        channels, dtype = (initializers.features(name, x),), initializers.float_dtype(x)
        wide = jnp.promote_types(dtype, jnp.float32)
        params = {name: draw(key, channels, dtype) for name, draw in learned.items()}
        return params, {"mean": jnp.zeros(channels, wide), "var": jnp.ones(channels, wide)}

    def apply(
        params: Params,
        state: State,
        x: Array,
        where: Array | None = None,
        *,
        train: bool = False,
        key: Key | None = None,
    ) -> tuple[Array, State]:
        given = dict(zip(learned, take(name, params, *learned), strict=True))
        affine = given.get("scale"), given.get("shift")
        mean, var = old = take_state(name, state, "mean", "var")
        if not train:
            broadcasts(name, x, where)
            y = normalize(masked(x, where), mean, var, *affine, eps=eps)
            return masked(y, where), state
        y, *batch, enough = statistics(x, *affine, where)
        _check_averages(name, mean, var, batch[0])
        return y, _moved(old, batch, enough, decay)

    return Layer(init, apply, name)


def _check_averages(where: str, old_mean: Array, old_var: Array, mean: Array) -> None:
    for name, average in (("mean", old_mean), ("var", old_var)):
        require(
            jnp.shape(average) == mean.shape,
            where,
            f"{name} of shape {mean.shape}, one for each channel of x",
            f"shape {jnp.shape(average)}",
            "Use the state from this network's own net.init(key, x).",
        )


def unbiased(var: Array, n: Array | int) -> Array:
    """n / (n - 1) times a biased variance, where that is a number."""
    return var * (n / jnp.maximum(n - 1, 1))


def _moved(
    old: Sequence[Array], batch: Sequence[Array], enough: Array | None, decay: float
) -> dict[str, Array]:
    """The running mean and variance after a batch, at those channels of which it had enough."""
    new = [
        decay * a + (1 - decay) * jax.lax.stop_gradient(b) for a, b in zip(old, batch, strict=True)
    ]
    if enough is not None:
        new = [jnp.where(enough, b, a) for a, b in zip(old, new, strict=True)]
    pairs = zip(("mean", "var"), old, new, strict=True)
    return {name: b.astype(a.dtype) for name, a, b in pairs}
