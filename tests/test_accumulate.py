"""A batch in micro-batches: the step is that of the whole batch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnet as fn
from funcnet.train.accumulate import accumulated
from funcnet.train.loss import Objective
from funcnet.train.state import TrainState, bits

R = np.random.default_rng(0)
N = 13
X, LABELS = R.normal(size=(N, 5)).astype(np.float32), R.integers(0, 3, N)
NUMBERS = R.normal(size=(N, 3)).astype(np.float32)
SIGNS, SHARES = np.sign(NUMBERS), R.dirichlet(np.ones(3), N).astype(np.float32)
MASK = np.arange(N) % 3 != 0
TABLE = R.normal(size=(3, 7)).astype(np.float32)
WORDS = np.stack([np.full(N, 1), np.full(N, 2)], axis=1)
WORD_LENGTHS = np.arange(N) % 3
MLP = fn.serial(fn.Dense(8), fn.tanh, head=fn.Dense(3))


def of_mask(op, *options, **more):
    return lambda output, target: op(output, target[0], *options, target[1], **more)


def of_cosine(output, target):
    return fn.cosine_embedding(output, target[0], target[1][:, 0])


def of_frames(output, target):
    """Six frames from each example's numbers."""
    frames = output[:, None] * jnp.arange(1.0, 7.0)[:, None]
    return fn.ctc_loss(frames, None, target[0], target[1])


def softmaxed(op):
    return lambda output, target: op(jax.nn.softmax(output), target)


LOSSES = {
    "cross_entropy": (fn.cross_entropy, LABELS),
    "ignored": (functools.partial(fn.cross_entropy, ignore_index=1), LABELS),
    "weighted": (lambda z, y: fn.cross_entropy(z, y, jnp.array([0.2, 1.0, 3.0])), LABELS),
    "masked": (of_mask(fn.cross_entropy, None), (LABELS, MASK)),
    "soft": (fn.cross_entropy, SHARES),
    "summed": (functools.partial(fn.cross_entropy, reduction="sum"), LABELS),
    "nll": (lambda z, y: fn.nll(fn.log_softmax(z), y, ignore_index=0), LABELS),
    "multi_margin": (fn.multi_margin, LABELS),
    "squared_error": (fn.squared_error, NUMBERS),
    "squared_error, masked": (of_mask(fn.squared_error), (NUMBERS, NUMBERS > 0.5)),
    "absolute_error": (fn.absolute_error, NUMBERS),
    "huber": (fn.huber, NUMBERS),
    "smooth_l1": (fn.smooth_l1, NUMBERS),
    "hinge": (fn.hinge, SIGNS),
    "binary_cross_entropy": (fn.binary_cross_entropy, SHARES),
    "sigmoid_focal": (fn.sigmoid_focal, SHARES),
    "bernoulli_nll": (softmaxed(fn.bernoulli_nll), SHARES),
    "soft_dice": (softmaxed(fn.soft_dice), SHARES),
    "kl_divergence": (lambda z, p: fn.kl_divergence(fn.log_softmax(z), p), SHARES),
    "gaussian_kl": (lambda z, t: fn.gaussian_kl(z, t), NUMBERS),
    "gaussian_nll": (lambda z, t: fn.gaussian_nll(z, z * 0.1, t), NUMBERS),
    "poisson_nll": (fn.poisson_nll, np.abs(NUMBERS)),
    "cosine_embedding": (of_cosine, (NUMBERS, SIGNS)),
    "cosine_similarity": (lambda z, t: 1 - fn.cosine_similarity(z, t).mean(), NUMBERS),
    "linear_cross_entropy": (lambda z, y: fn.linear_cross_entropy(z, TABLE, y), LABELS),
    "ctc_loss": (of_frames, (WORDS, WORD_LENGTHS)),
    "margin_ranking": (lambda z, t: fn.margin_ranking(z[:, 0], z[:, 1], t[:, 0]), SIGNS),
    "triplet_margin": (lambda z, t: fn.triplet_margin(z, t, t[:, ::-1]), NUMBERS),
    "info_nce": (functools.partial(fn.info_nce, temperature=0.5), NUMBERS),
    "info_nce, masked": (of_mask(fn.info_nce, temperature=0.5), (NUMBERS, MASK)),
    "nt_xent": (functools.partial(fn.nt_xent, temperature=0.5), NUMBERS),
    "r_squared": (lambda z, t: -fn.r_squared(z, t), NUMBERS),
    "a Mean": (lambda z, t: fn.Mean(((z**2).sum(-1) * t).sum(), t.sum()), MASK.astype(np.float32)),
    "a Mean over what the output says": (
        lambda z, t: fn.Mean((z**2 * t).sum(), jax.nn.sigmoid(z).sum()),
        NUMBERS,
    ),
    "a function of a mean": (lambda z, y: jnp.square(fn.cross_entropy(z, y)), LABELS),
    "with figures": (lambda z, y: (fn.cross_entropy(z, y), {"size": (z**2).mean()}), LABELS),
}


def started(net, inputs, dtype=np.float32):
    params, state = net.init(jax.random.key(0), *inputs)
    params = jax.tree.map(lambda p: p.astype(dtype), params)
    return TrainState(jnp.zeros((), jnp.int32), params, state, (), bits(jax.random.key(1)))


def stepped(net, criterion, batch, accumulate, metrics=None, dtype=np.float32):
    """New parameters of gradient descent, the state, and the values."""
    objective = Objective.of(net, criterion, metrics)
    carry = started(net, batch[:-1], dtype)

    def step(carry):
        if accumulate == 1:
            loss = objective.in_training(carry, batch)
            output, grads = jax.value_and_grad(loss, has_aux=True)(carry.params)
        else:
            output, grads = accumulated(objective, accumulate, carry, batch)[1](carry.params)
        value, (figures, state) = output
        params = jax.tree.map(lambda p, g: p - 0.1 * g, carry.params, grads)
        return params, state, value, {name: figure.value for name, figure in figures.items()}

    return jax.jit(step)(carry)


def distance(ours, theirs):
    """The largest difference, relative to the largest number of each array."""
    pairs = zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)
    pairs = [(np.asarray(a, float), np.asarray(b, float)) for a, b in pairs]
    return max(np.abs(a - b).max() / max(np.abs(b).max(), 1e-2) for a, b in pairs)


def usual(name):
    telling = name in ("ignored", "info_nce, masked")
    return pytest.param(name, marks=[] if telling else pytest.mark.long)


@pytest.mark.parametrize("name", [usual(name) for name in LOSSES])
def test_micro_batches_take_the_step_of_the_whole_batch(name):
    criterion, target = LOSSES[name]
    metrics = {"r2": lambda z, t: fn.r_squared(z, z[::-1])} if name == "summed" else None
    whole = stepped(MLP, criterion, (X, target), 1, metrics)
    assert distance(stepped(MLP, criterion, (X, target), 4, metrics), whole) < 1e-6


@pytest.mark.long
@pytest.mark.parametrize("name", LOSSES)
def test_however_many_micro_batches_there_are(name):
    criterion, target = LOSSES[name]
    for n in (8, N):
        batch = jax.tree.map(lambda a, n=n: a[:n], (X, target))
        whole = stepped(MLP, criterion, batch, 1)
        for accumulate in (2, 8):
            assert distance(stepped(MLP, criterion, batch, accumulate), whole) < 1e-6


def test_every_loss_has_a_row():
    chapter = {
        rule.name
        for rule in fn.RULES.values()
        if rule.primal.__module__.startswith("funcnet.ops.losses")
    }
    told = {name.split(",")[0] for name in LOSSES}
    assert chapter - told == set()


@pytest.mark.long
def test_a_part_in_which_nothing_counts_is_no_poison():
    labels = np.where(np.arange(N) < 8, -1, LABELS)
    criterion = functools.partial(fn.cross_entropy, ignore_index=-1)
    for target in (labels, np.full(N, -1)):
        whole = stepped(MLP, criterion, (X, target), 1)
        found = stepped(MLP, criterion, (X, target), 4)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
        assert distance(found, whole) < 1e-6


@pytest.mark.long
def test_what_a_mean_of_means_loses():
    """Tokens that count are 1 of 24 in one micro-batch and 23 in the other."""
    random = np.random.default_rng(1)
    x, y = random.normal(size=(2, 24, 5)).astype(np.float32), random.integers(0, 3, (2, 24))
    y[0, 1:], y[1, :1] = -1, -1
    criterion = functools.partial(fn.cross_entropy, ignore_index=-1)
    whole, ours = (
        fn.make_step(MLP, criterion, optax.sgd(1.0), accumulate=k, clip=None) for k in (1, 2)
    )
    theirs = fn.make_step(MLP, criterion, optax.MultiSteps(optax.sgd(1.0), 2))
    key = jax.random.key(0)
    expected, _ = whole.update(whole.init(key, x), (x, y))
    found, _ = ours.update(ours.init(key, x), (x, y))
    state = theirs.init(key, x)
    for i in (0, 1):
        state, _ = theirs.update(state, (x[i : i + 1], y[i : i + 1]))
    assert distance(found.params, expected.params) < 1e-6
    assert distance(state.params, expected.params) > 0.05


NORMED = fn.serial(
    fn.Dense(8), fn.BatchNorm(), fn.relu, mid=fn.serial(fn.Dense(8), fn.BatchNorm(scale=False)),
    last=fn.serial(fn.relu, fn.BatchNorm(shift=False), head=fn.Dense(3)),
)  # fmt: skip


@pytest.mark.parametrize(("accumulate", "n"), [pytest.param(2, 12, marks=pytest.mark.long), (4, N)])
def test_batch_norm_sees_the_whole_batch(accumulate, n):
    batch = X[:n], LABELS[:n]
    whole = stepped(NORMED, fn.cross_entropy, batch, 1, {"accuracy": fn.accuracy})
    found = stepped(NORMED, fn.cross_entropy, batch, accumulate, {"accuracy": fn.accuracy})
    assert distance(found, whole) < 1e-6


def masked_norm(net, x, where):
    return net.head(net.norm(net.dense(x), where[..., None]).sum(1))


@pytest.mark.long
def test_batch_norm_with_a_mask_and_in_a_checkpoint():
    net = fn.network(dense=fn.Dense(4, bias=False), norm=fn.BatchNorm(), head=fn.Dense(3))(
        masked_norm
    )
    x, where = R.normal(size=(N, 6, 5)).astype(np.float32), R.random((N, 6)) < 0.7
    batch = x, where, LABELS
    for accumulate in (2, 4):
        whole = stepped(net, fn.cross_entropy, batch, 1)
        assert distance(stepped(net, fn.cross_entropy, batch, accumulate)[0], whole[0]) < 1e-6
    again = fn.serial(fn.remat(fn.serial(fn.Dense(8), fn.BatchNorm(), fn.relu)), head=fn.Dense(3))
    whole = stepped(again, fn.cross_entropy, (X, LABELS), 1)
    assert distance(stepped(again, fn.cross_entropy, (X, LABELS), 4), whole) < 1e-6


def test_a_batch_norm_that_cannot_be_taken_apart_is_named():
    block = fn.residual(fn.serial(fn.Dense(5), fn.BatchNorm()))
    net = fn.serial(fn.repeat(block, 2), head=fn.Dense(3))
    message = r"^make_step: expected with accumulate, each batch norm by itself .* inside scan\. W"
    with pytest.raises(ValueError, match=message):
        stepped(net, fn.cross_entropy, (X, LABELS), 4)


@pytest.mark.long
def test_resnet_20_in_micro_batches_to_the_digits_of_float64(x64):
    net = fn.nets.ResNet(20, 10)
    x, y = R.normal(size=(6, 16, 16, 3)), R.integers(0, 10, 6)
    whole = stepped(net, fn.cross_entropy, (x, y), 1, dtype=np.float64)
    for accumulate in (2, 4):
        found = stepped(net, fn.cross_entropy, (x, y), accumulate, dtype=np.float64)
        assert distance(found[:2], whole[:2]) < 1e-11


@pytest.mark.long
def test_gpt_with_masked_tokens():
    net = fn.nets.GPT(17, width=16, depth=2, heads=2, length=12, logits=False)
    tokens = R.integers(0, 17, (8, 13))
    labels = np.where(np.arange(12) < R.integers(1, 12, 8)[:, None], tokens[:, 1:], -1)
    criterion = functools.partial(fn.nets.lm_loss, ignore_index=-1)
    whole = stepped(net, criterion, (tokens[:, :-1], labels), 1)
    for accumulate in (2, 4, 8):
        found = stepped(net, criterion, (tokens[:, :-1], labels), accumulate)
        assert distance(found, whole) < 2e-6


@pytest.mark.long
def test_an_average_that_is_kept_moves_once():
    net = fn.serial(fn.InstanceNorm(track_running_stats=True), fn.Flatten(), head=fn.Dense(3))
    x = R.normal(size=(N, 4, 5)).astype(np.float32)
    whole = stepped(net, fn.cross_entropy, (x, LABELS), 1)
    assert distance(stepped(net, fn.cross_entropy, (x, LABELS), 4), whole) < 1e-6


def test_each_micro_batch_draws_for_itself():
    net = fn.serial(fn.Dropout(0.5), pick=fn.pure(lambda x: x[:, :3]))
    x = jnp.ones((4, 64))
    carry = started(net, (x,))
    outputs = []
    rows = Objective.of(net, lambda z, t: (z.sum(), {f"row {i}": z[i].sum() for i in range(4)}), {})
    for accumulate in (2, 4):
        figures = accumulated(rows, accumulate, carry, (x, jnp.zeros(4)))[0](carry.params)[1][0]
        outputs.append([float(f.value) for f in figures.values()])
    assert outputs[0] != outputs[1]


def test_bad_batches_are_one_sentence():
    message = r"^make_step: expected a batch whose arrays have the examples along the first axis, "
    with pytest.raises(ValueError, match=message + r"with accumulate, got \[1\] of \(12,\)\. Give"):
        stepped(MLP, fn.cross_entropy, (X, LABELS[:12]), 2)
    for wrong in (0, 1.5, True, "4"):
        with pytest.raises(ValueError, match=r"^make_step: expected accumulate to be a whole num"):
            fn.make_step(MLP, fn.cross_entropy, optax.sgd(0.1), accumulate=wrong)
    turned = fn.serial(fn.Dense(3), turn=fn.pure(lambda x: x.T))
    message = r"^make_step: expected with accumulate, outputs of the network with the examples alo"
    with pytest.raises(ValueError, match=message):
        stepped(turned, lambda z, t: (z.T - t).sum(), (X, NUMBERS), 2)
