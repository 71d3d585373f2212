"""Dropout: random zeros in training, nothing in use."""

from collections.abc import Callable, Sequence
from numbers import Real

from ..nn.layer import Layer, need_key
from ..ops.activations.dropout import dropout
from ..types import Array, Key, Params, State, require


def Dropout(drop: float, *, broadcast_dims: Sequence[int] = ()) -> Layer:
    """In training, each element is zero with probability `drop`, else divided by 1 - `drop`.

    Args:
        drop: Probability of a zero.
        broadcast_dims: Axes along which all elements share one draw: `(1, 2)` drops whole channels
            of images `(batch, height, width, channels)`.

    Returns:
        A layer named "dropout"; in training it needs a key.

    Raises:
        ValueError: If `drop` is not from 0 to below 1, or in training without a key.

    >>> import jax
    >>> x = jax.numpy.ones((2, 3))
    >>> y, _ = Dropout(0.5).apply({}, {}, x, train=True, key=jax.random.key(0))
    >>> set(y.ravel().tolist()) <= {0.0, 2.0}, bool((Dropout(0.5)({}, x) == x).all())
    (True, True)

    Reference: Srivastava et al., "Dropout", 2014, section 4.
    """
    return _dropping("dropout", drop, lambda x: broadcast_dims)


def DropPath(drop: float) -> Layer:
    """In training, each example is zero as a whole with probability `drop`, else over 1 - `drop`.

    Examples run along the first axis. At the end of a residual branch it leaves the example to
    the skip connection: stochastic depth.

    Args:
        drop: Probability that an example is dropped.

    Returns:
        A layer named "drop_path"; in training it needs a key.

    Raises:
        ValueError: If `drop` is not from 0 to below 1, or in training without a key.

    >>> import jax
    >>> x = jax.numpy.ones((8, 3))
    >>> y, _ = DropPath(0.5).apply({}, {}, x, train=True, key=jax.random.key(0))
    >>> sorted({tuple(row) for row in y.tolist()})
    [(0.0, 0.0, 0.0), (2.0, 2.0, 2.0)]

    Reference: Huang et al., "Deep Networks with Stochastic Depth", 2016, section 3, an example at
    a time and scaled in training.
    """
    return _dropping("drop_path", drop, lambda x: range(1, x.ndim))


def check_probability(where: str, name: str, value: float, what: str) -> None:
    """Raise unless `value` is a number from 0 to below 1, the probability of what `what` says."""
    require(
        isinstance(value, Real) and 0 <= value < 1,
        where,
        "a probability from 0 to below 1",
        f"{name}={value!r}",
        f"It is the probability of {what}.",
    )


def _dropping(name: str, drop: float, shared: Callable[[Array], Sequence[int]]) -> Layer:
    check_probability(name, "drop", drop, "a zero: 0.1 keeps nine of ten")

    def apply(
        params: Params, state: State, x: Array, *, train: bool = False, key: Key | None = None
    ) -> tuple[Array, State]:
        if not train or drop == 0:
            return x, state
        key = need_key(name, key)
        return dropout(x, key, drop=drop, broadcast_dims=tuple(shared(x))), state

    return Layer(lambda key, x: ({}, {}), apply, name)
