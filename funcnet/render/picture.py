"""Figures of matplotlib, made and saved."""

import io
from pathlib import Path
from typing import Any

from ..disk import write_whole
from ..types import require


def figure(where: str, width: float, height: float) -> Any:
    """An empty figure of this size in inches; `ImportError` names the extra to install."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        require(
            False,
            where,
            "the package matplotlib, which draws pictures",
            "none",
            "Run `pip install 'funcnet[train]'`.",
            ImportError,
        )
        raise
    return Figure(figsize=(width, height), layout="constrained")


def shades(count: int) -> list[Any]:
    """So many colours in an order that can be seen, from dark to light."""
    from matplotlib import colormaps

    scale: Any = colormaps["viridis"]
    return [scale(0.9 * i / max(count - 1, 1)) for i in range(count)]


def save(where: str, figure: Any, path: str | Path) -> None:
    """Write a figure; the ending of `path` chooses the format."""
    content = io.BytesIO()
    kind = Path(path).suffix.lstrip(".").lower() or "png"
    kinds = sorted(figure.canvas.get_supported_filetypes())
    require(
        kind in kinds, where, f"a picture of a kind among {', '.join(kinds)}", kind, "Use .png."
    )
    figure.savefig(content, format=kind, dpi=150)
    write_whole(where, path, content.getvalue())
