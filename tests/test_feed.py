"""The feed: which examples stand in which batch, wherever they come from, and how data fails."""

import itertools
import os
import pickle
import signal
import sys
import threading
import time

import datasets
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnet as fn
from funcnet.feed.feed import Feed
from funcnet.feed.order import batches, class_weights
from funcnet.feed.reader import Reader, fits, resident
from funcnet.types import Hint

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 3)).astype(np.float32)
Y = (X.sum(1) > 0).astype(np.int32)
HELD = RNG.normal(size=(30, 3)).astype(np.float32), RNG.integers(0, 2, 30)
NET = fn.serial(fn.Dense(2))
OPTIONS = {"epochs": 2, "batch": 16, "progress": False, "seed": 3}


class Tensor:
    """What PyTorch's tensors are to NumPy: something that becomes an array."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array, dtype)


class Pairs:
    """A map-style data set as PyTorch has them."""

    def __init__(self, x=X, y=Y, fail=None, slow=0.0):
        self.x, self.y, self.fail, self.slow = x, y, fail, slow
        self.labels = y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        if i == self.fail:
            raise OSError("the file is gone")
        time.sleep(self.slow)
        return Tensor(self.x[i]), int(self.y[i])


class Dying(Pairs):
    """One whose reader is killed, as by a machine that runs out of memory."""

    def __getitem__(self, i):
        if i == self.fail:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(i)


class Loader:
    """What can be gone through again and again, and gives batches, as a DataLoader does."""

    def __init__(self, seed=3, size=16, length=None):
        self.seed, self.size, self.epoch, self.length = seed, size, 0, length

    def __iter__(self):
        self.epoch += 1
        yield from batches((X, Y), self.size, seed=self.seed, epoch=self.epoch - 1)


class Counted(Loader):
    def __len__(self):
        return self.length


def fit(data, **more):
    return fn.fit(NET, fn.cross_entropy, optax.adam(1e-2), data, **OPTIONS | more)


def rows(fitted):
    times = ("seconds", "examples_per_second")
    return [{k: v for k, v in row.items() if k not in times} for row in fitted.history.rows]


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.fixture(scope="module")
def by_arrays():
    return fit((X, Y), validation=HELD, metrics={"accuracy": fn.accuracy})


def epochs_of(give):
    """A function that gives the batches of one epoch after the other."""
    epoch = itertools.count()
    return lambda: give(next(epoch))


def in_batches(epoch):
    return batches((X, Y), 16, seed=3, epoch=epoch)


class Hugging(Pairs):
    """Rows of a real `datasets.Dataset`, as pairs."""

    def __init__(self, x, y):
        self.rows = datasets.Dataset.from_dict({"x": x.tolist(), "y": y.tolist()})

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        row = self.rows[i]
        return row["x"], row["y"]


def grains(x, y):
    return grain.MapDataset.range(len(x)).map(lambda i: (x[i], y[i]))


SAME = {
    "tensors by number": lambda: (Pairs(), Pairs(*HELD)),
    "a datasets.Dataset": lambda: (Hugging(X, Y), Hugging(*HELD)),
    "grain": lambda: (grains(X, Y), grains(*HELD)),
    "a list of pairs": lambda: ([*zip(X, Y, strict=True)], [*zip(*HELD, strict=True)]),
    "a function of batches": lambda: (epochs_of(in_batches), lambda: [HELD]),
    "a loader": lambda: (Loader(), [HELD]),
    "a loader that knows its length": lambda: (Counted(length=4), [HELD]),
    "lists": lambda: ((X.tolist(), Y.tolist()), (HELD[0].tolist(), HELD[1].tolist())),
    "a feed": lambda: (Feed((X, Y), 16, 3), Feed(HELD, 30, shuffle=False)),
}


def long_but(names, *usual):
    """Each fit compiles its step: the usual form runs a few."""
    marks = [pytest.mark.slow, pytest.mark.long]
    return [pytest.param(name, marks=[] if name in usual else marks) for name in names]


@pytest.mark.parametrize("kind", long_but(SAME, "a datasets.Dataset", "a function of batches"))
def test_the_same_data_gives_the_same_numbers_whichever_way_it_comes(kind, by_arrays):
    data, held = SAME[kind]()
    fitted = fit(data, validation=held, metrics={"accuracy": fn.accuracy})
    assert_same(fitted.state, by_arrays.state)
    assert rows(fitted) == rows(by_arrays)
    assert rows(fitted)[-1]["step"] == 8


@pytest.mark.slow
@pytest.mark.long
def test_a_grain_dataset_of_batches(by_arrays):
    order = np.concatenate([np.random.default_rng((3, 0)).permutation(50) for _ in range(1)])
    ready = grain.MapDataset.source(order).map(lambda i: (X[i], Y[i])).batch(16)
    one = fit(ready.to_iter_dataset(), epochs=1)
    assert_same(one.state.params, fit((X, Y), epochs=1).state.params)


def test_evaluate_takes_the_same_data(by_arrays):
    found = [
        fn.evaluate(NET, fn.cross_entropy, by_arrays.state, data, batch=8)["loss"]
        for data in (HELD, Pairs(*HELD), [HELD], lambda: [HELD])
    ]
    np.testing.assert_allclose(found, by_arrays.history.rows[-1]["val_loss"], rtol=1e-6)


# The order


def test_each_example_comes_once_an_epoch():
    feed = Feed((X, np.arange(50)), 16, seed=5)
    assert (len(feed), feed.examples, feed.size) == (4, 50, 16)
    for epoch in range(2):
        drawn = [feed.batch(step)[1] for step in range(4 * epoch, 4 * epoch + 4)]
        assert [len(part) for part in drawn] == [16, 16, 16, 2]
        assert sorted(np.concatenate(drawn).tolist()) == list(range(50))
        for one, (_, other) in zip(
            drawn, batches((X, np.arange(50)), 16, seed=5, epoch=epoch), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_a_batch_depends_on_seed_and_step_alone():
    feed = Feed(Pairs(), 16, seed=5)
    steps = [7, 0, 3, 3, 12]
    drawn = [feed.batch(step) for step in steps]
    other = pickle.loads(pickle.dumps(Feed((X, Y), 16, seed=5)))
    for step, batch in zip(steps, drawn, strict=True):
        assert_same(batch, other.batch(step))
    assert not np.array_equal(drawn[0][0], Feed((X, Y), 16, seed=6).batch(7)[0])


def test_an_order_of_its_own():
    feed = Feed((X, np.arange(50)), 16, shuffle=False)
    assert [feed.batch(step)[1].tolist() for step in (0, 3, 4)] == [
        [*range(16)],
        [48, 49],
        [*range(16)],
    ]
    dropped = Feed((X, np.arange(50)), 16, remainder="drop")
    assert len(dropped) == 3
    assert len(dropped.batch(2)[1]) == 16
    assert dropped.batch(3)[1].tolist() == dropped.source.take(dropped.places(3))[1].tolist()
    assert int(fit(Feed((X, Y), 16, remainder="drop")).state.step) == 6


def test_an_epoch_can_be_begun_in_its_midst():
    """What a run that goes on needs: the position is the number of the step."""
    for source in ((X, Y), Pairs()):
        feed = Feed(source, 16, seed=2)
        with Reader(feed, 3) as whole, Reader(feed, 3) as late:
            told = [batch for epoch in range(3) for batch in whole.epoch(epoch)]
            rest = [*late.epoch(1, 2), *late.epoch(2)]
        assert len(told) == 12
        assert_same(told[6:], rest)
    loader = fn.data.Feed(Loader(), 16)
    with Reader(loader, 1) as late:
        assert_same([*late.epoch(0, 2)], [*batches((X, Y), 16, seed=3)][2:])


def test_every_class_is_drawn_as_often():
    labels = np.repeat([0, 1, 2], [30, 15, 5])
    for feed in (
        Feed((X, labels), 16, balance=True),
        Feed(Pairs(X, labels), 16, balance=labels),
        Feed(Pairs(X, labels), 16, balance=True),
        Feed({"x": X, "y": labels}, 16, balance=labels),
    ):
        drawn = [jax.tree.leaves(feed.batch(step))[1] for step in range(len(feed))]
        counts = np.bincount(np.concatenate(drawn))
        assert (feed.examples, counts.tolist()) == (90, [30, 30, 30])
        again = [jax.tree.leaves(feed.batch(step))[1] for step in range(len(feed))]
        assert_same(drawn, again)
    each = Feed((np.arange(50), labels), 90, balance=True).batch(0)[0]
    assert sorted(np.bincount(each, minlength=50)) == [1] * 30 + [2] * 15 + [6] * 5
    assert fit(Feed((X, Y), 16, balance=True)).stopped is None


# Batches that are dicts, and targets that are several


def test_a_batch_has_the_structure_of_the_data():
    tree = {"image": X, "label": Y, "more": {"mask": Y > 0}}
    batch = Feed(tree, 16, seed=3).batch(1)
    picked = next(itertools.islice(batches((X, Y), 16, seed=3), 1, None))
    assert sorted(batch) == ["image", "label", "more"]
    assert_same((batch["image"], batch["label"], batch["more"]["mask"]), (*picked, picked[1] > 0))
    table = datasets.Dataset.from_dict({"image": X.tolist(), "label": Y.tolist()})
    assert_same(Feed(table, 16, seed=3).batch(1), {"image": picked[0], "label": picked[1]})
    table.set_format("numpy")
    assert_same(Feed(table, 16, seed=3).batch(1)["image"], picked[0])


@pytest.mark.slow
@pytest.mark.long
def test_several_targets():
    @fn.network(a=fn.Dense(2), b=fn.Dense(1))
    def net(net, x):
        return {"class": net.a(x), "sum": net.b(x)}

    def both(output, target):
        squares = fn.squared_error(output["sum"], target["sum"])
        return fn.cross_entropy(output["class"], target["class"]) + squares

    target = {"class": Y, "sum": X.sum(1, keepdims=True)}
    fitted = fn.fit(net, both, optax.adam(1e-2), (X, target), validation=(X, target), **OPTIONS)
    whole = both(net(fitted.state.params, X), target)
    assert fitted.history.rows[-1]["val_loss"] == pytest.approx(float(whole), rel=1e-5)
    with pytest.raises(ValueError, match=r"^fit: expected the same parts in validation as in data"):
        fn.fit(net, both, optax.adam(1e-2), (X, target), validation=(X, Y), **OPTIONS)


# Unequal classes


def weighted_loss(params, x, y, weights):
    each = fn.cross_entropy(NET(params, x), y, reduction="none")
    return float((weights[y] * each).sum() / weights[y].sum())


@pytest.mark.parametrize("choice", long_but(["balanced", "by class", "of one", "all"], "balanced"))
def test_classes_weigh_in_the_loss_and_its_figures(choice):
    named = {"by class": {0: 1.0, 1: 5.0}, "of one": {1: 5.0}, "all": np.array([1.0, 5.0])}
    choice = named.get(choice, choice)
    y = (np.arange(50) % 5 == 0).astype(np.int32)
    weights = class_weights(y) if isinstance(choice, str) else np.array([1.0, 5.0])
    arguments = (NET, fn.cross_entropy, optax.sgd(0.0), (X, y))
    fitted = fn.fit(*arguments, validation=(X[:21], y[:21]), class_weight=choice, **OPTIONS)
    row = fitted.history.rows[0]
    wanted = weighted_loss(fitted.state.params, X, y, weights)
    assert row["loss"] == pytest.approx(wanted, rel=1e-6)
    wanted = weighted_loss(fitted.state.params, X[:21], y[:21], weights)
    assert row["val_loss"] == pytest.approx(wanted, rel=1e-6)


@pytest.mark.slow
@pytest.mark.long
def test_weights_of_classes_are_those_of_the_loss_itself():
    """One step against `cross_entropy` with its own weights, and one that leaves labels out."""
    y = np.where(np.arange(50) % 7 == 0, -1, Y)
    weights = jnp.array([0.5, 3.0])
    for labels, ignored in ((Y, None), (y, -1)):

        def own(output, target, ignored=ignored):
            return fn.cross_entropy(output, target, weights, ignore_index=ignored)

        def plain(output, target, ignored=ignored):
            loss = fn.cross_entropy(output, target, ignore_index=ignored)
            return loss, {"double": 2 * loss}

        data = {"data": (X, labels), "optimizer": optax.sgd(0.1), **OPTIONS, "batch": 50}
        one = fn.fit(NET, own, **data)
        two = fn.fit(NET, plain, class_weight=np.asarray(weights), **data)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
            one.state.params,
            two.state.params,
        )
        assert "double" in two.history.rows[0]


@pytest.mark.slow
@pytest.mark.long
def test_balanced_weights_are_scikit_learns():
    utils = pytest.importorskip("sklearn.utils.class_weight")
    labels = RNG.integers(0, 4, 200) ** 2
    present = np.unique(labels)
    wanted = utils.compute_class_weight("balanced", classes=present, y=labels)
    np.testing.assert_allclose(class_weights(labels)[present], wanted, rtol=1e-6)
    assert class_weights(labels)[2] == 0


# How data fails

BAD = {
    "an example that is gone": (
        lambda: Pairs(fail=7),
        r"^fit: expected example 7 of data, which has 50, got OSError: the file is gone\. Mend ",
    ),
    "examples of many lengths": (
        lambda: [(X[i, : 2 + (i == 5)], Y[i]) for i in range(50)],
        r"^fit: expected examples of one shape in input 0 of data, got shape \(2,\) in example 0 "
        r"and \(3,\) in example 5\. Give each the same shape",
    ),
    "text": (
        lambda: [{"x": X[i], "y": "a cat"} for i in range(50)],
        r"^fit: expected numbers of one shape in data\['y'\], got 'a cat' in example 0\. Convert",
    ),
    "nan": (
        lambda: Pairs(np.where(np.arange(150).reshape(50, 3) == 4, np.nan, X)),
        r"^fit: expected finite numbers in input 0 of data, got nan at \[1, 1\]\. Leave",
    ),
    "other keys": (
        lambda: [{"x": X[i], "y" if i < 3 else "z": Y[i]} for i in range(50)],
        r"^fit: expected the same parts in each example of data, x, y, got x, z in example 3\. ",
    ),
    "nothing": (lambda: Pairs(X[:0], Y[:0]), r"^fit: expected at least one example, got none\. "),
    "no batches": (lambda: lambda: [], r"^fit: expected at least one batch in data, got none\. "),
    "an empty list": (lambda: [], r"^fit: expected an array or more in data, got an empty list\. "),
    "examples one by one": (
        lambda: lambda: zip(X, Y, strict=True),
        r"^fit, batch 0: expected arrays whose first axis counts the examples, got ",
    ),
    "a generator for two epochs": (
        lambda: (pair for pair in [(X, Y)]),
        r"^fit: expected data that can be gone through 2 times, got a generator\. Give the func",
    ),
    "a dict of data sets": (
        lambda: datasets.DatasetDict({"train": datasets.Dataset.from_dict({"x": [1.0]})}),
        r"^fit: expected an array in data\['train'\], got a Dataset\. Give arrays of one length, "
        r"or one source of examples: of several parts, such as data\['train'\], the one to ",
    ),
    "a number": (lambda: 5, r"^fit: expected data as a tuple of arrays, .*, got 5\. Give"),
    "no pairs": (
        lambda: [{"x": X[i], "y": Y[i]} for i in range(50)],
        r"^fit: expected data as a tuple of arrays, the inputs and then the target, got a dict of",
    ),
    "fewer than a batch": (
        lambda: Pairs(X[:9], Y[:9]),
        r"^fit: expected at least one batch of 16 examples, got 9\. Give batch=9 or less",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_data_that_is_none_ends_in_one_sentence(case):
    make, message = BAD[case]
    with pytest.raises((ValueError, TypeError), match=message) as told:
        fit(make())
    assert len(str(told.value).splitlines()) == 1


THIRD = next(int(i) for i in Feed((X, Y), 16, seed=3).places(2) if i >= 16)
"""An example of the third batch."""
LATE = {
    "an example": (
        lambda: Pairs(fail=THIRD),
        rf"^fit: expected example {THIRD} of data, which has 50, got OSError: the file is gone\. ",
    ),
    "a short pass": (
        lambda: Counted(length=7),
        r"fit: expected 7 batches in each pass through data, got 4\. Data that is to be gone",
    ),
    "a pass that is over": (
        lambda batches=iter([(X, Y)]): lambda: batches,
        r"fit: expected some batches in each pass through data, got none\. Data that is to be",
    ),
    "a generator that fails": (
        lambda: epochs_of(lambda epoch: ((X, Y) if i < 2 else 1 / 0 for i in range(3))),
        r"fit: expected batch 2 of data, got ZeroDivisionError: division by zero\. Mend what",
    ),
}


@pytest.mark.parametrize("case", long_but(LATE, "an example", "a pass that is over"))
def test_what_was_learned_is_kept_where_data_ends_early(case):
    make, message = LATE[case]
    with pytest.warns(Hint, match=message + r".* What was learned until then is kept\.$"):
        fitted = fit(make())
    taken = int(fitted.state.step)
    assert fitted.stopped == "data"
    assert 0 < taken < 8
    assert fitted.history.rows[-1]["step"] == taken
    before, _ = NET.init(jax.random.key(3), X)
    assert not np.array_equal(before["dense"]["w"], fitted.state.params["dense"]["w"])


def test_validation_that_fails_ends_the_run():
    given = iter([[HELD], [HELD], []])
    with pytest.warns(Hint, match=r"expected some batches in each pass through validation, got n"):
        fitted = fit((X, Y), validation=lambda: next(given), epochs=3)
    assert (fitted.stopped, len(fitted.history.rows)) == ("data", 3)


# Read ahead


@pytest.mark.slow
@pytest.mark.long
def test_workers_change_no_number(by_arrays):
    fitted = fit(Pairs(), workers=3)
    assert_same(fitted.state, by_arrays.state)
    with Reader(Feed(Pairs(), 16, 3, workers=2), 2) as late:
        rest = [*late.epoch(1, 2)]
    assert_same(rest, [Feed((X, Y), 16, 3).batch(step) for step in (6, 7)])


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("source", [Pairs, Dying])
def test_a_worker_that_dies_ends_training_with_what_was_learned(source):
    """The second of two, in its second batch; the first one's first batch comes nevertheless."""
    fourth = next(int(i) for i in Feed((X, Y), 16, seed=3).places(3) if i >= 16)
    told = {
        Pairs: rf"^fit: expected example {fourth} of data, which has 50, got OSError: the file is ",
        Dying: r"^fit: expected 2 workers that read the data, got one that is gone, exit code -9\.",
    }
    with pytest.warns(Hint, match=told[source]):
        fitted = fit(source(fail=fourth), workers=2)
    assert fitted.stopped == "data"
    assert 0 < int(fitted.state.step) < 8


def test_workers_need_grain(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    message = (
        r"^fit: expected the package grain, which runs 2 workers, got none\. Run `pip install "
        r"'funcnet\[data\]'`, or write workers=0\.$"
    )
    with pytest.raises(ImportError, match=message):
        fit(Pairs(), workers=2)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "funcnet feed"]


def test_what_reads_ahead_ends_with_the_run():
    with Reader(Feed(Pairs(), 16), 5) as reader:
        next(reader.epoch(0))
        assert len(threads()) == 1
    assert not threads()
    opened = []

    def endless():
        opened.append(True)
        for i in itertools.count():
            yield X[i % 2 :], Y[i % 2 :]

    with Reader(Feed(endless, 16), 1) as reader:
        given = reader.epoch(0)
        assert len(next(given)[0]) == 50
        given.close()
    assert (opened, threads()) == ([True], [])


def test_a_batch_stands_ready_before_it_is_asked_for():
    taken = []

    class Noted(Pairs):
        def __getitem__(self, i):
            taken.append(i)
            return super().__getitem__(i)

    with Reader(Feed(Noted(), 10, shuffle=False), 1) as reader:
        given = reader.epoch(0)
        first = next(given)
        for _ in range(500):
            if len(taken) == 40:
                break
            time.sleep(0.01)
        # One given away, two ready, and one in the hand of the thread.
        assert (len(taken), len(first[0])) == (40, 10)
        assert isinstance(first[0], jax.Array)
        assert len([*given]) == 4


def test_arrays_on_the_device_give_the_same_batches():
    """What an accelerator does: the arrays lie in its memory, and of a batch only places travel."""
    for shuffle in (True, False):
        feed = Feed((X, {"y": Y}), 16, seed=3, shuffle=shuffle)
        batch = resident(feed)
        assert_same([batch(step) for step in range(8)], [feed.batch(step) for step in range(8)])
    assert not fits((X, Y))


def test_batches_one_by_one_have_no_number():
    feed = Feed(Loader(), 16)
    with pytest.raises(TypeError, match=r"^Feed: expected data whose batches are counted, got bat"):
        len(feed)
    with pytest.raises(TypeError, match=r"^Feed: expected examples that are read by number, got b"):
        feed.batch(3)
    with Reader(feed, 1) as reader:
        assert len([*reader.epoch(0)]) == len(feed) == 4


SETTINGS = {
    "remainder": (
        {"remainder": "keep"},
        r"^Feed: expected remainder to be 'use' or 'drop', got 'keep'\. Leave it out",
    ),
    "batch": ({"batch": 0}, r"^Feed: expected batch to be a whole number, 1 or above, got 0\."),
    "workers": ({"workers": -1}, r"^Feed: expected workers to be a whole number, 0 or above, got"),
    "labels": (
        {"balance": Y[:7]},
        r"^Feed: expected a label for each of 50 examples, which are shuffled, got 7 labels, shu",
    ),
    "an order": ({"balance": Y, "shuffle": False}, r"got 50 labels, shuffle=False\. Balance what"),
    "no labels": (
        {"source": {"x": X, "y": Y}, "balance": True},
        r"^Feed: expected a class for each example, integers of shape \(n,\), got none\. Give the",
    ),
    "numbers": (
        {"balance": X},
        r"^Feed: expected a class for each example, integers of shape \(n,\), got float32 of sh",
    ),
    "a dropped batch": (
        {"batch": 60, "remainder": "drop"},
        r"^Feed: expected at least one batch of 60 examples, got 50\. Give batch=50 or less",
    ),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_that_make_no_batches(case):
    settings, message = SETTINGS[case]
    with pytest.raises(ValueError, match=message):
        Feed(**{"source": (X, Y), "batch": 16} | settings)


WEIGHTS = {
    "another word": ("even", r"^fit: expected class_weight to be 'balanced' or weights, got 'even"),
    "classes by name": (
        {"cat": 1.0},
        r"^fit: expected classes as whole numbers, 0 or above, in cl",
    ),
    "below 0": ({0: -1.0}, r"^fit: expected class_weight to be finite weights, 0 or above, one"),
    "nan": ([1.0, np.nan], r"^fit: expected class_weight to be finite weights"),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_that_are_none(case):
    choice, message = WEIGHTS[case]
    with pytest.raises(ValueError, match=message):
        fit((X, Y), class_weight=choice)


def test_weights_need_classes():
    with pytest.raises(ValueError, match=r"^fit: expected a class for each example, integers of"):
        fit((X, X), class_weight="balanced")
    with pytest.raises(ValueError, match=r"^fit: expected a class for each example beside class_w"):
        fn.fit(NET, fn.squared_error, optax.sgd(0.1), (X, X[:, :2]), class_weight={0: 1}, **OPTIONS)
    with pytest.raises(
        ValueError, match=r"^class_weights: expected labels of 0 or above, got -1\."
    ):
        class_weights([0, -1])


class Files:
    """Examples that take a while to come."""

    def __init__(self, x, y, seconds):
        self.x, self.y, self.seconds = x, y, seconds

    def __len__(self):
        return len(self.x)

    def __getitems__(self, rows):
        time.sleep(self.seconds)
        return [*zip(self.x[rows], self.y[rows], strict=True)]

    def __getitem__(self, i):
        return self.__getitems__([i])[0]


def waiting(net, x, y, make, steps=80, size=64):
    """The share of the time that steps wait for their batch, of steps that are waited for."""
    step = fn.make_step(net, fn.cross_entropy, optax.adam(1e-3))
    state = step.init(jax.random.key(0), x[:size])
    state, _ = jax.block_until_ready(step.update(state, (x[:size], y[:size])))
    start = time.perf_counter()
    for _ in range(10):
        state, _ = jax.block_until_ready(step.update(state, (x[:size], y[:size])))
    pace = (time.perf_counter() - start) / 10
    waited = took = 0.0
    before = start
    with Reader(Feed(make(x, y, pace), size), 1) as reader:
        for i, batch in enumerate(reader.epoch(0)):
            ready = time.perf_counter()
            state, _ = jax.block_until_ready(step.update(state, batch))
            done = time.perf_counter()
            if i == steps:
                break
            if i > 2:
                waited, took = waited + ready - before, took + done - before
            before = time.perf_counter()
    return waited / took


FED = {
    "arrays": lambda x, y, pace: (x, y),
    "examples": lambda x, y, pace: Files(x, y, 0.0),
    "slow examples": lambda x, y, pace: Files(x, y, pace / 2),
    "slow batches": lambda x, y, pace: lambda: slowly(x, y, pace / 2),
}


def slowly(x, y, seconds):
    for batch in batches((x, y), 64):
        time.sleep(seconds)
        yield batch


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.alone
@pytest.mark.parametrize("kind", FED)
def test_the_feed_keeps_no_step_waiting(kind):
    """LeNet, of which a step takes some milliseconds; the source takes half as long."""
    x = RNG.normal(size=(64 * 90, 28, 28, 1)).astype(np.float32)
    y = RNG.integers(0, 10, len(x)).astype(np.int32)
    shares = []
    while len(shares) < 5 and min(shares, default=1) >= 0.02:
        shares.append(waiting(fn.nets.LeNet(10), x, y, FED[kind]))
    assert min(shares) < 0.02, shares
