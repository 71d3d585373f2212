"""What MkDocs calls while it builds the site: pages that are made, and links that are mended."""

import functools
import re
from pathlib import Path, PurePosixPath

import links
import notebooks
import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

INDEX = "<!-- all names, when the site is built -->"
PAGE_IN_PICTURE = re.compile(r"\[!\[([^\]]*)\]\([^()\s]+\.svg\)\]\(([^()\s]+\.html)\)")


@functools.cache
def names() -> set[str]:
    """All that the reference explains."""
    return {entry.name for chapter in reference.chapters() for entry in chapter.entries}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Enter the chapters of the reference where the navigation says `reference.md`."""
    chapters = reference.chapters()
    ops = [{c.title: c.uri} for c in chapters if c.room.split(".")[0] == "ops"]
    others = [{c.title: c.uri} for c in chapters if c.room.split(".")[0] != "ops"]
    for entry in config.nav or []:
        if entry.get("Reference") == "reference.md":
            entry["Reference"] = ["reference.md", {"Ops": ops}, *others]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what is made: the reference, the notebooks with their outputs, and copies of files."""
    made = {chapter.uri: reference.chapter_text(chapter) for chapter in reference.chapters()}
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        ran = notebooks.run(Path(file.abs_src_path or ""))
        made[links.page_of(file.src_uri)] = notebooks.as_markdown(ran)
    written = {page.src_uri: page.content_string for page in files.documentation_pages()}
    copied = {
        path for uri, text in [*written.items(), *made.items()] for path in links.targets(uri, text)
    }
    made |= {links.copy_of(path): links.copy_text(path) for path in copied}
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, files: Files, **_: object) -> str:
    """Mend links, and put in what a page asks for."""
    uri = page.file.src_uri
    if page.parent is None:  # nothing else would stand in its navigation
        page.meta.setdefault("hide", []).append("navigation")
    if uri.startswith("source/"):
        return markdown
    if INDEX in markdown:
        markdown = markdown.replace(INDEX, reference.index_text())
    markdown = PAGE_IN_PICTURE.sub(r'<iframe class="page" src="\2" title="\1"></iframe>', markdown)
    markdown = links.to_reference(links.to_copies(uri, markdown), names())
    notebook = PurePosixPath(uri).with_suffix(".ipynb")
    if files.get_file_from_path(str(notebook)):
        markdown += f"\n\nThis page as a notebook: [{notebook.name}]({notebook.name})\n"
    return markdown
