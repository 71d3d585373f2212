"""A rule and its primal as compiled programs, and the ways in which JAX may run a rule."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...jaxpr.passes import quick_options, replaced
from ...rules.compare import is_floating
from .subject import Flat

LARGEST = 4096
"""How many elements a gradient may have that is put together from forward derivatives."""


class Pulled(NamedTuple):
    """The floating outputs of a function, and the gradients of its active arrays."""

    outputs: list
    gradients: list


def of_active(f: Flat, arrays: Sequence, active: Sequence[int]) -> Callable[..., list]:
    """A function of the active arrays alone that gives its floating outputs."""

    def run(*some: Any) -> list:
        return [y for y in f(*replaced(arrays, active, some)) if is_floating(y)]

    return run


def pulled(f: Flat, active: Sequence[int], arrays: Sequence, adjoints: Sequence) -> Pulled:
    """Value and gradients, as `jax.vjp` has them."""
    run = of_active(f, arrays, active)
    outputs, pull = jax.vjp(run, *(arrays[i] for i in active))
    return Pulled(outputs, list(pull(list(adjoints))))


def pushed(f: Flat, active: Sequence[int], arrays: Sequence, adjoints: Sequence) -> Pulled:
    """The same from forward derivatives, one for each element: for what has no reverse."""
    run = of_active(f, arrays, active)
    some = [arrays[i] for i in active]

    def slope(way: list) -> Any:
        _, moved = jax.jvp(run, tuple(some), tuple(way))
        return sum(jnp.sum(t * ct) for t, ct in zip(moved, adjoints, strict=True))

    gradients = []
    for n, x in enumerate(some):
        still = [jnp.zeros_like(other) for other in some]

        def along(unit: Any, n: int = n, x: Any = x, still: list = still) -> Any:
            return slope(replaced(still, [n], [unit.reshape(x.shape)]))

        each = jax.lax.map(along, jnp.eye(x.size, dtype=x.dtype))
        gradients.append(each.reshape(x.shape).astype(x.dtype))
    return Pulled(run(*some), gradients)


def tangents(f: Flat, active: Sequence[int], arrays: Sequence, ways: Sequence) -> list:
    """How the floating outputs move along these ways of the active arrays."""
    some = tuple(arrays[i] for i in active)
    return jax.jvp(of_active(f, arrays, active), some, tuple(ways))[1]


def squared(f: Flat, active: Sequence[int], arrays: Sequence, adjoints: Sequence) -> list:
    """The gradient of a number made of the gradients, each element with a weight of its own."""

    def number(some: list, adjoints: list) -> Any:
        found = pulled(f, active, replaced(arrays, active, some), adjoints).gradients
        return sum(jnp.sum(jnp.real(g) * _weights(g)) for g in found)

    some = [arrays[i] for i in active]
    first, second = jax.grad(number, (0, 1))(some, list(adjoints))
    return [*first, *second]


def _weights(g: Any) -> Any:
    return jnp.cos(1.0 + jnp.arange(g.size)).reshape(g.shape).astype(jnp.real(g).dtype)


# The ways to run a rule. Each gives gradients, of which there may be several along a first axis.


def _eager(f: Flat, active: Sequence[int], both: tuple, adjoints: Sequence) -> list:
    return pulled(f, active, both[0], adjoints).gradients


def _remat(f: Flat, active: Sequence[int], both: tuple, adjoints: Sequence) -> list:
    return pulled(jax.checkpoint(f), active, both[0], adjoints).gradients


def _scan(f: Flat, active: Sequence[int], both: tuple, adjoints: Sequence) -> list:
    stacked = [jnp.stack([both[0][i], both[1][i]]) for i in active]

    def body(carry: None, some: list) -> tuple[None, list]:
        arrays = replaced(both[0], active, some)
        return carry, pulled(f, active, arrays, adjoints).gradients

    return jax.lax.scan(body, None, stacked)[1]


def _vmap(f: Flat, active: Sequence[int], both: tuple, adjoints: Sequence, i: int = 0) -> list:
    def one(x: Any) -> list:
        return pulled(f, active, replaced(both[0], [i], [x]), adjoints).gradients

    return jax.vmap(one)(jnp.stack([both[0][i], both[1][i]]))


def ways_of(names: Sequence[str], chosen: Sequence[str]) -> dict[str, Callable]:
    """The chosen ways by name: "vmap" is one for each array."""
    found: dict[str, Callable] = {}
    for way, f in (("eager", _eager), ("remat", _remat), ("scan", _scan)):
        if way in chosen:
            found[way] = f
    if "vmap" in chosen:
        found |= {f"vmap over {n}": functools.partial(_vmap, i=i) for i, n in enumerate(names)}
    return found


def second(arrays: Sequence, active: Sequence[int]) -> tuple:
    """Other arrays of the same numbers, in another order."""

    def other(x: Any) -> Any:
        x = np.asarray(x)
        return np.roll(x, 1) if x.size > 1 else x * np.asarray(0.75, x.dtype)

    return tuple(other(x) if i in active else x for i, x in enumerate(arrays))


class Programs:
    """What is compiled of a function, once for all arrays of these shapes."""

    def __init__(self, f: Flat, active: Sequence[int], is_quick: bool) -> None:
        self.f, self.active = f, tuple(active)
        self.options = quick_options() if is_quick else None
        self.gradient = pulled
        self._known: dict[str, Callable] = {}

    def compiled(self, name: str, f: Callable) -> Callable:
        """`f` compiled, and its results on the host."""
        if name not in self._known:
            run = jax.jit(f, compiler_options=self.options)
            self._known[name] = lambda *args: jax.device_get(run(*args))
        return self._known[name]

    def pull(self, arrays: Sequence, adjoints: Sequence) -> Pulled:
        """Value and gradients."""
        f = functools.partial(self.gradient, self.f, self.active)
        return Pulled(*self.compiled("pull", f)(list(arrays), list(adjoints)))

    def move(self, arrays: Sequence, ways: Sequence) -> list:
        """How the outputs move along these ways."""
        f = functools.partial(tangents, self.f, self.active)
        return self.compiled("move", f)(list(arrays), list(ways))

    def square(self, arrays: Sequence, adjoints: Sequence) -> list:
        """Gradients of gradients."""
        f = functools.partial(squared, self.f, self.active)
        return self.compiled("square", f)(list(arrays), list(adjoints))

    def run(self, ways: dict[str, Callable], both: tuple, adjoints: Sequence) -> dict[str, list]:
        """The gradients in each of these ways but the eager one, in one program."""

        def together(first: list, other: list, adjoints: list) -> dict[str, list]:
            pair = (first, other)
            return {w: f(self.f, self.active, pair, adjoints) for w, f in ways.items()}

        name = ", ".join(ways)
        return self.compiled(name, together)(list(both[0]), list(both[1]), list(adjoints))
