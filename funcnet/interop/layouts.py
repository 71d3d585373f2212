"""How PyTorch stores the parameters of one layer, beside how funcnet does.

A layout reads PyTorch's arrays into a layer's own leaves and writes them back. Which one a layer
has follows from the names and ranks of its leaves.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .. import tree
from ..jaxpr import jaxprs
from ..jaxpr.equations import Equation
from ..jaxpr.walk import At, Handler, bodies, walk
from ..nn.layer import Layer
from ..types import Params, State

Arrays = dict[str, np.ndarray]
Shape = tuple[int, ...]


class Layout(NamedTuple):
    """One way that PyTorch stores a layer.

    Attributes:
        entries: The name of each array in the module's state_dict, and its shape.
        read: PyTorch's arrays to the layer's leaves.
        write: The layer's leaves to PyTorch's arrays.
    """

    entries: dict[str, Shape]
    read: Callable[[Arrays], Arrays]
    write: Callable[[Arrays], Arrays]


def layouts(leaves: Mapping[str, Shape], flattened: Shape | None = None) -> tuple[Layout, ...]:
    """The ways that PyTorch may store a layer with these leaves, the usual one first.

    Args:
        leaves: The shape of each of the layer's parameters and of its state; for attention by path,
            and perhaps of some of its projections alone.
        flattened: What a dense layer's input was before it was flattened, `(*spatial, channels)`:
            PyTorch has the channels first, and its weights so in another order.

    >>> layouts({"w": (3, 4), "b": (4,)})[0].entries
    {'weight': (4, 3), 'bias': (4,)}
    """
    names = set(leaves)
    if {"q/w", "k/w", "v/w", "out/w"} <= names:
        joint = len({leaves[f"{part}/w"] for part in "qkv"}) == 1
        apart = _attention_apart(leaves)
        return (_attention_joint(leaves), apart) if joint else (apart,)
    if names & {"q/w", "k/w", "v/w", "out/w"}:
        return (_projections(leaves),)
    if {"w_in", "w_hidden"} <= names:
        return (_recurrent(leaves),)
    if "w" in names and len(leaves["w"]) > 2:
        return (_renamed(leaves, {"w": "weight", "b": "bias"}, {"w": _CONV}),)
    if "w" in names:
        return (_renamed(leaves, {"w": "weight", "b": "bias"}, {"w": _dense(flattened)}),)
    if names == {"b"}:
        return _renamed(leaves, {"b": "bias"}, {}), _renamed(leaves, {}, {})
    return (_renamed(leaves, _NAMES, {}),)


_NAMES = {
    "table": "weight",
    "scale": "weight",
    "slope": "weight",
    "shift": "bias",
    "mean": "running_mean",
    "var": "running_var",
    "a_log": "A_log",
    "d": "D",
}


def alone(leaves: Mapping[str, Shape], entry: str) -> Layout:
    """An array that is no layer's weight, but stands beside modules under a name of its own.

    It is what is added to a sequence, and so has that one's three axes, with 1 for the batch.

    >>> alone({"table": (5, 8)}, "pos_embed").entries
    {'pos_embed': (1, 5, 8)}
    """
    ((leaf, shape),) = leaves.items()
    theirs = (1,) * (3 - len(shape)) + shape
    return Layout(
        {entry: theirs},
        lambda arrays: {leaf: arrays[entry].reshape(shape)},
        lambda own: {entry: own[leaf].reshape(theirs)},
    )


def turned(layout: Layout) -> Layout:
    """The same with its weight as (inputs, outputs).

    >>> turned(layouts({"w": (3, 4)})[0]).entries
    {'weight': (3, 4)}
    """

    def change(arrays: Arrays) -> Arrays:
        return {name: x.T if name == "weight" else x for name, x in arrays.items()}

    entries = {n: s[::-1] if n == "weight" else s for n, s in layout.entries.items()}
    return Layout(
        entries, lambda arrays: layout.read(change(arrays)), lambda own: change(layout.write(own))
    )


def stacked_leaves(net: Layer, params: Params, state: State, inputs: tuple) -> set[str]:
    """The paths of the parameters that hold those of several layers, by what the net does to them.

    A rank alone does not tell: the weights of `n` dense layers look like a kernel of length `n`.
    """
    closed, _ = jaxprs.trace(lambda *args: net.apply(*args)[0], params, state, *inputs)
    paths = list(tree.flatten(params))
    handler = _Stacked()
    walk(closed, [*paths, *[None] * (len(closed.in_avals) - len(paths))], handler)
    return handler.found


class _Stacked(Handler):
    """Those of the parameters that a loop takes apart, or that have an axis too many; values are
    their paths, None for what is no parameter."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def constant(self, value: Any) -> None:
        return None

    def scan(self, e: Equation, operands: list[str | None], at: At) -> list[None]:
        self.found.update(filter(None, e.inside.groups(operands)[2]))
        for body in bodies(e, operands, at):
            walk(body.jaxpr, body.values, self, body.at)
        return [None] * len(e.results)

    def plain(self, e: Equation, operands: list[str | None], at: At) -> list[None]:
        if e.label in _KERNELS and operands[1]:
            avals: Any = [x.aval for x in e.operands]
            usual = 2 if e.label == "dense" else avals[0].ndim
            if avals[1].ndim > usual:
                self.found.add(operands[1])
        return [None] * len(e.results)


_KERNELS = ("dense", "conv", "conv_transpose")
"""The ops whose second argument is a weight, of the rank of the first; that of dense has 2."""


class _Turn(NamedTuple):
    """An array's way from PyTorch's axes to ours, and back."""

    read: Callable[[np.ndarray], np.ndarray]
    write: Callable[[np.ndarray], np.ndarray]


_CONV = _Turn(
    lambda w: np.moveaxis(w, (0, 1), (-1, -2)),
    lambda w: np.moveaxis(w, (-1, -2), (0, 1)),
)


def _dense(flattened: Shape | None) -> _Turn:
    *spatial, channels = flattened or (1,)

    def read(w: np.ndarray) -> np.ndarray:
        return np.moveaxis(w.reshape(len(w), channels, *spatial), 1, -1).reshape(len(w), -1).T

    def write(w: np.ndarray) -> np.ndarray:
        rows = w.T.reshape(w.shape[1], *spatial, channels)
        return np.moveaxis(rows, -1, 1).reshape(w.shape[1], -1)

    return _Turn(read, write) if flattened else _Turn(np.transpose, np.transpose)


def _renamed(
    leaves: Mapping[str, Shape], names: Mapping[str, str], turns: Mapping[str, _Turn]
) -> Layout:
    """Each leaf is one array, under another name and perhaps with its axes in another order."""

    def write(own: Arrays) -> Arrays:
        return {
            names.get(name, name): turns[name].write(own[name]) if name in turns else own[name]
            for name in (*names, *leaves)
            if name in own
        }

    def read(theirs: Arrays) -> Arrays:
        found = {name: theirs[names.get(name, name)] for name in leaves}
        return {name: turns[name].read(x) if name in turns else x for name, x in found.items()}

    return Layout(_shapes(write, leaves), read, write)


def is_gru_of_its_own(leaves: Mapping[str, Shape]) -> bool:
    """Whether these are the leaves of a GRU that resets the state before the product.

    PyTorch has none, and only the bias that such a one lacks tells them apart.

    >>> is_gru_of_its_own({"w_in": (3, 12), "w_hidden": (4, 12), "b": (12,)})
    True
    """
    if not {"w_hidden", "b"} <= set(leaves) or "b_hn" in leaves:
        return False
    rows, columns = leaves["w_hidden"][-2:]
    return "w_proj" not in leaves and columns == 3 * rows


def _recurrent(leaves: Mapping[str, Shape]) -> Layout:
    """PyTorch has two biases where one would do: theirs are added, ours goes with a zero."""
    turned = {"w_in": "weight_ih", "w_hidden": "weight_hh", "w_proj": "weight_hr"}
    turned = {name: entry for name, entry in turned.items() if name in leaves}
    biased, units = "b" in leaves, leaves["w_hidden"][0]

    def read(theirs: Arrays) -> Arrays:
        own = {name: theirs[entry].T for name, entry in turned.items()}
        if not biased:
            return own
        b, hidden = theirs["bias_ih"], theirs["bias_hh"]
        if "b_hn" in leaves:
            gates = np.concatenate([hidden[:-units], np.zeros_like(hidden[-units:])])
            return {**own, "b": b + gates, "b_hn": hidden[-units:]}
        return {**own, "b": b + hidden}

    def write(own: Arrays) -> Arrays:
        theirs = {entry: own[name].T for name, entry in turned.items()}
        if not biased:
            return theirs
        hidden = np.zeros_like(own["b"])
        if "b_hn" in leaves:
            hidden[-units:] = own["b_hn"]
        return {**theirs, "bias_ih": own["b"], "bias_hh": hidden}

    return Layout(_shapes(write, leaves), read, write)


def _rows(part: str, w: np.ndarray) -> np.ndarray:
    """A projection's weight as (outputs, inputs), the heads folded into one of them."""
    return (w.reshape(-1, w.shape[-1]) if part == "out" else w.reshape(len(w), -1)).T


def _projections(leaves: Mapping[str, Shape]) -> Layout:
    """One linear layer for some of the projections of an attention, their outputs side by side."""
    parts = [part for part in ("q", "k", "v", "out") if f"{part}/w" in leaves]
    biased = f"{parts[0]}/b" in leaves
    widths = [math.prod(leaves[f"{part}/w"][1 if part != "out" else 2 :]) for part in parts]

    def write(own: Arrays) -> Arrays:
        weight = np.concatenate([_rows(part, own[f"{part}/w"]) for part in parts])
        if not biased:
            return {"weight": weight}
        return {
            "weight": weight,
            "bias": np.concatenate([own[f"{part}/b"].reshape(-1) for part in parts]),
        }

    def read(theirs: Arrays) -> Arrays:
        own, ends = {}, np.cumsum(widths)[:-1]
        for part, rows in zip(parts, np.split(theirs["weight"], ends), strict=True):
            own[f"{part}/w"] = rows.T.reshape(leaves[f"{part}/w"])
        for part, b in zip(parts, np.split(theirs["bias"], ends) if biased else [], strict=biased):
            own[f"{part}/b"] = b.reshape(leaves[f"{part}/b"])
        return own

    return Layout(_shapes(write, leaves), read, write)


def _attention_apart(leaves: Mapping[str, Shape]) -> Layout:
    """A linear layer for each of q, k, v and the output, their heads folded into one axis."""
    theirs_of = {part: f"{part[0]}_proj" for part in ("q", "k", "v", "out")}

    def write(own: Arrays) -> Arrays:
        theirs = {}
        for part, name in theirs_of.items():
            theirs[f"{name}.weight"] = _rows(part, own[f"{part}/w"])
            if f"{part}/b" in own:
                theirs[f"{name}.bias"] = own[f"{part}/b"].reshape(-1)
        return theirs

    def read(theirs: Arrays) -> Arrays:
        own = {}
        for part, name in theirs_of.items():
            own[f"{part}/w"] = theirs[f"{name}.weight"].T.reshape(leaves[f"{part}/w"])
            if f"{part}/b" in leaves:
                own[f"{part}/b"] = theirs[f"{name}.bias"].reshape(leaves[f"{part}/b"])
        return own

    return Layout(_shapes(write, leaves), read, write)


def _attention_joint(leaves: Mapping[str, Shape]) -> Layout:
    """`torch.nn.MultiheadAttention`: the weights of q, k and v are one array."""
    apart = _attention_apart(leaves)

    def write(own: Arrays) -> Arrays:
        theirs = apart.write(own)
        return {
            f"{new}{kind}": array
            for kind in ("weight", "bias")
            if f"q_proj.{kind}" in theirs
            for new, array in (
                ("in_proj_", np.concatenate([theirs[f"{part}_proj.{kind}"] for part in "qkv"])),
                ("out_proj.", theirs[f"o_proj.{kind}"]),
            )
        }

    def read(theirs: Arrays) -> Arrays:
        parts = {}
        for name, array in theirs.items():
            if name.startswith("in_proj_"):
                kind = name.removeprefix("in_proj_")
                for part, piece in zip("qkv", np.split(array, 3), strict=True):
                    parts[f"{part}_proj.{kind}"] = piece
            else:
                parts[name.replace("out_proj", "o_proj")] = array
        return apart.read(parts)

    return Layout(_shapes(write, leaves), read, write)


def _shapes(write: Callable[[Arrays], Arrays], leaves: Mapping[str, Shape]) -> dict[str, Shape]:
    empty = {name: np.broadcast_to(np.float32(0), shape) for name, shape in leaves.items()}
    return {name: array.shape for name, array in write(empty).items()}
