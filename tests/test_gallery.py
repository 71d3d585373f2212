"""The pictures in docs/pictures/: what is shown is what the library and the examples draw."""

import json
import os
import re

import pytest

from docs.builder import pictures

from .test_docs import PAGES, links
from .test_examples import EXAMPLES
from .test_traces import agrees

KEPT = sorted(pictures.PICTURES.iterdir())
DATA = re.compile(r'(<script id="data" type="application/json">)(.*?)(</script>)', re.S)


def drawn_by(path):
    """The names of the pictures that an example writes."""
    return set(re.findall(rf"runs/({path.stem}\.\w+)", path.read_text()))


def test_the_front_page_shows_what_the_library_draws():
    trace = pictures.lecture()
    made = {"lecture.svg": trace.svg(), "lecture.html": trace.html()}
    for name, text in made.items():
        path = pictures.PICTURES / name
        if os.environ.get("WRITE_GOLDEN"):
            path.write_text(pictures.portable(text))
    assert pictures.portable(made["lecture.svg"]) == (pictures.PICTURES / "lecture.svg").read_text()
    page = pictures.portable(made["lecture.html"])
    kept = (pictures.PICTURES / "lecture.html").read_text()
    assert DATA.sub(r"\1\3", page) == DATA.sub(r"\1\3", kept)
    agrees(*(json.loads(DATA.search(text)[2]) for text in (page, kept)))


@pytest.mark.parametrize(
    "path", [path for path in EXAMPLES if drawn_by(path)], ids=lambda path: path.stem
)
def test_what_an_example_draws_is_in_the_gallery(path):
    shown = set(links(pictures.ROOT / "docs/gallery.md"))
    again = f"Run python docs/builder/pictures.py {path.stem[:2]}, and enter it in docs/gallery.md."
    assert {f"pictures/{name}" for name in drawn_by(path)} <= shown, again
    assert f"../examples/{path.name}" in shown, again


def test_every_picture_is_shown_and_an_examples_own():
    shown = {link for page in PAGES for link in links(page)}
    drawn = {name for path in EXAMPLES for name in drawn_by(path)}
    for path in KEPT:
        assert f"pictures/{path.name}" in shown
        assert path.stem in ("lecture", "performance") or path.name in drawn


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_a_picture_is_small_and_names_no_machine(path):
    assert path.stat().st_size < 100_000
    assert str(pictures.ROOT).encode() not in path.read_bytes()


def test_paths_are_named_from_the_root():
    assert pictures.portable(f"{pictures.ROOT}/examples/a.py {pictures.ROOT}x") == (
        f"examples/a.py {pictures.ROOT}x"
    )


def test_a_picture_is_kept_with_its_colours(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow, which matplotlib brings, draws it")
    made, kept = tmp_path / "made.png", tmp_path / "kept.png"
    colours = [(255, 0, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)]
    picture = image.new("RGBA", (4, 1))
    picture.putdata([(*colour, 255) for colour in colours])
    picture.save(made)
    pictures.keep(made, kept)
    again = image.open(kept).convert("RGB")
    assert [again.getpixel((x, 0)) for x in range(4)] == colours
