"""`health`: how a network fares, layer by layer, and what is wrong with it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...render.forms import Table
from ...types import require, shown
from ..report import Report
from .batches import Batches
from .diagnose import Verdict, diagnose
from .limits import NOISE
from .probe import Figures
from .table import NOTE, listed, table


@dataclass(frozen=True)
class Health(Report):
    """How a network fares. It is true if something is wrong, false if all is well.

    Attributes:
        name: What was looked at.
        figures: Numbers by what they are of, then by layer: "value", "adjoint", "element",
            "silent", "looks", "tiny", "nonfinite" of layers' outputs; "weights", "gradient",
            "update", "lost" of parameters.
        verdicts: What is wrong: each has `kind`, `layer`, `sentence` and `figure`.
        noise: Over two batches or more, the squared norm of the noise in the gradient of a batch
            over that of the gradient; else None.
    """

    name: str
    figures: Figures
    verdicts: tuple[Verdict, ...]
    noise: float | None = None

    def __bool__(self) -> bool:
        return bool(self.verdicts)

    @property
    def heading(self) -> str:
        """What stands above its page."""
        return f"health of {self.name}"

    def parts(self) -> Sequence[Table | str]:
        """The figures, and what is wrong."""
        noise = []
        if self.noise is not None:
            noise = [f"A batch's gradient has {self.noise:.3g} times as much noise as gradient."]
        return [table(self.figures, self.verdicts), NOTE, *noise, listed(self.verdicts)]


def health(
    f: Callable,
    *,
    wrt: int = 0,
    seed: Any = None,
    has_aux: bool = False,
    over: Iterable[tuple] | None = None,
    optimizer: Any = None,
    opt_state: Any = None,
) -> Callable[..., Health]:
    """How the values, adjoints, parameters and steps of a network fare, and what is wrong.

    Layers are those that have a name, by `jax.named_scope` or by funcnet's own layers; where
    nothing has, a part from each product of matrices to the next. `jit`, `scan`, `cond` and `remat`
    inside are looked into. The limits, with reasons and sources, are in
    `funcnet.verdicts.health.limits`.

    Args:
        f: A loss: any JAX function whose output is one number (else give `seed`).
        wrt: Which positional argument the parameters are.
        seed: The adjoint of the output, as for `watch`.
        has_aux: Whether `f` returns `(loss, aux)`.
        over: Batches, each a tuple of the arguments that follow those of the call: then a unit is
            dead only if it is so over all of them, and the noise of a batch is known.
        optimizer: An optimiser with `init` and `update`, as optax has them: then its step is held
            against the weights.
        opt_state: The optimiser's state; None for that before the first step.

    Returns:
        A function of the arguments of `f` that gives a `Health`, which is true if something is
        wrong.

    Raises:
        TypeError: If `optimizer` is none.
        ValueError: When called, if `wrt` names no argument, `over` is empty, or its batches are
            not alike.

    >>> import jax, jax.numpy as jnp
    >>> def loss(params, x):
    ...     for i, w in enumerate(params):
    ...         with jax.named_scope(f"layer{i}"):
    ...             x = jax.nn.sigmoid(x @ w)
    ...     return jnp.sum(x)
    >>> params = [jnp.eye(4)] * 20
    >>> found = health(loss)(params, jnp.ones((2, 4)))
    >>> found.verdicts[0].kind, round(found.verdicts[0].figure, 1), bool(found)
    ('vanishing gradient', 0.2, True)

    Reference: Glorot & Bengio, "Understanding the Difficulty of Training Deep Feedforward Neural
    Networks", 2010, section 4; He et al., "Delving Deep into Rectifiers", 2015, section 2.2;
    McCandlish et al., "An Empirical Model of Large-Batch Training", 2018, equation 2.8.
    """
    whole = optimizer is None or all(
        callable(getattr(optimizer, name, None)) for name in ("init", "update")
    )
    require(
        whole,
        "health",
        "an optimiser with init and update",
        shown(optimizer),
        "Pass what a call such as adam(1e-3) of optax gives.",
        TypeError,
    )

    batches = None if over is None else tuple(over)

    def run(*args: Any, **kwargs: Any) -> Health:
        looked = Batches(f, wrt, seed, has_aux, args, kwargs, batches)
        figures = looked.figures(optimizer, opt_state)
        verdicts = diagnose(figures)
        if any(verdict.kind == "no gradient" for verdict in verdicts):
            verdicts = diagnose(figures | looked.after_a_step(figures))
        return Health(looked.name, figures, (*verdicts, *_noisy(looked.noise)), looked.noise)

    return run


def _noisy(noise: float | None) -> list[Verdict]:
    if noise is None or noise <= NOISE.value:
        return []
    sentence = (
        f"the gradient of a batch has {noise:.3g} times as much noise as gradient, in squared "
        "norms: take larger batches, more momentum or smaller steps."
    )
    return [Verdict("noisy batches", "", sentence, noise)]
