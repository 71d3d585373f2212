"""The words every floor shares: the array types, and the one form of an error message."""

import importlib
import operator
from collections.abc import Iterator
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


def optional(where: str, module: str, package: str, extra: str, otherwise: str = "") -> Any:
    """A module of a package that an extra of funcnet installs.

    Args:
        where: The function the reader called.
        module: The module's name.
        package: The package, and what it does, for the message.
        extra: The extra that installs it.
        otherwise: What the reader may do in its place.

    Raises:
        ImportError: If it is missing.

    >>> optional("play", "no_such", "loud, which plays sounds", "sound")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ImportError: play: expected the package loud, which plays sounds, got none. Run ...
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        remedy = f"Run `pip install 'funcnet[{extra}]'`{otherwise}."
        require(False, where, f"the package {package}", "none", remedy, ImportError)
        raise


def is_whole(n: object, least: int = 1) -> bool:
    """Whether `n` is a whole number of `least` or more.

    >>> [is_whole(n) for n in (3, 0, 2.0, "3", None)]
    [True, False, False, False, False]
    """
    try:
        return operator.index(n) >= least  # pyright: ignore[reportArgumentType]  # that is asked
    except TypeError:
        return False


def shown(x: Any) -> str:
    """`x` as a message tells it: short values as they are written, others by what they are.

    >>> print(shown(3), shown("a"), shown((4, 5)), shown(len), shown(jax.numpy.ones((2, 3))))
    3 'a' (4, 5) the function len float32 of shape (2, 3)
    >>> print(shown(iter([1, 2])))
    a list_iterator
    """
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return f"{x.dtype} of shape {tuple(x.shape)}"
    if isinstance(x, type):
        return f"the class {x.__name__}"
    if callable(x) and hasattr(x, "__name__"):
        return f"the function {x.__name__}"
    leaves = jax.tree.leaves(x, is_leaf=lambda leaf: leaf is None or isinstance(leaf, Iterator))
    plain = all(isinstance(leaf, str | int | float | complex | None) for leaf in leaves)
    return repr(x) if plain and len(repr(x)) < 60 else f"a {type(x).__name__}"
