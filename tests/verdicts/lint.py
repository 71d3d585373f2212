"""The score of `fn.lint`: reported traps, rewrites that work, and healthy networks."""

import linecache

import jax
import jax.numpy as jnp

import funcnet as fn

from .healthy import losses
from .plain import LOSSES
from .traps import TRAPS, Trap


def gradients(f, args):
    """The loss and the gradients of all floating arguments, whether they are finite."""
    places = tuple(i for i, x in enumerate(args) if jnp.issubdtype(x.dtype, jnp.floating))
    value, grads = jax.value_and_grad(f, places)(*args)
    return value, all(bool(jnp.isfinite(g).all()) for g in grads)


def repaired(f, args, rounds=6):
    """The function with what its findings say to write, until none happens."""
    for number in range(rounds):
        happening = fn.lint(f)(*args).happening
        if not happening:
            return f
        f = rewritten(f, happening, number)
    return f


def rewritten(f, findings, number):
    """A function with each finding's rewrite in the place of its culprit."""
    file, name = f.__code__.co_filename, f.__name__
    lines = list(linecache.getlines(file))
    edits = {(g.place.line, g.place.column, g.place.end_column): g for g in findings}
    inside = [span for span in edits if not any(_holds(span, other) for other in edits)]
    for line, start, end in sorted(inside, reverse=True):  # an outer one waits for the next round
        text = lines[line - 1].encode()
        made = f"({edits[line, start, end].rewrite})".encode()
        lines[line - 1] = (text[:start] + made + text[end:]).decode()
    fresh = f"<{name} {number}>"
    linecache.cache[fresh] = len(lines), None, lines, fresh
    space: dict = {}
    first = next(i for i, line in enumerate(lines) if line.startswith(f"def {name}("))
    last = next((i for i in range(first + 1, len(lines)) if lines[i][:1].strip()), len(lines))
    padded = "\n" * first + "".join(lines[first:last])
    exec(compile(padded, fresh, "exec"), {"jax": jax, "jnp": jnp}, space)
    return space[name]


def _holds(span, other):
    """Whether a piece of a line holds another."""
    (line, start, end), (there, a, b) = span, other
    return span != other and line == there and start <= a < b <= end


def judge(trap: Trap) -> dict[str, bool]:
    """What is to hold of a trap: it bites, is found where it is, and the rewrite takes it out."""
    value, finite = gradients(trap.f, trap.args)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in trap.args]
    found = fn.lint(trap.f)(*trap.args).happening
    possible = fn.lint(trap.f)(*shapes)
    mended = repaired(trap.f, trap.args)
    after, well = gradients(mended, trap.args)
    culprits, masks = trap.lines("culprit"), trap.lines("mask")
    near = bool(jnp.allclose(value, after, atol=2e-3))
    return {
        "bites": not finite,
        "lines": {g.line for g in found} == culprits,
        "masks": {g.mask.line for g in found if g.mask} == masks,
        "possible": bool({g.line for g in possible} & culprits),
        "finite": well,
        "same": near or not bool(jnp.isfinite(value)),
    }


def table() -> str:
    """The scores as Markdown."""
    rows = ["| reported | the line | the mask | by shapes alone | rewritten: finite | same loss |"]
    rows.append("|---|---|---|---|---|---|")
    for trap in TRAPS:
        marks = judge(trap)
        said = ["yes" if marks[k] else "no" for k in ("lines", "masks", "possible")]
        said[1] = said[1] if trap.lines("mask") else "none"
        said += ["yes" if marks[k] else "no" for k in ("finite", "same")]
        rows.append(f"| {trap.source} | {' | '.join(said)} |")
    rows += ["", "| healthy | findings |", "|---|---|"]
    for name, loss, args in losses():
        rows.append(f"| `fn.nets`: {name} and its loss | {len(fn.lint(loss, wrt=0)(*args))} |")
    for name, (loss, args) in LOSSES.items():
        rows.append(f"| plain JAX: {name} | {len(fn.lint(loss, wrt=0)(*args))} |")
    return "\n".join(rows)
