"""What the arguments of ops along time have to be."""

from typing import Any

import jax.numpy as jnp

from ...types import Array, Key, is_whole, require, shown
from ..activations.checks import droppable
from ..shared.precision import floating


def rotary(
    op: str,
    *,
    x: Array,
    positions: Array | None,
    frequencies: Array | None,
    angles: Array | None,
    base: float,
    width: int | None,
) -> None:
    """Raise unless the arguments of `rotary` fit."""
    floating(op, x)
    given = frequencies if angles is None else angles
    require(
        jnp.ndim(x) == 4 and not (given is None and width is None and x.shape[3] % 2),
        op,
        "x of rank 4 (batch, time, heads, width) with an even width",
        f"shape {jnp.shape(x)}",
        "Its numbers are turned in pairs, head by head.",
    )
    batch, time, _, each = x.shape
    require(
        positions is None or jnp.shape(positions) in ((time,), (batch, time), (1, time)),
        op,
        f"positions of shape ({time},) or ({batch}, {time})",
        f"shape {positions is not None and jnp.shape(positions)}",
        "Pass None for 0, 1, 2, and so on.",
    )
    require(base > 0, op, "a base above 0", base, "The usual one is 10000.")
    require(
        width is None or (is_whole(width, 2) and width % 2 == 0 and width <= each),
        op,
        f"an even width from 2 to {each}, the numbers of a head",
        shown(width),
        "Pass None to turn all of them.",
    )
    most = each // 2 if width is None else width // 2
    _check_angles(op, positions, frequencies, angles, (batch, time), most, exact=width is not None)


def _check_angles(
    op: str,
    positions: Array | None,
    frequencies: Array | None,
    angles: Array | None,
    steps: tuple[int, int],
    most: int,
    *,
    exact: bool,
) -> None:
    """Raise unless these are for `most` pairs, or `exact` is false and they are for fewer."""
    (batch, time), pairs = steps, f"{most}" if exact else f"pairs up to {most}"

    def fits(x: Array | None, *before: tuple[int, ...]) -> bool:
        if x is None:
            return True
        *leading, n = jnp.shape(x) or (-1,)
        return tuple(leading) in before and (n == most if exact else 0 <= n <= most)

    require(
        fits(frequencies, ()),
        op,
        f"frequencies of shape ({pairs},)",
        f"shape {frequencies is not None and jnp.shape(frequencies)}",
        "One belongs to each pair of numbers that is turned.",
    )
    require(
        fits(angles, (time,), (batch, time), (1, time)),
        op,
        f"angles of shape ({time}, {pairs}) or ({batch}, {time}, {pairs})",
        f"shape {angles is not None and jnp.shape(angles)}",
        "One belongs to each pair of numbers at each position.",
    )
    require(
        angles is None or (positions is None and frequencies is None),
        op,
        "angles alone",
        "positions or frequencies beside them",
        "The angles are the product of the two.",
    )


def rotary_frequencies(width: int, base: float) -> None:
    """Raise unless the arguments of `rotary_frequencies` fit."""
    require(
        is_whole(width, 0) and width % 2 == 0 and base > 0,
        "rotary_frequencies",
        "an even width and a base above 0",
        f"width={shown(width)}, base={base}",
        "Two numbers make a pair that is turned.",
    )


def llama3_frequencies(factor: float, low: float, high: float, length: int) -> None:
    """Raise unless the arguments of `llama3_frequencies` fit."""
    require(
        factor > 0 and 0 < low < high and length > 0,
        "llama3_frequencies",
        "a factor and a length above 0, and low_freq_factor above 0 and below high_freq_factor",
        f"factor={factor}, low_freq_factor={low}, high_freq_factor={high}, length={length}",
        "Those of Llama 3.1 are 8, 1, 4 and 8192.",
    )


def attention(
    op: str,
    *,
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    bias: Array | None,
    key: Key | None,
    offset: Array | None,
    drop: float,
    chunk: int | None,
    window: Any,
    softcap: float | None,
) -> None:
    """Raise unless the arguments of `attention` fit."""
    check_heads(op, {"q": q, "k": k, "v": v})
    require(
        k.shape[:3] == v.shape[:3],
        op,
        f"v of the batch, keys and heads of k, whose shape is {k.shape}",
        f"shape {v.shape}",
        "One value belongs to each key.",
    )
    _check_seen(op, q, k, mask, bias, offset, window, softcap)
    require(
        0 <= drop < 1 and (drop == 0 or key is not None),
        op,
        "drop from 0 to less than 1, and a key with it",
        f"drop={drop}, {'no key' if key is None else 'a key'}",
        "Pass key=jax.random.key(0), another one for each step.",
    )
    if drop and key is not None:
        droppable("dropout", x=q, key=key, drop=drop)
    require(
        chunk is None or (is_whole(chunk) and chunk >= 1),
        op,
        "a chunk of 1 query or more, or None for all at once",
        repr(chunk),
        "Try 256.",
    )


def _check_seen(
    op: str, q: Array, k: Array, mask: Any, bias: Any, offset: Any, window: Any, softcap: Any
) -> None:
    full = (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
    _check_pairs(op, "mask", mask, full, jnp.bool_, "boolean")
    _check_pairs(op, "bias", bias, full, jnp.floating, "floating")
    require(
        offset is None
        or (jnp.ndim(offset) == 0 and jnp.issubdtype(jnp.result_type(offset), jnp.integer)),
        op,
        "an offset that is one integer, or None for 0",
        shown(offset),
        "It is the position of the first query among the keys.",
        TypeError,
    )
    ends = window if isinstance(window, tuple) else (window,)
    require(
        len(ends) <= 2 and all(n is None or is_whole(n, 0) for n in ends),
        op,
        "a window of 0 keys or more, or two numbers, before and after",
        repr(window),
        "None is for all of them: window=(128, None).",
    )
    require(
        softcap is None or softcap > 0,
        op,
        "a softcap above 0, or None",
        repr(softcap),
        "Scores stay within it; 50 is usual.",
    )


def attention_weights(
    op: str,
    *,
    q: Array,
    k: Array,
    mask: Array | None,
    bias: Array | None,
    offset: Array | None,
    window: Any,
    softcap: float | None,
) -> None:
    """Raise unless the arguments of `attention_weights` fit."""
    check_heads(op, {"q": q, "k": k})
    _check_seen(op, q, k, mask, bias, offset, window, softcap)


def check_heads(op: str, given: dict[str, Array]) -> None:
    """Raise unless q, k and whatever else is given have heads, and those of q and k fit."""
    for name, x in given.items():
        require(
            x is not None and jnp.ndim(x) == 4,
            op,
            f"{name} of rank 4 (batch, time, heads, width)",
            x if x is None else f"shape {jnp.shape(x)}",
            "The heads come after the time: project to (batch, time, heads * width) and reshape.",
        )
        floating(op, x, name)
    q, k = given["q"], given["k"]
    require(
        q.shape[0] == k.shape[0] and q.shape[3] == k.shape[3],
        op,
        f"k of the batch and width of q, whose shape is {q.shape}",
        f"shape {k.shape}",
        "Queries and keys have the same batch and the same width.",
    )
    require(
        k.shape[2] > 0 and q.shape[2] % k.shape[2] == 0,
        op,
        f"a number of key heads that divides the {q.shape[2]} heads of q",
        k.shape[2],
        "Each head of k and v serves a group of heads of q.",
    )


def _check_pairs(
    op: str, name: str, x: Array | None, full: tuple[int, ...], kind: Any, word: str
) -> None:
    """Raise unless what is given for pairs of query and key has its dtype and can be broadcast."""
    if x is None:
        return
    require(
        jnp.issubdtype(jnp.result_type(x), kind),
        op,
        f"a {word} {name}",
        f"{jnp.result_type(x)}",
        "A mask is boolean, True where a query may attend; a bias is added to the scores.",
        TypeError,
    )
    shape = (1,) * (4 - jnp.ndim(x)) + jnp.shape(x)
    require(
        len(shape) == 4 and all(n in (1, whole) for n, whole in zip(shape, full, strict=True)),
        op,
        f"a {name} that broadcasts to (batch, heads, queries, keys) = {full}",
        f"shape {jnp.shape(x)}",
        "Add axes of length 1: for the keys of each example, x[:, None, None, :].",
    )
