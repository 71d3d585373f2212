"""What the arguments have to be of ops that read images at points."""

from typing import Any

import jax.numpy as jnp

from ...types import Array, require
from ..shared.precision import floating
from ..shared.windows import SPATIAL
from .checks import images, number_per_axis

SAMPLING = ("nearest", "bilinear", "bicubic")
BEYOND = ("zeros", "border", "reflection")


def points_in_images(
    op: str, *, x: Array, grid: Array, mode: str, padding: str, align_corners: bool
) -> None:
    """Raise unless x is images, and the grid points with one number for each spatial axis."""
    images(op, x)
    floating(op, grid, "grid")
    axes = jnp.ndim(x) - 2
    require(
        jnp.ndim(grid) >= 2 and grid.shape[0] == x.shape[0] and grid.shape[-1] == axes,
        op,
        f"a grid of shape ({x.shape[0]}, *points, {axes}), as x has shape {x.shape}",
        f"shape {jnp.shape(grid)}",
        "Each point has one number for each spatial axis of x, that along its width first.",
    )
    require(
        mode in SAMPLING,
        op,
        f"a mode among {', '.join(SAMPLING)}",
        repr(mode),
        "PyTorch's trilinear is bilinear too: the number of axes is that of x.",
    )
    require(
        padding in BEYOND,
        op,
        f"padding among {', '.join(BEYOND)}",
        repr(padding),
        "It says what is read beyond the pixels at the border.",
    )


def affine_maps(op: str, *, theta: Array, shape: Any, align_corners: bool) -> None:
    """Raise unless theta is affine maps of one to three axes, and the shape that of images."""
    floating(op, theta, "theta")
    size = jnp.shape(theta)
    require(
        len(size) == 3 and size[1] in SPATIAL and size[2] == size[1] + 1,
        op,
        "theta of shape (batch, axes, axes + 1), with one to three axes",
        f"shape {size}",
        "A row holds the factors of the coordinates, that of the width first, and what is added.",
    )
    number_per_axis(op, "shape", shape, size[1])
