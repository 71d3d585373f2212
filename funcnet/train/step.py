"""One training step as pure functions: forward, backward and the optimiser in one compiled call.

    step = make_step(net, criterion, optax.adam(1e-3))
    state = step.init(jax.random.key(0), x)
    state, values = step.update(state, (x, y))

`update` gives its buffers away: the state that goes in is gone, the one that comes out replaces it.
Everything a run depends on stands in the state, so a state and the batches decide the result.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from ..figures import Finite, Last
from ..mesh.mesh import Mesh, run_on
from ..nn.layer import Layer, child_key
from ..types import Array, Key, Params, require, shown
from .accumulate import accumulated
from .calls import Update, limited, repeated
from .loss import Objective
from .measure import Figures, values_of
from .micro import check_count
from .optimizers import average_of, averaged, extended, rate_of
from .precision import Precision, cast, scaled, settled
from .state import Step, TrainState, bits, like, own, refuse_tied

SEEN = "health "
"""The value of a step under which what it saw of itself goes; no figure can have this name."""


def make_step(
    net: Layer,
    criterion: Callable[[Any, Any], Any],
    optimizer: optax.GradientTransformation | optax.MultiSteps,
    *,
    metrics: Mapping[str, Callable[[Any, Any], Any]] | None = None,
    inputs: Any = None,
    accumulate: int = 1,
    steps_per_call: int = 1,
    max_traces: int | None = None,
    clip: float | None = None,
    ema: float | None = None,
    precision: str | Precision | None = None,
    mesh: Mesh | None = None,
) -> Step:
    """The training step of a network, a criterion and an optimiser.

    Args:
        net: The network.
        criterion: `(output, target) -> scalar`, what is made small. It may give a `Mean` in the
            place of a scalar, and `(loss, {name: figure})` for figures that join the values.
        optimizer: Any optax optimiser. One that searches along a line or looks at the loss gets
            `value`, `grad` and `value_fn`.
        metrics: `(output, target) -> scalar` (or a `Mean`) by name, beside the loss.
        inputs: What of a batch the network gets: a key or a tuple of keys of a dict, or a function
            from the batch to a tuple. The criterion and the metrics then get the whole batch beside
            the output. None for a batch `(*inputs, target)`.
        accumulate: Into how many micro-batches a batch is cut, to take less memory: the step is
            that of the whole batch, to rounding, and dropout draws for each by itself.
        steps_per_call: How many steps a call of `update` takes: it gets so many batches, stacked,
            and gives as many values.
        max_traces: How often `update` may be traced before it is an error; None for any number.
        clip: The norm that a longer gradient is cut down to, all parameters taken together. The
            norm before joins the values as `grad_norm`.
        ema: The share of itself that a running average of the parameters keeps in each step, as in
            `averaged`; `evaluate` then looks at the average.
        precision: "f32", "bf16", "f16" or a `Precision`: the dtypes in which parameters are kept
            and the network computes; None leaves those of parameters and inputs. With "f16" the
            values have `loss_scale`, and `overflowed`: 1 where the step was not taken, else 0.
        mesh: The devices to run on, and what is split along them; one device if left out.

    Returns:
        The step. A batch is a tuple: the inputs, then the target. The values also have the
        `learning_rate` if the optimiser's state says it, as with `optax.inject_hyperparams`.

    Raises:
        TypeError: If `net` is no layer, `optimizer` no optax optimiser, or `metrics` no dict of
            functions; from `update` and `evaluate`, if the criterion or a metric gives no number.
        ValueError: If a metric is named "loss", a number is out of range, or there is no
            precision of that name; from `init`, if one
            array stands twice among the parameters and state; from `update` and `evaluate`, if the
            batch has no target, a figure is no scalar, or two have one name; from `update`, if the
            state was given away before, or traced once more than `max_traces`.

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
    check_count("accumulate", accumulate)
    objective = Objective.of(net, criterion, metrics, inputs).under("make_step", precision)
    step = step_of(
        objective, optimizer, values_of, mesh=mesh, accumulate=accumulate, clip=clip, ema=ema
    )
    if check_count("steps_per_call", steps_per_call) > 1:
        step = step._replace(update=Update(repeated(step.update.traced, steps_per_call)))
    return step._replace(update=limited(step.update, max_traces))


def step_of(
    objective: Objective,
    optimizer: optax.GradientTransformation | optax.MultiSteps,
    read: Callable[[Figures], dict[str, Any]],
    more: Callable[[dict[str, Any], Any, Params], dict[str, Any]] | None = None,
    look: Any = None,
    *,
    mesh: Mesh | None = None,
    accumulate: int = 1,
    clip: float | None = None,
    ema: float | None = None,
) -> Step:
    """The step whose values are what `read` makes of the figures of a batch.

    With `more`, what that makes of the values, the gradients and the new parameters joins the
    values of `update`. If there is a `look`, it differentiates, the whole batch at once, and what
    it says joins them too. With a `mesh` all of it runs on that.
    """
    net = objective.net
    averaging = optimizer if ema is None else averaged(optimizer, ema)
    transform = scaled(extended("make_step", averaging), objective.precision)
    _check_clip(clip)

    def init(key: Key, *inputs: Any) -> TrainState:
        params, state = net.init(key, *inputs)
        refuse_tied("make_step", {"params": params, "state": state})
        # Some optimisers keep the parameters themselves, and a layer may hand out an array it
        # holds: donation needs buffers that nobody else has. "train" names no child.
        params, state, opt_state = jax.tree.map(own, (params, state, transform.init(params)))
        root = bits(child_key(key, "train"))
        return TrainState(jnp.zeros((), jnp.int32), params, state, opt_state, root)

    def update(carry: TrainState, batch: Any) -> tuple[TrainState, dict[str, Array]]:
        loss, seen, at = objective.in_training(carry, batch), None, carry.params
        if objective.precision is not None:
            at = cast(at, objective.precision.reduction)
        if look is not None:
            output, grads, seen = look.gradient(loss, at)
        elif accumulate > 1:
            loss, gradient = accumulated(objective.scaled(carry), accumulate, carry, batch)
            output, grads = gradient(at)
        else:
            output, grads = jax.value_and_grad(loss, has_aux=True)(at)
        value, (figures, state) = output
        grads, norm = (grads, None) if clip is None else _clipped(grads, clip)
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
        new, figures, grads = settled(carry, jax.tree.map(like, new, carry), figures, grads)
        values = read(figures | _told(norm, opt_state))
        values |= {} if more is None else more(values, grads, new.params)
        values |= look.figures(seen, carry.params, grads, steps) if look else {}
        return new, values

    def looked_at(carry: TrainState) -> Params:
        return carry.params if ema is None else average_of(carry.opt_state)

    evaluate = objective.evaluation(read, looked_at)
    if mesh is not None:
        init, update, evaluate = run_on(mesh, init, update, evaluate)
    return Step(init, Update(update), jax.jit(evaluate))


def _clipped(grads: Params, most: float) -> tuple[Params, Array]:
    """The gradients, no longer than that all together, and how long they were."""
    wide = jax.tree.map(lambda g: g.astype(jnp.promote_types(g.dtype, jnp.float32)), grads)
    norm = optax.tree.norm(wide)
    factor = jnp.minimum(1, most / jnp.where(norm == 0, 1, norm))
    return jax.tree.map(lambda g: (g * factor).astype(g.dtype), grads), norm


def _told(norm: Array | None, opt_state: Any) -> Figures:
    """What a step can say besides its figures: the norm of the gradient, the learning rate."""
    told: Figures = {} if norm is None else {"grad_norm": Finite.of(norm)}
    rate = rate_of(opt_state)
    return told if rate is None else told | {"learning_rate": Last(jnp.asarray(rate))}


def _check_clip(clip: Any) -> None:
    require(
        clip is None or (isinstance(clip, int | float) and clip > 0),
        "make_step",
        "clip to be a number above 0, or None",
        shown(clip),
        "It is the norm that a longer gradient is cut down to, such as 1.0.",
    )


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
    plain = update.traced if isinstance(update, Update) else update
    return jax.jit(plain, donate_argnums=0, compiler_options=options)


def evaluation_on(mesh: Mesh | None, evaluate: Callable) -> Callable:
    """The evaluation compiled, on the mesh if there is one."""
    return jax.jit(evaluate if mesh is None else run_on(mesh, evaluate, evaluate, evaluate)[2])
