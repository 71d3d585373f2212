"""Recurrent ops, layers and networks, text, auto-encoder and diffusion, against loops in NumPy."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnet as fn
from funcnet.layers import initializers

from .forms import some
from .values import assert_agrees, draw, values_of


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def walk(step, x, states, lengths=None, mask=None, reverse=False):
    """One sequence after another, one step after another: the outputs and the final states."""
    batch, time, _ = x.shape
    outputs = np.zeros((batch, time, states[0].shape[1]))
    final = [state.copy() for state in states]
    for n in range(batch):
        length = time if lengths is None else lengths[n]
        for t in range(length)[:: -1 if reverse else 1]:
            if mask is not None and not mask[n, t]:
                continue
            new = step(x[n, t], *(state[n] for state in final))
            for state, value in zip(final, new, strict=True):
                state[n] = value
            outputs[n, t] = new[0]
    return outputs, *final


def or_zeros(array, *shape):
    return np.zeros(shape) if array is None else array


def lstm_by_hand(
    x, w_in, w_hidden, b=None, h0=None, c0=None, lengths=None, mask=None, w_proj=None, *,
    reverse=False,
):  # fmt: skip
    units = w_hidden.shape[1] // 4
    b = or_zeros(b, 4 * units)

    def step(x, h, c):
        z = x @ w_in + h @ w_hidden + b
        i, f, g, o = (z[k * units : (k + 1) * units] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        m = sigmoid(o) * np.tanh(c)
        return m if w_proj is None else m @ w_proj, c

    states = or_zeros(h0, len(x), len(w_hidden)), or_zeros(c0, len(x), units)
    return walk(step, x, states, lengths, mask, reverse)


def gru_by_hand(
    x, w_in, w_hidden, b=None, b_hn=None, h0=None, lengths=None, mask=None, *,
    reset_after=True, reverse=False,
):  # fmt: skip
    units = len(w_hidden)
    b, b_hn = or_zeros(b, 3 * units), or_zeros(b_hn, units)
    r_gate, z_gate, n_gate = (slice(k * units, (k + 1) * units) for k in range(3))

    def step(x, h):
        a, u = x @ w_in + b, h @ w_hidden
        r, z = sigmoid(a[r_gate] + u[r_gate]), sigmoid(a[z_gate] + u[z_gate])
        part = r * (u[n_gate] + b_hn) if reset_after else (r * h) @ w_hidden[:, n_gate]
        return ((1 - z) * np.tanh(a[n_gate] + part) + z * h,)

    return walk(step, x, [or_zeros(h0, len(x), units)], lengths, mask, reverse)


def elman_by_hand(
    x, w_in, w_hidden, b=None, h0=None, lengths=None, mask=None, *,
    activation="tanh", reverse=False,
):  # fmt: skip
    units = len(w_hidden)
    bend = np.tanh if activation == "tanh" else lambda z: z * (z > 0)

    def step(x, h):
        return (bend(x @ w_in + h @ w_hidden + or_zeros(b, units)),)

    return walk(step, x, [or_zeros(h0, len(x), units)], lengths, mask, reverse)


def weights(gates, biases, states, width=None, batch=2, time=3):
    """Of 2 features and 2 units; with a width there is a projection to it, after w_hidden."""
    shapes = [(batch, time, 2), (2, 2 * gates), (width or 2, 2 * gates)]
    shapes += [(2, width)] * bool(width) + [(2 * n,) for n in biases]
    shapes += [(batch, width or 2), (batch, 2)][:states]
    return [draw(*shape, seed=i) for i, shape in enumerate(shapes)]


LENGTHS = np.array([1, 3])
MASK = np.array([[True, False, True], [False, True, False]])


def calls(given):
    """Each mode once: all arguments, none that can be left out, lengths, from the end, a mask."""
    nothing = [None] * (len(given) - 3)
    return [
        ((*given, None), {}),
        ((*given[:3], *nothing, None), {}),
        ((*given, LENGTHS), {}),
        ((*given, LENGTHS), {"reverse": True}),
        ((*given, None, MASK), {}),
        ((*given, LENGTHS, MASK), {"reverse": True}),
    ]


@values_of(fn.lstm)
def test_lstm_is_the_loop_in_numpy(x64):
    x, w_in, w_hidden, w_proj, *rest = weights(4, (4,), 2, 3)
    given, nothing = (x, w_in, w_hidden, *rest), [None] * 5
    projected = [
        ((*given, None, None, w_proj), {}),
        ((*given[:3], *nothing, w_proj), {}),
        ((*given, LENGTHS, MASK, w_proj), {"reverse": True}),
    ]
    assert_agrees(fn.lstm, lstm_by_hand, [*calls(weights(4, (4,), 2)), *projected])


@values_of(fn.gru)
def test_gru_is_the_loop_in_numpy(x64):
    given = weights(3, (3, 1), 1)
    before = [
        ((*args[:4], None, *args[5:]), {**static, "reset_after": False})
        for args, static in calls(given)
    ]
    assert_agrees(fn.gru, gru_by_hand, [*calls(given), *before])


@values_of(fn.elman)
def test_elman_is_the_loop_in_numpy(x64):
    given = weights(1, (1,), 1)
    assert_agrees(
        fn.elman, elman_by_hand, [*calls(given), ((*given, None), {"activation": "relu"})]
    )


def before(gru):
    """`gru` with the reset gate before the product, of the arguments that it has then."""

    def call(x, w_in, w_hidden, b, h0, lengths=None, mask=None, **options):
        options = {**options, "reset_after": False}
        return gru(x, w_in, w_hidden, b, None, h0, lengths, mask, **options)

    return call


def projected_by(lstm):
    """`lstm` with a projection, which comes after the other weights."""

    def call(x, w_in, w_hidden, w_proj, b, h0, c0, lengths=None, mask=None, **options):
        return lstm(x, w_in, w_hidden, b, h0, c0, lengths, mask, w_proj, **options)

    return call


FORMS = {
    "lstm": (fn.lstm, lambda op: op, (4, (4,), 2)),
    "lstm, projected": (fn.lstm, projected_by, (4, (4,), 2, 3)),
    "gru": (fn.gru, lambda op: op, (3, (3, 1), 1)),
    "gru, reset before": (fn.gru, before, (3, (3,), 1)),
    "elman": (fn.elman, lambda op: op, (1, (1,), 1)),
}
OPS = {name: (form(op), sizes) for name, (op, form, sizes) in FORMS.items()}
"""Each form of each op, as a function of arrays that all have gradients, lengths and mask."""
every_op = pytest.mark.parametrize("name", some(OPS, ("elman", "gru", "lstm")))
either_way = pytest.mark.parametrize(
    "reverse", [False, pytest.param(True, marks=[pytest.mark.slow, pytest.mark.long])]
)


@every_op
@either_way
def test_what_lies_beyond_a_length_may_be_anything(name, reverse, x64):
    op, sizes = OPS[name]
    x, *rest = weights(*sizes)
    junk = x.copy()
    junk[0, 1:] = np.nan

    @jax.jit
    def everything(x):
        def loss(x, *rest):
            outputs, *final = op(x, *rest, LENGTHS, reverse=reverse)
            return (outputs**2).sum() + sum((f**3).sum() for f in final), outputs

        return jax.value_and_grad(loss, argnums=range(len(rest) + 1), has_aux=True)(x, *rest)

    (loss, outputs), gradients = everything(junk)
    jax.tree.map(np.testing.assert_array_equal, ((loss, outputs), gradients), everything(x))
    assert not outputs[0, 1:].any()
    assert not gradients[0][0, 1:].any()


@every_op
def test_pieces_with_the_state_carried_on_are_the_whole(name, x64):
    op, sizes = OPS[name]
    x, *rest = weights(*sizes, time=5)
    parameters, states = rest[: -sizes[2]], rest[-sizes[2] :]

    @jax.jit
    def everything(x, states):
        first, *between = op(x[:, :2], *parameters, *states)
        second, *final = op(x[:, 2:], *parameters, *between)
        return (jnp.concatenate([first, second], 1), *final), op(x, *parameters, *states)

    joined, whole = everything(x, states)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-13), joined, whole)


@every_op
@pytest.mark.parametrize("lengths", some([(11, 7), None]))
def test_many_steps_go_in_blocks(name, lengths, x64):
    op, form, sizes = FORMS[name]
    given = (*weights(*sizes, time=11), None if lengths is None else jnp.array(lengths))
    numbers = range(len(given) - 1)
    primal = functools.partial(op.rule.primal, **op.rule.options({}))

    def loss(f, *given):
        return sum((y**2).sum() for y in f(*given, reverse=lengths is not None))

    ours, plain = (
        jax.jit(jax.value_and_grad(functools.partial(loss, f), argnums=numbers))(*given)
        for f in (form(op), form(primal))
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-10, atol=1e-12), ours, plain)


def innermost(jaxpr):
    """The bodies of the loops that hold no other loop."""
    found = []
    for eqn in jaxpr.eqns:
        inner = [eqn.params["jaxpr"]] if eqn.primitive.name in ("jit", "scan") else []
        for body in inner:
            deeper = innermost(body.jaxpr)
            found += deeper or [body] * (eqn.primitive.name == "scan")
    return found


@every_op
def test_only_the_state_meets_weights_in_the_loop_over_steps(name):
    """Each holds the products with the state, one or two; the others are for many steps each."""
    op, sizes = OPS[name]

    def loss(*arrays):
        return op(*arrays)[0].sum()

    arrays = [jnp.asarray(a, jnp.float32) for a in weights(*sizes)]
    jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=range(len(arrays))))(*arrays).jaxpr
    inside = [str(loop).count("dot_general") for loop in innermost(jaxpr)]
    products = 2 if name in ("lstm, projected", "gru, reset before") else 1
    assert inside == [products, products]
    assert str(jaxpr).count("dot_general") == 3 * products + 3


HOLES = np.array([[0, 1, 1, 0, 1], [1, 0, 0, 1, 0], [0, 0, 0, 0, 0]], bool)


def weighed(outputs, final):
    """A number that depends on each output and each final state in its own way."""
    return (outputs * jnp.cos(jnp.arange(outputs.size)).reshape(outputs.shape)).sum() + sum(
        (jnp.sin(state + 1) * (k + 2)).sum() for k, state in enumerate(final)
    )


@every_op
@either_way
def test_a_masked_sequence_is_that_with_its_holes_cut_out(name, reverse, x64):
    op, sizes = OPS[name]
    x, *rest = weights(*sizes, batch=3, time=5)
    x[~HOLES] = np.nan

    def masked(x, *rest):
        outputs, *final = op(x, *rest, None, HOLES, reverse=reverse)
        return weighed(outputs, final), (outputs, final)

    def cut(x, *rest):
        parameters, states = rest[: -sizes[2]], rest[-sizes[2] :]
        rows, finals = [], []
        for n, mask in enumerate(HOLES):
            own = [state[n : n + 1] for state in states]
            row, *final = op(x[n : n + 1, mask], *parameters, *own, reverse=reverse)
            rows.append(jnp.zeros((5, row.shape[2])).at[mask].set(row[0]))
            finals.append(final)
        outputs, final = jnp.stack(rows), [jnp.concatenate(f) for f in zip(*finals, strict=True)]
        return weighed(outputs, final), (outputs, final)

    numbers = range(len(rest) + 1)
    found, expected = (
        jax.jit(jax.value_and_grad(f, argnums=numbers, has_aux=True))(x, *rest)
        for f in (masked, cut)
    )
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12), found, expected
    )
    (_, (outputs, final)), gradients = found
    assert not outputs[~HOLES].any()
    assert not gradients[0][~HOLES].any()
    for state, first in zip(final, rest[-sizes[2] :], strict=True):
        np.testing.assert_array_equal(state[2], first[2])


@pytest.mark.long
@every_op
@either_way
def test_lengths_are_the_same_as_their_mask(name, reverse, x64):
    op, sizes = OPS[name]
    given = weights(*sizes)
    within = np.arange(3) < LENGTHS[:, None]

    @jax.jit
    def everything(lengths, mask):
        def loss(*given):
            outputs, *final = op(*given, lengths, mask, reverse=reverse)
            return weighed(outputs, final), (outputs, final)

        return jax.value_and_grad(loss, argnums=range(len(given)), has_aux=True)(*given)

    def same(one, other):
        close = functools.partial(np.testing.assert_allclose, rtol=1e-13, atol=1e-15)
        jax.tree.map(close, everything(*one), everything(*other))

    same((LENGTHS, None), (None, within))
    same((LENGTHS, MASK), (None, within & MASK))


def test_recurrence_inside_shard_map():
    """The state starts from an array that is the same on each device, and then differs."""
    mesh = jax.make_mesh((1,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec
    x, w_in, w_hidden = (jnp.asarray(a, jnp.float32) for a in weights(4, (), 0))

    def loss(x, w_in):
        return (fn.lstm(x, w_in, w_hidden)[0] ** 2).sum()[None]

    over_devices = jax.shard_map(loss, mesh=mesh, in_specs=(spec("d"), spec()), out_specs=spec("d"))
    split = jax.jit(jax.grad(lambda w: over_devices(x, w).sum()))(w_in)
    np.testing.assert_allclose(split, jax.grad(lambda w: loss(x, w).sum())(w_in), rtol=1e-5)


# Layers

X = jnp.asarray(draw(2, 4, 3), jnp.float32)


@pytest.mark.parametrize("make", some([fn.LSTM, fn.GRU, fn.RNN], 1))
def test_recurrent_layers_draw_each_gate_by_itself(make, key):
    params, _ = make(5).init(key, X)
    gates = params["w_in"].shape[1] // 5
    for k in range(gates):
        block = params["w_hidden"][:, 5 * k : 5 * (k + 1)]
        np.testing.assert_allclose(block @ block.T, np.eye(5), atol=1e-5)
    bound = math.sqrt(6 / (3 + 5))
    assert bound * 0.5 < float(jnp.abs(params["w_in"]).max()) <= bound
    assert sorted(make(5, bias=False).init(key, X)[0]) == ["w_hidden", "w_in"]


def test_forget_bias_is_drawn_and_no_more(key):
    for options, expected in (({}, 1), ({"forget_bias": 3.0}, 3), ({"forget_bias": 0}, 0)):
        b = fn.LSTM(2, **options).init(key, X)[0]["b"]
        assert b.tolist() == [0, 0, expected, expected, 0, 0, 0, 0]
    pytorchs = {"w_init": initializers.torch_linear(2), "b_init": initializers.torch_linear(2)}
    params, _ = fn.LSTM(2, forget_bias=0, **pytorchs).init(key, X)
    assert 0 < float(jnp.abs(params["b"]).max()) <= 1 / math.sqrt(2)


LAYERS = {
    "lstm": (fn.LSTM, fn.lstm, ("b",)),
    "lstm, projected": (functools.partial(fn.LSTM, proj=2), fn.lstm, ("b", "w_proj")),
    "gru": (fn.GRU, fn.gru, ("b", "b_hn")),
    "gru, reset before": (
        functools.partial(fn.GRU, reset_after=False),
        functools.partial(fn.gru, reset_after=False),
        ("b",),
    ),
    "rnn": (fn.RNN, fn.elman, ("b",)),
}
STEPS = jnp.array([[True, False, True, True], [False, True, True, False]])


@pytest.mark.parametrize("name", some(LAYERS, ("lstm",)))
def test_recurrent_layers_take_lengths_and_a_mask_and_carry_their_state(name, key):
    make, op, others = LAYERS[name]
    net = make(3, return_final=True)
    params, _ = net.init(key, X)
    assert sorted(params) == sorted(("w_in", "w_hidden", *others))
    lengths = jnp.array([4, 2])
    turned = make(3, reverse=True)

    @jax.jit
    def everything(params, X):
        by_op = [op(X, **params, lengths=lengths, mask=mask) for mask in (None, STEPS)]
        first, state = net(params, X[:, :1])
        rest, _ = net(params, X[:, 1:], None, state)
        joined = jnp.concatenate([first, rest], 1)
        flipped = turned(params, X[:, ::-1])[:, ::-1]
        by_layer = [net(params, X, lengths, None, mask) for mask in (None, STEPS)]
        return by_op, by_layer, make(3)(params, X), joined, flipped

    by_op, by_layer, whole, *others = everything(params, X)
    for (outputs, *final), found in zip(by_op, by_layer, strict=True):
        expected = outputs, tuple(final) if len(final) == 2 else final[0]
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert not by_layer[1][0][1, 0].any()
    for same in others:
        np.testing.assert_allclose(same, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_bidirectional_takes_lengths_out_of_range_as_the_nearest(key):
    net = fn.Bidirectional(fn.RNN(3))
    params, _ = net.init(key, X)
    beyond = jax.jit(lambda lengths: net(params, X, lengths))(jnp.array([9, -2]))
    np.testing.assert_allclose(beyond, net(params, X, jnp.array([4, 0])), rtol=1e-5, atol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("make", [fn.LSTM, functools.partial(fn.GRU, reset_after=False), fn.RNN])
def test_both_directions_of_a_masked_sequence_are_those_without_its_holes(make, x64, key):
    net, x = fn.Bidirectional(make(3, return_final=True)), jnp.asarray(draw(3, 5, 2))
    params, _ = net.init(key, x)
    with_holes = jnp.where(HOLES[..., None], x, jnp.nan)

    def whole(params, x):
        return net(params, x, None, None, HOLES)

    def cut(params, x):
        rows, finals = [], []
        for n, mask in enumerate(HOLES):
            row, final = net(params, x[n : n + 1, mask])
            rows.append(jnp.zeros((5, 6)).at[mask].set(row[0]))
            finals.append(final)
        return jnp.stack(rows), jax.tree.map(lambda *parts: jnp.concatenate(parts), *finals)

    def loss(f, params, x):
        outputs, final = f(params, x)
        return weighed(outputs, jax.tree.leaves(final)), (outputs, final)

    found, expected = (
        jax.jit(jax.value_and_grad(functools.partial(loss, f), argnums=(0, 1), has_aux=True))(
            params, with_holes
        )
        for f in (whole, cut)
    )
    close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)
    jax.tree.map(close, found, expected)


def test_a_projection_makes_the_state_narrower_and_leaves_the_other_draws(key):
    params, _ = fn.LSTM(5, proj=2).init(key, X)
    assert jax.tree.map(jnp.shape, params) == {
        "b": (20,),
        "w_hidden": (2, 20),
        "w_in": (3, 20),
        "w_proj": (5, 2),
    }
    without, _ = fn.LSTM(5).init(key, X)
    for name in ("b", "w_in"):
        np.testing.assert_array_equal(params[name], without[name])
    bound = math.sqrt(6 / (5 + 2))
    assert bound * 0.5 < float(jnp.abs(params["w_proj"]).max()) <= bound
    _, (h, c) = fn.LSTM(5, proj=2, return_final=True)(params, X)
    assert (h.shape, c.shape) == ((2, 2), (2, 5))


def test_bidirectional_reads_from_both_ends(key):
    net, one_way = fn.Bidirectional(fn.LSTM(3, return_final=True)), fn.LSTM(3, return_final=True)
    back = fn.LSTM(3, return_final=True, reverse=True)
    params, _ = net.init(key, X)

    @jax.jit
    def everything(params, X):
        cases = []
        for lengths in (None, jnp.array([4, 2])):
            for mask in (None, STEPS):
                steps = X, lengths, None, mask
                two = one_way(params["forward"], *steps), back(params["backward"], *steps)
                cases.append((net(params, *steps), two))
        final = cases[0][0][1]
        again, _ = net(params, X, None, final)
        from_there = one_way(params["forward"], X, None, final[0])
        return cases, (again[..., :3], from_there[0]), fn.Bidirectional(fn.LSTM(3))(params, X)

    cases, (again, expected), plain = everything(params, X)
    for (outputs, final), (ahead, behind) in cases:
        both = jnp.concatenate([ahead[0], behind[0]], -1)
        np.testing.assert_allclose(outputs, both, rtol=1e-5, atol=1e-6)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
        jax.tree.map(close, final, (ahead[1], behind[1]))
    np.testing.assert_allclose(again, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(plain, cases[0][0][0])


# Networks


@pytest.mark.slow
@pytest.mark.long
def test_char_rnn_in_pieces(key):
    tokens = jax.random.randint(key, (2, 6), 0, 9)
    net = fn.nets.CharRNN(9, width=4, depth=2, embed=3, return_final=True)
    params, _ = net.init(key, tokens)
    assert sorted(params) == ["embed", "head", "lstm0", "lstm1"]

    @jax.jit
    def everything(params, tokens):
        logits, state = net(params, tokens[:, :4])
        more, _ = net(params, tokens[:, 4:], state)
        whole = fn.nets.CharRNN(9, width=4, depth=2, embed=3)(params, tokens)
        return jnp.concatenate([logits, more], 1), whole

    joined, whole = everything(params, tokens)
    np.testing.assert_allclose(joined, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("cell", ["gru", "rnn"])
def test_char_rnn_of_other_cells(cell, key):
    tokens = jax.ShapeDtypeStruct((2, 6), "int32")
    params, _ = jax.eval_shape(fn.nets.CharRNN(9, cell=cell, width=4).init, key, tokens)
    gates = {"gru": 3, "rnn": 1}[cell]
    assert params[f"{cell}0"]["w_in"].shape == (64, 4 * gates)


@pytest.mark.slow
@pytest.mark.long
def test_sampling_draws_from_the_logits_of_what_was_drawn(key):
    net = fn.nets.CharRNN(5, width=8, embed=4, return_final=True)
    prompt = jnp.array([[1, 2], [0, 3]])
    params, _ = net.init(key, prompt)
    params["head"]["w"] = 9 * params["head"]["w"]
    drawn = fn.nets.sample_recurrent(net, params, prompt, 4, key, temperature=0.0)
    logits, _ = jax.jit(net)(params, jnp.concatenate([prompt, drawn], 1))
    np.testing.assert_array_equal(drawn, logits[:, 1:-1].argmax(-1))
    many = fn.nets.sample_recurrent(net, params, jnp.zeros((4000, 1), jnp.int32), 1, key)
    chances = jax.nn.softmax(jax.jit(net)(params, jnp.zeros((1, 1), jnp.int32))[0][0, 0])
    np.testing.assert_allclose(np.bincount(many[:, 0], minlength=5) / 4000, chances, atol=0.03)


@pytest.mark.long
def test_vae_draws_codes_in_training_and_takes_the_mean_in_use(key):
    x = jax.random.uniform(key, (4, 3, 2, 1))
    net, decoder = (fn.nets.VAE(2, (3, 2, 1), widths=(5,), decode=d) for d in (False, True))
    params, _ = net.init(key, x)
    logits, mean, log_var = jax.jit(net)(params, x)
    np.testing.assert_allclose(jax.jit(decoder)(params, mean), logits, rtol=1e-5, atol=1e-6)
    train = jax.jit(lambda params, x: net.apply(params, {}, x, train=True, key=key)[0])
    drawn, *same = train(params, x)
    for given, expected in zip(same, (mean, log_var), strict=True):
        np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6)
    assert float(jnp.abs(drawn - logits).max()) > 1e-3
    code = fn.serial(fn.pure(lambda codes: codes))  # what is drawn, seen through an identity
    seen = fn.nets.VAE(2, (2,), encoder=fn.Flatten(), decoder=code)
    params = {"code": {"w": jnp.zeros((2, 4)), "b": jnp.array([1.0, 2.0, 0.0, math.log(4)])}}
    (codes, _, _), _ = seen.apply(params, {}, jnp.zeros((5000, 2)), train=True, key=key)
    np.testing.assert_allclose(codes.mean(0), [1, 2], atol=0.1)
    np.testing.assert_allclose(codes.std(0), [1, 2], atol=0.1)


def test_negative_elbo_is_the_sum_of_its_parts(x64):
    logits, x = draw(3, 4), np.abs(np.sin(draw(3, 4, seed=1)))
    mean, log_var = draw(3, 2, seed=2), draw(3, 2, seed=3)
    p = sigmoid(logits)
    coins = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum(1)
    kl = (mean**2 + np.exp(log_var) - 1 - log_var).sum(1) / 2
    for beta in (1.0, 0.25):
        loss = fn.nets.negative_elbo((logits, mean, log_var), x, beta=beta)
        np.testing.assert_allclose(loss, (coins + beta * kl).mean(), rtol=1e-12)


def test_noise_schedules():
    linear = fn.nets.noise_schedule(1000)
    np.testing.assert_allclose(linear[[0, 499, -1]], [1e-4, 0.01004, 0.02], rtol=1e-3)
    for steps in (100, 1000):
        left = np.cumprod(1 - fn.nets.noise_schedule(steps, "linear"))
        assert 1e-5 < left[-1] < 1e-4
        cosine = np.cumprod(1 - fn.nets.noise_schedule(steps, "cosine").astype(float))
        half = math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2
        np.testing.assert_allclose(cosine[steps // 2 - 1], half / 0.99984, rtol=1e-3)
        assert cosine[-1] < 1e-4


def test_ddpm_adds_the_noise_it_tells(key):
    betas = fn.nets.noise_schedule(50)
    seen = {}

    def watch(x, t):
        seen.update(x=x, t=t)
        return x

    x = jax.random.normal(jax.random.key(3), (64, 2))
    for train in (True, False):
        options = {"train": True, "key": key} if train else {}
        (predicted, noise), _ = fn.nets.DDPM(watch, betas).apply({}, {}, x, **options)
        left = np.cumprod(1 - betas)[seen["t"]][:, None]
        assert set(np.asarray(seen["t"]).tolist()) <= set(range(50))
        assert len(set(np.asarray(seen["t"]).tolist())) > 20
        expected = np.sqrt(left) * x + np.sqrt(1 - left) * noise
        np.testing.assert_allclose(predicted, expected, rtol=1e-4, atol=1e-5)
        assert abs(float(noise.std()) - 1) < 0.2


def test_sampler_is_the_papers_loop(key):
    """With no limit on the guess, the mean is 1/√α (x - β/√(1 - ᾱ) ε), line 4 of algorithm 2."""
    betas = np.array([0.1, 0.3, 0.5])

    def denoise(x, t):
        return jnp.sin(x) + t[:, None]

    first, rest = jax.random.split(key)
    x = np.asarray(jax.random.normal(first, (4, 2), "float32"))
    for t in (2, 1, 0):
        left, before = np.prod(1 - betas[: t + 1]), np.prod(1 - betas[:t])
        mean = x - betas[t] / np.sqrt(1 - left) * (np.sin(x) + t)
        noise = np.asarray(jax.random.normal(jax.random.fold_in(rest, t), (4, 2), "float32"))
        deviation = np.sqrt(betas[t] * (1 - before) / (1 - left))
        x = mean / np.sqrt(1 - betas[t]) + deviation * noise
    net = fn.pure(denoise)
    np.testing.assert_allclose(
        fn.nets.sample_ddpm(net, {}, betas, (4, 2), key, clip=None), x, rtol=1e-4, atol=1e-5
    )
    held = jnp.abs(fn.nets.sample_ddpm(net, {}, betas, (4, 2), key, clip=0.1))
    assert float(held.max()) <= np.float32(0.1)


def test_a_perfect_denoiser_samples_the_data(key):
    """For data that are all 0.5 the noise in x_t is known, and the sampler finds the 0.5."""
    betas = fn.nets.noise_schedule(40, "cosine")
    left = jnp.asarray(np.cumprod(1 - betas.astype(float)), jnp.float32)

    def perfect(x, t):
        share = left[t][:, None]
        return (x - jnp.sqrt(share) * 0.5) / jnp.sqrt(1 - share)

    drawn = fn.nets.sample_ddpm(fn.pure(perfect), {}, betas, (8, 3), key)
    np.testing.assert_allclose(drawn, 0.5, atol=1e-3)


@pytest.mark.long
def test_a_recurrent_network_learns_what_came_first(key):
    """The answer is the first of 12 signs, so that the gradient has to go through all steps."""
    x = jnp.sign(jax.random.normal(key, (64, 12, 1)))
    y = (x[:, 0, 0] > 0).astype(jnp.int32)
    net = fn.serial(fn.LSTM(8), lambda h: h[:, -1], fn.Dense(2))
    step = fn.make_step(net, fn.cross_entropy, optax.adam(0.03))
    state = step.init(key, x)
    for _ in range(60):
        state, values = step.update(state, (x, y))
    assert values["loss"] < 0.1


# Text


def test_text_goes_there_and_back(tmp_path):
    text = fn.data.load_text()
    assert text.alphabet == "".join(sorted(set(text.alphabet)))
    assert text.tokens.dtype == np.int32
    assert set(range(len(text.alphabet))) == set(text.tokens.tolist())
    assert text.decode(text.encode("for x in sequence:")) == "for x in sequence:"
    np.testing.assert_array_equal(np.concatenate([text.train, text.test]), text.tokens)
    assert len(text.test) == pytest.approx(0.1 * len(text.tokens), abs=1)
    assert "statement" in text.decode(text.tokens)
    path = tmp_path / "short.txt"
    path.write_text("naïve\n\x00b", encoding="utf-8")
    short = fn.data.load_text(path, held_out=0.25)
    assert short.alphabet == "\x00\nabenvï"
    assert (short.decode(short.train), short.decode(short.test)) == ("naïve\n", "\x00b")


def test_windows_are_followed_by_their_next_token():
    tokens = np.arange(100)
    x, y = fn.data.windows(tokens, 7)
    assert x.shape == (14, 7)
    np.testing.assert_array_equal(x.ravel(), tokens[:98])
    np.testing.assert_array_equal(y, x + 1)
    seen = set()
    for step in range(40):
        x, y = fn.data.windows(tokens, 7, 16, seed=3, step=step)
        assert x.shape == (16, 7)
        np.testing.assert_array_equal(y, x + 1)
        np.testing.assert_array_equal(x, x[:, :1] + np.arange(7))
        seen |= set(x[:, 0].tolist())
    assert seen == set(range(93))
    again, _ = fn.data.windows(tokens, 7, 16, seed=3, step=39)
    np.testing.assert_array_equal(again, x)


@pytest.mark.long
@every_op
@pytest.mark.parametrize("steps", [(LENGTHS, None), (None, MASK)], ids=["lengths", "mask"])
def test_second_derivatives_do_not_see_steps_that_do_not_count(name, steps, x64):
    op, sizes = OPS[name]
    x, *rest = weights(*sizes)
    inside = jnp.arange(x.shape[1]) < LENGTHS[:, None] if steps[1] is None else MASK

    def loss(x):
        outputs = op(x, *rest, *steps)[0]
        return jnp.where(inside[..., None], jnp.sqrt(jnp.abs(outputs)), 0).sum()

    slopes = jax.jit(jax.grad(lambda x: (jax.grad(loss)(x) ** 2).sum()))(x)
    assert np.isfinite(slopes).all()
    assert not slopes[~inside].any()
