"""What can be asked of `funcnet train`: one table, from which the parser and `fit` are served."""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

from ..mesh.mesh import Mesh
from ..train.optimizers import OPTIMIZERS
from ..types import require
from .jobs import Asked
from .recipes import NETS


class Option(NamedTuple):
    """An option of `funcnet train`.

    Attributes:
        flag: How it is written.
        help: What it does, in a few words.
        form: What argparse is told besides.
        fit: The argument of `fit` that it becomes, or "" where the command sees to it.
        read: What makes that argument of the word; None takes it as it is.
    """

    flag: str
    help: str
    form: dict[str, Any]
    fit: str = ""
    read: Callable[[str], Any] | None = None


WHOLE = {"type": int, "metavar": "N"}
FOLDER = {"metavar": "DIR"}
SEED = Option("--seed", "of parameters, order and dropout (default: 0)",
              {"type": int, "default": 0, "metavar": "N"})  # fmt: skip

GROUPS: dict[str, tuple[Option, ...]] = {
    "training": (
        Option("--epochs", "passes over the training data", WHOLE),
        Option("--batch", "examples in a step", WHOLE),
        Option("--optimizer", "from optax (default: adam)",
               {"choices": OPTIMIZERS, "default": "adam", "metavar": "NAME"}),
        Option("--lr", "learning rate at its peak; it decays as a cosine",
               {"type": float, "metavar": "RATE"}),
        Option("--smoothing", "share of each label spread over the classes",
               {"type": float, "metavar": "P"}),
        Option("--class-weight", "balanced: each class weighs the same, however rare",
               {"choices": ("balanced",), "metavar": "balanced"}),
        Option("--clip", "cut gradients down to this norm", {"type": float, "metavar": "NORM"}),
        Option("--ema", "keep a running average of the parameters, such as 0.999",
               {"type": float, "metavar": "DECAY"}, "ema"),
        Option("--accumulate", "take each step in K parts, to save memory",
               {"type": int, "metavar": "K"}, "accumulate"),
        Option("--patience", "stop after N epochs without a better validation loss", WHOLE,
               "patience"),
        SEED,
    ),
    "running": (
        Option("--precision", "f32, bf16 or f16",
               {"choices": ("f32", "bf16", "f16"), "metavar": "KIND"}, "precision"),
        Option("--mesh", "split over devices: data=4,model=2", {"metavar": "AXES"}, "mesh",
               Mesh.parse),
        Option("--checkpoint", "save the run here as it goes", FOLDER, "checkpoint"),
        Option("--resume", "go on from the last checkpoint there", {"action": "store_true"},
               "resume"),
        Option("--profile", "write a trace of some steps, for xprof", FOLDER, "profile"),
    ),
    "output": (
        Option("--out", "where to write (default: runs/NET-DATA)", FOLDER),
        Option("--log", "TensorBoard's files there too, as it goes", {"action": "store_true"}),
    ),
}  # fmt: skip
"""The options by the heading they stand under in the help."""


def add_net(parser: Any, group: Any = None) -> None:
    """The arguments that say which network and which data; the networks are listed at the end."""
    nets = "\n".join(f"  {name:<8}{recipe.about}" for name, recipe in NETS.items())
    parser.epilog = f"networks:\n{nets}\n\n{parser.epilog or ''}"
    command = group or parser
    command.add_argument("net", metavar="NET", choices=NETS, help="one of those below")
    command.add_argument("--data", metavar="NAME|PATH", help="digits, breast_cancer, diabetes, "
        "wine, iris, mnist5k, fashion-mnist; a folder of images or of IDX files; a .csv, .parquet "
        "or .npz file; for a network that writes: python-help, or a text file")  # fmt: skip
    command.add_argument(
        "--width", type=int, nargs="+", metavar="N", help="its widths, where it has a choice"
    )
    if group is None:
        command.add_argument(SEED.flag, help=SEED.help, **SEED.form)


def add_training(train: Any) -> None:
    """The arguments of `funcnet train`, by what they are about."""
    add_net(train, train.add_argument_group("network and data"))
    for heading, options in GROUPS.items():
        group = train.add_argument_group(heading)
        for option in options:
            group.add_argument(option.flag, help=option.help, **option.form)


def for_fit(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `fit` that were asked for, by name."""
    given = {}
    for option in (option for group in GROUPS.values() for option in group if option.fit):
        value = getattr(options, option.flag[2:].replace("-", "_"))
        if value is not None and value is not False:
            given[option.fit] = option.read(value) if option.read else value
    return given


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
    for name in ("smoothing", "class-weight"):
        value = getattr(options, name.replace("-", "_"), None)
        require(
            not value or recipe.kind.classes,
            "funcnet",
            f"no --{name} for {options.net}, which tells no classes apart",
            f"--{name} {value}",
            "Leave it out.",
        )
    require(
        options.data != "",
        "funcnet",
        "a name or a path after --data",
        "''",
        f"Leave --data out for {recipe.data}.",
    )
    return Asked(
        options.data or recipe.data,
        tuple(options.width or recipe.width),
        getattr(options, "smoothing", None),
        getattr(options, "class_weight", None),
    )


def check_numbers(options: argparse.Namespace, examples: int, batch: int) -> None:
    """Refuse numbers that make no training.

    Raises:
        ValueError: If there is one.
    """
    epochs, seed = getattr(options, "epochs", None), options.seed
    require(
        epochs is None or epochs > 0,
        options.command,
        "--epochs of 1 or more",
        epochs,
        "Leave it out for the default.",
    )
    expected = f"--seed from 0 to {2**32 - 1}"
    require(0 <= seed < 2**32, options.command, expected, seed, "Leave it out for 0.")
    require(
        1 <= batch <= examples,
        options.command,
        f"--batch from 1 to {examples}, the examples to learn from",
        batch,
        f"Write --batch {max(1, min(examples // 4, 64))}, or bring more data.",
    )
    clip = getattr(options, "clip", None)
    expected, remedy = "--clip above 0", "Leave it out for the network's own."
    require(clip is None or clip > 0, options.command, expected, clip, remedy)
