"""What the arguments of `attention` have to be."""

from typing import Any

import jax.numpy as jnp

from ...types import Array, Key, require
from ..activations.dropout import _check_dropout
from ..shared.precision import floating


def _check_qkv(q: Array, k: Array, v: Array) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        require(
            x is not None and jnp.ndim(x) == 4,
            "attention",
            f"{name} of rank 4 (batch, time, heads, width)",
            x if x is None else f"shape {jnp.shape(x)}",
            "The heads come after the time: project to (batch, time, heads * width) and reshape.",
        )
        floating("attention", x, name)
    require(
        k.shape[:3] == v.shape[:3],
        "attention",
        f"v of the batch, keys and heads of k, whose shape is {k.shape}",
        f"shape {v.shape}",
        "One value belongs to each key.",
    )
    require(
        q.shape[0] == k.shape[0] and q.shape[3] == k.shape[3],
        "attention",
        f"k of the batch and width of q, whose shape is {q.shape}",
        f"shape {k.shape}",
        "Queries and keys have the same batch and the same width.",
    )
    require(
        k.shape[2] > 0 and q.shape[2] % k.shape[2] == 0,
        "attention",
        f"a number of key heads that divides the {q.shape[2]} heads of q",
        k.shape[2],
        "Each head of k and v serves a group of heads of q.",
    )


def _check_pairs(name: str, x: Array | None, full: tuple[int, ...], kind: Any, word: str) -> None:
    """Raise unless what is given for pairs of query and key has its dtype and can be broadcast."""
    if x is None:
        return
    require(
        jnp.issubdtype(jnp.result_type(x), kind),
        "attention",
        f"a {word} {name}",
        f"{jnp.result_type(x)}",
        "A mask is boolean, True where a query may attend; a bias is added to the scores.",
        TypeError,
    )
    shape = (1,) * (4 - jnp.ndim(x)) + jnp.shape(x)
    require(
        len(shape) == 4 and all(n in (1, whole) for n, whole in zip(shape, full, strict=True)),
        "attention",
        f"a {name} that broadcasts to (batch, heads, queries, keys) = {full}",
        f"shape {jnp.shape(x)}",
        "Add axes of length 1: for the keys of each example, x[:, None, None, :].",
    )


def checked(
    args: tuple, drop: float, chunk: int | None
) -> tuple[Array, Array, Array, Array | None, Array | None, Key | None]:
    """The array arguments of `attention` as they are, or one sentence on what does not fit."""
    q, k, v, mask, bias, key = args
    _check_qkv(q, k, v)
    full = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
    _check_pairs("mask", mask, full, jnp.bool_, "boolean")
    _check_pairs("bias", bias, full, jnp.floating, "floating")
    require(
        0 <= drop < 1 and (drop == 0 or key is not None),
        "attention",
        "drop from 0 to less than 1, and a key with it",
        f"drop={drop}, {'no key' if key is None else 'a key'}",
        "Pass key=jax.random.key(0), another one for each step.",
    )
    if drop and key is not None:
        _check_dropout(q, key, drop, ())
    require(
        chunk is None or (isinstance(chunk, int) and chunk >= 1),
        "attention",
        "a chunk of 1 query or more, or None for all at once",
        repr(chunk),
        "Try 256.",
    )
    return q, k, v, mask, bias, key
