"""The commands, as a person types them."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import funcnet as fn
from funcnet.__main__ import NETS, main

from .conftest import USERS_XLA_FLAGS


def as_a_user(*arguments):
    environment = {**os.environ, "XLA_FLAGS": USERS_XLA_FLAGS}
    command = [sys.executable, "-m", "funcnet", *arguments]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_train_saves_everything_and_ends_with_one_line(tmp_path, capsys):
    out = tmp_path / "run"
    assert (
        main(
            [
                "train",
                "mlp",
                "--data",
                "iris",
                "--batch",
                "16",
                "--lr",
                "0.01",
                "--epochs",
                "30",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    assert {path.name for path in out.iterdir()} == {
        "params.npz", "history.jsonl", "curves.png", "confusion.png", "result.json",
    }  # fmt: skip
    result = json.loads((out / "result.json").read_text())
    assert result["accuracy"] > 0.8
    assert result["epochs"] == 30
    assert len((out / "history.jsonl").read_text().splitlines()) == 30
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(f"test accuracy {result['accuracy']:.3f}, loss ")
    assert f": mlp, iris, 30 epochs, {result['seconds']:.1f} s" in last


def test_train_regression(tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", "linear", "--data", "diabetes", "--out", str(out)]) == 0
    assert not (out / "confusion.png").exists()
    assert json.loads((out / "result.json").read_text())["r_squared"] > 0.3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("net", "data", "least"), [("mlp", "digits", 0.97), ("linear", "breast_cancer", 0.95)]
)
def test_default_jobs_reach_their_marks(net, data, least, tmp_path):
    as_a_user("train", net, "--out", str(tmp_path))
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["data"] == data
    assert result["accuracy"] >= least


@pytest.mark.slow
@pytest.mark.alone
def test_lenet_reaches_96_percent_within_a_minute(tmp_path):
    as_a_user("train", "lenet", "--out", str(tmp_path))
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["data"], result["test_examples"]) == ("mnist5k", 1000)
    assert result["accuracy"] >= 0.96
    assert result["seconds"] <= 60


@pytest.mark.slow
def test_ctrl_c_saves_what_was_learned(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "funcnet", "train", "mlp", "--data", "iris", "--epochs", "1000000",
         "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    time.sleep(15)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    result = json.loads((tmp_path / "run/result.json").read_text())
    assert result["stopped"] == "interrupted"
    assert result["accuracy"] > 0.8
    assert printed.strip().splitlines()[-1].endswith("s, interrupted")
    assert (tmp_path / "run/params.npz").exists()


def test_check_prints_the_table(capsys):
    assert main(["check", "dense", "embed"]) == 0
    printed = capsys.readouterr().out
    assert "x, w, b" in printed
    assert "0 beyond the limit of 1e-12." in printed


def test_check_fails_on_a_wrong_rule(capsys, monkeypatch):
    rule = fn.RULES["dense"]

    def wrong(res, dy):
        dx, dw, db = rule.backward(res, dy)
        return dx, dw * (1 + 1e-11), db

    monkeypatch.setitem(fn.RULES, "dense", rule)
    fn.rule(rule.forward, wrong, cases=rule.cases)(rule.primal)
    assert main(["check", "dense"]) == 1
    assert "FAILED dense (rows): w 1e-11 > 1e-12" in capsys.readouterr().out


def test_check_fails_on_a_rule_that_raises(capsys, monkeypatch):
    rule = fn.RULES["dense"]
    monkeypatch.setitem(fn.RULES, "dense", rule)
    fn.rule(rule.forward, lambda res, dy: (dy,), cases=rule.cases)(rule.primal)
    assert main(["check", "dense"]) == 1
    assert "TypeError: dense backward: expected a tuple of 3" in capsys.readouterr().out


@pytest.mark.parametrize("net", NETS)
def test_summary(net, capsys):
    assert main(["summary", net]) == 0
    assert "total" in capsys.readouterr().out


MISUSES = {
    "unknown data": (
        ["train", "mlp", "--data", "mnist"],
        "load_data: expected digits, breast_cancer, diabetes, wine, iris, mnist5k, fashion-mnist, ",
    ),
    "unknown op": (
        ["check", "dens"],
        "funcnet check: check: expected the name of an op, got 'dens'. Did you mean dense?",
    ),
    "no epochs": (
        ["train", "mlp", "--epochs", "0"],
        "funcnet train: train: expected --epochs of 1 or more, got 0. "
        "Leave it out for the default.",
    ),
    "rate": (
        ["train", "mlp", "--lr", "-1"],
        "expected a learning rate above 0, got -1.0. Try 1e-3 with adam.",
    ),
    "output is a file": (
        ["train", "mlp", "--data", "iris", "--out", "/dev/null/run"],
        "train: expected a folder to write in for --out, got /dev/null/run (Not a directory). "
        "Name another one.",
    ),
    "images wanted": (
        ["summary", "lenet", "--data", "iris"],
        "conv: expected",
    ),
}


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse_is_one_sentence(misuse, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, message = MISUSES[misuse]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize("command", [[], ["train"], ["check"], ["summary"]])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "usage: funcnet" in printed
    assert not command or f"examples:\n  funcnet {command[0]}" in printed
