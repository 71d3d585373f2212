"""What the libraries on JAX share: a loss becomes a compiled training step of optax."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ..models import Built, Task, optimizer

Loss = Callable[[Any, Any, jax.Array, jax.Array], tuple[jax.Array, Any]]
"""`(params, state, x, labels) -> (loss, state)`."""


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean over all places, in float32 at least."""
    wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return optax.softmax_cross_entropy_with_integer_labels(wide, labels).mean()


def narrow(tree: Any, dtype: str) -> Any:
    """Its floating arrays in that dtype, unless that is float32, which they have."""
    if dtype == "float32":
        return tree
    floats = lambda x: jnp.issubdtype(x.dtype, jnp.floating)  # noqa: E731
    return jax.tree.map(lambda x: x.astype(dtype) if floats(x) else x, tree)


def built(task: Task, loss: Loss, params: Any, state: Any, named: Callable) -> Built:
    """The step of a loss; `named` gives a tree of gradients the task's names."""
    transform = optimizer(task.model)

    def narrowed(params: Any, state: Any, x: jax.Array, labels: jax.Array) -> tuple:
        return loss(narrow(params, task.dtype), state, narrow(x, task.dtype), labels)

    def step(carry: tuple, batch: tuple) -> tuple:
        params, state, opt_state = carry
        (value, state), grads = jax.value_and_grad(narrowed, has_aux=True)(params, state, *batch)
        updates, opt_state = transform.update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), state, opt_state), value

    def gradients() -> dict[str, np.ndarray]:
        found = jax.jit(jax.grad(narrowed, has_aux=True))(params, state, *task.batch)[0]
        return named(jax.device_get(found))

    carry = params, state, transform.init(params)
    return stepping(jax.jit(step, donate_argnums=0), carry, task.batch, params, gradients)


def stepping(
    step: Callable, carry: Any, batch: Any, params: Any, gradients: Callable, calls: int = 1
) -> Built:
    """A compiled `(carry, batch) -> (carry, value)` that takes `calls` steps, called in a row."""
    now = jax.tree.map(jnp.copy, carry)
    batch = jax.device_put(batch)

    def run(count: int) -> float:
        nonlocal now
        value = None
        for _ in range(0, count, calls):
            now, value = step(now, batch)
        value = jax.block_until_ready((now, value))[1]
        loss = value["loss"] if isinstance(value, dict) else value
        return float(np.ravel(loss)[-1])

    return Built(
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        gradients=gradients,
        run=run,
        calls=calls,
        lowered=lambda: step.lower(now, batch),
        traces=lambda: step._cache_size(),
    )
