"""Checkpoints: what is kept, read again and refused, and that a run goes on exactly."""

import contextlib
import gc
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnet as fn
from funcnet.disk import locked
from funcnet.feed.order import batches
from funcnet.layers.dropout import Dropout
from funcnet.layers.linear import Dense
from funcnet.layers.norm import BatchNorm
from funcnet.nn.combine import serial
from funcnet.train import stored
from funcnet.train.checkpoint import CheckpointError, Checkpoints
from funcnet.train.fit import fit
from funcnet.train.step import make_step
from funcnet.types import Hint

ROOT = Path(__file__).parent.parent
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(64, 3)).astype(np.float32)
Y = (X.sum(1) > 0).astype(np.int32)
NET = serial(Dense(4), BatchNorm(), Dropout(0.3), Dense(2))
TIMES = ("seconds", "examples_per_second")


def nll(logits, labels):
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1)
    return -picked.mean()


def train(checkpoint=None, net=NET, **more):
    settings = {"epochs": 3, "batch": 16, "validation": (X[::2], 1 - Y[::2]), "patience": 3}
    settings |= {"progress": False, "checkpoint": checkpoint} | more
    rate = optax.cosine_decay_schedule(0.05, 12)
    return fit(net, nll, optax.adamw(rate), (X, Y), **settings)


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def rows_of(fitted):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in fitted.history.rows]


def assert_same_run(one, other):
    assert_same(one.state, other.state)
    assert rows_of(one) == rows_of(other)
    assert one.history.health == other.history.health
    assert one.stopped == other.stopped


def cut_after(folder, step, into):
    """The folder as it was after that step."""
    shutil.copytree(folder, into)
    for place in into.glob("step_*"):
        if int(place.name.removeprefix("step_")) > step:
            shutil.rmtree(place)
    return into


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with a checkpoint every two steps, four steps an epoch."""
    folder = tmp_path_factory.mktemp("run") / "a"
    seen = train(Checkpoints(folder, every=2, keep=99), health=3)
    assert Checkpoints(folder).steps() == [12, 10, 8, 6, 4, 2]
    return folder, seen


@pytest.mark.long
def test_checkpoints_change_nothing(run):
    assert_same_run(run[1], train(health=3))


@pytest.mark.parametrize(
    "step", [6, *(pytest.param(step, marks=pytest.mark.long) for step in (8, 12))]
)
def test_a_run_goes_on_exactly_from_an_epoch_and_inside_it(run, step, tmp_path):
    folder, whole = run
    called = []
    again = train(
        cut_after(folder, step, tmp_path / "cut"),
        resume=True,
        health=3,
        on_epoch=lambda row, state: called.append(row["epoch"]),
    )
    assert_same_run(again, whole)
    assert called == [1, 2, 3][step // 4 :]


def test_a_network_draws_and_learns_so_that_a_lost_key_or_average_would_show(run):
    """What the tests above compare is no constant: the epochs differ, and the best is not last."""
    _, fitted = run
    losses = fitted.history.column("val_loss")
    assert len(set(losses)) == 3
    assert int(fitted.state.step) == 4 * (1 + int(np.argmin(losses))) < 12


@pytest.mark.long
def test_patience_and_the_best_state_go_on(tmp_path):
    whole = train(epochs=9, patience=2)
    assert whole.stopped == "patience"
    train(tmp_path, epochs=2, patience=2)
    again = train(tmp_path, epochs=9, patience=2, resume=True)
    assert_same_run(again, whole)
    done = train(tmp_path, epochs=9, patience=2, resume=True)
    assert_same_run(done, whole)


@pytest.mark.long
@pytest.mark.parametrize("choice", ["skip", "stop", "explain"])
def test_steps_that_are_left_out_are_counted_across_checkpoints(choice, tmp_path):
    x = X.copy()
    third = list(batches((np.arange(len(X)),), 16, seed=0))[2][0]
    x[third[0]] = -11  # its root is NaN, in the third step of the first epoch
    net = serial(lambda x: jnp.sqrt(x + 10), NET)

    def go(checkpoint=None, **more):
        settings = {"epochs": 3, "batch": 16, "on_nonfinite": choice, "progress": False}
        settings |= {"checkpoint": checkpoint} | more
        return fit(net, nll, optax.sgd(0.1), (x, Y), **settings)

    whole = go()
    go(Checkpoints(tmp_path / "a", every=1, keep=99))
    steps = Checkpoints(tmp_path / "a").steps()
    if choice == "skip":
        assert (max(steps), whole.history.rows[0]["skipped"]) == (12, 1)
    else:
        assert (max(steps), int(whole.state.step)) == (2, 2)
    for step in (3, 7) if choice == "skip" else (2,):
        again = go(cut_after(tmp_path / "a", step, tmp_path / str(step)), resume=True)
        assert_same_run(again, whole)
        assert str(again.nonfinite) == str(whole.nonfinite)


@pytest.mark.long
@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (15, "terminated")])
def test_a_signal_writes_a_last_checkpoint(run, number, word, tmp_path, monkeypatch, capsys):
    read = fn.feed.reader.Reader.epoch  # the signal comes between the steps of the second epoch

    def batches(self, epoch, first=0):
        for i, part in enumerate(read(self, epoch, first)):
            if epoch == 1 and i == 2 and self.feed.shuffle:
                os.kill(os.getpid(), number)
            yield part

    monkeypatch.setattr(fn.feed.reader.Reader, "epoch", batches)
    ended = train(tmp_path, health=3)
    monkeypatch.undo()
    assert ended.stopped == word
    assert Checkpoints(tmp_path).latest() == 6
    assert ("SIGTERM after step 6" in capsys.readouterr().err) == (word == "terminated")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if word == "terminated":
        assert_same_run(train(tmp_path, resume=True, health=3), run[1])


def passes():
    return ((X[i : i + 10], Y[i : i + 10]) for i in range(0, 60, 10))


UNEQUAL = np.where(X[:, 0] > 1, 1, 0).astype(np.int32)
KINDS = {
    "ragged": ((X[:60], Y[:60]), {}),
    "one by one": (passes, {}),
    "single examples": ([(x, y) for x, y in zip(X[:50], Y[:50], strict=True)], {}),
    "by name": ({"x": X, "y": Y}, {"inputs": "x"}),
    "balanced": (lambda: fn.data.Feed((X, UNEQUAL), 16, balance=True), {}),
    "weighted": ((X, UNEQUAL), {"class_weight": "balanced"}),
    "scaled": ((X, Y), {"precision": fn.Precision(compute="float16", loss_scale=2.0**24)}),
    "averaged": ((X[:60], Y[:60]), {"ema": 0.9, "accumulate": 4, "clip": 0.1}),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_over_data_of_any_kind_goes_on_exactly(kind, tmp_path):
    data, more = KINDS[kind]
    criterion = fn.cross_entropy
    if kind == "by name":

        def criterion(output, batch):
            return fn.cross_entropy(output, batch["y"])

    def go(checkpoint=None, **settings):
        given = data() if kind == "balanced" else data
        return fit(
            NET, criterion, optax.adam(0.05), given, epochs=3, batch=16, progress=False,
            checkpoint=checkpoint, **more, **settings,
        )  # fmt: skip

    whole = go(Checkpoints(tmp_path / "whole", every=1, keep=99))
    steps = int(whole.history.rows[-1]["step"])
    assert steps == 3 * int(whole.history.rows[0]["step"])
    assert Checkpoints(tmp_path / "whole").steps() == list(range(steps, 0, -1))
    for step in (2, steps // 3, steps // 3 + 1):
        again = go(cut_after(tmp_path / "whole", step, tmp_path / str(step)), resume=True)
        assert_same_run(again, whole)
    if kind == "scaled":
        assert whole.history.rows[0]["skipped"] > 0


@pytest.mark.long
def test_examples_drawn_another_way_are_another_run(tmp_path):
    train(tmp_path)
    with pytest.raises(ValueError, match="got order as it is, use, not shuffled, use"):
        fit(
            NET, nll, optax.adamw(optax.cosine_decay_schedule(0.05, 12)),
            fn.data.Feed((X, Y), 16, shuffle=False), epochs=3, checkpoint=tmp_path, resume=True,
        )  # fmt: skip


@pytest.mark.long
def test_training_goes_on_from_a_state_and_ends_when_told():
    first = train(patience=None)
    further = train(patience=None, start=first.state, on_epoch=lambda row, state: True)
    assert (further.stopped, len(further.history.rows)) == ("on_epoch", 1)
    assert int(further.state.step) == 16
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(first.state))
    with pytest.raises(ValueError, match=r"start/params/dense_1/w has shape .4, 2., not .4, 5."):
        train(net=serial(Dense(4), BatchNorm(), Dropout(0.3), Dense(5)), start=first.state)
    with pytest.raises(TypeError, match="start to be a state of training, got"):
        train(start=first)


@pytest.mark.long
def test_what_is_no_way_to_go_on_is_refused(run, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "a")
    with pytest.raises(ValueError, match=r"no other run in .* that has taken 12 steps. Give re"):
        train(folder)
    with pytest.raises(ValueError, match=r"got seed 1, not 0\. Give"):
        train(folder, resume=True, seed=1)
    with pytest.raises(ValueError, match="got batch 8, not 16, first examples"):
        train(folder, resume=True, batch=8)
    with pytest.raises(ValueError, match=r"state/params/dense/w has shape .3, 4., not .3, 7."):
        train(folder, net=serial(Dense(7), BatchNorm(), Dropout(0.3), Dense(2)), resume=True)
    with pytest.raises(TypeError, match="checkpoint to be a folder or Checkpoints, got 3"):
        train(3)
    assert Checkpoints(folder).latest() == 12


STEP = make_step(serial(Dense(3), BatchNorm()), nll, optax.adam(0.1))


def a_state(seed=0):
    return STEP.init(jax.random.key(seed), X[:4])


def test_an_own_loop_goes_on(tmp_path):
    state, batch = a_state(), (X[:4], Y[:4])
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() is None
        for i in range(6):
            if i == 3:
                checkpoints.save(state)
            state, _ = STEP.update(state, batch)
    with Checkpoints(tmp_path) as checkpoints:
        shapes = jax.eval_shape(lambda: a_state(1))
        again = checkpoints.restore(like=shapes)
        assert int(again.step) == checkpoints.latest() == 3
        for _ in range(3):
            again, _ = STEP.update(again, batch)
        assert_same(state, again)
        params = checkpoints.params()
        assert_same(params, checkpoints.restore(like=shapes).params)
        assert_same(params, checkpoints.params(like=shapes.params))


def test_every_dtype_keys_and_empty_arrays_come_back(tmp_path):
    params = {
        "b": jnp.arange(3, dtype=jnp.bfloat16),
        "e": jnp.zeros((0, 4)),
        "f": jnp.ones((2, 0), jnp.float16),
        "i": jnp.array(7, jnp.int8),
        "t": jnp.array([True, False]),
    }
    key = jax.random.key(3, impl="rbg")
    state = a_state()._replace(params=params, state={"k": jax.random.key(1)}, key=key)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, 5)
        checkpoints.wait()
        for like in (state, jax.eval_shape(lambda: state)):
            again = checkpoints.restore(like=like)
            assert_same(again.params, params)
            assert jax.random.key_impl(again.key) == jax.random.key_impl(key)
            assert (jax.random.bits(again.key) == jax.random.bits(key)).all()
            assert jax.random.bits(again.state["k"]) == jax.random.bits(state.state["k"])


def test_the_last_and_the_best_are_kept(tmp_path):
    state = a_state()
    with Checkpoints(tmp_path, keep=2, best=lambda row: -row["accuracy"]) as checkpoints:
        for step, accuracy in enumerate([0.1, 0.8, 0.3, 0.8, np.nan, 0.2]):
            checkpoints.save(state, step, row={"accuracy": accuracy})
        checkpoints.save(state, 6)
    kept = Checkpoints(tmp_path, best=lambda row: -row["accuracy"])
    assert (kept.steps(), kept.best(), kept.latest()) == ([6, 5, 1], 1, 6)
    assert Checkpoints(tmp_path).best() is None
    rows = [{"accuracy": 0.5}, {"accuracy": 0.6}]
    assert kept.improved(rows)
    assert not kept.improved(rows[::-1])
    with kept:
        kept.save(state, 6, row={"accuracy": 0.9})
    assert (kept.steps(), kept.best()) == ([6, 5, 1], 6)


def test_a_state_that_is_given_away_is_saved_as_it_was(tmp_path):
    with Checkpoints(tmp_path, keep=9) as checkpoints:
        state, wanted = a_state(), []
        for _ in range(3):
            wanted.append(jax.tree.map(np.array, state))
            checkpoints.save(state)
            state, _ = STEP.update(state, (X[:4], Y[:4]))
        for step, before in enumerate(wanted):
            checkpoints.wait()
            assert_same(checkpoints.restore(like=state, step=step), before)


def test_what_is_not_finite_is_not_kept(tmp_path):
    state = a_state()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, 1)
        bad = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params)
        checkpoints.save(state._replace(params=bad), 2)
    assert checkpoints.steps() == [1]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three")
    with Checkpoints(folder) as checkpoints:
        for step in range(3):
            checkpoints.save(a_state(step), step)
    return folder


def files_of(place):
    return sorted(path for path in place.rglob("*") if path.is_file())


def flip(path, at=-3):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_any_file_that_changed_is_named_and_the_one_before_is_read(three, tmp_path):
    arrays = [file for file in files_of(three / "step_2") if file.name != stored.RECORD]
    for i, file in enumerate(arrays):
        folder = shutil.copytree(three, tmp_path / str(i))
        damaged = folder / file.relative_to(three)
        if i % 2:
            damaged.unlink()
        else:
            flip(damaged)
        with pytest.warns(Hint, match=rf"step_2 is left out, as .*{damaged.name} is"):
            assert Checkpoints(folder).latest() == 1
    with pytest.warns(Hint, match="step_2 is left out"):
        again = Checkpoints(folder).restore(like=a_state())
    assert_same(again, a_state(1))
    with pytest.raises(ValueError, match="expected a whole checkpoint of step 2, got "):
        Checkpoints(folder).restore(like=a_state(), step=2)


@pytest.mark.parametrize("at", [3, 70, 200, 900, -9])
def test_a_bit_of_the_record_that_changed_is_seen(three, at, tmp_path):
    folder = shutil.copytree(three, tmp_path / "a")
    flip(folder / "step_2" / stored.RECORD, at)
    with pytest.warns(Hint, match=r"record.json is not as it was written"):
        assert Checkpoints(folder).latest() == 1


def test_where_none_is_whole_there_is_none(three, tmp_path):
    folder = shutil.copytree(three, tmp_path / "a")
    for path in folder.glob("step_*/record.json"):
        path.write_text("{")
    with pytest.warns(Hint):
        assert Checkpoints(folder).latest() is None
    with pytest.warns(Hint), pytest.raises(ValueError, match=r"a checkpoint in .*, got none"):
        Checkpoints(folder).restore(like=a_state())


def test_what_was_left_half_written_goes_and_nothing_else(three, tmp_path):
    folder = shutil.copytree(three, tmp_path / "a")
    (folder / "step_2" / stored.RECORD).unlink()
    (folder / "step_1" / "arrays-0").mkdir()
    (folder / "step_9" / "arrays-1.orbax-checkpoint-tmp").mkdir(parents=True)
    (folder / "step_photos").mkdir()
    (folder / "step_8").mkdir()
    (folder / "step_8" / "notes.txt").write_text("mine")
    with Checkpoints(folder).open() as checkpoints:
        left = {str(path.relative_to(folder)) for path in folder.glob("step_*")}
        assert left == {"step_0", "step_1", "step_photos", "step_8"}
        assert not (folder / "step_1" / "arrays-0").exists()
        assert checkpoints.steps() == [1, 0]
        checkpoints.save(a_state(), 2)
    assert Checkpoints(folder).latest() == 2


def test_another_network_is_told_by_its_arrays(three):
    other = make_step(serial(Dense(5), a=BatchNorm()), nll, optax.adam(0.1))
    with pytest.raises(ValueError, match="the arrays of this network and optimiser") as told:
        Checkpoints(three).restore(like=other.init(jax.random.key(0), X[:4]))
    assert "state/params/a/scale is missing; " in str(told.value)
    assert "state/params/batch_norm/scale is extra; " in str(told.value)
    assert "state/params/dense/w has shape (3, 3), not (3, 5)" in str(told.value)
    with pytest.raises(ValueError, match=r"step 7 in .*, got those of 2, 1, 0. Choose"):
        Checkpoints(three).params(7)


@pytest.mark.parametrize(
    ("error", "match", "settings"),
    [
        (ValueError, "every to be a whole number, 1 or above, got 0. Write every=5.", {"every": 0}),
        (ValueError, "keep to be a whole number, 1 or above, got None", {"keep": None}),
        (TypeError, "best to be the name of a figure or a function", {"best": 3}),
    ],
)
def test_settings(error, match, settings, tmp_path):
    with pytest.raises(error, match=match):
        Checkpoints(tmp_path, **settings)


def test_without_orbax_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(ImportError, match=r"pip install 'funcnet\[checkpoint\]'"):
        Checkpoints(tmp_path)


@contextlib.contextmanager
def no_file_over(size):
    """A disk that has no room: writing more than so many bytes to a file is an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_where_there_is_no_room_the_ones_before_stay(three, tmp_path):
    folder = shutil.copytree(three, tmp_path / "a")
    state = a_state()
    noise = jnp.asarray(np.random.default_rng(0).normal(size=20_000), jnp.float32)
    large = state._replace(state={"noise": noise})
    checkpoints = Checkpoints(folder)
    with no_file_over(20_000):
        checkpoints.save(large, 7)
        with pytest.raises(CheckpointError, match=r"got File too large. That of step 2 is whole:"):
            checkpoints.wait()
        assert sorted(path.name for path in folder.glob("step_*")) == ["step_0", "step_1", "step_2"]
        checkpoints.save(state, 8)
        checkpoints.wait()
    checkpoints.save(large, 9)
    checkpoints.close()
    assert checkpoints.latest() == 9
    gc.collect()  # here, where what tensorstore says of its writes that failed is known


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("options", ["size=1m", "size=1m,ro"])
def test_a_full_disk_and_a_read_only_one(options, tmp_path):
    size, *read_only = options.split(",")
    mount = ["mount", "-t", "tmpfs", "-o"]
    if subprocess.run([*mount, size, "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        state = a_state()
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(state, 1)
        if read_only:
            subprocess.run([*mount, "remount,ro", "tmpfs", tmp_path], check=True)
            with pytest.raises(ValueError, match=r"to write to, .*, got Read-only file system."):
                train(tmp_path, resume=True)
        else:
            noise = jnp.asarray(np.random.default_rng(0).normal(size=500_000), jnp.float32)
            checkpoints.save(state._replace(state={"noise": noise}), 2)
            with pytest.raises(CheckpointError, match=r"got No space left on device. That of st"):
                checkpoints.close()
        assert_same(checkpoints.restore(like=state), state)
    finally:
        gc.collect()
        subprocess.run(["umount", "-l", tmp_path], check=True)


@pytest.mark.long
def test_fit_ends_with_what_was_learned_where_there_is_no_room(tmp_path, monkeypatch):
    whole = stored.Writing.finish

    def finish(self, more):
        if self.place.name == "step_8":
            self.writer.wait_until_finished()
            raise OSError(28, "No space left on device")
        whole(self, more)

    monkeypatch.setattr(stored.Writing, "finish", finish)
    with pytest.raises(CheckpointError, match=r"got No space left on device. That of step 4") as e:
        train(tmp_path)
    assert e.value.fitted.history.rows[1]["epoch"] == 2
    assert np.isfinite(e.value.fitted.state.params["dense"]["w"]).all()
    assert Checkpoints(tmp_path).steps() == [4]


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_first_step(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"a folder to write to, .*, got Not a directory. Choose"):
        train(tmp_path / "file" / "a")


HOLDER = """
import sys, time
from funcnet.disk import locked
from funcnet.feed.order import batches
with locked("train", sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_has_one_writer_and_the_lock_dies_with_it(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    holder = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match="for this process alone, got another process that write"):
        Checkpoints(tmp_path).save(a_state())
    holder.kill()
    holder.communicate()
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(a_state())
        with locked("fit", tmp_path), locked("fit", tmp_path):
            assert checkpoints.wait() is None


@pytest.mark.long
def test_a_state_comes_back_on_other_devices(tmp_path):
    flags = f"{os.environ['USERS_XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    command = [sys.executable, str(ROOT / "tests/kill/other_mesh.py"), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "1\n"), ran.stderr
