"""What the arguments of recurrent ops have to be."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...jaxpr.jaxprs import is_traced
from ...types import Array, require
from ..shared.precision import floating


def recurrent(gates: int, biases: dict[str, int], states: tuple[str, ...]) -> Callable[..., None]:
    """A check that shapes fit: `gates` maps to H units, each bias so many H long, states H wide.

    With a `w_proj` h is as wide as that makes it.
    """

    def _fits(
        op: str,
        *,
        x: Array,
        w_in: Array,
        w_hidden: Array,
        lengths: Array | None,
        mask: Array | None,
        w_proj: Array | None = None,
        **given: Any,
    ) -> None:
        floating(op, x)
        units = _check_weights(op, gates, x, w_in, w_hidden, w_proj)
        widths: dict[str, tuple[int, str]] = dict.fromkeys(states, (units, "units"))
        if w_proj is not None:
            widths["h0"] = w_proj.shape[1], "width"
        for name, n in biases.items():
            _check_shape(op, name, given[name], (n * units,), "", "Pass None for no bias.")
        for name, (n, word) in widths.items():
            means = f", (batch, {word})"
            remedy = "Pass None to start from 0."
            _check_shape(op, name, given[name], (x.shape[0], n), means, remedy)
        _check_lengths(op, x, lengths)
        _check_mask(op, x, mask)

    return _fits


def lstm(
    op: str,
    *,
    x: Array,
    w_in: Array,
    w_hidden: Array,
    b: Array | None,
    h0: Array | None,
    c0: Array | None,
    lengths: Array | None,
    mask: Array | None,
    w_proj: Array | None,
) -> None:
    """Raise unless the arguments of `lstm` fit."""
    given = {"x": x, "w_in": w_in, "w_hidden": w_hidden, "b": b, "h0": h0, "c0": c0}
    fits = recurrent(4, {"b": 4}, ("h0", "c0"))
    fits(op, **given, lengths=lengths, mask=mask, w_proj=w_proj)


def gru(
    op: str,
    *,
    x: Array,
    w_in: Array,
    w_hidden: Array,
    b: Array | None,
    b_hn: Array | None,
    h0: Array | None,
    lengths: Array | None,
    mask: Array | None,
    reset_after: bool,
) -> None:
    """Raise unless the arguments of `gru` fit."""
    require(
        reset_after or b_hn is None,
        op,
        "no b_hn with reset_after=False",
        f"one of shape {b_hn is not None and jnp.shape(b_hn)}",
        "Add it to the last third of b: there it is the same.",
    )
    given = {"x": x, "w_in": w_in, "w_hidden": w_hidden, "b": b, "b_hn": b_hn, "h0": h0}
    recurrent(3, {"b": 3, "b_hn": 1}, ("h0",))(op, **given, lengths=lengths, mask=mask)


def elman(
    op: str,
    *,
    x: Array,
    w_in: Array,
    w_hidden: Array,
    b: Array | None,
    h0: Array | None,
    lengths: Array | None,
    mask: Array | None,
    activation: str,
) -> None:
    """Raise unless the arguments of `elman` fit."""
    given = {"x": x, "w_in": w_in, "w_hidden": w_hidden, "b": b, "h0": h0}
    recurrent(1, {"b": 1}, ("h0",))(op, **given, lengths=lengths, mask=mask)
    require(
        activation in ("tanh", "relu"),
        op,
        "the activation 'tanh' or 'relu'",
        repr(activation),
        "Choose one of the two.",
    )


def _check_shape(
    op: str, name: str, x: Array | None, shape: tuple[int, ...], means: str, remedy: str
) -> None:
    require(
        x is None or jnp.shape(x) == shape,
        op,
        f"{name} of shape {shape}{means}",
        f"shape {x is not None and jnp.shape(x)}",
        remedy,
    )


def _check_weights(
    op: str, gates: int, x: Array, w_in: Array, w_hidden: Array, w_proj: Array | None
) -> int:
    """The number of units, where the weights fit."""
    columns = "units" if gates == 1 else f"{gates} units"
    require(
        jnp.ndim(x) == 3,
        op,
        "x of rank 3 (batch, time, features)",
        f"shape {jnp.shape(x)}",
        "One sequence is a batch of one: x[None].",
    )
    require(
        w_proj is None or jnp.ndim(w_proj) == 2,
        op,
        "w_proj of shape (units, width)",
        f"shape {w_proj is not None and jnp.shape(w_proj)}",
        "A PyTorch weight is the transpose: pass weight_hr.T.",
    )
    if w_proj is None:
        units = rows = len(w_hidden) if jnp.ndim(w_hidden) else 0
        expected = f"(units, {columns})"
    else:
        units, rows = w_proj.shape
        expected = f"{(rows, gates * units)}, (width, {columns}) of w_proj"
    require(
        jnp.shape(w_hidden) == (rows, gates * units),
        op,
        f"w_hidden of shape {expected}",
        f"shape {jnp.shape(w_hidden)}",
        "A PyTorch weight is the transpose: pass weight_hh.T.",
    )
    shape = x.shape[2], gates * units
    require(
        jnp.shape(w_in) == shape,
        op,
        f"w_in of shape {shape}, (features, {columns})",
        f"shape {jnp.shape(w_in)}",
        "Initialise the parameters with an input of this shape.",
    )
    return units


def _check_lengths(op: str, x: Array, lengths: Array | None) -> None:
    if lengths is None:
        return
    batch, time, _ = x.shape
    require(
        jnp.issubdtype(jnp.result_type(lengths), jnp.integer),
        op,
        "lengths of an integer dtype",
        f"{jnp.result_type(lengths)}",
        "They count the steps of each sequence; a mask comes after them.",
        TypeError,
    )
    require(
        jnp.shape(lengths) == (batch,),
        op,
        f"lengths of shape {(batch,)}, one for each sequence",
        f"shape {jnp.shape(lengths)}",
        "Pass None where all sequences are as long as x.",
    )
    if not is_traced(lengths) and batch:
        known = np.asarray(lengths)
        require(
            known.min() >= 0 and known.max() <= time,
            op,
            f"lengths from 0 to {time}, the steps of x",
            f"lengths from {known.min()} to {known.max()}",
            "Cut the longer sequences first.",
        )


def _check_mask(op: str, x: Array, mask: Array | None) -> None:
    if mask is None:
        return
    require(
        jnp.result_type(mask) == jnp.bool_,
        op,
        "a boolean mask",
        f"{jnp.result_type(mask)}",
        "It is True at the steps that count.",
        TypeError,
    )
    require(
        jnp.shape(mask) == x.shape[:2],
        op,
        f"a mask of shape {x.shape[:2]}, (batch, time)",
        f"shape {jnp.shape(mask)}",
        "It says of each step of each sequence whether it counts.",
    )
