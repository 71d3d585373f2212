"""Writes images_torch.npz: outputs and gradients of PyTorch's pools and samplers, in float64.

Run by hand, with PyTorch installed, where this file stands; the tests read what it wrote:

    pip install torch==2.13.0 numpy
    python tests/data/make_images_torch.py

Inputs are not stored: `inputs` makes those of each row from its name, here and in the tests. Arrays
have channels last. Each row has `NAME/y`, and `NAME/0`, `NAME/1`: the gradients of the output
weighted by `ripple` with respect to its floating inputs. Rows of indices have `NAME/indices` too.
"""

import itertools
import math
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Row(NamedTuple):
    """One call: what is called, the shapes of its inputs, and its options as funcnet has them."""

    op: str
    shapes: tuple[tuple[int, ...], ...]
    options: dict[str, Any]


def ripple(shape: tuple[int, ...]) -> np.ndarray:
    """What an output is weighted with to make a scalar of it."""
    return np.cos(np.arange(math.prod(shape))).reshape(shape)


POOLS: dict[str, Row] = {
    f"max {name}": Row("max_pool_with_indices", (shape,), options)
    for name, shape, options in (
        ("line", (2, 9, 2), {"window": 3, "stride": 2, "padding": 1}),
        ("image", (2, 6, 4, 2), {"window": 2}),
        ("overlapping", (1, 7, 9, 2), {"window": 3, "stride": 2, "padding": 1}),
        ("wide", (1, 9, 9, 2), {"window": 5, "stride": 2, "padding": 2}),
        ("dilated", (1, 7, 6, 2), {"window": 2, "stride": (2, 1), "dilation": (3, 2)}),
        ("ceiled", (1, 6, 5, 2), {"window": 3, "stride": 2, "ceil_mode": True}),
        ("volume", (1, 4, 5, 4, 2), {"window": 2}),
    )
}
UNPOOLS: dict[str, Row] = {
    f"un{name}": Row("max_unpool", POOLS[name].shapes, POOLS[name].options)
    for name in ("max image", "max volume")
}
NORMS: dict[str, Row] = {
    f"norm {p} {len(shape) - 2}": Row("lp_pool", (shape,), {"window": window, "p": p, **more})
    for p, shape, window, more in (
        (1, (1, 5, 6, 2), 2, {"stride": 1}),
        (2, (2, 7, 2), 3, {"stride": 2}),
        (2, (1, 7, 6, 2), (3, 2), {}),
        (3, (1, 5, 6, 2), 2, {"stride": (2, 1)}),
        (2.5, (1, 5, 6, 2), 2, {}),
        (2, (1, 4, 5, 4, 2), 2, {}),
    )
}
IMAGE, VOLUME = ((2, 4, 5, 2), (2, 3, 4, 2)), ((1, 3, 2, 4, 2), (1, 2, 3, 2, 3))
SAMPLES: dict[str, Row] = {
    f"{mode} {padding} {corners} {len(shapes[0]) - 2}": Row(
        "grid_sample", shapes, {"mode": mode, "padding": padding, "align_corners": corners}
    )
    for mode, padding, corners, shapes in (
        *itertools.product(
            ("nearest", "bilinear", "bicubic"),
            ("zeros", "border", "reflection"),
            (False, True),
            (IMAGE,),
        ),
        ("nearest", "zeros", False, VOLUME),
        ("bilinear", "border", False, VOLUME),
        ("bilinear", "reflection", True, VOLUME),
    )
}
GRIDS: dict[str, Row] = {
    f"affine {axes} {corners}": Row(
        "affine_grid",
        ((2, axes, axes + 1),),
        {"shape": (3, 4, 2)[:axes], "align_corners": corners},
    )
    for axes, corners in itertools.product((2, 3), (False, True))
}
ROWS = POOLS | UNPOOLS | NORMS | SAMPLES | GRIDS


def inputs(name: str) -> list[np.ndarray]:
    """The floating inputs of a row: whole numbers to pool, magnitudes for odd or broken norms."""
    row, random = ROWS[name], np.random.default_rng(zlib.crc32(name.encode()))
    if row.op == "max_pool_with_indices":
        return [random.integers(0, 3, row.shapes[0]).astype(float)]
    if row.op == "max_unpool":
        return [random.normal(size=row.shapes[0])]
    if row.op == "grid_sample":
        image, points = row.shapes
        return [random.normal(size=image), random.uniform(-2.5, 2.5, points)]
    drawn = random.normal(size=row.shapes[0])
    return [drawn if row.options.get("p", 2) == 2 else abs(drawn)]


def record(name: str, row: Row) -> dict[str, np.ndarray]:
    """The arrays of one row."""
    import torch
    from torch.nn import functional

    def first(x):
        return x.movedim(-1, 1)

    def last(x):
        return x.movedim(1, -1)

    given = [torch.tensor(x, requires_grad=True) for x in inputs(name)]
    x, options, extra = given[0], dict(row.options), {}
    axes = x.ndim - 2
    if row.op == "lp_pool":
        run = getattr(functional, f"lp_pool{axes}d")
        y = last(run(first(x), options["p"], options["window"], options.get("stride")))
    elif row.op == "grid_sample":
        options["padding_mode"] = options.pop("padding")
        y = last(functional.grid_sample(first(x), given[1], **options))
    elif row.op == "affine_grid":
        size = (len(x), 1, *options["shape"])
        y = functional.affine_grid(x, size, options["align_corners"])
    else:
        options["kernel_size"] = options.pop("window")
        pool = getattr(functional, f"max_pool{axes}d")
        y, indices = pool(first(x), return_indices=True, **options)
        if row.op == "max_unpool":
            unpool = getattr(functional, f"max_unpool{axes}d")
            y = unpool(y, indices, options["kernel_size"], output_size=first(x).shape)
        y, extra = last(y), {f"{name}/indices": last(indices).numpy()}
    gradients = torch.autograd.grad(y, given, torch.from_numpy(ripple(tuple(y.shape))))
    numbered = {f"{name}/{i}": gradient.numpy() for i, gradient in enumerate(gradients)}
    return {f"{name}/y": y.detach().numpy(), **numbered, **extra}


def main() -> None:
    """Write everything beside this file."""
    arrays: dict[str, np.ndarray] = {}
    for name, row in ROWS.items():
        arrays |= record(name, row)
    path = Path(__file__).with_name("images_torch.npz")
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
