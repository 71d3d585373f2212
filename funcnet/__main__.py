"""The command line: `funcnet train`, `funcnet check`, `funcnet summary`."""

import argparse
import contextlib
import difflib
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from . import RULES
from .check import LIMITS, prove_all
from .combine import serial
from .layer import Layer
from .layers.conv import Flatten
from .layers.linear import Dense
from .nets.convnet import LeNet
from .nets.mlp import MLP
from .ops.loss import binary_cross_entropy, cross_entropy, squared_error
from .train.data import Data, load_data
from .train.fit import Fitted, fit
from .train.history import confusion, finite_or_none, plot_confusion, write_whole
from .train.metrics import accuracy, r_squared
from .train.optimizers import OPTIMIZERS, named_optimizer
from .train.weights import save_weights
from .types import require

FILES = ("params.npz", "history.jsonl", "curves.png", "confusion.png", "result.json")
"""What `funcnet train` may leave in its folder."""

REFUSALS = (ValueError, TypeError, OSError, ImportError, OverflowError, MemoryError)


class Recipe(NamedTuple):
    """A network of the command line, and the job it does when nothing else is said."""

    build: Callable[[int, Sequence[int]], Layer]
    about: str
    data: str
    epochs: int
    lr: float
    width: tuple[int, ...] = ()
    smoothing: float = 0.0


NETS = {
    "lenet": Recipe(
        lambda outputs, width: LeNet(outputs),
        "two convolutions and three dense layers, for images",
        "mnist5k",
        15,
        2e-3,
    ),
    "mlp": Recipe(
        lambda outputs, width: serial(Flatten(), MLP((*width, outputs))),
        "dense layers with rectifiers, of any width and depth",
        "digits",
        40,
        1e-2,
        (256,),
        0.1,
    ),
    "linear": Recipe(
        lambda outputs, width: serial(Flatten(), Dense(outputs)),
        "one dense layer: logistic, softmax or linear regression",
        "breast_cancer",
        40,
        1e-2,
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, or 1 if a proof, the input or the training failed."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (*REFUSALS, jax.errors.JaxRuntimeError) as error:
        if options.debug:
            raise
        reason = str(error) or type(error).__name__
        print(f"funcnet {options.command}: {reason}", file=sys.stderr)
        for note in getattr(error, "__notes__", ()):
            # JAX adds a note of its own, about its traceback.
            if note.startswith("in layer "):
                print(f"  {note}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="funcnet",
        description="Functional neural networks on JAX, with backpropagation written by hand.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_train(commands)
    _add_check(commands)
    _add_summary(commands)
    return parser


def _command(commands: Any, name: str, run: Callable, about: str, examples: str) -> Any:
    command = commands.add_parser(
        name,
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def _add_net(command: Any) -> None:
    nets = "; ".join(f"{name}: {recipe.about}" for name, recipe in NETS.items())
    command.add_argument("net", metavar="NET", choices=NETS, help=nets)
    command.add_argument("--data", metavar="NAME|FOLDER", help="digits, breast_cancer, diabetes, "
        "wine, iris, mnist5k, fashion-mnist, a folder of IDX files, or a .npz file")  # fmt: skip
    command.add_argument("--width", type=int, nargs="+", metavar="N", help="hidden widths (mlp)")
    command.add_argument("--seed", type=int, default=0, help="of parameters, order and dropout")


def _add_train(commands: Any) -> None:
    train = _command(commands, "train", _train, "train a network on real data and save all of it",
        "  funcnet train lenet\n"
        "  funcnet train mlp --data digits --width 256 128 --epochs 20\n"
        "  funcnet train linear --data diabetes --optimizer sgd --lr 0.05\n"
        "  funcnet train lenet --data fashion-mnist --out runs/fashion")  # fmt: skip
    _add_net(train)
    train.add_argument("--epochs", type=int, metavar="N", help="passes over the training data")
    train.add_argument("--optimizer", choices=OPTIMIZERS, default="adam", help="from optax")
    train.add_argument("--lr", type=float, help="learning rate at its peak; it decays as a cosine")
    train.add_argument("--batch", type=int, default=64, metavar="N", help="examples in a step")
    train.add_argument(
        "--smoothing", type=float, metavar="P", help="label smoothing, with three classes or more"
    )
    train.add_argument("--out", metavar="DIR", help="where to write (default: runs/NET-DATA)")


def _add_check(commands: Any) -> None:
    check = _command(
        commands,
        "check",
        _check,
        "prove every hand-written rule against jax.vjp of its primal",
        "  funcnet check\n  funcnet check conv max_pool --dtype bfloat16",
    )
    check.add_argument("ops", nargs="*", metavar="OP", help="which (default: all)")
    check.add_argument("--dtype", choices=LIMITS, default="float64", help="the rules compute in it")


def _add_summary(commands: Any) -> None:
    summary = _command(
        commands,
        "summary",
        _summary,
        "print a network's layers, output shapes and parameters",
        "  funcnet summary lenet\n  funcnet summary mlp --width 64 64",
    )
    _add_net(summary)


class Task(NamedTuple):
    """What the targets ask for.

    Attributes:
        loss: What is reported.
        metric: The figure a person wants beside it.
        outputs: How many the network needs.
        decide: Outputs to classes.
    """

    loss: Callable
    metric: Callable
    outputs: int
    decide: Callable[[np.ndarray], np.ndarray]


def _task(data: Data) -> Task:
    """Regression on an output for each target, two classes on one logit, or several on theirs."""
    if data.classes is None:
        return Task(squared_error, r_squared, data.train[1].shape[1], lambda z: z)
    if len(data.classes) == 2:
        return Task(_column(binary_cross_entropy), accuracy, 1, lambda z: (z[:, 0] > 0).astype(int))
    return Task(cross_entropy, accuracy, len(data.classes), lambda z: z.argmax(-1))


def _check_classes(data: Data) -> None:
    targets = data.train[1]
    require(
        data.classes is None or targets.min() < targets.max(),
        "train",
        f"examples of two classes or more in {data.name}",
        f"only class {targets[0]}",
        "Bring examples of another class, or write y as float where it is no class.",
    )


def _smoothed(loss: Callable, smoothing: float) -> Callable:
    """The criterion to train on: label smoothing is for several classes alone."""
    if loss is cross_entropy and smoothing:
        return functools.partial(cross_entropy, label_smoothing=smoothing)
    return loss


def _column(f: Callable) -> Callable:
    """A loss of a column of outputs `(n, 1)` and targets `(n,)` or `(n, 1)`."""

    def on_column(output: Any, target: Any) -> Any:
        return f(output[:, 0], target.reshape(-1).astype(output.dtype))

    on_column.__name__ = f.__name__
    return on_column


def _train(options: argparse.Namespace) -> int:
    recipe = NETS[options.net]
    epochs = recipe.epochs if options.epochs is None else options.epochs
    lr = recipe.lr if options.lr is None else options.lr
    require(epochs > 0, "train", "--epochs of 1 or more", epochs, "Leave it out for the default.")
    data = load_data(options.data or recipe.data)
    _check_classes(data)
    task = _task(data)
    net = recipe.build(task.outputs, options.width or recipe.width)
    steps = epochs * (len(data.train[1]) // max(1, options.batch))
    criterion = _smoothed(
        task.loss, recipe.smoothing if options.smoothing is None else options.smoothing
    )
    optimizer = named_optimizer(options.optimizer, lr, steps)
    with _writable(options.out or f"runs/{options.net}-{data.name}") as out:
        start = time.perf_counter()
        fitted = fit(
            net,
            criterion,
            optimizer,
            data.train,
            epochs=epochs,
            batch=options.batch,
            validation=data.test,
            seed=options.seed,
            metrics={task.metric.__name__: task.metric},
        )
        seconds = time.perf_counter() - start
        result = {
            "net": options.net,
            "data": data.name,
            "epochs": len(fitted.history.rows),
            "seconds": round(seconds, 2),
            "stopped": fitted.stopped,
            "seed": options.seed,
            "batch": options.batch,
            "optimizer": options.optimizer,
            "lr": lr,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(fitted.state.params)),
            "train_examples": len(data.train[1]),
            "test_examples": len(data.test[1]),
        }
        _save(out, net, data, task, fitted, result)
    return 1 if fitted.stopped == "not finite" else 0


def _save(
    out: Path, net: Layer, data: Data, task: Task, fitted: Fitted, result: dict[str, Any]
) -> None:
    """Write the parameters, the history, the pictures and the figures; print the closing line."""
    state, (x, y) = fitted.state, data.test
    written = {"params.npz", "history.jsonl", "result.json"}
    save_weights(out / "params.npz", state.params, state.state)
    fitted.history.save(out / "history.jsonl")
    outputs = np.concatenate(
        [
            net.apply(state.params, state.state, jnp.asarray(x[i : i + 500]))[0]
            for i in range(0, len(x), 500)
        ]
    )
    name = task.metric.__name__
    result[name] = float(task.metric(jnp.asarray(outputs), jnp.asarray(y)))
    result["loss"] = float(task.loss(jnp.asarray(outputs), jnp.asarray(y)))
    if fitted.history.rows:
        fitted.history.plot(out / "curves.png")
        written.add("curves.png")
    if data.classes is not None:
        counts = confusion(y, task.decide(outputs), len(data.classes))
        plot_confusion(counts, data.classes, out / "confusion.png")
        written.add("confusion.png")
    content = json.dumps(finite_or_none(result), indent=2, allow_nan=False) + "\n"
    write_whole("train", out / "result.json", content.encode())
    for stale in set(FILES) - written:
        (out / stale).unlink(missing_ok=True)
    print(f"saved in {out}: {', '.join(sorted(written))}")
    stopped = f", {fitted.stopped}" if fitted.stopped else ""
    print(
        f"test {name.replace('_', ' ')} {result[name]:.3f}, loss {result['loss']:.3g}: "
        f"{result['net']}, {result['data']}, {result['epochs']} epochs, "
        f"{result['seconds']:.1f} s{stopped}"
    )


@contextlib.contextmanager
def _writable(folder: str) -> Iterator[Path]:
    """The output folder, made and tried before any time is spent on training.

    If nothing was written in it, a folder made here goes away with the error.
    """
    out, made = Path(folder), []
    try:
        made = [place for place in (out, *out.parents) if not place.exists()]
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        _remove_empty(made)
        raise OSError(
            f"train: expected a folder to write in for --out, got {out} ({error.strerror}). "
            "Name another one."
        ) from None
    try:
        yield out
    except BaseException:
        _remove_empty(made)
        raise


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _check(options: argparse.Namespace) -> int:
    for name in options.ops:
        near = ", ".join(difflib.get_close_matches(name, RULES)) or ", ".join(RULES)
        require(name in RULES, "check", "the name of an op", repr(name), f"Did you mean {near}?")
    rules = [RULES[name] for name in options.ops] or None
    live = sys.stderr.isatty()

    def show(op: str) -> None:
        print(f"\r\033[Kproving {op}", end="", file=sys.stderr, flush=True)

    found = prove_all(rules, options.dtype, show) if live else prove_all(rules, options.dtype)
    if live:
        print("\r\033[K", end="", file=sys.stderr)
    print(found)
    return 1 if found.failures else 0


def _summary(options: argparse.Namespace) -> int:
    recipe = NETS[options.net]
    data = load_data(options.data or recipe.data)
    net = recipe.build(_task(data).outputs, options.width or recipe.width)
    x = data.train[0]
    print(net.summary(jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
