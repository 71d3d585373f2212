"""What can be put under `jax.checkpoint`: the layers of a program, and the policies of JAX."""

import fnmatch
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax

from ...jaxpr.equations import Equation
from ...jaxpr.walk import At, Handler, bodies, walk


class _Choices(Handler):
    """Walks a program, and notes its layers and the policies of the checkpoints in it."""

    def __init__(self) -> None:
        self.layers: dict[str, None] = {}
        self.policies: dict[Callable, None] = {}

    def constant(self, value: Any) -> None:
        return None

    def equation(self, e: Equation, operands: list[Any], at: At) -> Sequence[Any]:
        parts = at.scope.split("/") if at.scope else []
        self.layers.update(("/".join(parts[: n + 1]), None) for n in range(len(parts)))
        policy = getattr(e.inside, "policy", None)
        if policy is not None:
            self.policies[policy] = None
        for body in bodies(e, operands, at):
            walk(body.jaxpr, body.values, self, body.at)
        return [None] * len(e.results)


class Choices(NamedTuple):
    """What there is in a program.

    Attributes:
        layers: The layers, and in each the layers inside, in the order they begin.
        policies: The policies of the checkpoints that are in it.
    """

    layers: tuple[str, ...]
    policies: tuple[Callable, ...]


def choices_of(closed: Any) -> Choices:
    """The layers of a program, and the policies in it."""
    found = _Choices()
    walk(closed, [None] * len(closed.in_avals), found)
    return Choices(tuple(found.layers), tuple(found.policies))


def patterns_of(layers: Iterable[str]) -> tuple[str, ...]:
    """Layers, those that are alike but for a number as one.

    >>> patterns_of(["block_0", "block_0/mlp", "block_1", "block_1/mlp", "head"])
    ('block_*', 'block_*/mlp', 'head')
    """
    return tuple(dict.fromkeys(re.sub(r"\d+", "*", layer) for layer in layers))


def matching(patterns: Sequence[str]) -> Callable[[str], str | None]:
    """From a scope to the layer in it that one of the patterns means, part by part; or None.

    >>> layer = matching(["block_*/mlp"])
    >>> layer("block_0/mlp/up"), layer("block_0/attention"), layer("block_0")
    ('block_0/mlp', None, None)
    """
    split = [pattern.strip("/").split("/") for pattern in patterns]

    def layer(scope: str) -> str | None:
        parts = scope.split("/")
        for pattern in split:
            pairs = zip(parts, pattern, strict=False)
            if len(parts) >= len(pattern) and all(fnmatch.fnmatchcase(x, p) for x, p in pairs):
                return "/".join(parts[: len(pattern)])
        return None

    return layer


def policies() -> dict[str, Callable]:
    """Each entry of `jax.checkpoint_policies` that is a policy, not a maker of policies.

    >>> "dots_saveable" in policies(), "save_only_these_names" in policies()
    (True, False)
    """
    entries = {name: getattr(jax.checkpoint_policies, name) for name in _names()}
    return {name: entry for name, entry in entries.items() if _is_policy(entry)}


def policy_name(policy: Callable | None) -> str:
    """What a policy is called; "nothing_saveable" if there is none.

    >>> policy_name(jax.checkpoint_policies.save_only_these_names("x"))
    'save_only_these_names'
    """
    if policy is None:
        return "nothing_saveable"
    known = [name for name, entry in policies().items() if entry is policy]
    named = getattr(policy, "__qualname__", "") or type(policy).__name__
    return min(known, key=len) if known else named.partition(".<locals>")[0]


def _names() -> list[str]:
    return [name for name in dir(jax.checkpoint_policies) if not name.startswith("_")]


def _is_policy(entry: Any) -> bool:
    """Whether it takes a primitive and all that its equation says, as every policy does."""
    kinds = {parameter.kind for parameter in inspect.signature(entry).parameters.values()}
    return inspect.Parameter.VAR_KEYWORD in kinds
