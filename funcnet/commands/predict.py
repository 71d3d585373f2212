"""`funcnet predict`: what a trained network says of files, from its folder alone."""

import argparse
import json
from typing import Any

from ..types import require
from .classes import said
from .recipes import NETS
from .saved import load_run


def add_predict(command: Any) -> None:
    """The arguments of `funcnet predict`."""
    command.add_argument("run_folder", metavar="RUN", help="what `funcnet train` wrote to")
    command.add_argument(
        "files", metavar="FILE", nargs="+", help="a picture, a .npy, .npz or .csv file, .parquet "
        "if it learned from a table; for a network that writes, a text to go on with"
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="a JSON object an example")
    command.add_argument(
        "--length", type=int, default=400, metavar="N", help="characters to write (default: 400)"
    )
    command.add_argument("--seed", type=int, default=0, metavar="N", help="of what is written")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print a line for each example, or how each text goes on."""
    trained = load_run(options.run_folder)
    net = trained.description["net"]
    recipe = NETS[net]
    if recipe.kind.predict is None:
        raise ValueError(
            "predict: expected a network that tells classes or numbers, or writes text, got one "
            f"that does neither, {net}. `funcnet evaluate` shows what it does."
        )
    expected, remedy = "--length of 1 or more", "Leave it out for 400."
    require(options.length >= 1, "predict", expected, options.length, remedy)
    expected, remedy = f"--seed from 0 to {2**32 - 1}", "Leave it out for 0."
    require(0 <= options.seed < 2**32, "predict", expected, options.seed, remedy)
    for path in options.files:
        records = recipe.kind.predict(recipe.build, trained, path, vars(options))
        for i, record in enumerate(records):
            if options.json:
                print(json.dumps({"file": path, "example": i} | record))
            elif "text" in record:
                print(record["text"])
            else:
                print(f"{path if len(records) == 1 else i}: {said(record)}")
    return 0
