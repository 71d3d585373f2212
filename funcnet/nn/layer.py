"""The protocol: a network is two pure functions.

    params, state = net.init(key, x)
    output, state = net.apply(params, state, x, train=True, key=key)

`init` draws the parameters and the first state from a key and from the shapes of the inputs.
`apply` computes; it reads nothing but its arguments and changes nothing, so `jax.jit`, `jax.grad`
and `jax.vmap` take it as it is. Parameters and state are nested dicts of arrays; a layer that has
none has `{}`. `train` is a plain bool and never traced. `key` is needed in training by the layers
that draw random numbers, and by no other.
"""

import contextlib
import contextvars
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import jax

from ..jaxpr.jaxprs import is_traced, shape_struct
from ..render import forms, text
from ..types import Array, Key, Params, State, require, shown
from . import refusals


@dataclass(frozen=True)
class Layer:
    """A network: a pair of pure functions, and a name for what it is.

    Attributes:
        init: `(key, *inputs) -> (params, state)`. The inputs are arrays or `ShapeDtypeStruct`s;
            only their shapes and dtypes count.
        apply: `(params, state, *inputs, train=False, key=None) -> (output, state)`.
        name: What it is, in lower case: "conv", "dense". A positional child is named by it.

    >>> double = Layer(lambda key, x: ({}, {}), lambda p, s, x, train=False, key=None: (2 * x, s))
    >>> double({}, 3.0)
    6.0
    """

    init: Callable[..., tuple[Params, State]] = field(repr=False)
    apply: Callable[..., tuple[Any, State]] = field(repr=False)
    name: str = "layer"

    def __post_init__(self) -> None:
        refusals.check_layer(self.init, self.apply, self.name)
        # Whoever calls the two functions, and of whatever layer, hears what is wrong in a sentence.
        init, apply = (
            refusals.checked_init(self.name, self.init),
            refusals.checked_apply(self.name, self.apply),
        )
        object.__setattr__(self, "init", init)
        object.__setattr__(self, "apply", apply)

    def __call__(self, params: Params, *inputs: Any, **options: Any) -> Any:
        """The output alone, of a network that needs neither state nor key; see `apply`.

        Raises:
            TypeError: If `params` is no dict, or an option such as `train` is given.
            ValueError: If a layer inside needs state or a key; the message shows the call to make.
        """
        require(
            not options,
            self.name,
            "net(params, x), which evaluates without state",
            ", ".join(f"{name}={shown(value)}" for name, value in options.items()),
            "Call output, state = net.apply(params, state, x, train=True, key=key)."
            if options.keys() <= {"state", "train", "key"}
            else "Inputs go by position.",
            TypeError,
        )
        return self.apply(params, {}, *inputs)[0]

    if not TYPE_CHECKING:  # a checker knows the attributes

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"{self.__dict__.get('name', 'layer')}: expected init, apply, name, named or "
                f"summary of a layer, got {name!r}. A layer holds no numbers: params, state = "
                "net.init(key, x)."
            )

    def named(self, name: str) -> "Layer":
        """The same network under another name."""
        return replace(self, name=name)

    def summary(self, *inputs: Any) -> "Summary":
        """The layers, their outputs and parameters as a table; shapes only, nothing is computed.

        Args:
            *inputs: Example inputs: arrays or `jax.ShapeDtypeStruct`s.

        Raises:
            TypeError: If an input is neither, or there are too many or too few.
        """
        for x in inputs:
            refusals.check_example(self.name, x)
        params, state, calls = calls_of(self, *inputs)
        rows = [_row(call, params, state) for call in calls[1:]]
        return Summary(self.name, tuple(rows), _row(calls[0], params, state)._replace(path="total"))


def pure(f: Callable, name: str | None = None) -> Layer:
    """A function of the inputs alone as a layer.

    Raises:
        TypeError: If `f` is no function of arrays; when applied, if it returns nothing or a layer.

    >>> import jax.numpy as jnp
    >>> float(pure(jnp.tanh)({}, 0.0))
    0.0
    """

    where = name or _name_of(f)
    refusals.check_child("pure", f, isinstance(f, Layer))

    def run(*inputs: Any) -> Any:
        try:
            output = refusals.call(where, f, *inputs, remedy=refusals.FED)
        except (TypeError, ValueError) as error:
            refusals.check_not_a_factory(where, error)
            raise
        return refusals.check_output(where, output, isinstance(output, Layer))

    def init(key: Key, *inputs: Any) -> tuple[Params, State]:
        if not any(map(is_traced, jax.tree.leaves(inputs))):  # inside a network it runs anyway
            jax.eval_shape(run, *inputs)
        return {}, {}

    def apply(
        params: Params, state: State, *inputs: Any, train: bool = False, key: Key | None = None
    ) -> tuple[Any, State]:
        return run(*inputs), state

    return Layer(init, apply, where)


def stateless(init: Callable[..., Params], f: Callable, name: str | None = None) -> Layer:
    """A function of parameters and inputs as a layer: `init(key, *inputs)`, `f(params, *inputs)`.

    Raises:
        TypeError: When `init` returns no dict, or `f` nothing or a layer.

    >>> import jax.numpy as jnp
    >>> def init(key, x):
    ...     return {"scale": jnp.ones(x.shape[-1])}
    >>> scale = stateless(init, lambda params, x: x * params["scale"])
    >>> params, state = scale.init(jax.random.key(0), jnp.ones((2, 3)))
    >>> scale(params, jnp.ones((2, 3))).shape
    (2, 3)
    """

    where = name or _name_of(f)

    def draw(key: Key, *inputs: Any) -> tuple[Params, State]:
        return refusals.call(where, init, key, *inputs, given=1), {}

    def apply(
        params: Params, state: State, *inputs: Any, train: bool = False, key: Key | None = None
    ) -> tuple[Any, State]:
        output = refusals.call(where, f, params, *inputs, given=1)
        return refusals.check_output(where, output, isinstance(output, Layer)), state

    return Layer(draw, apply, where)


def lift(child: Layer | Callable, where: str = "lift") -> Layer:
    """A layer as it is, a plain function as `pure`.

    Raises:
        TypeError: If `child` is neither, such as a layer's maker that was not called.
    """
    refusals.check_child(where, child, isinstance(child, Layer))
    return child if isinstance(child, Layer) else pure(child)


def take(where: str, tree: dict[str, Any], *names: str) -> tuple[Any, ...]:
    """The named parameters of one layer.

    Raises:
        ValueError: If one is missing: these are the parameters of another network, or none.
    """
    require(
        isinstance(tree, dict) and all(name in tree for name in names),
        where,
        f"parameters {', '.join(names)}",
        (", ".join(sorted(tree)) if isinstance(tree, dict) else type(tree).__name__) or "none",
        "Use what this network's own net.init(key, x) returned.",
    )
    return tuple(tree[name] for name in names)


def take_state(where: str, state: State, *names: str) -> tuple[Any, ...]:
    """The named state of one layer.

    Raises:
        ValueError: If it is missing; the message shows the call to make.
    """
    require(
        all(name in state for name in names),
        where,
        f"state {', '.join(names)}",
        ", ".join(sorted(state)) or "none",
        "Call `output, state = net.apply(params, state, x)` with the state from net.init(key, x).",
    )
    return tuple(state[name] for name in names)


def need_key(where: str, key: Key | None) -> Key:
    """`key`, or one sentence that it is missing.

    Raises:
        ValueError: If `key` is None.
    """
    require(
        key is not None,
        where,
        "a random key in training",
        "key=None",
        "Call net.apply(params, state, x, train=True, key=jax.random.key(0)), "
        "with another key for each step.",
    )
    assert key is not None
    return key


def child_key(key: Key | None, name: str, call: int = 0) -> Key | None:
    """The key of a child: it depends on the child's name and on nothing else in the network."""
    if key is None:
        return None
    key = jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)
    return jax.random.fold_in(key, call) if call else key


def run_child(
    child: Layer,
    name: str,
    params: Params,
    state: State,
    inputs: Sequence[Any],
    *,
    train: bool,
    key: Key | None,
) -> tuple[Any, State]:
    """Apply a child under the scope of its name; an error inside says which child it was."""
    with jax.named_scope(name), _path_in_errors(name), _entered(name, inputs) as record:
        output, state = child.apply(params, state, *inputs, train=train, key=key)
        record(output)
    return output, state


@contextlib.contextmanager
def _path_in_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError) as error:
        inner = getattr(error, "layer_path", None)
        path = name if inner is None else f"{name}/{inner}"
        error.layer_path = path  # pyright: ignore[reportAttributeAccessIssue]  # for the next one out
        notes = [n for n in getattr(error, "__notes__", []) if not n.startswith("in layer ")]
        error.__notes__ = [*notes, f"in layer {path}"]
        raise


class Call(NamedTuple):
    """One call of a layer inside a network: its path, and the shapes that went in and came out."""

    path: tuple[str, ...]
    inputs: tuple
    output: Any


def calls_of(net: Layer, *inputs: Any) -> tuple[Params, State, list[Call]]:
    """The shapes of a network's parameters and state, and its calls in order, its own first.

    Args:
        net: Any network.
        *inputs: Example inputs: arrays or `jax.ShapeDtypeStruct`s. Nothing is computed.

    >>> _, _, calls = calls_of(pure(jax.numpy.sum), jax.ShapeDtypeStruct((2, 3), "float32"))
    >>> [call.output.shape for call in calls]
    [()]
    """
    shapes = tuple(jax.tree.map(shape_struct, x) for x in inputs)
    params, state = jax.eval_shape(net.init, jax.random.key(0), *shapes)
    with _recorded() as calls:
        # A function of its own, since JAX does not run again what it has traced before.
        output, _ = jax.eval_shape(lambda *args: net.apply(*args), params, state, *shapes)
    return params, state, [Call((), shapes, output), *calls]


class _Row(NamedTuple):
    path: str
    output: str
    parameters: int
    bytes: int
    state_bytes: int


@dataclass(frozen=True)
class Summary:
    """What `Layer.summary` returns; print it.

    Attributes:
        name: The network's name.
        rows: One for each layer call: path, output shape, parameters, bytes, bytes of state.
        total: The same for the whole network, each parameter counted once.
    """

    name: str
    rows: tuple[_Row, ...]
    total: _Row

    def __str__(self) -> str:
        columns = (
            forms.Column("layer"),
            forms.Column("output"),
            forms.Column("parameters", right=True),
            forms.Column("size", right=True),
        )
        cells = tuple(self._cells(row) for row in (*self.rows, self.total))
        state = self.total.state_bytes
        notes = (f"State beside the parameters: {forms.size(state)}.",) if state else ()
        return text.table(forms.Table(columns, cells, notes=notes))

    @staticmethod
    def _cells(row: _Row) -> tuple[str, ...]:
        return row.path, row.output, forms.count(row.parameters), forms.size(row.bytes)


def _row(call: Call, params: Params, state: State) -> _Row:
    own, carried = _subtree(params, call.path), _subtree(state, call.path)
    shapes = ", ".join(_shape_text(leaf) for leaf in jax.tree.leaves(call.output))
    sizes = [leaf.size for leaf in jax.tree.leaves(own)]
    return _Row("/".join(call.path), shapes, sum(sizes), _bytes(own), _bytes(carried))


def _subtree(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree.get(name, {})
    return tree


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _shape_text(leaf: Array) -> str:
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


_calls: contextvars.ContextVar[list[Call] | None] = contextvars.ContextVar("calls", default=None)
_path: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("path", default=())


@contextlib.contextmanager
def _recorded() -> Iterator[list[Call]]:
    """While this is open, each layer that runs leaves its path and shapes in the list."""
    calls: list[Call] = []
    reset = _calls.set(calls)
    try:
        yield calls
    finally:
        _calls.reset(reset)


@contextlib.contextmanager
def _entered(name: str, inputs: Sequence[Any]) -> Iterator[Callable[[Any], None]]:
    calls = _calls.get()
    if calls is None:
        yield lambda output: None
        return
    path = (*_path.get(), name)
    calls.append(Call(path, tuple(jax.tree.map(shape_struct, x) for x in inputs), None))
    place = len(calls) - 1
    reset = _path.set(path)

    def record(output: Any) -> None:
        calls[place] = calls[place]._replace(output=jax.tree.map(shape_struct, output))

    try:
        yield record
    finally:
        _path.reset(reset)


def _name_of(f: Callable) -> str:
    name = refusals.name_of(f)
    return "function" if name == "<lambda>" else name.lower()
