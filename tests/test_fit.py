"""The loop: what it promises of order, figures, endings and refusals."""

import builtins
import os
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from funcnet.feed.named import load_data
from funcnet.feed.order import batches
from funcnet.feed.sources import arrays_of
from funcnet.layers.linear import Dense
from funcnet.nn.combine import serial
from funcnet.nn.layer import Layer
from funcnet.train import progress
from funcnet.train.evaluate import evaluate
from funcnet.train.fit import fit
from funcnet.train.metrics import accuracy
from funcnet.train.step import make_step

RNG = np.random.default_rng(0)
X = RNG.normal(size=(70, 3)).astype(np.float32)
Y = (X.sum(1) > 0).astype(np.int64)
HELD = (RNG.normal(size=(301, 3)).astype(np.float32), RNG.integers(0, 2, 301))
NET = serial(Dense(2))
QUIET = {"batch": 16, "progress": False}


def nll(logits, labels):
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None], axis=-1)
    return -picked.mean()


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def assert_same(one, other):
    for a, b in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_fit_is_updates_over_batches_bit_for_bit():
    optimizer = optax.adam(1e-2)
    fitted = fit(NET, nll, optimizer, (X, Y), epochs=3, seed=7, **QUIET)
    step = make_step(NET, nll, optimizer)
    state = step.init(jax.random.key(7), X[:16])
    for epoch in range(3):
        losses = []
        for batch in batches((X, Y.astype(np.int32)), 16, seed=7, epoch=epoch):
            state, values = step.update(state, batch)
            losses.append(float(values["loss"]) * len(batch[0]))
        assert fitted.history.rows[epoch]["loss"] == pytest.approx(np.sum(losses) / 70)
    assert_same(fitted.state, state)
    assert (fitted.stopped, int(fitted.state.step)) == (None, 15)
    assert_same(state, fit(NET, nll, optimizer, (X, Y), epochs=3, seed=7, **QUIET).state)


def test_validation_figures_are_means_over_all_examples():
    fitted = fit(
        NET,
        nll,
        optax.sgd(0.1),
        (X, Y),
        epochs=2,
        validation=HELD,
        metrics={"accuracy": accuracy},
        **QUIET,
    )
    row = fitted.history.rows[-1]
    logits = NET(fitted.state.params, HELD[0])
    assert row["val_loss"] == pytest.approx(float(nll(logits, HELD[1])), rel=1e-5)
    assert row["val_accuracy"] == pytest.approx(float(accuracy(logits, HELD[1])), rel=1e-5)
    known = {"epoch", "step", "loss", "accuracy", "val_loss", "val_accuracy"}
    assert set(row) == known | {"seconds", "examples_per_second"}
    assert (row["epoch"], row["step"]) == (2, 10)
    assert row["examples_per_second"] > 0


def test_it_learns_the_digits():
    data = load_data("digits")
    net = serial(lambda x: x.reshape(len(x), -1), Dense(32), jnp.tanh, Dense(10))
    fitted = fit(
        net,
        nll,
        optax.adam(3e-3),
        data.train,
        epochs=8,
        validation=data.test,
        metrics={"accuracy": accuracy},
        progress=False,
    )
    assert fitted.history.rows[-1]["val_accuracy"] > 0.9


def test_several_inputs_and_one_target():
    both = Layer(
        lambda key, a, b: ({"w": jnp.ones(3)}, {}),
        lambda p, s, a, b, **_: ((a + b) @ p["w"], s),
        "both",
    )

    def error(output, target):
        return ((output - target) ** 2).mean()

    fitted = fit(both, error, optax.sgd(0.1), (X, -X, np.zeros(70)), epochs=1, **QUIET)
    assert fitted.history.rows[0]["loss"] == 0


def overfit(patience, epochs=30, **more):
    """Labels without meaning and a growing step: the validation loss soon gets worse."""
    rate = optax.exponential_decay(0.05, 4, 2.0)
    arguments = {"epochs": epochs, "validation": HELD, "patience": patience, **QUIET, **more}
    return fit(NET, nll, optax.sgd(rate), (X, Y), **arguments)


def test_patience_brings_the_best_epoch_back():
    fitted = overfit(2)
    losses = fitted.history.column("val_loss")
    best = int(np.argmin(losses))
    assert (fitted.stopped, len(losses)) == ("patience", best + 3)
    assert int(fitted.state.step) == fitted.history.rows[best]["step"]
    logits = NET(fitted.state.params, HELD[0])
    assert float(nll(logits, HELD[1])) == pytest.approx(losses[best], rel=1e-5)
    whole = overfit(4, epochs=best + 3)
    assert whole.stopped is None
    assert_same(whole.state, fitted.state)


def test_a_loss_that_is_not_finite_ends_the_run():
    def error(output, target):
        return ((output[:, 0] - target) ** 2).mean()

    fitted = fit(NET, error, optax.sgd(1e12), (X, X[:, 0]), epochs=50, **QUIET)
    assert (fitted.stopped, len(fitted.history.rows) < 10) == ("not finite", True)


def test_the_last_finite_state_comes_back():
    """Parameters grow a millionfold an epoch; the loss is the first to overflow."""

    def error(output, target):
        return ((output[:, 0] - target) ** 2).mean()

    seen = []
    arguments = (NET, error, optax.sgd(30.0), (X, X[:, 0]))
    fitted = fit(
        *arguments, epochs=50, on_epoch=lambda row, state: seen.append(leaves(state)), **QUIET
    )
    assert fitted.stopped == "not finite"
    assert len(fitted.history.rows) > 2
    assert not np.isfinite(fitted.history.rows[-1]["loss"])
    assert_same(fitted.state, seen[-2])
    assert all(np.isfinite(leaf).all() for leaf in leaves(fitted.state))
    first = fit(*arguments, epochs=50, patience=5, validation=(X, X[:, 0]), **QUIET)
    assert all(np.isfinite(leaf).all() for leaf in leaves(first.state))


def test_a_run_that_diverges_at_once_gives_its_first_state_back():
    def error(output, target):
        return ((output[:, 0] - target) ** 2).mean()

    for rate in (1e30, np.inf):
        fitted = fit(NET, error, optax.sgd(rate), (X, X[:, 0]), epochs=2, **QUIET)
        assert fitted.stopped == "not finite"
        params, _ = NET.init(jax.random.key(0), X[:16])
        assert_same(fitted.state.params, params)


def test_parameters_that_overflow_in_the_last_step_are_not_given_back():
    """One step of one epoch: its loss is finite, what it leads to is not."""
    arguments = (NET, nll, optax.sgd(np.inf), (X[:16], Y[:16]))
    fitted = fit(*arguments, epochs=1, **QUIET)
    assert np.isfinite(fitted.history.rows[0]["loss"])
    assert fitted.stopped == "not finite"
    assert all(np.isfinite(leaf).all() for leaf in leaves(fitted.state))


def test_ctrl_c_before_the_first_step_is_raised_in_one_place():
    """It comes while the parameters are drawn; the second one would be raised at once."""

    def init(key, x):
        os.kill(os.getpid(), signal.SIGINT)
        drawn.append(True)
        return NET.init(key, x)

    drawn = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(Layer(init, NET.apply), nll, optax.sgd(0.1), (X, Y), epochs=1, **QUIET)
    assert drawn
    assert caught.traceback[-1].name == "fit"
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_ends_training_with_what_was_learned():
    seen = []

    def press(row, state):
        seen.append(leaves(state))
        if row["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    fitted = fit(NET, nll, optax.adam(1e-2), (X, Y), epochs=1000, on_epoch=press, **QUIET)
    assert signal.getsignal(signal.SIGINT) is before
    assert (fitted.stopped, len(fitted.history.rows)) == ("interrupted", 2)
    assert_same(leaves(fitted.state), seen[-1])


def test_ctrl_c_within_an_epoch_keeps_its_steps():
    """The interrupt comes from inside the ninth step: one whole epoch and four steps are kept."""

    def press(x):
        if press.countdown == 0:
            os.kill(os.getpid(), signal.SIGINT)
        press.countdown -= 1
        return np.float32(0)

    press.countdown = 8
    zero = jax.ShapeDtypeStruct((), jnp.float32)

    def criterion(output, target):
        label = jax.pure_callback(press, zero, jax.lax.stop_gradient(output[0, 0]))
        return nll(output, target) + label

    fitted = fit(NET, criterion, optax.adam(1e-2), (X, Y), epochs=1000, validation=HELD, **QUIET)
    first, *_, last = fitted.history.rows
    assert fitted.stopped == "interrupted"
    assert (first["step"], last["step"]) == (5, int(fitted.state.step))
    assert np.isfinite(last["loss"])
    assert all(np.isfinite(leaf).all() for leaf in leaves(fitted.state))


def test_an_interrupt_raised_elsewhere_is_kept_too():
    def stop(row, state):
        raise KeyboardInterrupt

    fitted = fit(NET, nll, optax.sgd(0.1), (X, Y), epochs=9, on_epoch=stop, **QUIET)
    assert (fitted.stopped, len(fitted.history.rows)) == ("interrupted", 1)
    assert int(fitted.state.step) == 5
    best = overfit(5, on_epoch=lambda row, state: row["epoch"] == 3 and stop(row, state))
    assert (best.stopped, int(best.state.step) in (5, 10)) == ("interrupted", True)


def test_an_interrupt_that_cost_the_state(monkeypatch):
    """Raised inside a step: in the first one it is raised, later the last whole epoch is kept."""

    def losing(steps):
        def lose(update):
            def interrupted(state, batch):
                interrupted.left -= 1
                after = update(state, batch)
                if interrupted.left < 0:
                    raise KeyboardInterrupt
                return after

            interrupted.left = steps
            return interrupted

        return lose

    monkeypatch.setattr("funcnet.train.fit.outermost", losing(0))
    with pytest.raises(KeyboardInterrupt):
        fit(NET, nll, optax.sgd(0.1), (X, Y), epochs=2, **QUIET)
    monkeypatch.setattr("funcnet.train.fit.outermost", losing(6))
    fitted = fit(NET, nll, optax.sgd(0.1), (X, Y), epochs=2, **QUIET)
    assert (fitted.stopped, int(fitted.state.step)) == ("interrupted", 5)


def run(data, validation=None, criterion=nll, net=NET, **settings):
    return fit(net, criterion, optax.sgd(0.1), data, validation=validation, **settings)


NAN = X.copy()
NAN[5, 1] = np.nan
REFUSED = {
    "nan": (
        (NAN, Y),
        r"fit: expected finite numbers in input 0 of data, got nan at \[5, 1\]\. Leave",
    ),
    "infinite target": (
        (X, np.full(70, np.inf)),
        r"fit: expected finite numbers in the target of data, got inf at \[0\]\.",
    ),
    "beyond float32": (
        (np.where(np.isnan(NAN), 1e300, NAN.astype(float)), Y),
        r"^fit: expected finite numbers in input 0 of data, got 1e\+300 at \[5, 1\], beyond "
        r"float32\. Leave that example out, or fill the gap: np\.nan_to_num\(x\)\.$",
    ),
    "an integer beyond": (
        (X, np.where(np.arange(70) == 5, 2**32 + 1, Y)),
        r"^fit: expected integers from -2147483648 to 2147483647 in the target of data, got "
        r"4294967297 at \[5\]\. Number what they name from 0, or make them floating: "
        r"x\.astype\(np\.float32\)\.$",
    ),
    "an input beyond": (
        (np.full((70, 2), -(2**40)), Y),
        r"fit: expected integers from .* in input 0 of data, got -1099511627776 at \[0, 0\]\.",
    ),
    "unsigned beyond": (
        (X, Y.astype(np.uint64) + 2**63),
        r"fit: expected integers from 0 to 4294967295 in the target of data, got 92233720368547758",
    ),
    "masked": (
        (np.ma.masked_array(X, X > 2), Y),
        r"^fit: expected no hidden entries in input 0 of data, got a masked array\. Fill them, "
        r"x\.filled\(0\), or leave those examples out\.$",
    ),
    "ragged": (
        ([[1.0, 2.0], [3.0]], [0, 1]),
        r"^fit: expected examples of one shape in input 0 of data, got lists of many lengths\. "
        r"Give each example the same shape: cut the longer ones, or fill the shorter ones up\.$",
    ),
    "numbers alone": (
        (3.0, 1),
        r"^fit: expected arrays whose first axis counts the examples, got shape \(\) and shape "
        r"\(\)\. A single number is an array of one: np\.array\(\[x\]\)\.$",
    ),
    "no columns": (
        (X[:, :0], Y),
        r"^fit: expected no axis of length 0 in input 0 of data, got shape \(70, 0\)\. Give each "
        r"example a number\.$",
    ),
    "objects": (
        (X.astype(object), Y),
        r"fit: expected numbers in input 0 of data, got dtype object\. Convert them: x\.astype",
    ),
    "empty": ((X[:0], Y[:0]), r"fit: expected at least one example, got none\. Bring data"),
    "small": (
        (X[:9], Y[:9]),
        r"fit: expected at least one batch of 16 examples, got 9\. Give batch=9",
    ),
    "lengths": (
        (X, Y[:-1]),
        r"fit: expected inputs and targets of one length, got 70 and 69\. Give",
    ),
    "labels": (
        (X, Y + 1),
        r"fit: expected labels from 0 to 1, one for each output .*, got labels from 1",
    ),
    "negative": (
        (X, Y - 1),
        r"fit: expected labels from 0 to 1, .*, got labels from -1 to 0\. Number",
    ),
    "text": (
        (X, np.array(["a"] * 70)),
        r"fit: expected numbers in the target of data, got dtype <U1",
    ),
    "one array": (
        X,
        r"fit: expected data as a tuple of arrays, the inputs .*, got float32 of shape \(16, 3\)\. "
        r"Give \(x, y\), or examples that are such pairs\.$",
    ),
    "no target": (
        (X,),
        r"fit: expected data as a tuple of arrays, .*, got a tuple of 1\. Give \(x, y\)",
    ),
    "batches that are over": (
        ((X, Y) for _ in range(0)),
        r"^fit: expected at least one batch in data, got none\. Bring data to learn from\.$",
    ),
    "batches by name": (
        {"x": X, "y": Y},
        r"fit: expected data as a tuple of arrays, .*, got a dict of 2\. Give \(x, y\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_data_that_cannot_be_learned_from(case):
    data, message = REFUSED[case]
    with pytest.raises((ValueError, TypeError), match=message):
        run(data, epochs=1, **QUIET)


def test_bad_validation_is_refused_before_the_first_step():
    for data, message in ((NAN, Y), "input 0 of validation"), ((X, Y + 5), "labels from 5 to 6"):
        with pytest.raises(ValueError, match=message):
            run((X, Y), data, epochs=1, **QUIET)
    with pytest.raises(ValueError, match=r"dense: expected "):
        run((X, Y), (X[:, :2], Y), epochs=1, **QUIET)
    with pytest.raises(
        ValueError, match=r"fit: expected as many arrays in validation as in data, 2"
    ):
        run((X, Y), (X, X, Y), epochs=1, **QUIET)


def test_a_whole_data_set_is_taken_apart_by_the_caller():
    with pytest.raises(
        TypeError, match=r"got a whole Data\. Call fit\(net, .*, data\.train, valid"
    ):
        run(load_data("iris"), epochs=1)


SETTINGS = {
    "epochs": (
        0,
        r"fit: expected epochs to be a whole number, 1 or above, got 0\. Write epochs=16",
    ),
    "batch": (2.5, r"fit: expected batch to be a whole number, 1 or above, got 2\.5\."),
    "seed": (
        -1,
        r"fit: expected seed to be a whole number, 0 to 4294967295, got -1\. Leave seed out",
    ),
    "patience": (3, r"fit: expected validation data beside patience, got none\. Give validation"),
}


@pytest.mark.parametrize("name", ["epochs", "batch", "seed"])
@pytest.mark.parametrize("value", [None, "1", 1.0, np.nan])
def test_settings_are_whole_numbers(name, value):
    with pytest.raises(ValueError, match=rf"fit: expected {name} to be a whole number, .*, got "):
        run((X, Y), **{"epochs": 1, "progress": False, name: value})


def test_on_epoch_is_a_function_from_the_start():
    message = (
        r"^fit: expected on_epoch to be a function of the row and the state, got 'print'\. Write "
        r"on_epoch=lambda row, state: print\(row\)\.$"
    )
    with pytest.raises(TypeError, match=message):
        run((X, Y), epochs=1, on_epoch="print", **QUIET)


def test_integers_that_fit_keep_their_value():
    for kind in (np.int64, np.uint64, np.uint8, np.int8, bool):
        parts = arrays_of("data", ((X > 0).astype(kind), Y.astype(kind)))
        for part, before in zip(parts, (X > 0, Y), strict=True):
            np.testing.assert_array_equal(part, before)
    edges = np.array([-(2**31), 2**31 - 1])
    assert arrays_of("data", (edges, edges))[0].tolist() == edges.tolist()


@pytest.mark.parametrize("batch", [0, -1, 2.5, None])
def test_evaluate_takes_a_batch_of_one_or_more(batch):
    state = make_step(NET, nll, optax.sgd(0.1)).init(jax.random.key(0), X)
    message = r"^evaluate: expected batch to be a whole number, 1 or above, got .*\. Leave it out"
    with pytest.raises(ValueError, match=message):
        evaluate(NET, nll, state, (X, Y), batch=batch)


@pytest.mark.parametrize("name", SETTINGS)
def test_bad_settings(name):
    value, message = SETTINGS[name]
    with pytest.raises(ValueError, match=message):
        run((X, Y), **{"epochs": 1, "progress": False, name: value})


def test_a_seed_has_32_bits():
    message = (
        r"^fit: expected seed to be a whole number, 0 to 4294967295, got 4294967296\. "
        r"Leave seed out, or choose another\.$"
    )
    with pytest.raises(ValueError, match=message):
        run((X, Y), epochs=1, seed=2**32, **QUIET)
    assert run((X, Y), epochs=1, seed=2**32 - 1, **QUIET).stopped is None


def test_settings_may_be_integers_of_numpy():
    whole = {"epochs": np.int64(2), "batch": np.int32(16), "seed": np.uint8(7)}
    one = run((X, Y), progress=False, **whole)
    assert_same(one.state, run((X, Y), epochs=2, seed=7, **QUIET).state)


@pytest.mark.parametrize("name", ["epoch", "step", "seconds", "examples_per_second", "val_loss"])
def test_a_metric_takes_no_column_of_the_history(name):
    message = (
        r"^fit: expected metrics of other names than epoch, step, seconds, examples_per_second, "
        rf"skipped, learning_rate and val_\.\.\., got '{name}'\. The history has columns of "
        r"those names; choose another\.$"
    )
    with pytest.raises(ValueError, match=message):
        run((X, Y), epochs=1, metrics={name: accuracy}, **QUIET)


def test_negative_labels_that_the_criterion_leaves_out():
    def ignoring(logits, labels):
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)[:, 0]
        return -jnp.where(labels >= 0, picked, 0).sum() / (labels >= 0).sum()

    labels = Y.copy()
    labels[:5] = -100
    assert run((X, labels), criterion=ignoring, epochs=1, **QUIET).stopped is None


def test_integers_that_are_no_labels():
    def error(output, target):
        return ((output - target) ** 2).mean()

    counts = RNG.integers(0, 50, (70, 2))
    assert run((X, counts), criterion=error, epochs=1, **QUIET).stopped is None
    one = serial(Dense(1))
    assert run((X, counts[:, 0]), criterion=error, net=one, epochs=1, **QUIET).stopped is None


def test_plain_lines_where_there_is_no_terminal(capsys, monkeypatch):
    run((X, Y), HELD, epochs=3, batch=16)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("epoch 1/3, loss ")
    assert "(validation " in last
    assert last.endswith("examples/s")
    assert last.startswith("epoch 3/3, loss ")
    monkeypatch.setattr(progress, "LINE_EVERY", 0)
    run((X, Y), epochs=3, batch=16)
    assert len(capsys.readouterr().err.splitlines()) == 3
    run((X, Y), epochs=3, batch=16, progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_live_line_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    run((X, Y), HELD, epochs=2, batch=16)
    assert "epoch 2/2, loss " in capsys.readouterr().err
    original = builtins.__import__

    def refuse(name, *rest, **more):
        if name.startswith("rich"):
            raise ImportError(name)
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    run((X, Y), epochs=2, batch=16)
    assert capsys.readouterr().err.splitlines()[-1].startswith("epoch 2/2, loss ")


def test_the_time_left_is_that_of_the_epochs_to_come(monkeypatch):
    clock = iter([0.0, 30.0, 60.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    shown = []
    monkeypatch.setattr(progress, "_rich_bar", lambda: None)
    monkeypatch.setattr(
        progress, "_lines", lambda epochs, text: lambda *a: shown.append(text(*a[:2]))
    )
    with progress.progress_line(10, True) as show:
        for done in (1, 2, 3):
            show(done, {"loss": 1.0}, True)
    assert shown == [
        "epoch 1/10, loss 1.00",
        "epoch 2/10, loss 1.00, 4:00 left",
        "epoch 3/10, loss 1.00, 3:30 left",
    ]
