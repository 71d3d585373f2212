"""What stands between the layers: the identity, reshaping, a scale, a bias, a product of axes."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from ..nn.layer import Layer, pure, stateless, take
from ..ops.activations import rectifiers
from ..ops.products.einsum import einsum, terms_of
from ..ops.shared.precision import spread
from ..types import Array, Key, Params, is_whole, require, shown
from . import initializers
from .initializers import drawn


def Identity() -> Layer:
    """Its input.

    Returns:
        A layer named "identity".

    >>> Identity()({}, 3)
    3
    """

    def apply(x: Array) -> Array:
        return x

    return pure(apply, "identity")


def Scale(*, init: Callable = initializers.ones) -> Layer:
    """x · scale, channel by channel, the channels last.

    Args:
        init: `(key, shape, dtype) -> array` for `scale`, of shape `(channels,)`; a LayerScale of
            a vision transformer starts from `initializers.constant(1e-5)`.

    Returns:
        A layer named "scale", with the parameter `scale`.

    Raises:
        TypeError: At `init`, if an initialiser is no function or gives another shape.

    >>> Scale()({"scale": jnp.array([1.0, 2.0])}, jnp.ones((1, 2))).tolist()
    [[1.0, 2.0]]

    Reference: Touvron et al., "Going Deeper with Image Transformers", 2021, equation 4.
    """

    def draw(key: Key, x: Array) -> Params:
        return {"scale": drawn(init, key, x.shape[-1:], initializers.float_dtype(x))}

    def apply(params: Params, x: Array) -> Array:
        (scale,) = take("scale", params, "scale")
        return x * spread(scale, jnp.shape(x))

    return stateless(draw, apply, "scale")


def Bias(*, init: Callable = initializers.zeros) -> Layer:
    """x + b, channel by channel, the channels last.

    Args:
        init: `(key, shape, dtype) -> array` for `b`, of shape `(channels,)`.

    Returns:
        A layer named "bias", with the parameter `b`.

    Raises:
        TypeError: At `init`, if an initialiser is no function or gives another shape.

    >>> Bias()({"b": jnp.array([1.0, 2.0])}, jnp.ones((1, 2))).tolist()
    [[2.0, 3.0]]
    """

    def draw(key: Key, x: Array) -> Params:
        return {"b": drawn(init, key, x.shape[-1:], initializers.float_dtype(x))}

    def apply(params: Params, x: Array) -> Array:
        (b,) = take("bias", params, "b")
        return x + spread(b, jnp.shape(x))

    return stateless(draw, apply, "bias")


def Reshape(*shape: int) -> Layer:
    """Other axes after the first, which is the batch and stays.

    Args:
        *shape: The lengths of the other axes; one of them may be -1, for what is left.

    Returns:
        A layer named "reshape".

    Raises:
        ValueError: If a length is no whole number, or more than one is -1; when applied, if the
            number of elements does not fit.

    >>> Reshape(7, 7, -1)({}, jnp.ones((2, 98))).shape
    (2, 7, 7, 2)
    """

    require(
        all(is_whole(n, -1) for n in shape) and shape.count(-1) <= 1,
        "reshape",
        "whole numbers, at most one of them -1",
        shown(shape),
        "Write the axes after the batch one by one: Reshape(7, 7, -1).",
    )

    def apply(x: Array) -> Array:
        total = math.prod(jnp.shape(x)[1:])
        known = math.prod(n for n in shape if n != -1)
        free = shape.count(-1)
        fits = known == total if free == 0 else free == 1 and known > 0 and total % known == 0
        require(
            jnp.ndim(x) >= 1 and fits,
            "reshape",
            f"an example of as many elements as {shape} has",
            f"shape {jnp.shape(x)}",
            "The first axis is the batch and stays; one length may be -1.",
        )
        return jnp.reshape(x, (x.shape[0], *(total // known if n == -1 else n for n in shape)))

    return pure(apply, "reshape")


def Einsum(
    equation: str,
    shape: Sequence[int | None],
    *,
    bias_axes: str = "",
    w_init: Callable | None = None,
    b_init: Callable = initializers.zeros,
) -> Layer:
    """A dense layer over several axes: einsum(x, w), plus a bias along some axes of the output.

    `Einsum("btd,dhk->bthk", (None, 8, 64), bias_axes="hk")` projects to 8 heads of length 64.

    Args:
        equation: Letters of x, comma, letters of w, `->`, letters of the output.
        shape: The length of each axis of w; None for one that x has too.
        bias_axes: Letters of the output that the bias has, "" for no bias.
        w_init: `(key, shape, dtype) -> array` for `w`; None for a LeCun normal whose inputs are
            the letters that are summed over.
        b_init: The same for `b`, whose axes are the bias_axes in the order of the output.

    Returns:
        A layer named "einsum", with parameters `w` and, if there are bias_axes, `b`.

    Raises:
        TypeError: At `init`, if an initialiser is no function or gives another shape.
        ValueError: If the equation, the shape or the bias_axes do not fit together; at `init` or
            when applied, if x does not fit.

    >>> net = Einsum("btd,dhk->bthk", (None, 2, 3), bias_axes="hk")
    >>> params, _ = net.init(jax.random.key(0), jnp.ones((1, 5, 4)))
    >>> jax.tree.map(jnp.shape, params)
    {'b': (2, 3), 'w': (4, 2, 3)}
    """
    terms = terms_of(equation)
    require(
        len(terms) == 3,
        "einsum",
        "an equation of two operands, x and w",
        repr(equation),
        'Write "btd,dhk->bthk"; the op einsum takes any number of operands.',
    )
    first, second, output = terms
    given = tuple(shape) if isinstance(shape, Sequence) else ()
    lengths = dict(zip(second, given, strict=False))
    require(
        len(given) == len(second) and all(n is not None or c in first for c, n in lengths.items()),
        "einsum",
        f"a length for each of the axes {second} of w, None for those that x has",
        given or shown(shape),
        f"The equation is {equation!r}.",
    )
    free = {c for c in output if c in second}
    require(
        set(bias_axes) <= free and len(set(bias_axes)) == len(bias_axes),
        "einsum",
        f"bias_axes among the axes {''.join(c for c in output if c in free)} of w in the output",
        repr(bias_axes),
        "The bias is shared along the others.",
    )

    def init(key: Key, x: Array) -> Params:
        require(
            len(x.shape) == len(first),
            "einsum",
            f"x with axes {first}",
            f"shape {tuple(x.shape)}",
            f"The equation is {equation!r}.",
        )
        given = dict(zip(first, x.shape, strict=True))
        sizes = {c: given[c] if n is None else n for c, n in lengths.items()}
        w_key, b_key = jax.random.split(key)
        dtype = initializers.float_dtype(x)
        draw = w_init or _lecun(first, second, output)
        params = {"w": drawn(draw, w_key, tuple(sizes.values()), dtype)}
        if not bias_axes:
            return params
        return {
            **params,
            "b": drawn(b_init, b_key, tuple(sizes[c] for c in output if c in bias_axes), dtype),
        }

    def apply(params: Params, x: Array) -> Array:
        (w,) = take("einsum", params, "w")
        y = einsum(x, w, equation=equation)
        if not bias_axes:
            return y
        (b,) = take("einsum", params, "b")
        b = jnp.expand_dims(b, [i for i, c in enumerate(output) if c not in bias_axes])
        return y + spread(b, y.shape)

    return stateless(init, apply, "einsum")


def _lecun(first: str, second: str, output: str) -> Callable:
    """LeCun's normal distribution: an axis of w that is summed over is one of inputs."""
    axes = dict(enumerate(second))
    return initializers.lecun_normal(
        in_axis=[i for i, c in axes.items() if c not in output],
        out_axis=[i for i, c in axes.items() if c in output and c not in first],
        batch_axis=[i for i, c in axes.items() if c in output and c in first],
    )


def PReLU(*, init: Callable = initializers.constant(0.25), shared: bool = False) -> Layer:
    """x where x > 0, else slope · x, with a learned slope for each channel.

    Args:
        init: `(key, shape, dtype) -> array` for `slope`, of shape `(channels,)`.
        shared: Whether all channels share one slope, of shape `()`, as PyTorch's default is.

    Returns:
        A layer named "prelu", with the parameter `slope`.

    Raises:
        TypeError: At `init`, if an initialiser is no function or gives another shape.

    >>> x = jnp.array([[-1.0, 2.0]])
    >>> params, _ = PReLU().init(jax.random.key(0), x)
    >>> PReLU()(params, x).tolist()
    [[-0.25, 2.0]]

    Reference: He et al., "Delving Deep into Rectifiers", 2015, equation 1.
    """

    def draw(key: Key, x: Array) -> Params:
        shape = () if shared else x.shape[-1:]
        return {"slope": drawn(init, key, shape, initializers.float_dtype(x))}

    def apply(params: Params, x: Array) -> Array:
        (slope,) = take("prelu", params, "slope")
        return rectifiers.prelu(x, slope)

    return stateless(draw, apply, "prelu")
