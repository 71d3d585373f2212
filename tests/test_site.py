"""The documentation site: what its pages are made of, and in the long form the site itself."""

import doctest
import inspect
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import funcnet as fn
from docs.builder import links, reference

ROOT = links.ROOT
CHAPTERS = reference.chapters()
ENTRIES = [entry for chapter in CHAPTERS for entry in chapter.entries]


def test_every_public_name_is_in_the_reference_once():
    namespaces = {name for name in dir(fn) if inspect.ismodule(getattr(fn, name))}
    found = Counter(entry.name for entry in ENTRIES)
    assert set(found.values()) == {1}
    assert {name for name in found if "." not in name} == set(dir(fn)) - namespaces
    for namespace in namespaces:
        module = getattr(fn, namespace)
        gathers = dict(reference.gathered(module))
        own = {
            name
            for name, value in vars(module).items()
            if (name in gathers or getattr(value, "__module__", "") == module.__name__)
            and name[0] != "_"
            and callable(value)
        }
        (chapter,) = [chapter for chapter in CHAPTERS if chapter.room == namespace]
        borrowed = [name for names in chapter.borrowed.values() for name in names]
        shown = [*(entry.name for entry in chapter.entries), *borrowed]
        assert sorted(shown) == sorted(f"{namespace}.{name}" for name in own)


def named(entry):
    value = fn
    for part in entry.name.split("."):
        value = getattr(value, part)
    return value


def test_every_entry_is_what_its_module_defines():
    for entry in ENTRIES:
        source = sys.modules[f"funcnet.{entry.module}"]
        assert getattr(source, entry.name.rpartition(".")[2]) is named(entry)
        assert (ROOT / entry.file).is_file()


def test_chapters_have_titles_and_every_op_its_derivation():
    assert {chapter.room for chapter in CHAPTERS} <= set(reference.TITLES)
    text = "\n".join(map(reference.chapter_text, CHAPTERS))
    for name, rule in fn.RULES.items():
        if rule.op is getattr(fn, name, None):
            assert f"::: funcnet.{name}\n" in text
            assert rule.derivation in text


LEAVES = """[a](../examples/01_one_unit.py) [b](../README.md) [c](traces.md#part) [d](https://x.org/y)
`[e](../no.py)` [`f`](../examples) [g](notebooks/first_trace.ipynb)
```python
[h](../no.py)
```
"""


def test_links_that_leave_docs_lead_to_copies():
    assert links.to_copies("page.md", LEAVES) == (
        LEAVES.replace("../examples/01_one_unit.py", "source/examples/01_one_unit.py.md")
        .replace("../README.md", "index.md")
        .replace("(../examples)", "(source/examples.md)")
        .replace(".ipynb", ".md")
    )
    nested = links.to_copies("coming/page.md", "[a](../../tests/cases.py) [b](../../README.md)")
    assert nested == "[a](../source/tests/cases.py.md) [b](../index.md)"
    programs = sorted(path.relative_to(ROOT) for path in (ROOT / "examples").glob("*.py"))
    first = Path("examples/01_one_unit.py")
    assert list(links.targets("page.md", LEAVES)) == [first, Path("examples"), *programs]


def test_a_copy_shows_the_whole_file():
    page = links.copy_text(Path("README.md"))
    assert (ROOT / "README.md").read_text().rstrip() in page
    assert page.endswith("\n````\n")  # longer than the fences within
    listed = links.copy_text(Path("examples"))
    assert "[17_trace.py](examples/17_trace.py.md)" in listed


def test_names_become_links_to_the_reference():
    text = (
        "# `fn.conv`\n`fn.conv` `fn.nothing` [`fn.conv`](a.md)\n```\n`fn.conv`\n```\n`fn.io.bert`"
    )
    assert links.to_reference(text, {"conv", "io.bert"}) == (
        "# `fn.conv`\n[`fn.conv`][funcnet.conv] `fn.nothing` [`fn.conv`](a.md)\n"
        "```\n`fn.conv`\n```\n[`fn.io.bert`][funcnet.io.bert]"
    )


def test_docstrings_become_markdown():
    pytest.importorskip("griffe", reason="needs the extra docs: pip install -e '.[docs]'")
    from docs.builder import docstrings

    ran = doctest.testmod(docstrings)
    assert (ran.failed, ran.attempted) == (0, 2)


class Html(HTMLParser):
    """What a page of the site leads to, what it loads, and where one can lead to in it."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.ids, self.leads, self.loads = path, Counter(), [], []
        self.prose, self.tags = "", []
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        if "id" in values:
            self.ids[values["id"]] += 1
        if tag == "a" or values.get("rel") in ("prev", "next"):
            self.leads += [values["href"]] if "href" in values else []
        else:
            self.loads += [values[name] for name in ("src", "href", "data") if values.get(name)]

    def handle_endtag(self, tag):
        while self.tags and self.tags.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"pre", "code", "script", "style"} & set(self.tags):
            self.prose += data


def broken(site: Path, pages: dict[Path, Html]) -> list[str]:
    """The links of a site that lead to no file, or to no place in it."""
    found = []
    for path, page in pages.items():
        start = site if path.name == "404.html" else path.parent
        for link in [*page.leads, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "data"):
                continue
            there = (start / unquote(parts.path).lstrip("/")).resolve() if parts.path else path
            there = there / "index.html" if there.is_dir() else there
            places = pages[there].ids if there in pages else ()
            if not there.is_file() or (parts.fragment and unquote(parts.fragment) not in places):
                found.append(f"{path.relative_to(site)}: {link}")
    return found


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "in").mkdir()
    head = '<h1 id="top">x > y</h1><pre>>>> f</pre><img src="a.png"><a href="https://x.org">x</a>'
    (tmp_path / "a.html").write_text(head + '<a href="in/b.html#top">b</a><a href="#no">n</a>')
    (tmp_path / "in/b.html").write_text('<h1 id="top"><a href="../a.html#top">a</a><a href="c">')
    pages = {path: Html(path) for path in sorted(tmp_path.rglob("*.html"))}
    assert pages[tmp_path / "a.html"].prose == "x > yxbn"
    assert broken(tmp_path, pages) == ["a.html: #no", "a.html: a.png", "in/b.html: c"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site: `FUNCNET_SITE` where that is given, else built as README says."""
    if find_spec("mkdocs") is None or find_spec("mkdocstrings") is None:
        pytest.skip("needs the extra docs: pip install -e '.[docs]'")
    if built := os.environ.get("FUNCNET_SITE"):
        return Path(built)
    folder = tmp_path_factory.mktemp("site")
    (command,) = re.findall(
        r"\.venv/bin/(mkdocs build .*)$", (ROOT / "README.md").read_text(), re.M
    )
    words = [sys.executable, "-m", *shlex.split(command), "--site-dir", str(folder)]
    run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    found = {path: Html(path) for path in sorted(site.rglob("*.html"))}
    assert len(found) > 40
    return found


@pytest.mark.slow
@pytest.mark.long
class TestTheSite:
    def test_every_link_leads_somewhere(self, site, pages):
        assert broken(site, pages) == []

    def test_nothing_is_loaded_from_elsewhere(self, site, pages):
        for path, page in pages.items():
            assert not [link for link in page.loads if urlsplit(link).netloc], path
        for path in site.rglob("*.css"):
            assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import", path.read_text()), path

    def test_every_name_has_its_place(self, site, pages):
        ids = Counter()
        for path, page in pages.items():
            if path.parent == site / "reference":
                ids += page.ids
        assert [entry.name for entry in ENTRIES if ids[f"funcnet.{entry.name}"] != 1] == []

    def test_docstrings_are_rendered(self, site, pages):
        sections = {"Args:": "Parameters:", "Raises:": "Raises:", "Reference:": "Reference:"}
        for chapter in CHAPTERS:
            prose = pages[site / chapter.uri.replace(".md", ".html")].prose
            docs = [inspect.getdoc(named(entry)) or "" for entry in chapter.entries]
            for written, shown in sections.items():
                count = sum(f"\n{written}" in doc for doc in docs)
                assert prose.count(shown) >= count, (chapter.room, shown)
            assert "Args:" not in prose
            assert ">>>" not in prose
            ops = [entry for entry in chapter.entries if entry.name in fn.RULES]
            assert prose.count("Backward pass, by hand:") == len(ops)

    def test_notebooks_show_their_outputs(self, site):
        for path in (ROOT / "docs/notebooks").glob("*.ipynb"):
            assert (site / "notebooks" / path.name).is_file()
            page = (site / "notebooks" / path.name).with_suffix(".html").read_text()
            assert page.count('<div class="result highlight"') >= 2, path

    def test_pictures_that_are_pages_are_shown_as_pages(self, site):
        assert (
            '<iframe class="page" src="pictures/lecture.html"' in (site / "index.html").read_text()
        )
