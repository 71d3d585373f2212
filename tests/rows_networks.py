"""What a wrong way to make or to call a network is told: nobody's first ten minutes go without."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false
# Wrong arguments are the matter here.

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import funcnet as fn

from .forms import LayerCase, rows

KEY, KEYS, X, IDS = jax.random.key(0), jax.random.split(jax.random.key(0)), jnp.ones((4, 5)), [1, 2]
DENSE, NET = fn.Dense(3), fn.serial(fn.Dense(3), fn.BatchNorm())
PARAMS, STATE = NET.init(KEY, X)
DRAWN = DENSE.init(KEY, X)[0]
NOISY = fn.serial(fn.Dense(3), fn.Dropout(0.5))


def Block(width):
    return fn.serial(fn.Dense(width), fn.relu)


def Declared(width) -> fn.Layer:
    return Block(width)


def Whole(width=3):
    return fn.serial(fn.Dense(3), fn.relu)


def Nothing():
    return fn.relu


def twice(x):
    return jnp.concatenate([x, x], -1)


def silent(x):
    twice(x)


def decides(x):
    return x if x.sum() > 0 else -x


def picks(x):
    return x[x > 0]


def counts(x):
    return x * sum(range(int(x.sum())))


@fn.network(up=fn.Dense(3))
def wrong_name(net, x):
    return net.down(x)


@fn.network(up=fn.Dense(3))
def wrong_option(net, x):
    return net.up(x, training=False)


@fn.network(up=fn.Dense(3))
def by_index(net, x):
    return net["up"](x)


@fn.network(up=fn.Dense(3))
def without_end(net, x):
    net.up(x)


@fn.network(up=fn.Dense(3))
def makes(net, x):
    return fn.Dense(3)


@fn.network(up=fn.Dense(3))
def gives_params(net, x):
    return net.up(net.params, x)


@fn.network(up=fn.Dense(3))
def forgets_net(x):
    return x


def jitted(net, params, state):
    return jax.jit(lambda train: net.apply(params, state, X, train=train, key=KEY))(True)


OPS = rows(
    TypeError,
    partial(fn.relu, None),
    "relu: expected x to be an array, got None. Take it apart in the body of a network(); a "
    "function that returns nothing gives None.",
    partial(fn.dense, {"x": X}, jnp.ones((5, 3))),
    "dense: expected x to be an array, got a dict. Take it apart in the body of a network(); a "
    "function that returns nothing gives None.",
)

UNCALLED = "{}: expected a Layer or a function as child, got the uncalled {}. A layer is made by a "
UNCALLED += "call, as in Dense(10)."
FACTORY = "{}: expected a function of arrays, got one that makes a layer, as it calls {} with an "
FACTORY += "array. Call it first, and give the layer that it returns."
FED = "A child takes what the one before it returns; if it makes a layer, call it first."

OTHERS = rows(
    TypeError,
    lambda: fn.relu(fn.Dense(3)),
    "relu: expected `x` to be an array, got a Layer. Layers and functions are put together by "
    "serial(); text has to become numbers first.",
    lambda: fn.softmax("x"),
    "softmax: expected `x` to be an array, got 'x'. Layers and functions are put together by "
    "serial(); text has to become numbers first.",
    lambda: fn.gelu(jnp.tanh),
    "gelu: expected `x` to be an array, got the function tanh. Layers and functions are put "
    "together by serial(); text has to become numbers first.",
    lambda: fn.serial(fn.Dense, fn.relu),
    UNCALLED.format("serial", "Dense"),
    lambda: fn.serial(fn.Dense(3), fn.BatchNorm),
    UNCALLED.format("serial", "BatchNorm"),
    lambda: fn.serial(partial(fn.Dense, 3)),
    UNCALLED.format("serial", "Dense"),
    lambda: fn.serial(Declared),
    UNCALLED.format("serial", "Declared"),
    lambda: fn.serial(fn.network(up=fn.Dense(3))),
    UNCALLED.format("serial", "network(up)"),
    lambda: fn.serial(fn.Layer),
    UNCALLED.format("serial", "Layer"),
    lambda: fn.serial(head=fn.nets.LeNet),
    UNCALLED.format("serial", "LeNet"),
    lambda: fn.parallel(fn.Dense(3), fn.Dense),
    UNCALLED.format("parallel", "Dense"),
    lambda: fn.network(up=fn.Dense),
    UNCALLED.format("network", "Dense"),
    lambda: fn.residual(fn.Dense),
    UNCALLED.format("residual", "Dense"),
    lambda: fn.repeat(fn.TransformerBlock, 3),
    UNCALLED.format("repeat", "TransformerBlock"),
    lambda: fn.ensemble(fn.nets.MLP, 3),
    UNCALLED.format("ensemble", "MLP"),
    lambda: fn.remat(fn.Dense),
    UNCALLED.format("remat", "Dense"),
    lambda: fn.pure(fn.Dense),
    UNCALLED.format("pure", "Dense"),
    lambda: fn.Bidirectional(fn.LSTM),
    UNCALLED.format("bidirectional", "LSTM"),
    lambda: fn.nets.DDPM(fn.nets.UNet, fn.nets.noise_schedule(4)),
    UNCALLED.format("ddpm", "UNet"),
    lambda: fn.nets.VAE(2, (4, 4, 1), encoder=fn.nets.MLP),
    UNCALLED.format("network", "MLP"),
    lambda: fn.nets.MLP((4, 3), activation=fn.Dropout),
    UNCALLED.format("serial", "Dropout"),
    lambda: fn.serial(Block).init(KEY, X),
    FACTORY.format("block", "Dense"),
    lambda: fn.network(up=Block)(lambda net, x: net.up(x)).init(KEY, X),
    FACTORY.format("block", "Dense"),
    lambda: fn.residual(Block).init(KEY, X),
    FACTORY.format("block", "Dense"),
    lambda: fn.repeat(Block, 2).init(KEY, X),
    FACTORY.format("block", "Dense"),
    lambda: fn.ensemble(lambda width: fn.Conv(width, 3), 2).init(KEY, X),
    FACTORY.format("function", "Conv"),
    lambda: fn.remat(Block)({}, X),
    FACTORY.format("block", "Dense"),
    lambda: fn.serial(Whole).init(KEY, X),
    "whole: expected a function of arrays, got one that makes a layer. Call it first, and give the "
    "layer that it returns.",
    lambda: fn.serial(Nothing).init(KEY, X),
    f"nothing: expected the inputs (), got 1 of them. {FED}",
    lambda: fn.tie(fn.Dense, {"a": "b"}),
    "tie: expected a Layer, got the function Dense. A layer is made by a call, as in Dense(10).",
    lambda: fn.serial([fn.Dense(3), fn.relu]),
    "serial: expected a Layer or a function as child, got a list. Pass them one by one, as in "
    "serial(*layers).",
    lambda: fn.serial(fn.Dense(3), "relu"),
    "serial: expected a Layer or a function as child, got 'relu'. Pass the function itself, as in "
    "fn.relu.",
    lambda: fn.nets.MLP((4, 3), activation="relu"),
    "serial: expected a Layer or a function as child, got 'relu'. Pass the function itself, as in "
    "fn.relu.",
    lambda: fn.serial(fn.Dense(3), None),
    "serial: expected a Layer or a function as child, got None. A layer is made by a call, as in "
    "Dense(10).",
    lambda: fn.parallel(X),
    "parallel: expected a Layer or a function as child, got float32 of shape (4, 5). A layer is "
    "made by a call, as in Dense(10).",
    lambda: fn.parallel(fn.Dense(3), merge="add"),
    "parallel: expected merge to be a function of the outputs, got 'add'. Pass one such as "
    "jnp.add, and None for the tuple of the outputs.",
    lambda: fn.remat(fn.Dense(3), "dots"),
    "remat: expected a policy of jax.checkpoint_policies, got 'dots'. Pass one such as "
    'save_only_these_names("dense").',
    lambda: fn.network(fn.Dense(3)),
    "network: expected children by name, got a Layer without one. Write @network(up=Dense(16)) "
    "above the body, and @network() where there are none.",
    lambda: fn.network(twice),
    "network: expected children by name, got the function twice without one. Write "
    "@network(up=Dense(16)) above the body, and @network() where there are none.",
    lambda: fn.network(up=fn.Dense(3))(fn.Dense(3)),
    "network: expected a body (net, *inputs), got a Layer. It says in which order the children "
    "run.",
    lambda: by_index.init(KEY, X),
    "by_index: expected a child by its name, as in net.dense(x), got net['up']. Where the name is "
    "computed, write getattr(net, name)(x).",
    lambda: without_end.init(KEY, X),
    "without_end: expected a function that returns its output, got None. End it with a return.",
    lambda: makes.init(KEY, X),
    "makes: expected a function of arrays, got one that makes a layer. Call it first, and give the "
    "layer that it returns.",
    lambda: forgets_net.init(KEY, X),
    "forgets_net: expected the arguments (x), got 2 of them. The first is the bound network; "
    "net.init(key, *inputs) and net(params, *inputs) give the rest.",
    lambda: fn.serial(fn.Dense(3), silent).init(KEY, X),
    "silent: expected a function that returns its output, got None. End it with a return.",
)

KEY_FIRST = "serial: expected a random key first, got {}. Call net.init(jax.random.key(0), x)."
EXAMPLE = "serial: expected an array or jax.ShapeDtypeStruct as example input, got {}. {}"
AN_ARRAY = "Pass an array, jnp.asarray(x); text and objects have to become numbers first."
LOOKS = "{}: expected code that a trace can follow, got Python or NumPy that looks at the numbers "
LOOKS += "in an array ({}). Write jnp.where or jax.lax.cond for an if on numbers, and jnp for np; "
LOOKS += "shapes are known."

OTHERS += rows(
    TypeError,
    lambda: wrong_option.init(KEY, X),
    "wrong_option: expected no option but train in the call of up, got training. Inputs go by "
    "position: net.up(x), or net.up(x, train=False).",
    lambda: NET.init(0, X),
    KEY_FIRST.format("0"),
    lambda: NET.init(X),
    KEY_FIRST.format("float32 of shape (4, 5)"),
    lambda: NET.init(),
    KEY_FIRST.format("nothing"),
    lambda: NET.init(np.random.default_rng(0), X),
    KEY_FIRST.format("a Generator"),
    lambda: jax.jit(NET.init)(0, X),
    KEY_FIRST.format("int32 of shape ()"),
    lambda: fn.Dropout(0.5).init(0, X),
    "dropout: expected a random key first, got 0. Call net.init(jax.random.key(0), x).",
    lambda: fn.repeat(fn.Dense(5), 2).init(0, X),
    "dense: expected a random key first, got 0. Call net.init(jax.random.key(0), x).",
    lambda: NET.init(KEYS, X),
    "serial: expected a random key first, got keys of shape (2,). Take one of them, keys[0].",
    lambda: NET.init(KEY),
    "dense: expected the inputs (x), got 0 of them. Call net.init(key, x) and net(params, x).",
    lambda: NET.init(KEY, X, X),
    "dense: expected the inputs (x), got 2 of them. Call net.init(key, x) and net(params, x).",
    lambda: NET.init(KEY, (4, 5)),
    EXAMPLE.format("(4, 5)", "Pass an array of this shape: jnp.zeros((4, 5))."),
    lambda: NET.init(KEY, [[1.0, 2.0], [3.0, 4.0]]),
    EXAMPLE.format("[[1.0, 2.0], [3.0, 4.0]]", AN_ARRAY),
    lambda: NET.init(KEY, 4, 5),
    EXAMPLE.format("4", AN_ARRAY),
    lambda: NET.init(KEY, "four"),
    EXAMPLE.format("'four'", AN_ARRAY),
    lambda: NET.init(KEY, np.array(["a"])),
    EXAMPLE.format("<U1 of shape (1,)", AN_ARRAY),
    lambda: NET.summary((4, 5)),
    EXAMPLE.format("(4, 5)", "Pass an array of this shape: jnp.zeros((4, 5))."),
    lambda: NET.init(KEY, {"x": X}),
    "dense: expected x to be an array, got a dict. Take it apart in the body of a network(); a "
    "function that returns nothing gives None.",
    lambda: NET.init(KEY, X, dtype="float16"),
    "serial: expected a call init(key, *inputs), got a wrong one (got an unexpected keyword "
    "argument 'dtype'). Inputs go by position, train and key by name.",
    lambda: NET(NET.init(KEY, X), X),
    "serial: expected parameters (a dict) first, got a pair of them and the state. Take the pair "
    "apart: params, state = net.init(key, x).",
    lambda: NET.apply(NET.init(KEY, X), X),
    "serial: expected parameters (a dict) first, got a pair of them and the state. Take the pair "
    "apart: params, state = net.init(key, x).",
    lambda: NET(X),
    "serial: expected parameters (a dict) first, got float32 of shape (4, 5). Call net(params, x) "
    "with the parameters from net.init(key, x).",
    lambda: fn.Dense(3)(fn.relu),
    "dense: expected parameters (a dict) first, got the function relu. Call net(params, x) with "
    "the parameters from net.init(key, x).",
    lambda: NET.apply(None, {}, X),
    "serial: expected parameters (a dict) first, got None. Call net(params, x) with the parameters "
    "from net.init(key, x).",
    lambda: NET.apply(PARAMS, X),
    "serial: expected state (a dict) second, got float32 of shape (4, 5). Call net.apply(params, "
    "state, x) with the state from net.init(key, x), {} if it has none.",
    lambda: NET.apply(PARAMS, None, X),
    "serial: expected state (a dict) second, got None. Call net.apply(params, state, x) with the "
    "state from net.init(key, x), {} if it has none.",
    lambda: NET.apply(PARAMS),
    "serial: expected a call apply(params, state, *inputs, train=False, key=None), got a wrong one "
    "(missing a required argument: 'state'). Inputs go by position, train and key by name.",
    lambda: DENSE(DRAWN),
    "dense: expected the inputs (x), got 0 of them. Call net.init(key, x) and net(params, x).",
    lambda: DENSE(DRAWN, IDS),
    "dense: expected `x` to be an array, got a list of numbers. Make it one: jnp.array(x).",
    lambda: DENSE(DRAWN, X, train=True),
    "dense: expected net(params, x), which evaluates without state, got train=True. Call output, "
    "state = net.apply(params, state, x, train=True, key=key).",
    lambda: NET.apply(PARAMS, STATE, X, training=True),
    "serial: expected a call apply(params, state, *inputs, train=False, key=None), got a wrong one "
    "(got an unexpected keyword argument 'training'). Inputs go by position, train and key by "
    "name.",
    lambda: NET.apply(PARAMS, STATE, X, True),
    "dense: expected the inputs (x), got 2 of them. Write train and key by name: net.apply(params, "
    "state, x, train=True, key=key).",
    lambda: NOISY.apply(*NOISY.init(KEY, X), X, KEY),
    "dense: expected the inputs (x), got 2 of them. Write train and key by name: net.apply(params, "
    "state, x, train=True, key=key).",
    lambda: fn.serial(fn.relu).apply({}, {}, X, False),
    "relu: expected the inputs (x), got 2 of them. Write train and key by name: net.apply(params, "
    "state, x, train=True, key=key).",
    lambda: NET(PARAMS, STATE, X),
    "dense: expected the inputs (x), got 2 of them. State goes to net.apply(params, state, x) "
    "alone; in a body it is net.dense(x).",
    lambda: gives_params.init(KEY, X),
    "dense: expected the inputs (x), got 2 of them. State goes to net.apply(params, state, x) "
    "alone; in a body it is net.dense(x).",
    lambda: NET(PARAMS, x=X),
    "serial: expected net(params, x), which evaluates without state, got x=float32 of shape (4, "
    "5). Inputs go by position.",
    lambda: NET.apply(PARAMS, STATE, jax.ShapeDtypeStruct((4, 5), "float32")),
    "serial: expected arrays as inputs, got a ShapeDtypeStruct, float32 of shape (4, 5). Only init "
    "takes one; jax.eval_shape(net, params, x) gives the shape of the output.",
    lambda: fn.network(up=fn.Dense(3)).init(KEY, X),
    "network: expected a body (net, *inputs), got the children alone. Write @network(up=Dense(16)) "
    "above a function that says in which order they run, or serial().",
    lambda: fn.parallel(DENSE, DENSE, merge=jnp.concatenate),
    "parallel: expected merge to take the outputs one by one, got the function concatenate, which "
    "takes a list of them. Write merge=lambda *outputs: jnp.concatenate(outputs, -1).",
    lambda: fn.parallel(DENSE, DENSE, merge=sum),
    "parallel: expected merge to take the outputs one by one, got the function sum, which takes a "
    "list of them. Write merge=lambda *outputs: jnp.concatenate(outputs, -1).",
    lambda: NOISY.apply(*NOISY.init(KEY, X), X, train=True, key=0),
    "serial: expected key to be a random key, got 0. Call apply(..., key=jax.random.key(0)).",
    lambda: NOISY.apply(*NOISY.init(KEY, X), X, train=True, key=KEYS),
    "serial: expected key to be a random key, got keys of shape (2,). Take one of them, keys[0].",
    lambda: jitted(NET, PARAMS, STATE),
    "serial: expected train to be True or False, got a traced array. It decides what is computed, "
    'so keep it static: jax.jit(f, static_argnames="train").',
    lambda: jitted(DENSE, DRAWN, {}),
    "dense: expected train to be True or False, got a traced array. It decides what is computed, "
    'so keep it static: jax.jit(f, static_argnames="train").',
    lambda: NET.apply(PARAMS, STATE, X, train="eval"),
    "serial: expected train to be True or False, got 'eval'. Write train=True in training, and "
    "nothing otherwise.",
    lambda: NET.apply(PARAMS, STATE, X, train=jnp.array(True)),
    "serial: expected train to be True or False, got bool of shape (). Write train=True in "
    "training, and nothing otherwise.",
    lambda: fn.serial(fn.Dense(3), np.tanh).init(KEY, X),
    LOOKS.format("tanh", "TracerArrayConversionError"),
    lambda: fn.serial(decides).init(KEY, X),
    LOOKS.format("decides", "TracerBoolConversionError"),
    lambda: fn.serial(picks).init(KEY, X),
    LOOKS.format("picks", "NonConcreteBooleanIndexError"),
    lambda: jax.jit(fn.pure(counts))({}, X),
    LOOKS.format("counts", "ConcretizationTypeError"),
)

MADE_OF = (
    "Layer: expected the functions init and apply, and a name, got {}. Write Layer(init, apply, "
)
MADE_OF += '"name"); pure(f) and stateless(init, f) make the usual ones.'
PAIR = "layer: expected a function that returns {}, got {}. Without parameters or state there is "
PAIR += "{{}} in their place."
OUTPUT, BOTH = "(output, state), the state a dict", "the dicts (params, state)"


def init(key, x):
    return {}, {}


def apply(params, state, x, train=False, key=None):
    return x, state


OTHERS += rows(
    TypeError,
    lambda: fn.Layer(3, 4),
    MADE_OF.format("3, 4, 'layer'"),
    lambda: fn.Layer("mine", init, apply),
    MADE_OF.format("'mine', the function init, the function apply"),
    lambda: fn.Layer(init, lambda params, state, x, train, key: x).apply(
        {}, {}, X, train=False, key=None
    ),
    PAIR.format(OUTPUT, "float32 of shape (4, 5)"),
    lambda: fn.serial(fn.Layer(init, lambda p, s, x, train, key: (s, x))).init(KEY, X),
    PAIR.format(OUTPUT, "({}, float32 of shape (4, 5))"),
    lambda: fn.Layer(lambda key, x: {}, apply).init(KEY, X),
    PAIR.format(BOTH, "{}"),
    lambda: fn.Layer(lambda key, x: (x, {}), apply).init(KEY, X),
    PAIR.format(BOTH, "(float32 of shape (4, 5), {})"),
    lambda: fn.stateless(lambda key, x: {}, lambda params, x: None, "mine")({}, X),
    "mine: expected a function that returns its output, got None. End it with a return.",
)

INITIALIZER = "initializer: expected a function (key, shape, dtype) -> array{}, got {}. Pass one "
INITIALIZER += "such as initializers.zeros or, with its call, initializers.he_normal()."
NORM = "{}: expected norm to be what makes a norm when called without arguments, such as "
NORM += "LayerNorm, got {}. Write norm=LayerNorm, or norm=partial(GroupNorm, 8) to fill in what it "
NORM += "wants."

OTHERS += rows(
    TypeError,
    lambda: fn.Dense(3, w_init="he").init(KEY, X),
    INITIALIZER.format("", "'he'"),
    lambda: fn.Attention(1, out_init="he").init(KEY, X[None]),
    INITIALIZER.format("", "'he'"),
    lambda: fn.Dense(3, b_init=0).init(KEY, X),
    INITIALIZER.format("", "0"),
    lambda: fn.Dense(3, w_init=fn.initializers.normal).init(KEY, X),
    INITIALIZER.format("", "the function normal"),
    lambda: fn.Dense(3, w_init=fn.initializers.he_normal).init(KEY, X),
    INITIALIZER.format(" of shape (5, 3)", "the function he_normal, which gives the function init"),
    lambda: fn.TransformerBlock(2, norm=fn.LayerNorm()),
    NORM.format("transformer_block", "a Layer"),
    lambda: fn.TransformerBlock(2, norm=fn.GroupNorm),
    NORM.format("transformer_block", "the function GroupNorm"),
    lambda: fn.nets.ResNet(18, norm=fn.BatchNorm()),
    NORM.format("resnet", "a Layer"),
    lambda: fn.nets.UNet(1, activation="silu"),
    "UNet: expected activation to be a function of an array, got 'silu'. Write "
    "UNet(1, activation=fn.silu).",
)

FEATURES = "{}: expected x of rank 1 or more with features along its last axis, got shape {}. The "
FEATURES += "parameters are drawn for as many: give an example input such as jnp.zeros((1, 5))."

OTHERS += rows(
    ValueError,
    lambda: fn.FeedForward(activation=fn.Dense),
    "feed_forward: expected an activation among gelu, gelu_tanh, relu, relu_squared, silu, swiglu, "
    "geglu, or a function, got the function Dense. Pass any function of an array by itself: "
    "activation=jnp.tanh.",
    lambda: fn.Dense(X),
    "dense: expected a width that is a whole number of 1 or more, got float32 of shape (4, 5). It "
    "is the number of outputs.",
    lambda: fn.Dense(3).init(KEY, jnp.float32(1)),
    FEATURES.format("dense", "()"),
    lambda: fn.Dense(3).init(KEY, X[:, :0]),
    FEATURES.format("dense", "(4, 0)"),
    lambda: fn.BatchNorm().init(KEY, jnp.float32(1)),
    FEATURES.format("batch_norm", "()"),
    lambda: fn.FeedForward().init(KEY, jnp.float32(1)),
    FEATURES.format("feed_forward", "()"),
    lambda: fn.FeedForward(activation="swiglu").init(KEY, jnp.float32(1)),
    FEATURES.format("feed_forward", "()"),
    lambda: NET.apply(PARAMS, {"batch_norm": {"mean": X[0], "var": X[0]}}, X, train=True),
    "batch_norm: expected mean of shape (3,), one for each channel of x, got shape (5,). Use the "
    "state from this network's own net.init(key, x).",
    lambda: fn.RNN(3, activation="sigmoid"),
    "rnn: expected the activation 'tanh' or 'relu', got 'sigmoid'. Its backward pass is written "
    "for these two.",
    lambda: fn.RNN(3, activation=fn.relu),
    "rnn: expected the activation 'tanh' or 'relu', got the function relu. Its backward pass is "
    "written for these two.",
    lambda: fn.Reshape((7, 7)),
    "reshape: expected whole numbers, at most one of them -1, got ((7, 7),). Write the axes after "
    "the batch one by one: Reshape(7, 7, -1).",
    lambda: fn.Reshape(-1, -1),
    "reshape: expected whole numbers, at most one of them -1, got (-1, -1). Write the axes after "
    "the batch one by one: Reshape(7, 7, -1).",
    lambda: fn.Einsum("bd,dh->bh", 3),
    "einsum: expected a length for each of the axes dh of w, None for those that x has, got 3. The "
    "equation is 'bd,dh->bh'.",
    lambda: fn.nets.ResNet(8).init(KEY, jnp.ones((8, 8, 3))),
    "conv: expected x of rank 4 (batch, *spatial, channel), got shape (8, 8, 3). Give the kernel "
    "one length for each spatial axis, or x the axes it lacks: x[None] is a batch of one.",
    lambda: fn.repeat(3, fn.Dense(3)),
    "repeat: expected a whole number of copies, 1 or more, got a Layer. Write repeat(layer, 8) for "
    "eight.",
    lambda: fn.repeat(fn.Dense(3), 0),
    "repeat: expected a whole number of copies, 1 or more, got 0. Write repeat(layer, 8) for "
    "eight.",
    lambda: fn.nets.MLP("128"),
    "MLP: expected the width of one layer or more, got widths='128'. Write MLP((128, 10)) for one "
    "hidden layer of 128 and 10 outputs.",
    lambda: fn.serial(fn.Dense(3))({"conv": {}}, X),
    "serial: expected parameters for the children dense, got some for conv. They belong to another "
    "network: use what this one's net.init(key, x) returned.",
    lambda: NET.apply(PARAMS, {"conv": {}}, X),
    "serial: expected state for the children dense, batch_norm, got some for conv. They belong to "
    "another network: use what this one's net.init(key, x) returned.",
    lambda: DENSE({"table": X}, X),
    "dense: expected parameters w, got table. Use what this network's own net.init(key, x) "
    "returned.",
    lambda: NET(PARAMS, X),
    "batch_norm: expected state mean, var, got none. Call `output, state = net.apply(params, "
    "state, x)` with the state from net.init(key, x).",
    lambda: NOISY.apply(*NOISY.init(KEY, X), X, train=True),
    "dropout: expected a random key in training, got key=None. Call net.apply(params, state, x, "
    "train=True, key=jax.random.key(0)), with another key for each step.",
    lambda: fn.network(params=DENSE),
    "network: expected children not named params, state, train, key or with a leading underscore, "
    "got 'params'. Those names belong to the bound network itself; choose another.",
    lambda: fn.serial(DENSE, dense=DENSE),
    "serial: expected a name that no other child has, got 'dense'. Choose another name.",
    lambda: fn.residual(twice)({}, X),
    "residual: expected a layer that keeps the shape (4, 5), got an output of shape (4, 10). "
    "Project the input with network() instead.",
    lambda: fn.repeat(twice, 2)({}, X),
    "repeat: expected a layer that keeps the shape and dtype of its input, float32[4,5], got an "
    "output of float32[4,10]. A layer that is repeated is fed its own output; project or cast "
    "outside of it.",
    lambda: fn.ensemble(DENSE, 2)(DRAWN, X),
    "ensemble: expected parameters and state stacked 2 deep along axis 0, got shape (3,) at ['b']. "
    "Use what this network's own net.init(key, x) returned.",
)

OTHERS += rows(
    AttributeError,
    lambda: wrong_name.init(KEY, X),
    "wrong_name: expected one of the children up, got 'down'. Children are the keyword arguments "
    "of network().",
    lambda: NET.parameters(),
    "serial: expected init, apply, name, named or summary of a layer, got 'parameters'. A layer "
    "holds no numbers: params, state = net.init(key, x).",
)

LAYERS: dict[str, LayerCase] = {}
