"""The commands, as a person types them."""

import colorsys
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

import funcnet as fn
from funcnet.__main__ import _parser, main
from funcnet.commands.options import asked
from funcnet.commands.recipes import NETS

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
        "params.npz", "run.json", "history.jsonl", "curves.png", "confusion.png", "result.json",
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


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_train_on_several_targets(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(200, 3))
    y = x @ np.array([[1.0, 2.0], [0.0, 1.0], [-1.0, 0.5]]) + [0.5, 5.0]
    data, out = save(tmp_path / "two.npz", x=x, y=y), tmp_path / "run"
    arguments = ["--batch", "16", "--lr", "0.1", "--epochs", "20", "--out", str(out)]
    assert main(["train", "linear", "--data", data, *arguments]) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["r_squared"] > 0.99
    assert result["parameters"] == 3 * 2 + 2


def test_a_second_run_leaves_no_file_of_the_first(tmp_path, capsys):
    out = tmp_path / "run"
    own = save(tmp_path / "own.npz", x=np.eye(40), y=np.arange(40.0))
    for data in ("iris", own):
        assert main(["train", "linear", "--data", data, "--epochs", "1", "--batch", "16",
                     "--out", str(out)]) == 0  # fmt: skip
        (out / "notes.txt").write_text("mine")
    assert {path.name for path in out.iterdir()} == {
        "params.npz", "run.json", "history.jsonl", "curves.png", "result.json", "notes.txt",
    }  # fmt: skip
    saved = f"saved in {out}: curves.png, history.jsonl, params.npz, result.json, run.json\n"
    assert saved in capsys.readouterr().out


def strict(text):
    def refuse(word):
        raise ValueError(word)

    return json.loads(text, parse_constant=refuse)


def test_training_that_diverges_is_saved_and_fails(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(200, 3))
    data, out = save(tmp_path / "own.npz", x=x, y=x.sum(1)), tmp_path / "run"
    arguments = ["--batch", "16", "--lr", "1e30", "--optimizer", "sgd", "--out", str(out)]
    assert main(["train", "linear", "--data", data, *arguments]) == 1
    result = strict((out / "result.json").read_text())
    assert result["stopped"] == "not finite"
    assert np.isfinite([result["loss"], result["r_squared"]]).all()
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert f"loss {result['loss']:.3g}: linear, own, 1 epoch, " in last
    assert last.endswith(" s, not finite")
    rows = fn.History.load(out / "history.jsonl").rows
    assert not np.isfinite(rows[-1]["loss"])
    with np.load(out / "params.npz") as saved:
        assert all(np.isfinite(saved[name]).all() for name in saved.files)


def test_a_run_that_diverges_keeps_the_files_of_a_better_one(tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["train", "linear", "--data", "diabetes", "--batch", "16", "--epochs", "3"]
    arguments += ["--out", str(out), "--optimizer", "sgd", "--lr"]
    contents = lambda: {path.name: path.read_bytes() for path in out.iterdir()}  # noqa: E731
    assert main([*arguments, "1e30"]) == 1
    diverged = contents()
    assert main([*arguments, "0.1"]) == 0
    good = contents()
    assert good["params.npz"] != diverged["params.npz"]
    capsys.readouterr()
    assert main([*arguments, "1e30"]) == 1
    assert contents() == good
    assert f"and saved nothing: {out} keeps the files of an" in capsys.readouterr().err
    (out / "result.json").unlink()
    assert main([*arguments, "1e30"]) == 1
    assert contents() == {name: x for name, x in good.items() if name != "result.json"}


def test_one_class_alone_is_refused(tmp_path, capsys):
    data = save(tmp_path / "own.npz", x=np.ones((9, 2)), y=np.full(9, 3))
    assert main(["train", "linear", "--data", data, "--out", str(tmp_path / "a/b")]) == 1
    assert capsys.readouterr().err == (
        "funcnet train: train: expected examples of two classes or more in own, got only class 3. "
        "Bring examples of another class, or write y as float where it is no class.\n"
    )
    assert not (tmp_path / "a").exists()


def test_ctrl_c_before_the_first_step_is_one_line(tmp_path, capsys, monkeypatch):
    def press(*arguments):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("funcnet.train.fit.check_calls", press)
    out = tmp_path / "a/b"
    assert main(["train", "linear", "--data", "iris", "--out", str(out)]) == 130
    said = capsys.readouterr().err.strip()
    assert said == "funcnet train: interrupted before the first step"
    assert not (tmp_path / "a").exists()
    monkeypatch.setattr("funcnet.commands.inspect.prove_all", press)
    assert main(["check", "dense"]) == 130
    assert capsys.readouterr().err.strip() == "funcnet check: interrupted"


def test_smoothing_with_two_classes_counts(tmp_path, capsys):
    losses = []
    for smoothing in ("0", "0.4"):
        out = tmp_path / smoothing
        assert main(["train", "linear", "--epochs", "2", "--out", str(out),
                     "--smoothing", smoothing]) == 0  # fmt: skip
        losses.append(fn.History.load(out / "history.jsonl").rows[-1]["loss"])
    assert losses[1] > losses[0] + 0.2
    job = NETS["linear"].job(asked(parsed("--smoothing", "0.4")))
    z, y = np.array([[2.0], [-1.0], [0.5]]), np.array([1, 1, 0])
    two = np.concatenate([np.zeros_like(z), z], 1)
    truth = fn.cross_entropy(jax.numpy.asarray(two), y, label_smoothing=0.4)
    assert float(job.criterion(jax.numpy.asarray(z), y)) == pytest.approx(float(truth), rel=1e-6)


def parsed(*arguments):
    return _parser().parse_args(["train", "linear", *arguments])


def test_what_looks_unmeant_is_said_in_one_line(tmp_path, capsys):
    x, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 3
    data = save(tmp_path / "csv.npz", x=x, y=y.astype(float))
    out = ["--epochs", "1", "--batch", "16", "--out", str(tmp_path / "run")]
    assert main(["train", "linear", "--data", data, *out]) == 0
    assert capsys.readouterr().err.splitlines()[0] == (
        f"funcnet train: y of {data} is floating, so the network learns numbers, though it holds "
        "only 3 whole ones: if they are classes, write y.astype(int)."
    )


def test_numbers_of_the_command_line_are_floating(tmp_path, capsys):
    model = tmp_path / "model.py"
    model.write_text(
        "import jax.numpy as jnp\n"
        "def f(x):\n    return jnp.sin(x).sum()\n"
        "def g(x, i):\n    return x[i].sum()\n"
    )
    assert main(["trace", f"{model}:f", "--args", "1"]) == 0
    assert "the largest gradient 0.5403." in capsys.readouterr().out
    assert main(["trace", f"{model}:f", "--args", "[[1, 2], [3, 4]]"]) == 0
    assert "float32[2,2]" in capsys.readouterr().out
    assert main(["trace", f"{model}:g", "--args", "[1, 2, 3]", "int([0, 2])"]) == 0
    assert "int32[2]" in capsys.readouterr().out
    assert main(["trace", f"{model}:g", "--args", "[1, 2, 3]", "int(-1)"]) == 0
    assert "the largest gradient 1." in capsys.readouterr().out
    assert main(["trace", f"{model}:g", "--args", "[1, 2]", "int([1, 'a'])"]) == 1
    assert "trace: expected a value as Python writes it, got" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert (stop.value.code, capsys.readouterr().out) == (0, f"funcnet {fn.__version__}\n")


ERRORS = {
    "jax": (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out"), "RESOURCE_EXHAUSTED: out"),
    "memory": (MemoryError(), "MemoryError"),
    "overflow": (OverflowError("too large"), "too large"),
}


@pytest.mark.parametrize("error", ERRORS)
def test_what_the_machine_refuses_is_one_line(error, capsys, monkeypatch, tmp_path):
    raised, text = ERRORS[error]

    def fail(*arguments, **more):
        raise raised

    raised.add_note("For simplicity, JAX has removed frames.")
    raised.add_note("in layer serial/dense")
    monkeypatch.setattr("funcnet.commands.train.fit", fail)
    assert main(["train", "linear", "--data", "iris", "--out", str(tmp_path / "a/b")]) == 1
    assert capsys.readouterr().err == f"funcnet train: {text}\n  in layer serial/dense\n"
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("net", "data", "least"), [("mlp", "digits", 0.97), ("linear", "breast_cancer", 0.95)]
)
def test_default_jobs_reach_their_marks(net, data, least, tmp_path):
    as_a_user("train", net, "--out", str(tmp_path))
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["data"] == data
    assert result["accuracy"] >= least


@pytest.mark.long
@pytest.mark.alone
def test_lenet_reaches_96_percent_within_a_minute(tmp_path):
    as_a_user("train", "lenet", "--out", str(tmp_path))
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["data"], result["test_examples"]) == ("mnist5k", 1000)
    assert result["accuracy"] >= 0.96
    assert result["seconds"] <= 60


def wait_for_lines(path, number, seconds=120):
    end = time.monotonic() + seconds
    while not path.exists() or path.read_text().count("\n") < number:
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.long
def test_ctrl_c_saves_what_was_learned(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "funcnet", "train", "mlp", "--data", "iris", "--epochs", "1000000",
         "--out", str(tmp_path / "run")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    wait_for_lines(tmp_path / "run" / "history.jsonl", 100)
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
    assert "x, w" in printed
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


JOBS = {
    "vit": ("digits", 16, {"confusion.png"}, "test accuracy 0."),
    "unet": ("digits", 8, {"samples.png"}, "test psnr "),
    "vae": ("digits", 16, {"samples.png"}, "test loss "),
    "ddpm": ("digits", 8, {"samples.png"}, "test loss "),
    "gpt": ("letters", 16, {"sample.txt"}, "test perplexity "),
    "rnn": ("letters", 16, {"sample.txt"}, "test perplexity "),
}


@pytest.mark.long
@pytest.mark.parametrize("net", JOBS)
def test_every_kind_of_job_leaves_something_to_look_at(net, tmp_path, capsys):
    data, width, files, closing = JOBS[net]
    if data == "letters":
        data = tmp_path / "letters.txt"
        data.write_text("How doth the little crocodile improve his shining tail. " * 40)
    out = tmp_path / "out"
    widths = [str(width)] if net not in ("unet", "ddpm") else [str(width), "16"]
    arguments = ["train", net, "--data", str(data), "--epochs", "1", "--out", str(out)]
    assert main([*arguments, "--width", *widths]) == 0
    assert {"params.npz", "run.json", "history.jsonl", "curves.png", "result.json"} | files == {
        path.name for path in out.iterdir()
    }
    last = capsys.readouterr().out.strip().splitlines()[-1]
    assert last.startswith(closing)
    assert f": {net}, {data}, 1 epoch, " in last
    assert np.isfinite(json.loads((out / "result.json").read_text())["loss"])


def test_trace_without_arguments_is_the_lectures_example(capsys):
    assert main(["trace"]) == 0
    assert "v-1 * v2'" in capsys.readouterr().out
    assert main(["trace", "--latex"]) == 0
    assert "\\begin{tabular}" in capsys.readouterr().out


def test_trace_of_a_function_in_a_file(tmp_path, capsys):
    model = tmp_path / "model.py"
    model.write_text("def loss(scale, x):\n    return (scale * x).sum()\n")
    files = [tmp_path / name for name in ("a.html", "a.svg", "a.json")]
    wanted = [word for file in files for word in (f"--{file.suffix[1:]}", str(file))]
    assert main(["trace", f"{model}:loss", "--args", "2.0", "[1.0, 3.0]", *wanted]) == 0
    assert "Reverse adjoint trace" in capsys.readouterr().out
    assert files[0].read_text().startswith("<!doctype html>")
    assert files[1].read_text().startswith("<svg")
    assert json.loads(files[2].read_text())["function"] == "loss"


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
        "funcnet check: check: expected the name of an op, got 'dens'. Did you mean dense, einsum?",
    ),
    "no op at all": (
        ["check", "zzz"],
        "expected the name of an op, got 'zzz'. `funcnet check` without a name proves all.\n",
    ),
    "smoothing of text": (
        ["train", "gpt", "--smoothing", "0.1"],
        "funcnet: expected no --smoothing for gpt, which tells no classes apart, got --smoothing "
        "0.1. Leave it out.",
    ),
    "smoothing of numbers": (
        ["train", "linear", "--data", "diabetes", "--smoothing", "0.1"],
        "train: expected no --smoothing for diabetes, whose targets are numbers, got --smoothing "
        "0.1. Leave it out.",
    ),
    "smoothing that is no number": (
        ["train", "linear", "--smoothing", "nan"],
        "train: expected --smoothing from 0 to below 1, got nan. It is the share of each label",
    ),
    "no name of data": (
        ["train", "linear", "--data", ""],
        "funcnet: expected a name or a path after --data, got ''. Leave --data out for breast_can",
    ),
    "no name of a folder": (
        ["train", "linear", "--data", "iris", "--batch", "16", "--out", ""],
        "train: expected a folder to write in for --out, got ''. Leave it out for runs/...",
    ),
    "no batch": (
        ["train", "linear", "--data", "iris", "--batch", "0"],
        "train: expected --batch from 1 to 120, the examples to learn from, got 0. Write "
        "--batch 30, or bring more data.\n",
    ),
    "a batch too many": (
        ["train", "linear", "--data", "iris", "--batch", "121"],
        "train: expected --batch from 1 to 120, the examples to learn from, got 121. Write --bat",
    ),
    "an infinite rate": (
        ["train", "linear", "--lr", "inf"],
        "expected a finite learning rate above 0, got inf. Try 1e-3 with adam.",
    ),
    "a rate below 0 in another form": (
        ["train", "linear", "--lr", "-1e-3"],
        "expected a finite learning rate above 0, got -0.001. Try 1e-3 with adam.",
    ),
    "one file for two": (
        ["trace", "--html", "a", "--svg", "./a"],
        "trace: expected another file for each of --html, --svg and --json, got a and ./a. Each",
    ),
    "no file at all": (
        ["trace", "--html", ""],
        "trace: expected a place to write, ., got Is a directory. Choose a folder that exists",
    ),
    "an infinite value": (
        ["trace", f"{colorsys.__file__}:rgb_to_hsv", "--args", "-inf", "1", "1"],
        "trace: expected a value as Python writes it, got '-inf'. Write 2.0, '[1.0, 2.0]' for an ",
    ),
    "a fraction for an integer": (
        ["trace", f"{colorsys.__file__}:rgb_to_hsv", "--args", "int(1.5)", "1", "1"],
        "trace: expected a value as Python writes it, got 'int(1.5)'. Write 2.0, '[1.0, 2.0]' for",
    ),
    "an integer beyond": (
        ["trace", f"{colorsys.__file__}:rgb_to_hsv", "--args", "int([4294967297])", "1", "1"],
        "trace: expected a value as Python writes it, got 'int([4294967297])'. Write 2.0, '[1.0, ",
    ),
    "too much smoothing": (
        ["train", "linear", "--smoothing", "1.5"],
        "train: expected --smoothing from 0 to below 1, got 1.5. It is the share of each label",
    ),
    "no epochs": (
        ["train", "mlp", "--epochs", "0"],
        "funcnet train: train: expected --epochs of 1 or more, got 0. "
        "Leave it out for the default.",
    ),
    "rate": (
        ["train", "mlp", "--lr", "-1"],
        "expected a finite learning rate above 0, got -1.0. Try 1e-3 with adam.",
    ),
    "output is a file": (
        ["train", "mlp", "--data", "iris", "--out", "/dev/null/run"],
        "train: expected a folder to write in for --out, got /dev/null/run (Not a directory). "
        "Name another one.",
    ),
    "seed": (
        ["train", "linear", "--data", "iris", "--seed", "99999999999999999999"],
        "funcnet train: train: expected --seed from 0 to 4294967295, got 99999999999999999999. "
        "Leave it out for 0.\n",
    ),
    "no choice of widths": (
        ["train", "lenet", "--width", "8"],
        "funcnet: expected no --width for lenet, which has no choice of widths, got --width 8. "
        "Leave it out.",
    ),
    "too many widths": (
        ["train", "gpt", "--width", "8", "16"],
        "funcnet: expected one --width for gpt, got 2 of them. Write --width 128.",
    ),
    "no parts": (
        ["train", "linear", "--data", "iris", "--accumulate", "0"],
        "expected accumulate to be a whole number, 1 or above, got 0. Write accumulate=4, or",
    ),
    "no patience": (
        ["train", "linear", "--data", "iris", "--patience", "0"],
        "fit: expected patience to be a whole number, 1 or above, got 0. Leave patience out, or ",
    ),
    "nowhere to go on from": (
        ["train", "linear", "--data", "iris", "--resume"],
        "fit: expected a folder of checkpoints to go on from with resume, got none. Name it: "
        "checkpoint=DIR, or --checkpoint DIR.",
    ),
    "no text": (
        ["train", "lstm", "--data", "missing.txt"],
        "load_text: expected a file in UTF-8 at missing.txt, got No such file or directory. "
        "Check the path.",
    ),
    "no images": (
        ["train", "vae", "--data", "iris"],
        "train: expected images (n, height, width, channels) for this network, got iris of shape "
        "(120, 4). Choose digits, mnist5k, fashion-mnist or a folder of images.",
    ),
    "no function": (
        ["trace", "model.py"],
        "trace: expected a file and a function in it, FILE.py:FUNCTION, got 'model.py'. Write "
        "model.py:loss.",
    ),
    "no file": (["trace", "model.py:loss"], "expected a Python file, got model.py. Check the"),
    "another name": (
        ["trace", f"{colorsys.__file__}:rgb_to_hs"],
        "got 'rgb_to_hs'. It has rgb_to_hsv, rgb_to_hls",
    ),
    "missing values": (
        ["trace", f"{colorsys.__file__}:rgb_to_hsv", "--args", "1.0", "0.5"],
        ":rgb_to_hsv(r, g, b), got 2 of them (missing a required argument: 'b'). Give a value for "
        "each parameter.",
    ),
    "no value": (
        ["trace", f"{colorsys.__file__}:rgb_to_hsv", "--args", "1.0", "a", "b"],
        "trace: expected a value as Python writes it, got 'a'. Write 2.0, '[1.0, 2.0]' for an "
        "array, or 'int(3)' for an integer.",
    ),
    "values alone": (
        ["trace", "--args", "2.0"],
        "trace: expected --args after a FILE.py:FUNCTION, got --args 2.0 alone. Name the function "
        "first.",
    ),
    "images wanted": (
        ["summary", "lenet", "--data", "iris"],
        "conv: expected",
    ),
}


SHORT = {
    "": "load_text: expected a text of some characters, got an empty file, text.txt. Bring another",
    "abc" * 213: "train: expected a text of 650 characters or more, of which a tenth is held out, "
    "got 639 in text.txt. Bring a longer one.",
}


@pytest.mark.parametrize("text", SHORT, ids=len)
def test_a_text_that_is_too_short(text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text(text)
    assert main(["train", "rnn", "--data", "text.txt"]) == 1
    assert SHORT[text] in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_a_folder_at_the_name_of_a_file_is_said_before_training(tmp_path, capsys):
    (tmp_path / "curves.png").mkdir()
    assert main(["train", "linear", "--data", "iris", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"funcnet train: train: expected files or nothing at the names that it writes in {tmp_path}"
        ", got a folder curves.png. Name another folder with --out.\n"
    )


def test_a_second_run_that_is_cut_short_leaves_no_file_of_the_first(tmp_path, capsys, monkeypatch):
    out = tmp_path / "run"
    arguments = ["train", "linear", "--data", "iris", "--epochs", "1", "--batch", "16"]
    assert main([*arguments, "--out", str(out)]) == 0

    def press(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("funcnet.train.history.History.plot", press)
    capsys.readouterr()
    assert main([*arguments, "--seed", "1", "--out", str(out)]) == 130
    assert {path.name for path in out.iterdir()} == {"params.npz", "run.json", "history.jsonl"}
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"funcnet train: interrupted while saving: {out} holds params.npz, run.json, history.jsonl"
    )


def test_data_whose_names_differ_after_a_dot_have_folders_of_their_own(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("own.1", "own.2"):
        save(tmp_path / f"{name}.npz", x=np.eye(40), y=np.arange(40.0))
        assert (
            main(["train", "linear", "--data", f"{name}.npz", "--epochs", "1", "--batch", "16"])
            == 0
        )
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "linear-own.1", "linear-own.2",
    }  # fmt: skip


def test_output_that_nobody_reads_any_more_is_no_error(tmp_path):
    """Like `funcnet trace | head -1`: the reader goes before anything is written."""
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run(
        [sys.executable, "-m", "funcnet", "trace"], stdout=writer, stderr=subprocess.PIPE,
        check=False,
    )  # fmt: skip
    os.close(writer)
    assert (run.returncode, run.stderr) == (141, b"")


def test_names_that_the_terminal_cannot_show_are_no_error(tmp_path):
    (tmp_path / "möwe.py").write_text("def f(größe): return größe * größe\n")
    run = subprocess.run(
        [sys.executable, "-m", "funcnet", "trace", str(tmp_path / "möwe.py:f"), "--args", "3"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, b"")
    assert b"gr\\xf6\\xdfe" in run.stdout


MODEL = """import jax.numpy as jnp
from beside import twice
def boom(x): raise RuntimeError("boom\\nand more")
def branch(x): return x if x > 0 else -x
def leave(x): raise SystemExit(3)
def double(x): return twice(x)
def inside(d, pair): return (d["a"] * 2).sum() + pair[1] ** 2
def square(x): return x * x
"""


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "beside.py").write_text("def twice(x): return 2 * x\n")
    (tmp_path / "jax.py").write_text(MODEL)
    yield tmp_path / "jax.py"
    sys.modules.pop("beside", None)


BROKEN = {
    "boom": ("RuntimeError", 3, "boom"),
    "branch": ("TracerBoolConversionError", 4, "Attempted boolean conversion of traced array with "
               "shape bool[]"),
    "leave": ("SystemExit", 5, "3"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_function_that_fails_is_said_with_its_line(name, model, capsys):
    kind, line, said = BROKEN[name]
    assert main(["trace", f"{model}:{name}", "--args", "2"]) == 1
    assert capsys.readouterr().err == (
        f"funcnet trace: trace: expected {model}:{name} to run, got {kind} in line {line} of "
        f"{model}: {said}. Mend it; `funcnet --debug trace` shows more.\n"
    )
    with pytest.raises(ValueError, match=f"got {kind} in line {line} of") as caught:
        main(["--debug", "trace", f"{model}:{name}", "--args", "2"])
    assert type(caught.value.__cause__).__name__ == kind


FILES = {
    "def f(x:\n": "SyntaxError in line 1 of {}: '(' was never closed",
    "\0": "SyntaxError in line 1 of {}: source code string cannot contain null bytes",
    "\n1 / 0\n": "ZeroDivisionError in line 2 of {}: division by zero",
    "import nowhere_to_be_found": "ModuleNotFoundError in line 1 of {}: No module named 'nowhere",
    "raise SystemExit\n": "SystemExit in line 1 of {}. Mend it",
}


@pytest.mark.parametrize("text", FILES)
def test_a_file_that_does_not_run_is_said_with_its_line(text, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "model of mine.py"
    path.write_text(text)
    assert main(["trace", f"{path}:f", "--args", "2"]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"funcnet trace: trace: expected {path} to run, got ")
    assert FILES[text].format(path) in said
    assert said.count("\n") == 1


def test_a_file_may_bear_any_name_and_import_its_neighbours(model, capsys):
    assert main(["trace", f"{model}:double", "--args", "-1e3"]) == 0
    assert "the largest gradient 2." in capsys.readouterr().out
    assert sys.modules["jax"] is jax


def test_lists_and_numbers_inside_of_others_are_arrays_and_floating(model, capsys):
    assert main(["trace", f"{model}:inside", "--args", "{'a': [1, 2]}", "(1, 3)"]) == 0
    assert "the largest gradient 6." in capsys.readouterr().out


def test_a_function_without_a_signature_is_refused(model, capsys):
    model.write_text("largest = max\n")
    assert main(["trace", f"{model}:largest", "--args", "1", "2"]) == 1
    assert capsys.readouterr().err == (
        f"funcnet trace: trace: expected a function that says what it takes, got {model}:largest. "
        "Wrap it: def f(x, y): return jnp.maximum(x, y).\n"
    )


@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse_is_one_sentence(misuse, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, message = MISUSES[misuse]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert "removed frames" not in printed.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [[], ["train"], ["evaluate"], ["predict"], ["lr-find"], ["check"], ["summary"], ["trace"]],
)
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "usage: funcnet" in printed
    assert not command or f"examples:\n  funcnet {command[0]}" in printed
