"""English text as integers, one for each character, and the windows a language model learns from.

text = load_text()
x, y = windows(text.train, 64, 32, seed=0, step=0)
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from ..types import require


@dataclass(frozen=True)
class Text:
    """A text as integers.

    Attributes:
        tokens: Each character's place in the alphabet, int32.
        alphabet: The characters that occur, sorted.
        cut: Where the part that is held out begins.
    """

    tokens: np.ndarray
    alphabet: str
    cut: int

    @property
    def train(self) -> np.ndarray:
        """The tokens to learn from: the text up to `cut`."""
        return self.tokens[: self.cut]

    @property
    def test(self) -> np.ndarray:
        """The tokens held out: the rest."""
        return self.tokens[self.cut :]

    def encode(self, characters: str) -> np.ndarray:
        """The tokens of a string.

        Raises:
            ValueError: If a character is not in the alphabet.
        """
        place = {character: i for i, character in enumerate(self.alphabet)}
        strange = sorted(set(characters) - set(place))
        require(
            not strange,
            "encode",
            f"characters of the alphabet {self.alphabet!r}",
            f"{''.join(strange)!r} besides",
            "Leave them out.",
        )
        return np.array([place[character] for character in characters], np.int32)

    def decode(self, tokens: Sequence[int] | Any) -> str:
        """The string of the tokens.

        Raises:
            ValueError: If a token is outside the alphabet.
            TypeError: If the tokens are no integers.
        """
        places = np.asarray(tokens).ravel()
        require(
            places.dtype.kind in "iu" or not places.size,
            "decode",
            "tokens that are integers",
            f"dtype {places.dtype}",
            "They are places in the alphabet.",
            TypeError,
        )
        require(
            not places.size or (places.min() >= 0 and places.max() < len(self.alphabet)),
            "decode",
            f"tokens from 0 to {len(self.alphabet) - 1}",
            f"{places.min(initial=0)} to {places.max(initial=0)}",
            "They are places in the alphabet.",
        )
        return "".join(self.alphabet[i] for i in places)


def load_text(path: str | Path | None = None, *, held_out: float = 0.1) -> Text:
    """A text of a file, or English that is on every machine.

    Without a path it is the help that comes with Python, on its language: some 500,000 characters,
    the topics of `pydoc_data` in alphabetical order. Another Python has another edition of it.

    Args:
        path: A file in UTF-8.
        held_out: The part at the end of the text that is not learned from.

    Returns:
        The text as integers, its alphabet, and where its held-out part begins.

    Raises:
        ValueError: If the file cannot be read or is empty, either part of the text would be empty,
            or `held_out` is not between 0 and 1.

    >>> text = load_text()
    >>> text.decode(text.encode("a line of text"))
    'a line of text'
    >>> len(text.tokens) == len(text.train) + len(text.test)
    True
    """
    require(
        isinstance(held_out, Real) and 0 < held_out < 1,
        "load_text",
        "held_out between 0 and 1",
        repr(held_out),
        "It is the part at the end that is not learned from, such as 0.1.",
    )
    characters = _python_help() if path is None else _read(path)
    empty = f"an empty file, {path}"
    require(characters, "load_text", "a text of some characters", empty, "Bring another one.")
    cut = round(len(characters) * (1 - held_out))
    require(
        0 < cut < len(characters),
        "load_text",
        "some text on both sides of the cut",
        f"{len(characters)} characters and held_out={held_out}",
        "Bring a longer text.",
    )
    codes = np.frombuffer(characters.encode("utf-32-le"), np.uint32)
    alphabet, tokens = np.unique(codes, return_inverse=True)
    return Text(tokens.astype(np.int32), "".join(map(chr, alphabet)), cut)


def windows(
    tokens: np.ndarray, length: int, batch: int | None = None, *, seed: int = 0, step: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of a text, and the same pieces one token later, which is what comes next.

    With `batch`, that many pieces from places that depend on `(seed, step)` and on nothing else;
    without, all pieces one after another, without overlap: what `fit` takes, and a validation.

    Args:
        tokens: `(n,)`.
        length: Tokens in a piece.
        batch: How many pieces, or None.
        seed: 0 or above.
        step: Which batch of the run, 0 or above.

    Returns:
        Inputs and targets, `(batch, length)` each, in the dtype of the tokens.

    Raises:
        ValueError: If the text is shorter than one piece and the token after it, a size is no whole
            number of 1 or above, or a seed or a step none of 0 or above.

    >>> x, y = windows(np.arange(8), 3)
    >>> x.tolist(), y.tolist()
    ([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])
    """
    require(
        _whole(length, 1) and (batch is None or _whole(batch, 1)),
        "windows",
        "a length and a batch of 1 or more",
        f"length={length!r}, batch={batch!r}",
        "Write windows(text.train, 64, 32).",
    )
    require(
        _whole(seed, 0) and _whole(step, 0),
        "windows",
        "a seed and a step of 0 or more",
        f"seed={seed!r}, step={step!r}",
        "They choose the places of the pieces.",
    )
    tokens = np.asarray(tokens)
    require(
        tokens.ndim == 1,
        "windows",
        "tokens of shape (n,)",
        "a Text" if tokens.dtype == object else f"shape {tokens.shape}",
        "Write windows(text.train, 64, 32).",
    )
    require(
        len(tokens) > length,
        "windows",
        f"tokens of shape (n,) with n above the length {length}",
        f"shape {tokens.shape}",
        "Choose a shorter window: the last token needs one that follows it.",
    )
    last = len(tokens) - length - 1
    if batch is None:
        starts = np.arange(0, last + 1, length)
    else:
        starts = np.random.default_rng((seed, step)).integers(0, last + 1, batch)
    places = starts[:, None] + np.arange(length)
    return tokens[places], tokens[places + 1]


def _whole(number: Any, least: int) -> bool:
    return isinstance(number, int | np.integer) and bool(number >= least)


def _python_help() -> str:
    topics = importlib.import_module("pydoc_data.topics").topics
    return "\n\n".join(topics[name].strip() for name in sorted(topics))


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        require(False, "load_text", f"a file in UTF-8 at {path}", reason, "Check the path.")
        raise
