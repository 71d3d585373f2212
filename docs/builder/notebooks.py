"""A notebook, run and written as Markdown."""

import base64
import functools
from pathlib import Path
from typing import Any

import nbclient
import nbformat
from traitlets.config import Config

TIMEOUT = 120
"""Seconds that a cell may take."""
RESULT = "{.text .result}"
"""What is printed, which docs/style.css sets apart from what is typed."""


@functools.cache
def ran(text: str) -> Any:
    """A notebook's text, read and run; once, while `mkdocs serve` makes the site anew."""
    private = Config({"KernelManager": {"transport": "ipc"}})
    notebook = nbformat.reads(text, as_version=4)
    return nbclient.NotebookClient(notebook, timeout=TIMEOUT, config=private).execute()


def run(path: Path) -> Any:
    """The notebook with its outputs; a cell that raises is an error here."""
    return ran(path.read_text(encoding="utf-8"))


def picture(data: dict[str, str]) -> str | None:
    """An output that is a picture or a page, as HTML."""
    if "text/html" in data:
        return data["text/html"]
    if "image/svg+xml" in data:
        return data["image/svg+xml"]
    if "image/png" in data:
        png = base64.b64encode(base64.b64decode(data["image/png"])).decode()
        return f'<img alt="what the cell drew" src="data:image/png;base64,{png}">'
    return None


def fenced(text: str, language: str) -> str:
    """Text between fences that it does not itself contain."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def output(out: Any) -> str:
    """One output of a cell, in Markdown."""
    if out.output_type == "stream":
        return fenced(out.text, RESULT)
    drawn = picture(out.data)
    if drawn is None:
        return fenced(out.data["text/plain"], RESULT)
    return f'<div class="output">\n{drawn}\n</div>'


def as_markdown(notebook: Any) -> str:
    """The cells of a notebook and what they left, in order."""
    parts: list[str] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.cell_type == "code":
            parts.append(fenced(cell.source, "python"))
            parts += [output(out) for out in cell.outputs]
    return "\n\n".join(parts)
