"""Networks out of networks: each combinator takes layers and gives a layer.

`serial` and `parallel` are the common shapes; `network` takes any other wiring, written as a plain
function. Where a layer is expected, a function will do: `serial(Dense(128), relu, Dense(10))`.
"""

import itertools
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import jax.numpy as jnp

from ..jaxpr.changes import needed
from ..jaxpr.jaxprs import evaluate, is_traced, shape_struct, trace
from ..types import Key, Params, State, require, shown
from . import refusals
from .layer import Layer, child_key, lift, run_child


class Bound:
    """The children of a network, bound to their parameters, state and key for one call of its body.

    `net.dense(x)` runs the child `dense`: its parameters and state are taken and put back, its key
    is folded in from its name. A child called twice shares its parameters. It runs in the mode of
    the network, or in its own: `net.dense(x, train=False)` runs it as in evaluation, also while the
    rest is being trained, and `train=True` as in training, which takes a key where it draws.

    Attributes:
        params: The network's parameters, each child's under its name.
        state: The network's state, as the children called so far have left it.
        train: Whether this is training.
        key: A key for the body's own draws, or None.
    """

    def __init__(
        self,
        where: str,
        children: dict[str, Layer],
        params: Params,
        state: State,
        train: bool,
        key: Key | None,
        init: bool = False,
    ) -> None:
        self.params = params
        self.state = dict(state)
        self.train = train
        self.key = child_key(key, "")
        self._where, self._children, self._key, self._init = where, children, key, init
        self._calls = dict.fromkeys(children, 0)

    def __getattr__(self, name: str) -> Callable:
        children = object.__getattribute__(self, "_children")
        require(
            name in children,
            self._where,
            f"one of the children {', '.join(children) or '(it has none)'}",
            repr(name),
            "Children are the keyword arguments of network().",
            AttributeError,
        )

        def _call(*inputs: Any, train: bool | None = None, **unknown: Any) -> Any:
            require(
                not unknown,
                self._where,
                f"no option but train in the call of {name}",
                ", ".join(unknown),
                f"Inputs go by position: net.{name}(x), or net.{name}(x, train=False).",
                TypeError,
            )
            return self._run(name, inputs, self.train if train is None else train)

        return _call

    def __getitem__(self, name: Any) -> NoReturn:
        raise TypeError(
            f"{self._where}: expected a child by its name, as in net.dense(x), got "
            f"net[{name!r}]. Where the name is computed, write getattr(net, name)(x)."
        )

    def _run(self, name: str, inputs: tuple, train: bool) -> Any:
        child, call = self._children[name], self._calls[name]
        self._calls[name] += 1
        key = child_key(self._key, name, call)
        if self._init and call == 0 and name not in self.params and name not in self.state:
            params, state = child.init(key, *inputs)
            self.params.update({name: params} if params else {})
            self.state.update({name: state} if state else {})
        params, state = self.params.get(name, {}), self.state.get(name, {})
        output, new = run_child(child, name, params, state, inputs, train=train, key=key)
        if name in self.state and not self._init:
            self.state[name] = new
        return output


BODY = (
    "The first is the bound network; net.init(key, *inputs) and net(params, *inputs) give the rest."
)

OF_A_LIST = (sum, jnp.concatenate, jnp.stack, jnp.hstack, jnp.vstack, jnp.dstack)

RESERVED = ("params", "state", "train", "key")


def _is_reserved(name: str) -> bool:
    return name in RESERVED or name.startswith("_")


def network(*unnamed: Any, **children: Layer | Callable) -> Callable[[Callable], Layer]:
    """Any wiring of named children, as a plain function of the bound network and its inputs.

    Args:
        *unnamed: Nothing; who gives a child without a name is told so.
        **children: Layers or plain functions. A child's name is its key in `params`.

    Returns:
        A decorator: it turns `body(net, *inputs)` into a `Layer` named after the body.

    Raises:
        TypeError: If a child has no name or is neither layer nor function, if the body is no
            function, or, when the network is applied, if the body returns nothing.
        ValueError: If a child has a reserved name, or, when the network is applied, if the
            parameters are those of another network.

    >>> from funcnet.layers.linear import Dense
    >>> @network(up=Dense(16), down=Dense(4))
    ... def block(net, x):
    ...     return x + net.down(jnp.tanh(net.up(x)))
    >>> params, state = block.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> sorted(params), block(params, jnp.ones((2, 4))).shape
    (['down', 'up'], (2, 4))
    """
    require(
        not unnamed,
        "network",
        "children by name",
        f"{', '.join(map(shown, unnamed))} without one",
        "Write @network(up=Dense(16)) above the body, and @network() where there are none.",
        TypeError,
    )
    for name in children:
        require(
            not _is_reserved(name),
            "network",
            f"children not named {', '.join(RESERVED)} or with a leading underscore",
            repr(name),
            "Those names belong to the bound network itself; choose another.",
        )
    layers = {name: lift(child, "network") for name, child in children.items()}

    def decorate(body: Callable) -> Layer:
        require(
            callable(body) and not isinstance(body, Layer),
            "network",
            "a body (net, *inputs)",
            shown(body),
            "It says in which order the children run.",
            TypeError,
        )
        return _network(refusals.name_of(body).lower(), layers, body)

    decorate.__name__ = f"network({', '.join(children)})"
    for name in ("init", "apply", "summary"):  # of who takes the children alone for a network
        setattr(decorate, name, _without_body)
    return decorate


def _without_body(*args: Any, **options: Any) -> NoReturn:
    raise TypeError(
        "network: expected a body (net, *inputs), got the children alone. Write "
        "@network(up=Dense(16)) above a function that says in which order they run, or serial()."
    )


def _network(where: str, layers: dict[str, Layer], body: Callable) -> Layer:
    def run(net: Bound, *inputs: Any) -> Any:
        output = refusals.call(where, body, net, *inputs, remedy=BODY)
        return refusals.check_output(where, output, isinstance(output, Layer))

    def init(key: Key, *inputs: Any) -> tuple[Params, State]:
        shapes = [jax.tree.map(shape_struct, x) for x in inputs]

        def draw(key: Key) -> tuple[Params, State]:
            zeros = [jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), x) for x in shapes]
            net = Bound(where, layers, {}, {}, False, key, init=True)
            run(net, *zeros)
            if 0 in net._calls.values():  # a child that is called in training alone
                net = Bound(where, layers, net.params, net.state, True, key, init=True)
                run(net, *zeros)
            return net.params, net.state

        return draw(key) if is_traced(key) else _one_by_one(draw, key)

    def apply(
        params: Params, state: State, *inputs: Any, train: bool = False, key: Key | None = None
    ) -> tuple[Any, State]:
        for kind, tree in (("parameters", params), ("state", state)):
            strange = sorted(set(tree) - set(layers))
            require(
                not strange,
                where,
                f"{kind} for the children {', '.join(layers)}",
                f"some for {', '.join(map(str, strange))}",
                "They belong to another network: use what this one's net.init(key, x) returned.",
            )
        net = Bound(where, layers, params, state, train, key)
        output = run(net, *inputs)
        return output, {name: net.state[name] for name in state}

    return Layer(init, apply, where)


def _one_by_one(draw: Callable[[Key], Any], key: Key) -> Any:
    """`draw(key)`, of which only what the parameters need is run, each draw as a program.

    Draws of one shape share theirs, so a deep network takes no longer to compile than one block.
    """
    closed, tree = trace(draw, key)
    return tree.unflatten(evaluate(needed(closed), key))


def serial(*layers: Layer | Callable, **named: Layer | Callable) -> Layer:
    """One after the other: the output of each is the input of the next; the first takes all inputs.

    A positional child is named by what it is: `dense`, `dense_1`. Named children come last.

    Raises:
        TypeError: If a child is neither a layer nor a function of arrays, such as a layer's maker
            that was not called.
        ValueError: If a name is reserved or taken.

    >>> from funcnet.layers.linear import Dense
    >>> net = serial(Dense(8), jnp.tanh, Dense(8), head=Dense(2))
    >>> params, state = net.init(jax.random.key(0), jnp.ones((1, 3)))
    >>> list(params)
    ['dense', 'dense_1', 'head']
    """
    children = _named("serial", layers, named)

    def body(net: Bound, *inputs: Any) -> Any:
        for name in children:
            inputs = (getattr(net, name)(*inputs),)
        return inputs[0] if len(inputs) == 1 else inputs

    return _network("serial", children, body)


def parallel(
    *layers: Layer | Callable, merge: Callable | None = None, **named: Layer | Callable
) -> Layer:
    """Side by side on the same inputs; the outputs as a tuple, or `merge(*outputs)`.

    Raises:
        TypeError: If a child is neither a layer nor a function of arrays, or `merge` no function
            of the outputs one by one.
        ValueError: If a name is reserved or taken.

    >>> both = parallel(jnp.sin, jnp.cos, merge=jnp.multiply)
    >>> float(both({}, 0.0))
    0.0
    """
    children = _named("parallel", layers, named)
    require(
        merge is None or (callable(merge) and not isinstance(merge, Layer)),
        "parallel",
        "merge to be a function of the outputs",
        shown(merge),
        "Pass one such as jnp.add, and None for the tuple of the outputs.",
        TypeError,
    )

    require(
        merge not in OF_A_LIST,
        "parallel",
        "merge to take the outputs one by one",
        f"{shown(merge)}, which takes a list of them",
        "Write merge=lambda *outputs: jnp.concatenate(outputs, -1).",
        TypeError,
    )

    def body(net: Bound, *inputs: Any) -> Any:
        outputs = tuple(getattr(net, name)(*inputs) for name in children)
        return outputs if merge is None else merge(*outputs)

    return _network("parallel", children, body)


def _named(
    where: str, layers: tuple[Layer | Callable, ...], named: dict[str, Layer | Callable]
) -> dict[str, Layer]:
    children: dict[str, Layer] = {}
    for layer in (lift(layer, where) for layer in layers):
        numbered = (f"{layer.name}_{n}" if n else layer.name for n in itertools.count())
        free = (name for name in numbered if name not in children and not _is_reserved(name))
        children[next(free)] = layer
    for name, layer in named.items():
        require(
            name not in children and not _is_reserved(name),
            where,
            "a name that no other child has",
            repr(name),
            "Choose another name.",
        )
        children[name] = lift(layer, where)
    return children
