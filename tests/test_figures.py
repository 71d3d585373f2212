"""Figures of many batches are those of all examples together, whatever a batch's mean is over."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnet as fn
from funcnet.figures import Figure, heard

RNG = np.random.default_rng(0)
NET = fn.serial(fn.Dense(5))
X = RNG.normal(size=(600, 6, 3)).astype(np.float32)
LABELS = np.argmax(X @ RNG.normal(size=(3, 5)), -1)
# The full sequences come first, so that batches in order are over very different numbers.
LABELS[256:, 1:] = -1
LABELS[:64] = (LABELS[:64] + 1) % 5
NUMBERS = np.sort(RNG.normal(5, 2, (600, 6, 5)).astype(np.float32), 0)
QUIET = {"batch": 50, "progress": False}


def by_hand(logits, labels):
    counts = labels >= 0
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.abs(labels)[..., None], -1)[..., 0]
    return fn.Mean(-jnp.where(counts, picked, 0).sum(), counts.sum())


def tokens(output, labels, **options):
    """`lm_loss` of these logits: the features are the logits, the table is the identity."""
    return fn.nets.lm_loss((output, jnp.eye(5)), labels, **options)


CLASS_WEIGHTS = jnp.array([0.1, 5.0, 1.0, 2.0, 0.5])
OF_LABELS = {
    "partial": functools.partial(fn.cross_entropy, ignore_index=-1),
    "lambda": lambda z, y: fn.cross_entropy(z, y, ignore_index=-1, label_smoothing=0.1),
    "where": lambda z, y: fn.cross_entropy(z, jnp.maximum(y, 0), where=y >= 0),
    "class weights": lambda z, y: fn.cross_entropy(z, y, CLASS_WEIGHTS, ignore_index=-1),
    "nll": lambda z, y: fn.nll(fn.log_softmax(z), y, ignore_index=-1),
    "linear": functools.partial(tokens, ignore_index=-1),
    "a Mean": by_hand,
}
OF_NUMBERS = {
    name: lambda o, t, f=getattr(fn, name): f(o, t, t > 4)
    for name in ("squared_error", "absolute_error", "huber", "smooth_l1")
} | {
    "binary": lambda o, t: fn.binary_cross_entropy(o, fn.sigmoid(t), t > 4),
    "bernoulli": lambda o, t: fn.bernoulli_nll(fn.sigmoid(o), fn.sigmoid(t), t > 4),
    "hinge": lambda o, t: fn.hinge(o, fn.tanh(t), t > 4),
    "ranking": lambda o, t: fn.margin_ranking(o, t, fn.tanh(t), t > 4),
    "triplet": lambda o, t: fn.triplet_margin(o, t, t / 2, t[..., 0] > 4),
    "dice": lambda o, t: fn.soft_dice(fn.sigmoid(o), fn.sigmoid(t), t[..., 0] > 4),
    "poisson": lambda o, t: fn.poisson_nll(o, abs(t), t > 4),
    "focal": lambda o, t: fn.sigmoid_focal(o, fn.sigmoid(t), t > 4),
    "gaussian": lambda o, t: fn.gaussian_nll(o, o / 9, t, t > 4),
    "gaussian_kl": lambda o, t: fn.gaussian_kl(o, t, t[..., 0] > 4),
    "kl": lambda o, t: fn.kl_divergence(fn.log_softmax(o), fn.softmax(t), t[..., 0] > 4),
}
METRICS = {
    "accuracy": functools.partial(fn.accuracy, ignore_index=-1),
    "right": lambda z, y: fn.Mean(((z.argmax(-1) == y) & (y >= 0)).sum(), (y >= 0).sum()),
}


def value(f, output, target):
    found = f(output, target)
    return float(found.value if isinstance(found, Figure) else found)


def still(criterion, target, **options):
    """What an epoch says of parameters that do not move: training and validation alike."""
    fitted = fn.fit(
        NET, criterion, optax.sgd(0.0), (X, target), epochs=1, validation=(X, target), **QUIET,
        **options,
    )  # fmt: skip
    return fitted.history.rows[0], NET(fitted.state.params, X)


USUAL = ["class weights", "where", "nll", "squared_error"]
"""What the usual form averages: the other losses go the same way."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow, pytest.mark.long] * (name not in USUAL))
        for name in OF_LABELS | OF_NUMBERS
    ],
)
def test_a_loss_over_what_counts(name):
    criterion = (OF_LABELS | OF_NUMBERS)[name]
    target = LABELS if name in OF_LABELS else NUMBERS
    row, output = still(criterion, target)
    criterion = jax.jit(criterion)
    truth = value(criterion, output, target)
    assert row["val_loss"] == pytest.approx(truth, rel=1e-5)
    assert row["loss"] == pytest.approx(truth, rel=1e-5)
    batches = zip(np.split(np.asarray(output), 12), np.split(target, 12), strict=True)
    parts = [value(criterion, *batch) for batch in batches]
    assert abs(np.mean(parts) / truth - 1) > 0.005, "a mean of the batches' means is another number"


def test_metrics_over_what_counts():
    row, output = still(OF_LABELS["partial"], LABELS, metrics=METRICS)
    truth = float(np.mean((np.argmax(output, -1) == LABELS)[LABELS >= 0]))
    for name in METRICS:
        assert row[name] == pytest.approx(truth, rel=1e-6)
        assert row[f"val_{name}"] == pytest.approx(truth, rel=1e-6)


@pytest.mark.long
def test_r_squared_of_a_sorted_set():
    row, output = still(fn.squared_error, NUMBERS, metrics={"r2": fn.r_squared})
    d, spread = NUMBERS - output, NUMBERS - NUMBERS.mean(0)
    d = np.asarray(d)
    truth = 1 - np.sum(d.astype(float) ** 2) / np.sum(spread.astype(float) ** 2)
    assert row["val_r2"] == pytest.approx(truth, rel=1e-5)
    assert row["r2"] == pytest.approx(truth, rel=1e-5)
    wrapped, _ = still(fn.squared_error, NUMBERS, metrics={"r2": lambda o, t: fn.r_squared(o, t)})
    assert wrapped["val_r2"] == row["val_r2"]


def test_r_squared_of_large_numbers_with_a_small_spread():
    target = (2000 + NUMBERS[..., :1] / 10).astype(np.float32)
    net = fn.pure(lambda x: jnp.full((*x.shape[:-1], 1), 2000.4, jnp.float32))
    state = fn.make_step(net, fn.squared_error, optax.identity()).init(jax.random.key(0), X)
    found = fn.evaluate(net, fn.r_squared, state, (X, target), batch=7)["loss"]
    wide = target.astype(float)
    truth = 1 - np.sum((wide - np.float32(2000.4)) ** 2) / np.sum((wide - wide.mean(0)) ** 2)
    assert found == pytest.approx(truth, rel=1e-3)


def test_r_squared_of_a_target_that_does_not_vary_is_0_over_many_batches_too():
    x, target = X[:60], np.full((60, 1), 0.1, np.float32)
    net = fn.pure(lambda x: x[:, 0, :1])
    state = fn.make_step(net, fn.squared_error, optax.identity()).init(jax.random.key(0), x)
    assert fn.evaluate(net, fn.r_squared, state, (x, target), batch=7)["loss"] == 0


def test_patience_goes_by_the_figure_of_the_whole_set():
    criterion = OF_LABELS["partial"]
    kept = {"epochs": 6, "validation": (X, LABELS), "patience": 3, **QUIET}
    fitted = fn.fit(NET, criterion, optax.adam(0.05), (X, LABELS), **kept)
    truth = value(criterion, NET(fitted.state.params, X), LABELS)
    assert min(fitted.history.column("val_loss")) == pytest.approx(truth, rel=1e-5)


def test_evaluate_is_what_validation_says():
    criterion = OF_LABELS["partial"]
    options = {"validation": (X, LABELS), "metrics": METRICS}
    fitted = fn.fit(NET, criterion, optax.adam(0.05), (X, LABELS), epochs=1, **options, **QUIET)
    found = fn.evaluate(NET, criterion, fitted.state, (X, LABELS), metrics=METRICS, batch=37)
    row = fitted.history.rows[-1]
    assert list(found) == ["loss", "accuracy", "right"]
    for name, figure in found.items():
        assert figure == pytest.approx(row[f"val_{name}"], rel=1e-6)
    with pytest.raises(TypeError, match=r"evaluate: expected a state of training, got dict\. Pass"):
        fn.evaluate(NET, criterion, fitted.state.params, (X, LABELS))
    with pytest.raises(ValueError, match=r"^evaluate: expected finite numbers in input 0 of data"):
        fn.evaluate(NET, criterion, fitted.state, (X * np.nan, LABELS))


def test_a_batch_in_which_nothing_counts_is_no_fault_but_a_set_is():
    criterion = OF_LABELS["partial"]
    labels = LABELS.copy()
    labels[:100] = -1
    row, output = still(criterion, labels)
    assert row["val_loss"] == pytest.approx(value(criterion, output, labels), rel=1e-5)
    message = (
        r"^fit: expected something that counts for the loss in 600 examples of (data|validation), "
        r"got nothing\. Look at what the mask or the labels leave out\.$"
    )
    with pytest.raises(ValueError, match=message):
        still(criterion, np.full_like(labels, -1))


def test_a_criterion_may_bring_figures():
    def criterion(output, target):
        error = fn.squared_error(output, target)
        figures = {
            "bias": jnp.mean(output - target),
            "large": fn.Mean(target.sum(where=target > 1), (target > 1).sum()),
        }
        return error, figures

    first = (X[:50], NUMBERS[:50])
    fitted = fn.fit(
        NET, criterion, optax.sgd(0.0), first, epochs=1, batch=25, progress=False, validation=first,
        metrics={"r2": fn.r_squared},
    )  # fmt: skip
    row, output = fitted.history.rows[0], NET(fitted.state.params, X[:50])
    assert row["val_bias"] == pytest.approx(float(jnp.mean(output - NUMBERS[:50])), rel=1e-5)
    assert {"loss", "r2", "bias", "large", "val_large"} <= set(row)
    step = fn.make_step(NET, criterion, optax.sgd(0.1))
    _, values = step.update(step.init(jax.random.key(0), X[:50]), first)
    assert sorted(values) == ["bias", "large", "loss"]
    assert all(jnp.shape(x) == () for x in values.values())


def test_the_gradient_is_that_of_the_mean():
    batch = (X[200:300], LABELS[200:300])
    stepped = []
    for criterion in (by_hand, OF_LABELS["partial"]):
        step = fn.make_step(NET, criterion, optax.sgd(1.0))
        stepped.append(step.update(step.init(jax.random.key(0), X[:1]), batch)[0].params)
    for a, b in zip(*map(jax.tree.leaves, stepped), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_loss_in_bfloat16_loses_no_digits_on_the_way():
    def criterion(output, target):
        return fn.squared_error(output, target).astype(jnp.bfloat16)

    row, output = still(criterion, NUMBERS)
    parts = [float(criterion(*p)) for p in zip(np.split(output, 12), np.split(NUMBERS, 12))]  # noqa: B905
    assert row["loss"] == pytest.approx(np.mean(parts), abs=0.2)
    assert row["val_loss"] == pytest.approx(float(criterion(output, NUMBERS)), rel=0.01)


def test_what_is_noted_is_found_by_the_value_itself():
    z, y = jnp.zeros((2, 5)), jnp.array([1, -1])
    loss, figure = heard(OF_LABELS["partial"], z, y)
    assert (float(figure(loss).total), float(figure(loss).count)) == (float(loss), 1)
    assert figure(loss + 0) is None
    assert heard(fn.squared_error, z, z)[1](1.0) is None
    total, figure = heard(
        lambda z, y: fn.cross_entropy(z, y, reduction="sum"), z, jnp.array([1, 0])
    )
    assert figure(total) is None


def test_means_join():
    parts = [fn.Mean(3.0, 2), fn.Mean(0.0, 0), fn.Mean(5.0, 6)]
    assert functools.reduce(fn.Mean.join, parts).value == 1.0
    assert parts[1].value == 0


Y = jnp.zeros((4, 2))
SAYS = "make_step: expected "
GIVEN = {
    "nothing": (lambda o, t: None, "a scalar from the criterion, got None. Return one number"),
    "text": (lambda o, t: "loss", "a scalar from the criterion, got a str. Return one number"),
    "one per example": (
        lambda o, t: fn.squared_error(o, t, reduction="none"),
        "a scalar from the criterion, got shape (4, 2). Take the mean over the batch: jnp.mean",
    ),
    "a list": (lambda o, t: [o.sum()], "a scalar from the criterion, got a list of 1. Return"),
    "a dict": (lambda o, t: {"loss": o.sum()}, "a scalar from the criterion, got a dict of 1."),
    "three": (
        lambda o, t: (o.sum(), o.sum(), {}),
        "a scalar from the criterion, got a tuple of 3. Return one number",
    ),
    "a sum and a count": (
        lambda o, t: (o.sum(), 8),
        "from the criterion a scalar, a Mean(total, count), or (loss, {name: figure}), got a pair "
        "whose second is an int. Name the figure, as in (loss, {'penalty': penalty}); a mean that "
        "is not over the examples is Mean(total, count).",
    ),
    "an array beside": (
        lambda o, t: (o.sum(), o),
        "from the criterion a scalar, a Mean(total, count), or (loss, {name: figure}), got a pair "
        "whose second is float32 of shape (4, 2). Name the figure",
    ),
    "a figure that is none": (
        lambda o, t: (o.sum(), {"all": o}),
        "a scalar from the criterion's 'all', got shape (4, 2). Take the mean",
    ),
    "a taken name": (
        lambda o, t: (o.sum(), {"seconds": 1.0}),
        "figures of the criterion under other names than loss, epoch, step, seconds, "
        "examples_per_second, skipped, learning_rate and val_..., got 'seconds'. "
        "Choose another name.",
    ),
    "an integer": (
        lambda o, t: (o > 0).sum(),
        "a real floating scalar from the criterion, got int32. Only such a number has a gradient.",
    ),
    "complex": (
        lambda o, t: (o * 1j).sum(),
        "a real floating scalar from the criterion, got complex64. Only such",
    ),
    "a Mean of arrays": (
        lambda o, t: fn.Mean(o.sum(0), 4),
        "a scalar from the criterion, got shape (2,). Take the mean",
    ),
}


@pytest.mark.parametrize("case", GIVEN)
def test_what_a_criterion_may_not_give(case):
    criterion, words = GIVEN[case]
    step = fn.make_step(fn.Dense(2), criterion, optax.sgd(0.1))
    with pytest.raises((ValueError, TypeError)) as caught:
        step.update(step.init(jax.random.key(0), Y), (Y, Y))
    assert str(caught.value).startswith(SAYS + words)


NO_NUMBERS = {
    "complex": (lambda o, t: (o * 1j).sum(), "a real number from the metric 'odd', got complex64."),
    "a complex Mean": (
        lambda o, t: fn.Mean((o * 1j).sum(), 2),
        "a real number from the metric 'od",
    ),
    "half a Mean": (lambda o, t: fn.Mean(None, 2), "a scalar from the metric 'odd', got None. Ret"),
    "a Mean of text": (
        lambda o, t: fn.Mean(o.sum(), "2"),
        "a scalar from the metric 'odd', got a ",
    ),
}


@pytest.mark.parametrize("case", NO_NUMBERS)
def test_a_metric_is_a_real_number(case):
    metric, words = NO_NUMBERS[case]
    step = fn.make_step(fn.Dense(2), fn.squared_error, optax.sgd(0.1), metrics={"odd": metric})
    with pytest.raises(TypeError) as caught:
        step.evaluate(step.init(jax.random.key(0), Y), (Y, Y))
    assert str(caught.value).startswith(SAYS + words)


WRONG_METRICS = {
    "a list": ([fn.accuracy], "metrics as a dict, functions by name, got a list of 1. Write met"),
    "a function": (
        fn.accuracy,
        "metrics as a dict, functions by name, got the function accuracy. Write metrics={'acc",
    ),
    "a name": ("accuracy", "metrics as a dict, functions by name, got 'accuracy'. Write"),
    "a name for a name": (
        {"accuracy": "accuracy"},
        "metrics as a dict, functions by name, got 'accuracy': 'accuracy'. Write",
    ),
    "a number for a name": ({1: fn.accuracy}, "metrics as a dict, functions by name, got 1: the f"),
}


@pytest.mark.parametrize("case", WRONG_METRICS)
def test_metrics_are_functions_by_name(case):
    metrics, words = WRONG_METRICS[case]
    for call in (
        lambda: fn.make_step(NET, fn.squared_error, optax.sgd(0.1), metrics=metrics),
        lambda: fn.fit(
            NET, fn.squared_error, optax.sgd(0.1), (X, NUMBERS), epochs=1, metrics=metrics
        ),
    ):
        with pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value).startswith(SAYS + words)


def test_a_criterion_is_a_function():
    with pytest.raises(
        TypeError, match=r"make_step: expected a criterion .*, got 'mse'\. Pass the"
    ):
        fn.make_step(NET, "mse", optax.sgd(0.1))


ONE = fn.serial(fn.Dense(1))
FLAT, THREE = X[:, 0], np.arange(600) % 3


@pytest.mark.parametrize(
    ("criterion", "words"),
    [
        (lambda o, t: fn.squared_error(o[:, 0], t * 1.0), "accuracy: expected targets from 0 to 1"),
        (lambda o, t: fn.binary_cross_entropy(o[:, 0], t * 1.0), "accuracy: expected targets from"),
    ],
)
def test_accuracy_of_one_logit_refuses_other_labels_than_0_and_1(criterion, words):
    arguments = (ONE, criterion, optax.sgd(0.1), (FLAT, THREE))
    with pytest.raises(ValueError, match=words):
        fn.fit(*arguments, epochs=1, metrics={"accuracy": fn.accuracy}, **QUIET)
    logits = jnp.zeros((3, 1))
    with pytest.raises(ValueError, match=r"one logit, got 2\. Give the network an output for each"):
        fn.accuracy(logits, jnp.array([0, 1, 2]))
    assert jnp.isnan(jax.jit(fn.accuracy)(logits, jnp.array([0, 1, 2])))
    assert jnp.isnan(jax.jit(fn.accuracy)(logits[:, 0], jnp.array([0.0, -1.0, 1.0])))
    assert fn.accuracy(logits, jnp.array([0, 1, 2]), ignore_index=2) == 0.5


@pytest.mark.parametrize("target", [jnp.array([0, 1]), jnp.eye(2)])
def test_logits_that_are_nan_are_never_right(target):
    assert fn.accuracy(jnp.full((2, 2), jnp.nan), target) == 0
    assert fn.accuracy(jnp.array([[jnp.nan, 0.0], [0.0, 1.0]]), target) == 0.5


def test_one_logit_that_is_nan_is_never_right():
    assert fn.accuracy(jnp.array([jnp.nan, jnp.nan, 1.0, -1.0]), jnp.array([0, 1, 1, 0])) == 0.5


def test_a_criterion_of_one_logit_sees_its_labels_before_the_first_step():
    def criterion(output, target):
        return fn.binary_cross_entropy(output[:, 0], target.astype(output.dtype))

    with pytest.raises(ValueError, match=r"binary_cross_entropy: expected targets from 0"):
        fn.fit(ONE, criterion, optax.sgd(0.1), (FLAT, THREE), epochs=1, **QUIET)
    fitted = fn.fit(ONE, criterion, optax.sgd(0.1), (FLAT, THREE % 2), epochs=1, **QUIET)
    assert fitted.stopped is None
