"""`check_rule`: a rule beside its primal, wherever the rule comes from."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from ...jaxpr import jaxprs
from ...jaxpr.passes import passes_of
from ...rules.compare import LIMITS, is_floating
from ...traces.program import NO_FLOAT, seeds_of
from ...types import require, shown
from .judge import POINTS, WAYS, Judge
from .programs import LARGEST, Pulled, pulled, pushed
from .report import Comparison, RuleReport
from .sides import line_of
from .subject import Subject, rules_in, rules_of, subject_of
from .taylor import expansions


def check_rule(
    f: Callable,
    *,
    wrt: int | Sequence[int] | None = None,
    seed: Any = None,
    points: Sequence[str] = POINTS,
    ways: Sequence[str] = WAYS,
    random: int = 0,
) -> "RuleChecker":
    """Hold a rule against its primal: a `jax.custom_vjp`, a `jax.custom_jvp`, an op of ours.

    The truth is `jax.vjp` of the primal in float64, at exactly the numbers the rule was given:
    there is no step size. Where JAX cannot differentiate the primal in reverse it is `jax.jvp`,
    and where it cannot at all, finite differences along a direction, whose Taylor rate is said.
    The rule is run in float64 and in the arguments' dtype. In the latter it may err as `LIMITS`
    say, or 8 times as much as JAX's own gradient does in that dtype.

    Args:
        f: A function that runs a rule. All that it does beside that is differentiated by JAX on
            both sides.
        wrt: The arguments whose gradients are compared, counted as by `jax.grad`; None for all
            floating ones.
        seed: The adjoint of the output, a pytree like it; drawn if None.
        points: Where, among "as given"; "zero", "ties" (neighbours made equal), "large" (times
            1,000), "tiny" (times 1e-6), all of the arguments that take a gradient; and "no
            cotangent".
        ways: How, beside compiled, among "eager", "vmap" (over each array), "scan", "remat",
            "grad of grad" and "adjoint identity" (<J v, w> = <v, J' w>).
        random: Decides what is drawn.

    Returns:
        A function of the arguments of `f` that gives a `RuleReport`: `ok`, `assert_ok()`,
        `failures`, each with the argument, the element and both values.

    Raises:
        TypeError: When called, if `f` carries no rule, or no argument is floating.
        ValueError: If a point or a way has another name.

    >>> @jax.custom_vjp
    ... def square(x):
    ...     return x * x
    >>> square.defvjp(lambda x: (x * x, x), lambda x, dy: (2.001 * x * dy,))
    >>> report = check_rule(square)(3.0)
    >>> report.ok
    False
    >>> print(report.failures[0])
    gradient of x: rule 0.618115, jax.vjp of the primal 0.617806
      (error 0.0005, limit 1e-12; jit, as given, float64)

    Reference: N. J. Higham, Accuracy and Stability of Numerical Algorithms (2002), chapter 3; for
    the two inner products J. F. Claerbout, Earth Soundings Analysis (1992), chapter 5.
    """
    require_known("check_rule", points, ways)
    return RuleChecker(f, wrt, seed, tuple(points), tuple(ways), random)


def require_known(where: str, points: Sequence[str], ways: Sequence[str]) -> None:
    """Refuse a point or a way of another name."""
    for word, chosen, known in (("point", points, POINTS), ("way", ways, WAYS)):
        for name in chosen:
            require(
                name in known and not isinstance(chosen, str),
                where,
                f"a {word} among {', '.join(known)}",
                f"the string {chosen!r}" if isinstance(chosen, str) else repr(name),
                f"Write ({chosen!r},)." if chosen in known else "Leave it out for all.",
            )


@dataclass(frozen=True)
class RuleChecker:
    """What `check_rule` returns; a call gives a `RuleReport`.

    Programs are compiled once for all arguments alike.
    """

    f: Callable
    wrt: int | Sequence[int] | None
    seed: Any
    points: tuple[str, ...]
    ways: tuple[str, ...]
    random: int
    _known: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, *args: Any) -> RuleReport:
        """Compare the rule with its primal at these arguments."""
        return self.drawn(self.random, *args)

    def drawn(self, random: int, *args: Any) -> RuleReport:
        """The same with other draws of the adjoint and of directions."""
        subject, program = subject_of("check_rule", self.f, args, self.wrt)
        others = [x for i, x in enumerate(program.leaves) if i not in program.places]
        key = str([jax.typeof(x) for x in subject.arrays]), program.tree, str(others)
        if key not in self._known:
            closed, tree = program.opened()
            _refuse(self.f, subject, closed)
            self._known[key] = Checked(subject), tree, jaxprs.output_shapes(closed)
        checked, tree, shapes = self._known[key]
        if self.seed is not None:
            seeds = seeds_of("check_rule", tree, shapes, self.seed)
            subject = subject._replace(adjoints=_filled(seeds, shapes))
        return checked.report(subject, self.points, self.ways, random)


def _filled(seeds: Sequence[Any], shapes: Sequence[Any]) -> tuple:
    """The adjoints of the floating outputs, with zeros where nothing starts."""
    pairs = [(s, like) for s, like in zip(seeds, shapes, strict=True) if is_floating(like)]
    return tuple(np.zeros(x.shape, x.dtype) if s is None else np.asarray(s) for s, x in pairs)


def _refuse(f: Callable, subject: Subject, closed: Any) -> None:
    require(
        bool(subject.active),
        "check_rule",
        "an argument with a gradient",
        "none",
        NO_FLOAT,
        TypeError,
    )
    require(
        bool(rules_in(closed)),
        "check_rule",
        "a function that runs a custom rule",
        shown(f),
        "JAX derives its gradient alone: there is no rule to check.",
        TypeError,
    )


class Checked:
    """A rule that can be compared with its primal: what can be judged, and by what.

    Attributes:
        notes: What cannot be judged, and why.
        raised: What the rule raises where it is differentiated.
    """

    def __init__(self, subject: Subject) -> None:
        self.notes = _left_out(subject)
        self.raised: Exception | None = None
        subject = self._with_float64(subject)
        try:
            own = self._shapes(subject.rule, subject, pulled)
            subject = self._with_its_gradients(subject, own)
        except Exception as error:  # whatever a rule raises
            self.raised = error
        self.judge = Judge(subject)
        self.kept = _kept(subject)
        self.by_values = False
        for gradient, said in ((pulled, "vjp"), (pushed, "jvp")):
            try:
                self._shapes(subject.primal, subject, gradient)
            except Exception as error:  # whatever a primitive without a derivative raises
                self.notes.append(f"jax.{said} of the primal: {line_of(error)}")
                continue
            self._judge_by(gradient, said)
            return
        self.by_values = True
        self.judge.against = "differences of the primal's values"

    def _judge_by(self, gradient: Callable, said: str) -> None:
        sizes = sum(self.judge.subject.arrays[i].size for i in self.judge.active)
        if said == "jvp" and sizes > LARGEST:
            self.by_values = True
            self.notes.append(
                f"More than {LARGEST:,} elements: forward derivatives were not taken."
            )
        self.judge.against = f"jax.{said} of the primal"
        self.judge.plain.gradient = self.judge.truth.gradient = gradient

    def _shapes(self, f: Callable, subject: Subject, gradient: Callable) -> Any:
        outputs = [y for y in jax.eval_shape(f, *subject.arrays) if is_floating(y)]
        run = lambda arrays, cts: gradient(f, subject.active, arrays, cts)  # noqa: E731
        return jax.eval_shape(run, list(subject.arrays), outputs)

    def _with_float64(self, subject: Subject) -> Subject:
        """The subject, without the float64 that it cannot be run in."""
        if subject.wide is None:
            return subject
        wide = subject.widened()
        try:
            with jax.enable_x64(True):
                for f in subject.wide:
                    outputs = jax.eval_shape(f, *wide.arrays)
        except Exception as error:  # whatever a function raises that takes its own dtype alone
            self.notes.append(f"Not run in float64: {line_of(error)}")
            return subject._replace(wide=None)
        kinds = {str(y.dtype) for y in outputs if is_floating(y)} - {"float64", "complex128"}
        if not kinds:
            return subject
        self.notes.append(f"Not judged in float64: the output is of {', '.join(sorted(kinds))}.")
        return subject._replace(wide=None)

    def _with_its_gradients(self, subject: Subject, own: Pulled) -> Subject:
        """The subject, without float64 if its gradients are of the given dtype even there."""
        fits = [
            np.dtype(g.dtype) == subject.arrays[i].dtype
            for i, g in zip(subject.active, own.gradients, strict=True)
        ]
        if subject.wide is None or not all(fits):
            return subject
        wide = subject.widened()
        try:
            with jax.enable_x64(True):
                found = self._shapes(wide.rule, wide, pulled).gradients
        except Exception as error:  # whatever JAX, or the rule, says of a gradient of that dtype
            self.notes.append(f"Not differentiated in float64: {line_of(error)}")
            return subject._replace(wide=None)
        kept = [
            f"that of {subject.names[i]} is of {g.dtype}"
            for i, g in zip(subject.active, found, strict=True)
            if g.dtype != wide.arrays[i].dtype
        ]
        if not kept:
            return subject
        self.notes.append(f"Not judged in float64: of its gradients, {', '.join(kept)} there.")
        return subject._replace(wide=None)

    def report(
        self, subject: Subject, points: Sequence[str], ways: Sequence[str], random: int
    ) -> RuleReport:
        """The comparisons at these arrays."""
        rates: dict[str, float] = {}
        if self.raised is not None:
            place = "jit", "as given", self.judge.dtype, "all"
            start = Comparison(*place, "wrong", float("inf"), LIMITS[self.judge.dtype])
            rows = [_of_raised(subject, self.raised, start)]
            rows += self.judge.values(subject)
        elif self.by_values:
            rows, rates = self._by_values(subject, random)
        else:
            rows = self.judge.judge(subject, points, ways, random)
        notes = tuple(self.notes)
        return RuleReport(subject.name, tuple(rows), self.kept, self.judge.against, notes, rates)

    def _by_values(self, subject: Subject, random: int) -> tuple[list, dict[str, float]]:
        judge = self.judge
        adjoints = judge.wide(judge.drawn(subject, random))
        arrays = judge.wide(subject.arrays)
        with judge.in_float64():
            gradients = judge.rule.pull(arrays, adjoints).gradients
            value = judge.truth.compiled("value", lambda some: list(judge.truth.f(*some)))
            found = expansions(value, arrays, judge.active, adjoints, gradients, random)
        rows, rates = [], {}
        for name, (claimed, slope) in zip(judge.names, found, strict=True):
            limit = 1e-6 + 10 * slope.error / max(abs(slope.value), 1e-30)
            error = abs(claimed - slope.value) / max(abs(slope.value), 1e-30)
            right = "same" if error <= limit else "wrong"
            sides = f"{claimed:.6g}", f"{slope.value:.6g}", "differences of the primal's values"
            place = "one direction", "as given", judge.finest, name
            rows.append(Comparison(*place, right, error, limit, None, *sides))
            rates[name] = slope.rate
        return rows, rates


def _of_raised(subject: Subject, error: Exception, row: Comparison) -> Comparison:
    """The comparison that is a refusal of JAX: with the array, where it names one of the rule's."""
    said = re.search(
        r"at output\[(\d+)\](\S*) the bwd rule produced an output of type (\w+\[[\d,]*\]) "
        r"corresponding to an input of type (\w+\[[\d,]*\])",
        str(error),
    )
    closed, _ = jaxprs.trace(subject.rule, *subject.arrays)
    rules, inputs = rules_of(closed), jaxprs.open_jaxpr(closed)[0].invars
    if said is not None and rules and list(rules[0].operands) == list(inputs):
        number, path, found, like = said.groups()
        held = jaxprs.closed_over(rules[0].eqn)
        roots = list(dict.fromkeys(re.split(r"[.\[]", name)[0] for name in subject.names[held:]))
        name = "".join(roots[int(number) : int(number) + 1]) + path
        if name in subject.names:
            sides = [re.findall(r"\d+", x.partition("[")[2]) for x in (found, like)]
            hint = "that is the shape of its transpose" if sides[0] == sides[1][::-1] else ""
            note = f"the rule gives {found} for an array of {like}"
            return row._replace(quantity=name, note=note, hint=hint)
    return row._replace(note=f"raises {line_of(error)}")


def _left_out(subject: Subject) -> list[str]:
    fixed = [n for i, n in enumerate(subject.names) if i not in subject.active]
    return [f"Without a gradient, and left as given: {', '.join(fixed)}."] if fixed else []


def _kept(subject: Subject) -> tuple[int, int] | None:
    """The bytes that the rule, and `jax.grad` of its primal, keep for the backward pass."""
    sizes = []
    for f in (subject.rule, subject.primal):

        def apart(*arrays: Any, f: Callable = f) -> tuple[list, list]:
            outputs = f(*arrays)
            floating = [y for y in outputs if is_floating(y)]
            return floating, [y for y in outputs if not is_floating(y)]

        try:
            forward, _, results, residuals = passes_of(apart, subject.arrays, subject.active)
        except Exception:  # one that JAX cannot differentiate keeps nothing
            return None
        first = len(results)
        sources = jaxprs.output_sources(forward)[first : first + len(residuals)]
        each = dict(zip(sources, residuals, strict=True))
        sizes.append(sum(x.size * x.dtype.itemsize for x in each.values()))
    return sizes[0], sizes[1]
