"""`funcnet train`: run a job, save all that it leaves, and say in one line how it went."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax

from .. import __version__
from ..disk import write_whole
from ..train.fit import Fitted, fit
from ..train.history import finite_or_none
from ..train.log import RunLog
from ..train.optimizers import average_of, named_optimizer
from ..train.weights import save_weights
from .folder import files_in, holds_a_better_run, live, remove_stale, writable
from .jobs import Findings, Job
from .options import add_training, asked, check_numbers, for_fit
from .recipes import NETS
from .saved import describe, save_description

PLACES = {"accuracy": ".3f", "balanced_accuracy": ".3f", "r_squared": ".3f"}
"""How a score is written, if not with three digits."""


def add_train(train: Any) -> None:
    """The arguments of `funcnet train`."""
    add_training(train)
    train.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train; 1 if the run diverged."""
    recipe = NETS[options.net]
    wanted = asked(options)
    settings: dict[str, Any] = {
        "net": options.net,
        "width": list(wanted.width),
        "epochs": recipe.epochs if options.epochs is None else options.epochs,
        "batch": recipe.batch if options.batch is None else options.batch,
        "optimizer": options.optimizer,
        "lr": recipe.lr if options.lr is None else options.lr,
        "clip": recipe.clip if options.clip is None else options.clip,
        "seed": options.seed,
        "precision": options.precision or "f32",
        "funcnet": __version__,
    }
    check_numbers(options, sys.maxsize, 1)
    job = recipe.job(wanted)
    check_numbers(options, len(job.train[-1]), settings["batch"])
    place = f"runs/{options.net}-{_stem(job.data)}" if options.out is None else options.out
    with writable(place) as out, live(out) as growing:
        start = time.perf_counter()
        fitted = _fit(job, settings, {"log": RunLog(growing, options.log)} | for_fit(options))
        result = _result(job, settings, fitted, time.perf_counter() - start)
        if fitted.stopped == "not finite" and holds_a_better_run(out):
            print(
                f"funcnet train: diverged in epoch {len(fitted.history.rows)} and saved nothing: "
                f"{out} keeps the files of an earlier run. Try a smaller --lr than "
                f"{settings['lr']:g}.",
                file=sys.stderr,
            )
            return 1
        if not fitted.history.rows:
            raise KeyboardInterrupt("before the end of the first step; nothing was saved")
        try:
            _save(out, growing, job, fitted, result, describe(job, wanted.data, settings))
        except KeyboardInterrupt:
            there = ", ".join(files_in(out)) or "nothing"
            raise KeyboardInterrupt(f"while saving: {out} holds {there}") from None
    return 1 if fitted.stopped == "not finite" else 0


def _fit(job: Job, settings: dict[str, Any], more: dict[str, Any]) -> Fitted:
    """The run; with a running average, its parameters are the average."""
    steps = settings["epochs"] * -(-len(job.train[-1]) // settings["batch"])
    fitted = fit(
        job.net,
        job.criterion,
        named_optimizer(settings["optimizer"], settings["lr"], steps, clip=settings["clip"]),
        job.train,
        epochs=settings["epochs"],
        batch=settings["batch"],
        validation=job.test,
        seed=settings["seed"],
        metrics=job.metrics,
        **more,
    )
    if "ema" not in more:
        return fitted
    state = fitted.state
    return fitted._replace(state=state._replace(params=average_of(state.opt_state)))


def _result(job: Job, settings: dict[str, Any], fitted: Fitted, seconds: float) -> dict[str, Any]:
    kept = ("seed", "batch", "optimizer", "lr")
    return {
        "net": settings["net"],
        "data": job.data,
        "epochs": len(fitted.history.rows),
        "seconds": round(seconds, 2),
        "stopped": fitted.stopped,
        **{name: settings[name] for name in kept},
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(fitted.state.params)),
        "train_examples": len(job.train[-1]),
        "test_examples": len(job.test[-1]),
    }


def _stem(data: str) -> str:
    """The name of the data, or of the file of text, without what a folder's name cannot hold."""
    return Path(data).name.removesuffix(".txt")


def _save(
    out: Path,
    growing: Path,
    job: Job,
    fitted: Fitted,
    result: dict[str, Any],
    description: dict[str, Any],
) -> None:
    """Write the parameters, the history, the pictures and the figures; print the closing line.

    What an earlier run left goes away as soon as its parameters are gone: whatever happens then, no
    file is of another run than the parameters.
    """
    written = {"params.npz", "run.json", "history.jsonl", "result.json"}
    save_weights(out / "params.npz", fitted.state.params, fitted.state.state)
    remove_stale(out, growing)
    save_description(out, description)
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
    stopped = f", {fitted.stopped}" if fitted.stopped else ""
    epochs = "1 epoch" if result["epochs"] == 1 else f"{result['epochs']} epochs"
    print(
        f"test {scores_in_words(found.scores)}: {result['net']}, {result['data']}, {epochs}, "
        f"{result['seconds']:.1f} s{stopped}"
    )


def scores_in_words(scores: dict[str, float]) -> str:
    """Scores in a line.

    >>> scores_in_words({"accuracy": 0.98, "loss": 0.1})
    'accuracy 0.980, loss 0.1'
    """
    return ", ".join(
        f"{name.replace('_', ' ')} {value:{PLACES.get(name, '.3g')}}"
        for name, value in scores.items()
    )
