"""Where a program can be watched: its equations, their layers, and which of them matter."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ...jaxpr import jaxprs, steps
from ..source.names import numbered, variables
from ..source.places import Place, places_of


class Site(NamedTuple):
    """A result of an equation that a gradient flows through.

    Attributes:
        name: `v3`, as in a trace; `v3.1` is the second result. A loop's body has one site for all
            iterations.
        op: The primitive, or the function with a custom derivative.
        scope: The layer: "block/dense".
        variable: The Python variable, where the source says so.
        shape: Its shape, without the axes of the loops around.
        dtype: Its dtype.
        loops: The lengths of the loops around it, from the outermost in.
        path: The place of the equation in the program.
        result: Which of its results it is.
        entered: How far along the path each loop begins.
    """

    name: str
    op: str
    scope: str
    variable: str
    shape: tuple[int, ...]
    dtype: Any
    loops: tuple[int, ...]
    path: tuple[int, ...]
    result: int
    entered: tuple[int, ...]

    def loops_inside(self, depth: int) -> tuple[int, ...]:
        """The lengths of the loops around it that begin at this depth of the path or later."""
        pairs = zip(self.loops, self.entered, strict=True)
        return tuple(length for length, start in pairs if start >= depth)


class Around(NamedTuple):
    """What stands around a jaxpr."""

    path: tuple[int, ...] = ()
    scope: str = ""
    loops: tuple[int, ...] = ()
    entered: tuple[int, ...] = ()
    library: bool = False
    places: tuple[Place, ...] = ()


def sites_of(closed: Any, active: Sequence[bool], wanted: Sequence[bool]) -> list[Site]:
    """Every place of a program that depends on an active input and that a wanted output reads."""
    found: list[tuple[Site, tuple[Place, ...]]] = []
    numbers = numbered(closed)
    _walk(closed, list(active), list(wanted), Around(), numbers, found)
    order = {path: i for i, path in enumerate(numbers)}
    found.sort(key=lambda item: (order[item[0].path], item[0].result))
    named = variables([(site.path[1:-1], calls) for site, calls in found])
    pairs = zip(found, named, strict=True)
    return [site._replace(variable=name) for (site, _), name in pairs]


def _walk(
    jaxpr: Any, active: list[bool], wanted: list[bool], around: Around,
    numbers: dict, found: list[tuple[Site, tuple[Place, ...]]],
) -> None:  # fmt: skip
    opened, _ = jaxprs.open_jaxpr(jaxpr)
    moving = _moving(opened, active)
    needed = {v for v, w in zip(opened.outvars, wanted, strict=True) if w and jaxprs.is_var(v)}
    for i, step in reversed(list(enumerate(steps.steps_of(opened)))):
        ends = [v in needed for v in step.results]
        if not any(ends):
            continue
        needed.update(v for v in step.operands if jaxprs.is_var(v))
        at = _inside(step.eqn, around, i)
        starts = [jaxprs.is_var(v) and v in moving for v in step.operands]
        bodies = list(_bodies(step, starts, ends, at))
        for body, begins, finishes, under in bodies:
            _walk(body, begins, finishes, under, numbers, found)
        if not bodies and not jaxprs.is_alias(step.eqn):
            found.extend(_results(step, ends, moving, at, numbers))


def _results(
    step: steps.Step, ends: list[bool], moving: set, at: Around, numbers: dict
) -> Iterator[tuple[Site, tuple[Place, ...]]]:
    many = len(step.results) > 1
    op = "refs" if len(step.eqns) > 1 else jaxprs.label(step.eqn)
    for i, var in enumerate(step.results):
        if ends[i] and var in moving:
            name = f"v{numbers[at.path]}" + (f".{i}" if many else "")
            aval: Any = var.aval
            shape, dtype = tuple(aval.shape), aval.dtype
            loops = at.loops, at.path, i, at.entered
            calls = at.places if len(at.path) == 1 else at.places[:1]
            yield Site(name, op, at.scope, "", shape, dtype, *loops), calls


def _moving(jaxpr: Any, active: list[bool]) -> set:
    """The variables that depend on an active input."""
    moving = {v for v, a in zip(jaxpr.invars, active, strict=True) if a}
    for step in steps.steps_of(jaxpr):
        given = [jaxprs.is_var(v) and v in moving for v in step.operands]
        if not any(given) or step.eqn.primitive.name == "stop_gradient":
            continue
        results = _through(step, given)
        moving |= {
            v for v, m in zip(step.results, results, strict=True) if m and jaxprs.is_inexact(v.aval)
        }
    return moving


def _through(step: steps.Step, given: list[bool]) -> list[bool]:
    inside = jaxprs.structure(step.eqn) if len(step.eqns) == 1 else None
    if isinstance(inside, jaxprs.Call):
        return _ends(inside.body, given)
    if isinstance(inside, jaxprs.Cond):
        branches = [_ends(body, given[1:]) for body in inside.branches]
        return [any(column) for column in zip(*branches, strict=True)]
    if isinstance(inside, jaxprs.Scan):
        return _ends(inside.body, _settled(inside, given))
    return [True] * len(step.results)


def _ends(jaxpr: Any, given: list[bool]) -> list[bool]:
    opened, _ = jaxprs.open_jaxpr(jaxpr)
    moving = _moving(opened, given)
    return [jaxprs.is_var(v) and v in moving for v in opened.outvars]


def _settled(scan: jaxprs.Scan, given: list[bool]) -> list[bool]:
    """Which inputs of a scan's body are active in some iteration."""
    first, last = scan.consts, scan.consts + scan.carry
    while True:
        results = _ends(scan.body, given)[: scan.carry]
        carry = [a or b for a, b in zip(given[first:last], results, strict=True)]
        after = [*given[:first], *carry, *given[last:]]
        if after == given:
            return given
        given = after


def _inside(eqn: Any, around: Around, i: int) -> Around:
    own = jaxprs.scope(eqn)
    places = () if around.library else places_of(eqn)
    scope = "/".join(filter(None, (around.scope, own)))
    places = places or around.places
    return around._replace(path=(*around.path, i), scope=scope, places=places)


def _bodies(
    step: steps.Step, starts: list[bool], ends: list[bool], at: Around
) -> Iterator[tuple[Any, list[bool], list[bool], Around]]:
    """What a step runs and can be watched in: the jaxpr, its active inputs, its wanted outputs."""
    inside = jaxprs.structure(step.eqn) if len(step.eqns) == 1 else None
    if isinstance(inside, jaxprs.Call):
        library = at.library or jaxprs.is_library(inside.body)
        under = at._replace(path=(*at.path, 0), library=library)
        yield inside.body, starts, ends, under
    elif isinstance(inside, jaxprs.Cond):
        for branch, body in enumerate(inside.branches):
            yield body, starts[1:], ends, at._replace(path=(*at.path, branch))
    elif isinstance(inside, jaxprs.Scan):
        entered = (*at.entered, len(at.path))
        loops = (*at.loops, inside.length)
        under = at._replace(path=(*at.path, 0), loops=loops, entered=entered)
        wanted = [True] * inside.carry + ends[inside.carry :]
        yield inside.body, _settled(inside, starts), wanted, under


def layers_of(sites: Sequence[Site]) -> dict[str, list[Site]]:
    """The outputs of each layer, by its path: of a layer called again, one for each call.

    A layer's output is the last place in it that matters. "dense", "dense#2" are two calls.
    """
    calls: dict[str, list[list[Site]]] = {}
    for i, site in enumerate(sites):
        before = sites[i - 1].scope if i else ""
        for depth in range(1, site.scope.count("/") + 2 if site.scope else 1):
            layer = "/".join(site.scope.split("/")[:depth])
            runs = calls.setdefault(layer, [])
            if not runs or not f"{before}/".startswith(f"{layer}/"):
                runs.append([])
            runs[-1].append(site)
    found: dict[str, list[Site]] = {}
    for layer, runs in calls.items():
        for i, run in enumerate(runs):
            last = run[-1]
            name = layer if i == 0 else f"{layer}#{i + 1}"
            found[name] = [site for site in run if site.path == last.path]
    order = {site: i for i, site in enumerate(sites)}
    return dict(sorted(found.items(), key=lambda item: order[item[1][-1]]))
