"""Five training steps of funcnet beside those of other libraries.

    python -m tests.benchmarks steps --models mlp lenet --peers plain funcnet --rounds 5

Each round takes each library's step in a fresh process, one after the other, over the same
parameters, batch, optimiser and dtype. Gradients are compared to those in float64 in the first
round. Rows are kept in `--records` model by model; `--write` makes docs/performance.md and its
picture of all that are there.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from . import tables
from .models import LIMITS, MODELS
from .worker import PEERS

ROOT = Path(__file__).parent.parent.parent


def main(words: list[str]) -> None:
    """Measure what is asked for, print it, and perhaps write it."""
    options = read(words)
    kept = known(options.records)
    for model in options.models:
        rows = rows_of(model, options)
        kept[f"{model} {options.dtype}"] = rows
        options.records.parent.mkdir(parents=True, exist_ok=True)
        options.records.write_text(json.dumps(kept, indent=1))
        print(tables.text(rows), flush=True)
        refuse(rows, options.dtype)
    if options.write:
        tables.write(kept, ROOT / "docs")


def read(words: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser("python -m tests.benchmarks steps")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each process")
    parser.add_argument("--dtype", choices=LIMITS, default="float32")
    parser.add_argument("--records", type=Path, default=ROOT / "runs/steps.json")
    parser.add_argument("--write", action="store_true", help="docs/performance.md")
    return parser.parse_args(words)


def known(path: Path) -> dict[str, list[dict]]:
    """The rows of earlier runs, by model and dtype."""
    return json.loads(path.read_text()) if path.exists() else {}


def rows_of(model: str, options: argparse.Namespace) -> list[dict]:
    """A row for each peer: its figures, and the times of each round."""
    peers = [peer for peer in options.peers if model == "mlp" or peer != "funcnet x10"]
    rounds: dict[str, list[dict]] = {peer: [] for peer in peers}
    with tempfile.TemporaryDirectory() as folder:
        truth = f"{folder}/truth.npz"
        call(folder, model, "truth", truth)
        for number in range(options.rounds):
            for peer in peers:
                check = [] if number else [truth]
                found = call(folder, model, peer, options.dtype, str(options.seconds), *check)
                rounds[peer].append(json.loads(found.splitlines()[-1]))
                print(f"{model} {peer}: {1e3 * rounds[peer][-1]['minimum']:.2f} ms", flush=True)
    return [joined(found) for found in rounds.values()]


def call(folder: str, *words: str) -> str:
    """What a worker prints; what compilers keep goes to the folder of this run."""
    kept = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/jax", "TORCHINDUCTOR_CACHE_DIR": f"{folder}/ti"}
    run = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.worker", *words],
        cwd=ROOT,
        env=os.environ | kept,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        sys.exit(f"steps: {' '.join(words[:2])} failed:\n{run.stderr[-3000:]}")
    return run.stdout


def joined(found: list[dict]) -> dict:
    """The rows of a peer's rounds as one; its first call and its checks are the first round's."""
    minima = [row["minimum"] for row in found]
    median = statistics.median(row["median"] for row in found)
    return found[0] | {"minimum": min(minima), "median": median, "rounds": minima}


def refuse(rows: list[dict], dtype: str) -> None:
    """End the run if one of the steps computes something else."""
    if len({row["parameters"] for row in rows}) > 1:
        counts = ", ".join(f"{row['peer']} {row['parameters']}" for row in rows)
        sys.exit(f"steps: expected the same number of parameters in all libraries, got {counts}.")
    for row in rows:
        if not row["apart"] <= LIMITS[dtype]:
            sys.exit(
                f"steps: expected gradients of {row['peer']} within {LIMITS[dtype]} of those in "
                f"float64, as a share of their norm, got {row['apart']:.2g}. Its times are void."
            )
