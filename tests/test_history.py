"""What a run leaves behind: figures, pictures, and never half a file."""

import builtins
import json
import math
import os
import signal
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from funcnet import plot
from funcnet.disk import write_whole
from funcnet.train.curves import figure_panel
from funcnet.train.history import History, confusion

ROWS = tuple(
    {"epoch": i, "step": 10 * i, "loss": 3.0 / i**2, "accuracy": 1 - 0.5 / i}
    | {"val_loss": 3.5 / i**2, "val_accuracy": 1 - 0.6 / i, "seconds": 0.5}
    for i in range(1, 9)
)
PNG = b"\x89PNG"


@pytest.fixture
def no_matplotlib(monkeypatch):
    original = builtins.__import__

    def refuse(name, *rest, **more):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    path = tmp_path / "history.jsonl"
    History(ROWS).save(path)
    assert History.load(path) == History(ROWS)
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [*range(1, 9)]
    assert [p.name for p in tmp_path.iterdir()] == ["history.jsonl"]


def test_what_is_not_finite_is_strict_json(tmp_path):
    path = tmp_path / "history.jsonl"
    History(({"epoch": 1, "loss": math.nan, "val_loss": math.inf},)).save(path)
    assert json.loads(path.read_text()) == {"epoch": 1, "loss": None, "val_loss": None}
    assert math.isnan(History.load(path).rows[0]["loss"])


def test_loading_what_is_no_history(tmp_path):
    path = tmp_path / "history.jsonl"
    with pytest.raises(ValueError, match=r"History\.load: expected a history at .*, got No such"):
        History.load(path)
    path.write_text('{"epoch": 1}\n{"epo')
    message = r"History\.load: expected a JSON object in line 2 of .*, got '\{\"epo'\. Give a file"
    with pytest.raises(ValueError, match=message):
        History.load(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"expected a history at .*, got no text\. Check the path"):
        History.load(path)


def curves(history):
    """What is drawn, panel by panel: the data of each line by its label's first word."""
    from matplotlib.figure import Figure

    panels = {}
    for name in ("loss", "accuracy"):
        panel = Figure().subplots()
        figure_panel(panel, history.rows, name)
        lines = {line.get_label().split(",")[0]: line.get_ydata() for line in panel.lines}
        panels[panel.get_title()] = lines, panel.get_yscale(), panel.get_xlim()
    return panels


def test_the_curves_are_those_of_the_rows():
    drawn = curves(History(ROWS))
    (loss, scale, _), (accuracy, plain, limits) = drawn["loss"], drawn["accuracy"]
    np.testing.assert_array_equal(loss["train"], [row["loss"] for row in ROWS])
    np.testing.assert_array_equal(loss["validation"], [row["val_loss"] for row in ROWS])
    np.testing.assert_array_equal(accuracy["validation"], [row["val_accuracy"] for row in ROWS])
    assert (scale, plain, limits) == ("log", "linear", (0.5, 8.5))
    assert list(curves(History(({"epoch": 1, "loss": 2.0},)))["loss"][0]) == ["train"]


def test_a_panel_for_each_thing_that_is_known(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "funcnet.train.curves.picture.save", lambda where, figure, path: drawn.append(figure)
    )
    health = tuple(
        {"step": step, "figures": {"adjoint": {"a": 1.0, "b": 2.0}, "update": {"a": 0.1}}}
        for step in (0, 50)
    )
    more = {"learning_rate": 0.1, "examples_per_second": 1000.0}
    History(tuple(row | more for row in ROWS), health).plot(tmp_path / "curves.png")
    panels = {panel.get_title(): panel for panel in drawn[0].axes if panel.get_title()}
    assert list(panels) == [
        "loss", "accuracy", "learning rate", "examples per second", "norm of the adjoint",
        "update over weights",
    ]  # fmt: skip
    rate, pace = panels["learning rate"].lines[0], panels["examples per second"].lines[0]
    assert set(rate.get_ydata()) == {0.1}
    assert set(pace.get_ydata()) == {1000.0}
    (gap,) = panels["loss"].collections
    corners = {(x, round(y, 6)) for x, y in gap.get_paths()[0].vertices}
    last = ROWS[-1]
    assert {(8.0, round(last[name], 6)) for name in ("loss", "val_loss")} <= corners
    assert gap.get_label() == f"gap, last {last['val_loss'] - last['loss']:.2g}"
    History(ROWS[:1]).plot(tmp_path / "curves.png")
    assert [panel.get_title() for panel in drawn[1].axes] == ["loss", "accuracy"]


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], ({"epoch": 1, "loss": math.nan},)])
def test_a_picture_of_any_run(tmp_path, rows):
    History(rows).plot(tmp_path / "curves.PNG")
    assert (tmp_path / "curves.PNG").read_bytes().startswith(PNG)
    assert [p.name for p in tmp_path.iterdir()] == ["curves.PNG"]


def test_pictures_that_cannot_be_drawn(tmp_path):
    with pytest.raises(ValueError, match=r"History\.plot: expected at least one epoch, got none\."):
        History().plot(tmp_path / "curves.png")
    with pytest.raises(ValueError, match=r"expected a picture of a kind among .*, got txt\. Use"):
        History(ROWS).plot(tmp_path / "curves.txt")
    message = r"History\.plot: expected a place to write, .*, got No such file .*\. Choose a folder"
    with pytest.raises(ValueError, match=message):
        History(ROWS).plot(tmp_path / "missing" / "curves.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_matplotlib")
def test_without_matplotlib_one_sentence_says_what_to_install(tmp_path):
    message = (
        r"expected the package matplotlib, .*, got none\. Run `pip install 'funcnet\[train\]'`"
    )
    with pytest.raises(ImportError, match="History.plot: " + message):
        History(ROWS).plot(tmp_path / "curves.png")
    with pytest.raises(ImportError, match="plot.confusion: " + message):
        plot.confusion(np.eye(2, dtype=int), 2, tmp_path / "confusion.png")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_whole("here", path, b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(ValueError, match=r"here: expected a place to write, .*, got No space left"):
        write_whole("here", path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_file_that_is_written_again_keeps_its_link_and_its_permissions(tmp_path):
    path, link, later = (tmp_path / name for name in ("file", "link", "later"))
    write_whole("here", path, b"old")
    path.chmod(0o600)
    link.symlink_to(path)
    write_whole("here", link, b"new")
    assert (link.is_symlink(), path.read_bytes()) == (True, b"new")
    assert path.stat().st_mode & 0o777 == 0o600
    link.unlink()
    link.symlink_to(later)
    write_whole("here", link, b"new")
    assert (link.is_symlink(), later.read_bytes()) == (True, b"new")


def test_a_new_file_is_as_open_as_the_umask_says(tmp_path):
    before = os.umask(0o077)
    try:
        write_whole("here", tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_a_pipe_is_written_to_and_stays(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_whole("here", pipe, b"through")
    assert os.read(reader, 99) == b"through"
    os.close(reader)
    assert pipe.is_fifo()
    assert [*tmp_path.iterdir()] == [pipe]


@pytest.mark.parametrize("name", ["", "folder", "a\0b", "x" * 300])
def test_what_is_no_place_to_write(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"^here: expected a place to write, .*, got .*\. Choose"):
        write_whole("here", name, b"new")
    assert [*tmp_path.iterdir()] == [tmp_path / "folder"]


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole("here", tmp_path / "file", b"new")
    assert not [*tmp_path.iterdir()]


def test_confusion_counts_true_by_predicted():
    labels, predictions = [0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 2, 0]
    counts = confusion(labels, predictions, ("a", "b", "c"))
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    assert confusion([], [], 2).tolist() == [[0, 0], [0, 0]]


def test_confusions_that_cannot_be(tmp_path):
    message = (
        r"confusion: expected labels and predictions of one shape \(n,\), got \(2,\) and \(2, 3\)"
    )
    with pytest.raises(ValueError, match=message):
        confusion([0, 1], np.zeros((2, 3)), 3)
    with pytest.raises(ValueError, match=r"confusion: expected classes from 0 to 1, got 0 to 2\."):
        confusion([0, 2], [0, 1], 2)
    with pytest.raises(ValueError, match=r"classes from 0 to 1, got -1 to 1\. Give the number"):
        confusion([0, -1], [0, 1], 2)
    with pytest.raises(
        ValueError, match=r"expected counts of shape \(3, 3\), .* got shape \(2, 2\)"
    ):
        plot.confusion(np.eye(2, dtype=int), 3, tmp_path / "confusion.png")


@pytest.mark.parametrize("kind", ["int8", "uint8", "uint64", "int64", "bool"])
def test_confusion_takes_any_integers(kind):
    labels, predictions = np.array([0, 0, 1, 1], kind), np.array([0, 1, 1, 1], kind)
    assert confusion(labels, predictions, np.int64(2)).tolist() == [[1, 1], [0, 2]]
    assert confusion(np.full(3, 119, "int8"), np.full(3, 120, "int8"), 121)[119, 120] == 3


@pytest.mark.parametrize(
    "labels", [[0.0, 1.7], [0.0, 1.0], [0.0, math.nan], ["0", "1"], [0, None], [0, 1j]]
)
def test_confusion_takes_nothing_for_an_integer_that_is_none(labels):
    for pair in ((labels, [0, 1]), ([0, 1], labels)):
        with pytest.raises(
            TypeError, match=r"^confusion: expected labels and predictions that are integers, got d"
        ):
            confusion(*pair, 2)


def test_confusion_of_no_class_or_of_a_label_beyond_int64():
    for classes in (0, -1, ()):
        with pytest.raises(ValueError, match=r"^confusion: expected one class or more, got "):
            confusion([], [], classes)
    with pytest.raises(ValueError, match=r"classes from 0 to 1, got 0 to 18446744073709551615"):
        confusion(np.array([2**64 - 1], np.uint64), np.array([0]), 2)


@pytest.mark.parametrize(
    "counts", [np.eye(2) / 2, -np.eye(2, dtype=int), np.full((2, 2), math.nan), [["a", "b"]] * 2]
)
def test_a_picture_of_what_is_no_count(tmp_path, counts):
    message = r"^plot\.confusion: expected counts that are integers, 0 or above, got .*\. Make them"
    with pytest.raises(ValueError, match=message):
        plot.confusion(counts, 2, tmp_path / "confusion.png")
    with pytest.raises(ValueError, match=message):
        plot.confusion(np.zeros((0, 0), int), 0, tmp_path / "confusion.png")
    assert not [*tmp_path.iterdir()]


IMAGES = np.ones((3, 4, 4, 1))
NO_IMAGES = {
    "no column": ({"columns": 0}, IMAGES, "columns to be a whole number, 1 or above, got 0. It"),
    "columns below": ({"columns": -1}, IMAGES, "columns to be a whole number, 1 or above, got -1."),
    "half a column": (
        {"columns": 1.5},
        IMAGES,
        "columns to be a whole number, 1 or above, got 1.5",
    ),
    "no height": ({}, IMAGES[:, :0], "images of shape (n, height, width, 1 or 3), got shape (3, 0"),
    "complex": ({}, IMAGES * 1j, "real numbers, got dtype complex128. Take the real part, or the"),
    "text": ({}, np.full((1, 2, 2, 1), "a"), "real numbers, got dtype <U1. Take"),
}


@pytest.mark.parametrize("case", NO_IMAGES)
def test_images_that_cannot_be_drawn(tmp_path, case):
    options, pictures, words = NO_IMAGES[case]
    with pytest.raises((ValueError, TypeError)) as caught:
        plot.images(pictures, tmp_path / "images.png", **options)
    assert str(caught.value).startswith(f"plot.images: expected {words}")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("kind", ["bool", "uint8", "int64", "float16", "bfloat16", "float64"])
def test_images_of_any_dtype(tmp_path, kind):
    plot.images(IMAGES.astype(jnp.dtype(kind)), tmp_path / "images.png", columns=np.int64(2))
    assert (tmp_path / "images.png").read_bytes().startswith(PNG)


def test_rows_of_numbers_of_numpy_and_jax(tmp_path):
    row = {"epoch": np.int64(1), "loss": jnp.float32(0.5), "r2": np.float32("nan"), "best": True}
    History((row,)).save(tmp_path / "history.jsonl")
    assert json.loads((tmp_path / "history.jsonl").read_text()) == {
        "epoch": 1, "loss": 0.5, "r2": None, "best": True,
    }  # fmt: skip


def test_rows_without_an_epoch_are_no_curve(tmp_path):
    message = r"^History\.plot: expected an epoch in each row, got a row of loss, step\. Number the"
    with pytest.raises(ValueError, match=message):
        History((*ROWS, {"loss": 0.5, "step": 3})).plot(tmp_path / "curves.png")


@pytest.mark.parametrize("classes", [2, np.int64(2), ("malignant", "benign")])
def test_a_picture_of_the_confusions(tmp_path, classes):
    plot.confusion(np.array([[5, 1], [0, 7]]), classes, tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").read_bytes().startswith(PNG)


def test_what_a_killed_process_left_half_written_goes_away(tmp_path):
    """A save is killed in the middle; the next one of that file leaves nothing beside it."""
    script = (
        "import os, signal, sys\n"
        "from funcnet import disk\n"
        "disk.os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)\n"
        "disk.write_whole('test', sys.argv[1], b'half')\n"
    )
    path = tmp_path / "params[1].npz"
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
        assert run.returncode == -signal.SIGKILL
        assert len(list(tmp_path.iterdir())) == 1
    running = tmp_path / f".{path.name}.{os.getppid()}.0.partial"
    foreign = tmp_path / f".{path.name}.notes.partial"
    for other in (running, foreign):
        other.write_bytes(b"")
    write_whole("test", path, b"whole")
    assert {*tmp_path.iterdir()} == {path, running, foreign}
    assert path.read_bytes() == b"whole"
