"""`funcnet train`: run a job, save all that it leaves, and say in one line how it went."""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from ..disk import write_whole
from ..train.fit import Fitted, fit
from ..train.history import finite_or_none
from ..train.optimizers import OPTIMIZERS, named_optimizer
from ..train.weights import save_weights
from ..types import require
from .jobs import Asked, Findings, Job, classify
from .recipes import NETS

FILES = (
    "params.npz",
    "history.jsonl",
    "curves.png",
    "confusion.png",
    "samples.png",
    "sample.txt",
    "result.json",
)
"""What `funcnet train` may leave in its folder."""

PLACES = {"accuracy": ".3f", "r_squared": ".3f"}
"""How a score is written, if not with three digits."""


def add_net(command: Any) -> None:
    """The arguments that say which network and which data."""
    nets = "; ".join(f"{name}: {recipe.about}" for name, recipe in NETS.items())
    command.add_argument("net", metavar="NET", choices=NETS, help=nets)
    command.add_argument("--data", metavar="NAME|PATH", help="digits, breast_cancer, diabetes, "
        "wine, iris, mnist5k, fashion-mnist, a folder of IDX files, or a .npz file; for a network "
        "that writes: python-help, or a text file")  # fmt: skip
    command.add_argument(
        "--width", type=int, nargs="+", metavar="N", help="its widths, where it has a choice"
    )
    command.add_argument("--seed", type=int, default=0, help="of parameters, order and dropout")


def add_train(train: Any) -> None:
    """The arguments of `funcnet train`."""
    add_net(train)
    train.add_argument("--epochs", type=int, metavar="N", help="passes over the training data")
    train.add_argument("--optimizer", choices=OPTIMIZERS, default="adam", help="from optax")
    train.add_argument("--lr", type=float, help="learning rate at its peak; it decays as a cosine")
    train.add_argument("--batch", type=int, metavar="N", help="examples in a step")
    train.add_argument(
        "--smoothing",
        type=float,
        metavar="P",
        help="share of each label spread over the classes",
    )
    train.add_argument("--out", metavar="DIR", help="where to write (default: runs/NET-DATA)")
    train.set_defaults(run=run)


def asked(options: argparse.Namespace) -> Asked:
    """What the person asked for, filled up with the recipe's own."""
    recipe = NETS[options.net]
    require(
        bool(recipe.width) or options.width is None,
        "funcnet",
        f"no --width for {options.net}, which has no choice of widths",
        f"--width {' '.join(map(str, options.width or ()))}",
        "Leave it out.",
    )
    count = len(recipe.width)
    require(
        options.net == "mlp" or options.width is None or len(options.width) == count or count > 1,
        "funcnet",
        f"one --width for {options.net}",
        f"{len(options.width or ())} of them",
        "Write --width 128.",
    )
    smoothing = getattr(options, "smoothing", None)
    require(
        not smoothing or getattr(recipe.job, "func", None) is classify,
        "funcnet",
        f"no --smoothing for {options.net}, which tells no classes apart",
        f"--smoothing {smoothing}",
        "Leave it out.",
    )
    require(
        options.data != "",
        "funcnet",
        "a name or a path after --data",
        "''",
        f"Leave --data out for {recipe.data}.",
    )
    return Asked(options.data or recipe.data, tuple(options.width or recipe.width), smoothing)


def run(options: argparse.Namespace) -> int:
    """Train; 1 if the run diverged."""
    recipe = NETS[options.net]
    epochs = recipe.epochs if options.epochs is None else options.epochs
    lr = recipe.lr if options.lr is None else options.lr
    batch = recipe.batch if options.batch is None else options.batch
    _check_numbers(epochs, options.seed)
    job = recipe.job(asked(options))
    examples = len(job.train[-1])
    _check_batch(batch, examples)
    steps = epochs * -(-examples // batch)
    place = f"runs/{options.net}-{_stem(job.data)}" if options.out is None else options.out
    with _writable(place) as out:
        start = time.perf_counter()
        fitted = fit(
            job.net,
            job.criterion,
            named_optimizer(options.optimizer, lr, steps, clip=recipe.clip),
            job.train,
            epochs=epochs,
            batch=batch,
            validation=job.test,
            seed=options.seed,
            metrics=job.metrics,
        )
        seconds = time.perf_counter() - start
        result = {
            "net": options.net,
            "data": job.data,
            "epochs": len(fitted.history.rows),
            "seconds": round(seconds, 2),
            "stopped": fitted.stopped,
            "seed": options.seed,
            "batch": batch,
            "optimizer": options.optimizer,
            "lr": lr,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(fitted.state.params)),
            "train_examples": examples,
            "test_examples": len(job.test[-1]),
        }
        if fitted.stopped == "not finite" and _holds_a_better_run(out):
            print(
                f"funcnet train: diverged in epoch {len(fitted.history.rows)} and saved nothing: "
                f"{out} keeps the files of an earlier run. Try a smaller --lr than {lr:g}.",
                file=sys.stderr,
            )
            return 1
        if not fitted.history.rows:
            raise KeyboardInterrupt("before the end of the first step; nothing was saved")
        try:
            _save(out, job, fitted, result)
        except KeyboardInterrupt:
            there = ", ".join(name for name in FILES if (out / name).is_file()) or "nothing"
            raise KeyboardInterrupt(f"while saving: {out} holds {there}") from None
    return 1 if fitted.stopped == "not finite" else 0


def _check_numbers(epochs: int, seed: int) -> None:
    require(epochs > 0, "train", "--epochs of 1 or more", epochs, "Leave it out for the default.")
    require(
        0 <= seed < 2**32,
        "train",
        f"--seed from 0 to {2**32 - 1}",
        seed,
        "Leave it out for 0.",
    )


def _check_batch(batch: int, examples: int) -> None:
    require(
        1 <= batch <= examples,
        "train",
        f"--batch from 1 to {examples}, the examples to learn from",
        batch,
        f"Write --batch {max(1, min(examples // 4, 64))}, or bring more data.",
    )


def _holds_a_better_run(out: Path) -> bool:
    """Whether there are parameters of a run that is not known to have diverged."""
    try:
        earlier = json.loads((out / "result.json").read_text())
    except (OSError, ValueError):
        earlier = None
    diverged = isinstance(earlier, dict) and earlier.get("stopped") == "not finite"
    return (out / "params.npz").exists() and not diverged


def _stem(data: str) -> str:
    """The name of the data, or of the file of text, without what a folder's name cannot hold."""
    return Path(data).name.removesuffix(".txt")


def _save(out: Path, job: Job, fitted: Fitted, result: dict[str, Any]) -> None:
    """Write the parameters, the history, the pictures and the figures; print the closing line.

    What an earlier run left goes away as soon as its parameters are gone: whatever happens then, no
    file is of another run than the parameters.
    """
    written = {"params.npz", "history.jsonl", "result.json"}
    save_weights(out / "params.npz", fitted.state.params, fitted.state.state)
    for stale in FILES[1:]:
        (out / stale).unlink(missing_ok=True)
    fitted.history.save(out / "history.jsonl")
    if fitted.history.rows:
        fitted.history.plot(out / "curves.png")
        written.add("curves.png")
    found: Findings = job.judge(out, fitted.state)
    result |= found.scores
    content = json.dumps(finite_or_none(result), indent=2, allow_nan=False) + "\n"
    write_whole("train", out / "result.json", content.encode())
    if found.printed:
        print(f"{found.printed}\n")
    print(f"saved in {out}: {', '.join(sorted(written | found.files))}")
    scores = ", ".join(
        f"{name.replace('_', ' ')} {value:{PLACES.get(name, '.3g')}}"
        for name, value in found.scores.items()
    )
    stopped = f", {fitted.stopped}" if fitted.stopped else ""
    epochs = "1 epoch" if result["epochs"] == 1 else f"{result['epochs']} epochs"
    print(
        f"test {scores}: {result['net']}, {result['data']}, {epochs}, "
        f"{result['seconds']:.1f} s{stopped}"
    )


@contextlib.contextmanager
def _writable(folder: str) -> Iterator[Path]:
    """The output folder, made and tried before any time is spent on training.

    If nothing was written in it, a folder made here goes away with the error.
    """
    require(
        folder != "", "train", "a folder to write in for --out", "''", "Leave it out for runs/..."
    )
    out, made = Path(folder), []
    try:
        made = [place for place in (out, *out.parents) if not place.exists()]
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".writable.{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except (OSError, ValueError) as error:
        _remove_empty(made)
        raise OSError(
            f"train: expected a folder to write in for --out, got {out} "
            f"({getattr(error, 'strerror', None) or error}). Name another one."
        ) from None
    blocked = [name for name in FILES if (out / name).is_dir()]
    require(
        not blocked,
        "train",
        f"files or nothing at the names that it writes in {out}",
        f"a folder {', '.join(blocked)}",
        "Name another folder with --out.",
    )
    try:
        yield out
    except BaseException:
        _remove_empty(made)
        raise


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
