"""Every example runs from anywhere, asserts its own result, and is short enough to read."""

import ast
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import USERS_XLA_FLAGS

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
QUICK = frozenset({"02_network_331"})
"""The stem of the one that takes some ten seconds; the others train longer."""
DATA = re.compile(r'(?<=<script id="data" type="application/json">).*?(?=</script>)', re.S)
"""The numbers of a page of a trace: a newer JAX may have others."""
PICTURES = Path(__file__).parent.parent / "docs/pictures"


def size(png: Path) -> tuple[int, ...]:
    """The width and height of a picture, from the head of its file."""
    head = png.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:])


def row(path: Path):
    marks = [] if path.stem in QUICK else [pytest.mark.slow]
    return pytest.param(path, id=path.stem, marks=[pytest.mark.long, *marks])


@pytest.mark.parametrize("path", [row(path) for path in EXAMPLES])
def test_example_runs(path, tmp_path):
    run = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "agg", "XLA_FLAGS": USERS_XLA_FLAGS},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    for kept in PICTURES.glob(f"{path.stem}.png"):
        assert size(tmp_path / "runs" / kept.name) == size(kept)
    for kept in PICTURES.glob(f"{path.stem}.html"):
        pages = (tmp_path / "runs" / kept.name).read_text(), kept.read_text()
        assert len({DATA.sub("", page) for page in pages}) == 1


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short_and_asserts_its_result(path):
    text = path.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 100
    assert ast.get_docstring(tree)
    assert any(isinstance(node, ast.Assert) for node in ast.walk(tree))


def test_the_examples_named_here_exist():
    assert {path.stem for path in EXAMPLES} >= QUICK
