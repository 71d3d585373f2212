"""Dropout: random zeros in training, nothing in use."""

from collections.abc import Sequence

from ..layer import Layer, need_key
from ..ops import dropout as dropout_ops
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

    require(
        0 <= drop < 1,
        "dropout",
        "a probability from 0 to below 1",
        f"drop={drop}",
        "It is the probability of a zero: 0.1 keeps nine of ten.",
    )

    def apply(
        params: Params, state: State, x: Array, *, train: bool = False, key: Key | None = None
    ) -> tuple[Array, State]:
        if not train or drop == 0:
            return x, state
        key = need_key("dropout", key)
        return dropout_ops.dropout(x, key, drop=drop, broadcast_dims=broadcast_dims), state

    return Layer(lambda key, x: ({}, {}), apply, "dropout")
