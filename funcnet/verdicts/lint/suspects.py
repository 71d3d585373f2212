"""Operations that may be singular where a gradient flows, and the masks after them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...jaxpr.walk import reached
from ...types import Array
from .graph import Node, Reach
from .singular import OVERFLOWS, Singular, singular_of


class Suspect(NamedTuple):
    """An operation that may be singular where a gradient flows through it.

    Attributes:
        node: Its result.
        kind: What it is.
        mask: The `where`, maximum or minimum that leaves such elements out, if one does.
        related: Whether that looks at what the operation is computed from.
        back: Whether that looks at the result of the operation.
        undone: Whether what overflows is then divided by, or its logarithm taken.
    """

    node: Node
    kind: Singular
    mask: Node | None
    related: bool
    back: bool
    undone: bool

    @property
    def operand(self) -> Node:
        """The operand that decides."""
        return self.node.operands[self.kind.operand]

    @property
    def path(self) -> tuple[int, ...]:
        """Where it stands in the program."""
        assert self.node.at is not None
        return self.node.at.path

    @property
    def is_masked(self) -> bool:
        """Whether a `where` leaves elements of it out."""
        return self.mask is not None and self.mask.label == "select_n"

    @property
    def is_known(self) -> bool:
        """Whether it is one of those of which only values tell."""
        overflows = self.kind.at == OVERFLOWS
        return overflows or self.operand.range.guarded or self.node.label == "mul"

    @property
    def is_suspected(self) -> bool:
        """Whether it is worth a word where nothing was counted to happen.

        Of an operand that nothing is known of, only a mask says that it may lie there.
        """
        if self.undone or squashed_before_log(self.node) is not None:
            return True
        if self.operand.range.guarded and not self.operand.range.special:
            return False
        if self.is_masked and self.related:
            return True
        return self.operand.range.has_end and not self.is_known


def suspects(nodes: Sequence[Node], reach: Reach) -> list[Suspect]:
    """The operations that may be singular, in the order of the program."""
    found = []
    for node in nodes:
        kind = singular_of(node)
        if kind is None or node.hidden or node.fixed or not node.flows:
            continue
        product, matters = _product_with(node, reach), reach.matters(node)
        mask = mask_of(node if matters or product is None else product, reach)
        if not _may_be_singular(node, kind, mask, reach):
            continue
        if product is not None:  # the other factor's gradient is a multiple of this value
            kind = kind._replace(slope=_either(kind))
        elif not matters or (mask is not None and _is_gated(node, mask, reach)):
            continue
        if matters or (mask is not None and mask.label == "select_n"):
            found.append(_suspect(node, kind, mask, reach))
    return found


def _may_be_singular(node: Node, kind: Singular, mask: Node | None, reach: Reach) -> bool:
    if node.label == "mul":
        return _moved_by_special(node, reach) or (mask is not None and _is_of_nan(mask))
    touches = kind.touches(*(operand.range for operand in node.operands))
    return touches or squashed_before_log(node) is not None


def _is_of_nan(mask: Node) -> bool:
    """Whether a `where` asks what is NaN: the one who wrote it expects some."""
    which = mask.operands[0].plain
    return which.label == "ne" and which.operands[0] is which.operands[1]


def _is_gated(node: Node, mask: Node, reach: Reach) -> bool:
    """Whether what a mask leaves out has no gradient before the operation either.

    So it is after `where(ok, x, 0)`, if the mask asks for the same; and after what `jax.vmap`
    makes of a cond.
    """
    if mask.label != "select_n":
        return False
    inside = [node in reached([branch], lambda n: n.operands) for branch in mask.operands[1:]]

    def is_stopped(n: Node) -> bool:
        if n not in reach.moving:
            return True
        if n.label != "select_n":
            return n.label in _ELEMENTWISE and all(map(is_stopped, n.operands))
        branches = n.operands[1:]
        stops = (b.label == "stop_gradient" and b.operands[0] in branches for b in branches)
        same = n.operands[0].plain.same == mask.operands[0].plain.same
        same = same and [branch in reach.moving for branch in branches] == inside
        return same or any(stops) or all(map(is_stopped, branches))

    return all(map(is_stopped, node.operands))


def _either(kind: Singular) -> Callable[..., Array]:
    """Where slope or value are not finite."""
    return lambda *operands: kind.slope(*operands) | kind.value(*operands)


def _suspect(node: Node, kind: Singular, mask: Node | None, reach: Reach) -> Suspect:
    related = mask is not None and _looks_at(mask, node)
    back = mask is not None and _looks_back(mask, node)
    undone = kind.at == OVERFLOWS and _is_undone(node, reach)
    return Suspect(node, kind, mask, related, back, undone)


def _product_with(node: Node, reach: Reach) -> Node | None:
    """A product, or quotient, of what is made of a value with another that has a gradient."""
    seen, queue = {node}, [node]
    while queue:
        here = queue.pop(0)
        for reader in reach.readers.get(here, ()):
            others = [n for n in reader.operands if n not in seen and n in reach.moving]
            if reader.label in ("mul", "div") and others and reach.matters(reader):
                return reader
            if reader.label in _ELEMENTWISE and reader not in seen:
                seen.add(reader)
                queue.append(reader)
    return None


def _moved_by_special(node: Node, reach: Reach) -> bool:
    a, b = node.operands
    return (a.range.special and b in reach.moving) or (b.range.special and a in reach.moving)


_ELEMENTWISE = {
    "add", "sub", "mul", "div", "neg", "abs", "exp", "log", "log1p", "expm1", "sqrt", "rsqrt",
    "square", "integer_pow", "pow", "tanh", "logistic", "sin", "cos", "broadcast_in_dim", "reshape",
    "squeeze", "expand_dims", "convert_element_type", "copy", "name", "add_any", "erf", "clamp",
    "atan", "acos", "asin", "atanh", "acosh", "asinh", "sinh", "cosh", "tan", "cbrt", "exp2",
    "atan2", "lgamma", "digamma", "transpose",
}  # fmt: skip


def mask_of(node: Node, reach: Reach) -> Node | None:
    """The nearest operation after a value that leaves elements of it out."""
    seen, queue = {node}, [node]
    while queue:
        here = queue.pop(0)
        for reader in reach.readers.get(here, ()):
            if reader in seen or not reach.matters(reader):
                continue
            seen.add(reader)
            if _leaves_out(reader, node):
                return reader
            if reader.label in _ELEMENTWISE:
                queue.append(reader)
    return None


def _leaves_out(mask: Node, node: Node) -> bool:
    """Whether an operation takes some of its elements from elsewhere than from `node`."""
    if mask.label == "select_n":
        branches = mask.operands[1:] if mask.operands[0].range.one is None else []
    else:
        branches = mask.operands if mask.label in ("max", "min") else []
    from_node = [node in reached([branch], lambda n: n.operands) for branch in branches]
    return any(from_node) and not all(from_node)


def _looks_at(mask: Node, node: Node) -> bool:
    """Whether the condition of a mask is made from what an operation is computed from."""
    if mask.label != "select_n":
        return False
    before = reached([mask.operands[0]], lambda n: [] if n is node else n.operands)
    own = reached(node.operands, lambda n: n.operands)
    return any(n in own and not n.fixed for n in before)


def _looks_back(mask: Node, node: Node) -> bool:
    """Whether the condition of a mask is made from the result of an operation."""
    return mask.label == "select_n" and node in reached([mask.operands[0]], lambda n: n.operands)


def _is_undone(node: Node, reach: Reach) -> bool:
    """Whether what overflows is then divided by, or its logarithm taken: 1 / (1 + exp(x))."""
    for reader in reach.readers.get(node, ()):
        if reader.label == "log1p":
            return True
        if reader.label != "add" or not any(operand.fixed for operand in reader.operands):
            continue
        for last in reach.readers.get(reader, ()):
            below = last.label == "div" and last.operands[1] is reader
            if reach.matters(last) and (below or last.label in ("log", "integer_pow")):
                return True
    return False


_PICKS = {"reshape", "squeeze", "gather", "slice", "dynamic_slice", "transpose", "copy", "name"}
_PICKS |= {"broadcast_in_dim", "convert_element_type"}


def squashed_before_log(node: Node) -> tuple[str, Node] | None:
    """For a logarithm of a softmax or a sigmoid: what computes both, and the squashed value."""
    if node.label != "log":
        return None
    below = node.operands[0]
    while below.label in _PICKS:
        below = below.operands[0]
    if _is_softmax(below):
        return "log_softmax", below
    if below.label in ("logistic", "sigmoid"):
        return "log_sigmoid", below
    if below.label == "sub" and below.operands[0].range.one == 1:
        squashed = below.operands[1].plain
        if squashed.label in ("logistic", "sigmoid"):
            return "log_sigmoid of the negative", squashed
    return None


def _is_softmax(node: Node) -> bool:
    if node.label in ("softmax", "_softmax"):
        return True
    if node.label != "div":
        return False
    above, below = (operand.plain for operand in node.operands)
    return above.label == "exp" and below.label == "reduce_sum" and below.operands[0].plain is above
