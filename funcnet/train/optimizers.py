"""Optimisers by name, for the command line; a script takes them from optax itself. And a running
average of the parameters, which travels in the optimiser's state.
"""

from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..types import Array, Params, require

OPTIMIZERS = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
    "rmsprop": optax.rmsprop,
    "adagrad": optax.adagrad,
    "lamb": optax.lamb,
    "lion": optax.lion,
}


def named_optimizer(
    name: str, peak: float, steps: int, *, clip: float | None = None
) -> optax.GradientTransformation:
    """An optimiser whose learning rate falls from `peak` to 0 as a half cosine over `steps`.

    Its state tells the rate, so that the history of a run has it.

    Args:
        name: One of `OPTIMIZERS`.
        peak: The learning rate of the first step.
        steps: The number of steps there will be.
        clip: The norm that a gradient is cut down to, if it is longer; None for no limit.

    Raises:
        ValueError: If the name is unknown, or the rate is not positive.

    >>> named_optimizer("adam", 1e-3, 100).init({}) is not None
    True

    Reference: Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017,
    equation 5, without restarts.
    """
    require(
        name in OPTIMIZERS,
        "named_optimizer",
        f"one of {', '.join(OPTIMIZERS)}",
        repr(name),
        "Any other optax optimiser goes to make_step or fit directly.",
    )
    fits = 0 < peak < float("inf")
    require(fits, "named_optimizer", "a finite learning rate above 0", peak, "Try 1e-3 with adam.")
    optimizer = at_rate(OPTIMIZERS[name], optax.cosine_decay_schedule(peak, max(1, steps)))
    return clipped(optimizer, clip)


def clipped(
    optimizer: optax.GradientTransformation, norm: float | None
) -> optax.GradientTransformation:
    """The optimiser of gradients that are cut down to a norm, where they are longer.

    >>> clipped(optax.sgd(0.1), None).init({}) is not None
    True
    """
    return optimizer if norm is None else optax.chain(optax.clip_by_global_norm(norm), optimizer)


def at_rate(
    make: Callable[[Any], optax.GradientTransformation], rate: Callable[[Any], Any]
) -> optax.GradientTransformation:
    """`make(rate)`, where the state tells the rate of the step before.

    >>> state = at_rate(optax.sgd, lambda step: 0.5).init({})
    >>> float(rate_of(state))
    0.5
    """

    def at(learning_rate: Any) -> optax.GradientTransformation:
        return make(learning_rate)

    return optax.inject_hyperparams(at)(learning_rate=rate)


def rate_of(opt_state: Any) -> Array | None:
    """The learning rate of the last step, where the optimiser's state tells it: the first one.

    >>> rate_of(optax.sgd(0.1).init({})) is None
    True
    """

    def tells(node: Any) -> bool:
        return "learning_rate" in (getattr(node, "hyperparams", None) or ())

    found = [node for node in jax.tree.leaves(opt_state, is_leaf=tells) if tells(node)]
    return found[0].hyperparams["learning_rate"] if found else None


def extended(where: str, optimizer: Any) -> optax.GradientTransformationExtraArgs:
    """An optimiser of optax that takes `value`, `grad` and the like, whether it needs them or not.

    Raises:
        TypeError: If it is none.
    """
    require(
        isinstance(optimizer, optax.GradientTransformation | optax.MultiSteps),
        where,
        "an optax optimiser",
        getattr(optimizer, "__name__", None) or type(optimizer).__name__,
        "Make one by a call, as in optax.adam(1e-3); a schedule goes in place of the number.",
        TypeError,
    )
    if isinstance(optimizer, optax.MultiSteps):
        optimizer = optimizer.gradient_transformation()
    return optax.with_extra_args_support(optimizer)


class Averaged(NamedTuple):
    """The state of `averaged`: that of the optimiser within, the average, the steps so far."""

    inner: Any
    average: Params
    count: Array


def averaged(
    optimizer: optax.GradientTransformation | optax.MultiSteps, decay: float = 0.999
) -> optax.GradientTransformationExtraArgs:
    """`optimizer`, and beside it a running average of the parameters that it leads to.

    After step t the average keeps the share d = min(decay, t / (t + 9)) of itself and takes 1 - d
    from the parameters, so the first ones are soon forgotten. It is kept in float32 or wider.
    `average_of` finds it.

    Args:
        optimizer: Any optax transformation; what it looks at besides, such as `value`, it gets.
        decay: The share of the old average in the long run, from 0 to below 1.

    Raises:
        ValueError: If the decay is out of range; from `update`, if the parameters are left out.
        TypeError: If `optimizer` is no optax transformation.

    >>> optimizer, params = averaged(optax.sgd(0.5)), {"w": jnp.ones(2)}
    >>> state = optimizer.init(params)
    >>> updates, state = optimizer.update({"w": jnp.ones(2)}, state, params)
    >>> round(float(average_of(state)["w"][0]), 3)  # 0.1 of the way there, 0.9 of the new 0.5
    0.55

    Reference: Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992; the
    rising share is that of TensorFlow's `ExponentialMovingAverage`.
    """
    require(
        isinstance(decay, Real) and 0 <= decay < 1,
        "averaged",
        "a decay from 0 to below 1",
        repr(decay),
        "It is the share of the old average that each step keeps: 0.999.",
    )
    inside = extended("averaged", optimizer)

    def init(params: Any) -> Any:
        # A copy, since a step gives away the arrays it is given; wide, since it grows by little.
        start = jax.tree.map(
            lambda p: jnp.array(p, jnp.promote_types(jnp.result_type(p), jnp.float32)), params
        )
        return Averaged(inside.init(params), start, jnp.zeros((), jnp.int32))

    def _update(updates: Any, state: Any, params: Any = None, **more: Any) -> tuple[Any, Any]:
        require(
            params is not None,
            "averaged",
            "the parameters as the third argument of update",
            "None",
            "Write optimizer.update(updates, state, params): it is they that are averaged.",
        )
        updates, inner = inside.update(updates, state.inner, params, **more)
        count = state.count + 1
        taken = 1 - jnp.minimum(decay, count / (count + 9))
        average = jax.tree.map(
            lambda a, p: a + taken.astype(a.dtype) * (p.astype(a.dtype) - a),
            state.average,
            optax.apply_updates(params, updates),
        )
        return updates, Averaged(inner, average, count)

    return optax.GradientTransformationExtraArgs(init, _update)


def average_of(opt_state: Any) -> Params:
    """The running average of the parameters in the state of an optimiser that keeps one.

    Args:
        opt_state: The state of `averaged(...)`, or any that has one inside.

    Raises:
        ValueError: If there is none, or more than one.

    >>> average_of(averaged(optax.adam(1e-3)).init({"b": jnp.zeros(1)}))["b"].tolist()
    [0.0]
    """
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, Averaged))
    found = [node for node in leaves if isinstance(node, Averaged)]
    require(
        len(found) == 1,
        "average_of",
        "an optimiser's state with one running average",
        f"one with {len(found)}",
        "Train with averaged(optimizer) and pass state.opt_state.",
    )
    return found[0].average
