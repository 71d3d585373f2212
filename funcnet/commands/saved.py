"""A run on disk: its folder says what it is, and is enough to use it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ..disk import write_whole
from ..nn.layer import Layer
from ..train.history import History, finite_or_none
from ..train.weights import load_weights
from ..types import Params, State, require
from .jobs import Job, place_of
from .recipes import NETS

NAME = "run.json"


class SavedRun(NamedTuple):
    """What `load_run` returns.

    Attributes:
        net: The network, as it was trained.
        params: Its parameters.
        state: Its own state, such as running averages.
        history: The figures of each epoch.
        description: What `run.json` says: `net`, `width`, `size` (what the network takes from its
            data: outputs, letters, channels), `data`, `input` (shape and dtype of an example),
            `classes`, `features`, `inputs` and `targets` (mean and deviation by which they were
            standardised, or None), `precision`, `funcnet` (the version), and how it was trained.
    """

    net: Layer
    params: Params
    state: State
    history: History
    description: dict[str, Any]


def describe(job: Job, asked_data: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What `run.json` is to say."""
    x = job.train[0]
    return {
        **settings,
        "data": place_of(asked_data),
        "input": {"shape": list(x.shape[1:]), "dtype": str(x.dtype)},
        **job.described,
    }


def save_description(out: Path, description: Mapping[str, Any]) -> None:
    """Write `run.json`."""
    content = json.dumps(finite_or_none(description), indent=2, allow_nan=False) + "\n"
    write_whole("train", out / NAME, content.encode())


def load_run(folder: str | Path) -> SavedRun:
    """The network that a run of `funcnet train` left, with all that its folder knows.

    Args:
        folder: The folder, `--out` of the run.

    Returns:
        Network, parameters, state, history, and the description in `run.json`.

    Raises:
        ValueError: If the folder is no run's, or is of another version of funcnet or damaged.

    >>> import tempfile
    >>> from funcnet.__main__ import main
    >>> out = tempfile.mkdtemp()
    >>> main(["train", "linear", "--data", "iris", "--batch", "16", "--epochs", "1", "--out", out])
    ... # doctest: +ELLIPSIS
    saved in ...
    0
    >>> run = load_run(out)
    >>> run.description["classes"], run.net(run.params, np.zeros((2, 4), np.float32)).shape
    (['setosa', 'versicolor', 'virginica'], (2, 3))
    """
    folder = Path(folder)
    about = _description(folder)
    recipe = NETS[about["net"]]
    net = recipe.net(about["size"], about["width"])
    x = jax.ShapeDtypeStruct((1, *about["input"]["shape"]), np.dtype(about["input"]["dtype"]))
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)
    params, state = load_weights(folder / "params.npz", *shapes)
    history = folder / "history.jsonl"
    rows = History.load(history) if history.exists() else History()
    return SavedRun(net, params, state, rows, about)


def _description(folder: Path) -> dict[str, Any]:
    path = folder / NAME
    there = (folder / "params.npz").is_file()
    kind = "not there" if not folder.exists() else "a file" if folder.is_file() else "another one"
    if not path.is_file():
        require(
            False,
            "load_run",
            f"the folder of a run, with {NAME} and params.npz",
            f"{folder}, a run of an earlier version" if there else f"{folder}, which is {kind}",
            "Train it again; fn.io.load_weights reads its params.npz." if there
            else "Name what funcnet train wrote to, such as runs/lenet-mnist5k.",
        )  # fmt: skip
    try:
        about: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        about = error
    needed = {"net", "width", "size", "data", "input"}
    require(
        isinstance(about, dict) and needed <= about.keys(),
        "load_run",
        f"what a run is, in {path}",
        f"a file without {', '.join(sorted(needed - about.keys()))}"
        if isinstance(about, dict)
        else f"no JSON object ({about})",
        "Train it again: the file is damaged.",
    )
    require(
        about["net"] in NETS,
        "load_run",
        f"a network among {', '.join(NETS)} in {path}",
        repr(about["net"]),
        "It is of another version of funcnet.",
    )
    return about
