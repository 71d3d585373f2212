"""The command line: training, what was trained, proofs, traces and the verdicts."""

import argparse
import functools
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax

from . import __version__
from .commands.evaluate import add_evaluate
from .commands.inspect import add_check, add_summary
from .commands.lr_find import add_lr_find
from .commands.predict import add_predict
from .commands.trace import add_trace
from .commands.train import add_train
from .commands.verdicts import VERDICTS, add_verdict
from .types import Hint

REFUSALS = (ValueError, TypeError, OSError, ImportError, OverflowError, MemoryError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    The exit code is 0; 1 if a proof, the input or the training failed; 130 after Ctrl-C; 141 if
    what reads the output is gone.
    """
    if sys.stderr is None:  # closed, as under 2>&-: what is opened next would get its number
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that lacks a letter of a name gets its number; the work is not lost.
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args([_spaced(word) for word in words])

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", Hint)
            warnings.showwarning = functools.partial(_say, options.command)
            code = options.run(options)
            print(end="", flush=True)
            return code
    except BrokenPipeError:
        # What is still to be written at the exit would say so again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt as interrupt:
        if options.debug:
            raise
        print(f"\nfuncnet {options.command}: interrupted {interrupt}".rstrip(), file=sys.stderr)
        return 130
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


def _spaced(word: str) -> str:
    """-1e5 and the like with a space before them: argparse takes them for options without."""
    if not word.startswith("-") or re.fullmatch(r"-\d+|-\d*\.\d+", word):
        return word
    try:
        float(word)
    except ValueError:
        return word
    return f" {word}"


def _say(
    command: str, message: Warning | str, category: type[Warning], filename: str, lineno: int,
    file: Any = None, line: str | None = None,
) -> None:  # fmt: skip
    print(f"funcnet {command}: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="funcnet",
        description="Functional neural networks on JAX, with backpropagation written by hand.",
    )
    parser.add_argument("--version", action="version", version=f"funcnet {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add(commands, "train", add_train, "train a network on real data and save all of it",
        "  funcnet train lenet\n"
        "  funcnet train mlp --data digits --width 256 128 --epochs 20\n"
        "  funcnet train linear --data diabetes --optimizer sgd --lr 0.05\n"
        "  funcnet train lenet --data fashion-mnist --out runs/fashion\n"
        "  funcnet train gpt --data letters.txt")  # fmt: skip
    _add(commands, "evaluate", add_evaluate, "judge a trained network, class by class",
        "  funcnet evaluate runs/lenet-mnist5k\n"
        "  funcnet evaluate runs/linear-wine --data other.npz --out runs/other")  # fmt: skip
    _add(commands, "predict", add_predict, "say what a trained network makes of a file",
        "  funcnet predict runs/lenet-mnist5k seven.png\n"
        "  funcnet predict runs/linear-wine wines.csv --json\n"
        "  funcnet predict runs/gpt-python-help opening.txt --length 200")  # fmt: skip
    _add(commands, "lr-find", add_lr_find, "find a learning rate to train with",
        "  funcnet lr-find lenet\n"
        "  funcnet lr-find mlp --data wine --batch 16 --out wine.png")  # fmt: skip
    _add(commands, "check", add_check,
        "prove every hand-written rule against jax.vjp of its primal, or those of a function",
        "  funcnet check\n  funcnet check conv max_pool --dtype bfloat16\n"
        "  funcnet check model.py:loss --args 0.5 '[1.0, 2.0]' --html loss.html")  # fmt: skip
    _add(commands, "summary", add_summary, "print a network's layers, output shapes and parameters",
        "  funcnet summary lenet\n  funcnet summary mlp --width 64 64")  # fmt: skip
    _add(commands, "trace", add_trace, "print a function's primal, tangent and adjoint traces",
        "  funcnet trace\n"
        "  funcnet trace model.py:loss --args 0.5 '[1.0, 2.0]' --html loss.html")  # fmt: skip
    for verdict in VERDICTS:
        example = f"  funcnet {verdict.name} model.py:loss --args 0.5 '[1.0, 2.0]'"
        _add(
            commands, verdict.name, functools.partial(add_verdict, verdict), verdict.about, example
        )
    return parser


def _add(
    commands: Any, name: str, arguments: Callable[[Any], None], about: str, examples: str
) -> None:
    command = commands.add_parser(
        name,
        help=about,
        description=about[0].upper() + about[1:] + ".",
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments(command)


if __name__ == "__main__":
    sys.exit(main())
