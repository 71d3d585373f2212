"""Hand-written backward passes: `rule` attaches one to a function, `autodiff` takes them all off.

An op here is three functions that stand together: what it computes (the *primal*, plain
`jax.numpy`), a `forward` that computes the same and says what to keep, and a `backward` that
turns the cotangent of the output into cotangents of the arguments. `rule` makes them one
differentiable function and adds a row to the table `RULES`, which is what gets listed, proved
and tested. The primal stays as written: it is the oracle of every check.

    def _square_forward(x):
        return x * x, x

    def _square_backward(x, dy):
        '''dx = 2 x dy'''
        return (2 * x * dy,)

    @rule(_square_forward, _square_backward)
    def square(x):
        '''x^2, elementwise.'''
        return x * x

Positional parameters are arrays (or pytrees of arrays, or None); keyword-only parameters are
static. A rule with tracers in its closure is right as well: the closed-over arrays get the
gradient that JAX derives from the primal.
"""

import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from ..figures import mean_of, note
from ..jaxpr import jaxprs
from ..types import require
from .arguments import accepted, bind, kind, parameters
from .closure import opened
from .cotangents import Shapes, conform, operand_shapes
from .passes import Passes, in_float32, recomputing

NO_CASES: Mapping[str, "Case"] = types.MappingProxyType({})


class Case(NamedTuple):
    """One way to call an op, as a proof needs it.

    Attributes:
        make: Draws the positional arguments, NumPy's or JAX's arrays, from a generator of NumPy's.
            Floating arrays are cast to the dtype under test; booleans, keys and None stay, and
            integers become int32.
        static: The keyword-only arguments.
    """

    make: Callable[[np.random.Generator], tuple]
    static: Mapping[str, Any] = types.MappingProxyType({})


class Rule(NamedTuple):
    """A row of `RULES`: an op, its hand-written rule, and the cases that prove it."""

    name: str
    primal: Callable
    forward: Callable
    backward: Callable
    nodiff: tuple[str, ...]
    cases: Mapping[str, Case]
    fast: bool
    op: Callable
    count: Callable | None = None
    check: Callable | None = None
    rounds: bool = False

    @property
    def arguments(self) -> tuple[str, ...]:
        """Names of the array arguments, in order."""
        return tuple(name for name, kind in parameters(self.primal) if kind != "static")

    def options(self, static: Mapping[str, Any]) -> dict[str, Any]:
        """All static arguments of a call that names these: the others have their defaults."""
        kinds = dict(parameters(self.primal))
        declared = inspect.signature(self.primal).parameters.items()
        return {name: p.default for name, p in declared if kinds[name] == "static"} | dict(static)

    @property
    def derivation(self) -> str:
        """The backward pass as formulas: the docstring of `backward`."""
        return inspect.cleandoc(self.backward.__doc__ or "")


RULES: dict[str, Rule] = {}
"""Every op with a hand-written rule, by name, in order of definition."""


def normal_case(*shapes: Sequence[int] | None, **static: Any) -> Case:
    """A case whose arguments are standard normal arrays of the given shapes (None stays None).

    >>> case = normal_case((2, 3), None, axis=-1)
    >>> x, none = case.make(np.random.default_rng(0))
    >>> x.shape, none, dict(case.static)
    ((2, 3), None, {'axis': -1})
    """

    def make(random: np.random.Generator) -> tuple:
        return tuple(None if shape is None else random.standard_normal(shape) for shape in shapes)

    return Case(make, static)


def rule(
    forward: Callable,
    backward: Callable,
    *,
    nodiff: Sequence[str] = (),
    cases: Mapping[str, Case] = NO_CASES,
    check: Callable | None = None,
    wide: bool = False,
    recomputes: bool = False,
    rounds: bool = False,
    fast: bool = False,
    count: Callable | None = None,
) -> Callable[[Callable], Callable]:
    """Give a function a backward pass written by hand.

    Args:
        forward: Takes what the primal takes; returns `(output, res)`, where `res` is a pytree of
            what the backward pass needs.
        backward: Takes `(res, dy)`, and by keyword those static arguments it names; returns a
            tuple with one cotangent for each array argument: None for one without a gradient
            (integers, booleans, keys, `nodiff`, an argument that is None).
        nodiff: Names of floating arguments that are constants: they get no gradient of any order.
            The primal says so too, with `jax.lax.stop_gradient`, for it is the oracle.
        cases: What proves the rule; see `Case`.
        check: Called once for each call of the op, with its name and, by keyword, those of its
            arguments that it names; raises if they do not fit.
        wide: Whether all three functions get 16-bit floating arguments in float32. Then the first
            output is rounded to the dtype of the first floating argument.
        recomputes: Whether `backward` computes again what `forward` could have kept: then XLA must
            not keep it after all.
        rounds: Whether what is made on the way is rounded to 16 bits if the arguments are so, as
            operands of products are; see `prove` for what is asked of it then.
        fast: Whether `forward` is the faster way to the output: then a call that is not
            differentiated runs it too, and drops what it keeps, and `autodiff` has JAX
            differentiate it. Otherwise both take the primal.
        count: Of a loss: from its arguments by name to what its mean is over, so that the means of
            many batches join: `EACH` where that is all examples, None where it is no mean; see
            `funcnet.figures`.

    Returns:
        A decorator. The op it makes takes keyword-only arguments as static, runs under the scope
        of its name in both directions, and tags its output with `checkpoint_name`, so that
        `jax.checkpoint_policies.save_only_these_names("dense")` keeps it. A rule at the top of a
        module has a row in `RULES`; the row is also `op.rule`.

    Raises:
        TypeError: If a call's arguments do not fit the primal, a static argument is not hashable,
            or the backward pass returns something that does not fit the arguments.
        ValueError: If another module has an op of this name, or a cotangent has a wrong shape.

    >>> @rule(lambda x: (x * x, x), lambda x, dy: (2 * x * dy,))
    ... def square(x):
    ...     return x * x
    >>> float(jax.grad(square)(3.0))
    6.0
    """

    def decorate(primal: Callable) -> Callable:
        name = primal.__name__
        _check_signatures(primal, forward, backward, nodiff)
        signature = inspect.signature(primal)
        passes = Passes(primal, forward, backward)
        passes = in_float32(passes) if wide else passes
        passes = recomputing(passes) if recomputes else passes

        @functools.wraps(primal)
        def op(*args: Any, **kwargs: Any) -> Any:
            operands, static = bind(name, signature, args, kwargs)
            if check is not None:
                check(name, **accepted(check, _given(record, operands, static)))
            if local:
                return _with_closure(record, static, operands)
            output = build(static, tuple(map(kind, static)))(*operands)
            if count is not None:
                note(output, lambda: _mean(record, output, operands, static))
            return output

        record = Rule(name, *passes, tuple(nodiff), cases, fast, op, count, check, rounds)
        build = functools.lru_cache(lambda static, kinds: _differentiable(record, static))
        local = "<locals>" in primal.__qualname__
        op.rule = record  # pyright: ignore[reportAttributeAccessIssue]  # a function takes attributes
        if not local:
            held = RULES.get(name)
            require(
                held is None or held.primal.__module__ == primal.__module__,
                "rule",
                "a name that no other module has given to an op",
                f"{name!r}, which {held and held.primal.__module__} has",
                "Choose another name.",
            )
            RULES[name] = record
        return op

    return decorate


def _mean(record: Rule, output: Any, operands: tuple, static: tuple) -> Any:
    assert record.count is not None
    count = record.count(**accepted(record.count, _given(record, operands, static)))
    return count if count is None or isinstance(count, str) else mean_of(output, count)


def _given(record: Rule, operands: tuple, static: tuple) -> dict[str, Any]:
    return dict(zip(record.arguments, operands, strict=True)) | dict(static)


def autodiff(f: Callable) -> Callable:
    """`f` without custom derivative rules: JAX differentiates what a call runs instead.

    The rules of JAX's own functions stay where forward mode can take them, as that of
    `jax.nn.relu`: the slope at 0 is theirs.

    Works on any function, also of other libraries: the jaxpr is rewritten, inside jit, scan, while,
    cond and remat as well. So forward mode and all that is built on it (`jax.jvp`, `jax.jacfwd`,
    `jax.hessian`, `jax.linearize`) work on any network.

    Args:
        f: Any function. Arrays are traced; other leaves (Python numbers, strings) are static.

    Returns:
        A function of the same arguments and outputs.

    >>> @rule(lambda x: (x**3, x), lambda x, dy: (3 * x**2 * dy,))
    ... def cube(x):
    ...     return x**3
    >>> float(jax.hessian(autodiff(cube))(2.0))
    12.0
    """

    @functools.wraps(f)
    def plain(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = jax.tree.flatten((args, kwargs))
        traced = [i for i, leaf in enumerate(leaves) if _is_array(leaf)]

        def call(*arrays: Any) -> Any:
            filled = list(leaves)
            for i, array in zip(traced, arrays, strict=True):
                filled[i] = array
            args, kwargs = tree.unflatten(filled)
            return f(*args, **kwargs)

        arrays = [leaves[i] for i in traced]
        closed, out_tree = jaxprs.trace(call, *arrays)
        return out_tree.unflatten(
            jaxprs.evaluate(jaxprs.rewrite(closed, jaxprs.strippable_body), *arrays)
        )

    return plain


def _is_array(leaf: object) -> bool:
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def _check_signatures(
    primal: Callable, forward: Callable, backward: Callable, nodiff: Sequence[str]
) -> None:
    where = f"rule for {primal.__name__}"
    own = dict(parameters(primal))
    arrays = [name for name, kind in own.items() if kind == "array"]
    static = {name for name, kind in own.items() if kind == "static"}
    require(
        "rest" not in own.values(),
        where,
        "a primal with named parameters only",
        f"{inspect.signature(primal)}",
        "Name every array positionally and every static argument after a bare `*`.",
        TypeError,
    )
    for name in nodiff:
        require(
            name in arrays,
            where,
            f"nodiff names among the array arguments {arrays}",
            repr(name),
            "Keyword-only arguments are static and need no mention.",
        )
    for role, f in (("forward", forward), ("backward", backward)):
        extra = sorted({n for n, kind in parameters(f) if kind == "static"} - static)
        require(
            not extra,
            where,
            f"a {role} whose keyword-only arguments are the primal's {sorted(static)}",
            f"{extra} besides",
            "Take them from the residuals instead.",
            TypeError,
        )


def _with_closure(record: Rule, static: tuple[tuple[str, Any], ...], operands: tuple) -> Any:
    """Call an op made inside a function, whose closure may hold tracers."""
    options = dict(static)
    primal, forward, backward = (
        functools.partial(f, **accepted(f, options))
        for f in (record.primal, record.forward, record.backward)
    )
    parts = opened(primal, forward, backward, operands)
    if parts is None:
        return _differentiable(record, static)(*operands)
    first = inspect.Parameter("closure", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    rest = [p for p in inspect.signature(record.primal).parameters.values() if p.kind == first.kind]

    def whole_primal(closed: Any, *operands: Any) -> Any:
        return parts.primal(closed, *operands)

    whole_primal.__signature__ = inspect.Signature(  # pyright: ignore[reportFunctionMemberAccess]
        [first, *rest]
    )
    whole = record._replace(primal=whole_primal, forward=parts.forward, backward=parts.backward)
    return _differentiable(whole, ())(parts.closed, *operands)


def _differentiable(record: Rule, static: tuple[tuple[str, Any], ...]) -> Callable:
    """The `jax.custom_vjp` of one op with its static arguments filled in."""
    name, options = record.name, dict(static)
    primal = functools.partial(record.primal, **options)
    forward = functools.partial(record.forward, **accepted(record.forward, options))
    backward = functools.partial(record.backward, **accepted(record.backward, options))
    takes_gradient = [argument not in record.nodiff for argument in record.arguments]

    def held(operands: tuple) -> tuple:
        pairs = zip(operands, takes_gradient, strict=True)
        return tuple(x if wanted else jax.lax.stop_gradient(x) for x, wanted in pairs)

    def plain(*operands: Any) -> Any:
        with jax.named_scope(name):
            given = held(operands)
            return _tag(forward(*given)[0] if record.fast else primal(*given), name)

    def keep(*operands: Any) -> tuple[Any, Any]:
        with jax.named_scope(name):
            output, res = forward(*held(operands))
            tagged = _tag(output, name)
        return tagged, (_swap(res, output, tagged), Shapes(operand_shapes(operands)))

    def pull_back(saved: Any, dy: Any) -> tuple:
        res, shapes = saved
        with jax.named_scope(name):
            cotangents = backward(res, dy)
        return conform(name, record.arguments, cotangents, shapes.of, takes_gradient)

    plain.__name__ = plain.__qualname__ = name
    pull_back.__doc__ = record.backward.__doc__
    pull_back.arguments = record.arguments  # pyright: ignore[reportFunctionMemberAccess]
    pull_back.options = record.options(options)  # pyright: ignore[reportFunctionMemberAccess]
    op = jax.custom_vjp(plain)
    op.defvjp(keep, pull_back)
    return op


def _tag(output: Any, name: str) -> Any:
    return jax.tree.map(lambda y: checkpoint_name(y, name), output)


def _swap(res: Any, output: Any, tagged: Any) -> Any:
    """Residuals with each array that is an output replaced by the tagged output: kept once."""
    new = {id(y): t for y, t in zip(jax.tree.leaves(output), jax.tree.leaves(tagged), strict=True)}
    return jax.tree.map(lambda r: new.get(id(r), r), res)
