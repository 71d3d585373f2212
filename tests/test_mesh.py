"""Steps on many devices: what is split, that it computes what one device does, and lost processes.

Here are two devices; what needs eight, or several processes, runs as a program of its own.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import funcnet as fn
from funcnet.mesh.hosts import together

from .forms import rows

HERE = Path(__file__).parent
SHAPE = jax.ShapeDtypeStruct
MLP = fn.nets.MLP((8, 4))


def batch_of(n, width=6, classes=4):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, width)).astype(np.float32)
    return x, rng.integers(0, classes, n).astype(np.int32)


def largest_difference(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(np.abs(np.asarray(x, float) - np.asarray(y, float)).max()) for x, y in pairs)


def trained(net, mesh, batch, steps=3, optimizer=None):
    step = fn.make_step(net, fn.cross_entropy, optimizer or optax.sgd(0.1), mesh=mesh)
    state = step.init(jax.random.key(0), batch[0])
    for _ in range(steps):
        state, values = step.update(state, batch if mesh is None else mesh.place(batch))
    return step, state, values


NORMED = fn.serial(fn.Dense(8), fn.BatchNorm(), fn.tanh, fn.Dropout(0.3), fn.Dense(4))


@pytest.fixture(scope="module")
def alone():
    return trained(NORMED, None, batch_of(8))


LONG = (pytest.mark.slow, pytest.mark.long)


@pytest.mark.parametrize(
    "axis", [pytest.param("data", marks=LONG), "fsdp", pytest.param("model", marks=LONG)]
)
def test_a_mesh_computes_what_one_device_does(axis, alone):
    """Batch norm is over the whole batch, and dropout draws the same numbers."""
    mesh = fn.Mesh({axis: 2})
    step, state, values = trained(NORMED, mesh, batch_of(8))
    assert largest_difference(alone[1], state) < 1e-6
    assert abs(float(values["loss"] - alone[2]["loss"])) < 1e-6
    w, running = state.params["dense"]["w"], state.state["batch_norm"]["mean"]
    assert (
        w.sharding.spec == {"data": P(), "fsdp": P(None, "fsdp"), "model": P(None, "model")}[axis]
    )
    assert running.sharding.is_fully_replicated
    assert step.update._cache_size() == 1


def test_a_batch_that_does_not_divide_is_computed_whole(alone):
    mesh = fn.Mesh({"data": 2})
    x, y = batch_of(8)
    placed = mesh.place((x[:3], y[:3]))
    assert placed[0].sharding.is_fully_replicated
    step = fn.make_step(NORMED, fn.cross_entropy, optax.sgd(0.1), mesh=mesh)
    state = step.init(jax.random.key(0), x)
    ragged = step.evaluate(state, placed)["loss"]
    before = alone[0].init(jax.random.key(0), x)
    assert abs(float(ragged - alone[0].evaluate(before, (x[:3], y[:3]))["loss"])) < 1e-6


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True])
def test_batch_norm_in_micro_batches_leaves_them_on_their_devices(masked):
    @fn.network(dense=fn.Dense(8, bias=False), norm=fn.BatchNorm(), head=fn.Dense(4))
    def net(net, x):
        return net.head(fn.tanh(net.norm(net.dense(x), x[:, :1] > -1 if masked else None)))

    batch, mesh, found = batch_of(16), fn.Mesh({"data": 2}), []
    for where, parts in ((None, 1), (mesh, 4)):
        step = fn.make_step(net, fn.cross_entropy, optax.sgd(0.1), mesh=where, accumulate=parts)
        state = step.init(jax.random.key(0), batch[0])
        placed = mesh.place(batch) if where else batch
        found.append((step, step.update.lower(state, placed), step.update(state, placed)[0]))
    assert largest_difference(found[0][2], found[1][2]) < 1e-6
    assert "all-gather(" not in found[1][1].compile().as_text()


def test_what_a_step_is_given_is_given_away():
    mesh, batch = fn.Mesh({"fsdp": 2}), batch_of(8)
    step, state, _ = trained(MLP, mesh, batch, 1, optax.adam(1e-3))
    memory = step.update.lower(state, mesh.place(batch)).compile().memory_analysis()
    given = memory.argument_size_in_bytes - memory.alias_size_in_bytes
    assert given == sum(part.nbytes for part in batch) // 2
    step.update(state, mesh.place(batch))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize("how", ["bare", pytest.param("guarded and watched", marks=LONG)])
def test_fit_on_a_mesh(how):
    x, y = batch_of(20)
    options = {} if how == "bare" else {"on_nonfinite": "skip", "health": 2}
    run = partial(
        fn.fit, MLP, fn.cross_entropy, optax.sgd(0.1), (x, y), epochs=2, batch=8, progress=False,
        validation=(x[:7], y[:7]), **options,
    )  # fmt: skip
    one, many = run(), run(mesh=fn.Mesh({"fsdp": 2}))
    assert largest_difference(one.state.params, many.state.params) < 1e-6
    assert many.history.rows[-1]["val_loss"] == pytest.approx(one.history.rows[-1]["val_loss"])
    assert len(many.history.health) == len(one.history.health)
    w = many.state.params["dense"]["w"]
    assert w.addressable_shards[0].data.size == w.size // 2
    if how == "bare":
        return
    told = fn.evaluate(MLP, fn.cross_entropy, many.state, (x, y), mesh=fn.Mesh({"fsdp": 2}))
    assert told == pytest.approx(fn.evaluate(MLP, fn.cross_entropy, one.state, (x, y)))


@pytest.mark.long
@pytest.mark.slow
def test_linear_cross_entropy_takes_its_chunks_from_all_devices():
    """Chunks of tokens in order would have one device after the other compute them for all."""
    x, w = jnp.ones((12, 3)) * jnp.arange(12)[:, None], jnp.eye(3, 5)
    labels = jnp.arange(12) % 5
    loss = partial(fn.linear_cross_entropy, chunk=2)
    both = jax.value_and_grad(loss, (0, 1))
    kinds = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("data",), kinds, devices=jax.devices()[:2])

    def split(*args):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return both(*args), fn.linear_cross_entropy(*args, chunk=2, reduction="none")

    rows = jax.device_put(x, jax.NamedSharding(mesh, P("data")))
    compiled = jax.jit(split).lower(rows, w, labels).compile()
    assert "all-gather" not in compiled.as_text()
    found, each = compiled(rows, w, labels)
    assert largest_difference(found, both(x, w, labels)) < 1e-6
    assert largest_difference(each, loss(x, w, labels, reduction="none")) < 1e-6


OPTIMIZERS = {
    "adamw": optax.adamw(1e-3),
    "adafactor": optax.adafactor(1e-3, min_dim_size_to_factor=4),
    "lion": optax.lion(1e-3),
    "averaged": fn.averaged(optax.sgd(0.1, momentum=0.9)),
    "several steps": optax.MultiSteps(optax.adam(1e-3), 2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_an_optimiser_keeps_is_split_as_its_parameter(name):
    step = fn.make_step(MLP, fn.cross_entropy, OPTIMIZERS[name])
    state = jax.eval_shape(step.init, jax.random.key(0), SHAPE((8, 16), "float32"))
    mesh = fn.Mesh({"fsdp": 2, "model": 2})
    specs = fn.tree.flatten(mesh.specs(state))
    own = {k.removeprefix("params/"): specs[k] for k in specs if k.startswith("params/")}
    assert own["dense/w"] == P("fsdp", "model")
    shapes = {k: leaf.shape for k, leaf in fn.tree.flatten(state).items()}
    alike = 0
    for path, spec in specs.items():
        end = next((k for k in own if path.endswith(f"/{k}")), None)
        if path.startswith("opt_state/") and end and shapes[path] == shapes[f"params/{end}"]:
            assert spec == own[end]
            alike += 1
        elif not path.startswith("params/"):
            assert spec == P()
    assert alike >= 2


IDS = SHAPE((2, 8), "int32")
GPT = fn.nets.GPT(64, width=32, depth=2, heads=4, length=16)
STACKED = fn.nets.GPT(64, width=32, depth=2, heads=4, length=16, stacked=True, tied=False)
SPLIT = {
    "block_0/attention/q/w": P(None, "model"),
    "block_0/attention/v/b": P("model"),
    "block_0/attention/out/w": P("model"),
    "block_0/attention/out/b": P(),
    "block_0/mlp/up/w": P(None, "model"),
    "block_0/mlp/up/b": P("model"),
    "block_0/mlp/down/w": P("model"),
    "block_0/mlp/down/b": P(),
    "block_0/norm1/scale": P(),
    "positions/table": P(),
    "tokens/table": P("model"),
}


def test_the_rules_of_our_own_layers():
    specs = fn.tree.flatten(
        fn.Mesh({"model": 2}).specs(jax.eval_shape(GPT.init, jax.random.key(0), IDS)[0])
    )
    assert {path: specs[path] for path in SPLIT} == SPLIT
    params = jax.eval_shape(STACKED.init, jax.random.key(0), IDS)[0]
    specs = fn.tree.flatten(fn.Mesh({"model": 2, "fsdp": 2}).specs(params))
    assert specs["blocks/attention/q/w"] == P(None, "fsdp", "model")
    assert specs["blocks/mlp/down/w"] == P(None, "model", "fsdp")
    assert specs["head/table"] == P("model", "fsdp")


@pytest.mark.long
@pytest.mark.slow
def test_the_rules_of_convolutions():
    images = SHAPE((1, 16, 16, 3), "float32")
    params = jax.eval_shape(fn.nets.ResNet(20, 10).init, jax.random.key(0), images)[0]
    specs = fn.tree.flatten(fn.Mesh({"model": 2}).specs(params))
    assert specs["conv1/w"] == P(None, None, None, "model")
    assert specs["fc/w"] == P(None, "model")


def test_convolutions_on_a_mesh_of_three_axes_are_split_by_outputs_alone():
    mesh = fn.Mesh({"data": 2, "fsdp": 2, "model": 2})
    shapes = {
        "a": {"w": SHAPE((3, 3, 8, 16), "float32")},
        "b": {"w": SHAPE((3, 3, 8, 6), "float32")},
    }
    specs = mesh.specs(shapes)
    assert specs["a"]["w"] == P(None, None, None, ("fsdp", "model"))
    assert specs["b"]["w"] == P(None, None, None, "model")


def test_rules_of_ones_own_come_first_and_stand_as_they_are():
    rules = [("*/up/w", P("model")), ("block_0/*", P())]
    mesh = fn.Mesh({"fsdp": 2, "model": 2}, rules=rules)
    specs = fn.tree.flatten(mesh.specs(jax.eval_shape(GPT.init, jax.random.key(0), IDS)[0]))
    assert specs["block_0/mlp/up/w"] == P("model")
    assert specs["block_0/mlp/down/w"] == P()
    assert specs["block_1/mlp/down/w"] == P("model", "fsdp")


def test_a_table_says_what_each_device_holds():
    mesh = fn.Mesh({"data": 2, "fsdp": 4})
    step = fn.make_step(MLP, fn.cross_entropy, optax.adam(1e-3))
    table = mesh.table(step, SHAPE((8, 6), "float32"))
    params = (6 * 8 + 8 + 8 * 4 + 4) * 4
    assert (table.whole, table.each) == (3 * params + 4, 3 * params // 4 + 4)
    assert str(table) == str(
        mesh.table(jax.eval_shape(step.init, jax.random.key(0), jnp.ones((8, 6))))
    )
    assert re.search(r"dense/w +6 x 8 +\. fsdp +192 B +48 B", str(table))
    assert "Each of the 8 devices holds 25.3% of the whole." in str(table)
    assert "dense_1/b" in table.html()


def test_a_mesh_is_a_value():
    assert fn.Mesh({"data": 2}) == fn.Mesh.parse(" data = 2 ")
    assert len({fn.Mesh({"data": 2}), fn.Mesh({"data": 2}), fn.Mesh({"fsdp": 2})}) == 2
    assert fn.Mesh({"data": -1}).axes == {"data": len(jax.devices())}
    with pytest.raises(AttributeError):
        fn.Mesh({"data": 2}).axes = {}


def test_stacked_batches_are_split_along_the_examples():
    mesh = fn.Mesh({"data": 2})
    assert mesh.place(np.ones((3, 4, 5)), lead=1).sharding.spec == P(None, ("data",))
    assert mesh.rows(4).tolist() == [0, 1, 2, 3]
    part = mesh.place((np.float64(1), np.ones(4)), of=4)
    assert part[1].dtype == np.float32


def wrong(*rules):
    x = SHAPE((8, 6), "float32")
    return lambda: fn.Mesh({"data": 2, "model": 2}, rules=list(rules)).table(MLP, x)


def fitted_by(batch):
    mesh = fn.Mesh({"data": 2})
    return fn.fit(
        MLP, fn.cross_entropy, optax.sgd(0.1), batch_of(8), epochs=1, batch=batch, mesh=mesh
    )


MESSAGES = rows(
    ValueError,
    lambda: fn.Mesh({"data": 4, "model": 2}).jax_mesh,
    "Mesh: expected at most the 2 devices that there are, got data 4 x model 2 = 8. Give one axis "
    "the length -1, for all that are left.",
    lambda: fn.make_step(MLP, fn.cross_entropy, optax.sgd(0.1), mesh=fn.Mesh({"data": 4})),
    "Mesh: expected at most the 2 devices that there are, got data 4 = 4. Give one axis the length "
    "-1, for all that are left.",
    lambda: fn.Mesh({"data": -1, "model": 3}),
    "Mesh: expected one axis of length -1, and lengths of the others that divide 2 devices, got "
    "{'data': -1, 'model': 3}. Give other lengths, or fewer axes.",
    lambda: fn.Mesh({"data": 0}),
    "Mesh: expected a number of devices of 1 or more along data, or -1, got 0. -1 is all devices "
    "that are left.",
    lambda: fn.Mesh({"tensor": 2}),
    "Mesh: expected axes named data, fsdp, model, got 'tensor'. data splits the batch, fsdp the "
    "batch and parameters, model parameters by rules.",
    wrong(("*/mlp/up/w", P())),
    "Mesh: expected a rule that matches a parameter, such as dense/w, dense_1/w, got '*/mlp/up/w'. "
    "A path runs from the outermost layer to the array; print(mesh.table(net, x)) lists them.",
    wrong(("dense/w", P(None, "mdel"))),
    "Mesh: expected in the rule for 'dense/w' axes of the mesh, data, model, got 'mdel'. Name the "
    "axis in the mesh, or split along another.",
    wrong(("dense/w", P("model", "model"))),
    "Mesh: expected in the rule for 'dense/w' each axis of the mesh once, got "
    "model model. Split one axis of the array along it.",
    wrong(("dense/b", P(None, "model"))),
    "Mesh: expected in the rule for 'dense/b' no more axes than dense/b has, 1, got "
    ". model. Give one entry for each axis of the array, None where it is not "
    "split.",
    wrong(("*/w", P(("data", "model")))),
    "Mesh: expected an axis that 4 devices divide, by the rule for '*/w', got 6 in dense/w of "
    "shape (6, 8). Split another axis, or choose another width or mesh.",
    lambda: fn.Mesh.parse("data=4,model"),
    "mesh: expected axes and how many devices each has, as in data=4,model=2, got 'data=4,model'. "
    "The axes are data, fsdp, model; -1 is all devices that are left.",
    lambda: fn.Mesh.parse("data=2,data=2"),
    "mesh: expected axes and how many devices each has, as in data=4,model=2, got 'data=2,data=2'. "
    "The axes are data, fsdp, model; -1 is all devices that are left.",
    lambda: fitted_by(7),
    "fit: expected a batch that comes out even on 2 parts of the mesh, got 7. Give batch=8.",
    lambda: fn.Mesh({"data": 2}).check_batch("fit", 6, accumulate=4),
    "fit: expected a batch that comes out even, 4 x 2 = 8 parts, got 6. Give batch=8.",
) + rows(
    TypeError,
    lambda: fn.make_step(MLP, fn.cross_entropy, optax.sgd(0.1), mesh={"data": 2}),
    "make_step: expected mesh to be a Mesh, got {'data': 2}. Write mesh=Mesh({\"data\": 2}).",
    lambda: fn.Mesh(4),
    "Mesh: expected a dict of axes and how many devices each has, got 4. Write Mesh({\"data\": 4, "
    "\"model\": 2}).",
    lambda: fn.Mesh({"data": 2}, rules={"*/w": P()}),
    "Mesh: expected rules as a list of pairs, a pattern and a PartitionSpec, got a dict. Write "
    'rules=[("*/mlp/up/w", PartitionSpec(None, "model"))].',
)  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), MESSAGES)
def test_messages(error, call, message):
    with pytest.raises(error, match=re.escape(message)):
        call()


def test_only_the_error_of_a_lost_process_is_told(monkeypatch):
    def fail(message):
        with together("fit"):
            raise jax.errors.JaxRuntimeError(message)

    with pytest.raises(jax.errors.JaxRuntimeError, match="peer"):
        fail("Connection closed by peer")  # of one process alone it is no such error
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr("funcnet.mesh.hosts._end_at_once_if_lost", lambda: None)
    monkeypatch.setattr("funcnet.mesh.hosts._lost", [])
    with pytest.raises(ConnectionError, match="fit: expected all 2 processes of this run, got no"):
        fail("Connection closed by peer")
    with pytest.raises(jax.errors.JaxRuntimeError, match="memory"):
        fail("RESOURCE_EXHAUSTED: out of memory")


def environment(devices, **more):
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    own = {"PYTHONPATH": str(HERE.parent), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return os.environ | own | more


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("which", "limit"), [("mlp", 1e-5), ("gpt", 1e-5), ("resnet", 1e-10)])
def test_twenty_steps_on_eight_devices(which, limit):
    done = subprocess.run(
        [sys.executable, "-W", "error", HERE / "hosts/eight.py", which],
        env=environment(8), capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    report = {
        tuple(json.loads(axes)): found
        for axes, found in json.loads(done.stdout.splitlines()[-1]).items()
    }
    for axes, found in report.items():
        assert found["error"] < limit, (axes, found)
        assert found["loss"] < limit
        assert found["start"] < 1e-6
        assert found["gathered"] <= found["largest"]
        assert found["given"] == found["batch"], "all of the state is donated"
        assert found["programs"] == 1
        assert found["exported"] == 8
    assert report["data",]["collectives"] | {"all-reduce": 0} == dict.fromkeys(
        report["data",]["collectives"], 0
    )
    assert report["fsdp",]["share"] <= 1.05 / 8 or which == "resnet"
    if which == "gpt":
        assert report["data",]["collectives"]["all-reduce"] == 1
        assert report["data", "model"]["collectives"]["all-gather"] == 0


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(folder, **more):
    """Two processes of two devices each; what they write goes to files."""
    address, script = f"127.0.0.1:{free_port()}", HERE / "hosts/train.py"
    processes = []
    for i in range(2):
        command = [sys.executable, script, folder / "two", address, "2", str(i)]
        with (folder / f"out.{i}").open("w") as out, (folder / f"errors.{i}").open("w") as errors:
            environ = environment(2, **more)
            processes.append(subprocess.Popen(command, env=environ, stdout=out, stderr=errors))
    return processes


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("axes", ['{"data": -1}', '{"data": 2, "fsdp": 2}'])
def test_two_processes_come_to_what_one_does(axes, tmp_path):
    processes = start(tmp_path, AXES=axes, NONFINITE="stop")
    alone = subprocess.run(
        [sys.executable, HERE / "hosts/train.py", tmp_path / "one"],
        env=environment(4, AXES=axes), timeout=300, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert [process.wait(300) for process in processes] == [0, 0]
    one, first, second = (
        json.loads((tmp_path / name).read_text()) for name in ("one.0", "two.0", "two.1")
    )
    assert first == second
    assert first["devices"] == one["devices"] == 4
    for path, value in one["params"].items():
        assert np.allclose(first["params"][path], value, rtol=0, atol=1e-6), path
    for row, other in zip(one["rows"], first["rows"], strict=True):
        assert row == pytest.approx(other, rel=1e-5)
    # The first process alone shows how far training is.
    assert "examples/s" in alone.stderr
    assert "examples/s" in (tmp_path / "errors.0").read_text()
    assert "examples/s" not in (tmp_path / "errors.1").read_text()


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_whose_other_is_killed_ends_with_a_sentence(victim, tmp_path):
    processes = start(tmp_path, EPOCHS="1000000", PAUSE="0.1")
    try:
        while "epoch 3" not in (tmp_path / f"out.{victim}").read_text():
            assert processes[victim].poll() is None
            time.sleep(0.1)
        processes[victim].kill()
        killed = time.monotonic()
        code = processes[1 - victim].wait(60)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert code != 0
    assert time.monotonic() - killed < 60
    assert_told_of_a_lost_process((tmp_path / f"errors.{1 - victim}").read_text())


def assert_told_of_a_lost_process(told):
    # JAX may be the first to say so: its service ends those that wait for one another outside of
    # what is computed, as where a checkpoint is written.
    ours = "fit: expected all 2 processes of this run, got no answer from another one"
    sentences = [ours, "most likely indicates that another task died"]
    assert any(sentence in told for sentence in sentences), told[-2000:]


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, None), (signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")],
)
def test_two_processes_of_which_one_is_ended_go_on_from_their_checkpoints(number, words, tmp_path):
    """Killed, one costs the steps since the last checkpoint; asked to end, it takes both along."""
    checkpoint = str(tmp_path / "run")
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    whole = start(tmp_path / "whole", EPOCHS="8")
    assert [process.wait(300) for process in whole] == [0, 0]
    processes = start(tmp_path / "broken", EPOCHS="8", PAUSE="1", CHECKPOINT=checkpoint)
    try:
        while "epoch 3" not in (tmp_path / "broken/out.1").read_text():
            assert processes[1].poll() is None
            time.sleep(0.05)
        processes[1].send_signal(number)
        codes = [process.wait(60) for process in processes]
    finally:
        for process in processes:
            process.kill()
    if words is None:
        assert codes[0] != 0
        assert_told_of_a_lost_process((tmp_path / "broken/errors.0").read_text())
        assert not (tmp_path / "broken/two.0").exists()
    else:
        assert codes == [0, 0]
        found = json.loads((tmp_path / "broken/two.1").read_text())
        assert found["stopped"] == words
        assert len(found["rows"]) < 8
    assert max(fn.Checkpoints(checkpoint).steps()) < 32
    processes = start(tmp_path / "broken", EPOCHS="8", CHECKPOINT=checkpoint)
    assert [process.wait(300) for process in processes] == [0, 0]
    for i in range(2):
        one, other = (tmp_path / folder / f"two.{i}" for folder in ("whole", "broken"))
        assert one.read_text() == other.read_text()
