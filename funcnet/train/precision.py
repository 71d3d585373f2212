"""In which dtype each part of training computes, and the scale that float16 needs.

    fit(net, criterion, optimizer, data, epochs=10, precision="bf16")

A policy is put around the network: parameters and inputs are cast on the way in, the output on the
way out, so gradients come back in the dtype of the parameters. What float16 needs besides is put
around the network and around the optimiser: cotangents are scaled between output and parameters,
and a step whose gradients overflow is not taken.
"""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..figures import Figure, Last, Sum
from ..nn.layer import Layer
from ..types import Array, Key, Params, State, is_whole, require, shown
from .state import TrainState

SCALE, OVERFLOWED = "loss_scale", "overflowed"
"""The values of a step that say what scale it had, and whether its gradients overflowed."""

LARGEST = 2.0**24
"""Where a loss scale stops growing: beyond, it would reach the end of float32 with the loss."""


def _dtype(name: str, given: Any) -> Any:
    try:
        dtype = jnp.dtype(given)
    except TypeError:
        dtype = None
    floating = dtype is not None and jnp.issubdtype(dtype, jnp.floating)
    require(
        dtype is not None and floating and dtype.itemsize in (2, 4, 8),
        "Precision",
        f"{name} to be float32, bfloat16, float16 or float64",
        shown(given),
        f'Write {name}="bfloat16".',
    )
    require(
        jax.dtypes.canonicalize_dtype(dtype) == dtype,
        "Precision",
        f"{name} of 32 bits at most",
        shown(given),
        'Call jax.config.update("jax_enable_x64", True) first.',
    )
    return dtype


@dataclass(frozen=True)
class Precision:
    """The dtypes of training. `precision="f32"`, `"bf16"` and `"f16"` are short for the usual ones.

    Norms, softmax and losses reduce in float32 whatever the dtype of their inputs is, and a product
    of 16-bit operands is summed in float32; the network's state, such as running averages, keeps
    its dtype.

    Attributes:
        params: That in which parameters are kept and updated. Parameters that an optimiser moves by
            less than a 256th of themselves stand still in bfloat16, so it is float32 as a rule.
        compute: That to which parameters and floating inputs are cast for the network, in training
            and in evaluation.
        output: That to which the network's output is cast for criterion and metrics.
        reduction: That in which gradients come out and are summed, over micro-batches and devices;
            no narrower than `compute`.
        loss_scale: What cotangents are multiplied by in the backward pass, at first, so that small
            ones are not 0 in float16; None for no scaling. It is halved with each step whose
            gradients overflow, which is not taken, and doubled after `growth_interval` steps
            without; never below 1 or above 2**24.
        growth_interval: See `loss_scale`.

    Raises:
        ValueError: If a dtype is none of the floating ones, `reduction` is narrower than `compute`,
            the scale is no finite number of 1 or more, the output that is scaled is no wider than
            16 bits, or the interval is no whole number of 1 or more.

    >>> Precision(compute="bfloat16").params
    dtype('float32')

    Reference: Micikevicius et al., "Mixed Precision Training", 2018, sections 3.1 to 3.3.
    """

    params: Any = "float32"
    compute: Any = "float32"
    output: Any = "float32"
    reduction: Any = "float32"
    loss_scale: float | None = None
    growth_interval: int = 2000

    def __post_init__(self) -> None:
        for field in fields(self)[:4]:
            object.__setattr__(self, field.name, _dtype(field.name, getattr(self, field.name)))
        require(
            jnp.promote_types(self.reduction, self.compute) == self.reduction,
            "Precision",
            "a reduction that is no narrower than compute",
            f"{self.reduction} for {self.compute}",
            "Leave it out: it is float32.",
        )
        scale = self.loss_scale
        require(
            scale is None or (isinstance(scale, int | float) and 1 <= scale <= LARGEST),
            "Precision",
            "a loss scale from 1 to 2**24, or None",
            shown(scale),
            'Write loss_scale=2.0**15, or precision="f16".',
        )
        require(
            scale is None or self.output.itemsize > 2,
            "Precision",
            "an output of float32 beside a loss scale",
            f"{self.output}",
            "Leave output out: the loss is taken in float32, and scaled behind it.",
        )
        require(
            is_whole(self.growth_interval),
            "Precision",
            "a growth_interval that is a whole number of 1 or more",
            shown(self.growth_interval),
            "Leave it out: after 2000 steps without an overflow the scale is doubled.",
        )

    def over(self, net: Layer) -> Layer:
        """The network with its parameters, inputs and output in the dtypes of the policy.

        >>> from funcnet.layers.linear import Dense
        >>> net = Precision(compute="bfloat16", output="bfloat16").over(Dense(2))
        >>> params, _ = net.init(jax.random.key(0), jnp.ones((1, 3)))
        >>> params["w"].dtype, net(params, jnp.ones((1, 3))).dtype
        (dtype('float32'), dtype(bfloat16))
        """

        def init(key: Key, *inputs: Any) -> tuple[Params, State]:
            params, state = net.init(key, *inputs)
            return cast(params, self.params), state

        def apply(
            params: Params, state: State, *inputs: Any, train: bool = False, key: Key | None = None
        ) -> tuple[Any, State]:
            params, inputs = cast((params, inputs), self.compute)
            output, new = net.apply(params, state, *inputs, train=train, key=key)
            return cast(output, self.output), new

        return Layer(init, apply, net.name)


PRESETS = {
    "f32": Precision(),
    "bf16": Precision(compute="bfloat16"),
    "f16": Precision(compute="float16", loss_scale=2.0**15),
}


def precision_of(where: str, given: Any) -> Precision | None:
    """The policy of that name, or the policy itself; None leaves all dtypes as they are.

    Raises:
        ValueError: If there is none of that name.
    """
    chosen: Any = PRESETS.get(given) if isinstance(given, str) else given
    require(
        given is None or isinstance(chosen, Precision),
        where,
        f"precision to be {', '.join(map(repr, PRESETS))} or a Precision",
        shown(given),
        "Write precision='bf16', or precision=fn.Precision(compute='bfloat16').",
    )
    return chosen


def cast(tree: Any, dtype: Any) -> Any:
    """The tree with its floating arrays in that dtype.

    >>> cast((jnp.ones(1), jnp.ones(1, int)), "bfloat16")
    (Array([1], dtype=bfloat16), Array([1], dtype=int32))
    """

    def leaf(x: Any) -> Any:
        floating = hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)
        return jnp.asarray(x, dtype) if floating else x

    return jax.tree.map(leaf, tree)


class LossScale(NamedTuple):
    """The state of `scaled`: that of the optimiser within, and how scaling has gone so far.

    Attributes:
        inner: The optimiser's own state.
        scale: The scale of the next step, float32.
        good: How many steps have been taken since it last changed, int32.
        skipped: How many steps were not taken in all, int32.
    """

    inner: Any
    scale: Array
    good: Array
    skipped: Array


def scaled(
    optimizer: optax.GradientTransformationExtraArgs, precision: Precision | None
) -> optax.GradientTransformationExtraArgs:
    """`optimizer` as it is, or with the loss scale that a policy has in its state.

    Where a gradient is not finite, the update is 0 and the optimiser's own state stays as it was.

    >>> optimizer = scaled(optax.with_extra_args_support(optax.sgd(1.0)), PRESETS["f16"])
    >>> state = optimizer.init(jnp.ones(()))
    >>> update, state = optimizer.update(jnp.array(jnp.inf), state, jnp.ones(()))
    >>> float(update), float(state.scale), int(state.skipped)
    (0.0, 16384.0, 1)
    """
    if precision is None or precision.loss_scale is None:
        return optimizer
    first, interval = precision.loss_scale, precision.growth_interval

    def init(params: Any) -> Any:
        none = jnp.zeros((), jnp.int32)
        return LossScale(optimizer.init(params), jnp.asarray(first, jnp.float32), none, none)

    def _update(updates: Any, state: Any, params: Any = None, **more: Any) -> tuple[Any, Any]:
        finite = [jnp.isfinite(x).all() for x in jax.tree.leaves(updates)]
        fine = jnp.stack([jnp.asarray(True), *finite]).all()
        steps, inner = optimizer.update(updates, state.inner, params, **more)
        steps = jax.tree.map(lambda x: jnp.where(fine, x, jnp.zeros_like(x)), steps)
        grows = fine & (state.good + 1 >= interval)
        factor = jnp.where(fine, jnp.where(grows, 2.0, 1.0), 0.5)
        scale = jnp.clip(factor * state.scale, 1.0, LARGEST)
        good = jnp.where(fine & ~grows, state.good + 1, 0)
        inner, skipped = _chosen(fine, inner, state.inner), state.skipped + ~fine
        return steps, LossScale(inner, scale, good, skipped)

    return optax.GradientTransformationExtraArgs(init, _update)


def scaling(net: Layer, opt_state: Any) -> Layer:
    """The network whose cotangents are scaled, by the scale in an optimiser's state if it has one.

    They are multiplied at the output and divided at the parameters, in float32 both, so gradients
    come out as they are without, and nothing around the network need know.
    """
    if not isinstance(opt_state, LossScale):
        return net
    scale = opt_state.scale

    def apply(
        params: Params, state: State, *inputs: Any, train: bool = False, key: Key | None = None
    ) -> tuple[Any, State]:
        params = _backward_times(params, 1 / scale)
        output, new = net.apply(params, state, *inputs, train=train, key=key)
        return _backward_times(output, scale), new

    return Layer(net.init, apply, net.name)


def settled(
    old: TrainState, new: TrainState, figures: dict[str, Figure], grads: Any
) -> tuple[TrainState, dict[str, Figure], Any]:
    """What a step comes to where the loss is scaled; without a scale, all as it was.

    If gradients overflowed, the network's state is that before the step, and the gradients that
    others look at are 0, unless the scale was 1 already: then it is not what made them overflow.

    Raises:
        ValueError: If a figure has the name of one that is added here.
    """
    before, after = old.opt_state, new.opt_state
    if not isinstance(before, LossScale):
        return new, figures, grads
    taken = {SCALE, OVERFLOWED} & figures.keys()
    require(
        not taken,
        "make_step",
        f"figures of other names than {SCALE} and {OVERFLOWED} where the loss is scaled",
        ", ".join(sorted(taken)),
        "Choose another name.",
    )
    overflowed = after.skipped != before.skipped
    state = _chosen(~overflowed, new.state, old.state)
    excused = overflowed & (before.scale > 1)
    grads = jax.tree.map(lambda x: jnp.where(excused, jnp.zeros_like(x), x), grads)
    said = {SCALE: Last(before.scale), OVERFLOWED: Sum(overflowed.astype(jnp.int32))}
    return new._replace(state=state), figures | said, grads


def _chosen(fine: Array, new: Any, old: Any) -> Any:
    """`new` where all is fine, else `old`, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(fine, a, b), new, old)


@jax.custom_vjp
def _backward_times(tree: Any, factor: Array) -> Any:
    """The tree as it is; its cotangent is multiplied by the factor."""
    return tree


def _backward(factor: Array, cotangent: Any) -> tuple[Any, Array]:
    def times(x: Any) -> Any:
        return x * factor.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else x

    return jax.tree.map(times, cotangent), jnp.zeros_like(factor)


_backward_times.defvjp(lambda tree, factor: (tree, factor), _backward)
