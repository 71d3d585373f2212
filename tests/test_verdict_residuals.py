"""What is kept for the backward pass: how many bytes, where from, and what would be instead."""

import jax
import jax.numpy as jnp
import pytest
from jax.ad_checkpoint import checkpoint_name

import funcnet as fn
from funcnet.__main__ import main
from funcnet.jaxpr import jaxprs, runs
from funcnet.jaxpr.changes import marks

from .verdicts import residuals as scores

SHAPE = jax.ShapeDtypeStruct
DEPTH, ROWS, WIDTH = 6, 4, 8
SLICE = 4 * ROWS * WIDTH
W, X = SHAPE((DEPTH, WIDTH, WIDTH), "float32"), SHAPE((ROWS, WIDTH), "float32")


def keeping(f, **options):
    return fn.residuals(f, compiled=False, **options)


def layer(h, w):
    with jax.named_scope("block"):
        h = h @ w
        with jax.named_scope("act"):
            return jnp.sin(h), None


def scanned(w, x):
    return jnp.sum(jax.lax.scan(layer, x, w)[0])


def written_out(w, x):
    for i in range(DEPTH):
        with jax.named_scope(f"block_{i}"):
            x = jnp.sin(x @ w[i])
    return jnp.sum(x)


FOUND = keeping(scanned)(W, X)
EACH = [SHAPE((WIDTH, WIDTH), "float32")] * DEPTH


def test_a_scan_keeps_each_of_its_turns():
    cos, carry, there = FOUND.kept
    assert [v.bytes for v in FOUND.kept] == [DEPTH * SLICE, DEPTH * SLICE, 4 * DEPTH * WIDTH**2]
    assert cos.times == carry.times == (DEPTH,)
    assert cos.shape == (ROWS, WIDTH)
    assert cos.type == f"float32[{ROWS},{WIDTH}] x {DEPTH}"
    assert {v.op for v in (cos, carry)} == {"sin"}
    assert {v.readers for v in (cos, carry)} == {("sin",), ("dot_general",)}
    assert (there.kind, there.op, there.readers) == ("argument", "w", ("dot_general",))
    assert FOUND.kept_bytes == FOUND.bytes == 2 * DEPTH * SLICE
    assert FOUND.there_bytes == there.bytes


def test_bytes_are_summed_by_layer_op_and_line():
    whole = 2 * DEPTH * SLICE
    assert FOUND.by("layer") == {"block/act": whole}
    assert FOUND.by("layer", depth=1) == {"block": whole}
    assert FOUND.by("op") == {"sin": whole}
    line = layer.__code__.co_firstlineno + 4
    assert FOUND.by("line") == {f"test_verdict_residuals.py:{line}": whole}


def test_loops_count_as_if_they_were_written_out():
    written = keeping(written_out)(EACH, X)
    assert written.kept_bytes == FOUND.kept_bytes - SLICE  # its first input is an argument
    assert written.there_bytes == FOUND.there_bytes + SLICE
    twice = keeping(
        lambda w, x: jnp.sum(jax.lax.scan(lambda h, _: (scan(h, w), None), x, length=3)[0])
    )
    assert {v.times for v in twice(W, X).kept if not v.is_there} == {(3, DEPTH)}


def scan(h, w):
    return jax.lax.scan(layer, h, w)[0]


def test_a_jitted_function_is_seen_through():
    @jax.jit
    def inner(w, x):
        with jax.named_scope("inner"):
            return jnp.tanh(x @ w)

    found = keeping(lambda w, x: jnp.sum(jax.jit(inner)(w, x)), wrt=0)(EACH[0], X)
    assert set(found.by("op")) == {"tanh"}
    assert set(found.by("layer")) == {"inner"}
    line = "test_verdict_residuals.py"
    assert all(name.startswith(line) for name in found.by("line"))


def test_a_cond_keeps_what_one_of_its_branches_makes():
    def f(w, x):
        h = jax.lax.cond(jnp.sum(x) > 0, lambda h: jnp.tanh(h), lambda h: jnp.exp(h), x @ w)
        return jnp.sum(h)

    found = keeping(f)(EACH[0], X)
    assert any({"exp", "tanh"} == set(v.op.split(" or ")) for v in found.kept)
    assert {v.op for v in found.kept if v.is_there} == {"w", "x"}


def test_a_rule_keeps_what_its_forward_pass_hands_on():
    @jax.custom_vjp
    def twice(x):
        return 2 * x

    twice.defvjp(
        lambda x: (2 * x, (jnp.zeros((5,)) + x[0, 0],)), lambda kept, dy: (2 * dy + kept[0][0],)
    )
    found = keeping(lambda x: jnp.sum(twice(x)))(X)
    assert [(v.bytes, v.op, v.readers) for v in found.kept] == [(20, "twice", ("twice",))]
    ours = keeping(lambda w, x: jnp.sum(fn.gelu(fn.dense(x, w))), wrt=0)
    own = ours(EACH[0], X)
    assert [(v.bytes, v.op, v.readers) for v in own.kept if not v.is_there] == [
        (SLICE, "dense", ("gelu",))
    ]


def test_inside_a_checkpoint_the_policy_decides():
    def f(w, x, policy):
        def block(h, w):
            return jnp.sin(checkpoint_name(h @ w, "product")), None

        return jnp.sum(jax.lax.scan(jax.checkpoint(block, policy=policy), x, w)[0])

    names = jax.checkpoint_policies.save_only_these_names
    bare, kept, wrong = (
        keeping(lambda w, x, policy=policy: f(w, x, policy))(W, X)
        for policy in (None, names("product"), names("produkt"))
    )
    assert bare.kept_bytes == DEPTH * SLICE
    assert kept.kept_bytes == 2 * DEPTH * SLICE
    assert bare.again == SLICE
    assert f"Of this {DEPTH * SLICE} B are kept for the policy save_only_these_names" in str(kept)
    assert "The policy save_only_these_names keeps 0 bytes" in str(wrong)
    assert "policy" not in str(bare)


def test_what_is_closed_over_is_there_anyway():
    constant = jnp.ones((WIDTH, WIDTH))
    found = keeping(lambda x: jnp.sum(jnp.sin(x @ constant)))(X)
    assert [v.kind for v in found.kept] == ["made", "constant"]
    assert found.kept_bytes == SLICE
    assert found.there_bytes == 4 * WIDTH**2


def test_what_nothing_reads_on_the_way_back_is_not_counted():
    found = keeping(lambda x, m: jnp.sum(jnp.where(m, x, 0)))(X, SHAPE(X.shape, "bool"))
    assert [(v.kind, v.op) for v in found.kept] == [("argument", "m")]


def test_a_value_that_is_only_given_another_shape_is_kept_once():
    def f(x):
        y = jnp.sin(x)
        return jnp.sum(jnp.square(y)) + jnp.sum(jnp.exp(jnp.sin(y.reshape(-1))) * y.reshape(-1))

    found = keeping(f)(X)
    assert sum(v.bytes for v in found.kept) == SLICE * len(found.kept)
    assert [v.op for v in found.kept].count("reshape") == 0


def test_has_aux_and_numbers():
    def f(w, x):
        y = jnp.sin(x * w)
        return jnp.sum(x * w), {"y": y, "name": "f"}

    assert [v.op for v in keeping(f, wrt=0, has_aux=True)(2.0, X).kept] == ["x"]


def test_a_mark_comes_out_in_both_passes():
    passes = FOUND.search.measured.passes
    for pass_ in (passes.forward, passes.backward):
        (loop,) = (eqn for eqn in pass_.eqns if eqn.primitive.name == "scan")
        assert marks(runs.scope(loop))
        for body in jaxprs.sub_jaxprs(loop):
            inner = jaxprs.open_jaxpr(body)[0].eqns
            assert inner
            assert all(marks(runs.scope(eqn)) for eqn in inner)


# What if.


def by_hand(policy=None):
    def f(w, x):
        return jnp.sum(jax.lax.scan(jax.checkpoint(layer, policy=policy), x, w)[0])

    return keeping(f)(W, X)


@pytest.mark.parametrize("policy", ["nothing_saveable", "dots_saveable", "everything_saveable"])
def test_what_if_says_what_the_checkpoint_would_do(policy):
    option = FOUND.what_if("block", policy=policy)
    written = by_hand(getattr(jax.checkpoint_policies, policy))
    assert option.bytes == written.bytes
    assert option.saved == FOUND.bytes - written.bytes
    assert option.function is not scanned
    assert keeping(option.function)(W, X).bytes == option.bytes


def test_the_flops_added_are_those_of_what_is_computed_again():
    option = FOUND.what_if("block")
    assert option.flops == DEPTH * 2 * ROWS * WIDTH * WIDTH
    assert FOUND.what_if("block", policy="dots_saveable").flops == 0
    assert f"for {2 * DEPTH * ROWS * WIDTH**2 / 1000:.1f} k more FLOPs" in str(option)


def test_a_layer_that_is_written_out_is_wrapped_wherever_it_stands():
    found = keeping(written_out)(EACH, X)
    w, x = [jnp.ones((WIDTH, WIDTH)) / 9] * DEPTH, jnp.ones(X.shape)
    option = found.what_if("block_*")
    assert option.bytes < found.bytes
    primitives = [eqn.primitive.name for eqn in jax.make_jaxpr(option.function)(w, x).eqns]
    assert sum(name in jaxprs.REMATS for name in primitives) == DEPTH
    ours, theirs = (jax.grad(f, (0, 1))(w, x) for f in (option.function, written_out))
    jax.tree.map(lambda a, b: (jnp.allclose(a, b, rtol=1e-6)) or 1 / 0, ours, theirs)
    with pytest.raises(ValueError, match=r"arguments of the shapes it was made for"):
        option.function(w, x[:1])


def test_a_checkpoint_around_all_saves_nothing():
    option = FOUND.what_if(policy="nothing_saveable")
    assert option.bytes == FOUND.bytes
    assert str(option).endswith("This saves 0 bytes.")
    assert "saves 0 bytes" in str(scores.whole_function())


def test_a_policy_whose_names_are_nowhere_keeps_nothing():
    option = scores.experts_without_names()
    assert option.chosen == 0
    assert "This policy keeps 0 bytes: it is the same as nothing_saveable." in str(option)


def test_all_policies_and_all_layers_side_by_side():
    options = FOUND.policies("block")
    assert {o.policy for o in options.options} == {
        "nothing_saveable", "everything_saveable", "dots_saveable",
        "dots_with_no_batch_dims_saveable",
    }  # fmt: skip
    by_name = {o.policy: o for o in options.options}
    assert by_name["everything_saveable"].saved <= 0 < by_name["nothing_saveable"].saved
    assert str(options).startswith("Without it 1.5 kB are held.")
    layers = FOUND.layers()
    assert [o.checkpoint for o in layers.options] == [("block",), ("block/act",)]
    assert str(layers).count("\n") == 4


def test_fit_into_takes_what_adds_the_fewest_flops():
    assert FOUND.fit_into(FOUND.bytes).policy == ""
    option = FOUND.fit_into(FOUND.bytes - 1)
    assert option.bytes < FOUND.bytes
    cheaper = [
        o
        for o in (*FOUND.policies("block").options, *FOUND.layers().options)
        if o.bytes < FOUND.bytes
    ]
    assert option.flops == min(o.flops for o in cheaper)
    with pytest.raises(ValueError, match=r"got .* at least, with jax.checkpoint around block\b"):
        FOUND.fit_into(10)


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: FOUND.what_if(), ValueError, "expected checkpoint= or policy=, got neither"),
        (lambda: FOUND.what_if("blok"), ValueError, r"got 'blok'. The nearest are block"),
        (lambda: FOUND.what_if([3]), TypeError, "expected the pattern of a layer, got 3"),
        (lambda: FOUND.what_if(3), TypeError, "expected the pattern of a layer, got 3"),
        (lambda: FOUND.what_if(policy="dots"), ValueError, "got 'dots'. The nearest are dots_sav"),
        (
            lambda: FOUND.what_if(policy="save_only_these_names"),
            ValueError,
            r"which makes one. Pass jax.checkpoint_policies.save_only_these_names\(...\)",
        ),
        (lambda: FOUND.what_if(policy=3), TypeError, "or the name of one, got 3"),
        (lambda: FOUND.by("file"), ValueError, "one of 'layer', 'op' and 'line'"),
        (lambda: FOUND.fit_into("4 GB"), ValueError, "a number of bytes, got '4 GB'. Write 4e9"),
        (lambda: keeping(lambda i: i + 1)(3), TypeError, "an argument of a floating dtype, got"),
        (
            lambda: keeping(lambda x: jax.lax.while_loop(lambda x: x < 3, lambda x: x * x, x))(2.0),
            ValueError,
            "got one through a while_loop",
        ),
    ],
)
def test_wrong_calls_end_in_one_sentence(call, error, said):
    with pytest.raises(error, match=said):
        call()


# The compiler, and the command.


def test_the_compiler_orders_checkpoints_likewise():
    model = scores.scanned(scores.gelu_block, 64, (16,), 32, w=(64, 64))
    first = keeping(model.loss, wrt=0)(*model.shapes)
    found = [first.search.measured]
    for patterns, policy in ((("block",), None), (("block/mlp",), None)):
        found.append(first.search._measured(patterns, policy))
    compiled = [m.compiled() for m in found]
    assert sorted(compiled, reverse=True) == [compiled[0], compiled[2], compiled[1]]
    assert [m.bytes for m in found] == pytest.approx(compiled, rel=0.15)


def test_the_command(tmp_path, capsys):
    file = tmp_path / "model.py"
    file.write_text("import jax.numpy as jnp\ndef loss(x):\n    return jnp.sum(jnp.sin(x))\n")
    page = tmp_path / "page.html"
    command = ["residuals", f"{file}:loss", "--args", "[1, 2, 3]", "--html", str(page)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith("loss keeps 12 B for its backward pass.")
    assert "model.py:3" in said
    assert "The compiler sets aside" in said
    assert "<h1>residuals of loss</h1>" in page.read_text()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("name", scores.MODELS)
def test_scanned_models_come_near_the_compiler(name):
    found = scores.scores(scores.MODELS[name]())
    assert not scores.misordered(found)
    assert all(0.85 < ratio < 1.15 for ratio in scores.ratios(found)), found


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("stacked", [False, True])
def test_a_gpt_block_by_block(stacked):
    net = fn.nets.GPT(32, width=32, heads=2, depth=2, length=16, stacked=stacked)
    tokens = SHAPE((2, 16), "int32")
    params, _ = jax.eval_shape(net.init, jax.random.key(0), tokens)

    def loss(params, tokens):
        return fn.cross_entropy(net(params, tokens), tokens)

    found = keeping(loss, wrt=0)(params, tokens)
    option = found.what_if("blocks" if stacked else "block_*")
    assert 0.3 < option.bytes / found.bytes < 0.8
    assert all(len(line) <= 100 for line in str(found).splitlines())
    real, _ = net.init(jax.random.key(0), jnp.zeros((2, 16), int))
    x = jnp.zeros((2, 16), int)
    pairs = zip(
        jax.tree.leaves(jax.grad(option.function)(real, x)),
        jax.tree.leaves(jax.grad(loss)(real, x)),
        strict=True,
    )
    assert all(jnp.allclose(a, b, atol=1e-5) for a, b in pairs)
