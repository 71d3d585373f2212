"""Networks out of networks: each combinator takes layers and gives a layer.

`serial`, `parallel`, `residual`, `repeat`, `ensemble` and `remat` are the common shapes;
`network` takes any other wiring, written as a plain function. Where a layer is expected, a plain
function will do: `serial(Dense(128), relu, Dense(10))`.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .jaxprs import is_traced, shape_struct
from .layer import Layer, child_key, lift, run_child
from .types import Key, Params, State, require


class Bound:
    """The children of a network, bound to their parameters, state and key for one call of its body.

    `net.dense(x)` runs the child `dense`: its parameters and state are taken and put back, its key
    is folded in from its name. A child called twice shares its parameters.

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
        return lambda *inputs: self._run(name, inputs)

    def _run(self, name: str, inputs: tuple) -> Any:
        child, call = self._children[name], self._calls[name]
        self._calls[name] += 1
        key = child_key(self._key, name, call)
        if self._init and call == 0 and name not in self.params and name not in self.state:
            params, state = child.init(key, *inputs)
            self.params.update({name: params} if params else {})
            self.state.update({name: state} if state else {})
        params, state = self.params.get(name, {}), self.state.get(name, {})
        output, new = run_child(child, name, params, state, inputs, train=self.train, key=key)
        if name in self.state and not self._init:
            self.state[name] = new
        return output


RESERVED = ("params", "state", "train", "key")


def _is_reserved(name: str) -> bool:
    return name in RESERVED or name.startswith("_")


def network(**children: Layer | Callable) -> Callable[[Callable], Layer]:
    """Any wiring of named children, as a plain function of the bound network and its inputs.

    Args:
        **children: Layers or plain functions. A child's name is its key in `params`.

    Returns:
        A decorator: it turns `body(net, *inputs)` into a `Layer` named after the body.

    Raises:
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
        return _network(body.__name__.lower(), layers, body)

    return decorate


def _network(where: str, layers: dict[str, Layer], body: Callable) -> Layer:
    def init(key: Key, *inputs: Any) -> tuple[Params, State]:
        shapes = [jax.tree.map(shape_struct, x) for x in inputs]

        def draw(key: Key) -> tuple[Params, State]:
            zeros = [jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), x) for x in shapes]
            net = Bound(where, layers, {}, {}, False, key, init=True)
            body(net, *zeros)
            if 0 in net._calls.values():  # a child that is called in training alone
                net = Bound(where, layers, net.params, net.state, True, key, init=True)
                body(net, *zeros)
            return net.params, net.state

        return draw(key) if is_traced(key) else jax.jit(draw)(key)

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
        output = body(net, *inputs)
        return output, {name: net.state[name] for name in state}

    return Layer(init, apply, where)


def serial(*layers: Layer | Callable, **named: Layer | Callable) -> Layer:
    """One after the other: the output of each is the input of the next; the first takes all inputs.

    A positional child is named by what it is: `dense`, `dense_1`. Named children come last.

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

    >>> both = parallel(jnp.sin, jnp.cos, merge=jnp.multiply)
    >>> float(both({}, 0.0))
    0.0
    """
    children = _named("parallel", layers, named)

    def body(net: Bound, *inputs: Any) -> Any:
        outputs = tuple(getattr(net, name)(*inputs) for name in children)
        return outputs if merge is None else merge(*outputs)

    return _network("parallel", children, body)


def residual(layer: Layer | Callable) -> Layer:
    """`x + layer(x)`; its parameters are the layer's own. Further inputs go to the layer alone.

    Raises:
        ValueError: When applied, if the layer changes the shape.

    >>> float(residual(jnp.sin)({}, 0.5) - jnp.sin(0.5))
    0.5

    Reference: He et al., "Deep Residual Learning for Image Recognition", 2016, equation 1.
    """
    inner = lift(layer, "residual")

    def apply(
        params: Params,
        state: State,
        x: Any,
        *rest: Any,
        train: bool = False,
        key: Key | None = None,
    ) -> tuple[Any, State]:
        output, state = inner.apply(params, state, x, *rest, train=train, key=key)
        _same_shape("residual", x, output, "Project the input with network() instead.")
        return x + output, state

    return Layer(inner.init, apply, inner.name)


def repeat(layer: Layer | Callable, n: int) -> Layer:
    """`layer` applied `n` times, each time with its own parameters, stacked along axis 0.

    One `jax.lax.scan` runs them, so the time to compile does not grow with the depth. State is
    stacked likewise. Inputs after the first go unchanged to every copy.

    Raises:
        ValueError: If `n` is below 1, the layer changes the shape or dtype of its input, or the
            parameters are not stacked `n` deep.

    >>> from funcnet.layers.linear import Dense
    >>> params, state = repeat(Dense(4), 8).init(jax.random.key(0), jnp.ones((2, 4)))
    >>> params["w"].shape
    (8, 4, 4)
    """
    inner = _many("repeat", layer, n)

    def init(key: Key, x: Any, *rest: Any) -> tuple[Params, State]:
        return jax.vmap(lambda k: inner.init(k, x, *rest))(_keys(key, n))

    def apply(
        params: Params,
        state: State,
        x: Any,
        *rest: Any,
        train: bool = False,
        key: Key | None = None,
    ) -> tuple[Any, State]:
        _stacked("repeat", (params, state), n)
        keys = None if key is None else _keys(key, n)

        def body(x: Any, copy: tuple) -> tuple[Any, State]:
            own, carried, key = copy
            output, carried = inner.apply(own, carried, x, *rest, train=train, key=key)
            _same_kind("repeat", x, output)
            return output, carried

        return jax.lax.scan(body, x, (params, state, keys), length=n)

    return Layer(init, apply, inner.name)


def ensemble(layer: Layer | Callable, n: int) -> Layer:
    """`n` copies with their own parameters on the same inputs; outputs are stacked along axis 0.

    Raises:
        ValueError: If `n` is below 1, or the parameters are not stacked `n` deep.

    >>> from funcnet.layers.linear import Dense
    >>> five = ensemble(Dense(3), 5)
    >>> params, state = five.init(jax.random.key(0), jnp.ones((2, 4)))
    >>> five(params, jnp.ones((2, 4))).shape
    (5, 2, 3)
    """
    inner = _many("ensemble", layer, n)

    def init(key: Key, *inputs: Any) -> tuple[Params, State]:
        return jax.vmap(lambda k: inner.init(k, *inputs))(_keys(key, n))

    def apply(
        params: Params, state: State, *inputs: Any, train: bool = False, key: Key | None = None
    ) -> tuple[Any, State]:
        _stacked("ensemble", (params, state), n)
        keys = None if key is None else _keys(key, n)

        def one(params: Params, state: State, key: Key | None) -> tuple[Any, State]:
            return inner.apply(params, state, *inputs, train=train, key=key)

        return jax.vmap(one, axis_size=n)(params, state, keys)

    return Layer(init, apply, inner.name)


def remat(layer: Layer | Callable, policy: Callable | None = None) -> Layer:
    """`layer` with its insides computed again in the backward pass instead of kept.

    Args:
        layer: What to wrap.
        policy: Which values to keep all the same; see `jax.checkpoint_policies`. Ops with
            hand-written rules are kept by name: `save_only_these_names("dense", "conv")`.

    >>> float(jax.grad(lambda x: remat(jnp.sin)({}, x))(0.0))
    1.0

    Reference: Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016.
    """
    inner = lift(layer, "remat")

    def apply(
        params: Params, state: State, *inputs: Any, train: bool = False, key: Key | None = None
    ) -> tuple[Any, State]:
        def run(params: Params, state: State, inputs: Any, key: Key | None) -> tuple[Any, State]:
            return inner.apply(params, state, *inputs, train=train, key=key)

        return jax.checkpoint(run, policy=policy)(params, state, inputs, key)

    return Layer(inner.init, apply, inner.name)


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


def _many(where: str, layer: Layer | Callable, n: int) -> Layer:
    require(
        hasattr(n, "__index__") and n >= 1,
        where,
        "a whole number of copies, 1 or more",
        repr(n),
        f"Write {where}(layer, 8) for eight.",
    )
    return lift(layer, where)


def _keys(key: Key, n: int) -> Key:
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(n))


def _stacked(where: str, tree: Any, n: int) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        require(
            jnp.ndim(leaf) >= 1 and leaf.shape[0] == n,
            where,
            f"parameters and state stacked {n} deep along axis 0",
            f"shape {jnp.shape(leaf)} at {jax.tree_util.keystr(path[1:])}",
            "Use what this network's own net.init(key, x) returned.",
        )


def _same_kind(where: str, x: Any, output: Any) -> None:
    given, made = (jax.tree.map(lambda leaf: str(jax.typeof(leaf)), tree) for tree in (x, output))
    require(
        given == made,
        where,
        f"a layer that keeps the shape and dtype of its input, {given}",
        f"an output of {made}",
        "A layer that is repeated is fed its own output; project or cast outside of it.",
    )


def _same_shape(where: str, x: Any, output: Any, remedy: str) -> None:
    require(
        jnp.shape(x) == jnp.shape(output),
        where,
        f"a layer that keeps the shape {jnp.shape(x)}",
        f"an output of shape {jnp.shape(output)}",
        remedy,
    )
