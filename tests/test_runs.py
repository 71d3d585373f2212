"""A run on disk: what its folder says, and how it is judged, used, logged and traced."""

import contextlib
import fcntl
import glob
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnet as fn
from funcnet.__main__ import _parser, main
from funcnet.commands.options import GROUPS, for_fit
from funcnet.train.log import RunLog
from funcnet.train.optimizers import named_optimizer
from funcnet.train.progress import describe, progress_line
from funcnet.types import Hint


def trained(folder, net, data, *more):
    assert main(["train", net, "--data", data, "--epochs", "2", "--batch", "16",
                 "--out", str(folder), *more]) == 0  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def wine(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs") / "wine", "linear", "wine")


@pytest.fixture(scope="module")
def sugar(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs") / "sugar", "linear", "diabetes")


def raw_wines():
    from sklearn.datasets import load_wine

    return load_wine()


# What a folder says


def test_a_run_is_loaded_from_its_folder_alone(wine):
    run, data = fn.load_run(wine), fn.data.load_data("wine")
    about = run.description
    assert about["net"], about["classes"] == ("linear", list(data.classes))
    assert (about["data"], about["input"]) == ("wine", {"shape": [13], "dtype": "float32"})
    assert (about["size"], about["funcnet"], about["precision"]) == (3, fn.__version__, "f32")
    assert about["features"] == list(raw_wines().feature_names)
    assert len(run.history.rows) == about["epochs"] == 2
    logits = run.net(run.params, data.test[0])
    loss = float(fn.cross_entropy(logits, data.test[1]))
    assert loss == pytest.approx(json.loads((wine / "result.json").read_text())["loss"], rel=1e-6)
    raw = raw_wines().data
    scaled = (raw - about["inputs"]["mean"]) / about["inputs"]["deviation"]
    known = {tuple(row) for row in np.round(np.concatenate([data.train[0], data.test[0]]), 3)}
    assert {tuple(row) for row in np.round(scaled.astype(np.float32), 3)} == known


@pytest.mark.long
@pytest.mark.parametrize("net", ["resnet", "vit", "vae", "ddpm", "unet", "gru"])
def test_every_kind_of_network_comes_back(net, tmp_path, capsys):
    widths = {"vit": "16", "vae": "16", "ddpm": "8 16", "unet": "8 16", "gru": "16"}
    if net == "gru":
        data = tmp_path / "text.txt"
        data.write_text("How doth the little crocodile. " * 60)
    else:
        digits, data = fn.data.load_data("digits"), tmp_path / "digits.npz"
        np.savez(data, x=digits.train[0][:64], y=digits.train[1][:64])
    more = ["--width", *widths[net].split()] if net in widths else []
    more += ["--epochs", "1", "--batch", "32"]
    out = trained(tmp_path / "run", net, str(data), *more)
    run = fn.load_run(out)
    with np.load(out / "params.npz") as saved:
        assert len(saved.files) == len(jax.tree.leaves((run.params, run.state)))
    if net == "ddpm":
        return
    scores = json.loads((out / "result.json").read_text())
    assert main(["evaluate", str(out)]) == 0
    again = json.loads((out / "evaluation.json").read_text())
    assert again["loss"] == pytest.approx(scores["loss"], rel=1e-5)


NO_RUNS = {
    "nothing": (lambda path: None, "which is not there. Name what funcnet train wrote to, such as"),
    "a file": (lambda path: path.write_text(""), "which is a file. Name what funcnet train wrote"),
    "another": (lambda path: path.mkdir(), "which is another one. Name what funcnet train wrote"),
    "earlier": (
        lambda path: (path.mkdir(), (path / "params.npz").write_text("")),
        "a run of an earlier version. Train it again; fn.io.load_weights reads its params.npz.",
    ),
    "damaged": (
        lambda path: (path.mkdir(), (path / "run.json").write_text("{")),
        "got no JSON object (Expecting property name",
    ),
    "no net": (
        lambda path: (path.mkdir(), (path / "run.json").write_text('{"width": []}')),
        "got a file without data, input, net, size. Train it again: the file is damaged.",
    ),
    "newer": (
        lambda path: (path.mkdir(), (path / "run.json").write_text(
            '{"net": "mamba", "width": [], "size": 1, "data": "", "input": {}}')),
        "got 'mamba'. It is of another version of funcnet.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NO_RUNS)
def test_what_is_no_run_is_said_in_one_sentence(case, tmp_path, capsys):
    make, words = NO_RUNS[case]
    make(tmp_path / "run")
    with pytest.raises(ValueError, match=r"^load_run: expected ") as refused:
        fn.load_run(tmp_path / "run")
    assert words in str(refused.value)
    for command in (["evaluate"], ["predict"]):
        words_of = [*command, str(tmp_path / "run"), *(["x.npy"] if command == ["predict"] else [])]
        assert main(words_of) == 1
        assert str(refused.value) in capsys.readouterr().err


# Scores of classes


def naive_error(p, right):
    """The expected calibration error, as the paper's equation has it."""
    total = 0.0
    for i in range(15):
        here = [j for j in range(len(p)) if i / 15 < p[j] <= (i + 1) / 15]
        if here:
            total += abs(sum(right[j] for j in here) - sum(p[j] for j in here))
    return total / len(p)


@pytest.mark.parametrize("case", ["even", "rare", "never", "two", "one logit"])
def test_scores_of_classes_are_those_of_scikit_learn(case):
    from sklearn import metrics

    rng = np.random.default_rng(len(case))
    n, k = 240, 2 if case in ("two", "one logit") else 4
    labels = rng.choice(k, n, p=[0.94, 0.02, 0.02, 0.02] if case == "rare" else None)
    logits = 2 * rng.normal(size=(n, k)) + 2 * np.eye(k)[labels]
    if case == "never":
        labels, logits[:, 3] = np.minimum(labels, 2), -99.0
    given = logits[:, 1:] - logits[:, :1] if case == "one logit" else logits
    report = fn.classification_report(labels, given)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    chosen, options = logits.argmax(1), {"labels": range(k), "zero_division": 0}
    truth = metrics.precision_recall_fscore_support(labels, chosen, **options)
    for found, expected in zip(
        (report.precision, report.recall, report.f1, report.support), truth, strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-12)
    macro = metrics.precision_recall_fscore_support(
        labels, chosen, average="macro", zero_division=0
    )
    np.testing.assert_allclose(list(report.macro.values()), macro[:3], atol=1e-12)
    assert report.accuracy == pytest.approx(metrics.accuracy_score(labels, chosen))
    balanced = metrics.balanced_accuracy_score(labels, chosen)
    assert report.balanced_accuracy == pytest.approx(balanced)
    assert report.loss == pytest.approx(metrics.log_loss(labels, p, labels=range(k)))
    assert report.calibration_error == pytest.approx(naive_error(p.max(1), chosen == labels))
    assert json.loads(json.dumps(report.json()))["macro"]["f1"] == report.macro["f1"]
    again = fn.classification_report(labels, p, probabilities=True)
    assert again.calibration_error == pytest.approx(report.calibration_error)


def test_a_report_reads_as_a_table():
    report = fn.classification_report([0, 0, 1], [[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]], ("a", "b"))
    lines = str(report).splitlines()
    assert lines[2].split() == ["a", "1.000", "0.500", "0.667", "2"]
    assert lines[4].split()[-4:] == ["0.750", "0.750", "0.667", "3"]
    assert lines[-1].startswith("accuracy 0.667, balanced 0.750; loss 0.496; expected calibration")


NO_SCORES = {
    "shape": (([0], np.ones((1, 2, 2))), {}, "scores of shape (n, classes), or (n,) for two class"),
    "nan": (([0], [[np.nan, 1.0]]), {}, "finite scores, got a NaN or an infinity. Look for where"),
    "names": (([0], [[0.0, 2.0]], "abc"), {}, "2 names of classes, one for each score of an exa"),
    "sums": (
        ([0], [[0.5, 1.0]]),
        {"probabilities": True},
        "probabilities of 0 or above that sum t",
    ),
}


@pytest.mark.parametrize("case", NO_SCORES)
def test_scores_that_are_none(case):
    given, options, words = NO_SCORES[case]
    with pytest.raises(ValueError, match=r"^classification_report: expected ") as refused:
        fn.classification_report(*given, **options)
    assert f"expected {words}" in str(refused.value)
    with pytest.warns(Hint, match="each row sums to 1: say probabilities=True"):
        fn.classification_report([0, 1], [[0.9, 0.1], [0.2, 0.8]])


# Evaluate


def test_evaluate_tells_all_of_the_held_out_classes(wine, capsys):
    assert main(["evaluate", str(wine)]) == 0
    printed = capsys.readouterr().out
    found = json.loads((wine / "evaluation.json").read_text())
    result = json.loads((wine / "result.json").read_text())
    assert found["loss"] == pytest.approx(result["loss"], rel=1e-5)
    assert found["accuracy"] == pytest.approx(result["accuracy"])
    run, data = fn.load_run(wine), fn.data.load_data("wine")
    report = fn.classification_report(data.test[1], run.net(run.params, data.test[0]), data.classes)
    assert str(report) in printed
    assert found["classes"] == report.json()["classes"]
    assert (wine / "reliability.png").read_bytes().startswith(b"\x89PNG")
    closing = f"loss {found['loss']:.3g}: linear, the held-out 36 examples of wine"
    assert printed.strip().splitlines()[-1].endswith(closing)


@pytest.mark.long
def test_evaluate_takes_numbers_in_their_own_units(sugar, capsys):
    from sklearn import datasets, metrics

    assert main(["evaluate", str(sugar)]) == 0
    found = json.loads((sugar / "evaluation.json").read_text())
    run, data = fn.load_run(sugar), fn.data.load_data("diabetes")
    scale = run.description["targets"]
    truth, outputs = (
        np.asarray(y, float) * scale["deviation"] + scale["mean"]
        for y in (data.test[1], run.net(run.params, data.test[0]))
    )
    everything = np.sort(datasets.load_diabetes().target)
    assert abs(everything[:, None] - truth.ravel()).min(0).max() < 1e-4
    assert found["r_squared"] == pytest.approx(metrics.r2_score(truth, outputs), abs=1e-5)
    error = metrics.mean_absolute_error(truth, outputs)
    assert found["mean_absolute_error"] == pytest.approx(error, rel=1e-5)
    assert (sugar / "residuals.png").read_bytes().startswith(b"\x89PNG")


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    folder = tmp_path_factory.mktemp("points")
    x = np.random.default_rng(0).normal(size=(90, 2))
    data = save(folder / "a.npz", x=x, y=np.digitize(x[:, 0], [-0.5, 0.5]))
    return trained(folder / "run", "linear", data, "--lr", "0.1", "--log")


def test_evaluate_on_other_data_counts_all_of_it(points, tmp_path, capsys):
    x = np.random.default_rng(1).normal(size=(50, 2))
    data = save(tmp_path / "b.npz", x=x, y=(x[:, 0] > 0.5).astype(int) * 2)
    with pytest.warns(Hint, match="has 2 labels in use but numbers them up to 2"):
        fn.data.load_data(data)
    assert main(["evaluate", str(points), "--data", data]) == 0
    assert "all 50 examples of b" in capsys.readouterr().out
    found = json.loads((points / "evaluation-b/evaluation.json").read_text())
    assert found["examples"] == 50
    high = int((x[:, 0] > 0.5).sum())
    assert [row["examples"] for row in found["classes"].values()] == [50 - high, 0, high]
    assert not (points / "evaluation.json").exists()


def people(path, ages, target):
    """A table of `ages`: whether they stay is `target` of a person's age."""
    lines = [f"{age},{('basic', 'full')[age % 2]},{target(age)}" for age in ages]
    path.write_text("\n".join(["age,plan,stays", *lines]) + "\n")
    return str(path)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_a_run_of_a_table_is_judged_on_another_by_its_own_measure(kind, tmp_path, capsys):
    told = {"classes": lambda age: "yes" if age > 40 else "no", "numbers": lambda age: 2.5 * age}
    here = people(tmp_path / "here.csv", range(20, 70), told[kind])
    run = trained(tmp_path / "run", "linear", here, "--lr", "0.1", "--epochs", "60")
    there = people(tmp_path / "there.csv", range(60, 66), told[kind])  # one class, other ages
    assert main(["evaluate", str(run), "--data", there]) == 0
    found = json.loads((run / "evaluation-there/evaluation.json").read_text())
    assert found["examples"] == 6
    assert found["accuracy"] == 1 if kind == "classes" else found["mean_absolute_error"] < 10
    wrong = people(tmp_path / "wrong.csv", range(60, 66), lambda age: "perhaps")
    text = (tmp_path / "wrong.csv").read_text()
    (tmp_path / "wrong.csv").write_text(text.replace("60,", "old,"))
    capsys.readouterr()
    assert main(["predict", str(run), wrong]) == 1
    expected = "table: expected numbers in column age, got words. It held numbers in training.\n"
    assert capsys.readouterr().err.endswith(expected)
    assert main(["evaluate", str(run), "--data", wrong]) == 1
    assert "in column stays, got " in capsys.readouterr().err


NO_DATA = {
    "wine": "examples of shape (2,), as the run's own, got (13,) in wine. Choose data of the same",
    "": "a name or a path after --data, got ''. Leave it out for what the run held out.",
}


@pytest.mark.parametrize("data", NO_DATA)
def test_data_of_another_kind_is_refused(data, points, capsys):
    assert main(["evaluate", str(points), "--data", data]) == 1
    assert f"evaluate: expected {NO_DATA[data]}" in capsys.readouterr().err


def test_data_in_other_units_is_brought_into_those_of_the_run(wine, tmp_path, capsys):
    """iris has another shape; wine in an .npz file has other names: both are told."""
    bunch = raw_wines()
    data = save(tmp_path / "raw.npz", x=bunch.data / 100, y=bunch.target)
    with contextlib.suppress(Hint):
        assert main(["evaluate", str(wine), "--data", data]) == 1
    assert (
        "expected classes among class_0, class_1, class_2, got 0, 1, 2" in capsys.readouterr().err
    )
    from funcnet.commands.classes import _in_terms_of
    from funcnet.feed.arrays import Data, Standard

    own = fn.data.load_data("wine")
    assert own.inputs is not None
    about = fn.load_run(wine).description
    x, y = own.inputs.back(own.test[0]), own.test[1]
    other = Standard.of(x)
    moved = _in_terms_of(
        about, Data((x, y), (other.forth(x), y), own.classes, "b", inputs=other), False
    )
    np.testing.assert_allclose(moved.test[0], own.test[0], atol=1e-4)


# Predict


def rows(capsys):
    return capsys.readouterr().out.strip().splitlines()


def test_predict_takes_arrays_and_tables_in_their_own_units(wine, tmp_path, capsys):
    bunch, run = raw_wines(), fn.load_run(wine)
    x = bunch.data[[0, 70, 150]]
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x[0])
    names = [*bunch.feature_names[::-1], "note"]
    table = [",".join(names), *(",".join([*map(repr, map(float, row[::-1])), "-"]) for row in x)]
    (tmp_path / "x.csv").write_text("\n".join(table) + "\n\n")
    scale = run.description["inputs"]
    scaled = ((x - scale["mean"]) / scale["deviation"]).astype(np.float32)
    truth = jax.nn.softmax(run.net(run.params, scaled))
    for name in ("x.npy", "x.csv"):
        assert main(["predict", str(wine), str(tmp_path / name), "--json"]) == 0
        found = [json.loads(line) for line in rows(capsys)]
        assert [record["example"] for record in found] == [0, 1, 2]
        for record, p in zip(found, truth, strict=True):
            assert record["class"] == run.description["classes"][int(p.argmax())]
            given = [record["probabilities"][name] for name in run.description["classes"]]
            np.testing.assert_allclose(given, p, atol=1e-6)
    assert main(["predict", str(wine), str(tmp_path / "x.npz"), str(tmp_path / "x.npy")]) == 0
    said = rows(capsys)
    assert len(said) == 4
    best = run.description["classes"][int(truth[0].argmax())]
    assert said[0].startswith(f"{tmp_path / 'x.npz'}: {best} {float(truth[0].max()):.3f}, ")
    assert said[0].split(": ")[1] == said[1].split(": ")[1]


@pytest.mark.long
def test_predict_gives_numbers_in_their_own_units(sugar, tmp_path, capsys):
    run, data = fn.load_run(sugar), fn.data.load_data("diabetes")
    assert data.inputs is not None
    assert data.targets is not None
    np.save(tmp_path / "x.npy", data.inputs.back(data.test[0][:2]))
    assert main(["predict", str(sugar), str(tmp_path / "x.npy")]) == 0
    truth = data.targets.back(np.asarray(run.net(run.params, data.test[0][:2])))
    found = [float(line.split(": ")[1]) for line in rows(capsys)]
    np.testing.assert_allclose(found, truth.ravel(), rtol=1e-4)


@pytest.mark.long
def test_predict_reads_a_picture(tmp_path, capsys):
    from PIL import Image

    out = trained(tmp_path / "run", "linear", "digits", "--batch", "64")
    run, data = fn.load_run(out), fn.data.load_data("digits")
    pixels = np.rint(255 * data.test[0][0, ..., 0]).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(np.kron(pixels, np.ones((4, 4), np.uint8))).convert("RGB").save(
        tmp_path / "large.png"
    )
    np.save(tmp_path / "a.npy", pixels)
    given = [str(tmp_path / name) for name in ("a.png", "a.npy", "large.png")]
    capsys.readouterr()
    assert main(["predict", str(out), "--json", *given]) == 0
    small, array, large = (json.loads(line) for line in rows(capsys))
    p = jax.nn.softmax(run.net(run.params, pixels.reshape(1, 8, 8, 1) / np.float32(255)))[0]
    np.testing.assert_allclose([small["probabilities"][str(i)] for i in range(10)], p, atol=1e-5)
    assert array["probabilities"] == small["probabilities"]
    assert large["class"] == small["class"]


@pytest.mark.long
def test_predict_goes_on_with_a_text(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("How doth the little crocodile. " * 60)
    out = trained(tmp_path / "run", "gru", str(tmp_path / "text.txt"), "--width", "32")
    (tmp_path / "a.txt").write_text("the little ")
    capsys.readouterr()
    written = []
    for seed in "001":
        assert main(["predict", str(out), str(tmp_path / "a.txt"), "--length", "30",
                     "--seed", seed, "--json"]) == 0  # fmt: skip
        written.append(json.loads(capsys.readouterr().out)["text"])
    assert [len(text) for text in written] == [30, 30, 30]
    assert written[0] == written[1] != written[2]
    wrong = {"X": "characters of the alphabet", "\n": "a text to go on with in"}
    for text, words in wrong.items():
        (tmp_path / "a.txt").write_text(text)
        assert main(["predict", str(out), str(tmp_path / "a.txt")]) == 1
        assert f"expected {words}" in capsys.readouterr().err
    assert main(["predict", str(out), str(tmp_path / "none.txt")]) == 1
    assert "a text in UTF-8 at " in capsys.readouterr().err


NO_FILES = {
    "missing.npy": (None, "a file of examples, got {}, which is not there. Check the path."),
    "a.npy": (b"no", "plain arrays at {}, got ValueError: "),
    "b.npz": (b"no", "plain arrays at {}, got "),
    "a.csv": (
        b"1,2\n3,\n",
        "numbers in line 2 of {}, got ''. Fill the gap, or leave that line out",
    ),
    "b.csv": (b"1,2\n3\n", "2 columns in line 2 of {}, got 1. Fill the line up."),
    "c.csv": (
        b"1,2,3\n",
        "examples of shape (2,) in {}, as the run learned from, got shape (1, 3)",
    ),
    "d.csv": (b"", "lines of numbers in {}, got an empty file. Give one example a line"),
    "e.csv": (b"a,b\n", "lines of numbers in {}, got a line of names alone. Give one example a l"),
    "f.csv": (b"1,nan\n", "finite numbers in {}, got nan at [0, 1]. Leave that example out, or fi"),
    "a.bin": (b"\xff\xfe\x00", "a table in UTF-8 at {}, got 'utf-8' codec can't decode byte"),
    "a.png": (b"no", "examples of shape (2,), as the run learned from, got a picture, {}. Give a"),
}


@pytest.mark.parametrize("name", NO_FILES)
def test_files_that_hold_no_examples(name, points, tmp_path, capsys):
    content, words = NO_FILES[name]
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert main(["predict", str(points), str(path)]) == 1
    said = capsys.readouterr().err
    assert "expected " + words.format(path) in said
    assert said.count("\n") == 1


@pytest.mark.long
def test_predict_of_what_does_not_predict(tmp_path, capsys, wine):
    about = json.loads((wine / "run.json").read_text())
    shape = {"shape": [8, 8, 1], "dtype": "float32"}
    (tmp_path / "run.json").write_text(
        json.dumps(about | {"net": "unet", "width": [8, 16], "size": 1, "input": shape})
    )
    net = fn.nets.UNet(1, (8, 16))
    params, _ = net.init(jax.random.key(0), jax.ShapeDtypeStruct((1, 8, 8, 1), jnp.float32))
    fn.io.save_weights(tmp_path / "params.npz", params)
    assert main(["predict", str(tmp_path), "a.png"]) == 1
    assert "writes text, got one that does neither, unet." in capsys.readouterr().err
    assert main(["predict", str(wine), "a.npy", "--length", "0"]) == 1
    assert "predict: expected --length of 1 or more, got 0." in capsys.readouterr().err


# Learning rates

X = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
Y = (X.sum(1) > 0).astype(np.int32)


@pytest.mark.long
def test_the_range_test_is_deterministic_and_ends_at_four_times_the_best():
    net = fn.serial(fn.Dense(8), fn.relu, fn.Dense(2))
    first, second = (
        fn.lr_find(net, fn.cross_entropy, (X, Y), optax.sgd, batch=16, high=1e4) for _ in range(2)
    )
    np.testing.assert_array_equal(first.losses, second.losses)
    growth = first.rates[1:] / first.rates[:-1]
    np.testing.assert_allclose(growth, growth[0])
    assert len(first.rates) < 120
    assert first.smoothed[10:].max() <= 4 * first.smoothed.min()
    average, weight = 0.0, 0.0
    for loss, steady in zip(first.losses, first.smoothed, strict=True):
        average, weight = 0.9 * average + 0.1 * loss, 0.9 * weight + 0.1
        assert steady == pytest.approx(average / weight)
    assert first.suggestion == pytest.approx(first.rates[first.smoothed.argmin()] / 10)
    assert first.steepest <= first.least
    step = fn.make_step(net, fn.cross_entropy, optax.sgd(float(first.rates[0])))
    state = step.init(jax.random.key(0), X[:16])
    _, values = step.update(state, next(fn.data.batches((X, Y), 16, seed=0, epoch=0)))
    assert first.losses[0] == pytest.approx(float(values["loss"]))


def test_where_no_rate_helps_nothing_is_suggested(tmp_path):
    flat = fn.lr_find(fn.Dense(2), lambda output, target: 0 * output.sum() + 1.0, (X, Y))
    assert flat.suggestion is None
    flat.plot(tmp_path / "lr.png")
    assert (tmp_path / "lr.png").read_bytes().startswith(b"\x89PNG")


NO_RANGES = {
    "made": ((optax.sgd(1e-3),), {}, "optimizer to be a function of the rate, got "),
    "steps": (
        (),
        {"steps": 9},
        "batch of 1 or more and steps of 10 or more, got batch=64, steps=9",
    ),
    "range": ((), {"low": 1.0, "high": 0.1}, "rates that grow, 0 < low < high, got low=1.0, high="),
}


@pytest.mark.parametrize("case", NO_RANGES)
def test_a_range_that_is_none(case):
    given, options, words = NO_RANGES[case]
    with pytest.raises((ValueError, TypeError)) as refused:
        fn.lr_find(fn.Dense(2), fn.cross_entropy, (X, Y), *given, **options)
    assert str(refused.value).startswith(f"lr_find: expected {words}")
    nan = fn.pure(lambda x: x * jnp.nan)
    with pytest.raises(
        ValueError, match=r"expected a loss that is finite for 10 steps, got 0\. Gi"
    ):
        fn.lr_find(nan, lambda output, target: output.mean(), (X, Y))


@pytest.mark.long
def test_lr_find_of_the_command_line(tmp_path, capsys):
    out = tmp_path / "lr.png"
    assert main(["lr-find", "mlp", "--data", "iris", "--batch", "16", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert said.endswith(f"steps, picture in {out}\n")
    rate = float(said.split("--lr ")[1].split(";")[0])
    assert 1e-4 < rate < 1
    assert out.read_bytes().startswith(b"\x89PNG")


# The history as it grows

SMALL = {"batch": 16, "epochs": 3, "progress": False}


def events_in(folder):
    """Steps, tags and values of TensorBoard's files: a length, a sum, the event, a sum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            at += 12 + length + 4
    return found


def test_rows_have_the_rate_and_are_logged_as_they_come(tmp_path):
    seen = []

    def look(row, state):
        path = tmp_path / "log/history.jsonl"
        seen.append(len(path.read_text().splitlines()) if path.exists() else 0)

    optimizer = named_optimizer("momentum", 0.1, 12, clip=1.0)
    for _ in range(2):
        fitted = fn.fit(fn.Dense(2), fn.cross_entropy, optimizer, (X, Y), validation=(X, Y),
                        log=tmp_path / "log", on_epoch=look, **SMALL)  # fmt: skip
    assert seen[:3] == [0, 1, 2]
    assert fn.History.load(tmp_path / "log/history.jsonl").rows == fitted.history.rows
    rates = fitted.history.column("learning_rate")
    schedule = optax.cosine_decay_schedule(0.1, 12)
    np.testing.assert_allclose(rates, [schedule(3), schedule(7), schedule(11)], rtol=1e-5)
    assert all(row["examples_per_second"] > 0 for row in fitted.history.rows)
    events = events_in(tmp_path / "log/tensorboard")
    losses = [(step, value) for step, tag, value in events if tag == "loss/validation"]
    truth = [(row["step"], row["val_loss"]) for row in fitted.history.rows]
    assert losses == [(step, pytest.approx(value)) for step, value in truth]
    assert {tag for _, tag, _ in events} == {
        "loss/train", "loss/validation", "learning_rate", "examples_per_second", "seconds",
    }  # fmt: skip
    plain = fn.fit(fn.Dense(2), fn.cross_entropy, optax.sgd(0.1), (X, Y), **SMALL)
    assert "learning_rate" not in plain.history.rows[0]


def test_a_disk_that_fails_ends_the_log_and_not_the_run(tmp_path, monkeypatch):
    log = RunLog(tmp_path / "log", tensorboard=False)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log, "_write", full)
    with pytest.warns(
        Hint, match=r"^the log in .*log ends, No space left on device; training goes"
    ):
        fitted = fn.fit(fn.Dense(2), fn.cross_entropy, optax.sgd(0.1), (X, Y), log=log, **SMALL)
    assert len(fitted.history.rows) == 3
    (tmp_path / "file").write_text("")
    for wrong, kind in ((tmp_path / "file", ValueError), ("", ValueError), (3, TypeError)):
        with pytest.raises(kind, match=r"^fit: expected log to be a folder, got "):
            fn.fit(fn.Dense(2), fn.cross_entropy, optax.sgd(0.1), (X, Y), log=wrong, **SMALL)


def test_log_of_the_command_line(points):
    assert {tag for _, tag, _ in events_in(points / "tensorboard")} >= {
        "loss/train",
        "accuracy/train",
    }
    assert not (points / "running").exists()


@pytest.mark.long
def test_a_killed_run_has_its_finished_rows(tmp_path):
    out = tmp_path / "run"
    words = f"train linear --data iris --batch 16 --epochs 100000 --out {out}"
    command = [sys.executable, "-m", "funcnet", *words.split()]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        until(lambda: (out / "history.jsonl").exists() and len(lines(out)) > 3)
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        process.send_signal(signal.SIGKILL)
    assert second.returncode == 1
    assert second.stderr == (
        f"funcnet train: train: expected {out} for this process alone, got another process that "
        "writes to it. Wait for its end, or name another folder with --out.\n"
    )
    rows = fn.History.load(out / "history.jsonl").rows
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
    assert all("val_loss" in row for row in rows)
    trained(out, "linear", "iris")
    assert len(lines(out)) == 2


def until(there, seconds=120):
    end = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < end
        time.sleep(0.1)


def lines(out):
    return (out / "history.jsonl").read_text().splitlines()


@pytest.mark.long
def test_beside_a_saved_run_another_one_grows_in_a_folder_of_its_own(tmp_path, capsys, monkeypatch):
    out = trained(tmp_path / "run", "linear", "iris")
    before, seen = (out / "history.jsonl").read_bytes(), []

    def stop(*arguments):
        seen.append((out / "running/history.jsonl").exists())
        seen.append((out / "history.jsonl").read_bytes() == before)
        raise ValueError("stop")

    monkeypatch.setattr("funcnet.commands.train._result", stop)
    assert main(["train", "linear", "--data", "iris", "--batch", "16", "--epochs", "1",
                 "--out", str(out)]) == 1  # fmt: skip
    assert seen == [True, True]
    assert (out / "history.jsonl").read_bytes() == before
    assert not (out / "running").exists()


# Traces of the profiler


def test_the_trace_has_the_names_of_the_layers(tmp_path):
    net = fn.serial(first_layer=fn.Dense(8), second_layer=fn.Dense(2))
    fn.fit(net, fn.cross_entropy, optax.sgd(0.1), (X, Y), profile=tmp_path, **SMALL)
    (file,) = glob.glob(f"{tmp_path}/**/*.xplane.pb", recursive=True)
    with open(file, "rb") as content:
        raw = content.read()
    assert b"/jvp(first_layer)/dense/" in raw
    assert b"/transpose(jvp(second_layer))/dense/dot_general" in raw
    with warnings.catch_warnings():  # reading the figures of an event makes a type without a module
        warnings.simplefilter("ignore", DeprecationWarning)
        steps, modules = steps_and_modules(jax.profiler.ProfileData.from_file(file))
    assert steps == set(range(3, 11))
    assert "jit_update" in modules


def steps_and_modules(data):
    """The numbers of the steps in a trace, and the programs that ran."""
    steps, modules = set(), set()
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                figures = dict(event.stats)
                modules.add(figures.get("hlo_module"))
                steps |= {figures.get("step_num")} if event.name == "train" else set()
    return steps, modules


def test_a_run_too_short_for_a_trace_is_told(tmp_path):
    with pytest.warns(Hint, match=r"^no trace in .*: it begins at step 3, and the run has fewer\."):
        fn.fit(fn.Dense(2), fn.cross_entropy, optax.sgd(0.1), (X, Y), profile=tmp_path,
               batch=64, epochs=2, progress=False)  # fmt: skip
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"^fit: expected a folder to write to, .*File exists\."):
        fn.fit(fn.Dense(2), fn.cross_entropy, optax.sgd(0.1), (X, Y), profile=tmp_path / "file",
               **SMALL)  # fmt: skip
    with pytest.raises(TypeError, match=r"^fit: expected profile to be a folder, got 3\. Write"):
        fn.fit(fn.Dense(2), fn.cross_entropy, optax.sgd(0.1), (X, Y), profile=3, **SMALL)


# What can be asked of training


def test_options_become_arguments_of_fit():
    words = ("--accumulate 4 --precision bf16 --mesh data=4,model=2 --checkpoint c --resume "
             "--profile p --ema 0.99 --patience 3")  # fmt: skip
    options = _parser().parse_args(["train", "linear", *words.split()])
    assert for_fit(options) == {
        "accumulate": 4, "precision": "bf16", "checkpoint": "c",
        "mesh": fn.Mesh({"data": 4, "model": 2}),
        "resume": True, "profile": "p", "ema": 0.99, "patience": 3,
    }  # fmt: skip
    assert for_fit(_parser().parse_args(["train", "linear"])) == {}
    assert for_fit(_parser().parse_args(["train", "linear", "--patience", "0"])) == {"patience": 0}


def test_help_is_in_groups_and_short(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    said = capsys.readouterr().out
    places = [said.index(f"\n{heading}:") for heading in ("network and data", *GROUPS)]
    assert places == sorted(places)
    assert all(len(option.help) < 60 for group in GROUPS.values() for option in group)


@pytest.mark.long
def test_balanced_classes_weigh_the_same(tmp_path, capsys):
    from funcnet.commands.options import asked
    from funcnet.commands.recipes import NETS

    rng = np.random.default_rng(0)
    for classes in (2, 3):
        y = np.minimum((rng.random(200) < 0.1) * rng.integers(1, 3, 200), classes - 1)
        data = save(tmp_path / f"{classes}.npz", x=rng.normal(size=(200, 3)), y=y)
        options = ["train", "linear", "--data", data, "--class-weight", "balanced"]
        job = NETS["linear"].job(asked(_parser().parse_args(options)))
        labels = job.train[1]
        outputs = jnp.asarray(rng.normal(size=(len(labels), 1 if classes == 2 else 3)))
        both = jnp.concatenate([0 * outputs, outputs], 1) if classes == 2 else outputs
        losses = -jax.nn.log_softmax(both)[np.arange(len(labels)), labels]
        present = [c for c in range(classes) if (labels == c).any()]
        truth = np.mean([losses[labels == c].mean() for c in present])
        assert float(job.criterion(outputs, labels)) == pytest.approx(float(truth), rel=1e-5)
    assert main(["train", "linear", "--data", "diabetes", "--class-weight", "balanced"]) == 1
    assert "expected no --class-weight for diabetes, whose targets" in capsys.readouterr().err
    assert main(["train", "gpt", "--class-weight", "balanced"]) == 1
    assert "expected no --class-weight for gpt, which tells no cla" in capsys.readouterr().err


# Progress on terminals of all kinds


def on_terminal(columns, **environment):
    """What two epochs show on a terminal of that width."""
    code = (
        "import time\nfrom funcnet.train.progress import progress_line\n"
        "with progress_line(2, True) as show:\n"
        "    for i in (1, 2):\n        show(i, {'loss': 0.25, 'val_loss': 0.5}, True)\n"
        "        time.sleep(0.3)\n"
    )
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, 0x5414, struct.pack("HHHH", 24, columns, 0, 0))  # TIOCSWINSZ
    with subprocess.Popen(
        [sys.executable, "-c", code], stderr=writer, env={**os.environ, **environment}
    ) as process:
        os.close(writer)
        shown = b""
        with contextlib.suppress(OSError):  # Linux says so at the end
            while part := os.read(reader, 4096):
                shown += part
    os.close(reader)
    assert process.returncode == 0
    return shown.decode()


@pytest.mark.long
@pytest.mark.parametrize(("term", "columns"), [("dumb", 80), ("xterm", 40), ("xterm", 120)])
def test_progress_on_any_terminal(term, columns):
    shown = on_terminal(columns, TERM=term, COLUMNS=str(columns))
    assert "epoch 2/2" in shown
    assert "0.500" in shown
    assert ("\x1b[" in shown) == (term != "dumb")


def test_progress_without_a_standard_error(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", None)
        with progress_line(1, True) as show:
            show(1, {"loss": 0.5}, True)
    with open(tmp_path / "closed", "w") as closed:
        monkeypatch.setattr(sys, "stderr", closed)
    with progress_line(1, True) as show:
        show(1, {"loss": 0.5}, True)
    assert describe(1, 1, {"loss": 0.5, "learning_rate": 0.1}) == "epoch 1/1, loss 0.500"


@pytest.mark.long
def test_a_closed_standard_error_loses_nothing(tmp_path):
    command = f"{sys.executable} -m funcnet train linear --data iris --epochs 1 --batch 16"
    run = subprocess.run(f"{command} --out {tmp_path}/run 2>&-", shell=True, capture_output=True,
                         text=True, check=False)  # fmt: skip
    assert run.returncode == 0
    assert run.stdout.splitlines()[0].startswith("saved in ")
    assert len(fn.History.load(tmp_path / "run/history.jsonl").rows) == 1
