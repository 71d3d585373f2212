"""Losses of pairs that belong together, among all others of a batch: contrastive learning.

The similarities are cosines over a temperature, `(batch, batch)`; they are made again in the
backward pass, so that only the embeddings are kept. Their products are taken in float32, since a
temperature makes their rounding large.
"""

import jax
import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..fast.rows import sum_over
from ..shared.masks import masked
from . import margin_cases as cases
from .margin_checks import pairs, views
from .reduction import count_of, each, mean_over, reduce
from .similarity import TINY, in_floats, unit


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _units(arrays: tuple[Array, Array], where: Array | None) -> tuple:
    """Of both arrays the rows of length 1, and one over what their lengths were."""
    (u, r), (v, s) = (unit(masked(x, None if where is None else where[:, None])) for x in arrays)
    return (u, v), (r, s)


def _through_unit(u: Array, r: Array, du: Array, where: Array | None) -> Array:
    """dx of u = x / ‖x‖, with r = 1 / ‖x‖."""
    dx = r * (du - u * sum_over(u * du, -1, keepdims=True))
    return masked(dx, None if where is None else where[:, None])


def _others(own: Array, where: Array | None) -> Array:
    """Which columns are among the choices of each row: its own, and all that count."""
    return own | (True if where is None else where)


def _shares(scores: Array, choices: Array | None) -> tuple[Array, Array]:
    """Of each row ln Σ exp over its choices, and the share of each of them."""
    scores = scores if choices is None else jnp.where(choices, scores, -jnp.inf)
    top = jax.lax.stop_gradient(scores.max(-1, keepdims=True, initial=-jnp.inf))
    powers = jnp.exp(scores - top)
    total = powers.sum(-1, keepdims=True)
    return (jnp.log(total) + top)[..., 0], powers / total


def _choices(n: int, where: Array | None) -> Array | None:
    return None if where is None else _others(jnp.eye(n, dtype=bool), where)


def _info_nce_forward(queries, keys, where, *, temperature, symmetric, reduction):
    (u, v), _ = _units((queries, keys), where)
    scores, choices = _product(u, v.T) / temperature, _choices(len(u), where)
    whole = _shares(scores, choices)[0]
    if symmetric:
        whole = (whole + _shares(scores.T, choices)[0]) / 2
    losses = masked(whole - jnp.diagonal(scores), where)
    return reduce(losses, count_of(where, losses.shape), reduction), (queries, keys, where)


def _info_nce_backward(res, dy, *, temperature, symmetric, reduction):
    """With u = q / ‖q‖, v = k / ‖k‖, and P the softmax of u vᵀ / τ along its rows:
    G = (P − I) dy / τ, of both ways the mean of this and of its like along columns;
    du = G v;  dv = Gᵀ u;  dq = (du − u Σ u du) / ‖q‖, so dk;  the mean divides dy by what counts
    """
    queries, keys, where = res
    (u, v), (r, s) = _units((queries, keys), where)
    scores, choices = _product(u, v.T) / temperature, _choices(len(u), where)
    dy = jnp.broadcast_to(each(dy, count_of(where, u.shape[:1]), reduction), u.shape[:1])
    dy = masked(dy, where)[:, None] / temperature
    own = jnp.eye(len(u), dtype=bool)
    slopes = (_shares(scores, choices)[1] - own) * dy
    if symmetric:
        slopes = (slopes + ((_shares(scores.T, choices)[1] - own) * dy).T) / 2
    du, dv = _product(slopes, v), _product(slopes.T, u)
    return _through_unit(u, r, du, where), _through_unit(v, s, dv, where), None


def _cosines(a: Array, b: Array) -> Array:
    """The definition: cosines of all rows of a with all of b, 0 for a row of length 0."""
    a, b = in_floats(a), in_floats(b)
    squares = [jnp.square(x).sum(-1) for x in (a, b)]
    lengths = [jnp.sqrt(jnp.where(s > TINY**2, s, 1)) for s in squares]
    u, v = (
        jnp.where((s > TINY**2)[:, None], x / length[:, None], 0)
        for x, s, length in zip((a, b), squares, lengths, strict=True)
    )
    return (u[:, None] * v).sum(-1)


@rule(
    _info_nce_forward,
    _info_nce_backward,
    cases=cases.INFO_NCE,
    check=pairs,
    wide=True,
    recomputes=True,
    fast=True,
    count=mean_over,
)
def info_nce(
    queries: Array,
    keys: Array,
    where: Array | None = None,
    *,
    temperature: float = 0.1,
    symmetric: bool = False,
    reduction: str = "mean",
) -> Array:
    """−ln (exp(c_ii / τ) / Σ_j exp(c_ij / τ)) for the cosine c_ij of query i and key j.

    The key of a query is that of its own row, and those of all other rows are its negatives. Keeps
    the two arrays alone.

    Args:
        queries: `(batch, features)`, of any length but 0: they are brought to length 1.
        keys: The same shape. They get a gradient; `jax.lax.stop_gradient(keys)` has none.
        where: Boolean `(batch,)`: which pairs count, as examples and as negatives; None for all.
        temperature: τ, above 0.
        symmetric: Whether each pair's loss is the mean of both ways, from query to keys and from
            key to queries, as for images and their captions.
        reduction: "mean" over the pairs, "sum" or "none".

    Returns:
        A scalar, or `(batch,)` for "none", in the dtype of the queries. A row of length 0 has
        cosine 0 with every other, and gradient 0.

    Raises:
        TypeError: If the queries are not floating or `where` is not boolean.
        ValueError: If a shape does not fit, `reduction` is unknown, or the temperature is not
            above 0.

    >>> q, k = jnp.eye(2), jnp.eye(2)
    >>> print(f"{info_nce(q, k, temperature=1.0):.4f}")  # ln(1 + 1/e)
    0.3133

    Reference: van den Oord, Li & Vinyals, "Representation Learning with Contrastive Predictive
        Coding", 2018, equation 4; Radford et al., "Learning Transferable Visual Models From Natural
        Language Supervision", 2021, figure 3 (symmetric).
    """
    mask = None if where is None else where[:, None]
    own = jnp.eye(len(queries), dtype=bool)
    # A cosine is 1 at most: less 1 none of these can overflow.
    powers = jnp.exp((_cosines(masked(queries, mask), masked(keys, mask)) - 1) / temperature)
    choices, of_own = _others(own, where), jnp.log(jnp.diagonal(powers))
    losses = jnp.log(jnp.where(choices, powers, 0).sum(1)) - of_own
    if symmetric:
        back = jnp.log(jnp.where(choices, powers.T, 0).sum(1)) - of_own
        losses = (losses + back) / 2
    return reduce(masked(losses, where), count_of(where, losses.shape), reduction)


def _two_views(first: Array, second: Array, where: Array | None) -> tuple:
    """All rows of length 1, one over their lengths, the partner of each and all its choices."""
    (u, v), lengths = _units((first, second), where)
    ahead = jnp.arange(2 * len(u))[:, None] - jnp.arange(2 * len(u))
    own, choices = jnp.abs(ahead) == len(u), ahead != 0
    if where is not None:
        choices &= _others(own, jnp.tile(where, 2))
    return jnp.concatenate([u, v]), lengths, own, choices


def _nt_xent_forward(first, second, where, *, temperature, reduction):
    z, _, _, choices = _two_views(first, second, where)
    n, scores = len(first), _product(z, z.T) / temperature
    whole = _shares(scores, choices)[0].reshape(2, n).mean(0)
    losses = masked(whole - jnp.diagonal(scores[:n, n:]), where)
    return reduce(losses, count_of(where, losses.shape), reduction), (first, second, where)


def _nt_xent_backward(res, dy, *, temperature, reduction):
    """With z the 2 n rows brought to length 1, Y their partners as a matrix, and P the softmax of
    z zᵀ / τ along its rows, without its diagonal:  G = (P − Y) dy / 2 τ;  dz = G z + Gᵀ z;
    dx = (dz − z Σ z dz) / ‖x‖;  the mean divides dy by the pairs that count
    """
    first, second, where = res
    z, (r, s), own, choices = _two_views(first, second, where)
    n = len(first)
    _, shares = _shares(_product(z, z.T) / temperature, choices)
    dy = masked(jnp.broadcast_to(each(dy, count_of(where, (n,)), reduction), (n,)), where)
    slopes = (shares - own) * jnp.tile(dy, 2)[:, None] / (2 * temperature)
    dz = _product(slopes, z) + _product(slopes.T, z)
    ends = zip((z[:n], z[n:]), (r, s), (dz[:n], dz[n:]), strict=True)
    return *(_through_unit(*end, where) for end in ends), None


@rule(
    _nt_xent_forward,
    _nt_xent_backward,
    cases=cases.NT_XENT,
    check=views,
    wide=True,
    recomputes=True,
    fast=True,
    count=mean_over,
)
def nt_xent(
    first: Array,
    second: Array,
    where: Array | None = None,
    *,
    temperature: float = 0.1,
    reduction: str = "mean",
) -> Array:
    """−ln of the share that a row's partner has of exp(cosine / τ) over all other 2 n − 1 rows.

    The n rows of both arrays are two views of n examples; the negatives of a row are all rows but
    itself and its partner. A pair's loss is the mean of those of its two rows. Keeps the two arrays
    alone.

    Args:
        first: `(batch, features)`, of any length but 0: they are brought to length 1.
        second: The same shape: the other view of each example.
        where: Boolean `(batch,)`: which pairs count, as examples and as negatives; None for all.
        temperature: τ, above 0.
        reduction: "mean" over the pairs, "sum" or "none".

    Returns:
        A scalar, or `(batch,)` for "none", in the dtype of the first. A row of length 0 has cosine
        0 with every other, and gradient 0.

    Raises:
        TypeError: If the first view is not floating or `where` is not boolean.
        ValueError: If a shape does not fit, `reduction` is unknown, or the temperature is not
            above 0.

    >>> print(f"{nt_xent(jnp.eye(2), jnp.eye(2), temperature=1.0):.4f}")  # ln(1 + 2/e)
    0.5514

    Reference: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations",
        2020, equation 1.
    """
    mask, n = None if where is None else where[:, None], len(first)
    rows = jnp.concatenate([masked(first, mask), masked(second, mask)])
    at = jnp.arange(2 * n)
    partner = at[:, None] == (at + n) % max(2 * n, 1)
    counts = jnp.ones(2 * n, bool) if where is None else jnp.tile(where, 2)
    powers = jnp.exp((_cosines(rows, rows) - 1) / temperature)
    powers = jnp.where((counts | partner) & (at[:, None] != at), powers, 0)
    of_partner = jnp.where(partner, powers, 0).sum(1)
    losses = (jnp.log(powers.sum(1)) - jnp.log(of_partner)).reshape(2, n).mean(0)
    return reduce(masked(losses, where), count_of(where, losses.shape), reduction)
