"""What it costs to read a gradient: time and memory beside the computation that is read.

    python -m tests.benchmarks traces

`watch` stands beside the same training step without it, compiled, in turns, in one process, for
networks of a few sizes. A trace runs equation by equation; its times are of a second call, when
what it compiles is there. The whole takes some five minutes.
"""

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

import funcnet as fn
from funcnet.train.step import CPU_OPTIONS

ADAM = optax.adam(1e-3)


def transformer(depth: int, batch: int, length: int, width: int) -> tuple[Callable, Any, Any]:
    """The loss of a language model of `depth` blocks, its parameters, and a batch of text."""
    net = fn.nets.GPT(1000, width=width, depth=depth, heads=4, length=length, logits=False)
    tokens = jax.random.randint(jax.random.key(0), (batch, length + 1), 0, 1000)
    params, _ = net.init(jax.random.key(1), tokens[:, :-1])

    def loss(params: Any, tokens: Any) -> Any:
        return fn.nets.lm_loss(net(params, tokens[:, :-1]), tokens[:, 1:])

    return loss, params, tokens


def step(gradient: Callable) -> Callable:
    """A training step that also gives what it saw."""

    def stepped(params: Any, opt_state: Any, tokens: Any) -> Any:
        seen, gradients = gradient(params, tokens)
        updates, opt_state = ADAM.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, seen

    return stepped


def watching(loss: Callable, **options: Any) -> Callable:
    """Like `jax.value_and_grad`, with all that was seen in the place of the value."""

    def gradient(params: Any, tokens: Any) -> Any:
        watched = fn.watch(loss, wrt=0, **options)(params, tokens)
        return (watched.output, watched.seen), watched.gradients

    return gradient


def seconds(f: Callable, *args: Any) -> float:
    """Of one call."""
    started = time.perf_counter()
    jax.block_until_ready(f(*args))
    return time.perf_counter() - started


class Cost(NamedTuple):
    """What a step takes, and how many times what the first of its row takes.

    Attributes:
        ms: Milliseconds of a call, the median.
        compiling: Seconds of a processor until it can be called.
        slower: The median ratio of a call to a call of the first in the same turn.
        longer: The ratio of the seconds of compiling.
    """

    ms: float
    compiling: float
    slower: float
    longer: float


def in_turns(steps: Sequence[Callable], args: tuple, runs: int = 15) -> list[Cost]:
    """What each step costs."""
    options = CPU_OPTIONS if jax.default_backend() == "cpu" else None
    compiled, waits = [], []
    for f in steps:
        jax.clear_caches()
        started = time.process_time()
        compiled.append(jax.jit(f, compiler_options=options).lower(*args).compile())
        waits.append(time.process_time() - started)
    rows = [[seconds(f, *args) for f in compiled] for _ in range(runs)][1:]
    return [
        Cost(
            1e3 * statistics.median(row[i] for row in rows),
            waits[i],
            statistics.median(row[i] / row[0] for row in rows),
            waits[i] / waits[0],
        )
        for i in range(len(steps))
    ]


SIZES = (1, 8, 128, 256), (4, 8, 128, 256), (12, 8, 128, 256), (12, 2, 64, 64)
"""Blocks, batch, length and width; the last for a step of milliseconds."""

WATCHED = {
    "watched, layer outputs": {},
    "watched, their norms alone": {"stats": ("norm",)},
    "watched, every equation": {"select": "all"},
}


def watch_costs(depth: int, batch: int, length: int, width: int) -> dict[str, Cost]:
    """A training step of so many blocks, and the same watched."""
    loss, params, tokens = transformer(depth, batch, length, width)
    steps = [step(jax.value_and_grad(loss)), *(step(watching(loss, **o)) for o in WATCHED.values())]
    costs = in_turns(steps, (params, ADAM.init(params), tokens))
    return dict(zip((f"training step, {depth} blocks", *WATCHED), costs, strict=True))


def watch_rows() -> None:
    """The costs of watching at a few sizes."""
    jax.jit(jnp.sin).lower(1.0).compile()
    for depth, batch, length, width in SIZES:
        print(f"width {width}, {batch} x {length} tokens")
        for name, cost in watch_costs(depth, batch, length, width).items():
            more = f"{cost.slower - 1:+8.1%}, compiled in {cost.compiling:.1f} s"
            print(f"{name:36}{cost.ms:9.1f} ms {more}, {cost.longer:.1f} times", flush=True)


def trace_rows() -> None:
    """Traces of four blocks and of a loop of a thousand steps."""
    loss, params, tokens = transformer(4, 2, 32, 64)

    def loop(w: Any, x: Any) -> Any:
        return jax.lax.scan(lambda h, x: (jnp.tanh(w @ h + x), None), x[0], x)[0].sum()

    w, steps = jnp.eye(8) / 2, jnp.ones((1000, 8))
    rows = {
        "trace, 4 blocks": (fn.trace(loss, wrt=0), params, tokens),
        "trace, scan of 1,000 steps": (fn.trace(loop), w, steps),
        "the same, ten of them opened": (fn.trace(loop, max_iterations=10, sample=10), w, steps),
    }
    for name, (traced, *args) in rows.items():
        took = [_timed(traced, *args) for _ in range(4)]
        print(f"{name:36}{1e3 * statistics.median(took[1:]):9.1f} ms", flush=True)


COLD = """
import time, jax, jax.numpy as jnp, funcnet as fn
net = fn.nets.GPT(65, width=32, depth=2, heads=4, length=16)
ids = jax.random.randint(jax.random.key(1), (2, 16), 0, 65)
params, _ = net.init(jax.random.key(0), ids)
loss = lambda params: fn.cross_entropy(net(params, ids), jnp.roll(ids, -1, 1))
started = time.process_time()
trace = fn.trace(loss)(params)
traced = time.process_time()
trace.check()
checked = time.process_time()
jax.jit(jax.value_and_grad(loss)).lower(params).compile()
print(traced - started, checked - started, time.process_time() - checked)
"""


def cold_rows() -> None:
    """The first trace of a process, in seconds of a processor, beside compiling its gradient."""
    runs = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", COLD], capture_output=True, check=True)
        runs.append([float(x) for x in done.stdout.split()])
    alone, checked, compiled = (statistics.median(column) for column in zip(*runs, strict=True))
    ratios = [statistics.median(run[i] / run[2] for run in runs) for i in (0, 1)]
    print(f"first trace, 2 blocks: {alone:.2f} s, {ratios[0]:.2f} of compiling the gradient, which")
    print(f"takes {compiled:.2f} s; with its check {checked:.2f} s, {ratios[1]:.2f}", flush=True)


def _timed(traced: Callable, *args: Any) -> float:
    started = time.perf_counter()
    traced(*args)
    return time.perf_counter() - started


def memory_row() -> None:
    """The most that is alive at once in a trace, and in the compiled gradient."""
    loss, params, tokens = transformer(4, 8, 256, 128)
    traced = fn.trace(loss, wrt=0)
    traced(params, tokens)
    compiled = jax.jit(jax.value_and_grad(loss)).lower(params, tokens).compile()
    sizes = compiled.memory_analysis()
    gradient = sizes.temp_size_in_bytes + sizes.argument_size_in_bytes + sizes.output_size_in_bytes
    most = [0]
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            most[0] = max(most[0], sum(x.nbytes for x in jax.live_arrays()))
            time.sleep(0.001)

    looker = threading.Thread(target=look)
    looker.start()
    traced(params, tokens)
    done.set()
    looker.join()
    told = f"of the compiled gradient {gradient / 1e6:.1f} MB: {most[0] / gradient:.2f} times"
    print(f"{'memory of a trace, 4 blocks':36}{most[0] / 1e6:9.1f} MB, {told}")


def main() -> None:
    """Print the table."""
    watch_rows()
    cold_rows()
    trace_rows()
    memory_row()


if __name__ == "__main__":
    main()
