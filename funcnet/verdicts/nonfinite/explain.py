"""`explain_nonfinite`: where a NaN or an Inf in an output or a gradient was born, and why."""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...jaxpr import jaxprs
from ...jaxpr.equations import with_own_lines
from ...jaxpr.passes import replaced
from ...traces.program import NO_FLOAT, Program, pair_of, reversible, seeds_of
from ...types import require, shown
from .graph import graph_of, way
from .operands import operands_of
from .probe import NONE, Keep, Seen, births_of, probe_of
from .report import Nonfinite, Poisoned
from .search import Blamed, search
from .tell import hint_of, links_of, origin_of, poisoned
from .written import Written

WHERE = "explain_nonfinite"
NO_SEED = (
    "The gradient was not looked at: the output is not one number. Pass seed=, the adjoint of the "
    "output, to look at it."
)
_NO_WAY_BACK = (
    "The gradient was not looked at: JAX sends none back through a while_loop. Write jax.lax.scan, "
    "or fori_loop with fixed ends."
)


def explain_nonfinite(
    f: Callable,
    *,
    wrt: int | Sequence[int] | None = None,
    has_aux: bool = False,
    seed: Any = None,
) -> Callable[..., Nonfinite]:
    """Where a NaN or an Inf in the output or in the gradient of a function is born.

    The function and its gradient are compiled once more, with a look at every equation. That one
    program is run twice, or a few times: first as it is, then with every other birth of something
    not finite healed, so that what still reaches an output or a gradient comes from one place.
    What is masked on its way, as by `where`, or ends as 0, as in `exp(-inf)`, is told as harmless.
    A later call with arguments of the same shapes compiles nothing.

    Args:
        f: Any function that JAX can trace.
        wrt: Which positional arguments to differentiate, counted as `argnums` of `jax.grad`; all
            that are floating if it is None.
        has_aux: Whether `f` returns `(loss, aux)`; aux is not looked at.
        seed: The adjoint of the output, where that is not one real number. Without it the output
            alone is looked at.

    Returns:
        A function of the arguments of `f` that returns the report. It is false where output and
        gradient are finite. `report.origin` has phase, primitive, line, layer, iteration, element
        and operands; `report.path` the places from there on; `report.hint` what to do.

    Raises:
        TypeError: If `f` is no function, or an argument has no values.
        ValueError: If `f` has side effects, or `wrt` or `seed` does not fit.

    >>> import jax.numpy as jnp
    >>> def loss(x):
    ...     return jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))
    >>> report = explain_nonfinite(loss)(jnp.array([1.0, 0.0]))
    >>> report.origin.what, report.origin.element, report.origin.phase
    ('the derivative of sqrt', (1,), 'backward')
    >>> bool(explain_nonfinite(loss)(jnp.array([1.0, 4.0])))
    False
    """
    require(
        callable(f), WHERE, "a function", shown(f), "Write explain_nonfinite(f)(x).", TypeError
    )  # fmt: skip
    known: dict[Hashable, _Case] = {}

    @functools.wraps(f)
    def run(*args: Any, **kwargs: Any) -> Nonfinite:
        program = Program(WHERE, f, args, kwargs)
        program.require_values()
        with jax.debug_nans(False), jax.debug_infs(False):
            key = _key(program)
            case = known.get(key) if key is not None else None
            if case is None:
                case = _Case(program, wrt, has_aux, seed)
                if key is not None:
                    known[key] = case
            return case.report(program.arrays)

    return run


def _key(program: Program) -> Hashable | None:
    """What two calls have in common if they run one program; None if that cannot be said."""
    types = tuple(
        (x.shape, x.dtype, getattr(x, "weak_type", False), x.sharding) for x in program.arrays
    )
    rest = tuple(
        leaf for i, leaf in enumerate(program.leaves) if i not in set(program.places)
    )  # fmt: skip
    words = tuple(sorted(program.kwargs.items()))
    x64 = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]  # a flag made at run time
    key = program.tree, tuple(program.places), types, rest, words, x64
    try:
        hash(key)
    except TypeError:
        return None
    return key


class _Case:
    """A function and its gradient at arguments of some shapes, as one program."""

    def __init__(
        self, program: Program, wrt: int | Sequence[int] | None, has_aux: bool, seed: Any
    ) -> None:
        closed, tree = program.opened()
        seeds, self.note = _starts(closed, tree, seed, has_aux)
        active = [i for i, on in enumerate(program.active(program.chosen(wrt))) if on]
        names = program.names()
        looked = pair_of(WHERE, tree)[0].num_leaves if has_aux else tree.num_leaves
        if not active and not self.note:
            self.note = f"The gradient was not looked at. {NO_FLOAT}"
        if active and any(ct is not None for ct in seeds):
            self.closed, self.note = _with_gradient(closed, program, seeds, active)
        else:
            self.closed = closed
        gradient = self.closed is not closed
        slopes = [f"the gradient of {names[i]}" for i in active] if gradient else []
        self.slopes = tree.num_leaves  # where the gradients begin among the outputs
        self.counted = [*range(looked), *(tree.num_leaves + i for i in range(len(slopes)))]
        self.names = [*_output_names(tree), *slopes]
        self.function = getattr(program.f, "__name__", type(program.f).__name__)
        self.graph = graph_of(self.closed, Written(closed), names)
        self.births = jax.jit(births_of(self.closed, self.graph))
        self.probes: dict[frozenset[int], Callable[..., Seen]] = {}
        self.catches: dict[int, Callable] = {}

    def report(self, arrays: Sequence[Any]) -> Nonfinite:
        """The report for some arguments."""

        clean = jax.device_get(self.births(*arrays))
        births = frozenset(map(int, np.flatnonzero(clean.found.element < NONE)))
        written = tuple(p for i in self.counted if (p := self._lost(i, clean)) is not None)
        if not births:
            return Nonfinite(self.function, written, None, (), "", (), self.note)
        if births not in self.probes:
            self.probes[births] = jax.jit(probe_of(self.closed, self.graph, births))

        def run(keep: Keep) -> Seen:
            return jax.device_get(self.probes[births](keep, *arrays))

        verdict = search(self.graph, births, run, self.counted)
        harmless = tuple(origin_of(place, ()) for place in verdict.harmless)
        lost = {i: self._lost(i, verdict.first) for i in self.counted}
        found = tuple(p for p in lost.values() if p is not None)
        if verdict.origin is None:
            return Nonfinite(self.function, written, None, (), "", harmless, self.note)
        place = verdict.origin
        caught = self._caught(place, arrays)
        end, numbers = self._way(place)
        origin = origin_of(place, caught, forward=end < self.slopes)
        then = self.graph.sites[numbers[1]] if len(numbers) > 1 else None
        said = hint_of(self.graph, place, caught, origin, then, bool(place.seen.nan[end]))
        found = tuple(sorted(found, key=lambda p: p != lost[end]))
        path = links_of(self.graph, numbers)
        return Nonfinite(self.function, found, origin, path, said, harmless, self.note)

    def _lost(self, i: int, seen: Seen) -> Poisoned | None:
        if seen.bad[i] == NONE:
            return None
        return poisoned(self.names[i], seen.bad[i], seen.nan[i], self.closed.out_avals[i].shape)

    def _caught(self, place: Blamed, arrays: Sequence[Any]) -> list[Any]:
        """The operands at a place, and last the result."""
        site = place.site
        if not site.path:
            return [arrays[site.result]]
        if site.number not in self.catches:
            self.catches[site.number] = jax.jit(operands_of(self.closed, site))
        turns = np.asarray(place.turns, np.int32)
        return jax.device_get(self.catches[site.number](turns, *arrays))

    def _way(self, place: Blamed) -> tuple[int, list[int]]:
        """The first output that a place reaches, and the sites on the way there."""
        ends = [i for i in self.counted if place.seen.bad[i] < NONE]
        infected = {int(n) for n in np.flatnonzero(place.seen.found.element < NONE)}
        sources = self.graph.outputs[ends[0]].sources
        return ends[0], way(self.graph, place.site.number, sources, infected)


def _starts(closed: Any, tree: Any, seed: Any, has_aux: bool) -> tuple[list[Any], str]:
    """The adjoint that each output starts with, and why there is none."""
    shapes = jaxprs.output_shapes(closed)
    one = (
        len(shapes) == 1 and shapes[0].shape == () and jnp.issubdtype(shapes[0].dtype, np.floating)
    )
    if seed is None and not has_aux and not one:
        return [None] * len(shapes), NO_SEED
    return seeds_of(WHERE, tree, shapes, seed, has_aux), ""


def _with_gradient(
    closed: Any, program: Program, seeds: Sequence[Any], active: Sequence[int]
) -> tuple[Any, str]:
    """A program followed by its backward pass, as one; alone, and why, if there is none."""
    lined = with_own_lines(closed)
    started = [i for i, ct in enumerate(seeds) if ct is not None]

    def both(*arrays: Any) -> tuple[list, tuple]:
        def outputs(*some: Any) -> tuple[list, list]:
            flat = jaxprs.evaluate(lined, *replaced(arrays, active, some))
            return [flat[i] for i in started], flat

        _, pull, flat = jax.vjp(outputs, *(arrays[i] for i in active), has_aux=True)
        return flat, pull([seeds[i] for i in started])

    try:
        with reversible(WHERE):
            return jaxprs.trace(both, *program.arrays)[0], ""
    except (ValueError, NotImplementedError) as error:
        said = str(error).partition(". ")[0].removesuffix(".")
        if "while_loop" in said:
            return closed, _NO_WAY_BACK
        if "do not support JVP" in said or "ifferentiation rule" in said:
            return closed, f"The gradient was not looked at: JAX has none here ({said})."
        raise


def _output_names(tree: Any) -> list[str]:
    paths = jax.tree_util.tree_leaves_with_path(tree.unflatten(range(tree.num_leaves)))
    return ["the output" + jax.tree_util.keystr(path) for path, _ in paths]
