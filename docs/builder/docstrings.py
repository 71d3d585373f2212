"""Docstrings as this house writes them, made ready for Markdown: a Griffe extension."""

import re
from typing import Any

import griffe

PROMPT = ">>> "
REFERENCE = re.compile(r"^Reference:[ ]*")


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a docstring, as they stand."""
    return re.split(r"\n[ ]*\n", text)


def as_markdown(text: str) -> str:
    """An example becomes a section of its own, and a source a paragraph with its name in bold.

    >>> as_markdown("Halves x.\\n\\n>>> half(2)\\n1").splitlines()
    ['Halves x.', '', 'Examples:', '    >>> half(2)', '    1']
    >>> as_markdown("Reference: Euclid,\\n    book VII.")
    '**Reference:** Euclid, book VII.'
    """
    made: list[str] = []
    in_examples = False
    for paragraph in paragraphs(text):
        shown = paragraph.startswith(PROMPT)
        if shown:
            lines = "\n".join(f"    {line}" for line in paragraph.splitlines())
            paragraph = lines if in_examples else f"Examples:\n{lines}"
        elif REFERENCE.match(paragraph):
            words = " ".join(line.strip() for line in paragraph.splitlines())
            paragraph = REFERENCE.sub("**Reference:** ", words)
        made.append(paragraph)
        in_examples = shown
    return "\n\n".join(made)


class HouseStyle(griffe.Extension):
    """Has Griffe read what `as_markdown` makes of each docstring."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called with each object that was found in a source."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)
