"""A cell through time: what every recurrent op shares.

Arrays come as (batch, time, features) and are worked on with time first. A step that does not
count, beyond the length of its sequence or where the mask is False, carries the state on, gives 0,
and its input may be anything, NaN included.

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

    `times(x)` is the product with the first of the weights that the loop holds, w_hidden, and
    `times(x, 1)` that with the second; on the way back, with their transposes.

    Attributes:
        step: `(states, a, times, *biases)` with a = x w_in + b, to the new states, of which h is
            the first, and what is kept of the step.
        slopes: `(h', h, kept)` of a block of steps at once, to what `back` needs at each of them.
        back: `(dstates, slopes, inside, times)` to the cotangents of the states before, and what
            `into` needs; `inside` sets to 0 what belongs to a step that does not count.
        into: `(h', found, slopes)` of a block, with what `back` has found for `into`, to da and for
            each weight the two whose product is its gradient, first those of w_hidden: h' and du.
            By default what was found is da and du.
    """

    step: Callable
    slopes: Callable
    back: Callable
    into: Callable = lambda started, dz, slopes: (dz, ((started, dz),))


class Given(NamedTuple):
    """The arguments of a recurrent op.

    `weights` are those that the loop over steps holds, `biases` those of the last gate's u.
    """

    x: Array
    w_in: Array
    weights: tuple[Array, ...]
    b: Array | None
    biases: tuple[Array | None, ...]
    states: tuple[Array | None, ...]
    lengths: Array | None
    mask: Array | None

    @property
    def dtype(self) -> Any:
        """The model's dtype, that of what its products are of."""
        return jnp.result_type(*jax.tree.leaves(tuple(self._replace(lengths=None, mask=None))))


def through_time(
    cell: Cell, given: Given, *, reverse: bool
) -> tuple[tuple[Array, ...], tuple[Given, Array, Any]]:
    """The outputs and the last states; and what `back_through_time` needs."""
    outputs, kept = _forward(cell, given, reverse=reverse)
    return outputs, (given, *kept)


@functools.partial(jax.jit, static_argnames=("cell", "reverse"))
def _forward(cell: Cell, given: Given, *, reverse: bool) -> tuple[tuple[Array, ...], tuple]:
    x, w_in, weights, b, biases, *_ = given
    inside, dtype = steps_inside(given), given.dtype

    def times(x: Array, k: int = 0) -> Array:
        return product(x, weights[k], dtype)

    def step(states: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        a, here = inputs
        new, kept = cell.step(states, a, times, *biases)
        states = chosen(here, new, states)
        return states, (states[0], kept)

    def block(states: tuple, part: tuple) -> tuple[tuple, tuple]:
        steps, here = part
        return step_by_step(step, states, (projected(steps, w_in, b, dtype), here), reverse=reverse)

    steps = by_time(x, inside, dtype)
    states, (hs, kept) = by_block(block, initial(given), (steps, inside), reverse=reverse)
    outputs = chosen(inside, hs, jnp.zeros_like(hs)).swapaxes(0, 1)
    return tuple(y.astype(x.dtype) for y in (outputs, *states)), (hs, kept)


@functools.partial(jax.jit, static_argnames=("cell", "reverse"))
def back_through_time(cell: Cell, res: tuple, dys: tuple[Array, ...], *, reverse: bool) -> Given:
    """The cotangents of all that is given, None for lengths and mask."""
    given, hs, kept = res
    x, w_in, weights, b, biases, *_ = given
    inside, dtype, units = steps_inside(given), given.dtype, len(weights[0])
    turned = [w.T for w in weights]  # laid out once: a transposed matrix is slower in the loop

    def times(x: Array, k: int = 0) -> Array:
        return product(x, turned[k], dtype)

    def step(dstates: tuple, inputs: tuple) -> tuple[tuple, Any]:
        dy, slopes, here = inputs
        at = (dstates[0] + dy, *dstates[1:])
        before, found = cell.back(at, slopes, lambda x: chosen(here, x, jnp.zeros_like(x)), times)
        return chosen(here, before, dstates), found

    def block(carry: tuple, part: tuple) -> tuple[tuple, Array]:
        (dstates, (dw_in, dweights, db, dbiases)), (xs, started, h, kept, dy, here) = carry, part
        slopes = cell.slopes(started, h, kept)
        dstates, found = step_by_step(step, dstates, (dy, slopes, here), reverse=not reverse)
        da, pairs = cell.into(started, found, slopes)
        _, du = pairs[0]
        sums = (
            dw_in + product(rows_of(xs).T, rows_of(da), dtype),
            tuple(
                dw + product(rows_of(left).T, rows_of(right), dtype)
                for dw, (left, right) in zip(dweights, pairs, strict=True)
            ),
            None if db is None else db + folded(rows_of(da)),
            jax.tree.map(lambda total: total + folded(rows_of(du[..., -units:])), dbiases),
        )
        return (dstates, sums), projected(da, w_in.T, None, dtype)

    sums = jax.tree.map(lambda w: _like(w, hs.dtype), (w_in, weights, b, biases))
    started = previous(hs, initial(given)[0], reverse)
    doutputs, *dstates = (dy.astype(hs.dtype) for dy in dys)
    parts = (by_time(x, inside, dtype), started, hs, kept, by_time(doutputs, inside, hs.dtype))
    (dstates, (dw_in, dweights, db, dbiases)), dx = by_block(
        block,
        (tuple(dstates), zeros_of(sums, res, dys)),
        (*parts, inside),
        reverse=not reverse,
    )
    return Given(dx.swapaxes(0, 1), dw_in, dweights, db, dbiases, dstates, None, None)


def _like(x: Array, dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, dtype)


def steps_inside(given: Given) -> Array | None:
    """Which steps count, `(time, batch, 1)`; None if all of all blocks do."""
    (batch, time, _), lengths, mask = given.x.shape, given.lengths, given.mask
    if lengths is None and mask is None:
        count, length = blocks_of(time)
        return None if time == count * length else jnp.ones((time, batch, 1), bool)
    inside = None if lengths is None else jnp.arange(time)[:, None] < lengths
    if mask is not None:
        inside = mask.T if inside is None else inside & mask.T
    assert inside is not None
    return inside[..., None]


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
    """Arrays from `inside` at the steps that count, from `beyond` at the others."""
    if here is None:
        return inside
    return jax.tree.map(lambda a, b: jnp.where(here, a, b), inside, beyond)


def by_time(x: Array, inside: Array | None, dtype: Any) -> Array:
    """The steps of x, `(time, batch, features)`, with 0 at those that do not count."""
    return chosen(inside, x.swapaxes(0, 1).astype(dtype), jnp.zeros((), dtype))


def initial(given: Given) -> tuple[Array, ...]:
    """The first states, 0 where None is given, varying over devices as what they meet does.

    h is as wide as the first weight is high; c, where there is one, as the last.
    A `jax.lax.scan` inside `jax.shard_map` wants its carry to vary from the first step on.
    """
    dtype, axes, batch = wide(given.dtype), axes_of(tuple(given)), len(given.x)
    rows = zip(given.states, (given.weights[0], given.weights[-1]), strict=False)
    states = (
        jnp.zeros((batch, len(w)), dtype) if state is None else state.astype(dtype)
        for state, w in rows
    )
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


def scan_cell(cell: Callable, given: Given, reverse: bool) -> tuple:
    """`states = cell(x_t, *states)` over time, written down plainly: what the rules must equal."""
    inside, dtype = steps_inside(given), wide(given.dtype)

    def step(states: tuple, inputs: tuple) -> tuple[tuple, Array]:
        x_t, here = inputs
        new = cell(x_t, *states)
        return chosen(here, new, states), chosen(here, new[0], jnp.zeros_like(new[0]))

    steps = by_time(given.x, inside, dtype)
    states, outputs = jax.lax.scan(step, initial(given), (steps, inside), reverse=reverse)
    return tuple(y.astype(given.x.dtype) for y in (outputs.swapaxes(0, 1), *states))
