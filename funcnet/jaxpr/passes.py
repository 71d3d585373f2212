"""The two passes that JAX makes of a function: forward with what it keeps, and backward."""

import contextlib
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax


def replaced(values: Sequence[Any], places: Iterable[int], some: Iterable[Any]) -> list[Any]:
    """Values, with some others in these places.

    >>> replaced("abc", [2, 0], ["z", "x"])
    ['x', 'b', 'z']
    """
    found = list(values)
    for i, x in zip(places, some, strict=True):
        found[i] = x
    return found


class Passes(NamedTuple):
    """What `jax.vjp` makes of a function: two jaxprs.

    Attributes:
        forward: The arguments -> (results, residuals, what else the function gives).
        backward: (residuals, cotangents of the results) -> cotangents of the active arguments.
        results: The shapes and dtypes of the results.
        residuals: Those of what is kept between the passes.
    """

    forward: Any
    backward: Any
    results: Sequence[Any]
    residuals: Sequence[Any]


def passes_of(
    f: Callable[..., tuple[Any, Any]], arguments: Sequence[Any], active: Sequence[int]
) -> Passes:
    """The two passes of `f`, which gives its results and what else there is.

    Args:
        f: From arrays to flat results that have a cotangent, and anything else.
        arguments: Arrays, or their shapes and dtypes.
        active: Which of them get a cotangent.
    """

    def ahead(*xs: Any) -> tuple:
        def of_active(*some: Any) -> tuple[Any, Any]:
            return f(*replaced(xs, active, some))

        return jax.vjp(of_active, *(xs[i] for i in active), has_aux=True)

    forward, (results, pull, _) = jax.make_jaxpr(ahead, return_shape=True)(*arguments)
    residuals, tree = jax.tree.flatten(pull)

    def back(residuals: list, cotangents: Any) -> tuple:
        return tree.unflatten(residuals)(cotangents)

    return Passes(forward, jax.make_jaxpr(back)(residuals, results), results, residuals)


QUICKLY: dict[str, str | bool | int] = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
"""How to compile what is run once: nobody waits for what it computes, but for its compilation."""


@functools.cache
def quick_options() -> dict[str, str | bool | int]:
    """Those of the options `QUICKLY` that the XLA at hand knows; which, differs by version."""
    known = {}
    for name, value in QUICKLY.items():
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
            known[name] = value
    return known


def quickly(f: Callable, *args: Any) -> Any:
    """`f(*args)`, compiled whole, but not made fast: what is run once is done sooner so.

    >>> int(quickly(lambda x: x * x, 3))
    9
    """
    return jax.jit(f, compiler_options=quick_options())(*args)
