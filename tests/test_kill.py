"""Runs that are killed at any moment and started again end as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = Path(__file__).parent / "kill" / "train.py"


def start(tmp_path, *arguments, command=(str(SCRIPT),)):
    environment = os.environ | {
        "XLA_FLAGS": os.environ["USERS_XLA_FLAGS"],
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, *command, *map(str, arguments)]
    with (tmp_path / "told").open("w") as told:
        return subprocess.Popen(command, env=environment, stderr=told)


def told(tmp_path):
    return (tmp_path / "told").read_text()


def whole(folder):
    return set(folder.glob("step_*/record.json"))


def half_written(folder):
    return [place for place in folder.glob("step_*") if not (place / "record.json").exists()]


def wait_for(process, happens):
    """Until it happens, or the process ends."""
    until = time.monotonic() + 300
    while process.poll() is None and not happens():
        assert time.monotonic() < until
        time.sleep(0.0005)


def kill_at(process, tmp_path, moment):
    """SIGKILL some time after the first new checkpoint, or while one is being written."""
    folder = tmp_path / "run"
    before = whole(folder)
    wait_for(process, lambda: whole(folder) - before)
    if isinstance(moment, float):
        time.sleep(moment)
    else:
        for _ in range(moment):
            wait_for(process, lambda: half_written(folder))
            if moment > 1:
                wait_for(process, lambda: not half_written(folder))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, told(tmp_path)


def assert_same(one, other):
    one, other = np.load(one), np.load(other)
    assert one.files == other.files
    for name in one.files:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def killed(tmp_path, moments):
    """How often a checkpoint was half written when its process was killed."""
    folder, times = tmp_path / "run", 0
    folder.mkdir()
    process = start(tmp_path, tmp_path / "whole.npz")
    assert process.wait() == 0, told(tmp_path)
    for moment in moments:
        kill_at(start(tmp_path, tmp_path / "killed.npz", folder), tmp_path, moment)
        times += bool(half_written(folder))
    process = start(tmp_path, tmp_path / "killed.npz", folder)
    assert process.wait() == 0, told(tmp_path)
    assert_same(tmp_path / "whole.npz", tmp_path / "killed.npz")
    return times


@pytest.mark.long
@pytest.mark.slow
def test_killed_at_twenty_moments_a_run_ends_as_if_it_had_not_been(tmp_path):
    moments = random.Random(0)
    times = [moments.uniform(0, 0.15) for _ in range(10)]
    assert killed(tmp_path, [part for time in times for part in (time, 1)]) >= 5


def rows(out):
    """The figures of each epoch, but for how long it took."""
    lines = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    times = {"seconds", "examples_per_second"}
    return [{k: v for k, v in line.items() if k not in times} for line in lines]


@pytest.mark.long
def test_a_command_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path):
    words = ("-m", "funcnet", "train", "mlp", "--data=digits", "--epochs=12", "--ema=0.9", "--out")
    folder, out = tmp_path / "run", tmp_path / "killed"
    process = start(tmp_path, tmp_path / "whole", command=words)
    assert process.wait() == 0, told(tmp_path)
    for number, more in ((1, []), (2, ["--resume"])):
        process = start(tmp_path, out, "--checkpoint", folder, *more, command=words)
        before = whole(folder)
        while process.poll() is None and len(whole(folder) - before) < number:
            wait_for(process, lambda seen=whole(folder): whole(folder) - seen)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, told(tmp_path)
        assert not (out / "params.npz").exists()
    process = start(tmp_path, out, "--checkpoint", folder, "--resume", command=words)
    assert process.wait() == 0, told(tmp_path)
    assert_same(tmp_path / "whole" / "params.npz", out / "params.npz")
    assert rows(tmp_path / "whole") == rows(out)
    assert len(rows(out)) == 12
    one, other = (json.loads((x / "result.json").read_text()) for x in (tmp_path / "whole", out))
    assert one | {"seconds": 0} == other | {"seconds": 0}
