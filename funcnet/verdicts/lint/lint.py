"""`lint(f)(*args)`: what is going to go wrong, before it does."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp

from ...jaxpr import jaxprs
from ...jaxpr.walk import walk
from ...traces.program import Program, pair_of
from .findings import Finding, Lint, shown
from .graph import Graph, Node, Reach
from .keys import reused
from .lost import dead_branches, without_gradient
from .precision import captured, differences, narrow_sums, overflows, with_logits
from .ranges import of_dtype
from .rewrite import is_inside_call, safely
from .suspects import Suspect, squashed_before_log, suspects
from .values import counted


def lint(
    f: Callable, *, wrt: int | Sequence[int] | None = None, has_aux: bool = False
) -> Callable[..., Lint]:
    """Find the traps in a function: where its gradient is, or may be, NaN, infinite or lost.

    Nothing is written into the function. Its jaxpr is walked once with what is known of each
    array's range: of x * x that it is 0 or more, of x + 1e-6 after that, that it is not 0. So
    what is guarded is not told of. With arrays as arguments, one compiled run counts how many
    elements lie where an operation is singular.

    Args:
        f: Any JAX function.
        wrt: The arguments to differentiate, counted as `jax.grad` does; None for all of a floating
            dtype. That one gets no gradient is told of these; without `wrt`, of the first such.
        has_aux: Whether `f` returns `(loss, aux)`.

    Returns:
        A function of f's arguments, arrays or `ShapeDtypeStruct`s, that gives a `Lint`: true where
        there are findings, with a length, and iterated over one by one. A finding is of a kind:

        - "where-masks-singular": a `where` leaves out elements at which the gradient is infinite.
          JAX multiplies it by 0 there, which is NaN.
        - "singular": a root, logarithm, division, power, arccos, arctan2 at an edge.
        - "log-of-softmax", "log-of-sigmoid": what underflows, and has a form that does not.
        - "no-gradient": an argument from which no path leads to the output, and what ends it.
        - "dead-branch": one side of a `where` or maximum that is never taken.
        - "key-reused": one random key for two draws.
        - "lost-digits", "narrow-sum", "integer-overflow", "captured-constant".

    Raises:
        TypeError: If an argument that `wrt` names has no floating array.
        ValueError: If `wrt` names an argument that is not there, `has_aux` is set for a function
            that returns no pair, or the function has side effects.

    Reference: JAX documentation, "Frequently asked questions: Gradients contain NaN where using
    where"; Cousot and Cousot, "Abstract interpretation" (POPL 1977), for the ranges.

    >>> def mean_of_each(total, n):
    ...     return jnp.sum(jnp.where(n > 0, total / n, 0.0))
    >>> found = lint(mean_of_each)(jnp.ones(3), jnp.array([1.0, 0.0, 2.0]))
    >>> len(found), found.findings[0].kind, found.findings[0].hit
    (1, 'where-masks-singular', (1, 3))
    >>> found.findings[0].rewrite
    'total / jnp.where(n != 0, n, 1.0)'
    """

    def run(*args: Any, **kwargs: Any) -> Lint:
        program = Program("lint", f, args, kwargs)
        active = program.active(program.chosen(wrt))
        closed, tree = program.opened()
        graph = Graph()
        types = closed.in_avals
        inputs = [Node([], of_dtype(t.dtype), jaxprs.is_inexact(t)) for t in types]
        for node in inputs:
            node.same = node
        outputs = walk(closed, inputs, graph)
        if has_aux:
            outputs = outputs[: pair_of("lint", tree)[0].num_leaves]
        moved = [node for node, is_active in zip(inputs, active, strict=True) if is_active]
        reach = Reach(graph, moved, [node for node in outputs if node.flows])
        floating = [n for n, on in zip(program.owner, active, strict=True) if on]
        told = floating[:1] if wrt is None else program.chosen(wrt)
        named = [
            (name, node)
            for name, node, owner in zip(program.names(), inputs, program.owner, strict=True)
            if node in moved and owner in told
        ]
        has_values = program.has_values() and not any(map(jaxprs.is_traced, closed.consts))
        arrays = program.arrays if has_values else None
        found = [
            *_of_singular(closed, graph, reach, arrays),
            *without_gradient(named, reach),
            *dead_branches(graph, reach),
            *differences(graph, reach),
            *narrow_sums(graph),
            *overflows(graph),
            *reused(graph),
            *captured(graph),
        ]
        found.sort(key=lambda finding: finding.severity != "happens")
        name = getattr(f, "__name__", type(f).__name__)
        return Lint(name, tuple(_once(found)), has_values)

    return run


def _once(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Findings without those that say the same of one line."""
    seen = set()
    for finding in findings:
        key = finding.kind, finding.place, finding.what, finding.rewrite
        if key not in seen:
            seen.add(key)
            yield finding


def _of_singular(
    closed: Any, graph: Graph, reach: Reach, arrays: Sequence[Any] | None
) -> Iterator[Finding]:
    """Findings of operations that may be singular, counted if there are values."""
    listed = suspects(graph.nodes, reach)
    hits: dict[tuple[int, ...], list[int]] = {}
    if arrays is not None:
        hits = counted(closed, {s.path: _test(s) for s in listed}, arrays)
    for suspect in listed:
        hit = hits.get(suspect.path)
        bad = 0 if hit is None else hit[0 if suspect.is_masked else 1]
        silent = not suspect.is_suspected and (hit is not None or suspect.is_known)
        if not bad and (silent or is_inside_call(suspect)):
            continue
        count = (bad, hit[2]) if bad and hit else None
        yield _finding(suspect, "happens" if bad else "possible", count)


def _test(suspect: Suspect) -> Callable[..., Any]:
    """Where the slope, and where slope or value are not finite, of an operation's operands."""

    def test(*operands: Any) -> tuple[Any, Any]:
        xs = [jnp.asarray(x) for x in operands]
        slope = suspect.kind.slope(*xs)
        return slope, slope | suspect.kind.value(*xs)

    return test


def _finding(suspect: Suspect, severity: str, hit: tuple[int, int] | None) -> Finding:
    node, kind = suspect.node, suspect.kind
    here, scope = node.place, node.at.scope if node.at else ""
    squashed = squashed_before_log(node)
    if squashed is not None and not suspect.is_masked:
        name, _ = squashed
        what = "log-of-softmax" if name == "log_softmax" else "log-of-sigmoid"
        said = f"{what.replace('-', ' ').capitalize()}: it is -inf where the logits are far apart."
        return Finding(what, severity, here, said, with_logits(node, *squashed), None, hit, scope)
    if not suspect.is_masked or suspect.mask is None:
        said = f"The slope of {kind.name} is not finite where {kind.at}."
        if suspect.mask is not None:
            word = f"{suspect.mask.label}imum in {shown(suspect.mask.place)}"
            said += f" The {word} does not help: 0 * inf is NaN."
        return Finding("singular", severity, here, said, safely(suspect), None, hit, scope)
    there = suspect.mask.place
    lines = (shown(there), shown(here))
    if here and there and here.file == there.file:
        lines = f"line {there.line}", f"line {here.line}"
    masks = f"{lines[0]} masks what {lines[1]} computes"
    if here and there and here.line == there.line and here.file == there.file:
        masks = "the where masks what is computed before it"
    said = f"0 * inf in the gradient: {masks}, where {kind.at}."
    return Finding("where-masks-singular", severity, here, said, safely(suspect), there, hit, scope)
