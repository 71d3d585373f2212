"""The notebooks are kept without outputs; each runs, its cells alone and in Jupyter's kernel."""

import json
import sys
import types
from pathlib import Path

import pytest

from .test_docs import ROOT, links_in, name

NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=name)


def cells(path: Path, kind: str) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


@each
def test_it_is_kept_without_outputs(path):
    notebook = json.loads(path.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    for cell in cells(path, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert cell["metadata"] == {}


@each
def test_it_begins_with_a_heading_and_asserts_its_result(path):
    assert cells(path, "markdown")[0]["source"][0].startswith("# ")
    lines = [line for cell in cells(path, "code") for line in cell["source"]]
    assert any(line.startswith("assert ") for line in lines)


@each
def test_its_links_lead_to_files(path):
    found = [link for cell in cells(path, "markdown") for link in links_in("".join(cell["source"]))]
    assert found
    assert not [link for link in found if not (path.parent / link).exists()]


@pytest.mark.slow
@pytest.mark.long
@each
def test_its_cells_run_in_order(path, rules, networks_compile_whole, tmp_path, monkeypatch):
    module = types.ModuleType(f"notebook_{path.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    for i, cell in enumerate(cells(path, "code")):
        exec(compile("".join(cell["source"]), f"{path}:{i}", "exec"), vars(module))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.long
@each
def test_jupyter_runs_it(path):
    pytest.importorskip("nbclient", reason="needs the extra docs: pip install -e '.[docs]'")
    from docs.builder import notebooks

    ran = notebooks.run(path)
    left = [out.output_type for cell in ran.cells for out in cell.get("outputs", [])]
    assert "error" not in left
    assert "stream" in left
    text = notebooks.as_markdown(ran)
    assert all("".join(cell["source"]) in text for cell in cells(path, "code"))
    assert text.count(notebooks.RESULT) >= 3
