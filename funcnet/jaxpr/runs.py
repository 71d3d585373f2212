"""How an equation runs: how often what it holds, on which platform, in which layer and pass."""

import math
from typing import Any, NamedTuple

import jax

from .jaxprs import JaxprEqn, sub_jaxprs


class Held(NamedTuple):
    """A jaxpr that an equation runs which is no call, branch or loop.

    Attributes:
        body: The jaxpr.
        times: How often it runs, on all devices together; None if that is not known.
        kernel: Whether it reads and writes blocks of the operands and results at its own will.
    """

    body: Any
    times: int | None
    kernel: bool


_HOLDERS = (
    "call", "core_call", "custom_lin", "linear_call", "run_state", "composite",
    "custom_partitioning", "xla_metadata_call", "core_map", "run_scoped", "jaxpr_call",
)  # fmt: skip


def held(eqn: JaxprEqn) -> Held | None:
    """The jaxpr that an equation runs, beside what `structure` knows.

    A Pallas kernel runs once for each point of its grid, a `shard_map` once for each device, and of
    a linear solver's four functions one runs.
    """
    name, params = eqn.primitive.name, eqn.params
    if name == "pallas_call":
        grid = params["grid_mapping"].grid
        known = all(isinstance(n, int) for n in grid)
        return Held(params["jaxpr"], math.prod(grid) if known else None, True)
    if name == "shard_map":
        sizes = dict(params["mesh"].shape)
        axes = params.get("manual_axes", sizes)
        return Held(params["jaxpr"], math.prod(sizes[axis] for axis in axes), False)
    if name == "custom_linear_solve":
        return Held(params["jaxprs"].solve, 1, False)
    if name in _HOLDERS:
        bodies = list(sub_jaxprs(eqn))
        return Held(bodies[0], 1, False) if bodies else None
    return None


def rule_options(eqn: JaxprEqn) -> dict[str, Any] | None:
    """The static arguments of the op whose rule an equation has; None if it is no op of ours."""
    return getattr(getattr(eqn.params.get("bwd"), "f", None), "options", None)


def platform(eqn: JaxprEqn) -> int | None:
    """Which branch `jax.lax.platform_dependent` takes where this runs; None of other equations."""
    if eqn.primitive.name != "platform_index":
        return None
    here = jax.default_backend()
    same = {"gpu": ("cuda", "rocm"), "cuda": ("gpu",), "rocm": ("gpu",)}.get(here, ())
    for n, names in enumerate(eqn.params["platforms"]):
        if names is None or {here, *same} & set(names):
            return n
    return None


def scope(eqn: JaxprEqn) -> str:
    """The names of the scopes around an equation, "block/dense", without JAX's transformations.

    A derivative inside another, as a remat has one, may say the same scopes again.
    """
    names, inner = [], []
    for part in eqn.source_info.name_stack.stack:
        if type(part).__name__ != "Scope":
            names, inner = _nested(names, inner), []
        elif part.name != "rematted_computation":
            inner.append(part.name)
    return "/".join(_nested(names, inner))


def _nested(outer: list[str], inner: list[str]) -> list[str]:
    return inner if inner[: len(outer)] == outer else outer + inner


def is_transposed(eqn: JaxprEqn) -> bool:
    """Whether JAX made an equation for a backward pass."""
    return any(
        type(part).__name__ == "Transform" and part.name == "transpose"
        for part in eqn.source_info.name_stack.stack
    )


def is_recomputed(eqn: JaxprEqn) -> bool:
    """Whether an equation computes again, for a remat, what the forward pass has computed."""
    stack = eqn.source_info.name_stack.stack
    return any(part.name == "rematted_computation" for part in stack)
