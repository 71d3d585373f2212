"""`watch`: a function, compiled, that says at chosen places how its values and adjoints fare."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from ...jaxpr import jaxprs
from ...jaxpr.passes import replaced
from ...types import Array, require
from ..program import NO_FLOAT, Program, nearest, reversible, seeds_of
from .printed import printed
from .sites import Site, layers_of, sites_of
from .stats import STATISTICS, Statistic, dtype_of, figures
from .taps import Tap, tapped


class Seen(NamedTuple):
    """A place that was watched.

    Attributes:
        value: Its statistics by name, or the value itself with `keep="values"`. Loops around the
            place make leading axes, one index for each iteration.
        adjoint: The same of its adjoint.
    """

    value: Any
    adjoint: Any


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("output", "gradients", "seen"),
    meta_fields=("places", "sites"),
)
@dataclass(frozen=True)
class Watched:
    """What `watch` returns: a pytree, so that it can leave `jax.jit`.

    Attributes:
        output: What the function returned.
        gradients: One for each argument (or those of `wrt`), None where there is none.
        seen: What was seen, by place.
        places: The places in the order of the program.
        sites: What stands at each of them.
    """

    output: Any
    gradients: Any
    seen: dict[str, Seen]
    places: tuple[str, ...]
    sites: tuple[Site, ...] = ()

    def __getitem__(self, place: str) -> Seen:
        nearest("watch", place, self.seen, "a place that was watched", KeyError)
        return self.seen[place]

    def __str__(self) -> str:
        return printed(self) if self.places else _nothing(self.gradients)


def _nothing(gradients: Any) -> str:
    """Why there is no place to show."""
    if not jax.tree.leaves(gradients):
        return NO_FLOAT
    return (
        "Nothing to show: the gradient flows through no place that was selected. "
        'select="all" takes every equation.'
    )


Select = str | Sequence[str] | Callable[[Site], bool]


def watch(
    f: Callable,
    *,
    wrt: int | Sequence[int] | None = None,
    seed: Any = None,
    has_aux: bool = False,
    select: Select = "layers",
    stats: Sequence[str] | Mapping[str, Statistic] = tuple(STATISTICS),
    keep: Literal["stats", "values"] = "stats",
) -> Callable[..., Watched]:
    """The value and gradients of `f`, and how values and adjoints fare on the way, compiled.

    What comes back is a pure function: `jax.jit`, `jax.vmap` and the like take it, and inside `f`
    there may be jit, scan, cond and remat. Nothing but the figures is kept, also within loops.

    Args:
        f: Any JAX function whose output is one number (else give `seed`).
        wrt: The arguments to differentiate, counted as by `jax.grad`; None for all.
        seed: The adjoint of the output: a pytree like it, None for all that starts with nothing.
        has_aux: Whether `f` returns `(loss, aux)`, of which the loss alone is differentiated.
        select: Which places: "layers" for the output of each, "all" for the result of every
            equation, paths of layers or names of rows (`"block/dense"`, `"v3"`), or a function
            from a `Site` to a bool.
        stats: Names out of `STATISTICS`, or functions by name, each from an array to a number.
        keep: "stats", or "values" for whole values and adjoints.

    Returns:
        A function of the arguments of `f` that gives a `Watched`.

    Raises:
        ValueError: When called, if `select` names what is not there, the output is not one number
            and there is no seed, or the gradient meets a loop of unknown length.

    >>> def f(w, x):
    ...     with jax.named_scope("layer"):
    ...         h = jnp.tanh(w * x)
    ...     return jnp.sum(h**2)
    >>> seen = jax.jit(watch(f))(0.5, jnp.ones(4))["layer"]
    >>> round(float(seen.value["mean"]), 4), round(float(seen.adjoint["norm"]), 4)
    (0.4621, 1.8485)
    """
    choose = functools.partial(chosen_sites, "watch", select=select)
    return watcher("watch", f, wrt, seed, has_aux, choose, _statistics(stats), keep == "values")


def watcher(
    where: str,
    f: Callable,
    wrt: int | Sequence[int] | None,
    seed: Any,
    has_aux: bool,
    choose: Callable[[Sequence[Site]], dict[str, list[Site]]],
    chosen: Mapping[str, Statistic],
    keeps_values: bool,
) -> Callable[..., Watched]:
    """What `watch` returns; its messages begin with `where`, and `choose` names the places."""

    def run(*args: Any, **kwargs: Any) -> Watched:
        program = Program(where, f, args, kwargs)
        active = program.active(program.chosen(wrt))
        closed, tree = program.opened()
        seeds = seeds_of(where, tree, jaxprs.output_shapes(closed), seed, has_aux)
        sites = sites_of(closed, active, [ct is not None for ct in seeds])
        places = choose(sites)
        used = list({site: None for some in places.values() for site in some})
        tap = _values_tap if keeps_values else _stats_tap(chosen)
        blank = _blank_value if keeps_values else functools.partial(_blank_figures, len(chosen))
        run_tapped = tapped(closed, used, tap, blank)
        some = [i for i, is_active in enumerate(active) if is_active]

        def of_some(probes: dict, arrays: list) -> tuple[list, tuple]:
            outputs, seen = run_tapped(probes, *replaced(program.arrays, some, arrays))
            starts = [y for y, ct in zip(outputs, seeds, strict=True) if ct is not None]
            return starts, (outputs, seen)

        probes = {site.name: blank(site, site.loops) for site in used}
        points = [program.arrays[i] for i in some]
        with reversible(where):
            _, pull, (outputs, values) = jax.vjp(of_some, probes, points, has_aux=True)
            adjoints, gradients = pull([ct for ct in seeds if ct is not None])
        found = replaced([None] * len(program.arrays), some, gradients)
        seen = {
            place if len(some) == 1 else f"{place}.{site.result}": Seen(
                _named(chosen, values[site.name], keeps_values),
                _named(chosen, adjoints[site.name], keeps_values),
            )
            for place, some in places.items()
            for site in some
        }
        output, gradients = program.output(tree, outputs), program.gradients(found, wrt)
        return Watched(
            output, gradients, seen, tuple(seen), tuple(itertools.chain(*places.values()))
        )

    return run


def chosen_sites(where: str, sites: Sequence[Site], select: Select) -> dict[str, list[Site]]:
    """The sites that a selection means, by what they are called.

    Raises:
        ValueError: If it names what is not there.
    """
    if callable(select):
        return {site.name: [site] for site in sites if select(site)}
    layers = layers_of(sites)
    if select == "all":
        return {site.name: [site] for site in sites}
    if select == "layers":
        return layers
    places: dict[str, list[Site]] = {site.variable: [site] for site in sites if site.variable}
    places |= layers | {site.name: [site] for site in sites}
    paths = [select] if isinstance(select, str) else select
    for path in paths:
        kinds = "the path of a layer, a variable or a row that the gradient flows through"
        nearest(where, path, places, kinds)
    return {path: places[path] for path in paths}


def _statistics(stats: Sequence[str] | Mapping[str, Statistic]) -> dict[str, Statistic]:
    if isinstance(stats, Mapping):
        return dict(stats)
    names = [stats] if isinstance(stats, str) else list(stats)
    for name in names:
        require(
            name in STATISTICS,
            "watch",
            f"statistics among {', '.join(STATISTICS)}",
            repr(name),
            "Or give functions by name: stats={'rms': f}.",
        )
    return {name: STATISTICS[name] for name in names}


def _blank_figures(count: int, site: Site, loops: tuple[int, ...]) -> tuple[Array, ...]:
    """What is seen where nothing ran: zeros, with an axis for each loop."""
    return tuple(jnp.zeros(loops, dtype_of(site.dtype)) for _ in range(count))


def _blank_value(site: Site, loops: tuple[int, ...]) -> Array:
    return jnp.zeros((*loops, *site.shape), site.dtype)


def _named(chosen: Mapping[str, Statistic], seen: Any, whole: bool) -> Any:
    return seen if whole else dict(zip(chosen, seen, strict=True))


def _stats_tap(chosen: Mapping[str, Statistic]) -> Tap:
    @jax.custom_vjp
    def passed(value: Array, probe: tuple[Array, ...]) -> Array:
        return value

    # The figures of the adjoint leave as the gradient of the probe, which has just their size.
    passed.defvjp(lambda value, probe: (value, None), lambda _, dy: (dy, figures(chosen, dy)))

    def tap(site: Site, value: Array, probe: Any) -> tuple[Array, tuple[Array, ...]]:
        return passed(value, probe), figures(chosen, jax.lax.stop_gradient(value))

    return tap


def _values_tap(site: Site, value: Array, probe: Array) -> tuple[Array, Array]:
    return value + probe, jnp.asarray(jax.lax.stop_gradient(value))
