"""What a network of the command line learns, how it is judged, and what it leaves to look at."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..feed.named import NAMES
from ..nn.layer import Layer
from ..train.state import TrainState

Arrays = tuple[Any, ...]


class Findings(NamedTuple):
    """What is known of a trained network.

    Attributes:
        scores: Figures of the held-out data, the loss last.
        files: The names of the files written for people to look at.
        printed: What to show besides.
        details: Figures for a file besides the scores.
    """

    scores: dict[str, float]
    files: set[str]
    printed: str = ""
    details: dict[str, Any] = {}  # noqa: RUF012  # read only


class Job(NamedTuple):
    """A network and the data it is to learn.

    Attributes:
        net: The network, as it is trained.
        criterion: `(output, target) -> scalar`, what is made small.
        metrics: Figures beside it, for the line of progress.
        data: The data's name.
        train: Inputs and target to learn from.
        test: The same, held out.
        judge: From a folder and a state of training to what is found.
        examine: The same in more detail, if there is more to say.
        described: What a run's folder says of its data, ready for JSON: `size`, which is what the
            network takes from it, and `classes`, `features` and the like.
    """

    net: Layer
    criterion: Callable
    metrics: Mapping[str, Callable]
    data: str
    train: Arrays
    test: Arrays
    judge: Callable[[Path, TrainState], Findings]
    described: dict[str, Any]
    examine: Callable[[Path, TrainState], Findings] | None = None


class Asked(NamedTuple):
    """What the person asked for.

    Attributes:
        data: A name or a path.
        width: The network's widths.
        smoothing: Label smoothing, or None for the recipe's own.
        class_weight: "balanced", or None.
        run: The description of the run whose network is to be judged on that data; None where one
            is to be trained. Data of another name counts whole then, as nothing of it was learned.
    """

    data: str
    width: tuple[int, ...]
    smoothing: float | None = None
    class_weight: str | None = None
    run: Mapping[str, Any] | None = None

    @property
    def other(self) -> bool:
        """Whether a run is judged on data that is not its own."""
        return self.run is not None and place_of(self.data) != self.run["data"]


class Kind(NamedTuple):
    """What networks of one kind do; `build` is what a recipe has of its own.

    Attributes:
        job: `(build, asked) -> Job`.
        net: `(build, size, widths) -> Layer`, the network as it is trained.
        predict: `(build, run, path, options) -> records` of a file; None where there is nothing to
            predict.
        classes: Whether they tell classes apart.
    """

    job: Callable[[Any, Asked], Job]
    net: Callable[[Any, Any, Sequence[int]], Layer]
    predict: Callable[..., list[Any]] | None = None
    classes: bool = False


def place_of(data: str) -> str:
    """The data's name, or its path from the root."""
    return str(Path(data).resolve()) if data not in NAMES and Path(data).exists() else data


def in_parts(net: Layer, trained: Any, x: Any, size: int = 500) -> np.ndarray:
    """The outputs of a whole set, computed in parts, since it may not fit at once."""
    parts = [jnp.asarray(x[i : i + size]) for i in range(0, len(x), size)]
    return np.concatenate([net.apply(trained.params, trained.state, part)[0] for part in parts])
