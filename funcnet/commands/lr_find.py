"""`funcnet lr-find`: which learning rate to train a network with."""

import argparse
from typing import Any

from ..train.lr_find import lr_find
from ..train.optimizers import OPTIMIZERS, clipped
from .options import add_net, asked, check_numbers
from .recipes import NETS


def add_lr_find(command: Any) -> None:
    """The arguments of `funcnet lr-find`."""
    add_net(command)
    command.add_argument("--batch", type=int, metavar="N", help="examples in a step")
    command.add_argument("--optimizer", choices=OPTIMIZERS, default="adam", metavar="NAME",
                         help="from optax (default: adam)")  # fmt: skip
    command.add_argument(
        "--steps", type=int, default=120, metavar="N", help="how many, at most (default: 120)"
    )
    command.add_argument(
        "--out", default="lr.png", metavar="FILE", help="the picture (default: lr.png)"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Draw the loss against the rate, and say a rate in one line; 1 if the loss never fell."""
    recipe = NETS[options.net]
    batch = recipe.batch if options.batch is None else options.batch
    check_numbers(options, batch, batch)
    job = recipe.job(asked(options))
    check_numbers(options, len(job.train[-1]), batch)

    def optimizer(rate: Any) -> Any:
        return clipped(OPTIMIZERS[options.optimizer](rate), recipe.clip)

    found = lr_find(
        job.net, job.criterion, job.train, optimizer,
        batch=batch, steps=options.steps, seed=options.seed,
    )  # fmt: skip
    found.plot(options.out)
    tried = f"{options.net}, {job.data}, {len(found.rates)} steps, picture in {options.out}"
    if found.suggestion is None:
        print(f"no rate made the loss fall: {tried}")
        return 1
    print(
        f"try --lr {found.suggestion:.1g}; the loss is least at {found.least:.1g} and falls "
        f"fastest at {found.steepest:.1g}: {tried}"
    )
    return 0
