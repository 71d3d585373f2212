"""A function as one of its arrays alone, which is what jaxprs are made of."""

import contextlib
import difflib
import inspect
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..jaxpr import jaxprs
from ..jaxpr.concrete import as_jax
from ..jaxpr.passes import replaced
from ..jaxpr.places import is_plumbing
from ..nn.refusals import NOT_TRACEABLE
from ..types import require, shown

NO_FLOAT = "Nothing to differentiate: no argument has a floating dtype; write 1.0 in place of 1."
NO_PATH = "Nothing flows back: no floating path leads from an argument to the output"

NO_REVERSE = (
    "{}: expected a gradient that JAX can send back, got one through a while_loop, or a fori_loop "
    "of unknown length. Write jax.lax.scan, or fori_loop with fixed ends; or call "
    "trace(f)(...), which opens the loop."
)


@jax.tree_util.register_static
class Other:
    """A part of an output that is no array: a string, an object. A pytree without leaves."""

    def __init__(self, part: Any) -> None:
        self.part = part


class Program:
    """A function and what it is called with, as a function of its arrays alone.

    Arrays, and Python's integers, floating and complex numbers, are data; a bool, a string, None
    or a function is part of the program, and so is every keyword argument.

    Attributes:
        leaves: All leaves of the positional arguments.
        places: Which of them are arrays.
        arrays: Those.
        owner: The positional argument that each array belongs to.
    """

    def __init__(self, where: str, f: Callable, args: tuple, kwargs: dict[str, Any]) -> None:
        require(
            callable(f),
            where,
            "a function",
            shown(f),
            "Its arguments come in a second call.",
            TypeError,
        )
        self.where, self.f, self.args, self.kwargs = where, f, args, kwargs
        self.leaves, self.tree = jax.tree.flatten(args)
        self.places = [i for i, leaf in enumerate(self.leaves) if _is_data(leaf)]
        given = (self.leaves[i] for i in self.places)
        self.arrays = [
            leaf if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) else jnp.asarray(leaf)
            for leaf in given
        ]
        owners = [n for n, arg in enumerate(args) for _ in jax.tree.leaves(arg)]
        self.owner = [owners[i] for i in self.places]
        for array in self.arrays:
            require(
                not _is_deleted(array),
                where,
                "arrays that are still there",
                f"a deleted one of {array.dtype}[{','.join(map(str, array.shape))}]",
                "It was donated to a jitted function: pass what that returned, or a copy made "
                "before.",
            )

    def has_values(self) -> bool:
        """Whether each array has numbers in it, which a tracer or a `ShapeDtypeStruct` has not."""
        return not any(map(_is_abstract, self.arrays))

    def require_values(self) -> None:
        """Refuse arrays that are no more than their shapes.

        Raises:
            TypeError: If one is a `ShapeDtypeStruct`, or traced by a transformation around.
        """
        for array, name in zip(self.arrays, self.names(), strict=True):
            is_traced = jaxprs.is_traced(array)
            require(
                not is_traced and not isinstance(array, jax.ShapeDtypeStruct),
                self.where,
                f"an array as {name}",
                "a traced one" if is_traced else "a ShapeDtypeStruct",
                "Call it outside of jit, grad and vmap."
                if is_traced
                else "It has no numbers: pass an array of that shape.",
                TypeError,
            )

    def of_arrays(self, *arrays: Any) -> Any:
        """The function of its arrays. What is no array in its output is an `Other`.

        Raises:
            TypeError: If it is one that asks for the numbers in an array, as `math.sin` does. Of a
                function in Python, JAX's own error says where it does.
        """
        leaves = replaced(self.leaves, self.places, arrays)
        try:
            output = self.f(*self.tree.unflatten(leaves), **self.kwargs)
        except NOT_TRACEABLE as error:
            frames = traceback.extract_tb(error.__traceback__)
            require(
                not all(is_plumbing(frame.filename) for frame in frames),
                self.where,
                "a function of jax.numpy",
                f"{shown(self.f)}, which asks for the numbers in an array",
                "Write jnp for math and np.",
                TypeError,
            )
            raise
        return jax.tree.map(lambda y: y if _is_data(y) or _is_truth(y) else Other(y), output)

    def output(self, tree: Any, leaves: Sequence[Any]) -> Any:
        """What the function returns: its flat arrays in their structure, and what is no array."""
        return jax.tree.map(
            lambda y: y.part if isinstance(y, Other) else as_jax(y),
            tree.unflatten(leaves),
            is_leaf=lambda y: isinstance(y, Other),
        )

    def opened(self) -> tuple[Any, Any]:
        """The jaxpr, and the structure of the output.

        Raises:
            ValueError: If the function has side effects that reach out of it.
        """
        closed, tree = jaxprs.trace(self.of_arrays, *self.arrays)
        effects = jaxprs.outside_effects(closed)
        require(
            not effects,
            self.where,
            "a function without side effects",
            ", ".join(effects),
            "Take the callback out: what it would be given stands in the trace.",
        )
        return closed, tree

    def chosen(self, wrt: int | Sequence[int] | None) -> tuple[int, ...]:
        """The arguments to differentiate: those of `wrt`, counted as `jax.grad` does, or all.

        Raises:
            TypeError: If one that `wrt` names has no floating array.
            ValueError: If `wrt` names one that is not there, or none.
        """
        count = len(self.args)
        if wrt is None:
            return tuple(range(count))
        numbers = (wrt,) if isinstance(wrt, int) else tuple(wrt)
        require(
            numbers or not count,
            self.where,
            "wrt to name an argument",
            repr(wrt),
            "Leave it out to differentiate all.",
        )
        for i in numbers:
            require(
                isinstance(i, int) and -count <= i < count,
                self.where,
                f"wrt among the arguments 0 to {count - 1}",
                repr(i),
                "It counts positional arguments, as argnums of jax.grad does.",
            )
            own = [x for x, n in zip(self.arrays, self.owner, strict=True) if n == i % count]
            require(
                any(map(jaxprs.is_inexact, own)),
                self.where,
                "wrt to name arguments of a floating dtype",
                f"argument {i} of {', '.join(sorted({str(x.dtype) for x in own})) or 'no array'}",
                "An integer has no gradient.",
                TypeError,
            )
        return tuple(i % count for i in numbers)

    def active(self, chosen: tuple[int, ...]) -> list[bool]:
        """Which arrays take a gradient."""
        pairs = zip(self.arrays, self.owner, strict=True)
        return [owner in chosen and jaxprs.is_inexact(array) for array, owner in pairs]

    def gradients(self, found: Sequence[Any], wrt: int | Sequence[int] | None) -> Any:
        """Gradients of the arrays (None for one that takes none) in the structure of `wrt`."""
        leaves = replaced([None] * len(self.leaves), self.places, found)
        whole = self.tree.unflatten(leaves)
        if isinstance(wrt, int):
            return whole[wrt]
        return tuple(whole[i] for i in self.chosen(wrt))

    def names(self) -> list[str]:
        """Each array as Python writes it: "x", "params['dense']['w']"."""
        try:
            parameters = list(inspect.signature(self.f).parameters.values())
        except (TypeError, ValueError):
            parameters = []
        named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        plain = [p.name for p in parameters if p.kind in named]
        rest = next((p.name for p in parameters if p.kind == p.VAR_POSITIONAL), "args")
        paths = jax.tree_util.tree_leaves_with_path(self.args)
        found = []
        for i in self.places:
            first, *inner = paths[i][0]
            n = first.idx
            root = plain[n] if n < len(plain) else f"{rest}[{n - len(plain)}]"
            found.append(root + jax.tree_util.keystr(tuple(inner)))
        return found


def nearest(
    where: str, path: str, names: Iterable[str], kinds: str, error: type[Exception] = ValueError
) -> None:
    """Nothing if `path` is among `names`; else an error that says which of them are near it."""
    known = list(names)
    near = difflib.get_close_matches(path, known, 3, 0.3)
    remedy = f"The nearest are {', '.join(near)}." if near else "There is none."
    require(path in known, where, kinds, repr(path), remedy, error)


@contextlib.contextmanager
def reversible(where: str) -> Iterator[None]:
    """Says in one sentence that a gradient meets a loop whose length no one knows beforehand.

    Raises:
        ValueError: In the place of JAX's own.
    """
    try:
        yield
    except ValueError as error:
        if "while_loop" not in str(error) or "Reverse-mode" not in str(error):
            raise
        raise ValueError(NO_REVERSE.format(where)) from error


def seeds_of(
    where: str,
    tree: Any,
    shapes: Sequence[jax.ShapeDtypeStruct],
    seed: Any,
    has_aux: bool = False,
) -> list[Any]:
    """The adjoint that each flat output starts with, None for one that starts with nothing.

    With `has_aux` the output is `(loss, aux)`, and the seed is that of the loss.

    Raises:
        ValueError: If there is no seed and the output is not one number, the seed has another
            structure or shape than the output, or `has_aux` is set for another output than a pair.
    """
    if has_aux:
        loss, aux = pair_of(where, tree)
        own = seeds_of(where, loss, shapes[: loss.num_leaves], seed)
        return [*own, *[None] * aux.num_leaves]
    if seed is None:
        return [_one(where, shapes)]
    leaves = _seed_leaves(tree, seed)
    require(
        leaves is not None,
        where,
        f"a seed like the output, {tree}",
        jax.tree.structure(seed),
        "Write None where nothing starts.",
    )
    assert leaves is not None
    return [
        None if ct is None else _seed(where, ct, shape)
        for ct, shape in zip(leaves, shapes, strict=True)
    ]


def pair_of(where: str, tree: Any) -> tuple[Any, Any]:
    """The structures of loss and aux out of that of `(loss, aux)`.

    Raises:
        ValueError: If the output is no pair.
    """
    node = tree.node_data()
    require(
        node is not None and issubclass(node[0], tuple) and len(tree.children()) == 2,
        where,
        "a function that returns (loss, aux), as has_aux says",
        tree,
        "Return a pair, or leave has_aux out.",
    )
    loss, aux = tree.children()
    return loss, aux


def _one(where: str, shapes: Sequence[jax.ShapeDtypeStruct]) -> Any:
    """The seed of an output that is one real number."""
    single = shapes[0] if len(shapes) == 1 else None
    whole = single is not None and not jaxprs.is_inexact(single)
    require(
        single is not None and single.shape == () and not whole,
        where,
        "one real number as output, or a seed",
        f"{len(shapes)} outputs" if single is None else f"{single.dtype} of shape {single.shape}",
        "It has no gradient: write 1.0 in place of 1 among the arguments, and keep the result "
        "floating."
        if whole
        else "Pass seed=, the adjoint of the output: an array of its shape, or a pytree like it "
        "with None where nothing starts.",
    )
    assert single is not None
    return as_jax(np.ones((), single.dtype))


def _seed_leaves(tree: Any, seed: Any) -> list[Any] | None:
    """The seed of each leaf, where None may stand for a whole part; None if it does not fit."""
    with contextlib.suppress(ValueError, TypeError):
        return tree.flatten_up_to(seed)
    leaves, prefix = jax.tree.flatten(seed, is_leaf=lambda part: part is None)
    try:
        parts = prefix.flatten_up_to(tree.unflatten(range(tree.num_leaves)))
    except (ValueError, TypeError):
        return None
    found: list[Any] = []
    for ct, part in zip(leaves, parts, strict=True):
        if ct is not None and not isinstance(part, int):
            return None
        found += [ct] * len(jax.tree.leaves(part))
    return found


def _seed(where: str, ct: Any, like: jax.ShapeDtypeStruct) -> Any:
    ct = jnp.asarray(ct)
    real = not jnp.issubdtype(like.dtype, np.complexfloating)
    require(
        not (real and jnp.iscomplexobj(ct)),
        where,
        f"a real seed for an output of {like.dtype}",
        f"one of {ct.dtype}",
        "It is the adjoint of the output: pass its real part.",
    )
    require(
        ct.shape in ((), like.shape) and jaxprs.is_inexact(like),
        where,
        f"a seed of shape {like.shape} for an output of {like.dtype}"
        if jaxprs.is_inexact(like)
        else f"None as the seed of an output of {like.dtype}",
        f"one of shape {ct.shape}",
        "It is the adjoint of the output.",
    )
    return jnp.broadcast_to(ct.astype(like.dtype), like.shape)


def _is_truth(leaf: Any) -> bool:
    return isinstance(leaf, bool | np.bool_)


def _is_data(leaf: Any) -> bool:
    return not _is_truth(leaf) and (
        isinstance(leaf, int | float | complex) or hasattr(leaf, "dtype")
    )


def _is_abstract(array: Any) -> bool:
    return isinstance(array, jax.ShapeDtypeStruct) or jaxprs.is_traced(array)


def _is_deleted(array: Any) -> bool:
    return not jaxprs.is_traced(array) and hasattr(array, "is_deleted") and array.is_deleted()
