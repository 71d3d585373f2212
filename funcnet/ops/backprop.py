"""Backpropagation through a whole network, line by line as it is taught.

`L` weight matrices join layers 1..L+1. Layer l has s_l units, and `thetas[l - 1]`, Θ_l, is
s_{l+1} x (s_l + 1): its column 0 is the bias, which meets a unit that is always 1. Rows of every
array are examples.

    z_{l+1} = Θ_l a_l          a_{l+1} = g(z_{l+1})          forward, from a_1 = x
    δ_{L+1} = a_{L+1} - y      δ_l = g'(z_l) ∘ Θ_lᵀ δ_{l+1}  backward, the bias left out
    Δ_l = Σ δ_{l+1} a_lᵀ       D_l = Δ_l / n + λ Θ_l         over n examples, the bias without λ

`activations` gives every a, `deltas` every δ, and the gradient of `backprop_loss` is D.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.random import Generator

from ..jaxpr.jaxprs import is_traced
from ..rules.rule import Case, rule
from ..types import Array, require
from .shared.precision import wide

_HIDDEN = {
    "sigmoid": jax.nn.sigmoid,
    "relu": lambda z: jnp.where(z > 0, z, 0),
    "linear": lambda z: z,
}

# g'(z) as a function of a = g(z), so that no z is kept; a > 0 where z > 0.
_SLOPES = {
    "sigmoid": lambda a: a * (1 - a),
    "relu": lambda a: (a > 0).astype(a.dtype),
    "linear": jnp.ones_like,
}

_OUTPUTS = {"sigmoid": jax.nn.sigmoid, "softmax": jax.nn.softmax, "linear": lambda z: z}


def _binary_losses(z: Array, y: Array) -> Array:
    return -jnp.sum(y * jax.nn.log_sigmoid(z) + (1 - y) * jax.nn.log_sigmoid(-z), axis=1)


def _class_losses(z: Array, y: Array) -> Array:
    # -Σ y ln a for rows of y that sum to 1; this form has δ = a - y for any y.
    return jax.nn.logsumexp(z, axis=1) - jnp.sum(y * z, axis=1)


def _squared_losses(z: Array, y: Array) -> Array:
    return jnp.sum((z - y) ** 2, axis=1) / 2


# One loss for each output, paired so that dloss/dz is always a - y.
_LOSSES = {"sigmoid": _binary_losses, "softmax": _class_losses, "linear": _squared_losses}


def _check_network(op: str, thetas: Sequence[Array], x: Array, hidden: str, output: str) -> None:
    for name, chosen, known in (("hidden", hidden, _HIDDEN), ("output", output, _OUTPUTS)):
        require(
            chosen in known,
            op,
            f"{name} to be one of {', '.join(map(repr, known))}",
            repr(chosen),
            "For another network write it with layers and use jax.grad.",
        )
    require(
        isinstance(thetas, tuple | list) and thetas,
        op,
        "thetas to be a tuple of weight matrices",
        type(thetas).__name__ if not isinstance(thetas, tuple | list) else "an empty one",
        "A network with one layer of weights has the tuple (theta,).",
        TypeError,
    )
    require(
        jnp.ndim(x) == 2,
        op,
        "x of shape (examples, inputs)",
        f"shape {jnp.shape(x)}",
        "One example is a batch of one: x[None].",
    )
    dtype = jnp.result_type(x, *thetas)
    require(
        jnp.issubdtype(dtype, jnp.floating),
        op,
        "thetas and x of a floating dtype",
        f"{dtype}",
        "Convert them: x.astype(float).",
        TypeError,
    )
    units = x.shape[1]
    for layer, theta in enumerate(thetas, 1):
        require(
            jnp.ndim(theta) == 2 and theta.shape[1] == units + 1,
            op,
            f"theta {layer} with {units} + 1 columns, the first for the bias",
            f"shape {jnp.shape(theta)}",
            f"Layer {layer} has {units} units.",
        )
        units = theta.shape[0]


def _check_labels(op: str, thetas: Sequence[Array], x: Array, y: Array, output: str) -> None:
    shape = (x.shape[0], thetas[-1].shape[0])
    require(
        jnp.shape(y) == shape,
        op,
        f"y of shape {shape}, (examples, outputs)",
        f"shape {jnp.shape(y)}",
        "Turn classes into rows with jax.nn.one_hot, and a column into one with y[:, None].",
    )
    if is_traced(y) or not np.size(y):
        return
    rows = np.asarray(y, np.float64)
    require(
        output != "sigmoid" or (rows.min() >= 0 and rows.max() <= 1),
        op,
        "y from 0 to 1, as the output is a sigmoid",
        f"y from {rows.min():g} to {rows.max():g}",
        "Map labels -1 and 1 to 0 and 1, or choose output='linear'.",
    )
    sums = rows.sum(1)
    wrong = sums[np.abs(sums - 1).argmax()]
    require(
        output != "softmax" or abs(wrong - 1) < 0.01,
        op,
        "rows of y that sum to 1, as the output is a softmax",
        f"a row that sums to {wrong:g}",
        "For several classes at once choose output='sigmoid'.",
    )


def _fits(
    op: str, *, thetas: Sequence[Array], x: Array, y: Array, hidden: str, output: str, decay: float
) -> None:
    require(
        0 <= decay < float("inf"),
        op,
        "decay to be 0 or a positive number",
        decay,
        "It is the factor λ of the penalty.",
    )
    _check_network(op, thetas, x, hidden, output)
    _check_labels(op, thetas, x, y, output)


def _widened(*arrays: Any) -> list[Array]:
    """The arrays in the dtype they promote to, and at least float32."""
    return [jnp.asarray(array, wide(*arrays)) for array in arrays]


def _with_unit(a: Array) -> Array:
    """Each row with the bias unit, 1, in front."""
    return jnp.concatenate([jnp.ones((a.shape[0], 1), a.dtype), a], axis=1)


def _without_bias(theta: Array) -> Array:
    return theta.at[:, 0].set(0)


def _forward_pass(thetas: Sequence[Array], x: Array, hidden: str) -> tuple[list[Array], Array]:
    """a_1 .. a_L, and z_{L+1}."""
    a = [x]
    for theta in thetas[:-1]:
        z = _with_unit(a[-1]) @ theta.T
        a.append(_HIDDEN[hidden](z))
    return a, _with_unit(a[-1]) @ thetas[-1].T


def _backward_pass(
    thetas: Sequence[Array], a: Sequence[Array], y: Array, hidden: str
) -> list[Array]:
    """δ_2 .. δ_{L+1}."""
    delta = a[-1] - y
    found = [delta]
    for theta, a_l in zip(thetas[:0:-1], a[-2:0:-1], strict=True):
        delta = _SLOPES[hidden](a_l) * (delta @ theta[:, 1:])
        found.append(delta)
    return found[::-1]


def activations(
    thetas: Sequence[Array], x: Array, *, hidden: str = "sigmoid", output: str = "sigmoid"
) -> tuple[Array, ...]:
    """Forward propagation: a_1 = x, then z_{l+1} = Θ_l a_l and a_{l+1} = g(z_{l+1}).

    Args:
        thetas: Θ_1 .. Θ_L, each `(s_{l+1}, s_l + 1)` with the bias in column 0.
        x: Inputs, `(n, s_1)`.
        hidden: g of the hidden layers: "sigmoid", "relu" or "linear".
        output: g of the last layer: "sigmoid", "softmax" or "linear".

    Returns:
        a_1 .. a_{L+1}, `(n, s_l)` each, without the bias units; the last is the hypothesis h(x).

    Raises:
        TypeError: If `thetas` is not a tuple, or nothing is floating.
        ValueError: If the shapes do not fit or an option is unknown.

    >>> thetas = (jnp.zeros((3, 4)), jnp.zeros((1, 4)))
    >>> [a.shape for a in activations(thetas, jnp.ones((5, 3)))]
    [(5, 3), (5, 3), (5, 1)]
    """
    _check_network("activations", thetas, x, hidden, output)
    dtype = jnp.result_type(x, *thetas)
    x, *thetas = _widened(x, *thetas)
    a, z = _forward_pass(thetas, x, hidden)
    return tuple(a_l.astype(dtype) for a_l in (*a, _OUTPUTS[output](z)))


def deltas(
    thetas: Sequence[Array],
    x: Array,
    y: Array,
    *,
    hidden: str = "sigmoid",
    output: str = "sigmoid",
) -> tuple[Array, ...]:
    """δ_{L+1} = a_{L+1} - y, then δ_l = g'(z_l) ∘ Θ_lᵀ δ_{l+1}: backward, layer by layer.

    Args:
        thetas: Θ_1 .. Θ_L, each `(s_{l+1}, s_l + 1)` with the bias in column 0.
        x: Inputs, `(n, s_1)`.
        y: Labels, `(n, s_{L+1})`.
        hidden: g of the hidden layers: "sigmoid", "relu" or "linear".
        output: g of the last layer: "sigmoid", "softmax" or "linear".

    Returns:
        δ_2 .. δ_{L+1}, `(n, s_l)` each: row i is dloss_i/dz_l of example i, not divided by n. The
        inputs have none.

    Raises:
        TypeError: If `thetas` is not a tuple, or nothing is floating.
        ValueError: If the shapes do not fit, an option is unknown, or y does not suit the output.

    >>> thetas = (jnp.zeros((3, 4)), jnp.ones((1, 4)))
    >>> hidden, output = deltas(thetas, jnp.ones((1, 3)), jnp.array([[1.0]]), output="linear")
    >>> hidden.tolist(), output.tolist()  # a(1 - a) = 1/4 for each hidden unit
    ([[0.375, 0.375, 0.375]], [[1.5]])
    """
    _check_network("deltas", thetas, x, hidden, output)
    _check_labels("deltas", thetas, x, y, output)
    dtype = jnp.result_type(x, *thetas)
    x, *thetas = _widened(x, *thetas)
    a, z = _forward_pass(thetas, x, hidden)
    found = _backward_pass(thetas, [*a, _OUTPUTS[output](z)], y.astype(x.dtype), hidden)
    return tuple(delta.astype(dtype) for delta in found)


def _regularised(thetas: Sequence[Array], z: Array, y: Array, output: str, decay: float) -> Array:
    """Σ losses / n + λ/2 Σ Θ², the bias columns left out of the second sum."""
    penalty = sum(jnp.sum(theta[:, 1:] ** 2) for theta in thetas)
    return _LOSSES[output](z, y).sum() / max(y.shape[0], 1) + decay / 2 * penalty


def _backprop_forward(thetas, x, y, *, hidden, output, decay):
    wide_x, *wide = _widened(x, *thetas)
    a, z = _forward_pass(wide, wide_x, hidden)
    loss = _regularised(wide, z, y.astype(z.dtype), output, decay)
    return loss.astype(jnp.result_type(x, *thetas)), (thetas, x, a[1:], _OUTPUTS[output](z), y)


def _backprop_backward(res, dy, *, hidden, decay):
    """δ_{L+1} = a_{L+1} - y;  δ_l = g'(z_l) ∘ Θ_lᵀ δ_{l+1};  Δ_l = Σ δ_{l+1} a_lᵀ;
    dΘ_l = D_l dy with D_l = Δ_l / n + λ Θ_l, the bias column without λ;  dx = Θ_1ᵀ δ_2 dy / n
    """
    thetas, x, a_hidden, a_output, y = res
    x, *thetas = _widened(x, *thetas)
    n, a = max(x.shape[0], 1), [x, *a_hidden, a_output]
    delta = _backward_pass(thetas, a, y.astype(x.dtype), hidden)
    summed = [d.T @ _with_unit(a_l) for d, a_l in zip(delta, a, strict=False)]
    gradients = [s / n + decay * _without_bias(t) for s, t in zip(summed, thetas, strict=True)]
    dy = dy.astype(x.dtype)
    dx = delta[0] @ thetas[0][:, 1:] / n
    return tuple(gradient * dy for gradient in gradients), dx * dy, None


def _network(*sizes: int, n: int = 4) -> Callable[[Generator], tuple]:
    """A random network, not saturated; y is one-hot, so that it suits every output."""

    def make(random: Generator) -> tuple:
        joins = itertools.pairwise(sizes)
        thetas = tuple(random.standard_normal((to, of + 1)) / (of + 1) ** 0.5 for of, to in joins)
        x = random.standard_normal((n, sizes[0]))
        y = np.eye(sizes[-1])[random.integers(0, sizes[-1], n)]
        return thetas, x, y

    return make


@rule(
    _backprop_forward,
    _backprop_backward,
    nodiff=("y",),
    check=_fits,
    cases={
        "3-3-1": Case(_network(3, 3, 1)),
        "single node": Case(_network(3, 1)),
        "one against the rest": Case(_network(3, 5, 4), {"decay": 0.1}),
        "relu": Case(_network(3, 5, 4, 2), {"hidden": "relu"}),
        "softmax": Case(_network(3, 5, 4), {"hidden": "relu", "output": "softmax", "decay": 0.1}),
        "regression": Case(_network(3, 5, 2), {"hidden": "relu", "output": "linear"}),
        "linear": Case(_network(3, 4, 2), {"hidden": "linear", "output": "linear", "decay": 1.0}),
        "five layers": Case(_network(3, 4, 5, 4, 2), {"decay": 0.01}),
        "one example": Case(_network(3, 3, 1, n=1)),
        "no examples": Case(_network(3, 3, 1, n=0), {"decay": 0.1}),
    },
)
def backprop_loss(
    thetas: Sequence[Array],
    x: Array,
    y: Array,
    *,
    hidden: str = "sigmoid",
    output: str = "sigmoid",
    decay: float = 0.0,
) -> Array:
    """Σ loss_i / n + λ/2 Σ Θ², whose gradient is made by the algorithm that is taught.

    The penalty leaves out the bias columns and is not divided by n, so that the gradient is
    D = Δ/n + λ Θ exactly. The loss of an example goes with the output, so that δ = a - y:
    the binary cross-entropies summed over the outputs for "sigmoid" (one against the rest), the
    cross-entropy over classes for "softmax", and half the squared error for "linear". All are
    computed from z, so that none overflows.

    Args:
        thetas: Θ_1 .. Θ_L, each `(s_{l+1}, s_l + 1)` with the bias in column 0: a tuple.
        x: Inputs, `(n, s_1)`, which get a gradient too.
        y: Labels, `(n, s_{L+1})`, constants; rows sum to 1 for "softmax".
        hidden: g of the hidden layers: "sigmoid", "relu" (slope 0 at 0) or "linear".
        output: g of the last layer: "sigmoid", "softmax" or "linear".
        decay: λ.

    Returns:
        A scalar, in the dtype that thetas and x promote to; bfloat16 and float16 are computed in
        float32. With no example, the penalty alone.

    Raises:
        TypeError: If `thetas` is not a tuple, or nothing is floating.
        ValueError: If the shapes do not fit, an option is unknown, or y does not suit the output.

    >>> thetas = (jnp.zeros((3, 4)), jnp.zeros((1, 4)))
    >>> x, y = jnp.ones((2, 3)), jnp.array([[0.0], [1.0]])
    >>> loss, d = jax.value_and_grad(backprop_loss)(thetas, x, y)
    >>> print(f"{loss:.4f}", [theta.shape for theta in d])  # ln 2
    0.6931 [(3, 4), (1, 4)]

    Reference: Rumelhart, Hinton & Williams, "Learning representations by back-propagating
        errors", 1986, equations 4 to 7.
    """
    dtype = jnp.result_type(x, *thetas)
    x, *thetas = _widened(x, *thetas)
    _, z = _forward_pass(thetas, x, hidden)
    y = jax.lax.stop_gradient(jnp.asarray(y, z.dtype))
    return _regularised(thetas, z, y, output, decay).astype(dtype)
