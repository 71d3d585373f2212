"""How an update is called: compiled, its traces counted, its state given away, or many at once."""

from collections.abc import Callable
from typing import Any

import jax

from ..types import require
from .micro import check_count, size_of


class Update:
    """An update compiled, which gives the state it gets away.

    Args:
        update: `(state, batch) -> (state, values)`.
        max_traces: How often it may be traced; None for any number.

    Attributes:
        traced: The update that is compiled.
        lower: As of `jax.jit`.
        trace: As of `jax.jit`.

    Raises:
        ValueError: When called, if the state was given away before, or at one trace too many.

    >>> import jax.numpy as jnp
    >>> step = Update(lambda state, batch: (state + batch, {}))
    >>> step(jnp.zeros(()), jnp.ones(()))[0].item()
    1.0
    """

    def __init__(self, update: Callable, max_traces: int | None = None) -> None:
        self.traced: Callable = Traces(update, max_traces) if max_traces else update
        self.compiled: Any = jax.jit(self.traced, donate_argnums=0)
        self.lower, self.trace = self.compiled.lower, self.compiled.trace

    def __call__(self, state: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        """Take a step."""
        try:
            return self.compiled(state, batch)
        except (RuntimeError, ValueError):
            _refuse_deleted(state)
            raise

    def _cache_size(self) -> int:
        return self.compiled._cache_size()


def _refuse_deleted(state: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        require(
            not (isinstance(leaf, jax.Array) and leaf.is_deleted()),
            "step.update",
            "a state that was not given to it before",
            f"one whose {jax.tree_util.keystr(path)} is gone",
            "Go on with the state that it returned; copy what is to be kept before: "
            "jax.tree.map(jnp.copy, state).",
        )


def limited(update: Update, max_traces: int | None) -> Update:
    """The same update, which may be traced so often.

    Raises:
        ValueError: If that is no whole number of 1 or more, nor None.

    >>> limited(Update(lambda state, batch: (state, {})), 2).traced.most
    2
    """
    if max_traces is None:
        return update
    return Update(update.traced, check_count("max_traces", max_traces))


class Traces:
    """An update that may be traced so often, and then says why it was traced again.

    Args:
        update: `(state, batch) -> (state, values)`.
        most: How often.

    Raises:
        ValueError: When called, at one trace too many: what differs from the trace before.
    """

    def __init__(self, update: Callable, most: int) -> None:
        self.update, self.most = update, most
        self.known: list[dict[str, str]] = []

    def __call__(self, state: Any, batch: Any) -> tuple[Any, dict[str, Any]]:
        """Take a step, as it is traced."""
        leaves = jax.tree_util.tree_leaves_with_path((state, batch))
        types = {_named(path): _type(leaf) for path, leaf in leaves}
        if types not in self.known:
            if len(self.known) >= self.most:
                _tell(self.known[-1], types, self.most)
            self.known.append(types)
        return self.update(state, batch)


def _type(leaf: Any) -> str:
    kind = jax.typeof(leaf)
    weak = " (a number of Python's)" if getattr(kind, "weak_type", False) else ""
    return f"{kind.str_short()}{weak}"


def _named(path: tuple) -> str:
    first = ("state", "batch")[path[0].idx]
    return first + jax.tree_util.keystr(path[1:])


def _tell(before: dict[str, str], now: dict[str, str], most: int) -> None:
    names = [name for name in before | now if before.get(name) != now.get(name)]
    first = names[0] if names else "nothing"
    more = f", and {len(names) - 1} more" if len(names) > 1 else ""
    kinds = [kinds.get(first, "absent") for kinds in (now, before)]
    require(
        False,
        "step.update",
        f"{most} {'trace' if most == 1 else 'traces'} at most, as max_traces says",
        f"one more, for {first} of {kinds[0]} after {kinds[1]}{more}",
        "Give all batches one shape and dtype, or raise max_traces.",
    )


def repeated(update: Callable, steps: int) -> Callable:
    """An update of `steps` steps in one call: batches and values have one more axis in front.

    Raises:
        ValueError: When called, if the batches are not so many.

    >>> import jax.numpy as jnp
    >>> update = repeated(lambda state, batch: (state + batch, {"loss": state}), 2)
    >>> state, values = update(jnp.zeros(()), jnp.array([1.0, 2.0]))
    >>> state.item(), values["loss"].tolist()
    (3.0, [0.0, 1.0])
    """

    def many(state: Any, batches: Any) -> tuple[Any, dict[str, Any]]:
        found = size_of(batches)
        require(
            found == steps,
            "make_step",
            f"{steps} batches in one, along a new first axis, as steps_per_call says",
            f"a first axis of {found}",
            "Stack them: jax.tree.map(lambda *x: np.stack(x), *batches).",
        )
        return jax.lax.scan(update, state, batches)

    return many
