"""What a function is called with: arrays by position, static values by keyword."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..jaxpr import jaxprs
from ..types import require, shown


def parameters(f: Callable) -> Iterator[tuple[str, str]]:
    """Each parameter's name, and whether it is an "array", "static", or the "rest" of a call."""
    kinds = {
        inspect.Parameter.KEYWORD_ONLY: "static",
        inspect.Parameter.VAR_POSITIONAL: "rest",
        inspect.Parameter.VAR_KEYWORD: "rest",
    }
    for name, parameter in inspect.signature(f).parameters.items():
        yield name, kinds.get(parameter.kind, "array")


def bind(
    name: str, signature: inspect.Signature, args: tuple, kwargs: dict[str, Any]
) -> tuple[tuple, tuple[tuple[str, Any], ...]]:
    """Split a call into its array operands and its static arguments, the latter hashable."""
    names = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as mismatch:
        raise TypeError(
            f"{name}: expected the arguments {inspect.Signature(names)}, got a wrong "
            f"call ({mismatch}). Arrays may be positional, static arguments go by keyword."
        ) from None
    bound.apply_defaults()
    for argument, value in zip(signature.parameters, bound.args, strict=False):
        if isinstance(value, list | tuple) and any(map(_is_number, jax.tree.leaves(value))):
            raise TypeError(
                f"{name}: expected `{argument}` to be an array, got a {type(value).__name__} of "
                f"numbers. Make it one: jnp.array({argument})."
            )
        strange = [leaf for leaf in jax.tree.leaves(value) if _is_no_array(leaf)]
        require(
            not strange,
            name,
            f"`{argument}` to be an array",
            shown(strange[0]) if strange else "one",
            "Layers and functions are put together by serial(); text has to become numbers first.",
            TypeError,
        )
    static = tuple((key, _hashable(name, key, value)) for key, value in bound.kwargs.items())
    return jax.tree.map(lambda x: jnp.asarray(x) if _is_number(x) else x, bound.args), static


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, bool | int | float | complex)


def _is_no_array(leaf: Any) -> bool:
    return isinstance(leaf, str | bytes) or (callable(leaf) and not hasattr(leaf, "dtype"))


def _hashable(name: str, argument: str, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_hashable(name, argument, v) for v in value)
    if value.__hash__ is None or jaxprs.is_traced(value):
        raise TypeError(
            f"{name}: expected `{argument}` to be a plain Python value, since it is static, "
            f"got {type(value).__name__}. Pass a number, string, tuple or function."
        )
    # NumPy's own numbers are no weak types: a float64 among them would widen what it multiplies.
    return value.item() if isinstance(value, np.generic) else value


def kind(value: Any) -> Any:
    """What tells static values apart that are equal: 2, 2.0 and True; 0.0 and -0.0."""
    if isinstance(value, tuple):
        return tuple(kind(v) for v in value)
    return (type(value), str(value)) if isinstance(value, float) else type(value)


def accepted(f: Callable, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the arguments that `f` names after its bare `*`, or all if it has a `**`."""
    own = inspect.signature(f).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in own):
        return dict(options)
    named = {p.name for p in own if p.kind is inspect.Parameter.KEYWORD_ONLY}
    return {name: value for name, value in options.items() if name in named}
