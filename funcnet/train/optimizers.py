"""Optimisers by name, for the command line; a script takes them from optax itself."""

import optax

from ..types import require

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
    require(peak > 0, "named_optimizer", "a learning rate above 0", peak, "Try 1e-3 with adam.")
    optimizer = OPTIMIZERS[name](optax.cosine_decay_schedule(peak, max(1, steps)))
    return optimizer if clip is None else optax.chain(optax.clip_by_global_norm(clip), optimizer)
