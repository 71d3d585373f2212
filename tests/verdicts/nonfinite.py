"""How `explain_nonfinite` and others do on a corpus of NaN and Inf, and what it costs.

For the row of Equinox, run `python -m tests.verdicts nonfinite` where it is installed.
"""

import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.experimental import checkify

import funcnet as fn
from funcnet.train.guard import Guard, finiteness
from funcnet.train.loss import Objective
from funcnet.train.step import outermost, step_of

from . import corpus_nonfinite as corpus
from .corpus_nonfinite import Bug, Cause, Harmless


class Found(NamedTuple):
    """What a tool says of a bug: whether there is one, and whether the rest is right."""

    alarm: bool
    line: bool = False
    iteration: bool = False
    element: bool = False


def ours(bug: Bug) -> Found:
    """What `explain_nonfinite` says."""
    origin = fn.explain_nonfinite(bug.f)(bug.cause.rows()).origin
    if origin is None:
        return Found(False)
    line = origin.source is not None and origin.source.line == bug.cause.line
    return Found(True, line, origin.iteration == bug.iteration, origin.element == bug.element)


def _program(bug: Bug | Harmless) -> Callable:
    """What another tool is given: value and gradient, where there is one."""
    if isinstance(bug, Harmless):
        return jax.value_and_grad(bug.f, has_aux=bug.has_aux)
    return jax.value_and_grad(bug.f) if bug.differentiable else bug.f


def _errors(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _told(error: BaseException, cause: Cause | None) -> Found:
    """Whether one of the errors in a chain ends, within the corpus, in the line to blame."""
    ends = []
    for one in _errors(error):
        frames = traceback.extract_tb(one.__traceback__)
        ends += [[f.lineno for f in frames if f.filename == corpus.__file__][-1:]]
    return Found(True, cause is not None and [cause.line] in ends)


def debug_nans(bug: Bug | Harmless) -> Found:
    """What `jax_debug_nans` says of the compiled program."""
    x, cause = (bug.x, None) if isinstance(bug, Harmless) else (bug.cause.rows(), bug.cause)
    with jax.debug_nans(True):
        try:
            jax.block_until_ready(jax.jit(_program(bug))(x))
        except Exception as error:  # of one program it lets an error of its own out
            return _told(error, cause)
    return Found(False)


def checked(bug: Bug | Harmless) -> Found:
    """What `checkify` says, asked for all that has to do with floating numbers."""
    x, cause = (bug.x, None) if isinstance(bug, Harmless) else (bug.cause.rows(), bug.cause)
    try:
        error, _ = jax.jit(checkify.checkify(_program(bug), errors=checkify.float_checks))(x)
    except Exception:  # it cannot take the program
        return Found(False)
    try:
        error.throw()
    except Exception as told:
        return _told(told, cause)
    return Found(False)


def backward_nan(bug: Bug | Harmless) -> Found:
    """What `equinox.debug.backward_nan` says, put by hand in front of the line to blame."""
    import equinox  # pyright: ignore[reportMissingImports]  # its row is left out without it

    if isinstance(bug, Harmless):
        f, x = bug.f, bug.x
        program = _program(bug._replace(f=lambda x: f(equinox.debug.backward_nan(x))))
    else:
        f, x = bug.cause.f, bug.cause.rows()
        wrapped = bug.cause._replace(f=lambda x: f(equinox.debug.backward_nan(x)))
        program = _program(corpus.FORMS[bug.form](wrapped))
    try:
        jax.block_until_ready(jax.jit(program)(x))
        jax.effects_barrier()
    except Exception:  # it raises what the callback of its program raised
        return Found(True)
    return Found(False)


def alarms() -> int:
    """How many of the harmless programs `explain_nonfinite` takes for wrong."""
    return sum(
        bool(fn.explain_nonfinite(h.f, has_aux=h.has_aux)(h.x)) for h in corpus.HARMLESS.values()
    )


def _row(name: str, tool: Callable[[Any], Found], false: int | None = None) -> str:
    bugs = corpus.bugs().values()
    found = [tool(bug) for bug in bugs]
    if false is None:
        false = sum(tool(h).alarm for h in corpus.HARMLESS.values())
    counts = [sum(column) for column in zip(*found, strict=True)]
    return f"| {name} | {' | '.join(map(str, counts))} | {false} |"


def flag() -> float:
    """How many times as long a step of training takes with `on_nonfinite`, the median."""
    net = fn.nets.GPT(1000, width=256, depth=2, heads=4, length=128, logits=False)
    tokens = jax.random.randint(jax.random.key(0), (8, 129), 0, 1000)
    batch = tokens[:, :-1], tokens[:, 1:]
    parts = Objective.of(net, fn.nets.lm_loss, None), optax.adam(1e-3), dict
    plain, more = step_of(*parts), step_of(*parts, finiteness)
    guard = Guard("stop")
    update = outermost(plain.update)
    guarded = guard.over(outermost(guard.guarded(more.update)))
    states = [plain.init(jax.random.key(1), batch[0]) for _ in range(2)]
    ratios = []
    for i in range(42):
        times = [0.0, 0.0]
        for which in (0, 1) if i % 2 else (1, 0):
            started = time.perf_counter()
            states[which], values = (update, guarded)[which](states[which], batch)
            jax.block_until_ready((states[which], values))
            times[which] = time.perf_counter() - started
        ratios.append(times[1] / times[0])
    return statistics.median(ratios[2:])


class Deep(NamedTuple):
    """The search in a network of many layers.

    Attributes:
        warm: A search, in steps of the compiled gradient.
        cold: The first one with all that is compiled, in seconds.
        compiling: What compiling the gradient takes, in seconds.
        right: Whether line, layer and element are.
    """

    warm: float
    cold: float
    compiling: float
    right: bool


def deep(layers: int = 64, width: int = 256, batch: int = 64) -> Deep:
    """The search in a network of dense layers of which one meets the root of 0."""

    def loss(weights: list, x: Any) -> Any:
        for i, w in enumerate(weights):
            with jax.named_scope(f"layer{i}"):
                x = jnp.tanh(x @ w)
                if i == layers // 2:
                    x = x + corpus.root_masked(jnp.abs(x) * (jnp.arange(width) != 7))
        return jnp.sum(x)

    keys = jax.random.split(jax.random.key(0), layers)
    weights = [jax.random.normal(key, (width, width)) / width**0.5 for key in keys]
    x = jax.random.normal(jax.random.key(1), (batch, width))
    gradient = jax.jit(jax.value_and_grad(loss))
    compiling = _seconds(lambda: jax.block_until_ready(gradient(weights, x)))
    explain = fn.explain_nonfinite(loss, wrt=0)
    cold = _seconds(lambda: explain(weights, x))
    origin = explain(weights, x).origin
    assert origin is not None
    right = origin.source is not None and origin.source.line == corpus.CAUSES["root_masked"].line
    right = right and origin.layer == f"layer{layers // 2}" and origin.element == (0, 7)
    pairs = [
        (_seconds(lambda: explain(weights, x)),
         _seconds(lambda: jax.block_until_ready(gradient(weights, x))))
        for _ in range(15)
    ]  # fmt: skip
    return Deep(statistics.median(a / b for a, b in pairs), cold, compiling, right)


def _seconds(f: Callable[[], Any]) -> float:
    started = time.perf_counter()
    f()
    return time.perf_counter() - started


def table() -> str:
    """The scores as Markdown."""
    bugs, harmless = len(corpus.bugs()), len(corpus.HARMLESS)
    rows = [
        f"| of {bugs} bugs | alarm | line | iteration | element | false alarms of {harmless} |",
        "|---|---|---|---|---|---|",
        _row("`explain_nonfinite`", ours, alarms()),
        _row("`jax_debug_nans`", debug_nans),
        _row("`checkify`, `float_checks`", checked),
    ]
    try:
        rows.append(_row("`equinox.debug.backward_nan`, put there by hand", backward_nan))
    except ImportError:
        rows.append("| `equinox.debug.backward_nan` | not installed | | | | |")
    found, ratio = deep(), flag()
    assert found.right
    rows += [
        "",
        "| cost | |",
        "|---|---|",
        f"| a step of training with `on_nonfinite` (GPT of 2 blocks, width 256, 8 x 128 tokens) "
        f"| {ratio:.3f} of one without |",
        "| a search in a network of 64 layers, once it is compiled "
        f"| {found.warm:.1f} steps of the gradient |",
        f"| the first search there | {found.cold:.0f} s, of which compiling is nearly all; "
        f"compiling the gradient takes {found.compiling:.0f} s |",
    ]
    return "\n".join(rows)
