"""What is judged: a function with a rule, the same without, and the arrays they are called with."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ...jaxpr import jaxprs
from ...jaxpr.equations import Equation
from ...jaxpr.walk import At, Handler, bodies, walk
from ...rules.compare import LIMITS, cast, is_floating
from ...rules.rule import Rule
from ...traces.program import Program

Flat = Callable[..., list]
"""A function of flat arrays that gives its flat outputs."""


class Subject(NamedTuple):
    """A rule and its primal at some arrays.

    Attributes:
        name: What the rule is called.
        names: Each array as Python writes it.
        arrays: What both are called with.
        active: Which of the arrays take a gradient.
        rule: The function as it stands.
        primal: The function without rules.
        wide: Both in float64; None if they cannot be had so.
        adjoints: The adjoint of each floating output; None if it is to be drawn.
    """

    name: str
    names: tuple[str, ...]
    arrays: tuple
    active: tuple[int, ...]
    rule: Flat
    primal: Flat
    wide: tuple[Flat, Flat] | None
    adjoints: tuple | None = None

    @property
    def dtype(self) -> str:
        """The dtype with the fewest bits among the arrays that take a gradient: it sets limits."""
        kinds = [np.dtype(self.arrays[i].dtype) for i in self.active]
        return real_name(min(kinds, key=lambda kind: jax.numpy.finfo(kind).bits))

    def widened(self) -> "Subject":
        """The same in float64."""
        assert self.wide is not None
        adjoints = None if self.adjoints is None else tuple(in_float64(self.adjoints))
        rule, primal = self.wide
        return self._replace(
            arrays=tuple(in_float64(self.arrays)), rule=rule, primal=primal, adjoints=adjoints
        )


def real_name(dtype: Any) -> str:
    """The dtype that limits are known of: of complex numbers, that of their parts.

    >>> real_name("complex64"), real_name("bfloat16")
    ('float32', 'bfloat16')
    """
    name = str(jax.numpy.finfo(dtype).dtype)
    return name if name in LIMITS else "float16"


def in_float64(arrays: Sequence[Any]) -> list[Any]:
    """Arrays with the floating ones in float64, on the host; keys stay as they are."""
    return [cast(np.asarray(x), np.float64) if is_floating(x) else x for x in arrays]


def subject_of(where: str, f: Callable, args: tuple, wrt: Any) -> tuple[Subject, Program]:
    """A function as a person calls it, as what is judged."""
    f, args = _held(f, args)
    program = Program(where, f, args, {})
    program.require_values()
    chosen = program.active(program.chosen(wrt))
    active = tuple(i for i, is_active in enumerate(chosen) if is_active)

    def rule(*arrays: Any) -> list:
        return jax.tree.leaves(program.of_arrays(*arrays))

    primal = _definition(program) or stripped(rule)
    name = getattr(f, "__name__", type(f).__name__)
    names, arrays = tuple(program.names()), tuple(program.arrays)
    return Subject(name, names, arrays, active, rule, primal, (rule, primal)), program


def _held(f: Any, args: tuple) -> tuple[Callable, tuple]:
    """A custom rule without the arguments that it says are no data, and the others."""
    held = getattr(f, "nondiff_argnums", ())
    if not held or max(held) >= len(args):
        return f, args
    free = [i for i in range(len(args)) if i not in held]

    @functools.wraps(f)
    def of_data(*data: Any) -> Any:
        whole = list(args)
        for i, x in zip(free, data, strict=True):
            whole[i] = x
        return f(*whole)

    parameters = list(inspect.signature(f).parameters.values())
    of_data.__signature__ = inspect.Signature([parameters[i] for i in free])  # pyright: ignore[reportAttributeAccessIssue]  # a function takes attributes
    return of_data, tuple(args[i] for i in free)


def _definition(program: Program) -> Flat | None:
    """The definition of an op of ours; its equation may have a faster form in its place."""
    f, static = program.f, {}
    if isinstance(f, functools.partial) and not f.args:
        f, static = f.func, f.keywords
    record = getattr(f, "rule", None)
    if not isinstance(record, Rule) or "<locals>" in record.primal.__qualname__:
        return None
    options = record.options(static)
    plain = functools.partial(record.primal, **options)
    own = Program(program.where, plain, program.args, {})
    return lambda *arrays: jax.tree.leaves(own.of_arrays(*arrays))


def stripped(f: Flat) -> Flat:
    """A function without its custom rules; those of JAX's own functions stay."""

    def plain(*arrays: Any) -> list:
        closed, _ = jaxprs.trace(f, *arrays)
        without = jaxprs.rewrite(closed, jaxprs.strippable_body)
        return jaxprs.evaluate(without, *arrays)

    return plain


class _Rules(Handler):
    def __init__(self) -> None:
        self.found: list[Equation] = []

    def equation(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        inner = [(body.jaxpr, body.values) for body in bodies(e, operands, at)]
        if e.kind == "rule" and jaxprs.strippable_body(e.eqn) is not None:
            self.found.append(e)
            inner.append((e.primal, operands))
        for jaxpr, values in inner:
            walk(jaxpr, values, self, at)
        return [None] * len(e.results)


def rules_of(jaxpr: Any) -> list[Equation]:
    """The equations of the custom rules in a program, in order, at any depth, but for those of
    JAX's own functions.

    >>> closed, _ = jaxprs.trace(jax.jit(jax.nn.relu), 1.0)
    >>> rules_of(closed)
    []
    """
    handler = _Rules()
    walk(jaxpr, [None] * len(jaxprs.open_jaxpr(jaxpr)[0].invars), handler)
    return handler.found


def rules_in(jaxpr: Any) -> list[str]:
    """The names of the custom rules in a program, each once.

    >>> closed, _ = jaxprs.trace(lambda x: jax.nn.relu(x), 1.0)
    >>> rules_in(closed)
    []
    """
    return list(dict.fromkeys(e.label for e in rules_of(jaxpr)))
