"""How an op's values and gradients are held against a function written another way."""

import jax
import jax.numpy as jnp
import numpy as np

TABLE: dict[str, list] = {}
"""Each other op, and the tests of its values; `values_of` fills it."""


def values_of(*ops):
    def enter(test):
        for op in ops:
            TABLE.setdefault(op.rule.name, []).append(test)
        return test

    return enter


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def ripple(shape):
    """A cotangent that differs from place to place."""
    return np.cos(np.arange(np.prod(shape, dtype=int), dtype=float)).reshape(shape)


def is_float(x):
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def computed(op, rows):
    """For each (args, static): the output, and the cotangents of the floating arguments."""

    @jax.jit
    def everything():
        return [one(*row) for row in rows]

    def one(args, static):
        places = [i for i, x in enumerate(args) if is_float(x)]

        def of_floats(*floats):
            filled = dict(zip(places, floats, strict=True))
            return op(*(filled.get(i, x) for i, x in enumerate(args)), **static)

        y, pull = jax.vjp(of_floats, *(jnp.asarray(args[i]) for i in places))
        return y, pull(jax.tree.map(lambda y: jnp.asarray(ripple(y.shape), y.dtype), y))

    return jax.tree.map(np.asarray, everything())


def slopes(f, x, step=1e-5):
    """The gradient of a scalar function by central differences."""
    gradient = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        ends = []
        for sign in (1, -1):
            moved = x.copy()
            moved[at] += sign * step
            ends.append(f(moved))
        gradient[at] = (ends[0] - ends[1]) / (2 * step)
    return gradient


def projected(outputs):
    """The sum of all outputs, each times its entry of `ripple`; those at -inf are constants."""
    leaves = outputs if isinstance(outputs, tuple) else (outputs,)
    return sum(np.where(np.isfinite(y), y, 0).ravel() @ ripple(y.shape).ravel() for y in leaves)


def assert_agrees(op, reference, rows):
    """Values equal those of a NumPy function, gradients its central differences."""
    for (args, static), (y, gradients) in zip(rows, computed(op, rows), strict=True):
        note = f"{op.rule.name} {static}"
        expected = reference(*args, **static)
        jax.tree.map(
            lambda a, b, note=note: np.testing.assert_allclose(a, b, 1e-12, 1e-12, err_msg=note),
            y,
            expected,
        )
        places = [i for i, x in enumerate(args) if is_float(x)]
        for i, gradient in zip(places, gradients, strict=True):

            def along(x, i=i, args=args, static=static):
                return projected(reference(*args[:i], x, *args[i + 1 :], **static))

            np.testing.assert_allclose(gradient, slopes(along, args[i]), 1e-6, 2e-6, err_msg=note)
