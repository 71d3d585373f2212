"""Surgery on parameter trees, and parameters that two places share."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import funcnet as fn
from funcnet import tree

PARAMS = {"body": {"w": jnp.ones((2, 2)), "b": jnp.zeros(2)}, "head": {"w": jnp.ones((2, 1))}}
PATHS = "body/b, body/w, head/w"


def assert_trees(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_flatten_and_unflatten_are_inverse():
    assert_trees(tree.unflatten(tree.flatten(PARAMS)), PARAMS)
    assert list(tree.flatten((1, {"a": [2]}))) == ["0", "1/a/0"]
    assert tree.flatten({}) == {} == tree.unflatten({})


def test_update_changes_what_matches_and_keeps_the_rest():
    new = tree.update(PARAMS, "*/w", 2)
    assert new["body"]["w"].dtype == jnp.float32
    assert new["body"]["w"].tolist() == [[2, 2], [2, 2]]
    assert new["body"]["b"] is PARAMS["body"]["b"]
    assert PARAMS["head"]["w"].tolist() == [[1], [1]]
    row = tree.update(PARAMS, "body/w", jnp.array([3.0, 4.0]))["body"]["w"]
    assert row.tolist() == [[3, 4], [3, 4]]
    halved = jax.jit(lambda p: tree.update(p, "*", lambda leaf: leaf / 2))(PARAMS)
    assert_trees(halved, jax.tree.map(lambda leaf: leaf / 2, PARAMS))


def test_a_frozen_part_does_not_move(key):
    net, x = fn.serial(fn.Dense(3), fn.tanh, head=fn.Dense(2)), jnp.ones((4, 5))
    params, _ = net.init(key, x)
    trained, frozen = tree.partition(params, "head/*")
    assert list(tree.flatten(trained)) == ["head/b", "head/w"]
    assert_trees(tree.combine(trained, frozen), params)
    gradient = jax.grad(lambda part: net(tree.combine(part, frozen), x).sum())(trained)
    whole = jax.grad(lambda params: net(params, x).sum())(params)
    assert_trees(gradient, {"head": whole["head"]})


def test_labels_give_each_leaf_its_optimizer():
    labels = tree.labels(PARAMS, {"head/*": "slow", "*/w": "fast"}, "frozen")
    assert labels == {"body": {"b": "frozen", "w": "fast"}, "head": {"w": "slow"}}
    parts = {"slow": optax.sgd(1.0), "fast": optax.sgd(2.0), "frozen": optax.set_to_zero()}
    optimizer = optax.multi_transform(parts, labels)
    ones = jax.tree.map(jnp.ones_like, PARAMS)
    updates, _ = optimizer.update(ones, optimizer.init(PARAMS))
    assert [float(leaf.ravel()[0]) for leaf in jax.tree.leaves(updates)] == [0, -2, -1]


def test_mask_is_what_optax_takes():
    optimizer = optax.add_decayed_weights(0.5, mask=lambda p: tree.mask(p, "*/w"))
    params = jax.tree.map(jnp.ones_like, PARAMS)
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    assert [float(leaf.ravel()[0]) for leaf in jax.tree.leaves(updates)] == [0, 0.5, 0.5]


def test_stacked_parameters_are_those_of_repeat(key):
    layer, x = fn.Dense(3), jnp.ones((2, 3))
    deep = fn.repeat(layer, 4)
    params, _ = deep.init(key, x)
    parts = tree.unstack(params)
    assert len(parts) == 4
    assert_trees(tree.stack(parts), params)
    y = x
    for part in parts:
        y = layer(part, y)
    np.testing.assert_allclose(deep(params, x), y, rtol=1e-6)


def test_shared_finds_one_array_in_two_places():
    w = jnp.ones(3)
    assert tree.shared({"a": w, "b": {"c": w}, "d": jnp.ones(3), "e": 1}) == [("a", "b/c")]
    assert tree.shared(PARAMS) == []


def test_a_tied_head_shares_the_table_and_their_gradients_add(key):
    whole = fn.serial(tok=fn.Embed(7, 4), head=fn.Dense(7, bias=False))
    tied, ids = fn.tie(whole, {"head/w": ("tok/table", jnp.transpose)}), jnp.array([[0, 6, 3]])
    params, _ = tied.init(key, ids)
    assert list(tree.flatten(params)) == ["tok/table"]
    table = params["tok"]["table"]
    full = {"tok": {"table": table}, "head": {"w": table.T}}
    np.testing.assert_array_equal(tied(params, ids), whole(full, ids))

    def loss(net):
        return lambda params: (net(params, ids) ** 2).sum()

    apart = jax.grad(loss(whole))(full)
    together = jax.jit(jax.grad(loss(tied)))(params)["tok"]["table"]
    np.testing.assert_allclose(together, apart["tok"]["table"] + apart["head"]["w"].T, rtol=1e-5)


NET = fn.serial(fn.Dense(2), head=fn.Dense(2, bias=False))


def tied_init(sources):
    return lambda: fn.tie(NET, sources).init(jax.random.key(0), jnp.ones((1, 3)))


MESSAGES = {
    f"select: expected a pattern that matches one of {PATHS}, got '*/v'. A path runs from the "
    "outermost layer to the array.": lambda: tree.select(PARAMS, "*/v"),
    f"update: expected a pattern that matches one of {PATHS}, got 'w'. A path runs from the "
    "outermost layer to the array.": lambda: tree.update(PARAMS, "w", 0),
    "update: expected a value that broadcasts to (2,) at body/b, got shape (3,). Pass a function "
    "of the leaf for anything else.": lambda: tree.update(PARAMS, "body/b", jnp.ones(3)),
    "mask: expected a pattern that matches one of (no path at all), got '*'. A path runs from the "
    "outermost layer to the array.": lambda: tree.mask({}, "*"),
    f"labels: expected a pattern that matches one of {PATHS}, got 'x'. A path runs from the "
    "outermost layer to the array.": lambda: tree.labels(PARAMS, {"x": "a"}, "b"),
    f"partition: expected a pattern that matches one of {PATHS}, got 'x'. A path runs from the "
    "outermost layer to the array.": lambda: tree.partition(PARAMS, "x"),
    "combine: expected one leaf for each path, and no path through another's leaf, got two things "
    "at body/b. Leave one of them out.": lambda: tree.combine(PARAMS, {"body": {"b": 1}}),
    "unflatten: expected one leaf for each path, and no path through another's leaf, got two "
    "things at a/b. Leave one of them out.": lambda: tree.unflatten({"a": 1, "a/b": 2}),
    "flatten: expected another path for each array, got two arrays at a/b. Leave the '/' out of "
    "the names in the tree.": lambda: tree.flatten({"a": {"b": 1}, "a/b": 2}),
    "stack: expected trees of one structure and one shape for each leaf, got no tree. Initialise "
    "them as the same layer.": lambda: tree.stack([]),
    "stack: expected trees of one structure and one shape for each leaf, got {'a': ()}; {'b': "
    "()}. Initialise them as the same layer.": lambda: tree.stack([{"a": 1}, {"b": 1}]),
    "unstack: expected leaves with one length of their leading axis, got (2,), (3,). Pass the "
    "parameters of a repeat or an ensemble.": lambda: tree.unstack([jnp.ones(2), jnp.ones(3)]),
    "tie: expected a path among dense/b, dense/w, head/w, got 'head/b'. A path runs from the "
    "outermost layer to the array.": tied_init({"head/b": "dense/b"}),
    "tie: expected a source of shape (2, 2) for head/w, got dense/w of shape (3, 2). Give a "
    "function with it, as in (source, jnp.transpose).": tied_init({"head/w": "dense/w"}),
    "tie: expected a source that is not tied itself, got 'dense/w'. Tie both to the same third "
    "parameter.": tied_init({"head/w": "dense/w", "dense/w": "head/w"}),
    "tie: expected a path among b, got 'w'. A path runs from the outermost layer to the array.": (
        lambda: fn.tie(fn.Dense(2), {"b": "w"})({"b": jnp.ones(2)}, jnp.ones((1, 2)))
    ),
}


@pytest.mark.parametrize(
    "sources",
    [
        {"head/w": ["dense/w", jnp.transpose]},
        {"head/w": (["dense/w"], jnp.transpose)},
        {"head/w": ("dense/w", "transpose")},
        {"head/w": ("dense/w",)},
        {"head/w": ()},
        {"head/w": None},
        {0: "dense/w"},
        ["head/w", "dense/w"],
    ],
)
def test_what_is_tied_is_a_path_to_a_path(sources):
    message = (
        "tie: expected for each path to tie another path, or a pair of one and a function, got "
        f'{sources}. Write {{"head/w": "tok/table"}}, or {{"head/w": ("tok/table", '
        "jnp.transpose)}."
    )
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        fn.tie(NET, sources)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.partition(", got")[0])
def test_bad_input_is_one_sentence(message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MESSAGES[message]()
