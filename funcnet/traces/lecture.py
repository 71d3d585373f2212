"""The example of the lecture: `funcnet trace` without arguments shows it."""

import jax.numpy as jnp

from ..types import Array
from .trace import Trace, trace


def lecture(x1: Array, x2: Array) -> Array:
    """ln x1 + x1 x2 - sin x2, a step to a line.

    Reference: Baydin et al., "Automatic Differentiation in Machine Learning: a Survey", 2018,
    tables 2 and 3.
    """
    v1 = jnp.log(x1)
    v2 = x1 * x2
    v3 = jnp.sin(x2)
    v4 = v1 + v2
    y = v4 - v3
    return y


def example() -> Trace:
    """The three traces of `lecture` at (2, 5), moving in the direction of x1.

    >>> [c.total.text for c in example()["x2"].contributions]
    ['-0.28366', '1.7163']
    """
    return trace(lecture, tangents=(1.0, 0.0))(2.0, 5.0)
