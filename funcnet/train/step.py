"""One training step as pure functions: forward, backward and the optimiser in one compiled call.

    step = make_step(net, criterion, optax.adam(1e-3))
    state = step.init(jax.random.key(0), x)
    state, values = step.update(state, (x, y))

`update` gives its buffers away: the state that goes in is gone, the one that comes out replaces it.
Everything a run depends on stands in the state, so a state and the batches decide the result.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..nn.layer import Layer, child_key
from ..types import Array, Key, Params, State, require
from .measure import Figures, check_functions, measured, values_of
from .optimizers import extended

SEEN = "health "
"""The value of a step under which what it saw of itself goes; no figure can have this name."""


class TrainState(NamedTuple):
    """All that training carries from one step to the next.

    Attributes:
        step: How many steps have been taken, int32.
        params: The parameters.
        state: The network's own state, such as running averages.
        opt_state: The optimiser's state.
        key: The root of all draws in training; step `i` uses `jax.random.fold_in(key, i)`. A key
            of JAX's default kind is kept as its bits, uint32, which `jax.jit` takes faster.
    """

    step: Array
    params: Params
    state: State
    opt_state: Any
    key: Key


class Step(NamedTuple):
    """What `make_step` returns: three pure functions.

    Attributes:
        init: `(key, *inputs) -> TrainState`; the parameters are those of `net.init(key, *inputs)`.
        update: `(state, batch) -> (state, values)`, compiled; the state given is donated. `values`
            are the loss and the metrics of the batch before the update.
        evaluate: `(state, batch) -> values`, compiled, with `train=False`; the state stays valid.
    """

    init: Callable[..., TrainState]
    update: Callable[[TrainState, tuple], tuple[TrainState, dict[str, Array]]]
    evaluate: Callable[[TrainState, tuple], dict[str, Array]]


def make_step(
    net: Layer,
    criterion: Callable[[Any, Any], Any],
    optimizer: optax.GradientTransformation | optax.MultiSteps,
    *,
    metrics: Mapping[str, Callable[[Any, Any], Any]] | None = None,
) -> Step:
    """The training step of a network, a criterion and an optimiser.

    Args:
        net: The network.
        criterion: `(output, target) -> scalar`, what is made small. It may give a `Mean` in the
            place of a scalar, and `(loss, {name: figure})` for figures that join the values.
        optimizer: Any optax optimiser. One that searches along a line or looks at the loss gets
            `value`, `grad` and `value_fn`.
        metrics: `(output, target) -> scalar` (or a `Mean`) by name, beside the loss.

    Returns:
        The step. A batch is a tuple: the inputs, then the target.

    Raises:
        TypeError: If `net` is no layer, `optimizer` no optax optimiser, or `metrics` no dict of
            functions; from `update` and `evaluate`, if the criterion or a metric gives no number.
        ValueError: If a metric is named "loss"; from `init`, if one array stands twice among the
            parameters and state; from `update` and `evaluate`, if the batch has no target, a
            figure is no scalar, or two have one name.

    >>> from funcnet.layers.linear import Dense
    >>> def squared_error(output, target):
    ...     return jnp.mean((output - target) ** 2)
    >>> x, y = jnp.ones((8, 3)), jnp.ones((8, 1))
    >>> step = make_step(Dense(1), squared_error, optax.sgd(0.1))
    >>> state = step.init(jax.random.key(0), x)
    >>> for _ in range(50):
    ...     state, values = step.update(state, (x, y))
    >>> int(state.step), bool(values["loss"] < 1e-6)
    (50, True)
    """
    return step_of(net, criterion, optimizer, metrics, values_of)


def step_of(
    net: Layer,
    criterion: Callable[[Any, Any], Any],
    optimizer: optax.GradientTransformation | optax.MultiSteps,
    metrics: Mapping[str, Callable[[Any, Any], Any]] | None,
    read: Callable[[Figures], dict[str, Any]],
    more: Callable[[dict[str, Any], Any, Params], dict[str, Any]] | None = None,
    look: Any = None,
) -> Step:
    """The step whose values are what `read` makes of the figures of a batch.

    With `more`, what that makes of the values, the gradients and the new parameters joins the
    values of `update`. If there is a `look`, it differentiates, and what it says joins them too.
    """
    chosen = check_functions(criterion, metrics)
    _check_net(net)
    transform = extended("make_step", optimizer)

    run = functools.partial(_run, net, criterion, chosen, read)

    def init(key: Key, *inputs: Any) -> TrainState:
        params, state = net.init(key, *inputs)
        refuse_tied("make_step", {"params": params, "state": state})
        # Some optimisers keep the parameters themselves, and a layer may hand out an array it
        # holds: donation needs buffers that nobody else has. "train" names no child.
        params, state, opt_state = jax.tree.map(own, (params, state, transform.init(params)))
        root = _bits(child_key(key, "train"))
        return TrainState(jnp.zeros((), jnp.int32), params, state, opt_state, root)

    def update(carry: TrainState, batch: tuple) -> tuple[TrainState, dict[str, Array]]:
        def loss(params: Params) -> tuple[Array, tuple]:
            key = jax.random.fold_in(_typed(carry.key), carry.step)
            return run(params, carry.state, batch, train=True, key=key)

        seen = None
        if look is None:
            output, grads = jax.value_and_grad(loss, has_aux=True)(carry.params)
        else:
            output, grads, seen = look.gradient(loss, carry.params)
        value, (values, state) = output
        steps, opt_state = transform.update(
            grads,
            carry.opt_state,
            carry.params,
            value=value,
            grad=grads,
            value_fn=lambda params: loss(params)[0],
        )
        params: Any = optax.apply_updates(carry.params, steps)
        new = TrainState(carry.step + 1, params, state, opt_state, carry.key)
        new = jax.tree.map(_like, new, carry)
        values |= {} if more is None else more(values, grads, new.params)
        values |= look.figures(seen, carry.params, grads, steps) if look else {}
        return new, values

    evaluate = evaluation_of(net, criterion, metrics, read)
    return Step(init, jax.jit(update, donate_argnums=0), evaluate)


def loss_of(
    net: Layer,
    criterion: Callable[[Any, Any], Any],
    metrics: Mapping[str, Callable[[Any, Any], Any]] | None,
) -> Callable[..., Array]:
    """The loss that `Step.update` makes small, of the parameters and of what else it depends on."""
    chosen = check_functions(criterion, metrics)

    def loss(params: Params, state: State, batch: tuple, key: Key, step: Array) -> Array:
        draws = jax.random.fold_in(_typed(key), step)
        return _run(net, criterion, chosen, dict, params, state, batch, train=True, key=draws)[0]

    return loss


def evaluation_of(
    net: Layer,
    criterion: Callable[[Any, Any], Any],
    metrics: Mapping[str, Callable[[Any, Any], Any]] | None,
    read: Callable[[Figures], dict[str, Any]],
) -> Callable[[TrainState, tuple], dict[str, Any]]:
    """`Step.evaluate` alone."""
    run = functools.partial(_run, net, criterion, check_functions(criterion, metrics), read)

    def evaluate(carry: TrainState, batch: tuple) -> dict[str, Any]:
        return run(carry.params, carry.state, batch)[1][0]

    return jax.jit(evaluate)


def _run(
    net: Layer, criterion: Callable, metrics: Mapping[str, Callable], read: Callable,
    params: Params, state: State, batch: tuple, *, train: bool = False, key: Key | None = None,
) -> tuple[Array, tuple]:  # fmt: skip
    *inputs, target = _split(batch)
    output, state = net.apply(params, state, *inputs, train=train, key=key)
    loss, figures = measured(criterion, metrics, output, target)
    return loss, (read(figures), state)


CPU_OPTIONS = {"xla_disable_hlo_passes": "cse_barrier_expander"}
"""On the CPU this pass takes away the barriers that keep XLA from merging what a backward pass
computes again with what the forward pass computed, and so from keeping the latter: `remat` and the
rules that recompute would save no memory."""


def outermost(update: Callable) -> Callable:
    """An update compiled as a program of its own: on the CPU with `CPU_OPTIONS`.

    JAX takes such options at the outermost `jax.jit` alone, so `Step.update`, which may be called
    inside another, has none.

    >>> outermost(lambda state, batch: (state + batch, {}))(jnp.zeros(()), jnp.ones(()))[0].item()
    1.0
    """
    options = CPU_OPTIONS if jax.default_backend() == "cpu" else None
    return jax.jit(update, donate_argnums=0, compiler_options=options)


def refuse_tied(where: str, tree: Any) -> None:
    """Raise, with the paths, if one array stands twice in the tree: it could not be donated.

    Raises:
        ValueError: If two leaves are one array.
    """
    seen: dict[int, str] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path)
        other = seen.setdefault(id(leaf), name)
        require(
            other == name,
            where,
            "each array once among the parameters and state, as donation needs",
            f"one array at {other} and at {name}",
            "Call one child of network() twice to share it, or jnp.copy one to train them apart.",
        )


def _check_net(net: Any) -> None:
    require(
        isinstance(net, Layer),
        "make_step",
        "a Layer",
        type(net).__name__,
        "A layer is made by a call, as in Dense(10); pure(f) makes one of a function.",
        TypeError,
    )


def _split(batch: Any) -> tuple:
    kind = "one array" if hasattr(batch, "shape") else f"a {type(batch).__name__} of {len(batch)}"
    require(
        isinstance(batch, tuple) and len(batch) >= 2,
        "make_step",
        "a batch that is a tuple (*inputs, target)",
        kind,
        "Call step.update(state, (x, y)).",
        TypeError,
    )
    return batch


def _bits(key: Any) -> Key:
    """The bits of a key: as an argument a typed key costs 40 us a call, a plain array nothing."""
    default = jax.random.key(0).dtype
    return jax.random.key_data(key) if key.dtype == default else key


def _typed(key: Key) -> Key:
    return key if _is_key(key) else jax.random.wrap_key_data(key)


def _is_key(leaf: Array) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def own(leaf: Any) -> Array:
    """A copy with a fixed dtype: a weakly typed leaf would compile the second step again."""
    return jax.random.clone(leaf) if _is_key(leaf) else jnp.array(leaf, dtype=leaf.dtype, copy=True)


def _like(new: Array, old: Array) -> Array:
    """`new` in the dtype of `old`, so that a state has one type from the first step to the last."""
    return new if _is_key(old) else new.astype(old.dtype)
