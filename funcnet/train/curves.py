"""The curves of a run: its figures over the epochs, and its layers over the steps."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..render import picture
from ..verdicts.health.table import outermost

PACE, RATE = "examples_per_second", "learning_rate"
COUNTERS = ("epoch", "step", "seconds", PACE, "skipped", RATE)
"""The columns of a history that say how training went, not how well."""
VALIDATION = "val_"
SEEN = {"adjoint": "norm of the adjoint", "update": "update over weights"}
"""The figures of a network that are drawn, and what stands above them."""
TRAIN_COLOR, VALIDATION_COLOR, OTHER_COLOR = "#1f6fb4", "#d9601a", "#4d7c5a"
ACROSS = 3
"""How many panels stand side by side."""

Rows = Sequence[Mapping[str, Any]]


def draw(rows: Rows, health: Rows, path: str | Path) -> None:
    """A panel for each figure, training and validation together, with the gap between them shaded;
    the learning rate and the pace where they are known; and the layers, if they were looked at.
    """
    names = figures_in(rows)
    sides = [name for name in (RATE, PACE) if len(_finite(rows, name)) > 1]
    kinds = [kind for kind in SEEN if any(kind in seen["figures"] for seen in health)]
    count = len(names) + len(sides) + len(kinds)
    across = min(count, ACROSS)
    down = -(-count // across)
    figure = picture.figure("History.plot", 4.8 * across, 3.5 * down)
    panels = list(figure.subplots(down, across, squeeze=False).flat)
    for panel in panels[count:]:
        panel.set_axis_off()
    for name in names:
        figure_panel(panels.pop(0), rows, name)
    for name in sides:
        _side_panel(panels.pop(0), rows, name)
    for kind in kinds:
        _layers_panel(panels.pop(0), health, kind)
    picture.save("History.plot", figure, path)


def figures_in(rows: Rows) -> list[str]:
    """The figures that the rows hold, without those of validation and what merely counts.

    >>> figures_in([{"epoch": 1, "loss": 1.0, "val_loss": 2.0}])
    ['loss']
    """
    names = (name.removeprefix(VALIDATION) for row in rows for name in row)
    return list(dict.fromkeys(name for name in names if name not in COUNTERS))


def column(rows: Rows, name: str) -> list[float]:
    """One figure over the epochs, NaN where an epoch has none.

    >>> column([{"loss": 1.0}, {}], "loss")
    [1.0, nan]
    """
    return [row.get(name, math.nan) for row in rows]


def _finite(rows: Rows, name: str) -> list[float]:
    return [value for value in column(rows, name) if math.isfinite(value)]


def figure_panel(panel: Any, rows: Rows, name: str) -> None:
    """A figure over the epochs: training, validation, and how far they are apart at the end."""
    epochs = column(rows, "epoch")
    marker = "o" if len(epochs) <= 30 else None
    curves = (("train", name, TRAIN_COLOR), ("validation", VALIDATION + name, VALIDATION_COLOR))
    drawn: list[float] = []
    for label, key, color in curves:
        if finite := _finite(rows, key):
            text = f"{label}, last {finite[-1]:.3g}"
            values = column(rows, key)
            panel.plot(epochs, values, color=color, label=text, marker=marker, markersize=3.5)
            drawn += finite
    if name == "loss" and drawn and min(drawn) > 0 and max(drawn) > 20 * min(drawn):
        panel.set_yscale("log")
        panel.yaxis.set_major_formatter("{x:g}")
    _gap(panel, epochs, *(column(rows, key) for _, key, _ in curves))
    _over_epochs(panel, epochs, name.replace("_", " "))
    if drawn:
        panel.legend(frameon=False)


def _gap(panel: Any, epochs: list[float], train: list[float], held: list[float]) -> None:
    """Shade what lies between training and validation."""
    both = [math.isfinite(a) and math.isfinite(b) for a, b in zip(train, held, strict=True)]
    if sum(both) < 2:
        return
    last = max(i for i, there in enumerate(both) if there)
    gap = abs(held[last] - train[last])
    panel.fill_between(
        epochs, train, held, where=both, color=VALIDATION_COLOR, alpha=0.12, linewidth=0,
        label=f"gap, last {gap:.2g}",
    )  # fmt: skip


def _side_panel(panel: Any, rows: Rows, name: str) -> None:
    """How the run went: one line over the epochs."""
    epochs = column(rows, "epoch")
    panel.plot(epochs, column(rows, name), color=OTHER_COLOR, linewidth=1.5)
    panel.set_ylim(bottom=0)
    if name == PACE:
        panel.yaxis.set_major_formatter("{x:,.0f}")
    title = "examples per second" if name == PACE else name.replace("_", " ")
    _over_epochs(panel, epochs, title)


def _over_epochs(panel: Any, epochs: list[float], title: str) -> None:
    panel.set_xlabel("epoch")
    panel.set_xlim(min(epochs) - 0.5, max(epochs) + 0.5)
    panel.xaxis.get_major_locator().set_params(integer=True)
    _calm(panel, title)


def _layers_panel(panel: Any, health: Rows, kind: str) -> None:
    """A figure of the network over the steps, a line a layer from the first to the last."""
    figures = [seen["figures"].get(kind, {}) for seen in health]
    layers = outermost(dict.fromkeys(layer for found in figures for layer in found))
    steps = [seen["step"] for seen in health]
    for layer, shade in zip(layers, picture.shades(len(layers)), strict=True):
        ends = layer in (layers[0], layers[-1])
        values = [found.get(layer) or math.nan for found in figures]
        panel.plot(steps, values, color=shade, label=layer if ends else None, linewidth=1.2)
    panel.set_yscale("log")
    panel.set_xlabel("step")
    _calm(panel, SEEN[kind])
    if layers:
        panel.legend(frameon=False)


def _calm(panel: Any, title: str) -> None:
    panel.set_title(title, fontsize=12)
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
