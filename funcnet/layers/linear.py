"""Dense maps and embeddings."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..nn.layer import Layer, stateless, take
from ..ops.products.linear import dense, embed
from ..types import Array, Key, Params, is_whole, require, shown
from . import initializers
from .initializers import drawn


def Dense(
    width: int,
    *,
    bias: bool = True,
    w_init: Callable = initializers.lecun_normal(),
    b_init: Callable = initializers.zeros,
) -> Layer:
    """x w + b over the last axis, to `width` outputs; the number of inputs is inferred.

    Args:
        width: Number of outputs.
        bias: Whether to add `b`.
        w_init: `(key, shape, dtype) -> array` for `w`, of shape `(inputs, width)`.
        b_init: The same for `b`, of shape `(width,)`.

    Returns:
        A layer named "dense", with parameters `w` and, unless `bias` is false, `b`.

    Raises:
        TypeError: At `init`, if an initialiser is no function or gives another shape.
        ValueError: If `width` is no whole number of 1 or more; when applied, if the last axis has
            another length than at `init`.

    >>> params, _ = Dense(4).init(jax.random.key(0), jnp.ones((2, 3)))
    >>> jax.tree.map(jnp.shape, params)
    {'b': (4,), 'w': (3, 4)}
    """
    require(
        is_whole(width),
        "dense",
        "a width that is a whole number of 1 or more",
        shown(width),
        "It is the number of outputs.",
    )

    def init(key: Key, x: Array) -> Params:
        w_key, b_key = jax.random.split(key)
        inputs, dtype = initializers.features("dense", x), initializers.float_dtype(x)
        params = {"w": drawn(w_init, w_key, (inputs, width), dtype)}
        return {**params, "b": drawn(b_init, b_key, (width,), dtype)} if bias else params

    def apply(params: Params, x: Array) -> Array:
        (w,) = take("dense", params, "w")
        return dense(x, w, params.get("b"))

    return stateless(init, apply, "dense")


def Embed(entries: int, width: int, *, init: Callable = initializers.normal(1.0)) -> Layer:
    """The rows of a learned table at integer ids.

    Args:
        entries: Number of rows; ids run from 0 to entries - 1.
        width: Length of a row.
        init: `(key, shape, dtype) -> array` for the table.

    Returns:
        A layer named "embed", with the parameter `table`.

    Raises:
        TypeError: When applied, if the ids are not integers.
        ValueError: If `entries` or `width` is no whole number of 1 or more; when applied, if a
            concrete id is out of range.

    >>> ids = jnp.array([[1, 4, 1]])
    >>> params, _ = Embed(5, 8).init(jax.random.key(0), ids)
    >>> Embed(5, 8)(params, ids).shape
    (1, 3, 8)
    """
    require(
        all(is_whole(n) for n in (entries, width)),
        "embed",
        "entries and width that are whole numbers of 1 or more",
        (entries, width),
        "The table has one row of this width for each entry.",
    )

    def draw(key: Key, ids: Array) -> Params:
        return {"table": drawn(init, key, (entries, width), jnp.float32)}

    def apply(params: Params, ids: Array) -> Array:
        (table,) = take("embed", params, "table")
        return embed(table, ids)

    return stateless(draw, apply, "embed")
