"""What every recurrent op shares: its checks, its mask, its loops, and its weight gradients.

Arrays come as (batch, time, features) and are worked on with time first. A step beyond the length
of its sequence carries the state on, gives 0, and its input may be anything, NaN included.

The rules go through time in blocks of a few steps. All that does not depend on the state is made
for a block at once, and the steps of a block are written out one after the other: the memory is
that of a block, and no step of the loop has to find its place in an array by a computed index.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.random import Generator

from ...jaxpr.jaxprs import is_traced
from ...rules.rule import Case
from ...types import Array, require
from ..fast.rows import folded
from ..shared.precision import floating, wide
from ..shared.varying import axes_of, varying

BLOCK = 8
"""The most steps that are written out one after the other."""


def check_recurrent(
    op: str,
    gates: int,
    x: Array,
    w_in: Array,
    w_hidden: Array,
    lengths: Array | None,
    biases: dict[str, tuple[Array | None, int]],
    states: dict[str, Array | None],
) -> None:
    """Raise unless the shapes fit: `gates` maps to H units, each bias `n` H long, states H wide."""
    floating(op, x)
    columns = "units" if gates == 1 else f"{gates} units"
    require(
        jnp.ndim(x) == 3,
        op,
        "x of rank 3 (batch, time, features)",
        f"shape {jnp.shape(x)}",
        "One sequence is a batch of one: x[None].",
    )
    require(
        jnp.ndim(w_hidden) == 2 and w_hidden.shape[1] == gates * w_hidden.shape[0],
        op,
        f"w_hidden of shape (units, {columns})",
        f"shape {jnp.shape(w_hidden)}",
        "A PyTorch weight is the transpose: pass weight_hh.T.",
    )
    (batch, _, features), units = x.shape, w_hidden.shape[0]
    require(
        jnp.shape(w_in) == (features, gates * units),
        op,
        f"w_in of shape {(features, gates * units)}, (features, {columns})",
        f"shape {jnp.shape(w_in)}",
        "Initialise the parameters with an input of this shape.",
    )
    for name, (bias, n) in biases.items():
        require(
            bias is None or jnp.shape(bias) == (n * units,),
            op,
            f"{name} of shape {(n * units,)}",
            f"shape {bias is not None and jnp.shape(bias)}",
            "Pass None for no bias.",
        )
    for name, state in states.items():
        require(
            state is None or jnp.shape(state) == (batch, units),
            op,
            f"{name} of shape {(batch, units)}, (batch, units)",
            f"shape {state is not None and jnp.shape(state)}",
            "Pass None to start from 0.",
        )
    _check_lengths(op, x, lengths)


def _check_lengths(op: str, x: Array, lengths: Array | None) -> None:
    if lengths is None:
        return
    batch, time, _ = x.shape
    require(
        jnp.issubdtype(jnp.result_type(lengths), jnp.integer),
        op,
        "lengths of an integer dtype",
        f"{jnp.result_type(lengths)}",
        "They count the steps of each sequence.",
        TypeError,
    )
    require(
        jnp.shape(lengths) == (batch,),
        op,
        f"lengths of shape {(batch,)}, one for each sequence",
        f"shape {jnp.shape(lengths)}",
        "Pass None where all sequences are as long as x.",
    )
    if not is_traced(lengths) and batch:
        known = np.asarray(lengths)
        require(
            known.min() >= 0 and known.max() <= time,
            op,
            f"lengths from 0 to {time}, the steps of x",
            f"lengths from {known.min()} to {known.max()}",
            "Cut the longer sequences first.",
        )


def steps_inside(x: Array, lengths: Array | None) -> Array | None:
    """Which steps lie within their sequence, `(time, batch, 1)`; None if all of all blocks do."""
    batch, time, _ = x.shape
    if lengths is None:
        count, length = blocks_of(time)
        return None if time == count * length else jnp.ones((time, batch, 1), bool)
    return (jnp.arange(time)[:, None] < lengths)[..., None]


def blocks_of(time: int) -> tuple[int, int]:
    """In how many blocks so many steps are taken, and how long those are."""
    count = -(-time // BLOCK)
    return count, -(-time // max(count, 1))


def by_block(body: Callable, carry: Any, steps: Any, *, reverse: bool) -> tuple[Any, Any]:
    """A scan of `body` over blocks of steps; the last one is filled up with 0 and False."""
    time = len(jax.tree.leaves(steps)[0])
    count, length = blocks_of(time)

    def cut(x: Array) -> Array:
        widths = ((0, count * length - time), *((0, 0) for _ in x.shape[1:]))
        return jnp.pad(x, widths).reshape(count, length, *x.shape[1:])

    def joined(x: Array) -> Array:
        return x.reshape(count * length, *x.shape[2:])[:time]

    carry, results = jax.lax.scan(body, carry, jax.tree.map(cut, steps), reverse=reverse)
    return carry, jax.tree.map(joined, results)


def step_by_step(step: Callable, carry: Any, steps: Any, *, reverse: bool) -> tuple[Any, Any]:
    """A scan of `step` over one block, written out."""
    return jax.lax.scan(step, carry, steps, reverse=reverse, unroll=True)


def chosen(here: Array | None, inside: Any, beyond: Any) -> Any:
    """Arrays from `inside` at the steps within their sequence, from `beyond` at the others."""
    if here is None:
        return inside
    return jax.tree.map(lambda a, b: jnp.where(here, a, b), inside, beyond)


def by_time(x: Array, inside: Array | None, dtype: Any) -> Array:
    """The steps of x, `(time, batch, features)`, with 0 beyond the lengths."""
    return chosen(inside, x.swapaxes(0, 1).astype(dtype), jnp.zeros((), dtype))


def by_batch(x: Array, dtype: Any) -> Array:
    """`(batch, time, features)` again."""
    return x.swapaxes(0, 1).astype(dtype)


def widened_all(*arrays: Array | None) -> tuple[Any, ...]:
    """The arrays in the one dtype to compute in; None stays."""
    dtype = wide(*(x for x in arrays if x is not None))
    return tuple(None if x is None else jnp.asarray(x, dtype) for x in arrays)


def initial(
    given: tuple[Array | None, ...], x: Array, w_hidden: Array, *others: Array | None
) -> tuple[Array, ...]:
    """The first states, 0 where None is given, varying over devices as what they meet does.

    A `jax.lax.scan` inside `jax.shard_map` wants its carry to vary from the first step on.
    """
    zero = jnp.zeros((x.shape[0], w_hidden.shape[0]), w_hidden.dtype)
    states = tuple(zero if state is None else state for state in given)
    axes = axes_of(states, x, w_hidden, others)
    return tuple(varying(state, axes) for state in states)


def projected(steps: Array, w_in: Array, b: Array | None) -> Array:
    """x w_in + b of all steps, as one product of two matrices."""
    time, batch, features = steps.shape
    rows = steps.reshape(time * batch, features) @ w_in
    return (rows if b is None else rows + b).reshape(time, batch, w_in.shape[1])


def previous(h: Array, h0: Array, reverse: bool) -> Array:
    """The state that each step started from, `(time, batch, units)`."""
    return jnp.concatenate([h[1:], h0[None]] if reverse else [h0[None], h[:-1]])[: len(h)]


def product(a: Array, b: Array) -> Array:
    """aᵀ b over all steps and sequences: the gradient of a weight."""
    return rows_of(a).T @ rows_of(b)


def rows_of(steps: Array) -> Array:
    """`(time · batch, features)`."""
    return steps.reshape(steps.shape[0] * steps.shape[1], steps.shape[2])


def summed(sums: tuple, xs: Array, started: Array, dz: Array) -> tuple:
    """The gradients of w_in, w_hidden and b (or None), with what a block of dz adds to them."""
    dw_in, dw_hidden, db = sums
    return (
        dw_in + product(xs, dz),
        dw_hidden + product(started, dz),
        None if db is None else db + folded(rows_of(dz)),
    )


def scan_cell(
    cell: Callable, x: Array, states: tuple, lengths: Array | None, reverse: bool
) -> tuple[Array, tuple]:
    """`states = cell(x_t, *states)` over time, written down plainly: what the rules must equal."""
    inside = steps_inside(x, lengths)

    def step(states: tuple, inputs: tuple) -> tuple[tuple, Array]:
        x_t, here = inputs
        new = cell(x_t, *states)
        return chosen(here, new, states), chosen(here, new[0], jnp.zeros_like(new[0]))

    steps = by_time(x, inside, x.dtype)
    states, outputs = jax.lax.scan(step, states, (steps, inside), reverse=reverse)
    return outputs.swapaxes(0, 1), states


def drawn(
    gates: int,
    *,
    batch: int = 2,
    time: int = 3,
    states: int = 1,
    biases: tuple[int, ...],
    given: bool = True,
    lengths: tuple[int, ...] | None = None,
    **static: Any,
) -> Case:
    """A case with 2 features and 3 units; without `given`, biases and states are None."""

    def make(random: Generator) -> tuple:
        shapes = [(batch, time, 2), (2, 3 * gates), (3, 3 * gates)]
        rest = [(3 * n,) for n in biases] + [(batch, 3)] * states
        draws = [random.standard_normal(shape) for shape in shapes + rest]
        others = draws[3:] if given else [None] * len(rest)
        return *draws[:3], *others, None if lengths is None else np.array(lengths, np.int32)

    return Case(make, static)


def cases_of(gates: int, biases: tuple[int, ...], states: int = 1) -> dict[str, Case]:
    """The cases that every recurrent op has."""
    shared: Any = {"states": states, "biases": biases}
    return {
        "steps": drawn(gates, **shared),
        "plain": drawn(gates, given=False, **shared),
        "lengths": drawn(gates, batch=3, lengths=(3, 0, 2), **shared),
        "reverse, lengths": drawn(gates, batch=3, lengths=(3, 0, 2), reverse=True, **shared),
        "no steps": drawn(gates, time=0, **shared),
        "no sequences": drawn(gates, batch=0, **shared),
    }
