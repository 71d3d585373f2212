"""The vision transformer: an image as a sequence of patches."""

from collections.abc import Callable

import jax.numpy as jnp

from ..layers import initializers
from ..layers.conv import Conv
from ..layers.dropout import Dropout, check_probability
from ..layers.initializers import drawn
from ..layers.linear import Dense
from ..layers.norm import LayerNorm, norm_of
from ..layers.position import LearnedPositions
from ..layers.transformer import TransformerBlock, shaped
from ..nn.combine import network
from ..nn.layer import Layer, stateless, take
from ..ops.shared.precision import spread
from ..types import Array, Key, Params, require


def ClassToken(*, init: Callable = initializers.normal(0.02)) -> Layer:
    """One learned token before those of a sequence `(batch, time, width)`, the same for all.

    Args:
        init: `(key, shape, dtype) -> array` for `token`, `(width,)`.

    Returns:
        A layer named "class_token", to `(batch, 1 + time, width)`.

    Raises:
        TypeError: At `init`, if an initialiser is no function or gives another shape.

    >>> import jax
    >>> x = jnp.ones((2, 3, 4))
    >>> params, _ = ClassToken().init(jax.random.key(0), x)
    >>> ClassToken()(params, x).shape
    (2, 4, 4)

    Reference: Devlin et al., "BERT", 2019, section 3.
    """

    def draw(key: Key, x: Array) -> Params:
        return {"token": drawn(init, key, x.shape[-1:], initializers.float_dtype(x))}

    def apply(params: Params, x: Array) -> Array:
        (token,) = take("class_token", params, "token")
        shape = (x.shape[0], 1, x.shape[2])
        first = jnp.broadcast_to(spread(token.astype(x.dtype), shape), shape)
        return jnp.concatenate([first, x], axis=1)

    return stateless(draw, apply, "class_token")


def ViT(
    outputs: int,
    *,
    patch: int,
    width: int,
    depth: int,
    heads: int,
    pool: str = "token",
    hidden: int | None = None,
    activation: str | Callable = "gelu",
    norm: Callable[[], Layer] = LayerNorm,
    drop: float = 0.0,
    drop_path: float = 0.0,
    chunk: int | None = None,
) -> Layer:
    """Patches of an image as tokens, positions, `depth` transformer blocks, and a dense head.

    Args:
        outputs: Number of outputs: logits, for a classifier.
        patch: Height and width of a patch.
        width: Features of a token.
        depth: Number of blocks.
        heads: Attention heads of a block.
        pool: "token" for the output of a learned class token, "mean" for the mean over patches.
        hidden: Hidden units of the feed-forward networks; None for four times the width.
        activation: Their activation.
        norm: Makes each norm.
        drop: Probability of dropping in training: what enters the first block, weights of
            attention, and what each branch adds.
        drop_path: Probability of leaving out a branch of the last block; it grows from 0 at the
            first.
        chunk: How many queries to look at together.

    Returns:
        A layer named "vit": images `(batch, height, width, channels)` to `(batch, outputs)`. The
        size of the images is fixed by the first.

    Raises:
        TypeError: If `norm` is a layer already, or wants arguments.
        ValueError: If an option is out of range, or patches do not fill the image.

    >>> import jax
    >>> net = ViT(10, patch=4, width=16, depth=2, heads=2)
    >>> images = jnp.zeros((2, 8, 8, 1))
    >>> params, _ = net.init(jax.random.key(0), images)
    >>> net(params, images).shape, params["positions"]["table"].shape
    ((2, 10), (5, 16))

    Reference: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021, section 3.1.
    """
    require(
        pool in ("token", "mean"),
        "ViT",
        'pool to be "token" or "mean"',
        repr(pool),
        "The class token is the first paper's choice.",
    )
    check_probability("ViT", "drop_path", drop_path, "leaving out a branch of the last block")
    names = [f"block_{i}" for i in range(depth)]
    blocks = {
        name: TransformerBlock(
            heads, hidden=hidden, activation=activation, norm=norm, drop=drop,
            drop_path=drop_path * i / max(depth - 1, 1), chunk=chunk,
        )
        for i, name in enumerate(names)
    }  # fmt: skip
    token = {"token": ClassToken()} if pool == "token" else {}

    @network(
        patches=Conv(width, patch, stride=patch),
        **token,
        positions=shaped(lambda x: LearnedPositions(x.shape[1]), "positions"),
        drop=Dropout(drop),
        **blocks,
        norm=norm_of("vit", norm),
        head=Dense(outputs),
    )
    def vit(net, images):
        require(
            jnp.ndim(images) == 4 and all(n % patch == 0 for n in images.shape[1:3]),
            "ViT",
            f"images (batch, height, width, channels) whose sides {patch} divides",
            f"shape {jnp.shape(images)}",
            "Crop or pad them, or choose another patch.",
        )
        x = net.patches(images).reshape(images.shape[0], -1, width)
        x = net.token(x) if token else x
        x = net.drop(net.positions(x))
        for name in names:
            x = getattr(net, name)(x)
        x = net.norm(x)
        return net.head(x[:, 0] if token else x.mean(axis=1))

    return vit
