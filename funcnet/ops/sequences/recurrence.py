"""A cell through time: what every recurrent op shares.

Arrays come as (batch, time, features) and are worked on with time first. A step beyond the length
of its sequence carries the state on, gives 0, and its input may be anything, NaN included.

The rules go through time in blocks of a few steps. All that does not depend on the state is made
for a block at once, and the steps of a block are written out one after the other: the memory is
that of a block, and no step of the loop has to find its place in an array by a computed index.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ...types import Array
from ..fast.rows import folded
from ..shared.precision import product, wide
from ..shared.varying import axes_of, varying, zeros_of

BLOCK = 8
"""The most steps that are written out one after the other."""


class Cell(NamedTuple):
    """One step of a recurrent op, forward and back.

    Attributes:
        step: `(states, a, u, *biases)` with a = x w_in + b and u = h' w_hidden, to the new states,
            of which h is the first, and what is kept of the step.
        slopes: `(h', h, kept)` of a block of steps at once, to what `back` needs at each of them.
        back: `(dstates, slopes, inside)` to `inside(du)`, which is 0 beyond the lengths; what of
            the cotangents of the states before does not come through u, None for 0; and what
            `into` needs besides, or None.
        into: `(du, besides, slopes)` of a block to da; None where it is du.
    """

    step: Callable
    slopes: Callable
    back: Callable
    into: Callable | None = None


class Given(NamedTuple):
    """The floating arguments of a recurrent op; `biases` are those of the last gate's u."""

    x: Array
    w_in: Array
    w_hidden: Array
    b: Array | None
    biases: tuple[Array | None, ...]
    states: tuple[Array | None, ...]

    @property
    def dtype(self) -> Any:
        """The model's dtype, that of what its products are of."""
        return jnp.result_type(*jax.tree.leaves(tuple(self)))


def through_time(
    cell: Cell, given: Given, lengths: Array | None, *, reverse: bool
) -> tuple[tuple[Array, ...], tuple]:
    """The outputs and the last states; and what `back_through_time` needs."""
    outputs, kept = _forward(cell, given, lengths, reverse=reverse)
    return outputs, (given, lengths, *kept)


@functools.partial(jax.jit, static_argnames=("cell", "reverse"))
def _forward(
    cell: Cell, given: Given, lengths: Array | None, *, reverse: bool
) -> tuple[tuple[Array, ...], tuple]:
    x, w_in, w_hidden, b, biases, _ = given
    inside, dtype = steps_inside(x, lengths), given.dtype

    def step(states: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        a, here = inputs
        new, kept = cell.step(states, a, product(states[0], w_hidden, dtype), *biases)
        states = chosen(here, new, states)
        return states, (states[0], kept)

    def block(states: tuple, part: tuple) -> tuple[tuple, tuple]:
        steps, here = part
        return step_by_step(step, states, (projected(steps, w_in, b, dtype), here), reverse=reverse)

    steps = by_time(x, inside, dtype)
    states, (hs, kept) = by_block(block, initial(given, lengths), (steps, inside), reverse=reverse)
    outputs = chosen(inside, hs, jnp.zeros_like(hs)).swapaxes(0, 1)
    return tuple(y.astype(x.dtype) for y in (outputs, *states)), (hs, kept)


@functools.partial(jax.jit, static_argnames=("cell", "reverse"))
def back_through_time(cell: Cell, res: tuple, dys: tuple[Array, ...], *, reverse: bool) -> tuple:
    """The cotangents of all of `given`, one after the other, and None for the lengths."""
    given, lengths, hs, kept = res
    x, w_in, w_hidden, b, biases, _ = given
    inside, dtype, units = steps_inside(x, lengths), given.dtype, len(w_hidden)
    back = w_hidden.T  # laid out once: a product with a transposed matrix is slower in the loop

    def step(dstates: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        dy, slopes, here = inputs
        at = (dstates[0] + dy, *dstates[1:])
        du, (direct, *others), besides = cell.back(
            at, slopes, lambda x: chosen(here, x, jnp.zeros_like(x))
        )
        through = product(du, back, dtype)
        dh = through if direct is None else direct + through
        return chosen(here, (dh, *others), dstates), (du, besides)

    def block(carry: tuple, part: tuple) -> tuple[tuple, Array]:
        (dstates, (dw_in, dw_hidden, db, dbiases)), (xs, started, h, kept, dy, here) = carry, part
        slopes = cell.slopes(started, h, kept)
        dstates, (du, besides) = step_by_step(
            step, dstates, (dy, slopes, here), reverse=not reverse
        )
        da = du if cell.into is None else cell.into(du, besides, slopes)
        sums = (
            dw_in + product(rows_of(xs).T, rows_of(da), dtype),
            dw_hidden + product(rows_of(started).T, rows_of(du), dtype),
            None if db is None else db + folded(rows_of(da)),
            jax.tree.map(lambda total: total + folded(rows_of(du[..., -units:])), dbiases),
        )
        return (dstates, sums), projected(da, w_in.T, None, dtype)

    weights = jax.tree.map(lambda w: _like(w, hs.dtype), (w_in, w_hidden, b, biases))
    started = previous(hs, initial(given, lengths)[0], reverse)
    doutputs, *dstates = (dy.astype(hs.dtype) for dy in dys)
    parts = (by_time(x, inside, dtype), started, hs, kept, by_time(doutputs, inside, hs.dtype))
    (dstates, (*dweights, dbiases)), dx = by_block(
        block,
        (tuple(dstates), zeros_of(weights, res, dys)),
        (*parts, inside),
        reverse=not reverse,
    )
    return dx.swapaxes(0, 1), *dweights, *dbiases, *dstates, None


def _like(x: Array, dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, dtype)


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


def initial(given: Given, lengths: Array | None) -> tuple[Array, ...]:
    """The first states, 0 where None is given, varying over devices as what they meet does.

    A `jax.lax.scan` inside `jax.shard_map` wants its carry to vary from the first step on.
    """
    dtype, axes = wide(given.dtype), axes_of(tuple(given), lengths)
    zero = jnp.zeros((given.x.shape[0], given.w_hidden.shape[0]), dtype)
    states = (zero if state is None else state.astype(dtype) for state in given.states)
    return tuple(varying(state, axes) for state in states)


def projected(steps: Array, w_in: Array, b: Array | None, dtype: Any) -> Array:
    """x w_in + b of all steps, as one product of two matrices."""
    rows = product(rows_of(steps), w_in, dtype)
    rows = rows if b is None else rows + b
    return rows.reshape(*steps.shape[:2], w_in.shape[1])


def previous(h: Array, h0: Array, reverse: bool) -> Array:
    """The state that each step started from, `(time, batch, units)`."""
    return jnp.concatenate([h[1:], h0[None]] if reverse else [h0[None], h[:-1]])[: len(h)]


def rows_of(steps: Array) -> Array:
    """`(time · batch, features)`."""
    return steps.reshape(steps.shape[0] * steps.shape[1], steps.shape[2])


def scan_cell(cell: Callable, given: Given, lengths: Array | None, reverse: bool) -> tuple:
    """`states = cell(x_t, *states)` over time, written down plainly: what the rules must equal."""
    inside, dtype = steps_inside(given.x, lengths), wide(given.dtype)

    def step(states: tuple, inputs: tuple) -> tuple[tuple, Array]:
        x_t, here = inputs
        new = cell(x_t, *states)
        return chosen(here, new, states), chosen(here, new[0], jnp.zeros_like(new[0]))

    steps = by_time(given.x, inside, dtype)
    states, outputs = jax.lax.scan(step, initial(given, lengths), (steps, inside), reverse=reverse)
    return tuple(y.astype(given.x.dtype) for y in (outputs.swapaxes(0, 1), *states))
