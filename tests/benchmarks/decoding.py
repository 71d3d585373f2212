"""Decoding a GPT by `sample` against a decoder written by hand in plain JAX.

    python -m tests.benchmarks decoding

Both take the same parameters and must write the same tokens. The prefill reads 8 prompts of 128
tokens and gives the first token after each.
"""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

import funcnet as fn
from funcnet.types import Array, Params

VOCABULARY, WIDTH, DEPTH, HEADS, LENGTH = 16384, 256, 4, 4, 256
TOKENS, ROUNDS = 100, 7

Cache = list[tuple[Array, Array]]


def norm(params: Params, x: Array) -> Array:
    """The layer norm along the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(variance + 1e-5) * params["scale"] + params["shift"]


def packed(params: Params) -> tuple[Array, Array]:
    """The weights of q, k and v side by side, and their biases."""
    parts = [params[name] for name in ("q", "k", "v")]
    w = jnp.concatenate([part["w"].reshape(WIDTH, -1) for part in parts], axis=1)
    return w, jnp.concatenate([part["b"].reshape(-1) for part in parts])


def blocks(params: Params, cache: Cache, ids: Array, at: Array | int) -> tuple[Array, Cache]:
    """The features of the tokens, which stand from position `at` on, and the cache after them."""
    (batch, time), each, after = ids.shape, WIDTH // HEADS, []
    places = jax.lax.dynamic_slice_in_dim(params["positions"]["table"], at, time)
    x = params["tokens"]["table"][ids] + places
    for i, (k, v) in enumerate(cache):
        block = params[f"block_{i}"]
        attention, mlp = block["attention"], block["mlp"]
        w, b = packed(attention)
        y = (norm(block["norm1"], x) @ w + b).reshape(batch, time, 3, HEADS, each)
        q, new_k, new_v = y.transpose(2, 0, 3, 1, 4)
        k = jax.lax.dynamic_update_slice(k, new_k, (0, 0, at, 0))
        v = jax.lax.dynamic_update_slice(v, new_v, (0, 0, at, 0))
        after.append((k, v))
        seen = jnp.arange(LENGTH) <= at + jnp.arange(time)[:, None]
        scores = jnp.where(seen, q @ k.mT * each**-0.5, -jnp.inf)
        y = (jax.nn.softmax(scores) @ v).swapaxes(1, 2).reshape(batch, time, WIDTH)
        x = x + y @ attention["out"]["w"].reshape(WIDTH, WIDTH) + attention["out"]["b"]
        up = norm(block["norm2"], x) @ mlp["up"]["w"] + mlp["up"]["b"]
        x = x + jax.nn.gelu(up, approximate=False) @ mlp["down"]["w"] + mlp["down"]["b"]
    return norm(params["norm"], x), after


@functools.partial(jax.jit, static_argnums=2)
def plain(params: Params, prompt: Array, length: int) -> Array:
    """The likeliest `length` tokens after each prompt."""
    empty = jnp.zeros((len(prompt), HEADS, LENGTH, WIDTH // HEADS))

    def likeliest(x: Array) -> Array:
        return (x[:, -1] @ params["tokens"]["table"].T).argmax(-1)

    def step(carry: tuple, at: Array) -> tuple[tuple, Array]:
        token, cache = carry
        x, cache = blocks(params, cache, token[:, None], at)
        token = likeliest(x)
        return (token, cache), token

    x, cache = blocks(params, [(empty, empty)] * DEPTH, prompt, 0)
    first = likeliest(x)
    places = prompt.shape[1] + jnp.arange(length - 1)
    _, rest = jax.lax.scan(step, (first, cache), places)
    return jnp.concatenate([first[:, None], rest.T], axis=1)


def pair(batch: int, time: int, length: int) -> tuple[Callable, Callable]:
    """Two functions that write `length` tokens after prompts of so many: ours and the plain one."""
    net = fn.nets.GPT(VOCABULARY, width=WIDTH, depth=DEPTH, heads=HEADS, length=LENGTH, cache=True)
    key = jax.random.key(0)
    prompt = jax.random.randint(key, (batch, time), 0, VOCABULARY)
    params, _ = net.init(key, prompt)

    def ours() -> Array:
        return fn.nets.sample(net, params, prompt, length, key, temperature=0.0)

    return ours, lambda: plain(params, prompt, length)


def times(batch: int, time: int, length: int, rounds: int = ROUNDS) -> tuple[float, float]:
    """Seconds of both, which take turns: the least of several.

    Raises:
        AssertionError: If they write different tokens.
    """
    runs = pair(batch, time, length)
    ours, theirs = (run() for run in runs)
    assert (ours == theirs).all(), "the two decoders write different tokens"
    spent = [[seconds(run) for run in runs] for _ in range(rounds)]
    ours, theirs = (min(column) for column in zip(*spent, strict=True))
    return ours, theirs


def seconds(run: Callable) -> float:
    """Of one call."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def main() -> None:
    """Print tokens a second and milliseconds, and how many times as fast ours is."""
    for batch in (1, 8):
        ours, theirs = times(batch, 8, TOKENS)
        a, b = (batch * TOKENS / each for each in (ours, theirs))
        print(
            f"batch {batch}: {a:,.0f} tokens/s, plain {b:,.0f}: {theirs / ours:.2f} times as fast"
        )
    ours, theirs = times(8, 128, 1)
    print(f"prefill 8x128: {1e3 * ours:.1f} ms, plain {1e3 * theirs:.1f} ms: {theirs / ours:.2f}")


if __name__ == "__main__":
    main()
