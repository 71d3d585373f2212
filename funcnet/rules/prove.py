"""Proof of a rule: the hand-written backward pass against `jax.vjp` of the plain primal.

The truth is computed in float64 from exactly the numbers that the rule is given, so the error of a
float32 or bfloat16 rule is its own and no one else's. There is no step size, as in finite
differences, and so nothing to tune: a wrong factor of 1.00001 is found.
"""

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from ..jaxpr import jaxprs
from ..jaxpr.passes import quick_options
from ..render import forms, text
from ..types import require
from .arguments import accepted
from .compare import LIMITS, cast, cotangents, gap, is_floating
from .rule import RULES, Case, Rule


class Proof(NamedTuple):
    """One number of the proof of a rule.

    Attributes:
        op: The op's name.
        case: Which of its cases.
        dtype: What its floating arguments were cast to.
        quantity: "value", or the name of the argument whose gradient this is.
        error: The worst error; infinite where shapes or dtypes differ, a NaN or an infinity does
            not match, or the op raised.
        note: What went wrong, if it was not a number.
    """

    op: str
    case: str
    dtype: str
    quantity: str
    error: float
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the error is within the limit for the dtype."""
        return self.error <= LIMITS[self.dtype]


def prove(op: Callable | Rule, *dtypes: str, seed: int = 0) -> tuple[Proof, ...]:
    """Hold an op's value and every gradient against `jax.vjp` of its primal, in each of its cases.

    Args:
        op: An op made by `rule`, or its row of `RULES`.
        dtypes: Among "float64", "float32", "bfloat16" and "float16": what the rule computes in;
            float64 if none is given. The truth is always computed in float64.
        seed: Decides the arguments and the cotangents.

    Returns:
        For each case and dtype, the error of the value and of each floating argument's gradient.

    Raises:
        TypeError: If `op` carries no rule.
        ValueError: If a dtype is none of the four.

    >>> from funcnet.ops.products.linear import dense
    >>> all(proof.ok for proof in prove(dense))
    True
    """
    record = op if isinstance(op, Rule) else getattr(op, "rule", None)
    require(
        isinstance(record, Rule),
        "prove",
        "an op made by rule()",
        getattr(op, "__name__", type(op).__name__),
        "Any other function is differentiated by JAX alone and has nothing to prove.",
        TypeError,
    )
    assert record is not None
    for dtype in dtypes:
        require(
            dtype in LIMITS,
            "prove",
            f"a dtype among {', '.join(LIMITS)}",
            repr(dtype),
            "Choose one of the four.",
        )
    return tuple(_proofs(record, dtypes or ("float64",), seed))


def kept(rule: Rule, case: Case) -> str:
    """What an op keeps for its backward pass: arguments and output by name, the rest by shape.

    >>> from funcnet.ops.products.linear import dense
    >>> kept(dense.rule, dense.rule.cases["no bias"])
    'x, w'
    """
    args = drawn(case)
    owners = [n for n, arg in zip(rule.arguments, args, strict=True) for _ in jax.tree.leaves(arg)]

    def forward(*args: Any) -> Any:
        return rule.forward(*args, **accepted(rule.forward, rule.options(case.static)))

    closed, tree = jaxprs.trace(forward, *args)
    n_outputs = tree.children()[0].num_leaves
    sources = jaxprs.output_sources(closed)
    outputs = set(sources[:n_outputs])
    names = []
    for source, aval in zip(sources[n_outputs:], closed.out_avals[n_outputs:], strict=True):
        if source[0] == "input":
            names.append(owners[source[1]])
        else:
            names.append("output" if source in outputs else f"{aval.dtype}{list(aval.shape)}")
    return ", ".join(dict.fromkeys(names)) or "nothing"


@dataclass(frozen=True)
class Report:
    """The proofs of many rules in one dtype; print it for a table with the worst of each op.

    Attributes:
        dtype: What the rules computed in.
        proofs: Every number.
        kept: For each op, what it keeps in its first case.
    """

    dtype: str
    proofs: tuple[Proof, ...]
    kept: dict[str, str]

    @property
    def failures(self) -> tuple[Proof, ...]:
        """The proofs beyond the limit."""
        return tuple(proof for proof in self.proofs if not proof.ok)

    def __str__(self) -> str:
        unit = "ulps" if LIMITS[self.dtype] > 1 else "relative"
        columns = (
            forms.Column("op"),
            forms.Column("cases", right=True),
            forms.Column("kept for backward"),
            forms.Column(f"worst error of value and gradients ({unit})"),
        )
        rows = tuple(self._row(op) for op in self.kept)
        return text.table(forms.Table(columns, rows, f"rules in {self.dtype}", self._notes()))

    def _row(self, op: str) -> tuple[str, ...]:
        own = [proof for proof in self.proofs if proof.op == op]
        worst: dict[str, float] = {}
        for proof in own:
            worst[proof.quantity] = max(worst.get(proof.quantity, 0.0), proof.error)
        errors = "  ".join(f"{quantity} {error:.1e}" for quantity, error in worst.items())
        mark = "" if all(proof.ok for proof in own) else "  FAILED"
        return op, str(len({proof.case for proof in own})), self.kept[op], errors + mark

    def _notes(self) -> tuple[str, ...]:
        failed = tuple(
            f"FAILED {p.op} ({p.case}): {p.quantity} {p.error:.3g} > {LIMITS[p.dtype]:g} {p.note}"
            for p in self.failures
        )
        ops = len(self.kept)
        total = f"{ops} ops, {len(self.proofs)} comparisons, {len(failed)} beyond the limit of "
        return (*failed, f"{total}{LIMITS[self.dtype]:g}.")


def prove_all(
    rules: Iterable[Rule] | None = None,
    dtype: str = "float64",
    progress: Callable[[str], None] = lambda op: None,
) -> Report:
    """Prove many rules.

    Args:
        rules: Which; every row of `RULES` if None.
        dtype: See `prove`.
        progress: Called with each op's name before it is proved.

    >>> from funcnet.ops.products.linear import embed
    >>> print(prove_all([embed.rule]))
    rules in float64
    op     cases  kept for backward  worst error of value and gradients (relative)
    -----  -----  -----------------  ---------------------------------------------
    embed      3  table, ids         value 0.0e+00  table 0.0e+00
    1 ops, 6 comparisons, 0 beyond the limit of 1e-12.
    """
    chosen = tuple(RULES.values() if rules is None else rules)

    def one(rule: Rule) -> tuple[Proof, ...]:
        progress(rule.name)
        return prove(rule, dtype)

    with ThreadPoolExecutor(os.cpu_count()) as threads:  # XLA compiles outside the interpreter lock
        proofs = [proof for found in threads.map(one, chosen) for proof in found]
    held = {
        rule.name: kept(rule, next(iter(rule.cases.values()))) if rule.cases else "unproved"
        for rule in chosen
    }
    return Report(dtype, tuple(proofs), held)


def drawn(case: Case, seed: int = 0) -> tuple:
    """A case's arguments on the host, floating ones in float64 and integers in int32."""

    kinds = {"f": np.float64, "i": np.int32}

    def fixed(x: Any) -> Any:
        return x.astype(kinds.get(x.dtype.kind, x.dtype)) if isinstance(x, np.ndarray) else x

    return jax.tree.map(fixed, case.make(np.random.default_rng(seed)))


def _proofs(rule: Rule, dtypes: Sequence[str], seed: int) -> Iterator[Proof]:
    """All cases of an op are one program, since compiling many small ones takes longer."""
    compiled: dict[Any, Callable] = {}
    for dtype in dtypes:
        with jax.enable_x64(True):
            rows = _attempt(rule, list(rule.cases), dtype, seed, compiled)
        for name, quantity, error, note in rows:
            yield Proof(rule.name, name, dtype, quantity, error, note)


def _attempt(
    rule: Rule, names: list[str], dtype: str, seed: int, compiled: dict[Any, Callable]
) -> list[tuple[str, str, float, str]]:
    """The errors of these cases; if there is one that raises, of each by itself."""
    try:
        return _errors(rule, names, dtype, seed, compiled)
    except Exception as error:  # a rule that raises has failed its proof; this says how
        if len(names) == 1:
            return [(names[0], "value", float("inf"), f"{type(error).__name__}: {error}")]
    return [row for name in names for row in _attempt(rule, [name], dtype, seed, compiled)]


def _errors(
    rule: Rule, names: Sequence[str], dtype: str, seed: int, compiled: dict[Any, Callable]
) -> list[tuple[str, str, float, str]]:
    """Case, quantity, error and note of each quantity of these cases."""
    cases = [rule.cases[name] for name in names]
    args = [cast(drawn(case, seed), dtype) for case in cases]
    shapes = jax.eval_shape(lambda args: _all(rule.primal, cases, args), args)
    dys = [cotangents(np.random.default_rng((seed, 1)), shape, dtype) for shape in shapes]
    for f, options in ((rule.op, None), (rule.primal, quick_options())):
        run = functools.partial(_pulled_back, f, cases)
        if (f, *names) not in compiled:
            compiled[f, *names] = jax.jit(run, compiler_options=options)
    found = jax.device_get(compiled[rule.op, *names](args, dys))
    wide = cast((args, dys), "float64")
    truth = jax.device_get(compiled[rule.primal, *names](*wide))
    return [
        (name, *row)
        for name, *parts in zip(names, args, shapes, found, truth, strict=True)
        for row in _compared(rule, dtype, *parts)
    ]


def _compared(
    rule: Rule, dtype: str, args: tuple, shapes: Any, found: tuple, truth: tuple
) -> Iterator[tuple[str, float, str]]:
    compare = functools.partial(_compare, dtype=dtype, each=not rule.rounds)
    yield "value", *compare(found[0], truth[0], shapes)
    rows = zip(rule.arguments, found[1], truth[1], args, strict=True)
    for argument, got, right, arg in rows:
        if jax.tree.leaves(right) and argument not in rule.nodiff:
            like = jax.tree.map(lambda x: x if is_floating(x) else None, arg)
            yield argument, *compare(got, right, like)


def _all(f: Callable, cases: Sequence[Case], args: Sequence[tuple]) -> list[Any]:
    return [f(*own, **case.static) for case, own in zip(cases, args, strict=True)]


def _pulled_back(f: Callable, cases: Sequence[Case], args: Sequence[tuple], dys: Any) -> list:
    rows = zip(cases, args, dys, strict=True)
    return [_value_and_pull_back(f, case, own, dy) for case, own, dy in rows]


def _value_and_pull_back(f: Callable, case: Case, args: tuple, dy: Any) -> tuple[Any, tuple]:
    output, pull = jax.vjp(lambda *args: f(*args, **case.static), *args)
    return output, tuple(
        jax.tree.map(lambda x, d: d if is_floating(x) else None, arg, gradient)
        for arg, gradient in zip(args, pull(dy), strict=True)
    )


def _compare(got: Any, truth: Any, like: Any, *, dtype: str, each: bool) -> tuple[float, str]:
    """The worst error over the leaves, and a note where it is not one of rounding."""
    worst, note = 0.0, ""
    for a, b, c in zip(*map(jax.tree.leaves, (got, truth, like)), strict=True):
        if a.shape != c.shape or a.dtype != c.dtype:
            return float("inf"), f"is {a.dtype}{list(a.shape)}, not {c.dtype}{list(c.shape)}"
        error = gap(a, b, dtype, each=each).error
        if error == float("inf"):
            note = "a NaN, an infinity or a zero does not match"
        worst = max(worst, error)
    return worst, note
