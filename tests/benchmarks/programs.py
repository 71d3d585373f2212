"""What is known of a compiled training step without taking its time."""

import re
from typing import NamedTuple

import jax

from funcnet.train.step import CPU_OPTIONS

from . import models
from .peers import funcnet, plain

OPERATION = re.compile(r"\bstablehlo\.\w+")
PRODUCT = re.compile(
    r"stablehlo\.(?:dot_general|convolution)\b.* : "
    r"\(tensor<(?:\d+x)*(\w+)>, tensor<(?:\d+x){2,}(\w+)>\)"
)
"""Not those with a vector: sums of rows are such on the CPU, in float32."""
PEERS = {"plain": plain, "funcnet": funcnet}


class Program(NamedTuple):
    """One step.

    Attributes:
        operations: Of StableHLO, each loop's once.
        products: By the widest dtype of their operands.
        temporary: Bytes besides arguments and results, of `step.update`.
        in_fit: The same with the options of the compiler with which `fit` compiles it.
        compiles: How often it is compiled in three steps.
    """

    operations: int
    products: dict[str, int]
    temporary: int
    in_fit: int
    compiles: int


def program(model: str, peer: str = "funcnet", dtype: str = "float32") -> Program:
    """The step of a network, compiled and taken three times."""
    built = PEERS[peer].build(models.task(model, dtype))
    assert built.lowered is not None
    assert built.traces is not None
    lowered = built.lowered()
    text = lowered.as_text()
    sizes = [
        lowered.compile(compiler_options=options).memory_analysis().temp_size_in_bytes
        for options in (None, CPU_OPTIONS if jax.default_backend() == "cpu" else None)
    ]
    for _ in range(3):
        built.run(1)
    return Program(len(OPERATION.findall(text)), products(text), *sizes, built.traces())


def products(text: str) -> dict[str, int]:
    """How many products and convolutions a program has, by the widest dtype of their operands."""
    found: dict[str, int] = {}
    for kinds in PRODUCT.findall(text):
        widest = max(kinds, key=lambda kind: int(re.sub(r"\D", "", kind)))
        found[widest] = found.get(widest, 0) + 1
    return found


def lowered_products(model: str, dtype: str) -> dict[str, int]:
    """Those of a step of funcnet, without compiling it."""
    built = funcnet.build(models.task(model, dtype))
    assert built.lowered is not None
    return products(built.lowered().as_text())
