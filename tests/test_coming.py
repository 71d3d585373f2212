"""What docs/coming says of other libraries: their programs run where they are installed, and every
name of funcnet that a page of documentation mentions is there."""

import functools
import importlib.util
import os
import re
import subprocess
import sys

import pytest

import funcnet as fn

from .conftest import USERS_XLA_FLAGS
from .test_docs import FENCED, PAGES, ROOT, name

PACKAGES = {
    "pytorch": "torch",
    "keras": "keras",
    "nnx": "flax",
    "equinox": "equinox",
    "haiku": "haiku",
}
MENTIONED = re.compile(r"\bfn((?:\.[A-Za-z]\w*)+)")
CURRENT = [page for page in PAGES if page.stem != "changelog"]
"""The changelog tells of names that are gone."""


def test_each_page_has_a_package():
    assert {page.stem for page in (ROOT / "docs/coming").glob("*.md")} == set(PACKAGES)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("page", PACKAGES)
def test_the_other_librarys_blocks_run_beside_ours(page, tmp_path):
    if importlib.util.find_spec(PACKAGES[page]) is None:
        pytest.skip(f"{PACKAGES[page]} is not installed")
    text = (ROOT / f"docs/coming/{page}.md").read_text()
    blocks = [match for match in FENCED.finditer(text) if match[2] in ("py", "python")]
    assert {match[2] for match in blocks} == {"py", "python"}
    program = tmp_path / f"{page}_page.py"
    program.write_text("\n".join(match[3] for match in blocks))
    run = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": USERS_XLA_FLAGS},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("page", CURRENT, ids=name)
def test_every_name_that_a_page_mentions_is_there(page):
    for path in sorted(set(MENTIONED.findall(page.read_text())) - {".NAME"}):
        functools.reduce(getattr, path[1:].split("."), fn)
