"""What funcnet costs beside plain JAX, and what its rules save."""

import os
from collections.abc import Callable

import pytest

from .benchmarks import step
from .forms import printed

IMPORT = """
import time
start = time.process_time()
import jax, optax
theirs = time.process_time() - start
import funcnet
print((time.process_time() - start) / theirs - 1)
"""
"""Processor time, as a part of what funcnet stands on: both take longer on a machine in use."""


def best_of(measure: Callable[[], float], limit: float, tries: int = 5) -> float:
    """The smallest of a few measurements; no more are taken once one is within the limit.

    Something else on the machine can only make a measurement worse for us at random, and a fault
    of ours makes all of them worse: so one good try is enough, and a bad one is tried again.
    """
    best = float("inf")
    for _ in range(tries):
        best = min(best, measure())
        if best <= limit:
            break
    return best


@pytest.mark.long
def test_both_steps_of_the_benchmark_compute_the_same():
    ours, plain = step.runners(step.OPTIMIZERS["adam"]())
    for _ in range(3):
        assert float(ours(5)) == pytest.approx(float(plain(5)), rel=1e-4)


def number_from(program: str) -> float:
    return float(printed(program))


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("optimizer", step.OPTIMIZERS)
def test_a_step_costs_what_a_plain_one_costs(optimizer):
    program = f"from tests.benchmarks import step; print(step.ratio({optimizer!r}))"
    assert best_of(lambda: number_from(program), 1.1) <= 1.1


@pytest.mark.slow
@pytest.mark.alone
def test_import_is_short():
    assert best_of(lambda: number_from(IMPORT), 0.4) <= 0.4


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.alone
def test_the_rules_make_the_gradient_of_lenet_faster():
    program = "from tests.benchmarks import lenet; print(1 / lenet.ratio())"
    assert best_of(lambda: number_from(program), 1 / 1.5) <= 1 / 1.5


DEEP = """
import time
import jax, jax.numpy as jnp
import funcnet as fn

x = jnp.ones((2, 16, 32))

def seconds(depth):
    net = fn.repeat(fn.TransformerBlock(2), depth)
    params, _ = jax.eval_shape(net.init, jax.random.key(0), x)
    step = jax.jit(jax.grad(lambda params: net(params, x).sum()))
    start = time.process_time()
    step.lower(params).compile()
    return time.process_time() - start

seconds(2)
print(seconds(128) / seconds(8))
"""


@pytest.mark.long
@pytest.mark.alone
def test_128_blocks_compile_as_fast_as_8():
    assert best_of(lambda: number_from(DEEP), 1.5) <= 1.5


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.alone
def test_fit_costs_what_its_steps_cost():
    program = "from tests.benchmarks import fit; print(fit.ratio())"
    assert best_of(lambda: number_from(program), 1.03) <= 1.03


STEADY = """
import os
import jax, numpy as np, optax
import funcnet as fn

x = np.random.default_rng(0).normal(size=(640, 8)).astype(np.float32)
y = (x.sum(1) > 0).astype(np.int32)
net = fn.serial(fn.Dense(16), fn.BatchNorm(), fn.relu, fn.Dropout(0.1), head=fn.Dense(2))
compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: compiled.append(event) if event.endswith("compile_duration") else None
)

def resident():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

seen = []

def look(*_):
    seen.append((resident(), len(compiled)))

kind, precision = KIND, PRECISION
if kind == "fit":
    fn.fit(net, fn.cross_entropy, optax.adam(1e-3), (x, y), epochs=1000, batch=64,
           validation=(x, y), precision=precision, on_epoch=look, progress=False)
else:
    step = fn.make_step(net, fn.cross_entropy, optax.adam(1e-3), precision=precision)
    state = step.init(jax.random.key(0), x[:64])
    for i in range(1000):
        for part in range(0, 640, 64):
            state, values = step.update(state, (x[part : part + 64], y[part : part + 64]))
        float(values["loss"])
        look()
(warm, programs), (end, more) = seen[100], seen[-1]
assert more == programs, more - programs
print(end / warm)
"""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read as on Linux")
@pytest.mark.parametrize("precision", [None, "f16"])
@pytest.mark.parametrize("kind", ["make_step", "fit"])
def test_10000_steps_take_no_more_memory_and_compile_once(kind, precision):
    program = STEADY.replace("KIND", repr(kind)).replace("PRECISION", repr(precision))
    assert number_from(program) < 1.01
