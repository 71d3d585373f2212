"""What the arguments of norms have to be."""

from collections.abc import Callable, Sequence

import jax.numpy as jnp

from ...types import Array, is_whole, require
from ..shared.masks import broadcasts
from ..shared.precision import floating, on_axes


def channels(least: int, *vectors: str) -> Callable[..., None]:
    """A check: x is floating, of rank `least` or more, and each vector has its channels."""

    def _have_channels(op: str, *, x: Array, **given: Array | None) -> None:
        floating(op, x)
        require(
            jnp.ndim(x) >= least,
            op,
            f"x of rank {least} or more (..., channels)",
            f"shape {jnp.shape(x)}",
            "Add the missing axes: x[None].",
        )
        for name in vectors:
            vector, width = given[name], jnp.shape(x)[-1:]
            require(
                vector is None or jnp.shape(vector) == width,
                op,
                f"{name} of shape {width}, one for each channel of x",
                f"shape {vector is not None and jnp.shape(vector)}",
                "The channels are the last axis of x.",
            )

    return _have_channels


def counted_channels(least: int) -> Callable[..., None]:
    """A check: x has channels, scale and shift have as many, and a mask broadcasts to x."""
    have_channels = channels(least, "scale", "shift")

    def _are_counted(op: str, *, x: Array, where: Array | None, **given: Array | None) -> None:
        have_channels(op, x=x, **given)
        broadcasts(op, x, where)

    return _are_counted


def in_groups(
    op: str,
    *,
    x: Array,
    scale: Array | None,
    shift: Array | None,
    where: Array | None,
    groups: int,
) -> None:
    """Raise unless x has channels that so many groups divide, and the mask fits."""
    counted_channels(2)(op, x=x, scale=scale, shift=shift, where=where)
    width = x.shape[-1]
    require(
        is_whole(groups) and width % groups == 0,
        op,
        f"a number of groups that divides {width}, the number of channels of x",
        f"groups={groups!r}",
        "Choose a divisor of the number of channels.",
    )


def along_axis(op: str, *, x: Array, axis: int | Sequence[int]) -> None:
    """Raise unless x is floating and has these axes."""
    floating(op, x)
    on_axes(op, x, axis, "The axis is the one whose entries are taken together.")


def counted_along_axis(
    op: str, *, x: Array, where: Array | None, axis: int | Sequence[int]
) -> None:
    """Raise unless x is floating and has these axes, and the mask broadcasts to it."""
    along_axis(op, x=x, axis=axis)
    broadcasts(op, x, where)


def neighbours(op: str, *, x: Array, size: int, k: float) -> None:
    """Raise unless x has channels, and the sum over those beside one is divided by something."""
    channels(1)(op, x=x)
    require(
        is_whole(size) and k > 0,
        op,
        "a size of 1 or more, and k above 0",
        f"size={size!r} and k={k!r}",
        "Krizhevsky et al. have size=5 and k=2.",
    )
