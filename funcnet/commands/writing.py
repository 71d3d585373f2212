"""Networks that write text: their job, their judgement, and how they go on with a text."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..disk import write_whole
from ..feed.text import Text, load_text, windows
from ..nn.layer import Layer
from ..train.evaluate import evaluate
from ..train.state import TrainState
from ..types import require
from .files import opening
from .jobs import Arrays, Asked, Findings, Job, Kind

LENGTH = 64
"""Characters that a language model sees at a time."""


class Writer(NamedTuple):
    """A language model of an alphabet's size, and how to write with it.

    Attributes:
        net: From tokens to what the criterion takes.
        criterion: `(output, next tokens) -> scalar`, in nats a token.
        write: `(params, prompt, count, key) -> tokens`.
    """

    net: Layer
    criterion: Callable
    write: Callable


Build = Callable[[int, Sequence[int]], Writer]


def write_text(build: Build, asked: Asked) -> Job:
    """Guess each next character of a text, from pieces of `LENGTH`, and then write some.

    An epoch has pieces from so many random places that each character is seen two or three times.
    """
    text = load_text(None if asked.data == "python-help" else asked.data)
    require(
        min(len(text.train), len(text.test)) > LENGTH,
        "train",
        f"a text of {10 * (LENGTH + 1)} characters or more, of which a tenth is held out",
        f"{len(text.tokens)} in {asked.data}",
        "Bring a longer one.",
    )
    if asked.run is not None:
        text = _in_alphabet_of(asked.run, text)
    held = text.tokens if asked.other else text.test
    writer = build(len(text.alphabet), asked.width)
    train = windows(text.train, LENGTH, max(1, 5 * len(text.train) // (2 * LENGTH)))
    test = tuple(part[:512] for part in windows(held, LENGTH))
    judge = partial(_judge, writer, text, held[:32], test)
    described = {"size": len(text.alphabet), "alphabet": text.alphabet}
    return Job(writer.net, writer.criterion, {}, asked.data, train, test, judge, described)


def _in_alphabet_of(run: Mapping[str, Any], text: Text) -> Text:
    known = Text(text.tokens[:0], run["alphabet"], 0)
    return Text(known.encode(text.decode(text.tokens)), known.alphabet, text.cut)


def _judge(
    writer: Writer, text: Text, prompt: Any, test: Arrays, out: Path, trained: TrainState
) -> Findings:
    loss = evaluate(writer.net, writer.criterion, trained, test)["loss"]
    drawn = writer.write(trained.params, jnp.asarray(prompt[None]), 400, jax.random.key(1))
    sample = text.decode(prompt) + text.decode(drawn[0])
    write_whole("train", out / "sample.txt", (sample + "\n").encode())
    scores = {"perplexity": float(np.exp(loss)), "loss": loss}
    return Findings(scores, {"sample.txt"}, sample)


def predict(build: Build, run: Any, path: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """How the network goes on with the text of a file, which it reads the end of."""
    about = run.description
    known = Text(np.zeros(0, np.int32), about["alphabet"], 0)
    prompt = known.encode(opening(path)[-LENGTH:])
    writer = build(about["size"], about["width"])
    key = jax.random.key(options["seed"])
    drawn = writer.write(run.params, jnp.asarray(prompt[None]), options["length"], key)
    return [{"text": known.decode(drawn[0])}]


WRITING = Kind(write_text, lambda build, size, widths: build(size, widths).net, predict)
