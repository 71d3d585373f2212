"""Random keys that are used twice: the same numbers come out each time."""

from collections.abc import Iterator

from ...jaxpr.walk import reached
from .findings import Finding, shown
from .graph import Graph, Node

_USES = {"random_bits": "drawn from", "random_split": "split", "random_gamma": "drawn from"}


def reused(graph: Graph) -> Iterator[Finding]:
    """A finding for each key that is drawn from, or split, more than once."""
    first: dict[object, Node] = {}
    told: set[object] = set()
    for node in graph.nodes:
        if node.label not in _USES or node.at is None:
            continue
        key = node.operands[0]
        identity = key.same
        before = first.setdefault(identity, node)
        loops = node.turns[len(_turns(key)) :]
        times = max((turn.length or 2 for turn in loops), default=1)
        if before is not node and not _exclusive(before, node) and not _one_call(before, node):
            again = "again" if _verb(node) == _verb(before) else _verb(node)
            second = f"in {shown(before.place)} and {again} here"
        elif before is node and times > 1:
            second = f"{times:,} times here, once in each iteration of a loop"
        else:
            continue
        if any(source.same in told for source in reached([key], lambda n: n.operands)):
            continue
        told.add(identity)
        yield Finding(
            "key-reused", "happens", node.place,
            f"One random key is {_verb(before)} {second}: {_outcome(before, node)}.",
            "key, own = jax.random.split(key) before each use"
            if times == 1
            else "jax.random.fold_in(key, i) with the number of the iteration",
        )  # fmt: skip


def _verb(node: Node) -> str:
    return _USES[node.label]


def _outcome(before: Node, node: Node) -> str:
    if _verb(before) != _verb(node):
        return "what is drawn may depend on what is split off"
    return f"the {'numbers' if _verb(node) == 'drawn from' else 'keys'} are the same"


def _turns(key: Node) -> tuple:
    """The loops in which a key differs from iteration to iteration."""
    deepest = key.turns if key.e is None else ()
    found = [_turns(operand) for operand in key.operands] if key.e is not None else []
    return max([deepest, *found], key=len)


def _exclusive(a: Node, b: Node) -> bool:
    """Whether two values are in different branches, of which one runs."""
    assert a.at is not None
    assert b.at is not None
    for depth, (i, j) in enumerate(zip(a.at.path, b.at.path, strict=False)):
        if i != j:
            return depth % 2 == 1
    return False


def _one_call(a: Node, b: Node) -> bool:
    """Whether JAX itself uses a key twice in one of its functions."""
    assert a.at is not None
    assert b.at is not None
    return a.at.library and b.at.library and a.at.path[:-1] == b.at.path[:-1]
