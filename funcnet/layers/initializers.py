"""How parameters are drawn: `jax.nn.initializers`, and the few that it lacks.

An initialiser is a function `(key, shape, dtype) -> array`. Weights here are stored with inputs
before outputs, `(inputs, outputs)` and `(height, width, inputs, outputs)`, which is what the
variance-scaling family of JAX expects.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.nn.initializers import constant as constant
from jax.nn.initializers import glorot_normal as glorot_normal
from jax.nn.initializers import glorot_uniform as glorot_uniform
from jax.nn.initializers import he_normal as he_normal
from jax.nn.initializers import he_uniform as he_uniform
from jax.nn.initializers import lecun_normal as lecun_normal
from jax.nn.initializers import lecun_uniform as lecun_uniform
from jax.nn.initializers import normal as normal
from jax.nn.initializers import ones as ones
from jax.nn.initializers import orthogonal as orthogonal
from jax.nn.initializers import truncated_normal as truncated_normal
from jax.nn.initializers import uniform as uniform
from jax.nn.initializers import variance_scaling as variance_scaling
from jax.nn.initializers import zeros as zeros

from .. import tree
from ..nn import refusals
from ..nn.layer import Layer
from ..ops.shared.precision import one_array
from ..types import Array, Key, Params, require, shown

EXPECTED = "a function (key, shape, dtype) -> array"


def float_dtype(x: Array | jax.ShapeDtypeStruct) -> Any:
    """The dtype that parameters for an input take: its own if floating, else float32."""
    one_array("init", x)
    return x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else jnp.dtype(jnp.float32)


def features(where: str, x: Array | jax.ShapeDtypeStruct) -> int:
    """The length of the last axis of `x`, for which the layer `where` draws its parameters.

    Raises:
        TypeError: If `x` is not one array.
        ValueError: If it has no axis, or nothing along the last.

    >>> features("dense", jnp.ones((2, 3)))
    3
    """
    one_array(where, x)
    require(
        tuple(x.shape[-1:]) not in ((), (0,)),
        where,
        "x of rank 1 or more with features along its last axis",
        f"shape {tuple(x.shape)}",
        "The parameters are drawn for as many: give an example input such as jnp.zeros((1, 5)).",
    )
    return x.shape[-1]


def drawn(init: Any, key: Key, shape: Sequence[int], dtype: Any) -> Array:
    """`init(key, shape, dtype)`, if that is an array of this shape.

    Raises:
        TypeError: If `init` is no function, or gives something else: it makes one, and was not
            called.

    >>> drawn(ones, jax.random.key(0), (2,), jnp.float32).tolist()
    [1.0, 1.0]
    """
    remedy = "Pass one such as initializers.zeros or, with its call, initializers.he_normal()."
    known = callable(init) and refusals.takes(init, key, shape, dtype)
    require(known, "initializer", EXPECTED, shown(init), remedy, TypeError)
    array: Any = init(key, shape, dtype)
    require(
        getattr(array, "shape", None) == tuple(shape),
        "initializer",
        f"{EXPECTED} of shape {tuple(shape)}",
        f"{shown(init)}, which gives {shown(array)}",
        remedy,
        TypeError,
    )
    return array


def torch_linear(fan_in: int | None = None) -> Callable:
    """Uniform on ±1/√fan_in: what PyTorch draws both weights and biases of a linear layer from.

    Args:
        fan_in: Number of inputs to one output. Needed for a bias, whose shape does not tell it;
            for a weight it is the product of all axes but the last.

    Raises:
        ValueError: When it draws, if the shape has one axis and `fan_in` is None.

    >>> w = torch_linear()(jax.random.key(0), (400, 3), jnp.float32)
    >>> bool(jnp.abs(w).max() <= 0.05)
    True

    Reference: He et al., "Delving Deep into Rectifiers", 2015, equation 10, with a = √5.
    """

    def init(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        require(
            fan_in is not None or len(shape) > 1,
            "torch_linear",
            "fan_in for a bias",
            f"shape {tuple(shape)} alone",
            "Write torch_linear(fan_in), the number of inputs.",
        )
        bound = 1 / math.sqrt(max(1, fan_in or math.prod(shape[:-1])))
        return jax.random.uniform(key, tuple(shape), dtype, -bound, bound)

    return init


def scaled(init: Callable, factor: float) -> Callable:
    """`init` times `factor`: 1/√(2L) for the residual branches of a GPT of L blocks, 0 for none.

    >>> float(scaled(ones, 0.5)(jax.random.key(0), (), jnp.float32))
    0.5

    Reference: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019,
    section 2.3.
    """

    def draw(key: Key, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        return init(key, shape, dtype) * jnp.asarray(factor, dtype)

    return draw


def reinit(net: Layer, params: Params, pattern: str, key: Key, *inputs: Any) -> Params:
    """`params` with the leaves whose path matches `pattern` drawn anew.

    Args:
        net: The network that `params` belong to.
        params: Its parameters.
        pattern: A shell pattern over paths such as "block/dense_1/w"; `*` also crosses slashes.
        key: For the new values.
        *inputs: Example inputs, as for `net.init`.

    Raises:
        ValueError: If no path matches.

    >>> from funcnet.layers.linear import Dense
    >>> from funcnet.nn.combine import serial
    >>> net, x = serial(Dense(3), head=Dense(2)), jnp.ones((1, 4))
    >>> params, _ = net.init(jax.random.key(0), x)
    >>> new = reinit(net, params, "head/*", jax.random.key(1), x)
    >>> [bool((new[name]["w"] == params[name]["w"]).all()) for name in params]
    [True, False]
    """
    fresh, _ = net.init(key, *inputs)
    picks = tree.mask(params, pattern)
    return jax.tree.map(lambda old, new, pick: new if pick else old, params, fresh, picks)
