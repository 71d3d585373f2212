"""The score of `check_rule`: mutants of every rule killed, and alarms raised by right rules.

Beside it stand `jax.test_util.check_grads` and `chex.assert_numerical_grads`, on the same mutants.
"""

import collections
import functools
import warnings
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

import funcnet as fn
from funcnet.rules.arguments import accepted
from funcnet.rules.compare import cast, gap, is_floating
from funcnet.rules.prove import drawn
from funcnet.rules.rule import Rule, _differentiable
from funcnet.verdicts.check.judge import POINTS
from funcnet.verdicts.check.programs import Programs
from funcnet.verdicts.check.rule import Checked
from funcnet.verdicts.check.subject import subject_of as subject_of_call

from .mutants import Mutant, mutants_of

PER_RULE = 2
"""How many mutants of a rule the checks by differences try: spread evenly over all."""

DRAWS = 1000
"""How many draws of right rules there are in each dtype, spread evenly over them."""

DTYPES = (np.float32, jnp.bfloat16, np.float16)


class Subject(NamedTuple):
    """A rule in one of its cases."""

    rule: Rule
    case: Any

    def args(self, seed: int = 0, dtype: Any = np.float32) -> tuple:
        """The arguments."""
        given = cast(drawn(self.case, seed), dtype)
        return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, given)

    @property
    def op(self):
        """The op with its options."""
        return functools.partial(self.rule.op, **self.case.static)

    def mutated(self, mutant: Mutant):
        """The op with another backward pass; its definition is the same."""
        static = self.case.static
        own = self.rule._replace(backward=lambda res, dy: mutant.change(res, dy))
        made = _differentiable(own, tuple(self.rule.options(static).items()))

        def f(*operands: Any, **_: Any) -> Any:
            return made(*operands)

        f.__name__ = self.rule.name
        f.rule = self.rule  # the definition is the op's
        return functools.partial(f, **static) if static else f


def subject_of(rule: Rule) -> Subject | None:
    """The rule in its first case that has no empty array and a gradient."""
    for case in rule.cases.values():
        leaves = jax.tree.leaves(drawn(case))
        sizes = [x.size for x in leaves]
        if all(sizes) and any(map(is_floating, leaves)):
            return Subject(rule, case)
    return None


def mutants(subject: Subject) -> list[Mutant]:
    """The mutants of a rule in this case."""
    rule, static = subject.rule, subject.rule.options(subject.case.static)
    forward = functools.partial(rule.forward, **accepted(rule.forward, static))
    backward = functools.partial(rule.backward, **accepted(rule.backward, static))
    output, res = forward(*subject.args())
    _, stale = forward(*subject.args(seed=1))
    return mutants_of(backward, res, output, stale)


def killed(subject: Subject, mutant: Mutant, checked: Any) -> str:
    """What `check_rule` says of a mutant: "killed", "same" (no draw shows a difference), "lives".

    The primal was compiled for the rule itself; all else is as in a call of `check_rule`.
    """
    args = subject.args()
    own, _ = subject_at(subject.mutated(mutant), args)
    judge = checked.judge
    judge.rule = Programs(own.rule, judge.active, is_quick=True)
    judge.own = Programs(own.rule, judge.active, is_quick=False)
    try:
        rows = judge.judge(own, ("as given",), (), 0)
        rows = rows if _wrong(rows) else judge.judge(own, POINTS, ("grad of grad",), 0)
    except Exception as error:  # a mutant may raise, and is found by that
        return f"killed {type(error).__name__}"
    if _wrong(rows):
        return "killed"
    for seed in range(2, 22):
        fresh, _ = subject_at(subject.op, subject.args(seed))
        cts = judge.wide(judge.drawn(fresh, seed))
        with judge.in_float64():
            pair = [f.pull(judge.wide(fresh.arrays), cts) for f in (judge.rule, judge.truth)]
        gaps = zip(*(p.gradients for p in pair), strict=True)
        if any(gap(a, b, "float64").error > 1e-11 for a, b in gaps):
            return "lives"
    return "same"


def subject_at(f: Any, args: tuple) -> tuple[Any, Any]:
    """What `check_rule` judges of a call."""
    return subject_of_call("check_rule", f, args, None)


def _wrong(rows: list) -> bool:
    return any(row.verdict == "wrong" for row in rows)


def of_floats(f: Any, args: tuple) -> tuple[Any, list]:
    """A function of its floating arrays alone, as checks by differences take it, compiled."""
    leaves, tree = jax.tree.flatten(args)
    places = [i for i, x in enumerate(leaves) if is_floating(x)]

    @jax.jit
    def run(*floats: Any) -> Any:
        filled = list(leaves)
        for i, x in zip(places, floats, strict=True):
            filled[i] = x
        return [y for y in jax.tree.leaves(f(*tree.unflatten(filled))) if is_floating(y)]

    return run, [leaves[i] for i in places]


def by_differences(f: Any, args: tuple, check: Any) -> bool:
    """Whether a check by finite differences passes."""
    run, floats = of_floats(f, args)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check(run, floats, order=1, modes=("rev",))
    except Exception:  # an AssertionError where the check fails, anything where it cannot judge
        return False
    return True


PEERS = {
    "`jax.test_util.check_grads`": check_grads,
    "`chex.assert_numerical_grads`": chex.assert_numerical_grads,
}


def mutation_scores(rules: list[Rule], each: int | None = None) -> dict[str, collections.Counter]:
    """How many mutants of each kind there are, live, and are the same as the rule.

    Args:
        rules: Whose.
        each: How many of each rule, None for all.
    """
    found: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for rule in rules:
        subject = subject_of(rule)
        checked = Checked(subject_at(subject.op, subject.args())[0])
        for mutant in some(mutants(subject), each):
            said = killed(subject, mutant, checked)
            found[mutant.kind][said.partition(" ")[0]] += 1
            if said == "lives" or " " in said:
                print(f"{rule.name}: {mutant.kind}, {mutant.place}: {said}", flush=True)
        jax.clear_caches()
    return found


def some(found: list, each: int | None) -> list:
    """So many of a list, spread evenly over it."""
    if each is None or len(found) <= each:
        return found
    return [found[i * len(found) // each] for i in range(each)]


def peer_scores(rules: list[Rule], each: int) -> dict[str, collections.Counter]:
    """The mutants that checks by differences kill, and the right rules that they refuse."""
    found: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for rule in rules:
        subject = subject_of(rule)
        checked = Checked(subject_at(subject.op, subject.args())[0])
        for mutant in some(mutants(subject), each):
            if killed(subject, mutant, checked) == "same":
                continue
            for name, check in PEERS.items():
                passes = by_differences(subject.mutated(mutant), subject.args(), check)
                found[name]["lives" if passes else "killed"] += 1
        for dtype in DTYPES:
            for name, check in PEERS.items():
                passes = by_differences(subject.op, subject.args(dtype=dtype), check)
                found[name][f"alarm {np.dtype(dtype).name}"] += not passes
                found[name][f"runs {np.dtype(dtype).name}"] += 1
        jax.clear_caches()
    return found


def alarms(rule: Rule, dtype: Any, seeds: range) -> list:
    """The seeds at which a right rule is said to be wrong."""
    subject = subject_of(rule)
    checker = fn.check_rule(subject.op, points=("as given",), ways=())
    reports = ((seed, checker.drawn(seed, *subject.args(seed, dtype))) for seed in seeds)
    return [(seed, report) for seed, report in reports if not report.ok]


def table() -> str:
    """The scores as Markdown."""
    rules = list(fn.RULES.values())
    ours = mutation_scores(rules)
    peers = peer_scores(rules, PER_RULE)
    each = range(-(-DRAWS // len(rules)))
    said = {d: sum(len(alarms(rule, d, each)) for rule in rules) for d in DTYPES}
    return shown(ours, peers, said, len(rules), len(rules) * len(each))


def shown(
    ours: dict[str, collections.Counter], peers: dict[str, collections.Counter],
    said: dict[Any, int], rules: int, draws: int,
) -> str:  # fmt: skip
    """Two tables: mutants of each kind; and the three checks beside each other."""
    lines = ["| mutant | made | equivalent | killed |", "|---|---|---|---|"]
    total: collections.Counter = collections.Counter()
    for kind, counts in sorted(ours.items()):
        total += counts
        lines.append(_row(kind, counts))
    lines += [_row("all", total), "", f"Right rules and wrong ones of {rules} ops, by check:", ""]
    names = [np.dtype(d).name for d in DTYPES]
    lines.append(f"| check | mutants killed | {' | '.join(f'alarms in {n}' for n in names)} |")
    lines.append("|---|---|---|---|---|")
    real = total["killed"] + total["lives"]
    cells = " | ".join(f"{said[d]} of {draws}" for d in DTYPES)
    lines.append(f"| `fn.check_rule` | {total['killed']} of {real} | {cells} |")
    for name, counts in peers.items():
        tried = counts["killed"] + counts["lives"]
        cells = " | ".join(f"{counts[f'alarm {n}']} of {counts[f'runs {n}']}" for n in names)
        lines.append(f"| {name} | {counts['killed']} of {tried} | {cells} |")
    return "\n".join(lines)


def _row(kind: str, counts: collections.Counter) -> str:
    real = counts["killed"] + counts["lives"]
    made = real + counts["same"]
    return f"| {kind} | {made} | {counts['same']} | {counts['killed']} of {real} |"
