"""Normalisation layers."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..nn import refusals
from ..nn.layer import Layer, pure, stateless, take
from ..ops.norms.batch_norm import batch_norm
from ..ops.norms.checks import counted_channels
from ..ops.norms.group_norm import group_norm, instance_norm
from ..ops.norms.layer_norm import layer_norm, rms_norm
from ..ops.norms.response import local_response_norm
from ..ops.shared.masks import count_along, masked
from ..types import Array, Key, Params, require, shown
from . import initializers
from .averages import averaging_layer, initial, unbiased


def norm_of(where: str, norm: Any) -> Layer:
    """`norm()`, if that is a layer.

    Raises:
        TypeError: If `norm` is a layer already, or wants arguments.

    >>> norm_of("block", LayerNorm).name
    'layer_norm'
    """
    layer: Any = None
    if callable(norm) and refusals.takes(norm):
        layer = norm()
    require(
        isinstance(layer, Layer),
        where,
        "norm to be what makes a norm when called without arguments, such as LayerNorm",
        shown(norm),
        "Write norm=LayerNorm, or norm=partial(GroupNorm, 8) to fill in what it wants.",
        TypeError,
    )
    return layer


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
    Inputs are x and perhaps a mask `where`, booleans that broadcast to x: what it leaves out has no
    effect on anything, may be anything, and gives 0. A channel of which it leaves fewer than two
    values keeps its running averages.

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
        TypeError: When applied, if `where` is not boolean.
        ValueError: If `decay` is outside 0 to 1; when applied without the state, with a `where`
            that does not broadcast to x, or in training to a batch that has one value for each
            channel or, as an empty one, none.

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

    def batch(x: Array, scale: Array | None, shift: Array | None, where: Array | None) -> tuple:
        require(
            math.prod(jnp.shape(x)[:-1]) > 1,
            "batch_norm",
            "more than one value for each channel in training",
            f"shape {jnp.shape(x)}",
            "The variance of one value is 0: use a larger batch, or train=False.",
        )
        y, mean, var = batch_norm(x, scale, shift, where, eps=eps)
        n = count_along(x, where, range(x.ndim - 1))
        n = n if isinstance(n, int) else n.reshape(-1)
        var = unbiased(var, n) if unbiased_running_var else var
        return y, mean, var, None if isinstance(n, int) else n > 1

    return averaging_layer("batch_norm", batch, initial(scale, shift), decay, eps)


def _affine_layer(name: str, op: Callable, scale: bool, shift: bool) -> Layer:
    """`op(x, scale, shift)` with those of the two that are learned, one for each channel."""
    learned = initial(scale, shift)

    def init(key: Key, x: Array) -> Params:
        dtype = initializers.float_dtype(x)
        return {name: draw(key, x.shape[-1:], dtype) for name, draw in learned.items()}

    def apply(params: Params, x: Array) -> Array:
        given = dict(zip(learned, take(name, params, *learned), strict=True))
        return op(x, given.get("scale"), given.get("shift"))

    return stateless(init, apply, name)


def _masked_layer(name: str, op: Callable, scale: bool, shift: bool) -> Layer:
    """The same of x and a mask, which `op` takes last."""

    def of(where: Array | None) -> Layer:
        return _affine_layer(name, lambda x, *learned: op(x, *learned, where), scale, shift)

    def init(key: Key, x: Array, where: Array | None = None) -> Params:
        return of(where).init(key, x)[0]

    def apply(params: Params, x: Array, where: Array | None = None) -> Array:
        return of(where)(params, x)

    return stateless(init, apply, name)


def LayerNorm(*, eps: float = 1e-5, scale: bool = True, shift: bool = True) -> Layer:
    """(x - mean) / √(var + eps) scale + shift, along the last axis.

    Args:
        eps: Added to the variance; Flax takes 1e-6 and Keras 1e-3.
        scale: Whether to multiply by a learned `scale`.
        shift: Whether to add a learned `shift`.

    Returns:
        A layer named "layer_norm", with parameters `scale` and `shift`, each `(width,)`.

    >>> x = jnp.array([[1.0, 3.0]])
    >>> params, _ = LayerNorm().init(jax.random.key(0), x)
    >>> LayerNorm()(params, x).round(3).tolist()
    [[-1.0, 1.0]]

    Reference: Ba, Kiros & Hinton, "Layer Normalization", 2016.
    """
    op = functools.partial(layer_norm, eps=eps)
    return _affine_layer("layer_norm", op, scale, shift)


def RMSNorm(*, eps: float = 1e-6, scale: bool = True) -> Layer:
    """x / √(mean(x²) + eps) scale, along the last axis.

    Args:
        eps: Added to the mean square.
        scale: Whether to multiply by a learned `scale`.

    Returns:
        A layer named "rms_norm", with the parameter `scale`, `(width,)`.

    >>> x = jnp.array([[3.0, -3.0]])
    >>> params, _ = RMSNorm().init(jax.random.key(0), x)
    >>> RMSNorm()(params, x).round(3).tolist()
    [[1.0, -1.0]]

    Reference: Zhang & Sennrich, "Root Mean Square Layer Normalization", 2019.
    """

    def op(x: Array, scale: Array | None, shift: None) -> Array:
        return rms_norm(x, scale, eps=eps)

    return _affine_layer("rms_norm", op, scale, False)


def GroupNorm(groups: int, *, eps: float = 1e-5, scale: bool = True, shift: bool = True) -> Layer:
    """(x - mean) / √(var + eps) scale + shift, each example and group of channels on its own.

    Args:
        groups: Number of groups; it has to divide the number of channels.
        eps: Added to the variance; Flax takes 1e-6 and Keras 1e-3.
        scale: Whether to multiply by a learned `scale`.
        shift: Whether to add a learned `shift`.

    Returns:
        A layer named "group_norm" on `(batch, *spatial, channels)`, and on the mask `where` if one
        is given, with parameters `scale` and `shift`, each `(channels,)`.

    Raises:
        TypeError: When applied, if `where` is not boolean.
        ValueError: When applied, if `groups` does not divide the channels, or `where` does not
            broadcast to x.

    >>> x = jnp.array([[1.0, 3.0, 7.0, 5.0]])
    >>> params, _ = GroupNorm(2).init(jax.random.key(0), x)
    >>> GroupNorm(2)(params, x).round(3).tolist()
    [[-1.0, 1.0, 1.0, -1.0]]

    Reference: Wu & He, "Group Normalization", 2018.
    """
    op = functools.partial(group_norm, groups=groups, eps=eps)
    return _masked_layer("group_norm", op, scale, shift)


def InstanceNorm(
    *,
    eps: float = 1e-5,
    scale: bool = True,
    shift: bool = True,
    track_running_stats: bool = False,
    decay: float = 0.9,
    unbiased_running_var: bool = False,
) -> Layer:
    """(x - mean) / √(var + eps) scale + shift, each example and channel on its own.

    With `track_running_stats` these statistics are those of training alone, and running averages of
    them those of evaluation, as in `BatchNorm`: each batch moves the averages towards the mean of
    its examples' means and variances. An example of which `where` leaves fewer than two places of a
    channel is not among them.

    Args:
        eps: Added to the variance.
        scale: Whether to multiply by a learned `scale`; PyTorch's default is not to.
        shift: Whether to add a learned `shift`; PyTorch's default is not to.
        track_running_stats: Whether to keep running averages and evaluate by them.
        decay: Weight of the old running average: 0.9 where PyTorch says momentum=0.1.
        unbiased_running_var: Whether the running variance takes n / (n - 1) times that of an
            example's n places, as PyTorch's does.

    Returns:
        A layer named "instance_norm" on `(batch, *spatial, channels)`, and on the mask `where` if
        one is given, with parameters `scale` and `shift` and, with `track_running_stats`, state
        `mean` and `var`, each `(channels,)`; the state is float32 at least.

    Raises:
        TypeError: When applied, if `where` is not boolean.
        ValueError: When applied, if `where` does not broadcast to x; with `track_running_stats`, if
            `decay` is outside 0 to 1, when applied without the state, or in training to no example
            or to examples of one place.

    >>> x = jnp.array([[[1.0], [3.0]]])
    >>> params, _ = InstanceNorm().init(jax.random.key(0), x)
    >>> InstanceNorm()(params, x).round(3).ravel().tolist()
    [-1.0, 1.0]

    Reference: Ulyanov, Vedaldi & Lempitsky, "Instance Normalization: The Missing Ingredient for
    Fast Stylization", 2016.
    """
    if not track_running_stats:
        op = functools.partial(instance_norm, eps=eps)
        return _masked_layer("instance_norm", op, scale, shift)

    def batch(x: Array, scale: Array | None, shift: Array | None, where: Array | None) -> tuple:
        counted_channels(3)("instance_norm", x=x, scale=scale, shift=shift, where=where)
        require(
            len(x) > 0 and math.prod(x.shape[1:-1]) > 1,
            "instance_norm",
            "examples with more than one place in training",
            f"shape {x.shape}",
            "The variance of one value is 0: use larger inputs, or train=False.",
        )
        y, mean, var, n = _by_example(x, scale, shift, where, eps)
        var = unbiased(var, n) if unbiased_running_var else var
        if isinstance(n, int):
            return y, mean.mean(0), var.mean(0), None
        enough = jnp.broadcast_to(n > 1, mean.shape)
        examples = jnp.maximum(enough.sum(0), 1)
        mean, var = (masked(v, enough).sum(0) / examples for v in (mean, var))
        return y, mean, var, enough.any(0)

    return averaging_layer("instance_norm", batch, initial(scale, shift), decay, eps)


def _by_example(
    x: Array, scale: Array | None, shift: Array | None, where: Array | None, eps: float
) -> tuple[Array, Array, Array, Array | int]:
    """The output of `instance_norm`; of each example the mean, the variance, and of how many."""
    n, counts = count_along(x, where, range(1, x.ndim - 1)), None
    if where is not None:
        counts = jnp.broadcast_to(where, (*x.shape[:-1], *(jnp.shape(where)[-1:] or (1,))))
    each = jax.vmap(
        lambda x, counts: batch_norm(x, scale, shift, counts, eps=eps),
        (0, None if where is None else 0),
    )
    x = jnp.asarray(x)  # of one of NumPy, vmap makes a constant that jit refuses
    return *each(x, counts), n if isinstance(n, int) else n.reshape(n.shape[0], n.shape[-1])


def LocalResponseNorm(
    size: int = 5, *, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
) -> Layer:
    """x / (k + alpha Σ x²)^beta, over the channels around each; see `fn.local_response_norm`.

    Args:
        size: The number of channels in a sum.
        k: Above 0.
        alpha: The weight of the sum.
        beta: The exponent.

    Returns:
        A layer named "local_response_norm" on `(..., channels)`.

    Raises:
        TypeError: When applied, if x is not floating.
        ValueError: When applied, if the size is no whole number of 1 or more, or k not above 0.

    >>> LocalResponseNorm(1, k=1.0, alpha=1.0, beta=1.0)({}, jnp.array([[3.0, 1.0]]))
    Array([[0.3, 0.5]], dtype=float32)
    """
    options = {"size": size, "k": k, "alpha": alpha, "beta": beta}
    return pure(functools.partial(local_response_norm, **options), "local_response_norm")
