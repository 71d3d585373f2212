"""Links in a page: those that leave docs/ lead to copies of the files, names to the reference."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
BLOCK = r"^(`{3,})[^\n]*\n.*?^\1[ ]*$"
CODE = re.compile(rf"{BLOCK}|`[^`\n]+`", re.M | re.S)
SETTLED = re.compile(rf"{BLOCK}|^#[^\n]*|\[[^\]\n]*\](?=[(\[])", re.M | re.S)
"""Where a name is not made a link: in code, in headings and in links."""
LINK = re.compile(r"(?<=\]\()([^()\s#]+)")
NAME = re.compile(r"`fn\.([\w.]+)`")
ELSEWHERE = re.compile(r"[a-z]+:")
FRONT = {"README.md": "index.md"}
"""Files outside docs/ that a page of the site stands for."""


def outside(kept: re.Pattern, text: str, change: Callable[[str], str]) -> str:
    """`text` with `change` applied to all but what is kept."""
    parts, end = [], 0
    for match in kept.finditer(text):
        parts += [change(text[end : match.start()]), match[0]]
        end = match.end()
    return "".join([*parts, change(text[end:])])


def target(page: str, link: str) -> Path | None:
    """The file outside docs/ that a link of a page leads to, from the root of the repository."""
    if ELSEWHERE.match(link):
        return None
    path = Path(os.path.normpath(DOCS / PurePosixPath(page).parent / link))
    return None if path.is_relative_to(DOCS) else path.relative_to(ROOT)


def inside(folder: Path) -> list[Path]:
    """The programs in a folder, from the root of the repository; none if it is a file."""
    return sorted(path.relative_to(ROOT) for path in (ROOT / folder).glob("*.py"))


def targets(page: str, text: str) -> Iterator[Path]:
    """All files outside docs/ that a page leads to, those that the site has anyway left out."""
    for match in LINK.finditer(CODE.sub("", text)):
        path = target(page, match[1])
        if path and str(path) not in FRONT:
            yield from [path, *inside(path)]


def copy_of(path: Path) -> str:
    """The page of the site that shows a file outside docs/."""
    return FRONT.get(str(path)) or f"source/{path.as_posix()}.md"


def page_of(link: str) -> str:
    """A link to a notebook as one to the page that shows it; any other as it is."""
    return re.sub(r"\.ipynb$", ".md", link)


def to_copies(page: str, text: str) -> str:
    """A page's text, with links that leave docs/ leading to the copies, and notebooks to pages."""

    def change(match: re.Match) -> str:
        path = target(page, match[1])
        if path is None:
            return page_of(match[0])
        return os.path.relpath(copy_of(path), PurePosixPath(page).parent)

    return outside(CODE, text, lambda prose: LINK.sub(change, prose))


def to_reference(text: str, names: set[str]) -> str:
    """A page's text, with each `fn.name` in its prose a link to the reference."""

    def change(match: re.Match) -> str:
        return f"[{match[0]}][funcnet.{match[1]}]" if match[1] in names else match[0]

    return outside(SETTLED, text, lambda prose: NAME.sub(change, prose))


def copy_text(path: Path) -> str:
    """The page that shows a file, or what a folder holds."""
    head = f"---\nsearch:\n  exclude: true\nhide:\n  - toc\n---\n# {path.as_posix()}\n\n"
    whole = ROOT / path
    if whole.is_dir():
        return head + "\n".join(f"- [{p.name}]({path.name}/{p.name}.md)" for p in inside(path))
    text = whole.read_text(encoding="utf-8")
    fence = "`" * max([3, *(len(ticks) + 1 for ticks in re.findall(r"`{3,}", text))])
    language = {".py": "python", ".toml": "toml", ".md": "markdown"}.get(path.suffix, "text")
    return f"{head}{fence}{language}\n{text.rstrip()}\n{fence}\n"
