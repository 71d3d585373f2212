"""What a function costs: its operations and bytes by layer, op and line, forward and backward."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from ..jaxpr import jaxprs
from ..jaxpr.passes import Passes, passes_of, replaced
from ..traces.program import NO_REVERSE, Program, pair_of, reversible
from ..types import is_whole, require, shown
from .arithmetic import nbytes
from .costs import Cost
from .flops import Total, counted, counted_passes


def cost(
    f: Callable,
    *,
    wrt: int | Sequence[int] | None = None,
    has_aux: bool = False,
    gradient: bool = True,
    iterations: int = 1,
) -> Callable[..., Cost]:
    """Count the floating-point operations and bytes of a function and of its gradient.

    The function is opened, not run: arguments may be shapes. A scan counts as often as it runs, and
    so does what stands in it; of branches the larger one counts; what no result needs is left out.
    `funcnet/verdicts/arithmetic.py` says what each primitive counts: a product of (m, k) and (k, n)
    2mkn, a convolution 2 for each tap that lies on its input, all else 1 for each element.

    Args:
        f: Any function of arrays. All that it returns starts a gradient.
        wrt: The positional arguments to differentiate, as argnums of `jax.grad`; None for all.
        has_aux: Whether it returns `(loss, aux)`, of which aux starts none.
        gradient: False for the function alone. If it takes gradients itself, as a training step
            does, `backward` is what JAX made for their backward passes, and `forward` all else,
            the optimizer's update too.
        iterations: How often each loop runs whose length is not known before.

    Returns:
        A function of the arguments of `f`, arrays or `ShapeDtypeStruct`s, that returns a `Cost`.

    Raises:
        TypeError: If an argument that `wrt` names has no floating array.
        ValueError: If `wrt` names no argument or one that is not there, `has_aux` is set for an
            output that is no pair, or `iterations` is no whole number from 0 on.

    >>> import jax.numpy as jnp
    >>> layers = jnp.ones((32, 256, 256))
    >>> def deep(x, layers):
    ...     return jax.lax.scan(lambda x, w: (x @ w, None), x, layers)[0]
    >>> c = cost(deep)(jnp.ones((64, 256)), layers)
    >>> c.forward.flops, c.backward.flops
    (268435456, 536870912)

    Reference: Williams, Waterman and Patterson, Roofline: an insightful visual performance model
    for multicore architectures, CACM 52 (2009); Chowdhery et al., PaLM, appendix B (2022), for MFU.
    """
    require(
        is_whole(iterations, 0), "cost", "iterations to be a whole number from 0 on",
        shown(iterations), "Write 100 if such a loop runs so often.",
    )  # fmt: skip

    def run(*args: Any, **kwargs: Any) -> Cost:
        program = Program("cost", f, args, kwargs)
        some = [i for i, active in enumerate(program.active(program.chosen(wrt))) if active]
        apart = _apart(program, has_aux)
        refused = "no argument has a floating dtype." * (gradient and not some)
        if gradient and some:
            try:
                with reversible("cost"):
                    passes = passes_of(apart, program.arrays, some)
                found = counted_passes(passes, iterations)
                runner = _both(apart, some), program.arrays, passes.results
                return _made(f, found, iterations, _moved_once(passes), "", runner)
            except ValueError as error:
                if str(error) != NO_REVERSE.format("cost"):
                    raise
                refused = "JAX sends none back through a loop of unknown length."
        closed, _ = jaxprs.trace(apart, *program.arrays)
        found = counted(closed, iterations)
        runner = (lambda arrays, _: apart(*arrays)), program.arrays, []
        return _made(f, found, iterations, _edges(closed), refused, runner)

    return run


def _apart(program: Program, has_aux: bool) -> Callable[..., tuple[list, Any]]:
    """The function of its arrays, as results that take a cotangent, and all else."""

    def apart(*arrays: Any) -> tuple[list, Any]:
        output = program.of_arrays(*arrays)
        if has_aux:
            pair_of("cost", jax.tree.structure(output))
        loss, aux = output if has_aux else (output, ())
        flat = jax.tree.leaves(loss)
        smooth = [y for y in flat if jaxprs.is_inexact(y)]
        return smooth, [[y for y in flat if not jaxprs.is_inexact(y)], aux]

    return apart


def _both(apart: Callable, some: Sequence[int]) -> Callable:
    """The function and its gradient in one, of arrays and cotangents."""

    def both(arrays: Sequence[Any], cotangents: list) -> Any:
        def of_some(*xs: Any) -> Any:
            return apart(*replaced(arrays, some, xs))

        results, pull, rest = jax.vjp(of_some, *(arrays[i] for i in some), has_aux=True)
        return results, rest, pull(cotangents)

    return both


def _edges(closed: Any) -> int:
    """The bytes of what goes into a program and of what comes out."""
    return sum(map(nbytes, (*closed.in_avals, *closed.consts, *closed.out_avals)))


def _moved_once(passes: Passes) -> int:
    """The bytes of arguments, constants, results and gradients."""
    kept = sum(map(nbytes, passes.residuals))
    started = sum(map(nbytes, passes.results))
    return _edges(passes.forward) + _edges(passes.backward) - 2 * kept - started


def _made(
    f: Callable, found: Total, iterations: int, compulsory: int, refused: str, runner: Any
) -> Cost:
    name = getattr(f, "__name__", type(f).__name__)
    return Cost(name, *found, iterations, compulsory, refused, runner=runner)
