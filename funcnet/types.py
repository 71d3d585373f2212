"""The words every floor shares: the array types, and the one form of an error message."""

from typing import Any, TypeAlias

import jax

Array: TypeAlias = jax.Array
"""Any JAX array, traced or concrete."""

Key: TypeAlias = jax.Array
"""A random key: `jax.random.key(0)`, or the older `jax.random.PRNGKey(0)`."""

Params: TypeAlias = dict[str, Any]
"""Parameters: nested dicts by layer name, with arrays at the leaves and nothing else."""

State: TypeAlias = dict[str, Any]
"""What a network carries from call to call beside its parameters: the same tree, mostly empty."""


class Hint(UserWarning):
    """Said of what works but may not be meant; the message says what to do about it."""


def require(
    ok: object,
    where: str,
    expected: str,
    got: object,
    remedy: str,
    error: type[Exception] = ValueError,
) -> None:
    """Raise `where: expected ..., got .... remedy` unless `ok`.

    Args:
        ok: Anything with a truth value; when it is false the error is raised.
        where: The function the reader called.
        expected: What it takes.
        got: What came instead.
        remedy: A sentence that says what to do.
        error: `ValueError` for a wrong value or shape, `TypeError` for a wrong type.

    Raises:
        ValueError: When `ok` is false (or `error`, where another one is given).

    >>> require(3 < 2, "dense", "a width below 2", 3, "Choose a smaller width.")
    Traceback (most recent call last):
        ...
    ValueError: dense: expected a width below 2, got 3. Choose a smaller width.
    """
    if not ok:
        raise error(f"{where}: expected {expected}, got {got}. {remedy}")
