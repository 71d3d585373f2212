"""The wrong ways to make and to call a network, each with one sentence that says what to do."""

import functools
import inspect
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from ..jaxpr.jaxprs import is_traced
from ..types import is_whole, require, shown

CALLED = "A layer is made by a call, as in Dense(10)."
FED = "A child takes what the one before it returns; if it makes a layer, call it first."

NOT_TRACEABLE = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)


def makes_layers(f: Any) -> bool:
    """Whether `f` says that it returns a Layer, as Dense does: called, it would be one.

    >>> from funcnet.layers.linear import Dense
    >>> makes_layers(Dense), makes_layers(jax.nn.relu), makes_layers(Dense(3))
    (True, False, False)
    """
    while isinstance(f, functools.partial):
        f = f.func
    if isinstance(f, type):
        return f.__name__ == "Layer"
    returned = getattr(f, "__annotations__", {}).get("return")
    name = returned if isinstance(returned, str) else getattr(returned, "__name__", "")
    return name.rpartition(".")[2] == "Layer"


def is_function(f: Any, layer: type) -> bool:
    """Whether `f` may be a function of arrays: it is none that makes a `layer`, and no layer."""
    return callable(f) and not isinstance(f, layer) and not makes_layers(f)


def check_child(where: str, child: Any, is_layer: bool) -> None:
    """Raise unless `child` is a layer or a function that is none's factory."""
    remedy = CALLED
    if isinstance(child, str):
        remedy = "Pass the function itself, as in fn.relu."
    elif isinstance(child, list | tuple):
        remedy = f"Pass them one by one, as in {where}(*layers)."
    require(
        is_layer or (callable(child) and not makes_layers(child)),
        where,
        "a Layer or a function as child",
        f"the uncalled {name_of(child)}" if makes_layers(child) else shown(child),
        remedy,
        TypeError,
    )


def name_of(f: Any) -> str:
    """What a function or class is called, that inside of a partial one too."""
    while isinstance(f, functools.partial):
        f = f.func
    return getattr(f, "__name__", None) or type(f).__name__


def takes(f: Callable, *args: Any) -> bool:
    """Whether `f(*args)` is a call that `f` takes, as far as its signature tells.

    >>> takes(lambda x, y=0: x, 1), takes(lambda x, y=0: x)
    (True, False)
    """
    try:
        inspect.signature(f).bind(*args)
    except TypeError:
        return False
    except ValueError:  # some that are written in C have no signature
        return True
    return True


def call(where: str, f: Callable, *args: Any, given: int = 0, remedy: str = "") -> Any:
    """`f(*args)`, or one sentence if it takes other inputs; the first `given` are not the user's.

    >>> call("add", lambda x, y: x + y, 1, remedy="Pass two.")
    Traceback (most recent call last):
        ...
    TypeError: add: expected the arguments (x, y), got 1 of them. Pass two.
    """
    try:
        return f(*args)
    except TypeError:
        _check_inputs_fit(where, f, args, given, remedy)
        raise


def _check_inputs_fit(where: str, f: Callable, args: tuple, given: int, remedy: str) -> None:
    if takes(f, *args):
        return
    parameters = list(inspect.signature(f).parameters.values())[given:]
    names = ", ".join(str(p.replace(annotation=p.empty)) for p in parameters)
    plain = ", ".join(p.name for p in parameters if p.default is p.empty)
    kind = "inputs" if given or remedy == FED else "arguments"
    remedy = _misplaced(args[given:]) or remedy
    raise TypeError(
        f"{where}: expected the {kind} ({names}), got {len(args) - given} of them. "
        + (remedy or f"Call net.init(key, {plain}) and net(params, {plain}).")
    ) from None


def _misplaced(inputs: tuple) -> str:
    """What to do, if among the inputs there is what is none."""
    if any(isinstance(x, bool | np.bool_) or _is_key(x) for x in inputs):
        return "Write train and key by name: net.apply(params, state, x, train=True, key=key)."
    if any(isinstance(x, Mapping) for x in inputs):
        return "State goes to net.apply(params, state, x) alone; in a body it is net.dense(x)."
    return ""


def check_output(where: str, output: Any, is_layer: bool) -> Any:
    """`output` of a function that is a child or a body, unless it is a layer or nothing."""
    require(
        not is_layer,
        where,
        "a function of arrays",
        "one that makes a layer",
        "Call it first, and give the layer that it returns.",
        TypeError,
    )
    require(
        output is not None,
        where,
        "a function that returns its output",
        "None",
        "End it with a return.",
        TypeError,
    )
    return output


def check_not_a_factory(where: str, error: Exception) -> None:
    """Raise if the error comes from a layer that was being made of an array in place of a number.

    So ends a factory without annotations that was given uncalled: def Block(width): ...
    """
    made = _made_of_an_array(error.__traceback__)
    require(
        made is None,
        where,
        "a function of arrays",
        f"one that makes a layer, as it calls {made} with an array",
        "Call it first, and give the layer that it returns.",
        TypeError,
    )


def _made_of_an_array(trace: TracebackType | None) -> str | None:
    while trace is not None:
        code, frame = trace.tb_frame.f_code, trace.tb_frame
        function = frame.f_globals.get(code.co_name)
        if getattr(function, "__code__", None) is code and makes_layers(function):
            given = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            if any(isinstance(frame.f_locals.get(name), jax.Array) for name in given):
                return code.co_name
        trace = trace.tb_next
    return None


def check_layer(init: Any, apply: Any, name: Any) -> None:
    """Raise unless these are what a layer is made of."""
    require(
        callable(init) and callable(apply) and isinstance(name, str),
        "Layer",
        "the functions init and apply, and a name",
        ", ".join(map(shown, (init, apply, name))),
        'Write Layer(init, apply, "name"); pure(f) and stateless(init, f) make the usual ones.',
        TypeError,
    )


def _check_pair(where: str, wanted: str, pair: Any, dicts: tuple[int, ...]) -> Any:
    """`pair`, as one of a layer's two functions returns it, unless it is none."""
    both = isinstance(pair, tuple | list) and len(pair) == 2
    require(
        both and all(isinstance(pair[i], Mapping) for i in dicts),
        where,
        f"a function that returns {wanted}",
        f"({', '.join(map(shown, pair))})" if both else shown(pair),
        "Without parameters or state there is {} in their place.",
        TypeError,
    )
    return pair


def checked_init(where: str, init: Callable) -> Callable:
    """`init` of a layer, which says in one sentence what is wrong with its arguments."""
    init = getattr(init, "unchecked", init)

    @functools.wraps(init)
    def _init(*args: Any, **options: Any) -> Any:
        key, inputs = args[0] if args else options.get("key"), args[1:]
        if not _is_key(key):
            _refuse_key(where, "a random key first", key, "net.init(jax.random.key(0), x)")
        for place, x in enumerate(inputs):
            check_example(where, x, first=place == 0)
        drawn = _guarded(where, "init(key, *inputs)", init, args, options)
        return _check_pair(where, "the dicts (params, state)", drawn, (0, 1))

    _init.unchecked = init  # pyright: ignore[reportAttributeAccessIssue]  # a function takes any
    return _init


def checked_apply(where: str, apply: Callable) -> Callable:
    """`apply` of a layer, which says in one sentence what is wrong with its arguments."""
    apply = getattr(apply, "unchecked", apply)

    @functools.wraps(apply)
    def _apply(*args: Any, **options: Any) -> Any:
        given = dict(zip(("params", "state"), args, strict=False)) | options
        if "params" in given:
            check_params(where, given["params"])
        if "state" in given:
            _check_state(where, given["state"])
        if "train" in options:
            options["train"] = _plain_bool(where, options["train"])
        for x in args[2:]:
            _check_no_shape(where, x)
        key = options.get("key")
        if key is not None and not _is_key(key):
            _refuse_key(where, "key to be a random key", key, "apply(..., key=jax.random.key(0))")
        call = "apply(params, state, *inputs, train=False, key=None)"
        output = _guarded(where, call, apply, args, options)
        return _check_pair(where, "(output, state), the state a dict", output, (1,))

    _apply.unchecked = apply  # pyright: ignore[reportAttributeAccessIssue]  # a function takes any
    return _apply


def _guarded(where: str, call: str, f: Callable, args: tuple, options: dict[str, Any]) -> Any:
    try:
        return f(*args, **options)
    except NOT_TRACEABLE as error:
        raise TypeError(
            f"{where}: expected code that a trace can follow, got Python or NumPy that looks at "
            f"the numbers in an array ({type(error).__name__}). Write jnp.where or jax.lax.cond "
            "for an if on numbers, and jnp for np; shapes are known."
        ) from error
    except TypeError:
        _check_call_fits(where, call, f, args, options)
        raise


def _check_call_fits(
    where: str, call: str, f: Callable, args: tuple, options: dict[str, Any]
) -> None:
    try:
        inspect.signature(f).bind(*args, **options)
    except TypeError as mismatch:
        raise TypeError(
            f"{where}: expected a call {call}, got a wrong one ({mismatch}). Inputs go by "
            "position, train and key by name."
        ) from None


def check_params(where: str, params: Any) -> None:
    """Raise unless `params` is a dict."""
    pair = isinstance(params, tuple) and len(params) == 2 and isinstance(params[0], Mapping)
    require(
        isinstance(params, Mapping),
        where,
        "parameters (a dict) first",
        "a pair of them and the state" if pair else shown(params),
        "Take the pair apart: params, state = net.init(key, x)."
        if pair
        else "Call net(params, x) with the parameters from net.init(key, x).",
        TypeError,
    )


def _check_state(where: str, state: Any) -> None:
    require(
        isinstance(state, Mapping),
        where,
        "state (a dict) second",
        shown(state),
        "Call net.apply(params, state, x) with the state from net.init(key, x), {} if it has none.",
        TypeError,
    )


def _check_no_shape(where: str, x: Any) -> None:
    require(
        not isinstance(x, jax.ShapeDtypeStruct),
        where,
        "arrays as inputs",
        f"a ShapeDtypeStruct, {shown(x)}",
        "Only init takes one; jax.eval_shape(net, params, x) gives the shape of the output.",
        TypeError,
    )


def _plain_bool(where: str, train: Any) -> bool:
    traced = is_traced(train)
    require(
        isinstance(train, bool | np.bool_),
        where,
        "train to be True or False",
        "a traced array" if traced else shown(train),
        'It decides what is computed, so keep it static: jax.jit(f, static_argnames="train").'
        if traced
        else "Write train=True in training, and nothing otherwise.",
        TypeError,
    )
    return bool(train)


def _is_key(key: Any) -> bool:
    if not (hasattr(key, "dtype") and hasattr(key, "ndim")):
        return False
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key.ndim == 0
    return key.dtype == np.uint32 and key.ndim == 1


def _refuse_key(where: str, expected: str, key: Any, call: str) -> NoReturn:
    several = hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    remedy = "Take one of them, keys[0]." if several else f"Call {call}."
    got = "nothing" if key is None else f"keys of shape {key.shape}" if several else shown(key)
    raise TypeError(f"{where}: expected {expected}, got {got}. {remedy}")


def check_example(where: str, x: Any, first: bool = True) -> None:
    """Raise unless `x` is an array, a shape of one, or a tree of these, to make a network for."""
    numbers = isinstance(x, list | tuple) and any(map(_is_number, jax.tree.leaves(x)))
    is_shape = numbers and isinstance(x, tuple) and all(is_whole(n, 0) for n in x)
    fits = all(map(_is_example, jax.tree.leaves(x))) and not numbers
    remedy = "Pass an array, jnp.asarray(x); text and objects have to become numbers first."
    require(
        fits and not (first and isinstance(x, int)),
        where,
        "an array or jax.ShapeDtypeStruct as example input",
        shown(x),
        f"Pass an array of this shape: jnp.zeros({x})." if is_shape else remedy,
        TypeError,
    )


def _is_example(leaf: Any) -> bool:
    if _is_number(leaf):
        return True
    dtype = getattr(leaf, "dtype", None)
    if isinstance(dtype, np.dtype):
        return hasattr(leaf, "shape") and dtype.kind in "biufcV"
    return type(dtype).__module__.startswith("jax")  # that of keys


def _is_number(leaf: Any) -> bool:
    return isinstance(leaf, bool | int | float | complex)
