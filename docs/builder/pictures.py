"""Makes docs/pictures/ again: `python docs/builder/pictures.py`, or with the numbers of examples.

An example writes its picture to runs/. Here it runs in a folder of its own, and what it wrote is
kept; a PNG in 192 colours, so that it is small.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from funcnet.traces.lecture import example
from funcnet.traces.trace import Trace

ROOT = Path(__file__).resolve().parent.parent.parent
PICTURES = ROOT / "docs/pictures"
COLOURS = 192


def lecture() -> Trace:
    """The trace on the front page; versions and devices are left out, so that it stays the same."""
    return dataclasses.replace(example(), header={})


def portable(text: str) -> str:
    """A page or a drawing in which files are named from the root of the repository."""
    return text.replace(f"{ROOT}/", "")


def keep(made: Path, kept: Path) -> None:
    """What an example wrote, small enough to be committed."""
    if made.suffix == ".png":
        from PIL import Image  # matplotlib, which drew the picture, brings it

        palette = (
            Image.open(made).convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=2)
        )
        palette.save(kept, optimize=True)
    else:
        kept.write_text(portable(made.read_text()))


def run(path: Path) -> None:
    """Run an example and keep its pictures."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, str(path)], cwd=folder, env=environment, check=True)
        for made in sorted(Path(folder, "runs").glob(f"{path.stem}.*")):
            keep(made, PICTURES / made.name)


def main(numbers: list[str]) -> None:
    """Make the pictures of these examples, or of all and of the front page."""
    PICTURES.mkdir(exist_ok=True)
    if not numbers:
        (PICTURES / "lecture.svg").write_text(portable(lecture().svg()))
        (PICTURES / "lecture.html").write_text(portable(lecture().html()))
    for path in sorted((ROOT / "examples").glob("*.py")):
        draws = f"runs/{path.stem}." in path.read_text()
        if draws and (not numbers or path.stem.split("_")[0] in numbers):
            run(path)


if __name__ == "__main__":
    main(sys.argv[1:])
