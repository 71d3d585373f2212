"""The gradient of a batch, taken micro-batch by micro-batch: in less memory, the same numbers.

Where the loss is known to be a mean of its parts, as those of funcnet and a `Mean` are, each
micro-batch is differentiated for itself: totals, counts and gradients are summed, and divided once.
Any other criterion, and a network with batch norm, looks at the whole batch: the network is run by
micro-batches, the criterion sees what all came to, and backward runs the network again.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..jaxpr import jaxprs
from ..jaxpr.walk import reached
from ..types import Array, Key, Params, State, require
from .loss import Objective, key_of
from .measure import Figures, is_mean
from .micro import joined, parted, size_of
from .stages import NORM, Program, across, run
from .state import TrainState

Loss = Callable[[Params], tuple[Array, tuple[Figures, State]]]


def accumulated(
    objective: Objective, parts: int, carry: TrainState, batch: Any
) -> tuple[Loss, Callable[[Params], tuple]]:
    """The loss of a batch as a function of the parameters, and that with its gradient.

    Args:
        objective: What is made small.
        parts: How many micro-batches there are to be.
        carry: The state of the step.
        batch: The whole batch.
    """
    n = size_of(batch)
    size = -(-n // parts)
    normed, apart = _kind(objective, carry, batch)
    if apart and not normed:
        return _by_parts(objective, carry, parted(batch, size))
    if normed:  # of a single example there is no variance
        size = next(m for m in range(max(size, min(n, 2)), n + 1) if n % m != 1 or m == n)

    def loss(params: Params) -> tuple[Array, tuple[Figures, State]]:
        inputs, target = objective.read(batch)
        output, state = _output(objective, carry, params, parted(inputs, size))
        value, figures = objective.figures(output, target)
        return value, (figures, state)

    return loss, jax.value_and_grad(loss, has_aux=True)


def _kind(objective: Objective, carry: TrainState, batch: Any) -> tuple[bool, bool]:
    """Whether the network has batch norm, and whether the loss is a mean of those of its parts."""
    inputs, target = jax.eval_shape(objective.read, batch)
    network, shapes = jax.make_jaxpr(
        lambda *given: objective.output(*given[:3], train=True, key=given[3])[0], return_shape=True
    )(carry.params, carry.state, inputs, key_of(carry))
    found = []

    def counted(output: Any, target: Any) -> Any:
        found.append(is_mean(objective.criterion, output, target))
        figure: Any = objective.figures(output, target)[1]["loss"]
        return figure[1:2]

    criterion, _ = jaxprs.trace(counted, shapes, target)
    by_output = set(criterion.jaxpr.invars[: len(jax.tree.leaves(shapes))])
    by_itself = by_output.isdisjoint(_sources(criterion.jaxpr))
    whole, _ = jaxprs.trace(objective.figures, shapes, target)
    return across(network, (NORM,)), found[0] and by_itself and not across(whole)


def _sources(jaxpr: Any) -> set[Any]:
    """The variables that the results of a jaxpr depend on."""
    makers = {v: eqn for eqn in jaxpr.eqns for v in eqn.outvars}

    def onward(var: Any) -> list[Any]:
        return list(filter(jaxprs.is_var, makers[var].invars)) if var in makers else []

    return reached(filter(jaxprs.is_var, jaxpr.outvars), onward)


def _keys(carry: TrainState, parts: Sequence[Any]) -> list[Key]:
    """For each stack of micro-batches their keys, folded in from their numbers."""
    counts = [len(jax.tree.leaves(part)[0]) for part in parts]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key_of(carry), jnp.arange(sum(counts)))
    return [keys[: counts[0]], *([keys[counts[0] :]] if len(counts) > 1 else [])]


def _by_parts(
    objective: Objective, carry: TrainState, parts: Sequence[Any]
) -> tuple[Loss, Callable[[Params], tuple]]:
    """Each micro-batch for itself: its figures, state and gradient, summed."""
    total = sum(jax.tree.leaves(part)[0].shape[0] * _length(part) for part in parts)

    def visit(params: Params, differentiate: bool) -> tuple[Figures, State, Any]:
        def one(sums: tuple, given: tuple) -> tuple[tuple, Figures]:
            batch, key = given

            def loss(params: Params) -> tuple[Array, tuple[Figures, State]]:
                return objective.measure(params, carry.state, batch, train=True, key=key)

            if differentiate:
                (_, (figures, state)), grads = jax.value_and_grad(loss, has_aux=True)(params)
            else:
                (_, (figures, state)), grads = loss(params), ()
            # The gradient is of total / count, or of the total where nothing counts.
            weight = _divisor(figures["loss"])
            grads = jax.tree.map(lambda a, g: a + g.astype(a.dtype) * weight, sums[0], grads)
            share = size_of(batch) / total
            moved = jax.tree.map(
                lambda m, new, old: _moved(m, new, old, share), sums[1], state, carry.state
            )
            return (grads, moved), figures

        start = jax.tree.map(lambda p: jnp.zeros(p.shape, _wide(p)), params), carry.state
        sums = start if differentiate else ((), carry.state)
        figures = None
        for part, keys in zip(parts, _keys(carry, parts), strict=True):
            sums, stack = jax.lax.scan(one, sums, (part, keys))
            figures = _all(stack) if figures is None else _join(figures, _all(stack))
        assert figures is not None
        divisor = _divisor(figures["loss"])
        grads = jax.tree.map(lambda g, p: (g / divisor).astype(p.dtype), sums[0], params)
        return figures, sums[1], grads

    def loss(params: Params) -> tuple[Array, tuple[Figures, State]]:
        figures, state, _ = visit(params, False)
        return figures["loss"].value, (figures, state)

    def gradient(params: Params) -> tuple:
        figures, state, grads = visit(params, True)
        return (figures["loss"].value, (figures, state)), grads

    return loss, gradient


def _length(part: Any) -> int:
    return jax.tree.leaves(part)[0].shape[1]


def _wide(p: Array) -> Any:
    return jnp.promote_types(p.dtype, jnp.float32)


def _divisor(mean: Any) -> Array:
    count = jax.lax.stop_gradient(mean.count)
    return count + (count == 0)


def _moved(so_far: Array, new: Array, old: Array, share: float) -> Array:
    """Micro-batches set out from one state; what they move it by, by their share of examples."""
    if not jnp.issubdtype(old.dtype, jnp.floating):
        return new.astype(old.dtype)
    return so_far + ((new - old) * share).astype(old.dtype)


def _join(first: Figures, second: Figures) -> Figures:
    return {name: figure.join(second[name]) for name, figure in first.items()}


def _all(stack: Figures) -> Figures:
    """The figures of a stack of micro-batches, joined."""
    first = jax.tree.map(lambda x: x[0], stack)
    rest = jax.tree.map(lambda x: x[1:], stack)

    def join(sums: Figures, figures: Figures) -> tuple[Figures, None]:
        together = _join(sums, figures)
        return jax.tree.map(lambda new, old: new.astype(old.dtype), together, sums), None

    return jax.lax.scan(join, first, rest)[0]


def _output(
    objective: Objective, carry: TrainState, params: Params, parts: Sequence[Any]
) -> tuple[Any, State]:
    """The network's output for the whole batch, and its state."""
    programs, trees = [], []
    total = sum(jax.tree.leaves(part)[0].shape[0] * _length(part) for part in parts)
    for part, keys in zip(parts, _keys(carry, parts), strict=True):
        first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (part, keys))
        closed, tree = jaxprs.trace(
            lambda p, s, given: objective.output(p, s, given[0], train=True, key=given[1]),
            params, carry.state, first,
        )  # fmt: skip
        plain, stacked = jax.tree.leaves((params, carry.state)), jax.tree.leaves((part, keys))
        differs = [False] * len(plain) + [True] * len(stacked)
        programs.append(Program(closed, [*plain, *stacked], differs))
        trees.append(tree)
    found = [tree.unflatten(results) for tree, results in zip(trees, run(programs), strict=True)]

    def whole(*values: tuple[Array, bool]) -> Array:
        if not values[0][1]:
            return values[0][0]
        lengths = [_length(part) for part in parts]
        fits = all(v.shape[1:2] == (n,) for (v, _), n in zip(values, lengths, strict=True))
        require(
            fits,
            "make_step",
            "with accumulate, outputs of the network with the examples along the first axis",
            f"shape {values[0][0].shape[1:]} of {lengths[0]} examples",
            "Let the criterion return a Mean, which is taken of each micro-batch.",
        )
        return joined([v for v, _ in values])

    def state(old: Array, *values: tuple[Array, bool]) -> Array:
        if not values[0][1]:
            return values[0][0]
        new = old
        for (stack, _), part in zip(values, parts, strict=True):
            for value in stack:
                new = _moved(new, value, old, _length(part) / total)
        return new

    def pair(x: Any) -> bool:
        return isinstance(x, tuple) and len(x) == 2 and isinstance(x[1], bool)

    outputs = jax.tree.map(whole, *(output for output, _ in found), is_leaf=pair)
    states = jax.tree.map(state, carry.state, *(s for _, s in found), is_leaf=pair)
    return outputs, states
