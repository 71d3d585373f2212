"""Folders of images and tables in files: what they become, and what cannot be read."""

import json
import sys

import jax.numpy as jnp
import numpy as np
import optax
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import csv, parquet

import funcnet as fn
from funcnet.feed.images import image_folder
from funcnet.feed.named import load_data
from funcnet.feed.numbers import DataError
from funcnet.feed.tables import table

RNG = np.random.default_rng(0)


def draw(folder, name, n, size=(6, 5), mode="RGB"):
    place = folder / name
    place.mkdir(parents=True)
    shape = (*size, 3) if mode == "RGB" else size
    pixels = RNG.integers(0, 256, (n, *shape), np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(place / f"{i:02}.png")
    return pixels


# Images


def test_a_folder_of_images_is_read_one_by_one(tmp_path):
    cats, dogs = draw(tmp_path, "cat", 4), draw(tmp_path, "dog", 7)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / ".hidden").mkdir()
    images = image_folder(tmp_path)
    assert (images.classes, len(images), images.channels) == (("cat", "dog"), 11, 3)
    assert images.labels.tolist() == [0] * 4 + [1] * 7
    for i, pixels in enumerate([*cats, *dogs]):
        x, label = images[i]
        assert (x.dtype, int(label)) == (np.float32, images.labels[i])
        np.testing.assert_allclose(x, pixels / np.float32(255), rtol=1e-6)
    grey = image_folder(tmp_path, size=(3, 4), channels=1)[0][0]
    wanted = Image.fromarray(cats[0]).convert("L").resize((4, 3), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(grey[..., 0], np.asarray(wanted) / np.float32(255), rtol=1e-6)
    train, test = images.split(seed=1)
    assert sorted((*train.files, *test.files)) == sorted(images.files)
    assert np.bincount(test.labels).tolist() == [1, 1]


@pytest.mark.slow
@pytest.mark.long
def test_training_on_images_as_they_are_read_is_training_on_arrays(tmp_path):
    for name in ("a", "b", "c"):
        draw(tmp_path, name, 9)
    images = image_folder(tmp_path)
    net = fn.serial(fn.Flatten(), fn.Dense(3))
    options = {"epochs": 2, "batch": 8, "progress": False, "class_weight": "balanced"}
    one, two = (
        fn.fit(net, fn.cross_entropy, optax.adam(1e-2), data, **options).state.params
        for data in (images, images.arrays())
    )
    np.testing.assert_array_equal(one["dense"]["w"], two["dense"]["w"])


def test_load_data_takes_a_folder_of_images(tmp_path):
    draw(tmp_path / "whole", "cat", 10, (9, 5), "L")
    draw(tmp_path / "whole", "dog", 5, (7, 5), "L")
    data = load_data(tmp_path / "whole")
    assert (data.train[0].shape, data.test[0].shape) == ((12, 9, 5, 1), (3, 9, 5, 1))
    assert (data.classes, data.name) == (("cat", "dog"), "whole")
    assert np.bincount(data.test[1]).tolist() == [2, 1]
    for part, n in (("train", 3), ("val", 2)):
        for name in ("cat", "dog"):
            pixels = draw(tmp_path / "parts" / part, name, n)
    data = load_data(tmp_path / "parts")
    assert (data.train[0].shape, data.test[1].tolist()) == ((6, 6, 5, 3), [0, 0, 1, 1])
    np.testing.assert_allclose(data.test[0][2:], pixels / np.float32(255), rtol=1e-6)


def test_images_lie_upright(tmp_path):
    (tmp_path / "a").mkdir()
    image = Image.fromarray(RNG.integers(0, 256, (4, 6, 3), np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(tmp_path / "a" / "0.png", exif=turned)
    assert image_folder(tmp_path)[0][0].shape == (6, 4, 3)
    assert image_folder(tmp_path, size=(4, 2))[0][0].shape == (4, 2, 3)


def cut(folder):
    file = folder / "cat" / "02.png"
    file.write_bytes(file.read_bytes()[:60])


BAD_IMAGES = {
    "cut short": (
        cut,
        r"^image_folder: expected an image at .*cat/02\.png, got .*\. Fetch it again, or remove it",
    ),
    "no image": (
        lambda folder: (folder / "cat" / "02.png").write_text("hello"),
        r"^image_folder: expected an image at .*02\.png, got cannot identify image file\. Fetch ",
    ),
    "another size": (
        lambda folder: Image.new("RGB", (9, 9)).save(folder / "cat" / "02.png"),
        r"^fit: expected examples of one shape in input 0 of data, got shape \(.*\) in example \d+ "
        r"and \(.*\) in example \d+\. Give",
    ),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_an_image_that_cannot_be_read_is_named(tmp_path, case):
    spoil, message = BAD_IMAGES[case]
    draw(tmp_path, "cat", 4)
    draw(tmp_path, "dog", 4)
    spoil(tmp_path)
    images = image_folder(tmp_path)
    with pytest.raises(DataError, match=message):
        fn.fit(
            fn.serial(fn.Flatten(), fn.Dense(2)), fn.cross_entropy, optax.sgd(0.1), images,
            epochs=1, batch=8, progress=False,
        )  # fmt: skip


def test_a_folder_that_holds_no_images(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"^image_folder: expected a folder .*x, got none\. Check"):
        image_folder(tmp_path / "x")
    with pytest.raises(ValueError, match=r"expected a folder for each class in .*, got nothing\. "):
        image_folder(tmp_path)
    draw(tmp_path, "cat", 2)
    (tmp_path / "dog").mkdir()
    message = r"^image_folder: expected images \(.png, .jpg, .jpeg, ...\) in .*dog, got none\. Br"
    with pytest.raises(ValueError, match=message):
        image_folder(tmp_path)
    with pytest.raises(ValueError, match=r"^image_folder: expected size as height and width, or "):
        image_folder(tmp_path, size=(3, 0))
    with pytest.raises(ValueError, match=r"^image_folder: expected channels to be 1 or 3, got 4\."):
        image_folder(tmp_path, channels=4)
    Image.new("RGB", (9, 9)).save(tmp_path / "dog" / "0.png")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    message = r"expected the package pillow, which reads images, got none\. Run `pip install 'func"
    with pytest.raises(ImportError, match=message):
        image_folder(tmp_path)


# Tables


def rows(n=40):
    kinds = np.array(["red", "green", "blue"])[np.arange(n) % 3]
    return {
        "size": RNG.normal(1e9, 3.0, n),
        "count": RNG.integers(0, 9, n),
        "kind": kinds,
        "sold": np.arange(n) % 2 == 0,
        "price": RNG.normal(5, 2, n),
    }


@pytest.fixture
def files(tmp_path):
    """The same table in both forms."""
    columns = rows()
    whole = pa.table({name: pa.array(values) for name, values in columns.items()})
    csv.write_csv(whole, tmp_path / "t.csv")
    coded = whole.set_column(2, "kind", whole["kind"].dictionary_encode())
    parquet.write_table(coded, tmp_path / "t.parquet")
    return columns, tmp_path / "t.csv", tmp_path / "t.parquet"


def test_a_table_becomes_numbers(files):
    columns, *paths = files
    for path in paths:
        data = table(path)
        (x, y), (x_test, y_test) = data.train, data.test
        assert (x.shape, x_test.shape, y.shape, y_test.shape) == ((32, 6), (8, 6), (32, 1), (8, 1))
        assert (x.dtype, y.dtype, data.classes, data.name) == (np.float32, np.float32, None, "t")
        numeric = x[:, [0, 1, 5]]
        np.testing.assert_allclose(numeric.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(numeric.std(0), 1, atol=1e-5)
        np.testing.assert_allclose((y.mean(), y.std()), (0, 1), atol=1e-5)
        assert (np.concatenate([x, x_test])[:, 2:5].sum(0) == [13, 13, 14]).all()
        assert (x[:, 2:5].sum(1) == 1).all()
        order = [c.name for c in data.columns.inputs]
        assert (order, data.columns.target.name) == (["size", "count", "kind", "sold"], "price")
        # The held-out rows, found again by their price: the whole row is theirs.
        prices = data.columns.target.mean + data.columns.target.deviation * y_test[:, 0]
        places = [int(np.abs(columns["price"] - price).argmin()) for price in prices]
        about = data.columns.inputs[0]
        size = (columns["size"][places] - about.mean) / about.deviation
        np.testing.assert_allclose(x_test[:, 0], size, atol=1e-5)
        np.testing.assert_array_equal(data.columns.read(path)[places], x_test)
    for one, two in zip(table(paths[0]).train, table(paths[1]).train, strict=True):
        np.testing.assert_array_equal(one, two)


def test_targets_of_a_table(files):
    columns, path, _ = files
    data = table(path, target="kind", columns=["size"])
    assert (data.classes, data.train[0].shape[1]) == (("blue", "green", "red"), 1)
    assert np.bincount(data.test[1]).tolist() == [3, 3, 3]
    assert table(path, target="sold").classes == ("False", "True")
    assert table(path, target="count").classes == tuple(map(str, np.unique(columns["count"])))
    assert table(path, target="count", classes=False).train[1].dtype == np.float32
    text = path.read_text().replace("count", "Label")
    path.write_text(text)
    assert table(path).columns.target.name == "Label"


def test_load_data_and_fit_take_tables(files):
    for path in files[1:]:
        data = load_data(path, seed=2)
        np.testing.assert_array_equal(data.train[0], table(path, seed=2).train[0])
        fitted = fn.fit(
            fn.Dense(1), fn.squared_error, optax.adam(0.1), data.train,
            epochs=1, batch=16, validation=data.test, progress=False,
        )  # fmt: skip
        assert jnp.isfinite(fitted.history.rows[0]["val_loss"])


def test_another_file_is_read_by_the_columns_of_the_first(files, tmp_path):
    columns = table(files[1]).columns
    (tmp_path / "new.csv").write_text("kind,size,sold,count\ngreen,1000000000.0,true,3\n")
    x = columns.read(tmp_path / "new.csv")
    assert x.shape == (1, 6)
    assert x[0, 2:5].tolist() == [0, 1, 0]
    (tmp_path / "new.csv").write_text("kind,size,sold,count\npink,1000000000.0,true,3\n")
    message = r"^table: expected the words blue, green, red in column kind, got pink\. Bring the wo"
    with pytest.raises(ValueError, match=message):
        columns.read(tmp_path / "new.csv")
    (tmp_path / "new.csv").write_text("kind,size\ngreen,1000000000.0\n")
    with pytest.raises(ValueError, match=r"^table: expected a column count in .*, got kind, size"):
        columns.read(tmp_path / "new.csv")


BAD_TABLES = {
    "a gap": (
        "a,b\n1,x\n2,y\n,x\n",
        {},
        r"^table: expected a value in column a, line 4 of .*t\.csv, got no value\. Fill it, or ",
    ),
    "a gap in words": ("a,b\n1,x\n2,\n3,x\n", {}, r"in column b, line 3 of .*, got no value\."),
    "nan": ("a,b\n1.5,x\nnan,y\n", {}, r"in column a, line 3 of .*, got no value\. Fill"),
    "infinite": ("a,b\n1.5,x\n2.5,x\ninf,y\n", {}, r"column a, line 4 of .*, got an infinite one"),
    "no such target": (
        "a,b\n1,x\n2,y\n",
        {"target": "c"},
        r"^table: expected a column c in .*t\.csv, got a, b\. Check the spelling\.$",
    ),
    "no such column": ("a,b\n1,x\n2,y\n", {"columns": ["z"]}, r"expected a column z in .*, got a"),
    "the target among the inputs": (
        "a,b\n1,x\n2,y\n",
        {"columns": ["a", "b"]},
        r"^table: expected inputs that are not the target b, got \['a', 'b'\]\. Leave it out",
    ),
    "dates": (
        "a,b\n2020-01-01,x\n2020-01-02,y\n",
        {},
        r"^table: expected numbers or words in column a of .*, got date32\[day\]\. Leave it out",
    ),
    "too many words": (
        "a,b\n" + "".join(f"w{i},x\n" for i in range(150)),
        {},
        r"^table: expected no more than 100 words in column a of .*, got 150, such as 'w0'\. Lea",
    ),
    "words as numbers": (
        "a,b\n1,x\n2,y\n",
        {"classes": False},
        r"^table: expected numbers in b of .*, got words\. Leave classes=False out",
    ),
    "one column": ("a\n1\n2\n", {}, r"^table: expected columns beside a in .*, got none\. Bring"),
    "no rows": ("a,b\n", {}, r"^table: expected rows in .*t\.csv, got none\. Bring data\.$"),
    "nothing": (
        "",
        {},
        r"^table: expected a whole \.csv file at .*, got Empty CSV file",
    ),
    "a line too long": (
        "a,b\n1,x\n2,y,3\n",
        {},
        r"^table: expected a whole \.csv file at .*, got CSV parse error: Expected 2 columns",
    ),
    "a name twice": (
        "a,a\n1,2\n",
        {},
        r"^table: expected columns of different names in .*'a'",
    ),
    "one row": ("a,b\n1,x\n", {}, r"^table: expected two examples of a class or more, got 1 in "),
    "a seed": ("a,b\n1,x\n", {"seed": -1}, r"^table: expected seed to be a whole number, 0 or ab"),
}


@pytest.mark.parametrize("case", BAD_TABLES)
def test_a_table_that_cannot_be_learned_from(tmp_path, case):
    text, options, message = BAD_TABLES[case]
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as told:
        table(tmp_path / "t.csv", **options)
    assert len(str(told.value).splitlines()) == 1


def test_what_is_no_table(tmp_path, monkeypatch):
    (tmp_path / "t.parquet").write_text("hello")
    message = r"^table: expected a whole \.parquet file at .*, got .*\. Write it again\.$"
    with pytest.raises(ValueError, match=message):
        table(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"^table: expected a \.csv or a \.parquet file, got"):
        table(tmp_path / "t.txt")
    with pytest.raises(ValueError, match=r"^table: expected a file at .*x\.csv, got none\. Check"):
        table(tmp_path / "x.csv")
    (tmp_path / "t.csv").write_text(json.dumps({}))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = r"^table: expected the package pyarrow, which reads tables, got none\. Run `pip inst"
    with pytest.raises(ImportError, match=message):
        table(tmp_path / "t.csv")
