"""Every Python block of README.md and docs/ runs, and every relative link leads somewhere."""

import re
import sys
import tomllib
import types
from pathlib import Path
from typing import NamedTuple

import pytest

import funcnet as fn

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
USUAL = ("README.md", "docs/index.md")
"""What the usual form runs: the others train and compile longer."""
FENCED = re.compile(r"^(`{3,})(\w*)[^\n]*\n(.*?)^\1[ ]*$", re.M | re.S)
LINK = re.compile(r"\]\(([^()\s]+)[^()]*\)|\b(?:src|href)=\"([^\"]+)\"")
ELSEWHERE = re.compile(r"[a-z]+:|#")


class Block(NamedTuple):
    line: int
    code: str


def blocks(page: Path) -> list[Block]:
    """The Python blocks of a page, each with the line it starts on."""
    text = page.read_text()
    return [
        Block(text.count("\n", 0, match.start(3)) + 1, match[3])
        for match in FENCED.finditer(text)
        if match[2] == "python"
    ]


def links_in(text: str) -> list[str]:
    """The relative links of a text in Markdown, each without its fragment."""
    prose = re.sub(r"`[^`\n]*`", "", FENCED.sub("", text))
    targets = (match[1] or match[2] for match in LINK.finditer(prose))
    return [target.split("#")[0] for target in targets if not ELSEWHERE.match(target)]


def links(page: Path) -> list[str]:
    """The relative links of a page."""
    return links_in(page.read_text())


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def row(page: Path):
    marks = [] if name(page) in USUAL else [pytest.mark.slow, pytest.mark.long]
    return pytest.param(page, marks=marks, id=name(page))


@pytest.mark.parametrize("page", [row(page) for page in PAGES if blocks(page)])
def test_blocks_run_in_order(page, rules, networks_compile_whole, tmp_path, monkeypatch):
    module = types.ModuleType(f"page_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("COLUMNS", "100")
    for block in blocks(page):
        # The page's own lines, so that a traceback and `inspect` point into it.
        code = "\n" * (block.line - 1) + block.code
        exec(compile(code, str(page), "exec"), vars(module))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_to_files(page):
    missing = [link for link in links(page) if not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_fences_are_closed(page):
    opened = re.findall(r"^ *```", page.read_text(), re.M)
    assert len(opened) == 2 * len(FENCED.findall(page.read_text()))


def test_the_front_page_gives_readmes_commands():
    readme, front = ((ROOT / name).read_text() for name in ("README.md", "docs/index.md"))
    commands = [match[3] for match in FENCED.finditer(front) if match[2] == "sh"]
    assert commands
    assert all(f"```sh\n{command}```" in readme for command in commands)


def test_blocks_and_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\n```python\na = f[0](x)\n```\n[in](other.md#part) ![picture](a/b.png 'c')\n"
        "`d[0](e)` [out](https://example.org) [here](#page)\n```sh\nls\n```\n```python\nb\n```\n"
    )
    assert blocks(page) == [Block(4, "a = f[0](x)\n"), Block(12, "b\n")]
    assert links(page) == ["other.md", "a/b.png"]


def test_the_citation_is_of_this_version():
    (yaml,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/citation.md").read_text(), re.S)
    cited = dict(re.findall(r"^([a-z-]+):\s*(.+?)$", yaml, re.M))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert cited["version"] == fn.__version__
    assert cited["title"] == project["name"]
    assert cited["abstract"] == project["description"]
    assert cited["license"] == project["license"]
    assert cited["keywords"] == f"[{', '.join(project['keywords'])}]"
