"""The pages of the API reference: every name that `dir(funcnet)` shows, by where it comes from."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import funcnet as fn

TITLES = {
    "ops.products": "Products",
    "ops.norms": "Norms",
    "ops.activations": "Activations",
    "ops.images": "Images",
    "ops.losses": "Losses",
    "ops.sequences": "Sequences",
    "ops": "Backpropagation, layer by layer",
    "layers": "Layers",
    "nn": "Combinators",
    "nets": "Networks: fn.nets",
    "initializers": "Initialisers: fn.initializers",
    "train": "Training",
    "mesh": "Many devices",
    "data": "Data: fn.data",
    "traces": "Traces",
    "verdicts": "Verdicts",
    "rules": "Rules and proofs",
    "io": "Weights and files: fn.io",
    "tree": "Parameter trees: fn.tree",
    "plot": "Pictures: fn.plot",
}
"""The chapters in the order they are read; one that is missing here comes last."""
TOGETHER = {"figures": "train", "commands": "train", "ops.backprop": "ops"}
"""Modules whose names stand in the chapter of another package."""


class Entry(NamedTuple):
    """A public name, such as `io.load_weights`, and the module that defines it."""

    name: str
    module: str

    @property
    def file(self) -> str:
        """Where that module is, from the root of the repository."""
        found = inspect.getsourcefile(importlib.import_module(f"funcnet.{self.module}"))
        return str(Path(found or "").relative_to(Path(fn.__file__).parent.parent))


class Chapter(NamedTuple):
    """A page of the reference."""

    room: str
    entries: tuple[Entry, ...]
    borrowed: dict[str, list[str]]
    """Names that are another library's, by its module."""

    @property
    def title(self) -> str:
        """Its heading."""
        return TITLES.get(self.room, self.room.rpartition(".")[2].capitalize())

    @property
    def uri(self) -> str:
        """Where it stands in the site, as MkDocs counts from docs/."""
        return f"reference/{self.room.replace('.', '_')}.md"


def gathered(module: ModuleType) -> Iterator[tuple[str, str]]:
    """The names that a module takes over by `import X as X`, each with where it is from."""
    package = (module.__package__ or "").split(".")
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, node.module])
            yield from ((a.name, source) for a in node.names if a.asname == a.name)


def defined(module: ModuleType) -> list[str]:
    """The functions and classes that a module defines, in the order it does."""
    found = inspect.getmembers(module, lambda x: inspect.isfunction(x) or inspect.isclass(x))
    own = [(n, x) for n, x in found if x.__module__ == module.__name__ and n[0] != "_"]
    return [name for name, x in sorted(own, key=lambda pair: inspect.getsourcelines(pair[1])[1])]


def members(module: ModuleType) -> list[tuple[str, str]]:
    """What a namespace such as `fn.io` shows, each with where it is from."""
    own = [(name, module.__name__) for name in defined(module)]
    return [*gathered(module), *own]


def room_of(module: str) -> str:
    """The chapter of a module: its package, or of an op that package of `funcnet.ops`."""
    parts = module.split(".")
    room = ".".join(parts[:2]) if parts[0] == "ops" else parts[0]
    return TOGETHER.get(room, room)


def chapters() -> list[Chapter]:
    """Every page of the reference, in order."""
    entries: dict[str, list[Entry]] = {}
    borrowed: dict[str, dict[str, list[str]]] = {}

    def enter(room: str | None, name: str, source: str) -> None:
        if source.startswith("funcnet."):
            module = source.removeprefix("funcnet.")
            entries.setdefault(room or room_of(module), []).append(Entry(name, module))
        else:
            others = borrowed.setdefault(room or "", {})
            others.setdefault(source, []).append(name)

    sources = dict(gathered(fn))
    for name in sorted(dir(fn), key=[*sources, *dir(fn)].index):
        value = getattr(fn, name)
        if not inspect.ismodule(value):
            enter(None, name, sources[name])
            continue
        for member, source in members(value):
            enter(name, f"{name}.{member}", source)
    order = [*TITLES, *entries]
    return [
        Chapter(room, tuple(entries[room]), borrowed.get(room, {}))
        for room in sorted(entries, key=order.index)
    ]


def room_doc(room: str) -> str:
    """What the docstring of a chapter's package or module says."""
    module = getattr(fn, room, None)
    if not inspect.ismodule(module):
        module = importlib.import_module(f"funcnet.{room}")
    return inspect.getdoc(module) or ""


def entry_text(entry: Entry, level: int) -> str:
    """One name: its docstring, and the derivation of its backward pass if it has one."""
    lines = [
        f"::: funcnet.{entry.name}",
        "    options:",
        f"      heading: fn.{entry.name}",
        f"      toc_label: {entry.name.rpartition('.')[2]}",
        f"      heading_level: {level}",
        "",
    ]
    if entry.name in fn.RULES:
        formulas = fn.RULES[entry.name].derivation
        lines += ["**Backward pass, by hand:**", "", "```{.text .derivation}", formulas, "```", ""]
    return "\n".join([*lines, f"Source: [{entry.file}](../../{entry.file})", ""])


def chapter_text(chapter: Chapter) -> str:
    """The page of a chapter, in Markdown."""
    modules = list(dict.fromkeys(entry.module for entry in chapter.entries))
    parts = [f"# {chapter.title}", room_doc(chapter.room)]
    for module in modules:
        several = len(modules) > 1
        if several:
            heading = module.rpartition(".")[2].replace("_", " ")
            parts += [f"## {heading}", room_doc(module)]
        parts += [
            entry_text(entry, 3 if several else 2)
            for entry in chapter.entries
            if entry.module == module
        ]
    for source, names in chapter.borrowed.items():
        listed = ", ".join(f"`fn.{name}`" for name in names)
        parts += [f"## From {source}", f"As they are in `{source}`: {listed}."]
    return "\n\n".join(parts)


def index_text() -> str:
    """All names, by chapter, each a link to where it is explained."""
    rows = ["| chapter | names |", "|---|---|"]
    for chapter in chapters():
        names = " ".join(f"[`{e.name}`][funcnet.{e.name}]" for e in chapter.entries)
        rows.append(f"| [{chapter.title}]({chapter.uri}) | {names} |")
    return "\n".join(rows)
