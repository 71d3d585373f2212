"""The one table of ops, layers and networks that drives the tests.

The ops' cases stand beside the ops and are gathered here; each layer and network has a row below.
"""

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import pytest

import funcnet as fn

from .forms import LayerCase, image

TOPICS = [
    importlib.import_module(f".{path.stem}", __package__)
    for path in sorted(Path(__file__).parent.glob("rows_*.py"))
]
"""Rows that stand in files of their own: `LAYERS`, and the messages `OPS` and `OTHERS`."""


class OpCase(NamedTuple):
    rule: Any
    name: str
    case: Any


RULES = [rule for rule in fn.RULES.values() if rule.primal.__module__.startswith("funcnet.")]
"""The ops of the package; a test may have added its own to the registry."""


def _op_cases(usual: int, names=frozenset(rule.name for rule in RULES)) -> list:
    """A row for every case of every op; the usual form has so many, of the ops of these names."""
    slow, long = pytest.mark.slow, pytest.mark.long
    return [
        pytest.param(
            OpCase(rule, name, case),
            id=f"{rule.name}-{name}",
            marks=[slow] * (i > 0) + [long] * (i >= usual or rule.name not in names),
        )
        for rule in RULES
        for i, (name, case) in enumerate(rule.cases.items())
    ]


OPS = _op_cases(usual=1)
"""To be compiled, lowered, and proved in coarser dtypes; in float64 the usual form proves two."""
FEW = {"attention", "batch_norm", "conv", "cross_entropy", "dense", "dropout", "einsum", "gelu"}
FEW |= {"huber", "layer_norm", "max_pool", "rotary", "softmax", "swiglu"}
TRANSFORMED = _op_cases(usual=1, names=FEW)
"""To be transformed, which takes long to compile: of each chapter, some in the usual form."""

ROWS, IMAGES, IDS = image(5, 6), image(2, 8, 8, 3), jnp.array([[1, 4, 0], [2, 2, 3]])

# Every layer, combinator and network.
LAYERS: dict[str, LayerCase] = {
    "dense": LayerCase(fn.Dense(4), (ROWS,)),
    "dense without bias": LayerCase(fn.Dense(4, bias=False), (ROWS,)),
    "embed": LayerCase(fn.Embed(5, 3), (IDS,)),
    "conv": LayerCase(fn.Conv(4, (3, 3), padding="SAME", stride=2), (IMAGES,)),
    "conv in groups": LayerCase(fn.Conv(6, (3, 3), groups=3, bias=False), (IMAGES,)),
    "conv 1-d, causal": LayerCase(fn.Conv(4, (3,), padding="CAUSAL"), (image(2, 9, 3),)),
    "max pool": LayerCase(fn.MaxPool(2), (IMAGES,)),
    "avg pool": LayerCase(fn.AvgPool(3, 2, padding="SAME"), (IMAGES,)),
    "adaptive pool": LayerCase(fn.AdaptivePool((3, 2)), (IMAGES,)),
    "global average": LayerCase(fn.GlobalPool(), (IMAGES,)),
    "global maximum": LayerCase(fn.GlobalPool("max"), (IMAGES,)),
    "flatten": LayerCase(fn.Flatten(), (IMAGES,)),
    "batch norm": LayerCase(fn.BatchNorm(), (IMAGES,)),
    "dropout": LayerCase(fn.Dropout(0.3), (ROWS,), needs_key=True),
    "serial": LayerCase(fn.serial(fn.Dense(4), fn.relu, fn.Dense(4), head=fn.Dense(2)), (ROWS,)),
    "parallel": LayerCase(fn.parallel(fn.Dense(2), fn.Dense(3)), (ROWS,)),
    "residual": LayerCase(fn.residual(fn.serial(fn.Dense(6), fn.tanh)), (ROWS,)),
    "repeat": LayerCase(fn.repeat(fn.serial(fn.BatchNorm(), fn.Dense(6)), 3), (ROWS,)),
    "ensemble": LayerCase(fn.ensemble(fn.serial(fn.Dense(3), fn.BatchNorm()), 4), (ROWS,)),
    "remat": LayerCase(fn.remat(fn.serial(fn.Dense(6), fn.BatchNorm(), fn.tanh)), (ROWS,)),
    "repeat with dropout": LayerCase(
        fn.repeat(fn.serial(fn.Dense(6), fn.Dropout(0.5)), 2), (ROWS,), needs_key=True
    ),
    "mlp": LayerCase(fn.nets.MLP((8, 8, 3), drop=0.1), (ROWS,), needs_key=True),
    "lenet": LayerCase(fn.nets.LeNet(10), (image(2, 32, 32, 1),)),
}
for topic in TOPICS:
    LAYERS |= topic.LAYERS
