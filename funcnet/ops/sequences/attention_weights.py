"""The weights of attention by themselves: to look at, or to use elsewhere."""

import jax.numpy as jnp

from ...rules.rule import rule
from ...types import Array
from ..shared.precision import product
from . import cases, checks
from .scores import Window, all_scores, heads_first, scale_of, weights_of


def _attention_weights_forward(q, k, mask, bias, offset, **options):
    s, _ = all_scores(q, k, mask, bias, offset, **options)
    return weights_of(s).astype(jnp.result_type(q, k)), (q, k, mask, bias, offset)


def _attention_weights_backward(res, dp, **options):
    """With Z = scale q kᵀ, S = softcap tanh(Z / softcap) + bias and P = softmax(S), row by row:
    dS = P (dP − Σ P dP);  dbias = dS;  dZ = dS (1 − tanh²(Z / softcap))
    dq = scale dZ k;  dk = scale dZᵀ q
    """
    q, k, _, bias, _ = res
    s, slope = all_scores(*res, **options)
    p = weights_of(s)
    ds = p * (dp - (p * dp).sum(-1, keepdims=True))
    dz = ds * slope * scale_of(q, options["scale"])
    (batch, keys, groups, width), heads = k.shape, q.shape[2]
    dtype = jnp.result_type(q, k)
    dq = product(dz, heads_first(k, heads), dtype)
    dk = product(dz.mT, heads_first(q), dtype)
    dk = dk.reshape(batch, groups, heads // groups, keys, width).sum(2)
    return heads_first(dq), heads_first(dk), None, _over(ds, bias), None


def _over(ds: Array, bias: Array | None) -> Array | None:
    """Summed over the axes along which the bias is shared."""
    if bias is None:
        return None
    lengths = (1,) * (4 - jnp.ndim(bias)) + jnp.shape(bias)
    shared = tuple(axis for axis, n in enumerate(lengths) if n == 1)
    return ds.sum(shared, keepdims=True).reshape(jnp.shape(bias))


@rule(
    _attention_weights_forward,
    _attention_weights_backward,
    cases=cases.ATTENTION_WEIGHTS,
    check=checks.attention_weights,
    recomputes=True,
    rounds=True,
)
def attention_weights(
    q: Array,
    k: Array,
    mask: Array | None = None,
    bias: Array | None = None,
    offset: Array | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    window: int | Window | None = None,
    softcap: float | None = None,
) -> Array:
    """softmax(scale q kᵀ + bias): what `attention` multiplies the values by, and never keeps.

    Args:
        q: Queries, `(batch, time, heads, width)`.
        k: Keys, `(batch, keys, key heads, width)`.
        mask: As of `attention`, like all that follows.
        bias: Added to the scores.
        offset: The position of the first query among the keys.
        causal: Whether a query attends to the keys up to its own position alone.
        scale: What the scores are multiplied by.
        window: How many keys before and after its own position a query attends to.
        softcap: What scores tend to and never reach.

    Returns:
        `(batch, heads, time, keys)`, in the dtype that q and k promote to: each row adds up to 1,
        or is 0 for a query that may attend to nothing.

    Raises:
        TypeError: If q, k or a bias is not floating, a mask not boolean, or an offset no integer.
        ValueError: If a shape does not fit, or an option is out of range.

    >>> q = k = jnp.zeros((1, 2, 1, 4))
    >>> attention_weights(q, k, causal=True)[0, 0].tolist()
    [[1.0, 0.0], [0.5, 0.5]]

    Reference: Vaswani et al., "Attention Is All You Need", 2017, equation 1.
    """
    s, _ = all_scores(
        q, k, mask, bias, offset, causal=causal, scale=scale, window=window, softcap=softcap
    )
    return weights_of(s).astype(jnp.result_type(q, k))
