"""A function looked at over batches: figures that hold for all of them together."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...jaxpr.passes import replaced
from ...traces.program import Program
from ...traces.watch.watch import watcher
from ...types import Array, require
from .limits import SILENT
from .probe import Figures, Places, Seen, looking, moves, norm

STRIDE = 0.01
"""How far a parameter is moved, of its size, to see whether a gradient comes through then."""


class Batches:
    """A function and the batches it is looked at over.

    Attributes:
        name: What the function is called.
        noise: The squared norm of the noise in a batch's gradient over that of the gradient; None
            for one batch.
    """

    def __init__(
        self,
        f: Callable,
        wrt: int,
        seed: Any,
        has_aux: bool,
        args: tuple,
        kwargs: dict[str, Any],
        over: tuple[tuple, ...] | None,
    ) -> None:
        self.f, self.kwargs, self.seed, self.has_aux = f, kwargs, seed, has_aux
        self.name = getattr(f, "__name__", type(f).__name__)
        calls = [args] if over is None else [(*args, *_batch(batch)) for batch in over]
        require(calls, "health", "one batch or more", "none", "Give over=[(x, y), ...].")
        self.programs = [Program("health", f, call, kwargs) for call in calls]
        for program in self.programs:
            program.require_values()
        first = self.programs[0]
        (self.wrt,) = first.chosen(wrt)
        for program in self.programs[1:]:
            require(
                _kind(program) == _kind(first),
                "health",
                "batches that are alike",
                f"{', '.join(map(str, _kind(program)[1]))} after "
                f"{', '.join(map(str, _kind(first)[1]))}",
                "Leave out a smaller one at the end.",
            )
        self.places = Places()
        self.noise: float | None = None
        self._look = jax.jit(self._looked)

    def _call(self, arrays: Sequence[Any]) -> tuple:
        first = self.programs[0]
        return first.tree.unflatten(replaced(first.leaves, first.places, arrays))

    def _looked(self, arrays: list[Array]) -> tuple[Any, Seen, Array]:
        """The gradients, the figures of the layers, and the gradients' squared norm."""
        f, places = self.f, self.places
        look = looking("health", f, self.wrt, self.seed, self.has_aux, places)
        _, gradients, found = look(*self._call(arrays), **self.kwargs)
        return gradients, Seen.of(found), norm(jax.tree.leaves(gradients)) ** 2

    def figures(self, optimizer: Any, opt_state: Any) -> Figures:
        """All figures, those of the layers over the batches together."""
        total, records, squares = None, [], []
        for program in self.programs:
            gradients, seen, square = self._look(program.arrays)
            total = gradients if total is None else jax.tree.map(jnp.add, total, gradients)
            records.append(seen.read())
            squares.append(float(square))
        n = len(records)
        self.gradients = jax.tree.map(lambda g: g / n, total)
        self.params = self._call(self.programs[0].arrays)[self.wrt]
        own = jax.jit(functools.partial(_moves, optimizer))
        seen, square = own(self.params, self.gradients, opt_state)
        figures = _together(records) | seen.read()
        if n > 1:
            silent = figures.get("silent", {})
            figures |= {"silent": silent | self._silent(silent)}
            self.noise = _noise(squares, float(square))
        return figures

    def _silent(self, least: dict[str, float]) -> dict[str, float]:
        """The units that are 0 in all batches: looked for where each of them has many."""
        places = self.places
        sites = places.sites
        wanted = [
            place
            for place in sites
            if any(least[name] > SILENT.value for name, _ in places.iterations(place))
        ]

        def fires(arrays: list[Array]) -> dict[str, Array]:
            def choose(found: Any) -> dict:
                return {place: [sites[place]] for place in wanted}

            see = watcher(
                "health", self.f, self.wrt, self.seed, self.has_aux, choose, {}, keeps_values=True
            )
            watched = see(*self._call(arrays), **self.kwargs)
            return {
                place: _fires(watched.seen[place].value, len(sites[place].loops))
                for place in wanted
            }

        if not wanted:
            return {}
        seen = [jax.jit(fires)(program.arrays) for program in self.programs]
        return {
            name: float(1 - np.any([np.asarray(s[place])[at] for s in seen], axis=0).mean())
            for place in wanted
            for name, at in places.iterations(place)
        }

    def after_a_step(self, figures: Figures) -> Figures:
        """The sizes of gradients, and where one is 0, that after a small step against them; and how
        many units are silent both times.

        Behind a weight that starts as 0 nothing flows, until it has moved.
        """
        pairs = zip(
            jax.tree.leaves(self.params),
            jax.tree.structure(self.params).flatten_up_to(self.gradients),
            strict=True,
        )
        moved = [p if g is None else _moved(jnp.asarray(p), g) for p, g in pairs]
        call = list(self._call(self.programs[0].arrays))
        call[self.wrt] = jax.tree.structure(self.params).unflatten(moved)
        program = Program("health", self.f, tuple(call), self.kwargs)
        gradients, seen, _ = self._look(program.arrays)
        found = Seen.of(moves(self.params, gradients)).read()["gradient"]
        before = Seen.of(moves(self.params, self.gradients)).read()["gradient"]
        later = seen.read().get("silent", {})
        silent = {n: min(x, later.get(n, x)) for n, x in figures.get("silent", {}).items()}
        return {
            "gradient": {module: size or found[module] for module, size in before.items()},
            "silent": silent,
        }


def _moved(p: Array, g: Array) -> Array:
    """A parameter a small step against its gradient."""
    size = jnp.maximum(jnp.abs(p).max(initial=0), 1.0)
    return (p - STRIDE * size * jnp.sign(g)).astype(p.dtype)


def _moves(optimizer: Any, params: Any, gradients: Any, opt_state: Any) -> tuple[Seen, Array]:
    if optimizer is None:
        updates = None
    else:
        opt_state = optimizer.init(params) if opt_state is None else opt_state
        updates, _ = optimizer.update(gradients, opt_state, params)
    return Seen.of(moves(params, gradients, updates)), norm(jax.tree.leaves(gradients)) ** 2


def _fires(value: Array, loops: int) -> Array:
    """Which units, along the last axis, are not 0 somewhere."""
    axes = tuple(range(loops, value.ndim - 1))
    return jnp.any(value != 0, axis=axes)


def _batch(batch: Any) -> tuple:
    require(
        isinstance(batch, tuple | list),
        "health",
        "over to hold batches, each a tuple of arguments",
        type(batch).__name__,
        "Write over=[(x, y), ...]; of one argument, [(x,), ...].",
        TypeError,
    )
    return tuple(batch)


def _kind(program: Program) -> tuple[Any, tuple]:
    return program.tree, tuple((x.dtype.name, x.shape) for x in program.arrays)


def _together(records: list[Figures]) -> Figures:
    """The figures of batches as those of all."""
    ways: dict[str, Callable] = {"silent": min, "looks": sum, "nonfinite": max}
    return {
        kind: {
            layer: float(ways.get(kind, np.mean)([record[kind][layer] for record in records]))
            for layer in records[0][kind]
        }
        for kind in records[0]
    }


def _noise(squares: list[float], of_mean: float) -> float:
    """From the squared norms of batches' gradients and of their mean: that of the noise in one
    over that of the gradient."""
    n = len(squares)
    noise = max((float(np.mean(squares)) - of_mean) * n / (n - 1), 0.0)
    signal = max(of_mean - noise / n, 0.0)
    return noise / signal if signal else (np.inf if noise else 0.0)
