"""One place in a function: what goes through it in both directions, and how to change it there."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...jaxpr import jaxprs
from ...types import Array, require
from ..program import Program, pair_of
from .sites import Site, sites_of
from .taps import tapped
from .watch import chosen_sites, watcher


class Captured(NamedTuple):
    """What `capture` returns.

    Attributes:
        output: What the function returned.
        gradients: One for each argument (or those of `wrt`), None where there is none.
        value: The value at the place. Loops around it make leading axes.
        adjoint: Its adjoint.
    """

    output: Any
    gradients: Any
    value: Any
    adjoint: Any


def capture(
    f: Callable,
    path: str,
    *,
    wrt: int | Sequence[int] | None = None,
    seed: Any = None,
    has_aux: bool = False,
) -> Callable[..., Captured]:
    """The value and the adjoint at one place of `f`, without touching it.

    Args:
        f: Any JAX function whose output is one number (else give `seed`).
        path: A layer ("block/dense"), a Python variable or a row of its trace ("v3").
        wrt: The arguments to differentiate, counted as by `jax.grad`; None for all.
        seed: The adjoint of the output: a pytree like it, None for all that starts with nothing.
        has_aux: Whether `f` returns `(loss, aux)`, of which the loss alone is differentiated.

    Returns:
        A function of the arguments of `f`. It is pure: `jax.jit` takes it.

    Raises:
        ValueError: When called, if the path names nothing; the message has the nearest names.

    >>> def f(x):
    ...     with jax.named_scope("hidden"):
    ...         h = jnp.sin(x)
    ...     return h**2
    >>> found = capture(f, "hidden")(2.0)
    >>> round(float(found.value), 4), round(float(found.adjoint), 4)
    (0.9093, 1.8186)
    """
    choose = functools.partial(chosen_sites, "capture", select=path)
    see = watcher("capture", f, wrt, seed, has_aux, choose, {}, keeps_values=True)

    def run(*args: Any, **kwargs: Any) -> Captured:
        watched = see(*args, **kwargs)
        parts = list(watched.seen.values())
        value, adjoint = parts[0] if len(parts) == 1 else tuple(zip(*parts, strict=True))
        return Captured(watched.output, watched.gradients, value, adjoint)

    return run


def edit_gradient(
    f: Callable, path: str, g: Callable[[Array], Array], *, has_aux: bool = False
) -> Callable:
    """`f` with its adjoint at one place replaced by `g(adjoint)`, from there back.

    The value of the function is the same; what `jax.grad` makes of it is not. Clipping, scaling
    and stopping a gradient need no change of the model.

    Args:
        f: Any JAX function.
        path: A layer ("block/dense"), a Python variable or a row of its trace ("v3").
        g: From an adjoint to one of the same shape: `lambda dy: dy.clip(-1, 1)`.
        has_aux: Whether `f` returns `(loss, aux)`; the place is one that the loss depends on.

    Returns:
        A function of the arguments of `f`, to be differentiated; with `has_aux`, by
        `jax.grad(..., has_aux=True)`.

    Raises:
        ValueError: When called, if the path names nothing, or `g` changes the shape.

    >>> def f(x):
    ...     with jax.named_scope("hidden"):
    ...         h = jnp.sin(x)
    ...     return h**2
    >>> clipped = edit_gradient(f, "hidden", lambda dy: jnp.clip(dy, -1, 1))
    >>> float(jax.grad(clipped)(2.0) / jnp.cos(2.0))
    1.0
    """

    @functools.wraps(f)
    def run(*args: Any, **kwargs: Any) -> Any:
        program = Program("edit_gradient", f, args, kwargs)
        closed, tree = program.opened()
        wanted = [jaxprs.is_inexact(shape) for shape in jaxprs.output_shapes(closed)]
        if has_aux:
            loss, aux = pair_of("edit_gradient", tree)
            wanted = [*wanted[: loss.num_leaves], *[False] * aux.num_leaves]
        active = [jaxprs.is_inexact(array) for array in program.arrays]
        places = chosen_sites("edit_gradient", sites_of(closed, active, wanted), path)
        used = [site for some in places.values() for site in some]
        outputs, _ = tapped(closed, used, functools.partial(_edit_tap, g))({}, *program.arrays)
        return program.output(tree, outputs)

    return run


def _edit_tap(g: Callable, site: Site, value: Array, probe: Any) -> tuple[Array, None]:
    @jax.custom_vjp
    def tap(value: Array) -> Array:
        return value

    def backward(_: None, dy: Array) -> tuple[Array]:
        changed = jnp.asarray(g(dy))
        require(
            changed.shape == dy.shape,
            "edit_gradient",
            f"a function that keeps the shape {dy.shape}",
            f"shape {changed.shape}",
            "It takes the adjoint and returns the one to go on with.",
        )
        return (changed.astype(dy.dtype),)

    tap.defvjp(lambda value: (value, None), backward)
    return tap(value), None
