"""`funcnet evaluate`: all there is to say of a trained network, from its folder alone."""

import argparse
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ..disk import write_whole
from ..train.history import finite_or_none
from ..train.state import TrainState, bits
from ..types import require
from .jobs import Asked
from .recipes import NETS
from .saved import load_run
from .train import scores_in_words


def add_evaluate(command: Any) -> None:
    """The arguments of `funcnet evaluate`."""
    command.add_argument("run_folder", metavar="RUN", help="what `funcnet train` wrote to")
    command.add_argument(
        "--data", metavar="NAME|PATH", help="other data of the same kind (default: what the run "
        "held out); all of it counts"
    )  # fmt: skip
    command.add_argument(
        "--out", metavar="DIR", help="where to write (default: RUN, of other data in it)"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report, and write it with its pictures."""
    folder = Path(options.run_folder)
    trained = load_run(folder)
    about = trained.description
    require(
        options.data != "",
        "evaluate",
        "a name or a path after --data",
        "''",
        "Leave it out for what the run held out.",
    )
    data = options.data or about["data"]
    asked = Asked(data, tuple(about["width"]), run=about)
    job = NETS[about["net"]].job(asked)
    require(
        job.described["size"] == about["size"],
        "evaluate",
        f"data for a network of {about['size']}, as the run's own was",
        f"{job.data}, which asks for {job.described['size']}",
        "The data has changed since: name what it was with --data.",
    )
    inside = folder / f"evaluation-{Path(job.data).name}" if asked.other else folder
    out = inside if options.out is None else Path(options.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        expected, remedy = f"a folder to write in, {out}", "Name another one with --out."
        require(False, "evaluate", expected, error.strerror, remedy)
    state = TrainState(
        jnp.zeros((), int), trained.params, trained.state, (), bits(jax.random.key(about["seed"]))
    )
    found = (job.examine or job.judge)(out, state)
    figures = {"net": about["net"], "data": job.data, "examples": len(job.test[-1])}
    content = json.dumps(finite_or_none(figures | found.details | found.scores), indent=2)
    write_whole("evaluate", out / "evaluation.json", (content + "\n").encode())
    if found.printed:
        print(f"{found.printed}\n")
    print(f"saved in {out}: {', '.join(sorted({'evaluation.json'} | found.files))}")
    which = "all" if asked.other else "the held-out"
    print(
        f"{scores_in_words(found.scores)}: {about['net']}, {which} {len(job.test[-1])} examples "
        f"of {job.data}"
    )
    return 0
