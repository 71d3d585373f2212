import fcntl
import functools
import gc
import os
import signal
from importlib.metadata import version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
USERS_XLA_FLAGS = os.environ.setdefault("USERS_XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
"""What a program started by a test gets: the tests' own flags are for compiling fast.

Kept in the environment, since a worker of pytest-xdist inherits XLA_FLAGS as set below.
"""
FAST_TO_COMPILE = ["--xla_backend_optimization_level=0"]
KNOWN = version("jaxlib").startswith("0.10.")
"""Whether it is the version that the flags and the context below belong to."""
if KNOWN:
    FAST_TO_COMPILE += [
        "--xla_cpu_use_fusion_emitters=false",
        "--xla_cpu_parallel_codegen_split_count=1",
    ]
os.environ["XLA_FLAGS"] = " ".join(
    [USERS_XLA_FLAGS, "--xla_force_host_platform_device_count=2", *FAST_TO_COMPILE]
)

import jax  # noqa: E402  # after the flags, which it reads once
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from jax._src.interpreters import mlir  # noqa: E402

import funcnet as fn  # noqa: E402


def pytest_configure(config):
    # A shell that starts pytest in the background has it ignore what tests send themselves.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if KNOWN:  # a context of its own takes half of the time to lower a small program
        mlir.make_ir_context = functools.cache(mlir.make_ir_context)
    jax.monitoring.register_event_duration_secs_listener(Compiled.one_more)
    jax.config.update("jax_traceback_in_locations_limit", 0)  # nobody reads where HLO comes from
    cache = os.environ.get("FUNCNET_COMPILATION_CACHE")
    if cache:
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def share(nodeid):
    """The tests that use one another's compiled programs: a file's, of a large table a row's."""
    path, _, test = nodeid.partition("::")
    if path.endswith("test_examples.py"):
        return nodeid
    if not path.endswith(("test_ops.py", "test_combine.py")):
        return path
    _, _, row = test.partition("[")
    return f"{path} {row.rstrip(']').partition('-')[0]}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """What shares compiled programs goes to one worker."""
    from xdist.scheduler import LoadScopeScheduling  # there if this is called

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return share(nodeid)

    return Scheduling(config, log)


class Compiled:
    """How many programs are in memory; with thousands of them, compiling takes twice as long."""

    number = 0

    @classmethod
    def one_more(cls, event, duration, **_):
        cls.number += event == "/jax/core/compile/backend_compile_duration"


def pytest_runtest_teardown(item, nextitem):
    if Compiled.number > 500 and (nextitem is None or share(nextitem.nodeid) != share(item.nodeid)):
        jax.clear_caches()
        Compiled.number = 0


def pytest_collection_finish(session):
    """What is there by now stays: it need not be searched for garbage again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture
def key():
    return jax.random.key(0, impl="rbg")


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def rules():
    """A page may define rules; the other tests take those of the library alone."""
    before = dict(fn.RULES)
    yield
    fn.RULES.clear()
    fn.RULES.update(before)


@pytest.fixture
def ops_compile_whole(monkeypatch):
    """Where tests call `fn.OP` without `jax.jit`, it is one program, and not one a primitive."""
    from .forms import compiled

    for name, rule in fn.RULES.items():
        if getattr(fn, name, None) is rule.op:
            monkeypatch.setattr(fn, name, compiled(rule.op))


@pytest.fixture
def networks_compile_whole(monkeypatch):
    """Examples call networks without `jax.jit`, where JAX would compile each op by itself."""
    call = fn.Layer.__call__

    def compiled(net, *args, **options):
        kinds = {type(leaf) for leaf in jax.tree.leaves(args)}
        if options or not kinds <= {type(jnp.ones(())), np.ndarray}:  # of a tracer it is another
            return call(net, *args, **options)
        return jax.jit(lambda *args: call(net, *args))(*args)

    monkeypatch.setattr(fn.Layer, "__call__", compiled)


@pytest.fixture(autouse=True)
def _share_the_machine(request, tmp_path_factory):
    """A test marked `alone` measures time: while it runs, no other worker starts a test."""
    alone = request.node.get_closest_marker("alone") is not None
    root = tmp_path_factory.getbasetemp()
    folder = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    with open(folder / "machine.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield
